//! The keyring file: every tenant's random key, sealed under a key that the header wraps.
//!
//! Random keys, not derived ones, so that one tenant's can be destroyed alone; a file of its own,
//! written whole, so that destroyed keys do not linger in a log-structured store. It is written
//! before the batch that needs it: a key that no record uses is harmless, a record without its key
//! is lost. A change is made to a copy, which becomes the keyring once it is on the disk.
//!
//! What authenticates the store is in here too, so nothing of the store is taken for true before the
//! keyring is open; that it is the newest keyring, the store says then (`witness.rs`).
//!
//! A tenant can be sealed by itself: its keys are then sealed once more, under a key that only the
//! root key opens and that is not in memory. A tenant that was removed leaves a tombstone.
//!
//! A tenant is found by a keyed digest of its id, in which case does not count: so two that differ in
//! case alone are told without reading the store. In memory a tenant takes about half a KiB
//! (`./dev bench --bench store -- scale`).

mod content;
mod terms;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::codec::{Malformed, Reader, Writer};
use super::key::{Key, Seal, random};
use super::{Error, Handle, StoreId, Uuid};
use crate::store::IntegrityKey;
use crate::tenant::TenantId;

pub(super) use terms::{TenantKeys, Term, TermState};

/// Room for two and a half million tenants.
pub(super) const MAX_LENGTH: u64 = 256 << 20;

const MAGIC: &[u8; 4] = b"MVKR";
/// Tenants only; everything else was derived from the root key.
const VERSION_1: u8 = 1;
/// Without what authenticates the store.
const VERSION_2: u8 = 2;
/// Without digests of ids.
const VERSION_3: u8 = 3;
const VERSION: u8 = 4;
const SALT_LENGTH: usize = 32;
/// Magic, version, generation, store id.
const HEAD_LENGTH: usize = 4 + 1 + 8 + 16;
const DIGEST_LENGTH: usize = 16;

/// A keyed digest of a tenant's id in lower case.
pub(super) type IdDigest = [u8; DIGEST_LENGTH];

/// What a keyring file lacks that an older version wrote.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Age {
    Current,
    /// Whose keys are whose: the directories say so.
    Unnamed,
    /// That too, and the integrity key: the one that it has is new, and no store is authenticated
    /// by it yet.
    Unauthenticated,
}

/// A tenant in the keyring.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    Open(&'a Arc<TenantKeys>),
    Sealed(&'a Arc<SealedTenant>),
}

/// The keys in memory. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Keyring {
    generation: u64,
    /// What turns tenant ids into handles.
    index: Arc<Key>,
    /// The one that is to follow it, while records move from one handle to the other.
    next_index: Option<Arc<Key>>,
    /// What turns token secrets into store keys, and ids into the digests of tombstones. For life:
    /// a token's secret is not there to be digested again.
    lookup: Arc<Key>,
    fingerprint: Arc<Key>,
    /// The seed of the key that signs deletion certificates.
    signing: Arc<Key>,
    /// What authenticates the store. For life: it opens nothing.
    integrity: Arc<Key>,
    entries: BTreeMap<Handle, Arc<TenantKeys>>,
    sealed: BTreeMap<Handle, Arc<SealedTenant>>,
    /// Where the keys of either are.
    names: BTreeMap<IdDigest, Handle>,
    tombstones: BTreeMap<IdDigest, Tombstone>,
    backup: Option<Arc<BackupSlot>>,
}

/// What a backup is sealed with, so that making one takes no passphrase. The keyring does not look
/// into it.
#[derive(Debug)]
pub(super) struct BackupSlot {
    /// The header of every backup, encoded: at most [`header::MAX_LENGTH`](super::header::MAX_LENGTH).
    pub(super) header: Vec<u8>,
    /// The keyring key in it, which seals the keyring of a backup and authenticates all of it. Not
    /// the root key: that opens sealed tenants as well.
    pub(super) key: Key,
}

/// A tenant whose keys are under a key that is not in memory.
#[derive(Debug)]
pub(super) struct SealedTenant {
    pub(super) id: TenantId,
    uuid: Uuid,
    handle: Handle,
    salt: [u8; SALT_LENGTH],
    seal: Seal,
    /// Its terms.
    ciphertext: Vec<u8>,
}

/// What is left of a tenant that was removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Tombstone {
    pub(super) handle: Handle,
    /// The last of the terms that were destroyed.
    pub(super) last_term: u32,
    /// Unix seconds.
    removed: u64,
}

impl SealedTenant {
    pub(super) fn handle(&self) -> Handle {
        self.handle
    }

    /// The tenant's keys, opened with `key`.
    pub(super) fn open(&self, store_id: StoreId, key: &Key) -> Result<TenantKeys, Error> {
        let place = sealed_place(store_id, self.uuid, self.handle);
        let mut content = Zeroizing::new(self.ciphertext.clone());
        key.open(&self.salt, &place, &mut content, &self.seal)
            .map_err(|_| Error::KeyringDamaged)?;
        content::open_terms(self.uuid, self.handle, &content)
            .map_err(|Malformed| Error::KeyringDamaged)
    }
}

impl Tombstone {
    pub(super) fn new(handle: Handle, last_term: u32, now: Timestamp) -> Self {
        Self { handle, last_term, removed: u64::try_from(now.as_second()).unwrap_or(0) }
    }

    pub(super) fn removed_at(self) -> Timestamp {
        let second = i64::try_from(self.removed).ok();
        let at = second.and_then(|second| Timestamp::from_second(second).ok());
        at.unwrap_or(Timestamp::MAX)
    }
}

impl Keyring {
    /// A keyring with the key of what belongs to no tenant.
    pub(super) fn create() -> Result<Self, Error> {
        let random = || Key::random().map(Arc::new);
        let mut keyring = Self {
            generation: 0,
            index: random()?,
            next_index: None,
            lookup: random()?,
            fingerprint: random()?,
            signing: random()?,
            integrity: random()?,
            entries: BTreeMap::new(),
            sealed: BTreeMap::new(),
            names: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            backup: None,
        };
        keyring.insert(Uuid::SYSTEM, Handle::SYSTEM, TenantKeys::NO_NAME)?;
        Ok(keyring)
    }

    /// Counts how often it was written.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn lookup_key(&self) -> &Arc<Key> {
        &self.lookup
    }

    pub(super) fn fingerprint_key(&self) -> &Arc<Key> {
        &self.fingerprint
    }

    pub(super) fn signing_seed(&self) -> &Arc<Key> {
        &self.signing
    }

    /// The key of what authenticates the store.
    pub(super) fn integrity_key(&self) -> IntegrityKey {
        self.integrity.with_bytes(IntegrityKey::new)
    }

    /// What backups are sealed with, once there has been one.
    pub(super) fn backup(&self) -> Option<&Arc<BackupSlot>> {
        self.backup.as_ref()
    }

    /// Has the next backups sealed with `slot`; none forgets it.
    pub(super) fn set_backup(&mut self, slot: Option<BackupSlot>) {
        self.backup = slot.map(Arc::new);
    }

    /// The tenant `id`, or one whose id differs from it in case alone.
    pub(super) fn find(&self, id: &TenantId) -> Option<Found<'_>> {
        self.find_name(self.digest(id))
    }

    /// The tenant whose id has the digest `name`.
    pub(super) fn find_name(&self, name: IdDigest) -> Option<Found<'_>> {
        let handle = self.names.get(&name)?;
        let open = self.entries.get(handle).map(Found::Open);
        open.or_else(|| self.sealed.get(handle).map(Found::Sealed))
    }

    /// The keys of whose records are at `handle`, when there are any.
    pub(super) fn get(&self, handle: Handle) -> Option<&Arc<TenantKeys>> {
        self.entries.get(&handle)
    }

    /// Every tenant's keys, and the system's.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<TenantKeys>> {
        self.entries.values()
    }

    /// Every tenant's keys.
    pub(super) fn tenants(&self) -> impl Iterator<Item = &Arc<TenantKeys>> {
        self.entries.values().filter(|keys| keys.handle != Handle::SYSTEM)
    }

    /// The digests of the ids of up to `limit` tenants behind `after`, or from the first one on, in
    /// their order, and where each tenant's records are.
    pub(super) fn names_after(
        &self,
        after: Option<IdDigest>,
        limit: usize,
    ) -> Vec<(IdDigest, Handle)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.names.range((from, Bound::Unbounded)).take(limit);
        names.map(|(name, handle)| (*name, *handle)).collect()
    }

    /// The keys of what belongs to no tenant.
    pub(super) fn system(&self) -> &Arc<TenantKeys> {
        self.entries.get(&Handle::SYSTEM).expect("it is made and decoded with it")
    }

    /// The keys of the tenant `id`, new ones when there are none.
    pub(super) fn get_or_create(&mut self, id: &TenantId) -> Result<Arc<TenantKeys>, Error> {
        match self.find(id) {
            Some(Found::Open(keys)) => return Ok(Arc::clone(keys)),
            Some(Found::Sealed(_)) => return Err(Error::TenantSealed(id.clone())),
            None => {}
        }
        let mut uuid = Uuid::SYSTEM;
        random(&mut uuid.0)?;
        let index = self.next_index.as_ref().unwrap_or(&self.index);
        self.insert(uuid, handle(index, id), self.digest(id))
    }

    fn insert(
        &mut self,
        uuid: Uuid,
        handle: Handle,
        name: IdDigest,
    ) -> Result<Arc<TenantKeys>, Error> {
        let key = Arc::new(Key::random()?);
        let term = Term { number: 1, state: TermState::Active, key };
        let keys = TenantKeys::new(uuid, handle, vec![term]).map_err(|_| Error::KeyringDamaged)?;
        Ok(self.put(TenantKeys { name, ..keys }))
    }

    fn put(&mut self, keys: TenantKeys) -> Arc<TenantKeys> {
        let keys = Arc::new(keys);
        if keys.name != TenantKeys::NO_NAME {
            self.names.insert(keys.name, keys.handle);
        }
        self.entries.insert(keys.handle, Arc::clone(&keys));
        keys
    }

    /// Puts `keys` in the place of those at `handle`.
    pub(super) fn replace(&mut self, handle: Handle, keys: TenantKeys) -> Arc<TenantKeys> {
        self.entries.remove(&handle);
        self.put(keys)
    }

    /// Notes that the keys at `handle` are those of the tenant `id`.
    ///
    /// # Errors
    ///
    /// [`Error::KeyringDamaged`] when others are already.
    pub(super) fn name(&mut self, handle: Handle, id: &TenantId) -> Result<(), Error> {
        let name = self.digest(id);
        let keys = self.entries.get(&handle).ok_or(Error::KeyringDamaged)?;
        if self.names.contains_key(&name) {
            return Err(Error::KeyringDamaged);
        }
        let keys = TenantKeys { name, ..TenantKeys::clone(keys) };
        self.replace(handle, keys);
        Ok(())
    }

    /// Forgets keys that nobody was named for: those of an import that failed.
    pub(super) fn forget_unnamed(&mut self) {
        let is_named = |keys: &TenantKeys| keys.name != TenantKeys::NO_NAME;
        self.entries.retain(|handle, keys| is_named(keys) || *handle == Handle::SYSTEM);
    }

    /// Gives whoever is at `handle` a term that seals from now on.
    pub(super) fn add_term(&mut self, handle: Handle) -> Result<Arc<TenantKeys>, Error> {
        let keys = self.entries.get(&handle).ok_or(Error::KeyringDamaged)?;
        let keys = keys.with_new_term()?;
        Ok(self.replace(handle, keys))
    }

    /// Gives tenants other handles, to which their records have to be moved.
    pub(super) fn begin_moving(
        &mut self,
        ids: impl IntoIterator<Item = (Handle, TenantId)>,
    ) -> Result<(), Error> {
        if self.is_moving() {
            // Those that have moved would have to be told from those that have not.
            return Err(Error::Resealing);
        }
        let next = Arc::new(Key::random()?);
        for (at, id) in ids {
            if let Some(keys) = self.entries.get(&at) {
                let keys = TenantKeys { next_handle: Some(handle(&next, &id)), ..(**keys).clone() };
                self.replace(at, keys);
            }
        }
        self.next_index = Some(next);
        Ok(())
    }

    /// Whether records are on their way from one handle to another.
    pub(super) fn is_moving(&self) -> bool {
        self.entries.values().any(|keys| keys.next_handle.is_some())
    }

    /// Forgets the former handles. Every tenant has moved.
    pub(super) fn end_moving(&mut self) {
        if let Some(next) = self.next_index.take() {
            self.index = next;
        }
    }

    /// Destroys the keys of the tenant called `name`, whose records are at `handle`, and remembers
    /// that there was one.
    pub(super) fn remove(&mut self, name: IdDigest, handle: Handle, now: Timestamp) {
        let last_term = self.entries.remove(&handle).map_or(0, |keys| keys.active().number);
        self.sealed.remove(&handle);
        self.names.remove(&name);
        // Removed once more, it is as dead as it was.
        let tombstone = self.tombstones.entry(name);
        tombstone.or_insert(Tombstone::new(handle, last_term, now));
    }

    /// What is left of the tenant called `name`, if it was removed.
    pub(super) fn tombstone(&self, name: IdDigest) -> Option<Tombstone> {
        self.tombstones.get(&name).copied()
    }

    /// Forgets that the tenant `id` was removed.
    pub(super) fn readmit(&mut self, id: &TenantId) {
        self.tombstones.remove(&self.digest(id));
    }

    /// Whether records at `handle` are those of a sealed tenant, or left over from a removal.
    pub(super) fn is_known(&self, handle: Handle) -> bool {
        self.sealed.contains_key(&handle) || self.is_removed(handle)
    }

    /// Whether the records at `handle` are left over from a removal.
    pub(super) fn is_removed(&self, handle: Handle) -> bool {
        self.tombstones.values().any(|tombstone| tombstone.handle == handle)
    }

    /// The tombstones.
    pub(super) fn tombstones(&self) -> impl Iterator<Item = Tombstone> {
        self.tombstones.values().copied()
    }

    /// What the tenant `id` is found by. Case does not count.
    pub(super) fn digest(&self, id: &TenantId) -> IdDigest {
        digest(&self.lookup, id)
    }

    /// The sealed tenant whose records are at `handle`.
    pub(super) fn sealed_at(&self, handle: Handle) -> Option<&Arc<SealedTenant>> {
        self.sealed.get(&handle)
    }

    /// Where records of `id` may be: one handle, or two while records move.
    pub(super) fn handles(&self, id: &TenantId) -> Vec<Handle> {
        let indices = std::iter::once(&self.index).chain(&self.next_index);
        indices.map(|index| handle(index, id)).collect()
    }

    /// The sealed tenants.
    pub(super) fn sealed(&self) -> impl Iterator<Item = &Arc<SealedTenant>> {
        self.sealed.values()
    }

    /// Seals the keys at `handle`, which are `id`'s, under `key`.
    pub(super) fn seal_tenant(
        &mut self,
        store_id: StoreId,
        (handle, id): (Handle, &TenantId),
        key: &Key,
    ) -> Result<Arc<SealedTenant>, Error> {
        let keys = self.entries.remove(&handle).ok_or(Error::KeyringDamaged)?;
        let mut salt = [0; SALT_LENGTH];
        random(&mut salt)?;
        let mut content = content::terms(&keys);
        let place = sealed_place(store_id, keys.uuid, handle);
        let seal = key.seal(&salt, &place, &mut content);
        let (id, uuid) = (id.clone(), keys.uuid);
        let ciphertext = content.to_vec();
        let sealed = Arc::new(SealedTenant { id, uuid, handle, salt, seal, ciphertext });
        self.names.insert(self.digest(&sealed.id), handle);
        self.sealed.insert(handle, Arc::clone(&sealed));
        Ok(sealed)
    }

    /// Opens the keys of the sealed tenant `id` with `key`.
    pub(super) fn unseal_tenant(
        &mut self,
        store_id: StoreId,
        id: &TenantId,
        key: &Key,
    ) -> Result<Arc<TenantKeys>, Error> {
        let name = self.digest(id);
        let sealed = match self.find_name(name) {
            Some(Found::Sealed(sealed)) if sealed.id == *id => Arc::clone(sealed),
            _ => return Err(Error::NotConfigured),
        };
        let keys = TenantKeys { name, ..sealed.open(store_id, key)? };
        self.sealed.remove(&sealed.handle);
        Ok(self.put(keys))
    }

    /// Seals the keyring as its next generation, and gives it to `write`.
    pub(super) fn save(
        &mut self,
        store_id: StoreId,
        key: &Key,
        write: impl FnOnce(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut salt = [0; SALT_LENGTH];
        random(&mut salt)?;
        self.generation += 1;
        write(&self.encode(store_id, key, salt))
    }

    /// Opens the keyring file of `store_id`, and says what it lacks. Of version 1, other keys come
    /// from `root`.
    pub(super) fn open(
        bytes: &[u8],
        store_id: StoreId,
        key: &Key,
        root: &Key,
    ) -> Result<(Self, Age), Error> {
        let version = match bytes.get(..5).map(|head| head.split_at(4)) {
            Some((magic, [version])) if magic == MAGIC => *version,
            _ => return Err(Error::KeyringDamaged),
        };
        let age = match version {
            VERSION => Age::Current,
            VERSION_3 => Age::Unnamed,
            VERSION_1 | VERSION_2 => Age::Unauthenticated,
            0 => return Err(Error::KeyringDamaged),
            _ => return Err(Error::UnsupportedVersion("keyring")),
        };
        let (generation, content) =
            Self::unseal(bytes, store_id, key).map_err(|Malformed| Error::KeyringDamaged)?;
        let integrity = || Key::random().map(Arc::new);
        let decoded = match version {
            VERSION_1 => content::decode_1(generation, &content, root, &integrity()?),
            VERSION_2 => content::decode_2(generation, &content, &integrity()?),
            VERSION_3 => content::decode_3(generation, &content),
            _ => content::decode(generation, &content),
        };
        let keyring = decoded.map_err(|Malformed| Error::KeyringDamaged)?;
        Ok((keyring, age))
    }

    /// Checks that `bytes` are what a keyring of `store_id` was written as, and answers its
    /// generation. Its keys are not taken out.
    pub(super) fn authenticate(bytes: &[u8], store_id: StoreId, key: &Key) -> Result<u64, Error> {
        let unsealed = Self::unseal(bytes, store_id, key);
        unsealed.map(|(generation, _)| generation).map_err(|Malformed| Error::KeyringDamaged)
    }

    fn encode(&self, store_id: StoreId, key: &Key, salt: [u8; SALT_LENGTH]) -> Vec<u8> {
        let mut head = Writer::default();
        head.raw(MAGIC);
        head.u8(VERSION);
        head.u64(self.generation);
        head.raw(&store_id.0);
        let head = head.finish();

        let mut content = content::encode(self);
        let seal = key.seal(&salt, &place(&head), &mut content);

        let mut writer = Writer::default();
        writer.raw(&head);
        writer.raw(&salt);
        writer.raw(&seal.commitment);
        writer.count(content.len());
        writer.raw(&content);
        writer.raw(&seal.tag);
        writer.finish()
    }

    /// The generation and the content of a keyring file.
    fn unseal(
        bytes: &[u8],
        store_id: StoreId,
        key: &Key,
    ) -> Result<(u64, Zeroizing<Vec<u8>>), Malformed> {
        let mut reader = Reader::new(bytes);
        let head = reader.raw(HEAD_LENGTH)?;
        let salt: [u8; SALT_LENGTH] = reader.array()?;
        let commitment = reader.array()?;
        let length = reader.count(1)?;
        let mut content = Zeroizing::new(reader.raw(length)?.to_vec());
        let seal = Seal { commitment, tag: reader.array()? };
        reader.finish()?;
        key.open(&salt, &place(head), &mut content, &seal).map_err(|_| Malformed)?;

        let mut head = Reader::new(head);
        head.raw(MAGIC.len() + 1)?;
        let generation = head.u64()?;
        if StoreId(head.array()?) == store_id { Ok((generation, content)) } else { Err(Malformed) }
    }
}

/// Decodes `content` as if it had been sealed, in every version.
#[cfg(fuzzing)]
pub(super) fn decode(content: &[u8], root: &Key) {
    let integrity = Arc::new(root.duplicate());
    drop(content::decode(1, content));
    drop(content::decode_3(1, content));
    drop(content::decode_2(1, content, &integrity));
    drop(content::decode_1(1, content, root, &integrity));
}

fn place(head: &[u8]) -> Vec<u8> {
    [b"mcpv.keyring.v1\0", head].concat()
}

fn sealed_place(store_id: StoreId, uuid: Uuid, handle: Handle) -> Vec<u8> {
    [&b"mcpv.tenantseal.v1\0"[..], &store_id.0, &uuid.0, &handle.0].concat()
}

fn digest(lookup: &Key, id: &TenantId) -> IdDigest {
    let folded = id.as_str().to_ascii_lowercase();
    let digest = lookup.mac(&[b"x\0", folded.as_bytes()]);
    *digest.first_chunk().expect("a digest has 32 bytes")
}

fn handle(index: &Key, id: &TenantId) -> Handle {
    let digest = index.mac(&[b"t\0", id.as_str().as_bytes()]);
    Handle(*digest.first_chunk().expect("a digest has 32 bytes"))
}

#[cfg(test)]
mod tests;
