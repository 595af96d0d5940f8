//! Tenants' endpoints for programs that operators start on this machine.
//!
//! ```text
//! tenantry stdio, the vault is here    --> TenantEndpoint --+
//!                                                           +--> as POST /mcp for a token's tenant
//! tenantry stdio --> mcp.sock --> Door --> TenantEndpoint --+
//! ```
//!
//! Who starts the program is known by other means than a token, and chose the tenant. Everything
//! else is as for a token: the same checks of each message, the same quotas, the same audit log.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Handle, mcp};
use crate::audit::{Actor, Attempt, Outcome, RequestId};
use crate::auth::{Origin, TenantAccess};
use crate::error::ErrorCode;
use crate::http::refusal::refuse;
use crate::manager::{self, TenantMcpManager};
use crate::tenant::{IdRule, Permission, Permissions, TenantId};
use crate::unix_socket::{Peer, Socket};

/// The socket's name in the data directory.
pub const SOCKET: &str = "mcp.sock";
/// The header with the login name of who started the program.
pub const OPERATOR: &str = "tenantry-operator";
/// The header with what the program may do, by scope.
pub const SCOPE: &str = "tenantry-scope";
/// How the audit log calls such a client.
pub const PEER: &str = "stdio";

/// Longest login name that is recorded, in characters.
const MAX_NAME: usize = 64;
/// How long the head of a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long accepting rests after it failed.
const PAUSE: Duration = Duration::from_millis(100);
/// Most connections, one request each.
const MAX_CONNECTIONS: usize = 1_024;

/// What `POST /mcp` is to a token's tenant, for a program that an operator started for one tenant.
/// Clones share it.
#[derive(Clone)]
pub struct TenantEndpoint {
    endpoint: mcp::Endpoint,
    tenant: TenantId,
    permissions: Permissions,
    operator: Actor,
    /// Of all its requests.
    cut: CancellationToken,
}

impl TenantEndpoint {
    /// The endpoint of `tenant`, where `operator` allows `permissions`. Hosts and limits are those of
    /// `handle`.
    ///
    /// # Errors
    ///
    /// When the tenant cannot be served now. It was recorded.
    pub async fn open(
        manager: Arc<TenantMcpManager>,
        handle: Handle,
        tenant: TenantId,
        permissions: Permissions,
        operator: Actor,
    ) -> Result<Self, manager::Error> {
        let handlers = Arc::clone(&manager);
        let stopping = CancellationToken::new();
        let endpoint = mcp::Endpoint::new(Arc::clone(&manager), handlers, handle, stopping);
        let cut = CancellationToken::new();
        let opened = Self { endpoint, tenant, permissions, operator, cut };
        manager.handler(opened.access(None)).await?;
        Ok(opened)
    }

    /// Answers one request. Its path and its credential say nothing.
    pub async fn handle(&self, request: Request) -> Response {
        let request_id = RequestId::random();
        let access = self.access(Some(request_id.clone()));
        self.endpoint.serve_granted(access, &request_id, request).await
    }

    /// From here on, requests under way that end without an answer are recorded as cut, not as left by
    /// their caller. Whoever calls this drops them.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    fn access(&self, request_id: Option<RequestId>) -> TenantAccess {
        let peer = Some(PEER.to_owned());
        let origin = Origin { request_id, peer, cut: self.cut.child_token() };
        TenantAccess::local(self.tenant.clone(), self.permissions, self.operator.clone(), origin)
    }
}

impl std::fmt::Debug for TenantEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantEndpoint").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// Where such programs come in while a service has the vault: `POST /mcp/{tenant}` at a socket.
#[derive(Debug)]
pub struct Door {
    socket: Socket,
    handle: Handle,
}

impl Door {
    /// Binds the socket in `directory`, the data directory that this process has. Hosts and limits
    /// are those of `handle`. Must be called inside a Tokio runtime.
    pub fn bind(directory: &Path, handle: Handle) -> io::Result<Self> {
        Ok(Self { socket: Socket::bind(directory, SOCKET)?, handle })
    }

    /// Hands requests on to `endpoint`, until `stopping`; then those under way are finished.
    pub(super) async fn serve(self, endpoint: mcp::Endpoint, stopping: &CancellationToken) {
        let endpoint = endpoint.local(self.handle.clone());
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stopping.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                // The next is closed: programs of one operator took all there are.
                Ok(_) if connections.len() >= MAX_CONNECTIONS => {}
                Ok((stream, peer)) => {
                    connections.spawn(converse(stream, peer, endpoint.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the socket for local programs does not accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }
}

/// One request and its answer. Who hangs up drops the call.
async fn converse(stream: UnixStream, peer: Peer, endpoint: mcp::Endpoint) {
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async {
        Ok::<_, std::convert::Infallible>(answer(request.map(Body::new), peer, &endpoint).await)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a local program's connection ended early");
    }
}

async fn answer(request: Request, peer: Peer, endpoint: &mcp::Endpoint) -> Response {
    let headers = request.headers();
    let name = headers.get(OPERATOR).map_or(&b""[..], |name| name.as_bytes());
    let name: String = String::from_utf8_lossy(name).escape_default().take(MAX_NAME).collect();
    let operator = Actor::Operator { name: format!("{name}({})", peer.user) };
    if !peer.is_known {
        return refuse_stranger(operator, endpoint).await;
    }
    let tenant = request.uri().path().strip_prefix("/mcp/");
    // The wider rule: an id that a setting did not admit was not imported either.
    let tenant = tenant.and_then(|id| TenantId::parse(id, IdRule::AllowUnderscore).ok());
    let (Some(tenant), Some(permissions)) = (tenant, permissions(headers)) else {
        let message = "POST /mcp/{tenant}, with tenantry-scope, is all there is\n";
        return (StatusCode::BAD_REQUEST, message).into_response();
    };
    let (endpoint, cut) = (endpoint.clone(), CancellationToken::new());
    TenantEndpoint { endpoint, tenant, permissions, operator, cut }.handle(request).await
}

fn permissions(headers: &HeaderMap) -> Option<Permissions> {
    let scopes = headers.get(SCOPE)?.to_str().ok()?;
    scopes.split(',').map(Permission::parse).collect()
}

async fn refuse_stranger(operator: Actor, endpoint: &mcp::Endpoint) -> Response {
    let request_id = RequestId::random();
    let pending = endpoint.log().begin(Attempt {
        request_id: request_id.clone(),
        actor: operator,
        peer: Some(SOCKET.to_owned()),
        action: "connect",
        tenant: None,
    });
    let outcome = Outcome { code: Some(ErrorCode::Forbidden), ..Outcome::default() };
    match pending.complete(outcome).await {
        Ok(()) => refuse(ErrorCode::Forbidden, &request_id),
        Err(error) => refuse(error.code(), &request_id),
    }
}
