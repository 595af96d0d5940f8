//! Calls that do not come as far as a tenant's server.

use std::time::Duration;

use tokio::time::Instant;

use super::manager_of_one;
use crate::audit::Actor;
use crate::auth::{Origin, TenantAccess};
use crate::error::ErrorCode;
use crate::tenant::Permissions;

#[tokio::test]
async fn a_disabled_tenant_that_asks_on_and_on_is_answered_later() {
    let directory = tempfile::tempdir().unwrap();
    let (manager, id) = manager_of_one(directory.path());
    manager.vault().set_enabled(&id, false).unwrap();
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
