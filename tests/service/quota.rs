//! Quotas: counted on every way to the data, over restarts and kills, and in operators' hands.

use std::time::{Duration, Instant};

use rmcp::model::ReadResourceRequestParams;
use serde_json::{Value, json};

use crate::support::{Sandbox, Server};
use crate::{Client, Era, call, connect, content, error_code, query};

const TENANT: &str = "tenant001";
const DATABASE: &str = "mcp://tenant001/database";

/// One tenant with these quotas, and a token for it.
fn sandbox(quotas: &Value) -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sandbox.add_tenant(TENANT, &json!({ "quotas": quotas }));
    sandbox.import();
    let token = sandbox.token(TENANT);
    (sandbox, token)
}

async fn client(server: &Server, token: &str) -> Client {
    connect(&server.endpoint, token, Era::Modern).await
}

async fn ask(client: &Client) -> Result<(), String> {
    let answer = query(client, DATABASE, "SELECT 1").await;
    if answer.is_error == Some(true) { Err(error_code(&answer).to_owned()) } else { Ok(()) }
}

async fn quota(client: &Client, name: &str) -> Value {
    let metadata = call(client, "get_tenant_metadata", json!({})).await;
    content(&metadata)["quotas"][name].clone()
}

async fn used(client: &Client) -> u64 {
    quota(client, "max_queries_per_hour").await["used"].as_u64().unwrap()
}

#[tokio::test]
async fn every_way_to_the_data_counts_and_what_says_how_much_remains_does_not() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant(
        TENANT,
        &json!({
            "quotas": { "max_queries_per_day": 100 },
            "access": { "mode": "read_write" },
            "features": { "advanced_analytics": true },
        }),
    );
    sandbox.import();
    let made = ["token", "create", "--tenant", TENANT, "--scope", "list,query,metadata,write"];
    let token = sandbox.json(&made)["token"].as_str().unwrap().to_owned();
    let server = sandbox.serve();
    let client = client(&server, &token).await;
    assert_eq!(used(&client).await, 0);
    ask(&client).await.unwrap();
    assert_eq!(used(&client).await, 1);
    call(&client, "list_tenant_resources", json!({})).await;
    assert_eq!(used(&client).await, 2);
    client.list_all_resources().await.unwrap();
    assert_eq!(used(&client).await, 3);
    let read = ReadResourceRequestParams::new(DATABASE);
    client.read_resource(read).await.unwrap();
    assert_eq!(used(&client).await, 4);
    let read = ReadResourceRequestParams::new("mcp://tenant001/database/table/customers");
    client.read_resource(read).await.unwrap();
    // Its description and the sample are one call.
    assert_eq!(used(&client).await, 5);
    let refused = query(&client, DATABASE, "DROP TABLE customers").await;
    assert_eq!(error_code(&refused), "QUERY_REFUSED");
    assert_eq!(used(&client).await, 6);
    let day = quota(&client, "max_queries_per_day").await;
    assert_eq!((&day["limit"], &day["remaining"]), (&json!(100), &json!(94)));
    let statement = json!({ "resource_uri": DATABASE, "query": "SELECT id FROM customers" });
    call(&client, "explain_tenant_query", statement).await;
    assert_eq!(used(&client).await, 7);
    let table = format!("{DATABASE}/table/customers");
    call(&client, "describe_tenant_resource", json!({ "resource_uri": table })).await;
    let before = used(&client).await;
    assert_eq!(before, 8);
    let statement = "UPDATE customers SET name = 'Eve' WHERE id = 2";
    let change = json!({ "resource_uri": table, "statement": statement });
    let written = call(&client, "write_tenant_data", change).await;
    assert_eq!(content(&written)["row_count"], 1);
    assert_eq!(used(&client).await, before + 1);
    let template = "mcp://tenant001/database/table/{name}";
    client.complete_resource_argument(template, "name", "c", None).await.unwrap();
    assert_eq!(used(&client).await, before + 2);
    let _listening = crate::protocol::listen(&server, &token).await;
    // Who listens looks at once.
    while used(&client).await < before + 3 {}
    server.stop().ok();
}

#[tokio::test]
async fn counts_outlive_a_restart_and_come_with_the_time_to_wait() {
    let (sandbox, token) = sandbox(&json!({ "max_queries_per_hour": 2 }));
    for _ in 0..2 {
        let server = sandbox.serve();
        ask(&client(&server, &token).await).await.unwrap();
        server.stop().ok();
    }
    let shown = sandbox.json(&["quota", "show", TENANT]);
    assert_eq!(shown["quotas"]["max_queries_per_hour"]["remaining"], 0);
    let server = sandbox.serve();
    let client = client(&server, &token).await;
    let refused = query(&client, DATABASE, "SELECT 1").await;
    assert_eq!(error_code(&refused), "QUOTA_EXCEEDED");
    let wait = content(&refused)["retry_after_seconds"].as_u64().unwrap();
    assert!((3_000..=3_660).contains(&wait), "{wait}");
    // While it is served, an operator sees the same.
    let live = sandbox.json(&["quota", "show", TENANT]);
    assert_eq!(live["quotas"]["max_queries_per_hour"]["used"], 2);
    server.stop().ok();
}

#[tokio::test]
async fn all_tokens_of_a_tenant_share_what_it_may_whatever_way_they_come() {
    const LIMIT: usize = 37;
    let (sandbox, _) = sandbox(&json!({ "max_queries_per_hour": LIMIT }));
    let server = sandbox.serve();
    let mut clients = Vec::new();
    for endpoint in [server.endpoint.clone(), format!("{}/{TENANT}", server.endpoint)] {
        for era in [Era::Legacy, Era::Modern].into_iter().cycle().take(5) {
            clients.push(connect(&endpoint, &sandbox.token(TENANT), era).await);
        }
    }
    assert_eq!(used(&clients[0]).await, 0);
    let calls = clients.iter().flat_map(|client| (0..8).map(move |_| ask(client)));
    let answers = futures_util::future::join_all(calls).await;
    let (passed, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((passed.len(), refused.len()), (LIMIT, 80 - LIMIT));
    for answer in refused {
        assert_eq!(answer.unwrap_err(), "QUOTA_EXCEEDED");
    }
    for client in &clients {
        assert_eq!(used(client).await, 37);
        assert_eq!(ask(client).await.unwrap_err(), "QUOTA_EXCEEDED");
    }
    server.stop().ok();
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "what a kill costs is a matter of real time")]
async fn a_killed_service_loses_the_counts_of_its_last_second_at_most() {
    let (sandbox, token) = sandbox(&json!({}));
    let mut answered = Vec::new();
    let mut before = 0;
    for _ in 0..3 {
        let mut server = sandbox.serve();
        let client = client(&server, &token).await;
        assert_eq!(used(&client).await, before);
        let begun = Instant::now();
        answered.clear();
        while begun.elapsed() < Duration::from_millis(2_300) {
            ask(&client).await.unwrap();
            answered.push(Instant::now());
        }
        let killed = Instant::now();
        server.signal("-KILL");
        server.wait();
        let older = answered.iter().filter(|at| killed - **at > Duration::from_secs(1)).count();
        let all = before + answered.len() as u64;
        let shown = sandbox.json(&["quota", "show", TENANT]);
        let found = shown["quotas"]["max_queries_per_hour"]["used"].as_u64().unwrap();
        let least = before + older as u64;
        assert!(older > 0 && (least..=all).contains(&found), "{least} {found} {all}");
        before = found;
    }
}

#[tokio::test]
async fn a_token_that_is_refused_too_often_is_refused_unheard_and_its_neighbour_is_not() {
    let (sandbox, token) = sandbox(&json!({ "max_denied_per_hour": 2 }));
    let neighbour = sandbox.token(TENANT);
    let server = sandbox.serve();
    let (client, neighbour) = (client(&server, &token).await, client(&server, &neighbour).await);
    let foreign = query(&client, "mcp://tenant002/database", "SELECT 1").await;
    assert_eq!(error_code(&foreign), "FORBIDDEN");
    ask(&client).await.unwrap();
    let refused = query(&client, DATABASE, "DROP TABLE customers").await;
    assert_eq!(error_code(&refused), "QUERY_REFUSED");

    let before = used(&client).await;
    let barred = query(&client, DATABASE, "SELECT 1").await;
    assert_eq!(error_code(&barred), "QUOTA_EXCEEDED");
    assert_eq!(content(&barred)["rule"], "max_denied_per_hour");
    let wait = content(&barred)["retry_after_seconds"].as_u64().unwrap();
    assert!((3_300..=3_900).contains(&wait), "{wait}");
    let foreign = query(&client, "mcp://tenant002/database", "SELECT 1").await;
    assert_eq!(error_code(&foreign), "QUOTA_EXCEEDED");
    let listed = call(&client, "list_tenant_resources", json!({})).await;
    assert_eq!(error_code(&listed), "QUOTA_EXCEEDED");
    client.list_all_resources().await.unwrap_err();
    client.read_resource(ReadResourceRequestParams::new(DATABASE)).await.unwrap_err();
    let unknown = call(&client, "get_tenant_metadata", json!({ "unknown": 1 })).await;
    assert_eq!(error_code(&unknown), "QUOTA_EXCEEDED");
    assert_eq!(used(&client).await, before, "nothing was done");
    let denied = quota(&client, "max_denied_per_hour").await;
    assert_eq!((&denied["used"], &denied["remaining"]), (&json!(2), &json!(0)));
    ask(&neighbour).await.unwrap();
    assert_eq!(quota(&neighbour, "max_denied_per_hour").await["used"], 0);

    let shown = sandbox.json(&["quota", "show", TENANT]);
    let denied = shown["denied"].as_array().unwrap();
    assert_eq!((denied.len(), &denied[0]["denied"]), (1, &json!(2)), "{shown}");
    let caller = denied[0]["caller"].as_str().unwrap();
    assert!(caller.starts_with("tok_"), "{shown}");
    server.stop().ok();
    let server = sandbox.serve();
    let client = self::client(&server, &token).await;
    assert_eq!(ask(&client).await.unwrap_err(), "QUOTA_EXCEEDED", "also after a restart");
    sandbox.run(&["quota", "reset", TENANT]).ok();
    ask(&client).await.unwrap();
    server.stop().ok();
    let barred = sandbox.audit(&["--code", "QUOTA_EXCEEDED"]);
    assert!(barred.iter().any(|entry| entry["target_tenant"] == "tenant002"), "{barred:?}");
}

#[tokio::test]
async fn a_token_that_tries_the_paths_of_other_tenants_is_soon_refused_with_its_own() {
    let (sandbox, token) = sandbox(&json!({ "max_denied_per_hour": 3 }));
    sandbox.add_tenant("tenant002", &json!({}));
    sandbox.import();
    let neighbour = sandbox.token(TENANT);
    let server = sandbox.serve();
    let http = reqwest::Client::new();
    let post = async |path: &str, token: &str, body: &'static str| {
        let request = http.post(format!("{}{path}", server.endpoint)).bearer_auth(token);
        let request = request.header("Content-Type", "application/json").body(body);
        request.send().await.unwrap().status().as_u16()
    };
    // Nobody hears what is malformed, and nobody counts it.
    for _ in 0..5 {
        assert_eq!(post("/tenant001", &token, "{").await, 400);
    }
    for (path, neighbours) in [("/tenant002", true), ("/nobody", false), ("/tenant002", false)] {
        ask(&client(&server, &token).await).await.unwrap();
        assert_eq!(post(path, &token, "{}").await, 403);
        if neighbours {
            assert_eq!(post(path, &neighbour, "{}").await, 403);
        }
    }
    assert_eq!(ask(&client(&server, &token).await).await.unwrap_err(), "QUOTA_EXCEEDED");
    // The door answers as before.
    assert_eq!(post("/tenant002", &token, "{}").await, 403);
    ask(&client(&server, &neighbour).await).await.unwrap();
    let shown = sandbox.json(&["quota", "show", TENANT]);
    let denied: Vec<_> = shown["denied"].as_array().unwrap().iter().collect();
    assert_eq!(
        denied.iter().map(|it| it["denied"].as_u64()).collect::<Vec<_>>(),
        [Some(3), Some(1)]
    );
    server.stop().ok();
}

#[tokio::test]
async fn quotas_are_changed_and_forgotten_while_the_tenant_is_served() {
    let (sandbox, token) = sandbox(&json!({ "max_queries_per_hour": 1 }));
    let server = sandbox.serve();
    let client = client(&server, &token).await;
    ask(&client).await.unwrap();
    assert_eq!(ask(&client).await.unwrap_err(), "QUOTA_EXCEEDED");
    let set = sandbox.json(&["quota", "set", TENANT, "max_queries_per_hour=2"]);
    assert_eq!(set["quotas"]["max_queries_per_hour"], 2);
    ask(&client).await.unwrap();
    assert_eq!(ask(&client).await.unwrap_err(), "QUOTA_EXCEEDED");
    sandbox.run(&["quota", "reset", TENANT]).ok();
    assert_eq!(used(&client).await, 0);
    ask(&client).await.unwrap();
    server.stop().ok();

    let shown = sandbox.json(&["quota", "show", TENANT]);
    assert_eq!(shown["quotas"]["max_queries_per_hour"]["used"], 1);
    sandbox.run(&["quota", "reset", TENANT]).ok();
    sandbox.run(&["quota", "set", TENANT, "max_queries_per_hour=0"]).ok();
    let server = sandbox.serve();
    let client = self::client(&server, &token).await;
    assert_eq!(ask(&client).await.unwrap_err(), "QUOTA_EXCEEDED");
    sandbox.run(&["quota", "set", TENANT, "max_queries_per_hour=none"]).ok();
    ask(&client).await.unwrap();
    server.stop().ok();
    let entries = sandbox.audit(&[]);
    let of = |action: &str| {
        let entries = entries.iter().filter(|entry| entry["action"] == action);
        entries.map(|entry| entry["decision"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(of("quota.set"), ["begun", "allowed"].repeat(3));
    assert_eq!(of("quota.reset"), ["begun", "allowed"].repeat(2));
    let set = entries.iter().find(|entry| entry["action"] == "quota.set").unwrap();
    assert_eq!(
        (&set["resource"], &set["tenant"]),
        (&json!("max_queries_per_hour=2"), &json!(TENANT))
    );
}

#[tokio::test]
async fn a_tenant_that_is_removed_takes_its_counts_along() {
    let (sandbox, token) = sandbox(&json!({ "max_queries_per_hour": 1 }));
    let server = sandbox.serve();
    ask(&client(&server, &token).await).await.unwrap();
    sandbox.run(&["tenant", "remove", "--yes", TENANT]).ok();
    server.stop().ok();
    let configs = sandbox.path("configs");
    sandbox.run(&["tenant", "import", "--readmit", configs.to_str().unwrap()]).ok();
    let token = sandbox.token(TENANT);
    let server = sandbox.serve();
    let client = client(&server, &token).await;
    assert_eq!(used(&client).await, 0);
    ask(&client).await.unwrap();
    // Sealing saves what was counted, and unsealing finds it.
    sandbox.run(&["seal"]).ok();
    sandbox.run(&["unseal"]).ok();
    assert_eq!(ask(&client).await.unwrap_err(), "QUOTA_EXCEEDED");
    server.stop().ok();
}
