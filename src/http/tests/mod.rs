//! The listener over real sockets, in front of a few routes of its own.

mod limits;
mod revocation;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request};
use axum::routing::{any, get, post};
use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::tls::CertificateTenant;
use super::{Handle, Limits, Options, listener};

/// What `/large` answers, which is more than sockets hold.
const LARGE: usize = 64 << 20;

/// What it is made of.
static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];

/// A listener that serves.
struct Served {
    address: SocketAddr,
    handle: Handle,
    stopping: CancellationToken,
    task: JoinHandle<()>,
    /// A call of `/wait` is under way.
    waiting: Arc<Notify>,
    /// Ends the calls of `/wait`.
    go_on: CancellationToken,
    /// Told when an answer of `/large`, or a call of `/wait`, is let go of.
    let_go: mpsc::UnboundedReceiver<()>,
}

struct LetGo(mpsc::UnboundedSender<()>);

impl Drop for LetGo {
    fn drop(&mut self) {
        // Whether somebody wants to know is the test's business.
        let _told = self.0.send(());
    }
}

impl Served {
    async fn start(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handle = Handle::new(options).unwrap();
        let (waiting, go_on) = (Arc::new(Notify::new()), CancellationToken::new());
        let (wait, ends) = (Arc::clone(&waiting), go_on.clone());
        let (told, let_go) = mpsc::unbounded_channel();
        let ended = told.clone();
        let router = Router::new()
            .route("/", get(|| async { "here\n" }))
            .route("/body", post(|body: Bytes| async move { body.len().to_string() }))
            .route("/peer", get(peer))
            .route("/tenant", get(tenant))
            .route("/large", get(move || async move { large(LetGo(told)) }))
            .route(
                "/wait",
                any(move |_: Bytes| async move {
                    let _held = LetGo(ended);
                    wait.notify_one();
                    ends.cancelled().await;
                    "done\n"
                }),
            );
        let stopping = CancellationToken::new();
        let (own, stops) = (handle.clone(), stopping.clone());
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        let task =
            tokio::spawn(async move { listener::serve(listener, router, &own, &stops).await });
        Self { address, handle, stopping, task, waiting, go_on, let_go }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Connects and asks, until a connection is served.
    async fn served(&self) -> TcpStream {
        loop {
            let mut stream = self.connect().await;
            if ask(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.0 == 200 {
                return stream;
            }
        }
    }
}

async fn peer(ConnectInfo(peer): ConnectInfo<SocketAddr>) -> String {
    peer.ip().to_string()
}

async fn tenant(request: Request) -> String {
    let tenant = request.extensions().get::<CertificateTenant>();
    format!("{:?}", tenant.map(CertificateTenant::as_str))
}

fn large(let_go: LetGo) -> Body {
    let pieces = stream::iter(0..LARGE / PIECE.len()).map(move |_| {
        // For as long as the answer is.
        let _held = &let_go;
        Ok::<_, std::convert::Infallible>(Bytes::from_static(&PIECE))
    });
    Body::from_stream(pieces)
}

/// Sends `request` and reads one answer: its status and its body, or 0 when there is none. Whole
/// bodies only, of a known length.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, request: &str) -> (u16, String) {
    // A server that has closed the connection may have answered before.
    let _sent = stream.write_all(request.as_bytes()).await;
    answer(stream).await
}

async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> (u16, String) {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("\r\n\r\n") {
        match stream.read(&mut byte).await {
            Ok(1) => text.push(char::from(byte[0])),
            _ => return (0, String::new()),
        }
    }
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let text = text.to_ascii_lowercase();
    let length = text
        .split("content-length: ")
        .nth(1)
        .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (status, String::from_utf8(body).unwrap())
}

/// Whether the other side closed the connection without a word.
async fn is_closed<S: AsyncRead + Unpin>(stream: &mut S) -> bool {
    !matches!(stream.read(&mut [0]).await, Ok(1))
}

fn limited(change: impl FnOnce(&mut Limits)) -> Options {
    let mut options = Options::default();
    change(&mut options.limits);
    options
}

/// Long enough for a machine under load, and short enough to be waited for.
const SOON: Duration = Duration::from_millis(300);
/// Longer than any test waits.
const LATE: Duration = Duration::from_mins(10);
