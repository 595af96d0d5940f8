//! Whose time is over, without a look at anybody else.

use std::collections::VecDeque;
use std::time::Duration;

/// Keys in the order in which they were put here, each with the time of that, since boot. To look for
/// what is due costs a comparison, and one more for each that is.
pub(super) struct Expiry<K>(VecDeque<(Duration, K)>);

impl<K> Expiry<K> {
    pub(super) fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Puts `key` here, of which there are `live` that still count; `is_live` says which.
    pub(super) fn push(
        &mut self,
        since: Duration,
        key: K,
        live: usize,
        is_live: impl Fn(&K, Duration) -> bool,
    ) {
        // What was removed or replaced before its time stays until then, or until it is the most.
        if self.0.len() > 2 * live + SPARE {
            self.0.retain(|(since, key)| is_live(key, *since));
        }
        self.0.push_back((since, key));
    }

    /// Since when the first of them is here.
    pub(super) fn first(&self) -> Option<Duration> {
        self.0.front().map(|(since, _)| *since)
    }

    /// Takes the first one out, if it is due.
    pub(super) fn take_due(&mut self, is_due: impl Fn(Duration) -> bool) -> Option<(Duration, K)> {
        if is_due(self.first()?) { self.0.pop_front() } else { None }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// So few are not worth looking through.
const SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_due_comes_in_order_and_nothing_else() {
        let mut expiry = Expiry::new();
        for second in 0..10 {
            expiry.push(SECOND * second, second, 10, |_, _| true);
        }
        let is_due = |since| since < SECOND * 3;
        let due: Vec<_> = std::iter::from_fn(|| expiry.take_due(is_due)).collect();
        assert_eq!(due, [(Duration::ZERO, 0), (SECOND, 1), (SECOND * 2, 2)]);
        assert_eq!(expiry.first(), Some(SECOND * 3));
    }

    #[test]
    fn what_was_removed_before_its_time_takes_no_room_for_good() {
        let mut expiry = Expiry::new();
        for second in 0..1_000 {
            // One key, put here anew every second.
            expiry.push(SECOND * second, 7, 1, |_, since| since + SECOND == SECOND * second);
            assert!(expiry.0.len() <= SPARE + 3);
        }
        let last = SECOND * 999;
        while expiry.take_due(|since| since < last).is_some() {}
        assert_eq!(expiry.take_due(|_| true), Some((last, 7)));
    }
}
