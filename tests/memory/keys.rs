//! The keys of a vault, computed from its files and from what opens them as docs/format.md says, so
//! that the vault itself need not give them away.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::path::Path;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, Nonce, Tag};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// What might open a slot.
pub(crate) enum Opener {
    Passphrase(Vec<u8>),
    /// Of any other kind of slot.
    Kek(Vec<u8>),
}

/// Something that gives the vault, or a part of it, away.
#[derive(Clone)]
pub(crate) struct Secret {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Whether a vault that is unsealed, and does nothing else, needs it.
    pub(crate) is_held: bool,
}

impl Secret {
    pub(crate) fn new(name: impl Into<String>, bytes: &[u8], is_held: bool) -> Self {
        Self { name: name.into(), bytes: bytes.to_vec(), is_held }
    }
}

/// Every key that `openers` lead to, and every block of memory that Argon2id fills for them, also
/// for those that open no slot. The tenants are called `ids`.
pub(crate) fn of(data: &Path, openers: &[Opener], ids: &[&str]) -> Vec<Secret> {
    let file = fs::read(data.join("header")).unwrap();
    let mut header = Reader(&file);
    assert_eq!(header.take(5), b"MVHD\x02");
    let slots = header.number(1);
    header.take(8);
    let store = header.take(16);
    header.take(2);

    let mut secrets = Vec::new();
    let mut root = None;
    for _ in 0..slots {
        let length = header.number(2);
        let mut slot = Reader(header.take(length));
        let parameters = slot.take(length - 80);
        let [commitment, wrapped, tag] = [32, 32, 16].map(|length| slot.take(length));
        let salt = &parameters[parameters.len() - 24..parameters.len() - 8];
        let place = [b"mcpv.slot.v1\0", store, parameters].concat();
        for opener in openers {
            let kek = match opener {
                Opener::Passphrase(passphrase) if parameters[0] == 1 => {
                    let (kek, blocks) = argon2(passphrase, salt, &parameters[4..16]);
                    secrets.extend(blocks.iter().map(|block| Secret::new("block", block, false)));
                    kek
                }
                Opener::Kek(kek) if parameters[0] != 1 => kek.clone(),
                Opener::Passphrase(_) | Opener::Kek(_) => continue,
            };
            if commits(&kek, salt, &place, commitment) {
                root = Some(open(&kek, salt, &place, wrapped, tag));
            }
            secrets.push(Secret::new("KEK", &kek, false));
        }
    }
    let root = root.expect("one of the openers opens a slot");
    let wrapping = expand(&root, b"mcpv.headerkeys.v1", 32);
    let mut keyring_key = Vec::new();
    for _ in 0..header.number(1) {
        let purpose = header.take(1);
        let [salt, _, wrapped, tag] = [32, 32, 32, 16].map(|length| header.take(length));
        let place = [b"mcpv.headerkey.v1\0", store, purpose].concat();
        let key = open(&wrapping, salt, &place, wrapped, tag);
        let name = ["", "keyring", "previous keyring", "tenant seal"][usize::from(purpose[0])];
        secrets.push(Secret::new(name, &key, name == "keyring"));
        if name == "keyring" {
            keyring_key = key;
        }
    }
    secrets.push(Secret::new("header MAC", &expand(&root, b"mcpv.header.v1", 32), false));
    secrets.push(Secret::new("wrapping", &wrapping, false));
    secrets.push(Secret::new("root", &root, false));
    secrets.extend(of_keyring(data, &keyring_key, ids));
    secrets
}

fn of_keyring(data: &Path, key: &[u8], ids: &[&str]) -> Vec<Secret> {
    let file = fs::read(data.join("keyring")).unwrap();
    assert_eq!(file[..5], *b"MVKR\x04");
    let end = file.len() - 16;
    let place = [b"mcpv.keyring.v1\0", &file[..29]].concat();
    let content = open(key, &file[29..61], &place, &file[97..end], &file[end..]);

    let mut content = Reader(&content);
    let mut index = content.take(32);
    let mut secrets = vec![Secret::new("index", index, true)];
    for name in ["lookup", "fingerprint", "signing"] {
        secrets.push(Secret::new(name, content.take(32), true));
    }
    // Of the store, which stays open: it opens nothing.
    content.take(32);
    if content.number(1) == 1 {
        index = content.take(32);
        secrets.push(Secret::new("next index", index, true));
    }
    for _ in 0..content.number(4) {
        content.take(16);
        let handle = content.take(16);
        // The digest of the id.
        content.take(16);
        if content.number(1) == 1 {
            content.take(16);
        }
        let owner = ids.iter().find(|id| mac(index, &[b"t\0", id.as_bytes()])[..16] == *handle);
        let owner = owner.map_or("system", |id| id);
        for _ in 0..content.number(4) {
            let number = content.number(4);
            content.take(1);
            secrets.push(Secret::new(format!("{owner}.{number}"), content.take(32), true));
        }
    }
    secrets
}

/// The key that wraps another, and every block of memory that it comes from.
fn argon2(passphrase: &[u8], salt: &[u8], cost: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut cost = Reader(cost);
    let [memory, passes, lanes] = [(); 3].map(|()| u32::try_from(cost.number(4)).unwrap());
    let params = Params::new(memory, passes, lanes, Some(32)).unwrap();
    let mut blocks = vec![Block::new(); params.block_count()];
    let mut kek = vec![0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(passphrase, salt, &mut kek, &mut blocks)
        .unwrap();
    let bytes = |block: &Block| block.as_ref().iter().flat_map(|word| word.to_ne_bytes()).collect();
    (kek, blocks.iter().map(bytes).collect())
}

fn commits(key: &[u8], salt: &[u8], place: &[u8], commitment: &[u8]) -> bool {
    expand(key, &[b"mcpv.commit.v1", salt, &32_u32.to_be_bytes(), place].concat(), 32) == commitment
}

fn open(key: &[u8], salt: &[u8], place: &[u8], sealed: &[u8], tag: &[u8]) -> Vec<u8> {
    let length = u32::try_from(sealed.len()).unwrap().to_be_bytes();
    let derived = expand(key, &[b"mcpv.key.v1", salt, &length, place].concat(), 44);
    let cipher = ChaCha20Poly1305::new_from_slice(&derived[..32]).unwrap();
    let (nonce, tag) = (Nonce::try_from(&derived[32..]).unwrap(), Tag::try_from(tag).unwrap());
    let mut message = sealed.to_vec();
    cipher.decrypt_inout_detached(&nonce, place, message.as_mut_slice().into(), &tag).unwrap();
    message
}

fn expand(key: &[u8], info: &[u8], length: usize) -> Vec<u8> {
    let mut output = vec![0; length];
    Hkdf::<Sha256>::from_prk(key).unwrap().expand(info, &mut output).unwrap();
    output
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        self.0.split_off(..length).expect("the file is whole")
    }

    fn number(&mut self, length: usize) -> usize {
        self.take(length).iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
    }
}
