//! What tenants have used of their quotas, one sealed record each, and the quotas themselves.
//!
//! The record stands beside those that the tenant's directory lists, at a version that stays: it is
//! replaced where it is, some times a second while the tenant is served, and that is no change of
//! the tenant. Its bytes are of [`crate::quota`] and mean nothing here.
//!
//! A record that is missing is that of a tenant that has used nothing: who removes it from the disk
//! has removed a pair of the store, which its integrity tells. One that does not open is refused, so
//! that damaging it resets nothing.

use std::sync::Arc;

use jiff::Timestamp;

use super::envelope::RecordKind;
use super::import::{CONFIG, Import};
use super::keyring::Found;
use super::record::{self, FieldId};
use super::sealed;
use super::unsealed::{Unsealed, Writing};
use super::{ChangeKind, Entry, Error, TenantCredentialVault};
use crate::store::Batch;
use crate::tenant::{Quotas, TenantId};

/// What of [`TenantCredentialVault::save_counts`] was not saved, by places among what was given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Unsaved {
    /// Their tenants are sealed, or damaged.
    pub waiting: Vec<usize>,
    /// Their tenants are gone.
    pub gone: Vec<usize>,
}

impl TenantCredentialVault {
    /// What was saved last of the tenant called `id`.
    ///
    /// # Errors
    ///
    /// [`Error::CountsDamaged`] until [`Self::remove_counts`]; else those of [`Self::tenant`].
    pub fn counts(&self, id: &TenantId) -> Result<Option<Vec<u8>>, Error> {
        self.unsealed(|vault| vault.counts(id))
    }

    /// Saves what `encode` gives for each place among `tenants`, in one commit. It is asked for a
    /// tenant while nothing else is written, and only if there is still the one that was first
    /// imported at that time.
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`], [`Error::Store`]: nothing is saved.
    pub fn save_counts(
        &self,
        tenants: &[(&TenantId, Timestamp)],
        encode: impl FnMut(usize) -> Vec<u8>,
    ) -> Result<Unsaved, Error> {
        self.unsealed(|vault| vault.save_counts(tenants, encode))
    }

    /// Removes what was saved of the tenant called `id`, also if it does not open.
    ///
    /// # Errors
    ///
    /// [`Error::NotConfigured`], [`Error::TenantSealed`], [`Error::Sealed`],
    /// [`Error::RecordDamaged`], [`Error::Store`].
    pub fn remove_counts(&self, id: &TenantId) -> Result<(), Error> {
        self.unsealed(|vault| {
            let writing = vault.writing();
            let entry = vault.current(&writing, id)?;
            if vault.records.counts_envelope(&entry.keys)?.is_none() {
                return Ok(());
            }
            let mut batch = Batch::default();
            let record = (FieldId::COUNTS.0, FieldId::COUNTS_VERSION);
            sealed::remove(&mut batch, &entry.keys, record);
            vault.witness.apply(batch)
        })
    }

    /// Has `change` set the quotas of the tenant called `id`, with effect from its next call, and
    /// answers what they are then. An import of its file sets them to what stands there.
    ///
    /// # Errors
    ///
    /// Those of `change`, and those of [`Self::tenant`]: nothing has changed.
    pub fn change_quotas<E: From<Error>>(
        &self,
        id: &TenantId,
        change: impl FnOnce(&mut Quotas) -> Result<(), E>,
    ) -> Result<Quotas, E> {
        self.unsealed(|vault| Ok(vault.change_quotas(id, change)))?
    }
}

impl Unsealed {
    fn counts(&self, id: &TenantId) -> Result<Option<Vec<u8>>, Error> {
        let entry = self.entry(id)?;
        match self.records.counts(&entry) {
            Ok(Some(bytes)) => return Ok(Some(bytes)),
            Ok(None) if self.is_settled_at(id, &entry) => return Ok(None),
            Ok(None) | Err(_) => {}
        }
        // It may have moved, or be under another key by now. While we hold the writers' lock it does
        // not move.
        let writing = self.writing();
        let entry = self.current(&writing, id)?;
        self.records.counts(&entry).map_err(|error| {
            let is_damaged = matches!(error, Error::RecordDamaged { .. });
            if is_damaged { Error::CountsDamaged(id.clone()) } else { error }
        })
    }

    /// Whether records of the tenant `id` are where those of `entry` were read, and nowhere else.
    fn is_settled_at(&self, id: &TenantId, entry: &Entry) -> bool {
        let keyring = self.keyring();
        let Some(Found::Open(keys)) = keyring.find(id) else { return false };
        keys.handle == entry.keys.handle && keys.next_handle.is_none()
    }

    fn save_counts(
        &self,
        tenants: &[(&TenantId, Timestamp)],
        mut encode: impl FnMut(usize) -> Vec<u8>,
    ) -> Result<Unsaved, Error> {
        let writing = self.writing();
        let mut unsaved = Unsaved::default();
        let mut batch = Batch::default();
        for (at, (id, born)) in tenants.iter().enumerate() {
            let entry = match self.looked_up(&writing, id) {
                Ok(entry) if entry.directory.created_at == *born => entry,
                Ok(_) | Err(Error::NotConfigured) => {
                    unsaved.gone.push(at);
                    continue;
                }
                Err(Error::TenantSealed(_) | Error::RecordDamaged { .. }) => {
                    unsaved.waiting.push(at);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let record = (FieldId::COUNTS.0, FieldId::COUNTS_VERSION);
            self.records.put(&mut batch, &entry.keys, RecordKind::Counts, record, &encode(at))?;
        }
        if unsaved.gone.len() + unsaved.waiting.len() < tenants.len() {
            self.witness.apply(batch)?;
        }
        Ok(unsaved)
    }

    fn change_quotas<E: From<Error>>(
        &self,
        id: &TenantId,
        change: impl FnOnce(&mut Quotas) -> Result<(), E>,
    ) -> Result<Quotas, E> {
        let writing = self.writing();
        let entry = self.current(&writing, id)?;
        let mut config = self.records.config(&entry)?;
        let before = config.quotas;
        change(&mut config.quotas)?;
        if config.quotas != before {
            self.put_quotas(&writing, id, &entry, &record::encode_config(&config))?;
        }
        Ok(config.quotas)
    }

    fn put_quotas(
        &self,
        _: &Writing,
        id: &TenantId,
        entry: &Entry,
        config: &[u8],
    ) -> Result<(), Error> {
        let kind = ChangeKind::Changed { fields: vec!["quotas".to_owned()] };
        let (keys, now) = (Arc::clone(&entry.keys), self.clock.now());
        let import = Import { vault: self, id, keys, current: Some(entry), kind: &kind, now };
        let mut batch = Batch::default();
        let mut fields = entry.directory.fields.clone();
        fields.retain(|field| field.name != CONFIG);
        fields.push(import.chunked(
            &mut batch,
            FieldId::CONFIG,
            CONFIG,
            RecordKind::Config,
            config,
        )?);
        import.put_directory(&mut batch, fields)?;
        self.witness.apply(batch)?;
        self.changed([id]);
        Ok(())
    }
}
