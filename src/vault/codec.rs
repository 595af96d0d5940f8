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
    /// For a message of `length` bytes, which then takes one allocation.
    pub(super) fn with_capacity(length: usize) -> Self {
        Self(Vec::with_capacity(length))
    }

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        write(&mut writer);
        writer.finish()
    }

    #[test]
    fn integers_are_big_endian_and_a_text_stands_behind_its_length() {
        let bytes = written(|writer| {
            writer.u8(0x01);
            writer.flag(true);
            writer.flag(false);
            writer.u16(0x0203);
            writer.u32(0x0405_0607);
            writer.u64(0x0809_0a0b_0c0d_0e0f);
            writer.raw(b"raw");
            writer.text("é");
            writer.optional(Some(7), Writer::u8);
            writer.optional(None, Writer::u8);
        });
        let expected = b"\x01\x01\0\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0fraw\
            \0\0\0\x02\xc3\xa9\x01\x07\0";
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_was_written_is_read_and_nothing_is_left() {
        let time = Timestamp::new(-5, -999_999_999).unwrap();
        let bytes = written(|writer| {
            writer.u8(1);
            writer.flag(true);
            writer.u16(2);
            writer.u32(3);
            writer.u64(4);
            writer.raw(b"raw");
            writer.raw(b"array");
            writer.text("text");
            writer.optional(Some("some"), Writer::text);
            writer.optional(None, Writer::text);
            writer.time(time);
        });
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.flag(), Ok(true));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.u32(), Ok(3));
        assert_eq!(reader.u64(), Ok(4));
        assert_eq!(reader.raw(3), Ok(&b"raw"[..]));
        assert_eq!(reader.array(), Ok(*b"array"));
        assert_eq!(reader.text(), Ok("text"));
        assert_eq!(reader.optional(Reader::text), Ok(Some("some")));
        assert_eq!(reader.optional(Reader::text), Ok(None));
        assert_eq!(reader.time(), Ok(time));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn bytes_that_are_missing_or_left_over_are_malformed() {
        assert_eq!(Reader::new(b"ab").raw(3), Err(Malformed));
        assert_eq!(Reader::new(b"ab").array::<3>(), Err(Malformed));
        assert_eq!(Reader::new(b"").u8(), Err(Malformed));
        assert_eq!(Reader::new(&[0; 7]).u64(), Err(Malformed));
        assert_eq!(Reader::new(b"a").finish(), Err(Malformed));
        assert_eq!(Reader::new(b"").finish(), Ok(()));
    }

    #[test]
    fn a_flag_is_0_or_1() {
        assert_eq!(Reader::new(&[0]).flag(), Ok(false));
        assert_eq!(Reader::new(&[1]).flag(), Ok(true));
        for other in 2..=u8::MAX {
            assert_eq!(Reader::new(&[other]).flag(), Err(Malformed));
            assert_eq!(Reader::new(&[other, 1]).optional(Reader::u8), Err(Malformed));
        }
    }

    #[test]
    fn a_count_is_at_most_what_could_follow() {
        let bytes = |count| {
            written(|writer| {
                writer.count(count);
                writer.raw(&[0; 12]);
            })
        };
        for (count, size, accepted) in [
            (12, 1, true),
            (13, 1, false),
            (3, 4, true),
            (4, 4, false),
            (2, 5, true),
            (3, 5, false),
        ] {
            let read = Reader::new(&bytes(count)).count(size);
            assert_eq!(read, if accepted { Ok(count) } else { Err(Malformed) }, "{count} {size}");
        }
        assert_eq!(Reader::new(&[0xff; 4]).count(1), Err(Malformed));
    }

    #[test]
    fn a_text_is_utf_8_and_no_longer_than_what_is_there() {
        assert_eq!(Reader::new(b"\0\0\0\x02ok").text(), Ok("ok"));
        assert_eq!(Reader::new(b"\0\0\0\x02\xff\xff").text(), Err(Malformed));
        assert_eq!(Reader::new(b"\0\0\0\x03ok").text(), Err(Malformed));
    }

    #[test]
    fn a_time_has_one_spelling() {
        let read = |seconds: i64, nanoseconds: i32| {
            let bytes = [&seconds.to_be_bytes()[..], &nanoseconds.to_be_bytes()].concat();
            Reader::new(&bytes).time()
        };
        assert_eq!(read(5, 999_999_999), Ok(Timestamp::new(5, 999_999_999).unwrap()));
        assert_eq!(read(-5, -1), Ok(Timestamp::new(-5, -1).unwrap()));
        // The same moments with another sign, or more than a second of them.
        for (seconds, nanoseconds) in
            [(5, 1_000_000_000), (6, -1), (-6, 1), (i64::MAX, 0), (i64::MIN, 0)]
        {
            assert_eq!(read(seconds, nanoseconds), Err(Malformed), "{seconds} {nanoseconds}");
        }
    }

    proptest! {
        #[test]
        fn a_time_and_a_text_come_back(seconds in -1_000_000_i64..1 << 36, text in any::<String>()) {
            let time = Timestamp::from_second(seconds).unwrap();
            let bytes = written(|writer| {
                writer.time(time);
                writer.text(&text);
            });
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.time(), Ok(time));
            prop_assert_eq!(reader.text(), Ok(text.as_str()));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }
}
