//! Too many tenants for the sessions, too many calls for the instances.

use std::pin::pin;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _, TryStreamExt as _};
use tokio::net::TcpListener;

use super::*;

pub(super) fn small(max_instances_per_tenant: u32, max_sessions: u32) -> Fixture {
    fixture_with(|options| {
        options.max_instances_per_tenant = max_instances_per_tenant;
        options.max_sessions = max_sessions;
    })
}

/// More than idle times differ.
async fn later() {
    tokio::time::pause();
    tokio::time::advance(IDLE / 10).await;
    tokio::time::resume();
}

#[tokio::test]
async fn the_session_that_was_idle_longest_makes_room_for_another_tenant() {
    let fixture = small(5, 2);
    fixture.import("tenant003", Quotas::default());
    drop(fixture.lease("tenant001").await);
    later().await;
    let second = fixture.lease("tenant002").await.instance_id();
    later().await;
    drop(fixture.lease("tenant003").await);
    assert_eq!(fixture.stats(), (3, 3, 2, 2, 2));
    later().await;
    assert_eq!(fixture.lease("tenant002").await.instance_id(), second);
    // Used since, so now it is the other's turn.
    drop(fixture.lease("tenant001").await);
    assert_eq!(fixture.lease("tenant002").await.instance_id(), second);
    assert_eq!(fixture.stats(), (6, 4, 2, 2, 2));
}

#[tokio::test]
async fn a_tenant_with_all_sessions_gives_one_up_for_another_and_not_for_its_own_next_call() {
    let fixture = small(3, 2);
    let mut held = vec![fixture.lease("tenant001").await, fixture.lease("tenant001").await];
    let (own, other) = (access("tenant001"), access("tenant002"));
    let mut own = pin!(fixture.pool.lease(&own));
    assert!(futures_util::poll!(own.as_mut()).is_pending());
    fixture.pool.context(&other).await.unwrap();
    let mut other = pin!(fixture.pool.lease(&other));
    assert!(futures_util::poll!(other.as_mut()).is_pending());
    assert_eq!(fixture.pool.stats().waiting, 2);
    drop(held.pop());
    let other = other.await.unwrap();
    assert!(futures_util::poll!(own.as_mut()).is_pending());
    let id = held[0].instance_id();
    drop(held);
    assert_eq!(own.await.unwrap().instance_id(), id, "now it is its own to hand on");
    drop(other);
    assert_eq!((fixture.pool.stats().waiting, fixture.stats().2), (0, 2));
}

#[tokio::test]
async fn whoever_waits_for_a_session_waits_no_longer_than_the_timeout() {
    let fixture = small(5, 1);
    let held = fixture.lease("tenant001").await;
    tokio::time::pause();
    let began = Instant::now();
    let bound = fixture.refused("tenant002").await;
    assert_eq!((bound, began.elapsed().as_secs()), (Bound::Sessions, 5));
    tokio::time::resume();
    drop(held);
    fixture.lease("tenant002").await;
}

#[tokio::test]
async fn where_calls_with_a_place_wait_for_a_session_more_places_are_not_what_is_missing() {
    let fixture = small(1, 1);
    let held = fixture.lease("tenant001").await;
    let access = access("tenant002");
    fixture.pool.context(&access).await.unwrap();
    tokio::time::pause();
    let mut with_place = pin!(fixture.pool.lease(&access));
    assert!(futures_util::poll!(with_place.as_mut()).is_pending());
    let without_place = fixture.pool.lease(&access);
    // Time moves once both wait, and the second is the first to be asked.
    let (without_place, with_place) = futures_util::future::join(without_place, with_place).await;
    assert_eq!([bound_of(without_place), bound_of(with_place)], [Bound::Sessions; 2]);
    tokio::time::resume();
    drop(held);
    let _one = fixture.lease("tenant002").await;
    tokio::time::pause();
    assert_eq!(fixture.refused("tenant002").await, Bound::InstancesPerTenant);
}

#[tokio::test]
async fn so_many_calls_wait_and_the_next_is_refused_at_once() {
    let fixture = fixture_with(|options| {
        options.max_instances_per_tenant = 1;
        options.max_waiting_per_tenant = 2;
        options.max_waiting = 3;
    });
    fixture.import("tenant003", Quotas::default());
    let _held = [
        fixture.lease("tenant001").await,
        fixture.lease("tenant002").await,
        fixture.lease("tenant003").await,
    ];
    let access = ["tenant001", "tenant002", "tenant003"].map(access);
    let lease = |tenant: usize| Box::pin(fixture.pool.lease(&access[tenant]));
    let mut waiting = [lease(0), lease(0), lease(1)];
    for wait in &mut waiting {
        assert!(futures_util::poll!(wait.as_mut()).is_pending());
    }
    let refused = |tenant| async move { bound_of(lease(tenant).await) };
    assert_eq!(refused(0).await, Bound::WaitingPerTenant);
    assert_eq!(refused(1).await, Bound::Waiting);
    let mut first = lease(2);
    assert!(futures_util::poll!(first.as_mut()).is_pending(), "but one of each tenant may");
    assert_eq!(refused(2).await, Bound::Waiting);
    drop((waiting, first));
    assert_eq!(fixture.pool.stats().waiting, 0);
    assert!(futures_util::poll!(lease(1).as_mut()).is_pending());
}

#[tokio::test]
async fn many_first_calls_open_the_record_once() {
    let fixture = fixture(5);
    let access = access("tenant001");
    let contexts = (0..20).map(|_| fixture.pool.context(&access));
    let contexts = futures_util::future::try_join_all(contexts).await.unwrap();
    assert!(contexts.iter().all(|context| Arc::ptr_eq(context, &contexts[0])));
    assert!(fixture.pool.pool.openings.lock().unwrap().is_empty());
}

#[tokio::test]
async fn of_many_first_calls_one_opens_credentials_and_a_session_before_the_others() {
    let fixture = fixture(5);
    let entry = fixture.pool.entry(&id("tenant001")).await.unwrap();
    let turn = entry.opening.lock().await;
    let access = access("tenant001");
    let mut leases: FuturesUnordered<_> = (0..5).map(|_| fixture.pool.lease(&access)).collect();
    // Time moves once nothing else does.
    tokio::time::pause();
    let waited = tokio::time::timeout(Duration::from_secs(1), leases.next()).await;
    waited.unwrap_err();
    tokio::time::resume();
    let stats = fixture.pool.stats();
    assert_eq!((stats.sessions, stats.max_sessions), (1, 1_000), "the others hold none");
    assert_eq!(stats.current_pool_size, 0);
    let opened = fixture.vault.credentials(entry.tenant()).unwrap();
    drop(turn);
    let leases: Vec<_> = leases.try_collect().await.unwrap();
    assert_eq!((leases.len(), fixture.pool.stats().sessions), (5, 5));
    assert!(Arc::ptr_eq(&opened, &fixture.vault.credentials(entry.tenant()).unwrap()));
}

#[tokio::test]
async fn many_first_calls_of_a_database_that_does_not_answer_dial_it_once() {
    let fixture = fixture(5);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    fixture.import_postgres("tenant003", listener.local_addr().unwrap().port());
    let access = access("tenant003");
    fixture.pool.context(&access).await.unwrap();
    for given_up in [0, 2] {
        let mut leases: Vec<_> = (0..5).map(|_| Box::pin(fixture.pool.lease(&access))).collect();
        // Each in turn has the first place in line, and is given up.
        for _ in 0..given_up {
            let dialled = async { drop(listener.accept().await.unwrap().0.readable().await) };
            tokio::select! {
                () = dialled => {}
                results = join_all(leases.iter_mut()) => panic!("{results:?}"),
            }
            drop(leases.remove(0));
        }
        let mut dialled = 0;
        let refuse = async {
            loop {
                drop(listener.accept().await.unwrap());
                dialled += 1;
            }
        };
        let results = tokio::select! {
            () = refuse => unreachable!(),
            results = join_all(leases) => results,
        };
        assert_eq!((results.len(), dialled), (5 - given_up, 1));
        for result in results {
            assert_eq!(result.unwrap_err().code(), ErrorCode::DatabaseUnavailable);
        }
        assert_eq!(fixture.pool.stats().sessions, 0);
    }
}

/// Calls of two tenants, each of which could do with all three sessions. Says how many were opened.
async fn contend(max_instances_per_tenant: u32) -> u64 {
    let fixture = small(max_instances_per_tenant, 3);
    let callers = (0..20).map(|number| {
        let (fixture, tenant) = (&fixture, ["tenant001", "tenant002"][number % 2]);
        async move {
            for _ in 0..50 {
                let lease = fixture.lease(tenant).await;
                tokio::task::yield_now().await;
                drop(lease);
            }
        }
    });
    join_all(callers).await;
    assert_eq!(fixture.stats().0, 1_000);
    fixture.stats().1
}

#[tokio::test]
async fn tenants_that_share_do_not_close_each_others_sessions_over_and_over() {
    // What waits are calls with a place, and calls without one.
    for places in [5, 2] {
        let opened = contend(places).await;
        assert!(opened < 20, "{places} places: {opened}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_callers_of_ten_tenants_share_three_sessions_and_all_are_served() {
    let fixture = fixture_with(|options| {
        options.max_sessions = 3;
        options.acquire_timeout = Duration::from_mins(2);
    });
    let tenants: Vec<_> = (0..10).map(|number| format!("shared{number:03}")).collect();
    for tenant in &tenants {
        fixture.import(tenant, Quotas::default());
    }
    let most = AtomicU32::new(0);
    let callers = (0..100).map(|number| {
        let (fixture, tenant, most) = (&fixture, &tenants[number % 10], &most);
        async move {
            for turn in 0..5 {
                let lease = fixture.lease(tenant).await;
                assert_eq!(lease.tenant().as_str(), tenant);
                most.fetch_max(fixture.pool.pool.shared.sessions.held(), Ordering::Relaxed);
                if (number + turn) % 3 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    join_all(callers).await;
    let stats = fixture.pool.stats();
    assert_eq!((stats.total_acquired, stats.leased(), stats.waiting), (500, 0, 0));
    assert_eq!(most.into_inner(), 3);
}

#[tokio::test]
async fn who_waits_for_a_session_is_told_at_once_what_became_of_the_tenant() {
    let fixture = small(5, 1);
    let held = fixture.lease("tenant002").await;
    let own = access("tenant001");
    fixture.pool.context(&own).await.unwrap();
    let mut own = pin!(fixture.pool.lease(&own));
    assert!(futures_util::poll!(own.as_mut()).is_pending());
    assert_eq!(fixture.pool.stats().waiting, 1);
    fixture.vault.set_enabled(&id("tenant001"), false).unwrap();
    fixture.pool.pool.close_outdated();
    assert_eq!(own.await.unwrap_err().code(), ErrorCode::TenantDisabled);
    assert_eq!(fixture.pool.stats().waiting, 0);
    drop(held);
}
