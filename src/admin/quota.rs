//! What a tenant may use, and what it has used.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{About, Admin, Error};
use crate::clock::SystemClock;
use crate::pool;
use crate::quota::{Limiter, Usage};
use crate::tenant::{Quotas, TenantId};

/// A tenant's quotas, and what is used of them.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "read by describe.rs")]
pub struct QuotaReport {
    /// Each with what counts against it now. Of refused attempts: the most that one caller has.
    pub usages: Vec<Usage>,
    /// Who was refused in the last 60 minutes, and how often.
    pub denied: Vec<(String, u64)>,
}

impl Admin {
    /// What the tenant called `id` has used of its quotas. Without a service, what it had used when
    /// the last one ended.
    ///
    /// # Errors
    ///
    /// Those of [`crate::vault::TenantCredentialVault::tenant`], and
    /// [`crate::vault::Error::CountsDamaged`].
    pub fn quota(&self, id: &TenantId) -> Result<QuotaReport, Error> {
        let (tenant, meter) = if let Some(manager) = &self.manager {
            manager.meter(id)?
        } else {
            let tenant = self.vault.tenant(id)?;
            let limiter = Limiter::new(Arc::new(SystemClock));
            let meter = pool::restored_meter(&self.vault, &limiter, &tenant)?;
            (tenant, meter)
        };
        let mut denied = meter.denied();
        denied.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let most = denied.first().map_or("", |(caller, _)| caller);
        let usages = meter.usage(&tenant.config.quotas, most).to_vec();
        Ok(QuotaReport { usages, denied })
    }

    /// Sets what the tenant called `id` has used of its quotas to nothing, also if that does not open.
    pub fn reset_quota(&self, id: &TenantId) -> Result<(), Error> {
        let about = About { tenant: Some(id), resource: None };
        let reset = || match &self.manager {
            Some(manager) => Ok(manager.reset_counts(id)?),
            None => Ok(self.vault.remove_counts(id)?),
        };
        self.change("quota.reset", &about, |()| (None, None), reset)
    }

    /// Sets the quotas that `limits` names of the tenant called `id`, with effect from its next call;
    /// no limit is unlimited. Answers what its quotas are then.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCommand`] when a quota is not known.
    pub fn set_quotas(
        &self,
        id: &TenantId,
        limits: &BTreeMap<String, Option<u64>>,
    ) -> Result<Quotas, Error> {
        let said = limits.iter().map(|(name, limit)| match limit {
            Some(limit) => format!("{name}={limit}"),
            None => format!("{name}=none"),
        });
        let resource = Some(said.collect::<Vec<_>>().join(" "));
        let about = About { tenant: Some(id), resource };
        let set = |quotas: &mut Quotas| {
            let is_known = limits.iter().all(|(name, limit)| quotas.set(name, *limit));
            let unknown = "quotas are max_queries_per_hour, max_queries_per_day, \
                           max_concurrent_connections (up to 4294967295) and max_denied_per_hour";
            if is_known { Ok(()) } else { Err(Error::InvalidCommand(unknown)) }
        };
        self.change("quota.set", &about, |_| (None, None), || self.vault.change_quotas(id, set))
    }
}
