//! `fsck`: a verdict for every part, with a service and without, and what a rescue brings back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Finished, Sandbox, finish};

const SECRET: &str = "canary-secret-77e0b1";
const PARTS: [&str; 9] =
    ["header", "keyring", "anchor", "journal", "manifest", "records", "tokens", "backups", "audit"];

/// Three tenants with a secret each, and a token.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    for id in ["tenant001", "tenant002", "tenant003"] {
        sandbox.add_tenant(id, &json!({ "api_keys": { "openai": SECRET } }));
    }
    sandbox.import();
    sandbox.token("tenant001");
    sandbox
}

/// What `fsck` said of each part. No secret is in it.
fn fsck(sandbox: &Sandbox, exit_code: i32) -> Value {
    let finished = sandbox.run(&["--json", "fsck"]);
    let shown = format!("{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.status.code(), Some(exit_code), "{shown}");
    assert!(!shown.contains(SECRET) && !shown.contains(crate::support::PASSPHRASE), "{shown}");
    assert!(!sandbox.path("data.fsck").exists());
    serde_json::from_str(&finished.stdout).unwrap()
}

fn verdict(report: &Value, part: &str) -> String {
    let parts = report["parts"].as_array().unwrap();
    let part = parts.iter().find(|it| it["part"] == part).expect("each part is there");
    part["verdict"].as_str().unwrap().to_owned()
}

/// `bad` is as it says, and every other part is good.
#[track_caller]
fn assert_only(report: &Value, bad: &str, expected: &str) {
    for part in PARTS {
        let expected = if part == bad { expected } else { "good" };
        assert_eq!(verdict(report, part), expected, "{part}: {report:#}");
    }
    assert_eq!(report["verdict"], expected);
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn newest(sandbox: &Sandbox, directory: &str, extension: &str) -> PathBuf {
    let entries = fs::read_dir(sandbox.data_dir().join(directory)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == extension));
    paths.sort();
    paths.pop().unwrap()
}

/// The program on another data directory, with the same passphrase.
fn run_on(sandbox: &Sandbox, directory: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command
        .current_dir(sandbox.path(""))
        .env_remove("TENANTRY_PASSPHRASE")
        .env("TENANTRY_VAULT__UPGRADE_KDF", "false")
        .arg("--data-dir")
        .arg(directory)
        .arg("--passphrase-file")
        .arg(sandbox.path("passphrase"))
        .args(arguments)
        .stdin(Stdio::null());
    finish(&mut command)
}

#[test]
fn an_honest_store_is_good_in_every_part_and_the_answer_has_its_shape() {
    let sandbox = sandbox();
    let report = fsck(&sandbox, 0);
    assert_only(&report, "", "good");
    let parts: Vec<&str> =
        report["parts"].as_array().unwrap().iter().map(|it| it["part"].as_str().unwrap()).collect();
    assert_eq!(parts, PARTS);
    for part in report["parts"].as_array().unwrap() {
        let members: Vec<&String> = part.as_object().unwrap().keys().collect();
        assert_eq!(members.len(), 5, "{members:?}");
        assert_eq!((&part["findings"], &part["omitted"]), (&json!([]), &json!(0)));
    }
    let text = sandbox.run(&["fsck"]).ok().stdout;
    assert!(text.starts_with("PART") && text.lines().count() == 10, "{text}");
    let entries = sandbox.audit(&[]);
    let last = entries.iter().rfind(|entry| entry["action"] == "vault.fsck").unwrap();
    assert_eq!((&last["decision"], last["rows"].as_u64() > Some(10)), (&json!("allowed"), true));

    fs::write(sandbox.path("passphrase"), "another passphrase altogether").unwrap();
    sandbox.run(&["fsck"]).failed(3, &["wrong passphrase"]);
}

#[test]
fn a_part_that_does_not_open_is_told_and_the_others_are_checked_as_far_as_they_can_be() {
    let sandbox = sandbox();
    let (header, keyring) = (sandbox.data_dir().join("header"), sandbox.data_dir().join("keyring"));
    let good = fs::read(&header).unwrap();
    flip(&header, good.len() - 1);
    let report = fsck(&sandbox, 4);
    assert_eq!(verdict(&report, "header"), "damaged");
    assert_eq!(
        (verdict(&report, "records"), verdict(&report, "audit")),
        ("unchecked".into(), "good".into())
    );
    fs::write(&header, &good[..20]).unwrap();
    assert_eq!(verdict(&fsck(&sandbox, 4), "header"), "damaged");
    fs::remove_file(&header).unwrap();
    sandbox.run(&["fsck"]).failed(4, &["header is missing", "backup restore"]);
    fs::write(&header, good).unwrap();

    let good = fs::read(&keyring).unwrap();
    flip(&keyring, good.len() / 2);
    let report = fsck(&sandbox, 4);
    let verdicts =
        ["header", "keyring", "journal", "records", "audit"].map(|it| verdict(&report, it));
    assert_eq!(verdicts, ["good", "damaged", "unchecked", "unchecked", "good"]);
    let text = sandbox.run(&["fsck"]).failed(4, &["damage was found: keyring"]).stdout;
    assert!(text.contains("way out: restore it from a backup"), "{text}");
    fs::write(&keyring, good).unwrap();
    assert_only(&fsck(&sandbox, 0), "", "good");
}

#[test]
fn a_damaged_audit_log_is_told_with_its_line_and_everything_else_is_checked_without_writing() {
    let sandbox = sandbox();
    let segment = newest(&sandbox, "audit", "jsonl");
    let good = fs::read_to_string(&segment).unwrap();
    let lines: Vec<&str> = good.split_inclusive('\n').collect();
    let without_second = [&lines[..1], &lines[2..]].concat().concat();
    fs::write(&segment, without_second).unwrap();
    let before = sandbox.stored_bytes();
    let report = fsck(&sandbox, 4);
    assert_only(&report, "audit", "damaged");
    let findings = &report["parts"][8]["findings"];
    assert!(findings[0]["message"].as_str().unwrap().contains("entry 2 is missing before line 2"));
    let after = sandbox.stored_bytes();
    // Counts attempts to open it, and nothing else.
    let is_other = |file: &&(PathBuf, Vec<u8>)| !file.0.ends_with("attempts");
    assert!(before.iter().filter(is_other).eq(after.iter().filter(is_other)));
    fs::write(&segment, good).unwrap();
    assert_only(&fsck(&sandbox, 0), "", "good");
}

#[test]
fn what_an_opening_repairs_is_told_once_and_is_good_afterwards() {
    let sandbox = sandbox();
    let data = sandbox.data_dir();
    let engine = data.join("store");
    for (part, damage) in [
        ("anchor", &(|| fs::write(data.join("anchor"), b"nonsense").unwrap()) as &dyn Fn()),
        ("journal", &|| flip(&newest(&sandbox, "journal", "log"), 300)),
        ("manifest", &|| fs::write(engine.join("db"), b"nonsense").unwrap()),
        ("manifest", &|| fs::remove_dir_all(&engine).unwrap()),
    ] {
        damage();
        let report = fsck(&sandbox, 0);
        assert_only(&report, part, "repaired");
        assert_only(&fsck(&sandbox, 0), "", "good");
    }
    assert_eq!(sandbox.json(&["tenant", "list"]).as_array().unwrap().len(), 3);
}

#[test]
fn a_running_service_checks_itself_and_says_what_is_damaged_meanwhile() {
    let sandbox = sandbox();
    let server = sandbox.serve();
    assert_only(&fsck(&sandbox, 0), "", "good");
    for (part, path) in [
        ("anchor", sandbox.data_dir().join("anchor")),
        ("journal", newest(&sandbox, "journal", "log")),
        ("header", sandbox.data_dir().join("header")),
        ("keyring", sandbox.data_dir().join("keyring")),
    ] {
        let good = fs::read(&path).unwrap();
        fs::write(&path, &good[..30]).unwrap();
        assert_only(&fsck(&sandbox, 4), part, "damaged");
        fs::write(&path, good).unwrap();
    }
    assert_only(&fsck(&sandbox, 0), "", "good");
    let entries = sandbox.audit(&["--code", "INTEGRITY_ERROR"]);
    assert_eq!(entries.len(), 4);
    assert!(entries.iter().all(|entry| entry["action"] == "vault.fsck"));
    let out = sandbox.path("out");
    sandbox.run(&["fsck", "--salvage", out.to_str().unwrap()]).failed(75, &["needs for itself"]);
    server.stop().ok();
}

#[test]
fn of_a_store_that_does_not_open_everything_is_told_and_what_opens_is_rescued() {
    let sandbox = sandbox();
    let data = sandbox.data_dir();
    let (engine, journal) = (data.join("store/db"), newest(&sandbox, "journal", "log"));
    // In the middle of the import of the tenants, which is the largest commit.
    let length = fs::read(&journal).unwrap().len();
    fs::write(&engine, b"nonsense").unwrap();
    flip(&journal, length - 40);
    sandbox.run(&["tenant", "list"]).failed(4, &[]);
    let report = fsck(&sandbox, 4);
    for (part, expected) in [
        ("header", "good"),
        ("keyring", "good"),
        ("anchor", "good"),
        ("journal", "damaged"),
        ("manifest", "damaged"),
        ("records", "good"),
        ("audit", "good"),
    ] {
        assert_eq!(verdict(&report, part), expected, "{part}: {report:#}");
    }
    let out = sandbox.path("out");
    let salvage = ["fsck", "--salvage", out.to_str().unwrap()];
    let before = sandbox.stored_bytes();
    let finished = sandbox.run(&salvage).ok();
    assert!(finished.stdout.contains("3 tenants as they were"), "{}", finished.stdout);
    assert!(finished.stdout.contains("commits "), "{}", finished.stdout);
    assert!(!format!("{finished:?}").contains(SECRET));
    let after = sandbox.stored_bytes();
    let is_other = |file: &&(PathBuf, Vec<u8>)| !file.0.ends_with("attempts");
    assert!(before.iter().filter(is_other).eq(after.iter().filter(is_other)));

    let list = run_on(&sandbox, &out, &["--json", "tenant", "list"]).ok().stdout;
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap().as_array().unwrap().len(), 3);
    let report = run_on(&sandbox, &out, &["--json", "fsck"]).ok().stdout;
    assert_only(&serde_json::from_str(&report).unwrap(), "", "good");
    let audit = run_on(&sandbox, &out, &["audit", "list"]).ok().stdout;
    assert!(audit.contains("tenant.import") && audit.contains("vault.salvage"), "{audit}");
    sandbox.run(&salvage).failed(1, &["already initialised"]);
}

#[test]
fn a_store_whose_journal_is_damaged_as_well_is_built_anew_from_a_backup() {
    let sandbox = sandbox();
    let backup = sandbox.path("a.backup");
    sandbox.run(&["backup", "create", backup.to_str().unwrap()]).ok();
    assert_only(&fsck(&sandbox, 0), "", "good");
    sandbox.token("tenant002");
    let engine = sandbox.data_dir().join("store/db");
    fs::write(&engine, b"nonsense").unwrap();
    // Long before the backup was made.
    flip(&newest(&sandbox, "journal", "log"), 300);
    let report = fsck(&sandbox, 4);
    assert_eq!(verdict(&report, "journal"), "damaged");
    let out = sandbox.run(&["tenant", "list"]).failed(4, &[]);
    assert!(!out.stderr.contains(SECRET));

    let nonsense = sandbox.path("b.backup");
    fs::write(&nonsense, b"nonsense").unwrap();
    sandbox.run(&["fsck", "--rebuild-from", nonsense.to_str().unwrap()]).failed(4, &["b.backup"]);
    let report = sandbox.json(&["fsck", "--rebuild-from", backup.to_str().unwrap()]);
    assert_eq!(report["verdict"], "repaired", "{report:#}");
    assert_only(&fsck(&sandbox, 0), "", "good");
    assert_eq!(sandbox.json(&["tenant", "list"]).as_array().unwrap().len(), 3);
    // That of the time after the backup, too.
    assert_eq!(sandbox.json(&["token", "list"]).as_array().unwrap().len(), 2);
    let entries = sandbox.audit(&[]);
    assert!(
        entries.iter().any(|it| it["action"] == "store.rebuild" && it["decision"] == "allowed")
    );
}

#[test]
fn a_known_backup_is_looked_at_and_one_that_is_elsewhere_is_no_damage() {
    let sandbox = sandbox();
    let backup = sandbox.path("a.backup");
    sandbox.run(&["backup", "create", backup.to_str().unwrap()]).ok();
    let good = fs::read(&backup).unwrap();
    fs::write(&backup, &good[..good.len() / 2]).unwrap();
    assert_only(&fsck(&sandbox, 4), "backups", "damaged");
    fs::remove_file(&backup).unwrap();
    let report = fsck(&sandbox, 0);
    assert_only(&report, "", "good");
    let finding = &report["parts"][7]["findings"][0];
    assert!(finding["way_out"].as_str().unwrap().contains("backup forget"), "{report:#}");
}

#[test]
fn an_older_store_is_told_and_accepted_only_when_that_is_said() {
    let sandbox = sandbox();
    let copy = |from: &Path, to: &Path| {
        let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
        assert!(status.success());
    };
    for part in ["store", "journal"] {
        copy(&sandbox.data_dir().join(part), &sandbox.path(part));
    }
    for _ in 0..3 {
        sandbox.token("tenant002");
    }
    for part in ["store", "journal"] {
        let present = sandbox.data_dir().join(part);
        fs::remove_dir_all(&present).unwrap();
        copy(&sandbox.path(part), &present);
    }
    let report = fsck(&sandbox, 4);
    assert_eq!(verdict(&report, "anchor"), "good", "{report:#}");
    assert_eq!(verdict(&report, "journal"), "damaged", "{report:#}");
    let report = sandbox.json(&["fsck", "--accept-rollback"]);
    assert_eq!(report["verdict"], "repaired", "{report:#}");
    assert_only(&fsck(&sandbox, 0), "", "good");
    assert_eq!(sandbox.json(&["token", "list"]).as_array().unwrap().len(), 1);
}
