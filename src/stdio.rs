//! One tenant's server on standard input and output, for desktop clients.

use rmcp::ServiceExt;
use tokio_util::sync::CancellationToken;

use crate::audit::Actor;
use crate::auth::TenantAccess;
use crate::error::ErrorCode;
use crate::manager::{self, TenantMcpManager};
use crate::tenant::TenantId;

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tenant cannot be served.
    #[error(transparent)]
    Manager(#[from] manager::Error),
    /// The client did not speak MCP.
    #[error("the client on standard input did not begin an MCP session")]
    Protocol,
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Manager(error) => error.code(),
            Self::Protocol => ErrorCode::InvalidArgument,
        }
    }
}

/// Serves `tenant` to whoever holds the other ends of standard input and output, in the name of
/// `operator`, until the input ends or `stopping` is cancelled.
///
/// # Errors
///
/// [`Error::Manager`] before anything is read; [`Error::Protocol`] when the first message is wrong.
pub async fn serve(
    manager: &TenantMcpManager,
    tenant: TenantId,
    operator: Actor,
    stopping: CancellationToken,
) -> Result<(), Error> {
    let access = TenantAccess::local(tenant, operator, Some("stdio".to_owned()));
    let handler = manager.handler(access).await?;
    let starting = handler.serve_with_ct(rmcp::transport::stdio(), stopping.clone());
    let service = match Box::pin(stopping.run_until_cancelled(starting)).await {
        Some(Ok(service)) => service,
        Some(Err(_)) => return Err(Error::Protocol),
        None => return Ok(()),
    };
    // The reason why a session ended is no error of this process.
    drop(service.waiting().await);
    Ok(())
}
