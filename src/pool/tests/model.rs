//! What decides who gets an instance, in the orders in which a few threads can come to it: the pool's
//! own source of `stock.rs` and `sharing.rs`, with the locks of the model.
//!
//! Around them is what a lease, its return and a change of a tenant do with them, in the order in which
//! `Pool::lease`, `Entry` and `Pool::close_outdated` do it. Stand-ins are the places of an entry (a
//! semaphore of Tokio's), where instances are idle longest (a heap of deadlines), and which entry is
//! current (the vault's, which has a model of its own).

#[expect(clippy::duplicate_mod, reason = "once with the locks of the model")]
#[path = "../sharing.rs"]
#[expect(dead_code, reason = "what refusals say is not in the model")]
mod sharing;
#[expect(clippy::duplicate_mod, reason = "once with the locks of the model")]
#[path = "../stock.rs"]
#[expect(dead_code, reason = "the reaper's part is not in the model")]
mod stock;
mod sync {
    pub(super) use std::sync::PoisonError;

    pub(super) use loom::sync::atomic::{AtomicU32, Ordering};
    pub(super) use loom::sync::{Mutex, MutexGuard};
}

use std::sync::Arc as Owner;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use sharing::{Grant, Sharing, Waiter, Wish};
use stock::{Breakable, Stock};

type Sessions = Sharing<u32, Mailbox>;

/// One session of a tenant, of a revision. Dropped, it is closed.
struct Instance {
    sessions: Owner<Sessions>,
    tenant: u32,
    revision: u64,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.sessions.release(&self.tenant);
    }
}

impl Breakable for Instance {
    fn is_broken(&self) -> bool {
        false
    }
}

/// What a call waits at.
#[derive(Clone)]
struct Mailbox(Arc<(Mutex<Option<Grant<Instance>>>, Condvar)>);

impl Mailbox {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(None), Condvar::new())))
    }

    fn take(&self) -> Option<Grant<Instance>> {
        self.0.0.lock().unwrap().take()
    }

    fn wait(&self) -> Grant<Instance> {
        let mut grant = self.0.0.lock().unwrap();
        loop {
            if let Some(grant) = grant.take() {
                return grant;
            }
            grant = self.0.1.wait(grant).unwrap();
        }
    }
}

impl Waiter for Mailbox {
    type Instance = Instance;

    fn grant(self, grant: Grant<Instance>) -> Result<(), Grant<Instance>> {
        *self.0.0.lock().unwrap() = Some(grant);
        self.0.1.notify_one();
        Ok(())
    }
}

/// Places, as a semaphore has them; none once it is closed.
struct Places {
    free: Mutex<Option<u32>>,
    changed: Condvar,
}

/// The semaphore is closed.
struct Closed;

impl Places {
    /// Whether there was one.
    fn try_take(&self) -> Result<bool, Closed> {
        let mut free = self.free.lock().unwrap();
        let free = free.as_mut().ok_or(Closed)?;
        let is_free = *free > 0;
        *free -= u32::from(is_free);
        Ok(is_free)
    }

    fn wait(&self) -> Result<(), Closed> {
        let mut free = self.free.lock().unwrap();
        loop {
            match free.as_mut() {
                None => return Err(Closed),
                Some(0) => free = self.changed.wait(free).unwrap(),
                Some(count) => {
                    *count -= 1;
                    return Ok(());
                }
            }
        }
    }

    fn give_back(&self) {
        if let Some(free) = self.free.lock().unwrap().as_mut() {
            *free += 1;
        }
        self.changed.notify_one();
    }

    fn close(&self) {
        *self.free.lock().unwrap() = None;
        self.changed.notify_all();
    }
}

/// One revision of a tenant.
struct Entry {
    tenant: u32,
    revision: u64,
    places: Places,
    stock: Stock<Instance>,
}

struct Lease {
    entry: Owner<Entry>,
    instance: Instance,
}

/// A pool of tenants 0, 1 and so on.
struct Pool {
    sessions: Owner<Sessions>,
    current: Mutex<Vec<Owner<Entry>>>,
    /// Leases of the beginning, for the threads to give back.
    leased: std::sync::Mutex<Vec<Lease>>,
    places: u32,
}

impl Pool {
    fn new(scene: Scene) -> Arc<Self> {
        let tenants = 0..scene.tenants;
        let pool = Self {
            sessions: Owner::new(Sharing::new(scene.sessions)),
            current: Mutex::new(tenants.map(|it| Self::entry(it, 0, scene.places)).collect()),
            leased: std::sync::Mutex::default(),
            places: scene.places,
        };
        for tenant in scene.leased {
            let lease = pool.lease(*tenant);
            pool.leased.lock().unwrap().push(lease);
        }
        Arc::new(pool)
    }

    fn entry(tenant: u32, revision: u64, places: u32) -> Owner<Entry> {
        let places = Places { free: Mutex::new(Some(places)), changed: Condvar::new() };
        Owner::new(Entry { tenant, revision, places, stock: Stock::new() })
    }

    fn current(&self, tenant: u32) -> Owner<Entry> {
        Owner::clone(&self.current.lock().unwrap()[tenant as usize])
    }

    fn is_usable(&self, entry: &Entry) -> bool {
        self.current(entry.tenant).revision == entry.revision && !entry.stock.is_closed()
    }

    /// Closes idle instances as long as calls wait for the sessions.
    fn relieve(&self) {
        self.sessions.relieve(|| {
            let entries = self.current.lock().unwrap().clone();
            let spare = |stock: &Stock<_>| stock.state().take_spare();
            entries.iter().any(|entry| spare(&entry.stock).is_some())
        });
    }

    fn give_back_instance(&self, entry: &Entry, instance: Instance, leaving: bool) {
        let whose = (&entry.tenant, entry.revision);
        let (closed, _) = entry.stock.give_back(&self.sessions, whose, instance, leaving);
        drop(closed);
        self.relieve();
        self.serve(entry);
    }

    fn serve(&self, entry: &Entry) {
        let whose = (&entry.tenant, entry.revision);
        if let Some(instance) = entry.stock.take_awaited(&self.sessions, whose) {
            self.give_back_instance(entry, instance, false);
        }
    }

    fn give_back(&self, lease: Lease) {
        self.give_back_instance(&lease.entry, lease.instance, true);
        lease.entry.places.give_back();
    }

    /// Gives back the first lease of the beginning.
    fn give_back_first(&self) {
        let first = self.leased.lock().unwrap().remove(0);
        self.give_back(first);
    }

    fn lease(&self, tenant: u32) -> Lease {
        let asked = self.current(tenant).revision;
        loop {
            let entry = self.current(tenant);
            let Ok(is_free) = entry.places.try_take() else { continue };
            let idle = if is_free {
                Ok(entry.stock.enter())
            } else {
                entry.stock.wait_at_door();
                let idle = entry.places.wait().map(|()| entry.stock.enter());
                entry.stock.leave_door();
                self.relieve();
                idle
            };
            let Ok(idle) = idle else { continue };
            let has_waited = !is_free || idle.is_none();
            let instance = idle.map_or_else(|| self.open(&entry), |idle| idle.instance);
            let lease = Lease { entry, instance };
            if has_waited && !self.is_usable(&lease.entry) {
                self.give_back(lease);
                continue;
            }
            let of = &lease.instance;
            assert_eq!((of.tenant, of.revision), (tenant, lease.entry.revision));
            assert!(of.revision >= asked, "older than the call");
            return lease;
        }
    }

    fn open(&self, entry: &Entry) -> Instance {
        if self.sessions.take(&entry.tenant) {
            return self.opened(entry);
        }
        let mailbox = Mailbox::new();
        let place = (self.sessions.ticket(), Wish::Any);
        self.sessions.wait(&entry.tenant, entry.revision, place, mailbox.clone());
        self.relieve();
        match mailbox.wait() {
            Grant::Session => self.opened(entry),
            Grant::Instance(instance) => instance,
        }
    }

    fn opened(&self, entry: &Entry) -> Instance {
        let (sessions, tenant) = (Owner::clone(&self.sessions), entry.tenant);
        Instance { sessions, tenant, revision: entry.revision }
    }

    /// Leases what comes back, as the tenant's database lets no further session in.
    fn use_own(&self, tenant: u32) {
        let entry = self.current(tenant);
        assert!(matches!(entry.places.try_take(), Ok(true)));
        let wait = || {
            let mailbox = Mailbox::new();
            let place = (self.sessions.ticket(), Wish::Instance);
            self.sessions.wait(&tenant, entry.revision, place, mailbox.clone());
            self.serve(&entry);
            match mailbox.wait() {
                Grant::Instance(instance) => instance,
                Grant::Session => unreachable!("it has not wished for one"),
            }
        };
        let instance = entry.stock.enter().map_or_else(wait, |idle| idle.instance);
        self.give_back(Lease { entry, instance });
    }

    /// Waits for what `wish` says, and gives up whenever that is.
    fn give_up(&self, tenant: u32, wish: Wish) {
        let entry = self.current(tenant);
        let mailbox = Mailbox::new();
        let ticket = self.sessions.ticket();
        self.sessions.wait(&tenant, entry.revision, (ticket, wish), mailbox.clone());
        match wish {
            Wish::Any => self.relieve(),
            Wish::Instance => self.serve(&entry),
        }
        if self.sessions.cancel(&tenant, ticket) {
            return;
        }
        match mailbox.take() {
            Some(Grant::Session) => drop(self.opened(&entry)),
            Some(Grant::Instance(instance)) => self.give_back_instance(&entry, instance, false),
            None => unreachable!("out of line, and with nothing to show for it"),
        }
    }

    /// Waits at the door, and gives up whenever that is.
    fn give_up_at_door(&self, tenant: u32) {
        let entry = self.current(tenant);
        entry.stock.wait_at_door();
        entry.stock.leave_door();
        self.relieve();
    }

    /// Makes what there is of `tenant` out of date.
    fn change(&self, tenant: u32) {
        let old = {
            let mut current = self.current.lock().unwrap();
            let place = &mut current[tenant as usize];
            let new = Self::entry(tenant, place.revision + 1, self.places);
            std::mem::replace(place, new)
        };
        old.places.close();
        drop(old.stock.close());
        assert!(old.stock.enter().is_none(), "something old is idle");
        old.stock.leave();
    }

    /// Closes what is idle, after which nothing is left.
    fn end(&self) {
        let entries = std::mem::take(&mut *self.current.lock().unwrap());
        for entry in &entries {
            assert_eq!(entry.stock.count().1, 0, "leased by nobody");
            drop(entry.stock.close());
        }
        assert_eq!((self.sessions.held(), self.sessions.tenants()), (0, 0));
        assert!(!self.sessions.is_contended() && !self.sessions.holds(&0));
    }
}

/// How many there are of each, and by whom the sessions are leased.
#[derive(Clone, Copy)]
struct Scene {
    tenants: u32,
    places: u32,
    sessions: u32,
    leased: &'static [u32],
}

/// The one session is leased to tenant 0.
const ONE: Scene = Scene { tenants: 2, places: 2, sessions: 1, leased: &[0] };
const THREE: Scene = Scene { tenants: 3, ..ONE };

/// Runs `works` at once, in every order with at most so many switches where none has to be.
fn explore(preemptions: usize, scene: Scene, works: &'static [fn(&Pool)]) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let pool = Pool::new(scene);
        let threads: Vec<_> = works
            .iter()
            .map(|work| {
                let pool = Arc::clone(&pool);
                thread::spawn(move || work(&pool))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        pool.end();
    });
}

fn use_one(pool: &Pool, tenant: u32) {
    let lease = pool.lease(tenant);
    pool.give_back(lease);
}

#[test]
fn who_waits_gets_what_another_tenant_no_longer_uses() {
    explore(3, ONE, &[Pool::give_back_first, |pool| use_one(pool, 1)]);
}

#[test]
fn two_tenants_that_wait_both_get_it() {
    explore(1, THREE, &[Pool::give_back_first, |pool| use_one(pool, 1), |pool| use_one(pool, 2)]);
}

#[test]
fn calls_of_one_tenant_hand_it_on() {
    explore(1, ONE, &[Pool::give_back_first, |pool| use_one(pool, 0), |pool| use_one(pool, 1)]);
}

#[test]
fn a_call_that_gives_up_leaves_it_to_the_next() {
    explore(
        1,
        THREE,
        &[Pool::give_back_first, |pool| pool.give_up(1, Wish::Any), |pool| use_one(pool, 2)],
    );
    explore(
        1,
        ONE,
        &[Pool::give_back_first, |pool| pool.give_up(0, Wish::Any), |pool| use_one(pool, 1)],
    );
}

/// As [`ONE`], where the tenant's other places are for calls that may have no other session.
const FULL: Scene = Scene { places: 3, ..ONE };

#[test]
fn a_call_that_may_have_no_other_session_gets_the_one_that_comes_back() {
    explore(3, FULL, &[Pool::give_back_first, |pool| pool.use_own(0)]);
    explore(1, FULL, &[Pool::give_back_first, |pool| pool.use_own(0), |pool| pool.use_own(0)]);
    explore(
        1,
        FULL,
        &[Pool::give_back_first, |pool| pool.use_own(0), |pool| pool.give_up(0, Wish::Instance)],
    );
}

/// As [`ONE`], where the tenant's only place is taken as well.
const ONE_PLACE: Scene = Scene { places: 1, ..ONE };

#[test]
fn a_call_at_the_door_gets_what_was_left_for_it_and_another_tenant_its_turn() {
    explore(3, ONE_PLACE, &[Pool::give_back_first, |pool| use_one(pool, 0)]);
    explore(
        2,
        ONE_PLACE,
        &[Pool::give_back_first, |pool| use_one(pool, 0), |pool| use_one(pool, 1)],
    );
}

#[test]
fn what_was_left_for_a_call_that_gave_up_at_the_door_is_for_another_tenant() {
    explore(
        2,
        ONE_PLACE,
        &[Pool::give_back_first, |pool| pool.give_up_at_door(0), |pool| use_one(pool, 1)],
    );
}

#[test]
fn after_a_change_nothing_old_is_leased_or_stays() {
    explore(3, ONE, &[Pool::give_back_first, |pool| pool.change(0)]);
    explore(
        3,
        Scene { leased: &[], ..ONE_PLACE },
        &[|pool| use_one(pool, 0), |pool| pool.change(0)],
    );
    explore(1, ONE, &[Pool::give_back_first, |pool| pool.change(0), |pool| use_one(pool, 0)]);
    explore(1, ONE_PLACE, &[Pool::give_back_first, |pool| pool.change(0), |pool| use_one(pool, 0)]);
}
