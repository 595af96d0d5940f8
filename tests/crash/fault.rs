//! Every verb, cut off or refused by the system at each call that changes a file.
//!
//! ```text
//! one run under strace --> its calls --> for each call: copy of the beginning
//!     --strace, which at this call kills, or answers EIO or ENOSPC--> what is left
//!     --> opens? as before or as after? fsck? and when the verb is repeated?
//! ```
//!
//! strace counts the calls of each thread by itself. So a call is told from those of other threads
//! by the files that strace looks at: the fewest with which this thread comes to its number first.

use std::fmt;
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tenantry::ErrorCode;
use tokio::time::Instant;

use crate::place::Place;
use crate::state::{self, State};
use crate::strace::{self, Call};
use crate::verb::{self, Verb};

/// Longer than any verb takes, also under strace and with a watchdog in it.
const LIMIT: Duration = Duration::from_mins(2);
const WORKERS: usize = 2;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Effect {
    Kill,
    Error(&'static str),
}

/// One call of one verb, and what befalls it.
#[derive(Clone, Debug)]
struct Injection {
    call: String,
    effect: Effect,
    /// Those that strace looks at, below the root of the place.
    paths: Vec<PathBuf>,
    /// Counts calls of that name on those files in one thread, from 1.
    occurrence: usize,
}

/// What became of all cases.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    cases: usize,
    killed: usize,
    failed: usize,
    not_reached: usize,
    not_opened: usize,
    half: usize,
    lost: usize,
    undesigned: usize,
    not_repeated: usize,
    findings: usize,
    pub(crate) faults: Vec<String>,
}

/// A verb with what one undisturbed run showed.
struct Traced {
    verb: Verb,
    begin: Place,
    before: Option<State>,
    after: Option<State>,
    injections: Vec<Injection>,
}

/// Which cases are run.
pub(crate) struct Extent {
    /// At most so many, spread over all.
    pub(crate) cases: usize,
    /// None is begun later than this.
    pub(crate) time: Duration,
}

/// Runs the verbs whose name contains `only`, in `directory`.
pub(crate) fn run(directory: &Path, only: &str, extent: &Extent) -> Totals {
    let mut traced = Vec::new();
    for (number, verb) in verb::all().into_iter().enumerate() {
        if !verb.name.contains(only) {
            continue;
        }
        if !verb.exists() {
            println!("{:>24}  is not in this program", verb.name);
            continue;
        }
        let traced_verb = trace(verb, &directory.join(number.to_string()));
        let (name, count) = (traced_verb.verb.name, traced_verb.injections.len());
        println!("{name:>24}  {count} injections");
        traced.push(traced_verb);
    }
    let cases: Vec<(&Traced, &Injection)> = traced
        .iter()
        .flat_map(|traced| traced.injections.iter().map(move |injection| (traced, injection)))
        .collect();
    // Not a multiple of the number of effects: each has its turn.
    let step = cases.len().div_ceil(extent.cases).max(1);
    let step = if step.is_multiple_of(3) { step + 1 } else { step };
    let start = Instant::now();
    let (next, totals) = (AtomicUsize::new(0), Mutex::new(Totals::default()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed) * step;
                    let Some((traced, injection)) = cases.get(number) else { break };
                    if start.elapsed() > extent.time {
                        break;
                    }
                    let root = directory.join(format!("case{number}"));
                    traced.case(injection, &root, &totals);
                }
            });
        }
    });
    totals.into_inner().unwrap()
}

fn trace(verb: Verb, directory: &Path) -> Traced {
    fs::create_dir(directory).unwrap();
    let begin = verb.prepare(&directory.join("begin"));
    let before = state::of(&begin.copy_to(directory.join("before"))).unwrap();
    let place = begin.copy_to(directory.join("after"));
    let output = directory.join("calls");
    let names = format!("trace={}", strace::CALLS.join(","));
    let mut command = strace::command(&verb.command(&place), &output, &["-e".to_owned(), names]);
    verb::succeeds(&mut command).unwrap();
    let after = state::of(&place).unwrap();
    let after = after.map(|after| match &before {
        Some(before) => after.since(before),
        None => after,
    });
    let calls = strace::parse(&fs::read_to_string(output).unwrap());
    let injections = injections(&calls, place.root());
    assert!(
        !injections.is_empty(),
        "strace sees no file of {}: only root may look into the program",
        verb.name
    );
    Traced { verb, begin, before, after, injections }
}

/// Every way in which `calls` can be disturbed that change what is below `root`.
fn injections(calls: &[Call], root: &Path) -> Vec<Injection> {
    let paths: Vec<Vec<PathBuf>> = calls
        .iter()
        .map(|call| {
            let below = |path: PathBuf| path.strip_prefix(root).map(Path::to_owned).ok();
            call.paths().into_iter().filter_map(below).collect()
        })
        .collect();
    let mut injections = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        if paths[index].is_empty() || !call.is_change() || !call.succeeded() {
            continue;
        }
        let (chosen, occurrence) = tell_apart(calls, &paths, index);
        for effect in [Effect::Kill, Effect::Error("EIO"), Effect::Error("ENOSPC")] {
            let (call, paths) = (call.name.clone(), chosen.clone());
            injections.push(Injection { call, effect, paths, occurrence });
        }
    }
    injections
}

/// Files with which call `index` can be told from those of other threads, and its number then.
fn tell_apart(calls: &[Call], paths: &[Vec<PathBuf>], index: usize) -> (Vec<PathBuf>, usize) {
    let call = &calls[index];
    let of_thread = |other: &usize| calls[*other].thread == call.thread;
    let is_counted = |other: &usize, chosen: &[PathBuf]| {
        calls[*other].name == call.name && paths[*other].iter().any(|it| chosen.contains(it))
    };
    let number = |chosen: &[PathBuf]| {
        (0..=index).filter(|other| of_thread(other) && is_counted(other, chosen)).count()
    };
    let is_first = |chosen: &[PathBuf]| {
        let number = number(chosen);
        let others = (0..index).filter(|other| !of_thread(other) && is_counted(other, chosen));
        let mut counts = std::collections::HashMap::new();
        others.into_iter().all(|other| {
            let count = counts.entry(calls[other].thread).or_insert(0);
            *count += 1;
            *count < number
        })
    };
    let own = vec![paths[index][0].clone()];
    let mut more: Vec<&PathBuf> = (0..=index).filter(of_thread).flat_map(|it| &paths[it]).collect();
    more.sort();
    more.dedup();
    let pairs = more.iter().map(|path| vec![own[0].clone(), (*path).clone()]);
    let every = more.iter().map(|path| (*path).clone()).collect();
    let chosen = std::iter::once(own.clone()).chain(pairs).chain([every]).find(|it| is_first(it));
    let chosen = chosen.unwrap_or(own);
    let number = number(&chosen);
    (chosen, number)
}

impl Traced {
    fn case(&self, injection: &Injection, root: &Path, totals: &Mutex<Totals>) {
        let place = self.begin.copy_to(root);
        let calls = root.with_extension("calls");
        let command = self.verb.command(&place);
        let output =
            finish(&mut strace::command(&command, &calls, &injection.options(place.root())));
        let text = fs::read_to_string(&calls).unwrap_or_default();
        let is_killed = output.as_ref().is_some_and(|it| it.status.signal() == Some(9));
        let is_hit = is_killed || text.contains("(INJECTED)");
        let found = state::of(&place);
        let mut verdict =
            Totals { cases: 1, not_reached: usize::from(!is_hit), ..Totals::default() };
        let mut faults = Vec::new();
        match &output {
            None => {
                verdict.undesigned += 1;
                faults.push(format!("it does not end within {} s", LIMIT.as_secs()));
            }
            Some(_) if is_killed => verdict.killed += 1,
            Some(output) => {
                verdict.failed += usize::from(!output.status.success());
                if let Err(how) = check_ending(output) {
                    verdict.undesigned += 1;
                    faults.push(how);
                }
            }
        }
        let is_acknowledged = output.as_ref().is_some_and(|output| output.status.success());
        self.check_state(&found, is_acknowledged, &mut verdict, &mut faults);
        if let Ok(found) = &found {
            if let Some(state) = found {
                place.expect_passphrase(&state.passphrase);
            }
            if found.is_some() && fsck(&place, &mut faults).is_err() {
                verdict.findings += 1;
            }
            if let Err(why) = self.repeat(&place, found.is_some()) {
                verdict.not_repeated += 1;
                faults.push(format!("repeated: {why}"));
            }
        }
        let mut totals = totals.lock().unwrap();
        if faults.is_empty() {
            fs::remove_dir_all(root).unwrap();
        } else {
            let end = output.map(|output| format!("{}", output.status)).unwrap_or_default();
            let fault = format!(
                "{}, {injection} ({end}, {}): {}",
                self.verb.name,
                root.display(),
                faults.join("; ")
            );
            // At once: all of them take an hour.
            println!("{fault}");
            totals.faults.push(fault);
        }
        drop(fs::remove_file(calls));
        totals.add(&verdict);
        if totals.cases.is_multiple_of(500) {
            println!("{totals}");
        }
    }

    fn check_state(
        &self,
        found: &Result<Option<State>, String>,
        is_acknowledged: bool,
        verdict: &mut Totals,
        faults: &mut Vec<String>,
    ) {
        let found = match found {
            Ok(found) => found.as_ref().map(|state| self.comparable(state)),
            Err(error) => {
                verdict.not_opened += 1;
                faults.push(format!("it does not open: {error}"));
                return;
            }
        };
        if found == self.after {
            return;
        }
        if found != self.before {
            verdict.half += 1;
            faults.push(format!("neither as before nor as after: {found:?}"));
        } else if is_acknowledged {
            verdict.lost += 1;
            faults.push("it ended well, and left everything as it was".to_owned());
        }
    }

    fn comparable(&self, state: &State) -> State {
        match &self.before {
            Some(before) => state.since(before),
            None => state.clone(),
        }
    }

    fn repeat(&self, place: &Place, is_there: bool) -> Result<(), String> {
        self.verb.repeat(place, is_there)?;
        let now = state::of(place)?.map(|state| self.comparable(&state));
        if self.verb.is_idempotent() && now != self.after {
            return Err(format!("it leaves {now:?}"));
        }
        Ok(())
    }
}

fn fsck(place: &Place, faults: &mut Vec<String>) -> Result<(), ()> {
    if !fsck_exists() {
        return Ok(());
    }
    verb::succeeds(&mut place.command(&["fsck"])).map_err(|found| faults.push(found))
}

/// Whether the program can be asked whether everything is right.
pub(crate) fn fsck_exists() -> bool {
    verb::all().iter().any(|verb| verb.name == "fsck" && verb.exists())
}

/// Runs `command` to its end; nothing if that does not come.
fn finish(command: &mut Command) -> Option<Output> {
    let child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    let group = Pid::from_child(&child);
    let (ended, wait) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait_with_output().unwrap()));
    let output = wait.recv_timeout(LIMIT).ok();
    if output.is_none() {
        kill_process_group(group, Signal::KILL).unwrap();
    }
    output
}

/// A verb that fails says a code that is known, and ends as that code does. A panic of the engine may
/// be logged, where it is confined.
fn check_ending(output: &Output) -> Result<(), String> {
    let said = String::from_utf8_lossy(&output.stderr);
    // The program logs it; our own child says it as Rust does.
    let is_said =
        |line: &str| line.contains("ERROR panicked place=") || line.contains("panicked at ");
    let is_confined = |line: &str| is_said(line) && line.contains("/sled-");
    if said.lines().any(|line| line.contains("panicked") && !is_confined(line)) {
        return Err(format!("it panics: {said}"));
    }
    if output.status.success() {
        return Ok(());
    }
    let answer = said.lines().rev().find_map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        ErrorCode::parse(value["error_code"].as_str()?)
    });
    let Some(code) = answer else {
        return Err(format!("it fails without a code ({}): {said}", output.status));
    };
    let exit_code = output.status.code();
    if exit_code != Some(code.exit_code().into()) || ![1, 4, 75].contains(&code.exit_code()) {
        return Err(format!("it ends with {} and {code}: {said}", output.status));
    }
    Ok(())
}

impl Injection {
    fn options(&self, root: &Path) -> Vec<String> {
        let effect = match self.effect {
            Effect::Kill => "signal=KILL".to_owned(),
            Effect::Error(name) => format!("error={name}"),
        };
        let mut options = vec![
            "-e".to_owned(),
            format!("trace={}", self.call),
            "-e".to_owned(),
            format!("inject={}:{effect}:when={}", self.call, self.occurrence),
        ];
        for path in &self.paths {
            options.extend(["-P".to_owned(), root.join(path).display().to_string()]);
        }
        options
    }
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = match self.effect {
            Effect::Kill => "SIGKILL",
            Effect::Error(name) => name,
        };
        write!(f, "{effect} at {} {} of {:?}", self.call, self.occurrence, self.paths)
    }
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.cases += other.cases;
        self.killed += other.killed;
        self.failed += other.failed;
        self.not_reached += other.not_reached;
        self.not_opened += other.not_opened;
        self.half += other.half;
        self.lost += other.lost;
        self.undesigned += other.undesigned;
        self.not_repeated += other.not_repeated;
        self.findings += other.findings;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cases, killed, failed, not_reached, .. } = self;
        let Self { lost, not_opened, half, undesigned, not_repeated, findings, .. } = self;
        write!(
            f,
            "injections: {cases} runs, {killed} killed, {failed} failed, {not_reached} not reached; \
             lost {lost}, not opened {not_opened}, half {half}, undesigned failures {undesigned}, \
             not repeatable {not_repeated}, fsck findings {findings}"
        )
    }
}
