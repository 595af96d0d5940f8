//! One revision of one tenant, and the instances of it that nobody has.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit, TryAcquireError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::session::Instance;
use super::sharing::HandedOver;
use super::{Error, OnChange, Options, Pool, Shared};
use crate::database::Breaker;
use crate::quota::Meter;
use crate::server::{ApiKey, TenantContext};
use crate::tenant::TenantId;
use crate::vault::{Revision, StoredTenant, Watch};

/// A deadline that is put off lies ahead, by more than the precision of what it is counted from.
const SHORTEST_IDLE: Duration = Duration::from_millis(10);
/// Ten years: further ahead the clock may have no name for it.
const LONGEST_IDLE: Duration = Duration::from_hours(24 * 365 * 10);

/// What the pool has of a tenant that is awake; one that sleeps has none.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) revision: Revision,
    /// Says whether that is still the current one.
    pub(super) watch: Arc<Watch>,
    /// Tells the entries of a pool apart.
    pub(super) generation: u64,
    enabled: bool,
    pub(super) options: Arc<Options>,
    pub(super) context: Arc<TenantContext>,
    places: Semaphore,
    /// Starts anew with each revision: what was wrong may have been put right.
    pub(super) breaker: Breaker,
    /// Whether the role was looked at.
    pub(super) is_examined: AtomicBool,
    /// Held by who opens the credentials; the others find them opened.
    pub(super) opening: tokio::sync::Mutex<()>,
    /// Ends what is under way, where changes are to do that.
    pub(super) revoked: Option<CancellationToken>,
    /// The setting and up to a sixteenth more, so that what began at once does not end at once.
    pub(super) idle_timeout: Duration,
    /// So many idle instances stay, however long nobody uses them.
    min_idle: usize,
    /// How many calls wait here.
    waiting: AtomicU32,
    /// How many of them wait for a place.
    at_door: AtomicU32,
    /// When somebody asked for it last, in milliseconds since the pool began.
    touched: AtomicU64,
    pub(super) shared: Arc<Shared>,
    state: Mutex<State>,
}

/// A place of an entry that was taken, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) entry: Arc<Entry>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Oldest first; the last one was used last.
    idle: Vec<IdleInstance>,
    /// Leases, those included that have no instance yet.
    out: u32,
    /// Out of date, or the pool is shut down: nothing comes back.
    closed: bool,
    /// Whether the reaper has this entry on its list of those with idle instances.
    is_on_idle_list: bool,
    /// The same for its list of those without any instance.
    is_on_empty_list: bool,
}

#[derive(Debug)]
pub(super) struct IdleInstance {
    pub(super) instance: Box<Instance>,
    pub(super) since: Instant,
}

/// The lists of the reaper that an entry has to be put on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listing {
    /// Since when the first of its instances is idle.
    pub(super) idle: Option<Instant>,
    pub(super) empty: bool,
}

/// A call that waits. Dropped, it waits no longer.
#[derive(Debug)]
pub(super) struct Queued {
    entry: Arc<Entry>,
}

/// A call that waits for a place: an idle instance is left for it, as it will have the place of who
/// gave that back.
#[derive(Debug)]
pub(super) struct AtDoor {
    entry: Arc<Entry>,
}

impl Entry {
    pub(super) fn new(stored: StoredTenant, meter: Arc<Meter>, pool: &Pool) -> Self {
        let shared = Arc::clone(&pool.shared);
        let options = shared.options();
        let own = options.max_instances_per_tenant;
        let places =
            stored.config.quotas.max_concurrent_connections.map_or(own, |max| max.min(own));
        let api_keys = stored.credentials.into_iter().filter_map(|credential| {
            let provider = credential.name.strip_prefix("api_keys.")?.to_owned();
            let (set_at, fingerprint) = (credential.set_at, credential.fingerprint);
            Some(ApiKey { provider, set_at, fingerprint })
        });
        let min_idle = options.min_idle.get(&stored.config.id).copied().unwrap_or(0);
        let context =
            TenantContext::new(stored.config, api_keys.collect(), meter, pool.log.clone());
        // Without randomness there is no jitter, which is no reason to serve nobody.
        let jitter = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX) / 16.0;
        let idle_timeout = options.idle_timeout.clamp(SHORTEST_IDLE, LONGEST_IDLE);
        let entry = Self {
            revision: stored.revision,
            watch: Arc::default(),
            generation: shared.counters.entries.fetch_add(1, Ordering::Relaxed),
            enabled: stored.enabled,
            context: Arc::new(context),
            // A quota of 0 is refused by the quota, with its own code.
            places: Semaphore::new(places.max(1) as usize),
            breaker: Breaker::default(),
            is_examined: AtomicBool::new(false),
            opening: tokio::sync::Mutex::default(),
            revoked: match options.on_change {
                OnChange::Cancel => Some(CancellationToken::new()),
                OnChange::Finish => None,
            },
            idle_timeout: idle_timeout.mul_f64(1.0 + jitter),
            // No more than can ever be leased.
            min_idle: min_idle.min(places) as usize,
            waiting: AtomicU32::new(0),
            at_door: AtomicU32::new(0),
            touched: AtomicU64::new(0),
            shared,
            options,
            state: Mutex::default(),
        };
        entry.touch();
        entry
    }

    pub(super) fn tenant(&self) -> &TenantId {
        self.context.tenant()
    }

    pub(super) fn if_enabled(self: Arc<Self>) -> Result<Arc<Self>, Error> {
        if self.enabled { Ok(self) } else { Err(Error::Disabled) }
    }

    /// Somebody asked for it: it stays for `idle_timeout` from now.
    pub(super) fn touch(&self) {
        let since_start = self.shared.started.elapsed().as_millis();
        self.touched.store(u64::try_from(since_start).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Until when it stays without any instance.
    pub(super) fn empty_until(&self) -> Instant {
        let touched = Duration::from_millis(self.touched.load(Ordering::Relaxed));
        self.shared.started + touched + self.idle_timeout
    }

    /// Takes a place, if one is free and nobody waits for it. It is for a [`Place`] to give back.
    pub(super) fn try_place(&self) -> Result<(), TryAcquireError> {
        self.places.try_acquire().map(SemaphorePermit::forget)
    }

    /// Takes a place, in turn. It is for a [`Place`] to give back.
    ///
    /// Cancellation: none is taken.
    pub(super) async fn place(&self) -> Result<(), AcquireError> {
        self.places.acquire().await.map(SemaphorePermit::forget)
    }

    /// Lets a call wait, unless too many do.
    pub(super) fn queue(self: &Arc<Self>) -> Result<Queued, Error> {
        let shared = &self.shared;
        let own = self.waiting.fetch_add(1, Ordering::Relaxed);
        let all = shared.waiting.fetch_add(1, Ordering::Relaxed);
        let queued = Queued { entry: Arc::clone(self) };
        // However many calls of others wait, one of each tenant may.
        let is_full = own >= self.options.max_waiting_per_tenant
            || (own > 0 && all >= self.options.max_waiting);
        if is_full { Err(Error::QueueFull) } else { Ok(queued) }
    }

    /// Says that a call waits for a place, until what this gives is dropped.
    pub(super) fn wait_at_door(self: &Arc<Self>) -> AtDoor {
        self.at_door.fetch_add(1, Ordering::AcqRel);
        AtDoor { entry: Arc::clone(self) }
    }

    /// The instance that is idle longest, unless all are left for calls that wait for a place.
    pub(super) fn take_spare(&self, state: &mut State) -> Option<IdleInstance> {
        let is_spare = state.idle.len() > self.at_door.load(Ordering::Acquire) as usize;
        is_spare.then(|| state.idle.remove(0))
    }

    /// Begins a lease, with the instance that was used last if one is idle. [`Self::leave`] ends it.
    pub(super) fn enter(&self) -> Option<IdleInstance> {
        let mut broken = Vec::new();
        let mut state = self.state();
        state.out += 1;
        let usable = loop {
            let Some(idle) = state.idle.pop() else { break None };
            // A session can break while it is idle: its server went away.
            if !idle.instance.server.is_broken() {
                break Some(idle);
            }
            broken.push(idle);
        };
        // What is broken is closed outside the lock.
        drop(state);
        usable
    }

    /// Begins a lease that is to have a new instance. [`Self::leave`] ends it.
    pub(super) fn enter_without_instance(&self) {
        self.state().out += 1;
    }

    /// Whether there are fewer instances, leased ones included, than are to stay.
    pub(super) fn is_cold(&self) -> bool {
        let state = self.state();
        !state.closed && state.idle.len() + (state.out as usize) < self.min_idle
    }

    /// Idle instances whose session broke meanwhile. To be dropped.
    pub(super) fn take_broken(&self) -> Vec<IdleInstance> {
        self.state().idle.extract_if(.., |idle| idle.instance.server.is_broken()).collect()
    }

    /// Ends a lease that has no instance.
    pub(super) fn leave(self: &Arc<Self>) {
        let listing = {
            let mut state = self.state();
            state.out = state.out.saturating_sub(1);
            state.list()
        };
        self.shared.lists.watch(self, listing);
    }

    /// Takes `instance` back, and with `leaving` ends its lease: it goes to who waits for it, is
    /// idle, or is closed when it or its tenant is not to be used again.
    pub(super) fn give_back(self: &Arc<Self>, instance: Box<Instance>, leaving: bool) {
        let shared = &self.shared;
        let mut instance = Some(instance);
        if shared.sessions.is_contended() {
            instance = self.offer(instance);
        }
        let mut state = self.state();
        state.out = state.out.saturating_sub(u32::from(leaving));
        if !state.closed
            && let Some(usable) = instance.take_if(|instance| !instance.server.is_broken())
        {
            state.idle.push(IdleInstance { instance: usable, since: Instant::now() });
        }
        let listing = state.list();
        drop(state);
        shared.lists.watch(self, listing);
        // Closed outside the lock, if it is not idle.
        drop(instance);
        shared.relieve();
    }

    /// The instance that nobody who waits has a use for. One that others need more is closed.
    fn offer(&self, instance: Option<Box<Instance>>) -> Option<Box<Instance>> {
        let instance = instance.filter(|it| !it.server.is_broken() && !self.state().closed)?;
        match self.shared.sessions.hand_over(self.tenant(), self.generation, instance) {
            HandedOver::Taken => None,
            HandedOver::Close(instance) => {
                drop(instance);
                None
            }
            HandedOver::Keep(instance) => Some(instance),
        }
    }

    /// Closes it, as it is out of date, and cancels what is under way where changes are to do that.
    pub(super) fn end(&self) {
        self.close();
        if let Some(revoked) = &self.revoked {
            revoked.cancel();
        }
    }

    /// Closes what is idle, now, and what is leased, when it comes back. Who waits is turned away.
    pub(super) fn close(&self) {
        self.places.close();
        let closed = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.idle)
        };
        drop(closed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// What is idle for longer than since `then`.
    pub(super) fn take_idle_before(&self, then: Instant) -> Vec<IdleInstance> {
        let mut state = self.state();
        let before = state.idle.partition_point(|idle| idle.since <= then);
        state.idle.drain(..before).collect()
    }

    /// How many instances are idle, and whether there are others or will be.
    pub(super) fn count(&self) -> (usize, bool) {
        let state = self.state();
        (state.idle.len(), state.out > 0)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Whole after any panic: no method of ours panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out what has been idle for its time at `now`, and says when the next will have been.
    pub(super) fn take_due(
        &self,
        state: &mut State,
        now: Instant,
    ) -> (Vec<IdleInstance>, Option<Instant>) {
        let due = state.idle.partition_point(|idle| idle.since + self.idle_timeout <= now);
        let due = due.min(state.idle.len().saturating_sub(self.min_idle));
        let taken = state.idle.drain(..due).collect();
        let next = state.idle.first().map(|idle| idle.since + self.idle_timeout);
        // What stays for good is looked at again, but not now.
        let next = next.map(|next| if next <= now { now + self.idle_timeout } else { next });
        (taken, next)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.entry.places.add_permits(1);
    }
}

impl State {
    /// The oldest idle instance.
    pub(super) fn oldest(&self) -> Option<&IdleInstance> {
        self.idle.first()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.out == 0
    }

    pub(super) fn left_idle_list(&mut self) {
        self.is_on_idle_list = false;
    }

    pub(super) fn left_empty_list(&mut self) {
        self.is_on_empty_list = false;
    }

    /// On which lists it has to be put, on which it then counts as being.
    pub(super) fn list(&mut self) -> Listing {
        let mut listing = Listing { idle: None, empty: false };
        if self.closed {
            return listing;
        }
        if let Some(oldest) = self.idle.first()
            && !std::mem::replace(&mut self.is_on_idle_list, true)
        {
            listing.idle = Some(oldest.since);
        }
        if self.is_empty() {
            listing.empty = !std::mem::replace(&mut self.is_on_empty_list, true);
        }
        listing
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.entry.waiting.fetch_sub(1, Ordering::Relaxed);
        self.entry.shared.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for AtDoor {
    fn drop(&mut self) {
        self.entry.at_door.fetch_sub(1, Ordering::AcqRel);
        // What was left idle for this call is for others now, unless it took it.
        self.entry.shared.relieve();
    }
}
