//! A tenant's server on standard input and output.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use rmcp::transport::TokioChildProcess;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::mcp::use_everything;
use crate::support::{Sandbox, finish};
use crate::{Era, TwoTenants, call, content, converse, error_code, query};

#[tokio::test]
async fn a_desktop_client_of_either_era_uses_every_tool_over_stdio() {
    for era in [Era::Legacy, Era::Modern] {
        let tenants = TwoTenants::new();
        let command = tenants.sandbox.command(&["stdio", "--tenant", "tenant001"]);
        let client = converse(TokioChildProcess::new(Command::from(command)).unwrap(), era).await;
        use_everything(&client).await;
        let foreign = query(&client, "mcp://tenant002/database", "SELECT 1").await;
        assert_eq!(error_code(&foreign), "FORBIDDEN");
        client.cancel().await.unwrap();
        let forbidden = tenants.sandbox.audit(&["--code", "FORBIDDEN"]);
        assert_eq!(forbidden.len(), 1);
        assert_eq!(forbidden[0]["actor"]["kind"], "operator");
        assert_eq!(forbidden[0]["peer"], "stdio");
        assert_eq!(forbidden[0]["request_id"], content(&foreign)["request_id"]);
    }
}

/// No key is asked for: the service has the vault.
#[tokio::test]
async fn a_desktop_client_uses_every_tool_of_the_service_that_runs() {
    let tenants = TwoTenants::new();
    // Sessions are for clients that have a header for them.
    let server = tenants.sandbox.serve_with(&[("TENANTRY_HTTP__SESSIONS", "true")]);
    for era in [Era::Legacy, Era::Modern] {
        let command = tenants.sandbox.keyless_command(&["stdio", "--tenant", "tenant001"]);
        let client = converse(TokioChildProcess::new(Command::from(command)).unwrap(), era).await;
        use_everything(&client).await;
        let foreign = query(&client, "mcp://tenant002/database", "SELECT 1").await;
        assert_eq!(error_code(&foreign), "FORBIDDEN");
        let write = json!({ "resource_uri": "mcp://tenant001/database", "statement": "x" });
        let write = call(&client, "write_tenant_data", write).await;
        assert_eq!(error_code(&write), "FORBIDDEN");
        client.cancel().await.unwrap();
    }
    let forbidden = tenants.sandbox.audit(&["--code", "FORBIDDEN"]);
    assert_eq!(forbidden.len(), 4);
    for entry in &forbidden {
        assert_eq!(
            (&entry["actor"]["kind"], &entry["peer"]),
            (&json!("operator"), &json!("stdio"))
        );
        assert_eq!(entry["tenant"], "tenant001");
    }

    // What is no message is told so, whatever else is under way.
    let mut command = tenants.sandbox.keyless_command(&["stdio", "--tenant", "tenant001"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"jsonrpc\"\n").unwrap();
    let answer: Value = serde_json::from_reader(child.stdout.take().unwrap()).unwrap();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32_700)));
    assert!(child.wait().unwrap().success());

    // A tenant that is not there is told so by each call.
    let mut command = tenants.sandbox.keyless_command(&["stdio", "--tenant", "nobody01"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let call = json!({ "jsonrpc": "2.0", "id": "a", "method": "tools/list" });
    writeln!(child.stdin.take().unwrap(), "{call}").unwrap();
    let answer: Value = serde_json::from_reader(child.stdout.take().unwrap()).unwrap();
    assert_eq!(answer["id"], "a");
    assert_eq!(answer["error"]["data"]["error_code"], "TENANT_NOT_CONFIGURED");
    assert!(child.wait().unwrap().success());
    server.stop().ok();
}

#[tokio::test]
async fn a_client_may_write_when_its_operator_says_so() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({ "access": { "mode": "read_write" } }));
    sandbox.import();
    let change = json!({
        "resource_uri": "mcp://tenant001/database/table/customers",
        "statement": "UPDATE customers SET name = 'Eve' WHERE id = 2",
    });
    for (scope, code) in [("query", Some("FORBIDDEN")), ("query,write", None)] {
        let arguments = ["stdio", "--tenant", "tenant001", "--scope", scope];
        let command = sandbox.command(&arguments);
        let client =
            converse(TokioChildProcess::new(Command::from(command)).unwrap(), Era::Modern).await;
        let answer = call(&client, "write_tenant_data", change.clone()).await;
        match code {
            Some(code) => assert_eq!(error_code(&answer), code),
            None => assert_eq!(content(&answer)["row_count"], 1, "{answer:?}"),
        }
        client.cancel().await.unwrap();
    }
    let wrong = sandbox.run(&["stdio", "--tenant", "tenant001", "--scope", "root"]);
    wrong.failed(2, &["list, query, metadata, write"]);
}

/// The same lines posted to the service and given to `stdio` are answered alike.
#[tokio::test]
async fn what_stdio_answers_is_what_http_answers() {
    let tenants = TwoTenants::new();
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let call = |name: &str, arguments: Value| json!({ "name": name, "arguments": arguments, "_meta": meta });
    let database = "mcp://tenant001/database";
    let messages: Vec<(&str, Value)> = vec![
        ("server/discover", json!({ "_meta": meta })),
        ("tools/list", json!({ "_meta": meta })),
        ("tools/list", json!({})),
        ("tools/call", call("list_tenant_resources", json!({}))),
        (
            "tools/call",
            call(
                "query_tenant_data",
                json!({
                    "resource_uri": database, "query": "SELECT id, name FROM customers",
                }),
            ),
        ),
        (
            "tools/call",
            call(
                "query_tenant_data",
                json!({
                    "resource_uri": database, "query": "DROP TABLE customers",
                }),
            ),
        ),
        (
            "tools/call",
            call(
                "query_tenant_data",
                json!({
                    "resource_uri": "mcp://tenant002/database", "query": "SELECT 1",
                }),
            ),
        ),
        ("tools/call", call("query_tenant_data", json!({ "tenant_id": "tenant002" }))),
        ("tools/call", call("no_such_tool", json!({}))),
        ("resources/list", json!({ "_meta": meta })),
        ("resources/read", json!({ "uri": format!("{database}/table/customers"), "_meta": meta })),
        ("resources/read", json!({ "uri": "mcp://tenant001/\u{e9}", "_meta": meta })),
        ("no/such/method", json!({ "_meta": meta })),
    ];
    let messages: Vec<Value> = (1..)
        .zip(messages)
        .map(|(id, (method, params))| {
            json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
        })
        .collect();

    let server = tenants.sandbox.serve();
    let http = reqwest::Client::new();
    let mut over_http = Vec::new();
    for message in &messages {
        let params = &message["params"];
        let mut request = http
            .post(&server.endpoint)
            .bearer_auth(&tenants.tokens[0])
            .header("accept", "application/json, text/event-stream")
            .json(message);
        if params["_meta"].is_object() {
            request = request.header("mcp-protocol-version", "2026-07-28");
            request = request.header("mcp-method", message["method"].as_str().unwrap());
            if let Some(name) = params["name"].as_str().or(params["uri"].as_str()) {
                // What `é` is in Base64, with what stands before it.
                let encoded = "=?base64?bWNwOi8vdGVuYW50MDAxL8OpCg==?=".replace("Cg==", "");
                request = request.header("mcp-name", if name.is_ascii() { name } else { &encoded });
            }
        }
        over_http.push(request.send().await.unwrap().json::<Value>().await.unwrap());
    }
    server.stop().ok();

    let mut command = tenants.sandbox.command(&["stdio", "--tenant", "tenant001"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for message in &messages {
        writeln!(input, "{message}").unwrap();
    }
    drop(input);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut over_stdio: Vec<Value> =
        lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert!(child.wait().unwrap().success());
    over_stdio.sort_by_key(|answer| answer["id"].as_u64());
    assert_eq!(over_stdio.len(), messages.len());
    for ((message, http), stdio) in messages.iter().zip(over_http).zip(over_stdio) {
        let (http, stdio) = (comparable(http), comparable(stdio));
        assert_eq!(http["id"], message["id"], "{http}");
        assert_eq!(http, stdio, "{message}");
    }
}

/// Without what is another one each time.
fn comparable(mut answer: Value) -> Value {
    fn forget(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for name in ["request_id", "elapsed_ms", "used", "remaining", "resets_at"] {
                    members.remove(name);
                }
                members.values_mut().for_each(forget);
            }
            Value::Array(items) => items.iter_mut().for_each(forget),
            Value::String(text) => {
                if let Ok(mut inner @ Value::Object(_)) = serde_json::from_str(text) {
                    forget(&mut inner);
                    *text = inner.to_string();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    forget(&mut answer);
    answer
}

#[test]
fn a_tenant_that_is_not_there_ends_it_before_anything_is_read() {
    let sandbox = Sandbox::new();
    let ended = finish(&mut sandbox.command(&["stdio", "--tenant", "nobody01"]));
    ended.failed(1, &["TENANT_NOT_CONFIGURED"]);
}
