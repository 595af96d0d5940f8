//! Tenant databases: what may be asked of one, and the sessions that ask.
//!
//! ```text
//! text --guard::check(resource, access)--> GuardedSql --Database::query(limits)--> QueryResult
//!                   |                                        |
//!                refusal                    sqlite: own thread, authorizer, progress handler
//!                                           postgres: READ ONLY transaction, bound limits
//! ```
//!
//! Every statement passes two independent layers: the guard, which knows the caller's URI and
//! admits only what it has on a list, and the session, which makes the engine itself read only and
//! bounded in time, rows and bytes.
//!
//! Protects against: writing; reading what `access` or the URI does not allow; side effects of
//! functions; answers or statements without bound; a session that carries one caller's state to
//! the next; texts of drivers and parsers, which may quote secrets, reaching anyone. Does not
//! protect against: what the tenant's own views, operators and computed columns do, which is the
//! tenant's own schema; a role that may do more than it needs, which `doctor` reports.

mod error;
pub mod guard;
mod postgres;
mod sqlite;

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use serde_json::Value;

use crate::tenant::{Access, Connection, Credentials, Limits, RelationName, TenantConfig};

pub use error::{Error, Unavailable};
pub use guard::{Dialect, GuardedSql, Refusal, check};

/// What every session needs to know that no tenant decides.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder below which every SQLite file is.
    pub sqlite_root: PathBuf,
    /// Longest wait for a server: name, dial, TLS and login together.
    pub connect_timeout: Duration,
}

/// One statement with its bound values.
#[derive(Clone, Debug)]
pub struct Query {
    /// What runs.
    pub statement: GuardedSql,
    /// Values for `$1` … (`PostgreSQL`) or `?` … (`SQLite`), in order.
    pub params: Vec<Value>,
    /// Most rows wanted; the tenant's limit holds beside it.
    pub limit: Option<u32>,
}

/// An answer: rows as JSON, in the order of `columns`.
///
/// Integers beyond ±2^53 are strings, because JSON readers round them; so are `numeric` and
/// everything that JSON has no type for: dates and times as ISO 8601, bytes as base64.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryResult {
    /// What each row consists of.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
    /// Whether there were more rows than the limits let through.
    pub truncated: bool,
}

/// A column of an answer or of a relation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as the engine spells it; empty when `SQLite` declares none.
    pub type_name: String,
}

/// A table or view that `access` allows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Relation {
    /// Without a schema when it is in the tenant's own.
    pub name: RelationName,
    /// What it is.
    pub kind: RelationKind,
    /// The comment that the database has on it.
    pub description: Option<String>,
    /// The columns that may be read.
    pub columns: Vec<Column>,
}

/// Which of the two resource types a relation is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the two resource types of a URI")]
pub enum RelationKind {
    /// A table: ordinary, partitioned, foreign or virtual.
    Table,
    /// A view, materialized ones included.
    View,
}

/// A future of a [`Database`]; boxed, so that the trait can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A session with one tenant's database.
///
/// Dropping a future of a session cancels its statement in the engine.
pub trait Database: Send + fmt::Debug {
    /// Which engine's SQL it speaks.
    fn dialect(&self) -> Dialect;

    /// Runs `query`.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; after [`Error::TooLarge`], [`Error::Timeout`] and [`Error::Unavailable`] ask
    /// [`Database::is_broken`].
    fn query<'a>(
        &'a mut self,
        query: &'a Query,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<QueryResult, Error>>;

    /// The relations that `access` allows and the role may read, in name order, denied columns
    /// left out.
    fn relations<'a>(
        &'a mut self,
        access: &'a Access,
    ) -> BoxFuture<'a, Result<Vec<Relation>, Error>>;

    /// The engine's version, such as `PostgreSQL 17.6`.
    fn server_version(&mut self) -> BoxFuture<'_, Result<String, Error>>;

    /// Whether the session must not be used again: closed, cancelled midway, or out of step with
    /// the server.
    fn is_broken(&self) -> bool;
}

/// Bounds what each session will take of this process's memory.
///
/// To be called before anything else in the process uses `SQLite`; opening a session is early
/// enough otherwise. False when it is too late: sessions then sort in temporary files instead.
pub fn bound_memory() -> bool {
    sqlite::bound_memory()
}

/// Opens a session with the database of the tenant.
///
/// The password is in the driver's memory only while this runs.
///
/// # Errors
///
/// [`Error::Unavailable`].
pub async fn connect(
    config: &TenantConfig,
    credentials: &Credentials,
    options: &Options,
) -> Result<Box<dyn Database>, Error> {
    match &config.connection {
        Connection::Postgres(target) => {
            let session =
                postgres::Session::open(target, credentials, &config.access, options).await?;
            Ok(Box::new(session))
        }
        Connection::Sqlite { path } => {
            let session =
                sqlite::Session::open(path.clone(), options, config.access.clone()).await?;
            Ok(Box::new(session))
        }
    }
}

/// Counts what `row` takes as JSON text.
fn encoded_len(row: &[Value]) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, row) {
        Ok(()) => counter.0,
        // A counter takes every byte and JSON values have only string keys; if it fails all the
        // same, the row counts as too large.
        Err(_) => usize::MAX,
    }
}

/// Takes rows until a limit is reached.
#[derive(Debug)]
struct Collector {
    rows: Vec<Vec<Value>>,
    rows_left: usize,
    bytes_left: usize,
    truncated: bool,
}

impl Collector {
    fn new(query: &Query, limits: &Limits) -> Self {
        let rows = query.limit.unwrap_or(u32::MAX).min(limits.max_rows);
        Self {
            rows: Vec::new(),
            rows_left: rows as usize,
            bytes_left: limits.max_result_bytes as usize,
            truncated: false,
        }
    }

    /// Whether the next row would be kept, as far as one can tell without it.
    fn wants_more(&self) -> bool {
        !self.truncated
    }

    /// Keeps `row`, or marks the answer truncated.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] when the first row alone is beyond the limit.
    fn take(&mut self, row: Vec<Value>) -> Result<(), Error> {
        if self.rows_left == 0 {
            self.truncated = true;
            return Ok(());
        }
        let bytes = encoded_len(&row).saturating_add(1);
        if bytes > self.bytes_left {
            return self.overflow();
        }
        self.rows_left -= 1;
        self.bytes_left -= bytes;
        self.rows.push(row);
        Ok(())
    }

    /// Goes without a row that is known to be too large before it is made.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] when it is the first and wanted.
    fn overflow(&mut self) -> Result<(), Error> {
        if self.rows.is_empty() && self.rows_left > 0 {
            return Err(Error::TooLarge);
        }
        self.truncated = true;
        Ok(())
    }

    fn finish(self, columns: Vec<Column>) -> QueryResult {
        QueryResult { columns, rows: self.rows, truncated: self.truncated }
    }
}

/// An integer as JSON: a number where every reader keeps it exact, else a string.
fn integer(value: i64) -> Value {
    const EXACT: i64 = 1 << 53;
    if (-EXACT..=EXACT).contains(&value) { value.into() } else { value.to_string().into() }
}

/// A float as JSON: text where JSON has no number for it.
fn float(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(
        || {
            let text = if value.is_nan() {
                "NaN"
            } else if value > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            };
            text.into()
        },
        Value::Number,
    )
}

/// Bytes as JSON: standard base64 with padding.
fn bytes(value: &[u8]) -> Value {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(value).into()
}
