//! Instances that nobody has, until their time is over.
//!
//! One task sleeps until the next deadline of any tenant. A tenant with idle instances is on its
//! list once, whatever their number, so the cost does not grow with tenants that are not due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Entry, Instance, Shared};

#[derive(Debug)]
pub(super) struct IdleInstance {
    instance: Instance,
    since: Instant,
}

impl Entry {
    /// The instance that was used last, if one is idle.
    pub(super) fn take_idle(&self) -> Option<Instance> {
        let mut broken = Vec::new();
        let mut state = self.state();
        let usable = loop {
            let Some(IdleInstance { instance, .. }) = state.idle.pop() else { break None };
            // A session can break while it is idle: its server went away.
            if !instance.server.is_broken() {
                break Some(instance);
            }
            state.live -= 1;
            broken.push(instance);
        };
        // What is broken is closed outside the lock.
        drop(state);
        usable
    }

    /// Takes `instance` back, or closes it when it or its tenant is not to be used again.
    pub(super) fn give_back(self: &Arc<Self>, instance: Instance, shared: Option<&Shared>) {
        let mut state = self.state();
        let Some(shared) = shared.filter(|_| !state.closed && !instance.server.is_broken()) else {
            state.live -= 1;
            // Closed outside the lock.
            drop(state);
            drop(instance);
            return;
        };
        let since = Instant::now();
        state.idle.push(IdleInstance { instance, since });
        if !std::mem::replace(&mut state.watched, true) {
            drop(state);
            shared.reaper.watch(self, since + shared.options.idle_timeout);
        }
    }

    /// Closes what is idle, now, and what is leased, when it comes back. Who waits is turned away.
    pub(super) fn close(&self) {
        self.places.close();
        let closed = {
            let mut state = self.state();
            state.closed = true;
            state.live -= u32::try_from(state.idle.len()).unwrap_or(u32::MAX);
            std::mem::take(&mut state.idle)
        };
        drop(closed);
    }

    /// Closes what has been idle for `idle_timeout` at `now`, and says how many that was.
    pub(super) fn close_idle(&self, idle_timeout: Duration, now: Instant) -> usize {
        let closed: Vec<_> = {
            let mut state = self.state();
            let due = state.idle.partition_point(|idle| idle.since + idle_timeout <= now);
            state.live -= u32::try_from(due).unwrap_or(u32::MAX);
            state.idle.drain(..due).collect()
        };
        closed.len()
    }

    /// When the instance that has been idle longest is due; `None` takes the tenant off the list.
    fn next_deadline(&self, idle_timeout: Duration) -> Option<Instant> {
        let mut state = self.state();
        let oldest = state.idle.first().map(|idle| idle.since + idle_timeout);
        state.watched = oldest.is_some();
        oldest
    }
}

/// Closes idle instances when they are due.
#[derive(Debug)]
pub(super) struct Reaper {
    list: Arc<List>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct List {
    deadlines: Mutex<BinaryHeap<Reverse<Watched>>>,
    /// A deadline came that may be the first.
    changed: Notify,
}

#[derive(Debug)]
struct Watched {
    deadline: Instant,
    entry: Weak<Entry>,
}

impl Reaper {
    /// Starts the task; it ends with the pool.
    pub(super) fn start(shared: Weak<Shared>) -> Self {
        let list = Arc::new(List::default());
        #[expect(clippy::disallowed_methods, reason = "aborted when the pool is dropped")]
        let task = tokio::spawn(reap(shared, Arc::clone(&list))).abort_handle();
        Self { list, task }
    }

    fn watch(&self, entry: &Arc<Entry>, deadline: Instant) {
        self.list.push(Watched { deadline, entry: Arc::downgrade(entry) });
        self.list.changed.notify_one();
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl List {
    fn push(&self, watched: Watched) {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner).push(Reverse(watched));
    }

    fn first_deadline(&self) -> Option<Instant> {
        let deadlines = self.deadlines.lock().unwrap_or_else(PoisonError::into_inner);
        deadlines.peek().map(|Reverse(watched)| watched.deadline)
    }

    fn pop_due(&self, now: Instant) -> Option<Watched> {
        let mut deadlines = self.deadlines.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = deadlines.peek().is_some_and(|Reverse(watched)| watched.deadline <= now);
        if is_due { deadlines.pop().map(|Reverse(watched)| watched) } else { None }
    }
}

async fn reap(shared: Weak<Shared>, list: Arc<List>) {
    loop {
        let changed = list.changed.notified();
        let Some(deadline) = list.first_deadline() else {
            changed.await;
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {}
            () = changed => continue,
        }
        let Some(shared) = shared.upgrade() else { return };
        let idle_timeout = shared.options.idle_timeout;
        let now = Instant::now();
        while let Some(watched) = list.pop_due(now) {
            let Some(entry) = watched.entry.upgrade() else { continue };
            entry.close_idle(idle_timeout, now);
            if let Some(deadline) = entry.next_deadline(idle_timeout) {
                list.push(Watched { deadline, entry: watched.entry });
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
