//! How an engine would run a statement, in one form for both.
//!
//! A plan is made below views and policies, so it knows relations and conditions that the statement
//! does not: only what is on a list here is passed on of it, and names and conditions only where the
//! statement itself could have said them. Each engine says in its own module when that is so.

use super::Error;

/// A step of a plan and those that it takes its rows from.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PlanNode {
    /// What is done, in the engine's words.
    pub node: String,
    /// With which relation, as the statement names it.
    pub relation: Option<String>,
    /// Over which of its indexes.
    pub index: Option<String>,
    /// For which rows, as the engine writes it.
    pub condition: Option<String>,
    /// How many rows the engine expects of it.
    pub estimated_rows: Option<u64>,
    /// What the engine thinks that it costs with all below it, in units of its own.
    pub cost: Option<f64>,
    /// Where its rows come from.
    pub children: Vec<PlanNode>,
}

/// Deepest plan that is passed on: readers of JSON have limits too.
pub(super) const MAX_DEPTH: usize = 45;
/// Longest plan that is read, in bytes.
pub(super) const MAX_BYTES: u32 = 1 << 20;
/// Longest condition that is passed on, in characters.
const MAX_CONDITION: usize = 1_000;

/// A plan that is not passed on.
pub(super) fn too_large() -> Error {
    let message = "the plan is too large to be shown; explain a part of the statement".to_owned();
    Error::Failed { sqlstate: None, message, position: None }
}

/// A condition as it is passed on.
pub(super) fn shortened(condition: &str) -> String {
    let short: String = condition.chars().take(MAX_CONDITION).collect();
    if short.len() < condition.len() { short + "…" } else { short }
}
