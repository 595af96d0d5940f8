//! `EXPLAIN` of a statement that may run, in a transaction like its own. The statement is planned,
//! not run.
//!
//! Shown are: what each step does; a relation that the statement names; rows and cost where no
//! relation below has row-level security, whose policies they would tell about; conditions and
//! indexes where moreover all that is read is named by the statement, nothing of it is a view, and
//! no column is denied.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Number;

use super::params::texts;
use super::transaction::Transaction;
use super::{CATALOGUE_LIMITS, Session};
use crate::database::plan::{MAX_BYTES, MAX_DEPTH, shortened, too_large};
use crate::database::{Error, PlanNode, Query};
use crate::tenant::{Limits, RelationName};

const EXPLAIN: &str = "EXPLAIN (FORMAT JSON, VERBOSE) ";

/// What is read of the server's plan; it says much more.
#[derive(Deserialize)]
struct Step {
    #[serde(rename = "Node Type")]
    node: String,
    #[serde(rename = "Schema")]
    schema: Option<String>,
    #[serde(rename = "Relation Name")]
    relation: Option<String>,
    #[serde(rename = "Index Name")]
    index: Option<String>,
    #[serde(rename = "Plan Rows")]
    rows: Option<Number>,
    #[serde(rename = "Total Cost")]
    cost: Option<f64>,
    #[serde(rename = "Index Cond")]
    index_condition: Option<String>,
    #[serde(rename = "Hash Cond")]
    hash_condition: Option<String>,
    #[serde(rename = "Merge Cond")]
    merge_condition: Option<String>,
    #[serde(rename = "Join Filter")]
    join_filter: Option<String>,
    #[serde(rename = "Filter")]
    filter: Option<String>,
    #[serde(rename = "Plans", default)]
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Explained {
    #[serde(rename = "Plan")]
    plan: Step,
}

/// What may be shown of a plan.
struct Shown<'a> {
    named: BTreeSet<&'a RelationName>,
    schema: &'a str,
    estimates: bool,
    details: bool,
}

impl Session {
    pub(super) async fn plan(&mut self, query: &Query, limits: &Limits) -> Result<PlanNode, Error> {
        let sql = format!("{EXPLAIN}{}", query.statement.sql());
        let whole = Limits { max_rows: 1, max_result_bytes: MAX_BYTES, ..*limits };
        let answer = self.answer(query, &sql, &whole).await;
        let answer = answer.map_err(|error| {
            if error == Error::TooLarge { too_large() } else { in_the_statement(error) }
        })?;
        let rows: Vec<(Vec<Explained>,)> =
            serde_json::from_str(answer.rows.as_json()).map_err(|_| too_large())?;
        let explained = rows.into_iter().next().and_then(|(plans,)| plans.into_iter().next());
        let plan = explained.ok_or_else(too_large)?.plan;

        let schema = self.schema.clone();
        let named: BTreeSet<&RelationName> = query.statement.relations().collect();
        let mut read = BTreeSet::new();
        relations(&plan, &schema, &mut read);
        let is_named = read.iter().all(|name| named.contains(name));
        let all: BTreeSet<&RelationName> = named.iter().copied().chain(&read).collect();
        // After the plan: what has come to need hiding since is hidden, too.
        let (is_guarded, is_view) = self
            .in_transaction(&CATALOGUE_LIMITS, async |transaction| {
                look_up(transaction, &all, &schema).await
            })
            .await?;
        let estimates = !is_guarded;
        let details = estimates && is_named && !is_view && self.deny_columns.is_empty();
        let shown = Shown { named, schema: &schema, estimates, details };
        shown.step(plan, false, 1)
    }
}

/// The error of the text that was sent, as one of the statement in it.
fn in_the_statement(mut error: Error) -> Error {
    if let Error::Failed { position, .. } = &mut error {
        let before = u32::try_from(EXPLAIN.len()).unwrap_or_default();
        *position = position.and_then(|place| place.checked_sub(before)).filter(|it| *it > 0);
    }
    error
}

fn relations(step: &Step, schema: &str, found: &mut BTreeSet<RelationName>) {
    found.extend(relation(step, schema));
    for below in &step.steps {
        relations(below, schema, found);
    }
}

fn relation(step: &Step, schema: &str) -> Option<RelationName> {
    let named = step.schema.clone().filter(|named| named != schema);
    step.relation.clone().map(|name| RelationName { schema: named, name })
}

/// Whether one of `names` has row-level security or is not there any more, and whether one is a
/// view.
async fn look_up(
    transaction: &mut Transaction<'_>,
    names: &BTreeSet<&RelationName>,
    schema: &str,
) -> Result<(bool, bool), Error> {
    let (schemas, names): (Vec<&str>, Vec<&str>) = names
        .iter()
        .map(|name| (name.schema.as_deref().unwrap_or(schema), name.name.as_str()))
        .unzip();
    let (mut is_guarded, mut is_view) = (false, false);
    transaction
        .ask(
            "SELECT DISTINCT COALESCE(c.relrowsecurity, true), c.relkind = 'v' \
             FROM unnest($1::text[], $2::text[]) AS wanted (schema, name) \
             LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema \
             LEFT JOIN pg_catalog.pg_class c \
             ON c.relnamespace = n.oid AND c.relname = wanted.name",
            &[Some(texts(&schemas)), Some(texts(&names))],
            |cells| {
                let is_true = |place: usize| {
                    cells.get(place).and_then(Option::as_deref).is_some_and(|text| text == "t")
                };
                is_guarded |= is_true(0);
                is_view |= is_true(1);
                Ok(())
            },
        )
        .await?;
    Ok((is_guarded, is_view))
}

impl Shown<'_> {
    /// `is_of_named`: what uses this step reads a relation that is shown.
    fn step(&self, step: Step, is_of_named: bool, depth: usize) -> Result<PlanNode, Error> {
        if depth > MAX_DEPTH {
            return Err(too_large());
        }
        let relation =
            relation(&step, self.schema).filter(|relation| self.named.contains(relation));
        // An index is a step of its own where its rows are gathered before the table is read.
        let is_of_named = relation.is_some() || (is_of_named && step.node.starts_with("Bitmap"));
        let conditions = [
            step.index_condition,
            step.hash_condition,
            step.merge_condition,
            step.join_filter,
            step.filter,
        ];
        let conditions: Vec<String> = conditions.into_iter().flatten().collect();
        let condition =
            (self.details && !conditions.is_empty()).then(|| shortened(&conditions.join(" AND ")));
        let below = step.steps.into_iter().map(|below| self.step(below, is_of_named, depth + 1));
        Ok(PlanNode {
            node: word(&step.node),
            relation: relation.map(|relation| relation.to_string()),
            index: step.index.filter(|_| self.details && is_of_named),
            condition,
            estimated_rows: step.rows.filter(|_| self.estimates).and_then(|rows| rows.as_u64()),
            cost: step.cost.filter(|_| self.estimates),
            children: below.collect::<Result<_, _>>()?,
        })
    }
}

/// A kind of step, which an extension may have named.
fn word(node: &str) -> String {
    node.chars().filter(|it| it.is_ascii_alphabetic() || *it == ' ').take(40).collect()
}
