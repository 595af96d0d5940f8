//! A commit of more changes than one transaction of the engine makes, from memory or from a file.

use std::sync::atomic::AtomicBool;

use super::super::recovery::Parts;
use super::*;
use crate::store::integrity::Manifest;

/// Sets new pairs, replaces some and removes others, of those that [`first`] made.
fn second() -> Batch {
    let mut batch = Batch::default();
    for number in 0..1_500_u16 {
        let key = number.to_be_bytes();
        match number % 3 {
            0 => batch.remove(Tree::Tenant, key),
            1 => batch.put(Tree::Tenant, key, *b"replaced"),
            _ => batch.put(Tree::Token, key, [7; 300]),
        }
    }
    batch
}

/// The same, from a file, and with changes that change nothing.
fn second_large(directory: &DataDir) -> LargeBatch {
    let mut batch = directory.large_batch().unwrap();
    for (tree, key, value) in second().changes() {
        match value {
            Some(value) => batch.put(tree, key, value).unwrap(),
            None => batch.remove(tree, key).unwrap(),
        }
    }
    batch.remove(Tree::Meta, b"nothing").unwrap();
    batch.put(Tree::Meta, b"as before", b"value").unwrap();
    batch
}

fn first() -> Batch {
    let mut batch = Batch::default();
    for number in 0..1_000_u16 {
        batch.put(Tree::Tenant, number.to_be_bytes(), [1; 300]);
    }
    batch.put(Tree::Meta, *b"as before", *b"value");
    batch
}

#[test]
fn a_large_commit_that_is_cut_off_anywhere_in_the_engine_is_completed_from_the_journal() {
    let (bench, store) = Bench::new();
    store.apply(first()).unwrap();
    store.apply(second()).unwrap();
    let expected = scanned(&store);
    drop(store);
    assert_eq!(scanned(&bench.open()), expected);

    for (made, is_large) in
        [0, 1, 256, 512, 1_024, 1_300].into_iter().flat_map(|made| [(made, false), (made, true)])
    {
        let (bench, store) = Bench::new();
        store.apply(first()).unwrap();
        drop(store);
        let (recovered, _) = Parts::of(&bench.directory).open(&key(), false).unwrap();
        let Recovered { engine, mut journal, mut anchor, manifest, .. } = recovered;
        let batch = second();
        let state = State { number: manifest.state.number + 1, ..manifest.state };
        let (differences, state) = engine.compare(&key(), state, batch.changes()).unwrap();
        assert!(differences.len() > 1_300);
        let changes = differences.iter().map(|difference| difference.change);
        let next = if is_large {
            let spool = second_large(&bench.directory).finish().unwrap();
            journal.append_large(&spool, &state, manifest.store_version).unwrap()
        } else {
            journal.append(changes, &state, manifest.store_version).unwrap()
        };
        anchor.write(&next.position()).unwrap();
        // As far as it came, with the number of the commit before.
        let some = differences[..made].iter().map(|difference| difference.change);
        let (_, partial) = engine.compare(&key(), manifest.state, some).unwrap();
        let partial = Manifest { state: partial, ..manifest };
        engine.write_commit(&key(), &manifest, &differences[..made], &partial).unwrap();
        engine.close(&bench.directory.store_path()).unwrap();
        drop((journal, anchor));

        let (store, repairs) = bench.try_open().unwrap();
        assert_eq!(repairs, [], "{made}");
        assert_eq!(scanned(&store), expected, "{made}");
        assert_eq!(store.condition().number, next.state.number);
    }
}

#[test]
fn a_large_batch_is_a_commit_like_others_after_an_opening_and_after_the_engine_is_lost() {
    let (_other, store) = Bench::new();
    store.apply(first()).unwrap();
    store.apply(second()).unwrap();
    let expected = scanned(&store);

    let (bench, store) = Bench::new();
    store.apply(first()).unwrap();
    store.apply_large(second_large(&bench.directory)).unwrap();
    assert!(scanned(&store) == expected);
    // Nothing of it changes anything, and so it is no commit.
    store.apply_large(second_large(&bench.directory)).unwrap();
    store.apply_large(bench.directory.large_batch().unwrap()).unwrap();
    assert_eq!(store.condition().number, 2);
    drop(store);
    let (store, repairs) = bench.try_open().unwrap();
    assert!(scanned(&store) == expected && repairs.is_empty());
    drop(store);
    fs::remove_dir_all(bench.directory.store_path()).unwrap();
    let (store, repairs) = bench.try_open().unwrap();
    assert!(scanned(&store) == expected);
    assert_eq!(repairs.len(), 1, "{repairs:?}");
    // And the next commit follows it.
    store.apply(first()).unwrap();
    assert_eq!(store.condition().number, 3);
}

#[test]
fn a_large_frame_that_was_cut_off_is_no_commit() {
    let (bench, store) = Bench::new();
    store.apply(first()).unwrap();
    let before = scanned(&store);
    drop(store);
    let parts = ["anchor", "store"];
    let images = tempfile::tempdir().unwrap();
    for part in parts {
        recovery::copy(&bench.path().join(part), &images.path().join(part));
    }
    let segment = bench.directory.journal_path().join("0000000000000001.log");
    let begins = fs::metadata(&segment).unwrap().len();
    let store = bench.open();
    store.apply_large(second_large(&bench.directory)).unwrap();
    let after = scanned(&store);
    drop(store);
    let whole = fs::read(&segment).unwrap();
    let begins = usize::try_from(begins).unwrap();
    // In its head, behind it, in the first piece, behind that, in its MAC; and not at all.
    let cuts = [3, 90, 4_000, 96 + (64 << 10), whole.len() - begins - 1, whole.len() - begins];
    for length in cuts {
        for part in parts {
            recovery::delete(&bench.path().join(part));
            recovery::copy(&images.path().join(part), &bench.path().join(part));
        }
        fs::write(&segment, &whole[..begins + length]).unwrap();
        let (store, repairs) = bench.try_open().unwrap();
        assert_eq!(repairs, [], "{length}");
        let is_whole = begins + length == whole.len();
        assert!(scanned(&store) == if is_whole { &after[..] } else { &before[..] }, "{length}");
    }
}

#[test]
fn a_walk_beside_large_batches_ends_as_the_state_of_one_commit() {
    let (bench, store) = Bench::new();
    store.apply(first()).unwrap();
    let pairs = walked(&store, &|step| {
        if step > 3 {
            return;
        }
        let mut batch = bench.directory.large_batch().unwrap();
        // Behind the walk, where it is, and before it.
        for number in (0..1_200_u16).step_by(3) {
            let key = number.to_be_bytes();
            if number % 7 == 0 {
                batch.remove(Tree::Tenant, &key).unwrap();
            } else {
                batch.put(Tree::Tenant, &key, &[u8::try_from(step).unwrap(); 200]).unwrap();
            }
            batch.put(Tree::Token, &key, &step.to_be_bytes()).unwrap();
        }
        store.apply_large(batch).unwrap();
    });
    assert!(pairs == scanned(&store));
    assert!(store.condition().number > 2);
}

#[test]
fn reads_and_small_batches_go_on_beside_a_large_one() {
    let (bench, store) = Bench::new();
    store.apply(first()).unwrap();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0_u32;
            while !is_done.load(Ordering::Relaxed) || reads == 0 {
                let value = store.get(Tree::Tenant, &2_u16.to_be_bytes()).unwrap().unwrap();
                assert_eq!(value, [1; 300]);
                reads += 1;
            }
        });
        let writer = scope.spawn(|| {
            for number in 0..20_u8 {
                store.apply(batch(&[(Tree::Meta, &[number], b"small")])).unwrap();
            }
        });
        store.apply_large(second_large(&bench.directory)).unwrap();
        writer.join().unwrap();
        is_done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    let expected = scanned(&store);
    drop(store);
    assert!(scanned(&bench.open()) == expected);
}

#[test]
fn a_store_that_takes_no_writes_takes_no_large_batch() {
    let (bench, store) = Bench::new();
    store.shared.fail(&Error::Durability);
    let refused = store.apply_large(second_large(&bench.directory));
    assert!(matches!(refused, Err(Error::ReadOnly)));
    let empty = store.apply_large(bench.directory.large_batch().unwrap());
    assert!(matches!(empty, Err(Error::ReadOnly)));
}
