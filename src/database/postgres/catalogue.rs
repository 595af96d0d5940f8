//! Questions to `pg_catalog`. Names are bound, never pasted.

use std::collections::BTreeMap;
use std::pin::pin;

use futures_util::TryStreamExt as _;
use postgres_types::{ToSql, Type};
use tokio_postgres::Transaction;

use super::link::Link;
use super::{CATALOGUE_LIMITS, failure, row_allowance};
use crate::database::{Column, Error, GuardedSql, Refusal, Relation, RelationKind};
use crate::tenant::{Access, ColumnName, RelationName};

/// Refuses what could show a denied column and cannot be seen in the text: a relation that is not
/// a table, one that is related by inheritance to a table with `denied` columns, and `table.name` that is no
/// column of the table but a function of its row.
pub(super) async fn check_relations(
    transaction: &Transaction<'_>,
    statement: &GuardedSql,
    schema: &str,
    denied: &[ColumnName],
) -> Result<(), Error> {
    let (schemas, names) = columns_of(statement.relations(), schema);
    let views = transaction
        .query_typed(
            "SELECT 1 FROM unnest($1, $2) AS wanted (schema, name) \
             JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema \
             JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name \
             WHERE c.relkind NOT IN ('r', 'p') LIMIT 1",
            &[(&schemas, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)],
        )
        .await
        .map_err(failure)?;
    if !views.is_empty() {
        return Err(Refusal::new(
            "column",
            "this tenant has columns that may not be read, and a view could show them; read \
             tables",
        )
        .into());
    }
    let denied = columns_of(denied.iter().map(|column| &column.relation), schema);
    let named = (schemas, names);
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
    let unknown = transaction
        .query_typed(
            "SELECT 1 FROM unnest($1, $2, $3) AS wanted (schema, name, attribute) \
             JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema \
             JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name \
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid \
             AND a.attname = wanted.attribute AND a.attnum > 0 AND NOT a.attisdropped \
             WHERE a.attname IS NULL LIMIT 1",
            &[
                (&schemas, Type::TEXT_ARRAY),
                (&names, Type::TEXT_ARRAY),
                (&columns, Type::TEXT_ARRAY),
            ],
        )
        .await
        .map_err(failure)?;
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(Refusal::new("column", "only columns of the table may follow its name").into())
    }
}

/// Whether one of `heirs` inherits, at any distance, from one of `parents`; each is a list of
/// schemas and one of names.
async fn descends(
    transaction: &Transaction<'_>,
    heirs: &(Vec<&str>, Vec<&str>),
    parents: &(Vec<&str>, Vec<&str>),
) -> Result<bool, Error> {
    let found = transaction
        .query_typed(
            "WITH RECURSIVE line (oid) AS ( \
             SELECT i.inhparent FROM unnest($1, $2) AS wanted (schema, name) \
             JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema \
             JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name \
             JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid \
             UNION SELECT i.inhparent FROM line \
             JOIN pg_catalog.pg_inherits i ON i.inhrelid = line.oid) \
             SELECT 1 FROM line JOIN pg_catalog.pg_class c ON c.oid = line.oid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN unnest($3, $4) AS parent (schema, name) \
             ON parent.schema = n.nspname AND parent.name = c.relname LIMIT 1",
            &[
                (&heirs.0, Type::TEXT_ARRAY),
                (&heirs.1, Type::TEXT_ARRAY),
                (&parents.0, Type::TEXT_ARRAY),
                (&parents.1, Type::TEXT_ARRAY),
            ],
        )
        .await
        .map_err(failure)?;
    Ok(!found.is_empty())
}

fn columns_of<'a>(
    relations: impl Iterator<Item = &'a RelationName>,
    schema: &'a str,
) -> (Vec<&'a str>, Vec<&'a str>) {
    relations
        .map(|relation| (relation.schema.as_deref().unwrap_or(schema), relation.name.as_str()))
        .unzip()
}

/// The relations that `access` allows and the role may read, in name order.
pub(super) async fn relations(
    transaction: &Transaction<'_>,
    link: &Link,
    access: &Access,
    schema: &str,
) -> Result<Vec<Relation>, Error> {
    let own = |name: &RelationName| RelationName {
        schema: name.schema.clone().filter(|named| named != schema),
        name: name.name.clone(),
    };
    let wanted: Option<Vec<RelationName>> =
        access.tables.as_ref().map(|tables| tables.iter().map(own).collect());
    let mut schemas: Vec<&str> = vec![schema];
    schemas.extend(wanted.iter().flatten().filter_map(|name| name.schema.as_deref()));
    // Where columns are denied, only tables can be read.
    let kinds = if access.deny_columns.is_empty() { "rpfvm" } else { "rp" };
    let params: [(&(dyn ToSql + Sync), Type); 2] =
        [(&schemas, Type::TEXT_ARRAY), (&kinds, Type::TEXT)];
    let rows = transaction
        .query_typed_raw(
            "SELECT n.nspname::text, c.relname::text, c.relkind::text, \
             pg_catalog.obj_description(c.oid, 'pg_class'), a.attname::text, \
             pg_catalog.format_type(a.atttypid, a.atttypmod) \
             FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid \
             WHERE n.nspname = ANY ($1) AND position(c.relkind::text IN $2) > 0 \
             AND a.attnum > 0 AND NOT a.attisdropped \
             AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
             AND (pg_catalog.has_table_privilege(c.oid, 'SELECT') \
             OR pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')) \
             ORDER BY a.attnum",
            params,
        )
        .await
        .map_err(failure)?;
    let mut rows = pin!(rows);
    let mut found: BTreeMap<RelationName, Relation> = BTreeMap::new();
    while let Some(row) = rows.try_next().await.map_err(failure)? {
        link.allowance.set(row_allowance(&CATALOGUE_LIMITS));
        let text = |position: usize| row.try_get::<_, String>(position).map_err(failure);
        let name = own(&RelationName { schema: Some(text(0)?), name: text(1)? });
        let column = Column { name: text(4)?, type_name: text(5)? };
        let is_allowed = match &wanted {
            Some(wanted) => wanted.contains(&name),
            None => name.schema.is_none(),
        };
        if !is_allowed {
            continue;
        }
        let is_denied = access
            .deny_columns
            .iter()
            .any(|denied| own(&denied.relation) == name && denied.column == column.name);
        let kind = match text(2)?.as_str() {
            "v" | "m" => RelationKind::View,
            _ => RelationKind::Table,
        };
        let description = row.try_get(3).map_err(failure)?;
        let relation = found.entry(name.clone()).or_insert_with(|| Relation {
            name,
            kind,
            description,
            columns: Vec::new(),
        });
        if !is_denied {
            relation.columns.push(column);
        }
    }
    Ok(found.into_values().collect())
}
