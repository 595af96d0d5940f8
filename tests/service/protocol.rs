//! What is on the wire in each protocol era: hints, notifications, progress, cancellation, time limits.

use std::time::Duration;

use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::TwoTenants;
use crate::support::{Sandbox, Server};

pub(crate) const MODERN: &str = "2026-07-28";
/// Counts for minutes.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// A request as clients of the current revision send it, with `meta` beside what they all send.
fn modern(
    server: &Server,
    token: &str,
    method: &str,
    params: Value,
    meta: &Value,
) -> RequestBuilder {
    let mut params = params;
    let mut own = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    for (key, value) in meta.as_object().into_iter().flatten() {
        own[key] = value.clone();
    }
    params["_meta"] = own;
    let name = params["name"].as_str().or(params["uri"].as_str()).map(str::to_owned);
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let request = reqwest::Client::new()
        .post(&server.endpoint)
        .bearer_auth(token)
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", MODERN)
        .header("Mcp-Method", method)
        .json(&body);
    match name {
        Some(name) => request.header("Mcp-Name", name),
        None => request,
    }
}

/// The same as clients of an older revision do.
pub(crate) fn legacy(server: &Server, token: &str, method: &str, params: &Value) -> RequestBuilder {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    reqwest::Client::new()
        .post(&server.endpoint)
        .bearer_auth(token)
        .header("Accept", "application/json, text/event-stream")
        .json(&body)
}

pub(crate) async fn answer(request: RequestBuilder) -> Value {
    request.send().await.unwrap().json().await.unwrap()
}

pub(crate) fn endless() -> Value {
    let arguments = json!({ "resource_uri": "mcp://tenant001/database", "query": ENDLESS });
    json!({ "name": "query_tenant_data", "arguments": arguments })
}

/// Reads an event stream until `is_last` says so of a message, or to its end.
pub(crate) async fn messages(
    response: &mut Response,
    is_last: impl Fn(&Value) -> bool,
) -> Vec<Value> {
    let (mut text, mut messages) = (String::new(), Vec::new());
    while let Some(chunk) = response.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            let data = event.lines().filter_map(|line| line.strip_prefix("data:"));
            let data = data.collect::<String>();
            if let Ok(message) = serde_json::from_str::<Value>(&data) {
                messages.push(message);
                if is_last(messages.last().unwrap()) {
                    return messages;
                }
            }
            text = rest.to_owned();
        }
    }
    messages
}

#[tokio::test]
async fn every_answer_says_how_long_it_is_good_for_to_whom_and_who_gave_it() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let token = &tenants.tokens[0];
    let table = "mcp://tenant001/database/table/customers";
    let cacheable = [
        ("server/discover", json!({})),
        ("tools/list", json!({})),
        ("prompts/list", json!({})),
        ("resources/list", json!({})),
        ("resources/templates/list", json!({})),
        ("resources/read", json!({ "uri": table })),
    ];
    for (method, params) in cacheable {
        let answer = answer(modern(&server, token, method, params, &json!({}))).await;
        let result = &answer["result"];
        assert!(result["ttlMs"].is_u64(), "{method}: {answer}");
        assert_eq!(result["cacheScope"], "private", "{method}");
        assert_eq!(result["_meta"][SERVER_INFO]["name"], "tenantry", "{method}: {answer}");
    }
    let call = json!({ "name": "get_tenant_metadata", "arguments": {} });
    let called = answer(modern(&server, token, "tools/call", call.clone(), &json!({}))).await;
    assert_eq!(called["result"]["_meta"][SERVER_INFO]["name"], "tenantry");
    // Rows of an older client's answer are not burdened with it.
    let called = answer(legacy(&server, token, "tools/call", &call)).await;
    assert_eq!(called["result"]["_meta"], Value::Null, "{called}");
    assert_eq!(called["result"]["structuredContent"]["tenant_id"], "tenant001");
}

#[tokio::test]
async fn tools_have_titles_and_annotations_and_come_in_the_same_order() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let list = async || answer(legacy(&server, &tenants.tokens[0], "tools/list", &json!({}))).await;
    let listed = list().await;
    for tool in listed["result"]["tools"].as_array().unwrap() {
        assert!(tool["title"].is_string() && tool["description"].is_string(), "{tool}");
        assert_eq!(tool["annotations"]["readOnlyHint"], true, "{tool}");
        assert!(tool["outputSchema"].is_object() && tool["inputSchema"].is_object());
    }
    assert_eq!(list().await, listed);
}

#[tokio::test]
async fn every_revision_since_the_first_is_spoken() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let client = json!({ "name": "test", "version": "1" });
        let params =
            json!({ "protocolVersion": revision, "capabilities": {}, "clientInfo": client });
        let began = answer(legacy(&server, &tenants.tokens[0], "initialize", &params)).await;
        assert_eq!(began["result"]["protocolVersion"], revision, "{began}");
        // It cannot be told, so it is not promised to be.
        assert_eq!(began["result"]["capabilities"]["tools"], json!({}));
        assert_eq!(began["result"]["capabilities"]["resources"], json!({}));
        assert_eq!(began["result"]["capabilities"]["logging"], Value::Null);
    }
    let discovered = modern(&server, &tenants.tokens[0], "server/discover", json!({}), &json!({}));
    let discovered = answer(discovered).await;
    assert_eq!(discovered["result"]["capabilities"]["tools"]["listChanged"], true);
    assert!(discovered["result"]["supportedVersions"].to_string().contains(MODERN));
}

#[tokio::test]
async fn what_is_not_there_is_an_error_of_the_protocol() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let ask = async |method: &str, params: Value| {
        let token = &tenants.tokens[0];
        let modern = answer(modern(&server, token, method, params.clone(), &json!({}))).await;
        let legacy = answer(legacy(&server, token, method, &params)).await;
        assert_eq!(modern["error"]["code"], legacy["error"]["code"], "{modern} {legacy}");
        modern["error"].clone()
    };
    let error = ask("tools/call", json!({ "name": "no_such_tool", "arguments": {} })).await;
    assert_eq!(error["code"], -32602);
    assert_eq!(ask("prompts/get", json!({ "name": "none" })).await["code"], -32602);
    for method in ["tools/list", "resources/list", "resources/templates/list", "prompts/list"] {
        let error = ask(method, json!({ "cursor": "nonsense" })).await;
        assert_eq!(error["code"], -32602, "{method}: {error}");
    }
    let uri = "mcp://tenant001/database/table/nothing";
    let error = ask("resources/read", json!({ "uri": uri })).await;
    assert_eq!((&error["code"], &error["data"]["uri"]), (&json!(-32602), &json!(uri)));
    assert_eq!(ask("logging/setLevel", json!({ "level": "info" })).await["code"], -32601);
}

fn progress(signs: &[Value]) -> Vec<f64> {
    signs.iter().map(|it| it["params"]["progress"].as_f64().unwrap()).collect()
}

#[tokio::test]
async fn a_long_call_gives_signs_of_life_to_who_asked_for_them() {
    let sandbox = Sandbox::new();
    let limits = json!({ "limits": { "statement_timeout_ms": 2_500 } });
    sandbox.add_tenant("tenant001", &limits);
    sandbox.import();
    let token = sandbox.token("tenant001");
    let server = sandbox.serve();
    let meta = json!({ "progressToken": "mine" });
    let asks = modern(&server, &token, "tools/call", endless(), &meta).send().await.unwrap();
    assert_eq!(asks.headers()["content-type"], "text/event-stream");
    let told = messages(&mut { asks }, |message| message["result"].is_object()).await;
    let (result, signs) = told.split_last().unwrap();
    assert_eq!(result["result"]["structuredContent"]["error_code"], "QUERY_TIMEOUT");
    assert_eq!(progress(signs), [1.0, 2.0], "{signs:?}");
    assert!(signs.iter().all(|it| it["params"]["progressToken"] == "mine"));
    // Where rows come one by one, they are counted.
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
        SELECT i FROM n WHERE i % 20000 = 0";
    let arguments = json!({ "resource_uri": "mcp://tenant001/database", "query": rows });
    let reads = json!({ "name": "query_tenant_data", "arguments": arguments });
    let asks = modern(&server, &token, "tools/call", reads, &meta).send().await.unwrap();
    let told = messages(&mut { asks }, |message| message["result"].is_object()).await;
    let (_, signs) = told.split_last().unwrap();
    assert!(progress(signs).is_sorted_by(|before, now| before < now), "{signs:?}");
    let said = signs.last().unwrap()["params"]["message"].as_str().unwrap();
    assert!(said.contains(" rows read in "), "{signs:?}");
    // Who does not ask has one document, and so has who asks and does not wait long.
    let quiet = modern(&server, &token, "tools/call", endless(), &json!({})).send().await.unwrap();
    assert_eq!(quiet.headers()["content-type"], "application/json");
    let quick = json!({ "name": "get_tenant_metadata", "arguments": {} });
    let quick = modern(&server, &token, "tools/call", quick, &meta).send().await.unwrap();
    assert_eq!(quick.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn who_asks_is_told_what_became_of_a_call() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let call = async |uri: &str, level: &str| {
        let arguments =
            json!({ "resource_uri": uri, "query": "SELECT 1 UNION SELECT 2", "limit": 1 });
        let params = json!({ "name": "query_tenant_data", "arguments": arguments });
        let meta = json!({ "io.modelcontextprotocol/logLevel": level });
        let request = modern(&server, &tenants.tokens[0], "tools/call", params, &meta);
        let answer = request.send().await.unwrap();
        if answer.headers()["content-type"] == "application/json" {
            return vec![answer.json().await.unwrap()];
        }
        messages(&mut { answer }, |message| message["result"].is_object()).await
    };
    let (own, foreign) = ("mcp://tenant001/database", "mcp://tenant002/database");
    for (uri, wanted, told) in [
        (own, "debug", Some("warning")),
        (own, "warning", Some("warning")),
        (own, "error", None),
        (foreign, "error", Some("error")),
        (foreign, "critical", None),
    ] {
        let messages = call(uri, wanted).await;
        let (result, before) = messages.split_last().unwrap();
        let content = &result["result"]["structuredContent"];
        if uri == own {
            assert_eq!(content["rows"], json!([[1]]), "{result}");
        }
        let Some(level) = told else {
            assert!(before.is_empty(), "{before:?}");
            continue;
        };
        let [notice] = before else { unreachable!("{before:?}") };
        assert_eq!(notice["method"], "notifications/message");
        assert_eq!(notice["params"]["level"], level);
        let data = &notice["params"]["data"];
        assert_eq!(data["tool"], "query_tenant_data");
        assert_eq!(data["row_count"], content["row_count"]);
        assert_eq!(data["error_code"], content["error_code"]);
        assert!(!data.to_string().contains("tenant002"), "{data}");
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long_in_all_is_dropped_and_recorded() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({ "limits": { "statement_timeout_ms": 3_600_000 } }));
    sandbox.import();
    let token = sandbox.token("tenant001");
    let server = sandbox.serve_with(&[("TENANTRY_POOL__CALL_TIMEOUT_SECONDS", "1")]);
    for request in [
        modern(&server, &token, "tools/call", endless(), &json!({})),
        legacy(&server, &token, "tools/call", &endless()),
    ] {
        let told = answer(request).await;
        assert_eq!(told["error"]["data"]["error_code"], "QUERY_TIMEOUT", "{told}");
    }
    server.stop().ok();
    let entries = sandbox.audit(&[]);
    let dropped = entries.iter().filter(|entry| entry["decision"] == "abandoned").count();
    assert_eq!(dropped, 2, "{entries:?}");
}

#[tokio::test]
async fn a_call_ends_when_its_caller_goes_in_either_era() {
    let sandbox = Sandbox::new();
    let more = json!({
        "limits": { "statement_timeout_ms": 3_600_000 },
        "quotas": { "max_concurrent_connections": 1 },
    });
    sandbox.add_tenant("tenant001", &more);
    sandbox.import();
    let token = sandbox.token("tenant001");
    let server = sandbox.serve();
    let simple = json!({
        "resource_uri": "mcp://tenant001/database", "query": "SELECT 1 AS one",
    });
    let simple = json!({ "name": "query_tenant_data", "arguments": simple });
    for request in [
        modern(&server, &token, "tools/call", endless(), &json!({})),
        legacy(&server, &token, "tools/call", &endless()),
    ] {
        let gone = tokio::time::timeout(Duration::from_millis(300), request.send()).await;
        assert!(gone.is_err(), "it had an answer");
        // The tenant's only place is free again.
        let next = answer(legacy(&server, &token, "tools/call", &simple)).await;
        assert_eq!(next["result"]["structuredContent"]["rows"], json!([[1]]), "{next}");
    }
    server.stop().ok();
    let entries = sandbox.audit(&[]);
    let dropped = entries.iter().filter(|entry| entry["decision"] == "abandoned").count();
    assert_eq!(dropped, 2, "{entries:?}");
}

/// Subscribes to both lists, and reads until that is acknowledged.
pub(crate) async fn listen(server: &Server, token: &str) -> Response {
    let notifications = json!({
        "toolsListChanged": true, "resourcesListChanged": true, "promptsListChanged": true,
    });
    let params = json!({ "notifications": notifications });
    let request = modern(server, token, "subscriptions/listen", params, &json!({}));
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let told = messages(&mut response, |_| true).await;
    assert_eq!(told[0]["method"], "notifications/subscriptions/acknowledged", "{told:?}");
    let accepted = &told[0]["params"]["notifications"];
    assert_eq!(accepted["toolsListChanged"], true, "{told:?}");
    assert_ne!(accepted["promptsListChanged"], true, "{told:?}");
    response
}

#[tokio::test]
async fn who_subscribed_is_told_of_a_changed_tenant_and_of_new_tables_and_nobody_else_is() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let mut own = listen(&server, &tenants.tokens[0]).await;
    let mut others = listen(&server, &tenants.tokens[1]).await;
    tenants.sandbox.run(&["quota", "set", "tenant001", "max_queries_per_day=1000"]).ok();
    let is_about = |what: &str| {
        let method = format!("notifications/{what}/list_changed");
        move |message: &Value| message["method"] == method.as_str()
    };
    messages(&mut own, is_about("tools")).await;
    messages(&mut own, is_about("resources")).await;
    let file = tenants.sandbox.data_dir().join("databases/tenant001.db");
    let database = rusqlite::Connection::open(file).unwrap();
    database.execute_batch("CREATE TABLE arrived (id INTEGER)").unwrap();
    let told = messages(&mut own, is_about("resources")).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0]["params"]["_meta"].is_object(), "{told:?}");
    drop(server.stop());
    let told = messages(&mut others, |_| false).await;
    assert_eq!(told.len(), 1, "the final result and nothing else: {told:?}");
    assert!(told[0]["result"].is_object(), "{told:?}");
}

#[tokio::test]
async fn who_subscribed_to_a_table_is_told_when_it_is_another_and_nobody_to_a_foreign_one() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let table = "mcp://tenant001/database/table/customers";
    let subscribe = async |token: &str| {
        let params = json!({ "notifications": { "resourceSubscriptions": [table] } });
        modern(&server, token, "subscriptions/listen", params, &json!({})).send().await.unwrap()
    };
    let mut foreign = subscribe(&tenants.tokens[1]).await;
    let told = messages(&mut foreign, |message| message["error"].is_object()).await;
    assert_eq!(told.last().unwrap()["error"]["data"]["error_code"], "FORBIDDEN", "{told:?}");
    assert_eq!(tenants.sandbox.audit(&["--code", "FORBIDDEN"]).len(), 1);

    let mut own = subscribe(&tenants.tokens[0]).await;
    let told = messages(&mut own, |_| true).await;
    let accepted = &told[0]["params"]["notifications"]["resourceSubscriptions"];
    assert_eq!(*accepted, json!([table]), "{told:?}");
    // What it is now is known when the call is recorded.
    let is_recorded = |entry: &Value| entry["action"] == "subscriptions/listen";
    while !tenants.sandbox.audit(&["--tenant", "tenant001"]).iter().any(is_recorded) {}
    let file = tenants.sandbox.data_dir().join("databases/tenant001.db");
    let database = rusqlite::Connection::open(file).unwrap();
    database.execute_batch("ALTER TABLE customers ADD COLUMN arrived TEXT").unwrap();
    let told = messages(&mut own, |_| true).await;
    assert_eq!(told[0]["method"], "notifications/resources/updated", "{told:?}");
    assert_eq!(told[0]["params"]["uri"], table);
}

#[tokio::test]
async fn what_stays_ends_with_the_leave_to_stay() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let verb = |arguments: &[&str]| drop(tenants.sandbox.run(arguments).ok());
    let make = |more: &[&str]| {
        let arguments = [&["token", "create", "--tenant", "tenant001"], more].concat();
        let made = tenants.sandbox.json(&arguments);
        [&made["token"], &made["token_id"]].map(|it| it.as_str().unwrap().to_owned())
    };
    let [token, id] = make(&[]);
    let [expires, _] = make(&["--expires", "2s"]);
    let mut stays = listen(&server, &tenants.tokens[0]).await;
    let mut revoked = listen(&server, &token).await;
    let mut expired = listen(&server, &expires).await;
    let is_over = |message: &Value| message["result"].is_object();
    verb(&["token", "revoke", &id]);
    for ended in [&mut revoked, &mut expired] {
        let told = messages(ended, is_over).await;
        assert_eq!(told.len(), 1, "{told:?}");
    }
    verb(&["tenant", "disable", "tenant001"]);
    let told = messages(&mut stays, is_over).await;
    assert!(told.last().is_some_and(is_over), "{told:?}");
    verb(&["tenant", "enable", "tenant001"]);
    listen(&server, &tenants.tokens[0]).await;
}

#[tokio::test]
async fn a_token_has_so_many_subscriptions_and_no_more() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let token = &tenants.tokens[0];
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(listen(&server, token).await);
    }
    let mut ninth = listen(&server, token).await;
    let told = messages(&mut ninth, |message| message["error"].is_object()).await;
    assert_eq!(told[0]["error"]["data"]["error_code"], "QUOTA_EXCEEDED", "{told:?}");
    // Another's are its own.
    listen(&server, &tenants.tokens[1]).await;
    drop(open.pop());
    // It is gone once the server has noticed.
    loop {
        let mut again = listen(&server, token).await;
        let refused = messages(&mut again, |_| true);
        if tokio::time::timeout(Duration::from_millis(200), refused).await.is_err() {
            break;
        }
    }
}
