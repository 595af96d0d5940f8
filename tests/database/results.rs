//! The forms of docs/results.md: every type of either engine, as JSON.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use tenantry::database::{Database, Error};
use tenantry::tenant::{Access, Connection, Limits, PostgresTarget};

use super::postgres::{driver, password, target, told};
use super::{connect, run, run_with};

/// Types, an expression of each, and its form. `None`: values of it cannot be written.
#[expect(clippy::too_many_lines, reason = "a table")]
fn forms() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("aclitem", "'postgres=r/postgres'::aclitem", json!("postgres=r/postgres")),
        ("bit", "B'101'", json!("101")),
        ("bool", "true", json!(true)),
        ("bool", "false", json!(false)),
        ("box", "'((1,1),(0,0))'::box", json!("(1,1),(0,0)")),
        ("bpchar", "'ab'::char(3)", json!("ab ")),
        ("bytea", "'\\x00ff'::bytea", json!("AP8=")),
        ("bytea", "''::bytea", json!("")),
        ("char", "'a'::\"char\"", json!("a")),
        ("cid", "'7'::cid", json!("7")),
        ("cidr", "'192.168.0.0/24'::cidr", json!("192.168.0.0/24")),
        ("circle", "'<(1,2),3>'::circle", json!("<(1,2),3>")),
        ("date", "'2024-02-29'::date", json!("2024-02-29")),
        ("date", "'0044-03-15 BC'::date", json!("0044-03-15 BC")),
        ("date", "'infinity'::date", json!("infinity")),
        ("date", "'5874897-12-31'::date", json!("5874897-12-31")),
        (
            "datemultirange",
            "'{[2024-01-01,2024-02-01)}'::datemultirange",
            json!("{[2024-01-01,2024-02-01)}"),
        ),
        ("daterange", "'[2024-01-01,2024-01-31]'::daterange", json!("[2024-01-01,2024-02-01)")),
        ("float4", "0.1::float4", json!(0.1)),
        ("float4", "'-Infinity'::float4", json!("-Infinity")),
        ("float8", "1.5::float8", json!(1.5)),
        ("float8", "0.1::float8 + 0.2::float8", json!(0.300_000_000_000_000_04)),
        ("float8", "1e300::float8", json!(1e300)),
        ("float8", "'NaN'::float8", json!("NaN")),
        ("float8", "'Infinity'::float8", json!("Infinity")),
        ("inet", "'127.0.0.1'::inet", json!("127.0.0.1")),
        ("inet", "'fe80::1/64'::inet", json!("fe80::1/64")),
        ("int2", "'-7'::int2", json!(-7)),
        ("int2vector", "'1 3'::int2vector", json!([1, 3])),
        ("int4", "2147483647", json!(2_147_483_647)),
        ("int4multirange", "'{[1,3),[5,7)}'::int4multirange", json!("{[1,3),[5,7)}")),
        ("int4range", "'[1,3]'::int4range", json!("[1,4)")),
        ("int4range", "'empty'::int4range", json!("empty")),
        ("int8", "9007199254740992", json!(9_007_199_254_740_992_i64)),
        ("int8", "9007199254740993", json!("9007199254740993")),
        ("int8", "-9223372036854775808", json!("-9223372036854775808")),
        ("int8multirange", "'{}'::int8multirange", json!("{}")),
        ("int8range", "'(,5)'::int8range", json!("(,5)")),
        ("interval", "INTERVAL '1 year 2 months -3 days 04:05:06.7'", json!("P1Y2M-3DT4H5M6.7S")),
        ("interval", "INTERVAL '-1 month 2 days -00:00:00.5'", json!("P-1M2DT-0.5S")),
        ("interval", "INTERVAL '100:00:00'", json!("PT100H")),
        ("interval", "INTERVAL '0'", json!("PT0S")),
        (
            "json",
            "'{\"a\": [1, null],\n \"b c\": 1e400}'::json",
            json!("{\"a\": [1, null],\n \"b c\": 1e400}"),
        ),
        ("json", "'{\"a\": [1, null], \"b\":\"x y\"}'::json", json!({"a": [1, null], "b": "x y"})),
        ("jsonb", "'{\"a\": 1.5}'::jsonb", json!({"a": 1.5})),
        ("jsonb", "'null'::jsonb", json!(null)),
        ("jsonpath", "'$.a[*]'::jsonpath", json!("$.\"a\"[*]")),
        ("line", "'{1,2,3}'::line", json!("{1,2,3}")),
        ("lseg", "'[(0,0),(1,1)]'::lseg", json!("[(0,0),(1,1)]")),
        ("macaddr", "'08:00:2b:01:02:03'::macaddr", json!("08:00:2b:01:02:03")),
        ("macaddr8", "'08:00:2b:01:02:03:04:05'::macaddr8", json!("08:00:2b:01:02:03:04:05")),
        ("money", "'12.34'::money", json!("$12.34")),
        ("name", "'text'::name", json!("text")),
        ("numeric", "0.00012340::numeric", json!("0.00012340")),
        ("numeric", "-12345678901234567890.5::numeric", json!("-12345678901234567890.5")),
        ("numeric", "'NaN'::numeric", json!("NaN")),
        ("nummultirange", "'{[1.5,2)}'::nummultirange", json!("{[1.5,2)}")),
        ("numrange", "'[1.5,2.50)'::numrange", json!("[1.5,2.50)")),
        ("oid", "4294967295::oid", json!(4_294_967_295_u32)),
        ("oidvector", "'1 2'::oidvector", json!([1, 2])),
        ("path", "'[(0,0),(1,1)]'::path", json!("[(0,0),(1,1)]")),
        ("pg_lsn", "'0/16B3748'::pg_lsn", json!("0/16B3748")),
        ("pg_snapshot", "'10:20:10,15'::pg_snapshot", json!("10:20:10,15")),
        ("point", "'(1.5,2)'::point", json!("(1.5,2)")),
        ("polygon", "'((0,0),(1,1))'::polygon", json!("((0,0),(1,1))")),
        ("refcursor", "'name'::refcursor", json!("name")),
        ("regclass", "'pg_class'::regclass", json!("pg_class")),
        ("regcollation", "'\"C\"'::regcollation", json!("\"C\"")),
        ("regconfig", "'english'::regconfig", json!("english")),
        ("regdictionary", "'simple'::regdictionary", json!("simple")),
        ("regnamespace", "'pg_catalog'::regnamespace", json!("pg_catalog")),
        ("regoper", "'^@'::regoper", json!("^@")),
        ("regoperator", "'=(integer,integer)'::regoperator", json!("=(integer,integer)")),
        ("regproc", "'now'::regproc", json!("now")),
        ("regprocedure", "'now()'::regprocedure", json!("now()")),
        (
            "regrole",
            "(SELECT oid::regrole FROM pg_roles WHERE rolname = 'postgres')",
            json!("postgres"),
        ),
        ("regtype", "'int4'::regtype", json!("integer")),
        ("text", "E'a\\n\"b\\\\'", json!("a\n\"b\\")),
        ("text", "NULL::text", json!(null)),
        ("tid", "'(1,2)'::tid", json!("(1,2)")),
        ("time", "'13:14:15.678'::time", json!("13:14:15.678")),
        ("time", "'24:00'::time", json!("24:00:00")),
        (
            "timestamp",
            "'2024-02-29 01:02:03.000004'::timestamp",
            json!("2024-02-29T01:02:03.000004"),
        ),
        ("timestamp", "'0044-03-15 01:02:03 BC'::timestamp", json!("0044-03-15T01:02:03 BC")),
        ("timestamp", "'infinity'::timestamp", json!("infinity")),
        ("timestamptz", "'2024-02-29 01:02:03+01'::timestamptz", json!("2024-02-29T00:02:03Z")),
        (
            "timestamptz",
            "'0044-03-15 01:02:03+00 BC'::timestamptz",
            json!("0044-03-15T01:02:03Z BC"),
        ),
        ("timestamptz", "'-infinity'::timestamptz", json!("-infinity")),
        ("timetz", "'13:14:15+02'::timetz", json!("13:14:15+02:00")),
        ("timetz", "'13:14:15-03:30'::timetz", json!("13:14:15-03:30")),
        (
            "tsmultirange",
            "'{[2024-01-01,2024-01-02)}'::tsmultirange",
            json!("{[\"2024-01-01 00:00:00\",\"2024-01-02 00:00:00\")}"),
        ),
        ("tsquery", "'a & b'::tsquery", json!("'a' & 'b'")),
        (
            "tsrange",
            "'[2024-01-01,2024-01-02)'::tsrange",
            json!("[\"2024-01-01 00:00:00\",\"2024-01-02 00:00:00\")"),
        ),
        ("tstzmultirange", "'{}'::tstzmultirange", json!("{}")),
        (
            "tstzrange",
            "'[2024-01-01 00:00+00,)'::tstzrange",
            json!("[\"2024-01-01 00:00:00+00\",)"),
        ),
        ("tsvector", "to_tsvector('english', 'The quick fox')", json!("'fox':3 'quick':2")),
        ("txid_snapshot", "'10:20:10,15'::txid_snapshot", json!("10:20:10,15")),
        (
            "uuid",
            "'6ECD8C99-4036-403D-BF84-CF8400F67836'::uuid",
            json!("6ecd8c99-4036-403d-bf84-cf8400f67836"),
        ),
        ("varbit", "B'1'::varbit", json!("1")),
        ("varchar", "'text'::varchar(9)", json!("text")),
        ("xid", "'7'::xid", json!("7")),
        ("xid8", "'7'::xid8", json!("7")),
        ("xml", "'<a>b</a>'::xml", json!("<a>b</a>")),
        // Arrays, and types that a server makes itself.
        ("_int4", "ARRAY[1, NULL, 3]", json!([1, null, 3])),
        ("_int4", "'{}'::int[]", json!([])),
        ("_int4", "'[2:3][0:1]={{1,2},{3,4}}'::int[]", json!([[1, 2], [3, 4]])),
        (
            "_text",
            "ARRAY[ARRAY['a,b', 'NULL'], ARRAY[NULL, 'c\"d\\{}']]",
            json!([["a,b", "NULL"], [null, "c\"d\\{}"]]),
        ),
        ("_text", "ARRAY['']", json!([""])),
        ("_numeric", "ARRAY[1.10]::numeric[]", json!(["1.10"])),
        (
            "_box",
            "ARRAY['((1,1),(0,0))'::box, '((3,3),(2,2))']",
            json!(["(1,1),(0,0)", "(3,3),(2,2)"]),
        ),
        ("_jsonb", "ARRAY['{\"a\": [1]}'::jsonb]", json!([{"a": [1]}])),
        ("_bytea", "ARRAY['\\x01'::bytea]", json!(["AQ=="])),
        (
            "_timestamptz",
            "ARRAY['2024-01-01 00:00+00'::timestamptz]",
            json!(["2024-01-01T00:00:00Z"]),
        ),
        ("_interval", "ARRAY['1 day'::interval]", json!(["P1D"])),
        ("colour", "'red'::forms.colour", json!("red")),
        ("_colour", "ARRAY['red', 'dark blue']::forms.colour[]", json!(["red", "dark blue"])),
        ("pair", "ROW(1, 'x')::forms.pair", json!("(1,x)")),
        ("_pair", "ARRAY[ROW(1, 'x')::forms.pair]", json!(["(1,x)"])),
        ("int4", "7::forms.small", json!(7)),
        ("_small", "ARRAY[7]::forms.small[]", json!([7])),
        ("_int4", "'{1,2}'::forms.list", json!([1, 2])),
        ("span", "'[1.5,2)'::forms.span", json!("[1.5,2)")),
    ]
}

/// Types of which no value can be had: there is none to read, or only in tables of statistics.
const WITHOUT_VALUES: [&str; 7] = [
    "gtsvector",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_ndistinct",
    "pg_node_tree",
];

async fn open_forms() -> Box<dyn Database> {
    let target = PostgresTarget { schema: "forms".to_owned(), ..target() };
    let credentials = password(&told("TENANTRY_TEST_PG_PASSWORD"));
    let connection = Connection::Postgres(target);
    connect(connection, Access::default(), &credentials, Path::new("/nowhere")).await.unwrap()
}

#[tokio::test]
async fn every_type_of_postgres_has_the_form_that_the_document_says() {
    let client = driver().await;
    let mut script = vec![
        "DROP SCHEMA IF EXISTS forms CASCADE; CREATE SCHEMA forms;
        CREATE TYPE forms.colour AS ENUM ('red', 'dark blue');
        CREATE TYPE forms.pair AS (a int, b text);
        CREATE DOMAIN forms.small AS int CHECK (VALUE < 100);
        CREATE DOMAIN forms.list AS int[];
        CREATE TYPE forms.span AS RANGE (subtype = numeric);"
            .to_owned(),
    ];
    let forms = forms();
    for (number, (_, sql, _)) in forms.iter().enumerate() {
        script.push(format!("CREATE VIEW forms.form_{number} AS SELECT {sql} AS v;"));
    }
    client.batch_execute(&script.concat()).await.unwrap();
    let mut session = open_forms().await;
    let mut wrong = Vec::new();
    // Twice: the second time the session knows the types.
    for round in 0..2 {
        for (number, (name, sql, expected)) in forms.iter().enumerate() {
            let select = format!("SELECT v, 1 AS v FROM form_{number}");
            let answer = run(&mut *session, &select).await.unwrap();
            let values = answer.rows.to_values();
            if values != [[expected.clone(), json!(1)]] || answer.columns[0].type_name != *name {
                let got = (&answer.columns[0].type_name, &values);
                wrong.push(format!("{round} {sql}: {got:?} is not {expected} of {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // No view has a column of it.
    let answer = run(&mut *session, "SELECT (1, 'a b', NULL) AS v").await.unwrap();
    assert_eq!(answer.rows, [[json!("(1,\"a b\",)")]]);
    assert_eq!(answer.columns[0].type_name, "record");

    let names = client
        .query(
            "SELECT typname::text FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace \
             AND typtype IN ('b', 'd', 'e', 'm', 'r') AND typcategory <> 'A'",
            &[],
        )
        .await
        .unwrap();
    let known: BTreeSet<&str> =
        forms.iter().map(|(name, ..)| *name).chain(WITHOUT_VALUES).collect();
    for row in names {
        let name: String = row.get(0);
        assert!(known.contains(name.as_str()), "{name} has no form in docs/results.md");
    }
}

#[tokio::test]
async fn rows_of_types_that_are_not_known_yet_are_held_within_the_limits() {
    let client = driver().await;
    client
        .batch_execute(
            "DROP SCHEMA IF EXISTS held CASCADE; CREATE SCHEMA held;
             CREATE TYPE held.word AS ENUM ('a', 'bc');
             CREATE VIEW held.words AS SELECT 'bc'::held.word AS w, repeat('x', 100) AS x
               FROM generate_series(1, 3000);
             CREATE VIEW held.wide AS SELECT 'bc'::held.word AS w, repeat('x', 50000000) AS x;",
        )
        .await
        .unwrap();
    for (max_rows, max_result_bytes, rows) in [(10, 1 << 20, 10), (1_000, 1_100, 10)] {
        let target = PostgresTarget { schema: "held".to_owned(), ..target() };
        let credentials = password(&told("TENANTRY_TEST_PG_PASSWORD"));
        let connection = Connection::Postgres(target);
        let opened = connect(connection, Access::default(), &credentials, Path::new("/nowhere"));
        let mut session = opened.await.unwrap();
        let limits = Limits { max_rows, max_result_bytes, ..Limits::default() };
        for round in ["held", "known"] {
            let sql = "SELECT w, x FROM words";
            let answer = run_with(&mut *session, sql, vec![], &limits).await.unwrap();
            assert_eq!((answer.rows.len(), answer.truncated), (rows, true), "{round}");
            assert_eq!(answer.rows.to_values()[9][0], json!("bc"));
        }
        let wide = run_with(&mut *session, "SELECT w, x FROM wide", vec![], &limits).await;
        assert_eq!(wide, Err(Error::TooLarge));
        assert!(!session.is_broken());
    }
}

#[tokio::test]
async fn every_storage_class_of_sqlite_has_the_form_that_the_document_says() {
    let root = super::sqlite::shop();
    let forms = [
        ("NULL", json!(null)),
        ("9007199254740992", json!(9_007_199_254_740_992_i64)),
        ("9007199254740993", json!("9007199254740993")),
        ("-9223372036854775807 - 1", json!("-9223372036854775808")),
        ("1.5", json!(1.5)),
        ("2.0", json!(2.0)),
        ("9e999", json!("Infinity")),
        ("-9e999", json!("-Infinity")),
        ("'a\"\\'", json!("a\"\\")),
        ("x'00ff'", json!("AP8=")),
        ("x''", json!("")),
        ("CAST(x'ff' AS TEXT)", json!("\u{fffd}")),
        ("json('{\"a\": [1]}')", json!("{\"a\":[1]}")),
        ("date('2024-02-29')", json!("2024-02-29")),
    ];
    let file = rusqlite::Connection::open(root.path().join("shop.db")).unwrap();
    for (number, (sql, _)) in forms.iter().enumerate() {
        let table = format!("CREATE TABLE form_{number} AS SELECT {sql} AS v");
        file.execute(&table, []).unwrap();
    }
    let mut session = super::sqlite::open(&root, "shop.db", Access::default()).await.unwrap();
    for (number, (sql, expected)) in forms.iter().enumerate() {
        let select = format!("SELECT v, 1 AS v FROM form_{number}");
        let answer = run(&mut *session, &select).await.unwrap();
        assert_eq!(answer.rows, [[expected.clone(), json!(1)]], "{sql}");
        assert_eq!(answer.columns[0].name, answer.columns[1].name);
    }
}
