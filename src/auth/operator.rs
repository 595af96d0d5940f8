//! Operators' tokens: who may operate the service from elsewhere than its own socket.
//!
//! They name no tenant and give no access to any tenant's data: a client's token and an operator's
//! are never taken for each other.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Auth, Error, Origin, Token};
use crate::audit::Actor;
use crate::memory::SecretText;
use crate::vault::{self, OperatorRecord};

const PREFIX: &str = "tno_";

/// What an operator may do.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a role is a decision about every route")]
pub enum Role {
    /// Read what there is and how it is, without secrets, and the audit log.
    Auditor,
    /// Everything.
    Operator,
}

impl Role {
    /// The spelling on the command line and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::Operator => "operator",
        }
    }

    /// The role that [`Role::as_str`] gives as `text`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Auditor, Self::Operator].into_iter().find(|role| role.as_str() == text)
    }
}

/// An operator's token as it is listed: everything but the secret.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OperatorInfo {
    /// Public id, for revoking and for the audit log.
    pub operator_id: String,
    /// What it allows; none for a role that this version does not know, which allows nothing.
    pub role: Option<Role>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
}

impl Auth {
    /// Makes an operator's token. Its text is in the answer and nowhere else.
    pub fn create_operator(
        &self,
        role: Role,
        expires_at: Option<Timestamp>,
    ) -> Result<(SecretText, OperatorInfo), Error> {
        let (token, text) = Token::generate_with(PREFIX).map_err(|_| Error::Randomness)?;
        let mut id = [0; 6];
        getrandom::fill(&mut id).map_err(|_| Error::Randomness)?;
        let record = OperatorRecord {
            operator_id: id.iter().fold("op_".to_owned(), |id, byte| format!("{id}{byte:02x}")),
            role: role.as_str().to_owned(),
            created_at: self.clock.now(),
            expires_at,
        };
        let info = OperatorInfo::from(&record);
        self.vault.put_operator(token.secret(), record)?;
        Ok((text, info))
    }

    /// Every operator's token, oldest first.
    pub fn operators(&self) -> Result<Vec<OperatorInfo>, Error> {
        Ok(self.vault.operators()?.iter().map(OperatorInfo::from).collect())
    }

    /// Makes the operator's token with this public id worthless, at once. False when there is none.
    pub fn revoke_operator(&self, operator_id: &str) -> Result<bool, Error> {
        Ok(self.vault.remove_operator(operator_id)?)
    }

    /// Makes all of them worthless, also when they do not open.
    pub fn revoke_operators(&self) -> Result<(), Error> {
        Ok(self.vault.remove_operators()?)
    }

    /// Whose operator's token `text` is, and what it allows. A read of the store, each time: what is
    /// revoked or expired is nobody's at once.
    ///
    /// # Errors
    ///
    /// [`Error::Unauthenticated`], [`Error::Sealed`] whatever the token is, and [`Error::Forbidden`] for
    /// a role that this version does not know; all recorded. [`Error::Throttled`] in place of the first
    /// and the last, after many of them.
    pub async fn authenticate_operator(
        &self,
        text: Option<&str>,
        origin: Origin,
    ) -> Result<(String, Role), Error> {
        let (actor, refusal) = match self.find_operator(text).await {
            Ok(OperatorInfo { operator_id, role: Some(role), .. }) => {
                return Ok((operator_id, role));
            }
            Ok(info) => (Actor::Operator { name: info.operator_id }, Error::Forbidden),
            Err(error @ (Error::Sealed | Error::Unauthenticated)) => (Actor::Anonymous, error),
            // It was sealed a moment ago.
            Err(Error::Vault(vault::Error::Sealed)) => (Actor::Anonymous, Error::Sealed),
            Err(error) => return Err(error),
        };
        let attempt = origin.attempt(actor, "admin.connect", None);
        Err(self.refuse(attempt, None, refusal).await)
    }

    /// Records an attempt that is refused whoever makes it; what to answer: [`Error::Forbidden`], or
    /// [`Error::Throttled`] after many of them.
    pub async fn refuse_operator(&self, origin: Origin) -> Error {
        let attempt = origin.attempt(Actor::Anonymous, "admin.connect", None);
        self.refuse(attempt, None, Error::Forbidden).await
    }

    async fn find_operator(&self, text: Option<&str>) -> Result<OperatorInfo, Error> {
        if self.vault.is_sealed() {
            return Err(Error::Sealed);
        }
        let token = text.and_then(|text| Token::parse_with(PREFIX, text));
        let token = token.ok_or(Error::Unauthenticated)?;
        let vault = Arc::clone(&self.vault);
        let found = tokio::task::spawn_blocking(move || vault.find_operator(token.secret())).await;
        let record = found.map_err(|_| Error::Unauthenticated)??.ok_or(Error::Unauthenticated)?;
        if record.expires_at.is_some_and(|end| end <= self.clock.now()) {
            return Err(Error::Unauthenticated);
        }
        Ok(OperatorInfo::from(&record))
    }
}

impl From<&OperatorRecord> for OperatorInfo {
    fn from(record: &OperatorRecord) -> Self {
        Self {
            operator_id: record.operator_id.clone(),
            role: Role::parse(&record.role),
            created_at: record.created_at,
            expires_at: record.expires_at,
        }
    }
}
