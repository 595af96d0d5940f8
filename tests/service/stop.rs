//! How the service ends.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::postgres::{make_tenant, superuser};
use crate::support::{Finished, PASSPHRASE, Sandbox, Server};
use crate::{Era, connect, error_code, query};

/// Counts for minutes.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_mins(1);

/// A sandbox with one tenant, whose statements may take so long, and a token for it.
fn one_tenant(statement_timeout_ms: u64) -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sandbox.add_tenant(
        "tenant001",
        &json!({
            "limits": { "statement_timeout_ms": statement_timeout_ms },
            "quotas": { "max_concurrent_connections": 1 },
        }),
    );
    sandbox.import();
    let token = sandbox.token("tenant001");
    (sandbox, token)
}

fn serve(sandbox: &Sandbox, drain_timeout_seconds: u32) -> Server {
    sandbox.serve_with(&[
        ("TENANTRY_HTTP__DRAIN_TIMEOUT_SECONDS", &drain_timeout_seconds.to_string()),
        ("TENANTRY_POOL__ACQUIRE_TIMEOUT_MS", "50"),
    ])
}

/// Returns once a call has the tenant's only place.
async fn is_under_way(server: &Server, token: &str, tenant: &str) {
    let probe = connect(&server.endpoint, token, Era::Modern).await;
    loop {
        let answer = query(&probe, &format!("mcp://{tenant}/database"), "SELECT 1").await;
        if answer.is_error == Some(true) {
            assert_eq!(error_code(&answer), "POOL_EXHAUSTED");
            return;
        }
    }
}

/// A `tools/call` of `sql`.
fn call_of(tenant: &str, sql: &str) -> Value {
    let arguments = json!({ "resource_uri": format!("mcp://{tenant}/database"), "query": sql });
    json!({
        "jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": { "name": "query_tenant_data", "arguments": arguments },
    })
}

/// The answer to a statement, with its status; or none.
async fn try_asking(
    server: &Server,
    token: &str,
    tenant: &str,
    sql: &str,
) -> reqwest::Result<(u16, Value)> {
    loop {
        let request = reqwest::Client::new()
            .post(&server.endpoint)
            .header("Accept", "application/json, text/event-stream")
            .bearer_auth(token)
            .json(&call_of(tenant, sql));
        let response = request.send().await?;
        let (status, answer) = (response.status().as_u16(), response.json::<Value>().await?);
        // Who looks whether it is under way had the only place.
        if answer["result"]["structuredContent"]["error_code"] != "POOL_EXHAUSTED" {
            return Ok((status, answer));
        }
    }
}

async fn ask(server: &Server, token: &str, tenant: &str, sql: &str) -> (u16, Value) {
    try_asking(server, token, tenant, sql).await.unwrap()
}

fn address(server: &Server) -> &str {
    server.endpoint.strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap()
}

/// A connection on which `text` is sent.
fn say(server: &Server, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address(server)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

/// Everything that comes until the service closes the connection, or aborts it.
fn hear(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    String::from_utf8(bytes).unwrap()
}

/// Returns once the service takes no more connections.
fn is_closed(server: &Server) {
    let is_refused = || {
        let connected = TcpStream::connect(address(server));
        connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    while !is_refused() {
        std::thread::yield_now();
    }
}

async fn wait(mut server: Server) -> Finished {
    tokio::task::spawn_blocking(move || server.wait()).await.unwrap()
}

fn decisions(sandbox: &Sandbox, decision: &str) -> usize {
    let entries = sandbox.audit(&[]);
    entries.iter().filter(|entry| entry["decision"] == decision).count()
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_told_so_and_recorded() {
    let (sandbox, token) = one_tenant(3_600_000);
    let server = serve(&sandbox, 1);
    let endless = ask(&server, &token, "tenant001", ENDLESS);
    let stop = async {
        is_under_way(&server, &token, "tenant001").await;
        server.signal("-INT");
    };
    let ((status, answer), ()) = tokio::join!(endless, stop);
    assert_eq!(status, 503);
    assert_eq!(answer["error"]["data"]["error_code"], "CANCELLED", "{answer}");
    wait(server).await.failed(5, &["1 call(s) did not finish in time"]);
    let entries = sandbox.audit(&[]);
    let cut: Vec<_> = entries.iter().filter(|entry| entry["code"] == "CANCELLED").collect();
    assert_eq!(cut.len(), 1, "{entries:?}");
    assert_eq!(cut[0]["decision"], "failed", "it was not the caller who left");
    assert_eq!(cut[0]["request_id"], answer["error"]["data"]["request_id"]);
    // What it had used is known: the call counts, though it was cut.
    let used = || {
        let quotas = sandbox.json(&["quota", "show", "tenant001"]);
        quotas["quotas"]["max_queries_per_hour"]["used"].as_u64().unwrap()
    };
    let before = used();
    assert!(before >= 1, "{before}");
    sandbox.serve().stop().ok();
    assert_eq!(used(), before);
}

#[tokio::test]
async fn a_call_that_ends_in_time_is_answered_and_nothing_was_cut() {
    // What ends it is its own limit.
    let (sandbox, token) = one_tenant(2_000);
    let server = serve(&sandbox, 60);
    let call = ask(&server, &token, "tenant001", ENDLESS);
    let stop = async {
        is_under_way(&server, &token, "tenant001").await;
        server.signal("-TERM");
        is_closed(&server);
    };
    let ((status, answer), ()) = tokio::join!(call, stop);
    assert_eq!(status, 200);
    let code = &answer["result"]["structuredContent"]["error_code"];
    assert_eq!(code, "QUERY_TIMEOUT", "{answer}");
    wait(server).await.ok();
    assert_eq!(decisions(&sandbox, "abandoned"), 0);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_harms_nothing() {
    let (sandbox, token) = one_tenant(3_600_000);
    let server = serve(&sandbox, 600);
    let endless = try_asking(&server, &token, "tenant001", ENDLESS);
    let stop = async {
        is_under_way(&server, &token, "tenant001").await;
        server.signal("-TERM");
        is_closed(&server);
        server.signal("-TERM");
    };
    let (answer, ()) = tokio::join!(endless, stop);
    assert!(answer.is_err(), "no answer, and not a part of one");
    assert_eq!(wait(server).await.status.code(), Some(130));
    sandbox.run(&["fsck"]).ok();
    sandbox.serve().stop().ok();
}

#[tokio::test]
async fn who_is_connected_and_silent_holds_nothing_up() {
    let (sandbox, token) = one_tenant(1_000);
    let server = serve(&sandbox, 600);
    let mut silent = say(&server, "");
    let mut kept = say(&server, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut first = [0; 12];
    kept.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    assert_eq!(ask(&server, &token, "tenant001", "SELECT 1").await.0, 200);
    server.signal("-TERM");
    assert_eq!(hear(&mut silent), "");
    assert!(hear(&mut kept).ends_with("ok\n"));
    wait(server).await.ok();
}

#[tokio::test]
async fn nobody_new_is_served_once_it_stops() {
    let (sandbox, _) = one_tenant(1_000);
    let server = serve(&sandbox, 600);
    // A head that has begun is not a request yet.
    let mut half = say(&server, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n");
    let mut whole = say(&server, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut line = [0; 15];
    whole.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"HTTP/1.1 200 OK");
    server.signal("-TERM");
    is_closed(&server);
    assert_eq!(hear(&mut half), "");
    wait(server).await.ok();
}

#[tokio::test]
async fn half_a_request_is_waited_for_as_long_as_calls_are_and_never_answered_by_half() {
    let (sandbox, token) = one_tenant(1_000);
    let server = serve(&sandbox, 1);
    let mut half = say(&server, "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Le");
    let mut bodiless = say(
        &server,
        &format!(
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
             Content-Length: 900\r\n\r\n{{\"jsonrpc\""
        ),
    );
    server.signal("-TERM");
    assert_eq!(hear(&mut half), "");
    let answer = hear(&mut bodiless);
    assert!(answer.is_empty() || !answer.starts_with("HTTP/1.1 200"), "{answer}");
    let finished = wait(server).await;
    assert!(matches!(finished.status.code(), Some(0 | 5)), "{finished:?}");
}

#[tokio::test]
async fn a_sealed_service_ends_as_one_that_serves() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve_sealed();
    server.signal("-TERM");
    wait(server).await.ok();
}

#[test]
fn a_signal_while_it_starts_ends_it_and_it_starts_again() {
    let (sandbox, _) = one_tenant(1_000);
    // It waits for a passphrase that does not come.
    let waiting = ["--passphrase-fd", "0", "serve", "--listen", "127.0.0.1:0"];
    let mut command = sandbox.keyless_command(&waiting);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    signal(&child, "-TERM");
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15), "{status}");
    // Wherever it is on its way.
    for _ in 0..5 {
        let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        signal(&child, "-TERM");
        let status = child.wait().unwrap();
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&status) == Some(15);
        assert!(by_signal || status.success(), "{status}");
    }
    sandbox.serve().stop().ok();
    sandbox.run(&["fsck"]).ok();
}

fn signal(child: &Child, signal: &str) {
    let mut kill = std::process::Command::new("kill");
    assert!(kill.args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn sessions_with_postgres_are_closed_and_what_they_run_is_cancelled() {
    const ID: &str = "pgstop01";
    const PASSWORD: &str = "canary-stop-88ac1e";
    const LONG: &str = "SELECT count(*) FROM customers a, customers b, customers c, customers d, \
                        customers e, customers f, customers g";
    let sandbox = Sandbox::new();
    let mut file = make_tenant(ID, PASSWORD).await;
    file["db_password"] = json!(PASSWORD);
    file["limits"] = json!({ "statement_timeout_ms": 3_600_000 });
    file["quotas"] = json!({ "max_concurrent_connections": 1 });
    sandbox.write_config(&format!("{ID}.json"), &file.to_string());
    sandbox.import();
    let token = sandbox.token(ID);
    let admin = superuser("postgres").await;
    let sessions = async || -> i64 {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'pgstop01_app'";
        admin.query_one(count, &[]).await.unwrap().get(0)
    };
    let all_are_gone = async || {
        let gone = tokio::time::timeout(PATIENCE, async {
            while sessions().await > 0 {
                tokio::task::yield_now().await;
            }
        });
        assert!(gone.await.is_ok(), "the server still has a session");
    };

    let server = serve(&sandbox, 1);
    assert_eq!(ask(&server, &token, ID, "SELECT 1").await.0, 200);
    assert_eq!(sessions().await, 1);
    server.signal("-TERM");
    wait(server).await.ok();
    all_are_gone().await;

    let server = serve(&sandbox, 1);
    let stop = async {
        is_under_way(&server, &token, ID).await;
        server.signal("-TERM");
    };
    let ((status, answer), ()) = tokio::join!(ask(&server, &token, ID, LONG), stop);
    assert_eq!(status, 503, "{answer}");
    wait(server).await.failed(5, &["1 call(s)"]);
    all_are_gone().await;
}

/// `stdio` for a client that speaks line by line.
struct Desktop {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Desktop {
    fn start(sandbox: &Sandbox, drain_timeout_seconds: u32) -> Self {
        let mut command = sandbox.command(&["stdio", "--tenant", "tenant001"]);
        command
            .env("TENANTRY_HTTP__DRAIN_TIMEOUT_SECONDS", drain_timeout_seconds.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut desktop = Self { child, input, output };
        desktop.send(&json!({
            "jsonrpc": "2.0", "id": 0, "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18", "capabilities": {},
                "clientInfo": { "name": "test", "version": "1" },
            },
        }));
        desktop.line();
        desktop.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        desktop
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.input, "{message}").unwrap();
    }

    fn line(&mut self) -> Value {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.output.read(&mut byte).unwrap() > 0 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        serde_json::from_slice(&line).unwrap()
    }

    /// What it still says, and how it ends, with its input open.
    fn end(mut self) -> (String, Option<i32>) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().code())
    }
}

#[test]
fn a_desktop_clients_server_ends_in_the_same_way() {
    let (sandbox, _) = one_tenant(2_000);
    let idle = Desktop::start(&sandbox, 600);
    signal(&idle.child, "-TERM");
    assert_eq!(idle.end(), (String::new(), Some(0)));

    for (drain_timeout, code, exit_code) in [(600, "QUERY_TIMEOUT", 0), (0, "CANCELLED", 5)] {
        let mut busy = Desktop::start(&sandbox, drain_timeout);
        busy.send(&call_of("tenant001", ENDLESS));
        // Answered when what came before it has been read.
        busy.send(&json!({ "jsonrpc": "2.0", "id": 8, "method": "ping" }));
        assert_eq!(busy.line()["id"], 8);
        signal(&busy.child, "-TERM");
        let (rest, status) = busy.end();
        assert_eq!(status, Some(exit_code), "{rest}");
        assert_eq!(rest.lines().count(), 1, "{rest}");
        let answer: Value = serde_json::from_str(&rest).unwrap();
        assert_eq!(answer["id"], 7);
        assert!(rest.contains(code), "{rest}");
        let entries = sandbox.audit(&[]);
        let ended: Vec<_> = entries.iter().filter(|entry| entry["code"] == code).collect();
        let [ended] = &ended[..] else { unreachable!("{entries:?}") };
        assert_eq!(ended["decision"], "failed", "it was not the caller who left");
    }
}

#[tokio::test]
async fn a_killed_service_leaves_a_vault_that_opens() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({}));
    sandbox.import();
    let token = sandbox.token("tenant001");
    for _ in 0..3 {
        let mut server = sandbox.serve();
        let client = connect(&server.endpoint, &token, Era::Modern).await;
        query(&client, "mcp://tenant001/database", "SELECT 1").await;
        server.signal("-KILL");
        server.wait();
    }
    let seqs: Vec<_> =
        sandbox.audit(&[]).iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert_eq!(sandbox.json(&["tenant", "list"])[0]["tenant_id"], "tenant001");
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nobody_up() {
    let (sandbox, token) = one_tenant(1_000);
    // Each call is a line in the log.
    let server = sandbox.serve_with(&[("TENANTRY_LOG__LEVEL", "debug")]);
    let client = connect(&server.endpoint, &token, Era::Modern).await;
    // Nobody reads the pipe, which has room for 64 KiB.
    for _ in 0..100 {
        let calls = (0..20).map(|_| query(&client, "mcp://tenant001/database", "SELECT 1"));
        let answers = tokio::time::timeout(PATIENCE, futures_util::future::join_all(calls));
        for answer in answers.await.expect("who logs waits for nobody") {
            assert_ne!(answer.is_error, Some(true), "{answer:?}");
        }
    }
    // Only what was written before it was full, and then from where it was read again.
    let finished = server.stop().ok();
    assert!(finished.stderr.len() > 64 << 10, "{} bytes", finished.stderr.len());
}

#[tokio::test]
async fn an_operator_who_is_silent_holds_nothing_up_and_one_at_work_is_answered() {
    let (sandbox, _) = one_tenant(1_000);
    let server = sandbox.serve();
    let socket = || UnixStream::connect(sandbox.data_dir().join("admin.sock")).unwrap();
    let (mut half, mut check) = (socket(), socket());
    half.write_all(b"POST /api/v1/fsck HTTP/1.1\r\n").unwrap();
    let body = json!({ "proof": { "passphrase": PASSPHRASE } }).to_string();
    write!(
        check,
        "POST /api/v1/fsck HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    server.signal("-TERM");
    let answer = hear(&mut check);
    // Nothing, if it was not read before the end began; else all of it.
    if let Some((_, body)) = answer.split_once("\r\n\r\n") {
        let verdict = &serde_json::from_str::<Value>(body).unwrap()["verdict"];
        assert!(verdict == "good" || verdict == "unchecked", "{answer}");
    }
    wait(server).await.ok();
    assert_eq!(hear(&mut half), "");
    sandbox.run(&["fsck"]).ok();
}
