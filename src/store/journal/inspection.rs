//! What a journal turns out to be when it is read: to be gone on with, repaired, or replaced.
//!
//! ```text
//! inspect -> newest, torn, damage -> cut_tail -> resume -> Journal
//!                                 -> frames, base: to bring a store to the newest commit
//!                                 -> Journal::restart: a new one from the store
//! ```
//!
//! A tail is *torn* if it is the end of the newest segment and has no frame in it: so a crash leaves
//! the frame that it was writing. It is never more than that one frame, since the next is written
//! only once it is on the disk. Whether the last frame, acknowledged, was altered looks the same from
//! here: what else has seen its number tells. Everything else that is not as it was written is
//! *damage*. Frames behind damage are found by their MACs: what is missing is then known.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::super::Error;
use super::super::directory::sync_directory;
use super::super::erase::erase_file;
use super::super::integrity::{IntegrityKey, Manifest};
use super::base::{self, Base};
use super::frames::{Frames, Start};
use super::segment::{HEADER, Scan, Segment, scan};
use super::{BaseFile, Journal, Origin};

/// What is in a journal.
#[derive(Debug)]
pub(in crate::store) struct Inspection {
    /// The newest commit that is there, also behind damage; in a journal without frames what it
    /// begins behind. `None` if nothing in it is authentic, also if there is no journal.
    pub(in crate::store) newest: Option<Manifest>,
    /// Every frame after this number, up to the newest, can be read: a store at this commit or a
    /// later one can be brought to the newest.
    pub(in crate::store) unbroken_after: u64,
    /// Whether it alone makes the store: base, or beginning at the empty store, and every frame.
    pub(in crate::store) is_complete: bool,
    /// What the last write left that did not come to its end.
    pub(in crate::store) torn: Option<Torn>,
    /// The first place that is not as it was written.
    pub(in crate::store) damage: Option<Damage>,
    /// The size of its files.
    pub(in crate::store) bytes: u64,
    directory: PathBuf,
    key: IntegrityKey,
    /// Without what an interrupted rewriting left.
    segments: Vec<Segment>,
    base: Option<BaseFile>,
    begins_empty: bool,
    /// Where the frames after `unbroken_after` begin: the index of the segment, and the place in it.
    run: Option<(usize, Start)>,
}

/// The end of the newest segment, from `offset` on: no frame, and no frame is behind it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::store) struct Torn {
    pub(in crate::store) path: PathBuf,
    pub(in crate::store) offset: u64,
    /// The commit that was being written: if another witness has seen it, this is damage.
    pub(in crate::store) number: u64,
}

/// A place that is not as it was written, or is missing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::store) struct Damage {
    pub(in crate::store) path: PathBuf,
    pub(in crate::store) offset: u64,
    /// The commits after this one are affected.
    pub(in crate::store) after: u64,
    /// In few words.
    pub(in crate::store) reason: String,
}

impl Inspection {
    /// Reads the journal in `directory`, all of it if it has at most `whole` bytes; see
    /// [`Journal::inspect`].
    pub(super) fn make(
        directory: &Path,
        key: &IntegrityKey,
        after: u64,
        whole: u64,
    ) -> Result<Self, Error> {
        let segments = Segment::list(directory)?;
        let base_length = length(&directory.join(base::NAME))?;
        let mut inspection = Self {
            newest: None,
            unbroken_after: 0,
            is_complete: false,
            torn: None,
            damage: None,
            bytes: segments
                .iter()
                .fold(base_length, |sum, segment| sum.saturating_add(segment.length)),
            directory: directory.to_owned(),
            key: key.clone(),
            segments,
            base: None,
            begins_empty: false,
            run: None,
        };
        let reads_whole = after == 0 || inspection.bytes <= whole;
        inspection.read_base(base_length, reads_whole)?;
        let skipped = if reads_whole {
            0
        } else {
            let begun = |segment: &Segment| segment.first <= after.saturating_add(1);
            inspection.segments.partition_point(begun).saturating_sub(1)
        };
        inspection.read_segments(skipped)?;
        inspection.is_complete =
            inspection.damage.is_none() && (inspection.base.is_some() || inspection.begins_empty);
        Ok(inspection)
    }

    fn read_base(&mut self, length: u64, reads_whole: bool) -> Result<(), Error> {
        let opened = Base::open(&self.directory, &self.key).and_then(|base| {
            let Some(mut base) = base else { return Ok(None) };
            while reads_whole && base.next()?.is_some() {}
            Ok(Some(*base.manifest()))
        });
        match opened {
            Ok(Some(manifest)) => {
                // A rewriting was interrupted: they are superseded, and may be zeros already.
                self.segments.retain(|segment| segment.first > manifest.state.number);
                self.base = Some(BaseFile { number: manifest.state.number, length });
                self.newest = Some(manifest);
                self.unbroken_after = manifest.state.number;
            }
            Ok(None) => {}
            Err(Error::Damaged { reason, .. }) => {
                self.found_damage(self.directory.join(base::NAME), 0, 0, &reason);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Reads all segments, the first `skipped` only as far as their beginnings.
    fn read_segments(&mut self, skipped: usize) -> Result<(), Error> {
        let mut buffer = Vec::new();
        // The commit that the next segment begins behind, if that is known; and whether every frame
        // up to there can be read.
        let mut expected = self.newest.map(|base| base.position());
        let mut continues = true;
        for at in 0..self.segments.len() {
            let (first, path) = (self.segments[at].first, self.segments[at].path.clone());
            let is_newest = at + 1 == self.segments.len();
            let found = if at < skipped {
                Some(Scan::of_beginning(self.segments[at].start(&self.key)?))
            } else if self.segments[at].read(&mut buffer)? {
                self.segments[at].length = buffer.len() as u64;
                Some(scan(&buffer, &self.key, first)?)
            } else {
                None
            };
            let Some(found) = found else {
                self.found_damage(path, 0, first.saturating_sub(1), "it is larger than it can be");
                (expected, continues) = (None, false);
                continue;
            };
            if at == 0 {
                self.begins_empty = found.start.is_some_and(|start| start.state.is_empty());
            }
            let is_begun = self.segments[at].length > HEADER as u64 || found.start.is_some();
            if is_newest && !is_begun {
                // Made a moment before the end, and no frame was written to it.
                self.torn = Some(Torn { path, offset: 0, number: first });
                break;
            }
            if let (Some(start), Some(expected)) = (found.start, expected)
                && start.position() != expected
            {
                let reason = "it does not follow from what is before it";
                self.found_damage(path.clone(), 0, expected.number, reason);
                continues = false;
            }
            if let Some(broken) = &found.broken {
                let (offset, after) = (broken.offset as u64, broken.after);
                self.found_damage(path.clone(), offset, after, broken.reason);
                continues = false;
            }
            if let Some(run) = &found.run {
                if !continues || self.run.is_none() {
                    self.unbroken_after = run.before.number;
                    let start = Start { offset: run.offset, before: run.before };
                    self.run = Some((at, start));
                }
                if self.newest.is_none_or(|it| it.state.number <= run.newest.state.number) {
                    self.newest = Some(run.newest);
                }
            }
            continues = found.run.is_some();
            expected = found.run.filter(|_| at >= skipped).map(|run| run.newest.position());
            if let Some(tail) = found.tail {
                let after = expected.map_or(first.saturating_sub(1), |it| it.number);
                let offset = tail.offset as u64;
                if is_newest && found.start.is_some() && tail.has_no_frame {
                    self.torn = Some(Torn { path, offset, number: after.saturating_add(1) });
                } else {
                    self.found_damage(path, offset, after, tail.reason);
                    (expected, continues) = (None, false);
                }
            }
        }
        Ok(())
    }

    fn found_damage(&mut self, path: PathBuf, offset: u64, after: u64, reason: &str) {
        let reason = reason.to_owned();
        self.damage.get_or_insert(Damage { path, offset, after, reason });
    }

    /// Cuts what [`Inspection::torn`] tells, durably.
    pub(in crate::store) fn cut_tail(&mut self) -> Result<(), Error> {
        let Some(torn) = self.torn.take() else { return Ok(()) };
        if torn.offset == 0 {
            erase_file(&torn.path).map_err(Error::io(format!("erase {}", torn.path.display())))?;
            let removed = self.segments.pop().map_or(0, |segment| segment.length);
            self.bytes = self.bytes.saturating_sub(removed);
            return sync_directory(&self.directory);
        }
        let removed = cut(&torn.path, torn.offset)
            .map_err(Error::io(format!("cut {}", torn.path.display())))?;
        self.bytes = self.bytes.saturating_sub(removed);
        if let Some(segment) = self.segments.last_mut() {
            segment.length = torn.offset;
        }
        Ok(())
    }

    /// Opens the journal for the commit after the newest, and erases what an interrupted write left
    /// beside it.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when there is damage, or a tail that was not cut; [`Error::Io`].
    pub(in crate::store) fn resume(self) -> Result<Journal, Error> {
        if let Some(damage) = &self.damage {
            return Err(self.damaged(format!("{}: {}", damage.path.display(), damage.reason)));
        }
        if let Some(torn) = &self.torn {
            return Err(self.damaged(format!("{} has a torn end", torn.path.display())));
        }
        let Some(newest) = self.newest else {
            return Err(self.damaged("there is no journal".to_owned()));
        };
        let origin = match self.base {
            Some(base) => Origin::Base(base),
            None if self.begins_empty => Origin::Empty,
            None => Origin::Elsewhere,
        };
        Journal::resume(&self.directory, &self.key, newest, self.segments, origin)
    }

    /// The frames after commit `after`, to the newest.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when `after` is below [`Inspection::unbroken_after`]; [`Error::Io`].
    pub(in crate::store) fn frames(&self, after: u64) -> Result<Frames, Error> {
        let newest = self.newest.map_or(0, |newest| newest.state.number);
        if after < self.unbroken_after {
            let unbroken = self.unbroken_after;
            let reason = format!("the commits from {after} to {unbroken} are not in the journal");
            return Err(self.damaged(reason));
        }
        let Some((at, start)) = self.run.filter(|_| after < newest) else {
            return Ok(Frames::none(&self.directory, &self.key));
        };
        // The last segment that begins early enough, and no earlier than the run.
        let begun = |segment: &Segment| segment.first <= after.saturating_add(1);
        let last = self.segments.partition_point(begun).saturating_sub(1).max(at);
        let start = (last == at).then_some(start);
        Frames::new(&self.directory, &self.key, &self.segments[last..], start, after..newest)
    }

    /// The pairs that its frames begin behind, unless that is the empty store.
    pub(in crate::store) fn base(&self) -> Result<Option<Base>, Error> {
        Base::open(&self.directory, &self.key)
    }

    fn damaged(&self, reason: String) -> Error {
        Error::Damaged { path: self.directory.display().to_string(), reason }
    }
}

fn length(path: &Path) -> Result<u64, Error> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(Error::Io { action: format!("read {}", path.display()), source }),
    }
}

/// Cuts the file at `path` down to `length` bytes, which it has, after overwriting what goes;
/// returns how much that was.
fn cut(path: &Path, length: u64) -> io::Result<u64> {
    let file: File = OpenOptions::new().write(true).open(path)?;
    let end = file.metadata()?.len();
    let zeros = [0; 4 << 10];
    let mut at = length;
    while at < end {
        let now = usize::try_from(end - at).map_or(zeros.len(), |left| left.min(zeros.len()));
        file.write_all_at(&zeros[..now], at)?;
        at += now as u64;
    }
    file.sync_all()?;
    file.set_len(length)?;
    file.sync_all()?;
    Ok(end.saturating_sub(length))
}
