//! Which tenants are awake.
//!
//! By a hash of their ids they are spread over shards, each with a lock on cache lines of its own: to
//! find one, which every lease does, hashes once, and writes nothing that others read unless they
//! chance to be in the same shard. To wake or to forget one costs the same however many are awake.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::hash_table::{self, HashTable};

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
    entries: HashTable<Arc<Entry>>,
    /// Nothing is added any more.
    shut_down: bool,
}

impl Tenants {
    /// The entry of `tenant`, if it is awake.
    pub(super) fn get(&self, tenant: &TenantId) -> Result<Option<Arc<Entry>>, Error> {
        let hash = self.hash(tenant);
        let awake = self.shard(hash).read();
        if awake.shut_down { Err(Error::ShutDown) } else { Ok(awake.get(hash, tenant).cloned()) }
    }

    /// Puts `entry` there if it `is_wanted`, which is asked while nobody can take entries out, and
    /// gives the one that is out of date. False when it is not wanted.
    pub(super) fn put(
        &self,
        entry: &Arc<Entry>,
        is_wanted: impl FnOnce() -> bool,
    ) -> Result<(bool, Option<Arc<Entry>>), Error> {
        let hash = self.hash(entry.tenant());
        let mut awake = self.shard(hash).write();
        if awake.shut_down {
            return Err(Error::ShutDown);
        }
        if !is_wanted() {
            return Ok((false, None));
        }
        let is_it = |there: &Arc<Entry>| there.tenant() == entry.tenant();
        let entry = Arc::clone(entry);
        match awake.entries.entry(hash, is_it, |there| self.hash(there.tenant())) {
            hash_table::Entry::Occupied(mut there) => {
                Ok((true, Some(std::mem::replace(there.get_mut(), entry))))
            }
            hash_table::Entry::Vacant(place) => {
                place.insert(entry);
                Ok((true, None))
            }
        }
    }

    /// Takes one tenant out.
    pub(super) fn take(&self, tenant: &TenantId) -> Option<Arc<Entry>> {
        let hash = self.hash(tenant);
        self.shard(hash).write().take(hash, |there| there.tenant() == tenant)
    }

    /// Takes `entry` out, if it is still there.
    fn remove(&self, entry: &Arc<Entry>) {
        let hash = self.hash(entry.tenant());
        self.shard(hash).write().take(hash, |there| Arc::ptr_eq(there, entry));
    }

    /// Takes `entry` out, if nobody has it but the caller. False when somebody has.
    pub(super) fn forget_unused(&self, entry: &Arc<Entry>) -> bool {
        let hash = self.hash(entry.tenant());
        let mut awake = self.shard(hash).write();
        let there = awake.get(hash, entry.tenant());
        let is_there = there.is_some_and(|there| Arc::ptr_eq(there, entry));
        // Here and with the caller. Others get it from here only, for which they need the lock.
        let is_unused = Arc::strong_count(entry) == 2 && entry.stock.state().is_empty();
        if is_there && is_unused {
            awake.take(hash, |there| Arc::ptr_eq(there, entry));
        }
        is_unused || !is_there
    }

    /// Every tenant that is awake.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.read().entries.iter().cloned());
        }
        all
    }

    /// Takes every tenant out; with `for_good` none comes back.
    pub(super) fn take_all(&self, for_good: bool) -> Vec<Arc<Entry>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut awake = shard.write();
            awake.shut_down |= for_good;
            all.extend(awake.entries.drain());
        }
        all
    }

    fn hash(&self, tenant: &TenantId) -> u64 {
        self.hasher.hash_one(tenant)
    }

    fn shard(&self, hash: u64) -> &Shard {
        // From the middle: the table goes by both ends.
        let shard = ((hash >> 32) % SHARDS as u64) as usize;
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
    fn get(&self, hash: u64, tenant: &TenantId) -> Option<&Arc<Entry>> {
        self.entries.find(hash, |there| there.tenant() == tenant)
    }

    fn take(&mut self, hash: u64, is_it: impl Fn(&Arc<Entry>) -> bool) -> Option<Arc<Entry>> {
        self.entries.find_entry(hash, is_it).ok().map(|there| there.remove().0)
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
