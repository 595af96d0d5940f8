//! The MCP SDKs that people use, against the server: every one must see its own tenant and be
//! refused another's.
//!
//! The scripts take the server from variables: `MCP_URL` and `MCP_TOKEN` (Streamable HTTP),
//! `MCP_COMMAND` (stdio, a JSON array), `EXPECT_TENANT` (whose token it is) and `FOREIGN_TENANT`
//! (a tenant that exists and is not theirs). `./dev test` installs the SDKs into `target/clients`.
#![expect(clippy::unwrap_used, reason = "a failed set-up should fail the test")]
#![expect(clippy::print_stdout, reason = "the versions that were negotiated, under --nocapture")]

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::{env, io, thread};

/// Interpreter, below `target/clients`, and script, below `tests/clients`.
const CLIENTS: [(&str, &str); 4] = [
    ("mcp==1.30.0/bin/python", "python/legacy.py"),
    ("mcp==2.3.0/bin/python", "python/modern.py"),
    ("node", "typescript/client.mjs"),
    ("node", "typescript/sdk.mjs"),
];

#[test]
fn every_client_sees_its_own_tenant_and_no_other() {
    let names = ["MCP_URL", "MCP_TOKEN", "MCP_COMMAND", "EXPECT_TENANT", "FOREIGN_TENANT"];
    let variables: Vec<(&str, OsString)> =
        names.into_iter().filter_map(|name| Some((name, env::var_os(name)?))).collect();
    if variables.is_empty() {
        return skip("clients", "no server given");
    }
    run_clients(&variables);
}

/// Says so past the capture of the test runner, which hides what a passing test prints.
fn skip(what: &str, reason: &str) {
    io::stderr().write_all(format!("skipped {what}: {reason}\n").as_bytes()).unwrap();
}

/// Runs every client at once against the server that `variables` describe.
fn run_clients(variables: &[(&str, OsString)]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    thread::scope(|scope| {
        for (interpreter, script) in CLIENTS {
            scope.spawn(move || {
                let interpreter = root.join("target/clients").join(interpreter);
                if !interpreter.exists() {
                    return skip(script, "./dev test installs what it needs");
                }
                let script = root.join("tests/clients").join(script);
                print!("{}", run_script(&interpreter, &[script.into()], variables));
            });
        }
    });
}

/// Runs `program`, asserts that it succeeds, and returns what it printed.
fn run_script(program: &Path, arguments: &[OsString], variables: &[(&str, OsString)]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}\n{printed}{errors}",
        program.display(),
        output.status
    );
    printed.into_owned()
}
