//! Who of the statements that take long computes now.
//!
//! ```text
//! looks of long statements --ask--> Queue: waiting --its turn--> computing, for a turn
//!                                             ^--- others wait ---/
//! ```
//!
//! One processor fewer than there are computes them, whosever they are; so there is one for calls
//! that are short, however many sessions compute. Next is the database whose statements have computed
//! least, turns under way included: neither many sessions nor steps that outlast a turn get it more.
//! Who does not look for several turns, as a step of the engine's takes long, keeps the others waiting
//! no longer.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
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
    fn new(places: usize) -> Self {
        let (long, computed) = (HashMap::new(), HashMap::new());
        Self(Mutex::new(Queue { places, long, computed, asked: 0 }))
    }

    /// Goes on with the turn of this thread, or waits for one, with a statement of `database`. Whether
    /// it has one: not when it `should_stop`.
    ///
    /// While the turn lasts this costs a lock that is mostly free.
    pub(super) fn take(&self, database: &Arc<str>, should_stop: impl Fn() -> bool) -> bool {
        let me = thread::current();
        while !should_stop() {
            let mut queue = self.queue();
            let now = Instant::now();
            let is_mine = queue.ask(database, &me, now);
            queue.wake(now);
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
        let (mut queue, now) = (self.queue(), Instant::now());
        queue.leave(thread::current().id(), now);
        queue.wake(now);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Whole after any panic: nothing here panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Queue {
    places: usize,
    /// The statements that take long.
    long: HashMap<ThreadId, Long>,
    /// How long those of a database have computed; what a newcomer begins with is the least.
    computed: HashMap<Arc<str>, Duration>,
    /// Numbers those that wait.
    asked: u64,
}

struct Long {
    thread: Thread,
    database: Arc<str>,
    /// Since when its turn is, or its place among those that wait.
    turn: Result<Instant, u64>,
    /// Until when its turn is in what its database has computed.
    counted: Instant,
}

impl Queue {
    /// Whether it is the turn of `thread`, which waits otherwise.
    fn ask(&mut self, database: &Arc<str>, thread: &Thread, now: Instant) -> bool {
        self.count(now);
        let id = thread.id();
        match self.long.get(&id).map(|long| long.turn) {
            Some(Ok(since)) if now.duration_since(since) < TURN => return true,
            Some(Err(_)) => {}
            None | Some(Ok(_)) => {
                self.asked += 1;
                let turn = Err(self.asked);
                let (thread, database) = (thread.clone(), Arc::clone(database));
                self.long.insert(id, Long { thread, database, turn, counted: now });
            }
        }
        let least = self.computed.values().min().copied().unwrap_or_default();
        self.computed.entry(Arc::clone(database)).or_insert(least);
        let is_next = self.free(now) > 0 && self.next().is_some_and(|next| next.thread.id() == id);
        if is_next && let Some(long) = self.long.get_mut(&id) {
            (long.turn, long.counted) = (Ok(now), now);
        }
        is_next
    }

    fn leave(&mut self, id: ThreadId, now: Instant) {
        self.count(now);
        let Some(long) = self.long.remove(&id) else { return };
        if self.long.values().all(|other| other.database != long.database) {
            self.computed.remove(&long.database);
        }
    }

    /// Counts the turns under way until `now`: who does not look saves none up.
    fn count(&mut self, now: Instant) {
        for long in self.long.values_mut().filter(|long| long.turn.is_ok()) {
            let computed = self.computed.entry(Arc::clone(&long.database)).or_default();
            *computed += now.duration_since(long.counted);
            long.counted = now;
        }
    }

    /// Has who is next ask, if there is a place: with its turn it does the same.
    fn wake(&self, now: Instant) {
        if self.free(now) > 0
            && let Some(next) = self.next()
        {
            next.thread.unpark();
        }
    }

    /// Who waits, and is to have the next turn.
    fn next(&self) -> Option<&Long> {
        let waiting = self.long.values().filter_map(|long| Some((long, long.turn.err()?)));
        let next = waiting.min_by_key(|(long, place)| (self.computed.get(&long.database), *place));
        next.map(|(long, _)| long)
    }

    fn free(&self, now: Instant) -> usize {
        let is_counted = |since| now.duration_since(since) < OVERDUE;
        let computing = self.long.values().filter(|long| long.turn.is_ok_and(is_counted)).count();
        self.places.saturating_sub(computing)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    /// Threads that have ended, as names for who asks.
    fn threads<const COUNT: usize>() -> [Thread; COUNT] {
        std::array::from_fn(|_| thread::spawn(|| {}).thread().clone())
    }

    fn database(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    fn queue(places: usize) -> Queue {
        Turns::new(places).0.into_inner().unwrap()
    }

    #[test]
    fn they_compute_in_turns_in_the_order_of_asking() {
        let [one, two, three] = threads();
        let (mut queue, begin) = (queue(1), Instant::now());
        let ours = database("ours");
        assert!(queue.ask(&ours, &one, begin));
        assert!(!queue.ask(&ours, &two, begin));
        assert!(!queue.ask(&ours, &three, begin));
        assert!(queue.ask(&ours, &one, begin + TURN - MOMENT));
        assert!(!queue.ask(&ours, &one, begin + TURN));
        assert!(!queue.ask(&ours, &three, begin + TURN));
        assert!(queue.ask(&ours, &two, begin + TURN));
        assert!(!queue.ask(&ours, &two, begin + TURN * 2));
        assert!(!queue.ask(&ours, &one, begin + TURN * 2));
        assert!(queue.ask(&ours, &three, begin + TURN * 2));
    }

    #[test]
    fn who_is_alone_computes_on() {
        let [one, two] = threads();
        let (mut queue, begin) = (queue(1), Instant::now());
        let ours = database("ours");
        for turn in 0..100 {
            assert!(queue.ask(&ours, &one, begin + TURN * turn));
        }
        // Its turn is a new one each time, and not overdue.
        assert!(!queue.ask(&ours, &two, begin + TURN * 99));
    }

    #[test]
    fn as_many_compute_as_there_are_places() {
        let [one, two, three] = threads();
        let (mut queue, begin) = (queue(2), Instant::now());
        let ours = database("ours");
        assert!(queue.ask(&ours, &one, begin));
        assert!(queue.ask(&ours, &two, begin));
        assert!(!queue.ask(&ours, &three, begin));
        queue.leave(one.id(), begin);
        assert!(queue.ask(&ours, &three, begin));
        assert!(!queue.ask(&ours, &one, begin));
    }

    #[test]
    fn who_leaves_keeps_nobody_waiting() {
        let [one, two, three] = threads();
        let (mut queue, begin) = (queue(1), Instant::now());
        let ours = database("ours");
        assert!(queue.ask(&ours, &one, begin));
        assert!(!queue.ask(&ours, &two, begin));
        assert!(!queue.ask(&ours, &three, begin));
        queue.leave(two.id(), begin);
        queue.leave(one.id(), begin);
        assert!(queue.ask(&ours, &three, begin));
    }

    #[test]
    fn who_does_not_look_for_long_keeps_nobody_waiting() {
        let [one, two] = threads();
        let (mut queue, begin) = (queue(1), Instant::now());
        let ours = database("ours");
        assert!(queue.ask(&ours, &one, begin));
        assert!(!queue.ask(&ours, &two, begin + OVERDUE - MOMENT));
        assert!(queue.ask(&ours, &two, begin + OVERDUE));
        assert!(!queue.ask(&ours, &one, begin + OVERDUE));
    }

    #[test]
    fn who_has_to_stop_waits_no_longer_and_others_do_not_wait_for_it() {
        let turns = Turns::new(1);
        assert!(turns.take(&database("ours"), || false));
        let looks = AtomicUsize::new(0);
        let has_turn = thread::scope(|scope| {
            let waits =
                || turns.take(&database("ours"), || looks.fetch_add(1, Ordering::Relaxed) > 0);
            scope.spawn(waits).join().unwrap()
        });
        assert!(!has_turn);
        let queue = turns.queue();
        assert_eq!(queue.long.len(), 1);
        drop(queue);
        assert!(!turns.take(&database("ours"), || true));
        let queue = turns.queue();
        assert_eq!((queue.long.len(), queue.computed.len()), (0, 0));
    }

    #[test]
    fn every_thread_comes_to_its_turns() {
        let turns = Turns::new(2);
        let taken = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        assert!(turns.take(&database("ours"), || false));
                        taken.fetch_add(1, Ordering::Relaxed);
                        turns.end();
                    }
                });
            }
        });
        assert_eq!(taken.load(Ordering::Relaxed), 1_200);
        let queue = turns.queue();
        assert_eq!((queue.long.len(), queue.computed.len()), (0, 0));
    }

    #[test]
    fn whose_steps_outlast_turns_waits_until_another_database_has_computed_as_long() {
        let [one, two, three] = threads();
        let (mut queue, mut now) = (queue(1), Instant::now());
        let (ours, theirs) = (database("ours"), database("theirs"));
        assert!(queue.ask(&theirs, &one, now));
        assert!(!queue.ask(&theirs, &two, now));
        assert!(!queue.ask(&ours, &three, now));
        // One step of ten turns.
        now += TURN * 10;
        assert!(!queue.ask(&theirs, &one, now));
        for _ in 0..10 {
            assert!(!queue.ask(&theirs, &two, now));
            assert!(queue.ask(&ours, &three, now));
            now += TURN;
        }
        assert!(!queue.ask(&ours, &three, now));
        assert!(queue.ask(&theirs, &two, now));
    }

    #[test]
    fn who_computes_beside_a_step_that_outlasts_turns_does_not_wait_for_it_afterwards() {
        let [one, two, three, four] = threads();
        let (mut queue, mut now) = (queue(1), Instant::now());
        let [ours, theirs, newcomers] = ["ours", "theirs", "newcomers"].map(database);
        assert!(queue.ask(&theirs, &one, now));
        // A step that goes on to the end of the test, and makes room for us when it is overdue.
        now += OVERDUE;
        for _ in 0..1_000 {
            assert!(queue.ask(&ours, &three, now));
            now += TURN;
        }
        // They have computed as long as we have, and who comes begins with what we have.
        assert!(!queue.ask(&theirs, &two, now));
        assert!(!queue.ask(&newcomers, &four, now));
        assert!(!queue.ask(&ours, &three, now));
        let mut our_turns = 0;
        for _ in 0..300 {
            let turns = [
                queue.ask(&theirs, &two, now),
                queue.ask(&newcomers, &four, now),
                queue.ask(&ours, &three, now),
            ];
            our_turns += u32::from(turns[2]);
            now += TURN;
        }
        assert!(our_turns >= 100, "{our_turns}");
    }

    #[test]
    fn a_database_with_many_sessions_has_no_more_turns_than_one_with_one() {
        let [one, two, three, four] = threads();
        let (mut queue, mut now) = (queue(1), Instant::now());
        let (ours, theirs) = (database("ours"), database("theirs"));
        let mut our_turns = 0;
        for _ in 0..100 {
            let turns = [
                queue.ask(&theirs, &one, now),
                queue.ask(&theirs, &two, now),
                queue.ask(&theirs, &three, now),
                queue.ask(&ours, &four, now),
            ];
            our_turns += u32::from(turns[3]);
            now += TURN;
        }
        assert!((30..=60).contains(&our_turns), "{our_turns}");
    }

    #[test]
    fn who_comes_later_has_no_turns_saved_up() {
        let [one, two] = threads();
        let (mut queue, begin) = (queue(1), Instant::now());
        let (ours, theirs) = (database("ours"), database("theirs"));
        assert!(queue.ask(&theirs, &one, begin));
        for turn in 1..100 {
            assert!(queue.ask(&theirs, &one, begin + TURN * turn));
        }
        let now = begin + TURN * 100;
        assert!(!queue.ask(&ours, &two, now));
        assert!(!queue.ask(&theirs, &one, now));
        assert!(queue.ask(&ours, &two, now));
        assert!(!queue.ask(&ours, &two, now + TURN * 2));
        assert!(queue.ask(&theirs, &one, now + TURN * 2));
    }

    proptest! {
        /// Whoever asks, leaves, or does not look, and when.
        #[test]
        fn never_do_more_compute_than_there_are_places(
            places in 1_usize..4,
            steps in proptest::collection::vec((0_usize..6, 0_u64..8, any::<bool>()), 1..200),
        ) {
            let who: [Thread; 6] = threads();
            let databases = [database("ours"), database("theirs")];
            let (mut queue, mut now) = (queue(places), Instant::now());
            for (who_asks, milliseconds, leaves) in steps {
                now += Duration::from_millis(milliseconds);
                let thread = &who[who_asks];
                if leaves {
                    queue.leave(thread.id(), now);
                } else {
                    let has = queue.ask(&databases[who_asks % 2], thread, now);
                    prop_assert_eq!(has, queue.long[&thread.id()].turn.is_ok());
                }
                let counted = |since: Instant| now.duration_since(since) < OVERDUE;
                let computing = queue.long.values().filter(|it| it.turn.is_ok_and(counted));
                prop_assert!(computing.count() <= places);
                let databases = queue.long.values().map(|it| &it.database).collect::<HashSet<_>>();
                prop_assert_eq!(databases, queue.computed.keys().collect::<HashSet<_>>());
            }
        }
    }
}
