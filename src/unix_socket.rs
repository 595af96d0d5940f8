//! Sockets in the data directory: for programs of this user, and of root.
//!
//! Protects against other users of the machine: the directory is 0700, the socket 0600, and the
//! kernel says who the peer is.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Longest path that a socket's address has room for.
const MAX_PATH: usize = 107;
const ROOT: u32 = 0;

/// A socket, bound. Dropping it removes its file.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// This process's user, to whom the file belongs.
    owner: u32,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "what the kernel says")]
pub struct Peer {
    /// The number of the user.
    pub user: u32,
    /// Whether it is this process's user, or root.
    pub is_known: bool,
}

impl Socket {
    /// Binds `name` in `directory`, the data directory that this process has: a file that is there
    /// was left by one that was killed. Must be called inside a Tokio runtime.
    pub fn bind(directory: &Path, name: &str) -> io::Result<Self> {
        let path = directory.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(&path)?,
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (address, _directory) = address(directory, name)?;
        let listener = UnixListener::bind(address)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let owner = fs::symlink_metadata(&path)?.uid();
        Ok(Self { listener, path, owner })
    }

    /// The next connection, and whose it is.
    ///
    /// Cancellation: none is lost.
    pub async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.listener.accept().await?;
        let user = stream.peer_cred()?.uid();
        Ok((stream, Peer { user, is_known: user == self.owner || user == ROOT }))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "a socket's file stays");
        }
    }
}

/// Whether a service has, or had, the socket `name` in `directory`.
pub fn is_present(directory: &Path, name: &str) -> bool {
    let metadata = directory.join(name).symlink_metadata();
    metadata.is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Where to bind or connect, however long the path of `directory` is. The file must live as long as
/// the path is used.
pub fn address(directory: &Path, name: &str) -> io::Result<(PathBuf, Option<File>)> {
    let path = directory.join(name);
    if path.as_os_str().len() <= MAX_PATH {
        return Ok((path, None));
    }
    let directory = File::open(directory)?;
    let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    Ok((path.into(), Some(directory)))
}
