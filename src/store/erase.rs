//! Destroys what a file held before its name goes away.
//!
//! ```text
//! open name -> zeros over the whole length -> fsync -> unlink -> fsync of the directory
//! ```
//!
//! Removing a file frees its blocks and leaves their bytes, for whoever reads the disk beneath the
//! file system. Protects against: such a reader, where the file system writes in place (ext4, XFS).
//! Does not protect against: copy-on-write file systems (Btrfs, ZFS, APFS), snapshots, journals
//! that take data, and flash, which writes elsewhere and keeps the old cells until it needs them. A
//! hard link to the file sees the zeros too: a backup must be a copy.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// What of a long file waits for the disk at most: whoever else syncs waits for it too.
pub(super) const UNSYNCED: u64 = 4 << 20;

/// Overwrites all of `file`, from its beginning, and waits until that is on the disk. The length
/// stays: cutting it would free the blocks first.
pub(super) fn overwrite(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut written = 0;
    while written < length {
        let now = usize::try_from(length - written).map_or(ZEROS.len(), |it| it.min(ZEROS.len()));
        file.write_all(&ZEROS[..now])?;
        written += now as u64;
        if written.is_multiple_of(UNSYNCED) {
            file.sync_data()?;
        }
    }
    file.sync_all()
}

/// Overwrites and removes the file at `path`, if there is one; true if there was. What is no
/// regular file, such as a link, is removed as it is. The removal is durable once the directory is
/// synced.
pub(super) fn erase_file(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            overwrite(&mut OpenOptions::new().write(true).open(path)?)?;
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    fs::remove_file(path)?;
    Ok(true)
}

/// Erases every file below `path` and removes the directory, if there is one; true if there was.
pub(super) fn erase_directory(path: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            erase_directory(&entry.path())?;
        } else {
            erase_file(&entry.path())?;
        }
    }
    fs::remove_dir(path)?;
    Ok(true)
}

/// Gives each of two files or directories the name of the other, in one step. False, and nothing is
/// done, where the file system cannot (NFS, FUSE and some older ones).
pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_erased_file_is_zeros_to_its_end_for_whoever_still_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("file"), directory.path().join("link"));
        for length in [0, 1, ZEROS.len(), ZEROS.len() + 1, 3 * ZEROS.len() - 1] {
            fs::write(&path, vec![7; length]).unwrap();
            fs::hard_link(&path, &link).unwrap();
            assert!(erase_file(&path).unwrap());
            assert!(!path.exists());
            assert_eq!(fs::read(&link).unwrap(), vec![0; length]);
            fs::remove_file(&link).unwrap();
        }
        assert!(!erase_file(&path).unwrap());
    }

    #[test]
    fn a_link_is_removed_and_what_it_leads_to_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&path, b"elsewhere").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(erase_file(&link).unwrap());
        assert!(fs::symlink_metadata(&link).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"elsewhere");
    }

    #[test]
    fn a_directory_is_erased_with_all_that_is_below() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("old"), directory.path().join("link"));
        fs::create_dir_all(path.join("blobs")).unwrap();
        fs::write(path.join("db"), b"secret").unwrap();
        fs::write(path.join("blobs/1"), b"secret").unwrap();
        fs::hard_link(path.join("blobs/1"), &link).unwrap();
        assert!(erase_directory(&path).unwrap());
        assert!(!path.exists());
        assert_eq!(fs::read(&link).unwrap(), [0; 6]);
        assert!(!erase_directory(&path).unwrap());
    }

    #[test]
    fn two_directories_exchange_their_names() {
        let directory = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
        for path in [&one, &other] {
            fs::create_dir(path).unwrap();
            fs::write(path.join("was"), path.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
        assert!(exchange(&one, &other).unwrap());
        assert_eq!(fs::read(one.join("was")).unwrap(), b"other");
        assert_eq!(fs::read(other.join("was")).unwrap(), b"one");
        assert!(exchange(&one, &directory.path().join("missing")).is_err());
    }
}
