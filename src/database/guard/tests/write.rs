//! Changes of rows: what may, what may not, and the nearest that does.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::*;

const BOTH: [Dialect; 2] = [Dialect::Postgres, Dialect::Sqlite];

fn change(sql: &str, dialect: Dialect) -> Result<GuardedWrite, Refusal> {
    check_write(sql, dialect, &Resource::Database, &access(&[]), schema(dialect))
}

fn broken_rule(sql: &str, dialect: Dialect) -> Option<&'static str> {
    change(sql, dialect).err().map(|refusal| refusal.rule())
}

#[test]
fn honest_changes_are_admitted_on_both_engines() {
    for sql in [
        "INSERT INTO customers (id, name) VALUES (1, 'Ada'), (2, upper('bob'))",
        "insert into customers(name) values ('x');",
        "INSERT INTO customers VALUES (1, 'Ada')",
        "INSERT INTO customers DEFAULT VALUES",
        "INSERT INTO customers (name) SELECT name FROM users WHERE id > 3",
        "WITH big AS (SELECT id FROM orders WHERE total > 9) INSERT INTO customers (id) \
         SELECT id FROM big",
        "INSERT INTO customers (id, name) VALUES (1, 'a') ON CONFLICT DO NOTHING",
        "INSERT INTO customers (id, name) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE \
         SET name = excluded.name WHERE customers.name <> excluded.name",
        "INSERT INTO customers (name) VALUES ('a') RETURNING id, name AS label",
        "INSERT INTO customers (name) VALUES ('a') RETURNING *",
        "UPDATE customers SET name = 'x' WHERE id = 1",
        "UPDATE customers SET name = upper(name), id = id + 1 WHERE name LIKE 'A%'",
        "UPDATE customers SET (id, name) = (2, 'b') WHERE id = 1",
        "UPDATE customers SET name = 'x' WHERE true",
        "UPDATE customers AS c SET name = 'x' WHERE c.id IN (SELECT customer_id FROM orders)",
        "UPDATE customers SET name = u.name FROM users u WHERE u.id = customers.id",
        "WITH late AS (SELECT id FROM orders) UPDATE orders SET total = 0 WHERE id IN \
         (SELECT id FROM late) RETURNING id",
        "DELETE FROM orders WHERE total IS NULL",
        "DELETE FROM orders WHERE NOT EXISTS (SELECT 1 FROM customers c WHERE c.id = customer_id)",
        "WITH old_ones AS (SELECT id FROM orders) DELETE FROM orders WHERE id IN \
         (SELECT id FROM old_ones) RETURNING *",
        "DELETE FROM orders WHERE true",
        "UPDATE \"Order Details\" SET x = 1 WHERE x = 2",
    ] {
        for dialect in BOTH {
            let guarded = change(sql, dialect).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
            assert!(guarded.relations().any(|relation| relation == guarded.target()), "{sql}");
            let again = change(guarded.sql(), dialect);
            assert_eq!(again.as_ref().map(GuardedWrite::sql), Ok(guarded.sql()), "{sql}");
        }
    }
    for sql in [
        "INSERT INTO customers (id, name) VALUES (DEFAULT, $1), ($2, DEFAULT)",
        "UPDATE customers SET name = DEFAULT WHERE id = $1",
        "UPDATE customers SET (id, name) = (DEFAULT, 'x') WHERE id = 1",
        "INSERT INTO customers AS c (id) VALUES (1) ON CONFLICT ON CONSTRAINT customers_pkey \
         DO UPDATE SET name = c.name",
        "DELETE FROM orders USING customers c WHERE c.id = customer_id RETURNING orders.id",
        "INSERT INTO public.customers (name) VALUES ('x')",
        "UPDATE customers SET name = 'x' WHERE id = ANY ($1)",
    ] {
        assert_eq!(broken_rule(sql, Dialect::Postgres), None, "{sql}");
    }
}

#[test]
fn what_runs_has_its_names_in_quotes_and_its_defaults_as_they_were() {
    let runs = |sql, dialect| change(sql, dialect).unwrap().sql().to_owned();
    assert_eq!(
        runs("insert into Customers (Name) values (default) returning Name as End", BOTH[0]),
        "INSERT INTO \"customers\" (\"name\") VALUES (default) RETURNING \"name\" AS \"end\""
    );
    assert_eq!(
        runs("UPDATE Customers SET Name = 'it''s' WHERE Id = ?", BOTH[1]),
        "UPDATE \"Customers\" SET \"Name\" = 'it''s' WHERE Id = ?"
    );
    assert_eq!(
        runs("DELETE FROM customers WHERE id = 1 -- and more", BOTH[0]),
        "DELETE FROM \"customers\" WHERE \"id\" = 1"
    );
}

#[test]
fn what_is_no_change_of_rows_is_refused() {
    for sql in [
        "SELECT 1",
        "SELECT * FROM customers",
        "VALUES (1)",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "DROP TABLE customers",
        "TRUNCATE customers",
        "CREATE TABLE x (a int)",
        "ALTER TABLE customers ADD COLUMN x int",
        "COPY customers FROM '/etc/passwd'",
        "MERGE INTO customers USING orders ON true WHEN MATCHED THEN DELETE",
        "REPLACE INTO customers (id) VALUES (1)",
        "EXPLAIN ANALYZE DELETE FROM customers WHERE true",
        "PREPARE x AS DELETE FROM customers",
        "DO $$ BEGIN END $$",
        "CALL x()",
        "GRANT ALL ON customers TO public",
        "VACUUM",
        "PRAGMA writable_schema = 1",
        "ATTACH 'x' AS y",
        "SET search_path = x",
        "COMMIT",
        "(DELETE FROM customers WHERE true)",
    ] {
        for dialect in BOTH {
            assert_eq!(broken_rule(sql, dialect), Some("statement-kind"), "{sql}");
            // And what changes is not read.
            let read = check(sql, dialect, &Resource::Database, &access(&[]), schema(dialect));
            assert!(read.is_ok() == (dialect_reads(sql)), "{sql}");
        }
    }
    for sql in [
        "INSERT INTO customers (id) VALUES (1)",
        "UPDATE customers SET id = 1 WHERE true",
        "DELETE FROM customers WHERE true",
        "WITH a AS (SELECT 1) DELETE FROM customers WHERE true",
        "WITH a AS (DELETE FROM customers WHERE true RETURNING id) SELECT * FROM a",
    ] {
        for dialect in BOTH {
            let read = check(sql, dialect, &Resource::Database, &access(&[]), schema(dialect));
            assert_eq!(read.unwrap_err().rule(), "statement-kind", "{sql}");
        }
    }
}

fn dialect_reads(sql: &str) -> bool {
    ["SELECT", "VALUES", "WITH"].iter().any(|start| sql.starts_with(start))
}

#[test]
fn hostile_changes_are_refused_by_the_rule_they_break() {
    for (sql, rule) in [
        ("DELETE FROM customers", "write-without-where"),
        ("UPDATE customers SET name = 'x'", "write-without-where"),
        ("UPDATE customers SET name = u.name FROM users u", "write-without-where"),
        ("DELETE FROM customers WHERE true; DROP TABLE orders", "one-statement"),
        ("INSERT OR REPLACE INTO customers (id) VALUES (1)", "clause"),
        ("INSERT OR IGNORE INTO customers (id) VALUES (1)", "clause"),
        ("UPDATE OR REPLACE customers SET id = 1 WHERE true", "clause"),
        ("DELETE FROM secrets WHERE true", "relation"),
        ("INSERT INTO secrets (x) VALUES (1)", "relation"),
        ("UPDATE customers SET name = (SELECT x FROM secrets) WHERE true", "relation"),
        ("UPDATE customers SET name = s.x FROM secrets s WHERE true", "relation"),
        ("INSERT INTO customers (name) SELECT x FROM secrets", "relation"),
        ("DELETE FROM customers WHERE id IN (SELECT x FROM secrets)", "relation"),
        ("INSERT INTO customers (id) VALUES (1) RETURNING (SELECT x FROM secrets)", "relation"),
        (
            "INSERT INTO customers (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = \
             (SELECT x FROM secrets)",
            "relation",
        ),
        ("UPDATE customers SET name = pg_read_file('/etc/passwd') WHERE true", "function"),
        ("INSERT INTO customers (name) VALUES (load_extension('x'))", "function"),
        ("DELETE FROM customers WHERE pg_sleep(9) IS NULL", "function"),
        ("INSERT INTO customers (id) VALUES (1) RETURNING lo_import('/etc/passwd')", "function"),
        (
            "WITH gone AS (DELETE FROM orders WHERE true RETURNING id) INSERT INTO customers (id) \
             SELECT id FROM gone",
            "statement-kind",
        ),
        ("WITH customers AS (SELECT 1 AS id) UPDATE customers SET id = 1 WHERE true", "relation"),
        (
            "DELETE FROM customers WHERE id IN (WITH Customers AS (SELECT 1 AS id) SELECT id FROM \
             Customers)",
            "relation",
        ),
        ("INSERT INTO customers (a.b) VALUES (1)", "clause"),
        ("UPDATE customers SET customers.name = 'x' WHERE true", "clause"),
        ("UPDATE customers, orders SET name = 'x' WHERE true", "syntax"),
        ("UPDATE customers JOIN orders ON true SET name = 'x' WHERE true", "clause"),
        ("DELETE customers FROM customers WHERE true", "clause"),
        ("DELETE FROM customers, orders WHERE true", "clause"),
        ("DELETE FROM customers WHERE true ORDER BY id LIMIT 1", "clause"),
        ("UPDATE customers SET name = 'x' WHERE true LIMIT 1", "clause"),
        ("INSERT customers (id) VALUES (1)", "clause"),
        ("INSERT INTO TABLE customers (id) VALUES (1)", "clause"),
        ("INSERT INTO customers (id) VALUES (1) ON DUPLICATE KEY UPDATE id = 2", "clause"),
        ("INSERT INTO customers TABLE users", "clause"),
        ("INSERT INTO customers (id) VALUES (1) RETURNING count(*) INTO x", "clause"),
        ("INSERT INTO customers (id) SELECT id FROM users FOR UPDATE", "clause"),
    ] {
        for dialect in BOTH {
            let found = broken_rule(sql, dialect);
            // Where the parser of one dialect does not come that far.
            let is_right = found == Some(rule) || found == Some("syntax");
            assert!(is_right, "{sql}: {found:?} by {dialect:?}");
        }
    }
    for sql in [
        "UPDATE ONLY customers SET name = 'x' WHERE true",
        "DELETE FROM only customers WHERE true",
        "INSERT INTO customers (default) VALUES (1)",
        "UPDATE customers SET name = lower(DEFAULT) WHERE true",
        "DELETE FROM customers WHERE name = DEFAULT",
        "INSERT INTO customers (name) SELECT DEFAULT",
        "INSERT INTO customers (id) VALUES (1) RETURNING default",
        "UPDATE customers SET user = 'x' WHERE true",
    ] {
        assert_eq!(broken_rule(sql, Dialect::Postgres), Some("identifier"), "{sql}");
    }
    for sql in ["DELETE FROM pg_class WHERE true", "INSERT INTO pg_catalog.x (a) VALUES (1)"] {
        assert_eq!(broken_rule(sql, Dialect::Postgres), Some("relation"), "{sql}");
    }
    for sql in [
        "DELETE FROM sqlite_schema WHERE true",
        "UPDATE sqlite_master SET sql = '' WHERE true",
        "INSERT INTO pragma_foreign_keys (a) VALUES (1)",
        "INSERT INTO temp.customers (id) VALUES (1)",
    ] {
        assert_eq!(broken_rule(sql, Dialect::Sqlite), Some("relation"), "{sql}");
    }
    let advice = change("REPLACE INTO customers (id) VALUES (1)", Dialect::Sqlite).unwrap_err();
    assert!(advice.message().contains("INSERT, UPDATE or DELETE"), "{advice}");
}

#[test]
fn a_denied_column_is_neither_written_nor_read_by_a_change() {
    let found = |sql: &str, dialect| {
        let access = access(&["secret"]);
        check_write(sql, dialect, &Resource::Database, &access, schema(dialect))
            .map(|guarded| guarded.uses().column_claims().len())
            .map_err(|refusal| refusal.rule())
    };
    for sql in [
        "INSERT INTO users (id, secret) VALUES (1, 'x')",
        "INSERT INTO users (id, SECRET) VALUES (1, 'x')",
        "INSERT INTO users (id, \"secret\") VALUES (1, 'x')",
        "INSERT INTO users VALUES (1, 'x')",
        "INSERT INTO users SELECT id, name FROM customers",
        "UPDATE users SET secret = 'x' WHERE id = 1",
        "UPDATE users SET (id, secret) = (1, 'x') WHERE id = 1",
        "UPDATE users SET id = 1 WHERE secret = 'x'",
        "UPDATE users SET name = secret WHERE id = 1",
        "UPDATE customers SET name = users.secret FROM users WHERE true",
        "DELETE FROM users WHERE secret LIKE 'a%'",
        "DELETE FROM users WHERE id = 1 RETURNING secret",
        "DELETE FROM users WHERE id = 1 RETURNING *",
        "DELETE FROM users WHERE id = 1 RETURNING users.*",
        "DELETE FROM users WHERE id = 1 RETURNING users",
        "INSERT INTO users (id) VALUES (1) ON CONFLICT (secret) DO NOTHING",
        "INSERT INTO users (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET secret = 'x'",
        "INSERT INTO users (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = excluded.secret",
        "INSERT INTO users (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = excluded",
        "INSERT INTO customers (name) SELECT secret FROM users",
    ] {
        for dialect in BOTH {
            assert_eq!(found(sql, dialect), Err("column"), "{sql}");
        }
    }
    for sql in [
        "DELETE FROM users WHERE id = 1 RETURNING old",
        "DELETE FROM users WHERE id = 1 RETURNING new",
        "UPDATE users SET id = 1 WHERE true RETURNING old.secret",
        "UPDATE users AS u SET id = 1 WHERE true RETURNING u",
        "INSERT INTO users AS u (id) VALUES (1) RETURNING u",
        "DELETE FROM customers USING users WHERE users::text = 'x'",
    ] {
        assert_eq!(found(sql, Dialect::Postgres), Err("column"), "{sql}");
    }
    // That these are columns, and no functions of the row, is for the session to find out.
    for (sql, claims) in [
        ("UPDATE users u SET id = 1 WHERE u.id = 2", 1),
        ("DELETE FROM users WHERE true RETURNING old.id", 1),
        (
            "INSERT INTO users (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            1,
        ),
    ] {
        assert_eq!(found(sql, Dialect::Postgres), Ok(claims), "{sql}");
    }
    for sql in [
        "INSERT INTO users (id, name) VALUES (1, 'x') RETURNING id, name",
        "INSERT INTO users DEFAULT VALUES",
        "UPDATE users SET name = 'x' WHERE id = 1",
        "DELETE FROM users WHERE id = 1 RETURNING id",
        "DELETE FROM orders WHERE true RETURNING *",
        "INSERT INTO orders VALUES (1, 2, 3)",
    ] {
        for dialect in BOTH {
            assert_eq!(found(sql, dialect), Ok(0), "{sql}");
        }
    }
}

#[test]
fn a_uri_of_one_table_changes_that_table_and_uses_no_other() {
    let under = |resource: &Resource, sql: &str| {
        check_write(sql, Dialect::Postgres, resource, &access(&[]), "public")
            .map_err(|refusal| refusal.rule())
    };
    let customers = Resource::Table(named("customers"));
    assert!(under(&customers, "DELETE FROM customers WHERE id = 1").is_ok());
    for sql in [
        "DELETE FROM orders WHERE id = 1",
        "DELETE FROM customers WHERE id IN (SELECT customer_id FROM orders)",
        "INSERT INTO customers (id) SELECT id FROM orders",
    ] {
        assert_eq!(under(&customers, sql).unwrap_err(), "relation", "{sql}");
    }
    let view = Resource::View(named("customers"));
    assert_eq!(under(&view, "DELETE FROM customers WHERE true").unwrap_err(), "relation");
    let api = Resource::Api { provider: "openai".to_owned() };
    assert_eq!(under(&api, "DELETE FROM customers WHERE true").unwrap_err(), "relation");
}

#[test]
fn deep_and_long_changes_are_refused_without_exhausting_the_stack() {
    for sql in [
        format!("DELETE FROM customers WHERE id = 1{}", " + 1".repeat(2_000)),
        format!("UPDATE customers SET id = {}1{} WHERE true", "(".repeat(20), ")".repeat(20)),
        format!("INSERT INTO customers (id) VALUES ({}1{})", "(".repeat(19), ")".repeat(19)),
        format!("INSERT INTO customers (id) VALUES {}(1)", "(1), ".repeat(20_000)),
        format!("INSERT INTO customers {}SELECT 1{}", "(".repeat(20), ")".repeat(20)),
        format!("{}DELETE FROM customers WHERE true", "WITH a AS (".repeat(20)),
        format!("INSERT INTO customers {} VALUES (1)", "INSERT INTO customers ".repeat(1_000)),
        format!("UPDATE customers SET {} = 1 WHERE true", "(a, ".repeat(20)),
        "DELETE FROM customers WHERE ".to_owned() + &"NOT ".repeat(4_000),
    ] {
        for dialect in BOTH {
            let (sql, shown) = (sql.clone(), sql.chars().take(40).collect::<String>());
            let thread = std::thread::Builder::new().name(shown).stack_size(1 << 20);
            thread.spawn(move || drop(change(&sql, dialect))).unwrap().join().unwrap();
        }
    }
    let many = format!("INSERT INTO customers (id) VALUES {}(1)", "(1), ".repeat(900));
    assert_eq!(broken_rule(&many, Dialect::Sqlite), None);
}

#[test]
fn a_refusal_of_a_change_speaks_of_changes() {
    let refusal = change("DELETE FROM customers WHERE 'canary", Dialect::Postgres).unwrap_err();
    assert_eq!(refusal.rule(), "syntax");
    assert!(refusal.message().contains("INSERT, UPDATE or DELETE beyond line 1, column 29"));
    assert_eq!(broken_rule("", Dialect::Postgres), Some("one-statement"));
}

fn words() -> impl Strategy<Value = String> {
    let start = prop::sample::select(vec![
        "INSERT INTO customers (id, name) VALUES (",
        "INSERT INTO customers SELECT",
        "INSERT INTO",
        "UPDATE customers SET name =",
        "UPDATE",
        "DELETE FROM customers WHERE",
        "DELETE FROM",
        "WITH a AS (SELECT",
    ]);
    let word = prop::sample::select(vec![
        "customers",
        "orders",
        "secrets",
        "users",
        "id",
        "name",
        "secret",
        "1",
        "'x'",
        ",",
        "(",
        ")",
        "=",
        "+",
        "SET",
        "WHERE",
        "true",
        "FROM",
        "SELECT",
        "VALUES",
        "RETURNING",
        "*",
        "ON",
        "CONFLICT",
        "DO",
        "NOTHING",
        "UPDATE",
        "DELETE",
        "INSERT",
        "INTO",
        "DEFAULT",
        "AS",
        "excluded.name",
        "USING",
        "OR",
        "REPLACE",
        "DROP",
        "TABLE",
        ";",
        "--\n",
        "?",
        "$1",
        "lower(name)",
        "IN",
        "EXISTS",
        "PRAGMA",
        "CREATE",
        "AND",
        "\"id\"",
        "main",
        ".",
    ]);
    (start, prop::collection::vec(word, 0..14))
        .prop_map(|(start, words)| format!("{start} {}", words.join(" ")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_text_does_not_panic(text in "(INSERT|UPDATE|DELETE|WITH) \\PC*") {
        for dialect in BOTH {
            drop(change(&text, dialect));
        }
    }

    #[test]
    fn no_text_is_both_a_query_and_a_change(text in words()) {
        for dialect in BOTH {
            let reads = check(&text, dialect, &Resource::Database, &access(&[]), schema(dialect));
            prop_assert!(reads.is_err() || change(&text, dialect).is_err(), "{}", text);
        }
    }

    #[test]
    fn what_is_admitted_is_admitted_again_as_itself(text in words()) {
        for dialect in BOTH {
            if let Ok(guarded) = change(&text, dialect) {
                prop_assert_eq!(change(guarded.sql(), dialect), Ok(guarded));
            }
        }
    }

    #[test]
    fn what_is_admitted_changes_rows_of_its_target_and_nothing_else(text in words()) {
        if let Ok(guarded) = change(&text, Dialect::Sqlite) {
            let mut connection = Connection::open_in_memory().unwrap();
            connection
                .execute_batch(
                    "CREATE TABLE customers (id, name); CREATE TABLE orders (id, customer_id, total);
                     CREATE TABLE users (id, name, secret); CREATE TABLE secrets (x)",
                )
                .unwrap();
            let wrong = Arc::new(Mutex::new(Vec::new()));
            let (seen, target) = (Arc::clone(&wrong), guarded.target().name.clone());
            let judge = move |context: AuthContext<'_>| {
                let is_right = match context.action {
                    AuthAction::Insert { table_name }
                    | AuthAction::Update { table_name, .. }
                    | AuthAction::Delete { table_name } => table_name == target,
                    AuthAction::Read { table_name, .. } => table_name != "secrets",
                    AuthAction::Select | AuthAction::Function { .. } => true,
                    _ => false,
                };
                if !is_right {
                    seen.lock().unwrap().push(format!("{:?}", context.action));
                }
                Authorization::Allow
            };
            connection.authorizer(Some(judge)).unwrap();
            if let Ok(statement) = connection.prepare(guarded.sql()) {
                prop_assert!(!statement.readonly(), "{}", guarded.sql());
            }
            let wrong = wrong.lock().unwrap();
            prop_assert!(wrong.is_empty(), "{}: {:?}", guarded.sql(), wrong);
        }
    }
}
