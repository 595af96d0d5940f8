//! The stable codes that answers, the audit log and exit codes share, and the bounds that
//! [`ErrorCode::PoolExhausted`] tells apart; nothing else.
//!
//! Each module has its own error enum and maps every variant to one of these with a `code()` that
//! has no wildcard arm, so that a new variant does not compile until someone decides its code. The
//! text that a caller sees comes from [`ErrorCode::message`] or from the module's own words, never
//! from a driver or a parser: their texts are untrusted and may quote secrets.

use std::fmt;

/// A stable error code: part of the API, listed in the README (a test compares).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// A record of the attempt could not be written, so nothing was done.
    AuditUnavailable,
    /// The caller went away or cancelled.
    Cancelled,
    /// The tenant's database could not be reached or refused the login.
    DatabaseUnavailable,
    /// Not the caller's tenant. The same answer whether the other tenant exists or not.
    Forbidden,
    /// Another process has the data directory or the address.
    InUse,
    /// Stored data failed authentication, or does not fit together.
    IntegrityError,
    /// An unexpected failure; the request id leads to the log.
    InternalError,
    /// An argument is missing, of the wrong type, or out of range.
    InvalidArgument,
    /// The tenant id breaks the rule for ids.
    InvalidTenant,
    /// A look at everything found what an operator should set right.
    NeedsAttention,
    /// The session ended while a change was made final: it may have been made or not.
    OutcomeUnknown,
    /// As much runs, waits or is in memory as may at a time; the [`Bound`] is named.
    PoolExhausted,
    /// The database answered the statement with an error.
    QueryFailed,
    /// The guard did not let the statement through; the rule is named.
    QueryRefused,
    /// The statement ran longer than the tenant's limit.
    QueryTimeout,
    /// A quota of the tenant is used up; `retry_after_seconds` says when to come back.
    QuotaExceeded,
    /// The URI is well formed and the caller's own, but names nothing.
    ResourceNotFound,
    /// One row alone exceeds the tenant's byte limit.
    ResultTooLarge,
    /// The disk has so little room left that writes are refused; reads go on.
    StorageFull,
    /// The tenant is switched off.
    TenantDisabled,
    /// No such tenant in the vault.
    TenantNotConfigured,
    /// So many attempts of this address or token failed that the next is not told why.
    TooManyFailures,
    /// No token, or one that is unknown, expired or revoked.
    Unauthenticated,
    /// The vault is sealed: its keys are not in memory.
    VaultSealed,
}

impl ErrorCode {
    /// Every code, in the order of the README's table.
    pub const ALL: [Self; 24] = [
        Self::InvalidTenant,
        Self::TenantNotConfigured,
        Self::Forbidden,
        Self::InternalError,
        Self::Unauthenticated,
        Self::TooManyFailures,
        Self::InvalidArgument,
        Self::ResourceNotFound,
        Self::QueryRefused,
        Self::QueryFailed,
        Self::QueryTimeout,
        Self::ResultTooLarge,
        Self::OutcomeUnknown,
        Self::QuotaExceeded,
        Self::PoolExhausted,
        Self::DatabaseUnavailable,
        Self::TenantDisabled,
        Self::VaultSealed,
        Self::AuditUnavailable,
        Self::IntegrityError,
        Self::StorageFull,
        Self::InUse,
        Self::NeedsAttention,
        Self::Cancelled,
    ];

    /// The string that clients match on.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuditUnavailable => "AUDIT_UNAVAILABLE",
            Self::Cancelled => "CANCELLED",
            Self::DatabaseUnavailable => "DATABASE_UNAVAILABLE",
            Self::Forbidden => "FORBIDDEN",
            Self::InUse => "IN_USE",
            Self::IntegrityError => "INTEGRITY_ERROR",
            Self::InternalError => "INTERNAL_ERROR",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::InvalidTenant => "INVALID_TENANT",
            Self::NeedsAttention => "NEEDS_ATTENTION",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::PoolExhausted => "POOL_EXHAUSTED",
            Self::QueryFailed => "QUERY_FAILED",
            Self::QueryRefused => "QUERY_REFUSED",
            Self::QueryTimeout => "QUERY_TIMEOUT",
            Self::QuotaExceeded => "QUOTA_EXCEEDED",
            Self::ResourceNotFound => "RESOURCE_NOT_FOUND",
            Self::ResultTooLarge => "RESULT_TOO_LARGE",
            Self::StorageFull => "STORAGE_FULL",
            Self::TenantDisabled => "TENANT_DISABLED",
            Self::TenantNotConfigured => "TENANT_NOT_CONFIGURED",
            Self::TooManyFailures => "TOO_MANY_FAILURES",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::VaultSealed => "VAULT_SEALED",
        }
    }

    /// What a caller is told when the failing module has nothing safe to add.
    pub fn message(self) -> &'static str {
        match self {
            Self::AuditUnavailable => "the audit log cannot be written, so nothing was done",
            Self::Cancelled => "the call was cancelled",
            Self::DatabaseUnavailable => "the tenant's database is unavailable",
            Self::Forbidden => {
                "this resource does not belong to your tenant; the attempt was recorded"
            }
            Self::InUse => "another process has it",
            Self::IntegrityError => "stored data failed authentication",
            Self::InternalError => "unexpected internal error; the request id leads to the log",
            Self::InvalidArgument => "an argument is not valid",
            Self::InvalidTenant => "the tenant id is not valid",
            Self::NeedsAttention => "something needs attention",
            Self::OutcomeUnknown => "it is not known whether the change was made",
            Self::PoolExhausted => "as much is under way as may be at a time; try again",
            Self::QueryFailed => "the database answered with an error",
            Self::QueryRefused => "the statement is not allowed",
            Self::QueryTimeout => "the statement took longer than this tenant's limit",
            Self::QuotaExceeded => "a quota of this tenant is used up",
            Self::ResourceNotFound => "no such resource",
            Self::ResultTooLarge => "a single row exceeds this tenant's byte limit",
            Self::StorageFull => "the disk is nearly full, so nothing was written; reads go on",
            Self::TenantDisabled => "this tenant is disabled",
            Self::TenantNotConfigured => "this tenant is not configured",
            Self::TooManyFailures => {
                "too many failed attempts from here; a valid token works all the same"
            }
            Self::Unauthenticated => "a valid bearer token is required",
            Self::VaultSealed => "the vault is sealed",
        }
    }

    /// What a command ends with that fails for this reason: 1 failed, 3 refused, 4 integrity,
    /// 6 needs attention, 75 try again.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Forbidden
            | Self::QueryRefused
            | Self::TenantDisabled
            | Self::Unauthenticated
            | Self::VaultSealed => 3,
            Self::IntegrityError => 4,
            Self::NeedsAttention => 6,
            Self::AuditUnavailable
            | Self::DatabaseUnavailable
            | Self::InUse
            | Self::PoolExhausted
            | Self::QueryTimeout
            | Self::QuotaExceeded
            | Self::StorageFull
            | Self::TooManyFailures => 75,
            Self::Cancelled
            | Self::InternalError
            | Self::InvalidArgument
            | Self::InvalidTenant
            | Self::OutcomeUnknown
            | Self::QueryFailed
            | Self::ResourceNotFound
            | Self::ResultTooLarge
            | Self::TenantNotConfigured => 1,
        }
    }

    /// The HTTP status of an answer that is this failure.
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument
            | Self::InvalidTenant
            | Self::QueryFailed
            | Self::QueryRefused => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden | Self::TenantDisabled => 403,
            Self::ResourceNotFound | Self::TenantNotConfigured => 404,
            Self::QuotaExceeded | Self::TooManyFailures => 429,
            Self::IntegrityError
            | Self::InternalError
            | Self::NeedsAttention
            | Self::OutcomeUnknown
            | Self::QueryTimeout
            | Self::ResultTooLarge => 500,
            Self::AuditUnavailable
            | Self::Cancelled
            | Self::DatabaseUnavailable
            | Self::InUse
            | Self::PoolExhausted
            | Self::VaultSealed => 503,
            Self::StorageFull => 507,
        }
    }

    /// The code that [`ErrorCode::as_str`] gives as `text`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a call that is told [`ErrorCode::PoolExhausted`] met: the setting that bounds it, after which
/// it is named. A tenant learns of the whole service that it has nothing left, and of others nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Bound {
    /// Bodies and answers of all tenants in memory.
    BufferedBytes,
    /// Those of one.
    BufferedBytesPerTenant,
    /// Statements of the tenant at a time, by its own quota.
    ConcurrentConnections,
    /// Connections that the tenant's database lets in.
    DatabaseConnections,
    /// Sessions of MCP clients of all tenants.
    HttpSessions,
    /// Those of one.
    HttpSessionsPerTenant,
    /// Instances of the tenant.
    InstancesPerTenant,
    /// Database sessions of all tenants.
    Sessions,
    /// Calls of all tenants that wait for an instance.
    Waiting,
    /// Those of one.
    WaitingPerTenant,
}

impl Bound {
    /// Every bound, in the order of the README's table.
    pub const ALL: [Self; 10] = [
        Self::InstancesPerTenant,
        Self::ConcurrentConnections,
        Self::DatabaseConnections,
        Self::WaitingPerTenant,
        Self::Waiting,
        Self::Sessions,
        Self::BufferedBytesPerTenant,
        Self::BufferedBytes,
        Self::HttpSessionsPerTenant,
        Self::HttpSessions,
    ];

    /// The rule that clients match on and the audit log has: the setting, or the member of a tenant
    /// file, that an operator can raise; or `database.connections`, which is for the database to say.
    pub fn rule(self) -> &'static str {
        self.terms().0
    }

    /// What an operator can raise.
    fn setting(self) -> &'static str {
        if self == Self::DatabaseConnections {
            "the CONNECTION LIMIT of the tenant's role"
        } else {
            self.rule()
        }
    }

    /// The rule, and what a caller is told before it.
    fn terms(self) -> (&'static str, &'static str) {
        match self {
            Self::BufferedBytes => (
                "http.max_buffered_bytes",
                "the service has no memory left for this body or answer; try again",
            ),
            Self::BufferedBytesPerTenant => (
                "http.max_buffered_bytes_per_tenant",
                "too much of this tenant is in memory: bodies that come in, and answers that are \
                 not taken; take those, and try again",
            ),
            Self::ConcurrentConnections => (
                "quotas.max_concurrent_connections",
                "as many calls of this tenant as its quota allows at a time stayed busy; try again",
            ),
            Self::DatabaseConnections => (
                "database.connections",
                "the tenant's database lets no further connection in, and those there are stayed \
                 busy; try again",
            ),
            Self::HttpSessions => {
                ("http.max_sessions", "the service has no session for clients left; try again")
            }
            Self::HttpSessionsPerTenant => (
                "http.max_sessions_per_tenant",
                "this tenant has as many sessions as it may, each with a call under way; try \
                 again, or end one",
            ),
            Self::InstancesPerTenant => (
                "pool.max_instances_per_tenant",
                "all instances of this tenant stayed busy; try again",
            ),
            Self::Sessions => (
                "pool.max_sessions",
                "the service has no database session left for this call; try again",
            ),
            Self::Waiting => (
                "pool.max_waiting",
                "the service has no room left for a call that waits; try again",
            ),
            Self::WaitingPerTenant => (
                "pool.max_waiting_per_tenant",
                "as many calls of this tenant as may wait for an instance do; try again, with \
                 fewer at a time",
            ),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; an operator can raise {}", self.terms().1, self.setting())
    }
}

impl std::error::Error for Bound {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_string() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
        }
        assert_eq!(ErrorCode::parse("forbidden"), None);
    }
}
