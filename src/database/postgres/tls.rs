//! What each TLS mode verifies.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use secrecy::ExposeSecret;

use crate::database::Unavailable;
use crate::memory::SecretText;
use crate::tenant::TlsMode;

/// Who logs in by certificate, each part as PEM text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity<'a> {
    /// The certificate, and those that lead to its authority.
    pub(super) certificates: &'a str,
    pub(super) key: &'a SecretText,
}

/// The configuration for `mode`; `None` is no TLS. `roots` is PEM text that replaces the system's
/// certificates.
///
/// With an identity it holds the private key until it is dropped, with the handshakes that it was
/// for; the program's allocator wipes what the library frees of it.
///
/// # Errors
///
/// [`Unavailable::Configuration`]: certificates or a key that cannot be read, or do not belong
/// together.
pub(super) fn config(
    mode: TlsMode,
    roots: Option<&str>,
    identity: Option<Identity<'_>>,
) -> Result<Option<ClientConfig>, Unavailable> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|_| Unavailable::Configuration)?;
    let config = match mode {
        TlsMode::Disable => return Ok(None),
        TlsMode::Require => {
            let verifier = Lenient { provider, roots: None };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        TlsMode::VerifyCa => {
            let verifier = Lenient { provider, roots: Some(trusted(roots)?) };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        TlsMode::VerifyFull => builder.with_root_certificates(trusted(roots)?),
    };
    let Some(identity) = identity else { return Ok(Some(config.with_no_client_auth())) };
    let chain = certificates(identity.certificates)?;
    #[expect(clippy::disallowed_methods, reason = "TLS needs it to log in")]
    let key = PrivateKeyDer::from_pem_slice(identity.key.expose_secret().as_bytes());
    let key = key.map_err(|_| Unavailable::Configuration)?;
    let config = config.with_client_auth_cert(chain, key);
    config.map(Some).map_err(|_| Unavailable::Configuration)
}

/// The certificates in `pem`, of which there is one at least.
fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Unavailable> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or(Unavailable::Configuration)
}

fn trusted(pem: Option<&str>) -> Result<Arc<RootCertStore>, Unavailable> {
    // Read once per process: there are many connections, and reading them all takes milliseconds.
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let Some(pem) = pem else {
        let store = SYSTEM.get_or_init(|| {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(store)
        });
        return Ok(Arc::clone(store));
    };
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate).map_err(|_| Unavailable::Configuration)?;
    }
    Ok(Arc::new(store))
}

/// Verifies the authority, if there are `roots`, and never the name.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    roots: Option<Arc<RootCertStore>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(certificate)?,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
