//! An instance while somebody has it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::entry::Entry;
use super::session::Instance;
use super::{McpConnectionPool, Shared};
use crate::auth::TenantAccess;
use crate::server::{self, Instances, ScopedServer};

/// An instance of a tenant, this holder's alone. Dropping it gives it back.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    /// `None` only before the lease is given and while it is dropped.
    instance: Option<Instance>,
    /// Given up after the instance is back, so that whoever waits finds it.
    _place: OwnedSemaphorePermit,
}

impl Lease {
    /// A lease that has the instance of `entry` that was used last, and since when nobody had that;
    /// or none, if none is idle.
    pub(super) fn begin(
        shared: Arc<Shared>,
        entry: Arc<Entry>,
        place: OwnedSemaphorePermit,
    ) -> (Self, Option<Instant>) {
        let idle = entry.enter();
        let since = idle.as_ref().map(|idle| idle.since);
        let instance = idle.map(|idle| idle.instance);
        (Self { shared, entry, instance, _place: place }, since)
    }

    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    pub(super) fn fill(&mut self, instance: Instance) {
        self.instance = Some(instance);
    }

    /// Takes the instance out, which is then not given back.
    pub(super) fn empty(&mut self) -> Option<Instance> {
        self.instance.take()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.instance.is_none()
    }

    /// Tells instances apart: the same number is the same instance.
    pub fn instance_id(&self) -> u64 {
        self.instance.as_ref().map_or(0, |instance| instance.id)
    }
}

impl Deref for Lease {
    type Target = ScopedServer;

    fn deref(&self) -> &ScopedServer {
        &self.instance.as_ref().expect("there until it is dropped").server
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut ScopedServer {
        &mut self.instance.as_mut().expect("there until it is dropped").server
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.instance.take() {
            Some(instance) => self.entry.give_back(instance, &self.shared, true),
            None => self.entry.leave(&self.shared),
        }
    }
}

/// The pool as one caller's source of instances.
#[derive(Clone, Debug)]
pub struct PooledInstances {
    pool: McpConnectionPool,
    access: TenantAccess,
}

impl PooledInstances {
    pub(super) fn new(pool: McpConnectionPool, access: TenantAccess) -> Self {
        Self { pool, access }
    }
}

impl Instances for PooledInstances {
    type Instance<'a> = Lease;

    async fn lease(&mut self) -> Result<Lease, server::Error> {
        Ok(self.pool.lease(&self.access).await?)
    }
}
