//! What there is to read: names, columns, keys, comments and figures, as they are now.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection as File;
use tempfile::TempDir;
use tenantry::audit::Log;
use tenantry::clock::{Clock, SystemClock};
use tenantry::database::{Database, ForeignKey, Relation, RelationKind};
use tenantry::quota::Limiter;
use tenantry::server::{TenantContext, create_tenant_scoped_server};
use tenantry::tenant::{Access, Connection, Credentials, PostgresTarget, RelationName};

use super::postgres::{driver, password, target, told};
use super::{all, connect, denied, reads, relation};

/// A schema of its own for one test, made anew by `script`, and a session of `user`'s in it.
async fn in_schema(schema: &str, script: &str, access: &Access) -> Box<dyn Database> {
    let script = format!(
        "DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema};
         SET search_path TO {schema}; {script}"
    );
    driver().await.batch_execute(&script).await.unwrap();
    let target = PostgresTarget { schema: schema.to_owned(), ..target() };
    let credentials = password(&told("TENANTRY_TEST_PG_PASSWORD"));
    let connection = Connection::Postgres(target);
    connect(connection, access.clone(), &credentials, Path::new("/nowhere")).await.unwrap()
}

/// A file made by `script`, and a session with it.
async fn in_file(script: &str, access: &Access) -> (TempDir, Box<dyn Database>) {
    let root = super::sqlite::shop();
    let file = File::open(root.path().join("own.db")).unwrap();
    file.execute_batch(script).unwrap();
    let connection = Connection::Sqlite { path: "own.db".to_owned() };
    let session = connect(connection, access.clone(), &Credentials::default(), root.path()).await;
    (root, session.unwrap())
}

fn names(relations: &[Relation]) -> Vec<&str> {
    relations.iter().map(|relation| relation.name.name.as_str()).collect()
}

async fn listed(session: &mut dyn Database, access: &Access) -> Vec<String> {
    let catalogue = session.catalogue(access).await.unwrap();
    catalogue.relations().iter().map(|listed| listed.name.to_string()).collect()
}

fn named<'a>(relations: &'a [Relation], name: &str) -> &'a Relation {
    relations.iter().find(|relation| relation.name.to_string() == name).unwrap()
}

#[tokio::test]
async fn columns_keys_comments_and_figures_are_described_on_postgres() {
    let script = "CREATE TABLE customers (
           id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email varchar(40) NOT NULL UNIQUE,
           region text, code text DEFAULT 'x', area numeric(8,2),
           whole text GENERATED ALWAYS AS (region || code) STORED, UNIQUE (region, code));
         CREATE UNIQUE INDEX by_area ON customers (area, id) INCLUDE (code);
         CREATE UNIQUE INDEX by_part ON customers (code) WHERE region = 'eu';
         CREATE UNIQUE INDEX by_text ON customers (lower(email));
         COMMENT ON TABLE customers IS 'Who buys';
         COMMENT ON COLUMN customers.area IS 'In square metres';
         INSERT INTO customers (email, area) SELECT 'e' || n, n FROM generate_series(1, 500) n;
         ANALYZE customers;
         CREATE TABLE orders (id int, region text, code text, customer int REFERENCES customers,
           FOREIGN KEY (region, code) REFERENCES customers (region, code));
         CREATE VIEW totals AS SELECT count(*) AS n FROM orders;
         CREATE MATERIALIZED VIEW kept AS SELECT 1 AS one;
         CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
         CREATE TABLE uses (part int REFERENCES parts);
         CREATE TABLE nothing ();";
    let access = Access::default();
    let mut session = in_schema("cat_described", script, &access).await;
    let found = all(&mut *session, &access).await;
    let expected = ["customers", "kept", "nothing", "orders", "parts", "parts_1", "totals", "uses"];
    assert_eq!(names(&found), expected);

    let customers = named(&found, "customers");
    assert_eq!(customers.description.as_deref(), Some("Who buys"));
    assert_eq!(customers.estimated_rows, Some(500));
    assert_eq!(customers.primary_key, ["id"]);
    // In the order of their names, those of constraints included.
    let unique = [vec!["area", "id"], vec!["email"], vec!["region", "code"]];
    assert_eq!(customers.unique_keys, unique);
    let columns: Vec<_> = customers
        .columns
        .iter()
        .map(|it| (it.name.as_str(), it.type_name.as_str(), it.nullable, it.has_default))
        .collect();
    let expected = [
        ("id", "integer", false, true),
        ("email", "character varying(40)", false, false),
        ("region", "text", true, false),
        ("code", "text", true, true),
        ("area", "numeric(8,2)", true, false),
        ("whole", "text", true, true),
    ];
    assert_eq!(columns, expected);
    assert_eq!(customers.columns[4].description.as_deref(), Some("In square metres"));

    let orders = named(&found, "orders");
    let by_one = key(&["customer"], "customers", &["id"]);
    let by_two = key(&["region", "code"], "customers", &["region", "code"]);
    assert_eq!(shown(&orders.foreign_keys), [by_one, by_two]);
    assert_eq!(orders.estimated_rows, None, "nobody has counted");
    assert_eq!(named(&found, "totals").kind, RelationKind::View);
    assert_eq!(named(&found, "kept").kind, RelationKind::View);
    assert_eq!(named(&found, "nothing").columns.len(), 0);
    // A reference to a partitioned table is one, not one for each partition.
    assert_eq!(shown(&named(&found, "uses").foreign_keys), [key(&["part"], "parts", &["id"])]);
}

/// A foreign key as [`shown`] gives it.
fn key(columns: &[&str], to: &str, referenced: &[&str]) -> String {
    format!("{columns:?} {to} {referenced:?}")
}

fn shown(keys: &[ForeignKey]) -> Vec<String> {
    let one = |it: &ForeignKey| format!("{:?} {} {:?}", it.columns, it.relation, it.referenced);
    keys.iter().map(one).collect()
}

#[tokio::test]
async fn columns_keys_and_figures_are_described_on_sqlite() {
    let script = "CREATE TABLE customers (
           id INTEGER PRIMARY KEY, email VARCHAR(40) NOT NULL UNIQUE, region, code TEXT DEFAULT 'x',
           whole TEXT AS (region || code), UNIQUE (region, code));
         CREATE UNIQUE INDEX by_part ON customers (code) WHERE region = 'eu';
         CREATE UNIQUE INDEX by_text ON customers (lower(email));
         CREATE TABLE Lines (part TEXT, number INT, customer INT REFERENCES CUSTOMERS,
           PRIMARY KEY (number, part), FOREIGN KEY (part) REFERENCES customers (email),
           FOREIGN KEY (number) REFERENCES gone) WITHOUT ROWID;
         CREATE VIEW totals AS SELECT count(*) AS n FROM lines;
         CREATE VIEW broken AS SELECT x FROM gone;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO customers (email) SELECT 'e' || i FROM n;
         ANALYZE;";
    let access = Access::default();
    let (_root, mut session) = in_file(script, &access).await;
    let found = all(&mut *session, &access).await;
    assert_eq!(names(&found), ["Lines", "customers", "totals"], "and what is broken is left out");
    let customers = named(&found, "customers");
    assert_eq!(customers.primary_key, ["id"]);
    assert_eq!(customers.unique_keys, [vec!["email"], vec!["region", "code"]]);
    assert_eq!(customers.estimated_rows, Some(300));
    let columns: Vec<_> = customers
        .columns
        .iter()
        .map(|it| (it.name.as_str(), it.type_name.as_str(), it.nullable, it.has_default))
        .collect();
    let expected = [
        ("id", "integer", false, true),
        ("email", "varchar(40)", false, false),
        ("region", "", true, false),
        ("code", "text", true, true),
        ("whole", "text", true, true),
    ];
    assert_eq!(columns, expected);
    let lines = named(&found, "Lines");
    assert_eq!(lines.primary_key, ["number", "part"]);
    let keys = shown(&lines.foreign_keys);
    let expected =
        [key(&["part"], "customers", &["email"]), key(&["customer"], "customers", &["id"])];
    assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), expected.into_iter().collect());
    assert_eq!(named(&found, "totals").estimated_rows, None);
    // By another spelling it is the same table, as the engine has it.
    let other = session.describe(&access, &[relation("LINES"), relation("lines")]).await.unwrap();
    assert_eq!(names(&other), ["Lines"]);
}

const SECRETS: &str = "CREATE TABLE people (id int PRIMARY KEY, hidden1 text UNIQUE, born text,
       UNIQUE (born, hidden1));
     CREATE TABLE outside (id int PRIMARY KEY);
     CREATE TABLE cards (number int PRIMARY KEY, hidden2 text REFERENCES people (hidden1),
       holder int REFERENCES people, born text REFERENCES people (hidden1),
       other int REFERENCES outside);";

fn check_secrets(found: &[Relation]) {
    let text = format!("{found:?}");
    assert!(!text.contains("hidden") && !text.contains("outside"), "{text}");
    assert_eq!(names(found), ["cards", "people"]);
    assert_eq!(shown(&named(found, "cards").foreign_keys), [key(&["holder"], "people", &["id"])]);
    assert_eq!(named(found, "people").primary_key, ["id"]);
    assert_eq!(named(found, "people").columns.len(), 2);
}

#[tokio::test]
async fn denied_columns_and_relations_are_in_nothing_that_is_described() {
    let access = Access {
        deny_columns: vec![denied("people", "hidden1"), denied("cards", "hidden2")],
        ..reads(&["people", "cards"])
    };
    let mut session = in_schema("cat_secrets", SECRETS, &access).await;
    check_secrets(&all(&mut *session, &access).await);
    let asked = session.describe(&access, &[relation("outside"), relation("cards")]).await;
    assert_eq!(names(&asked.unwrap()), ["cards"]);

    let (_root, mut session) = in_file(SECRETS, &access).await;
    check_secrets(&all(&mut *session, &access).await);
    let asked = session.describe(&access, &[relation("outside"), relation("cards")]).await;
    assert_eq!(names(&asked.unwrap()), ["cards"]);
}

#[tokio::test]
async fn what_the_role_may_not_read_is_not_described_and_a_grant_shows_it() {
    let script = format!(
        "DROP ROLE IF EXISTS cat_reader; CREATE ROLE cat_reader LOGIN PASSWORD '{0}';
         {SECRETS} CREATE TABLE shared (id int); INSERT INTO shared VALUES (1); ANALYZE shared;
         ALTER TABLE shared ENABLE ROW LEVEL SECURITY;
         GRANT USAGE ON SCHEMA cat_granted TO cat_reader;
         GRANT SELECT ON shared TO cat_reader;
         GRANT SELECT (id, born) ON people TO cat_reader;
         GRANT SELECT (number, holder, born, other) ON cards TO cat_reader;",
        told("TENANTRY_TEST_PG_PASSWORD")
    );
    let access = Access::default();
    let owner = driver().await;
    owner
        .batch_execute(
            "DROP SCHEMA IF EXISTS cat_granted CASCADE; DO $$ BEGIN
             IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'cat_reader')
             THEN DROP OWNED BY cat_reader; END IF; END $$",
        )
        .await
        .unwrap();
    drop(in_schema("cat_granted", &script, &access).await);
    let target = PostgresTarget {
        schema: "cat_granted".to_owned(),
        user: "cat_reader".to_owned(),
        ..target()
    };
    let credentials = password(&told("TENANTRY_TEST_PG_PASSWORD"));
    let connection = Connection::Postgres(target);
    let mut session =
        connect(connection, access.clone(), &credentials, Path::new("/nowhere")).await.unwrap();
    let found = all(&mut *session, &access).await;
    assert_eq!(names(&found), ["cards", "people", "shared"]);
    check_secrets(&found[..2]);
    // The figure would count the rows of others.
    assert_eq!(found[2].estimated_rows, None);
    owner.batch_execute("GRANT SELECT (id) ON cat_granted.outside TO cat_reader").await.unwrap();
    let found = all(&mut *session, &access).await;
    assert_eq!(names(&found), ["cards", "outside", "people", "shared"]);
    assert_eq!(named(&found, "cards").foreign_keys.len(), 2, "and so is the way there");
    owner.batch_execute("REVOKE ALL ON cat_granted.people FROM cat_reader;").await.unwrap();
    owner
        .batch_execute("REVOKE SELECT (id, born) ON cat_granted.people FROM cat_reader;")
        .await
        .unwrap();
    assert_eq!(names(&all(&mut *session, &access).await), ["cards", "outside", "shared"]);
}

#[tokio::test]
async fn the_catalogue_is_kept_and_a_change_by_another_is_in_the_next() {
    let access = Access::default();
    let mut session = in_schema("cat_change", "CREATE TABLE one (id int)", &access).await;
    let first = session.catalogue(&access).await.unwrap();
    assert!(Arc::ptr_eq(&first, &session.catalogue(&access).await.unwrap()));
    let other = driver().await;
    for (ddl, expected) in [
        ("CREATE TABLE cat_change.two (id int)", vec!["one", "two"]),
        ("ALTER TABLE cat_change.two RENAME TO three", vec!["one", "three"]),
        ("DROP TABLE cat_change.one", vec!["three"]),
        ("CREATE VIEW cat_change.one AS SELECT 1 AS x", vec!["one", "three"]),
        ("DROP SCHEMA cat_change CASCADE", vec![]),
    ] {
        other.batch_execute(ddl).await.unwrap();
        assert_eq!(listed(&mut *session, &access).await, expected, "{ddl}");
    }

    let (root, mut session) = in_file("CREATE TABLE one (id int)", &access).await;
    let first = session.catalogue(&access).await.unwrap();
    assert!(Arc::ptr_eq(&first, &session.catalogue(&access).await.unwrap()));
    let other = File::open(root.path().join("own.db")).unwrap();
    for (ddl, expected) in [
        ("CREATE TABLE two (id int)", vec!["one", "two"]),
        ("ALTER TABLE two RENAME TO three", vec!["one", "three"]),
        ("DROP TABLE one", vec!["three"]),
        ("CREATE VIEW one AS SELECT 1 AS x", vec!["one", "three"]),
    ] {
        other.execute_batch(ddl).unwrap();
        assert_eq!(listed(&mut *session, &access).await, expected, "{ddl}");
    }
}

/// Names that statements, patterns and messages could trip over.
fn strange() -> Vec<String> {
    let long = "n".repeat(63);
    let names = ["a\"b", "it's", "100%", "a_b", "axb", "x; DROP TABLE y", "Order Details", "été"];
    let more = ["受注", "select", "\\", "{\"a\",b}", "a\nb", " ", "$1", "NULL", &long];
    names.into_iter().chain(more).map(str::to_owned).collect()
}

#[tokio::test]
async fn strange_names_are_described_as_they_are() {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let tables = strange().into_iter().map(|name| {
        format!(
            "CREATE TABLE {0} ({0} int PRIMARY KEY, {1} int UNIQUE);",
            quoted(&name),
            "\"y\"\"\""
        )
    });
    let script: String = tables.collect();
    let access = Access::default();
    let expected: BTreeSet<String> = strange().into_iter().collect();
    let check = |found: &[Relation]| {
        assert_eq!(found.iter().map(|it| it.name.name.clone()).collect::<BTreeSet<_>>(), expected);
        for relation in found {
            assert_eq!(relation.primary_key.join(" "), relation.name.name);
            assert_eq!(relation.unique_keys, [["y\""]]);
        }
    };
    let mut session = in_schema("cat_strange", &script, &access).await;
    check(&all(&mut *session, &access).await);
    let (_root, mut session) = in_file(&script, &access).await;
    check(&all(&mut *session, &access).await);
    // One that looks like another is not it.
    let only = reads(&["a_b"]);
    assert_eq!(names(&all(&mut *session, &only).await), ["a_b"]);
}

#[tokio::test]
async fn a_list_across_schemas_is_in_order_and_the_tenants_own_comes_without_a_schema() {
    let script = "DROP SCHEMA IF EXISTS cat_other CASCADE; CREATE SCHEMA cat_other;
         CREATE TABLE cat_other.a (id int PRIMARY KEY); CREATE TABLE cat_other.hidden (id int);
         CREATE TABLE b (id int REFERENCES cat_other.a); CREATE TABLE c (id int);";
    let other = |name: &str| RelationName {
        schema: Some(if name == "c" { "cat_lists" } else { "cat_other" }.to_owned()),
        name: name.to_owned(),
    };
    let tables = Some(vec![other("a"), other("c"), relation("b"), relation("c"), other("none")]);
    let access = Access { tables, ..Access::default() };
    let mut session = in_schema("cat_lists", script, &access).await;
    assert_eq!(listed(&mut *session, &access).await, ["b", "c", "cat_other.a"]);
    let found = all(&mut *session, &access).await;
    assert_eq!(shown(&named(&found, "b").foreign_keys), [key(&["id"], "cat_other.a", &["id"])]);
    let of_schema = Access::default();
    assert_eq!(listed(&mut *session, &of_schema).await, ["b", "c"]);
    let found = all(&mut *session, &of_schema).await;
    assert_eq!(named(&found, "b").foreign_keys, []);
}

/// Every page of all resources, through a tenant's server over `session`.
async fn listed_through(session: Box<dyn Database>, connection: Connection) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = Log::open(&directory.path().join("audit"), Arc::clone(&clock)).unwrap();
    let config = super::config(connection, Access::default());
    let meter = Limiter::new(clock).meter(&config.id, jiff::Timestamp::UNIX_EPOCH);
    let context = TenantContext::new(config, vec![], meter, log);
    let mut server = create_tenant_scoped_server(Arc::new(context), session);
    let found = server.list_tenant_resources(None).await.unwrap();
    found.into_iter().map(|resource| resource.uri).collect()
}

#[tokio::test]
async fn ten_thousand_tables_are_listed_each_once() {
    const TABLES: usize = 10_000;
    let expected: Vec<String> = std::iter::once("mcp://tenant001/database".to_owned())
        .chain((0..TABLES).map(|n| format!("mcp://tenant001/database/table/t{n:05}")))
        .collect();

    // As many as one transaction has locks for; and never dropped, for the same reason.
    let schema = format!("cat_many_{}", std::process::id());
    let session = in_schema(&schema, "", &Access::default()).await;
    let owner = driver().await;
    for begin in (0..TABLES).step_by(1_000) {
        let end = begin + 999;
        let script = format!(
            "DO $$ BEGIN FOR n IN {begin}..{end} LOOP EXECUTE format('CREATE TABLE {schema}.t%s \
             (id int)', lpad(n::text, 5, '0')); END LOOP; END $$"
        );
        owner.batch_execute(&script).await.unwrap();
    }
    let target = PostgresTarget { schema, ..target() };
    assert_eq!(listed_through(session, Connection::Postgres(target)).await, expected);

    // Made one by one they would take the engine time that grows with the square of their number;
    // these are all in the place of the first.
    let script = format!(
        "CREATE TABLE t00000 (id INTEGER PRIMARY KEY, x); PRAGMA writable_schema = ON;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {TABLES} - 1)
         INSERT INTO sqlite_schema SELECT 'table', printf('t%05d', i), printf('t%05d', i), rootpage,
           printf('CREATE TABLE t%05d (id INTEGER PRIMARY KEY, x)', i)
         FROM n, (SELECT rootpage FROM sqlite_schema WHERE name = 't00000');"
    );
    let (_root, session) = in_file(&script, &Access::default()).await;
    let connection = Connection::Sqlite { path: "own.db".to_owned() };
    assert_eq!(listed_through(session, connection).await, expected);
}
