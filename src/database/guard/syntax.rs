//! `SQLite`'s grammar, with what the parser's own account of it leaves out: `<<`, `>>`, `a IS b`,
//! `NOT GLOB` and `AS MATERIALIZED`; and numbers that are not texts.

use std::any::TypeId;
use std::cell::Cell;

use sqlparser::ast::{BinaryOperator, Expr, Statement, UnaryOperator};
use sqlparser::dialect::{Dialect, Precedence, SQLiteDialect};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

use super::Dialect as Engine;

/// For one statement.
#[derive(Debug, Default)]
pub(super) struct Sqlite {
    /// How many operators were read.
    operators: Cell<usize>,
}

/// After how many operators one may stand that the parser has a dialect read: what is on its left is
/// copied, which recurses as deep as that is, and each operator makes it deeper by up to three.
const MAX_BEFORE_COPIED: usize = 48;

/// The tokens that are parsed.
///
/// `0x1F` comes as the same token as `X'1F'`, which is no number; it becomes one that no list has.
/// On `SQLite` the hint of `AS MATERIALIZED (` is left out: it changes no answer.
pub(super) fn normalized(mut tokens: Vec<TokenWithSpan>, engine: Engine) -> Vec<TokenWithSpan> {
    for TokenWithSpan { token, span } in &mut tokens {
        if let Token::HexStringLiteral(digits) = token
            && span.end.column.saturating_sub(span.start.column) != digits.len() as u64 + 3
        {
            *token = Token::Number(format!("0x{digits}"), false);
        }
    }
    if engine == Engine::Sqlite {
        leave_out_hints(&mut tokens);
    }
    tokens
}

fn leave_out_hints(tokens: &mut [TokenWithSpan]) {
    let is = |token: &Token, keyword| matches!(token, Token::Word(word) if word.keyword == keyword);
    let mut seen: Vec<&mut Token> = tokens
        .iter_mut()
        .map(|token| &mut token.token)
        .filter(|token| !matches!(token, Token::Whitespace(_)))
        .collect();
    for position in 0..seen.len() {
        let Some([first, rest @ ..]) = seen.get_mut(position..) else { return };
        if !is(first, Keyword::AS) {
            continue;
        }
        let length = rest.first().map_or(0, |next| usize::from(is(next, Keyword::NOT))) + 1;
        if let Some((hint, [after, ..])) = rest.split_at_mut_checked(length)
            && hint.last().is_some_and(|last| is(last, Keyword::MATERIALIZED))
            && **after == Token::LParen
        {
            for token in hint {
                **token = Token::Whitespace(Whitespace::Space);
            }
        }
    }
}

/// What is not overridden is as the parser has it.
const BASE: SQLiteDialect = SQLiteDialect {};

impl Dialect for Sqlite {
    fn dialect(&self) -> TypeId {
        BASE.dialect()
    }

    fn is_delimited_identifier_start(&self, character: char) -> bool {
        BASE.is_delimited_identifier_start(character)
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        BASE.identifier_quote_style(identifier)
    }

    fn is_identifier_start(&self, character: char) -> bool {
        BASE.is_identifier_start(character)
    }

    fn is_identifier_part(&self, character: char) -> bool {
        BASE.is_identifier_part(character)
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        BASE.supports_filter_during_aggregation()
    }

    fn supports_start_transaction_modifier(&self) -> bool {
        BASE.supports_start_transaction_modifier()
    }

    fn parse_statement(&self, parser: &mut Parser<'_>) -> Option<Result<Statement, ParserError>> {
        BASE.parse_statement(parser)
    }

    fn parse_infix(
        &self,
        parser: &mut Parser<'_>,
        left: &Expr,
        precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        let before = self.operators.get();
        self.operators.set(before + 1);
        let is_comparison = is_comparison(parser);
        if !is_comparison && !copies(parser) {
            return None;
        }
        if before > MAX_BEFORE_COPIED {
            let reason = "too many operators before this one";
            return Some(Err(ParserError::ParserError(reason.to_owned())));
        }
        if is_comparison {
            parser.advance_token();
            let is_negated = parser.parse_keyword(Keyword::NOT);
            return Some(parser.parse_subexpr(precedence).map(|right| {
                let (left, right) = (Box::new(left.clone()), Box::new(right));
                if is_negated {
                    Expr::IsDistinctFrom(left, right)
                } else {
                    Expr::IsNotDistinctFrom(left, right)
                }
            }));
        }
        if parser.parse_keywords(&[Keyword::NOT, Keyword::GLOB]) {
            let like = self.prec_value(Precedence::Like);
            return Some(parser.parse_subexpr(like).map(|right| {
                let (left, right) = (Box::new(left.clone()), Box::new(right));
                let matched = Expr::BinaryOp { left, op: BinaryOperator::Glob, right };
                // In brackets, because NOT in front reaches further.
                let expr = Box::new(matched);
                Expr::Nested(Box::new(Expr::UnaryOp { op: UnaryOperator::Not, expr }))
            }));
        }
        BASE.parse_infix(parser, left, precedence)
    }

    fn supports_in_empty_list(&self) -> bool {
        BASE.supports_in_empty_list()
    }

    fn supports_limit_comma(&self) -> bool {
        BASE.supports_limit_comma()
    }

    fn supports_asc_desc_in_column_definition(&self) -> bool {
        BASE.supports_asc_desc_in_column_definition()
    }

    fn supports_dollar_placeholder(&self) -> bool {
        BASE.supports_dollar_placeholder()
    }

    fn supports_notnull_operator(&self) -> bool {
        BASE.supports_notnull_operator()
    }

    fn supports_comma_separated_trim(&self) -> bool {
        BASE.supports_comma_separated_trim()
    }

    fn supports_numeric_literal_underscores(&self) -> bool {
        BASE.supports_numeric_literal_underscores()
    }

    fn supports_bitwise_shift_operators(&self) -> bool {
        true
    }
}

/// Whether an operator follows whose left side is copied.
fn copies(parser: &Parser<'_>) -> bool {
    let keyword = |position| keyword(parser, position);
    let copied = |keyword| matches!(keyword, Keyword::GLOB | Keyword::MATCH | Keyword::REGEXP);
    copied(keyword(0)) || keyword(0) == Keyword::NOT && keyword(1) == Keyword::GLOB
}

/// Whether `IS` follows with something to compare with, where others than `SQLite` have only words.
fn is_comparison(parser: &Parser<'_>) -> bool {
    let keyword = |position| keyword(parser, position);
    if keyword(0) != Keyword::IS {
        return false;
    }
    let next = if keyword(1) == Keyword::NOT { keyword(2) } else { keyword(1) };
    !matches!(
        next,
        Keyword::NULL | Keyword::TRUE | Keyword::FALSE | Keyword::DISTINCT | Keyword::UNKNOWN
    )
}

fn keyword(parser: &Parser<'_>, position: usize) -> Keyword {
    match &parser.peek_nth_token_ref(position).token {
        Token::Word(word) => word.keyword,
        _ => Keyword::NoKeyword,
    }
}
