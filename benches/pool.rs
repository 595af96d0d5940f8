//! What a lease costs, hot and cold, and what tenants cost that nobody asks for.
//!
//! Hot: a lease and its return, beside deadpool's get and return in the same run, in turns; the ratio
//! is the median over the turns. Deadpool has one pool of one kind of object; *as the pool* it also
//! does what a lease does beside: it looks the tenant's pool up, compares the revision with the
//! vault's, and says who calls. Two threads: two tenants, one for each. Memory is what the process
//! has of the machine's, so it counts threads and caches too.
//!
//! `./dev bench --bench pool`, or with other numbers of tenants `./dev bench --bench pool -- 1000
//! 100000`.

#![expect(clippy::unwrap_used, reason = "a failed set-up should end the bench")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_methods, reason = "the machine's clock, and a token of its own")]
#![expect(clippy::cast_precision_loss, reason = "rates and means, for people")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, Barrier, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use deadpool::managed;
use secrecy::ExposeSecret;
use tenantry::audit::Log;
use tenantry::auth::{Auth, Origin, TenantAccess};
use tenantry::clock::{Clock, SystemClock};
use tenantry::memory::SecretText;
use tenantry::quota::Limiter;
use tenantry::server::Caller;
use tenantry::store::DataDir;
use tenantry::tenant::{
    Access, Connection, Credentials, IdRule, Limits, Permissions, Quotas, ResolvedTenant,
    TenantConfig, TenantId,
};
use tenantry::vault::{self, KdfCost, Revision, TenantCredentialVault};
use tenantry::{McpConnectionPool, database, pool};
use tokio::runtime::Runtime;

const PASSPHRASE: &str = "a passphrase for the bench";
const TENANTS: [usize; 2] = [1_000, 10_000];
const TURNS: usize = 101;
const PER_TURN: u32 = 1_000;
/// Tenants that are awake. Each has a token, which is a durable write.
const AWAKE: usize = 1_000;
/// Those with a session, which with SQLite has a thread.
const SESSIONS: usize = 500;

fn main() {
    let runtime = Runtime::new().unwrap();
    let numbers: Vec<usize> =
        std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let numbers = if numbers.is_empty() { TENANTS.to_vec() } else { numbers };
    hot(&runtime);
    cold(&runtime);
    asleep(&runtime, &numbers);
}

/// A pool, and access to each of its tenants.
struct Bench {
    pool: McpConnectionPool,
    vault: Arc<TenantCredentialVault>,
    access: Vec<TenantAccess>,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new(runtime: &Runtime, tenants: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::create(directory.path().join("data")).unwrap();
        let cost = KdfCost::insecure_for_tests();
        vault::create(&data, &PASSPHRASE.into(), cost, &SystemClock).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let log = Log::open(&data.audit_path(), Arc::clone(&clock)).unwrap();
        let options = vault::Options { upgrade_cost: false, ..vault::Options::default() };
        let vault = TenantCredentialVault::open(data, options, Arc::clone(&clock)).unwrap();
        vault.unseal(&vault::Unlock::Passphrase(SecretText::from(PASSPHRASE))).unwrap();
        make_database(&directory.path().join("shared.db"));
        let ids: Vec<TenantId> = (0..tenants)
            .map(|number| {
                TenantId::parse(&format!("tenant{number:06}"), IdRule::Alphanumeric).unwrap()
            })
            .collect();
        for ids in ids.chunks(10_000) {
            vault.import(ids.iter().map(tenant).collect()).unwrap();
        }
        let vault = Arc::new(vault);
        let auth = Auth::new(Arc::clone(&vault), log.clone(), Arc::clone(&clock));
        let access = ids.iter().take(AWAKE).map(|id| {
            let (token, _) = auth.create(id, Permissions::READ, None).unwrap();
            let token = token.expose_secret().to_owned();
            runtime.block_on(async {
                let origin = Origin { request_id: None, peer: None };
                let caller = auth.authenticate(Some(&token), origin).await.unwrap();
                auth.grant(caller, None).await.unwrap()
            })
        });
        let access = access.collect();
        let database = database::Options {
            sqlite_root: directory.path().to_owned(),
            connect_timeout: Duration::from_secs(10),
            addresses: database::AddressPolicy::default(),
        };
        let options = pool::Options::new(database);
        let limiter = Arc::new(Limiter::new(clock));
        let pool = {
            let _runtime = runtime.enter();
            McpConnectionPool::new(Arc::clone(&vault), limiter, log, options)
        };
        Self { pool, vault, access, _directory: directory }
    }

    async fn use_one(&self, tenant: usize) {
        black_box(self.pool.lease(&self.access[tenant]).await.unwrap().instance_id());
    }
}

fn make_database(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("CREATE TABLE t (a INTEGER)").unwrap();
}

fn tenant(id: &TenantId) -> ResolvedTenant {
    let config = TenantConfig {
        id: id.clone(),
        connection: Connection::Sqlite { path: "shared.db".to_owned() },
        access: Access::default(),
        limits: Limits::default(),
        quotas: Quotas::default(),
        features: BTreeMap::new(),
    };
    ResolvedTenant { config, credentials: Credentials::default() }
}

/// What deadpool hands out: a caller, as an instance has one.
struct Object(Option<Caller>);

struct Objects;

impl managed::Manager for Objects {
    type Type = Object;
    type Error = std::convert::Infallible;

    async fn create(&self) -> Result<Object, Self::Error> {
        Ok(Object(None))
    }

    async fn recycle(
        &self,
        _: &mut Object,
        _: &managed::Metrics,
    ) -> managed::RecycleResult<Self::Error> {
        Ok(())
    }
}

/// Deadpool with what a lease does beside getting an instance.
struct Deadpools {
    vault: Arc<TenantCredentialVault>,
    pools: RwLock<HashMap<TenantId, (Revision, managed::Pool<Objects>)>>,
}

impl Deadpools {
    fn new(bench: &Bench, tenants: usize) -> Self {
        let pools = bench.access[..tenants].iter().map(|access| {
            let revision = bench.vault.revision(access.tenant()).unwrap();
            (access.tenant().clone(), (revision, deadpool()))
        });
        Self { vault: Arc::clone(&bench.vault), pools: RwLock::new(pools.collect()) }
    }

    async fn use_one(&self, access: &TenantAccess) {
        let revision = self.vault.revision(access.tenant()).unwrap();
        let pool = {
            let pools = self.pools.read().unwrap();
            let (known, pool) = &pools[access.tenant()];
            assert!(*known == revision);
            pool.clone()
        };
        let mut object = pool.get().await.unwrap();
        object.0 = Some(Caller {
            actor: access.actor().clone(),
            permissions: access.permissions(),
            peer: access.origin().peer.clone(),
            request_id: access.origin().request_id.clone(),
        });
        black_box(&object.0);
    }
}

fn deadpool() -> managed::Pool<Objects> {
    managed::Pool::builder(Objects).max_size(5).build().unwrap()
}

fn hot(runtime: &Runtime) {
    let bench = Bench::new(runtime, 2);
    let (bare, like) = (deadpool(), Deadpools::new(&bench, 2));
    println!(
        "{:34} {:>10} {:>10} {:>8}  limit",
        "hot lease and return", "deadpool", "ours", "ratio"
    );
    let ours = || runtime.block_on(times(PER_TURN, async || bench.use_one(0).await));
    let bare = || {
        runtime.block_on(times(PER_TURN, async || {
            black_box(bare.get().await.unwrap().0.is_some());
        }))
    };
    compare("bare, ns", bare, ours, None);
    let like_ours =
        || runtime.block_on(times(PER_TURN, async || like.use_one(&bench.access[0]).await));
    let nanoseconds = compare("as the pool, ns", like_ours, ours, Some(1.0));
    println!("{:56} {}", "", if nanoseconds <= 1_000.0 { "" } else { "more than 1 µs: NOT MET" });

    let one = |tenant| runtime.block_on(times(20_000, async || bench.use_one(tenant).await));
    let one_deadpool = |tenant: usize| {
        let access = &bench.access[tenant];
        runtime.block_on(times(20_000, async || like.use_one(access).await))
    };
    for (name, one, limit) in [
        ("two threads, ours", &one as &(dyn Fn(usize) -> f64 + Sync), Some(1.6)),
        ("two threads, deadpool as the pool", &one_deadpool, None),
    ] {
        let factors = (0..11).map(|_| scaling(one)).collect();
        let factor = median(factors);
        let is_met = limit.is_none_or(|limit| factor >= limit);
        println!("{name:34} {:>10} {:>10} {factor:>7.2}x {}", "", "", verdict(is_met));
    }
}

/// How many times as many both threads do in the same time as one.
fn scaling(one: &(dyn Fn(usize) -> f64 + Sync)) -> f64 {
    let alone = one(0);
    let start = Barrier::new(2);
    let both = thread::scope(|scope| {
        let threads = [0, 1].map(|tenant| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                one(tenant)
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    alone / both[0] + alone / both[1]
}

/// Nanoseconds of one of so many.
async fn times(count: u32, work: impl AsyncFn()) -> f64 {
    let began = Instant::now();
    for _ in 0..count {
        work().await;
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(count)
}

/// Prints medians of both and of their ratio; ours is returned.
fn compare(
    name: &str,
    theirs: impl Fn() -> f64,
    ours: impl Fn() -> f64,
    limit: Option<f64>,
) -> f64 {
    let turns: Vec<(f64, f64)> = (0..TURNS).map(|_| (theirs(), ours())).collect();
    let ratio = median(turns.iter().map(|(theirs, ours)| ours / theirs).collect());
    let (theirs, ours): (Vec<_>, Vec<_>) = turns.into_iter().unzip();
    let (theirs, ours) = (median(theirs), median(ours));
    let limit =
        limit.map_or(String::new(), |limit| format!("<= {limit} {}", verdict(ratio <= limit)));
    println!("{name:34} {theirs:>10.0} {ours:>10.0} {ratio:>8.2}  {limit}");
    ours
}

fn cold(runtime: &Runtime) {
    let bench = Bench::new(runtime, 1);
    let mut first = Vec::new();
    let mut opened = Vec::new();
    for _ in 0..TURNS {
        bench.pool.close_all();
        bench.vault.forget_opened();
        runtime.block_on(async {
            let began = Instant::now();
            let held = bench.pool.lease(&bench.access[0]).await.unwrap();
            first.push(began.elapsed().as_secs_f64() * 1e6);
            let began = Instant::now();
            black_box(bench.pool.lease(&bench.access[0]).await.unwrap().instance_id());
            opened.push(began.elapsed().as_secs_f64() * 1e6);
            drop(held);
        });
    }
    println!("\n{:34} {:>10}", "cold, on SQLite", "µs");
    println!("{:34} {:>10.0}", "nothing opened", median(first));
    println!("{:34} {:>10.0}", "another instance", median(opened));
}

fn asleep(runtime: &Runtime, numbers: &[usize]) {
    println!(
        "\n{:34} {:>10} {:>10} {:>10}",
        "KB for each tenant that is", "known", "awake", "in session"
    );
    for number in numbers {
        let before = resident();
        let bench = Bench::new(runtime, *number);
        let known = resident();
        let wake = |access: &[TenantAccess]| {
            runtime.block_on(async {
                for access in access {
                    drop(bench.pool.context(access).await.unwrap());
                }
            });
        };
        let (awake, sessions) = (bench.access.len(), SESSIONS.min(bench.access.len()));
        wake(&bench.access[..awake / 100]);
        let sweep_few = sweep(&bench.pool);
        wake(&bench.access);
        let sweep_many = sweep(&bench.pool);
        let asked = resident();
        runtime.block_on(async {
            for tenant in 0..sessions {
                bench.use_one(tenant).await;
            }
        });
        let open = resident();
        let each = |after: f64, before: f64, count: usize| (after - before) / count as f64;
        println!(
            "{:34} {:>10.2} {:>10.2} {:>10.2}",
            format!("{number} tenants, {awake} of them awake"),
            each(known, before, *number),
            each(asked, known, awake),
            each(open, asked, sessions),
        );
        println!(
            "{:34} {sweep_few:>10.0} {sweep_many:>10.0} ns",
            format!("  a sweep with {} and {awake} of them", awake / 100)
        );
        runtime.block_on(bench.pool.shutdown(Duration::from_secs(10)));
    }
}

/// Nanoseconds of a sweep that finds nothing due.
fn sweep(pool: &McpConnectionPool) -> f64 {
    let turns = (0..TURNS).map(|_| {
        let began = Instant::now();
        black_box(pool.cleanup_idle_instances());
        began.elapsed().as_secs_f64() * 1e9
    });
    median(turns.collect())
}

/// Kilobytes of memory that the process has.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "" } else { "NOT MET" }
}
