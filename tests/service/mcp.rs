//! The three tools and the resources, through rmcp's own client, over HTTP.

use rmcp::model::{PaginatedRequestParams, ReadResourceRequestParams, ResourceContents};
use serde_json::{Value, json};

use crate::support::{CUSTOMERS, Sandbox};
use crate::{Client, Era, TwoTenants, call, connect, content, error_code, query};

/// What every client must see, whatever its era and transport.
pub(crate) async fn use_everything(client: &Client) {
    let tools = client.list_all_tools().await.unwrap();
    let names: Vec<&str> = tools.iter().map(|tool| &*tool.name).collect();
    assert_eq!(names, ["list_tenant_resources", "query_tenant_data", "get_tenant_metadata"]);
    let answers = [
        call(client, "list_tenant_resources", json!({})).await,
        query(client, "mcp://tenant001/database", "SELECT id, email FROM customers ORDER BY id")
            .await,
        call(client, "get_tenant_metadata", json!({})).await,
    ];
    for (tool, answer) in tools.iter().zip(&answers) {
        assert_ne!(answer.is_error, Some(true), "{answer:?}");
        assert_eq!(tool.input_schema["additionalProperties"], json!(false));
        let schema = Value::Object((**tool.output_schema.as_ref().unwrap()).clone());
        jsonschema::validate(&schema, content(answer)).unwrap();
        let failure = call(client, tool.name.clone(), json!({ "unknown": 1 })).await;
        assert_eq!(error_code(&failure), "INVALID_ARGUMENT");
        jsonschema::validate(&schema, content(&failure)).unwrap();
        assert!(jsonschema::validate(&schema, &json!({})).is_err());
    }

    let uris: Vec<&str> = content(&answers[0])["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| resource["uri"].as_str().unwrap())
        .collect();
    assert_eq!(
        uris,
        [
            "mcp://tenant001/database",
            "mcp://tenant001/database/table/customers",
            "mcp://tenant001/database/view/order_totals",
            "mcp://tenant001/database/table/orders",
        ]
    );
    let rows = content(&answers[1])["rows"].as_array().unwrap();
    assert_eq!(rows.len() as u64, CUSTOMERS);
    assert_eq!(rows[0], json!([1, "c1@tenant001.example"]));
    assert_eq!(content(&answers[1])["truncated"], json!(false));
    assert_eq!(content(&answers[2])["tenant_id"], json!("tenant001"));

    let listed = client.list_all_resources().await.unwrap();
    assert_eq!(listed.iter().map(|resource| &resource.uri).collect::<Vec<_>>(), uris);
    let templates = client.list_all_resource_templates().await.unwrap();
    assert!(templates.iter().all(|it| it.uri_template.starts_with("mcp://tenant001/")));
    for uri in uris {
        let read = client.read_resource(ReadResourceRequestParams::new(uri)).await.unwrap();
        let ResourceContents::TextResourceContents { text, .. } = &read.contents[0] else {
            unreachable!("{read:?}")
        };
        assert!(text.contains("tenant001") && !text.contains("tenant002"), "{text}");
    }
}

#[tokio::test]
async fn a_client_of_either_era_uses_every_tool_over_http() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    for era in [Era::Legacy, Era::Modern] {
        for path in ["", "/tenant001"] {
            let endpoint = format!("{}{path}", server.endpoint);
            let client = connect(&endpoint, &tenants.tokens[0], era).await;
            use_everything(&client).await;
            client.cancel().await.unwrap();
        }
    }
    server.stop().ok();
}

#[tokio::test]
async fn another_tenants_uri_is_forbidden_alike_whether_that_tenant_exists_or_not() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let client = connect(&server.endpoint, &tenants.tokens[0], Era::Modern).await;
    let sql = "SELECT * FROM customers";
    let mut answers = Vec::new();
    for other in ["tenant002", "nobody002"] {
        let uri = format!("mcp://{other}/database/table/customers");
        let mut answer = query(&client, &uri, sql).await;
        assert_eq!(error_code(&answer), "FORBIDDEN");
        let details = answer.structured_content.as_mut().unwrap().as_object_mut().unwrap();
        let request_id = details.remove("request_id").unwrap();
        answers.push(serde_json::to_string(&answer).unwrap());

        let entries = tenants.sandbox.audit(&["--code", "FORBIDDEN", "--tenant", other]);
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!(entries[0]["request_id"], request_id);
        assert_eq!(entries[0]["tenant"], "tenant001");
        assert_eq!(entries[0]["resource"], uri);
        assert_eq!(entries[0]["decision"], "denied");

        let read = client.read_resource(ReadResourceRequestParams::new(uri)).await.unwrap_err();
        assert!(read.to_string().contains("does not belong to your tenant"), "{read}");
    }
    assert_eq!(answers[0], answers[1]);
    let own = query(&client, "mcp://tenant001/database/table/customers", sql).await;
    assert_ne!(own.is_error, Some(true), "the nearest honest call works");
}

#[tokio::test]
async fn a_cursor_of_another_tenant_is_forbidden() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let client = connect(&server.endpoint, &tenants.tokens[0], Era::Modern).await;
    // base64url of mcp://tenant002/database
    let cursor = "bWNwOi8vdGVuYW50MDAyL2RhdGFiYXNl";
    let answer = call(&client, "list_tenant_resources", json!({ "cursor": cursor })).await;
    assert_eq!(error_code(&answer), "FORBIDDEN");
    let parameters = PaginatedRequestParams::default().with_cursor(Some(cursor.to_owned()));
    client.list_resources(Some(parameters)).await.unwrap_err();
    // base64url of mcp://tenant001/database
    let cursor = "bWNwOi8vdGVuYW50MDAxL2RhdGFiYXNl";
    let answer = call(&client, "list_tenant_resources", json!({ "cursor": cursor })).await;
    assert_eq!(content(&answer)["resources"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_statement_reads_what_its_uri_says_and_nothing_else() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({
        "access": { "tables": ["customers", "order_totals"], "deny_columns": ["customers.password_hash"] },
        "limits": { "max_rows": 7 },
    }));
    sandbox.import();
    let token = sandbox.token("tenant001");
    let server = sandbox.serve();
    let client = connect(&server.endpoint, &token, Era::Modern).await;
    let check = async |path: &str, sql: &str, expected: &str| {
        let answer = query(&client, &format!("mcp://tenant001/{path}"), sql).await;
        let actual = if answer.is_error == Some(true) {
            error_code(&answer).to_owned()
        } else {
            "ok".to_owned()
        };
        assert_eq!(actual, expected, "{path}: {sql}: {answer:?}");
    };
    check("database", "SELECT id, name FROM customers", "ok").await;
    check("database/table/customers", "SELECT count(*) FROM customers", "ok").await;
    check("database/view/order_totals", "SELECT * FROM order_totals", "ok").await;
    check("database", "SELECT * FROM orders", "QUERY_REFUSED").await;
    check("database/table/customers", "SELECT * FROM order_totals", "QUERY_REFUSED").await;
    check("database", "SELECT password_hash FROM customers", "QUERY_REFUSED").await;
    check("database", "SELECT * FROM customers", "QUERY_REFUSED").await;
    check("database", "DELETE FROM customers", "QUERY_REFUSED").await;
    check("database", "SELECT 1; SELECT 2", "QUERY_REFUSED").await;
    check("database", "SELECT nonsense FROM customers", "QUERY_FAILED").await;
    check("database/table/nothing", "SELECT 1 FROM nothing", "QUERY_REFUSED").await;
    check("nonsense", "SELECT 1", "RESOURCE_NOT_FOUND").await;
    check("database/../x", "SELECT 1", "INVALID_ARGUMENT").await;
    let answer = query(&client, "mcp://tenant001/database", "SELECT id FROM customers").await;
    assert_eq!(content(&answer)["row_count"], 7);
    assert_eq!(content(&answer)["truncated"], true);
}

#[tokio::test]
async fn an_unknown_argument_is_refused_and_recorded() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let client = connect(&server.endpoint, &tenants.tokens[0], Era::Modern).await;
    let uri = "mcp://tenant001/database";
    let arguments = json!({ "resource_uri": uri, "query": "SELECT 1", "tenant_id": "tenant002" });
    let answer = call(&client, "query_tenant_data", arguments).await;
    assert_eq!(error_code(&answer), "INVALID_ARGUMENT");
    let answer = call(&client, "get_tenant_metadata", json!({ "x": 1 })).await;
    assert_eq!(error_code(&answer), "INVALID_ARGUMENT");
    assert_eq!(tenants.sandbox.audit(&["--code", "INVALID_ARGUMENT"]).len(), 2);
}

#[tokio::test]
async fn parameters_are_bound_and_a_limit_never_widens() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve();
    let client = connect(&server.endpoint, &tenants.tokens[0], Era::Modern).await;
    let select = |params: Value, limit: u32| {
        json!({
            "resource_uri": "mcp://tenant001/database", "params": params, "limit": limit,
            "query": "SELECT id FROM customers WHERE id > ?1 AND name <> ?2 ORDER BY id",
        })
    };
    let answer = call(&client, "query_tenant_data", select(json!([38, "' OR 1=1 --"]), 10)).await;
    assert_eq!(content(&answer)["rows"], json!([[39], [40]]));
    let answer = call(&client, "query_tenant_data", select(json!([0, ""]), 3)).await;
    assert_eq!(content(&answer)["rows"], json!([[1], [2], [3]]));
    assert_eq!(content(&answer)["truncated"], true);
}

#[tokio::test]
async fn quotas_hold_and_say_when_to_come_back() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({ "quotas": { "max_queries_per_hour": 2 } }));
    sandbox.import();
    let token = sandbox.token("tenant001");
    let server = sandbox.serve();
    let client = connect(&server.endpoint, &token, Era::Modern).await;
    for _ in 0..2 {
        let answer = query(&client, "mcp://tenant001/database", "SELECT 1").await;
        assert_ne!(answer.is_error, Some(true), "{answer:?}");
    }
    let answer = query(&client, "mcp://tenant001/database", "SELECT 1").await;
    assert_eq!(error_code(&answer), "QUOTA_EXCEEDED");
    let seconds = content(&answer)["retry_after_seconds"].as_u64().unwrap();
    assert!((1..=3660).contains(&seconds), "{seconds}");
    let metadata = call(&client, "get_tenant_metadata", json!({})).await;
    let hour = &content(&metadata)["quotas"]["max_queries_per_hour"];
    assert_eq!((&hour["used"], &hour["remaining"]), (&json!(2), &json!(0)));
}

#[tokio::test]
async fn a_token_does_what_its_scopes_say() {
    let tenants = TwoTenants::new();
    let arguments = ["token", "create", "--tenant", "tenant001", "--scope", "metadata"];
    let token = tenants.sandbox.json(&arguments);
    let server = tenants.sandbox.serve();
    let client = connect(&server.endpoint, token["token"].as_str().unwrap(), Era::Modern).await;
    let answer = query(&client, "mcp://tenant001/database", "SELECT 1").await;
    assert_eq!(error_code(&answer), "FORBIDDEN");
    assert!(content(&answer)["message"].as_str().unwrap().contains("scope \"query\""));
    let answer = call(&client, "get_tenant_metadata", json!({})).await;
    assert_ne!(answer.is_error, Some(true));
    client.cancel().await.unwrap();
    server.stop().ok();

    let arguments = ["token", "create", "--tenant", "tenant001", "--scope", "list"];
    let lists = tenants.sandbox.json(&arguments);
    let server = tenants.sandbox.serve();
    let table = "mcp://tenant001/database/table/customers";
    for (token, has_rows) in [(lists["token"].as_str().unwrap(), false), (&tenants.tokens[0], true)]
    {
        let client = connect(&server.endpoint, token, Era::Modern).await;
        let read = client.read_resource(ReadResourceRequestParams::new(table)).await.unwrap();
        let text = format!("{read:?}");
        assert!(text.contains("email"), "the schema is there: {text}");
        assert_eq!(text.contains("@tenant001.example"), has_rows, "{text}");
    }
    let reads = tenants.sandbox.audit(&[]);
    let rows: Vec<_> =
        reads.iter().filter(|it| it["action"] == "resources/read").map(|it| &it["rows"]).collect();
    assert_eq!(rows, [&Value::Null, &json!(5)]);
}
