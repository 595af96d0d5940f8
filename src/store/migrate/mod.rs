//! From a store of an older version to one of this version.
//!
//! ```text
//! pairs ──► exports/store-N.pairs            N is the version that was found; once, before the first step
//! pairs ──step N+1──► changes ──one commit──► the number N+1 in its manifest
//! pairs ──step N+2──► changes ──one commit──► ...
//! ```
//!
//! A step moves sealed bytes and has no key that opens them. Cut off, a step did not happen or it
//! did, because the number of the version is in the manifest, and so in the same commit. What lies in
//! `migrations/` says what each version looks like, and how to add one.
//!
//! Protects against: a step that is cut off; one that is wrong, as long as the export is there. Does
//! not protect against: an older program on a newer store, which refuses it; that takes a backup.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::directory::{put_in_place, sync_directory};
use super::erase::{erase_directory, erase_file, exchange};
use super::integrity::STORE_VERSION;
use super::pairs::PairsWriter;
use super::{Batch, Error, Pair, Tree};

/// The version of a store without a manifest.
pub(super) const INITIAL: u32 = 1;
/// The first version with a manifest, which its adoption makes of the initial one.
pub(super) const ADOPTED: u32 = 2;

/// How a version is made of the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Migration {
    /// The version that it makes.
    pub(super) to: u32,
    /// With the number, the name of its directory in `migrations/store`.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests look for the directory"))]
    pub(super) name: &'static str,
    pub(super) step: Step,
}

/// What is done to the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The pairs stay. What is new lies beside them, and `SledStore::adopt` makes it.
    Adoption,
    /// One commit with the changes that this makes of all pairs, in the order of trees and keys. The
    /// changes are in memory, the pairs need not be.
    #[cfg_attr(not(test), expect(dead_code, reason = "no version after the second yet"))]
    Changes(fn(&mut Pairs<'_>) -> Result<Batch, Error>),
}

/// Every pair of a store, each once.
pub(super) type Pairs<'a> = dyn Iterator<Item = Result<(Tree, Pair), Error>> + 'a;

/// Every version but the initial one.
pub(super) const MIGRATIONS: &[Migration] =
    &[Migration { to: ADOPTED, name: "journal", step: Step::Adoption }];

const _: () = assert!(MIGRATIONS[MIGRATIONS.len() - 1].to == STORE_VERSION);

/// A store with a version, which nobody else uses yet.
pub(super) trait Versioned {
    fn version(&self) -> u32;

    fn pairs(&self) -> Box<Pairs<'_>>;

    /// The manifest of the pairs, as it is stored.
    fn manifest(&self) -> Result<Vec<u8>, Error>;

    /// Makes the changes of `batch`, and `version` the store's version, in one commit.
    fn commit(&mut self, batch: &Batch, version: u32) -> Result<(), Error>;
}

/// Brings `store` to the last version of `migrations`, and writes an export of it to the directory
/// `exports` before. Nothing is done to a store that has it, or a newer one.
///
/// # Errors
///
/// Those of the store, and of a step. The steps before it are done.
pub(super) fn run(
    store: &mut impl Versioned,
    exports: &Path,
    migrations: &[Migration],
) -> Result<(), Error> {
    let found = store.version();
    let mut exported = false;
    for migration in migrations.iter().filter(|migration| migration.to > found) {
        if !exported {
            export(exports, found, &mut store.pairs(), &store.manifest()?)?;
            exported = true;
        }
        let batch = match migration.step {
            // A store with a manifest has been adopted.
            Step::Adoption => Batch::default(),
            Step::Changes(changes) => changes(&mut store.pairs())?,
        };
        batch.check_sizes()?;
        store.commit(&batch, migration.to)?;
        tracing::info!(version = migration.to, "the store was brought to another version");
    }
    Ok(())
}

/// Writes `pairs` and the manifest that they have, or nothing, to `store-VERSION.pairs` in the
/// directory `exports`, which is made if need be. It is there as a whole or not at all; one that was
/// there is replaced and overwritten.
pub(super) fn export(
    exports: &Path,
    version: u32,
    pairs: &mut Pairs<'_>,
    manifest: &[u8],
) -> Result<(), Error> {
    let path = exports.join(format!("store-{version}.pairs"));
    let failed = |error| Error::io(format!("write {}", path.display()))(error);
    match DirBuilder::new().mode(0o700).create(exports) {
        Ok(()) => exports.parent().map_or(Ok(()), sync_directory)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let new = path.with_extension("pairs.new");
    let mut writer = begin(&new).map_err(failed)?;
    for pair in pairs {
        let (tree, (key, value)) = pair?;
        writer.put(tree, &key, &value).map_err(failed)?;
    }
    let end = |writer: PairsWriter<BufWriter<File>>| -> io::Result<()> {
        let mut writer = writer.finish(manifest)?;
        writer.flush()?;
        writer.get_ref().sync_all()?;
        put_in_place(&new, &path, exchange)
    };
    end(writer).map_err(failed)
}

fn begin(path: &Path) -> io::Result<PairsWriter<BufWriter<File>>> {
    erase_file(path)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    PairsWriter::new(BufWriter::new(file))
}

/// Erases every export: they hold what was removed since.
pub(super) fn erase_exports(exports: &Path) -> Result<(), Error> {
    let erased = erase_directory(exports);
    if erased.map_err(Error::io(format!("erase {}", exports.display())))? {
        exports.parent().map_or(Ok(()), sync_directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
