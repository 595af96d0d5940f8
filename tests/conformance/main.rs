//! The official conformance suite (`@modelcontextprotocol/conformance`) against our endpoint.
//!
//! ```text
//! suite --no token--> proxy --token--> http::serve_with: router, authentication, Dispatch --> fixtures
//!                                      http::serve:      the same                         --> tenant
//! ```
//!
//! The suite wants a server with tools and resources of its own. [`Fixtures`] has them; everything
//! around it is what the program serves tenants with. A tenant's own server is run against the suite as
//! well: all that it cannot pass is what needs a fixture, by name. `./dev test` installs the suite.
#![expect(clippy::disallowed_methods, reason = "what is served here ends with the test")]
#![expect(clippy::unwrap_used, reason = "a failed set-up should fail the test")]

mod fixtures;
mod proxy;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tenantry::audit::Log;
use tenantry::auth::TenantAccess;
use tenantry::clock::SystemClock;
use tenantry::http::{self, Handlers, SessionOptions};
use tenantry::memory::SecretText;
use tenantry::server::Dispatch;
use tenantry::store::DataDir;
use tenantry::tenant::{IdRule, Permissions, Surroundings, TenantFile, TenantId};
use tenantry::vault::{self, KdfCost, Unlock};
use tenantry::{TenantCredentialVault, TenantMcpManager, database, manager, pool};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use fixtures::Fixtures;

/// The two revisions that have a list of what they require.
const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

/// Puts the fixtures where a tenant's own handler would be.
#[derive(Clone)]
struct InPlaceOfTenants {
    manager: Arc<TenantMcpManager>,
    fixtures: Fixtures,
}

impl Handlers for InPlaceOfTenants {
    type Handler = Dispatch<Fixtures>;

    async fn handler(&self, access: TenantAccess) -> Result<Self::Handler, manager::Error> {
        let fixtures = self.fixtures.clone();
        Ok(self.manager.handler(access).await?.map(|_| fixtures))
    }
}

/// What answers a tenant's requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Serves {
    Fixtures,
    Tenant,
}

/// A running endpoint with one tenant, and a proxy that has its token.
struct Service {
    proxy: SocketAddr,
    stopping: CancellationToken,
    served: tokio::task::JoinHandle<u64>,
    _directory: TempDir,
}

impl Service {
    async fn start(serves: Serves, sessions: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (manager, token) = manager(directory.path());
        let manager = Arc::new(manager);
        let sessions = sessions.then_some(SessionOptions {
            max: 100,
            max_per_tenant: 100,
            idle_timeout: Duration::from_mins(1),
        });
        let options = http::Options {
            drain_timeout: Duration::from_secs(2),
            sessions,
            ..http::Options::default()
        };
        let handle = http::Handle::new(options).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let stopping = CancellationToken::new();
        let stop = stopping.clone();
        let served = match serves {
            Serves::Tenant => {
                tokio::spawn(async move { http::serve(listener, manager, handle, stop).await })
            }
            Serves::Fixtures => {
                let (manager, fixtures) = (Arc::clone(&manager), Fixtures::default());
                let handlers = InPlaceOfTenants { manager: Arc::clone(&manager), fixtures };
                tokio::spawn(async move {
                    http::serve_with(listener, manager, handlers, handle, stop).await
                })
            }
        };
        let proxy = proxy::start(server, token).await;
        Self { proxy, stopping, served, _directory: directory }
    }

    /// Runs the suite, prints what it says, and gives that and whether all of it passed.
    async fn run(&self, revision: &str, more: &[&str]) -> (String, bool) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (node, suite) = (root.join("target/clients/node"), suite());
        for needed in [&node, &suite] {
            assert!(
                needed.exists(),
                "{} is not there: run ./dev test, which installs it where npm's registry can be \
                 reached",
                needed.display()
            );
        }
        let mut command = tokio::process::Command::new(node);
        let output = command
            .arg(suite)
            .args(["server", "--url", &format!("http://{}/mcp", self.proxy)])
            .args(["--requirements", revision])
            // What a server without sessions asks of the client is never answered.
            .args(["--timeout", "10000"])
            .args(more)
            .current_dir(root.join("tests/conformance"))
            .output();
        let output = output.await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let text = text + &String::from_utf8_lossy(&output.stderr);
        (text, output.status.success())
    }

    async fn stop(self) {
        self.stopping.cancel();
        self.served.await.unwrap();
    }
}

fn suite() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/conformance/node_modules/@modelcontextprotocol/conformance/dist/index.js")
}

/// A manager of one tenant, and a token for it.
fn manager(directory: &Path) -> (TenantMcpManager, String) {
    let path = directory.join("data");
    let passphrase = SecretText::from("canary-passphrase-2c1a");
    let data = DataDir::create(&path).unwrap();
    vault::create(&data, &passphrase, KdfCost::insecure_for_tests(), &SystemClock).unwrap();
    let clock = Arc::new(SystemClock);
    let log = Log::open(&data.audit_path(), clock.clone()).unwrap();
    let options = vault::Options { upgrade_cost: false, ..vault::Options::default() };
    let vault = TenantCredentialVault::open(data, options, clock).unwrap();
    vault.unseal(&Unlock::Passphrase(passphrase)).unwrap();
    let surroundings = Surroundings {
        id_rule: IdRule::Alphanumeric,
        lookup: &|_| None,
        certificate: &|_| Err("there are none".to_owned()),
    };
    let file = br#"{ "tenant_id": "tenant001", "db_engine": "sqlite", "db_path": "tenant001.db" }"#;
    let file = TenantFile::read("tenant001.json", file, &surroundings).unwrap();
    vault.import(vec![file.tenant]).unwrap();
    rusqlite::Connection::open(directory.join("tenant001.db"))
        .unwrap()
        .execute_batch("CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        .unwrap();
    let database = database::Options {
        sqlite_root: directory.to_owned(),
        connect_timeout: Duration::from_secs(1),
        addresses: database::AddressPolicy::default(),
    };
    let manager = TenantMcpManager::new(Arc::new(vault), log, pool::Options::new(database));
    let tenant = TenantId::parse("tenant001", IdRule::Alphanumeric).unwrap();
    let (token, _) = manager.auth().create(&tenant, Permissions::READ, None).unwrap();
    (manager, token.expose_secret().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_current_revision_is_met_in_full() {
    for sessions in [false, true] {
        let service = Service::start(Serves::Fixtures, sessions).await;
        let (said, is_met) = service.run(MODERN, &[]).await;
        println!("{MODERN}, sessions {sessions}:\n{}", summary(&said));
        assert!(is_met, "{said}");
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_revision_before_is_met_in_full_with_sessions() {
    let service = Service::start(Serves::Fixtures, true).await;
    let (said, is_met) = service.run(LEGACY, &[]).await;
    println!("{LEGACY}, with sessions:\n{}", summary(&said));
    assert!(is_met, "{said}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sessions_only_questions_to_the_client_are_missing() {
    let service = Service::start(Serves::Fixtures, false).await;
    let (said, is_met) =
        service.run(LEGACY, &["--expected-failures", "without-sessions.yml"]).await;
    println!("{LEGACY}, without sessions:\n{}", summary(&said));
    assert!(is_met, "{said}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_server_misses_nothing_but_fixtures() {
    let service = Service::start(Serves::Tenant, false).await;
    for (revision, missing) in [(MODERN, "tenant-modern.yml"), (LEGACY, "tenant-legacy.yml")] {
        let (said, is_met) = service.run(revision, &["--expected-failures", missing]).await;
        println!("{revision}, a tenant's own server:\n{}", summary(&said));
        assert!(is_met, "{said}");
    }
    service.stop().await;
}

/// What the suite says at its end.
fn summary(said: &str) -> &str {
    said.rfind("SUMMARY").map_or(said, |at| &said[at..])
}
