use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::store::pairs::PairsReader;

#[test]
fn every_version_is_described_in_migrations_and_every_description_is_known() {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/store");
    let mut described: Vec<String> = fs::read_dir(parent)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .inspect(|path| assert!(path.join("layout.md").is_file(), "{}", path.display()))
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    described.sort();
    let known = MIGRATIONS.iter().map(|migration| (migration.to, migration.name));
    let known = [(INITIAL, "initial")].into_iter().chain(known);
    let known: Vec<_> = known.map(|(number, name)| format!("{number:04}-{name}")).collect();
    assert_eq!(described, known);
    assert!(MIGRATIONS.is_sorted_by(|one, next| one.to + 1 == next.to));
}

/// A made-up third version, where tenants are called by upper case, and a fourth without the meta
/// tree.
const MADE_UP: &[Migration] = &[
    MIGRATIONS[0],
    Migration {
        to: 3,
        name: "upper-case",
        step: Step::Changes(|pairs| {
            let mut batch = Batch::default();
            for pair in pairs {
                let (tree, (key, value)) = pair?;
                if tree == Tree::Tenant {
                    batch.put(tree, key.to_ascii_uppercase(), value);
                    batch.remove(tree, key);
                }
            }
            Ok(batch)
        }),
    },
    Migration {
        to: 4,
        name: "no-meta",
        step: Step::Changes(|pairs| {
            let mut batch = Batch::default();
            for pair in pairs {
                let (tree, (key, _)) = pair?;
                if tree == Tree::Meta {
                    batch.remove(tree, key);
                }
            }
            Ok(batch)
        }),
    },
];

type Pairs = BTreeMap<(Tree, Vec<u8>), Vec<u8>>;

fn pairs(all: &[(Tree, &str, &str)]) -> Pairs {
    let pair = |(tree, key, value): &(Tree, &str, &str)| ((*tree, (*key).into()), (*value).into());
    all.iter().map(pair).collect()
}

/// The made-up store, of version 2 and of version 4.
fn before() -> Pairs {
    pairs(&[(Tree::Meta, "m", "1"), (Tree::Tenant, "a", "2"), (Tree::Tenant, "b", "3")])
}

fn after() -> Pairs {
    pairs(&[(Tree::Tenant, "A", "2"), (Tree::Tenant, "B", "3")])
}

/// A store in memory whose commits fail, before or after they are made, once there were `commits`.
struct Model {
    pairs: Pairs,
    version: u32,
    commits: usize,
    fails_at: Option<(usize, Moment)>,
    /// A damaged pair.
    fails_to_read: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    Before,
    After,
}

impl Model {
    fn of_version(version: u32, pairs: Pairs) -> Self {
        Self { pairs, version, commits: 0, fails_at: None, fails_to_read: false }
    }
}

impl Versioned for Model {
    fn version(&self) -> u32 {
        self.version
    }

    fn pairs(&self) -> Box<super::Pairs<'_>> {
        let pairs = self.pairs.iter();
        let pairs = pairs.map(|((tree, key), value)| Ok((*tree, (key.clone(), value.clone()))));
        let damaged = self.fails_to_read.then_some(Err(Error::ReadOnly));
        Box::new(pairs.chain(damaged))
    }

    fn manifest(&self) -> Result<Vec<u8>, Error> {
        Ok(format!("manifest of version {}", self.version).into())
    }

    fn commit(&mut self, batch: &Batch, version: u32) -> Result<(), Error> {
        let failure = self.fails_at.filter(|(at, _)| *at == self.commits).map(|(_, moment)| moment);
        self.commits += 1;
        if failure == Some(Moment::Before) {
            return Err(Error::ReadOnly);
        }
        for (tree, key, value) in batch.changes() {
            match value {
                Some(value) => self.pairs.insert((tree, key.to_vec()), value.to_vec()),
                None => self.pairs.remove(&(tree, key.to_vec())),
            };
        }
        self.version = version;
        if failure == Some(Moment::After) { Err(Error::ReadOnly) } else { Ok(()) }
    }
}

/// The pairs and the manifest in an export.
fn exported(path: &Path) -> (Pairs, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let mut reader = PairsReader::new(bytes.as_slice()).unwrap();
    let mut pairs = Pairs::new();
    while let Some(entry) = reader.next().unwrap() {
        pairs.insert((entry.tree, entry.key), entry.value.unwrap());
    }
    (pairs, reader.manifest().unwrap().to_vec())
}

fn exports() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let exports = parent.path().join("exports");
    (parent, exports)
}

#[test]
fn an_old_store_takes_every_step_once_and_is_exported_before_the_first() {
    let (_parent, exports) = exports();
    let mut store = Model::of_version(2, before());
    run(&mut store, &exports, MADE_UP).unwrap();
    assert_eq!((&store.pairs, store.version, store.commits), (&after(), 4, 2));
    let manifest = b"manifest of version 2".to_vec();
    assert_eq!(exported(&exports.join("store-2.pairs")), (before(), manifest));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&exports), mode(&exports.join("store-2.pairs"))), (0o700, 0o600));
    assert_eq!(fs::read_dir(&exports).unwrap().count(), 1);

    run(&mut store, &exports, MADE_UP).unwrap();
    assert_eq!(store.commits, 2);
}

#[test]
fn a_store_of_the_present_version_or_above_is_neither_changed_nor_exported() {
    for version in [4, 5] {
        let (_parent, exports) = exports();
        let mut store = Model::of_version(version, before());
        run(&mut store, &exports, MADE_UP).unwrap();
        assert_eq!((&store.pairs, store.version, store.commits), (&before(), version, 0));
        assert!(!exports.exists());
    }
}

#[test]
fn a_failure_at_any_write_of_any_step_leaves_a_store_that_the_next_opening_brings_to_the_end() {
    for at in 0..2 {
        for moment in [Moment::Before, Moment::After] {
            let (_parent, exports) = exports();
            let mut store = Model::of_version(2, before());
            store.fails_at = Some((at, moment));
            run(&mut store, &exports, MADE_UP).unwrap_err();
            let done = u32::try_from(at).unwrap() + u32::from(moment == Moment::After);
            assert_eq!(store.version, 2 + done);
            store.fails_at = None;
            run(&mut store, &exports, MADE_UP).unwrap();
            assert_eq!((&store.pairs, store.version), (&after(), 4), "{at} {moment:?}");
            // As it was before the first step, whatever came after it.
            assert_eq!(exported(&exports.join("store-2.pairs")).0, before());
        }
    }
}

#[test]
fn without_an_export_of_all_pairs_no_step_is_taken() {
    let (parent, exports) = exports();
    let mut store = Model::of_version(2, before());
    store.fails_to_read = true;
    run(&mut store, &exports, MADE_UP).unwrap_err();
    assert!(!exports.join("store-2.pairs").exists());
    store.fails_to_read = false;
    run(&mut store, &parent.path().join("missing/exports"), MADE_UP).unwrap_err();
    assert_eq!((&store.pairs, store.version, store.commits), (&before(), 2, 0));
    // What was cut off is replaced.
    run(&mut store, &exports, MADE_UP).unwrap();
    assert_eq!(exported(&exports.join("store-2.pairs")).0, before());
    assert_eq!(fs::read_dir(&exports).unwrap().count(), 1);
}

#[test]
fn exports_are_overwritten_and_removed() {
    let (parent, exports) = exports();
    erase_exports(&exports).unwrap();
    run(&mut Model::of_version(2, before()), &exports, MADE_UP).unwrap();
    let link = parent.path().join("link");
    fs::hard_link(exports.join("store-2.pairs"), &link).unwrap();
    erase_exports(&exports).unwrap();
    assert!(!exports.exists());
    assert!(fs::read(&link).unwrap().iter().all(|byte| *byte == 0));
}
