//! What a message says about itself, as far as headers repeat it.

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

const CANCELLED: &str = "notifications/cancelled";

/// The outside of a message. One that cannot be read has nothing in it; the endpoint says why.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Envelope {
    id: Option<Box<RawValue>>,
    method: Option<String>,
    params: Option<Params>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    name: Option<String>,
    uri: Option<String>,
    #[serde(rename = "requestId")]
    request_id: Option<Box<RawValue>>,
    #[serde(rename = "_meta")]
    meta: Option<Meta>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Meta {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    protocol_version: Option<String>,
}

impl Envelope {
    pub(super) fn of(message: &[u8]) -> Self {
        serde_json::from_slice(message).unwrap_or_default()
    }

    /// The id, as it is written.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref().map(RawValue::get)
    }

    pub(super) fn method(&self) -> &str {
        self.method.as_deref().unwrap_or_default()
    }

    pub(super) fn is_notification(&self) -> bool {
        self.id.is_none() && self.method.is_some()
    }

    /// The id of the call that is not wanted any more, as it is written.
    pub(super) fn cancels(&self) -> Option<&str> {
        let params = self.params.as_ref().filter(|_| self.method() == CANCELLED)?;
        params.request_id.as_deref().map(RawValue::get)
    }

    /// The protocol version that the message names, which those before 2026-07-28 do not.
    pub(super) fn version(&self) -> Option<HeaderValue> {
        let version = self.params.as_ref()?.meta.as_ref()?.protocol_version.as_deref()?;
        HeaderValue::from_str(version).ok()
    }

    /// What `Mcp-Name` repeats.
    pub(super) fn name(&self) -> Option<&str> {
        let params = self.params.as_ref()?;
        match self.method() {
            "tools/call" | "prompts/get" => params.name.as_deref(),
            "resources/read" => params.uri.as_deref(),
            _ => None,
        }
    }
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
