//! `EXPLAIN QUERY PLAN` of a statement that may run. The statement is compiled, not run.
//!
//! The engine gives a text for each step. Read of it are: what is done, if that is on the list here;
//! and, where no view is read, what with, which is then a name of the statement's own. An index and
//! what it is searched for are shown where moreover no column is denied.

use rusqlite::Connection;

use super::watch::Watch;
use crate::database::plan::{MAX_BYTES, MAX_DEPTH, shortened, too_large};
use crate::database::{Error, PlanNode, Query};

/// What may be shown of a plan.
#[derive(Clone, Copy)]
pub(super) struct Shown {
    pub(super) names: bool,
    pub(super) indexes: bool,
}

/// What steps begin with, longer ones first; what follows is a name, a number, or nothing.
const STEPS: [&str; 33] = [
    "SCAN CONSTANT ROW",
    "SCAN",
    "SEARCH",
    "COMPOUND QUERY",
    "LEFT-MOST SUBQUERY",
    "UNION ALL",
    "UNION USING TEMP B-TREE",
    "INTERSECT USING TEMP B-TREE",
    "EXCEPT USING TEMP B-TREE",
    "MERGE (UNION ALL)",
    "MERGE (UNION)",
    "MERGE (INTERSECT)",
    "MERGE (EXCEPT)",
    "LEFT",
    "RIGHT-JOIN",
    "RIGHT",
    "CORRELATED SCALAR SUBQUERY",
    "SCALAR SUBQUERY",
    "CORRELATED LIST SUBQUERY",
    "LIST SUBQUERY",
    "REUSE LIST SUBQUERY",
    "MATERIALIZE",
    "CO-ROUTINE",
    "SETUP",
    "RECURSIVE STEP",
    "MULTI-INDEX OR",
    "INDEX",
    "BLOOM FILTER",
    "USE TEMP B-TREE FOR ORDER BY",
    "USE TEMP B-TREE FOR GROUP BY",
    "USE TEMP B-TREE FOR DISTINCT",
    "USE TEMP B-TREE FOR",
    "USE TEMP B-TREE",
];

/// The plan of `query`, whose policy is in place.
pub(super) fn plan(
    connection: &Connection,
    query: &Query,
    shown: Shown,
    watch: &Watch,
) -> Result<PlanNode, Error> {
    let failed = |error: rusqlite::Error| watch.failure(&error);
    let sql = format!("EXPLAIN QUERY PLAN {}", query.statement.sql());
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let expected = statement.parameter_count();
    if expected != query.params.len() {
        return Err(Error::ParameterCount { expected, given: query.params.len() });
    }
    let mut steps: Vec<(i64, i64, PlanNode)> = Vec::new();
    let mut bytes_left = MAX_BYTES as usize;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(failed)? {
        let detail: String = row.get(3).map_err(failed)?;
        bytes_left =
            bytes_left.checked_sub(detail.len() + size_of::<PlanNode>()).ok_or_else(too_large)?;
        let (id, parent) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
        steps.push((id, parent, step(&detail, shown)));
    }
    tree(steps)
}

/// The steps below their parents, which come before them.
fn tree(mut steps: Vec<(i64, i64, PlanNode)>) -> Result<PlanNode, Error> {
    let mut root = PlanNode { node: "QUERY".to_owned(), ..PlanNode::default() };
    while let Some((id, parent, mut node)) = steps.pop() {
        // Those that came later are in it by now, the last of them first.
        node.children.reverse();
        let above = steps.iter_mut().rev().find(|(above, _, _)| *above == parent && parent != id);
        above.map_or(&mut root, |(_, _, above)| above).children.push(node);
    }
    root.children.reverse();
    if depth(&root) > MAX_DEPTH { Err(too_large()) } else { Ok(root) }
}

fn depth(node: &PlanNode) -> usize {
    1 + node.children.iter().map(depth).max().unwrap_or(0)
}

/// What a text says, as far as it may be shown.
fn step(detail: &str, shown: Shown) -> PlanNode {
    let begins = |verb: &&&str| {
        let rest = detail.strip_prefix(**verb);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    let verb = STEPS.iter().find(begins).copied().unwrap_or("STEP");
    let mut node = PlanNode { node: verb.to_owned(), ..PlanNode::default() };
    let Some(rest) = detail.strip_prefix(verb).and_then(|rest| rest.strip_prefix(' ')) else {
        return node;
    };
    if !matches!(verb, "SCAN" | "SEARCH") {
        return node;
    }
    let (name, how) = rest.split_once(" USING ").unwrap_or((rest, ""));
    let name = name.split(" VIRTUAL TABLE INDEX ").next().unwrap_or_default();
    let name = name.strip_suffix(" LEFT-JOIN").unwrap_or(name);
    let (how, condition) = match how.split_once(" (") {
        Some((how, condition)) => (how, Some(condition)),
        None => (how, None),
    };
    let index = how.split_once("INDEX ").map(|(_, index)| index);
    if shown.names {
        node.relation = Some(name.to_owned());
    }
    if shown.indexes {
        let index = index.map(|index| index.strip_suffix(" LEFT-JOIN").unwrap_or(index));
        node.index = index.map(str::to_owned);
        let condition = condition.map(|text| text.strip_suffix(" LEFT-JOIN").unwrap_or(text));
        node.condition = condition.map(|text| shortened(text.strip_suffix(')').unwrap_or(text)));
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Shown = Shown { names: true, indexes: true };

    #[test]
    fn a_step_is_read_from_its_text() {
        let read = |detail: &str| {
            let node = step(detail, ALL);
            (node.node, node.relation, node.index, node.condition)
        };
        let some = |text: &str| Some(text.to_owned());
        let named = |text: &str| text.to_owned();
        assert_eq!(read("SCAN c"), (named("SCAN"), some("c"), None, None));
        assert_eq!(
            read("SEARCH o USING COVERING INDEX by_x (a=? AND b>?) LEFT-JOIN"),
            (named("SEARCH"), some("o"), some("by_x"), some("a=? AND b>?"))
        );
        assert_eq!(
            read("SEARCH a b USING INTEGER PRIMARY KEY (rowid=?)"),
            (named("SEARCH"), some("a b"), None, some("rowid=?"))
        );
        assert_eq!(read("SCAN t VIRTUAL TABLE INDEX 0:M1"), (named("SCAN"), some("t"), None, None));
        for (detail, verb) in [
            ("MATERIALIZE secret", "MATERIALIZE"),
            ("CO-ROUTINE secret", "CO-ROUTINE"),
            ("BLOOM FILTER ON secret (x=?)", "BLOOM FILTER"),
            ("SCAN CONSTANT ROW", "SCAN CONSTANT ROW"),
            ("USE TEMP B-TREE FOR LAST 2 TERMS OF ORDER BY", "USE TEMP B-TREE FOR"),
            ("SOMETHING NEW WITH secret", "STEP"),
        ] {
            assert_eq!(read(detail), (named(verb), None, None, None), "{detail}");
        }
        let hidden =
            step("SCAN secret USING INDEX x (y=?)", Shown { names: false, indexes: false });
        assert_eq!(hidden, PlanNode { node: named("SCAN"), ..PlanNode::default() });
    }

    #[test]
    fn steps_stand_below_their_parents_in_order_whatever_the_numbers_are() {
        let step = |id, parent, name: &str| {
            (id, parent, PlanNode { node: name.to_owned(), ..PlanNode::default() })
        };
        let steps = vec![step(2, 0, "a"), step(5, 2, "b"), step(9, 2, "c"), step(7, 0, "d")];
        let root = tree(steps).unwrap();
        let names = |node: &PlanNode| {
            node.children.iter().map(|child| child.node.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&root), ["a", "d"]);
        assert_eq!(names(&root.children[0]), ["b", "c"]);
        assert_eq!(tree(vec![step(3, 3, "own")]).unwrap().children.len(), 1);
        let deep = (1..=60).map(|id| step(id, id - 1, "x")).collect();
        assert!(tree(deep).is_err());
    }
}
