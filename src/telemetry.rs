//! The process log: one subscriber on standard error.
//!
//! The log is for operators and is not the audit log. It never has a secret, SQL, rows, a body, a
//! connection string or a driver's full error in it.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What the crates that we use may say. Below a warning the PostgreSQL driver prints SQL, and rustls
/// and hyper what passes through them; `rmcp` prints what callers sent even when it warns.
const OTHERS: tracing::Level = tracing::Level::WARN;
const QUIET: &str = "rmcp=off";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
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
    let others = level.min(OTHERS);
    let filter = EnvFilter::new(format!("{others},tenantry={level},{QUIET}"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        Format::Json => lines.json().try_init(),
        Format::Text => lines.with_target(false).try_init(),
    };
    if started.is_err() {
        return;
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked");
    }));
}
