//! How a verb fails: a message with the way out, and an exit code.

use std::error::Error;
use std::fmt;

use crate::error::ErrorCode;
use crate::{admin, audit, auth, config, stdio, store, vault};

/// Exit code of a usage error, as clap has it.
const USAGE: u8 = 2;
const TRY_AGAIN: u8 = 75;

/// Why a verb failed.
#[derive(Debug)]
pub(super) struct Failure {
    code: ErrorCode,
    exit_code: u8,
    message: String,
}

impl Failure {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let exit_code = match code {
            ErrorCode::Forbidden
            | ErrorCode::QueryRefused
            | ErrorCode::TenantDisabled
            | ErrorCode::Unauthenticated
            | ErrorCode::VaultSealed => 3,
            ErrorCode::IntegrityError => 4,
            ErrorCode::AuditUnavailable
            | ErrorCode::DatabaseUnavailable
            | ErrorCode::PoolExhausted
            | ErrorCode::QueryTimeout
            | ErrorCode::QuotaExceeded => TRY_AGAIN,
            ErrorCode::Cancelled
            | ErrorCode::InternalError
            | ErrorCode::InvalidArgument
            | ErrorCode::InvalidTenant
            | ErrorCode::QueryFailed
            | ErrorCode::ResourceNotFound
            | ErrorCode::ResultTooLarge
            | ErrorCode::TenantNotConfigured => 1,
        };
        Self { code, exit_code, message: message.into() }
    }

    /// The command line, or a setting, is wrong.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit_code: USAGE, ..Self::new(ErrorCode::InvalidArgument, message) }
    }

    /// The system refused something; `doing` says what.
    pub(super) fn io(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(ErrorCode::InternalError, format!("{doing}: {}", said(error.kind())))
    }

    pub(super) fn code(&self) -> ErrorCode {
        self.code
    }

    pub(super) fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        let failure = Self::new(error.code(), with_cause(&error));
        let exit_code =
            if matches!(error, store::Error::InUse { .. }) { TRY_AGAIN } else { failure.exit_code };
        Self { exit_code, ..failure }
    }
}

impl From<vault::Error> for Failure {
    fn from(error: vault::Error) -> Self {
        if let vault::Error::Store(error) = error {
            return error.into();
        }
        Self::new(error.code(), with_cause(&error))
    }
}

impl From<auth::Error> for Failure {
    fn from(error: auth::Error) -> Self {
        if let auth::Error::Vault(error) = error {
            return error.into();
        }
        Self::new(error.code(), error.to_string())
    }
}

impl From<admin::Error> for Failure {
    fn from(error: admin::Error) -> Self {
        match error {
            admin::Error::Audit(error) => error.into(),
            admin::Error::Auth(error) => error.into(),
            admin::Error::NoSuchToken => Self::new(error.code(), error.to_string()),
            admin::Error::Vault(error) => error.into(),
        }
    }
}

impl From<audit::Error> for Failure {
    fn from(error: audit::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<stdio::Error> for Failure {
    fn from(error: stdio::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// What an error says, and what the system said when that was the cause.
fn with_cause(error: &dyn Error) -> String {
    let mut cause = error.source();
    while let Some(error) = cause
        && !error.is::<std::io::Error>()
    {
        cause = error.source();
    }
    let system = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
    system.map_or_else(|| error.to_string(), |system| format!("{error}: {}", said(system.kind())))
}

/// A kind of error in words that people use.
pub(super) fn said(kind: std::io::ErrorKind) -> String {
    if kind == std::io::ErrorKind::NotFound {
        "no such file or directory".to_owned()
    } else {
        kind.to_string()
    }
}
