//! What a session adds to a statement on `PostgreSQL`.
//!
//! Beside ours, in turns and on connections of their own to the same server: a prepared statement
//! alone; in `BEGIN READ ONLY` and `COMMIT`, one after the other as drivers do it; the same sent at
//! once. Ours also sets limits, checks types, makes JSON, and leaves nothing behind. Turns are many
//! and short, and the fastest of each counts, so that other work on the machine hardly does. Needs the variables that `tests/support/postgres.sh start DIR` prints.

#![expect(clippy::unwrap_used, reason = "a failed set-up should end the bench")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_methods, reason = "the machine's clock, tasks and environment")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tenantry::database::{self, AddressPolicy, Query, RowsRead};
use tenantry::memory::SecretText;
use tenantry::tenant::{
    Access, Connection, Credentials, IdRule, Limits, PostgresTarget, Quotas, Resource,
    TenantConfig, TenantId, TlsMode,
};

const TURNS: usize = 101;
const STATEMENTS: u32 = 50;
const SQL: &str = "SELECT * FROM bench_customers WHERE id = 7";

fn told(name: &str) -> String {
    std::env::var(name).unwrap()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Ok(port) = std::env::var("TENANTRY_TEST_PG_PORT") else {
        println!("no server: eval \"$(tests/support/postgres.sh start DIR)\" first");
        return;
    };
    let target = PostgresTarget {
        host: "127.0.0.1".to_owned(),
        port: port.parse().unwrap(),
        database: "postgres".to_owned(),
        user: told("TENANTRY_TEST_PG_SUPERUSER"),
        tls: TlsMode::Disable,
        root_certificates: None,
        client_certificate: None,
        schema: "public".to_owned(),
        tenant_variable: None,
    };
    let mut config = tokio_postgres::Config::new();
    config
        .host(&target.host)
        .port(target.port)
        .user(&target.user)
        .password(told("TENANTRY_TEST_PG_PASSWORD"))
        .dbname(&target.database);
    let (mut client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute(
            "DROP TABLE IF EXISTS bench_customers; CREATE TABLE bench_customers AS
             SELECT id, 'name ' || id AS name, id * 1.5 AS balance, now() AS since, id % 2 = 0 AS is_new,
             'someone@example.com' AS mail FROM generate_series(1, 10000) id;
             ALTER TABLE bench_customers ADD PRIMARY KEY (id); ANALYZE bench_customers",
        )
        .await
        .unwrap();
    let prepared = client.prepare(SQL).await.unwrap();
    let begin = client.prepare("BEGIN READ ONLY").await.unwrap();
    let commit = client.prepare("COMMIT").await.unwrap();

    let config = TenantConfig {
        id: TenantId::parse("tenant001", IdRule::Alphanumeric).unwrap(),
        connection: Connection::Postgres(target),
        access: Access::default(),
        limits: Limits::default(),
        quotas: Quotas::default(),
        features: BTreeMap::default(),
    };
    let db_password = Some(SecretText::from(told("TENANTRY_TEST_PG_PASSWORD").as_str()));
    let credentials = Credentials { db_password, ..Credentials::default() };
    let options = database::Options {
        sqlite_root: PathBuf::from("/nowhere"),
        connect_timeout: Duration::from_secs(5),
        addresses: AddressPolicy::default(),
    };
    let mut session =
        database::connect(&config, &credentials, &options, Box::new(())).await.unwrap();
    let access = Access::default();
    let statement =
        database::check(SQL, session.dialect(), &Resource::Database, &access, "public").unwrap();
    let query = Query { statement, params: vec![], limit: None, read: RowsRead::default() };

    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..TURNS {
        let [alone, in_turn, at_once, ours] = &mut times;
        alone.push(
            time(async || {
                client.query(&prepared, &[]).await.unwrap();
            })
            .await,
        );
        let began = Instant::now();
        for _ in 0..STATEMENTS {
            let transaction = client.build_transaction().read_only(true).start().await.unwrap();
            transaction.query(&prepared, &[]).await.unwrap();
            transaction.commit().await.unwrap();
        }
        in_turn.push(per_statement(began));
        at_once.push(
            time(async || {
                let (begun, found, ended) = tokio::join!(
                    client.execute(&begin, &[]),
                    client.query(&prepared, &[]),
                    client.execute(&commit, &[])
                );
                begun.unwrap();
                assert_eq!(found.unwrap().len(), 1);
                ended.unwrap();
            })
            .await,
        );
        let began = Instant::now();
        for _ in 0..STATEMENTS {
            let answer = session.query(&query, &config.limits).await.unwrap();
            assert_eq!(answer.rows.len(), 1);
        }
        ours.push(per_statement(began));
    }
    let [alone, in_turn, at_once, ours] = times.map(fastest);
    print([alone, in_turn, at_once, ours]);
}

fn print([alone, in_turn, at_once, ours]: [f64; 4]) {
    println!("one row by primary key, microseconds, fastest of {TURNS} turns of {STATEMENTS}\n");
    println!("{:44} {:>8} {:>14}", "", "us", "ours / it");
    for (name, time) in [
        ("prepared statement alone", alone),
        ("prepared, read-only transaction, in turn", in_turn),
        ("prepared, read-only transaction, at once", at_once),
        ("ours", ours),
    ] {
        println!("{name:44} {time:>8.1} {:>14.2}", ours / time);
    }
    println!("\ngoal: at most 1.3 of the transaction, in turn as drivers do it");
}

async fn time(run: impl AsyncFn()) -> f64 {
    let began = Instant::now();
    for _ in 0..STATEMENTS {
        run().await;
    }
    per_statement(began)
}

fn per_statement(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e6 / f64::from(STATEMENTS)
}

fn fastest(times: Vec<f64>) -> f64 {
    times.into_iter().fold(f64::INFINITY, f64::min)
}
