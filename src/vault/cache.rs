//! What was opened lately, for a while.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Revision;
use super::expiry::Expiry;
use crate::clock::Clock;
use crate::tenant::TenantId;

/// One value per tenant, each of one revision of that tenant. The deadline counts from the opening:
/// use does not move it, and it passes while the machine is suspended. `Debug` shows how many there are.
pub(super) struct Cache<T> {
    ttl: Duration,
    clock: Arc<dyn Clock>,
    state: Mutex<State<T>>,
}

struct State<T> {
    entries: HashMap<TenantId, Entry<T>>,
    /// By their deadlines.
    expiry: Expiry<TenantId>,
}

struct Entry<T> {
    revision: Revision,
    /// Since boot.
    deadline: Duration,
    value: Arc<T>,
}

impl<T> Cache<T> {
    pub(super) fn new(ttl: Duration, clock: Arc<dyn Clock>) -> Self {
        let state = State { entries: HashMap::new(), expiry: Expiry::new() };
        Self { ttl, clock, state: Mutex::new(state) }
    }

    pub(super) fn get(&self, id: &TenantId, revision: Revision) -> Option<Arc<T>> {
        let state = self.lock();
        let entry = state.entries.get(id)?;
        let fresh = entry.revision == revision && self.clock.boot() < entry.deadline;
        fresh.then(|| Arc::clone(&entry.value))
    }

    pub(super) fn insert(&self, id: &TenantId, revision: Revision, value: Arc<T>) {
        // A deadline beyond the end of time is none that could be kept: nothing is cached.
        if let Some(deadline) = self.clock.boot().checked_add(self.ttl) {
            let State { entries, expiry } = &mut *self.lock();
            entries.insert(id.clone(), Entry { revision, deadline, value });
            let is_live = |id: &TenantId, deadline| {
                entries.get(id).is_some_and(|entry| entry.deadline == deadline)
            };
            expiry.push(deadline, id.clone(), entries.len(), is_live);
        }
    }

    pub(super) fn remove(&self, id: &TenantId) {
        self.lock().entries.remove(id);
    }

    /// Drops what is past its deadline. Costs as much as there is of that.
    pub(super) fn sweep(&self) {
        let now = self.clock.boot();
        let State { entries, expiry } = &mut *self.lock();
        while let Some((deadline, id)) = expiry.take_due(|deadline| deadline <= now) {
            // One that was opened again has another.
            if entries.get(&id).is_some_and(|entry| entry.deadline == deadline) {
                entries.remove(&id);
            }
        }
    }

    pub(super) fn clear(&self) {
        let mut state = self.lock();
        state.entries.clear();
        state.expiry.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} entries)", self.lock().entries.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SystemClock};
    use crate::tenant::IdRule;
    use crate::vault::Uuid;

    const TTL: Duration = Duration::from_mins(5);

    #[test]
    fn what_is_opened_again_is_dropped_at_its_own_time_and_not_before() {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let cache = Cache::new(TTL, Arc::<ManualClock>::clone(&clock));
        let id = |text| TenantId::parse(text, IdRule::Alphanumeric).unwrap();
        let (again, once) = (id("tenant001"), id("tenant002"));
        let revision = Revision { uuid: Uuid([7; 16]), version: 1 };
        let held = Arc::new("a password");
        cache.insert(&again, revision, Arc::clone(&held));
        cache.insert(&once, revision, Arc::clone(&held));
        clock.advance(TTL / 2);
        cache.insert(&again, revision, Arc::clone(&held));
        clock.advance(TTL / 2);
        cache.sweep();
        assert_eq!(Arc::strong_count(&held), 2);
        assert!(cache.get(&again, revision).is_some() && cache.get(&once, revision).is_none());
        clock.advance(TTL / 2);
        cache.sweep();
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
