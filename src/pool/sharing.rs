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
//! Calls of one tenant are in line in the order of their tickets. One whose database lets no further
//! session in waits there for an instance only, and no session of others is closed for it.
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

/// What a call waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wish {
    /// A session, or an instance of the same tenant and generation.
    Any,
    /// Such an instance.
    Instance,
}

/// A place in line.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Ticket(u64);

/// So many sessions, and who holds or wants how many.
#[derive(Debug)]
pub(super) struct Sharing<K, W> {
    most: u32,
    /// How many wait; changed under the lock.
    waiting: AtomicU32,
    /// How many of them would have a session.
    wanting: AtomicU32,
    state: Mutex<State<K, W>>,
}

#[derive(Debug)]
struct State<K, W> {
    held: u32,
    waiting: u32,
    wanting: u32,
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
    /// In the order of their tickets.
    waiters: VecDeque<Waiting<W>>,
}

#[derive(Debug)]
struct Waiting<W> {
    ticket: Ticket,
    generation: u64,
    wish: Wish,
    waiter: W,
}

impl<K: Clone + Eq + Hash + Ord, W: Waiter> Sharing<K, W> {
    pub(super) fn new(most: u32) -> Self {
        let state = State {
            held: 0,
            waiting: 0,
            wanting: 0,
            shares: HashMap::new(),
            line: BTreeSet::new(),
            next: 0,
        };
        let (waiting, wanting) = (AtomicU32::new(0), AtomicU32::new(0));
        Self { most, waiting, wanting, state: Mutex::new(state) }
    }

    /// Whether anybody waits. Costs a load.
    pub(super) fn is_contended(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// What the first call of `tenant` in line waits for.
    pub(super) fn wish(&self, tenant: &K) -> Option<Wish> {
        self.state().shares.get(tenant)?.waiters.front().map(|first| first.wish)
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

    /// Whether `tenant` holds any session.
    pub(super) fn holds(&self, tenant: &K) -> bool {
        self.state().shares.get(tenant).is_some_and(|share| share.held > 0)
    }

    /// Where the first call of `tenant` is that waits for an instance of `generation`, and for nothing
    /// else.
    pub(super) fn awaits(&self, tenant: &K, generation: u64) -> Option<Ticket> {
        let state = self.state();
        let mut waiters = state.shares.get(tenant)?.waiters.iter();
        waiters
            .find(|it| it.generation == generation && it.wish == Wish::Instance)
            .map(|it| it.ticket)
    }

    /// A place in line, behind all that there are.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.state().number())
    }

    /// Puts a call of `tenant` in line, where its `ticket` says, for what it wishes: an instance is one
    /// of `generation`. It is granted a session within this when one has become free.
    pub(super) fn wait(
        &self,
        tenant: &K,
        generation: u64,
        (ticket, wish): (Ticket, Wish),
        waiter: W,
    ) {
        let mut state = self.state();
        state.change(tenant, |share| {
            let place = share.waiters.partition_point(|it| it.ticket < ticket);
            share.waiters.insert(place, Waiting { ticket, generation, wish, waiter });
        });
        self.grant_free(&mut state);
    }

    /// Takes a call out of line. False when it has been granted something, which is then its own to
    /// take or to give back.
    pub(super) fn cancel(&self, tenant: &K, ticket: Ticket) -> bool {
        let mut state = self.state();
        let was_there = state.change(tenant, |share| {
            let count = share.waiters.len();
            share.waiters.retain(|it| it.ticket != ticket);
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
            while let Some(first) = share.waiters.iter().position(|it| it.generation == generation)
            {
                let Some(first) = share.waiters.remove(first) else { break };
                share.turn = turn;
                match first.waiter.grant(grant) {
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
        while self.wanting.load(Ordering::Acquire) > 0 && close_oldest() {}
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
                let first = share.waiters.iter().position(|it| it.wish == Wish::Any);
                let first = first.and_then(|first| share.waiters.remove(first));
                let is_granted =
                    first.is_some_and(|first| first.waiter.grant(Grant::Session).is_ok());
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
        self.wanting.store(state.wanting, Ordering::Release);
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
        let (held, turn, (waiting, wanting)) = (share.held, share.turn, share.count());
        let result = change(&mut share);
        let (now_waiting, now_wanting) = share.count();
        if wanting > 0 {
            self.line.remove(&(held, turn, tenant.clone()));
        }
        if now_wanting > 0 {
            self.line.insert((share.held, share.turn, tenant.clone()));
        }
        self.waiting = self.waiting - waiting + now_waiting;
        self.wanting = self.wanting - wanting + now_wanting;
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

impl<W> Share<W> {
    /// How many wait, and how many of them would have a session.
    fn count(&self) -> (u32, u32) {
        let count = |waiters: usize| u32::try_from(waiters).unwrap_or(u32::MAX);
        let wanting = self.waiters.iter().filter(|it| it.wish == Wish::Any).count();
        (count(self.waiters.len()), count(wanting))
    }
}
