//! The data directory: what is where, and who has it.
//!
//! ```text
//! header     key slots                   lock            held by whoever has the directory
//! keyring    sealed tenant keys          audit/          the audit log
//! store/     sealed records (sled)       certificates/   of deletions, one file each
//! attempts   failed attempts to unseal
//!
//! NAME.new, store.new, store.old: of a write that was cut off; erased at the next opening
//! ```
//!
//! A replaced file is overwritten before it is let go; `erase.rs` says what that is worth.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Error;
use super::LargeBatch;
use super::erase::{erase_directory, erase_file, exchange, overwrite};
use super::large;
use super::space;

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
    /// The name of the count of failed attempts to unseal.
    pub const ATTEMPTS: &'static str = "attempts";
    const LOCK: &'static str = "lock";
    /// Says that there is nothing yet that anybody would miss: it is there until the header is.
    const UNFINISHED: &'static str = "unfinished";
    const UNFINISHED_NEW: &'static str = "unfinished.new";

    /// Makes `path` a data directory that only its owner can enter. Its parent must exist. What a
    /// creation left that was interrupted is erased.
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
                let is_left_over = path.join(Self::UNFINISHED).exists();
                let entries = fs::read_dir(&path).map_err(Error::io(format!("read {shown}")))?;
                for entry in entries {
                    let entry = entry.map_err(Error::io(format!("read {shown}")))?;
                    // What a creation leaves that ended before anything was made.
                    let name = entry.file_name();
                    if name != Self::LOCK && name != Self::UNFINISHED_NEW && !is_left_over {
                        return Err(Error::NotEmpty { path: shown });
                    }
                }
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
                    .map_err(Error::io(format!("set the mode of {shown}")))?;
            }
            Err(source) => return Err(Error::Io { action: format!("create {shown}"), source }),
        }
        let directory = Self::lock(path)?;
        directory.clear()?;
        directory.write_atomically(Self::UNFINISHED, &[])?;
        Ok(directory)
    }

    /// Erases what an interrupted creation left, but for the lock and the mark that there is one.
    fn clear(&self) -> Result<(), Error> {
        let clear = || -> io::Result<()> {
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    erase_directory(&entry.path())?;
                } else if entry.file_name() != Self::LOCK && entry.file_name() != Self::UNFINISHED {
                    erase_file(&entry.path())?;
                }
            }
            Ok(())
        };
        clear().map_err(Error::io(format!("clear {}", self.path.display())))
    }

    /// Removes what is in it, without erasing, so that there is nothing but an empty directory. Cut
    /// off at any moment, it leaves what [`DataDir::create`] takes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: what is left is to be removed by the next creation.
    pub fn empty(&self) -> Result<(), Error> {
        self.empty_while(|| Ok(()))
    }

    /// The mark goes when there is nothing more that it would be needed for.
    fn empty_while(&self, mut goes_on: impl FnMut() -> io::Result<()>) -> Result<(), Error> {
        let mut empty = || -> io::Result<()> {
            let mut found = fs::read_dir(&self.path)?.collect::<io::Result<Vec<_>>>()?;
            found.sort_by_key(|entry| {
                let name = entry.file_name();
                (name == Self::LOCK, name == Self::UNFINISHED)
            });
            for entry in found {
                goes_on()?;
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                } else {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        empty().map_err(Error::io(format!("empty {}", self.path.display())))
    }

    /// Writes the first header: with it the directory is initialised.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn initialise(&self, header: &[u8]) -> Result<(), Error> {
        self.write_atomically(Self::HEADER, header)?;
        self.erase(Self::UNFINISHED)
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
                let directory = Self::lock(path)?;
                for name in [Self::HEADER, Self::KEYRING, Self::ATTEMPTS, "anchor"] {
                    directory.erase(&format!("{name}.new"))?;
                }
                directory.erase(large::NAME)?;
                directory.erase(Self::UNFINISHED)?;
                Ok(directory)
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

    /// The journal's directory.
    pub fn journal_path(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// The file that says which commit was the last.
    pub fn anchor_path(&self) -> PathBuf {
        self.path.join("anchor")
    }

    /// The directory of what was exported before a migration.
    pub fn exports_path(&self) -> PathBuf {
        self.path.join("exports")
    }

    /// The file with the key slots.
    pub fn header_path(&self) -> PathBuf {
        self.path.join(Self::HEADER)
    }

    /// The directory of the audit log.
    pub fn audit_path(&self) -> PathBuf {
        self.path.join("audit")
    }

    /// The directory of the deletion certificates.
    pub fn certificates_path(&self) -> PathBuf {
        self.path.join("certificates")
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
    /// once this returns, the new one. The old bytes are overwritten; a crash before that leaves
    /// them as `name.new`, for [`DataDir::open`] to erase.
    pub fn write_atomically(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        match replace(&self.path, name, bytes) {
            // A small file is what the ballast is for.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                space::release(&self.path)?;
                replace(&self.path, name, bytes)
            }
            result => result,
        }
    }

    /// An empty batch that waits in this directory until it is applied or dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn large_batch(&self) -> Result<LargeBatch, Error> {
        LargeBatch::new(&self.path)
    }

    /// A file in it that has no name and is gone when it is closed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn nameless_file(&self) -> Result<File, Error> {
        let action = format!("make a file in {}", self.path.display());
        large::nameless_file(&self.path).map_err(Error::io(action))
    }

    /// Whether so many bytes may be written to its disk.
    ///
    /// # Errors
    ///
    /// [`Error::Full`].
    pub fn admit(&self, bytes: u64) -> Result<(), Error> {
        space::Space::new(&self.path, 0).admit(bytes)
    }

    /// Overwrites and removes file `name`, if there is one. After a crash it may be there with its
    /// content, or with zeros.
    pub fn erase(&self, name: &str) -> Result<(), Error> {
        let path = self.path.join(name);
        if erase_file(&path).map_err(Error::io(format!("erase {}", path.display())))? {
            sync_directory(&self.path)?;
        }
        Ok(())
    }

    /// Writes the deletion certificate `NAME.txt`, for its owner to read. One of that name is
    /// replaced, as by [`DataDir::write_atomically`].
    pub fn write_certificate(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let directory = self.certificates_path();
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => sync_directory(&self.path)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => {
                return Err(Error::Io {
                    action: format!("create {}", directory.display()),
                    source,
                });
            }
        }
        replace(&directory, &format!("{name}.txt"), bytes)
    }

    fn lock(path: PathBuf) -> Result<Self, Error> {
        let file = path.join(Self::LOCK);
        let action = || format!("lock {}", file.display());
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(&file);
        let lock = lock.map_err(Error::io(action()))?;
        for _ in 0..LOCK_ATTEMPTS {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path, _lock: lock }),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(source)) => {
                    return Err(Error::Io { action: action(), source });
                }
            }
        }
        Err(Error::InUse { path: path.display().to_string(), holder: holder(&lock) })
    }
}

/// The process that has the lock of `file`, as far as the kernel says so of this file system.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, process, held, ..] = fields[..] else { return None };
        if held == place { process.parse().ok() } else { None }
    })
}

/// A program that this process is just starting has the lock of a value that was dropped, until it
/// begins: so long a lock that is taken is tried again.
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Writes `bytes` beside file `name` of `directory`, puts them in its place and erases what was
/// there.
pub(super) fn replace(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let path = directory.join(name);
    let temporary = directory.join(format!("{name}.new"));
    let prepare = || -> io::Result<()> {
        erase_file(&temporary)?;
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    prepare().map_err(Error::io(format!("write {}", path.display())))?;
    put_in_place(&temporary, &path, exchange)
        .map_err(Error::io(format!("replace {}", path.display())))?;
    sync_directory(directory)
}

/// Gives the file at `new` the name `path`, and erases the file that had it.
pub(super) fn put_in_place(
    new: &Path,
    path: &Path,
    exchange: impl FnOnce(&Path, &Path) -> io::Result<bool>,
) -> io::Result<()> {
    let nameless = rename_over(new, path, exchange)?;
    erase_file(new)?;
    nameless.map_or(Ok(()), |mut former| overwrite(&mut former))
}

/// Gives the file at `new` the name `path`, durably. The file that had it is to be erased: it is
/// called `new` then, or has no name any more and is returned.
pub(super) fn rename_over(
    new: &Path,
    path: &Path,
    exchange: impl FnOnce(&Path, &Path) -> io::Result<bool>,
) -> io::Result<Option<File>> {
    // Else a power failure could leave zeros under the file's own name.
    let sync = || path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all());
    // A link is replaced; what it leads to is not ours.
    let replaced = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    if replaced && exchange(new, path)? {
        return sync().map(|()| None);
    }
    // Held open, so that it can be overwritten once nothing leads to it. A crash right after the
    // renaming leaves its bytes in free blocks.
    let former = replaced.then(|| OpenOptions::new().write(true).open(path)).transpose()?;
    fs::rename(new, path)?;
    sync().map(|()| former)
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
    fn a_directory_whose_emptying_was_cut_off_can_be_created_again() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        for last in 0.. {
            let directory = DataDir::create(&path).unwrap();
            fs::create_dir(directory.store_path()).unwrap();
            fs::write(directory.store_path().join("db"), "half a store").unwrap();
            for name in [DataDir::KEYRING, "anchor"] {
                directory.write_atomically(name, b"half a vault").unwrap();
            }
            let mut left = 0..last;
            let emptied = directory
                .empty_while(|| left.next().map(drop).ok_or_else(|| io::Error::other("killed")));
            if emptied.is_ok() {
                assert_eq!((last, fs::read_dir(&path).unwrap().count()), (5, 0));
                break;
            }
        }
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

    #[test]
    fn a_replaced_file_is_overwritten_with_and_without_an_exchange_of_names() {
        let parent = tempfile::tempdir().unwrap();
        let [path, new, link] = ["file", "file.new", "link"].map(|name| parent.path().join(name));
        for exchanges in [true, false] {
            fs::write(&path, b"wrapped key").unwrap();
            fs::hard_link(&path, &link).unwrap();
            fs::write(&new, b"successor").unwrap();
            let exchange =
                |one: &Path, other: &Path| if exchanges { exchange(one, other) } else { Ok(false) };
            put_in_place(&new, &path, exchange).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"successor");
            assert_eq!(fs::read(&link).unwrap(), [0; 11]);
            assert!(!new.exists());
            fs::remove_file(&link).unwrap();
        }
    }

    #[test]
    fn an_erased_file_is_gone_and_erasing_it_again_does_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let directory = DataDir::create(parent.path().join("data")).unwrap();
        directory.write_atomically(DataDir::ATTEMPTS, b"five").unwrap();
        let link = parent.path().join("link");
        fs::hard_link(directory.path().join(DataDir::ATTEMPTS), &link).unwrap();
        directory.erase(DataDir::ATTEMPTS).unwrap();
        assert_eq!(directory.read(DataDir::ATTEMPTS, 9).unwrap(), None);
        assert_eq!(fs::read(&link).unwrap(), [0; 4]);
        directory.erase(DataDir::ATTEMPTS).unwrap();
    }

    #[test]
    fn what_a_crash_left_of_a_write_is_erased_at_the_opening() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let directory = DataDir::create(&path).unwrap();
        directory.write_atomically(DataDir::HEADER, b"header").unwrap();
        drop(directory);
        for name in [DataDir::HEADER, DataDir::KEYRING, DataDir::ATTEMPTS] {
            let (left, link) = (path.join(format!("{name}.new")), parent.path().join(name));
            fs::write(&left, b"generation before").unwrap();
            fs::hard_link(&left, &link).unwrap();
            let directory = DataDir::open(&path).unwrap();
            assert!(!left.exists());
            assert_eq!(fs::read(&link).unwrap(), [0; 17]);
            assert_eq!(directory.read(DataDir::HEADER, 6).unwrap().unwrap(), b"header");
        }
    }

    #[test]
    fn certificates_are_for_their_owner_only() {
        let parent = tempfile::tempdir().unwrap();
        let directory = DataDir::create(parent.path().join("data")).unwrap();
        directory.write_certificate("c0ffee", b"{}").unwrap();
        directory.write_certificate("c0ffee", b"{1}").unwrap();
        directory.write_certificate("decaf", b"{}").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let path = directory.certificates_path().join("c0ffee.txt");
        assert_eq!(mode(&directory.certificates_path()), 0o700);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"{1}");
        assert_eq!(fs::read_dir(directory.certificates_path()).unwrap().count(), 2);
    }
}
