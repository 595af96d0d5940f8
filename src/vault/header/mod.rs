//! The header file: several ways to the root key, and the keys that it wraps.
//!
//! ```text
//! passphrase --Argon2id--\
//! key file ---------------+--> KEK --opens its slot--> root key --> header MAC
//! external program ------/                                 \--> key of the keyring
//! shares ---------------/                                   \-> key of sealed tenants
//! ```
//!
//! The commitment of a slot is the check of what is meant to open it; there is no other check
//! value. The MAC covers every byte, so a slot that was added or a cost that was lowered is noticed.
//! What a slot says in the clear can be chosen by whoever can write the disk until the MAC has been
//! checked, so no program's name is in it.
//!
//! Changes of keyring and header cannot be one write. While both change, the header names the
//! keyring's next key and its previous one, so either keyring opens.

mod wrapped;

use jiff::Timestamp;
use subtle::ConstantTimeEq;

use super::codec::{Malformed, Reader, Writer};
use super::kdf::{self, KdfCost};
use super::key::{Key, Mismatch};
use super::shares;
use super::slot::{AddedSlot, NewSlot, SlotInfo, Unlock};
use super::{Error, StoreId};

use wrapped::{Opening, Parameters, Purpose, Slot, WrappedKey, WrappedKeys};

/// More than a header can have.
pub(super) const MAX_LENGTH: u64 = 64 << 10;

const MAGIC: &[u8; 4] = b"MVHD";
/// One kind of slot, and no wrapped keys.
const VERSION_1: u8 = 1;
const VERSION: u8 = 2;
const MAX_SLOTS: usize = 16;
/// Of version 1.
const MAX_SLOTS_1: usize = 8;
const MAC_LENGTH: usize = 32;

/// A parsed header, not yet authenticated.
pub(super) struct Header {
    pub(super) store_id: StoreId,
    generation: u64,
    next_slot: u16,
    slots: Vec<Slot>,
    /// None in version 1.
    keys: Option<WrappedKeys>,
}

/// An authenticated header and everything that it wraps. While it lives, so does the root key.
pub(super) struct OpenHeader {
    store_id: StoreId,
    generation: u64,
    next_slot: u16,
    slots: Vec<Slot>,
    root: Key,
    keyring_key: Key,
    previous_keyring_key: Option<Key>,
    tenant_seal_key: Key,
    is_outdated: bool,
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes);
        let mut head = || Ok((reader.array::<4>()?, reader.u8()?));
        let version = match head().map_err(|Malformed| Error::HeaderDamaged)? {
            (magic, _) if magic != *MAGIC => return Err(Error::HeaderDamaged),
            (_, version @ (VERSION_1 | VERSION)) => version,
            (_, version) if version > VERSION => return Err(Error::UnsupportedVersion("header")),
            _ => return Err(Error::HeaderDamaged),
        };
        Self::parse_body(version, reader).map_err(|Malformed| Error::HeaderDamaged)
    }

    fn parse_body(version: u8, mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let is_first = version == VERSION_1;
        let count = usize::from(reader.u8()?);
        if !(1..=if is_first { MAX_SLOTS_1 } else { MAX_SLOTS }).contains(&count) {
            return Err(Malformed);
        }
        let generation = reader.u64()?;
        let store_id = StoreId(reader.array()?);
        let written_next = if is_first { None } else { Some(reader.u16()?) };
        let slots: Vec<Slot> =
            (0..count).map(|_| Slot::read(&mut reader)).collect::<Result<_, _>>()?;
        let of_first = |slot: &Slot| matches!(slot.parameters.opening, Opening::Passphrase(_));
        if !slots.is_sorted_by(|one, next| one.parameters.id < next.parameters.id)
            || (is_first && !slots.iter().all(of_first))
        {
            return Err(Malformed);
        }
        let highest = slots.last().map_or(0, |slot| slot.parameters.id);
        let next_slot = written_next.map_or_else(|| highest.checked_add(1), Some);
        let next_slot = next_slot.filter(|next| *next > highest).ok_or(Malformed)?;
        let keys = if is_first { None } else { Some(WrappedKeys::read(&mut reader)?) };
        reader.raw(MAC_LENGTH)?;
        reader.finish()?;
        Ok(Self { store_id, generation, next_slot, slots, keys })
    }

    /// What the slots say of themselves. Not authenticated: for people to look at.
    pub(super) fn slots(&self) -> Vec<SlotInfo> {
        self.slots.iter().map(|slot| slot.parameters.info()).collect()
    }
}

impl OpenHeader {
    /// The header of a new vault, which `passphrase` opens.
    pub(super) fn create(
        store_id: StoreId,
        new: &NewSlot,
        now: Timestamp,
    ) -> Result<(Self, AddedSlot), Error> {
        let mut header = Self {
            store_id,
            generation: 0,
            next_slot: 0,
            slots: Vec::new(),
            root: Key::random()?,
            keyring_key: Key::random()?,
            previous_keyring_key: None,
            tenant_seal_key: Key::random()?,
            is_outdated: false,
        };
        let added = header.add_slot(new, now)?;
        Ok((header, added))
    }

    /// The header of backups of this vault, which `new` opens: with keys of its own, but for the one
    /// of sealed tenants.
    pub(super) fn create_for_backups(&self, new: &NewSlot, now: Timestamp) -> Result<Self, Error> {
        let (header, _) = Self::create(self.store_id, new, now)?;
        Ok(Self { tenant_seal_key: self.tenant_seal_key.duplicate(), ..header })
    }

    /// Opens the header `bytes`, and says which slot did. One key derivation per slot that `unlock`
    /// might be for.
    pub(super) fn open(bytes: &[u8], unlock: &Unlock) -> Result<(Self, SlotInfo), Error> {
        Self::open_with(bytes, unlock.kind(), |slot| slot.parameters.kek(unlock))
    }

    fn open_with(
        bytes: &[u8],
        kind: &'static str,
        kek: impl Fn(&Slot) -> Result<Option<Key>, Error>,
    ) -> Result<(Self, SlotInfo), Error> {
        let header = Header::parse(bytes)?;
        let (mut failed, mut is_tried) = (None, false);
        for slot in &header.slots {
            let kek = match kek(slot) {
                Ok(Some(kek)) => kek,
                Ok(None) => continue,
                // Another slot may still open: a program fails on what another one keeps.
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            is_tried = true;
            match slot.unwrap(header.store_id, &kek) {
                Ok(root) => {
                    let (authenticated, mac) =
                        bytes.split_last_chunk::<MAC_LENGTH>().ok_or(Error::HeaderDamaged)?;
                    if !bool::from(header_mac(&root, authenticated).ct_eq(mac)) {
                        return Err(Error::HeaderDamaged);
                    }
                    let info = slot.parameters.info();
                    return Ok((Self::authenticated(header, root)?, info));
                }
                Err(Mismatch::Commitment) => {}
                Err(Mismatch::Message) => return Err(Error::HeaderDamaged),
            }
        }
        // A guess at any slot is a guess.
        Err(failed.filter(|_| !is_tried).unwrap_or_else(|| Error::no_slot_opens(kind)))
    }

    fn authenticated(header: Header, root: Key) -> Result<Self, Error> {
        let Header { store_id, generation, next_slot, slots, keys } = header;
        let is_outdated = keys.is_none();
        let (keyring_key, previous_keyring_key, tenant_seal_key) = match keys {
            // Until version 2 the keyring's key was derived, and no tenant could be sealed.
            None => (root.derive("mcpv.keyring.v1"), None, Key::random()?),
            Some(keys) => {
                let wrapping = root.derive(WRAPPING_LABEL);
                let unwrap = |key: &WrappedKey, purpose| {
                    key.unwrap(&wrapping, store_id, purpose).map_err(|_| Error::HeaderDamaged)
                };
                let previous = keys.previous_keyring.as_ref();
                (
                    unwrap(&keys.keyring, Purpose::Keyring)?,
                    previous.map(|key| unwrap(key, Purpose::PreviousKeyring)).transpose()?,
                    unwrap(&keys.tenant_seal, Purpose::TenantSeal)?,
                )
            }
        };
        Ok(Self {
            store_id,
            generation,
            next_slot,
            slots,
            root,
            keyring_key,
            previous_keyring_key,
            tenant_seal_key,
            is_outdated,
        })
    }

    /// The root key itself, for what version 1 derived from it.
    pub(super) fn root(&self) -> &Key {
        &self.root
    }

    /// What seals the keyring from its next writing on.
    pub(super) fn keyring_key(&self) -> &Key {
        &self.keyring_key
    }

    /// What may have sealed the keyring, while it is being changed.
    pub(super) fn previous_keyring_key(&self) -> Option<&Key> {
        self.previous_keyring_key.as_ref()
    }

    /// What seals the keys of sealed tenants.
    pub(super) fn tenant_seal_key(&self) -> &Key {
        &self.tenant_seal_key
    }

    /// Whether the file is of an older version than [`Self::encode`] writes.
    pub(super) fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Gives the keyring another key than `present`, which is kept until
    /// [`Self::forget_previous_keyring_key`].
    pub(super) fn change_keyring_key(&mut self, present: &Key) -> Result<(), Error> {
        self.keyring_key = Key::random()?;
        self.previous_keyring_key = Some(present.duplicate());
        Ok(())
    }

    pub(super) fn forget_previous_keyring_key(&mut self) {
        self.previous_keyring_key = None;
    }

    /// Only while no tenant is sealed under the present one.
    pub(super) fn change_tenant_seal_key(&mut self) -> Result<(), Error> {
        self.tenant_seal_key = Key::random()?;
        Ok(())
    }

    pub(super) fn add_slot(&mut self, new: &NewSlot, now: Timestamp) -> Result<AddedSlot, Error> {
        let next = self.next_slot.checked_add(1).filter(|_| self.slots.len() < MAX_SLOTS);
        let next = next.ok_or(Error::TooManySlots)?;
        let salt = wrapped::new_salt()?;
        let mut made = Vec::new();
        let (kek, opening) = match new {
            NewSlot::Passphrase { passphrase, cost } => {
                kdf::check_new(passphrase)?;
                (kdf::derive(passphrase, &salt, *cost)?, Opening::Passphrase(*cost))
            }
            NewSlot::KeyFile(file) => (file.key().duplicate(), Opening::KeyFile),
            NewSlot::Command(command) => {
                let kek = Key::random()?;
                let blob = command.wrap(&kek)?;
                // Before anybody relies on it.
                if command.unwrap(&blob)?.mac(&[]) != kek.mac(&[]) {
                    return Err(Error::no_slot_opens("command"));
                }
                (kek, Opening::Command(blob))
            }
            NewSlot::Shares { threshold, count } => {
                let kek = Key::random()?;
                made = shares::split(&kek, *threshold, *count)?;
                (kek, Opening::Shares { threshold: *threshold, count: *count })
            }
        };
        let created = u64::try_from(now.as_second()).unwrap_or(0);
        let parameters = Parameters { id: self.next_slot, opening, salt, created };
        let slot = parameters.info();
        self.slots.push(Slot::wrap(self.store_id, &self.root, &kek, parameters));
        self.next_slot = next;
        Ok(AddedSlot { slot, shares: made })
    }

    /// Removes slot `id`, unless no slot that opens offline would be left.
    pub(super) fn remove_slot(&mut self, id: u16) -> Result<SlotInfo, Error> {
        let at = self.slots.iter().position(|slot| slot.parameters.id == id);
        let at = at.ok_or(Error::NoSuchSlot(id))?;
        let stays_offline =
            |(index, slot): (usize, &Slot)| index != at && slot.parameters.info().kind.is_offline();
        if !self.slots.iter().enumerate().any(stays_offline) {
            return Err(Error::LastOfflineSlot);
        }
        Ok(self.slots.remove(at).parameters.info())
    }

    /// The slots that `unlock` opens. One key derivation for each that it might be for.
    pub(super) fn slots_of(&self, unlock: &Unlock) -> Result<Vec<u16>, Error> {
        let mut ids = Vec::new();
        for slot in &self.slots {
            let Some(kek) = slot.parameters.kek(unlock)? else { continue };
            if slot.unwrap(self.store_id, &kek).is_ok() {
                ids.push(slot.parameters.id);
            }
        }
        Ok(ids)
    }

    /// Wraps the root key anew under `passphrase` in slot `id`, at `cost`.
    pub(super) fn renew_passphrase_slot(
        &mut self,
        id: u16,
        unlock: &Unlock,
        cost: KdfCost,
    ) -> Result<(), Error> {
        let Unlock::Passphrase(passphrase) = unlock else { return Err(Error::NoSuchSlot(id)) };
        let (store_id, root) = (self.store_id, &self.root);
        let slot = self.slots.iter_mut().find(|slot| slot.parameters.id == id);
        let slot = slot.ok_or(Error::NoSuchSlot(id))?;
        let salt = wrapped::new_salt()?;
        let kek = kdf::derive(passphrase, &salt, cost)?;
        let created = slot.parameters.created;
        let parameters = Parameters { id, opening: Opening::Passphrase(cost), salt, created };
        *slot = Slot::wrap(store_id, root, &kek, parameters);
        Ok(())
    }

    /// Replaces the root key, in every slot that one of `unlocks` opens. Answers the other slots,
    /// which are gone if `drop_others`.
    ///
    /// # Errors
    ///
    /// [`Error::SlotsMissing`] unless `drop_others`; [`Error::LastOfflineSlot`] when none that opens
    /// offline would be left. The header is as it was.
    pub(super) fn rotate_root(
        &mut self,
        unlocks: &[Unlock],
        drop_others: bool,
    ) -> Result<Vec<SlotInfo>, Error> {
        let root = Key::random()?;
        let (mut slots, mut others) = (Vec::new(), Vec::new());
        for slot in &self.slots {
            match self.rewrap(slot, &root, unlocks)? {
                Some(slot) => slots.push(slot),
                None => others.push(slot.parameters.info()),
            }
        }
        if !others.is_empty() && !drop_others {
            return Err(Error::SlotsMissing(others.iter().map(|slot| slot.id).collect()));
        }
        if !slots.iter().any(|slot| slot.parameters.info().kind.is_offline()) {
            return Err(Error::LastOfflineSlot);
        }
        self.root = root;
        self.slots = slots;
        Ok(others)
    }

    /// `slot` with `root` in it, if one of `unlocks` opens it.
    fn rewrap(&self, slot: &Slot, root: &Key, unlocks: &[Unlock]) -> Result<Option<Slot>, Error> {
        let mut failed = None;
        for unlock in unlocks {
            let kek = match slot.parameters.kek(unlock) {
                Ok(Some(kek)) => kek,
                Ok(None) => continue,
                // It may be for another slot of the kind.
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            if slot.unwrap(self.store_id, &kek).is_err() {
                continue;
            }
            let parameters = slot.parameters.with_new_salt()?;
            let Some(kek) = parameters.kek(unlock)? else { continue };
            return Ok(Some(Slot::wrap(self.store_id, root, &kek, parameters)));
        }
        // A slot is not dropped because what opens it was not to be had just now.
        failed.map_or(Ok(None), Err)
    }

    /// The bytes of the next generation.
    pub(super) fn encode(&mut self) -> Result<Vec<u8>, Error> {
        self.generation += 1;
        self.is_outdated = false;
        let wrapping = self.root.derive(WRAPPING_LABEL);
        let wrap = |key: &Key, purpose| -> Result<WrappedKey, Error> {
            let salt = wrapped::new_salt()?;
            Ok(WrappedKey::wrap(&wrapping, self.store_id, purpose, key, salt))
        };
        let previous = self.previous_keyring_key.as_ref();
        let keys = WrappedKeys {
            keyring: wrap(&self.keyring_key, Purpose::Keyring)?,
            previous_keyring: previous
                .map(|key| wrap(key, Purpose::PreviousKeyring))
                .transpose()?,
            tenant_seal: wrap(&self.tenant_seal_key, Purpose::TenantSeal)?,
        };
        Ok(self.encode_with(&keys))
    }

    fn encode_with(&self, keys: &WrappedKeys) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(MAGIC);
        writer.u8(VERSION);
        writer.u8(u8::try_from(self.slots.len()).expect("at most MAX_SLOTS"));
        writer.u64(self.generation);
        writer.raw(&self.store_id.0);
        writer.u16(self.next_slot);
        for slot in &self.slots {
            slot.write(&mut writer);
        }
        keys.write(&mut writer);
        let mut bytes = writer.finish();
        let mac = header_mac(&self.root, &bytes);
        bytes.extend_from_slice(&mac);
        bytes
    }
}

const WRAPPING_LABEL: &str = "mcpv.headerkeys.v1";

fn header_mac(root: &Key, authenticated: &[u8]) -> [u8; MAC_LENGTH] {
    root.derive("mcpv.header.v1").mac(&[authenticated])
}

#[cfg(test)]
mod tests;
