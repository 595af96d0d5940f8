//! Canaries in every secret field, and a search for them wherever something comes out.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rmcp::model::ReadResourceRequestParams;
use serde_json::{Value, json};

use crate::control::request;
use crate::support::{Finished, PASSPHRASE, Sandbox, Server, finish};
use crate::{Era, call, connect, query};

const PASSWORD: &str = "canary-password-51c0de";
const OPENAI: &str = "canary-openai-8842aa";
const ANTHROPIC: &str = "canary-anthropic-90bb17";
const PRIVATE_KEY: &str = "canary-private-key-77ab02";
const NEW_PASSPHRASE: &str = "canary-new-passphrase-3b77d0";
const ANOTHER_PASSPHRASE: &str = "canary-another-passphrase-c14e";
const WRONG_PASSPHRASE: &str = "canary-wrong-passphrase-e2f1";
const TENANTS: [&str; 2] = ["tenant001", "tenant002"];
/// Tells the child that panics what to say.
const VARIABLE: &str = "TENANTRY_TEST_CANARY";

/// A sandbox, what came out of it, and what must not have.
struct Search {
    sandbox: Sandbox,
    seen: String,
    canaries: Vec<String>,
}

impl Search {
    fn new() -> Self {
        let canaries = [
            PASSPHRASE,
            PASSWORD,
            OPENAI,
            ANTHROPIC,
            PRIVATE_KEY,
            NEW_PASSPHRASE,
            ANOTHER_PASSPHRASE,
            WRONG_PASSPHRASE,
        ];
        let canaries = canaries.map(str::to_owned).into();
        Self { sandbox: Sandbox::new(), seen: String::new(), canaries }
    }

    /// A file outside of the data directory, which others cannot read.
    fn secret_file(&self, name: &str, text: &str) -> String {
        let path = self.sandbox.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a verb with the passphrase.
    fn run(&mut self, arguments: &[&str]) -> Finished {
        let mut command = self.sandbox.command(arguments);
        self.finish(command.env("LEAK_TEST_ANTHROPIC", ANTHROPIC))
    }

    /// Runs a verb with nothing but what `arguments` say.
    fn run_keyless(&mut self, arguments: &[&str]) -> Finished {
        let mut command = self.sandbox.keyless_command(arguments);
        self.finish(&mut command)
    }

    fn finish(&mut self, command: &mut Command) -> Finished {
        let finished = finish(command);
        self.seen += &finished.stdout;
        self.seen += &finished.stderr;
        finished
    }

    /// Runs a verb whose answer is there to show a secret, and takes its errors only.
    fn reveal(&mut self, arguments: &[&str]) -> Value {
        let arguments = [&["--json"], arguments].concat();
        let finished = self.sandbox.run(&arguments).ok();
        self.seen += &finished.stderr;
        serde_json::from_str(&finished.stdout).unwrap()
    }

    fn token(&mut self, tenant: &str) -> String {
        let made = self.reveal(&["token", "create", "--tenant", tenant]);
        let token = made["token"].as_str().unwrap().to_owned();
        self.canaries.push(token.clone());
        token
    }

    /// Sends `bytes` to the admin socket.
    fn talk(&mut self, bytes: &[u8]) {
        let answer = crate::control::talk(&self.sandbox, bytes);
        assert!(!answer.is_empty());
        self.seen += &answer;
    }

    /// Every canary in every spelling that a careless line of code gives it.
    fn needles(&self) -> Vec<String> {
        let spellings = |canary: &String| {
            let numbers: Vec<String> = canary.bytes().map(|byte| byte.to_string()).collect();
            let hex = canary.bytes().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
            [canary.clone(), canary.replace('-', ""), hex, numbers.join(", ")]
        };
        self.canaries.iter().flat_map(spellings).collect()
    }

    /// What leaked, and where it is.
    fn leak(&self) -> Option<String> {
        let needles = self.needles();
        let files = self.sandbox.stored_bytes();
        assert!(files.len() > 4, "the search looks at the real files: {}", files.len());
        let files = files.iter().map(|(path, content)| {
            (path.display().to_string(), String::from_utf8_lossy(content).into_owned())
        });
        let seen = ("what came out".to_owned(), self.seen.clone());
        files.chain([seen]).find_map(|(place, text)| {
            let needle = needles.iter().find(|needle| text.contains(needle.as_str()))?;
            // With what is before it, to know it by.
            let before = text.split(needle.as_str()).next()?.chars().rev().take(300);
            let before: String = before.collect::<Vec<_>>().into_iter().rev().collect();
            Some(format!("{needle} is in {place}, after {before}"))
        })
    }
}

fn import_files_of_every_kind(search: &mut Search) {
    let keys = json!({ "openai": OPENAI, "anthropic": "${LEAK_TEST_ANTHROPIC}" });
    search.sandbox.add_tenant(TENANTS[0], &json!({ "api_keys": keys }));
    let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    search.sandbox.write_config("client.pem", certificate);
    let key = format!("-----BEGIN PRIVATE KEY-----\n{PRIVATE_KEY}\n-----END PRIVATE KEY-----\n");
    let good = json!({
        "tenant_id": TENANTS[1], "db_host": "127.0.0.1", "db_port": 1, "db_name": "d",
        "db_user": "u", "db_password": PASSWORD, "db_sslmode": "require", "api_keys": keys,
        "db_sslcert": search.sandbox.path("configs/client.pem"), "db_sslkey": key,
    });
    search.sandbox.write_config("tenant002.json", &good.to_string());
    let long = format!("{PASSWORD}{}", "x".repeat(70_000));
    let with = |changes: Value| {
        let mut file = good.clone();
        file["tenant_id"] = json!("tenant003");
        for (name, value) in changes.as_object().unwrap() {
            file[name] = value.clone();
        }
        file.to_string()
    };
    let wrong = [
        with(
            json!({ "db_port": PASSWORD, "db_password": { "a": PASSWORD }, "api_keys": [OPENAI] }),
        ),
        with(json!({ "features": { "x": ANTHROPIC }, "limits": PASSWORD, "quotas": [OPENAI] })),
        with(json!({ "db_password": [[PASSWORD]], "api_keys": { "a": { "b": OPENAI } } })),
        with(json!({ "db_password": long, "api_keys": { "openai": long } })),
        with(json!({ "db_password": format!("${{{PASSWORD}}}") })),
        with(json!({ "db_password": format!("${{LEAK_TEST_UNSET}}{PASSWORD}") })),
        with(json!({ "db_password": format!("{PASSWORD}${{") })),
        with(json!({ "db_password": format!("{PASSWORD}\u{0}") })),
        with(json!({ "db_passwort": PASSWORD, "db_sslmode": PASSWORD, "db_engine": OPENAI })),
        with(json!({ "db_host": PASSWORD, "db_sslrootcert": PASSWORD })),
        with(json!({ "db_sslkey": PRIVATE_KEY })),
        with(json!({ "db_sslcert": key, "db_sslkey": format!("{key}${{") })),
        with(json!({ "tenant_id": OPENAI })),
        format!("{{\"db_password\": \"{PASSWORD}\", \"db_password\": \"{OPENAI}\"}}"),
        format!("{{\"db_password\": \"{PASSWORD}"),
        format!("\"{PASSWORD}\""),
        format!("{{\"db_password\": \"{PASSWORD}\\u12\"}}"),
        PASSWORD.to_owned(),
    ];
    for (index, text) in wrong.iter().enumerate() {
        let path = search.sandbox.path("tenant003.json");
        std::fs::write(&path, text).unwrap();
        for flags in [&["--json"][..], &[]] {
            let verb = ["tenant", "import", path.to_str().unwrap()];
            let finished = search.run(&[flags, &verb].concat());
            assert!(!finished.status.success(), "file {index} was imported");
        }
    }
    let configs = search.sandbox.path("configs").to_str().unwrap().to_owned();
    search.run(&["tenant", "import", "--dry-run", &configs]).ok();
    search.run(&["tenant", "import", &configs]).ok();
    search.run(&["--json", "tenant", "import", "--dry-run", &configs]).ok();
}

fn look_at_everything(search: &mut Search) {
    for flags in [&["--json"][..], &[]] {
        for verb in [
            &["tenant", "list"][..],
            &["tenant", "show", "tenant001"],
            &["tenant", "show", "tenant002"],
            &["token", "list"],
            &["slot", "list"],
            &["audit", "list"],
            &["status"],
        ] {
            search.run(&[flags, verb].concat()).ok();
        }
        search.run(&[flags, &["tenant", "show", "tenant009"]].concat()).failed(1, &[]);
        // Of the second tenant there is no database.
        search.run(&[flags, &["doctor"]].concat()).failed(6, &[]);
    }
}

async fn call_every_tool(search: &mut Search, server: &Server, tokens: &[String]) {
    for (token, tenant) in tokens.iter().zip(TENANTS) {
        let client = connect(&server.endpoint, token, Era::Modern).await;
        let database = format!("mcp://{tenant}/database");
        let answers = [
            call(&client, "list_tenant_resources", json!({})).await,
            call(&client, "list_tenant_resources", json!({ "resource_type": 7 })).await,
            query(&client, &database, "SELECT 1").await,
            query(&client, &database, "SELECT nonsense(").await,
            query(&client, &database, "SELECT nonsense FROM customers").await,
            query(&client, &database, "DELETE FROM customers").await,
            query(&client, "mcp://tenant009/database", "SELECT 1").await,
            query(&client, "nonsense", "SELECT 1").await,
            call(&client, "get_tenant_metadata", json!({})).await,
        ];
        for answer in answers {
            search.seen += &serde_json::to_string(&answer).unwrap();
        }
        for provider in ["openai", "anthropic", "nobody"] {
            let uri = format!("mcp://{tenant}/api/{provider}");
            let read = client.read_resource(ReadResourceRequestParams::new(uri)).await;
            write!(search.seen, "{read:?}").unwrap();
        }
    }
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }).to_string();
    let cut = &tokens[0][..tokens[0].len() - 1];
    for (bearer, path, body) in [
        (PASSWORD, "", list.as_str()),
        (cut, "", &list),
        (&tokens[0], "", PASSWORD),
        (&tokens[0], "", &format!("{{\"method\": \"{PASSWORD}\"}}")),
        (&tokens[0], &format!("?token={}", tokens[0]), &list),
    ] {
        let response = reqwest::Client::new()
            .post(format!("{}{path}", server.endpoint))
            .header("Accept", "application/json, text/event-stream")
            .header("Content-Type", "application/json")
            .bearer_auth(bearer)
            .body(body.to_owned())
            .send()
            .await
            .unwrap();
        write!(search.seen, "{:?}", response.headers()).unwrap();
        search.seen += &response.text().await.unwrap();
    }
}

fn send_nonsense_to_the_socket(search: &mut Search) {
    let secret = PASSPHRASE;
    let unseal = |body: String| request("POST", "/unseal", &body);
    for message in [
        format!("{secret}\r\n\r\n").into_bytes(),
        request("GET", &format!("/{secret}"), ""),
        request("GET", &format!("/tenants?{secret}={secret}"), ""),
        request("GET", &format!("/tenants?cursor={secret}"), ""),
        request("POST", "/seal", &format!("{{\"{secret}\":1}}")),
        unseal(secret.to_owned()),
        unseal(format!("{{\"{secret}\":1}}")),
        unseal(format!("{{\"proof\":\"{secret}\"}}")),
        unseal(format!("{{\"proof\":{{\"{secret}\":1}}}}")),
        unseal(format!("{{\"proof\":{{\"passphrase\":[\"{secret}\"]}}}}")),
        unseal(format!("{{\"proof\":{{\"passphrase\":\"{secret}\"}},\"proof\":1}}")),
        unseal(format!("{{\"proof\":{{\"passphrase\":\"{secret}\"}},\"more\":\"{secret}\"}}")),
        unseal(format!("{{\"proof\":{{\"passphrase\":\"{}\"}}}}", secret.repeat(300))),
        unseal(format!("{{\"proof\":{{\"key_file\":\"{secret}\"}}}}")),
        unseal(format!("{{\"proof\":{{\"shares\":[\"{secret}\"]}}}}")),
        unseal(format!("{{\"proof\":{{\"shares\":\"{secret}\"}}}}")),
        unseal(format!("{{\"proof\":{{\"passphrase\":\"{secret}\u{fffd}")),
        unseal(format!("{}{secret}", "x".repeat(70_000))),
    ] {
        search.talk(&message);
    }
    let mut no_text = unseal(format!("{{\"proof\":{{\"passphrase\":\"{secret}?\"}}}}"));
    let at = no_text.len() - 4;
    no_text[at] = 0xff;
    search.talk(&no_text);
    for line in [
        format!("{{\"tenant\":{{\"tenant_id\":\"leak0001\",\"db_port\":\"{PASSWORD}\"}}}}\n"),
        format!("{{\"tenant\":\"{PASSWORD}\"}}\n"),
        format!("{{\"tenant\":{{}},\"variables\":{{\"{PASSWORD}\":1}}}}\n"),
        format!("{{\"tenant\":{{}},\"variables\":[\"{PASSWORD}\"]}}\n"),
        format!("{PASSWORD}\n"),
    ] {
        let message = String::from_utf8(request("POST", "/tenants:import", &line)).unwrap();
        search.talk(message.replace("application/json", "application/x-ndjson").as_bytes());
    }
}

fn change_every_key(search: &mut Search) {
    let file = search.sandbox.path("leak.key").to_str().unwrap().to_owned();
    search.run(&["slot", "add", "key-file", &file]).ok();
    let key_file = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    let symbols = key_file.rsplit(':').next().unwrap().to_owned();
    search.canaries.extend([key_file, symbols]);
    let added = search.reveal(&["slot", "add", "shares", "--threshold", "2", "--count", "3"]);
    let mut flags = Vec::new();
    for (index, share) in added["shares"].as_array().unwrap().iter().enumerate() {
        let share = share.as_str().unwrap();
        search.canaries.push(share.to_owned());
        flags.push("--share-file".to_owned());
        flags.push(search.secret_file(&format!("leak{index}.share"), share));
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();

    search.run(&["root", "rotate"]).failed(1, &["--drop-slots"]);
    let everything = [&["--key-file", &file][..], &flags, &["root", "rotate", "--reseal"]].concat();
    search.run(&everything).ok();
    search.run(&["reseal"]).ok();
    search.run(&["tenant-key", "rotate", TENANTS[0]]).ok();
    search.run(&["reseal"]).ok();

    let wrong = search.secret_file("leak.wrong", WRONG_PASSPHRASE);
    // A file with one kind of secret where another is expected.
    let mistaken = search.secret_file("leak.mistaken", PASSPHRASE);
    search.run(&["seal"]).ok();
    for wrong in [
        &["--passphrase-file", &wrong][..],
        &["--key-file", &mistaken],
        &["--key-file", flags[1]],
        &["--share-file", &file],
        &flags[..2],
    ] {
        assert!(!search.run_keyless(&[wrong, &["unseal"]].concat()).status.success());
    }
    search.run_keyless(&["--key-file", &file, "unseal"]).ok();
    search.run(&["seal"]).ok();
    search.run_keyless(&[&flags[..4], &["unseal"]].concat()).ok();
    for verb in ["seal", "unseal"] {
        search.run(&[verb, TENANTS[0]]).ok();
    }
    search.run(&["tenant", "remove", "--yes", TENANTS[1]]).ok();

    let slots = search.sandbox.json(&["slot", "list"]);
    for slot in slots.as_array().unwrap().iter().filter(|slot| slot["kind"] != "passphrase") {
        search.run(&["slot", "remove", &slot["id"].to_string()]).ok();
    }
    let short = search.secret_file("leak.short", &PASSWORD[..13]);
    let new = search.secret_file("leak.new", NEW_PASSPHRASE);
    let another = search.secret_file("leak.another", ANOTHER_PASSPHRASE);
    let change = ["passphrase", "change", "--new-passphrase-file"];
    search.run(&[&change[..], &[&short]].concat()).failed(1, &["14"]);
    search.run(&["slot", "add", "passphrase", "--new-passphrase-file", &another]).ok();
    search.run(&[&change[..], &[&new]].concat()).ok();
    search.run(&[&change[..], &[&new]].concat()).failed(3, &["passphrase"]);
    search.run_keyless(&["--passphrase-file", &new, "tenant", "list"]).ok();
}

#[tokio::test]
async fn secrets_are_in_no_answer_log_audit_entry_or_file() {
    let mut search = Search::new();
    import_files_of_every_kind(&mut search);
    look_at_everything(&mut search);
    let tokens = TENANTS.map(|tenant| search.token(tenant));
    let server = search.sandbox.serve_with(&[("TENANTRY_LOG__LEVEL", "trace")]);
    call_every_tool(&mut search, &server, &tokens).await;
    send_nonsense_to_the_socket(&mut search);
    look_at_everything(&mut search);
    change_every_key(&mut search);
    search.seen += &server.stop().ok().stderr;
    assert!(search.seen.contains("fingerprint"), "the search looks at real answers");
    assert_eq!(search.leak(), None);
    // Whatever leaks is found, in every file and however it is written.
    let secret = search.secret_file("data/leak", &search.needles()[3]);
    assert!(search.leak().unwrap().contains(&secret));
}

/// The child's part; does nothing of interest by itself.
#[test]
#[ignore = "started by the next one"]
fn panics() {
    #[expect(clippy::disallowed_methods, reason = "how the parent tells it")]
    let canary = std::env::var(VARIABLE).unwrap_or_default();
    tenantry::telemetry::start(tracing::Level::TRACE, tenantry::telemetry::Format::Text);
    panic!("{canary}");
}

#[test]
fn a_panic_tells_its_place_and_not_its_words() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let command = command.args(["--exact", "leak::panics", "--ignored", "--nocapture"]);
    let finished = finish(command.env(VARIABLE, PASSWORD));
    let said = finished.stdout + &finished.stderr;
    assert!(said.contains("panicked") && said.contains("leak.rs"), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
}
