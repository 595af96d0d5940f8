//! What changes the header: slots, passphrase and root key.
//!
//! None of it touches a record: it costs one or two key derivations and a file, however many
//! tenants there are. Each takes what opens a slot, also while the vault is unsealed: the keys in
//! memory are no proof of who asks.

use std::sync::{MutexGuard, PoisonError};

use super::attempts::Attempts;
use super::backup;
use super::header::{self, Header, OpenHeader};
use super::kdf::KdfCost;
use super::slot::{AddedSlot, NewSlot, SlotInfo, SlotKind, Unlock};
use super::unsealed::{Unsealed, Writing};
use super::witness::Part;
use super::{Error, TenantCredentialVault};
use crate::memory::SecretText;
use crate::store::{self, DataDir};

pub(super) fn read_header(directory: &DataDir) -> Result<Vec<u8>, Error> {
    directory.read(DataDir::HEADER, header::MAX_LENGTH)?.ok_or(Error::HeaderDamaged)
}

impl TenantCredentialVault {
    /// The slots, as the header says, which is not authenticated: also while the vault is sealed.
    pub fn slots(&self) -> Result<Vec<SlotInfo>, Error> {
        Ok(Header::parse(&read_header(&self.directory)?)?.slots())
    }

    /// Makes another slot.
    ///
    /// # Errors
    ///
    /// Those of [`Self::unseal`]; [`Error::TooManySlots`], [`Error::PassphraseTooShort`],
    /// [`Error::ShareCounts`], [`Error::KeyCommand`]. There is no new slot then.
    pub fn add_slot(&self, unlock: &Unlock, new: &NewSlot) -> Result<AddedSlot, Error> {
        let _unlocking = self.unlocking();
        let (mut header, _) = self.unlock(unlock)?;
        let added = header.add_slot(new, self.clock.now())?;
        self.write_header(&mut header)?;
        self.witness()?.settle()?;
        Ok(added)
    }

    /// Removes slot `id`. What opened it opens nothing any more, but for copies of the header.
    ///
    /// # Errors
    ///
    /// Those of [`Self::unseal`]; [`Error::NoSuchSlot`]; [`Error::LastOfflineSlot`], for a vault that
    /// needs somebody's service to open is lost with it.
    pub fn remove_slot(&self, unlock: &Unlock, id: u16) -> Result<SlotInfo, Error> {
        let _unlocking = self.unlocking();
        let (mut header, _) = self.unlock(unlock)?;
        let removed = header.remove_slot(id)?;
        self.write_header(&mut header)?;
        self.witness()?.settle()?;
        Ok(removed)
    }

    /// Replaces the passphrase `old` by `new`, and answers the slot that it is in. Three
    /// key derivations, and one per passphrase slot; no record is written.
    ///
    /// A header with both slots is written first and opened again with `new`, then one without the
    /// old slot: whenever this is interrupted, one of the two opens.
    ///
    /// # Errors
    ///
    /// Those of [`Self::unseal`], [`Error::PassphraseTooShort`]. The old passphrase opens then.
    pub fn change_passphrase(
        &self,
        old: &SecretText,
        new: &SecretText,
        cost: KdfCost,
    ) -> Result<SlotInfo, Error> {
        let _unlocking = self.unlocking();
        let old = Unlock::passphrase(old);
        let (mut header, _) = self.unlock(&old)?;
        // It is in two if a change was interrupted and done again.
        let former = header.slots_of(&old)?;
        let added = header.add_slot(&NewSlot::passphrase(new, cost), self.clock.now())?;
        self.write_header(&mut header)?;
        let written = read_header(&self.directory)?;
        let (mut header, _) = OpenHeader::open(&written, &Unlock::passphrase(new))?;
        self.attest(&written, &mut header)?;
        for id in former {
            header.remove_slot(id)?;
        }
        self.write_header(&mut header)?;
        self.witness()?.settle()?;
        Ok(added.slot)
    }

    /// Makes a new root key, for every slot that one of `unlocks` opens, and seals the keyring
    /// anew. Whoever has a former header and a former passphrase opens nothing that is written from
    /// now on; with `reseal`, which gives every tenant a new key, nothing at all once
    /// [`Self::reseal`] is done. Answers the slots that are gone.
    ///
    /// With `reseal` the slot of backups is made anew as well, if one of `unlocks` opens it; else
    /// there is none until [`Self::create_backup`] makes one. Backups that there are open as before.
    ///
    /// Costs two key derivations per passphrase slot and two files; 10,000 tenants add 20 ms
    /// (`./dev bench --bench vault`). No record is written.
    ///
    /// # Errors
    ///
    /// Those of [`Self::unseal`]; [`Error::SlotsMissing`] unless `drop_others`;
    /// [`Error::LastOfflineSlot`]; with `reseal` also [`Error::Resealing`], and
    /// [`Error::TenantSealed`], for a sealed tenant's records cannot be opened: nothing has changed.
    /// [`Error::Store`]: the root key may be new, and slots gone; the vault opens with those that were
    /// kept, and is to be rotated again.
    pub fn rotate_root(
        &self,
        unlocks: &[Unlock],
        drop_others: bool,
        reseal: bool,
    ) -> Result<Vec<SlotInfo>, Error> {
        let _unlocking = self.unlocking();
        let (mut header, _) = self.unlock_with_any(unlocks)?;
        self.changing(|vault| {
            let mut writing = vault.writing();
            let writing = &mut *writing;
            if reseal {
                vault.check_reseal()?;
            }
            let dropped = header.rotate_root(unlocks, drop_others)?;
            let mut backup = None;
            if reseal {
                header.change_tenant_seal_key()?;
                if let Some(slot) = vault.keyring().backup() {
                    backup = backup::renewed_slot(&header, slot, unlocks, self.clock.now())?;
                }
            }
            self.change_keyring_key(&mut header, vault, writing, |vault, writing| {
                if reseal {
                    vault.begin_reseal(writing, backup)
                } else {
                    vault.rewrite_keyring(writing)
                }
            })?;
            Ok(dropped)
        })
    }

    /// Lets `rewrite` write the keyring under a new key, between two generations of the header: the
    /// first opens both keyrings, the second only the new one.
    pub(super) fn change_keyring_key<T>(
        &self,
        header: &mut OpenHeader,
        vault: &Unsealed,
        writing: &mut Writing,
        rewrite: impl FnOnce(&Unsealed, &mut Writing) -> Result<T, Error>,
    ) -> Result<T, Error> {
        header.change_keyring_key(&writing.keyring_key)?;
        self.write_header(header)?;
        let key = header.keyring_key().duplicate();
        let previous = std::mem::replace(&mut writing.keyring_key, key);
        let result = match rewrite(vault, writing) {
            Ok(result) => result,
            Err(error) => {
                // The header opens the keyring as it was.
                writing.keyring_key = previous;
                return Err(error);
            }
        };
        header.forget_previous_keyring_key();
        self.write_header(header)?;
        Ok(result)
    }

    /// One unlocking at a time: a key derivation takes all the memory that one may take.
    pub(super) fn unlocking(&self) -> MutexGuard<'_, ()> {
        self.unlocking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One backup at a time.
    pub(super) fn backing_up(&self) -> MutexGuard<'_, ()> {
        self.backing_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the header, which is the present one, and says which slot opened. To be called by
    /// whoever has [`Self::unlocking`]. The store is open then.
    pub(super) fn unlock(&self, unlock: &Unlock) -> Result<(OpenHeader, SlotInfo), Error> {
        self.unlock_with_any(std::slice::from_ref(unlock))
    }

    fn unlock_with_any(&self, unlocks: &[Unlock]) -> Result<(OpenHeader, SlotInfo), Error> {
        let (mut header, slot, bytes) = self.open_header(unlocks)?;
        self.attest(&bytes, &mut header)?;
        Ok((header, slot))
    }

    /// Opens whichever header there is with the first of `unlocks` that does, each of which counts
    /// as an attempt. Answers the file as well.
    pub(super) fn open_header(
        &self,
        unlocks: &[Unlock],
    ) -> Result<(OpenHeader, SlotInfo, Vec<u8>), Error> {
        let bytes = read_header(&self.directory)?;
        let mut refused = Error::Sealed;
        for unlock in unlocks {
            // Each is a guess of its own.
            let loaded = Attempts::load(&self.directory)?;
            let before = loaded.until(self.clock.now());
            if before != loaded {
                before.save(&self.directory)?;
            }
            before.another(self.clock.now())?.save(&self.directory)?;
            match OpenHeader::open(&bytes, unlock) {
                Ok((header, slot)) => {
                    Attempts::default().save(&self.directory)?;
                    return Ok((header, slot, bytes));
                }
                Err(error) => {
                    if !error.is_wrong_key() {
                        // It was no guess.
                        before.save(&self.directory)?;
                    }
                    refused = error;
                }
            }
        }
        Err(refused)
    }

    /// Gives a passphrase slot that costs less than new ones may the default cost.
    pub(super) fn upgrade(
        &self,
        header: &mut OpenHeader,
        slot: &SlotInfo,
        unlock: &Unlock,
    ) -> Result<bool, Error> {
        let SlotKind::Passphrase(cost) = slot.kind else { return Ok(false) };
        if !self.options.upgrade_cost || cost.is_enough() {
            return Ok(false);
        }
        let mut renew = || {
            header.renew_passphrase_slot(slot.id, unlock, KdfCost::DEFAULT)?;
            self.write_header(header)?;
            self.witness()?.settle()
        };
        match renew() {
            Ok(()) => Ok(true),
            // On a machine that small, or that full, it stays as it is.
            Err(Error::OutOfMemory { .. } | Error::Store(store::Error::Full { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes the header. The former one is the store's as well until its witness settles.
    pub(super) fn write_header(&self, header: &mut OpenHeader) -> Result<(), Error> {
        self.witness()?.replace(Part::Header, &header.encode()?)
    }
}

impl Unsealed {
    /// Writes the keyring as it is, under its key of now.
    fn rewrite_keyring(&self, writing: &mut Writing) -> Result<(), Error> {
        self.change_keyring(writing, |_| Ok(()))
    }
}
