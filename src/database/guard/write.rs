//! Statements that change rows: which forms there are, and which table they change.
//!
//! ```text
//! INSERT | UPDATE | DELETE, after WITH of queries --walk--> target table, relations --> GuardedWrite
//! ```
//!
//! What is read on the way (WHERE, FROM, RETURNING, the source of an INSERT) is held to the same
//! lists as a query. A `GuardedWrite` is no `GuardedSql` and has none inside: what reads cannot be
//! handed a change.

use sqlparser::ast::{
    Assignment, AssignmentTarget, ConflictTarget, Delete, DoUpdate, Expr, FromTable, Ident, Insert,
    ObjectName, OnConflict, OnConflictAction, OnInsert, Query, SelectItem, SetExpr,
    SqliteOnConflict, Statement, TableFactor, TableObject, TableWithJoins, Update,
    UpdateTableFromKind,
};

use super::name::Names;
use super::query::{Verdict, Walk, none};
use super::{Dialect, Form, Refusal, Uses, admit, parse};
use crate::tenant::{Access, RelationName, Resource};

/// A change of rows that may run. Made only by [`check_write`]:
///
/// ```compile_fail,E0451
/// let forged = tenantry::database::GuardedWrite { sql: "DROP TABLE users".to_owned() };
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct GuardedWrite {
    sql: String,
    target: RelationName,
    uses: Uses,
}

/// Decides what a caller under `resource` may change: one INSERT, UPDATE or DELETE.
///
/// `default_schema` is as for [`super::check`]. Whether `access.mode` and the caller allow writing
/// at all is not asked here.
///
/// # Errors
///
/// A [`Refusal`] that names the rule and says what would be allowed.
pub fn check_write(
    sql: &str,
    dialect: Dialect,
    resource: &Resource,
    access: &Access,
    default_schema: &str,
) -> Result<GuardedWrite, Refusal> {
    let statement = parse(sql, dialect, Form::Write)?;
    let query = Form::Write.query(statement)?;
    if let Resource::View(_) = resource {
        return Err(Refusal::new("relation", "under the URI of a view nothing may be changed"));
    }
    let names = Names::new(dialect, default_schema);
    let admitted = admit(query, Form::Write, &names, resource, access)?;
    let target = admitted.target.ok_or_else(|| Form::Write.wrong_kind())?;
    Ok(GuardedWrite { sql: admitted.sql, target, uses: admitted.uses })
}

impl GuardedWrite {
    /// What nobody checked, to show that the session holds without the guard.
    #[cfg(test)]
    pub(in crate::database) fn unguarded(sql: &str, target: &str, relations: &[&str]) -> Self {
        let target = RelationName { schema: None, name: target.to_owned() };
        Self { sql: sql.to_owned(), target, uses: Uses::of_relations(relations) }
    }

    /// The text that will run.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The table whose rows change; named as [`GuardedWrite::relations`] are.
    pub fn target(&self) -> &RelationName {
        &self.target
    }

    /// The relations that it names, the target among them, in order; without a schema when in the
    /// tenant's own. On `SQLite` in lower case.
    pub fn relations(&self) -> impl ExactSizeIterator<Item = &RelationName> {
        self.uses.relations()
    }

    pub(in crate::database) fn uses(&self) -> &Uses {
        &self.uses
    }
}

impl std::fmt::Debug for GuardedWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the text: it holds the caller's data, and this ends up in logs.
        f.debug_struct("GuardedWrite").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Walk<'_> {
    /// Walks a change of rows.
    pub(super) fn write(&mut self, query: &Query) -> Verdict {
        none("a clause after the statement", is_bare(query))?;
        self.nested(|walk| {
            if let Some(with) = &query.with {
                walk.with(with)?;
            }
            match &*query.body {
                SetExpr::Insert(Statement::Insert(insert)) => walk.insert(insert),
                SetExpr::Update(Statement::Update(update)) => walk.update(update),
                SetExpr::Delete(Statement::Delete(delete)) => walk.delete(delete),
                _ => Err(Form::Write.wrong_kind()),
            }
        })?;
        // Engines differ in which of the two they take; nobody needs both.
        let target = self.found.target.as_ref();
        if target.is_some_and(|it| self.found.common_tables.contains(&it.name.to_ascii_lowercase()))
        {
            return Err(Refusal::new(
                "relation",
                "a common table expression may not have the name of the table that is changed",
            ));
        }
        Ok(())
    }

    fn insert(&mut self, insert: &Insert) -> Verdict {
        let Insert {
            insert_token: _,
            optimizer_hints,
            or,
            ignore,
            into,
            table,
            table_alias,
            columns,
            overwrite,
            source,
            assignments,
            partitioned,
            after_columns,
            has_table_keyword,
            on,
            returning,
            output,
            replace_into,
            priority,
            insert_alias,
            settings,
            format_clause,
            multi_table_insert_type,
            multi_table_into_clauses,
            multi_table_when_clauses,
            multi_table_else_clause,
        } = insert;
        no_conflict_clause(*or)?;
        let is_plain = optimizer_hints.is_empty()
            && !ignore
            && *into
            && !overwrite
            && assignments.is_empty()
            && partitioned.is_none()
            && after_columns.is_empty()
            && !has_table_keyword
            && output.is_none()
            && !replace_into
            && priority.is_none()
            && insert_alias.is_none()
            && settings.is_none()
            && format_clause.is_none()
            && multi_table_insert_type.is_none()
            && multi_table_into_clauses.is_empty()
            && multi_table_when_clauses.is_empty()
            && multi_table_else_clause.is_none();
        none("INSERT other than INTO table (columns) VALUES, SELECT or DEFAULT VALUES", is_plain)?;
        let TableObject::TableName(name) = table else {
            return none("INSERT into anything but a table", false);
        };
        self.relation(name, None)?;
        let target = self.target(name)?;
        if let Some(alias) = table_alias {
            self.row_of(&alias.alias, &target);
        }
        columns.iter().try_for_each(|column| self.column(column))?;
        match source {
            Some(source) => {
                self.found.inserts_unnamed = columns.is_empty();
                self.source(source)?;
            }
            None => none("a column list before DEFAULT VALUES", columns.is_empty())?,
        }
        if let Some(on) = on {
            self.row_of(&Ident::new("excluded"), &target);
            self.on_conflict(on)?;
        }
        self.returning(returning.as_deref(), &target)
    }

    /// What is inserted: rows, where DEFAULT may stand for a value, or a query.
    fn source(&mut self, source: &Query) -> Verdict {
        match &*source.body {
            SetExpr::Values(values)
                if source.with.is_none() && is_bare(source) && !values.explicit_row =>
            {
                values.rows.iter().flat_map(|row| &row.content).try_for_each(|it| self.value(it))
            }
            _ => self.query(source),
        }
    }

    fn on_conflict(&mut self, on: &OnInsert) -> Verdict {
        let OnInsert::OnConflict(OnConflict { conflict_target, action }) = on else {
            return none("ON DUPLICATE KEY", false);
        };
        match conflict_target {
            Some(ConflictTarget::Columns(_)) | None => {}
            Some(ConflictTarget::OnConstraint(name)) => {
                let is_known = self.names.dialect == Dialect::Postgres && name.0.len() == 1;
                none("this way to name a constraint", is_known)?;
            }
        }
        match action {
            OnConflictAction::DoNothing => Ok(()),
            OnConflictAction::DoUpdate(DoUpdate { assignments, selection }) => {
                self.assignments(assignments)?;
                self.expressions(selection)
            }
        }
    }

    fn update(&mut self, update: &Update) -> Verdict {
        let Update {
            update_token: _,
            optimizer_hints,
            table,
            assignments,
            from,
            selection,
            returning,
            output,
            or,
            order_by,
            limit,
        } = update;
        no_conflict_clause(*or)?;
        none("an optimizer hint", optimizer_hints.is_empty())?;
        none("OUTPUT", output.is_none())?;
        none("ORDER BY or LIMIT of UPDATE", order_by.is_empty() && limit.is_none())?;
        let target = self.changed_table(table)?;
        self.assignments(assignments)?;
        match from {
            Some(UpdateTableFromKind::AfterSet(tables)) => {
                tables.iter().try_for_each(|table| self.table_with_joins(table))?;
            }
            Some(UpdateTableFromKind::BeforeSet(_)) => none("FROM before SET", false)?,
            None => {}
        }
        self.condition(selection.as_ref())?;
        self.returning(returning.as_deref(), &target)
    }

    fn delete(&mut self, delete: &Delete) -> Verdict {
        let Delete {
            delete_token: _,
            optimizer_hints,
            tables,
            from,
            using,
            selection,
            returning,
            output,
            order_by,
            limit,
        } = delete;
        none("an optimizer hint", optimizer_hints.is_empty())?;
        none("DELETE of several tables", tables.is_empty())?;
        none("OUTPUT", output.is_none())?;
        none("ORDER BY or LIMIT of DELETE", order_by.is_empty() && limit.is_none())?;
        let FromTable::WithFromKeyword(from) = from else {
            return none("DELETE without FROM", false);
        };
        let [table] = &from[..] else { return none("DELETE of several tables", false) };
        let target = self.changed_table(table)?;
        if let Some(tables) = using {
            none("USING", self.names.dialect == Dialect::Postgres)?;
            tables.iter().try_for_each(|table| self.table_with_joins(table))?;
        }
        self.condition(selection.as_ref())?;
        self.returning(returning.as_deref(), &target)
    }

    /// The table of an UPDATE or DELETE: a name and perhaps an alias.
    fn changed_table(&mut self, table: &TableWithJoins) -> Result<RelationName, Refusal> {
        let TableWithJoins { relation, joins } = table;
        none("JOIN of the table that is changed", joins.is_empty())?;
        let TableFactor::Table { name, args: None, sample: None, .. } = relation else {
            return Err(Refusal::new("clause", "only rows of a table may be changed"));
        };
        self.table(relation)?;
        self.target(name)
    }

    fn target(&mut self, name: &ObjectName) -> Result<RelationName, Refusal> {
        let target = self.names.relation(name)?;
        self.found.relations.insert(target.clone());
        self.found.target = Some(target.clone());
        Ok(target)
    }

    /// Notes that `alias` stands for a row of `target`.
    fn row_of(&mut self, alias: &Ident, target: &RelationName) {
        let alias = self.names.folded(alias);
        self.found.row_names.insert(alias.clone());
        self.found.aliases.insert((alias, target.clone()));
    }

    fn assignments(&mut self, assignments: &[Assignment]) -> Verdict {
        for Assignment { target, value } in assignments {
            match target {
                AssignmentTarget::ColumnName(column) => self.column(column)?,
                AssignmentTarget::Tuple(columns) => {
                    columns.iter().try_for_each(|column| self.column(column))?;
                }
            }
            self.value(value)?;
        }
        Ok(())
    }

    /// A column that is written: its name alone, of which `a.b` would be a part.
    fn column(&mut self, column: &ObjectName) -> Verdict {
        let parts = self.names.parts(column)?;
        none("a point in the name of a column that is written", parts.len() == 1)
    }

    /// A value that is written: an expression, or DEFAULT, also several in brackets.
    fn value(&mut self, value: &Expr) -> Verdict {
        match value {
            Expr::Identifier(word) if self.names.is_default(word) => Ok(()),
            Expr::Tuple(values) => {
                self.nested(|walk| values.iter().try_for_each(|value| walk.value(value)))
            }
            _ => self.expression(value),
        }
    }

    fn condition(&mut self, condition: Option<&Expr>) -> Verdict {
        match condition {
            Some(condition) => self.expression(condition),
            None => Err(Refusal::new(
                "write-without-where",
                "without WHERE every row would change; say which, or WHERE true for all",
            )),
        }
    }

    fn returning(&mut self, items: Option<&[SelectItem]>, target: &RelationName) -> Verdict {
        let Some(items) = items else { return Ok(()) };
        if self.names.dialect == Dialect::Postgres {
            // Rows before and after the change, from version 18 on.
            self.row_of(&Ident::new("old"), target);
            self.row_of(&Ident::new("new"), target);
        }
        items.iter().try_for_each(|item| self.item(item))
    }
}

/// Whether there is nothing to `query` but its body and what WITH says before it.
fn is_bare(query: &Query) -> bool {
    let Query {
        with: _,
        body: _,
        order_by,
        limit_clause,
        fetch,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    order_by.is_none()
        && limit_clause.is_none()
        && fetch.is_none()
        && locks.is_empty()
        && for_clause.is_none()
        && settings.is_none()
        && format_clause.is_none()
        && pipe_operators.is_empty()
}

fn no_conflict_clause(or: Option<SqliteOnConflict>) -> Verdict {
    if or.is_none() {
        return Ok(());
    }
    Err(Refusal::new(
        "clause",
        "INSERT OR …, UPDATE OR … and REPLACE are not allowed, since they drop rows or errors \
         unseen; write ON CONFLICT (…) DO NOTHING or DO UPDATE",
    ))
}
