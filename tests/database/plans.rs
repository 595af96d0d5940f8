//! How a statement would run: what is told of it, what is not, and that it does not run.

use std::path::Path;

use rusqlite::Connection as File;
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry::database::{Database, Error, PlanNode};
use tenantry::tenant::{Access, Connection, Credentials, Limits, PostgresTarget};

use super::postgres::{driver, password, target, told};
use super::{connect, denied, guarded, reads};

const SHOP: &str = "CREATE TABLE customers (id int PRIMARY KEY, region text, secret text);
     CREATE TABLE orders (id int PRIMARY KEY, customer int, total int);
     CREATE INDEX orders_of ON orders (customer);
     CREATE INDEX by_secret ON customers (secret);
     CREATE TABLE hidden (id int PRIMARY KEY, canary_column int);
     CREATE VIEW filtered AS SELECT id, region FROM customers WHERE secret <> 'canary-text';
     CREATE VIEW of_hidden AS SELECT id FROM hidden WHERE canary_column > 4711;";

async fn on_postgres(access: &Access, user: &str) -> Box<dyn Database> {
    let target = PostgresTarget {
        schema: "cat_plans".to_owned(),
        user: if user.is_empty() { target().user } else { user.to_owned() },
        ..target()
    };
    let credentials = password(&told("TENANTRY_TEST_PG_PASSWORD"));
    let connection = Connection::Postgres(target);
    connect(connection, access.clone(), &credentials, Path::new("/nowhere")).await.unwrap()
}

/// Made once; the tests only read.
async fn made() {
    static MADE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    MADE.get_or_init(|| async {
        let script = format!(
            "DROP SCHEMA IF EXISTS cat_plans CASCADE; CREATE SCHEMA cat_plans;
             DROP ROLE IF EXISTS cat_planner; CREATE ROLE cat_planner LOGIN PASSWORD '{}';
             SET search_path TO cat_plans; {SHOP}
             INSERT INTO customers SELECT n, 'r' || n % 7, 's' FROM generate_series(1, 5000) n;
             INSERT INTO orders SELECT n, n % 900, n FROM generate_series(1, 20000) n;
             CREATE SEQUENCE counted;
             CREATE VIEW counts AS SELECT nextval('cat_plans.counted') AS n, pg_sleep(60)::text AS x;
             CREATE TABLE guarded (id int, owner text);
             INSERT INTO guarded SELECT n, 'x' FROM generate_series(1, 77777) n;
             ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON guarded USING (owner <> 'canary-policy');
             CREATE TABLE parts (id int, x text) PARTITION BY RANGE (id);
             CREATE TABLE parts_canary PARTITION OF parts FOR VALUES FROM (0) TO (10);
             GRANT USAGE ON SCHEMA cat_plans TO cat_planner;
             GRANT SELECT ON ALL TABLES IN SCHEMA cat_plans TO cat_planner;
             ANALYZE customers; ANALYZE orders; ANALYZE guarded;",
            told("TENANTRY_TEST_PG_PASSWORD")
        );
        let owner = driver().await;
        let clean = "DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'cat_planner')
             THEN DROP OWNED BY cat_planner; END IF; END $$";
        owner.batch_execute(clean).await.unwrap();
        owner.batch_execute(&script).await.unwrap();
    })
    .await;
}

async fn on_sqlite(access: &Access) -> (TempDir, Box<dyn Database>) {
    let root = super::sqlite::shop();
    File::open(root.path().join("plans.db")).unwrap().execute_batch(SHOP).unwrap();
    let connection = Connection::Sqlite { path: "plans.db".to_owned() };
    let session = connect(connection, access.clone(), &Credentials::default(), root.path()).await;
    (root, session.unwrap())
}

async fn explain(
    session: &mut dyn Database,
    sql: &str,
    access: &Access,
    params: Vec<Value>,
) -> Result<PlanNode, Error> {
    let query = guarded(session, sql, access, params);
    session.explain(&query, &Limits::default()).await
}

/// All steps, whatever stands below what.
fn steps(plan: &PlanNode) -> Vec<&PlanNode> {
    std::iter::once(plan).chain(plan.children.iter().flat_map(steps)).collect()
}

fn step_of<'a>(plan: &'a PlanNode, relation: &str) -> &'a PlanNode {
    let of = |step: &&PlanNode| step.relation.as_deref() == Some(relation);
    steps(plan).into_iter().find(of).unwrap_or_else(|| panic!("{relation} in {plan:?}"))
}

const JOIN: &str = "SELECT c.region, o.total FROM customers c JOIN orders o ON o.customer = c.id";

#[tokio::test]
async fn a_plan_tells_of_what_the_statement_names() {
    made().await;
    let access = Access::default();
    let mut session = on_postgres(&access, "cat_planner").await;
    let sql = format!("{JOIN} WHERE c.id = $1");
    let plan = explain(&mut *session, &sql, &access, vec![json!(7)]).await.unwrap();
    let customers = step_of(&plan, "customers");
    assert_eq!(customers.node, "Index Scan");
    assert_eq!(customers.index.as_deref(), Some("customers_pkey"));
    assert!(customers.condition.as_deref().unwrap().contains('7'), "{plan:?}");
    assert_eq!(customers.estimated_rows, Some(1));
    assert!(plan.cost.unwrap() > 0.0);
    assert!(steps(&plan).iter().any(|step| step.index.as_deref() == Some("orders_of")), "{plan:?}");
    let whole = explain(&mut *session, "SELECT * FROM orders", &access, vec![]).await.unwrap();
    assert_eq!(whole.estimated_rows, Some(20_000));

    let (_root, mut session) = on_sqlite(&access).await;
    let sql = format!("{JOIN} WHERE c.id = ?1 ORDER BY o.total");
    let plan = explain(&mut *session, &sql, &access, vec![json!(7)]).await.unwrap();
    assert_eq!(plan.node, "QUERY");
    assert_eq!(step_of(&plan, "c").node, "SEARCH");
    let orders = step_of(&plan, "o");
    assert_eq!(orders.index.as_deref(), Some("orders_of"));
    assert_eq!(orders.condition.as_deref(), Some("customer=?"));
    assert!(steps(&plan).iter().any(|step| step.node == "USE TEMP B-TREE FOR ORDER BY"));
}

#[tokio::test]
async fn nothing_below_a_view_or_a_policy_is_told() {
    made().await;
    let access = Access::default();
    let mut session = on_postgres(&access, "cat_planner").await;
    for (sql, has_estimates) in [
        ("SELECT * FROM of_hidden", true),
        ("SELECT * FROM filtered", true),
        ("SELECT 1 FROM filtered f JOIN customers c ON c.id = f.id", true),
        ("SELECT count(*) FROM parts", true),
        ("SELECT * FROM guarded", false),
        ("SELECT 1 FROM guarded g JOIN customers c ON c.id = g.id", false),
    ] {
        let plan = explain(&mut *session, sql, &access, vec![]).await.unwrap();
        let text = format!("{plan:?}");
        assert!(!text.contains("canary") && !text.contains("hidden"), "{sql}: {text}");
        for step in steps(&plan) {
            assert_eq!((&step.condition, &step.index), (&None, &None), "{sql}: {text}");
            assert_eq!(step.estimated_rows.is_some(), has_estimates, "{sql}: {text}");
            assert_eq!(step.cost.is_some(), has_estimates, "{sql}: {text}");
        }
    }

    let (_root, mut session) = on_sqlite(&access).await;
    for sql in [
        "SELECT * FROM of_hidden",
        "SELECT * FROM filtered WHERE id = 1",
        "SELECT 1 FROM filtered f JOIN customers c ON c.id = f.id",
    ] {
        let plan = explain(&mut *session, sql, &access, vec![]).await.unwrap();
        let text = format!("{plan:?}");
        assert!(!text.contains("canary") && !text.contains("hidden"), "{sql}: {text}");
        let steps = steps(&plan);
        assert!(steps.len() > 1, "{text}");
        assert!(steps.iter().all(|it| it.relation.is_none() && it.index.is_none()), "{text}");
        assert!(steps.iter().all(|it| it.condition.is_none()), "{text}");
    }
}

#[tokio::test]
async fn where_columns_are_denied_no_index_or_condition_is_told() {
    made().await;
    let access = Access {
        deny_columns: vec![denied("customers", "secret")],
        ..reads(&["customers", "orders"])
    };
    let sql = format!("{JOIN} WHERE c.id = 7");
    let mut session = on_postgres(&access, "cat_planner").await;
    let plan = explain(&mut *session, &sql, &access, vec![]).await.unwrap();
    assert!(steps(&plan).iter().all(|it| it.index.is_none() && it.condition.is_none()));
    assert_eq!(step_of(&plan, "customers").estimated_rows, Some(1));
    let (_root, mut session) = on_sqlite(&access).await;
    let plan = explain(&mut *session, &sql, &access, vec![]).await.unwrap();
    assert!(steps(&plan).iter().all(|it| it.index.is_none() && it.condition.is_none()));
    assert_eq!(step_of(&plan, "c").node, "SEARCH");
}

#[tokio::test]
async fn a_statement_that_is_explained_does_not_run() {
    made().await;
    let access = Access::default();
    let mut session = on_postgres(&access, "").await;
    for sql in
        ["SELECT * FROM counts", "SELECT (SELECT max(n) FROM counts), (SELECT x FROM counts)"]
    {
        explain(&mut *session, sql, &access, vec![]).await.unwrap();
    }
    let sequence = driver().await.query_one("SELECT is_called FROM cat_plans.counted", &[]).await;
    assert!(!sequence.unwrap().get::<_, bool>(0));
    assert!(!session.is_broken());
    let whole = "SELECT count(*) FROM orders a, orders b, orders c";
    explain(&mut *session, whole, &access, vec![]).await.unwrap();

    let (_root, mut session) = on_sqlite(&access).await;
    let forever = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n FROM t";
    let plan = explain(&mut *session, forever, &access, vec![]).await.unwrap();
    assert!(steps(&plan).iter().any(|step| step.node == "RECURSIVE STEP"), "{plan:?}");
}

#[tokio::test]
async fn what_cannot_be_explained_fails_as_the_statement_would() {
    made().await;
    let access = Access::default();
    let mut session = on_postgres(&access, "cat_planner").await;
    let unknown = explain(&mut *session, "SELECT nonsense FROM orders", &access, vec![]).await;
    let Err(Error::Failed { sqlstate, position, .. }) = unknown else { panic!("{unknown:?}") };
    assert_eq!((sqlstate.as_deref(), position), (Some("42703"), Some(8)));
    let few = explain(&mut *session, "SELECT $1::int", &access, vec![]).await;
    assert_eq!(few, Err(Error::ParameterCount { expected: 1, given: 0 }));
    let joins: Vec<String> = (0..60).map(|n| format!("orders o{n}")).collect();
    let deep = format!("SELECT 1 FROM {}", joins.join(" CROSS JOIN "));
    let deep = explain(&mut *session, &deep, &access, vec![]).await;
    assert!(matches!(&deep, Err(Error::Failed { message, .. }) if message.contains("too large")));
    assert!(!session.is_broken());
    explain(&mut *session, "SELECT 1", &access, vec![]).await.unwrap();

    let (_root, mut session) = on_sqlite(&access).await;
    let unknown = explain(&mut *session, "SELECT nonsense FROM orders", &access, vec![]).await;
    assert!(matches!(unknown, Err(Error::Failed { .. })), "{unknown:?}");
    let few = explain(&mut *session, "SELECT ?1", &access, vec![]).await;
    assert_eq!(few, Err(Error::ParameterCount { expected: 1, given: 0 }));
    explain(&mut *session, "SELECT 1", &access, vec![]).await.unwrap();
}
