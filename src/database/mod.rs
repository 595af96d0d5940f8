//! Tenant databases.
