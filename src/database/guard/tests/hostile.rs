use super::*;

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
    "SELECT 'x'::other.my_type",
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
    "SELECT * FROM ROWS FROM (pg_ls_dir('/')) AS x",
    "SELECT * FROM xmltable('/' PASSING '<a/>' COLUMNS a text)",
    "SELECT * FROM json_table('[]', '$[*]' COLUMNS (a regclass PATH '$.a')) x",
    "SELECT * FROM json_table((SELECT x FROM secrets), '$[*]' COLUMNS (a int PATH '$.a')) x",
    "SELECT X'0g'",
    "SELECT 0x1F",
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
    for word in ["current_user", "user", "session_user", "CURRENT_ROLE", "system_user"] {
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
