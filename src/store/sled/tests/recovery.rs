//! What an opening makes of parts that do not agree.

use std::collections::BTreeMap;

use super::*;
use crate::store::inspection::Part;

const PARTS: [&str; 3] = ["store", "journal", "anchor"];

fn put(store: &SledStore, commit: u8) {
    let mut pairs = Batch::default();
    pairs.put(Tree::Tenant, [commit], vec![commit; 300]);
    pairs.put(Tree::Tenant, *b"every time", [commit]);
    pairs.put(Tree::Token, [commit], *b"token");
    pairs.remove(Tree::Token, [commit.wrapping_sub(2)]);
    store.apply(pairs).unwrap();
}

pub(super) fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

pub(super) fn delete(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else if path.exists() {
        fs::remove_file(path).unwrap();
    }
}

type Content = Vec<(Tree, Pair)>;

/// A store with images of its parts after each of some openings, and what it held.
struct History {
    bench: Bench,
    images: tempfile::TempDir,
    contents: Vec<Vec<(Tree, Pair)>>,
}

impl History {
    /// Of `generations` openings with two commits each, except that the first has none.
    fn new(generations: u8) -> Self {
        let (bench, store) = Bench::new();
        let images = tempfile::tempdir().unwrap();
        let mut history = Self { bench, images, contents: Vec::new() };
        let mut store = Some(store);
        for generation in 0..generations {
            let store = store.take().unwrap_or_else(|| history.bench.open());
            if generation > 0 {
                put(&store, 2 * generation);
                put(&store, 2 * generation + 1);
            }
            history.contents.push(scanned(&store));
            drop(store);
            history.keep(usize::from(generation));
        }
        history
    }

    fn image(&self, generation: usize) -> std::path::PathBuf {
        self.images.path().join(generation.to_string())
    }

    fn keep(&self, generation: usize) {
        let image = self.image(generation);
        fs::create_dir(&image).unwrap();
        for part in PARTS {
            copy(&self.bench.path().join(part), &image.join(part));
        }
    }

    fn put_back(&self, part: &str, generation: usize) {
        let place = self.bench.path().join(part);
        delete(&place);
        copy(&self.image(generation).join(part), &place);
    }

    fn restore(&self) {
        for part in PARTS {
            self.put_back(part, self.contents.len() - 1);
        }
    }

    /// What there is after an opening, and which parts were repaired.
    fn outcome(&self) -> Result<(Content, Vec<Part>), Error> {
        let (store, repairs) = self.bench.try_open()?;
        // It is a store like any other afterwards.
        let found = scanned(&store);
        put(&store, 99);
        drop(store);
        let again = self.bench.open();
        assert_eq!(again.get(Tree::Tenant, b"every time").unwrap().unwrap(), [99]);
        Ok((found, repairs.iter().map(Repair::part).collect()))
    }

    fn current(&self) -> &[(Tree, Pair)] {
        self.contents.last().unwrap()
    }
}

#[test]
fn an_older_image_of_any_part_or_two_is_repaired_or_refused() {
    let history = History::new(4);
    let mut outcomes = BTreeMap::<_, u32>::new();
    let mut check = |name: &str| {
        match history.outcome() {
            Ok((found, _)) => {
                assert!(found == history.current(), "{name}: an older state was opened");
                *outcomes.entry("current").or_default() += 1;
            }
            Err(error @ (Error::RolledBack { newest: 6, .. } | Error::Damaged { .. })) => {
                assert_eq!(error.code(), crate::error::ErrorCode::IntegrityError);
                *outcomes.entry("refused").or_default() += 1;
            }
            Err(error) => panic!("{name}: {error:?}"),
        }
        history.restore();
    };
    for old in 0..3 {
        for (at, part) in PARTS.into_iter().enumerate() {
            history.put_back(part, old);
            check(&format!("{part} of {old}"));
            for other in &PARTS[at + 1..] {
                for other_old in 0..3 {
                    history.put_back(part, old);
                    history.put_back(other, other_old);
                    check(&format!("{part} of {old}, {other} of {other_old}"));
                }
            }
        }
    }
    assert_eq!(outcomes["current"] + outcomes["refused"], 9 + 27);
    // Each alone is made good, and so are two that the third can stand for.
    assert_eq!(outcomes["current"], 9 + 18);
}

#[test]
fn a_part_that_is_missing_is_made_anew_and_two_are_not() {
    let history = History::new(3);
    for (part, repaired) in
        [("store", Part::Manifest), ("journal", Part::Journal), ("anchor", Part::Anchor)]
    {
        delete(&history.bench.path().join(part));
        let (found, repairs) = history.outcome().unwrap();
        assert!(found == history.current());
        assert_eq!(repairs, [repaired]);
        history.restore();
    }
    let (found, repairs) = history.outcome().unwrap();
    assert!(found == history.current() && repairs.is_empty());
    history.restore();
    for (one, other) in [("store", "journal"), ("journal", "anchor"), ("anchor", "store")] {
        delete(&history.bench.path().join(one));
        delete(&history.bench.path().join(other));
        let error = history.bench.try_open().unwrap_err();
        assert!(matches!(error, Error::RolledBack { newest: 4, .. }), "{error:?}");
        assert!(error.to_string().contains("missing"), "{error}");
        history.restore();
    }
}

#[test]
fn a_refusal_says_what_is_behind_and_acceptance_goes_beyond_it() {
    let history = History::new(4);
    for part in ["store", "journal"] {
        history.put_back(part, 2);
    }
    let error = history.bench.try_open().unwrap_err();
    let expected = "commit 6 was made, 4 is what is there (journal 2 behind, at 4, engine 2 behind, \
                    at 4)";
    assert!(error.to_string().contains(expected), "{error}");

    let (store, repairs) =
        SledStore::open(&history.bench.directory, &key(), &OPTIONS, true).unwrap();
    assert!(scanned(&store) == history.contents[2]);
    assert!(repairs.iter().any(|repair| repair.to_string().contains("2 are lost")), "{repairs:?}");
    assert_eq!(store.condition().number, 7);
    drop(store);
    // What was given up does not come back.
    assert!(scanned(&history.bench.open()) == history.contents[2]);
    history.put_back("journal", 3);
    assert!(scanned(&history.bench.open()) == history.contents[2]);
}

#[test]
fn accepting_a_rollback_changes_nothing_where_there_is_none() {
    let history = History::new(2);
    let (store, repairs) =
        SledStore::open(&history.bench.directory, &key(), &OPTIONS, true).unwrap();
    assert!(repairs.is_empty());
    assert_eq!(store.condition().number, 2);
}

#[test]
fn an_engine_that_cannot_be_opened_is_made_anew_from_the_journal() {
    let history = History::new(3);
    let store = history.bench.directory.store_path();
    fs::write(store.join("db"), vec![0x5a; 1 << 20]).unwrap();
    let (found, repairs) = history.outcome().unwrap();
    assert!(found == history.current());
    assert_eq!(repairs, [Part::Manifest]);
    history.restore();
    for file in files(&store).unwrap() {
        File::create(file).unwrap();
    }
    let (found, repairs) = history.outcome().unwrap();
    assert!(found == history.current());
    assert_eq!(repairs, [Part::Manifest]);
}

/// The pairs of `store` as a backup has them.
fn backup(store: &SledStore) -> (u64, Vec<u8>) {
    let mut writer = crate::store::PairsWriter::new(Vec::new()).unwrap();
    let snapshot = store.walk().unwrap().finish().unwrap();
    for (tree, key, value) in &snapshot.changes {
        writer.put(*tree, key, value.as_deref().unwrap()).unwrap();
    }
    (snapshot.number, writer.finish(&snapshot.manifest).unwrap())
}

#[test]
fn a_store_whose_journal_was_released_is_rebuilt_from_the_backup_and_what_came_after() {
    let (bench, store) = Bench::new();
    put(&store, 1);
    let (_, early) = backup(&store);
    put(&store, 2);
    let (number, pairs) = backup(&store);
    // Whole segments go, so the one in use stays, with the commit after.
    store.rewrite().unwrap();
    store.release_journal(number).unwrap();
    put(&store, 3);
    let current = scanned(&store);
    drop(store);
    fs::remove_dir_all(bench.directory.store_path()).unwrap();

    let error = bench.try_open().unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    let rebuild = |pairs: &[u8], key: &IntegrityKey| {
        SledStore::rebuild(&bench.directory, key, &OPTIONS, &mut &*pairs)
    };
    let (other_bench, other) = Bench::new();
    put(&other, 5);
    let (_, foreign) = backup(&other);
    drop((other, other_bench));
    rebuild(&foreign, &key()).unwrap_err();
    rebuild(&early, &key()).unwrap_err();
    rebuild(&pairs, &IntegrityKey::new(&[8; 32])).unwrap_err();
    for length in [0, 3, pairs.len() / 2, pairs.len() - 1] {
        rebuild(&pairs[..length], &key()).unwrap_err();
    }
    let mut altered = pairs.clone();
    let at = altered.windows(8).position(|window| window == [2; 8]).unwrap();
    altered[at] = 3;
    rebuild(&altered, &key()).unwrap_err();

    let (store, repairs) = rebuild(&pairs, &key()).unwrap();
    assert!(scanned(&store) == current);
    assert_eq!(repairs.len(), 1);
    drop(store);
    assert!(scanned(&bench.open()) == current);
}

#[test]
fn a_store_without_journal_and_manifest_is_adopted_as_it_is() {
    let (bench, store) = Bench::new();
    put(&store, 1);
    let content = scanned(&store);
    drop(store);
    fs::remove_dir_all(bench.directory.journal_path()).unwrap();
    fs::remove_file(bench.directory.anchor_path()).unwrap();
    for _ in 0..2 {
        let refused = SledStore::adopt(&bench.directory, &key(), &OPTIONS, |lookup| {
            assert_eq!(lookup(Tree::Meta, b"no such key")?, None);
            Err(Error::TooLarge)
        });
        assert!(matches!(refused, Err(Error::TooLarge)));
        let store =
            SledStore::adopt(&bench.directory, &key(), &OPTIONS, |_| Ok::<_, Error>(())).unwrap();
        assert!(scanned(&store) == content);
    }
    // An adoption that is refused leaves what there is authentic.
    let other = IntegrityKey::new(&[8; IntegrityKey::LENGTH]);
    let refused = |_: &Lookup<'_>| Err(Error::TooLarge);
    SledStore::adopt(&bench.directory, &other, &OPTIONS, refused).unwrap_err();
    assert!(scanned(&bench.open()) == content);
    fs::remove_dir_all(bench.directory.store_path()).unwrap();
    assert!(scanned(&bench.open()) == content);
}

#[test]
fn the_key_decides_what_is_authentic() {
    let history = History::new(2);
    let other = IntegrityKey::new(&[8; IntegrityKey::LENGTH]);
    let error = SledStore::open(&history.bench.directory, &other, &OPTIONS, false).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    // Nothing was written on the way.
    let (found, repairs) = history.outcome().unwrap();
    assert!(found == history.current() && repairs.is_empty());
}
