//! The envelope: one record, sealed to one place.
//!
//! ```text
//! "MV" version suite | term | length | salt[32] | commitment[32] | ciphertext | tag[16]
//! ```
//!
//! An envelope opens only in the store, for the tenant, in the field, at the version and under the
//! store key that it was sealed for. Padding hides a value's length up to the next 256 bytes.

use std::fmt::Write as _;
use std::ops::Deref;
#[cfg(test)]
use std::sync::Arc;

use zeroize::zeroize_stack;

use super::codec::{Malformed, Reader, Writer};
use super::key::{Seal, random};
use super::keyring::TenantKeys;
use super::{Error, StoreId};
use crate::memory::LockedBytes;

/// Longest payload, so that an envelope fits into the store's values.
pub(super) const MAX_PAYLOAD: usize = 4_000;

const MAGIC: &[u8; 2] = b"MV";
const VERSION: u8 = 1;
/// HKDF-SHA256 and ChaCha20-Poly1305, committed.
const SUITE: u8 = 1;
pub(super) const HEAD_LENGTH: usize = 12;
const SALT_LENGTH: usize = 32;
/// Associated data before the store key: one allocation.
const ASSOCIATED_LENGTH: usize = HEAD_LENGTH + 12 + 16 + 1 + 16 + 2 + 8 + 2;
const PADDING: usize = 256;
/// The payload's true length, in front of it.
const PREFIX: usize = 4;

/// What a record is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum RecordKind {
    /// A tenant's table of contents.
    Directory = 1,
    /// A piece of a tenant's configuration.
    Config = 2,
    /// One secret.
    Credential = 3,
    /// A client token's owner and rights.
    Token = 4,
    /// A piece of a tenant's root certificates.
    Certificate = 5,
    /// A backup that was made.
    Backup = 6,
    /// What a tenant has used of its quotas.
    Counts = 7,
    /// The tokens of operators, all of them.
    Operators = 8,
}

/// Where a record lives; the associated data of its envelope, beside the tenant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) store_id: StoreId,
    pub(super) kind: RecordKind,
    pub(super) field: u16,
    pub(super) version: u64,
    /// The key in the store.
    pub(super) key: &'a [u8],
}

/// The payload of an envelope, decrypted where it stays: in locked memory, wiped when dropped.
pub(super) struct Opened {
    /// Length prefix, payload, padding.
    padded: LockedBytes,
    length: usize,
}

impl Deref for Opened {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.padded[PREFIX..PREFIX + self.length]
    }
}

impl RecordKind {
    fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Config => "config",
            Self::Credential => "credential",
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::Backup => "backup",
            Self::Counts => "counts",
            Self::Operators => "operators",
        }
    }
}

impl Place<'_> {
    /// The error of a record that is not what and where it should be.
    pub(super) fn damaged(&self) -> Error {
        let mut key = String::with_capacity(2 * self.key.len());
        for byte in self.key {
            write!(key, "{byte:02x}").expect("writing to a string does not fail");
        }
        Error::RecordDamaged { kind: self.kind.name(), key }
    }

    /// Injective: every part has a fixed width, but the last, whose length comes first.
    pub(super) fn associated_data(&self, head: &[u8], keys: &TenantKeys) -> Vec<u8> {
        let mut writer = Writer::with_capacity(ASSOCIATED_LENGTH + self.key.len());
        writer.raw(head);
        writer.raw(b"mcpv.rec.v1\0");
        writer.raw(&self.store_id.0);
        writer.u8(self.kind as u8);
        writer.raw(&keys.uuid.0);
        writer.u16(self.field);
        writer.u64(self.version);
        writer.u16(u16::try_from(self.key.len()).expect("the store's keys have at most 64 bytes"));
        writer.raw(self.key);
        writer.finish()
    }
}

/// Seals `payload`, of at most [`MAX_PAYLOAD`] bytes, under the active term of `keys`.
pub(super) fn seal(keys: &TenantKeys, place: &Place<'_>, payload: &[u8]) -> Result<Vec<u8>, Error> {
    let mut salt = [0; SALT_LENGTH];
    random(&mut salt)?;
    Ok(seal_with_salt(keys, place, payload, salt))
}

fn seal_with_salt(
    keys: &TenantKeys,
    place: &Place<'_>,
    payload: &[u8],
    salt: [u8; SALT_LENGTH],
) -> Vec<u8> {
    debug_assert!(payload.len() <= MAX_PAYLOAD);
    let term = keys.active();
    let padded_length = (PREFIX + payload.len()).next_multiple_of(PADDING);
    let mut padded = LockedBytes::zeroed(padded_length);
    padded[..PREFIX].copy_from_slice(&length_bytes(payload.len()));
    padded[PREFIX..PREFIX + payload.len()].copy_from_slice(payload);

    let mut writer = Writer::with_capacity(HEAD_LENGTH);
    writer.raw(MAGIC);
    writer.u8(VERSION);
    writer.u8(SUITE);
    writer.u32(term.number);
    writer.count(padded_length);
    let head = writer.finish();
    let associated_data = place.associated_data(&head, keys);
    let seal = term.key.seal(&salt, &associated_data, &mut padded);
    [&head[..], &salt, &seal.commitment, &padded, &seal.tag].concat()
}

/// The term that `envelope` says it is sealed under; nothing when it is none.
pub(super) fn term(envelope: &[u8]) -> Option<u32> {
    let (term, _) = decode_head(envelope.get(..HEAD_LENGTH)?).ok()?;
    Some(term)
}

/// Opens `envelope`, which was found at `place`.
pub(super) fn open(keys: &TenantKeys, place: &Place<'_>, envelope: &[u8]) -> Result<Opened, Error> {
    let opened = decode(keys, place, envelope).map_err(|Malformed| place.damaged());
    // The cipher's block buffers: the end of the payload stays there.
    zeroize_stack::<STACK>();
    opened
}

/// Bytes of stack that are wiped after an opening: more than it uses.
const STACK: usize = 8 << 10;

#[inline(never)]
fn decode(keys: &TenantKeys, place: &Place<'_>, envelope: &[u8]) -> Result<Opened, Malformed> {
    let mut reader = Reader::new(envelope);
    let head = reader.raw(HEAD_LENGTH)?;
    let salt: [u8; SALT_LENGTH] = reader.array()?;
    let commitment = reader.array()?;
    let (term, length) = decode_head(head)?;
    let mut padded = LockedBytes::copy_of(reader.raw(length)?);
    let seal = Seal { commitment, tag: reader.array()? };
    reader.finish()?;

    let term = keys.opening(term).ok_or(Malformed)?;
    let associated_data = place.associated_data(head, keys);
    term.key.open(&salt, &associated_data, &mut padded, &seal).map_err(|_| Malformed)?;

    let mut reader = Reader::new(&padded);
    let length = reader.count(1)?;
    reader.raw(length)?;
    let least = (PREFIX + length).next_multiple_of(PADDING) == padded.len();
    // All of it, whatever is found: without an early end the loop is vectorised.
    let padding = padded[PREFIX + length..].iter().fold(0, |found, byte| found | byte);
    if least && padding == 0 { Ok(Opened { padded, length }) } else { Err(Malformed) }
}

/// Term and ciphertext length.
fn decode_head(head: &[u8]) -> Result<(u32, usize), Malformed> {
    let mut reader = Reader::new(head);
    if reader.raw(MAGIC.len())? != MAGIC || reader.u8()? != VERSION || reader.u8()? != SUITE {
        return Err(Malformed);
    }
    let term = reader.u32()?;
    let length = usize::try_from(reader.u32()?).map_err(|_| Malformed)?;
    Ok((term, length))
}

fn length_bytes(length: usize) -> [u8; PREFIX] {
    u32::try_from(length).expect("at most MAX_PAYLOAD").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, Nonce};

    use super::super::key::Key;
    use super::super::keyring::{Term, TermState};
    use super::super::tests::vector;
    use super::super::{Handle, Uuid};
    use super::*;

    const VECTOR: &str = include_str!("../../tests/vectors/envelope.txt");
    const STORE: StoreId = StoreId([
        0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e,
        0x1f,
    ]);

    /// The keys of the golden envelope, with another tenant's uuid if need be.
    fn keys(uuid: u8) -> TenantKeys {
        let term = |number, state, byte| {
            let key = Key::fill_with(|key| {
                key.fill(byte);
                Ok::<_, Malformed>(())
            });
            Term { number, state, key: Arc::new(key.unwrap()) }
        };
        let terms = vec![term(1, TermState::Retained, 0x54), term(2, TermState::Active, 0x55)];
        TenantKeys::new(Uuid([uuid; 16]), Handle([0x53; 16]), terms).unwrap()
    }

    fn place(key: &[u8]) -> Place<'_> {
        Place { store_id: STORE, kind: RecordKind::Credential, field: 2, version: 3, key }
    }

    #[test]
    fn the_golden_envelope_is_written_and_opened_byte_for_byte() {
        let (key, payload) = (vector(VECTOR, "store_key"), vector(VECTOR, "payload"));
        let salt = vector(VECTOR, "salt").try_into().unwrap();
        let envelope = vector(VECTOR, "envelope");
        assert_eq!(seal_with_salt(&keys(0x52), &place(&key), &payload, salt), envelope);
        assert_eq!(*open(&keys(0x52), &place(&key), &envelope).unwrap(), payload);
        assert_eq!(envelope.len(), 92 + 256);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_an_envelope_is_refused() {
        let (key, envelope) = (vector(VECTOR, "store_key"), vector(VECTOR, "envelope"));
        let (keys, place) = (keys(0x52), place(&key));
        for bit in 0..8 * envelope.len() {
            let mut flipped = envelope.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&keys, &place, &flipped).is_err(), "bit {bit}");
        }
        for length in 0..envelope.len() {
            assert!(open(&keys, &place, &envelope[..length]).is_err(), "{length} bytes");
        }
        assert!(open(&keys, &place, &[&envelope[..], &[0]].concat()).is_err());
    }

    #[test]
    fn an_envelope_moved_to_another_place_does_not_open() {
        let (key, envelope) = (vector(VECTOR, "store_key"), vector(VECTOR, "envelope"));
        let here = place(&key);
        assert!(open(&keys(0x52), &here, &envelope).is_ok());
        assert!(open(&keys(0x99), &here, &envelope).is_err(), "tenant");
        for (what, place) in [
            ("store", Place { store_id: StoreId([0; 16]), ..here }),
            ("kind", Place { kind: RecordKind::Token, ..here }),
            ("field", Place { field: 3, ..here }),
            ("version", Place { version: 2, ..here }),
            ("store key", Place { key: &key[1..], ..here }),
        ] {
            assert!(open(&keys(0x52), &place, &envelope).is_err(), "{what}");
        }
    }

    #[test]
    fn a_ciphertext_made_to_open_under_two_keys_opens_under_the_committed_one_only() {
        const TWO_KEYS: &str = include_str!("../../tests/vectors/two_keys.txt");
        let place_bytes = vector(TWO_KEYS, "place");
        let key = vector(TWO_KEYS, "store_key");
        let at = Place { version: 3, ..place(&key) };
        for (own, other) in [(1, 2), (2, 1)] {
            let envelope = vector(TWO_KEYS, &format!("envelope_{own}"));
            let (sealed, tag) = envelope[76..].split_at(256);
            for number in [own, other] {
                // The cipher alone takes it for genuine under either key.
                let derived = vector(TWO_KEYS, &format!("cipher_key_{number}"));
                let cipher = ChaCha20Poly1305::new_from_slice(&derived[..32]).unwrap();
                let (nonce, tag) =
                    (Nonce::try_from(&derived[32..]).unwrap(), tag.try_into().unwrap());
                let mut message = sealed.to_vec();
                let opened = cipher.decrypt_inout_detached(
                    &nonce,
                    &place_bytes,
                    message.as_mut_slice().into(),
                    &tag,
                );
                assert!(opened.is_ok());
            }
            let tenant = |number: u8| {
                let key = Key::fill_with(|key| {
                    key.copy_from_slice(&vector(TWO_KEYS, &format!("tenant_key_{number}")));
                    Ok::<_, Malformed>(())
                });
                let term =
                    Term { number: 2, state: TermState::Active, key: Arc::new(key.unwrap()) };
                TenantKeys::new(Uuid([0x52; 16]), Handle([0x53; 16]), vec![term]).unwrap()
            };
            assert!(open(&tenant(other), &at, &envelope).is_err(), "the other's key");
            if own == 1 {
                assert_eq!(open(&tenant(own), &at, &envelope).unwrap().len(), 252);
            }
        }
    }

    #[test]
    fn payloads_of_every_length_come_back_and_show_only_steps_of_256_bytes() {
        let keys = keys(0x52);
        for length in [0, 1, 251, 252, 253, 508, MAX_PAYLOAD] {
            let payload = vec![b'x'; length];
            let envelope = seal(&keys, &place(b"key"), &payload).unwrap();
            assert_eq!(envelope.len(), 92 + (length + 4).next_multiple_of(256));
            assert!(envelope.len() <= crate::store::MAX_VALUE);
            assert_eq!(*open(&keys, &place(b"key"), &envelope).unwrap(), payload);
        }
    }

    type Parts = ([u8; 16], u8, u8, u16, u64, Vec<u8>);

    fn parts() -> impl Strategy<Value = Parts> {
        let key = proptest::collection::vec(any::<u8>(), 0..=64);
        (any::<[u8; 16]>(), 0..5_u8, any::<u8>(), any::<u16>(), any::<u64>(), key)
    }

    fn encoded((store_id, kind, uuid, field, version, key): &Parts) -> Vec<u8> {
        let kind = match kind {
            0 => RecordKind::Directory,
            1 => RecordKind::Config,
            2 => RecordKind::Credential,
            3 => RecordKind::Token,
            _ => RecordKind::Certificate,
        };
        let store_id = StoreId(*store_id);
        let place = Place { store_id, kind, field: *field, version: *version, key };
        place.associated_data(&[0; HEAD_LENGTH], &keys(*uuid))
    }

    #[test]
    fn a_record_that_does_not_open_is_named_by_its_kind_and_its_key_in_hex() {
        for (kind, name) in [
            (RecordKind::Directory, "directory"),
            (RecordKind::Config, "config"),
            (RecordKind::Credential, "credential"),
            (RecordKind::Token, "token"),
            (RecordKind::Certificate, "certificate"),
        ] {
            let place = Place { kind, ..place(b"\x00\x0f\xa5") };
            let error = open(&keys(0x52), &place, b"MV").err().unwrap().to_string();
            assert!(error.starts_with(&format!("the {name} record 000fa5 is missing")), "{error}");
        }
    }

    #[test]
    fn an_authentic_envelope_with_padding_that_nobody_writes_is_refused() {
        let (keys, place) = (keys(0x52), place(b"key"));
        let is_open = |prefix: u32, change: fn(&mut Vec<u8>)| {
            let mut padded = prefix.to_be_bytes().to_vec();
            padded.resize(PADDING, 0);
            change(&mut padded);
            let length = u32::try_from(padded.len()).unwrap().to_be_bytes();
            let head = [&b"MV\x01\x01\0\0\0\x02"[..], &length].concat();
            let salt = [9; SALT_LENGTH];
            let seal =
                keys.active().key.seal(&salt, &place.associated_data(&head, &keys), &mut padded);
            let envelope = [&head[..], &salt, &seal.commitment, &padded, &seal.tag].concat();
            open(&keys, &place, &envelope).is_ok()
        };
        assert!(is_open(252, |_| ()));
        assert!(!is_open(253, |_| ()), "longer than the padded text");
        assert!(!is_open(10, |padded| padded[PREFIX + 10] = 1), "other than zeros");
        assert!(is_open(10, |padded| padded[PREFIX + 9] = 1));
        assert!(!is_open(10, |padded| padded.resize(2 * PADDING, 0)), "a block too many");
        assert!(!is_open(10, |padded| padded.truncate(PREFIX + 10)), "none");
    }

    proptest! {
        #[test]
        fn different_places_have_different_associated_data(one in parts(), other in parts()) {
            prop_assert_eq!(encoded(&one) == encoded(&other), one == other);
            // Neighbours, which random pairs never are: one part differs, or bytes change sides.
            for part in 0..6 {
                let mut near = one.clone();
                match part {
                    0 => near.0[15] ^= 1,
                    1 => near.1 = (near.1 + 1) % 5,
                    2 => near.2 ^= 1,
                    3 => near.3 ^= 1,
                    4 => near.4 ^= 1,
                    _ => near.5.push(0),
                }
                prop_assert_ne!(encoded(&one), encoded(&near));
            }
        }

        #[test]
        fn arbitrary_bytes_do_not_open_and_do_not_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            prop_assert!(open(&keys(0x52), &place(b"key"), &bytes).is_err());
            let headed = [&b"MV\x01\x01\0\0\0\x02"[..], &bytes].concat();
            prop_assert!(open(&keys(0x52), &place(b"key"), &headed).is_err());
        }
    }
}
