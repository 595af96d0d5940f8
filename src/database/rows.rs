//! Rows as JSON text, bounded while it is written.
//!
//! ```text
//! Collector::row(|cells| …) --cell by cell--> "[[1,\"a\"],[2,\"b\"" --finish--> Rows
//! ```
//!
//! No value is made for a cell: a list of small numbers takes as much memory as its text, not
//! thirty times that. What would go over the limit is never written, and a row that does not fit
//! leaves no trace.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{Column, Error, Query, QueryResult};
use crate::tenant::Limits;

/// The rows of an answer: the text of a JSON array with one array for each row.
#[derive(Clone, Eq, PartialEq)]
pub struct Rows {
    json: String,
    count: usize,
}

impl Rows {
    /// The text, such as `[[1,"a"],[2,null]]`; without line breaks.
    pub fn as_json(&self) -> &str {
        &self.json
    }

    /// The text; see [`Self::as_json`].
    pub fn into_json(self) -> String {
        self.json
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The rows as values, for whoever looks into them. Takes many times the memory of the text.
    pub fn to_values(&self) -> Vec<Vec<Value>> {
        // The text is an array of arrays, and nothing in it is nested as deep as the reader's
        // limit; see `Cells::document`.
        serde_json::from_str(&self.json).unwrap_or_default()
    }
}

impl Default for Rows {
    fn default() -> Self {
        Self { json: "[]".to_owned(), count: 0 }
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.json)
    }
}

impl<R: AsRef<[Value]>> PartialEq<Vec<R>> for Rows {
    fn eq(&self, other: &Vec<R>) -> bool {
        self.to_values().iter().map(Vec::as_slice).eq(other.iter().map(AsRef::as_ref))
    }
}

impl<R: AsRef<[Value]>, const ROWS: usize> PartialEq<[R; ROWS]> for Rows {
    fn eq(&self, other: &[R; ROWS]) -> bool {
        self.to_values().iter().map(Vec::as_slice).eq(other.iter().map(AsRef::as_ref))
    }
}

/// Why a cell was not written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unwritten {
    /// What the engine sent is not of the type that it named.
    Malformed,
    /// There is no room for it in the answer.
    TooLarge,
}

/// Takes rows until a limit is reached.
#[derive(Debug)]
pub(super) struct Collector {
    json: Vec<u8>,
    count: usize,
    rows_left: usize,
    /// Length of `json` that is not exceeded.
    limit: usize,
    truncated: bool,
    read: RowsRead,
}

/// How many rows of an answer were read so far, for whoever waits for it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct RowsRead(Arc<AtomicUsize>);

impl RowsRead {
    /// How many by now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, count: usize) {
        self.0.store(count, Ordering::Relaxed);
    }
}

impl Collector {
    pub(super) fn new(query: &Query, limits: &Limits) -> Self {
        let rows = query.limit.unwrap_or(u32::MAX).min(limits.max_rows);
        Self { read: query.read.clone(), ..Self::of(rows, limits.max_result_bytes) }
    }

    pub(super) fn of(rows: u32, bytes: u32) -> Self {
        let (rows_left, limit) = (rows as usize, bytes as usize);
        let read = RowsRead::default();
        Self { json: Vec::new(), count: 0, rows_left, limit, truncated: false, read }
    }

    /// Whether the next row would be kept, as far as one can tell without it.
    pub(super) fn wants_more(&self) -> bool {
        !self.truncated
    }

    /// How many more rows may be kept.
    pub(super) fn rows_left(&self) -> usize {
        self.rows_left
    }

    /// How many more bytes of JSON may be written.
    pub(super) fn bytes_left(&self) -> usize {
        self.limit.saturating_sub(self.json.len())
    }

    /// Keeps the row that `write` writes, or marks the answer truncated.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] when the first row alone is beyond the limit, or what `malformed` says.
    pub(super) fn row(
        &mut self,
        malformed: Error,
        write: impl FnOnce(&mut Cells<'_>) -> Result<(), Unwritten>,
    ) -> Result<(), Error> {
        if self.rows_left == 0 {
            self.truncated = true;
            return Ok(());
        }
        let before = self.json.len();
        let mut cells = Cells { json: &mut self.json, limit: self.limit, is_first: true };
        let written = cells.open().and_then(|()| write(&mut cells)).and_then(|()| cells.close());
        match written {
            Ok(()) => {
                self.json.push(b',');
                self.rows_left -= 1;
                self.count += 1;
                self.read.set(self.count);
                Ok(())
            }
            Err(reason) => {
                self.json.truncate(before);
                match reason {
                    Unwritten::Malformed => Err(malformed),
                    Unwritten::TooLarge => self.overflow(),
                }
            }
        }
    }

    /// Goes without a row that is known to be too large before it is read.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] when it is the first and wanted.
    pub(super) fn overflow(&mut self) -> Result<(), Error> {
        if self.count == 0 && self.rows_left > 0 {
            return Err(Error::TooLarge);
        }
        self.truncated = true;
        Ok(())
    }

    pub(super) fn finish(mut self, columns: Vec<Column>) -> QueryResult {
        // Each row ends in a comma.
        self.json.pop();
        self.json.insert(0, b'[');
        self.json.push(b']');
        // Only whole texts were written, so this is UTF-8; hostile bytes were refused before.
        let json = String::from_utf8(self.json).unwrap_or_else(|_| "[]".to_owned());
        QueryResult { columns, rows: Rows { json, count: self.count }, truncated: self.truncated }
    }
}

/// One row while it is written: each method writes one cell, or a part of a nested one.
///
/// Integers beyond ±2^53 are strings, because JSON readers round them; so is what JSON has no
/// number for.
pub(super) struct Cells<'a> {
    json: &'a mut Vec<u8>,
    limit: usize,
    is_first: bool,
}

/// Deepest nesting of a document that is passed on as JSON; readers have limits, often 128.
const MAX_DEPTH: usize = 100;

impl Cells<'_> {
    pub(super) fn null(&mut self) -> Result<(), Unwritten> {
        self.verbatim("null")
    }

    pub(super) fn boolean(&mut self, value: bool) -> Result<(), Unwritten> {
        self.verbatim(if value { "true" } else { "false" })
    }

    pub(super) fn integer(&mut self, value: i64) -> Result<(), Unwritten> {
        const EXACT: i64 = 1 << 53;
        self.separate()?;
        let is_exact = (-EXACT..=EXACT).contains(&value);
        self.write(|out| if is_exact { write!(out, "{value}") } else { write!(out, "\"{value}\"") })
    }

    pub(super) fn float(&mut self, value: f64) -> Result<(), Unwritten> {
        if value.is_nan() {
            self.text("NaN")
        } else if value.is_infinite() {
            self.text(if value > 0.0 { "Infinity" } else { "-Infinity" })
        } else {
            self.separate()?;
            self.write(|out| serde_json::to_writer(out, &value).map_err(io::Error::from))
        }
    }

    pub(super) fn text(&mut self, value: &str) -> Result<(), Unwritten> {
        self.separate()?;
        self.write(|out| serde_json::to_writer(out, value).map_err(io::Error::from))
    }

    /// Standard base64 with padding.
    pub(super) fn base64(&mut self, value: &[u8]) -> Result<(), Unwritten> {
        use base64::Engine as _;
        // In pieces that need no padding but the last.
        const PIECE: usize = 3 * 256;
        self.separate()?;
        self.write(|out| {
            let mut encoded = [0; 4 * 256];
            out.write_all(b"\"")?;
            for piece in value.chunks(PIECE) {
                let length = base64::engine::general_purpose::STANDARD
                    .encode_slice(piece, &mut encoded)
                    .map_err(io::Error::other)?;
                out.write_all(encoded.get(..length).unwrap_or_default())?;
            }
            out.write_all(b"\"")
        })
    }

    /// What is JSON already: a number or one of its words.
    pub(super) fn verbatim(&mut self, json: &str) -> Result<(), Unwritten> {
        self.separate()?;
        self.write(|out| out.write_all(json.as_bytes()))
    }

    /// A JSON document as it is, without the white space between its parts; as text where it is
    /// none that every reader takes.
    pub(super) fn document(&mut self, document: &str) -> Result<(), Unwritten> {
        match serde_json::from_str(document) {
            Ok(Depth(depth)) if depth <= MAX_DEPTH => {}
            _ => return self.text(document),
        }
        self.separate()?;
        self.write(|out| {
            let (mut in_text, mut escaped) = (false, false);
            let mut kept = |byte: &u8| {
                if in_text {
                    (escaped, in_text) = match byte {
                        _ if escaped => (false, true),
                        b'\\' => (true, true),
                        b'"' => (false, false),
                        _ => (false, true),
                    };
                    return true;
                }
                in_text = *byte == b'"';
                !byte.is_ascii_whitespace()
            };
            // In runs, of which there are few.
            for run in document.as_bytes().split(|byte| !kept(byte)) {
                out.write_all(run)?;
            }
            Ok(())
        })
    }

    /// Begins a nested array.
    pub(super) fn open(&mut self) -> Result<(), Unwritten> {
        self.verbatim("[")?;
        self.is_first = true;
        Ok(())
    }

    /// Ends what [`Self::open`] began.
    pub(super) fn close(&mut self) -> Result<(), Unwritten> {
        self.is_first = false;
        self.write(|out| out.write_all(b"]"))
    }

    /// How many more bytes may be written.
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.json.len())
    }

    fn separate(&mut self) -> Result<(), Unwritten> {
        if std::mem::replace(&mut self.is_first, false) {
            return Ok(());
        }
        self.write(|out| out.write_all(b","))
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut Bounded<'_>) -> io::Result<()>,
    ) -> Result<(), Unwritten> {
        // The only thing that fails is a write beyond the limit.
        write(&mut Bounded { json: self.json, limit: self.limit }).map_err(|_| Unwritten::TooLarge)
    }
}

/// How deep a document is nested. Reading it shows that every reader can: no number that is too
/// large, no half of a surrogate pair.
struct Depth(usize);

impl<'de> Deserialize<'de> for Depth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DepthVisitor)
    }
}

struct DepthVisitor;

impl<'de> Visitor<'de> for DepthVisitor {
    type Value = Depth;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_unit<E>(self) -> Result<Depth, E> {
        Ok(Depth(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Depth, E> {
        Ok(Depth(0))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Depth, E> {
        Ok(Depth(0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Depth, E> {
        Ok(Depth(0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Depth, E> {
        Ok(Depth(0))
    }

    fn visit_str<E>(self, _: &str) -> Result<Depth, E> {
        Ok(Depth(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Depth, A::Error> {
        let mut deepest = 0;
        while let Some(Depth(depth)) = elements.next_element()? {
            deepest = deepest.max(depth);
        }
        Ok(Depth(deepest + 1))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Depth, A::Error> {
        let mut deepest = 0;
        while let Some((Depth(_), Depth(depth))) = entries.next_entry()? {
            deepest = deepest.max(depth);
        }
        Ok(Depth(deepest + 1))
    }
}

/// Writes up to a length.
struct Bounded<'a> {
    json: &'a mut Vec<u8>,
    limit: usize,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit.saturating_sub(self.json.len()) {
            return Err(io::Error::other("beyond the limit"));
        }
        self.json.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use serde_json::json;

    use super::*;

    fn row(
        collector: &mut Collector,
        write: impl FnOnce(&mut Cells<'_>) -> Result<(), Unwritten>,
    ) -> Result<(), Error> {
        collector.row(Error::Cancelled, write)
    }

    #[test]
    fn rows_are_one_line_of_json() {
        let mut rows = Collector::of(10, 1 << 10);
        row(&mut rows, |cells| {
            cells.integer(1)?;
            cells.text("a\n\"b\u{1}")?;
            cells.open()?;
            cells.null()?;
            cells.open()?;
            cells.close()?;
            cells.boolean(true)?;
            cells.close()?;
            cells.float(0.5)
        })
        .unwrap();
        row(&mut rows, |_| Ok(())).unwrap();
        let answer = rows.finish(vec![]);
        assert_eq!(answer.rows.as_json(), r#"[[1,"a\n\"b\u0001",[null,[],true],0.5],[]]"#);
        assert_eq!(answer.rows.len(), 2);
        assert_eq!(Collector::of(1, 1).finish(vec![]).rows, Rows::default());
    }

    #[test]
    fn what_readers_would_round_or_not_read_is_a_text() {
        let mut rows = Collector::of(10, 1 << 10);
        row(&mut rows, |cells| {
            cells.integer(1 << 53)?;
            cells.integer((1 << 53) + 1)?;
            cells.integer(i64::MIN)?;
            cells.float(f64::NAN)?;
            cells.float(f64::NEG_INFINITY)?;
            cells.document(" { \"a b\" : [ 1 , 2 ],\n\"c\":\"\\\" x\"} ")?;
            cells.document("1e999")?;
            cells.document("[1")?;
            cells.document(&format!("{}{}", "[".repeat(101), "]".repeat(101)))
        })
        .unwrap();
        let deep = format!("{}{}", "[".repeat(101), "]".repeat(101));
        let document = json!({"a b": [1, 2], "c": "\" x"});
        let expected = json!([
            9_007_199_254_740_992_i64,
            "9007199254740993",
            "-9223372036854775808",
            "NaN",
            "-Infinity",
            document,
            "1e999",
            "[1",
            deep,
        ]);
        assert_eq!(json!(rows.finish(vec![]).rows.to_values()[0]), expected);
    }

    #[test]
    fn a_row_that_does_not_fit_leaves_no_trace() {
        let mut rows = Collector::of(10, 20);
        row(&mut rows, |cells| cells.text("four")).unwrap();
        assert!(rows.wants_more());
        row(&mut rows, |cells| {
            cells.integer(1)?;
            cells.base64(&[0; 30])
        })
        .unwrap();
        assert!(!rows.wants_more());
        let answer = rows.finish(vec![]);
        assert!(answer.truncated);
        assert_eq!(answer.rows, [[json!("four")]]);
        let alone = row(&mut Collector::of(10, 20), |cells| cells.text("more than twenty bytes"));
        assert_eq!(alone, Err(Error::TooLarge));
        let unwanted = &mut Collector::of(0, 20);
        assert_eq!(row(unwanted, |cells| cells.text("more than twenty bytes")), Ok(()));
        assert!(!unwanted.wants_more());
    }

    #[test]
    fn pieces_of_base64_are_one() {
        for length in [0, 1, 767, 768, 769, 5_000] {
            let mut rows = Collector::of(1, 1 << 20);
            row(&mut rows, |cells| cells.base64(&vec![b'x'; length])).unwrap();
            let values = rows.finish(vec![]).rows.to_values();
            let expected = base64::engine::general_purpose::STANDARD.encode(vec![b'x'; length]);
            assert_eq!(values, [[json!(expected)]], "{length}");
        }
    }
}
