//! Keys, and the one construction that seals with them.
//!
//! ```text
//! commitment  = HKDF-Expand(key, "mcpv.commit.v1" ‖ salt ‖ length ‖ place, 32)
//! key ‖ nonce = HKDF-Expand(key, "mcpv.key.v1"    ‖ salt ‖ length ‖ place, 44)
//! sealed      = ChaCha20-Poly1305(key, nonce, message, associated data = place)
//! ```
//!
//! The place says where the message lives and is in the derivation too, so the commitment binds
//! key and place at once; it is compared first. Key and nonce serve one message: the salt is
//! random and new for each, and no nonce is ever counted or reused.

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, Nonce, Tag};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Error;

/// 32 uniformly random, or derived, bytes. `Debug` shows none of them.
#[derive(Debug)]
pub(super) struct Key(SecretBox<[u8; Key::LENGTH]>);

/// What authenticates a sealed message.
pub(super) struct Seal {
    pub(super) commitment: [u8; Seal::COMMITMENT_LENGTH],
    pub(super) tag: [u8; Seal::TAG_LENGTH],
}

/// Why a message does not open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mismatch {
    /// Another key, another place, or another salt.
    Commitment,
    /// Key and place are right, the message is not.
    Message,
}

impl Key {
    pub(super) const LENGTH: usize = 32;

    /// A new key from the operating system's generator.
    pub(super) fn random() -> Result<Self, Error> {
        let mut key = Box::new([0; Self::LENGTH]);
        random(key.as_mut_slice())?;
        Ok(Self(SecretBox::new(key)))
    }

    /// The key that `fill` writes.
    pub(super) fn fill_with<E>(
        fill: impl FnOnce(&mut [u8; Self::LENGTH]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut key = SecretBox::new(Box::new([0; Self::LENGTH]));
        fill(key.expose_secret_mut())?;
        Ok(Self(key))
    }

    /// The key for the one purpose that `label` names.
    pub(super) fn derive(&self, label: &str) -> Self {
        let mut key = SecretBox::new(Box::new([0; Self::LENGTH]));
        self.expand(&[label.as_bytes()], key.expose_secret_mut());
        Self(key)
    }

    /// HMAC-SHA256 of the concatenation of `parts`.
    pub(super) fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.bytes()).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// Seals `message` in place. `salt` must never have been used with this key before.
    pub(super) fn seal(&self, salt: &[u8], place: &[u8], message: &mut [u8]) -> Seal {
        let commitment = self.commitment(salt, place, message.len());
        let (cipher, nonce) = self.cipher(salt, place, message.len());
        let tag = cipher
            .encrypt_inout_detached(&nonce, place, message.into())
            .expect("a message is far below ChaCha20's 256 GiB");
        Seal { commitment, tag: tag.into() }
    }

    /// Opens `message` in place. On a mismatch it stays sealed.
    pub(super) fn open(
        &self,
        salt: &[u8],
        place: &[u8],
        message: &mut [u8],
        seal: &Seal,
    ) -> Result<(), Mismatch> {
        let commitment = self.commitment(salt, place, message.len());
        if !bool::from(commitment.ct_eq(&seal.commitment)) {
            return Err(Mismatch::Commitment);
        }
        let (cipher, nonce) = self.cipher(salt, place, message.len());
        cipher
            .decrypt_inout_detached(&nonce, place, message.into(), &Tag::from(seal.tag))
            .map_err(|_| Mismatch::Message)
    }

    /// Appends the key itself, to be sealed under another one.
    pub(super) fn append_to(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(self.bytes());
    }

    fn commitment(
        &self,
        salt: &[u8],
        place: &[u8],
        length: usize,
    ) -> [u8; Seal::COMMITMENT_LENGTH] {
        let mut commitment = [0; Seal::COMMITMENT_LENGTH];
        self.expand(&[b"mcpv.commit.v1", salt, &length_bytes(length), place], &mut commitment);
        commitment
    }

    fn cipher(&self, salt: &[u8], place: &[u8], length: usize) -> (ChaCha20Poly1305, Nonce) {
        let mut output = Zeroizing::new([0; Self::LENGTH + 12]);
        self.expand(&[b"mcpv.key.v1", salt, &length_bytes(length), place], output.as_mut_slice());
        let (key, nonce) = output.split_at(Self::LENGTH);
        let cipher = ChaCha20Poly1305::new_from_slice(key).expect("32 bytes were split off");
        (cipher, Nonce::try_from(nonce).expect("12 bytes are left"))
    }

    fn expand(&self, info: &[&[u8]], output: &mut [u8]) {
        // The keys are uniform already, so there is nothing to extract.
        Hkdf::<Sha256>::from_prk(self.bytes())
            .expect("a key is as long as SHA-256's output")
            .expand_multi_info(info, output)
            .expect("at most 44 bytes are asked for");
    }

    #[expect(clippy::disallowed_methods, reason = "the primitives take keys by reference")]
    fn bytes(&self) -> &[u8; Self::LENGTH] {
        self.0.expose_secret()
    }
}

impl Seal {
    pub(super) const COMMITMENT_LENGTH: usize = 32;
    pub(super) const TAG_LENGTH: usize = 16;
}

/// Fills `bytes` from the operating system's generator; there is no other.
pub(super) fn random(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(Error::Random)
}

fn length_bytes(length: usize) -> [u8; 4] {
    u32::try_from(length)
        .expect("a message is at most a keyring, whose size is limited")
        .to_be_bytes()
}
