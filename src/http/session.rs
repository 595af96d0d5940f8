//! Sessions for clients of the older protocol, where an operator wants them: `http.sessions`.
//!
//! ```text
//! initialize --> id (128 random bits), bound to tenant and credential
//! POST       --> the answer, with the notice that the handler left for it
//! GET        --> what the client is told by itself: one stream
//!
//! idle, evicted         --> no request finds it
//! revoked, disabled     --> no request finds it --> calls under way finish -.
//! DELETE                --> no request finds it --> they are cut ------------+--> over
//! ```
//!
//! Protects against: a session id in the hands of another, to whom it is as unknown as any other word;
//! clients that begin sessions and forget them (the one that was not used for longest gives way, of the
//! same tenant first); sessions that outlive the leave that they were begun with; calls that nobody
//! answers. Nothing is kept for a request that is not authenticated, nor for an id that nobody was given. A
//! session is no credential: each request in it is authenticated like any other.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
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
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::refusal::Refused;
use crate::error::{Bound, ErrorCode};
use crate::server::{Mark, McpSession, Stay, StayKind, Stays, Who};

/// The stream of a session, among the ids of its calls: no request has this one.
pub(super) const STREAM: Value = Value::Null;

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
    table: Mutex<HashMap<SessionId, Session>>,
}

/// One that requests find.
#[derive(Debug)]
struct Session {
    owner: Who,
    stay: Stay,
    lent: McpSession,
    /// When it was used last, if it is not now.
    used: Instant,
    /// What cuts each use, by the id of the call.
    uses: HashMap<Value, CancellationToken>,
    held: Held,
}

/// Keeps `rmcp` from ending a session under what is under way in it, while there is a clone.
type Held = mpsc::Sender<Infallible>;

impl Session {
    fn is_idle(&self) -> bool {
        self.uses.keys().all(|id| *id == STREAM)
    }

    /// When it is over, if it is not used again.
    fn due(&self, idle_timeout: Duration) -> Option<Instant> {
        let used = if self.uses.is_empty() { self.used } else { Instant::now() };
        used.checked_add(idle_timeout)
    }

    /// Ends it, and leaves the calls that are under way.
    fn end(self) {
        if let Some(stream) = self.uses.get(&STREAM) {
            stream.cancel();
        }
        self.stay.ended().cancel();
    }

    /// Ends it, and what is under way in it.
    fn cut(self) {
        self.uses.values().for_each(CancellationToken::cancel);
        self.stay.ended().cancel();
    }
}

impl Sessions {
    pub(super) fn new(options: SessionOptions, stays: Stays) -> Self {
        let mut local = LocalSessionManager::default();
        // It counts from the last message, and a call may take longer.
        local.session_config.keep_alive = None;
        Self { options, local, stays, table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        // Whole after any panic: each change is one insertion or removal.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a session out of the table when it was not used for long enough; never, if it is otherwise
    /// taken out before.
    async fn reap(&self, id: &SessionId) {
        loop {
            let due = {
                let mut table = self.table();
                let due = table.get(id).and_then(|it| it.due(self.options.idle_timeout));
                if due.is_some_and(|due| due <= Instant::now()) {
                    table.remove(id);
                    return;
                }
                due
            };
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for the end of session `id`, and for what is under way in it then.
    async fn attend(
        self: Arc<Self>,
        id: SessionId,
        ended: CancellationToken,
        over: CancellationToken,
        mut held: mpsc::Receiver<Infallible>,
    ) {
        tokio::select! {
            () = ended.cancelled() => {
                let left = self.table().remove(&id);
                left.into_iter().for_each(Session::end);
            }
            () = self.reap(&id) => {}
        }
        let _nobody_holds_it = held.recv().await;
        over.cancel();
        // It may have ended by itself.
        drop(self.local.close_session(&id).await);
    }
}

/// Takes the session out of `table` that gives way to another one of `owner`, if one has to.
fn make_room(
    table: &mut HashMap<SessionId, Session>,
    owner: &Who,
    options: &SessionOptions,
) -> Result<Option<Session>, Error> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for session in table.values() {
        *counts.entry(session.owner.tenant.as_str()).or_default() += 1;
    }
    let own = counts.get(owner.tenant.as_str()).copied().unwrap_or(0);
    let (of, bound) = if own >= options.max_per_tenant {
        (Some(owner.tenant.as_str()), Bound::HttpSessionsPerTenant)
    } else if table.len() >= options.max {
        // Whoever has most; a tenant that begins ever more of them displaces its own.
        let most = counts.iter().max_by_key(|(_, count)| **count);
        (most.map(|(tenant, _)| *tenant), Bound::HttpSessions)
    } else {
        return Ok(None);
    };
    let idle = table.iter().filter(|(_, it)| Some(it.owner.tenant.as_str()) == of && it.is_idle());
    // Who listens stays for longer than who does not.
    let unused = idle.min_by_key(|(_, it)| (!it.uses.is_empty(), it.used));
    let id = unused.map(|(id, _)| id.clone()).ok_or(Error::Exhausted(bound))?;
    Ok(table.remove(&id))
}

/// A use of a session, until this is dropped.
#[derive(Debug)]
struct Use {
    sessions: Arc<Sessions>,
    session: SessionId,
    id: Value,
}

impl Drop for Use {
    fn drop(&mut self) {
        if let Some(session) = self.sessions.table().get_mut(&self.session) {
            session.uses.remove(&self.id);
            session.used = Instant::now();
        }
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
    /// Cancelled when the session is over that the request is of, or begins.
    over: CancellationToken,
    lent: McpSession,
    held: Option<Held>,
    used: Option<Arc<Use>>,
    /// What the stream tells that the request opens.
    news: Mutex<Option<BoxStream<'static, ServerNotification>>>,
    /// Why no session was begun.
    failed: OnceLock<Error>,
}

impl OwnSessions {
    /// For a request that begins one.
    pub(super) fn new(
        sessions: Arc<Sessions>,
        owner: Who,
        mark: Option<Mark>,
        at_most: Option<Duration>,
    ) -> Self {
        Self {
            sessions,
            owner,
            mark,
            at_most,
            over: CancellationToken::new(),
            lent: McpSession::default(),
            held: None,
            used: None,
            news: Mutex::default(),
            failed: OnceLock::new(),
        }
    }

    /// For a request in session `id`; one with an id of its own, or [`STREAM`], uses it until it is over,
    /// and `cut` ends that.
    ///
    /// # Errors
    ///
    /// When the caller has no such session, or it has such a use already.
    pub(super) fn find(
        sessions: Arc<Sessions>,
        owner: Who,
        id: &str,
        used: Option<(Value, CancellationToken)>,
    ) -> Result<Self, Unusable> {
        let session = SessionId::from(id);
        let mut own = Self::new(Arc::clone(&sessions), owner, None, None);
        let mut table = sessions.table();
        let found = table.get_mut(&session).filter(|it| !it.stay.ended().is_cancelled());
        let found = found.ok_or(Unusable::Unknown)?;
        if found.owner != own.owner {
            return Err(Unusable::Foreign);
        }
        found.used = Instant::now();
        own.lent = found.lent.of_next_request();
        own.held = Some(found.held.clone());
        if let Some((id, cut)) = used {
            if found.uses.contains_key(&id) {
                return Err(if id == STREAM { Unusable::Listening } else { Unusable::IdInUse });
            }
            found.uses.insert(id.clone(), cut);
            drop(table);
            own.used = Some(Arc::new(Use { sessions, session, id }));
        }
        Ok(own)
    }

    /// What ends what `rmcp` does for the session.
    pub(super) fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// What the handler is lent.
    pub(super) fn lent(&self) -> &McpSession {
        &self.lent
    }

    /// What keeps the session in use, for whoever works on the request.
    pub(super) fn used(&self) -> impl Clone + Send + Sync + 'static + use<> {
        (self.used.clone(), self.held.clone())
    }

    /// Why no session was begun.
    pub(super) fn failure(&self) -> Option<Refused> {
        match self.failed.get()? {
            Error::Exhausted(bound) => Some((*bound).into()),
            stopping @ Error::Stopping => {
                Some(Refused::because(ErrorCode::Cancelled, stopping.to_string()))
            }
            Error::Session(_) => None,
        }
    }

    /// Has the stream that the request opens tell `news`, and end with it.
    pub(super) fn tell(&self, news: BoxStream<'static, ServerNotification>) {
        *self.news.lock().unwrap_or_else(PoisonError::into_inner) = Some(news);
    }

    fn is_own(&self, id: &SessionId) -> bool {
        self.sessions.table().get(id).is_some_and(|session| session.owner == self.owner)
    }

    async fn begin(&self) -> Result<(SessionId, Transport), Error> {
        let sessions = &self.sessions;
        let ended = CancellationToken::new();
        let (owner, kind) = (self.owner.clone(), StayKind::Session);
        let stay = sessions.stays.enter(owner, kind, self.mark, self.at_most, ended.clone());
        let stay = stay.map_err(|_| Error::Stopping)?;
        let (id, transport) = sessions.local.create_session().await?;
        let (held, gone) = mpsc::channel(1);
        let session = Session {
            owner: self.owner.clone(),
            stay,
            lent: self.lent.clone(),
            used: Instant::now(),
            uses: HashMap::new(),
            held,
        };
        let room = {
            let mut table = sessions.table();
            let room = make_room(&mut table, &self.owner, &sessions.options);
            if room.is_ok() {
                table.insert(id.clone(), session);
            }
            room
        };
        match room {
            Ok(evicted) => evicted.into_iter().for_each(Session::end),
            Err(exhausted) => {
                sessions.local.close_session(&id).await?;
                return Err(exhausted);
            }
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the session, which a stop cuts"
        )]
        tokio::spawn(Arc::clone(sessions).attend(id.clone(), ended, self.over.clone(), gone));
        Ok((id, transport))
    }
}

/// Why a request is not served in the session that it names.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unusable {
    Foreign,
    IdInUse,
    Listening,
    Unknown,
}

impl From<Unusable> for Refused {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Foreign => Self::no_session(true),
            Unusable::IdInUse => Self::id_in_use(),
            Unusable::Listening => Self::second_stream(),
            Unusable::Unknown => Self::no_session(false),
        }
    }
}

/// `Last-Event-ID` of a stream that was the answer to a request, not the session's own.
pub(super) fn is_of_answer(event_id: &str) -> bool {
    event_id.contains('/')
}

/// Why a session was not begun or used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There are as many as there may be, and none that could give way.
    #[error(transparent)]
    Exhausted(Bound),
    #[error("the service stops; begin a session when it is back")]
    Stopping,
    #[error(transparent)]
    Session(#[from] LocalSessionManagerError),
}

type Transport = <LocalSessionManager as SessionManager>::Transport;

impl SessionManager for OwnSessions {
    type Error = LocalSessionManagerError;
    type Transport = Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        self.begin().await.map_err(|error| match error {
            Error::Session(error) => error,
            error @ (Error::Exhausted(_) | Error::Stopping) => {
                // The caller is told this one.
                let _first = self.failed.set(error);
                LocalSessionManagerError::SessionNotFound(SessionId::default())
            }
        })
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        self.sessions.local.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        Ok(self.held.is_some() && self.sessions.local.has_session(id).await?)
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        if self.is_own(id)
            && let Some(session) = { self.sessions.table().remove(id) }
        {
            session.cut();
        }
        Ok(())
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let answer = self.sessions.local.create_stream(id, message).await?;
        let (lent, held, mut used) = (self.lent.clone(), self.held.clone(), self.used.clone());
        Ok(answer.flat_map(move |event| {
            let _until_taken = &held;
            if matches!(
                event.message.as_deref(),
                Some(ServerJsonRpcMessage::Response(_) | ServerJsonRpcMessage::Error(_))
            ) {
                // Its id is free before the client can have the answer.
                drop(used.take());
            }
            let notice = if event.message.is_some() { lent.take_notice() } else { None };
            stream::iter(notice.map(notification).into_iter().chain([event]))
        }))
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), Self::Error> {
        self.sessions.local.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        // What a handler says to its peer, which a tenant's does not.
        let said = self.sessions.local.create_standalone_stream(id).await?;
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner).take();
        let news = stream::iter(news).flatten().map(notification);
        let told = news.map(Some).chain(stream::iter([None]));
        let (told, used) = (stream::select(told, said.map(Some)), self.used.clone());
        let told = told.take_while(move |told| {
            let _until_it_ends = &used;
            std::future::ready(told.is_some())
        });
        Ok(shared(told.filter_map(std::future::ready).boxed()))
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        if !is_of_answer(&last_event_id) {
            return Ok(shared(self.create_standalone_stream(id).await?.boxed()));
        }
        let rest = self.sessions.local.resume(id, last_event_id).await?;
        let held = self.held.clone();
        let rest = rest.inspect(move |_| {
            let _until_taken = &held;
        });
        Ok(shared(rest.boxed()))
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
