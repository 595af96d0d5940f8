//! Sessions for clients of the older protocol, where an operator wants them: `http.sessions`.
//!
//! ```text
//! initialize --> id (128 random bits), bound to tenant and credential --> until DELETE, idle, evicted,
//!                                                     revoked, changed tenant, seal, stop
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

use futures_util::Stream;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionManager, LocalSessionManagerError,
};
use rmcp::transport::streamable_http_server::session::{
    ServerSseMessage, SessionId, SessionManager,
};
use tokio_util::sync::CancellationToken;

use crate::server::{Mark, Stay, StayKind, Stays, Who};

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

/// The sessions as one caller has them: others' are not there.
#[derive(Debug)]
pub(super) struct OwnSessions {
    sessions: Arc<Sessions>,
    owner: Who,
    /// The state of the tenant before the caller's handler was made.
    mark: Option<Mark>,
    /// How long the caller's credential is good for.
    at_most: Option<Duration>,
    /// Ends the session that this request begins.
    ended: CancellationToken,
}

impl OwnSessions {
    pub(super) fn new(
        sessions: Arc<Sessions>,
        owner: Who,
        mark: Option<Mark>,
        at_most: Option<Duration>,
        cut_off: &CancellationToken,
    ) -> Self {
        Self { sessions, owner, mark, at_most, ended: cut_off.child_token() }
    }

    /// What ends the caller's session `id`, or the one that is begun. `None` when it has no such one.
    pub(super) fn ended(&self, id: Option<&str>) -> Option<CancellationToken> {
        let Some(id) = id else { return Some(self.ended.clone()) };
        let mut table = self.sessions.table();
        Some(table.use_own(&id.into(), &self.owner)?.stay.ended().clone())
    }
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
                    let session = Session { owner: self.owner.clone(), used: table.uses, stay };
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
        Ok(self.sessions.local.create_stream(id, message).await?)
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
        Ok(self.sessions.local.create_standalone_stream(id).await?)
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Error> {
        Ok(self.sessions.local.resume(id, last_event_id).await?)
    }
}
