//! `POST /mcp` and `POST /mcp/{tenant}`: from a request to the one tenant it may reach.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use tokio_util::sync::CancellationToken;

use super::admission::Admitted;
use super::budget::Budget;
use super::calls::Calls;
use super::exchange::{Answers, Exchange, Handlers};
use super::handle::Handle;
use super::metadata::{challenge, needed};
use super::readiness::{self, Readiness};
use super::refusal::{Refused, in_our_shape, refuse, refuse_because, with_wait};
use super::tls::CertificateTenant;
use crate::audit::{Attempt, Log, Outcome, RequestId};
use crate::auth::{self, Auth, Origin, TenantAccess};
use crate::error::ErrorCode;
use crate::manager::TenantMcpManager;

/// The MCP endpoint. Clones share it.
#[derive(Clone)]
pub(super) struct Endpoint {
    manager: Arc<TenantMcpManager>,
    exchange: Arc<dyn Answers>,
    handle: Handle,
    calls: Calls,
    budget: Budget,
    stopping: CancellationToken,
}

impl Endpoint {
    pub(super) fn new(
        manager: Arc<TenantMcpManager>,
        handlers: impl Handlers,
        handle: Handle,
        stopping: CancellationToken,
    ) -> Self {
        let sessions = handle.current().options.sessions;
        let stays = manager.stays().clone();
        let exchange = Arc::new(Exchange::new(Arc::new(handlers), stays, sessions));
        let (calls, budget) = (Calls::default(), Budget::default());
        Self { manager, exchange, handle, calls, budget, stopping }
    }

    pub(super) fn log(&self) -> &Log {
        self.manager.log()
    }

    /// The same for local programs, without sessions. Hosts and limits are those of `handle`.
    pub(super) fn local(self, handle: Handle) -> Self {
        Self { handle, exchange: self.exchange.stateless(), ..self }
    }

    /// Checks tokens.
    pub(super) fn auth(&self) -> &Auth {
        self.manager.auth()
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
        let origin = Origin {
            request_id: Some(request_id.clone()),
            peer: Some(peer.ip().to_string()),
            ..Origin::default()
        };
        let token = bearer(request.headers());
        let certified = request.extensions().get::<CertificateTenant>().cloned();
        let needed = needed(request.headers());
        let access = async {
            let caller = self.auth().authenticate(token, origin).await?;
            let is_others = |named: &CertificateTenant| named.as_str() != caller.tenant().as_str();
            if let Some(named) = certified.filter(is_others) {
                self.manager.grant(caller.clone(), Some(named.as_str())).await?;
            }
            let access = self.manager.grant(caller, path_tenant).await?;
            if let Some((action, needed)) = needed {
                self.manager.check_scope(&access, action, needed).await?;
            }
            Ok(access)
        };
        let access = match access.await {
            Ok(access) => access,
            Err(error) => {
                let refusal = if matches!(error, auth::Error::InsufficientScope { .. }) {
                    refuse_because(error.code(), &error.to_string(), &request_id)
                } else {
                    with_wait(refuse(told(&error), &request_id), &error)
                };
                return challenge(refusal, &error, self.auth(), path_tenant, request.headers());
            }
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
        let has_sessions = self.exchange.has_sessions();
        let share = self.budget.share(access.tenant(), &current.options.limits);
        let admitted = match Admitted::read(request, &current, has_sessions, &share).await {
            Ok(admitted) => admitted,
            Err(refused) => return self.refuse(refused, &access, request_id).await,
        };
        let share = if admitted.changes() { share.without_limit() } else { share };
        let (id, cut) = (admitted.id(), access.origin().cut.clone());
        let answer = async {
            match self.exchange.answer(access.clone(), request_id, admitted, share).await {
                Ok(response) => in_our_shape(response, id.clone(), request_id),
                Err(refused) => self.refuse(refused.of(id.clone()), &access, request_id).await,
            }
        };
        self.calls.finish(&id, request_id, cut, answer).await
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
        let code = Some(refused.recorded.unwrap_or(refused.code));
        let outcome = Outcome { code, rule: refused.rule, ..Outcome::default() };
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
        | auth::Error::InsufficientScope { .. }
        | auth::Error::Randomness
        | auth::Error::Sealed
        | auth::Error::Throttled { .. }
        | auth::Error::Unauthenticated => error.code(),
    }
}
