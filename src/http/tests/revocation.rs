//! Lists of clients' certificates that were revoked: who is served, and which lists are taken.

use std::path::PathBuf;

use rcgen::{
    CertificateRevocationList, CertificateRevocationListParams, KeyIdMethod, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::tls::{Authority, Shown, with};
use super::*;
use crate::http::ClientCertificates;

fn copy((certificate, key): &Shown) -> Shown {
    (certificate.clone(), key.clone_key())
}

impl Authority {
    /// A list of `revoked`, to be replaced at the end of `year`.
    fn list(&self, revoked: &[&Shown], year: i32) -> CertificateRevocationList {
        let serial = |shown: &Shown| {
            let certificate = Certificate::from_der(&shown.0).unwrap().tbs_certificate;
            SerialNumber::from_slice(certificate.serial_number.as_bytes())
        };
        let revoked = revoked.iter().map(|shown| RevokedCertParams {
            serial_number: serial(shown),
            revocation_time: date_time_ymd(2020, 2, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 3, 1),
            next_update: date_time_ymd(year, 12, 31),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap()
    }

    /// What serves clients of this authority, and what is in these files is revoked.
    fn options(&self, lists: &[PathBuf]) -> Options {
        let mut tls = self.write(2099);
        tls.clients = Some(ClientCertificates {
            authorities: self.path("ca.pem"),
            revocation_lists: lists.to_vec(),
            is_required: true,
            tenant_uri: None,
        });
        with(tls)
    }

    async fn serves(&self, served: &Served, shown: &Shown) -> bool {
        self.tenant(served, Some(copy(shown))).await.is_some()
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_its_neighbour_is_served() {
    let authority = Authority::new();
    let (revoked, neighbour) = (authority.client(&[], 2099), authority.client(&[], 2099));
    let served = Served::start(authority.options(&[])).await;
    assert!(authority.serves(&served, &revoked).await);
    let list = authority.list(&[&revoked], 2099);
    for bytes in [list.pem().unwrap().into_bytes(), list.der().to_vec()] {
        let file = authority.path("list");
        std::fs::write(&file, bytes).unwrap();
        let served = Served::start(authority.options(&[file])).await;
        assert!(!authority.serves(&served, &revoked).await);
        assert!(authority.serves(&served, &neighbour).await);
    }
}

#[tokio::test]
async fn a_new_list_counts_for_the_next_connection_and_one_that_is_none_changes_nothing() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (first, second) = (authority.client(&[], 2099), authority.client(&[], 2099));
    let (file, other) = (authority.path("list.pem"), authority.path("other.pem"));
    let list = authority.list(&[&first], 2099).pem().unwrap();
    std::fs::write(&file, &list).unwrap();
    let options = authority.options(std::slice::from_ref(&file));
    let served = Served::start(options.clone()).await;
    assert!(authority.serves(&served, &second).await);

    // A stranger of the same name has another key.
    let foreign = stranger.list(&[], 2099).pem().unwrap();
    let damaged = list.replace("-----END", "A-----END");
    for (text, wrong) in [
        (foreign.as_str(), "not signed by an authority of http.tls.client_ca"),
        (&format!("{list}{foreign}"), "not signed by an authority"),
        (&format!("{list}{list}"), "second list of one authority"),
        (&damaged, "damaged"),
        ("nonsense", "lists of revoked certificates, PEM or DER"),
        ("", "lists of revoked certificates, PEM or DER"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = served.handle.reload(options.clone()).unwrap_err().to_string();
        assert!(error.starts_with("http.tls.client_crls (") && error.contains(wrong), "{error}");
        Handle::new(options.clone()).unwrap_err();
        served.handle.look_at_files();
        assert!(!authority.serves(&served, &first).await, "{wrong}");
        assert!(authority.serves(&served, &second).await, "{wrong}");
    }
    std::fs::remove_file(&file).unwrap();
    served.handle.reload(options.clone()).unwrap_err();
    assert!(!authority.serves(&served, &first).await);

    std::fs::write(&file, authority.list(&[&second], 2099).pem().unwrap()).unwrap();
    served.handle.look_at_files();
    assert!(authority.serves(&served, &first).await);
    assert!(!authority.serves(&served, &second).await);
    // One more file, of the same authority.
    std::fs::write(&other, &list).unwrap();
    let error = served.handle.reload(authority.options(&[file, other])).unwrap_err().to_string();
    assert!(error.contains("other.pem") && error.contains("second list"), "{error}");
}

#[tokio::test]
async fn where_there_are_lists_an_authority_without_one_vouches_for_nobody() {
    let (authority, other) = (Authority::named("one"), Authority::named("two"));
    let (one, two) = (authority.client(&[], 2099), other.client(&[], 2099));
    let certificates = [&authority, &other].map(|it| std::fs::read(it.path("ca.pem")).unwrap());
    std::fs::write(authority.path("ca.pem"), certificates.concat()).unwrap();
    let files = [authority.path("one.pem"), authority.path("two.pem")];
    std::fs::write(&files[0], authority.list(&[], 2099).pem().unwrap()).unwrap();
    std::fs::write(&files[1], other.list(&[], 2098).pem().unwrap()).unwrap();
    for (lists, due, serves_two) in [(&files[..1], "2099", false), (&files[..], "2098", true)] {
        let served = Served::start(authority.options(lists)).await;
        assert!(authority.serves(&served, &one).await);
        assert_eq!(authority.serves(&served, &two).await, serves_two);
        let (end, file) = served.handle.client_crl_due().unwrap();
        assert!(end.to_string().starts_with(due), "{end}");
        assert_eq!(file, *lists.last().unwrap());
    }
}

#[tokio::test]
async fn a_list_past_its_time_still_counts() {
    let authority = Authority::new();
    let (revoked, neighbour) = (authority.client(&[], 2099), authority.client(&[], 2099));
    let file = authority.path("list.pem");
    std::fs::write(&file, authority.list(&[&revoked], 2021).pem().unwrap()).unwrap();
    let served = Served::start(authority.options(&[file])).await;
    assert!(!authority.serves(&served, &revoked).await);
    assert!(authority.serves(&served, &neighbour).await);
    let (due, _) = served.handle.client_crl_due().unwrap();
    assert!(due.to_string().starts_with("2021-12-31"), "{due}");
}
