//! Answers to requests that do not reach a tenant's server, all of one shape.
//!
//! ```text
//! {"jsonrpc":"2.0","id":…,"error":{"code":…,"message":…,"data":{"error_code":…,"message":…,"request_id":…}}}
//! ```

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rmcp::model::ProtocolVersion;
use serde_json::{Value, json};

use super::allowed::Foreign;
use super::headers::Unfit;
use super::message::Malformed;
use crate::audit::RequestId;
use crate::auth;
use crate::error::{Bound, ErrorCode};

/// As in tool results: `data.error_code` says which refusal it is.
pub const REFUSED: i32 = -31_000;
/// JSON-RPC: the request is none.
const INVALID_REQUEST: i32 = -32_600;

/// Why a request of a known caller is not handed on.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    rpc_code: i32,
    pub(super) code: ErrorCode,
    /// What the audit log says instead, of what the caller may not tell apart.
    pub(super) recorded: Option<ErrorCode>,
    message: String,
    id: Value,
    /// The rule for the audit log, of what looks like an attempt.
    pub(super) rule: Option<&'static str>,
    /// More members of `data`.
    details: Value,
    /// Which methods there are, when it is another one.
    allow: Option<&'static str>,
}

impl Refused {
    fn invalid(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            rpc_code: INVALID_REQUEST,
            code: ErrorCode::InvalidArgument,
            recorded: None,
            message: message.into(),
            id: Value::Null,
            rule: None,
            details: json!({}),
            allow: None,
        }
    }

    /// The URL has a query or a fragment.
    pub(super) fn query() -> Self {
        let message = "the URL may have no query and no fragment; the token says which tenant";
        Self { rule: Some("query-string"), ..Self::invalid(StatusCode::BAD_REQUEST, message) }
    }

    /// Not POST, nor what clients with sessions send.
    pub(super) fn method(has_sessions: bool) -> Self {
        let allow = if has_sessions { "GET, POST, DELETE" } else { "POST" };
        let refused = Self::invalid(StatusCode::METHOD_NOT_ALLOWED, "send messages by POST");
        Self { allow: Some(allow), ..refused }
    }

    /// A session has one stream.
    pub(super) fn second_stream() -> Self {
        let message = "the session has its stream already; end that one first";
        Self::invalid(StatusCode::CONFLICT, message)
    }

    /// The session has a call with this id under way.
    pub(super) fn id_in_use() -> Self {
        let message = "a call under way in this session has this \"id\"; take another one";
        Self { rule: Some("request-id"), ..Self::invalid(StatusCode::BAD_REQUEST, message) }
    }

    /// There is no such session for the caller, though there may be for another.
    pub(super) fn no_session(is_others: bool) -> Self {
        Self {
            rule: Some("session"),
            recorded: is_others.then_some(ErrorCode::Forbidden),
            ..Self::because(
                ErrorCode::ResourceNotFound,
                "no such session; begin one with initialize",
            )
        }
    }

    /// `code`, in words of its own.
    pub(super) fn because(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::from(code) }
    }

    /// The body is longer than `limit`.
    pub(super) fn too_long(limit: usize) -> Self {
        let message =
            format!("the body is longer than {limit} bytes, which http.max_body_bytes sets");
        Self::invalid(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// The body did not come to its end.
    pub(super) fn cut_short() -> Self {
        Self::invalid(StatusCode::BAD_REQUEST, "the body could not be read to its end")
    }

    /// The same for the message with this id.
    pub(super) fn of(self, id: Value) -> Self {
        Self { id, ..self }
    }

    pub(super) fn into_response(self, request_id: &RequestId) -> Response {
        let mut data = self.details;
        data["error_code"] = self.code.as_str().into();
        data["message"] = self.message.as_str().into();
        data["request_id"] = request_id.as_str().into();
        let error = json!({ "code": self.rpc_code, "message": self.message, "data": data });
        let body = Json(json!({ "jsonrpc": "2.0", "id": self.id, "error": error }));
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"tenantry\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.code == ErrorCode::PoolExhausted {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self { rpc_code: REFUSED, code, ..Self::invalid(status(code), code.message()) }
    }
}

impl From<Bound> for Refused {
    /// It looks like no attempt: the caller is told the rule, and nothing is recorded.
    fn from(bound: Bound) -> Self {
        let details = json!({ "rule": bound.rule() });
        Self { details, ..Self::because(ErrorCode::PoolExhausted, bound.to_string()) }
    }
}

impl From<Foreign> for Refused {
    fn from(foreign: Foreign) -> Self {
        let message = foreign.to_string();
        match foreign {
            Foreign::AmbiguousHost | Foreign::Scheme => {
                Self { rule: Some("host"), ..Self::invalid(StatusCode::BAD_REQUEST, message) }
            }
            Foreign::Host => Self { message, rule: Some("host"), ..ErrorCode::Forbidden.into() },
            Foreign::Origin => {
                Self { message, rule: Some("origin"), ..ErrorCode::Forbidden.into() }
            }
        }
    }
}

impl From<Malformed> for Refused {
    fn from(Malformed { problem, id }: Malformed) -> Self {
        let message = problem.to_string();
        Self {
            rpc_code: problem.rpc_code(),
            id,
            rule: problem.rule(),
            ..Self::invalid(StatusCode::BAD_REQUEST, message)
        }
    }
}

impl From<Unfit> for Refused {
    fn from(unfit: Unfit) -> Self {
        let refused = Self {
            rpc_code: unfit.rpc_code(),
            rule: unfit.rule(),
            ..Self::invalid(unfit.status(), unfit.to_string())
        };
        let Unfit::UnknownVersion(requested) = unfit else { return refused };
        let supported = ProtocolVersion::KNOWN_VERSIONS;
        Self { details: json!({ "requested": requested, "supported": supported }), ..refused }
    }
}

/// A refusal as a JSON-RPC error, with the HTTP status of its code.
///
/// The same bytes for the same code, but for the request id.
pub(super) fn refuse(code: ErrorCode, request_id: &RequestId) -> Response {
    Refused::from(code).into_response(request_id)
}

/// The same in words of its own.
pub(super) fn refuse_because(code: ErrorCode, message: &str, request_id: &RequestId) -> Response {
    Refused::because(code, message).into_response(request_id)
}

/// `response`, which the protocol's own code may have made a line of plain text, in our shape.
pub(super) fn in_our_shape(response: Response, id: Value, request_id: &RequestId) -> Response {
    let status = response.status();
    let is_json =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|it| it == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let code = match status {
        StatusCode::FORBIDDEN => ErrorCode::Forbidden,
        StatusCode::NOT_FOUND => ErrorCode::ResourceNotFound,
        _ if status.is_client_error() => ErrorCode::InvalidArgument,
        _ => ErrorCode::InternalError,
    };
    let refused = Refused { status, ..Refused::from(code) }.of(id).into_response(request_id);
    let (mut parts, _) = response.into_parts();
    for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE] {
        parts.headers.remove(name);
    }
    let (shaped, body) = refused.into_parts();
    parts.headers.extend(shaped.headers);
    Response::from_parts(parts, Body::new(body))
}

/// `response` with when to come back, where `error` says it.
pub(super) fn with_wait(mut response: Response, error: &auth::Error) -> Response {
    if let auth::Error::Throttled { retry_after } = error {
        let seconds = HeaderValue::from(retry_after.as_secs() + 1);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

pub(super) async fn no_such_path() -> Response {
    (StatusCode::NOT_FOUND, "no such path; MCP is at POST /mcp\n").into_response()
}

fn status(code: ErrorCode) -> StatusCode {
    // Every status of a code is one.
    StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
