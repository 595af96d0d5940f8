use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::poll;
use serde_json::json;
use tenantry::database::{
    Database, Dialect, Error, Query, RowsRead, Unavailable, Write, check, check_write,
};
use tenantry::error::ErrorCode;
use tenantry::tenant::{Access, AccessMode, Connection, Limits, PostgresTarget, Resource, TlsMode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::connect;
use super::postgres::{driver, password, target};
use super::write::{both_engines_agree, change, writable};
use super::{denied, reads};

/// Tables for one test, in a schema of their own, with a role that may write them and no more.
async fn items(schema: &str) -> PostgresTarget {
    driver()
        .await
        .batch_execute(&format!(
            "DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema};
             SET search_path = {schema};
             DO $$ BEGIN CREATE ROLE shop_writer LOGIN PASSWORD 'writer';
               EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$;
             CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL,
               amount int DEFAULT 0 CHECK (amount >= 0), secret text DEFAULT 'canary');
             CREATE TABLE parts (id int PRIMARY KEY,
               item int REFERENCES items ON DELETE CASCADE ON UPDATE CASCADE);
             CREATE TABLE log (what text);
             CREATE VIEW names AS SELECT name FROM items;
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SET search_path = {schema} AS
               $$ BEGIN INSERT INTO log VALUES (new.name); RETURN new; END $$;
             CREATE TRIGGER noted AFTER INSERT OR UPDATE ON items
               FOR EACH ROW EXECUTE FUNCTION note();
             INSERT INTO items (id, name) VALUES (1, 'a'), (2, 'b');
             INSERT INTO parts VALUES (1, 1), (2, 1), (3, 2);
             DELETE FROM log;
             CREATE VIEW mode AS SELECT current_setting('transaction_read_only') AS x;
             GRANT USAGE ON SCHEMA {schema} TO shop_writer;
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO shop_writer;"
        ))
        .await
        .unwrap();
    PostgresTarget { user: "shop_writer".to_owned(), schema: schema.to_owned(), ..target() }
}

async fn open(target: PostgresTarget, access: Access) -> Box<dyn Database> {
    let connection = Connection::Postgres(target);
    connect(connection, access, &password("writer"), Path::new("/nowhere")).await.unwrap()
}

async fn writer(schema: &str) -> Box<dyn Database> {
    open(items(schema).await, writable(Access::default())).await
}

async fn count(schema: &str, sql: &str) -> i64 {
    let client = driver().await;
    client.batch_execute(&format!("SET search_path = {schema}")).await.unwrap();
    client.query_one(&format!("SELECT ({sql})::bigint"), &[]).await.unwrap().get(0)
}

async fn read(session: &mut dyn Database, schema: &str, sql: &str) -> String {
    let access = Access::default();
    let statement = check(sql, Dialect::Postgres, &Resource::Database, &access, schema).unwrap();
    let query = Query { statement, params: vec![], limit: None, read: RowsRead::default() };
    session.query(&query, &Limits::default()).await.unwrap().rows.into_json()
}

#[tokio::test]
async fn changes_are_counted_bounded_and_all_or_nothing() {
    let mut session = writer("shop_write").await;
    both_engines_agree(&mut *session, async |sql| count("shop_write", sql).await).await;
}

#[tokio::test]
async fn a_query_beside_changes_is_still_read_only() {
    let mut session = writer("shop_write_mode").await;
    let mode = "SELECT x FROM mode";
    for _ in 0..3 {
        assert_eq!(read(&mut *session, "shop_write_mode", mode).await, "[[\"on\"]]");
        let sql = "UPDATE items SET name = 'n' WHERE id = 1 RETURNING (SELECT x FROM mode)";
        let write = in_schema(sql, "shop_write_mode");
        let answer = session.write(&write, &Limits::default()).await.unwrap();
        assert_eq!(answer.rows, [[json!("off")]]);
    }
    let excess = session.excess_privileges().await.unwrap();
    let texts: Vec<_> = excess.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["may write tables of the schema"]);
    // Which is what the one is there for.
    assert!(!excess[0].is_excess_in(AccessMode::ReadWrite));
    assert!(excess[0].is_excess_in(AccessMode::ReadOnly));
    let mut session = open(items("shop_write_mode").await, Access::default()).await;
    let Err(Error::Refused(refusal)) = change(&mut *session, "DELETE FROM log WHERE true").await
    else {
        panic!("was refused")
    };
    assert_eq!(refusal.rule(), "access-mode");
    assert_eq!(read(&mut *session, "shop_write_mode", mode).await, "[[\"on\"]]");
}

fn in_schema(sql: &str, schema: &str) -> Write {
    let access = Access::default();
    let statement = check_write(sql, Dialect::Postgres, &Resource::Database, &access, schema);
    let statement = statement.unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
    Write { statement, params: vec![], limit: None }
}

#[tokio::test]
async fn only_tables_of_the_tenants_own_are_changed() {
    const SCHEMA: &str = "shop_write_kinds";
    let target = items(SCHEMA).await;
    driver()
        .await
        .batch_execute(&format!(
            "SET search_path = {SCHEMA};
             CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM items;
             CREATE SEQUENCE numbers;
             CREATE TABLE days (at date, x int) PARTITION BY RANGE (at);
             CREATE TABLE days_24 PARTITION OF days FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
             CREATE FUNCTION lower(int) RETURNS text LANGUAGE sql AS
               $$ INSERT INTO log VALUES ('by a function') RETURNING what $$;
             CREATE FUNCTION leak(items) RETURNS text LANGUAGE sql AS $$ SELECT $1.secret $$;
             GRANT ALL ON ALL TABLES IN SCHEMA {SCHEMA} TO shop_writer;"
        ))
        .await
        .unwrap();
    let access = writable(Access {
        tables: None,
        deny_columns: vec![denied("items", "secret")],
        ..reads(&[])
    });
    let mut session = open(target, access.clone()).await;
    let rule = async |session: &mut dyn Database, sql: &str| {
        let write = in_schema(sql, SCHEMA);
        match session.write(&write, &Limits::default()).await {
            Ok(answer) => Ok(answer.changed),
            Err(Error::Refused(refusal)) => Err(refusal.rule()),
            Err(error) => panic!("{sql}: {error}"),
        }
    };
    for (sql, expected) in [
        ("DELETE FROM names WHERE true", Err("relation")),
        ("UPDATE counted SET count = 1 WHERE true", Err("relation")),
        ("UPDATE numbers SET last_value = 1 WHERE true", Err("relation")),
        ("INSERT INTO log (what) VALUES (lower(1))", Err("function")),
        ("INSERT INTO log (what) SELECT name FROM names", Err("column")),
        ("INSERT INTO log (what) VALUES (pg_catalog.lower('A'))", Ok(1)),
        ("INSERT INTO days VALUES ('2024-02-29', 1), ('2024-03-01', 2)", Ok(2)),
        ("DELETE FROM days WHERE x = 2", Ok(1)),
    ] {
        assert_eq!(rule(&mut *session, sql).await, expected, "{sql}");
    }
    // What only the catalogue can tell from a column.
    let sql = "UPDATE items SET name = items.leak WHERE true RETURNING name";
    let statement =
        check_write(sql, Dialect::Postgres, &Resource::Database, &access, SCHEMA).unwrap();
    let write = Write { statement, params: vec![], limit: None };
    let answer = session.write(&write, &Limits::default()).await;
    assert!(matches!(answer, Err(Error::Refused(_))), "{answer:?}");
    assert_eq!(count(SCHEMA, "SELECT count(*) FROM log WHERE what = 'by a function'").await, 0);
}

#[tokio::test]
async fn an_error_within_a_trigger_says_nothing_of_what_it_did() {
    const SCHEMA: &str = "shop_write_triggers";
    let target = items(SCHEMA).await;
    driver()
        .await
        .batch_execute(&format!(
            "SET search_path = {SCHEMA};
             CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql SET search_path = {SCHEMA} AS
               $$ BEGIN
                 IF new.name = 'raise' THEN RAISE EXCEPTION 'canary'; END IF;
                 IF new.name = 'data' THEN PERFORM ('canary' || new.id)::int; END IF;
                 IF new.name = 'table' THEN INSERT INTO canary_table VALUES (1); END IF;
                 IF new.name = 'grant' THEN INSERT INTO canary_hidden VALUES (1); END IF;
                 IF new.name = 'unique' THEN INSERT INTO canary_unique VALUES (1); END IF;
                 RETURN new; END $$;
             CREATE TRIGGER failing BEFORE INSERT ON items
               FOR EACH ROW EXECUTE FUNCTION fails();
             CREATE TABLE canary_unique (x int UNIQUE); INSERT INTO canary_unique VALUES (1);
             GRANT ALL ON canary_unique TO shop_writer;
             CREATE TABLE canary_hidden (x int);"
        ))
        .await
        .unwrap();
    let mut session = open(target, writable(Access::default())).await;
    for name in ["raise", "data", "table", "grant", "unique"] {
        let sql = format!("INSERT INTO items (id, name) VALUES (50, '{name}')");
        let answer = session.write(&in_schema(&sql, SCHEMA), &Limits::default()).await;
        let Err(Error::Failed { message, .. }) = answer else { panic!("{name}: {answer:?}") };
        assert!(!message.contains("canary"), "{name}: {message}");
        assert!(!session.is_broken());
    }
    // What the caller's own statement does wrong it is told.
    let sql = "INSERT INTO items (id, name) VALUES ('own'::text::int, 'x')";
    let told = changed_in(&mut *session, sql, SCHEMA).await.unwrap_err();
    assert!(told.contains("own"), "{told}");
    assert_eq!(count(SCHEMA, "SELECT count(*) FROM items").await, 2);
}

async fn changed_in(session: &mut dyn Database, sql: &str, schema: &str) -> Result<u64, String> {
    let answer = session.write(&in_schema(sql, schema), &Limits::default()).await;
    answer.map(|answer| answer.changed).map_err(|error| error.to_string())
}

#[tokio::test]
async fn what_fails_when_it_is_made_final_is_not_made() {
    const SCHEMA: &str = "shop_write_deferred";
    let target = items(SCHEMA).await;
    driver()
        .await
        .batch_execute(&format!(
            "SET search_path = {SCHEMA};
             ALTER TABLE parts ALTER CONSTRAINT parts_item_fkey DEFERRABLE INITIALLY DEFERRED;"
        ))
        .await
        .unwrap();
    let mut session = open(target, writable(Access::default())).await;
    let told = changed_in(&mut *session, "INSERT INTO parts VALUES (9, 99)", SCHEMA).await;
    assert!(told.unwrap_err().starts_with("a foreign key does not hold"));
    assert!(!session.is_broken());
    assert_eq!(count(SCHEMA, "SELECT count(*) FROM parts").await, 3);
    assert_eq!(changed_in(&mut *session, "INSERT INTO parts VALUES (9, 2)", SCHEMA).await, Ok(1));
}

#[tokio::test]
async fn a_change_that_is_cancelled_or_too_long_is_undone() {
    const SCHEMA: &str = "shop_write_long";
    let target = items(SCHEMA).await;
    driver()
        .await
        .batch_execute(&format!(
            "CREATE VIEW {SCHEMA}.slow AS SELECT pg_sleep(60)::text AS x;
             GRANT SELECT ON {SCHEMA}.slow TO shop_writer;"
        ))
        .await
        .unwrap();
    let mut session = open(target.clone(), writable(Access::default())).await;
    let write =
        in_schema("UPDATE items SET name = 'x' WHERE (SELECT x FROM slow) IS NOT NULL", SCHEMA);
    let limits = Limits { statement_timeout: Duration::from_millis(100), ..Limits::default() };
    assert_eq!(session.write(&write, &limits).await, Err(Error::Timeout));
    assert!(!session.is_broken());
    let limits = Limits::default();
    let mut running = session.write(&write, &limits);
    let client = driver().await;
    let is_asleep = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'shop_writer' \
                   AND wait_event = 'PgSleep'";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0
    };
    while !is_asleep().await {
        assert!(poll!(&mut running).is_pending());
    }
    drop(running);
    assert!(session.is_broken());
    drop(session);
    while is_asleep().await {}
    let mut session = open(target, writable(Access::default())).await;
    let sql = "UPDATE items SET name = 'y' WHERE name <> 'x'";
    assert_eq!(changed_in(&mut *session, sql, SCHEMA).await, Ok(2));
}

#[tokio::test]
async fn changes_of_several_sessions_add_up() {
    const SCHEMA: &str = "shop_write_many";
    let target = items(SCHEMA).await;
    let all = (0..4).map(|_| async {
        let mut session = open(target.clone(), writable(Access::default())).await;
        for _ in 0..25 {
            let sql = "UPDATE items SET amount = amount + 1 WHERE id = 1";
            assert_eq!(changed_in(&mut *session, sql, SCHEMA).await, Ok(1));
        }
    });
    futures_util::future::join_all(all).await;
    assert_eq!(count(SCHEMA, "SELECT amount FROM items WHERE id = 1").await, 100);
}

#[tokio::test]
async fn rows_that_a_policy_hides_are_not_changed() {
    const SCHEMA: &str = "shop_write_policy";
    let target = items(SCHEMA).await;
    driver()
        .await
        .batch_execute(&format!(
            "SET search_path = {SCHEMA};
             CREATE TABLE orders (tenant text, id int);
             INSERT INTO orders VALUES ('tenant001', 1), ('tenant002', 2);
             ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON orders USING (tenant = current_setting('app.tenant_id', true));
             GRANT ALL ON orders TO shop_writer;"
        ))
        .await
        .unwrap();
    let target = PostgresTarget { tenant_variable: Some("app.tenant_id".to_owned()), ..target };
    let mut session = open(target, writable(Access::default())).await;
    let session = &mut *session;
    assert_eq!(changed_in(session, "UPDATE orders SET id = 9 WHERE true", SCHEMA).await, Ok(1));
    let sql = "INSERT INTO orders VALUES ('tenant002', 3)";
    assert_eq!(changed_in(session, sql, SCHEMA).await, Err("permission denied".to_owned()));
    assert_eq!(count(SCHEMA, "SELECT id FROM orders WHERE tenant = 'tenant002'").await, 2);
}

/// Passes bytes on to the real server, until one that the client sends says COMMIT: `cut` says on
/// which side of the server the connection then breaks.
async fn cutting(is_armed: Arc<AtomicBool>, before_the_server: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let is_armed = Arc::clone(&is_armed);
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", target().port)).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let back = tokio::spawn(async move {
                    drop(tokio::io::copy(&mut from_server, &mut to_client).await);
                });
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                    let bytes = &buffer[..length];
                    let bound = b"\0tenantry_commit\0\0\0";
                    let is_commit = bytes.windows(bound.len()).any(|it| it == bound);
                    if is_commit && is_armed.load(Ordering::Relaxed) {
                        back.abort();
                        drop(back.await);
                        if !before_the_server {
                            to_server.write_all(bytes).await.unwrap();
                            // Until the server has read it all.
                            drop(to_server.shutdown().await);
                        }
                        return;
                    }
                    to_server.write_all(bytes).await.unwrap();
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_connection_that_is_lost_with_the_last_word_leaves_the_outcome_unknown() {
    const SCHEMA: &str = "shop_write_lost";
    let target = items(SCHEMA).await;
    for (before_the_server, id) in [(true, 100), (false, 101)] {
        let is_armed = Arc::new(AtomicBool::new(false));
        let port = cutting(Arc::clone(&is_armed), before_the_server).await;
        let host = "127.0.0.1".to_owned();
        let through = PostgresTarget { host, port, tls: TlsMode::Disable, ..target.clone() };
        let mut session = open(through, writable(Access::default())).await;
        let sql = format!("INSERT INTO items (id, name) VALUES ({}, 'kept')", id + 100);
        assert_eq!(changed_in(&mut *session, &sql, SCHEMA).await, Ok(1));
        is_armed.store(true, Ordering::Relaxed);
        let sql = format!("INSERT INTO items (id, name) VALUES ({id}, 'lost')");
        let answer = session.write(&in_schema(&sql, SCHEMA), &Limits::default()).await;
        assert_eq!(answer, Err(Error::OutcomeUnknown));
        assert_eq!(Error::OutcomeUnknown.code(), ErrorCode::OutcomeUnknown);
        assert!(session.is_broken());
        let again = session.write(&in_schema(&sql, SCHEMA), &Limits::default()).await;
        assert_eq!(again, Err(Unavailable::Lost.into()));
        let made = format!("SELECT count(*) FROM items WHERE id = {id}");
        // The one that the server had read is made: nobody could have known.
        let expected = i64::from(!before_the_server);
        while count(SCHEMA, &made).await != expected {}
    }
}

#[tokio::test]
async fn a_session_that_had_ended_says_so_before_a_change_begins() {
    const SCHEMA: &str = "shop_write_stale";
    let mut session = writer(SCHEMA).await;
    let client = driver().await;
    driver()
        .await
        .batch_execute(&format!(
            "CREATE VIEW {SCHEMA}.own_pid AS SELECT pg_backend_pid() AS pid;
             GRANT SELECT ON {SCHEMA}.own_pid TO shop_writer;"
        ))
        .await
        .unwrap();
    let answer = read(&mut *session, SCHEMA, "SELECT pid FROM own_pid").await;
    let pid: i32 = answer.trim_matches(['[', ']']).parse().unwrap();
    client.execute("SELECT pg_terminate_backend($1, 5000)", &[&pid]).await.unwrap();
    while !session.is_broken() {
        tokio::task::yield_now().await;
    }
    let sql = "INSERT INTO items (id, name) VALUES (9, 'x')";
    let answer = session.write(&in_schema(sql, SCHEMA), &Limits::default()).await;
    assert_eq!(answer, Err(Unavailable::Stale.into()));
    assert_eq!(count(SCHEMA, "SELECT count(*) FROM items").await, 2);
}
