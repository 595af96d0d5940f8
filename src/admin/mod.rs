//! What an operator can do: one audited method each.
//!
//! ```text
//! command line --------------------+
//!                                  +--> Command, secrets --execute--> Admin --> a JSON answer
//! command line --> admin API ------+        (command.rs)       (one method)   (describe.rs)
//! ```
//!
//! An action that changes something is announced in the audit log first, then done, then concluded
//! there; when the announcement cannot be written, it is not done. All methods may block.

mod backup;
mod check;
mod command;
mod describe;
mod doctor;
mod execute;
mod import;
mod keys;
mod operators;
mod page;
mod quota;
mod reload;
mod roles;
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use crate::audit::{self, Actor, Attempt, Log, Outcome, RequestId};
use crate::auth::{self, Auth, TokenInfo};
use crate::database;
use crate::error::ErrorCode;
use crate::manager::TenantMcpManager;
use crate::memory::SecretText;
use crate::tenant::{InvalidTenantId, Permissions, TenantId};
use crate::vault::{self, StoredTenant, TenantCredentialVault, TenantSummary};

pub use crate::manager::Reloaded;
pub use backup::{Restore, verify_backup};
pub use check::{Rescued, audit_log, examine, salvage};
pub use command::{Command, Progress, Proof, SlotRequest};
pub(crate) use describe::{
    imported as describe_imported, report as describe_report, rescued as describe_rescued,
};
pub use import::{Candidate, Import, Imported};
pub(crate) use page::MAX_LIMIT;
pub use quota::QuotaReport;
pub use roles::Privileged;
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
    /// Ties what is recorded to a request; `None` gives each entry an id of its own.
    request_id: Option<RequestId>,
    /// Where the request came in.
    peer: Option<String>,
    /// Whether anything was recorded.
    has_recorded: AtomicBool,
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
    /// No operator's token has this public id.
    #[error("no such operator token; `tenantry operator list` shows those there are")]
    NoSuchOperator,
    /// No token has this public id.
    #[error("no such token; `tenantry token list` shows those there are")]
    NoSuchToken,
    /// The service stops.
    #[error("the service stops, and nothing was changed; run it again once it is back")]
    Stopped,
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
            Self::NoSuchOperator | Self::NoSuchToken => ErrorCode::ResourceNotFound,
            Self::Stopped => ErrorCode::Cancelled,
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
        Self {
            vault,
            auth,
            log,
            operator,
            manager: None,
            databases: None,
            request_id: None,
            peer: None,
            has_recorded: AtomicBool::new(false),
        }
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
        Self { manager: Some(manager), databases, ..Self::new(vault, auth, log, operator) }
    }

    /// The same for one request, which came from `peer`.
    #[must_use]
    pub fn for_request(self, request_id: RequestId, peer: Option<String>) -> Self {
        Self { request_id: Some(request_id), peer, ..self }
    }

    /// Records an attempt at `action` that changes nothing, or came to nothing before anything was
    /// recorded; nothing where an action has recorded itself.
    ///
    /// # Errors
    ///
    /// [`Error::Audit`]: what it describes must not be answered.
    pub fn record_unless_recorded(
        &self,
        action: &'static str,
        code: Option<ErrorCode>,
    ) -> Result<(), Error> {
        if self.has_recorded.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let pending = self.log.begin(self.attempt(action, None));
        Ok(pending.complete_blocking(Outcome { code, ..Outcome::default() })?)
    }

    /// What is known of an attempt of this operator.
    fn attempt(&self, action: &'static str, tenant: Option<&TenantId>) -> Attempt {
        Attempt {
            request_id: self.request_id.clone().unwrap_or_else(RequestId::random),
            actor: self.operator.clone(),
            peer: self.peer.clone(),
            action,
            tenant: tenant.cloned(),
        }
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
        let mut pending = self.log.begin(self.attempt(action, about.tenant));
        if let Some(resource) = &about.resource {
            pending.set_resource(resource, None);
        }
        self.has_recorded.store(true, Ordering::Release);
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
