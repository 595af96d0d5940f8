//! [`TenantMcpManager`]: the data plane as one value, for the service and for code that embeds it.
//!
//! ```text
//! token ----auth----> TenantAccess --+
//! tenant id (embedding code) --------+--> pool --> Lease (a ScopedServer)  |  McpHandler for rmcp
//! ```

mod backups;
mod counts;
mod reload;
mod scrub;
mod staying;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::audit::{self, Actor, Attempt, Log, Outcome, Pending, RequestId};
use crate::auth::{Auth, Origin, TenantAccess};
use crate::clock::{Clock, SystemClock};
use crate::database;
use crate::error::ErrorCode;
use crate::pool::{self, Lease, McpConnectionPool, PoolStats, PooledInstances};
use crate::quota::Limiter;
use crate::server::{Dispatch, McpHandler, Refusals, Stays, Subscriptions};
use crate::tenant::{IdRule, InvalidTenantId, Permissions, TenantId};
use crate::vault::backup::Schedule;
use crate::vault::{self, TenantCredentialVault};

use backups::Backups;
use reload::Reloading;
use scrub::Scrubs;

pub use backups::BackupFailure;
pub use reload::Reloaded;
pub use scrub::LastScrub;

/// How often expired credentials are wiped from memory.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How often records under old keys are sealed anew.
const RESEAL_INTERVAL: Duration = Duration::from_secs(1);
/// How long servers may take to be told that what a session ran is to stop.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long re-sealing rests after a failure.
const RESEAL_PAUSE: Duration = Duration::from_mins(1);

/// Gives each tenant its own scoped MCP server, from a vault of credentials.
///
/// ```no_run
/// # use std::sync::Arc;
/// # async fn example(
/// #     vault: Arc<tenantry::vault::TenantCredentialVault>,
/// #     log: tenantry::audit::Log,
/// #     options: tenantry::pool::Options,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let manager = tenantry::TenantMcpManager::new(vault, log, options);
/// let mut server = manager.get_or_create_server("tenant001").await?;
/// let answer = server
///     .query_tenant_data(
///         "mcp://tenant001/database/table/customers",
///         "SELECT * FROM customers LIMIT 10",
///         None,
///     )
///     .await?;
/// # drop(answer);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TenantMcpManager {
    vault: Arc<TenantCredentialVault>,
    auth: Arc<Auth>,
    pool: McpConnectionPool,
    limiter: Arc<Limiter>,
    databases: database::Options,
    log: Log,
    clock: Arc<dyn Clock>,
    stays: Stays,
    refusals: Arc<Refusals>,
    sweeper: AbortHandle,
    counter: AbortHandle,
    resealer: OnceLock<AbortHandle>,
    scrubs: OnceLock<(Arc<Scrubs>, AbortHandle)>,
    backups: OnceLock<(Arc<Backups>, AbortHandle)>,
    reloading: Reloading,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A refusal could not be recorded.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// The id breaks the rule for ids.
    #[error(transparent)]
    InvalidTenant(#[from] InvalidTenantId),
    /// The pool has none.
    #[error(transparent)]
    Pool(#[from] pool::Error),
}

impl Error {
    /// The stable code, such as `INVALID_TENANT` or `TENANT_NOT_CONFIGURED`.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Audit(error) => error.code(),
            Self::InvalidTenant(_) => ErrorCode::InvalidTenant,
            Self::Pool(error) => error.code(),
        }
    }
}

impl TenantMcpManager {
    /// A manager over `vault` that records in `log`. Must be called inside a Tokio runtime.
    pub fn new(vault: Arc<TenantCredentialVault>, log: Log, options: pool::Options) -> Self {
        Self::with_clock(vault, log, options, Arc::new(SystemClock))
    }

    /// As [`TenantMcpManager::new`], with a clock that tests can move.
    pub fn with_clock(
        vault: Arc<TenantCredentialVault>,
        log: Log,
        options: pool::Options,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let limiter = Arc::new(Limiter::new(Arc::clone(&clock)));
        let auth = Arc::new(Auth::new(Arc::clone(&vault), log.clone(), Arc::clone(&clock)));
        let databases = options.database.clone();
        let pool =
            McpConnectionPool::new(Arc::clone(&vault), Arc::clone(&limiter), log.clone(), options);
        let stays = staying::nobody(&vault);
        let refusals = Arc::<Refusals>::default();
        let sweeper = sweep(Arc::downgrade(&vault), stays.clone(), Arc::clone(&refusals));
        #[expect(clippy::disallowed_methods, reason = "aborted when the manager is dropped")]
        let sweeper = tokio::spawn(sweeper).abort_handle();
        let counter =
            counts::keep(Arc::downgrade(&vault), Arc::downgrade(&limiter), Arc::downgrade(&auth));
        #[expect(clippy::disallowed_methods, reason = "aborted when the manager is dropped")]
        let counter = tokio::spawn(counter).abort_handle();
        let (resealer, scrubs, backups) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self {
            vault,
            auth,
            pool,
            limiter,
            databases,
            log,
            clock,
            stays,
            refusals,
            sweeper,
            counter,
            resealer,
            scrubs,
            backups,
            reloading: Reloading::default(),
        }
    }

    /// Seals what is under an old key under the newest one, from now on, whenever there is such a
    /// thing: up to `records_per_second`, beside the calls that are served. The first caller
    /// decides; 0 never does. Must be called inside a Tokio runtime.
    pub fn reseal_in_background(&self, records_per_second: usize) {
        if records_per_second == 0 {
            return;
        }
        self.resealer.get_or_init(|| {
            let (vault, log) = (Arc::downgrade(&self.vault), self.log.clone());
            #[expect(clippy::disallowed_methods, reason = "aborted when the manager is dropped")]
            tokio::spawn(reseal(vault, log, records_per_second)).abort_handle()
        });
    }

    /// Checks everything that is stored once a day, up to `records_per_second`, beside the calls that
    /// are served. The first caller decides; 0 never does. Must be called inside a Tokio runtime.
    pub fn scrub_in_background(&self, records_per_second: usize) {
        if records_per_second == 0 {
            return;
        }
        self.scrubs.get_or_init(|| {
            let scrubs = Arc::new(Scrubs::new(records_per_second, Arc::clone(&self.clock)));
            let running = Arc::clone(&scrubs).run(Arc::downgrade(&self.vault), self.log.clone());
            #[expect(clippy::disallowed_methods, reason = "aborted when the manager is dropped")]
            let running = tokio::spawn(running);
            (scrubs, running.abort_handle())
        });
    }

    /// What the last daily check found, once there was one.
    pub fn last_scrub(&self) -> Option<LastScrub> {
        self.scrubs.get().and_then(|(scrubs, _)| scrubs.last())
    }

    /// Makes backups as `schedule` says, from now on, whenever the vault is unsealed. The first caller
    /// decides. Must be called inside a Tokio runtime.
    pub fn back_up_in_background(&self, schedule: Schedule) {
        self.backups.get_or_init(|| {
            let backups = Arc::new(Backups::new(schedule, Arc::clone(&self.clock)));
            let task = Arc::clone(&backups).run(Arc::downgrade(&self.vault), self.log.clone());
            #[expect(clippy::disallowed_methods, reason = "aborted when the manager is dropped")]
            let task = tokio::spawn(task).abort_handle();
            (backups, task)
        });
    }

    /// When backups are made, if they are, and why the last ones were not.
    pub fn scheduled_backups(&self) -> Option<(&Schedule, Option<BackupFailure>)> {
        self.backups.get().map(|(backups, _)| (&backups.schedule, backups.failure()))
    }

    fn stop_backups(&self) {
        if let Some((backups, task)) = self.backups.get() {
            backups.stop();
            task.abort();
        }
    }

    /// Whether the vault is sealed, so that nobody is served.
    pub fn is_sealed(&self) -> bool {
        self.vault.is_sealed()
    }

    /// Destroys every key and every opened secret in memory. Calls under way finish with the session
    /// that they have; nothing new begins until the vault is unsealed.
    pub fn seal(&self) {
        self.save_counts();
        self.vault.seal();
        self.auth.forget();
        self.stays.end_all();
        self.pool.close_all();
    }

    /// Ends what is open for one tenant, as it was sealed or removed.
    pub fn close_tenant(&self, tenant: &TenantId) {
        self.auth.forget_tenant(tenant);
        self.stays.end_tenant(tenant);
        self.pool.close_tenant(tenant);
    }

    /// Ends what is open in the name of a credential that was revoked.
    pub fn close_credential(&self, token_id: &str) {
        self.stays.end_credential(token_id);
    }

    /// Who stays for longer than one call.
    pub fn stays(&self) -> &Stays {
        &self.stays
    }

    /// An instance of the tenant's server: the one used last if it is free, else another, up to
    /// the limit. Dropping the [`Lease`] gives it back.
    ///
    /// For embedding code, which is trusted to name the right tenant; calls are recorded as its own.
    ///
    /// # Errors
    ///
    /// `INVALID_TENANT`, `TENANT_NOT_CONFIGURED`, `TENANT_DISABLED`, `POOL_EXHAUSTED`,
    /// `DATABASE_UNAVAILABLE`, `VAULT_SEALED`, `INTEGRITY_ERROR`, `CANCELLED` while it shuts down.
    pub async fn get_or_create_server(&self, tenant_id: &str) -> Result<Lease, Error> {
        // The wider rule: an id that a setting did not admit was not imported either.
        let tenant = TenantId::parse(tenant_id, IdRule::AllowUnderscore)?;
        let access =
            TenantAccess::local(tenant, Permissions::READ, Actor::Embedder, Origin::default());
        Ok(self.pool.lease(&access).await?)
    }

    /// The MCP handler for what `access` allows, to be served by `rmcp`.
    ///
    /// # Errors
    ///
    /// `TENANT_NOT_CONFIGURED`, `TENANT_DISABLED`, `VAULT_SEALED`, `INTEGRITY_ERROR`,
    /// `UNAUTHENTICATED` when the access has ended, `CANCELLED` while it shuts down, or
    /// `AUDIT_UNAVAILABLE`, when the refusal cannot be recorded; the database is not touched yet.
    pub async fn handler(
        &self,
        access: TenantAccess,
    ) -> Result<Dispatch<McpHandler<PooledInstances>>, Error> {
        let mark = self.stays.mark(access.tenant());
        let context = match self.pool.context(&access).await {
            Ok(context) => context,
            Err(error) => return Err(self.refuse(&access, error).await),
        };
        let caller = pool::caller_of(&access);
        let (stays, lasts_for) = (self.stays.clone(), access.lasts_for());
        let handler = McpHandler::new(context, self.pool.instances(access), caller)
            .with_subscriptions(Subscriptions { stays, mark, lasts_for });
        Ok(Dispatch::new(handler, self.pool.call_timeout()))
    }

    /// Records that `access` led nowhere, and why. Says so later when that happens again and again.
    async fn refuse(&self, access: &TenantAccess, error: pool::Error) -> Error {
        let origin = access.origin();
        let pending = self.log.begin(Attempt {
            request_id: origin.request_id.clone().unwrap_or_else(RequestId::random),
            actor: access.actor().clone(),
            peer: origin.peer.clone(),
            action: "connect",
            tenant: Some(access.tenant().clone()),
        });
        let outcome = Outcome { code: Some(error.code()), ..Outcome::default() };
        let recorded = pending.complete(outcome).await;
        self.refusals.wait(access.tenant()).await;
        recorded.map_or_else(Error::from, |()| error.into())
    }

    /// Checks tokens, and makes them.
    pub fn auth(&self) -> &Arc<Auth> {
        &self.auth
    }

    /// Where credentials are.
    pub fn vault(&self) -> &Arc<TenantCredentialVault> {
        &self.vault
    }

    /// How tenants' databases are reached.
    pub fn databases(&self) -> &database::Options {
        &self.databases
    }

    /// Where everything is recorded.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What the pool has done and has.
    pub fn pool_stats(&self) -> PoolStats {
        self.pool.stats()
    }

    /// Closes instances whose idle time is over, and says how many.
    pub fn cleanup_idle_instances(&self) -> usize {
        self.pool.cleanup_idle_instances()
    }

    /// Ends everything, in this order: what runs in the background, of which a step that is under way
    /// ends by itself; leases, of which there are no new ones, and which have up to `deadline` to come
    /// back; sessions with databases, whose servers are told; then what was counted is saved, and what
    /// was opened is wiped. Says how many leases had not come back; they end when they do.
    pub async fn shutdown(&self, deadline: Duration) -> u64 {
        self.stop_background();
        self.stays.close();
        self.stays.end_all();
        let left = self.pool.shutdown(deadline).await;
        database::settle(FAREWELL).await;
        self.counter.abort();
        let (vault, limiter) = (Arc::clone(&self.vault), Arc::clone(&self.limiter));
        let auth = Arc::clone(&self.auth);
        let saved = tokio::task::spawn_blocking(move || {
            counts::keep_of_tokens(&auth, true);
            counts::save(&vault, &limiter)
        });
        if let Ok(Err(error)) = saved.await {
            counts::complain(&error);
        }
        self.auth.forget();
        self.vault.forget_opened();
        left
    }

    fn stop_background(&self) {
        if let Some(resealer) = self.resealer.get() {
            resealer.abort();
        }
        if let Some((_, scrubber)) = self.scrubs.get() {
            scrubber.abort();
        }
        self.stop_backups();
    }
}

impl Drop for TenantMcpManager {
    fn drop(&mut self) {
        self.sweeper.abort();
        self.counter.abort();
        self.stop_background();
    }
}

/// Wipes credentials at their deadline, not when they are next touched, and tells who stays when
/// their tenant is not what it was.
async fn sweep(vault: Weak<TenantCredentialVault>, stays: Stays, refusals: Arc<Refusals>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(vault) = vault.upgrade() else { return };
        refusals.sweep();
        let stays = stays.clone();
        // What asks the vault may wait, for the disk and for who seals it.
        let swept = tokio::task::spawn_blocking(move || {
            vault.sweep();
            staying::tell(&vault, &stays);
        });
        // A panic is in the log.
        drop(swept.await);
    }
}

/// Finishes what a rotation of keys began. A step that is under way when the task is aborted ends by
/// itself, and what it did not reach is done after the next start.
async fn reseal(vault: Weak<TenantCredentialVault>, log: Log, records_per_second: usize) {
    let mut ticks = tokio::time::interval(RESEAL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pending: Option<Pending> = None;
    loop {
        ticks.tick().await;
        let Some(vault) = vault.upgrade() else { return };
        let begun = pending.is_some();
        let log = log.clone();
        let step = tokio::task::spawn_blocking(move || {
            reseal_step(&vault, &log, begun, records_per_second)
        });
        match step.await {
            Ok(Ok(Step::Idle)) => {}
            Ok(Ok(Step::Began(announced))) => pending = Some(announced),
            Ok(Ok(Step::Done(records))) => {
                tracing::info!(records, "every record is under its newest key");
                let outcome = Outcome { rows: Some(records), ..Outcome::default() };
                if let Some(pending) = pending.take()
                    && pending.complete(outcome).await.is_err()
                {
                    tracing::error!("the end of the re-seal was not recorded");
                }
            }
            Ok(Err(code)) => {
                tracing::error!(error.code = %code, "records stay under their old keys for now");
                tokio::time::sleep(RESEAL_PAUSE).await;
            }
            // The vault panicked, which is in the log, or the runtime ends.
            Err(_) => tokio::time::sleep(RESEAL_PAUSE).await,
        }
    }
}

/// What a second of re-sealing came to.
enum Step {
    /// Nothing to do, or not all of it done yet.
    Idle,
    /// There is something to do, and the audit log says so.
    Began(Pending),
    /// So many records were sealed anew, and the old keys are destroyed.
    Done(u64),
}

fn reseal_step(
    vault: &TenantCredentialVault,
    log: &Log,
    begun: bool,
    records: usize,
) -> Result<Step, ErrorCode> {
    // While the vault is sealed there is nothing to be done.
    let unless_sealed = |error: vault::Error| {
        if matches!(error, vault::Error::Sealed) { Ok(Step::Idle) } else { Err(error.code()) }
    };
    let progress = match vault.reseal_progress() {
        Ok(progress) => progress,
        Err(error) => return unless_sealed(error),
    };
    if !begun {
        if progress.is_done() {
            return Ok(Step::Idle);
        }
        // No key is destroyed that the log does not tell of.
        let pending = log.begin(Attempt {
            request_id: RequestId::random(),
            actor: Actor::Service,
            peer: None,
            action: "vault.reseal",
            tenant: None,
        });
        pending.announce_blocking().map_err(|error| error.code())?;
        return Ok(Step::Began(pending));
    }
    match vault.reseal(records) {
        Ok(progress) if progress.is_done() => Ok(Step::Done(progress.total)),
        Ok(_) => Ok(Step::Idle),
        Err(error) => unless_sealed(error),
    }
}
