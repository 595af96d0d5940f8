//! A secret that is text.

use std::fmt;
use std::str::Utf8Error;

use secrecy::{ExposeSecret, SecretBox};

use super::LockedBytes;

/// UTF-8 text in locked memory, wiped when dropped. Not `Clone`, not `Serialize`; `Debug` shows
/// that it is there. Whoever looks at it says so: [`ExposeSecret::expose_secret`].
pub struct SecretText(SecretBox<LockedBytes>);

/// Writes a [`SecretText`] piece by piece, into the one buffer that it stays in.
#[derive(Debug)]
pub struct SecretTextBuilder {
    buffer: LockedBytes,
    length: usize,
}

impl SecretText {
    /// Whether it has no characters at all, which is no secret.
    pub fn is_empty(&self) -> bool {
        self.length() == 0
    }

    /// Length in bytes.
    pub fn length(&self) -> usize {
        self.bytes().len()
    }

    #[expect(clippy::disallowed_methods, reason = "the one way to the buffer")]
    fn bytes(&self) -> &LockedBytes {
        self.0.expose_secret()
    }
}

impl ExposeSecret<str> for SecretText {
    fn expose_secret(&self) -> &str {
        std::str::from_utf8(self.bytes()).expect("only text gets in, and nothing changes it")
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(SecretBox::new(Box::new(LockedBytes::copy_of(text.as_bytes()))))
    }
}

impl TryFrom<LockedBytes> for SecretText {
    type Error = Utf8Error;

    /// Takes the buffer over, without a copy.
    fn try_from(bytes: LockedBytes) -> Result<Self, Utf8Error> {
        std::str::from_utf8(&bytes)?;
        Ok(Self(SecretBox::new(Box::new(bytes))))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText([REDACTED])")
    }
}

impl SecretTextBuilder {
    /// Room for `capacity` bytes and no more.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { buffer: LockedBytes::zeroed(capacity), length: 0 }
    }

    /// Appends `text`.
    ///
    /// # Panics
    ///
    /// When it does not fit.
    pub fn push_str(&mut self, text: &str) {
        let end = self.length + text.len();
        self.buffer[self.length..end].copy_from_slice(text.as_bytes());
        self.length = end;
    }

    /// Appends `character`.
    ///
    /// # Panics
    ///
    /// When it does not fit.
    pub fn push(&mut self, character: char) {
        // Encoded in place: a small array on the stack would be one more copy.
        self.length += character.encode_utf8(&mut self.buffer[self.length..]).len();
    }

    /// The text that was written.
    pub fn finish(mut self) -> SecretText {
        self.buffer.truncate(self.length);
        SecretText(SecretBox::new(Box::new(self.buffer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the test compares what came back")]
    fn exposed(text: &SecretText) -> &str {
        text.expose_secret()
    }

    #[test]
    fn text_comes_back_and_debug_shows_none_of_it() {
        let text = SecretText::from("pässword");
        assert_eq!(exposed(&text), "pässword");
        assert_eq!(format!("{text:?}"), "SecretText([REDACTED])");
        assert_eq!((text.length(), text.is_empty()), (9, false));
        assert!(SecretText::from("").is_empty());
    }

    #[test]
    fn bytes_become_text_only_if_they_are() {
        let text = SecretText::try_from(LockedBytes::copy_of("pässword".as_bytes())).unwrap();
        assert_eq!(exposed(&text), "pässword");
        assert!(SecretText::try_from(LockedBytes::copy_of(b"p\xe4ssword")).is_err());
    }

    #[test]
    fn a_builder_fills_its_room_and_not_more() {
        let mut builder = SecretTextBuilder::with_capacity(6);
        builder.push('ä');
        builder.push_str("bc");
        builder.push('ö');
        assert_eq!(exposed(&builder.finish()), "äbcö");

        let mut builder = SecretTextBuilder::with_capacity(6);
        builder.push_str("bc");
        assert_eq!(exposed(&builder.finish()), "bc");

        let overfull = std::panic::catch_unwind(|| {
            let mut builder = SecretTextBuilder::with_capacity(1);
            builder.push('ä');
        });
        assert!(overfull.is_err());
    }
}
