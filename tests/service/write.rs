//! Changes of rows over MCP: who may make them, what is counted, what is recorded.

use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{CUSTOMERS, Sandbox};
use crate::{Client, Era, call, connect, content, error_code, query};

const DATABASE: &str = "mcp://tenant001/database";

/// `tenant001` may be written, `tenant002` only read; tokens that may write each, and one of
/// `tenant001` that may not.
struct Writers {
    sandbox: Sandbox,
    writes: String,
    reads: String,
    read_only: String,
}

impl Writers {
    fn new(more: &Value) -> Self {
        let sandbox = Sandbox::new();
        let mut file = json!({ "access": { "mode": "read_write" } });
        for (name, value) in more.as_object().into_iter().flatten() {
            file[name] = value.clone();
        }
        sandbox.add_tenant("tenant001", &file);
        sandbox.add_tenant("tenant002", &json!({}));
        sandbox.import();
        let token = |tenant: &str, scopes: &str| {
            let arguments = ["token", "create", "--tenant", tenant, "--scope", scopes];
            sandbox.json(&arguments)["token"].as_str().unwrap().to_owned()
        };
        let all = "list,query,metadata,write";
        let (writes, read_only) = (token("tenant001", all), token("tenant002", all));
        let reads = token("tenant001", "list,query,metadata");
        Self { sandbox, writes, reads, read_only }
    }

    fn file(&self) -> Connection {
        Connection::open(self.sandbox.data_dir().join("databases/tenant001.db")).unwrap()
    }

    fn count(&self, sql: &str) -> i64 {
        self.file().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// The entries of changes: what became of each, and of how many rows.
    fn entries(&self) -> Vec<Value> {
        let all = self.sandbox.audit(&[]);
        all.into_iter().filter(|entry| entry["action"] == "write_tenant_data").collect()
    }
}

async fn change(client: &Client, statement: &str) -> rmcp::model::CallToolResult {
    let arguments = json!({ "resource_uri": DATABASE, "statement": statement });
    call(client, "write_tenant_data", arguments).await
}

#[tokio::test]
async fn only_who_may_write_is_shown_the_tool_and_the_others_are_refused_and_recorded() {
    let writers = Writers::new(&json!({}));
    let server = writers.sandbox.serve();
    for (token, rule) in [
        (&writers.writes, None),
        (&writers.reads, Some("scope")),
        (&writers.read_only, Some("access-mode")),
    ] {
        for era in [Era::Legacy, Era::Modern] {
            let client = connect(&server.endpoint, token, era).await;
            let tools = client.list_all_tools().await.unwrap();
            let tool = tools.iter().find(|tool| tool.name == "write_tenant_data");
            assert_eq!(tool.is_some(), rule.is_none(), "{rule:?}");
            if let Some(tool) = tool {
                let hints = tool.annotations.as_ref().unwrap();
                assert_eq!(hints.read_only_hint, Some(false));
                assert_eq!(hints.destructive_hint, Some(true));
                assert_eq!(hints.idempotent_hint, Some(false));
                let reads = tools.iter().find(|tool| tool.name == "query_tenant_data").unwrap();
                assert_eq!(reads.annotations.as_ref().unwrap().read_only_hint, Some(true));
            }
            let tenant = if rule == Some("access-mode") { "tenant002" } else { "tenant001" };
            let arguments = json!({
                "resource_uri": format!("mcp://{tenant}/database"),
                "statement": "UPDATE customers SET name = 'x' WHERE id = 1",
            });
            let answer = call(&client, "write_tenant_data", arguments).await;
            if let Some(rule) = rule {
                assert_eq!(error_code(&answer), "FORBIDDEN");
                assert_eq!(content(&answer)["rule"], rule);
            } else {
                assert_eq!(content(&answer)["row_count"], 1, "{answer:?}");
            }
            // What changes is no query, whoever asks.
            let uri = format!("mcp://{tenant}/database");
            let answer = query(&client, &uri, "UPDATE customers SET name = 'y' WHERE true").await;
            assert_eq!(error_code(&answer), "QUERY_REFUSED");
            client.cancel().await.unwrap();
        }
    }
    server.stop().ok();
    assert_eq!(writers.count("SELECT count(*) FROM customers WHERE name IN ('x', 'y')"), 1);
    let entries = writers.entries();
    let told: Vec<_> = entries.iter().map(|it| (&it["decision"], &it["rule"])).collect();
    let (none, scope, mode) = (json!(null), json!("scope"), json!("access-mode"));
    let (begun, allowed, denied) = (json!("begun"), json!("allowed"), json!("denied"));
    assert_eq!(
        told,
        [
            (&begun, &none),
            (&allowed, &none),
            (&begun, &none),
            (&allowed, &none),
            (&denied, &scope),
            (&denied, &scope),
            (&denied, &mode),
            (&denied, &mode),
        ]
    );
}

#[tokio::test]
async fn a_change_is_counted_bounded_and_recorded_before_and_after() {
    let writers = Writers::new(&json!({
        "access": {
            "mode": "read_write", "tables": ["customers", "order_totals"],
            "deny_columns": ["customers.password_hash"],
        },
        "limits": { "max_rows": 5 },
        "quotas": { "max_queries_per_hour": 9 },
    }));
    let server = writers.sandbox.serve();
    let client = connect(&server.endpoint, &writers.writes, Era::Modern).await;
    let sql = "INSERT INTO customers (id, name, email) VALUES (900, 'Neu', ?1) RETURNING id, email";
    let arguments = json!({
        "resource_uri": DATABASE, "statement": sql, "params": ["neu@tenant001.example"], "limit": 1,
    });
    let answer = call(&client, "write_tenant_data", arguments).await;
    let made = content(&answer);
    assert_eq!(made["row_count"], 1, "{answer:?}");
    assert_eq!(made["rows"], json!([[900, "neu@tenant001.example"]]));
    assert_eq!(made["columns"][0]["name"], "id");
    let tools = client.list_all_tools().await.unwrap();
    let tool = tools.iter().find(|tool| tool.name == "write_tenant_data").unwrap();
    let schema = Value::Object((**tool.output_schema.as_ref().unwrap()).clone());
    jsonschema::validate(&schema, made).unwrap();
    for (statement, expected) in [
        ("DELETE FROM customers WHERE id > 800", "1"),
        ("UPDATE customers SET name = 'x' WHERE true", "RESULT_TOO_LARGE"),
        ("DELETE FROM orders WHERE id = 10", "write: relation"),
        ("UPDATE customers SET password_hash = '' WHERE id = 1", "write: column"),
        ("DELETE FROM customers", "write: write-without-where"),
        ("DROP TABLE customers", "write: statement-kind"),
        ("DELETE FROM order_totals WHERE true", "write: relation"),
        ("INSERT INTO customers (id, name, email) VALUES (1, 'x', 'x')", "QUERY_FAILED"),
        ("DELETE FROM customers WHERE id = 1", "QUOTA_EXCEEDED"),
    ] {
        let answer = change(&client, statement).await;
        let got = if answer.is_error != Some(true) {
            content(&answer)["row_count"].to_string()
        } else if error_code(&answer) == "QUERY_REFUSED" {
            format!("write: {}", content(&answer)["rule"].as_str().unwrap())
        } else {
            error_code(&answer).to_owned()
        };
        assert_eq!(got, expected, "{statement}: {answer:?}");
    }
    let foreign = json!({
        "resource_uri": "mcp://tenant002/database", "statement": "DELETE FROM customers WHERE true",
    });
    let answer = call(&client, "write_tenant_data", foreign).await;
    assert_eq!(error_code(&answer), "FORBIDDEN");
    server.stop().ok();
    assert_eq!(writers.count("SELECT count(*) FROM customers").unsigned_abs(), CUSTOMERS);

    let entries = writers.entries();
    let (mut begun, mut ended): (Vec<_>, Vec<_>) =
        entries.iter().partition(|entry| entry["decision"] == "begun");
    // Each that reached the database was announced, and each that was announced has ended.
    ended.retain(|entry| begun.iter().any(|it| it["request_id"] == entry["request_id"]));
    begun.retain(|entry| entry["rows"].is_null() && entry["resource"] == DATABASE);
    let rows: Vec<_> = ended.iter().map(|it| (&it["code"], &it["rows"])).collect();
    let null = Value::Null;
    assert_eq!(
        rows,
        [
            (&null, &json!(1)),
            (&null, &json!(1)),
            (&json!("RESULT_TOO_LARGE"), &null),
            // A view is found out at the database.
            (&json!("QUERY_REFUSED"), &null),
            (&json!("QUERY_FAILED"), &null),
        ]
    );
    assert_eq!(begun.len(), ended.len());
    let text = serde_json::to_string(&entries).unwrap();
    assert!(!text.contains("neu@") && !text.contains("INSERT"), "{text}");
}

/// However the process ends, a change that may have been made has left its entry.
#[tokio::test]
async fn a_change_is_in_the_audit_log_before_the_database_is_asked() {
    let writers = Writers::new(&json!({}));
    let mut server = writers.sandbox.serve();
    let client = connect(&server.endpoint, &writers.writes, Era::Modern).await;
    // Somebody else writes, so that the change waits.
    let other = writers.file();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting = change(&client, "UPDATE customers SET name = 'x' WHERE id = 1");
    let killed = async {
        while writers.entries().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server.signal("-KILL");
    };
    tokio::select! {
        biased;
        () = killed => {}
        answer = waiting => unreachable!("{answer:?}"),
    }
    server.wait();
    other.execute_batch("ROLLBACK").unwrap();
    let entries = writers.entries();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["decision"], "begun");
    assert_eq!(entries[0]["actor"]["kind"], "token");
    assert_eq!(writers.count("SELECT count(*) FROM customers WHERE name = 'x'"), 0);
    writers.sandbox.run(&["fsck"]).ok();
}
