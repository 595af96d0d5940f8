//! What the tests of several formats need.

use super::integrity::{IntegrityKey, State};
use super::pairs::{Entry, read_entry};

/// The value called `name` in a vector file.
pub(super) fn vector(file: &str, name: &str) -> Vec<u8> {
    let prefix = format!("{name} = ");
    let hex = file.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap();
    let digit = |digit: u8| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap();
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The key of a vector file.
pub(super) fn vector_key(file: &str) -> IntegrityKey {
    IntegrityKey::new(&vector(file, "integrity_key").try_into().unwrap())
}

/// The entries in a vector file's `entries`.
pub(super) fn vector_entries(file: &str) -> Vec<Entry> {
    let bytes = vector(file, "entries");
    let mut bytes = &bytes[..];
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        entries.push(read_entry(&mut bytes).unwrap().unwrap());
    }
    entries
}

/// The state after commit `number` of a store with the pairs of `entries`.
pub(super) fn state_of(number: u64, key: &IntegrityKey, entries: &[Entry]) -> State {
    let mut state = State { number, ..State::default() };
    for Entry { tree, key: pair_key, value } in entries {
        state.add(key.element(*tree, pair_key, value.as_ref().unwrap()));
    }
    state
}
