//! The sessions of the whole pool, when tenants together want more than there may be.
//!
//! ```text
//! take --one is free--> the tenant holds it        release, hand_over --> whoever waits and holds
//!   \--none is--> wait: the tenant is in line            fewest, then whose turn is longest ago
//! ```
//!
//! Tenants that wait come to hold the same number, give or take one, whatever number of calls each
//! of them has waiting: a session that comes back is closed when another tenant is two behind, or
//! has none at all. Where there are fewer sessions than tenants, they take turns.
//!
//! No call of this waits. All state is under one lock, which is taken when sessions are opened or
//! closed, and for those that come back while somebody waits. What the model of
//! `tests/model.rs` explores is this file.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;

use super::sync::{AtomicU32, Mutex, MutexGuard, Ordering, PoisonError};

/// What who waits is given.
#[derive(Debug)]
pub(super) enum Grant<I> {
    /// Leave to open a session.
    Session,
    /// One of the same tenant and generation, that came back.
    Instance(I),
}

/// Where a grant goes.
pub(super) trait Waiter {
    type Instance;

    /// Hands `grant` over, or back when nobody takes it any more. Called under the lock.
    fn grant(self, grant: Grant<Self::Instance>) -> Result<(), Grant<Self::Instance>>;
}

/// What becomes of an instance that came back while somebody waits.
#[derive(Debug)]
pub(super) enum HandedOver<I> {
    /// A call of the same tenant has it.
    Taken,
    /// Another tenant needs the session more.
    Close(I),
    /// Neither: it may be idle.
    Keep(I),
}

/// A place in line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ticket(u64);

/// So many sessions, and who holds or wants how many.
#[derive(Debug)]
pub(super) struct Sharing<K, W> {
    most: u32,
    /// How many wait; changed under the lock.
    waiting: AtomicU32,
    state: Mutex<State<K, W>>,
}

#[derive(Debug)]
struct State<K, W> {
    held: u32,
    waiting: u32,
    /// Tenants that hold or want one.
    shares: HashMap<K, Share<W>>,
    /// Tenants that want one, by what they hold and whose turn it is.
    line: BTreeSet<(u32, u64, K)>,
    /// Numbers turns and tickets.
    next: u64,
}

#[derive(Debug)]
struct Share<W> {
    held: u32,
    /// The lower, the longer since a turn.
    turn: u64,
    waiters: VecDeque<(Ticket, u64, W)>,
}

impl<K: Clone + Eq + Hash + Ord, W: Waiter> Sharing<K, W> {
    pub(super) fn new(most: u32) -> Self {
        let state =
            State { held: 0, waiting: 0, shares: HashMap::new(), line: BTreeSet::new(), next: 0 };
        Self { most, waiting: AtomicU32::new(0), state: Mutex::new(state) }
    }

    /// Whether anybody waits. Costs a load.
    pub(super) fn is_contended(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Whether a call of `tenant` waits.
    pub(super) fn is_awaited_by(&self, tenant: &K) -> bool {
        let state = self.state();
        state.shares.get(tenant).is_some_and(|share| !share.waiters.is_empty())
    }

    /// A session for `tenant`, if one is free. To be given back by [`Self::release`].
    pub(super) fn take(&self, tenant: &K) -> bool {
        let mut state = self.state();
        // While one is free nobody waits.
        let is_free = state.held < self.most;
        if is_free {
            state.change(tenant, |share| share.held += 1);
            state.held += 1;
        }
        is_free
    }

    /// Puts a call of `tenant` in line for a session, or for an instance of `generation`. It is
    /// granted within this when one has become free.
    pub(super) fn wait(&self, tenant: &K, generation: u64, waiter: W) -> Ticket {
        let mut state = self.state();
        let ticket = Ticket(state.number());
        state.change(tenant, |share| share.waiters.push_back((ticket, generation, waiter)));
        self.grant_free(&mut state);
        ticket
    }

    /// Takes a call out of line. False when it has been granted something, which is then its own to
    /// take or to give back.
    pub(super) fn cancel(&self, tenant: &K, ticket: Ticket) -> bool {
        let mut state = self.state();
        let was_there = state.change(tenant, |share| {
            let count = share.waiters.len();
            share.waiters.retain(|(other, ..)| *other != ticket);
            share.waiters.len() < count
        });
        self.publish(&state);
        was_there
    }

    /// `tenant` holds one session less.
    pub(super) fn release(&self, tenant: &K) {
        let mut state = self.state();
        let turn = state.number();
        state.change(tenant, |share| {
            share.held = share.held.saturating_sub(1);
            share.turn = turn;
        });
        state.held = state.held.saturating_sub(1);
        self.grant_free(&mut state);
    }

    /// Decides about an instance of `tenant` that nobody has any more.
    pub(super) fn hand_over(
        &self,
        tenant: &K,
        generation: u64,
        instance: W::Instance,
    ) -> HandedOver<W::Instance> {
        let mut state = self.state();
        let own = state.shares.get(tenant).map_or(0, |share| share.held);
        let others = state.line.iter().find(|(.., other)| other != tenant);
        if others.is_some_and(|(held, ..)| *held == 0 || held + 1 < own) {
            return HandedOver::Close(instance);
        }
        let turn = state.number();
        let handed_over = state.change(tenant, |share| {
            let mut grant = Grant::Instance(instance);
            while let Some(first) =
                share.waiters.iter().position(|(_, wanted, _)| *wanted == generation)
            {
                let Some((.., waiter)) = share.waiters.remove(first) else { break };
                share.turn = turn;
                match waiter.grant(grant) {
                    Ok(()) => return HandedOver::Taken,
                    Err(back) => grant = back,
                }
            }
            match grant {
                Grant::Instance(instance) => HandedOver::Keep(instance),
                // What was given is what came back.
                Grant::Session => HandedOver::Taken,
            }
        });
        self.publish(&state);
        handed_over
    }

    /// Closes sessions that nobody uses as long as calls wait for them. `close_oldest` closes one,
    /// or says that there is none.
    ///
    /// To be called once an instance is idle, and by who waits once it is in line: whichever is
    /// second sees the other.
    pub(super) fn relieve(&self, mut close_oldest: impl FnMut() -> bool) {
        while self.is_contended() && close_oldest() {}
    }

    /// How many sessions are held.
    pub(super) fn held(&self) -> u32 {
        self.state().held
    }

    /// How many tenants hold or want any.
    #[cfg(test)]
    pub(super) fn tenants(&self) -> usize {
        self.state().shares.len()
    }

    /// Grants what is free, and tells whether anybody still waits.
    fn grant_free(&self, state: &mut State<K, W>) {
        while state.held < self.most
            && let Some((.., tenant)) = state.line.first().cloned()
        {
            let turn = state.number();
            let is_granted = state.change(&tenant, |share| {
                let waiter = share.waiters.pop_front().map(|(.., waiter)| waiter);
                let is_granted = waiter.is_some_and(|waiter| waiter.grant(Grant::Session).is_ok());
                if is_granted {
                    share.held += 1;
                    share.turn = turn;
                }
                is_granted
            });
            state.held += u32::from(is_granted);
        }
        self.publish(state);
    }

    fn publish(&self, state: &State<K, W>) {
        self.waiting.store(state.waiting, Ordering::Release);
    }

    fn state(&self) -> MutexGuard<'_, State<K, W>> {
        // Whole after any panic: nothing here panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash + Ord, W> State<K, W> {
    /// Changes the share of `tenant`, and with it its place in line.
    fn change<T>(&mut self, tenant: &K, change: impl FnOnce(&mut Share<W>) -> T) -> T {
        let turn = self.number();
        let new = || Share { held: 0, turn, waiters: VecDeque::new() };
        let mut share = self.shares.remove(tenant).unwrap_or_else(new);
        let (held, turn, waiters) = (share.held, share.turn, share.waiters.len());
        let result = change(&mut share);
        if waiters > 0 {
            self.line.remove(&(held, turn, tenant.clone()));
        }
        if !share.waiters.is_empty() {
            self.line.insert((share.held, share.turn, tenant.clone()));
        }
        let count = |waiters: usize| u32::try_from(waiters).unwrap_or(u32::MAX);
        self.waiting = self.waiting - count(waiters) + count(share.waiters.len());
        if share.held > 0 || !share.waiters.is_empty() {
            self.shares.insert(tenant.clone(), share);
        }
        result
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
