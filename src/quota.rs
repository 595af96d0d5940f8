//! How much a tenant may use: statements per hour and per day.
//!
//! ```text
//! Limiter::acquire --> Permit --(dropped)--> the statement is over; its count stays
//! ```
//!
//! How many run at the same moment is only counted here: the pool has that many instances, and more
//! callers wait for one. A limit of 0 is refused here, with a code that says so.
//!
//! Windows slide: in *any* 60 minutes, and in any 24 hours, at most so many statements begin. They
//! slide in steps (one minute, 15 minutes), and a step counts until all of it is out of the window,
//! so the limit is never passed. Counts are exact under concurrency: check and count are one step
//! under the tenant's lock. They live in memory and start at zero with the process.
//!
//! Acquiring takes two short locks and no allocation after a tenant's first call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;
use crate::error::ErrorCode;
use crate::tenant::{Quotas, TenantId};

const HOUR: Window = Window { name: "max_queries_per_hour", step_seconds: 60, steps: 60 };
const DAY: Window = Window { name: "max_queries_per_day", step_seconds: 15 * 60, steps: 96 };

/// Counts the statements of every tenant.
#[derive(Debug)]
pub struct Limiter {
    clock: Arc<dyn Clock>,
    tenants: Mutex<HashMap<TenantId, Arc<Mutex<Counts>>>>,
}

/// Leave to run one statement. Dropping it says that the statement is over.
#[derive(Debug)]
#[must_use = "the statement is allowed only while the permit is held"]
pub struct Permit {
    counts: Arc<Mutex<Counts>>,
}

/// A quota is used up.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("quota {quota} ({limit}) is used up")]
pub struct Exceeded {
    /// The quota's name in the tenant file.
    pub quota: &'static str,
    /// Its value.
    pub limit: u64,
    /// When one more statement will be allowed, if nothing else uses it up; `None` when the limit is
    /// 0.
    pub retry_after: Option<Duration>,
}

impl Exceeded {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::QuotaExceeded
    }
}

/// How much of a quota is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Usage {
    /// The quota's name in the tenant file.
    pub quota: &'static str,
    /// Its value; `None` is unlimited.
    pub limit: Option<u64>,
    /// What counts against it now.
    pub used: u64,
    /// When the oldest of that stops counting.
    pub resets_at: Option<Timestamp>,
}

impl Limiter {
    /// A limiter that has counted nothing.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, tenants: Mutex::default() }
    }

    /// Counts one statement of `tenant`, if `quotas` allow it.
    ///
    /// # Errors
    ///
    /// [`Exceeded`] by the first quota that is used up; nothing is counted then.
    pub fn acquire(&self, tenant: &TenantId, quotas: &Quotas) -> Result<Permit, Exceeded> {
        let counts = self.counts(tenant);
        let now = self.clock.now();
        {
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            if quotas.max_concurrent_connections == Some(0) {
                return Err(Exceeded { quota: CONCURRENT, limit: 0, retry_after: None });
            }
            counts.hour.admit(now, quotas.max_queries_per_hour)?;
            counts.day.admit(now, quotas.max_queries_per_day)?;
            counts.hour.count(now);
            counts.day.count(now);
            counts.running += 1;
        }
        Ok(Permit { counts })
    }

    /// What `tenant` has used of `quotas`.
    pub fn usage(&self, tenant: &TenantId, quotas: &Quotas) -> [Usage; 3] {
        let counts = self.counts(tenant);
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        [
            counts.hour.usage(now, quotas.max_queries_per_hour),
            counts.day.usage(now, quotas.max_queries_per_day),
            Usage {
                quota: CONCURRENT,
                limit: quotas.max_concurrent_connections.map(u64::from),
                used: counts.running.into(),
                resets_at: None,
            },
        ]
    }

    fn counts(&self, tenant: &TenantId) -> Arc<Mutex<Counts>> {
        // Whole after any panic: an insertion is the only change.
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = tenants.get(tenant) {
            return Arc::clone(counts);
        }
        Arc::clone(tenants.entry(tenant.clone()).or_default())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.running = counts.running.saturating_sub(1);
    }
}

const CONCURRENT: &str = "max_concurrent_connections";

#[derive(Debug)]
struct Counts {
    running: u32,
    hour: Sliding,
    day: Sliding,
}

impl Default for Counts {
    fn default() -> Self {
        Self { running: 0, hour: Sliding::new(HOUR), day: Sliding::new(DAY) }
    }
}

#[derive(Clone, Copy, Debug)]
struct Window {
    name: &'static str,
    step_seconds: i64,
    steps: u16,
}

/// Counts per step. One step more than the window has: the one that is partly inside.
#[derive(Debug)]
struct Sliding {
    window: Window,
    /// A ring, by step number modulo its length.
    counts: Box<[u64]>,
    /// The newest step that `counts` covers.
    newest: i64,
    total: u64,
}

impl Sliding {
    fn new(window: Window) -> Self {
        let counts = vec![0; usize::from(window.steps) + 1].into_boxed_slice();
        Self { window, counts, newest: 0, total: 0 }
    }

    fn admit(&mut self, now: Timestamp, limit: Option<u64>) -> Result<(), Exceeded> {
        self.advance(now);
        let Some(limit) = limit.filter(|limit| self.total >= *limit) else { return Ok(()) };
        let retry_after = self.resets_at().filter(|_| limit > 0).map(|at| {
            // Rounded up: who comes back then must not be early.
            let seconds = at.as_second() - now.as_second();
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
        });
        Err(Exceeded { quota: self.window.name, limit, retry_after })
    }

    fn count(&mut self, now: Timestamp) {
        self.advance(now);
        let slot = self.slot(self.newest);
        self.counts[slot] += 1;
        self.total += 1;
    }

    fn usage(&mut self, now: Timestamp, limit: Option<u64>) -> Usage {
        self.advance(now);
        let resets_at = self.resets_at();
        Usage { quota: self.window.name, limit, used: self.total, resets_at }
    }

    /// Forgets what is out of the window. A clock that was set back forgets nothing.
    fn advance(&mut self, now: Timestamp) {
        let step = now.as_second().div_euclid(self.window.step_seconds);
        for gone in (self.newest + 1..=step).rev().take(self.counts.len()) {
            let slot = self.slot(gone);
            self.total -= std::mem::take(&mut self.counts[slot]);
        }
        self.newest = self.newest.max(step);
    }

    /// When the oldest step that counts leaves the window.
    fn resets_at(&self) -> Option<Timestamp> {
        let steps = i64::from(self.window.steps);
        let oldest =
            (self.newest - steps..=self.newest).find(|step| self.counts[self.slot(*step)] > 0);
        let second = (oldest? + steps + 1) * self.window.step_seconds;
        Timestamp::from_second(second).ok()
    }

    fn slot(&self, step: i64) -> usize {
        let length = i64::try_from(self.counts.len()).unwrap_or(i64::MAX);
        usize::try_from(step.rem_euclid(length)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::tenant::IdRule;

    fn tenant() -> TenantId {
        TenantId::parse("tenant001", IdRule::Alphanumeric).unwrap()
    }

    fn limiter() -> (Arc<ManualClock>, Limiter) {
        let clock = Arc::new(ManualClock::new("2026-11-22T10:00:30Z".parse().unwrap()));
        (Arc::clone(&clock), Limiter::new(clock))
    }

    fn hourly(limit: u64) -> Quotas {
        Quotas { max_queries_per_hour: Some(limit), ..Quotas::default() }
    }

    #[test]
    fn the_limit_holds_in_any_hour_and_frees_as_the_window_slides() {
        let (clock, limiter) = limiter();
        let quotas = hourly(3);
        for _ in 0..3 {
            drop(limiter.acquire(&tenant(), &quotas).unwrap());
        }
        let exceeded = limiter.acquire(&tenant(), &quotas).unwrap_err();
        assert_eq!((exceeded.quota, exceeded.limit), ("max_queries_per_hour", 3));
        let retry_after = exceeded.retry_after.unwrap();
        clock.advance(retry_after.saturating_sub(Duration::from_secs(1)));
        limiter.acquire(&tenant(), &quotas).unwrap_err();
        clock.advance(Duration::from_secs(1));
        drop(limiter.acquire(&tenant(), &quotas).unwrap());
    }

    #[test]
    fn absent_means_unlimited_and_zero_means_none() {
        let (_, limiter) = limiter();
        for _ in 0..10_000 {
            drop(limiter.acquire(&tenant(), &Quotas::default()).unwrap());
        }
        let exceeded = limiter.acquire(&tenant(), &hourly(0)).unwrap_err();
        assert_eq!(exceeded.retry_after, None);
    }

    #[test]
    fn statements_at_the_same_moment_are_counted_until_they_are_over() {
        let (_, limiter) = limiter();
        let quotas = Quotas { max_concurrent_connections: Some(1), ..Quotas::default() };
        let first = limiter.acquire(&tenant(), &quotas).unwrap();
        let second = limiter.acquire(&tenant(), &quotas).unwrap();
        let running = || limiter.usage(&tenant(), &quotas)[2].used;
        assert_eq!(running(), 2);
        drop(first);
        assert_eq!(running(), 1);
        drop(second);
        assert_eq!(running(), 0);
        let none = Quotas { max_concurrent_connections: Some(0), ..Quotas::default() };
        assert_eq!(limiter.acquire(&tenant(), &none).unwrap_err().quota, CONCURRENT);
    }

    #[test]
    fn a_refused_statement_is_not_counted() {
        let (_, limiter) = limiter();
        drop(limiter.acquire(&tenant(), &hourly(1)).unwrap());
        limiter.acquire(&tenant(), &hourly(1)).unwrap_err();
        let [hour, day, _] = limiter.usage(&tenant(), &hourly(1));
        assert_eq!((hour.used, day.used), (1, 1));
        assert_eq!(hour.resets_at.unwrap().to_string(), "2026-11-22T11:01:00Z");
    }

    #[test]
    fn exactly_the_limit_passes_among_many_at_once() {
        let (_, limiter) = limiter();
        let passed: usize = std::thread::scope(|scope| {
            let attempt =
                || (0..100).filter(|_| limiter.acquire(&tenant(), &hourly(250)).is_ok()).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(attempt)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 250);
    }

    #[test]
    fn a_clock_set_back_frees_nothing() {
        let clock = Arc::new(ManualClock::new("2026-11-22T10:00:00Z".parse().unwrap()));
        let mut window = Sliding::new(HOUR);
        window.count(clock.now());
        let earlier = "2026-11-22T09:00:00Z".parse().unwrap();
        assert_eq!(window.usage(earlier, Some(1)).used, 1);
    }
}
