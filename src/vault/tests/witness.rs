//! Older copies that are put back, and crashes while header and keyring are replaced.

use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::super::witness::Part;
use super::keys::{OTHER, check_all, filled, open_passphrase, passphrase, reseal_all};
use super::*;
use crate::store::{Condition, Pair, Walk};

/// The files of a data directory, by path, without those that belong to no state of it.
type Image = BTreeMap<PathBuf, Vec<u8>>;

fn image(directory: &Path) -> Image {
    fn collect(root: &Path, directory: &Path, image: &mut Image) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(root, &path, image);
            } else if let Ok(bytes) = fs::read(&path) {
                image.insert(path.strip_prefix(root).unwrap().to_owned(), bytes);
            }
        }
    }
    let mut image = Image::new();
    collect(directory, directory, &mut image);
    for name in ["attempts", "lock", "ballast"] {
        image.remove(Path::new(name));
    }
    image
}

/// What is to be seen of a vault from outside, but for its slots.
fn data(vault: &TenantCredentialVault) -> String {
    let tenants = vault.tenants().unwrap();
    let secrets: Vec<_> =
        tenants.iter().map(|tenant| open_passphrase(vault, tenant.id.as_str()).ok()).collect();
    let stored: Vec<_> = tenants.iter().map(|tenant| vault.tenant(&tenant.id).ok()).collect();
    format!("{stored:#?}{secrets:?}{:?}", vault.tokens().unwrap())
}

impl Bench {
    /// The same vault in another directory.
    fn of(image: &Image) -> Self {
        let start = Timestamp::from_second(1_795_305_600).unwrap();
        let bench =
            Self { parent: tempfile::tempdir().unwrap(), clock: Arc::new(ManualClock::new(start)) };
        for (name, bytes) in image {
            let path = bench.path().join(name);
            let parent = path.parent().unwrap();
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).unwrap();
            fs::write(path, bytes).unwrap();
        }
        bench
    }

    /// Unseals with whichever passphrase does. Otherwise, why not.
    fn unseal_anyhow(&self) -> Result<TenantCredentialVault, Vec<Error>> {
        let mut errors = Vec::new();
        for text in [PASSPHRASE, OTHER] {
            match self.unseal_with(text) {
                Ok(vault) => return Ok(vault),
                Err(error) => errors.push(error),
            }
        }
        Err(errors)
    }

    fn put_back(&self, name: &str, former: &[u8]) {
        fs::write(self.path().join(name), former).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap()
    }
}

/// A store that keeps an image of the directory from before and after each batch: every state of
/// header and keyring that a crash could leave.
#[derive(Clone, Debug)]
struct Watched {
    inner: Arc<SledStore>,
    path: PathBuf,
    images: Arc<Mutex<Vec<Image>>>,
}

impl Watched {
    fn new(inner: SledStore, path: &Path) -> Self {
        Self { inner: Arc::new(inner), path: path.to_owned(), images: Arc::default() }
    }

    fn watch(&self) {
        self.images.lock().unwrap().push(image(&self.path));
    }
}

impl Store for Watched {
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, store::Error> {
        self.inner.get(tree, key)
    }

    fn scan(&self, tree: Tree, prefix: &[u8]) -> Result<Vec<Pair>, store::Error> {
        self.inner.scan(tree, prefix)
    }

    fn scan_after(
        &self,
        tree: Tree,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, store::Error> {
        self.inner.scan_after(tree, after, limit)
    }

    fn apply(&self, batch: Batch) -> Result<(), store::Error> {
        self.watch();
        self.inner.apply(batch)?;
        self.watch();
        Ok(())
    }

    fn apply_large(&self, batch: store::LargeBatch) -> Result<(), store::Error> {
        self.watch();
        self.inner.apply_large(batch)?;
        self.watch();
        Ok(())
    }

    fn rewrite(&self) -> Result<(), store::Error> {
        self.watch();
        self.inner.rewrite()?;
        self.watch();
        Ok(())
    }

    fn walk(&self) -> Result<Box<dyn Walk>, store::Error> {
        self.inner.walk()
    }

    fn condition(&self) -> Condition {
        self.inner.condition()
    }

    fn release_journal(&self, number: u64) -> Result<(), store::Error> {
        self.inner.release_journal(number)
    }
}

type Operation = (&'static str, fn(&TenantCredentialVault) -> Result<(), Error>);

/// Everything that changes something, to be done in this order. Afterwards, `OTHER` opens.
const OPERATIONS: [Operation; 18] = [
    ("import", |vault| vault.import(vec![postgres("tenant000"), postgres("tenant001")]).map(drop)),
    ("token", |vault| vault.put_token(b"tenant000", &token("tok_1", "tenant000"))),
    ("change", |vault| {
        let mut tenant = postgres("tenant001");
        tenant.credentials.db_password = Some("changed".into());
        vault.import(vec![tenant]).map(drop)
    }),
    ("disable", |vault| vault.set_enabled(&id("tenant001"), false)),
    ("enable", |vault| vault.set_enabled(&id("tenant001"), true)),
    ("add slot", |vault| {
        let new = NewSlot::passphrase(&OTHER.into(), KdfCost::insecure_for_tests());
        vault.add_slot(&passphrase(PASSPHRASE), &new).map(drop)
    }),
    ("remove slot", |vault| vault.remove_slot(&passphrase(PASSPHRASE), 1).map(drop)),
    ("change passphrase", |vault| {
        let cost = KdfCost::insecure_for_tests();
        vault.change_passphrase(&PASSPHRASE.into(), &OTHER.into(), cost).map(drop)
    }),
    ("rotate tenant key", |vault| vault.rotate_tenant_key(&id("tenant000")).map(drop)),
    ("reseal", |vault| vault.reseal(100).map(drop)),
    ("rotate root", |vault| vault.rotate_root(&[passphrase(OTHER)], false, false).map(drop)),
    ("rotate everything", |vault| vault.rotate_root(&[passphrase(OTHER)], false, true).map(drop)),
    ("reseal everything", |vault| {
        reseal_all(vault);
        Ok(())
    }),
    ("seal tenant", |vault| vault.seal_tenant(&passphrase(OTHER), &id("tenant001"))),
    ("unseal tenant", |vault| vault.unseal_tenant(&passphrase(OTHER), &id("tenant001"))),
    ("remove tenant", |vault| {
        vault.remove_tenants(&passphrase(OTHER), &[id("tenant000")]).map(drop)
    }),
    ("readmit", |vault| vault.readmit(&[id("tenant000")])),
    ("import again", |vault| vault.import(vec![postgres("tenant000")]).map(drop)),
];

/// What the store names `part` by.
fn named(vault: &TenantCredentialVault, part: &str) -> Vec<u8> {
    vault.store().unwrap().get(Tree::Meta, part.as_bytes()).unwrap().unwrap()
}

/// Opens what a crash left, twice: as before the operation or as after it, with one header and one
/// keyring that belong to the store.
fn check_crash(image: &Image, states: [&str; 2], what: &str) {
    let bench = Bench::of(image);
    for _ in 0..2 {
        let vault = bench.unseal_anyhow().unwrap_or_else(|errors| panic!("{what}: {errors:?}"));
        let data = data(&vault);
        assert!(states.contains(&data.as_str()), "{what}: {data}");
        let lengths = ["header", "keyring"].map(|part| named(&vault, part).len());
        assert_eq!(lengths, [32, 32], "{what}");
    }
}

#[test]
fn a_crash_at_any_step_of_any_change_leaves_a_vault_that_opens_as_it_was_or_as_it_should_be() {
    let bench = Bench::new();
    let mut points = 0;
    for (name, operation) in OPERATIONS {
        let vault = bench.sealed().unwrap();
        let store = Watched::new(engine(&vault), &bench.path());
        assert!(vault.witness.set(vault.witness_of(store.clone())).is_ok());
        let unsealed = [PASSPHRASE, OTHER].iter().any(|it| vault.unseal(&passphrase(it)).is_ok());
        assert!(unsealed, "{name}");
        let before = data(&vault);
        store.images.lock().unwrap().clear();
        operation(&vault).unwrap();
        store.watch();
        let after = data(&vault);
        drop(vault);
        for image in store.images.lock().unwrap().drain(..) {
            check_crash(&image, [&before, &after], name);
            points += 1;
        }
    }
    assert!(points > 100, "{points}");
}

/// [`TenantCredentialVault::engine`] with whichever passphrase opens.
fn engine(vault: &TenantCredentialVault) -> SledStore {
    let header = root::read_header(&vault.directory).unwrap();
    let open = |text: &&str| OpenHeader::open(&header, &passphrase(text)).ok();
    let (header, _) = [PASSPHRASE, OTHER].iter().find_map(open).unwrap();
    vault.engine(&header)
}

/// How thoroughly older copies are put back.
#[derive(Clone, Copy, PartialEq)]
enum Thoroughness {
    /// The state before, at each step: header and keyring with whatever else. A few former states at
    /// the end: every two of header, keyring and the parts of the store.
    Parts,
    /// The same with every former state at the end, and with every file of the store by itself.
    Files,
}

/// What can be put back by itself, and differs.
fn units(current: &Image, former: &Image, thoroughness: Thoroughness) -> Vec<PathBuf> {
    let paths = current.keys().chain(former.keys());
    let paths =
        paths.filter(|path| !path.starts_with("audit") && !path.starts_with("certificates"));
    let units: BTreeSet<PathBuf> = paths
        .flat_map(|path| {
            let file = (thoroughness == Thoroughness::Files).then(|| path.clone());
            file.into_iter().chain([path.iter().next().unwrap().into()])
        })
        .collect();
    units.into_iter().filter(|unit| mixed(current, former, &[unit]) != *current).collect()
}

/// One, two, and header and keyring with another one.
fn sets(units: &[PathBuf]) -> Vec<Vec<&PathBuf>> {
    let file = |name: &str| units.iter().find(|unit| **unit == Path::new(name));
    let both = file("header").zip(file("keyring"));
    let with_both = units.iter().filter_map(|unit| both.map(|(one, two)| vec![one, two, unit]));
    let pairs = units
        .iter()
        .enumerate()
        .flat_map(|(number, one)| units[number..].iter().map(move |other| vec![one, other]));
    pairs.chain(with_both).collect()
}

/// `current` with what `former` has at each of `units`.
fn mixed(current: &Image, former: &Image, units: &[&PathBuf]) -> Image {
    let is_put_back = |path: &PathBuf| units.iter().any(|unit| path.starts_with(unit));
    let kept = current.iter().filter(|(path, _)| !is_put_back(path));
    let put_back = former.iter().filter(|(path, _)| is_put_back(path));
    kept.chain(put_back).map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
}

fn check_put_back(current: &Image, state: &str, former: &Image, units: &[&PathBuf], what: &str) {
    let mixed = mixed(current, former, units);
    let bench = Bench::of(&mixed);
    match bench.unseal_anyhow() {
        Ok(vault) => {
            assert_eq!(data(&vault), state, "{what}, {units:?}");
            for file in ["header", "keyring"] {
                assert_eq!(bench.read(file), current[Path::new(file)], "{what}, {units:?}");
            }
        }
        Err(errors) => {
            let is_named = errors.iter().any(|error| error.code() == ErrorCode::IntegrityError);
            assert!(is_named, "{what}, {units:?}: {errors:?}");
        }
    }
}

fn put_back_after_each_operation(thoroughness: Thoroughness) -> usize {
    let bench = Bench::new();
    let mut images = vec![("nothing", image(&bench.path()))];
    let mut checked = 0;
    for (number, (name, operation)) in OPERATIONS.into_iter().enumerate() {
        let vault = bench.unseal_anyhow().unwrap();
        operation(&vault).unwrap();
        let state = data(&vault);
        drop(vault);
        let current = image(&bench.path());
        let is_last = number + 1 == OPERATIONS.len();
        let formers = match thoroughness {
            _ if !is_last => images[images.len() - 1..].iter().step_by(1),
            Thoroughness::Parts => images[..].iter().step_by(4),
            Thoroughness::Files => images[..].iter().step_by(1),
        };
        for (former_name, former) in formers {
            let what = format!("{name}, back to {former_name}");
            let units = units(&current, former, thoroughness);
            for set in sets(&units) {
                let is_file =
                    |unit: &&PathBuf| unit.ends_with("header") || unit.ends_with("keyring");
                if is_last || thoroughness == Thoroughness::Files || set.iter().any(is_file) {
                    check_put_back(&current, &state, former, &set, &what);
                    checked += 1;
                }
            }
        }
        images.push((name, current));
    }
    checked
}

#[test]
fn every_older_copy_of_a_part_or_two_is_refused_or_makes_no_difference() {
    let checked = put_back_after_each_operation(Thoroughness::Parts);
    assert!(checked >= 100, "{checked}");
}

#[test]
#[ignore = "some thousand openings: minutes"]
fn every_older_copy_of_a_file_or_two_of_every_state_is_refused_or_makes_no_difference() {
    let checked = put_back_after_each_operation(Thoroughness::Files);
    assert!(checked >= 1_000, "{checked}");
}

#[test]
fn an_older_keyring_is_accepted_when_told_and_the_newer_one_is_refused_from_then_on() {
    let (bench, vault) = filled(2);
    let former = bench.read("keyring");
    vault.rotate_tenant_key(&id("tenant000")).unwrap();
    drop(vault);
    let newer = bench.read("keyring");
    bench.put_back("keyring", &former);
    let error = bench.unseal_with(PASSPHRASE).unwrap_err();
    assert!(matches!(error, Error::KeyringOutdated), "{error:?}");
    assert_eq!(error.code(), ErrorCode::IntegrityError);
    assert!(error.to_string().contains("--accept-rollback"));

    let vault = bench.sealed().unwrap();
    let wrong = vault.unseal_accepting_rollback(&passphrase(OTHER));
    assert!(matches!(wrong, Err(Error::WrongPassphrase)));
    let unsealing = vault.unseal_accepting_rollback(&passphrase(PASSPHRASE)).unwrap();
    assert!(matches!(&unsealing.accepted[..], [one] if one.contains("keyring")), "{unsealing:?}");
    check_all(&vault, 2);
    drop(vault);
    let vault = bench.sealed().unwrap();
    assert_eq!(vault.unseal(&passphrase(PASSPHRASE)).unwrap(), Unsealing::default());
    drop(vault);
    bench.put_back("keyring", &newer);
    assert!(matches!(bench.unseal_with(PASSPHRASE), Err(Error::KeyringOutdated)));
}

#[test]
fn accepting_a_rollback_where_there_is_none_accepts_nothing() {
    let (bench, vault) = filled(1);
    drop(vault);
    let vault = bench.sealed().unwrap();
    let unsealing = vault.unseal_accepting_rollback(&passphrase(PASSPHRASE)).unwrap();
    assert_eq!(unsealing, Unsealing::default());
}

#[test]
fn what_does_not_fit_together_is_not_accepted_and_the_newer_state_is_not_forgotten() {
    let bench = Bench::new();
    let former = bench.read("keyring");
    bench.unseal().import(vec![postgres("tenant001")]).unwrap();
    let newer = bench.read("keyring");
    bench.put_back("keyring", &former);
    let vault = bench.sealed().unwrap();
    let refused = vault.unseal_accepting_rollback(&passphrase(PASSPHRASE));
    assert!(matches!(refused, Err(Error::KeyringOutdated)), "a tenant without a key");
    drop(vault);
    bench.put_back("keyring", &newer);
    bench.unseal().credentials(&id("tenant001")).unwrap();
}

#[test]
fn a_header_put_back_under_a_running_vault_opens_nothing_and_changes_nothing() {
    let (bench, vault) = filled(1);
    let former = bench.read("header");
    let cost = KdfCost::insecure_for_tests();
    vault.change_passphrase(&PASSPHRASE.into(), &OTHER.into(), cost).unwrap();
    let present = bench.read("header");
    let new = NewSlot::passphrase(&"a third one, rather long".into(), cost);
    for is_sealed in [false, true] {
        bench.put_back("header", &former);
        if is_sealed {
            vault.seal();
        }
        let unlock = passphrase(PASSPHRASE);
        for refused in [
            vault.unseal(&unlock).map(drop),
            vault.add_slot(&unlock, &new).map(drop),
            vault.remove_slot(&unlock, 0).map(drop),
            vault.change_passphrase(&PASSPHRASE.into(), &OTHER.into(), cost).map(drop),
            vault.rotate_root(&[unlock], false, false).map(drop),
        ] {
            assert!(matches!(refused, Err(Error::HeaderOutdated)), "{refused:?}");
        }
        assert_eq!(bench.read("header"), former);
        bench.put_back("header", &present);
        vault.unseal(&passphrase(OTHER)).unwrap();
    }
    check_all(&vault, 1);
}

#[test]
fn slots_change_while_the_vault_is_sealed_and_the_store_knows_it() {
    let (bench, vault) = filled(1);
    drop(vault);
    let cost = KdfCost::insecure_for_tests();
    let former = bench.read("header");
    let vault = bench.sealed().unwrap();
    let new = NewSlot::passphrase(&OTHER.into(), cost);
    vault.add_slot(&passphrase(PASSPHRASE), &new).unwrap();
    vault.remove_slot(&passphrase(OTHER), 0).unwrap();
    assert!(vault.is_sealed());
    assert!(matches!(vault.tenants(), Err(Error::Sealed)));
    drop(vault);
    let present = bench.read("header");
    bench.put_back("header", &former);
    let vault = bench.sealed().unwrap();
    let refused = vault.add_slot(&passphrase(PASSPHRASE), &new);
    assert!(matches!(refused, Err(Error::HeaderOutdated)), "{refused:?}");
    drop(vault);
    bench.put_back("header", &present);
    check_all(&bench.unseal_with(OTHER).unwrap(), 1);
}

#[test]
fn a_replacement_that_failed_is_found_out_about_and_the_next_one_succeeds() {
    let (bench, vault) = filled(1);
    let (unlock, tenant) = (passphrase(PASSPHRASE), id("tenant000"));
    for part in ["header", "keyring"] {
        let change = || match part {
            "header" => {
                let new = NewSlot::KeyFile(KeyFile::generate().unwrap());
                vault.add_slot(&unlock, &new).map(drop)
            }
            _ => vault.rotate_tenant_key(&tenant).map(drop),
        };
        let (obstacle, former) = (bench.path().join(format!("{part}.new")), bench.read(part));
        fs::create_dir(&obstacle).unwrap();
        let failed = change();
        assert!(matches!(failed, Err(Error::Store(store::Error::Io { .. }))), "{failed:?}");
        assert_eq!(named(&vault, part).len(), 64, "one of two");
        fs::remove_dir(&obstacle).unwrap();
        assert_eq!(bench.read(part), former);
        change().unwrap();
        assert_ne!(bench.read(part), former);
        assert_eq!(named(&vault, part).len(), 32);
    }
    drop(vault);
    check_all(&bench.unseal(), 1);
}

/// A vault as version 2 of the keyring left it, with two tenants.
fn former_version() -> Bench {
    let (bench, vault) = filled(2);
    let keyring = vault.inside(|vault| {
        let writing = vault.writing();
        vault.keyring().encode_2(vault.store_id(), &writing.keyring_key)
    });
    let mut unnamed = Batch::default();
    unnamed.remove(Tree::Meta, "header");
    unnamed.remove(Tree::Meta, "keyring");
    vault.store().unwrap().apply(unnamed).unwrap();
    drop(vault);
    bench.put_back("keyring", &keyring);
    bench
}

#[test]
fn a_store_that_nothing_authenticates_yet_is_adopted_once_and_its_former_files_are_refused() {
    let bench = former_version();
    let former = ["header", "keyring"].map(|name| bench.read(name));
    check_all(&bench.unseal(), 2);
    let present = ["header", "keyring"].map(|name| bench.read(name));
    assert_eq!((former[1][4], present[1][4]), (2, 4));
    for (header, keyring) in
        [(&former[0], &former[1]), (&former[0], &present[1]), (&present[0], &former[1])]
    {
        bench.put_back("header", header);
        bench.put_back("keyring", keyring);
        let error = bench.unseal_with(PASSPHRASE).unwrap_err();
        assert_eq!(error.code(), ErrorCode::IntegrityError, "{error:?}");
    }
    bench.put_back("header", &present[0]);
    bench.put_back("keyring", &present[1]);
    check_all(&bench.unseal(), 2);
}

#[test]
fn a_slot_is_added_to_a_former_versions_vault_while_it_is_sealed() {
    let bench = former_version();
    let vault = bench.sealed().unwrap();
    let new = NewSlot::passphrase(&OTHER.into(), KdfCost::insecure_for_tests());
    vault.add_slot(&passphrase(PASSPHRASE), &new).unwrap();
    assert!(vault.is_sealed());
    drop(vault);
    check_all(&bench.unseal_with(OTHER).unwrap(), 2);
}

#[test]
fn a_keyring_of_version_3_is_brought_to_this_one_also_in_the_middle_of_a_move() {
    for is_moving in [false, true] {
        let (bench, vault) = filled(5);
        vault.seal_tenant(&passphrase(PASSPHRASE), &id("tenant004")).unwrap();
        if is_moving {
            vault.unseal_tenant(&passphrase(PASSPHRASE), &id("tenant004")).unwrap();
            vault.rotate_root(&[passphrase(PASSPHRASE)], false, true).unwrap();
            vault.reseal(1).unwrap();
        }
        let state = data(&vault);
        vault.inside(|vault| {
            let mut writing = vault.writing();
            // Nobody's: of an import that failed.
            let unused = id("tenant999");
            vault.change_keyring(&mut writing, |keyring| keyring.get_or_create(&unused)).unwrap();
            let bytes = vault.keyring().encode_3(vault.store_id(), &writing.keyring_key);
            vault.witness.replace(Part::Keyring, &bytes).unwrap();
            vault.witness.settle().unwrap();
        });
        drop(vault);
        assert_eq!(bench.read("keyring")[4], 3);
        let vault = bench.unseal();
        assert_eq!(data(&vault), state);
        assert_eq!(bench.read("keyring")[4], 4);
        let keys = vault.inside(|vault| vault.keyring().tenants().count());
        assert_eq!(keys, if is_moving { 5 } else { 4 }, "nobody's are gone");
        while !vault.reseal(100).unwrap().is_done() {}
        drop(vault);
        assert_eq!(data(&bench.unseal()), state);
    }
}

#[test]
fn a_former_keyring_under_a_running_vault_is_refused_even_when_rollbacks_are_accepted() {
    let (bench, vault) = filled(1);
    let present = bench.read("keyring");
    let former = vault.inside(|vault| {
        let writing = vault.writing();
        vault.keyring().encode_2(vault.store_id(), &writing.keyring_key)
    });
    vault.seal();
    bench.put_back("keyring", &former);
    let refused = vault.unseal_accepting_rollback(&passphrase(PASSPHRASE));
    assert!(matches!(refused, Err(Error::KeyringOutdated)), "{refused:?}");
    bench.put_back("keyring", &present);
    vault.unseal(&passphrase(PASSPHRASE)).unwrap();
    check_all(&vault, 1);
}

#[test]
fn a_crash_at_any_step_of_an_adoption_leaves_a_vault_that_is_adopted_again() {
    let bench = former_version();
    let vault = bench.sealed().unwrap();
    let unlock = passphrase(PASSPHRASE);
    let (mut header, _, bytes) = vault.open_header(std::slice::from_ref(&unlock)).unwrap();
    let mut opened = vault.open_below(&bytes, &header, Rollback::Refused).unwrap();
    let (key, options) = (opened.keyring.integrity_key(), vault.options.store);
    // Watched from here on.
    opened.witness = vault.witness_of(MemoryStore::default());
    let inner = SledStore::adopt(&vault.directory, &key, &options, |_| Ok::<_, Error>(())).unwrap();
    let store = Watched::new(inner, &bench.path());
    opened.witness = vault.witness_of(store.clone());
    opened.witness.accept(Part::Header, &bytes);
    opened.witness.accept(Part::Keyring, &bench.read("keyring"));
    let (unsealed, accepted) = vault.load(&mut header, opened).unwrap();
    assert_eq!(accepted, [""; 0]);
    drop(unsealed);
    vault.unseal(&unlock).unwrap();
    let state = data(&vault);
    drop(vault);
    let images = std::mem::take(&mut *store.images.lock().unwrap());
    assert_eq!(images.len(), 8, "two headers, a keyring, and the end");
    for image in images {
        check_crash(&image, [&state, &state], "adoption");
    }
}

#[test]
fn an_older_vault_without_its_anchor_is_refused_and_accepted_as_a_whole() {
    let (bench, vault) = filled(2);
    let before = data(&vault);
    drop(vault);
    let former = image(&bench.path());
    let vault = bench.unseal();
    vault.set_enabled(&id("tenant000"), false).unwrap();
    let new = NewSlot::passphrase(&OTHER.into(), KdfCost::insecure_for_tests());
    vault.add_slot(&passphrase(PASSPHRASE), &new).unwrap();
    drop(vault);
    let newer = image(&bench.path());
    let parts = ["header", "keyring", "store", "journal"].map(PathBuf::from);
    let bench = Bench::of(&mixed(&newer, &former, &parts.each_ref()));

    let vault = bench.sealed().unwrap();
    let refused = vault.unseal(&passphrase(PASSPHRASE));
    assert!(matches!(refused, Err(Error::Store(store::Error::RolledBack { .. }))), "{refused:?}");
    assert!(vault.is_sealed());
    let unsealing = vault.unseal_accepting_rollback(&passphrase(PASSPHRASE)).unwrap();
    assert!(!unsealing.repairs.is_empty());
    assert_eq!(unsealing.accepted, [""; 0], "its header and keyring belong to it");
    assert_eq!(data(&vault), before);
    drop(vault);
    bench.unseal();
    // What was newer is older now.
    let accepted = image(&bench.path());
    let bench = Bench::of(&mixed(&accepted, &newer, &parts.each_ref()));
    let refused = bench.unseal_with(PASSPHRASE);
    assert!(matches!(refused, Err(Error::Store(store::Error::RolledBack { .. }))), "{refused:?}");
}

#[test]
fn what_was_repaired_is_told_once_by_the_next_unsealing() {
    let (bench, vault) = filled(1);
    drop(vault);
    let unlock = passphrase(PASSPHRASE);
    for opens_for_a_slot in [false, true] {
        fs::remove_file(bench.path().join("anchor")).unwrap();
        let vault = bench.sealed().unwrap();
        if opens_for_a_slot {
            let new = NewSlot::KeyFile(KeyFile::generate().unwrap());
            vault.add_slot(&unlock, &new).unwrap();
        }
        let repairs = vault.unseal(&unlock).unwrap().repairs;
        assert_eq!(repairs.len(), 1, "{repairs:?}");
        vault.seal();
        assert_eq!(vault.unseal(&unlock).unwrap(), Unsealing::default());
        drop(vault);
        assert_eq!(bench.sealed().unwrap().unseal(&unlock).unwrap(), Unsealing::default());
    }
}
