//! What a lease does when there is nothing to be had: opens the tenant's record, once for all that
//! ask at the same time, its credentials, and a session.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::entry::{Entry, Queued};
use super::revocable::Revocable;
use super::session::{InLine, Instance, Slot};
use super::sharing::Grant;
use super::{Error, Lease, McpConnectionPool, Pool, meter};
use crate::database::{self, Attempt};
use crate::server;
use crate::tenant::TenantId;
use crate::vault;

/// An instance that nobody had for longer is asked for a sign of life before it is leased: what is
/// between here and a server may have forgotten the connection without telling.
pub(super) const UNCHECKED: Duration = Duration::from_secs(30);
/// How long it may take to give one.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// Leave to open the record of a tenant, of which one call at a time has it.
struct Opening<'a> {
    pool: &'a Pool,
    tenant: &'a TenantId,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl<'a> Opening<'a> {
    fn of(pool: &'a Pool, tenant: &'a TenantId) -> Self {
        let mut openings = pool.openings.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = Arc::clone(openings.entry(tenant.clone()).or_default());
        Self { pool, tenant, turn }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut openings = self.pool.openings.lock().unwrap_or_else(PoisonError::into_inner);
        // Here and with this one.
        if Arc::strong_count(&self.turn) == 2 {
            openings.remove(self.tenant);
        }
    }
}

impl McpConnectionPool {
    /// What there is of the tenant, as the vault has it at the end of this.
    pub(super) async fn entry(&self, tenant: &TenantId) -> Result<Arc<Entry>, Error> {
        loop {
            let opening = match self.present(tenant)? {
                Some(entry) => return entry.if_enabled(),
                None => Opening::of(&self.pool, tenant),
            };
            let turn = opening.turn.lock().await;
            // Who had the turn before may have done it.
            if self.present(tenant)?.is_none() {
                let vault = Arc::clone(&self.pool.vault);
                let (limiter, id) = (Arc::clone(&self.pool.limiter), tenant.clone());
                let read = move || {
                    let stored = vault.tenant(&id)?;
                    let meter = meter::restored(&vault, &limiter, &stored)?;
                    Ok((stored, meter))
                };
                let (stored, meter) = blocking(read).await?;
                let entry = Arc::new(Entry::new(stored, meter, &self.pool));
                let shared = &self.pool.shared;
                // Else the options have changed, and who closes what has old ones may be through.
                let is_wanted = || Arc::ptr_eq(&entry.options, &shared.options());
                let (is_put, replaced) = self.pool.tenants.put(&entry, is_wanted)?;
                if !is_put {
                    continue;
                }
                if let Some(replaced) = replaced {
                    replaced.end();
                }
                let listing = entry.stock.state().list();
                entry.shared.lists.watch(&entry, listing);
            }
            drop(turn);
        }
    }

    /// What there is of the tenant, if it is as the vault has it.
    pub(super) fn present(&self, tenant: &TenantId) -> Result<Option<Arc<Entry>>, Error> {
        if let Some(entry) = self.pool.tenants.get(tenant)? {
            return Ok(self.pool.is_current(&entry)?.then_some(entry));
        }
        // Who is not known, or sealed, is refused from memory.
        self.pool.vault.revision(tenant)?;
        Ok(None)
    }

    /// Whether the idle instance of `lease` still has its server. One that has not is closed, and
    /// with it all that were idle for longer: they have it no more than this one.
    ///
    /// Cancellation: the instance is closed.
    pub(super) async fn is_alive(&self, lease: &mut Lease, since: Instant) -> bool {
        let Some(mut instance) = lease.empty() else { return false };
        let answer = tokio::time::timeout(SIGN_OF_LIFE, instance.server.ping()).await;
        let is_alive = matches!(answer, Ok(Ok(())));
        if is_alive {
            lease.fill(instance);
        } else {
            drop((instance, lease.entry().stock.take_idle_before(since)));
        }
        is_alive
    }

    /// Fills `lease` with a new instance, or with one that came back meanwhile. It stays empty when
    /// the tenant has changed, so that its old database never gets its new password.
    pub(super) async fn open(
        &self,
        lease: &mut Lease,
        queued: &mut Option<Queued>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let entry = Arc::clone(lease.entry());
        // Should it fail, what is known of the failures stays.
        entry.touch();
        // First: what is down costs nobody a session.
        let attempt = entry.breaker.admit().map_err(database::Error::LeftAlone)?;
        let slot = match self.session(&entry, queued, deadline).await? {
            Grant::Session => Slot::granted(&entry),
            Grant::Instance(instance) => {
                lease.fill(instance);
                return Ok(());
            }
        };
        self.connect(lease, attempt, slot).await
    }

    /// Fills `lease` with a new instance, in the session of `slot`. It stays empty when the tenant has
    /// changed.
    pub(super) async fn connect(
        &self,
        lease: &mut Lease,
        attempt: Attempt<'_>,
        slot: Slot,
    ) -> Result<(), Error> {
        let (pool, entry) = (&self.pool, Arc::clone(lease.entry()));
        let credentials = {
            let _turn = entry.opening.lock().await;
            let (vault, id) = (Arc::clone(&pool.vault), entry.tenant().clone());
            blocking(move || vault.credentials(&id)).await?
        };
        if !pool.is_usable(&entry)? {
            return Ok(());
        }
        let shared = &entry.shared;
        let config = entry.context.config();
        let session = database::connect(config, &credentials, &entry.options.database).await;
        match &session {
            Ok(_) => attempt.succeeded(),
            Err(database::Error::Unavailable(reason)) => attempt.failed(*reason),
            Err(_) => drop(attempt),
        }
        let mut session = session?;
        self.examine(&entry, &mut *session).await;
        let session = match &entry.revoked {
            Some(revoked) => Box::new(Revocable { session, revoked: revoked.clone() }),
            None => session,
        };
        let counters = Arc::clone(&shared.counters);
        counters.live.fetch_add(1, Ordering::AcqRel);
        let id = counters.created.fetch_add(1, Ordering::Relaxed) + 1;
        let server = server::create_tenant_scoped_server(Arc::clone(&entry.context), session);
        lease.fill(Box::new(Instance { server, id, counters, _slot: slot }));
        Ok(())
    }

    /// Leave to open a session, at once or in turn with other tenants.
    async fn session(
        &self,
        entry: &Arc<Entry>,
        queued: &mut Option<Queued>,
        deadline: Instant,
    ) -> Result<Grant<Box<Instance>>, Error> {
        if entry.shared.sessions.take(entry.tenant()) {
            return Ok(Grant::Session);
        }
        if queued.is_none() {
            *queued = Some(entry.queue()?);
        }
        let granted = InLine::join(entry).granted();
        tokio::time::timeout_at(deadline, granted).await.unwrap_or(Err(Error::Exhausted))
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
