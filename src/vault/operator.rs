//! Operator tokens: one sealed record that lists them all.
//!
//! ```text
//! Tree::Meta, "operators" --> envelope of kind 8: id, HMAC-SHA256(K_lookup, "o\0" ‖ secret), role, times; ...
//! ```
//!
//! Under the system's keys, as the tokens of clients are. There are few of them, and a secret is
//! compared with every one in the same time. No secret is stored.

use jiff::Timestamp;
use subtle::ConstantTimeEq;

use super::codec::{Malformed, Reader, Writer};
use super::envelope::{self, MAX_PAYLOAD, Place, RecordKind};
use super::keyring::TenantKeys;
use super::sealed::SealedStore;
use super::unsealed::Unsealed;
use super::{Error, TenantCredentialVault};
use crate::store::{Batch, Tree};

/// Where the record is.
pub(super) const KEY: &[u8] = b"operators";
/// First byte of the payload.
const VERSION: u8 = 1;
/// Most operator tokens: that many fit into a record.
const MAX_OPERATORS: usize = 32;
/// Longest id, and longest role, in bytes.
const MAX_TEXT: usize = 32;

/// An operator's token without its secret.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field")]
pub struct OperatorRecord {
    /// The public name, for listings, the audit log and revocation.
    pub operator_id: String,
    /// What its bearer may do; means nothing to the vault.
    pub role: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; whether it has is for the caller to see.
    pub expires_at: Option<Timestamp>,
}

/// A token and what its secret is known by.
pub(super) type Known = (OperatorRecord, [u8; 32]);

impl TenantCredentialVault {
    /// Stores `record` under `secret`.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyOperators`], [`Error::Sealed`], [`Error::RecordDamaged`], [`Error::Store`].
    pub fn put_operator(&self, secret: &[u8], record: OperatorRecord) -> Result<(), Error> {
        self.unsealed(|vault| {
            vault.change_operators(|known| {
                let fits = known.len() < MAX_OPERATORS
                    && record.operator_id.len() <= MAX_TEXT
                    && record.role.len() <= MAX_TEXT;
                if !fits {
                    return Err(Error::TooManyOperators);
                }
                known.push((record, vault.operator_hash(secret)));
                Ok(())
            })
        })
    }

    /// The token whose secret is `secret`. The same work whether there is one or not.
    pub fn find_operator(&self, secret: &[u8]) -> Result<Option<OperatorRecord>, Error> {
        self.unsealed(|vault| {
            let hash = vault.operator_hash(secret);
            let mut found = None;
            for (record, known) in vault.operators()? {
                if bool::from(known.ct_eq(&hash)) {
                    found = Some(record);
                }
            }
            Ok(found)
        })
    }

    /// Every operator token, the oldest first.
    pub fn operators(&self) -> Result<Vec<OperatorRecord>, Error> {
        self.unsealed(|vault| {
            Ok(vault.operators()?.into_iter().map(|(record, _)| record).collect())
        })
    }

    /// Removes the token called `operator_id`; whether there was one.
    pub fn remove_operator(&self, operator_id: &str) -> Result<bool, Error> {
        self.unsealed(|vault| {
            let mut is_removed = false;
            vault.change_operators(|known| {
                let count = known.len();
                known.retain(|(record, _)| record.operator_id != operator_id);
                is_removed = known.len() < count;
                Ok(())
            })?;
            Ok(is_removed)
        })
    }

    /// Removes every operator token, also when their record does not open.
    pub fn remove_operators(&self) -> Result<(), Error> {
        self.unsealed(|vault| {
            let _writing = vault.writing();
            let mut batch = Batch::default();
            batch.remove(Tree::Meta, KEY);
            vault.witness.apply(batch)
        })
    }
}

impl Unsealed {
    /// Every operator token; there is no record where there are none.
    pub(super) fn operators(&self) -> Result<Vec<Known>, Error> {
        let read = || {
            let envelope = self.records.store().get(Tree::Meta, KEY)?;
            let open = |envelope: Vec<u8>| open(&self.records, &self.system(), &envelope);
            Ok(envelope.map(open).transpose()?.unwrap_or_default())
        };
        read().or_else(|_: Error| {
            // It may have been sealed under another key meanwhile. Not while we hold the lock.
            let _writing = self.writing();
            read()
        })
    }

    fn change_operators(
        &self,
        change: impl FnOnce(&mut Vec<Known>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let _writing = self.writing();
        let (system, store) = (self.system(), self.records.store());
        let envelope = store.get(Tree::Meta, KEY)?;
        let known = envelope.map(|it| open(&self.records, &system, &it)).transpose()?;
        let mut known = known.unwrap_or_default();
        let before = known.len();
        change(&mut known)?;
        if known.len() == before {
            return Ok(());
        }
        let mut batch = Batch::default();
        if known.is_empty() {
            batch.remove(Tree::Meta, KEY);
        } else {
            let payload = encode(&known);
            if payload.len() > MAX_PAYLOAD {
                return Err(Error::TooManyOperators);
            }
            let sealed = envelope::seal(&system, &place(&self.records), &payload)?;
            batch.put(Tree::Meta, KEY, sealed);
        }
        self.witness.apply(batch)
    }

    fn operator_hash(&self, secret: &[u8]) -> [u8; 32] {
        self.lookup_key.mac(&[b"o\0", secret])
    }
}

/// The place of the record.
pub(super) fn place(records: &SealedStore) -> Place<'static> {
    records.place(RecordKind::Operators, 0, 1, KEY)
}

/// What the record says, opened with the system's keys.
pub(super) fn open(
    records: &SealedStore,
    system: &TenantKeys,
    envelope: &[u8],
) -> Result<Vec<Known>, Error> {
    let place = place(records);
    let opened = envelope::open(system, &place, envelope)?;
    decode(&opened).map_err(|Malformed| place.damaged())
}

pub(super) fn encode(known: &[Known]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u8(VERSION);
    writer.count(known.len());
    for (OperatorRecord { operator_id, role, created_at, expires_at }, hash) in known {
        writer.text(operator_id);
        writer.raw(hash);
        writer.text(role);
        writer.time(*created_at);
        writer.optional(*expires_at, Writer::time);
    }
    writer.finish()
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Known>, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != VERSION {
        return Err(Malformed);
    }
    let mut known = Vec::new();
    for _ in 0..reader.count(32)? {
        let operator_id = reader.text()?.to_owned();
        let hash = reader.array()?;
        let record = OperatorRecord {
            operator_id,
            role: reader.text()?.to_owned(),
            created_at: reader.time()?,
            expires_at: reader.optional(Reader::time)?,
        };
        known.push((record, hash));
    }
    reader.finish()?;
    Ok(known)
}
