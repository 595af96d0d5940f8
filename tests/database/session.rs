//! What a session leaves behind, says, may and takes: on a real server.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tenantry::database::{AddressPolicy, Database, Error, ExcessPrivilege, Options, Unavailable};
use tenantry::tenant::{Access, Connection, IdRule, Limits, PostgresTarget, TenantId, TlsMode};
use tokio::time::Instant;

use super::postgres::{driver, open, password, target, told, with_shop};
use super::{connect, guarded, run, run_with};

/// The server's process of the session.
async fn backend(session: &mut dyn Database) -> i32 {
    let pid = run(session, "SELECT pid FROM own_pid").await.unwrap().rows.to_values();
    i32::try_from(pid[0][0].as_i64().unwrap()).unwrap()
}

#[tokio::test]
async fn nothing_of_one_statement_is_left_for_the_next() {
    let client = driver().await;
    let mut session = open().await;
    let pid = backend(&mut *session).await;
    let left = async || {
        let sql = "SELECT (SELECT count(*) FROM pg_locks WHERE pid = $1) \
                   + (SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state <> 'idle')";
        client.query_one(sql, &[&pid]).await.unwrap().get::<_, i64>(0)
    };
    // What only the tenant's own schema can do: the guard refuses it in a statement.
    let settings = "SELECT a, b, c FROM settings";
    let before = run(&mut *session, settings).await.unwrap().rows;
    for sql in [
        "SELECT x FROM locks",
        "SELECT x FROM sets",
        "SELECT x FROM slow_sets",
        "SELECT 1 / 0 FROM locks",
        "SELECT x, 1 / (SELECT count(*) FROM customers WHERE id > 9) FROM sets",
    ] {
        let limits = Limits { statement_timeout: Duration::from_millis(300), ..Limits::default() };
        drop(run_with(&mut *session, sql, vec![], &limits).await);
        assert!(!session.is_broken(), "{sql}");
        for _ in 0..20 {
            assert_eq!(run(&mut *session, settings).await.unwrap().rows, before, "{sql}");
        }
        assert_eq!(left().await, 0, "{sql}");
    }
    assert_eq!(backend(&mut *session).await, pid);
}

#[tokio::test]
async fn a_statement_whose_caller_is_gone_is_over_within_a_tenth_of_a_second() {
    let client = driver().await;
    for sql in ["SELECT x FROM slow", "SELECT count(*) FROM endless", "SELECT n FROM endless"] {
        let mut times = Vec::new();
        for _ in 0..5 {
            let mut session = open().await;
            let pid = backend(&mut *session).await;
            let is_active = async || {
                let sql = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1";
                let found = client.query_opt(sql, &[&pid]).await.unwrap();
                found.is_some_and(|row| row.get::<_, Option<bool>>(0) == Some(true))
            };
            let query = guarded(&*session, sql, &Access::default(), vec![]);
            let limits = Limits { max_rows: 1_000_000, ..Limits::default() };
            let mut running = Box::pin(session.query(&query, &limits));
            while !is_active().await {
                assert!(futures_util::poll!(&mut running).is_pending(), "{sql}");
            }
            let gone = Instant::now();
            drop(running);
            assert!(session.is_broken());
            drop(session);
            while is_active().await {
                assert!(gone.elapsed() < Duration::from_secs(5), "{sql} still runs");
            }
            times.push(gone.elapsed());
        }
        // Of several: other tests take the processors too.
        times.sort();
        assert!(times[2] < Duration::from_millis(100), "{sql}: {times:?}");
    }
}

#[tokio::test]
async fn a_session_that_ended_while_nobody_used_it_is_seen_before_it_is_used() {
    let client = driver().await;
    let mut session = open().await;
    let pid = backend(&mut *session).await;
    assert!(!session.is_broken());
    client.execute("SELECT pg_terminate_backend($1, 5000)", &[&pid]).await.unwrap();
    while !session.is_broken() {
        tokio::task::yield_now().await;
    }
    let answer = run(&mut *session, "SELECT 1").await;
    assert_eq!(answer, Err(Unavailable::Stale.into()));
    // While it was used is another matter.
    let mut session = open().await;
    let pid = backend(&mut *session).await;
    let query = guarded(&*session, "SELECT x FROM slow", &Access::default(), vec![]);
    let limits = Limits::default();
    let ended = async {
        let sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
                   WHERE pid = $1 AND wait_event = 'PgSleep'";
        while client.query_opt(sql, &[&pid]).await.unwrap().is_none() {}
    };
    let (answer, ()) = tokio::join!(session.query(&query, &limits), ended);
    assert_eq!(answer, Err(Unavailable::Lost.into()));
}

#[tokio::test]
async fn an_error_says_what_the_statement_did_and_nothing_of_what_it_did_not_name() {
    let client = driver().await;
    let mut session = open().await;
    let reader = PostgresTarget { user: "shop_reader".to_owned(), ..target() };
    client
        .batch_execute(
            "DROP ROLE IF EXISTS shop_reader; CREATE ROLE shop_reader LOGIN PASSWORD 'reader';
             GRANT USAGE ON SCHEMA shop TO shop_reader;
             GRANT SELECT ON shop.customers, shop.raises, shop.by_canary TO shop_reader;",
        )
        .await
        .unwrap();
    let failed = |answer: Result<tenantry::database::QueryResult, Error>| match answer {
        Err(Error::Failed { sqlstate, message, position }) => {
            (sqlstate.unwrap(), message, position)
        }
        answer => panic!("{answer:?}"),
    };
    let unknown = failed(run(&mut *session, "SELECT nothing FROM customers").await);
    assert_eq!((unknown.0.as_str(), unknown.2), ("42703", Some(8)));
    assert!(unknown.1.contains("nothing"));
    let division = failed(run(&mut *session, "SELECT id / 0 FROM customers").await);
    assert_eq!(division.1, "division by zero");
    let connection = Connection::Postgres(reader);
    let credentials = password("reader");
    let opened = connect(connection, Access::default(), &credentials, Path::new("/nowhere"));
    let mut session = opened.await.unwrap();
    run(&mut *session, "SELECT id FROM customers").await.unwrap();
    for (sql, sqlstate) in [
        ("SELECT x FROM by_canary", "42501"),
        ("SELECT x FROM raises", "P0001"),
        ("SELECT colour FROM paints", "42501"),
    ] {
        let (state, message, _) = failed(run(&mut *session, sql).await);
        assert_eq!(state, sqlstate);
        assert!(!message.contains("canary") && !message.contains("paints"), "{message}");
    }
    assert!(!session.is_broken());
}

#[tokio::test]
async fn addresses_that_no_database_may_have_are_not_dialled() {
    with_shop().await;
    let credentials = password(&told("TENANTRY_TEST_PG_PASSWORD"));
    let open = async |host: &str, addresses: AddressPolicy| {
        let target = PostgresTarget { host: host.to_owned(), tls: TlsMode::Disable, ..target() };
        let config = super::config(Connection::Postgres(target), Access::default());
        let options = Options { addresses, ..super::options(Path::new("/nowhere")) };
        tenantry::database::connect(&config, &credentials, &options, Box::new(())).await.err()
    };
    let refused = Some(Unavailable::AddressNotPermitted.into());
    for host in ["169.254.169.254", "0.0.0.0", "0", "[::]", "::ffff:169.254.169.254"] {
        let error = open(host, AddressPolicy::default()).await;
        assert!(error == refused || error == Some(Unavailable::HostNotFound.into()), "{host}");
    }
    let strict = AddressPolicy { deny_private: true, allow: vec![] };
    for host in ["127.0.0.1", "localhost", "0x7f000001", "2130706433", "/tmp"] {
        assert_eq!(open(host, strict.clone()).await, refused, "{host}");
    }
    let allow = vec!["127.0.0.0/8".parse().unwrap()];
    assert_eq!(open("127.0.0.1", AddressPolicy { deny_private: true, allow }).await, None);
    assert_eq!(open("127.0.0.1", AddressPolicy::default()).await, None);
}

#[tokio::test]
async fn tenants_of_one_database_see_their_own_rows_by_a_variable_of_the_transaction() {
    let client = driver().await;
    client
        .batch_execute(
            "DROP SCHEMA IF EXISTS shared CASCADE; CREATE SCHEMA shared;
             DROP ROLE IF EXISTS shared_reader;
             CREATE ROLE shared_reader LOGIN PASSWORD 'reader';
             CREATE TABLE shared.orders (tenant text, id int);
             INSERT INTO shared.orders VALUES ('tenant001', 1), ('tenant002', 2);
             ALTER TABLE shared.orders ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON shared.orders
               USING (tenant = current_setting('app.tenant_id', true));
             CREATE FUNCTION shared.other() RETURNS text LANGUAGE sql AS
               $$ SELECT set_config('app.tenant_id', 'tenant002', false) $$;
             CREATE VIEW shared.breakout WITH (security_barrier) AS SELECT shared.other() AS x;
             GRANT USAGE ON SCHEMA shared TO shared_reader;
             GRANT SELECT ON shared.orders, shared.breakout TO shared_reader;",
        )
        .await
        .unwrap();
    let mut sessions = Vec::new();
    for (tenant, variable) in [
        ("tenant001", Some("app.tenant_id")),
        ("tenant002", Some("app.tenant_id")),
        ("tenant001", None),
    ] {
        let target = PostgresTarget {
            user: "shared_reader".to_owned(),
            schema: "shared".to_owned(),
            tenant_variable: variable.map(str::to_owned),
            ..target()
        };
        let mut config = super::config(Connection::Postgres(target), Access::default());
        config.id = TenantId::parse(tenant, IdRule::Alphanumeric).unwrap();
        let options = super::options(Path::new("/nowhere"));
        let opened =
            tenantry::database::connect(&config, &password("reader"), &options, Box::new(())).await;
        sessions.push(opened.unwrap());
    }
    for _ in 0..3 {
        for (session, expected) in sessions.iter_mut().zip([&[[json!(1)]][..], &[[json!(2)]], &[]])
        {
            let answer = run(&mut **session, "SELECT id FROM orders").await.unwrap();
            assert_eq!(answer.rows, expected.to_vec());
            // What a view of the tenant's own sets is gone with its transaction.
            run(&mut **session, "SELECT x FROM breakout").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_role_that_may_do_more_than_read_is_found_out() {
    with_shop().await;
    let mut session = open().await;
    let found = session.excess_privileges().await.unwrap();
    let is_superuser = ExcessPrivilege { text: "is a superuser".to_owned(), is_privileged: true };
    assert_eq!(found, [is_superuser]);
    driver()
        .await
        .batch_execute(
            "DROP SCHEMA IF EXISTS shop_written CASCADE;
             DROP ROLE IF EXISTS shop_powers; DROP ROLE IF EXISTS shop_plain;
             CREATE ROLE shop_plain LOGIN PASSWORD 'reader';
             CREATE ROLE shop_powers LOGIN PASSWORD 'reader' BYPASSRLS CREATEDB;
             GRANT pg_read_server_files TO shop_powers;
             GRANT pg_monitor TO shop_powers;
             CREATE SCHEMA shop_written; CREATE TABLE shop_written.t (x int);
             GRANT USAGE, CREATE ON SCHEMA shop_written TO shop_powers;
             GRANT USAGE ON SCHEMA shop_written TO shop_plain;
             GRANT SELECT, DELETE ON shop_written.t TO shop_powers;
             GRANT SELECT ON shop_written.t TO shop_plain;
             DROP ROLE IF EXISTS shop_owner; CREATE ROLE shop_owner LOGIN PASSWORD 'reader';
             GRANT USAGE ON SCHEMA shop_written TO shop_owner;
             CREATE TABLE shop_written.own (x int);
             ALTER TABLE shop_written.own ENABLE ROW LEVEL SECURITY;
             ALTER TABLE shop_written.own OWNER TO shop_owner;",
        )
        .await
        .unwrap();
    for (user, expected) in [
        ("shop_plain", &[][..]),
        (
            "shop_owner",
            &[
                ("may write tables of the schema", false),
                ("owns tables whose row-level security does not hold for their owner", true),
            ],
        ),
        (
            "shop_powers",
            &[
                ("bypasses row-level security", true),
                ("is a member of pg_monitor", true),
                ("is a member of pg_read_server_files", true),
                ("may create databases", true),
                ("may create objects in the schema", false),
                ("may write tables of the schema", false),
            ],
        ),
    ] {
        let schema = "shop_written".to_owned();
        let connection =
            Connection::Postgres(PostgresTarget { user: user.to_owned(), schema, ..target() });
        let credentials = password("reader");
        let opened = connect(connection, Access::default(), &credentials, Path::new("/nowhere"));
        let found = opened.await.unwrap().excess_privileges().await.unwrap();
        let found: Vec<(&str, bool)> = found
            .iter()
            .map(|found| (&*found.text, found.is_privileged))
            // That there are these below pg_monitor is not the same in all versions.
            .filter(|(text, _)| {
                !text.contains("pg_read_all_s") && !text.contains("pg_stat_scan_tables")
            })
            .collect();
        assert_eq!(found, expected, "{user}");
    }
    driver().await.batch_execute("DROP SCHEMA shop_written CASCADE").await.unwrap();
}

/// Bytes that this process has had in memory at most, since it was last asked to forget.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// In a process of its own, where nothing else takes memory: see the next test.
#[tokio::test]
#[ignore = "started by the next test"]
async fn child_that_reads_more_than_it_may() {
    let mut session = open().await;
    let limits = Limits { max_rows: 1_000_000, ..Limits::default() };
    run_with(&mut *session, "SELECT n FROM numbers", vec![], &limits).await.unwrap();
    for (sql, expected) in [
        ("SELECT n, x FROM millions", "rows"),
        ("SELECT x FROM wide", "too large"),
        ("SELECT n, repeat('y', n * 1000000) FROM numbers WHERE n < 50", "rows"),
        ("SELECT array_agg(n) FROM millions", "too large"),
    ] {
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = peak();
        let answer = run_with(&mut *session, sql, vec![], &limits).await;
        let grown = peak() - before;
        println!("{sql}: {} KiB", grown / 1024);
        match answer {
            Ok(answer) => assert!(expected == "rows" && answer.truncated, "{sql}"),
            Err(error) => assert_eq!((expected, error), ("too large", Error::TooLarge), "{sql}"),
        }
        assert!(grown < 16 << 20, "{sql}: {} KiB", grown / 1024);
        assert_eq!(run(&mut *session, "SELECT 1").await.unwrap().rows, [[json!(1)]]);
    }
}

#[tokio::test]
async fn memory_is_bounded_by_the_limit_whatever_the_rows_are() {
    with_shop().await;
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "session::child_that_reads_more_than_it_may", "--ignored"])
        .args(["--nocapture", "--test-threads=1"])
        .env("TENANTRY_TEST_SHOP", "made")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}\n{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("1 passed"), "{said}");
}
