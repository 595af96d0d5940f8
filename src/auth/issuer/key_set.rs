//! The public keys of an issuer: a JWK set (RFC 7517), read once, and signatures checked with it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value};

use super::algorithm::{Algorithm, Curve, Method};
use super::json;

/// Longest set that is read.
pub(super) const MAX_BYTES: usize = 256 << 10;
/// Most keys of a set.
const MAX_KEYS: usize = 100;
/// The first byte of a point that is not compressed.
const UNCOMPRESSED: u8 = 4;

/// Keys by their ids.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Debug)]
pub(super) struct Key {
    id: String,
    /// The one algorithm that it is for, if the set says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Ed25519(Vec<u8>),
    Point(Curve, Vec<u8>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

/// Why a set is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it has two keys of one kid")]
    Ambiguous,
    #[error("it is no JWK set")]
    Malformed,
    #[error("it has no signature key that can be used")]
    NoKeys,
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
}

impl KeySet {
    /// The keys for signatures in `bytes`. Others are passed over, as RFC 7517 section 5 wants it, and
    /// so are private and symmetric ones, which have no business there.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Unusable> {
        let set = json::object(bytes).ok_or(Unusable::Malformed)?;
        let Some(Value::Array(keys)) = set.get("keys") else { return Err(Unusable::Malformed) };
        if keys.len() > MAX_KEYS {
            return Err(Unusable::TooMany);
        }
        let keys: Vec<Key> =
            keys.iter().filter_map(Value::as_object).filter_map(Key::parse).collect();
        for (at, key) in keys.iter().enumerate() {
            if keys[..at].iter().any(|earlier| earlier.id == key.id) {
                return Err(Unusable::Ambiguous);
            }
        }
        if keys.is_empty() { Err(Unusable::NoKeys) } else { Ok(Self(keys)) }
    }

    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }
}

impl Key {
    fn parse(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| json::text(jwk, name).ok();
        if jwk.contains_key("d") || text("use")?.is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        if let Some(operations) = jwk.get("key_ops") {
            operations.as_array()?.iter().find(|operation| *operation == "verify")?;
        }
        // One that is for an algorithm that is not known here is of no use.
        let algorithm = match text("alg")? {
            Some(name) => Some(Algorithm::parse(name)?),
            None => None,
        };
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)??).ok();
        let material = match (text("kty")??, text("crv")?) {
            ("EC", Some("P-256")) => point(Curve::P256, &bytes("x")?, &bytes("y")?)?,
            ("EC", Some("P-384")) => point(Curve::P384, &bytes("x")?, &bytes("y")?)?,
            ("OKP", Some("Ed25519")) => {
                Material::Ed25519(bytes("x").filter(|bytes| bytes.len() == 32)?)
            }
            ("RSA", _) => Material::Rsa { n: number(bytes("n")?), e: number(bytes("e")?) },
            _ => return None,
        };
        Some(Self { id: text("kid")??.to_owned(), algorithm, material })
    }

    /// Whether `signature` by `algorithm` is this key's under `message`. A key of another kind, or for
    /// another algorithm, verifies nothing.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if self.algorithm.is_some_and(|only| only != algorithm) {
            return false;
        }
        let verified = match (algorithm.method(), &self.material) {
            (Method::Ed25519, Material::Ed25519(key)) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature)
            }
            (Method::Ecdsa(wanted, method), Material::Point(curve, point)) if wanted == *curve => {
                UnparsedPublicKey::new(method, point).verify(message, signature)
            }
            (Method::Rsa(method), Material::Rsa { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(method, message, signature)
            }
            _ => return false,
        };
        verified.is_ok()
    }
}

fn point(curve: Curve, x: &[u8], y: &[u8]) -> Option<Material> {
    let length = curve.coordinate_bytes();
    let is_point = x.len() == length && y.len() == length;
    is_point.then(|| Material::Point(curve, [&[UNCOMPRESSED], x, y].concat()))
}

/// Without the zeros that some put before it.
fn number(mut bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    bytes
}
