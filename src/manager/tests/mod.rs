//! What a service does by itself.

mod backups;
mod counts;
mod refusals;
mod scrub;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::TenantMcpManager;
use crate::audit::Log;
use crate::clock::SystemClock;
use crate::memory::SecretText;
use crate::store::DataDir;
use crate::tenant::{
    Access, Connection, Credentials, IdRule, Limits, Quotas, ResolvedTenant, TenantConfig, TenantId,
};
use crate::vault::{self, KdfCost, Options, TenantCredentialVault, Unlock};
use crate::{database, pool};

const PASSPHRASE: &str = "correct horse battery staple";

/// An open vault in `directory`, and its one tenant, which has no database.
fn vault_of_one(directory: &Path) -> (Arc<TenantCredentialVault>, TenantId) {
    let data = DataDir::create(directory.join("data")).unwrap();
    let passphrase = SecretText::from(PASSPHRASE);
    vault::create(&data, &passphrase, KdfCost::insecure_for_tests(), &SystemClock).unwrap();
    let options = Options { upgrade_cost: false, ..Options::default() };
    let vault = TenantCredentialVault::open(data, options, Arc::new(SystemClock)).unwrap();
    vault.unseal(&Unlock::Passphrase(PASSPHRASE.into())).unwrap();
    let id = TenantId::parse("tenant001", IdRule::Alphanumeric).unwrap();
    let config = TenantConfig {
        id: id.clone(),
        connection: Connection::Sqlite { path: "none.db".to_owned() },
        access: Access::default(),
        limits: Limits::default(),
        quotas: Quotas::default(),
        features: BTreeMap::new(),
    };
    vault.import(vec![ResolvedTenant { config, credentials: Credentials::default() }]).unwrap();
    (Arc::new(vault), id)
}

/// The manager of such a vault.
fn manager_of_one(directory: &Path) -> (TenantMcpManager, TenantId) {
    let (vault, id) = vault_of_one(directory);
    let log = Log::open(&directory.join("audit"), Arc::new(SystemClock)).unwrap();
    let options = pool::Options::new(database::Options {
        sqlite_root: directory.to_owned(),
        connect_timeout: Duration::from_secs(1),
        addresses: database::AddressPolicy::default(),
    });
    (TenantMcpManager::new(vault, log, options), id)
}
