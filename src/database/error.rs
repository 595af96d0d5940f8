//! What can go wrong with a tenant's database.

use crate::error::ErrorCode;

/// Why a session could not be opened or a statement gave no answer.
///
/// No variant carries the text of a driver, except the server's own message about the caller's own
/// statement in [`Error::Failed`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The statement was cancelled from outside.
    #[error("the statement was cancelled")]
    Cancelled,
    /// The database answered the statement with an error.
    #[error("{message}")]
    Failed {
        /// The five-character code, on `PostgreSQL`.
        sqlstate: Option<String>,
        /// What the database says about the statement; bounded, without control characters.
        message: String,
        /// Which character of the statement it is about, counted from 1, where that is known.
        position: Option<u32>,
    },
    /// A value of `params` does not fit its place.
    #[error("params[{position}]: {expected}")]
    InvalidParameter {
        /// Which, counted from 0.
        position: usize,
        /// What would fit.
        expected: String,
    },
    /// The session ended while a change was made final.
    #[error(
        "the connection was lost while the change was made final, so it is not known whether it \
         was made; look before you try again"
    )]
    OutcomeUnknown,
    /// There are more or fewer values than places.
    #[error("the statement has {expected} parameters; params has {given} values")]
    ParameterCount {
        /// Places in the statement.
        expected: usize,
        /// Values given.
        given: usize,
    },
    /// What RETURNING gives is beyond the tenant's byte limit; nothing was changed.
    #[error(
        "what RETURNING gives exceeds this tenant's byte limit, so nothing was changed; return \
         fewer columns or change fewer rows"
    )]
    ReturnedTooLarge,
    /// The session found something that the guard cannot see from the text.
    #[error("{0}")]
    Refused(#[from] super::Refusal),
    /// The statement ran longer than the tenant's limit.
    #[error("the statement took longer than this tenant's limit")]
    Timeout,
    /// One value or row alone is beyond the tenant's byte limit.
    #[error("a single row exceeds this tenant's byte limit")]
    TooLarge,
    /// More rows would change than may; nothing was changed.
    #[error(
        "more than {limit} rows would change, so nothing was changed; change fewer at a time, or \
         raise limit if it is below the tenant's max_rows"
    )]
    TooManyChanges {
        /// Most rows that might have.
        limit: u32,
    },
    /// The database cannot be reached, refuses the login, or went away.
    #[error("the tenant's database is unavailable: {0}")]
    Unavailable(Unavailable),
    /// The same, known from a try a moment ago: the database was left alone.
    #[error("the tenant's database is unavailable: {0}")]
    LeftAlone(Unavailable),
}

/// Why a database is unavailable, in words that say nothing about host, role or password.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The host has only addresses that no database may have here.
    #[error("address not permitted")]
    AddressNotPermitted,
    /// The server does not accept the role or its password.
    #[error("authentication failed")]
    Authentication,
    /// The stored configuration cannot be used: bad certificates, a name that cannot be one.
    #[error("invalid configuration")]
    Configuration,
    /// Nothing listens there.
    #[error("connection refused")]
    ConnectionRefused,
    /// No such `SQLite` file.
    #[error("file not found")]
    FileNotFound,
    /// The file is not below `sqlite_root`, or a symbolic link leads to it.
    #[error("file not permitted")]
    FileNotPermitted,
    /// The role, the database or the server has as many connections as it may have.
    #[error(
        "the server has no connection left for its role; raise the role's CONNECTION LIMIT, or \
         lower the tenant's max_concurrent_connections"
    )]
    Full,
    /// The host's name has no address.
    #[error("host not found")]
    HostNotFound,
    /// The connection broke.
    #[error("connection lost")]
    Lost,
    /// The file is no database, or is damaged.
    #[error("not a readable database")]
    NotADatabase,
    /// The server said something that is not the protocol.
    #[error("protocol error")]
    Protocol,
    /// The server refuses logins for another reason: unknown database, starting or stopping.
    #[error("login refused by the server")]
    Refused,
    /// The session had ended before the statement could begin; with another it may.
    #[error("connection lost")]
    Stale,
    /// No answer in time.
    #[error("connection timed out")]
    TimedOut,
    /// The server has no TLS, or its certificate is not one to trust.
    #[error("TLS")]
    Tls,
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Cancelled => ErrorCode::Cancelled,
            Self::Failed { .. } => ErrorCode::QueryFailed,
            Self::InvalidParameter { .. } | Self::ParameterCount { .. } => {
                ErrorCode::InvalidArgument
            }
            Self::Refused(_) => ErrorCode::QueryRefused,
            Self::Timeout => ErrorCode::QueryTimeout,
            Self::OutcomeUnknown => ErrorCode::OutcomeUnknown,
            Self::ReturnedTooLarge | Self::TooLarge | Self::TooManyChanges { .. } => {
                ErrorCode::ResultTooLarge
            }
            Self::Unavailable(_) | Self::LeftAlone(_) => ErrorCode::DatabaseUnavailable,
        }
    }
}

impl Error {
    /// What it is of a change: what is too large there is what RETURNING gives.
    pub(super) fn of_change(self) -> Self {
        if self == Self::TooLarge { Self::ReturnedTooLarge } else { self }
    }
}

impl From<Unavailable> for Error {
    fn from(reason: Unavailable) -> Self {
        Self::Unavailable(reason)
    }
}
