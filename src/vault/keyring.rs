//! The keyring file: every tenant's random key, sealed under a key of the root.
//!
//! Random keys, not derived ones, so that one tenant's can be destroyed alone; a file of its own,
//! written whole, so that destroyed keys do not linger in a log-structured store. It is written
//! before the batch that needs it: a key that no record uses is harmless, a record without its key
//! is lost.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::codec::{Malformed, Reader, Writer};
use super::key::{Key, Seal, random};
use super::{Error, Handle, StoreId, Uuid};

/// Room for three million tenants.
pub(super) const MAX_LENGTH: u64 = 256 << 20;

const MAGIC: &[u8; 4] = b"MVKR";
const VERSION: u8 = 1;
const SALT_LENGTH: usize = 32;
/// Magic, version, generation, store id.
const HEAD_LENGTH: usize = 4 + 1 + 8 + 16;
const TERM_LENGTH: usize = 4 + 1 + Key::LENGTH;
const ENTRY_LENGTH: usize = 16 + 16 + 4;

/// The keys in memory.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    generation: u64,
    entries: BTreeMap<Handle, Arc<TenantKeys>>,
    /// Whether the file lacks an entry.
    unsaved: bool,
}

/// The keys of one tenant.
#[derive(Debug)]
pub(super) struct TenantKeys {
    pub(super) uuid: Uuid,
    pub(super) handle: Handle,
    terms: Vec<Term>,
}

/// A key and the number that its records carry.
#[derive(Debug)]
pub(super) struct Term {
    pub(super) number: u32,
    pub(super) state: TermState,
    pub(super) key: Key,
}

/// What a term's key may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum TermState {
    /// Seals and opens. Each tenant has exactly one.
    Active = 1,
    /// Opens what it sealed.
    Retained = 2,
    /// Nothing.
    Revoked = 3,
}

impl TenantKeys {
    pub(super) fn new(uuid: Uuid, handle: Handle, terms: Vec<Term>) -> Result<Self, Malformed> {
        let active = terms.iter().filter(|term| term.state == TermState::Active).count();
        let ascending = terms.is_sorted_by(|one, next| one.number < next.number);
        if active == 1 && ascending { Ok(Self { uuid, handle, terms }) } else { Err(Malformed) }
    }

    /// The term that seals.
    pub(super) fn active(&self) -> &Term {
        let active = self.terms.iter().find(|term| term.state == TermState::Active);
        active.expect("checked when the value was made")
    }

    /// The term that opens what carries `number`.
    pub(super) fn opening(&self, number: u32) -> Option<&Term> {
        self.terms.iter().find(|term| term.number == number && term.state != TermState::Revoked)
    }
}

impl Keyring {
    /// A keyring with the key of what belongs to no tenant.
    pub(super) fn create() -> Result<Self, Error> {
        let mut keyring = Self::default();
        keyring.insert(Uuid::SYSTEM, Handle::SYSTEM)?;
        Ok(keyring)
    }

    /// The keys of `handle`, when there are any.
    pub(super) fn get(&self, handle: Handle) -> Option<&Arc<TenantKeys>> {
        self.entries.get(&handle)
    }

    /// The keys of `handle`, new ones when there are none. [`Self::is_saved`] tells whether they
    /// are only in memory.
    pub(super) fn get_or_create(&mut self, handle: Handle) -> Result<Arc<TenantKeys>, Error> {
        if let Some(keys) = self.entries.get(&handle) {
            return Ok(Arc::clone(keys));
        }
        let mut uuid = Uuid::SYSTEM;
        random(&mut uuid.0)?;
        self.insert(uuid, handle)
    }

    /// Whether the file has every entry.
    pub(super) fn is_saved(&self) -> bool {
        !self.unsaved
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
        write(&self.encode(store_id, key, salt))?;
        self.unsaved = false;
        Ok(())
    }

    /// Opens the keyring file of `store_id`.
    pub(super) fn open(bytes: &[u8], store_id: StoreId, key: &Key) -> Result<Self, Error> {
        match bytes.get(..5).map(|head| head.split_at(4)) {
            Some((magic, [VERSION])) if magic == MAGIC => {}
            Some((magic, [version])) if magic == MAGIC && *version > VERSION => {
                return Err(Error::UnsupportedVersion("keyring"));
            }
            _ => return Err(Error::KeyringDamaged),
        }
        Self::decode(bytes, store_id, key).map_err(|Malformed| Error::KeyringDamaged)
    }

    fn insert(&mut self, uuid: Uuid, handle: Handle) -> Result<Arc<TenantKeys>, Error> {
        let term = Term { number: 1, state: TermState::Active, key: Key::random()? };
        let keys = Arc::new(TenantKeys { uuid, handle, terms: vec![term] });
        self.entries.insert(handle, Arc::clone(&keys));
        self.unsaved = true;
        Ok(keys)
    }

    fn encode(&self, store_id: StoreId, key: &Key, salt: [u8; SALT_LENGTH]) -> Vec<u8> {
        let mut head = Writer::default();
        head.raw(MAGIC);
        head.u8(VERSION);
        head.u64(self.generation);
        head.raw(&store_id.0);
        let head = head.finish();

        let mut content = self.content();
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

    /// What is sealed, in one allocation: one that grew would leave keys behind.
    fn content(&self) -> Zeroizing<Vec<u8>> {
        let terms: usize = self.entries.values().map(|keys| keys.terms.len()).sum();
        let length = 4 + self.entries.len() * ENTRY_LENGTH + terms * TERM_LENGTH + 4 + 4;
        let mut content = Zeroizing::new(Vec::with_capacity(length));
        let count = |count: usize| {
            u32::try_from(count).expect("the length of the file is limited").to_be_bytes()
        };
        content.extend_from_slice(&count(self.entries.len()));
        for keys in self.entries.values() {
            content.extend_from_slice(&keys.uuid.0);
            content.extend_from_slice(&keys.handle.0);
            content.extend_from_slice(&count(keys.terms.len()));
            for term in &keys.terms {
                content.extend_from_slice(&term.number.to_be_bytes());
                content.push(term.state as u8);
                term.key.append_to(&mut content);
            }
        }
        // Audit terms and tombstones: none in this version.
        content.extend_from_slice(&count(0));
        content.extend_from_slice(&count(0));
        debug_assert_eq!(content.len(), length);
        content
    }

    fn decode(bytes: &[u8], store_id: StoreId, key: &Key) -> Result<Self, Malformed> {
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
        if StoreId(head.array()?) != store_id {
            return Err(Malformed);
        }
        Ok(Self { generation, entries: decode_entries(&content)?, unsaved: false })
    }
}

fn decode_entries(content: &[u8]) -> Result<BTreeMap<Handle, Arc<TenantKeys>>, Malformed> {
    let mut reader = Reader::new(content);
    let mut entries = BTreeMap::new();
    let mut uuids = HashSet::new();
    for _ in 0..reader.count(ENTRY_LENGTH + TERM_LENGTH)? {
        let uuid = Uuid(reader.array()?);
        let handle = Handle(reader.array()?);
        let terms = (0..reader.count(TERM_LENGTH)?)
            .map(|_| {
                let number = reader.u32()?;
                let state = match reader.u8()? {
                    1 => TermState::Active,
                    2 => TermState::Retained,
                    3 => TermState::Revoked,
                    _ => return Err(Malformed),
                };
                let bytes = reader.raw(Key::LENGTH)?;
                let key = Key::fill_with(|key| {
                    key.copy_from_slice(bytes);
                    Ok(())
                })?;
                Ok(Term { number, state, key })
            })
            .collect::<Result<_, _>>()?;
        let ascending = entries.last_key_value().is_none_or(|(last, _)| *last < handle);
        if !ascending || !uuids.insert(uuid.0) {
            return Err(Malformed);
        }
        entries.insert(handle, Arc::new(TenantKeys::new(uuid, handle, terms)?));
    }
    let (audit_terms, tombstones) = (reader.u32()?, reader.u32()?);
    reader.finish()?;
    let has_system = entries
        .get(&Handle::SYSTEM)
        .is_some_and(|keys: &Arc<TenantKeys>| keys.uuid == Uuid::SYSTEM);
    if has_system && (audit_terms, tombstones) == (0, 0) { Ok(entries) } else { Err(Malformed) }
}

fn place(head: &[u8]) -> Vec<u8> {
    [b"mcpv.keyring.v1\0", head].concat()
}

#[cfg(test)]
mod tests {
    use super::super::tests::vector;
    use super::*;

    const VECTOR: &str = include_str!("../../tests/vectors/keyring.txt");

    fn fixed(byte: u8) -> Key {
        Key::fill_with(|key| {
            key.fill(byte);
            Ok::<_, Malformed>(())
        })
        .unwrap()
    }

    fn keyring_key() -> Key {
        let root = Key::fill_with(|key| {
            key.copy_from_slice(&vector(VECTOR, "root_key"));
            Ok::<_, Malformed>(())
        });
        root.unwrap().derive("mcpv.keyring.v1")
    }

    fn store_id() -> StoreId {
        StoreId(vector(VECTOR, "store_id").try_into().unwrap())
    }

    fn golden() -> Keyring {
        let term = |number, state, byte| Term { number, state, key: fixed(byte) };
        let keys = |uuid, handle, terms| {
            let keys = TenantKeys::new(Uuid([uuid; 16]), Handle([handle; 16]), terms).unwrap();
            (keys.handle, Arc::new(keys))
        };
        let entries = [
            keys(0, 0, vec![term(1, TermState::Active, 0x51)]),
            keys(
                0x52,
                0x53,
                vec![term(1, TermState::Retained, 0x54), term(2, TermState::Active, 0x55)],
            ),
        ];
        Keyring { generation: 7, entries: entries.into(), unsaved: false }
    }

    #[test]
    fn the_golden_keyring_is_written_and_opened_byte_for_byte() {
        let bytes = vector(VECTOR, "keyring");
        let salt = vector(VECTOR, "salt").try_into().unwrap();
        assert_eq!(golden().content().as_slice(), vector(VECTOR, "content"));
        assert_eq!(golden().encode(store_id(), &keyring_key(), salt), bytes);
        let keyring = Keyring::open(&bytes, store_id(), &keyring_key()).unwrap();
        assert_eq!(keyring.generation, 7);
        assert_eq!(keyring.content().as_slice(), vector(VECTOR, "content"));
        let keys = keyring.get(Handle([0x53; 16])).unwrap();
        assert_eq!(keys.active().number, 2);
        assert_eq!(keys.opening(1).unwrap().key.mac(&[]), fixed(0x54).mac(&[]));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_a_keyring_is_refused() {
        let bytes = vector(VECTOR, "keyring");
        let key = keyring_key();
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Keyring::open(&flipped, store_id(), &key).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Keyring::open(&bytes[..length], store_id(), &key).is_err(), "{length} bytes");
        }
        assert!(Keyring::open(&[&bytes[..], &[0]].concat(), store_id(), &key).is_err());
    }

    #[test]
    fn a_keyring_of_another_vault_or_under_another_key_does_not_open() {
        let bytes = vector(VECTOR, "keyring");
        let foreign = Keyring::open(&bytes, StoreId([0; 16]), &keyring_key());
        assert!(matches!(foreign, Err(Error::KeyringDamaged)));
        assert!(matches!(Keyring::open(&bytes, store_id(), &fixed(1)), Err(Error::KeyringDamaged)));
    }

    #[test]
    fn a_revoked_term_opens_nothing_and_each_tenant_has_one_active_term() {
        let term = |number, state| Term { number, state, key: fixed(1) };
        let keys = |terms| TenantKeys::new(Uuid([1; 16]), Handle([1; 16]), terms);
        let revoked = vec![term(1, TermState::Revoked), term(2, TermState::Active)];
        assert!(keys(revoked).unwrap().opening(1).is_none());
        assert!(keys(vec![]).is_err());
        assert!(keys(vec![term(1, TermState::Retained)]).is_err());
        assert!(keys(vec![term(1, TermState::Active), term(2, TermState::Active)]).is_err());
        assert!(keys(vec![term(2, TermState::Retained), term(1, TermState::Active)]).is_err());
    }
}
