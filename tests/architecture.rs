//! The layers of ARCHITECTURE.md, held by reading `src/`: which module may name which, and what
//! must not occur in some of them.
#![expect(clippy::unwrap_used, reason = "a source file that cannot be read fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and what it may name, from the bottom up. A new arrow is a decision: say why in its
/// commit.
#[rustfmt::skip]
const MAY_NAME: [(&str, &[&str]); 24] = [
    ("error", &[]),
    ("memory", &["error"]),
    ("clock", &[]),
    ("network", &[]),
    ("strict_json", &[]),
    ("unix_socket", &[]),
    ("telemetry", &["error"]),
    ("store", &["error"]),
    ("tenant", &["error", "memory"]),
    ("audit", &["clock", "error", "tenant"]),
    ("vault", &["clock", "error", "memory", "store", "tenant"]),
    ("database", &["error", "memory", "network", "tenant"]),
    ("quota", &["clock", "error", "tenant"]),
    ("auth", &["audit", "clock", "error", "memory", "strict_json", "tenant", "vault"]),
    ("server", &["audit", "clock", "database", "error", "quota", "tenant"]),
    ("pool", &["audit", "auth", "clock", "database", "error", "memory", "quota", "server", "tenant", "vault"]),
    ("manager", &["audit", "auth", "clock", "database", "error", "memory", "pool", "quota", "server", "tenant", "vault"]),
    ("admin", &["audit", "auth", "clock", "database", "error", "manager", "memory", "pool", "quota", "store", "tenant", "vault"]),
    ("api", &["admin", "audit", "auth", "error", "manager", "memory", "strict_json", "tenant", "unix_socket", "vault"]),
    ("http", &["admin", "audit", "auth", "clock", "error", "manager", "network", "pool", "server", "telemetry", "tenant", "unix_socket"]),
    ("stdio", &["error", "http", "unix_socket"]),
    ("config", &["api", "audit", "auth", "database", "error", "http", "manager", "network", "pool", "store", "telemetry", "tenant", "vault"]),
    ("cli", &["admin", "api", "audit", "auth", "clock", "config", "database", "error", "http", "manager", "memory", "pool", "quota", "server", "stdio", "store", "telemetry", "tenant", "vault"]),
    ("main", &["cli"]),
];

#[test]
fn each_module_names_only_what_stands_below_it() {
    let mut wrong = Vec::new();
    for (module, path) in sources() {
        let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{module} is missing from the table ({})", path.display()));
            continue;
        };
        let text = fs::read_to_string(&path).unwrap();
        for (named, line) in crate_paths(&text) {
            if named != module && !allowed.contains(&named.as_str()) {
                let place = path.display();
                wrong.push(format!("{module} may not name crate::{named} ({place}:{line})"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn tenant_does_no_input_or_output() {
    let texts = ["std::env", "std::fs", "std::io", "std::net", "std::process"];
    forbid(&["tenant"], &texts, "std::net::IpAddr");
}

#[test]
fn what_holds_secrets_or_rows_cannot_be_serialised() {
    forbid(&["vault", "auth", "database", "pool"], &["Serialize"], "");
}

/// Fails where code of `modules` has one of `texts` as a word, other than as part of `except`.
fn forbid(modules: &[&str], texts: &[&str], except: &str) {
    let mut wrong = Vec::new();
    for (module, path) in sources().into_iter().filter(|(it, _)| modules.contains(&it.as_str())) {
        for (index, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = if except.is_empty() { line.to_owned() } else { line.replace(except, "") };
            for text in texts.iter().filter(|text| has_word(code_of(&code), text)) {
                let place = path.display();
                wrong.push(format!("{module} may not use {text} ({place}:{})", index + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Every source file, from `src/` on, with its top module. `lib.rs` declares modules and is none;
/// tests may build whatever the module under test is handed.
fn sources() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut directories = vec![root.join("src")];
    let mut sources = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let path = path.strip_prefix(root).unwrap().to_owned();
                let top = path.iter().nth(1).unwrap().to_str().unwrap();
                sources.push((top.trim_end_matches(".rs").to_owned(), path));
            }
        }
    }
    sources.retain(|(module, path)| module != "lib" && !is_test(path));
    sources.sort();
    sources
}

fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.iter().any(|part| part == "tests")
}

/// The top modules that `text` names by an absolute path, each with its line.
fn crate_paths(text: &str) -> BTreeSet<(String, usize)> {
    let code = text.lines().map(code_of).collect::<Vec<_>>().join("\n");
    let mut named = BTreeSet::new();
    // `main` is a crate of its own and names the library by name.
    for prefix in ["crate::", "tenantry::"] {
        for (at, _) in code.match_indices(prefix).filter(|(at, _)| !code[..*at].ends_with(is_word))
        {
            let path = at + prefix.len();
            for (name, offset) in heads(&code[path..]) {
                named.insert((name, code[..path + offset].matches('\n').count() + 1));
            }
        }
    }
    named
}

/// The first names of the path or group that `text` begins with, each with its offset: `a` and `c`
/// of `{a::{b, x}, c}`.
fn heads(text: &str) -> Vec<(String, usize)> {
    let name_at = |at: usize| text[at..].chars().take_while(|&it| is_word(it)).collect::<String>();
    if !text.starts_with('{') {
        return vec![(name_at(0), 0)];
    }
    let mut heads = Vec::new();
    let (mut depth, mut expects_name) = (0, true);
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => expects_name = true,
            _ if expects_name && is_word(character) => {
                heads.push((name_at(at), at));
                expects_name = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

/// `line` without its comment. Cuts a string with `//` in it short, too: no path follows one.
fn code_of(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word)
    })
}

fn is_word(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

#[test]
fn paths_are_seen_however_they_are_written() {
    let text = "\
use crate::store::Store; // crate::comment
use crate::{
    pool::{Lease, Pool},
    quota, vault as keys,
};
//! [`crate::documented`]
fn call() { crate::auth::check(&tenantry::audit::LOG, my_crate::other()) }
";
    let expected =
        [("audit", 7), ("auth", 7), ("pool", 3), ("quota", 4), ("store", 1), ("vault", 4)];
    let expected = expected.map(|(name, line)| (name.to_owned(), line));
    assert_eq!(crate_paths(text), BTreeSet::from(expected));
}
