//! Checking the log as a whole, also while a process appends to it.
//!
//! Every line of every segment is an entry, numbers follow on each other from 1 over all segments,
//! and only the newest segment may end in half a line. Protects against: a segment that is missing,
//! was cut, or whose lines were removed, reordered or garbled. Does not protect against: someone who
//! rewrites what follows as well, or cuts the end off: entries are not chained or signed.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::{Entry, Error, reader};

/// More than the longest entry has. A line that is longer is none, and is not read.
const MAX_LINE: u64 = 1 << 20;
/// Most problems that are kept; the rest is counted.
const MAX_PROBLEMS: usize = 100;

/// What [`verify`] found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Verified {
    /// Entries that are whole.
    pub entries: u64,
    /// Number of the last one; 0 when there is none.
    pub last: u64,
    /// What is not as it was written, in the order of the log. At most 100.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub omitted: u64,
}

/// Something in the log that is not as it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// File name below `audit/`.
    segment: String,
    /// Line, from 1.
    line: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Entries `from` to `to` are not there.
    Missing { from: u64, to: u64 },
    /// It has a number that came before.
    Repeated { seq: u64 },
    /// The line is no entry.
    Garbled,
    /// The segment ends in the middle of a line, and is not the newest.
    CutShort,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, line, kind } = self;
        match kind {
            Kind::Missing { from, to } if from == to => {
                write!(f, "entry {from} is missing before line {line} of {segment}")
            }
            Kind::Missing { from, to } => {
                write!(f, "entries {from} to {to} are missing before line {line} of {segment}")
            }
            Kind::Repeated { seq } => {
                write!(f, "line {line} of {segment} has the number {seq}, which came before")
            }
            Kind::Garbled => write!(f, "line {line} of {segment} is no entry"),
            Kind::CutShort => write!(f, "{segment} ends in the middle of line {line}"),
        }
    }
}

/// Checks the log in `directory` from its first entry to its last. One line is in memory at a time.
/// `progress` is told how many entries were read.
///
/// # Errors
///
/// [`Error::Io`]; damage is no error, but a [`Problem`].
pub fn verify(directory: &Path, mut progress: impl FnMut(u64)) -> Result<Verified, Error> {
    let segments = reader::segments(directory)?;
    let mut verified = Verified::default();
    let newest = segments.len().saturating_sub(1);
    for (index, (first_seq, path)) in segments.into_iter().enumerate() {
        let name = format!("{first_seq:020}.{}", reader::EXTENSION);
        // Also where it is empty: what it should begin with follows on what there is.
        verified.expect(first_seq, &name, 1);
        let file = File::open(path).map_err(Error::io("read"))?;
        verified.segment(file, &name, index == newest, &mut progress)?;
    }
    Ok(verified)
}

/// Copies the log in `directory` to `to`, where there is nothing, entry for entry. Nobody may append
/// to it meanwhile.
pub fn copy(directory: &Path, to: &Path) -> Result<(), Error> {
    let written = Error::io("written");
    DirBuilder::new().mode(0o700).create(to).map_err(&written)?;
    for (first_seq, path) in reader::segments(directory)? {
        let copy = to.join(format!("{first_seq:020}.{}", reader::EXTENSION));
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(copy);
        let mut file = file.map_err(&written)?;
        let mut original = File::open(path).map_err(Error::io("read"))?;
        io::copy(&mut original, &mut file).and_then(|_| file.sync_all()).map_err(&written)?;
    }
    File::open(to).and_then(|directory| directory.sync_all()).map_err(&written)
}

impl Verified {
    /// Whether the log is as it was written, as far as that can be seen.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    fn segment(
        &mut self,
        file: File,
        name: &str,
        is_newest: bool,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), Error> {
        let mut lines = BufReader::new(file);
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            let mut limited = (&mut lines).take(MAX_LINE);
            limited.read_until(b'\n', &mut line).map_err(Error::io("read"))?;
            number += 1;
            if line.is_empty() {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                if line.len() as u64 == MAX_LINE {
                    self.note(name, number, Kind::Garbled);
                    skip_line(&mut lines)?;
                    continue;
                }
                // In the newest segment it is being written, or a crash cut it short: either way
                // not acknowledged.
                if !is_newest {
                    self.note(name, number, Kind::CutShort);
                }
                return Ok(());
            }
            if let Ok(entry) = serde_json::from_slice::<Entry>(&line) {
                self.expect(entry.seq, name, number);
                self.last = self.last.max(entry.seq);
                self.entries += 1;
                progress(self.entries);
            } else {
                self.note(name, number, Kind::Garbled);
                // What it was is known by its place, so that it is not missing as well.
                self.last = self.last.saturating_add(1);
            }
        }
    }

    /// Notes it unless `seq` is what comes next.
    fn expect(&mut self, seq: u64, segment: &str, line: u64) {
        let next = self.last.saturating_add(1);
        if seq > next {
            self.note(segment, line, Kind::Missing { from: next, to: seq - 1 });
            // The same gap is not found twice.
            self.last = seq - 1;
        } else if seq < next {
            self.note(segment, line, Kind::Repeated { seq });
        }
    }

    fn note(&mut self, segment: &str, line: u64, kind: Kind) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { segment: segment.to_owned(), line, kind });
        } else {
            self.omitted += 1;
        }
    }
}

/// Reads on to the end of the line, and keeps nothing of it.
fn skip_line(lines: &mut impl BufRead) -> Result<(), Error> {
    loop {
        let buffer = lines.fill_buf().map_err(Error::io("read"))?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = buffer.len();
        lines.consume(end.map_or(length, |end| end + 1));
        if end.is_some() || length == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(seq: u64) -> String {
        format!(
            "{{\"seq\":{seq},\"time\":\"2026-11-22T00:00:00Z\",\"request_id\":\"0\",\
             \"actor\":{{\"kind\":\"service\"}},\"action\":\"a\",\"decision\":\"allowed\",\
             \"duration_ms\":0}}\n"
        )
    }

    /// Segments named by these numbers, with these contents.
    fn check(segments: &[(u64, String)]) -> Verified {
        let directory = tempfile::tempdir().unwrap();
        for (first, text) in segments {
            fs::write(directory.path().join(format!("{first:020}.jsonl")), text).unwrap();
        }
        verify(directory.path(), |_| {}).unwrap()
    }

    fn lines(numbers: std::ops::RangeInclusive<u64>) -> String {
        numbers.map(line).collect()
    }

    fn problems(segments: &[(u64, String)]) -> Vec<String> {
        check(segments).problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_log_in_one_or_more_segments_is_good_also_while_its_last_line_is_being_written() {
        assert!(check(&[]).is_good());
        assert!(check(&[(1, String::new())]).is_good());
        let torn = lines(4..=5) + &line(6)[..20];
        let verified = check(&[(1, lines(1..=3)), (4, torn)]);
        assert!(verified.is_good());
        assert_eq!((verified.entries, verified.last), (5, 5));
    }

    #[test]
    fn a_missing_segment_beginning_or_line_is_named() {
        let found = problems(&[(4, lines(4..=5))]);
        assert_eq!(
            found,
            ["entries 1 to 3 are missing before line 1 of 00000000000000000004.jsonl"]
        );
        let found = problems(&[(1, lines(1..=3)), (7, lines(7..=8))]);
        assert_eq!(
            found,
            ["entries 4 to 6 are missing before line 1 of 00000000000000000007.jsonl"]
        );
        let found = problems(&[(1, lines(1..=1) + &lines(3..=4))]);
        assert_eq!(found, ["entry 2 is missing before line 2 of 00000000000000000001.jsonl"]);
    }

    #[test]
    fn a_line_that_is_garbled_repeated_or_cut_short_is_named_and_the_rest_is_read() {
        let found = problems(&[(1, lines(1..=1) + "{}\n" + &lines(3..=3))]);
        assert_eq!(found, ["line 2 of 00000000000000000001.jsonl is no entry"]);
        let found = problems(&[(1, lines(1..=2) + &lines(2..=3))]);
        assert_eq!(
            found,
            ["line 3 of 00000000000000000001.jsonl has the number 2, which came before"]
        );
        let found = problems(&[(1, lines(1..=2) + &line(3)[..9]), (4, lines(4..=4))]);
        assert_eq!(found[0], "00000000000000000001.jsonl ends in the middle of line 3");
        let endless = "x".repeat(3 << 20) + "\n";
        let verified = check(&[(1, lines(1..=1) + &endless + &lines(3..=3))]);
        assert_eq!(verified.entries, 2);
        assert_eq!(verified.problems[0].kind, Kind::Garbled);
    }

    #[test]
    fn every_flipped_bit_of_a_number_and_every_removed_line_is_noticed() {
        let text = lines(1..=12);
        for at in text.match_indices("\"seq\":").map(|(at, found)| at + found.len()) {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join(format!("{:020}.jsonl", 1));
                fs::write(path, bytes).unwrap();
                assert!(!verify(directory.path(), |_| {}).unwrap().is_good(), "{at}, {bit}");
            }
        }
        let all: Vec<&str> = text.split_inclusive('\n').collect();
        for removed in 0..all.len() - 1 {
            let mut left = all.clone();
            left.remove(removed);
            assert!(!check(&[(1, left.concat())]).is_good(), "line {removed}");
        }
    }

    #[test]
    fn problems_beyond_the_hundredth_are_counted() {
        let verified = check(&[(1, "no entry\n".repeat(250))]);
        assert_eq!((verified.problems.len(), verified.omitted), (100, 150));
    }
}
