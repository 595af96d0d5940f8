//! How a verb fails: a message with the way out, and an exit code.

use std::fmt;

use crate::admin::with_cause;
use crate::error::ErrorCode;
use crate::{admin, api, audit, auth, config, http, manager, store, vault};

pub(super) use crate::admin::said;

/// Exit code of a usage error, as clap has it.
const USAGE: u8 = 2;
const TRY_AGAIN: u8 = 75;
/// Exit code of a service that was told to end, and has, but not without cutting calls.
const CUT: u8 = 5;

/// Why a verb failed.
#[derive(Debug)]
pub(super) struct Failure {
    code: ErrorCode,
    exit_code: u8,
    message: String,
}

impl Failure {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let exit_code = code.exit_code();
        Self { code, exit_code, message: message.into() }
    }

    /// The command line, or a setting, is wrong.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit_code: USAGE, ..Self::new(ErrorCode::InvalidArgument, message) }
    }

    /// So many calls were cut when the service ended.
    pub(super) fn cut(calls: u64) -> Self {
        let message = format!("{calls} call(s) did not finish in time and were cut");
        Self { exit_code: CUT, ..Self::new(ErrorCode::Cancelled, message) }
    }

    /// The system refused something; `doing` says what.
    pub(super) fn io(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(ErrorCode::InternalError, format!("{doing}: {}", said(error.kind())))
    }

    /// Another process has the data directory.
    fn in_use(path: &str, holder: Option<u32>) -> Self {
        let process = holder.map_or_else(String::new, |id| format!(" (process {id})"));
        let message = format!(
            "another tenantry{process} has {path}; run `tenantry serve`: any number of clients and \
             verbs then share it"
        );
        Self::new(ErrorCode::InUse, message)
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

impl From<http::Error> for Failure {
    fn from(error: http::Error) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        if let store::Error::InUse { path, holder } = &error {
            return Self::in_use(path, *holder);
        }
        Self::new(error.code(), with_cause(&error))
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
            admin::Error::InvalidCommand(_)
            | admin::Error::InvalidTenant(_)
            | admin::Error::NoSuchOperator
            | admin::Error::NoSuchToken
            | admin::Error::Settings(_)
            | admin::Error::Stopped
            | admin::Error::TenantFile(_) => Self::new(error.code(), error.to_string()),
            admin::Error::Vault(error) => error.into(),
        }
    }
}

impl From<api::ClientError> for Failure {
    fn from(error: api::ClientError) -> Self {
        match error {
            api::ClientError::Refused { code, message } => Self::new(code, message),
            api::ClientError::Document(message) => Self::new(ErrorCode::InvalidArgument, message),
            api::ClientError::Absent | api::ClientError::Broken | api::ClientError::Io(_) => {
                let message = error.to_string();
                Self { code: ErrorCode::InternalError, exit_code: TRY_AGAIN, message }
            }
        }
    }
}

impl From<audit::Error> for Failure {
    fn from(error: audit::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<manager::Error> for Failure {
    fn from(error: manager::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
