//! What a caller may run.
//!
//! ```text
//! text --sqlparser--> AST --walk (allow list)--> relations --access, URI--> GuardedSql
//!                      \--names quoted, rendered back to text, parsed again, compared--> what runs
//! ```
//!
//! An allow list throughout: a kind of statement, clause, expression, operator, type or function
//! that this module does not name is refused, so what a newer parser or server adds starts out
//! refused. What runs is never the caller's text but the syntax tree written out, and only if the
//! parser reads that back as the same tree; comments and spellings that two parsers could read in
//! two ways do not survive it. Names are checked and written out in quotes, folded, so that no
//! keyword of the engine's can pass for one.
//!
//! [`check`] admits what only reads; [`check_write`] one INSERT, UPDATE or DELETE, as a type of its
//! own that no reader takes.
//!
//! Protects against: more than one statement; writing by a query, and changes of anything but rows;
//! functions with side effects, under any
//! spelling; relations outside the URI or `access`; denied columns, also through wildcards and
//! whole rows. Does not see: what a view of the tenant's own does; whether a type of the tenant's own
//! is plain; functions and operators of the tenant's own under the name of one on the list; a table
//! that inherits a denied column. On `PostgreSQL` the session looks the second and third up and
//! refuses them, and refuses views and relatives by inheritance wherever columns are denied; on
//! `SQLite` its authorizer sees through views.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an allow list: what no arm names is refused, also what the parser learns later"
)]

mod advice;
mod column;
mod expression;
mod from;
mod functions;
mod name;
mod operator;
mod query;
mod quote;
mod syntax;
mod types;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use sqlparser::ast::{Query, SetExpr, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::tenant::{Access, RelationName, Resource};

pub use write::{GuardedWrite, check_write};

pub(super) use functions::is_allowed as is_function_allowed;

/// Which engine's SQL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "an engine is added everywhere or nowhere")]
pub enum Dialect {
    /// `PostgreSQL`.
    Postgres,
    /// `SQLite`.
    Sqlite,
}

/// A statement that may run. Made only by [`check`]:
///
/// ```compile_fail,E0451
/// let forged = tenantry::database::GuardedSql { sql: "DROP TABLE users".to_owned() };
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct GuardedSql {
    sql: String,
    uses: Uses,
}

/// What a statement names, for those who know what the names mean.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Uses {
    relations: BTreeSet<RelationName>,
    common_tables: BTreeSet<String>,
    functions: BTreeSet<String>,
    fields: BTreeSet<String>,
    operators: BTreeSet<String>,
    own_types: BTreeSet<String>,
    table_functions: BTreeSet<String>,
    column_claims: BTreeSet<(RelationName, String)>,
}

/// Why a statement may not run.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    rule: &'static str,
    message: String,
}

/// Longest text that is looked at, in bytes.
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// Most tokens: bounds the depth of trees that grow without recursion, such as `1 + 1 + 1 …`.
const MAX_TOKENS: usize = 4096;
/// Deepest nesting of brackets; the parser tries some of them twice.
const MAX_BRACKETS: usize = 20;
/// Deepest nesting of `POSITION(`, which the parser reads twice at each level.
const MAX_POSITIONS: usize = 2;
/// Deepest nesting that the parser follows.
const MAX_RECURSION: usize = 50;

/// Decides what a caller under `resource` may run.
///
/// `default_schema` is where names without a schema are looked up; `main` for `SQLite`.
///
/// # Errors
///
/// A [`Refusal`] that names the rule and says what would be allowed.
pub fn check(
    sql: &str,
    dialect: Dialect,
    resource: &Resource,
    access: &Access,
    default_schema: &str,
) -> Result<GuardedSql, Refusal> {
    let query = Form::Query.query(parse(sql, dialect, Form::Query)?)?;
    let names = name::Names::new(dialect, default_schema);
    let Admitted { sql, uses, target: _ } = admit(query, Form::Query, &names, resource, access)?;
    Ok(GuardedSql { sql, uses })
}

/// Which of the two kinds of statement a caller wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Query,
    Write,
}

impl Form {
    /// Whether the text begins as such a statement does.
    fn is_begun_by(self, tokens: &[TokenWithSpan]) -> bool {
        let mut tokens = tokens.iter().map(|token| &token.token);
        match (self, tokens.find(|token| !matches!(token, Token::Whitespace(_)))) {
            (Self::Query, Some(Token::Word(word))) => {
                matches!(word.keyword, Keyword::SELECT | Keyword::VALUES | Keyword::WITH)
            }
            (Self::Query, other) => matches!(other, Some(Token::LParen) | None),
            (Self::Write, Some(Token::Word(word))) => matches!(
                word.keyword,
                Keyword::INSERT | Keyword::UPDATE | Keyword::DELETE | Keyword::WITH
            ),
            (Self::Write, other) => other.is_none(),
        }
    }

    /// The statement as the parser has it after WITH, which is how both kinds are walked.
    fn query(self, statement: Statement) -> Result<Box<Query>, Refusal> {
        let body = match (self, statement) {
            (_, Statement::Query(query)) => return Ok(query),
            (Self::Write, statement @ Statement::Insert(_)) => SetExpr::Insert(statement),
            (Self::Write, statement @ Statement::Update(_)) => SetExpr::Update(statement),
            (Self::Write, statement @ Statement::Delete(_)) => SetExpr::Delete(statement),
            _ => return Err(self.wrong_kind()),
        };
        Ok(Box::new(Query {
            with: None,
            body: Box::new(body),
            order_by: None,
            limit_clause: None,
            fetch: None,
            locks: Vec::new(),
            for_clause: None,
            settings: None,
            format_clause: None,
            pipe_operators: Vec::new(),
        }))
    }

    fn wrong_kind(self) -> Refusal {
        let message = match self {
            Self::Query => "only a query may run: SELECT, VALUES or WITH … SELECT",
            Self::Write => {
                "only a change of rows may run: INSERT, UPDATE or DELETE, also after WITH; what \
                 only reads is for query_tenant_data"
            }
        };
        Refusal::new("statement-kind", message)
    }

    fn unreadable(self, place: Option<(u64, u64)>) -> Refusal {
        let kind = match self {
            Self::Query => "SELECT query",
            Self::Write => "INSERT, UPDATE or DELETE",
        };
        let place = place
            .filter(|place| *place != (0, 0))
            .map(|(line, column)| format!(" beyond line {line}, column {column}"))
            .unwrap_or_default();
        Refusal::new("syntax", format!("the statement cannot be read as one {kind}{place}"))
    }
}

/// What passed.
struct Admitted {
    sql: String,
    uses: Uses,
    target: Option<RelationName>,
}

fn admit(
    mut query: Box<Query>,
    form: Form,
    names: &name::Names,
    resource: &Resource,
    access: &Access,
) -> Result<Admitted, Refusal> {
    let dialect = names.dialect;
    // The first walk bounds the depth of what the rest recurses into.
    query::inspect(&query, form, names)?;
    name::check_identifiers(&query, dialect)?;
    quote::quote(&mut query, names)?;
    let found = query::inspect(&query, form, names)?;
    for relation in &found.relations {
        names.check_access(relation, resource, access)?;
    }
    let column_claims = column::check(&found, names, access)?;

    let sql = quote::write(&mut query);
    // Spans do not take part in the comparison.
    let read_back = parse(&sql, dialect, form).and_then(|statement| form.query(statement));
    if read_back.ok() != Some(query) {
        return Err(Refusal::new(
            "unsupported",
            "this spelling is not supported; use plain quoted strings, bound parameters, and \
             brackets around what a sign such as - or @ stands before",
        ));
    }
    let operators = match dialect {
        Dialect::Postgres => operator::check(&sql)?,
        Dialect::Sqlite => BTreeSet::new(),
    };
    let fields = found.qualified.into_iter().map(|(_, name)| name).collect();
    let uses = Uses {
        relations: found.relations,
        common_tables: found.common_tables,
        functions: found.functions,
        fields,
        operators,
        own_types: found.own_types,
        table_functions: found.table_functions,
        column_claims,
    };
    Ok(Admitted { sql, uses, target: found.target })
}

fn parse(sql: &str, dialect: Dialect, form: Form) -> Result<Statement, Refusal> {
    if sql.len() > MAX_TEXT_BYTES {
        return Err(Refusal::new("size", "a statement has at most 65536 bytes"));
    }
    if sql.contains('\0') {
        return Err(Refusal::new("syntax", "a statement has no NUL character"));
    }
    let sqlite = syntax::Sqlite::default();
    let syntax: &dyn sqlparser::dialect::Dialect = match dialect {
        Dialect::Postgres => &PostgreSqlDialect {},
        Dialect::Sqlite => &sqlite,
    };
    let tokens = Tokenizer::new(syntax, sql)
        .tokenize_with_location()
        .map_err(|error| form.unreadable(Some((error.location.line, error.location.column))))?;
    check_size(&tokens)?;
    let tokens = syntax::normalized(tokens, dialect);
    let is_begun = form.is_begun_by(&tokens);
    if form == Form::Write && !is_begun {
        return Err(form.wrong_kind());
    }
    let advice = advice::on(&tokens);
    let mut statements = Parser::new(syntax)
        .with_recursion_limit(MAX_RECURSION)
        .with_tokens_with_locations(tokens)
        .parse_statements()
        .map_err(|error| match (is_begun, advice) {
            (false, _) => form.wrong_kind(),
            (true, Some(advice)) => Refusal::new("syntax", advice),
            (true, None) => form.unreadable(place(&error)),
        })?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (Some(_), false) => {
            Err(Refusal::new("one-statement", "exactly one statement may run at a time"))
        }
        (None, _) => Err(Refusal::new("one-statement", "there is no statement in the text")),
    }
}

/// Where the parser stopped. Of its message no more is kept, since it quotes the statement.
fn place(error: &ParserError) -> Option<(u64, u64)> {
    let (ParserError::ParserError(message) | ParserError::TokenizerError(message)) = error else {
        return None;
    };
    let (_, place) = message.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    Some((line.parse().ok()?, column.parse().ok()?))
}

/// Bounds what the parser builds, whose destruction recurses as deep as the tree is.
fn check_size(tokens: &[TokenWithSpan]) -> Result<(), Refusal> {
    let too_deep = || Refusal::new("size", "the statement is too long or nested too deep");
    let mut count = 0_usize;
    // For each open bracket, whether it is one of POSITION.
    let mut open = Vec::new();
    let mut positions = 0_usize;
    let mut after_position = false;
    for TokenWithSpan { token, span: _ } in tokens {
        match token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket | Token::LBrace => {
                positions += usize::from(after_position);
                open.push(after_position);
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                positions -= usize::from(open.pop().unwrap_or(false));
            }
            _ => {}
        }
        after_position = matches!(token, Token::Word(word) if word.keyword == Keyword::POSITION);
        count += 1;
        if count > MAX_TOKENS || open.len() > MAX_BRACKETS || positions > MAX_POSITIONS {
            return Err(too_deep());
        }
    }
    Ok(())
}

impl GuardedSql {
    /// What nobody checked, to show that the session holds without the guard.
    #[cfg(test)]
    pub(super) fn unguarded(sql: &str, relations: &[&str]) -> Self {
        Self { sql: sql.to_owned(), uses: Uses::of_relations(relations) }
    }

    /// The text that will run.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The relations that it names, in order; without a schema when in the tenant's own. On
    /// `SQLite` in lower case.
    pub fn relations(&self) -> impl ExactSizeIterator<Item = &RelationName> {
        self.uses.relations()
    }

    pub(super) fn uses(&self) -> &Uses {
        &self.uses
    }
}

impl Uses {
    #[cfg(test)]
    fn of_relations(relations: &[&str]) -> Self {
        let named = |name: &&str| RelationName { schema: None, name: (*name).to_owned() };
        Self { relations: relations.iter().map(named).collect(), ..Self::default() }
    }

    /// See [`GuardedSql::relations`].
    pub(super) fn relations(&self) -> impl ExactSizeIterator<Item = &RelationName> {
        self.relations.iter()
    }

    /// Whether `name` is a common table expression somewhere in the statement.
    pub(super) fn defines(&self, name: &str) -> bool {
        self.common_tables.contains(&name.to_ascii_lowercase())
    }

    /// Functions that are looked up by name alone, on `PostgreSQL` also in the tenant's schema.
    pub(super) fn functions(&self) -> &BTreeSet<String> {
        &self.functions
    }

    /// What follows a name and a point: a column, or on `PostgreSQL` a function of the row.
    pub(super) fn fields(&self) -> &BTreeSet<String> {
        &self.fields
    }

    /// Operators as `PostgreSQL` reads them.
    pub(super) fn operators(&self) -> &BTreeSet<String> {
        &self.operators
    }

    /// Types that have to be enums or plain domains of the tenant's schema, on `PostgreSQL`.
    pub(super) fn own_types(&self) -> &BTreeSet<String> {
        &self.own_types
    }

    /// Whether `name` is called in FROM, on `SQLite`, where it is a table too.
    pub(super) fn calls_in_from(&self, name: &str) -> bool {
        self.table_functions.contains(&name.to_ascii_lowercase())
    }

    /// Columns that have to exist, where `relation.name` could otherwise be a call of a function
    /// with the whole row, denied columns included.
    pub(super) fn column_claims(&self) -> impl ExactSizeIterator<Item = &(RelationName, String)> {
        self.column_claims.iter()
    }
}

impl fmt::Debug for GuardedSql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the text: it holds the caller's data, and this ends up in logs.
        f.debug_struct("GuardedSql")
            .field("relations", &self.uses.relations)
            .finish_non_exhaustive()
    }
}

impl Refusal {
    pub(super) fn new(rule: &'static str, message: impl Into<String>) -> Self {
        Self { rule, message: message.into() }
    }

    /// Of every change of a tenant whose `access.mode` is `read_only`.
    pub(super) fn read_only() -> Self {
        Self::new("access-mode", "this tenant's data may only be read; its operator can allow more")
    }

    /// The rule that the statement breaks; stable.
    pub fn rule(&self) -> &'static str {
        self.rule
    }

    /// What would be allowed. May name identifiers of the statement, escaped and bounded.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// A name from the statement as a message may show it.
pub(super) fn shown(name: &str) -> String {
    let short: String = name.chars().take(64).collect();
    let mark = if short.len() < name.len() { "…" } else { "" };
    format!("\"{}{mark}\"", short.escape_debug())
}
