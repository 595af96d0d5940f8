//! Instances that are open before anybody asks for them.

use std::sync::atomic::AtomicBool;

use super::super::warm::{FIRST_LOOKS, LOOK_INTERVAL};
use super::*;
use crate::database::double::{Answers, Double};
use crate::server::create_tenant_scoped_server;
use crate::vault::Unlock;

fn warm_fixture(change: impl FnOnce(&mut Options)) -> Fixture {
    fixture_with(|options| {
        options.min_idle.insert(id("tenant001"), 2);
        change(options);
    })
}

impl Fixture {
    /// Lets so much time pass, and all looks end that come within it.
    async fn pass(&self, time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    /// Waits until so many instances were made.
    async fn created(&self, count: u64) {
        while self.pool.stats().total_created < count {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn instances_are_opened_ahead_and_calls_meet_them() {
    let fixture = warm_fixture(|_| {});
    fixture.pass(FIRST_LOOKS).await;
    fixture.created(2).await;
    let (first, second) = (fixture.lease("tenant001").await, fixture.lease("tenant001").await);
    assert_ne!(first.instance_id(), second.instance_id());
    fixture.pool.warm(&id("tenant001")).await.unwrap();
    assert_eq!(fixture.stats(), (2, 2, 2, 1, 0), "what is leased is open");
    drop((first, second));
    assert_eq!(fixture.pool.pool.tenants.all().len(), 1, "others sleep");
}

#[tokio::test]
async fn a_tenant_that_is_imported_later_is_warm_at_the_next_look() {
    let fixture = fixture_with(|options| {
        options.min_idle.insert(id("tenant003"), 1);
    });
    fixture.pass(FIRST_LOOKS).await;
    fixture.pool.warm(&id("tenant003")).await.unwrap_err();
    fixture.import("tenant003", Quotas::default());
    fixture.pass(LOOK_INTERVAL * 5 / 4).await;
    fixture.created(1).await;
}

#[tokio::test]
async fn after_an_unsealing_it_is_warm_again_and_while_sealed_it_is_not() {
    let fixture = warm_fixture(|_| {});
    fixture.pool.warm(&id("tenant001")).await.unwrap();
    fixture.vault.seal();
    fixture.pool.close_all();
    let error = fixture.pool.warm(&id("tenant001")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::VaultSealed);
    assert_eq!(fixture.stats().2, 0);
    let unlock = Unlock::Passphrase(SecretText::from("a passphrase for tests"));
    fixture.vault.unseal(&unlock).unwrap();
    fixture.pass(FIRST_LOOKS + LOOK_INTERVAL * 5 / 4).await;
    fixture.created(4).await;
}

/// A session whose server is restarted when a test says so.
#[derive(Debug)]
struct Restarted(Arc<AtomicBool>);

impl Answers for Restarted {
    fn is_broken(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn after_a_restart_of_the_database_it_is_warm_again_without_a_call() {
    let fixture = warm_fixture(|_| {});
    fixture.pool.warm(&id("tenant001")).await.unwrap();
    let is_restarted = Arc::new(AtomicBool::new(false));
    let mut leases = [fixture.lease("tenant001").await, fixture.lease("tenant001").await];
    for lease in &mut leases {
        let (context, session) = (Arc::clone(&lease.entry().context), Arc::clone(&is_restarted));
        **lease = create_tenant_scoped_server(context, Box::new(Double(Restarted(session))));
    }
    drop(leases);
    fixture.pool.warm(&id("tenant001")).await.unwrap();
    assert_eq!(fixture.stats().1, 2, "nothing to do");
    is_restarted.store(true, Ordering::SeqCst);
    fixture.pass(FIRST_LOOKS + LOOK_INTERVAL * 5 / 4).await;
    fixture.created(4).await;
    assert_eq!(fixture.stats(), (2, 4, 2, 1, 2));
}

#[tokio::test]
async fn what_fails_is_quiet_and_tried_again() {
    let fixture = warm_fixture(|_| {});
    let path = fixture.directory.path().join("tenant001.db");
    std::fs::remove_file(&path).unwrap();
    let error = fixture.pool.warm(&id("tenant001")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::DatabaseUnavailable);
    assert_eq!(fixture.stats(), (0, 0, 0, 0, 0));
    make_database(&path);
    fixture.pass(FIRST_LOOKS + LOOK_INTERVAL * 5 / 4).await;
    fixture.created(2).await;
}

#[tokio::test]
async fn warmth_takes_no_session_that_another_has_and_no_place_that_there_is_not() {
    let fixture = warm_fixture(|options| options.max_sessions = 1);
    drop(fixture.lease("tenant002").await);
    fixture.pool.warm(&id("tenant001")).await.unwrap();
    assert_eq!(fixture.stats(), (1, 1, 1, 1, 1), "the other one's is still open");

    let fixture = warm_fixture(|_| {});
    let quotas = Quotas { max_concurrent_connections: Some(1), ..Quotas::default() };
    fixture.import("tenant001", quotas);
    fixture.pool.warm(&id("tenant001")).await.unwrap();
    assert_eq!(fixture.stats(), (0, 1, 1, 1, 1));
}

#[tokio::test]
async fn a_pool_that_is_shut_down_opens_nothing() {
    let fixture = warm_fixture(|_| {});
    fixture.pool.warm(&id("tenant001")).await.unwrap();
    assert_eq!(fixture.pool.shutdown(Duration::ZERO).await, 0);
    let error = fixture.pool.warm(&id("tenant001")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Cancelled);
    assert!(fixture.pool.pool.warmer.as_ref().is_some_and(|warmer| !warmer.is_finished()));
    tokio::task::yield_now().await;
    assert!(fixture.pool.pool.warmer.as_ref().is_some_and(AbortHandle::is_finished));
}
