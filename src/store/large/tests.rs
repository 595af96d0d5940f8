use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::super::integrity::IntegrityKey;
use super::super::{
    Batch, DataDir, MAX_KEY, MAX_VALUE, MemoryStore, Options, Pair, SledStore, Store,
};
use super::*;

/// Which reading of a file fails behind its first piece.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pass: AtomicU32,
    failing: u32,
}

impl Faults {
    pub(super) fn begin_pass(&self) {
        self.pass.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn check(&self, offset: u64) -> io::Result<()> {
        let fails = offset > 0 && self.pass.load(Ordering::Relaxed) == self.failing;
        if fails { Err(io::Error::other("the disk does not answer")) } else { Ok(()) }
    }
}

/// A data directory with a store.
fn bench() -> (tempfile::TempDir, DataDir, SledStore) {
    let parent = tempfile::tempdir().unwrap();
    let directory = DataDir::create(parent.path().join("data")).unwrap();
    directory.write_atomically(DataDir::HEADER, b"header").unwrap();
    let options = Options { ballast_bytes: 0 };
    let store = SledStore::create(&directory, &key(), &options).unwrap();
    (parent, directory, store)
}

fn key() -> IntegrityKey {
    IntegrityKey::new(&[7; IntegrityKey::LENGTH])
}

fn scanned(store: &dyn Store) -> Vec<(Tree, Pair)> {
    let all = Tree::ALL.into_iter();
    all.flat_map(|tree| store.scan(tree, b"").unwrap().into_iter().map(move |pair| (tree, pair)))
        .collect()
}

/// The entries of `spool`, or why they cannot be read.
fn read(spool: &Spool) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    let mut ended = false;
    for step in spool.steps() {
        assert!(!ended);
        let step = step?;
        assert!(step.is_last || step.entries.len() == STEP);
        ended = step.is_last;
        entries.extend(step.entries);
    }
    Ok(entries)
}

#[test]
fn entries_are_read_back_in_their_order_as_often_as_one_likes() {
    let (_parent, directory, _) = bench();
    for count in [0, 1, 255, 256, 257, 1_000] {
        let mut batch = directory.large_batch().unwrap();
        let mut expected = Vec::new();
        for number in 0..count {
            // Not in the order of the keys.
            let key = (number * 7_919 % 1_009_u32).to_be_bytes().to_vec();
            let value = (number % 5 > 0).then(|| vec![1; 300]);
            batch.change(Tree::Tenant, &key, value.as_deref()).unwrap();
            expected.push(Entry { tree: Tree::Tenant, key, value });
        }
        assert_eq!(batch.is_empty(), count == 0);
        let spool = batch.finish().unwrap();
        for _ in 0..2 {
            assert!(read(&spool).unwrap() == expected, "{count}");
        }
        let mut bytes = Vec::new();
        let mut pieces = spool.pieces();
        while let piece @ [_, ..] = pieces.next().unwrap() {
            bytes.extend_from_slice(piece);
        }
        let mut written = Vec::new();
        for entry in &expected {
            write_entry(&mut written, entry.tree, &entry.key, entry.value.as_deref()).unwrap();
        }
        assert!(bytes == written, "{count}");
        assert_eq!(spool.length(), written.len() as u64);
    }
}

#[test]
fn a_key_is_changed_once_in_whatever_order_keys_come() {
    // In order all the way, and with the first to come last; all in memory, and partly in the file.
    for (count, comes_last) in [(3, false), (3, true), (500_u16, false), (500, true)] {
        let (_parent, directory, store) = bench();
        let mut batch = directory.large_batch().unwrap();
        for number in u16::from(comes_last)..count {
            batch.put(Tree::Tenant, &number.to_be_bytes(), &[1; 300]).unwrap();
        }
        if comes_last {
            batch.put(Tree::Tenant, &0_u16.to_be_bytes(), &[1; 300]).unwrap();
        }
        for number in [0, count / 2, count - 1] {
            let key = number.to_be_bytes();
            assert!(matches!(batch.put(Tree::Tenant, &key, &[2]), Err(Error::Repeated)));
            assert!(matches!(batch.remove(Tree::Tenant, &key), Err(Error::Repeated)));
        }
        // Another tree, and other keys, also between two and before all others.
        batch.put(Tree::Token, &0_u16.to_be_bytes(), b"other tree").unwrap();
        batch.put(Tree::Tenant, &[0, 1, 0], b"between").unwrap();
        batch.put(Tree::Tenant, &[], b"first").unwrap();
        batch.put(Tree::Tenant, &count.to_be_bytes(), b"last").unwrap();
        assert!(matches!(batch.remove(Tree::Tenant, &[0, 1, 0]), Err(Error::Repeated)));
        store.apply_large(batch).unwrap();
        assert_eq!(store.condition().pairs, u64::from(count) + 4);
        assert_eq!(store.get(Tree::Tenant, &[0, 1]).unwrap().unwrap(), [1; 300]);
        assert_eq!(store.get(Tree::Tenant, &[0, 1, 0]).unwrap().unwrap(), b"between");
    }
}

#[test]
fn what_no_store_takes_is_refused_and_the_batch_is_as_it_was() {
    let (_parent, directory, store) = bench();
    let mut batch = directory.large_batch().unwrap();
    for (key, value) in [(MAX_KEY + 1, 0), (1, MAX_VALUE + 1)] {
        let refused = batch.put(Tree::Tenant, &vec![1; key], &vec![1; value]);
        assert!(matches!(refused, Err(Error::TooLarge)));
    }
    assert!(matches!(batch.remove(Tree::Tenant, &[1; MAX_KEY + 1]), Err(Error::TooLarge)));
    assert!(batch.is_empty());
    batch.put(Tree::Tenant, &[1; MAX_KEY], &[1; MAX_VALUE]).unwrap();
    batch.remove(Tree::Tenant, &[2; MAX_KEY]).unwrap();
    // As long as a frame can be, and a byte more.
    let written = batch.spool.length;
    let entries = (2 * (4 + MAX_KEY) + MAX_VALUE) as u64;
    batch.spool.length = MAX_ENTRIES - entries - 5;
    assert!(matches!(batch.put(Tree::Tenant, &[3], &[3]), Err(Error::TooLarge)));
    batch.put(Tree::Tenant, &[3], &[]).unwrap();
    batch.spool.length = written;
    store.apply_large(batch).unwrap();
    assert_eq!(store.condition().pairs, 2);
}

#[test]
fn a_dropped_batch_leaves_no_file_no_bytes_and_no_pair() {
    let (_parent, directory, store) = bench();
    let names = || {
        let entries = fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let mut batch = directory.large_batch().unwrap();
    assert_eq!(batch.spool.file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    for number in 0..1_000_u16 {
        batch.put(Tree::Tenant, &number.to_be_bytes(), &[1; 300]).unwrap();
    }
    assert_eq!(names(), before);
    let file = batch.spool.file.try_clone().unwrap();
    let length = file.metadata().unwrap().len();
    assert!(length > 3 * PIECE as u64);
    drop(batch);
    let mut bytes = vec![1; usize::try_from(length).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    assert_eq!((names(), scanned(&store)), (before, Vec::new()));
    assert_eq!(store.condition().number, 0);
}

#[test]
fn a_file_that_needs_a_name_has_it_for_a_moment_and_what_a_crash_left_is_removed() {
    let (_parent, directory, store) = bench();
    let path = directory.path().join(NAME);
    let file = named_and_removed(&path).unwrap();
    assert!(!path.exists());
    file.write_all_at(b"entry", 0).unwrap();
    let mut bytes = [0; 5];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"entry");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    fs::write(&path, b"").unwrap();
    let place = directory.path().to_owned();
    drop((store, directory));
    let directory = DataDir::open(place).unwrap();
    assert!(!path.exists());
    // Where no file can be made, the error says where.
    let missing = LargeBatch::new(&directory.path().join("missing")).unwrap_err();
    assert!(missing.to_string().contains("missing"), "{missing}");
}

#[test]
fn a_file_that_is_not_read_back_as_it_was_written_is_not_applied() {
    let (_parent, directory, store) = bench();
    let filled = || {
        let mut batch = directory.large_batch().unwrap();
        for number in 0..1_000_u16 {
            batch.put(Tree::Tenant, &number.to_be_bytes(), &[1; 300]).unwrap();
        }
        batch
    };
    for alter in [
        // A tree, the length of a key, a key, the length of a value, a value.
        |file: &File| file.write_all_at(&[9], 0),
        |file: &File| file.write_all_at(&[200], 1),
        |file: &File| file.write_all_at(&[7], 3),
        |file: &File| file.write_all_at(&[7], 5),
        |file: &File| file.write_all_at(&[7], 100),
        |file: &File| file.set_len(1_000),
    ] {
        let spool = filled().finish().unwrap();
        alter(&spool.file).unwrap();
        assert!(matches!(read(&spool), Err(Error::Io { .. })));
        let mut pieces = spool.pieces();
        let refused = std::iter::from_fn(|| match pieces.next() {
            Ok([]) => None,
            piece => Some(piece.map(drop)),
        });
        assert!(refused.into_iter().any(|piece| piece.is_err()));

        let batch = filled();
        alter(&batch.spool.file).unwrap();
        let error = store.apply_large(batch).unwrap_err();
        assert!(error.to_string().contains("read back"), "{error}");
    }
    assert_eq!((store.condition().number, store.condition().read_only), (0, None));
    store.apply_large(filled()).unwrap();
    assert_eq!((store.condition().number, store.condition().pairs), (1, 1_000));
}

#[test]
fn a_file_that_fails_spends_the_batch_and_not_the_store() {
    let (_parent, directory, store) = bench();
    let mut batch = directory.large_batch().unwrap();
    // Every write there finds the disk full.
    let full = || OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    batch.spool.file = full();
    let mut numbers = 0..1_000_u16;
    let error =
        numbers.find_map(|number| batch.put(Tree::Tenant, &number.to_be_bytes(), &[1; 300]).err());
    let Some(Error::Io { source, .. }) = error else { panic!("{error:?}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(matches!(batch.put(Tree::Token, b"more", b""), Err(Error::Unwritten)));
    assert!(matches!(batch.remove(Tree::Token, b"more"), Err(Error::Unwritten)));
    assert!(matches!(store.apply_large(batch), Err(Error::Unwritten)));
    // The last write is the only one.
    let mut batch = directory.large_batch().unwrap();
    batch.put(Tree::Token, b"one", b"").unwrap();
    batch.spool.file = full();
    assert!(matches!(store.apply_large(batch), Err(Error::Io { .. })));

    // So little room that writes may not have it: this file system says that it has none.
    let mut batch = directory.large_batch().unwrap();
    batch.space = Space::new(Path::new("/proc"), 0);
    batch.put(Tree::Token, b"one", b"").unwrap();
    assert!(matches!(store.apply_large(batch), Err(Error::Full { free: 0, .. })));
    // The keys so far cannot be read, for one that is out of order.
    let mut batch = directory.large_batch().unwrap();
    for number in 1..1_000_u16 {
        batch.put(Tree::Tenant, &number.to_be_bytes(), &[1; 300]).unwrap();
    }
    batch.spool.faults.failing = 1;
    assert!(matches!(batch.put(Tree::Tenant, &[0; 2], b""), Err(Error::Io { .. })));
    assert!(matches!(batch.put(Tree::Tenant, &[9; 2], b""), Err(Error::Unwritten)));
    assert!(matches!(store.apply_large(batch), Err(Error::Unwritten)));

    assert_eq!(scanned(&store), []);
    let mut batch = directory.large_batch().unwrap();
    batch.put(Tree::Token, b"one", b"").unwrap();
    store.apply_large(batch).unwrap();
    assert_eq!(store.condition().pairs, 1);
}

#[test]
fn a_file_that_cannot_be_read_leaves_the_commit_before_or_once_the_journal_has_it_the_next() {
    // What changes, the frame, the engine; and none.
    for (failing, is_read_only, is_made) in
        [(1, false, false), (2, true, false), (3, true, true), (0, false, true)]
    {
        let (_parent, directory, store) = bench();
        let mut first = Batch::default();
        first.put(Tree::Meta, *b"first", *b"commit");
        store.apply(first).unwrap();
        let mut batch = directory.large_batch().unwrap();
        for number in 0..1_000_u16 {
            batch.put(Tree::Tenant, &number.to_be_bytes(), &[1; 300]).unwrap();
        }
        batch.spool.faults.failing = failing;
        let error = store.apply_large(batch).err();
        assert_eq!(error.is_some(), failing > 0, "{error:?}");
        assert_eq!(store.condition().read_only.is_some(), is_read_only, "{failing}");
        assert_eq!(store.get(Tree::Meta, b"first").unwrap().unwrap(), b"commit");
        let mut more = Batch::default();
        more.put(Tree::Meta, *b"more", *b"");
        let refused = store.apply(more).err();
        assert_eq!(matches!(refused, Some(Error::ReadOnly)), is_read_only, "{refused:?}");
        drop(store);

        let options = Options { ballast_bytes: 0 };
        let (store, repairs) = SledStore::open(&directory, &key(), &options, false).unwrap();
        assert_eq!(repairs, []);
        let expected = 1 + u64::from(!is_read_only) + if is_made { 1_000 } else { 0 };
        assert_eq!(store.condition().pairs, expected, "{failing}");
        let mut more = Batch::default();
        more.put(Tree::Meta, *b"still more", *b"");
        store.apply(more).unwrap();
    }
}

#[test]
fn a_batch_shows_how_much_it_changes_and_not_what() {
    let (_parent, directory, _) = bench();
    let mut batch = directory.large_batch().unwrap();
    batch.put(Tree::Tenant, b"key", b"value").unwrap();
    assert_eq!(format!("{batch:?}"), "LargeBatch(1 changes)");
    assert_eq!(format!("{:?}", batch.finish().unwrap()), "Spool(1 changes)");
}

/// Changes of numbered keys, each key once.
fn changes() -> impl Strategy<Value = Vec<(u16, Option<u8>)>> {
    let one = (0..900_u16, prop::option::weighted(0.7, 0..3_u8));
    prop::collection::hash_map(one.0, one.1, 0..700).prop_map(|changes| {
        // In no order.
        changes.into_iter().collect()
    })
}

fn pair(number: u16, value: u8) -> (Tree, [u8; 2], Vec<u8>) {
    (Tree::ALL[usize::from(number % 3)], number.to_be_bytes(), vec![value; 10])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_large_batch_does_what_a_batch_does(commits in prop::collection::vec(changes(), 1..4)) {
        let (_parent, directory, large) = bench();
        let (_other_parent, _other, small) = bench();
        let memory = MemoryStore::default();
        for changes in commits {
            let mut batch = Batch::default();
            let mut batches = [(); 2].map(|()| directory.large_batch().unwrap());
            for (number, value) in changes {
                let (tree, key, bytes) = pair(number, value.unwrap_or_default());
                match value {
                    Some(_) => batch.put(tree, key, bytes.clone()),
                    None => batch.remove(tree, key),
                }
                for large in &mut batches {
                    large.change(tree, &key, value.is_some().then_some(&*bytes)).unwrap();
                }
            }
            let [one, other] = batches;
            small.apply(batch).unwrap();
            large.apply_large(one).unwrap();
            memory.apply_large(other).unwrap();
            let expected = scanned(&small);
            prop_assert!(scanned(&large) == expected);
            prop_assert!(scanned(&memory) == expected);
            let (large, small) = (large.condition(), small.condition());
            prop_assert_eq!((large.number, large.pairs), (small.number, small.pairs));
        }
        let expected = scanned(&small);
        drop(large);
        let options = Options { ballast_bytes: 0 };
        let (large, repairs) = SledStore::open(&directory, &key(), &options, false).unwrap();
        prop_assert_eq!(repairs, []);
        prop_assert!(scanned(&large) == expected);
    }
}
