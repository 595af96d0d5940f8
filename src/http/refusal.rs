//! Answers to requests that do not reach a tenant's server.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::audit::RequestId;
use crate::error::ErrorCode;

/// As in tool results: `data.error_code` says which refusal it is.
const REFUSED: i32 = -31_000;

/// A refusal as a JSON-RPC error, with the HTTP status of its code.
///
/// The same bytes for the same code, but for the request id.
pub(super) fn refuse(code: ErrorCode, request_id: &RequestId) -> Response {
    let body = Json(json!({
        "jsonrpc": "2.0",
        "id": null,
        "error": {
            "code": REFUSED,
            "message": code.message(),
            "data": {
                "error_code": code.as_str(),
                "message": code.message(),
                "request_id": request_id.as_str(),
            },
        },
    }));
    let mut response = (status(code), body).into_response();
    if code == ErrorCode::Unauthenticated {
        let challenge = HeaderValue::from_static("Bearer realm=\"tenantry\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

pub(super) async fn no_such_path() -> Response {
    (StatusCode::NOT_FOUND, "no such path; MCP is at POST /mcp\n").into_response()
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden | ErrorCode::TenantDisabled => StatusCode::FORBIDDEN,
        ErrorCode::TenantNotConfigured => StatusCode::NOT_FOUND,
        ErrorCode::AuditUnavailable
        | ErrorCode::Cancelled
        | ErrorCode::DatabaseUnavailable
        | ErrorCode::PoolExhausted
        | ErrorCode::VaultSealed => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::InvalidArgument
        | ErrorCode::InvalidTenant
        | ErrorCode::QueryFailed
        | ErrorCode::QueryRefused
        | ErrorCode::ResourceNotFound => StatusCode::BAD_REQUEST,
        ErrorCode::IntegrityError
        | ErrorCode::InternalError
        | ErrorCode::QueryTimeout
        | ErrorCode::OutcomeUnknown
        | ErrorCode::ResultTooLarge => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
