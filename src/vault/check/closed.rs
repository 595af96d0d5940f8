//! A vault that does not open, or is not to be opened: its header and keyring, and what its store
//! still gives.
//!
//! The data directory is read, and the count of attempts to open it is written.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::super::header::OpenHeader;
use super::super::key::Key;
use super::super::keyring::{self, Keyring};
use super::super::sealed::SealedStore;
use super::super::slot::Unlock;
use super::super::witness::{self, Witness};
use super::super::{Error, Handle, StoreId, TenantCredentialVault};
use super::pairs::Pairs;
use super::records::{Progressing, Source};
use super::report::{Finding, Part, PartReport, Report, Verdict};
use super::{
    CheckProgress, REBUILD, RESTORE, Watch, ended_early, is_damage, look_at, open_backups,
    part_report,
};
use crate::store::{DataDir, Inspection, Remnant, Repair, Scratch, SledStore, Store};

/// What can be had of a store that does not open.
pub(super) struct Remains {
    pub(super) parts: Vec<PartReport>,
    /// The newest first.
    pub(super) remnants: Vec<Remnant>,
    /// The newest commit that any part has seen.
    pub(super) newest: Option<u64>,
}

/// Header and keyring, opened without the store.
pub(super) struct OpenedKeys {
    pub(super) slots: u64,
    /// What opens sealed tenants.
    pub(super) seal_key: Key,
    pub(super) keyring: Keyring,
    pub(super) header_bytes: Vec<u8>,
    pub(super) keyring_bytes: Vec<u8>,
}

impl TenantCredentialVault {
    /// Checks everything that can be read of a vault that does not open, for the reason `refusal`, or
    /// that is not to be opened. Nothing is written but the count of attempts to open it: the engine
    /// is looked at in a copy in `scratch`.
    ///
    /// # Errors
    ///
    /// Those of a wrong key; [`Error::Store`] when there is no room for the copy. Damage is no error,
    /// but in the report.
    pub fn examine(
        &self,
        unlock: &Unlock,
        refusal: Option<&Error>,
        scratch: &Scratch,
        watch: &mut Watch<'_>,
    ) -> Result<Report, Error> {
        let mut report = Report::default();
        let opened = match self.open_keys(unlock) {
            Ok(opened) => opened,
            Err((part, error)) if is_damage(&error) => {
                return Ok(of_unopened(part, &error));
            }
            Err((_, error)) => return Err(error),
        };
        let OpenedKeys { slots, seal_key, keyring, header_bytes, keyring_bytes } = opened;
        let mut header = PartReport { checked: slots, ..PartReport::new(Part::Header) };
        let keys = keyring.entries().count() as u64;
        let mut of_keyring = PartReport { checked: keys, ..PartReport::new(Part::Keyring) };
        let Remains { parts, remnants, newest } = self.remains(&keyring, scratch, false)?;
        for part in parts {
            report.push(part);
        }
        let Some(Remnant { store, is_complete, number, .. }) = remnants.into_iter().next() else {
            report.push(header);
            report.push(of_keyring);
            for part in [Part::Records, Part::Tokens, Part::Backups] {
                report.push(PartReport::unchecked(part, "neither journal nor engine can be read"));
            }
            return Ok(report);
        };
        let store: Arc<dyn Store> = Arc::from(store);
        if is_complete && number == newest {
            // Anything else may name the files of before.
            let witness = Witness::new(Arc::clone(&store), Arc::clone(&self.directory));
            for (of, bytes, part) in [
                (witness::Part::Header, &header_bytes, &mut header),
                (witness::Part::Keyring, &keyring_bytes, &mut of_keyring),
            ] {
                if witness.check(of, bytes)? == witness::Verdict::Other {
                    part.damaged(Finding::new(of.outdated().to_string(), RESTORE));
                }
            }
        }
        report.push(header);
        report.push(of_keyring);
        let former = former_handles(&keyring);
        let records = SealedStore::new(store, self.store_id);
        let source = Source::Closed { keyring: &keyring, records: &records, former: &former };
        let system = keyring.get(Handle::SYSTEM).ok_or(Error::KeyringDamaged)?;
        let mut backups = PartReport::new(Part::Backups);
        match open_backups(&records, system, &mut backups) {
            Ok(known) => look_at(&known, &mut backups),
            Err(error) => backups = PartReport::unchecked(Part::Backups, error.to_string()),
        }
        report.push(backups);
        let mut pairs = Pairs::pages(records.shared());
        let mut progressing = Progressing::new();
        let mut progress = CheckProgress::default();
        let (mut is_ended, mut failed) = (false, None);
        while !is_ended {
            match pairs.next() {
                Ok(next) if next.is_empty() => break,
                Ok(next) => {
                    progress.done += next.len() as u64;
                    progress.total = progress.done;
                    progressing.take(&source, Some(&seal_key), next)?;
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
            is_ended = !watch(progress);
        }
        progressing.end_group(&source, Some(&seal_key))?;
        for mut part in [progressing.records, progressing.tokens] {
            if let Some(error) = &failed {
                part.damaged(Finding::new(format!("reading ended early: {error}"), REBUILD));
            }
            report.push(if is_ended { ended_early(part) } else { part });
        }
        if let Some(refusal) = refusal
            && report.verdict() == Verdict::Good
        {
            // Each part is whole by itself, and they do not fit together.
            report.refused(refusal);
        }
        Ok(report)
    }

    /// Makes the store anew from a backup of this vault and the journal, where neither journal nor
    /// engine is enough: the vault is closed, and is unsealed as ever afterwards. Answers what was
    /// done, a sentence each.
    ///
    /// # Errors
    ///
    /// Those of a wrong key; [`Error::BackupDamaged`]: the store is as it was. [`Error::Store`], also
    /// when the journal does not reach back to the backup.
    pub fn rebuild_from(
        &self,
        unlock: &Unlock,
        backup: &Path,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Repair>, Error> {
        let OpenedKeys { keyring, .. } = self.open_keys(unlock).map_err(|(_, error)| error)?;
        self.rebuild_store_with(&keyring, unlock, backup, &mut |reached| {
            watch(CheckProgress { done: reached.done, total: reached.total })
        })
    }

    /// Opens header and keyring without the store. Answers which of them does not open, else.
    pub(super) fn open_keys(&self, unlock: &Unlock) -> Result<OpenedKeys, (Part, Error)> {
        let of_header = |error: Error| (Part::Header, error);
        let of_keyring = |error: Error| (Part::Keyring, error);
        let _unlocking = self.unlocking();
        let (header, _, header_bytes) =
            self.open_header(std::slice::from_ref(unlock)).map_err(of_header)?;
        let slots = self.slots().map_err(of_header)?.len() as u64;
        let seal_key = header.tenant_seal_key().duplicate();
        let bytes = self.directory.read(DataDir::KEYRING, keyring::MAX_LENGTH);
        let bytes = bytes.map_err(|error| of_keyring(error.into()))?;
        let keyring_bytes = bytes.ok_or_else(|| of_keyring(Error::KeyringDamaged))?;
        let keyring = open_keyring(&header, &keyring_bytes, self.store_id).map_err(of_keyring)?;
        Ok(OpenedKeys { slots, seal_key, keyring, header_bytes, keyring_bytes })
    }

    /// What the parts of the store still give, and what is to be said of them. What the journal gives
    /// takes as long as making all its commits again: only if it is needed.
    pub(super) fn remains(
        &self,
        keyring: &Keyring,
        scratch: &Scratch,
        with_journal: bool,
    ) -> Result<Remains, Error> {
        let key = keyring.integrity_key();
        let (Inspection { parts, .. }, engine) =
            SledStore::inspect(&self.directory, &key, scratch)?;
        let newest = parts.iter().filter_map(|part| part.number).max();
        let mut remnants: Vec<Remnant> = engine.into_iter().collect();
        // An engine that is behind has records under keys that may be gone by now.
        if with_journal || remnants.first().is_none_or(|engine| engine.number < newest) {
            remnants.extend(SledStore::replay(&self.directory, &key, scratch)?);
        }
        remnants.sort_by_key(|remnant| (Reverse(remnant.number), !remnant.is_complete));
        let parts = parts.into_iter().map(part_report).collect();
        Ok(Remains { parts, remnants, newest })
    }
}

impl Report {
    /// Notes that opening is refused, with the part that the refusal is about.
    fn refused(&mut self, refusal: &Error) {
        let about = if matches!(refusal, Error::HeaderDamaged | Error::HeaderOutdated) {
            Part::Header
        } else if matches!(refusal, Error::KeyringDamaged | Error::KeyringOutdated) {
            Part::Keyring
        } else if matches!(refusal, Error::RecordDamaged { .. }) {
            Part::Records
        } else {
            Part::Manifest
        };
        if let Some(part) = self.parts.iter_mut().find(|part| part.part == about) {
            part.damaged(Finding::new(refusal.to_string(), REBUILD));
        }
    }

    /// Of a vault whose header or keyring is damaged: without them nothing else can be checked.
    pub fn of_damaged_header(error: &Error) -> Self {
        of_unopened(Part::Header, error)
    }
}

fn of_unopened(part: Part, error: &Error) -> Report {
    let mut report = Report::default();
    let mut damaged = PartReport::new(part);
    damaged.damaged(Finding::new(error.to_string(), RESTORE));
    if part != Part::Header {
        report.push(PartReport::new(Part::Header));
    }
    report.push(damaged);
    let rest = [
        Part::Keyring,
        Part::Anchor,
        Part::Journal,
        Part::Manifest,
        Part::Records,
        Part::Tokens,
        Part::Backups,
    ];
    for rest in rest.into_iter().filter(|rest| *rest > part) {
        let reason = format!("the {} does not open", part.as_str());
        report.push(PartReport::unchecked(rest, reason));
    }
    report
}

/// Opens the keyring `bytes` with whichever of the header's keys is its.
fn open_keyring(header: &OpenHeader, bytes: &[u8], store_id: StoreId) -> Result<Keyring, Error> {
    let open = |key| Keyring::open(bytes, store_id, key, header.root()).map(|(keyring, _)| keyring);
    match (open(header.keyring_key()), header.previous_keyring_key()) {
        (Err(_), Some(previous)) => open(previous),
        (opened, _) => opened,
    }
}

/// Where tenants were whose records may have moved on.
fn former_handles(keyring: &Keyring) -> HashMap<Handle, Handle> {
    keyring.entries().filter_map(|keys| Some((keys.next_handle?, keys.handle))).collect()
}
