//! The number of the newest commit, beside the journal and the engine.
//!
//! ```text
//! slot = magic ‖ layout ‖ number ‖ chain ‖ MAC ‖ zeros            4 KiB
//! file = slot of the even numbers ‖ slot of the odd numbers       8 KiB
//! ```
//!
//! Two slots are written in turn, so that the one before is whole while the next is written. The
//! anchor repairs nothing; it shows that a journal or an engine is older than what was acknowledged.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::directory::replace;
use super::integrity::{Fields, IntegrityKey, MAC_LENGTH, Position, Purpose};

const MAGIC: [u8; 4] = *b"MVAN";
const LAYOUT: u8 = 1;
/// What a disk, or a page of memory, writes as a whole.
const SLOT: usize = 4 << 10;
const SLOTS: usize = 2;
const CONTENT: usize = 4 + 1 + 8 + MAC_LENGTH;

/// The anchor of a store that is open.
#[derive(Debug)]
pub(super) struct Anchor {
    file: File,
    path: PathBuf,
    key: IntegrityKey,
}

/// What an anchor says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// There is no such file.
    Missing,
    /// Nothing in it is authentic.
    Damaged,
    /// The newest of its slots that are authentic.
    Value {
        value: Position,
        /// Whether everything else in the file is as it was written. A slot that was being written
        /// when the power failed is not, nor is one that was altered.
        is_whole: bool,
    },
}

impl Anchor {
    /// Makes the anchor at `path` say `value` and nothing else, in the place of what is there: after
    /// a crash it says the one or the other.
    pub(super) fn create(path: &Path, key: &IntegrityKey, value: &Position) -> Result<Self, Error> {
        let mut bytes = vec![0; SLOTS * SLOT];
        let at = slot_of(value.number) * SLOT;
        bytes[at..at + SLOT].copy_from_slice(&encode(key, value));
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            let source = io::ErrorKind::InvalidInput.into();
            return Err(Error::Io { action: format!("write {}", path.display()), source });
        };
        replace(directory, &name.to_string_lossy(), &bytes)?;
        Self::open(path, key)
    }

    /// Opens the anchor at `path`, to write it. What it says, [`read`] tells.
    pub(super) fn open(path: &Path, key: &IntegrityKey) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(Error::io(format!("open {}", path.display())))?;
        Ok(Self { file, path: path.to_owned(), key: key.clone() })
    }

    /// Makes it say `value`, durably. After a crash it says this, or what it said before if that was
    /// the number before.
    pub(super) fn write(&mut self, value: &Position) -> Result<(), Error> {
        let at = (slot_of(value.number) * SLOT) as u64;
        self.file
            .write_all_at(&encode(&self.key, value), at)
            .and_then(|()| self.file.sync_data())
            .map_err(Error::io(format!("write {}", self.path.display())))
    }
}

/// What the anchor at `path` says.
pub(super) fn read(path: &Path, key: &IntegrityKey) -> Result<Found, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(source) => {
            return Err(Error::Io { action: format!("read {}", path.display()), source });
        }
    };
    let mut bytes = Vec::new();
    file.take(1 + (SLOTS * SLOT) as u64)
        .read_to_end(&mut bytes)
        .map_err(Error::io(format!("read {}", path.display())))?;
    Ok(decode(key, &bytes))
}

pub(super) fn encode(key: &IntegrityKey, value: &Position) -> [u8; SLOT] {
    let mut content = [0; CONTENT];
    content[..4].copy_from_slice(&MAGIC);
    content[4] = LAYOUT;
    content[5..13].copy_from_slice(&value.number.to_be_bytes());
    content[13..].copy_from_slice(&value.chain);
    let mut slot = [0; SLOT];
    slot[..CONTENT].copy_from_slice(&content);
    let mac = key.mac(Purpose::Anchor, &[&content]);
    slot[CONTENT..CONTENT + MAC_LENGTH].copy_from_slice(&mac);
    slot
}

pub(super) fn decode(key: &IntegrityKey, bytes: &[u8]) -> Found {
    let (slots, _) = bytes.as_chunks::<SLOT>();
    let values = slots.iter().take(SLOTS).enumerate();
    let values = values.filter_map(|(at, slot)| decode_slot(key, at, slot));
    let Some(value) = values.max_by_key(|value| value.number) else { return Found::Damaged };
    // The other slot is the number before, or was not written yet.
    let other = slots.get(1 - slot_of(value.number));
    let is_whole = bytes.len() == SLOTS * SLOT
        && other.is_some_and(|slot| {
            let before = decode_slot(key, 1 - slot_of(value.number), slot);
            before.is_some_and(|before| before.number.checked_add(1) == Some(value.number))
                || *slot == [0; SLOT]
        });
    Found::Value { value, is_whole }
}

fn decode_slot(key: &IntegrityKey, at: usize, slot: &[u8; SLOT]) -> Option<Position> {
    let (content, rest) = slot.split_at(CONTENT);
    let (mac, padding) = rest.split_at(MAC_LENGTH);
    let mut fields = Fields(content);
    let (magic, layout): ([u8; 4], [u8; 1]) = (fields.take(), fields.take());
    let value = Position { number: fields.u64(), chain: fields.take() };
    let is_authentic = magic == MAGIC
        && layout == [LAYOUT]
        && slot_of(value.number) == at
        && *padding == [0; SLOT - CONTENT - MAC_LENGTH]
        && key.is_mac(mac, Purpose::Anchor, &[content]);
    is_authentic.then_some(value)
}

fn slot_of(number: u64) -> usize {
    usize::from(number % 2 == 1)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::{vector, vector_key};
    use super::*;

    const VECTOR: &str = include_str!("../../tests/vectors/anchor.txt");

    fn key() -> IntegrityKey {
        IntegrityKey::new(&[7; 32])
    }

    fn at(number: u64) -> Position {
        Position { number, chain: [number.to_be_bytes()[7]; MAC_LENGTH] }
    }

    fn whole(number: u64) -> Found {
        Found::Value { value: at(number), is_whole: true }
    }

    fn in_part(number: u64) -> Found {
        Found::Value { value: at(number), is_whole: false }
    }

    /// A file that says `numbers`, one after another.
    fn bytes_of(numbers: &[u64]) -> Vec<u8> {
        let mut bytes = vec![0; SLOTS * SLOT];
        for number in numbers {
            let begin = slot_of(*number) * SLOT;
            bytes[begin..begin + SLOT].copy_from_slice(&encode(&key(), &at(*number)));
        }
        bytes
    }

    #[test]
    fn the_golden_anchor_is_written_and_read_byte_for_byte() {
        let key = vector_key(VECTOR);
        let mut file = Vec::new();
        for (number, name, slot) in
            [(258, "chain_258", "slot_even"), (259, "chain_259", "slot_odd")]
        {
            let chain = vector(VECTOR, name).try_into().unwrap();
            let mut expected = vector(VECTOR, slot);
            expected.resize(SLOT, 0);
            assert_eq!(encode(&key, &Position { number, chain }).to_vec(), expected);
            file.extend(expected);
            let Found::Value { value, .. } = decode(&key, &file) else { panic!("{name}") };
            assert_eq!(value, Position { number, chain });
        }
    }

    #[test]
    fn an_anchor_says_the_last_number_that_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("anchor");
        assert_eq!(read(&path, &key()).unwrap(), Found::Missing);
        let mut anchor = Anchor::create(&path, &key(), &at(0)).unwrap();
        assert_eq!(read(&path, &key()).unwrap(), whole(0));
        for number in 1..5 {
            anchor.write(&at(number)).unwrap();
            assert_eq!(read(&path, &key()).unwrap(), whole(number));
            anchor = Anchor::open(&path, &key()).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), bytes_of(&[3, 4]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        // Put in its place, it may say less.
        Anchor::create(&path, &key(), &at(3)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes_of(&[3]));
        assert!(!directory.path().join("anchor.new").exists());
    }

    #[test]
    fn a_slot_that_was_being_written_leaves_the_one_before() {
        for length in (0..100).chain(SLOT - 1..SLOT) {
            let mut torn = bytes_of(&[6, 7]);
            torn[..length].copy_from_slice(&encode(&key(), &at(8))[..length]);
            let found = decode(&key(), &torn);
            // Where it ends in the zeros, all of it is there.
            let is_there = length >= CONTENT + MAC_LENGTH;
            let is_begun = length > 12;
            let expected = match (is_there, is_begun) {
                (true, _) => whole(8),
                (false, true) => in_part(7),
                (false, false) => whole(7),
            };
            assert_eq!(found, expected, "{length}");
        }
    }

    #[test]
    fn every_flipped_bit_every_cut_and_another_key_is_noticed() {
        let bytes = bytes_of(&[6, 7]);
        // Of the zeros, every seventh bit.
        let is_tried = |bit: &usize| bit / 8 % SLOT < CONTENT + MAC_LENGTH || bit.is_multiple_of(7);
        for bit in (0..8 * bytes.len()).filter(is_tried) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit / 8 < SLOT { in_part(7) } else { in_part(6) };
            assert_eq!(decode(&key(), &flipped), expected, "bit {bit}");
        }
        for length in (0..100).chain(SLOT - 3..SLOT + 100).chain(2 * SLOT - 3..2 * SLOT) {
            let expected = if length < SLOT { Found::Damaged } else { in_part(6) };
            assert_eq!(decode(&key(), &bytes[..length]), expected, "{length}");
        }
        assert_eq!(decode(&key(), &[&bytes[..], &[0]].concat()), in_part(7));
        assert_eq!(decode(&IntegrityKey::new(&[8; 32]), &bytes), Found::Damaged);
        assert_eq!(decode(&key(), &[0; SLOTS * SLOT]), Found::Damaged);
    }

    #[test]
    fn an_older_slot_and_one_in_the_other_ones_place_are_noticed() {
        let mut mixed = bytes_of(&[6, 9]);
        assert_eq!(decode(&key(), &mixed), in_part(9));
        let (even, odd) = mixed.split_at_mut(SLOT);
        even.copy_from_slice(odd);
        assert_eq!(decode(&key(), &mixed), in_part(9));
        mixed[SLOT..].fill(0);
        assert_eq!(decode(&key(), &mixed), Found::Damaged);
        assert_eq!(decode(&key(), &bytes_of(&[9])), whole(9));
    }

    #[test]
    fn what_is_missing_or_cannot_be_written_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("anchor");
        let error = Anchor::open(&path, &key()).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert!(matches!(read(directory.path(), &key()), Err(Error::Io { .. })));
        assert!(matches!(Anchor::create(Path::new("/"), &key(), &at(0)), Err(Error::Io { .. })));
    }
}
