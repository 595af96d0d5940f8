//! Backups that the service makes by itself: when one is due, and which ones go.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::{BackupId, KnownBackup};
use crate::store;
use crate::vault::{Error, StoreId, TenantCredentialVault};

/// When backups are made, where, and how many stay.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "config fills it field by field")]
pub struct Schedule {
    /// Where they go. It is not made: a disk that is not mounted is a failure.
    pub directory: PathBuf,
    /// How long after one the next is due.
    pub every: Duration,
    /// How many of them stay, at least 1.
    pub keep: usize,
}

/// What is to be done for a schedule.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "both are to be dealt with")]
pub enum Due {
    /// A backup there.
    Create(PathBuf),
    /// A drill with the backup there, which failed before, or was not come to.
    Verify(PathBuf),
}

impl TenantCredentialVault {
    /// What is to be done for `schedule` now. Nothing while there is no slot for backups.
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`], [`Error::BackupSlotMissing`], [`Error::Store`].
    pub fn due_backup(&self, schedule: &Schedule) -> Result<Option<Due>, Error> {
        if !self.has_backup_slot()? {
            return Err(Error::BackupSlotMissing);
        }
        let now = self.clock.now();
        let backups = self.backups()?;
        let newest = newest(&backups);
        if next(newest, schedule, now) > now {
            let unverified = newest.filter(|backup| backup.verified_at.is_none());
            return Ok(unverified
                .filter(|backup| backup.is_there())
                .map(|backup| Due::Verify(backup.path.clone())));
        }
        Ok(Some(Due::Create(schedule.directory.join(file_name(self.store_id, now)))))
    }

    /// When `schedule` makes the next backup.
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`], [`Error::Store`].
    pub fn next_backup_at(&self, schedule: &Schedule) -> Result<Timestamp, Error> {
        Ok(next(newest(&self.backups()?), schedule, self.clock.now()))
    }

    /// The backups that `schedule` made, and does not keep any longer.
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`], [`Error::Store`].
    pub fn surplus_backups(&self, schedule: &Schedule) -> Result<Vec<KnownBackup>, Error> {
        // What is not there now may be on a disk that is not mounted, and does not count.
        let mut backups = self.backups()?;
        backups.retain(KnownBackup::is_there);
        let surplus = surplus(&backups, schedule.keep);
        backups.retain(|backup| surplus.contains(&backup.id));
        Ok(backups)
    }

    /// Deletes a backup that the service made, and forgets it.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchBackup`] also for one that an operator made, and where something else is in its
    /// place by now; [`Error::Sealed`], [`Error::Store`].
    pub fn delete_backup(&self, id: BackupId) -> Result<KnownBackup, Error> {
        let backups = self.backups()?;
        let is_ours = |backup: &KnownBackup| backup.is_scheduled && backup.is_there();
        let backup = backups.into_iter().find(|backup| backup.id == id).filter(is_ours);
        let backup = backup.ok_or(Error::NoSuchBackup)?;
        let action = || format!("delete {}", backup.path.display());
        fs::remove_file(&backup.path)
            .map_err(|source| store::Error::Io { action: action(), source })?;
        self.unsealed(|vault| vault.remove_known(id))?;
        Ok(backup)
    }
}

/// The last one that was made by a schedule.
fn newest(backups: &[KnownBackup]) -> Option<&KnownBackup> {
    backups.iter().rfind(|backup| backup.is_scheduled)
}

fn next(newest: Option<&KnownBackup>, schedule: &Schedule, now: Timestamp) -> Timestamp {
    let Some(newest) = newest else { return now };
    // Of a clock that was set back since: it is not waited for.
    let last = newest.created_at.min(now);
    last.saturating_add(schedule.every).unwrap_or(Timestamp::MAX)
}

/// Those of `backups`, the oldest first, that go when `keep` stay: never one that an operator made,
/// and never the newest that is known to be good.
fn surplus(backups: &[KnownBackup], keep: usize) -> Vec<BackupId> {
    let scheduled: Vec<&KnownBackup> =
        backups.iter().filter(|backup| backup.is_scheduled).collect();
    let best = backups.iter().rfind(|backup| backup.verified_at.is_some());
    let count = scheduled.len().saturating_sub(keep.max(1));
    let surplus = scheduled.iter().take(count).map(|backup| backup.id);
    surplus.filter(|id| best.is_none_or(|best| best.id != *id)).collect()
}

/// `tenantry-5e0f12ab-20261122T230000Z.backup`
fn file_name(store_id: StoreId, now: Timestamp) -> String {
    let id = store_id.to_string();
    let id = id.get(..8).unwrap_or_default();
    format!("tenantry-{id}-{}.backup", now.strftime("%Y%m%dT%H%M%SZ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(number: u8, is_scheduled: bool, is_verified: bool) -> KnownBackup {
        let created_at = Timestamp::from_second(1_795_305_600 + i64::from(number)).unwrap();
        KnownBackup {
            id: BackupId([number; 16]),
            path: PathBuf::from("/backups/one"),
            created_at,
            commit: number.into(),
            records: 0,
            bytes: 0,
            verified_at: is_verified.then_some(created_at),
            is_scheduled,
        }
    }

    fn going(backups: &[KnownBackup], keep: usize) -> Vec<u8> {
        surplus(backups, keep).iter().map(|id| id.0[0]).collect()
    }

    #[test]
    fn the_oldest_scheduled_backups_go_and_an_operators_never_does() {
        let backups = [1, 2, 3, 4, 5].map(|number| backup(number, number != 2, true));
        assert_eq!(going(&backups, 2), [1, 3]);
        assert_eq!(going(&backups, 4), [0; 0]);
        assert_eq!(going(&backups, 0), [1, 3, 4]);
        assert_eq!(going(&[], 3), [0; 0]);
    }

    #[test]
    fn the_newest_good_backup_stays_however_many_follow_it() {
        let backups = [1, 2, 3, 4, 5].map(|number| backup(number, true, number <= 2));
        assert_eq!(going(&backups, 2), [1, 3]);
        assert_eq!(going(&backups, 1), [1, 3, 4]);
        let none = [1, 2, 3].map(|number| backup(number, true, false));
        assert_eq!(going(&none, 1), [1, 2]);
    }

    #[test]
    fn a_backup_is_due_when_there_is_none_and_when_the_last_is_old_enough() {
        let schedule = Schedule { directory: "/b".into(), every: Duration::from_hours(6), keep: 2 };
        let last = backup(9, true, true);
        let hour = |hour| last.created_at + Duration::from_hours(hour);
        assert_eq!(next(None, &schedule, hour(0)), hour(0));
        assert_eq!(next(Some(&last), &schedule, hour(1)), hour(6));
        // The clock was set back by a day.
        let now = last.created_at - Duration::from_hours(24);
        assert_eq!(next(Some(&last), &schedule, now), now + Duration::from_hours(6));
        assert_eq!(newest(&[backup(1, true, true), backup(2, false, true)]).unwrap().commit, 1);
    }

    #[test]
    fn a_scheduled_file_is_named_after_vault_and_moment() {
        let at = Timestamp::from_second(1_795_305_600).unwrap();
        let name = file_name(StoreId([0x5e; 16]), at);
        assert_eq!(name, "tenantry-5e5e5e5e-20261122T000000Z.backup");
    }
}
