//! What somebody meets who uses it for the first time, and the ways out that are named then.

use serde_json::{Value, json};
use tenantry::store::DataDir;

use super::support::{Sandbox, finish};

const MISSPELT: &str = "[log]\nlevl = \"info\"\n";
const MEANT: &str = "tenantry.toml: log.levl: unknown setting; did you mean log.level?";

#[test]
fn a_clients_address_is_the_public_one_or_that_of_the_listener() {
    let sandbox = Sandbox::new();
    let url = |settings: &str, arguments: &[&str]| {
        std::fs::write(sandbox.path("tenantry.toml"), settings).unwrap();
        let all = ["client-config", "--tenant", "tenant001", "--for", "cursor"];
        let config = sandbox.json(&[&all, arguments].concat());
        config["mcpServers"]["tenantry-tenant001"]["url"].as_str().unwrap().to_owned()
    };
    assert_eq!(url("", &[]), "http://127.0.0.1:8642/mcp/tenant001");
    let tls = "[http.tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n";
    assert_eq!(url(tls, &[]), "https://127.0.0.1:8642/mcp/tenant001");
    let public = "[http]\npublic_url = \"https://mcp.example.com\"\n";
    assert_eq!(url(public, &[]), "https://mcp.example.com/mcp/tenant001");
    let of = |given: &str| url(public, &["--url", given]);
    assert_eq!(of("https://other.example.com/"), "https://other.example.com/mcp/tenant001");
    assert_eq!(of("https://other.example.com/gate"), "https://other.example.com/gate");
}

#[test]
fn a_program_is_not_told_to_have_a_token_made() {
    let sandbox = Sandbox::new();
    let told = |client: &str| {
        let arguments = ["client-config", "--tenant", "tenant001", "--for", client];
        sandbox.run(&arguments).ok().stderr
    };
    let program = told("claude-desktop");
    assert!(program.contains("no token is needed"), "{program}");
    assert!(!program.contains("token create"), "{program}");
    assert!(told("vscode").contains("tenantry token create --tenant tenant001"));
}

#[test]
fn a_misspelt_setting_leaves_a_running_service_operable() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    std::fs::write(sandbox.path("tenantry.toml"), MISSPELT).unwrap();
    let sealed = sandbox.run(&["seal"]).ok();
    assert!(sealed.stderr.contains(MEANT), "{}", sealed.stderr);
    for verb in [&["reload"][..], &["doctor"], &["stdio", "--tenant", "tenant001"]] {
        sandbox.run(verb).failed(2, &[MEANT]);
    }
    server.stop().ok();
    sandbox.run(&["tenant", "list"]).failed(2, &[MEANT]);
    let mut by_variable = sandbox.command(&["serve"]);
    std::fs::remove_file(sandbox.path("tenantry.toml")).unwrap();
    finish(by_variable.env("TENANTRY_HTTP__LISTN", "127.0.0.1:0"))
        .failed(2, &["TENANTRY_HTTP__LISTN: unknown setting; did you mean TENANTRY_HTTP__LISTEN?"]);
}

#[test]
fn a_directory_that_another_program_has_is_to_be_shared_by_a_service() {
    let sandbox = Sandbox::new();
    let held = DataDir::open(sandbox.data_dir()).unwrap();
    sandbox.run(&["tenant", "list"]).failed(75, &["IN_USE", "run `tenantry serve`"]);
    drop(held);
    let server = sandbox.serve();
    sandbox.run(&["tenant", "list"]).ok();
    // Whatever else would be wrong, such as a port that the first one has.
    sandbox.run(&["serve"]).failed(75, &["already serves", "`tenantry status`"]);
    server.stop().ok();
}

#[test]
fn what_is_shown_once_stands_alone_on_standard_output() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({}));
    sandbox.import();
    let token = sandbox.run(&["token", "create", "--tenant", "tenant001"]).ok();
    assert!(token.stdout.starts_with("tnt_") && token.stdout.lines().count() == 1);
    let note = "for tenant001, scopes list, query, metadata, never expires; it is not shown again";
    assert!(token.stderr.contains(note), "{}", token.stderr);
    let operator =
        sandbox.run(&["operator", "create", "--role", "auditor", "--expires", "1d"]).ok();
    assert_eq!(operator.stdout.lines().count(), 1);
    assert!(operator.stderr.contains("auditor, expires 2"), "{}", operator.stderr);
    let shares = ["slot", "add", "shares", "--threshold", "2", "--count", "3"];
    let shares = sandbox.run(&shares).ok();
    assert_eq!(shares.stdout.lines().count(), 3);
    assert!(shares.stderr.contains("not shown again"), "{}", shares.stderr);
}

#[test]
fn a_new_data_directory_has_a_place_for_databases_and_nothing_left_over() {
    let sandbox = Sandbox::without_vault();
    sandbox.run(&["init"]).ok();
    assert!(sandbox.data_dir().join("databases").is_dir());
    assert!(!sandbox.data_dir().join("unfinished").exists());
    assert_eq!(sandbox.run(&["audit", "list"]).ok().stdout, "(none)\n");
    let file = json!({ "tenant_id": "sqlite01", "db_engine": "sqlite", "db_path": "nope.db" });
    sandbox.write_config("sqlite01.json", &file.to_string());
    let configs = sandbox.path("configs");
    let told = sandbox.run(&["tenant", "import", configs.to_str().unwrap()]).ok().stderr;
    assert!(told.contains("databases/nope.db does not exist yet"), "{told}");
    std::fs::write(sandbox.data_dir().join("databases/nope.db"), "").unwrap();
    let told = sandbox.run(&["tenant", "import", configs.to_str().unwrap()]).ok().stderr;
    assert!(!told.contains("nope.db"), "{told}");
}

#[test]
fn a_passphrase_that_is_too_short_is_refused_before_the_old_one_is_tried() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("passphrase"), "not the passphrase").unwrap();
    let change = |new: &str| {
        std::fs::write(sandbox.path("new"), new).unwrap();
        let new = sandbox.path("new");
        sandbox.run(&["passphrase", "change", "--new-passphrase-file", new.to_str().unwrap()])
    };
    change("too short").failed(1, &["14"]);
    change("long enough to be one").failed(3, &["passphrase"]);
}

#[test]
fn a_service_that_starts_sealed_says_so_and_callers_are_told_how_to_open_it() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve_sealed();
    sandbox.run(&["tenant", "list"]).failed(3, &["the whole vault is sealed; `tenantry unseal`"]);
    sandbox.run(&["unseal", "tenant001"]).failed(3, &["the whole vault is sealed"]);
    sandbox.run(&["unseal"]).ok();
    sandbox.run(&["tenant", "list"]).ok();
    server.stop().ok();
}

#[test]
fn where_a_verb_was_done_is_said_once_and_only_when_asked_for() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    assert_eq!(sandbox.run(&["tenant", "list"]).ok().stderr, "");
    let told = sandbox.run(&["--verbose", "root", "rotate"]).ok().stderr;
    assert_eq!(told.matches("done by the running service").count(), 1, "{told}");
    server.stop().ok();
}

#[test]
fn usage_errors_are_json_for_who_asked_for_it_and_shells_know_the_arguments() {
    let sandbox = Sandbox::new();
    let refused = sandbox.run(&["--json", "tenant", "lst"]).failed(2, &["lst"]);
    let error: Value = serde_json::from_str(&refused.stderr).unwrap();
    assert_eq!(error["error_code"], "INVALID_ARGUMENT");
    sandbox.run(&["tenant", "lst"]).failed(2, &["error: unrecognized subcommand"]);
    for shell in ["bash", "zsh", "fish"] {
        let script = sandbox.run(&["completions", shell]).ok().stdout;
        assert!(script.contains("tenantry") && script.contains("passphrase-file"), "{script}");
    }
}

#[test]
fn the_demo_is_not_made_in_somebodys_data_directory() {
    let sandbox = Sandbox::without_vault();
    sandbox.run(&["demo", "--once"]).failed(2, &["./tenantry-demo", "--data-dir"]);
    assert!(!sandbox.data_dir().exists() && !sandbox.path("tenantry-demo").exists());
}
