//! Questions to `pg_catalog`. Names are bound, never pasted.

use super::params::texts;
use super::transaction::Transaction;
use crate::database::guard::Uses;
use crate::database::{Error, Refusal};
use crate::tenant::{ColumnName, RelationName};

/// Refuses what could show a denied column and cannot be seen in the text: a relation that is not
/// a table, one that is related by inheritance to a table with `denied` columns, and `table.name` that is no
/// column of the table but a function of its row.
pub(super) async fn check_relations(
    transaction: &mut Transaction<'_>,
    statement: &Uses,
    schema: &str,
    denied: &[ColumnName],
) -> Result<(), Error> {
    let named = columns_of(statement.relations(), schema);
    let is_view = any(
        transaction,
        "SELECT 1 FROM unnest($1::text[], $2::text[]) AS wanted (schema, name) \
             JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema \
             JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name \
             WHERE c.relkind NOT IN ('r', 'p') LIMIT 1",
        &[&named.0, &named.1],
    )
    .await?;
    if is_view {
        return Err(Refusal::new(
            "column",
            "this tenant has columns that may not be read, and a view could show them; read \
             tables",
        )
        .into());
    }
    let denied = columns_of(denied.iter().map(|column| &column.relation), schema);
    if descends(transaction, &named, &denied).await?
        || descends(transaction, &denied, &named).await?
    {
        return Err(Refusal::new(
            "column",
            "the table inherits from, or has as a partition or heir, one with columns that may \
             not be read",
        )
        .into());
    }
    if statement.column_claims().len() == 0 {
        return Ok(());
    }
    let (schemas, names) =
        columns_of(statement.column_claims().map(|(relation, _)| relation), schema);
    let columns: Vec<&str> = statement.column_claims().map(|(_, column)| column.as_str()).collect();
    let is_unknown = any(
        transaction,
            "SELECT 1 FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (schema, name, attribute) \
             JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema \
             JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name \
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid \
             AND a.attname = wanted.attribute AND a.attnum > 0 AND NOT a.attisdropped \
             WHERE a.attname IS NULL LIMIT 1",
            &[&schemas, &names, &columns],
        )
        .await?;
    if is_unknown {
        return Err(Refusal::new("column", "only columns of the table may follow its name").into());
    }
    Ok(())
}

/// Refuses to change anything but a table that is the tenant's own and here: a view changes rows of
/// others, which nobody allowed, and what a foreign table does cannot be undone.
pub(super) async fn check_target(
    transaction: &mut Transaction<'_>,
    target: &RelationName,
    schema: &str,
) -> Result<(), Error> {
    let named = columns_of(std::iter::once(target), schema);
    let is_other = any(
        transaction,
        "SELECT 1 FROM unnest($1::text[], $2::text[]) AS wanted (schema, name) \
             JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema \
             JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name \
             WHERE c.relkind NOT IN ('r', 'p') LIMIT 1",
        &[&named.0, &named.1],
    )
    .await?;
    if is_other {
        return Err(Refusal::new("relation", "only rows of a table may be changed").into());
    }
    Ok(())
}

/// Whether the question has an answer; each of `lists` is bound as an array of texts.
async fn any(
    transaction: &mut Transaction<'_>,
    sql: &str,
    lists: &[&Vec<&str>],
) -> Result<bool, Error> {
    let values: Vec<Option<String>> = lists.iter().map(|list| Some(texts(list.iter()))).collect();
    let mut found = false;
    transaction
        .ask(sql, &values, |_| {
            found = true;
            Ok(())
        })
        .await?;
    Ok(found)
}

/// Whether one of `heirs` inherits, at any distance, from one of `parents`; each is a list of
/// schemas and one of names.
async fn descends(
    transaction: &mut Transaction<'_>,
    heirs: &(Vec<&str>, Vec<&str>),
    parents: &(Vec<&str>, Vec<&str>),
) -> Result<bool, Error> {
    any(
        transaction,
        "WITH RECURSIVE line (oid) AS ( \
             SELECT i.inhparent FROM unnest($1::text[], $2::text[]) AS wanted (schema, name) \
             JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema \
             JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name \
             JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid \
             UNION SELECT i.inhparent FROM line \
             JOIN pg_catalog.pg_inherits i ON i.inhrelid = line.oid) \
             SELECT 1 FROM line JOIN pg_catalog.pg_class c ON c.oid = line.oid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN unnest($3::text[], $4::text[]) AS parent (schema, name) \
             ON parent.schema = n.nspname AND parent.name = c.relname LIMIT 1",
        &[&heirs.0, &heirs.1, &parents.0, &parents.1],
    )
    .await
}

fn columns_of<'a>(
    relations: impl Iterator<Item = &'a RelationName>,
    schema: &'a str,
) -> (Vec<&'a str>, Vec<&'a str>) {
    relations
        .map(|relation| (relation.schema.as_deref().unwrap_or(schema), relation.name.as_str()))
        .unzip()
}
