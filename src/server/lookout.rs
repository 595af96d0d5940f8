//! One look at a tenant's database for everybody who wants to know when it changes.
//!
//! ```text
//! News --seen--> Lookout of the tenant --one of them, in turn--> lease: catalogue, wanted relations
//! News <--watch--'                       every 10 s, for all
//! ```
//!
//! Who has waited longest looks, with the leave that it has itself. When it goes, the next one does; when
//! all are gone, nobody does. What a look finds is the same for every caller: what a tenant's `access`
//! allows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::stay::NoPlace;
use super::{Error, Instances, TenantContext};
use crate::database::{Catalogue, Relation};
use crate::quota::{Permit, Unbegun};
use crate::tenant::{RelationName, TenantId};

/// How often a database is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Most resources that one listener has an eye on.
const MOST_WANTED: usize = 32;

/// The lookouts of all tenants. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Lookouts(Arc<Mutex<HashMap<TenantId, Weak<Lookout>>>>);

impl Lookouts {
    /// The one of `tenant`.
    pub(super) fn of(&self, tenant: &TenantId) -> Arc<Lookout> {
        let mut all = held(&self.0);
        all.retain(|_, lookout| lookout.strong_count() > 0);
        all.get(tenant).and_then(Weak::upgrade).unwrap_or_else(|| {
            let lookout = Arc::new(Lookout::new());
            all.insert(tenant.clone(), Arc::downgrade(&lookout));
            lookout
        })
    }
}

/// Single resources of which a listener wants to know, by the URIs that it knows them by.
#[derive(Debug, Default)]
pub(super) struct Wanted(Mutex<BTreeMap<String, Known>>);

/// A resource as a listener knows it.
#[derive(Debug)]
pub(super) enum Known {
    Api,
    Database,
    /// As a catalogue names it, and what it was when it was looked at last: nothing, if it was gone.
    Relation(RelationName, Option<Arc<Relation>>),
}

impl Wanted {
    /// Adds one, unless there are too many.
    pub(super) fn add(&self, uri: &str, known: Known) -> Result<(), Error> {
        let mut wanted = held(&self.0);
        if wanted.len() >= MOST_WANTED && !wanted.contains_key(uri) {
            return Err(NoPlace::Caller.into());
        }
        wanted.insert(uri.to_owned(), known);
        Ok(())
    }

    pub(super) fn remove(&self, uri: &str) {
        held(&self.0).remove(uri);
    }

    pub(super) fn uris(&self) -> Vec<String> {
        held(&self.0).keys().cloned().collect()
    }

    /// Takes note of what was `seen`, and gives the URIs of what is not as it was known.
    pub(super) fn note(&self, seen: &Seen, has_other_relations: bool) -> Vec<String> {
        let mut wanted = held(&self.0);
        let changed = wanted.iter_mut().filter_map(|(uri, known)| {
            let is_other = match known {
                Known::Api => false,
                Known::Database => has_other_relations,
                Known::Relation(name, last) => {
                    let now = seen.relations.get(name)?;
                    let is_other = now != last;
                    last.clone_from(now);
                    is_other
                }
            };
            is_other.then(|| uri.clone())
        });
        changed.collect()
    }
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) catalogue: Arc<Catalogue>,
    /// Of those that were wanted then; nothing of one that is not there.
    relations: BTreeMap<RelationName, Option<Arc<Relation>>>,
}

/// The looks at one tenant's database, for as long as somebody has this.
#[derive(Debug)]
pub(super) struct Lookout {
    /// When the next look is due; held by whose turn it is.
    turn: tokio::sync::Mutex<Instant>,
    seen: watch::Sender<Option<Arc<Seen>>>,
    wanted: Mutex<Vec<Weak<Wanted>>>,
}

/// The last look that somebody has heard of.
pub(super) type Looks = watch::Receiver<Option<Arc<Seen>>>;

impl Lookout {
    fn new() -> Self {
        Self {
            turn: tokio::sync::Mutex::new(Instant::now()),
            seen: watch::Sender::new(None),
            wanted: Mutex::default(),
        }
    }

    /// From now on what is `wanted` is looked at as well.
    pub(super) fn join(&self, wanted: &Arc<Wanted>) -> Looks {
        let wanted = Arc::downgrade(wanted);
        let mut all = held(&self.wanted);
        all.retain(|it| it.strong_count() > 0 && !it.ptr_eq(&wanted));
        all.push(wanted);
        self.seen.subscribe()
    }

    /// What was seen since `looks` was asked last. `context` is the tenant as the caller knows it, by
    /// whose quotas a look may begin; without one, the next look finds it out.
    ///
    /// Cancellation: whose turn it was leaves it to the next.
    pub(super) async fn seen(
        &self,
        looks: &mut Looks,
        instances: &mut impl Instances,
        context: &mut Option<Arc<TenantContext>>,
    ) -> Arc<Seen> {
        let heard = async {
            loop {
                // Never closed: its other half is ours.
                let _open = looks.changed().await;
                if let Some(seen) = looks.borrow_and_update().clone() {
                    return seen;
                }
            }
        };
        tokio::select! {
            biased;
            seen = heard => seen,
            never = self.look_for_all(instances, context) => match never {},
        }
    }

    async fn look_for_all(
        &self,
        instances: &mut impl Instances,
        context: &mut Option<Arc<TenantContext>>,
    ) -> Infallible {
        let mut due = self.turn.lock().await;
        loop {
            tokio::time::sleep_until(*due).await;
            let found = self.look(instances, context).await;
            *due = Instant::now() + LOOK;
            if let Some(found) = found {
                self.seen.send_replace(Some(Arc::new(found)));
            }
        }
    }

    /// What there is; `None` while the database cannot be asked, or the tenant has no statement left
    /// for it.
    async fn look(
        &self,
        instances: &mut impl Instances,
        known: &mut Option<Arc<TenantContext>>,
    ) -> Option<Seen> {
        let mut names = BTreeSet::new();
        for wanted in held(&self.wanted).iter().filter_map(Weak::upgrade) {
            names.extend(held(&wanted.0).values().filter_map(|known| match known {
                Known::Relation(name, _) => Some(name.clone()),
                Known::Api | Known::Database => None,
            }));
        }
        let names = Vec::from_iter(names);
        let acquire = |it: &TenantContext| it.meter.acquire(&it.config.quotas).ok();
        // Before the lease: no session is opened for what may not run.
        let permit = match known {
            Some(context) => Some(acquire(context)?),
            None => None,
        };
        let unbegun = permit.as_ref().map(Permit::unbegun);
        let mut server = instances.lease().await.ok()?;
        unbegun.into_iter().for_each(Unbegun::begun);
        // As it is by now: a lease is of the tenant's newest version.
        let context = Arc::clone(known.insert(Arc::clone(&server.context)));
        let _permit = permit.or_else(|| acquire(&context))?;
        let access = &context.config.access;
        let catalogue = server.session.catalogue(access).await.ok()?;
        let mut relations = BTreeMap::new();
        if !names.is_empty() {
            let found = server.session.describe(access, &names).await.ok()?;
            relations = names.into_iter().map(|name| (name, None)).collect();
            for relation in found {
                relations.insert(relation.name.clone(), Some(settled(relation)));
            }
        }
        Some(Seen { catalogue, relations })
    }
}

/// `relation` without the guess that changes with its rows.
pub(super) fn settled(relation: Relation) -> Arc<Relation> {
    Arc::new(Relation { estimated_rows: None, ..relation })
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after any panic: each change is one insertion or removal.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
