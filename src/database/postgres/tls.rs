//! What each TLS mode verifies.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::database::Unavailable;
use crate::tenant::TlsMode;

/// The configuration for `mode`; `None` is no TLS. `roots` is PEM text that replaces the system's
/// certificates.
pub(super) fn config(
    mode: TlsMode,
    roots: Option<&str>,
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
    Ok(Some(config.with_no_client_auth()))
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
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| Unavailable::Configuration)?;
        store.add(certificate).map_err(|_| Unavailable::Configuration)?;
    }
    if store.is_empty() { Err(Unavailable::Configuration) } else { Ok(Arc::new(store)) }
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
