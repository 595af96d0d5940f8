//! Accepts connections and speaks HTTP/1.1 on them, within limits.
//!
//! ```text
//! accept --admission--> TLS handshake --> head, body --> router --> answer --> next head …
//!           closed         timeout        timeouts, 408             stall timeout    idle timeout
//!                                         414, 431
//! ```
//!
//! Protects against: clients that connect and say little (slow heads, slow bodies, half a handshake),
//! that connect too often, that say too much, that do not take their answers. Each costs a task, a
//! socket and at most some tens of KiB, for a time that has an end; larger bodies and answers have to
//! find room in the share of their tenant ([`super::budget`]). A connection beyond the limits is
//! closed at once, without an answer: over TLS there is none before the handshake, which is what
//! must not be paid for. Not against floods that fill the line, nor against many addresses that fill
//! the limit together: they wait for a connection that ends.

mod admission;
mod deadline;
mod portion;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::admission::{Admission, Admitted};
use self::deadline::{Answer, Patient, Received};
pub(super) use self::portion::Fragment;
use self::portion::Turn;
use super::handle::{Current, Handle};
use super::tls::ClientIdentity;

/// How long nothing is accepted after the system refused to.
const PAUSE: Duration = Duration::from_millis(100);
/// What comes again is in the log as often.
const TOLD_EVERY: Duration = Duration::from_mins(1);
/// What hyper reads, and collects of an answer, at a time; more than a head may have.
const BUFFER: usize = 64 << 10;
/// The first byte of whoever speaks TLS: the type of a handshake record.
const HANDSHAKE: u8 = 0x16;
/// To whoever does not.
const NO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 35\r\nConnection: close\r\n\r\n\
    this port speaks TLS; use https://\n";

/// Serves `router` to whoever connects, until `stopping`; then closes idle connections, and is done
/// once the requests under way are answered. Dropped, it cuts them.
///
/// A request has the client's address as [`ConnectInfo`] and, where it has a certificate that says
/// so, [`super::tls::CertificateTenant`].
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    handle: &Handle,
    stopping: &CancellationToken,
) {
    let admission = Arc::new(Admission::default());
    let mut connections = JoinSet::new();
    let (mut refused, mut failed) = (Occasional::default(), Occasional::default());
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_the_peer(&error) => continue,
            Err(error) => {
                // Out of files, most often: those of connections that end come free.
                if let Some(times) = failed.happened() {
                    tracing::error!(%error, times, "connections are not accepted; when files are \
                        short, raise ulimit -n (LimitNOFILE=) or lower http.max_connections");
                }
                tokio::select! {
                    () = stopping.cancelled() => break,
                    () = sleep(PAUSE) => continue,
                }
            }
        };
        let current = handle.current();
        let options = &current.options;
        let is_proxy = options.proxies.has(peer.ip());
        let Some(admitted) = admission.admit(peer.ip(), is_proxy, &options.limits) else {
            if let Some(times) = refused.happened() {
                tracing::warn!(peer = %peer.ip(), times, "connections were closed, at last of this \
                    peer: http.max_connections or http.max_connections_per_address is reached");
            }
            continue;
        };
        let connection = Connection {
            peer,
            current,
            router: router.clone(),
            stopping: stopping.clone(),
            _admitted: admitted,
        };
        connections.spawn(connection.serve(stream));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Whether a connection failed before it was accepted, and the next one need not.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// What may happen a thousand times a second and is told of once a minute.
#[derive(Debug, Default)]
struct Occasional {
    told: Option<Instant>,
    untold: u64,
}

impl Occasional {
    /// How often it happened since it was told last, when it is time to tell.
    fn happened(&mut self) -> Option<u64> {
        self.untold = self.untold.saturating_add(1);
        if self.told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            return None;
        }
        self.told = Some(Instant::now());
        Some(std::mem::take(&mut self.untold))
    }
}

/// One that was admitted. What it was accepted under stays for as long as it lasts.
struct Connection {
    peer: SocketAddr,
    current: Arc<Current>,
    router: Router,
    stopping: CancellationToken,
    _admitted: Admitted,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        // Without TCP_NODELAY, an answer in two writes waits for the client's delayed
        // acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
        let Some(identity) = self.current.identity.clone() else {
            return self.converse(stream, ClientIdentity::default()).await;
        };
        let handshake = async {
            let mut first = [0];
            match stream.peek(&mut first).await {
                Ok(1) if first == [HANDSHAKE] => identity.accept(stream).await.map(Some),
                Ok(1) => answer_in_clear(stream).await.map(|()| None),
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let limit = self.current.options.limits.handshake_timeout;
        let shaken = tokio::select! {
            () = self.stopping.cancelled() => return,
            shaken = timeout(limit, handshake) => shaken,
        };
        match shaken {
            Ok(Ok(Some((stream, client)))) => self.converse(stream, client).await,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(peer = %self.peer, %error, "no TLS handshake"),
            Err(_) => tracing::debug!(peer = %self.peer, "the TLS handshake took too long"),
        }
    }

    async fn converse<S>(self, stream: S, client: ClientIdentity)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.current.options.limits;
        let turn = Arc::new(Turn::default());
        let stream = Patient::new(stream, Arc::clone(&turn), self.stopping.clone(), limits);
        let mut protocol = http1::Builder::new();
        protocol
            .timer(TokioTimer::new())
            // It runs from the end of an answer on: `Patient` has the shorter one of the head.
            .header_read_timeout(limits.idle_timeout.max(limits.header_timeout))
            .max_header_size(limits.max_header_bytes)
            .max_headers(limits.max_headers)
            .max_buf_size(BUFFER.max(limits.max_header_bytes));
        let service = service_fn(|request| self.answer(request, &turn, &client));
        let connection = protocol.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.stopping.cancelled() => None,
        };
        if ended.is_none() {
            connection.as_mut().graceful_shutdown();
            ended = Some(connection.await);
        }
        if let Some(Err(error)) = ended {
            tracing::debug!(peer = %self.peer, %error, "a connection ended");
        }
    }

    /// The answer to one request.
    fn answer(
        &self,
        request: hyper::Request<Incoming>,
        turn: &Arc<Turn>,
        client: &ClientIdentity,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send + use<> {
        let (serving, fragment) = turn.begin(request.body().size_hint().exact());
        let options = &self.current.options;
        let is_too_long = target_bytes(&request) > options.limits.max_target_bytes;
        let was_late = Arc::new(AtomicBool::new(false));
        let address = options.proxies.client(self.peer, request.headers());
        let (late, whole) = (Arc::clone(&was_late), Arc::clone(turn));
        let mut request =
            request.map(|body| Body::new(Received::new(body, &options.limits, late, whole)));
        request.extensions_mut().insert(ConnectInfo(address));
        if let Some(fragment) = fragment {
            request.extensions_mut().insert(fragment);
        }
        if let Some(tenant) = client.tenant() {
            request.extensions_mut().insert(tenant);
        }
        let router = TowerToHyperService::new(self.router.clone());
        async move {
            let mut response = if is_too_long {
                last(StatusCode::URI_TOO_LONG, "the path is too long\n")
            } else {
                match router.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            };
            if was_late.load(Ordering::Relaxed) {
                let text = "the body of the request did not come in time\n";
                response = last(StatusCode::REQUEST_TIMEOUT, text);
            }
            Ok(response.map(|body| Body::new(Answer { body, _serving: serving })))
        }
    }
}

/// How long what is asked for is, in bytes.
fn target_bytes(request: &hyper::Request<Incoming>) -> usize {
    let uri = request.uri();
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    authority + uri.path_and_query().map_or(0, |path| path.as_str().len())
}

/// An answer after which the connection is closed.
fn last(status: StatusCode, text: &'static str) -> Response {
    let mut response = (status, text).into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// To a client that does not speak TLS. Bounded by the timeout of the handshake.
async fn answer_in_clear(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(NO_TLS).await?;
    stream.shutdown().await?;
    // What is unread when a socket is closed resets the connection, and the answer may be lost.
    tokio::io::copy(&mut tokio::io::AsyncReadExt::take(stream, 64 << 10), &mut tokio::io::sink())
        .await?;
    Ok(())
}
