//! Tells who stays that their tenant changed.

use std::sync::Arc;

use crate::server::Stays;
use crate::tenant::TenantId;
use crate::vault::TenantCredentialVault;

/// Nobody yet, among tenants of `vault`.
pub(super) fn nobody(vault: &Arc<TenantCredentialVault>) -> Stays {
    let vault = Arc::downgrade(vault);
    Stays::new(Arc::new(move |tenant| Some(vault.upgrade()?.revision(tenant).ok()?.to_bytes())))
}

/// Tells of each tenant that is not as it was, and ends what may not stay any more.
pub(super) async fn tell(vault: &Arc<TenantCredentialVault>, stays: &Stays) {
    stays.end_expired();
    for tenant in stays.outdated() {
        if is_enabled(vault, &tenant).await {
            stays.tell(&tenant);
        } else {
            stays.end_tenant(&tenant);
        }
    }
}

/// Not when it was removed or sealed, or the vault was.
async fn is_enabled(vault: &Arc<TenantCredentialVault>, tenant: &TenantId) -> bool {
    let (vault, tenant) = (Arc::clone(vault), tenant.clone());
    let read = tokio::task::spawn_blocking(move || vault.tenant(&tenant));
    matches!(read.await, Ok(Ok(stored)) if stored.enabled)
}
