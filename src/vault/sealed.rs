//! The store as the vault sees it: sealed records by tenant, field and version.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::envelope::{self, Opened, Place, RecordKind};
use super::key::Key;
use super::keyring::{Keyring, TenantKeys};
use super::record::{self, Directory, Field, FieldId};
use super::{Entry, Error, Fold, Handle, StoreId};
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

/// What is in a store.
#[derive(Default)]
pub(super) struct Contents {
    /// By folded id.
    pub(super) tenants: HashMap<String, Arc<Entry>>,
    /// Where records are whose keys were destroyed.
    pub(super) left_over: Vec<Handle>,
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

    /// Every tenant whose keys are in `keyring`, which learns who has moved to another handle.
    ///
    /// # Errors
    ///
    /// Whatever does not fit together: a record that no directory lists, or one that is listed and
    /// missing, a tenant without keys or without a directory. The fields stay sealed.
    pub(super) fn contents(&self, keyring: &mut Keyring) -> Result<Contents, Error> {
        let mut contents = Contents::default();
        let next = keyring.entries().filter_map(|keys| Some((keys.next_handle?, keys.handle)));
        let former: HashMap<Handle, Handle> = next.collect();
        let sealed: HashSet<Handle> = keyring.sealed().map(|tenant| tenant.handle()).collect();
        // In 256 portions, so that a large store is not in memory as a whole.
        for first in 0..=u8::MAX {
            let pairs = self.store.scan(Tree::Tenant, &[first])?;
            let mut records: HashMap<Handle, Vec<&Pair>> = HashMap::new();
            for pair in &pairs {
                let handle = pair.0.first_chunk().ok_or_else(|| self.stray(&pair.0))?;
                records.entry(Handle(*handle)).or_default().push(pair);
            }
            for (handle, records) in records {
                if let Some(at) = former.get(&handle) {
                    let keys = keyring.get(*at).ok_or(Error::KeyringDamaged)?.moved();
                    keyring.replace(*at, keys);
                }
                if let Some(keys) = keyring.get(handle) {
                    let directory = self.directory(keys, &records)?;
                    let entry =
                        Arc::new(Entry { keys: Arc::clone(keys), directory: Arc::new(directory) });
                    contents.tenants.insert(entry.directory.id.folded(), entry);
                } else if keyring.is_removed(handle) {
                    contents.left_over.push(handle);
                } else if !sealed.contains(&handle) {
                    return Err(Error::KeyringOutdated);
                }
            }
        }
        Ok(contents)
    }

    /// The tenant whose keys are `keys`.
    pub(super) fn entry(&self, keys: Arc<TenantKeys>) -> Result<Entry, Error> {
        let pairs = self.store.scan(Tree::Tenant, &keys.handle.0)?;
        let directory = self.directory(&keys, &pairs.iter().collect::<Vec<_>>())?;
        Ok(Entry { keys, directory: Arc::new(directory) })
    }

    /// The directory among all `records` of a tenant, which it must list.
    fn directory(&self, keys: &TenantKeys, records: &[&Pair]) -> Result<Directory, Error> {
        // Keys are in order, and the directory's field number is the lowest.
        let Some((key, envelope)) = records.first() else { return Err(Error::KeyringOutdated) };
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
        let listed: BTreeSet<RecordKey> = directory
            .fields
            .iter()
            .flat_map(Field::records)
            .map(|(field, version)| record_key(keys.handle, field, version))
            .collect();
        let stored = records.iter().skip(1).map(|(key, _)| key.as_slice());
        if listed.iter().map(<[u8; _]>::as_slice).ne(stored) {
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
        let certificates = read(FieldId::CERTIFICATES, RecordKind::Certificate)?
            .map(|pem| String::from_utf8(pem.to_vec()))
            .transpose()
            .map_err(|_| damaged(FieldId::CERTIFICATES, RecordKind::Certificate))?;
        read(FieldId::CONFIG, RecordKind::Config)?
            .and_then(|bytes| {
                record::decode_config(directory.id.clone(), certificates, &bytes).ok()
            })
            .ok_or_else(|| damaged(FieldId::CONFIG, RecordKind::Config))
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

    fn stray(&self, key: &[u8]) -> Error {
        self.place(RecordKind::Directory, FieldId::DIRECTORY.0, 0, key).damaged()
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
