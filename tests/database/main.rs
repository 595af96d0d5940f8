//! The database module against a real `PostgreSQL` server and real `SQLite` files.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod catalogue;
mod plans;
mod postgres;
mod results;
mod session;
mod sqlite;
mod statements;
mod types;
mod wire;
mod write;
mod write_postgres;
mod write_sqlite;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tenantry::database::{
    self, AddressPolicy, Database, Error, Options, Query, QueryResult, Relation, RowsRead, check,
};
use tenantry::tenant::{
    Access, ColumnName, Connection, Credentials, IdRule, Limits, Quotas, RelationName, Resource,
    TenantConfig, TenantId,
};

fn config(connection: Connection, access: Access) -> TenantConfig {
    TenantConfig {
        id: TenantId::parse("tenant001", IdRule::Alphanumeric).unwrap(),
        connection,
        access,
        limits: Limits::default(),
        quotas: Quotas::default(),
        features: std::collections::BTreeMap::default(),
    }
}

fn options(sqlite_root: &Path) -> Options {
    let sqlite_root = PathBuf::from(sqlite_root);
    Options {
        sqlite_root,
        connect_timeout: Duration::from_secs(5),
        addresses: AddressPolicy::default(),
    }
}

async fn connect(
    connection: Connection,
    access: Access,
    credentials: &Credentials,
    root: &Path,
) -> Result<Box<dyn Database>, Error> {
    let config = config(connection, access);
    database::connect(&config, credentials, &options(root), Box::new(())).await
}

fn relation(name: &str) -> RelationName {
    RelationName { schema: None, name: name.to_owned() }
}

fn denied(table: &str, column: &str) -> ColumnName {
    ColumnName { relation: relation(table), column: column.to_owned() }
}

/// A tenant that may read `tables`.
fn reads(tables: &[&str]) -> Access {
    Access { tables: Some(tables.iter().map(|name| relation(name)).collect()), ..Access::default() }
}

fn guarded(session: &dyn Database, sql: &str, access: &Access, params: Vec<Value>) -> Query {
    let schema = match session.dialect() {
        database::Dialect::Postgres => "shop",
        database::Dialect::Sqlite => "main",
    };
    let statement = check(sql, session.dialect(), &Resource::Database, access, schema)
        .unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
    Query { statement, params, limit: None, read: RowsRead::default() }
}

/// All that there is to read, described.
async fn all(session: &mut dyn Database, access: &Access) -> Vec<Relation> {
    let catalogue = session.catalogue(access).await.unwrap();
    let names: Vec<_> = catalogue.relations().iter().map(|listed| listed.name.clone()).collect();
    session.describe(access, &names).await.unwrap()
}

async fn run(session: &mut dyn Database, sql: &str) -> Result<QueryResult, Error> {
    run_with(session, sql, vec![], &Limits::default()).await
}

async fn run_with(
    session: &mut dyn Database,
    sql: &str,
    params: Vec<Value>,
    limits: &Limits,
) -> Result<QueryResult, Error> {
    let query = guarded(session, sql, &Access::default(), params);
    session.query(&query, limits).await
}
