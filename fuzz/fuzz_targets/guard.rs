//! What the guard writes it accepts again, as the same text, whatever it was given; nothing is both a
//! query and a change; and a refusal is short and one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenantry::database::{Dialect, Refusal, check, check_write};
use tenantry::tenant::{Access, ColumnName, RelationName, Resource};

fuzz_target!(|sql: &str| {
    let table = |name: &str| RelationName { schema: None, name: name.to_owned() };
    let secret = ColumnName { relation: table("customers"), column: "password".to_owned() };
    let deny_columns = vec![secret];
    let tables = Some(vec![table("customers"), table("orders")]);
    for access in [Access::default(), Access { tables, deny_columns, ..Access::default() }] {
        for (dialect, schema) in [(Dialect::Postgres, "corpus"), (Dialect::Sqlite, "main")] {
            let short = |refusal: &Refusal| {
                assert!(refusal.message().len() < 500);
                assert!(!refusal.message().contains('\n'));
            };
            let guarded = |sql: &str| check(sql, dialect, &Resource::Database, &access, schema);
            let change = |sql: &str| check_write(sql, dialect, &Resource::Database, &access, schema);
            match (guarded(sql), change(sql)) {
                (Ok(accepted), Err(refusal)) => {
                    short(&refusal);
                    assert_eq!(guarded(accepted.sql()), Ok(accepted));
                }
                (Err(refusal), Ok(accepted)) => {
                    short(&refusal);
                    assert_eq!(change(accepted.sql()), Ok(accepted));
                }
                (Err(query), Err(change)) => {
                    short(&query);
                    short(&change);
                }
                (Ok(_), Ok(_)) => unreachable!("a query and a change"),
            }
        }
    }
});
