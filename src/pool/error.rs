//! Why there is no instance.

use crate::database;
use crate::error::{Bound, ErrorCode};
use crate::server;
use crate::vault;

/// Why there is no instance.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What the caller was granted is over: its token was revoked, or expired.
    #[error("the access has ended")]
    AccessEnded,
    /// The session could not be opened.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The tenant is switched off.
    #[error("the tenant is disabled")]
    Disabled,
    /// As much is under way as may be: at once where too many calls wait, else for the whole of
    /// `acquire_timeout`.
    #[error(transparent)]
    Exhausted(Bound),
    /// Reading the vault panicked, which the log has.
    #[error("reading the vault failed")]
    Panicked,
    /// The pool is closed.
    #[error("the pool is shut down")]
    ShutDown,
    /// The vault did not open the tenant's record.
    #[error(transparent)]
    Vault(#[from] vault::Error),
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::AccessEnded => ErrorCode::Unauthenticated,
            Self::Database(error) => error.code(),
            Self::Disabled => ErrorCode::TenantDisabled,
            Self::Exhausted(_) => ErrorCode::PoolExhausted,
            Self::Panicked => ErrorCode::InternalError,
            Self::ShutDown => ErrorCode::Cancelled,
            Self::Vault(error) => error.code(),
        }
    }
}

impl From<Error> for server::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(error) => Self::Database(error),
            Error::Exhausted(bound) => Self::Exhausted(bound),
            Error::AccessEnded
            | Error::Disabled
            | Error::Panicked
            | Error::ShutDown
            | Error::Vault(_) => Self::Instance(error.code()),
        }
    }
}
