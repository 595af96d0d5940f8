//! What a page of a listing takes where there are 10,000 tables, beyond the database's own time.
//!
//! Beside a page of ours, in turns and on connections of their own: the bare question for all names,
//! and the bare questions for the names and the columns of 100 tables. Needs, for `PostgreSQL`, the
//! variables that `tests/support/postgres.sh start DIR` prints.

#![expect(clippy::unwrap_used, reason = "a failed set-up should end the bench")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_methods, reason = "the machine's clock, tasks and environment")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tenantry::database::{self, AddressPolicy, Database};
use tenantry::memory::SecretText;
use tenantry::tenant::{
    Access, Connection, Credentials, IdRule, Limits, PostgresTarget, Quotas, RelationName,
    TenantConfig, TenantId, TlsMode,
};

const TURNS: usize = 7;
const TABLES: usize = 10_000;
const PAGE: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("a page of {PAGE} of {TABLES} tables, milliseconds, medians of {TURNS} turns\n");
    println!(
        "{:10} {:>10} {:>12} {:>10} {:>10} {:>12}",
        "", "all names", "bare page", "first", "next", "beyond bare"
    );
    sqlite().await;
    if std::env::var("TENANTRY_TEST_PG_PORT").is_ok() {
        postgres().await;
    } else {
        println!("no server: eval \"$(tests/support/postgres.sh start DIR)\" first");
    }
    println!("\ngoal: a next page takes less than 50 ms beyond the database's own time");
}

fn table(number: usize) -> String {
    format!("t{number:05}")
}

/// Names and kinds, all columns of the middle hundred.
fn page() -> Vec<RelationName> {
    let numbers = TABLES / 2..TABLES / 2 + PAGE;
    numbers.map(|number| RelationName { schema: None, name: table(number) }).collect()
}

async fn ours(session: &mut dyn Database, page: &[RelationName]) {
    let access = Access::default();
    assert_eq!(session.catalogue(&access).await.unwrap().relations().len(), TABLES);
    assert_eq!(session.describe(&access, page).await.unwrap().len(), PAGE);
}

async fn open(connection: Connection, password: Option<&str>, root: &Path) -> Box<dyn Database> {
    let config = TenantConfig {
        id: TenantId::parse("tenant001", IdRule::Alphanumeric).unwrap(),
        connection,
        access: Access::default(),
        limits: Limits::default(),
        quotas: Quotas::default(),
        features: std::collections::BTreeMap::default(),
    };
    let db_password = password.map(SecretText::from);
    let credentials = Credentials { db_password, ..Credentials::default() };
    let options = database::Options {
        sqlite_root: PathBuf::from(root),
        connect_timeout: Duration::from_secs(5),
        addresses: AddressPolicy::default(),
    };
    database::connect(&config, &credentials, &options, Box::new(())).await.unwrap()
}

async fn sqlite() {
    // What bounds a session's memory has to be there before the engine is used.
    database::bound_memory();
    let root = tempfile::tempdir().unwrap();
    let bare = rusqlite::Connection::open(root.path().join("bench.db")).unwrap();
    let tables = (0..TABLES).map(|number| {
        format!("CREATE TABLE {} (id INTEGER PRIMARY KEY, name TEXT, x REAL);", table(number))
    });
    bare.execute_batch(&format!("BEGIN;{}COMMIT;", tables.collect::<String>())).unwrap();
    let page = page();
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..TURNS {
        let began = Instant::now();
        let mut statement = bare.prepare("SELECT name, type FROM sqlite_schema").unwrap();
        let names = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(names.count(), TABLES);
        times[0].push(milliseconds(began));
        let began = Instant::now();
        for name in &page {
            for question in ["table_xinfo", "index_list", "foreign_key_list"] {
                let sql = format!("SELECT * FROM pragma_{question}(?1)");
                let mut statement = bare.prepare_cached(&sql).unwrap();
                let rows = statement.query_map([&name.name], |_| Ok(())).unwrap();
                rows.for_each(|row| row.unwrap());
            }
        }
        times[1].push(milliseconds(began));
        let connection = Connection::Sqlite { path: "bench.db".to_owned() };
        let mut session = open(connection, None, root.path()).await;
        for place in [2, 3] {
            let began = Instant::now();
            ours(&mut *session, &page).await;
            times[place].push(milliseconds(began));
        }
    }
    print("SQLite", times);
}

async fn postgres() {
    let told = |name: &str| std::env::var(name).unwrap();
    let target = PostgresTarget {
        host: "127.0.0.1".to_owned(),
        port: told("TENANTRY_TEST_PG_PORT").parse().unwrap(),
        database: "postgres".to_owned(),
        user: told("TENANTRY_TEST_PG_SUPERUSER"),
        tls: TlsMode::Disable,
        root_certificates: None,
        client_certificate: None,
        schema: format!("bench_{}", std::process::id()),
        tenant_variable: None,
    };
    let password = told("TENANTRY_TEST_PG_PASSWORD");
    let mut config = tokio_postgres::Config::new();
    config
        .host(&target.host)
        .port(target.port)
        .user(&target.user)
        .password(&password)
        .dbname(&target.database);
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let schema = &target.schema;
    client.batch_execute(&format!("CREATE SCHEMA {schema}")).await.unwrap();
    // As many at a time as one transaction has locks for.
    for begin in (0..TABLES).step_by(1_000) {
        let tables = (begin..begin + 1_000).map(|number| {
            let table = table(number);
            format!("CREATE TABLE {schema}.{table} (id int PRIMARY KEY, name text, x float8);")
        });
        client.batch_execute(&tables.collect::<String>()).await.unwrap();
    }
    client.batch_execute("ANALYZE pg_class; ANALYZE pg_attribute; ANALYZE pg_index").await.unwrap();
    let all = "SELECT c.relname, c.relkind FROM pg_class c JOIN pg_namespace n \
               ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind IN ('r', 'v') \
               AND has_any_column_privilege(c.oid, 'SELECT')";
    let columns = "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), \
               col_description(c.oid, a.attnum) FROM pg_class c JOIN pg_namespace n \
               ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid \
               AND a.attnum > 0 WHERE n.nspname = $1 AND c.relname = ANY ($2)";
    let keys = "SELECT c.relname, i.indkey::text FROM pg_class c JOIN pg_namespace n \
               ON n.oid = c.relnamespace JOIN pg_index i ON i.indrelid = c.oid \
               WHERE n.nspname = $1 AND c.relname = ANY ($2)";
    let all = client.prepare(all).await.unwrap();
    let columns = client.prepare(columns).await.unwrap();
    let keys = client.prepare(keys).await.unwrap();
    let page = page();
    let names: Vec<&str> = page.iter().map(|name| name.name.as_str()).collect();
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..TURNS {
        let began = Instant::now();
        assert_eq!(client.query(&all, &[schema]).await.unwrap().len(), TABLES);
        times[0].push(milliseconds(began));
        let began = Instant::now();
        assert_eq!(client.query(&columns, &[schema, &names]).await.unwrap().len(), 3 * PAGE);
        assert_eq!(client.query(&keys, &[schema, &names]).await.unwrap().len(), PAGE);
        times[1].push(milliseconds(began));
        let connection = Connection::Postgres(target.clone());
        let mut session = open(connection, Some(&password), Path::new("/nowhere")).await;
        for place in [2, 3] {
            let began = Instant::now();
            ours(&mut *session, &page).await;
            times[place].push(milliseconds(began));
        }
    }
    print("PostgreSQL", times);
}

/// The names' own time counts to the bare page, too: each page has to know that they are the same.
fn print(engine: &str, times: [Vec<f64>; 4]) {
    let [all, page, first, next] = times.map(median);
    let beyond = next - page - all;
    println!("{engine:10} {all:>10.1} {page:>12.1} {first:>10.1} {next:>10.1} {beyond:>12.1}");
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
