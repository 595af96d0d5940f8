//! TLS on the listener, and what a client's certificate says.
//!
//! ```text
//! certificate, key, client_ca, client_crls --read--> Identity --accept--> stream, ClientIdentity
//! client certificate: URI:spiffe://example.com/tenant/acme001
//!                                  tenant_uri spiffe://example.com/tenant/{tenant} --> acme001
//! ```
//!
//! A client's certificate is no credential: a token is needed all the same, and the certificate has
//! to name the token's tenant. So neither a stolen token nor a stolen certificate is enough. TLS 1.3,
//! and 1.2 with forward secrecy and authenticated encryption unless it is switched off. Where clients
//! show certificates no session is resumed: each connection shows one that is valid now, and that no
//! list of its authority revokes, where there are lists (`revocation`).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;
use zeroize::Zeroizing;

use super::handle::Error;
use super::revocation::{self, Due};
use crate::admin::said;

/// Longest file that is read.
const MAX_FILE: u64 = 1 << 20;
/// What stands for the tenant's id in a [`TenantUri`].
const PLACE: &str = "{tenant}";

const CERTIFICATE: &str = "http.tls.certificate";
const KEY: &str = "http.tls.key";
const CLIENT_CA: &str = "http.tls.client_ca";

/// What TLS is spoken with.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field from the settings")]
pub struct TlsOptions {
    /// PEM file of the certificate, and of those that lead to its authority.
    pub certificate: PathBuf,
    /// PEM file of its private key. Others must not be able to read it.
    pub key: PathBuf,
    /// Whether TLS 1.2 is refused.
    pub is_1_3_only: bool,
    /// Which certificates clients show, if they show any.
    pub clients: Option<ClientCertificates>,
}

/// Certificates of clients.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field from the settings")]
pub struct ClientCertificates {
    /// PEM file of the authorities that issue them.
    pub authorities: PathBuf,
    /// Files of lists of those that were revoked, PEM or DER. When there are any, each authority that
    /// issues needs one.
    pub revocation_lists: Vec<PathBuf>,
    /// Whether clients without one are not served.
    pub is_required: bool,
    /// How a certificate names its tenant; without, each is good for every tenant.
    pub tenant_uri: Option<TenantUri>,
}

/// A URI among the names of a certificate, with `{tenant}` in place of the tenant's id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TenantUri {
    before: String,
    after: String,
}

/// A text that has not got one `{tenant}`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("write a URI with {{tenant}} in it once, such as spiffe://example.com/tenant/{{tenant}}")]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to add")]
pub struct InvalidTenantUri;

impl FromStr for TenantUri {
    type Err = InvalidTenantUri;

    fn from_str(text: &str) -> Result<Self, InvalidTenantUri> {
        let (before, after) = text.split_once(PLACE).ok_or(InvalidTenantUri)?;
        if before.is_empty() || after.contains(PLACE) || !text.is_ascii() {
            return Err(InvalidTenantUri);
        }
        Ok(Self { before: before.to_owned(), after: after.to_owned() })
    }
}

impl TenantUri {
    /// The tenant that `uri` names. What stands there need not be a valid id.
    fn tenant<'a>(&self, uri: &'a str) -> Option<&'a str> {
        uri.strip_prefix(&*self.before)?.strip_suffix(&*self.after)
    }
}

/// The tenant that a connection's certificate is for: the only one whose tokens count there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct CertificateTenant(Arc<str>);

impl CertificateTenant {
    /// Not necessarily a valid id. Empty where the certificate names none, or several.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a client's certificate says.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientIdentity {
    tenant: Option<CertificateTenant>,
}

impl ClientIdentity {
    /// The tenant that the connection is for, where certificates name tenants and there is one.
    pub(super) fn tenant(&self) -> Option<CertificateTenant> {
        self.tenant.clone()
    }
}

/// What the listener is to its clients: certificate and key, as they were in their files.
#[derive(Debug)]
pub(super) struct Identity {
    config: Arc<ServerConfig>,
    expires_at: Timestamp,
    list_due: Option<Due>,
    tenant_uri: Option<TenantUri>,
    files: Vec<(PathBuf, Option<Stamp>)>,
}

/// What changes when a file is written or replaced: inode, length, time of the last change in
/// seconds and nanoseconds.
type Stamp = (u64, u64, i64, i64);

impl Identity {
    /// Reads the files. A certificate that has expired is one all the same.
    pub(super) fn read(options: &TlsOptions) -> Result<Self, Error> {
        // Before they are read: what changes meanwhile is seen the next time.
        let clients = options.clients.iter();
        let files = [&options.certificate, &options.key]
            .into_iter()
            .chain(clients.flat_map(|it| [&it.authorities].into_iter().chain(&it.revocation_lists)))
            .map(|path| (path.clone(), stamp(path)))
            .collect();
        let chain = certificates(CERTIFICATE, &options.certificate)?;
        let expires_at = chain.first().and_then(expires_at);
        let refuse = |setting, path: &Path, reason: &str| refusal(setting, path, reason);
        let expires_at = expires_at.ok_or_else(|| {
            refuse(CERTIFICATE, &options.certificate, "the first certificate cannot be read")
        })?;
        let key = private_key(&options.key)?;
        let provider = Arc::new(ring::default_provider());
        let versions = if options.is_1_3_only { &[&TLS13][..] } else { &[&TLS13, &TLS12] };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| refuse(CERTIFICATE, &options.certificate, &error.to_string()))?;
        let mut list_due = None;
        let builder = match &options.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let path = &clients.authorities;
                let mut roots = RootCertStore::empty();
                let authorities = certificates(CLIENT_CA, path)?;
                for certificate in &authorities {
                    roots.add(certificate.clone()).map_err(|_| {
                        refuse(CLIENT_CA, path, "a certificate is none of an authority")
                    })?;
                }
                let algorithms = provider.signature_verification_algorithms;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let lists = &clients.revocation_lists;
                let (verifier, due) =
                    revocation::with_lists(verifier, lists, &authorities, &algorithms)?;
                list_due = due;
                let verifier = if clients.is_required {
                    verifier.build()
                } else {
                    verifier.allow_unauthenticated().build()
                };
                let verifier =
                    verifier.map_err(|error| refuse(CLIENT_CA, path, &error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|_| {
            refuse(
                KEY,
                &options.key,
                "it is not the key of http.tls.certificate, or of a kind \
                that is not known; RSA, ECDSA and Ed25519 are",
            )
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if options.clients.is_some() {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        let tenant_uri = options.clients.as_ref().and_then(|clients| clients.tenant_uri.clone());
        Ok(Self { config: Arc::new(config), expires_at, list_due, tenant_uri, files })
    }

    /// Refuses a certificate that clients would.
    pub(super) fn refuse_expired(&self, options: &TlsOptions, now: Timestamp) -> Result<(), Error> {
        if self.expires_at > now {
            return Ok(());
        }
        let reason = format!("it expired at {}", self.expires_at);
        Err(refusal(CERTIFICATE, &options.certificate, &reason))
    }

    pub(super) fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// When the first of the lists of revoked certificates is to be replaced.
    pub(super) fn list_due(&self) -> Option<&Due> {
        self.list_due.as_ref()
    }

    /// Whether a file is another than the one that was read.
    pub(super) fn has_changed(&self) -> bool {
        self.files.iter().any(|(path, stamped)| stamp(path) != *stamped)
    }

    /// Shakes hands with a client.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, ClientIdentity)> {
        let stream = TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let tenant = match (&self.tenant_uri, shown) {
            (Some(uri), Some(certificate)) => Some(tenant(uri, certificate)),
            (None, _) | (_, None) => None,
        };
        Ok((stream, ClientIdentity { tenant }))
    }
}

/// The tenant that `certificate`, which has been verified, names as `uri` says.
fn tenant(uri: &TenantUri, certificate: &CertificateDer<'_>) -> CertificateTenant {
    let names = Certificate::from_der(certificate)
        .and_then(|certificate| certificate.tbs_certificate.get::<SubjectAltName>());
    let names = names.ok().flatten().map_or_else(Vec::new, |(_, names)| names.0);
    let mut tenants = names.iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(text) => uri.tenant(text.as_str()),
        GeneralName::DirectoryName(_)
        | GeneralName::DnsName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::IpAddress(_)
        | GeneralName::OtherName(_)
        | GeneralName::RegisteredId(_)
        | GeneralName::Rfc822Name(_) => None,
    });
    match (tenants.next(), tenants.next()) {
        (Some(tenant), None) => CertificateTenant(tenant.into()),
        (None | Some(_), _) => CertificateTenant("".into()),
    }
}

fn expires_at(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    timestamp(Certificate::from_der(certificate).ok()?.tbs_certificate.validity.not_after)
}

pub(super) fn timestamp(time: Time) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(time.to_unix_duration().as_secs()).ok()?).ok()
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let (pem, _) = read(setting, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| refusal(setting, path, "it has to have certificates in PEM"))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let (pem, mode) = read(KEY, path)?;
    // Whose group it is is the administrator's choice; that others read it is nobody's.
    if mode & 0o027 != 0 {
        let reason = format!("others can read or change it (mode {:o}); chmod 600", mode & 0o777);
        return Err(refusal(KEY, path, &reason));
    }
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| refusal(KEY, path, "it has to have a private key in PEM, not encrypted"))
}

/// What is in the file at `path`, and its mode.
pub(super) fn read(setting: &'static str, path: &Path) -> Result<(Zeroizing<Vec<u8>>, u32), Error> {
    let file = || -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if metadata.len() > MAX_FILE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // Room for all of it: what a vector grows out of is not wiped.
        let room = usize::try_from(metadata.len()).unwrap_or_default();
        let mut bytes = Zeroizing::new(Vec::with_capacity(room + 1));
        file.take(metadata.len()).read_to_end(&mut bytes)?;
        Ok((bytes, metadata.permissions().mode()))
    };
    file()
        .map_err(|error| refusal(setting, path, &format!("cannot be read: {}", said(error.kind()))))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = path.metadata().ok()?;
    Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

pub(super) fn refusal(setting: &'static str, path: &Path, reason: &str) -> Error {
    Error::Tls { setting, path: path.to_owned(), reason: reason.to_owned() }
}
