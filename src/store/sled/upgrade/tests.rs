use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::super::SledStore;
use super::super::engine::Engine;
use super::super::recovery::Parts;
use super::*;
use crate::store::migrate::Step;
use crate::store::pairs::PairsReader;
use crate::store::{Options, Store, Tree};

const OPTIONS: Options = Options { ballast_bytes: 0 };
const PAIRS: u8 = 40;

fn key() -> IntegrityKey {
    IntegrityKey::new(&[7; 32])
}

/// What the second version would be, had the first one a manifest: a mark beside every tenant.
const MADE_UP: &[Migration] = &[Migration {
    to: 2,
    name: "marked",
    step: Step::Changes(|pairs| {
        let mut batch = Batch::default();
        for pair in pairs {
            let (tree, (key, _)) = pair?;
            if tree == Tree::Tenant {
                batch.put(Tree::Token, key, b"mark");
            }
        }
        Ok(batch)
    }),
}];

/// A store of version `version` in a data directory, which is closed.
fn store(version: u32) -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    let directory = DataDir::create(&path).unwrap();
    directory.write_atomically(DataDir::HEADER, b"header").unwrap();
    let store = SledStore::create(&directory, &key(), &OPTIONS).unwrap();
    for number in 0..PAIRS {
        let mut batch = Batch::default();
        batch.put(Tree::Tenant, [number], [number; 300]);
        store.apply(batch).unwrap();
    }
    drop(store);
    change(&directory, |recovered| {
        let mut upgrade = Upgrade { recovered, key: &key() };
        upgrade.commit(&Batch::default(), version).unwrap();
    });
    (parent, path)
}

/// Opens the store before anything is made of it, and closes it afterwards.
fn change(directory: &DataDir, work: impl FnOnce(&mut Recovered)) {
    let (mut recovered, _) = Parts::of(directory).open(&key(), false).unwrap();
    work(&mut recovered);
    recovered.engine.close(&directory.store_path()).unwrap();
}

/// Whether every tenant of the store has its mark, and it the second version; else it is of the
/// first one, and none has.
fn is_marked(path: &Path) -> bool {
    let mut marked = None;
    change(&DataDir::open(path).unwrap(), |recovered| {
        let of = |tree| recovered.engine.scan(tree, &[]).unwrap().len();
        assert_eq!(of(Tree::Tenant), usize::from(PAIRS));
        marked = match (recovered.manifest.store_version, of(Tree::Token)) {
            (1, 0) => Some(false),
            (2, marks) if marks == usize::from(PAIRS) => Some(true),
            _ => None,
        };
    });
    marked.expect("all of the step or nothing")
}

fn upgrade(path: &Path) {
    let directory = DataDir::open(path).unwrap();
    change(&directory, |recovered| run(recovered, &key(), &directory, MADE_UP).unwrap());
}

/// Copies what is called `name` in the directory `from`, a file or a directory, to `to`.
fn copy(from: &Path, to: &Path, name: &str) {
    let (from, to) = (from.join(name), to.join(name));
    if from.is_file() {
        fs::copy(from, to).unwrap();
        return;
    }
    drop(fs::remove_dir_all(&to));
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(&from).unwrap() {
        copy(&from, &to, entry.unwrap().file_name().to_str().unwrap());
    }
}

fn copy_all(from: &Path, to: &Path) {
    let parts = from.parent().unwrap();
    assert_eq!(from.file_name(), to.file_name());
    copy(parts, to.parent().unwrap(), "data");
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
}

/// The journal's newest segment.
fn newest_segment(path: &Path) -> PathBuf {
    let segments = fs::read_dir(path.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    segments.filter(|path| path.extension().is_some_and(|it| it == "log")).max().unwrap()
}

#[test]
fn the_initial_version_is_adopted_as_it_is_and_its_export_goes_with_the_next_rewriting() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    let directory = DataDir::create(&path).unwrap();
    fs::create_dir(directory.store_path()).unwrap();
    let engine = Engine::create(&directory.store_path(), 1 << 20, 0).unwrap();
    let mut pairs = (0..PAIRS).map(|number| Ok((Tree::Tenant, (vec![number], vec![number; 300]))));
    engine.load(&mut pairs).unwrap();
    engine.flush().unwrap();
    engine.close(&directory.store_path()).unwrap();

    let store = SledStore::adopt(&directory, &key(), &OPTIONS, |_| Ok::<_, Error>(())).unwrap();
    assert_eq!(store.scan(Tree::Tenant, &[]).unwrap().len(), usize::from(PAIRS));
    let export = directory.exports_path().join("store-1.pairs");
    let bytes = fs::read(&export).unwrap();
    let mut reader = PairsReader::new(bytes.as_slice()).unwrap();
    for number in 0..PAIRS {
        let entry = reader.next().unwrap().unwrap();
        assert_eq!((entry.key, entry.value), (vec![number], Some(vec![number; 300])));
    }
    assert_eq!(reader.next().unwrap(), None);
    assert_eq!(reader.manifest(), Some(&[][..]));
    store.rewrite().unwrap();
    assert!(!directory.exports_path().exists());
    drop(store);
    let (_, repairs) = SledStore::open(&directory, &key(), &OPTIONS, false).unwrap();
    assert_eq!(repairs, []);
}

#[test]
fn a_store_of_an_older_version_takes_its_step_once() {
    let (_parent, path) = store(1);
    assert!(!is_marked(&path));
    upgrade(&path);
    assert!(path.join("exports/store-1.pairs").is_file());
    fs::remove_dir_all(path.join("exports")).unwrap();
    upgrade(&path);
    assert!(!path.join("exports").exists());
    assert!(is_marked(&path));
}

#[test]
fn wherever_a_step_is_cut_off_the_store_opens_with_all_of_it_or_nothing() {
    let (_parent, before) = store(1);
    let (_after_parent, after) = store(2);
    copy_all(&before, &after);
    upgrade(&after);
    let (_parent, path) = store(2);
    let segment = newest_segment(&after);
    let length = fs::metadata(newest_segment(&before)).unwrap().len();
    let longer = fs::metadata(&segment).unwrap().len();
    assert!(longer > length);

    let mut done = 0;
    for cut in (length..longer).step_by(31).chain([longer - 1]) {
        copy_all(&before, &path);
        copy(&after, &path, "exports");
        let torn = newest_segment(&path);
        fs::copy(&segment, &torn).unwrap();
        fs::File::options().write(true).open(&torn).unwrap().set_len(cut).unwrap();
        assert!(!is_marked(&path), "cut at {cut}");
        upgrade(&path);
        assert!(is_marked(&path), "cut at {cut}");
        done += 1;
    }
    assert!(done > 10, "{done}");
    // All of the frame; then the anchor; then the engine, as it comes to the disk.
    for parts in [&["journal"][..], &["journal", "anchor"], &["journal", "anchor", "store"]] {
        copy_all(&before, &path);
        for part in parts {
            copy(&after, &path, part);
        }
        assert!(is_marked(&path), "{parts:?}");
        upgrade(&path);
        assert!(is_marked(&path), "{parts:?}");
    }
}

#[test]
fn a_store_of_a_newer_version_is_refused_by_number_and_left_as_it_is() {
    let parts = ["header", "journal", "anchor"];
    let bytes = |path: &Path| parts.map(|part| files(&path.join(part)));
    for seen_by_engine in [true, false] {
        let (_parent, path) = store(2);
        let (_former_parent, former) = store(2);
        copy_all(&path, &former);
        let directory = DataDir::open(&path).unwrap();
        change(&directory, |recovered| {
            let mut upgrade = Upgrade { recovered, key: &key() };
            upgrade.commit(&Batch::default(), 3).unwrap();
        });
        if !seen_by_engine {
            // As after a crash.
            copy(&former, &path, "store");
        }
        let written = bytes(&path);
        for accept_rollback in [false, true] {
            let opened = SledStore::open(&directory, &key(), &OPTIONS, accept_rollback);
            let error = opened.unwrap_err();
            let is_by_number = matches!(error, Error::TooNew { found: 3, supported: 2 });
            assert!(is_by_number, "{error:?}");
            assert_eq!(bytes(&path), written);
        }
        drop(directory);
        SledStore::open(&DataDir::open(&former).unwrap(), &key(), &OPTIONS, false).unwrap();
    }
}

/// The content of every file at or below `path`.
fn files(path: &Path) -> Vec<Vec<u8>> {
    if path.is_file() {
        return vec![fs::read(path).unwrap()];
    }
    let mut paths: Vec<_> = fs::read_dir(path).unwrap().map(|it| it.unwrap().path()).collect();
    paths.sort();
    paths.iter().flat_map(|path| files(path)).collect()
}
