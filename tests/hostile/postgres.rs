use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use tenantry::database::{Database, Error};
use tenantry::memory::SecretText;
use tenantry::tenant::{Access, Connection, Credentials, Limits, PostgresTarget, TlsMode};

use super::psql::{as_psql, psql};
use super::{ask, ask_within, connect, corpus};

/// What `tests/support/postgres.sh` says about the server that it started.
#[expect(clippy::disallowed_methods, reason = "how the test runner hands the server over")]
pub(crate) fn told(name: &str) -> String {
    std::env::var(name).expect("run ./dev test, which starts a private Postgres")
}

async fn open() -> Box<dyn Database> {
    open_with("corpus", Access::default()).await
}

pub(crate) async fn open_with(schema: &str, access: Access) -> Box<dyn Database> {
    let target = PostgresTarget {
        host: "localhost".to_owned(),
        port: told("TENANTRY_TEST_PG_PORT").parse().unwrap(),
        database: "postgres".to_owned(),
        user: told("TENANTRY_TEST_PG_SUPERUSER"),
        tls: TlsMode::VerifyFull,
        root_certificates: Some(std::fs::read_to_string(told("TENANTRY_TEST_PG_CA")).unwrap()),
        client_certificate: None,
        schema: schema.to_owned(),
        tenant_variable: None,
    };
    let db_password = Some(SecretText::from(told("TENANTRY_TEST_PG_PASSWORD").as_str()));
    let credentials = Credentials { db_password, ..Credentials::default() };
    let connection = Connection::Postgres(target);
    connect(connection, access, &credentials, Path::new("/nowhere")).await.unwrap()
}

/// A client that asks as `psql` does: the text as it is, and texts for answers.
pub(crate) async fn plain_client() -> tokio_postgres::Client {
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
    client
}

/// The server's version, 15 and up.
async fn version(client: &tokio_postgres::Client) -> u32 {
    let version = client.query_one("SHOW server_version_num", &[]).await.unwrap();
    version.get::<_, String>(0).parse::<u32>().unwrap() / 10_000
}

#[tokio::test]
async fn honest_queries_answer_byte_for_byte_as_psql_does() {
    let version = version(&plain_client().await).await;
    let mut session = open().await;
    let mut wrong = String::new();
    let (mut compared, mut newer) = (0, 0);
    for block in corpus::blocks(include_str!("honest_postgres.sql")) {
        let since = block.group.strip_prefix("since ").map_or(15, |since| since.parse().unwrap());
        if since > version {
            // The guard allows it; the server does not know it yet.
            let answer = ask(&mut *session, &block.sql, "corpus").await;
            assert!(answer.is_err_and(|error| !error.contains("allowed")), "{}", block.name);
            newer += 1;
            continue;
        }
        let answer = ask(&mut *session, &block.sql, "corpus").await;
        match (answer, psql(&block.sql)) {
            (Ok(answer), Ok(theirs)) => {
                compared += 1;
                let ours = as_psql(&answer, &theirs);
                if ours != theirs {
                    let differ = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
                    writeln!(wrong, "{}: {differ:?}", block.name).unwrap();
                }
            }
            (ours, theirs) => {
                let (ours, theirs) = (ours.err(), theirs.err());
                writeln!(wrong, "{}: {ours:?}, psql {theirs:?}", block.name).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    let not_there_yet = [9, 5, 1, 0];
    assert_eq!(newer, not_there_yet[(version.min(18) - 15) as usize]);
    assert!(compared >= 180, "{compared}");
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
