//! Statements that the server keeps for a session, so that it reads and plans a text once.
//!
//! ```text
//! first time     Parse ""             forgotten with the next
//! second time    Parse name, Describe the types of parameters and columns are remembered here
//! from then on   Bind name            one flight, also with parameters
//! ```
//!
//! Texts are guarded ones, so whoever finds one here may run it. The server checks privileges and
//! policies at each run, and reads a text anew when a relation or function in it has changed. What
//! it reads once and for all are literals: a text with one that tells the time is not kept, and none
//! is kept for long. Names are the session's own: behind a proxy that shares connections, nobody
//! else's statement answers to one.
//!
//! Of other callers of its tenant a caller can see that a text of theirs was faster, and no more.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::wire::{Flight, Message};

/// Most statements that a session keeps.
const MAX_STATEMENTS: usize = 64;
/// Most bytes of their texts and types.
const MAX_BYTES: usize = 256 << 10;
/// Most bytes of one of them.
const MAX_STATEMENT: usize = 16 << 10;
/// After how long the server reads a text anew: its zone may be another, or summer time have begun.
const FRESH: Duration = Duration::from_mins(1);
/// How many texts are remembered to have come once.
const MAX_SEEN: usize = 128;

/// What the server has of this session's statements.
#[derive(Debug)]
pub(super) struct Statements {
    kept: HashMap<Box<str>, Entry, RandomState>,
    /// Of all entries.
    bytes: usize,
    /// Counts uses, for the age of each entry's last one.
    uses: u64,
    /// Hashes of texts that came once, the oldest first.
    seen: VecDeque<u64>,
    /// What all names of the session begin with.
    prefix: String,
    names: u64,
    /// Names that the server is yet to be told to forget.
    closing: Vec<String>,
}

/// A statement that the server keeps.
#[derive(Debug)]
pub(super) struct Kept {
    /// The server's name for it.
    pub(super) name: String,
    /// Its types.
    pub(super) shape: Shape,
}

/// The bodies of the messages that describe a statement.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) parameters: Vec<u8>,
    /// `None` where the statement has no answer.
    pub(super) columns: Option<Vec<u8>>,
}

impl Shape {
    /// Takes a description of the statement, if `message` is one.
    pub(super) fn note(&mut self, message: &Message<'_>) {
        if let Message::Parameters(body) = message {
            self.parameters = body.to_vec();
        } else if let Message::Columns(body) = message {
            self.columns = Some(body.to_vec());
        }
    }
}

#[derive(Debug)]
struct Entry {
    kept: Arc<Kept>,
    parsed: Instant,
    last_use: u64,
    bytes: usize,
}

impl Default for Statements {
    fn default() -> Self {
        let hasher = RandomState::new();
        let prefix = format!("tenantry_{:016x}_", hasher.hash_one("a session"));
        Self {
            kept: HashMap::with_hasher(hasher),
            bytes: 0,
            uses: 0,
            seen: VecDeque::new(),
            prefix,
            names: 0,
            closing: Vec::new(),
        }
    }
}

impl Statements {
    /// The statement with this text, if the server has it.
    pub(super) fn find(&mut self, sql: &str) -> Option<Arc<Kept>> {
        self.uses += 1;
        let entry = self.kept.get_mut(sql)?;
        if entry.parsed.elapsed() >= FRESH {
            self.forget(sql);
            return None;
        }
        entry.last_use = self.uses;
        Some(Arc::clone(&entry.kept))
    }

    /// A name for a statement that is worth keeping: one that `is_known` to come again, or has come
    /// before.
    pub(super) fn name(&mut self, sql: &str, is_known: bool) -> Option<String> {
        let hash = self.kept.hasher().hash_one(sql);
        if !is_known && !self.seen.contains(&hash) {
            if self.seen.len() >= MAX_SEEN {
                self.seen.pop_front();
            }
            self.seen.push_back(hash);
            return None;
        }
        if sql.len() > MAX_STATEMENT || tells_the_time(sql) {
            return None;
        }
        self.names += 1;
        Some(format!("{}{}", self.prefix, self.names))
    }

    /// Remembers that the server has `sql` under `name`, and lets go of what is too much.
    pub(super) fn keep(&mut self, sql: &str, name: String, shape: Shape) {
        let bytes = sql.len() + shape.parameters.len() + shape.columns.as_ref().map_or(0, Vec::len);
        // Without parameters, the server did not come to describe it.
        if bytes > MAX_STATEMENT || shape.parameters.is_empty() {
            self.closing.push(name);
            return;
        }
        self.forget(sql);
        while self.kept.len() >= MAX_STATEMENTS || self.bytes + bytes > MAX_BYTES {
            let oldest = self.kept.iter().min_by_key(|(_, entry)| entry.last_use);
            let Some(oldest) = oldest.map(|(sql, _)| sql.clone()) else { break };
            self.forget(&oldest);
        }
        self.bytes += bytes;
        self.uses += 1;
        let kept = Arc::new(Kept { name, shape });
        let entry = Entry { kept, parsed: Instant::now(), last_use: self.uses, bytes };
        self.kept.insert(sql.into(), entry);
    }

    /// Has the server forget the statement.
    pub(super) fn forget(&mut self, sql: &str) {
        if let Some(entry) = self.kept.remove(sql) {
            self.bytes -= entry.bytes;
            self.closing.push(entry.kept.name.clone());
        }
    }

    /// Tells the server what it may forget.
    pub(super) fn close(&mut self, flight: &mut Flight) {
        for name in self.closing.drain(..) {
            flight.close(&name);
        }
    }
}

/// Whether a literal of `sql` could be read as a moment or a day that depends on when it is read,
/// such as `'now'`. `sql` is as the guard writes it: quotes are doubled, and nothing else is an
/// escape.
fn tells_the_time(sql: &str) -> bool {
    const WORDS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];
    let mut literal = String::new();
    let mut open = None;
    for character in sql.chars() {
        match open {
            None => open = Some(character).filter(|character| matches!(character, '\'' | '"')),
            Some(quote) if quote == character => {
                open = None;
                // A doubled quote ends one and begins another, which only makes two of one.
                literal.push(' ');
            }
            Some('\'') => literal.push(character.to_ascii_lowercase()),
            Some(_) => {}
        }
    }
    WORDS.iter().any(|word| literal.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(statements: &mut Statements, sql: &str) -> Option<String> {
        let name = statements.name(sql, true)?;
        let shape = Shape { parameters: vec![0, 0], columns: None };
        statements.keep(sql, name.clone(), shape);
        Some(name)
    }

    #[test]
    fn a_text_is_worth_a_name_the_second_time() {
        let mut statements = Statements::default();
        assert_eq!(statements.name("SELECT 1", false), None);
        assert_eq!(statements.name("SELECT 2", false), None);
        let first = statements.name("SELECT 1", false).unwrap();
        assert_ne!(statements.name("SELECT 2", false).unwrap(), first);
        for other in 0..MAX_SEEN {
            assert_eq!(statements.name(&format!("SELECT 'a', {other}"), false), None);
        }
        assert_eq!(statements.name("SELECT 1", false), None);
        let other = Statements::default().name("SELECT 1", true).unwrap();
        assert_ne!(other, Statements::default().name("SELECT 1", true).unwrap());
    }

    #[test]
    fn the_least_used_goes_when_there_are_too_many_or_they_are_too_long() {
        let mut statements = Statements::default();
        let text = |number: usize| format!("SELECT {number}");
        let names: Vec<_> =
            (0..MAX_STATEMENTS).map(|it| keep(&mut statements, &text(it)).unwrap()).collect();
        statements.find(&text(0)).unwrap();
        keep(&mut statements, "SELECT 'one more'").unwrap();
        assert_eq!(statements.closing, [names[1].clone()]);
        assert_eq!(statements.find(&text(0)).unwrap().name, names[0]);
        let long = |number: usize| format!("SELECT {number}, '{}'", "x".repeat(15 << 10));
        for number in 0..30 {
            keep(&mut statements, &long(number)).unwrap();
        }
        assert!(statements.bytes <= MAX_BYTES && statements.kept.len() > 10);
        statements.find(&long(29)).unwrap();
        assert!(statements.find(&long(0)).is_none());
        assert_eq!(keep(&mut statements, &"x".repeat(MAX_STATEMENT + 1)), None);
        let all = statements.kept.values().map(|entry| entry.bytes).sum::<usize>();
        assert_eq!(statements.bytes, all);
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_is_read_anew_after_a_while() {
        let mut statements = Statements::default();
        keep(&mut statements, "SELECT 1").unwrap();
        tokio::time::advance(FRESH.checked_sub(Duration::from_millis(1)).unwrap()).await;
        statements.find("SELECT 1").unwrap();
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(statements.find("SELECT 1").is_none());
        assert_eq!((statements.closing.len(), statements.bytes), (1, 0));
    }

    #[test]
    fn a_literal_that_tells_the_time_is_never_kept() {
        for sql in [
            "SELECT 'now'::timestamp",
            "SELECT CAST('a' AS text), TIMESTAMP 'NOW()'",
            "SELECT ' Today'::date",
            "SELECT * FROM \"t\" WHERE \"at\" < '{tomorrow 12:00}'",
            "SELECT 'it''s', 'yesterday'::date",
            "SELECT \"a'b\", 'now'",
        ] {
            assert_eq!(Statements::default().name(sql, true), None, "{sql}");
        }
        for sql in [
            "SELECT now(), \"today\" FROM \"tomorrow\"",
            "SELECT current_date, 'no', 'w'",
            "SELECT \"'\", now(), \"'\"",
            "SELECT 'it''s', now()",
        ] {
            Statements::default().name(sql, true).unwrap();
        }
    }
}
