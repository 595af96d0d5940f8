//! What the targets in `fuzz/` call. It exists under `--cfg fuzzing` only, so nobody else can.
//!
//! Each function takes what someone who can write the disk could put there, and asserts more than
//! that it does not panic.

use std::io::Cursor;
use std::path::Path;

use super::anchor::{self, Found};
use super::integrity::{IntegrityKey, Manifest, Position, STORE_VERSION, State};
use super::journal::{self, Base};
use super::pairs::{PairsReader, PairsWriter};
use super::{Batch, Error, Tree};

/// A stream of pairs, which is read as it would be written; then a base, which is authenticated.
pub fn pairs(bytes: &[u8]) {
    let _whole = read_pairs(bytes);
    assert!(read_base(bytes).is_err(), "a base was forged");
    let genuine = base();
    let changed = change(&genuine, bytes);
    assert_eq!(read_base(&changed).is_ok(), changed == genuine, "a changed base is read");
}

fn read_pairs(bytes: &[u8]) -> Option<()> {
    let mut reader = PairsReader::new(bytes).ok()?;
    let mut writer = PairsWriter::new(Vec::new()).ok()?;
    while let Some(entry) = reader.next().ok()? {
        let written = match &entry.value {
            Some(value) => writer.put(entry.tree, &entry.key, value),
            None => writer.remove(entry.tree, &entry.key),
        };
        written.expect("what was read can be written");
    }
    let written = writer.finish(reader.manifest()?).expect("what was read can be written");
    assert_eq!(bytes.strip_suffix(reader.into_inner()), Some(&written[..]), "two streams of one");
    Some(())
}

fn read_base(bytes: &[u8]) -> Result<(), Error> {
    let mut base = Base::read(Cursor::new(bytes), Path::new("base"), &key())?;
    while base.next()?.is_some() {}
    Ok(())
}

/// A base of a few pairs.
fn base() -> Vec<u8> {
    let mut writer = PairsWriter::new(Vec::new()).expect("memory takes it");
    let mut state = State { number: 3, ..State::default() };
    for tree in Tree::ALL {
        writer.put(tree, b"key", &[1; 40]).expect("memory takes it");
        state.add(key().element(tree, b"key", &[1; 40]));
    }
    let manifest = Manifest { state, chain: [2; 32], store_version: STORE_VERSION };
    writer.finish(&manifest.encode_with_salt(&key(), &[3; 16])).expect("memory takes it")
}

/// A segment of the journal: the bytes, and a genuine one of three commits, changed by them.
pub fn journal(bytes: &[u8]) {
    assert!(journal::fuzzing::scan(bytes, &key()).is_none(), "a frame was forged");
    let start = Manifest { state: State::default(), chain: [4; 32], store_version: STORE_VERSION };
    let mut batch = Batch::default();
    batch.put(Tree::Tenant, *b"key", vec![5; 60]);
    batch.remove(Tree::Token, *b"removed");
    let (genuine, commits) = journal::fuzzing::segment(&key(), &start, &[&batch, &batch, &batch]);
    let changed = change(&genuine, bytes);
    let newest = journal::fuzzing::scan(&changed, &key());
    if let Some(newest) = newest {
        assert!(newest == start || commits.contains(&newest), "a changed frame is read");
    }
    if changed == genuine {
        assert_eq!(newest.as_ref(), commits.last());
    }
}

/// A manifest: the bytes, and a genuine one changed by them.
pub fn manifest(bytes: &[u8]) {
    assert!(Manifest::decode(&key(), bytes).is_err(), "a manifest was forged");
    let state = State { number: 6, counts: [1, 2, 3], ..State::default() };
    let manifest = Manifest { state, chain: [7; 32], store_version: STORE_VERSION };
    let genuine = manifest.encode_with_salt(&key(), &[8; 16]);
    let changed = change(&genuine, bytes);
    let decoded = Manifest::decode(&key(), &changed);
    assert_eq!(decoded == Ok(manifest), changed == genuine, "a changed manifest is read");
    assert!(decoded.is_err() || changed == genuine);
}

/// An anchor: the bytes, and a genuine one changed by them.
pub fn anchor(bytes: &[u8]) {
    assert_eq!(anchor::decode(&key(), bytes), Found::Damaged, "an anchor was forged");
    let values = [8, 9].map(|number| Position { number, chain: [9; 32] });
    let genuine = values.map(|value| anchor::encode(&key(), &value)).concat();
    let changed = change(&genuine, bytes);
    let found = anchor::decode(&key(), &changed);
    if let Found::Value { value, is_whole } = found {
        assert!(values.contains(&value), "a changed anchor is read");
        // A slot of zeros was never written.
        let is_zero = |slot: &[u8]| slot.iter().all(|byte| *byte == 0);
        assert!(!is_whole || changed == genuine || changed.chunks(4096).any(is_zero));
    }
    let newest = Found::Value { value: values[1], is_whole: true };
    assert!(changed != genuine || found == newest);
}

/// `genuine`, with its bytes changed by those of `change`, and shorter the more there are.
fn change(genuine: &[u8], change: &[u8]) -> Vec<u8> {
    let mut changed = genuine.to_vec();
    for (byte, change) in changed.iter_mut().zip(change) {
        *byte ^= change;
    }
    let cut = change.len().saturating_sub(genuine.len()) / 16;
    changed.truncate(changed.len().saturating_sub(cut));
    changed
}

fn key() -> IntegrityKey {
    IntegrityKey::new(&[1; IntegrityKey::LENGTH])
}
