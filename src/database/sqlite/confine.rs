//! What the engine may do for one statement, decided as it resolves names.

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::database::GuardedSql;
use crate::database::guard::{Dialect, is_function_allowed};
use crate::tenant::Access;

/// The verdict on one statement, asked again for each thing that the engine would do.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) statement: GuardedSql,
    pub(super) access: Access,
}

impl Policy {
    pub(super) fn decide(&self, context: &AuthContext<'_>) -> Authorization {
        #[expect(clippy::wildcard_enum_match_arm, reason = "an allow list")]
        let allowed = match context.action {
            AuthAction::Select | AuthAction::Recursive => true,
            AuthAction::Function { function_name } => {
                is_function_allowed(Dialect::Sqlite, function_name)
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
        let by_view = accessor.is_some_and(|accessor| !self.statement.defines(accessor));
        by_view
            // `SELECT count(*) FROM` a common table expression reads no column of it.
            || (column.is_empty() && self.statement.defines(table))
            || self.statement.relations().any(|relation| relation.name.eq_ignore_ascii_case(table))
    }

    fn is_denied(&self, table: &str, column: &str) -> bool {
        self.access.deny_columns.iter().any(|denied| {
            denied.relation.name.eq_ignore_ascii_case(table)
                && denied.column.eq_ignore_ascii_case(column)
        })
    }
}
