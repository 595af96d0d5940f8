//! Expressions: which forms, operators and literals a query may have.

use sqlparser::ast::{
    AccessExpr, Array, BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DateTimeField, Expr,
    Function, FunctionArg, FunctionArgExpr, FunctionArgOperator, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, Ident, Interval, ObjectName, Subscript, TypedString,
    UnaryOperator, Value, WindowFrame, WindowFrameBound, WindowSpec, WindowType,
};

use super::from::check_series;
use super::query::{Verdict, Walk, function_refused, none};
use super::{Dialect, Refusal, functions};

/// Longest chain of operators. Rendering and comparing recurse along it.
const MAX_CHAIN: usize = 500;

impl Walk<'_> {
    pub(super) fn expressions<'e>(
        &mut self,
        expressions: impl IntoIterator<Item = &'e Expr>,
    ) -> Verdict {
        expressions.into_iter().try_for_each(|expression| self.expression(expression))
    }

    pub(super) fn expression(&mut self, expression: &Expr) -> Verdict {
        self.nested(|walk| walk.form(expression))
    }

    #[expect(clippy::too_many_lines, reason = "one list, and only a list")]
    fn form(&mut self, expression: &Expr) -> Verdict {
        match expression {
            Expr::Identifier(ident) if self.names.is_default(ident) => Err(Refusal::new(
                "identifier",
                "DEFAULT stands only for a value that is written; as a name it is in quotes",
            )),
            Expr::Identifier(ident) => {
                let name = self.names.folded(ident);
                self.found.bare.insert(name);
                Ok(())
            }
            Expr::CompoundIdentifier(idents) => {
                self.qualified(idents);
                Ok(())
            }
            Expr::Value(value) => self.literal(&value.value),
            Expr::Nested(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner)
            | Expr::IsJson { expr: inner, kind: _, unique_keys: _, negated: _ }
            | Expr::IsNormalized { expr: inner, form: _, negated: _ } => self.expression(inner),
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.expressions([&**left, right])
            }
            Expr::BinaryOp { .. } => self.chain(expression),
            Expr::AnyOp { left, compare_op, right, is_some: _ }
            | Expr::AllOp { left, compare_op, right } => {
                self.operator(compare_op)?;
                self.expressions([&**left, right])
            }
            Expr::UnaryOp { op, expr } => {
                match op {
                    UnaryOperator::Plus
                    | UnaryOperator::Minus
                    | UnaryOperator::Not
                    | UnaryOperator::BitwiseNot => {}
                    UnaryOperator::PGAbs
                    | UnaryOperator::PGCubeRoot
                    // `!!`, of a tsquery.
                    | UnaryOperator::PGPrefixFactorial
                    | UnaryOperator::PGSquareRoot
                        if self.names.dialect == Dialect::Postgres => {}
                    _ => return Err(operator_refused()),
                }
                self.expression(expr)
            }
            Expr::Like { negated: _, any, expr, pattern, escape_char }
            | Expr::ILike { negated: _, any, expr, pattern, escape_char } => {
                let is_array = matches!(**pattern, Expr::Nested(_) | Expr::Subquery(_));
                none("LIKE ANY of anything but one array in brackets", !any || is_array)?;
                self.expressions([&**expr, pattern])?;
                self.expressions(escape_char.as_deref())
            }
            Expr::SimilarTo { negated: _, expr, pattern, escape_char } => {
                self.expressions([&**expr, pattern])?;
                self.expressions(escape_char.as_deref())
            }
            Expr::InList { expr, list, negated: _ } => {
                self.expression(expr)?;
                self.expressions(list)
            }
            Expr::InSubquery { expr, subquery, negated: _ } => {
                self.expression(expr)?;
                self.query(subquery)
            }
            Expr::Between { expr, negated: _, low, high } => self.expressions([&**expr, low, high]),
            Expr::Exists { subquery, negated: _ } | Expr::Subquery(subquery) => {
                self.query(subquery)
            }
            Expr::Cast { kind, expr, data_type, format } => {
                none("a format of CAST", format.is_none())?;
                none("this kind of CAST", matches!(kind, CastKind::Cast | CastKind::DoubleColon))?;
                self.data_type(data_type)?;
                self.expression(expr)
            }
            Expr::TypedString(TypedString { data_type, value, uses_odbc_syntax }) => {
                none("{…}", !uses_odbc_syntax)?;
                self.data_type(data_type)?;
                self.literal(&value.value)
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                self.expressions([&**timestamp, time_zone])
            }
            Expr::Extract { field, syntax: _, expr } => {
                date_part(field)?;
                self.expression(expr)
            }
            Expr::Ceil { expr, field } | Expr::Floor { expr, field } => {
                let plain =
                    matches!(field, CeilFloorKind::DateTimeField(DateTimeField::NoDateTime));
                none("an option of CEIL or FLOOR", plain)?;
                self.expression(expr)
            }
            Expr::Position { expr, r#in } => self.expressions([&**expr, r#in]),
            Expr::Substring { expr, substring_from, substring_for, special: _, shorthand: _ } => {
                self.expression(expr)?;
                self.expressions(substring_from.as_deref())?;
                self.expressions(substring_for.as_deref())
            }
            Expr::Trim { trim_where: _, trim_what, expr, trim_characters } => {
                self.expression(expr)?;
                self.expressions(trim_what.as_deref())?;
                self.expressions(trim_characters.iter().flatten())
            }
            Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
                self.expressions([&**expr, overlay_what, overlay_from])?;
                self.expressions(overlay_for.as_deref())
            }
            Expr::Collate { expr, collation } => {
                let name = self.names.parts(collation)?;
                let name: Vec<&str> = name.iter().map(String::as_str).collect();
                let known = match (self.names.dialect, &name[..]) {
                    // Any that there is: a collation has no code of the tenant's.
                    (Dialect::Postgres, [_] | ["pg_catalog", _]) => true,
                    (Dialect::Sqlite, [name]) => functions::is_collation(name),
                    _ => false,
                };
                none("this collation", known)?;
                self.expression(expr)
            }
            Expr::Function(function) => self.function(function),
            Expr::Case { case_token: _, end_token: _, operand, conditions, else_result } => {
                self.expressions(operand.as_deref())?;
                for CaseWhen { condition, result } in conditions {
                    self.expressions([condition, result])?;
                }
                self.expressions(else_result.as_deref())
            }
            Expr::Tuple(items) => self.expressions(items),
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                self.expressions(sets.iter().flatten())
            }
            Expr::Array(array) => {
                none("an array without ARRAY", array.named)?;
                self.elements(array)
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.expression(root)?;
                for access in access_chain {
                    match access {
                        AccessExpr::Subscript(Subscript::Index { index }) => {
                            self.expression(index)?;
                        }
                        AccessExpr::Subscript(Subscript::Slice {
                            lower_bound,
                            upper_bound,
                            stride: None,
                        }) => self.expressions(lower_bound.iter().chain(upper_bound))?,
                        AccessExpr::Dot(field) if self.is_pair(root, field) => {}
                        AccessExpr::Dot(_) => return Err(field_refused()),
                        AccessExpr::Subscript(Subscript::Slice { .. }) => {
                            none("a stride of an array's part", false)?;
                        }
                    }
                }
                Ok(())
            }
            Expr::Interval(interval) => {
                let Interval {
                    value,
                    leading_field,
                    leading_precision: _,
                    last_field,
                    fractional_seconds_precision: _,
                } = interval;
                leading_field.iter().chain(last_field).try_for_each(date_part)?;
                match &**value {
                    Expr::Value(value) => self.literal(&value.value),
                    _ => none("INTERVAL of something but a literal", false),
                }
            }
            _ => Err(Refusal::new(
                "expression",
                "this form of expression is not allowed; columns, literals, operators, CASE, casts, \
                 arrays, subqueries and functions are",
            )),
        }
    }

    /// Whether `field` is one that the function `root` is known to return.
    fn is_pair(&self, root: &Expr, field: &Expr) -> bool {
        let (Expr::Nested(root), Expr::Identifier(field)) = (root, field) else { return false };
        let Expr::Function(function) = &**root else { return false };
        matches!(&*self.names.folded(field), "key" | "value")
            && self.function_name(&function.name).is_ok_and(|name| {
                matches!(&*name, "json_each" | "json_each_text" | "jsonb_each" | "jsonb_each_text")
            })
    }

    /// `ARRAY[[1, 2], [3, 4]]`: only the outermost says so.
    fn elements(&mut self, array: &Array) -> Verdict {
        array.elem.iter().try_for_each(|element| match element {
            Expr::Array(inner) if !inner.named => self.nested(|walk| walk.elements(inner)),
            element => self.expression(element),
        })
    }

    /// `a OR b OR c …`: a tree as deep as it is long, walked without recursion.
    fn chain(&mut self, expression: &Expr) -> Verdict {
        let mut first = expression;
        let mut length = 0;
        while let Expr::BinaryOp { left, op, right } = first {
            length += 1;
            if length > MAX_CHAIN {
                return Err(Refusal::new("size", "a chain of operators has at most 500 links"));
            }
            self.operator(op)?;
            self.expression(right)?;
            first = left;
        }
        self.expression(first)
    }

    fn qualified(&mut self, idents: &[Ident]) {
        if let [.., qualifier, name] = idents {
            let pair = (self.names.folded(qualifier), self.names.folded(name));
            self.found.qualified.insert(pair);
        }
    }

    pub(super) fn literal(&self, value: &Value) -> Verdict {
        let allowed = match value {
            Value::Number(text, long) => {
                !long
                    && text.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b))
                    && text.bytes().any(|b| b.is_ascii_digit())
            }
            Value::SingleQuotedString(_) | Value::Boolean(_) | Value::Null => true,
            // Written out as plain text.
            Value::EscapedStringLiteral(text) | Value::UnicodeStringLiteral(text) => {
                self.names.dialect == Dialect::Postgres && !text.contains('\0')
            }
            Value::DollarQuotedString(_) => self.names.dialect == Dialect::Postgres,
            // Bits.
            Value::SingleQuotedByteStringLiteral(digits) => {
                self.names.dialect == Dialect::Postgres
                    && digits.bytes().all(|digit| matches!(digit, b'0' | b'1'))
            }
            // Bits to one engine, a blob to the other.
            Value::HexStringLiteral(digits) => {
                (self.names.dialect == Dialect::Postgres || digits.len() % 2 == 0)
                    && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            }
            Value::Placeholder(name) => return self.placeholder(name),
            _ => false,
        };
        if allowed {
            Ok(())
        } else {
            Err(Refusal::new(
                "literal",
                "only numbers, 'text', booleans and NULL are written out; bind other values with \
                 params",
            ))
        }
    }

    fn placeholder(&self, name: &str) -> Verdict {
        let (mark, advice) = match self.names.dialect {
            Dialect::Postgres => ('$', "parameters are written $1, $2, …"),
            Dialect::Sqlite => ('?', "parameters are written ?, or ?1, ?2, …"),
        };
        let number = name.strip_prefix(mark);
        let known = match (self.names.dialect, number) {
            (Dialect::Sqlite, Some("")) => true,
            (_, Some(number)) => {
                !number.starts_with(['0', '+'])
                    && number.parse::<u16>().is_ok_and(|number| (1..=999).contains(&number))
            }
            (_, None) => false,
        };
        if known { Ok(()) } else { Err(Refusal::new("parameter", advice)) }
    }

    fn operator(&mut self, operator: &BinaryOperator) -> Verdict {
        use BinaryOperator as Op;
        let allowed = match operator {
            Op::Plus
            | Op::Minus
            | Op::Multiply
            | Op::Divide
            | Op::Modulo
            | Op::StringConcat
            | Op::Gt
            | Op::Lt
            | Op::GtEq
            | Op::LtEq
            | Op::Eq
            | Op::NotEq
            | Op::And
            | Op::Or
            | Op::BitwiseOr
            | Op::BitwiseAnd
            | Op::PGBitwiseShiftLeft
            | Op::PGBitwiseShiftRight
            | Op::Arrow
            | Op::LongArrow => true,
            Op::Glob | Op::Match => self.names.dialect == Dialect::Sqlite,
            Op::PGBitwiseXor
            | Op::PGExp
            | Op::PGOverlap
            | Op::PGRegexMatch
            | Op::PGRegexIMatch
            | Op::PGRegexNotMatch
            | Op::PGRegexNotIMatch
            | Op::PGLikeMatch
            | Op::PGILikeMatch
            | Op::PGNotLikeMatch
            | Op::PGNotILikeMatch
            | Op::PGStartsWith
            | Op::HashArrow
            | Op::HashLongArrow
            | Op::HashMinus
            | Op::AtAt
            | Op::AtArrow
            | Op::ArrowAt
            | Op::AtQuestion
            | Op::Question
            | Op::QuestionAnd
            | Op::QuestionPipe
            | Op::Overlaps
            | Op::LtDashGt
            | Op::AndLt
            | Op::AndGt => self.names.dialect == Dialect::Postgres,
            // Ranges that touch.
            Op::Custom(name) => self.names.dialect == Dialect::Postgres && name == "-|-",
            _ => false,
        };
        self.found.full_text |= matches!(operator, Op::Match);
        if allowed { Ok(()) } else { Err(operator_refused()) }
    }

    fn function(&mut self, function: &Function) -> Verdict {
        let Function {
            name,
            uses_odbc_syntax,
            parameters,
            args,
            within_group,
            filter,
            null_treatment,
            over,
        } = function;
        none("{fn …}", !uses_odbc_syntax)?;
        none("a second list of arguments", matches!(parameters, FunctionArguments::None))?;
        none("IGNORE or RESPECT NULLS", null_treatment.is_none())?;
        let dialect = self.names.dialect;
        let plain = &*self.function_name(name)?;
        self.found.full_text |= plain == "match";
        if name.0.len() == 1 {
            self.found.functions.insert(plain.to_owned());
        }
        match args {
            FunctionArguments::Subquery(query)
                if plain == "array" && dialect == Dialect::Postgres =>
            {
                self.query(query)?;
            }
            FunctionArguments::None if functions::is_allowed_bare(plain) => {}
            FunctionArguments::Subquery(_) | FunctionArguments::None => {
                return Err(function_refused(plain));
            }
            FunctionArguments::List(list) => {
                if !functions::is_allowed(dialect, plain) {
                    return Err(function_refused(plain));
                }
                if plain == "generate_series" {
                    check_series(&list.args)?;
                }
                self.arguments(plain, list)?;
            }
        }
        self.order(within_group)?;
        self.expressions(filter.as_deref())?;
        match over {
            Some(WindowType::WindowSpec(window)) => self.window(window),
            Some(WindowType::NamedWindow(_)) | None => Ok(()),
        }
    }

    /// The name of a function without the schema of the engine's own.
    pub(super) fn function_name(&self, name: &ObjectName) -> Result<String, Refusal> {
        let mut parts = self.names.parts(name)?;
        match (parts.pop(), parts.pop(), parts.is_empty()) {
            (Some(plain), None, _) => Ok(plain),
            (Some(plain), Some(schema), true)
                if schema == "pg_catalog" && self.names.dialect == Dialect::Postgres =>
            {
                Ok(plain)
            }
            _ => Err(function_refused(&name.to_string())),
        }
    }

    fn arguments(&mut self, function: &str, list: &FunctionArgumentList) -> Verdict {
        let FunctionArgumentList { duplicate_treatment: _, args, clauses } = list;
        args.iter().try_for_each(|argument| self.argument(function, argument))?;
        for clause in clauses {
            match clause {
                FunctionArgumentClause::OrderBy(order) => self.order(order)?,
                FunctionArgumentClause::JsonNullClause(_) => {}
                FunctionArgumentClause::JsonReturningClause(returning) => {
                    self.data_type(&returning.data_type)?;
                }
                _ => none("this clause of a function", false)?,
            }
        }
        Ok(())
    }

    pub(super) fn argument(&mut self, function: &str, argument: &FunctionArg) -> Verdict {
        let argument = match argument {
            FunctionArg::Unnamed(argument) => argument,
            // A member of an object: its name is an expression too.
            FunctionArg::ExprNamed {
                name,
                arg,
                operator: FunctionArgOperator::Colon | FunctionArgOperator::Value,
            } => {
                let is_member = matches!(function, "json_object" | "json_objectagg");
                none("this way to name an argument", is_member)?;
                self.expression(name)?;
                arg
            }
            FunctionArg::Named { name: _, arg, operator }
            | FunctionArg::ExprNamed { name: Expr::Identifier(_), arg, operator } => {
                none(
                    "this way to name an argument",
                    matches!(operator, FunctionArgOperator::RightArrow),
                )?;
                arg
            }
            FunctionArg::ExprNamed { .. } => {
                return none("this way to name an argument", false);
            }
        };
        match argument {
            FunctionArgExpr::Expr(expression) => self.expression(expression),
            FunctionArgExpr::Wildcard => none("* but in count(*)", function == "count"),
            FunctionArgExpr::QualifiedWildcard(_) => {
                self.found.wildcard = true;
                Ok(())
            }
            FunctionArgExpr::WildcardWithOptions(_) => none("an option of *", false),
        }
    }

    pub(super) fn window(&mut self, window: &WindowSpec) -> Verdict {
        let WindowSpec { window_name: _, partition_by, order_by, window_frame } = window;
        self.expressions(partition_by)?;
        self.order(order_by)?;
        let Some(WindowFrame { units: _, start_bound, end_bound }) = window_frame else {
            return Ok(());
        };
        for bound in [Some(start_bound), end_bound.as_ref()].into_iter().flatten() {
            match bound {
                WindowFrameBound::CurrentRow => {}
                WindowFrameBound::Preceding(offset) | WindowFrameBound::Following(offset) => {
                    self.expressions(offset.as_deref())?;
                }
            }
        }
        Ok(())
    }
}

fn date_part(field: &DateTimeField) -> Verdict {
    if matches!(field, DateTimeField::Custom(_)) {
        return Err(Refusal::new(
            "clause",
            "a part of a date is one that the engine knows, written without quotes: \
             extract(year FROM x)",
        ));
    }
    Ok(())
}

/// `(row).f` is also a call of f.
fn field_refused() -> Refusal {
    Refusal::new(
        "clause",
        "a field of a value in brackets is not allowed; a column is written table.column, a member \
         of JSON value -> 'member'",
    )
}

fn operator_refused() -> Refusal {
    Refusal::new(
        "operator",
        "only the usual arithmetic, comparison, text, JSON and pattern operators are allowed",
    )
}
