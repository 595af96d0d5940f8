//! What the engine may do for one statement, decided as it resolves names.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::change::Changes;
use crate::database::guard::{Dialect, Uses, is_function_allowed};
use crate::tenant::Access;

/// What the schema says about the relations of one statement.
#[derive(Debug, Default)]
pub(super) struct Schema {
    pub(super) has_virtual_table: bool,
    /// All views that there are, in lower case, if any of the relations, or what a trigger may read,
    /// is one.
    pub(super) views: BTreeSet<String>,
}

/// The verdict on one statement, asked again for each thing that the engine would do.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) uses: Uses,
    pub(super) access: Access,
    /// What the schema says about its relations.
    pub(super) schema: Schema,
    /// What it may change; nothing for a query.
    pub(super) changes: Option<Changes>,
    /// Whether the statement is compiled, and runs.
    pub(super) is_running: Arc<AtomicBool>,
}

impl Policy {
    pub(super) fn decide(&self, context: &AuthContext<'_>) -> Authorization {
        #[expect(clippy::wildcard_enum_match_arm, reason = "an allow list")]
        let allowed = match context.action {
            AuthAction::Select | AuthAction::Recursive => true,
            AuthAction::Function { function_name } => {
                is_function_allowed(Dialect::Sqlite, function_name)
                    || self.is_of_trigger(context.accessor)
                    || self.changes.as_ref().is_some_and(|it| it.may_call(function_name))
            }
            // How an index sees that another connection has changed it.
            AuthAction::Pragma { pragma_name: "data_version", pragma_value: None } => {
                self.is_of_module()
            }
            AuthAction::Read { table_name, column_name } => {
                context.database_name.is_none_or(|name| name == "main" || name.is_empty())
                    && (self.may_read(table_name, column_name, context.accessor)
                        && !self.is_denied(table_name, column_name)
                        || self.is_of_trigger(context.accessor)
                        || self.is_key(table_name, column_name))
            }
            AuthAction::Insert { table_name } => {
                self.may_change(table_name, context.database_name, context.accessor)
            }
            AuthAction::Delete { table_name } => {
                self.may_change(table_name, context.database_name, context.accessor)
                    || self.follows(table_name, context.database_name)
            }
            AuthAction::Update { table_name, column_name } => {
                self.may_change(table_name, context.database_name, context.accessor)
                    && (self.is_of_trigger(context.accessor)
                        || !self.is_denied(table_name, column_name))
                    || self.follows(table_name, context.database_name)
            }
            _ => false,
        };
        if allowed { Authorization::Allow } else { Authorization::Deny }
    }

    /// A table named by the statement; or any table below a view, since the view itself is read
    /// with no accessor and decided then. The engine calls a common table expression an accessor
    /// too; what stands in one is the caller's own text.
    fn may_read(&self, table: &str, column: &str, accessor: Option<&str>) -> bool {
        let by_view = accessor.is_some_and(|accessor| {
            self.schema.views.contains(&accessor.to_ascii_lowercase())
                && !self.uses.defines(accessor)
        });
        by_view
            // `SELECT count(*) FROM` a common table expression reads no column of it.
            || (column.is_empty() && self.uses.defines(table))
            || self.uses.relations().any(|relation| relation.name.eq_ignore_ascii_case(table))
            || self.uses.calls_in_from(table)
            || self.is_of_module()
    }

    /// The one table that the statement changes; and whatever a trigger or virtual table of the
    /// tenant's own changes with it, but for the schema.
    fn may_change(&self, table: &str, database: Option<&str>, accessor: Option<&str>) -> bool {
        let Some(changes) = &self.changes else { return false };
        let is_schema = table.get(..7).is_some_and(|it| it.eq_ignore_ascii_case("sqlite_"));
        database == Some("main")
            && !is_schema
            && (accessor.is_none() && changes.is_target(table)
                || self.is_of_trigger(accessor)
                || self.is_of_module())
    }

    /// Whether a foreign key may change `table` with the statement's own. The engine has no accessor
    /// for what keys do.
    fn follows(&self, table: &str, database: Option<&str>) -> bool {
        database == Some("main") && self.changes.as_ref().is_some_and(|it| it.follows(table))
    }

    /// Whether a foreign key is looked up by this column.
    fn is_key(&self, table: &str, column: &str) -> bool {
        self.changes.as_ref().is_some_and(|changes| changes.is_key(table, column))
    }

    /// Whether the engine asks on behalf of a trigger. What the caller's own text has for accessors
    /// are common table expressions and views, none of which may have the name of one.
    fn is_of_trigger(&self, accessor: Option<&str>) -> bool {
        let (Some(changes), Some(accessor)) = (&self.changes, accessor) else { return false };
        changes.is_trigger(accessor)
            && !self.uses.defines(accessor)
            && !self.schema.views.contains(&accessor.to_ascii_lowercase())
    }

    /// Whether the engine asks on behalf of a virtual table, such as a full-text index that reads
    /// what it keeps, or the table that it indexes: all of the caller's own text was decided when
    /// it was compiled.
    fn is_of_module(&self) -> bool {
        self.schema.has_virtual_table && self.is_running.load(Ordering::Relaxed)
    }

    fn is_denied(&self, table: &str, column: &str) -> bool {
        self.access.deny_columns.iter().any(|denied| {
            denied.relation.name.eq_ignore_ascii_case(table)
                && denied.column.eq_ignore_ascii_case(column)
        })
    }
}
