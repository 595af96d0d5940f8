//! How the service ends.

use rmcp::model::CallToolRequestParams;
use serde_json::json;

use crate::support::Sandbox;
use crate::{Era, TwoTenants, connect, error_code, query};

/// Counts for minutes.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

#[tokio::test]
async fn a_signal_ends_the_service_and_cuts_calls_that_do_not_end() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant(
        "tenant001",
        &json!({
            "limits": { "statement_timeout_ms": 3_600_000 },
            "quotas": { "max_concurrent_connections": 1 },
        }),
    );
    sandbox.import();
    let token = sandbox.token("tenant001");
    let mut server = sandbox.serve_with(&[
        ("TENANTRY_HTTP__DRAIN_TIMEOUT_SECONDS", "1"),
        ("TENANTRY_POOL__ACQUIRE_TIMEOUT_MS", "50"),
    ]);
    let client = connect(&server.endpoint, &token, Era::Modern).await;
    let endless = client.call_tool(
        CallToolRequestParams::new("query_tenant_data").with_arguments(
            json!({ "resource_uri": "mcp://tenant001/database", "query": ENDLESS })
                .as_object()
                .unwrap()
                .clone(),
        ),
    );
    let stop = async {
        // The endless call is under way once it has the tenant's only place.
        let probe = connect(&server.endpoint, &token, Era::Modern).await;
        loop {
            let answer = query(&probe, "mcp://tenant001/database", "SELECT 1").await;
            if answer.is_error == Some(true) {
                assert_eq!(error_code(&answer), "POOL_EXHAUSTED");
                break;
            }
        }
        server.signal("-INT");
        tokio::task::spawn_blocking(move || server.wait()).await.unwrap()
    };
    let (answer, finished) = tokio::join!(endless, stop);
    assert!(answer.is_err() || answer.unwrap().is_error == Some(true));
    finished.failed(1, &["1 call(s) did not finish in time"]);
    let entries = sandbox.audit(&[]);
    let cut = entries.iter().filter(|entry| entry["decision"] == "abandoned").count();
    assert_eq!(cut, 1, "{entries:?}");
    sandbox.serve().stop().ok();
}

#[tokio::test]
async fn a_killed_service_leaves_a_vault_that_opens() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({}));
    sandbox.import();
    let token = sandbox.token("tenant001");
    for _ in 0..3 {
        let mut server = sandbox.serve();
        let client = connect(&server.endpoint, &token, Era::Modern).await;
        query(&client, "mcp://tenant001/database", "SELECT 1").await;
        server.signal("-KILL");
        server.wait();
    }
    let seqs: Vec<_> =
        sandbox.audit(&[]).iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert_eq!(sandbox.json(&["tenant", "list"])[0]["tenant_id"], "tenant001");
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nobody_up() {
    let tenants = TwoTenants::new();
    // Each call of this tenant is a line in the log.
    std::fs::remove_file(tenants.sandbox.data_dir().join("databases/tenant002.db")).unwrap();
    let server = tenants.sandbox.serve();
    let [good, without_database] = &tenants.tokens;
    let client = connect(&server.endpoint, without_database, Era::Modern).await;
    // Nobody reads the pipe, which has room for 64 KiB.
    for _ in 0..50 {
        let calls = (0..20).map(|_| query(&client, "mcp://tenant002/database", "SELECT 1"));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(error_code(&answer), "DATABASE_UNAVAILABLE");
        }
    }
    let client = connect(&server.endpoint, good, Era::Modern).await;
    let answer = query(&client, "mcp://tenant001/database", "SELECT 1").await;
    assert_ne!(answer.is_error, Some(true), "{answer:?}");
    // Only what was written before it was full, and then from where it was read again.
    let finished = server.stop().ok();
    assert!(finished.stderr.len() > 64 << 10, "{} bytes", finished.stderr.len());
}
