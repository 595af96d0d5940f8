use proptest::prelude::*;
use rusqlite::Connection;

use super::*;
use crate::tenant::{ColumnName, RelationName};

fn named(name: &str) -> RelationName {
    RelationName { schema: None, name: name.to_owned() }
}

fn access(deny_columns: &[&str]) -> Access {
    let deny_columns = deny_columns
        .iter()
        .map(|column| ColumnName { relation: named("users"), column: (*column).to_owned() })
        .collect();
    let tables = ["customers", "orders", "users", "Order Details"].map(named).to_vec();
    Access { tables: Some(tables), deny_columns, ..Access::default() }
}

fn schema(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "public",
        Dialect::Sqlite => "main",
    }
}

fn verdict(sql: &str, dialect: Dialect) -> Result<GuardedSql, Refusal> {
    check(sql, dialect, &Resource::Database, &access(&[]), schema(dialect))
}

#[test]
fn honest_queries_run_on_both_engines() {
    for sql in [
        "SELECT 1",
        "select 1;",
        "SELECT * FROM customers",
        "SELECT c.* FROM customers AS c",
        "SELECT id, name FROM customers WHERE id = 7 ORDER BY name DESC LIMIT 10 OFFSET 5",
        "SELECT count(*), count(DISTINCT name) FROM customers",
        "SELECT name, sum(total) AS spent FROM customers JOIN orders ON customers.id = \
         orders.customer_id GROUP BY name HAVING sum(total) > 100",
        "SELECT a.id FROM customers a LEFT JOIN orders b USING (id)",
        "SELECT * FROM customers CROSS JOIN orders",
        "SELECT * FROM customers, orders WHERE customers.id = orders.customer_id",
        "WITH big AS (SELECT * FROM orders WHERE total > 100) SELECT count(*) FROM big",
        "WITH a AS (SELECT 1 AS n), b AS (SELECT n + 1 AS n FROM a) SELECT * FROM a, b",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT n FROM t",
        "SELECT id FROM customers UNION ALL SELECT id FROM orders ORDER BY 1",
        "SELECT id FROM customers EXCEPT SELECT id FROM orders",
        "VALUES (1, 'a'), (2, 'b')",
        "SELECT * FROM (SELECT id FROM customers) AS inner_query",
        "SELECT EXISTS (SELECT 1 FROM orders)",
        "SELECT (SELECT max(total) FROM orders) AS top",
        "SELECT CASE WHEN id > 1 THEN 'many' ELSE 'one' END FROM customers",
        "SELECT coalesce(name, 'nobody'), upper(name), length(trim(name)) FROM customers",
        "SELECT substr(name, 1, 3), replace(name, 'a', 'b') FROM customers",
        "SELECT row_number() OVER (PARTITION BY customer_id ORDER BY total DESC) FROM orders",
        "SELECT sum(total) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) \
         FROM orders",
        "SELECT sum(total) FILTER (WHERE total > 5) FROM orders",
        "SELECT CAST(id AS TEXT) FROM customers",
        "SELECT * FROM customers WHERE name LIKE '%a\\_%' ESCAPE '\\' AND id IN (1, 2, 3)",
        "SELECT * FROM customers WHERE id BETWEEN 1 AND 9 AND NOT name IS NULL",
        "SELECT \"name\" FROM \"customers\"",
        "SELECT * FROM \"Order Details\"",
        "SELECT 'it''s', '; DROP TABLE customers; --' /* a comment */ -- another",
        "SELECT '''' || 'it''s', 'a''''b', 'a''', '''b', '\\', 1 AS \"a\"\"\"\"b\"",
        "SELECT -1.5e3, 7 % 2, 'a' || 'b', CURRENT_TIMESTAMP",
        "SELECT id, id AS user_id FROM users",
        "SELECT round(avg(total), 2) FROM orders WHERE id <> 4",
        "SELECT name COLLATE \"C\" FROM customers",
    ] {
        for dialect in [Dialect::Postgres, Dialect::Sqlite] {
            if sql.contains("COLLATE") && dialect == Dialect::Sqlite {
                continue;
            }
            if let Err(refusal) = verdict(sql, dialect) {
                panic!("{dialect:?} refused {sql}: {} {}", refusal.rule(), refusal.message());
            }
        }
    }
}

#[test]
fn honest_queries_run_in_each_engines_own_words() {
    for sql in [
        "SELECT id::text, '2024-01-01'::date, ARRAY[1, 2]::int[] FROM customers",
        "SELECT DISTINCT ON (name) name, id FROM customers ORDER BY name, id DESC NULLS LAST",
        "SELECT * FROM public.customers",
        "SELECT * FROM CUSTOMERS",
        "SELECT pg_catalog.lower(name) FROM customers",
        "SELECT count(*) AS end, max(id) AS user FROM customers AS c WHERE c.order = 1",
        "SELECT left(name, 1), right(name, 1) FROM \"customers\" \"only\"",
        "SELECT position('a' IN name) + position(lower('B') IN substr(name, position('c' IN name)))",
        "SELECT current_date, localtime, now()::date",
        "SELECT date_trunc('month', now()), extract(year FROM now()), now() - INTERVAL '1 day'",
        "SELECT data -> 'a' ->> 'b', data #> '{a,b}', data @> '{}' FROM orders",
        "SELECT string_agg(name, ', ' ORDER BY name) FROM customers",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total) FROM orders",
        "SELECT * FROM customers WHERE id = ANY($1) AND name ILIKE $2",
        "SELECT * FROM customers c, LATERAL (SELECT * FROM orders o WHERE o.customer_id = c.id) x",
        "SELECT now() AT TIME ZONE 'UTC', TIMESTAMP '2024-01-01 00:00:00'",
        "SELECT name ~ '^a', substring(name FROM 1 FOR 2), position('a' IN name) FROM customers",
        "SELECT a FROM (VALUES (1), (2)) AS v (a)",
        "SELECT ARRAY(SELECT id FROM customers)",
        "SELECT total::numeric(10,2), round(total::numeric, 2) FROM orders",
        "SELECT customer_id, count(*) FROM orders GROUP BY ROLLUP (customer_id)",
        "SELECT id FROM customers OFFSET 2 FETCH FIRST 3 ROWS ONLY",
        "SELECT * FROM customers TABLESAMPLE_ WHERE true",
    ] {
        if let Err(refusal) = verdict(sql, Dialect::Postgres) {
            panic!("refused {sql}: {} {}", refusal.rule(), refusal.message());
        }
    }
    for sql in [
        "SELECT * FROM CUSTOMERS WHERE Id = ? AND name = ?",
        "SELECT * FROM main.customers LIMIT 5, 10",
        "SELECT strftime('%Y', 'now'), date('now', '-1 day'), ifnull(name, '') FROM customers",
        "SELECT group_concat(name, ',') FROM customers WHERE name GLOB 'a*'",
        "SELECT json_extract('{\"a\":1}', '$.a'), '{}' -> 'a'",
        "SELECT name FROM customers ORDER BY name COLLATE NOCASE",
        "SELECT [name] FROM `customers`",
    ] {
        if let Err(refusal) = verdict(sql, Dialect::Sqlite) {
            panic!("refused {sql}: {} {}", refusal.rule(), refusal.message());
        }
    }
}

/// Statements that write, reach out, wait, lock, keep state, or read what is not the tenant's.
const HOSTILE: &[&str] = &[
    "",
    ";",
    "--",
    "COMMIT; INSERT INTO customers VALUES (9, 'pwn')",
    "SELECT 1 /* x */;/**/ROLLBACK;INSERT INTO customers VALUES (1)--",
    "/* c */ SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE customers",
    "INSERT INTO customers VALUES (1)",
    "UPDATE customers SET name = 'x'",
    "DELETE FROM customers",
    " /**/insert into customers values (1)",
    "MERGE INTO customers USING orders ON true WHEN MATCHED THEN DELETE",
    "TRUNCATE customers",
    "DROP TABLE customers",
    "CREATE TABLE x (a int)",
    "CREATE TABLE x AS SELECT * FROM customers",
    "ALTER TABLE customers ADD COLUMN x int",
    "GRANT ALL ON customers TO public",
    "WITH d AS (DELETE FROM customers RETURNING *) SELECT * FROM d",
    "WITH d AS (INSERT INTO customers VALUES (1) RETURNING *) SELECT * FROM d",
    "WITH d AS (UPDATE customers SET id = 1 RETURNING *) SELECT * FROM d",
    "SELECT * INTO x FROM customers",
    "SELECT * FROM customers FOR UPDATE",
    "SELECT * FROM customers FOR SHARE",
    "SELECT * FROM (SELECT * FROM customers FOR UPDATE) x",
    "EXPLAIN ANALYZE DELETE FROM customers",
    "EXPLAIN ANALYZE SELECT * FROM customers",
    "COPY customers TO PROGRAM 'sh'",
    "COPY (SELECT 1) TO '/tmp/x'",
    "DO $$ BEGIN PERFORM 1; END $$",
    "CALL p()",
    "SET search_path = other",
    "RESET ALL",
    "SHOW ALL",
    "LISTEN x",
    "NOTIFY x",
    "LOCK TABLE customers",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DISCARD ALL",
    "VACUUM",
    "BEGIN",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT \"pg_read_file\"('/etc/passwd')",
    "SELECT pg_catalog.pg_read_file('/etc/passwd')",
    "SELECT \"pg_catalog\".\"pg_read_file\"('/etc/passwd')",
    "SELECT U&\"\\0070g_read_file\"('/etc/passwd')",
    "SELECT PG_READ_FILE('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT * FROM pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/x')",
    "SELECT * FROM dblink('dbname=x', 'SELECT 1') AS t (a int)",
    "SELECT dblink_exec('dbname=x', 'DROP TABLE t')",
    "SELECT query_to_xml('DELETE FROM customers', true, true, '')",
    "SELECT database_to_xml(true, true, '')",
    "SELECT table_to_xml('secrets', true, true, '')",
    "SELECT cursor_to_xml('c', 1, true, true, '')",
    "SELECT ts_stat('SELECT 1')",
    "SELECT pg_import_system_collations('public')",
    "SELECT pg_sleep(60)",
    "SELECT name FROM customers WHERE pg_sleep(60) IS NULL",
    "SELECT count(*) FILTER (WHERE pg_sleep(1) IS NULL) FROM customers",
    "SELECT sum(id) OVER (ORDER BY pg_sleep(1)) FROM customers",
    "SELECT 1 ORDER BY pg_sleep(1)",
    "SELECT 1 LIMIT (SELECT pg_backend_pid())",
    "SELECT CASE WHEN true THEN pg_sleep(1) END",
    "SELECT * FROM customers JOIN orders ON pg_sleep(1) IS NULL",
    "SELECT ARRAY[pg_sleep(1)], pg_sleep(1)",
    "SELECT (pg_sleep(1))::text",
    "SELECT string_agg(name, ',' ORDER BY pg_sleep(1)) FROM customers",
    "SELECT set_config('statement_timeout', '0', false)",
    "SELECT current_setting('data_directory')",
    "SELECT setseed(0.5)",
    "SELECT pg_terminate_backend(1)",
    "SELECT pg_notify('x', 'y')",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_switch_wal()",
    "SELECT pg_create_physical_replication_slot('x')",
    "SELECT nextval('s')",
    "SELECT setval('s', 1)",
    "SELECT txid_current()",
    "SELECT inet_server_addr()",
    "SELECT version()",
    "SELECT * FROM generate_series(1, 1000000000)",
    "SELECT generate_series(1, 1000000000)",
    "SELECT my_function(1)",
    "SELECT evil.lower('x')",
    "SELECT 'pg_authid'::regclass",
    "SELECT CAST('secrets' AS regclass)",
    "SELECT 'x'::public.my_type",
    "SELECT regclass 'secrets'",
    "SELECT 1 OPERATOR(public.+) 2",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM pg_stat_activity",
    "SELECT * FROM \"pg_shadow\"",
    "SELECT * FROM secrets",
    "SELECT * FROM other.customers",
    "SELECT * FROM other_database.public.customers",
    "SELECT * FROM customers WHERE id IN (SELECT id FROM secrets)",
    "SELECT (SELECT x FROM secrets)",
    "WITH a AS (SELECT * FROM secrets) SELECT * FROM a",
    "WITH secrets AS (SELECT * FROM secrets) SELECT * FROM secrets",
    "SELECT * FROM (WITH secrets AS (SELECT 1) SELECT * FROM secrets) x, secrets",
    "WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a",
    "SELECT 1 UNION SELECT x FROM secrets",
    "SELECT * FROM customers WHERE EXISTS (SELECT 1 FROM secrets)",
    "SELECT * FROM ONLY (secrets)",
    "SELECT * FROM ONLY secrets",
    "SELECT x FROM customers CROSS JOIN ONLY hidden",
    "SELECT x FROM customers, LATERAL ONLY secrets",
    "TABLE secrets",
    "TABLE customers",
    "SELECT * FROM customers TABLESAMPLE system (10)",
    "SELECT * FROM ROWS FROM (pg_ls_dir('/')) AS x",
    "SELECT * FROM xmltable('/' PASSING '<a/>' COLUMNS a text)",
    "SELECT * FROM json_table('[]', '$[*]' COLUMNS (a int PATH '$.a')) x",
    "SELECT * FROM unnest(ARRAY[1])",
    "SELECT $$text$$",
    "SELECT E'\\x27'",
    "SELECT X'00'",
    "SELECT $0",
    "SELECT :name",
    "SELECT @@version",
    "SELECT 1\0; DROP TABLE customers",
    "SELECT {fn lower('x')}",
    "SELECT 'unterminated",
    "SELECT \"\"",
    "SELECT (ROW(1, 2)).f1",
    "SELECT * EXCLUDE (id) FROM customers",
    "FROM customers SELECT *",
    "SELECT /*+ hint */ 1 FROM secrets",
    // SQLite.
    "ATTACH DATABASE '/other/tenant.db' AS other",
    "DETACH DATABASE main",
    "VACUUM INTO '/tmp/x'",
    "SELECT load_extension('x')",
    "PRAGMA writable_schema = ON",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA temp_store_directory = '/tmp'",
    "PRAGMA query_only = 0",
    "PRAGMA table_info(customers)",
    "SELECT * FROM pragma_table_info('customers')",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM sqlite_schema",
    "SELECT * FROM temp.sqlite_schema",
    "SELECT * FROM sqlite_dbpage",
    "SELECT fts3_tokenizer('simple')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('/tmp/x', 'y')",
    "SELECT randomblob(1000000000)",
    "SELECT zeroblob(1000000000)",
    "SELECT sqlite_version()",
    "SELECT last_insert_rowid()",
    "SELECT * FROM customers WHERE name MATCH 'x'",
    "SELECT * FROM 'secrets'",
    "REINDEX",
    "ANALYZE",
    ".dump",
];

#[test]
fn hostile_statements_are_refused_on_both_engines() {
    let mut accepted = Vec::new();
    for dialect in [Dialect::Postgres, Dialect::Sqlite] {
        let ran = HOSTILE.iter().filter_map(|sql| verdict(sql, dialect).ok());
        accepted.extend(ran.map(|guarded| (dialect, guarded.sql().to_owned())));
    }
    // In SQLite these are names of columns.
    for word in ["U&'x'", "current_user", "user", "session_user", "CURRENT_ROLE", "system_user"] {
        let ran = verdict(&format!("SELECT {word} FROM customers"), Dialect::Postgres).ok();
        accepted.extend(ran.map(|guarded| (Dialect::Postgres, guarded.sql().to_owned())));
    }
    assert_eq!(accepted, []);
}

#[test]
fn a_keyword_of_the_server_is_not_taken_for_a_name() {
    let open = Access::default();
    let runs = |sql: &str| check(sql, Dialect::Postgres, &Resource::Database, &open, "public").ok();
    for word in quote::RESERVED {
        for (sql, read) in [
            (format!("SELECT 1 FROM {word} hidden"), "hidden"),
            (format!("SELECT 1 FROM customers CROSS JOIN {word} hidden"), "hidden"),
            (format!("SELECT 1 FROM customers, {word} hidden"), "hidden"),
            (format!("SELECT 1 FROM {word}"), "?"),
            (format!("SELECT 1 FROM customers AS {word}"), "?"),
            (format!("SELECT 1 FROM (SELECT 1) AS {word}"), "?"),
            (format!("SELECT 1 FROM public.customers AS c ({word})"), "?"),
            (format!("WITH {word} AS (SELECT 1) SELECT 1 FROM customers"), "?"),
            (format!("WITH \"{word}\" AS (SELECT 1) SELECT 1 FROM {word} hidden"), "hidden"),
        ] {
            // Where the parser knows the keyword it reads what the server does.
            if let Some(guarded) = runs(&sql) {
                let found: Vec<&str> = guarded.relations().map(|found| &*found.name).collect();
                assert!(found.contains(&read), "{sql} became {}", guarded.sql());
            }
            assert!(runs(&sql.replace("hidden", "pg_shadow")).is_none_or(|_| read == "?"), "{sql}");
        }
        let quoted =
            format!("WITH \"{word}\" AS (SELECT 1) SELECT 1 FROM \"{word}\" AS \"{word}\"");
        assert!(runs(&quoted).is_some(), "{quoted}");
    }
    assert!(runs("SELECT query FROM ONLY pg_stat_activity").is_none());
    for sql in [
        "WITH \"only\" AS (SELECT 1) SELECT usename, passwd FROM only pg_shadow",
        "WITH only AS (SELECT 1) SELECT usename, passwd FROM only pg_shadow",
    ] {
        assert_eq!(verdict(sql, Dialect::Postgres).unwrap_err().rule(), "identifier");
    }
    let users = access(&["secret"]);
    let denied = check(
        "SELECT secret FROM ONLY users",
        Dialect::Postgres,
        &Resource::Database,
        &users,
        "public",
    );
    assert!(denied.is_err());
}

#[test]
fn names_run_in_quotes_as_they_were_checked() {
    let runs = |sql, dialect| verdict(sql, dialect).map(|guarded| guarded.sql().to_owned());
    let sql = "WITH Big AS (SELECT Id, 'It' FROM PUBLIC.Customers c WHERE c.Name = $1) \
               SELECT upper(B.id) AS End, b.* FROM big B ORDER BY 1";
    let expected = "WITH \"big\" AS (SELECT \"id\", 'It' FROM \"public\".\"customers\" \"c\" \
                    WHERE \"c\".\"name\" = $1) SELECT upper(\"b\".\"id\") AS \"end\", \"b\".* \
                    FROM \"big\" \"b\" ORDER BY 1";
    assert_eq!(runs(sql, Dialect::Postgres), Ok(expected.to_owned()));
    // A column in an expression names the column of the answer.
    let sql = "SELECT upper(c.Name), [id] AS Id FROM `Customers` c";
    let expected = "SELECT upper(c.Name), [id] AS \"Id\" FROM \"Customers\" \"c\"";
    assert_eq!(runs(sql, Dialect::Sqlite), Ok(expected.to_owned()));
}

#[test]
fn what_the_parser_reads_twice_is_not_nested() {
    for dialect in [Dialect::Postgres, Dialect::Sqlite] {
        for depth in 3..=MAX_BRACKETS {
            for start in ["POSITION(", "position /* */ (", "\nPosition\t("] {
                let sql = format!("SELECT {}1{}", start.repeat(depth), ")".repeat(depth));
                assert_eq!(verdict(&sql, dialect).unwrap_err().rule(), "size", "{sql}");
                let sql =
                    format!("SELECT {}1{}", format!("{start}(").repeat(depth), "))".repeat(depth));
                assert_eq!(verdict(&sql, dialect).unwrap_err().rule(), "size", "{sql}");
            }
        }
    }
    let beside = format!("SELECT 1{}", " + position('a' IN 'b')".repeat(300));
    assert!(verdict(&beside, Dialect::Postgres).is_ok());
    let deep = |depth| format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(verdict(&deep(MAX_BRACKETS), Dialect::Postgres).is_ok());
    assert_eq!(verdict(&deep(MAX_BRACKETS + 1), Dialect::Postgres).unwrap_err().rule(), "size");
}

#[test]
fn names_are_folded_as_each_engine_does() {
    let allowed = |sql, dialect| verdict(sql, dialect).is_ok();
    assert!(allowed("SELECT * FROM Customers", Dialect::Postgres));
    assert!(!allowed("SELECT * FROM \"Customers\"", Dialect::Postgres));
    assert!(allowed("SELECT * FROM \"Customers\"", Dialect::Sqlite));
    assert!(!allowed("SELECT \"LOWER\"('x')", Dialect::Postgres));
    let cut = format!("SELECT 1 AS \"{}\"", "a".repeat(64));
    assert!(!allowed(&cut, Dialect::Postgres));
    assert!(allowed("SELECT \"user\" FROM customers", Dialect::Postgres));
}

#[test]
fn a_uri_of_one_table_reads_that_table_and_no_other() {
    let under = |resource: &Resource, sql: &str| {
        check(sql, Dialect::Postgres, resource, &access(&[]), "public").map_err(|r| r.rule())
    };
    let customers = Resource::Table(named("customers"));
    assert!(under(&customers, "SELECT * FROM customers").is_ok());
    assert!(under(&customers, "SELECT 1").is_ok());
    assert_eq!(under(&customers, "SELECT * FROM orders").unwrap_err(), "relation");
    assert_eq!(under(&customers, "SELECT * FROM customers, orders").unwrap_err(), "relation");
    let secrets = Resource::Table(named("secrets"));
    assert_eq!(under(&secrets, "SELECT * FROM secrets").unwrap_err(), "relation");
    let api = Resource::Api { provider: "openai".to_owned() };
    assert_eq!(under(&api, "SELECT * FROM customers").unwrap_err(), "relation");
}

#[test]
fn without_a_list_the_default_schema_is_open_and_no_other() {
    let open = Access::default();
    let allowed = |sql| check(sql, Dialect::Postgres, &Resource::Database, &open, "sales").is_ok();
    assert!(allowed("SELECT * FROM anything"));
    assert!(allowed("SELECT * FROM sales.anything"));
    assert!(!allowed("SELECT * FROM public.anything"));
    assert!(!allowed("SELECT * FROM pg_class"));
}

#[test]
fn a_denied_column_is_out_of_reach_by_any_way() {
    let rule = |sql: &str| {
        check(sql, Dialect::Postgres, &Resource::Database, &access(&["secret"]), "public")
            .map(|guarded| guarded.column_claims().len())
            .map_err(|refusal| refusal.rule())
    };
    for sql in [
        "SELECT secret FROM users",
        "SELECT users.secret FROM users",
        "SELECT SECRET FROM users",
        "SELECT \"secret\" FROM users",
        "SELECT id FROM users WHERE secret = 'x'",
        "SELECT id FROM users ORDER BY secret",
        "SELECT id FROM users JOIN orders USING (secret)",
        "SELECT * FROM users",
        "SELECT u.* FROM users u",
        "SELECT count(u.*) FROM users u",
        "SELECT u FROM users u",
        "SELECT users FROM users",
        "SELECT public.users FROM public.users",
        "SELECT row_to_json(u) FROM users u",
        "SELECT u::text FROM users u",
        "SELECT id FROM users NATURAL JOIN orders",
        "SELECT b FROM users AS u (a, b)",
        "SELECT j.id FROM (users JOIN orders ON true) AS j",
        "SELECT x FROM (SELECT * FROM users) AS x",
        "SELECT * FROM orders WHERE id IN (SELECT id FROM users)",
        "WITH u AS (SELECT * FROM users) SELECT id FROM u",
    ] {
        assert_eq!(rule(sql), Err("column"), "{sql}");
    }
    assert_eq!(rule("SELECT id, name FROM users"), Ok(0));
    assert_eq!(rule("SELECT count(*) FROM users"), Ok(0));
    assert_eq!(rule("SELECT * FROM customers"), Ok(0));
    // That `id` and `row_to_json` are columns is for the session to find out.
    assert_eq!(rule("SELECT u.id, u.row_to_json FROM users u"), Ok(2));
}

#[test]
fn deep_and_long_statements_are_refused_without_exhausting_the_stack() {
    let chains = [
        format!("SELECT 1{}", " + 1".repeat(20_000)),
        format!("SELECT 1{}", " + 1".repeat(2_000)),
        format!("SELECT 1{}", " IS NULL".repeat(1_900)),
        format!("SELECT 1{}", "::text".repeat(1_900)),
        format!("SELECT a{}", "[1]".repeat(1_300)),
        format!("SELECT 1{}", " UNION SELECT 1".repeat(1_300)),
        format!("SELECT a{} FROM t", " COLLATE \"C\"".repeat(1_300)),
        format!("SELECT {}1", "NOT ".repeat(4_000)),
        format!("SELECT {}1", "-".repeat(4_000)),
        format!("SELECT 1{}", "!".repeat(4_000)),
        format!("SELECT 1{}", " AT TIME ZONE 'UTC'".repeat(900)),
        format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("SELECT {}1{}", "(".repeat(20), ")".repeat(20)),
        format!("SELECT * FROM {}customers{}", "(".repeat(19), ")".repeat(19)),
        format!("SELECT {}1{}", "ARRAY(SELECT ".repeat(19), ")".repeat(19)),
        format!("SELECT {}1{}", "CAST(".repeat(19), " AS int)".repeat(19)),
        format!("SELECT {}1 {}", "CASE WHEN ".repeat(49), "THEN 1 END ".repeat(49)),
        format!("SELECT {} 1", "CASE ".repeat(49)),
        format!("SELECT {} '1'", "INTERVAL ".repeat(49)),
        format!("SELECT {} x", "EXISTS(".repeat(19)),
        format!("SELECT {}1{}", "TRIM(".repeat(20), ")".repeat(20)),
        format!("SELECT {}1{}", "SUBSTRING(".repeat(20), ")".repeat(20)),
        format!("SELECT {}1{}", "EXTRACT(DAY FROM ".repeat(20), ")".repeat(20)),
        format!("SELECT {}1{}", "OVERLAY(".repeat(20), ")".repeat(20)),
        format!("SELECT {}1{}", "coalesce(a => ".repeat(20), ")".repeat(20)),
        format!("SELECT {}1{}", "ARRAY[".repeat(20), "]".repeat(20)),
        format!("SELECT {}1{}", "1 IN (".repeat(20), ")".repeat(20)),
        format!("SELECT {}1{}", "1 = ANY(".repeat(20), ")".repeat(20)),
        format!("SELECT {}1{}", "CEIL(".repeat(20), ")".repeat(20)),
        format!("SELECT {}1{}", "sum(1) OVER (ORDER BY ".repeat(20), ")".repeat(20)),
        format!("SELECT {}1{}", "DATE (".repeat(20), ")".repeat(20)),
        format!("SELECT {}1{}", "x(SELECT ".repeat(20), ")".repeat(20)),
        format!("SELECT {}1{}", "NOT (".repeat(20), ")".repeat(20)),
        format!("SELECT {}1{}", "INTERVAL (".repeat(20), ")".repeat(20)),
        format!("{}SELECT 1{}", "(".repeat(20), ")".repeat(20)),
        format!("{}SELECT 1{}", "WITH a AS (".repeat(20), ")".repeat(20)),
        format!("SELECT * FROM {}", "(SELECT * FROM ".repeat(19)),
        format!("SELECT * FROM {} a", "LATERAL (".repeat(19)),
        "x".repeat(70_000),
    ];
    for sql in chains {
        for dialect in [Dialect::Postgres, Dialect::Sqlite] {
            let sql = sql.clone();
            let started = tokio::time::Instant::now();
            // Half of what a worker thread of the runtime has.
            let thread = std::thread::Builder::new().stack_size(1 << 20);
            let shown: String = sql.chars().take(40).collect();
            thread.spawn(move || drop(verdict(&sql, dialect))).unwrap().join().unwrap();
            let took = started.elapsed();
            assert!(took.as_millis() < 2_000, "{shown} took {took:?}");
        }
    }
    let long = format!("SELECT 1{}", " + 1".repeat(499));
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let accepted = thread.spawn(move || verdict(&long, Dialect::Postgres).is_ok());
    assert!(accepted.unwrap().join().unwrap());
}

#[test]
fn a_refusal_shows_names_escaped_and_bounded() {
    let sql = format!("SELECT * FROM \"{}\"", "a\u{202e}\u{1b}".repeat(15));
    let refusal = verdict(&sql, Dialect::Sqlite).unwrap_err();
    assert!(refusal.message().is_ascii(), "{}", refusal.message());
    let refusal = verdict(&format!("SELECT * FROM {}", "a".repeat(9_000)), Dialect::Sqlite);
    assert!(refusal.unwrap_err().message().len() < 300);
}

fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[a-z(),.*;'\"$?<>=+-]{1,3}",
        prop::sample::select(vec![
            "SELECT",
            "FROM",
            "WHERE",
            "customers",
            "orders",
            "secrets",
            "WITH",
            "AS",
            "(",
            ")",
            "UNION",
            "JOIN",
            "ON",
            "id",
            "count(*)",
            "1",
            "'x'",
            ",",
            "*",
            "lower",
            "CASE",
            "WHEN",
            "THEN",
            "END",
            "IN",
            "NOT",
            "INTO",
            "FOR UPDATE",
            "ORDER BY",
            "LIMIT",
            "E'x'",
            "U&'x'",
            "$1",
            "?",
            "||",
            "::",
            "text",
            "INTERVAL",
            "DISTINCT",
            "VALUES",
            ";",
            "--\n",
            "/*",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(word, 0..14).prop_map(|words| format!("SELECT {}", words.join(" ")))
}

proptest! {
    #[test]
    fn arbitrary_text_does_not_panic(text in "\\PC*") {
        drop(verdict(&text, Dialect::Postgres));
        drop(verdict(&text, Dialect::Sqlite));
    }

    #[test]
    fn what_is_accepted_is_accepted_again_as_itself(text in words()) {
        for dialect in [Dialect::Postgres, Dialect::Sqlite] {
            if let Ok(guarded) = verdict(&text, dialect) {
                let again = verdict(guarded.sql(), dialect);
                prop_assert_eq!(again, Ok(guarded));
            }
        }
    }

    #[test]
    fn what_is_accepted_only_reads(text in words()) {
        if let Ok(guarded) = verdict(&text, Dialect::Sqlite) {
            let connection = Connection::open_in_memory().unwrap();
            connection
                .execute_batch(
                    "CREATE TABLE customers (id, name); CREATE TABLE orders (id, customer_id, total);
                     CREATE TABLE users (id, secret); CREATE TABLE secrets (x)",
                )
                .unwrap();
            if let Ok(statement) = connection.prepare(guarded.sql()) {
                prop_assert!(statement.readonly(), "{}", guarded.sql());
            }
        }
    }
}
