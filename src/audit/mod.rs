//! Who did what, to whose data, with what outcome.
//!
//! ```text
//! Log::begin --> Pending --complete--> entry --> one writer thread: write, fdatasync --> the answer
//!                   |                                      (many entries share one fdatasync)
//!                   `-- dropped: an entry that says "abandoned", or that it was cut
//! ```
//!
//! An entry is one line of JSON in a segment file under `audit/` (docs/audit.md). It is on disk
//! before the answer that it describes is given; when it cannot be written, the answer is
//! [`ErrorCode::AuditUnavailable`] instead.
//!
//! Protects against: an attempt that leaves no record, refused attempts included; text of a caller
//! that forges a record (it is always an escaped, bounded JSON string). Does not protect against
//! someone who can write the files: entries are not chained or signed.

mod entry;
mod reader;
mod verify;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::ErrorCode;
use crate::tenant::TenantId;

pub use entry::{Actor, Decision, Entry, RequestId};
pub use reader::{Filter, read};
pub use verify::{Problem, Verified, copy, verify};

/// The audit log of one data directory, open for appending. Clones share it.
#[derive(Clone, Debug)]
pub struct Log {
    writer: Arc<writer::Writer>,
    clock: Arc<dyn Clock>,
}

/// What is known of an attempt when it begins.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Ties the entry to the answer and to the process log.
    pub request_id: RequestId,
    /// Who attempts it.
    pub actor: Actor,
    /// Where from: an address, or `stdio`.
    pub peer: Option<String>,
    /// What: a tool, a method, an operator's action.
    pub action: &'static str,
    /// In whose name; `None` before that is known.
    pub tenant: Option<TenantId>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// `None` is success.
    pub code: Option<ErrorCode>,
    /// The rule that refused it, when one did.
    pub rule: Option<&'static str>,
    /// Rows that were returned or changed.
    pub rows: Option<u64>,
}

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A segment does not read as a log; appending would hide that.
    #[error("audit segment {segment} is damaged at line {line}")]
    Damaged {
        /// File name below `audit/`.
        segment: String,
        /// Line, from 1.
        line: u64,
    },
    /// The file system refused.
    #[error("the audit log cannot be {doing}: {kind}")]
    Io {
        /// `opened`, `read` or `written`.
        doing: &'static str,
        /// The kind of error; no path, no text of the system.
        kind: std::io::ErrorKind,
    },
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Damaged { .. } => ErrorCode::IntegrityError,
            Self::Io { .. } => ErrorCode::AuditUnavailable,
        }
    }

    fn io(doing: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |error| Self::Io { doing, kind: error.kind() }
    }
}

impl Log {
    /// Opens the log in `directory` for appending; makes the directory when it is not there.
    ///
    /// A last line that a crash cut short was never acknowledged and is cut off.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when the newest segment is anything but whole lines before that.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Ok(Self { writer: Arc::new(writer::Writer::open(directory)?), clock })
    }

    /// Notes that `attempt` begins. It is written when it is over.
    #[must_use = "dropping it records the attempt as abandoned"]
    pub fn begin(&self, attempt: Attempt) -> Pending {
        let entry = Entry::new(attempt, self.clock.now());
        Pending { log: self.clone(), entry: Some(Box::new(entry)), cut: CancellationToken::new() }
    }

    /// Makes the next entry fail.
    #[cfg(test)]
    pub(crate) fn fail_next_write(&self) {
        self.writer.fail_next_write();
    }

    /// Whether the last entry could be written.
    pub fn is_writable(&self) -> bool {
        self.writer.is_healthy()
    }
}

/// An attempt that is under way.
///
/// Completed, it becomes an entry; dropped (the client hung up, or cancelled the call), it becomes
/// an entry with the decision `abandoned`.
pub struct Pending {
    log: Log,
    entry: Option<Box<Entry>>,
    cut: CancellationToken,
}

impl Pending {
    /// Notes which resource is meant, as the caller spelled it, and whose it claims to be.
    pub fn set_resource(&mut self, resource: &str, target: Option<&TenantId>) {
        if let Some(entry) = &mut self.entry {
            entry.set_resource(resource, target);
        }
    }

    /// Dropping it is our doing, and no longer the caller's, once `cut` is cancelled.
    pub fn cut_by(&mut self, cut: CancellationToken) {
        self.cut = cut;
    }

    /// The id that the answer carries too.
    pub fn request_id(&self) -> RequestId {
        self.entry.as_ref().map_or_else(RequestId::random, |entry| entry.request_id.clone())
    }

    /// Writes an entry that says `begun`, for an attempt that changes something: after a crash in
    /// the middle it is the only one. When this returns, it is on disk.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: it is not on disk, and nothing may be changed.
    pub async fn announce(&self) -> Result<(), Error> {
        self.submit_begun().await.unwrap_or_else(|_| Err(writer_gone()))
    }

    /// As [`Pending::announce`], for threads that may block.
    pub fn announce_blocking(&self) -> Result<(), Error> {
        self.submit_begun().blocking_recv().unwrap_or_else(|_| Err(writer_gone()))
    }

    fn submit_begun(&self) -> oneshot::Receiver<Result<(), Error>> {
        let (answer, written) = oneshot::channel();
        if let Some(entry) = &self.entry {
            let entry = Entry { decision: Decision::Begun, ..Entry::clone(entry) };
            self.log.writer.append(Box::new(entry), answer);
        }
        written
    }

    /// Writes the entry; when this returns, it is on disk.
    ///
    /// Cancellation: the entry is written all the same.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: it is not on disk, and what it describes must not be answered.
    pub async fn complete(self, outcome: Outcome) -> Result<(), Error> {
        let written = self.submit(outcome);
        written.await.unwrap_or_else(|_| Err(writer_gone()))
    }

    /// As [`Pending::complete`], for threads that may block.
    pub fn complete_blocking(self, outcome: Outcome) -> Result<(), Error> {
        let written = self.submit(outcome);
        written.blocking_recv().unwrap_or_else(|_| Err(writer_gone()))
    }

    fn submit(mut self, outcome: Outcome) -> oneshot::Receiver<Result<(), Error>> {
        let (answer, written) = oneshot::channel();
        if let Some(mut entry) = self.entry.take() {
            entry.conclude(outcome, self.log.clock.now());
            self.log.writer.append(entry, answer);
        }
        written
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(mut entry) = self.entry.take() {
            let now = self.log.clock.now();
            if self.cut.is_cancelled() {
                let code = Some(ErrorCode::Cancelled);
                entry.conclude(Outcome { code, ..Outcome::default() }, now);
            } else {
                entry.abandon(now);
            }
            let (answer, _nobody_waits) = oneshot::channel();
            self.log.writer.append(entry, answer);
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pending").field(&self.entry).finish()
    }
}

/// The writer thread ends only when the last `Log` is dropped, or by a panic.
fn writer_gone() -> Error {
    Error::Io { doing: "written", kind: std::io::ErrorKind::BrokenPipe }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::clock::ManualClock;
    use crate::tenant::IdRule;

    fn attempt(action: &'static str) -> Attempt {
        Attempt {
            request_id: RequestId::random(),
            actor: Actor::Operator { name: "ann".to_owned() },
            peer: None,
            action,
            tenant: Some(tenant("tenant001")),
        }
    }

    fn tenant(id: &str) -> TenantId {
        TenantId::parse(id, IdRule::Alphanumeric).unwrap()
    }

    fn open(directory: &Path) -> Log {
        Log::open(directory, Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH))).unwrap()
    }

    fn entries(directory: &Path) -> Vec<Entry> {
        read(directory, Filter::default()).unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn segment(directory: &Path) -> std::path::PathBuf {
        directory.join("00000000000000000001.jsonl")
    }

    #[test]
    fn a_completed_attempt_is_on_disk_and_numbers_go_on_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let log = open(directory.path());
            let mut pending = log.begin(attempt("query_tenant_data"));
            pending.set_resource("mcp://tenant002/database", Some(&tenant("tenant002")));
            let code = Some(ErrorCode::Forbidden);
            pending.complete_blocking(Outcome { code, ..Outcome::default() }).unwrap();
        }
        let entries = entries(directory.path());
        assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(entries[0].decision, Decision::Denied);
        assert_eq!(entries[0].code.as_deref(), Some("FORBIDDEN"));
        assert_eq!(entries[0].target_tenant.as_deref(), Some("tenant002"));
    }

    #[test]
    fn a_dropped_attempt_is_recorded_as_abandoned_unless_we_cut_it() {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path());
        let cut = CancellationToken::new();
        for _ in 0..2 {
            let mut pending = log.begin(attempt("query_tenant_data"));
            pending.cut_by(cut.clone());
            drop(pending);
            cut.cancel();
        }
        drop(log);
        let entries = entries(directory.path());
        let decisions: Vec<_> = entries.iter().map(|entry| entry.decision).collect();
        assert_eq!(decisions, [Decision::Abandoned, Decision::Failed]);
        assert!(entries.iter().all(|entry| entry.code.as_deref() == Some("CANCELLED")));
    }

    #[test]
    fn a_torn_last_line_is_cut_off_and_damage_before_it_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path());
        log.begin(attempt("a")).complete_blocking(Outcome::default()).unwrap();
        drop(log);
        let whole = std::fs::read(segment(directory.path())).unwrap();
        let torn = [whole.as_slice(), br#"{"seq":2,"ti"#].concat();
        std::fs::write(segment(directory.path()), &torn).unwrap();
        assert_eq!(entries(directory.path()).len(), 1);
        drop(open(directory.path()));
        assert_eq!(std::fs::read(segment(directory.path())).unwrap(), whole);

        std::fs::write(segment(directory.path()), b"not an entry\n").unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let error = Log::open(directory.path(), clock).unwrap_err();
        assert_eq!(error.code(), ErrorCode::IntegrityError);
    }

    #[test]
    fn a_callers_text_cannot_forge_an_entry() {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path());
        let mut pending = log.begin(attempt("a"));
        let hostile = format!("x\r\n{{\"seq\":9}}\u{1b}[2J\u{2028}{}", "y".repeat(1 << 20));
        pending.set_resource(&hostile, None);
        pending.complete_blocking(Outcome::default()).unwrap();
        drop(log);
        let text = std::fs::read_to_string(segment(directory.path())).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.is_ascii() && text.len() < 4096 && !text.contains('\u{1b}'));
        assert_eq!(entries(directory.path()).len(), 1);
    }

    #[test]
    fn a_filter_finds_by_code_tenant_and_time() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let log = Log::open(directory.path(), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        for code in [None, Some(ErrorCode::Forbidden)] {
            clock.advance(Duration::from_hours(1));
            let mut pending = log.begin(attempt("a"));
            pending.set_resource("x", code.map(|_| tenant("tenant002")).as_ref());
            pending.complete_blocking(Outcome { code, ..Outcome::default() }).unwrap();
        }
        let count = |filter: Filter| read(directory.path(), filter).unwrap().count();
        assert_eq!(count(Filter::default()), 2);
        assert_eq!(count(Filter { code: Some(ErrorCode::Forbidden), ..Filter::default() }), 1);
        assert_eq!(count(Filter { tenant: Some(tenant("tenant001")), ..Filter::default() }), 2);
        assert_eq!(count(Filter { tenant: Some(tenant("tenant002")), ..Filter::default() }), 1);
        assert_eq!(count(Filter { tenant: Some(tenant("tenant003")), ..Filter::default() }), 0);
        assert_eq!(count(Filter { since: Some(clock.now()), ..Filter::default() }), 1);
    }

    #[tokio::test]
    async fn many_at_once_are_all_written_once_each() {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path());
        let calls: Vec<_> =
            (0..200).map(|_| log.begin(attempt("a")).complete(Outcome::default())).collect();
        for result in futures_util::future::join_all(calls).await {
            result.unwrap();
        }
        let numbers: Vec<u64> = entries(directory.path()).iter().map(|entry| entry.seq).collect();
        assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    }

    #[test]
    fn a_log_finds_out_by_itself_that_it_can_be_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path());
        log.writer.fail_next_write();
        log.begin(attempt("a")).complete_blocking(Outcome::default()).unwrap_err();
        assert!(!log.is_writable());
        while !log.is_writable() {
            std::thread::yield_now();
        }
        log.begin(attempt("a")).complete_blocking(Outcome::default()).unwrap();
        assert_eq!(entries(directory.path())[0].lost_before, Some(1));
    }

    #[test]
    fn an_entry_that_cannot_be_written_is_an_error_and_its_loss_is_told_later() {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path());
        let write = || log.begin(attempt("a")).complete_blocking(Outcome::default());
        write().unwrap();
        log.writer.fail_next_write();
        assert_eq!(write().unwrap_err().code(), ErrorCode::AuditUnavailable);
        assert!(!log.is_writable());
        write().unwrap();
        assert!(log.is_writable());
        let entries = entries(directory.path());
        assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(entries[1].lost_before, Some(1));
    }
}
