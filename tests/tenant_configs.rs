//! `tenant_configs/` stays true: the schema is the reader's own, and every example reads.
#![expect(clippy::unwrap_used, reason = "a failed set-up should fail the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::{Value, json};
use tenantry::tenant::{IdRule, Problem, Surroundings, TenantFile, schema};

/// The examples by file name.
fn examples() -> BTreeMap<String, Vec<u8>> {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| (name(&path), fs::read(&path).unwrap()))
        .filter(|(name, _)| name != "schema.json")
        .collect()
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tenant_configs")
}

/// Reads a file with no variable set and no certificate there.
fn read(name: &str, bytes: &[u8]) -> Result<TenantFile, Vec<Problem>> {
    let surroundings = Surroundings {
        id_rule: IdRule::default(),
        lookup: &|_| None,
        certificate: &|_| Err("cannot read it".to_owned()),
    };
    TenantFile::read(name, bytes, &surroundings)
}

/// `UPDATE=1 cargo test --test tenant_configs` writes the file anew.
#[test]
fn the_schema_file_is_what_the_reader_says() {
    let path = directory().join("schema.json");
    let expected = format!("{:#}\n", schema());
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let is_current = fs::read_to_string(&path).is_ok_and(|text| text == expected);
    assert!(is_current, "tenant_configs/schema.json is stale; run this test with UPDATE=1");
}

#[test]
fn every_example_reads_without_any_variable() {
    let examples = examples();
    assert!(examples.len() >= 4, "{:?}", examples.keys());
    for (name, bytes) in examples {
        let file = read(&name, &bytes).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        assert_eq!(file.literal_secrets, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_schema_accepts_every_example() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for (name, bytes) in examples() {
        let example: Value = serde_json::from_slice(&bytes).unwrap();
        let problems: Vec<_> = validator.iter_errors(&example).map(|e| e.to_string()).collect();
        assert!(problems.is_empty(), "{name}: {problems:?}");
    }
}

/// A field that the schema has is known to the reader, and one that it has not is not.
#[test]
fn the_schema_and_the_reader_know_the_same_fields() {
    let schema = schema();
    let is_unknown = |file: &Value, field: &str| {
        let problems = read("tenant001.json", file.to_string().as_bytes()).unwrap_err();
        problems.iter().any(|it| it.field == field && it.message.starts_with("unknown field"))
    };
    for name in properties(&schema) {
        assert!(!is_unknown(&json!({ &name: [] }), &name), "{name}");
        let section = &schema["properties"][&name];
        if section["additionalProperties"] == json!(false) {
            for field in properties(section) {
                let file = json!({ &name: { &field: "?" } });
                assert!(!is_unknown(&file, &format!("{name}.{field}")), "{name}.{field}");
            }
            assert!(is_unknown(&json!({ &name: { "nonsense": 1 } }), &format!("{name}.nonsense")));
        }
    }
    assert!(is_unknown(&json!({ "nonsense": 1 }), "nonsense"));
}

fn properties(schema: &Value) -> Vec<String> {
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}
