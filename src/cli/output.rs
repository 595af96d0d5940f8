//! What a verb prints: for people, or as JSON.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
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

    /// Prints rows: a JSON array of `values`, or a table.
    pub(super) fn rows(self, headings: &[&str], values: &[Value], cells: Vec<Vec<String>>) {
        if self.json {
            return line(&json!(values).to_string());
        }
        if cells.is_empty() {
            return line("(none)");
        }
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(headings.iter().map(|heading| heading.to_uppercase()))
            .add_rows(cells);
        let text: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
        let text: Vec<&str> = text.iter().map(String::as_str).collect();
        line(&text.join("\n"));
    }

    /// Prints a line for people only.
    pub(super) fn remark(self, text: &str) {
        if !self.json {
            line(text);
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
