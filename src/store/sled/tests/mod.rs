use std::fs::{self, File};
use std::path::Path;

use super::super::{MAX_KEY, MAX_VALUE, MemoryStore};
use super::engine::{engine_syncs, files};
use super::*;

mod large;
mod recovery;

/// A data directory with a store.
pub(super) struct Bench {
    pub(super) directory: DataDir,
    _temporary: tempfile::TempDir,
}

impl Bench {
    /// With an empty store.
    pub(super) fn new() -> (Self, SledStore) {
        let temporary = tempfile::tempdir().unwrap();
        let directory = DataDir::create(temporary.path().join("data")).unwrap();
        let bench = Self { directory, _temporary: temporary };
        let store = SledStore::create(&bench.directory, &key(), &OPTIONS).unwrap();
        (bench, store)
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn try_open(&self) -> Result<(SledStore, Vec<Repair>), Error> {
        SledStore::open(&self.directory, &key(), &OPTIONS, false)
    }

    pub(super) fn open(&self) -> SledStore {
        self.try_open().unwrap().0
    }
}

/// Without a ballast, which would only have to be searched.
pub(super) const OPTIONS: Options = Options { ballast_bytes: 0 };

pub(super) fn key() -> IntegrityKey {
    IntegrityKey::new(&[7; IntegrityKey::LENGTH])
}

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
    behaves_as_a_store(&Bench::new().1);
}

#[test]
fn what_was_applied_by_many_threads_is_there_after_opening_again() {
    let (bench, store) = Bench::new();
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
        let store = bench.open();
        assert_eq!(store.scan(Tree::Token, b"").unwrap().len(), 160);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_flush_makes_the_engine_sync_through_us() {
    let (_bench, store) = Bench::new();
    let before = engine_syncs();
    store.apply(batch(&[(Tree::Tenant, b"key", b"value")])).unwrap();
    drop(store);
    assert!(engine_syncs() > before);
}

#[test]
fn a_store_is_created_where_there_is_none_and_opened_where_there_is_one() {
    let (bench, store) = Bench::new();
    drop(store);
    let created = SledStore::create(&bench.directory, &key(), &OPTIONS);
    assert!(matches!(created, Err(Error::Io { .. })));
    bench.open();
    for part in ["store", "journal"] {
        fs::remove_dir_all(bench.path().join(part)).unwrap();
    }
    fs::remove_file(bench.path().join("anchor")).unwrap();
    let error = bench.try_open().unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("db is missing") && text.contains("do not delete it"), "{text}");
}

#[test]
fn a_half_written_snapshot_does_not_stop_the_opening() {
    let (bench, store) = Bench::new();
    store.apply(batch(&[(Tree::Tenant, b"key", b"value")])).unwrap();
    drop(store);
    let unfinished = bench.directory.store_path().join("snap.FFFFFFFFFFFFFFFF.generating");
    fs::write(&unfinished, b"half").unwrap();
    let store = bench.open();
    assert_eq!(store.get(Tree::Tenant, b"key").unwrap().unwrap(), b"value");
    assert!(!unfinished.exists());
}

#[test]
fn after_a_failed_write_reads_go_on_and_writes_do_not() {
    let (_bench, store) = Bench::new();
    store.apply(batch(&[(Tree::Tenant, b"key", b"value")])).unwrap();
    assert_eq!(store.condition().read_only, None);
    store.shared.fail(&Error::Durability);
    let refused = store.apply(batch(&[(Tree::Tenant, b"key", b"new")]));
    assert!(matches!(refused, Err(Error::ReadOnly)));
    assert!(store.condition().read_only.unwrap().contains("durable"));
    assert_eq!(store.get(Tree::Tenant, b"key").unwrap().unwrap(), b"value");
}

#[test]
fn a_walk_in_pages_meets_every_pair_once_and_in_order() {
    let (_bench, sled) = Bench::new();
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

/// What a walk that was taken to its end says the store holds.
fn walked(store: &dyn Store, between: &dyn Fn(usize)) -> Vec<(Tree, Pair)> {
    let mut walk = store.walk().unwrap();
    let mut pairs = std::collections::BTreeMap::new();
    for step in 0.. {
        let next = walk.next().unwrap();
        if next.is_empty() {
            break;
        }
        pairs.extend(next.into_iter().map(|(tree, (key, value))| ((tree, key), value)));
        between(step);
    }
    for (tree, key, value) in walk.finish().unwrap().changes {
        match value {
            Some(value) => pairs.insert((tree, key), value),
            None => pairs.remove(&(tree, key)),
        };
    }
    pairs.into_iter().map(|((tree, key), value)| (tree, (key, value))).collect()
}

fn scanned(store: &dyn Store) -> Vec<(Tree, Pair)> {
    let all = Tree::ALL.into_iter();
    all.flat_map(|tree| store.scan(tree, b"").unwrap().into_iter().map(move |pair| (tree, pair)))
        .collect()
}

#[test]
fn a_walk_beside_writers_ends_as_the_state_of_one_commit() {
    let (_bench, store) = Bench::new();
    let put = |numbers: std::ops::Range<u16>, value: &[u8]| {
        let mut pairs = Batch::default();
        for number in numbers {
            pairs.put(Tree::Tenant, number.to_be_bytes(), value);
        }
        store.apply(pairs).unwrap();
    };
    put(0..3_000, b"first");
    let pairs = walked(&store, &|step| {
        // More keys before it, each time, would keep it from ending.
        if step > 7 {
            return;
        }
        // Behind the walk, where it is, and before it.
        put(5..40, format!("changed at {step}").as_bytes());
        put(2_990..3_000, format!("changed at {step}").as_bytes());
        let mut more = Batch::default();
        more.remove(Tree::Tenant, u16::try_from(step).unwrap().to_be_bytes());
        more.put(Tree::Token, u16::try_from(step).unwrap().to_be_bytes(), *b"new");
        more.put(Tree::Meta, *b"early", step.to_be_bytes());
        store.apply(more).unwrap();
    });
    assert!(pairs == scanned(&store));
    assert_eq!(store.walk().unwrap().finish().unwrap().changes.len(), pairs.len());
    // One that is left costs the committer nothing.
    store.walk().unwrap().next().unwrap();
    put(0..1, b"after");
}

#[test]
fn a_walk_notices_what_changed_behind_the_committer() {
    let (_bench, store) = Bench::new();
    store.apply(batch(&[(Tree::Tenant, b"a", b"1"), (Tree::Tenant, b"b", b"2")])).unwrap();
    let manifest = store.shared.engine().manifest().unwrap().unwrap();
    let altered = engine::Difference { change: (Tree::Tenant, b"a", Some(b"0")), before: None };
    store.shared.engine().write(&[altered], &manifest).unwrap();
    let error = store.walk().unwrap().finish().unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    assert!(matches!(store.apply(batch(&[(Tree::Tenant, b"c", b"3")])), Err(Error::ReadOnly)));
    assert_eq!(store.get(Tree::Tenant, b"b").unwrap().unwrap(), b"2");
}
