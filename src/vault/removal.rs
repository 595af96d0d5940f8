//! Removing tenants for good: their keys are destroyed first, then everything that they sealed.
//!
//! | level | done | holds against |
//! |---|---|---|
//! | S0 | the keyring without the tenant, a tombstone in it, caches emptied, records and tokens removed | any caller |
//! | S1 | the keyring under a new key, its former generations overwritten, the store rewritten | someone who copies the directory later and has the passphrase |
//!
//! Does not hold against copies that were made before, nor against what a disk keeps of overwritten
//! files. The backups that are known and hold the tenant are named in the certificate.

use std::sync::Arc;

use jiff::Timestamp;

use super::backup;
use super::certificate::{self, Certificate, Deletion};
use super::header::OpenHeader;
use super::key::Key;
use super::keyring::{Found, IdDigest, TenantKeys, Tombstone};
use super::listing::damaged_id;
use super::slot::Unlock;
use super::unsealed::{Unsealed, Writing};
use super::{Error, Handle, TenantCredentialVault};
use crate::store::{Batch, Tree};
use crate::tenant::TenantId;

/// A tenant that is to be removed.
struct Doomed {
    name: IdDigest,
    handle: Handle,
    created: Option<Timestamp>,
}

/// What is to be said of a tenant that was removed.
struct Destroyed {
    tombstone: Tombstone,
    /// That hold it still.
    backups: Vec<String>,
}

impl TenantCredentialVault {
    /// The public key that signs certificates, in hex: for whoever is to rely on them.
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`].
    pub fn certificate_key(&self) -> Result<String, Error> {
        self.unsealed(|vault| Ok(certificate::public_key(vault.keyring().signing_seed())))
    }

    /// Removes the tenants `ids`, all or none, and answers a certificate for each, which is also
    /// stored. One that was removed before has its removal completed.
    ///
    /// An import does not bring them back, unless it says so. The store is rewritten as a whole,
    /// which takes some seconds for 40,000 records (`./dev bench --bench vault`); other writes and
    /// reads go on.
    ///
    /// # Errors
    ///
    /// Those of [`Self::unseal`]; [`Error::NotConfigured`] for any of them, [`Error::Sealed`]:
    /// nothing has changed. [`Error::Store`]: it is to be repeated.
    pub fn remove_tenants(
        &self,
        unlock: &Unlock,
        ids: &[TenantId],
    ) -> Result<Vec<Certificate>, Error> {
        let _unlocking = self.unlocking();
        let (mut header, _) = self.unlock(unlock)?;
        let (destroyed, signing) = self.changing(|vault| self.destroy(vault, &mut header, ids))?;
        // It takes seconds, and no key.
        self.store()?.rewrite()?;
        let now = self.clock.now();
        let certify = |Destroyed { tombstone, backups }| {
            let store_id = self.store_id;
            let certificate = Deletion { store_id, tombstone, now, backups }.certify(&signing);
            let (name, text) = (certificate.handle(), certificate.as_str().as_bytes());
            self.directory.write_certificate(name, text)?;
            Ok(certificate)
        };
        destroyed.into_iter().map(certify).collect()
    }

    /// Destroys the keys of `ids`, then removes what they sealed. Answers what is left of each, and
    /// the seed of the key that signs.
    fn destroy(
        &self,
        vault: &Unsealed,
        header: &mut OpenHeader,
        ids: &[TenantId],
    ) -> Result<(Vec<Destroyed>, Arc<Key>), Error> {
        let mut writing = vault.writing();
        let known = vault.known_backups()?;
        let doomed = ids.iter().map(|id| vault.doomed(&writing, id));
        let doomed = doomed.collect::<Result<Vec<_>, Error>>()?;
        let now = self.clock.now();
        self.change_keyring_key(header, vault, &mut writing, |vault, writing| {
            vault.change_keyring(writing, |keyring| {
                for Doomed { name, handle, .. } in &doomed {
                    keyring.remove(*name, *handle, now);
                }
                Ok(())
            })?;
            // Before anything else can fail: whose keys are gone is not served any more.
            vault.changed(ids);
            Ok(())
        })?;
        let handles: Vec<Handle> = doomed.iter().map(|doomed| doomed.handle).collect();
        vault.finish_removals(&handles)?;
        vault.requeue(&mut writing)?;
        let keyring = vault.keyring();
        let destroyed = doomed.iter().map(|Doomed { name, created, .. }| {
            let tombstone = keyring.tombstone(*name)?;
            let backups = backup::holders(&known, *created, tombstone.removed_at());
            Some(Destroyed { tombstone, backups })
        });
        let destroyed: Option<Vec<_>> = destroyed.collect();
        let signing = Arc::clone(keyring.signing_seed());
        Ok((destroyed.ok_or(Error::KeyringDamaged)?, signing))
    }
}

impl Unsealed {
    /// The tenant `id`, whatever state it is in; also by the name that a damaged one is listed by.
    fn doomed(&self, writing: &Writing, id: &TenantId) -> Result<Doomed, Error> {
        let doomed = |name, handle, created| Ok(Doomed { name, handle, created });
        let (name, found, tombstone) = {
            let keyring = self.keyring();
            let name = keyring.digest(id);
            let found = match keyring.find_name(name) {
                Some(Found::Open(keys)) => Some(keys.handle),
                Some(Found::Sealed(sealed)) if sealed.id == *id => {
                    return doomed(name, sealed.handle(), None);
                }
                Some(Found::Sealed(_)) | None => None,
            };
            (name, found, keyring.tombstone(name))
        };
        match (found, tombstone) {
            (Some(handle), _) => {
                return match self.current(writing, id) {
                    Ok(entry) => doomed(name, handle, Some(entry.directory.created_at)),
                    // Whether case is right, nobody can say any more.
                    Err(Error::RecordDamaged { .. }) => doomed(name, handle, None),
                    Err(error) => Err(error),
                };
            }
            (None, Some(tombstone)) => return doomed(name, tombstone.handle, None),
            (None, None) => {}
        }
        let keyring = self.keyring();
        let is_meant = |keys: &&Arc<TenantKeys>| {
            damaged_id(keys.handle).as_ref() == Some(id) && self.records.entry(keys).is_err()
        };
        let damaged = keyring.tenants().find(is_meant).ok_or(Error::NotConfigured)?;
        doomed(damaged.name(), damaged.handle, None)
    }

    /// Removes what tenants left whose keys, at `handles`, are gone: their records, and the tokens of
    /// whoever has a tombstone.
    pub(super) fn finish_removals(&self, handles: &[Handle]) -> Result<(), Error> {
        if handles.is_empty() {
            return Ok(());
        }
        let store = self.records.store();
        let mut batch = Batch::default();
        for handle in handles {
            for (key, _) in store.scan(Tree::Tenant, &handle.0)? {
                batch.remove(Tree::Tenant, key);
            }
        }
        let mut after = None::<Vec<u8>>;
        loop {
            let pairs = store.scan_after(Tree::Token, after.as_deref(), 1_024)?;
            let Some((last, _)) = pairs.last() else { break };
            after = Some(last.clone());
            for (key, envelope) in &pairs {
                let token = self.open_token(key, envelope);
                if token.is_ok_and(|token| self.is_removed(&token.tenant)) {
                    batch.remove(Tree::Token, key.as_slice());
                }
            }
        }
        self.witness.apply(batch)
    }

    fn is_removed(&self, id: &TenantId) -> bool {
        let keyring = self.keyring();
        keyring.tombstone(keyring.digest(id)).is_some()
    }
}
