//! The endpoint below MCP: who gets in, and what the others are told.

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::TwoTenants;
use crate::support::Server;

fn list_tools(server: &Server, path: &str) -> RequestBuilder {
    reqwest::Client::new()
        .post(format!("{}{path}", server.endpoint))
        .header("Accept", "application/json, text/event-stream")
        .json(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }))
}

/// A token that differs from `token` in its last character.
pub(crate) fn other_than(token: &str) -> String {
    let (rest, last) = token.split_at(token.len() - 1);
    format!("{rest}{}", if last == "A" { 'B' } else { 'A' })
}

#[tokio::test]
async fn no_token_a_wrong_one_a_revoked_one_and_two_are_told_the_same() {
    let tenants = TwoTenants::new();
    let listed = tenants.sandbox.json(&["token", "list"]);
    let id = listed[1]["token_id"].as_str().unwrap();
    assert_eq!(listed[1]["tenant_id"], "tenant002");
    tenants.sandbox.run(&["token", "revoke", id]).ok();
    let server = tenants.sandbox.serve();
    let [good, revoked] = tenants.tokens.each_ref();
    let wrong = other_than(good);
    let requests = [
        list_tools(&server, ""),
        list_tools(&server, "").bearer_auth("nonsense"),
        list_tools(&server, "").bearer_auth(wrong),
        list_tools(&server, "").bearer_auth(revoked),
        list_tools(&server, "").bearer_auth(good).bearer_auth(good),
        list_tools(&server, "").header("Authorization", format!("Basic {good}")),
    ];
    let count = requests.len();
    let mut bodies = Vec::new();
    for (which, request) in requests.into_iter().enumerate() {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "request {which}");
        assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"tenantry\"");
        let mut body: Value = response.json().await.unwrap();
        let details = body["error"]["data"].as_object_mut().unwrap();
        assert_eq!(details["error_code"], "UNAUTHENTICATED");
        assert!(details.remove("request_id").is_some());
        bodies.push(body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    assert_eq!(tenants.sandbox.audit(&["--code", "UNAUTHENTICATED"]).len(), count);
    let response = list_tools(&server, "").bearer_auth(good).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_path_of_another_tenant_is_forbidden_alike_whether_it_exists_or_not() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let mut bodies = Vec::new();
    let paths = [
        "/tenant002",
        "/nobody002",
        "/TENANT001",
        "/x",
        "/tenant001/",
        "/tenant00%31",
        "/%FF",
        "/a/b",
    ];
    for path in paths {
        let request = list_tools(&server, path).bearer_auth(&tenants.tokens[0]);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let mut body: Value = response.json().await.unwrap();
        body["error"]["data"].as_object_mut().unwrap().remove("request_id").unwrap();
        bodies.push(body.to_string());
    }
    assert!(bodies[0].contains("FORBIDDEN"));
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    let entries = tenants.sandbox.audit(&["--code", "FORBIDDEN", "--tenant", "tenant002"]);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["action"], "connect");
    assert_eq!(tenants.sandbox.audit(&["--code", "FORBIDDEN"]).len(), paths.len());
    let own = list_tools(&server, "/tenant001").bearer_auth(&tenants.tokens[0]);
    assert_eq!(own.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let tenants = TwoTenants::new();
    let arguments = ["token", "create", "--tenant", "tenant001", "--expires", "1s"];
    let token = tenants.sandbox.json(&arguments);
    let ends: jiff::Timestamp = token["expires_at"].as_str().unwrap().parse().unwrap();
    let server = tenants.sandbox.serve();
    // The running program has the machine's clock: poll until the moment has passed.
    loop {
        let request = list_tools(&server, "").bearer_auth(token["token"].as_str().unwrap());
        let sent = jiff::Timestamp::now();
        let status = request.send().await.unwrap().status();
        if status == StatusCode::UNAUTHORIZED {
            assert!(jiff::Timestamp::now() >= ends);
            break;
        }
        assert_eq!(status, StatusCode::OK);
        assert!(sent < ends, "a token worked after it expired");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused_and_a_local_origin_is_not() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let send = async |name: &str, value: &str| {
        let request = list_tools(&server, "").bearer_auth(&tenants.tokens[0]).header(name, value);
        request.send().await.unwrap().status()
    };
    assert_eq!(send("Host", "evil.example").await, StatusCode::FORBIDDEN);
    assert_eq!(send("Origin", "http://evil.example").await, StatusCode::FORBIDDEN);
    assert_eq!(send("Origin", "null").await, StatusCode::FORBIDDEN);
    assert_eq!(send("Origin", "http://localhost:3000").await, StatusCode::OK);
}

#[tokio::test]
async fn other_paths_and_methods_are_not_served_and_health_is() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let base = server.endpoint.strip_suffix("/mcp").unwrap();
    let get = async |path: &str| reqwest::get(format!("{base}{path}")).await.unwrap().status();
    assert_eq!(get("/healthz").await, StatusCode::OK);
    assert_eq!(get("/readyz").await, StatusCode::OK);
    assert_eq!(get("/").await, StatusCode::NOT_FOUND);
    assert_eq!(get("/mcp/").await, StatusCode::NOT_FOUND);
    assert_eq!(get("/mcp/a/b").await, StatusCode::UNAUTHORIZED);
    assert_eq!(get("/mcp").await, StatusCode::UNAUTHORIZED);
    let request = reqwest::Client::new().get(&server.endpoint).bearer_auth(&tenants.tokens[0]);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_disabled_tenant_is_not_served_until_it_is_enabled() {
    let tenants = TwoTenants::new();
    tenants.sandbox.run(&["tenant", "disable", "tenant001"]).ok();
    let server = tenants.sandbox.serve();
    let response = list_tools(&server, "").bearer_auth(&tenants.tokens[0]).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(response.text().await.unwrap().contains("TENANT_DISABLED"));
    assert_eq!(tenants.sandbox.audit(&["--code", "TENANT_DISABLED"]).len(), 1);
    let other = list_tools(&server, "").bearer_auth(&tenants.tokens[1]).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
    server.stop().ok();
    tenants.sandbox.run(&["tenant", "enable", "tenant001"]).ok();
    let server = tenants.sandbox.serve();
    let response = list_tools(&server, "").bearer_auth(&tenants.tokens[0]).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}
