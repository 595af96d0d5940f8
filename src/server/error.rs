//! Why a call has no answer, and what of it the caller is told.

use std::time::Duration;

use rmcp::model::{CallToolResult, ContentBlock, ErrorCode as RpcCode, ErrorData};
use serde_json::json;

use super::stay::NoPlace;
use crate::audit::{self, RequestId};
use crate::database::{self, Refusal};
use crate::error::{Bound, ErrorCode};
use crate::quota::Exceeded;
use crate::tenant::{InvalidUri, Permission};

/// JSON-RPC code of every refusal that has no code of its own there; `data.error_code` says which.
pub(super) const REFUSED: i32 = -31_000;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is missing, unknown, or of the wrong type.
    #[error("{0}")]
    Argument(String),
    /// The attempt could not be recorded.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// The tenant changed while the call waited for an instance.
    #[error("the tenant was changed while the call waited, and nothing was done; try again")]
    Changed,
    /// The database failed, or the statement did there.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// As many calls run or wait as may.
    #[error(transparent)]
    Exhausted(Bound),
    /// The tool is part of a feature that the tenant does not have.
    #[error("the feature \"{0}\" is off for this tenant; its operator can switch it on")]
    Feature(&'static str),
    /// No instance could be had; why is a matter of whoever has them.
    #[error("{}", .0.message())]
    Instance(ErrorCode),
    /// Nobody else may subscribe.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    /// The caller's token lacks a scope.
    #[error("the token lacks the scope \"{0}\"")]
    Permission(Permission),
    /// A quota is used up.
    #[error(transparent)]
    Quota(#[from] Exceeded),
    /// The tenant's `access.mode` is `read_only`.
    #[error("this tenant's access.mode is \"read_only\"; its operator can set \"read_write\"")]
    ReadOnly,
    /// The guard refused the statement.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The URI is well formed, the tenant's own, and names nothing that is there.
    #[error("no such resource; list_tenant_resources shows what there is")]
    ResourceNotFound,
    /// An argument that no tool has looks as if it chose a tenant.
    #[error("{0}")]
    TenantArgument(String),
    /// A change was made, or may have been, and how it went could not be recorded.
    #[error(
        "how the change went could not be recorded; the audit log has that it was begun, so look \
         whether it was made before you try again"
    )]
    Unrecorded,
    /// The URI is malformed or foreign.
    #[error(transparent)]
    Uri(#[from] InvalidUri),
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Argument(_) | Self::TenantArgument(_) | Self::Uri(InvalidUri::Malformed) => {
                ErrorCode::InvalidArgument
            }
            Self::Audit(error) => error.code(),
            Self::Changed | Self::NoPlace(NoPlace::Stopping) => ErrorCode::Cancelled,
            Self::Database(error) => error.code(),
            Self::Exhausted(_) => ErrorCode::PoolExhausted,
            Self::Instance(code) => *code,
            Self::Feature(_)
            | Self::Permission(_)
            | Self::ReadOnly
            | Self::Uri(InvalidUri::Foreign) => ErrorCode::Forbidden,
            Self::Quota(exceeded) => exceeded.code(),
            Self::NoPlace(NoPlace::Caller | NoPlace::Service) => ErrorCode::QuotaExceeded,
            Self::Refused(_) => ErrorCode::QueryRefused,
            Self::ResourceNotFound | Self::Uri(InvalidUri::Unknown) => ErrorCode::ResourceNotFound,
            Self::Unrecorded => ErrorCode::AuditUnavailable,
            Self::Uri(InvalidUri::Tenant(_)) => ErrorCode::InvalidTenant,
        }
    }

    /// The rule that refused the call, for the audit log and the caller.
    pub fn rule(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) | Self::Database(database::Error::Refused(refusal)) => {
                Some(refusal.rule())
            }
            Self::Quota(exceeded) => Some(exceeded.quota),
            Self::Exhausted(bound) => Some(bound.rule()),
            Self::Feature(_) => Some("feature"),
            Self::Permission(_) => Some("scope"),
            Self::ReadOnly => Some("access-mode"),
            Self::TenantArgument(_) => Some("tenant-argument"),
            Self::NoPlace(NoPlace::Caller | NoPlace::Service) => Some("subscriptions"),
            Self::Argument(_)
            | Self::Audit(_)
            | Self::Changed
            | Self::Database(_)
            | Self::Instance(_)
            | Self::NoPlace(NoPlace::Stopping)
            | Self::ResourceNotFound
            | Self::Unrecorded
            | Self::Uri(_) => None,
        }
    }

    /// What the caller is told.
    fn message(&self) -> String {
        match self {
            Self::Argument(_)
            | Self::Changed
            | Self::Database(_)
            | Self::Exhausted(_)
            | Self::Feature(_)
            | Self::NoPlace(_)
            | Self::Permission(_)
            | Self::Quota(_)
            | Self::ReadOnly
            | Self::Refused(_)
            | Self::ResourceNotFound
            | Self::TenantArgument(_)
            | Self::Unrecorded
            | Self::Uri(InvalidUri::Malformed | InvalidUri::Tenant(_) | InvalidUri::Unknown) => {
                self.to_string()
            }
            Self::Audit(_) | Self::Instance(_) | Self::Uri(InvalidUri::Foreign) => {
                self.code().message().to_owned()
            }
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Quota(exceeded) => exceeded.retry_after,
            Self::Argument(_)
            | Self::Audit(_)
            | Self::Changed
            | Self::Database(_)
            | Self::Exhausted(_)
            | Self::Feature(_)
            | Self::Instance(_)
            | Self::NoPlace(_)
            | Self::Permission(_)
            | Self::ReadOnly
            | Self::Refused(_)
            | Self::ResourceNotFound
            | Self::TenantArgument(_)
            | Self::Unrecorded
            | Self::Uri(_) => None,
        }
    }

    fn sqlstate(&self) -> Option<&str> {
        if let Self::Database(database::Error::Failed { sqlstate, .. }) = self {
            sqlstate.as_deref()
        } else {
            None
        }
    }

    fn position(&self) -> Option<u32> {
        if let Self::Database(database::Error::Failed { position, .. }) = self {
            *position
        } else {
            None
        }
    }
}

/// A failed call as the caller sees it.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct Failure {
    /// What went wrong.
    #[source]
    pub error: Error,
    /// Leads to the audit entry.
    pub request_id: RequestId,
}

impl Failure {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        self.error.code()
    }

    /// `error_code`, `message`, `request_id`, and what helps with this one.
    fn details(&self) -> serde_json::Value {
        let mut details = json!({
            "error_code": self.code().as_str(),
            "message": self.error.message(),
            "request_id": self.request_id.as_str(),
        });
        if let Some(rule) = self.error.rule() {
            details["rule"] = json!(rule);
        }
        if let Some(retry_after) = self.error.retry_after() {
            details["retry_after_seconds"] = json!(retry_after.as_secs());
        }
        if let Some(sqlstate) = self.error.sqlstate() {
            details["sqlstate"] = json!(sqlstate);
        }
        if let Some(position) = self.error.position() {
            details["position"] = json!(position);
        }
        details
    }

    /// As the result of a tool, which a model can read and act on.
    pub(super) fn into_tool_result(self) -> CallToolResult {
        let text = format!("{}: {}", self.code(), self.error.message());
        let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
        result.structured_content = Some(self.details());
        result
    }

    /// As a JSON-RPC error, where the protocol has no room for a result.
    pub(super) fn into_rpc_error(self) -> ErrorData {
        let code = self.code();
        let is_about_the_request = matches!(
            code,
            ErrorCode::InvalidArgument | ErrorCode::InvalidTenant | ErrorCode::ResourceNotFound
        );
        let code = if is_about_the_request {
            RpcCode::INVALID_PARAMS
        } else if code == ErrorCode::InternalError {
            RpcCode::INTERNAL_ERROR
        } else {
            RpcCode(REFUSED)
        };
        ErrorData::new(code, self.error.message(), Some(self.details()))
    }
}
