//! Credentials at rest.
//!
//! A [`TenantCredentialVault`] turns a tenant into sealed records that only this vault, for this
//! tenant, in this field, at this version, turns back. Every byte: docs/format.md.
//!
//! ```text
//! passphrase --Argon2id--> KEK --header--> root key --HKDF--> K_keyring, K_index, ...
//! K_keyring --keyring--> random key per tenant --HKDF(salt, place)--> one-time key --> envelope
//! tenant id --HMAC(K_index)--> handle --> store key
//! ```
//!
//! Protects against: reading the data directory; moving, swapping or editing what is in it; tenant
//! ids read off the store's keys. Does not protect against: an older copy of the whole directory
//! put back; a reader of this process's memory, where opened credentials stay for
//! [`Options::credential_ttl`]; a passphrase that can be guessed.

mod cache;
mod codec;
mod envelope;
mod error;
mod header;
mod import;
mod kdf;
mod key;
mod keyring;
mod record;
mod sealed;
mod token;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;

use crate::clock::Clock;
use crate::store::{self, Batch, DataDir, SledStore, Store};
use crate::tenant::{Credentials, TenantConfig, TenantId};

use cache::Cache;
use envelope::RecordKind;
use key::Key;
use keyring::{Keyring, TenantKeys};
use record::{Directory, FieldId};
use sealed::SealedStore;

pub use error::Error;
pub use import::{Change, ChangeKind};
pub use kdf::KdfCost;
pub use token::TokenRecord;

/// Every tenant's configuration and credentials, unsealed: its keys are in memory.
///
/// Reads run beside each other and beside a write; writes wait for one another.
pub struct TenantCredentialVault {
    sealed: SealedStore,
    keyring_key: Key,
    index_key: Key,
    fingerprint_key: Key,
    /// Held for the whole of every write, and taken before `tenants`.
    keyring: Mutex<Keyring>,
    system: Arc<TenantKeys>,
    /// By folded id. What it says of a tenant is on the disk already.
    tenants: RwLock<HashMap<String, Arc<Entry>>>,
    credentials: Cache<Credentials>,
    stored: Cache<StoredTenant>,
    clock: Arc<dyn Clock>,
    /// Last: it keeps other processes away until the store above is closed.
    directory: DataDir,
}

/// Settings of an unsealed vault.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "config fills it field by field")]
pub struct Options {
    /// How long opened credentials stay in memory.
    pub credential_ttl: Duration,
}

/// Which vault this is: random, made with it, in the clear on the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StoreId([u8; 16]);

/// A line of the list of tenants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TenantSummary {
    /// Who.
    pub id: TenantId,
    /// `postgres` or `sqlite`.
    pub engine: &'static str,
    /// Whether it is served.
    pub enabled: bool,
    /// When anything of it last changed.
    pub updated_at: Timestamp,
}

/// A tenant without its secrets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredTenant {
    /// What its file said.
    pub config: TenantConfig,
    /// Whether it is served.
    pub enabled: bool,
    /// Counts its changes, from 1. What was made for another version is out of date.
    pub version: u64,
    /// When it was first imported.
    pub created_at: Timestamp,
    /// When anything of it last changed.
    pub updated_at: Timestamp,
    /// Which secrets there are.
    pub credentials: Vec<CredentialInfo>,
}

/// What may be known of a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CredentialInfo {
    /// As in the tenant file: `db_password`, `api_keys.openai`.
    pub name: String,
    /// When this value came.
    pub set_at: Timestamp,
    /// Eight hex digits, the same as long as the value is. Keyed, so that guesses cannot be tried
    /// against it; no two tenants or names have one in common.
    pub fingerprint: String,
}

/// A tenant's keys and table of contents.
#[derive(Debug)]
struct Entry {
    keys: Arc<TenantKeys>,
    directory: Directory,
}

/// What a tenant is called in the store: a keyed digest of its id.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Handle([u8; Handle::LENGTH]);

/// What a tenant is called in associated data: random, never used again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Uuid([u8; 16]);

/// Makes a vault in `directory`: the header, which `passphrase` opens, an empty keyring and store.
///
/// # Errors
///
/// [`Error::PassphraseTooShort`], and [`store::Error::AlreadyInitialised`] when there is a header.
/// A creation that is interrupted leaves no header, and so no vault.
pub fn create(
    directory: &DataDir,
    passphrase: &SecretString,
    cost: KdfCost,
    clock: &dyn Clock,
) -> Result<(), Error> {
    if directory.read(DataDir::HEADER, header::MAX_LENGTH)?.is_some() {
        let path = directory.path().display().to_string();
        return Err(store::Error::AlreadyInitialised { path }.into());
    }
    kdf::check_new(passphrase)?;
    let mut store_id = StoreId([0; 16]);
    key::random(&mut store_id.0)?;
    let root = Key::random()?;
    let header = header::create(store_id, &root, passphrase, cost, clock.now())?;

    drop(SledStore::create(&directory.store_path())?);
    Keyring::create()?.save(store_id, &root.derive(KEYRING_LABEL), |bytes| {
        Ok(directory.write_atomically(DataDir::KEYRING, bytes)?)
    })?;
    Ok(directory.write_atomically(DataDir::HEADER, &header)?)
}

impl TenantCredentialVault {
    /// Opens the vault in `directory`, and checks that keyring, directories and records fit
    /// together. Takes as long as the key derivation, and then opens one record per tenant.
    ///
    /// # Errors
    ///
    /// - [`Error::WrongPassphrase`] after one key derivation per slot; nothing has changed.
    /// - [`Error::HeaderDamaged`], [`Error::KeyringDamaged`], [`Error::KeyringOutdated`],
    ///   [`Error::RecordDamaged`], [`store::Error::Damaged`]: restore from a backup.
    pub fn unseal(
        directory: DataDir,
        passphrase: &SecretString,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let header =
            directory.read(DataDir::HEADER, header::MAX_LENGTH)?.ok_or(Error::HeaderDamaged)?;
        let (store_id, root) = header::open(&header, passphrase)?;
        let store = SledStore::open(&directory.store_path())?;
        Self::assemble(directory, Box::new(store), store_id, &root, &options, clock)
    }

    fn assemble(
        directory: DataDir,
        store: Box<dyn Store>,
        store_id: StoreId,
        root: &Key,
        options: &Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let keyring =
            directory.read(DataDir::KEYRING, keyring::MAX_LENGTH)?.ok_or(Error::KeyringDamaged)?;
        let keyring_key = root.derive(KEYRING_LABEL);
        let keyring = Keyring::open(&keyring, store_id, &keyring_key)?;
        let system = Arc::clone(keyring.get(Handle::SYSTEM).ok_or(Error::KeyringDamaged)?);
        let sealed = SealedStore::new(store, store_id);
        let tenants = sealed.tenants(&keyring)?;
        Ok(Self {
            sealed,
            keyring_key,
            index_key: root.derive("mcpv.index.v1"),
            fingerprint_key: root.derive("mcpv.fingerprint.v1"),
            keyring: Mutex::new(keyring),
            system,
            tenants: RwLock::new(tenants),
            credentials: Cache::new(options.credential_ttl),
            stored: Cache::new(options.credential_ttl),
            clock,
            directory,
        })
    }

    /// Which vault this is.
    pub fn store_id(&self) -> StoreId {
        self.sealed.id()
    }

    /// The directory it is in.
    pub fn directory(&self) -> &DataDir {
        &self.directory
    }

    /// Every tenant, sorted by id.
    pub fn tenants(&self) -> Result<Vec<TenantSummary>, Error> {
        let mut ids: Vec<TenantId> = {
            let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
            tenants.values().map(|entry| entry.directory.id.clone()).collect()
        };
        ids.sort_unstable();
        ids.iter()
            .map(|id| {
                let (entry, config) = self.open(id, |entry| self.sealed.config(entry))?;
                Ok(TenantSummary {
                    id: id.clone(),
                    engine: config.connection.engine(),
                    enabled: entry.directory.enabled,
                    updated_at: entry.directory.updated_at,
                })
            })
            .collect()
    }

    /// The tenant called `id`.
    ///
    /// # Errors
    ///
    /// [`Error::NotConfigured`], [`Error::RecordDamaged`], [`Error::Store`].
    pub fn tenant(&self, id: &TenantId) -> Result<StoredTenant, Error> {
        let entry = self.entry(id)?;
        if let Some(stored) = self.stored.get(id, entry.directory.version) {
            return Ok(StoredTenant::clone(&stored));
        }
        let (entry, config) = self.open(id, |entry| self.sealed.config(entry))?;
        let Directory { enabled, version, created_at, updated_at, .. } = entry.directory;
        let credentials = entry.directory.credential_infos();
        let stored = StoredTenant { config, enabled, version, created_at, updated_at, credentials };
        self.stored.insert(id, version, Arc::new(stored.clone()));
        self.forget_unless_current(id, version);
        Ok(stored)
    }

    /// Which version of the tenant called `id` is the current one. From memory: it waits for no disk.
    ///
    /// # Errors
    ///
    /// [`Error::NotConfigured`].
    pub fn version(&self, id: &TenantId) -> Result<u64, Error> {
        Ok(self.entry(id)?.directory.version)
    }

    /// The secrets of the tenant called `id`.
    ///
    /// They stay cached for [`Options::credential_ttl`] from when they were opened, or until the
    /// tenant changes, and are wiped when the last holder lets go of them.
    ///
    /// # Errors
    ///
    /// [`Error::NotConfigured`], [`Error::Disabled`], [`Error::RecordDamaged`], [`Error::Store`].
    pub fn credentials(&self, id: &TenantId) -> Result<Arc<Credentials>, Error> {
        let entry = self.entry(id)?;
        if !entry.directory.enabled {
            return Err(Error::Disabled(id.clone()));
        }
        if let Some(credentials) = self.credentials.get(id, entry.directory.version) {
            return Ok(credentials);
        }
        let (entry, credentials) = self.open(id, |entry| self.sealed.credentials(entry))?;
        let credentials = Arc::new(credentials);
        self.credentials.insert(id, entry.directory.version, Arc::clone(&credentials));
        self.forget_unless_current(id, entry.directory.version);
        Ok(credentials)
    }

    /// Drops what has been opened for longer than [`Options::credential_ttl`]. To be called every
    /// second: nothing else wipes a secret that is not asked for again.
    pub fn sweep(&self) {
        self.credentials.sweep();
        self.stored.sweep();
    }

    /// Drops everything that was opened, whatever its deadline. It is opened again when asked for.
    pub fn forget_opened(&self) {
        self.credentials.clear();
        self.stored.clear();
    }

    /// Switches a tenant on or off.
    ///
    /// # Errors
    ///
    /// [`Error::NotConfigured`], [`Error::Store`].
    pub fn set_enabled(&self, id: &TenantId, enabled: bool) -> Result<(), Error> {
        let _writing = self.writing();
        let entry = self.entry(id)?;
        if entry.directory.enabled == enabled {
            return Ok(());
        }
        let directory = Directory {
            enabled,
            updated_at: self.clock.now(),
            version: entry.directory.version + 1,
            ..entry.directory.clone()
        };
        let mut batch = Batch::default();
        self.put_directory(&mut batch, &entry.keys, &directory, Some(&entry.directory))?;
        self.sealed.store().apply(batch)?;
        self.publish([Entry { keys: Arc::clone(&entry.keys), directory }]);
        Ok(())
    }

    /// Whoever holds the result is the only one to write.
    fn writing(&self) -> MutexGuard<'_, Keyring> {
        self.keyring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, id: &TenantId) -> Result<Arc<Entry>, Error> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        let entry = tenants.get(&id.folded()).filter(|entry| entry.directory.id == *id);
        entry.map(Arc::clone).ok_or(Error::NotConfigured)
    }

    /// Reads something of a tenant together with the directory that it belongs to.
    fn open<T>(
        &self,
        id: &TenantId,
        read: impl Fn(&Entry) -> Result<T, Error>,
    ) -> Result<(Arc<Entry>, T), Error> {
        let entry = self.entry(id)?;
        if let Ok(value) = read(&entry) {
            return Ok((entry, value));
        }
        // A write may have removed the records of that directory meanwhile. While we hold the
        // writers' lock there is none, and what is missing now is missing.
        let _writing = self.writing();
        let entry = self.entry(id)?;
        let value = read(&entry)?;
        Ok((entry, value))
    }

    fn put_directory(
        &self,
        batch: &mut Batch,
        keys: &TenantKeys,
        directory: &Directory,
        replaced: Option<&Directory>,
    ) -> Result<(), Error> {
        let record = (FieldId::DIRECTORY.0, directory.version);
        let payload = directory.encode();
        self.sealed.put(batch, keys, RecordKind::Directory, record, &payload)?;
        if let Some(replaced) = replaced {
            sealed::remove(batch, keys, (FieldId::DIRECTORY.0, replaced.version));
        }
        Ok(())
    }

    /// Shows readers what has just been committed.
    fn publish(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            let id = entry.directory.id.clone();
            tenants.insert(id.folded(), Arc::new(entry));
            self.credentials.remove(&id);
            self.stored.remove(&id);
        }
    }

    /// Undoes a caching that came after the change that should have prevented it.
    fn forget_unless_current(&self, id: &TenantId, version: u64) {
        if self.entry(id).is_ok_and(|entry| entry.directory.version == version) {
            return;
        }
        self.credentials.remove(id);
        self.stored.remove(id);
    }

    fn handle(&self, id: &TenantId) -> Handle {
        let digest = self.index_key.mac(&[b"t\0", id.as_str().as_bytes()]);
        Handle(*digest.first_chunk().expect("a digest has 32 bytes"))
    }
}

impl fmt::Debug for TenantCredentialVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantCredentialVault")
            .field("store_id", &self.store_id())
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { credential_ttl: Duration::from_mins(5) }
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Handle {
    const LENGTH: usize = 16;
    /// Of what belongs to no tenant. No digest: it stands for no id.
    const SYSTEM: Self = Self([0; Self::LENGTH]);
}

impl Uuid {
    /// Of what belongs to no tenant.
    const SYSTEM: Self = Self([0; 16]);
}

/// Ids that differ only in case have one fold.
trait Fold {
    fn folded(&self) -> String;
}

impl Fold for TenantId {
    fn folded(&self) -> String {
        self.as_str().to_ascii_lowercase()
    }
}

const KEYRING_LABEL: &str = "mcpv.keyring.v1";
