//! The lists of functions are what the rules beside them give on the engine at hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::postgres::plain_client;

const POSTGRES: &str = include_str!("../../src/database/guard/functions/postgres.txt");
const SQLITE: &str = include_str!("../../src/database/guard/functions/sqlite.txt");
/// Where `./dev functions` finds them.
const WRITTEN: &str = "target/functions";

const POSTGRES_HEAD: &str = "# Functions of PostgreSQL that a query may call, by the version that \
                             brought them.\n# Written by `./dev functions`; the rule and its \
                             reasons are in postgres.sql.\n";
const SQLITE_HEAD: &str = "# Functions of SQLite that a query may call.\n# Written by `./dev \
                           functions`; the rule and its reasons are in sqlite.sql.\n";

/// The first version whose functions are listed.
const FIRST: u32 = 15;

/// What a file lists: names, with the version that a heading before them gives.
fn listed(text: &str) -> BTreeMap<String, u32> {
    let mut since = FIRST;
    let mut names = BTreeMap::new();
    for line in text.lines() {
        match line.strip_prefix("# ") {
            Some(heading) => since = heading.parse().unwrap_or(since),
            None => drop(names.insert(line.to_owned(), since)),
        }
    }
    names
}

fn written(names: &BTreeMap<String, u32>) -> String {
    let mut text = POSTGRES_HEAD.to_owned();
    let mut versions: Vec<u32> = names.values().copied().collect();
    versions.sort_unstable();
    versions.dedup();
    for version in versions {
        writeln!(text, "# {version}").unwrap();
        for (name, _) in names.iter().filter(|(_, since)| **since == version) {
            writeln!(text, "{name}").unwrap();
        }
    }
    text
}

/// The server's version, all its functions, and those that the rule allows.
async fn of_server() -> (u32, Vec<String>, Vec<String>) {
    let client = plain_client().await;
    let texts = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| row.get(0)).collect();
    let version = client.query_one("SHOW server_version_num", &[]).await.unwrap();
    let version: u32 = version.get::<_, String>(0).parse().unwrap();
    let all = "SELECT DISTINCT proname::text FROM pg_proc \
               WHERE pronamespace = 'pg_catalog'::regnamespace";
    let all = texts(client.query(all, &[]).await.unwrap());
    let rule = include_str!("../../src/database/guard/functions/postgres.sql");
    (version / 10_000, all, texts(client.query(rule, &[]).await.unwrap()))
}

fn of_bundled_engine() -> String {
    // As in a session; it has to be there before the engine is used.
    assert!(tenantry::database::bound_memory());
    let engine = rusqlite::Connection::open_in_memory().unwrap();
    let rule = include_str!("../../src/database/guard/functions/sqlite.sql");
    let mut rule = engine.prepare(rule).unwrap();
    let names = rule.query_map([], |row| row.get::<_, String>(0)).unwrap();
    names.fold(SQLITE_HEAD.to_owned(), |text, name| text + &name.unwrap() + "\n")
}

#[tokio::test]
async fn the_list_for_postgres_is_what_the_rule_gives_on_this_server() {
    let (version, all, allowed) = of_server().await;
    let listed = listed(POSTGRES);
    let expected: Vec<&String> =
        listed.iter().filter(|(_, since)| **since <= version).map(|(name, _)| name).collect();
    assert!(expected.iter().all(|name| all.contains(name)), "one is not there since its version");
    let mut here: Vec<&String> = listed.keys().filter(|name| all.contains(name)).collect();
    here.sort_unstable();
    assert_eq!(allowed.iter().collect::<Vec<_>>(), here, "./dev functions writes the list anew");
    assert!(allowed.len() > 350, "{}", allowed.len());
}

#[test]
fn the_list_for_sqlite_is_what_the_rule_gives_on_the_bundled_engine() {
    assert_eq!(SQLITE, of_bundled_engine(), "./dev functions writes the list anew");
}

/// Adds what the server has to the list; `./dev functions` runs it on one version after the other.
#[tokio::test]
#[ignore = "writes the lists: ./dev functions"]
async fn write_the_lists() {
    let (version, all, allowed) = of_server().await;
    let postgres = Path::new(WRITTEN).join("postgres.txt");
    let mut names = listed(&std::fs::read_to_string(&postgres).unwrap_or_default());
    // What one version refuses stays out.
    names.retain(|name, _| allowed.contains(name) || !all.contains(name));
    for name in allowed {
        names.entry(name).or_insert(version);
    }
    std::fs::write(postgres, written(&names)).unwrap();
    std::fs::write(Path::new(WRITTEN).join("sqlite.txt"), of_bundled_engine()).unwrap();
}
