//! Functions, operators and types of the tenant's own that a statement could mean.
//!
//! The guard admits them by name, and the server looks a name up in the tenant's schema too: there
//! an overload of `lower` or a function of a row, which is written like a column, may do anything.
//! What an extension brought is not counted; neither is an operator of a type of the tenant's own,
//! which is part of that type. A type of the tenant's own may be cast to if it is an enum or a domain
//! whose checks call nothing of the tenant's.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::transaction::Transaction;
use crate::database::guard::{Uses, shown};
use crate::database::{Error, Refusal, Unavailable};

/// After how long the names are asked for again.
const FRESH: Duration = Duration::from_mins(1);

/// Names of the tenant's own in its schema.
#[derive(Debug)]
pub(super) struct OwnNames {
    asked: Instant,
    functions: BTreeSet<String>,
    /// Those whose first argument may be a row.
    of_rows: BTreeSet<String>,
    operators: BTreeSet<String>,
    /// Enums and plain domains.
    plain_types: BTreeSet<String>,
}

/// Refuses `statement` if it could mean one of these. `known` is what the session knows of them.
///
/// Asks the server where the statement calls something at all and `known` is not fresh: one round
/// trip a minute and session.
///
/// # Errors
///
/// [`Error::Refused`], and those of the question.
pub(super) async fn check(
    known: &mut Option<OwnNames>,
    transaction: &mut Transaction<'_>,
    schema: &str,
    statement: &Uses,
) -> Result<(), Error> {
    let named =
        [statement.functions(), statement.fields(), statement.operators(), statement.own_types()];
    if named.iter().all(|names| names.is_empty()) {
        return Ok(());
    }
    let own = OwnNames::of(known.take(), transaction, schema).await?;
    Ok(known.insert(own).check(statement)?)
}

impl OwnNames {
    async fn of(
        known: Option<Self>,
        transaction: &mut Transaction<'_>,
        schema: &str,
    ) -> Result<Self, Error> {
        if let Some(known) = known.filter(|known| known.asked.elapsed() < FRESH) {
            return Ok(known);
        }
        let mut names = Self {
            asked: Instant::now(),
            functions: BTreeSet::new(),
            of_rows: BTreeSet::new(),
            operators: BTreeSet::new(),
            plain_types: BTreeSet::new(),
        };
        transaction
            .ask(
                "SELECT p.proname::text, 'function', t.typtype IN ('c', 'p') \
                 FROM pg_catalog.pg_proc p \
                 JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
                 LEFT JOIN pg_catalog.pg_type t ON t.oid = p.proargtypes[0] \
                 WHERE n.nspname = $1 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
                 WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass \
                 AND d.objid = p.oid AND d.deptype = 'e') \
                 UNION SELECT o.oprname::text, 'operator', false \
                 FROM pg_catalog.pg_operator o \
                 JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace \
                 WHERE n.nspname = $1 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
                 WHERE d.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass \
                 AND d.objid = o.oid AND d.deptype = 'e') \
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t \
                 WHERE t.oid IN (o.oprleft, o.oprright) \
                 AND t.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace) \
                 UNION SELECT t.typname::text, 'type', false FROM pg_catalog.pg_type t \
                 JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
                 WHERE n.nspname = $1 \
                 AND (t.typtype = 'e' OR t.typtype = 'd' AND EXISTS (\
                 SELECT FROM pg_catalog.pg_type b WHERE b.oid = t.typbasetype \
                 AND b.typnamespace = 'pg_catalog'::pg_catalog.regnamespace \
                 AND b.typname !~ '^_?(reg|xml)') \
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint c \
                 JOIN pg_catalog.pg_depend d ON d.objid = c.oid \
                 AND d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass \
                 WHERE c.contypid = t.oid AND d.refclassid IN (\
                 'pg_catalog.pg_proc'::pg_catalog.regclass, \
                 'pg_catalog.pg_operator'::pg_catalog.regclass))) \
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_type b WHERE b.typname = t.typname \
                 AND b.typnamespace = 'pg_catalog'::pg_catalog.regnamespace)",
                &[Some(schema.to_owned())],
                |cells| {
                    let cell = |place: usize| cells.get(place).and_then(Option::as_deref);
                    let name = cell(0).ok_or(Unavailable::Protocol)?.to_owned();
                    match cell(1) {
                        Some("operator") => {
                            names.operators.insert(name);
                            return Ok(());
                        }
                        Some("type") => {
                            names.plain_types.insert(name);
                            return Ok(());
                        }
                        _ => {}
                    }
                    // NULL without arguments.
                    if cell(2) == Some("t") {
                        names.of_rows.insert(name.clone());
                    }
                    names.functions.insert(name);
                    Ok(())
                },
            )
            .await?;
        Ok(names)
    }

    fn check(&self, statement: &Uses) -> Result<(), Refusal> {
        if let Some(name) = common(statement.functions(), &self.functions) {
            return Err(Refusal::new(
                "function",
                format!(
                    "{name} is also a function of this schema's own; write pg_catalog.{name} for \
                     the one that may be called"
                ),
            ));
        }
        if let Some(name) = common(statement.fields(), &self.of_rows) {
            return Err(Refusal::new(
                "function",
                format!(
                    "{name} after a point is also a function of this schema's own; as a column it \
                     is written without a table's name"
                ),
            ));
        }
        let mut types = statement.own_types().iter();
        if let Some(name) = types.find(|name| !self.plain_types.contains(*name)) {
            return Err(Refusal::new(
                "type",
                format!(
                    "{} is not an enum of this schema, nor a domain over a built-in type whose \
                     checks call built-in functions; those and the engine's own types may be cast \
                     to",
                    shown(name)
                ),
            ));
        }
        if let Some(name) = common(statement.operators(), &self.operators) {
            return Err(Refusal::new(
                "operator",
                format!("{name} is also an operator of this schema's own, which is not allowed"),
            ));
        }
        Ok(())
    }
}

fn common<'a>(one: &'a BTreeSet<String>, other: &BTreeSet<String>) -> Option<&'a String> {
    one.iter().find(|name| other.contains(*name))
}
