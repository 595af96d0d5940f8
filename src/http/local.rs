//! One tenant's endpoint without a port, for a client that is known by other means than a token.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use tokio_util::sync::CancellationToken;

use super::{Handle, mcp};
use crate::audit::{Actor, RequestId};
use crate::auth::{Origin, TenantAccess};
use crate::manager::{self, TenantMcpManager};
use crate::tenant::{Permissions, TenantId};

/// What `POST /mcp` is to a token's tenant, for a program that an operator started for one tenant.
/// Clones share it.
#[derive(Clone)]
pub struct TenantEndpoint {
    endpoint: mcp::Endpoint,
    tenant: TenantId,
    permissions: Permissions,
    operator: Actor,
    /// How the client is connected, for the audit log.
    peer: String,
}

impl TenantEndpoint {
    /// The endpoint of `tenant`, where `operator` allows `permissions` to a client at `peer`.
    /// Hosts and limits are those of `handle`.
    ///
    /// # Errors
    ///
    /// When the tenant cannot be served now. It was recorded.
    pub async fn open(
        manager: Arc<TenantMcpManager>,
        handle: Handle,
        tenant: TenantId,
        permissions: Permissions,
        operator: Actor,
        peer: &str,
    ) -> Result<Self, manager::Error> {
        let endpoint = mcp::Endpoint::new(
            Arc::clone(&manager),
            Arc::clone(&manager),
            handle,
            CancellationToken::new(),
        );
        let opened = Self { endpoint, tenant, permissions, operator, peer: peer.to_owned() };
        manager.handler(opened.access(None)).await?;
        Ok(opened)
    }

    /// Answers one request. Its path and its credential say nothing.
    pub async fn handle(&self, request: Request) -> Response {
        let request_id = RequestId::random();
        let access = self.access(Some(request_id.clone()));
        self.endpoint.serve_granted(access, &request_id, request).await
    }

    fn access(&self, request_id: Option<RequestId>) -> TenantAccess {
        let origin = Origin { request_id, peer: Some(self.peer.clone()) };
        TenantAccess::local(self.tenant.clone(), self.permissions, self.operator.clone(), origin)
    }
}

impl std::fmt::Debug for TenantEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantEndpoint").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}
