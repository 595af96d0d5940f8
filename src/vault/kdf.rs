//! From a passphrase to a key: Argon2id (RFC 9106), version 0x13.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use super::Error;
use super::key::Key;

/// Fewest characters of a new passphrase.
pub(super) const MIN_PASSPHRASE: usize = 14;
pub(super) const SALT_LENGTH: usize = 16;

/// What one guess at the passphrase costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KdfCost {
    pub(super) memory_kib: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
}

impl KdfCost {
    /// 256 MiB, 3 passes, 4 lanes: about a second.
    pub const DEFAULT: Self = Self { memory_kib: 256 << 10, passes: 3, lanes: 4 };
    /// The least for a new vault: RFC 9106's second recommendation.
    pub(super) const FLOOR: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 4 };
    /// The most that is spent on an existing one: a forged header must not exhaust the machine.
    pub(super) const CEILING: Self = Self { memory_kib: 4 << 20, passes: 32, lanes: 16 };

    /// A cost for new vaults. More memory allows fewer passes: from 2 GiB on, one.
    ///
    /// # Errors
    ///
    /// [`Error::CostOutOfRange`]
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, Error> {
        let cost = Self { memory_kib, passes, lanes };
        let floor_passes = if memory_kib >= 2 << 20 { 1 } else { Self::FLOOR.passes };
        let enough = memory_kib >= Self::FLOOR.memory_kib
            && passes >= floor_passes
            && lanes >= Self::FLOOR.lanes;
        if enough && cost.is_bearable() { Ok(cost) } else { Err(Error::CostOutOfRange) }
    }

    /// Next to nothing, for tests that are not about the passphrase. A vault made with it is open
    /// to anyone who guesses.
    pub fn insecure_for_tests() -> Self {
        Self { memory_kib: 8, passes: 1, lanes: 1 }
    }

    /// Whether a cost that a header names may be spent.
    pub(super) fn is_bearable(self) -> bool {
        (1..=Self::CEILING.lanes).contains(&self.lanes)
            && (1..=Self::CEILING.passes).contains(&self.passes)
            && (8 * self.lanes..=Self::CEILING.memory_kib).contains(&self.memory_kib)
    }
}

impl Default for KdfCost {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Refuses a passphrase that a new vault should not have.
pub(super) fn check_new(passphrase: &SecretString) -> Result<(), Error> {
    if normalised(passphrase).chars().count() < MIN_PASSPHRASE {
        return Err(Error::PassphraseTooShort);
    }
    Ok(())
}

/// Derives the key that wraps the root key.
pub(super) fn derive(
    passphrase: &SecretString,
    salt: &[u8; SALT_LENGTH],
    cost: KdfCost,
) -> Result<Key, Error> {
    let out_of_memory = || Error::OutOfMemory { memory_kib: cost.memory_kib };
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(Key::LENGTH))
        .map_err(|_| Error::CostOutOfRange)?;
    // Our own blocks, because the crate frees its own unwiped, and the last one gives the key.
    let mut blocks = Zeroizing::new(Vec::<Block>::new());
    blocks.try_reserve_exact(params.block_count()).map_err(|_| out_of_memory())?;
    blocks.resize(params.block_count(), Block::new());
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let passphrase = normalised(passphrase);
    Key::fill_with(|key| {
        argon2
            .hash_password_into_with_memory(passphrase.as_bytes(), salt, key, blocks.as_mut_slice())
            .map_err(|_| out_of_memory())
    })
}

/// The passphrase in Unicode NFC: the same whichever way the keyboard composed it.
fn normalised(passphrase: &SecretString) -> Zeroizing<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the key derivation takes the passphrase's bytes"
    )]
    let passphrase = passphrase.expose_secret();
    // NFC at most triples the length; a string that grew would leave copies behind.
    let mut normalised = Zeroizing::new(String::with_capacity(3 * passphrase.len()));
    normalised.extend(passphrase.nfc());
    normalised
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cheap_cost_is_refused_when_creating_and_an_absurd_one_always() {
        assert_eq!(KdfCost::new(256 << 10, 3, 4).unwrap(), KdfCost::DEFAULT);
        KdfCost::new(64 << 10, 3, 4).unwrap();
        KdfCost::new(2 << 20, 1, 4).unwrap();
        for (memory_kib, passes, lanes) in [
            (64 << 10, 3, 3),
            (64 << 10, 2, 4),
            ((64 << 10) - 1, 3, 4),
            ((4 << 20) + 1, 3, 4),
            (256 << 10, 33, 4),
            (256 << 10, 3, 17),
            (256 << 10, 3, u32::MAX / 8),
        ] {
            let refused = KdfCost::new(memory_kib, passes, lanes);
            assert!(matches!(refused, Err(Error::CostOutOfRange)), "{memory_kib} {passes} {lanes}");
        }
        assert!(KdfCost::insecure_for_tests().is_bearable());
        let bomb = KdfCost { memory_kib: u32::MAX, passes: 3, lanes: 4 };
        assert!(!bomb.is_bearable());
    }

    #[test]
    fn a_passphrase_is_the_same_however_it_was_composed() {
        let cost = KdfCost::insecure_for_tests();
        let derive = |text: &str| {
            derive(&SecretString::from(text), &[7; SALT_LENGTH], cost).unwrap().mac(&[])
        };
        assert_eq!(derive("caf\u{e9} and croissant"), derive("cafe\u{301} and croissant"));
        assert_ne!(derive("cafe and croissant"), derive("caf\u{e9} and croissant"));
    }

    #[test]
    fn fourteen_characters_are_enough_and_thirteen_are_not() {
        assert!(check_new(&SecretString::from("éééééééééééééé")).is_ok());
        let short = check_new(&SecretString::from("e\u{301}".repeat(13)));
        assert!(matches!(short, Err(Error::PassphraseTooShort)));
    }
}
