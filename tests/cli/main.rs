//! The command line: every verb, every wrong input, every exit code.

#![expect(clippy::unwrap_used, reason = "a failed set-up should fail the test")]

mod backup;
mod doctor;
mod first_use;
mod fsck;
mod kill;
mod quota;
mod roles;
#[path = "../support/mod.rs"]
mod support;

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::json;

use support::{Sandbox, finish};

const CANARY: &str = "canary-value-3b2f90";

fn import(sandbox: &Sandbox) -> support::Finished {
    sandbox.run(&["tenant", "import", sandbox.path("configs").to_str().unwrap()])
}

#[test]
fn init_makes_a_vault_that_only_its_passphrase_opens() {
    let sandbox = Sandbox::without_vault();
    sandbox.run(&["init"]).ok();
    let mode = sandbox.data_dir().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    sandbox.run(&["tenant", "list"]).ok();
    sandbox.run(&["init"]).failed(1, &["already"]);

    let before = sandbox.stored_bytes();
    std::fs::write(sandbox.path("passphrase"), format!("{CANARY}-wrong")).unwrap();
    let refused = sandbox.run(&["tenant", "list"]).failed(3, &["passphrase"]);
    assert!(!refused.stderr.contains(CANARY));
    let changed: Vec<_> = sandbox
        .stored_bytes()
        .into_iter()
        .filter(|file| !before.contains(file) && !file.0.to_str().unwrap().contains("audit"))
        // Counts failed attempts.
        .filter(|file| !file.0.ends_with("attempts"))
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
    let entries = sandbox.audit(&[]);
    let last = entries.last().unwrap();
    assert_eq!((&last["action"], &last["decision"]), (&json!("vault.unseal"), &json!("denied")));
}

#[test]
fn a_short_passphrase_is_not_accepted_for_a_new_vault() {
    let sandbox = Sandbox::without_vault();
    std::fs::write(sandbox.path("passphrase"), "too short").unwrap();
    sandbox.run(&["init"]).failed(1, &["14"]);
    std::fs::write(sandbox.path("passphrase"), "long enough to be one").unwrap();
    sandbox.run(&["init"]).ok();
}

#[test]
fn without_a_passphrase_the_ways_to_give_one_are_named() {
    let sandbox = Sandbox::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command.arg("--data-dir").arg(sandbox.data_dir()).args(["tenant", "list"]);
    command.stdin(Stdio::null()).env_remove("TENANTRY_PASSPHRASE");
    finish(&mut command).failed(2, &["--passphrase-file", "--passphrase-command"]);
}

#[test]
fn every_source_of_a_passphrase_opens_the_vault() {
    let sandbox = Sandbox::new();
    let passphrase = sandbox.path("passphrase");
    let tenantry = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        command.arg("--data-dir").arg(sandbox.data_dir()).args(arguments).stdin(Stdio::null());
        command
    };
    let by_command = format!("cat {}", passphrase.display());
    finish(&mut tenantry(&["tenant", "list", "--passphrase-command", &by_command])).ok();
    finish(&mut tenantry(&["tenant", "list", "--passphrase-command", "false"]))
        .failed(1, &["false"]);
    let by_variable =
        finish(tenantry(&["tenant", "list"]).env("TENANTRY_PASSPHRASE", support::PASSPHRASE)).ok();
    assert!(by_variable.stderr.contains("warning"));
    let credentials = sandbox.path("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::copy(&passphrase, credentials.join("tenantry.passphrase")).unwrap();
    finish(tenantry(&["tenant", "list"]).env("CREDENTIALS_DIRECTORY", credentials)).ok();
    // One that cannot be read is not passed over.
    finish(tenantry(&["tenant", "list"]).env("CREDENTIALS_DIRECTORY", &passphrase))
        .failed(2, &["credential tenantry.passphrase"]);
    let mut by_descriptor = tenantry(&["tenant", "list", "--passphrase-fd", "0"]);
    finish(by_descriptor.stdin(std::fs::File::open(&passphrase).unwrap())).ok();
}

#[test]
fn an_import_is_shown_and_a_second_one_changes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({ "features": { "premium_support": true } }));
    let remote = json!({
        "tenant_id": "tenant002", "db_host": "db.example.com", "db_name": "d", "db_user": "u",
        "db_password": format!("${{NO_SUCH_VARIABLE_1:{CANARY}}}"),
    });
    sandbox.write_config("tenant002.json", &remote.to_string());
    let dry = ["tenant", "import", "--dry-run", sandbox.path("configs").to_str().unwrap()]
        .map(str::to_owned);
    let dry: Vec<&str> = dry.iter().map(String::as_str).collect();
    assert!(sandbox.run(&dry).ok().stdout.contains("2 added (dry run"));
    assert_eq!(sandbox.json(&["tenant", "list"]), json!([]));
    assert!(import(&sandbox).ok().stdout.contains("2 added"));
    let before = sandbox.stored_bytes();
    assert!(import(&sandbox).ok().stdout.contains("2 unchanged"));
    let is_store = |file: &&(std::path::PathBuf, Vec<u8>)| {
        ["header", "keyring"].contains(&file.0.file_name().unwrap().to_str().unwrap())
    };
    let after = sandbox.stored_bytes();
    assert!(before.iter().filter(is_store).eq(after.iter().filter(is_store)));

    let list = sandbox.json(&["tenant", "list"]);
    assert_eq!(list[0]["tenant_id"], "tenant001");
    assert_eq!(list[1]["engine"], "postgres");
    let shown = sandbox.json(&["tenant", "show", "tenant002"]);
    assert_eq!(shown["db"]["sslmode"], "verify-full");
    assert!(shown["credentials"]["db_password"]["fingerprint"].is_string());
    let text = sandbox.run(&["tenant", "show", "tenant002"]).ok().stdout;
    assert!(text.contains("db.example.com") && !text.contains(CANARY), "{text}");

    let changed = remote.to_string().replace("db.example.com", "db2.example.com");
    sandbox.write_config("tenant002.json", &changed);
    let report = import(&sandbox).ok().stdout;
    assert!(report.contains("db_host") && report.contains("1 changed, 1 unchanged"), "{report}");
}

#[test]
fn every_problem_of_every_file_is_told_at_once_and_nothing_is_imported() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({}));
    sandbox.write_config("tenant002.json", "{ \"tenant_id\": \"tenant002\",");
    sandbox.write_config("tenant003.json", "not json at all");
    sandbox.write_config(
        "tenant004.json",
        &format!(
            "{{\n  \"tenant_id\": \"tenant004\",\n  \"db_hots\": \"{CANARY}\",\n  \
             \"db_port\": \"{CANARY}\",\n  \"db_password\": \"${{NO_SUCH_1}}${{NO_SUCH_2}}\"\n}}"
        ),
    );
    sandbox.write_config("tenant_05.json", r#"{ "tenant_id": "tenant_05", "db_path": "x" }"#);
    sandbox.write_config("tenant-06.json", r#"{ "tenant_id": "tenant-06" }"#);
    sandbox.write_config("short.json", r#"{ "tenant_id": "short" }"#);
    let long = "a".repeat(21);
    sandbox.write_config(&format!("{long}.json"), &format!(r#"{{ "tenant_id": "{long}" }}"#));
    let refused = import(&sandbox).failed(
        1,
        &[
            "tenant002.json:1:",
            "truncated",
            "tenant003.json:1:",
            "not JSON",
            "tenant004.json:3:14: db_hots: unknown field; did you mean \"db_host\"?",
            "tenant004.json:4:14: db_port: must be a whole number",
            "NO_SUCH_1, NO_SUCH_2",
            "db_host: is required",
            "tenant_id.allow_underscore",
            "INVALID_TENANT",
            "this one has 5",
            "this one has 21",
            "nothing was imported",
        ],
    );
    assert!(!refused.stderr.contains(CANARY), "{}", refused.stderr);
    assert_eq!(sandbox.json(&["tenant", "list"]), json!([]));

    let configs = sandbox.path("configs");
    let arguments = ["tenant", "import", "--keep-going", configs.to_str().unwrap()];
    sandbox.run(&arguments).failed(1, &["left out"]);
    assert_eq!(sandbox.json(&["tenant", "list"])[0]["tenant_id"], "tenant001");
}

#[test]
fn an_underscore_is_admitted_by_a_setting() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant_001", &json!({}));
    import(&sandbox).failed(1, &["tenant_id.allow_underscore = true"]);
    std::fs::write(sandbox.path("tenantry.toml"), "[tenant_id]\nallow_underscore = true\n")
        .unwrap();
    import(&sandbox).ok();
    assert_eq!(sandbox.json(&["tenant", "show", "tenant_001"])["tenant_id"], "tenant_001");
}

#[test]
fn the_same_id_twice_or_in_another_case_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({}));
    std::fs::create_dir(sandbox.path("more")).unwrap();
    let (first, second) =
        (sandbox.path("configs/tenant001.json"), sandbox.path("more/tenant001.json"));
    std::fs::copy(&first, &second).unwrap();
    let arguments = ["tenant", "import", first.to_str().unwrap(), second.to_str().unwrap()];
    sandbox.run(&arguments).failed(1, &["tenant001 is also in"]);
    sandbox.run(&arguments[..3]).ok();

    let other = sandbox.path("more/Tenant001.json");
    let text = std::fs::read_to_string(&first).unwrap();
    std::fs::write(&other, text.replace("\"tenant001\"", "\"Tenant001\"")).unwrap();
    let refused = sandbox.run(&["tenant", "import", other.to_str().unwrap()]);
    refused.failed(1, &["case"]);
}

#[test]
fn a_path_that_is_not_there_or_not_readable_is_named() {
    let sandbox = Sandbox::new();
    let missing = sandbox.path("missing");
    sandbox
        .run(&["tenant", "import", missing.to_str().unwrap()])
        .failed(1, &["missing", "no such file"]);
    let empty = sandbox.path("configs");
    sandbox.run(&["tenant", "import", empty.to_str().unwrap()]).failed(1, &["no tenant files"]);
    sandbox.write_config("tenant001.json", &" ".repeat(2 << 20));
    import(&sandbox).failed(1, &["larger than"]);
    sandbox.run(&["tenant", "import", "/dev/zero"]).failed(1, &["not a regular file"]);
    let pipe = sandbox.path("configs/tenant002.json");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.to_str().unwrap();
    sandbox.run(&["tenant", "import", pipe]).failed(1, &["not a regular file"]);
    sandbox.write_config(
        "tenant001.json",
        r#"{ "tenant_id": "tenant001", "db_host": "h",
        "db_name": "d", "db_user": "u", "db_sslrootcert": "/dev/zero" }"#,
    );
    let file = sandbox.path("configs/tenant001.json");
    sandbox.run(&["tenant", "import", file.to_str().unwrap()]).failed(1, &["not a regular file"]);
}

#[test]
fn a_data_directory_is_one_processs_at_a_time() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    sandbox.run(&["serve", "--listen", "127.0.0.1:0"]).failed(75, &["already serves"]);
    sandbox.audit(&[]);
    // As when it does not listen yet: there is nobody to ask.
    std::fs::remove_file(sandbox.data_dir().join("admin.sock")).unwrap();
    sandbox.run(&["tenant", "list"]).failed(75, &["IN_USE"]);
    server.stop().ok();
    sandbox.run(&["tenant", "list"]).ok();
}

#[test]
fn a_data_directory_that_others_can_enter_is_not_opened() {
    let sandbox = Sandbox::new();
    let with_mode = |mode| {
        std::fs::set_permissions(sandbox.data_dir(), Permissions::from_mode(mode)).unwrap();
        sandbox.run(&["tenant", "list"])
    };
    with_mode(0o755).failed(1, &["chmod 700"]);
    with_mode(0o700).ok();
}

#[test]
fn a_data_directory_that_is_not_there_names_the_way_out() {
    let sandbox = Sandbox::without_vault();
    sandbox.run(&["tenant", "list"]).failed(1, &["tenantry init"]);
    sandbox.run(&["audit", "list"]).failed(2, &["no such file", "--data-dir"]);
    assert!(!sandbox.data_dir().join("store").exists());
}

#[test]
fn a_taken_port_is_told_before_the_passphrase_is_asked_for() {
    let sandbox = Sandbox::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    sandbox.run(&["serve", "--listen", &address]).failed(75, &[&address, "--listen", "IN_USE"]);
    sandbox.run(&["serve", "--listen", "0.0.0.0:0"]).failed(2, &["behind_tls_proxy"]);
}

#[test]
fn a_wrong_setting_is_named_with_its_place() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("tenantry.toml"), "[pool]\nmax_instances = 1\n").unwrap();
    sandbox.run(&["tenant", "list"]).failed(2, &["max_instances"]);
    std::fs::remove_file(sandbox.path("tenantry.toml")).unwrap();
    let mut command = sandbox.command(&["tenant", "list"]);
    finish(command.env("TENANTRY_POOL__ACQUIRE_TIMEOUT_MS", "soon"))
        .failed(2, &["TENANTRY_POOL__ACQUIRE_TIMEOUT_MS"]);
}

#[test]
fn tokens_are_shown_once_listed_and_revoked() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({}));
    sandbox.import();
    sandbox
        .run(&["token", "create", "--tenant", "tenant002"])
        .failed(1, &["TENANT_NOT_CONFIGURED"]);
    sandbox.run(&["token", "create", "--tenant", "t-1"]).failed(1, &["INVALID_TENANT"]);
    sandbox
        .run(&["token", "create", "--tenant", "tenant001", "--scope", "root"])
        .failed(2, &["--scope"]);
    sandbox
        .run(&["token", "create", "--tenant", "tenant001", "--expires", "soon"])
        .failed(2, &["--expires soon", "90d"]);
    let arguments =
        ["token", "create", "--tenant", "tenant001", "--expires", "90d", "--scope", "query"];
    let created = sandbox.json(&arguments);
    let fields: Vec<&String> = created.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["token_id", "token", "tenant_id", "scopes", "expires_at"]);
    assert_eq!(created["scopes"], json!(["query"]));
    let id = created["token_id"].as_str().unwrap();
    let listed = sandbox.run(&["token", "list"]).ok().stdout;
    assert!(listed.contains(id) && !listed.contains(created["token"].as_str().unwrap()));
    sandbox.run(&["token", "revoke", id]).ok();
    sandbox.run(&["token", "revoke", id]).failed(1, &["no such token"]);
    let entries = sandbox.audit(&[]);
    let of = |action: &str| {
        let of_action = entries.iter().filter(|entry| entry["action"] == action);
        of_action.map(|entry| (entry["decision"].as_str(), entry["resource"].as_str())).collect()
    };
    let revoked: Vec<_> = of("token.revoke");
    let expected = ["begun", "allowed", "begun", "denied"].map(|it| (Some(it), Some(id)));
    assert_eq!(revoked, expected);
    let created: Vec<_> = of("token.create");
    assert_eq!(created.last(), Some(&(Some("allowed"), Some(id))));
    assert_eq!(sandbox.json(&["token", "list"]), json!([]));
}

#[test]
fn what_an_operator_changes_is_announced_and_concluded_in_the_audit_log() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({}));
    sandbox.import();
    let entries = sandbox.audit(&[]);
    let import: Vec<_> =
        entries.iter().filter(|entry| entry["action"] == "tenant.import").collect();
    assert_eq!(import[0]["decision"], "begun");
    assert_eq!(import[1]["decision"], "allowed");
    assert_eq!(import[0]["request_id"], import[1]["request_id"]);
    sandbox.run(&["audit", "list", "--code", "NONSENSE"]).failed(2, &["FORBIDDEN"]);
    assert_eq!(sandbox.audit(&["--last", "1"]).len(), 1);
    assert_eq!(sandbox.audit(&["--since", "1h"]).len(), entries.len());
    let table = sandbox.run(&["audit", "list"]).ok().stdout;
    assert!(table.starts_with("SEQ"), "{table}");
}

#[test]
fn an_audit_log_that_cannot_be_written_stops_what_it_should_record() {
    let sandbox = Sandbox::new();
    sandbox.run(&["tenant", "list"]).ok();
    let audit = sandbox.data_dir().join("audit");
    std::fs::remove_dir_all(&audit).unwrap();
    std::fs::write(&audit, "in the way").unwrap();
    sandbox.run(&["tenant", "list"]).failed(75, &["AUDIT_UNAVAILABLE"]);
    std::fs::remove_file(&audit).unwrap();
    sandbox.run(&["tenant", "list"]).ok();
}

/// The README's first command, as far as a test can follow it: in a directory of its own, from
/// nothing, with a real client; then once more on what the first run left.
#[test]
fn the_demo_shows_the_main_job_and_runs_again() {
    let sandbox = Sandbox::without_vault();
    for _ in 0..2 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        command.args(["demo", "--once"]).current_dir(sandbox.path("")).stdin(Stdio::null());
        let shown = finish(&mut command).ok().stdout;
        for part in [
            "list_tenant_resources",
            "query_tenant_data",
            "get_tenant_metadata",
            "mcp://acmecorp/database/table/customers",
            "@acmecorp.example",
            "FORBIDDEN: this resource does not belong to your tenant",
            "denied",
        ] {
            assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
        }
        assert!(!shown.contains("@globex01.example"), "{shown}");
    }
    assert!(sandbox.path("tenantry-demo/databases/initech1.db").exists());
}
