//! The sharing of sessions, in every order in which a few threads can come to it. The source is the
//! pool's own, with the locks of the model.

#[expect(clippy::duplicate_mod, reason = "once with the locks of the model")]
#[path = "../sharing.rs"]
mod sharing;
mod sync {
    pub(super) use std::sync::PoisonError;

    pub(super) use loom::sync::atomic::{AtomicU32, Ordering};
    pub(super) use loom::sync::{Mutex, MutexGuard};
}

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use sharing::{Grant, HandedOver, Sharing, Waiter};

/// What a call waits at. An instance is the tenant that it belongs to.
#[derive(Clone, Debug)]
struct Mailbox(Arc<(Mutex<Option<Grant<u32>>>, Condvar)>);

impl Mailbox {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(None), Condvar::new())))
    }

    fn take(&self) -> Option<Grant<u32>> {
        self.0.0.lock().unwrap().take()
    }

    fn wait(&self) -> Grant<u32> {
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
    type Instance = u32;

    fn grant(self, grant: Grant<u32>) -> Result<(), Grant<u32>> {
        *self.0.0.lock().unwrap() = Some(grant);
        self.0.1.notify_one();
        Ok(())
    }
}

/// The pool as far as sessions go: who holds them, and whose are idle.
struct Pool {
    sharing: Sharing<u32, Mailbox>,
    idle: Mutex<Vec<u32>>,
}

impl Pool {
    /// One of `most` sessions of each of `held` is leased.
    fn new(most: u32, held: &[u32]) -> Arc<Self> {
        let pool = Self { sharing: Sharing::new(most), idle: Mutex::new(Vec::new()) };
        for tenant in held {
            assert!(pool.sharing.take(tenant));
        }
        Arc::new(pool)
    }

    fn relieve(&self) {
        self.sharing.relieve(|| {
            let oldest = self.idle.lock().unwrap().pop();
            oldest.inspect(|tenant| self.sharing.release(tenant)).is_some()
        });
    }

    fn give_back(&self, tenant: u32) {
        if self.sharing.is_contended() {
            match self.sharing.hand_over(&tenant, 0, tenant) {
                HandedOver::Taken => return,
                HandedOver::Close(_) => return self.sharing.release(&tenant),
                HandedOver::Keep(_) => {}
            }
        }
        self.idle.lock().unwrap().push(tenant);
        self.relieve();
    }

    fn lease(&self, tenant: u32) {
        if self.sharing.take(&tenant) {
            return;
        }
        let mailbox = Mailbox::new();
        self.sharing.wait(&tenant, 0, mailbox.clone());
        self.relieve();
        match mailbox.wait() {
            Grant::Session => {}
            Grant::Instance(of) => assert_eq!(of, tenant),
        }
    }

    /// Waits, and gives up whenever that is.
    fn give_up(&self, tenant: u32) {
        let mailbox = Mailbox::new();
        let ticket = self.sharing.wait(&tenant, 0, mailbox.clone());
        self.relieve();
        if self.sharing.cancel(&tenant, ticket) {
            return;
        }
        match mailbox.take() {
            Some(Grant::Session) => self.sharing.release(&tenant),
            Some(Grant::Instance(of)) => self.give_back(of),
            None => unreachable!("out of line, and with nothing to show for it"),
        }
    }

    /// Closes what is idle, after which nothing is left.
    fn end(&self) {
        for tenant in self.idle.lock().unwrap().drain(..) {
            self.sharing.release(&tenant);
        }
        assert_eq!((self.sharing.held(), self.sharing.tenants()), (0, 0));
        assert!(!self.sharing.is_contended());
    }
}

/// Runs `works` at once, in every order, with so many switches where none has to be.
fn explore(preemptions: usize, (most, held): (u32, &'static [u32]), works: &'static [fn(&Pool)]) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let pool = Pool::new(most, held);
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
    pool.lease(tenant);
    pool.give_back(tenant);
}

#[test]
fn who_waits_gets_what_another_tenant_no_longer_uses() {
    explore(3, (1, &[1]), &[|pool| pool.give_back(1), |pool| use_one(pool, 2)]);
}

#[test]
fn two_tenants_that_wait_both_get_it() {
    explore(
        1,
        (1, &[1]),
        &[|pool| pool.give_back(1), |pool| use_one(pool, 2), |pool| use_one(pool, 3)],
    );
}

#[test]
fn calls_of_one_tenant_hand_it_on() {
    explore(
        1,
        (1, &[1]),
        &[|pool| pool.give_back(1), |pool| use_one(pool, 1), |pool| use_one(pool, 2)],
    );
}

#[test]
fn a_call_that_gives_up_leaves_it_to_the_next() {
    explore(
        1,
        (1, &[1]),
        &[|pool| pool.give_back(1), |pool| pool.give_up(2), |pool| use_one(pool, 3)],
    );
    explore(
        1,
        (1, &[1]),
        &[|pool| pool.give_back(1), |pool| pool.give_up(1), |pool| use_one(pool, 2)],
    );
}
