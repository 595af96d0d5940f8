//! A batch that waits in a file, so that a commit of any size takes little memory.
//!
//! ```text
//! put, remove --> 64 KiB --> file without a name: entry ‖ entry ...      as in a frame of the journal
//! Store::apply_large <-- read from its beginning as often as need be, 256 entries at a time
//! ```
//!
//! Until it is applied nothing of it is in the store, and a crash leaves nothing that has a name.
//! Protects against: a file that is not read back as it was written, by a keyed checksum: such a
//! batch is not applied, so that the journal never has a frame that does not make what it says. Does
//! not protect against: a kill, which leaves the file's bytes in free blocks without overwriting
//! them. What the vault puts into it is sealed.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::collections::hash_map::{DefaultHasher, RandomState};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::erase::overwrite;
use super::journal::MAX_ENTRIES;
use super::pairs::{Entry, UnreadablePairs, read_entry, write_entry};
use super::space::Space;
use super::{Batch, Change, Error, Tree, fits};

/// The file's name where it has to have one for a moment; an opening removes what is left of it.
pub(super) const NAME: &str = "batch.new";
const ALTERED: &str = "it is not what was written";
/// What is written, and read, at once. The checksum is over these pieces.
const PIECE: usize = 64 << 10;
/// Entries that are in memory at once, and changes that one transaction of the engine makes at most:
/// reads wait for it, some milliseconds.
pub(super) const STEP: usize = 256;

/// Changes that belong together, as in [`Batch`](super::Batch), of any number up to 1 GiB in all.
///
/// Each key may be changed once. Best the keys of each tree come in ascending order: then about
/// 100 KiB are in memory, else up to 20 bytes more for each change, and it is applied in half the
/// time. Dropping it leaves nothing.
pub struct LargeBatch {
    spool: Spool,
    /// Entries, and parts of them, that are not in the file yet.
    buffer: Vec<u8>,
    space: Space,
    /// The greatest key of each of [`Tree::ALL`].
    greatest: [Option<Vec<u8>>; Tree::ALL.len()],
    /// Keyed hashes of all keys, once one came that was not the greatest of its tree. Where two keys
    /// have the same one, of 200,000 once in 10^9 times, the second is refused though it is another.
    keys: Option<HashSet<u64>>,
    /// A write failed: the file lacks a part.
    has_failed: bool,
}

impl LargeBatch {
    /// An empty one, whose file is in `directory`.
    pub(super) fn new(directory: &Path) -> Result<Self, Error> {
        let action = Error::io(format!("make a file for a batch in {}", directory.display()));
        let hashing = RandomState::new();
        let spool = Spool {
            file: nameless_file(directory).map_err(action)?,
            directory: directory.to_owned(),
            length: 0,
            changes: 0,
            checksum: hashing.build_hasher(),
            hashing,
            #[cfg(test)]
            faults: tests::Faults::default(),
        };
        Ok(Self {
            spool,
            buffer: Vec::with_capacity(2 * PIECE),
            space: Space::new(directory, 0),
            greatest: [const { None }; Tree::ALL.len()],
            keys: None,
            has_failed: false,
        })
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`], [`Error::Repeated`]: the batch is as it was. [`Error::Full`] when
    /// applying it would take more room than writes may have, and [`Error::Io`]: it takes nothing
    /// more then, and cannot be applied ([`Error::Unwritten`]).
    pub fn put(&mut self, tree: Tree, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.change(tree, key, Some(value))
    }

    /// Removes `key` if it is there.
    ///
    /// # Errors
    ///
    /// As [`Self::put`].
    pub fn remove(&mut self, tree: Tree, key: &[u8]) -> Result<(), Error> {
        self.change(tree, key, None)
    }

    /// Adds the changes of `batch`, in the order of their keys.
    ///
    /// # Errors
    ///
    /// As [`Self::put`].
    pub fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut changes: Vec<Change<'_>> = batch.changes().collect();
        changes.sort_by_key(|(tree, key, _)| (*tree, *key));
        changes.into_iter().try_for_each(|(tree, key, value)| self.change(tree, key, value))
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.spool.changes == 0
    }

    fn change(&mut self, tree: Tree, key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
        if self.has_failed {
            return Err(Error::Unwritten);
        }
        let entry = (4 + key.len() + value.map_or(0, <[u8]>::len)) as u64;
        let all = self.spool.length + self.buffer.len() as u64 + entry;
        if !fits(key, value) || all > MAX_ENTRIES {
            return Err(Error::TooLarge);
        }
        if self.is_repeated(tree, key)? {
            return Err(Error::Repeated);
        }
        write_entry(&mut self.buffer, tree, key, value).map_err(|_| Error::TooLarge)?;
        self.spool.changes += 1;
        while self.buffer.len() >= PIECE {
            self.write(PIECE)?;
        }
        Ok(())
    }

    /// Whether `key` is changed already; if not, it counts as changed from now on.
    fn is_repeated(&mut self, tree: Tree, key: &[u8]) -> Result<bool, Error> {
        let greatest = &mut self.greatest[tree as usize];
        let is_greatest = greatest.as_deref().is_none_or(|greatest| greatest < key);
        if is_greatest {
            let greatest = greatest.get_or_insert_default();
            greatest.clear();
            greatest.extend_from_slice(key);
            if self.keys.is_none() {
                return Ok(false);
            }
        }
        let hash = self.spool.hash(tree, key);
        let keys = if let Some(keys) = &mut self.keys {
            keys
        } else {
            let read = self.spool.keys(&self.buffer);
            self.has_failed = read.is_err();
            self.keys.insert(read?)
        };
        Ok(!keys.insert(hash))
    }

    /// Writes the first `length` bytes of the buffer.
    fn write(&mut self, length: usize) -> Result<(), Error> {
        let (piece, rest) = self.buffer.split_at(length);
        // What is in the file already is not free any more.
        let room = self.space.admit(self.spool.length + length as u64);
        let written = room.and_then(|()| self.spool.append(piece));
        self.has_failed = written.is_err();
        written?;
        let left = rest.len();
        self.buffer.copy_within(length.., 0);
        self.buffer.truncate(left);
        Ok(())
    }

    /// What there is to apply, all of it in the file.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritten`]; [`Error::Full`] and [`Error::Io`].
    pub(super) fn finish(mut self) -> Result<Spool, Error> {
        if self.has_failed {
            return Err(Error::Unwritten);
        }
        if !self.buffer.is_empty() {
            self.write(self.buffer.len())?;
        }
        Ok(self.spool)
    }
}

impl fmt::Debug for LargeBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LargeBatch({} changes)", self.spool.changes)
    }
}

/// The changes of a [`LargeBatch`] that is complete. Dropping it overwrites the file.
pub(super) struct Spool {
    /// Written and read at offsets: its own position stays at the beginning.
    file: File,
    /// Where it is, for those who read of a failure.
    directory: PathBuf,
    length: u64,
    changes: u64,
    hashing: RandomState,
    /// Of everything that was written.
    checksum: DefaultHasher,
    #[cfg(test)]
    faults: tests::Faults,
}

impl Spool {
    /// Bytes of all entries.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The entries from the first on, as bytes.
    pub(super) fn pieces(&self) -> Pieces<'_> {
        #[cfg(test)]
        self.faults.begin_pass();
        Pieces { spool: self, piece: Vec::new(), offset: 0, checksum: self.hashing.build_hasher() }
    }

    /// The entries from the first on, so many at a time that they fit in memory.
    pub(super) fn steps(&self) -> Steps<'_> {
        Steps { reader: PieceReader { pieces: self.pieces(), offset: 0 }, left: self.changes }
    }

    fn hash(&self, tree: Tree, key: &[u8]) -> u64 {
        self.hashing.hash_one((tree, key))
    }

    /// The hashes of all keys, of which the last entries are in `buffer` and not in the file.
    fn keys(&self, buffer: &[u8]) -> Result<HashSet<u64>, Error> {
        let mut reader = PieceReader { pieces: self.pieces(), offset: 0 }.chain(buffer);
        let entries = (0..self.changes).map(|_| self.read_entry(&mut reader));
        entries.map(|entry| entry.map(|entry| self.hash(entry.tree, &entry.key))).collect()
    }

    fn read_entry(&self, reader: &mut impl Read) -> Result<Entry, Error> {
        let error = match read_entry(reader) {
            Ok(Some(entry)) => return Ok(entry),
            Err(UnreadablePairs::Io(error)) => error,
            Ok(None) | Err(_) => io::Error::new(io::ErrorKind::InvalidData, ALTERED),
        };
        Err(self.unreadable(error))
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), Error> {
        let action = Error::io(format!("write a batch in {}", self.directory.display()));
        self.file.write_all_at(piece, self.length).map_err(action)?;
        self.checksum.write(piece);
        self.length += piece.len() as u64;
        Ok(())
    }

    fn unreadable(&self, error: io::Error) -> Error {
        Error::io(format!("read back a batch in {}", self.directory.display()))(error)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = overwrite(&mut self.file) {
            let directory = self.directory.display();
            tracing::warn!(%directory, %error, "the file of a batch was not overwritten");
        }
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spool({} changes)", self.changes)
    }
}

/// The bytes of a [`Spool`] in order. The last piece comes only if all of them are what was written.
pub(super) struct Pieces<'a> {
    spool: &'a Spool,
    piece: Vec<u8>,
    /// Behind the piece.
    offset: u64,
    checksum: DefaultHasher,
}

impl Pieces<'_> {
    /// The next piece; empty at the end.
    pub(super) fn next(&mut self) -> Result<&[u8], Error> {
        match self.read() {
            Ok(()) => Ok(&self.piece),
            Err(error) => Err(self.spool.unreadable(error)),
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let left = self.spool.length - self.offset;
        self.piece.resize(usize::try_from(left).map_or(PIECE, |left| left.min(PIECE)), 0);
        if left == 0 {
            return Ok(());
        }
        #[cfg(test)]
        self.spool.faults.check(self.offset)?;
        self.spool.file.read_exact_at(&mut self.piece, self.offset)?;
        self.offset += self.piece.len() as u64;
        self.checksum.write(&self.piece);
        let is_whole = self.offset < self.spool.length
            || self.checksum.finish() == self.spool.checksum.finish();
        if is_whole { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, ALTERED)) }
    }
}

struct PieceReader<'a> {
    pieces: Pieces<'a>,
    /// What of the piece was read.
    offset: usize,
}

impl Read for PieceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.offset == self.pieces.piece.len() {
            self.pieces.read()?;
            self.offset = 0;
        }
        let mut rest = &self.pieces.piece[self.offset..];
        let count = rest.read(buffer)?;
        self.offset += count;
        Ok(count)
    }
}

/// The entries of a [`Spool`], in steps of 256. The last step comes only if all of them are what was
/// written.
pub(super) struct Steps<'a> {
    reader: PieceReader<'a>,
    left: u64,
}

/// Some changes of a commit, in their order.
pub(super) struct Step {
    pub(super) entries: Vec<Entry>,
    pub(super) is_last: bool,
}

impl Step {
    pub(super) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.entries.iter().map(Entry::change)
    }
}

impl Iterator for Steps<'_> {
    type Item = Result<Step, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let count = usize::try_from(self.left).map_or(STEP, |left| left.min(STEP));
        self.left -= count as u64;
        let spool = self.reader.pieces.spool;
        let entries: Result<Vec<Entry>, Error> =
            (0..count).map(|_| spool.read_entry(&mut self.reader)).collect();
        let is_last = self.left == 0;
        if entries.is_err() {
            self.left = 0;
        }
        Some(entries.map(|entries| Step { entries, is_last }))
    }
}

/// A file in `directory`, for its owner only, that is gone when it is closed, by a crash too.
pub(super) fn nameless_file(directory: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, Mode, OFlags, openat};
        use rustix::io::Errno;
        // Exclusive: no name can be given to it later.
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
        match openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => return Ok(file.into()),
            // The file system, or an old kernel, has no such files.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    named_and_removed(&directory.join(NAME))
}

/// The same where a file needs a name; a crash may leave it, empty.
fn named_and_removed(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
    fs::remove_file(path)?;
    Ok(file)
}
