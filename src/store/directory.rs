//! The data directory: what is where, and who has it.
//!
//! ```text
//! header     key slots               lock     held by the process that has the directory
//! keyring    sealed tenant keys      audit/   the audit log
//! store/     sealed records (sled)
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Error;

/// A data directory that this process has for itself until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Locked. The lock goes with the file handle, so also with a killed process.
    _lock: File,
}

impl DataDir {
    /// The name of the header, whose presence says that the directory is initialised.
    pub const HEADER: &'static str = "header";
    /// The name of the keyring.
    pub const KEYRING: &'static str = "keyring";
    const LOCK: &'static str = "lock";

    /// Makes `path` a data directory that only its owner can enter. Its parent must exist.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyInitialised`], [`Error::NotEmpty`], [`Error::InUse`], [`Error::Io`].
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let shown = path.display().to_string();
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {
                if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) {
                    sync_directory(parent)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if path.join(Self::HEADER).exists() {
                    return Err(Error::AlreadyInitialised { path: shown });
                }
                let entries = fs::read_dir(&path).map_err(Error::io(format!("read {shown}")))?;
                for entry in entries {
                    let entry = entry.map_err(Error::io(format!("read {shown}")))?;
                    // What a creation leaves that ended before anything was made.
                    if entry.file_name() != Self::LOCK {
                        return Err(Error::NotEmpty { path: shown });
                    }
                }
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
                    .map_err(Error::io(format!("set the mode of {shown}")))?;
            }
            Err(source) => return Err(Error::Io { action: format!("create {shown}"), source }),
        }
        Self::lock(path)
    }

    /// Takes hold of the initialised data directory at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::NotInitialised`], [`Error::Exposed`], [`Error::InUse`], [`Error::Io`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        match path.join(Self::HEADER).try_exists() {
            Ok(true) => {
                let metadata = fs::metadata(&path);
                let metadata = metadata.map_err(Error::io(format!("read {}", path.display())))?;
                if metadata.permissions().mode() & 0o077 != 0 {
                    return Err(Error::Exposed { path: path.display().to_string() });
                }
                Self::lock(path)
            }
            Ok(false) => Err(Error::NotInitialised { path: path.display().to_string() }),
            Err(source) => Err(Error::Io { action: format!("read {}", path.display()), source }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The engine's directory.
    pub fn store_path(&self) -> PathBuf {
        self.path.join("store")
    }

    /// The file with the key slots.
    pub fn header_path(&self) -> PathBuf {
        self.path.join(Self::HEADER)
    }

    /// The directory of the audit log.
    pub fn audit_path(&self) -> PathBuf {
        self.path.join("audit")
    }

    /// The content of file `name`, unless there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when there are more than `limit` bytes; [`Error::Io`].
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path.join(name);
        let action = || format!("read {}", path.display());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { action: action(), source }),
        };
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io(action()))?;
        if bytes.len() as u64 > limit {
            let reason = format!("{name} is larger than it can be");
            return Err(Error::Damaged { path: self.path.display().to_string(), reason });
        }
        Ok(Some(bytes))
    }

    /// Replaces file `name` by `bytes`: after a crash there is the old content or the new one, and
    /// once this returns, the new one.
    pub fn write_atomically(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path.join(name);
        let temporary = self.path.join(format!("{name}.new"));
        let write = || -> io::Result<()> {
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(Error::io(format!("write {}", path.display())))?;
        sync_directory(&self.path)
    }

    fn lock(path: PathBuf) -> Result<Self, Error> {
        let file = path.join(Self::LOCK);
        let action = || format!("lock {}", file.display());
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(&file);
        let lock = lock.map_err(Error::io(action()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { path: path.display().to_string() }),
            Err(TryLockError::Error(source)) => Err(Error::Io { action: action(), source }),
        }
    }
}

/// Makes the names in the directory at `path` durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io(format!("sync {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_can_enter_and_read() {
        let parent = tempfile::tempdir().unwrap();
        let directory = DataDir::create(parent.path().join("data")).unwrap();
        directory.write_atomically("header", b"one").unwrap();
        directory.write_atomically("header", b"two").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(directory.path()), 0o700);
        assert_eq!(mode(&directory.header_path()), 0o600);
        assert_eq!(directory.read("header", 3).unwrap().unwrap(), b"two");
        assert_eq!(directory.read("none", 3).unwrap(), None);
        assert!(matches!(directory.read("header", 2), Err(Error::Damaged { .. })));
    }

    #[test]
    fn a_directory_is_initialised_once_and_opened_when_it_is() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        assert!(matches!(DataDir::open(&path), Err(Error::NotInitialised { .. })));
        let directory = DataDir::create(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(Error::NotInitialised { .. })));
        directory.write_atomically(DataDir::HEADER, b"header").unwrap();
        drop(directory);
        assert!(matches!(DataDir::create(&path), Err(Error::AlreadyInitialised { .. })));
        DataDir::open(&path).unwrap();

        let foreign = tempfile::tempdir().unwrap();
        fs::write(foreign.path().join("letter.txt"), "hello").unwrap();
        assert!(matches!(DataDir::create(foreign.path()), Err(Error::NotEmpty { .. })));
        let empty = tempfile::tempdir().unwrap();
        DataDir::create(empty.path()).unwrap();
    }

    #[test]
    fn a_directory_in_use_is_refused_until_it_is_let_go() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let first = DataDir::create(&path).unwrap();
        first.write_atomically(DataDir::HEADER, b"header").unwrap();
        let refused = DataDir::open(&path).unwrap_err();
        assert!(refused.to_string().contains("in use by another process"), "{refused}");
        drop(first);
        DataDir::open(&path).unwrap();
    }
}
