//! Saving what was counted.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::super::counts::{save, save_batch};
use super::{PASSPHRASE, manager_of_one, vault_of_one};
use crate::audit::Actor;
use crate::auth::{self, Origin, TenantAccess};
use crate::clock::SystemClock;
use crate::quota::Limiter;
use crate::tenant::{Permission, Permissions, Quotas};
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

#[tokio::test]
async fn a_call_beyond_the_scopes_of_an_issuers_token_counts_as_refused_and_others_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let (manager, id) = manager_of_one(directory.path());
    let subject = || Actor::Subject { issuer: "corp".to_owned(), subject: "ann".to_owned() };
    let ask = async |actor, needed| {
        let permissions = Permissions::READ;
        let access = TenantAccess::local(id.clone(), permissions, actor, Origin::default());
        manager.check_scope(&access, "call", needed).await
    };
    let denied = || manager.meter(&id).unwrap().1.denied();
    ask(subject(), Permission::Query).await.unwrap();
    // Its tool refuses it, and counts it.
    ask(Actor::Token { id: "tok_0".to_owned() }, Permission::Write).await.unwrap();
    assert!(denied().is_empty());
    let refused = ask(subject(), Permission::Write).await.unwrap_err();
    assert!(matches!(refused, auth::Error::InsufficientScope { needed: Permission::Write }));
    let denied = denied();
    assert!(denied.len() == 1 && denied[0].0.starts_with("ann#") && denied[0].1 == 1, "{denied:?}");
}
