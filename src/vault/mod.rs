//! Credentials at rest.
//!
//! A [`TenantCredentialVault`] turns a tenant into sealed records that only this vault, for this
//! tenant, in this field, at this version, turns back. Every byte: docs/format.md.
//!
//! ```text
//! passphrase, key file, program, shares --slot of the header--> root key --> key of the keyring
//! keyring --> random key per tenant and term --HKDF(salt, place)--> one-time key --> envelope
//! tenant id --HMAC(index key of the keyring)--> handle --> store key
//! ```
//!
//! It begins sealed: no key is in memory. [`TenantCredentialVault::unseal`] takes what opens a slot,
//! [`TenantCredentialVault::seal`] lets go of every key again. The root key is in memory only while
//! it is used.
//!
//! Protects against: reading the data directory; moving, swapping or editing what is in it; tenant
//! ids read off the store's keys; an older copy of a part of the directory put back; a copy of the
//! directory that is older than a change of keys; guesses at the passphrase that go through this
//! program. Does not protect against: an older copy of the whole directory put back; a reader of this process's memory, where tenant keys are while it is
//! unsealed and opened credentials for [`Options::credential_ttl`]; a passphrase that can be guessed
//! with a copy of the header.

mod attempts;
pub mod backup;
mod bech32;
mod cache;
mod certificate;
pub mod check;
mod codec;
mod command;
mod counts;
mod envelope;
mod error;
mod expiry;
#[cfg(fuzzing)]
pub mod fuzzing;
mod header;
mod import;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod kdf;
mod key;
mod key_file;
mod keyring;
mod listing;
mod opening;
mod operator;
mod recent;
mod record;
mod removal;
mod reseal;
mod root;
mod seal;
mod sealed;
mod shares;
mod slot;
mod spool;
mod token;
mod unsealed;
mod witness;

/// What [`recent`] is built of; the model has others.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, Ordering};
    pub(super) use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
}
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;
use crate::memory::SecretText;
use crate::store::{self, Batch, DataDir, Repair, SledStore, Store as _};
use crate::tenant::{Credentials, TenantConfig, TenantId};

use header::{Header, OpenHeader};
use keyring::{Keyring, TenantKeys};
use opening::Rollback;
use record::Directory;
use unsealed::Unsealed;
use witness::Witness;

pub use certificate::Certificate;
pub use command::{KeyCommand, KeyCommandProblem};
pub use counts::Unsaved;
pub use error::Error;
pub use import::{Change, ChangeKind};
pub use kdf::{KdfCost, check_new as check_new_passphrase};
pub use key_file::KeyFile;
pub use listing::{TenantDetails, TenantPlace, TenantSummary};
pub use operator::OperatorRecord;
pub use recent::Watch;
pub use reseal::ResealProgress;
pub use shares::Share;
pub use slot::{AddedSlot, NewSlot, SlotInfo, SlotKind, Unlock};
pub use spool::Spool;
pub use token::{ListedToken, TokenPlace, TokenRecord};

/// Every tenant's configuration and credentials.
///
/// Reads run beside each other and beside a write; writes wait for one another. While it is sealed,
/// what needs a key fails with [`Error::Sealed`].
pub struct TenantCredentialVault {
    /// Held shared for the whole of every operation, so that sealing waits for those under way and
    /// leaves no key behind.
    state: RwLock<Option<Unsealed>>,
    /// Held while something is unlocked and while the header changes, and taken before `state`.
    unlocking: Mutex<()>,
    /// Held while a backup is made, and taken before `unlocking`.
    backing_up: Mutex<()>,
    /// The store, and which header and keyring belong to it. Opened with the first key, and kept
    /// open while sealed.
    witness: OnceLock<Arc<Witness>>,
    /// Of the store, not yet told to anybody.
    repairs: Mutex<Vec<Repair>>,
    store_id: StoreId,
    options: Options,
    clock: Arc<dyn Clock>,
    /// Last: it keeps other processes away until the store above is closed.
    directory: Arc<DataDir>,
}

/// Settings of a vault.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "config fills it field by field")]
pub struct Options {
    /// How long opened credentials stay in memory.
    pub credential_ttl: Duration,
    /// Whether a slot whose key derivation costs less than new ones may is given the default cost
    /// when it is next opened.
    pub upgrade_cost: bool,
    /// Those of the store.
    pub store: store::Options,
}

/// How an unsealing went.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Unsealing {
    /// The slot that opened.
    pub slot: u16,
    /// Whether its cost was below the default and has been raised.
    pub upgraded: bool,
    /// What was repaired in the store, since the last unsealing.
    pub repairs: Vec<Repair>,
    /// Which older copies were accepted, a sentence each.
    pub accepted: Vec<String>,
}

/// Which vault this is: random, made with it, in the clear on the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StoreId([u8; 16]);

/// One state of one tenant: no other, of it or of a later tenant of the same name, equals it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Revision {
    uuid: Uuid,
    version: u64,
}

impl Revision {
    /// As different from others as it is itself.
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let (uuid, version) = bytes.split_at_mut(16);
        uuid.copy_from_slice(&self.uuid.0);
        version.copy_from_slice(&self.version.to_be_bytes());
        bytes
    }
}

/// A tenant without its secrets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredTenant {
    /// What its file said.
    pub config: TenantConfig,
    /// Whether it is served.
    pub enabled: bool,
    /// Counts its changes, from 1.
    pub version: u64,
    /// What was made for another one is out of date.
    pub revision: Revision,
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
    directory: Arc<Directory>,
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
    passphrase: &SecretText,
    cost: KdfCost,
    clock: &dyn Clock,
) -> Result<(), Error> {
    if directory.read(DataDir::HEADER, header::MAX_LENGTH)?.is_some() {
        let path = directory.path().display().to_string();
        return Err(store::Error::AlreadyInitialised { path }.into());
    }
    let mut store_id = StoreId([0; 16]);
    key::random(&mut store_id.0)?;
    let slot = NewSlot::passphrase(passphrase, cost);
    let (mut header, _) = OpenHeader::create(store_id, &slot, clock.now())?;

    let mut keyring = Keyring::create()?;
    // What is kept free for a store that is full is made when it is opened.
    let options = store::Options { ballast_bytes: 0 };
    let store = SledStore::create(directory, &keyring.integrity_key(), &options)?;
    let header_bytes = header.encode()?;
    keyring.save(store_id, header.keyring_key(), |keyring_bytes| {
        let mut batch = Batch::default();
        witness::name(&mut batch, &header_bytes, keyring_bytes);
        store.apply(batch)?;
        Ok(directory.write_atomically(DataDir::KEYRING, keyring_bytes)?)
    })?;
    drop(store);
    Ok(directory.initialise(&header_bytes)?)
}

impl TenantCredentialVault {
    /// Takes hold of the vault in `directory`, which stays sealed.
    ///
    /// # Errors
    ///
    /// [`Error::HeaderDamaged`]: restore it from a backup.
    pub fn open(
        directory: DataDir,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let header = root::read_header(&directory)?;
        let store_id = Header::parse(&header)?.store_id;
        Ok(Self {
            state: RwLock::new(None),
            unlocking: Mutex::default(),
            backing_up: Mutex::default(),
            witness: OnceLock::new(),
            repairs: Mutex::default(),
            store_id,
            options,
            clock,
            directory: Arc::new(directory),
        })
    }

    /// Loads the keys, once header, keyring and store have vouched for each other. Takes as long as
    /// the key derivation, and then opens no record. What a crash left of a change of keys is
    /// completed.
    ///
    /// When the vault is unsealed already, only `unlock` is checked.
    ///
    /// # Errors
    ///
    /// Nothing has changed, and a vault that was sealed is.
    ///
    /// - [`Error::WrongPassphrase`], [`Error::WrongKey`] after one key derivation per slot.
    /// - [`Error::Throttled`] after five of those in a row.
    /// - [`Error::HeaderDamaged`], [`Error::KeyringDamaged`], [`Error::RecordDamaged`],
    ///   [`store::Error::Damaged`]: restore from a backup.
    /// - [`Error::HeaderOutdated`], [`Error::KeyringOutdated`], [`store::Error::RolledBack`]: an older
    ///   copy of something was put back. Restore from a backup, or
    ///   [`Self::unseal_accepting_rollback`].
    pub fn unseal(&self, unlock: &Unlock) -> Result<Unsealing, Error> {
        self.unseal_with(unlock, Rollback::Refused)
    }

    /// The same, where an older copy of header, keyring or store is taken for what there is, as far
    /// as the parts fit together. What was written since then is lost, and from then on the lost
    /// state is the one that is refused.
    ///
    /// # Errors
    ///
    /// Those of [`Self::unseal`].
    pub fn unseal_accepting_rollback(&self, unlock: &Unlock) -> Result<Unsealing, Error> {
        self.unseal_with(unlock, Rollback::Accepted)
    }

    fn unseal_with(&self, unlock: &Unlock, rollback: Rollback) -> Result<Unsealing, Error> {
        let _unlocking = self.unlocking();
        let (mut header, slot, bytes) = self.open_header(std::slice::from_ref(unlock))?;
        let mut unsealing = Unsealing { slot: slot.id, ..Unsealing::default() };
        if self.is_sealed() {
            let opened = self.open_below(&bytes, &header, rollback)?;
            let (unsealed, accepted) = self.load(&mut header, opened)?;
            unsealing.accepted = accepted;
            unsealing.upgraded = self.upgrade(&mut header, &slot, unlock)?;
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = Some(unsealed);
        } else {
            self.attest(&bytes, &mut header)?;
            unsealing.upgraded = self.upgrade(&mut header, &slot, unlock)?;
        }
        let mut repairs = self.repairs.lock().unwrap_or_else(PoisonError::into_inner);
        unsealing.repairs = std::mem::take(&mut *repairs);
        Ok(unsealing)
    }

    /// Lets go of every key and everything that was opened, once the operations under way have
    /// ended. What callers still hold of credentials is wiped when they let go of it. The store stays
    /// open, and with it what authenticates it: its integrity key opens nothing.
    pub fn seal(&self) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether no key is in memory.
    pub fn is_sealed(&self) -> bool {
        self.state.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn unsealed<T>(&self, work: impl FnOnce(&Unsealed) -> Result<T, Error>) -> Result<T, Error> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        work(state.as_ref().ok_or(Error::Sealed)?)
    }

    /// The same for what may write the keyring: the store knows the new one when it ends.
    fn changing<T>(&self, work: impl FnOnce(&Unsealed) -> Result<T, Error>) -> Result<T, Error> {
        self.unsealed(|vault| {
            let done = work(vault)?;
            vault.witness.settle()?;
            Ok(done)
        })
    }

    /// Which vault this is.
    pub fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// How its store is. From memory.
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`] before it was unsealed for the first time.
    pub fn condition(&self) -> Result<store::Condition, Error> {
        Ok(self.store()?.condition())
    }

    /// Whether the thread that writes to the store does its work: returns once it has done what waited
    /// before. Nothing is asked of a store that is not open. May block for as long as a commit takes.
    pub fn answers(&self) -> bool {
        self.store().is_ok_and(|store| store.answers()) || self.store().is_err()
    }

    /// The directory it is in.
    pub fn directory(&self) -> &DataDir {
        &self.directory
    }

    /// The tenant called `id`.
    ///
    /// # Errors
    ///
    /// [`Error::NotConfigured`], [`Error::TenantSealed`], [`Error::Sealed`],
    /// [`Error::RecordDamaged`], [`Error::Store`].
    pub fn tenant(&self, id: &TenantId) -> Result<StoredTenant, Error> {
        self.unsealed(|vault| vault.tenant(id))
    }

    /// Which revision of the tenant called `id` is the current one. From memory, if it was looked up
    /// within [`Options::credential_ttl`].
    ///
    /// # Errors
    ///
    /// [`Error::NotConfigured`], [`Error::TenantSealed`], [`Error::Sealed`],
    /// [`Error::RecordDamaged`], [`Error::Store`].
    pub fn revision(&self, id: &TenantId) -> Result<Revision, Error> {
        self.unsealed(|vault| vault.revision(id))
    }

    /// Whether `revision` is the current one of the tenant called `id`. From memory, if it was looked
    /// up within [`Options::credential_ttl`].
    ///
    /// If it is, `watch` says so from now on, until the tenant changes, it or the vault is sealed, or
    /// nobody asked here within [`Options::credential_ttl`]: then it is to be asked here again.
    ///
    /// # Errors
    ///
    /// Those of [`Self::revision`].
    pub fn is_current(
        &self,
        id: &TenantId,
        revision: Revision,
        watch: &Arc<Watch>,
    ) -> Result<bool, Error> {
        self.unsealed(|vault| vault.is_current(id, revision, watch))
    }

    /// Another number after each change of any tenant; none while sealed.
    pub fn changes(&self) -> Option<u64> {
        self.unsealed(|vault| Ok(vault.changes())).ok()
    }

    /// The secrets of the tenant called `id`.
    ///
    /// They stay cached for [`Options::credential_ttl`] from when they were opened, or until the
    /// tenant changes, and are wiped when the last holder lets go of them.
    ///
    /// # Errors
    ///
    /// [`Error::NotConfigured`], [`Error::Disabled`], [`Error::TenantSealed`], [`Error::Sealed`],
    /// [`Error::RecordDamaged`], [`Error::Store`].
    pub fn credentials(&self, id: &TenantId) -> Result<Arc<Credentials>, Error> {
        self.unsealed(|vault| vault.credentials(id))
    }

    /// Drops what has been opened for longer than [`Options::credential_ttl`]. To be called every
    /// second: nothing else wipes a secret that is not asked for again.
    pub fn sweep(&self) {
        // Sealed, there is nothing.
        drop(self.unsealed(|vault| {
            vault.sweep();
            Ok(())
        }));
    }

    /// Drops everything that was opened, whatever its deadline. It is opened again when asked for.
    pub fn forget_opened(&self) {
        drop(self.unsealed(|vault| {
            vault.forget_opened();
            Ok(())
        }));
    }

    /// As [`Self::forget_opened`], for one tenant.
    pub fn forget_tenant(&self, id: &TenantId) {
        drop(self.unsealed(|vault| {
            vault.forget(id);
            Ok(())
        }));
    }

    /// Switches a tenant on or off.
    ///
    /// # Errors
    ///
    /// [`Error::NotConfigured`], [`Error::TenantSealed`], [`Error::Sealed`], [`Error::Store`].
    pub fn set_enabled(&self, id: &TenantId, enabled: bool) -> Result<(), Error> {
        self.unsealed(|vault| vault.set_enabled(id, enabled))
    }
}

impl fmt::Debug for TenantCredentialVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantCredentialVault")
            .field("store_id", &self.store_id())
            .field("is_sealed", &self.is_sealed())
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credential_ttl: Duration::from_mins(5),
            upgrade_cost: true,
            store: store::Options::default(),
        }
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Entry {
    fn revision(&self) -> Revision {
        Revision { uuid: self.directory.uuid, version: self.directory.version }
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
