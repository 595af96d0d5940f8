use std::time::Duration;

use futures_util::poll;
use rusqlite::Connection as File;
use serde_json::json;
use tempfile::TempDir;
use tenantry::database::{Database, Error};
use tenantry::tenant::{Access, Limits};

use super::sqlite::{open, shop};
use super::write::{both_engines_agree, change, changed, guarded_write, writable};
use super::{denied, reads, run};

/// A folder with a file of items, as `both_engines_agree` wants them.
fn items() -> TempDir {
    let root = shop();
    File::open(root.path().join("items.db"))
        .unwrap()
        .execute_batch(
            "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL,
               amount INT DEFAULT 0 CHECK (amount >= 0), secret TEXT DEFAULT (hex(randomblob(4))));
             CREATE TABLE parts (id INTEGER PRIMARY KEY,
               item INT REFERENCES items ON DELETE CASCADE ON UPDATE CASCADE);
             CREATE TABLE log (at TEXT, what TEXT);
             CREATE VIEW names AS SELECT name FROM items;
             CREATE VIEW latest AS SELECT max(at) AS at FROM log;
             CREATE TRIGGER added AFTER INSERT ON items BEGIN
               INSERT INTO log VALUES (coalesce((SELECT at FROM latest), datetime('now')),
                 new.secret || hex(randomblob(2)));
             END;
             CREATE TRIGGER edited AFTER UPDATE ON items BEGIN
               INSERT INTO log VALUES (datetime('now'), 'edited');
             END;
             INSERT INTO items (id, name) VALUES (1, 'a'), (2, 'b');
             INSERT INTO parts VALUES (1, 1), (2, 1), (3, 2);
             DELETE FROM log;",
        )
        .unwrap();
    root
}

fn plain(root: &TempDir) -> File {
    File::open(root.path().join("items.db")).unwrap()
}

fn count(root: &TempDir, sql: &str) -> i64 {
    plain(root).query_row(sql, [], |row| row.get(0)).unwrap()
}

async fn writer(root: &TempDir) -> Box<dyn Database> {
    open(root, "items.db", writable(Access::default())).await.unwrap()
}

#[tokio::test]
async fn changes_are_counted_bounded_and_all_or_nothing() {
    let root = items();
    let mut session = writer(&root).await;
    both_engines_agree(&mut *session, async |sql| count(&root, sql)).await;
    // What it changed it also reads.
    let answer = run(&mut *session, "SELECT name FROM items WHERE id = 2").await.unwrap();
    assert_eq!(answer.rows, [[json!("it's")]]);
}

#[tokio::test]
async fn a_tenant_that_may_only_read_changes_nothing() {
    let root = items();
    let mut session = open(&root, "items.db", Access::default()).await.unwrap();
    let Err(Error::Refused(refusal)) = change(&mut *session, "DELETE FROM log WHERE true").await
    else {
        panic!("was refused")
    };
    assert_eq!(refusal.rule(), "access-mode");
    assert_eq!(count(&root, "SELECT count(*) FROM items"), 2);
    // And is still served.
    run(&mut *session, "SELECT id FROM items").await.unwrap();
}

#[tokio::test]
async fn a_denied_column_holds_its_table_open_to_triggers_only() {
    let root = items();
    let access = writable(Access {
        deny_columns: vec![denied("items", "secret")],
        ..reads(&["items", "parts", "names"])
    });
    let mut session = open(&root, "items.db", access.clone()).await.unwrap();
    let write = guarded_write(&*session, "INSERT INTO items (id, name) VALUES (7, 'x')", &access);
    assert_eq!(session.write(&write, &Limits::default()).await.unwrap().changed, 1);
    let write = guarded_write(&*session, "UPDATE items SET name = 'y' WHERE id = 7", &access);
    assert_eq!(session.write(&write, &Limits::default()).await.unwrap().changed, 1);
    // The engine itself keeps the column closed: the guard had no word of it here.
    let open = Access::default();
    for sql in [
        "UPDATE items SET secret = 'x' WHERE id = 7",
        "DELETE FROM items WHERE secret = 'x'",
        "DELETE FROM items WHERE id = 7 RETURNING secret",
        "UPDATE items SET name = secret WHERE true",
    ] {
        let write = guarded_write(&*session, sql, &open);
        let answer = session.write(&write, &Limits::default()).await;
        let is_refused =
            matches!(&answer, Err(Error::Refused(refusal)) if refusal.rule() == "access");
        assert!(is_refused, "{sql}: {answer:?}");
    }
    assert_eq!(count(&root, "SELECT count(*) FROM items WHERE id = 7 AND name = 'y'"), 1);
}

#[tokio::test]
async fn keys_and_triggers_reach_as_far_as_the_schema_says() {
    let root = items();
    plain(&root)
        .execute_batch(
            "CREATE TABLE a (id INTEGER PRIMARY KEY, up INT REFERENCES a ON DELETE SET NULL);
             CREATE TABLE b (x INT REFERENCES a (id) ON DELETE CASCADE, y INT UNIQUE);
             CREATE TABLE c (y INT DEFAULT 5 REFERENCES b (y) ON DELETE SET DEFAULT);
             CREATE TABLE d (y INT REFERENCES a (id) ON DELETE RESTRICT);
             INSERT INTO a VALUES (1, NULL), (2, 1), (3, NULL); INSERT INTO b VALUES (1, 5), (1, 6);
             INSERT INTO c VALUES (6); INSERT INTO d VALUES (3);
             INSERT INTO b VALUES (2, 5) ON CONFLICT DO NOTHING;
             CREATE TABLE e (id INTEGER PRIMARY KEY);
             CREATE TRIGGER far AFTER DELETE ON e BEGIN DELETE FROM a WHERE id = old.id; END;
             INSERT INTO e VALUES (2), (3);
             CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);
             CREATE VIRTUAL TABLE notes_index USING fts5(body, content='notes', content_rowid='id');
             CREATE TRIGGER indexed AFTER INSERT ON notes BEGIN
               INSERT INTO notes_index (rowid, body) VALUES (new.id, new.body);
             END;
             CREATE TRIGGER again AFTER UPDATE ON notes BEGIN
               INSERT INTO notes_index (notes_index, rowid, body) VALUES ('delete', old.id, old.body);
               INSERT INTO notes_index (rowid, body) VALUES (new.id, new.body);
             END;
             CREATE TABLE numbered (id INTEGER PRIMARY KEY AUTOINCREMENT, half GENERATED ALWAYS AS
               (id / 2.0) STORED, made TEXT DEFAULT CURRENT_TIMESTAMP);
             CREATE INDEX by_lower ON notes (lower(body));
             CREATE TABLE strict_one (x INT) STRICT;",
        )
        .unwrap();
    let mut session = writer(&root).await;
    let session = &mut *session;
    let told = changed(session, "DELETE FROM a WHERE id = 3").await.unwrap_err();
    assert!(told.starts_with("a foreign key does not hold"), "{told}");
    // To a, b and c; the second row of a loses what it refers to.
    assert_eq!(changed(session, "DELETE FROM b WHERE y = 6").await, Ok(1));
    assert_eq!(count(&root, "SELECT y FROM c"), 5);
    let told = changed(session, "DELETE FROM a WHERE id = 1").await.unwrap_err();
    assert!(told.starts_with("a foreign key does not hold"), "{told}");
    assert_eq!(changed(session, "DELETE FROM c WHERE true").await, Ok(1));
    assert_eq!(changed(session, "DELETE FROM a WHERE id = 1").await, Ok(1));
    assert_eq!(count(&root, "SELECT count(*) FROM b"), 0);
    assert_eq!(count(&root, "SELECT count(*) FROM a WHERE up IS NULL"), 2);
    // From e by a trigger to a.
    assert_eq!(changed(session, "DELETE FROM e WHERE id = 2").await, Ok(1));
    assert_eq!(count(&root, "SELECT count(*) FROM a"), 1);
    changed(session, "DELETE FROM e WHERE id = 3").await.unwrap_err();
    assert_eq!(count(&root, "SELECT count(*) FROM e"), 1);

    let sql = "INSERT INTO notes (body) VALUES ('a red fox'), ('a dog')";
    assert_eq!(changed(session, sql).await, Ok(2));
    assert_eq!(changed(session, "UPDATE notes SET body = 'a cat' WHERE id = 2").await, Ok(1));
    let found = "SELECT count(*) FROM notes_index WHERE notes_index MATCH ";
    assert_eq!(count(&root, &format!("{found} 'fox OR cat'")), 2);
    assert_eq!(count(&root, &format!("{found} 'dog'")), 0);
    // But nobody writes into an index, or what is behind it, by themselves.
    for sql in [
        "INSERT INTO notes_index (notes_index) VALUES ('delete-all')",
        "DELETE FROM notes_index WHERE true",
        "DELETE FROM notes_index_data WHERE true",
    ] {
        changed(session, sql).await.unwrap_err();
    }
    assert_eq!(count(&root, &format!("{found} 'fox OR cat'")), 2);
    let sql = "INSERT INTO numbered DEFAULT VALUES RETURNING id, half, length(made)";
    assert_eq!(change(session, sql).await.unwrap().rows, [[json!(1), json!(0.5), json!(19)]]);
    assert_eq!(
        changed(session, "INSERT INTO strict_one (x) VALUES ('y')").await,
        Err("a constraint of the table does not hold".to_owned())
    );
    assert!(!session.is_broken());
}

#[tokio::test]
async fn a_change_that_is_cancelled_or_too_long_is_undone() {
    let root = items();
    let mut session = writer(&root).await;
    let endless = "UPDATE items SET amount = (WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL \
                   SELECT n + 1 FROM t) SELECT count(*) FROM t) WHERE true";
    let limits = Limits { statement_timeout: Duration::from_millis(100), ..Limits::default() };
    let write = guarded_write(&*session, endless, &Access::default());
    assert_eq!(session.write(&write, &limits).await, Err(Error::Timeout));
    assert!(!session.is_broken());
    assert_eq!(changed(&mut *session, "UPDATE items SET name = 'z' WHERE id = 1").await, Ok(1));
    let limits = Limits::default();
    let mut running = session.write(&write, &limits);
    assert!(poll!(&mut running).is_pending());
    drop(running);
    assert!(session.is_broken());
    drop(session);
    // The lock is free as soon as its thread has seen that nobody waits.
    let mut session = writer(&root).await;
    assert_eq!(changed(&mut *session, "UPDATE items SET name = 'y' WHERE id = 1").await, Ok(1));
    assert_eq!(count(&root, "SELECT sum(amount) FROM items"), 0);
}

#[tokio::test]
async fn writers_take_turns_and_one_that_waits_too_long_is_told_so() {
    let root = items();
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(writer(&root).await);
    }
    let sql = "UPDATE items SET amount = amount + 1 WHERE id = 1";
    let all = sessions.iter_mut().map(|session| async {
        for _ in 0..25 {
            assert_eq!(changed(&mut **session, sql).await, Ok(1));
        }
    });
    futures_util::future::join_all(all).await;
    assert_eq!(count(&root, "SELECT amount FROM items WHERE id = 1"), 100);
    let other = plain(&root);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let limits = Limits { statement_timeout: Duration::from_millis(300), ..Limits::default() };
    let write = guarded_write(&*sessions[0], sql, &Access::default());
    assert_eq!(sessions[0].write(&write, &limits).await, Err(Error::Timeout));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(changed(&mut *sessions[0], sql).await, Ok(1));
}

#[tokio::test]
async fn a_file_that_may_not_be_written_says_so_and_is_still_read() {
    let root = items();
    // Of a later format, which nobody may write.
    let file = std::fs::OpenOptions::new().write(true).open(root.path().join("items.db")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[3], 18).unwrap();
    let mut session = writer(&root).await;
    let told = changed(&mut *session, "DELETE FROM log WHERE true").await.unwrap_err();
    assert!(told.contains("its operator can allow it"), "{told}");
    assert_eq!(run(&mut *session, "SELECT id FROM items").await.unwrap().rows.len(), 2);
    let link = root.path().join("link.db");
    std::os::unix::fs::symlink(root.path().join("items.db"), link).unwrap();
    open(&root, "link.db", writable(Access::default())).await.unwrap_err();
    open(&root, "new.db", writable(Access::default())).await.unwrap_err();
    assert!(!root.path().join("new.db").exists());
}

#[tokio::test]
async fn a_change_that_a_crash_interrupted_is_undone_before_the_first_read() {
    let root = items();
    let (database, journal) = (root.path().join("items.db"), root.path().join("items.db-journal"));
    // What a killed writer leaves: a changed file, and the journal that undoes it.
    let other = plain(&root);
    other.execute_batch("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN").unwrap();
    other
        .execute_batch(
            "WITH RECURSIVE t(n) AS (SELECT 10 UNION ALL SELECT n + 1 FROM t WHERE n < 3000)
             INSERT INTO items (id, name) SELECT n, 'crash' FROM t",
        )
        .unwrap();
    let crashed = tempfile::tempdir().unwrap();
    for (from, name) in [(&database, "items.db"), (&journal, "items.db-journal")] {
        std::fs::copy(from, crashed.path().join(name)).unwrap();
    }
    drop(other);
    // Who may only read cannot undo it.
    open(&crashed, "items.db", Access::default()).await.unwrap_err();
    let mut session = writer(&crashed).await;
    let rows = run(&mut *session, "SELECT id FROM items").await.unwrap().rows;
    assert_eq!(rows.len(), 2);
    assert!(!crashed.path().join("items.db-journal").exists());
}
