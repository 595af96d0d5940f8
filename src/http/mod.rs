//! The network face: MCP over Streamable HTTP, and whether the process is well.
//!
//! ```text
//! POST /mcp             the token decides the tenant
//! POST /mcp/{tenant}    must be the token's tenant, anything else is FORBIDDEN
//! GET  /healthz         the process is up
//! GET  /readyz          unsealed, and able to record
//! ```
//!
//! Every request is authenticated before its body is read, and its body is read as one strict
//! message before a tenant's server sees it. Protects against: a caller reaching a tenant that is
//! not its token's; DNS rebinding (Host and Origin are checked against a list); messages that have
//! two meanings. Does not encrypt: put a TLS proxy in front of anything but loopback.

mod admission;
mod allowed;
mod answer;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod headers;
mod json;
mod local;
mod mcp;
mod message;
mod refusal;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{any, get};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::manager::TenantMcpManager;

pub use allowed::InvalidName;
pub use local::TenantEndpoint;

/// How long calls that are cut may take to notice.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// How the endpoint behaves.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field from the settings")]
pub struct Options {
    /// Values of `Host` that are served; without a port, on any. Loopback names when empty.
    pub allowed_hosts: Vec<String>,
    /// Values of `Origin` that are served, such as `https://app.example.com`; loopback when empty.
    pub allowed_origins: Vec<String>,
    /// Longest request body.
    pub max_body_bytes: usize,
    /// How long calls under way may take to finish when the service stops.
    pub drain_timeout: Duration,
}

impl Options {
    /// Whether every entry of `allowed_hosts` and `allowed_origins` names something.
    ///
    /// # Errors
    ///
    /// The first that does not.
    pub fn check(&self) -> Result<(), InvalidName> {
        allowed::Allowed::new(&self.allowed_hosts, &self.allowed_origins).map(drop)
    }
}

/// Serves `manager` on `listener` until `stopping` is cancelled, then drains. Says how many calls
/// were cut because they did not finish within `drain_timeout`.
///
/// # Errors
///
/// When accepting connections fails for good, or [`Options::check`] would.
pub async fn serve(
    listener: TcpListener,
    manager: Arc<TenantMcpManager>,
    options: Options,
    stopping: CancellationToken,
) -> std::io::Result<u64> {
    let drain_timeout = options.drain_timeout;
    let endpoint = mcp::Endpoint::new(Arc::clone(&manager), &options)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
    let cut_off = endpoint.cut_off();
    // Without TCP_NODELAY, an answer in two writes waits for the client's delayed acknowledgement.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
    });
    let service = router(endpoint).into_make_service_with_connect_info::<SocketAddr>();
    let drained = stopping.clone();
    let server = axum::serve(listener, service)
        .with_graceful_shutdown(async move { drained.cancelled().await })
        .into_future();
    let deadline = async {
        stopping.cancelled().await;
        tokio::time::sleep(drain_timeout).await;
        let leased = manager.pool_stats().leased();
        cut_off.cancel();
        leased
    };
    let cut = tokio::select! {
        served = server => {
            served?;
            0
        }
        cut = deadline => cut,
    };
    Ok(cut.max(manager.shutdown(CUT_TIMEOUT).await))
}

fn router(endpoint: mcp::Endpoint) -> Router {
    Router::new()
        .route("/mcp", any(mcp::own_tenant))
        .route("/mcp/{*tenant}", any(mcp::named_tenant))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(refusal::no_such_path)
        .with_state(endpoint)
}

async fn ready(State(endpoint): State<mcp::Endpoint>) -> (StatusCode, &'static str) {
    match endpoint.obstacle() {
        None => (StatusCode::OK, "ok\n"),
        Some(obstacle) => (StatusCode::SERVICE_UNAVAILABLE, obstacle),
    }
}
