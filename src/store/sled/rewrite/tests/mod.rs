//! What is in the files after a rewriting. Its steps are in `steps`, the names of the store's
//! directory in `places`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use super::super::super::{Batch, Pair, Store, Tree};
use super::super::tests::Bench;
use super::super::{CACHE_BYTES, SledStore};
use super::*;

mod places;
mod steps;

/// Long enough that the engine cannot hold it in line with the key; its ends are unlike.
fn canary(number: u32, generation: &str) -> Vec<u8> {
    format!("<{generation}-head-{number:05}{}{generation}-tail-{number:05}>", ".".repeat(300))
        .into()
}

fn key(number: u32) -> Vec<u8> {
    number.wrapping_mul(0x9E37_79B9).to_be_bytes().to_vec()
}

fn put(store: &dyn Store, numbers: impl Iterator<Item = u32>, generation: &str) {
    let mut batch = Batch::default();
    for number in numbers {
        batch.put(Tree::Tenant, key(number), canary(number, generation));
    }
    store.apply(batch).unwrap();
}

/// The content of every file below `path`.
fn contents(path: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.push(fs::read(path).unwrap());
        }
    }
    found
}

fn occurs(needle: &str, files: &[Vec<u8>]) -> bool {
    let needle = needle.as_bytes();
    files.iter().any(|file| file.windows(needle.len()).any(|window| window == needle))
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn after_a_rewriting_no_file_holds_what_was_removed_or_replaced() {
    let (bench, store) = Bench::new();
    put(&store, 0..40, "first");
    put(&store, 0..20, "second");
    let mut removals = Batch::default();
    for number in 0..10 {
        removals.remove(Tree::Tenant, key(number));
    }
    store.apply(removals).unwrap();

    let is_live = |number: u32, generation: &str| match generation {
        "first" => number >= 20,
        _ => (10..20).contains(&number),
    };
    let files = contents(bench.path());
    for generation in ["first-head-00003", "first-tail-00003", "second-tail-00003"] {
        assert!(occurs(generation, &files), "the search must find what is there: {generation}");
    }
    let link = bench.path().join("link");
    fs::hard_link(bench.directory.store_path().join("db"), &link).unwrap();

    store.rewrite().unwrap();
    assert!(fs::read(&link).unwrap().iter().all(|byte| *byte == 0), "the old file is zeros");
    let check = |store: &SledStore| {
        let files = contents(bench.path());
        for number in 0..40 {
            for generation in ["first", "second"] {
                for part in ["head", "tail"] {
                    let needle = format!("{generation}-{part}-{number:05}");
                    assert_eq!(occurs(&needle, &files), is_live(number, generation), "{needle}");
                }
            }
        }
        let expected = (10..40).map(|number| {
            (key(number), canary(number, if number < 20 { "second" } else { "first" }))
        });
        let expected: BTreeMap<_, _> = expected.collect();
        let found = store.scan(Tree::Tenant, b"").unwrap();
        assert!(found.into_iter().eq(expected));
    };
    check(&store);
    drop(store);
    check(&bench.open());
}

#[test]
fn every_tree_is_copied() {
    let (_bench, store) = Bench::new();
    let mut batch = Batch::default();
    for (tree, value) in Tree::ALL.into_iter().zip(["meta", "tenant", "token"]) {
        batch.put(tree, *b"key", value);
    }
    store.apply(batch).unwrap();
    store.rewrite().unwrap();
    for (tree, value) in Tree::ALL.into_iter().zip(["meta", "tenant", "token"]) {
        assert_eq!(store.scan(tree, b"").unwrap(), [(b"key".to_vec(), value.into())]);
    }
    put(&store, 0..1, "later");
    store.rewrite().unwrap();
    assert_eq!(store.get(Tree::Tenant, &key(0)).unwrap(), Some(canary(0, "later")));
}

#[test]
fn reads_and_writes_during_a_rewriting_are_answered() {
    let (bench, store) = Bench::new();
    put(&store, 0..2_000, "first");
    let (reads, writes, ended) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let number = reads.fetch_add(1, Ordering::Relaxed) % 2_000;
                let value = store.get(Tree::Tenant, &key(number)).unwrap();
                assert_eq!(value, Some(canary(number, "first")));
                if number == 0 {
                    assert!(store.scan(Tree::Tenant, b"").unwrap().len() >= 2_000);
                }
            }
        });
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let number = writes.load(Ordering::Relaxed);
                put(&store, 2_000 + number..2_001 + number, "first");
                writes.store(number + 1, Ordering::Relaxed);
            }
        });
        let (mut reads_during, mut rewritings, mut outcome) = (0, 0, Ok(()));
        let enough = |reads_during, rewritings| {
            rewritings >= 2 && reads_during >= 1_000 && writes.load(Ordering::Relaxed) >= 10
        };
        while outcome.is_ok() && !enough(reads_during, rewritings) {
            let before = reads.load(Ordering::Relaxed);
            outcome = store.rewrite();
            reads_during += reads.load(Ordering::Relaxed) - before;
            rewritings += 1;
        }
        ended.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
    let expected =
        (0..2_000 + writes.load(Ordering::Relaxed)).map(|n| (key(n), canary(n, "first")));
    let expected: BTreeMap<_, _> = expected.collect();
    assert!(store.scan(Tree::Tenant, b"").unwrap().into_iter().eq(expected.clone()));
    drop(store);
    let store = bench.open();
    assert!(store.scan(Tree::Tenant, b"").unwrap().into_iter().eq(expected));
}

#[test]
fn a_copy_that_fails_leaves_the_store_as_it_was() {
    let (bench, store) = Bench::new();
    put(&store, 0..20, "first");
    let obstacle = bench.path().join("store.new");
    fs::write(&obstacle, b"not a directory").unwrap();
    let error = store.rewrite().unwrap_err();
    assert!(matches!(error, Error::NotRewritten { .. }), "{error:?}");
    put(&store, 20..21, "first");
    assert_eq!(store.scan(Tree::Tenant, b"").unwrap().len(), 21);
    fs::remove_file(&obstacle).unwrap();
    store.rewrite().unwrap();
    assert_eq!(store.scan(Tree::Tenant, b"").unwrap().len(), 21);
}
