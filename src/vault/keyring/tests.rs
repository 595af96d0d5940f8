use super::super::tests::{id, vector};
use super::*;

const VECTOR_1: &str = include_str!("../../../tests/vectors/keyring.txt");
const VECTOR: &str = include_str!("../../../tests/vectors/keyring_2.txt");

fn fixed(byte: u8) -> Key {
    Key::fill_with(|key| {
        key.fill(byte);
        Ok::<_, Malformed>(())
    })
    .unwrap()
}

fn key(file: &str, name: &str) -> Key {
    Key::fill_with(|key| {
        key.copy_from_slice(&vector(file, name));
        Ok::<_, Malformed>(())
    })
    .unwrap()
}

fn same(one: &Key, other: &Key) -> bool {
    one.mac(&[]) == other.mac(&[])
}

fn store_id() -> StoreId {
    StoreId(vector(VECTOR, "store_id").try_into().unwrap())
}

fn open_1(bytes: &[u8]) -> Result<(Keyring, bool), Error> {
    let root = key(VECTOR_1, "root_key");
    Keyring::open(bytes, store_id(), &root.derive("mcpv.keyring.v1"), &root)
}

fn open(bytes: &[u8]) -> Result<(Keyring, bool), Error> {
    Keyring::open(bytes, store_id(), &key(VECTOR, "keyring_key"), &fixed(0))
}

fn term(number: u32, state: TermState, byte: u8) -> Term {
    Term { number, state, key: Arc::new(fixed(byte)) }
}

#[test]
fn the_golden_keyring_opens_and_is_written_byte_for_byte() {
    let bytes = vector(VECTOR, "keyring");
    let (mut keyring, is_outdated) = open(&bytes).unwrap();
    assert!(!is_outdated);
    assert_eq!(keyring.generation, 8);
    assert_eq!(content::encode(&keyring).as_slice(), vector(VECTOR, "content"));
    let salt = vector(VECTOR, "salt").try_into().unwrap();
    assert_eq!(keyring.encode(store_id(), &key(VECTOR, "keyring_key"), salt), bytes);

    let moving = keyring.get(Handle([0x53; 16])).unwrap();
    assert_eq!(moving.next_handle, Some(Handle([0x56; 16])));
    assert_eq!((moving.active().number, moving.is_settled()), (2, false));
    assert!(same(&moving.opening(1).unwrap().key, &fixed(0x54)));
    for (one, byte) in [
        (&keyring.index, 0x41),
        (&keyring.lookup, 0x42),
        (&keyring.fingerprint, 0x43),
        (&keyring.signing, 0x44),
        (keyring.next_index.as_ref().unwrap(), 0x45),
    ] {
        assert!(same(one, &fixed(byte)));
    }
    assert!(keyring.is_removed(Handle([0x62; 16])));
    let sealed: Vec<_> = keyring.sealed().map(|tenant| tenant.id.clone()).collect();
    assert_eq!(sealed, [id("sealed01")]);
    let wrong = keyring.clone().unseal_tenant(store_id(), &id("sealed01"), &fixed(1));
    assert!(matches!(wrong, Err(Error::KeyringDamaged)));
    let seal_key = key(VECTOR, "tenant_seal_key");
    let keys = keyring.unseal_tenant(store_id(), &id("sealed01"), &seal_key).unwrap();
    assert_eq!((keys.handle, keys.active().number), (Handle([0x58; 16]), 4));
    assert!(same(&keys.active().key, &fixed(0x59)));
    assert_eq!(keyring.sealed().count(), 0);
}

#[test]
fn the_golden_keyring_of_version_1_opens_with_what_was_derived_from_the_root_key() {
    let (keyring, is_outdated) = open_1(&vector(VECTOR_1, "keyring")).unwrap();
    assert!(is_outdated);
    assert_eq!(keyring.generation, 7);
    let root = key(VECTOR_1, "root_key");
    assert!(same(&keyring.index, &root.derive("mcpv.index.v1")));
    assert!(same(&keyring.lookup, &root.derive("mcpv.index.v1")));
    assert!(same(&keyring.fingerprint, &root.derive("mcpv.fingerprint.v1")));
    let keys = keyring.get(Handle([0x53; 16])).unwrap();
    assert_eq!(keys.active().number, 2);
    assert!(same(&keys.opening(1).unwrap().key, &fixed(0x54)));
    assert_eq!((keyring.entries().count(), keyring.sealed().count()), (2, 0));
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_keyring_is_refused_by_name() {
    for (bytes, open) in
        [(vector(VECTOR, "keyring"), open as fn(&[u8]) -> _), (vector(VECTOR_1, "keyring"), open_1)]
    {
        assert!(open(&bytes).is_ok());
        let check = |bytes: &[u8], what: String| {
            let error = open(bytes).err().unwrap();
            assert!(
                matches!(error, Error::KeyringDamaged | Error::UnsupportedVersion("keyring")),
                "{what}: {error:?}"
            );
        };
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            check(&flipped, format!("bit {bit}"));
        }
        for length in 0..bytes.len() {
            check(&bytes[..length], format!("{length} bytes"));
        }
        check(&[&bytes[..], &[0]].concat(), "a byte more".to_owned());
    }
}

#[test]
fn every_truncation_of_the_content_is_refused_though_it_was_sealed() {
    for (content, decode) in [
        (vector(VECTOR, "content"), (|bytes| content::decode(1, bytes)) as fn(&[u8]) -> _),
        (vector(VECTOR_1, "content"), |bytes| content::decode_1(1, bytes, &fixed(0))),
    ] {
        assert!(decode(&content).is_ok());
        for length in 0..content.len() {
            assert!(decode(&content[..length]).is_err(), "{length} bytes");
        }
        assert!(decode(&[&content[..], &[0]].concat()).is_err());
    }
}

#[test]
fn a_content_that_nobody_writes_is_refused() {
    let golden = vector(VECTOR, "content");
    let changed = |at: usize, to: &[u8]| {
        let mut content = golden.clone();
        content[at..at + to.len()].copy_from_slice(to);
        content::decode(1, &content)
    };
    // Where parts begin: 4 keys, flag and next index, count of entries, the system's entry.
    let (flag, system, second) = (128, 165, 239);
    assert!(changed(flag, &[1]).is_ok());
    assert!(changed(flag, &[2]).is_err());
    assert!(changed(system, &[1]).is_err(), "no system");
    assert!(changed(second, &[0; 16]).is_err(), "a uuid twice");
    assert!(changed(second + 16, &[0; 16]).is_err(), "handles out of order");
    assert!(changed(second + 32, &[2]).is_err(), "a flag of 2");
    let sealed = second + 33 + 16 + 4 + 2 * 37 + 4;
    assert_eq!(golden[sealed..sealed + 16], [0x57; 16]);
    assert!(changed(sealed + 16, &[0x53; 16]).is_err(), "sealed and open at once");
    assert!(changed(sealed + 36, b"!").is_err(), "not a tenant id");
}

#[test]
fn a_keyring_of_another_vault_or_under_another_key_does_not_open() {
    let bytes = vector(VECTOR, "keyring");
    let key = key(VECTOR, "keyring_key");
    let foreign = Keyring::open(&bytes, StoreId([0; 16]), &key, &fixed(0));
    assert!(matches!(foreign, Err(Error::KeyringDamaged)));
    let other = Keyring::open(&bytes, store_id(), &fixed(1), &fixed(0));
    assert!(matches!(other, Err(Error::KeyringDamaged)));
}

#[test]
fn a_revoked_term_opens_nothing_and_each_tenant_has_one_active_term() {
    let keys = |terms| TenantKeys::new(Uuid([1; 16]), Handle([1; 16]), terms);
    let term = |number, state| term(number, state, 1);
    let revoked = vec![term(1, TermState::Revoked), term(2, TermState::Active)];
    assert!(keys(revoked).unwrap().opening(1).is_none());
    assert!(keys(vec![]).is_err());
    assert!(keys(vec![term(1, TermState::Retained)]).is_err());
    assert!(keys(vec![term(1, TermState::Active), term(2, TermState::Active)]).is_err());
    assert!(keys(vec![term(2, TermState::Retained), term(1, TermState::Active)]).is_err());
}

#[test]
fn a_new_term_seals_the_former_ones_open_and_at_last_only_the_new_one_is_left() {
    let mut keyring = Keyring::create().unwrap();
    let handle = keyring.handle(&id("tenant001"));
    keyring.get_or_create(handle).unwrap();
    keyring.add_term(handle).unwrap();
    let keys = keyring.add_term(handle).unwrap();
    assert_eq!((keys.active().number, keys.superseded()), (3, 2));
    assert!(keys.opening(1).is_some() && keys.opening(2).is_some());
    let last = keys.with_active_term_only();
    assert!(last.is_settled() && last.opening(2).is_none());
    assert!(same(&last.active().key, &keys.active().key));
}

#[test]
fn tenants_move_to_handles_of_the_next_index_and_newcomers_begin_there() {
    let mut keyring = Keyring::create().unwrap();
    let (mover, newcomer) = (id("tenant001"), id("tenant002"));
    let at = keyring.handle(&mover);
    keyring.get_or_create(at).unwrap();
    keyring.begin_moving([(at, mover.clone())]).unwrap();
    assert!(matches!(keyring.begin_moving([]), Err(Error::Resealing)));
    let next = keyring.handle(&mover);
    assert_ne!(next, at);
    let keys = keyring.get(at).unwrap();
    assert_eq!(keys.next_handle, Some(next));
    let moved = keys.moved();
    keyring.replace(at, moved);
    assert!(keyring.get(at).is_none() && keyring.get(next).is_some());
    let new = keyring.handle(&newcomer);
    keyring.end_moving();
    assert!(!keyring.is_moving());
    assert_eq!((keyring.handle(&mover), keyring.handle(&newcomer)), (next, new));
}

#[test]
fn a_removed_tenant_leaves_a_tombstone_in_any_case_of_its_id_until_it_is_readmitted() {
    let mut keyring = Keyring::create().unwrap();
    let handle = keyring.handle(&id("tenant001"));
    keyring.get_or_create(handle).unwrap();
    let now = Timestamp::from_second(1_795_305_600).unwrap();
    keyring.remove(&id("tenant001"), handle, now);
    assert!(keyring.get(handle).is_none());
    assert!(keyring.is_removed(handle));
    let tombstone = keyring.tombstone(&id("Tenant001")).unwrap();
    assert_eq!((tombstone.removed_at(), tombstone.last_term), (now, 1));
    assert_eq!(keyring.former_handle(&id("tenant001")), Some(handle));
    assert_eq!(keyring.tombstone(&id("tenant002")), None);
    keyring.readmit(&id("tenant001"));
    assert_eq!(keyring.tombstone(&id("tenant001")), None);
}
