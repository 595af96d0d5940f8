//! The vault's keys, changed while the service runs and while it does not.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use reqwest::StatusCode;

use crate::TwoTenants;
use crate::control::{SERVED, list_tools};
use crate::support::{Finished, Sandbox, Server, finish};

const NEW_PASSPHRASE: &str = "canary-another-passphrase-19";

fn secret_file(sandbox: &Sandbox, name: &str, text: &str) -> PathBuf {
    let path = sandbox.path(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// Runs a verb with nothing but what `keys` give: flags, each with its file.
fn run_with(sandbox: &Sandbox, keys: &[(&str, &PathBuf)], arguments: &[&str]) -> Finished {
    let mut command = sandbox.keyless_command(&[]);
    for (flag, path) in keys {
        command.arg(flag).arg(path);
    }
    finish(command.args(arguments))
}

#[tokio::test]
async fn a_changed_passphrase_opens_and_the_old_one_does_not() {
    let tenants = TwoTenants::new();
    let sandbox = &tenants.sandbox;
    let new = secret_file(sandbox, "new", NEW_PASSPHRASE);
    let short = secret_file(sandbox, "short", "short");
    let server = sandbox.serve();
    let change = |file: &PathBuf| {
        sandbox.run(&["passphrase", "change", "--new-passphrase-file", file.to_str().unwrap()])
    };
    change(&short).failed(1, &["14"]);
    change(&new).ok();
    // The old one is asked for although the vault is open.
    change(&new).failed(3, &["passphrase"]);
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
    server.stop().ok();
    sandbox.run(&["tenant", "list"]).failed(3, &["passphrase"]);
    run_with(sandbox, &[("--passphrase-file", &new)], &["tenant", "list"]).ok();
}

#[tokio::test]
async fn shares_open_a_sealed_service_when_there_are_enough() {
    let tenants = TwoTenants::new();
    let sandbox = &tenants.sandbox;
    let server = sandbox.serve();
    let added = sandbox.json(&["slot", "add", "shares", "--threshold", "2", "--count", "3"]);
    let shares: Vec<PathBuf> = added["shares"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(index, share)| {
            secret_file(sandbox, &format!("share{index}"), share.as_str().unwrap())
        })
        .collect();
    assert_eq!(shares.len(), 3);
    sandbox.run(&["seal"]).ok();
    let one = [("--share-file", &shares[0])];
    assert!(!run_with(sandbox, &one, &["unseal"]).status.success());
    assert_eq!(sandbox.json(&["status"])["sealed"], true);
    let two = [("--share-file", &shares[2]), ("--share-file", &shares[0])];
    run_with(sandbox, &two, &["unseal"]).ok();
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
}

#[tokio::test]
async fn a_key_file_opens_the_vault_until_its_slot_is_removed() {
    let tenants = TwoTenants::new();
    let sandbox = &tenants.sandbox;
    let file = sandbox.path("tenantry.key");
    let added = sandbox.json(&["slot", "add", "key-file", file.to_str().unwrap()]);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let key = [("--key-file", &file)];
    run_with(sandbox, &key, &["tenant", "list"]).ok();
    let slots = sandbox.json(&["slot", "list"]);
    let kinds: Vec<_> = slots.as_array().unwrap().iter().map(|slot| &slot["kind"]).collect();
    assert_eq!(kinds, ["passphrase", "key-file"]);
    let id = added["slot"]["id"].to_string();
    sandbox.run(&["slot", "remove", &id]).ok();
    run_with(sandbox, &key, &["tenant", "list"]).failed(3, &[]);
    // The last way in is not given up.
    let last = slots[0]["id"].to_string();
    assert!(!sandbox.run(&["slot", "remove", &last]).status.success());
    sandbox.run(&["tenant", "list"]).ok();
}

#[tokio::test]
async fn keys_are_changed_while_calls_are_served() {
    let tenants = TwoTenants::new();
    let sandbox = &tenants.sandbox;
    let server = sandbox.serve();
    for rotate in [
        &["tenant-key", "rotate", "tenant001"][..],
        &["root", "rotate"],
        &["root", "rotate", "--reseal"],
    ] {
        sandbox.run(rotate).ok();
        while sandbox.json(&["status"])["reseal"]["remaining"] != 0 {
            assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
        }
        for token in &tenants.tokens {
            assert_eq!(list_tools(&server, token).await, SERVED);
        }
    }
    sandbox.run(&["reseal"]).ok();
    server.stop().ok();
    // Without a service, the verb itself finishes.
    let answer = sandbox.json(&["root", "rotate", "--reseal"]);
    assert_eq!(answer["reseal"]["remaining"], 0);
    let answer = sandbox.json(&["tenant-key", "rotate", "tenant002"]);
    assert_eq!(answer["reseal"]["remaining"], 0);
    let server = sandbox.serve();
    assert_eq!(list_tools(&server, &tenants.tokens[1]).await, SERVED);
    let entries = sandbox.audit(&[]);
    let rotations = entries.iter().filter(|entry| entry["action"] == "root.rotate");
    assert_eq!(rotations.filter(|entry| entry["decision"] == "allowed").count(), 3);
}

#[tokio::test]
async fn a_sealed_tenant_is_refused_and_the_others_are_served() {
    let tenants = TwoTenants::new();
    let sandbox = &tenants.sandbox;
    let server = sandbox.serve();
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
    sandbox.run(&["seal", "tenant001"]).ok();
    let sealed = (StatusCode::SERVICE_UNAVAILABLE, Some("VAULT_SEALED".to_owned()));
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, sealed);
    assert_eq!(list_tools(&server, &tenants.tokens[1]).await, SERVED);
    sandbox.run(&["unseal", "tenant001"]).ok();
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
}

#[tokio::test]
async fn a_removed_tenant_is_gone_at_once_and_certified() {
    let tenants = TwoTenants::new();
    let sandbox = &tenants.sandbox;
    let server = sandbox.serve();
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
    sandbox.run(&["tenant", "remove", "tenant001"]).failed(2, &["--yes"]);
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
    let answer = sandbox.json(&["tenant", "remove", "--yes", "tenant001"]);
    let removed = &answer["removed"][0];
    assert_eq!(removed["tenant_id"], "tenant001");
    assert!(removed["database"].as_str().unwrap().ends_with("databases/tenant001.db"));
    let certificate = removed["certificate"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(removed["file"].as_str().unwrap()).unwrap(), certificate);
    assert!(tenantry::vault::Certificate::verify(certificate).is_some(), "{certificate}");
    let file = sandbox.path("certificate");
    std::fs::write(&file, certificate).unwrap();
    let file = file.to_str().unwrap();
    let key = sandbox.json(&["status"])["certificate_key"].as_str().unwrap().to_owned();
    sandbox.run(&["certificate", "verify", file, "--signer", &key]).ok();
    let other = "0".repeat(64);
    sandbox.run(&["certificate", "verify", file, "--signer", &other]).failed(4, &["another key"]);
    std::fs::write(file, certificate.replace("S0 S1", "S0 S2")).unwrap();
    sandbox.run(&["certificate", "verify", file]).failed(4, &["changed"]);
    assert_ne!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
    assert_eq!(list_tools(&server, &tenants.tokens[1]).await, SERVED);
    sandbox.run(&["tenant", "show", "tenant001"]).failed(1, &["TENANT_NOT_CONFIGURED"]);
    // Once more: it is as removed as it was.
    let told = sandbox.run(&["tenant", "remove", "--yes", "tenant001"]).ok().stdout;
    assert!(told.starts_with("removed tenant001: certificate "), "{told}");
    sandbox.run(&["tenant", "remove", "--yes", "tenant009"]).failed(1, &["TENANT_NOT_CONFIGURED"]);
}

#[tokio::test]
async fn an_older_header_is_refused_until_the_rollback_is_accepted_and_that_is_recorded() {
    let tenants = TwoTenants::new();
    let sandbox = &tenants.sandbox;
    let header = sandbox.data_dir().join("header");
    let former = std::fs::read(&header).unwrap();
    let roll_back = || {
        let key_file = sandbox.path("key_file");
        sandbox.run(&["slot", "add", "key-file", key_file.to_str().unwrap()]).ok();
        std::fs::write(&header, &former).unwrap();
    };
    let said = "the header is not the one that belonged to the store";

    roll_back();
    sandbox.run(&["tenant", "list"]).failed(4, &["--accept-rollback"]);
    sandbox.run(&["serve", "--listen", "127.0.0.1:0"]).failed(4, &["--accept-rollback"]);
    let serve = ["serve", "--accept-rollback", "--listen", "127.0.0.1:0"];
    let server = Server::start(&mut sandbox.command(&serve));
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
    assert!(server.stop().ok().stderr.contains(said));

    roll_back();
    let server = sandbox.serve_sealed();
    sandbox.run(&["unseal"]).failed(4, &["--accept-rollback"]);
    let unsealed = sandbox.run(&["unseal", "--accept-rollback"]).ok();
    assert!(unsealed.stderr.contains(said), "{}", unsealed.stderr);
    assert_eq!(list_tools(&server, &tenants.tokens[0]).await, SERVED);
    server.stop().ok();

    roll_back();
    assert!(sandbox.run(&["unseal", "--accept-rollback"]).ok().stderr.contains(said));
    let again = sandbox.run(&["unseal", "--accept-rollback"]).ok();
    assert!(!again.stderr.contains(said), "{}", again.stderr);
    sandbox.run(&["tenant", "list"]).ok();

    let accepted: Vec<_> = sandbox
        .audit(&[])
        .into_iter()
        .filter(|entry| entry["action"] == "rollback.accept" && entry["decision"] == "allowed")
        .collect();
    assert_eq!(accepted.len(), 3, "{accepted:?}");
    assert!(accepted.iter().all(|entry| entry["resource"].as_str().unwrap().starts_with(said)));
}
