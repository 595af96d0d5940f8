//! Checking everything that is stored, and rescuing what can be.
//!
//! ```text
//! check    a vault that serves: header, keyring, journal, every pair --walk--> Report
//! examine  one whose store does not open: the same, of a copy of its engine --> Report
//! salvage  what still opens, of engine and journal --> a new data directory
//! scrub    records and tokens only, a few each second, for as long as the service runs
//! ```
//!
//! Each part gets a verdict of its own, and damage to one does not end the check of the others.
//! Memory is bounded by the largest tenant, whatever the size of the store.
//!
//! Protects against: damage that nobody would notice until the tenant is needed. Does not protect
//! against: someone who can write the disk and has the keys.

mod closed;
mod pairs;
mod records;
mod report;
mod salvage;

use super::backup::{self, KnownBackup};
use super::key::Key;
use super::keyring::{self, Keyring, TenantKeys};
use super::sealed::SealedStore;
use super::slot::Unlock;
use super::{Error, TenantCredentialVault, witness};
use crate::error::ErrorCode;
use crate::store::{self, DataDir, PartInspection, Repair, SledStore, Tree};

use pairs::Pairs;
use records::{Progressing, Source};

pub use report::{Finding, Part, PartReport, Report, Verdict};
pub use salvage::{Lost, Salvaged};

const RESTORE: &str = "restore it from a backup: `tenantry backup restore`";
const REOPEN: &str = "stop the service and start it again: the store is compared and mended when it \
                      is opened";
const REBUILD: &str = "`tenantry fsck --rebuild-from BACKUP` builds the store anew from a backup and \
                       the journal; `--salvage OUT` rescues what still opens";
const FORGET_BACKUP: &str =
    "if it was moved, keep it so; if it was deleted, `tenantry backup forget`";
const ANOTHER_BACKUP: &str = "make another one: `tenantry backup create`";
/// How far a check is, in pairs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain numbers")]
pub struct CheckProgress {
    /// Of `total`.
    pub done: u64,
    /// As far as is known; at least `done`.
    pub total: u64,
}

/// Told how far a check is; false ends it.
pub type Watch<'a> = dyn FnMut(CheckProgress) -> bool + 'a;

/// A slow check of records and tokens, a few at a time, with everybody else at work.
pub struct Scrub {
    pairs: Pairs,
    progressing: Progressing,
}

/// What a step of a slow check came to.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "there is more, or there is not")]
pub enum Scrubbed {
    /// There is more.
    Some(Scrub),
    /// Everything was looked at.
    All(Report),
}

impl TenantCredentialVault {
    /// Checks everything, while it is served. `unlock` opens the header; without it neither that nor
    /// sealed tenants could be checked.
    ///
    /// # Errors
    ///
    /// Those of a wrong key; [`Error::Sealed`], also when it is sealed meanwhile. Damage is no
    /// error, but in the report.
    pub fn check(&self, unlock: &Unlock, watch: &mut Watch<'_>) -> Result<Report, Error> {
        self.unsealed(|_| Ok(()))?;
        let mut report = Report::default();
        let seal_key = self.check_header(unlock, &mut report)?;
        report.push(self.check_keyring()?);
        let store = self.store()?;
        let key = self.unsealed(|vault| Ok(vault.keyring().integrity_key()))?;
        let number = store.condition().number;
        for part in SledStore::inspect_files(&self.directory, &key, number)? {
            report.push(part_report(part));
        }
        report.push(self.check_backups()?);
        let mut pairs = Pairs::of(&store);
        let mut progressing = Progressing::new();
        let mut progress = CheckProgress { done: 0, total: store.condition().pairs };
        let mut is_ended = false;
        loop {
            if !watch(progress) {
                is_ended = true;
                break;
            }
            // Some at a time, so that whoever seals the vault does not wait for the end.
            let is_last = self.unsealed(|vault| {
                let source = Source::Live(vault);
                let next = pairs.next()?;
                let count = next.len() as u64;
                progress.done += count;
                progress.total = progress.total.max(progress.done);
                progressing.take(&source, seal_key.as_ref(), next)?;
                if count == 0 {
                    progressing.end_group(&source, seal_key.as_ref())?;
                }
                Ok(count == 0)
            })?;
            if is_last {
                break;
            }
        }
        if is_ended {
            report.push(ended_early(PartReport::new(Part::Manifest)));
            report.push(ended_early(progressing.records));
            report.push(ended_early(progressing.tokens));
        } else {
            report.push(pairs.finish());
            report.push(progressing.records);
            report.push(progressing.tokens);
        }
        Ok(report)
    }

    /// Begins a slow check of the records and tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`].
    pub fn begin_scrub(&self) -> Result<Scrub, Error> {
        self.unsealed(|_| Ok(()))?;
        let pairs = Pairs::of(&self.store()?);
        Ok(Scrub { pairs, progressing: Progressing::new() })
    }

    /// Checks about `at_most` more records. Tenants that are sealed are left out.
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`], [`Error::Store`]: the check is to be begun again.
    pub fn scrub(&self, mut scrub: Scrub, at_most: usize) -> Result<Scrubbed, Error> {
        let mut done = 0;
        while done < at_most {
            let count = self.unsealed(|vault| {
                let source = Source::Live(vault);
                let next = scrub.pairs.next()?;
                let count = next.len();
                scrub.progressing.take(&source, None, next)?;
                if count == 0 {
                    scrub.progressing.end_group(&source, None)?;
                }
                Ok(count)
            })?;
            if count == 0 {
                let mut report = Report::default();
                report.push(scrub.pairs.finish());
                report.push(scrub.progressing.records);
                report.push(scrub.progressing.tokens);
                return Ok(Scrubbed::All(report));
            }
            done += count;
        }
        Ok(Scrubbed::Some(scrub))
    }

    /// The known backups, and a quick look at each of their files.
    fn check_backups(&self) -> Result<PartReport, Error> {
        let mut part = PartReport::new(Part::Backups);
        let known = self.unsealed(|vault| {
            let _writing = vault.writing();
            let system = vault.system();
            open_backups(&vault.records, &system, &mut part)
        })?;
        // Outside of every lock: they may be on a disk that does not answer.
        look_at(&known, &mut part);
        Ok(part)
    }

    /// The key that opens sealed tenants, when the header is good.
    fn check_header(&self, unlock: &Unlock, report: &mut Report) -> Result<Option<Key>, Error> {
        let _unlocking = self.unlocking();
        let mut part = PartReport::new(Part::Header);
        let key = match self.unlock(unlock) {
            Ok((header, _)) => {
                part.checked = self.slots()?.len() as u64;
                Some(header.tenant_seal_key().duplicate())
            }
            Err(error) if is_damage(&error) => {
                part.damaged(Finding::new(error.to_string(), RESTORE));
                None
            }
            Err(error) => return Err(error),
        };
        report.push(part);
        Ok(key)
    }

    /// Whether the keyring file is the keyring that is in force.
    fn check_keyring(&self) -> Result<PartReport, Error> {
        let mut part = PartReport::new(Part::Keyring);
        // While nothing is written; it is opened afterwards.
        let (bytes, key, generation) = self.unsealed(|vault| {
            let writing = vault.writing();
            part.checked = vault.keyring().entries().count() as u64;
            let bytes = self.directory.read(DataDir::KEYRING, keyring::MAX_LENGTH);
            if let Ok(Some(bytes)) = &bytes
                && vault.witness.check(witness::Part::Keyring, bytes)? != witness::Verdict::Present
            {
                part.damaged(Finding::new(Error::KeyringOutdated.to_string(), RESTORE));
            }
            Ok((bytes, writing.keyring_key.duplicate(), vault.keyring().generation()))
        })?;
        let found = match bytes {
            Ok(Some(bytes)) => Keyring::authenticate(&bytes, self.store_id, &key),
            Ok(None) => Err(Error::KeyringDamaged),
            Err(error) => Err(error.into()),
        };
        match found {
            Ok(found) if found == generation => {}
            Ok(found) => {
                let message = format!(
                    "the file is generation {found}, and what is in force is generation {generation}"
                );
                part.damaged(Finding::new(message, RESTORE));
            }
            Err(error) => part.damaged(Finding::new(error.to_string(), RESTORE)),
        }
        Ok(part)
    }
}

impl Report {
    /// Notes what an opening had to repair.
    pub fn repaired(&mut self, repairs: &[Repair]) {
        for repair in repairs {
            let of = of_store(repair.part());
            if let Some(part) = self.parts.iter_mut().find(|part| part.part == of) {
                part.repaired(repair.to_string());
            }
        }
    }

    /// Notes which older copies were taken for what there is.
    pub fn accepted(&mut self, sentences: &[String]) {
        for sentence in sentences {
            let of = [Part::Header, Part::Keyring].into_iter();
            let of = of.into_iter().find(|part| sentence.contains(part.as_str()));
            let of = of.unwrap_or(Part::Manifest);
            if let Some(part) = self.parts.iter_mut().find(|part| part.part == of) {
                part.repaired(sentence.clone());
            }
        }
    }
}

/// Opens the record of every known backup.
fn open_backups(
    records: &SealedStore,
    system: &TenantKeys,
    part: &mut PartReport,
) -> Result<Vec<KnownBackup>, Error> {
    let mut known = Vec::new();
    for (key, envelope) in records.store().scan(Tree::Meta, backup::RECORD_PREFIX)? {
        part.checked += 1;
        match backup::open_known(records, system, &key, &envelope) {
            Ok(backup) => known.push(backup),
            Err(error) => part.damaged(Finding::new(error.to_string(), ANOTHER_BACKUP)),
        }
    }
    Ok(known)
}

/// Opens the file of each of `known`. One that is elsewhere by now is no damage.
fn look_at(known: &[KnownBackup], part: &mut PartReport) {
    for known in known {
        let path = known.path.display();
        if !known.path.exists() {
            let message = format!("backup {} is not at {path} any more", known.id);
            part.note(Finding::new(message, FORGET_BACKUP));
        } else if !known.is_there() {
            let message = format!("{path} is damaged, or is not backup {}", known.id);
            part.damaged(Finding::new(message, ANOTHER_BACKUP));
        }
    }
}

/// What is known of a part of which not all was looked at.
fn ended_early(part: PartReport) -> PartReport {
    if part.verdict == Verdict::Damaged {
        return part;
    }
    let checked = part.checked;
    PartReport { checked, ..PartReport::unchecked(part.part, "the check was ended early") }
}

fn of_store(part: store::Part) -> Part {
    match part {
        store::Part::Anchor => Part::Anchor,
        store::Part::Journal => Part::Journal,
        store::Part::Manifest => Part::Manifest,
    }
}

/// What was found of a part of the store.
fn part_report(inspection: PartInspection) -> PartReport {
    let way_out = match inspection.part {
        store::Part::Anchor | store::Part::Journal => REOPEN,
        store::Part::Manifest => REBUILD,
    };
    let part = PartReport::new(of_store(inspection.part));
    let mut report = PartReport { checked: inspection.checked, ..part };
    for finding in inspection.findings {
        report.damaged(Finding::new(finding, way_out));
    }
    report
}

/// Whether it says that something is not as it was written, rather than that the key is wrong or
/// that something else is amiss.
fn is_damage(error: &Error) -> bool {
    error.code() == ErrorCode::IntegrityError
}

impl std::fmt::Debug for Scrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrub").field("progressing", &self.progressing).finish_non_exhaustive()
    }
}
