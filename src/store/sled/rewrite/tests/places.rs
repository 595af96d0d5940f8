//! The names of the store's directory, whenever the process ends.

use super::super::super::super::erase::exchange;
use super::*;

/// Leaves a copy of `engine` in its place.
fn copy(places: &Places<'_>, engine: &Engine) {
    let copy = places.new_engine().unwrap();
    copy.load(engine.pairs()).unwrap();
    if let Some(manifest) = engine.manifest().unwrap() {
        copy.write(&[], &manifest).unwrap();
    }
    copy.flush().unwrap();
    copy.close(&places.new).unwrap();
}

#[test]
fn both_ways_to_swap_end_with_the_copy_alone() {
    for exchanges in [true, false] {
        let (bench, store) = Bench::new();
        let path = bench.directory.store_path();
        put(&store, 0..20, "first");
        put(&store, 0..20, "second");
        drop(store);
        let places = Places::of(&path);
        let engine = Engine::open(&path, CACHE_BYTES).unwrap();
        copy(&places, &engine);
        let old = places
            .swap(|one, other| if exchanges { exchange(one, other) } else { Ok(false) })
            .unwrap();
        assert_eq!(old, if exchanges { &places.new } else { &places.old });
        engine.close(old).unwrap();
        let store = bench.open();
        assert_eq!(store.scan(Tree::Tenant, b"").unwrap().len(), 20);
        assert!(!places.new.exists() && !places.old.exists());
        let files = contents(&path);
        assert!(occurs("second-tail-00007", &files) && !occurs("first-tail-00007", &files));
    }
}

/// What is under one of the three names when the process ends.
#[derive(Clone, Copy, Debug)]
enum Found {
    Nothing,
    /// A directory made, and no file yet.
    Empty,
    /// Written to the middle of its file.
    Part,
    Live,
    /// The finished copy.
    Whole,
    /// The erasing has begun.
    Zeros,
    /// Nearly all is erased.
    Unlinked,
}

struct Scene {
    _directory: tempfile::TempDir,
    live: PathBuf,
    whole: PathBuf,
    data: PathBuf,
    pairs: Vec<Pair>,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [live, whole, data] =
            ["live", "live.new", "data"].map(|name| directory.path().join(name));
        fs::create_dir(&live).unwrap();
        let engine = Engine::create(&live, CACHE_BYTES, 0).unwrap();
        let (key_, mut state) = (IntegrityKey::new(&[7; 32]), State::default());
        for (numbers, generation) in [(0..300, "first"), (0..100, "second")] {
            for number in numbers {
                let value = canary(number, generation);
                let change = (Tree::Tenant, &*key(number), Some(&*value));
                state = engine.replace(&key_, state, change).unwrap();
            }
        }
        copy(&Places::of(&live), &engine);
        let pairs = engine.scan(Tree::Tenant, b"").unwrap();
        // So that the files are at rest.
        engine.close(&live).unwrap();
        Self { _directory: directory, live, whole, data, pairs }
    }

    fn set(&self, [store, new, old]: [Found; 3]) -> PathBuf {
        if self.data.exists() {
            fs::remove_dir_all(&self.data).unwrap();
        }
        fs::create_dir(&self.data).unwrap();
        for (found, name) in [(store, "store"), (new, "store.new"), (old, "store.old")] {
            let path = self.data.join(name);
            let database = path.join("db");
            match found {
                Found::Nothing => {}
                Found::Empty => fs::create_dir(&path).unwrap(),
                Found::Live => copy_directory(&self.live, &path),
                Found::Whole => copy_directory(&self.whole, &path),
                Found::Part => {
                    copy_directory(&self.whole, &path);
                    let file = fs::OpenOptions::new().write(true).open(&database).unwrap();
                    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
                }
                Found::Zeros => {
                    copy_directory(&self.live, &path);
                    let length = fs::metadata(&database).unwrap().len();
                    fs::write(&database, vec![0; usize::try_from(length).unwrap()]).unwrap();
                }
                Found::Unlinked => {
                    copy_directory(&self.live, &path);
                    fs::remove_file(&database).unwrap();
                }
            }
        }
        self.data.join("store")
    }
}

/// As an opening of the store does it.
fn open(path: &Path) -> Result<Engine, Error> {
    let places = Places::of(path);
    places.repair()?;
    let engine = Engine::open(path, CACHE_BYTES)?;
    places.clear()?;
    Ok(engine)
}

#[test]
fn whatever_a_crash_leaves_the_store_opens_and_is_complete() {
    use Found::{Empty, Live, Nothing, Part, Unlinked, Whole, Zeros};
    let scene = Scene::new();
    let states = [
        [Live, Nothing, Nothing],
        [Live, Empty, Nothing],
        [Live, Part, Nothing],
        [Live, Whole, Nothing],
        // The names exchanged.
        [Whole, Live, Nothing],
        [Whole, Zeros, Nothing],
        [Whole, Unlinked, Nothing],
        [Whole, Empty, Nothing],
        [Whole, Nothing, Nothing],
        // The two renames.
        [Nothing, Whole, Live],
        [Whole, Nothing, Live],
        [Whole, Nothing, Zeros],
        [Whole, Nothing, Unlinked],
        [Whole, Nothing, Empty],
        // The repair of a crash between the renames, cut off itself.
        [Live, Zeros, Nothing],
        [Live, Unlinked, Nothing],
        // A power failure that kept the new name and lost the old one's going.
        [Live, Whole, Live],
    ];
    for state in states {
        let path = scene.set(state);
        for _ in 0..2 {
            let engine = open(&path).unwrap();
            assert!(engine.scan(Tree::Tenant, b"").unwrap() == scene.pairs, "{state:?}");
            assert_eq!(fs::read_dir(&scene.data).unwrap().count(), 1, "{state:?}");
            engine.close(&path).unwrap();
        }
    }
}

#[test]
fn nothing_is_erased_or_renamed_unless_the_store_is_whole() {
    use Found::{Empty, Live, Nothing, Part, Whole};
    let scene = Scene::new();
    for state in [[Nothing, Whole, Nothing], [Empty, Whole, Nothing], [Part, Live, Live]] {
        let path = scene.set(state);
        // The engine answers a cut file with less; take its configuration instead.
        if matches!(state[0], Part) {
            fs::remove_file(path.join("conf")).unwrap();
        }
        let error = open(&path).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
        let left = [(state[1], "store.new"), (state[2], "store.old")];
        for (_, name) in left.iter().filter(|(found, _)| !matches!(found, Nothing)) {
            let path = scene.data.join(name);
            assert_eq!(open(&path).unwrap().scan(Tree::Tenant, b"").unwrap(), scene.pairs);
        }
    }
}
