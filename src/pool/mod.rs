//! Live instances by tenant: one scoped server with one database session each.
//!
//! ```text
//! lease(&TenantAccess): wait for a place (first come, first served, up to acquire_timeout)
//!   --> the idle instance that was used last, or a new one --> Lease --(dropped)--> idle again
//!                                                                      idle_timeout --> closed
//! ```
//!
//! Calls one after the other meet the same instance; five at once have five. The number of places
//! is the lesser of `max_instances_per_tenant` and the tenant's `max_concurrent_connections`.
//!
//! A tenant that changed in the vault starts anew with its next call: what is leased finishes with
//! what it has, but is closed when it comes back, and nothing old is leased again, not even to who
//! was already waiting.
//!
//! Cancellation: a lease that is not waited for to the end takes nothing with it. A lease that is
//! dropped in the middle of a statement has a broken session, which is closed, not reused.

mod idle;
mod lease;
mod meter;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::audit::Log;
use crate::auth::TenantAccess;
use crate::database::{self, Breaker, Database};
use crate::error::ErrorCode;
use crate::quota::{Limiter, Meter};
use crate::server::{self, ApiKey, Caller, ScopedServer, TenantContext};
use crate::tenant::TenantId;
use crate::vault::{self, StoredTenant, TenantCredentialVault};

pub use lease::{Lease, PooledInstances};
pub(crate) use meter::restored as restored_meter;

use idle::{IdleInstance, Reaper};

/// How the pool behaves.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field from the settings")]
pub struct Options {
    /// Most instances of one tenant.
    pub max_instances_per_tenant: u32,
    /// How long an instance stays when nobody uses it.
    pub idle_timeout: Duration,
    /// How long a call waits for an instance.
    pub acquire_timeout: Duration,
    /// How sessions are opened.
    pub database: database::Options,
}

/// The pool. Clones share it.
#[derive(Clone, Debug)]
pub struct McpConnectionPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    vault: Arc<TenantCredentialVault>,
    limiter: Arc<Limiter>,
    log: Log,
    options: Options,
    tenants: Mutex<Tenants>,
    counters: Arc<Counters>,
    reaper: Reaper,
}

#[derive(Debug, Default)]
struct Tenants {
    entries: HashMap<TenantId, Arc<Entry>>,
    /// Nothing is added any more.
    shut_down: bool,
}

#[derive(Debug, Default)]
struct Counters {
    acquired: AtomicU64,
    created: AtomicU64,
    live: AtomicU64,
    /// An instance was closed.
    closed: Notify,
}

/// One version of one tenant.
#[derive(Debug)]
struct Entry {
    version: u64,
    enabled: bool,
    context: Arc<TenantContext>,
    places: Arc<Semaphore>,
    /// Starts anew with each version: what was wrong may have been put right.
    breaker: Breaker,
    /// Whether the role was looked at.
    is_examined: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first; the last one was used last.
    idle: Vec<IdleInstance>,
    live: u32,
    /// Out of date, or the pool is shut down: nothing comes back.
    closed: bool,
    /// Whether the reaper has this entry on its list.
    watched: bool,
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
    /// Tenants with at least one.
    pub active_tenants: u64,
    /// Of the instances that live, those that nobody has.
    pub idle: u64,
}

impl PoolStats {
    /// Instances that somebody has.
    pub fn leased(&self) -> u64 {
        self.current_pool_size.saturating_sub(self.idle)
    }
}

/// Why there is no instance.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The session could not be opened.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The tenant is switched off.
    #[error("the tenant is disabled")]
    Disabled,
    /// All instances stayed busy for the whole of `acquire_timeout`.
    #[error("all instances stayed busy")]
    Exhausted,
    /// The pool is closed.
    #[error("the pool is shut down")]
    ShutDown,
    /// The vault did not open the tenant's record.
    #[error(transparent)]
    Vault(#[from] vault::Error),
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Database(error) => error.code(),
            Self::Disabled => ErrorCode::TenantDisabled,
            Self::Exhausted => ErrorCode::PoolExhausted,
            Self::ShutDown => ErrorCode::Cancelled,
            Self::Vault(error) => error.code(),
        }
    }
}

impl From<Error> for server::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(error) => Self::Database(error),
            Error::Disabled | Error::Exhausted | Error::ShutDown | Error::Vault(_) => {
                Self::Instance(error.code())
            }
        }
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
        let shared = Arc::new_cyclic(|shared| Shared {
            vault,
            limiter,
            log,
            reaper: Reaper::start(shared.clone()),
            options,
            tenants: Mutex::default(),
            counters: Arc::default(),
        });
        Self { shared }
    }

    /// What all calls of the tenant share. Opens the tenant's record on first use.
    ///
    /// # Errors
    ///
    /// [`Error::Disabled`], [`Error::ShutDown`], or [`Error::Vault`] when there is no such tenant or
    /// it does not open.
    pub async fn context(&self, access: &TenantAccess) -> Result<Arc<TenantContext>, Error> {
        Ok(Arc::clone(&self.entry(access.tenant()).await?.context))
    }

    /// An instance of the tenant, for one call at a time.
    ///
    /// A hot lease costs a few short locks; a cold one opens credentials and a session.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`].
    pub async fn lease(&self, access: &TenantAccess) -> Result<Lease, Error> {
        let deadline = Instant::now() + self.shared.options.acquire_timeout;
        // More than one round only when the tenant changes meanwhile.
        loop {
            let entry = self.entry(access.tenant()).await?;
            let place = Arc::clone(&entry.places).acquire_owned();
            let Ok(place) = tokio::time::timeout_at(deadline, place).await else {
                return Err(Error::Exhausted);
            };
            // No place, or one at what is out of date by now: once more.
            let Ok(place) = place else { continue };
            if !self.is_current(&entry)? {
                continue;
            }
            let instance = match entry.take_idle() {
                Some(instance) => Some(instance),
                None => self.open(&entry).await?,
            };
            let Some(mut instance) = instance else { continue };
            instance.server.set_caller(caller_of(access));
            self.shared.counters.acquired.fetch_add(1, Ordering::Relaxed);
            return Ok(Lease::new(Arc::downgrade(&self.shared), entry, instance, place));
        }
    }

    /// Where an MCP handler gets the instances for `access` from.
    pub fn instances(&self, access: TenantAccess) -> PooledInstances {
        PooledInstances::new(self.clone(), access)
    }

    /// Closes every instance that has been idle for `idle_timeout`, and says how many. They are
    /// closed at that moment anyway; this is for those who do not want to wait for the timer.
    pub fn cleanup_idle_instances(&self) -> usize {
        let entries: Vec<_> = self.shared.tenants().entries.values().cloned().collect();
        let now = Instant::now();
        entries.iter().map(|entry| entry.close_idle(self.shared.options.idle_timeout, now)).sum()
    }

    /// What the pool has done and has.
    pub fn stats(&self) -> PoolStats {
        let counters = &self.shared.counters;
        let entries: Vec<_> = self.shared.tenants().entries.values().cloned().collect();
        let states = entries.iter().map(|entry| {
            let state = entry.state();
            (u64::from(state.live > 0), state.idle.len() as u64)
        });
        let (active_tenants, idle) = states.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        PoolStats {
            total_acquired: counters.acquired.load(Ordering::Relaxed),
            total_created: counters.created.load(Ordering::Relaxed),
            current_pool_size: counters.live.load(Ordering::Relaxed),
            active_tenants,
            idle,
        }
    }

    /// Closes everything that is idle, lets nothing new begin, and waits up to `deadline` for what
    /// is leased. Says how many instances were still leased then; they close when they come back.
    pub async fn shutdown(&self, deadline: Duration) -> u64 {
        let entries: Vec<_> = {
            let mut tenants = self.shared.tenants();
            tenants.shut_down = true;
            tenants.entries.drain().map(|(_, entry)| entry).collect()
        };
        for entry in &entries {
            entry.close();
        }
        let counters = &self.shared.counters;
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

    /// Closes everything that is idle, now, and what is leased, when it comes back. The pool stays
    /// usable: whether anything is opened again is for the vault to say.
    pub fn close_all(&self) {
        let entries: Vec<_> =
            self.shared.tenants().entries.drain().map(|(_, entry)| entry).collect();
        for entry in entries {
            entry.close();
        }
    }

    /// As [`Self::close_all`], for one tenant.
    pub fn close_tenant(&self, tenant: &TenantId) {
        let entry = self.shared.tenants().entries.remove(tenant);
        if let Some(entry) = entry {
            entry.close();
        }
    }

    async fn entry(&self, tenant: &TenantId) -> Result<Arc<Entry>, Error> {
        let version = self.shared.vault.version(tenant)?;
        if let Some(entry) = self.shared.tenants().get(tenant)?
            && entry.version == version
        {
            return entry.if_enabled();
        }
        let (vault, limiter) = (Arc::clone(&self.shared.vault), Arc::clone(&self.shared.limiter));
        let id = tenant.clone();
        let read = move || {
            let stored = vault.tenant(&id)?;
            let meter = meter::restored(&vault, &limiter, &stored)?;
            Ok((stored, meter))
        };
        let (stored, meter) = blocking(read).await?;
        let entry = Arc::new(Entry::new(stored, meter, &self.shared));
        let (entry, replaced) = self.shared.tenants().put(tenant, entry)?;
        if let Some(replaced) = replaced {
            replaced.close();
        }
        entry.if_enabled()
    }

    fn is_current(&self, entry: &Entry) -> Result<bool, Error> {
        Ok(self.shared.vault.version(entry.context.tenant())? == entry.version)
    }

    /// Opens a session; none when the tenant has changed, so that its old database never gets its
    /// new password.
    async fn open(&self, entry: &Entry) -> Result<Option<Instance>, Error> {
        let config = entry.context.config();
        let (vault, id) = (Arc::clone(&self.shared.vault), config.id.clone());
        let credentials = blocking(move || vault.credentials(&id)).await?;
        if !self.is_current(entry)? {
            return Ok(None);
        }
        let attempt = entry.breaker.admit().map_err(database::Error::from)?;
        let session = database::connect(config, &credentials, &self.shared.options.database).await;
        match &session {
            Ok(_) => attempt.succeeded(),
            Err(database::Error::Unavailable(reason)) => attempt.failed(*reason),
            Err(_) => drop(attempt),
        }
        let mut session = session?;
        self.examine(entry, &mut *session).await;
        // Changed, sealed or removed while it was opened: it is not handed out.
        if !self.is_current(entry)? || entry.state().closed {
            return Ok(None);
        }
        let context = Arc::clone(&entry.context);
        let counters = Arc::clone(&self.shared.counters);
        counters.live.fetch_add(1, Ordering::AcqRel);
        let id = counters.created.fetch_add(1, Ordering::Relaxed) + 1;
        entry.state().live += 1;
        let server = server::create_tenant_scoped_server(context, session);
        Ok(Some(Instance { server, id, counters }))
    }
}

impl McpConnectionPool {
    /// Looks, once for each version of a tenant, at what its role may do.
    async fn examine(&self, entry: &Entry, session: &mut dyn Database) {
        if entry.is_examined.swap(true, Ordering::Relaxed) {
            return;
        }
        let tenant = entry.context.tenant();
        match session.excess_privileges().await {
            Ok(found) if found.is_empty() => {}
            Ok(found) => {
                let found = found.join(", ");
                tracing::warn!(tenant.id = %tenant, "the database role {found}; give it a role that \
                    may only read what it has to");
            }
            Err(reason) => {
                tracing::debug!(tenant.id = %tenant, %reason, "the role could not be examined");
            }
        }
    }
}

impl Tenants {
    fn get(&self, tenant: &TenantId) -> Result<Option<Arc<Entry>>, Error> {
        if self.shut_down { Err(Error::ShutDown) } else { Ok(self.entries.get(tenant).cloned()) }
    }

    /// Puts `entry` there, unless there is one that is as new. Gives the one to use, and the one
    /// that is out of date.
    fn put(
        &mut self,
        tenant: &TenantId,
        entry: Arc<Entry>,
    ) -> Result<(Arc<Entry>, Option<Arc<Entry>>), Error> {
        match self.get(tenant)? {
            Some(present) if present.version >= entry.version => Ok((present, None)),
            _ => {
                let replaced = self.entries.insert(tenant.clone(), Arc::clone(&entry));
                Ok((entry, replaced))
            }
        }
    }
}

impl Shared {
    fn tenants(&self) -> MutexGuard<'_, Tenants> {
        // Whole after any panic: each change is one insertion or removal.
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server and its place in the counts.
#[derive(Debug)]
struct Instance {
    server: ScopedServer,
    /// From 1, in order of creation.
    id: u64,
    counters: Arc<Counters>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.counters.live.fetch_sub(1, Ordering::AcqRel);
        self.counters.closed.notify_waiters();
    }
}

impl Entry {
    fn new(stored: StoredTenant, meter: Arc<Meter>, shared: &Shared) -> Self {
        let own = shared.options.max_instances_per_tenant;
        let places =
            stored.config.quotas.max_concurrent_connections.map_or(own, |max| max.min(own));
        let api_keys = stored.credentials.into_iter().filter_map(|credential| {
            let provider = credential.name.strip_prefix("api_keys.")?.to_owned();
            let (set_at, fingerprint) = (credential.set_at, credential.fingerprint);
            Some(ApiKey { provider, set_at, fingerprint })
        });
        let context =
            TenantContext::new(stored.config, api_keys.collect(), meter, shared.log.clone());
        Self {
            version: stored.version,
            enabled: stored.enabled,
            context: Arc::new(context),
            // A quota of 0 is refused by the quota, with its own code.
            places: Arc::new(Semaphore::new(places.max(1) as usize)),
            breaker: Breaker::default(),
            is_examined: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    fn if_enabled(self: Arc<Self>) -> Result<Arc<Self>, Error> {
        if self.enabled { Ok(self) } else { Err(Error::Disabled) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after any panic: no method of ours panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who `access` was granted to, as a tenant's server needs to know.
pub(crate) fn caller_of(access: &TenantAccess) -> Caller {
    Caller {
        actor: access.actor().clone(),
        permissions: access.permissions(),
        peer: access.origin().peer.clone(),
        request_id: access.origin().request_id.clone(),
    }
}

/// Reads of the vault may wait for the disk.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, vault::Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => Ok(result?),
        // The runtime is shutting down, or the vault panicked, which it logged.
        Err(_) => Err(Error::ShutDown),
    }
}

#[cfg(test)]
mod tests;
