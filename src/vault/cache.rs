//! What was opened lately, for a while.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Revision;
use crate::clock::Clock;
use crate::tenant::TenantId;

/// One value per tenant, each of one revision of that tenant. The deadline counts from the opening:
/// use does not move it, and it passes while the machine is suspended. `Debug` shows how many there are.
pub(super) struct Cache<T> {
    ttl: Duration,
    clock: Arc<dyn Clock>,
    entries: Mutex<HashMap<TenantId, Entry<T>>>,
}

struct Entry<T> {
    revision: Revision,
    /// Since boot.
    deadline: Duration,
    value: Arc<T>,
}

impl<T> Cache<T> {
    pub(super) fn new(ttl: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { ttl, clock, entries: Mutex::default() }
    }

    pub(super) fn get(&self, id: &TenantId, revision: Revision) -> Option<Arc<T>> {
        let entries = self.lock();
        let entry = entries.get(id)?;
        let fresh = entry.revision == revision && self.clock.boot() < entry.deadline;
        fresh.then(|| Arc::clone(&entry.value))
    }

    pub(super) fn insert(&self, id: &TenantId, revision: Revision, value: Arc<T>) {
        // A deadline beyond the end of time is none that could be kept: nothing is cached.
        if let Some(deadline) = self.clock.boot().checked_add(self.ttl) {
            self.lock().insert(id.clone(), Entry { revision, deadline, value });
        }
    }

    pub(super) fn remove(&self, id: &TenantId) {
        self.lock().remove(id);
    }

    /// Drops what is past its deadline.
    pub(super) fn sweep(&self) {
        let now = self.clock.boot();
        self.lock().retain(|_, entry| now < entry.deadline);
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Entry<T>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} entries)", self.lock().len())
    }
}
