//! What the guard writes it accepts again, as the same text, whatever it was given; and a refusal
//! is short and one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenantry::database::{Dialect, check};
use tenantry::tenant::{Access, ColumnName, RelationName, Resource};

fuzz_target!(|sql: &str| {
    let table = |name: &str| RelationName { schema: None, name: name.to_owned() };
    let secret = ColumnName { relation: table("customers"), column: "password".to_owned() };
    let deny_columns = vec![secret];
    let tables = Some(vec![table("customers"), table("orders")]);
    for access in [Access::default(), Access { tables, deny_columns, ..Access::default() }] {
        for (dialect, schema) in [(Dialect::Postgres, "corpus"), (Dialect::Sqlite, "main")] {
            let guarded = |sql: &str| check(sql, dialect, &Resource::Database, &access, schema);
            match guarded(sql) {
                Ok(accepted) => assert_eq!(guarded(accepted.sql()), Ok(accepted)),
                Err(refusal) => {
                    assert!(refusal.message().len() < 500);
                    assert!(!refusal.message().contains('\n'));
                }
            }
        }
    }
});
