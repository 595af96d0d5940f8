use std::fs::File;

use super::super::{MAX_KEY, MAX_VALUE, MemoryStore};
use super::engine::{engine_syncs, files};
use super::*;

fn batch(pairs: &[(Tree, &[u8], &[u8])]) -> Batch {
    let mut batch = Batch::default();
    for (tree, key, value) in pairs {
        batch.put(*tree, *key, *value);
    }
    batch
}

fn behaves_as_a_store(store: &dyn Store) {
    store
        .apply(batch(&[
            (Tree::Tenant, b"a2", b"two"),
            (Tree::Tenant, b"a1", b"one"),
            (Tree::Tenant, b"b", b"bee"),
            (Tree::Token, b"a1", b"other tree"),
        ]))
        .unwrap();
    let pair = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    assert_eq!(store.scan(Tree::Tenant, b"a").unwrap(), [pair("a1", "one"), pair("a2", "two")]);
    assert_eq!(store.scan(Tree::Token, b"").unwrap(), [pair("a1", "other tree")]);
    assert_eq!(store.get(Tree::Meta, b"a1").unwrap(), None);
    let after = |key: Option<&str>, limit| {
        store.scan_after(Tree::Tenant, key.map(str::as_bytes), limit).unwrap()
    };
    assert_eq!(after(None, 2), [pair("a1", "one"), pair("a2", "two")]);
    assert_eq!(after(Some("a2"), 2), [pair("b", "bee")]);
    assert_eq!(after(Some("a"), 1), [pair("a1", "one")]);
    assert_eq!(after(Some("b"), 2), []);
    assert_eq!(after(None, 0), []);

    let mut change = batch(&[(Tree::Tenant, b"a1", b"first"), (Tree::Tenant, b"a1", b"last")]);
    change.remove(Tree::Tenant, *b"a2");
    change.remove(Tree::Token, *b"missing");
    store.apply(change).unwrap();
    assert_eq!(store.get(Tree::Tenant, b"a1").unwrap().unwrap(), b"last");
    assert_eq!(store.get(Tree::Tenant, b"a2").unwrap(), None);
    store.apply(Batch::default()).unwrap();

    for (key, value) in [(MAX_KEY + 1, 0), (1, MAX_VALUE + 1)] {
        let mut large = batch(&[(Tree::Tenant, b"beside", b"")]);
        large.put(Tree::Tenant, vec![1; key], vec![1; value]);
        assert!(matches!(store.apply(large), Err(Error::TooLarge)));
    }
    assert_eq!(store.get(Tree::Tenant, b"beside").unwrap(), None);
    let mut largest = Batch::default();
    largest.put(Tree::Tenant, vec![1; MAX_KEY], vec![1; MAX_VALUE]);
    store.apply(largest).unwrap();
}

#[test]
fn both_stores_order_keys_replace_remove_and_refuse_what_is_too_large() {
    behaves_as_a_store(&MemoryStore::default());
    let directory = tempfile::tempdir().unwrap();
    behaves_as_a_store(&SledStore::create(&directory.path().join("store")).unwrap());
}

#[test]
fn what_was_applied_by_many_threads_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = SledStore::create(&path).unwrap();
    thread::scope(|scope| {
        for writer in 0..8_u8 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..20_u8 {
                    store.apply(batch(&[(Tree::Token, &[writer, number], b"v")])).unwrap();
                }
            });
        }
    });
    drop(store);
    for _ in 0..3 {
        let store = SledStore::open(&path).unwrap();
        assert_eq!(store.scan(Tree::Token, b"").unwrap().len(), 160);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn every_apply_makes_the_engine_sync_through_us() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::create(&directory.path().join("store")).unwrap();
    let before = engine_syncs();
    store.apply(batch(&[(Tree::Tenant, b"key", b"value")])).unwrap();
    assert!(engine_syncs() > before);
}

#[test]
fn a_missing_or_emptied_store_is_damage_and_never_a_new_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let check = |expected: &str| {
        let error = SledStore::open(&path).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains("do not delete it"), "{text}");
    };
    check("db is missing");
    fs::create_dir(&path).unwrap();
    check("db is missing");
    fs::remove_dir(&path).unwrap();

    drop(SledStore::create(&path).unwrap());
    assert!(matches!(SledStore::create(&path), Err(Error::Io { .. })));
    for file in files(&path).unwrap() {
        if file.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            fs::remove_file(file).unwrap();
        }
    }
    File::create(path.join("db")).unwrap();
    check("it has lost its contents");
}

#[test]
fn a_half_written_snapshot_does_not_stop_the_opening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = SledStore::create(&path).unwrap();
    store.apply(batch(&[(Tree::Tenant, b"key", b"value")])).unwrap();
    drop(store);
    let unfinished = path.join("snap.FFFFFFFFFFFFFFFF.generating");
    fs::write(&unfinished, b"half").unwrap();
    let store = SledStore::open(&path).unwrap();
    assert_eq!(store.get(Tree::Tenant, b"key").unwrap().unwrap(), b"value");
    assert!(!unfinished.exists());
}

#[test]
fn after_a_failed_write_reads_go_on_and_writes_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::create(&directory.path().join("store")).unwrap();
    store.apply(batch(&[(Tree::Tenant, b"key", b"value")])).unwrap();
    store.read_only.store(true, Ordering::Release);
    let refused = store.apply(batch(&[(Tree::Tenant, b"key", b"new")]));
    assert!(matches!(refused, Err(Error::ReadOnly)));
    assert_eq!(store.get(Tree::Tenant, b"key").unwrap().unwrap(), b"value");
}

#[test]
fn a_walk_in_pages_meets_every_pair_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let sled = SledStore::create(&directory.path().join("store")).unwrap();
    let memory = MemoryStore::default();
    for store in [&sled as &dyn Store, &memory] {
        let mut pairs = Batch::default();
        for number in 0..600_u16 {
            // Keys of two lengths, each the beginning of the next.
            let [high, low] = number.to_be_bytes();
            let key = &[0, high, low, 0][usize::from(number % 2)..];
            pairs.put(Tree::Token, key, vec![1; 300]);
            pairs.put(Tree::Token, [key, &[0]].concat(), vec![2; 300]);
        }
        store.apply(pairs).unwrap();
        let all = store.scan(Tree::Token, b"").unwrap();
        for limit in [1, 7, 1_199, 1_200, 5_000] {
            let (mut walked, mut last) = (Vec::<Pair>::new(), None);
            loop {
                let page = store.scan_after(Tree::Token, last.as_deref(), limit).unwrap();
                last = page.last().map(|(key, _)| key.clone());
                let ended = page.len() < limit;
                walked.extend(page);
                assert!(walked.len() <= all.len(), "pages of {limit} repeat themselves");
                if ended {
                    break;
                }
            }
            assert!(walked == all, "pages of {limit}");
        }
    }
}
