//! From a passphrase to a key: Argon2id (RFC 9106), version 0x13.

use std::fs;
use std::path::Path;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use secrecy::ExposeSecret;
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroizing, zeroize_stack};

use super::Error;
use super::key::Key;
use crate::memory::{LockedBytes, SecretText};

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
        if cost.is_enough() && cost.is_bearable() { Ok(cost) } else { Err(Error::CostOutOfRange) }
    }

    /// Whether a new slot may have it.
    pub(super) fn is_enough(self) -> bool {
        let floor_passes = if self.memory_kib >= 2 << 20 { 1 } else { Self::FLOOR.passes };
        self.memory_kib >= Self::FLOOR.memory_kib
            && self.passes >= floor_passes
            && self.lanes >= Self::FLOOR.lanes
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
///
/// # Errors
///
/// [`Error::PassphraseTooShort`].
pub fn check_new(passphrase: &SecretText) -> Result<(), Error> {
    let normalised = normalised(passphrase);
    let characters = std::str::from_utf8(&normalised).map_or(0, |text| text.chars().count());
    if characters < MIN_PASSPHRASE {
        return Err(Error::PassphraseTooShort);
    }
    Ok(())
}

/// Derives the key that wraps the root key.
pub(super) fn derive(
    passphrase: &SecretText,
    salt: &[u8; SALT_LENGTH],
    cost: KdfCost,
) -> Result<Key, Error> {
    let derived = derive_on_this_stack(passphrase, salt, cost);
    // BLAKE2b's states hold blocks of what they hash, and the crate leaves them where they were.
    zeroize_stack::<STACK>();
    derived
}

/// Bytes of stack that are wiped after a derivation: more than it uses.
const STACK: usize = 32 << 10;

#[inline(never)]
fn derive_on_this_stack(
    passphrase: &SecretText,
    salt: &[u8; SALT_LENGTH],
    cost: KdfCost,
) -> Result<Key, Error> {
    let out_of_memory = || Error::OutOfMemory { memory_kib: cost.memory_kib };
    // Before the system lends what it does not have, and ends this process for it.
    if available_memory_kib().is_some_and(|available| available < u64::from(cost.memory_kib)) {
        return Err(out_of_memory());
    }
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
            .hash_password_into_with_memory(&passphrase, salt, key, blocks.as_mut_slice())
            .map_err(|_| out_of_memory())
    })
}

/// What this process may still take, as far as the system says: the machine's free memory, and what
/// its control group leaves.
fn available_memory_kib() -> Option<u64> {
    let number = |text: &str| text.split_whitespace().next()?.parse::<u64>().ok();
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| number(text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?));
    let group = |name: &str| number(&fs::read_to_string(Path::new(CONTROL_GROUP).join(name)).ok()?);
    let left = group("memory.max")
        .zip(group("memory.current"))
        .map(|(limit, used)| limit.saturating_sub(used) / 1_024);
    machine.into_iter().chain(left).min()
}

/// Where a container sees its own.
const CONTROL_GROUP: &str = "/sys/fs/cgroup";

/// The passphrase in Unicode NFC: the same whichever way the keyboard composed it.
fn normalised(passphrase: &SecretText) -> LockedBytes {
    #[expect(
        clippy::disallowed_methods,
        reason = "the key derivation takes the passphrase's bytes"
    )]
    let passphrase = passphrase.expose_secret();
    // NFC already, and needs none of the buffers that composing characters takes.
    if passphrase.is_ascii() {
        return LockedBytes::copy_of(passphrase.as_bytes());
    }
    let length = passphrase.nfc().map(char::len_utf8).sum();
    let mut normalised = LockedBytes::zeroed(length);
    let mut rest = &mut normalised[..];
    for character in passphrase.nfc() {
        let length = character.encode_utf8(rest).len();
        rest = &mut rest[length..];
    }
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
        assert!(KdfCost::insecure_for_tests().memory_kib < 1 << 10);
    }

    #[test]
    fn a_lane_has_at_least_eight_blocks() {
        for (memory_kib, lanes, bearable) in
            [(8, 1, true), (7, 1, false), (32, 4, true), (31, 4, false)]
        {
            let cost = KdfCost { memory_kib, passes: 1, lanes };
            assert_eq!(cost.is_bearable(), bearable, "{memory_kib} {lanes}");
        }
        for (passes, lanes) in [(0, 1), (33, 1), (1, 0), (1, 17)] {
            let cost = KdfCost { memory_kib: 1 << 10, passes, lanes };
            assert!(!cost.is_bearable(), "{passes} {lanes}");
        }
    }

    #[test]
    fn a_cost_that_this_machine_has_no_memory_for_is_refused_before_it_is_spent() {
        let available = available_memory_kib().unwrap();
        let cost = KdfCost {
            memory_kib: u32::try_from(available).unwrap() + (1 << 20),
            passes: 1,
            lanes: 1,
        };
        let refused = derive(&SecretText::from("a passphrase"), &[7; SALT_LENGTH], cost);
        assert!(
            matches!(refused, Err(Error::OutOfMemory { memory_kib }) if memory_kib == cost.memory_kib)
        );
        derive(&SecretText::from("a passphrase"), &[7; SALT_LENGTH], KdfCost::insecure_for_tests())
            .unwrap();
    }

    #[test]
    fn a_passphrase_is_the_same_however_it_was_composed() {
        let cost = KdfCost::insecure_for_tests();
        let derive =
            |text: &str| derive(&SecretText::from(text), &[7; SALT_LENGTH], cost).unwrap().mac(&[]);
        assert_eq!(derive("caf\u{e9} and croissant"), derive("cafe\u{301} and croissant"));
        assert_ne!(derive("cafe and croissant"), derive("caf\u{e9} and croissant"));
    }

    #[test]
    fn fourteen_characters_are_enough_and_thirteen_are_not() {
        assert!(check_new(&SecretText::from("éééééééééééééé")).is_ok());
        let short = check_new(&SecretText::from("e\u{301}".repeat(13).as_str()));
        assert!(matches!(short, Err(Error::PassphraseTooShort)));
    }
}
