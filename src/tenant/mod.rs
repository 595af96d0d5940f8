//! What a tenant is: its id, its configuration, and the URIs that are its own.
//!
//! ```text
//! acme0001.json --file--> TenantFile --env--> ResolvedTenant { TenantConfig, Credentials } --> vault
//! "mcp://acme0001/database/table/orders" --uri--> ResourceUri --Scope::admit--> ScopedUri --> server
//! ```
//!
//! Everything here is pure: no file is read, no variable looked up, no time told. The bytes of a
//! tenant file, and a function that looks variables up, are handed in.
//!
//! Protects against: one tenant's URI being taken for another's by any spelling; a value of a
//! tenant file (it may be a password) showing up in a message about that file. Does not decide who
//! the caller is; that is `auth`.

mod env;
mod file;
mod id;
mod json;
mod permission;
mod uri;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::memory::SecretText;

pub use env::{Lookup, TemplateError};
pub use file::{Problem, Surroundings, TenantFile, schema};
pub use id::{IdRule, InvalidTenantId, TenantId};
pub use permission::{Permission, Permissions};
pub use uri::{
    InvalidUri, Resource, ResourceUri, Scope, ScopedUri, scope_uri, validate_uri_access,
};

/// A tenant as a file described it, with every variable resolved.
///
/// The only value that holds new plaintext credentials; it goes to the vault and nowhere else.
#[derive(Debug)]
pub struct ResolvedTenant {
    /// What may be shown to an operator.
    pub config: TenantConfig,
    /// What may not.
    pub credentials: Credentials,
}

/// A tenant's configuration without its secrets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TenantConfig {
    /// Who this is.
    pub id: TenantId,
    /// Where its data is.
    pub connection: Connection,
    /// What of it may be read or written.
    pub access: Access,
    /// How much one statement may cost.
    pub limits: Limits,
    /// How many statements there may be.
    pub quotas: Quotas,
    /// Switches that mean something to the operator's own product; passed through.
    pub features: BTreeMap<String, bool>,
}

/// A tenant's secrets. Neither `Clone` nor `Serialize`; `Debug` shows names only.
#[derive(Default)]
pub struct Credentials {
    /// The password of `db_user`; `None` for SQLite, or for a login without one.
    pub db_password: Option<SecretText>,
    /// The private key of the client certificate, PEM; `None` where there is none.
    pub db_sslkey: Option<SecretText>,
    /// Keys of outside services by provider name; empty ones are left out at import.
    pub api_keys: BTreeMap<String, SecretText>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("db_password", &self.db_password.as_ref().map(|_| "…"))
            .field("db_sslkey", &self.db_sslkey.as_ref().map(|_| "…"))
            .field("api_keys", &self.api_keys.keys())
            .finish()
    }
}

/// Where a tenant's database is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "an engine is added everywhere or nowhere")]
pub enum Connection {
    /// A PostgreSQL server.
    Postgres(PostgresTarget),
    /// A SQLite file, below the operator's `sqlite_root`.
    Sqlite {
        /// Relative, without `..`; whether it leads through a symbolic link is checked at open.
        path: String,
    },
}

impl Connection {
    /// The engine's name as `db_engine` spells it.
    pub fn engine(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Sqlite { .. } => "sqlite",
        }
    }
}

/// A PostgreSQL database and how to reach it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PostgresTarget {
    /// Host name, address, or the absolute path of a socket directory.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database name.
    pub database: String,
    /// Role to log in as.
    pub user: String,
    /// How the connection is secured.
    pub tls: TlsMode,
    /// PEM text of the certificates to trust instead of the system's.
    pub root_certificates: Option<String>,
    /// PEM text of the certificate to log in with, and of those that lead to its authority; its key
    /// is a credential.
    pub client_certificate: Option<String>,
    /// The schema in which unqualified names are looked up.
    pub schema: String,
    /// A setting of the server's, such as `app.tenant_id`, that has the tenant's id within each
    /// transaction, for policies of row-level security where tenants share a database.
    pub tenant_variable: Option<String>,
}

/// `db_sslmode`, as libpq defines it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "libpq's list, less its two opportunistic modes")]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// Encrypted; the server is not authenticated.
    Require,
    /// Encrypted; the certificate must come from a trusted authority.
    VerifyCa,
    /// Encrypted; trusted authority, and the certificate must name the host.
    VerifyFull,
}

impl TlsMode {
    /// The spelling of the tenant file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// What a tenant's callers may touch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Access {
    /// Whether INSERT, UPDATE and DELETE are allowed at all.
    pub mode: AccessMode,
    /// Readable tables and views; `None` means all that the role may read in the schema.
    pub tables: Option<Vec<RelationName>>,
    /// Columns that are never readable.
    pub deny_columns: Vec<ColumnName>,
}

/// `access.mode`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third")]
pub enum AccessMode {
    /// SELECT only.
    #[default]
    ReadOnly,
    /// Also INSERT, UPDATE and DELETE, for tokens that carry the scope.
    ReadWrite,
}

impl AccessMode {
    /// The spelling of the tenant file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::ReadWrite => "read_write",
        }
    }
}

/// A table or view, as `name` or `schema.name`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RelationName {
    /// `None` means the tenant's own schema.
    pub schema: Option<String>,
    /// The name as the catalogue has it.
    pub name: String,
}

impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

/// A column, as `table.column` or `schema.table.column`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ColumnName {
    /// The table it is a column of.
    pub relation: RelationName,
    /// The column as the catalogue has it.
    pub column: String,
}

impl fmt::Display for ColumnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.relation, self.column)
    }
}

/// What one statement may cost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Longest run, 1 ms to 1 h.
    pub statement_timeout: Duration,
    /// Most rows in an answer, 1 to 1,000,000.
    pub max_rows: u32,
    /// Most bytes of encoded rows in an answer, 1 KiB to 256 MiB.
    pub max_result_bytes: u32,
}

impl Limits {
    /// `statement_timeout` as the tenant file has it.
    pub fn statement_timeout_ms(&self) -> u64 {
        u64::try_from(self.statement_timeout.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            statement_timeout: Duration::from_secs(30),
            max_rows: 1_000,
            max_result_bytes: 4 << 20,
        }
    }
}

/// How many statements there may be. Absent means unlimited, 0 means none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Quotas {
    /// Statements in any 60 minutes.
    pub max_queries_per_hour: Option<u64>,
    /// Statements in any 24 hours.
    pub max_queries_per_day: Option<u64>,
    /// Statements at the same moment.
    pub max_concurrent_connections: Option<u32>,
    /// Refused attempts of one caller in any 60 minutes; beyond that it is refused unheard.
    pub max_denied_per_hour: Option<u64>,
}

impl Quotas {
    /// Their names in the tenant file, with their values.
    pub fn named(&self) -> [(&'static str, Option<u64>); 4] {
        [
            ("max_queries_per_hour", self.max_queries_per_hour),
            ("max_queries_per_day", self.max_queries_per_day),
            ("max_concurrent_connections", self.max_concurrent_connections.map(u64::from)),
            ("max_denied_per_hour", self.max_denied_per_hour),
        ]
    }

    /// Sets the one called `name`. False when there is none, or `limit` is too large for it.
    pub fn set(&mut self, name: &str, limit: Option<u64>) -> bool {
        match name {
            "max_queries_per_hour" => self.max_queries_per_hour = limit,
            "max_queries_per_day" => self.max_queries_per_day = limit,
            "max_concurrent_connections" => match limit.map(u32::try_from).transpose() {
                Ok(limit) => self.max_concurrent_connections = limit,
                Err(_) => return false,
            },
            "max_denied_per_hour" => self.max_denied_per_hour = limit,
            _ => return false,
        }
        true
    }
}
