//! What the real `psql` shows for a statement, and our answer put back into that: the forms of
//! `docs/results.md`, the other way round.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use serde_json::Value;
use serde_json::value::RawValue;
use tenantry::database::QueryResult;

use super::postgres::told;

/// Between the cells of a row, between rows, and in place of NULL: in no data here.
const CELL: &str = "\u{1f}";
const ROW: &str = "\u{1e}";
const NULL: &str = "\u{1d}";

/// A table as it is shown: the names of its columns, then its rows.
pub(crate) type Shown = Vec<Vec<String>>;

fn program() -> PathBuf {
    let beside_the_server = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let newest = beside_the_server.filter_map(|version| {
        let program = version.ok()?.path().join("bin/psql");
        program.exists().then_some(program)
    });
    newest.max().unwrap_or_else(|| PathBuf::from("psql"))
}

/// Asks `psql` with the settings that a session of ours has.
pub(crate) fn psql(sql: &str) -> Result<Shown, String> {
    let program = program();
    let missing = |error| {
        panic!("{}: {error}; ./dev test installs the package postgresql", Path::display(&program))
    };
    let settings = "-c search_path=corpus -c DateStyle=ISO -c IntervalStyle=postgres \
                    -c bytea_output=hex -c extra_float_digits=1";
    let output = Command::new(&program)
        .args(["--no-psqlrc", "--quiet", "--no-align", "--pset=footer=off"])
        .arg(format!("--field-separator={CELL}"))
        .arg(format!("--record-separator={ROW}"))
        .arg(format!("--pset=null={NULL}"))
        .args(["--command", sql])
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", told("TENANTRY_TEST_PG_PORT"))
        .env("PGUSER", told("TENANTRY_TEST_PG_SUPERUSER"))
        .env("PGPASSWORD", told("TENANTRY_TEST_PG_PASSWORD"))
        .env("PGDATABASE", "postgres")
        .env("PGCLIENTENCODING", "UTF8")
        .env("PGOPTIONS", settings)
        .output()
        .unwrap_or_else(missing);
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.strip_suffix('\n').unwrap_or(&text).split(ROW);
    Ok(rows.map(|row| row.split(CELL).map(str::to_owned).collect()).collect())
}

/// Our answer as `psql` shows it. `theirs` decides only what our form leaves open: the bounds of
/// arrays, the blanks in documents, and whether a document is `null` or there is none.
pub(crate) fn as_psql(answer: &QueryResult, theirs: &Shown) -> Shown {
    let rows: Vec<Vec<&RawValue>> = serde_json::from_str(answer.rows.as_json()).unwrap();
    let mut shown = vec![answer.columns.iter().map(|column| column.name.clone()).collect()];
    for (number, row) in rows.into_iter().enumerate() {
        let cells = row.into_iter().zip(&answer.columns).enumerate();
        let cells = cells.map(|(place, (cell, column))| {
            let their_cell = theirs.get(number + 1).and_then(|row| row.get(place));
            as_cell(&column.type_name, cell.get(), their_cell.map_or("", String::as_str))
        });
        shown.push(cells.collect());
    }
    shown
}

fn as_cell(ty: &str, json: &str, theirs: &str) -> String {
    match ty {
        "json" | "jsonb" if json == "null" && theirs == "null" => json.to_owned(),
        _ if json == "null" => NULL.to_owned(),
        "json" | "jsonb" if without_blanks(theirs) == json => theirs.to_owned(),
        _ if ty.starts_with('_') => {
            let bounds = theirs.split_once('=').filter(|(bounds, _)| bounds.starts_with('['));
            let bounds = bounds.map_or(String::new(), |(bounds, _)| format!("{bounds}="));
            bounds + &as_array(&ty[1..], json)
        }
        _ => as_text(ty, json),
    }
}

/// A value that is not NULL as the server writes it.
fn as_text(ty: &str, json: &str) -> String {
    let Ok(text) = serde_json::from_str::<String>(json) else {
        return match (ty, json) {
            ("bool", "true") => "t".to_owned(),
            ("bool", "false") => "f".to_owned(),
            ("float4", number) => as_float(number, 6),
            ("float8", number) => as_float(number, 15),
            _ => json.to_owned(),
        };
    };
    match ty {
        "bytea" => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
            bytes.iter().fold("\\x".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
        }
        "interval" => as_interval(&text),
        "timestamp" => text.replace('T', " "),
        "timestamptz" => {
            let (time, era) = text.strip_suffix(" BC").map_or((&*text, ""), |time| (time, " BC"));
            with_short_offset(&time.replace('T', " ")) + era
        }
        "timetz" => with_short_offset(&text),
        _ => text,
    }
}

/// `+02:00` as `+02`, `Z` as `+00`.
fn with_short_offset(time: &str) -> String {
    if let Some(time) = time.strip_suffix('Z') {
        return format!("{time}+00");
    }
    match time.rfind(['+', '-']).map(|sign| time.split_at(sign)) {
        Some((time, offset)) => time.to_owned() + offset.strip_suffix(":00").unwrap_or(offset),
        None => time.to_owned(),
    }
}

/// The shortest digits, with an exponent where the server writes one: below 0.0001, and from as
/// many `digits` before the point on.
fn as_float(number: &str, digits: i32) -> String {
    let shortest = format!("{:e}", number.parse::<f64>().unwrap());
    let (mantissa, exponent) = shortest.split_once('e').unwrap();
    let exponent: i32 = exponent.parse().unwrap();
    if (-4..digits).contains(&exponent) {
        return number.parse::<f64>().unwrap().to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// `P1Y2M-3DT4H5M6.7S` as `1 year 2 mons -3 days +04:05:06.7`.
fn as_interval(iso: &str) -> String {
    let (days, time) = iso.trim_start_matches('P').split_once('T').unwrap_or((&iso[1..], ""));
    let mut parts: Vec<String> = Vec::new();
    let mut is_before_negative = false;
    for part in days.split_inclusive(char::is_alphabetic) {
        let (number, unit) = part.split_at(part.len() - 1);
        let unit = match unit {
            "Y" => "year",
            "M" => "mon",
            _ => "day",
        };
        let plus = if is_before_negative && !number.starts_with('-') { "+" } else { "" };
        let plural = if number == "1" { "" } else { "s" };
        parts.push(format!("{plus}{number} {unit}{plural}"));
        is_before_negative = number.starts_with('-');
    }
    let mut clock = ["00", "00", "00"].map(str::to_owned);
    for part in time.split_inclusive(char::is_alphabetic) {
        let (number, unit) = part.split_at(part.len() - 1);
        let place = "HMS".find(unit).unwrap();
        let number = number.trim_start_matches('-');
        let whole = number.split('.').next().unwrap();
        clock[place] = format!("{}{number}", if whole.len() < 2 { "0" } else { "" });
    }
    let clock = clock.join(":");
    if clock != "00:00:00" || parts.is_empty() || days == "0D" {
        let sign = match (time.contains('-'), is_before_negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        parts.push(format!("{sign}{clock}"));
    }
    parts.join(" ")
}

fn as_array(element: &str, json: &str) -> String {
    let items: Vec<&RawValue> = serde_json::from_str(json).unwrap();
    let items = items.iter().map(|item| match item.get() {
        "null" => "NULL".to_owned(),
        inner if inner.starts_with('[') && !element.starts_with("json") => as_array(element, inner),
        plain => quoted(&as_element(element, plain)),
    });
    format!("{{{}}}", items.collect::<Vec<_>>().join(","))
}

fn as_element(element: &str, json: &str) -> String {
    match (element, serde_json::from_str::<Value>(json)) {
        // As the server writes a document: a blank after each point and comma.
        ("jsonb", Ok(document)) => with_blanks(&document.to_string()),
        _ => as_text(element, json),
    }
}

fn quoted(text: &str) -> String {
    let is_plain = !text.is_empty()
        && !text.eq_ignore_ascii_case("null")
        && !text.contains(|c: char| "{},\"\\".contains(c) || c.is_ascii_whitespace());
    if is_plain {
        text.to_owned()
    } else {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// Calls `keep` for each character of a document, told whether it is within a text.
fn outside_texts(document: &str, mut write: impl FnMut(char, bool)) {
    let (mut is_text, mut is_escaped) = (false, false);
    for character in document.chars() {
        write(character, is_text);
        is_text ^= character == '"' && !is_escaped;
        is_escaped = is_text && character == '\\' && !is_escaped;
    }
}

fn without_blanks(document: &str) -> String {
    let mut kept = String::new();
    outside_texts(document, |character, is_text| {
        if is_text || !character.is_ascii_whitespace() {
            kept.push(character);
        }
    });
    kept
}

fn with_blanks(document: &str) -> String {
    let mut spaced = String::new();
    outside_texts(document, |character, is_text| {
        spaced.push(character);
        if !is_text && matches!(character, ':' | ',') {
            spaced.push(' ');
        }
    });
    spaced
}
