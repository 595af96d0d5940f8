//! A store copied into a fresh directory, so that nothing that was removed is left.
//!
//! ```text
//! who asked                                 committer, between commits
//! walk over the store -> copy in store.new  notes what changes behind the walk
//! close, open, compare with what was walked
//! catch up with what changed
//! exchange -------------------------------> the last changes, manifest, close, names exchanged, open;
//!                                           the journal begins a new segment
//! the former engine, which nobody changes any more -> base.new
//! put ------------------------------------> base.new becomes the journal's base
//! erase the former engine, base and segments
//! ```
//!
//! `sled` appends and reuses: a removed value stays in its file until chance overwrites it. The work
//! is done in the thread that asked, so that reads, commits and walks go on; the last two wait for
//! 512 pairs at most, and once for the exchange. Until that, a failure leaves the store as it was;
//! after it, the store takes no more writes until it is opened again. What a process that ends in
//! between leaves is erased by the next opening. Nothing is erased before engine and journal are
//! complete each by itself. What is removed after the beginning may be in the copy, and is erased by
//! the rewriting that whoever removed it asks for.

mod places;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::super::integrity::{IntegrityKey, Manifest, State};
use super::super::journal::NewBase;
use super::super::space::Space;
use super::super::{Change, Changed, Error, Walk, migrate};
use super::engine::{Engine, PANICKED, damaged};
use super::walk::{STEP, SledWalk};
use super::{Command, Shared, told};
use places::COPY_CACHE_BYTES;
pub(super) use places::Places;

/// Rewrites a store, time and again.
#[derive(Debug)]
pub(super) struct Rewriter {
    pub(super) store: PathBuf,
    pub(super) exports: PathBuf,
    pub(super) key: IntegrityKey,
    pub(super) space: Space,
}

/// An engine that is to take the place of the store's, and what is in it.
pub(super) struct Copy {
    engine: Engine,
    state: State,
    /// Of all keys and values that were written to it.
    bytes: u64,
}

/// What the store was until the exchange.
pub(super) struct Exchanged {
    pub(super) former: Engine,
    pub(super) path: PathBuf,
    pub(super) base: NewBase,
}

impl Rewriter {
    /// Makes the store that `walk` has begun to pass anew. Between its steps it does `between`.
    ///
    /// # Errors
    ///
    /// [`Error::NotRewritten`]: the store is as it was. After any other it takes no writes.
    pub(super) fn rewrite(
        &self,
        shared: &Shared,
        mut walk: SledWalk,
        between: &mut dyn FnMut(),
    ) -> Result<(), Error> {
        let places = Places::of(&self.store);
        let copied = catch_unwind(AssertUnwindSafe(|| self.copy(&places, &mut walk, between)));
        let copied = copied.unwrap_or_else(|_| Err(damaged(&self.store, PANICKED.to_owned())));
        let exchanged = copied.map_err(|error| not_rewritten(&error)).and_then(|copy| {
            walk.ask(|id, done| Command::Exchange { id, copy: Box::new(copy), done })
        });
        match exchanged {
            Ok(exchanged) => self
                .finish(&places, &walk, exchanged, between)
                .inspect_err(|error| shared.fail(error)),
            Err(error) => {
                if matches!(error, Error::NotRewritten { .. }) {
                    // What cannot be cleared now is cleared by the next rewriting or opening.
                    drop(places.clear());
                }
                Err(error)
            }
        }
    }

    /// Copies what `walk` meets to `store.new`, and proves what is on the disk equal to it.
    fn copy(
        &self,
        places: &Places<'_>,
        walk: &mut SledWalk,
        between: &mut dyn FnMut(),
    ) -> Result<Copy, Error> {
        let mut copy = Copy { engine: places.new_engine()?, state: State::default(), bytes: 0 };
        loop {
            between();
            let pairs = walk.next()?;
            if pairs.is_empty() {
                break;
            }
            let changes =
                pairs.iter().map(|(tree, (name, value))| (*tree, &**name, Some(&**value)));
            copy.make(&self.key, &self.space, changes)?;
        }
        self.catch_up(&mut copy, walk, between)?;
        // Read back from the files: soon there is no other copy.
        copy.engine.flush()?;
        copy.engine.close(&places.new)?;
        copy.engine = Engine::open(&places.new, COPY_CACHE_BYTES)?;
        let read = copy.engine.state(&self.key, 0)?;
        if !read.has_pairs_of(&copy.state) {
            return Err(damaged(&places.new, "the copy is not equal".to_owned()));
        }
        self.catch_up(&mut copy, walk, between)?;
        copy.engine.flush()?;
        // For the base.
        self.space.check(copy.bytes)?;
        Ok(copy)
    }

    /// Makes in `copy` what changed behind `walk`, until there is little left.
    fn catch_up(
        &self,
        copy: &mut Copy,
        walk: &SledWalk,
        between: &mut dyn FnMut(),
    ) -> Result<(), Error> {
        loop {
            between();
            let changes = walk.ask(|id, done| Command::WalkChanges { id, done })?;
            copy.make(&self.key, &self.space, changes.iter().map(change))?;
            if changes.len() < STEP {
                return Ok(());
            }
        }
    }

    /// Makes the journal complete without what was before the exchange, and erases that.
    fn finish(
        &self,
        places: &Places<'_>,
        walk: &SledWalk,
        Exchanged { former, path, mut base }: Exchanged,
        between: &mut dyn FnMut(),
    ) -> Result<(), Error> {
        base.write(former.pairs().enumerate().map(|(at, pair)| {
            if at % STEP == 0 {
                between();
            }
            pair
        }))?;
        between();
        let superseded = walk.ask(|_, done| Command::PutBase { base, done })?;
        between();
        former.close(&path)?;
        places.clear()?;
        superseded.erase()?;
        migrate::erase_exports(&self.exports)
    }
}

impl Copy {
    fn make<'a>(
        &mut self,
        key: &IntegrityKey,
        space: &Space,
        changes: impl Iterator<Item = Change<'a>> + Clone,
    ) -> Result<(), Error> {
        let bytes =
            changes.clone().map(|(_, name, value)| name.len() + value.map_or(0, <[u8]>::len));
        let bytes = bytes.sum::<usize>() as u64;
        space.check(bytes)?;
        self.bytes += bytes;
        for change in changes {
            self.state = self.engine.replace(key, self.state, change)?;
        }
        Ok(())
    }

    /// Makes the last `changes`, and closes it as what `manifest` says.
    pub(super) fn finish(
        mut self,
        places: &Places<'_>,
        key: &IntegrityKey,
        changes: &[Changed],
        manifest: &Manifest,
    ) -> Result<(), Error> {
        for changed in changes {
            self.state = self.engine.replace(key, self.state, change(changed))?;
        }
        if !self.state.has_pairs_of(&manifest.state) {
            return Err(damaged(&places.new, "the copy is not equal".to_owned()));
        }
        self.engine.write(&[], &manifest.encode(key)?)?;
        self.engine.flush()?;
        self.engine.close(&places.new)
    }
}

/// Of a failure that leaves the store as it was.
pub(super) fn not_rewritten(error: &Error) -> Error {
    let reason = if let Error::Engine(cause) = error { cause.to_string() } else { told(error) };
    Error::NotRewritten { reason }
}

fn change((tree, name, value): &Changed) -> Change<'_> {
    (*tree, name, value.as_deref())
}
