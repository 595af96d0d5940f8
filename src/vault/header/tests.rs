use super::super::tests::vector;
use super::*;
use crate::vault::command::KeyCommand;
use crate::vault::key_file::KeyFile;
use crate::vault::slot::SlotKind;

const VECTOR_1: &str = include_str!("../../../tests/vectors/header.txt");
const VECTOR: &str = include_str!("../../../tests/vectors/header_2.txt");
const KINDS: [&str; 4] = ["passphrase", "key_file", "command", "shares"];

fn key(file: &str, name: &str) -> Key {
    Key::fill_with(|key| {
        key.copy_from_slice(&vector(file, name));
        Ok::<_, Error>(())
    })
    .unwrap()
}

fn same(one: &Key, other: &Key) -> bool {
    one.mac(&[]) == other.mac(&[])
}

/// Opens every slot with the key that belongs to it.
fn open_with_its_own(bytes: &[u8]) -> Result<(OpenHeader, SlotInfo), Error> {
    OpenHeader::open_with(bytes, "passphrase", |slot| {
        let kind = KINDS[usize::from(slot.parameters.opening.number()) - 1];
        Ok(Some(key(VECTOR, &format!("kek_{kind}"))))
    })
}

/// Opens only the slot of `kind`.
fn open_only(bytes: &[u8], kind: &str) -> Result<(OpenHeader, SlotInfo), Error> {
    let number = 1 + KINDS.iter().position(|it| *it == kind).unwrap();
    OpenHeader::open_with(bytes, "passphrase", |slot| {
        let is_it = usize::from(slot.parameters.opening.number()) == number;
        Ok(is_it.then(|| key(VECTOR, &format!("kek_{kind}"))))
    })
}

fn open_1(bytes: &[u8]) -> Result<(OpenHeader, SlotInfo), Error> {
    OpenHeader::open_with(bytes, "passphrase", |_| Ok(Some(key(VECTOR_1, "kek"))))
}

fn passphrase(text: &str) -> Unlock {
    Unlock::Passphrase(text.into())
}

fn error(result: Result<(OpenHeader, SlotInfo), Error>) -> Error {
    result.err().unwrap()
}

#[test]
fn the_golden_header_opens_by_each_of_its_slots() {
    let bytes = vector(VECTOR, "header");
    for (index, (kind, created)) in KINDS.iter().zip(1_795_305_600..).enumerate() {
        let (header, slot) = open_only(&bytes, kind).unwrap();
        assert_eq!(header.store_id.0[..], vector(VECTOR, "store_id"));
        assert_eq!(
            (slot.id, slot.kind.as_str()),
            ([0, 1, 3, 4][index], kind.replace('_', "-").as_str())
        );
        assert_eq!(slot.created_at.as_second(), created);
        assert!(same(header.root(), &key(VECTOR, "root_key")));
        assert!(same(header.keyring_key(), &key(VECTOR, "keyring_key")));
        let previous = header.previous_keyring_key().unwrap();
        assert!(same(previous, &key(VECTOR, "previous_keyring_key")));
        assert!(same(header.tenant_seal_key(), &key(VECTOR, "tenant_seal_key")));
        assert_eq!((header.generation, header.next_slot), (9, 6));
    }
    let by_passphrase = OpenHeader::open(&bytes, &passphrase("correct horse battery staple"));
    assert_eq!(by_passphrase.unwrap().1.id, 0);
    let wrong = OpenHeader::open(&bytes, &passphrase("correct horse battery stable"));
    assert!(matches!(error(wrong), Error::WrongPassphrase));
}

#[test]
fn the_golden_header_is_written_byte_for_byte() {
    let bytes = vector(VECTOR, "header");
    let (header, _) = open_with_its_own(&bytes).unwrap();
    let wrapping = header.root.derive(WRAPPING_LABEL);
    let wrap = |name: &str, purpose: Purpose| {
        let salt = [0xd0 + purpose as u8; 32];
        WrappedKey::wrap(&wrapping, header.store_id, purpose, &key(VECTOR, name), salt)
    };
    let keys = WrappedKeys {
        keyring: wrap("keyring_key", Purpose::Keyring),
        previous_keyring: Some(wrap("previous_keyring_key", Purpose::PreviousKeyring)),
        tenant_seal: wrap("tenant_seal_key", Purpose::TenantSeal),
    };
    assert_eq!(header.encode_with(&keys), bytes);
    for (slot, kind) in header.slots.iter().zip(KINDS) {
        let kek = key(VECTOR, &format!("kek_{kind}"));
        let parameters = Parameters { opening: slot.parameters.opening.clone(), ..slot.parameters };
        let again = Slot::wrap(header.store_id, &header.root, &kek, parameters);
        assert_eq!((again.wrapped, again.seal.tag), (slot.wrapped, slot.seal.tag), "{kind}");
    }
}

#[test]
fn the_golden_header_of_version_1_opens_and_is_written_as_version_2() {
    let bytes = vector(VECTOR_1, "header");
    let unlock = passphrase(std::str::from_utf8(&vector(VECTOR_1, "passphrase")).unwrap());
    let (mut header, slot) = OpenHeader::open(&bytes, &unlock).unwrap();
    assert!(header.is_outdated());
    assert_eq!((slot.id, header.next_slot), (0, 1));
    assert!(same(header.root(), &key(VECTOR_1, "root_key")));
    assert!(same(header.keyring_key(), &key(VECTOR_1, "root_key").derive("mcpv.keyring.v1")));
    let written = header.encode().unwrap();
    assert_eq!(written[4], 2);
    let (again, _) = OpenHeader::open(&written, &unlock).unwrap();
    assert!(!again.is_outdated());
    assert!(same(again.keyring_key(), header.keyring_key()));
    assert!(same(again.tenant_seal_key(), header.tenant_seal_key()));
    assert_eq!(again.generation, 2);
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_header_is_refused_by_name() {
    for (bytes, open) in [
        (vector(VECTOR, "header"), open_with_its_own as fn(&[u8]) -> _),
        (vector(VECTOR_1, "header"), open_1),
    ] {
        assert!(open(&bytes).is_ok());
        let check = |bytes: &[u8], what: String| {
            let error = error(open(bytes));
            let is_named = matches!(
                error,
                Error::HeaderDamaged | Error::WrongPassphrase | Error::UnsupportedVersion("header")
            );
            assert!(is_named, "{what}: {error:?}");
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
fn a_damaged_header_is_told_from_a_wrong_passphrase_once_the_slot_opens() {
    let check = |position: usize, expected: fn(&Error) -> bool| {
        let mut bytes = vector(VECTOR_1, "header");
        bytes[position] ^= 1;
        let error = error(open_1(&bytes));
        assert!(expected(&error), "byte {position}: {error:?}");
    };
    check(13, |error| matches!(error, Error::HeaderDamaged)); // generation, under the MAC only
    check(120, |error| matches!(error, Error::HeaderDamaged)); // wrapped key
    check(90, |error| matches!(error, Error::WrongPassphrase)); // commitment
    check(4, |error| matches!(error, Error::UnsupportedVersion(_) | Error::HeaderDamaged));
}

#[test]
fn a_header_of_a_later_version_says_so() {
    let mut bytes = vector(VECTOR, "header");
    bytes[4] = 3;
    assert!(matches!(Header::parse(&bytes), Err(Error::UnsupportedVersion("header"))));
    bytes[4] = 0;
    assert!(matches!(Header::parse(&bytes), Err(Error::HeaderDamaged)));
    bytes[0] ^= 1;
    for version in [2, 3] {
        bytes[4] = version;
        assert!(matches!(Header::parse(&bytes), Err(Error::HeaderDamaged)), "something else");
    }
}

#[test]
fn slots_are_numbered_upwards_and_the_next_number_is_above_them() {
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = vector(VECTOR, "header");
        bytes[at..at + to.len()].copy_from_slice(to);
        Header::parse(&bytes).map(|header| header.next_slot)
    };
    // The number of slots, the next one's, and those of the slots 0 and 1, of 0, 1, 3 and 4.
    let (count, next, first, second) = (5, 30, 36, 158);
    assert_eq!(changed(next, &[0, 5]).unwrap(), 5);
    assert_eq!(changed(next, &[0xff; 2]).unwrap(), u16::MAX);
    assert!(changed(next, &[0, 4]).is_err(), "a number twice, with the next slot");
    assert!(changed(next, &[0, 0]).is_err());
    assert!(changed(second, &[0, 2]).is_ok());
    assert!(changed(second, &[0, 0]).is_err(), "a number twice");
    assert!(changed(second, &[0, 3]).is_err(), "a number twice");
    assert!(changed(second, &[0, 4]).is_err(), "downwards");
    assert!(changed(count, &[0]).is_err(), "no slot");
    assert!(changed(first - 2, &[5]).is_err(), "an unknown kind");
    assert!(changed(first - 1, &[2]).is_err(), "an unknown format");
}

/// `bytes` of version 2, with one keyring key, as version 1 has them. The MAC is not right.
fn as_version_1(bytes: &[u8]) -> Vec<u8> {
    let keys = bytes.len() - MAC_LENGTH - (1 + 2 * 113);
    [&bytes[..4], &[1], &bytes[5..30], &bytes[32..keys], &[0; MAC_LENGTH]].concat()
}

#[test]
fn version_1_has_passphrase_slots_only() {
    let (mut header, ..) = header();
    let with_key_file = header.encode().unwrap();
    assert!(matches!(Header::parse(&as_version_1(&with_key_file)), Err(Error::HeaderDamaged)));
    header.remove_slot(1).unwrap();
    let bytes = as_version_1(&header.encode().unwrap());
    assert_eq!(Header::parse(&bytes).unwrap().next_slot, 1);
}

#[test]
fn version_1_has_eight_slots_at_most_and_version_2_sixteen() {
    let (mut header, ..) = header();
    header.remove_slot(1).unwrap();
    let mut parse_with = |count: u16| {
        while header.slots.len() < usize::from(count) {
            let id = header.next_slot;
            let opening = Opening::Passphrase(KdfCost::insecure_for_tests());
            let parameters = Parameters { id, opening, salt: [0; 16], created: 0 };
            header.slots.push(Slot::wrap(header.store_id, &header.root, &header.root, parameters));
            header.next_slot += 1;
        }
        let bytes = header.encode().unwrap();
        (Header::parse(&as_version_1(&bytes)).is_ok(), Header::parse(&bytes).is_ok())
    };
    assert_eq!(parse_with(8), (true, true));
    assert_eq!(parse_with(9), (false, true));
    assert_eq!(parse_with(16), (false, true));
    assert_eq!(parse_with(17), (false, false));
}

#[test]
fn a_slot_of_any_kind_is_read_as_it_was_written_within_its_bounds() {
    let (store_id, root, kek) = (StoreId([1; 16]), Key::random().unwrap(), Key::random().unwrap());
    let cost =
        |memory_kib| Opening::Passphrase(KdfCost { memory_kib, ..KdfCost::insecure_for_tests() });
    let blob = |length| Opening::Command(vec![7; length]);
    let shares = |threshold, count| Opening::Shares { threshold, count };
    for (opening, is_accepted, what) in [
        (cost(8), true, "the least memory"),
        (cost(7), false, "less memory than the derivation has"),
        (Opening::KeyFile, true, "a key file"),
        (blob(0), false, "an empty answer"),
        (blob(1), true, "an answer of one byte"),
        (blob(1_024), true, "the longest answer"),
        (blob(1_025), false, "an answer that is too long"),
        (shares(2, 2), true, "all of the fewest shares"),
        (shares(16, 16), true, "all of the most shares"),
        (shares(1, 2), false, "one share that opens alone"),
        (shares(3, 2), false, "more shares than there are"),
        (shares(2, 17), false, "too many shares"),
    ] {
        let parameters = Parameters { id: 258, opening, salt: [2; 16], created: 3 };
        let written = Slot::wrap(store_id, &root, &kek, parameters);
        let mut writer = Writer::default();
        written.write(&mut writer);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        let read = Slot::read(&mut reader);
        assert_eq!(read.is_ok(), is_accepted, "{what}");
        let Ok(read) = read else { continue };
        reader.finish().unwrap();
        assert_eq!(read.parameters.info(), written.parameters.info(), "{what}");
        assert!(same(&read.unwrap(store_id, &kek).unwrap(), &root), "{what}");
        assert_eq!(read.unwrap(StoreId([2; 16]), &kek).err(), Some(Mismatch::Commitment));
        assert_eq!(read.unwrap(store_id, &root).err(), Some(Mismatch::Commitment));
    }
}

#[test]
fn a_cost_beyond_the_ceiling_is_refused_before_it_is_spent() {
    let mut bytes = vector(VECTOR_1, "header");
    bytes[36..40].copy_from_slice(&u32::MAX.to_be_bytes());
    let never = |_: &Slot| -> Result<Option<Key>, Error> { panic!("the cost was spent") };
    let opened = OpenHeader::open_with(&bytes, "passphrase", never);
    assert!(matches!(error(opened), Error::HeaderDamaged));
}

/// A header with a passphrase and a key file.
fn header() -> (OpenHeader, Unlock, Unlock) {
    let now = Timestamp::from_second(1_795_305_600).unwrap();
    let cost = KdfCost::insecure_for_tests();
    let new = NewSlot::Passphrase { passphrase: "correct horse battery staple".into(), cost };
    let (mut header, added) = OpenHeader::create(StoreId([1; 16]), &new, now).unwrap();
    assert_eq!(added.slot.id, 0);
    let file = KeyFile::generate().unwrap();
    let twin = KeyFile::parse(secrecy_text(&file).as_bytes()).unwrap();
    assert_eq!(header.add_slot(&NewSlot::KeyFile(file), now).unwrap().slot.id, 1);
    (header, passphrase("correct horse battery staple"), Unlock::KeyFile(twin))
}

#[expect(clippy::disallowed_methods, reason = "the test writes the file")]
fn secrecy_text(file: &KeyFile) -> String {
    use secrecy::ExposeSecret as _;
    file.to_text().expose_secret().to_owned()
}

#[test]
fn either_of_two_slots_opens_and_a_number_is_not_used_again() {
    let (mut header, by_passphrase, by_file) = header();
    let bytes = header.encode().unwrap();
    assert_eq!(OpenHeader::open(&bytes, &by_passphrase).unwrap().1.id, 0);
    let (mut header, slot) = OpenHeader::open(&bytes, &by_file).unwrap();
    assert_eq!(slot.id, 1);
    assert_eq!(header.remove_slot(1).unwrap().id, 1);
    let bytes = header.encode().unwrap();
    assert!(matches!(error(OpenHeader::open(&bytes, &by_file)), Error::WrongKey("key-file")));
    let (mut header, _) = OpenHeader::open(&bytes, &by_passphrase).unwrap();
    let now = Timestamp::UNIX_EPOCH;
    let another = NewSlot::KeyFile(KeyFile::generate().unwrap());
    assert_eq!(header.add_slot(&another, now).unwrap().slot.id, 2);
    assert!(matches!(header.remove_slot(1), Err(Error::NoSuchSlot(1))));
}

#[test]
fn the_last_slot_that_opens_offline_stays() {
    let (mut header, _) = open_with_its_own(&vector(VECTOR, "header")).unwrap();
    header.remove_slot(0).unwrap();
    header.remove_slot(1).unwrap();
    assert!(matches!(header.remove_slot(4), Err(Error::LastOfflineSlot)), "a command is left");
    header.remove_slot(3).unwrap();
    assert!(matches!(header.remove_slot(4), Err(Error::LastOfflineSlot)), "nothing is left");
    assert_eq!(header.slots.len(), 1);
}

#[test]
fn sixteen_slots_have_room_and_a_seventeenth_has_not() {
    let (mut header, by_passphrase, _) = header();
    let new = || NewSlot::KeyFile(KeyFile::generate().unwrap());
    for _ in 2..16 {
        header.add_slot(&new(), Timestamp::UNIX_EPOCH).unwrap();
    }
    let refused = header.add_slot(&new(), Timestamp::UNIX_EPOCH);
    assert!(matches!(refused, Err(Error::TooManySlots)));
    let bytes = header.encode().unwrap();
    assert!(bytes.len() as u64 <= MAX_LENGTH);
    assert_eq!(OpenHeader::open(&bytes, &by_passphrase).unwrap().0.slots.len(), 16);
}

#[test]
fn a_new_root_key_is_in_every_slot_that_is_opened_and_the_old_header_opens_nothing_new() {
    let (mut header, by_passphrase, by_file) = header();
    let old = header.root.duplicate();
    let keyring_key = header.keyring_key.duplicate();
    let missing = header.rotate_root(std::slice::from_ref(&by_passphrase), false);
    assert!(matches!(missing, Err(Error::SlotsMissing(slots)) if slots == [1]));
    assert!(same(header.root(), &old));

    let both = [by_file, by_passphrase];
    assert_eq!(header.rotate_root(&both, false).unwrap(), []);
    assert!(!same(header.root(), &old));
    let bytes = header.encode().unwrap();
    for unlock in &both {
        let (again, _) = OpenHeader::open(&bytes, unlock).unwrap();
        assert!(same(again.root(), header.root()));
        assert!(same(again.keyring_key(), &keyring_key));
    }
    let [by_file, by_passphrase] = both;
    let dropped = header.rotate_root(std::slice::from_ref(&by_file), true).unwrap();
    assert_eq!(dropped.iter().map(|slot| slot.id).collect::<Vec<_>>(), [0]);
    let bytes = header.encode().unwrap();
    assert!(OpenHeader::open(&bytes, &by_file).is_ok());
    assert!(matches!(error(OpenHeader::open(&bytes, &by_passphrase)), Error::WrongPassphrase));
}

#[test]
fn a_slot_is_wrapped_under_a_new_salt_each_time() {
    let (mut header, by_passphrase, by_file) = header();
    let salts = |header: &OpenHeader| -> Vec<_> {
        header.slots.iter().map(|slot| slot.parameters.salt).collect()
    };
    let before = salts(&header);
    header.rotate_root(&[by_passphrase, by_file], false).unwrap();
    assert!(before.iter().zip(salts(&header)).all(|(before, after)| *before != after));
}

#[test]
fn the_keyrings_former_key_is_kept_until_it_is_forgotten() {
    let (mut header, by_passphrase, _) = header();
    let first = header.keyring_key.duplicate();
    header.change_keyring_key(&first).unwrap();
    let bytes = header.encode().unwrap();
    let (mut again, _) = OpenHeader::open(&bytes, &by_passphrase).unwrap();
    assert!(same(again.previous_keyring_key().unwrap(), &first));
    assert!(!same(again.keyring_key(), &first));
    again.forget_previous_keyring_key();
    let bytes = again.encode().unwrap();
    let (last, _) = OpenHeader::open(&bytes, &by_passphrase).unwrap();
    assert!(last.previous_keyring_key().is_none());
    assert!(same(last.keyring_key(), again.keyring_key()));
}

/// A program that turns the bits of every byte; or does nothing, with the argument `broken`.
fn turning(argument: &str) -> KeyCommand {
    let script = r#"
read -r protocol; read -r secret; [ "$0" != broken ] || exit 1
printf '%s' "$secret" | base64 -d | tr '\000-\377' '\200-\377\000-\177' | base64 -w 0; echo
"#;
    KeyCommand::new(["sh", "-c", script, argument].map(str::to_owned).into()).unwrap()
}

#[test]
fn a_program_and_enough_shares_open_the_slots_that_were_made_with_them() {
    let (mut header, ..) = header();
    let now = Timestamp::UNIX_EPOCH;
    let command = header.add_slot(&NewSlot::Command(turning("")), now).unwrap();
    assert_eq!((command.slot.id, command.slot.kind), (2, SlotKind::Command));
    let added = header.add_slot(&NewSlot::Shares { threshold: 2, count: 3 }, now).unwrap();
    assert_eq!(added.slot.kind, SlotKind::Shares { threshold: 2, count: 3 });
    let mut shares = added.shares;
    let one = Unlock::Shares(vec![shares.pop().unwrap()]);
    let two = Unlock::Shares(shares);
    let command = Unlock::Command(turning(""));
    let bytes = header.encode().unwrap();
    for (unlock, id) in [(&command, 2), (&two, 3)] {
        let (again, slot) = OpenHeader::open(&bytes, unlock).unwrap();
        assert_eq!(slot.id, id);
        assert!(same(again.root(), header.root()));
        assert_eq!(again.slots_of(unlock).unwrap(), [id]);
    }
    let too_few = error(OpenHeader::open(&bytes, &one));
    assert!(matches!(too_few, Error::TooFewShares { given: 1, needed: 2 }));
    let broken = error(OpenHeader::open(&bytes, &Unlock::Command(turning("broken"))));
    assert!(matches!(broken, Error::KeyCommand { .. }));
}

#[test]
fn a_slot_that_could_not_be_tried_hides_neither_another_that_opens_nor_a_wrong_guess() {
    let bytes = vector(VECTOR, "header");
    let open = |other: fn() -> Option<Key>| {
        OpenHeader::open_with(&bytes, "command", |slot| match slot.parameters.id {
            0 => Err(Error::NoSuchSlot(0)),
            1 => Ok(other()),
            _ => Ok(None),
        })
    };
    assert_eq!(open(|| Some(key(VECTOR, "kek_key_file"))).unwrap().1.id, 1);
    let guessed = error(open(|| Some(key(VECTOR, "kek_command"))));
    assert!(matches!(guessed, Error::WrongKey("command")));
    assert!(matches!(error(open(|| None)), Error::NoSuchSlot(0)));
}

#[test]
fn a_header_lists_its_slots_before_anything_opens_it() {
    let slots = Header::parse(&vector(VECTOR, "header")).unwrap().slots();
    let kinds: Vec<_> = slots.iter().map(|slot| (slot.id, slot.kind.as_str())).collect();
    assert_eq!(kinds, [(0, "passphrase"), (1, "key-file"), (3, "command"), (4, "shares")]);
}

#[test]
fn a_passphrase_slot_is_renewed_at_another_cost_and_no_other_slot_is() {
    let (mut header, first, by_file) = header();
    let now = Timestamp::from_second(1_795_305_600).unwrap();
    let cost = KdfCost::insecure_for_tests();
    let another = NewSlot::Passphrase { passphrase: "another good passphrase".into(), cost };
    header.add_slot(&another, now).unwrap();
    let second = passphrase("another good passphrase");
    assert_eq!(header.slots_of(&first).unwrap(), [0]);
    assert_eq!(header.slots_of(&second).unwrap(), [2]);
    assert_eq!(header.slots_of(&passphrase("of no slot at all")).unwrap(), [0; 0]);

    let salts: Vec<_> = header.slots.iter().map(|slot| slot.parameters.salt).collect();
    let dearer = KdfCost { passes: 2, ..cost };
    header.renew_passphrase_slot(2, &second, dearer).unwrap();
    let changed = header.slots.iter().zip(&salts);
    let changed: Vec<_> = changed.map(|(slot, salt)| slot.parameters.salt != *salt).collect();
    assert_eq!(changed, [false, false, true]);
    for refused in [
        header.renew_passphrase_slot(3, &first, dearer),
        header.renew_passphrase_slot(1, &by_file, cost),
    ] {
        assert!(matches!(refused, Err(Error::NoSuchSlot(_))));
    }
    let bytes = header.encode().unwrap();
    for (unlock, id, kind) in [
        (&first, 0, SlotKind::Passphrase(cost)),
        (&by_file, 1, SlotKind::KeyFile),
        (&second, 2, SlotKind::Passphrase(dearer)),
    ] {
        let (again, slot) = OpenHeader::open(&bytes, unlock).unwrap();
        assert_eq!((slot.id, slot.kind, slot.created_at), (id, kind, now));
        assert!(same(again.root(), header.root()));
    }
}

#[test]
fn a_new_root_key_is_not_left_to_a_program_alone_nor_a_slot_dropped_for_a_program_that_failed() {
    let (mut header, by_passphrase, by_file) = header();
    header.add_slot(&NewSlot::Command(turning("")), Timestamp::UNIX_EPOCH).unwrap();
    let old = header.root.duplicate();
    let command = Unlock::Command(turning(""));
    let alone = header.rotate_root(std::slice::from_ref(&command), true);
    assert!(matches!(alone, Err(Error::LastOfflineSlot)));
    let broken = Unlock::Command(turning("broken"));
    let unlocks = [broken, by_passphrase, by_file];
    assert!(matches!(header.rotate_root(&unlocks, true), Err(Error::KeyCommand { .. })));
    assert!(same(header.root(), &old));
    assert_eq!(header.slots.len(), 3);
    let [broken, by_passphrase, _] = unlocks;
    let dropped = header.rotate_root(&[broken, command, by_passphrase], true).unwrap();
    assert_eq!(dropped.iter().map(|slot| slot.id).collect::<Vec<_>>(), [1]);
    assert!(!same(header.root(), &old));
}

#[test]
fn the_key_of_sealed_tenants_is_another_after_it_was_changed() {
    let (mut header, by_passphrase, _) = header();
    let old = header.tenant_seal_key.duplicate();
    let bytes = header.encode().unwrap();
    let (again, _) = OpenHeader::open(&bytes, &by_passphrase).unwrap();
    assert!(same(again.tenant_seal_key(), &old));
    header.change_tenant_seal_key().unwrap();
    assert!(!same(header.tenant_seal_key(), &old));
    let bytes = header.encode().unwrap();
    let (again, _) = OpenHeader::open(&bytes, &by_passphrase).unwrap();
    assert!(same(again.tenant_seal_key(), header.tenant_seal_key()));
}
