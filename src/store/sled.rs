//! The store on disk: `sled` 0.34, opened with care and written by one thread.
//!
//! ```text
//! apply --bounded channel--> committer: take what waits -> one transaction -> flush -> answer all
//! get, scan -------------------------------------------> trees
//! ```
//!
//! What `sled` needs from its user, each measured (ARCHITECTURE.md): a half-written snapshot must
//! go before opening; opening can panic or hang on damage; its configuration file is never synced;
//! many threads that flush can deadlock; any write error is final.

use std::any::Any;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ::sled::transaction::{
    ConflictableTransactionError, TransactionError, Transactional, TransactionalTree,
};

use super::directory::sync_directory;
use super::{Batch, Error, Pair, Store, Tree};

/// Batches that may wait for the committer; more block their senders.
const QUEUE: usize = 1_024;
/// Most that one commit takes, unless one batch alone is larger.
const GROUP_BATCHES: usize = 128;
const GROUP_BYTES: usize = 256 << 10;
/// On-disk bytes; resident memory is five to twelve times that.
const CACHE_BYTES: u64 = 32 << 20;
const OPEN_BASE: Duration = Duration::from_mins(1);
/// Slowest disk that the time limit of an opening allows for, bytes per second.
const OPEN_RATE: u64 = 50_000_000;
const RELEASE_ATTEMPTS: u32 = 500;
const RELEASE_PAUSE: Duration = Duration::from_millis(10);
/// In the engine's default tree: how often the store was opened, u64 big endian. A store without it
/// was never completely created, or has lost its contents.
const OPENINGS: &[u8] = b"openings";

/// A [`Store`] in a directory of its own.
///
/// Dropping it waits for the batches that were sent.
#[derive(Debug)]
pub struct SledStore {
    trees: [::sled::Tree; Tree::ALL.len()],
    read_only: Arc<AtomicBool>,
    /// `None` only while dropping.
    commits: Option<SyncSender<Commit>>,
    committer: Option<JoinHandle<()>>,
}

struct Commit {
    batch: Batch,
    done: Sender<Result<(), Error>>,
}

impl SledStore {
    /// Creates an empty store at `path`, where there must be nothing.
    pub fn create(path: &Path) -> Result<Self, Error> {
        fs::create_dir(path).map_err(Error::io(format!("create {}", path.display())))?;
        let engine = open_engine(path)?;
        Self::start(path, &engine, 0)
    }

    /// Opens the store at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] also when there is nothing: a missing store is never taken for a new one.
    pub fn open(path: &Path) -> Result<Self, Error> {
        for name in ["db", "conf"] {
            if !path.join(name).is_file() {
                return Err(damaged(path, format!("{name} is missing")));
            }
        }
        remove_unfinished_snapshots(path)?;
        let engine = open_engine(path)?;
        let openings = engine.get(OPENINGS).map_err(Error::Engine)?;
        let openings = openings.and_then(|count| <[u8; 8]>::try_from(&*count).ok());
        match openings {
            Some(count) => Self::start(path, &engine, u64::from_be_bytes(count)),
            None => Err(damaged(path, "it has lost its contents".to_owned())),
        }
    }

    fn start(path: &Path, engine: &::sled::Db, openings: u64) -> Result<Self, Error> {
        let tree = |tree| {
            let name = match tree {
                Tree::Meta => "meta",
                Tree::Tenant => "tenant",
                Tree::Token => "token",
            };
            engine.open_tree(name).map_err(Error::Engine)
        };
        let trees = [tree(Tree::Meta)?, tree(Tree::Tenant)?, tree(Tree::Token)?];
        // An equal value would write nothing and prove nothing; the count always differs.
        let synced_before = engine_syncs();
        engine
            .insert(OPENINGS, &openings.wrapping_add(1).to_be_bytes())
            .and_then(|_| engine.flush())
            .map_err(Error::Engine)?;
        if engine_syncs() == synced_before && cfg!(target_os = "linux") {
            return Err(Error::Durability);
        }
        sync_all_files(path)?;

        let (commits, queue) = mpsc::sync_channel(QUEUE);
        let read_only = Arc::new(AtomicBool::new(false));
        let committer = Committer {
            engine: engine.clone(),
            trees: trees.clone(),
            read_only: Arc::clone(&read_only),
        };
        let committer = thread::Builder::new()
            .name("store-committer".to_owned())
            .spawn(move || committer.run(&queue))
            .map_err(Error::io("start the committer thread"))?;
        Ok(Self { trees, read_only, commits: Some(commits), committer: Some(committer) })
    }

    fn tree(&self, tree: Tree) -> &::sled::Tree {
        &self.trees[tree as usize]
    }
}

impl Store for SledStore {
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let value = self.tree(tree).get(key).map_err(Error::Engine)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(&self, tree: Tree, prefix: &[u8]) -> Result<Vec<Pair>, Error> {
        self.tree(tree)
            .scan_prefix(prefix)
            .map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())))
            .collect::<Result<_, _>>()
            .map_err(Error::Engine)
    }

    fn apply(&self, batch: Batch) -> Result<(), Error> {
        batch.check_sizes()?;
        if self.read_only.load(Ordering::Acquire) {
            return Err(Error::ReadOnly);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let (done, answer) = mpsc::channel();
        let commits = self.commits.as_ref().ok_or(Error::ReadOnly)?;
        commits.send(Commit { batch, done }).map_err(|_| Error::ReadOnly)?;
        // No answer means that the committer panicked, inside the engine.
        answer.recv().unwrap_or(Err(Error::ReadOnly))
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.commits = None;
        if let Some(committer) = self.committer.take() {
            // A committer that panicked has said so, and made the store read-only.
            drop(committer.join());
        }
    }
}

/// Owns every write and the only flush.
struct Committer {
    engine: ::sled::Db,
    trees: [::sled::Tree; Tree::ALL.len()],
    read_only: Arc<AtomicBool>,
}

impl Committer {
    fn run(self, queue: &Receiver<Commit>) {
        while let Ok(first) = queue.recv() {
            let mut size = first.batch.size();
            let mut group = vec![first];
            while group.len() < GROUP_BATCHES && size < GROUP_BYTES {
                let Ok(commit) = queue.try_recv() else { break };
                size += commit.batch.size();
                group.push(commit);
            }
            self.commit(group);
        }
    }

    fn commit(&self, group: Vec<Commit>) {
        let failed_before = self.read_only.load(Ordering::Acquire);
        let result = if failed_before { Err(Error::ReadOnly) } else { self.write(&group) };
        let mut error = result.err();
        if error.is_some() {
            self.read_only.store(true, Ordering::Release);
        }
        let failed = error.is_some();
        for commit in group {
            // The first gets the cause; the engine's error cannot be copied.
            let answer = if failed { Err(error.take().unwrap_or(Error::ReadOnly)) } else { Ok(()) };
            // Whoever does not wait any more does not need the answer.
            drop(commit.done.send(answer));
        }
    }

    fn write(&self, group: &[Commit]) -> Result<(), Error> {
        let operations = || group.iter().flat_map(|commit| &commit.batch.0);
        let written = self.trees.transaction(|trees: &Vec<TransactionalTree>| {
            for operation in operations() {
                let tree = &trees[operation.tree as usize];
                let key = operation.key.as_slice();
                match &operation.value {
                    Some(value) => tree.insert(key, value.as_slice())?,
                    None => tree.remove(key)?,
                };
            }
            Ok::<_, ConflictableTransactionError<Infallible>>(())
        });
        match written {
            Ok(()) => {}
            Err(TransactionError::Abort(never)) => match never {},
            Err(TransactionError::Storage(error)) => return Err(Error::Engine(error)),
        }
        self.engine.flush().map(drop).map_err(Error::Engine)
    }
}

/// Opens the engine in a thread of its own, because on damaged files it may panic or never return.
fn open_engine(path: &Path) -> Result<::sled::Db, Error> {
    let size = fs::metadata(path.join("db")).map_or(0, |metadata| metadata.len());
    let limit = OPEN_BASE + Duration::from_secs(size / OPEN_RATE);
    let configuration = ::sled::Config::new()
        .path(path)
        // No writer but the committer: between two commits the files do not change.
        .flush_every_ms(None)
        .cache_capacity(CACHE_BYTES)
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

fn panic_text(panic: &(dyn Any + Send)) -> String {
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

fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
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

fn damaged(path: &Path, reason: String) -> Error {
    Error::Damaged { path: path.display().to_string(), reason }
}

/// How often the engine has made its writes durable, as far as it can be counted.
fn engine_syncs() -> u64 {
    #[cfg(target_os = "linux")]
    let syncs = super::durable::calls();
    #[cfg(not(target_os = "linux"))]
    let syncs = 0;
    syncs
}

#[cfg(test)]
mod tests {
    use super::super::{MAX_KEY, MAX_VALUE, MemoryStore};
    use super::*;

    fn batch(pairs: &[(Tree, &[u8], &[u8])]) -> Batch {
        let mut batch = Batch::default();
        for (tree, key, value) in pairs {
            batch.put(*tree, *key, *value);
        }
        batch
    }

    fn behaves_as_a_store(store: &dyn Store) {
        store
            .apply(batch(&[
                (Tree::Tenant, b"a2", b"two"),
                (Tree::Tenant, b"a1", b"one"),
                (Tree::Tenant, b"b", b"bee"),
                (Tree::Token, b"a1", b"other tree"),
            ]))
            .unwrap();
        let pair = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        assert_eq!(store.scan(Tree::Tenant, b"a").unwrap(), [pair("a1", "one"), pair("a2", "two")]);
        assert_eq!(store.scan(Tree::Token, b"").unwrap(), [pair("a1", "other tree")]);
        assert_eq!(store.get(Tree::Meta, b"a1").unwrap(), None);

        let mut change = batch(&[(Tree::Tenant, b"a1", b"first"), (Tree::Tenant, b"a1", b"last")]);
        change.remove(Tree::Tenant, *b"a2");
        change.remove(Tree::Token, *b"missing");
        store.apply(change).unwrap();
        assert_eq!(store.get(Tree::Tenant, b"a1").unwrap().unwrap(), b"last");
        assert_eq!(store.get(Tree::Tenant, b"a2").unwrap(), None);
        store.apply(Batch::default()).unwrap();

        for (key, value) in [(MAX_KEY + 1, 0), (1, MAX_VALUE + 1)] {
            let mut large = batch(&[(Tree::Tenant, b"beside", b"")]);
            large.put(Tree::Tenant, vec![1; key], vec![1; value]);
            assert!(matches!(store.apply(large), Err(Error::TooLarge)));
        }
        assert_eq!(store.get(Tree::Tenant, b"beside").unwrap(), None);
        let mut largest = Batch::default();
        largest.put(Tree::Tenant, vec![1; MAX_KEY], vec![1; MAX_VALUE]);
        store.apply(largest).unwrap();
    }

    #[test]
    fn both_stores_order_keys_replace_remove_and_refuse_what_is_too_large() {
        behaves_as_a_store(&MemoryStore::default());
        let directory = tempfile::tempdir().unwrap();
        behaves_as_a_store(&SledStore::create(&directory.path().join("store")).unwrap());
    }

    #[test]
    fn what_was_applied_by_many_threads_is_there_after_opening_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = SledStore::create(&path).unwrap();
        thread::scope(|scope| {
            for writer in 0..8_u8 {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..20_u8 {
                        store.apply(batch(&[(Tree::Token, &[writer, number], b"v")])).unwrap();
                    }
                });
            }
        });
        drop(store);
        for _ in 0..3 {
            let store = SledStore::open(&path).unwrap();
            assert_eq!(store.scan(Tree::Token, b"").unwrap().len(), 160);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn every_apply_makes_the_engine_sync_through_us() {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::create(&directory.path().join("store")).unwrap();
        let before = engine_syncs();
        store.apply(batch(&[(Tree::Tenant, b"key", b"value")])).unwrap();
        assert!(engine_syncs() > before);
    }

    #[test]
    fn a_missing_or_emptied_store_is_damage_and_never_a_new_store() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let check = |expected: &str| {
            let error = SledStore::open(&path).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(expected) && text.contains("do not delete it"), "{text}");
        };
        check("db is missing");
        fs::create_dir(&path).unwrap();
        check("db is missing");
        fs::remove_dir(&path).unwrap();

        drop(SledStore::create(&path).unwrap());
        assert!(matches!(SledStore::create(&path), Err(Error::Io { .. })));
        for file in files(&path).unwrap() {
            if file.file_name().unwrap().to_string_lossy().starts_with("snap.") {
                fs::remove_file(file).unwrap();
            }
        }
        File::create(path.join("db")).unwrap();
        check("it has lost its contents");
    }

    #[test]
    fn a_half_written_snapshot_does_not_stop_the_opening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = SledStore::create(&path).unwrap();
        store.apply(batch(&[(Tree::Tenant, b"key", b"value")])).unwrap();
        drop(store);
        let unfinished = path.join("snap.FFFFFFFFFFFFFFFF.generating");
        fs::write(&unfinished, b"half").unwrap();
        let store = SledStore::open(&path).unwrap();
        assert_eq!(store.get(Tree::Tenant, b"key").unwrap().unwrap(), b"value");
        assert!(!unfinished.exists());
    }

    #[test]
    fn after_a_failed_write_reads_go_on_and_writes_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::create(&directory.path().join("store")).unwrap();
        store.apply(batch(&[(Tree::Tenant, b"key", b"value")])).unwrap();
        store.read_only.store(true, Ordering::Release);
        let refused = store.apply(batch(&[(Tree::Tenant, b"key", b"new")]));
        assert!(matches!(refused, Err(Error::ReadOnly)));
        assert_eq!(store.get(Tree::Tenant, b"key").unwrap().unwrap(), b"value");
    }
}
