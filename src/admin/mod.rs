//! What an operator can do: one audited method each.
//!
//! ```text
//! command line --------------------+
//!                                  +--> Command, secrets --execute--> Admin --> a JSON answer
//! command line --> admin socket ---+        (command.rs)       (one method)   (describe.rs)
//! ```
//!
//! An action that changes something is announced in the audit log first, then done, then concluded
//! there; when the announcement cannot be written, it is not done. All methods may block.

mod backup;
mod check;
mod command;
mod describe;
mod doctor;
mod keys;
mod quota;
mod reload;
mod words;

use std::sync::Arc;

use jiff::Timestamp;

use crate::audit::{self, Actor, Attempt, Log, Outcome, RequestId};
use crate::auth::{self, Auth, TokenInfo};
use crate::database;
use crate::error::ErrorCode;
use crate::manager::TenantMcpManager;
use crate::memory::SecretText;
use crate::tenant::{InvalidTenantId, Permissions, ResolvedTenant, TenantId};
use crate::vault::{self, Change, ChangeKind, StoredTenant, TenantCredentialVault, TenantSummary};

pub use crate::manager::Reloaded;
pub use backup::{Restore, verify_backup};
pub use check::{Rescued, audit_log, examine, salvage};
pub use command::{Command, Progress, Proof, SlotRequest};
pub(crate) use describe::{report as describe_report, rescued as describe_rescued};
pub use quota::QuotaReport;
pub(crate) use words::{said, with_cause};

/// An operator at work.
#[derive(Debug)]
pub struct Admin {
    vault: Arc<TenantCredentialVault>,
    auth: Arc<Auth>,
    log: Log,
    operator: Actor,
    /// Of the service that this operator works on, when one runs.
    manager: Option<Arc<TenantMcpManager>>,
    /// How tenants' databases are reached, where they are.
    databases: Option<database::Options>,
}

/// What an action is about, as far as it is known before.
#[derive(Default)]
struct About<'a> {
    tenant: Option<&'a TenantId>,
    resource: Option<String>,
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
    /// The command, or a secret that came with it, is not what it should be.
    #[error("{0}")]
    InvalidCommand(&'static str),
    /// The id breaks the rule for ids.
    #[error(transparent)]
    InvalidTenant(#[from] InvalidTenantId),
    /// No token has this public id.
    #[error("no such token; `tenantry token list` shows those there are")]
    NoSuchToken,
    /// A setting is wrong.
    #[error("nothing was changed: {0}")]
    Settings(String),
    /// A tenant file is not what it was when it was checked.
    #[error("{0} has changed while it was read; import it again")]
    TenantFile(String),
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
            Self::InvalidCommand(_) | Self::Settings(_) | Self::TenantFile(_) => {
                ErrorCode::InvalidArgument
            }
            Self::InvalidTenant(_) => ErrorCode::InvalidTenant,
            Self::NoSuchToken => ErrorCode::ResourceNotFound,
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
        Self { vault, auth, log, operator, manager: None, databases: None }
    }

    /// The same, with a way to tenants' databases.
    #[must_use]
    pub fn with_databases(self, options: database::Options) -> Self {
        Self { databases: Some(options), ..self }
    }

    /// Actions of `operator` on a running service, with effect on the calls that it serves.
    pub fn of(manager: Arc<TenantMcpManager>, operator: Actor) -> Self {
        let (vault, auth) = (Arc::clone(manager.vault()), Arc::clone(manager.auth()));
        let log = manager.log().clone();
        let databases = Some(manager.databases().clone());
        Self { vault, auth, log, operator, manager: Some(manager), databases }
    }

    /// What importing the tenants `ids` would change; `read` gives the one at a place among them.
    pub fn plan_import(
        &self,
        ids: &[TenantId],
        read: impl FnMut(usize) -> Result<ResolvedTenant, Error>,
    ) -> Result<Vec<Change>, Error> {
        self.vault.plan_each(ids, read)
    }

    /// Imports the tenants `ids`, all or none; `read` gives the one at a place among them.
    pub fn import(
        &self,
        ids: &[TenantId],
        read: impl FnMut(usize) -> Result<ResolvedTenant, Error>,
    ) -> Result<Vec<Change>, Error> {
        let names: Vec<_> = ids.iter().map(TenantId::as_str).collect();
        let about = About { resource: Some(names.join(" ")), ..About::default() };
        let changed = |changes: &Vec<Change>| {
            let is_change = |change: &&Change| !matches!(change.kind, ChangeKind::Unchanged);
            (Some(changes.iter().filter(is_change).count() as u64), None)
        };
        self.change("tenant.import", &about, changed, || self.vault.import_each(ids, read))
    }

    /// Lets tenants that were removed be imported again.
    pub fn readmit(&self, ids: &[TenantId]) -> Result<(), Error> {
        let names: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let about = About { resource: Some(names.join(" ")), ..About::default() };
        let readmit = || Ok(self.vault.readmit(ids)?);
        self.change("tenant.readmit", &about, |()| (None, None), readmit)
    }

    /// Records that `tenant` is to be imported though its role may do more than any tenant needs.
    pub fn allow_privileged(&self, tenant: &TenantId, findings: &str) -> Result<(), Error> {
        let about = About { tenant: Some(tenant), resource: Some(findings.to_owned()) };
        self.change("tenant.allow_privileged", &about, |()| (None, None), || Ok(()))
    }

    /// Every tenant, by id.
    pub fn tenants(&self) -> Result<Vec<TenantSummary>, Error> {
        Ok(self.vault.tenants()?)
    }

    /// One tenant, without its secrets.
    pub fn tenant(&self, id: &TenantId) -> Result<StoredTenant, Error> {
        Ok(self.vault.tenant(id)?)
    }

    /// Switches a tenant on or off, with effect from its next call.
    pub fn set_enabled(&self, id: &TenantId, enabled: bool) -> Result<(), Error> {
        let action = if enabled { "tenant.enable" } else { "tenant.disable" };
        let about = About { tenant: Some(id), resource: None };
        self.change(action, &about, |()| (None, None), || Ok(self.vault.set_enabled(id, enabled)?))
    }

    /// Makes a token for `tenant`. Its text is in the answer and nowhere else.
    pub fn create_token(
        &self,
        tenant: &TenantId,
        permissions: Permissions,
        expires_at: Option<Timestamp>,
    ) -> Result<(SecretText, TokenInfo), Error> {
        let create = || Ok(self.auth.create(tenant, permissions, expires_at)?);
        let about = About { tenant: Some(tenant), resource: None };
        let made = |(_, info): &(SecretText, TokenInfo)| (None, Some(info.token_id.clone()));
        self.change("token.create", &about, made, create)
    }

    /// Every token that opens, oldest first.
    pub fn tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        Ok(self.auth.tokens()?)
    }

    /// The names of the tokens whose records are damaged, for [`Admin::revoke_token`].
    pub fn damaged_tokens(&self) -> Result<Vec<String>, Error> {
        Ok(self.vault.damaged_tokens()?)
    }

    /// Makes a token worthless, at once.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchToken`].
    pub fn revoke_token(&self, token_id: &str) -> Result<(), Error> {
        let about = About { tenant: None, resource: Some(token_id.to_owned()) };
        self.change(
            "token.revoke",
            &about,
            |()| (None, None),
            || {
                if !self.auth.revoke(token_id)? {
                    return Err(Error::NoSuchToken);
                }
                if let Some(manager) = &self.manager {
                    manager.close_credential(token_id);
                }
                Ok(())
            },
        )
    }

    /// Does `work` between its announcement and its conclusion in the log. `outcome` tells of the
    /// result how much was changed, and the name of what was made.
    fn change<T>(
        &self,
        action: &'static str,
        about: &About<'_>,
        outcome: impl FnOnce(&T) -> (Option<u64>, Option<String>),
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut pending = self.log.begin(Attempt {
            request_id: RequestId::random(),
            actor: self.operator.clone(),
            peer: None,
            action,
            tenant: about.tenant.cloned(),
        });
        if let Some(resource) = &about.resource {
            pending.set_resource(resource, None);
        }
        pending.announce_blocking()?;
        let result = work();
        let outcome = match &result {
            Ok(value) => {
                let (rows, made) = outcome(value);
                if let Some(made) = made {
                    pending.set_resource(&made, None);
                }
                Outcome { rows, ..Outcome::default() }
            }
            Err(error) => Outcome { code: Some(error.code()), ..Outcome::default() },
        };
        pending.complete_blocking(outcome)?;
        result
    }
}
