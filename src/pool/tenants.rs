//! Which tenants are awake.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use super::entry::Entry;
use super::{Error, Shared};
use crate::tenant::TenantId;

/// An entry for each tenant that is awake, of the revision that was current when it was last asked
/// for.
#[derive(Debug, Default)]
pub(super) struct Tenants {
    entries: HashMap<TenantId, Arc<Entry>>,
    /// Nothing is added any more.
    shut_down: bool,
}

impl Tenants {
    pub(super) fn get(&self, tenant: &TenantId) -> Result<Option<&Arc<Entry>>, Error> {
        if self.shut_down { Err(Error::ShutDown) } else { Ok(self.entries.get(tenant)) }
    }

    /// Puts `entry` there, and gives the one that is out of date.
    pub(super) fn put(&mut self, entry: Arc<Entry>) -> Result<Option<Arc<Entry>>, Error> {
        if self.shut_down {
            return Err(Error::ShutDown);
        }
        Ok(self.entries.insert(entry.tenant().clone(), entry))
    }

    /// Takes `entry` out, if nobody has it but the caller. False when somebody has.
    pub(super) fn forget_unused(&mut self, entry: &Arc<Entry>) -> bool {
        let is_there = self.is_there(entry);
        // Here and with the caller. Others get it from here only, for which they need the lock.
        let is_unused = Arc::strong_count(entry) == 2 && entry.state().is_empty();
        if is_there && is_unused {
            self.entries.remove(entry.tenant());
        }
        is_unused || !is_there
    }

    /// Takes `entry` out, if it is still there.
    fn remove(&mut self, entry: &Arc<Entry>) {
        if self.is_there(entry) {
            self.entries.remove(entry.tenant());
        }
    }

    fn is_there(&self, entry: &Arc<Entry>) -> bool {
        self.entries.get(entry.tenant()).is_some_and(|there| Arc::ptr_eq(there, entry))
    }
}

impl Shared {
    pub(super) fn tenants(&self) -> RwLockReadGuard<'_, Tenants> {
        // Whole after any panic: each change is one insertion or removal.
        self.tenants.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tenants_mut(&self) -> RwLockWriteGuard<'_, Tenants> {
        self.tenants.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every tenant that is awake.
    pub(super) fn entries(&self) -> Vec<Arc<Entry>> {
        self.tenants().entries.values().cloned().collect()
    }

    /// Takes every tenant out; with `for_good` none comes back.
    pub(super) fn take_entries(&self, for_good: bool) -> Vec<Arc<Entry>> {
        let mut tenants = self.tenants_mut();
        tenants.shut_down |= for_good;
        tenants.entries.drain().map(|(_, entry)| entry).collect()
    }

    /// Takes one tenant out.
    pub(super) fn take_entry(&self, tenant: &TenantId) -> Option<Arc<Entry>> {
        self.tenants_mut().entries.remove(tenant)
    }

    /// Closes what is not as the vault has it.
    pub(super) fn close_outdated(&self) {
        for entry in self.entries() {
            if !self.is_current(&entry).unwrap_or(false) {
                self.tenants_mut().remove(&entry);
                entry.end();
            }
        }
    }

    /// Whether `entry` is as the vault has it.
    pub(super) fn is_current(&self, entry: &Entry) -> Result<bool, Error> {
        Ok(self.vault.revision(entry.tenant())? == entry.revision && !entry.is_closed())
    }
}
