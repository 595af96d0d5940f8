//! A transaction, flight by flight: read only, unless it is to change rows (`change`).
//!
//! ```text
//! START TRANSACTION READ ONLY
//! set_config(.., true): search_path, timeouts, styles   bound values, gone with the transaction
//! Parse, Describe, Bind, Execute(rows + 1)              the only way the caller's text travels
//! ROLLBACK, pg_advisory_unlock_all, Sync                nothing of the statement stays
//! ```
//!
//! All of it is one flight where nothing has to be known first; a statement that the server has
//! (`statements`) is bound only. After an error the server reads on behind `Sync`, and the end is
//! another flight. A server that has forgotten what it had is told anew, once, before anything ran.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::failure::{OTHER_TYPES, QUERY_CANCELED, ServerError, UNKNOWN_STATEMENT};
use super::link::Link;
use super::params;
use super::statements::{Kept, Shape, Statements};
use super::values::{Form, ValueType};
use super::wire::{Body, Flight, Limit, Malformed, Message, Wire};
use crate::database::{Error, Unavailable};

/// Our statements on the server, which keeps them for as long as the session lasts.
const BEGIN: &str = "tenantry_begin";
const BEGIN_CHANGE: &str = "tenantry_begin_change";
pub(super) const COMMIT: &str = "tenantry_commit";
const LIMITS: &str = "tenantry_limits";
const END: &str = "tenantry_end";
pub(super) const UNLOCK: &str = "tenantry_unlock";
/// Bytes of rows that are read and dropped before the server is asked to stop.
const PATIENCE: usize = 1 << 20;
/// Longest row of the catalogue.
pub(super) const MAX_CATALOGUE_ROW: usize = 1 << 20;
/// Most bytes of the catalogue that one question may have for an answer.
const MAX_CATALOGUE: usize = 64 << 20;

/// What holds within a transaction: settings and their values.
#[derive(Clone, Debug)]
pub(super) struct LocalSettings(pub(super) Vec<(String, String)>);

/// What a session keeps from one transaction to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Whether the statements of ours are on the server.
    is_prepared: bool,
    /// Whether those are that only a change needs.
    is_prepared_for_changes: bool,
    statements: Statements,
    types: KnownTypes,
}

/// What the answers to a flight say beside those to its statement.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Whether the server has read the statement's text.
    is_parsed: bool,
    shape: Shape,
    lapse: Option<Lapse>,
}

/// What a server no longer has, so that nothing of the flight ran.
#[derive(Clone, Copy, Debug)]
enum Lapse {
    /// Statements of ours.
    Session,
    /// The statement, or the types that it had.
    Statement,
}

/// A statement on its way.
#[derive(Default)]
pub(super) struct Sent {
    /// What the server has of it.
    known: Option<Arc<Kept>>,
    /// What the server is to call it.
    name: Option<String>,
}

/// Types that need no question: built in, or met before.
#[derive(Debug, Default)]
pub(super) struct KnownTypes(HashMap<u32, ValueType>);

impl KnownTypes {
    fn one(&self, oid: u32) -> Option<ValueType> {
        ValueType::built_in(oid).or_else(|| self.0.get(&oid).cloned())
    }

    /// The types with these numbers, in order, if all are known.
    pub(super) fn all(&self, oids: &[u32]) -> Option<Vec<ValueType>> {
        oids.iter().map(|oid| self.one(*oid)).collect()
    }
}

/// Types of tenants' own that a session remembers; more are looked up anew.
const MAX_TYPES: usize = 1_000;

/// What reads the rows of a statement.
pub(super) trait Sink: Send {
    /// Rows beyond it are not read.
    fn longest_row(&self) -> usize;

    /// Takes what the server answers to the statement: its types, its rows.
    ///
    /// # Errors
    ///
    /// Any; nothing is taken after that.
    fn take(&mut self, message: Message<'_>, types: &KnownTypes) -> Result<(), Error>;

    /// Whether rows are of no more use.
    fn is_full(&self) -> bool;
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    Reading,
    /// It may change rows.
    Changing,
    /// Its change is being made final, and may be by now.
    Committing,
}

/// A transaction on the server, or none: it begins with the next flight.
pub(super) struct Transaction<'a> {
    pub(super) wire: &'a mut Wire,
    link: &'a Link,
    memory: &'a mut Memory,
    settings: LocalSettings,
    pub(super) is_open: bool,
    pub(super) purpose: Purpose,
    /// The server was asked to stop and has not: nobody knows what will be.
    pub(super) is_uncertain: bool,
    /// Gives a word when what it was asked by has come to it, and strikes nothing any more.
    cancelling: Option<oneshot::Receiver<()>>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        wire: &'a mut Wire,
        link: &'a Link,
        memory: &'a mut Memory,
        settings: LocalSettings,
    ) -> Self {
        Self {
            wire,
            link,
            memory,
            settings,
            is_open: false,
            purpose: Purpose::Reading,
            is_uncertain: false,
            cancelling: None,
        }
    }

    /// Whether the session may be used again.
    pub(super) fn is_settled(&self) -> bool {
        !self.is_open && !self.is_uncertain
    }

    /// Begins a flight; says after how many statements that which follows is answered.
    fn flight(&mut self) -> (Flight, usize) {
        let mut flight = Flight::default();
        if self.is_open {
            return (flight, 0);
        }
        let (names, values): (Vec<String>, Vec<Option<String>>) =
            self.settings.0.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).unzip();
        self.memory.statements.close(&mut flight);
        if !self.memory.is_prepared {
            let calls: Vec<String> = (1..=names.len())
                .map(|place| {
                    format!("pg_catalog.set_config(${}, ${}, true)", 2 * place - 1, 2 * place)
                })
                .collect();
            for (name, sql) in [
                (BEGIN, "START TRANSACTION READ ONLY"),
                (END, "ROLLBACK"),
                (UNLOCK, "SELECT pg_catalog.pg_advisory_unlock_all()"),
                (LIMITS, &format!("SELECT {}", calls.join(", "))),
            ] {
                // Left by another session, where a proxy shares connections.
                flight.close(name);
                flight.parse(name, sql);
            }
            self.memory.is_prepared = true;
        }
        let changes = self.purpose != Purpose::Reading;
        if changes && !self.memory.is_prepared_for_changes {
            for (name, sql) in [(BEGIN_CHANGE, "START TRANSACTION READ WRITE"), (COMMIT, "COMMIT")]
            {
                flight.close(name);
                flight.parse(name, sql);
            }
            self.memory.is_prepared_for_changes = true;
        }
        flight.bind::<&str>(if changes { BEGIN_CHANGE } else { BEGIN }, &[]);
        flight.execute(Limit::None);
        let pairs: Vec<Option<String>> = names
            .into_iter()
            .map(Some)
            .zip(values)
            .flat_map(|(name, value)| [name, value])
            .collect();
        flight.bind(LIMITS, &pairs);
        flight.execute(Limit::None);
        self.is_open = true;
        (flight, 2)
    }

    /// Ends the transaction with the flight.
    fn finish(flight: &mut Flight) {
        flight.bind::<&str>(END, &[]);
        flight.execute(Limit::None);
        flight.bind::<&str>(UNLOCK, &[]);
        flight.execute(Limit::None);
        flight.sync();
    }

    /// Ends the transaction, if there is one.
    pub(super) async fn end(&mut self) -> Result<(), Error> {
        if !self.is_open {
            return Ok(());
        }
        let mut flight = Flight::default();
        Self::finish(&mut flight);
        self.wire.send(&flight).await?;
        self.answers(usize::MAX, false, &mut Heard::default(), &mut Nothing).await?;
        if self.is_open { Err(Unavailable::Protocol.into()) } else { Ok(()) }
    }

    /// Waits for the server to answer a flight without anything in it. Begins nothing.
    pub(super) async fn ping(&mut self) -> Result<(), Error> {
        let mut flight = Flight::default();
        flight.sync();
        self.wire.send(&flight).await?;
        self.answers(0, false, &mut Heard::default(), &mut Nothing).await
    }

    /// The types of the statement's parameters.
    pub(super) async fn parameters(&mut self, sql: &str) -> Result<Vec<ValueType>, Error> {
        struct Types(Vec<u32>);
        impl Sink for Types {
            fn longest_row(&self) -> usize {
                0
            }
            fn take(&mut self, message: Message<'_>, _: &KnownTypes) -> Result<(), Error> {
                if let Message::Parameters(body) = message {
                    self.0 = parameters(body).map_err(Unavailable::from)?;
                }
                Ok(())
            }
            fn is_full(&self) -> bool {
                false
            }
        }
        let mut types = Types(Vec::new());
        if let Some(kept) = self.memory.statements.find(sql) {
            types.0 = parameters(Body::of(&kept.shape.parameters)).map_err(Unavailable::from)?;
        } else {
            // Its values will be others the next time, and it the same.
            let name = self.memory.statements.name(sql, true);
            let compose = |flight: &mut Flight, sent: &Sent| sent.parse(flight, sql);
            self.exchange(sql, Sent { known: None, name }, compose, &mut types).await?;
        }
        self.types(&types.0).await
    }

    /// Runs the statement for at most `rows` rows and ends the transaction.
    pub(super) async fn run(
        &mut self,
        sql: &str,
        values: &[Option<String>],
        rows: usize,
        sink: &mut dyn Sink,
    ) -> Result<(), Error> {
        let compose = |flight: &mut Flight, sent: &Sent| {
            sent.bind(flight, sql, values);
            flight.execute(Limit::Rows(rows));
            Self::finish(flight);
        };
        let sent = self.find(sql);
        self.exchange(sql, sent, compose, sink).await?;
        // It was stopped, and what followed it was skipped.
        self.end().await
    }

    /// Asks the catalogue: `values` are bound, and `take` has the cells of each row.
    pub(super) async fn ask(
        &mut self,
        sql: &str,
        values: &[Option<String>],
        take: impl FnMut(&[Option<Cow<'_, str>>]) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        struct Rows<F> {
            take: F,
            bytes_left: usize,
        }
        impl<F: FnMut(&[Option<Cow<'_, str>>]) -> Result<(), Error> + Send> Sink for Rows<F> {
            fn longest_row(&self) -> usize {
                MAX_CATALOGUE_ROW
            }
            fn take(&mut self, message: Message<'_>, _: &KnownTypes) -> Result<(), Error> {
                if let Message::LongRow(_) = message {
                    return Err(Unavailable::Protocol.into());
                }
                let Message::Row(body) = message else { return Ok(()) };
                let left = self.bytes_left.checked_sub(body.len());
                self.bytes_left = left.ok_or(Unavailable::Protocol)?;
                let cells = body.cells().map_err(Unavailable::from)?;
                let cells = cells.collect::<Result<Vec<_>, Malformed>>();
                (self.take)(&cells.map_err(Unavailable::from)?)
            }
            fn is_full(&self) -> bool {
                false
            }
        }
        let compose = |flight: &mut Flight, sent: &Sent| {
            sent.bind(flight, sql, values);
            flight.execute(Limit::None);
            flight.sync();
        };
        let sent = self.find(sql);
        self.exchange(sql, sent, compose, &mut Rows { take, bytes_left: MAX_CATALOGUE }).await
    }

    /// How the statement gets to the server.
    pub(super) fn find(&mut self, sql: &str) -> Sent {
        match self.memory.statements.find(sql) {
            Some(kept) => Sent { known: Some(kept), name: None },
            None => Sent { known: None, name: self.memory.statements.name(sql, false) },
        }
    }

    /// Sends a flight that begins the transaction where there is none, and reads the answers. What
    /// the server has forgotten it is told once more.
    pub(super) async fn exchange(
        &mut self,
        sql: &str,
        mut sent: Sent,
        compose: impl Fn(&mut Flight, &Sent),
        sink: &mut dyn Sink,
    ) -> Result<(), Error> {
        let mut is_again = false;
        loop {
            let (mut flight, quiet) = self.flight();
            compose(&mut flight, &sent);
            self.wire.send(&flight).await?;
            if let Some(kept) = &sent.known {
                let types = &self.memory.types;
                sink.take(Message::Parameters(Body::of(&kept.shape.parameters)), types)?;
                if let Some(columns) = &kept.shape.columns {
                    sink.take(Message::Columns(Body::of(columns)), types)?;
                }
            }
            let mut heard = Heard::default();
            let answered = self.answers(quiet, sent.known.is_some(), &mut heard, sink).await;
            match heard.lapse {
                Some(lapse) if !is_again => {
                    is_again = true;
                    match lapse {
                        Lapse::Session => {
                            self.memory.is_prepared = false;
                            self.memory.is_prepared_for_changes = false;
                            self.memory.statements = Statements::default();
                        }
                        Lapse::Statement => self.memory.statements.forget(sql),
                    }
                    self.end().await?;
                    let name = self.memory.statements.name(sql, true);
                    sent = Sent { known: None, name };
                }
                _ => {
                    if let (Some(name), true) = (sent.name, heard.is_parsed) {
                        self.memory.statements.keep(sql, name, heard.shape);
                    }
                    return answered;
                }
            }
        }
    }

    /// The types with these numbers, in order.
    pub(super) async fn types(&mut self, oids: &[u32]) -> Result<Vec<ValueType>, Error> {
        let unknown: Vec<u32> =
            oids.iter().copied().filter(|oid| self.memory.types.one(*oid).is_none()).collect();
        if !unknown.is_empty() {
            if self.memory.types.0.len() + unknown.len() > MAX_TYPES {
                self.memory.types.0.clear();
            }
            let found = self.look_up(&unknown).await?;
            self.memory.types.0.extend(found);
        }
        // Dropped since the statement was read, or not for this role to see: still a text.
        let unseen = || ValueType { name: "unknown".to_owned(), form: Form::Text };
        Ok(oids.iter().map(|oid| self.memory.types.one(*oid).unwrap_or_else(unseen)).collect())
    }

    /// Asks for types that this server numbered itself: an array has a type of elements, which may
    /// be a domain, whose values are those of the type below it.
    async fn look_up(&mut self, oids: &[u32]) -> Result<Vec<(u32, ValueType)>, Error> {
        let wanted = params::texts(oids.iter().map(u32::to_string));
        let mut found = Vec::new();
        self.ask(
            "WITH RECURSIVE base (oid, below) AS ( \
             SELECT oid, oid FROM pg_catalog.pg_type WHERE oid = ANY ($1::oid[]) \
             UNION ALL SELECT base.oid, t.typbasetype FROM base \
             JOIN pg_catalog.pg_type t ON t.oid = base.below WHERE t.typbasetype <> 0), \
             element (oid, below) AS ( \
             SELECT t.oid, t.typelem FROM base JOIN pg_catalog.pg_type t ON t.oid = base.below \
             WHERE t.typcategory = 'A' AND t.typelem <> 0 \
             UNION ALL SELECT element.oid, t.typbasetype FROM element \
             JOIN pg_catalog.pg_type t ON t.oid = element.below WHERE t.typbasetype <> 0) \
             SELECT named.oid, named.typname, own.oid, of.oid, of.typdelim \
             FROM base JOIN pg_catalog.pg_type named ON named.oid = base.oid \
             JOIN pg_catalog.pg_type own ON own.oid = base.below AND own.typbasetype = 0 \
             LEFT JOIN element ON element.oid = own.oid \
             AND EXISTS (SELECT 1 FROM pg_catalog.pg_type t \
             WHERE t.oid = element.below AND t.typbasetype = 0) \
             LEFT JOIN pg_catalog.pg_type of ON of.oid = element.below",
            &[Some(wanted)],
            |cells| {
                let cell = |place: usize| cells.get(place).and_then(Option::as_deref);
                let oid = |place: usize| cell(place).and_then(|text| text.parse::<u32>().ok());
                let (Some(number), Some(name)) = (oid(0), cell(1)) else {
                    return Err(Unavailable::Protocol.into());
                };
                let built_in = |oid: u32| {
                    ValueType::built_in(oid).map_or(Form::Text, |value_type| value_type.form)
                };
                let form = match (oid(3), cell(4).and_then(|text| text.chars().next())) {
                    (Some(element), Some(delimiter)) => {
                        Form::Array { element: Box::new(built_in(element)), delimiter }
                    }
                    _ => oid(2).map_or(Form::Text, built_in),
                };
                found.push((number, ValueType { name: name.to_owned(), form }));
                Ok(())
            },
        )
        .await?;
        Ok(found)
    }

    /// Reads the answers to a flight up to its `Sync`; what comes after `quiet` statements is for
    /// `sink`. `is_kept`: the statement was not read for this flight.
    ///
    /// Rows that nobody wants are read all the same, so that the server is in step; when they do
    /// not end soon, it is asked to stop.
    ///
    /// # Errors
    ///
    /// What the server says, or `sink`; [`Error::Unavailable`] when the session is out of step.
    pub(super) async fn answers(
        &mut self,
        quiet: usize,
        is_kept: bool,
        heard: &mut Heard,
        sink: &mut dyn Sink,
    ) -> Result<(), Error> {
        let mut done = 0;
        let mut failure = None;
        let mut dropped = 0_usize;
        let mut is_first = true;
        let mut is_bound = false;
        loop {
            match self.wire.receive(sink.longest_row()).await? {
                Message::Ready { in_transaction } => {
                    self.is_open = in_transaction;
                    return failure.map_or(Ok(()), Err);
                }
                Message::Failed(body) => {
                    let error = ServerError::read(body).map_err(Unavailable::from)?;
                    let is_of_ours = done < quiet;
                    if self.is_uncertain && error.code == QUERY_CANCELED {
                        // By us, or by its own limit while what we asked is on its way still, and would
                        // strike the next statement.
                        if let Some(cancelling) = self.cancelling.take() {
                            self.is_uncertain = cancelling.await.is_err();
                        }
                    } else if failure.is_none() {
                        heard.lapse = match error.code.as_str() {
                            UNKNOWN_STATEMENT if done == 0 && quiet > 0 => Some(Lapse::Session),
                            UNKNOWN_STATEMENT | OTHER_TYPES
                                if done == quiet && is_kept && !is_bound =>
                            {
                                Some(Lapse::Statement)
                            }
                            _ => None,
                        };
                        if heard.lapse.is_some() {
                            failure = Some(Unavailable::Stale.into());
                        } else {
                            // Whatever it is, nothing can be built on it.
                            self.is_uncertain |= is_of_ours;
                            let error = error.into_error(is_first);
                            if matches!(error, Error::Unavailable(_)) {
                                return Err(error);
                            }
                            failure = Some(error);
                        }
                    }
                }
                Message::Parsed => heard.is_parsed |= done == quiet,
                Message::Bound => is_bound |= done == quiet,
                message @ Message::Completed(_) => {
                    if done == quiet && failure.is_none() {
                        sink.take(message, &self.memory.types)?;
                    }
                    done += 1;
                }
                Message::Done => done += 1,
                Message::Other => {}
                // The row of our own settings.
                _ if done != quiet => {}
                message @ (Message::Row(_)
                | Message::LongRow(_)
                | Message::Parameters(_)
                | Message::Columns(_)) => {
                    let length = message.row_length();
                    heard.shape.note(&message);
                    let is_wanted = failure.is_none() && !sink.is_full();
                    match if is_wanted { sink.take(message, &self.memory.types) } else { Ok(()) } {
                        Ok(()) => {}
                        Err(error @ Error::Unavailable(_)) => return Err(error),
                        Err(error) => failure = Some(error),
                    }
                    if failure.is_some() || sink.is_full() {
                        dropped = dropped.saturating_add(length);
                    }
                    if dropped > PATIENCE && !self.is_uncertain {
                        self.is_uncertain = true;
                        self.cancelling = Some(self.link.cancel());
                    }
                }
            }
            is_first = false;
        }
    }
}

impl Sent {
    fn parse(&self, flight: &mut Flight, sql: &str) {
        let name = self.name.as_deref().unwrap_or_default();
        flight.parse(name, sql);
        flight.describe(name);
        flight.sync();
    }

    pub(super) fn bind(&self, flight: &mut Flight, sql: &str, values: &[Option<String>]) {
        if let Some(kept) = &self.known {
            return flight.bind(&kept.name, values);
        }
        let name = self.name.as_deref().unwrap_or_default();
        flight.parse(name, sql);
        flight.describe(name);
        flight.bind(name, values);
    }
}

/// Takes nothing.
struct Nothing;

impl Sink for Nothing {
    fn longest_row(&self) -> usize {
        MAX_CATALOGUE_ROW
    }

    fn take(&mut self, _: Message<'_>, _: &KnownTypes) -> Result<(), Error> {
        Ok(())
    }

    fn is_full(&self) -> bool {
        false
    }
}

/// The numbers of the types of parameters.
pub(super) fn parameters(mut body: Body<'_>) -> Result<Vec<u32>, Malformed> {
    let count = body.count()?;
    (0..count).map(|_| body.number()).collect()
}
