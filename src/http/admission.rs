//! From a request of a known caller to one that its tenant's server may see.
//!
//! ```text
//! Host, Origin --> URL, method --> headers --> body, bounded --> Message --> headers again --> Admitted
//! ```
//!
//! Only this module makes an [`Admitted`], and the tenant's server is given nothing else. The order
//! is that of cost: a request that a page of another site sends is refused before its body is read.

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method};
use futures_util::StreamExt as _;
use serde_json::Value;

use super::allowed::Foreign;
use super::budget::Share;
use super::handle::Current;
use super::headers;
use super::listener::Fragment;
use super::message::{Message, STATELESS};
use super::refusal::Refused;
use crate::server::needed;
use crate::tenant::Permission;

/// Where a session is named.
const SESSION_ID: &str = "Mcp-Session-Id";

/// A request whose message was read and agrees with its headers.
#[derive(Debug)]
pub(super) struct Admitted {
    request: Request,
    id: Value,
    place: Place,
    changes: bool,
}

/// Where a request is served, if there are sessions.
#[derive(Debug)]
pub(super) enum Place {
    /// By itself: it names no session, or is of a revision that has none.
    Alone,
    /// In a session that it begins.
    New,
    /// In the session of this name.
    Session(String),
}

impl Place {
    fn of(headers: &HeaderMap, method: &str) -> Self {
        // Which agrees with the body.
        let version = headers.get("MCP-Protocol-Version").map(HeaderValue::as_bytes);
        match headers.get(SESSION_ID) {
            _ if version.is_some_and(|version| version >= STATELESS.as_bytes()) => Self::Alone,
            Some(id) => Self::Session(String::from_utf8_lossy(id.as_bytes()).into_owned()),
            None if method == "initialize" => Self::New,
            None => Self::Alone,
        }
    }
}

impl Admitted {
    /// Reads `request`, which may be what `current` allows, and its body where `share` has room.
    pub(super) async fn read(
        request: Request,
        current: &Current,
        has_sessions: bool,
        share: &Share,
    ) -> Result<Self, Refused> {
        let (mut parts, body) = request.into_parts();
        current.allowed.check(&parts)?;
        if parts.uri.scheme().is_some_and(|scheme| !current.options.serves(scheme)) {
            return Err(Foreign::Scheme.into());
        }
        if parts.uri.query().is_some() || parts.extensions.get::<Fragment>().is_some() {
            return Err(Refused::query());
        }
        if has_sessions && matches!(parts.method, Method::GET | Method::DELETE) {
            headers::check_single(&parts.headers)?;
            // Neither has a message.
            let place = Place::of(&parts.headers, "");
            let request = Request::from_parts(parts, Body::empty());
            return Ok(Self { request, id: Value::Null, place, changes: false });
        }
        if parts.method != Method::POST {
            return Err(Refused::method(has_sessions));
        }
        headers::check_form(&parts.headers)?;
        let body = read_body(body, current.options.max_body_bytes, share).await?;
        let message = Message::read(body)?;
        let id = message.id();
        headers::check_body(&parts.headers, &message)
            .map_err(|unfit| Refused::from(unfit).of(id.clone()))?;
        headers::list_accepted(&mut parts.headers);
        let place = Place::of(&parts.headers, message.call().map_or("", |call| &call.method));
        let needed = message.call().and_then(|call| needed(&call.method, call.name.as_deref()));
        let changes = needed.is_some_and(|(_, permission)| permission == Permission::Write);
        let request = Request::from_parts(parts, Body::from(message.into_bytes()));
        Ok(Self { request, id, place, changes })
    }

    /// The id of the message; null if it has none.
    pub(super) fn id(&self) -> Value {
        self.id.clone()
    }

    /// Whether it changes a tenant's data: who sent it has to be told what became of that.
    pub(super) fn changes(&self) -> bool {
        self.changes
    }

    /// The request, with the very bytes that were read, and where it is served.
    pub(super) fn into_parts(self) -> (Request, Place) {
        (self.request, self.place)
    }
}

/// All of `body`. It counts as the longest that it can be, from before it is read until the last of
/// it is dropped.
async fn read_body(body: Body, limit: usize, share: &Share) -> Result<Bytes, Refused> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Refused::too_long(limit));
    }
    let room = share.reserve(body.size_hint().upper().unwrap_or(limit as u64).min(limit as u64))?;
    let mut bytes = Vec::new();
    let mut frames = body.into_data_stream();
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|_| Refused::cut_short())?;
        if frame.len() > limit - bytes.len() {
            return Err(Refused::too_long(limit));
        }
        bytes.extend_from_slice(&frame);
    }
    Ok(room.keep(bytes.into()))
}
