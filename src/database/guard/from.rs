//! What a query reads from: relations, subqueries, and functions that return rows.

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Join, JoinConstraint, JoinOperator, JsonTableColumn,
    JsonTableColumnErrorHandling, JsonTableNamedColumn, JsonTableNestedColumn, ObjectName,
    TableAlias, TableAliasColumnDef, TableFactor, TableFunctionArgs, TableSample, TableSampleKind,
    TableSampleMethod, TableSampleModifier, TableSampleQuantity, TableSampleSeed,
    TableSampleSeedModifier, TableWithJoins, UnaryOperator, Value,
};

use super::query::{Verdict, Walk, function_refused, none};
use super::{Dialect, Refusal, functions};

/// Most rows of a series whose ends are written out; the server makes them all before the first is
/// read. What is computed is bounded by the session's time alone.
const MAX_SERIES_ROWS: f64 = 1_000_000.0;

impl Walk<'_> {
    pub(super) fn table_with_joins(&mut self, table: &TableWithJoins) -> Verdict {
        let TableWithJoins { relation, joins } = table;
        self.table(relation)?;
        for Join { relation, global, join_operator } in joins {
            none("GLOBAL JOIN", !global)?;
            self.table(relation)?;
            let (JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::Left(constraint)
            | JoinOperator::LeftOuter(constraint)
            | JoinOperator::Right(constraint)
            | JoinOperator::RightOuter(constraint)
            | JoinOperator::FullOuter(constraint)
            | JoinOperator::CrossJoin(constraint)) = join_operator
            else {
                return none("this kind of JOIN", false);
            };
            match constraint {
                JoinConstraint::On(condition) => self.expression(condition)?,
                JoinConstraint::Natural => self.found.natural_join = true,
                JoinConstraint::Using(_) | JoinConstraint::None => {}
            }
        }
        Ok(())
    }

    pub(super) fn table(&mut self, factor: &TableFactor) -> Verdict {
        self.nested(|walk| match factor {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                none("WITH after a table", with_hints.is_empty())?;
                none("a version of a table", version.is_none())?;
                none("PARTITION", partitions.is_empty())?;
                none("a path into a table", json_path.is_none())?;
                none("an index hint", index_hints.is_empty())?;
                if let Some(TableFunctionArgs { args, settings }) = args {
                    none("SETTINGS", settings.is_none())?;
                    none("TABLESAMPLE of a function", sample.is_none())?;
                    return walk.table_function(name, args, alias.as_ref());
                }
                none("WITH ORDINALITY but after a function", !with_ordinality)?;
                walk.sample(sample.as_ref())?;
                walk.relation(name, alias.as_ref())
            }
            TableFactor::Function { lateral: _, name, args, with_ordinality: _, alias } => {
                walk.table_function(name, args, alias.as_ref())
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset,
                with_offset_alias,
                with_ordinality: _,
            } => {
                none("WITH OFFSET", !with_offset && with_offset_alias.is_none())?;
                walk.expressions(array_exprs)?;
                walk.found.functions.insert("unnest".to_owned());
                walk.names_and_types(alias.as_ref())
            }
            TableFactor::Derived { lateral: _, subquery, alias, sample } => {
                none("TABLESAMPLE of a subquery", sample.is_none())?;
                if let Some(alias) = alias {
                    check_names(alias)?;
                    let called = walk.names.folded(&alias.name);
                    walk.found.row_names.insert(called);
                }
                walk.query(subquery)
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                if let Some(alias) = alias {
                    check_names(alias)?;
                    // The alias stands for the columns of every table inside.
                    walk.found.renames_columns = true;
                }
                walk.table_with_joins(table_with_joins)
            }
            TableFactor::JsonTable { json_expr, json_path, columns, alias }
                if walk.names.dialect == Dialect::Postgres =>
            {
                walk.expression(json_expr)?;
                walk.literal(&json_path.value)?;
                walk.json_columns(columns)?;
                walk.names_and_types(alias.as_ref())
            }
            _ => none("this kind of item in FROM", false),
        })
    }

    /// What `JSON_TABLE` makes of each item: the types of its columns are those that may be cast to.
    fn json_columns(&mut self, columns: &[JsonTableColumn]) -> Verdict {
        columns.iter().try_for_each(|column| match column {
            JsonTableColumn::ForOrdinality(_) => Ok(()),
            JsonTableColumn::Nested(JsonTableNestedColumn { path, columns }) => {
                self.literal(&path.value)?;
                self.nested(|walk| walk.json_columns(columns))
            }
            JsonTableColumn::Named(column) => {
                let JsonTableNamedColumn { name: _, r#type, path, exists: _, on_empty, on_error } =
                    column;
                self.data_type(r#type)?;
                self.literal(&path.value)?;
                on_empty.iter().chain(on_error).try_for_each(|otherwise| match otherwise {
                    JsonTableColumnErrorHandling::Default(value) => self.literal(&value.value),
                    JsonTableColumnErrorHandling::Null | JsonTableColumnErrorHandling::Error => {
                        Ok(())
                    }
                })
            }
        })
    }

    pub(super) fn relation(&mut self, name: &ObjectName, alias: Option<&TableAlias>) -> Verdict {
        let parts = self.names.parts(name)?;
        let own_name = parts.last().cloned().unwrap_or_default();
        let called = match alias {
            Some(alias) => {
                check_names(alias)?;
                self.names.folded(&alias.name)
            }
            None => own_name.clone(),
        };
        self.found.row_names.insert(called.clone());
        let is_common =
            parts.len() == 1 && self.scopes.iter().any(|scope| scope.contains(&own_name));
        if !is_common {
            let relation = self.names.relation(name)?;
            self.found.renames_columns |= alias.is_some_and(|alias| !alias.columns.is_empty());
            self.found.row_names.insert(own_name);
            self.found.aliases.insert((called, relation.clone()));
            self.found.relations.insert(relation);
        }
        Ok(())
    }

    /// A function whose rows are read; its columns are made of its arguments, which are checked
    /// like any expression.
    fn table_function(
        &mut self,
        name: &ObjectName,
        arguments: &[FunctionArg],
        alias: Option<&TableAlias>,
    ) -> Verdict {
        let plain = self.function_name(name)?;
        if !functions::is_allowed_in_from(self.names.dialect, &plain) {
            return Err(function_refused(&plain));
        }
        for argument in arguments {
            self.argument(&plain, argument)?;
        }
        if plain == "generate_series" {
            check_series(arguments)?;
        }
        if self.names.dialect == Dialect::Sqlite {
            self.found.table_functions.insert(plain);
        } else if name.0.len() == 1 {
            self.found.functions.insert(plain);
        }
        self.names_and_types(alias)
    }

    /// The names of what a function returns, with types where it returns records.
    fn names_and_types(&mut self, alias: Option<&TableAlias>) -> Verdict {
        let Some(TableAlias { explicit: _, name: _, columns, at }) = alias else { return Ok(()) };
        none("AT after an alias", at.is_none())?;
        let types = columns.iter().filter_map(|column| column.data_type.as_ref());
        for data_type in types {
            none("a column type in an alias", self.names.dialect == Dialect::Postgres)?;
            self.data_type(data_type)?;
        }
        Ok(())
    }

    fn sample(&mut self, sample: Option<&TableSampleKind>) -> Verdict {
        let sample = match sample {
            None => return Ok(()),
            Some(
                TableSampleKind::BeforeTableAlias(sample)
                | TableSampleKind::AfterTableAlias(sample),
            ) => sample,
        };
        let TableSample { modifier, name, quantity, seed, bucket, offset } = &**sample;
        let known = self.names.dialect == Dialect::Postgres
            && matches!(modifier, TableSampleModifier::TableSample)
            && matches!(name, Some(TableSampleMethod::Bernoulli | TableSampleMethod::System))
            && bucket.is_none()
            && offset.is_none();
        none("TABLESAMPLE but of BERNOULLI (percent) or SYSTEM (percent)", known)?;
        if let Some(TableSampleQuantity { parenthesized, value, unit }) = quantity {
            none("a unit of TABLESAMPLE", *parenthesized && unit.is_none())?;
            self.expression(value)?;
        }
        if let Some(TableSampleSeed { modifier, value }) = seed {
            none("SEED", matches!(modifier, TableSampleSeedModifier::Repeatable))?;
            self.literal(&value.value)?;
        }
        Ok(())
    }
}

/// Refuses names of columns that come with a type, which only those of a function do.
pub(super) fn check_names(alias: &TableAlias) -> Verdict {
    let TableAlias { explicit: _, name: _, columns, at } = alias;
    none("AT after an alias", at.is_none())?;
    let typed = |column: &TableAliasColumnDef| column.data_type.is_some();
    none("a column type in an alias", !columns.iter().any(typed))
}

/// Refuses a series of more rows than [`MAX_SERIES_ROWS`], where its ends can be read.
pub(super) fn check_series(arguments: &[FunctionArg]) -> Verdict {
    let number = |position: usize| match arguments.get(position) {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(expression))) => written(expression),
        _ => None,
    };
    if let (Some(first), Some(last)) = (number(0), number(1)) {
        let step = number(2).unwrap_or(1.0);
        if ((last - first) / step).abs() >= MAX_SERIES_ROWS {
            return Err(Refusal::new(
                "size",
                "generate_series makes at most 1000000 rows; use closer ends or a longer step",
            ));
        }
    }
    Ok(())
}

/// A number that is written out.
fn written(expression: &Expr) -> Option<f64> {
    match expression {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) | Value::SingleQuotedString(text) => text.parse().ok(),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => written(expr).map(|number| -number),
        Expr::Nested(expr) | Expr::Cast { expr, .. } => written(expr),
        _ => None,
    }
}
