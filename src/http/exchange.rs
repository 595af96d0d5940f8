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
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use rmcp::ServerHandler;
use rmcp::model::ServerNotification;
use rmcp::transport::streamable_http_server::session::SessionManager;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use tokio_util::sync::CancellationToken;

use super::answer::with_rows;
use super::refusal::{Refused, refuse_because};
use super::session::{OwnSessions, SessionOptions, Sessions, is_of_answer};
use crate::audit::RequestId;
use crate::auth::TenantAccess;
use crate::manager::{self, TenantMcpManager};
use crate::pool::{self, PooledInstances};
use crate::server::{Attachment, Dispatch, Failure, McpHandler, McpSession, Stays, Who};

/// Where a session is named.
const SESSION_ID: &str = "Mcp-Session-Id";
/// Where the last event is named that a client had of a stream.
const LAST_EVENT_ID: &str = "Last-Event-ID";

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

    /// What the client of `session` is told by itself, until `ended` is cancelled. Nothing by default.
    fn news(
        &self,
        _handler: &Self::Handler,
        _session: &McpSession,
        _ended: CancellationToken,
    ) -> impl Future<Output = Result<BoxStream<'static, ServerNotification>, Failure>> + Send {
        std::future::ready(Ok(stream::pending().boxed()))
    }
}

impl Handlers for Arc<TenantMcpManager> {
    type Handler = Dispatch<McpHandler<PooledInstances>>;

    async fn handler(&self, access: TenantAccess) -> Result<Self::Handler, manager::Error> {
        TenantMcpManager::handler(self, access).await
    }

    async fn news(
        &self,
        handler: &Self::Handler,
        session: &McpSession,
        ended: CancellationToken,
    ) -> Result<BoxStream<'static, ServerNotification>, Failure> {
        Ok(handler.handler().news(session, ended).await?.boxed())
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
        let who = Who::new(access.tenant().clone(), &pool::caller_of(&access));
        let (at_most, mark) = (access.lasts_for(), self.stays.mark(access.tenant()));
        let request_id = access.origin().request_id.clone();
        let handler = self.handlers.handler(access).await?;
        let Some(sessions) = &self.sessions else {
            let sessions = Arc::clone(&self.stateless);
            return Ok(attached(handler, sessions, self.protocol.clone(), request).await);
        };
        let id = session_id(request.headers()).map(str::to_owned);
        let cut_off = &self.protocol.cancellation_token;
        let own =
            OwnSessions::new(Arc::clone(sessions), who, id.as_deref(), mark, at_most, cut_off);
        match *request.method() {
            Method::DELETE if id.is_some() && !own.is_known() => {
                // As `rmcp` answers every other request that names one that is not there.
                return Ok((StatusCode::NOT_FOUND, "Not Found: Session not found").into_response());
            }
            Method::GET if own.is_known() && opens_stream(request.headers()) => {
                if let Err(refusal) = self.tell(&handler, &own, request_id).await {
                    return Ok(refusal);
                }
            }
            _ => {}
        }
        request.extensions_mut().insert(own.lent().clone());
        let protocol = self.protocol.clone().with_cancellation_token(own.ended().clone());
        if id.is_none() {
            return Ok(attached(handler, Arc::new(own), protocol, request).await);
        }
        // A session has the handler that it began with; what this request was granted is in this one.
        request.extensions_mut().insert(Arc::new(handler.clone()));
        // Without an attachment: what is sent again later has to be whole by itself.
        Ok(respond(handler, Arc::new(own), protocol, request).await)
    }

    /// Has the stream of the session tell what is new to its client; or says why it does not.
    async fn tell(
        &self,
        handler: &H::Handler,
        own: &OwnSessions,
        request_id: Option<RequestId>,
    ) -> Result<(), Response> {
        let Some(place) = own.place() else {
            let request_id = request_id.unwrap_or_else(RequestId::random);
            return Err(Refused::second_stream().into_response(&request_id));
        };
        let news = self.handlers.news(handler, own.lent(), own.ended().child_token()).await;
        let news = news.map_err(|failure| {
            refuse_because(failure.code(), &failure.error.to_string(), &failure.request_id)
        })?;
        own.tell(news, place);
        Ok(())
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

/// Whether a GET asks for the stream of its session, not for the rest of an answer.
fn opens_stream(headers: &HeaderMap) -> bool {
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    !last.is_some_and(is_of_answer)
}

fn session_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(SESSION_ID)?.to_str().ok()
}
