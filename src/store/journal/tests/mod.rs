//! The journal in use. What becomes of damage is in `damage`, what removes parts of it in `rewriting`.

mod damage;
mod rewriting;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use super::super::integrity::STORE_VERSION;
use super::super::tests::{vector, vector_key};
use super::super::{MAX_VALUE, Operation};
use super::*;
use crate::store::Batch;
use crate::store::journal::frames::Frame;

const VECTOR: &str = include_str!("../../../../tests/vectors/journal.txt");

/// A store as the journal sees it.
#[derive(Clone)]
struct Model {
    pairs: BTreeMap<(Tree, Vec<u8>), Vec<u8>>,
    state: State,
}

impl Model {
    fn new() -> Self {
        Self { pairs: BTreeMap::new(), state: State::default() }
    }

    fn apply(&mut self, batch: &Batch) {
        self.state.number += 1;
        for Operation { tree, key, value } in &batch.0 {
            let before = match value {
                Some(value) => {
                    self.state.add(key_of_store().element(*tree, key, value));
                    self.pairs.insert((*tree, key.clone()), value.clone())
                }
                None => self.pairs.remove(&(*tree, key.clone())),
            };
            if let Some(before) = before {
                self.state.remove(key_of_store().element(*tree, key, &before));
            }
        }
    }

    fn pairs(&self) -> Vec<Result<(Tree, Pair), Error>> {
        let pairs = self.pairs.iter();
        pairs.map(|((tree, key), value)| Ok((*tree, (key.clone(), value.clone())))).collect()
    }
}

/// A journal and the store that it should make.
struct Case {
    directory: tempfile::TempDir,
    journal: Option<Journal>,
    model: Model,
}

impl Case {
    /// A new journal whose segments have about `segment_bytes`.
    fn new(segment_bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let start = Manifest::of_empty_store().unwrap();
        let mut journal = Journal::create(directory.path(), &key_of_store(), &start).unwrap();
        journal.segment_bytes = segment_bytes;
        Self { directory, journal: Some(journal), model: Model::new() }
    }

    fn journal(&mut self) -> &mut Journal {
        self.journal.as_mut().unwrap()
    }

    /// Commits up to number `last`, each of which puts, replaces or removes.
    fn commit_to(&mut self, last: u64) {
        while self.model.state.number < last {
            let batch = batch(self.model.state.number + 1);
            self.model.apply(&batch);
            let state = self.model.state;
            let manifest = self.journal().append(batch.changes(), &state, STORE_VERSION).unwrap();
            assert_eq!(manifest.state, state);
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn segments(&self) -> Vec<Segment> {
        Segment::list(self.path()).unwrap()
    }

    fn inspect(&self) -> Inspection {
        inspect(self.path())
    }

    /// A copy of the directory, to do things to.
    fn copy(&self) -> tempfile::TempDir {
        copy_of(self.path())
    }

    /// Fails unless the journal in `path` makes this store, whole and going on.
    fn check(&self, path: &Path) {
        let mut inspection = inspect(path);
        assert_eq!((&inspection.damage, &inspection.torn), (&None, &None));
        assert_eq!(inspection.newest.unwrap().state, self.model.state);
        assert!(inspection.is_complete);
        let rebuilt = rebuild(&inspection).unwrap();
        assert_eq!(rebuilt.pairs, self.model.pairs);
        assert_eq!(rebuilt.state, self.model.state);

        inspection.cut_tail().unwrap();
        let mut journal = inspection.resume().unwrap();
        assert_eq!(journal.bytes(), size_of(path));
        let (mut model, batch) = (self.model.clone(), batch(self.model.state.number + 1));
        model.apply(&batch);
        journal.append(batch.changes(), &model.state, STORE_VERSION).unwrap();
        assert_eq!(inspect(path).newest.unwrap(), *journal.newest());
        assert_eq!(journal.bytes(), size_of(path));
    }
}

impl Journal {
    /// Rewrites it, and nobody appends meanwhile.
    fn rewrite(
        &mut self,
        pairs: impl IntoIterator<Item = Result<(Tree, Pair), Error>>,
    ) -> Result<(), Error> {
        let mut base = self.begin_rewriting()?;
        base.write(pairs)?;
        self.put_base(&base)?.erase()
    }
}

fn key_of_store() -> IntegrityKey {
    IntegrityKey::new(&[7; 32])
}

fn inspect(path: &Path) -> Inspection {
    Journal::inspect(path, &key_of_store(), 0).unwrap()
}

/// What commit `number` does.
fn batch(number: u64) -> Batch {
    let mut batch = Batch::default();
    let text = format!("value of {number}").into_bytes();
    batch.put(Tree::ALL[usize::try_from(number % 3).unwrap()], number.to_be_bytes(), text.clone());
    batch.put(Tree::Meta, *b"last", text);
    if number.is_multiple_of(4) {
        let removed = number - 3;
        let tree = Tree::ALL[usize::try_from(removed % 3).unwrap()];
        batch.remove(tree, removed.to_be_bytes());
    }
    batch
}

/// The store that base and frames make.
fn rebuild(inspection: &Inspection) -> Result<Model, Error> {
    let mut model = Model::new();
    if let Some(mut base) = inspection.base()? {
        while let Some((tree, (key, value))) = base.next()? {
            model.state.add(key_of_store().element(tree, &key, &value));
            model.pairs.insert((tree, key), value);
        }
        model.state.number = base.manifest().state.number;
        assert_eq!(model.state, base.manifest().state);
    }
    for frame in inspection.frames(model.state.number)? {
        let frame = frame?;
        model.apply(&frame.operations);
        assert_eq!(model.state, frame.manifest.state);
    }
    Ok(model)
}

fn copy_of(path: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

fn size_of(path: &Path) -> u64 {
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn is_damaged<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Damaged { .. }))
}

#[test]
fn a_journal_gives_back_every_commit_in_order_over_many_segments() {
    for segment_bytes in [1, 700, 2_000, SEGMENT] {
        let mut case = Case::new(segment_bytes);
        case.check(case.copy().path());
        case.commit_to(20);
        assert_eq!(case.segments().len() == 1, segment_bytes == SEGMENT);
        assert_eq!(case.journal().bytes(), size_of(case.path()));
        case.check(case.copy().path());
        let inspection = case.inspect();
        assert_eq!(inspection.newest, Some(*case.journal().newest()));
        for after in 0..=21 {
            let frames = inspection.frames(after).unwrap();
            let numbers: Vec<_> = frames.map(|it| it.unwrap().manifest.state.number).collect();
            assert_eq!(numbers, (after + 1..=20).collect::<Vec<_>>(), "{segment_bytes}");
        }
    }
}

#[test]
fn only_the_owner_can_read_a_journal() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("journal");
    let start = Manifest::of_empty_store().unwrap();
    Journal::create(&path, &key_of_store(), &start).unwrap();
    let journal = Journal::restart(&path, &key_of_store(), &start, []).unwrap();
    assert!(journal.is_complete());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    let files: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 2);
    assert!(files.iter().all(|file| mode(file) == 0o600));
}

/// A journal with a base, two segments with frames, and one that was just begun.
fn small_case() -> Case {
    let mut case = Case::new(SEGMENT);
    case.commit_to(2);
    let pairs = case.model.pairs();
    case.journal().rewrite(pairs).unwrap();
    case.journal().segment_bytes = 600;
    case.commit_to(5);
    assert_eq!(case.segments().len(), 2);
    case
}

#[test]
fn no_journal_is_nothing_and_files_of_other_names_are_left() {
    let parent = tempfile::tempdir().unwrap();
    let inspection = inspect(&parent.path().join("none"));
    assert_eq!((inspection.newest, inspection.is_complete, inspection.bytes), (None, false, 0));
    assert_eq!(inspection.frames(0).unwrap().count(), 0);

    let mut case = Case::new(SEGMENT);
    case.commit_to(1);
    for name in ["1.log", "000000000000000A.log", "0000000000000002", "notes.txt"] {
        fs::write(case.path().join(name), "hello").unwrap();
    }
    let inspection = case.inspect();
    assert_eq!((inspection.damage, inspection.torn), (None, None));
    let newest = *case.journal().newest();
    let journal = Journal::create(case.path(), &key_of_store(), &newest).unwrap();
    assert!(!journal.is_complete());
    assert!(case.path().join("notes.txt").exists());
}

#[test]
fn a_frame_of_a_newer_store_is_refused_by_its_version() {
    let mut case = Case::new(SEGMENT);
    case.commit_to(1);
    let mut model = case.model.clone();
    let batch = batch(2);
    model.apply(&batch);
    case.journal().append(batch.changes(), &model.state, STORE_VERSION + 3).unwrap();
    let inspected = Journal::inspect(case.path(), &key_of_store(), 0);
    let found = STORE_VERSION + 3;
    let Err(Error::TooNew { found: number, supported: STORE_VERSION }) = inspected else {
        panic!("{inspected:?}");
    };
    assert_eq!(number, found);

    // Another layout of a segment is told by its manifest.
    let path = case.segments().pop().unwrap().path;
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] += 1;
    bytes[12] += 7;
    fs::write(&path, bytes).unwrap();
    let inspected = Journal::inspect(case.path(), &key_of_store(), 0);
    assert!(matches!(inspected, Err(Error::TooNew { found, .. }) if found == STORE_VERSION + 7));
}

#[test]
fn a_commit_out_of_order_is_refused_before_it_is_written() {
    let mut case = Case::new(SEGMENT);
    case.commit_to(2);
    for number in [0, 1, 2, 4, u64::MAX] {
        let state = State { number, ..case.model.state };
        assert!(is_damaged(&case.journal().append(
            Batch::default().changes(),
            &state,
            STORE_VERSION
        )));
    }
    let mut large = Batch::default();
    large.put(Tree::Meta, *b"key", vec![0; MAX_VALUE + 1]);
    let state = State { number: 3, ..case.model.state };
    let appended = case.journal().append(large.changes(), &state, STORE_VERSION);
    assert!(matches!(appended, Err(Error::TooLarge)));
    case.commit_to(3);
    case.check(case.path());
}

#[test]
fn after_a_failed_write_the_journal_takes_nothing_more() {
    let mut case = Case::new(SEGMENT);
    case.commit_to(2);
    let path = case.segments().pop().unwrap().path;
    case.journal().file = File::open(path).unwrap();
    let state = State { number: 3, ..case.model.state };
    let appended = case.journal().append(Batch::default().changes(), &state, STORE_VERSION);
    assert!(matches!(appended, Err(Error::Io { .. })));
    let appended = case.journal().append(Batch::default().changes(), &state, STORE_VERSION);
    assert!(matches!(appended, Err(Error::ReadOnly)));
    let pairs = case.model.pairs();
    assert!(matches!(case.journal().rewrite(pairs), Err(Error::ReadOnly)));
    case.check(case.path());
}

#[test]
fn a_frame_larger_than_a_segment_has_one_of_its_own() {
    let mut case = Case::new(700);
    case.commit_to(3);
    let mut large = Batch::default();
    for number in 0..2_000_u32 {
        large.put(Tree::Tenant, number.to_be_bytes(), vec![1; 500]);
    }
    case.model.apply(&large);
    let state = case.model.state;
    case.journal().append(large.changes(), &state, STORE_VERSION).unwrap();
    case.commit_to(6);
    assert!(case.segments().iter().any(|segment| segment.first == 4 && segment.length > 1 << 19));
    assert!(case.segments().iter().any(|segment| segment.first == 5));
    case.check(case.path());
}

#[test]
fn the_golden_journal_is_read_and_written_byte_for_byte() {
    let key = vector_key(VECTOR);
    let (segment, base) = (vector(VECTOR, "segment"), vector(VECTOR, "base"));
    let salts = vector(VECTOR, "salts");
    let mut salts = salts.as_chunks::<16>().0.iter();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("0000000000000001.log"), &segment).unwrap();
    let inspection = Journal::inspect(directory.path(), &key, 0).unwrap();
    assert!(inspection.is_complete && inspection.torn.is_none());

    let chain = vector(VECTOR, "chain").try_into().unwrap();
    let mut newest = Manifest { state: State::default(), chain, store_version: STORE_VERSION };
    let start = newest.encode_with_salt(&key, salts.next().unwrap());
    let mut written = segment::encode_header(&start);
    for (frame, salt) in inspection.frames(0).unwrap().zip(salts) {
        let Frame { operations, manifest } = frame.unwrap();
        let mut bytes = Vec::new();
        let made = (&manifest.state, STORE_VERSION, salt);
        let before = newest.position();
        let chain = frame::encode(&mut bytes, &key, &before, operations.changes(), made).unwrap();
        assert_eq!(chain, manifest.chain);
        newest = manifest;
        written.extend(bytes);
    }
    assert_eq!(written, segment);
    assert_eq!((newest.state.number, newest.state.counts), (3, [1, 0, 2]));

    fs::write(directory.path().join("base"), base).unwrap();
    let inspection = Journal::inspect(directory.path(), &key, 0).unwrap();
    assert!(inspection.is_complete);
    assert_eq!(inspection.newest, Some(newest));
    let mut base = inspection.base().unwrap().unwrap();
    let mut pairs = Vec::new();
    while let Some((tree, (key, value))) = base.next().unwrap() {
        pairs.push((tree, key.len(), value.len()));
    }
    assert_eq!(pairs, [(Tree::Meta, 6, 3), (Tree::Token, 32, 92), (Tree::Token, 32, 0)]);
}
