//! The store on disk: `sled` 0.34, opened with care and written by one thread.
//!
//! ```text
//! apply --bounded channel--> committer: take what waits -> one transaction -> flush -> answer all
//! get, scan -------------------------------------------> engine
//! rewrite -----------------> committer: copy -> swap directories -> new engine -> erase the old
//! ```
//!
//! What `sled` needs from its user, each measured (ARCHITECTURE.md): care in opening (`engine.rs`);
//! many threads that flush can deadlock; any write error is final; what is removed stays in the
//! files (`rewrite`). While a transaction runs, reads wait: a batch of 256 records of 350 bytes
//! takes 5 ms, one of 4,096 takes 50 ms and is hardly faster per record.

mod engine;
mod rewrite;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fs;
use std::mem;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::{self, JoinHandle};

use ::sled::transaction::{
    ConflictableTransactionError, TransactionError, Transactional, TransactionalTree,
};

use super::erase::exchange;
use super::{Batch, Error, Pair, Store, Tree};
use engine::Engine;
use rewrite::Places;

/// Batches that may wait for the committer; more block their senders.
const QUEUE: usize = 1_024;
/// Most that one commit takes, unless one batch alone is larger.
const GROUP_BATCHES: usize = 128;
const GROUP_BYTES: usize = 256 << 10;
const CACHE_BYTES: u64 = 32 << 20;

/// A [`Store`] in a directory of its own.
///
/// Dropping it waits for the batches that were sent.
#[derive(Debug)]
pub struct SledStore {
    current: Arc<Current>,
    read_only: Arc<AtomicBool>,
    /// `None` only while dropping.
    commands: Option<SyncSender<Command>>,
    committer: Option<JoinHandle<()>>,
}

/// The engine that serves. Only a rewriting replaces it, and waits for the reads in it.
#[derive(Debug)]
struct Current(RwLock<Engine>);

impl Current {
    fn read(&self) -> RwLockReadGuard<'_, Engine> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, engine: Engine) -> Engine {
        mem::replace(&mut self.0.write().unwrap_or_else(PoisonError::into_inner), engine)
    }
}

enum Command {
    Commit(Commit),
    Rewrite { done: Sender<Result<(), Error>> },
}

struct Commit {
    batch: Batch,
    done: Sender<Result<(), Error>>,
}

impl SledStore {
    /// Creates an empty store at `path`, where there must be nothing.
    pub fn create(path: &Path) -> Result<Self, Error> {
        fs::create_dir(path).map_err(Error::io(format!("create {}", path.display())))?;
        Self::start(path, Engine::create(path, CACHE_BYTES, 0)?)
    }

    /// Opens the store at `path`, and erases what a rewriting that was cut off left beside it.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] also when there is nothing: a missing store is never taken for a new one.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let places = Places::of(path);
        places.repair()?;
        let engine = Engine::open(path, CACHE_BYTES)?;
        places.clear()?;
        Self::start(path, engine)
    }

    fn start(path: &Path, engine: Engine) -> Result<Self, Error> {
        let (commands, queue) = mpsc::sync_channel(QUEUE);
        let read_only = Arc::new(AtomicBool::new(false));
        let current = Arc::new(Current(RwLock::new(engine)));
        let committer = Committer {
            path: path.to_owned(),
            current: Arc::clone(&current),
            read_only: Arc::clone(&read_only),
        };
        let committer = thread::Builder::new()
            .name("store-committer".to_owned())
            .spawn(move || committer.run(&queue))
            .map_err(Error::io("start the committer thread"))?;
        Ok(Self { current, read_only, commands: Some(commands), committer: Some(committer) })
    }

    /// Has the committer do the command that sends its outcome to what it is given.
    fn send(
        &self,
        command: impl FnOnce(Sender<Result<(), Error>>) -> Command,
    ) -> Result<(), Error> {
        if self.read_only.load(Ordering::Acquire) {
            return Err(Error::ReadOnly);
        }
        let (done, answer) = mpsc::channel();
        let commands = self.commands.as_ref().ok_or(Error::ReadOnly)?;
        commands.send(command(done)).map_err(|_| Error::ReadOnly)?;
        // No answer means that the committer panicked, inside the engine.
        answer.recv().unwrap_or(Err(Error::ReadOnly))
    }
}

impl Store for SledStore {
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let value = self.current.read().tree(tree).get(key).map_err(Error::Engine)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(&self, tree: Tree, prefix: &[u8]) -> Result<Vec<Pair>, Error> {
        self.current
            .read()
            .tree(tree)
            .scan_prefix(prefix)
            .map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())))
            .collect::<Result<_, _>>()
            .map_err(Error::Engine)
    }

    fn scan_after(
        &self,
        tree: Tree,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.current
            .read()
            .tree(tree)
            .range::<&[u8], _>((from, Bound::Unbounded))
            .take(limit)
            .map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())))
            .collect::<Result<_, _>>()
            .map_err(Error::Engine)
    }

    fn apply(&self, batch: Batch) -> Result<(), Error> {
        batch.check_sizes()?;
        if batch.is_empty() && !self.read_only.load(Ordering::Acquire) {
            return Ok(());
        }
        self.send(|done| Command::Commit(Commit { batch, done }))
    }

    fn rewrite(&self) -> Result<(), Error> {
        self.send(|done| Command::Rewrite { done })
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(committer) = self.committer.take() {
            // A committer that panicked has said so, and made the store read-only.
            drop(committer.join());
        }
    }
}

/// Owns every write and the only flush.
struct Committer {
    path: PathBuf,
    current: Arc<Current>,
    read_only: Arc<AtomicBool>,
}

impl Committer {
    fn run(self, queue: &Receiver<Command>) {
        let mut next = queue.recv().ok();
        while let Some(command) = next.take() {
            match command {
                Command::Commit(first) => {
                    let mut size = first.batch.size();
                    let mut group = vec![first];
                    while group.len() < GROUP_BATCHES && size < GROUP_BYTES {
                        match queue.try_recv() {
                            Ok(Command::Commit(commit)) => {
                                size += commit.batch.size();
                                group.push(commit);
                            }
                            Ok(rewrite @ Command::Rewrite { .. }) => {
                                next = Some(rewrite);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.commit(group);
                }
                // Whoever does not wait any more does not need the answer.
                Command::Rewrite { done } => drop(done.send(self.rewrite())),
            }
            next = next.or_else(|| queue.recv().ok());
        }
    }

    /// Replaces the engine by a copy of what is live in it, and erases the old one's files.
    fn rewrite(&self) -> Result<(), Error> {
        if self.read_only.load(Ordering::Acquire) {
            return Err(Error::ReadOnly);
        }
        let places = Places::of(&self.path);
        places.copy(&self.current.read())?;
        let swapped = places
            .swap(exchange)
            .and_then(|old| Ok((old, Engine::open(&self.path, CACHE_BYTES)?)))
            // What the old engine wrote now would be lost.
            .inspect_err(|_| self.read_only.store(true, Ordering::Release));
        let (old, engine) = swapped?;
        self.current.replace(engine).close(old)?;
        places.clear()
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
        let engine = self.current.read();
        let written = engine.trees.transaction(|trees: &Vec<TransactionalTree>| {
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
        engine.database.flush().map(drop).map_err(Error::Engine)
    }
}
