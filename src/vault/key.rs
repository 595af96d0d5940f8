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
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Error;
use crate::memory::LockedBytes;

/// 32 uniformly random, or derived, bytes in locked memory. `Debug` shows none of them.
#[derive(Debug)]
pub(super) struct Key(LockedBytes);

/// What authenticates a sealed message.
#[derive(Clone, Debug)]
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
        Self::fill_with(|key| random(key))
    }

    /// The key that `fill` writes.
    pub(super) fn fill_with<E>(
        fill: impl FnOnce(&mut [u8; Self::LENGTH]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut key = LockedBytes::zeroed(Self::LENGTH);
        fill(key.as_mut_array().expect("it has that length"))?;
        Ok(Self(key))
    }

    /// The key for the one purpose that `label` names.
    pub(super) fn derive(&self, label: &str) -> Self {
        let mut key = LockedBytes::zeroed(Self::LENGTH);
        self.hkdf().expand(label.as_bytes(), &mut key).expect("32 bytes are asked for");
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

    /// HMAC-SHA256 of what is yet to come.
    pub(super) fn begin_mac(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(self.bytes()).expect("HMAC takes keys of any length")
    }

    /// Seals `message` in place. `salt` must never have been used with this key before.
    pub(super) fn seal(&self, salt: &[u8], place: &[u8], message: &mut [u8]) -> Seal {
        let derivation = Derivation::new(self, salt, place, message.len());
        let commitment = derivation.commitment();
        let (cipher, nonce) = derivation.cipher();
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
        let derivation = Derivation::new(self, salt, place, message.len());
        let commitment = derivation.commitment();
        if !bool::from(commitment.ct_eq(&seal.commitment)) {
            return Err(Mismatch::Commitment);
        }
        let (cipher, nonce) = derivation.cipher();
        cipher
            .decrypt_inout_detached(&nonce, place, message.into(), &Tag::from(seal.tag))
            .map_err(|_| Mismatch::Message)
    }

    /// Another value of the same key.
    pub(super) fn duplicate(&self) -> Self {
        Self(LockedBytes::copy_of(self.bytes()))
    }

    /// What `make` makes of the key, for a primitive that this module does not have.
    pub(super) fn with_bytes<T>(&self, make: impl FnOnce(&[u8; Self::LENGTH]) -> T) -> T {
        make(self.bytes().as_array().expect("a key has 32 bytes"))
    }

    /// Appends the key itself, to be sealed under another one.
    pub(super) fn append_to(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(self.bytes());
    }

    fn hkdf(&self) -> Hkdf<Sha256> {
        // The keys are uniform already, so there is nothing to extract.
        Hkdf::from_prk(self.bytes()).expect("a key is as long as SHA-256's output")
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What the derivation of a message's commitment and of its key have in common. The key is set up
/// once for both. That is two of the sixteen SHA-256 blocks which make sealing and opening a record
/// about one and a half times as slow as the bare cipher (`./dev bench --bench vault`).
struct Derivation<'a> {
    hkdf: Hkdf<Sha256>,
    salt: &'a [u8],
    length: [u8; 4],
    place: &'a [u8],
}

impl<'a> Derivation<'a> {
    fn new(key: &Key, salt: &'a [u8], place: &'a [u8], length: usize) -> Self {
        let length = u32::try_from(length).expect("at most a keyring, whose size is limited");
        Self { hkdf: key.hkdf(), salt, length: length.to_be_bytes(), place }
    }

    fn commitment(&self) -> [u8; Seal::COMMITMENT_LENGTH] {
        let mut commitment = [0; Seal::COMMITMENT_LENGTH];
        self.expand(b"mcpv.commit.v1", &mut commitment);
        commitment
    }

    fn cipher(&self) -> (ChaCha20Poly1305, Nonce) {
        let mut output = Zeroizing::new([0; Key::LENGTH + 12]);
        self.expand(b"mcpv.key.v1", output.as_mut_slice());
        let (key, nonce) = output.split_at(Key::LENGTH);
        let cipher = ChaCha20Poly1305::new_from_slice(key).expect("32 bytes were split off");
        (cipher, Nonce::try_from(nonce).expect("12 bytes are left"))
    }

    fn expand(&self, label: &[u8], output: &mut [u8]) {
        self.hkdf
            .expand_multi_info(&[label, self.salt, &self.length, self.place], output)
            .expect("at most 44 bytes are asked for");
    }
}

impl Seal {
    pub(super) const COMMITMENT_LENGTH: usize = 32;
    pub(super) const TAG_LENGTH: usize = 16;
    pub(super) const LENGTH: usize = Self::COMMITMENT_LENGTH + Self::TAG_LENGTH;
}

/// Fills `bytes` from the operating system's generator; there is no other.
pub(super) fn random(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(Error::Random)
}
