//! Looking at the parts of a store without opening it, for a check and for a rescue.
//!
//! ```text
//! anchor, journal/ --read--> PartInspection       the engine's copy --opened--> PartInspection, Remnant
//! journal/ --replayed into a new engine, as far as its frames can be read--> Remnant
//! ```
//!
//! [`inspect_files`] runs beside a store that is open, and takes what is being written for what it is.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::super::inspection::{Inspection, Part, PartInspection, Remnant};
use super::super::integrity::{IntegrityKey, Manifest, State, Unreadable};
use super::super::journal::{self, Journal};
use super::super::scratch::Scratch;
use super::super::{Batch, Condition, DataDir, Error, LargeBatch, Pair, Store, Tree, Walk, anchor};
use super::engine::Engine;
use super::{CACHE_BYTES, SledStore};

/// How often a file is read again that was being written while it was read.
const ATTEMPTS: u32 = 3;

/// An engine that is only read.
#[derive(Debug)]
struct Still(Engine);

impl SledStore {
    /// Looks at the parts of the store in `directory`, which nobody has open: the engine in a copy
    /// that `scratch` takes. Answers what the engine still gives as well.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. Damage is a finding.
    pub fn inspect(
        directory: &DataDir,
        key: &IntegrityKey,
        scratch: &Scratch,
    ) -> Result<(Inspection, Option<Remnant>), Error> {
        let (mut engine, remnant) = inspect_engine(directory, key, scratch)?;
        let found = anchor::read(&directory.anchor_path(), key)?;
        let known = engine.number.max(number_of(&found)).unwrap_or(0);
        let journal = Journal::inspect(&directory.journal_path(), key, 0)?;
        let last = journal.newest.as_ref().map_or(0, |newest| newest.state.number);
        let newest = known.max(last);
        if let Some(number) = engine.number.filter(|number| *number < newest) {
            // A crash leaves it behind, and the journal to be replayed.
            let is_replayed = last == newest && number >= journal.unbroken_after;
            if !is_replayed {
                let text = format!("it is at commit {number}, and commit {newest} was made");
                engine.findings.push(text);
            }
        }
        let parts = vec![anchor_part(&found, newest), journal_part(&journal, newest), engine];
        Ok((Inspection { parts }, remnant))
    }

    /// Looks at anchor and journal of the store in `directory`, which may be open and at work; commit
    /// `number` was made before.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. Damage is a finding.
    pub fn inspect_files(
        directory: &DataDir,
        key: &IntegrityKey,
        number: u64,
    ) -> Result<Vec<PartInspection>, Error> {
        let anchor =
            again(|| Ok(anchor_part(&anchor::read(&directory.anchor_path(), key)?, number)))?;
        let journal = again(|| {
            Ok(journal_part(&Journal::inspect(&directory.journal_path(), key, 0)?, number))
        })?;
        Ok(vec![anchor, journal])
    }

    /// What the journal in `directory` still gives, replayed into an engine in `scratch`. Nothing if
    /// there is no base and no frame that can be read.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and those of the new engine.
    pub fn replay(
        directory: &DataDir,
        key: &IntegrityKey,
        scratch: &Scratch,
    ) -> Result<Option<Remnant>, Error> {
        let journal = Journal::inspect(&directory.journal_path(), key, 0)?;
        let Some(newest) = &journal.newest else { return Ok(None) };
        let path = scratch.path().join("replayed");
        let created = DirBuilder::new().mode(0o700).create(&path);
        created.map_err(Error::io(format!("create {}", path.display())))?;
        let engine = Engine::create(&path, CACHE_BYTES, 0)?;
        load_base(&engine, &journal)?;
        if let Some(damage) = &journal.damage {
            // What is before the first damage, to the last frame that can be read.
            let cut = scratch.path().join("journal");
            cut_journal(&directory.journal_path(), &cut, damage)?;
            let whole = Journal::inspect(&cut, key, 0)?;
            replay_frames(&engine, key, &whole)?;
        }
        replay_frames(&engine, key, &journal)?;
        let (number, is_complete) = match &journal.damage {
            None => (newest.state.number, journal.is_complete),
            Some(damage) => (damage.after, false),
        };
        let store = Box::new(Still(engine));
        Ok(Some(Remnant { part: Part::Journal, number: Some(number), is_complete, store }))
    }
}

/// Reads once more what is amiss, for it may have been written while it was read.
fn again(mut read: impl FnMut() -> Result<PartInspection, Error>) -> Result<PartInspection, Error> {
    let mut found = read();
    for _ in 1..ATTEMPTS {
        if found.as_ref().is_ok_and(|part| part.findings.is_empty()) {
            break;
        }
        found = read();
    }
    found
}

fn number_of(found: &anchor::Found) -> Option<u64> {
    match found {
        anchor::Found::Value { value, .. } => Some(value.number),
        anchor::Found::Damaged | anchor::Found::Missing => None,
    }
}

fn anchor_part(found: &anchor::Found, newest: u64) -> PartInspection {
    let number = number_of(found);
    let mut findings = Vec::new();
    match found {
        anchor::Found::Missing => findings.push("it is missing".to_owned()),
        anchor::Found::Damaged => findings.push("nothing in it is authentic".to_owned()),
        anchor::Found::Value { value, is_whole } => {
            if !is_whole {
                findings.push("one of its two slots is damaged".to_owned());
            }
            // A crash may come between a commit and the anchor.
            if value.number.saturating_add(1) < newest {
                let number = value.number;
                findings.push(format!("it is at commit {number}, and commit {newest} was made"));
            }
        }
    }
    PartInspection { part: Part::Anchor, checked: number.map_or(0, |_| 1), number, findings }
}

fn journal_part(journal: &journal::Inspection, newest: u64) -> PartInspection {
    let mut findings = Vec::new();
    let number = journal.newest.as_ref().map(|newest| newest.state.number);
    if let Some(damage) = &journal.damage {
        let name = damage.path.file_name().unwrap_or_default().to_string_lossy();
        findings.push(format!(
            "{name} at byte {}: {}; commits after {} are affected",
            damage.offset, damage.reason, damage.after
        ));
    } else if let Some(torn) = journal.torn.as_ref().filter(|torn| torn.number <= newest) {
        findings.push(format!("commit {} cannot be read, and it was made", torn.number));
    } else if number.is_none() {
        findings.push("it is missing, or nothing in it is authentic".to_owned());
    } else if number.is_some_and(|number| number < newest) {
        let number = number.unwrap_or(0);
        findings.push(format!("it ends at commit {number}, and commit {newest} was made"));
    }
    let checked = number.unwrap_or(0).saturating_sub(journal.unbroken_after);
    PartInspection { part: Part::Journal, checked, number, findings }
}

fn inspect_engine(
    directory: &DataDir,
    key: &IntegrityKey,
    scratch: &Scratch,
) -> Result<(PartInspection, Option<Remnant>), Error> {
    let mut part =
        PartInspection { part: Part::Manifest, checked: 0, number: None, findings: Vec::new() };
    if !scratch.copy_store(directory)? {
        part.findings.push("store/ is missing".to_owned());
        return Ok((part, None));
    }
    let engine = match Engine::open(&scratch.store_path(), CACHE_BYTES) {
        Ok(engine) => engine,
        Err(Error::Damaged { reason, .. }) => {
            part.findings.push(format!("the engine does not open: {reason}"));
            return Ok((part, None));
        }
        Err(Error::Engine(error)) => {
            part.findings.push(format!("the engine does not open: {error}"));
            return Ok((part, None));
        }
        Err(error) => return Err(error),
    };
    let manifest = match engine.manifest() {
        Ok(Some(manifest)) => Manifest::decode(key, &manifest),
        Ok(None) | Err(_) => Err(Unreadable::Altered),
    };
    let mut is_complete = false;
    match (&manifest, engine.state(key, 0)) {
        (_, Err(error)) => part.findings.push(format!("not all of it can be read: {error}")),
        (Err(_), Ok(state)) => {
            part.checked = state.pairs();
            part.findings.push("it has no authentic manifest".to_owned());
        }
        (Ok(manifest), Ok(state)) => {
            part.checked = state.pairs();
            is_complete = state.has_pairs_of(&manifest.state);
            if !is_complete {
                let (found, expected) = (state.pairs(), manifest.state.pairs());
                part.findings
                    .push(format!("its {found} pairs are not the {expected} that were written"));
            }
        }
    }
    part.number = manifest.ok().map(|manifest| manifest.state.number);
    let (number, store) = (part.number, Box::new(Still(engine)));
    Ok((part, Some(Remnant { part: Part::Manifest, number, is_complete, store })))
}

/// Loads what of the base can be read.
fn load_base(engine: &Engine, journal: &journal::Inspection) -> Result<(), Error> {
    let base = match journal.base() {
        Ok(Some(base)) => base,
        Ok(None) | Err(Error::Damaged { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut base = base;
    // Damage ends it; what came before is there.
    match engine.load(std::iter::from_fn(|| base.next().transpose())) {
        Err(Error::Damaged { .. }) => Ok(()),
        loaded => loaded,
    }
}

/// Makes the commits of `journal`, from the first of the last that can be read one after another.
fn replay_frames(
    engine: &Engine,
    key: &IntegrityKey,
    journal: &journal::Inspection,
) -> Result<(), Error> {
    for frame in journal.frames(journal.unbroken_after)? {
        let frame = match frame {
            Ok(frame) => frame,
            Err(Error::Damaged { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        for change in frame.operations.changes() {
            // What the pairs are together is known of the whole only.
            engine.replace(key, State::default(), change)?;
        }
    }
    Ok(())
}

/// Copies the journal in `from` as far as the first damage.
fn cut_journal(from: &Path, to: &Path, damage: &journal::Damage) -> Result<(), Error> {
    let action = || format!("copy {} to {}", from.display(), to.display());
    let copy = || -> std::io::Result<()> {
        DirBuilder::new().mode(0o700).create(to)?;
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            let Some(name) = path.file_name() else { continue };
            let is_segment = path.extension().is_some_and(|extension| extension == "log");
            // Names are in the order of commits.
            if is_segment && damage.path.extension() == path.extension() && path > damage.path {
                continue;
            }
            fs::copy(&path, to.join(name))?;
            if path == damage.path {
                let file = fs::OpenOptions::new().write(true).open(to.join(name))?;
                file.set_len(damage.offset)?;
            }
        }
        Ok(())
    };
    copy().map_err(Error::io(action()))
}

impl Store for Still {
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.get(tree, key)?.map(|value| value.to_vec()))
    }

    fn scan(&self, tree: Tree, prefix: &[u8]) -> Result<Vec<Pair>, Error> {
        self.0.scan(tree, prefix)
    }

    fn scan_after(
        &self,
        tree: Tree,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        self.0.scan_after(tree, after, limit)
    }

    fn apply(&self, _batch: Batch) -> Result<(), Error> {
        Err(Error::ReadOnly)
    }

    fn apply_large(&self, _batch: LargeBatch) -> Result<(), Error> {
        Err(Error::ReadOnly)
    }

    fn rewrite(&self) -> Result<(), Error> {
        Err(Error::ReadOnly)
    }

    fn walk(&self) -> Result<Box<dyn Walk>, Error> {
        Err(Error::ReadOnly)
    }

    fn condition(&self) -> Condition {
        Condition::default()
    }

    fn release_journal(&self, _number: u64) -> Result<(), Error> {
        Err(Error::ReadOnly)
    }
}
