//! Opening: which commit is the newest, and who has it?
//!
//! ```text
//!           newest commit seen
//! journal   J  ──┐
//! engine    E  ──┼─► newest = the highest of the three; two of them have to be there
//! anchor    A  ──┘
//!
//! journal reaches it, engine is authentic ─► frames after E are replayed
//! journal reaches it and is complete      ─► the engine is made anew from it
//! engine is at it, and authentic          ─► the journal begins anew on it
//! otherwise                               ─► refused: something was rolled back, or lost
//! ```
//!
//! The engine is authentic when its pairs, all of them, are what its manifest says. Nothing is
//! repaired with what is older than the newest commit that anybody has seen, so putting back an
//! older copy of one or two parts is repaired or refused, never served. Does not protect against:
//! older copies of all three together.

use std::fs::DirBuilder;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::super::anchor::{self, Anchor};
use super::super::erase::exchange;
use super::super::inspection::Part;
use super::super::integrity::{IntegrityKey, Manifest, STORE_VERSION, State, Unreadable};
use super::super::journal::{self, Journal};
use super::super::migrate;
use super::super::pairs::{PairsReader, UnreadablePairs};
use super::super::{DataDir, Error, Repair};
use super::engine::{Engine, damaged};
use super::rewrite::Places;
use super::{CACHE_BYTES, CHECKED_AT_OPENING};

/// Frames that an ordinary crash leaves to be replayed, and somewhat more; that many are no repair.
const ORDINARY: u64 = 1_000;

/// A journal that has more than this, and twice what the engine has, is begun anew at an opening: it
/// would grow as long as nobody makes a backup.
const LARGE: u64 = 64 << 20;

/// Where the parts of a store are.
pub(super) struct Parts {
    store: PathBuf,
    journal: PathBuf,
    anchor: PathBuf,
    exports: PathBuf,
}

/// A store that can be written to.
pub(super) struct Recovered {
    pub(super) engine: Engine,
    pub(super) journal: Journal,
    pub(super) anchor: Anchor,
    pub(super) manifest: Manifest,
    /// Whether all pairs were compared with the manifest.
    pub(super) is_checked: bool,
}

/// What the three parts show.
struct Witnesses {
    journal: journal::Inspection,
    /// An engine that opens, with the manifest that it has; or why there is none.
    engine: Result<(Engine, Manifest), String>,
    anchor: anchor::Found,
}

impl Parts {
    pub(super) fn of(directory: &DataDir) -> Self {
        Self {
            store: directory.store_path(),
            journal: directory.journal_path(),
            anchor: directory.anchor_path(),
            exports: directory.exports_path(),
        }
    }

    /// Makes an empty store, where there is none.
    pub(super) fn create(&self, key: &IntegrityKey) -> Result<Recovered, Error> {
        let create = DirBuilder::new().mode(0o700).create(&self.store);
        create.map_err(Error::io(format!("create {}", self.store.display())))?;
        let engine = Engine::create(&self.store, CACHE_BYTES, 0)?;
        self.begin(key, engine, Manifest::of_empty_store()?)
    }

    /// Takes the store as it is, which has neither journal nor manifest, unless `check` refuses.
    pub(super) fn adopt<E: From<Error>>(
        &self,
        key: &IntegrityKey,
        check: impl FnOnce(&Engine) -> Result<(), E>,
    ) -> Result<Recovered, E> {
        let places = Places::of(&self.store);
        places.repair()?;
        let engine = Engine::open(&self.store, CACHE_BYTES)?;
        check(&engine)?;
        places.clear()?;
        migrate::export(&self.exports, migrate::INITIAL, &mut engine.pairs(), &[])?;
        let state = engine.state(key, 0)?;
        let store_version = migrate::ADOPTED;
        let manifest = Manifest { state, store_version, ..Manifest::of_empty_store()? };
        Ok(self.begin(key, engine, manifest)?)
    }

    /// Gives an engine its first journal, anchor and manifest; the manifest last, so that what is cut
    /// off is begun again.
    fn begin(
        &self,
        key: &IntegrityKey,
        engine: Engine,
        manifest: Manifest,
    ) -> Result<Recovered, Error> {
        let journal = if manifest.state.pairs() == 0 {
            Journal::create(&self.journal, key, &manifest)?
        } else {
            Journal::restart(&self.journal, key, &manifest, engine.pairs())?
        };
        let anchor = Anchor::create(&self.anchor, key, &manifest.position())?;
        engine.write(&[], &manifest.encode(key)?)?;
        engine.flush()?;
        Ok(Recovered { engine, journal, anchor, manifest, is_checked: true })
    }

    /// Opens the store as the newest commit that any part has seen.
    pub(super) fn open(
        &self,
        key: &IntegrityKey,
        accept_rollback: bool,
    ) -> Result<(Recovered, Vec<Repair>), Error> {
        let places = Places::of(&self.store);
        places.repair()?;
        let witnesses = self.witnesses(key)?;
        let opened = self.decide(key, &places, witnesses, accept_rollback)?;
        places.clear()?;
        Ok(opened)
    }

    fn witnesses(&self, key: &IntegrityKey) -> Result<Witnesses, Error> {
        let engine = self.find_engine(key)?;
        let known = engine.as_ref().map_or(0, |(_, manifest)| manifest.state.number);
        let journal = Journal::inspect(&self.journal, key, known)?;
        Ok(Witnesses { journal, engine, anchor: anchor::read(&self.anchor, key)? })
    }

    fn find_engine(&self, key: &IntegrityKey) -> Result<Result<(Engine, Manifest), String>, Error> {
        let engine = match Engine::open(&self.store, CACHE_BYTES) {
            Ok(engine) => engine,
            Err(Error::Damaged { reason, .. }) => return Ok(Err(reason)),
            Err(Error::Engine(error)) => return Ok(Err(error.to_string())),
            Err(error) => return Err(error),
        };
        let manifest = match engine.manifest() {
            Ok(Some(manifest)) => Manifest::decode(key, &manifest),
            Ok(None) | Err(_) => Err(Unreadable::Altered),
        };
        match manifest {
            Ok(manifest) => Ok(Ok((engine, manifest))),
            Err(Unreadable::TooNew(found)) => {
                Err(Error::TooNew { found, supported: STORE_VERSION })
            }
            Err(Unreadable::Altered) => {
                engine.close(&self.store)?;
                Ok(Err("it has no authentic manifest".to_owned()))
            }
        }
    }

    fn decide(
        &self,
        key: &IntegrityKey,
        places: &Places<'_>,
        witnesses: Witnesses,
        accept_rollback: bool,
    ) -> Result<(Recovered, Vec<Repair>), Error> {
        let newest = witnesses.newest();
        let is_provable = witnesses.count() >= 2 && !witnesses.contradict();
        let refusal = witnesses.refusal(&self.store);
        let mut repairs = witnesses.anchor_repair(newest);
        let Witnesses { mut journal, engine, .. } = witnesses;
        if journal.torn.as_ref().is_some_and(|torn| torn.number > newest) {
            // Nobody has seen it, so it was not acknowledged.
            journal.cut_tail()?;
        }
        let last = journal.newest.as_ref().map_or(0, |last| last.state.number);
        let is_sound = journal.torn.is_none() && journal.damage.is_none();
        let reaches = is_provable && journal.torn.is_none() && last == newest;

        // Every pair is compared, unless there are so many that it is done beside the work; but an
        // engine that is to stand for the others is compared in any case.
        let (engine, mut reason) = match engine {
            Ok((engine, manifest)) => {
                let is_checked =
                    !(reaches && is_sound) || manifest.state.pairs() <= CHECKED_AT_OPENING;
                if !is_checked || is_authentic(key, &engine, &manifest) {
                    (Some((engine, manifest, is_checked)), String::new())
                } else {
                    engine.close(&self.store)?;
                    (None, "its pairs are not what was written".to_owned())
                }
            }
            Err(reason) => (None, reason),
        };

        if reaches {
            if let Some((engine, manifest, is_checked)) = engine {
                let behind = newest - manifest.state.number.min(newest);
                match self.replay(key, &engine, manifest, &journal) {
                    Ok(manifest) => {
                        if behind > ORDINARY {
                            let text = format!("{behind} commits were replayed from the journal");
                            repairs.push(Repair { part: Part::Manifest, text });
                        }
                        let opened = match &journal.damage {
                            None => self.resume(key, engine, manifest, journal, is_checked)?,
                            Some(damage) => {
                                repairs.push(begun_anew(&damage.reason));
                                self.restart(key, engine, manifest)?
                            }
                        };
                        return Ok((opened, repairs));
                    }
                    Err(Error::Damaged { reason: why, .. }) => reason = why,
                    Err(error) => return Err(error),
                }
                engine.close(&self.store)?;
            }
            if is_sound && journal.is_complete {
                let (engine, manifest) = self.remake(key, places, &journal)?;
                let text = format!("the engine was made anew from the journal: {reason}");
                repairs.push(Repair { part: Part::Manifest, text });
                return Ok((self.resume(key, engine, manifest, journal, true)?, repairs));
            }
            return Err(damaged(
                &self.store,
                format!(
                    "{reason}; the journal goes back to commit {} only",
                    journal.unbroken_after
                ),
            ));
        }
        if let Some((engine, manifest, _)) = engine {
            let is_newest = is_provable && manifest.state.number == newest;
            // What is older than the journal is no loss if that can be had instead.
            let is_best = manifest.state.number >= last || !journal.is_complete || !is_sound;
            if is_newest {
                let why = journal.damage.as_ref().map_or("it was behind", |damage| &damage.reason);
                repairs.push(begun_anew(why));
                return Ok((self.restart(key, engine, manifest)?, repairs));
            }
            if accept_rollback && is_best {
                let opened = self.accept(key, engine, manifest, newest)?;
                return Ok((opened, accepted(manifest.state.number, newest)));
            }
            engine.close(&self.store)?;
        }
        if accept_rollback && is_sound && journal.is_complete {
            let (engine, manifest) = self.remake(key, places, &journal)?;
            let opened = self.accept(key, engine, manifest, newest)?;
            return Ok((opened, accepted(manifest.state.number, newest)));
        }
        Err(refusal)
    }

    /// Brings `engine`, which is at `manifest`, to the journal's newest commit.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when the commits do not make of it what they made once.
    fn replay(
        &self,
        key: &IntegrityKey,
        engine: &Engine,
        mut manifest: Manifest,
        journal: &journal::Inspection,
    ) -> Result<Manifest, Error> {
        for frame in journal.frames(manifest.state.number)? {
            let frame = frame?;
            let state = State { number: frame.manifest.state.number, ..manifest.state };
            let (changes, state) = engine.compare(key, state, frame.operations.changes())?;
            if state != frame.manifest.state {
                let number = state.number;
                let reason = format!("commit {number} of the journal does not continue it");
                return Err(damaged(&self.store, reason));
            }
            engine.write_commit(key, &manifest, &changes, &frame.manifest)?;
            manifest = frame.manifest;
        }
        Ok(manifest)
    }

    /// Makes the engine anew from base and frames of the journal, in the place of the one that is
    /// there, which is erased.
    fn remake(
        &self,
        key: &IntegrityKey,
        places: &Places<'_>,
        journal: &journal::Inspection,
    ) -> Result<(Engine, Manifest), Error> {
        let engine = places.new_engine()?;
        let mut manifest = Manifest::of_empty_store()?;
        if let Some(mut base) = journal.base()? {
            engine.load(std::iter::from_fn(|| base.next().transpose()))?;
            manifest = *base.manifest();
        }
        let manifest = self.replay(key, &engine, manifest, journal)?;
        engine.write(&[], &manifest.encode(key)?)?;
        Ok((places.install(engine, exchange)?, manifest))
    }

    /// Makes the engine anew from `pairs` and the journal beyond them.
    pub(super) fn rebuild(
        &self,
        key: &IntegrityKey,
        pairs: &mut dyn Read,
    ) -> Result<(Recovered, Vec<Repair>), Error> {
        let places = Places::of(&self.store);
        places.repair()?;
        let unreadable =
            |error: UnreadablePairs| damaged(&self.store, format!("the backup's pairs: {error}"));
        let mut reader = PairsReader::new(pairs).map_err(unreadable)?;
        let engine = places.new_engine()?;
        let mut state = State::default();
        while let Some(entry) = reader.next().map_err(unreadable)? {
            let change = (entry.tree, entry.key.as_slice(), entry.value.as_deref());
            state = engine.replace(key, state, change)?;
        }
        let manifest = reader.manifest().unwrap_or_default();
        let manifest = match Manifest::decode(key, manifest) {
            Ok(manifest) if state.has_pairs_of(&manifest.state) => manifest,
            Err(Unreadable::TooNew(found)) => {
                return Err(Error::TooNew { found, supported: STORE_VERSION });
            }
            Ok(_) | Err(Unreadable::Altered) => {
                let reason = "the backup's pairs are not what this store had".to_owned();
                return Err(damaged(&self.store, reason));
            }
        };
        engine.write(&[], &manifest.encode(key)?)?;
        // The engine that is there does not count; it may not even open.
        let mut witnesses = Witnesses {
            journal: Journal::inspect(&self.journal, key, manifest.state.number)?,
            engine: Err("it was not opened".to_owned()),
            anchor: anchor::read(&self.anchor, key)?,
        };
        let newest = witnesses.newest().max(manifest.state.number);
        if witnesses.journal.torn.as_ref().is_some_and(|torn| torn.number > newest) {
            witnesses.journal.cut_tail()?;
        }
        let is_there = witnesses.journal.newest.is_some();
        let manifest = if is_there && newest > manifest.state.number {
            self.replay(key, &engine, manifest, &witnesses.journal)?
        } else {
            manifest
        };
        if manifest.state.number < newest {
            return Err(witnesses.refusal(&self.store));
        }
        let engine = places.install(engine, exchange)?;
        places.clear()?;
        let text = format!("the engine was made anew from a backup, as of commit {newest}");
        let repairs = vec![Repair { part: Part::Manifest, text }];
        let opened = self.restart(key, engine, manifest)?;
        Ok((opened, repairs))
    }

    /// Goes on with a journal that is at `manifest`, as `engine` is.
    fn resume(
        &self,
        key: &IntegrityKey,
        engine: Engine,
        manifest: Manifest,
        journal: journal::Inspection,
        is_checked: bool,
    ) -> Result<Recovered, Error> {
        if journal.bytes > LARGE && journal.bytes > 2 * engine.size() {
            return self.restart(key, engine, manifest);
        }
        // Before the journal takes another commit, so that an opening has no more to replay.
        engine.flush()?;
        let journal = journal.resume()?;
        let anchor = Anchor::create(&self.anchor, key, &manifest.position())?;
        Ok(Recovered { engine, journal, anchor, manifest, is_checked })
    }

    /// Begins journal and anchor anew, at what `engine` is.
    fn restart(
        &self,
        key: &IntegrityKey,
        engine: Engine,
        manifest: Manifest,
    ) -> Result<Recovered, Error> {
        engine.flush()?;
        let journal = Journal::restart(&self.journal, key, &manifest, engine.pairs())?;
        let anchor = Anchor::create(&self.anchor, key, &manifest.position())?;
        Ok(Recovered { engine, journal, anchor, manifest, is_checked: true })
    }

    /// Goes on with what `engine` has, under a number beyond all that were seen.
    fn accept(
        &self,
        key: &IntegrityKey,
        engine: Engine,
        manifest: Manifest,
        newest: u64,
    ) -> Result<Recovered, Error> {
        let state = State { number: newest.saturating_add(1), ..manifest.state };
        let manifest = Manifest { state, ..Manifest::of_empty_store()? };
        // First: cut off after this, the engine is the newest, and the journal begins anew on it.
        engine.write(&[], &manifest.encode(key)?)?;
        self.restart(key, engine, manifest)
    }
}

impl Witnesses {
    fn seen(&self) -> [Option<(u64, [u8; 32])>; 3] {
        let of = |manifest: &Manifest| (manifest.state.number, manifest.chain);
        let anchor = match &self.anchor {
            anchor::Found::Value { value, .. } => Some((value.number, value.chain)),
            anchor::Found::Missing | anchor::Found::Damaged => None,
        };
        let engine = self.engine.as_ref().ok().map(|(_, manifest)| of(manifest));
        [self.journal.newest.as_ref().map(of), engine, anchor]
    }

    /// The newest commit that any has seen.
    fn newest(&self) -> u64 {
        self.seen().into_iter().flatten().map(|(number, _)| number).max().unwrap_or(0)
    }

    /// How many there are that are authentic.
    fn count(&self) -> usize {
        self.seen().into_iter().flatten().count()
    }

    /// Whether two have seen different commits under one number.
    fn contradict(&self) -> bool {
        let [journal, engine, anchor] = self.seen();
        [(journal, engine), (engine, anchor), (anchor, journal)].into_iter().any(
            |pair| match pair {
                (Some((one, chain)), Some((other, others))) => one == other && chain != others,
                _ => false,
            },
        )
    }

    /// Why the store does not open.
    fn refusal(&self, store: &std::path::Path) -> Error {
        let newest = self.newest();
        let names = ["journal", "engine", "anchor"];
        if self.count() == 0 {
            let reason = match &self.engine {
                Err(reason) => format!("{reason}, and there is no journal and no anchor"),
                Ok(_) => "nothing of it is authentic".to_owned(),
            };
            return damaged(store, reason);
        }
        let [journal, engine, anchor] = self.seen().map(|seen| seen.map(|(number, _)| number));
        let mut behind: Vec<String> = Vec::new();
        for (name, number) in names.into_iter().zip([journal, engine, anchor]) {
            match number {
                None => behind.push(format!("{name} missing or damaged")),
                Some(number) if number < newest => {
                    behind.push(format!("{name} {} behind, at {number}", newest - number));
                }
                Some(_) => {}
            }
        }
        if let Some(damage) = &self.journal.damage {
            behind.push(format!("journal damaged after {}", damage.after));
        }
        if self.contradict() {
            behind.push("two parts are of different histories".to_owned());
        }
        let found = journal.into_iter().chain(engine).max().unwrap_or(0);
        Error::RolledBack { newest, found, behind: behind.join(", ") }
    }

    fn anchor_repair(&self, newest: u64) -> Vec<Repair> {
        let text = match &self.anchor {
            anchor::Found::Value { value, .. } if value.number.saturating_add(1) >= newest => {
                return Vec::new();
            }
            anchor::Found::Value { value, .. } => {
                format!(
                    "the anchor was {} commits behind and was written anew",
                    newest - value.number
                )
            }
            anchor::Found::Missing => "the anchor was missing and was written anew".to_owned(),
            anchor::Found::Damaged => "the anchor was damaged and was written anew".to_owned(),
        };
        vec![Repair { part: Part::Anchor, text }]
    }
}

fn begun_anew(why: &str) -> Repair {
    let text = format!("the journal was begun anew from the engine: {why}");
    Repair { part: Part::Journal, text }
}

fn accepted(found: u64, newest: u64) -> Vec<Repair> {
    let lost = newest - found.min(newest);
    let text = format!("commit {found} was accepted though {newest} was made: {lost} are lost");
    vec![Repair { part: Part::Manifest, text }]
}

/// Whether the pairs are what the manifest says.
pub(super) fn is_authentic(key: &IntegrityKey, engine: &Engine, manifest: &Manifest) -> bool {
    engine.state(key, manifest.state.number).is_ok_and(|state| state.has_pairs_of(&manifest.state))
}
