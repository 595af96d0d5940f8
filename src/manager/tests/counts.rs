//! Saving what was counted.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::super::counts::{save, save_batch};
use super::{PASSPHRASE, vault_of_one};
use crate::clock::SystemClock;
use crate::quota::Limiter;
use crate::tenant::Quotas;
use crate::vault::Unlock;

#[test]
fn the_last_saving_waits_for_one_that_has_taken_what_is_to_be_saved() {
    let directory = tempfile::tempdir().unwrap();
    let (vault, id) = vault_of_one(directory.path());
    let limiter = Limiter::new(Arc::new(SystemClock));
    let meter = limiter.meter(&id, vault.tenant(&id).unwrap().created_at);
    meter.restore(None).unwrap();
    drop(meter.acquire(&Quotas::default()).unwrap());
    let (sealed, is_sealed) = mpsc::channel();
    thread::scope(|scope| {
        let saving = limiter.saving();
        let changed = limiter.take_changed();
        scope.spawn(|| {
            save(&vault, &limiter).unwrap();
            vault.seal();
            sealed.send(()).unwrap();
        });
        is_sealed.recv_timeout(Duration::from_millis(100)).unwrap_err();
        save_batch(&vault, &limiter, &changed).unwrap();
        drop(saving);
    });
    is_sealed.recv().unwrap();
    vault.unseal(&Unlock::Passphrase(PASSPHRASE.into())).unwrap();
    assert!(vault.counts(&id).unwrap().is_some());
}
