//! What is sealed in a keyring: every key, in one allocation each way. One that grew would leave
//! keys behind.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{
    BackupSlot, DIGEST_LENGTH, IdDigest, Keyring, SALT_LENGTH, SealedTenant, TenantKeys, Term,
    TermState, Tombstone,
};
use crate::tenant::{IdRule, TenantId};
use crate::vault::codec::{Malformed, Reader};
use crate::vault::header;
use crate::vault::key::{Key, Seal};
use crate::vault::{Handle, Uuid};

const TERM_LENGTH: usize = 4 + 1 + Key::LENGTH;
/// Uuid, handle, number of terms.
const ENTRY_LENGTH_1: usize = 16 + 16 + 4;
/// And whether there is another handle.
const ENTRY_LENGTH_3: usize = ENTRY_LENGTH_1 + 1;
/// And the digest of the id.
const ENTRY_LENGTH: usize = ENTRY_LENGTH_3 + DIGEST_LENGTH;
/// Uuid, handle, length of the id, salt, seal, length of the ciphertext.
const SEALED_LENGTH: usize = 16 + 16 + 4 + SALT_LENGTH + Seal::LENGTH + 4;
const TOMBSTONE_LENGTH: usize = DIGEST_LENGTH + 16 + 4 + 8;

/// A buffer of exactly the length that it is going to have.
struct Content(Zeroizing<Vec<u8>>);

impl Content {
    fn with_length(length: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(length)))
    }

    fn raw(&mut self, bytes: &[u8]) {
        debug_assert!(self.0.len() + bytes.len() <= self.0.capacity());
        self.0.extend_from_slice(bytes);
    }

    fn count(&mut self, count: usize) {
        let count = u32::try_from(count).expect("the length of the file is limited");
        self.raw(&count.to_be_bytes());
    }

    fn key(&mut self, key: &Key) {
        debug_assert!(self.0.len() + Key::LENGTH <= self.0.capacity());
        key.append_to(&mut self.0);
    }

    fn terms(&mut self, keys: &TenantKeys) {
        self.count(keys.terms.len());
        for term in &keys.terms {
            self.raw(&term.number.to_be_bytes());
            self.raw(&[term.state as u8]);
            self.key(&term.key);
        }
    }

    fn finish(self) -> Zeroizing<Vec<u8>> {
        debug_assert_eq!(self.0.len(), self.0.capacity());
        self.0
    }
}

pub(super) fn encode(keyring: &Keyring) -> Zeroizing<Vec<u8>> {
    let Keyring {
        generation: _,
        index,
        next_index,
        lookup,
        fingerprint,
        signing,
        integrity,
        entries,
        sealed,
        names: _,
        tombstones,
        backup,
    } = keyring;
    let next_handles = entries.values().filter(|keys| keys.next_handle.is_some()).count();
    let terms: usize = entries.values().map(|keys| keys.terms.len()).sum();
    let sealed_bytes: usize = sealed
        .values()
        .map(|sealed| SEALED_LENGTH + sealed.id.as_str().len() + sealed.ciphertext.len())
        .sum();
    let mut content = Content::with_length(
        5 * Key::LENGTH
            + (1 + next_index.as_ref().map_or(0, |_| Key::LENGTH))
            + (4 + entries.len() * ENTRY_LENGTH + next_handles * Handle::LENGTH)
            + terms * TERM_LENGTH
            + (4 + sealed_bytes)
            + (4 + tombstones.len() * TOMBSTONE_LENGTH)
            + (1 + backup.as_ref().map_or(0, |slot| 4 + slot.header.len() + Key::LENGTH)),
    );
    for key in [index, lookup, fingerprint, signing, integrity] {
        content.key(key);
    }
    content.raw(&[next_index.is_some().into()]);
    if let Some(next) = next_index {
        content.key(next);
    }
    content.count(entries.len());
    for keys in entries.values() {
        content.raw(&keys.uuid.0);
        content.raw(&keys.handle.0);
        content.raw(&keys.name);
        content.raw(&[keys.next_handle.is_some().into()]);
        if let Some(next) = keys.next_handle {
            content.raw(&next.0);
        }
        content.terms(keys);
    }
    content.count(sealed.len());
    for SealedTenant { id, uuid, handle, salt, seal, ciphertext } in
        sealed.values().map(Arc::as_ref)
    {
        content.raw(&uuid.0);
        content.raw(&handle.0);
        content.count(id.as_str().len());
        content.raw(id.as_str().as_bytes());
        content.raw(salt);
        content.raw(&seal.commitment);
        content.count(ciphertext.len());
        content.raw(ciphertext);
        content.raw(&seal.tag);
    }
    content.count(tombstones.len());
    for (digest, Tombstone { handle, last_term, removed }) in tombstones {
        content.raw(digest);
        content.raw(&handle.0);
        content.raw(&last_term.to_be_bytes());
        content.raw(&removed.to_be_bytes());
    }
    content.raw(&[backup.is_some().into()]);
    if let Some(BackupSlot { header, key }) = backup.as_deref() {
        content.count(header.len());
        content.raw(header);
        content.key(key);
    }
    content.finish()
}

/// The terms of one tenant, to be sealed by themselves.
pub(super) fn terms(keys: &TenantKeys) -> Zeroizing<Vec<u8>> {
    let mut content = Content::with_length(4 + keys.terms.len() * TERM_LENGTH);
    content.terms(keys);
    content.finish()
}

pub(super) fn open_terms(
    uuid: Uuid,
    handle: Handle,
    bytes: &[u8],
) -> Result<TenantKeys, Malformed> {
    let mut reader = Reader::new(bytes);
    let terms = read_terms(&mut reader)?;
    reader.finish()?;
    TenantKeys::new(uuid, handle, terms)
}

pub(super) fn decode(generation: u64, content: &[u8]) -> Result<Keyring, Malformed> {
    let name = |reader: &mut Reader<'_>| reader.array();
    let keyring = decode_from_3(generation, content, ENTRY_LENGTH, name)?;
    let is_unnamed = |keys: &TenantKeys| keys.name == TenantKeys::NO_NAME;
    let is_sound =
        keyring.entries().all(|keys| is_unnamed(keys) == (keys.handle == Handle::SYSTEM));
    if is_sound { Ok(keyring) } else { Err(Malformed) }
}

/// Version 3, without the digests of ids.
pub(super) fn decode_3(generation: u64, content: &[u8]) -> Result<Keyring, Malformed> {
    decode_from_3(generation, content, ENTRY_LENGTH_3, |_| Ok(TenantKeys::NO_NAME))
}

fn decode_from_3(
    generation: u64,
    content: &[u8],
    entry_length: usize,
    name: impl Fn(&mut Reader<'_>) -> Result<IdDigest, Malformed>,
) -> Result<Keyring, Malformed> {
    let mut reader = Reader::new(content);
    let integrity = |reader: &mut Reader<'_>| read_key(reader).map(Arc::new);
    let mut keyring = read_keys(generation, &mut reader, integrity, entry_length, name)?;
    keyring.backup = reader.optional(read_backup)?.map(Arc::new);
    reader.finish()?;
    Ok(keyring)
}

/// Version 2, of a store that nothing authenticates yet: `integrity` is to.
pub(super) fn decode_2(
    generation: u64,
    content: &[u8],
    integrity: &Arc<Key>,
) -> Result<Keyring, Malformed> {
    let mut reader = Reader::new(content);
    let integrity = |_: &mut Reader<'_>| Ok(Arc::clone(integrity));
    let unnamed = |_: &mut Reader<'_>| Ok(TenantKeys::NO_NAME);
    let keyring = read_keys(generation, &mut reader, integrity, ENTRY_LENGTH_3, unnamed)?;
    reader.finish()?;
    Ok(keyring)
}

/// What all versions from 2 on have in common.
fn read_keys(
    generation: u64,
    reader: &mut Reader<'_>,
    integrity: impl FnOnce(&mut Reader<'_>) -> Result<Arc<Key>, Malformed>,
    entry_length: usize,
    name: impl Fn(&mut Reader<'_>) -> Result<IdDigest, Malformed>,
) -> Result<Keyring, Malformed> {
    let mut key = || read_key(reader).map(Arc::new);
    let (index, lookup, fingerprint, signing) = (key()?, key()?, key()?, key()?);
    let integrity = integrity(reader)?;
    let next_index = reader.optional(|reader| read_key(reader).map(Arc::new))?;
    let entries = read_entries(reader, entry_length, |reader| {
        let name = name(reader)?;
        Ok((name, reader.optional(|reader| Ok(Handle(reader.array()?)))?))
    })?;
    let sealed = read_sealed(reader)?;
    let names = names(&entries, &sealed, &lookup)?;
    let tombstones = read_tombstones(reader)?;
    let moving = entries.values().any(|keys| keys.next_handle.is_some());
    let doubled = sealed.keys().any(|handle| entries.contains_key(handle));
    if doubled || (moving && next_index.is_none()) {
        return Err(Malformed);
    }
    Ok(Keyring {
        generation,
        index,
        next_index,
        lookup,
        fingerprint,
        signing,
        integrity,
        entries,
        sealed,
        names,
        tombstones,
        backup: None,
    })
}

/// Where whose keys are, as far as the entries say.
fn names(
    entries: &BTreeMap<Handle, Arc<TenantKeys>>,
    sealed: &BTreeMap<Handle, Arc<SealedTenant>>,
    lookup: &Key,
) -> Result<BTreeMap<IdDigest, Handle>, Malformed> {
    let open = entries.values().map(|keys| (keys.name, keys.handle));
    let open = open.filter(|(name, _)| *name != TenantKeys::NO_NAME);
    let sealed = sealed.values().map(|sealed| (super::digest(lookup, &sealed.id), sealed.handle));
    let mut names = BTreeMap::new();
    for (name, handle) in open.chain(sealed) {
        if names.insert(name, handle).is_some() {
            return Err(Malformed);
        }
    }
    Ok(names)
}

/// Version 1, whose other keys were derived, and which signed nothing.
pub(super) fn decode_1(
    generation: u64,
    content: &[u8],
    root: &Key,
    integrity: &Arc<Key>,
) -> Result<Keyring, Malformed> {
    let mut reader = Reader::new(content);
    let entries = read_entries(&mut reader, ENTRY_LENGTH_1, |_| Ok((TenantKeys::NO_NAME, None)))?;
    let (audit_terms, tombstones) = (reader.u32()?, reader.u32()?);
    reader.finish()?;
    if (audit_terms, tombstones) != (0, 0) {
        return Err(Malformed);
    }
    Ok(Keyring {
        generation,
        index: Arc::new(root.derive("mcpv.index.v1")),
        next_index: None,
        lookup: Arc::new(root.derive("mcpv.index.v1")),
        fingerprint: Arc::new(root.derive("mcpv.fingerprint.v1")),
        signing: Arc::new(root.derive("mcpv.signing.v1")),
        integrity: Arc::clone(integrity),
        entries,
        sealed: BTreeMap::new(),
        names: BTreeMap::new(),
        tombstones: BTreeMap::new(),
        backup: None,
    })
}

fn read_entries(
    reader: &mut Reader<'_>,
    entry_length: usize,
    rest: impl Fn(&mut Reader<'_>) -> Result<(IdDigest, Option<Handle>), Malformed>,
) -> Result<BTreeMap<Handle, Arc<TenantKeys>>, Malformed> {
    let mut entries = BTreeMap::new();
    let mut uuids = HashSet::new();
    for _ in 0..reader.count(entry_length + TERM_LENGTH)? {
        let (uuid, handle) = (Uuid(reader.array()?), Handle(reader.array()?));
        let (name, next_handle) = rest(reader)?;
        let keys = TenantKeys::new(uuid, handle, read_terms(reader)?)?;
        let ascending = entries.last_key_value().is_none_or(|(last, _)| *last < handle);
        if !ascending || !uuids.insert(uuid.0) {
            return Err(Malformed);
        }
        entries.insert(handle, Arc::new(TenantKeys { next_handle, name, ..keys }));
    }
    let system = entries.get(&Handle::SYSTEM);
    let has_system = system.is_some_and(|keys: &Arc<TenantKeys>| keys.uuid == Uuid::SYSTEM);
    if has_system { Ok(entries) } else { Err(Malformed) }
}

fn read_terms(reader: &mut Reader<'_>) -> Result<Vec<Term>, Malformed> {
    (0..reader.count(TERM_LENGTH)?)
        .map(|_| {
            let number = reader.u32()?;
            let state = match reader.u8()? {
                1 => TermState::Active,
                2 => TermState::Retained,
                3 => TermState::Revoked,
                _ => return Err(Malformed),
            };
            Ok(Term { number, state, key: Arc::new(read_key(reader)?) })
        })
        .collect()
}

fn read_key(reader: &mut Reader<'_>) -> Result<Key, Malformed> {
    let bytes = reader.raw(Key::LENGTH)?;
    Key::fill_with(|key| {
        key.copy_from_slice(bytes);
        Ok(())
    })
}

fn read_sealed(reader: &mut Reader<'_>) -> Result<BTreeMap<Handle, Arc<SealedTenant>>, Malformed> {
    let mut all = BTreeMap::new();
    for _ in 0..reader.count(SEALED_LENGTH)? {
        let (uuid, handle) = (Uuid(reader.array()?), Handle(reader.array()?));
        let id = TenantId::parse(reader.text()?, IdRule::AllowUnderscore).map_err(|_| Malformed)?;
        let (salt, commitment) = (reader.array()?, reader.array()?);
        let length = reader.count(1)?;
        let ciphertext = reader.raw(length)?.to_vec();
        let seal = Seal { commitment, tag: reader.array()? };
        if all.last_key_value().is_some_and(|(last, _)| *last >= handle) {
            return Err(Malformed);
        }
        all.insert(handle, Arc::new(SealedTenant { id, uuid, handle, salt, seal, ciphertext }));
    }
    Ok(all)
}

fn read_tombstones(reader: &mut Reader<'_>) -> Result<BTreeMap<IdDigest, Tombstone>, Malformed> {
    let mut tombstones = BTreeMap::new();
    for _ in 0..reader.count(TOMBSTONE_LENGTH)? {
        let digest = reader.array()?;
        let handle = Handle(reader.array()?);
        let tombstone = Tombstone { handle, last_term: reader.u32()?, removed: reader.u64()? };
        if tombstones.last_key_value().is_some_and(|(last, _)| *last >= digest) {
            return Err(Malformed);
        }
        tombstones.insert(digest, tombstone);
    }
    Ok(tombstones)
}

fn read_backup(reader: &mut Reader<'_>) -> Result<BackupSlot, Malformed> {
    let length = reader.count(1)?;
    if length as u64 > header::MAX_LENGTH {
        return Err(Malformed);
    }
    let header = reader.raw(length)?.to_vec();
    Ok(BackupSlot { header, key: read_key(reader)? })
}
