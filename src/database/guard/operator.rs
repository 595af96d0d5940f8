//! Operators as `PostgreSQL` reads them in the text that will run.
//!
//! The parser takes signs that follow each other apart in its own way, the server takes as many as
//! it can for one operator: `|/-25` is `|/-` to it, which the tenant's schema may have.

use std::collections::BTreeSet;

use super::Refusal;

/// Signs that operators are made of.
const SIGNS: &str = "+-*/<>=~!@#%^&|`?";
/// Signs after which an operator may end in `+` or `-`.
const FREE: &str = "~!@#%^&|`?";

/// What the engine has in `pg_catalog`, for the types that values are cast to. Sorted.
const KNOWN: &[&str] = &[
    "!!", "!=", "!~", "!~*", "!~~", "!~~*", "#", "#-", "#>", "#>>", "%", "&", "&&", "&<", "&>",
    "*", "+", "-", "->", "->>", "-|-", "/", "<", "<-", "<->", "<<", "<=", "<>", "<@", "=", "=>",
    ">", ">=", ">>", "?", "?&", "?|", "@", "@>", "@?", "@@", "^", "^@", "|", "|/", "||", "||/",
    "~", "~*", "~~", "~~*",
];

/// The operators that the server would read in `sql`, which is what the parser wrote: texts and
/// names in quotes, quotes in them doubled, no comments.
///
/// # Errors
///
/// A [`Refusal`] if one of them is not known here.
pub(super) fn check(sql: &str) -> Result<BTreeSet<String>, Refusal> {
    let mut operators = BTreeSet::new();
    let mut rest = sql;
    while let Some(start) = rest.find(|c| c == '\'' || c == '"' || SIGNS.contains(c)) {
        let (_, found) = rest.split_at(start);
        if let Some(quote @ ('\'' | '"')) = found.chars().next() {
            // A doubled quote ends one part and begins the next.
            let after = found.get(1..).unwrap_or_default();
            rest = after.split_once(quote).map_or("", |(_, after)| after);
            continue;
        }
        let end = found.find(|c| !SIGNS.contains(c)).unwrap_or(found.len());
        let (mut signs, after) = found.split_at(end);
        while !signs.is_empty() {
            let operator = first(signs);
            if KNOWN.binary_search(&operator).is_err() {
                return Err(Refusal::new(
                    "operator",
                    "the signs in a row would be read as an operator that is not allowed; put \
                     what follows the first in brackets",
                ));
            }
            operators.insert(operator.to_owned());
            signs = signs.get(operator.len()..).unwrap_or_default();
        }
        rest = after;
    }
    Ok(operators)
}

/// The operator that `signs` begin with. A comment, which nothing that was written has, is one that
/// is not known.
fn first(signs: &str) -> &str {
    if signs.contains("--") || signs.contains("/*") {
        return signs;
    }
    let mut operator = signs;
    while operator.len() > 1 && operator.ends_with(['+', '-']) {
        let shorter = operator.get(..operator.len() - 1).unwrap_or_default();
        if shorter.contains(|c| FREE.contains(c)) {
            break;
        }
        operator = shorter;
    }
    operator
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_for_the_search() {
        assert!(KNOWN.is_sorted());
    }

    #[test]
    fn signs_are_read_as_the_server_reads_them() {
        for (sql, is_allowed) in [
            ("1 + -2", true),
            ("1 +-2", true),
            ("1 + ++2", true),
            ("a <-b", true),
            ("a || 'x--y' || \"@@@\"", true),
            ("'it''s @-' || 'x'", true),
            ("count(*) * -1", true),
            ("a -> 'b' ->> -1", true),
            ("|/(-25)", true),
            ("|/-25", false),
            ("@-5", false),
            ("~-5", false),
            ("-@5", false),
            ("a <=> b", false),
            ("a +++* b", false),
            ("a -- b", false),
            ("'a' '' /* b", false),
            ("a `", false),
        ] {
            assert_eq!(check(sql).is_ok(), is_allowed, "{sql}");
        }
    }
}
