//! A buffer for a secret.

use std::fmt;
use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

use super::arena;
use super::pages::{Chunk, Mapping};

/// Bytes in locked memory, wiped when dropped. The length is fixed at the beginning, so that no
/// growth leaves a copy behind. `Debug` shows the length only.
///
/// Costs a lock and a list operation; above 4096 bytes, a mapping of its own (two system calls or
/// more, and at least three pages of address space). Aborts when there is no memory, as `Vec` does.
pub struct LockedBytes {
    home: Home,
    length: usize,
}

enum Home {
    Shared(Chunk),
    Own(Mapping),
}

impl LockedBytes {
    /// `length` zero bytes.
    pub fn zeroed(length: usize) -> Self {
        let home = if length <= arena::LARGEST {
            Home::Shared(arena::take(length))
        } else {
            Home::Own(arena::map(length))
        };
        Self { home, length }
    }

    /// A copy of `bytes`. The original is the caller's to wipe.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::zeroed(bytes.len());
        copy.copy_from_slice(bytes);
        copy
    }

    /// Wipes all but the first `length` bytes and forgets them. Does nothing if there are fewer.
    pub fn truncate(&mut self, length: usize) {
        if let Some(rest) = self.get_mut(length..) {
            rest.zeroize();
            self.length = length;
        }
    }
}

impl Deref for LockedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.home {
            Home::Shared(chunk) => &chunk[..self.length],
            Home::Own(mapping) => &mapping[..self.length],
        }
    }
}

impl DerefMut for LockedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.home {
            Home::Shared(chunk) => &mut chunk[..self.length],
            Home::Own(mapping) => &mut mapping[..self.length],
        }
    }
}

impl AsRef<[u8]> for LockedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Zeroize for LockedBytes {
    fn zeroize(&mut self) {
        (**self).zeroize();
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        self.zeroize();
        match std::mem::replace(&mut self.home, Home::Shared(Chunk::empty())) {
            Home::Shared(chunk) => arena::give(chunk),
            Home::Own(mapping) => arena::discard(mapping),
        }
    }
}

impl fmt::Debug for LockedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockedBytes({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were_put_in_at_every_size() {
        for length in [0, 1, 31, 32, 33, 4095, 4096, 4097, 1 << 20] {
            let content: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut bytes = LockedBytes::copy_of(&content);
            assert_eq!(*bytes, content);
            bytes.zeroize();
            assert_eq!(*bytes, vec![0; length]);
        }
    }

    #[test]
    fn new_bytes_are_zero_whoever_had_them_before() {
        for length in [7, 100, 4096, 5000] {
            drop(LockedBytes::copy_of(&vec![0xaa; length]));
            // Whichever piece it gets, among them the one that was given back.
            assert!(LockedBytes::zeroed(length).iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn what_is_cut_off_is_wiped_and_a_cut_beyond_the_end_is_none() {
        let mut bytes = LockedBytes::copy_of(b"secret and more");
        bytes.truncate(15);
        bytes.truncate(16);
        assert_eq!(*bytes, *b"secret and more");
        bytes.truncate(6);
        assert_eq!(*bytes, *b"secret");
        let Home::Shared(chunk) = &bytes.home else { panic!("it is small") };
        assert!(chunk[6..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn debug_shows_nothing_of_the_content() {
        assert_eq!(format!("{:?}", LockedBytes::copy_of(b"secret")), "LockedBytes(6 bytes)");
    }

    #[test]
    fn ten_thousand_keys_need_less_than_a_mebibyte() {
        let before = super::super::status();
        let keys: Vec<LockedBytes> = (0..10_000).map(|_| LockedBytes::zeroed(32)).collect();
        let after = super::super::status();
        // Other tests take regions at the same time, but no more than a few.
        let grown = after.locked + after.unlocked - before.locked - before.unlocked;
        assert!(grown <= 4 << 20, "{grown}");
        let mut starts: Vec<_> = keys.iter().map(|key| key.as_ptr() as usize).collect();
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= 32));
    }

    #[test]
    fn locked_bytes_move_between_threads() {
        let mut bytes = LockedBytes::copy_of(b"there");
        let moved = std::thread::spawn(move || {
            bytes[0] = b'T';
            bytes
        });
        assert_eq!(*moved.join().unwrap(), *b"There");
    }
}
