//! Lists of clients' certificates that were revoked (RFC 5280 section 5).
//!
//! ```text
//! client_crls --read--> by an authority of client_ca, one each --> the verifier --> each handshake
//! ```
//!
//! Where there are lists, a certificate is served only if the list of its authority is there and does
//! not name it. A list past its time still counts: it refuses those that it names, and a service that
//! got no newer one in time goes on; the log and `tenantry doctor` say it. Complete lists only, no delta
//! lists.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::ClientCertVerifierBuilder;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::{AnyRef, BitStringRef};
use x509_cert::der::{Decode as _, Encode as _, Reader as _, SliceReader};

use super::handle::Error;
use super::tls::{read, refusal, timestamp};

const CLIENT_CRLS: &str = "http.tls.client_crls";

/// When the first of some lists is to be replaced, and its file.
pub(super) type Due = (Timestamp, PathBuf);

/// `verifier` with the lists in `paths`, each by one of `authorities`.
pub(super) fn with_lists(
    mut verifier: ClientCertVerifierBuilder,
    paths: &[PathBuf],
    authorities: &[CertificateDer<'_>],
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(ClientCertVerifierBuilder, Option<Due>), Error> {
    let authorities: Vec<_> =
        authorities.iter().filter_map(|it| Certificate::from_der(it).ok()).collect();
    let (mut issuers, mut due) = (Vec::new(), None::<Due>);
    for path in paths {
        let refuse = |reason: &str| refusal(CLIENT_CRLS, path, reason);
        let lists = lists(path)?;
        for der in &lists {
            let list = CertificateList::from_der(der)
                .map_err(|_| refuse("it has to have lists of revoked certificates, PEM or DER"))?;
            if !authorities.iter().any(|it| is_by(it, &list, der, algorithms)) {
                return Err(refuse(
                    "it is not signed by an authority of http.tls.client_ca: add that one there, or \
                    leave the list out",
                ));
            }
            let list = list.tbs_cert_list;
            // The verifier looks at the first that it finds, and no further.
            if issuers.contains(&list.issuer) {
                return Err(refuse("it is the second list of one authority; keep the newer one"));
            }
            issuers.push(list.issuer);
            let end = list.next_update.and_then(timestamp);
            if let Some(end) = end.filter(|end| due.as_ref().is_none_or(|(first, _)| end < first)) {
                due = Some((end, path.clone()));
            }
        }
        verifier = verifier.with_crls(lists);
        verifier.clone().build().map_err(|error| refuse(&error.to_string()))?;
    }
    Ok((verifier, due))
}

/// What is in the file at `path`: lists in PEM, or one in DER.
fn lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    let (bytes, _) = read(CLIENT_CRLS, path)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let lists = lists.map_err(|_| refusal(CLIENT_CRLS, path, "its PEM is damaged"))?;
    Ok(if lists.is_empty() { vec![bytes.to_vec().into()] } else { lists })
}

/// Whether `authority` issued and signed `list`, which was read from `der`.
fn is_by(
    authority: &Certificate,
    list: &CertificateList,
    der: &[u8],
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let authority = &authority.tbs_certificate;
    let key = &authority.subject_public_key_info;
    let signed = SliceReader::new(der).and_then(|mut reader| {
        reader.sequence(|parts| {
            let (signed, algorithm) = (parts.tlv_bytes()?, AnyRef::decode(parts)?);
            Ok((signed, algorithm.value(), BitStringRef::decode(parts)?.raw_bytes()))
        })
    });
    let key_algorithm = key.algorithm.to_der();
    let key_algorithm = key_algorithm.as_deref().map(AnyRef::from_der);
    let (Ok((signed, algorithm, signature)), Ok(Ok(key_algorithm))) = (signed, key_algorithm)
    else {
        return false;
    };
    let mut methods = algorithms.all.iter().filter(|method| {
        *method.signature_alg_id() == *algorithm
            && *method.public_key_alg_id() == *key_algorithm.value()
    });
    let key = key.subject_public_key.raw_bytes();
    list.tbs_cert_list.issuer == authority.subject
        && methods.any(|method| method.verify_signature(key, signed, signature).is_ok())
}
