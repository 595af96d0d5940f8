//! A private place for copies that are worked on and thrown away.
//!
//! The engine writes where it is opened: what must stay as it is is looked at in a copy. The place
//! is beside the data directory, so on a disk that is meant for such data, and is erased when it is
//! let go, or by the next one if the process was killed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::erase::erase_directory;
use super::{DataDir, Error};

/// Says that a directory is one of these, and may be erased.
const MARK: &str = "tenantry-scratch";
/// An engine that was closed a moment ago may still write a file.
const ERASE_ATTEMPTS: u32 = 100;
const ERASE_PAUSE: Duration = Duration::from_millis(10);

/// A directory that only its owner can enter. Dropping it erases what is in it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes `NAME.fsck` beside the data directory NAME, or in `parent`. One that a killed process
    /// left is erased first: who has `directory` is the only one to use it.
    ///
    /// # Errors
    ///
    /// [`Error::NotEmpty`] when there is something of that name that is not ours; [`Error::Io`].
    pub fn create(directory: &DataDir, parent: Option<&Path>) -> Result<Self, Error> {
        let shown = directory.path().display().to_string();
        let beside =
            fs::canonicalize(directory.path()).map_err(Error::io(format!("find {shown}")))?;
        let mut name = beside.file_name().unwrap_or("data".as_ref()).to_owned();
        name.push(".fsck");
        let path = match parent {
            Some(parent) => parent.join(name),
            None => beside.with_file_name(name),
        };
        let action = || format!("make the scratch directory {}", path.display());
        match fs::symlink_metadata(&path) {
            Ok(_) if path.join(MARK).is_file() => {
                erase_directory(&path).map_err(Error::io(action()))?;
            }
            Ok(_) => return Err(Error::NotEmpty { path: path.display().to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Io { action: action(), source }),
        }
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::io(action()))?;
        File::create(path.join(MARK)).map_err(Error::io(action()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the engine's copy is, or would be.
    pub fn store_path(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Copies the engine's files of `directory`, and says whether there are any.
    pub fn copy_store(&self, directory: &DataDir) -> Result<bool, Error> {
        let (from, to) = (directory.store_path(), self.store_path());
        if !from.is_dir() {
            return Ok(false);
        }
        let action = format!("copy {} to {}", from.display(), to.display());
        copy_directory(&from, &to).map_err(Error::io(action))?;
        Ok(true)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for _ in 1..ERASE_ATTEMPTS {
            if erase_directory(&self.path).is_ok() {
                return;
            }
            thread::sleep(ERASE_PAUSE);
        }
        if let Err(error) = erase_directory(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a scratch directory stays; remove it");
        }
    }
}

/// Copies regular files and directories; links, of which the engine makes none, are left out.
fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_directory(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn data_directory(parent: &Path) -> DataDir {
        let directory = DataDir::create(parent.join("data")).unwrap();
        fs::create_dir_all(directory.store_path().join("blobs")).unwrap();
        fs::write(directory.store_path().join("db"), b"pages").unwrap();
        fs::write(directory.store_path().join("blobs/1"), b"blob").unwrap();
        directory
    }

    #[test]
    fn a_copy_is_private_beside_the_original_and_erased_at_the_end() {
        let parent = tempfile::tempdir().unwrap();
        let directory = data_directory(parent.path());
        let scratch = Scratch::create(&directory, None).unwrap();
        assert_eq!(scratch.path(), parent.path().canonicalize().unwrap().join("data.fsck"));
        assert_eq!(scratch.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(scratch.copy_store(&directory).unwrap());
        assert_eq!(fs::read(scratch.store_path().join("blobs/1")).unwrap(), b"blob");
        let link = parent.path().join("link");
        fs::hard_link(scratch.store_path().join("db"), &link).unwrap();
        drop(scratch);
        assert_eq!(fs::read(&link).unwrap(), [0; 5]);
        assert!(!parent.path().join("data.fsck").exists());
        assert_eq!(fs::read(directory.store_path().join("db")).unwrap(), b"pages");
    }

    #[test]
    fn what_a_killed_process_left_is_erased_and_what_is_not_ours_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let directory = data_directory(parent.path());
        let left = parent.path().join("data.fsck");
        fs::create_dir(&left).unwrap();
        fs::write(left.join(MARK), b"").unwrap();
        fs::write(left.join("db"), b"of before").unwrap();
        drop(Scratch::create(&directory, None).unwrap());
        fs::create_dir(&left).unwrap();
        fs::write(left.join("letter.txt"), b"hello").unwrap();
        assert!(matches!(Scratch::create(&directory, None), Err(Error::NotEmpty { .. })));
        assert!(left.join("letter.txt").exists());
        let elsewhere = tempfile::tempdir().unwrap();
        Scratch::create(&directory, Some(elsewhere.path())).unwrap();
    }

    #[test]
    fn a_directory_without_an_engine_has_none_to_copy() {
        let parent = tempfile::tempdir().unwrap();
        let directory = DataDir::create(parent.path().join("data")).unwrap();
        let scratch = Scratch::create(&directory, None).unwrap();
        assert!(!scratch.copy_store(&directory).unwrap());
    }
}
