//! The brief's benchmark: 100 tenants, 1,000 concurrent requests over HTTP.
//!
//! Each request is a `tools/call` of `query_tenant_data` (one row by primary key, SQLite) through
//! everything there is: token, scope, quota, guard, pool, database, audit entry on disk. Each answer
//! is checked for its own tenant's marker. Beside it, in the same run with the same client, a bare
//! axum handler that parses the same body and gives a fixed answer: the most that this machine, HTTP
//! stack and client could do. Server and client share the machine, so read the ratios.

#![expect(clippy::unwrap_used, reason = "a failed set-up should end the bench")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_methods, reason = "the machine's clock, tasks and tokens of its own")]
#![expect(clippy::cast_precision_loss, reason = "rates and means, for people")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::routing::post;
use futures_util::StreamExt;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tenantry::audit::Log;
use tenantry::clock::{Clock, SystemClock};
use tenantry::memory::SecretText;
use tenantry::pool::PoolStats;
use tenantry::store::DataDir;
use tenantry::tenant::{
    Access, Connection, Credentials, IdRule, Limits, Permissions, Quotas, ResolvedTenant,
    TenantConfig, TenantId,
};
use tenantry::vault::{self, KdfCost, TenantCredentialVault};
use tenantry::{TenantMcpManager, database, http, pool};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const TENANTS: usize = 100;
const REQUESTS: usize = 1_000;
const CUSTOMERS: usize = 1_000;

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    let (manager, tokens) = set_up(directory.path());
    let stopping = CancellationToken::new();
    let endpoint = serve(Arc::clone(&manager), stopping.clone()).await;
    let bare = serve_bare().await;
    let client = reqwest::Client::builder().pool_max_idle_per_host(REQUESTS).build().unwrap();

    println!("{TENANTS} tenants, {REQUESTS} requests a round, over HTTP\n");
    println!(
        "{:26} {:>8} {:>8} {:>8} {:>8} {:>8}  reused",
        "", "mean ms", "p50", "p95", "p99", "req/s"
    );
    println!("{:26} {:>8} {:>8} {:>8} {:>8} {:>8}  > 90 %", "brief", "< 10", "", "", "", "> 1000");
    let mut shares = Vec::new();
    for (name, in_flight, rounds) in [
        ("all at once, cold", REQUESTS, 1),
        ("all at once, warm", REQUESTS, 10),
        ("32 in flight, warm", 32, 10),
        ("8 in flight, warm", 8, 5),
        ("1 in flight, warm", 1, 1),
    ] {
        let before = manager.pool_stats();
        let round = Round { client: &client, endpoint: &endpoint, tokens: &tokens, in_flight };
        let ours = round.measure(rounds).await;
        ours.print(name, &format!("{:.1} %", reused(before, manager.pool_stats())));
        let limit = Round { endpoint: &bare, ..round }.measure(rounds).await;
        limit.print("  bare axum, the same", "");
        shares.push((name, ours.per_second() / limit.per_second()));
    }
    println!("\nshare of the bare handler's rate:");
    for (name, share) in shares {
        println!("{name:26} {:>8.0} %", share * 100.0);
    }
    let stats = manager.pool_stats();
    println!(
        "\ninstances: {} created for {} leases, {:.1} % reused (brief: > 90 %)",
        stats.total_created,
        stats.total_acquired,
        reused(PoolStats::default(), stats)
    );
    stopping.cancel();
    manager.shutdown(Duration::from_secs(1)).await;
}

/// A way to send requests.
#[derive(Clone, Copy)]
struct Round<'a> {
    client: &'a reqwest::Client,
    endpoint: &'a str,
    tokens: &'a [(String, String)],
    in_flight: usize,
}

struct Measured {
    /// Shortest first.
    latencies: Vec<Duration>,
    elapsed: Duration,
}

impl Round<'_> {
    async fn measure(self, rounds: usize) -> Measured {
        let began = Instant::now();
        let mut latencies: Vec<Duration> = futures_util::stream::iter(0..REQUESTS * rounds)
            .map(|number| async move {
                let sent = Instant::now();
                self.send(number).await;
                sent.elapsed()
            })
            .buffer_unordered(self.in_flight)
            .collect()
            .await;
        let elapsed = began.elapsed();
        latencies.sort();
        Measured { latencies, elapsed }
    }

    async fn send(self, number: usize) {
        let (tenant, token) = &self.tokens[number % self.tokens.len()];
        let id = number % CUSTOMERS + 1;
        let body = json!({
            "jsonrpc": "2.0", "id": number, "method": "tools/call",
            "params": { "name": "query_tenant_data", "arguments": {
                "resource_uri": format!("mcp://{tenant}/database/table/customers"),
                "query": "SELECT id, name, email FROM customers WHERE id = ?1", "params": [id],
            } },
        });
        let response = self
            .client
            .post(self.endpoint)
            .header("Accept", "application/json, text/event-stream")
            .bearer_auth(token)
            .json(&body)
            .send()
            .await
            .unwrap();
        let answer: Value = response.json().await.unwrap();
        let marker = &answer["result"]["structuredContent"]["rows"][0][2];
        let is_own = *marker == format!("c{id}@{tenant}.example") || *marker == "bare";
        assert!(is_own, "not the answer of {tenant}: {answer}");
    }
}

impl Measured {
    fn print(&self, name: &str, reused: &str) {
        let milliseconds = |latency: Duration| latency.as_secs_f64() * 1e3;
        let at = |percent: usize| {
            milliseconds(self.latencies[(self.latencies.len() - 1) * percent / 100])
        };
        let mean = milliseconds(self.latencies.iter().sum()) / self.latencies.len() as f64;
        println!(
            "{name:26} {mean:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>8.0}  {reused}",
            at(50),
            at(95),
            at(99),
            self.per_second()
        );
    }

    fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Percent of the leases between two moments that met an instance that was there.
fn reused(before: PoolStats, after: PoolStats) -> f64 {
    let acquired = after.total_acquired - before.total_acquired;
    let created = after.total_created - before.total_created;
    (1.0 - created as f64 / acquired.max(1) as f64) * 100.0
}

fn set_up(directory: &Path) -> (Arc<TenantMcpManager>, Vec<(String, String)>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let passphrase = SecretText::from("a passphrase for the bench");
    let data = DataDir::create(directory.join("data")).unwrap();
    vault::create(&data, &passphrase, KdfCost::insecure_for_tests(), &SystemClock).unwrap();
    let log = Log::open(&data.audit_path(), Arc::clone(&clock)).unwrap();
    let options = vault::Options { upgrade_cost: false, ..vault::Options::default() };
    let vault = TenantCredentialVault::open(data, options, Arc::clone(&clock));
    let vault = Arc::new(vault.unwrap());
    vault.unseal(&vault::Unlock::Passphrase(passphrase)).unwrap();
    let ids: Vec<String> = (0..TENANTS).map(|number| format!("tenant{number:03}")).collect();
    vault.import(ids.iter().map(|id| tenant(directory, id)).collect()).unwrap();
    let database = database::Options {
        sqlite_root: directory.to_owned(),
        connect_timeout: Duration::from_secs(10),
        addresses: database::AddressPolicy::default(),
    };
    let options =
        pool::Options { acquire_timeout: Duration::from_secs(30), ..pool::Options::new(database) };
    let manager = TenantMcpManager::with_clock(vault, log, options, clock);
    let token = |id: String| {
        let tenant = TenantId::parse(&id, IdRule::Alphanumeric).unwrap();
        let (token, _) = manager.auth().create(&tenant, Permissions::READ, None).unwrap();
        (id, token.expose_secret().to_owned())
    };
    let tokens = ids.into_iter().map(token).collect();
    (Arc::new(manager), tokens)
}

fn tenant(directory: &Path, id: &str) -> ResolvedTenant {
    let path = format!("{id}.db");
    let database = rusqlite::Connection::open(directory.join(&path)).unwrap();
    database
        .execute_batch(&format!(
            "PRAGMA synchronous = OFF;
             CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, email TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {CUSTOMERS})
             INSERT INTO customers SELECT i, 'Customer ' || i, 'c' || i || '@{id}.example' FROM n;"
        ))
        .unwrap();
    let config = TenantConfig {
        id: TenantId::parse(id, IdRule::Alphanumeric).unwrap(),
        connection: Connection::Sqlite { path },
        access: Access::default(),
        limits: Limits::default(),
        quotas: Quotas::default(),
        features: BTreeMap::new(),
    };
    ResolvedTenant { config, credentials: Credentials::default() }
}

async fn serve(manager: Arc<TenantMcpManager>, stopping: CancellationToken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = http::Options { drain_timeout: Duration::from_secs(1), ..Default::default() };
    let handle = http::Handle::new(options).unwrap();
    tokio::spawn(http::serve(listener, manager, handle, stopping));
    format!("http://{address}/mcp")
}

/// Parses the body, as any server must, and answers.
async fn serve_bare() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = async |axum::Json(request): axum::Json<Value>| {
        let rows = json!([[1, "bare", "bare"]]);
        let result = json!({ "structuredContent": { "rows": rows } });
        axum::Json(json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }))
    };
    let router = axum::Router::new().route("/mcp", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/mcp")
}
