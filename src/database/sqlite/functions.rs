//! Functions that `SQLite` gets from us.
//!
//! The engine's own `instr`, `replace`, `trim` and `unhex` take time as the product of the lengths
//! of their arguments, hours for two long ones, and nothing stops a function midway. These take
//! time as the sum.

use std::borrow::Cow;
use std::collections::HashSet;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result, ffi};

use super::file::MAX_VALUE_BYTES;
use super::watch::{LARGE, give_way};

pub(super) fn add(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("instr", 2, flags, |call| Ok(instr(call)))?;
    connection.create_scalar_function("replace", 3, flags, replace)?;
    connection.create_scalar_function("unhex", 2, flags, |call| Ok(unhex(call)))?;
    connection.create_scalar_function("trim", 2, flags, |call| {
        Ok(trimmed(call, |text, is_cut| text.trim_matches(is_cut)))
    })?;
    connection.create_scalar_function("ltrim", 2, flags, |call| {
        Ok(trimmed(call, |text, is_cut| text.trim_start_matches(is_cut)))
    })?;
    connection.create_scalar_function("rtrim", 2, flags, |call| {
        Ok(trimmed(call, |text, is_cut| text.trim_end_matches(is_cut)))
    })
}

/// Counted from 1: characters, or bytes when both are blobs; 0 when there is none.
fn instr(call: &Context<'_>) -> Option<i64> {
    let (hay, needle) = match (call.get_raw(0), call.get_raw(1)) {
        // Each byte as one character, so that there is one search, which is linear.
        (ValueRef::Blob(hay), ValueRef::Blob(needle)) => (latin(hay), latin(needle)),
        _ => (text(call, 0)?, text(call, 1)?),
    };
    let before = hay.find(&*needle).and_then(|at| hay.get(..at));
    Some(before.map_or(0, |before| i64::try_from(before.chars().count()).unwrap_or(0) + 1))
}

fn latin(bytes: &[u8]) -> Cow<'_, str> {
    bytes.iter().copied().map(char::from).collect::<String>().into()
}

fn replace(call: &Context<'_>) -> Result<Option<String>> {
    let (Some(text), Some(from), Some(to)) = (text(call, 0), text(call, 1), text(call, 2)) else {
        return Ok(None);
    };
    if from.is_empty() {
        return Ok(Some(text.into_owned()));
    }
    let mut replaced = String::with_capacity(text.len());
    let mut next_way = LARGE;
    for (number, part) in text.split(&*from).enumerate() {
        let parts = if number == 0 { ["", part] } else { [&*to, part] };
        if replaced.len() + parts[0].len() + part.len() > MAX_VALUE_BYTES as usize {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_TOOBIG), None));
        }
        replaced.extend(parts);
        if replaced.len() >= next_way {
            next_way = replaced.len() + LARGE;
            give_way(LARGE);
        }
    }
    Ok(Some(replaced))
}

fn trimmed(
    call: &Context<'_>,
    trim: impl for<'t> Fn(&'t str, &dyn Fn(char) -> bool) -> &'t str,
) -> Option<String> {
    let (text, cut) = (text(call, 0)?, text(call, 1)?);
    let cut: HashSet<char> = cut.chars().collect();
    Some(trim(&text, &|character| cut.contains(&character)).to_owned())
}

/// Pairs of digits, with characters of the second argument between them.
fn unhex(call: &Context<'_>) -> Option<Vec<u8>> {
    let (text, between) = (text(call, 0)?, text(call, 1)?);
    let between: HashSet<char> = between.chars().collect();
    let digit = |character: char| character.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if let Some(high) = digit(character) {
            let low = characters.next().and_then(digit)?;
            bytes.push(high << 4 | low);
        } else if !between.contains(&character) {
            return None;
        }
    }
    Some(bytes)
}

fn text<'a>(call: &'a Context<'_>, position: usize) -> Option<Cow<'a, str>> {
    match call.get_raw(position) {
        ValueRef::Null => None,
        ValueRef::Integer(value) => Some(value.to_string().into()),
        ValueRef::Real(value) => Some(real(value).into()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            give_way(bytes.len());
            Some(String::from_utf8_lossy(bytes))
        }
    }
}

/// As the engine writes it: the shortest that reads back, always with a point.
fn real(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "Inf" } else { "-Inf" }.to_owned();
    }
    let text = format!("{value:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let point = if digits.contains('.') { "" } else { ".0" };
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{digits}{point}e{sign}{exponent:0>2}")
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::types::Value;

    use super::*;

    #[test]
    fn they_answer_as_the_engines_own() {
        let own = Connection::open_in_memory().unwrap();
        let ours = Connection::open_in_memory().unwrap();
        add(&ours).unwrap();
        let values = [
            "NULL",
            "''",
            "'a'",
            "'ab'",
            "'abcabc'",
            "'äbcä'",
            "'ä'",
            "x'6162'",
            "x'62'",
            "1",
            "12.5",
            "1e20",
            "0.1 + 0.2",
            "' a '",
            "'4142'",
            "'41 42'",
            "' -'",
            "'4'",
        ];
        for first in values {
            for second in values {
                for call in [
                    format!("instr({first}, {second})"),
                    format!("trim({first}, {second})"),
                    format!("ltrim({first}, {second})"),
                    format!("rtrim({first}, {second})"),
                    format!("unhex({first}, {second})"),
                    format!("replace({first}, {second}, 'xy')"),
                    format!("replace({first}, 'b', {second})"),
                ] {
                    let sql = format!("SELECT {call}");
                    let answer = |connection: &Connection| {
                        connection.query_row(&sql, [], |row| row.get::<_, Value>(0))
                    };
                    assert_eq!(answer(&ours), answer(&own), "{call}");
                }
            }
        }
    }

    #[test]
    fn a_replacement_is_measured_before_it_is_made() {
        let connection = Connection::open_in_memory().unwrap();
        add(&connection).unwrap();
        let sql = "SELECT length(replace(printf('%1000d', 1), ' ', printf('%*d', ?1, 1)))";
        let run = |width: i64| connection.query_row(sql, [width], |row| row.get::<_, i64>(0));
        assert_eq!(run(1_000), Ok(999_001));
        let failed = run(2_000).unwrap_err();
        assert_eq!(failed.sqlite_error_code(), Some(rusqlite::ErrorCode::TooBig));
    }
}
