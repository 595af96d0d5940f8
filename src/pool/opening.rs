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
use super::{Error, Lease, McpConnectionPool, OnChange, Shared, meter};
use crate::database;
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
    shared: &'a Shared,
    tenant: &'a TenantId,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl<'a> Opening<'a> {
    fn of(shared: &'a Shared, tenant: &'a TenantId) -> Self {
        let mut openings = shared.openings.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = Arc::clone(openings.entry(tenant.clone()).or_default());
        Self { shared, tenant, turn }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut openings = self.shared.openings.lock().unwrap_or_else(PoisonError::into_inner);
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
                None => Opening::of(&self.shared, tenant),
            };
            let turn = opening.turn.lock().await;
            // Who had the turn before may have done it.
            if self.present(tenant)?.is_none() {
                let vault = Arc::clone(&self.shared.vault);
                let (limiter, id) = (Arc::clone(&self.shared.limiter), tenant.clone());
                let read = move || {
                    let stored = vault.tenant(&id)?;
                    let meter = meter::restored(&vault, &limiter, &stored)?;
                    Ok((stored, meter))
                };
                let (stored, meter) = blocking(read).await?;
                let entry = Arc::new(Entry::new(stored, meter, &self.shared));
                let replaced = {
                    let mut tenants = self.shared.tenants_mut();
                    // Else the options have changed, and who closes what has old ones may be through.
                    if !Arc::ptr_eq(&entry.options, &self.shared.options()) {
                        continue;
                    }
                    tenants.put(Arc::clone(&entry))?
                };
                if let Some(replaced) = replaced {
                    replaced.end();
                }
                let listing = entry.state().list();
                self.shared.reaper.watch(&entry, listing, &self.shared);
            }
            drop(turn);
        }
    }

    /// What there is of the tenant, if it is as the vault has it.
    fn present(&self, tenant: &TenantId) -> Result<Option<Arc<Entry>>, Error> {
        let revision = self.shared.vault.revision(tenant)?;
        let tenants = self.shared.tenants();
        let entry = tenants.get(tenant)?.filter(|entry| entry.revision == revision);
        Ok(entry.cloned())
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
            drop((instance, lease.entry().take_idle_before(since)));
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
        let (shared, entry) = (&self.shared, Arc::clone(lease.entry()));
        // Should it fail, what is known of the failures stays.
        entry.touch(shared);
        // First: what is down costs nobody a session.
        let attempt = entry.breaker.admit().map_err(database::Error::LeftAlone)?;
        let slot = match self.session(&entry, queued, deadline).await? {
            Grant::Session => Slot::granted(shared, entry.tenant()),
            Grant::Instance(instance) => {
                lease.fill(instance);
                return Ok(());
            }
        };
        let credentials = {
            let _turn = entry.opening.lock().await;
            let (vault, id) = (Arc::clone(&shared.vault), entry.tenant().clone());
            blocking(move || vault.credentials(&id)).await?
        };
        if !shared.is_current(&entry)? {
            return Ok(());
        }
        let config = entry.context.config();
        let session = database::connect(config, &credentials, &entry.options.database).await;
        match &session {
            Ok(_) => attempt.succeeded(),
            Err(database::Error::Unavailable(reason)) => attempt.failed(*reason),
            Err(_) => drop(attempt),
        }
        let mut session = session?;
        self.examine(&entry, &mut *session).await;
        let session = match entry.options.on_change {
            OnChange::Cancel => Box::new(Revocable { session, revoked: entry.revoked.clone() }),
            OnChange::Finish => session,
        };
        let counters = Arc::clone(&shared.counters);
        counters.live.fetch_add(1, Ordering::AcqRel);
        let id = counters.created.fetch_add(1, Ordering::Relaxed) + 1;
        let server = server::create_tenant_scoped_server(Arc::clone(&entry.context), session);
        lease.fill(Instance { server, id, counters, _slot: slot });
        Ok(())
    }

    /// Leave to open a session, at once or in turn with other tenants.
    async fn session(
        &self,
        entry: &Arc<Entry>,
        queued: &mut Option<Queued>,
        deadline: Instant,
    ) -> Result<Grant<Instance>, Error> {
        if self.shared.sessions.take(entry.tenant()) {
            return Ok(Grant::Session);
        }
        if queued.is_none() {
            *queued = Some(entry.queue(&self.shared)?);
        }
        let granted = InLine::join(entry, &self.shared).granted();
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
