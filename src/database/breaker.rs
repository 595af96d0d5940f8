//! A database that does not answer is not asked by every call.
//!
//! ```text
//! closed --3 failures in a row--> open --1 s, 2 s, … 30 s--> half open: one call tries
//!    ^---------------------------- it succeeds ---------------------/ \-- it fails --> open
//! ```
//!
//! While it is open, a call that has come to its place fails at once with the reason of the last
//! failure: it costs no session, and a server that comes up again is not met by all that waited.
//!
//! A server that has no connection left does answer, so that is no failure. But it is open for a
//! second each time, and what it refuses is not asked for by each call.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Unavailable;

/// Failures in a row after which the database is left alone.
const FAILURES: u32 = 3;
/// How long at first, or up to a quarter less; twice as long after each try that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whether the database of one tenant is worth a try.
#[derive(Debug, Default)]
pub struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Since the last failure beyond [`FAILURES`]: why, and when the next try may be.
    open: Option<(Unavailable, Instant)>,
    is_probing: bool,
}

/// One try to reach the database. Dropped without a result, it was none.
#[derive(Debug)]
pub struct Attempt<'a> {
    breaker: &'a Breaker,
    /// Why the last one failed, where this is the only one that may be.
    probed: Option<Unavailable>,
}

impl Breaker {
    /// Admits one try to open a session.
    ///
    /// # Errors
    ///
    /// Why the last try failed, when it is too early for another or one is under way.
    pub fn admit(&self) -> Result<Attempt<'_>, Unavailable> {
        let mut state = self.state();
        let probed = match state.open {
            None => None,
            Some((reason, until)) if state.is_probing || Instant::now() < until => {
                return Err(reason);
            }
            Some((reason, _)) => Some(reason),
        };
        state.is_probing = probed.is_some();
        Ok(Attempt { breaker: self, probed })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after any panic: nothing here panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    /// Whether the server had no connection left at the last one.
    pub fn is_where_full(&self) -> bool {
        self.probed == Some(Unavailable::Full)
    }

    /// The database answered.
    pub fn succeeded(self) {
        let mut state = self.breaker.state();
        state.failures = 0;
        // One that began before the server was full says nothing of what is left.
        if self.probed.is_some() || !matches!(state.open, Some((Unavailable::Full, _))) {
            state.open = None;
        }
    }

    /// It did not.
    pub fn failed(self, reason: Unavailable) {
        // To look for a file costs nobody anything, and tells at once when it is there.
        if matches!(
            reason,
            Unavailable::FileNotFound | Unavailable::FileNotPermitted | Unavailable::NotADatabase
        ) {
            return;
        }
        let mut state = self.breaker.state();
        // Tries that began before the first of them failed are one failure more each, no longer
        // pause.
        if state.open.is_some() && self.probed.is_none() {
            return;
        }
        let pause = if reason == Unavailable::Full {
            state.failures = 0;
            Some(FIRST_PAUSE)
        } else {
            state.failures = state.failures.saturating_add(1);
            let beyond = state.failures.checked_sub(FAILURES);
            beyond.map(|beyond| FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(beyond)))
        };
        state.open =
            pause.map(|pause| (reason, Instant::now() + shortened(pause.min(LONGEST_PAUSE))));
    }
}

/// Up to a quarter less, at random: tenants whose server comes up again do not come all at once.
fn shortened(pause: Duration) -> Duration {
    // Without randomness all come at once, which is better than not at all.
    let share = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
    pause.mul_f64(1.0 - share / 4.0)
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.probed.is_some() {
            self.breaker.state().is_probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASON: Unavailable = Unavailable::ConnectionRefused;

    fn fail(breaker: &Breaker) {
        breaker.admit().unwrap().failed(REASON);
    }

    #[tokio::test(start_paused = true)]
    async fn three_failures_in_a_row_close_the_way_and_one_success_opens_it() {
        let breaker = Breaker::default();
        fail(&breaker);
        fail(&breaker);
        breaker.admit().unwrap().succeeded();
        fail(&breaker);
        fail(&breaker);
        fail(&breaker);
        assert_eq!(breaker.admit().err(), Some(REASON));
        tokio::time::advance(FIRST_PAUSE).await;
        breaker.admit().unwrap().succeeded();
        breaker.admit().unwrap();
        breaker.admit().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_at_a_time_tries_again_and_each_failure_makes_the_pause_longer() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            fail(&breaker);
        }
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            tokio::time::advance(Duration::from_millis(seconds * 750 - 1)).await;
            assert_eq!(breaker.admit().err(), Some(REASON), "{seconds}");
            tokio::time::advance(Duration::from_millis(seconds * 250 + 1)).await;
            let probe = breaker.admit().unwrap();
            assert_eq!(breaker.admit().err(), Some(REASON), "{seconds}");
            probe.failed(REASON);
        }
    }

    #[test]
    fn pauses_of_many_end_apart() {
        let pause = Duration::from_secs(30);
        let pauses: Vec<_> = (0..100).map(|_| shortened(pause)).collect();
        assert!(pauses.iter().all(|it| (pause * 3 / 4..=pause).contains(it)));
        let mut apart = pauses.clone();
        apart.sort();
        apart.dedup();
        assert!(apart.len() > 90, "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_is_given_up_leaves_room_for_the_next() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            fail(&breaker);
        }
        tokio::time::advance(FIRST_PAUSE).await;
        drop(breaker.admit().unwrap());
        breaker.admit().unwrap().succeeded();
        breaker.admit().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_not_there_may_be_looked_for_at_any_time() {
        let breaker = Breaker::default();
        for _ in 0..10 {
            breaker.admit().unwrap().failed(Unavailable::FileNotFound);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_full_is_asked_once_a_second_and_has_not_failed() {
        let breaker = Breaker::default();
        fail(&breaker);
        fail(&breaker);
        let (early, late) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        breaker.admit().unwrap().failed(Unavailable::Full);
        for _ in 0..10 {
            assert_eq!(breaker.admit().err(), Some(Unavailable::Full));
            tokio::time::advance(FIRST_PAUSE).await;
            let probe = breaker.admit().unwrap();
            assert!(probe.is_where_full());
            assert_eq!(breaker.admit().err(), Some(Unavailable::Full));
            probe.failed(Unavailable::Full);
        }
        // Two of those that began before were let in, and that there is room is not known by it.
        early.succeeded();
        late.succeeded();
        assert_eq!(breaker.admit().err(), Some(Unavailable::Full));
        tokio::time::advance(FIRST_PAUSE).await;
        breaker.admit().unwrap().succeeded();
        assert!(!breaker.admit().unwrap().is_where_full());
        // It takes as many failures as ever.
        fail(&breaker);
        fail(&breaker);
        breaker.admit().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_full_and_is_down_is_tried_as_often_as_any() {
        let breaker = Breaker::default();
        breaker.admit().unwrap().failed(Unavailable::Full);
        tokio::time::advance(FIRST_PAUSE).await;
        for _ in 0..3 {
            fail(&breaker);
        }
        assert_eq!(breaker.admit().err(), Some(REASON));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_tries_under_way_do_not_make_the_pause_longer() {
        let breaker = Breaker::default();
        let tries: Vec<_> = (0..10).map(|_| breaker.admit().unwrap()).collect();
        for attempt in tries {
            attempt.failed(REASON);
        }
        tokio::time::advance(FIRST_PAUSE).await;
        breaker.admit().unwrap().succeeded();
    }
}
