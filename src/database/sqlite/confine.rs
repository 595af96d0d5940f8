//! What the engine may do for one statement, decided as it resolves names.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::database::GuardedSql;
use crate::database::guard::{Dialect, is_function_allowed};
use crate::tenant::Access;

/// What the schema says about the relations of one statement.
#[derive(Debug, Default)]
pub(super) struct Schema {
    pub(super) has_virtual_table: bool,
    /// All views that there are, in lower case, if any of the relations is one.
    pub(super) views: BTreeSet<String>,
}

/// The verdict on one statement, asked again for each thing that the engine would do.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) statement: GuardedSql,
    pub(super) access: Access,
    /// What the schema says about its relations.
    pub(super) schema: Schema,
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
            }
            // How an index sees that another connection has changed it.
            AuthAction::Pragma { pragma_name: "data_version", pragma_value: None } => {
                self.is_of_module()
            }
            AuthAction::Read { table_name, column_name } => {
                context.database_name.is_none_or(|name| name == "main" || name.is_empty())
                    && self.may_read(table_name, column_name, context.accessor)
                    && !self.is_denied(table_name, column_name)
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
                && !self.statement.defines(accessor)
        });
        by_view
            // `SELECT count(*) FROM` a common table expression reads no column of it.
            || (column.is_empty() && self.statement.defines(table))
            || self.statement.relations().any(|relation| relation.name.eq_ignore_ascii_case(table))
            || self.statement.calls_in_from(table)
            || self.is_of_module()
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
