//! Whether calls are served: what `/readyz` says.

use axum::http::StatusCode;
use tokio_util::sync::CancellationToken;

use crate::manager::TenantMcpManager;

/// Whether calls are served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Readiness {
    Ready,
    /// A write failed. Calls are served; tokens, tenants and keys cannot be changed, and what
    /// tenants use is not saved.
    ReadOnly,
    /// The same, until there is room on the disk.
    DiskFull,
    AuditUnavailable,
    Sealed,
    Stopping,
}

pub(super) fn of(manager: &TenantMcpManager, stopping: &CancellationToken) -> Readiness {
    if stopping.is_cancelled() {
        return Readiness::Stopping;
    }
    if manager.is_sealed() {
        return Readiness::Sealed;
    }
    if !manager.log().is_writable() {
        return Readiness::AuditUnavailable;
    }
    match manager.vault().condition() {
        // Sealed at this moment.
        Err(_) => Readiness::Sealed,
        Ok(condition) if condition.read_only.is_some() => Readiness::ReadOnly,
        Ok(condition) if condition.is_full => Readiness::DiskFull,
        Ok(_) => Readiness::Ready,
    }
}

impl Readiness {
    pub(super) fn status(self) -> StatusCode {
        match self {
            // There is no other that serves these tenants: half a service is more than none.
            Self::Ready | Self::ReadOnly | Self::DiskFull => StatusCode::OK,
            Self::AuditUnavailable | Self::Sealed | Self::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Ready => "ok\n",
            Self::ReadOnly => "ok, but the store takes no writes since one failed; restart\n",
            Self::DiskFull => "ok, but the disk is nearly full, and the store takes no writes\n",
            Self::AuditUnavailable => "the audit log cannot be written\n",
            Self::Sealed => "sealed\n",
            Self::Stopping => "stopping\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_takes_no_writes_is_told_and_served_from() {
        use Readiness::{AuditUnavailable, DiskFull, ReadOnly, Ready, Sealed, Stopping};
        for served in [Ready, ReadOnly, DiskFull] {
            assert_eq!(served.status(), StatusCode::OK);
            assert!(served.text().starts_with("ok"), "{served:?}");
        }
        for refused in [AuditUnavailable, Sealed, Stopping] {
            assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(!refused.text().starts_with("ok"), "{refused:?}");
        }
    }
}
