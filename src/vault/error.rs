//! What can go wrong in the vault.

use crate::error::ErrorCode;
use crate::store;
use crate::tenant::TenantId;

use super::backup::BackupPart;
use super::command::KeyCommandProblem;
use super::kdf::{KdfCost, MIN_PASSPHRASE};
use super::shares::{MAX_COUNT, MIN_THRESHOLD};

/// Why the vault did not do what it was asked. No text quotes a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A backup that is not what was written, all of it.
    #[error(
        "the backup {path} is damaged or was altered ({part}: {reason}); nothing of it was kept, use \
         another one"
    )]
    BackupDamaged {
        /// Where it is.
        path: String,
        /// Which part of it was found out first.
        part: BackupPart,
        /// What was found, in few words.
        reason: String,
    },
    /// A backup replaces nothing.
    #[error("{path} is there already; choose another name, or move it away")]
    BackupExists {
        /// Where a backup was to be.
        path: String,
    },
    /// Whoever waited for it did not want it any more.
    #[error("interrupted; nothing of it was kept")]
    BackupInterrupted,
    /// It is sealed with another slot than the present one.
    #[error(
        "this backup was made with another slot than the present one: give the passphrase or key file \
         that opens it"
    )]
    BackupKeyNeeded,
    /// It is there, and its drill could not be held.
    #[error("the backup {path} was made, but not tried ({source}); `tenantry backup verify` does")]
    BackupNotVerified {
        /// Where it is.
        path: String,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// Not a place for a backup.
    #[error("the path of a backup is absolute, UTF-8, and has at most 3000 bytes")]
    BackupPath,
    /// Something else opens backups than what is given.
    #[error(
        "a backup opens with a passphrase or a key file: give --new-passphrase-file or \
         --slot-key-file"
    )]
    BackupSlotKind,
    /// Nothing is there that would open a backup.
    #[error(
        "nothing is set up that opens a backup; `tenantry backup create` does that once, with what \
         opens the vault"
    )]
    BackupSlotMissing,
    /// What is there cannot be forgotten.
    #[error("{path} is still there; delete it first")]
    BackupThere {
        /// Where it is.
        path: String,
    },
    /// Two ids that a person or a file system takes for one another.
    #[error("tenant id {tenant} differs from {existing} only in case; choose another id")]
    CaseConflict {
        /// The one that was refused.
        tenant: TenantId,
        /// The one that is stored, or came earlier in the same import.
        existing: TenantId,
    },
    /// A key derivation that is cheaper to guess than we allow.
    #[error(
        "a key derivation takes {} to {} KiB, {} to {} passes and {} to {} lanes",
        KdfCost::FLOOR.memory_kib, KdfCost::CEILING.memory_kib,
        KdfCost::FLOOR.passes, KdfCost::CEILING.passes,
        KdfCost::FLOOR.lanes, KdfCost::CEILING.lanes
    )]
    CostOutOfRange,
    /// What a tenant has used of its quotas is missing, altered, or not where it was written. It is
    /// not served until that is set to nothing.
    #[error(
        "what tenant {0} has used of its quotas does not open; `tenantry quota reset {0}` sets it to 0"
    )]
    CountsDamaged(TenantId),
    /// The tenant is switched off, and its credentials stay sealed.
    #[error("tenant {0} is disabled")]
    Disabled(TenantId),
    /// One import names a tenant twice.
    #[error("tenant {0} comes twice in one import")]
    Duplicate(TenantId),
    /// The header opens, but not all of it is what was written.
    #[error("the header is damaged or was altered; restore it from a backup")]
    HeaderDamaged,
    /// The header is genuine, and another one belongs to the store.
    #[error(
        "header and store do not belong together: one of them is an older copy; restore both from a \
         backup, or accept the older one with --accept-rollback"
    )]
    HeaderOutdated,
    /// An external program did not give a key, or not keep one.
    #[error("key command {program}: {problem}")]
    KeyCommand {
        /// What was run.
        program: String,
        /// What came of it.
        problem: KeyCommandProblem,
    },
    /// There is nothing to run.
    #[error("a key command has at least the name of a program")]
    KeyCommandEmpty,
    /// Its checksum is another.
    #[error("the key file is damaged: its checksum does not match")]
    KeyFileDamaged,
    /// Something else, or a part of it.
    #[error("not a key file: one line, tenantry-key-1: and 58 letters and digits")]
    KeyFileMalformed,
    /// Not what was written, or not of this vault.
    #[error("the keyring is damaged, altered, or of another vault; restore it from a backup")]
    KeyringDamaged,
    /// The keyring is genuine, and another one belongs to the store; or there are records whose key
    /// it does not have.
    #[error(
        "keyring and store do not belong together: one of them is an older copy; restore both from a \
         backup, or accept the older one with --accept-rollback"
    )]
    KeyringOutdated,
    /// Without this slot the vault could not be opened offline.
    #[error(
        "that slot is the last that opens without another service; add a passphrase, key file or shares first"
    )]
    LastOfflineSlot,
    /// No backup has this id.
    #[error("no known backup has this id; `tenantry backup list` shows those there are")]
    NoSuchBackup,
    /// There are as many operator tokens as there can be.
    #[error("there are 32 operator tokens already; revoke one")]
    TooManyOperators,
    /// No slot has this number.
    #[error("no slot has number {0}; `tenantry slot list` shows those there are")]
    NoSuchSlot(u16),
    /// No such tenant.
    #[error("no such tenant; `tenantry tenant list` shows those there are")]
    NotConfigured,
    /// Not enough memory for the key derivation.
    #[error("not enough memory: unsealing takes {memory_kib} KiB")]
    OutOfMemory {
        /// What the key slot asks for.
        memory_kib: u32,
    },
    /// A passphrase that is too easy to guess.
    #[error(
        "a passphrase has at least {MIN_PASSPHRASE} characters; seven random words make a good one"
    )]
    PassphraseTooShort,
    /// The operating system's random generator failed.
    #[error("the operating system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// A sealed record is missing, altered, or not where it was written.
    #[error("the {kind} record {key} is missing, damaged or was moved; restore from a backup")]
    RecordDamaged {
        /// What kind of record.
        kind: &'static str,
        /// Its key in the store, in hex. It names no tenant.
        key: String,
    },
    /// The tenant was removed, and its keys with it.
    #[error("tenant {tenant} was removed at {at}; --readmit imports it as a new one")]
    Removed {
        /// Who.
        tenant: TenantId,
        /// When.
        at: jiff::Timestamp,
    },
    /// An earlier rotation of everything is not finished.
    #[error("an earlier re-seal is not finished; `tenantry status` shows how far it is")]
    Resealing,
    /// No key is in memory.
    #[error("the vault is sealed; `tenantry unseal` opens it")]
    Sealed,
    /// Nothing that was given opens these slots.
    #[error("nothing that was given opens slot {}; give what opens them, or drop them with --drop-slots", words(.0))]
    SlotsMissing(Vec<u16>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The tenant's keys are sealed.
    #[error("tenant {0} is sealed; `tenantry unseal {0}` opens it")]
    TenantSealed(TenantId),
    /// Too many failures lately.
    #[error("too many failed attempts; try again in {retry_after_seconds} s")]
    Throttled {
        /// When the next one is allowed.
        retry_after_seconds: u64,
    },
    /// Shares cannot be made that way.
    #[error(
        "of {MIN_THRESHOLD} to {MAX_COUNT} shares, at least {MIN_THRESHOLD} and at most all are needed"
    )]
    ShareCounts,
    /// Something else, or a part of it.
    #[error("not a share: tenantry-share-1 and 15 groups of 5 letters and digits")]
    ShareMalformed,
    /// Its checksum is another.
    #[error("a share is mistyped: its checksum does not match")]
    ShareMistyped,
    /// One share given as two.
    #[error("share {0} is given twice")]
    ShareTwice(u8),
    /// They do not belong together.
    #[error("the shares are of different sets")]
    SharesMixed,
    /// Shares of one set, but not enough.
    #[error("{needed} shares are needed, and {given} given")]
    TooFewShares {
        /// How many were given.
        given: usize,
        /// How many open.
        needed: u8,
    },
    /// A value does not fit into its record.
    #[error("{field} of tenant {tenant} is too large to be stored")]
    TooLarge {
        /// Whose.
        tenant: TenantId,
        /// The field of the tenant file, or the token.
        field: String,
    },
    /// A header has room for so many.
    #[error("there are 16 slots already; remove one first")]
    TooManySlots,
    /// Made by a later version.
    #[error("the {0} was written by a newer version of tenantry; use that one")]
    UnsupportedVersion(&'static str),
    /// No slot of this kind opens.
    #[error("no {0} slot opens with what was given (or it is damaged)")]
    WrongKey(&'static str),
    /// No passphrase slot opens.
    #[error("wrong passphrase (or a damaged key slot)")]
    WrongPassphrase,
}

fn words(numbers: &[u16]) -> String {
    numbers.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

impl Error {
    /// That no slot of `kind` opens.
    pub(super) fn no_slot_opens(kind: &'static str) -> Self {
        if kind == "passphrase" { Self::WrongPassphrase } else { Self::WrongKey(kind) }
    }

    /// Whether this is what a guess ends with.
    pub(super) fn is_wrong_key(&self) -> bool {
        matches!(self, Self::WrongKey(_) | Self::WrongPassphrase)
    }

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::BackupExists { .. }
            | Self::BackupPath
            | Self::BackupSlotKind
            | Self::BackupSlotMissing
            | Self::BackupThere { .. }
            | Self::CaseConflict { .. }
            | Self::CostOutOfRange
            | Self::Duplicate(_)
            | Self::LastOfflineSlot
            | Self::NoSuchSlot(_)
            | Self::TooManyOperators
            | Self::PassphraseTooShort
            | Self::Removed { .. }
            | Self::Resealing
            | Self::SlotsMissing(_)
            | Self::TooManySlots
            | Self::KeyCommandEmpty
            | Self::KeyFileDamaged
            | Self::KeyFileMalformed
            | Self::ShareCounts
            | Self::ShareMalformed
            | Self::ShareMistyped
            | Self::ShareTwice(_)
            | Self::SharesMixed
            | Self::TooLarge { .. } => ErrorCode::InvalidArgument,
            Self::BackupInterrupted => ErrorCode::Cancelled,
            Self::BackupNotVerified { source, .. } => source.code(),
            Self::Disabled(_) => ErrorCode::TenantDisabled,
            Self::BackupDamaged { .. }
            | Self::HeaderDamaged
            | Self::HeaderOutdated
            | Self::KeyringDamaged
            | Self::KeyringOutdated
            | Self::CountsDamaged(_)
            | Self::RecordDamaged { .. }
            | Self::UnsupportedVersion(_) => ErrorCode::IntegrityError,
            Self::NoSuchBackup => ErrorCode::ResourceNotFound,
            Self::NotConfigured => ErrorCode::TenantNotConfigured,
            Self::KeyCommand { .. } | Self::OutOfMemory { .. } | Self::Random(_) => {
                ErrorCode::InternalError
            }
            Self::Store(error) => error.code(),
            Self::Throttled { .. } => ErrorCode::QuotaExceeded,
            Self::BackupKeyNeeded
            | Self::Sealed
            | Self::TenantSealed(_)
            | Self::TooFewShares { .. }
            | Self::WrongKey(_)
            | Self::WrongPassphrase => ErrorCode::VaultSealed,
        }
    }
}
