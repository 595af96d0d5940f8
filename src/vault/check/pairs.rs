//! Every pair of a store, for a check of all.

use std::sync::Arc;

use super::REOPEN;
use super::report::{Finding, Part, PartReport};
use crate::store::{self, Pair, Store, Tree, Walk};

/// How many pairs are read at a time where there is no walk.
const PAGE: usize = 512;

/// Every pair of a store, once, in the order of trees and keys.
pub(super) enum Pairs {
    Walk(Box<dyn Walk>),
    /// Of a store that takes no writes, or of a copy: it does not say what there should be.
    Pages {
        store: Arc<dyn Store>,
        tree: usize,
        after: Option<Vec<u8>>,
    },
}

impl Pairs {
    pub(super) fn of(store: &Arc<dyn Store>) -> Self {
        match store.walk() {
            Ok(walk) => Self::Walk(walk),
            // One that takes no writes has no walk, and can be read.
            Err(_) => Self::pages(Arc::clone(store)),
        }
    }

    pub(super) fn pages(store: Arc<dyn Store>) -> Self {
        Self::Pages { store, tree: 0, after: None }
    }

    /// The next ones; none at the end.
    pub(super) fn next(&mut self) -> Result<Vec<(Tree, Pair)>, store::Error> {
        match self {
            Self::Walk(walk) => walk.next(),
            Self::Pages { store, tree, after } => loop {
                let Some(of) = Tree::ALL.get(*tree) else { return Ok(Vec::new()) };
                let pairs = store.scan_after(*of, after.as_deref(), PAGE)?;
                if let Some((key, _)) = pairs.last() {
                    *after = Some(key.clone());
                    return Ok(pairs.into_iter().map(|pair| (*of, pair)).collect());
                }
                (*tree, *after) = (*tree + 1, None);
            },
        }
    }

    /// Whether all pairs together are what the commits made.
    pub(super) fn finish(self) -> PartReport {
        let mut part = PartReport::new(Part::Manifest);
        match self {
            Self::Walk(walk) => match walk.finish() {
                Ok(snapshot) => part.checked = snapshot.pairs,
                Err(store::Error::Damaged { reason, .. }) => {
                    part.damaged(Finding::new(reason, REOPEN));
                }
                Err(error) => return PartReport::unchecked(Part::Manifest, error.to_string()),
            },
            Self::Pages { store, .. } => {
                let condition = store.condition();
                let reason = condition.read_only.unwrap_or_else(|| "a write failed".to_owned());
                let reason =
                    format!("the store takes no writes ({reason}); restart the service first");
                return PartReport::unchecked(Part::Manifest, reason);
            }
        }
        part
    }
}
