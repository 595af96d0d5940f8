//! What a server says about a failure, and how much of it a caller is told.

use super::wire::{Body, Malformed};
use crate::database::{Error, Unavailable};

/// The code of a statement that was stopped, by its time limit or by a cancellation.
pub(super) const QUERY_CANCELED: &str = "57014";

/// The code of a statement that the server does not have.
pub(super) const UNKNOWN_STATEMENT: &str = "26000";
/// The code of, among others, a statement whose columns have other types than when it was read.
pub(super) const OTHER_TYPES: &str = "0A000";

/// What a server says about a failure.
pub(super) struct ServerError {
    is_fatal: bool,
    /// It failed in a function of the database's, perhaps a trigger, and not in the statement.
    is_within: bool,
    pub(super) code: String,
    message: String,
    /// Which character of the statement, from 1.
    position: Option<u32>,
}

impl ServerError {
    pub(super) fn read(mut body: Body<'_>) -> Result<Self, Malformed> {
        let mut error = Self {
            is_fatal: false,
            is_within: false,
            code: String::new(),
            message: String::new(),
            position: None,
        };
        while let Some((field, text)) = body.field()? {
            match field {
                // The second is the same in the server's language, and all that old ones have.
                b'V' | b'S' => error.is_fatal |= matches!(text.as_str(), "FATAL" | "PANIC"),
                b'C' => error.code = printable(&text, 5),
                b'M' => error.message = printable(&text, 500),
                b'P' => error.position = text.parse().ok(),
                // A statement within a function; a function in "PL/pgSQL" or "SQL".
                b'q' => error.is_within = true,
                b'W' => error.is_within |= text.contains("SQL"),
                // Where in the server's source, of which relation, in which function of whose.
                _ => {}
            }
        }
        Ok(error)
    }

    /// What it means. `is_first`: nothing of the flight had been answered.
    pub(super) fn into_error(self, is_first: bool) -> Error {
        match self.code.as_str() {
            // By the time limit, since a cancellation of ours has no reader.
            QUERY_CANCELED => return Error::Timeout,
            // The server ended the session: it stops, or an operator did, or it idled.
            _ if self.is_fatal => {
                let reason = if is_first { Unavailable::Stale } else { Unavailable::Lost };
                return reason.into();
            }
            // It idled within the transaction, or took too long there.
            "25P03" | "25P04" => return Unavailable::Lost.into(),
            _ => {}
        }
        let message = if self.is_within || names_what_is_not_the_callers(&self.code) {
            // The text is for the operator, with the reference of the call around it.
            tracing::warn!(sqlstate = %self.code, message = %self.message, "a statement failed");
            general(&self.code).to_owned()
        } else {
            self.message
        };
        // A server that is none may leave it out.
        let sqlstate = (!self.code.is_empty()).then_some(self.code);
        Error::Failed { sqlstate, message, position: self.position }
    }
}

/// Whether messages with `code` may name files, roles, hosts, or relations that the statement does
/// not: those are for the operator.
fn names_what_is_not_the_callers(code: &str) -> bool {
    match code.get(..2).unwrap_or_default() {
        // Data, transaction states, limits, what is not supported, and the statement itself but for
        // privileges, which may be missing below a view.
        "0A" | "21" | "22" | "25" | "2B" | "54" => false,
        "42" => code == "42501",
        _ => true,
    }
}

/// What there is to say of `code` without the server's text.
fn general(code: &str) -> &'static str {
    match code {
        "23502" => return "a column that needs a value has none",
        "23503" => {
            return "a foreign key does not hold: a row that is referred to is missing, or is still \
                    referred to";
        }
        "23505" => return "a row with the same key is there already",
        "23514" => return "a value breaks a check of the table",
        "42501" => return "permission denied",
        _ => {}
    }
    match code.get(..2).unwrap_or_default() {
        "23" => "a constraint does not hold",
        "40" | "55" => "the database is busy with something else; try again",
        "53" => "the database has not enough resources for the statement",
        "22" | "42" | "P0" | "38" | "39" => "a function of the database failed",
        _ => "the database could not run the statement",
    }
}

/// At most `length` characters of `text`, without control characters.
pub(super) fn printable(text: &str, length: usize) -> String {
    text.chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(length)
        .collect()
}
