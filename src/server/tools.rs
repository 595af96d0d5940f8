//! The tools as clients see them: names, schemas, arguments, answers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Error, describe, explain};
use crate::database::{Column, Rows, RowsRead};
use crate::quota::Usage;
use crate::tenant::{Access, Limits};

/// Longest text of a parser about a caller's own arguments that is passed on, in characters.
const MAX_EXPLANATION: usize = 200;

pub(super) const LIST: &str = "list_tenant_resources";
pub(super) const QUERY: &str = "query_tenant_data";
pub(super) const WRITE: &str = "write_tenant_data";
pub(super) const METADATA: &str = "get_tenant_metadata";

/// The feature that brings the tools of analysts.
const ANALYTICS: &str = "advanced_analytics";

/// A tool and who is shown it.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) tool: Tool,
    pub(super) to: Audience,
}

/// Who is shown a tool and may call it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Audience {
    /// Every caller of every tenant.
    Everybody,
    /// The callers of tenants that have this feature.
    Feature(&'static str),
    /// Callers with the scope `write` of tenants whose `access.mode` is `read_write`.
    Writers,
}

/// Who may take `action`; what is no tool has no audience of its own.
pub(super) fn audience(action: &str) -> Audience {
    let offered = TOOLS.iter().find(|offered| offered.tool.name == action);
    offered.map_or(Audience::Everybody, |offered| offered.to)
}

/// All tools; [`TenantContext::offers`] says which of them a caller sees.
///
/// [`TenantContext::offers`]: super::TenantContext::offers
pub(super) static TOOLS: LazyLock<Vec<Offered>> = LazyLock::new(|| {
    let column = json!({
        "type": "object",
        "properties": { "name": { "type": "string" }, "type": { "type": "string" } },
        "required": ["name", "type"],
    });
    let quota = json!({
        "type": "object",
        "properties": {
            "limit": { "type": "integer", "description": "Absent: unlimited." },
            "used": { "type": "integer" },
            "remaining": { "type": "integer", "description": "Absent: unlimited." },
            "resets_at": {
                "type": "string", "format": "date-time",
                "description": "When the oldest of what is used stops counting.",
            },
        },
        "required": ["used"],
    });
    let everybody = |tool| Offered { tool, to: Audience::Everybody };
    vec![
        everybody(tool(
            LIST,
            "List resources",
            "Lists what this tenant has: its database, the tables and views that may be read, with \
             their columns, and the outside services that have a key. Each has a URI for \
             query_tenant_data.",
            &json!({
                "resource_type": {
                    "type": "string", "enum": ["database", "table", "view", "api"],
                    "description": "Only these; \"database\" includes its tables and views.",
                },
                "cursor": { "type": "string", "description": "next_cursor of the page before." },
            }),
            &[],
            json!({
                "resources": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "uri": { "type": "string" },
                            "type": { "type": "string" },
                            "name": { "type": "string" },
                            "description": { "type": "string" },
                            "columns": { "type": "array", "items": column },
                            "estimated_rows": {
                                "type": "integer",
                                "description": "As the database's statistics have it.",
                            },
                        },
                        "required": ["uri", "type", "name"],
                    },
                },
                "next_cursor": { "type": "string", "description": "Absent on the last page." },
            }),
            &["resources"],
        )),
        everybody(tool(
            QUERY,
            "Query data",
            "Runs one read-only SQL statement on this tenant's own database. The URI says what it \
             may read: under …/database/table/NAME that table only, under …/database everything \
             that list_tenant_resources shows.",
            &json!({
                "resource_uri": {
                    "type": "string",
                    "description": "mcp://{tenant}/database or mcp://{tenant}/database/table/{name}",
                },
                "query": { "type": "string", "description": "One SELECT statement." },
                "limit": {
                    "type": "integer", "minimum": 1,
                    "description": "Most rows to return; never more than the tenant's max_rows.",
                },
                "params": {
                    "type": "array", "items": {},
                    "description": "Values for $1, $2, … (PostgreSQL) or ?1, ?2, … (SQLite).",
                },
            }),
            &["resource_uri", "query"],
            json!({
                "resource_uri": { "type": "string" },
                "columns": { "type": "array", "items": &column },
                "rows": { "type": "array", "items": { "type": "array", "items": {} } },
                "row_count": { "type": "integer" },
                "truncated": {
                    "type": "boolean",
                    "description": "True when there were more rows than were returned.",
                },
                "elapsed_ms": { "type": "integer" },
            }),
            &["resource_uri", "columns", "rows", "row_count", "truncated", "elapsed_ms"],
        )),
        Offered { tool: changing(write_tool(&column)), to: Audience::Writers },
        everybody(tool(
            METADATA,
            "Tenant metadata",
            "Tells about this tenant: its database, its quotas and what is used of them, features, \
             access rules and limits. Never a user name, password or key.",
            &json!({}),
            &[],
            json!({
                "tenant_id": { "type": "string" },
                "database_host": { "type": "string" },
                "database_engine": { "type": "string" },
                "database_name": { "type": "string" },
                "server_version": { "type": "string" },
                "quotas": { "type": "object", "additionalProperties": quota },
                "features": { "type": "object", "additionalProperties": { "type": "boolean" } },
                "access": {
                    "type": "object",
                    "properties": {
                        "mode": { "type": "string" },
                        "tables": { "type": "array", "items": { "type": "string" } },
                        "deny_columns": { "type": "array", "items": { "type": "string" } },
                    },
                    "required": ["mode"],
                },
                "limits": { "type": "object", "additionalProperties": { "type": "integer" } },
            }),
            &["tenant_id", "database_engine", "database_name", "quotas", "features", "access"],
        )),
        Offered { tool: explain::tool(), to: Audience::Feature(ANALYTICS) },
        Offered { tool: describe::tool(), to: Audience::Feature(ANALYTICS) },
    ]
});

fn write_tool(column: &Value) -> Tool {
    tool(
        WRITE,
        "Change data",
        "Runs one INSERT, UPDATE or DELETE on this tenant's own database, with RETURNING if wanted: \
         all of it or, when more rows would change than limit allows or anything fails, nothing. \
         UPDATE and DELETE need a WHERE. After OUTCOME_UNKNOWN look before you try again.",
        &json!({
            "resource_uri": {
                "type": "string",
                "description": "mcp://{tenant}/database or mcp://{tenant}/database/table/{name}",
            },
            "statement": { "type": "string", "description": "One INSERT, UPDATE or DELETE." },
            "limit": {
                "type": "integer", "minimum": 1,
                "description": "Most rows that may change; never more than the tenant's max_rows.",
            },
            "params": {
                "type": "array", "items": {},
                "description": "Values for $1, $2, … (PostgreSQL) or ?1, ?2, … (SQLite).",
            },
        }),
        &["resource_uri", "statement"],
        json!({
            "resource_uri": { "type": "string" },
            "row_count": { "type": "integer", "description": "How many rows changed." },
            "columns": { "type": "array", "items": column, "description": "Of RETURNING." },
            "rows": { "type": "array", "items": { "type": "array", "items": {} } },
            "elapsed_ms": { "type": "integer" },
        }),
        &["resource_uri", "row_count", "columns", "rows", "elapsed_ms"],
    )
}

/// The tool as one that changes data, which clients ask people about.
fn changing(tool: Tool) -> Tool {
    let hints = ToolAnnotations::new().read_only(false).destructive(true).idempotent(false);
    tool.with_annotations(hints.open_world(false))
}

pub(super) fn tool(
    name: &'static str,
    title: &'static str,
    description: impl Into<Cow<'static, str>>,
    input: &Value,
    required: &[&str],
    output: Value,
    always: &[&str],
) -> Tool {
    let object = |members: Value| Arc::new(members.as_object().cloned().unwrap_or_default());
    let input = json!({
        "type": "object", "properties": input, "required": required, "additionalProperties": false,
    });
    let output = json!({
        "type": "object",
        "properties": with_failure(output),
        "anyOf": [{ "required": always }, { "required": ["error_code", "message", "request_id"] }],
    });
    Tool::new(name, description.into(), object(input))
        .with_title(title)
        .with_raw_output_schema(object(output))
        .with_annotations(ToolAnnotations::new().read_only(true).idempotent(true).open_world(false))
}

/// The members of an answer, and those of a failure: some clients hold failures to the schema too.
fn with_failure(mut answer: Value) -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    answer["error_code"] = text("Of a failed call: what went wrong, such as FORBIDDEN.");
    answer["message"] = text("Of a failed call: the same for people.");
    answer["request_id"] = text("Of a failed call: leads to the audit entry.");
    answer["rule"] = text("Of a refused call: the rule, quota or bound that refused it.");
    answer["sqlstate"] = text("Of a failed statement: the database's code.");
    answer["position"] = json!({
        "type": "integer",
        "description": "Of a failed statement: the character that it fails at, counted from 1.",
    });
    answer["retry_after_seconds"] =
        json!({ "type": "integer", "description": "When a quota is used up: when to come back." });
    answer
}

/// The arguments of `query_tenant_data`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct QueryArguments {
    /// What may be read.
    pub resource_uri: String,
    /// One statement.
    pub query: String,
    /// Most rows to return.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Values for the statement's placeholders.
    #[serde(default)]
    pub params: Vec<Value>,
    /// Counts the rows while they are read.
    #[serde(skip)]
    pub read: RowsRead,
}

impl QueryArguments {
    /// A statement without placeholders.
    pub fn new(resource_uri: &str, query: &str, limit: Option<u32>) -> Self {
        let (resource_uri, query) = (resource_uri.to_owned(), query.to_owned());
        Self { resource_uri, query, limit, params: Vec::new(), read: RowsRead::default() }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListArguments {
    pub(super) resource_type: Option<String>,
    pub(super) cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoArguments {}

/// Beginnings of names by which servers elsewhere let the caller choose a tenant, without `_`,
/// `-` and upper case. No tool here has an argument, and no method a parameter, of such a name.
const TENANT_ARGUMENTS: [&str; 7] =
    ["tenant", "org", "account", "workspace", "project", "database", "connection"];

/// Reads the arguments of a tool.
///
/// # Errors
///
/// [`Error::Argument`] with the parser's words, which can only quote the caller's own arguments
/// back to it; escaped and cut. [`Error::TenantArgument`] with the same, when one of them looks as
/// if it chose a tenant.
pub(super) fn arguments<T: serde::de::DeserializeOwned>(
    arguments: Option<JsonObject>,
) -> Result<T, Error> {
    let arguments = arguments.unwrap_or_default();
    let chooses_tenant = arguments.keys().any(|key| chooses_tenant(key));
    serde_json::from_value(Value::Object(arguments)).map_err(|error| {
        let text = error.to_string();
        let text = text.chars().flat_map(char::escape_debug).take(MAX_EXPLANATION).collect();
        if chooses_tenant { Error::TenantArgument(text) } else { Error::Argument(text) }
    })
}

/// Whether a member of this name would be for choosing a tenant.
pub(crate) fn chooses_tenant(key: &str) -> bool {
    let letters = key.bytes().filter(u8::is_ascii_alphanumeric);
    let start: Vec<u8> = letters.map(|byte| byte.to_ascii_lowercase()).take(16).collect();
    TENANT_ARGUMENTS.iter().any(|name| start.starts_with(name.as_bytes()))
}

/// The answer of `query_tenant_data`.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct QueryAnswer {
    /// The URI, as it was given.
    pub resource_uri: String,
    /// One per column, in order; names may repeat.
    pub columns: Vec<ColumnInfo>,
    /// One list of values per row.
    #[serde(serialize_with = "rows_as_json")]
    pub rows: Rows,
    /// How many rows there are in `rows`.
    pub row_count: u64,
    /// Whether there were more.
    pub truncated: bool,
    /// How long the database took.
    pub elapsed_ms: u64,
}

/// `rows` as the JSON that they are.
pub(super) fn rows_as_json<S: Serializer>(rows: &Rows, serializer: S) -> Result<S::Ok, S::Error> {
    let text: &RawValue = serde_json::from_str(rows.as_json()).map_err(S::Error::custom)?;
    text.serialize(serializer)
}

/// A column's name and type.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ColumnInfo {
    /// Name or alias.
    pub name: String,
    /// The engine's name of the type.
    #[serde(rename = "type")]
    pub type_name: String,
}

impl From<Column> for ColumnInfo {
    fn from(column: Column) -> Self {
        Self { name: column.name, type_name: column.type_name }
    }
}

/// The answer of `get_tenant_metadata`.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct MetadataAnswer {
    /// The tenant.
    pub tenant_id: String,
    /// Absent for SQLite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_host: Option<String>,
    /// `postgres` or `sqlite`.
    pub database_engine: &'static str,
    /// Database, or file below `sqlite_root`.
    pub database_name: String,
    /// Absent as long as no session could be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// By the name in the tenant file.
    pub quotas: BTreeMap<&'static str, QuotaUsage>,
    /// As the operator set them.
    pub features: BTreeMap<String, bool>,
    /// What may be touched.
    pub access: AccessInfo,
    /// What one statement may cost.
    pub limits: LimitsInfo,
}

/// One quota.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct QuotaUsage {
    /// Absent: unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What counts against it now.
    pub used: u64,
    /// Absent: unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// When the oldest of what is used stops counting, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<String>,
}

impl From<Usage> for QuotaUsage {
    fn from(usage: Usage) -> Self {
        Self {
            limit: usage.limit,
            used: usage.used,
            remaining: usage.limit.map(|limit| limit.saturating_sub(usage.used)),
            resets_at: usage.resets_at.map(|at| at.to_string()),
        }
    }
}

/// `access` of the tenant file.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct AccessInfo {
    /// `read_only` or `read_write`.
    pub mode: &'static str,
    /// Absent: all that the role may read in the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<Vec<String>>,
    /// Never readable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_columns: Vec<String>,
}

impl From<&Access> for AccessInfo {
    fn from(access: &Access) -> Self {
        let names = |tables: &Vec<_>| tables.iter().map(ToString::to_string).collect();
        Self {
            mode: access.mode.as_str(),
            tables: access.tables.as_ref().map(names),
            deny_columns: access.deny_columns.iter().map(ToString::to_string).collect(),
        }
    }
}

/// `limits` of the tenant file.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct LimitsInfo {
    /// Longest run of a statement.
    pub statement_timeout_ms: u64,
    /// Most rows in an answer.
    pub max_rows: u32,
    /// Most bytes of rows in an answer.
    pub max_result_bytes: u32,
}

impl From<Limits> for LimitsInfo {
    fn from(limits: Limits) -> Self {
        Self {
            statement_timeout_ms: limits.statement_timeout_ms(),
            max_rows: limits.max_rows,
            max_result_bytes: limits.max_result_bytes,
        }
    }
}
