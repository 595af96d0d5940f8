//! TLS: who is served, with which certificate, and what clients' certificates say.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::http::{ClientCertificates, Error, TlsOptions};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const TENANT: &str = "GET /tenant HTTP/1.1\r\nHost: x\r\n\r\n";

/// An authority, and a directory for what it issues.
pub(super) struct Authority {
    directory: TempDir,
    pub(super) issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A client's certificate and key.
pub(super) type Shown = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Authority {
    pub(super) fn new() -> Self {
        Self::named("an authority")
    }

    pub(super) fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        let certificate = certificate.der().clone();
        Self { directory, issuer: Issuer::new(params, key), certificate }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Issues a certificate for `localhost` that is valid until the end of `year`, and writes it.
    pub(super) fn write(&self, year: i32) -> TlsOptions {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (certificate_path, key_path) = (self.path("server.pem"), self.path("server.key"));
        std::fs::write(&certificate_path, certificate.pem()).unwrap();
        std::fs::write(&key_path, key.serialize_pem()).unwrap();
        set_mode(&key_path, 0o600);
        TlsOptions {
            certificate: certificate_path,
            key: key_path,
            is_1_3_only: false,
            clients: None,
        }
    }

    /// Issues a client's certificate with `uris` among its names.
    pub(super) fn client(&self, uris: &[&str], year: i32) -> Shown {
        let mut params = CertificateParams::new(["client".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
            .subject_alt_names
            .extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        (certificate.der().clone(), key)
    }

    /// Connects, as who shows `shown`.
    async fn connect(
        &self,
        served: &Served,
        version: &'static SupportedProtocolVersion,
        protocol: &str,
        shown: Option<Shown>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            Some((certificate, key)) => {
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, served.connect().await).await
    }

    /// The answer to [`TENANT`] for who shows `shown`; nothing for who is not served.
    pub(super) async fn tenant(&self, served: &Served, shown: Option<Shown>) -> Option<String> {
        let mut stream = self.connect(served, &TLS13, "http/1.1", shown).await.ok()?;
        let (status, text) = ask(&mut stream, TENANT).await;
        (status == 200).then_some(text)
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub(super) fn with(tls: TlsOptions) -> Options {
    Options { tls: Some(tls), ..Options::default() }
}

fn peer_certificate(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn both_versions_are_spoken_and_the_older_one_can_be_refused() {
    let authority = Authority::new();
    let tls = authority.write(2099);
    let both = Served::start(with(tls.clone())).await;
    let newer = Served::start(with(TlsOptions { is_1_3_only: true, ..tls })).await;
    for (served, version, is_served) in [
        (&both, &TLS12, true),
        (&both, &TLS13, true),
        (&newer, &TLS12, false),
        (&newer, &TLS13, true),
    ] {
        let connected = authority.connect(served, version, "http/1.1", None).await;
        assert_eq!(connected.is_ok(), is_served, "{connected:?}");
        if let Ok(mut stream) = connected {
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            assert_eq!(ask(&mut stream, GET).await, (200, "here\n".to_owned()));
        }
    }
    authority.connect(&both, &TLS13, "h2", None).await.unwrap_err();
}

#[tokio::test]
async fn who_does_not_speak_tls_is_told_so_and_who_says_half_is_cut() {
    let authority = Authority::new();
    let mut options = with(authority.write(2099));
    options.limits.handshake_timeout = SOON;
    let served = Served::start(options.clone()).await;
    let mut clear = served.connect().await;
    clear.write_all(GET.as_bytes()).await.unwrap();
    let mut text = String::new();
    clear.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    assert!(text.ends_with("\r\n\r\nthis port speaks TLS; use https://\n"), "{text}");
    let length = text.split("\r\n\r\n").nth(1).unwrap().len();
    assert!(text.contains(&format!("Content-Length: {length}\r\n")), "{text}");
    // A record of 512 bytes is announced, a handshake; then nothing at all.
    let mut half = served.connect().await;
    half.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).await.unwrap();
    assert!(is_closed(&mut half).await);
    assert!(is_closed(&mut served.connect().await).await);
    options.limits.handshake_timeout = LATE;
    served.handle.reload(options).unwrap();
    assert!(authority.tenant(&served, None).await.is_some());
}

#[tokio::test]
async fn a_certificate_of_a_client_says_which_tenant_the_connection_is_for() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut tls = authority.write(2099);
    let uri = "spiffe://example.com/tenant/{tenant}".parse().unwrap();
    let mut clients = ClientCertificates {
        authorities: authority.path("ca.pem"),
        revocation_lists: Vec::new(),
        is_required: true,
        tenant_uri: Some(uri),
    };
    tls.clients = Some(clients.clone());
    let served = Served::start(with(tls.clone())).await;
    let (acme, other) = ("spiffe://example.com/tenant/acme001", "spiffe://example.com/tenant/b");
    let said =
        async |uris: &[&str]| authority.tenant(&served, Some(authority.client(uris, 2099))).await;
    assert_eq!(said(&[acme]).await.unwrap(), "Some(\"acme001\")");
    assert_eq!(said(&["https://example.com/", acme]).await.unwrap(), "Some(\"acme001\")");
    assert_eq!(said(&[other, acme]).await.unwrap(), "Some(\"\")");
    assert_eq!(said(&["spiffe://evil.example/tenant/acme001"]).await.unwrap(), "Some(\"\")");
    assert_eq!(said(&[]).await.unwrap(), "Some(\"\")");
    // None, one of another authority, one that has expired.
    assert_eq!(authority.tenant(&served, None).await, None);
    assert_eq!(authority.tenant(&served, Some(stranger.client(&[acme], 2099))).await, None);
    assert_eq!(authority.tenant(&served, Some(authority.client(&[acme], 2021))).await, None);

    clients.is_required = false;
    tls.clients = Some(clients.clone());
    let served = Served::start(with(tls.clone())).await;
    assert_eq!(authority.tenant(&served, None).await.unwrap(), "None");
    let shown = authority.client(&[acme], 2099);
    assert_eq!(authority.tenant(&served, Some(shown)).await.unwrap(), "Some(\"acme001\")");
    assert_eq!(authority.tenant(&served, Some(stranger.client(&[acme], 2099))).await, None);

    clients.tenant_uri = None;
    tls.clients = Some(clients);
    let served = Served::start(with(tls)).await;
    let shown = authority.client(&[acme], 2099);
    assert_eq!(authority.tenant(&served, Some(shown)).await.unwrap(), "None");
}

#[tokio::test]
async fn new_files_are_served_to_new_connections_and_old_ones_stay() {
    let authority = Authority::new();
    let options = with(authority.write(2099));
    let served = Served::start(options.clone()).await;
    let connect = || authority.connect(&served, &TLS13, "http/1.1", None);
    let mut open = connect().await.unwrap();
    assert_eq!(ask(&mut open, GET).await.0, 200);
    let first = peer_certificate(&open);
    served.handle.look_at_files();
    assert_eq!(peer_certificate(&connect().await.unwrap()), first);

    authority.write(2098);
    served.handle.look_at_files();
    let second = peer_certificate(&connect().await.unwrap());
    assert_ne!(second, first);
    assert!(served.handle.certificate_expires_at().unwrap().to_string().starts_with("2098-12-31"));
    assert_eq!(ask(&mut open, GET).await.0, 200);

    // One that expired, one without its key, none at all: what was served stays.
    let refused = async |wrong: &str| {
        let error = served.handle.reload(options.clone()).unwrap_err();
        assert!(error.to_string().contains(wrong), "{error}");
        served.handle.look_at_files();
        assert_eq!(peer_certificate(&connect().await.unwrap()), second);
    };
    authority.write(2021);
    refused("expired at 2021-12-31").await;
    authority.write(2099);
    std::fs::write(authority.path("server.key"), KeyPair::generate().unwrap().serialize_pem())
        .unwrap();
    refused("not the key of").await;
    std::fs::write(authority.path("server.pem"), "nonsense").unwrap();
    refused("certificates in PEM").await;
    std::fs::remove_file(authority.path("server.pem")).unwrap();
    refused("cannot be read").await;
    let in_clear = served.handle.reload(Options::default()).unwrap_err();
    assert!(matches!(in_clear, Error::NeedsRestart));
    authority.write(2099);
    served.handle.look_at_files();
    assert_ne!(peer_certificate(&connect().await.unwrap()), second);
}

#[test]
fn a_key_that_others_can_read_is_refused_and_a_group_may() {
    let authority = Authority::new();
    let options = with(authority.write(2099));
    for (mode, is_fine) in [
        (0o600, true),
        (0o400, true),
        (0o640, true),
        (0o660, false),
        (0o644, false),
        (0o602, false),
    ] {
        set_mode(&authority.path("server.key"), mode);
        let read = Handle::new(options.clone());
        assert_eq!(read.is_ok(), is_fine, "{mode:o}");
        if let Err(error) = read {
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }
}

#[test]
fn an_expired_certificate_is_served_at_the_start_so_that_it_can_be_replaced() {
    let authority = Authority::new();
    let options = with(authority.write(2021));
    let handle = Handle::new(options.clone()).unwrap();
    // What else is in the options can change nevertheless.
    handle.reload(options).unwrap();
    assert!(handle.certificate_expires_at().unwrap().to_string().starts_with("2021-12-31"));
    authority.write(2099);
    handle.look_at_files();
    assert!(handle.certificate_expires_at().unwrap().to_string().starts_with("2099-12-31"));
}

#[test]
fn a_tenant_uri_has_one_place_for_the_tenant() {
    use crate::http::TenantUri;
    for wrong in
        ["", "{tenant}", "spiffe://x/", "spiffe://{tenant}/{tenant}", "spiffe://é/{tenant}"]
    {
        wrong.parse::<TenantUri>().unwrap_err();
    }
    "spiffe://x/{tenant}/agent".parse::<TenantUri>().unwrap();
}
