//! The library, as embedding code meets it.
#![expect(clippy::unwrap_used, reason = "a failed set-up should fail the test")]

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tenantry::audit::{Actor, Log};
use tenantry::auth::{Auth, Role, Token};
use tenantry::clock::SystemClock;
use tenantry::memory::{LockedBytes, SecretText, SecretTextBuilder};
use tenantry::store::DataDir;
use tenantry::tenant::{Credentials, IdRule, Permissions, Surroundings, TenantFile, TenantId};
use tenantry::vault::{self, KdfCost, KeyFile, NewSlot, Share, Unlock};
use tenantry::{TenantCredentialVault, TenantMcpManager, admin, database, pool};
use zeroize::Zeroizing;

#[path = "../examples/embed.rs"]
#[expect(dead_code, reason = "its main is for people")]
mod example;

#[test]
fn the_embedding_example_does_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let cost = KdfCost::insecure_for_tests();
    example::run(&directory.path().join("data"), cost).unwrap();
}

const PASSPHRASE: &str = "canary-passphrase-81d0";
const PASSWORD: &str = "canary-password-6c2e";
const API_KEY: &str = "canary-api-key-f934";

/// An unsealed vault in `path`, and its audit log.
fn new_vault(path: &Path) -> (TenantCredentialVault, Log) {
    let passphrase = SecretText::from(PASSPHRASE);
    let data = DataDir::create(path).unwrap();
    vault::create(&data, &passphrase, KdfCost::insecure_for_tests(), &SystemClock).unwrap();
    let clock = Arc::new(SystemClock);
    let log = Log::open(&data.audit_path(), clock.clone()).unwrap();
    let options = vault::Options { upgrade_cost: false, ..vault::Options::default() };
    let vault = TenantCredentialVault::open(data, options, clock).unwrap();
    vault.unseal(&Unlock::Passphrase(passphrase)).unwrap();
    (vault, log)
}

fn pool_options(path: &Path) -> pool::Options {
    let database = database::Options {
        sqlite_root: path.to_owned(),
        connect_timeout: Duration::from_secs(1),
        addresses: database::AddressPolicy::default(),
    };
    pool::Options {
        max_instances_per_tenant: 1,
        idle_timeout: Duration::from_mins(1),
        acquire_timeout: Duration::from_secs(1),
        ..pool::Options::new(database)
    }
}

#[tokio::test]
async fn a_dropped_manager_lets_go_of_the_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let (vault, log) = new_vault(&path);
    let options = pool_options(&path);
    let manager = TenantMcpManager::new(Arc::new(vault), log, options);
    tokio::task::yield_now().await;
    assert!(DataDir::open(&path).is_err(), "it is in use");
    drop(manager);
    // The tasks that hold on to it for a moment end by themselves.
    while DataDir::open(&path).is_err() {
        tokio::task::yield_now().await;
    }
}

fn file() -> TenantFile {
    let file = format!(
        r#"{{"tenant_id": "tenant001", "db_host": "h", "db_port": 1, "db_name": "d", "db_user": "u",
            "db_password": "{PASSWORD}", "api_keys": {{"one": "{API_KEY}"}}}}"#
    );
    let surroundings = Surroundings {
        id_rule: IdRule::Alphanumeric,
        lookup: &|_| None,
        certificate: &|_| Err(String::new()),
    };
    TenantFile::read("tenant001.json", file.as_bytes(), &surroundings).unwrap()
}

/// Both ways to show `value`.
fn shown(value: &dyn Debug) -> String {
    format!("{value:?}\n{value:#?}")
}

#[tokio::test]
async fn debug_of_what_can_hold_a_secret_shows_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let (vault, log) = new_vault(&path);
    let (vault, clock) = (Arc::new(vault), Arc::new(SystemClock));
    #[expect(clippy::disallowed_methods, reason = "what is searched for")]
    let exposed = |text: &SecretText| text.expose_secret().to_owned();
    let unlock = || Unlock::Passphrase(SecretText::from(PASSPHRASE));
    let tenant = file();
    let mut seen = shown(&tenant) + &shown(&tenant.tenant) + &shown(&tenant.tenant.credentials);
    vault.import(vec![tenant.tenant]).unwrap();
    let id = TenantId::parse("tenant001", IdRule::Alphanumeric).unwrap();
    let credentials: Arc<Credentials> = vault.credentials(&id).unwrap();
    let added = vault.add_slot(&unlock(), &NewSlot::Shares { threshold: 2, count: 2 }).unwrap();
    let shares: Vec<String> = added.shares.iter().map(|share| exposed(&share.to_text())).collect();
    let key_text = exposed(&KeyFile::generate().unwrap().to_text());
    let key_file = || KeyFile::parse(key_text.as_bytes()).unwrap();
    let parsed = || shares.iter().map(|share| Share::parse(share).unwrap()).collect();
    let (token, token_text) = Token::generate().unwrap();
    let mut spool = vault.spool().unwrap();
    spool.push(&mut Zeroizing::new(PASSWORD.into())).unwrap();
    let mut builder = SecretTextBuilder::with_capacity(64);
    builder.push_str(PASSWORD);
    let auth = Arc::new(Auth::new(Arc::clone(&vault), log.clone(), clock));
    let operator = Actor::Operator { name: "x".to_owned() };
    let (operator_text, operator_info) = auth.create_operator(Role::Auditor, None).unwrap();
    let (client_text, _) = auth.create(&id, Permissions::READ, None).unwrap();
    // Without their places, which are numbers too.
    let tokens = auth.tokens_after(None, 9).unwrap().into_iter().map(|(_, token)| token);
    let tokens: Vec<_> = tokens.collect();
    let admin = admin::Admin::new(Arc::clone(&vault), Arc::clone(&auth), log.clone(), operator);
    let new_passphrase = NewSlot::Passphrase {
        passphrase: SecretText::from(PASSPHRASE),
        cost: KdfCost::insecure_for_tests(),
    };
    let values: [&dyn Debug; 28] = [
        &SecretText::from(PASSWORD),
        &Some(SecretText::from(PASSWORD)),
        &builder,
        &LockedBytes::copy_of(PASSWORD.as_bytes()),
        &credentials,
        &vault.tenant(&id).unwrap(),
        &vault.tenants().unwrap(),
        &vault.tenants_after(None, 9).unwrap(),
        &tokens,
        &spool,
        &operator_text,
        &operator_info,
        &client_text,
        &unlock(),
        &Unlock::KeyFile(key_file()),
        &Unlock::Shares(parsed()),
        &new_passphrase,
        &NewSlot::KeyFile(key_file()),
        &added,
        &parsed(),
        &key_file(),
        &vault.slots().unwrap(),
        &vault,
        &token,
        &token_text,
        &auth,
        &admin,
        &TenantMcpManager::new(Arc::clone(&vault), log, pool_options(&path)),
    ];
    for value in values {
        seen += &shown(value);
    }
    let mut secrets: Vec<String> = [PASSPHRASE, PASSWORD, API_KEY].map(str::to_owned).into();
    secrets.extend([key_text.trim().to_owned(), exposed(&token_text)]);
    secrets.extend([exposed(&operator_text), exposed(&client_text)]);
    secrets.extend(shares);
    for secret in secrets {
        let numbers: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
        for needle in [secret.clone(), secret.replace('-', ""), numbers.join(", ")] {
            assert!(!seen.contains(&needle), "{needle} is in:\n{seen}");
        }
    }
    // And no key: 32 numbers, one a line.
    let lines: Vec<&str> = seen.lines().map(|line| line.trim().trim_end_matches(',')).collect();
    let is_number = |line: &&str| line.parse::<u8>().is_ok();
    let runs = lines.chunk_by(|one, other| is_number(one) && is_number(other));
    assert!(runs.map(<[_]>::len).max() < Some(32), "{seen}");
}
