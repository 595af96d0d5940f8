//! Getting a key set from its issuer: one request, over TLS, with every bound known.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::key_set::MAX_BYTES;

/// How long all of it may take, names looked up and bytes read.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest head of an answer.
const MAX_HEAD: usize = 64 << 10;

/// A place that a key set is served at.
pub(super) struct Place {
    url: Url,
    host: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Why nothing was got. No text of the issuer's is in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("its answer is not HTTP")]
    Garbled,
    #[error("it took more than {} s", TIMEOUT.as_secs())]
    Slow,
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("it cannot be reached: {0}")]
    Unreachable(io::Error),
}

impl Place {
    /// Reached over TLS, if `url` says so, with the system's root certificates or with those in `roots`
    /// only. Redirects, and proxies of the environment, are not followed.
    pub(super) fn new(url: Url, roots: Option<&Path>) -> Result<Self, String> {
        let host = match url.host().ok_or("its URL has no host")? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let tls = if url.scheme() == "https" {
            let name =
                ServerName::try_from(host.clone()).map_err(|_| "its URL has no valid host")?;
            Some((TlsConnector::from(Arc::new(tls(roots)?)), name))
        } else {
            None
        };
        Ok(Self { url, host, tls })
    }

    pub(super) async fn get(&self) -> Result<Vec<u8>, Error> {
        let exchange = async {
            let port = self.url.port_or_known_default().unwrap_or_default();
            let stream = TcpStream::connect((self.host.as_str(), port)).await;
            let stream = stream.map_err(Error::Unreachable)?;
            match &self.tls {
                Some((connector, name)) => {
                    let stream = connector.connect(name.clone(), stream).await;
                    ask(&self.url, stream.map_err(Error::Unreachable)?).await
                }
                None => ask(&self.url, stream).await,
            }
        };
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or(Err(Error::Slow))
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").field(&self.url.as_str()).finish()
    }
}

async fn ask(
    url: &Url,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
) -> Result<Vec<u8>, Error> {
    let garbled = |_| Error::Garbled;
    let handshake = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(garbled)?;
    let request = Request::get(&url[url::Position::BeforePath..url::Position::AfterQuery])
        .header(header::HOST, &url[url::Position::BeforeHost..url::Position::AfterPort])
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("tenantry/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Error::Garbled)?;
    let answer = pin!(async move {
        let response = sender.send_request(request).await.map_err(garbled)?;
        if response.status() != StatusCode::OK {
            return Err(Error::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        match body {
            Ok(body) => Ok(body.to_bytes().into()),
            Err(error) if error.is::<LengthLimitError>() => Err(Error::TooLarge),
            Err(_) => Err(Error::Garbled),
        }
    });
    // What was read before the connection ended is still to be had.
    match select(answer, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, answer)) => answer.await,
    }
}

fn tls(roots: Option<&Path>) -> Result<ClientConfig, String> {
    let mut store = RootCertStore::empty();
    if let Some(file) = roots {
        let unusable = || format!("{} has no PEM certificates that can be used", file.display());
        for certificate in CertificateDer::pem_file_iter(file).map_err(|_| unusable())? {
            store.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
        }
    } else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if store.is_empty() {
        return Err("there are no root certificates to reach it with; set ca_file".to_owned());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| "no TLS version is available".to_owned())?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}
