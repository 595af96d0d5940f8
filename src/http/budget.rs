//! How many bytes of bodies and answers are in memory, in all and of one tenant.
//!
//! ```text
//! body announced --reserve--> read, handled
//! answer begun ----reserve--> taken by the connection, or dropped      otherwise POOL_EXHAUSTED
//! ```
//!
//! Protects against clients that send many bodies slowly, or take no answers: they fill their own
//! tenant's share, and other tenants are served. What is small is not counted: it is no more than
//! the connection costs. Not against many tenants that fill what all have together; nor for what a
//! call needs while it runs, which the limits of the tenant bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes, HttpBody as _};
use axum::response::Response;
use futures_util::StreamExt as _;

use super::Limits;
use crate::error::Bound;
use crate::tenant::TenantId;

/// What is not counted, in bytes.
const SMALL: u64 = 64 << 10;

/// Counts them. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: u64,
    /// Of tenants that have any.
    by_tenant: HashMap<TenantId, u64>,
}

/// The part of one tenant.
#[derive(Clone, Debug)]
pub(super) struct Share {
    budget: Budget,
    tenant: TenantId,
    max: u64,
    max_per_tenant: u64,
}

/// Leave to have bytes in memory, until all clones are dropped.
#[derive(Clone, Debug)]
pub(super) struct Room(Option<Arc<Counted>>);

#[derive(Debug)]
struct Counted {
    share: Share,
    bytes: u64,
}

impl Budget {
    pub(super) fn share(&self, tenant: &TenantId, limits: &Limits) -> Share {
        Share {
            budget: self.clone(),
            tenant: tenant.clone(),
            max: limits.max_buffered_bytes,
            max_per_tenant: limits.max_buffered_bytes_per_tenant,
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    #[cfg(test)]
    pub(super) fn of_a_test() -> Self {
        let tenant = TenantId::parse("tenant001", crate::tenant::IdRule::default());
        Budget::default().share(&tenant.unwrap(), &Limits::default())
    }

    /// The same for what is told in any case, such as what became of a change: it counts, and is never
    /// refused.
    pub(super) fn without_limit(self) -> Self {
        Self { max: u64::MAX, max_per_tenant: u64::MAX, ..self }
    }

    /// Room for `bytes`. A tenant that has nothing in memory may exceed its part, but not that of
    /// all: it could have no large answer otherwise.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Room, Bound> {
        if bytes <= SMALL {
            return Ok(Room(None));
        }
        let mut counts = self.budget.counts();
        let of_tenant = counts.by_tenant.get(&self.tenant).copied().unwrap_or(0);
        let (all, own) = (counts.all.saturating_add(bytes), of_tenant.saturating_add(bytes));
        if of_tenant > 0 && own > self.max_per_tenant {
            return Err(Bound::BufferedBytesPerTenant);
        }
        if all > self.max {
            return Err(Bound::BufferedBytes);
        }
        counts.all = all;
        counts.by_tenant.insert(self.tenant.clone(), own);
        drop(counts);
        Ok(Room(Some(Arc::new(Counted { share: self.clone(), bytes }))))
    }

    /// `bytes`, which are counted until the last of them is dropped.
    pub(super) fn keep(&self, bytes: Bytes) -> Result<Bytes, Bound> {
        Ok(self.reserve(bytes.len() as u64)?.keep(bytes))
    }

    /// `response`, whose bytes are counted until they are taken: where its length is known, from now
    /// on, else each part as it comes. A part without room cuts it.
    pub(super) fn hold(&self, response: Response) -> Result<Response, Bound> {
        let (parts, body) = response.into_parts();
        let whole = body.size_hint().exact().map(|bytes| self.reserve(bytes)).transpose()?;
        let share = self.clone();
        let frames = body.into_data_stream().map(move |frame| match &whole {
            Some(room) => frame.map(|bytes| room.keep(bytes)),
            None => share.keep(frame?).map_err(axum::Error::new),
        });
        Ok(Response::from_parts(parts, Body::from_stream(frames)))
    }
}

impl Room {
    /// `bytes`, which this room is for: it is held until the last of them is dropped.
    pub(super) fn keep(&self, bytes: Bytes) -> Bytes {
        struct Kept(Bytes, #[expect(dead_code, reason = "dropped with the bytes")] Arc<Counted>);
        impl AsRef<[u8]> for Kept {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        match &self.0 {
            Some(counted) => Bytes::from_owner(Kept(bytes, Arc::clone(counted))),
            None => bytes,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.share.budget.counts();
        counts.all = counts.all.saturating_sub(self.bytes);
        let Some(count) = counts.by_tenant.get_mut(&self.share.tenant) else { return };
        *count = count.saturating_sub(self.bytes);
        if *count == 0 {
            counts.by_tenant.remove(&self.share.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::IdRule;

    const MIB: u64 = 1 << 20;

    fn shares(budget: &Budget) -> [Share; 2] {
        let limits = Limits {
            max_buffered_bytes: 8 * MIB,
            max_buffered_bytes_per_tenant: 4 * MIB,
            ..Limits::default()
        };
        ["tenant001", "tenant002"]
            .map(|id| budget.share(&TenantId::parse(id, IdRule::AllowUnderscore).unwrap(), &limits))
    }

    #[test]
    fn a_tenant_that_has_its_share_gets_no_more_and_its_neighbour_does() {
        let budget = Budget::default();
        let [one, other] = shares(&budget);
        let rooms = [one.reserve(3 * MIB).unwrap(), one.reserve(MIB).unwrap()];
        assert_eq!(one.reserve(SMALL + 1).unwrap_err(), Bound::BufferedBytesPerTenant);
        let _small = one.reserve(SMALL).unwrap();
        let _neighbours = other.reserve(4 * MIB).unwrap();
        drop(rooms);
        let _again = one.reserve(4 * MIB).unwrap();
        assert_eq!(budget.counts().all, 8 * MIB);
    }

    #[test]
    fn one_large_answer_may_exceed_the_share_but_not_what_all_have() {
        let budget = Budget::default();
        let [one, other] = shares(&budget);
        assert_eq!(one.reserve(8 * MIB + 1).unwrap_err(), Bound::BufferedBytes);
        let room = one.reserve(7 * MIB).unwrap();
        assert_eq!(one.reserve(MIB).unwrap_err(), Bound::BufferedBytesPerTenant);
        assert_eq!(other.reserve(2 * MIB).unwrap_err(), Bound::BufferedBytes);
        drop(one.clone().without_limit().reserve(MIB).unwrap());
        drop((room, other.reserve(MIB).unwrap()));
        assert_eq!(budget.counts().all, 0);
        assert!(budget.counts().by_tenant.is_empty());
    }

    #[tokio::test]
    async fn an_answer_counts_until_its_last_byte_is_let_go_of() {
        let budget = Budget::default();
        let [one, _] = shares(&budget);
        let text = vec![b'x'; 2 << 20];
        let streamed = Body::from_stream(futures_util::stream::iter([Ok::<_, axum::Error>(
            Bytes::from(text.clone()),
        )]));
        for (body, at_once) in [(Body::from(text.clone()), 2 * MIB), (streamed, 0)] {
            let answer = one.hold(Response::new(body)).unwrap();
            assert_eq!(budget.counts().all, at_once);
            let mut frames = answer.into_body().into_data_stream();
            let taken = frames.next().await.unwrap().unwrap();
            assert!(frames.next().await.is_none());
            drop(frames);
            let last = taken.slice(taken.len() - 1..);
            drop(taken);
            assert_eq!(budget.counts().all, 2 * MIB);
            drop(last);
            assert_eq!(budget.counts().all, 0);
        }
        drop(one.hold(Response::new(Body::from(text))).unwrap());
        assert_eq!(budget.counts().all, 0);
    }
}
