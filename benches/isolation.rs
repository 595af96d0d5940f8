//! What a noisy tenant does to a quiet one.
//!
//! The program serves a quiet tenant, which asks for one row at a time, and tenants that are a
//! nuisance, each in its own way. The quiet one's latencies are taken in turns, alone and beside each
//! of them, in one run: on SQLite, and on PostgreSQL. Everything is on one machine: what the
//! nuisance's own client and database take of the processors is in the ratio. A PostgreSQL server of
//! the nuisance's own is in a control group that has little of the processors, and only what nobody
//! else wants, as one elsewhere has nothing of them; for that the bench has to be root's. What it still
//! takes, sessions that are not the service's show. One that both tenants are on shares the processors
//! out as it likes. For neither of these two a goal is set. Words on the command line choose nuisances by what they do.

#![expect(clippy::unwrap_used, reason = "a failed set-up should end the bench")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_methods, reason = "the machine's clock, tasks and environment")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use support::Sandbox;

const TURNS: usize = 7;
const TURN: Duration = Duration::from_secs(4);
const QUIET: &str = "quiet001";
/// A nuisance on the server of the quiet tenant.
const BESIDE: &str = "beside09";
/// A tenant whose statements are sent to its database directly, and not by the service.
const DIRECT: &str = "direct10";
/// A tenant that is not served.
const DISABLED: &str = "disabled";
/// What the quiet one's p99 may be, in times of what it is alone.
const GOAL: f64 = 2.0;
const PATIENCE: Duration = Duration::from_secs(2);
/// A statement that a proxy knows, and what it knows it by.
const MARKED: &str = "SELECT 'a marked statement'";
const MARK: &[u8] = b"a marked statement";
/// How many calls of a tenant may wait for an instance.
const MOST_WAITING: usize = 40;
/// Counts for minutes.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
/// The same, with functions that take long between two steps of the engine.
const FEW_STEPS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                         SELECT sum(length(replace(hex(printf('%100000d', i)), '2', 'ab'))) FROM n";
/// The same on PostgreSQL, without a file for what it counts.
const ENDLESS_JOIN: &str = "SELECT count(*) FROM customers a, customers b, customers c, customers d, \
                            customers e, customers f, customers g";
/// Of a table that somebody else has locked.
const LOCKED: &str = "SELECT * FROM locked";
const PASSWORD: &str = "a password for the bench";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.sh");

/// Where the tenants' own databases are.
enum Engine {
    Sqlite,
    Postgres { quiet: PostgresServer, nuisance: PostgresServer },
}

/// A PostgreSQL server, until it is dropped.
struct PostgresServer {
    directory: tempfile::TempDir,
    port: u16,
    password: String,
    _group: Option<IdleGroup>,
}

/// A control group whose processes run when no others want to, and together for a fifth of one
/// processor's time: 1 ms of each 5, as the share of longer periods would be taken in one piece, on
/// all processors at once. The *idle* scheduling policy alone would not do: it holds among the processes of
/// one group, and a daemon has one of its own (sched(7), "The autogroup feature").
struct IdleGroup(PathBuf);

struct Nuisance {
    does: &'static str,
    tenant: &'static str,
    connections: usize,
    sql: &'static str,
    /// After which it hangs up and asks again.
    patience: Duration,
    /// What it is told, once it is a nuisance.
    code: &'static str,
}

impl Engine {
    fn nuisances(&self) -> Vec<Nuisance> {
        let endless = |does, tenant, sql| Nuisance {
            does,
            tenant,
            connections: 32,
            sql,
            patience: PATIENCE,
            code: "QUERY_TIMEOUT",
        };
        let all_endless = "all instances in endless statements, callers waiting";
        let full = |sql| Nuisance {
            does: "the same and as many callers as may wait, others ask on",
            tenant: "endless2",
            connections: 2 * MOST_WAITING,
            sql,
            patience: PATIENCE,
            code: "POOL_EXHAUSTED",
        };
        let mut nuisances = match self {
            Self::Sqlite => vec![
                endless(all_endless, "endless2", ENDLESS),
                full(ENDLESS),
                endless("the same, where each row takes a millisecond", "endless2", FEW_STEPS),
            ],
            Self::Postgres { .. } => vec![
                endless(all_endless, "endless2", ENDLESS_JOIN),
                full(ENDLESS_JOIN),
                endless("the same on the server of the quiet tenant", BESIDE, ENDLESS_JOIN),
                Nuisance {
                    does: "as many sessions compute elsewhere, not the service's",
                    tenant: DIRECT,
                    connections: 5,
                    sql: ENDLESS_JOIN,
                    patience: PATIENCE,
                    code: "57014",
                },
                endless("all instances wait for a lock, callers waiting", "locked08", LOCKED),
                Nuisance {
                    // That of the service's own clock comes later than that of the server's.
                    patience: PATIENCE * 2,
                    ..endless("statements are answered byte by byte, endlessly", "drips011", MARKED)
                },
                Nuisance {
                    connections: 4,
                    code: "DATABASE_UNAVAILABLE",
                    ..endless("statements are answered with malformed messages", "broken12", MARKED)
                },
            ],
        };
        nuisances.extend(self.of_every_engine());
        nuisances
    }

    fn of_every_engine(&self) -> [Nuisance; 6] {
        [
            Nuisance {
                does: "quota used up, asks on",
                tenant: "greedy03",
                connections: 4,
                sql: "SELECT 1",
                patience: PATIENCE,
                code: "QUOTA_EXCEEDED",
            },
            Nuisance {
                does: "statements that are refused",
                tenant: "hostile4",
                connections: 4,
                sql: match self {
                    Self::Sqlite => "SELECT load_extension('x')",
                    Self::Postgres { .. } => "SELECT pg_read_file('/etc/passwd')",
                },
                patience: PATIENCE,
                code: "QUERY_REFUSED",
            },
            Nuisance {
                does: "disabled, asks on",
                tenant: DISABLED,
                connections: 4,
                sql: "SELECT 1",
                patience: PATIENCE,
                code: "TENANT_DISABLED",
            },
            Nuisance {
                does: "its database is not there",
                tenant: "absent05",
                connections: 4,
                sql: "SELECT 1",
                patience: PATIENCE,
                code: "DATABASE_UNAVAILABLE",
            },
            Nuisance {
                does: "its database answers byte by byte, endlessly",
                tenant: "drips006",
                connections: 32,
                sql: "SELECT 1",
                patience: PATIENCE * 2,
                code: "DATABASE_UNAVAILABLE",
            },
            Nuisance {
                does: "its database answers with malformed messages",
                tenant: "broken07",
                connections: 4,
                sql: "SELECT 1",
                patience: PATIENCE,
                code: "DATABASE_UNAVAILABLE",
            },
        ]
    }

    /// Writes the tenant's file, with `more` fields, and makes its database.
    async fn add_tenant(&self, sandbox: &Sandbox, tenant: &str, more: &Value) {
        let server = match self {
            Self::Sqlite => return sandbox.add_tenant(tenant, more),
            Self::Postgres { quiet, .. } if [QUIET, BESIDE].contains(&tenant) => quiet,
            Self::Postgres { nuisance, .. } => nuisance,
        };
        let script = format!(
            "DROP SCHEMA IF EXISTS {tenant} CASCADE; DROP ROLE IF EXISTS {tenant};
             CREATE ROLE {tenant} LOGIN PASSWORD '{PASSWORD}'; CREATE SCHEMA {tenant};
             CREATE TABLE {tenant}.customers (id int PRIMARY KEY, email text);
             INSERT INTO {tenant}.customers
                 SELECT i, 'c' || i || '@{tenant}.example' FROM generate_series(1, 50) AS i;
             CREATE TABLE {tenant}.locked (id int);
             GRANT USAGE ON SCHEMA {tenant} TO {tenant};
             GRANT SELECT ON ALL TABLES IN SCHEMA {tenant} TO {tenant}; ANALYZE {tenant}.customers"
        );
        server.owner().await.batch_execute(&script).await.unwrap();
        let mut file = json!({
            "tenant_id": tenant, "db_host": "127.0.0.1", "db_port": server.port, "db_name": "postgres",
            "db_user": tenant, "db_password": PASSWORD, "db_schema": tenant, "db_sslmode": "disable",
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            file[name] = value.clone();
        }
        sandbox.write_config(&format!("{tenant}.json"), &file.to_string());
    }
}

impl PostgresServer {
    fn start(group: Option<IdleGroup>) -> Self {
        // For the server's user too, which root's is not.
        let open = Permissions::from_mode(0o755);
        let directory = tempfile::Builder::new().permissions(open).tempdir().unwrap();
        let server = directory.path().join("server");
        let started = Command::new(SCRIPT).arg("start").arg(&server).output().unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        if let Some(IdleGroup(path)) = &group {
            let lines = std::fs::read_to_string(server.join("data/postmaster.pid")).unwrap();
            std::fs::write(path.join("cgroup.procs"), lines.lines().next().unwrap()).unwrap();
        }
        let told = String::from_utf8(started.stdout).unwrap();
        let value = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.unwrap().to_owned()
        };
        let port = value("TENANTRY_TEST_PG_PORT").parse().unwrap();
        Self { directory, port, password: value("TENANTRY_TEST_PG_PASSWORD"), _group: group }
    }

    /// A session of its owner.
    async fn owner(&self) -> tokio_postgres::Client {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").password(&self.password);
        let (client, connection) =
            config.dbname("postgres").connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// One session runs the nuisance's statement until `ends`; how often it was stopped.
    async fn be_asked(&self, nuisance: &Nuisance, ends: Instant) -> u64 {
        let session = self.owner().await;
        let settings =
            format!("SET search_path = {}; SET statement_timeout = 1000", nuisance.tenant);
        session.batch_execute(&settings).await.unwrap();
        let mut stopped = 0;
        while Instant::now() < ends {
            let error = session.batch_execute(nuisance.sql).await.unwrap_err();
            stopped += u64::from(error.code().is_some_and(|code| code.code() == nuisance.code));
        }
        stopped
    }
}

impl IdleGroup {
    fn new() -> std::io::Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let first = root.join("cpu");
        let parent = if first.is_dir() { &first } else { root };
        let group = Self(parent.join(format!("tenantry-bench-{}", std::process::id())));
        std::fs::create_dir(&group.0)?;
        std::fs::write(group.0.join("cpu.idle"), "1")?;
        // By the second version of control groups, or the first.
        std::fs::write(group.0.join("cpu.max"), "1000 5000").or_else(|_| {
            std::fs::write(group.0.join("cpu.cfs_period_us"), "5000")?;
            std::fs::write(group.0.join("cpu.cfs_quota_us"), "1000")
        })?;
        Ok(group)
    }
}

impl Drop for IdleGroup {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).ok();
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let server = self.directory.path().join("server");
        Command::new(SCRIPT).arg("stop").arg(server).status().ok();
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    println!("one row by primary key over HTTP, medians of {TURNS} turns");
    run(Engine::Sqlite, "SQLite").await;
    let group = IdleGroup::new();
    if let Err(error) = &group {
        println!("\nno group for the nuisance's server, which will compute as others do: {error}");
    }
    let (quiet, nuisance) = (PostgresServer::start(None), PostgresServer::start(group.ok()));
    run(Engine::Postgres { quiet, nuisance }, "PostgreSQL").await;
    println!("\ngoal: p99 at most {GOAL} times the quiet value");
}

async fn run(engine: Engine, name: &str) {
    let sandbox = Sandbox::new();
    engine.add_tenant(&sandbox, QUIET, &json!({})).await;
    let short = json!({ "limits": { "statement_timeout_ms": 1000 } });
    engine.add_tenant(&sandbox, "endless2", &short).await;
    let once = json!({ "quotas": { "max_queries_per_hour": 1 } });
    engine.add_tenant(&sandbox, "greedy03", &once).await;
    engine.add_tenant(&sandbox, "hostile4", &json!({})).await;
    engine.add_tenant(&sandbox, DISABLED, &json!({})).await;
    let mut lock = None;
    if let Engine::Postgres { nuisance, .. } = &engine {
        engine.add_tenant(&sandbox, BESIDE, &short).await;
        engine.add_tenant(&sandbox, DIRECT, &short).await;
        engine.add_tenant(&sandbox, "locked08", &short).await;
        let session = nuisance.owner().await;
        session.batch_execute("BEGIN; LOCK TABLE locked08.locked").await.unwrap();
        lock = Some(session);
        let port = nuisance.port;
        let drips = listen(move |stream| be_between(stream, port, drip)).await;
        let broken = listen(move |stream| be_between(stream, port, answer_nonsense)).await;
        for (tenant, port) in [("drips011", drips), ("broken12", broken)] {
            let file = json!({ "db_port": port, "limits": { "statement_timeout_ms": 1000 } });
            engine.add_tenant(&sandbox, tenant, &file).await;
        }
    }
    let drips = listen(|stream| answer_first(stream, drip)).await;
    let broken = listen(|stream| answer_first(stream, answer_nonsense)).await;
    for (tenant, port) in [("absent05", 1), ("drips006", drips), ("broken07", broken)] {
        let file = json!({
            "tenant_id": tenant, "db_host": "127.0.0.1", "db_port": port, "db_name": "x",
            "db_user": "x", "db_password": "x", "db_sslmode": "disable",
        });
        sandbox.write_config(&format!("{tenant}.json"), &file.to_string());
    }
    sandbox.import();
    sandbox.run(&["tenant", "disable", DISABLED]).ok();
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_chosen = |nuisance: &Nuisance| {
        words.is_empty() || words.iter().any(|word| nuisance.does.contains(word.as_str()))
    };
    let chosen = engine.nuisances().into_iter().filter(is_chosen);
    let chosen: Vec<_> =
        chosen.map(|nuisance| (sandbox.token(nuisance.tenant), nuisance)).collect();
    let quiet = sandbox.token(QUIET);
    let most_waiting = MOST_WAITING.to_string();
    let server = sandbox.serve_with(&[
        ("TENANTRY_POOL__MAX_WAITING_PER_TENANT", most_waiting.as_str()),
        ("TENANTRY_DATABASE__CONNECT_TIMEOUT_MS", "3000"),
    ]);
    let endpoint = server.endpoint.as_str();

    println!("\n{name:54} {:>9} {:>9} {:>9} {:>9}", "p50 ms", "p99 ms", "p50 ratio", "p99 ratio");
    take_turn(endpoint, &quiet).await;
    for (token, nuisance) in &chosen {
        let direct = match &engine {
            Engine::Postgres { nuisance: server, .. } => {
                (nuisance.tenant == DIRECT).then_some(server)
            }
            Engine::Sqlite => None,
        };
        measure(endpoint, &quiet, nuisance, token, direct).await;
    }
    server.stop().ok();
    drop(lock);
}

/// Turns alone and beside one nuisance, which asks the service or a database `direct`ly, and the line
/// about them.
async fn measure(
    endpoint: &str,
    quiet: &str,
    nuisance: &Nuisance,
    token: &str,
    direct: Option<&PostgresServer>,
) {
    let mut alone = Vec::new();
    let mut beside = Vec::new();
    let mut told = 0;
    for _ in 0..TURNS {
        alone.push(take_turn(endpoint, quiet).await);
        let ends = Instant::now() + TURN + Duration::from_millis(500);
        let nuisances = join_all((0..nuisance.connections).map(async |_| match direct {
            Some(server) => server.be_asked(nuisance, ends).await,
            None => be_a_nuisance(endpoint, token, nuisance, ends).await,
        }));
        let watched = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            take_turn(endpoint, quiet).await
        };
        let (times, codes) = tokio::join!(watched, nuisances);
        beside.push(times);
        told += codes.into_iter().sum::<u64>();
    }
    let [alone_50, alone_99, beside_50, beside_99] = [
        median(alone.iter().map(|times| times.0)),
        median(alone.iter().map(|times| times.1)),
        median(beside.iter().map(|times| times.0)),
        median(beside.iter().map(|times| times.1)),
    ];
    let ratio = beside_99 / alone_99;
    let verdict = match nuisance.tenant {
        BESIDE | DIRECT => "no goal".to_owned(),
        _ if ratio <= GOAL => format!("<= {GOAL} ok"),
        _ => "NOT MET".to_owned(),
    };
    println!(
        "{:54} {beside_50:>9.2} {beside_99:>9.2} {:>9.2} {ratio:>9.2}   {verdict:7}   {told} {}",
        nuisance.does,
        beside_50 / alone_50,
        nuisance.code,
    );
}

fn call(
    endpoint: &str,
    token: &str,
    client: &Client,
    tenant: &str,
    sql: &str,
) -> reqwest::RequestBuilder {
    let arguments = json!({ "resource_uri": format!("mcp://{tenant}/database"), "query": sql });
    client
        .post(endpoint)
        .bearer_auth(token)
        .header("Accept", "application/json, text/event-stream")
        .json(&json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": "query_tenant_data", "arguments": arguments },
        }))
}

/// Milliseconds: median and 99th percentile of one turn of the quiet tenant.
async fn take_turn(endpoint: &str, token: &str) -> (f64, f64) {
    let client = Client::new();
    let mut times = Vec::new();
    let ends = Instant::now() + TURN;
    while Instant::now() < ends {
        let began = Instant::now();
        let request =
            call(endpoint, token, &client, QUIET, "SELECT email FROM customers WHERE id = 7");
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        times.push(began.elapsed().as_secs_f64() * 1e3);
        let rows = &answer["result"]["structuredContent"]["rows"];
        assert_eq!(*rows, json!([[format!("c7@{QUIET}.example")]]), "{answer}");
        // As people and agents ask: not in a closed loop.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    (at(50), at(99))
}

/// Asks on and on; how often it was told what it should be.
async fn be_a_nuisance(endpoint: &str, token: &str, nuisance: &Nuisance, ends: Instant) -> u64 {
    let client = Client::new();
    let mut told = 0;
    while Instant::now() < ends {
        let request = call(endpoint, token, &client, nuisance.tenant, nuisance.sql);
        let request = request.timeout(nuisance.patience);
        let Ok(answer) = request.send().await else { continue };
        let text = answer.text().await.unwrap_or_default();
        told += u64::from(text.contains(nuisance.code));
    }
    told
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A server on a port of its own that treats each connection as `each` does.
async fn listen<F: Future<Output = ()> + Send + 'static>(
    each: impl Fn(TcpStream) -> F + Send + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(stream));
        }
    });
    port
}

/// Answers what is said first as `answer` does.
async fn answer_first<F: Future<Output = ()>>(
    mut stream: TcpStream,
    answer: impl Fn(TcpStream) -> F,
) {
    drop(stream.read(&mut [0; 1024]).await);
    answer(stream).await;
}

/// Is between a client and the server at `port`, until the marked statement, which it answers itself.
async fn be_between<F: Future<Output = ()>>(
    mut client: TcpStream,
    port: u16,
    answer: impl Fn(TcpStream) -> F,
) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (mut said, mut answered) = ([0; 8192], [0; 8192]);
    loop {
        let (length, from, to) = tokio::select! {
            length = client.read(&mut said) => (length, &said, &mut server),
            length = server.read(&mut answered) => (length, &answered, &mut client),
        };
        let Ok(length @ 1..) = length else { return };
        let bytes = &from[..length];
        if bytes.windows(MARK.len()).any(|window| window == MARK) {
            return answer(client).await;
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// A notice of 32 kB, a byte every millisecond.
async fn drip(mut stream: TcpStream) {
    let announced = [b'N', 0, 0, 0x80, 0];
    for byte in announced.into_iter().chain(std::iter::repeat(b'x')) {
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A message whose length is less than that of its length.
async fn answer_nonsense(mut stream: TcpStream) {
    drop(stream.write_all(&[b'R', 0, 0, 0, 1, 0xff, 0xff]).await);
}
