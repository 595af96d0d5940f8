//! What a noisy tenant does to a quiet one.
//!
//! The program serves a quiet tenant, which asks for one row at a time, and tenants that are a nuisance, each in its
//! own way. The quiet one's latencies are taken in turns, alone and beside each of them, in one run. Everything is on one
//! machine: what the nuisance's own client and statements take of the processors is in the ratio. Words on the command
//! line choose nuisances by what they do.

#![expect(clippy::unwrap_used, reason = "a failed set-up should end the bench")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_methods, reason = "the machine's clock and tasks")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use support::Sandbox;

const TURNS: usize = 3;
const TURN: Duration = Duration::from_secs(4);
const QUIET: &str = "quiet001";
/// Counts for minutes.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

struct Nuisance {
    does: &'static str,
    tenant: &'static str,
    connections: usize,
    sql: &'static str,
    /// What it is told, once it is a nuisance.
    code: &'static str,
}

const NUISANCES: [Nuisance; 6] = [
    Nuisance {
        does: "all instances in endless statements, callers waiting",
        tenant: "endless2",
        connections: 32,
        sql: ENDLESS,
        code: "QUERY_TIMEOUT",
    },
    Nuisance {
        does: "quota used up, asks on",
        tenant: "greedy03",
        connections: 4,
        sql: "SELECT 1",
        code: "QUOTA_EXCEEDED",
    },
    Nuisance {
        does: "statements that are refused",
        tenant: "hostile4",
        connections: 4,
        sql: "SELECT load_extension('x')",
        code: "QUERY_REFUSED",
    },
    Nuisance {
        does: "its database is not there",
        tenant: "absent05",
        connections: 4,
        sql: "SELECT 1",
        code: "DATABASE_UNAVAILABLE",
    },
    Nuisance {
        does: "its database answers byte by byte, endlessly",
        tenant: "drips006",
        connections: 32,
        sql: "SELECT 1",
        code: "DATABASE_UNAVAILABLE",
    },
    Nuisance {
        does: "its database answers with malformed messages",
        tenant: "broken07",
        connections: 4,
        sql: "SELECT 1",
        code: "DATABASE_UNAVAILABLE",
    },
];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant(QUIET, &json!({}));
    sandbox.add_tenant("endless2", &json!({ "limits": { "statement_timeout_ms": 1000 } }));
    sandbox.add_tenant("greedy03", &json!({ "quotas": { "max_queries_per_hour": 1 } }));
    sandbox.add_tenant("hostile4", &json!({}));
    let drips = listen(drip).await;
    let broken = listen(answer_nonsense).await;
    for (tenant, port) in [("absent05", 1), ("drips006", drips), ("broken07", broken)] {
        let file = json!({
            "tenant_id": tenant, "db_host": "127.0.0.1", "db_port": port, "db_name": "x",
            "db_user": "x", "db_password": "x", "db_sslmode": "disable",
        });
        sandbox.write_config(&format!("{tenant}.json"), &file.to_string());
    }
    sandbox.import();
    let quiet = sandbox.token(QUIET);
    let tokens = NUISANCES.map(|nuisance| sandbox.token(nuisance.tenant));
    let server = sandbox.serve();
    let endpoint = server.endpoint.as_str();

    println!("one row by primary key over HTTP, medians of {TURNS} turns\n");
    println!("{:54} {:>9} {:>9} {:>9} {:>9}", "", "p50 ms", "p99 ms", "p50 ratio", "p99 ratio");
    take_turn(endpoint, &quiet).await;
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_chosen = |nuisance: &Nuisance| {
        words.is_empty() || words.iter().any(|word| nuisance.does.contains(word.as_str()))
    };
    for (nuisance, token) in NUISANCES.iter().zip(&tokens) {
        if !is_chosen(nuisance) {
            continue;
        }
        let mut alone = Vec::new();
        let mut beside = Vec::new();
        let mut told = 0;
        for _ in 0..TURNS {
            alone.push(take_turn(endpoint, &quiet).await);
            let ends = Instant::now() + TURN + Duration::from_millis(500);
            let nuisances = join_all(
                (0..nuisance.connections).map(|_| be_a_nuisance(endpoint, token, nuisance, ends)),
            );
            let watched = async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                take_turn(endpoint, &quiet).await
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
        println!(
            "{:54} {beside_50:>9.2} {beside_99:>9.2} {:>9.2} {:>9.2}   {told} {}",
            nuisance.does,
            beside_50 / alone_50,
            beside_99 / alone_99,
            nuisance.code,
        );
    }
    println!("\ngoal: p99 below 2 times the quiet value");
    server.stop().ok();
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
        let request = request.timeout(Duration::from_secs(2));
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
async fn listen<F: Future<Output = ()> + Send + 'static>(each: fn(TcpStream) -> F) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(stream));
        }
    });
    port
}

/// A notice of a gigabyte, a byte every millisecond.
async fn drip(mut stream: TcpStream) {
    let mut startup = [0; 1024];
    drop(stream.read(&mut startup).await);
    let announced = [b'N', 0x3f, 0xff, 0xff, 0xff];
    for byte in announced.into_iter().chain(std::iter::repeat(b'x')) {
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A message whose length is less than that of its length.
async fn answer_nonsense(mut stream: TcpStream) {
    let mut startup = [0; 1024];
    drop(stream.read(&mut startup).await);
    drop(stream.write_all(&[b'R', 0, 0, 0, 1, 0xff, 0xff]).await);
}
