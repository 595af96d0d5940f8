//! A change of one table, on the connection that writes.
//!
//! ```text
//! BEGIN IMMEDIATE --> policy with Changes --> statement, rows counted --> policy off --> COMMIT
//!                                                   \-- any failure, too many --> ROLLBACK
//! ```
//!
//! The authorizer lets the statement change its one table. What the engine then does by itself is
//! the tenant's own schema: triggers, which it names as the accessor, and foreign keys, defaults and
//! checks, for which it names nobody, so that what they lead to is looked up before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::{ErrorCode, Row, ffi};
use tokio::time::Instant;

use super::catalogue;
use super::confine::Policy;
use super::watch::{Watch, text_of};
use super::worker::{Worker, bind, columns_of, keep};
use crate::database::rows::Collector;
use crate::database::{Error, Refusal, Write, WriteResult};
use crate::tenant::Limits;

/// Longest wait for another who writes or, to make a change final, reads.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a change may touch beyond what its text names. Names are in lower case.
#[derive(Debug)]
pub(super) struct Changes {
    target: String,
    triggers: BTreeSet<String>,
    /// Tables that foreign keys change with it.
    followers: BTreeSet<String>,
    /// Columns that foreign keys are looked up by, with their tables.
    keys: BTreeSet<(String, String)>,
    /// Every word of the definitions of the tables that it reaches, functions among them.
    words: BTreeSet<String>,
}

impl Changes {
    pub(super) fn is_target(&self, table: &str) -> bool {
        self.target.eq_ignore_ascii_case(table)
    }

    pub(super) fn is_trigger(&self, name: &str) -> bool {
        self.triggers.contains(&name.to_ascii_lowercase())
    }

    pub(super) fn follows(&self, table: &str) -> bool {
        self.followers.contains(&table.to_ascii_lowercase())
    }

    /// Whether a default, check or index of the tenant's own may call `function`.
    pub(super) fn may_call(&self, function: &str) -> bool {
        self.words.contains(&function.to_ascii_lowercase())
    }

    pub(super) fn is_key(&self, table: &str, column: &str) -> bool {
        self.keys.contains(&(table.to_ascii_lowercase(), column.to_ascii_lowercase()))
    }
}

struct Trigger {
    name: String,
    table: String,
}

/// A foreign key, column by column.
struct Key {
    child: String,
    child_column: String,
    parent: String,
    parent_column: String,
    /// Whether rows of the child change with those of the parent.
    acts: bool,
}

impl Worker {
    /// Makes the change, or none.
    pub(super) fn write(
        &mut self,
        write: &Write,
        limits: &Limits,
        cancelled: Arc<AtomicBool>,
    ) -> Result<WriteResult, Error> {
        let watch = Watch::new(limits.statement_timeout, cancelled);
        self.begin(&watch)?;
        self.repeat("BEGIN IMMEDIATE", || watch.should_stop()).map_err(|error| {
            if watch.should_stop() { watch.stopped() } else { failure(&watch, &error) }
        })?;
        let outcome = self.change(write, limits, &watch);
        self.connection.flush_prepared_statement_cache();
        // Also takes the policy away, under which no transaction ends.
        let outcome = self.begin(&watch).and(outcome).and_then(|result| {
            watch.decide()?;
            Ok(result)
        });
        match outcome {
            Ok(result) => self.commit(&watch).map(|()| result),
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    fn change(
        &mut self,
        write: &Write,
        limits: &Limits,
        watch: &Watch,
    ) -> Result<WriteResult, Error> {
        let uses = write.statement.uses();
        let is_running = Arc::new(AtomicBool::new(false));
        let mut schema = self.schema(uses, watch)?;
        self.check_target(&write.statement.target().name, watch)?;
        let changes = self.changes(&write.statement.target().name, watch)?;
        if !changes.triggers.is_empty() {
            schema.views = self.views(watch)?;
            schema.has_virtual_table |= self.connect_virtual_tables(watch)?;
        }
        let policy = Policy {
            uses: uses.clone(),
            access: self.access.clone(),
            schema,
            changes: Some(changes),
            is_running: Arc::clone(&is_running),
        };
        let authorizer = move |context: rusqlite::hooks::AuthContext<'_>| policy.decide(&context);
        self.connection.authorizer(Some(authorizer)).map_err(|error| failure(watch, &error))?;
        let failed = |error: rusqlite::Error| failure(watch, &error);
        let mut statement = self.connection.prepare(write.statement.sql()).map_err(failed)?;
        if statement.readonly() {
            return Err(Refusal::new("statement-kind", "only a change of rows may run").into());
        }
        is_running.store(true, Ordering::Relaxed);
        let columns = columns_of(&statement);
        bind(&mut statement, &write.params, watch)?;
        let most = write.most_rows(limits);
        let mut collector = Collector::of(most, limits.max_result_bytes);
        if watch.should_stop() {
            return Err(watch.stopped());
        }
        let mut rows = statement.raw_query();
        // All is changed before the first row comes; with those of RETURNING it ends.
        while collector.wants_more()
            && let Some(row) = rows.next().map_err(failed)?
        {
            keep(row, columns.len(), &mut collector, watch).map_err(Error::of_change)?;
        }
        let changed = self.connection.changes();
        if changed > u64::from(most) {
            return Err(Error::TooManyChanges { limit: most });
        }
        if !collector.wants_more() {
            return Err(Error::ReturnedTooLarge);
        }
        drop(rows);
        drop(statement);
        let returned = collector.finish(columns);
        Ok(WriteResult { changed, columns: returned.columns, rows: returned.rows })
    }

    /// Refuses to change anything but an ordinary table: a view has none of its own, and what a
    /// virtual one does with a row is for its module to know.
    fn check_target(&self, target: &str, watch: &Watch) -> Result<(), Error> {
        let is_ordinary = self.connection.query_row(
            "SELECT count(*) FROM main.sqlite_schema \
             WHERE type = 'table' AND rootpage <> 0 AND name = ?1 COLLATE NOCASE",
            [target],
            |row| row.get::<_, bool>(0),
        );
        if is_ordinary.map_err(|error| failure(watch, &error))? {
            return Ok(());
        }
        Err(Refusal::new("relation", "only rows of an ordinary table may be changed").into())
    }

    fn changes(&self, target: &str, watch: &Watch) -> Result<Changes, Error> {
        let listed = || -> rusqlite::Result<(Vec<Trigger>, Vec<Key>)> {
            let triggers = self
                .connection
                .prepare(
                    "SELECT lower(name), lower(tbl_name) FROM main.sqlite_schema \
                     WHERE type = 'trigger'",
                )?
                .query_map([], |row| Ok(Trigger { name: row.get(0)?, table: row.get(1)? }))?
                .collect::<rusqlite::Result<_>>()?;
            let key = |row: &Row<'_>| {
                Ok(Key {
                    child: row.get(0)?,
                    child_column: row.get(1)?,
                    parent: row.get(2)?,
                    parent_column: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
                    acts: row.get(4)?,
                })
            };
            // A key that names no column of its parent means its primary key.
            let keys = self
                .connection
                .prepare(
                    "SELECT lower(s.name), lower(k.\"from\"), lower(k.\"table\"), \
                     lower(coalesce(k.\"to\", (SELECT p.name \
                     FROM pragma_table_info(k.\"table\", 'main') p WHERE p.pk = k.seq + 1))), \
                     k.on_update NOT IN ('NO ACTION', 'RESTRICT') \
                     OR k.on_delete NOT IN ('NO ACTION', 'RESTRICT') \
                     FROM main.sqlite_schema s, pragma_foreign_key_list(s.name, 'main') k \
                     WHERE s.type = 'table'",
                )?
                .query_map([], key)?
                .collect::<rusqlite::Result<_>>()?;
            Ok((triggers, keys))
        };
        let (triggers, keys) = listed().map_err(|error| failure(watch, &error))?;
        let (mut changes, is_anywhere) = reach(target.to_ascii_lowercase(), triggers, keys);
        let defined = || -> rusqlite::Result<BTreeSet<String>> {
            let mut statement = self.connection.prepare(
                "SELECT lower(tbl_name), lower(sql) FROM main.sqlite_schema \
                 WHERE type IN ('table', 'index') AND sql IS NOT NULL",
            )?;
            let mut rows = statement.query([])?;
            let mut words = BTreeSet::new();
            while let Some(row) = rows.next()? {
                let (table, sql): (String, String) = (row.get(0)?, row.get(1)?);
                if is_anywhere || changes.target == table || changes.followers.contains(&table) {
                    let of_name = |it: char| it == '_' || it.is_alphanumeric();
                    let found = sql.split(|it| !of_name(it)).filter(|word| !word.is_empty());
                    words.extend(found.map(str::to_owned));
                }
            }
            Ok(words)
        };
        changes.words = defined().map_err(|error| failure(watch, &error))?;
        Ok(changes)
    }

    /// Connects all virtual tables, which triggers may change, and says whether there are any; see
    /// [`Self::schema`].
    fn connect_virtual_tables(&self, watch: &Watch) -> Result<bool, Error> {
        let listed = || -> rusqlite::Result<Vec<String>> {
            let mut statement = self.connection.prepare(
                "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0",
            )?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        let names = listed().map_err(|error| failure(watch, &error))?;
        names
            .iter()
            .try_for_each(|name| catalogue::touch(&self.connection, name))
            .map_err(|error| failure(watch, &error))?;
        Ok(!names.is_empty())
    }

    fn commit(&mut self, watch: &Watch) -> Result<(), Error> {
        // Nothing stops it midway: whoever waits was told that it is too late for that.
        let undisturbed = self.connection.progress_handler(0, None::<fn() -> bool>);
        let committed = undisturbed.and_then(|()| self.repeat("COMMIT", || false));
        let Err(error) = committed else { return Ok(()) };
        // A file that failed may have the change or not.
        if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) {
            self.roll_back();
            return Err(Error::OutcomeUnknown);
        }
        self.roll_back();
        Err(failure(watch, &error))
    }

    /// Undoes what was begun. Where that fails too, the connection is closed, which does it.
    fn roll_back(&mut self) {
        if self.connection.is_autocommit() {
            return;
        }
        let undisturbed = self.connection.progress_handler(0, None::<fn() -> bool>);
        if let Err(error) = undisturbed.and_then(|()| self.connection.execute_batch("ROLLBACK")) {
            let code = error.sqlite_error_code();
            tracing::debug!(?code, "a change was undone by closing its connection");
        }
    }

    /// Runs `sql` until nobody is in the way, `should_stop` or the time is over. The engine waits a
    /// while before each failure.
    fn repeat(&self, sql: &str, should_stop: impl Fn() -> bool) -> rusqlite::Result<()> {
        let began = Instant::now();
        loop {
            let Err(error) = self.connection.execute_batch(sql) else { return Ok(()) };
            let is_busy = error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
            if !is_busy || should_stop() || began.elapsed() >= LOCK_TIMEOUT {
                return Err(error);
            }
            std::thread::yield_now();
        }
    }
}

/// Follows foreign keys from `target`, and from anywhere once a trigger may have been there: says
/// whether that is so.
fn reach(target: String, triggers: Vec<Trigger>, keys: Vec<Key>) -> (Changes, bool) {
    let mut followers = BTreeSet::new();
    let mut is_anywhere = false;
    loop {
        let before = (followers.len(), is_anywhere);
        is_anywhere |=
            triggers.iter().any(|it| it.table == target || followers.contains(&it.table));
        for key in keys.iter().filter(|key| key.acts) {
            if is_anywhere || key.parent == target || followers.contains(&key.parent) {
                followers.insert(key.child.clone());
            }
        }
        if (followers.len(), is_anywhere) == before {
            break;
        }
    }
    let is_reached = |table: &String| is_anywhere || *table == target || followers.contains(table);
    let reached = keys.into_iter().filter(|key| is_reached(&key.child) || is_reached(&key.parent));
    let keys = reached
        .flat_map(|key| [(key.child, key.child_column), (key.parent, key.parent_column)])
        .collect();
    let triggers = triggers.into_iter().map(|trigger| trigger.name).collect();
    (Changes { target, triggers, followers, keys, words: BTreeSet::new() }, is_anywhere)
}

const FOREIGN_KEY: &str =
    "a foreign key does not hold: a row that is referred to is missing, or is still referred to";

/// What an error of the engine means to somebody who writes.
fn failure(watch: &Watch, error: &rusqlite::Error) -> Error {
    let message = match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            return not_writable();
        }
        Some(ErrorCode::DiskFull) => "the disk of the database is full, so nothing was changed",
        Some(ErrorCode::TooBig) => "a value or row is longer than 1 MiB, the most that is written",
        Some(ErrorCode::ConstraintViolation) => match error
            .sqlite_error()
            .map(|it| it.extended_code)
        {
            Some(ffi::SQLITE_CONSTRAINT_CHECK) => "a value breaks a check of the table",
            Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => FOREIGN_KEY,
            // How RESTRICT fails.
            Some(ffi::SQLITE_CONSTRAINT_TRIGGER)
                if text_of(error) == "FOREIGN KEY constraint failed" =>
            {
                FOREIGN_KEY
            }
            Some(ffi::SQLITE_CONSTRAINT_NOTNULL) => "a column that needs a value has none",
            Some(
                ffi::SQLITE_CONSTRAINT_PRIMARYKEY
                | ffi::SQLITE_CONSTRAINT_ROWID
                | ffi::SQLITE_CONSTRAINT_UNIQUE,
            ) => "a row with the same key is there already",
            Some(ffi::SQLITE_CONSTRAINT_TRIGGER) => "a trigger of the database refused the change",
            _ => "a constraint of the table does not hold",
        },
        _ => return watch.failure(error),
    };
    Error::Failed { sqlstate: None, message: message.to_owned(), position: None }
}

/// The file's own permissions, or those of its folder, in which a journal is made.
pub(super) fn not_writable() -> Error {
    let message = "this service may not write the database's file or the folder that it is in; its \
                   operator can allow it";
    Error::Failed { sqlstate: None, message: message.to_owned(), position: None }
}
