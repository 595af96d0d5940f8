//! Where operators come in: the socket, and an address where one is set.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::patience::{PATIENCE, Patient};
use super::service::{Door, Service};
use super::{Options, SOCKET};
use crate::manager::TenantMcpManager;
use crate::unix_socket::{Peer, Socket};

/// Most connections of a door at a time whose requests are executed. As many again are told that the
/// service is busy, and further ones are closed.
const MAX_CONNECTIONS: usize = 8;
/// How long accepting rests after it failed.
const PAUSE: Duration = Duration::from_millis(100);
/// Most headers of a request, and most bytes of its head.
const MAX_HEADERS: usize = 32;
const MAX_HEAD: usize = 16 << 10;

/// The socket, bound, and the address, if there is one.
#[derive(Debug)]
pub struct Listeners {
    socket: Socket,
    network: Option<TcpListener>,
    options: Options,
}

impl Listeners {
    /// Binds the socket in `directory`, the data directory that this process has. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// When the system refuses, or the address is not a loopback one.
    pub fn bind(directory: &Path, options: Options) -> io::Result<Self> {
        let network = options.listen.map(listen).transpose()?;
        Ok(Self { socket: Socket::bind(directory, SOCKET)?, network, options })
    }

    /// Where it listens beside the socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.network.as_ref().and_then(|network| network.local_addr().ok())
    }

    /// Executes what operators send, until `stopping`; then what is under way is finished first.
    pub async fn serve(self, manager: Arc<TenantMcpManager>, stopping: CancellationToken) {
        let service = Arc::new(Service::new(manager, self.options, stopping.clone()));
        let (mut local, mut remote) = (JoinSet::new(), JoinSet::new());
        loop {
            let accepted = tokio::select! {
                () = stopping.cancelled() => break,
                Some(_) = local.join_next() => Ok(()),
                Some(_) = remote.join_next() => Ok(()),
                accepted = self.socket.accept() => accepted.map(|(stream, peer)| {
                    let door = match peer {
                        Peer { is_known: true, user } => Door::Socket(user),
                        Peer { is_known: false, user } => Door::Stranger(user),
                    };
                    admit(&mut local, &service, stream, door, &stopping);
                }),
                accepted = accept(self.network.as_ref()) => accepted.map(|(stream, peer)| {
                    admit(&mut remote, &service, stream, Door::Network(peer), &stopping);
                }),
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "the admin API does not accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while local.join_next().await.is_some() {}
        while remote.join_next().await.is_some() {}
        service.finish().await;
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // Tokens are sent in clear text. The settings say so in better words.
    if !address.ip().is_loopback() {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// The next connection of `listener`; never, where there is none.
async fn accept(listener: Option<&TcpListener>) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

fn admit<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connections: &mut JoinSet<()>,
    service: &Arc<Service>,
    stream: S,
    door: Door,
    stopping: &CancellationToken,
) {
    if connections.len() >= 2 * MAX_CONNECTIONS {
        return;
    }
    let is_busy = connections.len() >= MAX_CONNECTIONS;
    let (service, stopping) = (Arc::clone(service), stopping.clone());
    connections.spawn(converse(service, stream, door, is_busy, stopping));
}

/// One request and its answer.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    service: Arc<Service>,
    stream: S,
    door: Door,
    is_busy: bool,
    stopping: CancellationToken,
) {
    let has_begun = AtomicBool::new(false);
    let answer = service_fn(|request| {
        has_begun.store(true, Ordering::Release);
        Arc::clone(&service).answer(request, door, is_busy)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Patient::new(stream)), answer);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            // Who has said nothing yet is not waited for.
            if !has_begun.load(Ordering::Acquire) {
                return;
            }
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin API ended early");
    }
}
