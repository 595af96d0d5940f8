//! The backups that there are, as far as the vault knows: one sealed record each.
//!
//! Under the system's keys, as tokens are, in [`Tree::Meta`] at `backup/` and the backup's id. Known
//! backups hold what was removed since: a deletion certificate names them, and a change of every key
//! does not reach them.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::format::BackupFile;
use super::{BackupId, Drill};
use crate::store::{Batch, Tree};
use crate::vault::codec::{Malformed, Reader, Writer};
use crate::vault::envelope::{self, Place, RecordKind};
use crate::vault::keyring::TenantKeys;
use crate::vault::sealed::SealedStore;
use crate::vault::unsealed::Unsealed;
use crate::vault::{Error, TenantCredentialVault};

/// A backup that was made, and not forgotten.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct KnownBackup {
    /// Its name in the vault.
    pub id: BackupId,
    /// Where it was when it was last written or tried.
    pub path: PathBuf,
    /// Of which moment it is the state.
    pub created_at: Timestamp,
    /// Of which commit.
    pub commit: u64,
    /// How many records of the store are in it.
    pub records: u64,
    /// How large it is.
    pub bytes: u64,
    /// When it last stood a drill.
    pub verified_at: Option<Timestamp>,
    /// Whether the service made it by itself, and may delete it.
    pub is_scheduled: bool,
}

/// First byte of the payload.
const VERSION: u8 = 1;
/// How the keys of these records begin.
pub(in crate::vault) const RECORD_PREFIX: &[u8] = b"backup/";
/// Longest path, so that a record holds it.
pub(super) const MAX_PATH: usize = 3_000;

impl KnownBackup {
    /// Whether there is such a backup where it was.
    pub fn is_there(&self) -> bool {
        BackupFile::open(&self.path).is_ok_and(|file| file.head.id == self.id)
    }

    fn key(id: BackupId) -> Vec<u8> {
        [RECORD_PREFIX, &id.0].concat()
    }

    pub(in crate::vault) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(VERSION);
        writer.raw(&self.id.0);
        writer.text(&self.path.to_string_lossy());
        writer.time(self.created_at);
        writer.u64(self.commit);
        writer.u64(self.records);
        writer.u64(self.bytes);
        writer.optional(self.verified_at, Writer::time);
        writer.flag(self.is_scheduled);
        writer.finish()
    }

    pub(in crate::vault) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let backup = Self {
            id: BackupId(reader.array()?),
            path: PathBuf::from(reader.text()?),
            created_at: reader.time()?,
            commit: reader.u64()?,
            records: reader.u64()?,
            bytes: reader.u64()?,
            verified_at: reader.optional(Reader::time)?,
            is_scheduled: reader.flag()?,
        };
        reader.finish()?;
        Ok(backup)
    }

    /// As a deletion certificate names it: the file, the moment, the commit.
    fn certified(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        format!("{name} of {} (commit {})", self.created_at, self.commit)
    }
}

/// The place of the record of a backup at `key`.
pub(in crate::vault) fn place<'a>(records: &SealedStore, key: &'a [u8]) -> Place<'a> {
    records.place(RecordKind::Backup, 0, 1, key)
}

/// The backup whose record was found at `key`, opened with the system's keys.
pub(in crate::vault) fn open_known(
    records: &SealedStore,
    system: &TenantKeys,
    key: &[u8],
    envelope: &[u8],
) -> Result<KnownBackup, Error> {
    let place = place(records, key);
    let opened = envelope::open(system, &place, envelope)?;
    let backup = KnownBackup::decode(&opened).map_err(|Malformed| place.damaged())?;
    if KnownBackup::key(backup.id) == key { Ok(backup) } else { Err(place.damaged()) }
}

/// Which of `backups` hold a tenant, in the words of its certificate. It was there from `created` on,
/// if that is still known, until `removed`.
pub(in crate::vault) fn holders(
    backups: &[KnownBackup],
    created: Option<Timestamp>,
    removed: Timestamp,
) -> Vec<String> {
    let holds = |backup: &&KnownBackup| {
        created.is_none_or(|created| created <= backup.created_at)
            // A tombstone has whole seconds.
            && backup.created_at.as_second() <= removed.as_second()
    };
    backups.iter().filter(holds).map(KnownBackup::certified).collect()
}

impl TenantCredentialVault {
    /// Every known backup, the oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`], [`Error::RecordDamaged`], [`Error::Store`].
    pub fn backups(&self) -> Result<Vec<KnownBackup>, Error> {
        self.unsealed(|vault| {
            let _writing = vault.writing();
            vault.known_backups()
        })
    }

    /// Forgets the backup `id`, whose file is gone: deletion certificates do not name it any more.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchBackup`]; [`Error::BackupThere`]: delete the file first.
    pub fn forget_backup(&self, id: BackupId) -> Result<KnownBackup, Error> {
        let backups = self.backups()?;
        let backup = backups.into_iter().find(|backup| backup.id == id);
        let backup = backup.ok_or(Error::NoSuchBackup)?;
        if backup.is_there() {
            return Err(Error::BackupThere { path: backup.path.display().to_string() });
        }
        self.unsealed(|vault| vault.remove_known(id))?;
        Ok(backup)
    }

    /// Notes that a backup of this vault stood a drill. What is before it in the store's journal may
    /// go then.
    pub(super) fn remember_drill(&self, drill: &Drill) -> Result<KnownBackup, Error> {
        let known = self.backups()?.into_iter().find(|backup| backup.id == drill.id);
        let backup = KnownBackup {
            id: drill.id,
            path: absolute(&drill.path),
            created_at: drill.created_at,
            commit: drill.commit,
            records: drill.records,
            bytes: drill.bytes,
            verified_at: Some(self.clock.now()),
            is_scheduled: known.is_some_and(|known| known.is_scheduled),
        };
        self.unsealed(|vault| {
            vault.put_known(&backup)?;
            Ok(vault.records.store().release_journal(backup.commit)?)
        })?;
        Ok(backup)
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Unsealed {
    /// Every known backup, the oldest first. For whoever holds the writers' lock.
    pub(in crate::vault) fn known_backups(&self) -> Result<Vec<KnownBackup>, Error> {
        let system = self.system();
        let mut backups = Vec::new();
        for (key, envelope) in self.records.store().scan(Tree::Meta, RECORD_PREFIX)? {
            backups.push(open_known(&self.records, &system, &key, &envelope)?);
        }
        backups.sort_by_key(|backup| (backup.created_at, backup.id));
        Ok(backups)
    }

    pub(super) fn put_known(&self, backup: &KnownBackup) -> Result<(), Error> {
        let _writing = self.writing();
        let payload = backup.encode();
        if payload.len() > envelope::MAX_PAYLOAD || backup.path.to_str().is_none() {
            return Err(Error::BackupPath);
        }
        let system = self.system();
        let key = KnownBackup::key(backup.id);
        let sealed = envelope::seal(&system, &place(&self.records, &key), &payload)?;
        let mut batch = Batch::default();
        batch.put(Tree::Meta, key, sealed);
        self.witness.apply(batch)
    }

    pub(super) fn remove_known(&self, id: BackupId) -> Result<(), Error> {
        let _writing = self.writing();
        let mut batch = Batch::default();
        batch.remove(Tree::Meta, KnownBackup::key(id));
        self.witness.apply(batch)
    }
}
