//! Who of the statements that take long computes now.
//!
//! ```text
//! looks of long statements --ask--> Queue: waiting --first come--> computing, for a turn
//!                                            ^---- others wait ------/
//! ```
//!
//! One processor fewer than there are computes them, whosever they are; so there is one for calls
//! that are short, however many sessions compute. Who does not look for several turns, as a step of
//! the engine's takes long, keeps the others waiting no longer.

use std::collections::VecDeque;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread, ThreadId};
use std::time::Duration;

use tokio::time::Instant;

/// How long one computes while others wait.
const TURN: Duration = Duration::from_millis(5);
/// How long after its beginning a turn is over by itself.
const OVERDUE: Duration = Duration::from_millis(20);
/// How often who waits looks whether it should stop, or somebody is overdue.
const POLL: Duration = Duration::from_millis(20);

/// Those of the process.
pub(super) static TURNS: LazyLock<Turns> = LazyLock::new(|| {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    Turns::new(processors.saturating_sub(1).max(1))
});

/// Turns of threads at the processors.
pub(super) struct Turns(Mutex<Queue>);

impl Turns {
    const fn new(places: usize) -> Self {
        Self(Mutex::new(Queue { places, computing: Vec::new(), waiting: VecDeque::new() }))
    }

    /// Goes on with the turn of this thread, or waits for one. Whether it has one: not when it
    /// `should_stop`.
    ///
    /// While the turn lasts this costs a lock that is mostly free.
    pub(super) fn take(&self, should_stop: impl Fn() -> bool) -> bool {
        let me = thread::current();
        while !should_stop() {
            let mut queue = self.queue();
            let is_mine = queue.ask(&me, Instant::now());
            queue.wake();
            drop(queue);
            if is_mine {
                return true;
            }
            thread::park_timeout(POLL);
        }
        self.end();
        false
    }

    /// Ends the turn of this thread, or its waiting for one.
    pub(super) fn end(&self) {
        let mut queue = self.queue();
        queue.leave(thread::current().id());
        queue.wake();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Whole after any panic: nothing here panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Queue {
    places: usize,
    /// Since when.
    computing: Vec<(ThreadId, Instant)>,
    waiting: VecDeque<Thread>,
}

impl Queue {
    /// Whether it is the turn of `thread`, which waits otherwise.
    fn ask(&mut self, thread: &Thread, now: Instant) -> bool {
        let id = thread.id();
        if let Some((_, since)) = self.computing.iter_mut().find(|(other, _)| *other == id) {
            if now.duration_since(*since) < TURN {
                return true;
            }
            if self.waiting.is_empty() {
                *since = now;
                return true;
            }
            self.computing.retain(|(other, _)| *other != id);
        }
        self.computing.retain(|(_, since)| now.duration_since(*since) < OVERDUE);
        let place = self.waiting.iter().position(|other| other.id() == id).unwrap_or_else(|| {
            self.waiting.push_back(thread.clone());
            self.waiting.len() - 1
        });
        let has_turn = place < self.free();
        if has_turn {
            self.waiting.remove(place);
            self.computing.push((id, now));
        }
        has_turn
    }

    fn leave(&mut self, id: ThreadId) {
        self.computing.retain(|(other, _)| *other != id);
        self.waiting.retain(|other| other.id() != id);
    }

    /// Has those ask whose turn it is.
    fn wake(&self) {
        self.waiting.iter().take(self.free()).for_each(Thread::unpark);
    }

    const fn free(&self) -> usize {
        self.places.saturating_sub(self.computing.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    /// Threads that have ended, as names for who asks.
    fn threads<const COUNT: usize>() -> [Thread; COUNT] {
        std::array::from_fn(|_| thread::spawn(|| {}).thread().clone())
    }

    fn queue(places: usize) -> Queue {
        Turns::new(places).0.into_inner().unwrap()
    }

    #[test]
    fn they_compute_in_turns_in_the_order_of_asking() {
        let [one, two, three] = threads();
        let (mut queue, begin) = (queue(1), Instant::now());
        assert!(queue.ask(&one, begin));
        assert!(!queue.ask(&two, begin));
        assert!(!queue.ask(&three, begin));
        assert!(queue.ask(&one, begin + TURN - MOMENT));
        assert!(!queue.ask(&one, begin + TURN));
        assert!(!queue.ask(&three, begin + TURN));
        assert!(queue.ask(&two, begin + TURN));
        assert!(!queue.ask(&two, begin + TURN * 2));
        assert!(!queue.ask(&one, begin + TURN * 2));
        assert!(queue.ask(&three, begin + TURN * 2));
    }

    #[test]
    fn who_is_alone_computes_on() {
        let [one, two] = threads();
        let (mut queue, begin) = (queue(1), Instant::now());
        for turn in 0..100 {
            assert!(queue.ask(&one, begin + TURN * turn));
        }
        // Its turn is a new one each time, and not overdue.
        assert!(!queue.ask(&two, begin + TURN * 99));
    }

    #[test]
    fn as_many_compute_as_there_are_places() {
        let [one, two, three] = threads();
        let (mut queue, begin) = (queue(2), Instant::now());
        assert!(queue.ask(&one, begin));
        assert!(queue.ask(&two, begin));
        assert!(!queue.ask(&three, begin));
        queue.leave(one.id());
        assert!(queue.ask(&three, begin));
        assert!(!queue.ask(&one, begin));
    }

    #[test]
    fn who_leaves_keeps_nobody_waiting() {
        let [one, two, three] = threads();
        let (mut queue, begin) = (queue(1), Instant::now());
        assert!(queue.ask(&one, begin));
        assert!(!queue.ask(&two, begin));
        assert!(!queue.ask(&three, begin));
        queue.leave(two.id());
        queue.leave(one.id());
        assert!(queue.ask(&three, begin));
    }

    #[test]
    fn who_does_not_look_for_long_keeps_nobody_waiting() {
        let [one, two] = threads();
        let (mut queue, begin) = (queue(1), Instant::now());
        assert!(queue.ask(&one, begin));
        assert!(!queue.ask(&two, begin + OVERDUE - MOMENT));
        assert!(queue.ask(&two, begin + OVERDUE));
        assert!(!queue.ask(&one, begin + OVERDUE));
    }

    #[test]
    fn who_has_to_stop_waits_no_longer_and_others_do_not_wait_for_it() {
        let turns = Turns::new(1);
        assert!(turns.take(|| false));
        let looks = AtomicUsize::new(0);
        let has_turn = thread::scope(|scope| {
            let waits = || turns.take(|| looks.fetch_add(1, Ordering::Relaxed) > 0);
            scope.spawn(waits).join().unwrap()
        });
        assert!(!has_turn);
        let queue = turns.queue();
        assert_eq!((queue.computing.len(), queue.waiting.len()), (1, 0));
        drop(queue);
        assert!(!turns.take(|| true));
        assert!(turns.queue().computing.is_empty());
    }

    #[test]
    fn every_thread_comes_to_its_turns() {
        let turns = Turns::new(2);
        let taken = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        assert!(turns.take(|| false));
                        taken.fetch_add(1, Ordering::Relaxed);
                        turns.end();
                    }
                });
            }
        });
        assert_eq!(taken.load(Ordering::Relaxed), 1_200);
        let queue = turns.queue();
        assert_eq!((queue.computing.len(), queue.waiting.len()), (0, 0));
    }

    proptest! {
        /// Whoever asks, leaves, or does not look, and when.
        #[test]
        fn never_do_more_compute_than_there_are_places(
            places in 1_usize..4,
            steps in proptest::collection::vec((0_usize..6, 0_u64..8, any::<bool>()), 1..200),
        ) {
            let who: [Thread; 6] = threads();
            let (mut queue, mut now) = (queue(places), Instant::now());
            for (who_asks, milliseconds, leaves) in steps {
                now += Duration::from_millis(milliseconds);
                let thread = &who[who_asks];
                if leaves {
                    queue.leave(thread.id());
                } else {
                    let first = queue.waiting.front().map(Thread::id);
                    let id = thread.id();
                    let computes = |queue: &Queue| queue.computing.iter().any(|it| it.0 == id);
                    let had = computes(&queue);
                    let has = queue.ask(thread, now);
                    // One place and somebody before: it is not overtaken.
                    let was_first = first.is_none_or(|first| first == id);
                    prop_assert!(had || !has || places > 1 || was_first);
                    prop_assert_eq!(has, computes(&queue));
                    prop_assert_eq!(!has, queue.waiting.iter().any(|other| other.id() == id));
                }
                prop_assert!(queue.computing.len() <= places);
                let in_both = queue.waiting.iter().any(|waiting| {
                    queue.computing.iter().any(|(id, _)| *id == waiting.id())
                });
                prop_assert!(!in_both);
            }
        }
    }
}
