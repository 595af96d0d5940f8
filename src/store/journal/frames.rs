//! The frames of a journal, read in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::super::integrity::{IntegrityKey, MAC_LENGTH, Manifest, Position};
use super::super::{Batch, Error};
use super::frame::{Next, Verified};
use super::segment::{HEADER, Segment, decode_header};

/// One commit, verified.
#[derive(Debug)]
pub(in crate::store) struct Frame {
    pub(in crate::store) operations: Batch,
    /// What it made.
    pub(in crate::store) manifest: Manifest,
}

/// Frames in order, one segment in memory at a time. After an error there are no more.
#[derive(Debug)]
pub(in crate::store) struct Frames {
    directory: PathBuf,
    key: IntegrityKey,
    /// Those to come.
    segments: VecDeque<Segment>,
    /// The segment that is read, and what of it was.
    bytes: Vec<u8>,
    offset: usize,
    position: Position,
    /// Commits that are passed on, without the first.
    wanted: Range<u64>,
}

/// A place between two frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) offset: usize,
    /// The commit before it.
    pub(super) before: Position,
}

impl Frames {
    pub(super) fn none(directory: &Path, key: &IntegrityKey) -> Self {
        Self {
            directory: directory.to_owned(),
            key: key.clone(),
            segments: VecDeque::new(),
            bytes: Vec::new(),
            offset: 0,
            position: Position { number: 0, chain: [0; MAC_LENGTH] },
            wanted: 0..0,
        }
    }

    /// The frames of `segments` from `start` on, or else from the beginning of the first: those after
    /// the first commit of `wanted`, up to and with its last.
    pub(super) fn new(
        directory: &Path,
        key: &IntegrityKey,
        segments: &[Segment],
        start: Option<Start>,
        wanted: Range<u64>,
    ) -> Result<Self, Error> {
        let mut frames = Self::none(directory, key);
        frames.segments = segments.to_vec().into();
        frames.wanted = wanted;
        let found = frames.load()?;
        match start {
            Some(Start { offset, before }) => (frames.offset, frames.position) = (offset, before),
            None => {
                frames.position = found.ok_or_else(|| frames.damaged("a segment was altered"))?;
            }
        }
        Ok(frames)
    }

    /// Reads the next segment; the commit before its first, if its beginning is authentic.
    fn load(&mut self) -> Result<Option<Position>, Error> {
        let Some(segment) = self.segments.pop_front() else {
            return Err(self.damaged("a segment is missing"));
        };
        if !segment.read(&mut self.bytes)? {
            return Err(self.damaged("a segment is larger than it can be"));
        }
        self.offset = HEADER;
        let start = decode_header(&self.bytes, &self.key, segment.first)?;
        Ok(start.map(|start| start.position()))
    }

    fn read_next(&mut self) -> Result<Option<Frame>, Error> {
        while self.position.number < self.wanted.end {
            let rest = self.bytes.get(self.offset..).unwrap_or_default();
            match Verified::read(rest, &self.key, &self.position) {
                Next::Frame(frame) => {
                    self.offset += frame.length();
                    self.position = frame.position;
                    if self.position.number > self.wanted.start {
                        let manifest = frame.manifest(&self.key)?;
                        let operations = frame.operations();
                        let operations = operations
                            .ok_or_else(|| self.damaged("a frame is not one, and yet authentic"))?;
                        return Ok(Some(Frame { operations, manifest }));
                    }
                }
                Next::End => {
                    if self.load()? != Some(self.position) {
                        return Err(self.damaged("a segment does not follow from the one before"));
                    }
                }
                Next::Broken(reason) => return Err(self.damaged(reason)),
            }
        }
        Ok(None)
    }

    fn damaged(&self, reason: &str) -> Error {
        let path = self.directory.display().to_string();
        let number = self.position.number;
        Error::Damaged { path, reason: format!("{reason}, after commit {number}") }
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read_next().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.wanted.end = 0;
        }
        next
    }
}
