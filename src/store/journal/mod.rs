//! What was committed, in order, beside the engine: every commit is here before it is acknowledged.
//!
//! ```text
//! journal/base                  the pairs that the frames begin behind, unless from the empty store
//! journal/0000000000000001.log  segment: beginning, frame, frame, ...      one frame for one commit
//! journal/00000000000004d2.log  the next, once that has 16 MiB; named by its first commit
//!
//! append:  frame -> fdatasync
//! rewrite: new segment -> base.new -> fsync -> base -> zeros over what is before it, removed
//!          (appends go on in the new segment)
//! ```
//!
//! Each frame's MAC takes in the one before, so nothing between two frames can be altered, missing or
//! exchanged. Protects against: a kill or a power failure at any moment, with the engine's files lost
//! altogether if the journal is complete; an altered, older or missing engine. Does not protect
//! against: frames cut off at the end, which the anchor shows.
//!
//! | a crash while | leaves | the next opening |
//! |---|---|---|
//! | a frame is appended | a part of it | reports it as torn |
//! | a segment is begun | a part of its beginning | reports it as torn |
//! | a base is written | part or whole `base.new` | goes on without, erases it |
//! | it takes its place | the new base; the former, or zeros, as `base.new` | goes on from the base |
//! | the former segments are erased | some of them, or zeros | erases them |
//! | a part that a backup has is released | it, or zeros, as `discarded` | goes on, erases it |

mod base;
mod frame;
mod frames;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod inspection;
mod rewriting;
mod segment;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use super::directory::{put_in_place, sync_directory};
use super::erase::{erase_file, exchange};
use super::integrity::{IntegrityKey, MAC_LENGTH, Manifest, Position, Purpose, State, random};
use super::large::Spool;
use super::{Change, Error, Pair, Tree};
use frame::MIN_FRAME;
use segment::{HEADER, Segment};

#[cfg(fuzzing)]
pub(super) use base::Base;
pub(super) use frame::MAX_ENTRIES;
pub(super) use inspection::{Damage, Inspection};
pub(super) use rewriting::{Former, NewBase};

/// What is being erased and may not be taken for what it was.
const DISCARDED: &str = "discarded";
/// Most bytes of a segment, unless one frame alone has more.
const SEGMENT: u64 = 16 << 20;
/// A journal up to this size is read whole whenever it is inspected, which takes 0.2 s.
const READ_WHOLE: u64 = 64 << 20;
/// What is kept of the memory that a large frame took.
const BUFFER: usize = 1 << 20;

/// A journal that is open for the next commit.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    key: IntegrityKey,
    newest: Manifest,
    /// Oldest first; the last one is written.
    segments: Vec<Segment>,
    file: File,
    origin: Origin,
    /// A write failed: what is in the files is unknown.
    has_failed: bool,
    buffer: Vec<u8>,
    segment_bytes: u64,
}

/// What the first segment begins behind.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Empty,
    Base(BaseFile),
    /// A state that is not in the journal: a backup has it.
    Elsewhere,
}

#[derive(Clone, Copy, Debug)]
struct BaseFile {
    number: u64,
    length: u64,
}

impl Journal {
    /// Begins a journal in `directory` behind the state of `start`, and makes the directory if need
    /// be; whatever journal is there is erased before. Alone it rebuilds a store if `start` is the
    /// empty one; for any other, [`Journal::restart`] makes it complete.
    pub(super) fn create(
        directory: &Path,
        key: &IntegrityKey,
        start: &Manifest,
    ) -> Result<Self, Error> {
        make_directory(directory)?;
        erase(&directory.join(base::NEW_NAME))?;
        discard(directory, &directory.join(base::NAME))?;
        for segment in Segment::list(directory)? {
            discard(directory, &segment.path)?;
        }
        let origin = if start.state.is_empty() { Origin::Empty } else { Origin::Elsewhere };
        Self::begin(directory, key, start, origin)
    }

    /// The same with a base, so that it is complete: `pairs` are all that `start` is the state of,
    /// each once. The journal that is there serves until the base is in its place, and is erased
    /// then; but what it has beyond `start` is erased before.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when `pairs` are other pairs, and errors of `pairs`: the journal that was
    /// there still is. [`Error::Io`].
    pub(super) fn restart(
        directory: &Path,
        key: &IntegrityKey,
        start: &Manifest,
        pairs: impl IntoIterator<Item = Result<(Tree, Pair), Error>>,
    ) -> Result<Self, Error> {
        make_directory(directory)?;
        let length = base::write_new(directory, key, start, pairs)?;
        for segment in Segment::list(directory)? {
            if segment.first > start.state.number {
                discard(directory, &segment.path)?;
            }
        }
        let base = put_base_in_place(directory, start.state.number, length)?;
        let journal = Self::begin(directory, key, start, Origin::Base(base))?;
        erase_former(directory, start.state.number)?;
        Ok(journal)
    }

    /// Reads the journal in `directory` and changes nothing. Every frame after commit `after` is
    /// verified, and all of them, and the base, if that is 0 or the journal has at most 64 MiB.
    ///
    /// # Errors
    ///
    /// [`Error::TooNew`], [`Error::Io`]; damage is a finding.
    pub(super) fn inspect(
        directory: &Path,
        key: &IntegrityKey,
        after: u64,
    ) -> Result<Inspection, Error> {
        Inspection::make(directory, key, after, READ_WHOLE)
    }

    /// Writes the commit that makes `state` with `changes`, durably, and returns its manifest.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] and [`Error::Damaged`], when `state` is not that of the next commit, before
    /// anything is written. [`Error::Io`], after which it takes nothing more: [`Error::ReadOnly`].
    pub(super) fn append<'a>(
        &mut self,
        changes: impl Iterator<Item = Change<'a>> + Clone,
        state: &State,
        store_version: u32,
    ) -> Result<Manifest, Error> {
        self.check_next(state)?;
        let before = self.newest.position();
        let made = (state, store_version, &random()?);
        let mut buffer = std::mem::take(&mut self.buffer);
        let chain = frame::encode(&mut buffer, &self.key, &before, changes, made)?;
        let written = self.write(&buffer);
        buffer.shrink_to(BUFFER);
        self.buffer = buffer;
        self.has_failed = written.is_err();
        written?;
        self.newest = Manifest { state: *state, chain, store_version };
        Ok(self.newest)
    }

    /// The same with the changes of `spool`, which are never all in memory.
    ///
    /// # Errors
    ///
    /// As [`Self::append`]; [`Error::Io`] also when they cannot be read back.
    pub(super) fn append_large(
        &mut self,
        spool: &Spool,
        state: &State,
        store_version: u32,
    ) -> Result<Manifest, Error> {
        self.check_next(state)?;
        let before = self.newest.position();
        let mut head = Vec::with_capacity(MIN_FRAME);
        frame::encode_head(
            &mut head,
            &self.key,
            spool.length(),
            (state, store_version, &random()?),
        )?;
        let written = self.write_large(&before, &head, spool);
        self.has_failed = written.is_err();
        let chain = written?;
        self.newest = Manifest { state: *state, chain, store_version };
        Ok(self.newest)
    }

    /// Whether `state` may be that of the next commit.
    fn check_next(&self, state: &State) -> Result<(), Error> {
        if self.has_failed {
            return Err(Error::ReadOnly);
        }
        if self.newest.state.number.checked_add(1) != Some(state.number) {
            let path = self.directory.display().to_string();
            let (next, newest) = (state.number, self.newest.state.number);
            return Err(Error::Damaged { path, reason: format!("commit {next} after {newest}") });
        }
        Ok(())
    }

    /// Writes a frame that begins with `head`, durably, and returns its chain.
    fn write_large(
        &mut self,
        before: &Position,
        head: &[u8],
        spool: &Spool,
    ) -> Result<[u8; MAC_LENGTH], Error> {
        self.make_room(head.len() as u64 + spool.length() + MAC_LENGTH as u64)?;
        let mut mac = self.key.begin_mac(Purpose::Journal);
        mac.update(&before.chain);
        mac.update(head);
        let mut offset = self.segments.last().map_or(0, |segment| segment.length);
        let mut write = |bytes: &[u8]| {
            self.file.write_all_at(bytes, offset).map_err(|error| self.unwritten(error))?;
            offset += bytes.len() as u64;
            Ok::<_, Error>(())
        };
        write(head)?;
        let mut pieces = spool.pieces();
        loop {
            let piece = pieces.next()?;
            if piece.is_empty() {
                break;
            }
            mac.update(piece);
            write(piece)?;
        }
        let chain = mac.finish();
        write(&chain)?;
        self.file.sync_data().map_err(|error| self.unwritten(error))?;
        if let Some(segment) = self.segments.last_mut() {
            segment.length = offset;
        }
        Ok(chain)
    }

    /// Begins a segment if the newest is too long for a frame of so many bytes.
    fn make_room(&mut self, frame: u64) -> Result<(), Error> {
        let length = self.segments.last().map_or(0, |segment| segment.length);
        if length > HEADER as u64 && length + frame > self.segment_bytes {
            self.begin_segment()?;
        }
        Ok(())
    }

    fn begin_segment(&mut self) -> Result<(), Error> {
        let (segment, file) = Segment::create(&self.directory, &self.key, &self.newest)?;
        self.segments.push(segment);
        self.file = file;
        Ok(())
    }

    fn unwritten(&self, error: io::Error) -> Error {
        let path = self.segments.last().map_or(&self.directory, |segment| &segment.path);
        Error::io(format!("write {}", path.display()))(error)
    }

    fn write(&mut self, frame: &[u8]) -> Result<(), Error> {
        self.make_room(frame.len() as u64)?;
        let Some(segment) = self.segments.last_mut() else { return Ok(()) };
        self.file
            .write_all_at(frame, segment.length)
            .and_then(|()| self.file.sync_data())
            .map_err(Error::io(format!("write {}", segment.path.display())))?;
        segment.length += frame.len() as u64;
        Ok(())
    }

    /// Removes the base and the segments that have nothing after commit `number`. The segment that is
    /// written stays.
    pub(super) fn release(&mut self, number: u64) -> Result<(), Error> {
        if let Origin::Base(base) = self.origin
            && base.number <= number
        {
            discard(&self.directory, &self.directory.join(base::NAME))?;
            self.origin = Origin::Elsewhere;
        }
        // The oldest first, so that there is no gap at any moment.
        while let [oldest, next, ..] = &self.segments[..]
            && next.first.saturating_sub(1) <= number
        {
            discard(&self.directory, &oldest.path)?;
            self.segments.remove(0);
            self.origin = Origin::Elsewhere;
        }
        Ok(())
    }

    /// The last commit, or what the journal begins behind.
    #[cfg(test)]
    pub(super) fn newest(&self) -> &Manifest {
        &self.newest
    }

    /// Whether it alone makes the store.
    #[cfg(test)]
    pub(super) fn is_complete(&self) -> bool {
        !matches!(self.origin, Origin::Elsewhere)
    }

    /// Its size on the disk.
    pub(super) fn bytes(&self) -> u64 {
        let base = if let Origin::Base(base) = self.origin { base.length } else { 0 };
        base + self.segments.iter().map(|segment| segment.length).sum::<u64>()
    }

    /// Goes on behind `newest`, the end of `segments` or else of the base.
    fn resume(
        directory: &Path,
        key: &IntegrityKey,
        newest: Manifest,
        segments: Vec<Segment>,
        origin: Origin,
    ) -> Result<Self, Error> {
        for left in [base::NEW_NAME, DISCARDED] {
            erase(&directory.join(left))?;
        }
        let journal = if let Some(last) = segments.last() {
            let options = OpenOptions::new().write(true).open(&last.path);
            let file = options.map_err(Error::io(format!("open {}", last.path.display())))?;
            Self::new(directory, key, newest, (segments, file), origin)
        } else {
            Self::begin(directory, key, &newest, origin)?
        };
        if let Origin::Base(base) = origin {
            erase_former(directory, base.number)?;
        }
        Ok(journal)
    }

    fn begin(
        directory: &Path,
        key: &IntegrityKey,
        start: &Manifest,
        origin: Origin,
    ) -> Result<Self, Error> {
        let (segment, file) = Segment::create(directory, key, start)?;
        Ok(Self::new(directory, key, *start, (vec![segment], file), origin))
    }

    fn new(
        directory: &Path,
        key: &IntegrityKey,
        newest: Manifest,
        (segments, file): (Vec<Segment>, File),
        origin: Origin,
    ) -> Self {
        Self {
            directory: directory.to_owned(),
            key: key.clone(),
            newest,
            segments,
            file,
            origin,
            has_failed: false,
            buffer: Vec::new(),
            segment_bytes: SEGMENT,
        }
    }
}

/// Gives the base that was written for commit `number` its name. The former one is erased.
fn put_base_in_place(directory: &Path, number: u64, length: u64) -> Result<BaseFile, Error> {
    let path = directory.join(base::NAME);
    put_in_place(&directory.join(base::NEW_NAME), &path, exchange)
        .map_err(Error::io(format!("replace {}", path.display())))?;
    sync_directory(directory)?;
    Ok(BaseFile { number, length })
}

fn make_directory(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_directory),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(Error::Io { action: format!("create {}", path.display()), source }),
    }
}

/// Erases what the base of commit `number` supersedes.
fn erase_former(directory: &Path, number: u64) -> Result<(), Error> {
    for segment in Segment::list(directory)? {
        if segment.first <= number {
            erase(&segment.path)?;
        }
    }
    sync_directory(directory)
}

/// Erases the file at `path`, if there is one: after a crash it is there whole, or is nowhere.
fn discard(directory: &Path, path: &Path) -> Result<(), Error> {
    let discarded = directory.join(DISCARDED);
    erase(&discarded)?;
    match fs::rename(path, &discarded) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(Error::Io { action: format!("erase {}", path.display()), source });
        }
    }
    sync_directory(directory)?;
    erase(&discarded)?;
    sync_directory(directory)
}

fn erase(path: &Path) -> Result<(), Error> {
    erase_file(path).map(drop).map_err(Error::io(format!("erase {}", path.display())))
}
