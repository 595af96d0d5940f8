//! Failures in quick succession are answered later.
//!
//! ```text
//! 50 failures at once, and 50 a second: answered at once     more: in turn, 50 a second
//! ```
//!
//! A refusal costs the service little and its caller nothing: one that asks again and again, because
//! its quota is used up or its database is away, would take the processors from other tenants. Who
//! waits for an answer does not ask. What succeeds is never held up.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::tenant::TenantId;

/// How many failures a tenant may have at once, and in a second.
const AT_ONCE: f64 = 50.0;
const PER_SECOND: f64 = 50.0;
/// How much later others are answered at most.
const LONGEST: Duration = Duration::from_secs(1);

/// Counts the failures of one tenant.
#[derive(Debug)]
pub(super) struct Pacing {
    /// How many may be answered at once, less those whose turn is to come, and when that was so.
    left: Mutex<(f64, Instant)>,
}

impl Default for Pacing {
    fn default() -> Self {
        Self { left: Mutex::new((AT_ONCE, Instant::now())) }
    }
}

/// Counts what is refused of each tenant before there is a [`TenantContext`](super::TenantContext) to
/// count it: because it is disabled, or the vault is sealed.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<TenantId, Pacing>>);

impl Pacing {
    /// Counts a failure, and waits for as long as its answer has to.
    pub(super) async fn wait(&self) {
        wait(self.delay()).await;
    }

    fn delay(&self) -> Duration {
        let mut left = self.left();
        let now = Instant::now();
        let available = available(*left, now) - 1.0;
        let later = Duration::from_secs_f64((-available).max(0.0) / PER_SECOND);
        // Those beyond have the turns of others, and not all the last one.
        let shared = if later < LONGEST { 0.0 } else { PER_SECOND * LONGEST.as_secs_f64() / 2.0 };
        *left = (available + shared, now);
        later
    }

    /// Whether it is as if there had been no failure.
    fn is_rested(&self, now: Instant) -> bool {
        available(*self.left(), now) >= AT_ONCE
    }

    fn left(&self) -> MutexGuard<'_, (f64, Instant)> {
        // Whole after any panic: nothing here panics while it holds the lock.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refusals {
    /// Counts a refusal of `tenant`, and waits for as long as its answer has to.
    pub async fn wait(&self, tenant: &TenantId) {
        wait(self.delay(tenant)).await;
    }

    /// Forgets tenants that were not refused lately. To be called every second: nothing else does.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.tenants().retain(|_, pacing| !pacing.is_rested(now));
    }

    fn delay(&self, tenant: &TenantId) -> Duration {
        self.tenants().entry(tenant.clone()).or_default().delay()
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Pacing>> {
        // Whole after any panic, too.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

/// How many may be answered at once `now`, of what was left then.
fn available((left, then): (f64, Instant), now: Instant) -> f64 {
    (left + now.duration_since(then).as_secs_f64() * PER_SECOND).min(AT_ONCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Duration = Duration::from_millis(20);

    #[tokio::test(start_paused = true)]
    async fn only_failures_in_quick_succession_are_answered_later_one_after_the_other() {
        let pacing = Pacing::default();
        for _ in 0..50 {
            assert_eq!(pacing.delay(), Duration::ZERO);
        }
        assert_eq!(pacing.delay(), TURN);
        assert_eq!(pacing.delay(), 2 * TURN);
        tokio::time::advance(2 * TURN).await;
        assert_eq!(pacing.delay(), TURN);
        tokio::time::advance(2 * TURN).await;
        assert_eq!(pacing.delay(), Duration::ZERO);
        tokio::time::advance(Duration::from_mins(1)).await;
        for _ in 0..50 {
            assert_eq!(pacing.delay(), Duration::ZERO);
        }
        assert_eq!(pacing.delay(), TURN);
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_failures_there_are_none_is_answered_a_second_later_or_all_at_once() {
        let pacing = Pacing::default();
        let mut answered: HashMap<Duration, u32> = HashMap::new();
        for _ in 0..1_050 {
            *answered.entry(pacing.delay()).or_default() += 1;
        }
        answered.remove(&Duration::ZERO);
        assert!(answered.keys().all(|delay| *delay <= LONGEST), "{answered:?}");
        assert!(answered.values().all(|count| *count <= 50), "{answered:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_is_refused_often_waits_alone_and_is_forgotten_when_it_has_rested() {
        let tenant = |text| TenantId::parse(text, crate::tenant::IdRule::Alphanumeric).unwrap();
        let (often, once) = (tenant("tenant001"), tenant("tenant002"));
        let refusals = Refusals::default();
        let began = Instant::now();
        for _ in 0..50 {
            refusals.wait(&often).await;
        }
        refusals.wait(&once).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        refusals.wait(&often).await;
        assert_eq!(began.elapsed(), TURN);
        refusals.sweep();
        assert_eq!(refusals.tenants().keys().collect::<Vec<_>>(), [&often]);
        tokio::time::advance(Duration::from_secs(1)).await;
        refusals.sweep();
        assert!(refusals.tenants().is_empty());
    }
}
