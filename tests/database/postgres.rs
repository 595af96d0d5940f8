use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tenantry::database::{Database, Error, Query, RelationKind, RowsRead, Unavailable, check};
use tenantry::error::ErrorCode;
use tenantry::memory::SecretText;
use tenantry::tenant::{
    Access, Connection, Credentials, Limits, PostgresTarget, Resource, TlsMode,
};

use super::{all, connect, denied, guarded, reads, relation, run, run_with};

const CANARY: &str = "canary-password-8ff1";

/// What `tests/support/postgres.sh` says about the server that it started.
#[expect(clippy::disallowed_methods, reason = "how the test runner hands the server over")]
pub(crate) fn told(name: &str) -> String {
    std::env::var(name).expect("run ./dev test, which starts a private Postgres")
}

pub(crate) fn target() -> PostgresTarget {
    PostgresTarget {
        host: "localhost".to_owned(),
        port: told("TENANTRY_TEST_PG_PORT").parse().unwrap(),
        database: "postgres".to_owned(),
        user: told("TENANTRY_TEST_PG_SUPERUSER"),
        tls: TlsMode::VerifyFull,
        root_certificates: Some(std::fs::read_to_string(told("TENANTRY_TEST_PG_CA")).unwrap()),
        client_certificate: None,
        schema: "shop".to_owned(),
        tenant_variable: None,
    }
}

pub(crate) fn password(text: &str) -> Credentials {
    let db_password = Some(SecretText::from(text));
    Credentials { db_password, ..Credentials::default() }
}

async fn open_as(target: PostgresTarget, access: Access) -> Result<Box<dyn Database>, Error> {
    let credentials = password(&told("TENANTRY_TEST_PG_PASSWORD"));
    connect(Connection::Postgres(target), access, &credentials, Path::new("/nowhere")).await
}

pub(crate) async fn open() -> Box<dyn Database> {
    with_shop().await;
    open_as(target(), Access::default()).await.unwrap()
}

/// A client of the driver's, for what the module under test refuses to do.
pub(crate) async fn driver() -> tokio_postgres::Client {
    let target = target();
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(target.port)
        .user(&target.user)
        .password(told("TENANTRY_TEST_PG_PASSWORD"))
        .dbname(&target.database);
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(connection);
    client
}

pub(crate) async fn with_shop() {
    static MADE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    if std::env::var_os("TENANTRY_TEST_SHOP").is_some() {
        return;
    }
    MADE.get_or_init(|| async {
        driver()
            .await
            .batch_execute(
                // Nothing can be cancelled while the compiler is loaded, and it is for what costs much.
                "ALTER DATABASE postgres SET jit = off;
                 DROP SCHEMA IF EXISTS shop CASCADE;
                 CREATE SCHEMA shop;
                 CREATE TABLE shop.customers (id int PRIMARY KEY, name text, secret text);
                 COMMENT ON TABLE shop.customers IS 'Who buys';
                 INSERT INTO shop.customers VALUES (1, 'Ada', 'x'), (2, 'Bob', 'y');
                 CREATE VIEW shop.leak AS SELECT secret AS name FROM shop.customers;
                 CREATE TYPE shop.colour AS ENUM ('red');
                 CREATE FUNCTION shop.lower(shop.colour) RETURNS text LANGUAGE sql AS
                   $$ INSERT INTO shop.customers VALUES (9, 'pwned', '') RETURNING name $$;
                 CREATE TABLE shop.paints (colour shop.colour);
                 INSERT INTO shop.paints VALUES ('red');
                 CREATE FUNCTION shop.shout(shop.customers) RETURNS text LANGUAGE sql AS
                   $$ INSERT INTO shop.customers VALUES (9, 'pwned', '') RETURNING name $$;
                 CREATE OPERATOR shop.&< (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);
                 CREATE VIEW shop.writes AS SELECT shop.lower(colour) AS x FROM shop.paints;
                 CREATE VIEW shop.slow AS SELECT pg_sleep(60)::text AS x;
                 CREATE VIEW shop.wide AS SELECT repeat('x', 50000000) AS x;
                 CREATE TABLE shop.accounts (id int, secret text) PARTITION BY RANGE (id);
                 CREATE TABLE shop.accounts_1 PARTITION OF shop.accounts
                   FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
                 CREATE TABLE shop.accounts_1_1 PARTITION OF shop.accounts_1
                   FOR VALUES FROM (0) TO (5);
                 INSERT INTO shop.accounts VALUES (1, 'canary-part');
                 CREATE VIEW shop.own_pid AS SELECT pg_backend_pid() AS pid;
                 CREATE VIEW shop.locks AS SELECT pg_advisory_lock(7)::text AS x;
                 CREATE VIEW shop.sets AS SELECT set_config('DateStyle', 'German', false)
                   || set_config('statement_timeout', '0', false)
                   || set_config('search_path', 'pg_catalog', false) AS x;
                 CREATE VIEW shop.slow_sets AS SELECT x, pg_sleep(60)::text AS y FROM shop.sets;
                 CREATE VIEW shop.settings AS SELECT current_setting('DateStyle') AS a,
                   current_setting('statement_timeout') AS b, current_setting('search_path') AS c;
                 CREATE VIEW shop.endless AS
                   SELECT a * b AS n FROM generate_series(1, 100000000) a, generate_series(1, 9) b;
                 CREATE VIEW shop.millions AS
                   SELECT n, repeat('x', 40) AS x FROM generate_series(1, 3000000) n;
                 CREATE TABLE shop.canary_hidden (x int);
                 CREATE FUNCTION shop.of_hidden() RETURNS int LANGUAGE sql STABLE AS
                   $$ SELECT x FROM shop.canary_hidden $$;
                 CREATE VIEW shop.by_canary AS SELECT shop.of_hidden() AS x;
                 CREATE FUNCTION shop.raise() RETURNS text LANGUAGE plpgsql AS
                   $$ BEGIN RAISE EXCEPTION 'canary at /srv/canary'; END $$;
                 CREATE VIEW shop.raises AS SELECT shop.raise() AS x;
                 CREATE VIEW shop.numbers AS SELECT generate_series(1, 3000) AS n;",
            )
            .await
            .unwrap();
    })
    .await;
}

/// Why a session cannot be opened, if it cannot.
async fn reason(target: PostgresTarget) -> Option<Error> {
    open_as(target, Access::default()).await.err()
}

#[tokio::test]
async fn each_tls_mode_verifies_what_it_says() {
    let full = target();
    let strange = include_str!("strange-ca.pem");
    let by_address = PostgresTarget { host: "127.0.0.1".to_owned(), ..target() };
    assert_eq!(reason(full.clone()).await, None);
    assert_eq!(reason(by_address).await, None);
    let without_ca = PostgresTarget { root_certificates: None, ..target() };
    assert_eq!(reason(without_ca.clone()).await, Some(Unavailable::Tls.into()));
    let wrong_ca = PostgresTarget { root_certificates: Some(strange.to_owned()), ..target() };
    assert_eq!(reason(wrong_ca.clone()).await, Some(Unavailable::Tls.into()));
    let no_pem = PostgresTarget { root_certificates: Some("x".to_owned()), ..target() };
    assert_eq!(reason(no_pem).await, Some(Unavailable::Configuration.into()));
    // The same server by an address that its certificate does not have.
    let other_name = PostgresTarget { host: "127.0.0.2".to_owned(), ..target() };
    assert_eq!(reason(other_name.clone()).await, Some(Unavailable::Tls.into()));
    let ca_only = PostgresTarget { tls: TlsMode::VerifyCa, ..other_name };
    assert_eq!(reason(ca_only).await, None);
    let wrong_ca_only = PostgresTarget { tls: TlsMode::VerifyCa, ..wrong_ca };
    assert_eq!(reason(wrong_ca_only).await, Some(Unavailable::Tls.into()));
    let require = PostgresTarget { tls: TlsMode::Require, ..without_ca };
    assert_eq!(reason(require).await, None);
    assert_eq!(reason(PostgresTarget { tls: TlsMode::Disable, ..full }).await, None);
}

#[tokio::test]
async fn a_client_certificate_logs_in_and_its_key_is_nowhere_to_be_read() {
    let admin = driver().await;
    let sql = "DO $$ BEGIN CREATE ROLE certified LOGIN; \
               EXCEPTION WHEN duplicate_object THEN NULL; END $$";
    admin.batch_execute(sql).await.unwrap();
    let ca = told("TENANTRY_TEST_PG_CA");
    let pem = |name: &str| std::fs::read_to_string(Path::new(&ca).with_file_name(name)).unwrap();
    let open = async |certificate: Option<&str>, key: Option<String>, tls: TlsMode| {
        let target = PostgresTarget {
            user: "certified".to_owned(),
            client_certificate: certificate.map(pem),
            tls,
            ..target()
        };
        let db_sslkey = key.as_deref().map(SecretText::from);
        let credentials = Credentials { db_sslkey, ..Credentials::default() };
        let connection = Connection::Postgres(target);
        let root = Path::new("/nowhere");
        let opened = connect(connection, Access::default(), &credentials, root).await;
        let shown = format!("{opened:?} {credentials:?}");
        let secret = key.iter().flat_map(|key| key.lines().skip(1)).find(|line| line.len() > 30);
        assert!(secret.is_none_or(|line| !shown.contains(line)), "{shown}");
        opened
    };
    let full = TlsMode::VerifyFull;
    let (own, key) = (Some("client.pem"), Some(pem("client.key")));
    for tls in [full, TlsMode::VerifyCa, TlsMode::Require] {
        let mut session = open(own, key.clone(), tls).await.unwrap();
        let answer = run(&mut *session, "SELECT 1").await.unwrap();
        assert_eq!(answer.rows, [[json!(1)]]);
        // Over TLS as well, and without the key.
        let limits = Limits { statement_timeout: Duration::from_millis(300), ..Limits::default() };
        let sql = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 9999) b";
        assert_eq!(run_with(&mut *session, sql, vec![], &limits).await, Err(Error::Timeout));
    }
    let reason = |opened: Result<Box<dyn Database>, Error>| opened.err();
    let failed = |reason: Unavailable| Some(Error::Unavailable(reason));
    for (certificate, key, expected) in [
        (None, None, Unavailable::Authentication),
        (None, key.clone(), Unavailable::Authentication),
        (Some("stranger.pem"), Some(pem("stranger.key")), Unavailable::Tls),
        // A key of another certificate, and none.
        (own, Some(pem("stranger.key")), Unavailable::Configuration),
        (own, Some("-----BEGIN PRIVATE KEY-----".to_owned()), Unavailable::Configuration),
        (own, Some(pem("client.pem")), Unavailable::Configuration),
    ] {
        let opened = open(certificate, key, full).await;
        assert_eq!(reason(opened), failed(expected), "{certificate:?}");
    }
    // Whoever else it is for cannot log in with it.
    let target = PostgresTarget {
        client_certificate: own.map(pem),
        user: "postgres".to_owned(),
        ..target()
    };
    let db_sslkey = key.as_deref().map(SecretText::from);
    let credentials = Credentials { db_sslkey, ..Credentials::default() };
    let connection = Connection::Postgres(target);
    let opened = connect(connection, Access::default(), &credentials, Path::new("/nowhere")).await;
    assert_eq!(reason(opened), failed(Unavailable::Authentication));
}

#[tokio::test]
async fn a_failed_login_says_why_and_nothing_else() {
    for (target, expected) in [
        (target(), Unavailable::Authentication),
        (
            PostgresTarget { user: "canary-user".to_owned(), ..target() },
            Unavailable::Authentication,
        ),
        (PostgresTarget { port: 1, ..target() }, Unavailable::ConnectionRefused),
        (
            PostgresTarget { host: "canary-host.invalid".to_owned(), ..target() },
            Unavailable::HostNotFound,
        ),
    ] {
        let connection = Connection::Postgres(target);
        let credentials = password(CANARY);
        let error = connect(connection, Access::default(), &credentials, Path::new("/nowhere"))
            .await
            .unwrap_err();
        assert_eq!(error, Error::Unavailable(expected));
        assert_eq!(error.code(), ErrorCode::DatabaseUnavailable);
        let shown = format!("{error} {error:?} {credentials:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }
    let unknown = PostgresTarget { database: "none".to_owned(), ..target() };
    assert_eq!(reason(unknown).await, Some(Unavailable::Refused.into()));
    let shown = format!("{:?}", open().await);
    assert!(!shown.contains(&told("TENANTRY_TEST_PG_PASSWORD")), "{shown}");
}

#[tokio::test]
async fn values_are_bound_by_the_types_of_the_statement() {
    let mut session = open().await;
    let limits = Limits::default();
    for (ty, value, expected) in [
        ("int", json!(7), Ok(json!(7))),
        ("bigint", json!("9007199254740993"), Ok(json!("9007199254740993"))),
        ("bool", json!(true), Ok(json!(true))),
        ("float8", json!(1.5), Ok(json!(1.5))),
        ("numeric", json!("1.10"), Ok(json!("1.10"))),
        ("text", json!("a'b\\"), Ok(json!("a'b\\"))),
        ("text", json!(null), Ok(json!(null))),
        ("date", json!("2024-02-29"), Ok(json!("2024-02-29"))),
        ("jsonb", json!({"a": [1]}), Ok(json!({"a": [1]}))),
        ("text[]", json!(["a\"b", null, "{},\\"]), Ok(json!(["a\"b", null, "{},\\"]))),
        ("int[]", json!([[1, 2], [3, null]]), Ok(json!([[1, 2], [3, null]]))),
        ("bytea", json!("AP8="), Ok(json!("AP8="))),
        ("inet", json!("10.0.0.1"), Ok(json!("10.0.0.1"))),
        ("float8", json!("NaN"), Ok(json!("NaN"))),
        ("interval", json!("P1DT2H"), Ok(json!("P1DT2H"))),
        ("jsonb[]", json!([[1], {"a": 2}]), Ok(json!([[1], {"a": 2}]))),
        ("bytea", json!("no base64"), Err(())),
        ("int", json!("7"), Err(())),
        ("int", json!(1.5), Err(())),
        ("text", json!(7), Err(())),
        ("text", json!("a\0b"), Err(())),
        ("int[]", json!(7), Err(())),
    ] {
        let sql = format!("SELECT $1::{ty}");
        match (run_with(&mut *session, &sql, vec![value.clone()], &limits).await, expected) {
            (Ok(answer), Ok(expected)) => assert_eq!(answer.rows, [[expected]], "{ty} {value}"),
            (Err(Error::InvalidParameter { position: 0, .. }), Err(())) => {}
            (answer, _) => panic!("{ty} {value}: {answer:?}"),
        }
    }
    let failed = run_with(&mut *session, "SELECT $1::int", vec![], &limits).await;
    assert_eq!(failed, Err(Error::ParameterCount { expected: 1, given: 0 }));
}

#[tokio::test]
async fn an_answer_is_cut_at_the_limits_and_says_so() {
    let mut session = open().await;
    for (max_rows, rows, truncated) in
        [(1, 1, true), (100, 100, true), (2_999, 2_999, true), (3_000, 3_000, false)]
    {
        let limits = Limits { max_rows, ..Limits::default() };
        let answer =
            run_with(&mut *session, "SELECT n FROM numbers", vec![], &limits).await.unwrap();
        assert_eq!((answer.rows.len(), answer.truncated), (rows, truncated), "{max_rows}");
    }
    let limits = Limits { max_result_bytes: 1024, max_rows: 10_000, ..Limits::default() };
    let answer = run_with(&mut *session, "SELECT n FROM numbers", vec![], &limits).await.unwrap();
    assert!(answer.truncated && answer.rows.len() > 100, "{}", answer.rows.len());
    let wide = run_with(&mut *session, "SELECT repeat('x', 2000)", vec![], &limits).await;
    assert_eq!(wide, Err(Error::TooLarge));
    assert!(!session.is_broken());
    // Far beyond the limit: skipped as it comes.
    let wide = run_with(&mut *session, "SELECT x FROM wide", vec![], &limits).await;
    assert_eq!(wide, Err(Error::TooLarge));
    assert!(!session.is_broken());
    assert_eq!(run(&mut *session, "SELECT 1").await.unwrap().rows, [[json!(1)]]);
}

async fn sleepers(client: &tokio_postgres::Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity \
               WHERE state = 'active' AND wait_event = 'PgSleep' AND query LIKE '%canary_drop%'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_slow_statement_ends_at_the_timeout_and_the_session_goes_on() {
    let mut session = open().await;
    let limits = Limits { statement_timeout: Duration::from_millis(100), ..Limits::default() };
    let answer = run_with(&mut *session, "SELECT x FROM slow", vec![], &limits).await;
    assert_eq!(answer, Err(Error::Timeout));
    assert!(!session.is_broken());
    assert_eq!(run(&mut *session, "SELECT 1").await.unwrap().rows, [[json!(1)]]);
}

#[tokio::test]
async fn a_dropped_query_is_cancelled_on_the_server() {
    let mut session = open().await;
    let client = driver().await;
    let query = guarded(&*session, "SELECT x AS canary_drop FROM slow", &Access::default(), vec![]);
    let limits = Limits::default();
    let running = session.query(&query, &limits);
    let waited = tokio::time::timeout(Duration::from_secs(1), running).await;
    assert!(waited.is_err());
    assert!(session.is_broken());
    for _ in 0..50 {
        if sleepers(&client).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the statement still runs");
}

#[tokio::test]
async fn the_transaction_is_read_only_whatever_the_statement_calls() {
    let mut session = open().await;
    let answer = run(&mut *session, "SELECT x FROM writes").await;
    let Err(Error::Failed { sqlstate, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(sqlstate.as_deref(), Some("25006"));
    let pwned = run(&mut *session, "SELECT count(*) FROM customers WHERE id = 9").await.unwrap();
    assert_eq!(pwned.rows, [[json!(0)]]);
}

#[tokio::test]
async fn what_could_mean_something_of_the_tenants_own_is_refused() {
    let mut session = open().await;
    for (sql, rule) in [
        ("SELECT lower(colour) FROM paints", "function"),
        ("SELECT lower('A')", "function"),
        ("SELECT x FROM lower('A') AS x", "function"),
        ("SELECT c.shout FROM customers c", "function"),
        ("SELECT customers.shout FROM customers", "function"),
        ("SELECT 1 &< 2", "operator"),
    ] {
        let answer = run(&mut *session, sql).await;
        let Err(Error::Refused(refusal)) = &answer else { panic!("{sql}: {answer:?}") };
        assert_eq!(refusal.rule(), rule, "{sql}");
    }
    for (sql, expected) in [
        ("SELECT pg_catalog.lower('A')", "a"),
        ("SELECT x FROM pg_catalog.lower('A') AS x", "a"),
        ("SELECT upper('a')", "A"),
        ("SELECT c.name FROM customers c WHERE c.id = 1 & 3", "Ada"),
        ("SELECT name AS shout FROM customers WHERE id = 1", "Ada"),
    ] {
        assert_eq!(run(&mut *session, sql).await.unwrap().rows, [[json!(expected)]], "{sql}");
    }
    assert!(!session.is_broken());
}

#[tokio::test]
async fn the_servers_message_about_the_statement_comes_through() {
    let mut session = open().await;
    let answer = run(&mut *session, "SELECT nothing FROM customers").await;
    let Err(Error::Failed { sqlstate, message, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(sqlstate.as_deref(), Some("42703"));
    assert_eq!(message, "column \"nothing\" does not exist");
    assert!(!session.is_broken());
}

#[tokio::test]
async fn denied_columns_stay_hidden_behind_views_and_functions_of_the_row() {
    with_shop().await;
    let access = Access {
        deny_columns: vec![denied("customers", "secret")],
        ..reads(&["customers", "leak"])
    };
    let mut session = open_as(target(), access.clone()).await.unwrap();
    let limits = Limits::default();
    for sql in ["SELECT name FROM leak", "SELECT c.row_to_json FROM customers c"] {
        let query = guarded(&*session, sql, &access, vec![]);
        let answer = session.query(&query, &limits).await;
        assert!(matches!(answer, Err(Error::Refused(_))), "{sql}: {answer:?}");
    }
    let query = guarded(&*session, "SELECT c.id, name FROM customers c", &access, vec![]);
    assert_eq!(session.query(&query, &limits).await.unwrap().rows.len(), 2);
    let found = all(&mut *session, &access).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, relation("customers"));
    assert_eq!(found[0].description.as_deref(), Some("Who buys"));
    let columns: Vec<&str> = found[0].columns.iter().map(|column| &*column.name).collect();
    assert_eq!(columns, ["id", "name"]);
}

#[tokio::test]
async fn denied_columns_stay_hidden_in_partitions_of_their_table() {
    with_shop().await;
    let access = Access { deny_columns: vec![denied("accounts", "secret")], ..Access::default() };
    let mut session = open_as(target(), access.clone()).await.unwrap();
    let limits = Limits::default();
    for sql in [
        "SELECT secret FROM accounts_1",
        "SELECT secret FROM accounts_1_1",
        "SELECT * FROM customers, shop.accounts_1_1",
    ] {
        let query = guarded(&*session, sql, &access, vec![]);
        let answer = session.query(&query, &limits).await;
        assert!(matches!(answer, Err(Error::Refused(_))), "{sql}: {answer:?}");
    }
    for sql in ["SELECT id FROM accounts", "SELECT id FROM customers WHERE id = 1"] {
        let query = guarded(&*session, sql, &access, vec![]);
        assert_eq!(session.query(&query, &limits).await.unwrap().rows, [[json!(1)]], "{sql}");
    }
    // A partition's rows are the table's too.
    let access = Access { deny_columns: vec![denied("accounts_1", "secret")], ..access };
    let mut session = open_as(target(), access.clone()).await.unwrap();
    for sql in ["SELECT secret FROM accounts_1_1", "SELECT secret FROM accounts"] {
        let query = guarded(&*session, sql, &access, vec![]);
        let answer = session.query(&query, &limits).await;
        assert!(matches!(answer, Err(Error::Refused(_))), "{sql}: {answer:?}");
    }
}

#[tokio::test]
async fn a_number_of_few_bytes_and_many_digits_is_too_large_before_it_is_written() {
    let mut session = open().await;
    let sql = "SELECT array_agg(1e131071::numeric) FROM numbers";
    assert_eq!(run(&mut *session, sql).await, Err(Error::TooLarge));
    let sql = "SELECT 1e131071::numeric FROM numbers";
    let answer = run(&mut *session, sql).await.unwrap();
    assert!(answer.truncated && !answer.rows.is_empty());
    assert!(!session.is_broken());
    let fits = run(&mut *session, "SELECT -1234.50::numeric, 1e10::numeric").await.unwrap();
    assert_eq!(fits.rows, [[json!("-1234.50"), json!("10000000000")]]);
}

#[tokio::test]
async fn quotes_inside_of_texts_arrive_as_they_were_written() {
    let mut session = open().await;
    let sql = "SELECT '''a''''b\\', 'it''s\\''x', '''''' AS \"a\"\"\"\"b\"";
    let answer = run(&mut *session, sql).await.unwrap();
    assert_eq!(answer.rows, [[json!("'a''b\\"), json!("it's\\'x"), json!("''")]]);
    assert_eq!(answer.columns[2].name, "a\"\"b");
}

/// The parser knows fewer keywords than the server: what it takes for a name the server must take
/// for the same name.
#[tokio::test]
async fn every_word_that_passes_as_a_name_is_one() {
    let mut session = open().await;
    let words = driver().await.query("SELECT word FROM pg_get_keywords()", &[]).await.unwrap();
    let (access, limits) = (Access::default(), Limits::default());
    let mut names = 0;
    for row in words {
        let word: String = row.get(0);
        for sql in [
            format!("WITH {word} AS (SELECT 42 AS x) SELECT x FROM {word}"),
            format!("WITH {word} AS (SELECT 42 AS x) SELECT x FROM {word} customers"),
            format!("SELECT {word}.x FROM (SELECT 42 AS x) AS {word}"),
            format!("SELECT c.{word} FROM (SELECT 42 AS {word}) AS c"),
            format!("SELECT {word} FROM (SELECT 42) AS c ({word})"),
        ] {
            let Ok(statement) =
                check(&sql, session.dialect(), &Resource::Database, &access, "shop")
            else {
                continue;
            };
            let query = Query { statement, params: vec![], limit: None, read: RowsRead::default() };
            let answer = session.query(&query, &limits).await;
            assert_eq!(answer.unwrap().rows, [[json!(42)]], "{sql}");
            names += 1;
        }
    }
    assert!(names > 1_000, "{names}");
}

#[tokio::test]
async fn relations_are_listed_in_order_with_their_kind() {
    let mut session = open().await;
    let found = all(&mut *session, &Access::default()).await;
    let listed: Vec<(&str, RelationKind)> =
        found.iter().map(|found| (&*found.name.name, found.kind)).collect();
    let (table, view) = (RelationKind::Table, RelationKind::View);
    let expected = [
        ("accounts", table),
        ("accounts_1", table),
        ("accounts_1_1", table),
        ("by_canary", view),
        ("canary_hidden", table),
        ("customers", table),
        ("endless", view),
        ("leak", view),
        ("locks", view),
        ("millions", view),
        ("numbers", view),
        ("own_pid", view),
        ("paints", table),
        ("raises", view),
        ("sets", view),
        ("settings", view),
        ("slow", view),
        ("slow_sets", view),
        ("wide", view),
        ("writes", view),
    ];
    assert_eq!(listed, expected);
    assert!(session.server_version().await.unwrap().starts_with("PostgreSQL 1"));
}
