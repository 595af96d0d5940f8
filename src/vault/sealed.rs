//! The store as the vault sees it: sealed records by tenant, field and version.

use std::collections::BTreeSet;
use std::sync::Arc;

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::envelope::{self, Opened, Place, RecordKind};
use super::key::Key;
use super::keyring::{Keyring, TenantKeys};
use super::record::{self, Certificates, Directory, Field, FieldId};
use super::{Entry, Error, Handle, StoreId};
use crate::memory::SecretText;
use crate::store::{Batch, Pair, Store, Tree};
use crate::tenant::{Credentials, TenantConfig};

/// A record's key in the store.
pub(super) type RecordKey = [u8; RECORD_KEY_LENGTH];
pub(super) const RECORD_KEY_LENGTH: usize = Handle::LENGTH + 2 + 8;

/// A store and the name that its envelopes are bound to.
#[derive(Debug)]
pub(super) struct SealedStore {
    store: Arc<dyn Store>,
    id: StoreId,
}

impl SealedStore {
    pub(super) fn new(store: Arc<dyn Store>, id: StoreId) -> Self {
        Self { store, id }
    }

    pub(super) fn id(&self) -> StoreId {
        self.id
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The store, for whoever reads it for longer.
    pub(super) fn shared(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Gives every tenant of `keyring` to `each`, in the order of the store, once
    /// [`Self::follow_moves`] was called.
    ///
    /// # Errors
    ///
    /// Those of `each`, and whatever does not fit together: a record that no directory lists, or one
    /// that is listed and missing, records without keys. The fields stay sealed.
    pub(super) fn contents(
        &self,
        keyring: &Keyring,
        mut each: impl FnMut(Entry) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // In 256 portions, so that a large store is not in memory as a whole.
        for first in 0..=u8::MAX {
            let pairs = self.store.scan(Tree::Tenant, &[first])?;
            for records in pairs.chunk_by(|one, next| handle_of(one) == handle_of(next)) {
                let handle = records.first().and_then(handle_of).ok_or_else(|| self.stray())?;
                let keys = match keyring.get(handle) {
                    Some(keys) => Arc::clone(keys),
                    None if keyring.is_known(handle) => continue,
                    None => return Err(Error::KeyringOutdated),
                };
                let directory = Arc::new(self.whole_directory(&keys, records)?);
                each(Entry { keys, directory })?;
            }
        }
        Ok(())
    }

    /// Has keys follow records that have moved already, of which a crash kept the keyring from
    /// knowing.
    pub(super) fn follow_moves(&self, keyring: &mut Keyring) -> Result<(), Error> {
        let mut moved = Vec::new();
        for keys in keyring.tenants() {
            if let Some(next) = keys.next_handle
                && self.is_inhabited(next)?
            {
                moved.push((keys.handle, keys.moved()));
            }
        }
        for (former, keys) in moved {
            keyring.replace(former, keys);
        }
        Ok(())
    }

    /// The tenant whose keys are `keys`. Nothing when it has no record, as after an import that
    /// failed. Two reads: of a few KiB, and of one record.
    pub(super) fn entry(&self, keys: &Arc<TenantKeys>) -> Result<Option<Entry>, Error> {
        if let Some(directory) = self.directory(keys)? {
            let keys = Arc::clone(keys);
            return Ok(Some(Entry { keys, directory: Arc::new(directory) }));
        }
        if keys.next_handle.is_none() {
            return Ok(None);
        }
        let keys = Arc::new(keys.moved());
        let directory = self.directory(&keys)?;
        Ok(directory.map(|directory| Entry { keys, directory: Arc::new(directory) }))
    }

    /// Whether there is any record at `handle`.
    pub(super) fn is_inhabited(&self, handle: Handle) -> Result<bool, Error> {
        let first = self.store.scan_after(Tree::Tenant, Some(&handle.0), 1)?;
        Ok(first.first().and_then(handle_of) == Some(handle))
    }

    /// The directory of whose keys are `keys`. The field number of a directory is the lowest, so its
    /// record is the first one.
    fn directory(&self, keys: &TenantKeys) -> Result<Option<Directory>, Error> {
        let first = self.store.scan_after(Tree::Tenant, Some(&keys.handle.0), 1)?;
        let own = first.first().filter(|first| handle_of(first) == Some(keys.handle));
        own.map(|first| self.open_directory(keys, first)).transpose()
    }

    /// The directory among all `records` of a tenant, which it must list, but for the counts.
    fn whole_directory(&self, keys: &TenantKeys, records: &[Pair]) -> Result<Directory, Error> {
        let Some((first, others)) = records.split_first() else {
            return Err(Error::KeyringOutdated);
        };
        let directory = self.open_directory(keys, first)?;
        let listed: BTreeSet<RecordKey> = directory
            .fields
            .iter()
            .flat_map(Field::records)
            .map(|(field, version)| record_key(keys.handle, field, version))
            .collect();
        let counts = record_key(keys.handle, FieldId::COUNTS.0, FieldId::COUNTS_VERSION);
        let stored = others.iter().map(|(key, _)| key.as_slice()).filter(|key| *key != counts);
        if listed.iter().map(<[u8; _]>::as_slice).ne(stored) {
            let (field, version) = (FieldId::DIRECTORY.0, directory.version);
            return Err(self.place(RecordKind::Directory, field, version, &first.0).damaged());
        }
        Ok(directory)
    }

    fn open_directory(
        &self,
        keys: &TenantKeys,
        (key, envelope): &Pair,
    ) -> Result<Directory, Error> {
        let version = key.last_chunk().map_or(0, |version| u64::from_be_bytes(*version));
        let expected = record_key(keys.handle, FieldId::DIRECTORY.0, version);
        let place = self.place(RecordKind::Directory, FieldId::DIRECTORY.0, version, key);
        if *key != expected {
            return Err(place.damaged());
        }
        let opened = envelope::open(keys, &place, envelope)?;
        let directory = Directory::decode(&opened).map_err(|_| place.damaged())?;
        if directory.version != version || directory.uuid != keys.uuid {
            return Err(place.damaged());
        }
        Ok(directory)
    }

    /// The configuration of a tenant.
    pub(super) fn config(&self, entry: &Entry) -> Result<TenantConfig, Error> {
        let (keys, directory) = (&entry.keys, &entry.directory);
        let read = |id: FieldId, kind| -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
            let field = directory.fields.iter().find(|field| field.id == id);
            field.map(|field| self.chunks(keys, kind, field)).transpose()
        };
        let damaged = |id: FieldId, kind| {
            let key = record_key(keys.handle, id.0, directory.version);
            self.place(kind, id.0, directory.version, &key).damaged()
        };
        let certificate = |id: FieldId| {
            let pem = read(id, RecordKind::Certificate)?;
            let pem = pem.map(|pem| String::from_utf8(pem.to_vec())).transpose();
            pem.map_err(|_| damaged(id, RecordKind::Certificate))
        };
        let certificates = Certificates {
            roots: certificate(FieldId::CERTIFICATES)?,
            client: certificate(FieldId::CLIENT_CERTIFICATE)?,
        };
        read(FieldId::CONFIG, RecordKind::Config)?
            .and_then(|bytes| {
                record::decode_config(directory.id.clone(), certificates, &bytes).ok()
            })
            .ok_or_else(|| damaged(FieldId::CONFIG, RecordKind::Config))
    }

    /// What has been counted of a tenant, if anything was.
    pub(super) fn counts(&self, entry: &Entry) -> Result<Option<Vec<u8>>, Error> {
        let read = |keys: &TenantKeys| -> Result<Option<Vec<u8>>, Error> {
            let Some(envelope) = self.counts_envelope(keys)? else { return Ok(None) };
            let record = (FieldId::COUNTS.0, FieldId::COUNTS_VERSION);
            Ok(Some(self.open(keys, RecordKind::Counts, record, &envelope)?.to_vec()))
        };
        match (read(&entry.keys)?, entry.keys.next_handle) {
            (None, Some(_)) => read(&entry.keys.moved()),
            (found, _) => Ok(found),
        }
    }

    /// The same as it is stored, where `keys` are.
    pub(super) fn counts_envelope(&self, keys: &TenantKeys) -> Result<Option<Vec<u8>>, Error> {
        let key = record_key(keys.handle, FieldId::COUNTS.0, FieldId::COUNTS_VERSION);
        Ok(self.store.get(Tree::Tenant, &key)?)
    }

    /// The secrets of a tenant.
    pub(super) fn credentials(&self, entry: &Entry) -> Result<Credentials, Error> {
        let mut credentials = Credentials::default();
        for field in entry.directory.credentials() {
            let opened = self.credential(entry, field)?;
            let text = std::str::from_utf8(&opened);
            let secret = text.map(SecretText::from).map_err(|_| {
                let key = record_key(entry.keys.handle, field.id.0, field.version);
                self.place(RecordKind::Credential, field.id.0, field.version, &key).damaged()
            })?;
            match field.name.strip_prefix(API_KEYS_PREFIX) {
                Some(provider) => drop(credentials.api_keys.insert(provider.to_owned(), secret)),
                None if field.id == FieldId::DB_SSLKEY => credentials.db_sslkey = Some(secret),
                None => credentials.db_password = Some(secret),
            }
        }
        Ok(credentials)
    }

    /// One secret of a tenant.
    pub(super) fn credential(&self, entry: &Entry, field: &Field) -> Result<Opened, Error> {
        self.read(&entry.keys, RecordKind::Credential, field.id.0, field.version)
    }

    /// Seals `payload` into `batch`. It has at most [`envelope::MAX_PAYLOAD`] bytes.
    pub(super) fn put(
        &self,
        batch: &mut Batch,
        keys: &TenantKeys,
        kind: RecordKind,
        (field, version): (u16, u64),
        payload: &[u8],
    ) -> Result<(), Error> {
        let key = record_key(keys.handle, field, version);
        let place = self.place(kind, field, version, &key);
        batch.put(Tree::Tenant, key, envelope::seal(keys, &place, payload)?);
        Ok(())
    }

    /// The place of the record under `key`, in whichever tree.
    pub(super) fn place<'a>(
        &self,
        kind: RecordKind,
        field: u16,
        version: u64,
        key: &'a [u8],
    ) -> Place<'a> {
        Place { store_id: self.id, kind, field, version, key }
    }

    fn read(
        &self,
        keys: &TenantKeys,
        kind: RecordKind,
        field: u16,
        version: u64,
    ) -> Result<Opened, Error> {
        let read = |keys: &TenantKeys| {
            let envelope = self.envelope(keys, kind, field, version)?;
            self.open(keys, kind, (field, version), &envelope)
        };
        // The tenant may have moved on since the keys were looked up.
        read(keys).or_else(|error| match keys.next_handle {
            Some(_) => read(&keys.moved()),
            None => Err(error),
        })
    }

    /// A record as it is stored.
    pub(super) fn envelope(
        &self,
        keys: &TenantKeys,
        kind: RecordKind,
        field: u16,
        version: u64,
    ) -> Result<Vec<u8>, Error> {
        let key = record_key(keys.handle, field, version);
        let envelope = self.store.get(Tree::Tenant, &key)?;
        envelope.ok_or_else(|| self.place(kind, field, version, &key).damaged())
    }

    /// Opens a record that was read.
    pub(super) fn open(
        &self,
        keys: &TenantKeys,
        kind: RecordKind,
        (field, version): (u16, u64),
        envelope: &[u8],
    ) -> Result<Opened, Error> {
        let key = record_key(keys.handle, field, version);
        envelope::open(keys, &self.place(kind, field, version, &key), envelope)
    }

    fn chunks(
        &self,
        keys: &TenantKeys,
        kind: RecordKind,
        field: &Field,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut bytes = Zeroizing::new(Vec::new());
        for (field, version) in field.records() {
            bytes.extend_from_slice(&self.read(keys, kind, field, version)?);
        }
        Ok(bytes)
    }

    fn stray(&self) -> Error {
        self.place(RecordKind::Directory, FieldId::DIRECTORY.0, 0, &[]).damaged()
    }
}

/// Removes a record, by field number and version, in `batch`.
pub(super) fn remove(batch: &mut Batch, keys: &TenantKeys, (field, version): (u16, u64)) {
    batch.remove(Tree::Tenant, record_key(keys.handle, field, version));
}

/// How the names of API keys begin in listings, as in the tenant file.
pub(super) const API_KEYS_PREFIX: &str = "api_keys.";

/// A keyed digest that shows whether a secret is the same as before, of the same tenant only.
pub(super) fn fingerprint(
    key: &Key,
    keys: &TenantKeys,
    name: &str,
    secret: &SecretText,
) -> [u8; Field::FINGERPRINT_LENGTH] {
    let name_length = u64::try_from(name.len()).unwrap_or(u64::MAX).to_be_bytes();
    let digest = key.mac(&[&keys.uuid.0, &name_length, name.as_bytes(), secret_bytes(secret)]);
    let [first, second, third, fourth, ..] = digest;
    [first, second, third, fourth]
}

#[expect(
    clippy::disallowed_methods,
    reason = "a secret is sealed, compared and fingerprinted here"
)]
pub(super) fn secret_bytes(secret: &SecretText) -> &[u8] {
    secret.expose_secret().as_bytes()
}

/// At which handle a record is.
fn handle_of((key, _): &Pair) -> Option<Handle> {
    key.first_chunk().map(|handle| Handle(*handle))
}

/// Where a record of the tenant at `handle` is.
pub(super) fn record_key(handle: Handle, field: u16, version: u64) -> RecordKey {
    let mut key = [0; RECORD_KEY_LENGTH];
    let (prefix, rest) = key.split_at_mut(Handle::LENGTH);
    prefix.copy_from_slice(&handle.0);
    let (middle, end) = rest.split_at_mut(2);
    middle.copy_from_slice(&field.to_be_bytes());
    end.copy_from_slice(&version.to_be_bytes());
    key
}
