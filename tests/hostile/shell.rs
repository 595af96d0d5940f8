//! What the real `sqlite3` shell shows for a statement, and our answer put back into that.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use serde_json::value::RawValue;
use tenantry::database::QueryResult;

use super::psql::Shown;

/// Between the cells of a row, and between rows: in no data here.
const CELL: &str = "\u{1f}";
const ROW: &str = "\u{1e}";

fn run(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("sqlite3").args(arguments).output();
    let output = output.unwrap_or_else(|error| {
        panic!("sqlite3: {error}; ./dev test installs the package sqlite3")
    });
    if output.status.success() && output.stderr.is_empty() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The shell's version, which is not that of the bundled engine.
pub(crate) fn version() -> String {
    run(&["--version"]).unwrap().split(' ').next().unwrap().to_owned()
}

/// Asks the shell, which shows each value as a literal of SQL: its storage class is seen too. The
/// names of the columns come with the first row.
pub(crate) fn sqlite3(file: &Path, sql: &str) -> Result<Shown, String> {
    let separators = ".separator \"\\037\" \"\\036\"";
    let file = file.to_str().unwrap();
    let text = run(&[
        "-batch",
        "-bail",
        "-readonly",
        "-cmd",
        ".mode quote",
        "-cmd",
        ".headers on",
        "-cmd",
        separators,
        file,
        sql,
    ])?;
    let rows = text.split_terminator(ROW);
    Ok(rows.map(|row| row.split(CELL).map(as_compared).collect()).collect())
}

/// A number with a point has as many digits as the shell was compiled for, which say exactly which
/// one it is; it is compared as the shortest that does.
fn as_compared(literal: &str) -> String {
    let is_number = literal.contains(['.', 'e', 'n']) && !literal.contains('\'');
    match literal.parse::<f64>() {
        Ok(number) if is_number => format!("{number:?}"),
        _ => literal.to_owned(),
    }
}

/// Our answer as the shell shows it. What a BLOB and a text in base64 have in common, and REAL and
/// INTEGER beyond 2⁵³, `theirs` tells apart: JSON does not.
pub(crate) fn as_sqlite3(answer: &QueryResult, theirs: &Shown) -> Shown {
    let rows: Vec<Vec<&RawValue>> = serde_json::from_str(answer.rows.as_json()).unwrap();
    if rows.is_empty() {
        return Vec::new();
    }
    let names = answer.columns.iter().map(|column| literal(&column.name));
    let mut shown = vec![names.collect()];
    for (number, row) in rows.into_iter().enumerate() {
        let cells = row.into_iter().enumerate().map(|(place, cell)| {
            let their_cell = theirs.get(number + 1).and_then(|row| row.get(place));
            as_cell(cell.get(), their_cell.map_or("", String::as_str))
        });
        shown.push(cells.collect());
    }
    shown
}

fn as_cell(json: &str, theirs: &str) -> String {
    if json == "null" {
        return "NULL".to_owned();
    }
    let Ok(text) = serde_json::from_str::<String>(json) else {
        let is_real = json.contains(['.', 'e']);
        return if is_real {
            format!("{:?}", json.parse::<f64>().unwrap())
        } else {
            json.to_owned()
        };
    };
    if theirs.starts_with("X'") {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        let hex = bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        return format!("X'{hex}'");
    }
    match text.parse::<f64>() {
        Ok(number) if !theirs.starts_with('\'') && !number.is_finite() => format!("{number:?}"),
        Ok(_) if !theirs.starts_with('\'') => text,
        _ => literal(&text),
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
