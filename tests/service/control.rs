//! Operators at work while the service runs.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::TwoTenants;
use crate::support::{Sandbox, Server};

/// What the service answers to a list of tools: status, and the error code if it refused.
pub(crate) async fn list_tools(server: &Server, token: &str) -> (StatusCode, Option<String>) {
    let response = reqwest::Client::new()
        .post(&server.endpoint)
        .header("Accept", "application/json, text/event-stream")
        .bearer_auth(token)
        .json(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }))
        .send()
        .await
        .unwrap();
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    (status, body["error"]["data"]["error_code"].as_str().map(str::to_owned))
}

async fn get(server: &Server, path: &str) -> (StatusCode, String) {
    let base = server.endpoint.strip_suffix("/mcp").unwrap();
    let response = reqwest::get(format!("{base}{path}")).await.unwrap();
    (response.status(), response.text().await.unwrap())
}

pub(crate) const SERVED: (StatusCode, Option<String>) = (StatusCode::OK, None);

fn refused(status: StatusCode, code: &str) -> (StatusCode, Option<String>) {
    (status, Some(code.to_owned()))
}

fn socket(sandbox: &Sandbox) -> PathBuf {
    sandbox.data_dir().join("admin.sock")
}

/// Sends `bytes`, ends the sending side, and reads the answer to its end.
pub(crate) fn talk(sandbox: &Sandbox, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket(sandbox)).unwrap();
    // A service that refuses early does not read to the end.
    drop(stream.write_all(bytes));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8(answer).unwrap()
}

/// A request as a client of HTTP writes it.
pub(crate) fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The status and the JSON of an answer.
pub(crate) fn parsed(answer: &str) -> (u16, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| unreachable!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| unreachable!("{answer:?}")))
}

pub(crate) fn ask(sandbox: &Sandbox, method: &str, path: &str, body: &str) -> (u16, Value) {
    parsed(&talk(sandbox, &request(method, path, body)))
}

#[tokio::test]
async fn a_token_made_while_the_service_runs_works_at_once_until_it_is_revoked() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let made = tenants.sandbox.json(&["token", "create", "--tenant", "tenant001"]);
    let token = made["token"].as_str().unwrap();
    assert_eq!(list_tools(&server, token).await, SERVED);
    assert_eq!(tenants.sandbox.json(&["token", "list"]).as_array().unwrap().len(), 3);
    tenants.sandbox.run(&["token", "revoke", made["token_id"].as_str().unwrap()]).ok();
    let unknown = refused(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED");
    assert_eq!(list_tools(&server, token).await, unknown);
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
}

#[tokio::test]
async fn a_verb_answers_and_fails_alike_with_a_service_and_without() {
    let tenants = TwoTenants::new();
    let configs = tenants.sandbox.path("configs");
    let configs = configs.to_str().unwrap();
    let verbs = [
        &["--json", "tenant", "list"][..],
        &["slot", "list"],
        &["backup", "list"],
        &["operator", "list"],
        &["tenant", "import", configs],
        &["--json", "tenant", "import", "--dry-run", configs],
        &["tenant", "list"],
        &["--json", "tenant", "show", "tenant001"],
        &["tenant", "show", "tenant001"],
        &["token", "list"],
        &["quota", "show", "tenant001"],
        &["quota", "show", "nobody999"],
        &["quota", "reset", "nobody999"],
        &["quota", "set", "nobody999", "max_queries_per_day=1"],
        &["tenant", "show", "nobody999"],
        &["tenant", "disable", "t-1"],
        &["token", "revoke", "tok_none"],
        &["token", "create", "--tenant", "nobody999"],
    ];
    let run = || {
        let run = |verb: &&[&str]| {
            let finished = tenants.sandbox.run(verb);
            (finished.status.code(), finished.stdout, finished.stderr)
        };
        verbs.iter().map(run).collect::<Vec<_>>()
    };
    let without = run();
    let server = tenants.sandbox.serve();
    assert_eq!(run(), without);
    server.stop().ok();
    let codes: Vec<_> = without.iter().map(|(code, ..)| code.unwrap()).collect();
    assert_eq!(codes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]);
}

#[tokio::test]
async fn a_tenant_is_switched_off_and_on_while_it_is_served() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
    tenants.sandbox.run(&["tenant", "disable", "tenant001"]).ok();
    let disabled = refused(StatusCode::FORBIDDEN, "TENANT_DISABLED");
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, disabled);
    assert_eq!(list_tools(&server, &tenants.tokens[1]).await, SERVED);
    tenants.sandbox.run(&["tenant", "enable", "tenant001"]).ok();
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
    let entries = tenants.sandbox.audit(&[]);
    let of = |action: &str| {
        let of_action = entries.iter().filter(|entry| entry["action"] == action);
        of_action.map(|entry| entry["decision"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(of("tenant.disable"), ["begun", "allowed"]);
    let entry = entries.iter().find(|entry| entry["action"] == "tenant.disable").unwrap();
    let uid = tenants.sandbox.data_dir().metadata().unwrap().uid();
    assert!(entry["actor"]["name"].as_str().unwrap().ends_with(&format!("({uid})")), "{entry}");
}

#[tokio::test]
async fn a_sealed_service_refuses_everybody_alike_until_it_is_unsealed() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
    assert_eq!(get(&server, "/readyz").await, (StatusCode::OK, "ok\n".to_owned()));

    tenants.sandbox.run(&["seal"]).ok();
    let sealed = refused(StatusCode::SERVICE_UNAVAILABLE, "VAULT_SEALED");
    let unknown = crate::http::other_than(&tenants.tokens[0]);
    for token in [&tenants.tokens[0], &tenants.tokens[1], &unknown, "nonsense"] {
        assert_eq!(list_tools(&server, token).await, sealed);
    }
    let not_ready = (StatusCode::SERVICE_UNAVAILABLE, "sealed\n".to_owned());
    assert_eq!(get(&server, "/readyz").await, not_ready);
    assert_eq!(get(&server, "/healthz").await.0, StatusCode::OK);
    let entries = tenants.sandbox.audit(&["--code", "VAULT_SEALED"]);
    assert_eq!(entries.len(), 4);
    let shows_nothing =
        |entry: &&Value| entry["actor"]["kind"] == "anonymous" && entry["tenant"].is_null();
    assert!(entries.iter().all(|entry| shows_nothing(&entry)), "{entries:?}");
    tenants.sandbox.run(&["tenant", "list"]).failed(3, &["sealed"]);
    assert_eq!(tenants.sandbox.json(&["status"])["sealed"], true);

    tenants.sandbox.run(&["unseal"]).ok();
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
    let revoked = refused(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED");
    assert_eq!(list_tools(&server, &unknown).await, revoked);
    assert_eq!(get(&server, "/readyz").await.0, StatusCode::OK);
    assert_eq!(tenants.sandbox.json(&["status"])["sealed"], false);
    tenants.sandbox.run(&["unseal"]).ok();
}

#[tokio::test]
async fn a_service_starts_sealed_and_a_wrong_passphrase_leaves_it_so() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve_sealed();
    let sealed = refused(StatusCode::SERVICE_UNAVAILABLE, "VAULT_SEALED");
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, sealed);

    let wrong = tenants.sandbox.path("wrong");
    std::fs::write(&wrong, "canary-wrong-passphrase").unwrap();
    let mut unseal = tenants.sandbox.keyless_command(&["unseal", "--passphrase-file"]);
    let failed = crate::support::finish(unseal.arg(&wrong)).failed(3, &["wrong passphrase"]);
    assert!(!failed.stderr.contains("canary"), "{}", failed.stderr);
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, sealed);
    let attempts = tenants.sandbox.audit(&["--code", "VAULT_SEALED"]);
    assert_eq!(attempts.iter().filter(|entry| entry["action"] == "vault.unseal").count(), 1);

    tenants.sandbox.run(&["unseal"]).ok();
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
}

#[tokio::test]
async fn without_a_service_there_is_nothing_to_seal_or_unseal() {
    let tenants = TwoTenants::new();
    tenants.sandbox.run(&["seal"]).failed(1, &["no service runs"]);
    tenants.sandbox.run(&["unseal"]).failed(1, &["no service runs"]);
}

#[tokio::test]
async fn status_and_slots_need_no_key_and_tell_no_secret() {
    let tenants = TwoTenants::new();
    let status = |is_service: bool, sealed: bool| {
        let mut command = tenants.sandbox.keyless_command(&["--json", "status"]);
        let text = crate::support::finish(&mut command).ok().stdout;
        let status: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&status["service"], &status["sealed"]), (&json!(is_service), &json!(sealed)));
        assert_eq!(status["pool"].is_object(), is_service);
        status
    };
    assert_eq!(status(false, true)["tenants"], Value::Null);
    let server = tenants.sandbox.serve();
    let running = status(true, false);
    assert_eq!(running["tenants"], json!({ "total": 2, "enabled": 2, "sealed": 0, "damaged": 0 }));
    assert_eq!((&running["tokens"], &running["reseal"]["remaining"]), (&json!(2), &json!(0)));
    assert_eq!(
        (&running["store"]["read_only"], &running["store"]["checked"]),
        (&Value::Null, &json!(true))
    );
    let mut command = tenants.sandbox.keyless_command(&["status"]);
    let text = crate::support::finish(&mut command).ok().stdout;
    assert!(text.contains("tenants.total"), "{text}");
    crate::support::finish(&mut tenants.sandbox.keyless_command(&["slot", "list"])).ok();
    server.stop().ok();
}

#[tokio::test]
async fn a_malformed_request_is_answered_and_harms_nobody() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let with = |text: &[u8], from: &str, to: &str| {
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.contains(from));
        text.replace(from, to).into_bytes()
    };
    let seal = request("POST", "/tenants/tenant001:enable", "{}");
    let passphrase = |text: &str| format!("{{\"proof\":{{\"passphrase\":{text}}}}}");
    let unseal = |body: &str| request("POST", "/unseal", body);
    let mut not_text = unseal(&passphrase("\"ab\""));
    let at = not_text.len() - 4;
    not_text[at] = 0xff;
    let malformed: Vec<(u16, Vec<u8>)> = vec![
        (400, b"nonsense\r\n\r\n".to_vec()),
        (400, b"GET /api/v1/status HTTP/9.9\r\n\r\n".to_vec()),
        (431, [b"GET / HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(200), b"\r\n".to_vec()].concat()),
        (404, request("GET", "/nothing", "")),
        (404, request("GET", "/../../etc/passwd", "")),
        (404, request("GET", "/tenants/", "")),
        (405, request("PUT", "/tenants", "{}")),
        (405, request("get", "/tenants", "")),
        (400, request("GET", "/tenants?more=1", "")),
        (400, request("GET", "/tenants?limit=0", "")),
        (400, request("GET", "/tenants?cursor=x", "")),
        (400, request("GET", "/tenants", "{\"limit\":1}")),
        (400, request("GET", "/tenants/..%2f..%2fetc", "")),
        (404, request("GET", "/tenants/nobody999", "")),
        (400, request("GET", "/tenants/%ff", "")),
        (400, with(&seal, "application/json", "text/plain")),
        (400, with(&seal, "Content-Type: application/json\r\n", "")),
        (
            400,
            with(
                &seal,
                "Content-Type: application/json",
                "Content-Type: application/json\r\nContent-Type: application/json",
            ),
        ),
        (400, request("POST", "/tenants/tenant001:enable", "[]")),
        (400, request("POST", "/tenants/tenant001:enable", "{\"more\":1}")),
        (400, request("POST", "/tenants/tenant001:enable", &"[".repeat(60_000))),
        (400, request("POST", "/tenants/tenant001:enable", &" ".repeat(70_000))),
        (400, with(&seal, "Content-Length: 2", "Content-Length: x")),
        (400, unseal("")),
        (400, unseal(&passphrase("1"))),
        (400, unseal(&passphrase(&format!("\"{}\"", "x".repeat(5_000))))),
        (400, unseal("{\"proof\":{\"passphrase\":\"x\"},\"proof\":{\"passphrase\":\"x\"}}")),
        (400, not_text),
        (404, request("DELETE", "/tokens/%00%1b[2J", "")),
        (404, request("DELETE", "/operators/nobody", "")),
    ];
    for (status, bytes) in malformed {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(160)]).into_owned();
        let answer = talk(&tenants.sandbox, &bytes);
        let told: u16 =
            answer.split(' ').nth(1).unwrap_or_else(|| unreachable!("{shown}")).parse().unwrap();
        assert_eq!(told, status, "{shown}: {answer}");
        // What is no HTTP at all is answered by the library, in no words.
        if let Some((_, body)) = answer.split_once("\r\n\r\n").filter(|(_, body)| !body.is_empty())
        {
            let answer: Value = serde_json::from_str(body).unwrap();
            assert!(!answer["error"]["message"].as_str().unwrap().is_empty(), "{shown}");
            assert_eq!(answer["error"]["request_id"].as_str().unwrap().len(), 16, "{shown}");
        }
    }
    assert!(talk(&tenants.sandbox, &request("POST", "/seal", "{}")[..30]).is_empty());
    let (status, tenants_there) = ask(&tenants.sandbox, "GET", "/tenants", "");
    assert_eq!((status, tenants_there["tenants"].as_array().map(Vec::len)), (200, Some(2)));
    assert_eq!(ask(&tenants.sandbox, "POST", "/tenants/tenant001:enable", "{}").0, 200);
    assert_eq!(tenants.sandbox.json(&["status"])["sealed"], false);
    server.stop().ok();
}

#[tokio::test]
async fn a_command_is_finished_when_its_client_has_gone() {
    let tenants = TwoTenants::new();
    let _server = tenants.sandbox.serve();
    let mut stream = UnixStream::connect(socket(&tenants.sandbox)).unwrap();
    stream.write_all(&request("POST", "/tokens", "{\"tenant\":\"tenant001\"}")).unwrap();
    let mut first = [0];
    stream.read_exact(&mut first).unwrap();
    drop(stream);
    while tenants.sandbox.json(&["token", "list"]).as_array().unwrap().len() < 3 {}
}

#[tokio::test]
async fn many_clients_at_once_and_one_that_says_nothing_are_served() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let mut silent = UnixStream::connect(socket(&tenants.sandbox)).unwrap();
    silent.write_all(b"GET /api/v1/status HTTP/1.1\r\nHo").unwrap();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let mut command =
                tenants.sandbox.command(&["--json", "token", "create", "--tenant", "tenant002"]);
            command.stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success());
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(list_tools(&server, made["token"].as_str().unwrap()).await, SERVED);
    }
    // Also the end does not wait for who says nothing.
    server.stop().ok();
    drop(silent);
}

#[tokio::test]
async fn the_socket_is_its_owners_and_goes_with_the_service() {
    let tenants = TwoTenants::new();
    let mut server = tenants.sandbox.serve();
    let mode = || socket(&tenants.sandbox).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    server.signal("-KILL");
    server.wait();
    assert!(socket(&tenants.sandbox).exists());
    // What a killed service left is no service.
    tenants.sandbox.run(&["tenant", "list"]).ok();
    let server = tenants.sandbox.serve();
    assert_eq!(mode(), 0o600);
    tenants.sandbox.run(&["tenant", "list"]).ok();
    server.stop().ok();
    assert!(!socket(&tenants.sandbox).exists());
}

#[tokio::test]
async fn a_data_directory_with_a_long_path_has_a_socket_too() {
    let tenants = TwoTenants::new();
    let parent = tenants.sandbox.path(&"long".repeat(40));
    std::fs::create_dir(&parent).unwrap();
    let directory = parent.join("data");
    std::fs::rename(tenants.sandbox.data_dir(), &directory).unwrap();
    let mut keyless = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    keyless.arg("--data-dir").arg(&directory).arg("--passphrase-file");
    keyless.arg(tenants.sandbox.path("passphrase")).args(["serve", "--listen", "127.0.0.1:0"]);
    let server = Server::start(&mut keyless);
    let mut status = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    status.arg("--data-dir").arg(&directory).args(["--json", "status"]);
    let text = crate::support::finish(&mut status).ok().stdout;
    assert!(text.contains("\"service\":true"), "{text}");
    server.stop().ok();
}

/// Needs root, to become somebody else.
#[tokio::test]
async fn another_user_is_refused_even_where_the_files_let_them_in() {
    const NOBODY: u32 = 65_534;
    const CLIENT: &str = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) \
                          or die; print $s \"GET /api/v1/nothing HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n\"; \
                          print <$s>;";
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    if tenants.sandbox.data_dir().metadata().unwrap().uid() != 0 {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let opened = |path: PathBuf, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    opened(tenants.sandbox.path(""), 0o755);
    opened(tenants.sandbox.data_dir(), 0o755);
    opened(socket(&tenants.sandbox), 0o666);
    let talk_as = |user: u32| {
        let mut client = Command::new("perl")
            .args(["-e", CLIENT])
            .arg(socket(&tenants.sandbox))
            .current_dir("/")
            .uid(user)
            .gid(user)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        client.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        client.wait().unwrap();
        let (_, answer) = parsed(&text);
        answer["error"]["error_code"].as_str().unwrap().to_owned()
    };
    assert_eq!(talk_as(NOBODY), "FORBIDDEN");
    assert_eq!(talk_as(0), "RESOURCE_NOT_FOUND");
    let entries = tenants.sandbox.audit(&["--code", "FORBIDDEN"]);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["actor"]["name"], format!("?({NOBODY})"));
    server.stop().ok();
}
