//! The process log: one subscriber on standard error.
//!
//! ```text
//! event --line--> queue --one thread--> standard error
//!                   \-- full: counted, and said once there is room
//! ```
//!
//! The log is for operators and is not the audit log. It never has a secret, SQL, rows, a body, a
//! connection string or a driver's full error in it. Whoever reads it cannot hold up a call: a
//! pipe that nobody empties costs lines, not service.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// What the crates that we use may say. Below a warning the PostgreSQL driver prints SQL, and rustls
/// and hyper what passes through them; `rmcp` prints what callers sent even when it warns.
const OTHERS: tracing::Level = tracing::Level::WARN;
const QUIET: &str = "rmcp=off";

/// Lines that may wait to be written.
const QUEUE: usize = 4_096;
/// Longest wait for them when the process ends, and how often is looked whether there is room.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);

/// Sets what is logged from then on.
type SetFilter = Box<dyn Fn(EnvFilter) + Send + Sync>;

static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();
static QUEUED: OnceLock<SyncSender<Message>> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

enum Message {
    Line(Vec<u8>),
    /// Everything before it is written.
    Flush(SyncSender<()>),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "the values of one setting")]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    #[default]
    Text,
}

/// Starts logging to standard error at `level` (`error`, `warn`, `info`, `debug`, `trace`), of which
/// other crates' lines are warnings and errors only. Once a process; further calls change nothing.
///
/// A panic is logged by its place in the source only: its message could quote a value.
pub fn start(level: tracing::Level, format: Format) {
    let (queued, queue) = sync_channel(QUEUE);
    if QUEUED.set(queued).is_err() {
        return;
    }
    let writer = thread::Builder::new().name("log".to_owned()).spawn(move || write(&queue));
    if writer.is_err() {
        // No threads: then no lines either, and whatever fails next says so to its caller.
        return;
    }
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_writer(Queue)
        .with_ansi(io::stderr().is_terminal());
    let started = match format {
        Format::Json => {
            let lines = lines.json().with_filter_reloading();
            let handle = lines.reload_handle();
            (lines.try_init(), Box::new(move |filter| drop(handle.reload(filter))) as SetFilter)
        }
        Format::Text => {
            let lines = lines.with_target(false).with_filter_reloading();
            let handle = lines.reload_handle();
            (lines.try_init(), Box::new(move |filter| drop(handle.reload(filter))) as SetFilter)
        }
    };
    let (Ok(()), set_filter) = started else { return };
    SET_FILTER.get_or_init(|| set_filter);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked");
        // It may be the last line.
        flush();
    }));
}

/// Logs at `level` from now on, if logging has started.
pub fn set_level(level: tracing::Level) {
    if let Some(set_filter) = SET_FILTER.get() {
        set_filter(filter(level));
    }
}

fn filter(level: tracing::Level) -> EnvFilter {
    let others = level.min(OTHERS);
    EnvFilter::new(format!("{others},tenantry={level},{QUIET}"))
}

/// Waits until what was logged so far is written; not longer than a second, since the reader of
/// standard error may have stalled.
pub fn flush() {
    let Some(queued) = QUEUED.get() else { return };
    let (written, is_written) = sync_channel(1);
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        if queued.try_send(Message::Flush(written.clone())).is_ok() {
            // Elapsed or not, the process goes on to end.
            let _elapsed = is_written.recv_timeout(PATIENCE);
            return;
        }
        thread::sleep(LOOK);
    }
}

fn write(queue: &Receiver<Message>) {
    for message in queue {
        match message {
            // Where not even standard error can be written, there is nobody to tell.
            Message::Line(line) => drop(io::stderr().write_all(&line)),
            Message::Flush(written) => drop(written.try_send(())),
        }
        let lost = LOST.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(lost, "log lines were lost, because they were not read fast enough");
        }
    }
}

/// Where the subscriber writes to: one line, whole, at each `write`.
struct Queue;

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_queued = QUEUED
            .get()
            .is_some_and(|queued| queued.try_send(Message::Line(line.to_vec())).is_ok());
        if !is_queued {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}
