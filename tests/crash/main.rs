//! Nothing acknowledged is lost, whatever ends the program: a kill at any system call, a disk that
//! fails or is full, a loss of power.
//!
//! | module | what ends it |
//! |---|---|
//! | `fault` | each call of each verb that changes a file, by SIGKILL, EIO and ENOSPC |
//! | `kill` | SIGKILL at random moments of a load of many threads |
//! | `full` | nothing: a disk of 16 MiB fills up, and room is made again |
//! | `damage` | nothing: files are altered, or older ones put back |
//! | `power` | the power, at random moments of such a load, as `disk` works it out |
//!
//! `./dev test` runs a sample, `./dev crash` all. Needs strace, and to be root: the program does
//! not let its own user read its memory.
#![cfg(target_os = "linux")]
#![expect(clippy::print_stdout, reason = "what a run came to is for people")]
#![expect(clippy::unwrap_used, reason = "a failed set-up should fail the test")]

mod child;
mod control;
mod damage;
mod disk;
mod fault;
mod full;
mod kill;
mod load;
mod model;
mod place;
mod power;
mod random;
mod recorder;
mod state;
mod strace;
mod verb;

use std::fmt::Display;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use control::Care;
use random::Random;

/// Most of a fault that is printed, in characters.
const LONGEST: usize = 700;

/// Whether `./dev crash` wants everything, or less will do.
fn is_full() -> bool {
    child::variable("TENANTRY_CRASH").as_deref() == Some("full")
}

/// One after the other: each keeps the machine busy by itself.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What random choices begin with.
fn seed() -> u64 {
    let given = child::variable("TENANTRY_CRASH_SEED").and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| RandomState::new().build_hasher().finish())
}

/// Prints what a harness came to; fails with `faults`, if there are any, and keeps `directory` then.
fn conclude(totals: &dyn Display, faults: &[String], directory: TempDir) {
    println!("{totals}");
    if !faults.is_empty() {
        println!("what was found is kept in {}", directory.keep().display());
    }
    let shown: Vec<String> = faults.iter().map(|it| it.chars().take(LONGEST).collect()).collect();
    assert!(faults.is_empty(), "{} faults:\n{}\n", faults.len(), shown.join("\n"));
}

#[test]
fn a_verb_that_is_cut_off_at_any_call_is_done_or_not_and_can_be_repeated() {
    strace::require();
    let _alone = alone();
    let extent = if is_full() {
        fault::Extent { cases: usize::MAX, time: Duration::MAX }
    } else {
        fault::Extent { cases: 60, time: Duration::from_secs(40) }
    };
    let directory = place::scratch();
    let only = child::variable("TENANTRY_CRASH_VERB").unwrap_or_default();
    let totals = fault::run(directory.path(), &only, &extent);
    conclude(&totals, &totals.faults, directory);
}

#[test]
fn everything_acknowledged_is_there_after_a_kill_at_any_moment_of_a_load() {
    let _alone = alone();
    let directory = place::scratch();
    let seed = seed();
    println!("TENANTRY_CRASH_SEED={seed}");
    let totals = kill::run(directory.path(), seed, if is_full() { 2_000 } else { 100 });
    conclude(&totals, &totals.faults, directory);
}

#[test]
fn everything_acknowledged_is_there_after_a_loss_of_power_at_any_moment_of_a_load() {
    strace::require();
    let _alone = alone();
    let directory = place::scratch();
    let seed = seed();
    println!("TENANTRY_CRASH_SEED={seed}");
    let extent = if is_full() {
        power::Extent { rounds: 4, points: 40, operations: 20 }
    } else {
        power::Extent { rounds: 1, points: 10, operations: 8 }
    };
    let totals = power::run(directory.path(), seed, &extent);
    conclude(&totals, &totals.faults, directory);
}

#[test]
fn the_simulated_disk_loses_what_is_not_synced_and_keeps_what_is() {
    strace::require();
    let seed = seed();
    println!("TENANTRY_CRASH_SEED={seed}");
    let mut random = Random::new(seed);
    for care in Care::ALL {
        let directory = place::scratch();
        let lost = power::lost_by(directory.path(), care, 60, &mut random);
        println!("{:>32}: {lost} records lost", care.task());
        assert_eq!(lost == 0, care == Care::Full);
    }
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_else_and_loses_nothing() {
    let _alone = alone();
    let directory = place::scratch();
    println!("{}", full::run(directory.path()));
}

#[test]
fn a_damaged_or_older_file_is_refused_or_made_good_and_never_believed() {
    let _alone = alone();
    let directory = place::scratch();
    let seed = seed();
    println!("TENANTRY_CRASH_SEED={seed}");
    let extent = if is_full() {
        damage::Extent { bits_apart: 1, other_bits_apart: 13, damages: 2_000, images_apart: 1 }
    } else {
        damage::Extent { bits_apart: 397, other_bits_apart: 4_999, damages: 60, images_apart: 29 }
    };
    let totals = damage::run(directory.path(), seed, extent);
    conclude(&totals, &totals.faults, directory);
}
