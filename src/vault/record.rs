//! What stands inside the envelopes of a tenant, and of a token.
//!
//! A tenant is one directory record, which lists the fields of the tenant, and one record per
//! field, several for a field that is too long for one. A credential is the bare secret.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::codec::{Malformed, Reader, Writer};
use super::envelope::RecordKind;
use super::token::TokenRecord;
use super::{CredentialInfo, Uuid};
use crate::tenant::{
    Access, AccessMode, ColumnName, Connection, IdRule, Limits, PostgresTarget, Quotas,
    RelationName, TenantConfig, TenantId, TlsMode,
};

/// First byte of every payload but a credential's, a chunk's after the first, and a certificate's.
const VERSION: u8 = 1;
/// The same of a configuration that limits refused attempts.
const VERSION_DENIED: u8 = 2;
/// The same of a token that was used.
const VERSION_USED: u8 = 2;

/// The number of a field in store keys and in the associated data.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct FieldId(pub(super) u16);

impl FieldId {
    pub(super) const DIRECTORY: Self = Self(0);
    pub(super) const DB_PASSWORD: Self = Self(0x0002);
    pub(super) const DB_SSLKEY: Self = Self(0x0003);
    /// The first of the API keys' numbers, which the directory gives to names.
    pub(super) const API_KEYS: Self = Self(0x0100);
    /// The first chunk; the others follow.
    pub(super) const CONFIG: Self = Self(0x1000);
    /// The first chunk; the others follow.
    pub(super) const CERTIFICATES: Self = Self(0x2000);
    /// The first chunk; the others follow.
    pub(super) const CLIENT_CERTIFICATE: Self = Self(0x3000);

    /// How many numbers each of the ranges above has.
    pub(super) const MAX_API_KEYS: u16 = 0x0100;
    pub(super) const MAX_CHUNKS: u16 = 0x1000;

    /// What has been counted of the tenant. Its directory does not list it: it changes by itself.
    pub(super) const COUNTS: Self = Self(0xf000);
    /// It is replaced where it is.
    pub(super) const COUNTS_VERSION: u64 = 1;

    /// What the records of the field are.
    pub(super) fn kind(self) -> RecordKind {
        if self == Self::DIRECTORY {
            RecordKind::Directory
        } else if self == Self::COUNTS {
            RecordKind::Counts
        } else if self.is_credential() {
            RecordKind::Credential
        } else if self.0 < Self::CERTIFICATES.0 {
            RecordKind::Config
        } else {
            RecordKind::Certificate
        }
    }

    fn is_credential(self) -> bool {
        self == Self::DB_PASSWORD
            || self == Self::DB_SSLKEY
            || (Self::API_KEYS.0..Self::API_KEYS.0 + Self::MAX_API_KEYS).contains(&self.0)
    }
}

/// A tenant's table of contents.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Directory {
    pub(super) id: TenantId,
    pub(super) uuid: Uuid,
    pub(super) enabled: bool,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    /// Counts the changes of the tenant. A field's version is the one at which it was written, so
    /// no field and version come twice.
    pub(super) version: u64,
    pub(super) fields: Vec<Field>,
}

/// A field of a tenant, as its directory lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Field {
    pub(super) id: FieldId,
    pub(super) version: u64,
    pub(super) chunks: u16,
    /// As in the tenant file; `config` for all that has no record of its own.
    pub(super) name: String,
    pub(super) set_at: Timestamp,
    /// Of a credential; else zero.
    pub(super) fingerprint: [u8; Field::FINGERPRINT_LENGTH],
}

impl Field {
    pub(super) const FINGERPRINT_LENGTH: usize = 4;
    const LENGTH: usize = 2 + 8 + 2 + 4 + 12 + Self::FINGERPRINT_LENGTH;

    /// Field number and version of each of its records.
    pub(super) fn records(&self) -> impl Iterator<Item = (u16, u64)> {
        (0..self.chunks).map(|chunk| (self.id.0 + chunk, self.version))
    }
}

impl Directory {
    /// Kind, field number and version of each record of the tenant, the directory's included.
    pub(super) fn records(&self) -> impl Iterator<Item = (RecordKind, u16, u64)> {
        let own = (RecordKind::Directory, FieldId::DIRECTORY.0, self.version);
        let fields = self.fields.iter().flat_map(|field| {
            let kind = field.id.kind();
            field.records().map(move |(number, version)| (kind, number, version))
        });
        std::iter::once(own).chain(fields)
    }

    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The fields that hold a secret.
    pub(super) fn credentials(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| field.id.is_credential())
    }

    /// What an operator may know of the credentials.
    pub(super) fn credential_infos(&self) -> Vec<CredentialInfo> {
        self.credentials()
            .map(|field| CredentialInfo {
                name: field.name.clone(),
                set_at: field.set_at,
                fingerprint: format!("{:08x}", u32::from_be_bytes(field.fingerprint)),
            })
            .collect()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(VERSION);
        writer.text(self.id.as_str());
        writer.raw(&self.uuid.0);
        writer.flag(self.enabled);
        writer.time(self.created_at);
        writer.time(self.updated_at);
        writer.u64(self.version);
        writer.count(self.fields.len());
        for field in &self.fields {
            writer.u16(field.id.0);
            writer.u64(field.version);
            writer.u16(field.chunks);
            writer.text(&field.name);
            writer.time(field.set_at);
            writer.raw(&field.fingerprint);
        }
        writer.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        version(&mut reader)?;
        let directory = Self {
            id: tenant_id(&mut reader)?,
            uuid: Uuid(reader.array()?),
            enabled: reader.flag()?,
            created_at: reader.time()?,
            updated_at: reader.time()?,
            version: reader.u64()?,
            fields: list(&mut reader, Field::LENGTH, |reader| {
                let id = FieldId(reader.u16()?);
                let version = reader.u64()?;
                let chunks = reader.u16()?;
                let name = reader.text()?.to_owned();
                let (set_at, fingerprint) = (reader.time()?, reader.array()?);
                if !(1..=FieldId::MAX_CHUNKS).contains(&chunks)
                    || id.0.checked_add(chunks).is_none()
                {
                    return Err(Malformed);
                }
                Ok(Field { id, version, chunks, name, set_at, fingerprint })
            })?,
        };
        reader.finish()?;
        Ok(directory)
    }
}

/// `config` without its id, which the directory has, and its certificates, which have a field.
pub(super) fn encode_config(config: &TenantConfig) -> Vec<u8> {
    let TenantConfig { id: _, connection, access, limits, quotas, features } = config;
    let mut writer = Writer::default();
    let is_plain = quotas.max_denied_per_hour.is_none();
    writer.u8(if is_plain { VERSION } else { VERSION_DENIED });
    match connection {
        Connection::Postgres(target) => {
            let PostgresTarget {
                host,
                port,
                database,
                user,
                tls,
                root_certificates: _,
                client_certificate: _,
                schema,
                tenant_variable,
            } = target;
            writer.u8(if tenant_variable.is_none() { 1 } else { 3 });
            writer.text(host);
            writer.u16(*port);
            writer.text(database);
            writer.text(user);
            writer.text(tls.as_str());
            writer.text(schema);
            if let Some(variable) = tenant_variable {
                writer.text(variable);
            }
        }
        Connection::Sqlite { path } => {
            writer.u8(2);
            writer.text(path);
        }
    }
    let Access { mode, tables, deny_columns } = access;
    writer.text(mode.as_str());
    writer.optional(tables.as_ref(), |writer, tables| {
        writer.count(tables.len());
        for table in tables {
            write_relation(writer, table);
        }
    });
    writer.count(deny_columns.len());
    for ColumnName { relation, column } in deny_columns {
        write_relation(&mut writer, relation);
        writer.text(column);
    }
    let Limits { statement_timeout, max_rows, max_result_bytes } = limits;
    writer.u64(statement_timeout.as_secs());
    writer.u32(statement_timeout.subsec_nanos());
    writer.u32(*max_rows);
    writer.u32(*max_result_bytes);
    let Quotas {
        max_queries_per_hour,
        max_queries_per_day,
        max_concurrent_connections,
        max_denied_per_hour,
    } = quotas;
    writer.optional(*max_queries_per_hour, Writer::u64);
    writer.optional(*max_queries_per_day, Writer::u64);
    writer.optional(*max_concurrent_connections, Writer::u32);
    if let Some(limit) = max_denied_per_hour {
        writer.u64(*limit);
    }
    writer.count(features.len());
    for (name, enabled) in features {
        writer.text(name);
        writer.flag(*enabled);
    }
    writer.finish()
}

/// What of a config is in records of its own.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    pub(super) roots: Option<String>,
    pub(super) client: Option<String>,
}

/// The config that [`encode_config`] took apart, put together again.
pub(super) fn decode_config(
    id: TenantId,
    certificates: Certificates,
    bytes: &[u8],
) -> Result<TenantConfig, Malformed> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if ![VERSION, VERSION_DENIED].contains(&version) {
        return Err(Malformed);
    }
    let Certificates { roots: root_certificates, client: client_certificate } = certificates;
    let connection = match reader.u8()? {
        kind @ (1 | 3) => Connection::Postgres(PostgresTarget {
            host: reader.text()?.to_owned(),
            port: reader.u16()?,
            database: reader.text()?.to_owned(),
            user: reader.text()?.to_owned(),
            tls: tls_mode(reader.text()?)?,
            root_certificates,
            client_certificate,
            schema: reader.text()?.to_owned(),
            tenant_variable: if kind == 3 { Some(reader.text()?.to_owned()) } else { None },
        }),
        2 if root_certificates.is_none() && client_certificate.is_none() => {
            Connection::Sqlite { path: reader.text()?.to_owned() }
        }
        _ => return Err(Malformed),
    };
    let access = Access {
        mode: access_mode(reader.text()?)?,
        tables: reader.optional(|reader| list(reader, 5, read_relation))?,
        deny_columns: list(&mut reader, 9, |reader| {
            let relation = read_relation(reader)?;
            Ok(ColumnName { relation, column: reader.text()?.to_owned() })
        })?,
    };
    let limits = Limits {
        statement_timeout: duration(&mut reader)?,
        max_rows: reader.u32()?,
        max_result_bytes: reader.u32()?,
    };
    let quotas = Quotas {
        max_queries_per_hour: reader.optional(Reader::u64)?,
        max_queries_per_day: reader.optional(Reader::u64)?,
        max_concurrent_connections: reader.optional(Reader::u32)?,
        max_denied_per_hour: if version == VERSION_DENIED { Some(reader.u64()?) } else { None },
    };
    let mut features = BTreeMap::new();
    for _ in 0..reader.count(5)? {
        if features.insert(reader.text()?.to_owned(), reader.flag()?).is_some() {
            return Err(Malformed);
        }
    }
    reader.finish()?;
    Ok(TenantConfig { id, connection, access, limits, quotas, features })
}

pub(super) fn encode_token(record: &TokenRecord) -> Vec<u8> {
    let TokenRecord { token_id, tenant, scopes, created_at, expires_at, used_at } = record;
    let mut writer = Writer::default();
    writer.u8(if used_at.is_some() { VERSION_USED } else { VERSION });
    writer.text(token_id);
    writer.text(tenant.as_str());
    writer.count(scopes.len());
    for scope in scopes {
        writer.text(scope);
    }
    writer.time(*created_at);
    writer.optional(*expires_at, Writer::time);
    if let Some(used_at) = used_at {
        writer.time(*used_at);
    }
    writer.finish()
}

pub(super) fn decode_token(bytes: &[u8]) -> Result<TokenRecord, Malformed> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if ![VERSION, VERSION_USED].contains(&version) {
        return Err(Malformed);
    }
    let record = TokenRecord {
        token_id: reader.text()?.to_owned(),
        tenant: tenant_id(&mut reader)?,
        scopes: list(&mut reader, 4, |reader| reader.text().map(str::to_owned))?,
        created_at: reader.time()?,
        expires_at: reader.optional(Reader::time)?,
        used_at: if version == VERSION_USED { Some(reader.time()?) } else { None },
    };
    reader.finish()?;
    Ok(record)
}

fn version(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    if reader.u8()? == VERSION { Ok(()) } else { Err(Malformed) }
}

fn tenant_id(reader: &mut Reader<'_>) -> Result<TenantId, Malformed> {
    // The wider rule: what was admitted once stays readable when the setting changes.
    TenantId::parse(reader.text()?, IdRule::AllowUnderscore).map_err(|_| Malformed)
}

fn list<'a, T>(
    reader: &mut Reader<'a>,
    item_size: usize,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    (0..reader.count(item_size)?).map(|_| read(reader)).collect()
}

fn write_relation(writer: &mut Writer, relation: &RelationName) {
    let RelationName { schema, name } = relation;
    writer.optional(schema.as_deref(), Writer::text);
    writer.text(name);
}

fn read_relation(reader: &mut Reader<'_>) -> Result<RelationName, Malformed> {
    let schema = reader.optional(Reader::text)?.map(str::to_owned);
    Ok(RelationName { schema, name: reader.text()?.to_owned() })
}

fn tls_mode(text: &str) -> Result<TlsMode, Malformed> {
    [TlsMode::Disable, TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull]
        .into_iter()
        .find(|mode| mode.as_str() == text)
        .ok_or(Malformed)
}

fn access_mode(text: &str) -> Result<AccessMode, Malformed> {
    [AccessMode::ReadOnly, AccessMode::ReadWrite]
        .into_iter()
        .find(|mode| mode.as_str() == text)
        .ok_or(Malformed)
}

fn duration(reader: &mut Reader<'_>) -> Result<Duration, Malformed> {
    let (seconds, nanoseconds) = (reader.u64()?, reader.u32()?);
    if nanoseconds >= 1_000_000_000 {
        return Err(Malformed);
    }
    Ok(Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::super::tests::id;
    use super::*;

    fn tenant() -> impl Strategy<Value = TenantId> {
        "[A-Za-z0-9][A-Za-z0-9_]{5,19}".prop_map(|text| id(&text))
    }

    fn time() -> impl Strategy<Value = Timestamp> {
        let range = Timestamp::MIN.as_nanosecond()..=Timestamp::MAX.as_nanosecond();
        range.prop_map(|nanosecond| Timestamp::from_nanosecond(nanosecond).unwrap())
    }

    fn relation() -> impl Strategy<Value = RelationName> {
        (option::of(".{0,8}"), ".{0,8}").prop_map(|(schema, name)| RelationName { schema, name })
    }

    fn connection() -> impl Strategy<Value = Connection> {
        let tls = prop_oneof![
            Just(TlsMode::Disable),
            Just(TlsMode::Require),
            Just(TlsMode::VerifyCa),
            Just(TlsMode::VerifyFull)
        ];
        let names = (".{0,20}", option::of(".{0,20}"));
        let postgres = (".{0,20}", any::<u16>(), ".{0,20}", ".{0,20}", tls, names).prop_map(
            |(host, port, database, user, tls, (schema, tenant_variable))| {
                let (root_certificates, client_certificate) = (None, None);
                Connection::Postgres(PostgresTarget {
                    host,
                    port,
                    database,
                    user,
                    tls,
                    root_certificates,
                    client_certificate,
                    schema,
                    tenant_variable,
                })
            },
        );
        prop_oneof![postgres, ".{0,20}".prop_map(|path| Connection::Sqlite { path })]
    }

    fn access() -> impl Strategy<Value = Access> {
        let mode = prop_oneof![Just(AccessMode::ReadOnly), Just(AccessMode::ReadWrite)];
        let column =
            (relation(), ".{0,8}").prop_map(|(relation, column)| ColumnName { relation, column });
        (mode, option::of(vec(relation(), 0..4)), vec(column, 0..4))
            .prop_map(|(mode, tables, deny_columns)| Access { mode, tables, deny_columns })
    }

    fn config() -> impl Strategy<Value = TenantConfig> {
        let limits = (any::<Duration>(), any::<u32>(), any::<u32>()).prop_map(
            |(statement_timeout, max_rows, max_result_bytes)| Limits {
                statement_timeout,
                max_rows,
                max_result_bytes,
            },
        );
        let quotas = (any::<[Option<u64>; 3]>(), any::<Option<u32>>()).prop_map(
            |([per_hour, per_day, denied], max_concurrent_connections)| Quotas {
                max_queries_per_hour: per_hour,
                max_queries_per_day: per_day,
                max_concurrent_connections,
                max_denied_per_hour: denied,
            },
        );
        let features = btree_map(".{0,8}", any::<bool>(), 0..4);
        (tenant(), connection(), access(), limits, quotas, features).prop_map(
            |(id, connection, access, limits, quotas, features)| TenantConfig {
                id,
                connection,
                access,
                limits,
                quotas,
                features,
            },
        )
    }

    fn directory() -> impl Strategy<Value = Directory> {
        let field = (
            0..0x8000_u16,
            any::<u64>(),
            1..=FieldId::MAX_CHUNKS,
            ".{0,20}",
            time(),
            any::<[u8; 4]>(),
        )
            .prop_map(|(id, version, chunks, name, set_at, fingerprint)| Field {
                id: FieldId(id),
                version,
                chunks,
                name,
                set_at,
                fingerprint,
            });
        let times = (time(), time());
        (tenant(), any::<[u8; 16]>(), any::<bool>(), times, any::<u64>(), vec(field, 0..6))
            .prop_map(|(id, uuid, enabled, (created_at, updated_at), version, fields)| Directory {
                id,
                uuid: Uuid(uuid),
                enabled,
                created_at,
                updated_at,
                version,
                fields,
            })
    }

    fn token() -> impl Strategy<Value = TokenRecord> {
        let times = (time(), option::of(time()), option::of(time()));
        (".{0,20}", tenant(), vec(".{0,8}", 0..4), times).prop_map(
            |(token_id, tenant, scopes, (created_at, expires_at, used_at))| TokenRecord {
                token_id,
                tenant,
                scopes,
                created_at,
                expires_at,
                used_at,
            },
        )
    }

    /// Whether neither a part of `bytes` nor more than `bytes` decodes.
    fn strict<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, Malformed>) -> bool {
        (0..bytes.len()).all(|length| decode(&bytes[..length]).is_err())
            && decode(&[bytes, &[0]].concat()).is_err()
    }

    proptest! {
        #[test]
        fn a_config_comes_back(config in config()) {
            let bytes = encode_config(&config);
            let decode = |bytes: &[u8]| decode_config(config.id.clone(), Certificates::default(), bytes);
            prop_assert_eq!(decode(&bytes), Ok(config.clone()));
            prop_assert!(strict(&bytes, decode));
        }

        #[test]
        fn a_directory_comes_back(directory in directory()) {
            let bytes = directory.encode();
            prop_assert_eq!(Directory::decode(&bytes), Ok(directory));
            prop_assert!(strict(&bytes, Directory::decode));
        }

        #[test]
        fn a_token_comes_back(token in token()) {
            let bytes = encode_token(&token);
            prop_assert_eq!(decode_token(&bytes), Ok(token));
            prop_assert!(strict(&bytes, decode_token));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic_and_are_not_rewritten(bytes in vec(any::<u8>(), 0..200)) {
            let bytes = [&[VERSION], &bytes[..]].concat();
            if let Ok(directory) = Directory::decode(&bytes) {
                prop_assert_eq!(directory.encode(), bytes.clone());
            }
            if let Ok(token) = decode_token(&bytes) {
                prop_assert_eq!(encode_token(&token), bytes.clone());
            }
            if let Ok(config) = decode_config(id("tenant001"), Certificates::default(), &bytes) {
                prop_assert_eq!(encode_config(&config), bytes);
            }
        }
    }
}
