//! The vault while its keys are in memory.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use super::cache::Cache;
use super::envelope::RecordKind;
use super::key::Key;
use super::keyring::{Found, Keyring, TenantKeys};
use super::recent::{Recent, Watch};
use super::record::{Directory, FieldId};
use super::reseal::Queue;
use super::sealed::{self, SealedStore};
use super::witness::{Part, Witness};
use super::{Entry, Error, Options, Revision, StoreId, StoredTenant};
use crate::clock::Clock;
use crate::store::Batch;
use crate::tenant::{Credentials, TenantId};

/// Every key, and what was opened with them.
pub(super) struct Unsealed {
    pub(super) records: SealedStore,
    /// Through which everything is written.
    pub(super) witness: Arc<Witness>,
    /// Held for the whole of every write, and taken before `keyring` and `recent`.
    writing: Mutex<Writing>,
    /// As it is on the disk. Only who holds `writing` changes it.
    keyring: RwLock<Keyring>,
    /// Tenants in use. What it says of one is on the disk already.
    recent: Recent<TenantId, Entry>,
    pub(super) lookup_key: Arc<Key>,
    pub(super) fingerprint_key: Arc<Key>,
    credentials: Cache<Credentials>,
    stored: Cache<StoredTenant>,
    ttl: Duration,
    pub(super) clock: Arc<dyn Clock>,
}

/// What only the one who writes may see.
pub(super) struct Writing {
    /// What seals the keyring.
    pub(super) keyring_key: Key,
    pub(super) queue: Queue,
}

impl Unsealed {
    pub(super) fn new(
        (records, witness): (SealedStore, Arc<Witness>),
        keyring: Keyring,
        keyring_key: Key,
        clock: Arc<dyn Clock>,
        options: &Options,
    ) -> Result<Self, Error> {
        let queue = Queue::of(&records, &keyring, HashSet::new())?;
        let ttl = options.credential_ttl;
        Ok(Self {
            records,
            witness,
            writing: Mutex::new(Writing { keyring_key, queue }),
            lookup_key: Arc::clone(keyring.lookup_key()),
            fingerprint_key: Arc::clone(keyring.fingerprint_key()),
            keyring: RwLock::new(keyring),
            recent: Recent::new(),
            credentials: Cache::new(ttl, Arc::clone(&clock)),
            stored: Cache::new(ttl, Arc::clone(&clock)),
            ttl,
            clock,
        })
    }

    pub(super) fn store_id(&self) -> StoreId {
        self.records.id()
    }

    pub(super) fn tenant(&self, id: &TenantId) -> Result<StoredTenant, Error> {
        let entry = self.entry(id)?;
        if let Some(stored) = self.stored.get(id, entry.revision()) {
            return Ok(StoredTenant::clone(&stored));
        }
        let (entry, config) = self.read(id, |entry| self.records.config(entry))?;
        let Directory { enabled, version, created_at, updated_at, .. } = *entry.directory;
        let (credentials, revision) = (entry.directory.credential_infos(), entry.revision());
        let stored = StoredTenant {
            config,
            enabled,
            version,
            revision,
            created_at,
            updated_at,
            credentials,
        };
        self.stored.insert(id, revision, Arc::new(stored.clone()));
        self.forget_unless_current(id, revision);
        Ok(stored)
    }

    pub(super) fn revision(&self, id: &TenantId) -> Result<Revision, Error> {
        Ok(self.entry(id)?.revision())
    }

    pub(super) fn is_current(
        &self,
        id: &TenantId,
        revision: Revision,
        watch: &Arc<Watch>,
    ) -> Result<bool, Error> {
        let is_current = self.entry(id)?.revision() == revision;
        if is_current {
            self.recent.arm(id, watch, |entry| entry.revision() == revision);
        }
        Ok(is_current)
    }

    pub(super) fn changes(&self) -> u64 {
        self.recent.changes()
    }

    pub(super) fn credentials(&self, id: &TenantId) -> Result<Arc<Credentials>, Error> {
        let entry = self.entry(id)?;
        if !entry.directory.enabled {
            return Err(Error::Disabled(id.clone()));
        }
        if let Some(credentials) = self.credentials.get(id, entry.revision()) {
            return Ok(credentials);
        }
        let (entry, credentials) = self.read(id, |entry| self.records.credentials(entry))?;
        let credentials = Arc::new(credentials);
        self.credentials.insert(id, entry.revision(), Arc::clone(&credentials));
        self.forget_unless_current(id, entry.revision());
        Ok(credentials)
    }

    pub(super) fn sweep(&self) {
        self.credentials.sweep();
        self.stored.sweep();
        let now = self.clock.boot();
        let is_due = |since: Duration| now.saturating_sub(since) >= self.ttl;
        self.recent.sweep(is_due);
    }

    pub(super) fn forget_opened(&self) {
        self.credentials.clear();
        self.stored.clear();
    }

    pub(super) fn set_enabled(&self, id: &TenantId, enabled: bool) -> Result<(), Error> {
        let writing = self.writing();
        let entry = self.current(&writing, id)?;
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
        self.changed([id]);
        Ok(())
    }

    /// Whoever holds the result is the only one to write.
    pub(super) fn writing(&self) -> MutexGuard<'_, Writing> {
        // Whole after any panic: it changes by assignment, after the disk.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Not to be held while anything else of this is called that takes it.
    pub(super) fn keyring(&self) -> RwLockReadGuard<'_, Keyring> {
        self.keyring.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For who holds `writing`, once what is changed is on the disk.
    pub(super) fn keyring_mut(&self, _writing: &mut Writing) -> RwLockWriteGuard<'_, Keyring> {
        self.keyring.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys of what belongs to no tenant.
    pub(super) fn system(&self) -> Arc<TenantKeys> {
        Arc::clone(self.keyring().system())
    }

    /// Writes the keyring that `change` makes of a copy; it is in force once it is on the disk.
    pub(super) fn change_keyring<T>(
        &self,
        writing: &mut Writing,
        change: impl FnOnce(&mut Keyring) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut keyring = self.keyring().clone();
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
        *self.keyring_mut(writing) = keyring;
        Ok(())
    }

    /// The tenant `id`: from memory if it was looked up lately, else two reads of the store.
    pub(super) fn entry(&self, id: &TenantId) -> Result<Arc<Entry>, Error> {
        let changes = match self.recent.get(id) {
            Ok(entry) => return Ok(entry),
            Err(changes) => changes,
        };
        let Ok(found) = self.look_up(id)? else {
            // A write may be moving its records. While we hold the writers' lock there is none.
            let writing = self.writing();
            return self.current(&writing, id);
        };
        self.recent.note(id, self.clock.boot(), &found, changes);
        Ok(found)
    }

    /// The tenant `id` as it is on the disk, for who holds the writers' lock.
    pub(super) fn current(&self, _: &Writing, id: &TenantId) -> Result<Arc<Entry>, Error> {
        self.look_up(id)?
    }

    /// The same, from memory if it was looked up lately.
    pub(super) fn looked_up(&self, writing: &Writing, id: &TenantId) -> Result<Arc<Entry>, Error> {
        self.recent.get(id).or_else(|_| self.current(writing, id))
    }

    /// Answers first whether there are keys of that tenant, and then what its directory says.
    fn look_up(&self, id: &TenantId) -> Result<Result<Arc<Entry>, Error>, Error> {
        let keys = match self.keyring().find(id) {
            Some(Found::Open(keys)) => Arc::clone(keys),
            Some(Found::Sealed(sealed)) if sealed.id == *id => {
                return Err(Error::TenantSealed(id.clone()));
            }
            Some(Found::Sealed(_)) | None => return Err(Error::NotConfigured),
        };
        match self.records.entry(&keys) {
            // Case counts.
            Ok(Some(entry)) if entry.directory.id != *id => Err(Error::NotConfigured),
            Ok(Some(entry)) => Ok(Ok(Arc::new(entry))),
            Ok(None) => Ok(Err(Error::NotConfigured)),
            Err(error) => Ok(Err(error)),
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
        let writing = self.writing();
        let entry = self.current(&writing, id)?;
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

    /// Has readers look at tenants anew that have just been changed.
    pub(super) fn changed<'a>(&self, ids: impl IntoIterator<Item = &'a TenantId>) {
        self.recent.changed(ids.into_iter().inspect(|id| self.forget(id)));
    }

    /// The same of all of them, whose records say what they said.
    pub(super) fn all_changed(&self) {
        self.recent.all_changed();
    }

    /// Drops what was opened of a tenant.
    pub(super) fn forget(&self, id: &TenantId) {
        self.credentials.remove(id);
        self.stored.remove(id);
    }

    /// Undoes a caching that came after the change that should have prevented it.
    fn forget_unless_current(&self, id: &TenantId, revision: Revision) {
        if !self.entry(id).is_ok_and(|entry| entry.revision() == revision) {
            self.forget(id);
        }
    }
}
