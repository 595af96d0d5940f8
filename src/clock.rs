//! Time as a seam, so that tests move time instead of sleeping.
//!
//! What is stored or shown has wall-clock time: record and audit times, token expiry. How long a
//! secret stays in memory, and what a quota's window has seen, is counted since boot: nobody sets
//! that clock, and it goes on while the machine is suspended. Timers (idle sessions, timeouts) use
//! `tokio::time`, which tests pause and advance.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// Tells the time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The present moment, UTC.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment. Never goes back, and counts suspension.
    fn boot(&self) -> Duration;

    /// Which boot of the machine [`Clock::boot`] counts from: with the same one, two of its times
    /// can be compared, also those of two processes. Nothing when the system does not say.
    fn boot_id(&self) -> Option<[u8; 16]>;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn boot(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Neither is negative, and nanoseconds are below a second.
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
    }

    fn boot_id(&self) -> Option<[u8; 16]> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits = text.trim().replace('-', "");
        let id = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
        Some(id.to_be_bytes())
    }
}

/// A clock that stands until it is moved.
#[derive(Debug)]
pub struct ManualClock(Mutex<(Timestamp, Duration, u128)>);

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self(Mutex::new((start, Duration::ZERO, 1)))
    }

    /// Sets what stands on the wall, and nothing else.
    pub fn set(&self, now: Timestamp) {
        self.lock().0 = now;
    }

    /// Boots the machine: its other time begins anew.
    pub fn reboot(&self) {
        let mut times = self.lock();
        times.1 = Duration::ZERO;
        times.2 += 1;
    }

    /// Moves both times forward by `step`, up to the end of representable time.
    pub fn advance(&self, step: Duration) {
        let mut times = self.lock();
        times.0 = times.0.saturating_add(step).unwrap_or(Timestamp::MAX);
        times.1 = times.1.saturating_add(step);
    }

    fn lock(&self) -> MutexGuard<'_, (Timestamp, Duration, u128)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().0
    }

    fn boot(&self) -> Duration {
        self.lock().1
    }

    fn boot_id(&self) -> Option<[u8; 16]> {
        Some(self.lock().2.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_clock_moves_both_times_by_the_same_step() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let (now, boot) = (clock.now(), clock.boot());
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now().duration_since(now).as_secs(), 5);
        assert_eq!(clock.boot(), boot + Duration::from_secs(5));
    }

    #[test]
    fn a_boot_has_one_name() {
        assert_eq!(SystemClock.boot_id(), SystemClock.boot_id());
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let first = clock.boot_id();
        clock.reboot();
        assert_ne!(clock.boot_id(), first);
    }

    #[test]
    fn the_time_since_boot_does_not_go_back() {
        let earlier = SystemClock.boot();
        assert!(earlier > Duration::ZERO);
        assert!(SystemClock.boot() >= earlier);
    }
}
