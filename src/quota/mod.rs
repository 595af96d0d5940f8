//! How much a tenant may use: statements per hour and per day, refused attempts per hour.
//!
//! ```text
//! Limiter::meter --> Meter, one per tenant --acquire--> Permit --(dropped)--> the statement is over;
//!   restore: what was saved                                                   its count stays
//!   save: what changed, some times a second (by whoever owns the vault)
//! ```
//!
//! How many run at the same moment is only counted here: the pool has that many instances, and more
//! callers wait for one. A limit of 0 is refused here, with a code that says so.
//!
//! Windows slide: in *any* 60 minutes, and in any 24 hours, at most so many statements begin. They
//! slide in steps (one minute, 15 minutes, and five for refused attempts), and a step counts until
//! all of it is out of the window, so the limit is never passed. A statement that never had a session,
//! because others had them all or the database was away, is taken back. Counts are exact under
//! concurrency: check and count are one step under the tenant's lock.
//!
//! A meter's time goes on with the time since boot, from where it was saved: setting the clock
//! neither frees anything nor keeps anything. Only over a reboot of the machine is it the wall clock
//! that says how long ago the counts were saved; one that was set back meanwhile counts as no time.
//!
//! Refused attempts are counted by caller, so that one client that probes does not lock out the
//! others of its tenant; see [`Meter::deny`]. One at a path that names another tenant than the token's
//! counts with the token's own.
//!
//! Acquiring takes one short lock, and so does dropping the permit; no allocation after a tenant's
//! first call. What nobody uses is dropped from memory once it is saved.

mod meter;
mod saved;
#[cfg(test)]
mod tests;
mod window;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;
use crate::error::ErrorCode;
use crate::tenant::TenantId;

pub use meter::{MAX_CALLER, Meter, Permit, Unbegun};
pub use saved::Malformed;

/// Has the meter of every tenant that is in use.
#[derive(Debug)]
pub struct Limiter {
    shared: Arc<Shared>,
    meters: Mutex<HashMap<TenantId, Arc<Meter>>>,
    saving: Mutex<()>,
}

/// What all meters share.
#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    boot_id: Option<[u8; 16]>,
    /// Those that have counted since they were taken to be saved, each once.
    changed: Mutex<Vec<Weak<Meter>>>,
}

/// A quota is used up.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("quota {quota} ({limit}) is used up")]
pub struct Exceeded {
    /// The quota's name in the tenant file.
    pub quota: &'static str,
    /// Its value.
    pub limit: u64,
    /// When one more statement will be allowed, if nothing else uses it up; `None` when the limit is
    /// 0. Of several quotas that are used up, this is the one to wait longest for.
    pub retry_after: Option<Duration>,
}

impl Exceeded {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::QuotaExceeded
    }
}

/// How much of a quota is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Usage {
    /// The quota's name in the tenant file.
    pub quota: &'static str,
    /// Its value; `None` is unlimited.
    pub limit: Option<u64>,
    /// What counts against it now.
    pub used: u64,
    /// When the oldest of that stops counting.
    pub resets_at: Option<Timestamp>,
}

impl Limiter {
    /// A limiter that has counted nothing.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let boot_id = clock.boot_id();
        let shared = Shared { clock, boot_id, changed: Mutex::default() };
        Self { shared: Arc::new(shared), meters: Mutex::default(), saving: Mutex::default() }
    }

    /// The meter of `tenant`, which was first imported at `born`: one that was removed and came back
    /// has another one, whatever the clock said then. Unless it [is restored](Meter::is_restored), it
    /// is to be [restored](Meter::restore) before it counts.
    pub fn meter(&self, tenant: &TenantId, born: Timestamp) -> Arc<Meter> {
        let mut meters = self.meters();
        if let Some(meter) = meters.get(tenant)
            && meter.born() == born
        {
            return Arc::clone(meter);
        }
        let meter = Arc::new(Meter::new(tenant.clone(), born, Arc::clone(&self.shared)));
        meters.insert(tenant.clone(), Arc::clone(&meter));
        meter
    }

    /// The meter of `tenant`, if it is in memory.
    pub fn existing(&self, tenant: &TenantId) -> Option<Arc<Meter>> {
        self.meters().get(tenant).cloned()
    }

    /// To be held from [`Self::take_changed`] until those are saved or put back: who finds nothing to
    /// save then knows that all of it is saved, not that somebody is about to.
    pub fn saving(&self) -> MutexGuard<'_, ()> {
        // There is nothing in it.
        self.saving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that have counted since they were taken last, for whoever [saves](Meter::save) them now.
    /// To be kept until that is through: what nobody has may be [dropped](Self::sweep).
    pub fn take_changed(&self) -> Vec<Arc<Meter>> {
        let changed = {
            let mut changed = self.shared.changed();
            // As much room as before: whoever counts next should not have to make it.
            let room = Vec::with_capacity(changed.len());
            std::mem::replace(&mut *changed, room)
        };
        let changed: Vec<_> = changed.iter().filter_map(Weak::upgrade).collect();
        for meter in &changed {
            meter.set_taken();
        }
        changed
    }

    /// Has `meter` among the changed ones again, as it could not be saved.
    pub fn put_back(&self, meter: &Arc<Meter>) {
        meter.set_changed();
    }

    /// Drops `meter`, whose tenant is gone.
    pub fn forget(&self, meter: &Arc<Meter>) {
        let mut meters = self.meters();
        if meters.get(meter.tenant()).is_some_and(|present| Arc::ptr_eq(present, meter)) {
            meters.remove(meter.tenant());
        }
    }

    /// Drops what nobody uses and what is saved, and says how much that was. Looks at every meter
    /// in memory, once nobody saves any.
    pub fn sweep(&self) -> usize {
        let _saving = self.saving();
        let mut meters = self.meters();
        let before = meters.len();
        // A meter is given out or taken under the locks that we hold, so what is ours alone stays so.
        meters.retain(|_, meter| Arc::strong_count(meter) > 1 || meter.is_changed());
        before - meters.len()
    }

    fn meters(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Meter>>> {
        // Whole after any panic: each change is one insertion or removal.
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn changed(&self) -> MutexGuard<'_, Vec<Weak<Meter>>> {
        // Whole after any panic, too.
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
