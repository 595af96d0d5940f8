//! Bytes as text that people copy: Bech32m (BIP 350).
//!
//! ```text
//! symbols = 5 bits each of (bytes ‖ zero bits up to a multiple of 5) ‖ checksum[6 symbols]
//! ```
//!
//! The 32 symbols leave out `1`, `b`, `i` and `o`. The checksum is a BCH code over the symbols and
//! the prefix that says what the text is: up to four wrong characters are found for certain in a
//! text of 90, and any other mistake but for one in 2^30. It keeps nobody from making a text.
//!
//! What is written this way is secret, so no table is indexed and no branch taken by it.

use subtle::{ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

const SYMBOLS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
pub(super) const CHECKSUM_LENGTH: usize = 6;
/// What a correct text's remainder is.
const BECH32M: u32 = 0x2bc8_30a3;
const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];

/// A character that is none of the symbols, or a checksum that is another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Mistyped;

/// Symbols that `length` bytes take, with the checksum.
pub(super) const fn encoded_length(length: usize) -> usize {
    (8 * length).div_ceil(5) + CHECKSUM_LENGTH
}

/// The symbols of `bytes` and the checksum that binds them to `prefix`.
pub(super) fn encode(prefix: &str, bytes: &[u8]) -> Zeroizing<String> {
    let mut checksum = Checksum::new(prefix);
    let mut text = Zeroizing::new(String::with_capacity(encoded_length(bytes.len())));
    for index in 0..encoded_length(bytes.len()) - CHECKSUM_LENGTH {
        let value = bits(bytes, index);
        checksum.add(value);
        text.push(symbol(value));
    }
    for value in checksum.finish() {
        text.push(symbol(value));
    }
    text
}

/// The bytes that [`encode`] made `symbols` of, which come in either case.
pub(super) fn decode(prefix: &str, symbols: &[u8]) -> Result<Zeroizing<Vec<u8>>, Mistyped> {
    let mut checksum = Checksum::new(prefix);
    let data = symbols.len().checked_sub(CHECKSUM_LENGTH).ok_or(Mistyped)?;
    let mut bytes = Zeroizing::new(vec![0; 5 * data / 8]);
    let mut left_over = 0;
    for (index, symbol) in symbols.iter().enumerate() {
        let value = value(*symbol)?;
        checksum.add(value);
        if index < data {
            for bit in 0..5 {
                let (at, set) = (5 * index + bit, value >> (4 - bit) & 1);
                match bytes.get_mut(at / 8) {
                    Some(byte) => *byte += set << (7 - at % 8),
                    None => left_over |= set,
                }
            }
        }
    }
    let correct = checksum.0.ct_eq(&BECH32M) & left_over.ct_eq(&0);
    let shortest = symbols.len() == encoded_length(bytes.len());
    if shortest && correct.into() { Ok(bytes) } else { Err(Mistyped) }
}

/// The remainder of what was added so far.
struct Checksum(u32);

impl Checksum {
    fn new(prefix: &str) -> Self {
        let mut checksum = Self(1);
        prefix.bytes().for_each(|byte| checksum.add(byte >> 5));
        checksum.add(0);
        prefix.bytes().for_each(|byte| checksum.add(byte & 31));
        checksum
    }

    fn add(&mut self, value: u8) {
        let top = self.0 >> 25;
        self.0 = ((self.0 & 0x01ff_ffff) << 5) + u32::from(value);
        for (bit, generator) in GENERATOR.iter().enumerate() {
            self.0 ^= generator & 0_u32.wrapping_sub(top >> bit & 1);
        }
    }

    fn finish(mut self) -> [u8; CHECKSUM_LENGTH] {
        (0..CHECKSUM_LENGTH).for_each(|_| self.add(0));
        let remainder = self.0 ^ BECH32M;
        [25, 20, 15, 10, 5, 0].map(|shift| (remainder >> shift & 31) as u8)
    }
}

/// The five bits of symbol `index`; behind the last byte there are zeros.
fn bits(bytes: &[u8], index: usize) -> u8 {
    (5 * index..5 * index + 5).fold(0, |value, at| {
        let byte = bytes.get(at / 8).unwrap_or(&0);
        2 * value + (byte >> (7 - at % 8) & 1)
    })
}

fn symbol(value: u8) -> char {
    let mut symbol = 0;
    for (candidate, character) in (0_u8..).zip(SYMBOLS) {
        symbol.conditional_assign(character, candidate.ct_eq(&value));
    }
    char::from(symbol)
}

fn value(symbol: u8) -> Result<u8, Mistyped> {
    let symbol = symbol.to_ascii_lowercase();
    let mut value = u8::MAX;
    for (candidate, character) in (0_u8..).zip(SYMBOLS) {
        value.conditional_assign(&candidate, character.ct_eq(&symbol));
    }
    if value == u8::MAX { Err(Mistyped) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_valid_texts_of_bip_350_are_read_and_written() {
        for text in [
            "A1LQFN3A",
            "a1lqfn3a",
            "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
            "?1v759aa",
        ] {
            let text = text.to_lowercase();
            let (prefix, symbols) = text.rsplit_once('1').unwrap();
            assert!(decode(prefix, symbols.as_bytes()).unwrap().is_empty(), "{text}");
            assert_eq!(*encode(prefix, &[]), symbols);
        }
        // The witness program of a version 1 address: behind the version's symbol, 32 bytes.
        let address = "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0";
        let mut checksum = Checksum::new("bc");
        address.bytes().skip(3).for_each(|symbol| checksum.add(value(symbol).unwrap()));
        assert_eq!(checksum.0, BECH32M);
    }

    #[test]
    fn the_invalid_texts_of_bip_350_are_refused() {
        for (prefix, symbols) in [
            ("y", "b0jsk6g"),
            ("lt", "igcx5c0"),
            ("in", "muywd"),
            ("mm", "crxm3i"),
            ("au", "s5cgom"),
            ("m", "vyeecr"),
        ] {
            assert_eq!(decode(prefix, symbols.as_bytes()), Err(Mistyped), "{prefix}1{symbols}");
        }
        // Bech32, not Bech32m.
        assert_eq!(decode("a", b"2uel5l"), Err(Mistyped));
        assert!(decode("a", b"lqfn3a").is_ok());
    }

    #[test]
    fn bits_that_are_left_over_are_zero_and_few() {
        let is_accepted = |values: &[u8]| {
            let mut checksum = Checksum::new("spare");
            for value in values {
                checksum.add(*value);
            }
            let symbols = values.iter().copied().chain(checksum.finish()).map(symbol);
            decode("spare", symbols.collect::<String>().as_bytes()).is_ok()
        };
        // One byte is two symbols, of which the last has two bits to spare.
        assert!(is_accepted(&[0b10101, 0b01100]));
        for spare in 1..4 {
            assert!(!is_accepted(&[0b10101, 0b01100 | spare]), "{spare}");
        }
        assert!(!is_accepted(&[0b10101, 0b01100, 0]));
        assert!(!is_accepted(&[0]));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_in_either_case_and_under_their_prefix_only(
            bytes in proptest::collection::vec(any::<u8>(), 0..48),
        ) {
            let text = encode("prefix", &bytes);
            prop_assert_eq!(text.len(), encoded_length(bytes.len()));
            prop_assert_eq!(text.capacity(), text.len());
            prop_assert_eq!(&*decode("prefix", text.as_bytes()).unwrap(), &bytes);
            prop_assert_eq!(&*decode("prefix", text.to_uppercase().as_bytes()).unwrap(), &bytes);
            prop_assert_eq!(decode("prefiy", text.as_bytes()), Err(Mistyped));
        }

        #[test]
        fn four_wrong_characters_are_always_found(
            bytes in proptest::array::uniform32(any::<u8>()),
            changes in proptest::collection::btree_map(0..58_usize, 1..32_u8, 1..=4),
        ) {
            let mut text = encode("prefix", &bytes).as_bytes().to_vec();
            for (at, difference) in changes {
                text[at] = symbol(value(text[at]).unwrap() ^ difference) as u8;
            }
            prop_assert_eq!(decode("prefix", &text), Err(Mistyped));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(decoded) = decode("prefix", &bytes) {
                let written = encode("prefix", &decoded);
                prop_assert_eq!(written.as_bytes(), bytes.to_ascii_lowercase());
            }
        }
    }
}
