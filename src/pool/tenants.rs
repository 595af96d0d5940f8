//! Which tenants are awake.
//!
//! By a hash of their ids they are spread over shards, each with a lock on cache lines of its own: to
//! find one, which every lease does, writes nothing that others read unless they chance to be in the
//! same shard. To wake or to forget one costs the same however many are awake.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::entry::Entry;
use super::{Error, Pool};
use crate::tenant::TenantId;
use crate::vault;

/// So many that threads rarely meet in one; 32 KB.
const SHARDS: usize = 256;

/// An entry for each tenant that is awake, of the revision that was current when it was last asked
/// for.
#[derive(Debug)]
pub(super) struct Tenants {
    hasher: RandomState,
    shards: Box<[Shard]>,
}

/// Two cache lines, as processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(RwLock<Awake>);

#[derive(Debug, Default)]
struct Awake {
    entries: HashMap<TenantId, Arc<Entry>>,
    /// Nothing is added any more.
    shut_down: bool,
}

impl Tenants {
    /// The entry of `tenant`, if it is awake.
    pub(super) fn get(&self, tenant: &TenantId) -> Result<Option<Arc<Entry>>, Error> {
        let awake = self.shard(tenant).read();
        if awake.shut_down { Err(Error::ShutDown) } else { Ok(awake.entries.get(tenant).cloned()) }
    }

    /// Puts `entry` there if it `is_wanted`, which is asked while nobody can take entries out, and
    /// gives the one that is out of date. False when it is not wanted.
    pub(super) fn put(
        &self,
        entry: &Arc<Entry>,
        is_wanted: impl FnOnce() -> bool,
    ) -> Result<(bool, Option<Arc<Entry>>), Error> {
        let mut awake = self.shard(entry.tenant()).write();
        if awake.shut_down {
            return Err(Error::ShutDown);
        }
        if !is_wanted() {
            return Ok((false, None));
        }
        Ok((true, awake.entries.insert(entry.tenant().clone(), Arc::clone(entry))))
    }

    /// Takes one tenant out.
    pub(super) fn take(&self, tenant: &TenantId) -> Option<Arc<Entry>> {
        self.shard(tenant).write().entries.remove(tenant)
    }

    /// Takes `entry` out, if it is still there.
    fn remove(&self, entry: &Arc<Entry>) {
        let mut awake = self.shard(entry.tenant()).write();
        if awake.has(entry) {
            awake.entries.remove(entry.tenant());
        }
    }

    /// Takes `entry` out, if nobody has it but the caller. False when somebody has.
    pub(super) fn forget_unused(&self, entry: &Arc<Entry>) -> bool {
        let mut awake = self.shard(entry.tenant()).write();
        let is_there = awake.has(entry);
        // Here and with the caller. Others get it from here only, for which they need the lock.
        let is_unused = Arc::strong_count(entry) == 2 && entry.stock.state().is_empty();
        if is_there && is_unused {
            awake.entries.remove(entry.tenant());
        }
        is_unused || !is_there
    }

    /// Every tenant that is awake.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.read().entries.values().cloned());
        }
        all
    }

    /// Takes every tenant out; with `for_good` none comes back.
    pub(super) fn take_all(&self, for_good: bool) -> Vec<Arc<Entry>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut awake = shard.write();
            awake.shut_down |= for_good;
            all.extend(awake.entries.drain().map(|(_, entry)| entry));
        }
        all
    }

    fn shard(&self, tenant: &TenantId) -> &Shard {
        let hash = self.hasher.hash_one(tenant);
        // Below the number of shards, and so an index.
        #[expect(clippy::cast_possible_truncation, reason = "of a remainder")]
        let shard = (hash % SHARDS as u64) as usize;
        &self.shards[shard]
    }
}

impl Default for Tenants {
    fn default() -> Self {
        let shards = std::iter::repeat_with(Shard::default).take(SHARDS).collect();
        Self { hasher: RandomState::new(), shards }
    }
}

impl Shard {
    fn read(&self) -> RwLockReadGuard<'_, Awake> {
        // Whole after any panic: each change is one insertion or removal.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Awake> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awake {
    fn has(&self, entry: &Arc<Entry>) -> bool {
        self.entries.get(entry.tenant()).is_some_and(|there| Arc::ptr_eq(there, entry))
    }
}

impl Pool {
    /// Closes what is not as the vault has it.
    pub(super) fn close_outdated(&self) {
        for entry in self.tenants.all() {
            if entry.stock.is_closed() || !self.is_current(&entry).unwrap_or(false) {
                self.tenants.remove(&entry);
                entry.end();
            }
        }
    }

    /// Whether `entry` is as the vault has it. May block.
    pub(super) fn is_current(&self, entry: &Entry) -> Result<bool, vault::Error> {
        if entry.watch.is_unchanged() {
            return Ok(true);
        }
        self.vault.is_current(entry.tenant(), entry.revision, &entry.watch)
    }
}
