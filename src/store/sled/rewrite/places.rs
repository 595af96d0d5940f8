//! The names that the store's directory has while another takes its place.
//!
//! ```text
//!                 store   store.new  store.old      a crash here leaves, and the next opening
//! copy            live    part       -              erases store.new
//! verify, close   live    whole      -              erases store.new
//! exchange        whole   former     -              erases store.new
//! erase           whole   zeros      -              erases store.new
//!
//! and where names cannot be exchanged in one step:
//! first rename    -       whole      live           renames store.old back, erases store.new
//! second rename   whole   -          former         erases store.old
//! erase           whole   -          zeros          erases store.old
//! ```
//!
//! Each step is on the disk before the next begins. Nothing is erased before a complete store is
//! open.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::super::super::Error;
use super::super::super::directory::sync_directory;
use super::super::super::erase::erase_directory;
use super::super::CACHE_BYTES;
use super::super::engine::Engine;

/// The copy is written once and read once, in order: a small cache serves.
pub(super) const COPY_CACHE_BYTES: u64 = 4 << 20;

/// The names that the store's directory has for a while.
pub(in super::super) struct Places<'a> {
    store: &'a Path,
    pub(super) new: PathBuf,
    pub(super) old: PathBuf,
}

impl<'a> Places<'a> {
    pub(in super::super) fn of(store: &'a Path) -> Self {
        let beside = |ending: &str| {
            let mut name = OsString::from(store);
            name.push(ending);
            PathBuf::from(name)
        };
        Self { store, new: beside(".new"), old: beside(".old") }
    }

    /// Makes good for a crash between the two renames. To be called before the store is opened.
    pub(in super::super) fn repair(&self) -> Result<(), Error> {
        if !self.store.exists() && self.old.is_dir() {
            rename(&self.old, self.store)?;
            self.sync()?;
        }
        Ok(())
    }

    /// Erases what a crash left. To be called once the store is open, and so known to be whole.
    pub(in super::super) fn clear(&self) -> Result<(), Error> {
        let mut any = false;
        for path in [&self.new, &self.old] {
            any |= erase_directory(path).map_err(Error::io(format!("erase {}", path.display())))?;
        }
        if any { self.sync() } else { Ok(()) }
    }

    /// An empty engine beside the store's.
    pub(in super::super) fn new_engine(&self) -> Result<Engine, Error> {
        self.clear()?;
        let create = DirBuilder::new().mode(0o700).create(&self.new);
        create.map_err(Error::io(format!("create {}", self.new.display())))?;
        Engine::create(&self.new, COPY_CACHE_BYTES, 0)
    }

    /// Puts an engine that was made with [`Self::new_engine`] in the place of the store's, which is
    /// closed or missing and erased.
    pub(in super::super) fn install(
        &self,
        engine: Engine,
        exchange: impl FnOnce(&Path, &Path) -> io::Result<bool>,
    ) -> Result<Engine, Error> {
        engine.flush()?;
        engine.close(&self.new)?;
        if self.store.exists() {
            self.swap(exchange)?;
        } else {
            rename(&self.new, self.store)?;
            self.sync()?;
        }
        Engine::open(self.store, CACHE_BYTES)
    }

    /// Gives the copy the store's name, with `exchange` if that can. The directory of the store
    /// that was is returned. After an error it is uncertain which of the two has the name.
    pub(in super::super) fn swap(
        &self,
        exchange: impl FnOnce(&Path, &Path) -> io::Result<bool>,
    ) -> Result<&Path, Error> {
        let action = || format!("exchange {} and {}", self.new.display(), self.store.display());
        let exchanged = exchange(&self.new, self.store).map_err(Error::io(action()))?;
        if !exchanged {
            rename(self.store, &self.old)?;
            self.sync()?;
            rename(&self.new, self.store)?;
        }
        self.sync()?;
        Ok(if exchanged { &self.new } else { &self.old })
    }

    fn sync(&self) -> Result<(), Error> {
        self.store.parent().map_or(Ok(()), sync_directory)
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(Error::io(format!(
        "rename {} to {}",
        from.display(),
        to.display()
    )))
}
