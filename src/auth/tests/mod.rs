//! Tokens on a real vault, by a clock that the tests move.

mod issuer;
mod oauth;
mod operator;

use std::collections::BTreeMap;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::audit::{Entry, Filter};
use crate::clock::ManualClock;
use crate::database;
use crate::pool::{self, McpConnectionPool};
use crate::quota::Limiter;
use crate::store::DataDir;
use crate::tenant::{
    Access, Connection, Credentials, Limits, Quotas, ResolvedTenant, TenantConfig,
};
use crate::vault::{KdfCost, Unlock};

const PASSPHRASE: &str = "correct horse battery staple";
const PEER: &str = "192.0.2.1";

pub(super) struct Fixture {
    pub(super) auth: Arc<Auth>,
    pub(super) vault: Arc<TenantCredentialVault>,
    pub(super) clock: Arc<ManualClock>,
    directory: TempDir,
}

pub(super) fn id(text: &str) -> TenantId {
    TenantId::parse(text, IdRule::AllowUnderscore).unwrap()
}

pub(super) fn origin() -> Origin {
    Origin { peer: Some(PEER.to_owned()), ..Origin::default() }
}

impl Fixture {
    /// With `tenant001` and `tenant002`.
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let start = Timestamp::from_second(1_795_305_600).unwrap();
        let clock = Arc::new(ManualClock::new(start));
        let data = DataDir::create(directory.path().join("data")).unwrap();
        let passphrase = SecretText::from(PASSPHRASE);
        vault::create(&data, &passphrase, KdfCost::insecure_for_tests(), &*clock).unwrap();
        let log =
            Log::open(&directory.path().join("audit"), Arc::<ManualClock>::clone(&clock)).unwrap();
        let options = vault::Options { upgrade_cost: false, ..vault::Options::default() };
        let vault =
            TenantCredentialVault::open(data, options, Arc::<ManualClock>::clone(&clock)).unwrap();
        let vault = Arc::new(vault);
        let auth = Auth::new(Arc::clone(&vault), log, Arc::<ManualClock>::clone(&clock));
        let auth = Arc::new(auth);
        let fixture = Self { auth, vault, clock, directory };
        fixture.unseal();
        for tenant in ["tenant001", "tenant002"] {
            let config = TenantConfig {
                id: id(tenant),
                connection: Connection::Sqlite { path: "t.db".to_owned() },
                access: Access::default(),
                limits: Limits::default(),
                quotas: Quotas::default(),
                features: BTreeMap::new(),
            };
            let tenant = ResolvedTenant { config, credentials: Credentials::default() };
            fixture.vault.import(vec![tenant]).unwrap();
        }
        fixture
    }

    fn limit(&self, failures_per_minute: u32) {
        self.auth.configure(Options { failures_per_minute, ..Options::default() }).unwrap();
    }

    fn unseal(&self) {
        self.vault.unseal(&Unlock::Passphrase(PASSPHRASE.into())).unwrap();
    }

    fn token(&self, expires_in: Option<Duration>) -> (String, String) {
        let expires_at = expires_in.map(|span| self.clock.now() + span);
        let (text, info) =
            self.auth.create(&id("tenant001"), Permissions::READ, expires_at).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test presents it")]
        let text = text.expose_secret().to_owned();
        (text, info.token_id)
    }

    pub(super) async fn access(
        &self,
        token: &str,
        path: Option<&str>,
    ) -> Result<TenantAccess, Error> {
        let caller = self.auth.authenticate(Some(token), origin()).await?;
        self.auth.grant(caller, path).await
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        let audit = self.directory.path().join("audit");
        audit::read(&audit, Filter::default()).unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn pool(&self) -> McpConnectionPool {
        let path = self.directory.path().join("t.db");
        rusqlite::Connection::open(path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        let database = database::Options {
            sqlite_root: self.directory.path().to_owned(),
            connect_timeout: Duration::from_secs(10),
            addresses: database::AddressPolicy::default(),
        };
        let limiter = Arc::new(Limiter::new(Arc::<ManualClock>::clone(&self.clock)));
        let options = pool::Options::new(database);
        McpConnectionPool::new(Arc::clone(&self.vault), limiter, self.auth.log.clone(), options)
    }

    /// [`Auth::keep`], which may block.
    async fn keep(&self, at_once: bool) {
        let auth = Arc::clone(&self.auth);
        tokio::task::spawn_blocking(move || auth.keep(at_once)).await.unwrap().unwrap();
    }

    fn used_at(&self) -> Option<Timestamp> {
        self.auth.tokens_after(None, 1).unwrap()[0].1.as_ref().unwrap().used_at
    }
}

#[tokio::test]
async fn a_revoked_token_begins_nothing_also_with_what_was_granted_before() {
    let fixture = Fixture::new();
    let pool = fixture.pool();
    let (token, token_id) = fixture.token(None);
    let (other, _) = fixture.token(None);
    let access = fixture.access(&token, None).await.unwrap();
    let others = fixture.access(&other, None).await.unwrap();
    let under_way = pool.lease(&access).await.unwrap();
    // Granted before and after its record was forgotten: both end.
    fixture.auth.known().drop_record(&Token::parse(&token).unwrap().hash());
    let again = fixture.access(&token, None).await.unwrap();

    assert!(fixture.auth.revoke(&token_id).unwrap());
    for access in [&access, &again] {
        assert!(!access.is_live() && access.ended().is_cancelled());
        assert!(matches!(pool.lease(access).await, Err(pool::Error::AccessEnded)));
        assert!(matches!(pool.context(access).await, Err(pool::Error::AccessEnded)));
    }
    assert!(matches!(fixture.access(&token, None).await, Err(Error::Unauthenticated)));
    drop(under_way);
    assert!(others.is_live() && !others.ended().is_cancelled());
    pool.lease(&others).await.unwrap();
}

#[tokio::test]
async fn a_token_and_what_was_granted_for_it_end_at_the_second_of_its_expiry() {
    let fixture = Fixture::new();
    let (token, _) = fixture.token(Some(Duration::from_mins(1)));
    let access = fixture.access(&token, None).await.unwrap();
    fixture.clock.advance(Duration::from_secs(59));
    assert!(access.is_live());
    fixture.access(&token, None).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    assert!(!access.is_live());
    for _ in 0..2 {
        assert!(matches!(fixture.access(&token, None).await, Err(Error::Unauthenticated)));
    }
}

#[tokio::test]
async fn sealing_ends_what_was_granted_and_a_sealed_tenants_only_its_own() {
    let fixture = Fixture::new();
    let (token, _) = fixture.token(None);
    let access = fixture.access(&token, None).await.unwrap();
    fixture.auth.forget_tenant(&id("tenant002"));
    assert!(access.is_live());
    fixture.auth.forget_tenant(&id("tenant001"));
    assert!(!access.is_live());
    let access = fixture.access(&token, None).await.unwrap();
    fixture.vault.seal();
    fixture.auth.forget();
    assert!(!access.is_live());
    assert!(matches!(fixture.access(&token, None).await, Err(Error::Sealed)));
    fixture.unseal();
    assert!(fixture.access(&token, None).await.unwrap().is_live());
}

#[tokio::test]
async fn the_last_use_is_listed_at_once_and_saved_within_a_minute_in_one_commit() {
    let fixture = Fixture::new();
    let (token, _) = fixture.token(None);
    assert_eq!(fixture.used_at(), None);
    let commits = || fixture.vault.tokens().unwrap()[0].used_at;
    for _ in 0..3 {
        fixture.clock.advance(Duration::from_secs(10));
        fixture.access(&token, None).await.unwrap();
        fixture.keep(false).await;
    }
    let last = fixture.clock.now();
    assert_eq!((fixture.used_at(), commits()), (Some(last), None));
    fixture.clock.advance(Duration::from_secs(30));
    fixture.keep(false).await;
    assert_eq!((fixture.used_at(), commits()), (Some(last), Some(last)));
    fixture.clock.advance(Duration::from_secs(1));
    fixture.access(&token, None).await.unwrap();
    fixture.keep(true).await;
    assert_eq!(commits(), Some(fixture.clock.now()));
}

#[tokio::test]
async fn failures_beyond_the_rate_are_told_nothing_and_a_valid_token_beside_them_works() {
    let fixture = Fixture::new();
    fixture.limit(3);
    let (token, _) = fixture.token(None);
    let wrong = ["nonsense", "tnt_x", "", &token[..20]];
    for attempt in 0..20 {
        let failed = fixture.auth.authenticate(Some(wrong[attempt % 4]), origin()).await;
        let error = failed.unwrap_err();
        if let Error::Throttled { retry_after } = error {
            assert!(attempt >= 3 && retry_after <= Duration::from_secs(20));
        } else {
            assert!(matches!(error, Error::Unauthenticated) && attempt < 3, "{error}");
        }
        fixture.access(&token, Some("tenant001")).await.unwrap();
    }
    assert_eq!(fixture.entries().len(), 3);
    fixture.clock.advance(throttle::WINDOW);
    fixture.keep(false).await;
    let entries = fixture.entries();
    let summary = entries.last().unwrap();
    assert_eq!((entries.len(), summary.rows, summary.peer.as_deref()), (4, Some(17), Some(PEER)));
    assert_eq!(summary.rule.as_deref(), Some("summary"));
    let failed = fixture.auth.authenticate(None, origin()).await;
    assert!(matches!(failed, Err(Error::Unauthenticated)));
}

#[tokio::test]
async fn a_token_that_tries_other_tenants_is_throttled_alone_and_still_works() {
    let fixture = Fixture::new();
    fixture.limit(3);
    let ((prober, prober_id), (neighbour, _)) = (fixture.token(None), fixture.token(None));
    for attempt in 0..9 {
        // One that is there, and two that are not.
        let path = ["tenant002", "tenant009", "%"][attempt % 3];
        let failed = fixture.access(&prober, Some(path)).await.unwrap_err();
        assert_eq!(matches!(failed, Error::Forbidden), attempt < 3);
    }
    fixture.access(&prober, Some("tenant001")).await.unwrap();
    let failed = fixture.access(&neighbour, Some("tenant002")).await;
    assert!(matches!(failed, Err(Error::Forbidden)));
    fixture.keep(true).await;
    let entries = fixture.entries();
    let summary = entries.last().unwrap();
    assert_eq!(summary.actor, Actor::Token { id: prober_id });
    assert_eq!((summary.action.as_str(), summary.rows), ("connect", Some(6)));
    assert_eq!(summary.tenant.as_deref(), Some("tenant001"));
}

#[tokio::test]
async fn while_sealed_everybody_is_told_so_however_often_they_ask() {
    let fixture = Fixture::new();
    fixture.limit(3);
    let (token, _) = fixture.token(None);
    fixture.vault.seal();
    for _ in 0..10 {
        assert!(matches!(fixture.access(&token, None).await, Err(Error::Sealed)));
    }
    assert_eq!(fixture.entries().len(), 3);
    fixture.unseal();
    fixture.access(&token, None).await.unwrap();
}
