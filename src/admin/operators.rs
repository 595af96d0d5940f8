//! The actions on operators' tokens, and reading the audit log.

use jiff::Timestamp;

use super::{About, Admin, Error};
use crate::audit::{self, Entry, Filter, Verified};
use crate::auth::{OperatorInfo, Role};
use crate::memory::SecretText;

/// What revokes every operator's token, also those that do not open.
const ALL: &str = "all";

impl Admin {
    /// Makes a token for an operator. Its text is in the answer and nowhere else.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCommand`] when `role` is none.
    pub fn create_operator(
        &self,
        role: &str,
        expires_at: Option<Timestamp>,
    ) -> Result<(SecretText, OperatorInfo), Error> {
        let unknown = Error::InvalidCommand("a role is operator or auditor");
        let role = Role::parse(role).ok_or(unknown)?;
        let about = About { resource: Some(role.as_str().to_owned()), ..About::default() };
        let made = |(_, info): &(SecretText, OperatorInfo)| {
            (None, Some(format!("{} ({})", info.operator_id, role.as_str())))
        };
        let create = || Ok(self.auth.create_operator(role, expires_at)?);
        self.change("operator.create", &about, made, create)
    }

    /// Every operator's token, oldest first.
    pub fn operators(&self) -> Result<Vec<OperatorInfo>, Error> {
        Ok(self.auth.operators()?)
    }

    /// Makes an operator's token worthless at once, or with `all` every one, also when they do not
    /// open.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchOperator`].
    pub fn revoke_operator(&self, operator_id: &str) -> Result<(), Error> {
        let about = About { resource: Some(operator_id.to_owned()), ..About::default() };
        let revoke = || {
            if operator_id == ALL {
                return Ok(self.auth.revoke_operators()?);
            }
            let is_revoked = self.auth.revoke_operator(operator_id)?;
            if is_revoked { Ok(()) } else { Err(Error::NoSuchOperator) }
        };
        self.change("operator.revoke", &about, |()| (None, None), revoke)
    }

    /// The entries of the audit log that `filter` admits, oldest first, one at a time.
    pub fn audit_entries(
        &self,
        filter: Filter,
    ) -> Result<impl Iterator<Item = Result<Entry, audit::Error>>, Error> {
        Ok(audit::read(&self.vault.directory().audit_path(), filter)?)
    }

    /// Checks the audit log from its first entry to its last.
    pub fn verify_audit_log(&self) -> Result<Verified, Error> {
        Ok(audit::verify(&self.vault.directory().audit_path(), |_| {})?)
    }
}
