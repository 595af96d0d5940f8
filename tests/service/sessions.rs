//! Sessions of older clients, where an operator wants them.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::TwoTenants;
use crate::protocol::{legacy, messages};
use crate::support::Server;

pub(crate) const ON: (&str, &str) = ("TENANTRY_HTTP__SESSIONS", "true");

/// How many requests are sent where memory must stay the same: few in `./dev test`, 100,000 when
/// somebody asks for it.
#[expect(clippy::disallowed_methods, reason = "how a longer run is asked for")]
fn requests() -> usize {
    let requests = std::env::var("TENANTRY_TEST_SESSION_REQUESTS");
    requests.ok().map_or(2_000, |requests| requests.parse().unwrap())
}

pub(crate) fn initialize() -> Value {
    let client = json!({ "name": "test", "version": "1" });
    json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client })
}

/// Begins a session and says how it is called.
pub(crate) async fn begin(server: &Server, token: &str) -> String {
    let response = legacy(server, token, "initialize", &initialize()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let id = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    assert!(response.text().await.unwrap().contains("\"protocolVersion\":\"2025-11-25\""));
    let body = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let ready = legacy(server, token, "", &json!({})).json(&body).header("Mcp-Session-Id", &id);
    assert_eq!(ready.send().await.unwrap().status(), StatusCode::ACCEPTED);
    id
}

/// What a request in session `id` is answered: status, headers but the date, and body.
pub(crate) async fn ask(server: &Server, token: &str, id: &str) -> (StatusCode, String) {
    let request = legacy(server, token, "tools/list", &json!({})).header("Mcp-Session-Id", id);
    let response = request.send().await.unwrap();
    let mut headers = response.headers().clone();
    headers.remove("date");
    let status = response.status();
    let text = response.text().await.unwrap();
    // Which is another one each time.
    let text = match text.split_once("\"request_id\":\"") {
        Some((before, after)) => format!("{before}{}", &after[after.find('"').unwrap()..]),
        None => text,
    };
    (status, format!("{headers:?}{text}"))
}

/// The result or error of a request in session `id`, and what came before it.
async fn call(
    server: &Server,
    token: &str,
    id: &str,
    method: &str,
    params: &Value,
) -> (Value, Vec<Value>) {
    let request = legacy(server, token, method, params).header("Mcp-Session-Id", id);
    let mut response = request.send().await.unwrap();
    let mut told = messages(&mut response, |message| message["id"] == 1).await;
    (told.pop().unwrap(), told)
}

/// The stream of session `id`.
pub(crate) async fn stream(server: &Server, token: &str, id: &str) -> Response {
    let request = reqwest::Client::new().get(&server.endpoint).bearer_auth(token);
    let request = request.header("Accept", "text/event-stream").header("Mcp-Session-Id", id);
    request.send().await.unwrap()
}

pub(crate) async fn end(server: &Server, token: &str, id: &str) -> StatusCode {
    let request = reqwest::Client::new().request(Method::DELETE, &server.endpoint);
    let request = request.bearer_auth(token).header("Mcp-Session-Id", id);
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn a_session_is_its_own_tokens_and_nobody_elses() {
    let tenants = TwoTenants::new();
    let sibling = tenants.sandbox.token("tenant001");
    let server = tenants.sandbox.serve_with(&[ON]);
    let [owner, other] = &tenants.tokens;
    let id = begin(&server, owner).await;
    assert_eq!(ask(&server, owner, &id).await.0, StatusCode::OK);
    let unknown = ask(&server, owner, "00000000-0000-4000-8000-000000000000").await;
    assert_eq!(unknown.0, StatusCode::NOT_FOUND);
    for stranger in [other, &sibling] {
        assert_eq!(ask(&server, stranger, &id).await, unknown);
        assert_eq!(end(&server, stranger, &id).await, StatusCode::NOT_FOUND);
    }
    assert_eq!(ask(&server, "nonsense", &id).await.0, StatusCode::UNAUTHORIZED);
    // Still there after all that, until its owner ends it.
    assert!(ask(&server, owner, &id).await.1.contains("query_tenant_data"));
    assert_eq!(end(&server, owner, &id).await, StatusCode::ACCEPTED);
    assert_eq!(ask(&server, owner, &id).await, unknown);
    assert_eq!(end(&server, owner, &id).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn each_request_of_a_session_is_recorded_as_its_own() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve_with(&[ON]);
    let token = &tenants.tokens[0];
    let id = begin(&server, token).await;
    let arguments =
        json!({ "resource_uri": "mcp://tenant001/database", "query": "SELECT 1 AS one" });
    let call = json!({ "name": "query_tenant_data", "arguments": arguments });
    for _ in 0..2 {
        let request = legacy(&server, token, "tools/call", &call).header("Mcp-Session-Id", &id);
        let answer = request.send().await.unwrap().text().await.unwrap();
        assert!(answer.contains("\"rows\":[[1]]"), "{answer}");
    }
    let entries = tenants.sandbox.audit(&["--tenant", "tenant001"]);
    let queries = entries.iter().filter(|entry| entry["action"] == "query_tenant_data");
    let ids: Vec<_> = queries.map(|entry| &entry["request_id"]).collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_session_ends_with_its_token_its_tenant_or_the_keys() {
    let tenants = TwoTenants::new();
    let made = tenants.sandbox.json(&["token", "create", "--tenant", "tenant002"]);
    let (token, token_id) = (made["token"].as_str().unwrap(), made["token_id"].as_str().unwrap());
    let server = tenants.sandbox.serve_with(&[ON]);
    let [one, two] = &tenants.tokens;
    let (first, second) = (begin(&server, one).await, begin(&server, two).await);
    begin(&server, token).await;
    let gone = async |token: &str, id: &str| loop {
        let (status, _) = ask(&server, token, id).await;
        if status == StatusCode::NOT_FOUND {
            break;
        }
        assert_eq!(status, StatusCode::OK);
    };
    // A revoked token has nothing any more, its sessions included.
    tenants.sandbox.run(&["token", "revoke", token_id]).ok();
    let mut told = stream(&server, one, &first).await;
    tenants.sandbox.run(&["tenant", "disable", "tenant001"]).ok();
    assert_eq!(messages(&mut told, |_| false).await, Vec::<Value>::new());
    tenants.sandbox.run(&["tenant", "enable", "tenant001"]).ok();
    gone(one, &first).await;
    assert_eq!(ask(&server, two, &second).await.0, StatusCode::OK);
    tenants.sandbox.run(&["seal"]).ok();
    tenants.sandbox.run(&["unseal"]).ok();
    gone(two, &second).await;
    let again = begin(&server, two).await;
    assert_eq!(ask(&server, two, &again).await.0, StatusCode::OK);
    server.stop().ok();
}

#[tokio::test]
async fn who_names_anothers_session_is_recorded_and_learns_nothing() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve_with(&[ON]);
    let [owner, other] = &tenants.tokens;
    let id = begin(&server, owner).await;
    let unknown = "00000000-0000-4000-8000-000000000000";
    assert_eq!(ask(&server, other, &id).await, ask(&server, other, unknown).await);
    assert_eq!(end(&server, other, &id).await, StatusCode::NOT_FOUND);
    assert_eq!(stream(&server, other, &id).await.status(), StatusCode::NOT_FOUND);
    server.stop().ok();
    let entries = tenants.sandbox.audit(&["--tenant", "tenant002"]);
    let entries = entries.iter().filter(|entry| entry["rule"] == "session");
    let codes: Vec<_> = entries.map(|entry| entry["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["FORBIDDEN", "RESOURCE_NOT_FOUND", "FORBIDDEN", "FORBIDDEN"]);
}

#[tokio::test]
async fn a_request_that_names_no_session_is_served_by_itself() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve_with(&[ON]);
    let listed = legacy(&server, &tenants.tokens[0], "tools/list", &json!({})).send().await;
    let listed = listed.unwrap();
    assert_eq!(listed.headers()["content-type"], "application/json");
    let listed: Value = listed.json().await.unwrap();
    assert!(listed["result"]["tools"].is_array(), "{listed}");
}

#[tokio::test]
async fn the_session_that_was_not_used_for_longest_gives_way_to_the_tenants_next() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve_with(&[ON, ("TENANTRY_HTTP__MAX_SESSIONS_PER_TENANT", "2")]);
    let [one, two] = &tenants.tokens;
    let others = begin(&server, two).await;
    let (first, second) = (begin(&server, one).await, begin(&server, one).await);
    assert_eq!(ask(&server, one, &first).await.0, StatusCode::OK);
    let third = begin(&server, one).await;
    assert_eq!(ask(&server, one, &second).await.0, StatusCode::NOT_FOUND);
    for (token, id) in [(one, &first), (one, &third), (two, &others)] {
        assert_eq!(ask(&server, token, id).await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_session_is_told_of_changes_on_its_stream_and_has_them() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve_with(&[ON]);
    let [one, two] = &tenants.tokens;
    let params = initialize();
    let began = legacy(&server, one, "initialize", &params).send().await.unwrap();
    let began = messages(&mut { began }, |_| true).await;
    let can = &began[0]["result"]["capabilities"];
    assert_eq!(can["tools"], json!({ "listChanged": true }));
    assert_eq!(can["resources"], json!({ "listChanged": true, "subscribe": true }));
    assert_eq!(can["logging"], json!({}));

    let (own, others) = (begin(&server, one).await, begin(&server, two).await);
    let mut told = stream(&server, one, &own).await;
    let mut others = stream(&server, two, &others).await;
    assert_eq!(told.headers()["content-type"], "text/event-stream");
    let is_about = |what: &str| {
        let method = format!("notifications/{what}");
        move |message: &Value| message["method"] == method.as_str()
    };
    let tools = async || {
        let (listed, _) = call(&server, one, &own, "tools/list", &json!({})).await;
        listed["result"]["tools"].as_array().unwrap().len()
    };
    let table = "mcp://tenant001/database/table/customers";
    let subscribe = async |uri: &str| {
        call(&server, one, &own, "resources/subscribe", &json!({ "uri": uri })).await.0
    };
    assert_eq!(subscribe(table).await["result"], json!({}));
    for (uri, code) in [
        ("mcp://tenant002/database/table/customers", "FORBIDDEN"),
        ("mcp://tenant001/database/table/nothing", "RESOURCE_NOT_FOUND"),
    ] {
        let refused = subscribe(uri).await;
        assert_eq!(refused["error"]["data"]["error_code"], code, "{refused}");
    }

    // An operator lets the tenant do more: the client is told, and the session has it.
    let before = tools().await;
    let file = json!({
        "tenant_id": "tenant001", "db_engine": "sqlite", "db_path": "tenant001.db",
        "features": { "advanced_analytics": true },
    });
    tenants.sandbox.write_config("tenant001.json", &file.to_string());
    tenants.sandbox.import();
    let changed = messages(&mut told, is_about("resources/updated")).await;
    assert!(changed.iter().any(is_about("tools/list_changed")), "{changed:?}");
    assert!(changed.iter().any(is_about("resources/list_changed")), "{changed:?}");
    assert_eq!(tools().await, before + 2);

    let database = tenants.sandbox.data_dir().join("databases/tenant001.db");
    let database = rusqlite::Connection::open(database).unwrap();
    database.execute_batch("ALTER TABLE customers ADD COLUMN arrived TEXT").unwrap();
    let changed = messages(&mut told, is_about("resources/updated")).await;
    assert_eq!(changed.last().unwrap()["params"]["uri"], table, "{changed:?}");
    assert!(!changed.iter().any(is_about("resources/list_changed")), "{changed:?}");
    let (ended, _) =
        call(&server, one, &own, "resources/unsubscribe", &json!({ "uri": table })).await;
    assert_eq!(ended["result"], json!({}));
    drop(server.stop());
    assert_eq!(messages(&mut others, |_| false).await, Vec::<Value>::new());
    assert_eq!(messages(&mut told, |_| false).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_session_has_one_stream_which_ends_with_it() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve_with(&[ON]);
    let token = &tenants.tokens[0];
    let id = begin(&server, token).await;
    let first = stream(&server, token, &id).await;
    let second = stream(&server, token, &id).await;
    assert_eq!(second.status(), StatusCode::CONFLICT);
    assert!(second.text().await.unwrap().contains("has its stream already"));
    let stranger = stream(&server, &tenants.tokens[1], &id).await;
    assert_eq!(stranger.status(), StatusCode::NOT_FOUND);
    drop(first);
    // It is gone once the server has noticed.
    let mut again = loop {
        let again = stream(&server, token, &id).await;
        if again.status() == StatusCode::OK {
            break again;
        }
    };
    assert_eq!(end(&server, token, &id).await, StatusCode::ACCEPTED);
    assert_eq!(messages(&mut again, |_| false).await, Vec::<Value>::new());
    // As many of a token as there may be subscriptions.
    let mut open = Vec::new();
    for _ in 0..8 {
        let id = begin(&server, token).await;
        open.push(stream(&server, token, &id).await);
        assert_eq!(open.last().unwrap().status(), StatusCode::OK);
    }
    let id = begin(&server, token).await;
    let ninth = stream(&server, token, &id).await;
    assert_eq!(ninth.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(ninth.text().await.unwrap().contains("QUOTA_EXCEEDED"));
    assert_eq!(ask(&server, token, &id).await.0, StatusCode::OK, "calls are served");
}

#[tokio::test]
async fn a_session_that_listens_is_not_idle() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve_with(&[ON, ("TENANTRY_HTTP__SESSION_IDLE_SECONDS", "1")]);
    let token = &tenants.tokens[0];
    let (listens, idle) = (begin(&server, token).await, begin(&server, token).await);
    let mut told = stream(&server, token, &listens).await;
    let over = messages(&mut told, |_| false);
    assert!(tokio::time::timeout(Duration::from_secs(3), over).await.is_err());
    assert_eq!(ask(&server, token, &listens).await.0, StatusCode::OK);
    assert_eq!(ask(&server, token, &idle).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn who_sets_a_level_in_a_session_is_told_before_each_answer_what_became_of_the_call() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve_with(&[ON]);
    let token = &tenants.tokens[0];
    let id = begin(&server, token).await;
    let query = async |uri: &str| {
        let arguments =
            json!({ "resource_uri": uri, "query": "SELECT 1 UNION SELECT 2", "limit": 1 });
        let params = json!({ "name": "query_tenant_data", "arguments": arguments });
        call(&server, token, &id, "tools/call", &params).await.1
    };
    let (own, foreign) = ("mcp://tenant001/database", "mcp://tenant002/database");
    assert!(query(own).await.is_empty(), "nothing was asked for");
    for (level, of_own, of_foreign) in
        [("info", Some("warning"), Some("error")), ("error", None, Some("error"))]
    {
        let (set, _) =
            call(&server, token, &id, "logging/setLevel", &json!({ "level": level })).await;
        assert_eq!(set["result"], json!({}));
        for (uri, expected) in [(own, of_own), (foreign, of_foreign)] {
            let told = query(uri).await;
            let levels: Vec<_> = told.iter().map(|it| it["params"]["level"].as_str()).collect();
            assert_eq!(levels, Vec::from_iter(expected.map(Some)), "{told:?}");
        }
    }
    // Another session is another client.
    let other = begin(&server, token).await;
    let params = json!({ "name": "get_tenant_metadata", "arguments": {} });
    assert!(call(&server, token, &other, "tools/call", &params).await.1.is_empty());
}

#[tokio::test]
async fn without_the_setting_there_are_no_sessions() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let request = legacy(&server, &tenants.tokens[0], "initialize", &initialize());
    let response = request.send().await.unwrap();
    assert!(!response.headers().contains_key("mcp-session-id"));
    let (status, _) = ask(&server, &tenants.tokens[0], "any").await;
    assert_eq!(status, StatusCode::OK, "it has no meaning");
    let status = end(&server, &tenants.tokens[0], "any").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

/// What the program has in memory, in KiB.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_begun_and_forgotten_take_no_more_memory() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve_with(&[ON]);
    let http = reqwest::Client::new();
    let send = async |token: &str, count: usize| {
        for _ in 0..count {
            let body = json!({
                "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize(),
            });
            let response = http
                .post(&server.endpoint)
                .bearer_auth(token)
                .header("Accept", "application/json, text/event-stream")
                .json(&body)
                .send();
            response.await.unwrap().bytes().await.unwrap();
        }
    };
    let parallel = async |token: &str, count: usize| {
        let senders = (0..8).map(|_| send(token, count / 8));
        futures_util::future::join_all(senders).await;
    };
    // As many as there may be, and what the allocator keeps.
    parallel(&tenants.tokens[0], 800).await;
    let begun = resident(&server);
    parallel(&tenants.tokens[0], requests()).await;
    let initialized = resident(&server);
    parallel("nonsense", requests()).await;
    let refused = resident(&server);
    println!(
        "{} times `initialize`, then as many without a token: {begun}, {initialized}, {refused} KiB",
        requests()
    );
    assert!(initialized < begun + begun / 4, "{begun} KiB, then {initialized} KiB");
    assert!(refused < initialized + initialized / 4, "{initialized} KiB, then {refused} KiB");
}
