//! An instance while somebody has it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::time::Instant;

use super::McpConnectionPool;
use super::entry::{Entry, Place, PlaceShare};
use super::session::Instance;
use super::stock::Breakable as _;
use crate::auth::TenantAccess;
use crate::server::{self, Instances, ScopedServer};

/// An instance of a tenant, this holder's alone. Dropping it gives it back.
#[derive(Debug)]
pub struct Lease {
    /// `None` only before the lease is given and while it is dropped.
    instance: Option<Box<Instance>>,
    /// Given up after the instance is back, so that whoever waits finds it.
    place: Place,
}

impl Lease {
    /// A lease that has the instance that was used last, and since when nobody had that;
    /// or none, if none is idle.
    pub(super) fn begin(place: Place) -> (Self, Option<Instant>) {
        let idle = place.entry.stock.enter();
        let since = idle.as_ref().map(|idle| idle.since);
        let instance = idle.map(|idle| idle.instance);
        (Self { instance, place }, since)
    }

    /// A lease that is to have a new instance.
    pub(super) fn without_instance(place: Place) -> Self {
        place.entry.stock.enter_without_instance();
        Self { instance: None, place }
    }

    /// A share of its place, for what may go on after it.
    pub(super) fn share(&mut self) -> Arc<PlaceShare> {
        self.place.share()
    }

    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.place.entry
    }

    pub(super) fn fill(&mut self, instance: Box<Instance>) {
        self.instance = Some(instance);
    }

    /// Takes the instance out, which is then not given back.
    pub(super) fn empty(&mut self) -> Option<Box<Instance>> {
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
            Some(mut instance) => {
                if instance.is_broken() {
                    // A statement that was given up may still run.
                    instance.server.hold(Box::new(self.share()));
                }
                self.entry().give_back(instance, true);
            }
            None => self.entry().leave(),
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
