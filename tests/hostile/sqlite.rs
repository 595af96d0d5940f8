use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry::database::{Database, Error};
use tenantry::tenant::{Access, Connection, Credentials, Limits};

use super::{ask, ask_within, connect, corpus, rows};

/// A file with the tables of the corpus, and an unguarded connection to it.
fn made() -> (TempDir, rusqlite::Connection) {
    // What bounds a session's memory has to be there before the engine is used.
    assert!(tenantry::database::bound_memory());
    let root = tempfile::tempdir().unwrap();
    let plain = rusqlite::Connection::open(root.path().join("corpus.db")).unwrap();
    plain.execute_batch(include_str!("schema_sqlite.sql")).unwrap();
    (root, plain)
}

async fn open(root: &TempDir) -> Box<dyn Database> {
    let connection = Connection::Sqlite { path: "corpus.db".to_owned() };
    connect(connection, Access::default(), &Credentials::default(), root.path()).await.unwrap()
}

#[tokio::test]
async fn honest_queries_run_and_answer_as_sqlite3_does() {
    let (root, plain) = made();
    let mut session = open(&root).await;
    let mut wrong = String::new();
    let blocks = corpus::blocks(include_str!("honest_sqlite.sql"));
    for block in &blocks {
        // Mathematics are ours, and not in the plain connection: their answers stand in the file.
        let expected = match block.name.split_once(" is ") {
            Some((_, expected)) => Ok((None, serde_json::from_str(expected).unwrap())),
            None => plainly(&plain, &block.sql).map_err(|error| error.to_string()),
        };
        let answer = ask(&mut *session, &block.sql, "main").await;
        match (answer, expected) {
            (Ok(answer), Ok((names, expected))) => {
                let ours: Vec<&str> = answer.columns.iter().map(|column| &*column.name).collect();
                if names.is_some_and(|names| {
                    !names.iter().map(|it| named(it)).eq(ours.iter().map(|it| named(it)))
                }) {
                    writeln!(wrong, "{}: columns {ours:?}", block.name).unwrap();
                }
                if rows(&answer) != expected {
                    let ours = answer.rows.as_json();
                    writeln!(wrong, "{}: {ours}, not {}", block.name, json!(expected)).unwrap();
                }
            }
            (Err(error), _) | (_, Err(error)) => {
                writeln!(wrong, "{}: {error}", block.name).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(blocks.len() >= 80, "{}", blocks.len());
}

/// A name as it is compared: the engine promises none for an expression without AS, and gives it
/// the text of the expression.
fn named(name: &str) -> String {
    name.replace('"', "").to_lowercase()
}

type Answer = (Option<Vec<String>>, Vec<Vec<Value>>);

fn plainly(plain: &rusqlite::Connection, sql: &str) -> rusqlite::Result<Answer> {
    let mut statement = plain.prepare(sql)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let values = (0..names.len()).map(|position| row.get_ref(position).map(json_of));
        found.push(values.collect::<rusqlite::Result<_>>()?);
    }
    Ok((Some(names), found))
}

fn json_of(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) if number.unsigned_abs() > 1 << 53 => json!(number.to_string()),
        ValueRef::Integer(number) => json!(number),
        ValueRef::Real(number) => json!(number),
        ValueRef::Text(text) => json!(std::str::from_utf8(text).unwrap()),
        ValueRef::Blob(bytes) => json!(base64::engine::general_purpose::STANDARD.encode(bytes)),
    }
}

/// What no list can tell from honest work costs its limits, and nothing more.
#[tokio::test]
async fn costly_statements_end_at_the_limits() {
    let (root, _plain) = made();
    let mut session = open(&root).await;
    let limits = Limits { statement_timeout: Duration::from_millis(300), ..Limits::default() };
    let mut wrong = String::new();
    for block in corpus::blocks(include_str!("costly_sqlite.sql")) {
        let started = tokio::time::Instant::now();
        let answer = ask_within(&mut *session, &block.sql, "main", &limits).await;
        let took = started.elapsed();
        let is_bounded = match &answer {
            Ok(answer) => answer.rows.len() <= 1_000,
            Err(Error::Failed { message, .. }) => {
                message == "the statement needs too much memory"
                    || message == "the database could not run the statement"
            }
            Err(error) => matches!(error, Error::Timeout | Error::TooLarge),
        };
        if !is_bounded || took > Duration::from_secs(5) {
            let answer = answer.map(|answer| answer.rows.len());
            writeln!(wrong, "{}: {answer:?} after {took:?}", block.name).unwrap();
        }
        if session.is_broken() {
            session = open(&root).await;
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
