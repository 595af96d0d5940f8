//! What was removed or replaced goes from the journal, while others append to it.
//!
//! ```text
//! commits   ... n    n+1 ...
//! begin     former   new segment            appended to from here on
//! write     former   the same      base.new  the pairs as of n, as long as it takes
//! put       base     the same
//! erase     base     the same               zeros over what was former, removed
//! ```
//!
//! Only `begin` and `put` need the journal, and take as long as a new segment and a renaming.

use std::fs::File;
use std::path::PathBuf;

use super::super::directory::rename_over;
use super::super::erase::{exchange, overwrite};
use super::super::integrity::{IntegrityKey, Manifest};
use super::super::{Error, Pair, Tree};
use super::{BaseFile, Journal, Origin, base, erase, erase_former};

/// A base that is yet to be written and put in place.
#[derive(Debug)]
pub(in crate::store) struct NewBase {
    directory: PathBuf,
    key: IntegrityKey,
    /// The commit that it is to be the state of.
    start: Manifest,
    length: u64,
}

/// What a base that is in place supersedes. It is no part of the journal any more.
#[derive(Debug)]
pub(in crate::store) struct Former {
    directory: PathBuf,
    /// The base's commit.
    number: u64,
    /// The base before it, if that has no name any more.
    nameless: Option<File>,
}

impl Journal {
    /// Begins to destroy what was removed or replaced up to now: what is appended from here on does
    /// not belong to it.
    pub(in crate::store) fn begin_rewriting(&mut self) -> Result<NewBase, Error> {
        if self.has_failed {
            return Err(Error::ReadOnly);
        }
        let start = self.newest;
        // One without a frame is behind it already.
        if self.segments.last().is_none_or(|segment| segment.first <= start.state.number) {
            let begun = self.begin_segment();
            self.has_failed = begun.is_err();
            begun?;
        }
        let (directory, key) = (self.directory.clone(), self.key.clone());
        Ok(NewBase { directory, key, start, length: 0 })
    }

    /// Puts what [`NewBase::write`] wrote in the place of everything up to its commit.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], after which the journal takes nothing more.
    pub(in crate::store) fn put_base(&mut self, new: &NewBase) -> Result<Former, Error> {
        if self.has_failed {
            return Err(Error::ReadOnly);
        }
        let number = new.start.state.number;
        let mut former = Former { directory: new.directory.clone(), number, nameless: None };
        // Else a backup has what is before a later segment, and with a base there would be a gap.
        if self.segments.iter().any(|segment| segment.first == number.saturating_add(1)) {
            let path = self.directory.join(base::NAME);
            let replaced = rename_over(&self.directory.join(base::NEW_NAME), &path, exchange);
            self.has_failed = replaced.is_err();
            former.nameless = replaced.map_err(Error::io(format!("replace {}", path.display())))?;
            self.segments.retain(|segment| segment.first > number);
            self.origin = Origin::Base(BaseFile { number, length: new.length });
        }
        Ok(former)
    }
}

impl NewBase {
    /// Writes the base beside the journal, durably: `pairs` are all that there were after the commit
    /// at which the rewriting began, each once.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when `pairs` are other pairs; errors of `pairs`; [`Error::Io`].
    pub(in crate::store) fn write(
        &mut self,
        pairs: impl IntoIterator<Item = Result<(Tree, Pair), Error>>,
    ) -> Result<(), Error> {
        self.length = base::write_new(&self.directory, &self.key, &self.start, pairs)?;
        Ok(())
    }
}

impl Former {
    /// Overwrites and removes it.
    pub(in crate::store) fn erase(self) -> Result<(), Error> {
        let base = self.directory.join(base::NEW_NAME);
        if let Some(mut file) = self.nameless {
            let action = format!("erase the base before that in {}", self.directory.display());
            overwrite(&mut file).map_err(Error::io(action))?;
        }
        erase(&base)?;
        erase_former(&self.directory, self.number)
    }
}
