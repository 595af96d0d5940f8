//! The hostile statements of `tests/hostile` without the guard: what the next layer makes of each,
//! and that nothing is written, no file is touched and no time is lost whatever it is.
//!
//! Each statement's name line ends with the outcomes that are right for it:
//!
//! ```text
//! 25006, 42501 …  the server refuses: the transaction reads only, the role may not, …
//! timeout, lost   the limits end it; the session cannot make sense of the answer
//! undone          it runs, and the end of the transaction takes away what it did
//! runs            it runs and changes nothing: only the guard keeps the answer from the caller
//! stays           it runs and changes the session: only the guard is in front of it
//! denied …        SQLite's authorizer refuses; there is no such function, table or statement
//! ```

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::guard::is_function_allowed;
use super::{
    AddressPolicy, Database, Dialect, Error, GuardedSql, GuardedWrite, Options, Query, QueryResult,
    RowsRead, Write, check, connect,
};
use crate::memory::SecretText;
use crate::tenant::{
    Access, AccessMode, ColumnName, Connection, Credentials, IdRule, Limits, PostgresTarget,
    Quotas, RelationName, Resource, TenantConfig, TenantId, TlsMode,
};

/// What a statement may take that has to be ended.
const SHORT: Duration = Duration::from_millis(300);
/// What another may take, however busy the machine is.
const LONG: Duration = Duration::from_secs(10);
/// How much later the answer may come, cancellation included.
const SLACK: Duration = Duration::from_secs(5);

struct Block {
    name: String,
    outcomes: Vec<String>,
    sql: String,
}

fn blocks(text: &str) -> Vec<Block> {
    let statements = text.split("\n\n").filter(|block| !block.starts_with("-- #"));
    statements
        .map(|block| {
            let (name, sql) = block.trim_matches('\n').split_once('\n').unwrap();
            let outcomes = name.rsplit(" | ").next().unwrap().split('|').map(str::to_owned);
            Block { name: name.to_owned(), outcomes: outcomes.collect(), sql: sql.to_owned() }
        })
        .collect()
}

/// What became of an unguarded statement, in the words of the name lines.
fn outcome(answer: &Result<QueryResult, Error>) -> String {
    match answer {
        Ok(_) => "runs".to_owned(),
        Err(Error::Failed { sqlstate: Some(code), .. }) => code.clone(),
        Err(Error::Failed { sqlstate: None, message, .. }) => {
            if message.starts_with("no such function") {
                "no function".to_owned()
            } else if message.starts_with("no such table") {
                "nothing there".to_owned()
            } else {
                "prepare".to_owned()
            }
        }
        Err(Error::ParameterCount { .. }) => "parameters".to_owned(),
        Err(Error::Refused(_)) => "denied".to_owned(),
        Err(Error::Timeout) => "timeout".to_owned(),
        Err(Error::TooLarge) => "large".to_owned(),
        Err(Error::Unavailable(_)) => "lost".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

fn limit_of(block: &Block) -> Duration {
    if block.outcomes.iter().any(|right| right == "timeout") { SHORT } else { LONG }
}

fn is_right(block: &Block, outcome: &str) -> bool {
    block.outcomes.iter().any(|right| match outcome {
        "runs" => matches!(&**right, "runs" | "undone" | "stays"),
        _ => right == outcome,
    })
}

async fn open(config: &TenantConfig, credentials: &Credentials, root: &Path) -> Box<dyn Database> {
    let sqlite_root = root.to_path_buf();
    let options = Options {
        sqlite_root,
        connect_timeout: Duration::from_secs(5),
        addresses: AddressPolicy::default(),
    };
    connect(config, credentials, &options, Box::new(())).await.unwrap()
}

async fn ask(
    session: &mut dyn Database,
    statement: GuardedSql,
    statement_timeout: Duration,
) -> Result<QueryResult, Error> {
    let limits = Limits { statement_timeout, ..Limits::default() };
    session
        .query(
            &Query { statement, params: vec![], limit: None, read: RowsRead::default() },
            &limits,
        )
        .await
}

fn config(connection: Connection, access: Access) -> TenantConfig {
    TenantConfig {
        id: TenantId::parse("tenant001", IdRule::Alphanumeric).unwrap(),
        connection,
        access,
        limits: Limits::default(),
        quotas: Quotas::default(),
        features: std::collections::BTreeMap::default(),
    }
}

/// What `tests/support/postgres.sh` says about the server that it started.
#[expect(clippy::disallowed_methods, reason = "how the test runner hands the server over")]
fn told(name: &str) -> String {
    std::env::var(name).expect("run ./dev test, which starts a private Postgres")
}

/// All that a statement could have changed on the server, as one text.
const STATE: &str = "SELECT md5(concat_ws('/', \
    (SELECT string_agg(c::text, ',' ORDER BY id) FROM corpus.customers c), \
    (SELECT last_value::text || is_called FROM corpus.numbers), \
    (SELECT string_agg(r::text, ',' ORDER BY r.oid) FROM pg_authid r), \
    (SELECT string_agg(concat(c.oid, c.relname, c.relacl, c.reloptions), ',' ORDER BY c.oid) \
     FROM pg_class c), \
    (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_extension), \
    (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_largeobject_metadata), \
    (SELECT count(*) FROM pg_db_role_setting), (SELECT count(*) FROM pg_replication_slots), \
    (SELECT count(*) FROM pg_prepared_xacts), (SELECT count(*) FROM pg_description), \
    (SELECT count(*) FROM pg_cursors), (SELECT count(*) FROM pg_file_settings)))";

/// What no change of customers could have changed: neither their rows nor a sequence, which is not
/// undone with a transaction.
const BEYOND_CUSTOMERS: &str = "SELECT md5(concat_ws('/', \
    (SELECT string_agg(s::text, ',') FROM corpus.secrets s), \
    (SELECT string_agg(p::text, ',') FROM hidden.plans p), \
    (SELECT string_agg(r::text, ',' ORDER BY r.oid) FROM pg_authid r), \
    (SELECT string_agg(concat(c.oid, c.relname, c.relacl, c.reloptions), ',' ORDER BY c.oid) \
     FROM pg_class c WHERE relnamespace IN ('corpus'::regnamespace, 'hidden'::regnamespace)), \
    (SELECT count(*) FROM pg_extension), (SELECT count(*) FROM pg_trigger), \
    (SELECT count(*) FROM pg_largeobject_metadata), \
    (SELECT count(*) FROM pg_db_role_setting), (SELECT count(*) FROM pg_replication_slots), \
    (SELECT count(*) FROM pg_prepared_xacts)))";

/// A server with the tables that the statements name, seen by its owner and by a tenant.
struct Server {
    owner: tokio_postgres::Client,
    tenant: TenantConfig,
    credentials: Credentials,
}

impl Server {
    async fn with_tables() -> Self {
        static MADE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        let port = told("TENANTRY_TEST_PG_PORT").parse().unwrap();
        let mut driver = tokio_postgres::Config::new();
        driver.host("127.0.0.1").port(port).user(told("TENANTRY_TEST_PG_SUPERUSER"));
        driver.password(told("TENANTRY_TEST_PG_PASSWORD")).dbname("postgres");
        let (owner, connection) = driver.connect(tokio_postgres::NoTls).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "ends with the test")]
        tokio::spawn(connection);
        MADE.get_or_init(|| async {
            let tables = include_str!("../../tests/hostile/layers_postgres.sql");
            owner.batch_execute(tables).await.unwrap();
        })
        .await;
        let target = PostgresTarget {
            host: "127.0.0.1".to_owned(),
            port,
            database: "postgres".to_owned(),
            user: "corpus_role".to_owned(),
            tls: TlsMode::Disable,
            root_certificates: None,
            client_certificate: None,
            schema: "corpus".to_owned(),
            tenant_variable: None,
        };
        let db_password = Some(SecretText::from("corpus"));
        Self {
            owner,
            tenant: config(Connection::Postgres(target), Access::default()),
            credentials: Credentials { db_password, ..Credentials::default() },
        }
    }

    async fn session(&self) -> Box<dyn Database> {
        open(&self.tenant, &self.credentials, Path::new("/nowhere")).await
    }

    async fn state(&self) -> String {
        self.owner.query_one(STATE, &[]).await.unwrap().get(0)
    }

    async fn texts(&self, sql: &str) -> Vec<String> {
        let rows = self.owner.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Runs what the guard accepts of `statements`, and gives how many that were.
    ///
    /// None may so much as reach what the transaction or the role refuses.
    async fn run_accepted(&self, statements: impl Iterator<Item = String>) -> usize {
        let before = self.state().await;
        let mut session = self.session().await;
        let (access, mut accepted) = (Access::default(), 0);
        for sql in statements {
            let checked = check(&sql, Dialect::Postgres, &Resource::Database, &access, "corpus");
            let Ok(statement) = checked else { continue };
            accepted += 1;
            let text = statement.sql().to_owned();
            let answer = ask(&mut *session, statement, SHORT).await;
            let outcome = outcome(&answer);
            assert!(!matches!(&*outcome, "25006" | "42501" | "lost"), "{text}: {answer:?}");
            if session.is_broken() {
                session = self.session().await;
            }
        }
        assert_eq!(self.state().await, before);
        accepted
    }
}

#[tokio::test]
async fn hostile_statements_are_held_by_postgres_without_the_guard() {
    let server = Server::with_tables().await;
    let before = server.state().await;
    let mut wrong = String::new();
    for block in blocks(include_str!("../../tests/hostile/hostile_postgres.sql")) {
        // One of its own for each: some change it.
        let mut session = server.session().await;
        let limit = limit_of(&block);
        let started = tokio::time::Instant::now();
        let answer = ask(&mut *session, GuardedSql::unguarded(&block.sql, &[]), limit).await;
        let took = started.elapsed();
        let outcome = outcome(&answer);
        if !is_right(&block, &outcome) || took > limit + SLACK {
            writeln!(wrong, "{}: {outcome} after {took:?}", block.name).unwrap();
        }
        assert_eq!(server.state().await, before, "{} wrote", block.name);
        assert!(!Path::new("/tmp/tenantry-pwn").exists(), "{} made a file", block.name);
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[tokio::test]
async fn functions_on_the_list_have_no_side_effects_by_the_servers_own_account() {
    let server = Server::with_tables().await;
    let volatile = "SELECT DISTINCT proname::text FROM pg_proc WHERE provolatile = 'v' \
                    AND pronamespace = 'pg_catalog'::regnamespace ORDER BY 1";
    let mut volatile = server.texts(volatile).await;
    volatile.retain(|name| is_function_allowed(Dialect::Postgres, name));
    // They tell the time or make random numbers. Later versions have more of the latter.
    assert_eq!(volatile, ["clock_timestamp", "gen_random_uuid", "random", "timeofday"]);
}

#[tokio::test]
async fn every_function_that_is_accepted_runs_or_fails_without_a_trace() {
    let server = Server::with_tables().await;
    let calls = server.texts(include_str!("../../tests/hostile/calls_postgres.sql")).await;
    let accepted = server.run_accepted(calls.into_iter()).await;
    assert!(accepted > 300, "{accepted}");
}

/// Statements out of `names` of functions, `operators` and `types`.
fn statements(
    names: Vec<String>,
    operators: Vec<String>,
    types: Vec<String>,
) -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "1",
        "-2",
        "'a'",
        "NULL",
        "true",
        "id",
        "name",
        "c",
        "c.name",
        "customers",
        "now()",
        "$$x$$",
        "ARRAY[1]",
        "'{}'::jsonb",
        "'[1,2]'::json",
        "current_user",
        "c.pwn_row",
        "E'\\n'",
        "count(*)",
    ]);
    let name = prop::sample::select(names);
    let expression = leaf.prop_map(str::to_owned).prop_recursive(3, 12, 3, move |inner| {
        let pair = (inner.clone(), inner.clone());
        let operator = prop::sample::select(operators.clone());
        let ty = prop::sample::select(types.clone());
        prop_oneof![
            4 => (name.clone(), prop::collection::vec(inner.clone(), 0..3))
                .prop_map(|(name, arguments)| format!("{name}({})", arguments.join(", "))),
            3 => (inner.clone(), operator, inner.clone())
                .prop_map(|(left, operator, right)| format!("{left} {operator} {right}")),
            1 => (inner.clone(), ty).prop_map(|(inner, ty)| format!("({inner})::{ty}")),
            1 => pair.prop_map(|(one, other)| format!(
                "CASE WHEN {one} IS NULL THEN {other} END"
            )),
            1 => inner.clone().prop_map(|inner| format!("(SELECT {inner} FROM customers)")),
            1 => inner.prop_map(|inner| format!("sum(1) OVER (ORDER BY {inner})")),
        ]
    });
    (expression.clone(), expression.clone(), expression).prop_map(|(one, two, three)| {
        format!("SELECT {one} FROM customers c WHERE {two} IS NOT NULL ORDER BY {three} LIMIT 3")
    })
}

#[tokio::test]
async fn whatever_is_accepted_runs_or_fails_without_a_trace() {
    let server = Server::with_tables().await;
    let own = "SELECT proname::text FROM pg_proc WHERE prorettype <> 'trigger'::regtype ORDER BY 1";
    let operators = "SELECT DISTINCT oprname::text FROM pg_operator ORDER BY 1";
    let types = "SELECT typname::text FROM pg_type WHERE typname !~ '^_|^pg_' ORDER BY 1";
    let mut names = server.texts(own).await;
    // As many that are on the list as there are others.
    let allowed: Vec<String> =
        names.iter().filter(|name| is_function_allowed(Dialect::Postgres, name)).cloned().collect();
    names.extend((0..4).flat_map(|_| allowed.clone()));
    let statements = statements(names, server.texts(operators).await, server.texts(types).await);
    let mut runner = TestRunner::deterministic();
    let made = (0..20_000).map(|_| statements.new_tree(&mut runner).unwrap().current());
    let accepted = server.run_accepted(made).await;
    assert!(accepted > 300, "{accepted}");
}

#[tokio::test]
async fn hostile_statements_are_held_by_sqlite_without_the_guard() {
    super::bound_memory();
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("corpus.db");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(include_str!("../../tests/hostile/layers_sqlite.sql"))
        .unwrap();
    let named = |name: &str| RelationName { schema: None, name: name.to_owned() };
    let allowed = ["customers", "notes", "places"];
    let password = ColumnName { relation: named("customers"), column: "password".to_owned() };
    let access = Access {
        tables: Some(allowed.map(named).to_vec()),
        deny_columns: vec![password],
        ..Access::default()
    };
    let config = config(Connection::Sqlite { path: "corpus.db".to_owned() }, access);
    let before = std::fs::read(&path).unwrap();
    let mut wrong = String::new();
    for block in blocks(include_str!("../../tests/hostile/hostile_sqlite.sql")) {
        let statement = GuardedSql::unguarded(&block.sql, &allowed);
        let mut session = open(&config, &Credentials::default(), root.path()).await;
        let limit = limit_of(&block);
        let started = tokio::time::Instant::now();
        let answer = ask(&mut *session, statement, limit).await;
        let took = started.elapsed();
        let outcome = outcome(&answer);
        if !is_right(&block, &outcome) || took > limit + SLACK {
            writeln!(wrong, "{}: {outcome} after {took:?}", block.name).unwrap();
        }
        let shown = format!("{answer:?}");
        assert!(!shown.contains("canary"), "{}: {shown}", block.name);
        assert!(std::fs::read(&path).unwrap() == before, "{} wrote", block.name);
        let files = std::fs::read_dir(root.path()).unwrap().count();
        assert_eq!(files, 1, "{} made a file", block.name);
        assert!(!Path::new("/tmp/tenantry-pwn").exists(), "{} made a file", block.name);
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

fn as_change(block: &Block, relations: &[&str]) -> Write {
    let statement = GuardedWrite::unguarded(&block.sql, "customers", relations);
    Write { statement, params: vec![], limit: None }
}

#[tokio::test]
async fn hostile_changes_are_held_by_sqlite_without_the_guard() {
    super::bound_memory();
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("corpus.db");
    let named = |name: &str| RelationName { schema: None, name: name.to_owned() };
    let allowed = ["customers", "notes", "places"];
    let password = ColumnName { relation: named("customers"), column: "password".to_owned() };
    let access = Access {
        mode: AccessMode::ReadWrite,
        tables: Some(allowed.map(named).to_vec()),
        deny_columns: vec![password],
    };
    let config = config(Connection::Sqlite { path: "corpus.db".to_owned() }, access);
    let beyond_customers = || {
        let file = rusqlite::Connection::open(&path).unwrap();
        let sql = "SELECT (SELECT group_concat(concat(name, sql), ',') FROM sqlite_schema), \
                   (SELECT group_concat(x) FROM secrets), (SELECT group_concat(body) FROM notes), \
                   (SELECT group_concat(concat(id, min_x, max_x)) FROM places)";
        let cells = |row: &rusqlite::Row<'_>| {
            (0..4).map(|place| row.get(place)).collect::<rusqlite::Result<Vec<Option<String>>>>()
        };
        file.query_row(sql, [], cells).unwrap()
    };
    let mut made = 0;
    for block in blocks(include_str!("../../tests/hostile/hostile_sqlite.sql"))
        .into_iter()
        .chain(blocks(include_str!("../../tests/hostile/hostile_writes_sqlite.sql")))
    {
        drop(std::fs::remove_file(&path));
        rusqlite::Connection::open(&path)
            .unwrap()
            .execute_batch(include_str!("../../tests/hostile/layers_sqlite.sql"))
            .unwrap();
        let before = beyond_customers();
        let mut session = open(&config, &Credentials::default(), root.path()).await;
        let limits = Limits { statement_timeout: SHORT, ..Limits::default() };
        let answer = session.write(&as_change(&block, &allowed), &limits).await;
        made += usize::from(answer.is_ok());
        let shown = format!("{answer:?}");
        assert!(!shown.contains("canary"), "{}: {shown}", block.name);
        drop(session);
        assert_eq!(beyond_customers(), before, "{}", block.name);
        let files = std::fs::read_dir(root.path()).unwrap().count();
        assert!(files <= 2, "{} made a file", block.name);
        assert!(!Path::new("/tmp/tenantry-pwn").exists(), "{} made a file", block.name);
    }
    // Changes of customers are what this layer is to let through.
    assert!((5..40).contains(&made), "{made}");
}

#[tokio::test]
async fn hostile_changes_are_held_by_postgres_without_the_guard() {
    let server = Server::with_tables().await;
    let config = TenantConfig {
        access: Access { mode: AccessMode::ReadWrite, ..Access::default() },
        ..server.tenant.clone()
    };
    let before: String = server.owner.query_one(BEYOND_CUSTOMERS, &[]).await.unwrap().get(0);
    for block in blocks(include_str!("../../tests/hostile/hostile_postgres.sql"))
        .into_iter()
        .chain(blocks(include_str!("../../tests/hostile/hostile_writes_postgres.sql")))
        // A sequence is not undone with its transaction: the guard is alone there.
        .filter(|block| !block.sql.contains("nextval") && !block.sql.contains("setval"))
    {
        let mut session = open(&config, &server.credentials, Path::new("/nowhere")).await;
        let limits = Limits { statement_timeout: SHORT, ..Limits::default() };
        // What would change customers is not made final, since no row may change.
        let write = as_change(&block, &[]);
        let answer = session.write(&write, &Limits { max_rows: 0, ..limits }).await;
        drop(answer);
        let after: String = server.owner.query_one(BEYOND_CUSTOMERS, &[]).await.unwrap().get(0);
        assert_eq!(after, before, "{} wrote", block.name);
        assert!(!Path::new("/tmp/tenantry-pwn").exists(), "{} made a file", block.name);
    }
}
