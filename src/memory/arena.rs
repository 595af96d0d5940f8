//! The pieces that buffers are made of.
//!
//! Small buffers share regions of 256 KiB, so that a key of 32 bytes costs 32 locked bytes and not
//! a page; `RLIMIT_MEMLOCK` is 8 MiB by default. A piece serves one of the sizes 32, 64, .. 4096
//! for ever, and a region is never given back: what a process once needed it is likely to need
//! again, and a region that goes while one key of it lives on would need compaction.

use std::alloc::{Layout, handle_alloc_error};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::pages::{Chunk, Mapping};

const SMALLEST: usize = 32;
pub(super) const LARGEST: usize = 4096;
const SIZES: usize = (LARGEST / SMALLEST).ilog2() as usize + 1;
const REGION: usize = 256 << 10;

static ARENA: Mutex<Arena> = Mutex::new(Arena { free: [const { Vec::new() }; SIZES], rest: None });
static LOCKED: AtomicUsize = AtomicUsize::new(0);
static UNLOCKED: AtomicUsize = AtomicUsize::new(0);

/// How much memory for secrets this process has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// Bytes that stay out of swap.
    pub locked: usize,
    /// Bytes that the system refused to lock: they may be written to swap. Raise `RLIMIT_MEMLOCK`
    /// (`ulimit -l`, systemd's `LimitMEMLOCK=`).
    pub unlocked: usize,
}

struct Arena {
    /// Wiped pieces by size, the smallest first.
    free: [Vec<Chunk>; SIZES],
    /// What is not cut yet of the newest region.
    rest: Option<Chunk>,
}

/// How much memory for secrets this process has now.
pub fn status() -> Status {
    let [locked, unlocked] = [&LOCKED, &UNLOCKED].map(|bytes| bytes.load(Ordering::Relaxed));
    Status { locked, unlocked }
}

/// A piece of at least `length` zero bytes; at most [`LARGEST`].
pub(super) fn take(length: usize) -> Chunk {
    let size = size_index(length);
    let mut arena = lock();
    if let Some(chunk) = arena.free[size].pop() {
        return chunk;
    }
    arena.cut(SMALLEST << size)
}

/// Gives back what [`take`] gave, wiped.
pub(super) fn give(chunk: Chunk) {
    debug_assert!(chunk.iter().all(|byte| *byte == 0));
    lock().free[size_index(chunk.len())].push(chunk);
}

/// A mapping of its own, counted in [`status`] until [`discard`].
pub(super) fn map(length: usize) -> Mapping {
    let Some(mapping) = Mapping::new(length) else {
        // As every other allocation that fails.
        let layout = Layout::array::<u8>(length).unwrap_or(Layout::new::<u8>());
        handle_alloc_error(layout)
    };
    counter(&mapping).fetch_add(mapping.len(), Ordering::Relaxed);
    mapping
}

/// Unmaps what [`map`] gave.
pub(super) fn discard(mapping: Mapping) {
    counter(&mapping).fetch_sub(mapping.len(), Ordering::Relaxed);
    drop(mapping);
}

impl Arena {
    fn cut(&mut self, size: usize) -> Chunk {
        let rest = match self.rest.take() {
            Some(rest) if rest.len() >= size => rest,
            too_small => {
                if let Some(rest) = too_small {
                    self.use_up(rest);
                }
                map(REGION).leak()
            }
        };
        let (chunk, rest) = rest.split_at(size);
        self.rest = Some(rest);
        chunk
    }

    /// Cuts the end of a region into the largest pieces that it has room for.
    fn use_up(&mut self, mut rest: Chunk) {
        while rest.len() >= SMALLEST {
            let size = (1 << rest.len().ilog2()).min(LARGEST);
            let (chunk, remaining) = rest.split_at(size);
            self.free[size_index(size)].push(chunk);
            rest = remaining;
        }
    }
}

fn lock() -> MutexGuard<'static, Arena> {
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

fn counter(mapping: &Mapping) -> &'static AtomicUsize {
    if mapping.is_locked() { &LOCKED } else { &UNLOCKED }
}

fn size_index(length: usize) -> usize {
    let size = length.max(SMALLEST).next_power_of_two();
    (size / SMALLEST).ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_the_smallest_size_that_is_enough() {
        for (length, size) in [(0, 32), (1, 32), (32, 32), (33, 64), (2049, 4096), (4096, 4096)] {
            let chunk = take(length);
            assert_eq!(chunk.len(), size, "{length}");
            give(chunk);
        }
    }

    #[test]
    fn the_end_of_a_region_is_not_wasted() {
        let mut arena = Arena { free: [const { Vec::new() }; SIZES], rest: None };
        let _chunk = arena.cut(32);
        let pieces: Vec<_> = (0..63).map(|_| arena.cut(4096)).collect();
        assert_eq!(arena.rest.as_ref().unwrap().len(), 4096 - 32);
        let _chunk = arena.cut(4096);
        let left: usize = arena.free.iter().flatten().map(|chunk| chunk.len()).sum();
        assert_eq!(left, 4096 - 32);
        drop(pieces);
    }
}
