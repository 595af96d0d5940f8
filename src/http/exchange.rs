//! From a request that may reach one tenant to that tenant's handler, through `rmcp`, and back.
//!
//! ```text
//! Endpoint --TenantAccess, request--> Exchange --Handlers--> handler of the tenant
//!                                        | stateless: each request by itself, answers as JSON
//!                                        ` http.sessions: for older clients, see super::session
//! ```

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::SessionManager;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use super::answer::with_rows;
use super::session::{OwnSessions, SessionOptions, Sessions};
use crate::auth::TenantAccess;
use crate::manager::{self, TenantMcpManager};
use crate::pool::{self, PooledInstances};
use crate::server::{Attachment, Dispatch, McpHandler, Stays, Who};

/// Where a session is named.
const SESSION_ID: &str = "Mcp-Session-Id";

/// Who makes the handler for a request that was granted a tenant.
///
/// [`TenantMcpManager`] does for the service; a test may put a handler of its own behind the same
/// router, authentication and checks.
pub trait Handlers: Send + Sync + 'static {
    /// What serves one tenant to one caller.
    type Handler: ServerHandler + Clone;

    /// The handler for what `access` allows.
    fn handler(
        &self,
        access: TenantAccess,
    ) -> impl Future<Output = Result<Self::Handler, manager::Error>> + Send;
}

impl Handlers for Arc<TenantMcpManager> {
    type Handler = Dispatch<McpHandler<PooledInstances>>;

    async fn handler(&self, access: TenantAccess) -> Result<Self::Handler, manager::Error> {
        TenantMcpManager::handler(self, access).await
    }
}

/// An [`Exchange`], whatever its handlers are.
pub(super) trait Answers: Send + Sync {
    fn answer(
        &self,
        access: TenantAccess,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, manager::Error>>;

    /// The same without sessions: for clients that have no header to keep one in.
    fn stateless(&self) -> Arc<dyn Answers>;
}

pub(super) struct Exchange<H> {
    handlers: Arc<H>,
    protocol: StreamableHttpServerConfig,
    stateless: Arc<NeverSessionManager>,
    stays: Stays,
    sessions: Option<Arc<Sessions>>,
}

impl<H: Handlers> Exchange<H> {
    pub(super) fn new(handlers: Arc<H>, stays: Stays, sessions: Option<SessionOptions>) -> Self {
        let protocol = StreamableHttpServerConfig::default()
            // Any replica can answer any request, in either protocol era.
            .with_legacy_session_mode(sessions.is_some())
            .with_json_response(true)
            // These are checked before it sees a request.
            .with_max_request_body_bytes(usize::MAX)
            .disable_allowed_hosts()
            .disable_allowed_origins();
        let sessions = sessions.map(|options| Arc::new(Sessions::new(options, stays.clone())));
        Self { handlers, protocol, stateless: Arc::default(), stays, sessions }
    }

    async fn serve(
        &self,
        access: TenantAccess,
        mut request: Request,
    ) -> Result<Response, manager::Error> {
        let caller = pool::caller_of(&access);
        let who = Who::new(access.tenant().clone(), &caller);
        let (at_most, mark) = (access.lasts_for(), self.stays.mark(access.tenant()));
        let handler = self.handlers.handler(access).await?;
        request.extensions_mut().insert(caller);
        let Some(sessions) = &self.sessions else {
            let sessions = Arc::clone(&self.stateless);
            return Ok(attached(handler, sessions, self.protocol.clone(), request).await);
        };
        let cut_off = &self.protocol.cancellation_token;
        let own = OwnSessions::new(Arc::clone(sessions), who, mark, at_most, cut_off);
        let id = session_id(request.headers()).map(str::to_owned);
        let (ended, own) = (own.ended(id.as_deref()), Arc::new(own));
        if ended.is_none() && request.method() == Method::DELETE {
            // As `rmcp` answers every other request that names one that is not there.
            return Ok((StatusCode::NOT_FOUND, "Not Found: Session not found").into_response());
        }
        let ended = ended.unwrap_or_else(|| cut_off.clone());
        let protocol = self.protocol.clone().with_cancellation_token(ended);
        if id.is_none() {
            return Ok(attached(handler, own, protocol, request).await);
        }
        // Without an attachment: what is sent again later has to be whole by itself.
        Ok(respond(handler, own, protocol, request).await)
    }
}

impl<H: Handlers> Answers for Exchange<H> {
    fn answer(
        &self,
        access: TenantAccess,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, manager::Error>> {
        self.serve(access, request).boxed()
    }

    fn stateless(&self) -> Arc<dyn Answers> {
        Arc::new(Self::new(Arc::clone(&self.handlers), self.stays.clone(), None))
    }
}

/// The answer of `handler`, with the rows that it leaves beside it.
async fn attached<S: ServerHandler + Clone, M: SessionManager>(
    handler: S,
    sessions: Arc<M>,
    protocol: StreamableHttpServerConfig,
    mut request: Request,
) -> Response {
    let attachment = Attachment::default();
    request.extensions_mut().insert(attachment.clone());
    with_rows(respond(handler, sessions, protocol, request).await, attachment)
}

async fn respond<S: ServerHandler + Clone, M: SessionManager>(
    handler: S,
    sessions: Arc<M>,
    protocol: StreamableHttpServerConfig,
    request: Request,
) -> Response {
    let make = move || Ok(handler.clone());
    let service = StreamableHttpService::new(make, sessions, protocol);
    service.handle(request).await.map(Body::new).into_response()
}

fn session_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(SESSION_ID)?.to_str().ok()
}
