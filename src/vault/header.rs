//! The header file: what opens the root key.
//!
//! ```text
//! passphrase --Argon2id--> KEK --opens the slot--> root key --> header MAC
//! ```
//!
//! The commitment of a slot is the check of the passphrase; there is no other check value. The MAC
//! covers every byte, so a slot that was added or a cost that was lowered is noticed.

use jiff::Timestamp;
use secrecy::SecretString;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::codec::{Malformed, Reader, Writer};
use super::kdf::{self, KdfCost, SALT_LENGTH};
use super::key::{Key, Mismatch, Seal, random};
use super::{Error, StoreId};

/// More than a header of this version can have.
pub(super) const MAX_LENGTH: u64 = 4 << 10;

const MAGIC: &[u8; 4] = b"MVHD";
const VERSION: u8 = 1;
const MAX_SLOTS: u8 = 8;
const SLOT_LENGTH: u16 = 120;
const PASSPHRASE_SLOT: u8 = 1;
const ARGON2ID_V13: u8 = 1;
const MAC_LENGTH: usize = 32;

/// A parsed header, not yet authenticated.
pub(super) struct Header {
    pub(super) store_id: StoreId,
    generation: u64,
    slots: Vec<Slot>,
}

/// The root key, wrapped under the key of one passphrase.
struct Slot {
    parameters: Parameters,
    seal: Seal,
    wrapped: [u8; Key::LENGTH],
}

/// What a slot says in the clear; bound to the wrapped key.
struct Parameters {
    id: u16,
    cost: KdfCost,
    salt: [u8; SALT_LENGTH],
    /// Unix seconds.
    created: u64,
}

/// The bytes of a new header with one slot, which `passphrase` opens.
pub(super) fn create(
    store_id: StoreId,
    root: &Key,
    passphrase: &SecretString,
    cost: KdfCost,
    now: Timestamp,
) -> Result<Vec<u8>, Error> {
    let mut salt = [0; SALT_LENGTH];
    random(&mut salt)?;
    let kek = kdf::derive(passphrase, &salt, cost)?;
    let created = u64::try_from(now.as_second()).unwrap_or(0);
    let slot = Slot::wrap(store_id, root, &kek, Parameters { id: 0, cost, salt, created });
    Ok(Header { store_id, generation: 1, slots: vec![slot] }.encode(root))
}

/// Opens the header `bytes` with `passphrase`: one key derivation per slot.
pub(super) fn open(bytes: &[u8], passphrase: &SecretString) -> Result<(StoreId, Key), Error> {
    open_with(bytes, |slot| kdf::derive(passphrase, &slot.parameters.salt, slot.parameters.cost))
}

fn open_with(
    bytes: &[u8],
    kek: impl Fn(&Slot) -> Result<Key, Error>,
) -> Result<(StoreId, Key), Error> {
    let header = Header::parse(bytes)?;
    for slot in &header.slots {
        match slot.unwrap(header.store_id, &kek(slot)?) {
            Ok(root) => {
                let (authenticated, mac) =
                    bytes.split_last_chunk::<MAC_LENGTH>().ok_or(Error::HeaderDamaged)?;
                if !bool::from(header_mac(&root, authenticated).ct_eq(mac)) {
                    return Err(Error::HeaderDamaged);
                }
                return Ok((header.store_id, root));
            }
            Err(Mismatch::Commitment) => {}
            Err(Mismatch::Message) => return Err(Error::HeaderDamaged),
        }
    }
    Err(Error::WrongPassphrase)
}

fn header_mac(root: &Key, authenticated: &[u8]) -> [u8; MAC_LENGTH] {
    root.derive("mcpv.header.v1").mac(&[authenticated])
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes);
        let mut head = || Ok((reader.array::<4>()?, reader.u8()?));
        match head().map_err(|Malformed| Error::HeaderDamaged)? {
            (magic, _) if magic != *MAGIC => return Err(Error::HeaderDamaged),
            (_, VERSION) => {}
            (_, version) if version > VERSION => return Err(Error::UnsupportedVersion("header")),
            _ => return Err(Error::HeaderDamaged),
        }
        Self::parse_body(reader).map_err(|Malformed| Error::HeaderDamaged)
    }

    fn parse_body(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.u8()?;
        if !(1..=MAX_SLOTS).contains(&count) {
            return Err(Malformed);
        }
        let generation = reader.u64()?;
        let store_id = StoreId(reader.array()?);
        let slots = (0..count).map(|_| Slot::read(&mut reader)).collect::<Result<_, _>>()?;
        reader.raw(MAC_LENGTH)?;
        reader.finish()?;
        Ok(Self { store_id, generation, slots })
    }

    fn encode(&self, root: &Key) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(MAGIC);
        writer.u8(VERSION);
        writer.u8(u8::try_from(self.slots.len()).expect("at most MAX_SLOTS"));
        writer.u64(self.generation);
        writer.raw(&self.store_id.0);
        for slot in &self.slots {
            writer.u16(SLOT_LENGTH);
            writer.raw(&slot.parameters.encode());
            writer.raw(&slot.seal.commitment);
            writer.raw(&slot.wrapped);
            writer.raw(&slot.seal.tag);
        }
        let mut bytes = writer.finish();
        let mac = header_mac(root, &bytes);
        bytes.extend_from_slice(&mac);
        bytes
    }
}

impl Slot {
    fn wrap(store_id: StoreId, root: &Key, kek: &Key, parameters: Parameters) -> Self {
        let mut wrapped = Zeroizing::new(Vec::with_capacity(Key::LENGTH));
        root.append_to(&mut wrapped);
        let seal = kek.seal(&parameters.salt, &parameters.place(store_id), &mut wrapped);
        let wrapped = wrapped.as_slice().try_into().expect("a key was appended");
        Self { parameters, seal, wrapped }
    }

    fn unwrap(&self, store_id: StoreId, kek: &Key) -> Result<Key, Mismatch> {
        Key::fill_with(|key| {
            key.copy_from_slice(&self.wrapped);
            kek.open(&self.parameters.salt, &self.parameters.place(store_id), key, &self.seal)
        })
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.u16()? != SLOT_LENGTH {
            return Err(Malformed);
        }
        let parameters = Parameters::read(reader)?;
        let (commitment, wrapped) = (reader.array()?, reader.array()?);
        Ok(Self { parameters, seal: Seal { commitment, tag: reader.array()? }, wrapped })
    }
}

impl Parameters {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.u8()? != PASSPHRASE_SLOT || reader.u8()? != ARGON2ID_V13 {
            return Err(Malformed);
        }
        let id = reader.u16()?;
        let cost =
            KdfCost { memory_kib: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
        let parameters = Self { id, cost, salt: reader.array()?, created: reader.u64()? };
        if cost.is_bearable() { Ok(parameters) } else { Err(Malformed) }
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(PASSPHRASE_SLOT);
        writer.u8(ARGON2ID_V13);
        writer.u16(self.id);
        writer.u32(self.cost.memory_kib);
        writer.u32(self.cost.passes);
        writer.u32(self.cost.lanes);
        writer.raw(&self.salt);
        writer.u64(self.created);
        writer.finish()
    }

    fn place(&self, store_id: StoreId) -> Vec<u8> {
        [&b"mcpv.slot.v1\0"[..], &store_id.0, &self.encode()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::vector;
    use super::*;

    const VECTOR: &str = include_str!("../../tests/vectors/header.txt");

    fn vector_key(name: &str) -> Key {
        Key::fill_with(|key| {
            key.copy_from_slice(&vector(VECTOR, name));
            Ok::<_, Error>(())
        })
        .unwrap()
    }

    #[test]
    fn the_golden_header_is_written_and_opened_byte_for_byte() {
        let bytes = vector(VECTOR, "header");
        let passphrase = String::from_utf8(vector(VECTOR, "passphrase")).unwrap().into();
        let (store_id, root) = open(&bytes, &passphrase).unwrap();
        assert_eq!(store_id.0[..], vector(VECTOR, "store_id"));
        assert_eq!(root.mac(&[]), vector_key("root_key").mac(&[]));

        let salt = vector(VECTOR, "salt").try_into().unwrap();
        let cost = KdfCost::insecure_for_tests();
        let parameters = Parameters { id: 0, cost, salt, created: 1_795_305_600 };
        let slot = Slot::wrap(store_id, &root, &vector_key("kek"), parameters);
        assert_eq!(Header { store_id, generation: 1, slots: vec![slot] }.encode(&root), bytes);

        let wrong = SecretString::from("correct horse battery stable");
        assert!(matches!(open(&bytes, &wrong), Err(Error::WrongPassphrase)));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_a_header_is_refused() {
        let bytes = vector(VECTOR, "header");
        let open = |bytes: &[u8]| open_with(bytes, |_| Ok(vector_key("kek")));
        assert!(open(&bytes).is_ok());
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(open(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(open(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_damaged_header_is_told_from_a_wrong_passphrase_once_the_slot_opens() {
        let check = |position: usize, expected: fn(&Error) -> bool| {
            let mut bytes = vector(VECTOR, "header");
            bytes[position] ^= 1;
            let error = open_with(&bytes, |_| Ok(vector_key("kek"))).err().unwrap();
            assert!(expected(&error), "byte {position}: {error:?}");
        };
        check(13, |error| matches!(error, Error::HeaderDamaged)); // generation, under the MAC only
        check(120, |error| matches!(error, Error::HeaderDamaged)); // wrapped key
        check(90, |error| matches!(error, Error::WrongPassphrase)); // commitment
        check(4, |error| matches!(error, Error::HeaderDamaged)); // version 0
    }

    #[test]
    fn a_header_of_a_later_version_says_so() {
        let mut bytes = vector(VECTOR, "header");
        bytes[4] = 2;
        assert!(matches!(Header::parse(&bytes), Err(Error::UnsupportedVersion("header"))));
    }

    #[test]
    fn a_cost_beyond_the_ceiling_is_refused_before_it_is_spent() {
        let mut bytes = vector(VECTOR, "header");
        bytes[36..40].copy_from_slice(&u32::MAX.to_be_bytes());
        let never = |_: &Slot| -> Result<Key, Error> { panic!("the cost was spent") };
        assert!(matches!(open_with(&bytes, never), Err(Error::HeaderDamaged)));
    }
}
