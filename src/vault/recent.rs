//! Tenants that were looked up lately, and who is told when that may be out of date.
//!
//! ```text
//! get --noted--> value             watch: armed ---changed, past its time, sealed---> not armed:
//!   \--else: read it, note it       is_unchanged costs a load                         ask again
//! ```
//!
//! A [`Watch`] is disarmed before the change that it tells of returns to who made it, and armed only
//! under the lock under which it is disarmed. So who finds it armed, after a change has returned,
//! armed it after that change. What the model of `tests/recent.rs` explores is this file.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::expiry::Expiry;
use super::sync::{AtomicBool, Ordering, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Says, as long as it does, that a tenant is as it was found. New, it says nothing;
/// [`is_current`](super::TenantCredentialVault::is_current) arms it.
#[derive(Debug)]
pub struct Watch {
    is_armed: AtomicBool,
}

impl Watch {
    /// Whether nothing has changed since it was armed. Costs a load, of what is written only when
    /// that changes.
    pub fn is_unchanged(&self) -> bool {
        self.is_armed.load(Ordering::Acquire)
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self { is_armed: AtomicBool::new(false) }
    }
}

/// What was looked up lately, so that what is in use is not read again for every call. All that it
/// says is on the disk already.
pub(super) struct Recent<K, V> {
    state: RwLock<State<K, V>>,
}

struct State<K, V> {
    /// Counts changes. What was read before one may not be noted after it.
    changes: u64,
    entries: HashMap<K, Noted<V>>,
    /// By when they were noted.
    expiry: Expiry<K>,
}

struct Noted<V> {
    /// Since boot.
    since: Duration,
    value: Arc<V>,
    watches: Vec<Arc<Watch>>,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    pub(super) fn new() -> Self {
        let (entries, expiry) = (HashMap::new(), Expiry::new());
        Self { state: RwLock::new(State { changes: 0, entries, expiry }) }
    }

    /// How many changes there were.
    pub(super) fn changes(&self) -> u64 {
        self.read().changes
    }

    /// What is noted of `key`; else how many changes there were, for [`Self::note`].
    pub(super) fn get(&self, key: &K) -> Result<Arc<V>, u64> {
        let state = self.read();
        let noted = state.entries.get(key).map(|noted| Arc::clone(&noted.value));
        noted.ok_or(state.changes)
    }

    /// Notes what was read of `key` since there were so many `changes`, if there are no more by now.
    pub(super) fn note(&self, key: &K, since: Duration, value: &Arc<V>, changes: u64) {
        let State { changes: now, entries, expiry } = &mut *self.write();
        // Another one may have read the same meanwhile, and is watched.
        if *now == changes && !entries.contains_key(key) {
            let noted = Noted { since, value: Arc::clone(value), watches: Vec::new() };
            entries.insert(key.clone(), noted);
            let is_live =
                |key: &K, since| entries.get(key).is_some_and(|noted| noted.since == since);
            expiry.push(since, key.clone(), entries.len(), is_live);
        }
    }

    /// Arms `watch`, if what is noted of `key` is `as_expected`.
    pub(super) fn arm(&self, key: &K, watch: &Arc<Watch>, as_expected: impl FnOnce(&V) -> bool) {
        let mut state = self.write();
        let noted = state.entries.get_mut(key).filter(|noted| as_expected(&noted.value));
        if let Some(noted) = noted
            && !watch.is_unchanged()
        {
            noted.watches.retain(|other| Arc::strong_count(other) > 1);
            noted.watches.push(Arc::clone(watch));
            watch.is_armed.store(true, Ordering::Release);
        }
    }

    /// Forgets `keys`, which have changed.
    pub(super) fn changed<'a>(&self, keys: impl IntoIterator<Item = &'a K>)
    where
        K: 'a,
    {
        let mut state = self.write();
        state.changes += 1;
        for key in keys {
            state.entries.remove(key);
        }
    }

    /// Forgets all of them, as all have changed.
    pub(super) fn all_changed(&self) {
        let mut state = self.write();
        state.changes += 1;
        state.entries.clear();
        state.expiry.clear();
    }

    /// Forgets what is noted since a time that `is_due`. Costs as much as there is of that.
    pub(super) fn sweep(&self, is_due: impl Fn(Duration) -> bool) {
        if !self.read().expiry.first().is_some_and(&is_due) {
            return;
        }
        let State { entries, expiry, .. } = &mut *self.write();
        while let Some((since, key)) = expiry.take_due(&is_due) {
            // One that was noted again is of later.
            if entries.get(&key).is_some_and(|noted| noted.since == since) {
                entries.remove(&key);
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State<K, V>> {
        // Whole after any panic: each change is one insertion or removal.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<K, V>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// However it comes to be forgotten, nobody is told any more when it changes.
impl<V> Drop for Noted<V> {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.is_armed.store(false, Ordering::Release);
        }
    }
}
