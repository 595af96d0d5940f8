//! The tenant file's JSON Schema.

use super::{LIMITS, MAX_API_KEYS, MAX_RELATIONS, MAX_SECRET, SCHEMA};
use crate::tenant::{AccessMode, TlsMode};

/// The JSON Schema (2020-12) of a tenant file, as `tenant_configs/schema.json` has it.
pub fn schema() -> serde_json::Value {
    use serde_json::json;
    let text = |description: &str| json!({ "type": "string", "description": description });
    let secret = |description: &str| json!({ "type": "string", "maxLength": MAX_SECRET, "description": description });
    let whole = |min: u64, max: Option<u64>, description: &str| {
        let mut field = json!({ "type": "integer", "minimum": min, "description": description });
        if let Some(max) = max {
            field["maximum"] = json!(max);
        }
        field
    };
    let closed = |properties: serde_json::Value| json!({ "type": "object", "additionalProperties": false, "properties": properties });
    let names = |description: &str| {
        json!({
            "type": "array", "items": { "type": "string" }, "maxItems": MAX_RELATIONS,
            "description": description,
        })
    };
    let modes = [AccessMode::ReadOnly, AccessMode::ReadWrite].map(AccessMode::as_str);
    let tls = [TlsMode::Disable, TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull]
        .map(TlsMode::as_str);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tenantry tenant file",
        "description": "Any string may hold ${VAR}, ${VAR:default} and $${ for a literal ${.",
        "type": "object",
        "additionalProperties": false,
        "required": ["tenant_id"],
        "if": { "required": ["db_engine"], "properties": { "db_engine": { "const": "sqlite" } } },
        "then": { "required": ["db_path"] },
        "else": { "required": ["db_host", "db_name", "db_user"] },
        "properties": {
            SCHEMA: text("Path of this schema, for editors."),
            "tenant_id": {
                "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_]{5,19}$",
                "description": "Also the file's name; \"_\" needs tenant_id.allow_underscore.",
            },
            "db_engine": { "enum": ["postgres", "sqlite"], "default": "postgres" },
            "db_host": text("Host name, address, or the absolute path of a socket directory."),
            "db_port": whole(1, Some(65_535), "Default 5432."),
            "db_name": text("Database."),
            "db_user": text("Role to log in as."),
            "db_password": secret("Password of db_user."),
            "db_path": text("SQLite only: file below sqlite_root, no symbolic link, no \"..\"."),
            "db_sslmode": {
                "enum": tls,
                "description": "Default verify-full; disable for loopback hosts and sockets.",
            },
            "db_sslrootcert": text("PEM file (absolute, or beside this file); sealed at import."),
            "db_sslcert": text("PEM file of the certificate to log in with; sealed at import."),
            "db_sslkey": secret("Private key of db_sslcert, PEM, without a passphrase."),
            "db_schema": text("Where unqualified names are looked up; default public."),
            "db_tenant_variable": text(
                "Setting that has the tenant's id in each transaction, such as app.tenant_id.",
            ),
            "api_keys": {
                "type": "object", "maxProperties": MAX_API_KEYS,
                "additionalProperties": secret("Key of an outside service; empty means none."),
            },
            "quotas": closed(json!({
                "max_queries_per_hour": whole(0, None, "Absent: unlimited. 0: none."),
                "max_queries_per_day": whole(0, None, "Absent: unlimited. 0: none."),
                "max_concurrent_connections":
                    whole(0, Some(u32::MAX.into()), "Absent: unlimited. 0: none."),
                "max_denied_per_hour": whole(0, None, "Absent: unlimited. 0: none."),
            })),
            "features": { "type": "object", "additionalProperties": { "type": "boolean" } },
            "access": closed(json!({
                "mode": { "enum": modes, "default": AccessMode::ReadOnly.as_str() },
                "tables": names("Readable tables and views, \"name\" or \"schema.name\"."),
                "deny_columns": names("Never readable, \"table.column\"."),
            })),
            LIMITS: closed(json!({
                "statement_timeout_ms": whole(1, Some(3_600_000), "Default 30000."),
                "max_rows": whole(1, Some(1_000_000), "Default 1000."),
                "max_result_bytes": whole(1 << 10, Some(256 << 20), "Default 4194304."),
            })),
        },
    })
}
