//! Tenants that come in the body of a request, a line each.
//!
//! ```text
//! {"tenant":{a tenant file},"variables":{"NAME":"value"},"certificates":{"ca.pem":"-----BEGIN…"}}
//!      read and checked as it comes --> Spool, sealed --all have come--> Admin::take_in
//! ```
//!
//! What a tenant file needs from outside comes with it: no variable of the service's own environment,
//! and no file of its host, is ever looked up for it. One line is in memory at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use secrecy::ExposeSecret;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::message::read_members;
use super::patience::PATIENCE;
use crate::admin::{Admin, Candidate, Error, Import, Progress, describe_imported, with_cause};
use crate::error::ErrorCode;
use crate::memory::SecretText;
use crate::tenant::{IdRule, Problem, ResolvedTenant, Surroundings, TenantFile, TenantId};
use crate::vault::{Spool, TenantCredentialVault};

/// Longest line: a tenant file of 1 MiB, with its certificates.
const MAX_LINE: usize = 4 << 20;
/// Longest body.
const MAX_BODY: u64 = 1 << 30;
/// Most tenants of an import.
const MAX_TENANTS: usize = 100_000;
/// Pieces of the body that wait to be read.
const WAITING: usize = 4;
/// Problems of a line that are told.
const MAX_PROBLEMS: usize = 5;
const STOPPING: &str = "the service stops; nothing was imported";

/// What a tenant file is sent with: a line of an import.
#[derive(Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "filled by whoever reads the file")]
pub struct Document {
    /// The file's text, which is JSON.
    pub text: Vec<u8>,
    /// The variables that it names, as far as they are set.
    pub variables: BTreeMap<String, SecretText>,
    /// The certificates that it names, by the names it has for them.
    pub certificates: BTreeMap<String, String>,
}

/// Why an import came to nothing before it began.
pub(super) type Unread = (ErrorCode, String);

/// All tenants of an import.
#[derive(Debug)]
pub(super) struct Spooled {
    spool: Spool,
    candidates: Vec<Candidate>,
    id_rule: IdRule,
}

impl Document {
    /// The line, with its line feed.
    ///
    /// # Errors
    ///
    /// When the text has a character that no line may have.
    pub(super) fn into_line(self) -> Result<Zeroizing<Vec<u8>>, std::io::Error> {
        let Self { text, variables, certificates } = self;
        let lengths = variables.values().map(SecretText::length);
        let room = 1_024 + text.len() + 6 * lengths.sum::<usize>();
        let mut line = Zeroizing::new(Vec::with_capacity(room));
        line.extend_from_slice(b"{\"tenant\":");
        // Between the values of a JSON text, and nowhere else, there may be line feeds.
        line.extend(text.iter().map(|byte| if b"\r\n".contains(byte) { b' ' } else { *byte }));
        line.extend_from_slice(b",\"variables\":{");
        for (at, (name, value)) in variables.iter().enumerate() {
            if at > 0 {
                line.push(b',');
            }
            serde_json::to_writer(&mut *line, name)?;
            line.push(b':');
            #[expect(
                clippy::disallowed_methods,
                reason = "sent to the service that is to have it"
            )]
            serde_json::to_writer(&mut *line, value.expose_secret())?;
        }
        line.extend_from_slice(b"},\"certificates\":");
        serde_json::to_writer(&mut *line, &certificates)?;
        line.extend_from_slice(b"}\n");
        Ok(line)
    }
}

/// Receives the body of an import to its end.
pub(super) async fn receive(
    vault: Arc<TenantCredentialVault>,
    mut body: Incoming,
    id_rule: IdRule,
    stopping: &CancellationToken,
) -> Result<Spooled, Unread> {
    let (pieces, waiting) = mpsc::channel::<Option<Bytes>>(WAITING);
    let reading = tokio::task::spawn_blocking(move || read(&vault, waiting, id_rule));
    let malformed = |message: &str| (ErrorCode::InvalidArgument, message.to_owned());
    let mut received = 0_u64;
    let sent = loop {
        let frame = tokio::select! {
            () = stopping.cancelled() => break Err((ErrorCode::Cancelled, STOPPING.to_owned())),
            frame = timeout(PATIENCE, body.frame()) => frame,
        };
        let frame = match frame {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break pieces.send(None).await.map_err(|_| malformed("")),
            Ok(Some(Err(_))) => break Err(malformed("the request ends too early")),
            Err(_) => break Err(malformed("the request did not arrive")),
        };
        let Ok(data) = frame.into_data() else { continue };
        received += data.len() as u64;
        if received > MAX_BODY {
            break Err(malformed("the body is longer than 1 GiB: import fewer tenants at a time"));
        }
        // Who has found a mistake takes no more; the rest is received so that the client may read why.
        let _taken = pieces.send(Some(data)).await;
    };
    drop(pieces);
    match (reading.await, sent) {
        (Ok(Err(unread)), _) | (Ok(Ok(None)), Err(unread)) => Err(unread),
        (Ok(Ok(Some(spooled))), _) => Ok(spooled),
        (Ok(Ok(None)), Ok(())) | (Err(_), _) => {
            Err((ErrorCode::InternalError, ErrorCode::InternalError.message().to_owned()))
        }
    }
}

/// Reads lines from the pieces of a body; nothing when it ends too early.
fn read(
    vault: &TenantCredentialVault,
    mut pieces: mpsc::Receiver<Option<Bytes>>,
    id_rule: IdRule,
) -> Result<Option<Spooled>, Unread> {
    let failed = |error: crate::vault::Error| {
        let error = Error::from(error);
        (error.code(), with_cause(&error))
    };
    let spool = vault.spool().map_err(failed)?;
    let mut spooled = Spooled { spool, candidates: Vec::new(), id_rule };
    let mut lines = HashMap::new();
    let mut line = Zeroizing::new(Vec::new());
    let mut number = 0_u64;
    while let Some(piece) = pieces.blocking_recv() {
        let Some(piece) = piece else {
            if !line.is_empty() {
                spooled.take(&mut line, number + 1, &mut lines)?;
            }
            if spooled.candidates.is_empty() {
                let message = "the body has no tenants: a line of JSON each".to_owned();
                return Err((ErrorCode::InvalidArgument, message));
            }
            return Ok(Some(spooled));
        };
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_end) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            if line.len() + text.len() > MAX_LINE {
                let message = format!("line {} is longer than {MAX_LINE} bytes", number + 1);
                return Err((ErrorCode::InvalidArgument, message));
            }
            line.extend_from_slice(text);
            if is_end {
                number += 1;
                if !line.trim_ascii().is_empty() {
                    spooled.take(&mut line, number, &mut lines)?;
                }
                // A new buffer: this one may be much larger than the next line.
                line = Zeroizing::new(Vec::new());
            }
        }
    }
    Ok(None)
}

impl Spooled {
    /// Checks a line, and lets it wait.
    fn take(
        &mut self,
        line: &mut Zeroizing<Vec<u8>>,
        number: u64,
        lines: &mut HashMap<TenantId, u64>,
    ) -> Result<(), Unread> {
        let malformed = |message: String| (ErrorCode::InvalidArgument, message);
        let tenant = read_line(line, self.id_rule)
            .map_err(|message| malformed(format!("line {number}: {message}")))?;
        let candidate = Candidate::from(&tenant.config);
        drop(tenant);
        if let Some(first) = lines.insert(candidate.id.clone(), number) {
            let message =
                format!("line {number}: tenant_id {} is also in line {first}", candidate.id);
            return Err(malformed(message));
        }
        if self.candidates.len() >= MAX_TENANTS {
            let message =
                format!("there are more than {MAX_TENANTS} tenants: import fewer at a time");
            return Err(malformed(message));
        }
        self.candidates.push(candidate);
        self.spool.push(line).map_err(|error| {
            let error = Error::from(error);
            (error.code(), with_cause(&error))
        })
    }

    /// Has `admin` take them in.
    pub(super) fn take_in(
        &self,
        admin: &Admin,
        import: Import,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Value, Error> {
        let read = |at: usize| {
            let line = self.spool.read(at)?;
            let of = |_| Error::TenantFile(self.candidates[at].id.to_string());
            read_line(&line, self.id_rule).map_err(of)
        };
        let imported = admin.take_in(&self.candidates, &read, import, progress)?;
        Ok(describe_imported(&imported))
    }
}

/// The tenant of a line. What is wrong with it holds no value of it.
fn read_line(line: &[u8], id_rule: IdRule) -> Result<ResolvedTenant, String> {
    const NO_LINE: &str =
        "not as docs/admin-api.md has it: {\"tenant\":…,\"variables\":…,\"certificates\":…}";
    let mut members = read_members(line).map_err(|_| NO_LINE.to_owned())?;
    let text = members.remove("tenant").ok_or(NO_LINE)?;
    let variables = members.remove("variables").map_or("{}", RawValue::get);
    let certificates = members.remove("certificates").map_or("{}", RawValue::get);
    if !members.is_empty() {
        return Err(NO_LINE.to_owned());
    }
    let variables = read_members(variables.as_bytes()).map_err(|_| NO_LINE.to_owned())?;
    let certificates = read_members(certificates.as_bytes()).map_err(|_| NO_LINE.to_owned())?;
    let is_text = |text: &&RawValue| text.get().starts_with('"');
    if !variables.values().chain(certificates.values()).all(is_text) {
        return Err(NO_LINE.to_owned());
    }
    let lookup = |name: &str| {
        let text = variables.get(name)?;
        super::message::secret(text)
    };
    let certificate = |name: &str| {
        let pem =
            certificates.get(name).ok_or_else(|| "did not come with the tenant".to_owned())?;
        let pem: String =
            serde_json::from_str(pem.get()).map_err(|_| "not a PEM file".to_owned())?;
        let has_certificate = pem.contains("-----BEGIN CERTIFICATE-----");
        if has_certificate { Ok(pem) } else { Err("has no certificate".to_owned()) }
    };
    let surroundings = Surroundings { id_rule, lookup: &lookup, certificate: &certificate };
    // The rule that ties a file's name to its tenant has nothing to say here.
    let id = read_members(text.get().as_bytes())
        .ok()
        .and_then(|members| serde_json::from_str::<String>(members.get("tenant_id")?.get()).ok());
    let name = format!("{}.json", id.unwrap_or_default());
    let file = TenantFile::read(&name, text.get().as_bytes(), &surroundings);
    file.map(|file| file.tenant).map_err(|problems| told(&problems))
}

fn told(problems: &[Problem]) -> String {
    let mut told: Vec<String> = problems
        .iter()
        .take(MAX_PROBLEMS)
        .map(|Problem { field, message, .. }| match field.as_str() {
            "" => message.clone(),
            field => format!("{field}: {message}"),
        })
        .collect();
    if let Some(more) = problems.len().checked_sub(MAX_PROBLEMS).filter(|more| *more > 0) {
        told.push(format!("and {more} more"));
    }
    told.join("; ")
}
