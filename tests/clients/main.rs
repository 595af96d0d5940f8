//! The MCP SDKs that people use, against the running program: every one must see its own tenant and
//! be refused another's.
//!
//! The scripts take the server from variables: `MCP_URL` and `MCP_TOKEN` (Streamable HTTP),
//! `MCP_COMMAND` (stdio, a JSON array), `EXPECT_TENANT` (whose token it is), `FOREIGN_TENANT` (a tenant
//! that exists and is not theirs) and `OPERATOR` (a command that gives the tenant more tools, a JSON
//! array). `./dev test` installs the SDKs into `target/clients`.
#![expect(clippy::print_stdout, reason = "the versions that were negotiated, under --nocapture")]

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::json;

use support::{Sandbox, finish};

/// Interpreter, below `target/clients`, and script, below `tests/clients`.
const CLIENTS: [(&str, &str); 5] = [
    ("mcp==1.30.0/bin/python", "python/legacy.py"),
    ("mcp==2.3.0/bin/python", "python/modern.py"),
    ("node", "typescript/client.mjs"),
    ("node", "typescript/sdk.mjs"),
    ("node", "typescript/inspector.mjs"),
];

/// Those that are told of changes in a session.
const IN_SESSIONS: [(&str, &str); 2] =
    [("mcp==1.30.0/bin/python", "python/sessions.py"), ("node", "typescript/sessions.mjs")];

#[test]
fn every_client_sees_its_own_tenant_and_no_other_over_http() {
    let sandbox = two_tenants();
    let token = sandbox.token("tenant001");
    let server = sandbox.serve();
    each_at_once(&CLIENTS, |interpreter, script| {
        run_script(interpreter, script, &[("MCP_URL", &server.endpoint), ("MCP_TOKEN", &token)]);
    });
    let forbidden = sandbox.audit(&["--code", "FORBIDDEN", "--tenant", "tenant002"]);
    assert!(forbidden.len() >= CLIENTS.len(), "{forbidden:?}");
}

#[test]
fn every_client_sees_its_own_tenant_and_no_other_over_stdio() {
    each_at_once(&CLIENTS, |interpreter, script| {
        // A data directory is one process's at a time.
        let sandbox = two_tenants();
        let command = sandbox.command(&["stdio", "--tenant", "tenant001"]);
        let command = json!(words(&command)).to_string();
        run_script(interpreter, script, &[("MCP_COMMAND", &command)]);
    });
}

#[test]
fn clients_in_sessions_are_told_of_changes_and_what_became_of_calls() {
    each_at_once(&IN_SESSIONS, |interpreter, script| {
        let sandbox = two_tenants();
        let token = sandbox.token("tenant001");
        let server = sandbox.serve_with(&[("TENANTRY_HTTP__SESSIONS", "true")]);
        let file = json!({
            "tenant_id": "tenant001", "db_engine": "sqlite", "db_path": "tenant001.db",
            "features": { "advanced_analytics": true },
        });
        sandbox.write_config("tenant001.json", &file.to_string());
        let configs = sandbox.path("configs");
        let operator = sandbox.command(&["tenant", "import", configs.to_str().unwrap()]);
        let variables = [
            ("MCP_URL", server.endpoint.as_str()),
            ("MCP_TOKEN", &token),
            ("OPERATOR", &json!(words(&operator)).to_string()),
        ];
        run_script(interpreter, script, &variables);
    });
}

fn words(command: &Command) -> Vec<&str> {
    let program = std::iter::once(command.get_program());
    program.chain(command.get_args()).filter_map(|word| word.to_str()).collect()
}

fn two_tenants() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({}));
    sandbox.add_tenant("tenant002", &json!({}));
    sandbox.import();
    sandbox
}

fn each_at_once(clients: &[(&str, &str)], run: impl Fn(&Path, &Path) + Sync) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = &run;
    thread::scope(|scope| {
        for (interpreter, script) in clients {
            let interpreter = root.join("target/clients").join(interpreter);
            assert!(interpreter.exists(), "run ./dev test, which installs what {script} needs");
            let script = root.join("tests/clients").join(script);
            scope.spawn(move || run(&interpreter, &script));
        }
    });
}

fn run_script(interpreter: &Path, script: &Path, variables: &[(&str, &str)]) {
    let mut command = Command::new(interpreter);
    command
        .arg(script)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("EXPECT_TENANT", "tenant001")
        .env("FOREIGN_TENANT", "tenant002")
        .envs(variables.iter().copied());
    println!("{}: {}", script.display(), finish(&mut command).ok().stdout);
}
