//! Where clients get access tokens: RFC 9728 metadata, and the challenges that lead to it.
//!
//! ```text
//! 401, 403  WWW-Authenticate: Bearer …, resource_metadata="https://…/.well-known/…"
//!     --> GET /.well-known/oauth-protected-resource/mcp[/{tenant}]
//!     --> {"resource": …, "authorization_servers": [issuers of the settings], …}
//! ```
//!
//! Anybody may ask, from any page, and learns the settings' own URLs and no more: the answer is the
//! same whether there is such a tenant or not. Without an issuer in the settings there is none of it.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::mcp::Endpoint;
use super::refusal;
use crate::auth::{Auth, Error};
use crate::server;
use crate::tenant::{Permission, Permissions};

/// The path of the metadata, before that of the endpoint that it is of.
pub(super) const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// How long an answer may be kept. It changes with the settings.
const CACHE: &str = "public, max-age=300";
/// What pages of others may do here: the client's libraries send the last one by themselves.
const CORS: [(HeaderName, &str); 3] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET"),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "mcp-protocol-version"),
];

pub(super) async fn show(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let path = request.uri().path();
    let tenant = match path.strip_prefix(WELL_KNOWN) {
        // Clients that do not find the others ask here: for the endpoint for all.
        Some("" | "/mcp") => None,
        Some(rest) => match rest.strip_prefix("/mcp/") {
            Some(tenant) => Some(tenant),
            None => return refusal::no_such_path().await,
        },
        None => return refusal::no_such_path().await,
    };
    let Some(found) = endpoint.auth().protected_resource(tenant) else {
        return refusal::no_such_path().await;
    };
    match *request.method() {
        Method::GET | Method::HEAD => {
            let document = Json(json!({
                "resource": found.resource,
                "authorization_servers": found.authorization_servers,
                "scopes_supported": found.scopes_for(Permission::ALL.into_iter().collect()),
                "bearer_methods_supported": ["header"],
                "resource_name": "tenantry",
            }));
            (CORS, [(header::CACHE_CONTROL, CACHE)], document).into_response()
        }
        Method::OPTIONS => (StatusCode::NO_CONTENT, CORS).into_response(),
        _ => {
            let allow = [(header::ALLOW, "GET, HEAD, OPTIONS")];
            (StatusCode::METHOD_NOT_ALLOWED, allow, Body::empty()).into_response()
        }
    }
}

/// What a request needs that says by its headers what it is, as those of the current protocol do; that
/// they agree with its body is checked where that is read.
pub(super) fn needed(headers: &HeaderMap) -> Option<(&'static str, Permission)> {
    let text = |name| headers.get(name)?.to_str().ok();
    server::needed(text("mcp-method")?, text("mcp-name"))
}

/// `response`, a refusal for the reason `error`, with where to get a token, if issuers give any.
/// `asked` are the headers of what is refused, and `path_tenant` is the tenant that it named.
pub(super) fn challenge(
    mut response: Response,
    error: &Error,
    auth: &Auth,
    path_tenant: Option<&str>,
    asked: &HeaderMap,
) -> Response {
    let (reason, wanted) = match error {
        Error::InsufficientScope { needed } => {
            // With those that are had: a client asks for what is told here and no more.
            let wanted = Permissions::READ.iter().chain([*needed]).collect();
            ("error=\"insufficient_scope\", ", wanted)
        }
        Error::Unauthenticated if asked.contains_key(header::AUTHORIZATION) => {
            ("error=\"invalid_token\", ", Permissions::READ)
        }
        // Nothing was wrong with what was not there (RFC 6750 section 3.1).
        Error::Unauthenticated => ("", Permissions::READ),
        Error::Audit(_)
        | Error::Forbidden
        | Error::Randomness
        | Error::Sealed
        | Error::Throttled { .. }
        | Error::Vault(_) => return response,
    };
    let found = auth.protected_resource(path_tenant).or_else(|| auth.protected_resource(None));
    if let Some(found) = found {
        let (scopes, url) = (found.scopes_for(wanted).join(" "), found.metadata_url);
        let challenge = format!(
            "Bearer realm=\"tenantry\", {reason}scope=\"{scopes}\", resource_metadata=\"{url}\""
        );
        // Scopes come from the settings, which admit no others.
        if let Ok(challenge) = HeaderValue::from_str(&challenge) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
    }
    response
}
