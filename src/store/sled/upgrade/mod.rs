//! A store that was just opened, as its migrations see it.

use super::super::integrity::{IntegrityKey, Manifest, State};
use super::super::migrate::{self, Migration, Pairs, Versioned};
use super::super::{Batch, DataDir, Error};
use super::engine::damaged;
use super::recovery::{Recovered, is_authentic};

/// Brings the store in `directory` to the last version of `migrations`.
pub(super) fn run(
    recovered: &mut Recovered,
    key: &IntegrityKey,
    directory: &DataDir,
    migrations: &[Migration],
) -> Result<(), Error> {
    let is_due = migrations.iter().any(|it| it.to > recovered.manifest.store_version);
    if is_due && !recovered.is_checked {
        // Nothing is made of pairs that may have been altered.
        if !is_authentic(key, &recovered.engine, &recovered.manifest) {
            let reason = "its pairs are not what was written".to_owned();
            return Err(damaged(&directory.store_path(), reason));
        }
        recovered.is_checked = true;
    }
    migrate::run(&mut Upgrade { recovered, key }, &directory.exports_path(), migrations)
}

struct Upgrade<'a> {
    recovered: &'a mut Recovered,
    key: &'a IntegrityKey,
}

impl Versioned for Upgrade<'_> {
    fn version(&self) -> u32 {
        self.recovered.manifest.store_version
    }

    fn pairs(&self) -> Box<Pairs<'_>> {
        Box::new(self.recovered.engine.pairs())
    }

    fn manifest(&self) -> Result<Vec<u8>, Error> {
        self.recovered.manifest.encode(self.key)
    }

    /// As the committer does it, but at once on the disk, and also if nothing but the version
    /// changes.
    fn commit(&mut self, batch: &Batch, version: u32) -> Result<(), Error> {
        let Recovered { engine, journal, anchor, manifest, .. } = &mut *self.recovered;
        let state = State { number: manifest.state.number + 1, ..manifest.state };
        let (differences, state) = engine.compare(self.key, state, batch.changes())?;
        let changes = differences.iter().map(|difference| difference.change);
        let next: Manifest = journal.append(changes, &state, version)?;
        anchor.write(&next.position())?;
        engine.write_commit(self.key, manifest, &differences, &next)?;
        engine.flush()?;
        *manifest = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
