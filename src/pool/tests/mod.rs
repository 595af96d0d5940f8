//! The pool on a real vault and real SQLite files, with time that stands until it is moved.

mod cancellation;
mod capacity;
mod change;
mod full;
mod model;
mod sharing;
mod sleep;
mod warm;

use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::audit::Actor;
use crate::auth::Origin;
use crate::clock::{Clock, SystemClock};
use crate::error::{Bound, ErrorCode};
use crate::memory::SecretText;
use crate::store::DataDir;
use crate::tenant::{
    Access, Connection, Credentials, IdRule, Limits, Permissions, PostgresTarget, Quotas,
    ResolvedTenant, TenantConfig, TlsMode,
};
use crate::vault::{self, KdfCost};

const IDLE: Duration = Duration::from_mins(10);

struct Fixture {
    pool: McpConnectionPool,
    vault: Arc<TenantCredentialVault>,
    directory: TempDir,
}

fn fixture(max_instances_per_tenant: u32) -> Fixture {
    fixture_with(|options| options.max_instances_per_tenant = max_instances_per_tenant)
}

fn fixture_with(change: impl FnOnce(&mut Options)) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let passphrase = SecretText::from("a passphrase for tests");
    let data = DataDir::create(directory.path().join("data")).unwrap();
    vault::create(&data, &passphrase, KdfCost::insecure_for_tests(), &SystemClock).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = Log::open(&data.audit_path(), Arc::clone(&clock)).unwrap();
    let options = vault::Options { upgrade_cost: false, ..vault::Options::default() };
    let vault = TenantCredentialVault::open(data, options, Arc::clone(&clock)).unwrap();
    vault.unseal(&vault::Unlock::Passphrase(passphrase)).unwrap();
    let vault = Arc::new(vault);
    let database = database::Options {
        sqlite_root: directory.path().to_owned(),
        connect_timeout: Duration::from_secs(10),
        addresses: database::AddressPolicy::default(),
    };
    let mut options = Options::new(database);
    change(&mut options);
    let limiter = Arc::new(Limiter::new(clock));
    let pool = McpConnectionPool::new(Arc::clone(&vault), limiter, log, options);
    let fixture = Fixture { pool, vault, directory };
    fixture.import("tenant001", Quotas::default());
    fixture.import("tenant002", Quotas::default());
    fixture
}

fn id(text: &str) -> TenantId {
    TenantId::parse(text, IdRule::Alphanumeric).unwrap()
}

fn access(tenant: &str) -> TenantAccess {
    TenantAccess::local(id(tenant), Permissions::READ, Actor::Embedder, Origin::default())
}

impl Fixture {
    fn import(&self, tenant: &str, quotas: Quotas) {
        let path = format!("{tenant}.db");
        make_database(&self.directory.path().join(&path));
        let config = TenantConfig {
            id: id(tenant),
            connection: Connection::Sqlite { path },
            access: Access::default(),
            limits: Limits::default(),
            quotas,
            features: std::collections::BTreeMap::new(),
        };
        let tenant = ResolvedTenant { config, credentials: Credentials::default() };
        self.vault.import(vec![tenant]).unwrap();
    }

    /// One whose server is at `port` of this machine.
    fn import_postgres(&self, tenant: &str, port: u16) {
        let config = TenantConfig {
            id: id(tenant),
            connection: Connection::Postgres(PostgresTarget {
                host: "127.0.0.1".to_owned(),
                port,
                database: "none".to_owned(),
                user: "nobody".to_owned(),
                tls: TlsMode::Disable,
                root_certificates: None,
                client_certificate: None,
                schema: "public".to_owned(),
                tenant_variable: None,
            }),
            access: Access::default(),
            limits: Limits::default(),
            quotas: Quotas::default(),
            features: std::collections::BTreeMap::new(),
        };
        let tenant = ResolvedTenant { config, credentials: Credentials::default() };
        self.vault.import(vec![tenant]).unwrap();
    }

    async fn lease(&self, tenant: &str) -> Lease {
        self.pool.lease(&access(tenant)).await.unwrap()
    }

    /// Which bound the tenant's next call meets.
    async fn refused(&self, tenant: &str) -> Bound {
        bound_of(self.pool.lease(&access(tenant)).await)
    }

    fn stats(&self) -> (u64, u64, u64, u64, u64) {
        let stats = self.pool.stats();
        (
            stats.total_acquired,
            stats.total_created,
            stats.current_pool_size,
            stats.active_tenants,
            stats.idle,
        )
    }
}

fn bound_of(result: Result<Lease, Error>) -> Bound {
    match result {
        Err(error @ Error::Exhausted(bound)) => {
            assert_eq!(error.code(), ErrorCode::PoolExhausted);
            bound
        }
        other => unreachable!("{other:?}"),
    }
}

fn make_database(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("CREATE TABLE IF NOT EXISTS t (a INTEGER)").unwrap();
}

#[tokio::test]
async fn calls_one_after_the_other_meet_the_same_instance() {
    let fixture = fixture(5);
    let first = fixture.lease("tenant001").await.instance_id();
    for _ in 0..10 {
        assert_eq!(fixture.lease("tenant001").await.instance_id(), first);
    }
    assert_ne!(fixture.lease("tenant002").await.instance_id(), first);
    assert_eq!(fixture.stats(), (12, 2, 2, 2, 2));
}

#[tokio::test]
async fn five_at_once_have_five_and_the_one_used_last_is_next() {
    let fixture = fixture(5);
    let mut leases = Vec::new();
    for _ in 0..5 {
        leases.push(fixture.lease("tenant001").await);
    }
    assert_eq!(fixture.stats(), (5, 5, 5, 1, 0));
    let last = leases.remove(2);
    let id = last.instance_id();
    drop(leases);
    drop(last);
    assert_eq!(fixture.lease("tenant001").await.instance_id(), id);
    assert_eq!(fixture.stats(), (6, 5, 5, 1, 5));
}

#[tokio::test]
async fn the_sixth_waits_for_its_turn_and_no_longer_than_the_timeout() {
    let fixture = fixture(5);
    let mut leases = Vec::new();
    for _ in 0..5 {
        leases.push(fixture.lease("tenant001").await);
    }
    drop(fixture.lease("tenant002").await);
    // From here on time moves by itself when everything waits, so nothing may wait for a thread.
    tokio::time::pause();
    let began = Instant::now();
    assert_eq!(fixture.refused("tenant001").await, Bound::InstancesPerTenant);
    assert_eq!(began.elapsed().as_secs(), 5);
    drop(fixture.lease("tenant002").await);

    let freed = leases[3].instance_id();
    let (access, pool) = (access("tenant001"), fixture.pool.clone());
    let waiting = pool.lease(&access);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    drop(leases.remove(3));
    assert_eq!(waiting.await.unwrap().instance_id(), freed);
}

#[tokio::test]
async fn the_tenants_own_quota_bounds_its_instances() {
    let fixture = fixture(5);
    let quotas = Quotas { max_concurrent_connections: Some(2), ..Quotas::default() };
    fixture.import("tenant003", quotas);
    let _first = fixture.lease("tenant003").await;
    let second = fixture.lease("tenant003").await;
    tokio::time::pause();
    assert_eq!(fixture.refused("tenant003").await, Bound::ConcurrentConnections);
    tokio::time::resume();
    drop(second);
    fixture.lease("tenant003").await;
}

#[tokio::test]
async fn a_quota_beyond_the_bound_of_the_service_gives_no_more_than_that() {
    let fixture = fixture(2);
    let quotas = Quotas { max_concurrent_connections: Some(9), ..Quotas::default() };
    fixture.import("tenant003", quotas);
    let _first = fixture.lease("tenant003").await;
    let second = fixture.lease("tenant003").await;
    tokio::time::pause();
    assert_eq!(fixture.refused("tenant003").await, Bound::InstancesPerTenant);
    tokio::time::resume();
    drop(second);
    fixture.lease("tenant003").await;
}

#[tokio::test]
async fn a_wait_that_is_given_up_takes_nothing_with_it() {
    let fixture = fixture(1);
    for _ in 0..100 {
        let held = fixture.lease("tenant001").await;
        {
            let access = access("tenant001");
            let waiting = fixture.pool.lease(&access);
            tokio::pin!(waiting);
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        }
        drop(held);
    }
    assert_eq!(fixture.stats(), (100, 1, 1, 1, 1));
}

#[tokio::test]
async fn an_instance_closes_when_its_idle_time_is_over_and_not_before() {
    let fixture = fixture(5);
    let (first, second) = (fixture.lease("tenant001").await, fixture.lease("tenant001").await);
    tokio::time::pause();
    drop(first);
    tokio::time::advance(Duration::from_secs(100)).await;
    drop(second);
    tokio::time::sleep(IDLE.saturating_sub(Duration::from_secs(101))).await;
    assert_eq!(fixture.stats().2, 2);
    tokio::time::sleep(IDLE / 16 + Duration::from_secs(2)).await;
    assert_eq!(fixture.stats().2, 1);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(fixture.stats(), (2, 2, 0, 0, 0));
    tokio::time::resume();
    drop(fixture.lease("tenant001").await);
    tokio::time::pause();
    tokio::time::sleep(IDLE + IDLE / 16 + Duration::from_secs(1)).await;
    assert_eq!(fixture.stats(), (3, 3, 0, 0, 0));
}

#[tokio::test]
async fn use_starts_the_idle_time_anew() {
    let fixture = fixture(5);
    drop(fixture.lease("tenant001").await);
    tokio::time::pause();
    for _ in 0..9 {
        drop(fixture.lease("tenant001").await);
        tokio::time::sleep(IDLE.saturating_sub(Duration::from_secs(1))).await;
    }
    assert_eq!(fixture.stats(), (10, 1, 1, 1, 1));
    assert_eq!(fixture.pool.cleanup_idle_instances(), 0);
}

#[tokio::test]
async fn a_changed_tenant_starts_anew_and_its_old_instances_do_not_come_back() {
    let fixture = fixture(5);
    let old = fixture.lease("tenant001").await;
    let idle = fixture.lease("tenant001").await.instance_id();
    let quotas = Quotas { max_queries_per_day: Some(7), ..Quotas::default() };
    fixture.import("tenant001", quotas);
    let new = fixture.lease("tenant001").await;
    assert!(new.instance_id() != old.instance_id() && new.instance_id() != idle);
    assert_eq!(fixture.stats().2, 2, "the idle one is closed");
    drop(old);
    assert_eq!(fixture.stats().2, 1);
    let context = fixture.pool.context(&access("tenant001")).await.unwrap();
    assert_eq!(context.config().quotas, quotas);
}

#[tokio::test]
async fn who_waits_while_a_tenant_changes_gets_a_new_instance() {
    let fixture = fixture(1);
    let old = fixture.lease("tenant001").await;
    let access = access("tenant001");
    let waiting = fixture.pool.lease(&access);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    let quotas = Quotas { max_queries_per_day: Some(7), ..Quotas::default() };
    fixture.import("tenant001", quotas);
    let id = old.instance_id();
    drop(old);
    let new = waiting.await.unwrap();
    assert_ne!(new.instance_id(), id);
    drop(new);
    assert_eq!(fixture.stats().2, 1);
}

#[tokio::test]
async fn a_tenant_whose_counts_cannot_be_read_is_not_served_until_they_are_removed() {
    let fixture = fixture(5);
    let tenant = id("tenant001");
    let born = fixture.vault.tenant(&tenant).unwrap().created_at;
    fixture.vault.save_counts(&[(&tenant, born)], |_| b"of a newer version".to_vec()).unwrap();
    let error = fixture.pool.lease(&access("tenant001")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::IntegrityError);
    drop(fixture.lease("tenant002").await);
    fixture.vault.remove_counts(&tenant).unwrap();
    drop(fixture.lease("tenant001").await);
}

#[tokio::test]
async fn unknown_and_disabled_tenants_have_their_codes() {
    let fixture = fixture(5);
    let error = fixture.pool.lease(&access("tenant009")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TenantNotConfigured);
    drop(fixture.lease("tenant002").await);
    fixture.vault.set_enabled(&id("tenant002"), false).unwrap();
    for _ in 0..2 {
        let error = fixture.pool.lease(&access("tenant002")).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::TenantDisabled);
    }
    assert_eq!(fixture.stats().2, 0, "its instances are closed");
    fixture.vault.set_enabled(&id("tenant002"), true).unwrap();
    fixture.lease("tenant002").await;
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_leaves_no_instance_and_no_place_behind() {
    let fixture = fixture(1);
    std::fs::remove_file(fixture.directory.path().join("tenant001.db")).unwrap();
    for _ in 0..3 {
        let error = fixture.pool.lease(&access("tenant001")).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::DatabaseUnavailable);
    }
    assert_eq!(fixture.stats(), (0, 0, 0, 0, 0));
    make_database(&fixture.directory.path().join("tenant001.db"));
    fixture.lease("tenant001").await;
}

#[tokio::test]
async fn shutdown_waits_for_what_is_leased_up_to_its_deadline() {
    let fixture = fixture(5);
    let held = fixture.lease("tenant001").await;
    drop(fixture.lease("tenant002").await);
    tokio::time::pause();
    assert_eq!(fixture.pool.shutdown(Duration::from_secs(1)).await, 1);
    let error = fixture.pool.lease(&access("tenant001")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Cancelled, "nothing new begins");
    drop(held);
    assert_eq!(fixture.pool.shutdown(Duration::from_secs(1)).await, 0);
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_left_alone_for_a_while() {
    let fixture = fixture(5);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    fixture.import_postgres("tenant003", port);
    let dialled = async {
        let mut dialled = 0;
        for _ in 0..10 {
            let access = access("tenant003");
            let lease = fixture.pool.lease(&access);
            tokio::pin!(lease);
            let error = loop {
                tokio::select! {
                    biased;
                    lease = &mut lease => break lease.unwrap_err(),
                    // Closed at once.
                    accepted = listener.accept() => {
                        drop(accepted.unwrap());
                        dialled += 1;
                    }
                }
            };
            assert_eq!(error.code(), ErrorCode::DatabaseUnavailable);
        }
        dialled
    };
    assert_eq!(dialled.await, 3);
    // Its neighbours are another matter.
    drop(fixture.lease("tenant001").await);
}
