//! A tenant file is read whole, or with all its problems not at all; and nothing that is shown of
//! it says what value a variable has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenantry::memory::SecretText;
use tenantry::tenant::{IdRule, Surroundings, TenantFile};

fuzz_target!(|bytes: &[u8]| {
    for id_rule in [IdRule::Alphanumeric, IdRule::AllowUnderscore] {
        // Two values, and not a search for one: the fuzzer would write that into the file.
        assert_eq!(shown(bytes, id_rule, "one-password"), shown(bytes, id_rule, "two-password"));
    }
});

/// What may be shown of the file, where `SECRET` is set to `secret`.
fn shown(bytes: &[u8], id_rule: IdRule, secret: &str) -> Vec<String> {
    let lookup = |name: &str| match name {
        "SECRET" => Some(SecretText::from(secret)),
        "EMPTY" => Some(SecretText::from("")),
        _ => None,
    };
    let certificate = |path: &str| match path {
        "ca.pem" => Ok("PEM".to_owned()),
        _ => Err("cannot be read".to_owned()),
    };
    let surroundings = Surroundings { id_rule, lookup: &lookup, certificate: &certificate };
    match TenantFile::read("tenant001.json", bytes, &surroundings) {
        Ok(file) => vec![format!("{:?}", file.tenant.credentials)],
        Err(problems) => {
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|problem| !problem.message.is_empty()));
            problems.iter().map(ToString::to_string).collect()
        }
    }
}
