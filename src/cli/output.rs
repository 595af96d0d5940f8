//! What a verb prints: for people, or as JSON.

use std::borrow::Borrow;
use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Failure;
use crate::error::ErrorCode;

/// Standard output in the form that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints an answer: `value` as JSON, or `text` for people.
    pub(super) fn answer(self, value: &Value, text: impl FnOnce() -> String) {
        if self.json { line(&value.to_string()) } else { line(&text()) }
    }

    /// Prints rows: a JSON array of `values`, or a table of `cells`. Only one of them is made.
    pub(super) fn rows(
        self,
        headings: &[&str],
        values: impl IntoIterator<Item = impl Borrow<Value>>,
        cells: impl IntoIterator<Item = Vec<String>>,
    ) {
        let table = || table_of(headings, cells.into_iter().collect());
        self.lines(values, std::iter::once_with(table));
    }

    /// Prints a JSON array of `values`, or `lines`, one after the other: never all of them in memory.
    pub(super) fn lines(
        self,
        values: impl IntoIterator<Item = impl Borrow<Value>>,
        lines: impl IntoIterator<Item = String>,
    ) {
        let mut out = io::BufWriter::new(io::stdout().lock());
        let print = |out: &mut dyn Write| {
            if !self.json {
                lines.into_iter().try_for_each(|line| writeln!(out, "{line}"))?;
                return out.flush();
            }
            write!(out, "[")?;
            for (number, value) in values.into_iter().enumerate() {
                let comma = if number == 0 { "" } else { "," };
                write!(out, "{comma}{}", value.borrow())?;
            }
            writeln!(out, "]")?;
            out.flush()
        };
        // As with a line.
        drop(print(&mut out));
    }

    /// Prints a line for people only.
    pub(super) fn remark(self, text: &str) {
        if !self.json {
            line(text);
        }
    }

    /// Prints a line about an answer, beside it: on standard error, for people only.
    pub(super) fn note(self, text: &str) {
        if !self.json {
            complain(text);
        }
    }

    pub(super) fn failure(self, failure: &Failure) {
        let code = failure.code();
        if self.json {
            let error = json!({ "error_code": code.as_str(), "message": failure.to_string() });
            complain(&error.to_string());
        } else {
            // To whoever sits here, an unexpected failure is told by its message alone.
            let code = Some(code).filter(|code| *code != ErrorCode::InternalError);
            let code = code.map_or_else(String::new, |code| format!(" [{code}]"));
            complain(&format!("error: {failure}{code}"));
        }
    }
}

/// Rows in columns.
pub(super) fn table_of(headings: &[&str], cells: Vec<Vec<String>>) -> String {
    if cells.is_empty() {
        return "(none)".to_owned();
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headings.iter().map(|heading| heading.to_uppercase()))
        .add_rows(cells);
    let text: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    text.join("\n")
}

/// A member of an answer, as people read it.
pub(super) fn cell(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().filter_map(Value::as_str).collect();
            items.join(",")
        }
        other @ (Value::Bool(_) | Value::Number(_) | Value::Object(_)) => other.to_string(),
    }
}

/// A moment of an answer, to the second.
pub(super) fn moment(value: &Value, name: &str) -> String {
    to_the_second(&cell(value, name))
}

/// `text`, to the second if it is a moment.
fn to_the_second(text: &str) -> String {
    let moment = text.parse::<Timestamp>();
    moment.map_or(text.to_owned(), |moment| moment.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// The same, of what may be not to come, or not to have come.
pub(super) fn moment_or_never(value: &Value, name: &str) -> String {
    if value[name].is_null() { "never".to_owned() } else { moment(value, name) }
}

/// Names such as `db.host` and their values, one line each.
pub(super) fn flatten(value: &Value) -> String {
    let mut lines = Vec::new();
    flatten_into("", value, &mut lines);
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(String, String)| format!("{name:width$}  {value}");
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn flatten_into(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten_into(&path, value, lines);
            }
        }
        Value::Null => lines.push((path.to_owned(), "-".to_owned())),
        Value::String(text) => lines.push((path.to_owned(), to_the_second(text))),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().filter_map(Value::as_str).collect();
            let text = if items.is_empty() { "-".to_owned() } else { items.join(", ") };
            lines.push((path.to_owned(), text));
        }
        Value::Bool(_) | Value::Number(_) => lines.push((path.to_owned(), value.to_string())),
    }
}

/// Prints a line on standard error.
pub(super) fn complain(text: &str) {
    // Nowhere left to say that it failed.
    drop(writeln!(io::stderr(), "{text}"));
}

/// Prints a line on standard output. Whoever reads it may have gone away: no reason to fail.
pub(super) fn line(text: &str) {
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_moments_to_the_second_and_a_dash_for_nothing() {
        let value = json!({
            "at": "2026-11-23T13:04:11.775724048Z", "none": null, "few": [], "name": "2026",
        });
        assert_eq!(moment(&value, "at"), "2026-11-23 13:04:11Z");
        assert_eq!(moment_or_never(&value, "at"), "2026-11-23 13:04:11Z");
        assert_eq!(moment_or_never(&value, "none"), "never");
        assert_eq!([moment(&value, "none"), cell(&value, "few")], ["-", "-"]);
        let lines = "at    2026-11-23 13:04:11Z\nnone  -\nfew   -\nname  2026";
        assert_eq!(flatten(&value), lines);
    }
}
