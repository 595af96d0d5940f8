//! A signed token, taken apart (RFC 7515 compact serialisation). Nothing in it is to be believed until
//! its signature is checked.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::json;

/// Longest token that is looked at.
const MAX_BYTES: usize = 8 << 10;
/// Longest `kid`.
const MAX_KEY_ID: usize = 256;
/// What a token must not say in its header: extensions that have to be understood, a payload that is
/// not what it seems, a token inside of the token, encryption.
const REFUSED: [&str; 5] = ["crit", "b64", "cty", "enc", "zip"];

/// A token whose parts are well formed.
pub(super) struct Jws<'a> {
    pub(super) algorithm: Algorithm,
    /// Which key made the signature. A name to look up and no more: no path, and no URL.
    pub(super) key_id: String,
    pub(super) kind: Option<String>,
    pub(super) claims: Map<String, Value>,
    /// What is signed: header and claims as they were sent.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// Takes `text` apart. `jku`, `x5u`, `jwk`, `x5c` of its header are not looked at: whose keys count
    /// is for the settings to say.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        // Two dots: four are encryption.
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        if claims.contains('.') {
            return None;
        }
        let object = |part: &str| json::object(&URL_SAFE_NO_PAD.decode(part).ok()?);
        let header = object(header)?;
        if REFUSED.iter().any(|name| header.contains_key(*name)) {
            return None;
        }
        let text = |name: &str| json::text(&header, name).ok();
        let key_id = text("kid")??;
        if key_id.is_empty() || key_id.len() > MAX_KEY_ID {
            return None;
        }
        Some(Self {
            algorithm: Algorithm::parse(text("alg")??)?,
            key_id: key_id.to_owned(),
            kind: text("typ")?.map(str::to_owned),
            claims: object(claims)?,
            signed: signed.as_bytes(),
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// Who made it, as it says.
    pub(super) fn issuer(&self) -> Option<&str> {
        json::text(&self.claims, "iss").ok()?
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::key_set::KeySet;
    use super::*;

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(
            text in "\\PC*",
            parts in proptest::collection::vec("[A-Za-z0-9_-]{0,40}", 1..6),
            header in "[{}\\[\\]\":,a-z0-9]{0,60}",
        ) {
            prop_assert!(Jws::parse(&text).is_none());
            prop_assert!(Jws::parse(&parts.join(".")).is_none());
            let signed = URL_SAFE_NO_PAD.encode(header) + ".e30.AA";
            prop_assert!(Jws::parse(&signed).is_none());
            prop_assert!(KeySet::parse(text.as_bytes()).is_err());
        }
    }
}
