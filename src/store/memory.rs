//! A store that forgets.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use super::pairs::Entry;
use super::{Batch, Condition, Error, LargeBatch, Operation, Pair, Snapshot, Store, Tree, Walk};

/// A [`Store`] in memory, for tests: atomic, not durable.
#[derive(Default)]
pub struct MemoryStore(RwLock<Pairs>);

type Pairs = BTreeMap<(Tree, Vec<u8>), Vec<u8>>;

impl Store for MemoryStore {
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let pairs = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(pairs.get(&(tree, key.to_vec())).cloned())
    }

    fn scan(&self, tree: Tree, prefix: &[u8]) -> Result<Vec<Pair>, Error> {
        let pairs = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = pairs
            .range((tree, prefix.to_vec())..)
            .take_while(|((of, key), _)| *of == tree && key.starts_with(prefix))
            .map(|((_, key), value)| (key.clone(), value.clone()));
        Ok(found.collect())
    }

    fn scan_after(
        &self,
        tree: Tree,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        let pairs = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let from = match after {
            Some(key) => Bound::Excluded((tree, key.to_vec())),
            None => Bound::Included((tree, Vec::new())),
        };
        let found = pairs
            .range((from, Bound::Unbounded))
            .take_while(|((of, _), _)| *of == tree)
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()));
        Ok(found.collect())
    }

    fn apply(&self, batch: Batch) -> Result<(), Error> {
        batch.check_sizes()?;
        let mut pairs = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for operation in batch.0 {
            let key = (operation.tree, operation.key);
            match operation.value {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        Ok(())
    }

    fn apply_large(&self, batch: LargeBatch) -> Result<(), Error> {
        let mut changes = Batch::default();
        for step in batch.finish()?.steps() {
            let entries = step?.entries.into_iter();
            changes.0.extend(entries.map(|Entry { tree, key, value }| Operation {
                tree,
                key,
                value,
            }));
        }
        self.apply(changes)
    }

    /// Nothing to do: what was removed is in no file.
    fn rewrite(&self) -> Result<(), Error> {
        Ok(())
    }

    /// A copy of what there is.
    fn walk(&self) -> Result<Box<dyn Walk>, Error> {
        let pairs = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let pairs = pairs.iter().map(|((tree, key), value)| (*tree, (key.clone(), value.clone())));
        Ok(Box::new(Copy(pairs.collect())))
    }

    fn condition(&self) -> Condition {
        let pairs = self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u64;
        Condition { pairs, is_checked: true, ..Condition::default() }
    }

    /// Nothing to do: there is no journal.
    fn release_journal(&self, _number: u64) -> Result<(), Error> {
        Ok(())
    }
}

/// The pairs of a [`MemoryStore`] at one moment.
struct Copy(VecDeque<(Tree, Pair)>);

impl Walk for Copy {
    fn next(&mut self) -> Result<Vec<(Tree, Pair)>, Error> {
        let next = self.0.len().min(512);
        Ok(self.0.drain(..next).collect())
    }

    fn finish(self: Box<Self>) -> Result<Snapshot, Error> {
        let changes = self.0.into_iter().map(|(tree, (key, value))| (tree, key, Some(value)));
        Ok(Snapshot { changes: changes.collect(), manifest: Vec::new(), number: 0, pairs: 0 })
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
