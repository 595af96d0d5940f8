//! Sessions for clients of the older protocol, where an operator wants them: `http.sessions`.
//!
//! ```text
//! initialize --> id (128 random bits), bound to tenant and credential --> until DELETE, idle, evicted,
//!                                                     revoked, disabled tenant, seal, stop
//! POST       --> the answer, with the notice that the handler left for it
//! GET        --> what the client is told by itself: one stream, which is as good as use
//! ```
//!
//! Protects against: a session id in the hands of another, to whom it is as unknown as any other word;
//! clients that begin sessions and forget them (the one that was not used for longest gives way, of the
//! same tenant first); sessions that outlive the leave that they were begun with. Nothing is kept for a
//! request that is not authenticated, nor for an id that nobody was given. A session is no credential:
//! each request in it is authenticated like any other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _, stream};
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage, ServerNotification};
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionManager, LocalSessionManagerError,
};
use rmcp::transport::streamable_http_server::session::{
    ServerSseMessage, SessionId, SessionManager,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::server::{Mark, McpSession, Stay, StayKind, Stays, Who};

/// An id of a request that there is none of.
const NO_REQUEST: u64 = u64::MAX;

/// Bounds on sessions.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field from the settings")]
pub struct SessionOptions {
    /// Most of all tenants together.
    pub max: usize,
    /// Most of one tenant.
    pub max_per_tenant: usize,
    /// How long one stays when nobody uses it.
    pub idle_timeout: Duration,
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    options: SessionOptions,
    local: LocalSessionManager,
    stays: Stays,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    sessions: HashMap<SessionId, Session>,
    /// Numbers uses.
    uses: u64,
}

#[derive(Debug)]
struct Session {
    owner: Who,
    /// The higher, the later.
    used: u64,
    stay: Stay,
    lent: McpSession,
    /// One place, for the one stream.
    stream: Arc<Semaphore>,
}

impl Sessions {
    pub(super) fn new(options: SessionOptions, stays: Stays) -> Self {
        let mut local = LocalSessionManager::default();
        local.session_config.keep_alive = Some(options.idle_timeout);
        Self { options, local, stays, table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Whole after any panic: each change is one insertion or removal.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a session out of the table and ends it.
    async fn remove(&self, id: &SessionId) -> Result<(), LocalSessionManagerError> {
        let removed = self.table().sessions.remove(id);
        if let Some(session) = removed {
            session.stay.ended().cancel();
        }
        self.local.close_session(id).await
    }
}

impl Table {
    fn use_own(&mut self, id: &SessionId, owner: &Who) -> Option<&Session> {
        self.uses += 1;
        let session = self.sessions.get_mut(id).filter(|session| session.owner == *owner)?;
        session.used = self.uses;
        Some(session)
    }

    /// Which session gives way to another one of `owner`.
    fn in_the_way(&self, owner: &Who, options: &SessionOptions) -> Option<SessionId> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for session in self.sessions.values() {
            *counts.entry(session.owner.tenant.as_str()).or_default() += 1;
        }
        let own = counts.get(owner.tenant.as_str()).copied().unwrap_or(0);
        let of = if own >= options.max_per_tenant {
            owner.tenant.as_str()
        } else if self.sessions.len() >= options.max {
            // Whoever has most; a tenant that begins ever more of them displaces its own.
            counts.iter().max_by_key(|(_, count)| **count).map(|(tenant, _)| *tenant)?
        } else {
            return None;
        };
        let candidates = self.sessions.iter().filter(|(_, it)| it.owner.tenant.as_str() == of);
        candidates.min_by_key(|(_, session)| session.used).map(|(id, _)| id.clone())
    }
}

/// The sessions as one request of a caller has them: others' are not there.
pub(super) struct OwnSessions {
    sessions: Arc<Sessions>,
    owner: Who,
    /// The state of the tenant before the caller's handler was made.
    mark: Option<Mark>,
    /// How long the caller's credential is good for.
    at_most: Option<Duration>,
    /// Whether the request is of a session that there is.
    is_known: bool,
    /// Ends that, or the one that the request begins.
    ended: CancellationToken,
    lent: McpSession,
    stream: Arc<Semaphore>,
    /// What the stream tells that the request opens.
    news: Mutex<Option<News>>,
}

/// What a client is told by itself, and the place that it has for that.
type News = (BoxStream<'static, ServerNotification>, OwnedSemaphorePermit);

impl OwnSessions {
    /// For a request that names the session `id`, or none.
    pub(super) fn new(
        sessions: Arc<Sessions>,
        owner: Who,
        id: Option<&str>,
        mark: Option<Mark>,
        at_most: Option<Duration>,
        cut_off: &CancellationToken,
    ) -> Self {
        let named = id.and_then(|id| {
            let mut table = sessions.table();
            let session = table.use_own(&id.into(), &owner)?;
            let (ended, lent) = (session.stay.ended().clone(), session.lent.of_next_request());
            Some((ended, lent, Arc::clone(&session.stream)))
        });
        let is_known = named.is_some();
        let (ended, lent, stream) = named.unwrap_or_else(|| {
            (cut_off.child_token(), McpSession::default(), Arc::new(Semaphore::new(1)))
        });
        let news = Mutex::default();
        Self { sessions, owner, mark, at_most, is_known, ended, lent, stream, news }
    }

    /// Whether the request names a session of the caller's.
    pub(super) fn is_known(&self) -> bool {
        self.is_known
    }

    /// What ends the session of the request, or the one that it begins.
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// What the handler is lent.
    pub(super) fn lent(&self) -> &McpSession {
        &self.lent
    }

    /// The place for the session's stream, if it is free.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.stream).try_acquire_owned().ok()
    }

    /// Has the stream that the request opens tell `news`.
    pub(super) fn tell(
        &self,
        news: BoxStream<'static, ServerNotification>,
        place: OwnedSemaphorePermit,
    ) {
        *self.news.lock().unwrap_or_else(PoisonError::into_inner) = Some((news, place));
    }

    /// Keeps session `id` from being idle, and tells nothing.
    async fn keep(&self, id: &SessionId) -> impl Stream<Item = ServerSseMessage> + Send + 'static {
        let handle = self.sessions.local.sessions.read().await.get(id).cloned();
        let often = self.sessions.options.idle_timeout / 2;
        let kept = stream::unfold(handle, move |handle| async move {
            tokio::time::sleep(often).await;
            handle.as_ref()?.close_request_wise_channel(NO_REQUEST).await.ok()?;
            Some((None, handle))
        });
        kept.filter_map(std::future::ready)
    }
}

/// `Last-Event-ID` of a stream that was the answer to a request, not the session's own.
pub(super) fn is_of_answer(event_id: &str) -> bool {
    event_id.contains('/')
}

/// Why a session was not begun or used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the service stops")]
    Stopping,
    #[error(transparent)]
    Session(#[from] LocalSessionManagerError),
}

impl SessionManager for OwnSessions {
    type Error = Error;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Error> {
        let sessions = &self.sessions;
        let (owner, ended) = (self.owner.clone(), self.ended.clone());
        let stay = sessions.stays.enter(owner, StayKind::Session, self.mark, self.at_most, ended);
        let stay = stay.map_err(|_| Error::Stopping)?;
        let (id, transport) = sessions.local.create_session().await?;
        loop {
            let in_the_way = {
                let mut table = sessions.table();
                let in_the_way = table.in_the_way(&self.owner, &sessions.options);
                if in_the_way.is_none() {
                    table.uses += 1;
                    let session = Session {
                        owner: self.owner.clone(),
                        used: table.uses,
                        stay,
                        lent: self.lent.clone(),
                        stream: Arc::clone(&self.stream),
                    };
                    table.sessions.insert(id.clone(), session);
                    break;
                }
                in_the_way
            };
            if let Some(in_the_way) = in_the_way {
                sessions.remove(&in_the_way).await?;
            }
        }
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Error> {
        Ok(self.sessions.local.initialize_session(id, message).await?)
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Error> {
        let is_own = self.sessions.table().use_own(id, &self.owner).is_some();
        Ok(is_own && self.sessions.local.has_session(id).await?)
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Error> {
        let is_own = self.sessions.table().use_own(id, &self.owner).is_some();
        if is_own {
            self.sessions.remove(id).await?;
        }
        Ok(())
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Error> {
        let answer = self.sessions.local.create_stream(id, message).await?;
        let lent = self.lent.clone();
        Ok(answer.flat_map(move |event| {
            let notice = if event.message.is_some() { lent.take_notice() } else { None };
            stream::iter(notice.map(notification).into_iter().chain([event]))
        }))
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), Error> {
        Ok(self.sessions.local.accept_message(id, message).await?)
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Error> {
        // What a handler says to its peer, which a tenant's does not.
        let said = self.sessions.local.create_standalone_stream(id).await?;
        let kept = self.keep(id).await;
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner).take();
        let told = stream::iter(news).flat_map(|(news, place)| {
            news.map(move |news| {
                let _held = &place;
                notification(news)
            })
        });
        Ok(shared(stream::select(stream::select(told, said), kept).boxed()))
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Error> {
        if is_of_answer(&last_event_id) {
            return Ok(shared(self.sessions.local.resume(id, last_event_id).await?.boxed()));
        }
        Ok(shared(self.create_standalone_stream(id).await?.boxed()))
    }
}

fn notification(news: ServerNotification) -> ServerSseMessage {
    ServerSseMessage::from_message(ServerJsonRpcMessage::notification(news))
}

/// `stream` as `rmcp` wants it, though nobody shares it.
fn shared<T: 'static>(stream: BoxStream<'static, T>) -> impl Stream<Item = T> + Send + Sync {
    let mut stream = Mutex::new(stream);
    stream::poll_fn(move |context| {
        stream.get_mut().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(context)
    })
}
