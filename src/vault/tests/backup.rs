//! Backups: made, tried, restored, refused; known, scheduled, forgotten.

use std::cell::Cell;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use super::keys::{OTHER, check_all, filled, open_passphrase, passphrase, reseal_all};
use super::*;
use crate::store;
use crate::vault::backup::{
    self, BackupId, BackupPart, BackupProgress, Drill, Due, KnownBackup, NewBackup, Restoration,
    Schedule,
};

fn go_on(_: BackupProgress) -> bool {
    true
}

impl Bench {
    fn backup_path(&self, name: &str) -> PathBuf {
        self.parent.path().join(name)
    }

    /// Tries a backup without the vault.
    fn try_backup(&self, path: &Path, unlock: &Unlock) -> Result<Drill, Error> {
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        backup::verify(path, unlock, None, &clock, &mut go_on)
    }

    /// Restores a backup into another directory.
    fn restore(&self, path: &Path, unlock: &Unlock) -> Result<(Self, Restoration), Error> {
        let other = Self {
            parent: tempfile::tempdir().unwrap(),
            clock: Arc::<ManualClock>::clone(&self.clock),
        };
        let directory = DataDir::create(other.path())?;
        let options = store::Options::default();
        let restoration = Restoration::prepare(path, directory, unlock, options, &mut go_on)?;
        Ok((other, restoration))
    }

    fn restored(&self, path: &Path) -> Self {
        let (other, restoration) = self.restore(path, &passphrase(PASSPHRASE)).unwrap();
        assert!(!other.path().join("header").exists());
        restoration.commit().unwrap();
        other
    }

    /// What is beside the data directory.
    fn beside(&self) -> Vec<String> {
        let entries = fs::read_dir(self.parent.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "data");
        names.sort();
        names
    }
}

fn new<'a>(path: &'a Path, unlock: Option<&'a Unlock>) -> NewBackup<'a> {
    let cost = KdfCost::insecure_for_tests();
    NewBackup { path, unlock, slot: None, cost, verifies: true, is_scheduled: false }
}

impl TenantCredentialVault {
    /// Makes a backup, and the slot for it as well.
    fn back_up(&self, path: &Path) -> KnownBackup {
        let unlock = passphrase(PASSPHRASE);
        self.create_backup(&new(path, Some(&unlock)), &mut go_on).unwrap()
    }
}

/// Lengths of head, pairs, keyring and certificates.
fn parts(bytes: &[u8]) -> [usize; 4] {
    let number = |at: usize, length: usize| {
        bytes[at..at + length].iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let end = bytes.len() - 32;
    [41 + number(37, 4), number(end - 24, 8), number(end - 16, 8), number(end - 8, 8)]
}

#[test]
fn a_backup_restored_elsewhere_is_the_same_vault() {
    let (bench, vault) = filled(20);
    let removed = id("tenant019");
    let certificate =
        &vault.remove_tenants(&passphrase(PASSPHRASE), std::slice::from_ref(&removed)).unwrap()[0];
    let counted = id("tenant000");
    let born = vault.tenant(&counted).unwrap().created_at;
    vault.save_counts(&[(&counted, born)], |_| b"used".to_vec()).unwrap();
    let path = bench.backup_path("one.backup");
    let made = vault.back_up(&path);
    assert_eq!(made.bytes, fs::metadata(&path).unwrap().len());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(made.verified_at, Some(bench.clock.now()));
    assert_eq!(bench.beside(), ["one.backup"], "neither a part of it nor a scratch place is left");

    let drill = bench.try_backup(&path, &passphrase(PASSPHRASE)).unwrap();
    assert_eq!((drill.id, drill.commit, drill.records), (made.id, made.commit, made.records));
    assert_eq!((drill.tenants, drill.tokens, drill.certificates), (19, 19, 1));
    // A directory, a configuration, three secrets; a token. Of one, what it has used.
    assert_eq!(drill.opened, 19 * 6 + 1);

    let other = bench.restored(&path);
    let restored = other.unseal();
    check_all(&restored, 19);
    assert_eq!(restored.counts(&counted).unwrap().unwrap(), b"used");
    assert_eq!(restored.store_id(), vault.store_id());
    assert_eq!(restored.certificate_key().unwrap(), vault.certificate_key().unwrap());
    assert!(matches!(restored.import(vec![postgres("tenant019")]), Err(Error::Removed { .. })));
    let kept = restored.directory().certificates_path();
    let kept = fs::read_dir(kept).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    assert_eq!(kept.collect::<Vec<_>>(), [certificate.as_str().as_bytes()]);
    // It is a vault like any other: it changes, and is backed up without a key.
    restored.import(vec![postgres("tenant020")]).unwrap();
    drop(restored);
    let restored = other.unseal();
    assert_eq!(restored.tenants().unwrap().len(), 20);
    let again = other.backup_path("two.backup");
    restored.create_backup(&new(&again, None), &mut go_on).unwrap();
    assert_eq!(bench.try_backup(&again, &passphrase(PASSPHRASE)).unwrap().tenants, 20);
}

#[test]
fn an_empty_vault_is_backed_up_and_restored() {
    let bench = Bench::new();
    let vault = bench.unseal();
    let path = bench.backup_path("empty");
    vault.back_up(&path);
    assert_eq!(bench.restored(&path).unseal().tenants().unwrap(), []);
}

#[test]
fn a_key_is_needed_once_and_the_slot_can_be_changed() {
    let (bench, vault) = filled(2);
    let [first, second, third, fourth] = ["1", "2", "3", "4"].map(|name| bench.backup_path(name));
    let refused = vault.create_backup(&new(&first, None), &mut go_on).unwrap_err();
    assert!(matches!(refused, Error::BackupSlotMissing), "{refused}");
    let wrong = passphrase(OTHER);
    let refused = vault.create_backup(&new(&first, Some(&wrong)), &mut go_on).unwrap_err();
    assert!(matches!(refused, Error::WrongPassphrase), "{refused}");
    assert!(!vault.has_backup_slot().unwrap());
    assert_eq!(bench.beside(), [""; 0]);

    vault.back_up(&first);
    drop(vault);
    let vault = bench.unseal();
    vault.create_backup(&new(&second, None), &mut go_on).unwrap();

    let unlock = passphrase(PASSPHRASE);
    let cost = KdfCost::insecure_for_tests();
    let slot = NewSlot::Passphrase { passphrase: OTHER.into(), cost };
    let changed = NewBackup { slot: Some(&slot), ..new(&third, Some(&unlock)) };
    vault.create_backup(&changed, &mut go_on).unwrap();
    let keyless = NewBackup { unlock: None, path: &fourth, ..changed };
    let refused = vault.create_backup(&keyless, &mut go_on).unwrap_err();
    assert!(matches!(refused, Error::BackupSlotMissing), "{refused}");
    let file = KeyFile::generate().unwrap();
    let slot = NewSlot::KeyFile(file.duplicate());
    let changed = NewBackup { slot: Some(&slot), ..new(&fourth, Some(&unlock)) };
    vault.create_backup(&changed, &mut go_on).unwrap();

    let key_file = Unlock::KeyFile(file);
    let (old, other) = (passphrase(PASSPHRASE), passphrase(OTHER));
    for (path, key) in [(&first, &old), (&second, &old), (&third, &other), (&fourth, &key_file)] {
        assert_eq!(bench.try_backup(path, key).unwrap().tenants, 2);
        for wrong in [&old, &other, &key_file].into_iter().filter(|it| !std::ptr::eq(*it, key)) {
            let refused = bench.try_backup(path, wrong).unwrap_err();
            assert!(matches!(refused, Error::WrongPassphrase | Error::WrongKey(_)), "{refused}");
        }
        // The vault knows the present slot only.
        let tried = vault.verify_backup(path, None, None, &mut go_on);
        match tried {
            Ok(_) => assert_eq!(path, &fourth),
            Err(error) => assert!(matches!(error, Error::BackupKeyNeeded), "{error}"),
        }
        vault.verify_backup(path, Some(key), None, &mut go_on).unwrap();
    }
    for slot in [
        NewSlot::Shares { threshold: 2, count: 3 },
        NewSlot::Command(KeyCommand::new(vec!["cat".to_owned()]).unwrap()),
    ] {
        let path = bench.backup_path("5");
        let changed = NewBackup { slot: Some(&slot), ..new(&path, Some(&unlock)) };
        let refused = vault.create_backup(&changed, &mut go_on).unwrap_err();
        assert!(matches!(refused, Error::BackupSlotKind), "{refused}");
    }
}

#[test]
fn an_old_backup_opens_with_the_passphrase_of_then() {
    let (bench, vault) = filled(3);
    let path = bench.backup_path("old");
    vault.back_up(&path);
    let cost = KdfCost::insecure_for_tests();
    vault.change_passphrase(&PASSPHRASE.into(), &OTHER.into(), cost).unwrap();
    vault.rotate_root(&[passphrase(OTHER)], false, true).unwrap();
    reseal_all(&vault);
    check_all(&bench.restored(&path).unseal(), 3);
    assert!(matches!(bench.try_backup(&path, &passphrase(OTHER)), Err(Error::WrongPassphrase)));
}

#[test]
fn a_sealed_tenant_stays_sealed_in_a_backup_and_opens_where_it_is_restored() {
    let (bench, vault) = filled(3);
    let sealed = id("tenant001");
    // Once with the slot that was there before the keys changed, once with the one of after.
    for (round, reseals) in [("before", false), ("after", true)] {
        if reseals {
            vault.back_up(&bench.backup_path("to have a slot"));
            vault.rotate_root(&[passphrase(PASSPHRASE)], false, true).unwrap();
            reseal_all(&vault);
            assert!(vault.has_backup_slot().unwrap());
        }
        vault.seal_tenant(&passphrase(PASSPHRASE), &sealed).unwrap();
        let path = bench.backup_path(round);
        vault.back_up(&path);
        let drill = vault.verify_backup(&path, None, None, &mut go_on).unwrap();
        assert_eq!((drill.tenants, drill.unopened_tenants), (3, 1), "the vault cannot open it");
        let drill = bench.try_backup(&path, &passphrase(PASSPHRASE)).unwrap();
        assert_eq!((drill.tenants, drill.unopened_tenants), (3, 0));
        let other = bench.restored(&path);
        let restored = other.unseal();
        assert!(matches!(restored.credentials(&sealed), Err(Error::TenantSealed(_))));
        restored.unseal_tenant(&passphrase(PASSPHRASE), &sealed).unwrap();
        check_all(&restored, 3);
        vault.unseal_tenant(&passphrase(PASSPHRASE), &sealed).unwrap();
    }
}

#[test]
fn a_rotation_without_the_backups_key_leaves_no_slot_and_forgets_no_backup() {
    let (bench, vault) = filled(2);
    let unlock = passphrase(PASSPHRASE);
    let cost = KdfCost::insecure_for_tests();
    let slot = NewSlot::Passphrase { passphrase: OTHER.into(), cost };
    let path = bench.backup_path("one");
    vault
        .create_backup(&NewBackup { slot: Some(&slot), ..new(&path, Some(&unlock)) }, &mut go_on)
        .unwrap();
    let before = vault.backups().unwrap();
    vault.rotate_root(&[passphrase(PASSPHRASE)], false, false).unwrap();
    assert!(vault.has_backup_slot().unwrap(), "the keys in it are as they were");
    vault.rotate_root(&[passphrase(PASSPHRASE)], false, true).unwrap();
    assert!(!vault.has_backup_slot().unwrap());
    assert!(reseal_all(&vault) > 0);
    drop(vault);
    // Its record is under the new key: the old ones are destroyed.
    assert_eq!(bench.unseal().backups().unwrap(), before);
}

#[test]
fn a_backup_replaces_no_file_but_what_a_killed_one_left() {
    let (bench, vault) = filled(1);
    let path = bench.backup_path("one");
    fs::write(&path, "a letter").unwrap();
    let refused = vault.create_backup(&new(&path, None), &mut go_on).unwrap_err();
    assert!(matches!(refused, Error::BackupExists { .. }), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), b"a letter");
    fs::remove_file(&path).unwrap();

    fs::write(bench.backup_path("one.partial"), "half a backup").unwrap();
    let left = bench.backup_path("one.drill");
    drop(DataDir::create(&left).unwrap());
    fs::write(left.join("store"), "half a store").unwrap();
    vault.back_up(&path);
    assert_eq!(bench.beside(), ["one"]);
    // A drill that somebody is at is left alone.
    let held = DataDir::create(&left).unwrap();
    let refused = bench.try_backup(&path, &passphrase(PASSPHRASE)).unwrap_err();
    assert!(matches!(refused, Error::Store(store::Error::InUse { .. })), "{refused}");
    drop(held);
    bench.try_backup(&path, &passphrase(PASSPHRASE)).unwrap();

    for path in ["relative", "/", ""] {
        let refused = vault.create_backup(&new(Path::new(path), None), &mut go_on).unwrap_err();
        assert!(matches!(refused, Error::BackupPath), "{path}: {refused}");
    }
    let nowhere = bench.backup_path("none/one");
    let refused = vault.create_backup(&new(&nowhere, None), &mut go_on).unwrap_err();
    assert!(matches!(refused, Error::Store(store::Error::Io { .. })), "{refused}");
    assert_eq!(vault.backups().unwrap().len(), 1);
}

#[test]
fn what_is_interrupted_leaves_nothing() {
    let (bench, vault) = filled(3);
    let path = bench.backup_path("one");
    let unlock = passphrase(PASSPHRASE);
    let create = || {
        let mut stop = |_: BackupProgress| false;
        vault.create_backup(&new(&path, Some(&unlock)), &mut stop)
    };
    assert!(matches!(create(), Err(Error::BackupInterrupted)));
    assert_eq!((bench.beside(), vault.backups().unwrap()), (Vec::new(), Vec::new()));

    // In every step of it: the backup is there or not, and what is there is good.
    let steps = Cell::new(0);
    for last in 0.. {
        steps.set(0);
        let made = vault.create_backup(&new(&path, Some(&unlock)), &mut |_| {
            steps.set(steps.get() + 1);
            steps.get() <= last
        });
        match made {
            Ok(_) => break,
            Err(Error::BackupInterrupted) => assert_eq!(bench.beside(), [""; 0]),
            Err(Error::BackupNotVerified { .. }) => {
                assert_eq!(bench.beside(), ["one"]);
                assert_eq!(vault.backups().unwrap()[0].verified_at, None);
                bench.try_backup(&path, &unlock).unwrap();
                fs::remove_file(&path).unwrap();
                let id = vault.backups().unwrap()[0].id;
                vault.forget_backup(id).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(steps.get() > 3);

    let directory = DataDir::create(bench.backup_path("restored")).unwrap();
    let options = store::Options::default();
    let refused =
        Restoration::prepare(&path, directory, &unlock, options, &mut |_| false).unwrap_err();
    assert!(matches!(refused, Error::BackupInterrupted), "{refused}");
    // The place can be used again.
    drop(DataDir::create(bench.backup_path("restored")).unwrap());
}

#[test]
fn sealing_the_vault_ends_a_backup() {
    let (bench, vault) = filled(1);
    let path = bench.backup_path("one");
    let unlock = passphrase(PASSPHRASE);
    let made = vault.create_backup(&new(&path, Some(&unlock)), &mut |_| {
        vault.seal();
        true
    });
    assert!(matches!(made, Err(Error::Sealed)), "{made:?}");
    assert_eq!(bench.beside(), [""; 0]);
    assert!(matches!(vault.create_backup(&new(&path, None), &mut go_on), Err(Error::Sealed)));
    assert!(matches!(vault.backups(), Err(Error::Sealed)));
}

#[test]
fn what_is_restored_has_to_have_the_place_for_itself() {
    let (bench, vault) = filled(1);
    let path = bench.backup_path("one");
    vault.back_up(&path);
    drop(vault);
    let directory = DataDir::open(bench.path()).unwrap();
    let (unlock, options) = (passphrase(PASSPHRASE), store::Options::default());
    let refused = Restoration::prepare(&path, directory, &unlock, options, &mut go_on).unwrap_err();
    assert!(matches!(refused, Error::Store(store::Error::AlreadyInitialised { .. })), "{refused}");
    check_all(&bench.unseal(), 1);

    // Nothing is kept of what is not finished, or not allowed.
    let (other, restoration) = bench.restore(&path, &unlock).unwrap();
    assert!(matches!(other.sealed(), Err(Error::Store(store::Error::NotInitialised { .. }))));
    drop(restoration);
    drop(DataDir::create(other.path()).unwrap());
    assert!(matches!(bench.restore(&path, &passphrase(OTHER)), Err(Error::WrongPassphrase)));
}

/// A backup, and what a copy of it with these bytes is worth.
fn tampered(bench: &Bench, bytes: &[u8], unlock: &Unlock) -> Result<Drill, Error> {
    let path = bench.backup_path("tampered");
    fs::write(&path, bytes).unwrap();
    let tried = bench.try_backup(&path, unlock);
    let restored = bench.restore(&path, unlock);
    assert_eq!(tried.is_ok(), restored.is_ok());
    tried
}

impl TenantCredentialVault {
    /// A backup that opens with a key file: at whatever costs its bytes say, there is no passphrase.
    fn back_up_with_key_file(&self, path: &Path) -> Unlock {
        let file = KeyFile::generate().unwrap();
        let slot = NewSlot::KeyFile(file.duplicate());
        let unlock = passphrase(PASSPHRASE);
        let new = NewBackup { slot: Some(&slot), ..new(path, Some(&unlock)) };
        self.create_backup(&new, &mut go_on).unwrap();
        Unlock::KeyFile(file)
    }
}

fn assert_refused(result: Result<Drill, Error>, what: &str) {
    match result {
        // A slot does not say whether it is damaged or the passphrase is wrong.
        Err(
            Error::BackupDamaged { .. }
            | Error::UnsupportedVersion("backup" | "header")
            | Error::WrongPassphrase
            | Error::WrongKey(_),
        ) => {}
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn a_backup_with_another_bit_anywhere_is_refused() {
    let (bench, vault) = filled(1);
    let path = bench.backup_path("one");
    let unlock = vault.back_up_with_key_file(&path);
    let bytes = fs::read(&path).unwrap();
    let head = parts(&bytes)[0];
    let ends = (0..head * 8).chain((bytes.len() - 84) * 8..bytes.len() * 8);
    for bit in ends.chain((head * 8..(bytes.len() - 84) * 8).step_by(97)) {
        let mut altered = bytes.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &altered).unwrap();
        let tried = bench.try_backup(&path, &unlock);
        assert_refused(tried, &format!("bit {bit} of {}", bytes.len() * 8));
        assert_eq!(bench.beside(), ["one"]);
    }
    for at in (0..bytes.len()).step_by(bytes.len() / 20) {
        let mut altered = bytes.clone();
        altered[at] ^= 0xff;
        assert_refused(tampered(&bench, &altered, &unlock), &format!("byte {at}"));
    }
    tampered(&bench, &bytes, &unlock).unwrap();
}

#[test]
fn a_backup_that_is_cut_or_followed_by_something_is_refused() {
    let (bench, vault) = filled(1);
    let path = bench.backup_path("one");
    let unlock = vault.back_up_with_key_file(&path);
    let bytes = fs::read(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for length in (0..bytes.len()).rev() {
        file.set_len(length as u64).unwrap();
        let tried = bench.try_backup(&path, &unlock);
        assert_refused(tried, &format!("{length} bytes of {}", bytes.len()));
    }
    file.write_all_at(&bytes, 0).unwrap();
    bench.try_backup(&path, &unlock).unwrap();
    assert_refused(tampered(&bench, &[&bytes[..], b"x"].concat(), &unlock), "a byte more");
    assert_refused(tampered(&bench, &[&bytes[..], &bytes[..]].concat(), &unlock), "twice");
    assert_refused(tampered(&bench, b"", &unlock), "nothing");
    let directory = bench.try_backup(bench.parent.path(), &unlock);
    assert_refused(directory, "a directory");
}

#[test]
fn backups_put_together_from_several_are_refused() {
    let (bench, vault) = filled(2);
    let unlock = passphrase(PASSPHRASE);
    let [one, two] = ["one", "two"].map(|name| bench.backup_path(name));
    vault.back_up(&one);
    vault.rotate_tenant_key(&id("tenant001")).unwrap();
    reseal_all(&vault);
    vault.back_up(&two);
    let [one, two] = [&one, &two].map(|path| fs::read(path).unwrap());
    let split = |bytes: &[u8]| {
        let mut rest = bytes;
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        for length in parts(bytes) {
            let (piece, following) = rest.split_at(length);
            pieces.push(piece.to_vec());
            rest = following;
        }
        let (trailer, mac) = rest.split_at(rest.len() - 32);
        pieces.push(trailer.to_vec());
        pieces.push(mac.to_vec());
        pieces
    };
    let (one, two) = (split(&one), split(&two));
    // Both are under the same slot, and have the same lengths but for the pairs.
    for taken in 0..1_u8 << one.len() {
        let piece = |at: usize| if taken >> at & 1 == 0 { &one[at] } else { &two[at] };
        let mut pieces: Vec<Vec<u8>> = (0..one.len()).map(|at| piece(at).clone()).collect();
        // So that the lengths are right.
        let pairs = pieces[1].len() as u64;
        pieces[4][28..36].copy_from_slice(&pairs.to_be_bytes());
        let bytes = pieces.concat();
        let is_whole = pieces == one || pieces == two;
        match tampered(&bench, &bytes, &unlock) {
            Ok(_) => assert!(is_whole, "{taken:b}"),
            refused => {
                assert!(!is_whole, "{taken:b}");
                assert_refused(refused, &format!("{taken:b}"));
            }
        }
    }
    // Two records change places.
    let mut swapped = one.clone();
    let pairs = &mut swapped[1];
    let (first, second) = (pairs.len() / 4, pairs.len() / 2);
    for at in 0..100 {
        pairs.swap(first + at, second + at);
    }
    assert_refused(tampered(&bench, &swapped.concat(), &unlock), "records that changed places");
}

#[test]
fn a_refusal_names_the_part_and_the_way_out() {
    let (bench, vault) = filled(1);
    let path = bench.backup_path("one");
    vault.back_up(&path);
    let bytes = fs::read(&path).unwrap();
    let mut altered = bytes.clone();
    altered[parts(&bytes)[0] + 50] ^= 1;
    let unlock = passphrase(PASSPHRASE);
    let error = tampered(&bench, &altered, &unlock).unwrap_err();
    assert!(matches!(error, Error::BackupDamaged { part: BackupPart::Seal, .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::IntegrityError);
    let text = error.to_string();
    assert!(text.contains("tampered") && text.contains("use another one"), "{text}");
    let other = b"not a backup at all, but long enough to be looked at";
    let error = tampered(&bench, other, &unlock).unwrap_err();
    assert!(matches!(error, Error::BackupDamaged { part: BackupPart::Head, .. }), "{error}");
    let mut newer = bytes;
    newer[4] = 2;
    assert!(matches!(tampered(&bench, &newer, &unlock), Err(Error::UnsupportedVersion("backup"))));
}

#[test]
fn neither_a_secret_nor_a_tenant_id_is_in_a_backup_or_left_beside_it() {
    let (bench, vault) = filled(2);
    let path = bench.backup_path("one");
    vault.back_up(&path);
    let bytes = fs::read(&path).unwrap();
    for text in [CANARY, "tenant000", "db.example.com", PASSPHRASE, "tok_"] {
        assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
    }
}

#[test]
fn backups_are_known_until_their_file_is_gone_and_they_are_forgotten() {
    let (bench, vault) = filled(1);
    let [one, two] = ["one", "two"].map(|name| bench.backup_path(name));
    let first = vault.back_up(&one);
    bench.clock.advance(Duration::from_mins(1));
    let unverified = NewBackup { verifies: false, ..new(&two, None) };
    let second = vault.create_backup(&unverified, &mut go_on).unwrap();
    assert_eq!(second.verified_at, None);
    assert_eq!(vault.backups().unwrap(), [first.clone(), second.clone()]);
    drop(vault);

    let vault = bench.unseal();
    assert_eq!(vault.backups().unwrap(), [first.clone(), second.clone()]);
    assert!(first.is_there() && second.is_there());
    // A drill makes it known as good, and where it is by now.
    let moved = bench.backup_path("moved");
    fs::rename(&two, &moved).unwrap();
    assert!(!second.is_there());
    vault.verify_backup(&moved, None, None, &mut go_on).unwrap();
    let listed = &vault.backups().unwrap()[1];
    assert_eq!(listed.verified_at, Some(bench.clock.now()));
    assert!(listed.path == moved && listed.is_there());

    let refused = vault.forget_backup(first.id).unwrap_err();
    assert!(matches!(refused, Error::BackupThere { .. }), "{refused}");
    // Something else of that name is not it.
    fs::copy(&moved, &one).unwrap();
    assert_eq!(vault.forget_backup(first.id).unwrap(), first);
    assert!(matches!(vault.forget_backup(first.id), Err(Error::NoSuchBackup)));
    assert_eq!(vault.backups().unwrap().len(), 1);
    assert_eq!(BackupId::parse(&first.id.to_string()), Some(first.id));
    for text in ["", "00", &"g".repeat(32), &"A".repeat(32), &"0".repeat(33)] {
        assert_eq!(BackupId::parse(text), None, "{text}");
    }
}

#[test]
fn a_deletion_certificate_names_the_backups_that_hold_the_tenant() {
    let (bench, vault) = filled(1);
    let step = || bench.clock.advance(Duration::from_mins(1));
    step();
    vault.back_up(&bench.backup_path("without it"));
    step();
    vault.import(vec![postgres("tenant001")]).unwrap();
    step();
    let gone = vault.back_up(&bench.backup_path("gone"));
    fs::remove_file(&gone.path).unwrap();
    vault.forget_backup(gone.id).unwrap();
    let held = vault.back_up(&bench.backup_path("with it"));
    step();
    let unlock = passphrase(PASSPHRASE);
    let line = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("backups that still hold it: "));
        line.unwrap().to_owned()
    };
    let certificates = vault.remove_tenants(&unlock, &[id("tenant001")]).unwrap();
    let named = line(certificates[0].as_str());
    assert!(named.contains("with it") && named.contains(&held.created_at.to_string()), "{named}");
    assert!(named.contains(&format!("commit {}", held.commit)), "{named}");
    assert!(!named.contains("without it") && !named.contains("gone"), "{named}");
    step();
    vault.back_up(&bench.backup_path("afterwards"));
    // Repeated, it does not know any more when there was the tenant, but when there was none.
    let certificates = vault.remove_tenants(&unlock, &[id("tenant001")]).unwrap();
    let named = line(certificates[0].as_str());
    assert!(named.contains("without it") && !named.contains("afterwards"), "{named}");
    let (sealed, bench) = (id("tenant000"), &bench);
    vault.seal_tenant(&unlock, &sealed).unwrap();
    let certificates = vault.remove_tenants(&unlock, &[sealed]).unwrap();
    assert!(line(certificates[0].as_str()).contains("afterwards"));
    drop(vault);
    let vault = bench.unseal();
    vault.import(vec![postgres("tenant002")]).unwrap();
    let certificates = vault.remove_tenants(&unlock, &[id("tenant002")]).unwrap();
    assert!(!line(certificates[0].as_str()).contains("gone"));
}

#[test]
fn a_schedule_makes_tries_and_deletes_its_own_backups_only() {
    let (bench, vault) = filled(1);
    let directory = bench.backup_path("backups");
    fs::create_dir(&directory).unwrap();
    let schedule = Schedule { directory, every: Duration::from_hours(6), keep: 2 };
    assert!(matches!(vault.due_backup(&schedule), Err(Error::BackupSlotMissing)));
    let own = vault.back_up(&schedule.directory.join("own"));
    let mut made = Vec::new();
    for _ in 0..4 {
        assert_eq!(vault.next_backup_at(&schedule).unwrap(), bench.clock.now());
        let Some(Due::Create(path)) = vault.due_backup(&schedule).unwrap() else {
            panic!("none is due")
        };
        // The drill is left for later, as after a failure.
        let scheduled = NewBackup { is_scheduled: true, verifies: false, ..new(&path, None) };
        vault.create_backup(&scheduled, &mut go_on).unwrap();
        assert_eq!(vault.due_backup(&schedule).unwrap(), Some(Due::Verify(path.clone())));
        vault.verify_backup(&path, None, None, &mut go_on).unwrap();
        assert_eq!(vault.due_backup(&schedule).unwrap(), None);
        made.push(path);
        bench.clock.advance(Duration::from_hours(6));
    }
    let surplus = vault.surplus_backups(&schedule).unwrap();
    let paths: Vec<_> = surplus.iter().map(|backup| backup.path.clone()).collect();
    assert_eq!(paths, made[..2]);
    // What somebody has put in its place stays.
    fs::write(&made[0], "a letter").unwrap();
    assert!(matches!(vault.delete_backup(surplus[0].id), Err(Error::NoSuchBackup)));
    assert!(made[0].exists());
    assert!(matches!(vault.delete_backup(own.id), Err(Error::NoSuchBackup)));
    vault.delete_backup(surplus[1].id).unwrap();
    assert!(!made[1].exists() && made[2].exists() && own.is_there());
    assert_eq!(vault.surplus_backups(&schedule).unwrap(), []);
    // On a disk that is not mounted they do not count, and are not forgotten.
    let known = vault.backups().unwrap().len();
    for path in &made[2..] {
        fs::rename(path, path.with_extension("away")).unwrap();
    }
    assert_eq!(vault.surplus_backups(&schedule).unwrap(), []);
    assert_eq!(vault.backups().unwrap().len(), known);
    assert_eq!(open_passphrase(&vault, "tenant000").unwrap(), CANARY);
}

/// While `writers` run, backups are made until each writer is done.
#[test]
fn a_backup_made_while_writers_run_hard_is_exactly_one_commit() {
    let (bench, vault) = filled(8);
    vault.back_up(&bench.backup_path("slot"));
    let number = |index: usize| format!("tenant{index:03}");
    let running = std::sync::atomic::AtomicUsize::new(4);
    let made = std::thread::scope(|scope| {
        for writer in 0..4_usize {
            let (vault, running, number) = (&vault, &running, &number);
            scope.spawn(move || {
                for round in 0..40 {
                    // Two tenants always change together: their versions are never apart in a commit.
                    let pair = [writer * 2, writer * 2 + 1].map(|index| {
                        let mut tenant = postgres(&number(index));
                        target(&mut tenant).port = 5_433 + round;
                        tenant
                    });
                    vault.import(pair.into()).unwrap();
                    let secret = format!("{writer} {round}");
                    let token = token(&format!("tok_{secret}"), &number(writer));
                    vault.put_token(secret.as_bytes(), &token).unwrap();
                    if round % 10 == 5 {
                        vault.rotate_tenant_key(&id(&number(writer * 2))).unwrap();
                        vault.reseal(100).unwrap();
                    }
                }
                running.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
            });
        }
        let mut made = Vec::new();
        while running.load(std::sync::atomic::Ordering::Acquire) > 0 {
            let path = bench.backup_path(&made.len().to_string());
            let unverified = NewBackup { verifies: false, ..new(&path, None) };
            made.push(vault.create_backup(&unverified, &mut go_on).unwrap());
        }
        made
    });
    assert!(made.len() > 2, "{}", made.len());
    assert!(made.is_sorted_by(|one, next| one.commit < next.commit));
    let few = made.len().div_ceil(6);
    for backup in made.iter().step_by(few) {
        let drill = bench.try_backup(&backup.path, &passphrase(PASSPHRASE)).unwrap();
        assert_eq!((drill.commit, drill.records), (backup.commit, backup.records));
        let restored = bench.restored(&backup.path);
        let restored = restored.unseal();
        for writer in 0..4 {
            let [one, other] = [writer * 2, writer * 2 + 1].map(|index| {
                let stored = restored.tenant(&id(&number(index))).unwrap();
                (stored.version, stored.config.connection)
            });
            let port = |connection: &Connection| match connection {
                Connection::Postgres(target) => target.port,
                Connection::Sqlite { .. } => 0,
            };
            assert_eq!((one.0, port(&one.1)), (other.0, port(&other.1)));
        }
    }
}

/// A backup of version 1 opens and is restored for ever. `UPDATE=1 cargo test --lib golden` writes it if
/// it is not there.
#[test]
fn a_golden_backup_is_restored() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/backup_1.backup");
    if std::env::var_os("UPDATE").is_some() && !golden.exists() {
        let (_bench, vault) = filled(2);
        vault.seal_tenant(&passphrase(PASSPHRASE), &id("tenant001")).unwrap();
        vault.back_up(&golden);
    }
    let bench = Bench::new();
    let path = bench.backup_path("golden");
    fs::copy(golden, &path).unwrap();
    let drill = bench.try_backup(&path, &passphrase(PASSPHRASE)).unwrap();
    assert_eq!((drill.tenants, drill.unopened_tenants, drill.tokens), (2, 0, 2));
    let other = bench.restored(&path);
    let restored = other.unseal();
    restored.unseal_tenant(&passphrase(PASSPHRASE), &id("tenant001")).unwrap();
    check_all(&restored, 2);
}
