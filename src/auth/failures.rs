//! What failed at the door, recorded or counted; and what is written down once a minute.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::throttle::{Summary, Throttle, Verdict};
use super::{Auth, Error};
use crate::audit::{self, Attempt, Outcome, RequestId};
use crate::tenant::{IdRule, TenantId};
use crate::vault;

/// How often last uses are saved.
const SAVE_INTERVAL: Duration = Duration::from_mins(1);

impl Auth {
    /// Saves, a minute after the last time or `at_once`, when tokens were last used, and records the
    /// failures that were only counted. May block.
    ///
    /// # Errors
    ///
    /// What was to be recorded is lost, as the log will tell; what was to be saved is tried again.
    pub fn keep(&self, at_once: bool) -> Result<(), Error> {
        // Held to the end: who finds nothing to save then knows that it is saved.
        let mut saved_at = self.saved_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.boot();
        let summaries = self.throttle().summaries(now, at_once);
        let recorded: Result<Vec<()>, _> =
            summaries.into_iter().map(|summary| self.record(summary)).collect();
        if at_once || now.saturating_sub(*saved_at) >= SAVE_INTERVAL {
            *saved_at = now;
            self.save_uses()?;
        }
        recorded?;
        Ok(())
    }

    fn save_uses(&self) -> Result<(), Error> {
        let uses = self.known().take_uses();
        if uses.is_empty() {
            return Ok(());
        }
        let places: Vec<_> = uses.iter().map(|(place, used_at)| (*place, *used_at)).collect();
        match self.vault.save_token_uses(&places) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.known().put_back(uses);
                // It is saved once it is unsealed.
                if matches!(error, vault::Error::Sealed) { Ok(()) } else { Err(error.into()) }
            }
        }
    }

    fn record(&self, summary: Summary) -> Result<(), audit::Error> {
        let Summary { actor, tenant, peer, action, code, count, sources } = summary;
        let request_id = RequestId::random();
        let mut pending = self.log.begin(Attempt { request_id, actor, peer, action, tenant });
        if let Some(sources) = sources {
            pending.set_resource(&format!("{sources} addresses"), None);
        }
        let outcome = Outcome { code: Some(code), rule: Some("summary"), rows: Some(count) };
        pending.complete_blocking(outcome)
    }

    /// Records that `attempt` failed for the reason `refusal`, or counts it; what to answer.
    pub(super) async fn refuse(
        &self,
        attempt: Attempt,
        path_tenant: Option<&str>,
        refusal: Error,
    ) -> Error {
        let code = refusal.code();
        let verdict = self.throttle().failed(&attempt, code, self.clock.boot());
        match verdict {
            Verdict::Record => {}
            Verdict::Refuse(retry_after) if !matches!(refusal, Error::Sealed) => {
                return Error::Throttled { retry_after };
            }
            Verdict::Count | Verdict::Refuse(_) => return refusal,
        }
        let mut pending = self.log.begin(attempt);
        if let Some(named) = path_tenant {
            let target = TenantId::parse(named, IdRule::AllowUnderscore).ok();
            pending.set_resource(named, target.as_ref());
        }
        let rule = matches!(refusal, Error::InsufficientScope { .. }).then_some("scope");
        match pending.complete(Outcome { code: Some(code), rule, rows: None }).await {
            Ok(()) => refusal,
            Err(error) => error.into(),
        }
    }

    pub(super) fn throttle(&self) -> MutexGuard<'_, Throttle> {
        // It counts: a panic could leave it wrong by one.
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
