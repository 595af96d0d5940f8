//! A database that does not answer is not asked by every call.
//!
//! ```text
//! closed --3 failures in a row--> open --1 s, 2 s, … 30 s--> half open: one call tries
//!    ^---------------------------- it succeeds ---------------------/ \-- it fails --> open
//! ```
//!
//! Until it has answered for the first time, one call at a time tries, and the others wait for what
//! comes of that: a failure is theirs as well, and once it answers they try for themselves.
//!
//! While it is open, a call that has come to its place fails at once with the reason of the last
//! failure: it costs no session, and a server that comes up again is not met by all that waited.
//!
//! A server that has no connection left does answer, so that is no failure. But it is open for a
//! second each time, and what it refuses is not asked for by each call.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::MutexGuard as Turn;
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
    /// Held by who tries before the database has answered.
    first: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    has_answered: bool,
    /// How many tries have failed in all, and why the last one did.
    failed: (u64, Option<Unavailable>),
    /// In a row, of those that count.
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
    /// Others wait for what comes of this one.
    _turn: Option<Turn<'a, ()>>,
}

impl Breaker {
    /// Admits one try to open a session.
    ///
    /// # Errors
    ///
    /// Why the last try failed, when it is too early for another, one is under way, or it was waited
    /// for here.
    pub async fn admit(&self) -> Result<Attempt<'_>, Unavailable> {
        let is_untried = |state: &State| !state.has_answered && state.open.is_none();
        let known = {
            let state = self.state();
            is_untried(&state).then_some(state.failed.0)
        };
        let Some(known) = known else { return self.admit_now(None) };
        let turn = self.first.lock().await;
        let state = self.state();
        match state.failed {
            (failed, Some(reason)) if failed != known => return Err(reason),
            _ => {}
        }
        let turn = is_untried(&state).then_some(turn);
        drop(state);
        self.admit_now(turn)
    }

    fn admit_now<'a>(&'a self, turn: Option<Turn<'a, ()>>) -> Result<Attempt<'a>, Unavailable> {
        let mut state = self.state();
        let probed = match state.open {
            None => None,
            Some((reason, until)) if state.is_probing || Instant::now() < until => {
                return Err(reason);
            }
            Some((reason, _)) => Some(reason),
        };
        state.is_probing = probed.is_some();
        Ok(Attempt { breaker: self, probed, _turn: turn })
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
        state.has_answered = true;
        state.failures = 0;
        // One that began before the server was full says nothing of what is left.
        if self.probed.is_some() || !matches!(state.open, Some((Unavailable::Full, _))) {
            state.open = None;
        }
    }

    /// It did not.
    pub fn failed(self, reason: Unavailable) {
        let mut state = self.breaker.state();
        state.failed = (state.failed.0 + 1, Some(reason));
        // To look for a file costs nobody anything, and tells at once when it is there.
        if matches!(
            reason,
            Unavailable::FileNotFound | Unavailable::FileNotPermitted | Unavailable::NotADatabase
        ) {
            return;
        }
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
    use futures_util::future::join_all;
    use futures_util::poll;

    use super::*;

    const REASON: Unavailable = Unavailable::ConnectionRefused;

    /// That of a database that has answered.
    async fn answered() -> Breaker {
        let breaker = Breaker::default();
        breaker.admit().await.unwrap().succeeded();
        breaker
    }

    async fn fail(breaker: &Breaker) {
        breaker.admit().await.unwrap().failed(REASON);
    }

    #[tokio::test]
    async fn the_first_try_is_alone_and_its_failure_is_that_of_who_waited() {
        let breaker = Breaker::default();
        let first = breaker.admit().await.unwrap();
        let (mut second, mut third) = (Box::pin(breaker.admit()), Box::pin(breaker.admit()));
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        first.failed(Unavailable::FileNotFound);
        assert_eq!(second.await.err(), Some(Unavailable::FileNotFound));
        assert_eq!(third.await.err(), Some(Unavailable::FileNotFound));
        // Who comes now has waited for nobody.
        breaker.admit().await.unwrap().failed(REASON);
        breaker.admit().await.unwrap();
    }

    #[tokio::test]
    async fn who_waited_for_the_first_try_goes_on_at_once_when_it_was_answered() {
        let breaker = Breaker::default();
        fail(&breaker).await;
        let first = breaker.admit().await.unwrap();
        let (mut second, mut third) = (Box::pin(breaker.admit()), Box::pin(breaker.admit()));
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        first.succeeded();
        let _both = (second.await.unwrap(), third.await.unwrap());
    }

    #[tokio::test]
    async fn a_first_try_that_is_given_up_goes_to_the_next_alone() {
        let breaker = Breaker::default();
        let first = breaker.admit().await.unwrap();
        let (mut second, mut third) = (Box::pin(breaker.admit()), Box::pin(breaker.admit()));
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        drop(first);
        let second = second.await.unwrap();
        assert!(poll!(&mut third).is_pending());
        drop(second);
        third.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn three_failures_in_a_row_close_the_way_and_one_success_opens_it() {
        let breaker = Breaker::default();
        fail(&breaker).await;
        fail(&breaker).await;
        breaker.admit().await.unwrap().succeeded();
        fail(&breaker).await;
        fail(&breaker).await;
        fail(&breaker).await;
        assert_eq!(breaker.admit().await.err(), Some(REASON));
        tokio::time::advance(FIRST_PAUSE).await;
        breaker.admit().await.unwrap().succeeded();
        breaker.admit().await.unwrap();
        breaker.admit().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_at_a_time_tries_again_and_each_failure_makes_the_pause_longer() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            fail(&breaker).await;
        }
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            tokio::time::advance(Duration::from_millis(seconds * 750 - 1)).await;
            assert_eq!(breaker.admit().await.err(), Some(REASON), "{seconds}");
            tokio::time::advance(Duration::from_millis(seconds * 250 + 1)).await;
            let probe = breaker.admit().await.unwrap();
            assert_eq!(breaker.admit().await.err(), Some(REASON), "{seconds}");
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
            fail(&breaker).await;
        }
        tokio::time::advance(FIRST_PAUSE).await;
        drop(breaker.admit().await.unwrap());
        breaker.admit().await.unwrap().succeeded();
        breaker.admit().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_not_there_may_be_looked_for_at_any_time() {
        let breaker = Breaker::default();
        for _ in 0..10 {
            breaker.admit().await.unwrap().failed(Unavailable::FileNotFound);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_full_is_asked_once_a_second_and_has_not_failed() {
        let breaker = answered().await;
        fail(&breaker).await;
        fail(&breaker).await;
        let (early, late) = (breaker.admit().await.unwrap(), breaker.admit().await.unwrap());
        breaker.admit().await.unwrap().failed(Unavailable::Full);
        for _ in 0..10 {
            assert_eq!(breaker.admit().await.err(), Some(Unavailable::Full));
            tokio::time::advance(FIRST_PAUSE).await;
            let probe = breaker.admit().await.unwrap();
            assert!(probe.is_where_full());
            assert_eq!(breaker.admit().await.err(), Some(Unavailable::Full));
            probe.failed(Unavailable::Full);
        }
        // Two of those that began before were let in, and that there is room is not known by it.
        early.succeeded();
        late.succeeded();
        assert_eq!(breaker.admit().await.err(), Some(Unavailable::Full));
        tokio::time::advance(FIRST_PAUSE).await;
        breaker.admit().await.unwrap().succeeded();
        assert!(!breaker.admit().await.unwrap().is_where_full());
        // It takes as many failures as ever.
        fail(&breaker).await;
        fail(&breaker).await;
        breaker.admit().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_full_and_is_down_is_tried_as_often_as_any() {
        let breaker = Breaker::default();
        breaker.admit().await.unwrap().failed(Unavailable::Full);
        tokio::time::advance(FIRST_PAUSE).await;
        for _ in 0..3 {
            fail(&breaker).await;
        }
        assert_eq!(breaker.admit().await.err(), Some(REASON));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_tries_under_way_do_not_make_the_pause_longer() {
        let breaker = answered().await;
        for attempt in join_all((0..10).map(|_| breaker.admit())).await {
            attempt.unwrap().failed(REASON);
        }
        tokio::time::advance(FIRST_PAUSE).await;
        breaker.admit().await.unwrap().succeeded();
    }
}
