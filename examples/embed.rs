//! The quick start of the README, for code that embeds tenantry: `cargo run --example embed`.
//!
//! Imports one tenant on a SQLite file, leases its server twice, reads its data, and is refused
//! another tenant's.

#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tenantry::TenantMcpManager;
use tenantry::audit::Log;
use tenantry::clock::SystemClock;
use tenantry::error::ErrorCode;
use tenantry::memory::SecretText;
use tenantry::store::DataDir;
use tenantry::tenant::{IdRule, Surroundings, TenantFile, scope_uri, validate_uri_access};
use tenantry::vault::{self, KdfCost, TenantCredentialVault};
use tenantry::{database, pool};

/// In production this is a file of the operator's, `tenant001.json`.
const TENANT_FILE: &str = r#"{
    "tenant_id": "tenant001",
    "db_engine": "sqlite",
    "db_path": "tenant001.db",
    "quotas": { "max_queries_per_hour": 1000, "max_concurrent_connections": 5 }
}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("tenantry-embed-{}", std::process::id()));
    let result = run(&directory, KdfCost::DEFAULT);
    std::fs::remove_dir_all(&directory)?;
    result
}

/// Does everything below `directory`, which must not exist.
pub(crate) fn run(directory: &Path, cost: KdfCost) -> Result<(), Box<dyn Error>> {
    // Once: a data directory, sealed under a passphrase, and its first tenant.
    let passphrase = SecretText::from("a passphrase of the operator's");
    let data = DataDir::create(directory)?;
    vault::create(&data, &passphrase, cost, &SystemClock)?;
    make_database(&directory.join("tenant001.db"))?;

    let clock = Arc::new(SystemClock);
    let log = Log::open(&data.audit_path(), clock.clone())?;
    let vault = TenantCredentialVault::open(data, vault::Options::default(), clock)?;
    vault.unseal(&vault::Unlock::Passphrase(passphrase))?;
    let surroundings = Surroundings {
        id_rule: IdRule::Alphanumeric,
        lookup: &|_| None,
        certificate: &|_| Err("there are none".to_owned()),
    };
    let file = TenantFile::read("tenant001.json", TENANT_FILE.as_bytes(), &surroundings)
        .map_err(|problems| format!("{problems:?}"))?;
    vault.import(vec![file.tenant])?;

    let database = database::Options {
        sqlite_root: directory.to_owned(),
        connect_timeout: Duration::from_secs(10),
        addresses: database::AddressPolicy::default(),
    };
    let options = pool::Options::new(database);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime
        .block_on(async { use_tenant(&TenantMcpManager::new(Arc::new(vault), log, options)).await })
}

async fn use_tenant(manager: &TenantMcpManager) -> Result<(), Box<dyn Error>> {
    // Get a tenant-scoped server; the second call meets the same instance.
    let first = manager.get_or_create_server("tenant001").await?;
    let tenant = first.tenant().clone();
    assert_eq!(tenant.as_str(), "tenant001");
    let instance = first.instance_id();
    drop(first);
    let mut server = manager.get_or_create_server("tenant001").await?;
    assert_eq!(server.instance_id(), instance);

    // Use its tools.
    for resource in server.list_tenant_resources(Some("database")).await? {
        println!("{:8} {}", resource.kind, resource.uri);
    }
    let customers = scope_uri("database/table/customers", &tenant)?.to_string();
    assert!(validate_uri_access(&customers, &tenant));
    let answer =
        server.query_tenant_data(&customers, "SELECT * FROM customers LIMIT 10", Some(100)).await?;
    println!("{} rows of {customers}: {:?}", answer.row_count, answer.rows);
    let metadata = server.get_tenant_metadata().await?;
    println!("{} on {}", metadata.tenant_id, metadata.database_engine);

    // Another tenant's URI is refused, and recorded.
    let foreign = "mcp://tenant002/database/table/customers";
    let refused = server.query_tenant_data(foreign, "SELECT * FROM customers", None).await;
    match refused {
        Err(failure) if failure.code() == ErrorCode::Forbidden => println!("refused: {failure}"),
        _ => return Err("another tenant's data was not refused".into()),
    }
    drop(server);

    // Errors carry the stable codes.
    let code = |error: tenantry::manager::Error| error.code();
    let invalid = manager.get_or_create_server("tenant-001").await.map(drop).map_err(code);
    assert_eq!(invalid, Err(ErrorCode::InvalidTenant));
    let unknown = manager.get_or_create_server("tenant002").await.map(drop).map_err(code);
    assert_eq!(unknown, Err(ErrorCode::TenantNotConfigured));

    let stats = manager.pool_stats();
    println!(
        "acquired {}, created {}, pool size {}, active tenants {}",
        stats.total_acquired, stats.total_created, stats.current_pool_size, stats.active_tenants
    );
    assert_eq!((stats.total_acquired, stats.total_created), (2, 1));
    manager.cleanup_idle_instances();
    manager.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

fn make_database(path: &Path) -> Result<(), rusqlite::Error> {
    rusqlite::Connection::open(path)?.execute_batch(
        "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
         INSERT INTO customers (name) VALUES ('Ann'), ('Bob'), ('Cem');",
    )
}
