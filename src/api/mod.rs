//! The admin API: operator actions on a running service, as JSON over HTTP/1.1.
//!
//! ```text
//! tenantry VERB --> admin.sock, mode 0600: the kernel says who the peer is ---+
//!                                                                             +--> route --> Command
//! other programs --> [admin] listen, loopback: an operator's token -----------+    (routes.rs)  |
//!                                                                                               v
//!    {…}, or lines of {"progress":…} and a last {"ok":…} or {"error":…} <---- audit log <---- Admin
//! ```
//!
//! One request a connection. Every route is in one table, with who may use it; docs/admin-api.md has
//! it too. A secret of a request is read from the body's bytes into a buffer of its own and is in no
//! other value; the bytes themselves, and those that the HTTP library had, are wiped when they are
//! freed, which the program's allocator does.
//!
//! Protects against: other users of the machine (the data directory is 0700, the socket 0600, and
//! the kernel says who the peer is); over TCP, whoever has no operator's token, or one of a role that
//! may not, and web pages in an operator's browser (`Host`, `Origin` and `Content-Type` are checked);
//! a peer that sends nonsense, too much, or nothing. Does not protect against root or against other
//! programs of the same user: whoever can connect to the socket can do what needs no passphrase, as
//! whoever can read the service's memory could.

mod answer;
mod client;
mod import;
mod listener;
mod message;
mod patience;
mod routes;
mod service;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::tenant::IdRule;

pub use client::{ClientError, call, import, is_present};
pub use import::Document;
pub use listener::Listeners;
pub use routes::table;

/// The socket's name in the data directory.
pub const SOCKET: &str = "admin.sock";

/// Longest path that a socket's address has room for.
const MAX_PATH: usize = 107;
/// Name of the header with the login name of who sits at the command line.
const OPERATOR: &str = "tenantry-operator";
const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json";

/// How the API is reached.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field from the settings")]
pub struct Options {
    /// Where else than at the socket; loopback.
    pub listen: Option<SocketAddr>,
    /// Which tenants an import may bring.
    pub id_rule: IdRule,
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
