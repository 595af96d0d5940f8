//! What the server keeps of statements: faster, and otherwise as if it kept nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tenantry::database::{Database, Error, check};
use tenantry::tenant::{Access, Connection, Limits, PostgresTarget, Resource, TlsMode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::postgres::{driver, open, password, target, told, with_shop};
use super::{connect, run, run_with};

/// More often than it takes for the server to keep a statement.
const TIMES: usize = 4;

/// A schema of its own for one test, made by `sql`, and a session there.
async fn open_in(schema: &str, sql: &str) -> (tokio_postgres::Client, Box<dyn Database>) {
    let client = driver().await;
    let made = format!(
        "DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema};
         SET search_path = {schema}; {sql}"
    );
    client.batch_execute(&made).await.unwrap();
    let target = PostgresTarget { schema: schema.to_owned(), ..target() };
    let credentials = password(&told("TENANTRY_TEST_PG_PASSWORD"));
    let connection = Connection::Postgres(target);
    let opened = connect(connection, Access::default(), &credentials, Path::new("/nowhere"));
    (client, opened.await.unwrap())
}

async fn values(session: &mut dyn Database, sql: &str) -> Vec<Vec<Value>> {
    run(session, sql).await.unwrap().rows.to_values()
}

fn sqlstate(answer: Result<tenantry::database::QueryResult, Error>) -> String {
    let Err(Error::Failed { sqlstate, .. }) = answer else { panic!("{answer:?}") };
    sqlstate.unwrap()
}

#[tokio::test]
async fn what_has_changed_since_the_server_read_a_statement_is_seen_at_its_next_run() {
    let (client, mut session) = open_in(
        "kept",
        "CREATE TABLE kept.t AS SELECT 1 AS x; CREATE TABLE kept.other AS SELECT 9 AS x;
         CREATE VIEW kept.v AS SELECT x FROM kept.t;",
    )
    .await;
    let session = &mut *session;
    let sql = "SELECT * FROM t";
    for _ in 0..TIMES {
        assert_eq!(values(session, sql).await, [[json!(1)]]);
        assert_eq!(values(session, "SELECT x FROM v").await, [[json!(1)]]);
    }
    for (change, expected) in [
        ("UPDATE t SET x = 2", vec![json!(2)]),
        ("ALTER TABLE t ALTER x TYPE text", vec![json!("2")]),
        ("ALTER TABLE t ADD y int", vec![json!("2"), Value::Null]),
        ("ALTER TABLE t RENAME TO old; ALTER TABLE other RENAME TO t", vec![json!(9)]),
        ("DROP TABLE t; CREATE TABLE t AS SELECT true AS x", vec![json!(true)]),
    ] {
        let change = format!("DROP VIEW IF EXISTS v; {change}; CREATE VIEW v AS SELECT x FROM t");
        client.batch_execute(&change).await.unwrap();
        for _ in 0..TIMES {
            let rows = values(session, sql).await;
            assert_eq!(rows, std::slice::from_ref(&expected), "{change}");
            assert_eq!(values(session, "SELECT x FROM v").await, [[expected[0].clone()]]);
        }
    }
    client.batch_execute("DROP VIEW v; DROP TABLE t").await.unwrap();
    for _ in 0..TIMES {
        assert_eq!(sqlstate(run(session, sql).await), "42P01");
    }
    client.batch_execute("CREATE TABLE t AS SELECT 3 AS x").await.unwrap();
    assert_eq!(values(session, sql).await, [[json!(3)]]);
    assert!(!session.is_broken());
}

#[tokio::test]
async fn a_privilege_that_is_taken_away_is_gone_for_statements_that_the_server_has() {
    let client = driver().await;
    client
        .batch_execute(
            "DROP SCHEMA IF EXISTS revoked CASCADE; CREATE SCHEMA revoked;
             DROP ROLE IF EXISTS revoked_reader;
             CREATE ROLE revoked_reader LOGIN PASSWORD 'reader';
             CREATE TABLE revoked.t AS SELECT 1 AS x;
             GRANT USAGE ON SCHEMA revoked TO revoked_reader;
             GRANT SELECT ON revoked.t TO revoked_reader;",
        )
        .await
        .unwrap();
    let (user, schema) = ("revoked_reader".to_owned(), "revoked".to_owned());
    let connection = Connection::Postgres(PostgresTarget { user, schema, ..target() });
    let credentials = password("reader");
    let opened = connect(connection, Access::default(), &credentials, Path::new("/nowhere"));
    let mut session = opened.await.unwrap();
    for _ in 0..TIMES {
        assert_eq!(values(&mut *session, "SELECT x FROM t").await, [[json!(1)]]);
    }
    client.batch_execute("REVOKE SELECT ON revoked.t FROM revoked_reader").await.unwrap();
    assert_eq!(sqlstate(run(&mut *session, "SELECT x FROM t").await), "42501");
}

#[tokio::test]
async fn literals_that_tell_the_time_tell_it_at_each_run() {
    let mut session = open().await;
    for sql in ["SELECT 'now'::timestamptz", "SELECT now()", "SELECT $1::timestamptz"] {
        let mut told = Vec::new();
        for _ in 0..TIMES {
            let params = if sql.contains('$') { vec![json!("now")] } else { vec![] };
            let answer = run_with(&mut *session, sql, params, &Limits::default()).await.unwrap();
            told.push(answer.rows.to_values());
        }
        told.dedup();
        assert_eq!(told.len(), TIMES, "{sql}");
    }
}

#[tokio::test]
async fn values_of_one_run_are_not_those_of_the_next() {
    let mut session = open().await;
    let limits = Limits::default();
    let sql = "SELECT name FROM customers WHERE id = $1 OR $2::text = 'all'";
    for (id, text, expected) in
        [(1, "", "Ada"), (2, "", "Bob"), (1, "", "Ada"), (2, "x", "Bob"), (1, "y", "Ada")]
    {
        let params = vec![json!(id), json!(text)];
        let answer = run_with(&mut *session, sql, params, &limits).await.unwrap();
        assert_eq!(answer.rows, [[json!(expected)]]);
    }
    for params in [vec![json!(1)], vec![]] {
        let given = params.len();
        let answer = run_with(&mut *session, sql, params, &limits).await;
        assert_eq!(answer, Err(Error::ParameterCount { expected: 2, given }));
    }
    let wrong = run_with(&mut *session, sql, vec![json!("x"), json!("")], &limits).await;
    assert!(matches!(wrong, Err(Error::InvalidParameter { position: 0, .. })), "{wrong:?}");
    let answer = run_with(&mut *session, sql, vec![json!(2), json!("")], &limits).await.unwrap();
    assert_eq!(answer.rows, [[json!("Bob")]]);
}

#[tokio::test]
async fn no_caller_can_ask_for_what_the_server_keeps() {
    for sql in [
        "EXECUTE tenantry_begin",
        "DEALLOCATE ALL",
        "PREPARE a AS SELECT 1",
        "SELECT * FROM pg_prepared_statements",
        "SELECT * FROM pg_catalog.pg_prepared_statements",
        "SELECT * FROM pg_prepared_statement()",
    ] {
        let dialect = tenantry::database::Dialect::Postgres;
        check(sql, dialect, &Resource::Database, &Access::default(), "shop").unwrap_err();
    }
    // What a session has seen makes no difference to what it answers.
    let (mut fresh, mut used) = (open().await, open().await);
    let texts = ["SELECT id, name FROM customers ORDER BY id", "SELECT 1 / 0", "SELECT 'x' AS y"];
    for sql in texts.repeat(TIMES) {
        drop(run(&mut *used, sql).await);
    }
    for sql in texts {
        assert_eq!(run(&mut *fresh, sql).await, run(&mut *used, sql).await);
    }
}

#[tokio::test]
async fn a_statement_that_the_server_has_forgotten_is_told_again_within_the_call() {
    let (_client, mut session) = open_in(
        "forgotten",
        "CREATE TABLE t AS SELECT 1 AS x;
         CREATE FUNCTION forget() RETURNS int LANGUAGE plpgsql AS $$ DECLARE known text; n int := 0; BEGIN
           FOR known IN SELECT name FROM pg_prepared_statements WHERE name ~ '_[0-9]+$' LOOP
             EXECUTE format('DEALLOCATE %I', known); n := n + 1;
           END LOOP; RETURN n; END $$;
         CREATE VIEW forgets AS SELECT forgotten.forget() AS n;",
    )
    .await;
    let session = &mut *session;
    for _ in 0..3 {
        for _ in 0..TIMES {
            assert_eq!(values(session, "SELECT x FROM t").await, [[json!(1)]]);
        }
        assert!(values(session, "SELECT n FROM forgets").await[0][0].as_i64() > Some(0));
        assert!(!session.is_broken());
    }
}

/// A proxy that, when it is told to, has the server forget all of the session, as one does that
/// shares connections.
async fn forgetful() -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let is_due = Arc::new(AtomicBool::new(false));
    let due = Arc::clone(&is_due);
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", target().port)).await.unwrap();
        let (mut up, mut down) = ([0; 4096], [0; 4096]);
        loop {
            tokio::select! {
                sent = client.read(&mut up) => {
                    let Ok(length @ 1..) = sent else { return };
                    if due.swap(false, Ordering::SeqCst) {
                        server.write_all(b"Q\0\0\0\x10DISCARD ALL\0").await.unwrap();
                        while !down.starts_with(b"C") {
                            assert!(server.read(&mut down).await.unwrap() > 0);
                        }
                        down.fill(0);
                    }
                    server.write_all(&up[..length]).await.unwrap();
                }
                answered = server.read(&mut down) => {
                    let Ok(length @ 1..) = answered else { return };
                    client.write_all(&down[..length]).await.unwrap();
                    down.fill(0);
                }
            }
        }
    });
    (port, is_due)
}

#[tokio::test]
async fn a_session_that_the_server_has_forgotten_is_told_again_within_the_call() {
    with_shop().await;
    let (port, is_due) = forgetful().await;
    let host = "127.0.0.1".to_owned();
    let target = PostgresTarget { port, host, tls: TlsMode::Disable, ..target() };
    let credentials = password(&told("TENANTRY_TEST_PG_PASSWORD"));
    let connection = Connection::Postgres(target);
    let opened = connect(connection, Access::default(), &credentials, Path::new("/nowhere"));
    let mut session = opened.await.unwrap();
    let limits = Limits::default();
    for round in 0..TIMES {
        for sql in ["SELECT name FROM customers WHERE id = 1", "SELECT upper('Ada'), $1::int"] {
            is_due.store(true, Ordering::SeqCst);
            let params = if sql.contains('$') { vec![json!(round)] } else { vec![] };
            let answer = run_with(&mut *session, sql, params, &limits).await;
            assert!(answer.is_ok(), "{answer:?}");
            assert!(!is_due.load(Ordering::SeqCst) && !session.is_broken());
        }
    }
}
