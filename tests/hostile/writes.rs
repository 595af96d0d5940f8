//! Changes of rows: hostile ones are refused, honest ones change as many rows as they do by
//! themselves, on both engines.

use std::fmt::Write as _;

use tenantry::database::{Database, Dialect, Error, Write, check, check_write};
use tenantry::tenant::{Access, AccessMode, Limits, Resource};

use super::corpus::{self, Block};
use super::refused;

const CORPORA: [(Dialect, &str, &str, &str); 2] = [
    (
        Dialect::Postgres,
        "corpus",
        include_str!("hostile_postgres.sql"),
        include_str!("hostile_writes_postgres.sql"),
    ),
    (
        Dialect::Sqlite,
        "main",
        include_str!("hostile_sqlite.sql"),
        include_str!("hostile_writes_sqlite.sql"),
    ),
];

fn writable() -> Access {
    Access { mode: AccessMode::ReadWrite, ..Access::default() }
}

#[test]
fn hostile_changes_are_refused_by_the_rule_they_break() {
    for (dialect, schema, _, hostile) in CORPORA {
        // Every relation of the schema is open on one, and a few on the other.
        let tables = refused::access().tables.filter(|_| dialect == Dialect::Sqlite);
        let access = Access { tables, ..refused::access() };
        let mut wrong = String::new();
        let blocks = corpus::blocks(hostile);
        assert!(blocks.len() >= 55, "{}", blocks.len());
        for block in blocks {
            let (_, rules) = block.name.split_once(" | ").unwrap();
            match check_write(&block.sql, dialect, &Resource::Database, &access, schema) {
                Ok(guarded) => writeln!(wrong, "{} became {}", block.name, guarded.sql()).unwrap(),
                Err(refusal) if rules.split('|').any(|rule| rule == refusal.rule()) => {
                    assert!(refusal.message().len() < 300, "{}: {refusal}", block.name);
                }
                Err(refusal) => {
                    writeln!(wrong, "{}: {} ({refusal})", block.name, refusal.rule()).unwrap();
                }
            }
            // Nor is any of them a query that runs.
            let read = check(&block.sql, dialect, &Resource::Database, &access, schema);
            assert!(read.is_err(), "{} is read", block.name);
        }
        assert!(wrong.is_empty(), "\n{wrong}");
    }
}

#[test]
fn no_hostile_query_is_a_change_either() {
    for (dialect, schema, hostile, _) in CORPORA {
        for block in corpus::blocks(hostile) {
            let access = refused::access();
            let found = check_write(&block.sql, dialect, &Resource::Database, &access, schema);
            // Those that are what they seem, of what may be written.
            let Ok(guarded) = found else { continue };
            let is_plain = ["INSERT INTO ", "UPDATE ", "DELETE FROM ", "WITH "]
                .iter()
                .any(|start| guarded.sql().starts_with(start));
            let of_customers = guarded.target().name == "customers";
            assert!(is_plain && of_customers, "{}: {}", block.name, guarded.sql());
        }
    }
}

/// Makes the change, and says how many rows it changed or why none.
async fn change(session: &mut dyn Database, block: &Block, schema: &str) -> Result<u64, Error> {
    let (dialect, access) = (session.dialect(), writable());
    let statement = check_write(&block.sql, dialect, &Resource::Database, &access, schema)?;
    let write = Write { statement, params: vec![], limit: None };
    let answer = session.write(&write, &Limits::default()).await?;
    let returns = block.sql.contains("RETURNING");
    let rows = answer.rows.len() as u64;
    assert_eq!(rows, if returns { answer.changed } else { 0 }, "{}", block.name);
    Ok(answer.changed)
}

#[tokio::test]
async fn honest_changes_change_as_many_rows_as_sqlite3_does() {
    assert!(tenantry::database::bound_memory());
    let root = tempfile::tempdir().unwrap();
    for name in ["ours.db", "plain.db"] {
        let file = rusqlite::Connection::open(root.path().join(name)).unwrap();
        file.execute_batch(include_str!("schema_sqlite.sql")).unwrap();
    }
    let plain = rusqlite::Connection::open(root.path().join("plain.db")).unwrap();
    let connection = tenantry::tenant::Connection::Sqlite { path: "ours.db".to_owned() };
    let credentials = tenantry::tenant::Credentials::default();
    let opened = super::connect(connection, writable(), &credentials, root.path());
    let mut session = opened.await.unwrap();
    let blocks = corpus::blocks(include_str!("honest_writes_sqlite.sql"));
    assert!(blocks.len() >= 30, "{}", blocks.len());
    let dump = |file: &rusqlite::Connection| -> Vec<String> {
        ["customers", "products", "orders", "employees", "files", "\"Order Details\""]
            .iter()
            .map(|table| {
                let sql = format!("SELECT * FROM {table} ORDER BY 1");
                let mut statement = file.prepare(&sql).unwrap();
                let width = statement.column_count();
                let cells = |row: &rusqlite::Row<'_>| {
                    let cells =
                        (0..width).map(|place| row.get_ref(place).map(|it| format!("{it:?}")));
                    cells.collect::<rusqlite::Result<Vec<_>>>()
                };
                let rows: Vec<_> = statement.query_map([], cells).unwrap().collect();
                format!("{table}: {rows:?}")
            })
            .collect()
    };
    let ours = rusqlite::Connection::open(root.path().join("ours.db")).unwrap();
    let mut wrong = String::new();
    for block in &blocks {
        let expected = {
            let mut statement = plain.prepare(&block.sql).unwrap();
            let mut rows = statement.query([]).unwrap();
            while rows.next().unwrap().is_some() {}
            plain.changes()
        };
        match change(&mut *session, block, "main").await {
            Ok(changed) if changed == expected => {}
            other => writeln!(wrong, "{}: {other:?}, not {expected}", block.name).unwrap(),
        }
        assert_eq!(dump(&ours), dump(&plain), "{}", block.name);
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[tokio::test]
async fn honest_changes_change_as_many_rows_as_psql_does() {
    const SCHEMA: &str = "corpus_writes";
    let client = super::postgres::plain_client().await;
    let tables = include_str!("schema_postgres.sql").replace("corpus", SCHEMA);
    client.batch_execute(&tables).await.unwrap();
    client.batch_execute(&format!("SET search_path = {SCHEMA}")).await.unwrap();
    let mut session = super::postgres::open_with(SCHEMA, writable()).await;
    let blocks = corpus::blocks(include_str!("honest_writes_postgres.sql"));
    assert!(blocks.len() >= 30, "{}", blocks.len());
    let mut wrong = String::new();
    for block in &blocks {
        // By itself, and undone.
        client.batch_execute("BEGIN").await.unwrap();
        let expected = client.execute(&block.sql, &[]).await.unwrap();
        client.batch_execute("ROLLBACK").await.unwrap();
        match change(&mut *session, block, SCHEMA).await {
            Ok(changed) if changed == expected => {}
            other => writeln!(wrong, "{}: {other:?}, not {expected}", block.name).unwrap(),
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
