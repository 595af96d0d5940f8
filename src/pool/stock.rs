//! The instances of one entry that nobody has, and how many somebody has.
//!
//! ```text
//! enter --> one that is idle, or none: then the lease opens one
//!   give_back --> who waits for a session | idle | out of here, to be closed
//! close --> what is idle, to be closed; from then on nothing is idle
//! ```
//!
//! A call that waits for a place is at the door. An idle instance is left for each: it will have the
//! place of who gave that back.
//!
//! No call of this waits, and what comes out is closed outside the lock. What the model of
//! `tests/model.rs` explores is this file together with `sharing.rs`.

use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use super::sharing::{HandedOver, Sharing, Waiter};
use super::sync::{Mutex, MutexGuard, PoisonError};

/// What can be idle.
pub(super) trait Breakable {
    /// Whether it is of no use any more. This can come to be while it is idle: its server went away.
    fn is_broken(&self) -> bool;
}

#[derive(Debug)]
pub(super) struct Stock<I> {
    state: Mutex<State<I>>,
}

#[derive(Debug)]
pub(super) struct State<I> {
    /// Oldest first; the last one was used last.
    idle: Vec<Idle<I>>,
    /// Leases, those included that have no instance yet.
    out: u32,
    /// Calls that wait for a place.
    at_door: u32,
    /// Out of date, or the pool is shut down: nothing comes back.
    closed: bool,
    /// Whether the reaper has this entry on its list of those with idle instances.
    is_on_idle_list: bool,
    /// The same for its list of those without any instance.
    is_on_empty_list: bool,
}

#[derive(Debug)]
pub(super) struct Idle<I> {
    pub(super) instance: I,
    pub(super) since: Instant,
}

/// The lists of the reaper that an entry has to be put on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listing {
    /// Since when the first of its instances is idle.
    pub(super) idle: Option<Instant>,
    pub(super) empty: bool,
}

impl<I: Breakable> Stock<I> {
    pub(super) fn new() -> Self {
        let state = State {
            idle: Vec::new(),
            out: 0,
            at_door: 0,
            closed: false,
            is_on_idle_list: false,
            is_on_empty_list: false,
        };
        Self { state: Mutex::new(state) }
    }

    /// A call waits for a place, until [`Self::leave_door`].
    pub(super) fn wait_at_door(&self) {
        self.state().at_door += 1;
    }

    /// What was left idle for a call is for others from now on, unless it took it: who waits for a
    /// session may have looked before.
    pub(super) fn leave_door(&self) {
        let mut state = self.state();
        state.at_door = state.at_door.saturating_sub(1);
    }

    /// Begins a lease, with the instance that was used last if one is idle. [`Self::give_back`] or
    /// [`Self::leave`] ends it.
    pub(super) fn enter(&self) -> Option<Idle<I>> {
        let mut broken = Vec::new();
        let mut state = self.state();
        state.out += 1;
        let usable = loop {
            let Some(idle) = state.idle.pop() else { break None };
            if !idle.instance.is_broken() {
                break Some(idle);
            }
            broken.push(idle);
        };
        drop(state);
        usable
    }

    /// Begins a lease that is to have a new instance.
    pub(super) fn enter_without_instance(&self) {
        self.state().out += 1;
    }

    /// Ends a lease that has no instance.
    pub(super) fn leave(&self) -> Listing {
        let mut state = self.state();
        state.out = state.out.saturating_sub(1);
        state.list()
    }

    /// Takes `instance` back, and with `leaving` ends its lease: a call of `tenant` and `generation`
    /// that waits for a session has it, or it is idle. It comes out when it is not to be used again, or
    /// another tenant needs its session more.
    pub(super) fn give_back<K: Clone + Eq + Hash + Ord, W: Waiter<Instance = I>>(
        &self,
        sessions: &Sharing<K, W>,
        (tenant, generation): (&K, u64),
        instance: I,
        leaving: bool,
    ) -> (Option<I>, Listing) {
        let handed_over = if sessions.is_contended() && !instance.is_broken() && !self.is_closed() {
            sessions.hand_over(tenant, generation, instance)
        } else {
            HandedOver::Keep(instance)
        };
        let mut state = self.state();
        state.out = state.out.saturating_sub(u32::from(leaving));
        let closed = match handed_over {
            HandedOver::Taken => None,
            HandedOver::Keep(instance) if !state.closed && !instance.is_broken() => {
                state.idle.push(Idle { instance, since: Instant::now() });
                None
            }
            HandedOver::Keep(instance) | HandedOver::Close(instance) => Some(instance),
        };
        (closed, state.list())
    }

    /// Takes out an idle instance for a call of `tenant` and `generation` that waits for one, and for
    /// nothing else: to be given back, which hands it over.
    ///
    /// To be called once an instance is idle, and by who waits once it is in line: whichever is
    /// second sees the other.
    pub(super) fn take_awaited<K: Clone + Eq + Hash + Ord, W: Waiter<Instance = I>>(
        &self,
        sessions: &Sharing<K, W>,
        (tenant, generation): (&K, u64),
    ) -> Option<I> {
        let is_awaited = sessions.is_contended() && sessions.awaits(tenant, generation).is_some();
        let idle = if is_awaited { self.state().idle.pop() } else { None };
        idle.map(|idle| idle.instance)
    }

    /// Takes out what is idle; what is leased comes out when it is given back.
    pub(super) fn close(&self) -> Vec<Idle<I>> {
        let mut state = self.state();
        state.closed = true;
        std::mem::take(&mut state.idle)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Takes out what broke while it was idle.
    pub(super) fn take_broken(&self) -> Vec<Idle<I>> {
        self.state().idle.extract_if(.., |idle| idle.instance.is_broken()).collect()
    }

    /// Takes out what is idle for longer than since `then`.
    pub(super) fn take_idle_before(&self, then: Instant) -> Vec<Idle<I>> {
        let mut state = self.state();
        let before = state.idle.partition_point(|idle| idle.since <= then);
        state.idle.drain(..before).collect()
    }

    /// How many instances are idle, and how many leases there are.
    pub(super) fn count(&self) -> (usize, u32) {
        let state = self.state();
        (state.idle.len(), state.out)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<I>> {
        // Whole after any panic: nothing here panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I> State<I> {
    /// The oldest idle instance.
    pub(super) fn oldest(&self) -> Option<&Idle<I>> {
        self.idle.first()
    }

    /// Takes out the oldest one, unless all are left for calls at the door.
    pub(super) fn take_spare(&mut self) -> Option<Idle<I>> {
        let is_spare = self.idle.len() > self.at_door as usize;
        is_spare.then(|| self.idle.remove(0))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.out == 0
    }

    /// Takes out what has been idle for `timeout` at `now`, but for `min_idle` that stay, and says when
    /// the next will have been.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        timeout: Duration,
        min_idle: usize,
    ) -> (Vec<Idle<I>>, Option<Instant>) {
        let due = self.idle.partition_point(|idle| idle.since + timeout <= now);
        let due = due.min(self.idle.len().saturating_sub(min_idle));
        let taken = self.idle.drain(..due).collect();
        let next = self.idle.first().map(|idle| idle.since + timeout);
        // What stays for good is looked at again, but not now.
        let next = next.map(|next| if next <= now { now + timeout } else { next });
        (taken, next)
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
