//! An issuer that makes keys, serves them and signs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::*;
use crate::auth::{Algorithm, IssuerOptions, KeySource, PublicUrl};

pub(super) const PUBLIC: &str = "https://mcp.example.com";
pub(super) const NAME: &str = "https://id.example.com";

pub(super) enum Key {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// One signing key of an issuer.
pub(super) struct Signer {
    pub(super) kid: &'static str,
    pub(super) algorithm: Algorithm,
    pub(super) key: Key,
}

pub(super) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa_key() -> RsaKeyPair {
    // The one kind of key that ring does not make.
    let arguments = ["genpkey", "-algorithm", "RSA", "-outform", "DER"];
    let made = std::process::Command::new("openssl").args(arguments).output().unwrap();
    RsaKeyPair::from_der(&made.stdout).unwrap()
}

impl Signer {
    pub(super) fn new(kid: &'static str, algorithm: Algorithm) -> Self {
        let random = SystemRandom::new();
        let ecdsa = |method| {
            let document = EcdsaKeyPair::generate_pkcs8(method, &random).unwrap();
            Key::Ec(EcdsaKeyPair::from_pkcs8(method, document.as_ref(), &random).unwrap())
        };
        #[expect(clippy::wildcard_enum_match_arm, reason = "all others are of RSA")]
        let key = match algorithm {
            Algorithm::EdDsa => {
                let document = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Key::Ed(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
            }
            Algorithm::Es256 => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es384 => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            _ => Key::Rsa(rsa_key()),
        };
        Self { kid, algorithm, key }
    }

    pub(super) fn jwk(&self) -> Value {
        let mut jwk = match &self.key {
            Key::Ec(key) => {
                let (x, y) =
                    key.public_key().as_ref()[1..].split_at(key.public_key().as_ref().len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "x": base64(x), "y": base64(y) })
            }
            Key::Ed(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(key.public_key()) })
            }
            Key::Rsa(key) => {
                let public = signature::RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({ "kty": "RSA", "n": base64(public.n), "e": base64(public.e) })
            }
        };
        jwk["kid"] = self.kid.into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// A token with `header` and `claims` as they are.
    pub(super) fn sign_text(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", base64(header), base64(claims));
        let random = SystemRandom::new();
        let signature = match &self.key {
            Key::Ec(key) => base64(key.sign(&random, signed.as_bytes()).unwrap()),
            Key::Ed(key) => base64(key.sign(signed.as_bytes())),
            Key::Rsa(key) => {
                #[expect(clippy::wildcard_enum_match_arm, reason = "RS256 is left")]
                let padding: &dyn signature::RsaEncoding = match self.algorithm {
                    Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
                    Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, signed.as_bytes(), &mut signature).unwrap();
                base64(signature)
            }
        };
        format!("{signed}.{signature}")
    }

    pub(super) fn header(&self) -> Value {
        json!({ "alg": self.algorithm.as_str(), "kid": self.kid, "typ": "at+jwt" })
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_text(&self.header().to_string(), &claims.to_string())
    }
}

pub(super) fn key_set(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

/// A server of key sets.
pub(super) struct Served {
    address: SocketAddr,
    answer: Arc<Mutex<(StatusCode, String)>>,
    requests: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Served {
    pub(super) async fn start(set: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new((StatusCode::OK, set)));
        let requests = Arc::<AtomicUsize>::default();
        let (answers, count) = (Arc::clone(&answer), Arc::clone(&requests));
        let serve = move || async move {
            count.fetch_add(1, Ordering::SeqCst);
            let (status, body) = answers.lock().unwrap().clone();
            (status, [(header::LOCATION, "/jwks")], body)
        };
        let router = Router::new().route("/jwks", get(serve));
        #[expect(clippy::disallowed_methods, reason = "aborted when it is dropped")]
        let task = tokio::spawn(axum::serve(listener, router).into_future()).abort_handle();
        Self { address, answer, requests, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/jwks", self.address)
    }

    pub(super) fn answer(&self, status: StatusCode, body: String) {
        *self.answer.lock().unwrap() = (status, body);
    }

    pub(super) fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn issuer(served: &Served) -> IssuerOptions {
    IssuerOptions {
        issuer: NAME.to_owned(),
        keys: KeySource::at(&served.url()).unwrap(),
        ca_file: None,
        algorithms: vec![Algorithm::Es256],
        audience: None,
        tenants: None,
        tenant_claim: "tenant".to_owned(),
        scope_claim: "scope".to_owned(),
        scopes: BTreeMap::new(),
        clock_skew: Duration::from_secs(30),
        require_typ: false,
    }
}

/// A fixture, an issuer with one ES256 key, and its server.
pub(super) struct Bench {
    pub(super) fixture: Fixture,
    pub(super) signer: Signer,
    pub(super) served: Served,
}

impl Bench {
    pub(super) async fn new() -> Self {
        let signer = Signer::new("first", Algorithm::Es256);
        let served = Served::start(key_set(&[&signer])).await;
        let bench = Self { fixture: Fixture::new(), signer, served };
        bench.configure(|_| ());
        bench
    }

    pub(super) fn configure(&self, change: impl FnOnce(&mut IssuerOptions)) {
        let mut options = issuer(&self.served);
        change(&mut options);
        self.admit(vec![options]);
    }

    pub(super) fn admit(&self, issuers: Vec<IssuerOptions>) {
        let options = Options {
            failures_per_minute: 1_000_000,
            public_url: Some(PublicUrl::parse(PUBLIC).unwrap()),
            issuers,
        };
        self.fixture.auth.configure(options).unwrap();
    }

    pub(super) fn claims(&self) -> Value {
        let now = self.fixture.clock.now().as_second();
        json!({
            "iss": NAME, "sub": "ann", "aud": format!("{PUBLIC}/mcp/tenant001"),
            "exp": now + 300, "nbf": now, "tenant": "tenant001", "scope": "query list",
        })
    }

    pub(super) fn token(&self) -> String {
        self.signer.sign(&self.claims())
    }

    pub(super) async fn access(&self, token: &str) -> Result<TenantAccess, Error> {
        self.fixture.access(token, Some("tenant001")).await
    }

    pub(super) async fn admits(&self, token: &str) -> bool {
        match self.access(token).await {
            Ok(_) => true,
            Err(Error::Unauthenticated) => false,
            Err(other) => unreachable!("{other}"),
        }
    }
}

/// Serves `set` over TLS, with a certificate of its own that it writes to `directory`.
pub(super) async fn serve_over_tls(
    directory: &std::path::Path,
    set: String,
) -> (SocketAddr, std::path::PathBuf) {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let (key, certificate) = (directory.join("key.pem"), directory.join("certificate.pem"));
    let mut openssl = std::process::Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    openssl.args(["-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-days", "2"]);
    let made = openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&certificate).unwrap()],
            PrivateKeyDer::from_pem_file(&key).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the runtime of the test")]
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Who does not trust the certificate does not come further.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 1_024];
            drop(stream.read(&mut request).await);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", set.len());
            drop(stream.write_all((head + &set).as_bytes()).await);
            drop(stream.shutdown().await);
        }
    });
    (address, certificate)
}
