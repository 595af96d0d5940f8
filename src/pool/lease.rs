//! An instance while somebody has it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

use tokio::sync::OwnedSemaphorePermit;

use super::{Entry, Instance, McpConnectionPool, Shared};
use crate::auth::TenantAccess;
use crate::server::{self, Instances, ScopedServer};

/// An instance of a tenant, this holder's alone. Dropping it gives it back.
#[derive(Debug)]
pub struct Lease {
    shared: Weak<Shared>,
    entry: Arc<Entry>,
    /// `None` only while dropping.
    instance: Option<Instance>,
    /// Given up after the instance is back, so that whoever waits finds it.
    _place: OwnedSemaphorePermit,
}

impl Lease {
    pub(super) fn new(
        shared: Weak<Shared>,
        entry: Arc<Entry>,
        instance: Instance,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self { shared, entry, instance: Some(instance), _place: place }
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
        if let Some(instance) = self.instance.take() {
            self.entry.give_back(instance, self.shared.upgrade().as_deref());
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
