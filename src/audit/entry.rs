//! One entry of the audit log.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Attempt, Outcome};
use crate::error::ErrorCode;
use crate::tenant::TenantId;

/// Longest text of a caller that is kept, in characters after escaping.
const MAX_TEXT: usize = 512;

/// Ties an answer, its audit entry and the process log together: 16 hexadecimal digits.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RequestId(String);

impl RequestId {
    /// A new id.
    pub fn random() -> Self {
        let mut bytes = [0; 8];
        // An id that repeats is a nuisance in a log, not a danger: no reason to fail the request.
        if getrandom::fill(&mut bytes).is_err() {
            tracing::warn!("no randomness for a request id");
        }
        Self(format!("{:016x}", u64::from_be_bytes(bytes)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who attempts something.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Actor {
    /// Nobody that is known.
    Anonymous,
    /// Code that embeds the library.
    Embedder,
    /// Someone at the command line.
    Operator {
        /// Login name and, in brackets, user number.
        name: String,
    },
    /// The program itself, finishing what an operator began.
    Service,
    /// Whom an issuer of access tokens vouches for. Both are bounded by whoever admits them.
    Subject {
        /// The issuer's name.
        issuer: String,
        /// Its name for them.
        subject: String,
    },
    /// The bearer of a token.
    Token {
        /// The token's public id.
        id: String,
    },
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Embedder => f.write_str("embedder"),
            Self::Operator { name } => write!(f, "operator {name}"),
            Self::Service => f.write_str("service"),
            Self::Subject { issuer, subject } => {
                write!(f, "{} of {issuer}", subject.escape_default())
            }
            Self::Token { id } => f.write_str(id),
        }
    }
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "docs/audit.md lists them for good")]
pub enum Decision {
    /// The caller left before it was over.
    Abandoned,
    /// Done.
    Allowed,
    /// About to be done; the entry with the same request id says how it went.
    Begun,
    /// Refused by a rule of ours.
    Denied,
    /// Permitted, and did not work out.
    Failed,
}

impl Decision {
    fn of(code: Option<ErrorCode>) -> Self {
        let Some(code) = code else { return Self::Allowed };
        match code {
            ErrorCode::Forbidden
            | ErrorCode::InvalidArgument
            | ErrorCode::InvalidTenant
            | ErrorCode::QueryRefused
            | ErrorCode::QuotaExceeded
            | ErrorCode::ResourceNotFound
            | ErrorCode::TenantDisabled
            | ErrorCode::TenantNotConfigured
            | ErrorCode::TooManyFailures
            | ErrorCode::Unauthenticated
            | ErrorCode::VaultSealed => Self::Denied,
            ErrorCode::AuditUnavailable
            | ErrorCode::Cancelled
            | ErrorCode::DatabaseUnavailable
            | ErrorCode::InUse
            | ErrorCode::IntegrityError
            | ErrorCode::StorageFull
            | ErrorCode::InternalError
            | ErrorCode::NeedsAttention
            | ErrorCode::OutcomeUnknown
            | ErrorCode::PoolExhausted
            | ErrorCode::QueryFailed
            | ErrorCode::QueryTimeout
            | ErrorCode::ResultTooLarge => Self::Failed,
        }
    }

    /// The spelling in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Abandoned => "abandoned",
            Self::Allowed => "allowed",
            Self::Begun => "begun",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// One line of the log; docs/audit.md describes each field.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Entry {
    /// Position in the log, from 1, without gaps.
    pub seq: u64,
    /// When the attempt began, UTC.
    pub time: Timestamp,
    /// Ties the entry to the answer.
    pub request_id: RequestId,
    /// Who.
    pub actor: Actor,
    /// Where from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// What.
    pub action: String,
    /// In whose name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Whose resource, when the caller named one; may be a tenant that does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_tenant: Option<String>,
    /// The resource as the caller spelled it: escaped to ASCII, cut at 512 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// What became of it.
    pub decision: Decision,
    /// The error code that the caller got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The rule that refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Rows returned or changed; failures that a summary stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// How long it took.
    pub duration_ms: u64,
    /// Entries that could not be written before this one, since the last that could.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_before: Option<u64>,
}

impl Entry {
    pub(super) fn new(attempt: Attempt, now: Timestamp) -> Self {
        Self {
            seq: 0,
            time: now,
            request_id: attempt.request_id,
            actor: attempt.actor,
            peer: attempt.peer,
            action: attempt.action.to_owned(),
            tenant: attempt.tenant.map(|tenant| tenant.to_string()),
            target_tenant: None,
            resource: None,
            decision: Decision::Abandoned,
            code: None,
            rule: None,
            rows: None,
            duration_ms: 0,
            lost_before: None,
        }
    }

    pub(super) fn set_resource(&mut self, resource: &str, target: Option<&TenantId>) {
        self.resource =
            Some(resource.chars().flat_map(char::escape_default).take(MAX_TEXT).collect());
        self.target_tenant = target.map(ToString::to_string);
    }

    pub(super) fn conclude(&mut self, outcome: Outcome, now: Timestamp) {
        self.decision = Decision::of(outcome.code);
        self.code = outcome.code.map(|code| code.as_str().to_owned());
        self.rule = outcome.rule.map(str::to_owned);
        self.rows = outcome.rows;
        self.stop(now);
    }

    pub(super) fn abandon(&mut self, now: Timestamp) {
        self.decision = Decision::Abandoned;
        self.code = Some(ErrorCode::Cancelled.as_str().to_owned());
        self.stop(now);
    }

    fn stop(&mut self, now: Timestamp) {
        // A clock that was set back must not make the entry unwritable.
        self.duration_ms = u64::try_from(now.duration_since(self.time).as_millis()).unwrap_or(0);
    }
}
