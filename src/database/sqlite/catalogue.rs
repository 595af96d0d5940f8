//! What there is to read, from the file's schema.
//!
//! Each question runs in a transaction: all of it is of one moment, and a writer who comes in between
//! does not make a relation seem to be missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::{Connection, Row};

use super::watch::Watch;
use crate::database::catalogue::Kept;
use crate::database::{
    Catalogue, Error, ForeignKey, Listed, Relation, RelationColumn, RelationKind,
};
use crate::tenant::{Access, RelationName};

/// The catalogue. What says that it still holds is the number that the engine changes with the
/// schema, in the file, whoever changes it.
pub(super) fn catalogue(
    connection: &Connection,
    kept: &mut Kept<i64>,
    access: &Access,
    watch: &Watch,
) -> Result<Arc<Catalogue>, Error> {
    let transaction = connection.unchecked_transaction().map_err(|error| watch.failure(&error))?;
    current(&transaction, kept, access).map_err(|error| watch.failure(&error))
}

fn current(
    connection: &Connection,
    kept: &mut Kept<i64>,
    access: &Access,
) -> rusqlite::Result<Arc<Catalogue>> {
    let state = connection.query_row("PRAGMA main.schema_version", [], |row| row.get(0))?;
    if let Some(catalogue) = kept.get(&state, access) {
        return Ok(catalogue);
    }
    let found = names(connection)?
        .into_iter()
        .map(|(name, kind)| Listed { name: RelationName { schema: None, name }, kind })
        .filter(|listed| is_allowed(access, &listed.name))
        .collect();
    Ok(kept.put(state, access, Catalogue::new(found)))
}

/// What stands behind `wanted`. A view over what is gone has no columns, cannot be read, and is left
/// out.
pub(super) fn describe(
    connection: &Connection,
    kept: &mut Kept<i64>,
    access: &Access,
    wanted: &[RelationName],
    watch: &Watch,
) -> Result<Vec<Relation>, Error> {
    let failed = |error: rusqlite::Error| watch.failure(&error);
    let transaction = connection.unchecked_transaction().map_err(failed)?;
    let catalogue = current(&transaction, kept, access).map_err(failed)?;
    let wanted = wanted.iter().filter(|name| is_main(name));
    let wanted: BTreeSet<&Listed> =
        wanted.filter_map(|name| spelled(&catalogue, &name.name)).collect();
    let mut counted = estimates(&transaction, &wanted).map_err(failed)?;
    let mut found = Vec::with_capacity(wanted.len());
    for listed in wanted {
        match relation(&transaction, &catalogue, access, listed) {
            Ok(mut relation) => {
                relation.estimated_rows = counted.remove(&listed.name.name.to_ascii_lowercase());
                found.push(relation);
            }
            Err(error) => {
                let error = watch.failure(&error);
                if !matches!(error, Error::Failed { .. }) {
                    return Err(error);
                }
            }
        }
    }
    Ok(found)
}

/// The relation that the engine finds by `name`.
fn spelled<'a>(catalogue: &'a Catalogue, name: &str) -> Option<&'a Listed> {
    let exactly = RelationName { schema: None, name: name.to_owned() };
    catalogue.find(&exactly).or_else(|| {
        let mut all = catalogue.relations().iter();
        all.find(|listed| listed.name.name.eq_ignore_ascii_case(name))
    })
}

/// Tables and views by name.
pub(super) fn names(connection: &Connection) -> rusqlite::Result<Vec<(String, RelationKind)>> {
    let mut statement = connection.prepare_cached(
        "SELECT name, type = 'view' FROM main.sqlite_schema \
         WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
         AND name NOT LIKE 'pragma\\_%' ESCAPE '\\'",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, kind(row.get(1)?))))?;
    rows.collect()
}

/// Has the engine look at a relation, which connects a virtual table.
pub(super) fn touch(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    columns(connection, name).map(drop)
}

fn relation(
    connection: &Connection,
    catalogue: &Catalogue,
    access: &Access,
    listed: &Listed,
) -> rusqlite::Result<Relation> {
    let (name, kind) = (listed.name.name.as_str(), listed.kind);
    let columns = columns(connection, name)?;
    let primary_key = primary_key(&columns);
    let mut relation = Relation::new(listed.name.clone(), kind);
    let row_number = primary_key.len() == 1;
    for column in columns.into_iter().filter(|column| !is_denied(access, name, &column.name)) {
        // A column that is the number of the row has one in each.
        let is_row_number =
            row_number && column.key > 0 && column.type_name.eq_ignore_ascii_case("integer");
        relation.columns.push(RelationColumn {
            name: column.name,
            type_name: column.type_name,
            nullable: !column.not_null && !is_row_number,
            has_default: column.has_default || is_row_number,
            description: None,
        });
    }
    if relation.shows(&primary_key) {
        relation.primary_key = primary_key;
    }
    if kind == RelationKind::Table {
        let unique = unique_keys(connection, name)?;
        relation.unique_keys = unique.into_iter().filter(|key| relation.shows(key)).collect();
        let references = foreign_keys(connection, catalogue, name)?;
        relation.foreign_keys = references
            .into_iter()
            .filter(|key| relation.shows(&key.columns) && is_shown(access, key))
            .collect();
    }
    Ok(relation)
}

/// A column as the engine tells of it.
struct Declared {
    name: String,
    type_name: String,
    not_null: bool,
    has_default: bool,
    /// Place in the primary key, from 1; else 0.
    key: i64,
}

fn columns(connection: &Connection, relation: &str) -> rusqlite::Result<Vec<Declared>> {
    let mut statement = connection.prepare_cached(
        "SELECT name, lower(type), \"notnull\", dflt_value IS NOT NULL OR hidden IN (2, 3), pk \
         FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid",
    )?;
    let rows = statement.query_map([relation], |row| {
        Ok(Declared {
            name: row.get(0)?,
            type_name: row.get(1)?,
            not_null: row.get(2)?,
            has_default: row.get(3)?,
            key: row.get(4)?,
        })
    })?;
    rows.collect()
}

fn primary_key(columns: &[Declared]) -> Vec<String> {
    let mut key: Vec<&Declared> = columns.iter().filter(|column| column.key > 0).collect();
    key.sort_by_key(|column| column.key);
    key.into_iter().map(|column| column.name.clone()).collect()
}

/// Constraints and unique indexes, if they are over columns and all rows; by name.
fn unique_keys(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Vec<String>>> {
    let mut statement = connection.prepare_cached(
        "SELECT l.name, i.name FROM pragma_index_list(?1, 'main') AS l, \
         pragma_index_info(l.name, 'main') AS i \
         WHERE l.\"unique\" = 1 AND l.partial = 0 AND l.origin <> 'pk' \
         ORDER BY l.name, i.seqno",
    )?;
    let part = |row: &Row<'_>| -> rusqlite::Result<(String, Option<String>)> {
        Ok((row.get(0)?, row.get(1)?))
    };
    let keys = grouped(statement.query_map([table], part)?)?;
    // An expression has no name.
    Ok(keys.into_iter().filter_map(|key| key.into_iter().collect()).collect())
}

fn foreign_keys(
    connection: &Connection,
    catalogue: &Catalogue,
    table: &str,
) -> rusqlite::Result<Vec<ForeignKey>> {
    type Part = (String, String, Option<String>);
    let mut statement = connection.prepare_cached(
        "SELECT id, \"table\", \"from\", \"to\" FROM pragma_foreign_key_list(?1, 'main') \
         ORDER BY id, seq",
    )?;
    let part = |row: &Row<'_>| -> rusqlite::Result<(i64, Part)> {
        Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?)))
    };
    let rows = statement.query_map([table], part)?;
    let mut found = Vec::new();
    for parts in grouped(rows)? {
        // A reference to what is not there, or not to be seen.
        let to = parts.first().and_then(|(to, _, _)| spelled(catalogue, to));
        let Some(Listed { name: relation, kind: RelationKind::Table }) = to else { continue };
        let columns = parts.iter().map(|(_, from, _)| from.clone()).collect();
        let named: Option<Vec<String>> = parts.into_iter().map(|(_, _, to)| to).collect();
        let referenced = match named {
            Some(named) => named,
            // Where no columns are named, the key of the other table is meant.
            None => primary_key(&self::columns(connection, &relation.name)?),
        };
        found.push(ForeignKey { columns, relation: relation.clone(), referenced });
    }
    Ok(found)
}

/// Rows by what they begin with, which comes in order.
fn grouped<K: PartialEq, V>(
    rows: impl Iterator<Item = rusqlite::Result<(K, V)>>,
) -> rusqlite::Result<Vec<Vec<V>>> {
    let mut groups: Vec<(K, Vec<V>)> = Vec::new();
    for row in rows {
        let (key, value) = row?;
        match groups.last_mut() {
            Some((last, values)) if *last == key => values.push(value),
            _ => groups.push((key, vec![value])),
        }
    }
    Ok(groups.into_iter().map(|(_, values)| values).collect())
}

/// What `ANALYZE` left, if it ever ran: of each table, in lower case, the first number of any of its
/// lines.
fn estimates(
    connection: &Connection,
    wanted: &BTreeSet<&Listed>,
) -> rusqlite::Result<BTreeMap<String, u64>> {
    let is_there = "SELECT count(*) FROM main.sqlite_schema WHERE name = 'sqlite_stat1'";
    let mut found = BTreeMap::new();
    if connection.prepare_cached(is_there)?.query_row([], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(found);
    }
    let wanted: BTreeSet<String> =
        wanted.iter().map(|listed| listed.name.name.to_ascii_lowercase()).collect();
    let mut statement = connection.prepare_cached(
        "SELECT lower(tbl), substr(CAST(stat AS TEXT), 1, 20) FROM main.sqlite_stat1 \
         WHERE typeof(tbl) = 'text' AND typeof(stat) = 'text'",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (table, stat): (String, String) = (row.get(0)?, row.get(1)?);
        let number = stat.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| wanted.contains(&table)) {
            let largest = found.entry(table).or_default();
            *largest = number.max(*largest);
        }
    }
    Ok(found)
}

fn kind(is_view: bool) -> RelationKind {
    if is_view { RelationKind::View } else { RelationKind::Table }
}

fn is_main(name: &RelationName) -> bool {
    name.schema.as_deref().is_none_or(|schema| schema.eq_ignore_ascii_case("main"))
}

fn is_allowed(access: &Access, name: &RelationName) -> bool {
    let is_same =
        |table: &RelationName| is_main(table) && table.name.eq_ignore_ascii_case(&name.name);
    access.tables.as_ref().is_none_or(|tables| tables.iter().any(is_same))
}

fn is_denied(access: &Access, relation: &str, column: &str) -> bool {
    access.deny_columns.iter().any(|denied| {
        is_main(&denied.relation)
            && denied.relation.name.eq_ignore_ascii_case(relation)
            && denied.column.eq_ignore_ascii_case(column)
    })
}

/// Whether the other side of a reference may be seen; it is in the catalogue.
fn is_shown(access: &Access, key: &ForeignKey) -> bool {
    let mut referenced = key.referenced.iter();
    !referenced.any(|column| is_denied(access, &key.relation.name, column))
}
