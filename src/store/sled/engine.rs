//! The engine opened and closed, with the care that `sled` needs.
//!
//! A half-written snapshot must go before opening; opening can panic or hang on damage; the
//! configuration file is never synced; a closed engine is let go of a moment later.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use ::sled::transaction::{
    ConflictableTransactionError, TransactionError, Transactional, TransactionalTree,
};

use super::super::directory::sync_directory;
use super::super::integrity::{IntegrityKey, Manifest, State};
use super::super::large::STEP;
use super::super::{Change, Error, Pair, Tree};

const OPEN_BASE: Duration = Duration::from_mins(1);
/// Slowest disk that the time limit of an opening allows for, bytes per second.
const OPEN_RATE: u64 = 50_000_000;
/// How long a flush takes when somebody should ask for another one.
const WAKE: Duration = Duration::from_secs(1);
const RELEASE_ATTEMPTS: u32 = 5_000;
const RELEASE_PAUSE: Duration = Duration::from_millis(1);
/// In the engine's default tree: how often the store was opened, u64 big endian. A store without it
/// was never completely created, or has lost its contents.
const OPENINGS: &[u8] = b"openings";
/// Its own words are for the log.
pub(super) const PANICKED: &str = "the engine panicked";
/// Also there: which commit the trees are the state of.
const MANIFEST: &[u8] = b"manifest";

/// An open `sled` and its trees.
#[derive(Debug)]
pub(super) struct Engine {
    path: PathBuf,
    /// `None` only while it is dropped.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    database: ::sled::Db,
    /// Those of [`Tree`], then the default tree, so that one transaction spans data and manifest.
    trees: [::sled::Tree; Tree::ALL.len() + 1],
}

/// A change, and what it replaces.
pub(super) struct Difference<'a> {
    pub(super) change: Change<'a>,
    pub(super) before: Option<::sled::IVec>,
}

impl Engine {
    /// Makes a new engine at `path`, an empty directory, that counts as opened `openings` times. Its
    /// cache takes `cache` on-disk bytes; resident memory is five to twelve times that.
    pub(super) fn create(path: &Path, cache: u64, openings: u64) -> Result<Self, Error> {
        Self::start(path, open_engine(path, cache)?, openings)
    }

    /// Opens the engine at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] also when there is nothing, or nothing in it.
    pub(super) fn open(path: &Path, cache: u64) -> Result<Self, Error> {
        for name in ["db", "conf"] {
            if !path.join(name).is_file() {
                return Err(damaged(path, format!("{name} is missing")));
            }
        }
        remove_unfinished_snapshots(path)?;
        let database = open_engine(path, cache)?;
        match openings(&database)? {
            Some(count) => Self::start(path, database, count),
            None => Err(damaged(path, "it has lost its contents".to_owned())),
        }
    }

    /// Bytes of its files, as far as it knows.
    pub(super) fn size(&self) -> u64 {
        self.opened().database.size_on_disk().unwrap_or(u64::MAX)
    }

    /// The manifest, as it is stored.
    pub(super) fn manifest(&self) -> Result<Option<Vec<u8>>, Error> {
        let manifest = self.confined(|| self.opened().database.get(MANIFEST))?;
        Ok(manifest.map(|manifest| manifest.to_vec()))
    }

    /// The value of `key`.
    pub(super) fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<::sled::IVec>, Error> {
        self.confined(|| self.tree(tree).get(key))
    }

    /// The pairs whose keys begin with `prefix`.
    pub(super) fn scan(&self, tree: Tree, prefix: &[u8]) -> Result<Vec<Pair>, Error> {
        self.confined(|| self.tree(tree).scan_prefix(prefix).map(owned).collect())
    }

    /// The first `limit` pairs beyond `after`.
    pub(super) fn scan_after(
        &self,
        tree: Tree,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        self.confined(|| self.tree(tree).range::<&[u8], _>(range).take(limit).map(owned).collect())
    }

    /// Makes the `changes` of the commit between two manifests. Many are made in several steps, each
    /// all or nothing, so that reads go on between them and the engine, which keeps what a
    /// transaction replaces until its end, takes little memory: up to the last step there is the
    /// number of the commit before and what the pairs are at that moment, from which the journal
    /// completes it.
    pub(super) fn write_commit(
        &self,
        key: &IntegrityKey,
        before: &Manifest,
        changes: &[Difference<'_>],
        after: &Manifest,
    ) -> Result<(), Error> {
        let (last, earlier) = match changes.len().saturating_sub(1) / STEP * STEP {
            0 => (changes, &[][..]),
            at => (&changes[at..], &changes[..at]),
        };
        let mut partial = *before;
        for step in earlier.chunks(STEP) {
            for Difference { change: (tree, name, value), before } in step {
                if let Some(before) = before {
                    partial.state.remove(key.element(*tree, name, before));
                }
                if let Some(value) = value {
                    partial.state.add(key.element(*tree, name, value));
                }
            }
            self.write(step, &partial.encode(key)?)?;
        }
        self.write(last, &after.encode(key)?)
    }

    /// Makes `changes` and sets the manifest, all or nothing. In memory; the disk has them after
    /// [`Self::flush`].
    pub(super) fn write(&self, changes: &[Difference<'_>], manifest: &[u8]) -> Result<(), Error> {
        self.confined(|| {
            let written = self.opened().trees.transaction(|trees: &Vec<TransactionalTree>| {
                for Difference { change: (tree, key, value), .. } in changes {
                    match value {
                        Some(value) => trees[*tree as usize].insert(*key, *value)?,
                        None => trees[*tree as usize].remove(*key)?,
                    };
                }
                trees[Tree::ALL.len()].insert(MANIFEST, manifest)?;
                Ok::<_, ConflictableTransactionError<Infallible>>(())
            });
            match written {
                Ok(()) => Ok(()),
                Err(TransactionError::Abort(never)) => match never {},
                Err(TransactionError::Storage(error)) => Err(error),
            }
        })
    }

    /// Waits until everything written is on the disk.
    pub(super) fn flush(&self) -> Result<(), Error> {
        self.confined(|| flush(&self.opened().database))
    }

    /// Loads pairs into an engine that nobody serves from yet.
    pub(super) fn load(
        &self,
        pairs: impl Iterator<Item = Result<(Tree, Pair), Error>>,
    ) -> Result<(), Error> {
        for pair in pairs {
            let (tree, (name, value)) = pair?;
            self.confined(|| self.tree(tree).insert(name, value))?;
        }
        Ok(())
    }

    /// Sets one pair, or removes it, outside of any transaction: for an engine that nobody serves
    /// from yet. Answers what it makes of `state`.
    pub(super) fn replace(
        &self,
        key: &IntegrityKey,
        mut state: State,
        (tree, name, value): Change<'_>,
    ) -> Result<State, Error> {
        let before = self.confined(|| match value {
            Some(value) => self.tree(tree).insert(name, value),
            None => self.tree(tree).remove(name),
        })?;
        if let Some(before) = before {
            state.remove(key.element(tree, name, &before));
        }
        if let Some(value) = value {
            state.add(key.element(tree, name, value));
        }
        Ok(state)
    }

    /// What of `changes`, of which a later one of a key replaces an earlier one, differs from what is
    /// there, and what that makes of `state`.
    pub(super) fn compare<'a>(
        &self,
        key: &IntegrityKey,
        mut state: State,
        changes: impl Iterator<Item = Change<'a>>,
    ) -> Result<(Vec<Difference<'a>>, State), Error> {
        let changes: BTreeMap<_, _> =
            changes.map(|(tree, name, value)| ((tree, name), value)).collect();
        let mut differences = Vec::with_capacity(changes.len());
        for ((tree, name), value) in changes {
            let before = self.get(tree, name)?;
            if before.as_deref() == value {
                continue;
            }
            if let Some(before) = &before {
                state.remove(key.element(tree, name, before));
            }
            if let Some(value) = value {
                state.add(key.element(tree, name, value));
            }
            differences.push(Difference { change: (tree, name, value), before });
        }
        Ok((differences, state))
    }

    /// What all pairs together are.
    pub(super) fn state(&self, key: &IntegrityKey, number: u64) -> Result<State, Error> {
        let mut state = State { number, ..State::default() };
        self.confined(|| {
            for tree in Tree::ALL {
                for pair in self.tree(tree) {
                    let (name, value) = pair?;
                    state.add(key.element(tree, &name, &value));
                }
            }
            Ok(())
        })?;
        Ok(state)
    }

    /// Every pair, in the order of trees and keys, one page of the engine in memory at a time.
    pub(super) fn pairs(&self) -> impl Iterator<Item = Result<(Tree, Pair), Error>> {
        Tree::ALL.into_iter().flat_map(move |tree| {
            let mut pairs = self.tree(tree).iter();
            std::iter::from_fn(move || {
                let next = self.confined(|| pairs.next().map(owned).transpose());
                next.transpose().map(|pair| pair.map(|pair| (tree, pair)))
            })
        })
    }

    /// The engine has hundreds of places where it panics on damage.
    fn confined<T>(&self, work: impl FnOnce() -> ::sled::Result<T>) -> Result<T, Error> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => result.map_err(Error::Engine),
            Err(_) => Err(damaged(&self.path, PANICKED.to_owned())),
        }
    }

    fn start(path: &Path, database: ::sled::Db, openings: u64) -> Result<Self, Error> {
        let tree = |tree| {
            let name = match tree {
                Tree::Meta => "meta",
                Tree::Tenant => "tenant",
                Tree::Token => "token",
            };
            database.open_tree(name).map_err(Error::Engine)
        };
        let own = ::sled::Tree::clone(&database);
        let trees = [tree(Tree::Meta)?, tree(Tree::Tenant)?, tree(Tree::Token)?, own];
        // An equal value would write nothing and prove nothing; the count always differs.
        let synced_before = engine_syncs();
        database
            .insert(OPENINGS, &openings.wrapping_add(1).to_be_bytes())
            .and_then(|_| flush(&database))
            .map_err(Error::Engine)?;
        if engine_syncs() == synced_before && cfg!(target_os = "linux") {
            return Err(Error::Durability);
        }
        sync_all_files(path)?;
        Ok(Self { path: path.to_owned(), open: Some(Open { database, trees }) })
    }

    fn opened(&self) -> &Open {
        self.open.as_ref().expect("it is there until the engine is dropped")
    }

    fn tree(&self, tree: Tree) -> &::sled::Tree {
        &self.opened().trees[tree as usize]
    }

    /// Closes the engine whose directory is now at `path`, and waits until its background threads
    /// have let go of the files too.
    pub(super) fn close(self, path: &Path) -> Result<(), Error> {
        drop(self);
        let action = || format!("close the store in {}", path.display());
        let file = File::open(path.join("db")).map_err(Error::io(action()))?;
        for _ in 0..RELEASE_ATTEMPTS {
            match file.try_lock() {
                // Closing the file frees the lock again.
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => thread::sleep(RELEASE_PAUSE),
                Err(TryLockError::Error(source)) => {
                    return Err(Error::Io { action: action(), source });
                }
            }
        }
        Err(Error::Io { action: action(), source: io::ErrorKind::TimedOut.into() })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let open = self.open.take();
        let close = || {
            if let Some(open) = &open {
                // Its own flush could wait for good. What is the matter, it logs itself.
                drop(flush(&open.database));
            }
            drop(open);
        };
        // The engine writes what it has not written yet, and panics when it cannot.
        if catch_unwind(AssertUnwindSafe(close)).is_err() {
            tracing::warn!("the engine could not be closed in order; the journal has every commit");
        }
    }
}

/// Waits until everything written is on the disk, or the engine has failed.
///
/// When a write of the engine's own threads fails, it may not wake who waits for that write
/// (`exit_reservation` in its `logger.rs`); whoever asks for the next flush does.
fn flush(database: &::sled::Db) -> ::sled::Result<()> {
    thread::scope(|scope| {
        let (done, waiting) = mpsc::channel::<()>();
        scope.spawn(move || {
            while waiting.recv_timeout(WAKE) == Err(RecvTimeoutError::Timeout) {
                // An error is the other one's to report.
                drop(database.flush());
            }
        });
        let flushed = database.flush();
        drop(done);
        flushed.map(drop)
    })
}

fn owned(pair: ::sled::Result<(::sled::IVec, ::sled::IVec)>) -> ::sled::Result<Pair> {
    pair.map(|(key, value)| (key.to_vec(), value.to_vec()))
}

fn openings(database: &::sled::Db) -> Result<Option<u64>, Error> {
    let count = database.get(OPENINGS).map_err(Error::Engine)?;
    Ok(count.and_then(|count| <[u8; 8]>::try_from(&*count).ok()).map(u64::from_be_bytes))
}

/// Opens the engine in a thread of its own, because on damaged files it may panic or never return.
fn open_engine(path: &Path, cache: u64) -> Result<::sled::Db, Error> {
    let size = fs::metadata(path.join("db")).map_or(0, |metadata| metadata.len());
    let limit = OPEN_BASE + Duration::from_secs(size / OPEN_RATE);
    let configuration = ::sled::Config::new()
        .path(path)
        // No writer but the committer: between two commits the files do not change.
        .flush_every_ms(None)
        .cache_capacity(cache)
        // Ciphertext does not compress, and the setting is for life.
        .use_compression(false);
    let (opened, result) = mpsc::channel();
    thread::Builder::new()
        .name("store-open".to_owned())
        .spawn(move || {
            let engine = catch_unwind(AssertUnwindSafe(|| open_when_released(&configuration)));
            // After the time limit there is nobody to tell.
            drop(opened.send(engine));
        })
        .map_err(Error::io("start a thread to open the store"))?;
    match result.recv_timeout(limit) {
        Ok(Ok(Ok(engine))) => Ok(engine),
        Ok(Ok(Err(::sled::Error::Io(source)))) => {
            Err(Error::Io { action: format!("open the store in {}", path.display()), source })
        }
        Ok(Ok(Err(error))) => Err(damaged(path, error.to_string())),
        Ok(Err(_)) => Err(damaged(path, PANICKED.to_owned())),
        Err(RecvTimeoutError::Timeout) => {
            Err(damaged(path, format!("opening it took longer than {} s", limit.as_secs())))
        }
        Err(RecvTimeoutError::Disconnected) => Err(damaged(path, "opening it failed".to_owned())),
    }
}

/// An engine that was closed a moment ago may still be held by its own background threads, and its
/// lock with it. Other processes are kept away by the lock of the data directory.
fn open_when_released(configuration: &::sled::Config) -> ::sled::Result<::sled::Db> {
    for _ in 0..RELEASE_ATTEMPTS {
        match configuration.open() {
            Err(::sled::Error::Io(error)) if error.to_string().contains("acquire lock") => {
                thread::sleep(RELEASE_PAUSE);
            }
            result => return result,
        }
    }
    configuration.open()
}

/// A kill while opening leaves a half-written snapshot, which the next opening takes for the newest
/// one. The real snapshot is complete; a new one is renamed into place as the last step.
fn remove_unfinished_snapshots(path: &Path) -> Result<(), Error> {
    for file in files(path)? {
        if file.extension() == Some(OsStr::new("generating")) {
            fs::remove_file(&file).map_err(Error::io(format!("remove {}", file.display())))?;
        }
    }
    Ok(())
}

/// Syncs what `sled` wrote and did not sync while opening, its configuration above all: a store
/// whose configuration a power failure took does not open again.
fn sync_all_files(path: &Path) -> Result<(), Error> {
    for file in files(path)? {
        File::open(&file)
            .and_then(|file| file.sync_all())
            .map_err(Error::io(format!("sync {}", file.display())))?;
    }
    sync_directory(path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.push(entry.path());
            }
        }
        Ok(files)
    };
    list().map_err(Error::io(format!("read {}", path.display())))
}

pub(super) fn damaged(path: &Path, reason: String) -> Error {
    Error::Damaged { path: path.display().to_string(), reason }
}

/// How often the engine has made its writes durable, as far as it can be counted.
pub(super) fn engine_syncs() -> u64 {
    #[cfg(target_os = "linux")]
    let syncs = super::super::durable::calls();
    #[cfg(not(target_os = "linux"))]
    let syncs = 0;
    syncs
}
