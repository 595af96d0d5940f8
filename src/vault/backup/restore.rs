//! A vault made of a backup.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::format::BackupFile;
use super::{Access, BackupId, BackupPart, ReportProgress, Steps};
use crate::store::{self, Batch, Condition, DataDir, SledStore, Store};
use crate::vault::keyring::Keyring;
use crate::vault::slot::Unlock;
use crate::vault::{Error, StoreId, witness};

/// What a backup held, in a new data directory: a store, and what opens it.
pub(super) struct Assembled {
    pub(super) store: SledStore,
    pub(super) keyring: Keyring,
    /// The keyring as it is in the file.
    pub(super) keyring_file: Vec<u8>,
    pub(super) certificates: u64,
}

/// Makes a store of the pairs in `file`, which was found to be what was written. `certificate` gets the
/// certificates' names and texts. All of it is authenticated once more: it may change meanwhile.
///
/// # Errors
///
/// [`Error::BackupDamaged`]; what is in `directory` then is to be thrown away.
pub(super) fn assemble(
    file: &BackupFile,
    access: &Access,
    directory: &DataDir,
    options: store::Options,
    steps: &mut Steps<'_>,
    certificate: impl FnMut(&str, &str) -> Result<(), Error>,
) -> Result<Assembled, Error> {
    let keyring_file = file.keyring()?;
    // The root key is asked for by a version that no backup has.
    let opened = Keyring::open(&keyring_file, file.head.store_id, &access.key, &access.key);
    let (keyring, _) = opened.map_err(|error| {
        let foreign = "it does not open: damaged, or of another backup";
        let is_damaged = matches!(error, Error::KeyringDamaged);
        if is_damaged { file.damaged(BackupPart::Keyring, foreign) } else { error }
    })?;
    let integrity = keyring.integrity_key();

    let mut body = file.body(&access.key)?;
    let mut passed = 0;
    let (records, length) = (file.trailer.records, file.trailer.pairs_length.max(1));
    let mut count = |bytes: u64| {
        passed += bytes;
        let reached = u128::from(records) * u128::from(passed) / u128::from(length);
        let reached = u64::try_from(reached).unwrap_or(records);
        let step = reached.saturating_sub(steps.done);
        steps.advance(step).is_ok()
    };
    let rebuild =
        |pairs: &mut dyn std::io::Read| SledStore::rebuild(directory, &integrity, &options, pairs);
    let (store, _) = body.pairs(&mut count, rebuild)?;
    body.keyring(&keyring_file)?;
    let certificates = body.certificates(certificate)?;
    body.finish()?;
    let there = store.condition();
    if (there.pairs, there.number) != (records, file.trailer.commit) {
        let Condition { pairs, number, .. } = there;
        let reason = format!("there are {pairs} of commit {number}, and {records} were written");
        return Err(file.damaged(BackupPart::Records, reason));
    }
    Ok(Assembled { store, keyring, keyring_file, certificates })
}

/// A vault that is whole but for its header: until [`Restoration::commit`], there is none. Dropped
/// before that, it takes everything with it.
#[derive(Debug)]
pub struct Restoration {
    directory: DataDir,
    /// Whether there is a vault by now.
    is_committed: bool,
    header: Vec<u8>,
    /// Which vault it is.
    pub store_id: StoreId,
    /// From which backup.
    pub id: BackupId,
    /// Of which moment.
    pub created_at: Timestamp,
    /// Of which commit.
    pub commit: u64,
    /// How many records of the store there are.
    pub records: u64,
}

impl Restoration {
    /// Makes the vault that is in the backup at `path` in `directory`, where there is nothing.
    /// `unlock` opens the backup, and the vault from then on.
    ///
    /// # Errors
    ///
    /// [`Error::BackupDamaged`], [`Error::WrongPassphrase`], [`Error::WrongKey`], [`Error::Store`]:
    /// nothing is kept.
    pub fn prepare(
        path: &Path,
        directory: DataDir,
        unlock: &Unlock,
        options: store::Options,
        report: ReportProgress<'_>,
    ) -> Result<Self, Error> {
        let shown = || directory.path().display().to_string();
        if directory.header_path().exists() {
            return Err(store::Error::AlreadyInitialised { path: shown() }.into());
        }
        let file = BackupFile::open(path)?;
        let access = Access::with(&file, unlock)?;
        let mut steps = Steps { done: 0, total: file.trailer.records, report };
        access.authenticate(&file, &mut steps)?;
        let restoration = Self {
            directory,
            is_committed: false,
            header: file.head.header.clone(),
            store_id: file.head.store_id,
            id: file.head.id,
            created_at: file.trailer.time,
            commit: file.trailer.commit,
            records: file.trailer.records,
        };
        let directory = restoration.directory();
        let assembled = assemble(&file, &access, directory, options, &mut steps, |name, text| {
            Ok(directory.write_certificate(name, text.as_bytes())?)
        })?;
        let Assembled { store, keyring_file, .. } = assembled;
        // What is in it names the files that it was made beside.
        let mut batch = Batch::default();
        witness::name(&mut batch, &restoration.header, &keyring_file);
        store.apply(batch)?;
        // Closed, and with it on the disk.
        drop(store);
        directory.write_atomically(DataDir::KEYRING, &keyring_file)?;
        Ok(restoration)
    }

    /// Where it is.
    pub fn directory(&self) -> &DataDir {
        &self.directory
    }

    /// Writes the header: from now on there is a vault. Answers where.
    pub fn commit(mut self) -> Result<PathBuf, Error> {
        self.directory.initialise(&self.header)?;
        self.is_committed = true;
        Ok(self.directory.path().to_owned())
    }
}

impl Drop for Restoration {
    fn drop(&mut self) {
        // If the header is there in spite of a failure, so is everything else.
        if self.is_committed || self.directory.header_path().exists() {
            return;
        }
        // What cannot be removed now, the next one to come removes.
        drop(self.directory.empty());
    }
}
