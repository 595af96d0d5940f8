//! Attempts to unlock: five failures in a row make every further one wait, twice as long each time.
//!
//! The count is on the disk before the key derivation begins, so neither a kill nor a restart makes
//! the next attempt come sooner. It is in the clear and not authenticated, since no key is in memory
//! when it is read: whoever can write the directory can reset it, and can copy the header and guess
//! elsewhere.

use std::time::Duration;

use jiff::Timestamp;

use super::Error;
use super::codec::{Malformed, Reader, Writer};
use crate::store::DataDir;

const MAGIC: &[u8; 4] = b"MVAT";
const VERSION: u8 = 1;
/// More than the file can have.
const MAX_LENGTH: u64 = 64;
/// So many failures cost nothing.
const FREE: u32 = 5;
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// Failures since the last success.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Attempts {
    failures: u32,
    /// Unix seconds.
    last: i64,
}

impl Attempts {
    /// Reads the count. A file that makes no sense counts as none: it protects no secret.
    pub(super) fn load(directory: &DataDir) -> Result<Self, Error> {
        let bytes = directory.read(DataDir::ATTEMPTS, MAX_LENGTH)?.unwrap_or_default();
        Ok(Self::decode(&bytes).unwrap_or_default())
    }

    pub(super) fn save(self, directory: &DataDir) -> Result<(), Error> {
        Ok(directory.write_atomically(DataDir::ATTEMPTS, &self.encode())?)
    }

    /// The same, with no failure in the future: it would have to be waited for twice.
    pub(super) fn until(self, now: Timestamp) -> Self {
        Self { last: self.last.min(now.as_second()), ..self }
    }

    /// One more, unless it has to wait.
    ///
    /// # Errors
    ///
    /// [`Error::Throttled`].
    pub(super) fn another(self, now: Timestamp) -> Result<Self, Error> {
        let passed = now.as_second().saturating_sub(self.last).max(0).unsigned_abs();
        let wait = self.wait().as_secs();
        if passed < wait {
            return Err(Error::Throttled { retry_after_seconds: wait - passed });
        }
        Ok(Self { failures: self.failures.saturating_add(1), last: now.as_second() })
    }

    fn wait(self) -> Duration {
        match self.failures.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(beyond) => {
                let seconds = 1_u64.checked_shl(beyond).unwrap_or(u64::MAX);
                Duration::from_secs(seconds).min(LONGEST_WAIT)
            }
        }
    }

    fn encode(self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(MAGIC);
        writer.u8(VERSION);
        writer.u32(self.failures);
        writer.raw(&self.last.to_be_bytes());
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.array::<4>()? != *MAGIC || reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let attempts = Self { failures: reader.u32()?, last: i64::from_be_bytes(reader.array()?) };
        reader.finish()?;
        Ok(attempts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn five_failures_are_free_and_each_further_one_waits_twice_as_long() {
        let mut attempts = Attempts::default();
        for _ in 0..5 {
            attempts = attempts.another(at(1_000)).unwrap();
        }
        let mut now = 1_000;
        for wait in [1, 2, 4, 8, 16] {
            let early = attempts.another(at(now + wait - 1));
            assert!(matches!(early, Err(Error::Throttled { retry_after_seconds: 1 })), "{wait}");
            now += wait;
            attempts = attempts.another(at(now)).unwrap();
        }
        let many = Attempts { failures: u32::MAX, last: now };
        let refused = many.another(at(now));
        assert!(matches!(refused, Err(Error::Throttled { retry_after_seconds: 3_600 })));
        assert_eq!(many.another(at(now + 3_600)).unwrap().failures, u32::MAX);
    }

    #[test]
    fn a_clock_that_was_set_back_lets_nobody_wait_longer_than_the_wait() {
        let attempts = Attempts { failures: 5, last: 1_000_000 }.until(at(10));
        let refused = attempts.another(at(10));
        assert!(matches!(refused, Err(Error::Throttled { retry_after_seconds: 1 })));
        attempts.another(at(11)).unwrap();
        assert_eq!(attempts.until(at(2_000_000)), attempts);
    }

    #[test]
    fn the_count_comes_back_and_a_damaged_one_counts_as_none() {
        let attempts = Attempts { failures: 7, last: 1_795_305_600 };
        assert_eq!(Attempts::decode(&attempts.encode()), Ok(attempts));
        assert_eq!(attempts.encode(), *b"MVAT\x01\0\0\0\x07\0\0\0\0\x6b\x02\x30\x80");
        for length in 0..attempts.encode().len() {
            assert!(Attempts::decode(&attempts.encode()[..length]).is_err(), "{length}");
        }
    }
}
