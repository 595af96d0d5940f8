//! The thread that has the file open.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rusqlite::types::{Null, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, Statement, ToSql};
use serde_json::Value;
use tokio::sync::oneshot;

use super::catalogue;
use super::confine::{Policy, Schema};
use super::explain::{self, Shown};
use super::file::{self, Use};
use super::turns::TURNS;
use super::watch::Watch;
use crate::database::catalogue::Kept;
use crate::database::guard::Uses;
use crate::database::rows::{Cells, Collector, Unwritten};
use crate::database::{
    Catalogue, Column, Error, PlanNode, Query, QueryResult, Refusal, Relation, RelationKind,
    Unavailable, Write, WriteResult,
};
use crate::tenant::{Access, Limits, RelationName};

/// What a session asks of its thread.
pub(super) enum Command {
    Query {
        query: Box<Query>,
        limits: Limits,
        cancelled: Arc<AtomicBool>,
        reply: oneshot::Sender<Result<QueryResult, Error>>,
    },
    Write {
        write: Write,
        limits: Limits,
        cancelled: Arc<AtomicBool>,
        reply: oneshot::Sender<Result<WriteResult, Error>>,
    },
    Explain {
        query: Query,
        limits: Limits,
        cancelled: Arc<AtomicBool>,
        reply: oneshot::Sender<Result<PlanNode, Error>>,
    },
    Catalogue {
        access: Access,
        cancelled: Arc<AtomicBool>,
        reply: oneshot::Sender<Result<Arc<Catalogue>, Error>>,
    },
    Describe {
        access: Access,
        names: Vec<RelationName>,
        cancelled: Arc<AtomicBool>,
        reply: oneshot::Sender<Result<Vec<Relation>, Error>>,
    },
}

pub(super) struct Worker {
    pub(super) connection: Connection,
    pub(super) access: Access,
    /// Its path, which tells it from those of others.
    database: Arc<str>,
    catalogue: Kept<i64>,
}

/// Virtual machine steps between two looks at the clock: some microseconds, or milliseconds where steps
/// call functions that take long.
const STEPS: i32 = 200;
/// For questions of our own to the catalogue.
pub(super) const CATALOGUE_TIMEOUT: Duration = Duration::from_secs(30);

impl Worker {
    pub(super) fn open(
        root: &Path,
        path: &str,
        access: Access,
        purpose: Use,
    ) -> Result<Self, Unavailable> {
        let connection = file::open(root, path, purpose)?;
        Ok(Self { connection, access, database: Arc::from(path), catalogue: Kept::default() })
    }

    /// Answers until the session is dropped. What writes does so by a connection of its own, which
    /// is opened for the first change.
    pub(super) fn serve(
        &mut self,
        inbox: &mpsc::Receiver<Command>,
        open_writer: impl Fn() -> Result<Self, Error>,
    ) {
        let mut writer = None;
        while let Ok(command) = inbox.recv() {
            // An answer that nobody waits for any more is dropped.
            match command {
                Command::Query { query, limits, cancelled, reply } => {
                    drop(reply.send(self.query(&query, &limits, cancelled)));
                }
                Command::Write { write, limits, cancelled, reply } => {
                    let opened = writer.take().map_or_else(&open_writer, Ok);
                    let outcome = opened.and_then(|mut opened: Self| {
                        let outcome = opened.write(&write, &limits, cancelled);
                        // One that could not be ended is ended with its connection.
                        writer = Some(opened).filter(|it| it.connection.is_autocommit());
                        outcome
                    });
                    drop(reply.send(outcome));
                }
                Command::Explain { query, limits, cancelled, reply } => {
                    drop(reply.send(self.explain(&query, &limits, cancelled)));
                }
                Command::Catalogue { access, cancelled, reply } => {
                    drop(reply.send(self.catalogue(&access, cancelled)));
                }
                Command::Describe { access, names, cancelled, reply } => {
                    drop(reply.send(self.describe(&access, &names, cancelled)));
                }
            }
            TURNS.end();
        }
    }

    fn query(
        &mut self,
        query: &Query,
        limits: &Limits,
        cancelled: Arc<AtomicBool>,
    ) -> Result<QueryResult, Error> {
        let watch = Watch::new(limits.statement_timeout, cancelled);
        self.begin(&watch)?;
        let is_running = Arc::new(AtomicBool::new(false));
        let schema = self.schema(query.statement.uses(), &watch)?;
        self.confine(query.statement.uses(), schema, &is_running, &watch)?;
        let outcome = self.rows(query, limits, &watch, &is_running);
        self.connection.flush_prepared_statement_cache();
        outcome
    }

    /// How the statement would run; nothing of it does.
    fn explain(
        &mut self,
        query: &Query,
        limits: &Limits,
        cancelled: Arc<AtomicBool>,
    ) -> Result<PlanNode, Error> {
        let watch = Watch::new(limits.statement_timeout, cancelled);
        self.begin(&watch)?;
        let schema = self.schema(query.statement.uses(), &watch)?;
        let names = schema.views.is_empty();
        let indexes = names && self.access.deny_columns.is_empty();
        self.confine(query.statement.uses(), schema, &Arc::default(), &watch)?;
        let outcome = explain::plan(&self.connection, query, Shown { names, indexes }, &watch);
        self.connection.flush_prepared_statement_cache();
        outcome
    }

    /// Lets the engine do what the verdict on `statement` allows, and nothing else.
    fn confine(
        &mut self,
        statement: &Uses,
        schema: Schema,
        is_running: &Arc<AtomicBool>,
        watch: &Watch,
    ) -> Result<(), Error> {
        let policy = Policy {
            uses: statement.clone(),
            access: self.access.clone(),
            schema,
            changes: None,
            is_running: Arc::clone(is_running),
        };
        self.connection
            .authorizer(Some(move |context: rusqlite::hooks::AuthContext<'_>| {
                policy.decide(&context)
            }))
            .map_err(|error| watch.failure(&error))
    }

    /// Looks the relations of a statement up, and connects those that are virtual tables: their
    /// modules ask questions of their own when they are first used, which no policy knows.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] when there is no such relation: virtual tables that come with the engine
    /// have names too, and are not the tenant's.
    pub(super) fn schema(&self, uses: &Uses, watch: &Watch) -> Result<Schema, Error> {
        let mut schema = Schema::default();
        let mut has_view = false;
        for relation in uses.relations() {
            let kind = self
                .connection
                .prepare_cached(
                    "SELECT type = 'view', rootpage = 0 FROM main.sqlite_schema \
                     WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE",
                )
                .and_then(|mut statement| {
                    let kind = |row: &Row<'_>| Ok((row.get::<_, bool>(0)?, row.get::<_, bool>(1)?));
                    statement.query_row([&relation.name], kind).optional()
                })
                .map_err(|error| watch.failure(&error))?;
            match kind {
                Some((true, _)) => has_view = true,
                Some((false, true)) => {
                    catalogue::touch(&self.connection, &relation.name)
                        .map_err(|error| watch.failure(&error))?;
                    schema.has_virtual_table = true;
                }
                Some((false, false)) => {}
                None => {
                    let message = format!("no such table: {relation}");
                    return Err(Error::Failed { sqlstate: None, message, position: None });
                }
            }
        }
        if has_view {
            schema.views = self.views(watch)?;
        }
        Ok(schema)
    }

    /// All views, in lower case.
    pub(super) fn views(&self, watch: &Watch) -> Result<BTreeSet<String>, Error> {
        let names = catalogue::names(&self.connection).map_err(|error| watch.failure(&error))?;
        let views = names.into_iter().filter(|(_, kind)| *kind == RelationKind::View);
        Ok(views.map(|(name, _)| name.to_ascii_lowercase()).collect())
    }

    fn rows(
        &self,
        query: &Query,
        limits: &Limits,
        watch: &Watch,
        is_running: &AtomicBool,
    ) -> Result<QueryResult, Error> {
        let failed = |error: rusqlite::Error| watch.failure(&error);
        let mut statement = self.connection.prepare(query.statement.sql()).map_err(failed)?;
        if !statement.readonly() {
            return Err(Refusal::new("statement-kind", "only a query may run").into());
        }
        is_running.store(true, Ordering::Relaxed);
        let columns = columns_of(&statement);
        bind(&mut statement, &query.params, watch)?;
        let mut collector = Collector::new(query, limits);
        // The first step takes back an interrupt that came before it.
        if watch.should_stop() {
            return Err(watch.stopped());
        }
        let mut rows = statement.raw_query();
        while collector.wants_more()
            && let Some(row) = rows.next().map_err(failed)?
        {
            keep(row, columns.len(), &mut collector, watch)?;
        }
        // The engine looks at the watch between steps, and the last may have been a long one.
        if watch.should_stop() {
            return Err(watch.stopped());
        }
        drop(rows);
        drop(statement);
        Ok(collector.finish(columns))
    }

    fn catalogue(
        &mut self,
        access: &Access,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Arc<Catalogue>, Error> {
        let watch = Watch::new(CATALOGUE_TIMEOUT, cancelled);
        self.begin(&watch)?;
        catalogue::catalogue(&self.connection, &mut self.catalogue, access, &watch)
    }

    fn describe(
        &mut self,
        access: &Access,
        names: &[RelationName],
        cancelled: Arc<AtomicBool>,
    ) -> Result<Vec<Relation>, Error> {
        let watch = Watch::new(CATALOGUE_TIMEOUT, cancelled);
        self.begin(&watch)?;
        catalogue::describe(&self.connection, &mut self.catalogue, access, names, &watch)
    }

    /// Puts `watch` over what runs next, and takes the last statement's policy away.
    pub(super) fn begin(&mut self, watch: &Watch) -> Result<(), Error> {
        // What waits for others to write between two statements does so without a turn.
        TURNS.end();
        let look = watch.clone().look(Arc::clone(&self.database));
        let prepared = self
            .connection
            .authorizer(
                None::<fn(rusqlite::hooks::AuthContext<'_>) -> rusqlite::hooks::Authorization>,
            )
            .and_then(|()| self.connection.progress_handler(STEPS, Some(look)));
        prepared.map_err(|error| watch.failure(&error))
    }
}

/// What the statement returns.
pub(super) fn columns_of(statement: &Statement<'_>) -> Vec<Column> {
    let named = statement.columns().map(|column| Column {
        name: column.name().to_owned(),
        type_name: column.decl_type().unwrap_or_default().to_ascii_lowercase(),
    });
    named.collect()
}

/// Binds `params` to the places of the statement.
pub(super) fn bind(
    statement: &mut Statement<'_>,
    params: &[Value],
    watch: &Watch,
) -> Result<(), Error> {
    let expected = statement.parameter_count();
    if expected != params.len() {
        return Err(Error::ParameterCount { expected, given: params.len() });
    }
    for (position, value) in params.iter().enumerate() {
        let bound = Bound::of(value).ok_or_else(|| Error::InvalidParameter {
            position,
            expected: "null, a boolean, a number (integers of 64 bits) or a text is expected"
                .to_owned(),
        })?;
        let bound = statement.raw_bind_parameter(position + 1, bound);
        bound.map_err(|error| watch.failure(&error))?;
    }
    Ok(())
}

/// Keeps a row of `width` columns.
pub(super) fn keep(
    row: &Row<'_>,
    width: usize,
    collector: &mut Collector,
    watch: &Watch,
) -> Result<(), Error> {
    let values = (0..width)
        .map(|position| row.get_ref(position))
        .collect::<rusqlite::Result<Vec<ValueRef<'_>>>>()
        .map_err(|error| watch.failure(&error))?;
    collector.row(Unavailable::NotADatabase.into(), |cells| {
        values.into_iter().try_for_each(|value| write(value, cells))
    })
}

/// A bound value.
enum Bound<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'a str),
}

impl<'a> Bound<'a> {
    fn of(value: &'a Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::Null),
            Value::Bool(value) => Some(Self::Integer(i64::from(*value))),
            // An integer that the engine has no room for is not rounded.
            Value::Number(number) if number.is_f64() => number.as_f64().map(Self::Real),
            Value::Number(number) => number.as_i64().map(Self::Integer),
            Value::String(text) => Some(Self::Text(text)),
            Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => Null.into(),
            Self::Integer(value) => (*value).into(),
            Self::Real(value) => (*value).into(),
            Self::Text(value) => (*value).into(),
        })
    }
}

/// Writes `value` by its storage class.
fn write(value: ValueRef<'_>, cells: &mut Cells<'_>) -> Result<(), Unwritten> {
    match value {
        ValueRef::Null => cells.null(),
        ValueRef::Integer(value) => cells.integer(value),
        ValueRef::Real(value) => cells.float(value),
        // A text may be longer than there is room for, and is not looked at then.
        ValueRef::Text(text) if text.len() > cells.room() => Err(Unwritten::TooLarge),
        ValueRef::Text(text) => cells.text(&String::from_utf8_lossy(text)),
        ValueRef::Blob(blob) => cells.base64(blob),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use rusqlite::functions::FunctionFlags;

    use super::*;
    use crate::database::{Dialect, RowsRead, check, check_write};
    use crate::tenant::{AccessMode, Resource};

    #[test]
    fn what_is_given_up_before_its_first_step_takes_none() {
        let root = tempfile::tempdir().unwrap();
        let file = Connection::open(root.path().join("shop.db")).unwrap();
        file.execute_batch("CREATE TABLE t (a INTEGER)").unwrap();
        let access = Access { mode: AccessMode::ReadWrite, ..Access::default() };
        let mut worker =
            Worker::open(root.path(), "shop.db", access.clone(), Use::Writing).unwrap();
        let steps = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&steps);
        worker
            .connection
            .create_scalar_function("abs", 1, FunctionFlags::SQLITE_UTF8, move |_| {
                seen.store(true, Ordering::Relaxed);
                Ok(1)
            })
            .unwrap();
        let (resource, limits) = (Resource::Database, Limits::default());
        let query = Query {
            statement: check("SELECT abs(1)", Dialect::Sqlite, &resource, &access, "main").unwrap(),
            params: Vec::new(),
            limit: None,
            read: RowsRead::default(),
        };
        let change = "INSERT INTO t (a) VALUES (abs(1))";
        let write = Write {
            statement: check_write(change, Dialect::Sqlite, &resource, &access, "main").unwrap(),
            params: Vec::new(),
            limit: None,
        };
        for is_given_up in [false, true] {
            let cancelled = || Arc::new(AtomicBool::new(is_given_up));
            let expected = if is_given_up { Some(Error::Cancelled) } else { None };
            assert_eq!(worker.query(&query, &limits, cancelled()).err(), expected);
            assert_eq!(steps.swap(false, Ordering::Relaxed), !is_given_up);
            assert_eq!(worker.write(&write, &limits, cancelled()).err(), expected);
            assert_eq!(steps.swap(false, Ordering::Relaxed), !is_given_up);
        }
    }

    #[test]
    fn a_statement_whose_functions_take_long_is_looked_at_every_few_rows() {
        let root = tempfile::tempdir().unwrap();
        drop(Connection::open(root.path().join("shop.db")).unwrap());
        let access = Access::default();
        let mut worker =
            Worker::open(root.path(), "shop.db", access.clone(), Use::Reading).unwrap();
        let (cancelled, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (cancel, count) = (Arc::clone(&cancelled), Arc::clone(&calls));
        worker
            .connection
            .create_scalar_function("abs", 1, FunctionFlags::SQLITE_UTF8, move |_| {
                cancel.store(true, Ordering::Relaxed);
                count.fetch_add(1, Ordering::Relaxed);
                Ok(1)
            })
            .unwrap();
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                   SELECT sum(abs(i)) FROM n";
        let resource = Resource::Database;
        let query = Query {
            statement: check(sql, Dialect::Sqlite, &resource, &access, "main").unwrap(),
            params: Vec::new(),
            limit: None,
            read: RowsRead::default(),
        };
        let outcome = worker.query(&query, &Limits::default(), cancelled);
        assert_eq!(outcome.err(), Some(Error::Cancelled));
        assert!(calls.load(Ordering::Relaxed) <= 20, "{calls:?}");
    }
}
