//! What is private, for benches and fuzz targets. It exists with the feature `internals` only, is no
//! part of the interface, and changes nothing else.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use super::envelope::{self, Place, RecordKind};
use super::key::{Key, random};
use super::keyring::{Term, TermState};
use super::{Error, Handle, StoreId, TenantCredentialVault, TenantKeys, Uuid};
use crate::store::Tree;

/// One record of one tenant with keys of its own.
#[derive(Debug)]
pub struct Record {
    keys: TenantKeys,
    key: [u8; 26],
}

impl Record {
    /// A record of a tenant that nobody else has.
    pub fn random() -> Result<Self, Error> {
        let term = Term { number: 1, state: TermState::Active, key: Arc::new(Key::random()?) };
        let (mut uuid, mut handle, mut key) = ([0; 16], [0; 16], [0; 26]);
        for bytes in [&mut uuid[..], &mut handle, &mut key] {
            random(bytes)?;
        }
        let keys = TenantKeys::new(Uuid(uuid), Handle(handle), vec![term]);
        let keys = keys.map_err(|_| Error::KeyringDamaged)?;
        Ok(Self { keys, key })
    }

    /// The envelope of `payload`.
    pub fn seal(&self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        envelope::seal(&self.keys, &self.place(), payload)
    }

    /// The payload of `envelope`.
    pub fn open(&self, envelope: &[u8]) -> Result<impl Deref<Target = [u8]> + use<>, Error> {
        envelope::open(&self.keys, &self.place(), envelope)
    }

    /// What the envelope authenticates beside its ciphertext.
    pub fn associated_data(&self, envelope: &[u8]) -> Vec<u8> {
        let head = envelope.get(..envelope::HEAD_LENGTH).unwrap_or_default();
        self.place().associated_data(head, &self.keys)
    }

    fn place(&self) -> Place<'_> {
        let (kind, field, version) = (RecordKind::Credential, 2, 1);
        Place { store_id: StoreId([7; 16]), kind, field, version, key: &self.key }
    }
}

/// Every envelope of every tenant by its key, as it is in the store.
pub fn envelopes(vault: &TenantCredentialVault) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Error> {
    vault.unsealed(|vault| Ok(vault.records.store().scan(Tree::Tenant, &[])?.into_iter().collect()))
}
