//! Who is told of a change, in every order in which a few threads can come to it. The source is the
//! vault's own, with the locks of the model.

#[expect(clippy::duplicate_mod, reason = "once with the locks of the model")]
#[expect(dead_code, unreachable_pub, reason = "the model is not all of the vault")]
#[path = "../recent.rs"]
mod subject;
use crate::vault::expiry;
mod sync {
    pub(super) use std::sync::PoisonError;

    pub(super) use loom::sync::atomic::{AtomicBool, Ordering};
    pub(super) use loom::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
}

use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

use subject::{Recent, Watch};

const TENANT: &u8 = &7;
/// What is on the disk before anything changes, and after that.
const OLD: u32 = 1;
const NEW: u32 = 2;

struct Vault {
    recent: Recent<u8, u32>,
    disk: AtomicU32,
    /// Who made the change knows that it is made.
    has_returned: AtomicBool,
}

impl Vault {
    fn new() -> Arc<Self> {
        let (recent, disk) = (Recent::new(), AtomicU32::new(OLD));
        Arc::new(Self { recent, disk, has_returned: AtomicBool::new(false) })
    }

    fn entry(&self) -> u32 {
        match self.recent.get(TENANT) {
            Ok(noted) => *noted,
            Err(changes) => {
                let found = self.disk.load(Ordering::SeqCst);
                self.recent.note(TENANT, Duration::ZERO, &Arc::new(found), changes);
                found
            }
        }
    }

    /// As a lease does that has something of the old one.
    fn is_old_current(&self, watch: &Arc<Watch>) -> bool {
        if watch.is_unchanged() {
            return true;
        }
        let is_current = self.entry() == OLD;
        if is_current {
            self.recent.arm(TENANT, watch, |noted| *noted == OLD);
        }
        is_current
    }

    fn change(&self, tell: impl FnOnce(&Recent<u8, u32>)) {
        self.disk.store(NEW, Ordering::SeqCst);
        tell(&self.recent);
        self.has_returned.store(true, Ordering::SeqCst);
    }

    fn lease(&self, watch: &Arc<Watch>) {
        let was_over = self.has_returned.load(Ordering::SeqCst);
        let is_leased = self.is_old_current(watch);
        assert!(!(was_over && is_leased), "leased after the change");
    }
}

/// Leases twice in each of two threads, of the same and of an own instance, while `work` is done.
fn explore(work: fn(&Vault)) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let (vault, shared) = (Vault::new(), Arc::new(Watch::default()));
        // Awake, as far as the vault goes and beyond.
        vault.lease(&shared);
        let threads: Vec<_> = [Arc::clone(&shared), Arc::default()]
            .into_iter()
            .map(|watch| {
                let vault = Arc::clone(&vault);
                thread::spawn(move || {
                    vault.lease(&watch);
                    vault.lease(&watch);
                })
            })
            .collect();
        work(&vault);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn nothing_old_is_leased_once_a_change_has_returned() {
    explore(|vault| vault.change(|recent| recent.changed([TENANT])));
    explore(|vault| vault.change(Recent::all_changed));
}

#[test]
fn what_is_forgotten_for_its_age_is_still_watched_where_it_is_asked_for_again() {
    explore(|vault| {
        vault.recent.sweep(|_| true);
        vault.change(|recent| recent.changed([TENANT]));
    });
}

#[test]
fn who_watches_what_did_not_change_is_told_so_without_a_look_up() {
    loom::model(|| {
        let (vault, watch) = (Vault::new(), Arc::new(Watch::default()));
        assert!(!watch.is_unchanged());
        assert!(vault.is_old_current(&watch) && watch.is_unchanged());
        vault.recent.changed([&8]);
        assert!(watch.is_unchanged(), "another one changed");
        vault.recent.sweep(|_| true);
        assert!(!watch.is_unchanged());
        assert!(vault.is_old_current(&watch) && watch.is_unchanged());
        drop(vault);
        assert!(!watch.is_unchanged(), "sealed");
    });
}
