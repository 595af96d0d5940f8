//! Ends a process whose commit hangs.
//!
//! A disk that answers nothing, or an engine whose own thread has died, would leave every writer
//! waiting for good. What was acknowledged is on the disk, so ending the process loses nothing; the
//! next opening makes good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::super::Error;

/// How long a commit may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The slowest disk that larger commits are allowed for, bytes per second.
const RATE: u64 = 1_000_000;
const PERIOD: Duration = Duration::from_secs(5);

/// Looks at the committer from time to time, until it is dropped.
pub(super) struct Watchdog {
    deadline: Arc<Deadline>,
    /// Dropping it ends the thread.
    _alive: Sender<()>,
}

/// When what is under way has to be done, in milliseconds since `start`; 0 when nothing is.
struct Deadline {
    start: Instant,
    at: AtomicU64,
}

impl Watchdog {
    pub(super) fn start() -> Result<Self, Error> {
        let deadline = Arc::new(Deadline::new());
        let (alive, ended) = mpsc::channel();
        let watched = Arc::clone(&deadline);
        thread::Builder::new()
            .name("store-watchdog".to_owned())
            .spawn(move || {
                while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                    if watched.is_over(watched.start.elapsed()) {
                        tracing::error!("a commit hangs, so the process ends; nothing is lost");
                        // The log has a thread of its own, which gets a moment.
                        let _elapsed = ended.recv_timeout(PERIOD);
                        std::process::abort();
                    }
                }
            })
            .map_err(Error::io("start the store's watchdog"))?;
        Ok(Self { deadline, _alive: alive })
    }

    /// A commit of `bytes` begins.
    pub(super) fn begin(&self, bytes: u64) {
        self.deadline.set(self.deadline.start.elapsed(), bytes);
    }

    /// It has ended.
    pub(super) fn end(&self) {
        self.deadline.at.store(0, Ordering::Relaxed);
    }
}

impl Deadline {
    #[expect(clippy::disallowed_methods, reason = "a disk that hangs does so in real time")]
    fn new() -> Self {
        Self { start: Instant::now(), at: AtomicU64::new(0) }
    }

    fn set(&self, now: Duration, bytes: u64) {
        let limit = LIMIT + Duration::from_secs(bytes / RATE);
        let at = u64::try_from((now + limit).as_millis()).unwrap_or(u64::MAX);
        self.at.store(at, Ordering::Relaxed);
    }

    fn is_over(&self, now: Duration) -> bool {
        match self.at.load(Ordering::Relaxed) {
            0 => false,
            at => now.as_millis() > u128::from(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_over_its_time_only_after_the_limit_for_its_size() {
        let deadline = Deadline::new();
        let second = Duration::from_secs;
        assert!(!deadline.is_over(second(1_000_000)));
        deadline.set(second(100), 0);
        assert!(!deadline.is_over(second(130)));
        assert!(deadline.is_over(second(131)));
        deadline.set(second(100), 20_000_000);
        assert!(!deadline.is_over(second(150)));
        assert!(deadline.is_over(second(151)));
    }
}
