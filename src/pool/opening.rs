//! What a lease does when there is nothing to be had: opens the tenant's record, once for all that
//! ask at the same time, its credentials, and a session.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::entry::{Entry, Queued};
use super::revocable::Revocable;
use super::session::{InLine, Instance, Slot};
use super::sharing::{Grant, Ticket, Wish};
use super::{Error, Lease, McpConnectionPool, Pool, meter};
use crate::auth::TenantAccess;
use crate::database::{self, Attempt, Database, Unavailable};
use crate::error::Bound;
use crate::server;
use crate::tenant::TenantId;
use crate::vault;

/// An instance that nobody had for longer is asked for a sign of life before it is leased: what is
/// between here and a server may have forgotten the connection without telling.
pub(super) const UNCHECKED: Duration = Duration::from_secs(30);
/// How long it may take to give one.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// How often a call that waits for one of its tenant's sessions looks whether there may be more.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

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
        // Let go of under the lock: whoever does so last finds that nobody else has it.
        drop(std::mem::take(&mut self.turn));
        if openings.get(self.tenant).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            openings.remove(self.tenant);
        }
    }
}

impl McpConnectionPool {
    /// A token that is revoked begins nothing more, also where it was checked before.
    pub(super) async fn check(&self, access: &TenantAccess) -> Result<(), Error> {
        if access.is_live() {
            return Ok(());
        }
        // Sealing ends what was granted as well, and it is not the token's fault.
        let (vault, id) = (Arc::clone(&self.pool.vault), access.tenant().clone());
        blocking(move || vault.revision(&id)).await?;
        Err(Error::AccessEnded)
    }

    /// What there is of the tenant, as the vault has it at the end of this.
    pub(super) async fn entry(&self, tenant: &TenantId) -> Result<Arc<Entry>, Error> {
        loop {
            let opening = match self.present(tenant).await? {
                Some(entry) => return entry.if_enabled(),
                None => Opening::of(&self.pool, tenant),
            };
            let turn = opening.turn.lock().await;
            // Who had the turn before may have done it.
            if self.present(tenant).await?.is_none() {
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
    pub(super) async fn present(&self, tenant: &TenantId) -> Result<Option<Arc<Entry>>, Error> {
        if let Some(entry) = self.pool.tenants.get(tenant)? {
            return Ok(self.is_current(&entry).await?.then_some(entry));
        }
        let (vault, id) = (Arc::clone(&self.pool.vault), tenant.clone());
        // Who is not known, or sealed, waits for no turn.
        blocking(move || vault.revision(&id)).await?;
        Ok(None)
    }

    /// Whether `entry` is as the vault has it. Costs a load, unless its tenant may have changed.
    async fn is_current(&self, entry: &Arc<Entry>) -> Result<bool, Error> {
        if entry.watch.is_unchanged() {
            return Ok(true);
        }
        let (pool, entry) = (Arc::clone(&self.pool), Arc::clone(entry));
        blocking(move || pool.is_current(&entry)).await
    }

    /// Whether instances of `entry` may be leased: it is current, and was not closed.
    pub(super) async fn is_usable(&self, entry: &Arc<Entry>) -> Result<bool, Error> {
        Ok(self.is_current(entry).await? && !entry.stock.is_closed())
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
    ///
    /// A server that has no connection left is waited for as long as the tenant has sessions there.
    pub(super) async fn open(
        &self,
        lease: &mut Lease,
        queued: &mut Option<Queued>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let entry = Arc::clone(lease.entry());
        let (sessions, tenant) = (&entry.shared.sessions, entry.tenant());
        // However its tries end, it keeps its place in line.
        let ticket = sessions.ticket();
        let mut in_line = None;
        while !entry.stock.is_closed() {
            // Should it fail, what is known of the failures stays.
            entry.touch();
            let has_others = || sessions.holds(tenant);
            // First: what is down costs nobody a session, and nor does who waits for another's try.
            let admitted = tokio::select! {
                biased;
                () = entry.closed() => break,
                admitted = entry.breaker.admit() => admitted,
            };
            let attempt = match admitted {
                // Who is in line may have lost the others meanwhile, and is the next to try.
                Err(Unavailable::Full) if in_line.is_some() || has_others() => None,
                Err(reason) => return Err(database::Error::LeftAlone(reason).into()),
                Ok(attempt) if (in_line.is_some() || attempt.is_where_full()) && has_others() => {
                    Some(attempt)
                }
                Ok(attempt) => {
                    in_line = None;
                    if self.open_in_turn(lease, attempt, ticket, queued, deadline).await? {
                        break;
                    }
                    continue;
                }
            };
            let own = if let Some(own) = &mut in_line {
                own
            } else {
                if queued.is_none() {
                    *queued = Some(entry.queue()?);
                }
                in_line.insert(InLine::join(&entry, ticket, Wish::Instance))
            };
            let look = (Instant::now() + LOOK_INTERVAL).min(deadline);
            let trying = async {
                match attempt {
                    Some(attempt) if sessions.take(tenant) => {
                        Some(self.connect(lease, attempt, Slot::granted(&entry)).await)
                    }
                    _ => {
                        tokio::time::sleep_until(look).await;
                        None
                    }
                }
            };
            tokio::select! {
                biased;
                granted = own.granted() => match granted? {
                    Grant::Instance(instance) => {
                        lease.fill(instance);
                        break;
                    }
                    // Not what it wished for.
                    Grant::Session => {
                        drop(Slot::granted(&entry));
                        in_line = None;
                    }
                },
                () = entry.closed() => break,
                opened = trying => if let Some(opened) = opened
                    && !may_wait(&entry, &opened)
                {
                    opened?;
                    let Some(instance) = lease.empty() else { break };
                    // To who is first in line, so that nobody overtakes.
                    entry.give_back(instance, false);
                },
            }
            if Instant::now() >= deadline {
                return Err(Error::Exhausted(Bound::DatabaseConnections));
            }
        }
        Ok(())
    }

    /// Fills `lease` with a new instance, in a session that it gets in turn with other tenants, or with
    /// one that came back meanwhile. False when it has to wait for one that does: the server has let
    /// no further session in, or has again, and that goes to who came first and was refused.
    async fn open_in_turn(
        &self,
        lease: &mut Lease,
        attempt: Attempt<'_>,
        ticket: Ticket,
        queued: &mut Option<Queued>,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let entry = Arc::clone(lease.entry());
        let slot = match self.session(&entry, ticket, queued, deadline).await? {
            Some(Grant::Session) => Slot::granted(&entry),
            Some(Grant::Instance(instance)) => {
                lease.fill(instance);
                return Ok(true);
            }
            None => return Ok(true),
        };
        let opened = self.connect(lease, attempt, slot).await;
        if may_wait(&entry, &opened) {
            return Ok(false);
        }
        opened?;
        let first = entry.shared.sessions.awaits(entry.tenant(), entry.generation);
        if first.is_some_and(|first| first < ticket)
            && let Some(instance) = lease.empty()
        {
            entry.give_back(instance, false);
            return Ok(false);
        }
        Ok(true)
    }

    /// Fills `lease` with a new instance, in the session of `slot`. It stays empty when the tenant has
    /// changed.
    pub(super) async fn connect(
        &self,
        lease: &mut Lease,
        attempt: Attempt<'_>,
        slot: Slot,
    ) -> Result<(), Error> {
        let entry = Arc::clone(lease.entry());
        let credentials = {
            let _turn = entry.opening.lock().await;
            let (vault, id) = (Arc::clone(&self.pool.vault), entry.tenant().clone());
            blocking(move || vault.credentials(&id)).await?
        };
        if !self.is_usable(&entry).await? {
            return Ok(());
        }
        let shared = &entry.shared;
        let config = entry.context.config();
        let slot = Arc::new(slot);
        // What goes on when this is given up has both until it ends.
        let opening = Box::new((Arc::clone(&slot), lease.share()));
        let options = &entry.options.database;
        let session = database::connect(config, &credentials, options, opening).await;
        // They were for the login.
        drop(credentials);
        let session = match session {
            Ok(mut session) => {
                examine(&entry, &mut *session).await;
                // A proxy may have taken the login that has no server.
                if session.is_broken() { Err(Unavailable::Lost.into()) } else { Ok(session) }
            }
            Err(error) => Err(error),
        };
        match &session {
            Ok(_) => attempt.succeeded(),
            Err(database::Error::Unavailable(reason)) => attempt.failed(*reason),
            Err(_) => drop(attempt),
        }
        let session = session?;
        let session = match &entry.revoked {
            Some(revoked) => Box::new(Revocable { session, revoked: revoked.clone() }),
            None => session,
        };
        let counters = Arc::clone(&shared.counters);
        counters.live.fetch_add(1, Ordering::AcqRel);
        let id = counters.created.fetch_add(1, Ordering::Relaxed) + 1;
        let server = server::create_tenant_scoped_server(Arc::clone(&entry.context), session);
        lease.fill(Box::new(Instance { server, id, counters, slot: Some(slot) }));
        Ok(())
    }

    /// Leave to open a session, at once or in turn with other tenants; none when `entry` is closed
    /// meanwhile.
    async fn session(
        &self,
        entry: &Arc<Entry>,
        ticket: Ticket,
        queued: &mut Option<Queued>,
        deadline: Instant,
    ) -> Result<Option<Grant<Box<Instance>>>, Error> {
        if entry.shared.sessions.take(entry.tenant()) {
            return Ok(Some(Grant::Session));
        }
        if queued.is_none() {
            *queued = Some(entry.queue()?);
        }
        let mut in_line = InLine::join(entry, ticket, Wish::Any);
        tokio::select! {
            granted = tokio::time::timeout_at(deadline, in_line.granted()) => {
                granted.unwrap_or(Err(Error::Exhausted(Bound::Sessions))).map(Some)
            }
            () = entry.closed() => Ok(None),
        }
    }
}

/// Whether what was `opened` failed because the server has no connection left, and the tenant has
/// others that will come back. No caller is told then, but the operator.
fn may_wait(entry: &Entry, opened: &Result<(), Error>) -> bool {
    let Err(Error::Database(database::Error::Unavailable(reason @ Unavailable::Full))) = opened
    else {
        return false;
    };
    let tenant = entry.tenant();
    let may_wait = entry.shared.sessions.holds(tenant);
    if may_wait {
        tracing::warn!(tenant.id = %tenant, %reason, "no further session");
    }
    may_wait
}

/// Looks, once for each version of a tenant, at what its role may do.
async fn examine(entry: &Entry, session: &mut dyn Database) {
    if entry.is_examined.load(Ordering::Relaxed) {
        return;
    }
    let found = session.excess_privileges().await;
    // Of two that looked at the same time, one tells.
    if entry.is_examined.swap(true, Ordering::Relaxed) {
        return;
    }
    let tenant = entry.context.tenant();
    let mode = entry.context.config().access.mode;
    match found {
        Ok(mut found) => {
            found.retain(|privilege| privilege.is_excess_in(mode));
            if found.is_empty() {
                return;
            }
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            let found = found.join(", ");
            tracing::warn!(tenant.id = %tenant, "the database role {found}; give it a role that may \
                only read what it has to");
        }
        Err(reason) => {
            tracing::debug!(tenant.id = %tenant, %reason, "the role could not be examined");
        }
    }
}

/// Reads of the vault may wait for the disk.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, vault::Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => Ok(result?),
        Err(error) if error.is_panic() => Err(Error::Panicked),
        // The runtime is shutting down.
        Err(_) => Err(Error::ShutDown),
    }
}
