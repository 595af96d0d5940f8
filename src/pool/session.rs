//! An instance: a server with its session, and its part of all there may be.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::Counters;
use super::entry::Entry;
use super::sharing::{Grant, Sharing, Ticket, Waiter, Wish};
use crate::server::ScopedServer;
use crate::tenant::TenantId;

/// Who holds and who wants sessions.
pub(super) type Sessions = Sharing<TenantId, Mailbox>;

/// A server and its place in the counts.
#[derive(Debug)]
pub(super) struct Instance {
    /// Before the slot: the session is closed when another may be opened.
    pub(super) server: ScopedServer,
    /// From 1, in order of creation.
    pub(super) id: u64,
    pub(super) counters: Arc<Counters>,
    /// There until it is dropped.
    pub(super) slot: Option<Arc<Slot>>,
}

/// Leave to have one session open.
#[derive(Debug)]
pub(super) struct Slot {
    sessions: Arc<Sessions>,
    tenant: TenantId,
}

/// Where a call gets what it waits for.
#[derive(Debug)]
pub(super) struct Mailbox(oneshot::Sender<Grant<Box<Instance>>>);

/// A call in line for a session. Dropped, it is out of line, and what it was granted goes on.
#[derive(Debug)]
pub(super) struct InLine<'a> {
    entry: &'a Arc<Entry>,
    ticket: Ticket,
    granted: oneshot::Receiver<Grant<Box<Instance>>>,
}

impl Slot {
    /// Of a session that the tenant of `entry` was granted.
    pub(super) fn granted(entry: &Entry) -> Self {
        Self { sessions: Arc::clone(&entry.shared.sessions), tenant: entry.tenant().clone() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.sessions.release(&self.tenant);
    }
}

impl Waiter for Mailbox {
    type Instance = Box<Instance>;

    fn grant(self, grant: Grant<Box<Instance>>) -> Result<(), Grant<Box<Instance>>> {
        self.0.send(grant)
    }
}

impl<'a> InLine<'a> {
    /// Puts a call for `entry` in line. For a session, idle instances of others are closed.
    pub(super) fn join(entry: &'a Arc<Entry>, ticket: Ticket, wish: Wish) -> Self {
        let (shared, tenant) = (&entry.shared, entry.tenant());
        let (mailbox, granted) = oneshot::channel();
        shared.sessions.wait(tenant, entry.generation, (ticket, wish), Mailbox(mailbox));
        let in_line = Self { entry, ticket, granted };
        match wish {
            Wish::Any => shared.relieve(),
            Wish::Instance => entry.serve(),
        }
        in_line
    }

    /// Leave to open a session, or an instance, once.
    ///
    /// Cancellation: what was granted meanwhile stays here.
    pub(super) async fn granted(&mut self) -> Result<Grant<Box<Instance>>, super::Error> {
        // The other half is dropped only with the line as a whole.
        (&mut self.granted).await.map_err(|_| super::Error::ShutDown)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if self.entry.shared.sessions.cancel(self.entry.tenant(), self.ticket) {
            return;
        }
        match self.granted.try_recv() {
            Ok(Grant::Session) => drop(Slot::granted(self.entry)),
            Ok(Grant::Instance(instance)) => self.entry.give_back(instance, false),
            // It was taken.
            Err(_) => {}
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.server.is_broken()
            && let Some(slot) = self.slot.take()
        {
            // A statement that was given up may still run.
            self.server.hold(Box::new(slot));
        }
        self.counters.live.fetch_sub(1, Ordering::AcqRel);
        self.counters.closed.notify_waiters();
    }
}
