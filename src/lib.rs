//! tenantry: one process that gives every tenant of a SaaS its own isolated MCP server over that
//! tenant's own database.
//!
//! ```text
//! tenant files --import--> sealed store --unseal--> vault
//!                                                     | credentials, minutes at a time
//! MCP client --token--> auth --TenantAccess--> pool --+--> one tenant's server --> its database
//!                         \                                      /
//!                          `------------> audit log <-----------'
//! ```
//!
//! The program is [`cli`]. To embed the data plane, begin with [`TenantMcpManager`] and
//! `examples/embed.rs`. An embedding program chooses its own allocator; one that wipes what it frees,
//! as ours does (`src/main.rs`), also clears what database drivers leave behind. It decides too
//! whether to call [`memory::harden`], and should look at [`memory::status`].
//!
//! # Modules, from the bottom up
//!
//! | module | is |
//! |---|---|
//! | [`memory`] | locked buffers, the only home of opened secrets |
//! | [`error`], [`clock`], [`network`], [`telemetry`] | stable codes; time as a seam; networks; the process log |
//! | [`store`] | opaque bytes under keys, durable, in a directory of one process |
//! | [`tenant`] | what a tenant is: ids, files, URIs and scope; pure |
//! | [`vault`] | credentials at rest; the only module that seals and opens |
//! | [`database`] | tenant databases, read through guarded SQL only |
//! | [`quota`] | how much a tenant may use |
//! | [`audit`] | who did what, on disk before the answer |
//! | [`auth`] | token to caller, caller to [`auth::TenantAccess`] |
//! | [`server`] | one tenant's MCP server |
//! | [`pool`] | live servers by tenant: lease, wait, close |
//! | [`manager`] | all of that as one value |
//! | [`admin`] | what an operator can do, one audited method each |
//! | [`api`] | the admin API: the same, on a running service |
//! | [`http`], [`stdio`] | the faces of the data plane |
//! | [`config`], [`cli`] | settings and commands |
//!
//! Each names only what stands below it; `tests/architecture.rs` reads the source and makes sure.
//! What this protects against, and what not, is in SECURITY.md; why it is built so, in
//! ARCHITECTURE.md.

pub mod admin;
pub mod api;
pub mod audit;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod database;
pub mod error;
pub mod http;
pub mod manager;
pub mod memory;
pub mod network;
pub mod pool;
pub mod quota;
pub mod server;
pub mod stdio;
pub mod store;
mod strict_json;
pub mod telemetry;
pub mod tenant;
pub mod unix_socket;
pub mod vault;

pub use error::ErrorCode;
pub use manager::TenantMcpManager;
pub use pool::McpConnectionPool;
pub use server::create_tenant_scoped_server;
pub use tenant::{scope_uri, validate_uri_access};
pub use vault::TenantCredentialVault;
