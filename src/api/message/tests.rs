use proptest::prelude::*;

use super::*;
use crate::api::routes::{self, Found, HEALTH, IMPORT, ROUTES};

#[expect(clippy::disallowed_methods, reason = "the test compares what came through")]
fn exposed(secrets: &[SecretText]) -> Vec<String> {
    secrets.iter().map(|secret| secret.expose_secret().to_owned()).collect()
}

/// What the service reads of what the client writes.
fn through(command: &Command, secrets: &[SecretText]) -> (Command, Vec<String>) {
    let (_, message) = write(command, secrets).unwrap();
    let route = routes::of_command(&name(command)).unwrap();
    let (path, query) = match message.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (message.target.as_str(), None),
    };
    let Found::Route(found, parts) = routes::find(route.method, path) else {
        unreachable!("{path} leads nowhere")
    };
    assert_eq!(found.command, route.command);
    let (read, secrets) = read(found, &parts, query, &message.body).unwrap();
    (read, exposed(&secrets))
}

fn name(command: &Command) -> String {
    match serde_json::to_value(command).unwrap() {
        Value::String(name) => name,
        Value::Object(object) => object.into_iter().next().unwrap().0,
        other @ (Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_)) => {
            unreachable!("{other}")
        }
    }
}

fn read_body(command: &str, body: &str) -> Result<(Command, Vec<SecretText>), String> {
    read(routes::of_command(command).unwrap(), &[], None, body.as_bytes())
}

/// One of each, with secrets that JSON has to escape.
fn commands() -> Vec<(Command, Vec<&'static str>)> {
    let proof = || Proof::Passphrase;
    let tenant = || "tenant001".to_owned();
    let words = || vec!["agent".to_owned(), "--key".to_owned()];
    vec![
        (
            Command::AuditList {
                code: Some("FORBIDDEN".to_owned()),
                tenant: Some(tenant()),
                since: Some(
                    "2026-11-01T10:00:00+00:00[UTC]".parse::<jiff::Zoned>().unwrap().timestamp(),
                ),
                cursor: Some("a+b/c=&d".to_owned()),
                limit: Some(7),
            },
            vec![],
        ),
        (Command::AuditVerify, vec![]),
        (
            Command::BackupCreate {
                path: "/backups/a \"b\"".to_owned(),
                proof: Some(Proof::Shares { count: 2 }),
                slot: Some(SlotRequest::KeyFile),
                verify: false,
            },
            vec!["one", "t\"w\\o", "file\ncontent\n"],
        ),
        (Command::BackupForget { backup_id: "0a".to_owned() }, vec![]),
        (Command::BackupList, vec![]),
        (Command::BackupVerify { path: "/b".to_owned(), proof: None, scratch: None }, vec![]),
        (Command::Doctor { tenant: None }, vec![]),
        (Command::Fsck { proof: Proof::KeyFile }, vec!["MVKEY"]),
        (Command::OperatorCreate { role: "auditor".to_owned(), expires_at: None }, vec![]),
        (Command::OperatorList, vec![]),
        (Command::OperatorRevoke { operator_id: "../?#%\u{0}ä:".to_owned() }, vec![]),
        (Command::PassphraseChange, vec!["the old one", "the \"new\" one ü"]),
        (Command::QuotaReset { tenant: tenant() }, vec![]),
        (
            Command::QuotaSet {
                tenant: tenant(),
                quotas: [("max_queries_per_day".to_owned(), None)].into(),
            },
            vec![],
        ),
        (Command::QuotaShow { tenant: tenant() }, vec![]),
        (Command::Reload, vec![]),
        (Command::Reseal, vec![]),
        (
            Command::RootRotate {
                proofs: vec![
                    proof(),
                    Proof::Command { words: words() },
                    Proof::Shares { count: 3 },
                ],
                drop_others: true,
                reseal: false,
            },
            vec!["p", "1", "2", "3"],
        ),
        (Command::Seal, vec![]),
        (
            Command::SlotAdd {
                proof: proof(),
                slot: SlotRequest::Shares { threshold: 2, count: 3 },
            },
            vec!["p"],
        ),
        (Command::SlotList, vec![]),
        (Command::SlotRemove { proof: proof(), id: 3 }, vec!["p"]),
        (Command::Status, vec![]),
        (Command::TenantDisable { tenant: tenant() }, vec![]),
        (Command::TenantEnable { tenant: tenant() }, vec![]),
        (Command::TenantKeyRotate { tenant: tenant() }, vec![]),
        (Command::TenantList { cursor: None, limit: None }, vec![]),
        (Command::TenantRemove { proof: proof(), tenants: vec![tenant()] }, vec!["p"]),
        (Command::TenantSeal { proof: proof(), tenant: tenant() }, vec!["p"]),
        (Command::TenantShow { tenant: tenant() }, vec![]),
        (Command::TenantUnseal { proof: proof(), tenant: tenant() }, vec!["p"]),
        (
            Command::TokenCreate {
                tenant: tenant(),
                scopes: Some(vec!["list".to_owned()]),
                expires_at: Some(jiff::Timestamp::UNIX_EPOCH),
            },
            vec![],
        ),
        (Command::TokenList { cursor: Some("x".to_owned()), limit: Some(1_000) }, vec![]),
        (Command::TokenRevoke { token_id: "12".to_owned() }, vec![]),
        (Command::Unseal { proof: proof(), accept_rollback: true }, vec!["p"]),
    ]
}

#[test]
fn each_command_is_the_same_after_its_way_through_the_api() {
    let commands = commands();
    for (command, secrets) in &commands {
        let given: Vec<SecretText> = secrets.iter().map(|&secret| secret.into()).collect();
        let (read, came) = through(command, &given);
        assert_eq!(&read, command);
        assert_eq!(&came, secrets, "{command:?}");
    }
    // Each route is tried above.
    for route in ROUTES.iter().filter(|route| ![HEALTH, IMPORT].contains(&route.command)) {
        assert!(commands.iter().any(|(it, _)| name(it) == route.command), "{route:?}");
    }
    assert_eq!(commands.len() + 2, ROUTES.len());
}

#[test]
fn what_is_unknown_or_comes_twice_or_is_of_a_wrong_type_is_refused() {
    read_body("unseal", r#"{"proof":{"passphrase":"x"}}"#).unwrap();
    read_body("unseal", r#" { "proof" : { "shares" : ["x", "y"] }, "accept_rollback": true } "#)
        .unwrap();
    read_body("seal", "").unwrap();
    read_body("seal", "{}").unwrap();
    for body in [
        "",
        "{}",
        "null",
        "[]",
        "\"x\"",
        "{",
        "{}{}",
        "{} x",
        "\u{feff}{}",
        r#"{"proof":null}"#,
        r#"{"proof":"passphrase"}"#,
        r#"{"proof":{"passphrase":1}}"#,
        r#"{"proof":{"passphrase":null}}"#,
        r#"{"proof":{"passphrase":"x","key_file":"y"}}"#,
        r#"{"proof":{"passphrase":"x","passphrase":"y"}}"#,
        r#"{"proof":{"passphrase":"x"},"proof":{"passphrase":"x"}}"#,
        r#"{"Proof":{"passphrase":"x"}}"#,
        r#"{"proof":{"Passphrase":"x"}}"#,
        r#"{"proof":{"passphrase":"x"},"more":1}"#,
        r#"{"proof":{"passphrase":"x"},"accept_rollback":"true"}"#,
        r#"{"proof":{"passphrase":"x"},"accept_rollback":1}"#,
        r#"{"proof":{"command":{"words":["a"],"more":1}}}"#,
        r#"{"proof":{"shares":"x"}}"#,
        r#"{"proof":{"passphrase":"\ud800"}}"#,
    ] {
        let refused = read_body("unseal", body).unwrap_err();
        assert!(!refused.is_empty(), "{body}");
    }
    read_body("seal", r#"{"more":1}"#).unwrap_err();
    let quotas = |quotas: &str| {
        let route = routes::of_command("quota_set").unwrap();
        read(route, &[("tenant", "a1")], None, format!("{{\"quotas\":{quotas}}}").as_bytes())
    };
    quotas(r#"{"a":1,"b":null}"#).unwrap();
    quotas(r#"{"a":1,"a":2}"#).unwrap_err();
    quotas(&format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000))).unwrap_err();
}

#[test]
fn a_refusal_quotes_nothing_of_a_body() {
    const CANARY: &str = "canary-4b1f";
    for body in [
        format!("{{\"proof\":\"{CANARY}\"}}"),
        format!("{{\"proof\":{{\"{CANARY}\":1}}}}"),
        format!("{{\"proof\":{{\"passphrase\":[\"{CANARY}\"]}}}}"),
        format!("{{\"{CANARY}\":1}}"),
        format!("{{\"proof\":{{\"passphrase\":\"{}\"}}}}", CANARY.repeat(1_000)),
        CANARY.to_owned(),
    ] {
        let refused = read_body("unseal", &body).unwrap_err();
        assert!(!refused.contains(CANARY), "{refused}");
    }
}

#[test]
fn a_query_has_its_own_members_once_each() {
    let route = routes::of_command("tenant_list").unwrap();
    let read = |query: &str| read(route, &[], Some(query), b"");
    read("limit=5&cursor=a%2Bb").unwrap();
    read("").unwrap();
    for query in [
        "limit=x",
        "limit=-1",
        "limit=5&limit=5",
        "more=1",
        "LIMIT=5",
        "limit",
        "cursor=%",
        "cursor=%f",
        "cursor=%ff",
        "limit=99999999999",
    ] {
        read(query).unwrap_err();
    }
    super::read(route, &[], None, b"{\"limit\":5}").unwrap_err();
    super::read(routes::of_command("seal").unwrap(), &[], Some("a=1"), b"").unwrap_err();
}

proptest! {
    #[test]
    fn what_is_encoded_for_a_path_is_decoded(text in "\\PC*") {
        let encoded = encoded(&text);
        prop_assert!(!encoded.contains(['/', ':', '?', '#', '&', '=']));
        prop_assert_eq!(decoded(&encoded), Ok(text));
    }

    #[test]
    fn arbitrary_bodies_do_not_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for route in &ROUTES {
            drop(read(route, &[("tenant", "a1"), ("id", "1")], None, &body));
        }
    }

    #[test]
    fn a_secret_is_read_as_it_was_written(secret in "\\PC{0,60}") {
        let secrets = [SecretText::from(secret.as_str()), SecretText::from("\u{1}\n\"")];
        let (_, came) = through(&Command::PassphraseChange, &secrets);
        prop_assert_eq!(came, vec![secret.clone(), "\u{1}\n\"".to_owned()]);
        let text = serde_json::to_string(&secret).unwrap();
        let raw: &RawValue = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(exposed(&[super::secret(raw).unwrap()]), vec![secret]);
    }
}
