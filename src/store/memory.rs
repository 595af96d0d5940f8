//! A store that forgets.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use super::{Batch, Error, Pair, Store, Tree};

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

    /// Nothing to do: what was removed is in no file.
    fn rewrite(&self) -> Result<(), Error> {
        Ok(())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
