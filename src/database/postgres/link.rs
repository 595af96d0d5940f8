//! The way to a server: dialling, TLS, login, and a second way to cancel.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls;
use crate::database::{Options, Unavailable};
use crate::tenant::{Credentials, PostgresTarget, TlsMode};

/// Bytes that a server may send for a login, and beside the rows of an answer.
pub(super) const OVERHEAD_BYTES: u64 = 1 << 20;
/// Longest wait for a server to take a cancellation.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// A login, and what is needed to cancel what it runs.
pub(super) struct Link {
    pub(super) allowance: Arc<Allowance>,
    peer: Peer,
    tls: Option<MakeRustlsConnect>,
    server_name: String,
    cancel: CancelToken,
    connection: AbortHandle,
}

/// How many more bytes the server may send. The driver reads a message as a whole before anyone
/// sees it, so what one message may cost has to be bounded below the driver.
#[derive(Debug)]
pub(super) struct Allowance(AtomicU64);

/// The address that was dialled: a cancellation goes to the same one, whatever the name says then.
#[derive(Clone, Debug)]
enum Peer {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that stops reading when the allowance is used up.
struct Metered {
    stream: Box<dyn Stream>,
    allowance: Arc<Allowance>,
}

impl Link {
    pub(super) async fn open(
        target: &PostgresTarget,
        credentials: &Credentials,
        options: &Options,
    ) -> Result<(Client, Self), Unavailable> {
        let login = Self::log_in(target, credentials);
        tokio::time::timeout(options.connect_timeout, login)
            .await
            .unwrap_or(Err(Unavailable::TimedOut))
    }

    async fn log_in(
        target: &PostgresTarget,
        credentials: &Credentials,
    ) -> Result<(Client, Self), Unavailable> {
        let tls = tls::config(target.tls, target.root_certificates.as_deref())?;
        let mut tls = tls.map(MakeRustlsConnect::new);
        let (stream, peer) = dial(&target.host, target.port).await?;
        let allowance = Arc::new(Allowance(AtomicU64::new(OVERHEAD_BYTES)));
        let stream = Metered { stream, allowance: Arc::clone(&allowance) };
        // Only verify-full compares the name, so elsewhere it need not be one.
        let is_name = ServerName::try_from(target.host.as_str()).is_ok();
        let server_name = if is_name || target.tls == TlsMode::VerifyFull {
            target.host.clone()
        } else {
            "localhost".to_owned()
        };
        // The driver copies the password into its configuration, so that is made last, after the
        // server was reached, and goes as soon as the login is through. Nothing of the client or
        // the connection keeps it; what is freed of it, the program's allocator wipes.
        let config = configuration(target, credentials);
        let (client, connection) = if let Some(tls) = &mut tls {
            let connect = MakeTlsConnect::<Metered>::make_tls_connect(tls, &server_name)
                .map_err(|_| Unavailable::Configuration)?;
            let (client, connection) =
                config.connect_raw(stream, connect).await.map_err(|error| login_error(&error))?;
            (client, spawn(connection))
        } else {
            let (client, connection) =
                config.connect_raw(stream, NoTls).await.map_err(|error| login_error(&error))?;
            (client, spawn(connection))
        };
        drop(config);
        let cancel = client.cancel_token();
        Ok((client, Self { allowance, peer, tls, server_name, cancel, connection }))
    }

    /// Asks the server to stop what the session runs. In the background: the caller may be gone.
    pub(super) fn cancel(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return; // The process is going down, and its connections with it.
        };
        let (peer, tls) = (self.peer.clone(), self.tls.clone());
        let (server_name, cancel) = (self.server_name.clone(), self.cancel.clone());
        // Nothing waits for it: it ends by itself within its timeout, and the server's own
        // statement_timeout holds if it does not arrive.
        runtime.spawn(async move {
            let request = async {
                let stream = peer.dial().await?;
                let stream = Metered {
                    stream,
                    allowance: Arc::new(Allowance(AtomicU64::new(OVERHEAD_BYTES))),
                };
                let sent = match tls {
                    Some(mut tls) => {
                        let connect =
                            MakeTlsConnect::<Metered>::make_tls_connect(&mut tls, &server_name)
                                .map_err(|_| Unavailable::Configuration)?;
                        cancel.cancel_query_raw(stream, connect).await
                    }
                    None => cancel.cancel_query_raw(stream, NoTls).await,
                };
                sent.map_err(|_| Unavailable::Lost)
            };
            if let Ok(Err(_)) | Err(_) = tokio::time::timeout(CANCEL_TIMEOUT, request).await {
                tracing::warn!("a cancellation did not reach the database");
            }
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Allowance {
    /// Allows `bytes` from now on.
    pub(super) fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn spend(&self, bytes: u64) {
        // In one step: `set` may come between a look and a write, and would be undone.
        self.0.update(Ordering::Relaxed, Ordering::Relaxed, |left| left.saturating_sub(bytes));
    }
}

impl Peer {
    async fn dial(&self) -> Result<Box<dyn Stream>, Unavailable> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others are one to the caller")]
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                Unavailable::ConnectionRefused
            }
            io::ErrorKind::TimedOut => Unavailable::TimedOut,
            _ => Unavailable::Lost,
        };
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                Ok(Box::new(stream))
            }
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
        }
    }
}

/// What the driver is told; the password is copied into it.
fn configuration(target: &PostgresTarget, credentials: &Credentials) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config
        .user(target.user.as_str())
        .dbname(target.database.as_str())
        .application_name("tenantry")
        .ssl_mode(match target.tls {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
    if let Some(password) = &credentials.db_password {
        #[expect(clippy::disallowed_methods, reason = "the driver needs it to log in")]
        config.password(password.expose_secret());
    }
    config
}

async fn dial(host: &str, port: u16) -> Result<(Box<dyn Stream>, Peer), Unavailable> {
    if host.starts_with('/') {
        let peer = Peer::Unix(PathBuf::from(format!("{host}/.s.PGSQL.{port}")));
        return Ok((peer.dial().await?, peer));
    }
    let addresses = lookup_host((host, port)).await.map_err(|_| Unavailable::HostNotFound)?;
    let mut failure = Unavailable::HostNotFound;
    for address in addresses {
        let peer = Peer::Tcp(address);
        match peer.dial().await {
            Ok(stream) => return Ok((stream, peer)),
            Err(reason) => failure = reason,
        }
    }
    Err(failure)
}

/// Drives the connection until the session is dropped, which aborts it.
fn spawn(
    connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
) -> AbortHandle {
    #[expect(clippy::disallowed_methods, reason = "the session that owns it aborts it on drop")]
    let task = tokio::spawn(async move {
        if connection.await.is_err() {
            // Who waits for an answer learns of it; the text may quote what the server sent.
            tracing::debug!("a database connection ended with an error");
        }
    });
    task.abort_handle()
}

/// Why a login failed, without a word of the server's.
fn login_error(error: &tokio_postgres::Error) -> Unavailable {
    if let Some(code) = error.code() {
        return if code.code().starts_with("28") {
            Unavailable::Authentication
        } else {
            Unavailable::Refused
        };
    }
    // The driver keeps its kinds of errors to itself, but gives each a fixed text.
    match error.to_string().as_str() {
        "error performing TLS handshake" => Unavailable::Tls,
        "authentication error" | "invalid configuration" => Unavailable::Authentication,
        "unexpected message from server" | "error parsing response from server" => {
            Unavailable::Protocol
        }
        _ => Unavailable::Lost,
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.allowance.is_exhausted() {
            return Poll::Ready(Err(io::Error::other("the server sent more than is allowed")));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.allowance.spend((buffer.filled().len() - before) as u64);
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
