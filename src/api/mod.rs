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

use std::net::SocketAddr;

use crate::tenant::IdRule;

pub use client::{ClientError, call, import, is_present};
pub use import::Document;
pub use listener::Listeners;
pub use routes::table;

/// The socket's name in the data directory.
pub const SOCKET: &str = "admin.sock";

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
