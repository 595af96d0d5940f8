//! The daily check of everything that is stored, a little each second, while the service runs.
//!
//! ```text
//! every second: under way? --> so many records more --> all: recorded, logged, kept for `status`
//!               due?       --> begun
//! ```
//!
//! It goes on after a bad finding, and the next day it looks again. Nothing is mended by it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::MissedTickBehavior;

use crate::audit::{Actor, Attempt, Log, Outcome, RequestId};
use crate::clock::Clock;
use crate::error::ErrorCode;
use crate::vault::check::{Report, Scrub, Scrubbed, Verdict};
use crate::vault::{self, TenantCredentialVault};

pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// After the start, so that whoever waits for the service is served first.
pub(super) const FIRST: Duration = Duration::from_mins(1);
/// From the beginning of one pass to that of the next.
pub(super) const EVERY: Duration = Duration::from_hours(24);
/// How long it rests after a pass that could not be ended.
const PAUSE: Duration = Duration::from_mins(1);
/// Most findings of a pass that are logged one by one, and kept.
const MAX_FINDINGS: usize = 100;

/// The last pass that came to its end.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LastScrub {
    /// When it ended.
    pub at: Timestamp,
    /// What it found, all in all.
    pub verdict: Verdict,
    /// How many pieces it looked at.
    pub checked: u64,
    /// What is amiss, a sentence each; at most 100.
    pub findings: Vec<String>,
}

/// The passes of a service.
#[derive(Debug)]
pub(super) struct Scrubs {
    records_per_second: usize,
    clock: Arc<dyn Clock>,
    last: Mutex<Option<LastScrub>>,
}

impl Scrubs {
    pub(super) fn new(records_per_second: usize, clock: Arc<dyn Clock>) -> Self {
        Self { records_per_second, clock, last: Mutex::default() }
    }

    pub(super) fn last(&self) -> Option<LastScrub> {
        self.lock().clone()
    }

    /// Passes, one a day, until the vault is gone.
    pub(super) async fn run(self: Arc<Self>, vault: Weak<TenantCredentialVault>, log: Log) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = later(self.clock.now(), FIRST);
        let mut under_way: Option<Scrub> = None;
        loop {
            ticks.tick().await;
            let Some(vault) = vault.upgrade() else { return };
            let now = self.clock.now();
            if under_way.is_none() && now < due {
                continue;
            }
            if under_way.is_none() {
                due = later(now, EVERY);
            }
            let (begun, records) = (under_way.take(), self.records_per_second);
            let step = tokio::task::spawn_blocking(move || step(&vault, begun, records));
            match step.await {
                Ok(Ok(Scrubbed::Some(rest))) => under_way = Some(rest),
                Ok(Ok(Scrubbed::All(report))) => self.conclude(&report, &log).await,
                Ok(Err(error)) => {
                    // Sealed, nothing can be opened: it begins once it can.
                    if !matches!(error, vault::Error::Sealed) {
                        tracing::error!(error.code = %error.code(), %error, "the check was cut off");
                    }
                    due = later(now, PAUSE);
                }
                // It panicked, which is in the log, or the runtime ends.
                Err(_) => due = later(now, PAUSE),
            }
        }
    }

    /// Tells everybody who should know.
    async fn conclude(&self, report: &Report, log: &Log) {
        let findings = report.parts.iter().flat_map(|part| {
            part.findings.iter().map(|finding| format!("{}: {finding}", part.part.as_str()))
        });
        let findings: Vec<String> = findings.take(MAX_FINDINGS).collect();
        let (verdict, checked) = (report.verdict(), report.checked());
        for finding in &findings {
            tracing::error!(finding, "the daily check found damage; `tenantry fsck` says more");
        }
        tracing::info!(verdict = verdict.as_str(), checked, "the daily check is done");
        let mut pending = log.begin(Attempt {
            request_id: RequestId::random(),
            actor: Actor::Service,
            peer: None,
            action: "vault.scrub",
            tenant: None,
        });
        if !findings.is_empty() {
            pending.set_resource(&findings.join("; "), None);
        }
        let code = (verdict == Verdict::Damaged).then_some(ErrorCode::IntegrityError);
        let outcome = Outcome { code, rows: Some(checked), ..Outcome::default() };
        if pending.complete(outcome).await.is_err() {
            tracing::error!("the daily check was not recorded");
        }
        *self.lock() = Some(LastScrub { at: self.clock.now(), verdict, checked, findings });
    }

    fn lock(&self) -> MutexGuard<'_, Option<LastScrub>> {
        // Whole after any panic: it changes by assignment.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn step(
    vault: &TenantCredentialVault,
    begun: Option<Scrub>,
    records: usize,
) -> Result<Scrubbed, vault::Error> {
    let scrub = begun.map_or_else(|| vault.begin_scrub(), Ok)?;
    vault.scrub(scrub, records)
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    now.saturating_add(wait).unwrap_or(Timestamp::MAX)
}
