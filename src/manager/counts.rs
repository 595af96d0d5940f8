//! Keeping what tenants have used of their quotas: from the limiter into the vault, twice a second.
//!
//! What is counted is in memory first. A process that is killed loses what came after the last
//! saving, of half a second at most and as long as a commit takes, or as long as another change holds
//! the vault: an import.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::TenantMcpManager;
use crate::audit::Actor;
use crate::auth::{self, Auth, Caller, TenantAccess};
use crate::pool;
use crate::quota::{Limiter, Meter};
use crate::server;
use crate::tenant::{Permission, TenantId};
use crate::vault::{self, StoredTenant, TenantCredentialVault};

/// So that with the commit it is below a second.
const SAVE_INTERVAL: Duration = Duration::from_millis(500);
/// How many savings there are between two sweeps.
const SAVINGS_PER_SWEEP: u32 = 120;
/// Most tenants of one commit: other writes wait for it.
const BATCH: usize = 1_024;

impl TenantMcpManager {
    /// The tenant called `id`, and the meter that counts it.
    ///
    /// # Errors
    ///
    /// Those of [`TenantCredentialVault::tenant`], and [`vault::Error::CountsDamaged`].
    pub fn meter(&self, id: &TenantId) -> Result<(StoredTenant, Arc<Meter>), vault::Error> {
        meter(&self.vault, &self.limiter, id)
    }

    /// As [`Auth::grant`]; an attempt at another tenant counts among the refused ones that the caller has
    /// with its own.
    ///
    /// # Errors
    ///
    /// Those of [`Auth::grant`].
    pub async fn grant(
        &self,
        caller: Caller,
        path_tenant: Option<&str>,
    ) -> Result<TenantAccess, auth::Error> {
        if path_tenant.is_none_or(|named| named == caller.tenant().as_str()) {
            return self.auth.grant(caller, path_tenant).await;
        }
        let (tenant, actor) = (caller.tenant().clone(), caller.actor().clone());
        let granted = self.auth.grant(caller, path_tenant).await;
        if let Err(auth::Error::Forbidden) = &granted {
            self.count_refused(tenant, actor).await;
        }
        granted
    }

    /// As [`Auth::check_scope`]; what is refused counts as if the tool had refused it.
    ///
    /// # Errors
    ///
    /// Those of [`Auth::check_scope`].
    pub async fn check_scope(
        &self,
        access: &TenantAccess,
        action: &'static str,
        needed: Permission,
    ) -> Result<(), auth::Error> {
        let checked = self.auth.check_scope(access, action, needed).await;
        if let Err(auth::Error::InsufficientScope { .. }) = &checked {
            self.count_refused(access.tenant().clone(), access.actor().clone()).await;
        }
        checked
    }

    /// Counts a refused attempt that did not come as far as the server of the caller's own `tenant`.
    async fn count_refused(&self, tenant: TenantId, actor: Actor) {
        let (vault, limiter) = (Arc::clone(&self.vault), Arc::clone(&self.limiter));
        let count = move || {
            let (stored, meter) = meter(&vault, &limiter, &tenant)?;
            // What comes of one too many, its next call that comes so far is told.
            let counted = meter.deny(&stored.config.quotas, &server::counted_as(&actor));
            Ok::<_, vault::Error>(counted.is_err())
        };
        // A tenant that is not served has no calls that could be barred.
        drop(tokio::task::spawn_blocking(count).await);
    }

    /// Sets what the tenant called `id` has used of its quotas to nothing, but for the calls under
    /// way.
    ///
    /// # Errors
    ///
    /// Those of [`TenantCredentialVault::remove_counts`].
    pub fn reset_counts(&self, id: &TenantId) -> Result<(), vault::Error> {
        self.vault.remove_counts(id)?;
        if let Some(meter) = self.limiter.existing(id) {
            meter.reset();
            // What it had counted may have been saved meanwhile.
            self.vault.remove_counts(id)?;
        }
        Ok(())
    }

    /// Saves what was counted, now.
    pub(crate) fn save_counts(&self) {
        if let Err(error) = save(&self.vault, &self.limiter) {
            complain(&error);
        }
    }
}

fn meter(
    vault: &TenantCredentialVault,
    limiter: &Limiter,
    id: &TenantId,
) -> Result<(StoredTenant, Arc<Meter>), vault::Error> {
    let tenant = vault.tenant(id)?;
    let meter = pool::restored_meter(vault, limiter, &tenant)?;
    Ok((tenant, meter))
}

/// Saves what was counted, again and again, and drops from memory what nobody uses. Once a minute
/// the same for tokens.
pub(super) async fn keep(
    vault: Weak<TenantCredentialVault>,
    limiter: Weak<Limiter>,
    auth: Weak<Auth>,
) {
    let mut ticks = tokio::time::interval(SAVE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed = false;
    for round in 1_u32.. {
        ticks.tick().await;
        let (Some(vault), Some(limiter)) = (vault.upgrade(), limiter.upgrade()) else { return };
        let Some(auth) = auth.upgrade() else { return };
        let work = move || {
            let saved = save(&vault, &limiter);
            keep_of_tokens(&auth, false);
            if round.is_multiple_of(SAVINGS_PER_SWEEP) {
                limiter.sweep();
            }
            saved
        };
        // Else the vault panicked, which is in the log, or the runtime ends.
        let Ok(saved) = tokio::task::spawn_blocking(work).await else { continue };
        match saved {
            Err(error) if !std::mem::replace(&mut failed, true) => complain(&error),
            Ok(()) if std::mem::replace(&mut failed, false) => {
                tracing::info!("what tenants use is saved again");
            }
            Err(_) | Ok(()) => {}
        }
    }
}

/// Saves what was counted until now; what somebody else is saving is saved when this returns. May
/// block.
///
/// # Errors
///
/// [`vault::Error::Store`]: it is still to be saved. While the vault is sealed nothing is saved, and
/// that is no error.
pub(super) fn save(vault: &TenantCredentialVault, limiter: &Limiter) -> Result<(), vault::Error> {
    let _saving = limiter.saving();
    let changed = limiter.take_changed();
    let mut batches = changed.chunks(BATCH);
    while let Some(meters) = batches.next() {
        if let Err(error) = save_batch(vault, limiter, meters) {
            let unsaved = meters.iter().chain(batches.flatten());
            unsaved.for_each(|meter| limiter.put_back(meter));
            return if matches!(error, vault::Error::Sealed) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

pub(super) fn save_batch(
    vault: &TenantCredentialVault,
    limiter: &Limiter,
    meters: &[Arc<Meter>],
) -> Result<(), vault::Error> {
    let tenants: Vec<_> = meters.iter().map(|meter| (meter.tenant(), meter.born())).collect();
    let unsaved = vault.save_counts(&tenants, |at| meters[at].save())?;
    unsaved.gone.iter().for_each(|at| limiter.forget(&meters[*at]));
    unsaved.waiting.iter().for_each(|at| limiter.put_back(&meters[*at]));
    Ok(())
}

/// Saves when tokens were used, and records what failed and was only counted.
pub(super) fn keep_of_tokens(auth: &Auth, at_once: bool) {
    if let Err(error) = auth.keep(at_once) {
        tracing::error!(error.code = %error.code(), %error, "when tokens were last used, or how often \
            calls without one failed, is not written down");
    }
}

pub(super) fn complain(error: &vault::Error) {
    tracing::error!(error.code = %error.code(), %error, "what tenants use is not saved: it would be \
        forgotten if the service ended now");
}
