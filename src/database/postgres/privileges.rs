//! What the session's role may do that no reader needs.

use super::failure::printable;
use super::transaction::Transaction;
use crate::database::{Error, ExcessPrivilege};

/// Each with whether it is privileged. A superuser may do all the rest.
const QUESTION: &str = "\
    WITH own AS (SELECT * FROM pg_catalog.pg_roles WHERE rolname = current_user) \
    SELECT 'is a superuser', true FROM own WHERE rolsuper \
    UNION ALL SELECT 'bypasses row-level security', true FROM own \
    WHERE rolbypassrls AND NOT rolsuper \
    UNION ALL SELECT 'may create roles', true FROM own WHERE rolcreaterole AND NOT rolsuper \
    UNION ALL SELECT 'may create databases', true FROM own WHERE rolcreatedb AND NOT rolsuper \
    UNION ALL SELECT 'may replicate', true FROM own WHERE rolreplication AND NOT rolsuper \
    UNION ALL SELECT 'is a member of ' || r.rolname, true FROM own, pg_catalog.pg_roles r \
    WHERE NOT own.rolsuper AND r.oid <> own.oid \
    AND pg_catalog.pg_has_role(own.oid, r.oid, 'MEMBER') \
    AND (r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication \
    OR r.rolname LIKE 'pg\\_%' AND r.rolname <> 'pg_database_owner') \
    UNION ALL SELECT 'owns the database ' || d.datname, true FROM own, pg_catalog.pg_database d \
    WHERE NOT own.rolsuper AND pg_catalog.pg_has_role(own.oid, d.datdba, 'MEMBER') \
    UNION ALL (SELECT 'owns tables whose row-level security does not hold for their owner', true \
    FROM own, pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE NOT own.rolsuper AND n.nspname = $1 AND c.relrowsecurity AND NOT c.relforcerowsecurity \
    AND pg_catalog.pg_has_role(own.oid, c.relowner, 'MEMBER') LIMIT 1) \
    UNION ALL SELECT 'may create objects in the schema', false FROM own, \
    pg_catalog.pg_namespace n WHERE NOT own.rolsuper AND n.nspname = $1 \
    AND pg_catalog.has_schema_privilege(n.oid, 'CREATE') \
    UNION ALL (SELECT 'may write tables of the schema', false FROM own, pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE NOT own.rolsuper AND n.nspname = $1 AND c.relkind IN ('r', 'p') \
    AND (pg_catalog.has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') \
    OR pg_catalog.has_any_column_privilege(c.oid, 'INSERT, UPDATE')) LIMIT 1)";

/// See [`crate::database::Database::excess_privileges`].
pub(super) async fn excess(
    transaction: &mut Transaction<'_>,
    schema: &str,
) -> Result<Vec<ExcessPrivilege>, Error> {
    let mut found = Vec::new();
    transaction
        .ask(QUESTION, &[Some(schema.to_owned())], |cells| {
            let cell = |place: usize| cells.get(place).and_then(Option::as_deref);
            found.push(ExcessPrivilege {
                text: printable(cell(0).unwrap_or_default(), 100),
                is_privileged: cell(1) != Some("f"),
            });
            Ok(())
        })
        .await?;
    found.sort_by(|one, other| one.text.cmp(&other.text));
    Ok(found)
}
