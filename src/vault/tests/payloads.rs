//! The golden payloads of tests/vectors: what each form of each record says.

use std::time::Duration;

use super::*;
use crate::tenant::AccessMode;
use crate::vault::backup::KnownBackup;
use crate::vault::operator;
use crate::vault::record::{
    Certificates, Directory, Field, FieldId, decode_config, decode_token, encode_config,
    encode_token,
};

const VECTOR: &str = include_str!("../../../tests/vectors/payloads.txt");
const TENANT: &str = "Tenant_001";

fn made() -> Timestamp {
    Timestamp::new(1_795_305_600, 5).unwrap()
}

fn later() -> Timestamp {
    Timestamp::from_second(1_795_305_660).unwrap()
}

fn last() -> Timestamp {
    Timestamp::from_second(1_795_392_000).unwrap()
}

#[test]
fn the_golden_directory_is_written_and_read_byte_for_byte() {
    let field = |id, version, chunks, name: &str, set_at, fingerprint| Field {
        id,
        version,
        chunks,
        name: name.to_owned(),
        set_at,
        fingerprint,
    };
    let directory = Directory {
        id: id(TENANT),
        uuid: Uuid([0x52; 16]),
        enabled: true,
        created_at: made(),
        updated_at: last(),
        version: 3,
        fields: vec![
            field(FieldId(0x0101), 2, 1, "api_keys.openai", later(), [0xf1, 0xf2, 0xf3, 0xf4]),
            field(FieldId::CONFIG, 3, 2, "config", last(), [0; 4]),
        ],
    };
    let bytes = vector(VECTOR, "directory");
    assert_eq!(directory.encode(), bytes);
    assert_eq!(Directory::decode(&bytes), Ok(directory));
}

#[test]
fn the_golden_configurations_are_written_and_read_byte_for_byte() {
    let relation = |schema: Option<&str>, name: &str| RelationName {
        schema: schema.map(str::to_owned),
        name: name.to_owned(),
    };
    let target = PostgresTarget {
        host: "db.example.com".to_owned(),
        port: 5432,
        database: "shop".to_owned(),
        user: "reader".to_owned(),
        tls: TlsMode::VerifyFull,
        root_certificates: None,
        client_certificate: None,
        schema: "public".to_owned(),
        tenant_variable: None,
    };
    let postgres = TenantConfig {
        id: id(TENANT),
        connection: Connection::Postgres(target.clone()),
        access: Access {
            mode: AccessMode::ReadOnly,
            tables: Some(vec![relation(Some("sales"), "orders")]),
            deny_columns: vec![ColumnName {
                relation: relation(None, "customers"),
                column: "password_hash".to_owned(),
            }],
        },
        limits: Limits {
            statement_timeout: Duration::from_millis(30_500),
            max_rows: 1_000,
            max_result_bytes: 4_194_304,
        },
        quotas: Quotas {
            max_queries_per_hour: Some(1_000),
            max_queries_per_day: None,
            max_concurrent_connections: Some(5),
            max_denied_per_hour: None,
        },
        features: BTreeMap::from([("premium_support".to_owned(), true)]),
    };
    let tenant_variable = Some("app.tenant".to_owned());
    let target = PostgresTarget { tenant_variable, ..target };
    let variable = TenantConfig { connection: Connection::Postgres(target), ..postgres.clone() };
    let sqlite = TenantConfig {
        connection: Connection::Sqlite { path: "shop.db".to_owned() },
        access: Access { mode: AccessMode::ReadWrite, ..Access::default() },
        quotas: Quotas::default(),
        features: BTreeMap::new(),
        ..postgres.clone()
    };
    let quotas = Quotas { max_denied_per_hour: Some(0), ..Quotas::default() };
    let limited = TenantConfig { quotas, ..sqlite.clone() };
    for (name, config) in [
        ("config_1_postgres", postgres),
        ("config_1_variable", variable),
        ("config_1_sqlite", sqlite),
        ("config_2_sqlite", limited),
    ] {
        let bytes = vector(VECTOR, name);
        assert_eq!(encode_config(&config), bytes, "{name}");
        assert_eq!(
            decode_config(id(TENANT), Certificates::default(), &bytes),
            Ok(config),
            "{name}"
        );
    }
}

#[test]
fn the_golden_tokens_are_written_and_read_byte_for_byte() {
    let token = TokenRecord {
        token_id: "tok_0123456789ab".to_owned(),
        tenant: id(TENANT),
        scopes: vec!["list".to_owned(), "query".to_owned()],
        created_at: made(),
        expires_at: None,
        used_at: None,
    };
    let expiring = TokenRecord { expires_at: Some(last()), ..token.clone() };
    let used = TokenRecord { used_at: Some(later()), ..expiring.clone() };
    for (name, token) in [("token_1", token), ("token_1_expiry", expiring), ("token_2", used)] {
        let bytes = vector(VECTOR, name);
        assert_eq!(encode_token(&token), bytes, "{name}");
        assert_eq!(decode_token(&bytes), Ok(token), "{name}");
    }
}

#[test]
fn the_golden_operators_are_written_and_read_byte_for_byte() {
    let operator = |id: &str, role: &str, created_at, expires_at| OperatorRecord {
        operator_id: id.to_owned(),
        role: role.to_owned(),
        created_at,
        expires_at,
    };
    let known = vec![
        (operator("op_0123456789ab", "operator", made(), None), [0xd1; 32]),
        (operator("op_ba9876543210", "auditor", later(), Some(last())), [0xd2; 32]),
    ];
    let bytes = vector(VECTOR, "operators");
    assert_eq!(operator::encode(&known), bytes);
    assert_eq!(operator::decode(&bytes), Ok(known));
}

#[test]
fn the_golden_backups_are_written_and_read_byte_for_byte() {
    for (name, verified_at, is_scheduled) in
        [("backup", None, false), ("backup_tried", Some(last()), true)]
    {
        let bytes = vector(VECTOR, name);
        let backup = KnownBackup::decode(&bytes).unwrap();
        assert_eq!(backup.encode(), bytes, "{name}");
        assert_eq!(backup.id.to_string(), "b1".repeat(16));
        assert_eq!(backup.path, Path::new("/mnt/one.backup"));
        assert_eq!((backup.created_at, backup.commit), (made(), 258));
        assert_eq!((backup.records, backup.bytes), (51, 90_210));
        assert_eq!((backup.verified_at, backup.is_scheduled), (verified_at, is_scheduled));
    }
}
