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
use axum::http::{HeaderMap, Method};
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

use super::admission::{Admitted, Place};
use super::answer::with_rows;
use super::budget::Share;
use super::refusal::Refused;
use super::session::{OwnSessions, STREAM, SessionOptions, Sessions, is_of_answer};
use crate::audit::RequestId;
use crate::auth::TenantAccess;
use crate::manager::{self, TenantMcpManager};
use crate::pool::{self, PooledInstances};
use crate::server::{Attachment, Dispatch, Failure, McpHandler, McpSession, Stays, Who};

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
        ended: CancellationToken,
    ) -> impl Future<Output = Result<BoxStream<'static, ServerNotification>, Failure>> + Send {
        let nothing = stream::pending().take_until(ended.cancelled_owned());
        std::future::ready(Ok(nothing.boxed()))
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
    /// The answer to what was admitted. Its bytes count in `share` until they are taken.
    fn answer<'a>(
        &'a self,
        access: TenantAccess,
        request_id: &'a RequestId,
        admitted: Admitted,
        share: Share,
    ) -> BoxFuture<'a, Result<Response, Refused>>;

    fn has_sessions(&self) -> bool;

    /// The same without sessions: for clients that have no header to keep one in.
    fn stateless(&self) -> Arc<dyn Answers>;
}

pub(super) struct Exchange<H> {
    handlers: Arc<H>,
    protocol: StreamableHttpServerConfig,
    stays: Stays,
    sessions: Option<Arc<Sessions>>,
}

impl<H: Handlers> Exchange<H> {
    pub(super) fn new(handlers: Arc<H>, stays: Stays, sessions: Option<SessionOptions>) -> Self {
        let protocol = StreamableHttpServerConfig::default()
            // Any replica can answer any request, in either protocol era.
            .with_legacy_session_mode(false)
            .with_json_response(true)
            // These are checked before it sees a request.
            .with_max_request_body_bytes(usize::MAX)
            .disable_allowed_hosts()
            .disable_allowed_origins();
        let sessions = sessions.map(|options| Arc::new(Sessions::new(options, stays.clone())));
        Self { handlers, protocol, stays, sessions }
    }

    async fn serve(
        &self,
        access: TenantAccess,
        request_id: &RequestId,
        admitted: Admitted,
        share: Share,
    ) -> Result<Response, Refused> {
        let who = Who::new(access.tenant().clone(), &pool::caller_of(&access));
        let (at_most, mark) = (access.lasts_for(), self.stays.mark(access.tenant()));
        let cut = access.origin().cut.clone();
        let handler = self.handlers.handler(access).await.map_err(|error| {
            let code = error.code();
            // The audit log has each; as many as a client likes would fill this one.
            tracing::debug!(request.id = %request_id, tenant.id = %who.tenant, error.code = %code,
                "the tenant cannot be served");
            Refused::from(code)
        })?;
        let id = admitted.id();
        let (mut request, place) = admitted.into_parts();
        request.extensions_mut().insert(cut.clone());
        let (own, begins) = match (&self.sessions, place) {
            (Some(sessions), Place::New) => {
                (OwnSessions::new(Arc::clone(sessions), who, mark, at_most), true)
            }
            (Some(sessions), Place::Session(session)) => {
                let opens_stream = *request.method() == Method::GET && !resumes(request.headers());
                let used = (opens_stream || id != STREAM).then(|| (id, cut.clone()));
                let own = OwnSessions::find(Arc::clone(sessions), who, &session, used)?;
                if opens_stream {
                    let news = self.handlers.news(&handler, own.lent(), cut).await;
                    own.tell(news.map_err(|failure| {
                        Refused::because(failure.code(), failure.error.to_string())
                    })?);
                }
                // A session has the handler that it began with; what this request was granted is in this
                // one.
                request.extensions_mut().insert(Arc::new(handler.clone()));
                request.extensions_mut().insert(own.used());
                (own, false)
            }
            (None, _) | (_, Place::Alone) => {
                return attached(handler, self.protocol.clone(), request, share).await;
            }
        };
        request.extensions_mut().insert(own.lent().clone());
        let protocol = self.protocol.clone().with_legacy_session_mode(true);
        let protocol = protocol.with_cancellation_token(own.over().clone());
        let own = Arc::new(own);
        let begun = begins.then(|| Arc::clone(&own));
        // Without an attachment: what is sent again later has to be whole by itself.
        let response = share.hold(respond(handler, own, protocol, request).await)?;
        begun.and_then(|own| own.failure()).map_or(Ok(response), Err)
    }
}

impl<H: Handlers> Answers for Exchange<H> {
    fn answer<'a>(
        &'a self,
        access: TenantAccess,
        request_id: &'a RequestId,
        admitted: Admitted,
        share: Share,
    ) -> BoxFuture<'a, Result<Response, Refused>> {
        self.serve(access, request_id, admitted, share).boxed()
    }

    fn has_sessions(&self) -> bool {
        self.sessions.is_some()
    }

    fn stateless(&self) -> Arc<dyn Answers> {
        Arc::new(Self::new(Arc::clone(&self.handlers), self.stays.clone(), None))
    }
}

/// The answer of `handler` to a request by itself, with the rows that it leaves beside it.
async fn attached<S: ServerHandler + Clone>(
    handler: S,
    protocol: StreamableHttpServerConfig,
    mut request: Request,
    share: Share,
) -> Result<Response, Refused> {
    let attachment = Attachment::default();
    request.extensions_mut().insert(attachment.clone());
    let sessions = Arc::<NeverSessionManager>::default();
    let response = share.hold(respond(handler, sessions, protocol, request).await)?;
    Ok(with_rows(response, attachment, share)?)
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

/// Whether a GET asks for the rest of an answer, not for the stream of its session.
fn resumes(headers: &HeaderMap) -> bool {
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    last.is_some_and(is_of_answer)
}
