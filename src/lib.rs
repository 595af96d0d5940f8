//! tenantry: every tenant of a SaaS gets its own isolated MCP server over its own database.

pub mod clock;
pub mod database;
pub mod error;
pub mod store;
pub mod tenant;
pub mod vault;
