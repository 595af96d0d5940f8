//! The vault while its keys are in memory.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::cache::Cache;
use super::envelope::RecordKind;
use super::key::Key;
use super::keyring::{Keyring, TenantKeys};
use super::record::{Directory, FieldId};
use super::reseal::Queue;
use super::sealed::{self, SealedStore};
use super::witness::{Part, Witness};
use super::{
    Entry, Error, Fold, Handle, Options, StoreId, StoredTenant, TenantDetails, TenantSummary,
};
use crate::clock::Clock;
use crate::store::Batch;
use crate::tenant::{Credentials, TenantId};

/// Every key, and what was opened with them.
pub(super) struct Unsealed {
    pub(super) records: SealedStore,
    /// Through which everything is written.
    pub(super) witness: Arc<Witness>,
    /// Held for the whole of every write, and taken before `index`.
    writing: Mutex<Writing>,
    pub(super) lookup_key: Arc<Key>,
    pub(super) fingerprint_key: Arc<Key>,
    index: RwLock<Index>,
    credentials: Cache<Credentials>,
    stored: Cache<StoredTenant>,
    pub(super) clock: Arc<dyn Clock>,
}

/// What only the one who writes may see.
pub(super) struct Writing {
    /// As it is on the disk.
    pub(super) keyring: Keyring,
    /// What seals it.
    pub(super) keyring_key: Key,
    pub(super) queue: Queue,
}

/// What readers look up. What it says of a tenant is on the disk already.
pub(super) struct Index {
    /// By folded id.
    pub(super) tenants: HashMap<String, Arc<Entry>>,
    /// Tenants whose keys are sealed, by folded id.
    pub(super) sealed: HashMap<String, TenantId>,
    /// The keys of what belongs to no tenant.
    pub(super) system: Arc<TenantKeys>,
}

impl Unsealed {
    pub(super) fn new(
        (records, witness): (SealedStore, Arc<Witness>),
        keyring: Keyring,
        keyring_key: Key,
        tenants: HashMap<String, Arc<Entry>>,
        clock: Arc<dyn Clock>,
        options: &Options,
    ) -> Result<Self, Error> {
        let system = Arc::clone(keyring.get(Handle::SYSTEM).ok_or(Error::KeyringDamaged)?);
        let sealed = keyring.sealed().map(|tenant| (tenant.id.folded(), tenant.id.clone()));
        let index = Index { sealed: sealed.collect(), tenants, system };
        let queue = Queue::of(&index, &keyring, HashSet::new());
        Ok(Self {
            records,
            witness,
            lookup_key: Arc::clone(keyring.lookup_key()),
            fingerprint_key: Arc::clone(keyring.fingerprint_key()),
            writing: Mutex::new(Writing { keyring, keyring_key, queue }),
            index: RwLock::new(index),
            credentials: Cache::new(options.credential_ttl, Arc::clone(&clock)),
            stored: Cache::new(options.credential_ttl, Arc::clone(&clock)),
            clock,
        })
    }

    pub(super) fn store_id(&self) -> StoreId {
        self.records.id()
    }

    pub(super) fn tenants(&self) -> Result<Vec<TenantSummary>, Error> {
        let mut ids: Vec<TenantId> = {
            let index = self.index();
            let open = index.tenants.values().map(|entry| &entry.directory.id);
            open.chain(index.sealed.values()).cloned().collect()
        };
        ids.sort_unstable();
        let summary = |id: TenantId| {
            let read = self.read(&id, |entry| self.records.config(entry));
            let (details, is_damaged) = match read {
                Ok((entry, config)) => {
                    let details = TenantDetails {
                        engine: config.connection.engine(),
                        enabled: entry.directory.enabled,
                        updated_at: entry.directory.updated_at,
                    };
                    (Some(details), false)
                }
                Err(Error::TenantSealed(_)) => (None, false),
                // The others are as they were.
                Err(Error::RecordDamaged { .. }) => (None, true),
                // Removed since the list was made.
                Err(Error::NotConfigured) => return None,
                Err(error) => return Some(Err(error)),
            };
            Some(Ok(TenantSummary { id, details, is_damaged }))
        };
        ids.into_iter().filter_map(summary).collect()
    }

    pub(super) fn tenant(&self, id: &TenantId) -> Result<StoredTenant, Error> {
        let entry = self.entry(id)?;
        if let Some(stored) = self.stored.get(id, entry.directory.version) {
            return Ok(StoredTenant::clone(&stored));
        }
        let (entry, config) = self.read(id, |entry| self.records.config(entry))?;
        let Directory { enabled, version, created_at, updated_at, .. } = *entry.directory;
        let credentials = entry.directory.credential_infos();
        let stored = StoredTenant { config, enabled, version, created_at, updated_at, credentials };
        self.stored.insert(id, version, Arc::new(stored.clone()));
        self.forget_unless_current(id, version);
        Ok(stored)
    }

    pub(super) fn version(&self, id: &TenantId) -> Result<u64, Error> {
        Ok(self.entry(id)?.directory.version)
    }

    pub(super) fn credentials(&self, id: &TenantId) -> Result<Arc<Credentials>, Error> {
        let entry = self.entry(id)?;
        if !entry.directory.enabled {
            return Err(Error::Disabled(id.clone()));
        }
        if let Some(credentials) = self.credentials.get(id, entry.directory.version) {
            return Ok(credentials);
        }
        let (entry, credentials) = self.read(id, |entry| self.records.credentials(entry))?;
        let credentials = Arc::new(credentials);
        self.credentials.insert(id, entry.directory.version, Arc::clone(&credentials));
        self.forget_unless_current(id, entry.directory.version);
        Ok(credentials)
    }

    pub(super) fn sweep(&self) {
        self.credentials.sweep();
        self.stored.sweep();
    }

    pub(super) fn forget_opened(&self) {
        self.credentials.clear();
        self.stored.clear();
    }

    pub(super) fn set_enabled(&self, id: &TenantId, enabled: bool) -> Result<(), Error> {
        let _writing = self.writing();
        let entry = self.entry(id)?;
        if entry.directory.enabled == enabled {
            return Ok(());
        }
        let directory = Directory {
            enabled,
            updated_at: self.clock.now(),
            version: entry.directory.version + 1,
            ..Directory::clone(&entry.directory)
        };
        let mut batch = Batch::default();
        self.put_directory(&mut batch, &entry.keys, &directory, Some(&entry.directory))?;
        self.witness.apply(batch)?;
        let keys = Arc::clone(&entry.keys);
        self.publish([Entry { keys, directory: Arc::new(directory) }]);
        Ok(())
    }

    /// Whoever holds the result is the only one to write.
    pub(super) fn writing(&self) -> MutexGuard<'_, Writing> {
        // Whole after any panic: it changes by assignment, after the disk.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the keyring that `change` makes of a copy; it is in force once it is on the disk.
    pub(super) fn change_keyring<T>(
        &self,
        writing: &mut Writing,
        change: impl FnOnce(&mut Keyring) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut keyring = writing.keyring.clone();
        let result = change(&mut keyring)?;
        self.save_keyring(writing, keyring)?;
        Ok(result)
    }

    /// Writes `keyring`, which is in force from then on. The former one is the store's as well until
    /// the next batch.
    pub(super) fn save_keyring(
        &self,
        writing: &mut Writing,
        mut keyring: Keyring,
    ) -> Result<(), Error> {
        keyring.save(self.store_id(), &writing.keyring_key, |bytes| {
            self.witness.replace(Part::Keyring, bytes)
        })?;
        writing.keyring = keyring;
        Ok(())
    }

    pub(super) fn entry(&self, id: &TenantId) -> Result<Arc<Entry>, Error> {
        let index = self.index();
        let folded = id.folded();
        match index.tenants.get(&folded).filter(|entry| entry.directory.id == *id) {
            Some(entry) => Ok(Arc::clone(entry)),
            None if index.sealed.get(&folded) == Some(id) => Err(Error::TenantSealed(id.clone())),
            None => Err(Error::NotConfigured),
        }
    }

    /// Reads something of a tenant together with the directory that it belongs to.
    pub(super) fn read<T>(
        &self,
        id: &TenantId,
        read: impl Fn(&Entry) -> Result<T, Error>,
    ) -> Result<(Arc<Entry>, T), Error> {
        let entry = self.entry(id)?;
        if let Ok(value) = read(&entry) {
            return Ok((entry, value));
        }
        // A write may have replaced the records of that directory meanwhile, or sealed them under
        // another key. While we hold the writers' lock there is none, and what is missing now is
        // missing.
        let _writing = self.writing();
        let entry = self.entry(id)?;
        let value = read(&entry)?;
        Ok((entry, value))
    }

    pub(super) fn put_directory(
        &self,
        batch: &mut Batch,
        keys: &TenantKeys,
        directory: &Directory,
        replaced: Option<&Directory>,
    ) -> Result<(), Error> {
        let record = (FieldId::DIRECTORY.0, directory.version);
        let payload = directory.encode();
        self.records.put(batch, keys, RecordKind::Directory, record, &payload)?;
        if let Some(replaced) = replaced {
            sealed::remove(batch, keys, (FieldId::DIRECTORY.0, replaced.version));
        }
        Ok(())
    }

    /// Shows readers what has just been committed.
    pub(super) fn publish(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut index = self.index_mut();
        for entry in entries {
            let id = entry.directory.id.clone();
            index.tenants.insert(id.folded(), Arc::new(entry));
            self.forget(&id);
        }
    }

    /// Drops what was opened of a tenant.
    pub(super) fn forget(&self, id: &TenantId) {
        self.credentials.remove(id);
        self.stored.remove(id);
    }

    /// Undoes a caching that came after the change that should have prevented it.
    fn forget_unless_current(&self, id: &TenantId, version: u64) {
        if !self.entry(id).is_ok_and(|entry| entry.directory.version == version) {
            self.forget(id);
        }
    }
}
