//! Names written so that the engine can read them in one way only.
//!
//! The parser takes many of the engine's keywords for names: it reads `FROM only pg_shadow` as a
//! table `only` that is called `pg_shadow`, and the server then reads `pg_shadow`. So names are
//! written in quotes, folded as the engine would fold them, before they are checked; and a
//! reserved word is no name without quotes of the caller's own.

use std::convert::Infallible;
use std::ops::ControlFlow;

use sqlparser::ast::{
    DataType, Expr, Ident, ObjectName, Query, Select, SelectItem, Statement, TypedString, Value,
    ValueWithSpan, VisitMut, VisitorMut,
};

use super::name::Names;
use super::query::Verdict;
use super::{Dialect, Refusal, shown};

/// Words that `PostgreSQL` does not read as the name of a table or column: reserved, or reserved
/// but for functions and types. Sorted.
///
/// Source: `pg_get_keywords()`, versions 15 to 18.
pub(super) const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

/// Puts every name of `query` in quotes, but for those of functions, types and collations, which
/// are on lists. On `SQLite` columns in expressions stay as they are too: they name the columns of
/// the answer, and what they resolve to goes past the authorizer.
///
/// Recurses as deep as the tree is.
pub(super) fn quote(query: &mut Query, names: &Names) -> Verdict {
    let mut quoting = Quoting { names, aside: Vec::new() };
    match VisitMut::visit(query, &mut quoting) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(refusal) => Err(refusal),
    }
}

/// Writes `query` out, each quote inside of a text or name doubled.
///
/// The parser's own writer leaves two in a row as they are, since they might have been doubled
/// before. So they are, and made single again after it; a copy would take more stack than there is.
pub(super) fn write(query: &mut Query) -> String {
    struct Replacing(bool);
    impl Replacing {
        fn replace(&self, text: &mut String, quote: &str) {
            if text.contains(quote) {
                let double = quote.repeat(2);
                let (from, to) = if self.0 { (quote, &*double) } else { (&*double, quote) };
                *text = text.replace(from, to);
            }
        }
    }
    impl VisitorMut for Replacing {
        type Break = Infallible;
        fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<Infallible> {
            if let Value::SingleQuotedString(text) = &mut value.value {
                self.replace(text, "'");
            }
            ControlFlow::Continue(())
        }
        fn pre_visit_ident(&mut self, ident: &mut Ident) -> ControlFlow<Infallible> {
            if ident.quote_style == Some('"') {
                self.replace(&mut ident.value, "\"");
            }
            ControlFlow::Continue(())
        }
    }
    let ControlFlow::Continue(()) = VisitMut::visit(query, &mut Replacing(true));
    let written = query.to_string();
    let ControlFlow::Continue(()) = VisitMut::visit(query, &mut Replacing(false));
    written
}

struct Quoting<'a> {
    names: &'a Names,
    /// What was taken out of the expressions around the current place, to be put back.
    aside: Vec<Aside>,
}

enum Aside {
    Column(Ident),
    Columns(Vec<Ident>),
    Name(ObjectName),
    Type(DataType),
}

impl Quoting<'_> {
    fn quote(&self, ident: &mut Ident) {
        if ident.quote_style != Some('"') {
            if self.names.dialect == Dialect::Postgres {
                ident.value = self.names.folded(ident);
            }
            ident.quote_style = Some('"');
        }
    }

    fn labels(&self, items: &mut [SelectItem]) -> ControlFlow<Refusal> {
        // A label may be any word: `AS end`.
        for item in items {
            if let SelectItem::ExprWithAlias { alias, expr: _ } = item {
                // An operator to the engine, where `AS` is left out.
                if alias.quote_style.is_none() && alias.value.eq_ignore_ascii_case("isnull") {
                    return ControlFlow::Break(Refusal::new(
                        "unsupported",
                        "ISNULL is not supported; write IS NULL, or \"isnull\" for a label",
                    ));
                }
                self.quote(alias);
            }
        }
        ControlFlow::Continue(())
    }
}

impl VisitorMut for Quoting<'_> {
    type Break = Refusal;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Refusal> {
        self.labels(&mut select.projection)
    }

    fn pre_visit_statement(&mut self, statement: &mut Statement) -> ControlFlow<Refusal> {
        let returning = match statement {
            Statement::Insert(insert) => &mut insert.returning,
            Statement::Update(update) => &mut update.returning,
            Statement::Delete(delete) => &mut delete.returning,
            _ => return ControlFlow::Continue(()),
        };
        self.labels(returning.as_deref_mut().unwrap_or_default())
    }

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<Refusal> {
        let nothing = || Ident::new("");
        match expression {
            Expr::Identifier(column)
                if self.names.dialect == Dialect::Sqlite || self.names.is_default(column) =>
            {
                self.aside.push(Aside::Column(std::mem::replace(column, nothing())));
            }
            Expr::CompoundIdentifier(columns) => match self.names.dialect {
                Dialect::Sqlite => self.aside.push(Aside::Columns(std::mem::take(columns))),
                // After a point any word is a name.
                Dialect::Postgres => columns.iter_mut().skip(1).for_each(|name| self.quote(name)),
            },
            Expr::Function(function) => {
                let name = std::mem::replace(&mut function.name, ObjectName(Vec::new()));
                self.aside.push(Aside::Name(name));
            }
            Expr::Collate { collation, .. } => {
                let name = std::mem::replace(collation, ObjectName(Vec::new()));
                self.aside.push(Aside::Name(name));
            }
            Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) => {
                let taken = std::mem::replace(data_type, DataType::Unspecified);
                self.aside.push(Aside::Type(taken));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<Refusal> {
        let columns_are_aside = self.names.dialect == Dialect::Sqlite;
        let place = match expression {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) if columns_are_aside => expression,
            // DEFAULT, which is no name.
            Expr::Identifier(place) if place.value.is_empty() => expression,
            Expr::Function(_) | Expr::Collate { .. } | Expr::Cast { .. } | Expr::TypedString(_) => {
                expression
            }
            _ => return ControlFlow::Continue(()),
        };
        match (place, self.aside.pop()) {
            (Expr::Identifier(place), Some(Aside::Column(column))) => *place = column,
            (Expr::CompoundIdentifier(place), Some(Aside::Columns(columns))) => *place = columns,
            (Expr::Function(place), Some(Aside::Name(name))) => place.name = name,
            (Expr::Collate { collation, .. }, Some(Aside::Name(name))) => *collation = name,
            (
                Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }),
                Some(Aside::Type(taken)),
            ) => *data_type = taken,
            _ => {
                return ControlFlow::Break(Refusal::new(
                    "unsupported",
                    "this form of expression is not supported",
                ));
            }
        }
        ControlFlow::Continue(())
    }

    /// Texts in other spellings become plain ones, which both parsers read alike.
    fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<Refusal> {
        let text = match &mut value.value {
            Value::EscapedStringLiteral(text) | Value::UnicodeStringLiteral(text) => text,
            Value::DollarQuotedString(quoted) => &mut quoted.value,
            _ => return ControlFlow::Continue(()),
        };
        value.value = Value::SingleQuotedString(std::mem::take(text));
        ControlFlow::Continue(())
    }

    fn pre_visit_ident(&mut self, ident: &mut Ident) -> ControlFlow<Refusal> {
        if ident.value.is_empty() {
            return ControlFlow::Continue(()); // Stands for a column that was taken aside.
        }
        if self.names.dialect == Dialect::Postgres && ident.quote_style.is_none() {
            let word = ident.value.to_ascii_lowercase();
            if RESERVED.binary_search(&&*word).is_ok() {
                return ControlFlow::Break(Refusal::new(
                    "identifier",
                    format!(
                        "this word is a keyword; as a name it is written in quotes: {}",
                        shown(&word)
                    ),
                ));
            }
        }
        self.quote(ident);
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_for_the_search() {
        assert!(RESERVED.is_sorted());
    }
}
