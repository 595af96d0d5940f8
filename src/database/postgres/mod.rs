//! A session with a `PostgreSQL` server.
//!
//! ```text
//! Session --link--> dial, TLS, login (the driver's), cancellation
//!    |--resolution-> what names mean also in the tenant's own schema, once a minute
//!    |--change--> BEGIN READ WRITE, limits, statement; when all of it is seen, COMMIT
//!    \--transaction--> one flight: BEGIN READ ONLY, limits, statement, ROLLBACK
//!          \--statements--> what the server has read and planned before
//!          \--wire--> messages, bounded before they are read
//! ```
//!
//! Protects against: a second statement (the extended protocol takes one); writing by a query; a statement,
//! a row or an answer without bound, also by a hostile server; a statement that goes on after its
//! caller is gone (dropping the future sends a cancellation); an address that no database should
//! have. A session that was interrupted says [`Database::is_broken`] and must be replaced.
//!
//! `Execute` asks for one row more than may be kept, so the server stops by itself; for that it
//! plans without parallel workers.

mod address;
mod catalogue;
mod change;
mod explain;
mod failure;
mod link;
mod params;
mod privileges;
mod relations;
mod resolution;
mod statements;
mod stream;
mod tls;
mod transaction;
mod values;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

pub use self::address::AddressPolicy;

use self::failure::printable;
use self::link::{DateOrder, Link, LoggedIn};
use self::resolution::OwnNames;
use self::transaction::{
    KnownTypes, LocalSettings, Memory, Purpose, Sink, Transaction, parameters,
};
use self::values::ValueType;
use self::wire::{Body, Malformed, Message, Wire};
use super::catalogue::Kept;
use super::rows::{Collector, Unwritten};
use super::{
    BoxFuture, Catalogue, Column, Database, Dialect, Error, ExcessPrivilege, Options, PlanNode,
    Query, QueryResult, Relation, Unavailable, Write, WriteResult,
};
use crate::tenant::{
    Access, AccessMode, ColumnName, Credentials, Limits, PostgresTarget, RelationName, TenantConfig,
};

/// A logged-in connection.
pub(super) struct Session {
    wire: Wire,
    link: Link,
    memory: Memory,
    date_order: DateOrder,
    schema: String,
    mode: AccessMode,
    /// A setting and its value, by which policies tell the tenant.
    tenant: Option<(String, String)>,
    /// If there are any, relations have to be looked up before they are read: a view or a
    /// partition could show them.
    deny_columns: Vec<ColumnName>,
    own_names: Option<OwnNames>,
    catalogue: Kept<String>,
    broken: bool,
}

/// How long an answer may come after the server should have given up by itself.
const GRACE: Duration = Duration::from_secs(2);
/// Longest wait for a lock; only DDL of the tenant's own makes a reader wait.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// For questions of our own to the catalogue.
const CATALOGUE_LIMITS: Limits = Limits {
    statement_timeout: Duration::from_secs(30),
    max_rows: u32::MAX,
    max_result_bytes: 16 << 20,
};

impl Session {
    pub(super) async fn open(
        config: &TenantConfig,
        target: &PostgresTarget,
        credentials: &Credentials,
        options: &Options,
    ) -> Result<Self, Error> {
        let LoggedIn { link, stream, date_order } =
            Link::open(target, credentials, options).await?;
        Ok(Self {
            wire: Wire::new(stream),
            link,
            memory: Memory::default(),
            date_order,
            schema: target.schema.clone(),
            mode: config.access.mode,
            tenant: target.tenant_variable.clone().map(|name| (name, config.id.to_string())),
            deny_columns: config.access.deny_columns.clone(),
            own_names: None,
            catalogue: Kept::default(),
            broken: false,
        })
    }

    /// Runs `work` in a transaction that ends with it, whatever it does and however it ends.
    ///
    /// Dropped midway, or too long: the server is asked to cancel and the session is broken.
    async fn in_transaction<T>(
        &mut self,
        limits: &Limits,
        work: impl AsyncFnOnce(&mut Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.broken {
            return Err(Unavailable::Lost.into());
        }
        if self.link.has_ended() {
            self.broken = true;
            return Err(Unavailable::Stale.into());
        }
        let settings = self.settings(limits);
        let mut underway = Underway { link: &self.link, broken: &mut self.broken, landed: false };
        *underway.broken = true;
        let mut transaction =
            Transaction::new(&mut self.wire, underway.link, &mut self.memory, settings);
        let run = async {
            let outcome = work(&mut transaction).await;
            if let Err(Error::OutcomeUnknown | Error::Unavailable(_)) = outcome {
                return outcome;
            }
            // Also after a failure: the server is then known to be in step.
            transaction.end().await?;
            outcome
        };
        let outcome = match tokio::time::timeout(limits.statement_timeout + GRACE, run).await {
            Ok(outcome) => outcome,
            Err(_elapsed) if transaction.purpose == Purpose::Committing => {
                return Err(Error::OutcomeUnknown);
            }
            Err(_elapsed) => return Err(Error::Timeout),
        };
        let is_settled = transaction.is_settled();
        underway.landed = true;
        *underway.broken =
            matches!(outcome, Err(Error::OutcomeUnknown | Error::Unavailable(_))) || !is_settled;
        outcome
    }

    /// What bounds a transaction, and how its text is read and its values are written. Undone with
    /// the transaction.
    fn settings(&self, limits: &Limits) -> LocalSettings {
        let millis = |duration: Duration| duration.as_millis().max(1).to_string();
        let settings = [
            // Temporary tables last, where they otherwise come first.
            ("search_path", format!("\"{}\", pg_temp", self.schema.replace('"', "\"\""))),
            ("statement_timeout", millis(limits.statement_timeout)),
            ("lock_timeout", millis(limits.statement_timeout.min(LOCK_TIMEOUT))),
            (
                "idle_in_transaction_session_timeout",
                millis(limits.statement_timeout.saturating_add(GRACE)),
            ),
            ("standard_conforming_strings", "on".to_owned()),
            // What `values` reads.
            ("DateStyle", self.date_order.iso_style().to_owned()),
            ("IntervalStyle", "postgres".to_owned()),
            ("bytea_output", "hex".to_owned()),
            // All digits, also from servers before version 12.
            ("extra_float_digits", "3".to_owned()),
        ];
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value));
        LocalSettings(settings.chain(self.tenant.clone()).collect())
    }

    /// Runs `sql`, which is the statement of `query` or an explanation of it.
    async fn answer(
        &mut self,
        query: &Query,
        sql: &str,
        limits: &Limits,
    ) -> Result<QueryResult, Error> {
        let (schema, denied) = (self.schema.clone(), self.deny_columns.clone());
        let mut own_names = self.own_names.take();
        let work = self.in_transaction(limits, async |transaction| {
            let uses = query.statement.uses();
            resolution::check(&mut own_names, transaction, &schema, uses).await?;
            if !denied.is_empty() {
                catalogue::check_relations(transaction, uses, &schema, &denied).await?;
            }
            let values = bound(transaction, sql, &query.params).await?;
            let mut answer = Answer::new(Collector::new(query, limits), limits);
            let rows = answer.collector.rows_left().saturating_add(1);
            // The types that this session has met; the others are asked for when the rows are here.
            let outcome = transaction.run(sql, &values, rows, &mut answer).await;
            if let Some(expected) = answer.parameters.filter(|count| *count != values.len()) {
                return Err(Error::ParameterCount { expected, given: values.len() });
            }
            outcome?;
            let types = transaction.types(&answer.oids).await?;
            answer.finish(&types)
        });
        let result = work.await;
        self.own_names = own_names;
        result
    }
}

/// `params` as the statement's types want them.
async fn bound(
    transaction: &mut Transaction<'_>,
    sql: &str,
    params: &[Value],
) -> Result<Vec<Option<String>>, Error> {
    if params.is_empty() {
        return Ok(Vec::new());
    }
    let types = transaction.parameters(sql).await?;
    params::bind(&types, params)
}

/// The answer to a statement while it comes in: rows are kept as they came until all is known
/// about their types.
struct Answer {
    collector: Collector,
    /// How many parameters the statement has.
    parameters: Option<usize>,
    names: Vec<String>,
    oids: Vec<u32>,
    /// `None` while there is a type that has to be asked for.
    types: Option<Vec<ValueType>>,
    /// Rows whose types are not known.
    held: Vec<Vec<u8>>,
    held_left: usize,
    /// There were more than could be held.
    is_held_full: bool,
}

impl Answer {
    fn new(collector: Collector, limits: &Limits) -> Self {
        Self {
            collector,
            parameters: None,
            names: Vec::new(),
            oids: Vec::new(),
            types: None,
            held: Vec::new(),
            held_left: longest_text(limits.max_result_bytes as usize),
            is_held_full: false,
        }
    }

    fn finish(mut self, types: &[ValueType]) -> Result<QueryResult, Error> {
        for row in std::mem::take(&mut self.held) {
            if self.collector.wants_more() {
                keep(&mut self.collector, types, Body::of(&row))?;
            }
        }
        if self.is_held_full {
            self.collector.overflow()?;
        }
        let columns = self.names.into_iter().zip(types);
        let columns = columns
            .map(|(name, value_type)| Column { name, type_name: value_type.name.clone() })
            .collect();
        Ok(self.collector.finish(columns))
    }
}

/// The most that the server writes for what is `bytes` of JSON: two hexadecimal digits for what is
/// four thirds of a character.
fn longest_text(bytes: usize) -> usize {
    bytes.saturating_mul(2).saturating_add(1 << 10)
}

fn keep(collector: &mut Collector, types: &[ValueType], row: Body<'_>) -> Result<(), Error> {
    collector.row(Unavailable::Protocol.into(), |cells| {
        let malformed = |_: Malformed| Unwritten::Malformed;
        let mut types = types.iter();
        for cell in row.cells().map_err(malformed)? {
            let value_type = types.next().ok_or(Unwritten::Malformed)?;
            values::write(&value_type.form, cell.map_err(malformed)?.as_deref(), cells)?;
        }
        if types.next().is_none() { Ok(()) } else { Err(Unwritten::Malformed) }
    })
}

impl Sink for Answer {
    fn longest_row(&self) -> usize {
        longest_text(self.collector.bytes_left()).min(self.held_left)
    }

    fn take(&mut self, message: Message<'_>, known: &KnownTypes) -> Result<(), Error> {
        match message {
            Message::Parameters(body) => {
                self.parameters = Some(parameters(body).map_err(Unavailable::from)?.len());
            }
            Message::Columns(body) => {
                let columns = columns(body).map_err(Unavailable::from)?;
                (self.names, self.oids) = columns.into_iter().unzip();
                self.types = known.all(&self.oids);
            }
            Message::Row(body) => {
                if let Some(types) = &self.types {
                    return keep(&mut self.collector, types, body);
                }
                self.held_left = self.held_left.saturating_sub(body.len());
                self.held.push(body.to_vec());
            }
            Message::LongRow(_) if !self.held.is_empty() => self.is_held_full = true,
            Message::LongRow(_) => self.collector.overflow()?,
            Message::Parsed
            | Message::Bound
            | Message::Completed(_)
            | Message::Done
            | Message::Failed(_)
            | Message::Ready { .. }
            | Message::Other => {}
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.is_held_full || !self.collector.wants_more()
    }
}

/// Names and the numbers of types.
fn columns(mut body: Body<'_>) -> Result<Vec<(String, u32)>, Malformed> {
    let count = body.count()?;
    let column = |_| body.column().map(|(name, oid)| (name.to_owned(), oid));
    (0..count).map(column).collect()
}

impl Database for Session {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn query<'a>(
        &'a mut self,
        query: &'a Query,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<QueryResult, Error>> {
        Box::pin(self.answer(query, query.statement.sql(), limits))
    }

    fn write<'a>(
        &'a mut self,
        write: &'a Write,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<WriteResult, Error>> {
        Box::pin(self.change(write, limits))
    }

    fn catalogue<'a>(
        &'a mut self,
        access: &'a Access,
    ) -> BoxFuture<'a, Result<Arc<Catalogue>, Error>> {
        Box::pin(async move {
            let schema = self.schema.clone();
            let mut kept = std::mem::take(&mut self.catalogue);
            let work = self.in_transaction(&CATALOGUE_LIMITS, async |transaction| {
                relations::catalogue(transaction, &mut kept, access, &schema).await
            });
            let catalogue = work.await;
            self.catalogue = kept;
            catalogue
        })
    }

    fn describe<'a>(
        &'a mut self,
        access: &'a Access,
        names: &'a [RelationName],
    ) -> BoxFuture<'a, Result<Vec<Relation>, Error>> {
        let schema = self.schema.clone();
        Box::pin(self.in_transaction(&CATALOGUE_LIMITS, async move |transaction| {
            relations::describe(transaction, access, names, &schema).await
        }))
    }

    fn explain<'a>(
        &'a mut self,
        query: &'a Query,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<PlanNode, Error>> {
        Box::pin(self.plan(query, limits))
    }

    fn server_version(&mut self) -> BoxFuture<'_, Result<String, Error>> {
        Box::pin(self.in_transaction(&CATALOGUE_LIMITS, async |transaction| {
            let mut version = String::new();
            let sql = "SELECT pg_catalog.current_setting('server_version')";
            transaction
                .ask(sql, &[], |cells| {
                    let text = cells.first().and_then(Option::as_deref).unwrap_or_default();
                    // The number only: what follows is the packager's.
                    let number = text.split_whitespace().next().unwrap_or_default();
                    version = format!("PostgreSQL {}", printable(number, 32));
                    Ok(())
                })
                .await?;
            Ok(version)
        }))
    }

    fn excess_privileges(&mut self) -> BoxFuture<'_, Result<Vec<ExcessPrivilege>, Error>> {
        let schema = self.schema.clone();
        Box::pin(self.in_transaction(&CATALOGUE_LIMITS, async move |transaction| {
            privileges::excess(transaction, &schema).await
        }))
    }

    fn ping(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(
            self.in_transaction(&CATALOGUE_LIMITS, async |transaction| transaction.ping().await),
        )
    }

    fn is_broken(&self) -> bool {
        self.broken || self.link.has_ended()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.broken {
            // A courtesy: the server notices the closed connection as well.
            drop(self.wire.terminate());
        }
    }
}

/// A statement on its way; not landed when dropped means that nobody waits for it any more.
struct Underway<'a> {
    link: &'a Link,
    broken: &'a mut bool,
    landed: bool,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if !self.landed {
            self.link.abandon();
        }
    }
}
