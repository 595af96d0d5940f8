//! What nobody uses, until its time is over.
//!
//! One task sleeps until the next deadline of any tenant. A tenant with idle instances is on one
//! list once, whatever their number; one that is known and has no instance is on another. The
//! deadline on a list is the true one or earlier: use moves only the true one, which is looked up
//! when the other has come. So use costs nothing here, and the cost of the task does not grow with
//! tenants that are not due.
//!
//! Order of locks: the idle list, then an entry or the empty list.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::entry::Entry;
use super::session::Instance;
use super::stock::{Idle, Listing};
use super::{Pool, Shared};

/// How soon a change in the vault is noticed where nobody calls.
const CHANGES_INTERVAL: Duration = Duration::from_secs(1);

/// What the task watches.
#[derive(Debug, Default)]
pub(super) struct Lists {
    idle: List,
    empty: List,
    /// A deadline came that is the first of its list.
    changed: Notify,
}

#[derive(Debug, Default)]
struct List(Mutex<BinaryHeap<Reverse<Watched>>>);

#[derive(Debug)]
struct Watched {
    deadline: Instant,
    entry: Weak<Entry>,
}

impl Lists {
    /// Puts `entry` on the lists that it is to be on.
    pub(super) fn watch(&self, entry: &Arc<Entry>, listing: Listing) {
        if let Some(since) = listing.idle {
            self.push(&self.idle, entry, since + entry.idle_timeout);
        }
        if listing.empty {
            self.push(&self.empty, entry, entry.empty_until());
        }
    }

    fn push(&self, list: &List, entry: &Arc<Entry>, deadline: Instant) {
        let mut heap = list.lock();
        let is_first = heap.peek().is_none_or(|Reverse(first)| deadline < first.deadline);
        heap.push(Reverse(Watched { deadline, entry: Arc::downgrade(entry) }));
        drop(heap);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Takes the instance that has been idle longest from its tenant. To be dropped.
    pub(super) fn take_oldest(&self) -> Option<Idle<Box<Instance>>> {
        // What became idle and is not on the list yet, whoever puts it there looks for again
        // (`Shared::relieve`).
        let mut heap = self.idle.lock();
        let mut left = Vec::new();
        let mut oldest = None;
        while oldest.is_none()
            && let Some(Reverse(watched)) = heap.pop()
        {
            let Some(entry) = watched.entry.upgrade() else { continue };
            let mut state = entry.stock.state();
            let deadline = state.oldest().map(|oldest| oldest.since + entry.idle_timeout);
            let is_later = deadline.is_some_and(|deadline| {
                deadline > watched.deadline
                    && heap.peek().is_some_and(|Reverse(other)| other.deadline < deadline)
            });
            oldest = if is_later { None } else { state.take_spare() };
            match state.oldest().map(|next| next.since + entry.idle_timeout) {
                Some(deadline) => {
                    let watched = Reverse(Watched { deadline, entry: watched.entry });
                    if is_later { heap.push(watched) } else { left.push(watched) }
                }
                None => state.left_idle_list(),
            }
            // For the other list: on this one it is, if it has to be.
            let listing = state.list();
            drop(state);
            self.watch(&entry, listing);
        }
        heap.extend(left);
        oldest
    }
}

impl List {
    fn lock(&self) -> MutexGuard<'_, BinaryHeap<Reverse<Watched>>> {
        // Whole after any panic: each change is one of the heap's own.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_deadline(&self) -> Option<Instant> {
        self.lock().peek().map(|Reverse(watched)| watched.deadline)
    }
}

impl Shared {
    /// Closes idle instances, longest idle first, as long as calls wait for the sessions.
    pub(super) fn relieve(&self) {
        self.sessions.relieve(|| self.lists.take_oldest().is_some());
    }
}

impl Pool {
    /// Closes what has been idle for its time at `now`, and says how many that was.
    pub(super) fn close_due(&self, now: Instant) -> usize {
        let mut count = 0;
        while let Some(closed) = self.take_due(now) {
            count += closed.len();
        }
        while self.forget_empty(now) {}
        count
    }

    /// What is due of the next tenant; nothing when none is.
    fn take_due(&self, now: Instant) -> Option<Vec<Idle<Box<Instance>>>> {
        let mut heap = self.shared.lists.idle.lock();
        let is_due = heap.peek().is_some_and(|Reverse(watched)| watched.deadline <= now);
        let watched = if is_due { heap.pop() } else { None }?.0;
        let Some(entry) = watched.entry.upgrade() else { return Some(Vec::new()) };
        let mut state = entry.stock.state();
        let (taken, next) = state.take_due(now, entry.idle_timeout, entry.min_idle);
        match next {
            Some(deadline) => heap.push(Reverse(Watched { deadline, entry: watched.entry })),
            None => state.left_idle_list(),
        }
        let (listing, is_empty) = (state.list(), state.is_empty());
        drop(state);
        drop(heap);
        self.shared.lists.watch(&entry, listing);
        if is_empty && !taken.is_empty() {
            self.vault.forget_tenant(entry.tenant());
        }
        Some(taken)
    }

    /// Forgets the next tenant that has been without an instance for its time. False when none has.
    fn forget_empty(&self, now: Instant) -> bool {
        let mut heap = self.shared.lists.empty.lock();
        let is_due = heap.peek().is_some_and(|Reverse(watched)| watched.deadline <= now);
        let Some(Reverse(watched)) = (if is_due { heap.pop() } else { None }) else { return false };
        let Some(entry) = watched.entry.upgrade() else { return true };
        let mut state = entry.stock.state();
        state.left_empty_list();
        let until = entry.empty_until();
        if state.is_empty() && until > now {
            state.list();
            heap.push(Reverse(Watched { deadline: until, entry: watched.entry }));
        } else if state.is_empty() {
            drop(state);
            drop(heap);
            if self.tenants.forget_unused(&entry) {
                // Its last instance may have gone in another way than by being idle for its time.
                self.vault.forget_tenant(entry.tenant());
            } else {
                // Somebody has it at this moment, perhaps to wait: it is looked at again.
                entry.touch();
                let listing = entry.stock.state().list();
                self.shared.lists.watch(&entry, listing);
            }
        }
        true
    }
}

/// Closes what is due, for as long as there is a pool.
pub(super) async fn reap(pool: Weak<Pool>, shared: Arc<Shared>) {
    let lists = &shared.lists;
    let mut changes = None;
    let mut look = tokio::time::interval(CHANGES_INTERVAL);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let changed = lists.changed.notified();
        let deadlines = [lists.idle.first_deadline(), lists.empty.first_deadline()];
        let first = deadlines.into_iter().flatten().min();
        let due = async {
            match first {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = due => {
                let Some(pool) = pool.upgrade() else { return };
                pool.close_due(Instant::now());
            }
            _ = look.tick() => {
                let Some(pool) = pool.upgrade() else { return };
                // What asks the vault may wait, for the disk and for who seals it.
                let close = move || {
                    let now = pool.vault.changes();
                    if now != changes {
                        pool.close_outdated();
                    }
                    now
                };
                if let Ok(now) = tokio::task::spawn_blocking(close).await {
                    changes = now;
                }
            }
        }
    }
}

impl Ord for Watched {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.deadline.cmp(&other.deadline)
    }
}

impl PartialOrd for Watched {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.deadline == other.deadline
    }
}

impl Eq for Watched {}
