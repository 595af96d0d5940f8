//! Tenants that nobody asks for.

use std::task::Poll;

use super::*;
use crate::database::double::{Answers, Double};

/// More than any instance stays.
const LONG: Duration = IDLE.saturating_mul(2);

#[tokio::test]
async fn a_tenant_that_sleeps_has_nothing_in_the_pool() {
    let fixture = fixture(5);
    drop(fixture.lease("tenant001").await);
    // Looked at, but never used.
    fixture.pool.context(&access("tenant002")).await.unwrap();
    assert_eq!(fixture.pool.pool.tenants.all().len(), 2);
    tokio::time::pause();
    tokio::time::sleep(LONG).await;
    assert_eq!(fixture.pool.pool.tenants.all().len(), 0);
    tokio::time::resume();
    drop(fixture.lease("tenant001").await);
    assert_eq!(fixture.pool.pool.tenants.all().len(), 1);
}

#[tokio::test]
async fn a_tenant_that_is_asked_for_stays_awake_without_a_session() {
    let fixture = fixture(5);
    let access = access("tenant001");
    let context = fixture.pool.context(&access).await.unwrap();
    tokio::time::pause();
    for _ in 0..10 {
        tokio::time::sleep(IDLE.saturating_sub(Duration::from_secs(1))).await;
        assert!(Arc::ptr_eq(&fixture.pool.context(&access).await.unwrap(), &context));
    }
}

#[tokio::test]
async fn a_tenant_whose_database_is_gone_is_forgotten_too() {
    let fixture = fixture(5);
    std::fs::remove_file(fixture.directory.path().join("tenant001.db")).unwrap();
    fixture.pool.lease(&access("tenant001")).await.unwrap_err();
    tokio::time::pause();
    tokio::time::sleep(LONG).await;
    assert_eq!(fixture.pool.pool.tenants.all().len(), 0);
}

#[tokio::test]
async fn credentials_are_wiped_when_the_last_instance_went_before_its_time() {
    let fixture = fixture_with(|options| options.max_sessions = 1);
    fixture.lease("tenant001").await;
    let opened = Arc::downgrade(&fixture.vault.credentials(&id("tenant001")).unwrap());
    // It makes room.
    fixture.lease("tenant002").await;
    assert_eq!(fixture.stats().2, 1);
    assert!(opened.upgrade().is_some(), "they may be needed again soon");
    tokio::time::pause();
    tokio::time::sleep(LONG).await;
    assert!(opened.upgrade().is_none());
}

#[tokio::test]
async fn so_many_instances_stay_warm_as_the_setting_says_unless_others_need_the_sessions() {
    let fixture = fixture_with(|options| {
        options.max_sessions = 3;
        options.min_idle.insert(id("tenant001"), 1);
    });
    drop((fixture.lease("tenant001").await, fixture.lease("tenant001").await));
    drop(fixture.lease("tenant002").await);
    tokio::time::pause();
    tokio::time::sleep(LONG * 5).await;
    assert_eq!(fixture.stats(), (3, 3, 1, 1, 1));
    tokio::time::resume();
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(fixture.lease("tenant002").await);
    }
    assert_eq!(fixture.stats(), (6, 6, 3, 1, 0));
}

#[tokio::test]
async fn tenants_that_were_last_used_at_once_do_not_close_at_once() {
    let fixture = fixture(5);
    let mut timeouts = Vec::new();
    for number in 0..20 {
        let tenant = format!("spread{number:03}");
        fixture.import(&tenant, Quotas::default());
        timeouts.push(fixture.lease(&tenant).await.entry().idle_timeout);
    }
    assert!(timeouts.iter().all(|it| (IDLE..=IDLE * 17 / 16).contains(it)), "{timeouts:?}");
    timeouts.sort();
    timeouts.dedup();
    assert!(timeouts.len() > 15, "{timeouts:?}");
}

/// A server that never gives a sign of life.
#[derive(Debug)]
pub(super) struct Mute;

impl Answers for Mute {
    fn ping(&mut self) -> Poll<Result<(), database::Error>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn a_session_that_went_mute_while_it_was_idle_is_replaced_with_all_that_idled_longer() {
    let fixture = fixture(5);
    let leases: Vec<_> = {
        let mut leases = Vec::new();
        for _ in 0..3 {
            let mut lease = fixture.lease("tenant001").await;
            let context = Arc::clone(&lease.entry().context);
            *lease = crate::server::create_tenant_scoped_server(context, Box::new(Double(Mute)));
            leases.push(lease);
        }
        leases
    };
    let ids: Vec<_> = leases.iter().map(Lease::instance_id).collect();
    drop(leases);
    // Not asked while it is young.
    assert!(ids.contains(&fixture.lease("tenant001").await.instance_id()));
    tokio::time::pause();
    tokio::time::advance(UNCHECKED + Duration::from_secs(1)).await;
    let lease = {
        let access = access("tenant001");
        let mut lease = std::pin::pin!(fixture.pool.lease(&access));
        assert!(futures_util::poll!(lease.as_mut()).is_pending());
        tokio::time::advance(Duration::from_secs(3)).await;
        tokio::time::resume();
        lease.await.unwrap()
    };
    assert!(!ids.contains(&lease.instance_id()));
    assert_eq!(fixture.stats().2, 1, "the others had the same server");
}

#[tokio::test]
async fn a_session_that_was_idle_long_and_answers_is_leased() {
    let fixture = fixture(5);
    let id = fixture.lease("tenant001").await.instance_id();
    tokio::time::pause();
    tokio::time::advance(UNCHECKED + Duration::from_secs(1)).await;
    assert_eq!(fixture.lease("tenant001").await.instance_id(), id);
}

#[tokio::test]
async fn no_idle_time_at_all_closes_at_once_and_waits_for_who_looks() {
    let fixture = fixture_with(|options| {
        options.idle_timeout = Duration::ZERO;
        options.min_idle.insert(id("tenant002"), 1);
    });
    let leases = (fixture.lease("tenant001").await, fixture.lease("tenant002").await);
    tokio::time::pause();
    drop(leases);
    let seen = fixture.pool.pool.tenants.all();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((fixture.stats().2, fixture.pool.pool.tenants.all().len()), (1, 2));
    drop(seen);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((fixture.stats().2, fixture.pool.pool.tenants.all().len()), (1, 1));
}
