//! A commit of more changes than one transaction of the engine makes.

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

fn first() -> Batch {
    let mut batch = Batch::default();
    for number in 0..1_000_u16 {
        batch.put(Tree::Tenant, number.to_be_bytes(), [1; 300]);
    }
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

    for made in [0, 1, 256, 512, 1_024, 1_300] {
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
        let next = journal.append(changes, &state, manifest.store_version).unwrap();
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
