//! What the targets in `fuzz/` call. It exists under `--cfg fuzzing` only, so nobody else can.
//!
//! Each function takes what someone who can write the disk could put there, and asserts more than
//! that it does not panic.

use std::sync::Arc;

use super::bech32;
use super::envelope::{self, MAX_PAYLOAD, Place, RecordKind};
use super::header::Header;
use super::key::Key;
use super::key_file::KeyFile;
use super::keyring::{self, Keyring, Term, TermState};
use super::shares::{self, Share};
use super::{Handle, StoreId, TenantKeys, Uuid};
use crate::memory::SecretText;

const STORE: StoreId = StoreId([1; 16]);

/// A header, which is parsed before anything of it is authenticated.
pub fn header(bytes: &[u8]) {
    drop(Header::parse(bytes));
}

/// A keyring, and the content of one that was sealed.
pub fn keyring(bytes: &[u8]) {
    assert!(Keyring::open(bytes, STORE, &key(2), &key(6)).is_err(), "a keyring was forged");
    keyring::decode(bytes, &key(6));
}

/// An envelope: the first half of the bytes is one as a whole, or changes a genuine one, whose
/// payload is the second half.
pub fn envelope(bytes: &[u8]) {
    let term = Term { number: 1, state: TermState::Active, key: Arc::new(key(3)) };
    let Ok(keys) = TenantKeys::new(Uuid([4; 16]), Handle([5; 16]), vec![term]) else {
        unreachable!("one term is active");
    };
    let store_key = b"store key";
    let kind = RecordKind::Credential;
    let place = Place { store_id: STORE, kind, field: 2, version: 3, key: store_key };
    let (change, payload) = bytes.split_at(bytes.len() / 2);
    assert!(envelope::open(&keys, &place, change).is_err(), "an envelope was forged");

    let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
    let sealed = envelope::seal(&keys, &place, payload).expect("there are random bytes");
    let opened = envelope::open(&keys, &place, &sealed);
    assert_eq!(*opened.expect("it is genuine"), *payload);

    let mut changed = sealed.clone();
    for (byte, change) in changed.iter_mut().zip(change) {
        *byte ^= change;
    }
    changed.truncate(changed.len().saturating_sub(change.len() / 512));
    let opens = envelope::open(&keys, &place, &changed).is_ok();
    assert_eq!(opens, changed == sealed, "a changed envelope opens");
}

/// Text as a share, and bytes as what a share with a correct checksum says; then all such shares.
pub fn shares(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        read_share(text);
    }
    let texts = bytes.chunks_exact(43).map(|bytes| {
        let symbols = bech32::encode("tenantry-share", bytes);
        format!("tenantry-share-1{}", symbols.as_str())
    });
    let shares: Vec<Share> = texts.filter_map(|text| read_share(&text)).collect();
    drop(shares::combine(&shares));
}

fn read_share(text: &str) -> Option<Share> {
    let share = Share::parse(text).ok()?;
    let written = share.to_text();
    let again = Share::parse(exposed(&written)).expect("what was written is read");
    assert_eq!(exposed(&again.to_text()), exposed(&written));
    let compact = |text: &str| {
        let kept = |character: &char| !character.is_ascii_whitespace() && *character != '-';
        text.chars().filter(kept).collect::<String>().to_ascii_lowercase()
    };
    assert_eq!(compact(text), compact(exposed(&written)), "two texts of one share");
    Some(share)
}

/// Bytes as a key file, and as its key.
pub fn key_file(bytes: &[u8]) {
    if let Ok(file) = KeyFile::parse(bytes) {
        let written = file.to_text();
        let same = exposed(&written).trim_end().as_bytes().eq_ignore_ascii_case(bytes.trim_ascii());
        assert!(same, "two texts of one key");
    }
    let symbols = bech32::encode("tenantry-key", bytes);
    let parsed = KeyFile::parse(format!("tenantry-key-1:{}", symbols.as_str()).as_bytes());
    assert_eq!(parsed.is_ok(), bytes.len() == Key::LENGTH);
}

fn key(byte: u8) -> Key {
    let key = Key::fill_with(|key| {
        key.fill(byte);
        Ok::<_, std::convert::Infallible>(())
    });
    match key {
        Ok(key) => key,
    }
}

#[expect(clippy::disallowed_methods, reason = "what was written is compared with what was read")]
fn exposed(text: &SecretText) -> &str {
    secrecy::ExposeSecret::expose_secret(text)
}
