//! Instances that are open before anybody asks for them: `pool.min_idle`.
//!
//! ```text
//! start --within 2 s--> look at a tenant: fewer than min_idle? open them --5 to 6.25 s--> look again
//! ```
//!
//! A look that finds nothing to do costs about what a hot lease does. So nobody has to tell this of an
//! unsealing, a tenant that is imported or enabled, or a database that was restarted; what fails is
//! tried again at the next look, as often as the breaker lets it. A few tenants are looked at at once,
//! at moments that differ: a server that comes up is not met by all.
//!
//! What is opened here takes sessions and places only when they are free: nobody waits for it, and
//! nothing is closed for it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::entry::Place;
use super::session::Slot;
use super::{Error, Lease, McpConnectionPool, Pool};
use crate::database;
use crate::tenant::TenantId;

/// Within which time after the start each tenant is looked at first.
pub(super) const FIRST_LOOKS: Duration = Duration::from_secs(2);
/// How long after a look the next one is, or up to a quarter later.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// So many tenants at once.
const AT_ONCE: usize = 8;

/// Keeps the tenants that [`min_idle`](super::Options::min_idle) names warm, for as long as there is a
/// pool.
pub(super) async fn keep_warm(pool: Weak<Pool>, tenants: Vec<TenantId>) {
    let now = Instant::now();
    let mut next: BinaryHeap<_> =
        tenants.into_iter().map(|tenant| Reverse((now + share_of(FIRST_LOOKS), tenant))).collect();
    let mut under_way = FuturesUnordered::new();
    loop {
        let first = next.peek().filter(|_| under_way.len() < AT_ONCE).map(|Reverse((at, _))| *at);
        let due = async {
            match first {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {
                if let Some(Reverse((_, tenant))) = next.pop() {
                    under_way.push(look(Weak::clone(&pool), tenant));
                }
            }
            Some(tenant) = under_way.next() => {
                let Some(tenant) = tenant else { return };
                let at = Instant::now() + LOOK_INTERVAL + share_of(LOOK_INTERVAL / 4);
                next.push(Reverse((at, tenant)));
            }
        }
    }
}

/// Looks at one tenant, and gives it back unless the pool is gone.
async fn look(pool: Weak<Pool>, tenant: TenantId) -> Option<TenantId> {
    let pool = McpConnectionPool { pool: pool.upgrade()? };
    match pool.warm(&tenant).await {
        Ok(()) => {}
        Err(Error::ShutDown) => return None,
        // Who calls is told, and recorded; nobody has called.
        Err(error) => {
            tracing::debug!(tenant.id = %tenant, error.code = %error.code(), "not warm");
        }
    }
    Some(tenant)
}

impl McpConnectionPool {
    /// Opens instances of `tenant` until there are [`min_idle`](super::Options::min_idle), leased ones
    /// included, as long as sessions and places are free.
    ///
    /// Cancellation: what is open stays.
    pub(super) async fn warm(&self, tenant: &TenantId) -> Result<(), Error> {
        let entry = self.entry(tenant).await?;
        drop(entry.stock.take_broken());
        while entry.is_cold() {
            if !entry.try_place() {
                break;
            }
            let mut lease = Lease::without_instance(Place::taken(Arc::clone(&entry)));
            let attempt = entry.breaker.admit().await.map_err(database::Error::LeftAlone)?;
            if !entry.shared.sessions.take(tenant) {
                break;
            }
            // Should it fail, what is known of the failures stays.
            entry.touch();
            self.connect(&mut lease, attempt, Slot::granted(&entry)).await?;
            if lease.is_empty() {
                // It has changed, and is another entry at the next look.
                break;
            }
        }
        Ok(())
    }
}

/// Some of `time`, at random.
fn share_of(time: Duration) -> Duration {
    // Without randomness all are at once, which is better than not at all.
    time.mul_f64(f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX))
}
