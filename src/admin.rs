//! What an operator can do: one audited method each.
//!
//! An action that changes something is announced in the audit log first, then done, then concluded
//! there; when the announcement cannot be written, it is not done. All methods may block.

use std::sync::Arc;

use jiff::Timestamp;
use secrecy::SecretString;

use crate::audit::{self, Actor, Attempt, Log, Outcome, RequestId};
use crate::auth::{self, Auth, TokenInfo};
use crate::error::ErrorCode;
use crate::tenant::{Permissions, ResolvedTenant, TenantId};
use crate::vault::{self, Change, StoredTenant, TenantCredentialVault, TenantSummary};

/// An operator at work.
#[derive(Debug)]
pub struct Admin {
    vault: Arc<TenantCredentialVault>,
    auth: Arc<Auth>,
    log: Log,
    operator: Actor,
}

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It could not be recorded; when that is found before it was done, it was not done.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// Tokens.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// Tenants.
    #[error(transparent)]
    Vault(#[from] vault::Error),
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Audit(error) => error.code(),
            Self::Auth(error) => error.code(),
            Self::Vault(error) => error.code(),
        }
    }
}

impl Admin {
    /// Actions of `operator` on `vault`, recorded in `log`.
    pub fn new(
        vault: Arc<TenantCredentialVault>,
        auth: Arc<Auth>,
        log: Log,
        operator: Actor,
    ) -> Self {
        Self { vault, auth, log, operator }
    }

    /// What importing `tenants` would change.
    pub fn plan_import(&self, tenants: &[ResolvedTenant]) -> Result<Vec<Change>, Error> {
        Ok(self.vault.plan(tenants)?)
    }

    /// Imports `tenants`, all or none.
    pub fn import(&self, tenants: Vec<ResolvedTenant>) -> Result<Vec<Change>, Error> {
        let changed = |changes: &Vec<Change>| Some(changes.len() as u64);
        self.change("tenant.import", None, changed, || Ok(self.vault.import(tenants)?))
    }

    /// Every tenant, by id.
    pub fn tenants(&self) -> Result<Vec<TenantSummary>, Error> {
        Ok(self.vault.tenants()?)
    }

    /// One tenant, without its secrets.
    pub fn tenant(&self, id: &TenantId) -> Result<StoredTenant, Error> {
        Ok(self.vault.tenant(id)?)
    }

    /// Switches a tenant on or off. Takes effect on the next start of the service.
    pub fn set_enabled(&self, id: &TenantId, enabled: bool) -> Result<(), Error> {
        let action = if enabled { "tenant.enable" } else { "tenant.disable" };
        self.change(action, Some(id), |()| None, || Ok(self.vault.set_enabled(id, enabled)?))
    }

    /// Makes a token for `tenant`. Its text is in the answer and nowhere else.
    pub fn create_token(
        &self,
        tenant: &TenantId,
        permissions: Permissions,
        expires_at: Option<Timestamp>,
    ) -> Result<(SecretString, TokenInfo), Error> {
        let create = || Ok(self.auth.create(tenant, permissions, expires_at)?);
        self.change("token.create", Some(tenant), |_| None, create)
    }

    /// Every token, oldest first.
    pub fn tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        Ok(self.auth.tokens()?)
    }

    /// Makes a token worthless. False when there is none with this public id.
    pub fn revoke_token(&self, token_id: &str) -> Result<bool, Error> {
        let revoked = |revoked: &bool| Some(u64::from(*revoked));
        self.change("token.revoke", None, revoked, || Ok(self.auth.revoke(token_id)?))
    }

    fn change<T>(
        &self,
        action: &'static str,
        tenant: Option<&TenantId>,
        count: impl FnOnce(&T) -> Option<u64>,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let pending = self.log.begin(Attempt {
            request_id: RequestId::random(),
            actor: self.operator.clone(),
            peer: None,
            action,
            tenant: tenant.cloned(),
        });
        pending.announce_blocking()?;
        let result = work();
        let outcome = match &result {
            Ok(value) => Outcome { rows: count(value), ..Outcome::default() },
            Err(error) => Outcome { code: Some(error.code()), ..Outcome::default() },
        };
        pending.complete_blocking(outcome)?;
        result
    }
}
