//! Which permission a request needs, for whoever sees it before a tenant's server does.

use super::describe::DESCRIBE;
use super::explain::EXPLAIN;
use super::tools::{LIST, METADATA, QUERY, WRITE};
use crate::tenant::Permission;

/// What the request `method` needs, `name` being the tool that it calls, and what it is called in the
/// audit log. Nothing of what needs nothing, or is not known.
pub fn needed(method: &str, name: Option<&str>) -> Option<(&'static str, Permission)> {
    let needed = match (method, name.unwrap_or_default()) {
        ("tools/call", DESCRIBE) => (DESCRIBE, Permission::Query),
        ("tools/call", EXPLAIN) => (EXPLAIN, Permission::Query),
        ("tools/call", LIST) => (LIST, Permission::List),
        ("tools/call", METADATA) => (METADATA, Permission::Metadata),
        ("tools/call", QUERY) => (QUERY, Permission::Query),
        ("tools/call", WRITE) => (WRITE, Permission::Write),
        ("completion/complete", _) => ("completion/complete", Permission::List),
        ("resources/list", _) => ("resources/list", Permission::List),
        ("resources/read", _) => ("resources/read", Permission::List),
        _ => return None,
    };
    Some(needed)
}
