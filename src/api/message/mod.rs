//! A command as a request, both ways.
//!
//! ```text
//! {"proof":{"passphrase":"…"},"tenants":["a"]} <--> Command::TenantRemove { proof: Passphrase, tenants }
//!            `-- a SecretText at once                + [the secret]
//! ```
//!
//! A member with a secret is read from the text of the body into a buffer of its own, and is never a
//! `serde_json::Value`. What is read is strict: a member that is unknown, or comes twice, is an error.
//! Errors are words of ours: those of the parser may quote a secret.

mod strict;

use std::fmt;

use secrecy::ExposeSecret;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::admin::{Command, Proof, SlotRequest};
use crate::api::routes::{FLAGS, NUMBERS, ROOT, Route, SECRET};
use crate::memory::SecretText;

use strict::{NO_OBJECT, strict_value};

pub(super) use strict::read_members;

/// Longest secret, in bytes.
const MAX_SECRET: usize = 4 << 10;
/// Most secrets of a command.
const MAX_SECRETS: usize = 512;

const NO_SECRET: &str = "a proof, a slot or a passphrase is not as docs/admin-api.md has it";

/// A request of the client's.
pub(super) struct Message {
    /// With its query.
    pub(super) target: String,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// What is read is a secret from the start.
struct Secret(SecretText);

/// The secret that `text` is, whatever its length, if it is a string.
pub(super) fn secret(text: &RawValue) -> Option<SecretText> {
    let text = text.get();
    // Without escapes it is taken as it stands.
    let verbatim = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match verbatim.filter(|text| !text.contains('\\')) {
        Some(verbatim) => Some(verbatim.into()),
        None => serde_json::from_str::<String>(text)
            .ok()
            .map(|text| Zeroizing::new(text).as_str().into()),
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Secret, E> {
                let fits = text.len() <= MAX_SECRET;
                if fits { Ok(Secret(text.into())) } else { Err(E::custom("too long")) }
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// `proof`
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum ProofMember {
    Command { words: Vec<String> },
    KeyFile(Secret),
    Passphrase(Secret),
    Shares(Vec<Secret>),
}

/// `slot`
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum SlotMember {
    Command { words: Vec<String> },
    KeyFile(Secret),
    Passphrase(Secret),
    Shares { threshold: u8, count: u8 },
}

impl ProofMember {
    fn split(self, secrets: &mut Vec<SecretText>) -> Option<Proof> {
        Some(match self {
            Self::Command { words } => Proof::Command { words },
            Self::KeyFile(Secret(content)) => {
                secrets.push(content);
                Proof::KeyFile
            }
            Self::Passphrase(Secret(passphrase)) => {
                secrets.push(passphrase);
                Proof::Passphrase
            }
            Self::Shares(shares) => {
                let count = u8::try_from(shares.len()).ok()?;
                secrets.extend(shares.into_iter().map(|Secret(share)| share));
                Proof::Shares { count }
            }
        })
    }
}

impl SlotMember {
    fn split(self, secrets: &mut Vec<SecretText>) -> SlotRequest {
        match self {
            Self::Command { words } => SlotRequest::Command { words },
            Self::KeyFile(Secret(content)) => {
                secrets.push(content);
                SlotRequest::KeyFile
            }
            Self::Passphrase(Secret(passphrase)) => {
                secrets.push(passphrase);
                SlotRequest::Passphrase
            }
            Self::Shares { threshold, count } => SlotRequest::Shares { threshold, count },
        }
    }
}

/// The command that a request to `route` is, and its secrets. `parts` are of the path.
///
/// # Errors
///
/// What is wrong, in words that hold nothing of the request.
pub(super) fn read(
    route: &Route,
    parts: &[(&'static str, &str)],
    query: Option<&str>,
    body: &[u8],
) -> Result<(Command, Vec<SecretText>), String> {
    let unknown = || match route.members {
        [] => "this route takes no members".to_owned(),
        members => format!("this route takes the members {}", members.join(", ")),
    };
    let mut members = Map::new();
    let mut secrets = Vec::new();
    for (name, value) in parts {
        members.insert((*name).to_owned(), plain(name, &decoded(value)?));
    }
    if route.reads() {
        members.extend(read_query(query.unwrap_or_default(), route)?);
    } else if query.is_some_and(|query| !query.is_empty()) {
        return Err("this route takes its members in the body".to_owned());
    }
    let body = if body.is_empty() { b"{}" } else { body };
    let mut given = read_members(body)?;
    for name in SECRET.into_iter().filter(|name| route.members.contains(name)) {
        let Some(text) = given.remove(name) else { continue };
        if let Some(value) = read_secret(name, text, &mut secrets).ok_or(NO_SECRET)? {
            members.insert(name.to_owned(), value);
        }
    }
    for (name, text) in given {
        if route.reads() || !route.members.contains(&name.as_str()) {
            return Err(unknown());
        }
        members.insert(name, strict_value(text).ok_or(NO_OBJECT)?);
    }
    if secrets.len() > MAX_SECRETS {
        return Err("there are too many secrets".to_owned());
    }
    let command =
        if route.is_unit() { json!(route.command) } else { json!({ route.command: members }) };
    let command = serde_json::from_value::<Command>(command);
    let command =
        command.map_err(|_| format!("a member is missing, or of a wrong type: {}", unknown()))?;
    if secrets.len() != command.secrets() {
        return Err(NO_SECRET.to_owned());
    }
    Ok((command, secrets))
}

/// A value of a path or a query.
fn plain(name: &str, text: &str) -> Value {
    match text.parse::<u64>() {
        Ok(number) if NUMBERS.contains(&name) => number.into(),
        _ => match text {
            "true" if FLAGS.contains(&name) => true.into(),
            "false" if FLAGS.contains(&name) => false.into(),
            text => text.into(),
        },
    }
}

/// The members of a query, each of them one of the route's.
pub(super) fn read_query(query: &str, route: &Route) -> Result<Map<String, Value>, String> {
    let mut members = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(name) = route.members.iter().find(|member| **member == name) else {
            return Err(format!("the query may have: {}", route.members.join(", ")));
        };
        let value = plain(name, &decoded(value)?);
        if members.insert((*name).to_owned(), value).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    Ok(members)
}

/// `text` with its percent signs resolved; a plus sign is one.
fn decoded(text: &str) -> Result<String, String> {
    let invalid = || "the path or the query is not percent-encoded UTF-8".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    let digit =
        |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|it| u8::try_from(it).ok());
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (digit(rest.next()), digit(rest.next()));
            bytes.push(high.ok_or_else(invalid)? << 4 | low.ok_or_else(invalid)?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| invalid())
}

fn encoded(text: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes().fold(String::new(), |encoded, byte| {
        if is_plain(&byte) {
            encoded + &char::from(byte).to_string()
        } else {
            format!("{encoded}%{byte:02X}")
        }
    })
}

/// A member that holds secrets, without them; nothing when it is null, or was only a secret.
#[expect(clippy::option_option, reason = "malformed, absent, or there")]
fn read_secret(
    name: &str,
    text: &RawValue,
    secrets: &mut Vec<SecretText>,
) -> Option<Option<Value>> {
    fn parse<T: DeserializeOwned>(text: &RawValue) -> Option<T> {
        serde_json::from_str(text.get()).ok()
    }
    match name {
        "proof" => {
            let Some(proof) = parse::<Option<ProofMember>>(text)? else { return Some(None) };
            Some(Some(json!(proof.split(secrets)?)))
        }
        "proofs" => {
            let proofs = parse::<Vec<ProofMember>>(text)?;
            let proofs: Option<Vec<Proof>> =
                proofs.into_iter().map(|proof| proof.split(secrets)).collect();
            Some(Some(json!(proofs?)))
        }
        "slot" => {
            let Some(slot) = parse::<Option<SlotMember>>(text)? else { return Some(None) };
            Some(Some(json!(slot.split(secrets))))
        }
        _ => {
            let Secret(passphrase) = parse(text)?;
            secrets.push(passphrase);
            Some(None)
        }
    }
}

/// The request that has `command` executed, and the route that it goes to. `secrets` are its own.
pub(super) fn write(
    command: &Command,
    secrets: &[SecretText],
) -> Option<(&'static Route, Message)> {
    let (name, mut members) = match serde_json::to_value(command).ok()? {
        Value::Object(object) => {
            let (name, members) = object.into_iter().next()?;
            let Value::Object(members) = members else { return None };
            (name, members)
        }
        Value::String(name) => (name, Map::new()),
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_) => return None,
    };
    let route = crate::api::routes::of_command(&name)?;
    let mut target = ROOT.to_owned();
    let mut rest = route.path;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        target += before;
        target += &match members.remove(name)? {
            Value::String(text) => encoded(&text),
            other @ (Value::Array(_)
            | Value::Bool(_)
            | Value::Null
            | Value::Number(_)
            | Value::Object(_)) => other.to_string(),
        };
        rest = after;
    }
    target += rest;
    members.retain(|_, value| !value.is_null());
    let mut body = Zeroizing::new(Vec::with_capacity(
        1_024 + 6 * secrets.iter().map(SecretText::length).sum::<usize>(),
    ));
    if route.reads() {
        let pairs = members.iter().map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{name}={}", encoded(&text))
        });
        let pairs: Vec<String> = pairs.collect();
        if !pairs.is_empty() {
            target = format!("{target}?{}", pairs.join("&"));
        }
    } else {
        write_body(&mut body, route, members, secrets)?;
    }
    Some((route, Message { target, body }))
}

fn write_body(
    body: &mut Vec<u8>,
    route: &Route,
    mut members: Map<String, Value>,
    secrets: &[SecretText],
) -> Option<()> {
    let mut secrets = secrets.iter();
    body.push(b'{');
    for name in SECRET.into_iter().filter(|name| route.members.contains(name)) {
        if name.ends_with("_passphrase") {
            write_name(body, name)?;
            write_secret(body, secrets.next()?)?;
            continue;
        }
        let Some(value) = members.remove(name) else { continue };
        write_name(body, name)?;
        let Some(proofs) = value.as_array() else {
            write_key(body, &value, &mut secrets)?;
            continue;
        };
        body.push(b'[');
        for (at, proof) in proofs.iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            write_key(body, proof, &mut secrets)?;
        }
        body.push(b']');
    }
    for (name, value) in &members {
        write_name(body, name)?;
        serde_json::to_writer(&mut *body, value).ok()?;
    }
    body.push(b'}');
    Some(())
}

fn write_name(body: &mut Vec<u8>, name: &str) -> Option<()> {
    if body.last() != Some(&b'{') {
        body.push(b',');
    }
    serde_json::to_writer(&mut *body, name).ok()?;
    body.push(b':');
    Some(())
}

/// A proof or a slot with the next of `secrets`.
fn write_key<'a>(
    body: &mut Vec<u8>,
    key: &Value,
    secrets: &mut impl Iterator<Item = &'a SecretText>,
) -> Option<()> {
    let shares = key["shares"]["count"].as_u64().filter(|_| key["shares"]["threshold"].is_null());
    match (key, shares) {
        (Value::String(kind), _) => {
            body.push(b'{');
            write_name(body, kind)?;
            write_secret(body, secrets.next()?)?;
            body.push(b'}');
        }
        (_, Some(count)) => {
            body.extend_from_slice(b"{\"shares\":[");
            for at in 0..count {
                if at > 0 {
                    body.push(b',');
                }
                write_secret(body, secrets.next()?)?;
            }
            body.extend_from_slice(b"]}");
        }
        (key, None) => serde_json::to_writer(&mut *body, key).ok()?,
    }
    Some(())
}

#[expect(clippy::disallowed_methods, reason = "sent to the service that is to have it")]
fn write_secret(body: &mut Vec<u8>, secret: &SecretText) -> Option<()> {
    serde_json::to_writer(body, secret.expose_secret()).ok()
}

#[cfg(test)]
mod tests;
