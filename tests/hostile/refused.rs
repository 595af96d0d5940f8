//! Each hostile statement breaks the rule that its name line gives.

use tenantry::database::{Dialect, check};
use tenantry::tenant::{Access, ColumnName, RelationName, Resource};

use super::corpus;

/// A tenant that may read customers, notes and places, but no passwords.
pub(crate) fn access() -> Access {
    let named = |name: &str| RelationName { schema: None, name: name.to_owned() };
    let password = ColumnName { relation: named("customers"), column: "password".to_owned() };
    Access {
        tables: Some(["customers", "notes", "places"].map(named).to_vec()),
        deny_columns: vec![password],
        ..Access::default()
    }
}

fn accepted(text: &str, dialect: Dialect, schema: &str, access: &Access) -> Vec<String> {
    let mut wrong = Vec::new();
    for block in corpus::blocks(text) {
        let mut parts = block.name.split(" | ");
        let (name, rules) = (parts.next().unwrap(), parts.next().unwrap());
        match check(&block.sql, dialect, &Resource::Database, access, schema) {
            Ok(guarded) => wrong.push(format!("{name} became {}", guarded.sql())),
            Err(refusal) if rules.split('|').any(|rule| rule == refusal.rule()) => {
                assert!(refusal.message().len() < 300, "{name}: {refusal}");
            }
            Err(refusal) => wrong.push(format!("{name}: {}, not {rules}", refusal.rule())),
        }
    }
    wrong
}

/// The layers that statements aim at, in the order of the files.
const GROUPS: [&str; 7] =
    ["statement", "relation", "column", "function", "session", "resource", "wire"];

#[test]
fn hostile_statements_are_refused_by_the_rule_they_break() {
    let postgres = include_str!("hostile_postgres.sql");
    let sqlite = include_str!("hostile_sqlite.sql");
    // Every relation of the schema is open to the first: nothing but the rule stands in the way.
    let open = Access { tables: None, ..access() };
    assert_eq!(accepted(postgres, Dialect::Postgres, "corpus", &open), [""; 0]);
    assert_eq!(accepted(sqlite, Dialect::Sqlite, "main", &access()), [""; 0]);
    let mut blocks = corpus::blocks(postgres);
    blocks.extend(corpus::blocks(sqlite));
    assert!(blocks.len() >= 340, "{}", blocks.len());
    for group in GROUPS {
        let of_group = |block: &&corpus::Block| block.group.starts_with(group);
        assert!(blocks.iter().filter(of_group).count() >= 4, "{group}");
    }
}
