//! Commits between the steps of a rewriting.

use std::collections::BTreeSet;
use std::sync::Mutex;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::super::super::DataDir;
use super::super::super::engine::Difference;
use super::super::super::tests::{OPTIONS, key as key_of_store};
use super::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn content(store: &dyn Store) -> Model {
    store.scan(Tree::Tenant, b"").unwrap().into_iter().collect()
}

/// A change of one key; `None` removes it.
type Changing = (u32, Option<String>);

/// Applies `changes` to the store, in one large batch if `is_large`, and to `model`.
fn apply(
    bench: &Bench,
    store: &SledStore,
    model: &mut Model,
    changes: &[Changing],
    is_large: bool,
) {
    let mut batch = Batch::default();
    for (number, generation) in changes {
        if let Some(generation) = generation {
            batch.put(Tree::Tenant, key(*number), canary(*number, generation));
            model.insert(key(*number), canary(*number, generation));
        } else {
            batch.remove(Tree::Tenant, key(*number));
            model.remove(&key(*number));
        }
    }
    if is_large {
        let mut large = bench.directory.large_batch().unwrap();
        let last: BTreeMap<_, _> =
            changes.iter().map(|(number, to)| (key(*number), (number, to))).collect();
        for (name, (number, generation)) in last {
            match generation {
                Some(to) => large.put(Tree::Tenant, &name, &canary(*number, to)).unwrap(),
                None => large.remove(Tree::Tenant, &name).unwrap(),
            }
        }
        store.apply_large(large).unwrap();
    } else {
        store.apply(batch).unwrap();
    }
}

#[test]
fn commits_reads_and_walks_go_on_between_any_two_steps_of_a_rewriting() {
    let (bench, store) = Bench::new();
    put(&store, 0..3_000, "first");
    let mut walk = store.walk().unwrap();
    let mut walked = BTreeMap::new();
    let (mut steps, mut commits) = (0, store.condition().number);
    let rewritten = store.rewrite_with(&mut || {
        steps += 1;
        put(&store, 3_000 + steps..3_001 + steps, "first");
        commits += 1;
        assert_eq!(store.condition().number, commits);
        let read = store.get(Tree::Tenant, &key(3_000 + steps)).unwrap();
        assert_eq!(read, Some(canary(3_000 + steps, "first")));
        walked.extend(walk.next().unwrap().into_iter().map(|(_, pair)| pair));
    });
    rewritten.unwrap();
    // 3,000 pairs are copied in six steps, and come to the base in as many.
    assert!(steps >= 12, "{steps}");
    let expected = content(&store);
    assert_eq!(expected.len(), 3_000 + usize::try_from(steps).unwrap());
    let end = walk.finish().unwrap();
    assert_eq!(end.number, commits);
    walked.extend(end.changes.into_iter().map(|(_, name, value)| (name, value.unwrap())));
    assert!(walked == expected);
    drop(store);
    let (store, repairs) = bench.try_open().unwrap();
    assert!(repairs.is_empty(), "{repairs:?}");
    assert!(content(&store) == expected);
}

#[test]
fn one_rewriting_begins_after_the_other() {
    let (_bench, store) = Bench::new();
    put(&store, 0..600, "first");
    let order = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for name in 0..3 {
            let (store, order) = (&store, &order);
            scope.spawn(move || {
                store.rewrite_with(&mut || order.lock().unwrap().push(name)).unwrap();
            });
        }
    });
    let mut order = order.into_inner().unwrap();
    order.dedup();
    assert_eq!(order.len(), 3, "{order:?}");
}

/// A copy of the data directory as it is at this moment.
fn image(path: &Path) -> (tempfile::TempDir, DataDir) {
    let temporary = tempfile::tempdir().unwrap();
    let directory = DataDir::create(temporary.path().join("data")).unwrap();
    for name in ["store", "store.new", "journal"] {
        if path.join(name).exists() {
            copy_directory(&path.join(name), &directory.path().join(name));
        }
    }
    fs::copy(path.join("anchor"), directory.path().join("anchor")).unwrap();
    (temporary, directory)
}

#[test]
fn a_kill_between_any_two_steps_leaves_a_store_that_opens_as_its_last_commit() {
    let (bench, store) = Bench::new();
    let mut model = Model::new();
    let all: Vec<_> = (0..1_200).map(|number| (number, Some("first".to_owned()))).collect();
    apply(&bench, &store, &mut model, &all, false);
    let mut step = 0;
    let rewritten = store.rewrite_with(&mut || {
        step += 1;
        let changes = [(step, None), (step + 600, Some("second".to_owned()))];
        apply(&bench, &store, &mut model, &changes, false);
        let (_temporary, directory) = image(bench.path());
        let (store, _) = SledStore::open(&directory, &key_of_store(), &OPTIONS, false).unwrap();
        assert!(content(&store) == model, "step {step}");
        assert!(!directory.path().join("store.new").exists());
        assert!(!directory.journal_path().join("base.new").exists());
    });
    rewritten.unwrap();
    assert!(step >= 9, "{step}");
    assert!(content(&store) == model);
}

/// The numbers of the values of `generation` of which a part is in any file.
fn found(bench: &Bench, generation: &str) -> BTreeSet<u32> {
    let parts = ["head", "tail"].map(|part| format!("{generation}-{part}-").into_bytes());
    let mut found = BTreeSet::new();
    for file in contents(bench.path()) {
        for (at, window) in file.windows(parts[0].len()).enumerate() {
            if parts.iter().any(|part| part == window) {
                let digits = &file[at + window.len()..][..5];
                found.insert(std::str::from_utf8(digits).unwrap().parse().unwrap());
            }
        }
    }
    found
}

fn changing(generation: &'static str) -> impl Strategy<Value = (Vec<Changing>, bool)> {
    let change = (0..1_400_u32, any::<bool>());
    let change =
        change.prop_map(move |(number, puts)| (number, puts.then(|| generation.to_owned())));
    (vec(change, 0..40), prop::bool::weighted(0.2))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_during_a_rewriting_is_there_and_what_was_removed_before_is_in_no_file(
        before in changing("second"),
        during in vec(changing("third"), 1..30),
    ) {
        let (bench, store) = Bench::new();
        let mut model = Model::new();
        let all: Vec<_> = (0..1_200).map(|number| (number, Some("first".to_owned()))).collect();
        apply(&bench, &store, &mut model, &all, false);
        apply(&bench, &store, &mut model, &before.0, before.1);
        let gone: BTreeSet<u32> =
            before.0.iter().map(|(number, _)| *number).filter(|number| *number < 1_200).collect();
        let mut during = during.iter();
        store.rewrite_with(&mut || if let Some((changes, is_large)) = during.next() {
            apply(&bench, &store, &mut model, changes, *is_large);
        }).unwrap();
        for found in found(&bench, "first") {
            prop_assert!(!gone.contains(&found), "{found}");
        }
        prop_assert!(content(&store) == model);
        drop(store);
        let (store, repairs) = bench.try_open().unwrap();
        prop_assert!(repairs.is_empty(), "{:?}", repairs);
        prop_assert!(content(&store) == model);
        // What was removed meanwhile is for the next.
        store.rewrite().unwrap();
        let live = (0..1_200).filter(|number| model.get(&key(*number)) == Some(&canary(*number, "first")));
        prop_assert_eq!(found(&bench, "first"), live.collect());
    }
}

#[test]
fn a_copy_that_is_lost_on_the_way_leaves_the_store_as_it_was() {
    let (bench, store) = Bench::new();
    put(&store, 0..1_500, "first");
    let mut step = 0;
    let rewritten = store.rewrite_with(&mut || {
        step += 1;
        if step == 3 {
            fs::remove_dir_all(bench.path().join("store.new")).unwrap();
        }
    });
    assert!(matches!(rewritten, Err(Error::NotRewritten { .. })), "{rewritten:?}");
    put(&store, 1_500..1_501, "first");
    store.rewrite().unwrap();
    drop(store);
    assert_eq!(content(&bench.open()).len(), 1_501);
}

#[test]
fn a_store_that_is_not_what_was_committed_is_not_exchanged() {
    let (bench, store) = Bench::new();
    put(&store, 0..10, "first");
    let manifest = store.shared.engine().manifest().unwrap().unwrap();
    let name = key(3);
    let altered = Difference { change: (Tree::Tenant, &name, Some(b"other")), before: None };
    store.shared.engine().write(&[altered], &manifest).unwrap();
    let before = fs::read_dir(bench.path()).unwrap().count();
    let rewritten = store.rewrite();
    assert!(matches!(rewritten, Err(Error::NotRewritten { .. })), "{rewritten:?}");
    assert!(store.condition().read_only.unwrap().contains("not the"));
    assert_eq!(fs::read_dir(bench.path()).unwrap().count(), before);
    assert!(matches!(store.rewrite(), Err(Error::ReadOnly)));
    drop(store);
    // The journal knows better.
    assert_eq!(content(&bench.open())[&key(3)], canary(3, "first"));
}

#[test]
fn a_copy_with_other_pairs_than_the_manifest_is_not_taken_for_the_store() {
    for (extra, is_taken) in [(None, true), (Some((Tree::Meta, vec![1], Some(vec![2]))), false)] {
        let (bench, store) = Bench::new();
        put(&store, 0..10, "first");
        let store_path = bench.directory.store_path();
        let places = Places::of(&store_path);
        let manifest = store.shared.engine().manifest().unwrap().unwrap();
        let manifest = Manifest::decode(&key_of_store(), &manifest).unwrap();
        let engine = places.new_engine().unwrap();
        let copy = Copy { engine, state: State::default(), bytes: 0 };
        let pairs = store.scan(Tree::Tenant, b"").unwrap().into_iter();
        let pairs = pairs.map(|(name, value)| (Tree::Tenant, name, Some(value)));
        let changes: Vec<Changed> = pairs.chain(extra).collect();
        let finished = copy.finish(&places, &key_of_store(), &changes, &manifest);
        assert_eq!(finished.is_ok(), is_taken, "{finished:?}");
    }
}
