//! A session with a `PostgreSQL` server.
//!
//! ```text
//! START TRANSACTION READ ONLY
//! set_config(.., true): search_path, timeouts           bound values, gone with the transaction
//! Parse, Bind; Execute(n rows), Execute(n rows) …       the only way the caller's text travels
//! ROLLBACK                                              nothing of the statement stays
//! ```
//!
//! Protects against: a second statement (the extended protocol takes one); writing; a statement,
//! a row or an answer without bound, also by a hostile server (see `link::Allowance`); a statement
//! that goes on after its caller is gone (dropping the future sends a cancellation). A session
//! that was interrupted says [`Database::is_broken`] and must be replaced.

mod catalogue;
mod link;
mod params;
mod tls;
mod values;

use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use postgres_types::{FromSql, Type};
use tokio_postgres::{Client, Row, Transaction};

use self::link::{Link, OVERHEAD_BYTES};
use self::values::Unreadable;
use super::{
    BoxFuture, Collector, Column, Database, Dialect, Error, Options, Query, QueryResult, Relation,
    Unavailable,
};
use crate::tenant::{Access, ColumnName, Credentials, Limits, PostgresTarget};

/// A logged-in connection.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    link: Link,
    schema: String,
    /// If there are any, relations have to be looked up before they are read: a view or a
    /// partition could show them.
    deny_columns: Vec<ColumnName>,
    broken: bool,
}

/// Rows asked for at first; later as many as should fit.
const FIRST_ROWS: usize = 100;
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
        target: &PostgresTarget,
        credentials: &Credentials,
        access: &Access,
        options: &Options,
    ) -> Result<Self, Error> {
        let (client, link) = Link::open(target, credentials, options).await?;
        Ok(Self {
            client,
            link,
            schema: target.schema.clone(),
            deny_columns: access.deny_columns.clone(),
            broken: false,
        })
    }

    /// Runs `work` in a transaction that ends with it, whatever it does and however it ends.
    ///
    /// Dropped midway, or too long: the server is asked to cancel and the session is broken.
    async fn in_transaction<T>(
        &mut self,
        limits: &Limits,
        work: impl AsyncFnOnce(&Transaction<'_>, &Link) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.is_broken() {
            return Err(Unavailable::Lost.into());
        }
        let allowance = row_allowance(limits);
        self.link.allowance.set(allowance);
        let mut flight = Flight { link: &self.link, broken: &mut self.broken, landed: false };
        *flight.broken = true;
        let run = async {
            let transaction =
                self.client.build_transaction().read_only(true).start().await.map_err(failure)?;
            prepare_transaction(&transaction, &self.schema, limits).await?;
            let outcome = work(&transaction, flight.link).await;
            // Also after a failure: the server is then known to be in step.
            transaction.rollback().await.map_err(failure)?;
            outcome
        };
        let outcome = match tokio::time::timeout(limits.statement_timeout + GRACE, run).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => return Err(Error::Timeout),
        };
        flight.landed = true;
        let exhausted = flight.link.allowance.is_exhausted();
        match outcome {
            Err(Error::Unavailable(_)) if exhausted => Err(Error::TooLarge),
            Err(Error::Unavailable(reason)) => Err(reason.into()),
            settled => {
                *flight.broken = false;
                settled
            }
        }
    }

    async fn run(&mut self, query: &Query, limits: &Limits) -> Result<QueryResult, Error> {
        let (schema, denied) = (self.schema.clone(), self.deny_columns.clone());
        self.in_transaction(limits, async |transaction, link| {
            if !denied.is_empty() {
                catalogue::check_relations(transaction, &query.statement, &schema, &denied).await?;
            }
            let statement = transaction.prepare(query.statement.sql()).await.map_err(failure)?;
            let columns = statement
                .columns()
                .iter()
                .map(|column| Column {
                    name: column.name().to_owned(),
                    type_name: column.type_().name().to_owned(),
                })
                .collect::<Vec<_>>();
            let types: Vec<Type> =
                statement.columns().iter().map(|column| column.type_().clone()).collect();
            if let Some(position) = types.iter().position(|ty| !values::is_supported(ty))
                && let Some(Column { name, type_name }) = columns.get(position).cloned()
            {
                return Err(Error::UnsupportedType { column: name, type_name });
            }
            let values = params::bind(statement.params(), &query.params)?;
            let portal = transaction.bind_raw(&statement, values).await.map_err(failure)?;
            let mut collector = Collector::new(query, limits);
            let mut wanted = FIRST_ROWS.min(collector.rows_left + 1);
            loop {
                let asked = i32::try_from(wanted).unwrap_or(i32::MAX);
                let rows = transaction.query_portal_raw(&portal, asked).await.map_err(failure)?;
                let mut rows = pin!(rows);
                let mut came = 0;
                while let Some(row) = rows.try_next().await.map_err(failure)? {
                    link.allowance.set(row_allowance(limits));
                    came += 1;
                    // What is over the limit still has to be read off the wire.
                    if collector.wants_more() {
                        match decode(&row, &types, collector.bytes_left)? {
                            Some(row) => collector.take(row)?,
                            None => collector.overflow()?,
                        }
                    }
                }
                if came < wanted || !collector.wants_more() {
                    return Ok(collector.finish(columns));
                }
                wanted = next_rows(&collector, limits);
            }
        })
        .await
    }
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
        Box::pin(self.run(query, limits))
    }

    fn relations<'a>(
        &'a mut self,
        access: &'a Access,
    ) -> BoxFuture<'a, Result<Vec<Relation>, Error>> {
        let schema = self.schema.clone();
        Box::pin(self.in_transaction(&CATALOGUE_LIMITS, async move |transaction, link| {
            catalogue::relations(transaction, link, access, &schema).await
        }))
    }

    fn server_version(&mut self) -> BoxFuture<'_, Result<String, Error>> {
        Box::pin(self.in_transaction(&CATALOGUE_LIMITS, async |transaction, _link| {
            let row = transaction
                .query_typed_one("SELECT pg_catalog.current_setting('server_version')", &[])
                .await
                .map_err(failure)?;
            let version: String = row.try_get(0).map_err(failure)?;
            // The number only: what follows is the packager's.
            let number = version.split_whitespace().next().unwrap_or_default();
            Ok(format!("PostgreSQL {}", printable(number, 32)))
        }))
    }

    fn is_broken(&self) -> bool {
        self.broken || self.client.is_closed()
    }
}

/// A statement on its way; not landed when dropped means that nobody waits for it any more.
struct Flight<'a> {
    link: &'a Link,
    broken: &'a mut bool,
    landed: bool,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.landed {
            self.link.cancel();
        }
    }
}

/// A value as the wire has it.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// The values of `row`; `None` when they take more than `bytes` as JSON.
fn decode(
    row: &Row,
    types: &[Type],
    bytes: usize,
) -> Result<Option<Vec<serde_json::Value>>, Error> {
    let mut budget = values::Budget::new(bytes);
    let mut values = Vec::with_capacity(types.len());
    for (position, ty) in types.iter().enumerate() {
        let raw: Option<Raw<'_>> = row.try_get(position).map_err(failure)?;
        match values::json(ty, raw.map(|raw| raw.0), &mut budget) {
            Ok(value) => values.push(value),
            Err(Unreadable::TooLarge) => return Ok(None),
            Err(Unreadable::Malformed) => return Err(Unavailable::Protocol.into()),
        }
    }
    Ok(Some(values))
}

/// Bytes that the server may send for one more row. JSON may be shorter than the wire format, by a
/// factor of four for small numbers.
fn row_allowance(limits: &Limits) -> u64 {
    u64::from(limits.max_result_bytes) * 4 + OVERHEAD_BYTES
}

/// How many rows to ask for next: one more than may be kept, and about as many as have room.
fn next_rows(collector: &Collector, limits: &Limits) -> usize {
    let used = (limits.max_result_bytes as usize).saturating_sub(collector.bytes_left);
    let average = used.checked_div(collector.rows.len()).unwrap_or(1).max(1);
    (collector.bytes_left / average + 1).clamp(1, collector.rows_left + 1)
}

/// Sets what bounds the transaction, and how its text is read. Undone with the transaction.
async fn prepare_transaction(
    transaction: &Transaction<'_>,
    schema: &str,
    limits: &Limits,
) -> Result<(), Error> {
    let millis = |duration: Duration| duration.as_millis().max(1).to_string();
    // Temporary tables last, where they otherwise come first.
    let search_path = format!("\"{}\", pg_temp", schema.replace('"', "\"\""));
    let statement_timeout = millis(limits.statement_timeout);
    let lock_timeout = millis(limits.statement_timeout.min(LOCK_TIMEOUT));
    let idle_timeout = millis(limits.statement_timeout + GRACE);
    transaction
        .query_typed_one(
            "SELECT pg_catalog.set_config('search_path', $1, true), \
             pg_catalog.set_config('statement_timeout', $2, true), \
             pg_catalog.set_config('lock_timeout', $3, true), \
             pg_catalog.set_config('idle_in_transaction_session_timeout', $4, true), \
             pg_catalog.set_config('standard_conforming_strings', 'on', true)",
            &[
                (&search_path, Type::TEXT),
                (&statement_timeout, Type::TEXT),
                (&lock_timeout, Type::TEXT),
                (&idle_timeout, Type::TEXT),
            ],
        )
        .await
        .map_err(failure)?;
    Ok(())
}

/// What a driver's error means, keeping the server's own message and nothing else.
#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn failure(error: tokio_postgres::Error) -> Error {
    let Some(answer) = error.as_db_error() else {
        return match error.to_string().as_str() {
            "unexpected message from server" | "error parsing response from server" => {
                Unavailable::Protocol.into()
            }
            _ => Unavailable::Lost.into(),
        };
    };
    let code = answer.code().code();
    match code {
        // query_canceled: by statement_timeout, since a cancellation of ours has no reader.
        "57014" => Error::Timeout,
        // The server ended the session: idle in the transaction, by its own or an operator's limit.
        "25P03" | "25P04" => Unavailable::Lost.into(),
        // The server is stopping, or an operator ended the session.
        _ if code.starts_with("57P") || code.starts_with("08") => Unavailable::Lost.into(),
        _ => Error::Failed {
            sqlstate: Some(printable(code, 5)),
            message: printable(answer.message(), 500),
        },
    }
}

/// At most `length` characters of `text`, without control characters.
fn printable(text: &str, length: usize) -> String {
    text.chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(length)
        .collect()
}
