//! What a lease costs, hot and cold, and what tenants cost that sleep, are awake, and have a session.
//!
//! Hot: a lease and its return, beside deadpool's get and return in the same run, in turns; the ratio
//! is the median over the turns. Deadpool has one pool of one kind of object; *as the pool* it also
//! does what a lease does beside, by the same means: it looks the tenant's pool up, asks whether the
//! tenant is as the vault has it, and says who calls. Two threads: of two tenants, one for each, or
//! both of one; with a pool for each they share nothing, which is the most that the machine gives, and
//! the limit: 1.6 times one thread where that is 2, so 0.8 of it. Arithmetic says what the second
//! processor is worth. Where other work takes the processors, all of that shows nothing: give it a
//! high priority.
//!
//! Memory: each number of tenants in a process of its own, which has what it has of the machine's, so
//! that it counts threads and caches too. A tenant *wakes* by a call that finds no database, and so
//! has all that an active one has but for the session; *called* is with what the vault opened for it
//! and keeps for some minutes, *awake* without.
//!
//! `./dev bench --bench pool`, or of that `-- hot`, `-- cold`, `-- memory 1000 100000`.

#![expect(clippy::unwrap_used, reason = "a failed set-up should end the bench")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_methods, reason = "the machine's clock, and a token of its own")]
#![expect(clippy::cast_precision_loss, reason = "rates and means, for people")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Barrier, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use deadpool::managed;
use secrecy::ExposeSecret;
use tenantry::audit::Log;
use tenantry::auth::{Auth, Origin, TenantAccess};
use tenantry::clock::{Clock, ManualClock, SystemClock};
use tenantry::memory::SecretText;
use tenantry::quota::Limiter;
use tenantry::server::Caller;
use tenantry::store::DataDir;
use tenantry::tenant::{
    Access, Connection, Credentials, IdRule, Limits, Permissions, Quotas, ResolvedTenant,
    TenantConfig, TenantId,
};
use tenantry::vault::{self, KdfCost, Revision, TenantCredentialVault, Watch};
use tenantry::{McpConnectionPool, TenantMcpManager, database, pool};
use tokio::runtime::Runtime;

const PASSPHRASE: &str = "a passphrase for the bench";
const TENANTS: [&str; 3] = ["1000", "10000", "100000"];
const TURNS: usize = 101;
const PER_TURN: u32 = 1_000;
const PER_THREAD: u32 = 30_000;
/// Those with a session, which with SQLite has a thread.
const SESSIONS: usize = 1_000;

fn main() {
    let runtime = Runtime::new().unwrap();
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &arguments[..] {
        ["measure", number] => memory(&runtime, number.parse().unwrap()),
        ["import", tenants, with_database, directory] => {
            import(Path::new(directory), tenants.parse().unwrap(), with_database.parse().unwrap());
        }
        ["hot"] => hot(&runtime),
        ["cold"] => cold(&runtime),
        ["memory", numbers @ ..] => measure(if numbers.is_empty() { &TENANTS } else { numbers }),
        _ => {
            hot(&runtime);
            cold(&runtime);
            measure(&TENANTS);
        }
    }
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
        import(directory.path(), tenants, tenants);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (vault, log) = open(directory.path(), &clock);
        let auth = Auth::new(Arc::clone(&vault), log.clone(), Arc::clone(&clock));
        let access = (0..tenants).map(|number| {
            let (token, _) = auth.create(&id(number), Permissions::READ, None).unwrap();
            let token = token.expose_secret().to_owned();
            runtime.block_on(async {
                let origin = Origin::default();
                let caller = auth.authenticate(Some(&token), origin).await.unwrap();
                auth.grant(caller, None).await.unwrap()
            })
        });
        let access = access.collect();
        let limiter = Arc::new(Limiter::new(clock));
        let options = pool_options(directory.path());
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

fn id(number: usize) -> TenantId {
    TenantId::parse(&format!("tenant{number:06}"), IdRule::Alphanumeric).unwrap()
}

/// Makes a vault with so many tenants, of which the first so many have a database.
fn import(directory: &Path, tenants: usize, with_database: usize) {
    let data = DataDir::create(directory.join("data")).unwrap();
    let cost = KdfCost::insecure_for_tests();
    vault::create(&data, &PASSPHRASE.into(), cost, &SystemClock).unwrap();
    drop(data);
    let connection = rusqlite::Connection::open(directory.join("shared.db")).unwrap();
    connection.execute_batch("CREATE TABLE t (a INTEGER)").unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (vault, _log) = open(directory, &clock);
    let numbers: Vec<usize> = (0..tenants).collect();
    for numbers in numbers.chunks(10_000) {
        let path = |number| if number < with_database { "shared.db" } else { "absent.db" };
        let tenants = numbers.iter().map(|number| tenant(id(*number), path(*number)));
        vault.import(tenants.collect()).unwrap();
    }
}

fn open(directory: &Path, clock: &Arc<dyn Clock>) -> (Arc<TenantCredentialVault>, Log) {
    let data = DataDir::open(directory.join("data")).unwrap();
    let log = Log::open(&data.audit_path(), Arc::clone(clock)).unwrap();
    let options = vault::Options { upgrade_cost: false, ..vault::Options::default() };
    let vault = TenantCredentialVault::open(data, options, Arc::clone(clock)).unwrap();
    vault.unseal(&vault::Unlock::Passphrase(SecretText::from(PASSPHRASE))).unwrap();
    (Arc::new(vault), log)
}

fn pool_options(directory: &Path) -> pool::Options {
    pool::Options::new(database::Options {
        sqlite_root: directory.to_owned(),
        connect_timeout: Duration::from_secs(10),
        addresses: database::AddressPolicy::default(),
    })
}

fn tenant(id: TenantId, path: &str) -> ResolvedTenant {
    let config = TenantConfig {
        id,
        connection: Connection::Sqlite { path: path.to_owned() },
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
    pools: RwLock<HashMap<TenantId, Known>>,
}

/// A pool of one revision of a tenant.
struct Known {
    revision: Revision,
    watch: Arc<Watch>,
    pool: managed::Pool<Objects>,
}

impl Deadpools {
    fn new(bench: &Bench, tenants: usize) -> Self {
        let pools = bench.access[..tenants].iter().map(|access| {
            let revision = bench.vault.revision(access.tenant()).unwrap();
            let known = Known { revision, watch: Arc::default(), pool: deadpool() };
            (access.tenant().clone(), known)
        });
        Self { vault: Arc::clone(&bench.vault), pools: RwLock::new(pools.collect()) }
    }

    async fn use_one(&self, access: &TenantAccess) {
        let pool = {
            let pools = self.pools.read().unwrap();
            let Known { revision, watch, pool } = &pools[access.tenant()];
            let is_current = watch.is_unchanged()
                || self.vault.is_current(access.tenant(), *revision, watch).unwrap();
            assert!(is_current);
            pool.clone()
        };
        let mut object = pool.get().await.unwrap();
        object.0 = Some(Caller {
            actor: access.actor().clone(),
            permissions: access.permissions(),
            peer: access.origin().peer.clone(),
            request_id: access.origin().request_id.clone(),
            cut: access.origin().cut.clone(),
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

    let one = |tenant| runtime.block_on(times(PER_THREAD, async || bench.use_one(tenant).await));
    let one_deadpool = |tenant: usize| {
        let access = &bench.access[tenant];
        runtime.block_on(times(PER_THREAD, async || like.use_one(access).await))
    };
    let same = |_| one(0);
    let same_deadpool = |_| one_deadpool(0);
    let other = Bench::new(runtime, 1);
    let apart = |thread: usize| {
        let bench = if thread == 0 { &bench } else { &other };
        runtime.block_on(times(PER_THREAD, async || bench.use_one(0).await))
    };
    let arithmetic = |_| {
        let began = Instant::now();
        black_box(
            (0..u64::from(PER_THREAD) * 300)
                .fold(1_u64, |sum, it| black_box(sum.wrapping_mul(3) ^ it)),
        );
        began.elapsed().as_secs_f64()
    };
    let works: [(&str, Work<'_>, Option<f64>); 6] = [
        ("two threads, two pools of ours", &apart, None),
        ("two threads, ours", &one, Some(0.8)),
        ("two threads, deadpool as the pool", &one_deadpool, None),
        ("two threads, one tenant, ours", &same, None),
        ("two threads, one tenant, deadpool", &same_deadpool, None),
        ("two threads, arithmetic", &arithmetic, None),
    ];
    let turns = scaling(works.map(|(_, work, _)| work));
    for (number, (name, _, limit)) in works.into_iter().enumerate() {
        let factor = median(turns.iter().map(|factors| factors[number]).collect());
        // Of what two threads do that share nothing.
        let share = median(turns.iter().map(|factors| factors[number] / factors[0]).collect());
        let limit =
            limit.map_or(String::new(), |limit| format!(">= {limit} {}", verdict(share >= limit)));
        println!("{name:34} {:>10} {factor:>9.2}x {share:>8.2}  {limit}", "");
    }
}

/// What a thread does, which is told its number.
type Work<'a> = &'a (dyn Fn(usize) -> f64 + Sync);

/// How many times as many of each both threads do in the same time as one, in each turn: from when the
/// first of them begins to when the last has ended. All take their turns together, as what a second
/// processor is worth is not the same from one second to the next.
fn scaling<const WORKS: usize>(works: [Work<'_>; WORKS]) -> Vec<[f64; WORKS]> {
    let turn = |work: Work<'_>, numbers: &[usize]| {
        let start = Barrier::new(numbers.len());
        let times: Vec<(Instant, Instant)> = thread::scope(|scope| {
            let threads: Vec<_> = numbers
                .iter()
                .map(|number| {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        let began = Instant::now();
                        work(*number);
                        (began, Instant::now())
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let began = times.iter().map(|(began, _)| *began).min().unwrap();
        let ended = times.iter().map(|(_, ended)| *ended).max().unwrap();
        (ended - began).as_secs_f64()
    };
    let factors = |_| works.map(|work| 2.0 * turn(work, &[0]) / turn(work, &[0, 1]));
    (0..TURNS).map(factors).collect()
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

/// Has each number measured by a process of its own, in which no other has left anything.
fn measure(numbers: &[&str]) {
    println!(
        "\n{:14} {:>8} {:>8} {:>8} {:>8} {:>10} {:>12}",
        "KB a tenant", "known", "awake", "called", "session", "sessions", "a sweep, ns"
    );
    for number in numbers {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["measure", number])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

fn memory(runtime: &Runtime, tenants: usize) {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let sessions = SESSIONS.min(tenants / 2);
    // What an import leaves behind is not part of it.
    let import = Command::new(std::env::current_exe().unwrap())
        .args(["import", &tenants.to_string(), &sessions.to_string()])
        .arg(directory)
        .status();
    assert!(import.unwrap().success());
    let manual = Arc::new(ManualClock::new(SystemClock.now()));
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&manual);
    let before = resident();
    let (vault, log) = open(directory, &clock);
    let known = resident();
    let options = pool_options(directory);
    let _runtime = runtime.enter();
    let manager = TenantMcpManager::with_clock(Arc::clone(&vault), log, options, clock);
    // There is no database: everything is opened but a session.
    let wake = |numbers: std::ops::Range<usize>| {
        runtime.block_on(async {
            for number in numbers {
                manager.get_or_create_server(id(number).as_str()).await.unwrap_err();
            }
        });
    };
    let middle = sessions.midpoint(tenants);
    for first in (sessions..middle).step_by(100) {
        wake(first..(first + 100).min(middle));
        // What is freed is not given back to the machine, so there is never much of it.
        manual.advance(vault::Options::default().credential_ttl);
        vault.sweep();
    }
    let awake = resident();
    wake(middle..tenants);
    let called = resident();
    runtime.block_on(async {
        for number in 0..sessions {
            drop(manager.get_or_create_server(id(number).as_str()).await.unwrap());
        }
    });
    let sweep = sweep(&manager, &vault);
    let open = resident();
    let each = |after: f64, before: f64, count: usize| (after - before) / count as f64;
    println!(
        "{tenants:<14} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {sessions:>10} {sweep:>12.0}",
        each(known, before, tenants),
        each(awake, known, middle - sessions),
        each(called, awake, tenants - middle),
        each(open, called, sessions),
    );
    runtime.block_on(manager.shutdown(Duration::from_secs(10)));
}

/// Nanoseconds of a sweep of the pool and the vault that finds nothing due.
fn sweep(manager: &TenantMcpManager, vault: &TenantCredentialVault) -> f64 {
    let turns = (0..TURNS).map(|_| {
        let began = Instant::now();
        black_box(manager.cleanup_idle_instances());
        vault.sweep();
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
