mod constructs;
mod hostile;
mod write;

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

#[test]
fn texts_in_other_spellings_become_plain_ones() {
    let written = |sql: &str| verdict(sql, Dialect::Postgres).map(|guarded| guarded.sql);
    for (text, plain) in [
        (r"E'a\nb\'c'", "'a\nb''c'"),
        (r"e'\\'", "'\\'"),
        (r"E'\047 OR 1=1'", "''' OR 1=1'"),
        ("$$it's$$", "'it''s'"),
        ("$a$ $$ $a$", "' $$ '"),
        (r"U&'d\0061t\+000061'", "'data'"),
    ] {
        assert_eq!(written(&format!("SELECT {text}")), Ok(format!("SELECT {plain}")), "{text}");
    }
    for text in [r"E'\000'", r"U&'\0000'", "E'a", "N'a'"] {
        assert!(written(&format!("SELECT {text}")).is_err(), "{text}");
    }
    // To the other engine the letters before the text are a name.
    assert!(verdict("SELECT E'a'", Dialect::Sqlite).is_err());
}

#[test]
fn a_series_that_is_written_out_has_a_bounded_length() {
    for (arguments, rule) in [
        ("1, 1000000", None),
        ("1, 1000001", Some("size")),
        ("1000001, 1", Some("size")),
        ("-600000, 600000", Some("size")),
        ("1, 10000000, 20", None),
        ("1, 100000000, 20", Some("size")),
        ("1, (1e9)", Some("size")),
        ("'1', '1000000000'::bigint", Some("size")),
        ("CAST(1 AS bigint), CAST(- 9999999 AS bigint), -1", Some("size")),
        ("1, $1", None),
    ] {
        for sql in [
            format!("SELECT * FROM generate_series({arguments}) AS n"),
            format!("SELECT generate_series({arguments})"),
            format!("SELECT 1 FROM orders, LATERAL pg_catalog.generate_series({arguments}) n"),
        ] {
            assert_eq!(verdict(&sql, Dialect::Postgres).err().map(|r| r.rule), rule, "{sql}");
        }
    }
}

#[test]
fn functions_in_from_are_checked_like_any_other() {
    let rule = |sql: &str, dialect| verdict(sql, dialect).err().map(|refusal| refusal.rule());
    for (sql, expected) in [
        ("SELECT * FROM unnest($1::int[]) WITH ORDINALITY AS u (a, b)", None),
        ("SELECT * FROM jsonb_to_recordset($1) AS r (a int, b text[])", None),
        ("SELECT * FROM customers c, LATERAL jsonb_each(c.data) e", None),
        ("SELECT (jsonb_each(data)).key FROM customers", None),
        ("SELECT * FROM \"pg_catalog\".\"unnest\"($1::int[])", None),
        ("SELECT * FROM pg_ls_dir('/')", Some("function")),
        ("SELECT * FROM customers, LATERAL pg_ls_dir(name)", Some("function")),
        ("SELECT * FROM \"pg_ls_dir\"('/') WITH ORDINALITY", Some("function")),
        ("SELECT * FROM public.unnest($1)", Some("function")),
        ("SELECT * FROM unnest(ARRAY[pg_sleep(1)])", Some("function")),
        ("SELECT * FROM unnest(ARRAY(SELECT x FROM secrets))", Some("relation")),
        ("SELECT * FROM generate_series(1, (SELECT x FROM secrets))", Some("relation")),
        ("SELECT * FROM json_to_record($1) AS r (a regclass)", Some("type")),
        ("SELECT * FROM json_to_record($1) AS r (a other.mine)", Some("type")),
        ("SELECT * FROM customers AS c (a int)", Some("clause")),
        ("SELECT (jsonb_each(data)).evil FROM customers", Some("clause")),
        ("SELECT (customers).key FROM customers", Some("clause")),
        ("WITH unnest AS (SELECT 1) SELECT * FROM unnest(ARRAY[pg_sleep(1)])", Some("function")),
    ] {
        assert_eq!(rule(sql, Dialect::Postgres), expected, "{sql}");
    }
    for (sql, expected) in [
        ("SELECT * FROM customers, json_each(customers.tags)", None),
        ("SELECT * FROM json_tree(?, '$.a') AS t", None),
        ("SELECT * FROM json_each", Some("relation")),
        ("SELECT * FROM generate_series(1, 2)", Some("function")),
        ("SELECT * FROM pragma_table_info('customers')", Some("function")),
        ("SELECT * FROM main.json_each('[]')", Some("function")),
        ("SELECT * FROM customers('x')", Some("function")),
        ("SELECT * FROM json_each((SELECT x FROM secrets))", Some("relation")),
    ] {
        assert_eq!(rule(sql, Dialect::Sqlite), expected, "{sql}");
    }
}

#[test]
fn an_operator_that_the_parser_takes_for_a_label_is_refused() {
    for dialect in [Dialect::Postgres, Dialect::Sqlite] {
        assert!(verdict("SELECT name ISNULL FROM customers", dialect).is_err());
        assert!(verdict("SELECT name IS NULL AS \"isnull\" FROM customers", dialect).is_ok());
        assert!(verdict("SELECT name NOTNULL FROM customers", dialect).is_ok());
    }
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
            .map(|guarded| guarded.uses().column_claims().len())
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
    let sqlite = |deny: &[&str]| {
        let matched = "SELECT id FROM users WHERE name MATCH 'secret : x'";
        check(matched, Dialect::Sqlite, &Resource::Database, &access(deny), "main")
            .map_err(|refusal| refusal.rule())
    };
    assert_eq!(sqlite(&["secret"]).unwrap_err(), "column");
    assert!(sqlite(&[]).is_ok());
    assert_eq!(rule("SELECT x.a FROM users, unnest(ARRAY[users.secret]) AS x (a)"), Err("column"));
    assert_eq!(rule("SELECT e.key FROM users u, jsonb_each(to_jsonb(u)) AS e"), Err("column"));
    assert_eq!(rule("SELECT x FROM users, unnest(ARRAY[id]) AS x"), Ok(0));
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
        format!("SELECT a{} FROM t", " GLOB b".repeat(2_000)),
        format!("SELECT a{} FROM t", " MATCH b".repeat(2_000)),
        format!("SELECT a{} FROM t", " NOT GLOB b".repeat(1_300)),
        format!("SELECT a{} FROM t", " IS NOT b".repeat(1_300)),
        format!("SELECT a{} FROM t", " << b".repeat(2_000)),
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
            let shown: String = sql.chars().take(40).collect();
            // Half of what a worker thread of the runtime has. An overflow shows its name.
            let thread = std::thread::Builder::new().name(shown.clone()).stack_size(1 << 20);
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
fn a_refusal_says_where_reading_ended_and_quotes_nothing() {
    for (sql, expected) in [
        ("SELECT id,\n  'canary' canary2 canary3 FROM customers", "line 2, column 20"),
        ("SELECT 'canary", "line 1, column 8"),
        ("SELECT id FROM customers ORDER BY", "one SELECT query"),
    ] {
        let refusal = verdict(sql, Dialect::Postgres).unwrap_err();
        assert_eq!(refusal.rule(), "syntax");
        assert!(refusal.message().ends_with(expected), "{sql}: {}", refusal.message());
        assert!(!refusal.message().contains("canary"), "{}", refusal.message());
    }
    for sql in ["EXPLAIN SELECT 1", "DO $$ $$", "PRAGMA x = y", "TABLE customers", "SELCT 1"] {
        assert_eq!(verdict(sql, Dialect::Postgres).unwrap_err().rule(), "statement-kind", "{sql}");
    }
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
