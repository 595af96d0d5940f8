//! Files that are not what was written: bits, pages and ends of each, and older images of any one or
//! two of them put back.
//!
//! ```text
//! a vault after each of some verbs --images of its files--> generations
//! newest generation, damaged --opened and read whole--> the newest state | refused with a code
//!                                                       anything else is a fault
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use tenantry::error::ErrorCode;
use tenantry::memory::SecretText;
use tenantry::store;
use tenantry::tenant::{IdRule, TenantId};
use tenantry::vault::{self, Unlock};

use crate::place::{self, Place};
use crate::random::Random;
use crate::state::{self, State};

/// What is altered. `attempts` and `lock` hold nothing that is answered; `audit` has its own check.
const FILES: [&str; 3] = ["header", "keyring", "anchor"];
const DIRECTORIES: [&str; 2] = ["journal", "store"];
const PAGE: usize = 4 << 10;

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Of header and keyring, one bit of so many; every one for 1.
    pub(crate) bits_apart: usize,
    /// Of anchor and journal; the tests of `store` flip every bit of these.
    pub(crate) other_bits_apart: usize,
    /// Random damages of the engine's files.
    pub(crate) damages: usize,
    /// Of the images and pairs of images, one of so many.
    pub(crate) images_apart: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Totals {
    tried: BTreeMap<&'static str, Outcomes>,
    pub(crate) faults: Vec<String>,
}

#[derive(Debug, Default)]
struct Outcomes {
    current: u64,
    refused: u64,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, Outcomes { current, refused }) in &self.tried {
            let all = current + refused;
            writeln!(
                f,
                "damage: {what}: {all}, of these {current} as written and {refused} refused"
            )?;
        }
        write!(f, "damage: wrong, older or missing answers: {}", self.faults.len())
    }
}

/// A history of a vault, and a directory to try things in.
struct Bench<'a> {
    root: &'a Path,
    /// Data directories at rest, oldest first.
    generations: Vec<PathBuf>,
    /// As the last one, but with the engine's last writes in no snapshot.
    killed: PathBuf,
    place: Place,
    state: State,
    totals: Totals,
}

/// Tries everything below `root`.
pub(crate) fn run(root: &Path, seed: u64, extent: Extent) -> Totals {
    let mut bench = Bench::new(root);
    bench.bits(extent.bits_apart, extent.other_bits_apart);
    bench.engine(&mut Random::new(seed), extent.damages);
    bench.images(extent.images_apart);
    bench.totals
}

/// What is done between two generations.
const VERBS: [&[&str]; 6] = [
    &["tenant", "import", "{configs}"],
    &["token", "create", "--tenant", "acme0001"],
    &["tenant", "import", "{changed}"],
    &["slot", "add", "key-file", "{key}"],
    &["tenant-key", "rotate", "bravo002"],
    &["tenant", "disable", "coral003"],
];

impl<'a> Bench<'a> {
    fn new(root: &'a Path) -> Self {
        let place = Place::with_vault(root.join("place"));
        let mut generations = Vec::new();
        for (number, verb) in VERBS.iter().enumerate() {
            let done = place.command(verb).output().unwrap();
            assert!(done.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&done.stderr));
            let image = root.join(format!("generation-{number}"));
            place::copy(&place.data(), &image);
            generations.push(image);
        }
        // Written and not closed: what is in the files now is what a kill would leave.
        let vault = place::unsealed(&place.data(), place::PASSPHRASE).unwrap();
        let id = TenantId::parse("coral003", IdRule::Alphanumeric).unwrap();
        vault.set_enabled(&id, true).unwrap();
        vault.set_enabled(&id, false).unwrap();
        let killed = root.join("killed");
        place::copy(&place.data(), &killed);
        drop(vault);
        let state = state::of(&place).unwrap().unwrap();
        let last = root.join("generation-last");
        place::copy(&place.data(), &last);
        generations.push(last);
        let totals = Totals::default();
        let bench = Self { root, generations, killed, place, state, totals };
        bench.restore(bench.newest());
        bench
    }

    fn newest(&self) -> &Path {
        &self.generations[self.generations.len() - 1]
    }

    fn restore(&self, image: &Path) {
        fs::remove_dir_all(self.place.data()).unwrap();
        place::copy(image, &self.place.data());
    }

    /// Opens what there is now, and notes what came of it.
    fn judge(&mut self, what: &'static str, detail: &dyn fmt::Display) {
        let outcomes = self.totals.tried.entry(what).or_default();
        match open(&self.place) {
            Ok(state) if state == self.state => outcomes.current += 1,
            Ok(_) => self.totals.faults.push(format!("{what}, {detail}: another state")),
            Err(Refusal::Designed) => outcomes.refused += 1,
            Err(Refusal::Other(text)) => {
                self.totals.faults.push(format!("{what}, {detail}: {text}"));
            }
        }
    }

    /// Flips bits of the files that are written whole, and of the journal.
    fn bits(&mut self, apart: usize, others_apart: usize) {
        let newest = self.newest().to_owned();
        let mut small: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
        for file in files(&newest.join("journal")) {
            small.push(Path::new("journal").join(file.file_name().unwrap()));
        }
        for name in small {
            let (what, apart) = match name.to_str() {
                Some("header") => ("bits of the header", apart),
                Some("keyring") => ("bits of the keyring", apart),
                Some("anchor") => ("bits of the anchor", others_apart),
                _ => ("bits of the journal", others_apart),
            };
            let bytes = fs::read(newest.join(&name)).unwrap();
            for bit in (0..8 * bytes.len()).step_by(apart) {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                fs::write(self.place.data().join(&name), damaged).unwrap();
                self.judge(what, &format!("{} bit {bit}", name.display()));
                self.restore(&newest);
            }
        }
    }

    /// Damages the engine's files at random places, once with everything in a snapshot and once not.
    fn engine(&mut self, random: &mut Random, damages: usize) {
        for number in 0..damages {
            let image =
                if number % 2 == 0 { self.newest().to_owned() } else { self.killed.clone() };
            self.restore(&image);
            let files = files(&self.place.data().join("store"));
            let file = &files[below(random, files.len())];
            let mut bytes = fs::read(file).unwrap();
            if bytes.is_empty() {
                continue;
            }
            // Most of them where something is written.
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
            let end = if random.is_one_in(4) { bytes.len() } else { used };
            let at = below(random, end);
            let what = match number % 3 {
                0 => {
                    bytes[at] ^= 1 << random.below(8);
                    "bits of the engine"
                }
                1 => {
                    let page = at / PAGE * PAGE;
                    let end = bytes.len().min(page + PAGE);
                    bytes[page..end].fill(0);
                    "zeroed pages of the engine"
                }
                _ => {
                    bytes.truncate(at);
                    "truncations of the engine"
                }
            };
            fs::write(file, bytes).unwrap();
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            self.judge(what, &format!("{name} at {at}, image {}", image.display()));
        }
        self.restore(self.newest());
    }

    /// Puts older images back, singly and in pairs.
    fn images(&mut self, apart: usize) {
        let newest = self.newest().to_owned();
        let older = self.generations.len() - 1;
        let mut parts: Vec<PathBuf> = FILES.iter().chain(&DIRECTORIES).map(PathBuf::from).collect();
        parts.push("store/db".into());
        parts.push("store/conf".into());
        let mut choices = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            for generation in 0..older {
                choices.push(vec![(part.clone(), generation)]);
                for other in &parts[at + 1..] {
                    for other_generation in 0..older {
                        let pair = [(part.clone(), generation), (other.clone(), other_generation)];
                        choices.push(pair.to_vec());
                    }
                }
            }
        }
        for choice in choices.iter().step_by(apart) {
            for (part, generation) in choice {
                self.put_back(part, *generation);
            }
            let what = if choice.len() == 1 { "older images" } else { "pairs of older images" };
            self.judge(what, &format!("{choice:?} in {}", self.root.display()));
            self.restore(&newest);
        }
    }

    fn put_back(&self, part: &Path, generation: usize) {
        let (from, to) = (self.generations[generation].join(part), self.place.data().join(part));
        if from.is_dir() {
            fs::remove_dir_all(&to).unwrap();
            place::copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

enum Refusal {
    /// With a code that says that the files are not right, or that nothing given opens them.
    Designed,
    Other(String),
}

fn open(place: &Place) -> Result<State, Refusal> {
    let refused = |error: &vault::Error| {
        let is_designed = matches!(error.code(), ErrorCode::IntegrityError | ErrorCode::VaultSealed)
            // Without a header there is no vault.
            || matches!(error, vault::Error::Store(store::Error::NotInitialised { .. }));
        if is_designed { Refusal::Designed } else { Refusal::Other(state::told(error)) }
    };
    let vault = place::sealed(&place.data()).map_err(|error| refused(&error))?;
    let unlock = Unlock::Passphrase(SecretText::from(place::PASSPHRASE));
    vault.unseal(&unlock).map_err(|error| refused(&error))?;
    state::read(&vault, place::PASSPHRASE).map_err(|error| refused(&error))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn below(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.below(limit.max(1) as u64)).unwrap()
}
