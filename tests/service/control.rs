//! Operators at work while the service runs.

use std::io::{BufRead, BufReader, Read, Write};
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
fn talk(sandbox: &Sandbox, bytes: &[u8]) -> Vec<Value> {
    let mut stream = UnixStream::connect(socket(sandbox)).unwrap();
    // A service that refuses early does not read to the end.
    drop(stream.write_all(bytes));
    drop(stream.shutdown(std::net::Shutdown::Write));
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.map(|line| serde_json::from_str(&line).unwrap()).collect()
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
    let verbs = [
        &["--json", "tenant", "list"][..],
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
    assert_eq!(codes, [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]);
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
    let unknown = format!("{}A", &tenants.tokens[0][..tenants.tokens[0].len() - 1]);
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
    let request = |command: Value, secrets: Value| {
        let request =
            json!({ "version": 1, "operator": "test", "command": command, "secrets": secrets });
        format!("{request}\n").into_bytes()
    };
    let with_version = |version: u32| {
        let text = String::from_utf8(request(json!("token_list"), json!([]))).unwrap();
        text.replace("\"version\":1", &format!("\"version\":{version}")).into_bytes()
    };
    let passphrase = json!({ "unseal": { "proof": "passphrase" } });
    let mut not_text = request(passphrase.clone(), json!([2]));
    not_text.extend([0xff, 0xfe]);
    let malformed = [
        b"\n".to_vec(),
        b"nonsense\n".to_vec(),
        b"{}\n".to_vec(),
        b"no line feed".to_vec(),
        b"\0\xff\n".to_vec(),
        vec![b'['; 200_000],
        with_version(2),
        request(json!("no_such_command"), json!([])),
        request(json!({ "tenant_list": {}, "seal": {} }), json!([])),
        request(json!({ "tenant_show": { "tenant": "tenant001", "more": 1 } }), json!([])),
        request(json!("token_list"), json!([0])),
        request(passphrase.clone(), json!([])),
        request(passphrase.clone(), json!([-1])),
        request(passphrase.clone(), json!([u64::MAX])),
        request(passphrase.clone(), json!([1_000_000])),
        request(passphrase, json!([20])),
        not_text,
        request(json!({ "tenant_show": { "tenant": "../../etc" } }), json!([])),
        request(json!({ "token_revoke": { "token_id": "\u{0}\u{1b}[2J" } }), json!([])),
    ];
    for bytes in malformed {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
        let answers = talk(&tenants.sandbox, &bytes);
        let [answer] = answers.as_slice() else { panic!("{shown}: {answers:?}") };
        let error = &answer["error"];
        assert_eq!(error["exit_code"], 1, "{shown}: {answer}");
        assert!(!error["message"].as_str().unwrap().is_empty(), "{shown}");
    }
    assert!(talk(&tenants.sandbox, b"").is_empty());
    let answers = talk(&tenants.sandbox, &request(json!("tenant_list"), json!([])));
    assert_eq!(answers[0]["ok"][1]["tenant_id"], "tenant002");
    server.stop().ok();
}

#[tokio::test]
async fn a_command_is_finished_when_its_client_has_gone() {
    let tenants = TwoTenants::new();
    let _server = tenants.sandbox.serve();
    let command =
        json!({ "token_create": { "tenant": "tenant001", "scopes": [], "expires_at": null } });
    let request = json!({ "version": 1, "operator": "test", "command": command, "secrets": [] });
    let mut stream = UnixStream::connect(socket(&tenants.sandbox)).unwrap();
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    drop(stream);
    while tenants.sandbox.json(&["token", "list"]).as_array().unwrap().len() < 3 {}
}

#[tokio::test]
async fn many_clients_at_once_and_one_that_says_nothing_are_served() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let silent = UnixStream::connect(socket(&tenants.sandbox)).unwrap();
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

#[tokio::test]
async fn an_import_still_needs_the_directory_for_itself() {
    let tenants = TwoTenants::new();
    let _server = tenants.sandbox.serve();
    let configs = tenants.sandbox.path("configs");
    let arguments = ["tenant", "import", configs.to_str().unwrap()];
    tenants.sandbox.run(&arguments).failed(75, &["in use", "stop"]);
}

/// Needs root, to become somebody else.
#[tokio::test]
async fn another_user_is_refused_even_where_the_files_let_them_in() {
    const NOBODY: u32 = 65_534;
    const CLIENT: &str = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) \
                          or die; print $s '{}', chr 10; print <$s>;";
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
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["error"]["error_code"].as_str().unwrap().to_owned()
    };
    assert_eq!(talk_as(NOBODY), "FORBIDDEN");
    assert_eq!(talk_as(0), "INVALID_ARGUMENT");
    let entries = tenants.sandbox.audit(&["--code", "FORBIDDEN"]);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["actor"]["name"], format!("?({NOBODY})"));
    server.stop().ok();
}
