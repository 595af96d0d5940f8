//! What there is to read, from `pg_catalog`. Names are bound, never pasted.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::params::texts;
use super::transaction::Transaction;
use crate::database::catalogue::Kept;
use crate::database::{
    Catalogue, Error, ForeignKey, Listed, Relation, RelationColumn, RelationKind, Unavailable,
};
use crate::tenant::{Access, RelationName};

/// The relations of the schemas `$1`; `$2` is only as long.
const OF_SCHEMA: &str = "FROM unnest($1::text[], $2::text[]) AS wanted (schema, name) \
    JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema \
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid";
/// The same, of a list of names.
const OF_LIST: &str = "FROM unnest($1::text[], $2::text[]) AS wanted (schema, name) \
    JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema \
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name";
/// Which of them may be read, and named: the guard refuses what is called as the system's own are.
const READABLE: &str = "WHERE pg_catalog.strpos($3, c.relkind::text) > 0 \
    AND pg_catalog.left(c.relname, 3) <> 'pg_' \
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
    AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT')";

/// How names are compared within one session.
struct Names<'a> {
    access: &'a Access,
    /// The tenant's own.
    schema: &'a str,
    /// What `access` allows, if it has a list.
    wanted: Option<Vec<RelationName>>,
}

impl<'a> Names<'a> {
    fn new(access: &'a Access, schema: &'a str) -> Self {
        let wanted = access.tables.as_ref();
        let wanted = wanted.map(|tables| tables.iter().map(|name| own(name, schema)).collect());
        Self { access, schema, wanted }
    }

    fn named(&self, schema: &str, name: &str) -> RelationName {
        own(&RelationName { schema: Some(schema.to_owned()), name: name.to_owned() }, self.schema)
    }

    fn is_allowed(&self, name: &RelationName) -> bool {
        self.wanted.as_ref().map_or(name.schema.is_none(), |wanted| wanted.contains(name))
    }

    fn is_denied(&self, relation: &RelationName, column: &str) -> bool {
        let mut denied = self.access.deny_columns.iter();
        denied.any(|it| it.column == column && own(&it.relation, self.schema) == *relation)
    }

    /// Where columns are denied, only tables can be read.
    fn kinds(&self) -> &'static str {
        if self.access.deny_columns.is_empty() { "rpfvm" } else { "rp" }
    }

    /// What is bound to ask about these relations.
    fn values<'n>(&self, names: impl Iterator<Item = &'n RelationName>) -> [Option<String>; 3] {
        let (schemas, names): (Vec<&str>, Vec<&str>) = names
            .map(|name| (name.schema.as_deref().unwrap_or(self.schema), name.name.as_str()))
            .unzip();
        [Some(texts(&schemas)), Some(texts(&names)), Some(self.kinds().to_owned())]
    }
}

fn own(name: &RelationName, schema: &str) -> RelationName {
    RelationName {
        schema: name.schema.clone().filter(|named| named != schema),
        name: name.name.clone(),
    }
}

/// The catalogue: one question where `kept` still holds, two otherwise.
///
/// What says that it still holds is a hash over the very names that would be read, by the server:
/// whatever makes a difference to a listing makes one to it, be it a table, a name or a privilege.
pub(super) async fn catalogue(
    transaction: &mut Transaction<'_>,
    kept: &mut Kept<String>,
    access: &Access,
    schema: &str,
) -> Result<Arc<Catalogue>, Error> {
    let names = Names::new(access, schema);
    let (source, values) = if let Some(wanted) = &names.wanted {
        (OF_LIST, names.values(wanted.iter()))
    } else {
        let any = RelationName { schema: None, name: String::new() };
        (OF_SCHEMA, names.values(std::iter::once(&any)))
    };
    let mut state = String::new();
    let fingerprint = format!(
        "SELECT pg_catalog.concat_ws(' ', pg_catalog.count(*), \
         pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(c.relkind, \
         pg_catalog.quote_ident(n.nspname), '.', pg_catalog.quote_ident(c.relname)), 0))) \
         {source} {READABLE}"
    );
    transaction
        .ask(&fingerprint, &values, |cells| {
            cell(cells, 0)?.clone_into(&mut state);
            Ok(())
        })
        .await?;
    if let Some(catalogue) = kept.get(&state, access) {
        return Ok(catalogue);
    }
    let mut found = Vec::new();
    let list = format!("SELECT n.nspname, c.relname, c.relkind {source} {READABLE}");
    transaction
        .ask(&list, &values, |cells| {
            let name = names.named(cell(cells, 0)?, cell(cells, 1)?);
            found.push(Listed { name, kind: kind(cell(cells, 2)?) });
            Ok(())
        })
        .await?;
    // What changed between the two questions is in the list, and makes the next hash another one.
    Ok(kept.put(state, access, Catalogue::new(found)))
}

/// What stands behind `wanted`; two questions.
pub(super) async fn describe(
    transaction: &mut Transaction<'_>,
    access: &Access,
    wanted: &[RelationName],
    schema: &str,
) -> Result<Vec<Relation>, Error> {
    let names = Names::new(access, schema);
    let wanted: Vec<RelationName> = wanted.iter().map(|name| own(name, schema)).collect();
    let wanted: Vec<&RelationName> = wanted.iter().filter(|name| names.is_allowed(name)).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let values = names.values(wanted.iter().copied());
    let mut found = columns(transaction, &names, &values).await?;
    keys(transaction, &names, &values, &mut found).await?;
    Ok(found.into_values().collect())
}

/// The relations with their columns.
async fn columns(
    transaction: &mut Transaction<'_>,
    names: &Names<'_>,
    values: &[Option<String>],
) -> Result<BTreeMap<RelationName, Relation>, Error> {
    let mut found: BTreeMap<RelationName, Relation> = BTreeMap::new();
    // A relation's own comment comes with its first column only. A figure that is 0 without a page
    // is none: nobody has counted.
    let sql = format!(
        "SELECT n.nspname, c.relname, c.relkind, \
         CASE WHEN pg_catalog.row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum) = 1 \
         THEN pg_catalog.left(pg_catalog.obj_description(c.oid, 'pg_class'), 1000) END, \
         CASE WHEN c.relrowsecurity OR c.relkind = 'v' OR c.reltuples < 0 \
         OR (c.reltuples = 0 AND c.relpages = 0) THEN NULL ELSE c.reltuples::int8 END, \
         a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), \
         a.attnotnull, a.atthasdef OR a.attidentity <> '', \
         pg_catalog.left(pg_catalog.col_description(c.oid, a.attnum), 300) \
         {OF_LIST} LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid \
         AND a.attnum > 0 AND NOT a.attisdropped \
         AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT') \
         {READABLE} ORDER BY a.attnum"
    );
    transaction
        .ask(&sql, values, |cells| {
            let name = names.named(cell(cells, 0)?, cell(cells, 1)?);
            let kind = kind(cell(cells, 2)?);
            let relation =
                found.entry(name.clone()).or_insert_with(|| Relation::new(name.clone(), kind));
            let optional = |place: usize| cells.get(place).and_then(Option::as_deref);
            if let Some(comment) = optional(3) {
                relation.description = Some(comment.to_owned());
            }
            relation.estimated_rows = optional(4).and_then(|rows| rows.parse().ok());
            let Some(column) = optional(5) else { return Ok(()) };
            if !names.is_denied(&name, column) {
                relation.columns.push(RelationColumn {
                    name: column.to_owned(),
                    type_name: cell(cells, 6)?.to_owned(),
                    nullable: cell(cells, 7)? != "t",
                    has_default: cell(cells, 8)? == "t",
                    description: optional(9).map(str::to_owned),
                });
            }
            Ok(())
        })
        .await?;
    Ok(found)
}

/// Puts the keys into `found`.
async fn keys(
    transaction: &mut Transaction<'_>,
    names: &Names<'_>,
    values: &[Option<String>],
    found: &mut BTreeMap<RelationName, Relation>,
) -> Result<(), Error> {
    // A unique index is a key as good as a constraint, if it is over columns and all rows. A
    // reference to a partitioned table has one row for it, and one for each of its partitions.
    let sql = format!(
        "SELECT n.nspname, c.relname, CASE WHEN i.indisprimary THEN 'p' ELSE 'u' END, \
         (SELECT pg_catalog.json_agg(a.attname ORDER BY k.place) \
         FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place) \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number \
         WHERE k.place <= i.indnkeyatts)::text, NULL, NULL, NULL, named.relname \
         {OF_LIST} JOIN pg_catalog.pg_index i ON i.indrelid = c.oid \
         AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
         JOIN pg_catalog.pg_class named ON named.oid = i.indexrelid {READABLE} \
         UNION ALL SELECT n.nspname, c.relname, 'f', \
         (SELECT pg_catalog.json_agg(a.attname ORDER BY k.place) \
         FROM pg_catalog.unnest(con.conkey) WITH ORDINALITY AS k (number, place) \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number)::text, \
         other_schema.nspname, other.relname, \
         (SELECT pg_catalog.json_agg(a.attname ORDER BY k.place) \
         FROM pg_catalog.unnest(con.confkey) WITH ORDINALITY AS k (number, place) \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = other.oid AND a.attnum = k.number)::text, \
         con.conname \
         {OF_LIST} JOIN pg_catalog.pg_constraint con ON con.conrelid = c.oid AND con.contype = 'f' \
         AND (con.conparentid = 0 OR c.relispartition) \
         JOIN pg_catalog.pg_class other ON other.oid = con.confrelid \
         JOIN pg_catalog.pg_namespace other_schema ON other_schema.oid = other.relnamespace \
         {READABLE} AND pg_catalog.has_schema_privilege(other_schema.oid, 'USAGE') \
         AND NOT EXISTS (SELECT FROM pg_catalog.unnest(con.confkey) AS it (number) \
         WHERE NOT pg_catalog.has_column_privilege(other.oid, it.number, 'SELECT')) \
         ORDER BY 3, 8"
    );
    transaction
        .ask(&sql, values, |cells| {
            let name = names.named(cell(cells, 0)?, cell(cells, 1)?);
            // Dropped between the questions, or made then.
            let Some(relation) = found.get_mut(&name) else { return Ok(()) };
            let listed = |place: usize| -> Result<Vec<String>, Error> {
                let columns = serde_json::from_str(cell(cells, place)?);
                Ok(columns.map_err(|_| Unavailable::Protocol)?)
            };
            let columns = listed(3)?;
            if !relation.shows(&columns) {
                return Ok(());
            }
            match cell(cells, 2)? {
                "p" => relation.primary_key = columns,
                "u" => relation.unique_keys.push(columns),
                _ => {
                    let to = names.named(cell(cells, 4)?, cell(cells, 5)?);
                    let referenced = listed(6)?;
                    let is_shown = names.is_allowed(&to)
                        && !referenced.iter().any(|column| names.is_denied(&to, column));
                    if is_shown {
                        let key = ForeignKey { columns, relation: to, referenced };
                        relation.foreign_keys.push(key);
                    }
                }
            }
            Ok(())
        })
        .await
}

fn cell<'a>(cells: &'a [Option<Cow<'_, str>>], place: usize) -> Result<&'a str, Error> {
    Ok(cells.get(place).and_then(Option::as_deref).ok_or(Unavailable::Protocol)?)
}

fn kind(relkind: &str) -> RelationKind {
    match relkind {
        "v" | "m" => RelationKind::View,
        _ => RelationKind::Table,
    }
}
