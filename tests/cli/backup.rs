//! Backups at the command line, beside a service and without one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Sandbox, Server, finish};

/// With so many tenants, a token of the first one, and a key file that opens backups: a passphrase
/// costs a second each time.
fn sandbox(tenants: usize) -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    for number in 0..tenants {
        sandbox.add_tenant(&format!("tenant{number:03}"), &json!({ "api_keys": { "a": "1" } }));
    }
    sandbox.import();
    let token = sandbox.token("tenant000");
    (sandbox, token)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A verb on another data directory, with the key file of the backups.
fn elsewhere(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command
        .current_dir(sandbox.path(""))
        .arg("--data-dir")
        .arg(sandbox.path("restored"))
        .arg("--key-file")
        .arg(sandbox.path("backup.key"))
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("TENANTRY_PASSPHRASE");
    command
}

fn create(sandbox: &Sandbox, name: &str) -> Value {
    let (file, key) = (text(&sandbox.path(name)), text(&sandbox.path("backup.key")));
    sandbox.json(&["backup", "create", &file, "--slot-key-file", &key])
}

fn keyless(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = ["--json"].into_iter().chain(arguments.iter().copied()).collect();
    let finished = finish(&mut sandbox.keyless_command(&arguments)).ok();
    serde_json::from_str(&finished.stdout).unwrap()
}

#[test]
fn a_backup_made_beside_a_service_becomes_a_vault_that_serves_the_same() {
    let (sandbox, token) = sandbox(3);
    let before = sandbox.json(&["tenant", "list"]);
    let server = sandbox.serve();
    let made = create(&sandbox, "one.backup");
    assert_eq!(made["path"], text(&sandbox.path("one.backup")));
    assert!(made["verified_at"].is_string() && made["records"].as_u64() > Some(9), "{made}");
    // The slot is there: nobody has to bring a key any more.
    let second = text(&sandbox.path("two.backup"));
    keyless(&sandbox, &["backup", "create", &second, "--no-verify"]);
    let drill = keyless(&sandbox, &["backup", "verify", &second]);
    assert_eq!(
        (&drill["intact"], &drill["tenants"], &drill["tokens"]),
        (&json!(true), &json!(3), &json!(1))
    );
    let listed = keyless(&sandbox, &["backup", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(listed[1]["verified_at"].is_string() && listed[1]["present"] == true, "{listed}");
    let status = keyless(&sandbox, &["status"]);
    assert_eq!(status["backups"]["newest_verified"]["path"], json!(second));
    sandbox.run(&["backup", "create", &second]).failed(1, &["is there already"]);
    server.stop();

    let restored = finish(&mut elsewhere(&sandbox, &["backup", "restore", "two.backup"])).ok();
    assert!(restored.stdout.contains("restored"), "{}", restored.stdout);
    let list = finish(&mut elsewhere(&sandbox, &["--json", "tenant", "list"])).ok().stdout;
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap(), before);
    let log = finish(&mut elsewhere(&sandbox, &["--json", "audit", "list"])).ok().stdout;
    let first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!((&first["action"], &first["decision"]), (&json!("backup.restore"), &json!("begun")));
    assert!(first["resource"].as_str().unwrap().contains("commit"), "{first}");
    let mut serve = elsewhere(&sandbox, &["serve", "--listen", "127.0.0.1:0"]);
    let server = Server::start(&mut serve);
    let tokens = finish(&mut elsewhere(&sandbox, &["--json", "token", "list"])).ok().stdout;
    assert!(tokens.contains("tenant000") && !tokens.contains(&token), "{tokens}");
    server.stop();
}

#[test]
fn a_backup_is_tried_without_a_data_directory_and_a_damaged_one_is_refused() {
    let (sandbox, _) = sandbox(2);
    create(&sandbox, "one");
    let drill = finish(&mut elsewhere(&sandbox, &["--json", "backup", "verify", "one"])).ok();
    let drill: Value = serde_json::from_str(&drill.stdout).unwrap();
    assert_eq!(drill["parts"]["records"], "intact");
    assert!(!sandbox.path("restored").exists());

    let good = std::fs::read(sandbox.path("one")).unwrap();
    let mut bytes = good.clone();
    bytes[good.len() / 2] ^= 1;
    std::fs::write(sandbox.path("bad"), &bytes).unwrap();
    let message = ["INTEGRITY_ERROR", "damaged or was altered", "use another one"];
    finish(&mut elsewhere(&sandbox, &["backup", "verify", "bad"])).failed(4, &message);
    finish(&mut elsewhere(&sandbox, &["backup", "restore", "bad"])).failed(4, &message);
    assert!(!sandbox.path("bad.drill").exists());
    finish(&mut elsewhere(&sandbox, &["tenant", "list"])).failed(1, &["not initialised"]);
    // Another key is not the file's fault.
    let passphrase = text(&sandbox.path("passphrase"));
    let mut wrong = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    wrong.current_dir(sandbox.path("")).arg("--data-dir").arg(sandbox.path("restored"));
    wrong.args(["--passphrase-file", &passphrase, "backup", "verify", "one"]);
    finish(&mut wrong).failed(3, &["VAULT_SEALED"]);
    finish(&mut elsewhere(&sandbox, &["backup", "verify", "nothing"])).failed(1, &["no such file"]);
    // What failed has left no trace that is in the way.
    finish(&mut elsewhere(&sandbox, &["backup", "restore", "one"])).ok();
    finish(&mut elsewhere(&sandbox, &["backup", "restore", "one"])).failed(1, &["already"]);
    let scratch = sandbox.path("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let scratch = text(&scratch);
    finish(&mut elsewhere(&sandbox, &["backup", "verify", "one", "--scratch", &scratch])).ok();
    assert_eq!(std::fs::read_dir(scratch).unwrap().count(), 0);
}

#[test]
fn a_passphrase_that_unseals_opens_the_backup_unless_another_one_is_given() {
    let (sandbox, _) = sandbox(1);
    let file = text(&sandbox.path("one"));
    sandbox.run(&["backup", "create", &file, "--no-verify"]).ok();
    sandbox.run(&["backup", "verify", &file]).ok();
    std::fs::write(sandbox.path("new"), "another passphrase for backups").unwrap();
    let (other, new) = (text(&sandbox.path("two")), text(&sandbox.path("new")));
    sandbox.run(&["backup", "create", &other, "--new-passphrase-file", &new]).ok();
    sandbox.run(&["backup", "verify", &other]).failed(3, &["wrong passphrase"]);
    std::fs::write(sandbox.path("passphrase"), "another passphrase for backups").unwrap();
    sandbox.run(&["backup", "verify", &other]).ok();
}

#[test]
fn a_backup_whose_file_is_gone_can_be_forgotten() {
    let (sandbox, _) = sandbox(1);
    let made = create(&sandbox, "one");
    let id = made["backup_id"].as_str().unwrap();
    sandbox.run(&["backup", "forget", id]).failed(1, &["still there"]);
    std::fs::remove_file(sandbox.path("one")).unwrap();
    assert_eq!(sandbox.json(&["backup", "list"])[0]["present"], false);
    sandbox.run(&["backup", "forget", id]).ok();
    sandbox.run(&["backup", "forget", id]).failed(1, &["no known backup"]);
    assert_eq!(sandbox.json(&["backup", "list"]), json!([]));
    let actions: Vec<Value> =
        sandbox.audit(&[]).into_iter().map(|entry| entry["action"].clone()).collect();
    for action in ["backup.create", "backup.forget"] {
        assert!(actions.contains(&json!(action)), "{actions:?}");
    }
}

#[test]
fn a_service_makes_the_backups_of_its_schedule_and_deletes_the_oldest() {
    let (sandbox, _) = sandbox(1);
    let directory = sandbox.path("backups");
    let settings = [
        ("TENANTRY_BACKUP__DIRECTORY", text(&directory)),
        ("TENANTRY_BACKUP__EVERY_HOURS", "6".to_owned()),
    ];
    let settings: Vec<(&str, &str)> =
        settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = sandbox.serve_with(&settings);
    // Nothing opens a backup yet, which is said once.
    assert_eq!(keyless(&sandbox, &["status"])["backups"]["slot"], false);
    let said = server.stop().stderr;
    assert_eq!(said.matches("run `tenantry backup create").count(), 1, "{said}");

    create(&sandbox, "one");
    let wait = |is_done: &dyn Fn(&Value) -> bool| {
        let found = (0..2_000).map(|_| keyless(&sandbox, &["status"])).find(is_done);
        found.expect("it does not happen")
    };
    // There is no such directory: that is a failure, and shown.
    let server = sandbox.serve_with(&settings);
    let status = wait(&|status| !status["backups"]["schedule"]["failure"].is_null());
    let failure = &status["backups"]["schedule"]["failure"];
    assert_eq!(failure["attempts"], 1, "{failure}");
    server.stop();
    std::fs::create_dir(&directory).unwrap();
    let server = sandbox.serve_with(&settings);
    wait(&|status| status["backups"]["known"] == 2);
    let status = wait(&|status| status["backups"]["newest_verified"]["scheduled"] == true);
    assert!(status["backups"]["schedule"]["failure"].is_null(), "{status}");
    server.stop();
    let names: Vec<String> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.len() == 1 && names[0].starts_with("tenantry-"), "{names:?}");
    let entries = sandbox.audit(&[]);
    let own = entries.iter().rfind(|entry| entry["action"] == "backup.create").unwrap();
    assert_eq!((&own["actor"]["kind"], &own["decision"]), (&json!("service"), &json!("allowed")));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a kill comes at a moment of real time")]
fn a_backup_that_is_killed_leaves_none_or_a_whole_one() {
    let (sandbox, _) = sandbox(40);
    let start = Instant::now();
    create(&sandbox, "first");
    let whole = start.elapsed();
    let file = sandbox.path("one");
    let kills = 8;
    for round in 1..=kills {
        let key = text(&sandbox.path("backup.key"));
        let mut command =
            sandbox.command(&["backup", "create", &text(&file), "--slot-key-file", &key]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * round / (kills + 1));
        child.kill().unwrap();
        child.wait().unwrap();
        if file.exists() {
            finish(&mut elsewhere(&sandbox, &["backup", "verify", "one"])).ok();
            let listed = sandbox.json(&["backup", "list"]);
            let known = listed.as_array().unwrap().iter().any(|it| it["path"] == text(&file));
            assert!(known, "{listed}");
            std::fs::remove_file(&file).unwrap();
        }
    }
    create(&sandbox, "one");
    for left in ["one.partial", "one.drill"] {
        assert!(!sandbox.path(left).exists(), "{left}");
    }
}
