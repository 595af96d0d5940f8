//! One revision of one tenant: its places, and what it has of instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::places::Places;
use super::session::Instance;
use super::sharing::Wish;
use super::stock::{Breakable, Stock};
use super::{Error, OnChange, Options, Pool, Shared};
use crate::database::Breaker;
use crate::error::Bound;
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
    places: Arc<Places>,
    /// Cancelled when it is closed.
    closed: CancellationToken,
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
    pub(super) min_idle: usize,
    /// How many calls wait here.
    waiting: AtomicU32,
    /// When somebody asked for it last, in milliseconds since the pool began.
    touched: AtomicU64,
    pub(super) shared: Arc<Shared>,
    pub(super) stock: Stock<Box<Instance>>,
}

/// A place of an entry that was taken, which is free again when this is dropped, and with it whatever
/// shares it: what goes on after a lease that was given up.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) entry: Arc<Entry>,
    /// Only where there is any.
    share: Option<Arc<PlaceShare>>,
}

/// A part of a place.
#[derive(Debug)]
pub(super) struct PlaceShare(Arc<Places>);

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
        let most = stored.config.quotas.max_concurrent_connections.map_or(own, |max| max.min(own));
        // A quota of 0 is refused by the quota, with its own code.
        let places = shared.places.of(&stored.config.id, most.max(1) as usize);
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
            places,
            closed: CancellationToken::new(),
            breaker: Breaker::default(),
            is_examined: AtomicBool::new(false),
            opening: tokio::sync::Mutex::default(),
            revoked: match options.on_change {
                OnChange::Cancel => Some(CancellationToken::new()),
                OnChange::Finish => None,
            },
            idle_timeout: idle_timeout.mul_f64(1.0 + jitter),
            // No more than can ever be leased.
            min_idle: min_idle.min(most) as usize,
            waiting: AtomicU32::new(0),
            touched: AtomicU64::new(0),
            shared,
            options,
            stock: Stock::new(),
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
    pub(super) fn try_place(&self) -> bool {
        self.places.try_take()
    }

    /// Takes a place, in turn. It is for a [`Place`] to give back. False when this is closed.
    ///
    /// Cancellation: none is taken.
    pub(super) async fn place(&self) -> bool {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => false,
            () = self.places.take() => true,
        }
    }

    /// Lets a call wait, unless too many do.
    pub(super) fn queue(self: &Arc<Self>) -> Result<Queued, Error> {
        let shared = &self.shared;
        let own = self.waiting.fetch_add(1, Ordering::Relaxed);
        let all = shared.waiting.fetch_add(1, Ordering::Relaxed);
        let queued = Queued { entry: Arc::clone(self) };
        if own >= self.options.max_waiting_per_tenant {
            return Err(Error::Exhausted(Bound::WaitingPerTenant));
        }
        // However many calls of others wait, one of each tenant may.
        if own > 0 && all >= self.options.max_waiting {
            return Err(Error::Exhausted(Bound::Waiting));
        }
        Ok(queued)
    }

    /// Why a call has no place for so long. More places help nobody where those who have one wait.
    pub(super) fn bound(&self) -> Bound {
        let places = self.options.max_instances_per_tenant;
        let quota = self.context.config().quotas.max_concurrent_connections;
        match self.shared.sessions.wish(self.tenant()) {
            Some(Wish::Any) => Bound::Sessions,
            Some(Wish::Instance) => Bound::DatabaseConnections,
            None if quota.is_some_and(|quota| quota < places) => Bound::ConcurrentConnections,
            None => Bound::InstancesPerTenant,
        }
    }

    /// Says that a call waits for a place, until what this gives is dropped.
    pub(super) fn wait_at_door(self: &Arc<Self>) -> AtDoor {
        self.stock.wait_at_door();
        AtDoor { entry: Arc::clone(self) }
    }

    /// Whether there are fewer instances, leased ones included, than are to stay.
    pub(super) fn is_cold(&self) -> bool {
        let (idle, out) = self.stock.count();
        !self.stock.is_closed() && idle + (out as usize) < self.min_idle
    }

    /// Ends a lease that has no instance.
    pub(super) fn leave(self: &Arc<Self>) {
        let listing = self.stock.leave();
        self.shared.lists.watch(self, listing);
    }

    /// Takes `instance` back, and with `leaving` ends its lease: it goes to who waits for it, is
    /// idle, or is closed when it or its tenant is not to be used again.
    pub(super) fn give_back(self: &Arc<Self>, instance: Box<Instance>, leaving: bool) {
        let (shared, whose) = (&self.shared, (self.tenant(), self.generation));
        let (closed, listing) = self.stock.give_back(&shared.sessions, whose, instance, leaving);
        shared.lists.watch(self, listing);
        drop(closed);
        shared.relieve();
        self.serve();
    }

    /// Hands idle instances to calls that wait for nothing else.
    pub(super) fn serve(self: &Arc<Self>) {
        let whose = (self.tenant(), self.generation);
        if let Some(instance) = self.stock.take_awaited(&self.shared.sessions, whose) {
            self.give_back(instance, false);
        }
    }

    /// Closes it, as it is out of date, and cancels what is under way where changes are to do that.
    pub(super) fn end(&self) {
        self.close();
        if let Some(revoked) = &self.revoked {
            revoked.cancel();
        }
    }

    /// Closes what is idle, now, and what is leased, when it comes back. Who waits waits no longer.
    pub(super) fn close(&self) {
        self.closed.cancel();
        drop(self.stock.close());
    }

    /// Until it is closed.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

impl Breakable for Box<Instance> {
    fn is_broken(&self) -> bool {
        self.server.is_broken()
    }
}

impl Place {
    /// The place of `entry` that was taken.
    pub(super) fn taken(entry: Arc<Entry>) -> Self {
        Self { entry, share: None }
    }

    pub(super) fn share(&mut self) -> Arc<PlaceShare> {
        let share = || Arc::new(PlaceShare(Arc::clone(&self.entry.places)));
        Arc::clone(self.share.get_or_insert_with(share))
    }
}

impl Drop for PlaceShare {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.share.is_none() {
            self.entry.places.give_back();
        }
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
        self.entry.stock.leave_door();
        self.entry.shared.relieve();
    }
}
