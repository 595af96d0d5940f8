//! The engine opened and closed, with the care that `sled` needs.
//!
//! A half-written snapshot must go before opening; opening can panic or hang on damage; the
//! configuration file is never synced; a closed engine is let go of a moment later.

use std::any::Any;
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::super::directory::sync_directory;
use super::super::{Error, Tree};

const OPEN_BASE: Duration = Duration::from_mins(1);
/// Slowest disk that the time limit of an opening allows for, bytes per second.
const OPEN_RATE: u64 = 50_000_000;
const RELEASE_ATTEMPTS: u32 = 500;
const RELEASE_PAUSE: Duration = Duration::from_millis(10);
/// In the engine's default tree: how often the store was opened, u64 big endian. A store without it
/// was never completely created, or has lost its contents.
const OPENINGS: &[u8] = b"openings";

/// An open `sled` and its trees.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) database: ::sled::Db,
    pub(super) trees: [::sled::Tree; Tree::ALL.len()],
}

impl Engine {
    /// Makes a new engine at `path`, an empty directory, that continues the count of openings. Its
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

    /// How often this engine, and those that it is a copy of, were opened.
    pub(super) fn openings(&self) -> Result<u64, Error> {
        Ok(openings(&self.database)?.unwrap_or(0))
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
        let trees = [tree(Tree::Meta)?, tree(Tree::Tenant)?, tree(Tree::Token)?];
        // An equal value would write nothing and prove nothing; the count always differs.
        let synced_before = engine_syncs();
        database
            .insert(OPENINGS, &openings.wrapping_add(1).to_be_bytes())
            .and_then(|_| database.flush())
            .map_err(Error::Engine)?;
        if engine_syncs() == synced_before && cfg!(target_os = "linux") {
            return Err(Error::Durability);
        }
        sync_all_files(path)?;
        Ok(Self { database, trees })
    }

    pub(super) fn tree(&self, tree: Tree) -> &::sled::Tree {
        &self.trees[tree as usize]
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
        Ok(Err(panic)) => Err(damaged(path, panic_text(&*panic))),
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

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the engine panicked: {}", text.unwrap_or("no message"))
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
