//! Functions that a query may call, by the name that the engine resolves.
//!
//! ```text
//! catalogue of the engine --functions/*.sql: the rule, with reasons--> functions/*.txt --> is_allowed
//! ```
//!
//! Listed is what computes from its arguments alone, or tells the time. Not listed is what reads a
//! setting, a file or the catalogue, takes SQL as text (`ts_stat`, `ts_rewrite`, `query_to_xml`),
//! waits, signals, locks, keeps state in the session, or compares each part of one long value with
//! each of another (`json_patch` of `SQLite`).
//!
//! The files are written from the engines themselves: versions 15 to 18 of `PostgreSQL`, the bundled
//! `SQLite`. `tests/hostile/functions.rs` compares them with the engine at hand.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::Dialect;

/// Those of `pg_catalog`. On a server older than the version that one came with there is none of
/// that name, unless it is the tenant's own, which the session refuses.
static POSTGRES: LazyLock<BTreeSet<&str>> =
    LazyLock::new(|| names(include_str!("functions/postgres.txt")));

/// Operators and words without brackets too, which the authorizer is told of as functions.
static SQLITE: LazyLock<BTreeSet<&str>> =
    LazyLock::new(|| names(include_str!("functions/sqlite.txt")));

/// What `PostgreSQL` writes like a call and has no function of that name for. Sorted.
const POSTGRES_SYNTAX: &[&str] = &[
    "all",
    "coalesce",
    "current_time",
    "current_timestamp",
    "greatest",
    "grouping",
    "json_array",
    "json_arrayagg",
    "json_exists",
    "json_objectagg",
    "json_query",
    "json_scalar",
    "json_serialize",
    "json_value",
    "least",
    "localtime",
    "localtimestamp",
    "nullif",
    "row",
    "trim",
];

fn names(list: &str) -> BTreeSet<&str> {
    list.lines().filter(|line| !line.starts_with('#')).collect()
}

/// Whether `name`, as the engine folds it, may be called.
pub(in crate::database) fn is_allowed(dialect: Dialect, name: &str) -> bool {
    match dialect {
        Dialect::Postgres => {
            POSTGRES.contains(name) || POSTGRES_SYNTAX.binary_search(&name).is_ok()
        }
        Dialect::Sqlite => SQLITE.contains(&*name.to_ascii_lowercase()),
    }
}

/// Whether the rows of `name` may be read in FROM.
pub(super) fn is_allowed_in_from(dialect: Dialect, name: &str) -> bool {
    match dialect {
        // Any function is a table of its rows there.
        Dialect::Postgres => is_allowed(dialect, name),
        Dialect::Sqlite => matches!(name, "json_each" | "json_tree"),
    }
}

/// Whether `name` may be called without brackets.
pub(super) fn is_allowed_bare(name: &str) -> bool {
    matches!(
        name,
        "current_date" | "current_time" | "current_timestamp" | "localtime" | "localtimestamp"
    )
}

/// Whether `name` is a collation that comes with `SQLite`.
pub(super) fn is_collation(name: &str) -> bool {
    matches!(name, "binary" | "nocase" | "rtrim")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_for_the_search() {
        assert!(POSTGRES_SYNTAX.is_sorted());
    }

    #[test]
    fn a_comment_of_a_file_is_no_name() {
        assert_eq!(names("# 15\nabs\n# 16\nany_value\n"), BTreeSet::from(["abs", "any_value"]));
    }
}
