//! Denied columns, decided on names alone.
//!
//! Which relation a bare column belongs to is not known here, so a statement that uses a relation
//! with denied columns is refused as soon as it could reach them in any way: by their name
//! anywhere, by a wildcard, by the row as a whole, by giving columns other names by position, or by
//! writing them by position.

use std::collections::BTreeSet;

use super::name::Names;
use super::query::Found;
use super::{Dialect, Refusal, shown};
use crate::tenant::{Access, RelationName};

/// Refuses what could show a denied column; else gives the columns that the session has to find in
/// the catalogue before it runs the statement.
pub(super) fn check(
    found: &Found,
    names: &Names,
    access: &Access,
) -> Result<BTreeSet<(RelationName, String)>, Refusal> {
    let mut sensitive = BTreeSet::new();
    let mut denied = BTreeSet::new();
    for relation in &found.relations {
        for column in &access.deny_columns {
            if let Some(name) = names.denied_column(column, relation) {
                sensitive.insert(relation);
                denied.insert(name);
            }
        }
    }
    if sensitive.is_empty() {
        return Ok(BTreeSet::new());
    }
    if let Some(name) = found.identifiers.iter().find(|name| denied.contains(*name)) {
        return Err(Refusal::new(
            "column",
            format!("column {} may be neither read nor written", shown(name)),
        ));
    }
    if found.inserts_unnamed && found.target.as_ref().is_some_and(|it| sensitive.contains(it)) {
        return Err(Refusal::new(
            "column",
            "an INSERT into a table with columns that may not be written names those it gives",
        ));
    }
    if found.wildcard || found.natural_join || found.renames_columns {
        return Err(Refusal::new(
            "column",
            "a table with columns that may not be read is queried by naming columns: no *, no \
             NATURAL JOIN, no column names in a table alias",
        ));
    }
    if found.full_text {
        return Err(Refusal::new(
            "column",
            "a table with columns that may not be read is not searched with MATCH, which could \
             look into them; use LIKE on a column",
        ));
    }
    let row = found.bare.iter().chain(found.qualified.iter().map(|(_, name)| name));
    if let Some(name) = row.into_iter().find(|name| found.row_names.contains(*name)) {
        return Err(Refusal::new(
            "column",
            format!("{} is a whole row; name the columns that are wanted", shown(name)),
        ));
    }
    // `t.f` in PostgreSQL is also f(t), with the whole row.
    if names.dialect == Dialect::Sqlite {
        return Ok(BTreeSet::new());
    }
    let claims = found.qualified.iter().flat_map(|(qualifier, column)| {
        let relations = found.aliases.iter().filter(move |(alias, _)| alias == qualifier);
        relations.map(move |(_, relation)| (relation, column))
    });
    Ok(claims
        .filter(|(relation, _)| sensitive.contains(relation))
        .map(|(relation, column)| (relation.clone(), column.clone()))
        .collect())
}
