//! Shamir's secret sharing: a key in `count` shares, of which any `threshold` give it back.
//!
//! ```text
//! f(x) = secret + c1·x + ... + c(threshold-1)·x^(threshold-1)     per byte, over GF(2^8)
//! share number n = f(n)                                           n = 1, 2, ..., count
//! secret = f(0), from any `threshold` points
//! ```
//!
//! Fewer shares than the threshold say nothing about the key, whatever computer they are given to:
//! every key fits them equally well. That holds only if each coefficient is uniform, *with* zero.
//! A share is as secret as its part of the key. Nothing here tells an altered share from a genuine
//! one: a wrong key comes out, and the slot's commitment refuses it.
//!
//! The field is that of AES, x^8 + x^4 + x^3 + x + 1. Its arithmetic indexes no table and takes no
//! branch by a secret.

use std::convert::Infallible;
use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::Error;
use super::bech32::{self, Mistyped};
use super::codec::{Malformed, Reader};
use super::key::{Key, random};
use crate::memory::SecretText;

/// Fewest shares that open: of which one alone opens is a key file.
pub(super) const MIN_THRESHOLD: u8 = 2;
/// Most shares of one key.
pub(super) const MAX_COUNT: u8 = 16;

/// What the text is checked to be.
const PREFIX: &str = "tenantry-share";
/// How the text begins.
const HEAD: &str = "tenantry-share-1";
/// The same without hyphens.
const COMPACT_HEAD: &[u8] = b"tenantryshare1";
const GROUP: usize = 5;
const SET_LENGTH: usize = 8;
/// Set, threshold, count, number, value.
const LENGTH: usize = SET_LENGTH + 3 + Key::LENGTH;
const SYMBOLS: usize = bech32::encoded_length(LENGTH);

/// One of the shares of a key. `Debug` shows which, and nothing of its value.
#[derive(Debug)]
pub struct Share {
    set: [u8; SET_LENGTH],
    threshold: u8,
    count: u8,
    number: u8,
    value: Key,
}

impl Share {
    /// Reads what [`to_text`](Self::to_text) wrote, with upper or lower case letters, and with
    /// spaces, line breaks and hyphens anywhere.
    ///
    /// # Errors
    ///
    /// - [`Error::ShareMalformed`]: something else, or a part of it.
    /// - [`Error::ShareMistyped`]: up to four wrong characters for certain, others most likely.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let kept = |byte: &u8| !byte.is_ascii_whitespace() && *byte != b'-';
        let mut compact = Zeroizing::new(Vec::with_capacity(text.len()));
        compact.extend(text.bytes().filter(kept).map(|byte| byte.to_ascii_lowercase()));
        let symbols = compact.strip_prefix(COMPACT_HEAD).ok_or(Error::ShareMalformed)?;
        if symbols.len() != SYMBOLS {
            return Err(Error::ShareMalformed);
        }
        let bytes = bech32::decode(PREFIX, symbols).map_err(|Mistyped| Error::ShareMistyped)?;
        Self::decode(&bytes).map_err(|Malformed| Error::ShareMalformed)
    }

    /// The text that a person keeps: `tenantry-share-1` and 15 groups of 5 letters and digits.
    pub fn to_text(&self) -> SecretText {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH));
        bytes.extend_from_slice(&self.set);
        bytes.extend_from_slice(&[self.threshold, self.count, self.number]);
        self.value.append_to(&mut bytes);
        let symbols = bech32::encode(PREFIX, &bytes);

        let length = HEAD.len() + SYMBOLS / GROUP * (1 + GROUP);
        let mut text = Zeroizing::new(String::with_capacity(length));
        text.push_str(HEAD);
        for (index, symbol) in symbols.char_indices() {
            if index % GROUP == 0 {
                text.push('-');
            }
            text.push(symbol);
        }
        debug_assert_eq!(text.len(), length);
        SecretText::from(text.as_str())
    }

    /// Which one it is, from 1 to [`count`](Self::count).
    pub fn number(&self) -> u8 {
        self.number
    }

    /// How many of the set are needed.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// How many the set has.
    pub fn count(&self) -> u8 {
        self.count
    }

    /// Which shares belong together, in hex. Random, and no secret.
    pub fn set(&self) -> String {
        self.set.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string does not fail");
            text
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let set = reader.array()?;
        let (threshold, count, number) = (reader.u8()?, reader.u8()?, reader.u8()?);
        let value = reader.raw(Key::LENGTH)?;
        reader.finish()?;
        if !is_scheme(threshold, count) || !(1..=count).contains(&number) {
            return Err(Malformed);
        }
        let value = Key::fill_with(|key| {
            key.copy_from_slice(value);
            Ok(())
        })?;
        Ok(Self { set, threshold, count, number, value })
    }

    fn belongs_to(&self, other: &Self) -> bool {
        let of = |share: &Self| (share.set, share.threshold, share.count);
        of(self) == of(other)
    }
}

/// Makes `count` shares of `secret`, any `threshold` of which give it back.
///
/// # Errors
///
/// [`Error::ShareCounts`]: not 2 ≤ `threshold` ≤ `count` ≤ 16.
pub(super) fn split(secret: &Key, threshold: u8, count: u8) -> Result<Vec<Share>, Error> {
    if !is_scheme(threshold, count) {
        return Err(Error::ShareCounts);
    }
    let mut set = [0; SET_LENGTH];
    random(&mut set)?;
    let mut coefficients = Zeroizing::new(vec![[0; Key::LENGTH]; usize::from(threshold) - 1]);
    for coefficient in coefficients.iter_mut() {
        random(coefficient)?;
    }
    Ok(split_with(secret, &coefficients, set, count))
}

/// `coefficients` begins with that of x.
fn split_with(
    secret: &Key,
    coefficients: &[[u8; Key::LENGTH]],
    set: [u8; SET_LENGTH],
    count: u8,
) -> Vec<Share> {
    let threshold = u8::try_from(coefficients.len() + 1).expect("checked by the caller");
    let mut constant = Zeroizing::new(Vec::with_capacity(Key::LENGTH));
    secret.append_to(&mut constant);
    let share = |number| {
        let value = filled(|value| {
            for (at, byte) in value.iter_mut().enumerate() {
                // Horner's scheme, from the highest power down.
                for coefficient in coefficients.iter().rev() {
                    *byte = multiply(*byte ^ coefficient[at], number);
                }
                *byte ^= constant[at];
            }
        });
        Share { set, threshold, count, number, value }
    };
    (1..=count).map(share).collect()
}

/// The key that `shares` were made of; those beyond the threshold are not looked at. If one was
/// altered, another key.
///
/// # Errors
///
/// - [`Error::SharesMixed`]: they are not of one set.
/// - [`Error::ShareTwice`]
/// - [`Error::TooFewShares`]
pub(super) fn combine(shares: &[Share]) -> Result<Key, Error> {
    let given = shares.len();
    let first = shares.first().ok_or(Error::TooFewShares { given, needed: MIN_THRESHOLD })?;
    for (index, share) in shares.iter().enumerate() {
        if !share.belongs_to(first) {
            return Err(Error::SharesMixed);
        }
        if shares[..index].iter().any(|earlier| earlier.number == share.number) {
            return Err(Error::ShareTwice(share.number));
        }
    }
    let shares = shares
        .get(..usize::from(first.threshold))
        .ok_or(Error::TooFewShares { given, needed: first.threshold })?;

    let mut value = Zeroizing::new(Vec::with_capacity(Key::LENGTH));
    Ok(filled(|secret| {
        for share in shares {
            value.clear();
            share.value.append_to(&mut value);
            let weight = weight(share, shares);
            for (byte, value) in secret.iter_mut().zip(value.iter()) {
                *byte ^= multiply(*value, weight);
            }
        }
    }))
}

/// Lagrange's weight of `share` at 0: the product of n / (n - own number) over the other numbers n.
fn weight(share: &Share, shares: &[Share]) -> u8 {
    let others = shares.iter().map(|other| other.number).filter(|number| *number != share.number);
    others
        .fold(1, |weight, number| multiply(weight, multiply(number, invert(number ^ share.number))))
}

pub(super) fn is_scheme(threshold: u8, count: u8) -> bool {
    MIN_THRESHOLD <= threshold && threshold <= count && count <= MAX_COUNT
}

fn filled(fill: impl FnOnce(&mut [u8; Key::LENGTH])) -> Key {
    let key = Key::fill_with(|key| {
        fill(key);
        Ok::<_, Infallible>(())
    });
    match key {
        Ok(key) => key,
    }
}

/// The product in GF(2^8).
fn multiply(mut one: u8, mut other: u8) -> u8 {
    let mut product = 0;
    for _ in 0..8 {
        product ^= one & all_bits(other & 1);
        other >>= 1;
        one = one << 1 ^ 0x1b & all_bits(one >> 7);
    }
    product
}

/// 1 / `number`, which is not 0: its 254th power.
fn invert(number: u8) -> u8 {
    let mut power = number;
    (0..7).fold(1, |product, _| {
        power = multiply(power, power);
        multiply(product, power)
    })
}

/// `bit`, eight times.
fn all_bits(bit: u8) -> u8 {
    0_u8.wrapping_sub(bit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{exposed, vector};
    use super::*;

    const VECTOR: &str = include_str!("../../tests/vectors/shares.txt");

    fn bytes(key: &Key) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.append_to(&mut bytes);
        bytes
    }

    fn key(bytes: &[u8]) -> Key {
        filled(|key| key.copy_from_slice(bytes))
    }

    fn copy(share: &Share) -> Share {
        Share { value: key(&bytes(&share.value)), ..*share }
    }

    /// Those whose bit in `chosen` is set.
    fn some(shares: &[Share], chosen: u32) -> Vec<Share> {
        let chosen = |share: &&Share| chosen >> (share.number - 1) & 1 == 1;
        shares.iter().filter(chosen).map(copy).collect()
    }

    fn golden() -> Vec<Share> {
        let text = |number| String::from_utf8(vector(VECTOR, &format!("share_{number}"))).unwrap();
        (1..=5).map(|number| Share::parse(&text(number)).unwrap()).collect()
    }

    #[test]
    fn the_golden_shares_are_made_written_read_and_combined_byte_for_byte() {
        let coefficients = ["coefficient_1", "coefficient_2"];
        let coefficients = coefficients.map(|name| vector(VECTOR, name).try_into().unwrap());
        let set = vector(VECTOR, "set").try_into().unwrap();
        let secret = key(&vector(VECTOR, "secret"));
        let made = split_with(&secret, &coefficients, set, 5);
        assert_eq!(made.len(), 5);
        for (made, read) in made.iter().zip(&golden()) {
            let text = vector(VECTOR, &format!("share_{}", made.number()));
            assert_eq!(exposed(&made.to_text()).as_bytes(), text);
            assert_eq!(bytes(&read.value), bytes(&made.value));
            assert_eq!((read.threshold(), read.count()), (3, 5));
            assert_eq!(read.number(), made.number());
            assert_eq!(read.set(), made.set());
        }
        assert_eq!(made[0].set(), "c0c1c2c3c4c5c6c7");
        assert_eq!(bytes(&combine(&golden()[2..]).unwrap()), bytes(&secret));
    }

    #[test]
    fn any_shares_as_many_as_the_threshold_combine_and_fewer_do_not() {
        let secret = Key::random().unwrap();
        for (threshold, count) in [(2, 2), (2, 3), (3, 5), (5, 5), (4, 7)] {
            let shares = split(&secret, threshold, count).unwrap();
            for chosen in 0..1_u32 << count {
                let mut some = some(&shares, chosen);
                some.reverse();
                let given = some.len();
                match combine(&some) {
                    Ok(key) => {
                        assert!(given >= threshold.into(), "{given} of {threshold}");
                        assert_eq!(bytes(&key), bytes(&secret));
                    }
                    Err(Error::TooFewShares { given: said, needed }) => {
                        assert_eq!(said, given);
                        let least = if given == 0 { MIN_THRESHOLD } else { threshold };
                        assert_eq!(needed, least);
                        assert!(given < threshold.into(), "{given} of {threshold}");
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        let shares = split(&secret, MAX_COUNT, MAX_COUNT).unwrap();
        assert_eq!(bytes(&combine(&shares).unwrap()), bytes(&secret));
        assert!(combine(&shares[1..]).is_err());
    }

    #[test]
    fn the_threshold_is_in_the_polynomial_and_not_only_in_a_check() {
        let secret = Key::random().unwrap();
        let shares = split(&secret, 4, 5).unwrap();
        let lowered = |share: &Share| Share { threshold: 3, ..copy(share) };
        let lowered = shares[..3].iter().map(lowered).collect::<Vec<_>>();
        assert_ne!(bytes(&combine(&lowered).unwrap()), bytes(&secret));
    }

    #[test]
    fn shares_that_do_not_belong_together_are_refused() {
        let secret = Key::random().unwrap();
        let shares = split(&secret, 2, 3).unwrap();
        let other = split(&secret, 2, 3).unwrap();
        assert!(combine(&[copy(&shares[0]), copy(&shares[2])]).is_ok());
        for foreign in [
            copy(&other[2]),
            Share { threshold: 3, ..copy(&shares[2]) },
            Share { count: 4, ..copy(&shares[2]) },
        ] {
            let mixed = combine(&[copy(&shares[0]), foreign]);
            assert!(matches!(mixed, Err(Error::SharesMixed)));
        }
        // Even among more than enough.
        let mixed = [&shares[0], &shares[1], &other[2]].map(copy);
        assert!(matches!(combine(&mixed), Err(Error::SharesMixed)));
    }

    #[test]
    fn a_share_given_twice_is_named() {
        let shares = split(&Key::random().unwrap(), 3, 5).unwrap();
        let twice = [&shares[0], &shares[3], &shares[3]].map(copy);
        assert!(matches!(combine(&twice), Err(Error::ShareTwice(4))));
        let twice = [&shares[0], &shares[1], &shares[2], &shares[0]].map(copy);
        assert!(matches!(combine(&twice), Err(Error::ShareTwice(1))));
        let once = [&shares[0], &shares[3], &shares[4]].map(copy);
        assert!(combine(&once).is_ok());
    }

    #[test]
    fn counts_outside_their_bounds_are_refused() {
        let secret = Key::random().unwrap();
        for (threshold, count) in [(0, 0), (0, 5), (1, 1), (1, 5), (3, 2), (2, 17), (17, 17)] {
            let refused = split(&secret, threshold, count);
            assert!(matches!(refused, Err(Error::ShareCounts)), "{threshold} of {count}");
        }
        for (threshold, count) in [(2, 2), (2, 16), (16, 16)] {
            assert_eq!(split(&secret, threshold, count).unwrap().len(), usize::from(count));
        }
        let text = Error::ShareCounts.to_string();
        assert_eq!(text, "of 2 to 16 shares, at least 2 and at most all are needed");
    }

    /// A coefficient that is never zero is the flaw of several published implementations: then a
    /// share is never equal to the secret, and a few hundred splits of one secret betray it.
    #[test]
    fn the_value_of_a_share_is_uniform_whatever_the_secret_is() {
        const SPLITS: u32 = 2_000;
        for byte in [0x00, 0xff] {
            let secret = filled(|key| key.fill(byte));
            let mut counts = [[0_u32; 256]; 2];
            for _ in 0..SPLITS {
                let shares = split(&secret, 2, 2).unwrap();
                for (counts, share) in counts.iter_mut().zip(&shares) {
                    for value in bytes(&share.value) {
                        counts[usize::from(value)] += 1;
                    }
                }
            }
            for counts in counts {
                assert!(counts[usize::from(byte)] > 0, "a coefficient of zero never occurs");
                let expected = f64::from(SPLITS * 32) / 256.0;
                let deviation = |count| (f64::from(count) - expected).powi(2) / expected;
                let chi_square: f64 = counts.into_iter().map(deviation).sum();
                // 255 degrees of freedom: a mean of 255, a standard deviation of 22.6. Beyond ten
                // of them once in 10^15 runs; without zeros it would be above 500.
                assert!(chi_square < 255.0 + 10.0 * 22.6, "{chi_square}");
            }
        }
    }

    #[test]
    fn two_shares_of_three_fit_every_key_equally_well() {
        let shares = split(&key(&[0x5a; Key::LENGTH]), 3, 3).unwrap();
        let mut seen = [false; 256];
        for value in 0..=u8::MAX {
            let guess = Share { value: key(&[value; Key::LENGTH]), ..copy(&shares[2]) };
            let guessed = combine(&[copy(&shares[0]), copy(&shares[1]), guess]).unwrap();
            seen[usize::from(bytes(&guessed)[0])] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
    }

    #[test]
    fn two_sets_of_one_key_have_nothing_in_common() {
        let secret = Key::random().unwrap();
        let (one, other) = (split(&secret, 2, 2).unwrap(), split(&secret, 2, 2).unwrap());
        assert_ne!(one[0].set(), other[0].set());
        assert_ne!(bytes(&one[0].value), bytes(&other[0].value));
        assert_ne!(bytes(&one[0].value), bytes(&one[1].value));
    }

    #[test]
    fn the_field_is_that_of_aes() {
        // FIPS 197, section 4.2; the inverse from its S-box's derivation.
        assert_eq!(multiply(0x57, 0x83), 0xc1);
        assert_eq!(multiply(0x57, 0x13), 0xfe);
        assert_eq!(invert(0x53), 0xca);
        for number in 1..=u8::MAX {
            assert_eq!(multiply(number, invert(number)), 1, "{number}");
            assert_eq!(multiply(number, 1), number);
            assert_eq!(multiply(0, number), 0);
        }
    }

    #[test]
    fn a_share_is_read_however_it_was_copied() {
        let text = String::from_utf8(vector(VECTOR, "share_2")).unwrap();
        for copied in [
            text.clone(),
            text.to_uppercase(),
            text.replace('-', " "),
            text.replace('-', ""),
            format!("  {}\r\n", text.replace('-', "-\n")),
        ] {
            let share = Share::parse(&copied).unwrap();
            assert_eq!(exposed(&share.to_text()), text);
        }
    }

    #[test]
    fn what_is_no_share_is_told_from_a_mistyped_one() {
        let text = String::from_utf8(vector(VECTOR, "share_2")).unwrap();
        let longer = format!("{text}q");
        let both = format!("{text}\n{text}");
        let key_file = "tenantry-key-1:qqqq";
        let non_ascii = text.replace('-', "\u{2010}");
        for other in [
            "",
            "tenantry-share-1",
            &text[..text.len() - 1],
            &text[1..],
            &longer,
            &both,
            key_file,
            &non_ascii,
        ] {
            assert!(matches!(Share::parse(other), Err(Error::ShareMalformed)), "{other}");
        }
        for (at, character) in text.char_indices().skip(HEAD.len()) {
            if character == '-' {
                continue;
            }
            for wrong in ["q", "p", "b", "1", "!"] {
                let mut mistyped = text.clone();
                mistyped.replace_range(at..=at, wrong);
                if mistyped != text {
                    let refused = Share::parse(&mistyped);
                    assert!(matches!(refused, Err(Error::ShareMistyped)), "{at} {wrong}");
                }
            }
        }
        // Neighbours that changed places.
        for at in HEAD.len() + 1..text.len() - 1 {
            let mut swapped = text.clone().into_bytes();
            swapped.swap(at, at + 1);
            let swapped = String::from_utf8(swapped).unwrap();
            if swapped.replace('-', "") != text.replace('-', "") {
                assert!(matches!(Share::parse(&swapped), Err(Error::ShareMistyped)), "{at}");
            }
        }
    }

    #[test]
    fn a_share_that_cannot_be_is_refused() {
        let share = &golden()[1];
        let parse = |threshold, count, number| {
            let share = Share { threshold, count, number, ..copy(share) };
            Share::parse(exposed(&share.to_text()))
        };
        for possible in [(3, 5, 5), (2, 2, 1), (16, 16, 16)] {
            assert!(parse(possible.0, possible.1, possible.2).is_ok(), "{possible:?}");
        }
        for other in [(3, 5, 0), (3, 5, 6), (1, 5, 1), (0, 5, 1), (5, 4, 1), (3, 17, 1)] {
            let refused = parse(other.0, other.1, other.2);
            assert!(matches!(refused, Err(Error::ShareMalformed)), "{other:?}");
        }
    }

    #[test]
    fn neither_debug_nor_an_error_shows_anything_of_the_value() {
        let share = Share { value: filled(|value| value.fill(0xab)), ..copy(&golden()[0]) };
        let shown = format!("{share:?}").to_lowercase();
        assert!(!shown.contains("ab, ") && !shown.contains("171") && !shown.contains("abab"));
        let text = exposed(&share.to_text()).to_owned();
        let error = Share::parse(&text.replace('4', "q")).err().unwrap();
        let shown = format!("{error} {error:?}");
        assert!(text.split('-').skip(3).all(|group| !shown.contains(group)));
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_refused_without_a_panic(text in any::<String>()) {
            prop_assert!(Share::parse(&text).is_err());
            let headed = format!("{HEAD}{text}");
            prop_assert!(Share::parse(&headed).is_err());
        }

        #[test]
        fn arbitrary_symbols_are_refused(text in "[qpzry9x8gf2tvdw0s3jn54khce6mua7l]{75}") {
            let refused = Share::parse(&format!("{HEAD}{text}"));
            prop_assert!(matches!(refused, Err(Error::ShareMistyped)));
        }
    }
}
