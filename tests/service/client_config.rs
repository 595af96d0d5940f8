//! What `client-config` prints works.

use std::process::Command;

use rmcp::transport::TokioChildProcess;
use serde_json::Value;

use crate::support::{Sandbox, finish};
use crate::{Era, TwoTenants, connect, converse, query};

/// What is printed for `client`.
fn config(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let all: Vec<_> = ["client-config", "--tenant", "tenant001", "--for"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    serde_json::from_str(&sandbox.run(&all).ok().stdout).unwrap()
}

#[tokio::test]
async fn a_program_starts_as_it_is_printed_for_desktop_clients() {
    let tenants = TwoTenants::new();
    for (arguments, key) in [
        (&["claude-desktop"][..], "mcpServers"),
        (&["cursor", "--stdio"][..], "mcpServers"),
        (&["vscode", "--stdio"][..], "servers"),
    ] {
        let config = config(&tenants.sandbox, arguments);
        let server = &config[key]["tenantry-tenant001"];
        let words: Vec<_> = server["args"].as_array().unwrap().iter().collect();
        let mut command = Command::new(server["command"].as_str().unwrap());
        // Clients start it anywhere.
        command.current_dir("/").args(words.iter().map(|word| word.as_str().unwrap()));
        let client = converse(
            TokioChildProcess::new(tokio::process::Command::from(command)).unwrap(),
            Era::Legacy,
        )
        .await;
        let answer = query(&client, "mcp://tenant001/database", "SELECT 1").await;
        assert_ne!(answer.is_error, Some(true), "{answer:?}");
        client.cancel().await.unwrap();
    }
}

#[tokio::test]
async fn a_service_is_reached_as_it_is_printed() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let url = format!("{}/tenant001", server.endpoint);
    let token = &tenants.tokens[0];
    for (client, key, named) in [
        ("cursor", "mcpServers", "${env:TENANTRY_TOKEN}"),
        ("vscode", "servers", "${input:tenantry-tenant001-token}"),
    ] {
        let config = config(&tenants.sandbox, &[client, "--url", &url]);
        let server = &config[key]["tenantry-tenant001"];
        let credential = server["headers"]["Authorization"].as_str().unwrap().replace(named, token);
        let token = credential.strip_prefix("Bearer ").unwrap();
        let client = connect(server["url"].as_str().unwrap(), token, Era::Modern).await;
        let answer = query(&client, "mcp://tenant001/database", "SELECT 1").await;
        assert_ne!(answer.is_error, Some(true), "{answer:?}");
        client.cancel().await.unwrap();
    }

    let arguments = ["client-config", "--tenant", "tenant001", "--for", "curl", "--url", &url];
    let script = tenants.sandbox.run(&arguments).ok().stdout;
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env("TENANTRY_TOKEN", token);
    let answer: Value = serde_json::from_str(&finish(&mut shell).ok().stdout).unwrap();
    let resources = &answer["result"]["structuredContent"]["resources"];
    assert_eq!(resources[0]["uri"], "mcp://tenant001/database", "{answer}");
    server.stop().ok();
}

#[test]
fn what_cannot_be_printed_says_what_to_do() {
    let sandbox = Sandbox::new();
    let run = |arguments: &[&str]| {
        let all: Vec<_> =
            ["client-config", "--tenant", "tenant001"].iter().chain(arguments).copied().collect();
        finish(&mut sandbox.keyless_command(&all))
    };
    run(&["--for", "emacs"]).failed(2, &["claude-desktop", "cursor", "vscode", "curl"]);
    run(&["--for", "curl", "--stdio"]).failed(2, &["leave --stdio out"]);
    run(&["--for", "claude-desktop", "--url", "http://x"]).failed(2, &["Connectors"]);
    let printed = run(&["--for", "claude-desktop"]).ok();
    assert!(printed.stderr.contains("works while the service runs"), "{}", printed.stderr);
    let mut beyond = sandbox.keyless_command(&["client-config", "--tenant", "tenant001", "--for"]);
    beyond.arg("cursor").env("TENANTRY_HTTP__LISTEN", "127.0.0.1:0");
    finish(&mut beyond).failed(2, &["give --url"]);
}
