//! Opaque bytes under keys, and the directory they live in.
//!
//! ```text
//! vault --Batch--> Store::apply --> SledStore: one committer thread --transaction, flush--> disk
//!       <--bytes-- Store::get, Store::scan, Store::scan_after
//! ```
//!
//! A [`Store`] sees neither plaintext nor meaning: what it holds is sealed by the vault. It promises
//! that a batch is applied as a whole or not at all, and that it is on the disk when
//! [`Store::apply`] returns. [`DataDir`] is the one place that knows where things are.
//!
//! Protects against: a kill or a power failure at any moment (`sled` alone does not, see the
//! comments in `sled.rs` and `durable.rs`); two processes on one directory. Does not protect
//! against: files changed behind its back. `sled` answers some damage with an older state or with
//! less; authenticity is the vault's business.

mod directory;
mod durable;
mod erase;
mod memory;
mod sled;

use std::fmt;
use std::io;

use crate::error::ErrorCode;

pub use directory::DataDir;
pub use memory::MemoryStore;
pub use sled::SledStore;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 64;
/// Longest value, in bytes. `sled` packs up to 17 values into one page, and a page over 128 KiB goes
/// to a file that it never syncs.
pub const MAX_VALUE: usize = 5 << 10;

/// An ordered map per [`Tree`], written in atomic, durable batches.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The value of `key`.
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// Every pair whose key begins with `prefix`, in key order. Not a snapshot: a batch that is
    /// applied meanwhile may show in part.
    fn scan(&self, tree: Tree, prefix: &[u8]) -> Result<Vec<Pair>, Error>;

    /// The first `limit` pairs whose keys are greater than `after`, in key order; from the beginning
    /// for `None`. A walk over a tree in bounded memory: pass the last key on until fewer than
    /// `limit` come. Not a snapshot; a key that is neither added nor removed during the walk is met
    /// exactly once.
    fn scan_after(
        &self,
        tree: Tree,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, Error>;

    /// Applies `batch`, all of it or nothing.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] before anything is written. After [`Error::ReadOnly`] and
    /// [`Error::Engine`] it is unknown, until the next opening, whether the batch is there.
    fn apply(&self, batch: Batch) -> Result<(), Error>;

    /// Destroys what was removed or replaced before this call: afterwards the store holds its live
    /// pairs and nothing else, and what it held in other files is overwritten as far as the file
    /// system and the medium do that. Batches wait meanwhile, reads go on. Needs the disk for a copy
    /// of everything; 40,000 records of 350 bytes take about 2 s.
    ///
    /// # Errors
    ///
    /// [`Error::NotRewritten`], and the store goes on as it was. After any other error removed
    /// values may remain until the store is opened again.
    fn rewrite(&self) -> Result<(), Error>;
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// One of the fixed maps of a store.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a new tree is a new format")]
pub enum Tree {
    /// About the store as a whole.
    Meta,
    /// Records of tenants.
    Tenant,
    /// Client tokens.
    Token,
}

impl Tree {
    /// Every tree.
    pub const ALL: [Self; 3] = [Self::Meta, Self::Tenant, Self::Token];
}

/// Changes that belong together. A later change of a key replaces an earlier one.
#[derive(Default)]
pub struct Batch(Vec<Operation>);

struct Operation {
    tree: Tree,
    key: Vec<u8>,
    /// `None` removes.
    value: Option<Vec<u8>>,
}

impl Batch {
    /// Sets `key` to `value`.
    pub fn put(&mut self, tree: Tree, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.push(Operation { tree, key: key.into(), value: Some(value.into()) });
    }

    /// Removes `key` if it is there.
    pub fn remove(&mut self, tree: Tree, key: impl Into<Vec<u8>>) {
        self.0.push(Operation { tree, key: key.into(), value: None });
    }

    /// Adds the changes of `other`, after those there are.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn check_sizes(&self) -> Result<(), Error> {
        let fits = |operation: &Operation| {
            operation.key.len() <= MAX_KEY
                && operation.value.as_ref().is_none_or(|value| value.len() <= MAX_VALUE)
        };
        if self.0.iter().all(fits) { Ok(()) } else { Err(Error::TooLarge) }
    }

    fn size(&self) -> usize {
        self.0
            .iter()
            .map(|operation| operation.key.len() + operation.value.as_ref().map_or(0, Vec::len))
            .sum()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} operations)", self.0.len())
    }
}

/// Why the store, or its directory, did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory holds a vault already.
    #[error("{path} is already initialised")]
    AlreadyInitialised {
        /// The data directory.
        path: String,
    },
    /// The engine cannot make sense of its files.
    #[error(
        "the store in {path} is damaged ({reason}); do not delete it: keep a copy and restore from \
         a backup"
    )]
    Damaged {
        /// The store's directory.
        path: String,
        /// What was found, in few words.
        reason: String,
    },
    /// Writes would not reach the disk.
    #[error(
        "writes would not be durable: this program's sync_file_range is not the one that sled calls"
    )]
    Durability,
    /// The engine failed while working. The store is read-only from then on.
    #[error("the store failed, and takes no writes until it is opened again")]
    Engine(#[source] ::sled::Error),
    /// Others than the owner can enter the directory.
    #[error("{path} can be entered by others; make it private: chmod 700")]
    Exposed {
        /// The data directory.
        path: String,
    },
    /// Another process has the directory.
    #[error("data directory {path} is in use by another process; stop that one first")]
    InUse {
        /// The data directory.
        path: String,
    },
    /// The operating system refused.
    #[error("cannot {action}")]
    Io {
        /// What was attempted, and on which file.
        action: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// There is something in the directory that is not known to be ours.
    #[error(
        "{path} is not empty; choose another directory, or empty it if it is left over from an \
         initialisation that was interrupted"
    )]
    NotEmpty {
        /// The directory.
        path: String,
    },
    /// A copy of the store could not be made, or does not equal the store.
    #[error("the store could not be rewritten ({reason}); it is as it was")]
    NotRewritten {
        /// What was the matter, in few words.
        reason: String,
    },
    /// The directory holds no vault.
    #[error("{path} is not initialised; run `tenantry init`")]
    NotInitialised {
        /// The data directory.
        path: String,
    },
    /// An earlier write failed.
    #[error("the store takes no writes since one failed; restart once the cause is removed")]
    ReadOnly,
    /// A key or value over the limit.
    #[error("a key has at most {MAX_KEY} bytes and a value at most {MAX_VALUE}")]
    TooLarge,
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::AlreadyInitialised { .. }
            | Self::Exposed { .. }
            | Self::NotEmpty { .. }
            | Self::NotInitialised { .. } => ErrorCode::InvalidArgument,
            Self::Damaged { .. } => ErrorCode::IntegrityError,
            Self::Durability
            | Self::Engine(_)
            | Self::InUse { .. }
            | Self::Io { .. }
            | Self::NotRewritten { .. }
            | Self::ReadOnly
            | Self::TooLarge => ErrorCode::InternalError,
        }
    }

    fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { action: action.into(), source }
    }
}
