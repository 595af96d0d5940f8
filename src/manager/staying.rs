//! Tells who stays that their tenant changed.

use std::sync::Arc;

use crate::server::Stays;
use crate::vault::TenantCredentialVault;

/// Nobody yet, among tenants of `vault`.
pub(super) fn nobody(vault: &Arc<TenantCredentialVault>) -> Stays {
    let vault = Arc::downgrade(vault);
    Stays::new(Arc::new(move |tenant| Some(vault.upgrade()?.revision(tenant).ok()?.to_bytes())))
}

/// Tells of each tenant that is not as it was, and ends what may not stay any more. May block.
pub(super) fn tell(vault: &TenantCredentialVault, stays: &Stays) {
    stays.end_expired();
    for tenant in stays.outdated() {
        // Not when it was removed or sealed, or the vault was.
        if vault.tenant(&tenant).is_ok_and(|stored| stored.enabled) {
            stays.tell(&tenant);
        } else {
            stays.end_tenant(&tenant);
        }
    }
}
