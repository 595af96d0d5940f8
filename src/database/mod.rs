//! Tenant databases: what may be asked of one, and the sessions that ask.
//!
//! ```text
//! text --guard::check(resource, access)--> GuardedSql --Database::query(limits)--> QueryResult
//!                   |                                        |
//!                refusal                    sqlite: own thread, authorizer, progress handler
//!                   |                       postgres: READ ONLY transaction, bound limits
//!                   |                                        |
//! text --guard::check_write--> GuardedWrite --Database::write(limits)--> WriteResult
//!                                           one transaction: count, then COMMIT or ROLLBACK
//! ```
//!
//! Every statement passes two independent layers: the guard, which knows the caller's URI and
//! admits only what it has on a list, and the session, which makes the engine itself read only and
//! bounded in time, rows and bytes; for a change, which the engine lets change one table.
//!
//! Protects against: writing by a query; a change beyond its bound, or half of one; reading what `access` or the URI does not allow; side effects of
//! functions; answers or statements without bound; a session that carries one caller's state to
//! the next; texts of drivers and parsers, which may quote secrets, reaching anyone. Does not
//! protect against: what the tenant's own views, types, triggers, foreign keys and computed
//! columns do, which is the tenant's own schema; a role that may do more than it needs, which is logged when the tenant's
//! first session opens.

mod background;
mod breaker;
mod catalogue;
#[cfg(test)]
pub(crate) mod double;
mod error;
pub mod guard;
#[cfg(test)]
mod layers;
mod plan;
mod postgres;
mod rows;
mod sqlite;

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::tenant::{
    Access, AccessMode, Connection, Credentials, Limits, RelationName, TenantConfig,
};

pub use background::settle;
pub use breaker::{Attempt, Breaker};
pub use catalogue::{Catalogue, ForeignKey, Listed, Relation, RelationColumn, RelationKind};
pub use error::{Error, Unavailable};
pub use guard::{Dialect, GuardedSql, GuardedWrite, Refusal, check, check_write};
pub use plan::PlanNode;
pub use postgres::AddressPolicy;
pub use rows::{Rows, RowsRead};

/// What every session needs to know that no tenant decides.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder below which every SQLite file is.
    pub sqlite_root: PathBuf,
    /// Longest wait for a server: name, dial, TLS and login together.
    pub connect_timeout: Duration,
    /// Where servers may be.
    pub addresses: AddressPolicy,
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
    /// Counts the rows while they are read.
    pub read: RowsRead,
}

/// An answer: rows as JSON, in the order of `columns`, whose names may repeat.
///
/// Integers beyond ±2^53 are strings, because JSON readers round them; so are `numeric` and
/// everything that JSON has no type for: dates and times as ISO 8601, bytes as base64. The form of
/// each type is in `docs/results.md`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryResult {
    /// What each row consists of.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: Rows,
    /// Whether there were more rows than the limits let through.
    pub truncated: bool,
}

/// One change of rows with its bound values.
#[derive(Clone, Debug)]
pub struct Write {
    /// What runs.
    pub statement: GuardedWrite,
    /// As for [`Query::params`].
    pub params: Vec<Value>,
    /// Most rows that may change; the tenant's `max_rows` holds beside it.
    pub limit: Option<u32>,
}

impl Write {
    /// Most rows that may change.
    fn most_rows(&self, limits: &Limits) -> u32 {
        self.limit.unwrap_or(u32::MAX).min(limits.max_rows)
    }
}

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteResult {
    /// Rows that the statement inserted, updated or deleted; not those that triggers and foreign
    /// keys of the tenant's own changed with them.
    pub changed: u64,
    /// Of RETURNING.
    pub columns: Vec<Column>,
    /// Of RETURNING, whole: rows are as in a [`QueryResult`].
    pub rows: Rows,
}

/// A column of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as the engine spells it; empty when `SQLite` declares none.
    pub type_name: String,
}

/// Something that a role may do and no reader needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExcessPrivilege {
    /// The rest of a sentence about the role, such as `is a superuser`.
    pub text: String,
    /// Whether it reaches beyond the tables that the tenant has: to other databases, roles, rows of
    /// other tenants, the server's files. Else it is writing, which some tenants are there for.
    pub is_privileged: bool,
}

impl ExcessPrivilege {
    /// Whether it is too much for a tenant of this mode: some are there to write.
    pub fn is_excess_in(&self, mode: AccessMode) -> bool {
        self.is_privileged || mode == AccessMode::ReadOnly
    }
}

impl fmt::Display for ExcessPrivilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a database is like that a tenant has.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "what is asked of it, in one place")]
pub struct Examined {
    /// As [`Database::server_version`].
    pub version: String,
    /// As [`Database::excess_privileges`], less writing where the tenant is there for it.
    pub excess: Vec<ExcessPrivilege>,
}

/// Opens a session, as [`connect`], and looks at what the database is and what the role may do.
///
/// # Errors
///
/// Any [`Error`].
pub async fn examine(
    config: &TenantConfig,
    credentials: &Credentials,
    options: &Options,
) -> Result<Examined, Error> {
    let mut session = connect(config, credentials, options, Box::new(())).await?;
    let version = session.server_version().await?;
    let mut excess = session.excess_privileges().await?;
    excess.retain(|privilege| privilege.is_excess_in(config.access.mode));
    Ok(Examined { version, excess })
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

    /// Makes the change of `write` in a transaction of its own: all of it, or nothing.
    ///
    /// Nothing is made final before the number of rows and the bytes of RETURNING are known to be
    /// within the limits. Whether the tenant allows writing is for the caller to know.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; nothing was changed, but after [`Error::OutcomeUnknown`]. That one is also
    /// what dropping the future midway may amount to.
    fn write<'a>(
        &'a mut self,
        write: &'a Write,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<WriteResult, Error>>;

    /// What there is to read, as it is now: kept in the session for as long as the database says
    /// that it did not change, which is one question.
    fn catalogue<'a>(
        &'a mut self,
        access: &'a Access,
    ) -> BoxFuture<'a, Result<Arc<Catalogue>, Error>>;

    /// What stands behind those of `names` that `access` allows and that are there, in name order.
    fn describe<'a>(
        &'a mut self,
        access: &'a Access,
        names: &'a [RelationName],
    ) -> BoxFuture<'a, Result<Vec<Relation>, Error>>;

    /// How the engine would run `query`, without running it.
    ///
    /// # Errors
    ///
    /// As [`Database::query`]; [`Error::Failed`] when the plan is too large.
    fn explain<'a>(
        &'a mut self,
        query: &'a Query,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<PlanNode, Error>>;

    /// The engine's version, such as `PostgreSQL 17.6`.
    fn server_version(&mut self) -> BoxFuture<'_, Result<String, Error>>;

    /// What the role of the session may do beyond reading: the guard and the transaction hold it
    /// back, but nothing should have to. Empty for `SQLite`, whose files have no roles.
    fn excess_privileges(&mut self) -> BoxFuture<'_, Result<Vec<ExcessPrivilege>, Error>>;

    /// Asks the server for a sign of life, of which those need none that have no server.
    fn ping(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Drops `held` once nothing runs any more that this session began and that takes of this
    /// process's means, which may be after the session itself was dropped.
    fn hold(&mut self, held: Box<dyn Send>) {
        drop(held);
    }

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
/// The password is in the driver's memory only while this runs. `opening` is dropped once nothing that
/// this began takes of this process's means, but the session: that may be after this was dropped.
///
/// # Errors
///
/// [`Error::Unavailable`].
pub async fn connect(
    config: &TenantConfig,
    credentials: &Credentials,
    options: &Options,
    opening: Box<dyn Send>,
) -> Result<Box<dyn Database>, Error> {
    match &config.connection {
        Connection::Postgres(target) => {
            // Its socket is closed with the future.
            drop(opening);
            let session = postgres::Session::open(config, target, credentials, options).await?;
            Ok(Box::new(session))
        }
        Connection::Sqlite { path } => {
            let access = config.access.clone();
            let session = sqlite::Session::open(path.clone(), options, access, opening).await?;
            Ok(Box::new(session))
        }
    }
}
