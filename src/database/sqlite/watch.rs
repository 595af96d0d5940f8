//! What stops a statement, and what the engine's errors mean.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::ErrorCode;
use tokio::time::Instant;

use super::file;
use super::turns::TURNS;
use crate::database::{Error, Refusal, Unavailable};

/// Statements that take longer leave the processors to others first, and take turns.
const SHORT: Duration = Duration::from_millis(5);
/// The same in a session that had one that took long.
const SHORT_AFTER_LONG: Duration = Duration::from_millis(1);
/// How long they compute, as long as the engine's steps are short, before they yield.
const BETWEEN_YIELDS: Duration = Duration::from_micros(50);
/// By how much, of 19.
const NICE: i32 = 10;
/// A value of so many bytes takes long to make or to read.
pub(super) const LARGE: usize = 16 << 10;
/// What is told to who waited in vain for another to write.
const BUSY: &str = "the database is being written; try again";

thread_local! {
    /// Whether the priority of this thread is lowered.
    static IS_LOW: Cell<bool> = const { Cell::new(false) };
}

/// When a statement has to stop.
#[derive(Clone)]
pub(super) struct Watch {
    deadline: Option<Instant>,
    cancelled: Arc<AtomicBool>,
}

impl Watch {
    pub(super) fn new(timeout: Duration, cancelled: Arc<AtomicBool>) -> Self {
        Self { deadline: Instant::now().checked_add(timeout), cancelled }
    }

    /// What the engine asks between its steps for `database`: whether to stop. Who takes long yields
    /// to others, and waits for its turn.
    pub(super) fn look(self, database: Arc<str>) -> impl FnMut() -> bool + Send {
        let began = Instant::now();
        let mut yielded = began;
        move || {
            let now = Instant::now();
            let short = if IS_LOW.get() { SHORT_AFTER_LONG } else { SHORT };
            if now.duration_since(began) <= short || now.duration_since(yielded) < BETWEEN_YIELDS {
                return self.should_stop_at(now);
            }
            yielded = now;
            if IS_LOW.get() {
                std::thread::yield_now();
            } else {
                lower_priority();
            }
            !TURNS.take(&database, || self.should_stop())
        }
    }

    pub(super) fn should_stop(&self) -> bool {
        self.should_stop_at(Instant::now())
    }

    fn should_stop_at(&self, now: Instant) -> bool {
        self.is_cancelled() || self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Ends the time in which the statement could be cancelled; whoever tries to cancel it from now
    /// on learns that it is too late.
    ///
    /// # Errors
    ///
    /// When it was cancelled, or took too long.
    pub(super) fn decide(&self) -> Result<(), Error> {
        let has_ended = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if has_ended && !self.is_cancelled() {
            return Err(Error::Timeout);
        }
        if self.cancelled.swap(true, Ordering::AcqRel) { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn stopped(&self) -> Error {
        if self.is_cancelled() { Error::Cancelled } else { Error::Timeout }
    }

    /// What an error of the engine means, in words of our own where its text could quote data.
    pub(super) fn failure(&self, error: &rusqlite::Error) -> Error {
        let message = match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => return self.stopped(),
            Some(ErrorCode::TooBig) => return Error::TooLarge,
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::PermissionDenied
                | ErrorCode::SystemIoFailure,
            ) => return Unavailable::NotADatabase.into(),
            Some(ErrorCode::AuthorizationForStatementDenied) => return not_authorized(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => BUSY,
            Some(ErrorCode::ReadOnly) if file::is_in_use(error) => BUSY,
            Some(ErrorCode::OutOfMemory) => "the statement needs too much memory",
            Some(ErrorCode::ReadOnly) => "the database is open for reading only",
            Some(ErrorCode::TypeMismatch) => "a value has the wrong type",
            _ if text_of(error).starts_with("not authorized") => return not_authorized(),
            _ => {
                return Error::Failed { sqlstate: None, message: own_words(error), position: None };
            }
        };
        Error::Failed { sqlstate: None, message: message.to_owned(), position: None }
    }
}

/// The engine's message where it is one of those that name only what the caller's own statement
/// does; a general one otherwise.
fn own_words(error: &rusqlite::Error) -> String {
    let text = text_of(error);
    let known = [
        "no such column: ",
        "no such function: ",
        "no such table: ",
        "ambiguous column name: ",
        "wrong number of arguments to function ",
        "misuse of aggregate",
        "misuse of window function",
        "near ",
    ];
    if known.iter().any(|start| text.starts_with(start)) {
        text.chars().filter(|character| !character.is_control()).take(200).collect()
    } else {
        "the database could not run the statement".to_owned()
    }
}

pub(super) fn text_of(error: &rusqlite::Error) -> &str {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are the driver's own")]
    match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text,
        rusqlite::Error::SqlInputError { msg, .. } => msg,
        _ => "",
    }
}

fn not_authorized() -> Error {
    Refusal::new(
        "access",
        "the statement reads a relation or column, or calls a function, that is not allowed, \
         perhaps through a view",
    )
    .into()
}

/// Before a function makes or reads so many bytes of a value: many of them take long, and the engine
/// looks at the watch only between its steps. On a thread of long statements, who has just come does
/// not wait for the end of its slice of the processor, which a system may grant whatever the priority.
pub(super) fn give_way(bytes: usize) {
    if bytes >= LARGE && IS_LOW.get() {
        std::thread::yield_now();
    }
}

/// Lowers the priority of this thread, for good: only a privileged process could raise it again. So
/// a tenant whose statements take long competes with those of others less, on this session.
fn lower_priority() {
    IS_LOW.set(true);
    // Of the calling thread: that is what Linux means by the calling process here.
    let lowered = rustix::process::getpriority_process(None)
        .and_then(|nice| rustix::process::setpriority_process(None, nice.max(NICE)));
    if lowered.is_err() {
        tracing::debug!("a long statement keeps the priority of the others");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_long_yields_to_others() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let mut look =
            Watch::new(Duration::from_secs(1), Arc::default()).look(Arc::from("shop.db"));
        assert!(!look());
        tokio::time::advance(SHORT).await;
        assert!(!look());
        assert_eq!(nice(), before);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!look());
        assert_eq!(nice(), before.max(NICE));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(look());
    }
}
