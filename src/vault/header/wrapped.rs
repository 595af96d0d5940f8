//! The parts of a header: slots, and keys under the root key.

use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::vault::codec::{Malformed, Reader, Writer};
use crate::vault::kdf::{self, KdfCost, SALT_LENGTH};
use crate::vault::key::{Key, Mismatch, Seal, random};
use crate::vault::shares;
use crate::vault::slot::{SlotInfo, SlotKind, Unlock};
use crate::vault::{Error, StoreId};

/// Longest answer of an external program.
const MAX_BLOB: usize = 1 << 10;
/// How the parameters of every kind of slot are read; the only way so far.
const FORMAT: u8 = 1;
const KEY_SALT_LENGTH: usize = 32;

/// The root key, wrapped under the key of one slot.
pub(super) struct Slot {
    pub(super) parameters: Parameters,
    pub(super) seal: Seal,
    pub(super) wrapped: [u8; Key::LENGTH],
}

/// What a slot says in the clear; bound to the wrapped key.
pub(super) struct Parameters {
    pub(super) id: u16,
    pub(super) opening: Opening,
    pub(super) salt: [u8; SALT_LENGTH],
    /// Unix seconds.
    pub(super) created: u64,
}

/// What opens a slot.
#[derive(Clone)]
pub(super) enum Opening {
    Passphrase(KdfCost),
    KeyFile,
    /// What the external program turns into the key.
    Command(Vec<u8>),
    Shares {
        threshold: u8,
        count: u8,
    },
}

pub(super) struct WrappedKeys {
    pub(super) keyring: WrappedKey,
    pub(super) previous_keyring: Option<WrappedKey>,
    pub(super) tenant_seal: WrappedKey,
}

/// A key under the root key.
pub(super) struct WrappedKey {
    salt: [u8; KEY_SALT_LENGTH],
    seal: Seal,
    wrapped: [u8; Key::LENGTH],
}

/// What a wrapped key is for.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Purpose {
    Keyring = 1,
    PreviousKeyring = 2,
    TenantSeal = 3,
}

impl Slot {
    pub(super) fn wrap(store_id: StoreId, root: &Key, kek: &Key, parameters: Parameters) -> Self {
        let (seal, wrapped) = seal_key(kek, &parameters.salt, &parameters.place(store_id), root);
        Self { parameters, seal, wrapped }
    }

    pub(super) fn unwrap(&self, store_id: StoreId, kek: &Key) -> Result<Key, Mismatch> {
        let place = self.parameters.place(store_id);
        open_key(kek, &self.parameters.salt, &place, &self.seal, &self.wrapped)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let length = usize::from(reader.u16()?);
        let mut slot = Reader::new(reader.raw(length)?);
        let parameters = Parameters::read(&mut slot)?;
        let (commitment, wrapped) = (slot.array()?, slot.array()?);
        let seal = Seal { commitment, tag: slot.array()? };
        slot.finish()?;
        Ok(Self { parameters, seal, wrapped })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let parameters = self.parameters.encode();
        let length = parameters.len() + self.wrapped.len() + Seal::LENGTH;
        writer.u16(u16::try_from(length).expect("a blob is at most MAX_BLOB"));
        writer.raw(&parameters);
        writer.raw(&self.seal.commitment);
        writer.raw(&self.wrapped);
        writer.raw(&self.seal.tag);
    }
}

impl Parameters {
    /// The key that `unlock` gives for this slot; none when it is for another kind of slot.
    pub(super) fn kek(&self, unlock: &Unlock) -> Result<Option<Key>, Error> {
        let salt = &self.salt;
        Ok(match (&self.opening, unlock) {
            (Opening::Passphrase(cost), Unlock::Passphrase(passphrase)) => {
                Some(kdf::derive(passphrase, salt, *cost)?)
            }
            (Opening::KeyFile, Unlock::KeyFile(file)) => Some(file.key().duplicate()),
            (Opening::Command(blob), Unlock::Command(command)) => Some(command.unwrap(blob)?),
            (Opening::Shares { .. }, Unlock::Shares(shares)) => Some(shares::combine(shares)?),
            _ => None,
        })
    }

    /// The same, for another message: a key seals one under one salt.
    pub(super) fn with_new_salt(&self) -> Result<Self, Error> {
        let salt = new_salt()?;
        let Self { id, opening, created, .. } = self;
        Ok(Self { id: *id, opening: opening.clone(), salt, created: *created })
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = reader.u8()?;
        if reader.u8()? != FORMAT {
            return Err(Malformed);
        }
        let id = reader.u16()?;
        let opening = match kind {
            1 => {
                let (memory_kib, passes, lanes) = (reader.u32()?, reader.u32()?, reader.u32()?);
                let cost = KdfCost { memory_kib, passes, lanes };
                if !cost.is_bearable() {
                    return Err(Malformed);
                }
                Opening::Passphrase(cost)
            }
            2 => Opening::KeyFile,
            3 => {
                let length = usize::from(reader.u16()?);
                if !(1..=MAX_BLOB).contains(&length) {
                    return Err(Malformed);
                }
                Opening::Command(reader.raw(length)?.to_vec())
            }
            4 => {
                let (threshold, count) = (reader.u8()?, reader.u8()?);
                if !shares::is_scheme(threshold, count) {
                    return Err(Malformed);
                }
                Opening::Shares { threshold, count }
            }
            _ => return Err(Malformed),
        };
        Ok(Self { id, opening, salt: reader.array()?, created: reader.u64()? })
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(self.opening.number());
        writer.u8(FORMAT);
        writer.u16(self.id);
        match &self.opening {
            Opening::Passphrase(cost) => {
                writer.u32(cost.memory_kib);
                writer.u32(cost.passes);
                writer.u32(cost.lanes);
            }
            Opening::KeyFile => {}
            Opening::Command(blob) => {
                writer.u16(u16::try_from(blob.len()).expect("a blob is at most MAX_BLOB"));
                writer.raw(blob);
            }
            Opening::Shares { threshold, count } => {
                writer.u8(*threshold);
                writer.u8(*count);
            }
        }
        writer.raw(&self.salt);
        writer.u64(self.created);
        writer.finish()
    }

    fn place(&self, store_id: StoreId) -> Vec<u8> {
        [&b"mcpv.slot.v1\0"[..], &store_id.0, &self.encode()].concat()
    }

    pub(super) fn info(&self) -> SlotInfo {
        let kind = match self.opening {
            Opening::Passphrase(cost) => SlotKind::Passphrase(cost),
            Opening::KeyFile => SlotKind::KeyFile,
            Opening::Command(_) => SlotKind::Command,
            Opening::Shares { threshold, count } => SlotKind::Shares { threshold, count },
        };
        let created = i64::try_from(self.created).ok();
        let created_at = created.and_then(|second| Timestamp::from_second(second).ok());
        SlotInfo { id: self.id, kind, created_at: created_at.unwrap_or(Timestamp::MAX) }
    }
}

impl Opening {
    pub(super) fn number(&self) -> u8 {
        match self {
            Self::Passphrase(_) => 1,
            Self::KeyFile => 2,
            Self::Command(_) => 3,
            Self::Shares { .. } => 4,
        }
    }
}

impl WrappedKeys {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let has_previous = match reader.u8()? {
            2 => false,
            3 => true,
            _ => return Err(Malformed),
        };
        let mut read = |purpose: Purpose| {
            if reader.u8()? == purpose as u8 { WrappedKey::read(reader) } else { Err(Malformed) }
        };
        let keyring = read(Purpose::Keyring)?;
        let previous_keyring =
            if has_previous { Some(read(Purpose::PreviousKeyring)?) } else { None };
        Ok(Self { keyring, previous_keyring, tenant_seal: read(Purpose::TenantSeal)? })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let Self { keyring, previous_keyring, tenant_seal } = self;
        writer.u8(2 + u8::from(previous_keyring.is_some()));
        keyring.write(writer, Purpose::Keyring);
        if let Some(previous) = previous_keyring {
            previous.write(writer, Purpose::PreviousKeyring);
        }
        tenant_seal.write(writer, Purpose::TenantSeal);
    }
}

impl WrappedKey {
    pub(super) fn wrap(
        wrapping: &Key,
        store_id: StoreId,
        purpose: Purpose,
        key: &Key,
        salt: [u8; KEY_SALT_LENGTH],
    ) -> Self {
        let (seal, wrapped) = seal_key(wrapping, &salt, &Self::place(store_id, purpose), key);
        Self { salt, seal, wrapped }
    }

    pub(super) fn unwrap(
        &self,
        wrapping: &Key,
        store_id: StoreId,
        purpose: Purpose,
    ) -> Result<Key, Mismatch> {
        let place = Self::place(store_id, purpose);
        open_key(wrapping, &self.salt, &place, &self.seal, &self.wrapped)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (salt, commitment, wrapped) = (reader.array()?, reader.array()?, reader.array()?);
        Ok(Self { salt, seal: Seal { commitment, tag: reader.array()? }, wrapped })
    }

    pub(super) fn write(&self, writer: &mut Writer, purpose: Purpose) {
        writer.u8(purpose as u8);
        writer.raw(&self.salt);
        writer.raw(&self.seal.commitment);
        writer.raw(&self.wrapped);
        writer.raw(&self.seal.tag);
    }

    fn place(store_id: StoreId, purpose: Purpose) -> Vec<u8> {
        [&b"mcpv.headerkey.v1\0"[..], &store_id.0, &[purpose as u8]].concat()
    }
}

/// A salt that no key was used with before.
pub(super) fn new_salt<const N: usize>() -> Result<[u8; N], Error> {
    let mut salt = [0; N];
    random(&mut salt)?;
    Ok(salt)
}

fn seal_key(kek: &Key, salt: &[u8], place: &[u8], key: &Key) -> (Seal, [u8; Key::LENGTH]) {
    let mut wrapped = Zeroizing::new(Vec::with_capacity(Key::LENGTH));
    key.append_to(&mut wrapped);
    let seal = kek.seal(salt, place, &mut wrapped);
    (seal, wrapped.as_slice().try_into().expect("a key was appended"))
}

fn open_key(
    kek: &Key,
    salt: &[u8],
    place: &[u8],
    seal: &Seal,
    wrapped: &[u8; Key::LENGTH],
) -> Result<Key, Mismatch> {
    Key::fill_with(|key| {
        key.copy_from_slice(wrapped);
        kek.open(salt, place, key, seal)
    })
}
