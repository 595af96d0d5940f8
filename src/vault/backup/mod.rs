//! Backups: all of a vault at one commit, in one file, as sealed as it is in the data directory.
//!
//! ```text
//! create:  walk over the store, commits go on --> pairs --\
//!          writers wait: what changed, the keyring --------+--> FILE.partial --> FILE --> drill
//! drill:   FILE --> MAC, a store in FILE.drill --> every record opened --> removed again
//! restore: FILE --> MAC, a store in a new data directory --> keyring --> header
//!
//! passphrase or key file --slot of its header--> backup key --> keyring in it --> records
//! ```
//!
//! A backup opens with a slot of its own. Its header and the key in it, not its root key, are kept in
//! the keyring, so that a backup is made and tried without a passphrase while the vault is unsealed;
//! tenants that are sealed stay so, also in backups.
//!
//! Protects against: a backup that is altered, cut, or put together from several; one that cannot be
//! restored, which the drill finds; an older backup that is forgotten when a tenant is removed. Does
//! not protect against: whoever has a file and what opens its slot, for as long as the file is there;
//! files that were copied elsewhere.

mod create;
mod format;
mod known;
mod rebuild;
mod restore;
mod schedule;
mod verify;

use std::fmt;
use std::path::{Path, PathBuf};

use super::header::OpenHeader;
use super::key::Key;
use super::keyring::BackupSlot;
use super::slot::{NewSlot, SlotKind, Unlock};
use super::{Error, KdfCost};

use format::BackupFile;

pub(super) use known::{RECORD_PREFIX, holders, open_known, place};

pub use create::NewBackup;
pub use known::KnownBackup;
pub use restore::Restoration;
pub use schedule::{Due, Schedule};
pub use verify::{Drill, verify};

/// Which backup this is: random, in the clear.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackupId([u8; 16]);

/// A part of a backup, as its errors name it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum BackupPart {
    /// What says which part is where, and what opens it.
    Head,
    /// The keys.
    Keyring,
    /// The store's pairs, their number and their hash.
    Records,
    /// The certificates of removed tenants.
    Certificates,
    /// What authenticates all of it.
    Seal,
}

/// How far a backup, a drill or a restoration is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "two numbers")]
pub struct BackupProgress {
    /// Records, of `total`.
    pub done: u64,
    /// Each record counts once for each pass over it.
    pub total: u64,
}

/// What a long piece of work tells how far it is; it ends early when that answers false.
pub type ReportProgress<'a> = &'a mut dyn FnMut(BackupProgress) -> bool;

/// Counts records over several passes.
struct Steps<'a> {
    done: u64,
    total: u64,
    report: ReportProgress<'a>,
}

impl Steps<'_> {
    fn advance(&mut self, records: u64) -> Result<(), Error> {
        self.done += records;
        let progress = BackupProgress { done: self.done.min(self.total), total: self.total };
        if (self.report)(progress) { Ok(()) } else { Err(Error::BackupInterrupted) }
    }
}

/// What opens a backup.
struct Access {
    /// What seals the keyring in it, and authenticates all of it.
    key: Key,
    /// With what opened its slot; what opens the keys of sealed tenants is in it.
    header: Option<OpenHeader>,
}

impl Access {
    /// By the slot of the backup itself.
    fn with(file: &BackupFile, unlock: &Unlock) -> Result<Self, Error> {
        let opened = OpenHeader::open(&file.head.header, unlock).map_err(|error| {
            let is_damaged = matches!(error, Error::HeaderDamaged);
            if is_damaged {
                file.damaged(BackupPart::Head, "its header was altered")
            } else {
                error
            }
        });
        let (header, _) = opened?;
        Ok(Self { key: header.keyring_key().duplicate(), header: Some(header) })
    }

    /// By what the vault keeps, if `file` is sealed with that.
    fn known(file: &BackupFile, slot: &BackupSlot) -> Result<Self, Error> {
        if slot.header != file.head.header {
            return Err(Error::BackupKeyNeeded);
        }
        Ok(Self { key: slot.key.duplicate(), header: None })
    }

    /// Compares the MAC of `file`, before anything that somebody else wrote gets as far as the
    /// engine.
    fn authenticate(&self, file: &BackupFile, steps: &mut Steps<'_>) -> Result<(), Error> {
        file.authenticate(&self.key, &mut |_| steps.advance(0).is_ok())
    }
}

/// What the next backups are sealed with, for `new` to open them.
fn make_slot(
    header: &OpenHeader,
    new: &NewSlot,
    now: jiff::Timestamp,
) -> Result<BackupSlot, Error> {
    match new {
        NewSlot::Passphrase { .. } | NewSlot::KeyFile(_) => {}
        NewSlot::Command(_) | NewSlot::Shares { .. } => return Err(Error::BackupSlotKind),
    }
    let mut header = header.create_for_backups(new, now)?;
    Ok(BackupSlot { header: header.encode()?, key: header.keyring_key().duplicate() })
}

/// A slot for backups that opens with what opens the vault.
fn same_slot(unlock: &Unlock, cost: KdfCost) -> Result<NewSlot, Error> {
    match unlock {
        Unlock::Passphrase(passphrase) => Ok(NewSlot::passphrase(passphrase, cost)),
        Unlock::KeyFile(file) => Ok(NewSlot::KeyFile(file.duplicate())),
        Unlock::Command(_) | Unlock::Shares(_) => Err(Error::BackupSlotKind),
    }
}

/// What the next backups are sealed with after the keys of `header` have changed: the same opens it
/// as `present`, if one of `unlocks` does; else there is none.
pub(super) fn renewed_slot(
    header: &OpenHeader,
    present: &BackupSlot,
    unlocks: &[Unlock],
    now: jiff::Timestamp,
) -> Result<Option<BackupSlot>, Error> {
    for unlock in unlocks {
        if let Ok((_, slot)) = OpenHeader::open(&present.header, unlock) {
            let cost = match slot.kind {
                SlotKind::Passphrase(cost) => cost,
                SlotKind::KeyFile | SlotKind::Command | SlotKind::Shares { .. } => KdfCost::DEFAULT,
            };
            return make_slot(header, &same_slot(unlock, cost)?, now).map(Some);
        }
    }
    Ok(None)
}

/// The file beside `path` whose name ends in `ending`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

impl BackupId {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 2 * id.len() || !text.bytes().all(is_digit) {
            return None;
        }
        for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for BackupPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "head",
            Self::Keyring => "keyring",
            Self::Records => "records",
            Self::Certificates => "certificates",
            Self::Seal => "seal",
        })
    }
}
