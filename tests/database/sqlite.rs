use std::time::Duration;

use futures_util::future::join_all;
use rusqlite::Connection as File;
use serde_json::json;
use tempfile::TempDir;
use tenantry::database::{Database, Error, RelationKind, Unavailable};
use tenantry::tenant::{Access, Connection, Credentials, Limits};

use super::{all, connect, denied, guarded, options, reads, relation, run, run_with};

const FOREVER: &str =
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t";

/// Opens a session before the tests use the engine by themselves: what bounds a session's memory
/// has to be there first, as it is in the service.
fn before_others() {
    static FIRST: std::sync::Once = std::sync::Once::new();
    FIRST.call_once(|| {
        let first = std::thread::spawn(|| {
            let root = tempfile::tempdir().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let opened = runtime.unwrap().block_on(open(&root, "none.db", Access::default()));
            assert_eq!(opened.err(), Some(Unavailable::FileNotFound.into()));
        });
        first.join().unwrap();
    });
}

pub(crate) fn shop() -> TempDir {
    before_others();
    let root = tempfile::tempdir().unwrap();
    File::open(root.path().join("shop.db"))
        .unwrap()
        .execute_batch(
            "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, secret TEXT);
             INSERT INTO customers VALUES (1, 'Ada', 'canary-a'), (2, 'Bob', 'canary-b');
             CREATE TABLE hidden (x);
             INSERT INTO hidden VALUES ('canary-h');
             CREATE VIEW names AS SELECT name FROM customers;
             CREATE VIEW leak AS SELECT secret AS name FROM customers;
             CREATE VIEW of_hidden AS SELECT x FROM hidden;
             CREATE VIEW writes AS SELECT randomblob(9) AS x;
             CREATE VIEW broken AS SELECT * FROM gone;",
        )
        .unwrap();
    root
}

pub(crate) async fn open(
    root: &TempDir,
    path: &str,
    access: Access,
) -> Result<Box<dyn Database>, Error> {
    let connection = Connection::Sqlite { path: path.to_owned() };
    connect(connection, access, &Credentials::default(), root.path()).await
}

#[tokio::test]
async fn rows_come_with_names_types_and_json_values() {
    let root = shop();
    let mut session = open(&root, "shop.db", Access::default()).await.unwrap();
    let answer = run(
        &mut *session,
        "SELECT id, name, 9007199254740993, 1.5, NULL, 9e999, CAST('x' AS BLOB) FROM customers \
         WHERE id = 1",
    )
    .await
    .unwrap();
    assert_eq!(
        answer.rows,
        [[
            json!(1),
            json!("Ada"),
            json!("9007199254740993"),
            json!(1.5),
            json!(null),
            json!("Infinity"),
            json!("eA==")
        ]]
    );
    assert_eq!(answer.columns[0].name, "id");
    assert_eq!(answer.columns[0].type_name, "integer");
    assert!(!answer.truncated);
    assert!(session.server_version().await.unwrap().starts_with("SQLite 3."));
}

#[tokio::test]
async fn values_are_bound_and_checked() {
    let root = shop();
    let mut session = open(&root, "shop.db", Access::default()).await.unwrap();
    let sql = "SELECT name FROM customers WHERE id = ? AND name = ?";
    let limits = Limits::default();
    let answer = run_with(&mut *session, sql, vec![json!(2), json!("Bob")], &limits).await.unwrap();
    assert_eq!(answer.rows, [[json!("Bob")]]);
    let few = run_with(&mut *session, sql, vec![json!(2)], &limits).await;
    assert_eq!(few, Err(Error::ParameterCount { expected: 2, given: 1 }));
    let list = run_with(&mut *session, sql, vec![json!(2), json!([1])], &limits).await;
    assert!(matches!(list, Err(Error::InvalidParameter { position: 1, .. })), "{list:?}");
    for (value, fits) in [(json!(i64::MAX), true), (json!(1e300), true), (json!(u64::MAX), false)] {
        let answer = run_with(&mut *session, "SELECT ? IS NOT NULL", vec![value], &limits).await;
        match answer {
            Ok(answer) => assert!(fits && answer.rows == [[json!(1)]]),
            Err(Error::InvalidParameter { position: 0, .. }) => assert!(!fits),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn an_answer_is_cut_at_the_limits_and_says_so() {
    let root = shop();
    let mut session = open(&root, "shop.db", Access::default()).await.unwrap();
    let sql = "SELECT id FROM customers ORDER BY id";
    for (max_rows, rows, truncated) in [(1, 1, true), (2, 2, false), (3, 2, false)] {
        let limits = Limits { max_rows, ..Limits::default() };
        let answer = run_with(&mut *session, sql, vec![], &limits).await.unwrap();
        assert_eq!((answer.rows.len(), answer.truncated), (rows, truncated));
    }
    let limits = Limits { max_result_bytes: 1024, ..Limits::default() };
    let long = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 900) \
                SELECT n FROM t";
    let answer = run_with(&mut *session, long, vec![], &limits).await.unwrap();
    assert!(answer.truncated && answer.rows.len() > 100 && answer.rows.len() < 300);
    let wide = "SELECT replace(printf('%2000d', 1), ' ', 'x')";
    let answer = run_with(&mut *session, wide, vec![], &limits).await;
    assert_eq!(answer, Err(Error::TooLarge));
    let huge = "SELECT printf('%2000000d', 1)";
    let answer = run_with(&mut *session, huge, vec![], &limits).await;
    assert_eq!(answer, Err(Error::TooLarge));
}

#[tokio::test]
async fn an_endless_statement_ends_at_the_timeout_and_the_session_goes_on() {
    let root = shop();
    let mut session = open(&root, "shop.db", Access::default()).await.unwrap();
    let limits = Limits { statement_timeout: Duration::from_millis(50), ..Limits::default() };
    assert_eq!(run_with(&mut *session, FOREVER, vec![], &limits).await, Err(Error::Timeout));
    assert!(!session.is_broken());
    assert_eq!(run(&mut *session, "SELECT 1").await.unwrap().rows, [[json!(1)]]);
}

#[tokio::test]
async fn more_long_statements_than_processors_all_end_also_beside_endless_ones() {
    let root = shop();
    let processors = std::thread::available_parallelism().unwrap().get();
    let limits = Limits { statement_timeout: Duration::from_millis(200), ..Limits::default() };
    let long = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 300000) \
                SELECT count(*) FROM t";
    let sessions = join_all((0..processors + 2).map(async |_| {
        let mut session = open(&root, "shop.db", Access::default()).await.unwrap();
        let mut other = open(&root, "shop.db", Access::default()).await.unwrap();
        let (endless, long) = tokio::join!(
            run_with(&mut *session, FOREVER, vec![], &limits),
            run(&mut *other, long),
        );
        assert_eq!(endless, Err(Error::Timeout));
        assert_eq!(long.unwrap().rows, [[json!(300_000)]]);
        session
    }));
    for mut session in sessions.await {
        assert_eq!(run(&mut *session, long).await.unwrap().rows, [[json!(300_000)]]);
    }
}

#[tokio::test]
async fn a_dropped_query_stops_and_its_session_is_not_used_again() {
    let root = shop();
    let mut session = open(&root, "shop.db", Access::default()).await.unwrap();
    let endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) \
                   SELECT count(*) FROM t, customers";
    let query = guarded(&*session, endless, &Access::default(), vec![]);
    let limits = Limits::default();
    let waited = tokio::time::timeout(Duration::from_millis(50), session.query(&query, &limits));
    assert!(waited.await.is_err());
    assert!(session.is_broken());
    assert_eq!(run(&mut *session, "SELECT 1").await, Err(Unavailable::Lost.into()));
    // A reader that still ran would keep the writer out until this gives up.
    let writer = File::open(root.path().join("shop.db")).unwrap();
    writer.busy_timeout(Duration::from_secs(5)).unwrap();
    writer.execute_batch("BEGIN EXCLUSIVE; ROLLBACK").unwrap();
}

/// Says that it was dropped.
struct Held(Option<tokio::sync::oneshot::Sender<()>>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.take().unwrap().send(()).ok();
    }
}

#[tokio::test]
async fn a_dropped_query_of_long_steps_stops_after_one_of_them_and_what_was_held_is_let_go_of() {
    let root = shop();
    let mut session = open(&root, "shop.db", Access::default()).await.unwrap();
    // A hundred rows or so come between two looks at the clock, and each takes a tenth of a second.
    let pattern = format!("%{}y", "x".repeat(990));
    let slow = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) \
                FROM t WHERE replace(printf('%300000d', n), ' ', 'x') LIKE ?";
    let query = guarded(&*session, slow, &Access::default(), vec![json!(pattern)]);
    let limits = Limits::default();
    let waited = tokio::time::timeout(Duration::from_millis(50), session.query(&query, &limits));
    assert!(waited.await.is_err());
    assert!(session.is_broken());
    let (held, let_go_of) = tokio::sync::oneshot::channel();
    session.hold(Box::new(Held(Some(held))));
    drop(session);
    tokio::time::timeout(Duration::from_secs(5), let_go_of).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_late_answer_is_none() {
    let root = shop();
    let mut session = open(&root, "shop.db", Access::default()).await.unwrap();
    let limits = Limits { statement_timeout: Duration::from_millis(1), ..Limits::default() };
    // One step of the engine's, during which it does not look at the clock.
    let pattern = format!("%{}b", " ".repeat(900));
    let slow = "SELECT printf('%1000000d', 1) LIKE ?";
    let answer = run_with(&mut *session, slow, vec![json!(pattern)], &limits).await;
    assert_eq!(answer, Err(Error::Timeout));
}

#[tokio::test]
async fn functions_take_time_as_the_sum_of_what_they_are_given() {
    let root = shop();
    let mut session = open(&root, "shop.db", Access::default()).await.unwrap();
    let limits = Limits { statement_timeout: Duration::from_secs(30), ..Limits::default() };
    for (sql, expected) in [
        ("SELECT instr(printf('%1000000d', 1), printf('%500000d', 2))", json!(0)),
        (
            "SELECT length(replace(printf('%1000000d', 1), printf('%500000d', 2), ''))",
            json!(1_000_000),
        ),
        ("SELECT length(trim(printf('%01000000d', 0), printf('%500000d', 0)))", json!(0)),
        ("SELECT unhex(printf('%1000000d', 1), '/' || printf('%500000d', 2)) IS NULL", json!(1)),
        ("SELECT instr('abc', 'c'), replace('aa', 'a', 'b')", json!(3)),
    ] {
        let answer = run_with(&mut *session, sql, vec![], &limits).await.unwrap();
        assert_eq!(answer.rows.to_values()[0][0], expected, "{sql}");
    }
}

/// Bytes that this process has in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_statement_has_a_bounded_part_of_the_memory() {
    let root = shop();
    let mut session = open(&root, "shop.db", Access::default()).await.unwrap();
    let limits = Limits { statement_timeout: Duration::from_secs(30), ..Limits::default() };
    let before = resident();
    let wide = "printf('%1000000d', n)";
    let many = vec![wide; 400].join(", ");
    for sql in [
        format!(
            "SELECT max(length(x)) FROM (WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 \
             FROM t) SELECT {wide} x FROM t ORDER BY x)"
        ),
        format!(
            "SELECT count(DISTINCT {wide}) FROM (WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL \
             SELECT n + 1 FROM t) SELECT n FROM t)"
        ),
        format!("SELECT {many} FROM (SELECT 1 AS n)"),
    ] {
        let answer = run_with(&mut *session, &sql, vec![], &limits).await;
        let Err(Error::Failed { message, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!(message, "the statement needs too much memory");
        assert!(!session.is_broken());
    }
    let grown = resident() - before;
    assert!(grown < 512 << 20, "{grown}");
    let sorted = "SELECT length(x) FROM (WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 \
                  FROM t WHERE n < 20) SELECT printf('%1000000d', n) x FROM t ORDER BY x)";
    assert_eq!(run(&mut *session, sorted).await.unwrap().rows.len(), 20);
}

#[tokio::test]
async fn the_words_for_now_and_the_usual_mathematics_run() {
    let root = shop();
    let mut session = open(&root, "shop.db", Access::default()).await.unwrap();
    let sql = "SELECT CURRENT_DATE <= CURRENT_TIMESTAMP, length(CURRENT_TIME), ceil(1.5), \
               floor(1.5), sqrt(9), pow(2, 3), rowid FROM customers WHERE id = 1";
    let answer = run(&mut *session, sql).await.unwrap();
    assert_eq!(
        answer.rows,
        [[1.into(), 8.into(), json!(2.0), json!(1.0), json!(3.0), json!(8.0), 1.into()]]
    );
    // A name that is no column is not a text.
    let unknown = run(&mut *session, "SELECT \"nothing\" FROM customers AS c").await;
    assert!(matches!(unknown, Err(Error::Failed { .. })), "{unknown:?}");
}

#[tokio::test]
async fn views_show_what_lies_under_them_but_never_a_denied_column() {
    let root = shop();
    let access = Access {
        deny_columns: vec![denied("customers", "secret")],
        ..reads(&["customers", "names", "leak", "of_hidden", "writes", "broken"])
    };
    let mut session = open(&root, "shop.db", access.clone()).await.unwrap();
    let limits = Limits::default();
    for (sql, rows) in [
        ("SELECT name FROM names", 2),
        ("SELECT x FROM of_hidden", 1),
        ("SELECT id FROM customers", 2),
        ("WITH names AS (SELECT id FROM customers) SELECT id FROM names", 2),
        ("WITH ids AS (SELECT id FROM customers) SELECT count(*) FROM ids", 1),
    ] {
        let query = guarded(&*session, sql, &access, vec![]);
        assert_eq!(session.query(&query, &limits).await.unwrap().rows.len(), rows, "{sql}");
    }
    for sql in ["SELECT name FROM leak", "SELECT x FROM writes"] {
        let query = guarded(&*session, sql, &access, vec![]);
        let answer = session.query(&query, &limits).await;
        assert!(matches!(answer, Err(Error::Refused(_))), "{sql}: {answer:?}");
    }
    let found = all(&mut *session, &access).await;
    let names: Vec<&str> = found.iter().map(|found| found.name.name.as_str()).collect();
    assert_eq!(names, ["customers", "leak", "names", "of_hidden", "writes"]);
    assert_eq!(found[0].kind, RelationKind::Table);
    assert_eq!(found[0].columns.len(), 2);
}

#[tokio::test]
async fn an_index_reads_the_table_under_it_but_never_a_denied_column() {
    let root = shop();
    File::open(root.path().join("shop.db"))
        .unwrap()
        .execute_batch(
            "CREATE VIRTUAL TABLE names_index USING fts5(name, content='customers', content_rowid=id);
             INSERT INTO names_index (names_index) VALUES ('rebuild');
             CREATE VIRTUAL TABLE leak_index USING fts5(secret, content='customers', content_rowid=id);
             INSERT INTO leak_index (leak_index) VALUES ('rebuild');",
        )
        .unwrap();
    let access = Access {
        deny_columns: vec![denied("customers", "secret")],
        ..reads(&["names_index", "leak_index"])
    };
    let mut session = open(&root, "shop.db", access.clone()).await.unwrap();
    let limits = Limits::default();
    let sql = "SELECT name FROM names_index WHERE names_index MATCH 'ada'";
    let query = guarded(&*session, sql, &access, vec![]);
    assert_eq!(session.query(&query, &limits).await.unwrap().rows, [[json!("Ada")]]);
    let query = guarded(&*session, "SELECT secret FROM leak_index", &access, vec![]);
    let answer = session.query(&query, &limits).await;
    assert!(!format!("{answer:?}").contains("canary"), "{answer:?}");
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn tables_of_the_engine_are_not_the_tenants() {
    let root = shop();
    let mut session = open(&root, "shop.db", Access::default()).await.unwrap();
    for sql in ["SELECT * FROM dbstat", "SELECT * FROM json_each", "SELECT * FROM nowhere"] {
        let answer = run(&mut *session, sql).await;
        assert!(matches!(answer, Err(Error::Failed { .. })), "{sql}: {answer:?}");
    }
}

#[tokio::test]
async fn the_file_is_below_the_root_and_no_link_leads_to_it() {
    let root = shop();
    let outside = shop();
    std::fs::create_dir(root.path().join("folder")).unwrap();
    std::fs::write(root.path().join("text.db"), "this is not a database, it is a text").unwrap();
    std::os::unix::fs::symlink(outside.path().join("shop.db"), root.path().join("link.db"))
        .unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("linked")).unwrap();
    let absolute = outside.path().join("shop.db").display().to_string();
    for (path, reason) in [
        ("none.db", Unavailable::FileNotFound),
        ("no/such.db", Unavailable::FileNotFound),
        ("link.db", Unavailable::FileNotPermitted),
        ("linked/shop.db", Unavailable::FileNotPermitted),
        ("../shop.db", Unavailable::FileNotPermitted),
        ("folder/../shop.db", Unavailable::FileNotPermitted),
        ("folder", Unavailable::FileNotPermitted),
        ("", Unavailable::FileNotPermitted),
        (&absolute, Unavailable::FileNotPermitted),
        ("file:shop.db?mode=rwc", Unavailable::FileNotFound),
        ("text.db", Unavailable::NotADatabase),
    ] {
        let failed = open(&root, path, Access::default()).await.err();
        assert_eq!(failed, Some(Error::Unavailable(reason)), "{path}");
    }
    assert!(open(&root, "shop.db", Access::default()).await.is_ok());
    assert!(options(root.path()).sqlite_root.is_dir());
}

#[tokio::test]
async fn relations_without_a_list_are_all_that_there_are() {
    let root = shop();
    let mut session = open(&root, "shop.db", Access::default()).await.unwrap();
    let found = all(&mut *session, &reads(&["HIDDEN"])).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, relation("hidden"));
}
