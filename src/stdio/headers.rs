//! What a client of the HTTP endpoint says in headers.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::INITIALIZE;
use crate::http::Call;

/// For a message that makes this `call`, after a handshake that agreed on a version.
pub(super) fn headers_of(call: Option<&Call>, negotiated: Option<HeaderValue>) -> HeaderMap {
    let both = HeaderValue::from_static("application/json, text/event-stream");
    let json = HeaderValue::from_static("application/json");
    let host = HeaderValue::from_static("localhost");
    let mut headers = HeaderMap::from_iter([
        (header::ACCEPT, both),
        (header::CONTENT_TYPE, json),
        (header::HOST, host),
    ]);
    let named = call.and_then(|call| HeaderValue::from_str(call.version.as_deref()?).ok());
    let is_modern = named.is_some();
    let begins = call.is_some_and(|call| call.method == INITIALIZE);
    if let Some(version) = named.or(negotiated).filter(|_| !begins) {
        headers.insert("mcp-protocol-version", version);
    }
    if let Some(call) = call.filter(|_| is_modern) {
        let said = [("mcp-method", Some(&call.method)), ("mcp-name", call.name.as_ref())];
        for (name, value) in said {
            if let Some(value) = value.and_then(|value| header_value(value)) {
                headers.insert(name, value);
            }
        }
    }
    headers
}

/// `text` as it stands in a header: Base64 in its frame unless it is plain ASCII (2026-07-28, Streamable HTTP).
pub(super) fn header_value(text: &str) -> Option<HeaderValue> {
    let is_plain = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        && text.trim() == text
        && !text.starts_with("=?base64?");
    if is_plain {
        return HeaderValue::from_str(text).ok();
    }
    HeaderValue::from_str(&format!("=?base64?{}?=", STANDARD.encode(text))).ok()
}
