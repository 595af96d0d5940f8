//! The way to a server: dialling, TLS, login, and a second way to cancel.
//!
//! ```text
//! dial (address policy) --> Metered --TLS--> Login --driver logs in--> Plain, for `wire`
//! ```
//!
//! The driver does the login, with TLS and all that `SCRAM` asks for; then the stream is taken back
//! from it. While it has it, two things bound what a hostile server can make of its memory: the
//! bytes that are passed on, and the length that each message announces.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::oneshot;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::zeroize_stack;

use super::AddressPolicy;
use super::stream::{Connection, Keeping, Kept, Login, Metered, Plain, Socket};
use super::tls::{self, Identity};
use crate::database::background::spawn;
use crate::database::{Options, Unavailable};
use crate::tenant::{Credentials, PostgresTarget, TlsMode};

/// Bytes of stack that are wiped after each step of a login: more than it uses.
const STACK: usize = 128 << 10;
/// Longest wait for a server to take a cancellation.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// What is needed to cancel what a session runs, and to see whether it has ended.
pub(super) struct Link {
    connection: Arc<Connection>,
    canceller: Canceller,
}

/// The second way to the server, by which what a session runs is cancelled.
#[derive(Clone)]
struct Canceller {
    peer: Peer,
    tls: Option<MakeRustlsConnect>,
    server_name: String,
    token: CancelToken,
}

/// What a login gives.
pub(super) struct LoggedIn {
    pub(super) link: Link,
    pub(super) stream: Plain,
    /// In which order days and months of a date are read, such as `MDY`.
    pub(super) date_order: DateOrder,
}

/// The second half of the server's `DateStyle`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum DateOrder {
    DayMonth,
    MonthDay,
    Year,
}

/// The address that was dialled: a cancellation goes to the same one, whatever the name says then.
#[derive(Clone, Debug)]
enum Peer {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Link {
    pub(super) async fn open(
        target: &PostgresTarget,
        credentials: &Credentials,
        options: &Options,
    ) -> Result<LoggedIn, Unavailable> {
        // What a login computes from the password is in its future, and on the stack of whoever
        // polls it. Boxed, it is freed when it is through, and the program's allocator wipes it;
        // within a caller's it could stay for long.
        let mut login = Box::pin(Self::log_in(target, credentials, options));
        let login = std::future::poll_fn(|context| {
            let polled = login.as_mut().poll(context);
            zeroize_stack::<STACK>();
            polled
        });
        tokio::time::timeout(options.connect_timeout, login)
            .await
            .unwrap_or(Err(Unavailable::TimedOut))
    }

    async fn log_in(
        target: &PostgresTarget,
        credentials: &Credentials,
        options: &Options,
    ) -> Result<LoggedIn, Unavailable> {
        let identity = match (&target.client_certificate, &credentials.db_sslkey) {
            (Some(certificates), Some(key)) => Some(Identity { certificates, key }),
            _ => None,
        };
        let roots = target.root_certificates.as_deref();
        let tls = tls::config(target.tls, roots, identity)?;
        let mut tls = tls.map(MakeRustlsConnect::new);
        let (connection, peer) = dial(&target.host, target.port, &options.addresses).await?;
        // Only verify-full compares the name, so elsewhere it need not be one.
        let is_name = ServerName::try_from(target.host.as_str()).is_ok();
        let server_name = if is_name || target.tls == TlsMode::VerifyFull {
            target.host.clone()
        } else {
            "localhost".to_owned()
        };
        let metered = Metered(Arc::clone(&connection));
        let kept = Kept::default();
        // The driver copies the password into its configuration, so that is made last, after the
        // server was reached, and goes as soon as the login is through. What is freed of it, the
        // program's allocator wipes.
        let config = configuration(target, credentials);
        let (token, date_style) = if let Some(tls) = &mut tls {
            let connector = MakeTlsConnect::<Metered>::make_tls_connect(tls, &server_name)
                .map_err(|_| Unavailable::Configuration)?;
            let keeping = Keeping { connector, kept: Arc::clone(&kept) };
            let (client, connection) =
                config.connect_raw(metered, keeping).await.map_err(|error| login_error(&error))?;
            (client.cancel_token(), connection.parameter("DateStyle").map(str::to_owned))
        } else {
            let login = Login::new(Box::new(metered), &kept);
            let (client, connection) =
                config.connect_raw(login, NoTls).await.map_err(|error| login_error(&error))?;
            (client.cancel_token(), connection.parameter("DateStyle").map(str::to_owned))
        };
        drop(config);
        // A cancellation proves by its own number whose it is, so that the key need not stay.
        let tls = match identity {
            Some(_) => tls::config(target.tls, roots, None)?.map(MakeRustlsConnect::new),
            None => tls,
        };
        let stream = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stream = stream.ok_or(Unavailable::Protocol)?;
        connection.lift_bound();
        let date_order = DateOrder::of(&date_style.unwrap_or_default());
        let canceller = Canceller { peer, tls, server_name, token };
        let link = Self { connection, canceller };
        Ok(LoggedIn { link, stream, date_order })
    }

    /// Whether the server has said something that nobody asked for: in a session without work it
    /// is that the session has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.connection.is_readable()
    }

    /// Asks the server, once, to stop what the session runs. In the background.
    ///
    /// It may come too late and strike what runs next: until this gives a word, and the server says
    /// that it stopped, the session must not be used.
    pub(super) fn cancel(&self) -> oneshot::Receiver<()> {
        let canceller = self.canceller.clone();
        let (taken, is_taken) = oneshot::channel();
        spawn(async move {
            if canceller.cancel().await {
                // Nobody waits for it any more, if not.
                taken.send(()).ok();
            }
        });
        is_taken
    }

    /// Asks the server to stop what a session runs that is never used again, and lets go of it. In
    /// the background: the caller may be gone.
    ///
    /// A server forgets what arrives while it plans or reads the next message, so it is asked until
    /// it says something. What it says is not read: it goes, and with it whoever goes on talking.
    pub(super) fn abandon(&self) {
        /// Less than a tenth of a second between most, more than a second in all.
        const PAUSES: [u64; 8] = [0, 10, 20, 40, 80, 160, 320, 640];
        let (canceller, connection) = (self.canceller.clone(), Arc::clone(&self.connection));
        let asking = async move {
            for pause in PAUSES {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                if connection.is_readable() && pause > 0 {
                    return;
                }
                canceller.cancel().await;
            }
        };
        // In all: the session counts as closed, and its socket is still here.
        spawn(async move { drop(tokio::time::timeout(CANCEL_TIMEOUT, asking).await) });
    }
}

impl Canceller {
    /// Whether the server has taken it: it hangs up when it has told the session.
    async fn cancel(&self) -> bool {
        let request = async {
            let connection = self.peer.dial().await?;
            let stream = Metered(Arc::clone(&connection));
            let token = self.token.clone();
            let sent = match self.tls.clone() {
                Some(mut tls) => {
                    let connect =
                        MakeTlsConnect::<Metered>::make_tls_connect(&mut tls, &self.server_name)
                            .map_err(|_| Unavailable::Configuration)?;
                    token.cancel_query_raw(stream, connect).await
                }
                None => token.cancel_query_raw(stream, NoTls).await,
            };
            sent.map_err(|_| Unavailable::Lost)?;
            connection.ended().await;
            Ok::<_, Unavailable>(())
        };
        let is_taken = matches!(tokio::time::timeout(CANCEL_TIMEOUT, request).await, Ok(Ok(())));
        if !is_taken {
            tracing::warn!("a cancellation did not reach the database");
        }
        is_taken
    }
}

impl DateOrder {
    /// Of a style such as `ISO, MDY`.
    fn of(style: &str) -> Self {
        if style.ends_with("DMY") {
            Self::DayMonth
        } else if style.ends_with("YMD") {
            Self::Year
        } else {
            Self::MonthDay
        }
    }

    /// The style that writes dates as ISO 8601 and reads them as the server did.
    pub(super) fn iso_style(self) -> &'static str {
        match self {
            Self::DayMonth => "ISO, DMY",
            Self::MonthDay => "ISO, MDY",
            Self::Year => "ISO, YMD",
        }
    }
}

impl Peer {
    async fn dial(&self) -> Result<Arc<Connection>, Unavailable> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others are one to the caller")]
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                Unavailable::ConnectionRefused
            }
            io::ErrorKind::TimedOut => Unavailable::TimedOut,
            _ => Unavailable::Lost,
        };
        let socket = match self {
            Self::Tcp(address) => {
                let socket = TcpStream::connect(address).await.map_err(failed)?;
                socket.set_nodelay(true).map_err(failed)?;
                Socket::Tcp(socket)
            }
            Self::Unix(path) => Socket::Unix(UnixStream::connect(path).await.map_err(failed)?),
        };
        Ok(Arc::new(Connection::new(socket)))
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

async fn dial(
    host: &str,
    port: u16,
    policy: &AddressPolicy,
) -> Result<(Arc<Connection>, Peer), Unavailable> {
    if host.starts_with('/') {
        if !policy.admits_unix_socket() {
            return Err(Unavailable::AddressNotPermitted);
        }
        let peer = Peer::Unix(PathBuf::from(format!("{host}/.s.PGSQL.{port}")));
        return Ok((peer.dial().await?, peer));
    }
    let addresses = lookup_host((host, port)).await.map_err(|_| Unavailable::HostNotFound)?;
    let mut failure = Unavailable::HostNotFound;
    for address in addresses {
        if !policy.admits(address.ip()) {
            failure = Unavailable::AddressNotPermitted;
            continue;
        }
        let peer = Peer::Tcp(address);
        match peer.dial().await {
            Ok(connection) => return Ok((connection, peer)),
            Err(reason) => failure = reason,
        }
    }
    Err(failure)
}

/// Why a login failed, without a word of the server's.
fn login_error(error: &tokio_postgres::Error) -> Unavailable {
    if let Some(code) = error.code() {
        return match code.code() {
            "53300" => Unavailable::Full,
            code if code.starts_with("28") => Unavailable::Authentication,
            _ => Unavailable::Refused,
        };
    }
    // The last word of a handshake is the server's: it says so when it does not trust the client.
    let mut source = error.source();
    while let Some(cause) = source {
        let is_of_tls = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => inner.is::<rustls::Error>(),
            None => cause.is::<rustls::Error>(),
        };
        if is_of_tls {
            return Unavailable::Tls;
        }
        source = cause.source();
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
