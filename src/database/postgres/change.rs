//! A change of rows: seen before it is made final.
//!
//! ```text
//! START TRANSACTION READ WRITE, limits, what the names mean
//! Parse, Bind, Execute(rows + 1), Sync     its tag says how many rows, RETURNING shows them
//! COMMIT, Sync                             only when both are within the limits; else ROLLBACK
//! ```
//!
//! Protects against: a change beyond its bound; half a change; one made twice, since nothing is
//! sent again once COMMIT was. When its answer does not come, that is what the caller is told.

use super::transaction::{
    COMMIT, Heard, KnownTypes, MAX_CATALOGUE_ROW, Purpose, Sent, Sink, Transaction, UNLOCK,
};
use super::wire::{Flight, Limit, Message};
use super::{Answer, Session, bound, catalogue, resolution};
use crate::database::rows::Collector;
use crate::database::{Error, Refusal, Unavailable, Write, WriteResult};
use crate::tenant::{AccessMode, Limits};

impl Session {
    /// Makes the change, or none.
    pub(super) async fn change(
        &mut self,
        write: &Write,
        limits: &Limits,
    ) -> Result<WriteResult, Error> {
        if self.mode != AccessMode::ReadWrite {
            return Err(Refusal::read_only().into());
        }
        let (schema, denied) = (self.schema.clone(), self.deny_columns.clone());
        let most = write.most_rows(limits);
        let mut own_names = self.own_names.take();
        let work = self.in_transaction(limits, async |transaction| {
            transaction.purpose = Purpose::Changing;
            let uses = write.statement.uses();
            resolution::check(&mut own_names, transaction, &schema, uses).await?;
            catalogue::check_target(transaction, write.statement.target(), &schema).await?;
            if !denied.is_empty() {
                catalogue::check_relations(transaction, uses, &schema, &denied).await?;
            }
            let sql = write.statement.sql();
            let values = bound(transaction, sql, &write.params).await?;
            let collector = Collector::of(most, limits.max_result_bytes);
            let mut change = Change { answer: Answer::new(collector, limits), changed: None };
            // Rows of RETURNING come when all are changed: one too many shows that there are.
            let rows = (most as usize).saturating_add(1);
            let outcome = transaction.change(sql, &values, rows, &mut change).await;
            let Change { answer, changed } = change;
            if let Some(expected) = answer.parameters.filter(|count| *count != values.len()) {
                return Err(Error::ParameterCount { expected, given: values.len() });
            }
            outcome.map_err(Error::of_change)?;
            let Some(changed) = changed.filter(|changed| *changed <= u64::from(most)) else {
                let is_by_bytes = answer.is_full() && answer.collector.rows_left() > 0;
                return Err(if is_by_bytes {
                    Error::ReturnedTooLarge
                } else {
                    Error::TooManyChanges { limit: most }
                });
            };
            let types = transaction.types(&answer.oids).await?;
            let returned = answer.finish(&types).map_err(Error::of_change)?;
            if returned.truncated {
                return Err(Error::ReturnedTooLarge);
            }
            transaction.commit().await?;
            Ok(WriteResult { changed, columns: returned.columns, rows: returned.rows })
        });
        let result = work.await;
        self.own_names = own_names;
        result
    }
}

impl Transaction<'_> {
    /// Runs a statement that changes rows, for at most `rows` rows of RETURNING, and leaves the
    /// transaction open.
    async fn change(
        &mut self,
        sql: &str,
        values: &[Option<String>],
        rows: usize,
        sink: &mut dyn Sink,
    ) -> Result<(), Error> {
        let compose = |flight: &mut Flight, sent: &Sent| {
            sent.bind(flight, sql, values);
            flight.execute(Limit::Rows(rows));
            flight.sync();
        };
        let sent = self.find(sql);
        self.exchange(sql, sent, compose, sink).await
    }

    /// Makes the change final.
    ///
    /// # Errors
    ///
    /// [`Error::OutcomeUnknown`] when the server was asked and nothing came back; after any other
    /// nothing was changed.
    async fn commit(&mut self) -> Result<(), Error> {
        let mut flight = Flight::default();
        flight.bind::<&str>(COMMIT, &[]);
        flight.execute(Limit::None);
        flight.bind::<&str>(UNLOCK, &[]);
        flight.execute(Limit::None);
        flight.sync();
        let mut tag = Tag::default();
        self.purpose = Purpose::Committing;
        let answered = match self.wire.send(&flight).await {
            Ok(()) => self.answers(0, false, &mut Heard::default(), &mut tag).await,
            // Of what did not leave as a whole, the beginning may have.
            Err(reason) => Err(reason.into()),
        };
        match (tag.0.as_deref(), answered) {
            (Some("COMMIT"), answered) => {
                // What came after it does not undo it, but the session may be good for nothing more.
                self.is_uncertain |= self.is_open || answered.is_err();
                self.is_open = false;
                Ok(())
            }
            (_, Err(Error::Unavailable(_))) => Err(Error::OutcomeUnknown),
            (_, Err(error)) => {
                // What followed it was skipped, and is due.
                self.is_open = true;
                Err(error)
            }
            // What the server says when the transaction had failed.
            (Some("ROLLBACK"), Ok(())) => Err(Error::Failed {
                sqlstate: None,
                message: "the database undid the change".to_owned(),
                position: None,
            }),
            (_, Ok(())) => Err(Error::OutcomeUnknown),
        }
    }
}

/// The answer to a change: what it returns, and how many rows it changed once all are done.
struct Change {
    answer: Answer,
    changed: Option<u64>,
}

impl Sink for Change {
    fn longest_row(&self) -> usize {
        self.answer.longest_row()
    }

    fn take(&mut self, message: Message<'_>, known: &KnownTypes) -> Result<(), Error> {
        let Message::Completed(mut tag) = message else { return self.answer.take(message, known) };
        // Such as `INSERT 0 5`, or `UPDATE 5`.
        let tag = tag.text().map_err(Unavailable::from)?;
        let (kind, count) = tag.rsplit_once(' ').ok_or(Unavailable::Protocol)?;
        if !matches!(kind, "INSERT 0" | "UPDATE" | "DELETE") {
            return Err(Unavailable::Protocol.into());
        }
        self.changed = Some(count.parse().map_err(|_| Unavailable::Protocol)?);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.answer.is_full()
    }
}

/// Takes what the first statement did.
#[derive(Default)]
struct Tag(Option<String>);

impl Sink for Tag {
    fn longest_row(&self) -> usize {
        MAX_CATALOGUE_ROW
    }

    fn take(&mut self, message: Message<'_>, _: &KnownTypes) -> Result<(), Error> {
        if let Message::Completed(mut body) = message {
            self.0 = Some(body.text().map_err(Unavailable::from)?.to_owned());
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        false
    }
}
