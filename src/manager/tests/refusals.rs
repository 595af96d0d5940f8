//! Calls that do not come as far as a tenant's server.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::vault_of_one;
use crate::TenantMcpManager;
use crate::audit::{Actor, Log};
use crate::auth::{Origin, TenantAccess};
use crate::clock::SystemClock;
use crate::error::ErrorCode;
use crate::tenant::Permissions;
use crate::{database, pool};

#[tokio::test]
async fn a_disabled_tenant_that_asks_on_and_on_is_answered_later() {
    let directory = tempfile::tempdir().unwrap();
    let (vault, id) = vault_of_one(directory.path());
    let log = Log::open(&directory.path().join("audit"), Arc::new(SystemClock)).unwrap();
    let options = pool::Options::new(database::Options {
        sqlite_root: directory.path().to_owned(),
        connect_timeout: Duration::from_secs(1),
        addresses: database::AddressPolicy::default(),
    });
    vault.set_enabled(&id, false).unwrap();
    let manager = TenantMcpManager::new(vault, log, options);
    let refused = || async {
        let (actor, origin) = (Actor::Embedder, Origin::default());
        let access = TenantAccess::local(id.clone(), Permissions::READ, actor, origin);
        manager.handler(access).await.err().map(|error| error.code())
    };
    let began = Instant::now();
    let refusals = futures_util::future::join_all((0..300).map(|_| refused())).await;
    assert!(refusals.iter().all(|code| *code == Some(ErrorCode::TenantDisabled)), "{refusals:?}");
    assert!(began.elapsed() >= Duration::from_millis(100));
}
