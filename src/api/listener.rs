//! Where operators come in: the socket, and an address where one is set.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::patience::{PATIENCE, Patient};
use super::service::{Door, Service, Visit};
use super::{Options, SOCKET};
use crate::manager::TenantMcpManager;
use crate::unix_socket::{Peer, Socket};

/// Most connections of a door at a time. The next takes the place of the one that has been silent for
/// longest: who has no token cannot keep out who has.
const MAX_CONNECTIONS: usize = 64;
/// Most requests of a door at a time, once it is known who asks; more are told that the service is busy.
pub(super) const MAX_REQUESTS: usize = 8;
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
        let (mut local, mut remote) = (Visits::new(), Visits::new());
        loop {
            let accepted = tokio::select! {
                () = stopping.cancelled() => break,
                Some(_) = local.tasks.join_next() => Ok(()),
                Some(_) = remote.tasks.join_next() => Ok(()),
                accepted = self.socket.accept() => accepted.map(|(stream, peer)| {
                    let door = match peer {
                        Peer { is_known: true, user } => Door::Socket(user),
                        Peer { is_known: false, user } => Door::Stranger(user),
                    };
                    local.admit(&service, stream, door, &stopping);
                }),
                accepted = accept(self.network.as_ref()) => accepted.map(|(stream, peer)| {
                    remote.admit(&service, stream, Door::Network(peer), &stopping);
                }),
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "the admin API does not accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while local.tasks.join_next().await.is_some() {}
        while remote.tasks.join_next().await.is_some() {}
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

/// The connections of a door.
struct Visits {
    tasks: JoinSet<()>,
    /// Those that may not have asked for anything yet, the oldest first.
    silent: VecDeque<(Arc<Visit>, AbortHandle)>,
    places: Arc<Semaphore>,
}

impl Visits {
    fn new() -> Self {
        let places = Arc::new(Semaphore::new(MAX_REQUESTS));
        Self { tasks: JoinSet::new(), silent: VecDeque::new(), places }
    }

    fn admit<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &mut self,
        service: &Arc<Service>,
        stream: S,
        door: Door,
        stopping: &CancellationToken,
    ) {
        self.silent.retain(|(visit, task)| !visit.has_asked() && !task.is_finished());
        if self.tasks.len() >= MAX_CONNECTIONS {
            let Some((_, longest)) = self.silent.pop_front() else { return };
            longest.abort();
        }
        let visit = Arc::new(Visit::new(door, Arc::clone(&self.places)));
        let conversation =
            converse(Arc::clone(service), stream, Arc::clone(&visit), stopping.clone());
        let task = self.tasks.spawn(conversation);
        self.silent.push_back((visit, task));
    }
}

/// One request and its answer.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    service: Arc<Service>,
    stream: S,
    visit: Arc<Visit>,
    stopping: CancellationToken,
) {
    let answer = service_fn(|request| Arc::clone(&service).answer(request, Arc::clone(&visit)));
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
            if !visit.has_asked() {
                return;
            }
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin API ended early");
    }
}
