//! The library, as embedding code meets it.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tenantry::audit::Log;
use tenantry::clock::SystemClock;
use tenantry::store::DataDir;
use tenantry::vault::{self, KdfCost};
use tenantry::{TenantCredentialVault, TenantMcpManager, database, pool};

#[path = "../examples/embed.rs"]
#[expect(dead_code, reason = "its main is for people")]
mod example;

#[test]
fn the_embedding_example_does_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let cost = KdfCost::insecure_for_tests();
    example::run(&directory.path().join("data"), cost).unwrap();
}

#[tokio::test]
async fn a_dropped_manager_lets_go_of_the_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let passphrase = SecretString::from("a passphrase for tests");
    let data = DataDir::create(&path).unwrap();
    vault::create(&data, &passphrase, KdfCost::insecure_for_tests(), &SystemClock).unwrap();
    let clock = Arc::new(SystemClock);
    let log = Log::open(&data.audit_path(), clock.clone()).unwrap();
    let options = vault::Options::default();
    let vault = TenantCredentialVault::unseal(data, &passphrase, options, clock).unwrap();
    let options = pool::Options {
        max_instances_per_tenant: 1,
        idle_timeout: Duration::from_mins(1),
        acquire_timeout: Duration::from_secs(1),
        database: database::Options {
            sqlite_root: path.clone(),
            connect_timeout: Duration::from_secs(1),
        },
    };
    let manager = TenantMcpManager::new(Arc::new(vault), log, options);
    tokio::task::yield_now().await;
    assert!(DataDir::open(&path).is_err(), "it is in use");
    drop(manager);
    // The tasks that hold on to it for a moment end by themselves.
    while DataDir::open(&path).is_err() {
        tokio::task::yield_now().await;
    }
}
