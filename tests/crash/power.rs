//! Loss of power during a load: what the disk may hold then is opened, and compared with what was
//! acknowledged before.
//!
//! ```text
//! load under strace --> recording --any moment, any luck--> directory --open--> as acknowledged?
//! ```
//!
//! Three loads are recorded: from the making of the vault on, from an orderly opening on, and from
//! the opening after such a loss on.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::control::{self, Care};
use crate::disk::{Mercy, Recording};
use crate::load::Plan;
use crate::model::{Model, Owned, Said};
use crate::place::{self, PASSPHRASE, Place};
use crate::random::Random;
use crate::strace;
use crate::{child, fault, recorder, state, verb};

const THREADS: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Totals {
    recordings: usize,
    operations: usize,
    points: usize,
    after_acknowledgement: usize,
    acknowledged: u64,
    lost: usize,
    half: usize,
    not_opened: usize,
    findings: usize,
    pub(crate) faults: Vec<String>,
}

/// How much is done.
pub(crate) struct Extent {
    /// Times that three loads are recorded.
    pub(crate) rounds: usize,
    /// Losses of power in each.
    pub(crate) points: usize,
    /// Operations of each of the threads of a load.
    pub(crate) operations: u64,
}

/// A load that was recorded.
struct Load {
    recording: Recording,
    before: Vec<Owned>,
}

pub(crate) fn run(directory: &Path, seed: u64, extent: &Extent) -> Totals {
    let mut totals = Totals::default();
    let mut random = Random::new(seed);
    for round in 0..extent.rounds {
        let directory = directory.join(round.to_string());
        fs::create_dir(&directory).unwrap();
        let place = Place::without_vault(directory.join("place"));
        let mut threads = vec![Owned::default(); THREADS];
        for name in ["made", "opened", "recovered"] {
            let here = directory.join(name);
            fs::create_dir(&here).unwrap();
            let load = record(&place, &here, threads, extent.operations, random.next());
            totals.recordings += 1;
            totals.operations += load.recording.operations;
            for point in 0..extent.points {
                let root = here.join(point.to_string());
                load.lose_power(point, &root, &mut random, &mut totals);
            }
            threads = load.model(usize::MAX).threads;
            if name == "opened" {
                // The next one begins with what a loss of power left.
                let line = load.any_line(&mut random);
                let lost = here.join("next");
                load.recording.crash(line, Mercy::choose(&mut random), &mut random, &lost);
                let mut model = load.model(line);
                let is_opened = place::unsealed(&place::copied(&lost, &here).data(), PASSPHRASE)
                    .map(|vault| model.settle(&vault));
                if is_opened.is_err() {
                    // It is among the faults if it happens often enough to be met there.
                    break;
                }
                threads = model.threads;
                fs::remove_dir_all(place.data()).unwrap();
                fs::rename(lost.join("data"), place.data()).unwrap();
            }
        }
    }
    totals
}

/// Records a load on what `place` holds.
fn record(place: &Place, directory: &Path, before: Vec<Owned>, operations: u64, seed: u64) -> Load {
    Plan { seed, threads: before.clone(), operations }.write(place);
    let recording = record_task(place, directory, "load");
    Load { recording, before }
}

fn record_task(place: &Place, directory: &Path, task: &str) -> Recording {
    let copy = place.copy_to(directory.join("before"));
    let calls = directory.join("calls");
    let command = child::command(place, task);
    verb::succeeds(&mut strace::command(&command, &calls, &recorder::options())).unwrap();
    let text = fs::read_to_string(&calls).unwrap();
    let recording = Recording::of(&text, place.root(), copy.root());
    assert!(!recording.said.is_empty(), "strace saw nothing: are you root?");
    recording
}

impl Load {
    fn any_line(&self, random: &mut Random) -> usize {
        usize::try_from(random.below(self.recording.lines as u64)).unwrap()
    }

    /// What was acknowledged before `line`, and what was under way.
    fn model(&self, line: usize) -> Model {
        let mut model = Model::new(self.before.clone());
        for (began, ended, said) in &self.recording.said {
            let happened = if matches!(said, Said::Begun { .. }) { began } else { ended };
            if *happened < line {
                model.hear(said.clone());
            }
        }
        model
    }

    fn lose_power(&self, point: usize, root: &Path, random: &mut Random, totals: &mut Totals) {
        let acknowledgements: Vec<usize> = self
            .recording
            .said
            .iter()
            .filter(|(_, _, said)| matches!(said, Said::Done { .. }))
            .map(|(_, ended, _)| ended + 1)
            .collect();
        let line = match random.pick(&acknowledgements) {
            Some(line) if point.is_multiple_of(2) => {
                totals.after_acknowledgement += 1;
                *line
            }
            _ => self.any_line(random),
        };
        let mercy = Mercy::choose(random);
        self.recording.crash(line, mercy, random, root);
        let kept = root.with_extension("kept");
        place::copy(root, &kept);
        let mut model = self.model(line);
        totals.points += 1;
        totals.acknowledged += model.acknowledged;
        let faults = judge(&Place::at(root), &mut model, totals);
        if faults.is_empty() {
            fs::remove_dir_all(root).unwrap();
            fs::remove_dir_all(&kept).unwrap();
        }
        let at = format!("power lost at line {line} with {mercy:?}, {}", kept.display());
        totals.faults.extend(faults.into_iter().map(|fault| format!("{at}: {fault}")));
    }
}

fn judge(place: &Place, model: &mut Model, totals: &mut Totals) -> Vec<String> {
    if !place.data().join("header").exists() {
        if model.is_ready {
            totals.lost += 1;
            return vec!["there is no vault any more".to_owned()];
        }
        // It was being made, and can be made now.
        let made = std::panic::catch_unwind(|| place::create_vault(&place.data(), PASSPHRASE));
        if made.is_err() {
            totals.not_opened += 1;
            return vec!["a vault cannot be made where one was being made".to_owned()];
        }
    }
    let vault = match place::unsealed(&place.data(), PASSPHRASE) {
        Ok(vault) => vault,
        Err(error) => {
            totals.not_opened += 1;
            return vec![format!("it does not open: {}", state::told(&error))];
        }
    };
    let differences = model.settle(&vault);
    drop(vault);
    totals.lost += differences.lost.len();
    totals.half += differences.half.len();
    let mut faults = [differences.lost, differences.half].concat();
    place.write_secret("passphrase", PASSPHRASE);
    if fault::fsck_exists() {
        fs::create_dir_all(place.path("temporary")).unwrap();
        if let Err(found) = verb::succeeds(&mut place.command(&["fsck"])) {
            totals.findings += 1;
            faults.push(found);
        }
    }
    faults
}

/// Records that an application lost which it had said it had, over `points` losses of power.
pub(crate) fn lost_by(directory: &Path, care: Care, points: u64, random: &mut Random) -> u64 {
    let place = Place::without_vault(directory.join("place"));
    let recording = record_task(&place, directory, care.task());
    let mut lost = 0;
    for point in 0..points {
        let (_, ended, said) = random.pick(&recording.said).unwrap();
        let Said::Appended(last) = said else { unreachable!("{said:?}") };
        let root = directory.join(point.to_string());
        recording.crash(ended + 1, Mercy::choose(random), random, &root);
        lost += control::missing(&root, last + 1);
    }
    lost
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recordings, operations, points, after_acknowledgement, acknowledged, .. } = self;
        let Self { lost, half, not_opened, findings, .. } = self;
        write!(
            f,
            "power losses: {points}, {after_acknowledgement} of them right after an \
             acknowledgement, in {recordings} recordings of {operations} writes and syncs; \
             {acknowledged} acknowledged; lost {lost}, half {half}, not opened {not_opened}, fsck \
             findings {findings}"
        )
    }
}
