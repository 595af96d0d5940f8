//! What durable writing costs, beside what it could cost at least; and what grows with the tenants.
//!
//! `./dev bench --bench store`: our store, plain `sled` and a raw file that is appended to and
//! synced take turns on the disk of `TMPDIR`, with the same pairs. Ratios are medians over the
//! turns. The raw file is the limit: it cannot be read by key. Plain `sled` is flushed after every
//! write; its flush reaches the disk here only because this program carries our `sync_file_range`
//! (`store/durable.rs`).
//!
//! At the end, how long a commit waits while the store is rewritten; `-- rewriting PAIRS` does that
//! alone, with so many.
//!
//! `./dev bench --bench store -- scale [TENANTS...]`: import, opening, listing and the check at 100,
//! 10,000 and 1,000,000 tenants, each in a process of its own for its most memory, as the table of
//! docs/performance.md. A million takes minutes and 10 GB of disk.

#![expect(clippy::unwrap_used, reason = "a failed set-up should end the bench")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_methods, reason = "the machine's clock")]
#![expect(clippy::cast_precision_loss, reason = "rates and ratios, for people")]

#[path = "store/scale.rs"]
mod scale;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tenantry::store::{Batch, DataDir, IntegrityKey, Options, Pair, SledStore, Store, Tree};

/// As most envelopes are.
const VALUE: usize = 348;
const KEY: usize = 26;
const TURNS: usize = 7;
const WRITERS: usize = 64;
const BATCH: usize = 256;

fn main() {
    // Cargo passes `--bench`.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.split_first() {
        Some((verb, rest)) if verb == "scale" => scale::run(rest),
        Some((verb, [pairs])) if verb == "rewriting" => rewriting(pairs.parse().unwrap()),
        _ => against_limits(),
    }
}

fn against_limits() {
    println!(
        "{:34} {:>12} {:>12} {:>12} {:>9} {:>9}",
        "", "ours", "plain sled", "raw file", "/ sled", "/ raw"
    );
    // Each a number where more is better.
    compare("one durable put, per s", 200);
    compare_group("64 writers, puts per s");
    compare("import, batches of 256, pairs per s", 40 * BATCH);
    for pairs in [10_000, 100_000] {
        opening(pairs);
    }
    rewriting(40_000);
}

/// Three ways to keep pairs, in directories of their own.
struct Contestants {
    parent: TempDir,
    directory: DataDir,
    ours: SledStore,
    sled: sled::Db,
    raw: File,
}

impl Contestants {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let directory = DataDir::create(parent.path().join("data")).unwrap();
        // An opening wants it.
        directory.write_atomically(DataDir::HEADER, b"header").unwrap();
        let options = Options { ballast_bytes: 0 };
        let ours = SledStore::create(&directory, &key(), &options).unwrap();
        let sled = plain(&parent.path().join("sled"));
        let raw = File::create(parent.path().join("raw")).unwrap();
        Self { parent, directory, ours, sled, raw }
    }

    fn ours(&self, pairs: &[Pair]) {
        let mut batch = Batch::default();
        for (key, value) in pairs {
            batch.put(Tree::Tenant, key.as_slice(), value.as_slice());
        }
        self.ours.apply(batch).unwrap();
    }

    fn sled(&self, pairs: &[Pair]) {
        let mut batch = sled::Batch::default();
        for (key, value) in pairs {
            batch.insert(key.as_slice(), value.as_slice());
        }
        self.sled.apply_batch(batch).unwrap();
        self.sled.flush().unwrap();
    }

    fn raw(&self, pairs: &[Pair]) {
        let bytes: Vec<u8> =
            pairs.iter().flat_map(|(key, value)| [&key[..], value].concat()).collect();
        (&self.raw).write_all(&bytes).unwrap();
        self.raw.sync_data().unwrap();
    }
}

fn key() -> IntegrityKey {
    IntegrityKey::new(&[7; IntegrityKey::LENGTH])
}

fn plain(path: &Path) -> sled::Db {
    let configuration = sled::Config::new().path(path).flush_every_ms(None);
    configuration.cache_capacity(32 << 20).open().unwrap()
}

fn random_pair() -> Pair {
    let (mut key, mut value) = (vec![0; KEY], vec![0; VALUE]);
    getrandom::fill(&mut key).unwrap();
    getrandom::fill(&mut value).unwrap();
    (key, value)
}

fn random_pairs(count: usize) -> Vec<Pair> {
    (0..count).map(|_| random_pair()).collect()
}

/// Writes `pairs` a turn, one by one or in batches if they are many.
fn compare(name: &str, pairs: usize) {
    let contestants = Contestants::new();
    let size = if pairs > BATCH { BATCH } else { 1 };
    let turn = |write: &dyn Fn(&[Pair])| {
        let pairs = random_pairs(pairs);
        let began = Instant::now();
        pairs.chunks(size).for_each(write);
        pairs.len() as f64 / began.elapsed().as_secs_f64()
    };
    let turns = (0..TURNS).map(|_| {
        [
            turn(&|pairs| contestants.ours(pairs)),
            turn(&|pairs| contestants.sled(pairs)),
            turn(&|pairs| contestants.raw(pairs)),
        ]
    });
    report(name, &turns.collect::<Vec<_>>());
}

/// 64 threads that each put one pair after the other; the raw file takes 64 at a time.
fn compare_group(name: &str) {
    const TURN: Duration = Duration::from_millis(800);
    let contestants = Contestants::new();
    let turn = |threads: usize, size: usize, write: &(dyn Fn(&[Pair]) + Sync)| {
        let written = AtomicU64::new(0);
        let began = Instant::now();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while began.elapsed() < TURN {
                        write(&random_pairs(size));
                        written.fetch_add(size as u64, Ordering::Relaxed);
                    }
                });
            }
        });
        written.into_inner() as f64 / began.elapsed().as_secs_f64()
    };
    let turns = (0..TURNS).map(|_| {
        [
            turn(WRITERS, 1, &|pairs| contestants.ours(pairs)),
            turn(WRITERS, 1, &|pairs| contestants.sled(pairs)),
            turn(1, WRITERS, &|pairs| contestants.raw(pairs)),
        ]
    });
    report(name, &turns.collect::<Vec<_>>());
}

/// Opens what has `count` pairs; ours compares all of them with the manifest, the raw file is read.
fn opening(count: usize) {
    let mut contestants = Contestants::new();
    for _ in 0..count.div_ceil(BATCH) {
        let pairs = random_pairs(BATCH.min(count));
        contestants.ours(&pairs);
        contestants.sled(&pairs);
        contestants.raw(&pairs);
    }
    let parent: PathBuf = contestants.parent.path().to_owned();
    let timed = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        work();
        1.0 / began.elapsed().as_secs_f64()
    };
    let mut turns = Vec::new();
    for _ in 0..TURNS {
        let Contestants { parent: kept, directory, ours, sled, raw } = contestants;
        drop((ours, sled));
        wait_until_closed(&directory.store_path());
        wait_until_closed(&parent.join("sled"));
        let options = Options { ballast_bytes: 0 };
        let (mut new_ours, mut new_sled) = (None, None);
        let turn = [
            timed(&mut || {
                new_ours = Some(SledStore::open(&directory, &key(), &options, false).unwrap());
            }),
            timed(&mut || new_sled = Some(plain(&parent.join("sled")))),
            timed(&mut || drop(fs::read(parent.join("raw")).unwrap())),
        ];
        turns.push(turn);
        let (ours, repairs) = new_ours.unwrap();
        assert!(repairs.is_empty(), "{repairs:?}");
        assert!(ours.condition().is_checked);
        contestants = Contestants { parent: kept, directory, ours, sled: new_sled.unwrap(), raw };
    }
    report(&format!("open and check {count} pairs, per s"), &turns);
}

/// How long commits take while `count` pairs are rewritten, and before.
fn rewriting(count: usize) {
    let contestants = Contestants::new();
    for pairs in random_pairs(count).chunks(BATCH) {
        contestants.ours(pairs);
    }
    let commit = || {
        let pairs = random_pairs(1);
        let began = Instant::now();
        contestants.ours(&pairs);
        1e3 * began.elapsed().as_secs_f64()
    };
    for turn in 1..=TURNS {
        let quiet: Vec<f64> = (0..500).map(|_| commit()).collect();
        let (mut during, mut seconds) = (Vec::new(), 0.0);
        thread::scope(|scope| {
            let rewriting = scope.spawn(|| {
                let began = Instant::now();
                contestants.ours.rewrite().unwrap();
                began.elapsed().as_secs_f64()
            });
            while !rewriting.is_finished() {
                during.push(commit());
            }
            seconds = rewriting.join().unwrap();
        });
        let told = |commits: Vec<f64>| {
            let longest = commits.iter().copied().fold(0.0, f64::max);
            format!(
                "{} commits of {:.1} ms, longest {longest:.0} ms",
                commits.len(),
                median(commits)
            )
        };
        println!(
            "rewriting {count} pairs, {turn}: {seconds:.1} s, {} (before it: {})",
            told(during),
            told(quiet)
        );
    }
}

/// Waits until the threads of an engine that was closed have let go of its files.
fn wait_until_closed(path: &Path) {
    let file = File::open(path.join("db")).unwrap();
    while file.try_lock().is_err() {
        thread::sleep(Duration::from_millis(1));
    }
}

fn report(name: &str, turns: &[[f64; 3]]) {
    let of = |value: &dyn Fn(&[f64; 3]) -> f64| median(turns.iter().map(value).collect());
    println!(
        "{name:34} {:>12.1} {:>12.1} {:>12.1} {:>9.2} {:>9.3}",
        of(&|turn| turn[0]),
        of(&|turn| turn[1]),
        of(&|turn| turn[2]),
        of(&|turn| turn[0] / turn[1]),
        of(&|turn| turn[0] / turn[2]),
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bytes of every file below `path`.
fn size(path: &Path) -> u64 {
    let metadata = fs::symlink_metadata(path).unwrap();
    if metadata.is_dir() {
        fs::read_dir(path).unwrap().map(|entry| size(&entry.unwrap().path())).sum()
    } else {
        metadata.len()
    }
}
