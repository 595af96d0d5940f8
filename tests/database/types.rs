//! Types of the tenant's own that a value may be cast to, and those that it may not.

use std::path::Path;

use serde_json::json;
use tenantry::database::{Database, Error, Query, QueryResult, RowsRead, check};
use tenantry::tenant::{Access, Connection, Limits, PostgresTarget, Resource};

use super::connect;
use super::postgres::{driver, password, target, told};

async fn open() -> Box<dyn Database> {
    let tables = "DROP SCHEMA IF EXISTS kinds CASCADE;
        CREATE SCHEMA kinds;
        CREATE TABLE kinds.orders (id int, status text);
        INSERT INTO kinds.orders VALUES (1, 'open');
        CREATE FUNCTION kinds.writes(text) RETURNS boolean LANGUAGE sql AS
          $$ INSERT INTO kinds.orders VALUES (9, 'pwned') RETURNING true $$;
        CREATE FUNCTION kinds.less(int, int) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
        CREATE OPERATOR kinds.<<< (LEFTARG = int, RIGHTARG = int, FUNCTION = kinds.less);
        CREATE TYPE kinds.status AS ENUM ('open', 'paid');
        CREATE TYPE kinds.\"Mixed Case\" AS ENUM ('a');
        CREATE DOMAIN kinds.small AS int NOT NULL CHECK (VALUE BETWEEN 0 AND 100);
        CREATE DOMAIN kinds.word AS text CHECK (lower(VALUE) ~ '^[a-z]+$');
        CREATE DOMAIN kinds.checked AS text CHECK (kinds.writes(VALUE));
        CREATE DOMAIN kinds.compared AS int CHECK (VALUE OPERATOR(kinds.<<<) 5);
        CREATE DOMAIN kinds.twice AS kinds.checked;
        CREATE DOMAIN kinds.relation_name AS regclass;
        CREATE TYPE kinds.pair AS (a int, b kinds.checked);
        CREATE TYPE kinds.span AS RANGE (subtype = int);";
    driver().await.batch_execute(tables).await.unwrap();
    let connection =
        Connection::Postgres(PostgresTarget { schema: "kinds".to_owned(), ..target() });
    let credentials = password(&told("TENANTRY_TEST_PG_PASSWORD"));
    connect(connection, Access::default(), &credentials, Path::new("/nowhere")).await.unwrap()
}

async fn run(session: &mut dyn Database, sql: &str) -> Result<QueryResult, Error> {
    let access = Access::default();
    let statement = check(sql, session.dialect(), &Resource::Database, &access, "kinds")?;
    session
        .query(
            &Query { statement, params: vec![], limit: None, read: RowsRead::default() },
            &Limits::default(),
        )
        .await
}

#[tokio::test]
async fn only_a_plain_type_of_the_tenants_own_may_be_cast_to() {
    let mut session = open().await;
    for (sql, expected) in [
        ("SELECT 'open'::status", json!("open")),
        ("SELECT CAST(status AS kinds.status) FROM orders", json!("open")),
        ("SELECT ARRAY['open', 'paid']::status[]", json!(["open", "paid"])),
        ("SELECT '{paid}'::kinds.status[]", json!(["paid"])),
        ("SELECT 'a'::\"Mixed Case\"", json!("a")),
        ("SELECT 7::small", json!(7)),
        ("SELECT 'abc'::Word", json!("abc")),
        ("SELECT enum_last(NULL::status)", json!("paid")),
        ("SELECT a FROM json_to_record('{\"a\": \"paid\"}') AS r (a status)", json!("paid")),
    ] {
        assert_eq!(run(&mut *session, sql).await.unwrap().rows, [[expected]], "{sql}");
    }
    for sql in [
        "SELECT 'x'::checked",
        "SELECT 'x'::kinds.checked",
        "SELECT CAST(id AS compared) FROM orders",
        "SELECT 'x'::twice",
        "SELECT 'pg_authid'::relation_name",
        "SELECT '(1,x)'::pair",
        "SELECT '(1,x)'::orders",
        "SELECT '[1,2)'::span",
        "SELECT '{x}'::checked[]",
        "SELECT 'x'::nothing",
        "SELECT 1::status2, 'x'::status",
        "SELECT * FROM json_to_record('{\"a\": \"x\"}') AS r (a checked)",
        "SELECT id FROM orders WHERE EXISTS (SELECT 'x'::checked)",
        // What the guard refuses by itself.
        "SELECT 'pg_authid'::regclass",
        "SELECT 'x'::kinds.status(3)",
        "SELECT 'x'::other.status",
        "SELECT 'x'::_status",
        "SELECT 'x'::pg_lsn",
        "SELECT 'x'::select",
    ] {
        let answer = run(&mut *session, sql).await;
        let Err(Error::Refused(refusal)) = &answer else { panic!("{sql}: {answer:?}") };
        assert!(matches!(refusal.rule(), "type" | "syntax" | "identifier"), "{sql}: {refusal}");
    }
    // A label that there is none of is for the server to say.
    let answer = run(&mut *session, "SELECT 'x'::status").await;
    let Err(Error::Failed { sqlstate, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(sqlstate.as_deref(), Some("22P02"));
    assert_eq!(run(&mut *session, "SELECT id FROM orders").await.unwrap().rows, [[json!(1)]]);
}
