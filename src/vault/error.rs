//! What can go wrong in the vault.

use crate::error::ErrorCode;
use crate::store;
use crate::tenant::TenantId;

use super::kdf::{KdfCost, MIN_PASSPHRASE};

/// Why the vault did not do what it was asked. No text quotes a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// The tenant is switched off, and its credentials stay sealed.
    #[error("tenant {0} is disabled")]
    Disabled(TenantId),
    /// One import names a tenant twice.
    #[error("tenant {0} comes twice in one import")]
    Duplicate(TenantId),
    /// The header opens, but not all of it is what was written.
    #[error("the header is damaged or was altered; restore it from a backup")]
    HeaderDamaged,
    /// Not what was written, or not of this vault.
    #[error("the keyring is damaged, altered, or of another vault; restore it from a backup")]
    KeyringDamaged,
    /// There are records whose key the keyring does not have.
    #[error("the keyring is older than the store; restore the one that belongs to it")]
    KeyringOutdated,
    /// No such tenant.
    #[error("no such tenant is configured")]
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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A value does not fit into its record.
    #[error("{field} of tenant {tenant} is too large to be stored")]
    TooLarge {
        /// Whose.
        tenant: TenantId,
        /// The field of the tenant file, or the token.
        field: String,
    },
    /// Made by a later version.
    #[error("the {0} was written by a newer version of tenantry; use that one")]
    UnsupportedVersion(&'static str),
    /// No key slot opens.
    #[error("wrong passphrase (or a damaged key slot)")]
    WrongPassphrase,
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::CaseConflict { .. }
            | Self::CostOutOfRange
            | Self::Duplicate(_)
            | Self::PassphraseTooShort
            | Self::TooLarge { .. } => ErrorCode::InvalidArgument,
            Self::Disabled(_) => ErrorCode::TenantDisabled,
            Self::HeaderDamaged
            | Self::KeyringDamaged
            | Self::KeyringOutdated
            | Self::RecordDamaged { .. }
            | Self::UnsupportedVersion(_) => ErrorCode::IntegrityError,
            Self::NotConfigured => ErrorCode::TenantNotConfigured,
            Self::OutOfMemory { .. } | Self::Random(_) => ErrorCode::InternalError,
            Self::Store(error) => error.code(),
            Self::WrongPassphrase => ErrorCode::VaultSealed,
        }
    }
}
