//! What to write instead of what the parser does not read.
//!
//! Looked at after a statement was refused, so that nothing here decides anything.

use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Words in a row, in upper case, and what to write instead of them. Longer ones come first.
const INSTEAD: &[(&[&str], &str)] = &[
    (
        &["EXCLUDE"],
        "EXCLUDE in a window frame is not supported; take the row's own value away, as in \
         sum(x) OVER w - x",
    ),
    (
        &["SEARCH"],
        "SEARCH is not supported; carry the path in an array, or on SQLite a text, and sort by it",
    ),
    (
        &["CYCLE"],
        "CYCLE is not supported; carry the path in an array and stop where id = ANY(path)",
    ),
    (
        &["ROWS", "FROM"],
        "ROWS FROM is not supported; unnest takes several arrays, and functions WITH ORDINALITY \
         can be joined",
    ),
    (
        &["BETWEEN", "SYMMETRIC"],
        "SYMMETRIC is not supported; write BETWEEN least(a, b) AND greatest(a, b)",
    ),
    (&["VARIADIC"], "VARIADIC is not supported; write the arguments one by one"),
    (&["LEADING", "FROM"], "write TRIM(LEADING ' ' FROM x), or ltrim(x)"),
    (&["TRAILING", "FROM"], "write TRIM(TRAILING ' ' FROM x), or rtrim(x)"),
    (&["BOTH", "FROM"], "write TRIM(BOTH ' ' FROM x), or trim(x)"),
    (&["GROUP", "BY", "DISTINCT"], "GROUP BY DISTINCT is not supported; name each set once"),
    (&["INDEXED", "BY"], "INDEXED BY is not supported; the engine picks the index"),
    (&["NOT", "INDEXED"], "NOT INDEXED is not supported; the engine picks the index"),
    (&["AT", "LOCAL"], "AT LOCAL is not supported; write AT TIME ZONE 'Europe/Berlin', say"),
    (&["XMLELEMENT"], XML),
    (&["XMLFOREST"], XML),
    (&["XMLPARSE"], XML),
    (&["XMLPI"], XML),
    (&["XMLSERIALIZE"], XML),
    (&["XMLTABLE"], XML),
];

/// Functions by how their names begin, and what to write instead.
const INSTEAD_OF_FUNCTIONS: &[(&str, &str)] = &[
    ("xml", XML),
    ("xpath", XML),
    ("rollup", "ROLLUP is allowed on its own; within GROUPING SETS write each set out"),
    ("cube", "CUBE is allowed on its own; within GROUPING SETS write each set out"),
    ("json_populate_record", RECORD),
    ("jsonb_populate_record", RECORD),
    ("array_fill", "array_fill is not allowed; array_agg over generate_series is"),
    ("randomblob", "randomblob is not allowed; random() is"),
    ("json_patch", "json_patch is not allowed; json_set and json_remove are"),
    ("jsonb_patch", "jsonb_patch is not allowed; jsonb_set and jsonb_remove are"),
];

const RECORD: &str = "a row of a named type is not allowed; json_to_record and json_to_recordset \
                      with a list of columns are";
const XML: &str = "XML functions are not allowed; jsonb_build_object and the other JSON ones are";

/// Advice for a function that is not allowed, by its folded name.
pub(super) fn on_function(name: &str) -> Option<&'static str> {
    INSTEAD_OF_FUNCTIONS
        .iter()
        .find(|(start, _)| name.starts_with(start))
        .map(|(_, advice)| *advice)
}

/// Advice for what stands in `tokens`, if there is any.
pub(super) fn on(tokens: &[TokenWithSpan]) -> Option<&'static str> {
    let words: Vec<String> = tokens
        .iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_)))
        .map(|token| match &token.token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
            _ => String::new(),
        })
        .collect();
    INSTEAD
        .iter()
        .find(|(phrase, _)| words.windows(phrase.len()).any(|words| words == *phrase))
        .map(|(_, advice)| *advice)
}
