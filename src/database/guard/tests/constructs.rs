use super::*;

fn runs(sql: &str, dialect: Dialect) -> Result<String, String> {
    let accepted = verdict(sql, dialect).map(|guarded| guarded.sql().to_owned());
    accepted.map_err(|refusal| refusal.message().to_owned())
}

#[test]
fn what_the_parser_does_not_read_is_refused_with_what_to_write_instead() {
    for (sql, advice) in [
        (
            "SELECT sum(id) OVER (ORDER BY id ROWS 1 PRECEDING EXCLUDE TIES) FROM customers",
            "EXCLUDE in a window frame",
        ),
        (
            "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n FROM t) CYCLE n SET c USING p \
             SELECT n FROM t",
            "= ANY(path)",
        ),
        ("SELECT * FROM ROWS FROM (unnest(ARRAY[1]), unnest(ARRAY[2])) AS x", "WITH ORDINALITY"),
        ("SELECT id FROM customers WHERE id BETWEEN SYMMETRIC 3 AND 1", "least(a, b)"),
        ("SELECT concat(VARIADIC ARRAY['a'])", "one by one"),
        ("SELECT xmlelement(NAME a)", "jsonb_build_object"),
        ("SELECT xpath('/a', name) FROM customers", "jsonb_build_object"),
        ("SELECT (c).name FROM customers c", "table.column"),
        ("SELECT extract('year' FROM now())", "without quotes"),
    ] {
        let message = runs(sql, Dialect::Postgres).unwrap_err();
        assert!(message.contains(advice), "{sql}: {message}");
    }
    // The words alone are names like others.
    for sql in [
        "SELECT id AS exclude FROM customers",
        "SELECT 'SEARCH' AS \"cycle\", name AS variadic_name FROM customers",
        "SELECT search.id FROM customers AS search",
    ] {
        assert!(runs(sql, Dialect::Postgres).is_ok(), "{sql}: {:?}", runs(sql, Dialect::Postgres));
    }
}

#[test]
fn digits_of_sixteen_are_not_taken_for_a_number() {
    for dialect in [Dialect::Postgres, Dialect::Sqlite] {
        assert_eq!(runs("SELECT X'00fF'", dialect).unwrap(), "SELECT X'00fF'");
        assert_eq!(runs("SELECT x''", dialect).unwrap(), "SELECT X''");
        for sql in ["SELECT 0x1F", "SELECT 0x1FF", "SELECT -0x1F", "SELECT 0x1'F'"] {
            assert!(runs(sql, dialect).is_err(), "{sql}");
        }
    }
    assert!(runs("SELECT x'0'", Dialect::Sqlite).is_err());
    assert!(runs("SELECT x'0'", Dialect::Postgres).is_ok());
    assert!(runs("SELECT B'102'", Dialect::Postgres).is_err());
    assert!(runs("SELECT B'101'", Dialect::Postgres).is_ok());
}

#[test]
fn a_hint_is_left_out_on_sqlite_and_kept_on_postgres() {
    let kept = "WITH a AS MATERIALIZED (SELECT 1) SELECT * FROM a";
    let dropped = runs(kept, Dialect::Sqlite).unwrap();
    assert!(!dropped.contains("MATERIALIZED"), "{dropped}");
    assert!(runs(kept, Dialect::Postgres).unwrap().contains("MATERIALIZED"));
    let not_kept = "WITH a AS /* x */ NOT MATERIALIZED (SELECT 1) SELECT id AS materialized FROM a";
    let dropped = runs(not_kept, Dialect::Sqlite).unwrap();
    assert!(dropped.contains("materialized") && !dropped.contains("NOT"), "{dropped}");
    let secret = "WITH a AS NOT MATERIALIZED (SELECT * FROM secrets) SELECT * FROM a";
    assert!(runs(secret, Dialect::Sqlite).is_err());
}

#[test]
fn a_type_that_may_be_the_tenants_own_is_left_to_the_session() {
    let own = |sql: &str| {
        let guarded = verdict(sql, Dialect::Postgres).ok()?;
        Some(guarded.uses().own_types().iter().cloned().collect::<Vec<_>>())
    };
    for (sql, types) in [
        ("SELECT 'a'::status", vec!["status"]),
        ("SELECT 'a'::public.Status, '{}'::kind[]", vec!["kind", "status"]),
        ("SELECT CAST('a' AS \"Status\")", vec!["Status"]),
        ("SELECT 'a'::region, 1::int, 'b'::pg_catalog.text", vec!["region"]),
    ] {
        assert_eq!(own(sql), Some(types.into_iter().map(str::to_owned).collect()), "{sql}");
    }
    for sql in [
        "SELECT 'a'::other.status",
        "SELECT 'a'::regclass",
        "SELECT 'a'::public.regclass",
        "SELECT 'a'::pg_lsn",
        "SELECT 'a'::status(1)",
        "SELECT 'a'::_status",
        "SELECT 'a'::xml",
    ] {
        assert_eq!(own(sql), None, "{sql}");
    }
    assert!(runs("SELECT CAST('a' AS status)", Dialect::Sqlite).is_err());
}

#[test]
fn a_table_of_json_is_checked_like_any_other_expression() {
    let table = |source: &str, column: &str| {
        runs(
            &format!("SELECT * FROM JSON_TABLE({source}, '$[*]' COLUMNS ({column})) AS t"),
            Dialect::Postgres,
        )
    };
    assert!(table("'[]'::jsonb", "a int PATH '$'").is_ok());
    assert!(table("'[]'", "n FOR ORDINALITY, NESTED PATH '$' COLUMNS (a text PATH '$')").is_ok());
    assert!(table("(SELECT x FROM secrets)", "a int PATH '$'").is_err());
    assert!(table("pg_read_file('x')", "a int PATH '$'").is_err());
    assert!(table("'[]'", "a regclass PATH '$'").is_err());
    assert!(table("'[]'", "NESTED PATH '$' COLUMNS (a regclass PATH '$')").is_err());
    let sqlite = "SELECT * FROM JSON_TABLE('[]', '$' COLUMNS (a int PATH '$')) AS t";
    assert!(runs(sqlite, Dialect::Sqlite).is_err());
}
