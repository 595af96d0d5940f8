//! A store made anew from a backup of it, and from what its journal has beyond that.
//!
//! For a data directory whose engine is damaged and whose journal does not go back to its beginning:
//! header, keyring and journal stay, and nothing that was committed since the backup is lost.

use std::path::Path;

use super::format::BackupFile;
use super::{Access, BackupPart, ReportProgress, Steps};
use crate::store::{Repair, SledStore};
use crate::vault::keyring::Keyring;
use crate::vault::slot::Unlock;
use crate::vault::{Error, TenantCredentialVault};

impl TenantCredentialVault {
    /// Makes the store of this vault, which is not open, anew from the backup at `path` and the
    /// journal. `unlock` opens the vault; the backup opens with what the vault keeps for it, or with
    /// `unlock` too. Answers what was done, a sentence each.
    ///
    /// # Errors
    ///
    /// Those of a wrong key; [`Error::BackupDamaged`], also for a backup of another vault or lineage:
    /// the store is as it was. [`Error::Store`], also when the journal does not begin where the
    /// backup ends.
    pub(in crate::vault) fn rebuild_store_with(
        &self,
        keyring: &Keyring,
        unlock: &Unlock,
        path: &Path,
        report: ReportProgress<'_>,
    ) -> Result<Vec<Repair>, Error> {
        let file = BackupFile::open(path)?;
        if file.head.store_id != self.store_id {
            return Err(file.damaged(BackupPart::Head, "it is of another vault"));
        }
        let known = keyring.backup().map(|slot| Access::known(&file, slot));
        let access = match known {
            Some(Ok(access)) => access,
            Some(Err(_)) | None => Access::with(&file, unlock)?,
        };
        let mut steps = Steps { done: 0, total: file.trailer.records, report };
        access.authenticate(&file, &mut steps)?;
        let mut body = file.body(&access.key)?;
        let (key, options) = (keyring.integrity_key(), &self.options.store);
        let (store, repairs) = body.pairs(&mut |_| steps.advance(0).is_ok(), |pairs| {
            SledStore::rebuild(&self.directory, &key, options, pairs)
        })?;
        // Closed, and with it on the disk.
        drop(store);
        Ok(repairs)
    }
}
