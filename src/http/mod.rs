//! The network face: MCP over Streamable HTTP, and whether the process is well.
//!
//! ```text
//! POST /mcp             the token decides the tenant
//! POST /mcp/{tenant}    must be the token's tenant, anything else is FORBIDDEN
//! GET  /.well-known/oauth-protected-resource/mcp[/{tenant}]   where to get access tokens
//! GET  /healthz         the process is up
//! GET  /readyz          unsealed, able to record, and not about to end
//! ```
//!
//! Every request is authenticated before its body is read, and its body is read as one strict
//! message before a tenant's server sees it. Protects against: a caller reaching a tenant that is
//! not its token's; DNS rebinding (Host and Origin are checked against a list); messages that have
//! two meanings; slow and greedy clients ([`Limits`]); addresses that a caller makes up
//! ([`Proxies`]). Encrypts where [`TlsOptions`] say so; otherwise put a TLS proxy in front of
//! anything but loopback.

mod admission;
mod allowed;
mod answer;
mod budget;
mod calls;
mod exchange;
mod forwarded;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod handle;
mod headers;
mod json;
mod listener;
pub mod local;
mod mcp;
mod message;
mod metadata;
mod readiness;
mod refusal;
mod revocation;
mod session;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::uri::Scheme;
use axum::routing::{any, get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::manager::TenantMcpManager;

pub use self::allowed::InvalidName;
pub use self::exchange::Handlers;
pub use self::forwarded::{ForwardedHeader, Proxies};
pub use self::handle::{EXPIRES_SOON, Error, Handle};
pub use self::local::{Door, TenantEndpoint};
pub(crate) use self::message::{Call, Message};
pub use self::refusal::REFUSED;
pub use self::session::SessionOptions;
pub use self::tls::{ClientCertificates, InvalidTenantUri, TenantUri, TlsOptions};

/// How long clients may take to be told that their calls were cut.
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
    /// What clients may take of the service.
    pub limits: Limits,
    /// Proxies in front, which say whose request it is.
    pub proxies: Proxies,
    /// TLS on the listener itself; in clear without.
    pub tls: Option<TlsOptions>,
    /// A proxy in front encrypts: clients say `https`, whatever the listener speaks.
    pub behind_tls_proxy: bool,
    /// Sessions for clients of the older protocol; none when absent.
    pub sessions: Option<SessionOptions>,
}

/// What clients may take: time, and room in memory. There is no way to have none.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field from the settings")]
pub struct Limits {
    /// Most connections. The next is closed.
    pub max_connections: u32,
    /// Most connections from one IPv4 address or one /64 of IPv6, but for trusted proxies.
    pub max_connections_per_address: u32,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a client may take to send the head of a request once it began.
    pub header_timeout: Duration,
    /// How long it may take to send the body.
    pub body_timeout: Duration,
    /// How long it may send nothing of a body, or take next to nothing of an answer.
    pub stall_timeout: Duration,
    /// How long a connection stays open between requests. Longer than clients keep theirs: one that
    /// is closed while a request comes fails it.
    pub idle_timeout: Duration,
    /// Longest head of a request: its first line and its headers.
    pub max_header_bytes: usize,
    /// Most headers.
    pub max_headers: usize,
    /// Longest target of a request: its path and what is asked for.
    pub max_target_bytes: usize,
    /// Most bytes of bodies being read and handled, and of answers not yet taken. Those of 64 KiB
    /// and less are not counted.
    pub max_buffered_bytes: u64,
    /// The same of one tenant; but one is let in where it has none.
    pub max_buffered_bytes_per_tenant: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 8_192,
            max_connections_per_address: 1_024,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_mins(2),
            max_header_bytes: 16 << 10,
            max_headers: 100,
            max_target_bytes: 1_024,
            max_buffered_bytes: 512 << 20,
            max_buffered_bytes_per_tenant: 64 << 20,
        }
    }
}

impl Default for Options {
    /// For loopback, in clear.
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            max_body_bytes: 1 << 20,
            drain_timeout: Duration::from_secs(10),
            limits: Limits::default(),
            proxies: Proxies::default(),
            sessions: None,
            tls: None,
            behind_tls_proxy: false,
        }
    }
}

impl Options {
    /// Whether a client that is served may take the service to be at a URL of `scheme`.
    fn serves(&self, scheme: &Scheme) -> bool {
        if self.behind_tls_proxy {
            return *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS;
        }
        *scheme == if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// Whether every entry of `allowed_hosts` and `allowed_origins` names something.
    ///
    /// # Errors
    ///
    /// The first that does not.
    pub fn check(&self) -> Result<(), InvalidName> {
        allowed::Allowed::new(&self.allowed_hosts, &self.allowed_origins).map(drop)
    }
}

/// Where calls come in.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "there are no other ways in")]
pub struct Entrances {
    /// The port.
    pub listener: TcpListener,
    /// The socket for programs that operators start on this machine.
    pub door: Option<Door>,
}

impl From<TcpListener> for Entrances {
    fn from(listener: TcpListener) -> Self {
        Self { listener, door: None }
    }
}

/// Serves `manager` at `entrances` until `stopping` is cancelled. Then nothing is accepted any more,
/// what is kept open closes with its next answer, and calls under way may finish for the time that
/// `handle` has; the others are cut. Says how many. `manager` is left as it is.
pub async fn serve(
    entrances: impl Into<Entrances>,
    manager: Arc<TenantMcpManager>,
    handle: Handle,
    stopping: CancellationToken,
) -> u64 {
    let handlers = Arc::clone(&manager);
    serve_with(entrances, manager, handlers, handle, stopping).await
}

/// As [`serve`], with handlers that are made by `handlers` once `manager` has granted a tenant.
pub async fn serve_with(
    entrances: impl Into<Entrances>,
    manager: Arc<TenantMcpManager>,
    handlers: impl Handlers,
    handle: Handle,
    stopping: CancellationToken,
) -> u64 {
    let Entrances { listener, door } = entrances.into();
    let stays = manager.stays().clone();
    let endpoint = mcp::Endpoint::new(manager, handlers, handle.clone(), stopping.clone());
    let calls = endpoint.calls().clone();
    let local = async {
        if let Some(door) = door {
            door.serve(endpoint.clone(), &stopping).await;
        }
    };
    let serving = listener::serve(listener, router(endpoint.clone()), &handle, &stopping);
    let deadline = async {
        stopping.cancelled().await;
        // What listens would never finish.
        stays.close();
        tokio::time::sleep(handle.drain_timeout()).await;
        calls.cut();
        tokio::time::sleep(CUT_TIMEOUT).await;
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(serving, local) } => {}
        () = deadline => {}
        never = handle.follow_files() => match never {},
    }
    calls.count_cut()
}

fn router(endpoint: mcp::Endpoint) -> Router {
    Router::new()
        .route("/mcp", any(mcp::own_tenant))
        .route("/mcp/{*tenant}", any(mcp::named_tenant))
        .route(metadata::WELL_KNOWN, any(metadata::show))
        .route(&format!("{}/{{*endpoint}}", metadata::WELL_KNOWN), any(metadata::show))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(refusal::no_such_path)
        .with_state(endpoint)
}

async fn ready(State(endpoint): State<mcp::Endpoint>) -> (StatusCode, &'static str) {
    let readiness = endpoint.readiness();
    (readiness.status(), readiness.text())
}
