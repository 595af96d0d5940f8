//! `POST /mcp` and `POST /mcp/{tenant}`: from a request to the one tenant it may reach.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio_util::sync::CancellationToken;

use super::admission::Admitted;
use super::answer::with_rows;
use super::calls::Calls;
use super::handle::Handle;
use super::readiness::{self, Readiness};
use super::refusal::{Refused, in_our_shape, refuse};
use super::tls::CertificateTenant;
use crate::audit::{Attempt, Outcome, RequestId};
use crate::auth::{self, Origin, TenantAccess};
use crate::error::ErrorCode;
use crate::manager::TenantMcpManager;
use crate::server::Attachment;

/// The MCP endpoint. Clones share it.
#[derive(Clone)]
pub(super) struct Endpoint {
    manager: Arc<TenantMcpManager>,
    sessions: Arc<NeverSessionManager>,
    handle: Handle,
    calls: Calls,
    stopping: CancellationToken,
}

impl Endpoint {
    pub(super) fn new(
        manager: Arc<TenantMcpManager>,
        handle: Handle,
        stopping: CancellationToken,
    ) -> Self {
        Self { manager, sessions: Arc::default(), handle, calls: Calls::default(), stopping }
    }

    /// How `rmcp` reads requests.
    fn protocol() -> StreamableHttpServerConfig {
        StreamableHttpServerConfig::default()
            // Any replica can answer any request, in either protocol era.
            .with_legacy_session_mode(false)
            .with_json_response(true)
            // These are checked before it sees a request.
            .with_max_request_body_bytes(usize::MAX)
            .disable_allowed_hosts()
            .disable_allowed_origins()
    }

    pub(super) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Whether calls are served now; or why not.
    pub(super) fn readiness(&self) -> Readiness {
        readiness::of(&self.manager, &self.stopping)
    }

    async fn serve(
        &self,
        peer: SocketAddr,
        path_tenant: Option<&str>,
        request: Request,
    ) -> Response {
        let (parts, body) = request.into_parts();
        let current = self.handle.current();
        if let Some(answer) = current.allowed.preflight(&parts) {
            return answer;
        }
        let permission = current.allowed.permission(&parts.headers);
        let in_pieces = parts.headers.contains_key(header::TRANSFER_ENCODING);
        let request = Request::from_parts(parts, body);
        let mut response = permission.apply(self.answer(peer, path_tenant, request).await);
        if in_pieces {
            // There may have been a length as well, which hyper drops. A proxy that went by it takes
            // another part of what follows for the next request than we would: so none follows.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn answer(
        &self,
        peer: SocketAddr,
        path_tenant: Option<&str>,
        mut request: Request,
    ) -> Response {
        let request_id = RequestId::random();
        let origin =
            Origin { request_id: Some(request_id.clone()), peer: Some(peer.ip().to_string()) };
        let token = bearer(request.headers());
        let certified = request.extensions().get::<CertificateTenant>().cloned();
        let access = async {
            let auth = self.manager.auth();
            let caller = auth.authenticate(token, origin).await?;
            if let Some(tenant) = &certified {
                auth.grant(caller.clone(), Some(tenant.as_str())).await?;
            }
            auth.grant(caller, path_tenant).await
        };
        let access = match access.await {
            Ok(access) => access,
            Err(error) => return refuse(told(&error), &request_id),
        };
        // Whoever handles the request from here on has no use for the credential.
        request.headers_mut().remove(header::AUTHORIZATION);
        self.serve_granted(access, &request_id, request).await
    }

    /// Serves the tenant of `access`.
    pub(super) async fn serve_granted(
        &self,
        access: TenantAccess,
        request_id: &RequestId,
        request: Request,
    ) -> Response {
        let current = self.handle.current();
        let limit = current.options.max_body_bytes;
        let admitted = match Admitted::read(request, &current.allowed, limit).await {
            Ok(admitted) => admitted,
            Err(refused) => return self.refuse(refused, &access, request_id).await,
        };
        let tenant = access.tenant().clone();
        let handler = match self.manager.handler(access).await {
            Ok(handler) => handler,
            Err(error) => {
                let code = error.code();
                tracing::warn!(request.id = %request_id, tenant.id = %tenant, error.code = %code,
                    "the tenant cannot be served");
                return refuse(code, request_id);
            }
        };
        let attachment = Attachment::default();
        let handler = handler.with_attachment(attachment.clone());
        let make = move || Ok(handler.clone());
        let protocol = Self::protocol();
        let service = StreamableHttpService::new(make, Arc::clone(&self.sessions), protocol);
        let id = admitted.id();
        let answer = async {
            let response = service.handle(admitted.into_request()).await.map(Body::new);
            in_our_shape(response.into_response(), id.clone(), request_id)
        };
        with_rows(self.calls.finish(&id, request_id, answer).await, attachment)
    }

    /// Records what looks like an attempt, then tells why.
    async fn refuse(
        &self,
        refused: Refused,
        access: &TenantAccess,
        request_id: &RequestId,
    ) -> Response {
        let attempt = Attempt {
            request_id: request_id.clone(),
            actor: access.actor().clone(),
            peer: access.origin().peer.clone(),
            action: "request",
            tenant: Some(access.tenant().clone()),
        };
        let outcome =
            Outcome { code: Some(refused.code), rule: refused.rule, ..Outcome::default() };
        if refused.rule.is_some()
            && let Err(error) = self.manager.log().begin(attempt).complete(outcome).await
        {
            return refuse(error.code(), request_id);
        }
        refused.into_response(request_id)
    }
}

pub(super) async fn own_tenant(
    State(endpoint): State<Endpoint>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    endpoint.serve(peer, None, request).await
}

pub(super) async fn named_tenant(
    State(endpoint): State<Endpoint>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    // As it was sent: what has to be decoded first to be the caller's own is not.
    let path = request.uri().path();
    let tenant = path.strip_prefix("/mcp/").unwrap_or(path).to_owned();
    endpoint.serve(peer, Some(&tenant), request).await
}

/// The one bearer credential of a request. Two are as good as none: who checks the first and who
/// uses the second might not be the same.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// What a caller is told. That the vault failed is for the log.
fn told(error: &auth::Error) -> ErrorCode {
    match error {
        auth::Error::Vault(vault) => {
            tracing::error!(error.code = %vault.code(), "the vault failed during authentication");
            ErrorCode::InternalError
        }
        auth::Error::Audit(_)
        | auth::Error::Forbidden
        | auth::Error::Randomness
        | auth::Error::Sealed
        | auth::Error::Unauthenticated => error.code(),
    }
}
