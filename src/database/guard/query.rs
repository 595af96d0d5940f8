//! The structure of a query: which clauses it may have, and which relations it names.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Cte, Distinct, Fetch, GroupByExpr, Ident, LimitClause, NamedWindowExpr, OrderBy, OrderByExpr,
    OrderByKind, OrderBySort, Query, Select, SelectFlavor, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, Visit, Visitor,
    WildcardAdditionalOptions, With,
};

use super::from::check_names;
use super::name::Names;
use super::{Dialect, Form, Refusal, advice, shown};
use crate::tenant::RelationName;

/// Deepest tree that is walked. Rendering and comparing recurse as deep.
const MAX_DEPTH: usize = 100;

/// What a query was found to use.
#[expect(clippy::struct_excessive_bools, reason = "each is found or not by itself")]
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) relations: BTreeSet<RelationName>,
    /// Names of common table expressions, in lower case.
    pub(super) common_tables: BTreeSet<String>,
    /// Every identifier, folded.
    pub(super) identifiers: BTreeSet<String>,
    /// Identifiers without a qualifier.
    pub(super) bare: BTreeSet<String>,
    /// Identifiers with the one before them.
    pub(super) qualified: BTreeSet<(String, String)>,
    /// What relations are called in the query.
    pub(super) aliases: BTreeSet<(String, RelationName)>,
    /// Names that stand for a whole row.
    pub(super) row_names: BTreeSet<String>,
    /// Functions that are called without the schema of the engine's own.
    pub(super) functions: BTreeSet<String>,
    /// Types that can only be of the tenant's schema.
    pub(super) own_types: BTreeSet<String>,
    /// Functions in FROM, on `SQLite`, where they are tables too.
    pub(super) table_functions: BTreeSet<String>,
    pub(super) wildcard: bool,
    /// Whether words are looked up in an index, which may be of a column that is not named.
    pub(super) full_text: bool,
    pub(super) natural_join: bool,
    pub(super) renames_columns: bool,
    /// The table that is changed.
    pub(super) target: Option<RelationName>,
    /// Whether rows are inserted without saying into which columns.
    pub(super) inserts_unnamed: bool,
}

/// Walks `query`, refusing all that is not listed here, in [`super::expression`] or, of a change, in
/// [`super::write`].
pub(super) fn inspect(query: &Query, form: Form, names: &Names) -> Result<Found, Refusal> {
    struct Identifiers<'a>(&'a Names, &'a mut BTreeSet<String>);
    impl Visitor for Identifiers<'_> {
        type Break = ();
        fn pre_visit_ident(&mut self, ident: &Ident) -> ControlFlow<()> {
            self.1.insert(self.0.folded(ident));
            ControlFlow::Continue(())
        }
    }
    let mut walk = Walk { names, found: Found::default(), scopes: Vec::new(), depth: 0 };
    match form {
        Form::Query => walk.query(query)?,
        Form::Write => walk.write(query)?,
    }
    let mut found = walk.found;
    match query.visit(&mut Identifiers(names, &mut found.identifiers)) {
        ControlFlow::Continue(()) | ControlFlow::Break(()) => Ok(found),
    }
}

pub(super) struct Walk<'a> {
    pub(super) names: &'a Names,
    pub(super) found: Found,
    /// Names of the common table expressions in scope, outermost first.
    pub(super) scopes: Vec<BTreeSet<String>>,
    depth: usize,
}

pub(super) type Verdict = Result<(), Refusal>;

/// Refuses a clause that is present.
pub(super) fn none(clause: &'static str, absent: bool) -> Verdict {
    if absent { Ok(()) } else { Err(Refusal::new("clause", format!("{clause} is not allowed"))) }
}

impl Walk<'_> {
    /// Runs `step` one level deeper.
    pub(super) fn nested(&mut self, step: impl FnOnce(&mut Self) -> Verdict) -> Verdict {
        if self.depth == MAX_DEPTH {
            return Err(Refusal::new("size", "the statement is nested too deep"));
        }
        self.depth += 1;
        let verdict = step(self);
        self.depth -= 1;
        verdict
    }

    pub(super) fn query(&mut self, query: &Query) -> Verdict {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        none("FOR UPDATE or FOR SHARE", locks.is_empty())?;
        none("FOR XML or FOR JSON", for_clause.is_none())?;
        none("SETTINGS", settings.is_none())?;
        none("FORMAT", format_clause.is_none())?;
        none("|>", pipe_operators.is_empty())?;
        let outer = self.scopes.len();
        let verdict = self.nested(|walk| {
            if let Some(with) = with {
                walk.with(with)?;
            }
            walk.body(body)?;
            if let Some(order_by) = order_by {
                walk.order_by(order_by)?;
            }
            if let Some(limit) = limit_clause {
                walk.limit(limit)?;
            }
            match fetch {
                Some(Fetch { with_ties: _, percent, quantity }) => {
                    none("FETCH … PERCENT", !percent)?;
                    quantity.iter().try_for_each(|quantity| walk.expression(quantity))
                }
                None => Ok(()),
            }
        });
        self.scopes.truncate(outer);
        verdict
    }

    /// Brings the names of `with` into scope: of a plain WITH one after the other, of WITH
    /// RECURSIVE all at once. `SQLite` always does the latter; there a name that only then is one
    /// of the query's own is checked as a relation too, which refuses more, never less.
    pub(super) fn with(&mut self, with: &With) -> Verdict {
        let With { with_token: _, recursive, cte_tables } = with;
        let name = |walk: &Self, table: &Cte| walk.names.folded(&table.alias.name);
        let all: BTreeSet<String> = cte_tables.iter().map(|table| name(self, table)).collect();
        self.found.common_tables.extend(all.iter().map(|name| name.to_ascii_lowercase()));
        self.scopes.push(if *recursive { all } else { BTreeSet::new() });
        for table in cte_tables {
            let Cte { alias, query, from, materialized: _, closing_paren_token: _ } = table;
            none("FROM after WITH", from.is_none())?;
            check_names(alias)?;
            self.query(query)?;
            let name = name(self, table);
            if let Some(scope) = self.scopes.last_mut() {
                scope.insert(name);
            }
        }
        Ok(())
    }

    fn body(&mut self, body: &SetExpr) -> Verdict {
        self.nested(|walk| match body {
            SetExpr::Select(select) => walk.select(select),
            SetExpr::Query(query) => walk.query(query),
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                match op {
                    SetOperator::Union | SetOperator::Except | SetOperator::Intersect => {}
                    SetOperator::Minus => none("MINUS", false)?,
                }
                match set_quantifier {
                    SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None => {}
                    SetQuantifier::ByName
                    | SetQuantifier::AllByName
                    | SetQuantifier::DistinctByName => none("BY NAME", false)?,
                }
                walk.body(left)?;
                walk.body(right)
            }
            SetExpr::Values(values) => {
                none("VALUES ROW", !values.explicit_row)?;
                values.rows.iter().try_for_each(|row| walk.expressions(&row.content))
            }
            // The parser forgets whether the name was quoted, so which table it is is not known.
            SetExpr::Table(_) => {
                Err(Refusal::new("clause", "TABLE x is not allowed; write SELECT * FROM x"))
            }
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                Err(Refusal::new("statement-kind", "only queries may stand inside a statement"))
            }
        })
    }

    fn select(&mut self, select: &Select) -> Verdict {
        let Select {
            select_token: _,
            optimizer_hints,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        none("SELECT INTO", into.is_none())?;
        none("an optimizer hint", optimizer_hints.is_empty())?;
        none("a modifier of SELECT", select_modifiers.is_none())?;
        none("TOP", top.is_none())?;
        none("EXCLUDE", exclude.is_none())?;
        none("LATERAL VIEW", lateral_views.is_empty())?;
        none("PREWHERE", prewhere.is_none())?;
        none("CONNECT BY", connect_by.is_empty())?;
        none("CLUSTER BY", cluster_by.is_empty())?;
        none("DISTRIBUTE BY", distribute_by.is_empty())?;
        none("SORT BY", sort_by.is_empty())?;
        none("QUALIFY", qualify.is_none())?;
        none("SELECT AS", value_table_mode.is_none())?;
        none("FROM before SELECT", matches!(flavor, SelectFlavor::Standard))?;
        match distinct {
            Some(Distinct::On(expressions)) => self.expressions(expressions)?,
            Some(Distinct::All | Distinct::Distinct) | None => {}
        }
        for table in from {
            self.table_with_joins(table)?;
        }
        for item in projection {
            self.item(item)?;
        }
        for condition in selection.iter().chain(having) {
            self.expression(condition)?;
        }
        match group_by {
            GroupByExpr::Expressions(expressions, modifiers) => {
                none("a modifier of GROUP BY", modifiers.is_empty())?;
                self.expressions(expressions)?;
            }
            GroupByExpr::All(_) => none("GROUP BY ALL", false)?,
        }
        for window in named_window {
            match &window.1 {
                NamedWindowExpr::WindowSpec(window) => self.window(window)?,
                NamedWindowExpr::NamedWindow(_) => none("a window named as another", false)?,
            }
        }
        Ok(())
    }

    pub(super) fn item(&mut self, item: &SelectItem) -> Verdict {
        match item {
            SelectItem::UnnamedExpr(expression)
            | SelectItem::ExprWithAlias { expr: expression, alias: _ } => {
                self.expression(expression)
            }
            SelectItem::ExprWithAliases { .. } => none("a list of aliases", false),
            SelectItem::Wildcard(options) => self.wildcard(options),
            SelectItem::QualifiedWildcard(of, options) => match of {
                SelectItemQualifiedWildcardKind::ObjectName(_) => self.wildcard(options),
                SelectItemQualifiedWildcardKind::Expr(_) => none("(…).*", false),
            },
        }
    }

    fn wildcard(&mut self, options: &WildcardAdditionalOptions) -> Verdict {
        let WildcardAdditionalOptions {
            wildcard_token: _,
            opt_ilike,
            opt_exclude,
            opt_except,
            opt_replace,
            opt_rename,
            opt_alias,
        } = options;
        self.found.wildcard = true;
        let plain = opt_ilike.is_none()
            && opt_exclude.is_none()
            && opt_except.is_none()
            && opt_replace.is_none()
            && opt_rename.is_none()
            && opt_alias.is_none();
        none("an option of *", plain)
    }

    fn order_by(&mut self, order_by: &OrderBy) -> Verdict {
        let OrderBy { kind, interpolate } = order_by;
        none("INTERPOLATE", interpolate.is_none())?;
        match kind {
            OrderByKind::Expressions(expressions) => self.order(expressions),
            OrderByKind::All(_) => none("ORDER BY ALL", false),
        }
    }

    pub(super) fn order(&mut self, order: &[OrderByExpr]) -> Verdict {
        for OrderByExpr { expr, options, with_fill } in order {
            none("WITH FILL", with_fill.is_none())?;
            match options.sort {
                Some(OrderBySort::Asc | OrderBySort::Desc) | None => {}
                Some(OrderBySort::Using(_)) => none("ORDER BY … USING", false)?,
            }
            self.expression(expr)?;
        }
        Ok(())
    }

    fn limit(&mut self, limit: &LimitClause) -> Verdict {
        match limit {
            LimitClause::LimitOffset { limit, offset, limit_by } => {
                none("LIMIT … BY", limit_by.is_empty())?;
                let offset = offset.as_ref().map(|offset| &offset.value);
                limit.iter().chain(offset).try_for_each(|count| self.expression(count))
            }
            LimitClause::OffsetCommaLimit { offset, limit } => {
                none("LIMIT x, y", self.names.dialect == Dialect::Sqlite)?;
                self.expression(offset)?;
                self.expression(limit)
            }
        }
    }
}

/// A refusal of a function by its name.
pub(super) fn function_refused(name: &str) -> Refusal {
    if let Some(advice) = advice::on_function(name) {
        return Refusal::new("function", advice);
    }
    Refusal::new(
        "function",
        format!(
            "function {} is not allowed; the usual aggregate, text, number, date, JSON, array and \
             window functions are",
            shown(name)
        ),
    )
}
