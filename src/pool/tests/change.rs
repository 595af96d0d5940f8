//! A tenant that changes while it is used.

use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::thread;

use tokio_util::sync::CancellationToken;

use super::revocable::Revocable;
use super::*;
use crate::database::double::{Answers, Double};
use crate::database::{Database as _, Dialect, Query, RowsRead, Write, check, check_write};
use crate::tenant::{AccessMode, Resource};
use crate::vault::Unlock;

const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                       SELECT count(*) FROM n";
const INSERT: &str = "INSERT INTO t (a) VALUES (1)";

/// Does what it is asked.
#[derive(Debug)]
struct Willing;

impl Answers for Willing {}

impl Fixture {
    /// The endless statement of one call, which ends by itself only after 30 s.
    async fn run_endless(&self, tenant: &str) -> ErrorCode {
        let mut lease = self.lease(tenant).await;
        let uri = format!("mcp://{tenant}/database");
        lease.query_tenant_data(&uri, ENDLESS, None).await.unwrap_err().code()
    }

    fn limit(&self, tenant: &str, limit: u64) {
        let quotas = Quotas { max_queries_per_day: Some(limit), ..Quotas::default() };
        self.import(tenant, quotas);
    }
}

#[tokio::test]
async fn a_tenant_removed_and_readmitted_is_another_though_its_version_is_the_same() {
    let fixture = fixture(5);
    let old = fixture.lease("tenant001").await;
    let idle = fixture.lease("tenant001").await.instance_id();
    let stored = fixture.vault.tenant(&id("tenant001")).unwrap();
    let unlock = Unlock::Passphrase(SecretText::from("a passphrase for tests"));
    fixture.vault.remove_tenants(&unlock, &[id("tenant001")]).unwrap();
    let error = fixture.pool.lease(&access("tenant001")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TenantNotConfigured);
    fixture.vault.readmit(&[id("tenant001")]).unwrap();
    fixture.limit("tenant001", 7);
    assert_eq!(fixture.vault.tenant(&id("tenant001")).unwrap().version, stored.version);
    let new = fixture.lease("tenant001").await;
    assert!(new.instance_id() != old.instance_id() && new.instance_id() != idle);
    assert_eq!(new.entry().context.config().quotas.max_queries_per_day, Some(7));
    drop(old);
    assert_eq!(fixture.stats().2, 1);
}

#[tokio::test]
async fn idle_instances_of_a_tenant_that_changed_close_without_a_call() {
    let fixture = fixture(5);
    for tenant in ["tenant001", "tenant002"] {
        fixture.lease(tenant).await;
    }
    fixture.vault.set_enabled(&id("tenant001"), false).unwrap();
    loop {
        let closed = fixture.pool.pool.shared.counters.closed.notified();
        if fixture.stats().2 == 1 {
            break;
        }
        closed.await;
    }
    assert_eq!(fixture.pool.stats().active_tenants, 1, "the other one's stays");
}

#[tokio::test]
async fn calls_under_way_finish_when_their_tenant_is_disabled() {
    let fixture = fixture(5);
    let mut lease = fixture.lease("tenant001").await;
    fixture.vault.set_enabled(&id("tenant001"), false).unwrap();
    fixture.pool.pool.close_outdated();
    let uri = "mcp://tenant001/database";
    lease.query_tenant_data(uri, "SELECT 1", None).await.unwrap();
    drop(lease);
    assert_eq!(fixture.stats().2, 0);
}

#[tokio::test]
async fn calls_under_way_are_cancelled_where_the_setting_says_so_and_those_of_others_are_not() {
    let fixture = fixture_with(|options| options.on_change = OnChange::Cancel);
    let mut other = fixture.lease("tenant002").await;
    let endless = fixture.run_endless("tenant001");
    let disable = async {
        while fixture.pool.stats().leased() < 2 {
            tokio::task::yield_now().await;
        }
        fixture.vault.set_enabled(&id("tenant001"), false).unwrap();
    };
    assert_eq!(tokio::join!(endless, disable).0, ErrorCode::Cancelled);
    let uri = "mcp://tenant002/database";
    other.query_tenant_data(uri, "SELECT 1", None).await.unwrap();
    // Sealing a vault reaches everybody, and at once.
    fixture.vault.set_enabled(&id("tenant001"), true).unwrap();
    drop(other);
    let seal = async {
        while fixture.pool.stats().leased() < 1 {
            tokio::task::yield_now().await;
        }
        fixture.pool.close_all();
    };
    assert_eq!(tokio::join!(fixture.run_endless("tenant002"), seal).0, ErrorCode::Cancelled);
    fixture.lease("tenant002").await;
}

#[tokio::test]
async fn a_change_of_rows_under_way_is_made_to_the_end_where_queries_are_cancelled() {
    let (access, limits) = (Access::default(), Limits::default());
    let read = Query {
        statement: check("SELECT a FROM t", Dialect::Sqlite, &Resource::Database, &access, "main")
            .unwrap(),
        params: Vec::new(),
        limit: None,
        read: RowsRead::default(),
    };
    let access = Access { mode: AccessMode::ReadWrite, ..access };
    let write = Write {
        statement: check_write(INSERT, Dialect::Sqlite, &Resource::Database, &access, "main")
            .unwrap(),
        params: Vec::new(),
        limit: None,
    };
    let revocable = || {
        let revoked = CancellationToken::new();
        let session = Box::new(Double(Willing));
        (Revocable { session, revoked: revoked.clone() }, revoked)
    };
    for is_revoked in [false, true] {
        let (mut session, revoked) = revocable();
        let query = session.query(&read, &limits);
        if is_revoked {
            revoked.cancel();
        }
        let cut = query.await.is_err_and(|error| error == database::Error::Cancelled);
        assert_eq!(cut, is_revoked);
        let (mut session, revoked) = revocable();
        let change = session.write(&write, &limits);
        if is_revoked {
            revoked.cancel();
        }
        change.await.unwrap();
        assert_eq!(session.is_broken(), is_revoked);
    }
}

#[tokio::test]
async fn other_options_hold_from_the_next_call_on_and_calls_under_way_finish() {
    let fixture = fixture(1);
    let mut under_way = fixture.lease("tenant001").await;
    let mut options = Options::clone(&fixture.pool.pool.shared.options());
    options.max_instances_per_tenant = 2;
    options.max_sessions = 1;
    options.on_change = OnChange::Cancel;
    fixture.pool.change_options(&options);
    let uri = "mcp://tenant001/database";
    under_way.query_tenant_data(uri, "SELECT 1", None).await.unwrap();
    let one = fixture.lease("tenant001").await;
    assert_ne!(one.instance_id(), under_way.instance_id());
    drop(under_way);
    let both = [one, fixture.lease("tenant001").await];
    assert_ne!(both[0].instance_id(), both[1].instance_id());
    assert_eq!(fixture.stats().2, 2, "what has the old options is closed when it comes back");
    assert_eq!(fixture.pool.pool.shared.options().max_sessions, 1_000, "that one stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_leased_after_a_change_is_never_from_before_it() {
    let fixture = fixture(3);
    fixture.limit("tenant001", 1);
    let (changed, is_over) = (AtomicU64::new(1), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for limit in 2..60 {
                fixture.limit("tenant001", limit);
                changed.store(limit, Ordering::SeqCst);
            }
            is_over.store(true, Ordering::SeqCst);
        });
        let call = async {
            while !is_over.load(Ordering::SeqCst) {
                let before = changed.load(Ordering::SeqCst);
                let lease = fixture.lease("tenant001").await;
                let limit = lease.entry().context.config().quotas.max_queries_per_day;
                assert!(limit >= Some(before), "{limit:?} after {before}");
                tokio::task::yield_now().await;
            }
        };
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| runtime.block_on(call));
    });
    fixture.pool.pool.close_outdated();
    let stats = fixture.pool.stats();
    assert_eq!((stats.leased(), stats.waiting), (0, 0));
    assert!(stats.current_pool_size <= 3, "{stats:?}");
}

#[tokio::test]
async fn calls_from_before_a_change_and_after_it_share_the_places_of_the_tenant() {
    let fixture = fixture(2);
    let mut old = vec![fixture.lease("tenant001").await, fixture.lease("tenant001").await];
    for limit in [7, 8] {
        fixture.limit("tenant001", limit);
        let access = access("tenant001");
        fixture.pool.context(&access).await.unwrap();
        let mut new = pin!(fixture.pool.lease(&access));
        assert!(futures_util::poll!(new.as_mut()).is_pending());
        assert_eq!(fixture.pool.stats().waiting, 1);
        drop(old.remove(0));
        old.push(new.await.unwrap());
    }
    // Nor does the pool forget it when it closes all there is.
    fixture.pool.close_all();
    let access = access("tenant001");
    fixture.pool.context(&access).await.unwrap();
    let mut new = pin!(fixture.pool.lease(&access));
    assert!(futures_util::poll!(new.as_mut()).is_pending());
    old.clear();
    drop(new.await.unwrap());
    assert_eq!(fixture.pool.stats().waiting, 0);
}

#[tokio::test]
async fn places_that_a_change_takes_away_are_gone_when_they_come_back() {
    let all = Arc::<AllPlaces>::default();
    let tenant = id("tenant001");
    let places = all.of(&tenant, 3);
    assert!(places.try_take() && places.try_take() && places.try_take() && !places.try_take());
    let fewer = all.of(&tenant, 1);
    assert!(Arc::ptr_eq(&places, &fewer));
    for _ in 0..2 {
        places.give_back();
        assert!(!places.try_take(), "another one has the only place");
    }
    places.give_back();
    assert!(places.try_take() && !places.try_take());
    all.of(&tenant, 2);
    assert!(places.try_take() && !places.try_take());
    // Nothing is left of a tenant that has none.
    drop((places, fewer));
    let anew = all.of(&tenant, 1);
    assert!(anew.try_take() && !anew.try_take());
}
