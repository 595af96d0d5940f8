//! Header and keyring are files beside the store, and the store says which ones belong to it.
//!
//! ```text
//! the store says   {now} ──► {now, next} ─────────────────► {next}
//!                          commit        file is replaced   commit, with whatever else is due
//! ```
//!
//! Each file is genuine or does not open; that it is also the newest one, its keys cannot tell. The
//! store can: it has a number that only grows, and what it says of the two files is a part of it.
//! A crash between two steps leaves a file that the store still names. An opening ends with one.
//!
//! Protects against: an older header, an older keyring or both, put back beside the store; an older
//! store put back beside them. Does not protect against an older copy of the whole directory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use super::{Error, header, keyring};
use crate::store::{self, Batch, DataDir, LargeBatch, Store, Tree};

/// SHA-256 of a whole file.
type Digest = [u8; DIGEST_LENGTH];
const DIGEST_LENGTH: usize = 32;

/// A file that a store names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part {
    Header,
    Keyring,
}

/// What a store says of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It belongs to the store.
    Present,
    /// Another one does.
    Other,
    /// Nothing yet.
    Unknown,
}

/// An open store, and the files that belong to it.
pub(super) struct Witness {
    store: Arc<dyn Store>,
    directory: Arc<DataDir>,
    /// Held while a file is replaced, and while the store is told.
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    header: File,
    keyring: File,
}

/// A file as far as it is known.
#[derive(Clone, Copy, Default)]
struct File {
    /// What is on the disk. `None` until it was checked, and after a replacement that failed.
    now: Option<Digest>,
    /// Whether the store may name another one as well, or not this one yet.
    is_open: bool,
}

impl Part {
    const ALL: [Self; 2] = [Self::Header, Self::Keyring];

    /// The file's name, which is also the store's key.
    fn name(self) -> &'static str {
        match self {
            Self::Header => DataDir::HEADER,
            Self::Keyring => DataDir::KEYRING,
        }
    }

    fn max_length(self) -> u64 {
        match self {
            Self::Header => header::MAX_LENGTH,
            Self::Keyring => keyring::MAX_LENGTH,
        }
    }

    /// That another file belongs to the store.
    pub(super) fn outdated(self) -> Error {
        match self {
            Self::Header => Error::HeaderOutdated,
            Self::Keyring => Error::KeyringOutdated,
        }
    }
}

impl Witness {
    pub(super) fn new(store: Arc<dyn Store>, directory: Arc<DataDir>) -> Self {
        Self { store, directory, files: Mutex::default() }
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Whether `bytes`, which is what is on the disk as `part`, belong to the store.
    pub(super) fn check(&self, part: Part, bytes: &[u8]) -> Result<Verdict, Error> {
        let mut files = self.files();
        let digest = digest(bytes);
        if let Some(now) = files.file(part).now {
            return Ok(if now == digest { Verdict::Present } else { Verdict::Other });
        }
        let named = self.named(part)?;
        let verdict = Verdict::of(&named, digest);
        if verdict == Verdict::Present {
            *files.file(part) = File { now: Some(digest), is_open: named.len() > 1 };
        }
        Ok(verdict)
    }

    /// Takes `bytes`, which is what is on the disk as `part`, for what belongs to the store. It is
    /// told so with the next commit.
    pub(super) fn accept(&self, part: Part, bytes: &[u8]) {
        *self.files().file(part) = File { now: Some(digest(bytes)), is_open: true };
    }

    /// Replaces the file `part` by `bytes`. One commit, and a file. Both the former file and this
    /// one belong to the store until [`Self::apply`] or [`Self::settle`].
    ///
    /// # Errors
    ///
    /// [`Error::HeaderOutdated`], [`Error::KeyringOutdated`] when, after an earlier failure, neither
    /// of the files that it could have left is there. [`Error::Store`]: the former file is there, or
    /// this one.
    pub(super) fn replace(&self, part: Part, bytes: &[u8]) -> Result<(), Error> {
        let mut files = self.files();
        let now = match files.file(part).now {
            Some(now) => now,
            None => self.on_disk(part)?,
        };
        let next = digest(bytes);
        let mut batch = Batch::default();
        let others = Part::ALL.into_iter().filter(|other| *other != part);
        let closed = files.close(others, &mut batch);
        batch.put(Tree::Meta, part.name(), [now, next].concat());
        self.store.apply(batch)?;
        files.closed(&closed);
        // Which of the two it is after a failure, the disk has to say.
        *files.file(part) = File { now: None, is_open: true };
        self.directory.write_atomically(part.name(), bytes)?;
        files.file(part).now = Some(next);
        Ok(())
    }

    /// Applies `batch`, and with it what the store is yet to be told of the files. Afterwards it
    /// names one of each.
    pub(super) fn apply(&self, mut batch: Batch) -> Result<(), Error> {
        let mut files = self.files();
        let closed = files.close(Part::ALL, &mut batch);
        if closed.is_empty() {
            // Beside whoever else commits.
            drop(files);
            return if batch.is_empty() { Ok(()) } else { Ok(self.store.apply(batch)?) };
        }
        self.store.apply(batch)?;
        files.closed(&closed);
        Ok(())
    }

    /// The same for a batch that waits in a file.
    pub(super) fn apply_large(&self, mut batch: LargeBatch) -> Result<(), Error> {
        let mut files = self.files();
        let mut own = Batch::default();
        let closed = files.close(Part::ALL, &mut own);
        batch.append(&own)?;
        self.store.apply_large(batch)?;
        files.closed(&closed);
        Ok(())
    }

    /// Tells the store what it is yet to be told; no commit if there is nothing.
    pub(super) fn settle(&self) -> Result<(), Error> {
        self.apply(Batch::default())
    }

    /// The digests that the store names `part` by: none, one, or two.
    fn named(&self, part: Part) -> Result<Vec<Digest>, Error> {
        Ok(digests(self.store.get(Tree::Meta, part.name().as_bytes())?))
    }

    fn on_disk(&self, part: Part) -> Result<Digest, Error> {
        let bytes = self.directory.read(part.name(), part.max_length())?;
        let digest = digest(&bytes.ok_or_else(|| part.outdated())?);
        if self.named(part)?.contains(&digest) { Ok(digest) } else { Err(part.outdated()) }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // Whole after any panic: it changes by assignment.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    fn file(&mut self, part: Part) -> &mut File {
        match part {
            Part::Header => &mut self.header,
            Part::Keyring => &mut self.keyring,
        }
    }

    /// Names in `batch` the one file of each of `parts` that more or others are named for. Answers
    /// which ones these are.
    fn close(&mut self, parts: impl IntoIterator<Item = Part>, batch: &mut Batch) -> Vec<Part> {
        let mut closed = Vec::new();
        for part in parts {
            if let File { now: Some(now), is_open: true } = *self.file(part) {
                batch.put(Tree::Meta, part.name(), now);
                closed.push(part);
            }
        }
        closed
    }

    fn closed(&mut self, parts: &[Part]) {
        for part in parts {
            self.file(*part).is_open = false;
        }
    }
}

impl Verdict {
    /// Of a store that is not open: `lookup` gives its values.
    pub(super) fn look_up(
        lookup: &store::Lookup<'_>,
        part: Part,
        bytes: &[u8],
    ) -> Result<Self, Error> {
        let named = digests(lookup(Tree::Meta, part.name().as_bytes())?);
        Ok(Self::of(&named, digest(bytes)))
    }

    fn of(named: &[Digest], digest: Digest) -> Self {
        match named {
            [] => Self::Unknown,
            named if named.contains(&digest) => Self::Present,
            _ => Self::Other,
        }
    }
}

/// Names the first files of a new vault in `batch`.
pub(super) fn name(batch: &mut Batch, header: &[u8], keyring: &[u8]) {
    batch.put(Tree::Meta, Part::Header.name(), digest(header));
    batch.put(Tree::Meta, Part::Keyring.name(), digest(keyring));
}

/// The digests in a value of the store.
fn digests(value: Option<Vec<u8>>) -> Vec<Digest> {
    let value = value.unwrap_or_default();
    let (digests, rest) = value.as_chunks();
    if rest.is_empty() { digests.to_vec() } else { Vec::new() }
}

fn digest(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}
