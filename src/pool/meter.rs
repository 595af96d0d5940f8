//! The meter of a tenant, with what was counted before it was last dropped from memory.

use std::sync::Arc;

use crate::quota::{Limiter, Meter};
use crate::tenant::TenantId;
use crate::vault::{self, StoredTenant, TenantCredentialVault};

/// The meter of `tenant`. Reads one record of the vault, unless it is in memory.
///
/// # Errors
///
/// [`vault::Error::CountsDamaged`]; else those of [`TenantCredentialVault::counts`].
pub(crate) fn restored(
    vault: &TenantCredentialVault,
    limiter: &Limiter,
    tenant: &StoredTenant,
) -> Result<Arc<Meter>, vault::Error> {
    let id = &tenant.config.id;
    // Held from here on, so that nobody else restores another one meanwhile.
    let meter = limiter.meter(id, tenant.created_at);
    if !meter.is_restored()
        && let Err(error) = restore(vault, id, &meter)
    {
        if matches!(error, vault::Error::CountsDamaged(_)) {
            tracing::error!(error.code = %error.code(), %error, "a tenant is not served");
        }
        return Err(error);
    }
    Ok(meter)
}

fn restore(
    vault: &TenantCredentialVault,
    id: &TenantId,
    meter: &Meter,
) -> Result<(), vault::Error> {
    let saved = vault.counts(id)?;
    meter.restore(saved.as_deref()).map_err(|_| vault::Error::CountsDamaged(id.clone()))
}
