//! What the endpoint is run with, and how that changes while it runs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;

use super::Options;
use super::allowed::{Allowed, InvalidName};
use super::tls::Identity;
use crate::clock::{Clock as _, SystemClock};
use crate::error::ErrorCode;

/// How often files of TLS are looked at for changes.
const LOOKED_AT_EVERY: Duration = Duration::from_mins(1);
/// How often it is said that a file is to be replaced.
const REMINDED_EVERY: Duration = Duration::from_hours(24);
/// A certificate that ends sooner is told of.
pub const EXPIRES_SOON: Duration = Duration::from_hours(14 * 24);

/// What the endpoint is run with. Clones share it.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    current: RwLock<Arc<Current>>,
    /// Held from reading files to serving what is in them: what is read later counts.
    changing: Mutex<()>,
}

/// What a connection is accepted under.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) options: Options,
    /// Hosts and origins of the options.
    pub(super) allowed: Allowed,
    /// What TLS is spoken with; in clear without.
    pub(super) identity: Option<Arc<Identity>>,
}

/// Why options cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A host or an origin of the options.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A file of TLS.
    #[error("{setting} ({}): {reason}", .path.display())]
    #[non_exhaustive]
    Tls {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, and the way out.
        reason: String,
    },
    /// What a port speaks stays.
    #[error("http.tls cannot be switched on or off while the service runs; restart it")]
    NeedsRestart,
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Name(_) | Self::Tls { .. } | Self::NeedsRestart => ErrorCode::InvalidArgument,
        }
    }
}

impl Handle {
    /// Reads what `options` name.
    pub fn new(options: Options) -> Result<Self, Error> {
        let identity = options.tls.as_ref().map(Identity::read).transpose()?.map(Arc::new);
        let allowed = Allowed::new(&options.allowed_hosts, &options.allowed_origins)?;
        let current = RwLock::new(Arc::new(Current { options, allowed, identity }));
        Ok(Self(Arc::new(Shared { current, changing: Mutex::default() })))
    }

    /// Has requests and connections from now on served with `options`. Connections that are open
    /// keep their certificate and their limits; which hosts and origins are served counts for
    /// their next request too. Files of TLS are read again, and the caller waits for that.
    ///
    /// # Errors
    ///
    /// Nothing is changed then.
    pub fn reload(&self, options: Options) -> Result<(), Error> {
        let _changing = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.exchange(options)
    }

    fn exchange(&self, options: Options) -> Result<(), Error> {
        if options.tls.is_some() != self.is_tls() {
            return Err(Error::NeedsRestart);
        }
        let now = SystemClock.now();
        let has_valid = self.certificate_expires_at().is_some_and(|end| now < end);
        let identity = options.tls.as_ref().map(|tls| {
            let identity = Identity::read(tls)?;
            if has_valid {
                identity.refuse_expired(tls, now)?;
            }
            Ok::<_, Error>(Arc::new(identity))
        });
        let identity = identity.transpose()?;
        let allowed = Allowed::new(&options.allowed_hosts, &options.allowed_origins)?;
        let current = Arc::new(Current { options, allowed, identity });
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        self.remind();
        Ok(())
    }

    /// Whether the endpoint speaks TLS by itself.
    pub fn is_tls(&self) -> bool {
        self.current().identity.is_some()
    }

    /// How long calls under way may take to finish when the service stops.
    pub fn drain_timeout(&self) -> Duration {
        self.current().options.drain_timeout
    }

    /// Until when the certificate is valid that is served, where TLS is spoken.
    pub fn certificate_expires_at(&self) -> Option<Timestamp> {
        self.current().identity.as_ref().map(|identity| identity.expires_at())
    }

    /// When the first list of clients' revoked certificates is to be replaced, and its file, where there
    /// are lists.
    pub fn client_crl_due(&self) -> Option<(Timestamp, PathBuf)> {
        self.current().identity.as_ref().and_then(|identity| identity.list_due().cloned())
    }

    pub(super) fn current(&self) -> Arc<Current> {
        // Nothing panics while it is held.
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes up files of TLS that changed, and reminds of those that are to be replaced, for as long as
    /// it is polled.
    pub(super) async fn follow_files(&self) -> std::convert::Infallible {
        self.remind();
        let mut reminded = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(LOOKED_AT_EVERY).await;
            let handle = self.clone();
            // Fails when it panicked, which the log says.
            let _looked = tokio::task::spawn_blocking(move || handle.look_at_files()).await;
            if reminded.elapsed() >= REMINDED_EVERY {
                reminded = tokio::time::Instant::now();
                self.remind();
            }
        }
    }

    /// Serves what is in the files of TLS, if they changed since they were looked at last.
    pub(super) fn look_at_files(&self) {
        let _changing = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current();
        if !current.identity.as_ref().is_some_and(|identity| identity.has_changed()) {
            return;
        }
        match self.exchange(current.options.clone()) {
            Ok(()) => tracing::info!("the files of http.tls changed and are served from now on"),
            Err(error) => {
                tracing::error!(%error, "the files of http.tls changed; what was served stays");
            }
        }
    }

    fn remind(&self) {
        let Some(expires_at) = self.certificate_expires_at() else { return };
        let now = SystemClock.now();
        if expires_at <= now {
            tracing::error!(%expires_at, "the certificate has expired; clients refuse it");
        } else if expires_at.duration_since(now).unsigned_abs() < EXPIRES_SOON {
            tracing::warn!(%expires_at, "the certificate expires soon; replace its file");
        }
        if let Some((due, file)) = self.client_crl_due().filter(|(due, _)| *due <= now) {
            tracing::warn!(%due, file = %file.display(), "a list of clients' revoked certificates is \
                out of date: those revoked since are served; replace its file");
        }
    }
}
