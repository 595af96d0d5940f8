//! Client tokens: whose each is and what it may do, found by the token's secret.
//!
//! The secret is never stored. A record lies under `HMAC-SHA256(K_lookup, "k\0" ‖ secret)`, so the
//! store can neither be searched for a token nor be turned into tokens.
//!
//! A record is written once, and again where it is with the moment of the last use: some of them at a
//! time, now and then, which is no change of anything else.

use std::array::TryFromSliceError;
use std::fmt::Write as _;

use jiff::Timestamp;

use super::envelope::{self, MAX_PAYLOAD, Place, RecordKind};
use super::record;
use super::unsealed::Unsealed;
use super::{Error, TenantCredentialVault};
use crate::store::{Batch, Tree};
use crate::tenant::TenantId;

/// A client token without its secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenRecord {
    /// The public name, for listings, logs and revocation.
    pub token_id: String,
    /// The tenant that its bearer acts for.
    pub tenant: TenantId,
    /// What it may do; means nothing to the vault.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; whether it has is for the caller to see.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, as far as that was saved.
    pub used_at: Option<Timestamp>,
}

/// Where a token's record is. It tells nothing of the token's secret.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TokenPlace([u8; 32]);

/// A token's record. Of one that does not open, and is good for nothing: what
/// [`TenantCredentialVault::remove_token`] knows it by, for its public id is in what does not open.
pub type ListedToken = Result<TokenRecord, String>;

/// A token record is replaced where it is.
pub(super) const VERSION: u64 = 1;
pub(super) const FIELD: u16 = 0;
/// Enough that no two tokens have them in common.
const DAMAGED_NAME_BYTES: usize = 12;
/// Tokens that are read at once.
const PORTION: usize = 1_000;

impl TokenPlace {
    /// As [`TryFrom`] takes it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for TokenPlace {
    type Error = TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, TryFromSliceError> {
        bytes.try_into().map(Self)
    }
}

impl TenantCredentialVault {
    /// Stores `record` under `secret`.
    ///
    /// # Errors
    ///
    /// [`Error::NotConfigured`] or [`Error::TenantSealed`] when its tenant is; [`Error::Sealed`],
    /// [`Error::TooLarge`], [`Error::Store`].
    pub fn put_token(&self, secret: &[u8], record: &TokenRecord) -> Result<(), Error> {
        self.unsealed(|vault| vault.put_token(secret, record))
    }

    /// The token whose secret is `secret`. One read of the store, and no more when there is none.
    pub fn find_token(&self, secret: &[u8]) -> Result<Option<TokenRecord>, Error> {
        Ok(self.locate_token(secret)?.map(|(_, record)| record))
    }

    /// As [`Self::find_token`], with where it is, for [`Self::save_token_uses`].
    pub fn locate_token(&self, secret: &[u8]) -> Result<Option<(TokenPlace, TokenRecord)>, Error> {
        self.unsealed(|vault| vault.find_token(secret))
    }

    /// Notes when tokens were last used, in one commit. Those that are gone or damaged are left out,
    /// and an earlier moment does not replace a later one.
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`], [`Error::Store`]: nothing is saved.
    pub fn save_token_uses(&self, uses: &[(TokenPlace, Timestamp)]) -> Result<(), Error> {
        self.unsealed(|vault| vault.save_token_uses(uses))
    }

    /// Every token that opens, the oldest first.
    pub fn tokens(&self) -> Result<Vec<TokenRecord>, Error> {
        let tokens = self.tokens_after(None, usize::MAX)?;
        let mut tokens: Vec<_> = tokens.into_iter().filter_map(|(_, token)| token.ok()).collect();
        tokens.sort_by(|one, other| {
            (one.created_at, &one.token_id).cmp(&(other.created_at, &other.token_id))
        });
        Ok(tokens)
    }

    /// Up to `limit` tokens behind `after`, or from the first on, in the order of their places. Opens
    /// no others; who walks on from the last place meets every token once that is there all the while.
    pub fn tokens_after(
        &self,
        after: Option<TokenPlace>,
        limit: usize,
    ) -> Result<Vec<(TokenPlace, ListedToken)>, Error> {
        self.unsealed(|vault| vault.tokens_after(after, limit))
    }

    /// Removes the token called `token_id`, or the damaged one of that name; whether there was one. Opens
    /// every token, as they are not found by their public ids.
    pub fn remove_token(&self, token_id: &str) -> Result<bool, Error> {
        self.unsealed(|vault| vault.remove_token(token_id))
    }
}

impl Unsealed {
    fn put_token(&self, secret: &[u8], record: &TokenRecord) -> Result<(), Error> {
        let writing = self.writing();
        self.current(&writing, &record.tenant)?;
        let payload = record::encode_token(record);
        if payload.len() > MAX_PAYLOAD {
            return Err(Error::TooLarge {
                tenant: record.tenant.clone(),
                field: "token".to_owned(),
            });
        }
        let key = self.token_key(secret);
        let mut batch = Batch::default();
        let system = self.system();
        batch.put(Tree::Token, key, envelope::seal(&system, &self.token_place(&key), &payload)?);
        self.witness.apply(batch)
    }

    fn find_token(&self, secret: &[u8]) -> Result<Option<(TokenPlace, TokenRecord)>, Error> {
        let key = self.token_key(secret);
        let find = || {
            let Some(envelope) = self.records.store().get(Tree::Token, &key)? else {
                return Ok(None);
            };
            Ok(Some((TokenPlace(key), self.open_token(&key, &envelope)?)))
        };
        find().or_else(|_| {
            // It may have been sealed under another key meanwhile. Not while we hold the lock.
            let _writing = self.writing();
            find()
        })
    }

    fn save_token_uses(&self, uses: &[(TokenPlace, Timestamp)]) -> Result<(), Error> {
        let _writing = self.writing();
        let mut batch = Batch::default();
        let system = self.system();
        for (TokenPlace(key), used_at) in uses {
            let Some(envelope) = self.records.store().get(Tree::Token, key)? else { continue };
            let Ok(mut record) = self.open_token(key, &envelope) else { continue };
            if record.used_at >= Some(*used_at) {
                continue;
            }
            record.used_at = Some(*used_at);
            let payload = record::encode_token(&record);
            if payload.len() > MAX_PAYLOAD {
                continue;
            }
            batch.put(
                Tree::Token,
                *key,
                envelope::seal(&system, &self.token_place(key), &payload)?,
            );
        }
        if batch.is_empty() { Ok(()) } else { self.witness.apply(batch) }
    }

    fn tokens_after(
        &self,
        mut after: Option<TokenPlace>,
        limit: usize,
    ) -> Result<Vec<(TokenPlace, ListedToken)>, Error> {
        let mut tokens = Vec::new();
        while tokens.len() < limit {
            // Not for longer, as others wait to write.
            let _writing = self.writing();
            let portion = PORTION.min(limit - tokens.len());
            let key = after.as_ref().map(TokenPlace::as_bytes);
            let pairs = self.records.store().scan_after(Tree::Token, key, portion)?;
            let is_last = pairs.len() < portion;
            for (key, envelope) in pairs {
                let place =
                    TokenPlace::try_from(&*key).map_err(|_| self.token_place(&key).damaged())?;
                let token = match self.open_token(&key, &envelope) {
                    Ok(token) => Ok(token),
                    Err(Error::RecordDamaged { .. }) => Err(damaged_name(&key)),
                    Err(error) => return Err(error),
                };
                after = Some(place);
                tokens.push((place, token));
            }
            if is_last {
                break;
            }
        }
        Ok(tokens)
    }

    fn remove_token(&self, token_id: &str) -> Result<bool, Error> {
        let _writing = self.writing();
        let mut batch = Batch::default();
        // In 256 portions, so that not all of them are in memory.
        for first in 0..=u8::MAX {
            for (key, envelope) in self.records.store().scan(Tree::Token, &[first])? {
                // One that does not open cannot be used either, and must not keep others valid.
                let is_meant = match self.open_token(&key, &envelope) {
                    Ok(token) => token.token_id == token_id,
                    Err(_) => damaged_name(&key) == token_id,
                };
                if is_meant {
                    batch.remove(Tree::Token, key);
                }
            }
        }
        let found = !batch.is_empty();
        self.witness.apply(batch)?;
        Ok(found)
    }

    pub(super) fn open_token(&self, key: &[u8], envelope: &[u8]) -> Result<TokenRecord, Error> {
        let place = self.token_place(key);
        let system = self.system();
        let opened = envelope::open(&system, &place, envelope)?;
        record::decode_token(&opened).map_err(|_| place.damaged())
    }

    pub(super) fn token_place<'a>(&self, key: &'a [u8]) -> Place<'a> {
        self.records.place(RecordKind::Token, FIELD, VERSION, key)
    }

    fn token_key(&self, secret: &[u8]) -> [u8; 32] {
        self.lookup_key.mac(&[b"k\0", secret])
    }
}

/// What a token is called whose record does not open: part of its store key, which is a keyed digest.
pub(super) fn damaged_name(key: &[u8]) -> String {
    let mut name = "damaged_".to_owned();
    for byte in key.iter().take(DAMAGED_NAME_BYTES) {
        write!(name, "{byte:02x}").expect("writing to a string does not fail");
    }
    name
}
