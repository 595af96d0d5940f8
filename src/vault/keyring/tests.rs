use super::super::tests::{id, vector};
use super::*;

const VECTOR_1: &str = include_str!("../../../tests/vectors/keyring.txt");
const VECTOR_2: &str = include_str!("../../../tests/vectors/keyring_2.txt");
const VECTOR_3: &str = include_str!("../../../tests/vectors/keyring_3.txt");
const VECTOR: &str = include_str!("../../../tests/vectors/keyring_4.txt");

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

fn open_1(bytes: &[u8]) -> Result<(Keyring, Age), Error> {
    let root = key(VECTOR_1, "root_key");
    Keyring::open(bytes, store_id(), &root.derive("mcpv.keyring.v1"), &root)
}

fn open(bytes: &[u8]) -> Result<(Keyring, Age), Error> {
    Keyring::open(bytes, store_id(), &key(VECTOR, "keyring_key"), &fixed(0))
}

fn term(number: u32, state: TermState, byte: u8) -> Term {
    Term { number, state, key: Arc::new(fixed(byte)) }
}

impl Keyring {
    /// The handle that a new tenant would have.
    pub(in crate::vault) fn handle(&self, id: &TenantId) -> Handle {
        handle(self.next_index.as_ref().unwrap_or(&self.index), id)
    }

    /// The content without the digests of ids, which version 3 did not have.
    fn content_3(&self) -> Vec<u8> {
        let content = content::encode(self);
        let mut at = 5 * 32 + 1 + self.next_index.as_ref().map_or(0, |_| 32) + 4;
        let mut kept = content[..at].to_vec();
        for keys in self.entries.values() {
            let rest = 1 + keys.next_handle.map_or(0, |_| 16) + 4 + 37 * keys.terms.len();
            kept.extend_from_slice(&content[at..at + 32]);
            kept.extend_from_slice(&content[at + 48..at + 48 + rest]);
            at += 48 + rest;
        }
        kept.extend_from_slice(&content[at..]);
        kept
    }

    /// The file that version 3 would have written.
    pub(in crate::vault) fn encode_3(&self, store_id: StoreId, key: &Key) -> Vec<u8> {
        self.encode_as(VERSION_3, &self.content_3(), store_id, key)
    }

    /// The file that version 2 would have written.
    pub(in crate::vault) fn encode_2(&self, store_id: StoreId, key: &Key) -> Vec<u8> {
        let content = self.content_3();
        let content = [&content[..128], &content[160..content.len() - 1]].concat();
        self.encode_as(VERSION_2, &content, store_id, key)
    }

    fn encode_as(&self, version: u8, content: &[u8], store_id: StoreId, key: &Key) -> Vec<u8> {
        let mut content = content.to_vec();
        let head = [&MAGIC[..], &[version], &self.generation.to_be_bytes(), &store_id.0].concat();
        let salt = [7; SALT_LENGTH];
        let seal = key.seal(&salt, &place(&head), &mut content);
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&head[..], &salt, &seal.commitment, &length, &content, &seal.tag].concat()
    }
}

#[test]
fn the_golden_keyring_opens_and_is_written_byte_for_byte() {
    let bytes = vector(VECTOR, "keyring");
    let (mut keyring, age) = open(&bytes).unwrap();
    assert_eq!((keyring.generation, age), (8, Age::Current));
    assert_eq!(content::encode(&keyring).as_slice(), vector(VECTOR, "content"));
    let salt = vector(VECTOR, "salt").try_into().unwrap();
    assert_eq!(keyring.encode(store_id(), &key(VECTOR, "keyring_key"), salt), bytes);

    let Some(Found::Open(moving)) = keyring.find(&id("Moving01")) else { unreachable!() };
    assert_eq!(moving.handle, Handle([0x53; 16]));
    assert!(matches!(keyring.find(&id("SEALED01")), Some(Found::Sealed(_))));
    assert!(keyring.find(&id("tenant001")).is_none());
    assert_eq!(moving.next_handle, Some(Handle([0x56; 16])));
    assert_eq!((moving.active().number, moving.is_settled()), (2, false));
    assert!(same(&moving.opening(1).unwrap().key, &fixed(0x54)));
    for (one, byte) in [
        (&keyring.index, 0x41),
        (&keyring.lookup, 0x42),
        (&keyring.fingerprint, 0x43),
        (&keyring.signing, 0x44),
        (&keyring.integrity, 0x46),
        (keyring.next_index.as_ref().unwrap(), 0x45),
    ] {
        assert!(same(one, &fixed(byte)));
    }
    let backup = Arc::clone(keyring.backup().unwrap());
    assert_eq!(backup.header, b"a header of backups");
    assert!(same(&backup.key, &fixed(0x47)));
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
    let (keyring, age) = open_1(&vector(VECTOR_1, "keyring")).unwrap();
    assert_eq!((keyring.generation, age), (7, Age::Unauthenticated));
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
fn the_golden_keyring_of_version_2_opens_and_each_time_with_another_integrity_key() {
    let open = || open(&vector(VECTOR_2, "keyring")).unwrap();
    let ((mut keyring, age), (again, _)) = (open(), open());
    assert!(age == Age::Unauthenticated && keyring.backup().is_none());
    assert!(!same(&keyring.integrity, &again.integrity));
    assert_eq!((keyring.entries().count(), keyring.sealed().count()), (2, 1));
    assert!(keyring.is_removed(Handle([0x62; 16])));
    // What it is written as is the next version, with the same in it.
    keyring.name(Handle([0x53; 16]), &id("moving01")).unwrap();
    let written = content::decode(8, &content::encode(&keyring)).unwrap();
    assert!(same(&written.integrity, &keyring.integrity));
    let content = written.content_3();
    assert_eq!(content[..128], vector(VECTOR_2, "content")[..128]);
    assert_eq!(content[160..content.len() - 1], vector(VECTOR_2, "content")[128..]);
}

#[test]
fn the_golden_keyring_of_version_3_opens_and_learns_whose_keys_are_whose() {
    let (mut keyring, age) = open(&vector(VECTOR_3, "keyring")).unwrap();
    assert_eq!(age, Age::Unnamed);
    assert!(keyring.find(&id("moving01")).is_none());
    assert!(matches!(keyring.find(&id("sealed01")), Some(Found::Sealed(_))), "it says so itself");
    let unknown = keyring.name(Handle([1; 16]), &id("moving01"));
    assert!(matches!(unknown, Err(Error::KeyringDamaged)));
    let doubled = keyring.name(Handle([0x53; 16]), &id("Sealed01"));
    assert!(matches!(doubled, Err(Error::KeyringDamaged)));

    let mut unnamed = keyring.clone();
    unnamed.forget_unnamed();
    assert_eq!(unnamed.entries().count(), 1, "the system's");
    keyring.name(Handle([0x53; 16]), &id("moving01")).unwrap();
    keyring.forget_unnamed();
    assert_eq!(content::encode(&keyring).as_slice(), vector(VECTOR, "content"));
}

#[test]
fn what_backups_are_sealed_with_is_kept_until_it_is_forgotten() {
    let mut keyring = Keyring::create().unwrap();
    let longest = usize::try_from(super::super::header::MAX_LENGTH).unwrap();
    for header in [vec![1], vec![2; longest]] {
        keyring.set_backup(Some(BackupSlot { header: header.clone(), key: fixed(7) }));
        let read = content::decode(1, &content::encode(&keyring)).unwrap();
        let backup = read.backup().unwrap();
        assert!(backup.header == header && same(&backup.key, &fixed(7)));
    }
    keyring.set_backup(Some(BackupSlot { header: vec![0; longest + 1], key: fixed(7) }));
    assert!(content::decode(1, &content::encode(&keyring)).is_err());
    keyring.set_backup(None);
    assert!(content::decode(1, &content::encode(&keyring)).unwrap().backup().is_none());
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_keyring_is_refused_by_name() {
    for (bytes, open) in [
        (vector(VECTOR, "keyring"), open as fn(&[u8]) -> _),
        (vector(VECTOR_3, "keyring"), open),
        (vector(VECTOR_2, "keyring"), open),
        (vector(VECTOR_1, "keyring"), open_1),
    ] {
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
        (vector(VECTOR_3, "content"), |bytes| content::decode_3(1, bytes)),
        (vector(VECTOR_2, "content"), |bytes| content::decode_2(1, bytes, &Arc::new(fixed(0)))),
        (vector(VECTOR_1, "content"), |bytes| {
            content::decode_1(1, bytes, &fixed(0), &Arc::new(fixed(0)))
        }),
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
    // Where parts begin: 5 keys, flag and next index, count of entries, the system's entry.
    let (flag, system, second) = (160, 197, 287);
    assert!(changed(flag, &[1]).is_ok());
    assert!(changed(flag, &[2]).is_err());
    assert!(changed(system, &[1]).is_err(), "no system");
    assert!(changed(second, &[0; 16]).is_err(), "a uuid twice");
    assert!(changed(second + 16, &[0; 16]).is_err(), "handles out of order");
    assert!(changed(second + 32, &[1; 16]).is_ok(), "another name");
    assert!(changed(second + 32, &[0; 16]).is_err(), "no name");
    assert!(changed(system + 32, &[1]).is_err(), "a name of nobody");
    assert!(changed(second + 48, &[2]).is_err(), "a flag of 2");
    let sealed = second + 49 + 16 + 4 + 2 * 37 + 4;
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
    let handle = keyring.get_or_create(&id("tenant001")).unwrap().handle;
    keyring.add_term(handle).unwrap();
    let keys = keyring.add_term(handle).unwrap();
    assert_eq!((keys.active().number, keys.superseded(), keys.is_settled()), (3, 2, false));
    assert!(keys.opening(1).is_some() && keys.opening(2).is_some());
    let last = keys.with_active_term_only();
    assert!(last.is_settled() && last.opening(2).is_none());
    assert!(same(&last.active().key, &keys.active().key));
}

#[test]
fn tenants_move_to_handles_of_the_next_index_and_newcomers_begin_there() {
    let mut keyring = Keyring::create().unwrap();
    let (mover, newcomer) = (id("tenant001"), id("tenant002"));
    let at = keyring.get_or_create(&mover).unwrap().handle;
    assert_eq!(keyring.handle(&mover), at);
    keyring.begin_moving([(at, mover.clone())]).unwrap();
    assert!(matches!(keyring.begin_moving([]), Err(Error::Resealing)));
    let next = keyring.handle(&mover);
    assert_ne!(next, at);
    let keys = keyring.get(at).unwrap();
    assert_eq!((keys.next_handle, keys.is_settled()), (Some(next), false));
    let moved = keys.moved();
    assert!(moved.is_settled());
    keyring.replace(at, moved);
    assert!(keyring.get(at).is_none() && keyring.get(next).is_some());
    assert!(matches!(keyring.find(&mover), Some(Found::Open(keys)) if keys.handle == next));
    let new = keyring.handle(&newcomer);
    let next_index = Arc::clone(keyring.next_index.as_ref().unwrap());
    keyring.end_moving();
    assert!(!keyring.is_moving() && keyring.next_index.is_none());
    assert!(same(&keyring.index, &next_index));
    assert_eq!((keyring.handle(&mover), keyring.handle(&newcomer)), (next, new));
}

#[test]
fn a_removed_tenant_leaves_a_tombstone_in_any_case_of_its_id_until_it_is_readmitted() {
    let mut keyring = Keyring::create().unwrap();
    let handle = keyring.get_or_create(&id("tenant001")).unwrap().handle;
    let now = Timestamp::from_second(1_795_305_600).unwrap();
    let name = keyring.digest(&id("tenant001"));
    keyring.remove(name, handle, now);
    assert!(keyring.get(handle).is_none() && keyring.find_name(name).is_none());
    assert!(keyring.is_removed(handle) && !keyring.is_removed(keyring.handle(&id("tenant002"))));
    let tombstone = keyring.tombstone(keyring.digest(&id("Tenant001"))).unwrap();
    assert_eq!((tombstone.removed_at(), tombstone.last_term), (now, 1));
    assert_eq!(tombstone.handle, handle);
    assert_eq!(keyring.tombstone(keyring.digest(&id("tenant002"))), None);
    keyring.readmit(&id("tenant001"));
    assert_eq!(keyring.tombstone(name), None);
}

#[test]
fn a_keyring_of_a_later_version_says_so() {
    let changed = |at: usize, to: u8| {
        let mut bytes = vector(VECTOR, "keyring");
        bytes[at] = to;
        bytes
    };
    assert!(matches!(open(&changed(4, 5)), Err(Error::UnsupportedVersion("keyring"))));
    assert!(matches!(open(&changed(4, 0)), Err(Error::KeyringDamaged)));
    let mut other = changed(4, 5);
    other[0] ^= 1;
    assert!(matches!(open(&other), Err(Error::KeyringDamaged)), "something else");
}

#[test]
fn a_keyring_is_saved_as_its_next_generation_under_a_new_salt() {
    let key = fixed(1);
    let mut keyring = Keyring::create().unwrap();
    let mut saved = Vec::new();
    for _ in 0..2 {
        let write = |bytes: &[u8]| {
            saved.push(bytes.to_vec());
            Ok(())
        };
        keyring.save(store_id(), &key, write).unwrap();
    }
    let opened = saved.iter().map(|bytes| {
        let (keyring, age) = Keyring::open(bytes, store_id(), &key, &fixed(0)).unwrap();
        (keyring.generation, age)
    });
    assert_eq!(opened.collect::<Vec<_>>(), [(1, Age::Current), (2, Age::Current)]);
    let salt = HEAD_LENGTH..HEAD_LENGTH + SALT_LENGTH;
    assert_ne!(saved[0][salt.clone()], saved[1][salt]);
    let failed = keyring.save(store_id(), &key, |_| Err(Error::Sealed));
    assert!(matches!(failed, Err(Error::Sealed)));
}

#[test]
fn two_and_a_half_million_tenants_have_room() {
    let mut keyring = Keyring::create().unwrap();
    let length = |keyring: &Keyring| content::encode(keyring).len() as u64;
    let empty = length(&keyring);
    keyring.get_or_create(&id("tenant001")).unwrap();
    assert!(2_500_000 * (length(&keyring) - empty) <= MAX_LENGTH);
}

/// With the tenants `tenant001` and `tenant002` at the handles 1 and 2.
fn two_tenants() -> Keyring {
    let mut keyring = Keyring::create().unwrap();
    for byte in [1, 2] {
        let name = keyring.digest(&id(&format!("tenant00{byte}")));
        keyring.insert(Uuid([byte; 16]), Handle([byte; 16]), name).unwrap();
    }
    keyring
}

fn seal(keyring: &mut Keyring, byte: u8, key: &Key) {
    let (handle, id) = (Handle([byte; 16]), id(&format!("tenant00{byte}")));
    keyring.seal_tenant(store_id(), (handle, &id), key).unwrap();
}

#[test]
fn a_sealed_tenant_opens_in_its_vault_under_its_key_and_each_by_its_id() {
    let key = fixed(1);
    let mut keyring = two_tenants();
    let keys = [1, 2].map(|byte| Arc::clone(keyring.get(Handle([byte; 16])).unwrap()));
    seal(&mut keyring, 1, &key);
    seal(&mut keyring, 2, &key);
    assert!(keyring.get(Handle([1; 16])).is_none());
    for (name, handle) in [("tenant001", Some(1)), ("tenant002", Some(2)), ("tenant003", None)] {
        let found = keyring.find(&id(name)).map(|found| match found {
            Found::Sealed(sealed) => sealed.handle().0[0],
            Found::Open(_) => 0,
        });
        assert_eq!(found, handle);
    }
    assert_eq!(keyring.sealed().map(|sealed| sealed.handle().0[0]).collect::<Vec<_>>(), [1, 2]);
    let absent = keyring.seal_tenant(store_id(), (Handle([1; 16]), &id("tenant001")), &key);
    assert!(matches!(absent, Err(Error::KeyringDamaged)), "sealed already");

    let mut keyring = content::decode(1, &content::encode(&keyring)).unwrap();
    let foreign = keyring.unseal_tenant(StoreId([0; 16]), &id("tenant002"), &key);
    assert!(matches!(foreign, Err(Error::KeyringDamaged)));
    let wrong = keyring.unseal_tenant(store_id(), &id("tenant002"), &fixed(2));
    assert!(matches!(wrong, Err(Error::KeyringDamaged)));
    let unknown = keyring.unseal_tenant(store_id(), &id("tenant003"), &key);
    assert!(matches!(unknown, Err(Error::NotConfigured)));
    let opened = keyring.unseal_tenant(store_id(), &id("tenant002"), &key).unwrap();
    assert_eq!((opened.uuid, opened.handle), (keys[1].uuid, Handle([2; 16])));
    assert!(same(&opened.active().key, &keys[1].active().key));
    assert!(keyring.get(Handle([2; 16])).is_some() && keyring.get(Handle([1; 16])).is_none());
    assert_eq!(keyring.sealed().count(), 1);
}

#[test]
fn a_sealed_tenant_moved_to_another_ones_place_does_not_open() {
    let key = fixed(1);
    let mut keyring = two_tenants();
    seal(&mut keyring, 1, &key);
    let sealed = Arc::clone(keyring.sealed().next().unwrap());
    let with = |uuid: Uuid, handle: Handle| {
        let SealedTenant { id, salt, seal, ciphertext, .. } = &*sealed;
        let (id, seal, ciphertext) = (id.clone(), seal.clone(), ciphertext.clone());
        let moved = SealedTenant { id, uuid, handle, salt: *salt, seal, ciphertext };
        let mut keyring = Keyring::create().unwrap();
        keyring.names.insert(keyring.digest(&sealed.id), handle);
        keyring.sealed.insert(handle, Arc::new(moved));
        keyring.unseal_tenant(store_id(), &sealed.id, &key).is_ok()
    };
    assert!(with(sealed.uuid, sealed.handle));
    assert!(!with(sealed.uuid, Handle([3; 16])));
    assert!(!with(Uuid([3; 16]), sealed.handle));
}

#[test]
fn entries_sealed_tenants_and_tombstones_come_once_and_in_order() {
    let with = |bytes: &[u8], at: usize, to: &[u8]| {
        let mut changed = bytes.to_vec();
        changed[at..at + to.len()].copy_from_slice(to);
        content::decode(1, &changed).is_ok()
    };
    // After 5 keys, the flag and the count: the system's entry, then two that are as long.
    let entry = 90;
    let bytes = content::encode(&two_tenants());
    let handle = 165 + 2 * entry + 16;
    assert_eq!(bytes[handle..handle + 16], [2; 16]);
    assert!(with(&bytes, handle, &[3; 16]));
    assert!(!with(&bytes, handle, &[1; 16]), "an entry twice");

    let mut keyring = two_tenants();
    seal(&mut keyring, 1, &fixed(1));
    seal(&mut keyring, 2, &fixed(1));
    let bytes = content::encode(&keyring);
    let handle = 165 + entry + 4 + (16 + 16 + 13 + 32 + 32 + 4 + 41 + 16) + 16;
    assert_eq!(bytes[handle..handle + 16], [2; 16]);
    assert!(with(&bytes, handle, &[3; 16]));
    assert!(!with(&bytes, handle, &[1; 16]), "a sealed tenant twice");
    assert!(!with(&bytes, handle, &[[0; 8], [1; 8]].concat()), "out of order");

    let mut keyring = two_tenants();
    for byte in [1, 2] {
        let name = keyring.digest(&id(&format!("tenant00{byte}")));
        keyring.remove(name, Handle([byte; 16]), Timestamp::UNIX_EPOCH);
    }
    let bytes = content::encode(&keyring);
    // Before the flag of the backup.
    let (first, last) = (bytes.len() - 89, bytes.len() - 45);
    assert!(with(&bytes, last, &[0xff; 16]));
    assert!(!with(&bytes, last, &bytes[first..first + 16]), "a tombstone twice");
    assert!(!with(&bytes, first, &[0xff; 16]), "out of order");
}

#[test]
fn a_tenant_that_moves_needs_the_index_that_it_moves_to() {
    let mut keyring = two_tenants();
    keyring.begin_moving([(Handle([1; 16]), id("tenant001"))]).unwrap();
    assert!(content::decode(1, &content::encode(&keyring)).is_ok());
    let next = keyring.next_index.take();
    assert!(content::decode(1, &content::encode(&keyring)).is_err());
    let moved = keyring.get(Handle([1; 16])).unwrap().moved();
    keyring.replace(Handle([1; 16]), moved);
    assert!(content::decode(1, &content::encode(&keyring)).is_ok());
    keyring.next_index = next;
    assert!(content::decode(1, &content::encode(&keyring)).is_ok());
}

#[test]
fn terms_come_back_in_every_state_and_an_unknown_state_is_refused() {
    let states = [TermState::Revoked, TermState::Retained, TermState::Active];
    let terms = [1, 2, 3].into_iter().zip(states).map(|(number, state)| term(number, state, 1));
    let keys = TenantKeys::new(Uuid([1; 16]), Handle([1; 16]), terms.collect()).unwrap();
    let mut bytes = content::terms(&keys).to_vec();
    let read = |bytes: &[u8]| content::open_terms(Uuid([1; 16]), Handle([1; 16]), bytes);
    let states_read: Vec<_> = read(&bytes).unwrap().terms.iter().map(|term| term.state).collect();
    assert_eq!(states_read, states);
    for (state, is_accepted) in [(0, false), (2, true), (3, true), (4, false)] {
        bytes[8] = state;
        assert_eq!(read(&bytes).is_ok(), is_accepted, "{state}");
    }
}
