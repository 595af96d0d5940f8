//! Room on the disk, met before the engine meets its end.
//!
//! ```text
//! | used | free ........................... | reserve | ballast |
//!          writes                             reads,     given back when an opening
//!                                             the audit  or a small file needs it
//!                                             log
//! ```
//!
//! `sled` cannot open on a full disk, and takes no writes after one that failed for want of room.
//! So writes are refused while there is still some, and a file of real blocks is kept to be given
//! up when others have filled the disk.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::Error;

/// What is kept back, unless the disk is small.
const RESERVE: u64 = 128 << 20;
/// A batch is written to the journal, and to the engine with what it moves on the way.
const AMPLIFICATION: u64 = 4;
const MIN_FILES: u64 = 16;

/// The room on the disk of a data directory.
#[derive(Debug)]
pub(super) struct Space {
    directory: PathBuf,
    ballast: u64,
    /// Not on a file system without preallocation.
    can_have_ballast: bool,
}

impl Space {
    const BALLAST: &str = "ballast";

    /// Of the disk of `directory`, with a ballast of at most so many bytes.
    pub(super) fn new(directory: &Path, ballast: u64) -> Self {
        Self { directory: directory.to_owned(), ballast, can_have_ballast: ballast > 0 }
    }

    /// Whether a batch of so many bytes may be written. Costs two system calls. A ballast that
    /// was given up is made again once there is room.
    ///
    /// # Errors
    ///
    /// [`Error::Full`].
    pub(super) fn admit(&mut self, bytes: u64) -> Result<(), Error> {
        self.check(bytes.saturating_mul(AMPLIFICATION))?;
        self.take_ballast()
    }

    /// Whether there is room for so many bytes beside the reserve.
    ///
    /// # Errors
    ///
    /// [`Error::Full`].
    pub(super) fn check(&self, bytes: u64) -> Result<(), Error> {
        let disk = self.disk()?;
        let reserve = disk.reserve().saturating_add(bytes);
        if disk.free < reserve || disk.is_out_of_files {
            return Err(Error::Full { free: disk.free, reserve });
        }
        Ok(())
    }

    /// Gives up the ballast if there is too little room to open a store.
    pub(super) fn make_room(&self) -> Result<(), Error> {
        if self.disk()?.is_short() { release(&self.directory) } else { Ok(()) }
    }

    /// Makes the ballast, if there is room for it beside the reserve.
    pub(super) fn take_ballast(&mut self) -> Result<(), Error> {
        let path = self.directory.join(Self::BALLAST);
        if !self.can_have_ballast || path.exists() {
            return Ok(());
        }
        let disk = self.disk()?;
        let size = self.ballast.min(disk.total / 16);
        if disk.free < disk.reserve() * 2 + size {
            return Ok(());
        }
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let made =
            made.and_then(|file: File| Ok(fallocate(&file, FallocateFlags::empty(), 0, size)?));
        self.can_have_ballast = made.is_ok();
        if made.is_err() { release(&self.directory) } else { Ok(()) }
    }

    fn disk(&self) -> Result<Disk, Error> {
        let action = || format!("see how much room {} has", self.directory.display());
        let disk = statvfs(&self.directory).map_err(|error| Error::io(action())(error.into()))?;
        Ok(Disk {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            total: disk.f_blocks.saturating_mul(disk.f_frsize),
            // Some file systems do not count files.
            is_out_of_files: disk.f_files != 0 && disk.f_favail < MIN_FILES,
        })
    }
}

/// Gives up the ballast of `directory`; true if there was one.
pub(super) fn release(directory: &Path) -> Result<(), Error> {
    match fs::remove_file(directory.join(Space::BALLAST)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove the ballast")(error))
        }
        _ => Ok(()),
    }
}

struct Disk {
    free: u64,
    total: u64,
    is_out_of_files: bool,
}

impl Disk {
    fn reserve(&self) -> u64 {
        RESERVE.min(self.total / 8)
    }

    fn is_short(&self) -> bool {
        self.free < self.reserve() / 2
    }
}
