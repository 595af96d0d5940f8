//! From an open header to everything else, each part vouched for by the one before or after it.
//!
//! ```text
//! header --key of the keyring--> keyring --integrity key--> store --digests--> header, keyring
//!                                   \--keys of tenants--> directories of the store
//! ```
//!
//! The store is opened with the first key and stays open. What a crash left of a change of keys, or
//! an older version of this program, is completed once all parts are known to fit together.

use std::sync::{Arc, PoisonError};

use super::header::OpenHeader;
use super::key::Key;
use super::keyring::{self, Age, Keyring};
use super::sealed::SealedStore;
use super::unsealed::Unsealed;
use super::witness::{Part, Verdict, Witness};
use super::{Error, TenantCredentialVault};
use crate::store::{self, DataDir, SledStore, Store};

/// Whether an older copy of something is taken for what there is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rollback {
    Refused,
    Accepted,
}

/// A keyring, and the store that says that it is the present one.
pub(super) struct Opened {
    pub(super) keyring: Keyring,
    age: Age,
    /// What opened it.
    key: Key,
    /// Whether that is not what seals it from now on.
    is_former_key: bool,
    /// Whether the file is of a version without an integrity key, so that nothing has authenticated
    /// the store so far.
    is_adopted: bool,
    pub(super) witness: Arc<Witness>,
    /// Which rollbacks were accepted, a sentence each.
    accepted: Vec<String>,
}

impl TenantCredentialVault {
    /// Checks that the file `bytes`, which gave `header`, is the present one.
    ///
    /// # Errors
    ///
    /// [`Error::HeaderOutdated`]; of a vault that is sealed, those of [`Self::unseal`] as well.
    pub(super) fn attest(&self, bytes: &[u8], header: &mut OpenHeader) -> Result<(), Error> {
        if let Some(witness) = self.witness.get() {
            return match witness.check(Part::Header, bytes)? {
                Verdict::Present => Ok(()),
                Verdict::Other | Verdict::Unknown => Err(Error::HeaderOutdated),
            };
        }
        let opened = self.open_below(bytes, header, Rollback::Refused)?;
        if opened.is_adopted {
            // Nothing can be witnessed before an older version is brought up to this one.
            drop(self.load(header, opened)?);
        }
        Ok(())
    }

    /// Opens what is below `header`, which is the file `bytes`: the keyring, and the store unless it
    /// is open.
    pub(super) fn open_below(
        &self,
        bytes: &[u8],
        header: &OpenHeader,
        rollback: Rollback,
    ) -> Result<Opened, Error> {
        let file = self.directory.read(DataDir::KEYRING, keyring::MAX_LENGTH)?;
        let file = file.ok_or(Error::KeyringDamaged)?;
        let open = |key: &Key| Keyring::open(&file, self.store_id, key, header.root());
        let (key, opened) = match (open(header.keyring_key()), header.previous_keyring_key()) {
            (Err(_), Some(previous)) => (previous, open(previous)),
            (opened, _) => (header.keyring_key(), opened),
        };
        let is_former_key = !std::ptr::eq(key, header.keyring_key());
        let (keyring, age) = opened?;
        let is_outdated = age == Age::Unauthenticated;

        let files = [(Part::Header, bytes, "header"), (Part::Keyring, &*file, "keyring")];
        let (witness, is_adopted) = match self.witness.get() {
            // It has another key than the new one that such a keyring comes with.
            Some(_) if is_outdated => return Err(Error::KeyringOutdated),
            Some(witness) => (Arc::clone(witness), false),
            None if is_outdated => {
                let store = self.adopt_store(&keyring, |lookup| {
                    for (part, bytes, _) in files {
                        if Verdict::look_up(lookup, part, bytes)? == Verdict::Other
                            && rollback == Rollback::Refused
                        {
                            // Of a later time: its journal is not to be replaced.
                            return Err(part.outdated());
                        }
                    }
                    Ok(())
                })?;
                (Arc::new(store), true)
            }
            None => (Arc::new(self.open_store(&keyring, rollback)?), false),
        };
        let mut accepted = Vec::new();
        for (part, bytes, name) in files {
            match witness.check(part, bytes)? {
                Verdict::Present => {}
                // The store is of a time before there were digests, or its adoption was cut off.
                Verdict::Unknown if is_adopted => witness.accept(part, bytes),
                Verdict::Other | Verdict::Unknown => {
                    if rollback == Rollback::Refused {
                        return Err(part.outdated());
                    }
                    witness.accept(part, bytes);
                    accepted.push(format!(
                        "the {name} is not the one that belonged to the store, and was accepted"
                    ));
                }
            }
        }
        if !is_adopted {
            self.witness.get_or_init(|| Arc::clone(&witness));
        }
        let key = key.duplicate();
        Ok(Opened { keyring, age, key, is_former_key, is_adopted, witness, accepted })
    }

    /// Opens a store that nothing authenticates yet, if `check` agrees that it is one.
    fn adopt_store(
        &self,
        keyring: &Keyring,
        check: impl FnOnce(&store::Lookup<'_>) -> Result<(), Error>,
    ) -> Result<Witness, Error> {
        let (key, options) = (keyring.integrity_key(), &self.options.store);
        let store = SledStore::adopt(&self.directory, &key, options, check)?;
        Ok(Witness::new(Arc::new(store), Arc::clone(&self.directory)))
    }

    fn open_store(&self, keyring: &Keyring, rollback: Rollback) -> Result<Witness, Error> {
        let (key, options) = (keyring.integrity_key(), &self.options.store);
        let accept = rollback == Rollback::Accepted;
        let (store, repairs) = SledStore::open(&self.directory, &key, options, accept)?;
        for repair in &repairs {
            tracing::warn!(%repair, "the store was repaired");
        }
        self.repairs.lock().unwrap_or_else(PoisonError::into_inner).extend(repairs);
        Ok(Witness::new(Arc::new(store), Arc::clone(&self.directory)))
    }

    /// Completes what is to be completed. Answers which rollbacks were accepted as well.
    ///
    /// Parts that the store has authenticated fit together. Where a rollback was accepted, or
    /// nothing has authenticated the store so far, every directory is opened to find out; also for
    /// a keyring that does not say whose its keys are.
    pub(super) fn load(
        &self,
        header: &mut OpenHeader,
        opened: Opened,
    ) -> Result<(Unsealed, Vec<String>), Error> {
        let Opened { mut keyring, age, key, is_former_key, is_adopted, witness, accepted } = opened;
        let sealed = SealedStore::new(Arc::clone(witness.store()), self.store_id);
        sealed.follow_moves(&mut keyring)?;
        if age != Age::Current {
            name_keys(&sealed, &mut keyring)?;
        } else if !accepted.is_empty() {
            sealed.contents(&keyring, |_| Ok(()))?;
        }
        let mut left_over = Vec::new();
        for tombstone in keyring.tombstones() {
            if sealed.is_inhabited(tombstone.handle)? {
                left_over.push(tombstone.handle);
            }
        }
        let write_header =
            |header: &mut OpenHeader| witness.replace(Part::Header, &header.encode()?);
        if is_adopted {
            // Under another key: beside the header to come, the former keyring would be taken for
            // one whose store is still to be adopted.
            header.change_keyring_key(&key)?;
            write_header(header)?;
        }
        if is_adopted || is_former_key || age != Age::Current {
            keyring.save(self.store_id, header.keyring_key(), |bytes| {
                witness.replace(Part::Keyring, bytes)
            })?;
        }
        if header.is_outdated() || header.previous_keyring_key().is_some() {
            header.forget_previous_keyring_key();
            write_header(header)?;
        }
        let witness = Arc::clone(self.witness.get_or_init(|| witness));
        let unsealed = Unsealed::new(
            (sealed, witness),
            keyring,
            header.keyring_key().duplicate(),
            Arc::clone(&self.clock),
            &self.options,
        )?;
        unsealed.finish_removals(&left_over)?;
        match unsealed.witness.settle() {
            // It is a crash's work that is not finished then, and the next commit's.
            Err(Error::Store(error @ store::Error::Full { .. })) if accepted.is_empty() => {
                tracing::warn!(%error, "what belongs to the store is yet to be written");
            }
            settled => settled?,
        }
        for sentence in &accepted {
            tracing::warn!("{sentence}");
        }
        Ok((unsealed, accepted))
    }

    /// The store, once the vault has been unsealed.
    pub(super) fn store(&self) -> Result<Arc<dyn Store>, Error> {
        Ok(Arc::clone(self.witness()?.store()))
    }

    /// What belongs to the store, once the vault has been unsealed.
    pub(super) fn witness(&self) -> Result<&Arc<Witness>, Error> {
        self.witness.get().ok_or(Error::Sealed)
    }
}

/// Notes in `keyring` whose keys are whose, as the directories say.
fn name_keys(records: &SealedStore, keyring: &mut Keyring) -> Result<(), Error> {
    let mut names = Vec::new();
    records.contents(keyring, |entry| {
        names.push((entry.keys.handle, entry.directory.id.clone()));
        Ok(())
    })?;
    for (handle, id) in &names {
        keyring.name(*handle, id)?;
    }
    keyring.forget_unnamed();
    Ok(())
}
