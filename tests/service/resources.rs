//! Resources over MCP: pages, content, completion.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use rmcp::model::{
    CompletionContext, PaginatedRequestParams, ReadResourceRequestParams, ResourceContents,
};
use rusqlite::Connection as File;
use serde_json::{Value, json};

use crate::support::Sandbox;
use crate::{Client, Era, call, connect, content, error_code, query};

/// A tenant on a file of its own, made by `script`, with `more` in its tenant file.
struct Served {
    sandbox: Sandbox,
    token: String,
}

impl Served {
    fn new(script: &str, more: &Value) -> Self {
        let sandbox = Sandbox::new();
        sandbox.add_tenant("tenant001", more);
        sandbox.import();
        let served = Self { token: sandbox.token("tenant001"), sandbox };
        served.file().execute_batch(script).unwrap();
        served
    }

    fn file(&self) -> File {
        File::open(self.sandbox.data_dir().join("databases").join("tenant001.db")).unwrap()
    }
}

async fn read(client: &Client, uri: &str) -> Result<Value, String> {
    let read = client.read_resource(ReadResourceRequestParams::new(uri)).await;
    let read = read.map_err(|error| error.to_string())?;
    let ResourceContents::TextResourceContents { text, .. } = &read.contents[0] else {
        unreachable!("{read:?}")
    };
    Ok(serde_json::from_str(text).unwrap())
}

fn many_tables(count: usize) -> String {
    (0..count).fold("BEGIN;".to_owned(), |mut script, number| {
        write!(script, "CREATE TABLE t{number:04} (id INTEGER PRIMARY KEY);").unwrap();
        script
    }) + "COMMIT;"
}

#[tokio::test]
async fn pages_go_on_after_a_table_that_is_dropped_and_list_each_resource_once() {
    let served = Served::new(&many_tables(320), &json!({}));
    let server = served.sandbox.serve();
    let client = connect(&server.endpoint, &served.token, Era::Modern).await;
    let mut uris: Vec<String> = Vec::new();
    let mut cursor = None;
    let mut pages = 0;
    loop {
        let parameters = PaginatedRequestParams::default().with_cursor(cursor);
        let page = client.list_resources(Some(parameters)).await.unwrap();
        assert!(page.resources.len() <= 100);
        uris.extend(page.resources.iter().map(|resource| resource.uri.clone()));
        pages += 1;
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
        // What the page ended with, and what the next would begin with.
        let last = uris.last().unwrap().rsplit('/').next().unwrap().to_owned();
        let number: u32 = last[1..].parse().unwrap();
        let script = format!("DROP TABLE {last}; DROP TABLE t{:04}", number + 1);
        served.file().execute_batch(&script).unwrap();
    }
    // The database, 320 tables and three of the sandbox's, less one dropped before each later page.
    assert_eq!((pages, uris.len()), (4, 324 - 3));
    assert_eq!(uris.iter().collect::<BTreeSet<_>>().len(), uris.len());

    let mut through_the_tool = Vec::new();
    let mut arguments = json!({ "resource_type": "table" });
    loop {
        let page = call(&client, "list_tenant_resources", arguments.clone()).await;
        let page = content(&page);
        for resource in page["resources"].as_array().unwrap() {
            through_the_tool.push(resource["name"].as_str().unwrap().to_owned());
        }
        let Some(cursor) = page.get("next_cursor") else { break };
        arguments["cursor"] = cursor.clone();
    }
    assert_eq!(through_the_tool.len(), 320 - 6 + 2);
    assert!(through_the_tool.is_sorted());

    let database = read(&client, "mcp://tenant001/database").await.unwrap();
    assert_eq!(database["schemas"], json!([{ "name": "main", "tables": 316, "views": 1 }]));
    assert_eq!(database["resources"].as_array().unwrap().len(), 100);
    let arguments = json!({ "cursor": database["next_cursor"] });
    let next = call(&client, "list_tenant_resources", arguments).await;
    assert_eq!(content(&next)["resources"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn a_table_is_read_with_its_keys_and_shows_nothing_that_is_denied() {
    let script = "CREATE TABLE secrets (id INTEGER PRIMARY KEY, hidden_word TEXT UNIQUE);
        CREATE TABLE uses (id INTEGER PRIMARY KEY, word TEXT REFERENCES secrets (hidden_word),
            owner INTEGER NOT NULL REFERENCES customers, label TEXT DEFAULT 'x' UNIQUE);
        INSERT INTO uses VALUES (1, NULL, 1, 'one'); ANALYZE;";
    let denied = json!({ "access": {
        "tables": ["uses", "customers", "secrets"], "deny_columns": ["secrets.hidden_word"],
    } });
    let served = Served::new(script, &denied);
    let server = served.sandbox.serve();
    let client = connect(&server.endpoint, &served.token, Era::Modern).await;
    let uses = read(&client, "mcp://tenant001/database/table/uses").await.unwrap();
    let expected = json!({
        "uri": "mcp://tenant001/database/table/uses", "type": "table", "name": "uses",
        "columns": [
            { "name": "id", "type": "integer", "nullable": false, "has_default": true },
            { "name": "word", "type": "text", "nullable": true, "has_default": false },
            { "name": "owner", "type": "integer", "nullable": false, "has_default": false },
            { "name": "label", "type": "text", "nullable": true, "has_default": true },
        ],
        "primary_key": ["id"], "unique_keys": [["label"]],
        "foreign_keys": [{ "columns": ["owner"], "references": {
            "uri": "mcp://tenant001/database/table/customers", "columns": ["id"],
        } }],
        "estimated_rows": 1,
    });
    assert_eq!(uses["resource"], expected);
    assert_eq!(uses["sample_rows"], json!([[1, null, 1, "one"]]));
    let secrets = read(&client, "mcp://tenant001/database/table/secrets").await.unwrap();
    assert!(!secrets.to_string().contains("hidden_word"), "{secrets}");
    for path in ["database/view/uses", "database/table/orders", "database/table/Uses"] {
        let missing = read(&client, &format!("mcp://tenant001/{path}")).await.unwrap_err();
        assert!(missing.contains("no such resource"), "{path}: {missing}");
    }
}

#[tokio::test]
async fn what_is_listed_can_be_read_and_other_names_only_under_the_database() {
    let script = "CREATE TABLE \"受注\" (id INT); CREATE TABLE \"a\"\"b'c %_\" (id INT);
        CREATE TABLE \"a/b\" (id INT); CREATE TABLE \"..\" (id INT); CREATE TABLE \"a\u{202e}b\" (id INT);
        CREATE TABLE \"a b;DROP\" (id INT); CREATE TABLE \"été\" (id INT);";
    let served = Served::new(script, &json!({}));
    let server = served.sandbox.serve();
    let client = connect(&server.endpoint, &served.token, Era::Modern).await;
    let listed = client.list_all_resources().await.unwrap();
    let uris: Vec<&str> = listed.iter().map(|resource| resource.uri.as_str()).collect();
    let expected = [
        "mcp://tenant001/database",
        "mcp://tenant001/database/table/a%20b%3BDROP",
        "mcp://tenant001/database/table/customers",
        "mcp://tenant001/database/view/order_totals",
        "mcp://tenant001/database/table/orders",
        "mcp://tenant001/database/table/%C3%A9t%C3%A9",
        "mcp://tenant001/database/table/%E5%8F%97%E6%B3%A8",
    ];
    assert_eq!(uris, expected);
    for uri in uris {
        read(&client, uri).await.unwrap();
    }
    for table in ["a/b", "a\"\"b'c %_", "..", "受注"] {
        let sql = format!("SELECT count(*) FROM \"{table}\"");
        let answer = query(&client, "mcp://tenant001/database", &sql).await;
        assert_eq!(content(&answer)["rows"], json!([[0]]), "{table}: {answer:?}");
    }
}

#[tokio::test]
async fn names_are_completed_counted_and_recorded() {
    let quotas = json!({ "quotas": { "max_queries_per_hour": 7 } });
    let served = Served::new(&many_tables(120), &quotas);
    let server = served.sandbox.serve();
    let client = connect(&server.endpoint, &served.token, Era::Modern).await;
    let tables = "mcp://tenant001/database/table/{name}";
    let complete = async |template: &str, argument: &str, value: &str| {
        let found = client.complete_resource_argument(template, argument, value, None).await;
        found.map(|found| (found.values, found.total, found.has_more)).map_err(|it| it.to_string())
    };
    let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let (found, total, has_more) = complete(tables, "name", "t").await.unwrap();
    assert_eq!((found.len(), total, has_more), (100, Some(121), Some(true)), "and customers");
    let found = complete(tables, "name", "ORD").await.unwrap();
    assert_eq!(found, (names(&["orders"]), Some(1), Some(false)));
    let views = "mcp://tenant001/database/view/{name}";
    let found = complete(views, "name", "totals").await.unwrap();
    assert_eq!(found.0, ["order_totals"]);
    let in_schema = "mcp://tenant001/database/schema/{schema}/table/{name}";
    assert_eq!(complete(in_schema, "schema", "").await.unwrap().0, [""; 0]);
    let context = CompletionContext::with_arguments([("schema".into(), "x".into())].into());
    let found = client.complete_resource_argument(in_schema, "name", "", Some(context)).await;
    assert_eq!(found.unwrap().values, [""; 0]);
    assert_eq!(
        complete("mcp://tenant001/api/{provider}", "provider", "").await.unwrap().1,
        Some(0)
    );

    let unknown = complete(tables, "schema", "").await.unwrap_err();
    assert!(unknown.contains("argument.name"), "{unknown}");
    let used_up = complete(tables, "name", "").await.unwrap_err();
    assert!(used_up.contains("quota"), "{used_up}");
    let foreign = complete("mcp://tenant002/database/table/{name}", "name", "").await.unwrap_err();
    assert!(foreign.contains("does not belong to your tenant"), "{foreign}");
    let unknown = complete("mcp://tenant001/{x}", "x", "").await.unwrap_err();
    assert!(unknown.contains("resources/templates/list"), "{unknown}");
    client.complete_prompt_simple("any", "x", "").await.unwrap_err();
    let entries = served.sandbox.audit(&[]);
    let entries: Vec<&Value> =
        entries.iter().filter(|entry| entry["action"] == "completion/complete").collect();
    assert_eq!(entries.len(), 11);
    assert_eq!(entries.iter().filter(|entry| entry["decision"] == "denied").count(), 5);

    let arguments = ["token", "create", "--tenant", "tenant001", "--scope", "query"];
    let token = served.sandbox.json(&arguments);
    let queries = connect(&server.endpoint, token["token"].as_str().unwrap(), Era::Modern).await;
    let refused = queries.complete_resource_argument(tables, "name", "", None).await.unwrap_err();
    assert!(refused.to_string().contains("scope \"list\""), "{refused}");
    let answer = call(&queries, "list_tenant_resources", json!({})).await;
    assert_eq!(error_code(&answer), "FORBIDDEN");
}

#[tokio::test]
async fn the_tools_of_analysts_are_there_where_the_tenant_has_the_feature() {
    let analyst = json!({ "features": { "advanced_analytics": true } });
    for (features, is_there) in [(analyst, true), (json!({}), false)] {
        let served = Served::new("", &features);
        let server = served.sandbox.serve();
        let client = connect(&server.endpoint, &served.token, Era::Modern).await;
        let tools = client.list_all_tools().await.unwrap();
        let uri = "mcp://tenant001/database/table/customers";
        for (name, arguments) in [
            ("explain_tenant_query", json!({ "resource_uri": uri, "query": "SELECT 1" })),
            ("describe_tenant_resource", json!({ "resource_uri": uri })),
        ] {
            let tool = tools.iter().find(|tool| tool.name == name);
            assert_eq!(tool.is_some(), is_there);
            let answer = call(&client, name, arguments).await;
            if let Some(tool) = tool {
                let schema = Value::Object((**tool.output_schema.as_ref().unwrap()).clone());
                jsonschema::validate(&schema, content(&answer)).unwrap();
                assert_ne!(answer.is_error, Some(true), "{answer:?}");
                let failure = call(&client, name, json!({ "unknown": 1 })).await;
                assert_eq!(error_code(&failure), "INVALID_ARGUMENT");
                jsonschema::validate(&schema, content(&failure)).unwrap();
            } else {
                assert_eq!(error_code(&answer), "FORBIDDEN");
                assert_eq!(content(&answer)["rule"], "feature");
            }
        }
        let refused = served.sandbox.audit(&["--code", "FORBIDDEN"]);
        let actions: Vec<&Value> = refused.iter().map(|entry| &entry["action"]).collect();
        let expected: &[&str] =
            if is_there { &[] } else { &["explain_tenant_query", "describe_tenant_resource"] };
        assert_eq!(actions, expected);
    }
}

#[tokio::test]
async fn a_plan_is_made_for_what_could_run_and_for_nothing_else() {
    let served = Served::new("", &json!({ "features": { "advanced_analytics": true } }));
    let server = served.sandbox.serve();
    let client = connect(&server.endpoint, &served.token, Era::Modern).await;
    let explain = async |path: &str, sql: &str| {
        let uri = format!("mcp://{path}");
        let arguments = json!({ "resource_uri": uri, "query": sql });
        call(&client, "explain_tenant_query", arguments).await
    };
    let join = "SELECT c.name FROM customers c JOIN orders o ON o.customer_id = c.id";
    let answer = explain("tenant001/database", join).await;
    let plan = &content(&answer)["plan"];
    assert_eq!(plan["node"], "QUERY");
    assert_eq!(plan["children"].as_array().unwrap().len(), 2);
    for (path, sql, code) in [
        ("tenant001/database/table/orders", join, "QUERY_REFUSED"),
        ("tenant001/database", "DELETE FROM orders", "QUERY_REFUSED"),
        ("tenant001/database", "EXPLAIN SELECT 1", "QUERY_REFUSED"),
        ("tenant001/database", "SELECT 1; SELECT 2", "QUERY_REFUSED"),
        ("tenant001/database", "SELECT load_extension('x')", "QUERY_REFUSED"),
        ("tenant001/database", "SELECT nonsense FROM orders", "QUERY_FAILED"),
        ("tenant002/database", "SELECT 1", "FORBIDDEN"),
    ] {
        assert_eq!(error_code(&explain(path, sql).await), code, "{sql}");
    }
}

#[tokio::test]
async fn columns_are_described_over_the_rows_that_a_caller_may_read() {
    let script =
        "CREATE TABLE mixed (id INTEGER PRIMARY KEY, word TEXT, any, \"odd \"\"name\" REAL);
        INSERT INTO mixed VALUES (1, 'b', 1, 1.5), (2, NULL, 'x', 1.5), (3, 'a', x'00', NULL);
        CREATE TABLE large (n INTEGER);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
        INSERT INTO large SELECT i FROM n; CREATE TABLE hollow (x TEXT);";
    let more = json!({
        "features": { "advanced_analytics": true },
        "access": { "deny_columns": ["customers.password_hash"] },
    });
    let served = Served::new(script, &more);
    let server = served.sandbox.serve();
    let client = connect(&server.endpoint, &served.token, Era::Modern).await;
    let describe = async |path: &str, columns: Value| {
        let uri = format!("mcp://tenant001/database{path}");
        let mut arguments = json!({ "resource_uri": uri });
        if columns.is_array() {
            arguments["columns"] = columns;
        }
        call(&client, "describe_tenant_resource", arguments).await
    };
    let answer = describe("/table/mixed", Value::Null).await;
    let expected = json!([
        { "name": "id", "type": "integer", "nulls": 0, "distinct": 3, "min": 1, "max": 3 },
        { "name": "word", "type": "text", "nulls": 1, "distinct": 2, "min": "a", "max": "b" },
        { "name": "any", "type": "", "nulls": 0, "distinct": 3, "min": 1, "max": "AA==" },
        { "name": "odd \"name", "type": "real", "nulls": 1, "distinct": 1, "min": 1.5, "max": 1.5 },
    ]);
    assert_eq!(content(&answer)["columns"], expected, "{answer:?}");
    assert_eq!(content(&answer)["complete"], json!(true));
    let answer = describe("/table/large", json!(["n"])).await;
    assert_eq!(content(&answer)["rows_examined"], json!(10_000));
    assert_eq!(content(&answer)["complete"], json!(false));
    let answer = describe("/table/hollow", Value::Null).await;
    let empty = json!([{ "name": "x", "type": "text", "nulls": 0, "distinct": 0, "min": null, "max": null }]);
    assert_eq!(content(&answer)["columns"], empty);
    let answer = describe("/table/customers", Value::Null).await;
    assert_eq!(content(&answer)["columns"].as_array().unwrap().len(), 3, "{answer:?}");
    assert!(!format!("{answer:?}").contains("hash"));
    for (path, columns, code) in [
        ("/table/customers", json!(["password_hash"]), "INVALID_ARGUMENT"),
        ("/table/gone", Value::Null, "RESOURCE_NOT_FOUND"),
        ("", Value::Null, "INVALID_ARGUMENT"),
    ] {
        assert_eq!(error_code(&describe(path, columns).await), code, "{path}");
    }
}
