//! The tenant file: one JSON document that describes one tenant.
//!
//! The format is docs/tenant-file.md; [`schema`] is the same for machines. Everything wrong with a
//! file is reported at once, each [`Problem`] with field, line and column, none with a value.

mod fields;
mod schema;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::memory::SecretText;
use crate::tenant::json::{self, Position};
use crate::tenant::{
    Access, AccessMode, ColumnName, Connection, Credentials, IdRule, Limits, Lookup,
    PostgresTarget, Quotas, RelationName, ResolvedTenant, TenantConfig, TenantId, TlsMode,
};

use fields::{Field, Object, Reader, exposed, printable};

pub use schema::schema;

/// What a tenant file says, read and resolved.
#[derive(Debug)]
pub struct TenantFile {
    /// The tenant.
    pub tenant: ResolvedTenant,
    /// Secrets that stand in the file itself, by field, when there are any.
    pub literal_secrets: Vec<String>,
}

/// What a tenant file needs from outside.
#[expect(missing_debug_implementations, reason = "two functions and a setting")]
pub struct Surroundings<'a> {
    /// Which ids are allowed.
    pub id_rule: IdRule,
    /// Looks a variable up.
    pub lookup: Lookup<'a>,
    /// Reads the PEM file that `db_sslrootcert` or `db_sslcert` names; an error is one line without values.
    pub certificate: &'a dyn Fn(&str) -> Result<String, String>,
}

/// One thing wrong with a tenant file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The field, such as `quotas.max_queries_per_hour`; empty for the file as a whole.
    pub field: String,
    /// Line, from 1; 0 when the file could not be read at all.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong and what would be right. Never the value.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        f.write_str(" ")?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

const TOP: [&str; 18] = [
    "tenant_id",
    "db_engine",
    "db_host",
    "db_port",
    "db_name",
    "db_user",
    "db_password",
    "db_path",
    "db_sslmode",
    "db_sslrootcert",
    "db_sslcert",
    "db_sslkey",
    "db_schema",
    "db_tenant_variable",
    "api_keys",
    "quotas",
    "features",
    "access",
];
const LIMITS: &str = "limits";
/// An editor's pointer to `schema.json`; read past.
const SCHEMA: &str = "$schema";
const POSTGRES_ONLY: [&str; 11] = [
    "db_host",
    "db_port",
    "db_name",
    "db_user",
    "db_password",
    "db_sslmode",
    "db_sslrootcert",
    "db_sslcert",
    "db_sslkey",
    "db_schema",
    "db_tenant_variable",
];
/// PostgreSQL cuts longer names off.
const MAX_NAME: usize = 63;
const MAX_API_KEYS: usize = 32;
const MAX_RELATIONS: usize = 1_000;
/// Longest secret, in bytes; the vault's records are that small on purpose.
const MAX_SECRET: usize = 4_000;

impl TenantFile {
    /// Reads the file called `name` (without its directory) with content `bytes`. No secret of it is
    /// copied to anywhere but the [`SecretText`] that comes out; `bytes` are the caller's to wipe.
    ///
    /// # Errors
    ///
    /// Every problem of the file, in order of position.
    pub fn read(
        name: &str,
        bytes: &[u8],
        surroundings: &Surroundings<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let source = std::str::from_utf8(bytes).map_err(|error| {
            let valid = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            let Position { line, column } = json::position(valid, &valid[valid.len()..]);
            let message = "not UTF-8 text".to_owned();
            vec![Problem { field: String::new(), line, column, message }]
        })?;
        let mut reader =
            Reader { source, surroundings, problems: Vec::new(), literals: Vec::new() };
        let tenant = reader.tenant(name);
        reader.problems.sort_by_key(|problem| (problem.line, problem.column));
        match tenant {
            Some(tenant) if reader.problems.is_empty() => {
                Ok(Self { tenant, literal_secrets: reader.literals })
            }
            _ => Err(reader.problems),
        }
    }
}

impl<'a> Reader<'a> {
    fn tenant(&mut self, file_name: &str) -> Option<ResolvedTenant> {
        let known: Vec<&str> = TOP.into_iter().chain([LIMITS, SCHEMA]).collect();
        let top = self.object(String::new(), self.source, &known)?;
        // Each part is read whatever became of the one before, so that all problems are found.
        let id = self.id(&top, file_name);
        let connection = self.connection(&top);
        let db_password = self.optional_secret(&top, "db_password");
        let db_sslkey = self.private_key(&top);
        let api_keys = self.api_keys(&top);
        let quotas = self.section(&top, "quotas", Self::quotas).unwrap_or_default();
        let features = self.features(&top);
        let access = self.section(&top, "access", Self::access).unwrap_or_default();
        let limits = self.section(&top, LIMITS, Self::limits).unwrap_or_default();
        let config =
            TenantConfig { id: id?, connection: connection?, access, limits, quotas, features };
        Some(ResolvedTenant {
            config,
            credentials: Credentials { db_password, db_sslkey, api_keys },
        })
    }

    fn id(&mut self, top: &Object<'a>, file_name: &str) -> Option<TenantId> {
        let text = self.required_text(top, "tenant_id")?;
        let (field, value) = (top.field("tenant_id"), top.get("tenant_id")?);
        match TenantId::parse(&text, self.surroundings.id_rule) {
            Ok(id) if format!("{id}.json") == file_name => Some(id),
            Ok(_) => {
                let message = "the file must be named {tenant_id}.json";
                self.problem(&field, value.get(), message);
                None
            }
            Err(invalid) => {
                self.problem(&field, value.get(), format!("INVALID_TENANT: {invalid}"));
                None
            }
        }
    }

    fn connection(&mut self, top: &Object<'a>) -> Option<Connection> {
        let engines = [("postgres", false), ("sqlite", true)];
        let is_sqlite = self.choice(top, "db_engine", &engines).unwrap_or(Some(false))?;
        if is_sqlite {
            for name in POSTGRES_ONLY {
                if let Some(value) = top.get(name) {
                    self.problem(&top.field(name), value.get(), "does not apply to sqlite");
                }
            }
            let path = self.required_text(top, "db_path")?;
            let is_plain = |part: &str| !matches!(part, "" | "." | "..");
            if path.contains(['\\', '\0']) || !path.split('/').all(is_plain) {
                let message = "must be a relative path without \"..\", below sqlite_root";
                self.problem(&top.field("db_path"), top.get("db_path")?.get(), message);
                return None;
            }
            return Some(Connection::Sqlite { path: path.as_str().to_owned() });
        }
        if let Some(value) = top.get("db_path") {
            let message = "applies to sqlite only; set \"db_engine\": \"sqlite\"";
            self.problem(&top.field("db_path"), value.get(), message);
        }
        let host = self.required_text(top, "db_host");
        let port = self.integer(top, "db_port", 1, 65_535);
        let database = self.required_name(top, "db_name");
        let user = self.required_name(top, "db_user");
        let schema = match top.get("db_schema") {
            Some(_) => self.required_name(top, "db_schema"),
            None => Some("public".to_owned()),
        };
        let tenant_variable = self.tenant_variable(top);
        let modes = [TlsMode::Disable, TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull]
            .map(|mode| (mode.as_str(), mode));
        let tls = self.choice(top, "db_sslmode", &modes);
        let root_certificates = self.certificates(top, "db_sslrootcert");
        let client_certificate = self.certificates(top, "db_sslcert");
        let host = host?;
        if host.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control())
            || host.len() > 255
        {
            let message = "must be one host name, address, or socket directory";
            self.problem(&top.field("db_host"), top.get("db_host")?.get(), message);
            return None;
        }
        let is_local = host.starts_with('/')
            || host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let tls = match tls {
            Some(mode) => mode?,
            None if is_local => TlsMode::Disable,
            None => TlsMode::VerifyFull,
        };
        if tls == TlsMode::Disable
            && let Some(value) = top.get("db_sslcert")
        {
            let message = "needs TLS: set db_sslmode, verify-full for one";
            self.problem(&top.field("db_sslcert"), value.get(), message);
        }
        Some(Connection::Postgres(PostgresTarget {
            host,
            port: u16::try_from(port.unwrap_or(5_432)).ok()?,
            database: database?,
            user: user?,
            tls,
            root_certificates,
            client_certificate,
            schema: schema?,
            tenant_variable: tenant_variable?,
        }))
    }

    /// Nothing where it is there and not good.
    #[expect(clippy::option_option, reason = "absent is as good as a name")]
    fn tenant_variable(&mut self, top: &Object<'a>) -> Option<Option<String>> {
        const NAME: &str = "db_tenant_variable";
        let Some(value) = top.get(NAME) else { return Some(None) };
        let name = self.required_name(top, NAME)?;
        let is_word = |word: &str| {
            word.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        // Without a dot it would be a setting of the server's own, such as its time limit.
        if name.contains('.') && name.split('.').all(is_word) {
            return Some(Some(name));
        }
        let message = "must be a name of your own such as \"app.tenant_id\": lower-case letters, \
                       digits and _, with a dot";
        self.problem(&top.field(NAME), value.get(), message);
        None
    }

    fn certificates(&mut self, top: &Object<'a>, name: &str) -> Option<String> {
        let value = top.get(name)?;
        let path = self.required_text(top, name)?;
        let pem = (self.surroundings.certificate)(&path);
        pem.map_err(|message| self.problem(&top.field(name), value.get(), message)).ok()
    }

    /// The key of the client certificate. What fits into its record is any but the longest RSA keys.
    fn private_key(&mut self, top: &Object<'a>) -> Option<SecretText> {
        let key = self.optional_secret(top, "db_sslkey");
        // One problem is enough: SQLite has neither.
        let both = ["db_sslcert", "db_sslkey"];
        if self.problems.iter().any(|problem| both.contains(&problem.field.as_str())) {
            return key;
        }
        let message = match (&key, top.get("db_sslcert"), top.get("db_sslkey")) {
            (Some(key), _, _) if !is_private_key(key) => {
                "must be a private key in PEM, without a passphrase: \"-----BEGIN PRIVATE KEY-----\" \
                 and so on"
            }
            (Some(_), None, _) => "needs db_sslcert, the certificate that it belongs to",
            // Not where the key has a problem of its own.
            (None, Some(certificate), None) => {
                let message = "needs db_sslkey, its private key";
                self.problem(&top.field("db_sslcert"), certificate.get(), message);
                return None;
            }
            _ => return key,
        };
        self.problem(&top.field("db_sslkey"), top.get("db_sslkey")?.get(), message);
        None
    }

    fn api_keys(&mut self, top: &Object<'a>) -> BTreeMap<String, SecretText> {
        let mut keys = BTreeMap::new();
        let Some(section) = self.open_section(top, "api_keys") else { return keys };
        if section.members.len() > MAX_API_KEYS {
            let message = format!("at most {MAX_API_KEYS} keys");
            self.problem(&top.field("api_keys"), section.value, message);
        }
        for member in &section.members {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            if !(1..=32).contains(&member.key.len()) || !member.key.bytes().all(is_name) {
                let message = "a provider name has 1 to 32 letters, digits, \"_\" and \"-\"";
                self.problem(&Field("api_keys".to_owned()), member.value.get(), message);
            } else if let Some(secret) = self.optional_secret(&section, &member.key) {
                keys.insert(member.key.clone().into_owned(), secret);
            }
        }
        keys
    }

    fn features(&mut self, top: &Object<'a>) -> BTreeMap<String, bool> {
        let Some(section) = self.open_section(top, "features") else { return BTreeMap::new() };
        let mut features = BTreeMap::new();
        for member in &section.members {
            if !(1..=MAX_NAME).contains(&member.key.len()) || member.key.contains(char::is_control)
            {
                let message = format!("a feature's name has 1 to {MAX_NAME} printable bytes");
                self.problem(&Field("features".to_owned()), member.value.get(), message);
            } else if let Some(enabled) = flag(member.value) {
                features.insert(member.key.clone().into_owned(), enabled);
            } else {
                let field = section.field(&printable(&member.key));
                self.problem(&field, member.value.get(), "must be true or false");
            }
        }
        features
    }

    fn quotas(&mut self, section: &Object<'a>) -> Quotas {
        let concurrent = self.integer(section, "max_concurrent_connections", 0, u32::MAX.into());
        Quotas {
            max_queries_per_hour: self.integer(section, "max_queries_per_hour", 0, u64::MAX),
            max_queries_per_day: self.integer(section, "max_queries_per_day", 0, u64::MAX),
            max_concurrent_connections: concurrent.and_then(|limit| u32::try_from(limit).ok()),
            max_denied_per_hour: self.integer(section, "max_denied_per_hour", 0, u64::MAX),
        }
    }

    fn access(&mut self, section: &Object<'a>) -> Access {
        let modes = [AccessMode::ReadOnly, AccessMode::ReadWrite].map(|mode| (mode.as_str(), mode));
        Access {
            mode: self.choice(section, "mode", &modes).flatten().unwrap_or_default(),
            tables: self.list(
                section,
                "tables",
                "\"name\" or \"schema.name\"",
                |parts| match parts {
                    [name] => Some(relation(None, name)),
                    [schema, name] => Some(relation(Some(schema), name)),
                    _ => None,
                },
            ),
            deny_columns: self
                .list(section, "deny_columns", "\"table.column\"", |parts| match parts {
                    [table, column] => Some(column_of(relation(None, table), column)),
                    [schema, table, column] => {
                        Some(column_of(relation(Some(schema), table), column))
                    }
                    _ => None,
                })
                .unwrap_or_default(),
        }
    }

    fn limits(&mut self, section: &Object<'a>) -> Limits {
        let default = Limits::default();
        let in_u32 = |limit: Option<u64>| limit.and_then(|limit| u32::try_from(limit).ok());
        Limits {
            statement_timeout: self
                .integer(section, "statement_timeout_ms", 1, 3_600_000)
                .map_or(default.statement_timeout, Duration::from_millis),
            max_rows: in_u32(self.integer(section, "max_rows", 1, 1_000_000))
                .unwrap_or(default.max_rows),
            max_result_bytes: in_u32(self.integer(section, "max_result_bytes", 1 << 10, 256 << 20))
                .unwrap_or(default.max_result_bytes),
        }
    }
}

/// True or false. Not with the parser, whose error would quote what is there instead.
fn flag(value: &RawValue) -> Option<bool> {
    match value.get() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Whether `text` looks like a key that is not encrypted. Of which kind, the login finds out.
fn is_private_key(text: &SecretText) -> bool {
    let text = exposed(text);
    ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"].iter().any(|kind| {
        let (begin, end) = (format!("-----BEGIN {kind}-----"), format!("-----END {kind}-----"));
        text.contains(&begin) && text.contains(&end) && !text.contains("ENCRYPTED")
    })
}

fn relation(schema: Option<&str>, name: &str) -> RelationName {
    RelationName { schema: schema.map(str::to_owned), name: name.to_owned() }
}

fn column_of(relation: RelationName, column: &str) -> ColumnName {
    ColumnName { relation, column: column.to_owned() }
}

fn section_fields(section: &str) -> &'static [&'static str] {
    match section {
        "quotas" => &[
            "max_queries_per_hour",
            "max_queries_per_day",
            "max_concurrent_connections",
            "max_denied_per_hour",
        ],
        "access" => &["mode", "tables", "deny_columns"],
        LIMITS => &["statement_timeout_ms", "max_rows", "max_result_bytes"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
