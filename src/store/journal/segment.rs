//! A file of frames: made, found, and read.
//!
//! ```text
//! segment = magic ‖ manifest of the commit before its first ‖ frame ...
//! ```
//!
//! The manifest makes a segment readable without those before it, and says which layout it has.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::super::Error;
use super::super::directory::sync_directory;
use super::super::integrity::{IntegrityKey, Manifest, Position, STORE_VERSION, Unreadable};
use super::frame::{MAX_FRAME, Next, Search, Verified, search};

const MAGIC: [u8; 4] = *b"MVJL";
const NO_BEGINNING: &str = "it does not begin as its name says";
pub(super) const HEADER: usize = MAGIC.len() + Manifest::LENGTH;

/// A segment on the disk.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Its first commit, or the one that will be.
    pub(super) first: u64,
    pub(super) path: PathBuf,
    pub(super) length: u64,
}

impl Segment {
    /// Every file of `directory` with the name of a segment, oldest first; none if there is no
    /// directory.
    pub(super) fn list(directory: &Path) -> Result<Vec<Self>, Error> {
        let list = || -> io::Result<Vec<Self>> {
            let entries = match fs::read_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let mut segments = Vec::new();
            for entry in entries {
                let entry = entry?;
                if let Some(first) = entry.file_name().to_str().and_then(first_of_name) {
                    let length = entry.metadata()?.len();
                    segments.push(Self { first, path: entry.path(), length });
                }
            }
            segments.sort_by_key(|segment| segment.first);
            Ok(segments)
        };
        list().map_err(Error::io(format!("read {}", directory.display())))
    }

    /// Makes the segment behind the commit of `start`, durably, and opens it for frames.
    pub(super) fn create(
        directory: &Path,
        key: &IntegrityKey,
        start: &Manifest,
    ) -> Result<(Self, File), Error> {
        let first = start.state.number.wrapping_add(1);
        let path = directory.join(name(first));
        let header = encode_header(&start.encode(key)?);
        let create = || -> io::Result<File> {
            let mut options = OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all_at(&header, 0)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = create().map_err(Error::io(format!("write {}", path.display())))?;
        sync_directory(directory)?;
        Ok((Self { first, path, length: header.len() as u64 }, file))
    }

    /// Reads all of its bytes into `buffer`; false if there are more than a segment can have.
    pub(super) fn read(&self, buffer: &mut Vec<u8>) -> Result<bool, Error> {
        buffer.clear();
        let longest = (HEADER + MAX_FRAME) as u64;
        let mut read = || -> io::Result<bool> {
            let file = File::open(&self.path)?;
            let length = file.metadata()?.len();
            if length > longest {
                return Ok(false);
            }
            // In one allocation.
            buffer.reserve_exact(usize::try_from(length).unwrap_or(0));
            file.take(length).read_to_end(buffer)?;
            Ok(true)
        };
        read().map_err(Error::io(format!("read {}", self.path.display())))
    }

    /// The manifest that it begins with; `None` if that is not authentic, or of another segment.
    pub(super) fn start(&self, key: &IntegrityKey) -> Result<Option<Manifest>, Error> {
        let mut header = Vec::with_capacity(HEADER);
        File::open(&self.path)
            .and_then(|file| file.take(HEADER as u64).read_to_end(&mut header))
            .map_err(Error::io(format!("read {}", self.path.display())))?;
        decode_header(&header, key, self.first)
    }
}

fn name(first: u64) -> String {
    format!("{first:016x}.log")
}

fn first_of_name(text: &str) -> Option<u64> {
    let first = u64::from_str_radix(text.strip_suffix(".log")?, 16).ok()?;
    // Else two names could be of one segment.
    (text == name(first)).then_some(first)
}

pub(super) fn encode_header(manifest: &[u8]) -> Vec<u8> {
    [&MAGIC, manifest].concat()
}

/// The manifest at the beginning of the segment whose first commit is `first`.
pub(super) fn decode_header(
    bytes: &[u8],
    key: &IntegrityKey,
    first: u64,
) -> Result<Option<Manifest>, Error> {
    let Some(manifest) = bytes.get(..HEADER).and_then(|bytes| bytes.strip_prefix(&MAGIC)) else {
        return Ok(None);
    };
    match Manifest::decode(key, manifest) {
        Ok(manifest) => {
            let is_before = manifest.state.number.checked_add(1) == Some(first);
            Ok(is_before.then_some(manifest))
        }
        Err(Unreadable::TooNew(found)) => Err(Error::TooNew { found, supported: STORE_VERSION }),
        Err(Unreadable::Altered) => Ok(None),
    }
}

/// What is in a segment.
#[derive(Debug)]
pub(super) struct Scan {
    /// What it begins with, if that is authentic.
    pub(super) start: Option<Manifest>,
    /// The first place where something else should be, though there are frames after it, and the
    /// commit before it.
    pub(super) broken: Option<Broken>,
    /// The last of its runs of frames without a break; empty behind an authentic beginning without
    /// frames.
    pub(super) run: Option<Run>,
    /// What is at its end and no frame.
    pub(super) tail: Option<Tail>,
}

/// Bytes to the end that no frame was found in.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) offset: usize,
    pub(super) reason: &'static str,
    /// Whether there is none for certain.
    pub(super) has_no_frame: bool,
}

impl Scan {
    /// Of a segment of which only the beginning was read.
    pub(super) fn of_beginning(start: Option<Manifest>) -> Self {
        let run =
            start.map(|start| Run { offset: HEADER, before: start.position(), newest: start });
        let tail = Tail { offset: 0, reason: NO_BEGINNING, has_no_frame: false };
        let tail = start.is_none().then_some(tail);
        Self { start, broken: None, run, tail }
    }
}

#[derive(Debug)]
pub(super) struct Broken {
    pub(super) offset: usize,
    pub(super) after: u64,
    pub(super) reason: &'static str,
}

/// Frames that follow each other.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Where the first begins.
    pub(super) offset: usize,
    /// The commit before the first.
    pub(super) before: Position,
    /// What the last one made.
    pub(super) newest: Manifest,
}

/// Verifies every frame in `bytes`, the segment whose first commit is `first`.
///
/// # Errors
///
/// [`Error::TooNew`] only.
pub(super) fn scan(bytes: &[u8], key: &IntegrityKey, first: u64) -> Result<Scan, Error> {
    let start = decode_header(bytes, key, first)?;
    let (mut broken, mut tail) = (None, None);
    // Where the run begins, the commit before it, and its last frame.
    let mut run = start.map(|start| (HEADER, start.position(), None));
    let mut offset = if start.is_some() { HEADER } else { 0 };
    let mut position = start.map(|start| start.position());
    let mut budget = 4 * bytes.len() + (1 << 16);
    loop {
        let mut reason = NO_BEGINNING;
        if let Some(before) = position {
            match Verified::read(&bytes[offset..], key, &before) {
                Next::Frame(frame) => {
                    offset += frame.length();
                    position = Some(frame.position);
                    run = run.map(|(at, before, _)| (at, before, Some(frame)));
                    continue;
                }
                Next::End => break,
                Next::Broken(why) => reason = why,
            }
        }
        let after = position.map_or(first.saturating_sub(1), |position| position.number);
        match search(&bytes[offset..], key, after.saturating_add(1), &mut budget) {
            Search::Found(at, before) => {
                broken.get_or_insert(Broken { offset, after, reason });
                offset += at;
                position = Some(before);
                run = Some((offset, before, None));
            }
            found @ (Search::None | Search::GaveUp) => {
                let has_no_frame = matches!(found, Search::None);
                tail = Some(Tail { offset, reason, has_no_frame });
                break;
            }
        }
    }
    let run = run.map(|(offset, before, last)| {
        let newest = last.map(|frame| frame.manifest(key)).transpose()?;
        Ok(newest.or(start).map(|newest| Run { offset, before, newest }))
    });
    Ok(Scan { start, broken, run: run.transpose()?.flatten(), tail })
}
