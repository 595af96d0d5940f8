//! Live instances by tenant: one scoped server with one database session each.
//!
//! ```text
//! lease(&TenantAccess): wait for a place (first come, first served, up to acquire_timeout)
//!   --> the idle instance that was used last --------------------> Lease --(dropped)--> idle again
//!    \-> a session, of max_sessions in all --> a new instance ----^        idle_timeout --> closed
//! ```
//!
//! Calls one after the other meet the same instance; five at once have five. The number of places
//! is the lesser of `max_instances_per_tenant` and the tenant's `max_concurrent_connections`. When
//! tenants together want more sessions than `max_sessions`, those that are idle longest are closed
//! first, and the others share alike. So many calls wait and no more. Who is refused a session by a
//! server that has none left waits for one of its tenant's, if there is any.
//!
//! A tenant that changed in the vault starts anew with its next call: what is leased finishes with
//! what it has, or is cancelled (`on_change`), and is closed when it comes back; nothing old is
//! leased again, not even to who was already waiting. Idle instances of it close within a second.
//!
//! A tenant that nobody asks for has nothing here: first its instances close, then it is forgotten;
//! unless `min_idle` names it, which has them opened before anybody asks.
//!
//! Cancellation: a lease that is not waited for to the end takes nothing with it. A lease that is
//! dropped in the middle of a statement has a broken session, which is closed, not reused.

mod entry;
mod error;
mod idle;
mod lease;
mod meter;
mod opening;
mod places;
mod revocable;
mod session;
mod sharing;
mod stock;
mod tally;
mod tenants;
mod warm;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::audit::Log;
use crate::auth::TenantAccess;
use crate::database;
use crate::quota::Limiter;
use crate::server::{Caller, TenantContext};
use crate::tenant::TenantId;
use crate::vault::TenantCredentialVault;

pub use error::Error;
pub use lease::{Lease, PooledInstances};
pub(crate) use meter::restored as restored_meter;

use entry::Place;
use idle::Lists;
use opening::UNCHECKED;
use places::AllPlaces;
use session::Sessions;
use tally::Tally;
use tenants::Tenants;

/// What [`sharing`] and [`stock`] are built of; the model has others.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU32, Ordering};
    pub(super) use std::sync::{Mutex, MutexGuard, PoisonError};
}

/// How the pool behaves.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field from the settings")]
pub struct Options {
    /// Most instances of one tenant.
    pub max_instances_per_tenant: u32,
    /// Most sessions of all tenants together.
    pub max_sessions: u32,
    /// Most calls of one tenant that wait for an instance.
    pub max_waiting_per_tenant: u32,
    /// Most calls that wait; beyond it, one of each tenant.
    pub max_waiting: u32,
    /// How long an instance stays when nobody uses it.
    pub idle_timeout: Duration,
    /// How many instances of a tenant are opened before anybody asks, and stay all the same.
    pub min_idle: HashMap<TenantId, u32>,
    /// How long a call waits for an instance.
    pub acquire_timeout: Duration,
    /// How long a call may take in all.
    pub call_timeout: Duration,
    /// What a change of a tenant does to its calls under way.
    pub on_change: OnChange,
    /// How sessions are opened.
    pub database: database::Options,
}

/// What becomes of calls under way when their tenant changes, is disabled, sealed or removed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "the two values of one setting")]
pub enum OnChange {
    /// They end with `CANCELLED`, within a second. A change of rows finishes: whether it was made would
    /// not be known.
    Cancel,
    /// They finish with the session that they have.
    #[default]
    Finish,
}

impl OnChange {
    /// The spelling of the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Finish => "finish",
        }
    }
}

impl Options {
    /// The defaults, with sessions opened as `database` says.
    pub fn new(database: database::Options) -> Self {
        Self {
            max_instances_per_tenant: 5,
            max_sessions: 1_000,
            max_waiting_per_tenant: 200,
            max_waiting: 10_000,
            idle_timeout: Duration::from_mins(10),
            min_idle: HashMap::new(),
            acquire_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_mins(5),
            on_change: OnChange::default(),
            database,
        }
    }
}

/// The pool. Clones share it.
#[derive(Clone, Debug)]
pub struct McpConnectionPool {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    vault: Arc<TenantCredentialVault>,
    limiter: Arc<Limiter>,
    log: Log,
    tenants: Tenants,
    /// Tenants whose records are being opened, each by one call.
    openings: Mutex<HashMap<TenantId, Arc<tokio::sync::Mutex<()>>>>,
    shared: Arc<Shared>,
    reaper: AbortHandle,
    /// Where tenants are to be kept warm.
    warmer: Option<AbortHandle>,
}

/// What leases and entries need of the pool. It owns none of them, so that they can own it: a lease
/// has it by way of its entry, and counts up nothing that leases of other tenants do.
#[derive(Debug)]
struct Shared {
    /// Those of entries that begin; one that has begun keeps its own.
    options: RwLock<Arc<Options>>,
    started: Instant,
    sessions: Arc<Sessions>,
    places: Arc<AllPlaces>,
    lists: Lists,
    /// How many calls wait.
    waiting: AtomicU32,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    acquired: Tally,
    created: AtomicU64,
    live: AtomicU64,
    entries: AtomicU64,
    /// An instance was closed.
    closed: Notify,
}

/// What the pool has done and has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Leases given since the start.
    pub total_acquired: u64,
    /// Instances made since the start.
    pub total_created: u64,
    /// Instances that live, leased or idle.
    pub current_pool_size: u64,
    /// Tenants with at least one, or with calls that are to have one.
    pub active_tenants: u64,
    /// Of the instances that live, those that nobody has.
    pub idle: u64,
    /// Calls that wait for one.
    pub waiting: u64,
    /// Sessions with databases: of the instances that live, and those that are being opened.
    pub sessions: u64,
    /// Most sessions that there may be.
    pub max_sessions: u64,
}

impl PoolStats {
    /// Instances that somebody has.
    pub fn leased(&self) -> u64 {
        self.current_pool_size.saturating_sub(self.idle)
    }
}

impl McpConnectionPool {
    /// An empty pool. Must be called inside a Tokio runtime, on which idle instances are closed.
    pub fn new(
        vault: Arc<TenantCredentialVault>,
        limiter: Arc<Limiter>,
        log: Log,
        options: Options,
    ) -> Self {
        let shared = Arc::new(Shared {
            started: Instant::now(),
            sessions: Arc::new(Sessions::new(options.max_sessions)),
            options: RwLock::new(Arc::new(options)),
            places: Arc::default(),
            lists: Lists::default(),
            waiting: AtomicU32::new(0),
            counters: Arc::default(),
        });
        let pool = Arc::new_cyclic(|pool| {
            let reaping = idle::reap(Weak::clone(pool), Arc::clone(&shared));
            #[expect(clippy::disallowed_methods, reason = "aborted when the pool is dropped")]
            let reaper = tokio::spawn(reaping).abort_handle();
            let warm: Vec<_> = shared.options().min_idle.keys().cloned().collect();
            let warmer = (!warm.is_empty()).then(|| {
                let warming = warm::keep_warm(Weak::clone(pool), warm);
                #[expect(clippy::disallowed_methods, reason = "aborted when the pool is dropped")]
                let warmer = tokio::spawn(warming);
                warmer.abort_handle()
            });
            let (tenants, openings) = (Tenants::default(), Mutex::default());
            Pool { vault, limiter, log, tenants, openings, shared, reaper, warmer }
        });
        Self { pool }
    }

    /// What all calls of the tenant share. Opens the tenant's record on first use.
    ///
    /// # Errors
    ///
    /// [`Error::AccessEnded`], [`Error::Disabled`], [`Error::ShutDown`], or [`Error::Vault`] when there
    /// is no such tenant or it does not open.
    pub async fn context(&self, access: &TenantAccess) -> Result<Arc<TenantContext>, Error> {
        self.check(access).await?;
        let entry = self.entry(access.tenant()).await?;
        entry.touch();
        Ok(Arc::clone(&entry.context))
    }

    /// An instance of the tenant, for one call at a time.
    ///
    /// A hot lease costs a few short locks; a cold one opens credentials and a session.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`].
    pub async fn lease(&self, access: &TenantAccess) -> Result<Lease, Error> {
        // From when something has to be waited for, which a hot lease has not to.
        let mut deadline = None;
        let mut deadline = || {
            let timeout = || self.pool.shared.options().acquire_timeout;
            *deadline.get_or_insert_with(|| Instant::now() + timeout())
        };
        // More than one round only when the tenant changes meanwhile.
        loop {
            self.check(access).await?;
            let entry = match self.present(access.tenant()).await? {
                Some(entry) => entry.if_enabled()?,
                None => self.entry(access.tenant()).await?,
            };
            let (mut queued, mut at_door) = (None, None);
            if !entry.try_place() {
                queued = Some(entry.queue()?);
                at_door = Some(entry.wait_at_door());
                match tokio::time::timeout_at(deadline(), entry.place()).await {
                    Ok(true) => {}
                    // It is out of date by now.
                    Ok(false) => continue,
                    Err(_elapsed) => return Err(Error::Exhausted(entry.bound())),
                }
            }
            let (mut lease, since) = Lease::begin(Place::taken(entry));
            drop(at_door);
            let mut has_waited = queued.is_some();
            if let Some(since) = since.filter(|since| since.elapsed() > UNCHECKED) {
                has_waited = true;
                self.is_alive(&mut lease, since).await;
            }
            if lease.is_empty() {
                has_waited = true;
                self.open(&mut lease, &mut queued, deadline()).await?;
            }
            // Changed, sealed or removed meanwhile: it is not handed out.
            if has_waited && (lease.is_empty() || !self.is_usable(lease.entry()).await?) {
                continue;
            }
            self.check(access).await?;
            lease.set_caller(caller_of(access));
            self.pool.shared.counters.acquired.add_one();
            return Ok(lease);
        }
    }

    /// How long a call may take in all.
    pub(crate) fn call_timeout(&self) -> Duration {
        self.pool.shared.options().call_timeout
    }

    /// Where an MCP handler gets the instances for `access` from.
    pub fn instances(&self, access: TenantAccess) -> PooledInstances {
        PooledInstances::new(self.clone(), access)
    }

    /// Closes every instance that has been idle for `idle_timeout`, and says how many. They are
    /// closed at that moment anyway; this is for those who do not want to wait for the timer.
    pub fn cleanup_idle_instances(&self) -> usize {
        self.pool.close_due(Instant::now())
    }

    /// What the pool has done and has.
    pub fn stats(&self) -> PoolStats {
        let shared = &self.pool.shared;
        let counters = &shared.counters;
        let (mut active_tenants, mut idle) = (0, 0);
        for entry in self.pool.tenants.all() {
            let (own, out) = entry.stock.count();
            active_tenants += u64::from(own > 0 || out > 0);
            idle += own as u64;
        }
        PoolStats {
            total_acquired: counters.acquired.sum(),
            total_created: counters.created.load(Ordering::Relaxed),
            current_pool_size: counters.live.load(Ordering::Relaxed),
            active_tenants,
            idle,
            waiting: shared.waiting.load(Ordering::Relaxed).into(),
            sessions: shared.sessions.held().into(),
            max_sessions: shared.options().max_sessions.into(),
        }
    }

    /// Closes everything that is idle, lets nothing new begin, and waits up to `deadline` for what
    /// is leased. Says how many instances were still leased then; they close when they come back.
    pub async fn shutdown(&self, deadline: Duration) -> u64 {
        self.pool.stop_warming();
        for entry in self.pool.tenants.take_all(true) {
            entry.close();
        }
        let counters = &self.pool.shared.counters;
        let live = || counters.live.load(Ordering::Acquire);
        let drained = async {
            loop {
                let closed = counters.closed.notified();
                if live() == 0 {
                    break;
                }
                closed.await;
            }
        };
        // Elapsed or not, the count says what is left.
        drop(tokio::time::timeout(deadline, drained).await);
        live()
    }

    /// Closes everything that is idle, now, and what is leased, when it comes back; with
    /// [`OnChange::Cancel`], what that does is cancelled. The pool stays usable: whether anything is
    /// opened again is for the vault to say.
    pub fn close_all(&self) {
        for entry in self.pool.tenants.take_all(false) {
            entry.end();
        }
    }

    /// Works with other `options` from the next call of each tenant on, but for `max_sessions`,
    /// `min_idle` and `database`, which stay. Closes everything that is idle; calls under way finish.
    pub fn change_options(&self, options: &Options) {
        self.pool.shared.change_options(options);
        for entry in self.pool.tenants.take_all(false) {
            entry.close();
        }
    }

    /// As [`Self::close_all`], for one tenant.
    pub fn close_tenant(&self, tenant: &TenantId) {
        if let Some(entry) = self.pool.tenants.take(tenant) {
            entry.end();
        }
    }
}

impl Shared {
    fn options(&self) -> Arc<Options> {
        Arc::clone(&self.options.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_options(&self, new: &Options) {
        let mut options = self.options.write().unwrap_or_else(PoisonError::into_inner);
        let max_sessions = options.max_sessions;
        let (min_idle, database) = (options.min_idle.clone(), options.database.clone());
        *options = Arc::new(Options { max_sessions, min_idle, database, ..*new });
    }
}

impl Pool {
    fn stop_warming(&self) {
        if let Some(warmer) = &self.warmer {
            warmer.abort();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.reaper.abort();
        self.stop_warming();
    }
}

/// Who `access` was granted to, as a tenant's server needs to know.
pub(crate) fn caller_of(access: &TenantAccess) -> Caller {
    Caller {
        actor: access.actor().clone(),
        permissions: access.permissions(),
        peer: access.origin().peer.clone(),
        request_id: access.origin().request_id.clone(),
        cut: access.origin().cut.clone(),
    }
}

#[cfg(test)]
mod tests;
