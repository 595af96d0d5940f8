//! Settings of the process: `tenantry.toml`, overridden by `TENANTRY_<SECTION>__<KEY>`.
//!
//! Every section fills the `Options` of one module. A key that no section knows is an error, so a
//! misspelt limit does not silently stay at its default. No setting holds a secret.

mod admin;
mod auth;
mod error;
mod http;
mod reload;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format as _, Toml};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::database::AddressPolicy;
use crate::network::Network;
use crate::pool::{self, OnChange};
use crate::tenant::{IdRule, TenantId};
use crate::vault::backup::Schedule;
use crate::{database, store, telemetry, vault};

pub use admin::AdminSettings;
pub use auth::{AuthSettings, IssuerSettings};
pub use error::Error;
pub use http::{
    ClientCertificatesSetting, ForwardedHeaderSetting, HttpSettings, TlsSettings, TlsVersion,
};
pub use reload::Reloaded;

/// The file that is read when it is there and no other is named.
pub const DEFAULT_FILE: &str = "tenantry.toml";

/// All settings, with a default for each.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// Which tenant ids are admitted.
    pub tenant_id: TenantIdSettings,
    /// Opened credentials.
    pub vault: VaultSettings,
    /// Backups that the service makes by itself.
    pub backup: BackupSettings,
    /// The disk.
    pub store: StoreSettings,
    /// Instances.
    pub pool: PoolSettings,
    /// Sessions with tenant databases.
    pub database: DatabaseSettings,
    /// The MCP endpoint.
    pub http: HttpSettings,
    /// Who may call.
    pub auth: AuthSettings,
    /// The admin API.
    pub admin: AdminSettings,
    /// The process log.
    pub log: LogSettings,
}

/// `[tenant_id]`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TenantIdSettings {
    /// Also admit `_`, after the first character. Default false.
    pub allow_underscore: bool,
}

/// `[vault]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct VaultSettings {
    /// How long opened credentials stay in memory. Default 300.
    pub credential_ttl_seconds: u64,
    /// Whether a passphrase slot whose key derivation is too cheap by now is given the default cost
    /// when it next opens. Default true.
    pub upgrade_kdf: bool,
    /// The program of the command slot, and its arguments; words are split at spaces. Default none.
    pub key_command: Option<String>,
    /// How many records a running service seals under new keys in a second; 0 stops it. Default
    /// 2000.
    pub reseal_records_per_second: usize,
}

/// `[backup]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BackupSettings {
    /// Where scheduled backups go. Default none.
    pub directory: Option<PathBuf>,
    /// How many hours after one the next is made; 0: none is. Default 0.
    pub every_hours: u32,
    /// How many scheduled backups stay. Default 7.
    pub keep: u32,
}

/// `[store]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct StoreSettings {
    /// How much of the disk is taken in advance, to be given up when others have filled it; at most
    /// a sixteenth of the disk is. Default 64.
    pub ballast_mib: u64,
    /// How many records a running service checks in a second, once a day each; 0 stops it. Default
    /// 2000.
    pub scrub_records_per_second: usize,
}

/// `[pool]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PoolSettings {
    /// Most instances of one tenant. Default 5.
    pub max_instances_per_tenant: u32,
    /// Most sessions of all tenants together. Default 1000.
    pub max_sessions: u32,
    /// Most calls of one tenant that wait for an instance. Default 200.
    pub max_waiting_per_tenant: u32,
    /// Most calls that wait; beyond it, one of each tenant. Default 10000.
    pub max_waiting: u32,
    /// How long an instance stays when nobody uses it. Default 600.
    pub idle_timeout_seconds: u64,
    /// How many instances of a tenant are opened before anybody asks, and stay, by tenant. Default
    /// none.
    pub min_idle: BTreeMap<String, u32>,
    /// How long a call waits for an instance. Default 5000.
    pub acquire_timeout_ms: u64,
    /// How long a call may take in all, whatever the tenant's limits are. Default 300.
    pub call_timeout_seconds: u64,
    /// What a change of a tenant does to its calls under way. Default `finish`.
    #[serde(serialize_with = "as_word")]
    pub on_change: OnChange,
}

/// `[database]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DatabaseSettings {
    /// Where `db_path` of SQLite tenants is looked up. Default `databases` in the data directory.
    pub sqlite_root: Option<PathBuf>,
    /// How long opening a session may take. Default 10000.
    pub connect_timeout_ms: u64,
    /// Whether servers on loopback, in private networks or behind a Unix socket are refused: for
    /// where those who write tenant files may not reach what this host can. Default false.
    pub deny_private_addresses: bool,
    /// Networks, such as `10.1.0.0/16`, whose addresses are never refused. Beside private ones with
    /// the setting before, link-local addresses are refused unless they are here: clouds serve
    /// credentials there. Default none.
    #[serde(deserialize_with = "networks", serialize_with = "as_texts")]
    pub allowed_addresses: Vec<Network>,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug` or `trace`. Default `info`.
    pub level: LogLevel,
    /// `text` or `json`. Default `text`.
    pub format: telemetry::Format,
}

/// `log.level`
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, missing_docs, reason = "the levels of tracing")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// A setting, for people.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a line of a listing")]
pub struct Setting {
    /// Such as `pool.idle_timeout_seconds`.
    pub name: String,
    /// Its value in JSON.
    pub value: Value,
    /// Where it was set.
    pub source: Source,
}

/// Where a setting comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "all that is read")]
pub enum Source {
    /// Nobody set it.
    Default,
    /// A variable `TENANTRY_<SECTION>__<KEY>`.
    Environment,
    /// This file.
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Environment => f.write_str("environment"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { ballast_mib: 64, scrub_records_per_second: 2_000 }
    }
}

impl Default for VaultSettings {
    fn default() -> Self {
        Self {
            credential_ttl_seconds: 300,
            upgrade_kdf: true,
            key_command: None,
            reseal_records_per_second: 2_000,
        }
    }
}

impl Default for BackupSettings {
    fn default() -> Self {
        Self { directory: None, every_hours: 0, keep: 7 }
    }
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            max_instances_per_tenant: 5,
            max_sessions: 1_000,
            max_waiting_per_tenant: 200,
            max_waiting: 10_000,
            idle_timeout_seconds: 600,
            min_idle: BTreeMap::new(),
            acquire_timeout_ms: 5_000,
            call_timeout_seconds: 300,
            on_change: OnChange::default(),
        }
    }
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            sqlite_root: None,
            connect_timeout_ms: 10_000,
            deny_private_addresses: false,
            allowed_addresses: Vec::new(),
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: telemetry::Format::Text }
    }
}

impl Settings {
    /// Reads `file`, which must be there, or [`DEFAULT_FILE`], which need not, and the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        if file.is_some() && !path.is_file() {
            let message = "no such file".to_owned();
            return Err(Error { place: path.display().to_string(), message });
        }
        let sources = Self::sources(path);
        let settings: Self =
            sources.extract().map_err(|error| Error::reading(&sources, path, &error))?;
        settings.check().map_err(|error| error.placed(&sources, path))?;
        Ok(settings)
    }

    /// Every setting with its value, and where it was set; `file` as for [`Settings::load`].
    pub fn explain(&self, file: Option<&Path>) -> Vec<Setting> {
        let sources = Self::sources(file.unwrap_or(Path::new(DEFAULT_FILE)));
        let sections = serde_json::to_value(self).unwrap_or_default();
        let mut explained = Vec::new();
        for (section, settings) in sections.as_object().into_iter().flatten() {
            for (name, value) in named(section, settings) {
                let source = match sources.find_metadata(&name) {
                    None => Source::Default,
                    Some(metadata) => {
                        match metadata.source.as_ref().and_then(|it| it.file_path()) {
                            Some(path) => Source::File(path.to_owned()),
                            None => Source::Environment,
                        }
                    }
                };
                explained.push(Setting { name, value, source });
            }
        }
        explained
    }

    fn sources(path: &Path) -> Figment {
        // A path that is not there is as good as an empty file. Absolute, for `Toml::file` would
        // look for a relative one in every parent directory too.
        let from_file = Toml::file(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        // Without "__" it is no setting: TENANTRY_PASSPHRASE, say, which must not be read here.
        let from_environment =
            Env::prefixed("TENANTRY_").filter(|key| key.as_str().contains("__")).split("__");
        Figment::from(from_file).merge(from_environment)
    }

    fn check(&self) -> Result<(), Error> {
        let refuse = |place: &str, message: &str| {
            Err(Error { place: place.to_owned(), message: message.to_owned() })
        };
        if self.pool.max_instances_per_tenant == 0 {
            return refuse("pool.max_instances_per_tenant", "must be at least 1");
        }
        if self.pool.max_sessions == 0 {
            return refuse("pool.max_sessions", "must be at least 1");
        }
        if let Some((id, error)) = self
            .pool
            .min_idle
            .keys()
            .find_map(|id| TenantId::parse(id, self.id_rule()).err().map(|error| (id, error)))
        {
            return refuse(&format!("pool.min_idle.{id}"), &error.to_string());
        }
        let kept = self.pool.min_idle.values().map(|count| u64::from(*count)).sum::<u64>();
        if kept >= self.pool.max_sessions.into() {
            let message = "all of it together must be less than pool.max_sessions: other tenants \
                           need sessions too";
            return refuse("pool.min_idle", message);
        }
        if self.backup.every_hours > 0 && self.backup.directory.is_none() {
            return refuse("backup.directory", "must be set for backup.every_hours to have effect");
        }
        if self.backup.keep == 0 {
            return refuse("backup.keep", "must be at least 1");
        }
        self.auth_options()?;
        self.admin.check()?;
        self.check_listen(self.http.listen)
    }

    /// Refuses to send tokens and data over a network in clear text, by mistake at least.
    pub fn check_listen(&self, listen: SocketAddr) -> Result<(), Error> {
        self.http.check(listen)
    }

    /// The rule for tenant ids.
    pub fn id_rule(&self) -> IdRule {
        if self.tenant_id.allow_underscore { IdRule::AllowUnderscore } else { IdRule::Alphanumeric }
    }

    /// For [`vault`].
    pub fn vault_options(&self) -> vault::Options {
        vault::Options {
            credential_ttl: Duration::from_secs(self.vault.credential_ttl_seconds),
            upgrade_cost: self.vault.upgrade_kdf,
            store: store::Options { ballast_bytes: self.store.ballast_mib.saturating_mul(1 << 20) },
        }
    }

    /// For [`crate::manager`]: when backups are made, if they are.
    pub fn backup_schedule(&self) -> Option<Schedule> {
        let BackupSettings { directory, every_hours, keep } = &self.backup;
        let directory = directory.as_ref().filter(|_| *every_hours > 0)?;
        Some(Schedule {
            directory: std::path::absolute(directory).unwrap_or_else(|_| directory.clone()),
            every: Duration::from_hours((*every_hours).into()),
            keep: usize::try_from(*keep).unwrap_or(usize::MAX),
        })
    }

    /// For [`pool`], with SQLite files looked up below `data_directory` unless set otherwise.
    pub fn pool_options(&self, data_directory: &Path) -> pool::Options {
        let sqlite_root = self.database.sqlite_root.clone();
        let min_idle =
            self.pool.min_idle.iter().filter_map(|(id, count)| {
                Some((TenantId::parse(id, self.id_rule()).ok()?, *count))
            });
        let min_idle = min_idle.collect();
        pool::Options {
            max_instances_per_tenant: self.pool.max_instances_per_tenant,
            max_sessions: self.pool.max_sessions,
            max_waiting_per_tenant: self.pool.max_waiting_per_tenant,
            max_waiting: self.pool.max_waiting,
            idle_timeout: Duration::from_secs(self.pool.idle_timeout_seconds),
            min_idle,
            acquire_timeout: Duration::from_millis(self.pool.acquire_timeout_ms),
            call_timeout: Duration::from_secs(self.pool.call_timeout_seconds),
            on_change: self.pool.on_change,
            database: database::Options {
                sqlite_root: sqlite_root.unwrap_or_else(|| data_directory.join("databases")),
                connect_timeout: Duration::from_millis(self.database.connect_timeout_ms),
                addresses: AddressPolicy {
                    deny_private: self.database.deny_private_addresses,
                    allow: self.database.allowed_addresses.clone(),
                },
            },
        }
    }

    /// For [`crate::api`].
    pub fn admin_options(&self) -> crate::api::Options {
        crate::api::Options { listen: self.admin.listen, id_rule: self.id_rule() }
    }

    /// For [`crate::auth`].
    ///
    /// # Errors
    ///
    /// None that [`Settings::load`] would not have had.
    pub fn auth_options(&self) -> Result<crate::auth::Options, Error> {
        self.auth.options(self.http.public_url()?)
    }

    /// For [`crate::http`].
    pub fn http_options(&self) -> crate::http::Options {
        self.http.options()
    }
}

/// The settings of a section, and of the sections in it, each with its name.
fn named(section: &str, settings: &Value) -> Vec<(String, Value)> {
    let settings = settings.as_object().into_iter().flatten();
    let named = settings.flat_map(|(key, value)| {
        let name = format!("{section}.{key}");
        if value.as_object().is_some_and(|inside| !inside.is_empty()) {
            named(&name, value)
        } else {
            vec![(name, value.clone())]
        }
    });
    named.collect()
}

fn as_texts<S: Serializer>(networks: &[Network], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(networks.iter().map(ToString::to_string))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_word<S: Serializer>(on_change: &OnChange, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(on_change.as_str())
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Network>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parse = |text: &String| {
        text.parse().map_err(|reason| D::Error::custom(format!("{text:?} {reason}")))
    };
    texts.iter().map(parse).collect()
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}
