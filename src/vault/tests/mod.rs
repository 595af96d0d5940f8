//! The vault as its callers see it. Formats are tested beside their code.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::error::ErrorCode;
use crate::store::{Batch, MemoryStore, Store, Tree};
use crate::tenant::{
    Access, ColumnName, Connection, IdRule, Limits, PostgresTarget, Quotas, RelationName,
    ResolvedTenant, TlsMode,
};

const PASSPHRASE: &str = "correct horse battery staple";
const CANARY: &str = "canary-6f1f-of-a-password";

/// The value called `name` in a vector file.
pub(super) fn vector(file: &str, name: &str) -> Vec<u8> {
    let prefix = format!("{name} = ");
    let hex = file.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap();
    let digit = |digit: u8| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap();
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

pub(super) fn id(text: &str) -> TenantId {
    TenantId::parse(text, IdRule::AllowUnderscore).unwrap()
}

fn postgres(name: &str) -> ResolvedTenant {
    let relation = |name: &str| RelationName { schema: None, name: name.to_owned() };
    let config = TenantConfig {
        id: id(name),
        connection: Connection::Postgres(PostgresTarget {
            host: format!("{name}.db.example.com"),
            port: 5432,
            database: "app".to_owned(),
            user: "app_user".to_owned(),
            tls: TlsMode::VerifyFull,
            root_certificates: None,
            client_certificate: None,
            schema: "public".to_owned(),
            tenant_variable: None,
        }),
        access: Access {
            tables: Some(vec![relation("customers"), relation("orders")]),
            deny_columns: vec![ColumnName {
                relation: relation("users"),
                column: "password_hash".to_owned(),
            }],
            ..Access::default()
        },
        limits: Limits::default(),
        quotas: Quotas { max_queries_per_hour: Some(1_000), ..Quotas::default() },
        features: BTreeMap::from([("premium_support".to_owned(), true)]),
    };
    let api_keys = [("openai", "sk-1"), ("anthropic", "sk-2")];
    let credentials = Credentials {
        db_password: Some(CANARY.into()),
        db_sslkey: None,
        api_keys: api_keys.map(|(name, key)| (name.to_owned(), key.into())).into(),
    };
    ResolvedTenant { config, credentials }
}

fn target(tenant: &mut ResolvedTenant) -> &mut PostgresTarget {
    match &mut tenant.config.connection {
        Connection::Postgres(target) => target,
        Connection::Sqlite { .. } => panic!("not a PostgreSQL tenant"),
    }
}

#[expect(clippy::disallowed_methods, reason = "the test compares what came back")]
pub(super) fn exposed(secret: &SecretText) -> &str {
    secrecy::ExposeSecret::expose_secret(secret)
}

/// Without the cost of a good passphrase.
fn options() -> Options {
    let store = store::Options { ballast_bytes: 0 };
    Options { upgrade_cost: false, store, ..Options::default() }
}

impl TenantCredentialVault {
    /// What is inside while it is unsealed.
    fn inside<T>(&self, work: impl FnOnce(&Unsealed) -> T) -> T {
        self.unsealed(|vault| Ok(work(vault))).unwrap()
    }

    /// What says which files belong to `store`.
    fn witness_of(&self, store: impl Store) -> Arc<Witness> {
        Arc::new(Witness::new(Arc::new(store), Arc::clone(&self.directory)))
    }

    /// The store in the vault's directory, to be put into something.
    fn engine(&self, header: &OpenHeader) -> SledStore {
        let keyring = fs::read(self.directory.path().join("keyring")).unwrap();
        let keyring =
            Keyring::open(&keyring, self.store_id, header.keyring_key(), header.root()).unwrap().0;
        let (key, options) = (keyring.integrity_key(), &self.options.store);
        SledStore::open(&self.directory, &key, options, false).unwrap().0
    }

    fn handle(&self, id: &TenantId) -> Handle {
        self.inside(|vault| vault.keyring().handle(id))
    }
}

/// A vault in a temporary directory.
struct Bench {
    parent: TempDir,
    clock: Arc<ManualClock>,
}

impl Bench {
    fn new() -> Self {
        let start = Timestamp::from_second(1_795_305_600).unwrap();
        let bench =
            Self { parent: tempfile::tempdir().unwrap(), clock: Arc::new(ManualClock::new(start)) };
        let directory = DataDir::create(bench.path()).unwrap();
        let cost = KdfCost::insecure_for_tests();
        create(&directory, &PASSPHRASE.into(), cost, &*bench.clock).unwrap();
        bench
    }

    fn path(&self) -> std::path::PathBuf {
        self.parent.path().join("data")
    }

    fn unseal_with(&self, passphrase: &str) -> Result<TenantCredentialVault, Error> {
        let vault = self.sealed()?;
        vault.unseal(&Unlock::Passphrase(passphrase.into()))?;
        Ok(vault)
    }

    fn sealed(&self) -> Result<TenantCredentialVault, Error> {
        let directory = DataDir::open(self.path())?;
        let clock = Arc::<ManualClock>::clone(&self.clock);
        TenantCredentialVault::open(directory, options(), clock)
    }

    fn unseal(&self) -> TenantCredentialVault {
        self.unseal_with(PASSPHRASE).unwrap()
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        fn collect(directory: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    collect(&path, files);
                } else {
                    files.insert(path.display().to_string(), fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        collect(&self.path(), &mut files);
        // Counts attempts, and nothing else.
        files.retain(|name, _| !name.ends_with("/attempts"));
        files
    }
}

fn kinds(changes: &[Change]) -> Vec<&ChangeKind> {
    changes.iter().map(|change| &change.kind).collect()
}

fn changed(fields: &[&str]) -> ChangeKind {
    ChangeKind::Changed { fields: fields.iter().map(|field| (*field).to_owned()).collect() }
}

#[test]
fn what_was_imported_is_there_after_unsealing_again() {
    let bench = Bench::new();
    let vault = bench.unseal();
    let mut sqlite = postgres("sqlite001");
    sqlite.config.connection = Connection::Sqlite { path: "acme.db".to_owned() };
    sqlite.credentials = Credentials::default();
    let mut certified = postgres("tenant001");
    let pem = "-----BEGIN CERTIFICATE-----\n".to_owned() + &"A".repeat(200 << 10);
    target(&mut certified).root_certificates = Some(pem.clone());
    target(&mut certified).client_certificate = Some(pem + "B");
    certified.credentials.db_sslkey = Some("key".into());
    let configs = [certified.config.clone(), sqlite.config.clone()];
    let changes = vault.import(vec![certified, sqlite]).unwrap();
    assert_eq!(kinds(&changes), [&ChangeKind::Added, &ChangeKind::Added]);
    let store_id = vault.store_id();
    drop(vault);

    let vault = bench.unseal();
    assert_eq!(vault.store_id(), store_id);
    let summaries = vault.tenants().unwrap();
    let engine = |line: &TenantSummary| line.details.as_ref().unwrap().engine;
    let listed: Vec<_> = summaries.iter().map(|line| (line.id.as_str(), engine(line))).collect();
    assert_eq!(listed, [("sqlite001", "sqlite"), ("tenant001", "postgres")]);
    for config in configs {
        for _ in 0..2 {
            assert_eq!(vault.tenant(&config.id).unwrap().config, config);
        }
    }
    let stored = vault.tenant(&id("tenant001")).unwrap();
    assert_eq!((stored.version, stored.enabled), (1, true));
    let names: Vec<_> = stored.credentials.iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["db_password", "db_sslkey", "api_keys.anthropic", "api_keys.openai"]);
    let credentials = vault.credentials(&id("tenant001")).unwrap();
    assert_eq!(exposed(credentials.db_sslkey.as_ref().unwrap()), "key");
    assert_eq!(exposed(credentials.db_password.as_ref().unwrap()), CANARY);
    assert_eq!(exposed(&credentials.api_keys["openai"]), "sk-1");
    let credentials = vault.credentials(&id("sqlite001")).unwrap();
    assert!(credentials.db_password.is_none() && credentials.api_keys.is_empty());
    assert!(matches!(vault.tenant(&id("tenant002")), Err(Error::NotConfigured)));
    assert!(matches!(vault.credentials(&id("Tenant001")), Err(Error::NotConfigured)));
}

#[test]
fn a_wrong_passphrase_changes_nothing_on_the_disk() {
    let bench = Bench::new();
    bench.unseal().import(vec![postgres("tenant001")]).unwrap();
    let before = bench.files();
    let error = bench.unseal_with("correct horse battery stable").unwrap_err();
    assert!(matches!(error, Error::WrongPassphrase));
    assert_eq!(error.code(), ErrorCode::VaultSealed);
    assert_eq!(bench.files(), before);
    bench.unseal();
}

#[test]
fn a_second_import_of_the_same_writes_nothing() {
    let bench = Bench::new();
    let vault = bench.unseal();
    let tenants = || vec![postgres("tenant001"), postgres("tenant002")];
    assert_eq!(kinds(&vault.plan(&tenants()).unwrap()), [&ChangeKind::Added; 2]);
    assert!(vault.tenants().unwrap().is_empty());
    vault.import(tenants()).unwrap();
    // Until the engine has written what it has in memory, files change by themselves.
    drop(vault);
    let vault = bench.unseal();
    let before = bench.files();
    bench.clock.advance(Duration::from_mins(1));
    assert_eq!(kinds(&vault.import(tenants()).unwrap()), [&ChangeKind::Unchanged; 2]);
    assert_eq!(bench.files(), before);
}

#[test]
fn changed_fields_are_named_and_their_old_records_are_gone() {
    let bench = Bench::new();
    let vault = bench.unseal();
    vault.import(vec![postgres("tenant001")]).unwrap();
    let fingerprints = |vault: &TenantCredentialVault| -> BTreeMap<String, String> {
        let stored = vault.tenant(&id("tenant001")).unwrap();
        stored.credentials.into_iter().map(|info| (info.name, info.fingerprint)).collect()
    };
    let before = fingerprints(&vault);
    let records = || vault.store().unwrap().scan(Tree::Tenant, &[]).unwrap().len();
    assert_eq!(records(), 5);

    let check = |change: &dyn Fn(&mut ResolvedTenant), fields: &[&str]| {
        let mut tenant = postgres("tenant001");
        change(&mut tenant);
        let expected = changed(fields);
        assert_eq!(kinds(&vault.plan(std::slice::from_ref(&tenant)).unwrap()), [&expected]);
        assert_eq!(kinds(&vault.import(vec![tenant]).unwrap()), [&expected]);
        vault.import(vec![postgres("tenant001")]).unwrap();
        assert_eq!(vault.tenant(&id("tenant001")).unwrap().config, postgres("tenant001").config);
        assert_eq!(records(), 5);
    };
    check(&|tenant| tenant.credentials.db_password = Some("other".into()), &["db_password"]);
    check(&|tenant| tenant.credentials.db_password = None, &["db_password"]);
    check(
        &|tenant| {
            tenant.credentials.api_keys.insert("openai".to_owned(), "sk-3".into());
            tenant.credentials.api_keys.insert("mistral".to_owned(), "sk-4".into());
            tenant.credentials.api_keys.remove("anthropic");
        },
        &["api_keys.anthropic", "api_keys.mistral", "api_keys.openai"],
    );
    check(
        &|tenant| target(tenant).root_certificates = Some("PEM".repeat(4_000)),
        &["db_sslrootcert"],
    );
    check(
        &|tenant| {
            target(tenant).client_certificate = Some("PEM".repeat(4_000));
            tenant.credentials.db_sslkey = Some("key".into());
        },
        &["db_sslcert", "db_sslkey"],
    );
    check(
        &|tenant| {
            tenant.config.quotas.max_queries_per_hour = None;
            tenant.config.features.clear();
        },
        &["features.premium_support", "quotas.max_queries_per_hour"],
    );
    check(
        &|tenant| {
            tenant.config.connection = Connection::Sqlite { path: "a.db".to_owned() };
        },
        &[
            "db_engine",
            "db_host",
            "db_name",
            "db_path",
            "db_port",
            "db_schema",
            "db_sslmode",
            "db_user",
        ],
    );

    assert_eq!(fingerprints(&vault), before, "the values are what they were");
    vault.import(vec![postgres("tenant002")]).unwrap();
    let other = vault.tenant(&id("tenant002")).unwrap().credentials;
    assert!(other.iter().all(|info| before[&info.name] != info.fingerprint));
    drop(vault);
    bench.unseal();
}

#[test]
fn an_import_that_is_refused_stores_none_of_its_tenants() {
    let bench = Bench::new();
    let vault = bench.unseal();
    vault.import(vec![postgres("tenant001")]).unwrap();
    // Until the engine has written what it has in memory, files change by themselves.
    drop(vault);
    let vault = bench.unseal();
    let refused = |tenants: Vec<ResolvedTenant>| {
        let before = bench.files();
        let error = vault.import(tenants).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert_eq!(bench.files(), before);
        assert_eq!(vault.tenants().unwrap().len(), 1);
        error
    };
    let error = refused(vec![postgres("tenant002"), postgres("tenant002")]);
    assert!(matches!(error, Error::Duplicate(tenant) if tenant == id("tenant002")));
    for tenants in [
        vec![postgres("tenant002"), postgres("TENANT001")],
        vec![postgres("TENANT002"), postgres("tenant002")],
    ] {
        assert!(matches!(refused(tenants), Error::CaseConflict { .. }));
    }
    let mut large = postgres("tenant003");
    large.credentials.db_password = Some("x".repeat(4_001).as_str().into());
    let before = vault.tenants().unwrap();
    let error = vault.import(vec![postgres("tenant002"), large]).unwrap_err();
    assert!(matches!(error, Error::TooLarge { field, .. } if field == "db_password"));
    assert_eq!(vault.tenants().unwrap(), before);
}

#[test]
fn neither_a_secret_nor_a_tenant_id_is_on_the_disk_or_in_a_text() {
    let bench = Bench::new();
    let vault = bench.unseal();
    vault.import(vec![postgres("tenant001")]).unwrap();
    let token = token("tok_1", "tenant001");
    vault.put_token(CANARY.as_bytes(), &token).unwrap();
    let credentials = vault.credentials(&id("tenant001")).unwrap();
    let mut duplicate = vec![postgres("tenant001"), postgres("tenant001")];
    let texts = [
        format!("{vault:?} {vault:#?}"),
        format!("{credentials:?} {:?}", vault.tenant(&id("tenant001")).unwrap()),
        format!("{:?}", vault.import(std::mem::take(&mut duplicate)).unwrap_err()),
        format!("{:?}", vault.credentials(&id("tenant002")).unwrap_err()),
    ];
    assert!(texts.iter().all(|text| !text.contains(CANARY)));
    drop(vault);
    bench.unseal();
    for (name, bytes) in bench.files() {
        for needle in [CANARY, "tenant001", "app_user", "openai", PASSPHRASE, "tok_1"] {
            let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "{needle} is in {name}");
        }
    }
}

#[test]
fn a_data_directory_in_use_is_refused_and_a_second_creation_too() {
    let bench = Bench::new();
    let vault = bench.unseal();
    assert!(matches!(bench.unseal_with(PASSPHRASE), Err(Error::Store(store::Error::InUse { .. }))));
    let cost = KdfCost::insecure_for_tests();
    let again = create(vault.directory(), &PASSPHRASE.into(), cost, &*bench.clock);
    assert!(matches!(again, Err(Error::Store(store::Error::AlreadyInitialised { .. }))));
    drop(vault);
    bench.unseal();
}

#[test]
fn a_short_passphrase_makes_no_vault() {
    let parent = tempfile::tempdir().unwrap();
    let directory = DataDir::create(parent.path()).unwrap();
    let cost = KdfCost::insecure_for_tests();
    let refused = create(&directory, &"thirteen char".into(), cost, &crate::clock::SystemClock);
    assert!(matches!(refused, Err(Error::PassphraseTooShort)));
    create(&directory, &"fourteen chars".into(), cost, &crate::clock::SystemClock).unwrap();
}

#[test]
fn a_keyring_ahead_of_the_store_opens_and_its_unused_key_is_taken() {
    let bench = Bench::new();
    let vault = bench.unseal();
    // What an import leaves behind that is killed between keyring and store.
    let unused = vault.inside(|vault| {
        let mut writing = vault.writing();
        let tenant = id("tenant001");
        let keys = vault.change_keyring(&mut writing, |keyring| keyring.get_or_create(&tenant));
        keys.unwrap().uuid
    });
    drop(vault);
    let vault = bench.unseal();
    assert!(vault.tenants().unwrap().is_empty());
    vault.import(vec![postgres("tenant001")]).unwrap();
    let uuid = vault.inside(|vault| vault.entry(&id("tenant001")).unwrap().directory.uuid);
    assert_eq!(uuid, unused);
}

#[test]
fn a_keyring_behind_the_store_is_refused_and_a_swapped_record_or_a_lost_one_does_not_open() {
    let bench = Bench::new();
    let old_keyring = fs::read(bench.path().join("keyring")).unwrap();
    let vault = bench.unseal();
    vault.import(vec![postgres("tenant001"), postgres("tenant002")]).unwrap();
    let keyring = fs::read(bench.path().join("keyring")).unwrap();
    drop(vault);
    fs::write(bench.path().join("keyring"), old_keyring).unwrap();
    assert!(matches!(bench.unseal_with(PASSPHRASE), Err(Error::KeyringOutdated)));
    fs::write(bench.path().join("keyring"), keyring).unwrap();

    let vault = bench.unseal();
    let store = vault.store().unwrap();
    let password = |name: &str| {
        let prefix = [&vault.handle(&id(name)).0[..], &[0, 2]].concat();
        store.scan(Tree::Tenant, &prefix).unwrap().remove(0)
    };
    let (one, two) = (password("tenant001"), password("tenant002"));
    let mut batch = Batch::default();
    batch.put(Tree::Tenant, one.0, two.1);
    batch.remove(Tree::Tenant, two.0);
    store.apply(batch).unwrap();
    let check = |vault: &TenantCredentialVault| {
        for name in ["tenant001", "tenant002"] {
            let error = vault.credentials(&id(name)).unwrap_err();
            assert!(matches!(error, Error::RecordDamaged { kind: "credential", .. }), "{error:?}");
            assert_eq!(error.code(), ErrorCode::IntegrityError);
        }
    };
    check(&vault);
    drop((vault, store));
    check(&bench.unseal());
}

#[test]
fn a_directory_that_does_not_open_concerns_its_tenant_only_which_can_be_removed() {
    for by_name in [false, true] {
        let bench = Bench::new();
        let vault = bench.unseal();
        let names = ["tenant001", "tenant002", "tenant003"];
        vault.import(names.map(postgres).into()).unwrap();
        let damaged = id("tenant002");
        let handle = vault.handle(&damaged);
        let store = vault.store().unwrap();
        let (key, mut envelope) = store.scan(Tree::Tenant, &handle.0).unwrap().remove(0);
        envelope[100] ^= 1;
        let mut batch = Batch::default();
        batch.put(Tree::Tenant, key, envelope);
        store.apply(batch).unwrap();
        drop((vault, store));

        let vault = bench.unseal();
        for good in ["tenant001", "tenant003"] {
            assert_eq!(vault.tenant(&id(good)).unwrap().version, 1);
        }
        assert!(matches!(vault.tenant(&damaged), Err(Error::RecordDamaged { .. })));
        let again = vault.import(vec![postgres("tenant002")]);
        assert!(matches!(again, Err(Error::RecordDamaged { .. })));
        let listed: Vec<_> = vault.tenants().unwrap();
        let listed: Vec<_> = listed.iter().map(|it| (it.id.clone(), it.is_damaged)).collect();
        let [(name, true), (one, false), (three, false)] = &listed[..] else {
            panic!("{listed:?}");
        };
        assert!(name.as_str().starts_with("damaged_"), "{name}");
        assert_eq!((one, three), (&id("tenant001"), &id("tenant003")));

        let unlock = Unlock::passphrase(&PASSPHRASE.into());
        let absent = TenantId::parse("damaged_000000000000", IdRule::AllowUnderscore).unwrap();
        assert!(matches!(vault.remove_tenants(&unlock, &[absent]), Err(Error::NotConfigured)));
        let meant = if by_name { name.clone() } else { damaged.clone() };
        vault.remove_tenants(&unlock, &[meant]).unwrap();
        assert_eq!(vault.tenants().unwrap().len(), 2);
        let refused = vault.import(vec![postgres("tenant002")]);
        assert!(matches!(refused, Err(Error::Removed { .. })));
        vault.readmit(&[damaged]).unwrap();
        vault.import(vec![postgres("tenant002")]).unwrap();
        drop(vault);
        assert_eq!(bench.unseal().tenants().unwrap().len(), 3);
    }
}

#[test]
fn a_tenant_is_found_by_its_id_in_its_own_case_only() {
    let bench = Bench::new();
    let vault = bench.unseal();
    vault.import(vec![postgres("Tenant001")]).unwrap();
    drop(vault);
    let vault = bench.unseal();
    assert_eq!(vault.revision(&id("Tenant001")).unwrap().version, 1);
    for other in ["tenant001", "TENANT001", "tenant002"] {
        assert!(matches!(vault.revision(&id(other)), Err(Error::NotConfigured)), "{other}");
    }
    let conflict = vault.import(vec![postgres("tenant001")]);
    assert!(matches!(conflict, Err(Error::CaseConflict { .. })));
    let unlock = Unlock::passphrase(&PASSPHRASE.into());
    assert!(matches!(vault.remove_tenants(&unlock, &[id("tenant001")]), Err(Error::NotConfigured)));
    vault.seal_tenant(&unlock, &id("Tenant001")).unwrap();
    assert!(matches!(vault.revision(&id("Tenant001")), Err(Error::TenantSealed(_))));
    assert!(matches!(vault.revision(&id("tenant001")), Err(Error::NotConfigured)));
}

#[test]
fn an_error_or_another_tenant_among_those_of_an_import_stores_none_of_them() {
    let bench = Bench::new();
    let vault = bench.unseal();
    let number = vault.condition().unwrap().number;
    let names = ["tenant001", "tenant002"];
    let ids = names.map(id);
    let fails = |at: usize| if at == 0 { Ok(postgres(names[0])) } else { Err(Error::Sealed) };
    let another = |_| Ok::<_, Error>(postgres("tenant003"));
    assert!(matches!(vault.import_each(&ids, fails), Err(Error::Sealed)));
    assert!(matches!(vault.import_each(&ids, another), Err(Error::NotConfigured)));
    assert_eq!(vault.condition().unwrap().number, number);
    assert!(vault.tenants().unwrap().is_empty());
    let read = |at: usize| Ok::<_, Error>(postgres(names[at]));
    let changes = vault.import_each(&ids, read).unwrap();
    assert_eq!(changes.into_iter().map(|change| change.tenant).collect::<Vec<_>>(), ids);
    // The keyring in two steps, and all tenants in one.
    assert_eq!(vault.condition().unwrap().number, number + 2);
}

#[test]
fn a_disabled_tenant_keeps_its_credentials_sealed() {
    let bench = Bench::new();
    let vault = bench.unseal();
    let tenant = id("tenant001");
    vault.import(vec![postgres("tenant001")]).unwrap();
    vault.credentials(&tenant).unwrap();
    bench.clock.advance(Duration::from_secs(5));
    vault.set_enabled(&tenant, false).unwrap();
    vault.set_enabled(&tenant, false).unwrap();
    assert!(matches!(vault.credentials(&tenant), Err(Error::Disabled(_))));
    drop(vault);
    let vault = bench.unseal();
    let stored = vault.tenant(&tenant).unwrap();
    assert_eq!((stored.enabled, stored.version), (false, 2));
    assert_eq!(stored.updated_at.duration_since(stored.created_at).as_secs(), 5);
    assert_eq!(
        kinds(&vault.import(vec![postgres("tenant001")]).unwrap()),
        [&ChangeKind::Unchanged]
    );
    vault.set_enabled(&tenant, true).unwrap();
    vault.credentials(&tenant).unwrap();
    assert!(matches!(vault.set_enabled(&id("tenant002"), true), Err(Error::NotConfigured)));
}

#[test]
fn opened_credentials_are_kept_for_their_time_and_dropped_at_a_change() {
    let bench = Bench::new();
    let vault = bench.unseal();
    let tenant = id("tenant001");
    vault.import(vec![postgres("tenant001")]).unwrap();
    let first = vault.credentials(&tenant).unwrap();
    bench.clock.advance(Duration::from_secs(299));
    vault.sweep();
    assert!(Arc::ptr_eq(&first, &vault.credentials(&tenant).unwrap()));
    let held = Arc::downgrade(&first);
    drop(first);
    assert!(held.upgrade().is_some());
    bench.clock.advance(Duration::from_secs(1));
    vault.sweep();
    assert!(held.upgrade().is_none());

    let held = Arc::downgrade(&vault.credentials(&tenant).unwrap());
    let mut changed = postgres("tenant001");
    changed.credentials.db_password = Some("rotated".into());
    vault.import(vec![changed]).unwrap();
    assert!(held.upgrade().is_none());
    let credentials = vault.credentials(&tenant).unwrap();
    assert_eq!(exposed(credentials.db_password.as_ref().unwrap()), "rotated");
}

fn token(token_id: &str, tenant: &str) -> TokenRecord {
    TokenRecord {
        token_id: token_id.to_owned(),
        tenant: id(tenant),
        scopes: vec!["read".to_owned(), "write".to_owned()],
        created_at: Timestamp::from_second(1_795_305_600).unwrap(),
        expires_at: None,
        used_at: None,
    }
}

#[test]
fn a_token_is_found_by_its_secret_until_it_is_removed() {
    let bench = Bench::new();
    let vault = bench.unseal();
    vault.import(vec![postgres("tenant001")]).unwrap();
    let (one, two) = (token("tok_1", "tenant001"), token("tok_2", "tenant001"));
    vault.put_token(b"secret one", &one).unwrap();
    vault.put_token(b"secret two", &two).unwrap();
    let foreign = vault.put_token(b"secret three", &token("tok_3", "tenant003"));
    assert!(matches!(foreign, Err(Error::NotConfigured)));
    drop(vault);
    let vault = bench.unseal();
    assert_eq!(vault.find_token(b"secret one").unwrap(), Some(one.clone()));
    assert_eq!(vault.find_token(b"secret").unwrap(), None);
    assert_eq!(vault.tokens().unwrap(), [one.clone(), two.clone()]);
    assert!(vault.remove_token("tok_1").unwrap());
    assert!(!vault.remove_token("tok_1").unwrap());
    assert_eq!(vault.find_token(b"secret one").unwrap(), None);
    assert_eq!(vault.tokens().unwrap(), [two]);
}

#[test]
fn the_last_use_of_a_token_is_kept_and_brings_no_removed_one_back() {
    let bench = Bench::new();
    let vault = bench.unseal();
    vault.import(vec![postgres("tenant001")]).unwrap();
    vault.put_token(b"secret one", &token("tok_1", "tenant001")).unwrap();
    vault.put_token(b"secret two", &token("tok_2", "tenant001")).unwrap();
    let place = |secret: &[u8]| vault.locate_token(secret).unwrap().unwrap().0;
    let (one, two) = (place(b"secret one"), place(b"secret two"));
    let [early, late] = [5, 9].map(|second| Timestamp::from_second(second).unwrap());
    vault.save_token_uses(&[(one, late), (two, early)]).unwrap();
    assert!(vault.remove_token("tok_2").unwrap());
    vault.save_token_uses(&[(one, early), (two, late)]).unwrap();
    assert_eq!(vault.tokens().unwrap().len(), 1);
    drop(vault);
    let found = bench.unseal().find_token(b"secret one").unwrap().unwrap();
    assert_eq!(found, TokenRecord { used_at: Some(late), ..token("tok_1", "tenant001") });
}

#[test]
fn a_token_record_under_another_tokens_key_does_not_open() {
    let bench = Bench::new();
    let vault = bench.unseal();
    vault.import(vec![postgres("tenant001")]).unwrap();
    vault.put_token(b"secret one", &token("tok_1", "tenant001")).unwrap();
    let (_, envelope) = vault.store().unwrap().scan(Tree::Token, &[]).unwrap().remove(0);
    let mut batch = Batch::default();
    let key = vault.inside(|vault| vault.lookup_key.mac(&[b"k\0", b"guess"]));
    batch.put(Tree::Token, key, envelope);
    vault.store().unwrap().apply(batch).unwrap();
    assert!(matches!(vault.find_token(b"guess"), Err(Error::RecordDamaged { .. })));
}

#[test]
fn a_reader_beside_writers_sees_one_version_or_another_and_no_error() {
    let bench = Bench::new();
    let mut vault = bench.sealed().unwrap();
    let (store, mut named) = (MemoryStore::default(), Batch::default());
    let read = |name: &str| fs::read(bench.path().join(name)).unwrap();
    super::witness::name(&mut named, &read("header"), &read("keyring"));
    store.apply(named).unwrap();
    vault.witness = OnceLock::from(vault.witness_of(store));
    vault.options.credential_ttl = Duration::ZERO;
    vault.unseal(&Unlock::Passphrase(PASSPHRASE.into())).unwrap();
    vault.import(vec![postgres("tenant001")]).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..200 {
                let mut tenant = postgres("tenant001");
                tenant.credentials.db_password = Some(format!("password {number}").as_str().into());
                tenant.config.limits.max_rows = number + 1;
                vault.import(vec![tenant]).unwrap();
            }
        });
        while !writer.is_finished() {
            vault.credentials(&id("tenant001")).unwrap();
            vault.tenant(&id("tenant001")).unwrap();
        }
    });
}

mod backup;
mod check;
mod counts;
mod faults;
mod golden;
mod keys;
mod listing;
mod payloads;
mod recent;
mod witness;
