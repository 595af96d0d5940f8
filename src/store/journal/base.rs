//! The pairs that a journal's frames begin behind.
//!
//! It is a stream of pairs, each once, whose manifest is that of the commit before the first frame.
//! The manifest is authentic by its own MAC, the pairs by being those it is the state of.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::super::erase::{UNSYNCED, erase_file};
use super::super::integrity::{IntegrityKey, Manifest, STORE_VERSION, State, Unreadable};
use super::super::pairs::{PairsReader, PairsWriter, UnreadablePairs};
use super::super::{Error, Pair, Tree};

pub(super) const NAME: &str = "base";
pub(super) const NEW_NAME: &str = "base.new";
const BUFFER: usize = 64 << 10;

/// The pairs that a journal's frames begin behind, read one after another.
#[derive(Debug)]
pub(in crate::store) struct Base<R = BufReader<File>> {
    reader: PairsReader<R>,
    key: IntegrityKey,
    path: PathBuf,
    manifest: Manifest,
    /// Of the pairs that were read.
    read: State,
}

impl Base {
    /// Opens the base in `directory`, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when its manifest is not authentic, [`Error::TooNew`], [`Error::Io`].
    pub(super) fn open(directory: &Path, key: &IntegrityKey) -> Result<Option<Self>, Error> {
        let path = directory.join(NAME);
        match File::open(&path) {
            Ok(file) => Self::read(BufReader::with_capacity(BUFFER, file), &path, key).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { action: format!("read {}", path.display()), source }),
        }
    }
}

impl<R: Read + Seek> Base<R> {
    /// Begins to read the base that `reader` has, whose manifest is at its end.
    pub(in crate::store) fn read(
        mut reader: R,
        path: &Path,
        key: &IntegrityKey,
    ) -> Result<Self, Error> {
        let mut end = || -> io::Result<Option<[u8; Manifest::LENGTH]>> {
            let mut manifest = [0; Manifest::LENGTH];
            let length = reader.seek(SeekFrom::End(0))?;
            let Some(at) = length.checked_sub(manifest.len() as u64) else { return Ok(None) };
            reader.seek(SeekFrom::Start(at))?;
            reader.read_exact(&mut manifest)?;
            reader.rewind()?;
            Ok(Some(manifest))
        };
        let manifest = end().map_err(Error::io(format!("read {}", path.display())))?;
        let manifest = manifest.map_or(Err(Unreadable::Altered), |it| Manifest::decode(key, &it));
        let manifest = manifest.map_err(|unreadable| match unreadable {
            Unreadable::TooNew(found) => Error::TooNew { found, supported: STORE_VERSION },
            Unreadable::Altered => damaged(path, "its manifest was altered, or is missing"),
        })?;
        let reader = PairsReader::new(reader).map_err(|error| unreadable(path, error))?;
        let (path, key) = (path.to_owned(), key.clone());
        Ok(Self { reader, key, path, manifest, read: State::default() })
    }

    /// The next pair; none at the end, and only then it is certain that all those before are what
    /// [`Base::manifest`] is the manifest of.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], after which there is nothing more to be read; [`Error::Io`].
    pub(in crate::store) fn next(&mut self) -> Result<Option<(Tree, Pair)>, Error> {
        let entry = self.reader.next().map_err(|error| unreadable(&self.path, error))?;
        if let Some(entry) = entry {
            let Some(value) = entry.value else {
                return Err(damaged(&self.path, "it removes a pair"));
            };
            self.read.add(self.key.element(entry.tree, &entry.key, &value));
            return Ok(Some((entry.tree, (entry.key, value))));
        }
        let written = self.reader.manifest().map(|manifest| Manifest::decode(&self.key, manifest));
        if written != Some(Ok(self.manifest)) || !self.read.has_pairs_of(&self.manifest.state) {
            return Err(damaged(&self.path, "its pairs are not those of its manifest"));
        }
        Ok(None)
    }

    /// The commit that it is the state of. Authentic before any pair is read.
    pub(in crate::store) fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// Writes the base of `pairs` beside the one there is, durably, for [`super::Journal`] to put in
/// place; returns its length.
///
/// # Errors
///
/// [`Error::Damaged`] when `pairs` are not those that `manifest` is the manifest of, each once. After
/// any error nothing is left.
pub(super) fn write_new(
    directory: &Path,
    key: &IntegrityKey,
    manifest: &Manifest,
    pairs: impl IntoIterator<Item = Result<(Tree, Pair), Error>>,
) -> Result<u64, Error> {
    let path = directory.join(NEW_NAME);
    let written = write(&path, key, manifest, pairs);
    if written.is_err() {
        // What is left is erased at the next opening.
        drop(erase_file(&path));
    }
    written
}

fn write(
    path: &Path,
    key: &IntegrityKey,
    manifest: &Manifest,
    pairs: impl IntoIterator<Item = Result<(Tree, Pair), Error>>,
) -> Result<u64, Error> {
    let io = || Error::io(format!("write {}", path.display()));
    erase_file(path).map_err(io())?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path).map_err(io())?;
    let file = BufWriter::with_capacity(BUFFER, Paced { file, unsynced: 0 });
    let mut writer = PairsWriter::new(file).map_err(io())?;
    let mut state = State::default();
    for pair in pairs {
        let (tree, (pair_key, value)) = pair?;
        writer.put(tree, &pair_key, &value).map_err(io())?;
        state.add(key.element(tree, &pair_key, &value));
    }
    if !state.has_pairs_of(&manifest.state) {
        return Err(damaged(path, "the pairs for it are not those of the manifest"));
    }
    let mut writer = writer.finish(&manifest.encode(key)?).map_err(io())?;
    writer.flush().map_err(io())?;
    let file = &writer.get_ref().file;
    file.sync_all().and_then(|()| file.metadata()).map(|it| it.len()).map_err(io())
}

/// A file that is on the disk but for its last 4 MiB.
struct Paced {
    file: File,
    unsynced: u64,
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.unsynced >= UNSYNCED {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        let written = self.file.write(bytes)?;
        self.unsynced += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn unreadable(path: &Path, error: UnreadablePairs) -> Error {
    match error {
        UnreadablePairs::Damaged(reason) => damaged(path, reason),
        UnreadablePairs::TooNew { .. } => damaged(path, "its pairs have another layout"),
        UnreadablePairs::Io(source) => {
            Error::Io { action: format!("read {}", path.display()), source }
        }
    }
}

fn damaged(path: &Path, reason: &str) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let directory = path.parent().unwrap_or(path).display().to_string();
    Error::Damaged { path: directory, reason: format!("{name}: {reason}") }
}
