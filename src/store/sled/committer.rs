//! The one thread that writes.
//!
//! ```text
//! take what waits -> what changes, by key -> room on the disk?
//!   -> journal frame, fdatasync -> anchor, fdatasync -> engine: data and manifest -> answer all
//! nothing waits -> flush the engine
//!
//! a large batch: alone; what changes, the frame and the engine are three passes over its file
//! ```
//!
//! What is in the journal is acknowledged whatever becomes of the engine: an opening replays it. So
//! the engine need not reach the disk for an answer, and is flushed when nobody waits. A failure
//! leaves it unknown how far a commit came, so the first one is the last: reads go on, and opening
//! the store again says what is there.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::super::anchor::Anchor;
use super::super::erase::exchange;
use super::super::integrity::{IntegrityKey, Manifest, State};
use super::super::journal::Journal;
use super::super::large::Spool;
use super::super::space::Space;
use super::super::{Changed, Error, Pair, Snapshot, Tree};
use super::engine::{Engine, damaged};
use super::rewrite::{Copy, Exchanged, Places, not_rewritten};
use super::walk::{Passage, WalkId};
use super::watchdog::Watchdog;
use super::{CACHE_BYTES, Command, Commit, Shared};

/// Most that one commit takes, unless one batch alone is larger.
const GROUP_BATCHES: usize = 128;
const GROUP_BYTES: usize = 256 << 10;
/// Commits that an opening may have to replay after a crash.
const UNFLUSHED: u32 = 256;
/// Steps of a large batch after which the engine is flushed: what it has not written yet is in
/// memory, about 1.5 MB then.
const STEPS_UNFLUSHED: usize = 16;
/// How long the engine may be behind the journal when nothing is written.
const IDLE: Duration = Duration::from_millis(100);

/// Everything that writing takes. The engine is shared with those who read.
pub(super) struct Committer {
    pub(super) path: PathBuf,
    pub(super) key: IntegrityKey,
    pub(super) shared: Arc<Shared>,
    pub(super) journal: Journal,
    pub(super) anchor: Anchor,
    pub(super) space: Space,
    /// The newest commit.
    pub(super) manifest: Manifest,
    pub(super) watchdog: Watchdog,
    pub(super) walks: HashMap<WalkId, Passage>,
    pub(super) unflushed: u32,
}

impl Committer {
    pub(super) fn run(mut self, queue: &Receiver<Command>) {
        let mut next = None;
        loop {
            let command = match next.take() {
                Some(command) => command,
                None if self.unflushed == 0 => match queue.recv() {
                    Ok(command) => command,
                    Err(_) => return,
                },
                None => match queue.recv_timeout(IDLE) {
                    Ok(command) => command,
                    Err(RecvTimeoutError::Timeout) => {
                        self.flush();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return self.flush(),
                },
            };
            // Whoever does not wait any more does not need the answer.
            match command {
                Command::Commit(first) => {
                    let group = collect(first, queue, &mut next);
                    self.commit(group);
                }
                Command::CommitLarge { spool, done } => {
                    self.watchdog.begin(spool.length());
                    let result = self.commit_large(&spool);
                    self.watchdog.end();
                    // The last to let go of it is whoever waits.
                    drop(spool);
                    drop(done.send(result));
                }
                Command::Exchange { id, copy, done } => {
                    self.watchdog.begin(self.shared.engine().size());
                    let result = self.exchange(id, *copy);
                    self.watchdog.end();
                    drop(done.send(result));
                }
                Command::PutBase { base, done } => {
                    let result = self.writable().and_then(|()| self.journal.put_base(&base));
                    self.publish();
                    drop(done.send(result));
                }
                Command::Release { number, done } => {
                    // What the engine has not written yet is in the journal only.
                    self.flush();
                    let result = self.writable().and_then(|()| self.journal.release(number));
                    self.publish();
                    drop(done.send(result));
                }
                Command::WalkBegin { id } => {
                    self.walks.insert(id, Passage::default());
                }
                Command::WalkNext { id, done } => drop(done.send(self.walk_next(id))),
                Command::WalkChanges { id, done } => drop(done.send(self.walk_changes(id))),
                Command::WalkFinish { id, done } => drop(done.send(self.walk_finish(id))),
                Command::WalkEnd { id } => drop(self.walks.remove(&id)),
                Command::Answer { done } => drop(done.send(())),
                Command::Stop => return self.flush(),
            }
        }
    }

    fn commit(&mut self, group: Vec<Commit>) {
        let bytes = group.iter().map(|commit| commit.batch.size() as u64).sum();
        self.watchdog.begin(bytes);
        let result = self.admitted(bytes, |committer| committer.write(&group));
        self.watchdog.end();
        let failed = result.is_err();
        let mut error = result.err();
        for commit in group {
            // The first gets the cause; it cannot be copied.
            let answer = match (failed, error.take()) {
                (false, _) => Ok(()),
                (true, Some(error)) => Err(error),
                (true, None) => Err(Error::ReadOnly),
            };
            drop(commit.done.send(answer));
        }
    }

    /// Commits what is not all in memory at once.
    fn commit_large(&mut self, spool: &Spool) -> Result<(), Error> {
        self.writable()?;
        // Nothing is written yet: what fails here is this batch and not the store.
        let (state, differs) = self.state_after(spool)?;
        if !differs {
            return Ok(());
        }
        self.admitted(spool.length(), |committer| committer.write_large(spool, &state))
    }

    /// Does `write`, a commit of so many bytes, if there is room for it. One that fails is the last.
    fn admitted(
        &mut self,
        bytes: u64,
        write: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.writable()?;
        let full = self.space.admit(bytes);
        self.shared.set_full(matches!(full, Err(Error::Full { .. })));
        full?;
        write(self).inspect_err(|error| self.shared.fail(error))
    }

    fn write(&mut self, group: &[Commit]) -> Result<(), Error> {
        let changes = group.iter().flat_map(|commit| commit.batch.changes());
        let shared = Arc::clone(&self.shared);
        let engine = shared.engine();
        let state = State { number: self.manifest.state.number + 1, ..self.manifest.state };
        let (differences, state) = engine.compare(&self.key, state, changes)?;
        if differences.is_empty() {
            return Ok(());
        }
        let changes = differences.iter().map(|difference| difference.change);
        let manifest = self.journal.append(changes, &state, self.manifest.store_version)?;
        self.anchor.write(&manifest.position())?;
        engine.write_commit(&self.key, &self.manifest, &differences, &manifest)?;
        for passage in self.walks.values_mut() {
            for difference in &differences {
                passage.changed(&self.key, difference);
            }
        }
        self.made(&engine, manifest)
    }

    /// What the store is after the changes of `spool`, and whether it is another then.
    fn state_after(&self, spool: &Spool) -> Result<(State, bool), Error> {
        let engine = self.shared.engine();
        let mut state = State { number: self.manifest.state.number + 1, ..self.manifest.state };
        let mut differs = false;
        for step in spool.steps() {
            let step = step?;
            let (differences, after) = engine.compare(&self.key, state, step.changes())?;
            differs |= !differences.is_empty();
            state = after;
        }
        Ok((state, differs))
    }

    /// As [`Self::write`], and [`Engine::write_commit`] in it, with one step of the changes in memory
    /// at a time. What they replace is looked up again, as it was when `state` was worked out: each
    /// key comes once, and nobody else writes.
    fn write_large(&mut self, spool: &Spool, state: &State) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let engine = shared.engine();
        let manifest = self.journal.append_large(spool, state, self.manifest.store_version)?;
        self.anchor.write(&manifest.position())?;
        let mut partial = self.manifest;
        for (made, step) in spool.steps().enumerate() {
            let step = step?;
            let (differences, after) = engine.compare(&self.key, partial.state, step.changes())?;
            partial.state = after;
            let stored = if step.is_last { &manifest } else { &partial };
            engine.write(&differences, &stored.encode(&self.key)?)?;
            for passage in self.walks.values_mut() {
                for difference in &differences {
                    passage.changed(&self.key, difference);
                }
            }
            if made % STEPS_UNFLUSHED == STEPS_UNFLUSHED - 1 {
                engine.flush()?;
            }
        }
        self.made(&engine, manifest)
    }

    /// The commit of `manifest` is in all parts of the store.
    fn made(&mut self, engine: &Engine, manifest: Manifest) -> Result<(), Error> {
        self.manifest = manifest;
        self.publish();
        self.unflushed += 1;
        if self.unflushed >= UNFLUSHED {
            engine.flush()?;
            self.unflushed = 0;
        }
        Ok(())
    }

    fn flush(&mut self) {
        self.unflushed = 0;
        self.watchdog.begin(0);
        if self.writable().is_ok()
            && let Err(error) = self.shared.engine().flush()
        {
            self.shared.fail(&error);
        }
        self.watchdog.end();
    }

    /// Makes of `copy`, which walk `id` filled, the store's engine, and begins the rewriting of the
    /// journal. One that fails is the last, unless it is [`Error::NotRewritten`].
    fn exchange(&mut self, id: WalkId, copy: Copy) -> Result<Exchanged, Error> {
        let path = self.path.clone();
        let places = Places::of(&path);
        let walked = self.walk_finish(id);
        walked
            .and_then(|walked| copy.finish(&places, &self.key, &walked.changes, &self.manifest))
            .map_err(|error| not_rewritten(&error))?;
        let exchanged = self.replace_engine(&places);
        // What is written now could be lost, or what was removed could stay.
        exchanged.inspect_err(|error| self.shared.fail(error))
    }

    fn replace_engine(&mut self, places: &Places<'_>) -> Result<Exchanged, Error> {
        let former_path = places.swap(exchange)?.to_owned();
        let engine = Engine::open(&self.path, CACHE_BYTES)?;
        let manifest = engine.manifest()?.map(|manifest| Manifest::decode(&self.key, &manifest));
        if manifest != Some(Ok(self.manifest)) {
            return Err(damaged(&self.path, "the copy has lost its last commit".to_owned()));
        }
        self.unflushed = 0;
        let former = self.shared.replace(engine);
        let base = self.journal.begin_rewriting()?;
        Ok(Exchanged { former, path: former_path, base })
    }

    fn walk_next(&mut self, id: WalkId) -> Result<Vec<(Tree, Pair)>, Error> {
        let passage = self.walks.get_mut(&id).ok_or(Error::ReadOnly)?;
        passage.next(&self.key, &self.shared.engine())
    }

    fn walk_changes(&mut self, id: WalkId) -> Result<Vec<Changed>, Error> {
        let passage = self.walks.get_mut(&id).ok_or(Error::ReadOnly)?;
        passage.changes(&self.shared.engine())
    }

    fn walk_finish(&mut self, id: WalkId) -> Result<Snapshot, Error> {
        let mut passage = self.walks.remove(&id).ok_or(Error::ReadOnly)?;
        // After a failure the engine may have what was not acknowledged, or lack what was.
        self.writable()?;
        let changes = passage.finish(&self.key, &self.shared.engine())?;
        if !passage.is(&self.manifest.state) {
            let error = passage.difference(&self.path, &self.manifest.state);
            self.shared.fail(&error);
            return Err(error);
        }
        self.shared.set_checked();
        let manifest = self.manifest.encode(&self.key)?;
        let State { number, .. } = self.manifest.state;
        let pairs = self.manifest.state.pairs();
        Ok(Snapshot { changes, manifest, number, pairs })
    }

    fn writable(&self) -> Result<(), Error> {
        if self.shared.is_read_only() { Err(Error::ReadOnly) } else { Ok(()) }
    }

    fn publish(&self) {
        self.shared.set_commit(&self.manifest.state, self.journal.bytes());
    }
}

/// The commits that go together with `first`; `next` is a command that does not.
fn collect(first: Commit, queue: &Receiver<Command>, next: &mut Option<Command>) -> Vec<Commit> {
    let mut size = first.batch.size();
    let mut group = vec![first];
    while group.len() < GROUP_BATCHES && size < GROUP_BYTES {
        match queue.try_recv() {
            Ok(Command::Commit(commit)) => {
                size += commit.batch.size();
                group.push(commit);
            }
            Ok(other) => {
                *next = Some(other);
                break;
            }
            Err(_) => break,
        }
    }
    group
}
