//! What the headers of a request say, and that they say what its body says.
//!
//! ```text
//! check_form    each header that has one value has one; JSON in, JSON and events out
//! check_body    MCP-Protocol-Version, Mcp-Method and Mcp-Name are those of the message
//! ```
//!
//! A proxy decides by the headers, a server by the body. A request in which they differ is one thing
//! to the one and another to the other, so it is refused in every revision, also in those that do
//! not ask for the headers.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmcp::model::ProtocolVersion;

use super::message::{Call, Content, Message};

const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";
const VERSION: &str = "mcp-protocol-version";

/// Headers of HTTP that have one value and decide what the body is.
const SINGLE: [HeaderName; 4] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
];

/// The first revision that asks for the headers, and for `_meta` in each request.
const STANDARD_HEADERS: &str = "2026-07-28";

/// Why the headers do not do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("Accept has to list application/json and text/event-stream")]
    Accept,
    #[error("no Content-Encoding is served, and no Transfer-Encoding but chunked")]
    Coding,
    #[error("Content-Type has to be application/json, in UTF-8")]
    ContentType,
    /// A header of HTTP.
    #[error("a header that has one value came twice")]
    Doubled,
    /// A header of MCP.
    #[error("a header of MCP came twice")]
    DoubledMcp,
    #[error("{0} is not text, or its Base64 is wrong")]
    Encoding(&'static str),
    #[error("{0} differs from the body")]
    Mismatch(&'static str),
    #[error("this revision needs the header {0}")]
    Missing(&'static str),
    #[error("this revision needs \"_meta\" with \"io.modelcontextprotocol/protocolVersion\"")]
    MissingMeta,
    #[error("this revision of the protocol is not served")]
    UnknownVersion(String),
}

impl Unfit {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Accept => StatusCode::NOT_ACCEPTABLE,
            Self::Coding | Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Doubled
            | Self::DoubledMcp
            | Self::Encoding(_)
            | Self::Mismatch(_)
            | Self::Missing(_)
            | Self::MissingMeta
            | Self::UnknownVersion(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The code of JSON-RPC.
    pub(super) fn rpc_code(&self) -> i32 {
        match self {
            Self::Accept | Self::Coding | Self::ContentType | Self::Doubled => -32_600,
            Self::DoubledMcp | Self::Encoding(_) | Self::Mismatch(_) | Self::Missing(_) => -32_020,
            Self::MissingMeta => -32_602,
            Self::UnknownVersion(_) => -32_022,
        }
    }

    /// The rule for the audit log, of what no client sends by mistake.
    pub(super) fn rule(&self) -> Option<&'static str> {
        match self {
            Self::Doubled | Self::DoubledMcp => Some("doubled-header"),
            Self::Encoding(_) | Self::Mismatch(_) => Some("header-mismatch"),
            Self::Accept
            | Self::Coding
            | Self::ContentType
            | Self::Missing(_)
            | Self::MissingMeta
            | Self::UnknownVersion(_) => None,
        }
    }
}

/// Whether no header that says one thing is there twice.
pub(super) fn check_single(headers: &HeaderMap) -> Result<(), Unfit> {
    for name in headers.keys() {
        let is_mcp = name.as_str().starts_with("mcp-");
        let is_single = SINGLE.contains(name);
        if (is_mcp || is_single) && headers.get_all(name).iter().nth(1).is_some() {
            return Err(if is_mcp { Unfit::DoubledMcp } else { Unfit::Doubled });
        }
    }
    Ok(())
}

/// Whether the headers are those of a request with a JSON body, whatever is in it.
pub(super) fn check_form(headers: &HeaderMap) -> Result<(), Unfit> {
    check_single(headers)?;
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if !text(header::CONTENT_TYPE).is_some_and(is_json) {
        return Err(Unfit::ContentType);
    }
    for (name, plain) in
        [(header::CONTENT_ENCODING, "identity"), (header::TRANSFER_ENCODING, "chunked")]
    {
        if headers.contains_key(&name)
            && !text(name).is_some_and(|coding| coding.eq_ignore_ascii_case(plain))
        {
            return Err(Unfit::Coding);
        }
    }
    if accepts(headers, "application", "json") && accepts(headers, "text", "event-stream") {
        Ok(())
    } else {
        Err(Unfit::Accept)
    }
}

fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
        && parts.all(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                let value =
                    value.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(value);
                name.eq_ignore_ascii_case("charset") && value.eq_ignore_ascii_case("utf-8")
            })
        })
}

/// Whether `kind/subtype` is among what the caller takes, by name or by a range: `*/*` is what
/// `curl` sends of its own accord, and means both.
fn accepts(headers: &HeaderMap, kind: &str, subtype: &str) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let Some((of, sub)) = parts.next().and_then(|range| range.split_once('/')) else {
            return false;
        };
        let is_refused = parts.any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, weight)| {
                name.trim_end().eq_ignore_ascii_case("q")
                    && weight.trim_start().parse() == Ok(0.0_f32)
            })
        });
        let names = |range: &str, name| range == "*" || range.eq_ignore_ascii_case(name);
        !is_refused && names(of, kind) && names(sub, subtype) && (of != "*" || sub == "*")
    })
}

/// Lists the types for a caller that takes ranges: what handles the request next knows no ranges.
pub(super) fn list_accepted(headers: &mut HeaderMap) {
    let listed = HeaderValue::from_static("application/json, text/event-stream");
    headers.insert(header::ACCEPT, listed);
}

/// Whether the headers agree with `message`.
pub(super) fn check_body(headers: &HeaderMap, message: &Message) -> Result<(), Unfit> {
    let version = text(headers, VERSION, "MCP-Protocol-Version")?;
    let Content::Call(call) = message.content() else { return check_known(version) };
    // The handshake names a revision that it asks for, which the next request has in its header.
    let is_handshake = call.method == "initialize";
    if !is_handshake {
        check_version(version, call)?;
    }
    let needs_headers = !is_handshake && version.is_some_and(|it| it >= STANDARD_HEADERS);
    match text(headers, METHOD, "Mcp-Method")? {
        Some(method) if method != call.method => return Err(Unfit::Mismatch("Mcp-Method")),
        None if needs_headers => return Err(Unfit::Missing("Mcp-Method")),
        _ => {}
    }
    let Some(name) = &call.name else { return Ok(()) };
    match text(headers, NAME, "Mcp-Name")? {
        Some(sent) => match decode(sent) {
            Some(sent) if sent == *name => Ok(()),
            Some(_) => Err(Unfit::Mismatch("Mcp-Name")),
            None => Err(Unfit::Encoding("Mcp-Name")),
        },
        None if needs_headers => Err(Unfit::Missing("Mcp-Name")),
        None => Ok(()),
    }
}

fn check_version(header: Option<&str>, call: &Call) -> Result<(), Unfit> {
    match (header, call.version.as_deref()) {
        (Some(header), Some(meta)) if header != meta => {
            Err(Unfit::Mismatch("MCP-Protocol-Version"))
        }
        (None, Some(_)) => Err(Unfit::Missing("MCP-Protocol-Version")),
        (Some(header), None) if header >= STANDARD_HEADERS && is_known(header) => {
            // Notifications have no such member.
            if call.id.is_some() { Err(Unfit::MissingMeta) } else { Ok(()) }
        }
        (header, _) => check_known(header),
    }
}

fn check_known(version: Option<&str>) -> Result<(), Unfit> {
    match version {
        Some(version) if !is_known(version) => Err(Unfit::UnknownVersion(version.to_owned())),
        _ => Ok(()),
    }
}

fn is_known(version: &str) -> bool {
    ProtocolVersion::KNOWN_VERSIONS.iter().any(|known| known.as_str() == version)
}

fn text<'a>(
    headers: &'a HeaderMap,
    name: &str,
    shown: &'static str,
) -> Result<Option<&'a str>, Unfit> {
    let value = headers.get(name).map(HeaderValue::to_str).transpose();
    value.map_err(|_| Unfit::Encoding(shown))
}

/// The text of a header that is written in Base64 if it has to be: `=?base64?…?=`.
fn decode(value: &str) -> Option<Cow<'_, str>> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(inner) => String::from_utf8(STANDARD.decode(inner).ok()?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(value)),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use serde_json::{Value, json};

    use super::super::message::VERSION_KEY;
    use super::*;

    /// Headers that are well formed, but for these; one without a value is left out.
    fn headers(but: &[(&str, &str)]) -> HeaderMap {
        let usual = [
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
        ];
        let usual =
            usual.into_iter().filter(|(name, _)| !but.iter().any(|(other, _)| other == name));
        let mut headers = HeaderMap::new();
        for (name, value) in usual.chain(but.iter().copied()).filter(|(_, value)| !value.is_empty())
        {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn form(but: &[(&str, &str)]) -> Result<(), Unfit> {
        check_form(&headers(but))
    }

    fn agree(but: &[(&str, &str)], message: &Value) -> Result<(), Unfit> {
        let message = Message::read(Bytes::from(message.to_string())).unwrap();
        check_body(&headers(but), &message)
    }

    #[test]
    fn a_body_is_json_in_utf_8_as_it_is() {
        for value in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            assert_eq!(form(&[("content-type", value)]), Ok(()), "{value}");
        }
        for value in [
            "",
            "text/plain",
            "text/plain, application/json",
            "application/jsonx",
            "application/json; charset=utf-16",
            "application/json; charset",
            "application/json; boundary=x",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=application/json",
        ] {
            assert_eq!(form(&[("content-type", value)]), Err(Unfit::ContentType), "{value}");
        }
        assert_eq!(form(&[("content-encoding", "identity")]), Ok(()));
        assert_eq!(form(&[("transfer-encoding", "Chunked")]), Ok(()));
        assert_eq!(form(&[("transfer-encoding", "gzip, chunked")]), Err(Unfit::Coding));
        for value in ["gzip", "br", "identity, gzip"] {
            assert_eq!(form(&[("content-encoding", value)]), Err(Unfit::Coding), "{value}");
        }
    }

    #[test]
    fn both_kinds_of_answer_have_to_be_acceptable() {
        for value in [
            "text/event-stream;q=0.5,APPLICATION/JSON",
            "*/*",
            "text/html, */*;q=0.1",
            "application/*, text/*",
        ] {
            assert_eq!(form(&[("accept", value)]), Ok(()), "{value}");
        }
        for value in [
            "",
            "application/json",
            "text/event-stream",
            "application/json, text/event-stream;q=0",
            "*/*;q=0.000",
            "*/json, */event-stream",
            "application/json;text/event-stream",
        ] {
            assert_eq!(form(&[("accept", value)]), Err(Unfit::Accept), "{value}");
        }
    }

    #[test]
    fn a_header_with_one_value_that_comes_twice_is_refused() {
        let json = ("content-type", "application/json");
        assert_eq!(form(&[json, json]), Err(Unfit::Doubled));
        assert_eq!(form(&[("content-length", "1"), ("content-length", "1")]), Err(Unfit::Doubled));
        for name in ["mcp-method", "mcp-name", "mcp-protocol-version", "mcp-param-x"] {
            assert_eq!(form(&[(name, "x"), (name, "x")]), Err(Unfit::DoubledMcp), "{name}");
            assert_eq!(form(&[(name, "x")]), Ok(()), "{name}");
        }
        assert_eq!(form(&[("x", "1"), ("x", "2")]), Ok(()));
    }

    fn tool_call(version: Option<&str>) -> Value {
        let meta = version.map_or(json!({}), |version| json!({ VERSION_KEY: version }));
        json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": "é", "_meta": meta },
        })
    }

    #[test]
    fn in_the_current_revision_every_header_is_there_and_agrees() {
        let version = ("mcp-protocol-version", "2026-07-28");
        let method = ("mcp-method", "tools/call");
        let name = ("mcp-name", "=?base64?w6k=?=");
        let call = tool_call(Some("2026-07-28"));
        assert_eq!(agree(&[version, method, name], &call), Ok(()));
        let missing = |header| Err(Unfit::Missing(header));
        assert_eq!(agree(&[method, name], &call), missing("MCP-Protocol-Version"));
        assert_eq!(agree(&[version, name], &call), missing("Mcp-Method"));
        assert_eq!(agree(&[version, method], &call), missing("Mcp-Name"));
        assert_eq!(agree(&[version, method, name], &tool_call(None)), Err(Unfit::MissingMeta));
        let mismatch = |header| Err(Unfit::Mismatch(header));
        let other = ("mcp-protocol-version", "2025-11-25");
        assert_eq!(agree(&[other, method, name], &call), mismatch("MCP-Protocol-Version"));
        for other in ["tools/list", "Tools/Call", "tools/call "] {
            let agreed = agree(&[version, ("mcp-method", other), name], &call);
            assert_eq!(agreed, mismatch("Mcp-Method"), "{other}");
        }
        for other in ["e", "E", "w6k=", "=?base64?w6k=", "=?base64?ZQ==?="] {
            let agreed = agree(&[version, method, ("mcp-name", other)], &call);
            assert_eq!(agreed, mismatch("Mcp-Name"), "{other}");
        }
        for other in ["é", "=?base64?w6k?=", "=?base64?/w==?=", "=?base64?*?="] {
            let agreed = agree(&[version, method, ("mcp-name", other)], &call);
            assert_eq!(agreed, Err(Unfit::Encoding("Mcp-Name")), "{other}");
        }
        let later = ("mcp-protocol-version", "2099-01-01");
        let agreed = agree(&[later, method, name], &tool_call(Some("2099-01-01")));
        assert_eq!(agreed, Err(Unfit::UnknownVersion("2099-01-01".to_owned())));
    }

    #[test]
    fn in_older_revisions_headers_may_be_missing_and_may_not_lie() {
        let call = tool_call(None);
        assert_eq!(agree(&[], &call), Ok(()));
        assert_eq!(agree(&[("mcp-protocol-version", "2025-06-18")], &call), Ok(()));
        assert_eq!(agree(&[("mcp-method", "tools/call")], &call), Ok(()));
        let lie = agree(&[("mcp-method", "tools/list")], &call);
        assert_eq!(lie, Err(Unfit::Mismatch("Mcp-Method")));
        assert_eq!(agree(&[("mcp-name", "x")], &call), Err(Unfit::Mismatch("Mcp-Name")));
        let unknown = Err(Unfit::UnknownVersion("1".to_owned()));
        assert_eq!(agree(&[("mcp-protocol-version", "1")], &call), unknown);
        let initialize = json!({
            "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
                "protocolVersion": "2099-01-01", "capabilities": {},
                "clientInfo": { "name": "x", "version": "1" },
            },
        });
        assert_eq!(agree(&[("mcp-protocol-version", "2099-01-01")], &initialize), Ok(()));
        let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(agree(&[("mcp-protocol-version", "2025-06-18")], &notification), Ok(()));
        let current = ("mcp-protocol-version", "2026-07-28");
        assert_eq!(agree(&[current], &notification), Err(Unfit::Missing("Mcp-Method")));
        let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
        assert_eq!(agree(&[current], &answer), Ok(()));
    }
}
