//! SIGKILL at random moments of a load, over and over on the same directory.
//!
//! ```text
//! child: 8 to 64 threads --operation begun, done--> pipe --> model
//! parent: --SIGKILL--> child; opens the vault; what it holds is what the model says; on
//! ```

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tokio::time::Instant;

use crate::load::{self, Plan};
use crate::model::{Model, Owned};
use crate::place::{self, PASSPHRASE, Place};
use crate::random::Random;
use crate::{child, fault, state, verb};

const THREADS: u64 = 64;
const FEWEST: u64 = 8;
/// Kills between two checks by the program itself.
const CHECKS: u64 = 50;
/// How long a load goes on at most, once it is open.
const LOAD: u64 = 120_000;
/// About how long it takes to open.
const OPENING: u64 = 60_000;
/// Longer than an opening ever takes.
const LIMIT: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
pub(crate) struct Totals {
    kills: u64,
    while_open: u64,
    operations: u64,
    acknowledged: u64,
    lost: usize,
    half: usize,
    not_opened: usize,
    failed: usize,
    checks: u64,
    findings: usize,
    seconds: u64,
    pub(crate) faults: Vec<String>,
}

/// Kills a load in `directory` so many times.
pub(crate) fn run(directory: &Path, seed: u64, kills: u64) -> Totals {
    let start = Instant::now();
    let place = Place::with_vault(directory.join("place"));
    let mut random = Random::new(seed);
    let mut totals = Totals::default();
    let mut threads = vec![Owned::default(); usize::try_from(THREADS).unwrap()];
    for round in 1..=kills {
        let working = usize::try_from(FEWEST + random.below(THREADS - FEWEST + 1)).unwrap();
        let mut model = kill_one(&place, &mut random, &threads, working, &mut totals);
        if !settle(&place, &mut model, &mut totals, round) {
            // What is there cannot be gone on with.
            break;
        }
        threads = model.threads;
        if round % CHECKS == 0 || round == kills {
            check(&place, &mut totals, round);
        }
    }
    totals.seconds = start.elapsed().as_secs();
    totals
}

/// Starts a load of which `working` threads work, kills it, and answers what it said.
fn kill_one(
    place: &Place,
    random: &mut Random,
    threads: &[Owned],
    working: usize,
    totals: &mut Totals,
) -> Model {
    let working_threads = threads[..working].to_vec();
    Plan { seed: random.next(), threads: working_threads, operations: u64::MAX }.write(place);
    let is_in_opening = random.is_one_in(4);
    let moment = Duration::from_micros(random.below(if is_in_opening { OPENING } else { LOAD }));
    let mut child = child::command(place, "load")
        .stdout(Stdio::piped())
        .stderr(File::create(place.path("stderr")).unwrap())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let (ready, wait) = mpsc::channel();
    let mut model = Model::new(threads.to_vec());
    let mut begun = 0;
    let listening = std::thread::spawn(move || {
        for said in load::listen(output) {
            begun += u64::from(matches!(said, crate::model::Said::Begun { .. }));
            let was_ready = model.is_ready;
            model.hear(said);
            if model.is_ready && !was_ready {
                // Nobody waits when it is to be killed while it opens.
                ready.send(()).ok();
            }
        }
        (model, begun)
    });
    // One that ended before said why.
    if is_in_opening || wait.recv_timeout(LIMIT).is_ok() {
        std::thread::sleep(moment);
    }
    totals.kills += u64::from(kill(&mut child));
    let (model, begun) = listening.join().unwrap();
    totals.while_open += u64::from(model.is_ready);
    totals.operations += begun;
    totals.acknowledged += model.acknowledged;
    model
}

/// Whether it was still there to be killed.
fn kill(child: &mut Child) -> bool {
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}

/// Compares what is there with what `model` knows; whether it can be gone on with.
fn settle(place: &Place, model: &mut Model, totals: &mut Totals, round: u64) -> bool {
    for failure in std::mem::take(&mut model.failures) {
        totals.failed += 1;
        totals.faults.push(format!("kill {round}: failed: {failure}"));
    }
    let said = place.read("stderr");
    if said.contains("panicked") || said.contains("error_code") {
        totals.failed += 1;
        totals.faults.push(format!("kill {round}: the child said {said}"));
    }
    let vault = match place::unsealed(&place.data(), PASSPHRASE) {
        Ok(vault) => vault,
        Err(error) => {
            totals.not_opened += 1;
            totals.faults.push(format!("kill {round}: not opened: {}", state::told(&error)));
            return false;
        }
    };
    let differences = model.settle(&vault);
    totals.lost += differences.lost.len();
    totals.half += differences.half.len();
    let is_right = differences.is_none();
    let found = differences.lost.into_iter().chain(differences.half);
    totals.faults.extend(found.map(|what| format!("kill {round}: {what}")));
    is_right
}

/// Has the program look at everything.
fn check(place: &Place, totals: &mut Totals, round: u64) {
    let verb: &[&str] = if fault::fsck_exists() { &["fsck"] } else { &["tenant", "list"] };
    totals.checks += 1;
    if let Err(said) = verb::succeeds(&mut place.command(verb)) {
        totals.findings += 1;
        totals.faults.push(format!("kill {round}: {said}"));
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, while_open, operations, acknowledged, seconds, .. } = self;
        let Self { lost, half, not_opened, failed, checks, findings, .. } = self;
        write!(
            f,
            "kills: {kills} in {seconds} s, {while_open} of them under load, the others while \
             opening; {operations} operations begun, {acknowledged} acknowledged; lost {lost}, \
             half {half}, not opened {not_opened}, failed {failed}, fsck findings {findings} in \
             {checks} runs"
        )
    }
}
