//! Rows that stand beside an answer until it is written.
//!
//! ```text
//! answer, a mark in place of its rows --rmcp: tree, JSON--> text with the mark
//! rows -------------------------------Attachment-------------> put where the mark is
//! ```
//!
//! `rmcp` takes an answer as a tree and as text. Of short rows a tree is thirty times their size, so
//! a transport that writes bytes itself lends its handler an [`Attachment`].

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::database::Rows;

/// Where a handler leaves the rows of its one answer. Clones share it.
#[derive(Clone, Default)]
pub struct Attachment {
    attached: Arc<Mutex<Option<(String, Rows)>>>,
}

impl Attachment {
    /// Takes `rows`, and gives the mark that stands for them: a word that nobody can have known, so
    /// nothing else in the answer is like it. The rows come back when there is no randomness.
    pub(super) fn attach(&self, rows: Rows) -> Result<String, Rows> {
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            return Err(rows);
        }
        let mark = format!("rows-{:032x}", u128::from_be_bytes(bytes));
        *self.attached.lock().unwrap_or_else(PoisonError::into_inner) = Some((mark.clone(), rows));
        Ok(mark)
    }

    /// The mark and the rows, once, if there are any by now.
    pub fn take(&self) -> Option<(String, Rows)> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").finish_non_exhaustive()
    }
}
