//! A count that threads add to without waiting for one another.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// As many as there are threads that serve, give or take; those beyond it share.
const PARTS: usize = 16;

/// A sum of parts. Each thread adds to one, so that no cache line goes from one to the other with
/// every addition.
#[derive(Debug, Default)]
pub(super) struct Tally([Part; PARTS]);

/// Two cache lines, as processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part(AtomicU64);

impl Tally {
    pub(super) fn add_one(&self) {
        self.0[own_part()].0.fetch_add(1, Ordering::Relaxed);
    }

    /// What was added; of what is added meanwhile, some. Never less than before.
    pub(super) fn sum(&self) -> u64 {
        self.0.iter().map(|part| part.0.load(Ordering::Relaxed)).sum()
    }
}

/// Which part is the calling thread's.
fn own_part() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % PARTS;
    }
    // A thread that ends and has no such number any more shares the first.
    OWN.try_with(|own| *own).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_parts_lose_no_count() {
        let tally = Tally::default();
        std::thread::scope(|scope| {
            for _ in 0..=PARTS * 2 {
                scope.spawn(|| (0..100).for_each(|_| tally.add_one()));
            }
        });
        assert_eq!(tally.sum(), (PARTS as u64 * 2 + 1) * 100);
    }
}
