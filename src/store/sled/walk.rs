//! A walk over every pair, beside readers and writers, that ends as the state of one commit.
//!
//! ```text
//!            passed            |            to come
//! a commit changes a key here: | ... or here:
//! it is noted, comes at the end| the walk will meet the new value
//! ```
//!
//! A rewriting of the store is one whose walker makes a copy. Steps are taken by the committer, between commits, so none of them meets half a commit; 512
//! pairs of 350 bytes take about 1 ms.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{self, Sender, SyncSender};

use super::super::integrity::{IntegrityKey, State};
use super::super::{Changed, Error, Pair, Snapshot, Tree, Walk};
use super::Command;
use super::engine::{Difference, Engine, damaged};

pub(super) const STEP: usize = 512;

/// Names a walk to the committer.
pub(super) type WalkId = u64;

/// What the committer knows of a walk.
#[derive(Default)]
pub(super) struct Passage {
    /// Trees that have been passed as a whole.
    trees: usize,
    /// The last key that was passed in the next one.
    after: Option<Vec<u8>>,
    /// What was passed, as it is now.
    state: State,
    /// Keys that were passed and have changed since.
    changed: BTreeSet<(Tree, Vec<u8>)>,
}

impl Passage {
    pub(super) fn next(
        &mut self,
        key: &IntegrityKey,
        engine: &Engine,
    ) -> Result<Vec<(Tree, Pair)>, Error> {
        while let Some(tree) = Tree::ALL.get(self.trees) {
            let pairs = engine.scan_after(*tree, self.after.as_deref(), STEP)?;
            if let Some((last, _)) = pairs.last() {
                self.after = Some(last.clone());
                for (name, value) in &pairs {
                    self.state.add(key.element(*tree, name, value));
                }
                return Ok(pairs.into_iter().map(|pair| (*tree, pair)).collect());
            }
            self.trees += 1;
            self.after = None;
        }
        Ok(Vec::new())
    }

    /// Takes note of a commit.
    pub(super) fn changed(
        &mut self,
        key: &IntegrityKey,
        Difference { change: (tree, name, now), before }: &Difference<'_>,
    ) {
        let (tree, name) = (*tree, *name);
        let at = tree as usize;
        let is_passed = at < self.trees
            || (at == self.trees && self.after.as_deref().is_some_and(|after| name <= after));
        if !is_passed {
            return;
        }
        if let Some(before) = before {
            self.state.remove(key.element(tree, name, before));
        }
        if let Some(now) = now {
            self.state.add(key.element(tree, name, now));
        }
        self.changed.insert((tree, name.to_vec()));
    }

    /// What changed behind it, as it is now: at most 512 keys, which it has not changed any more.
    pub(super) fn changes(&mut self, engine: &Engine) -> Result<Vec<Changed>, Error> {
        let mut changes = Vec::new();
        while changes.len() < STEP
            && let Some((tree, name)) = self.changed.pop_first()
        {
            let value = engine.get(tree, &name)?.map(|value| value.to_vec());
            changes.push((tree, name, value));
        }
        Ok(changes)
    }

    /// Passes what is left, and answers what the walker has not seen as it is now.
    pub(super) fn finish(
        &mut self,
        key: &IntegrityKey,
        engine: &Engine,
    ) -> Result<Vec<Changed>, Error> {
        let mut changes = Vec::new();
        while !self.changed.is_empty() {
            changes.append(&mut self.changes(engine)?);
        }
        loop {
            let pairs = self.next(key, engine)?;
            if pairs.is_empty() {
                return Ok(changes);
            }
            changes
                .extend(pairs.into_iter().map(|(tree, (name, value))| (tree, name, Some(value))));
        }
    }

    /// Whether what was passed is what the commits made.
    pub(super) fn is(&self, state: &State) -> bool {
        self.state.has_pairs_of(state)
    }

    pub(super) fn difference(&self, path: &Path, state: &State) -> Error {
        let (found, expected) = (self.state.pairs(), state.pairs());
        let reason = format!("its {found} pairs are not the {expected} that were written");
        damaged(path, reason)
    }
}

/// A walk, for who takes it.
pub(super) struct SledWalk {
    id: WalkId,
    commands: SyncSender<Command>,
}

impl SledWalk {
    pub(super) fn begin(id: WalkId, commands: SyncSender<Command>) -> Result<Self, Error> {
        commands.send(Command::WalkBegin { id }).map_err(|_| Error::ReadOnly)?;
        Ok(Self { id, commands })
    }

    /// Has the committer do the command that sends its outcome to what it is given.
    pub(super) fn ask<T>(
        &self,
        command: impl FnOnce(WalkId, Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let (done, answer) = mpsc::channel();
        self.commands.send(command(self.id, done)).map_err(|_| Error::ReadOnly)?;
        // No answer means that the committer panicked.
        answer.recv().unwrap_or(Err(Error::ReadOnly))
    }
}

impl Walk for SledWalk {
    fn next(&mut self) -> Result<Vec<(Tree, Pair)>, Error> {
        self.ask(|id, done| Command::WalkNext { id, done })
    }

    fn finish(self: Box<Self>) -> Result<Snapshot, Error> {
        self.ask(|id, done| Command::WalkFinish { id, done })
    }
}

impl Drop for SledWalk {
    fn drop(&mut self) {
        // The store may be closed.
        drop(self.commands.send(Command::WalkEnd { id: self.id }));
    }
}
