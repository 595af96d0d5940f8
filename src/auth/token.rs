//! Bearer tokens.
//!
//! ```text
//! tnt_ <48 characters of base64url> = 32 random bytes ‖ first 4 bytes of SHA-256("tnt_" ‖ the 32)
//! ```
//!
//! The prefix lets secret scanners find a leaked token, the checksum lets them (and us) tell one
//! from noise without a look-up. Operators' tokens begin with `tno_`, and are the same otherwise;
//! neither is ever taken for the other: the prefix is in the checksum. The checksum is no secret and protects nothing.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::memory::SecretText;

const PREFIX: &str = "tnt_";
const SECRET: usize = 32;
const CHECKSUM: usize = 4;

/// The secret part of a well-formed token; whether it is anybody's is for [`super::Auth`] to say.
pub struct Token(Zeroizing<[u8; SECRET]>);

impl Token {
    /// A new token of a tenant's client, from the operating system's generator, and its text.
    ///
    /// # Errors
    ///
    /// When the system has no randomness to give.
    pub fn generate() -> Result<(Self, SecretText), getrandom::Error> {
        Self::generate_with(PREFIX)
    }

    /// The same with another prefix.
    pub(super) fn generate_with(
        prefix: &'static str,
    ) -> Result<(Self, SecretText), getrandom::Error> {
        let mut secret = Zeroizing::new([0; SECRET]);
        getrandom::fill(secret.as_mut_slice())?;
        let mut bytes = Zeroizing::new([0; SECRET + CHECKSUM]);
        bytes[..SECRET].copy_from_slice(secret.as_slice());
        bytes[SECRET..].copy_from_slice(&checksum(prefix, &secret));
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.push_str(prefix);
        URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut text);
        Ok((Self(secret), SecretText::from(text.as_str())))
    }

    /// The token that `text` is, if it is well formed.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_with(PREFIX, text)
    }

    /// The same with another prefix.
    pub(super) fn parse_with(prefix: &'static str, text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; SECRET + CHECKSUM]);
        let body = text.strip_prefix(prefix)?;
        let length = URL_SAFE_NO_PAD.decode_slice(body, bytes.as_mut_slice()).ok()?;
        let (secret, check) = bytes.split_first_chunk::<SECRET>()?;
        if length != bytes.len() || check != checksum(prefix, secret) {
            return None;
        }
        Some(Self(Zeroizing::new(*secret)))
    }

    /// What is looked up in place of `text`, which is no token: nobody's.
    pub(super) fn stand_in(text: &str) -> Self {
        Self(Zeroizing::new(Sha256::digest(text).into()))
    }

    /// A name for the token that does not give it away.
    pub(super) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_slice()).into()
    }

    /// The bytes that are looked up. They are a secret.
    pub(super) fn secret(&self) -> &[u8; SECRET] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

fn checksum(prefix: &str, secret: &[u8; SECRET]) -> [u8; CHECKSUM] {
    let digest = Sha256::new().chain_update(prefix).chain_update(secret).finalize();
    let mut checksum = [0; CHECKSUM];
    checksum.copy_from_slice(&digest[..CHECKSUM]);
    checksum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn generated() -> (Token, String) {
        let (token, text) = Token::generate().unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test compares the text")]
        let text = text.expose_secret().to_owned();
        (token, text)
    }

    #[test]
    fn a_generated_token_is_read_back() {
        let (token, text) = generated();
        assert_eq!(text.len(), 52);
        assert_eq!(Token::parse(&text).unwrap().secret(), token.secret());
    }

    #[test]
    fn every_changed_character_and_every_other_length_is_refused() {
        let (_, text) = generated();
        for at in 0..text.len() {
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert!(Token::parse(&changed).is_none(), "changed at {at}");
            assert!(Token::parse(&text[..at]).is_none(), "cut at {at}");
        }
        assert!(Token::parse(&format!("{text}A")).is_none());
        assert!(Token::parse(&format!(" {text}")).is_none());
    }

    #[test]
    fn debug_shows_nothing() {
        let (token, text) = generated();
        assert!(!format!("{token:?}").contains(&text[4..12]));
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(text in "\\PC*", tail in "[A-Za-z0-9_-]{40,60}") {
            prop_assert!(Token::parse(&text).is_none());
            let _ = Token::parse(&format!("tnt_{tail}"));
        }
    }
}
