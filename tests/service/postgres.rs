//! Tenants on a real PostgreSQL server, imported from files as the README shows.

use rmcp::model::ReadResourceRequestParams;
use serde_json::{Value, json};

use crate::support::Sandbox;
use crate::{Era, call, connect, content, error_code, query};

/// What `tests/support/postgres.sh` says about the server that it started.
#[expect(clippy::disallowed_methods, reason = "how the test runner hands the server over")]
fn told(name: &str) -> String {
    std::env::var(name).expect("run ./dev test, which starts a private Postgres")
}

fn port() -> u16 {
    told("TENANTRY_TEST_PG_PORT").parse().unwrap()
}

/// A session of the server's owner.
pub(crate) async fn superuser(database: &str) -> tokio_postgres::Client {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port())
        .user(told("TENANTRY_TEST_PG_SUPERUSER"))
        .password(told("TENANTRY_TEST_PG_PASSWORD"))
        .dbname(database);
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(connection);
    client
}

/// Makes a database with a role and a table for `tenant`, and gives its tenant file.
pub(crate) async fn make_tenant(tenant: &str, password: &str) -> Value {
    let (database, role) = (format!("{tenant}_db"), format!("{tenant}_app"));
    let postgres = superuser("postgres").await;
    for statement in [
        format!("CREATE ROLE {role} LOGIN PASSWORD '{password}'"),
        format!("CREATE DATABASE {database}"),
    ] {
        postgres.batch_execute(&statement).await.unwrap();
    }
    let script = format!(
        "CREATE TABLE customers (id int PRIMARY KEY, email text, joined date, balance numeric);
         COMMENT ON TABLE customers IS 'Customers of {tenant}';
         INSERT INTO customers
             SELECT i, 'c' || i || '@{tenant}.example', date '2026-01-01' + i, i * 1.10
             FROM generate_series(1, 50) AS i;
         GRANT SELECT ON customers TO {role};"
    );
    superuser(&database).await.batch_execute(&script).await.unwrap();
    json!({
        "tenant_id": tenant, "db_host": "localhost", "db_port": port(), "db_name": database,
        "db_user": role, "db_password": "${PG_TEST_PASSWORD}",
        "db_sslrootcert": told("TENANTRY_TEST_PG_CA"),
    })
}

#[tokio::test]
async fn tenants_on_postgres_are_served_over_verified_tls_and_apart() {
    const PASSWORD: &str = "canary-postgres-4410ce";
    let sandbox = Sandbox::new();
    for tenant in ["pgone001", "pgtwo002"] {
        let mut file = make_tenant(tenant, PASSWORD).await;
        file["features"] = json!({ "advanced_analytics": true });
        sandbox.write_config(&format!("{tenant}.json"), &file.to_string());
    }
    // A tenant whose password is wrong, and one whose server is not there.
    let mut wrong = make_tenant("pgwrong3", PASSWORD).await;
    wrong["db_password"] = json!("${PG_TEST_PASSWORD}-wrong");
    sandbox.write_config("pgwrong3.json", &wrong.to_string());
    let mut down = wrong.clone();
    (down["tenant_id"], down["db_port"]) = (json!("pgdown04"), json!(1));
    sandbox.write_config("pgdown04.json", &down.to_string());

    let configs = sandbox.path("configs");
    let import = |flags: &[&str]| {
        let arguments = [&["tenant", "import", configs.to_str().unwrap()], flags].concat();
        let mut import = sandbox.command(&arguments);
        crate::support::finish(import.env("PG_TEST_PASSWORD", PASSWORD))
    };
    import(&[]).failed(3, &["pgwrong3_app", "cannot log in", "nothing was imported"]);
    import(&["--no-role-check"]).ok();
    let ids = ["pgone001", "pgtwo002", "pgwrong3", "pgdown04"];
    let tokens = ids.map(|tenant| sandbox.token(tenant));
    let server = sandbox.serve();

    for (tenant, token) in ids.iter().zip(&tokens).take(2) {
        let client = connect(&server.endpoint, token, Era::Modern).await;
        let listed =
            call(&client, "list_tenant_resources", json!({ "resource_type": "table" })).await;
        let table = &content(&listed)["resources"][0];
        let uri = format!("mcp://{tenant}/database/table/customers");
        assert_eq!(table["uri"], json!(uri));
        assert_eq!(table["description"], json!(format!("Customers of {tenant}")));
        let sql = "SELECT id, email, joined, balance FROM customers WHERE id = $1";
        let arguments = json!({ "resource_uri": uri, "query": sql, "params": [7] });
        let answer = call(&client, "query_tenant_data", arguments).await;
        let row = json!([7, format!("c7@{tenant}.example"), "2026-01-08", "7.70"]);
        assert_eq!(content(&answer)["rows"], json!([row]), "{answer:?}");
        let write = query(&client, &uri, "DELETE FROM customers").await;
        assert_eq!(error_code(&write), "QUERY_REFUSED");
        let failed = query(&client, &uri, "SELECT nonsense FROM customers").await;
        assert_eq!(error_code(&failed), "QUERY_FAILED");
        assert_eq!(content(&failed)["sqlstate"], "42703");
        let foreign = query(&client, "mcp://pgtwo002x/database", "SELECT 1").await;
        assert_eq!(error_code(&foreign), "FORBIDDEN");
        let read = client.read_resource(ReadResourceRequestParams::new(&uri)).await.unwrap();
        assert!(format!("{read:?}").contains(&format!("c1@{tenant}.example")));
        let described =
            call(&client, "describe_tenant_resource", json!({ "resource_uri": uri })).await;
        let statistics = json!([
            { "name": "id", "type": "integer", "nulls": 0, "distinct": 50, "min": 1, "max": 50 },
            {
                "name": "email", "type": "text", "nulls": 0, "distinct": 50,
                "min": format!("c10@{tenant}.example"), "max": format!("c9@{tenant}.example"),
            },
            {
                "name": "joined", "type": "date", "nulls": 0, "distinct": 50,
                "min": "2026-01-02", "max": "2026-02-20",
            },
            {
                "name": "balance", "type": "numeric", "nulls": 0, "distinct": 50,
                "min": "1.10", "max": "55.00",
            },
        ]);
        assert_eq!(content(&described)["columns"], statistics, "{described:?}");
        let arguments = json!({ "resource_uri": uri, "query": sql, "params": [7] });
        let explained = call(&client, "explain_tenant_query", arguments).await;
        assert_eq!(content(&explained)["plan"]["relation"], "customers", "{explained:?}");
        let metadata = call(&client, "get_tenant_metadata", json!({})).await;
        assert_eq!(content(&metadata)["database_host"], "localhost");
        assert!(content(&metadata)["server_version"].is_string());
        assert!(!format!("{metadata:?}").contains("_app"), "no user name");
    }
    for (tenant, token) in ids.iter().zip(&tokens).skip(2) {
        let client = connect(&server.endpoint, token, Era::Modern).await;
        let answer = query(&client, &format!("mcp://{tenant}/database"), "SELECT 1").await;
        assert_eq!(error_code(&answer), "DATABASE_UNAVAILABLE");
        let text = format!("{answer:?}");
        assert!(!text.contains(PASSWORD) && !text.contains("_app"), "{text}");
        let metadata = call(&client, "get_tenant_metadata", json!({})).await;
        assert_ne!(metadata.is_error, Some(true), "metadata does not need the database");
        assert!(content(&metadata).get("server_version").is_none());
    }
    let finished = server.stop().ok();
    assert!(!finished.stderr.contains(PASSWORD));
    let opened = sandbox.audit(&["--code", "DATABASE_UNAVAILABLE"]);
    assert_eq!(opened.len(), 2);
}

/// The most memory that the process had since this was asked last, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn millions_of_rows_and_a_cell_of_fifty_megabytes_cost_the_service_little_memory() {
    const PASSWORD: &str = "canary-postgres-7be102";
    const TENANT: &str = "pgmuch05";
    let sandbox = Sandbox::new();
    let mut file = make_tenant(TENANT, PASSWORD).await;
    // So that the answer is as large as it may be.
    file["limits"] = json!({ "max_rows": 1_000_000 });
    sandbox.write_config(&format!("{TENANT}.json"), &file.to_string());
    let configs = sandbox.path("configs");
    let mut import = sandbox.command(&["tenant", "import", configs.to_str().unwrap()]);
    crate::support::finish(import.env("PG_TEST_PASSWORD", PASSWORD)).ok();
    let server = sandbox.serve();
    let client = connect(&server.endpoint, &sandbox.token(TENANT), Era::Modern).await;
    let uri = format!("mcp://{TENANT}/database");
    let ask = async |sql: &str| query(&client, &uri, sql).await;
    assert_eq!(content(&ask("SELECT 1").await)["row_count"], 1);
    let before = peak_memory(server.pid());
    let rows = ask(
        "SELECT n * m, n * 1.5 AS x FROM generate_series(1, 3000) n, generate_series(1, 1000) m",
    )
    .await;
    assert_eq!(content(&rows)["truncated"], true, "{:?}", rows.content);
    let cell = ask("SELECT repeat('x', 50000000)").await;
    assert_eq!(error_code(&cell), "RESULT_TOO_LARGE");
    let growth = peak_memory(server.pid()).saturating_sub(before);
    println!("{growth} bytes more for 3 million rows and a cell of 50 MB");
    assert!(growth < 16 << 20, "{growth} bytes");
}

#[tokio::test]
async fn calls_share_the_connections_that_a_role_may_have_and_none_is_refused() {
    const PASSWORD: &str = "canary-postgres-90d3fa";
    const TENANT: &str = "pgfull06";
    let sandbox = Sandbox::new();
    let file = make_tenant(TENANT, PASSWORD).await;
    sandbox.write_config(&format!("{TENANT}.json"), &file.to_string());
    let configs = sandbox.path("configs");
    let mut import = sandbox.command(&["tenant", "import", configs.to_str().unwrap()]);
    crate::support::finish(import.env("PG_TEST_PASSWORD", PASSWORD)).ok();
    let postgres = superuser("postgres").await;
    let limit = async |connections: u32| {
        let sql = format!("ALTER ROLE {TENANT}_app CONNECTION LIMIT {connections}");
        postgres.batch_execute(&sql).await.unwrap();
    };
    limit(0).await;
    let server = sandbox.serve();
    let client = connect(&server.endpoint, &sandbox.token(TENANT), Era::Modern).await;
    let uri = format!("mcp://{TENANT}/database");
    // It has none to wait for.
    let refused = query(&client, &uri, "SELECT 1").await;
    assert_eq!(error_code(&refused), "DATABASE_UNAVAILABLE");
    assert!(format!("{refused:?}").contains("CONNECTION LIMIT"), "{refused:?}");
    limit(2).await;
    let answered = async || {
        while query(&client, &uri, "SELECT 1").await.is_error == Some(true) {}
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), answered()).await.unwrap();
    let slow = "SELECT count(*) FROM generate_series(1, 300) a, generate_series(1, 3000) b";
    let calls = (0..10).map(|_| query(&client, &uri, slow));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(content(&answer)["rows"], json!([[900_000]]), "{answer:?}");
    }
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{TENANT}_app'");
    assert_eq!(postgres.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0), 2);
}
