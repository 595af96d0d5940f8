//! Opaque bytes under keys, and the directory they live in.
//!
//! ```text
//! vault --Batch-------> Store::apply --------> SledStore: one committer thread --> disk
//!       --LargeBatch--> Store::apply_large -->
//!       <--bytes------- Store::get, Store::scan, Store::scan_after
//! ```
//!
//! A [`Store`] sees neither plaintext nor meaning: what it holds is sealed by the vault. It promises
//! that a batch is applied as a whole or not at all, and that it is on the disk when
//! [`Store::apply`] returns. [`DataDir`] is the one place that knows where things are.
//!
//! Protects against: a kill or a power failure at any moment (`sled` alone does not, see the
//! comments in `sled` and `durable.rs`); two processes on one directory; files that are damaged,
//! altered, missing or older than they should be: they are repaired where that is provably right, or
//! the store does not open. Does not protect against: all of the directory put back as it was
//! earlier; what a value says, which is the vault's business.

mod anchor;
mod directory;
mod durable;
mod erase;
#[cfg(fuzzing)]
pub mod fuzzing;
mod inspection;
mod integrity;
mod journal;
mod large;
mod memory;
mod migrate;
mod pairs;
mod scratch;
mod sled;
mod space;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

use crate::error::ErrorCode;

pub use directory::DataDir;
pub use inspection::{Inspection, Part, PartInspection, Remnant};
pub use integrity::IntegrityKey;
pub use large::LargeBatch;
pub use memory::MemoryStore;
pub(crate) use pairs::PairsWriter;
pub use scratch::Scratch;
pub use sled::{Lookup, SledStore};

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

    /// The same for a batch that is not in memory. 50,000 pairs of 350 bytes take 1.5 s;
    /// other batches wait, reads go on, and while it is applied they may show a part of it.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritten`], [`Error::Full`] and [`Error::Io`]: nothing is applied. After
    /// [`Error::ReadOnly`] and [`Error::Engine`] it is unknown as with [`Store::apply`].
    fn apply_large(&self, batch: LargeBatch) -> Result<(), Error>;

    /// Destroys what was removed or replaced before this call: afterwards the store holds its live
    /// pairs and nothing else, and what it held in other files is overwritten as far as the file
    /// system and the medium do that. Reads, batches and walks go on beside it; once, when the copy
    /// takes the store's place, batches and walks wait: about 0.1 s of the 2 s that 40,000 records of
    /// 350 bytes take, and 1 s of a minute with ten times as many. What is removed or replaced during the call is for the next one, which begins
    /// after it. Needs the disk for two copies of everything.
    ///
    /// # Errors
    ///
    /// [`Error::NotRewritten`], and the store goes on as it was. After any other error it takes no
    /// writes until it is opened again, and removed values may remain until it is rewritten.
    fn rewrite(&self) -> Result<(), Error>;

    /// Begins a walk over every pair of every tree, beside reads and batches.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`]: a store that takes no writes cannot say what it holds for certain.
    fn walk(&self) -> Result<Box<dyn Walk>, Error>;

    /// How the store is. From memory.
    fn condition(&self) -> Condition;

    /// Whether what writes does so: returns once it has done what waited before this call.
    fn answers(&self) -> bool {
        true
    }

    /// Says that a verified backup holds everything up to commit `number`: the journal before it may
    /// go, and from then on a damaged store is rebuilt from that backup.
    fn release_journal(&self, number: u64) -> Result<(), Error>;
}

/// A walk over every pair of a store, which ends with a state of the store to the bit: what the walk
/// has passed and what has changed behind it meanwhile are the pairs of one commit.
///
/// Dropped before its end, it costs nothing more.
pub trait Walk: Send {
    /// The next pairs, at most 512, in the order of trees and keys; none at the end.
    fn next(&mut self) -> Result<Vec<(Tree, Pair)>, Error>;

    /// Ends the walk between two commits: what changed behind it, and the commit that this makes it
    /// the state of. Every pair that is left is passed first, so that what was never asked for by
    /// [`Walk::next`] comes as a change.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when what was met is not what the commits made: a pair is missing, is
    /// older than it should be, or was altered.
    fn finish(self: Box<Self>) -> Result<Snapshot, Error>;
}

/// The end of a [`Walk`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// What changed after the walk had passed it; `None` was removed. In the order of trees and keys.
    pub changes: Vec<Changed>,
    /// The manifest of the commit that the walk is now the state of, as it is stored:
    /// authenticated by the integrity key of the store.
    pub manifest: Vec<u8>,
    /// The number of that commit.
    pub number: u64,
    /// How many pairs there are.
    pub pairs: u64,
}

/// A key, and what it has now; `None` was removed.
pub type Changed = (Tree, Vec<u8>, Option<Vec<u8>>);

/// How a store is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Condition {
    /// The number of the last commit.
    pub number: u64,
    /// How many pairs there are.
    pub pairs: u64,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// Why the store takes no writes, if it does not.
    pub read_only: Option<String>,
    /// Whether so little room is left on the disk that writes are refused.
    pub is_full: bool,
    /// Whether the pairs have been compared with the manifest since the store was opened.
    pub is_checked: bool,
}

/// Settings of a store on disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "config fills it field by field")]
pub struct Options {
    /// How much of the disk is taken in advance, to be given up when others have filled it. At most
    /// a sixteenth of the disk is taken.
    pub ballast_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { ballast_bytes: 64 << 20 }
    }
}

/// What was done at an opening to have the newest commit: one sentence for operators.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Repair {
    part: Part,
    text: String,
}

impl Repair {
    /// What was repaired.
    pub fn part(&self) -> Part {
        self.part
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
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

    /// What stands for it in files. Zero stands for none.
    fn number(self) -> u8 {
        match self {
            Self::Meta => 1,
            Self::Tenant => 2,
            Self::Token => 3,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|tree| tree.number() == number)
    }
}

/// Changes that belong together. A later change of a key replaces an earlier one.
#[derive(Default)]
pub struct Batch(Vec<Operation>);

/// A pair to be set, or a key to be removed.
type Change<'a> = (Tree, &'a [u8], Option<&'a [u8]>);

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

    fn changes(&self) -> impl Iterator<Item = Change<'_>> + Clone {
        self.0.iter().map(|operation| {
            let Operation { tree, key, value } = operation;
            (*tree, key.as_slice(), value.as_deref())
        })
    }

    fn check_sizes(&self) -> Result<(), Error> {
        let fit = self.changes().all(|(_, key, value)| fits(key, value));
        if fit { Ok(()) } else { Err(Error::TooLarge) }
    }

    fn size(&self) -> usize {
        self.0
            .iter()
            .map(|operation| operation.key.len() + operation.value.as_ref().map_or(0, Vec::len))
            .sum()
    }
}

/// Whether a store takes it.
fn fits(key: &[u8], value: Option<&[u8]>) -> bool {
    key.len() <= MAX_KEY && value.is_none_or(|value| value.len() <= MAX_VALUE)
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
    /// The store's parts have not seen the same commits, and none has all that was seen.
    #[error(
        "the store is behind: commit {newest} was made, {found} is what is there ({behind}); rebuild \
         it from a backup (fsck --rebuild-from), or accept the loss (--accept-rollback)"
    )]
    RolledBack {
        /// The newest commit that any part has seen.
        newest: u64,
        /// The newest one that can be opened.
        found: u64,
        /// Which parts are behind, and by how much.
        behind: String,
    },
    /// The disk has little room left, and writes are refused before it has none.
    #[error(
        "the disk is nearly full: {free} bytes are free and {reserve} are kept back; make room, and \
         writes go on without a restart"
    )]
    Full {
        /// What is free, in bytes.
        free: u64,
        /// What is not given to writes, in bytes.
        reserve: u64,
    },
    /// A newer version of this program wrote the store.
    #[error(
        "the store has version {found}, and this program knows up to {supported}; use a newer one"
    )]
    TooNew {
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },
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
        /// The process, where the system tells.
        holder: Option<u32>,
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
    /// A large batch would change a key again.
    #[error("a large batch changes each key once; leave out the changes that others replace")]
    Repeated,
    /// A key, a value or a batch over the limit.
    #[error("a key has at most {MAX_KEY} bytes, a value at most {MAX_VALUE} and a batch 1 GiB")]
    TooLarge,
    /// A write of a large batch to its file failed.
    #[error("the batch was not written whole, and nothing of it is applied; make it again")]
    Unwritten,
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::AlreadyInitialised { .. }
            | Self::Exposed { .. }
            | Self::NotEmpty { .. }
            | Self::NotInitialised { .. } => ErrorCode::InvalidArgument,
            Self::Damaged { .. } | Self::RolledBack { .. } | Self::TooNew { .. } => {
                ErrorCode::IntegrityError
            }
            Self::Full { .. } => ErrorCode::StorageFull,
            Self::InUse { .. } => ErrorCode::InUse,
            Self::Durability
            | Self::Engine(_)
            | Self::Io { .. }
            | Self::NotRewritten { .. }
            | Self::ReadOnly
            | Self::Repeated
            | Self::TooLarge
            | Self::Unwritten => ErrorCode::InternalError,
        }
    }

    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { action: action.into(), source }
    }
}
