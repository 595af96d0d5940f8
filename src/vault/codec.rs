//! Length-prefixed binary: big-endian integers, and strings behind a u32 length.
//!
//! The reader takes hostile bytes: it never panics, never allocates more than what it was given
//! could fill, and is done only when nothing is left over.

use jiff::Timestamp;

/// The bytes are not what a [`Writer`] wrote.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Malformed;

/// Builds a message.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.u8(value.into());
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.raw(&value.to_be_bytes());
    }

    /// Bytes whose length the format knows.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.raw(text.as_bytes());
    }

    /// How many items, or bytes, follow.
    pub(super) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("what is stored came from files of a few MiB"));
    }

    pub(super) fn time(&mut self, time: Timestamp) {
        self.raw(&time.as_second().to_be_bytes());
        self.raw(&time.subsec_nanosecond().to_be_bytes());
    }

    /// A flag, and the value when there is one.
    pub(super) fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Takes a message apart.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn raw(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.count(1)?;
        std::str::from_utf8(self.raw(length)?).map_err(|_| Malformed)
    }

    /// How many items follow, each at least `item_size` bytes: no more than could be there.
    pub(super) fn count(&mut self, item_size: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.u32()?).map_err(|_| Malformed)?;
        if count > self.0.len() / item_size {
            return Err(Malformed);
        }
        Ok(count)
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, Malformed> {
        let seconds = self.array().map(i64::from_be_bytes)?;
        let nanoseconds = self.array().map(i32::from_be_bytes)?;
        let time = Timestamp::new(seconds, nanoseconds).map_err(|_| Malformed)?;
        // jiff carries an excess of nanoseconds over; there shall be one spelling.
        if (time.as_second(), time.subsec_nanosecond()) == (seconds, nanoseconds) {
            Ok(time)
        } else {
            Err(Malformed)
        }
    }

    pub(super) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(super) fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}
