//! Making a backup.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::format::{
    BackupFile, BackupWriter, Head, Trailer, is_certificate_length, is_certificate_name,
};
use super::known::{KnownBackup, MAX_PATH};
use super::{
    Access, BackupId, BackupProgress, ReportProgress, Steps, beside, make_slot, same_slot, verify,
};
use crate::error::ErrorCode;
use crate::store::{self, Pair, PairsWriter, Snapshot, Store, Tree};
use crate::vault::key::random;
use crate::vault::keyring::{BackupSlot, Keyring};
use crate::vault::slot::{NewSlot, Unlock};
use crate::vault::{Error, KdfCost, TenantCredentialVault};

/// A backup that is to be made.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field")]
pub struct NewBackup<'a> {
    /// The file: an absolute path, where there is nothing.
    pub path: &'a Path,
    /// What opens the vault. Needed with `slot`, and until there is a slot for backups.
    pub unlock: Option<&'a Unlock>,
    /// What is to open this backup and the next ones: a passphrase or a key file. If there is none
    /// yet and none is given, what `unlock` is.
    pub slot: Option<&'a NewSlot>,
    /// What a guess at the passphrase costs, if the slot is made from `unlock`.
    pub cost: KdfCost,
    /// Whether the backup is restored at once into a scratch place, and every record opened.
    pub verifies: bool,
    /// Whether retention may delete it.
    pub is_scheduled: bool,
}

/// What is the state of one moment.
struct Moment {
    snapshot: Snapshot,
    keyring: Keyring,
    time: Timestamp,
}

impl TenantCredentialVault {
    /// Whether backups have a slot, so that one can be made without a key.
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`].
    pub fn has_backup_slot(&self) -> Result<bool, Error> {
        self.unsealed(|vault| Ok(vault.keyring().backup().is_some()))
    }

    /// Writes everything there is into a file that only its owner can read, and makes it known.
    /// Reads and writes go on; at the end writes wait for as long as it takes to collect what
    /// changed meanwhile.
    ///
    /// There is nothing at `new.path` until the backup is whole; a kill leaves a file of that name
    /// and `.partial`, which the next one there replaces.
    ///
    /// # Errors
    ///
    /// - [`Error::BackupExists`], [`Error::BackupPath`], [`Error::BackupSlotMissing`],
    ///   [`Error::BackupSlotKind`], [`Error::Sealed`], [`Error::BackupInterrupted`], and those of
    ///   [`Self::add_slot`]: there is no backup.
    /// - [`Error::Store`]: there is none; [`store::Error::Damaged`] when the store is not what was
    ///   written.
    /// - [`Error::BackupNotVerified`]: it is there.
    /// - [`Error::BackupDamaged`]: it was, and did not stand the drill.
    pub fn create_backup(
        &self,
        new: &NewBackup<'_>,
        report: ReportProgress<'_>,
    ) -> Result<KnownBackup, Error> {
        check_path(new.path)?;
        let _backing_up = self.backing_up();
        let slot = self.slot_for(new)?;
        let store = self.walked_store()?;
        let pairs = store.condition().pairs;
        let total = if new.verifies { pairs.saturating_mul(3) } else { pairs };
        let mut report = self.until_sealed(report);
        let mut steps = Steps { done: 0, total, report: &mut report };
        let backup = self.write_backup(new, &slot, &*store, &mut steps);
        let backup = backup.map_err(|error| self.or_sealed(error))?;
        if !new.verifies {
            return Ok(backup);
        }
        let verified = self.verify_new(&backup, &slot, &mut steps);
        verified.map_err(|error| self.or_sealed(error)).map_err(|error| match error {
            error if error.code() == ErrorCode::IntegrityError => {
                // It is good for nothing.
                drop(fs::remove_file(new.path));
                drop(self.unsealed(|vault| vault.remove_known(backup.id)));
                error
            }
            error => Error::BackupNotVerified {
                path: new.path.display().to_string(),
                source: Box::new(error),
            },
        })
    }

    fn verify_new(
        &self,
        backup: &KnownBackup,
        slot: &BackupSlot,
        steps: &mut Steps<'_>,
    ) -> Result<KnownBackup, Error> {
        let file = BackupFile::open(&backup.path)?;
        steps.total = steps.done.saturating_add(verify::passes(&file));
        let access = Access::known(&file, slot)?;
        let drill = verify::drill(&file, access, None, &self.clock, steps)?;
        self.remember_drill(&drill)
    }

    /// What goes on with the keys in memory ends when the vault is sealed.
    pub(super) fn until_sealed<'a>(
        &'a self,
        report: ReportProgress<'a>,
    ) -> impl FnMut(BackupProgress) -> bool + 'a {
        move |progress| !self.is_sealed() && report(progress)
    }

    /// Why something was interrupted.
    pub(super) fn or_sealed(&self, error: Error) -> Error {
        let is_sealing = matches!(error, Error::BackupInterrupted) && self.is_sealed();
        if is_sealing { Error::Sealed } else { error }
    }

    /// What the backup is sealed with, made if it has to be.
    fn slot_for(&self, new: &NewBackup<'_>) -> Result<Arc<BackupSlot>, Error> {
        let present = self.unsealed(|vault| Ok(vault.keyring().backup().cloned()))?;
        if let (Some(present), None) = (present, new.slot) {
            return Ok(present);
        }
        let unlock = new.unlock.ok_or(Error::BackupSlotMissing)?;
        let same = new.slot.is_none().then(|| same_slot(unlock, new.cost)).transpose()?;
        let wanted = new.slot.or(same.as_ref()).ok_or(Error::BackupSlotMissing)?;
        let _unlocking = self.unlocking();
        let (header, _) = self.unlock(unlock)?;
        let made = make_slot(&header, wanted, self.clock.now())?;
        self.changing(|vault| {
            let mut writing = vault.writing();
            vault.change_keyring(&mut writing, |keyring| {
                keyring.set_backup(Some(made));
                Ok(())
            })?;
            vault.keyring().backup().cloned().ok_or(Error::BackupSlotMissing)
        })
    }

    /// The store, without holding up a sealing.
    fn walked_store(&self) -> Result<Arc<dyn Store>, Error> {
        if self.is_sealed() {
            return Err(Error::Sealed);
        }
        self.store()
    }

    fn write_backup(
        &self,
        new: &NewBackup<'_>,
        slot: &BackupSlot,
        store: &dyn Store,
        steps: &mut Steps<'_>,
    ) -> Result<KnownBackup, Error> {
        let mut id = BackupId([0; 16]);
        random(&mut id.0)?;
        let head = Head { store_id: self.store_id, id, header: slot.header.clone() };
        let failed = |source| writing(new.path, source);
        let partial = Partial::create(new.path)?;
        let file = partial.file.try_clone().map_err(failed)?;
        let writer = BackupWriter::begin(file, &slot.key, &head).map_err(failed)?;
        let start = writer.position();
        let mut pairs = PairsWriter::new(writer).map_err(failed)?;
        let moment = self
            .walk(store, steps, |tree, (key, value)| pairs.put(tree, key, value).map_err(failed))?;
        for (tree, key, value) in &moment.snapshot.changes {
            let written = match value {
                Some(value) => pairs.put(*tree, key, value),
                None => pairs.remove(*tree, key),
            };
            written.map_err(failed)?;
        }
        let mut writer = pairs.finish(&moment.snapshot.manifest).map_err(failed)?;
        let keyring_at = writer.position();
        let mut keyring = moment.keyring;
        keyring.save(self.store_id, &slot.key, |bytes| writer.write_all(bytes).map_err(failed))?;
        let certificates_at = writer.position();
        for (name, text) in self.certificates()? {
            writer.certificate(&name, &text).map_err(failed)?;
        }
        let trailer = Trailer {
            time: moment.time,
            commit: moment.snapshot.number,
            records: moment.snapshot.pairs,
            pairs_length: keyring_at - start,
            keyring_length: certificates_at - keyring_at,
            certificates_length: writer.position() - certificates_at,
        };
        let bytes = writer.finish(&trailer).map_err(failed)?;
        let backup = KnownBackup {
            id,
            path: new.path.to_owned(),
            created_at: trailer.time,
            commit: trailer.commit,
            records: trailer.records,
            bytes,
            verified_at: None,
            is_scheduled: new.is_scheduled,
        };
        // Known first: there is no backup that a deletion certificate would not name.
        self.unsealed(|vault| vault.put_known(&backup))?;
        partial.publish(new.path).inspect_err(|_| {
            drop(self.unsealed(|vault| vault.remove_known(id)));
        })?;
        Ok(backup)
    }

    /// Gives `copy` every pair, and answers what has to follow for it to be the state of one moment.
    fn walk(
        &self,
        store: &dyn Store,
        steps: &mut Steps<'_>,
        mut copy: impl FnMut(Tree, &Pair) -> Result<(), Error>,
    ) -> Result<Moment, Error> {
        let mut walk = store.walk()?;
        loop {
            let next = walk.next()?;
            if next.is_empty() {
                break;
            }
            for (tree, pair) in &next {
                copy(*tree, pair)?;
            }
            steps.advance(next.len() as u64)?;
        }
        self.unsealed(|vault| {
            let _writing = vault.writing();
            let snapshot = walk.finish()?;
            Ok(Moment { snapshot, keyring: vault.keyring().clone(), time: self.clock.now() })
        })
    }

    /// Names and texts of the deletion certificates. What else is in their directory is not ours.
    pub(in crate::vault) fn certificates(&self) -> Result<Vec<(String, String)>, Error> {
        let path = self.directory.certificates_path();
        let failed = |source| -> Error {
            store::Error::Io { action: format!("read {}", path.display()), source }.into()
        };
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut certificates = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".txt")) else {
                continue;
            };
            let metadata = entry.metadata().map_err(failed)?;
            if !is_certificate_name(name)
                || !metadata.is_file()
                || !is_certificate_length(metadata.len())
            {
                continue;
            }
            if let Ok(text) = String::from_utf8(fs::read(entry.path()).map_err(failed)?) {
                certificates.push((name.to_owned(), text));
            }
        }
        certificates.sort_unstable();
        Ok(certificates)
    }
}

/// A file that is not a backup yet, and is removed unless it becomes one.
struct Partial {
    path: PathBuf,
    file: File,
    is_published: bool,
}

impl Partial {
    fn create(path: &Path) -> Result<Self, Error> {
        let partial = beside(path, ".partial");
        let create = || {
            match fs::remove_file(&partial) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)
        };
        let file = create().map_err(|source| writing(path, source))?;
        Ok(Self { path: partial, file, is_published: false })
    }

    /// Gives it the name `path`, which nothing has.
    fn publish(mut self, path: &Path) -> Result<(), Error> {
        let rename = || -> io::Result<()> {
            match renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
                // A file system that cannot do it in one step.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if !path.try_exists()? => {
                    fs::rename(&self.path, path)
                }
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(Errno::EXIST.into()),
                result => Ok(result?),
            }
        };
        rename().map_err(|source| {
            let is_there = source.kind() == io::ErrorKind::AlreadyExists;
            if is_there { exists(path) } else { writing(path, source) }
        })?;
        self.is_published = true;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let sync = File::open(directory).and_then(|directory| directory.sync_all());
        sync.map_err(|source| writing(path, source))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_published {
            // It says by its name that it is none.
            drop(fs::remove_file(&self.path));
        }
    }
}

fn check_path(path: &Path) -> Result<(), Error> {
    let is_fit = path.is_absolute()
        && path.file_name().is_some()
        && path.to_str().is_some_and(|path| path.len() <= MAX_PATH);
    if !is_fit {
        return Err(Error::BackupPath);
    }
    match fs::symlink_metadata(path) {
        Ok(_) => Err(exists(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(writing(path, error)),
    }
}

fn exists(path: &Path) -> Error {
    Error::BackupExists { path: path.display().to_string() }
}

fn writing(path: &Path, source: io::Error) -> Error {
    store::Error::Io { action: format!("write {}", path.display()), source }.into()
}
