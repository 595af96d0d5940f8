//! Failures in quick succession are answered later.
//!
//! ```text
//! 50 failures at once, and 50 a second: answered at once     more: each 100 ms later
//! ```
//!
//! A refusal costs the service little and its caller nothing: one that asks again and again, because
//! its quota is used up or its database is away, would take the processors from other tenants. Who
//! waits for an answer does not ask. What succeeds is never held up.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many failures a tenant may have at once, and in a second.
const AT_ONCE: f64 = 50.0;
const PER_SECOND: f64 = 50.0;
/// How much later the others are answered.
const DELAY: Duration = Duration::from_millis(100);

/// Counts the failures of one tenant.
#[derive(Debug)]
pub(super) struct Pacing {
    /// How many may be answered at once, and when that was so.
    left: Mutex<(f64, Instant)>,
}

impl Default for Pacing {
    fn default() -> Self {
        Self { left: Mutex::new((AT_ONCE, Instant::now())) }
    }
}

impl Pacing {
    /// Counts a failure, and waits for as long as its answer has to.
    pub(super) async fn wait(&self) {
        let delay = self.delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    fn delay(&self) -> Duration {
        // Whole after any panic: nothing here panics while it holds the lock.
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (before, since) = *left;
        let freed = now.duration_since(since).as_secs_f64() * PER_SECOND;
        let available = (before + freed).min(AT_ONCE);
        let is_early = available < 1.0;
        *left = (if is_early { available } else { available - 1.0 }, now);
        if is_early { DELAY } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_failures_in_quick_succession_are_answered_later() {
        let pacing = Pacing::default();
        for _ in 0..50 {
            assert_eq!(pacing.delay(), Duration::ZERO);
        }
        assert_eq!(pacing.delay(), DELAY);
        assert_eq!(pacing.delay(), DELAY);
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(pacing.delay(), Duration::ZERO);
        assert_eq!(pacing.delay(), DELAY);
        tokio::time::advance(Duration::from_mins(1)).await;
        for _ in 0..50 {
            assert_eq!(pacing.delay(), Duration::ZERO);
        }
        assert_eq!(pacing.delay(), DELAY);
    }
}
