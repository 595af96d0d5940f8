//! The admin API as other programs use it, and what the command line does through it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::TwoTenants;
use crate::control::{SERVED, ask, list_tools, parsed, request, talk};
use crate::support::{Sandbox, Server};

/// A service that listens for operators at an address as well.
struct Listening {
    tenants: TwoTenants,
    server: Server,
    address: SocketAddr,
}

impl Listening {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(variables: &[(&str, &str)]) -> Self {
        let tenants = TwoTenants::new();
        // Free a moment ago, and nobody else's on this machine's loopback in most of all cases.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let variable = address.to_string();
        let listen = [("TENANTRY_ADMIN__LISTEN", variable.as_str())];
        let server = tenants.sandbox.serve_with(&[&listen, variables].concat());
        Self { tenants, server, address }
    }

    fn send(&self, bytes: &[u8]) -> (u16, Value) {
        parsed(&self.answer(bytes))
    }

    /// The answer, with its head.
    fn answer(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer));
        answer
    }

    fn ask(&self, token: Option<&str>, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.send(&self.request(token, method, path, body))
    }

    fn request(&self, token: Option<&str>, method: &str, path: &str, body: &str) -> Vec<u8> {
        let request = String::from_utf8(request(method, path, body)).unwrap();
        let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let host = format!("Host: {}\r\n{}", self.address, bearer.unwrap_or_default());
        request.replace("Host: x\r\n", &host).into_bytes()
    }

    fn operator(&self, role: &str) -> (String, String) {
        let made = self.tenants.sandbox.json(&["operator", "create", "--role", role]);
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        assert_eq!(made["role"], role);
        (text("operator_id"), text("token"))
    }
}

/// Every route with its role, as the document has it: method, path with something in it, role.
fn routes() -> Vec<(String, String, String)> {
    let table = tenantry::api::table();
    let rows = table.lines().skip(2).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (method, path) = cells[0].trim_matches('`').split_once(' ').unwrap();
        let path = path
            .replace("{tenant}", "tenant001")
            .replace("{id}", "1")
            .replace("{token_id}", "tok_1")
            .replace("{operator_id}", "op_1")
            .replace("{backup_id}", "00");
        (method.to_owned(), path, cells[2].to_owned())
    });
    rows.collect()
}

fn code(answer: &Value) -> &str {
    answer["error"]["error_code"].as_str().unwrap_or("none")
}

#[tokio::test]
async fn over_tcp_nobody_gets_in_without_an_operators_token() {
    let listening = Listening::new();
    let client = &listening.tenants.tokens[0];
    let (operator_id, token) = listening.operator("operator");
    assert!(token.starts_with("tno_"), "{token}");
    let cut = &token[..token.len() - 1];
    let as_client = token.replacen("tno_", "tnt_", 1);
    for (method, path, _) in routes().into_iter().filter(|(.., role)| role != "none") {
        assert_eq!(listening.ask(None, &method, &path, "{}").0, 401, "{method} {path}");
    }
    for token in [client, cut, &as_client, ""] {
        let (status, answer) = listening.ask(Some(token), "GET", "/status", "");
        assert_eq!((status, code(&answer)), (401, "UNAUTHENTICATED"), "{answer}");
    }
    let doubled = String::from_utf8(listening.request(Some(&token), "GET", "/status", "")).unwrap();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let doubled = doubled.replace(&bearer, &bearer.repeat(2));
    assert_eq!(listening.send(doubled.as_bytes()).0, 401);
    assert_eq!(listening.ask(None, "GET", "/health", ""), (200, json!({ "sealed": false })));

    let (status, answer) = listening.ask(Some(&token), "GET", "/status", "");
    assert_eq!((status, &answer["service"]), (200, &json!(true)));
    assert_eq!(listening.ask(Some(&token), "POST", "/tenants/tenant001:disable", "{}").0, 200);
    let sandbox = &listening.tenants.sandbox;
    let entries = sandbox.audit(&[]);
    let disabled = entries.iter().find(|it| it["action"] == "tenant.disable").unwrap();
    assert_eq!(disabled["actor"]["name"], operator_id);
    assert_eq!(disabled["peer"], "127.0.0.1");
    let refused = entries.iter().filter(|it| it["action"] == "admin.connect");
    assert!(refused.clone().count() > 30);
    assert!(refused.clone().all(|it| it["actor"]["kind"] == "anonymous"));

    sandbox.run(&["operator", "revoke", &operator_id]).ok();
    assert_eq!(listening.ask(Some(&token), "GET", "/status", "").0, 401);
    // An operator's token opens no tenant either.
    assert_eq!(list_tools(&listening.server, &token).await.0, 401);
    listening.server.stop().ok();
}

#[tokio::test]
async fn who_fails_at_the_address_often_is_told_when_to_come_back_and_operators_are_let_in() {
    let listening = Listening::with(&[("TENANTRY_AUTH__FAILURES_PER_MINUTE", "3")]);
    let (_, token) = listening.operator("operator");
    let wrong = listening.request(Some("tno_guess"), "GET", "/status", "");
    for _ in 0..3 {
        assert_eq!(listening.send(&wrong).0, 401);
    }
    let answer = listening.answer(&wrong);
    let wait = answer.split("retry-after: ").nth(1).unwrap().split("\r\n").next().unwrap();
    assert!((1..=20).contains(&wait.parse::<u64>().unwrap()), "{answer}");
    let (status, answer) = parsed(&answer);
    assert_eq!((status, code(&answer)), (429, "TOO_MANY_FAILURES"), "{answer}");
    assert_eq!(listening.ask(Some(&token), "GET", "/status", "").0, 200);
    // Clients at the endpoint have not failed.
    assert_eq!(list_tools(&listening.server, "nonsense").await.0, 401);
    listening.server.stop().ok();
}

#[tokio::test]
async fn an_auditor_reads_and_does_nothing_else() {
    let listening = Listening::new();
    let (auditor_id, token) = listening.operator("auditor");
    let (_, operator) = listening.operator("operator");
    let mut refused = 0;
    for (method, path, role) in routes() {
        let (status, answer) = listening.ask(Some(&token), &method, &path, "");
        if role == "auditor" || role == "none" {
            assert_eq!(status, 200, "{method} {path}: {answer}");
        } else {
            assert_eq!((status, code(&answer)), (403, "FORBIDDEN"), "{method} {path}: {answer}");
            refused += 1;
        }
        if role == "operator, at the socket" {
            let (status, answer) = listening.ask(Some(&operator), &method, &path, "{}");
            assert_eq!((status, code(&answer)), (403, "FORBIDDEN"), "{method} {path}: {answer}");
        }
    }
    let sandbox = &listening.tenants.sandbox;
    let entries = sandbox.audit(&["--code", "FORBIDDEN"]);
    let his = entries.iter().filter(|it| it["actor"]["name"] == *auditor_id);
    assert_eq!(his.count(), refused);
    assert!(refused > 20);
    // Nothing was done: no attempt of his was begun.
    let begun = sandbox.audit(&[]).into_iter().filter(|it| it["decision"] == "begun");
    assert_eq!(begun.filter(|it| it["actor"]["name"] == *auditor_id).count(), 0);
    let reads = sandbox.audit(&[]);
    let read = reads.iter().find(|it| it["action"] == "tenant.show").unwrap();
    assert_eq!(
        (&read["actor"]["name"], &read["decision"]),
        (&json!(auditor_id), &json!("allowed"))
    );
    // A program of the host is run for nobody who comes over the network.
    let body = json!({ "proof": { "command": { "words": ["/bin/true"] } } }).to_string();
    let (status, answer) = listening.ask(Some(&operator), "POST", "/fsck", &body);
    assert_eq!((status, code(&answer)), (400, "INVALID_ARGUMENT"), "{answer}");
    listening.server.stop().ok();
}

#[tokio::test]
async fn a_web_page_in_an_operators_browser_reaches_nothing() {
    let listening = Listening::new();
    let (_, token) = listening.operator("operator");
    let good = String::from_utf8(listening.request(
        Some(&token),
        "POST",
        "/tenants/tenant001:enable",
        "{}",
    ))
    .unwrap();
    assert_eq!(listening.send(good.as_bytes()).0, 200);
    let host = format!("Host: {}", listening.address);
    for (host, status) in [
        ("Host: localhost".to_owned(), 200),
        ("Host: rebound.example.com".to_owned(), 403),
        (format!("{host}\r\nHost: localhost"), 400),
        (format!("{host}\r\nOrigin: http://localhost"), 403),
        (format!("{host}\r\nOrigin: null"), 403),
    ] {
        let sent = good.replacen(&format!("Host: {}", listening.address), &host, 1);
        let (told, answer) = listening_answer(&listening, &sent);
        assert!(told == status || (status == 400 && told == 403), "{host}: {told} {answer}");
    }
    let form = good.replace("application/json", "application/x-www-form-urlencoded");
    assert_eq!(listening.send(form.as_bytes()).0, 400);
    listening.server.stop().ok();
}

/// The status and the body, also where the library answers without one.
fn listening_answer(listening: &Listening, sent: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(listening.address).unwrap();
    stream.write_all(sent.as_bytes()).unwrap();
    let mut answer = String::new();
    drop(stream.read_to_string(&mut answer));
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

#[tokio::test]
async fn while_it_is_sealed_little_is_answered() {
    let listening = Listening::new();
    let (_, token) = listening.operator("operator");
    let sandbox = &listening.tenants.sandbox;
    sandbox.run(&["seal"]).ok();
    for (method, path, role) in routes() {
        let answered = ["/health", "/status", "/slots", "/audit", "/audit:verify"];
        if path == "/seal" || path == "/doctor" || role == "none" {
            continue;
        }
        let (status, answer) = ask(sandbox, &method, &path, "{}");
        let is_answered = answered.contains(&path.as_str()) && method == "GET";
        if path == "/settings:reload" {
            assert_eq!((status, &answer["applied"]), (200, &json!([])), "{answer}");
        } else if is_answered {
            let (status, answer) = ask(sandbox, &method, &path, "");
            assert_eq!(status, 200, "{method} {path}: {answer}");
        } else if path == "/unseal" || path == "/backups:verify" {
            assert_eq!((status, code(&answer)), (400, "INVALID_ARGUMENT"), "{method} {path}");
        } else {
            assert_eq!((status, code(&answer)), (503, "VAULT_SEALED"), "{method} {path}");
        }
    }
    // Whose a token is nobody knows then.
    assert_eq!(listening.ask(Some(&token), "GET", "/status", "").0, 503);
    assert_eq!(listening.ask(None, "GET", "/health", ""), (200, json!({ "sealed": true })));
    sandbox.run(&["unseal"]).ok();
    assert_eq!(listening.ask(Some(&token), "GET", "/status", "").0, 200);
    listening.server.stop().ok();
}

#[tokio::test]
async fn a_listing_comes_in_pages_and_the_command_line_shows_all_of_it() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    for (path, listing) in [("/tenants", "tenants"), ("/tokens", "tokens"), ("/audit", "audit")] {
        let (mut cursor, mut pages, mut items) = (String::new(), 0, Vec::new());
        // Reading the log is recorded in it.
        while pages < 4 {
            let query = format!("{path}?limit=1{cursor}");
            let (status, answer) = ask(&tenants.sandbox, "GET", &query, "");
            assert_eq!(status, 200, "{answer}");
            pages += 1;
            items.extend(answer[listing].as_array().unwrap().clone());
            match answer["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        if listing == "audit" {
            let numbers: Vec<u64> = items.iter().map(|it| it["seq"].as_u64().unwrap()).collect();
            assert_eq!(numbers, [1, 2, 3, 4]);
        } else {
            assert_eq!((pages, items.len()), (2, 2));
            let verb = if listing == "tenants" { "tenant" } else { "token" };
            let mut listed = tenants.sandbox.json(&[verb, "list"]);
            let listed = listed.as_array_mut().unwrap();
            for listed in [&mut items, listed] {
                listed.sort_by_key(ToString::to_string);
            }
            assert_eq!(&items, listed);
        }
    }
    let (_, first) = ask(&tenants.sandbox, "GET", "/tenants?limit=1", "");
    let cursor = first["next_cursor"].as_str().unwrap();
    let (status, answer) = ask(&tenants.sandbox, "GET", &format!("/tokens?cursor={cursor}"), "");
    assert_eq!((status, code(&answer)), (400, "INVALID_ARGUMENT"));
    let (_, verified) = ask(&tenants.sandbox, "GET", "/audit:verify", "");
    assert_eq!(verified["good"], true, "{verified}");
    server.stop().ok();
}

#[tokio::test]
async fn a_thousand_tenants_are_imported_while_calls_are_served() {
    const COUNT: usize = 1_000;
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let configs = tenants.sandbox.path("many");
    std::fs::create_dir(&configs).unwrap();
    for number in 0..COUNT {
        let id = format!("many{number:04}");
        let file = json!({
            "tenant_id": id, "db_engine": "sqlite", "db_path": "tenant001.db",
            "api_keys": { "openai": "${MANY_KEY}" },
        });
        let text = serde_json::to_string_pretty(&file).unwrap();
        std::fs::write(configs.join(format!("{id}.json")), text).unwrap();
    }
    let (is_done, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let calls = async {
        while !is_done.load(Ordering::Acquire) {
            assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
            served.fetch_add(1, Ordering::AcqRel);
        }
    };
    let import = async {
        let path = configs.to_str().unwrap();
        let mut dry = tenants.sandbox.keyless_command(&["tenant", "import", "--dry-run", path]);
        let dry = crate::support::finish(dry.env("MANY_KEY", "canary-many-1"));
        assert!(dry.ok().stdout.contains("1000 added (dry run"));
        assert_eq!(tenants.sandbox.json(&["tenant", "list"]).as_array().unwrap().len(), 2);
        let mut command = tenants.sandbox.keyless_command(&["tenant", "import", path]);
        command.env("MANY_KEY", "canary-many-1").stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let finished = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await;
        let finished = finished.unwrap();
        is_done.store(true, Ordering::Release);
        let text = String::from_utf8(finished.stdout).unwrap();
        let errors = String::from_utf8(finished.stderr).unwrap();
        assert!(finished.status.success() && text.contains("1000 added"), "{errors}");
    };
    tokio::join!(calls, import);
    assert!(served.load(Ordering::Acquire) > 0);
    let listed = tenants.sandbox.json(&["tenant", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), COUNT + 2);
    let shown = tenants.sandbox.json(&["tenant", "show", "many0777"]);
    assert!(
        shown["credentials"]["api_keys.openai"].is_object() || shown.to_string().contains("openai"),
        "{shown}"
    );
    // At once: a token of one of them works now.
    let token = tenants.sandbox.token("many0999");
    assert_eq!(list_tools(&server, &token).await, SERVED);
    // And nothing has changed when they come again.
    let path = configs.to_str().unwrap();
    let mut again = tenants.sandbox.keyless_command(&["tenant", "import", path]);
    let again = crate::support::finish(again.env("MANY_KEY", "canary-many-1")).ok();
    assert!(again.stdout.contains("1000 unchanged"), "{}", again.stderr);
    // One entry of the log has them all.
    let imports = tenants.sandbox.audit(&[]);
    let rows = imports.iter().filter(|it| it["action"] == "tenant.import" && it["rows"] == COUNT);
    assert_eq!(rows.count(), 1);
    server.stop().ok();
    assert_eq!(tenants.sandbox.json(&["tenant", "list"]).as_array().unwrap().len(), COUNT + 2);
}

fn import_request(query: &str, lines: &str) -> Vec<u8> {
    let request = request("POST", &format!("/tenants:import{query}"), lines);
    let request = String::from_utf8(request).unwrap();
    request.replace("application/json", "application/x-ndjson").into_bytes()
}

#[tokio::test]
async fn an_import_is_all_or_none_and_says_which_line_is_wrong() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let line = |id: &str| {
        format!(
            "{{\"tenant\":{{\"tenant_id\":\"{id}\",\"db_engine\":\"sqlite\",\"db_path\":\"tenant001.db\"}}}}\n"
        )
    };
    let count = || tenants.sandbox.json(&["tenant", "list"]).as_array().unwrap().len();
    let (good, other) = (line("fresh001"), line("fresh002"));
    let unset = good.replace("tenant001.db", "${HOME}.db");
    let broken = good.replace("db_path", "db_pth");
    for (lines, part) in [
        (String::new(), "no tenants"),
        ("\n\n".to_owned(), "no tenants"),
        (format!("{good}nonsense\n"), "line 2"),
        (format!("{good}{broken}"), "line 2: "),
        (format!("{good}{other}{good}"), "also in line 1"),
        // Neither the service's environment nor its files are anybody's.
        (format!("{other}{unset}"), "variable HOME is not set"),
        (format!("{good}{}", line("x")), "line 2"),
        (format!("{good}{}", line("FRESH001")), ""),
        (format!("{good}{{\"tenant\":{{}},\"more\":1}}\n"), "line 2"),
        ("x".repeat(5 << 20), "longer than"),
    ] {
        let (status, answer) = parsed(&talk(&tenants.sandbox, &import_request("", &lines)));
        assert_eq!(status, 400, "{part}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{part}: {message}");
        assert_eq!(count(), 2, "{part}");
    }
    for query in ["?dry_run=maybe", "?more=true", "?dry_run=true&dry_run=true"] {
        let (status, answer) = parsed(&talk(&tenants.sandbox, &import_request(query, &good)));
        assert_eq!(status, 400, "{query}: {answer}");
    }
    // A client that leaves in the middle has imported nothing.
    let both = import_request("", &format!("{good}{other}"));
    let mut stream = UnixStream::connect(tenants.sandbox.data_dir().join("admin.sock")).unwrap();
    stream.write_all(&both[..both.len() - 5]).unwrap();
    drop(stream);
    assert_eq!(count(), 2);
    let dry = import_request("?dry_run=true", &good);
    let (status, answer) = parsed(&talk(&tenants.sandbox, &dry));
    assert_eq!((status, &answer["changes"][0]["change"]), (200, &json!("added")), "{answer}");
    assert_eq!(count(), 2);
    let with_variable = good.replace("tenant001.db", "${NAME}.db");
    let with_variable =
        with_variable.replace("}}\n", "},\"variables\":{\"NAME\":\"tenant002\"}}\n");
    let lines = format!("{with_variable}{}", other.trim_end());
    let (status, answer) = parsed(&talk(&tenants.sandbox, &import_request("", &lines)));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(count(), 4);
    let shown = tenants.sandbox.json(&["tenant", "show", "fresh001"]);
    assert_eq!(shown["db"]["path"], "tenant002.db");
    let entries = tenants.sandbox.audit(&[]);
    let refused = entries
        .iter()
        .filter(|it| it["action"] == "tenant.import" && it["code"] == "INVALID_ARGUMENT");
    assert!(refused.count() >= 10);
    server.stop().ok();
}

#[tokio::test]
async fn long_work_tells_how_far_it_is() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let passphrase = crate::support::PASSPHRASE;
    let body = json!({ "proof": { "passphrase": passphrase } }).to_string();
    let plain = request("POST", "/fsck", &body);
    let (status, answer) = parsed(&talk(&tenants.sandbox, &plain));
    assert_eq!((status, &answer["verdict"]), (200, &json!("good")), "{answer}");
    let lines = String::from_utf8(plain).unwrap();
    let lines = lines.replace("Host: x", "Host: x\r\nAccept: application/x-ndjson");
    let answer = talk(&tenants.sandbox, lines.as_bytes());
    let lines: Vec<Value> = answer
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (last, progress) = lines.split_last().unwrap();
    assert_eq!(last["ok"]["verdict"], "good", "{answer}");
    assert!(
        !progress.is_empty() && progress.iter().all(|it| it["progress"]["total"].is_u64()),
        "{answer}"
    );
    let wrong = json!({ "proof": { "passphrase": "canary-wrong" } }).to_string();
    let (status, answer) = ask(&tenants.sandbox, "POST", "/fsck", &wrong);
    assert_eq!((status, code(&answer)), (503, "VAULT_SEALED"), "{answer}");
    server.stop().ok();
}

#[test]
fn a_verb_says_where_it_is_done_when_it_is_asked_to() {
    let tenants = TwoTenants::new();
    let said = |arguments: &[&str]| tenants.sandbox.run(arguments).ok().stderr;
    assert!(said(&["--verbose", "tenant", "list"]).contains("(done here: no service runs"));
    assert_eq!(said(&["tenant", "list"]), "");
    let server = tenants.sandbox.serve();
    assert!(said(&["--verbose", "tenant", "list"]).contains("(done by the running service)"));
    assert_eq!(said(&["--json", "tenant", "list"]), "");
    server.stop().ok();
}

#[test]
fn operators_are_the_same_with_a_service_and_without() {
    let sandbox = Sandbox::new();
    let made = sandbox.json(&["operator", "create", "--role", "auditor", "--expires", "1h"]);
    sandbox.run(&["operator", "create", "--role", "root"]).failed(2, &["operator or auditor"]);
    let list = sandbox.json(&["operator", "list"]);
    assert_eq!(list[0]["operator_id"], made["operator_id"]);
    assert!(!list.to_string().contains(made["token"].as_str().unwrap()));
    sandbox.run(&["operator", "revoke", "op_nobody"]).failed(1, &["no such operator token"]);
    let id = made["operator_id"].as_str().unwrap();
    // It is among what a check opens, and what a change of every key seals anew.
    sandbox.run(&["fsck"]).ok();
    sandbox.run(&["root", "rotate", "--reseal"]).ok();
    sandbox.run(&["fsck"]).ok();
    assert_eq!(sandbox.json(&["operator", "list"]), list);
    let backup = sandbox.path("backup");
    sandbox.run(&["backup", "create", backup.to_str().unwrap()]).ok();
    for number in 1..32 {
        let made = sandbox.run(&["operator", "create", "--role", "operator"]);
        assert!(made.status.success(), "{number}: {}", made.stderr);
    }
    sandbox.run(&["operator", "create", "--role", "operator"]).failed(1, &["32", "revoke"]);
    sandbox.run(&["operator", "revoke", id]).ok();
    sandbox.run(&["operator", "revoke", "all"]).ok();
    assert_eq!(sandbox.json(&["operator", "list"]), json!([]));
}

#[test]
fn clear_text_beyond_loopback_is_refused() {
    let sandbox = Sandbox::new();
    let mut serve = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    serve.env("TENANTRY_ADMIN__LISTEN", "0.0.0.0:8643");
    crate::support::finish(&mut serve).failed(2, &["admin.listen", "loopback", "ssh"]);
}

#[tokio::test]
async fn who_connects_and_says_nothing_keeps_nobody_out() {
    let listening = Listening::new();
    let (_, token) = listening.operator("auditor");
    let connect = || TcpStream::connect(listening.address).unwrap();
    let mut silent: Vec<TcpStream> = (0..64).map(|_| connect()).collect();
    for _ in 0..3 {
        assert_eq!(listening.ask(Some(&token), "GET", "/status", "").0, 200);
    }
    // The one that was silent for longest has made room.
    let mut nothing = [0];
    assert_eq!(silent[0].read(&mut nothing).unwrap_or(0), 0);
}

#[tokio::test]
async fn who_finds_eight_requests_under_way_is_told_so_and_comes_in_when_they_have_ended() {
    let listening = Listening::new();
    let (_, token) = listening.operator("operator");
    let request = listening.request(Some(&token), "POST", "/doctor", "{}");
    let ask = || listening.ask(Some(&token), "GET", "/status", "");
    let mut under_way = Vec::new();
    let (status, answer) = loop {
        // The end of its body does not come.
        let mut stream = TcpStream::connect(listening.address).unwrap();
        stream.write_all(&request[..request.len() - 1]).unwrap();
        under_way.push(stream);
        let told = ask();
        if told.0 != 200 {
            break told;
        }
    };
    assert_eq!((status, code(&answer)), (503, "POOL_EXHAUSTED"), "{answer}");
    let message = "8 requests are under way here; try again when one has ended";
    assert_eq!(answer["error"]["message"], message);
    drop(under_way);
    while ask().0 != 200 {}
}

#[tokio::test]
async fn what_comes_to_no_route_is_in_the_audit_log() {
    let listening = Listening::new();
    let (_, token) = listening.operator("operator");
    let status = String::from_utf8(listening.request(Some(&token), "GET", "/status", "")).unwrap();
    let page = status.replacen("\r\n", "\r\nOrigin: http://evil.example\r\n", 1);
    let elsewhere = status.replacen("GET ", "GET http://evil.example", 1);
    let nothing = status.replacen("/status", "/nothing", 1);
    let method = status.replacen("GET", "DELETE", 1);
    let refused = [(page, 403), (elsewhere, 403), (nothing, 404), (method, 405)];
    let expected = ["FORBIDDEN", "FORBIDDEN", "RESOURCE_NOT_FOUND", "INVALID_ARGUMENT"];
    let mut ids = Vec::new();
    for (request, status) in &refused {
        let (answered, answer) = listening.send(request.as_bytes());
        assert_eq!(answered, *status, "{answer}");
        ids.push(answer["error"]["request_id"].clone());
    }
    let here = format!("GET http://{}", listening.address);
    assert_eq!(listening.send(status.replacen("GET ", &here, 1).as_bytes()).0, 200);
    let entries = listening.tenants.sandbox.audit(&[]);
    for (id, code) in ids.iter().zip(expected) {
        let entry = entries.iter().find(|entry| entry["request_id"] == *id);
        let entry = entry.unwrap_or_else(|| unreachable!("{id} is not in {entries:?}"));
        assert_eq!((&entry["action"], &entry["code"]), (&json!("admin.connect"), &json!(code)));
    }
}

#[tokio::test]
async fn a_token_is_made_for_what_was_named_and_not_for_nothing() {
    let listening = Listening::new();
    let (_, token) = listening.operator("operator");
    let make = |body: &str| listening.ask(Some(&token), "POST", "/tokens", body);
    for body in [
        r#"{"tenant":"tenant001","scopes":[]}"#,
        r#"{"tenant":"tenant001","expires_at":"2001-01-01T00:00:00Z"}"#,
    ] {
        let (status, answer) = make(body);
        assert_eq!((status, code(&answer)), (400, "INVALID_ARGUMENT"), "{answer}");
    }
    assert_eq!(make(r#"{"tenant":"tenant001"}"#).1["scopes"], json!(["list", "query", "metadata"]));
    let one =
        make(r#"{"tenant":"tenant001","scopes":["list"],"expires_at":"2100-01-01T00:00:00Z"}"#);
    assert_eq!(one.1["scopes"], json!(["list"]));
}
