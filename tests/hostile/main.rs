//! What callers ask, in files: honest statements all run and answer as `psql` and `sqlite3` do,
//! hostile ones are all refused. `src/database/layers.rs` runs the hostile ones without the guard.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod corpus;
mod functions;
mod postgres;
mod psql;
mod refused;
mod shell;
mod sqlite;
mod writes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tenantry::database::{
    self, AddressPolicy, Database, Error, Options, Query, QueryResult, RowsRead, check,
};
use tenantry::tenant::{
    Access, Connection, Credentials, IdRule, Limits, Quotas, Resource, TenantConfig, TenantId,
};

async fn connect(
    connection: Connection,
    access: Access,
    credentials: &Credentials,
    root: &Path,
) -> Result<Box<dyn Database>, Error> {
    let config = TenantConfig {
        id: TenantId::parse("tenant001", IdRule::Alphanumeric).unwrap(),
        connection,
        access,
        limits: Limits::default(),
        quotas: Quotas::default(),
        features: std::collections::BTreeMap::default(),
    };
    let sqlite_root = PathBuf::from(root);
    let options = Options {
        sqlite_root,
        connect_timeout: Duration::from_secs(5),
        addresses: AddressPolicy::default(),
    };
    database::connect(&config, credentials, &options, Box::new(())).await
}

/// What a caller gets for `sql`, or why not.
async fn ask(session: &mut dyn Database, sql: &str, schema: &str) -> Result<QueryResult, String> {
    ask_within(session, sql, schema, &Limits::default()).await.map_err(|error| error.to_string())
}

async fn ask_within(
    session: &mut dyn Database,
    sql: &str,
    schema: &str,
    limits: &Limits,
) -> Result<QueryResult, Error> {
    let access = Access::default();
    let statement = check(sql, session.dialect(), &Resource::Database, &access, schema)?;
    session
        .query(&Query { statement, params: vec![], limit: None, read: RowsRead::default() }, limits)
        .await
}

fn rows(answer: &QueryResult) -> Vec<Vec<Value>> {
    answer.rows.to_values()
}
