use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;
use tenantry::database::{Database, Error};
use tenantry::memory::SecretText;
use tenantry::tenant::{Access, Connection, Credentials, Limits, PostgresTarget, TlsMode};
use tokio_postgres::{SimpleColumn, SimpleQueryMessage};

use super::{ask, ask_within, connect, corpus, rows};

/// What `tests/support/postgres.sh` says about the server that it started.
#[expect(clippy::disallowed_methods, reason = "how the test runner hands the server over")]
fn told(name: &str) -> String {
    std::env::var(name).expect("run ./dev test, which starts a private Postgres")
}

async fn open() -> Box<dyn Database> {
    let target = PostgresTarget {
        host: "localhost".to_owned(),
        port: told("TENANTRY_TEST_PG_PORT").parse().unwrap(),
        database: "postgres".to_owned(),
        user: told("TENANTRY_TEST_PG_SUPERUSER"),
        tls: TlsMode::VerifyFull,
        root_certificates: Some(std::fs::read_to_string(told("TENANTRY_TEST_PG_CA")).unwrap()),
        schema: "corpus".to_owned(),
        tenant_variable: None,
    };
    let db_password = Some(SecretText::from(told("TENANTRY_TEST_PG_PASSWORD").as_str()));
    let credentials = Credentials { db_password, ..Credentials::default() };
    let connection = Connection::Postgres(target);
    connect(connection, Access::default(), &credentials, Path::new("/nowhere")).await.unwrap()
}

/// A client that asks as `psql` does: the text as it is, and texts for answers.
async fn plain_client() -> tokio_postgres::Client {
    static MADE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(told("TENANTRY_TEST_PG_PORT").parse().unwrap())
        .user(told("TENANTRY_TEST_PG_SUPERUSER"))
        .password(told("TENANTRY_TEST_PG_PASSWORD"))
        .dbname("postgres");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(connection);
    MADE.get_or_init(|| async {
        client.batch_execute(include_str!("schema_postgres.sql")).await.unwrap();
    })
    .await;
    // Our form of an interval is the server's ISO 8601.
    client.batch_execute("SET search_path = corpus; SET intervalstyle = iso_8601").await.unwrap();
    client
}

#[tokio::test]
async fn honest_queries_run_and_answer_as_psql_does() {
    let client = plain_client().await;
    let mut session = open().await;
    let mut wrong = String::new();
    let blocks = corpus::blocks(include_str!("honest_postgres.sql"));
    for block in &blocks {
        let outcome = match ask(&mut *session, &block.sql, "corpus").await {
            Err(refused) => Err(refused),
            Ok(answer) => {
                let types: Vec<&str> =
                    answer.columns.iter().map(|column| &*column.type_name).collect();
                let names: Vec<&str> = answer.columns.iter().map(|column| &*column.name).collect();
                let told = client.simple_query(&block.sql).await.unwrap();
                compare(&names, &types, &rows(&answer), &told)
            }
        };
        if let Err(reason) = outcome {
            writeln!(wrong, "{}: {reason}", block.name).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(blocks.len() >= 140, "{}", blocks.len());
}

fn compare(
    names: &[&str],
    types: &[&str],
    ours: &[Vec<Value>],
    theirs: &[SimpleQueryMessage],
) -> Result<(), String> {
    let mut their_rows = Vec::new();
    for message in theirs {
        if let SimpleQueryMessage::RowDescription(columns) = message {
            let columns: Vec<&str> = columns.iter().map(SimpleColumn::name).collect();
            if columns != names {
                return Err(format!("columns {names:?}, but psql has {columns:?}"));
            }
        } else if let SimpleQueryMessage::Row(row) = message {
            their_rows.push(row);
        }
    }
    if ours.len() != their_rows.len() {
        return Err(format!("{} rows, but psql has {}", ours.len(), their_rows.len()));
    }
    for (row, their_row) in ours.iter().zip(their_rows) {
        for (position, (value, ty)) in row.iter().zip(types).enumerate() {
            let their_value = their_row.get(position);
            if !is_same(ty, value, their_value) {
                return Err(format!("{ty} {value}, but psql has {their_value:?}"));
            }
        }
    }
    Ok(())
}

/// Whether `ours` is the JSON form of what the server writes as `theirs`.
fn is_same(ty: &str, ours: &Value, theirs: Option<&str>) -> bool {
    let Some(theirs) = theirs else { return ours.is_null() };
    match ty {
        "json" | "jsonb" => serde_json::from_str::<Value>(theirs).is_ok_and(|it| it == *ours),
        "float4" | "float8" => written(ty, ours).parse::<f64>().ok().is_some_and(|number| {
            theirs.parse::<f64>().is_ok_and(|it| it.to_bits() == number.to_bits())
        }),
        _ => written(ty, ours) == theirs,
    }
}

/// A value as the server writes it.
fn written(ty: &str, value: &Value) -> String {
    match (ty, value) {
        (_, Value::Array(items)) => {
            let element = ty.trim_start_matches('_');
            let items: Vec<String> = items.iter().map(|item| element_of(element, item)).collect();
            format!("{{{}}}", items.join(","))
        }
        (_, Value::Bool(value)) => if *value { "t" } else { "f" }.to_owned(),
        ("timestamp", Value::String(text)) => text.replace('T', " "),
        ("timestamptz", Value::String(text)) => text.replace('T', " ").replace('Z', "+00"),
        ("timetz", Value::String(text)) => text.replace(":00", ""),
        ("bytea", Value::String(text)) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
            bytes.iter().fold("\\x".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
        }
        (_, Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    }
}

fn element_of(ty: &str, value: &Value) -> String {
    if value.is_null() {
        return "NULL".to_owned();
    }
    let text = written(ty, value);
    let is_plain = !text.is_empty()
        && !text.eq_ignore_ascii_case("null")
        && !text.contains(['{', '}', ',', '"', '\\', ' ', '\t', '\n']);
    if is_plain || value.is_array() {
        text
    } else {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// What no list can tell from honest work costs its limits, and nothing more.
#[tokio::test]
async fn costly_statements_end_at_the_limits() {
    drop(plain_client().await);
    let mut session = open().await;
    let limits = Limits { statement_timeout: Duration::from_millis(300), ..Limits::default() };
    let mut wrong = String::new();
    for block in corpus::blocks(include_str!("costly_postgres.sql")) {
        let started = tokio::time::Instant::now();
        let answer = ask_within(&mut *session, &block.sql, "corpus", &limits).await;
        let took = started.elapsed();
        let is_bounded = match &answer {
            Ok(answer) => answer.rows.len() <= 1_000,
            // The server's own bounds: of a value, of a number, of its stack.
            Err(Error::Failed { sqlstate: Some(code), .. }) => {
                matches!(&**code, "54000" | "54001" | "22003")
            }
            Err(error) => matches!(error, Error::Timeout | Error::TooLarge),
        };
        if !is_bounded || took > Duration::from_secs(5) {
            let answer = answer.map(|answer| answer.rows.len());
            writeln!(wrong, "{}: {answer:?} after {took:?}", block.name).unwrap();
        }
        if session.is_broken() {
            session = open().await;
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
