//! The store on disk: a journal, `sled` 0.34 as its index, and an anchor; written by one thread.
//!
//! ```text
//! apply, walk ----------bounded channel---> committer: journal -> anchor -> engine -> answer all
//! rewrite: a copy by a walk, then ---------> exchange
//! get, scan ------------------------------> engine
//! open: journal, engine, anchor --which commit has each seen?--> replay, rebuild, repair or refuse
//! ```
//!
//! The journal is what makes a commit durable. The engine is opened with care (`engine.rs`), and may
//! be behind, damaged or gone: it is made anew from the journal (`recovery.rs`). What is removed
//! stays in the files until they are rewritten (`rewrite`). While a transaction runs, reads wait: a
//! batch of 256 records of 350 bytes takes 5 ms, one of 4,096 takes 50 ms and is hardly faster per
//! record.

mod committer;
mod engine;
mod inspect;
mod recovery;
mod rewrite;
#[cfg(test)]
mod tests;
mod upgrade;
mod walk;
mod watchdog;

use std::io::Read;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::{self, JoinHandle};

use super::integrity::{IntegrityKey, State};
use super::journal::{Former, NewBase};
use super::large::Spool;
use super::migrate::MIGRATIONS;
use super::space::Space;
use super::{
    Batch, Changed, Condition, DataDir, Error, LargeBatch, Options, Pair, Repair, Snapshot, Store,
    Tree, Walk,
};
use committer::Committer;
use engine::Engine;
use recovery::{Parts, Recovered};
use rewrite::{Copy, Exchanged, Rewriter};
use walk::{SledWalk, WalkId};
use watchdog::Watchdog;

/// Batches that may wait for the committer; more block their senders.
const QUEUE: usize = 1_024;
/// On-disk bytes of the pages that the engine keeps in memory, where they take five times as much. With
/// 32 MiB random reads of a store of 10,000 tenants are 1.5 times as fast (60,000 per s instead of
/// 40,000), and so are commits of 64 random keys; walks and openings are not.
const CACHE_BYTES: u64 = 2 << 20;
/// Up to so many pairs an opening compares all of them with the manifest before it returns. It takes
/// about a second; above that it is done beside the work.
const CHECKED_AT_OPENING: u64 = 500_000;

/// The value of a key, in a store that is not open yet.
pub type Lookup<'a> = dyn Fn(Tree, &[u8]) -> Result<Option<Vec<u8>>, Error> + 'a;

/// A [`Store`] in a data directory.
///
/// Dropping it waits for the batches that were sent.
#[derive(Debug)]
pub struct SledStore {
    shared: Arc<Shared>,
    /// The only sender that says when to stop; walks have others.
    commands: SyncSender<Command>,
    walks: AtomicU64,
    /// One at a time.
    rewriter: Mutex<Rewriter>,
    committer: Option<JoinHandle<()>>,
    checker: Option<JoinHandle<()>>,
}

/// What the committer and those who read have in common.
#[derive(Debug)]
struct Shared {
    /// Only a rewriting replaces it, and waits for the reads in it.
    engine: RwLock<Engine>,
    is_read_only: AtomicBool,
    condition: Mutex<Condition>,
}

impl Shared {
    fn new(engine: Engine) -> Self {
        let condition = Mutex::default();
        Self { engine: RwLock::new(engine), is_read_only: AtomicBool::new(false), condition }
    }

    fn engine(&self) -> RwLockReadGuard<'_, Engine> {
        self.engine.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, engine: Engine) -> Engine {
        mem::replace(&mut self.engine.write().unwrap_or_else(PoisonError::into_inner), engine)
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only.load(Ordering::Acquire)
    }

    /// No write after one that failed.
    fn fail(&self, error: &Error) {
        self.is_read_only.store(true, Ordering::Release);
        let reason = told(error);
        tracing::error!(%reason, "the store takes no writes until it is opened again");
        self.condition().read_only.get_or_insert(reason);
    }

    fn condition(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_commit(&self, state: &State, journal_bytes: u64) {
        let (number, pairs) = (state.number, state.pairs());
        let mut condition = self.condition();
        *condition = Condition { number, pairs, journal_bytes, ..condition.clone() };
    }

    fn set_full(&self, is_full: bool) {
        self.condition().is_full = is_full;
    }

    fn set_checked(&self) {
        self.condition().is_checked = true;
    }
}

/// An error with its cause.
fn told(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

enum Command {
    Commit(Commit),
    CommitLarge { spool: Arc<Spool>, done: Sender<Result<(), Error>> },
    Exchange { id: WalkId, copy: Box<Copy>, done: Sender<Result<Exchanged, Error>> },
    PutBase { base: NewBase, done: Sender<Result<Former, Error>> },
    Release { number: u64, done: Sender<Result<(), Error>> },
    WalkBegin { id: WalkId },
    WalkNext { id: WalkId, done: Sender<Result<Vec<(Tree, Pair)>, Error>> },
    WalkChanges { id: WalkId, done: Sender<Result<Vec<Changed>, Error>> },
    WalkFinish { id: WalkId, done: Sender<Result<Snapshot, Error>> },
    WalkEnd { id: WalkId },
    Answer { done: Sender<()> },
    Stop,
}

struct Commit {
    batch: Batch,
    done: Sender<Result<(), Error>>,
}

impl SledStore {
    /// Creates an empty store in `directory`, where there must be none.
    pub fn create(
        directory: &DataDir,
        key: &IntegrityKey,
        options: &Options,
    ) -> Result<Self, Error> {
        Self::start(directory, key, *options, Parts::of(directory).create(key)?)
    }

    /// Opens the store in `directory` as the newest commit that any of its parts has seen, and says
    /// what had to be done for that. The pairs are compared with the manifest: before this returns
    /// up to 500,000 of them, beside the work above that.
    ///
    /// With `accept_rollback` it opens as the newest commit that there is, whatever is missing, and
    /// the next commit has a number above all that were seen.
    ///
    /// # Errors
    ///
    /// - [`Error::RolledBack`]: no part, and no two together, have the newest commit.
    /// - [`Error::Damaged`]: also when there is nothing: a missing store is never taken for a new one.
    /// - [`Error::TooNew`].
    pub fn open(
        directory: &DataDir,
        key: &IntegrityKey,
        options: &Options,
        accept_rollback: bool,
    ) -> Result<(Self, Vec<Repair>), Error> {
        Space::new(directory.path(), options.ballast_bytes).make_room()?;
        let (recovered, repairs) = Parts::of(directory).open(key, accept_rollback)?;
        Ok((Self::start(directory, key, *options, recovered)?, repairs))
    }

    /// Opens a store of version 1, which had neither journal nor manifest: as it is, it is right.
    /// What a former attempt left is replaced, once `check`, which may look up values, agrees that
    /// it is one.
    pub fn adopt<E: From<Error>>(
        directory: &DataDir,
        key: &IntegrityKey,
        options: &Options,
        check: impl FnOnce(&Lookup<'_>) -> Result<(), E>,
    ) -> Result<Self, E> {
        Space::new(directory.path(), options.ballast_bytes).make_room()?;
        let recovered = Parts::of(directory).adopt(key, |engine| {
            check(&|tree, key| Ok(engine.get(tree, key)?.map(|value| value.to_vec())))
        })?;
        Ok(Self::start(directory, key, *options, recovered)?)
    }

    /// Opens the store in `directory` whatever its engine is like: that is made anew from `pairs`, as
    /// a backup has them, and what the journal has beyond them.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]; [`Error::Damaged`] also for pairs of another store or lineage. The store is
    /// as it was then.
    pub fn rebuild(
        directory: &DataDir,
        key: &IntegrityKey,
        options: &Options,
        pairs: &mut dyn Read,
    ) -> Result<(Self, Vec<Repair>), Error> {
        Space::new(directory.path(), options.ballast_bytes).make_room()?;
        let (recovered, repairs) = Parts::of(directory).rebuild(key, pairs)?;
        Ok((Self::start(directory, key, *options, recovered)?, repairs))
    }

    fn start(
        directory: &DataDir,
        key: &IntegrityKey,
        options: Options,
        mut recovered: Recovered,
    ) -> Result<Self, Error> {
        upgrade::run(&mut recovered, key, directory, MIGRATIONS)?;
        let Recovered { engine, journal, anchor, manifest, is_checked } = recovered;
        let mut space = Space::new(directory.path(), options.ballast_bytes);
        space.take_ballast()?;
        let (commands, queue) = mpsc::sync_channel(QUEUE);
        let shared = Arc::new(Shared::new(engine));
        shared.set_commit(&manifest.state, journal.bytes());
        let committer = Committer {
            path: directory.store_path(),
            key: key.clone(),
            shared: Arc::clone(&shared),
            journal,
            anchor,
            space,
            manifest,
            watchdog: Watchdog::start()?,
            walks: std::collections::HashMap::new(),
            unflushed: 0,
        };
        let committer = thread::Builder::new()
            .name("store-committer".to_owned())
            .spawn(move || committer.run(&queue))
            .map_err(Error::io("start the committer thread"))?;
        let mut store = Self {
            shared,
            commands,
            walks: AtomicU64::new(0),
            rewriter: Mutex::new(Rewriter {
                store: directory.store_path(),
                exports: directory.exports_path(),
                key: key.clone(),
                space: Space::new(directory.path(), 0),
            }),
            committer: Some(committer),
            checker: None,
        };
        if is_checked {
            store.shared.set_checked();
        } else {
            store.checker = Some(store.check_beside()?);
        }
        Ok(store)
    }

    /// Walks over everything. A difference makes the store read-only.
    fn check_beside(&self) -> Result<JoinHandle<()>, Error> {
        let mut walk = self.begin_walk()?;
        thread::Builder::new()
            .name("store-check".to_owned())
            .spawn(move || {
                loop {
                    match walk.next() {
                        Ok(pairs) if pairs.is_empty() => break,
                        Ok(_) => {}
                        // The store was closed, or has failed and said so.
                        Err(_) => return,
                    }
                }
                drop(Box::new(walk).finish());
            })
            .map_err(Error::io("start a thread to check the store"))
    }

    /// Rewrites the store, after whoever asked for it before, and does `between` between its steps.
    fn rewrite_with(&self, between: &mut dyn FnMut()) -> Result<(), Error> {
        let rewriter = self.rewriter.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.is_read_only() {
            return Err(Error::ReadOnly);
        }
        rewriter.rewrite(&self.shared, self.begin_walk()?, between)
    }

    fn begin_walk(&self) -> Result<SledWalk, Error> {
        let id = self.walks.fetch_add(1, Ordering::Relaxed);
        SledWalk::begin(id, self.commands.clone())
    }

    /// Has the committer do the command that sends its outcome to what it is given.
    fn send(
        &self,
        command: impl FnOnce(Sender<Result<(), Error>>) -> Command,
    ) -> Result<(), Error> {
        if self.shared.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let (done, answer) = mpsc::channel();
        self.commands.send(command(done)).map_err(|_| Error::ReadOnly)?;
        // No answer means that the committer panicked.
        answer.recv().unwrap_or(Err(Error::ReadOnly))
    }
}

impl Store for SledStore {
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.shared.engine().get(tree, key)?.map(|value| value.to_vec()))
    }

    fn scan(&self, tree: Tree, prefix: &[u8]) -> Result<Vec<Pair>, Error> {
        self.shared.engine().scan(tree, prefix)
    }

    fn scan_after(
        &self,
        tree: Tree,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        self.shared.engine().scan_after(tree, after, limit)
    }

    fn apply(&self, batch: Batch) -> Result<(), Error> {
        batch.check_sizes()?;
        if batch.is_empty() && !self.shared.is_read_only() {
            return Ok(());
        }
        self.send(|done| Command::Commit(Commit { batch, done }))
    }

    fn apply_large(&self, batch: LargeBatch) -> Result<(), Error> {
        let is_empty = batch.is_empty();
        let spool = Arc::new(batch.finish()?);
        if is_empty && !self.shared.is_read_only() {
            return Ok(());
        }
        // The file is overwritten here, once nobody waits for the committer any more.
        self.send(|done| Command::CommitLarge { spool: Arc::clone(&spool), done })
    }

    fn rewrite(&self) -> Result<(), Error> {
        self.rewrite_with(&mut || {})
    }

    fn walk(&self) -> Result<Box<dyn Walk>, Error> {
        if self.shared.is_read_only() {
            return Err(Error::ReadOnly);
        }
        Ok(Box::new(self.begin_walk()?))
    }

    fn condition(&self) -> Condition {
        self.shared.condition().clone()
    }

    /// Also of a store that takes no writes any more.
    fn answers(&self) -> bool {
        let (done, answer) = mpsc::channel();
        self.commands.send(Command::Answer { done }).is_ok() && answer.recv().is_ok()
    }

    fn release_journal(&self, number: u64) -> Result<(), Error> {
        self.send(|done| Command::Release { number, done })
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        // A committer that panicked has said so, and made the store read-only.
        drop(self.commands.send(Command::Stop));
        for thread in [self.committer.take(), self.checker.take()].into_iter().flatten() {
            drop(thread.join());
        }
    }
}
