//! The drill: a backup is restored into a scratch place, and every record opened there.
//!
//! The place is `FILE.drill` beside the backup: who can read it can read the backup as well, and
//! where backups are kept there is room. In it is a store of ciphertext, and no key. It is removed
//! at the end; what a kill left, the next drill of that file removes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use jiff::Timestamp;

use super::format::BackupFile;
use super::restore::{Assembled, assemble};
use super::{Access, BackupId, BackupPart, ReportProgress, Steps, beside};
use crate::clock::Clock;
use crate::store::{self, DataDir, Store, Tree};
use crate::tenant::TenantId;
use crate::vault::keyring::{Keyring, TenantKeys};
use crate::vault::sealed::SealedStore;
use crate::vault::slot::Unlock;
use crate::vault::unsealed::Unsealed;
use crate::vault::witness::Witness;
use crate::vault::{Error, Options, StoreId, TenantCredentialVault};

/// How many tokens are read at a time.
const PAGE: usize = 1_024;
/// How many tenants a thread opens at a time.
const PORTION: usize = 64;
/// Most threads that open records beside the first.
const MAX_THREADS: usize = 7;

/// What a drill found: everything as it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Drill {
    /// Which backup.
    pub id: BackupId,
    /// Where it is.
    pub path: PathBuf,
    /// Of which vault.
    pub store_id: StoreId,
    /// Of which moment.
    pub created_at: Timestamp,
    /// Of which commit.
    pub commit: u64,
    /// How large it is.
    pub bytes: u64,
    /// How many records the store has, which equals its manifest.
    pub records: u64,
    /// How many of them were opened.
    pub opened: u64,
    /// Tenants, sealed ones included.
    pub tenants: u64,
    /// Tenants whose records were not opened: they are sealed, and the backup's own key was not
    /// given.
    pub unopened_tenants: u64,
    /// Client tokens.
    pub tokens: u64,
    /// Certificates of removed tenants.
    pub certificates: u64,
}

/// Restores the backup at `path` into a scratch place, in `scratch` or beside it, opens every
/// record, and removes all of that again. Needs no data directory.
///
/// # Errors
///
/// [`Error::BackupDamaged`] names the part that is not what was written, or does not open;
/// [`Error::WrongPassphrase`], [`Error::WrongKey`], [`Error::BackupInterrupted`], [`Error::Store`].
pub fn verify(
    path: &Path,
    unlock: &Unlock,
    scratch: Option<&Path>,
    clock: &Arc<dyn Clock>,
    report: ReportProgress<'_>,
) -> Result<Drill, Error> {
    let file = BackupFile::open(path)?;
    let access = Access::with(&file, unlock)?;
    let mut steps = Steps { done: 0, total: passes(&file), report };
    drill(&file, access, scratch, clock, &mut steps)
}

impl TenantCredentialVault {
    /// As [`verify`]; a backup of this vault is known to be good from then on. Without `unlock`, it
    /// has to be sealed with what the vault keeps.
    ///
    /// # Errors
    ///
    /// Those of [`verify`]; [`Error::Sealed`] and [`Error::BackupKeyNeeded`] when `unlock` is needed.
    pub fn verify_backup(
        &self,
        path: &Path,
        unlock: Option<&Unlock>,
        scratch: Option<&Path>,
        report: ReportProgress<'_>,
    ) -> Result<Drill, Error> {
        let file = BackupFile::open(path)?;
        let total = passes(&file);
        let drill = if let Some(unlock) = unlock {
            let access = Access::with(&file, unlock)?;
            let mut steps = Steps { done: 0, total, report };
            drill(&file, access, scratch, &self.clock, &mut steps)?
        } else {
            let access = self.unsealed(|vault| {
                let slot = vault.keyring().backup().cloned();
                Access::known(&file, &*slot.ok_or(Error::BackupKeyNeeded)?)
            })?;
            let mut report = self.until_sealed(report);
            let mut steps = Steps { done: 0, total, report: &mut report };
            drill(&file, access, scratch, &self.clock, &mut steps)
                .map_err(|error| self.or_sealed(error))?
        };
        if drill.store_id == self.store_id && !self.is_sealed() {
            self.remember_drill(&drill)?;
        }
        Ok(drill)
    }
}

/// How many records a drill passes: into a store, and opened from there.
pub(super) fn passes(file: &BackupFile) -> u64 {
    file.trailer.records.saturating_mul(2)
}

pub(super) fn drill(
    file: &BackupFile,
    access: Access,
    scratch: Option<&Path>,
    clock: &Arc<dyn Clock>,
    steps: &mut Steps<'_>,
) -> Result<Drill, Error> {
    access.authenticate(file, steps)?;
    let scratch = Scratch::make(file.path(), scratch)?;
    // Nothing in it is needed when the disk is full.
    let options = store::Options { ballast_bytes: 0 };
    let before = steps.done;
    let assembled = assemble(file, &access, &scratch.directory, options, steps, |_, _| Ok(()))?;
    steps.done = before + file.trailer.records;
    let mut drill = Drill {
        id: file.head.id,
        path: file.path().to_owned(),
        store_id: file.head.store_id,
        created_at: file.trailer.time,
        commit: file.trailer.commit,
        bytes: file.length,
        records: file.trailer.records,
        opened: 0,
        tenants: 0,
        unopened_tenants: 0,
        tokens: 0,
        certificates: assembled.certificates,
    };
    let opened = open_everything(file, access, assembled, (&scratch, clock), steps, &mut drill);
    opened.map_err(|error| of_record(file, error))?;
    Ok(drill)
}

/// Opens every record of the store that was made of `file`.
fn open_everything(
    file: &BackupFile,
    access: Access,
    assembled: Assembled,
    (scratch, clock): (&Scratch, &Arc<dyn Clock>),
    steps: &mut Steps<'_>,
    drill: &mut Drill,
) -> Result<(), Error> {
    let Assembled { store, mut keyring, .. } = assembled;
    if let Some(header) = &access.header {
        unseal_tenants(&mut keyring, file.head.store_id, header.tenant_seal_key())?;
    }
    drill.unopened_tenants = keyring.sealed().count() as u64;
    let store: Arc<dyn Store> = Arc::new(store);
    let records = SealedStore::new(Arc::clone(&store), file.head.store_id);
    records.follow_moves(&mut keyring)?;
    let mut keys: Vec<Arc<TenantKeys>> = Vec::new();
    records.contents(&keyring, |entry| {
        keys.push(entry.keys);
        Ok(())
    })?;
    drill.tenants = keys.len() as u64 + drill.unopened_tenants;
    let vault = Unsealed::new(
        (records, Arc::new(Witness::new(store, Arc::clone(&scratch.directory)))),
        keyring,
        access.key,
        Arc::clone(clock),
        &Options::default(),
    )?;
    drill.opened = open_tenants(&vault, &keys, steps)?;
    let mut after = None::<Vec<u8>>;
    loop {
        let pairs = vault.records.store().scan_after(Tree::Token, after.as_deref(), PAGE)?;
        let Some((last, _)) = pairs.last() else { break };
        for (key, envelope) in &pairs {
            vault.open_token(key, envelope)?;
        }
        after = Some(last.clone());
        drill.tokens += pairs.len() as u64;
        steps.advance(pairs.len() as u64)?;
    }
    let others = vault.known_backups()?.len() + usize::from(!vault.operators()?.is_empty());
    drill.opened += drill.tokens + others as u64;
    Ok(())
}

/// Opens all records of the tenants whose keys are `keys`, on every core. Answers how many they are.
fn open_tenants(
    vault: &Unsealed,
    keys: &[Arc<TenantKeys>],
    steps: &mut Steps<'_>,
) -> Result<u64, Error> {
    let (next, opened) = (AtomicUsize::new(0), AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    let portions: Vec<&[Arc<TenantKeys>]> = keys.chunks(PORTION).collect();
    let work = |report: &mut dyn FnMut() -> Result<(), Error>| {
        while let Some(portion) = portions.get(next.fetch_add(1, Ordering::Relaxed)) {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            for keys in *portion {
                opened.fetch_add(open_tenant(vault, keys)?, Ordering::Relaxed);
            }
            report()?;
        }
        Ok(())
    };
    let stopping = |result: Result<(), Error>| {
        is_over.fetch_or(result.is_err(), Ordering::Relaxed);
        result
    };
    std::thread::scope(|scope| {
        let others = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1);
        let others: Vec<_> = (0..others.min(MAX_THREADS))
            .map(|_| scope.spawn(|| stopping(work(&mut || Ok(())))))
            .collect();
        let mut told = 0;
        let own = stopping(work(&mut || {
            let now = opened.load(Ordering::Relaxed);
            let step = now - std::mem::replace(&mut told, now);
            steps.advance(step)
        }));
        let others = others
            .into_iter()
            .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        others.chain([own]).collect::<Result<(), Error>>()
    })?;
    Ok(opened.into_inner())
}

/// Opens all records of a tenant, and reads what has a form. Answers how many they are.
fn open_tenant(vault: &Unsealed, keys: &Arc<TenantKeys>) -> Result<u64, Error> {
    let entry = &vault.records.entry(keys)?.ok_or(Error::KeyringOutdated)?;
    vault.records.config(entry)?;
    for field in entry.directory.credentials() {
        vault.records.credential(entry, field)?;
    }
    let counts = vault.records.counts(entry)?;
    Ok(entry.directory.records().count() as u64 + u64::from(counts.is_some()))
}

fn unseal_tenants(
    keyring: &mut Keyring,
    store_id: StoreId,
    key: &crate::vault::key::Key,
) -> Result<(), Error> {
    let sealed: Vec<TenantId> = keyring.sealed().map(|tenant| tenant.id.clone()).collect();
    for id in sealed {
        keyring.unseal_tenant(store_id, &id, key)?;
    }
    Ok(())
}

/// What does not open in the scratch place did not open when it was written either, or was altered
/// by someone with the key.
fn of_record(file: &BackupFile, error: Error) -> Error {
    if let Error::RecordDamaged { kind, key } = error {
        let reason = format!("the {kind} record {key} is missing or does not open");
        file.damaged(BackupPart::Records, reason)
    } else if matches!(error, Error::KeyringOutdated) {
        file.damaged(BackupPart::Keyring, "there are records whose key it does not have")
    } else if matches!(error, Error::KeyringDamaged) {
        file.damaged(BackupPart::Keyring, "the keys of a sealed tenant do not open")
    } else {
        error
    }
}

/// A data directory that goes when the drill is over.
struct Scratch {
    directory: Arc<DataDir>,
}

impl Scratch {
    /// For the backup at `path`: beside it, or in `parent`.
    fn make(path: &Path, parent: Option<&Path>) -> Result<Self, Error> {
        let name = path.file_name().unwrap_or_default();
        let place = match parent {
            Some(parent) => parent.join(name),
            None => path.to_owned(),
        };
        // What is there of a drill that was killed goes, unless somebody is at it.
        Ok(Self { directory: Arc::new(DataDir::create(beside(&place, ".drill"))?) })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Only ciphertext is in it; what cannot be removed now, the next drill tries again.
        if self.directory.empty().is_ok() {
            drop(fs::remove_dir(self.directory.path()));
        }
    }
}
