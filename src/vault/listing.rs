//! The list of tenants, whole or in pages.
//!
//! ```text
//! keyring: digests of ids, in their order --behind a place--> two records of each --> summary
//! ```
//!
//! A tenant's place is the digest of its id, which stays whatever becomes of its keys and records. So
//! a page costs what is on it, and a walk from page to page meets every tenant once that is there all
//! the while.

use std::array::TryFromSliceError;
use std::sync::Arc;

use jiff::Timestamp;

use super::certificate::hex;
use super::keyring::{Found, IdDigest};
use super::record::Directory;
use super::unsealed::Unsealed;
use super::{Error, Handle, TenantCredentialVault};
use crate::tenant::{IdRule, TenantId};

/// A line of the list of tenants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TenantSummary {
    /// Who.
    pub id: TenantId,
    /// What is known beyond that; nothing of a tenant that is sealed, or damaged.
    pub details: Option<TenantDetails>,
    /// Whether its configuration does not open as it should. It is not served; it can be removed.
    pub is_damaged: bool,
}

/// A line's details.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TenantDetails {
    /// `postgres` or `sqlite`.
    pub engine: &'static str,
    /// Whether it is served.
    pub enabled: bool,
    /// When anything of it last changed.
    pub updated_at: Timestamp,
}

/// Where a tenant is in the order of pages. It tells nothing of the tenant's id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TenantPlace(IdDigest);

impl TenantPlace {
    /// As [`TryFrom`] takes it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for TenantPlace {
    type Error = TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, TryFromSliceError> {
        bytes.try_into().map(Self)
    }
}

impl TenantCredentialVault {
    /// Every tenant, sorted by id. One that is damaged is among them, and says so. Opens two records
    /// for each, and holds a line for each.
    pub fn tenants(&self) -> Result<Vec<TenantSummary>, Error> {
        let tenants = self.tenants_after(None, usize::MAX)?;
        let mut tenants: Vec<_> = tenants.into_iter().map(|(_, tenant)| tenant).collect();
        tenants.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        Ok(tenants)
    }

    /// Up to `limit` tenants behind `after`, or from the first on, in the order of their places. Opens
    /// no others; who walks on from the last place meets every tenant once that is there all the while.
    pub fn tenants_after(
        &self,
        after: Option<TenantPlace>,
        limit: usize,
    ) -> Result<Vec<(TenantPlace, TenantSummary)>, Error> {
        self.unsealed(|vault| vault.tenants_after(after, limit))
    }
}

impl Unsealed {
    fn tenants_after(
        &self,
        after: Option<TenantPlace>,
        limit: usize,
    ) -> Result<Vec<(TenantPlace, TenantSummary)>, Error> {
        let mut tenants = Vec::new();
        let mut last = after.map(|TenantPlace(name)| name);
        // Again, if of some that have keys there is no record.
        while tenants.len() < limit {
            let mut names = self.keyring().names_after(last, limit - tenants.len());
            let Some((name, _)) = names.last() else { break };
            last = Some(*name);
            // In the store's order, so that what is read next is near.
            names.sort_unstable_by_key(|(_, handle)| *handle);
            for (name, _) in names {
                let summary = match self.summary(name) {
                    // Something is being changed, or is damaged.
                    Ok(None) | Err(_) => {
                        let _writing = self.writing();
                        self.summary_of_damaged(name)?
                    }
                    Ok(summary) => summary,
                };
                tenants.extend(summary.map(|summary| (TenantPlace(name), summary)));
            }
        }
        tenants.sort_unstable_by_key(|(TenantPlace(name), _)| *name);
        Ok(tenants)
    }

    /// Nothing when the tenant was removed since its name was taken down, or has keys and no record.
    fn summary(&self, name: IdDigest) -> Result<Option<TenantSummary>, Error> {
        let keys = match self.keyring().find_name(name) {
            Some(Found::Open(keys)) => Arc::clone(keys),
            Some(Found::Sealed(sealed)) => {
                let id = sealed.id.clone();
                return Ok(Some(TenantSummary { id, details: None, is_damaged: false }));
            }
            None => return Ok(None),
        };
        let Some(entry) = self.records.entry(&keys)? else { return Ok(None) };
        let config = self.records.config(&entry)?;
        let Directory { id, enabled, updated_at, .. } = Directory::clone(&entry.directory);
        let engine = config.connection.engine();
        let details = Some(TenantDetails { engine, enabled, updated_at });
        Ok(Some(TenantSummary { id, details, is_damaged: false }))
    }

    /// The same while nothing is written: what does not open is damaged.
    fn summary_of_damaged(&self, name: IdDigest) -> Result<Option<TenantSummary>, Error> {
        let error = match self.summary(name) {
            Err(error @ Error::RecordDamaged { .. }) => error,
            result => return result,
        };
        let keyring = self.keyring();
        let Some(Found::Open(keys)) = keyring.find_name(name) else { return Err(error) };
        let id = match self.records.entry(keys) {
            Ok(entry) => entry.map(|entry| entry.directory.id.clone()),
            Err(_) => damaged_id(keys.handle),
        };
        Ok(id.map(|id| TenantSummary { id, details: None, is_damaged: true }))
    }
}

/// What a tenant is called whose directory does not open: part of its handle.
pub(super) fn damaged_id(handle: Handle) -> Option<TenantId> {
    let digits = &hex(&handle.0)[..12];
    TenantId::parse(&format!("damaged_{digits}"), IdRule::AllowUnderscore).ok()
}
