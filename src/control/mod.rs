//! The admin socket: operator actions on a running service.
//!
//! ```text
//! tenantry VERB --{command, secrets: [lengths]}\n, the secrets' bytes--> admin.sock --> Admin::execute
//!               <--{progress}\n ..., {ok} or {error}\n-------------------'
//! ```
//!
//! One command a connection. A secret never passes through JSON: its bytes follow the request's
//! line and are read into a buffer of their own. Every byte: docs/admin-socket.md.
//!
//! Protects against: other users of the machine (the data directory is 0700, the socket 0600, and
//! the kernel says who the peer is); a peer that sends nonsense, too much, or nothing. Does not
//! protect against root or against other programs of the same user: whoever can connect can do what
//! needs no passphrase, as whoever can read the service's memory could.

mod client;
mod server;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admin::{Command, Progress};

pub use client::{ClientError, call, is_present};
pub use server::Socket;

/// The socket's name in the data directory.
pub const SOCKET: &str = "admin.sock";

/// What [`Request::version`] is. Another one is refused.
const VERSION: u32 = 1;
/// Longest line of a request, its line feed left out.
const MAX_LINE: usize = 64 << 10;
/// Longest secret.
const MAX_SECRET: usize = 4 << 10;
/// Most secrets of a command.
const MAX_SECRETS: usize = 512;
/// Longest path that a socket's address has room for.
const MAX_PATH: usize = 107;

/// The first line of a connection.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Request {
    version: u32,
    /// Login name, for the audit log; the number comes from the kernel.
    operator: String,
    command: Command,
    /// The length of each secret that follows the line, in bytes.
    secrets: Vec<usize>,
}

/// A line of the answer. The last one is `ok` or `error`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Progress(Progress),
    Ok(Value),
    Error { error_code: String, message: String, exit_code: u8 },
}

/// Where to bind or connect, however long the path of `directory` is. The file must live as long as
/// the path is used.
fn address(directory: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = directory.join(SOCKET);
    if path.as_os_str().len() <= MAX_PATH {
        return Ok((path, None));
    }
    let directory = File::open(directory)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    Ok((path.into(), Some(directory)))
}
