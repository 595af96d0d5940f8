//! Backups that a running service makes by itself, and deletes again.
//!
//! ```text
//! every minute: due? --> backup, drill --> what is surplus goes
//!                           \--> failed: again after 1, 2, 4 … 60 minutes
//! ```

use std::error::Error as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::MissedTickBehavior;

use crate::audit::{Actor, Attempt, Log, Outcome, RequestId};
use crate::clock::Clock;
use crate::error::ErrorCode;
use crate::vault::backup::{BackupProgress, Due, NewBackup, Schedule};
use crate::vault::{self, KdfCost, TenantCredentialVault};

/// How often it is looked whether a backup is due.
const INTERVAL: Duration = Duration::from_mins(1);
/// After so many failures in a row the waits do not grow any more.
const LONGEST_WAIT: u32 = 6;

/// A schedule at work.
#[derive(Debug)]
pub(super) struct Backups {
    pub(super) schedule: Schedule,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    is_stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    failure: Option<BackupFailure>,
    /// Whether it has been said that nothing is set up that opens a backup.
    is_told: bool,
}

/// Scheduled backups that fail.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BackupFailure {
    /// When they began to.
    pub since: Timestamp,
    /// How often they did since then.
    pub attempts: u32,
    /// When the next attempt is made.
    pub retry_at: Timestamp,
    /// Why the last one failed.
    pub code: ErrorCode,
    /// The same, in words.
    pub message: String,
}

impl Backups {
    pub(super) fn new(schedule: Schedule, clock: Arc<dyn Clock>) -> Self {
        let (state, is_stopping) = (Mutex::default(), AtomicBool::new(false));
        Self { schedule, clock, state, is_stopping }
    }

    pub(super) fn failure(&self) -> Option<BackupFailure> {
        self.state().failure.clone()
    }

    /// Ends what is under way at its next step.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Does what is due, once a minute, until the vault is gone.
    pub(super) async fn run(self: Arc<Self>, vault: Weak<TenantCredentialVault>, log: Log) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(vault) = vault.upgrade() else { return };
            let (backups, log) = (Arc::clone(&self), log.clone());
            let step = tokio::task::spawn_blocking(move || backups.step(&vault, &log));
            // It panicked, which is in the log, or the runtime ends.
            drop(step.await);
        }
    }

    /// Does what is due now.
    pub(super) fn step(&self, vault: &TenantCredentialVault, log: &Log) {
        let now = self.clock.now();
        if self.failure().is_some_and(|failure| now < failure.retry_at) {
            return;
        }
        match self.work(vault, log) {
            Ok(()) => self.state().failure = None,
            // No failure of theirs: nothing can be done now, or the service stops.
            Err((_, ErrorCode::VaultSealed | ErrorCode::Cancelled)) => {}
            Err((message, code)) => self.failed(now, code, message),
        }
    }

    fn work(&self, vault: &TenantCredentialVault, log: &Log) -> Result<(), (String, ErrorCode)> {
        match vault.due_backup(&self.schedule) {
            Ok(None) => {}
            Ok(Some(due)) => self.back_up(vault, log, &due)?,
            Err(vault::Error::BackupSlotMissing) => {
                self.say_once();
                return Ok(());
            }
            Err(error) => return Err(told(&error)),
        }
        for backup in vault.surplus_backups(&self.schedule).map_err(|error| told(&error))? {
            let path = backup.path.display().to_string();
            recorded(log, "backup.delete", &path, || vault.delete_backup(backup.id).map(|_| 0))?;
            tracing::info!(path, "a scheduled backup was deleted, as newer ones are kept");
        }
        Ok(())
    }

    fn back_up(
        &self,
        vault: &TenantCredentialVault,
        log: &Log,
        due: &Due,
    ) -> Result<(), (String, ErrorCode)> {
        let mut go_on = |_: BackupProgress| !self.is_stopping.load(Ordering::Acquire);
        match due {
            Due::Create(path) => {
                let new = NewBackup {
                    path,
                    unlock: None,
                    slot: None,
                    cost: KdfCost::DEFAULT,
                    verifies: true,
                    is_scheduled: true,
                };
                recorded(log, "backup.create", &path.display().to_string(), || {
                    Ok(vault.create_backup(&new, &mut go_on)?.records)
                })?;
                tracing::info!(path = %path.display(), "a scheduled backup was made and verified");
            }
            Due::Verify(path) => {
                recorded(log, "backup.verify", &path.display().to_string(), || {
                    Ok(vault.verify_backup(path, None, None, &mut go_on)?.records)
                })?;
            }
        }
        Ok(())
    }

    fn failed(&self, now: Timestamp, code: ErrorCode, message: String) {
        tracing::error!(error.code = %code, error = message, "no scheduled backup");
        let mut state = self.state();
        let before = state.failure.take();
        let attempts = before.as_ref().map_or(0, |before| before.attempts).saturating_add(1);
        let minutes = 60_u64.min(1 << (attempts - 1).min(LONGEST_WAIT));
        state.failure = Some(BackupFailure {
            since: before.map_or(now, |before| before.since),
            attempts,
            retry_at: now.saturating_add(Duration::from_mins(minutes)).unwrap_or(Timestamp::MAX),
            code,
            message,
        });
    }

    fn say_once(&self) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.is_told, true) {
            tracing::warn!(
                "no scheduled backup: nothing is set up that opens one; run `tenantry backup create \
                 FILE` once"
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does `work` between its announcement and its conclusion in the log, in the service's own name.
fn recorded(
    log: &Log,
    action: &'static str,
    resource: &str,
    work: impl FnOnce() -> Result<u64, vault::Error>,
) -> Result<(), (String, ErrorCode)> {
    let unrecorded = |error: crate::audit::Error| (error.to_string(), error.code());
    let mut pending = log.begin(Attempt {
        request_id: RequestId::random(),
        actor: Actor::Service,
        peer: None,
        action,
        tenant: None,
    });
    pending.set_resource(resource, None);
    pending.announce_blocking().map_err(unrecorded)?;
    let result = work();
    let outcome = match &result {
        Ok(rows) => Outcome { rows: Some(*rows), ..Outcome::default() },
        Err(error) => Outcome { code: Some(error.code()), ..Outcome::default() },
    };
    pending.complete_blocking(outcome).map_err(unrecorded)?;
    result.map(drop).map_err(|error| told(&error))
}

fn told(error: &vault::Error) -> (String, ErrorCode) {
    let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
    (format!("{error}{cause}"), error.code())
}
