//! How many calls of a tenant may have an instance at the same moment.
//!
//! They are the tenant's, and not its entry's: what a call has that began before a change of the
//! tenant, those after it cannot have as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::tenant::TenantId;

/// The places of every tenant that is awake, or has calls from before it was closed.
#[derive(Debug, Default)]
pub(super) struct AllPlaces {
    tenants: Mutex<HashMap<TenantId, Weak<Places>>>,
}

/// Those of one tenant.
#[derive(Debug)]
pub(super) struct Places {
    tenant: TenantId,
    all: Arc<AllPlaces>,
    free: Semaphore,
    /// Held while places are given back or change in number.
    count: Mutex<Count>,
}

#[derive(Debug, Default)]
struct Count {
    /// How many there are, taken ones included.
    limit: usize,
    /// How many were taken when there came to be fewer: those are gone when they come back.
    surplus: usize,
}

impl AllPlaces {
    /// The places of `tenant`, of which there are `limit` from now on.
    pub(super) fn of(self: &Arc<Self>, tenant: &TenantId, limit: usize) -> Arc<Places> {
        let mut tenants = self.lock();
        let there = tenants.get(tenant).and_then(Weak::upgrade);
        let places = there.unwrap_or_else(|| {
            let places = Arc::new(Places {
                tenant: tenant.clone(),
                all: Arc::clone(self),
                free: Semaphore::new(0),
                count: Mutex::default(),
            });
            tenants.insert(tenant.clone(), Arc::downgrade(&places));
            places
        });
        // The last one to let go of it takes this lock.
        drop(tenants);
        places.resize(limit);
        places
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Weak<Places>>> {
        // Whole after any panic: each change is one insertion or removal.
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Takes one, if one is free and nobody waits for it.
    pub(super) fn try_take(&self) -> bool {
        self.free.try_acquire().map(SemaphorePermit::forget).is_ok()
    }

    /// Takes one, in turn.
    ///
    /// Cancellation: none is taken.
    pub(super) async fn take(&self) {
        // Never closed.
        if let Ok(place) = self.free.acquire().await {
            place.forget();
        }
    }

    /// Gives one back.
    pub(super) fn give_back(&self) {
        self.settle(&mut self.count());
    }

    fn resize(&self, limit: usize) {
        let mut count = self.count();
        for _ in count.limit..limit {
            self.settle(&mut count);
        }
        let fewer = count.limit.saturating_sub(limit);
        count.surplus += fewer - self.free.forget_permits(fewer);
        count.limit = limit;
    }

    /// Makes one free, unless there are too many.
    fn settle(&self, count: &mut Count) {
        match count.surplus.checked_sub(1) {
            Some(surplus) => count.surplus = surplus,
            None => self.free.add_permits(1),
        }
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        // Whole after any panic: nothing here panics while it holds the lock.
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let mut tenants = self.all.lock();
        // Others may have come after the last one let go of these.
        if tenants.get(&self.tenant).is_some_and(|there| there.strong_count() == 0) {
            tenants.remove(&self.tenant);
        }
    }
}
