//! Reading the log, also while a process appends to it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Entry, Error};
use crate::error::ErrorCode;
use crate::tenant::TenantId;

pub(super) const EXTENSION: &str = "jsonl";

/// Which entries to show; the default is all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only with this code.
    pub code: Option<ErrorCode>,
    /// Only by this tenant, or aimed at it.
    pub tenant: Option<TenantId>,
    /// Only from this moment on.
    pub since: Option<Timestamp>,
    /// Only with a larger number.
    pub after: u64,
}

impl Filter {
    fn admits(&self, entry: &Entry) -> bool {
        let is =
            |field: &Option<String>, tenant: &TenantId| field.as_deref() == Some(tenant.as_str());
        self.code.is_none_or(|code| entry.code.as_deref() == Some(code.as_str()))
            && entry.seq > self.after
            && self.since.is_none_or(|since| entry.time >= since)
            && self
                .tenant
                .as_ref()
                .is_none_or(|id| is(&entry.tenant, id) || is(&entry.target_tenant, id))
    }
}

/// The entries of the log in `directory` that `filter` admits, oldest first.
///
/// Reads one line at a time, whatever the size of the log. A last line that is not finished is
/// left out: it is being written, or was cut short by a crash, and either way not acknowledged.
///
/// # Errors
///
/// Per item: [`Error::Damaged`] for a line that is no entry, after which the iterator ends.
pub fn read(
    directory: &Path,
    filter: Filter,
) -> Result<impl Iterator<Item = Result<Entry, Error>> + use<>, Error> {
    let mut segments = segments(directory)?;
    // Whole segments that are before what is asked for are not read.
    let behind = segments.partition_point(|(first_seq, _)| *first_seq <= filter.after + 1);
    segments.drain(..behind.saturating_sub(1));
    let entries = segments.into_iter().flat_map(|(first_seq, path)| Lines::open(first_seq, &path));
    Ok(entries.filter(move |entry| entry.as_ref().map_or(true, |entry| filter.admits(entry))))
}

/// The segments in `directory` by the number of their first entry.
pub(super) fn segments(directory: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let read = Error::io("read");
    let mut segments = Vec::new();
    for item in std::fs::read_dir(directory).map_err(&read)? {
        let path = item.map_err(&read)?.path();
        let is_segment = path.extension().is_some_and(|extension| extension == EXTENSION);
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (true, Some(number)) = (is_segment, number) {
            segments.push((number, path));
        }
    }
    segments.sort();
    Ok(segments)
}

struct Lines {
    segment: String,
    number: u64,
    /// `None` once the segment is read or damaged.
    file: Option<Result<BufReader<File>, Error>>,
}

impl Lines {
    fn open(first_seq: u64, path: &Path) -> Self {
        let file = File::open(path).map(BufReader::new).map_err(Error::io("read"));
        Self { segment: format!("{first_seq:020}.{EXTENSION}"), number: 0, file: Some(file) }
    }
}

impl Iterator for Lines {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut file = match self.file.take()? {
            Ok(file) => file,
            Err(error) => return Some(Err(error)),
        };
        let mut line = Vec::new();
        if let Err(error) = file.read_until(b'\n', &mut line) {
            return Some(Err(Error::io("read")(error)));
        }
        if line.last() != Some(&b'\n') {
            return None;
        }
        self.number += 1;
        let Ok(entry) = serde_json::from_slice(&line) else {
            return Some(Err(Error::Damaged { segment: self.segment.clone(), line: self.number }));
        };
        self.file = Some(Ok(file));
        Some(Ok(entry))
    }
}
