//! The actions on backups.

use std::path::Path;
use std::slice::Iter;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{About, Admin, Error, Progress, Proof, SlotRequest, describe};
use crate::audit::{Actor, Attempt, Log, Outcome, RequestId};
use crate::clock::Clock;
use crate::memory::SecretText;
use crate::store::{self, DataDir};
use crate::vault::backup::{BackupId, BackupProgress, Drill, KnownBackup, NewBackup, Restoration};
use crate::vault::{self, KdfCost, Unlock};

impl Admin {
    /// Makes a backup of what a command says, with the next of `secrets`.
    pub(super) fn execute_create(
        &self,
        (path, verifies): (&str, bool),
        (proof, slot): (Option<&Proof>, Option<&SlotRequest>),
        secrets: &mut Iter<'_, SecretText>,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Value, Error> {
        let unlock = proof.map(|proof| proof.unlock(secrets)).transpose()?;
        let slot = slot.map(|slot| slot.new_slot(secrets)).transpose()?;
        let new = NewBackup {
            path: Path::new(path),
            unlock: unlock.as_ref(),
            slot: slot.as_ref(),
            cost: KdfCost::DEFAULT,
            verifies,
            is_scheduled: false,
        };
        Ok(describe::backup(&self.create_backup(&new, progress)?))
    }

    /// Tries the backup that a command names, with the next of `secrets`.
    pub(super) fn execute_verify(
        &self,
        (path, scratch): (&str, Option<&str>),
        proof: Option<&Proof>,
        secrets: &mut Iter<'_, SecretText>,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Value, Error> {
        let unlock = proof.map(|proof| proof.unlock(secrets)).transpose()?;
        let scratch = scratch.map(Path::new);
        let drill = self.verify_backup(Path::new(path), unlock.as_ref(), scratch, progress)?;
        Ok(describe::drill(&drill))
    }

    /// Makes a backup, and tries it unless it is said not to.
    pub fn create_backup(
        &self,
        new: &NewBackup<'_>,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<KnownBackup, Error> {
        let made = |backup: &KnownBackup| {
            let name = format!("{} ({})", backup.path.display(), backup.id);
            (Some(backup.records), Some(name))
        };
        let create = || Ok(self.vault.create_backup(new, &mut |reached| progress(of(reached)))?);
        self.change("backup.create", &about(new.path), made, create)
    }

    /// Restores a backup into a scratch place and opens every record; `unlock` is for the backup.
    pub fn verify_backup(
        &self,
        path: &Path,
        unlock: Option<&Unlock>,
        scratch: Option<&Path>,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Drill, Error> {
        if !path.is_absolute() {
            return Err(vault::Error::BackupPath.into());
        }
        let rows = |drill: &Drill| (Some(drill.records), None);
        let verify = || {
            let mut report = |reached| progress(of(reached));
            Ok(self.vault.verify_backup(path, unlock, scratch, &mut report)?)
        };
        self.change("backup.verify", &about(path), rows, verify)
    }

    /// Every known backup, the oldest first.
    pub fn backups(&self) -> Result<Vec<KnownBackup>, Error> {
        Ok(self.vault.backups()?)
    }

    /// Forgets a backup whose file is gone.
    pub fn forget_backup(&self, id: &str) -> Result<KnownBackup, Error> {
        let about = About { resource: Some(id.to_owned()), ..About::default() };
        let forgotten =
            |backup: &KnownBackup| (None, Some(format!("{} ({id})", backup.path.display())));
        let forget = || {
            let id = BackupId::parse(id).ok_or(vault::Error::NoSuchBackup)?;
            Ok(self.vault.forget_backup(id)?)
        };
        self.change("backup.forget", &about, forgotten, forget)
    }

    /// How many backups there are, which one is the newest, and how the schedule is doing.
    pub(super) fn backup_status(&self) -> Result<Value, Error> {
        let backups = self.vault.backups()?;
        let newest_verified = backups.iter().rfind(|backup| backup.verified_at.is_some());
        let scheduled = self.manager.as_ref().and_then(|manager| manager.scheduled_backups());
        let schedule = match scheduled {
            None => Value::Null,
            Some((schedule, failure)) => json!({
                "directory": schedule.directory.display().to_string(),
                "every_hours": schedule.every.as_secs() / 3_600,
                "keep": schedule.keep,
                "next_at": self.vault.next_backup_at(schedule)?.to_string(),
                "failure": failure.map(|failure| json!({
                    "since": failure.since.to_string(),
                    "attempts": failure.attempts,
                    "retry_at": failure.retry_at.to_string(),
                    "error_code": failure.code.as_str(),
                    "message": failure.message,
                })),
            }),
        };
        Ok(json!({
            "slot": self.vault.has_backup_slot()?,
            "known": backups.len(),
            "newest_verified": newest_verified.map(describe::backup),
            "schedule": schedule,
        }))
    }
}

/// Tries a backup without a vault, for whoever has what opens it. Nobody's log tells of it.
///
/// # Errors
///
/// Those of [`vault::backup::verify`].
pub fn verify_backup(
    path: &Path,
    unlock: &Unlock,
    scratch: Option<&Path>,
    clock: &Arc<dyn Clock>,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Value, Error> {
    let mut report = |reached| progress(of(reached));
    Ok(describe::drill(&vault::backup::verify(path, unlock, scratch, clock, &mut report)?))
}

/// A backup that is to become a data directory.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field")]
pub struct Restore<'a> {
    /// The backup.
    pub file: &'a Path,
    /// Where there is nothing yet.
    pub directory: DataDir,
    /// What opens the backup.
    pub unlock: &'a Unlock,
    /// Who restores it, for the new directory's log.
    pub operator: Actor,
    /// For the same.
    pub clock: Arc<dyn Clock>,
}

impl Restore<'_> {
    /// Does it. The new directory's log says so before there is a vault.
    ///
    /// # Errors
    ///
    /// Those of [`Restoration::prepare`], [`Error::Audit`]: there is no vault.
    pub fn run(
        self,
        options: store::Options,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Value, Error> {
        let Self { file, directory, unlock, operator, clock } = self;
        let mut report = |reached| progress(of(reached));
        let restoration = Restoration::prepare(file, directory, unlock, options, &mut report)?;
        let log = Log::open(&restoration.directory().audit_path(), clock)?;
        let mut pending = log.begin(Attempt {
            request_id: RequestId::random(),
            actor: operator,
            peer: None,
            action: "backup.restore",
            tenant: None,
        });
        let Restoration { id, created_at, commit, records, .. } = &restoration;
        let resource = format!("{} ({id}) of {created_at}, commit {commit}", file.display());
        pending.set_resource(&resource, None);
        pending.announce_blocking()?;
        let mut answer = json!({
            "backup_id": id.to_string(),
            "store_id": restoration.store_id.to_string(),
            "created_at": created_at.to_string(),
            "commit": commit,
            "records": records,
        });
        let rows = Some(*records);
        // On a failure the log goes with the rest.
        let path = restoration.commit()?;
        pending.complete_blocking(Outcome { rows, ..Outcome::default() })?;
        answer["data_dir"] = json!(path.display().to_string());
        Ok(answer)
    }
}

fn about(path: &Path) -> About<'static> {
    About { resource: Some(path.display().to_string()), ..About::default() }
}

fn of(BackupProgress { done, total }: BackupProgress) -> Progress {
    Progress { done, total }
}
