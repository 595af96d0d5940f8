//! Changes of rows on both engines: counted, bounded, all or nothing.

use serde_json::json;
use tenantry::database::{Database, Dialect, Error, Write, WriteResult, check_write};
use tenantry::tenant::{Access, AccessMode, Limits, Resource};

pub(crate) fn writable(access: Access) -> Access {
    Access { mode: AccessMode::ReadWrite, ..access }
}

pub(crate) fn guarded_write(session: &dyn Database, sql: &str, access: &Access) -> Write {
    let schema = match session.dialect() {
        Dialect::Postgres => "shop_write",
        Dialect::Sqlite => "main",
    };
    let statement = check_write(sql, session.dialect(), &Resource::Database, access, schema)
        .unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
    Write { statement, params: vec![], limit: None }
}

pub(crate) async fn change(session: &mut dyn Database, sql: &str) -> Result<WriteResult, Error> {
    let write = guarded_write(session, sql, &Access::default());
    session.write(&write, &Limits::default()).await
}

/// How many rows changed, or what the caller is told.
pub(crate) async fn changed(session: &mut dyn Database, sql: &str) -> Result<u64, String> {
    match change(session, sql).await {
        Ok(result) => Ok(result.changed),
        Err(error) => Err(error.to_string()),
    }
}

/// What both engines do alike, over tables that each test makes in its own way: `items` (id, name,
/// amount; a check that the amount is not negative), two of them, and `parts` that refer to them
/// and go with them; a trigger that counts changes of items in `log`.
pub(crate) async fn both_engines_agree(
    session: &mut dyn Database,
    mut count: impl AsyncFnMut(&str) -> i64,
) {
    assert_eq!(changed(session, "INSERT INTO items (id, name) VALUES (3, 'c')").await, Ok(1));
    assert_eq!(changed(session, "UPDATE items SET amount = amount + 1 WHERE id > 1").await, Ok(2));
    assert_eq!(count("SELECT sum(amount) FROM items").await, 2);
    assert_eq!(changed(session, "UPDATE items SET name = 'x' WHERE id = 99").await, Ok(0));
    // The tenant's own trigger ran with each row.
    assert_eq!(count("SELECT count(*) FROM log").await, 3);

    let sql = "INSERT INTO items (id, name) VALUES (4, 'd'), (5, 'e') RETURNING id, name AS label";
    let answer = change(session, sql).await.unwrap();
    assert_eq!(answer.changed, 2);
    assert_eq!(answer.rows, [[json!(4), json!("d")], [json!(5), json!("e")]]);
    let names: Vec<&str> = answer.columns.iter().map(|column| &*column.name).collect();
    assert_eq!(names, ["id", "label"]);

    // Foreign keys act, and hold; rows that they take along are not counted.
    assert_eq!(count("SELECT count(*) FROM parts").await, 3);
    assert_eq!(changed(session, "DELETE FROM items WHERE id = 1").await, Ok(1));
    assert_eq!(count("SELECT count(*) FROM parts").await, 1);
    let before = count("SELECT count(*) FROM parts").await;
    for (sql, expected) in [
        ("INSERT INTO parts (id, item) VALUES (9, 77)", "a foreign key does not hold"),
        ("INSERT INTO items (id, name) VALUES (2, 'again')", "a row with the same key"),
        ("UPDATE items SET amount = -1 WHERE id = 2", "a value breaks a check"),
        ("INSERT INTO items (id, name) VALUES (8, NULL)", "a column that needs a value has none"),
    ] {
        let told = changed(session, sql).await.unwrap_err();
        assert!(told.starts_with(expected), "{sql}: {told}");
        assert!(!session.is_broken());
    }
    assert_eq!(count("SELECT count(*) FROM parts").await, before);
    let sql = "INSERT INTO items (id, name) VALUES (2, 'two') ON CONFLICT (id) DO UPDATE \
               SET name = excluded.name RETURNING name";
    assert_eq!(change(session, sql).await.unwrap().rows, [[json!("two")]]);
    let sql = "INSERT INTO items (id, name) VALUES (2, 'no') ON CONFLICT DO NOTHING";
    assert_eq!(changed(session, sql).await, Ok(0));

    // Beyond the limit nothing changes, with RETURNING or without.
    let items = count("SELECT count(*) FROM items").await;
    assert_eq!(items, 4);
    for (limit, max_rows, expected) in
        [(Some(3), 1_000, Err(3)), (None, 3, Err(3)), (Some(9), 3, Err(3)), (Some(4), 1_000, Ok(4))]
    {
        for returning in ["", " RETURNING id"] {
            let sql = format!("UPDATE items SET name = 'all' WHERE true{returning}");
            let mut write = guarded_write(session, &sql, &Access::default());
            write.limit = limit;
            let limits = Limits { max_rows, ..Limits::default() };
            let answer = session.write(&write, &limits).await;
            let expected = expected.map_err(|limit| Error::TooManyChanges { limit });
            assert_eq!(answer.map(|answer| answer.changed), expected, "{limit:?} {max_rows}");
            let all = count("SELECT count(*) FROM items WHERE name = 'all'").await;
            assert_eq!(all, if expected.is_ok() { 4 } else { 0 });
        }
    }
    // So with more bytes than an answer may have.
    let limits = Limits { max_result_bytes: 1024, ..Limits::default() };
    for sql in [
        "UPDATE items SET name = 'big' WHERE true RETURNING replace('xxxxxxxxxx', 'x', \
         'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy')",
        "UPDATE items SET name = 'big' WHERE id = 2 RETURNING replace(replace('xxxxxxxxxx', 'x', \
         'yyyyyyyyyy'), 'y', 'zzzzzzzzzzzzzzzzzzzz')",
    ] {
        let write = guarded_write(session, sql, &Access::default());
        assert_eq!(session.write(&write, &limits).await, Err(Error::ReturnedTooLarge), "{sql}");
        assert_eq!(count("SELECT count(*) FROM items WHERE name = 'big'").await, 0);
        assert!(!session.is_broken(), "{sql}");
    }
    // Only tables are changed.
    for sql in ["DELETE FROM names WHERE true", "INSERT INTO names (name) VALUES ('x')"] {
        let told = changed(session, sql).await.unwrap_err();
        assert!(told.contains("may be changed"), "{sql}: {told}");
    }
    let told = changed(session, "DELETE FROM nothing WHERE true").await.unwrap_err();
    assert!(told.contains("nothing"), "{told}");
    // Values are bound and counted.
    let text = match session.dialect() {
        Dialect::Postgres => "UPDATE items SET name = $1 WHERE id = $2",
        Dialect::Sqlite => "UPDATE items SET name = ? WHERE id = ?",
    };
    let mut write = guarded_write(session, text, &Access::default());
    write.params = vec![json!("it's"), json!(2)];
    assert_eq!(session.write(&write, &Limits::default()).await.unwrap().changed, 1);
    write.params = vec![json!("it's")];
    let answer = session.write(&write, &Limits::default()).await;
    assert_eq!(answer, Err(Error::ParameterCount { expected: 2, given: 1 }));
    assert_eq!(count("SELECT count(*) FROM items WHERE name = 'it''s'").await, 1);
    assert!(!session.is_broken());
}
