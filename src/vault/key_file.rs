//! A key in a file, which opens a slot by itself.
//!
//! ```text
//! tenantry-key-1:<58 letters and digits>
//! ```
//!
//! For a medium that is kept apart from the data directory: who has both has everything. The
//! checksum tells a damaged file from one that belongs to another vault.

use zeroize::Zeroizing;

use super::Error;
use super::bech32::{self, Mistyped};
use super::key::Key;
use crate::memory::SecretText;

/// What the text is checked to be.
const PREFIX: &str = "tenantry-key";
/// How the text begins.
const HEAD: &str = "tenantry-key-1:";
const SYMBOLS: usize = bech32::encoded_length(Key::LENGTH);

/// The key in a file. `Debug` shows none of it.
#[derive(Debug)]
pub struct KeyFile(Key);

impl KeyFile {
    /// A new random key.
    pub fn generate() -> Result<Self, Error> {
        Key::random().map(Self)
    }

    /// Reads the content of a file: one line, with white space around it or none.
    ///
    /// # Errors
    ///
    /// - [`Error::KeyFileMalformed`]: something else, or a part of it.
    /// - [`Error::KeyFileDamaged`]: the checksum is another.
    pub fn parse(content: &[u8]) -> Result<Self, Error> {
        let symbols = content.trim_ascii().strip_prefix(HEAD.as_bytes());
        let symbols =
            symbols.filter(|symbols| symbols.len() == SYMBOLS).ok_or(Error::KeyFileMalformed)?;
        let bytes = bech32::decode(PREFIX, symbols).map_err(|Mistyped| Error::KeyFileDamaged)?;
        let key = Key::fill_with(|key| {
            key.copy_from_slice(&bytes);
            Ok::<_, Error>(())
        })?;
        Ok(Self(key))
    }

    /// The content of the file: one line, with its end.
    pub fn to_text(&self) -> SecretText {
        let mut bytes = Zeroizing::new(Vec::with_capacity(Key::LENGTH));
        self.0.append_to(&mut bytes);
        let symbols = bech32::encode(PREFIX, &bytes);
        let mut text = Zeroizing::new(String::with_capacity(HEAD.len() + SYMBOLS + 1));
        text.push_str(HEAD);
        text.push_str(&symbols);
        text.push('\n');
        SecretText::from(text.as_str())
    }

    pub(super) fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }

    pub(super) fn key(&self) -> &Key {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{exposed, vector};
    use super::*;

    const VECTOR: &str = include_str!("../../tests/vectors/key_file.txt");

    #[test]
    fn the_golden_key_file_is_written_and_read_byte_for_byte() {
        let text = vector(VECTOR, "key_file");
        let file = KeyFile::parse(&text).unwrap();
        let mut key = Vec::new();
        file.key().append_to(&mut key);
        assert_eq!(key, vector(VECTOR, "key"));
        assert_eq!(exposed(&file.to_text()).as_bytes(), text);
    }

    #[test]
    fn white_space_around_the_line_does_not_matter_and_within_it_does() {
        let text = String::from_utf8(vector(VECTOR, "key_file")).unwrap();
        let line = text.trim();
        let parse = |text: String| KeyFile::parse(text.as_bytes());
        assert!(parse(line.to_owned()).is_ok());
        assert!(parse(format!("\n  {line}\r\n\n")).is_ok());
        let (start, end) = line.split_at(30);
        for text in [format!("{start}\n{end}"), format!("{start} {end}"), format!("{line}\n{line}")]
        {
            assert!(matches!(parse(text), Err(Error::KeyFileMalformed)));
        }
    }

    #[test]
    fn what_is_no_key_file_is_told_from_a_damaged_one() {
        let text = vector(VECTOR, "key_file");
        for other in [&b""[..], b"tenantry-key-1:", &text[..text.len() - 2], &text[1..]] {
            assert!(matches!(KeyFile::parse(other), Err(Error::KeyFileMalformed)));
        }
        for at in HEAD.len()..text.len() - 1 {
            let mut damaged = text.clone();
            damaged[at] = if damaged[at] == b'q' { b'p' } else { b'q' };
            assert!(matches!(KeyFile::parse(&damaged), Err(Error::KeyFileDamaged)), "{at}");
        }
    }

    #[test]
    fn two_new_key_files_have_two_keys() {
        let text = || KeyFile::generate().unwrap().to_text();
        assert_ne!(exposed(&text()), exposed(&text()));
    }

    #[test]
    fn debug_shows_nothing_of_the_key() {
        let key = Key::fill_with(|key| {
            key.fill(0xab);
            Ok::<_, Error>(())
        });
        let file = KeyFile(key.unwrap());
        let shown = format!("{file:?}").to_lowercase();
        assert!(!shown.contains("ab, ") && !shown.contains("171") && !shown.contains("abab"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            prop_assert!(KeyFile::parse(&bytes).is_err());
            prop_assert!(KeyFile::parse(&[HEAD.as_bytes(), &bytes].concat()).is_err());
        }
    }
}
