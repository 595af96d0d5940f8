//! SIGKILL in the middle of every change of keys, at moments spread over the time that it takes.

use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{PASSPHRASE, Sandbox, finish};

const TENANTS: usize = 120;
const NEW_PASSPHRASE: &str = "another passphrase of this vault";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    for number in 0..TENANTS {
        let id = format!("tenant{number:03}");
        let file = json!({ "tenant_id": id, "db_engine": "sqlite", "db_path": "a.db",
            "api_keys": { "one": "1", "two": "2" } });
        sandbox.write_config(&format!("{id}.json"), &file.to_string());
    }
    sandbox.import();
    std::fs::write(sandbox.path("new"), NEW_PASSPHRASE).unwrap();
    sandbox
}

/// Runs `arguments` to the end once, then kills it `kills` times, each time later, and lets `check`
/// see what it left.
#[expect(clippy::disallowed_methods, reason = "a kill comes at a moment of real time")]
fn kill_at_every_moment(
    sandbox: &Sandbox,
    kills: u32,
    arguments: impl Fn(u32) -> Vec<String>,
    check: impl Fn(u32),
) {
    let start = Instant::now();
    let command = |round| {
        let arguments = arguments(round);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = sandbox.command(&arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(command(0).status().unwrap().success());
    let whole = start.elapsed();
    check(0);
    let mut killed = 0;
    for round in 1..=kills {
        let mut child = command(round).spawn().unwrap();
        std::thread::sleep(whole * round / (kills + 1));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        check(round);
    }
    // The first run may have been slower than the others are.
    assert!(4 * killed >= kills, "{killed} of {kills} were in the middle of it");
}

fn ids(sandbox: &Sandbox) -> Vec<String> {
    let tenants = sandbox.json(&["tenant", "list"]);
    let id = |tenant: &Value| tenant["tenant_id"].as_str().unwrap().to_owned();
    tenants.as_array().unwrap().iter().map(id).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[test]
fn a_rotation_of_every_key_that_is_killed_is_finished_by_the_next_reseal() {
    let sandbox = sandbox();
    kill_at_every_moment(
        &sandbox,
        8,
        // It has the rotation of a tenant's key in it.
        |_| words("root rotate --reseal"),
        |_| {
            assert_eq!(ids(&sandbox).len(), TENANTS);
            let reseal = sandbox.json(&["reseal"]);
            assert_eq!(reseal["remaining"], 0, "{reseal}");
            assert_eq!(ids(&sandbox).len(), TENANTS);
        },
    );
}

#[test]
fn a_change_of_passphrase_that_is_killed_leaves_one_that_opens() {
    let sandbox = sandbox();
    let opens = || {
        let passphrase = std::fs::read_to_string(sandbox.path("passphrase")).unwrap();
        [PASSPHRASE, NEW_PASSPHRASE].into_iter().find(|candidate| {
            std::fs::write(sandbox.path("passphrase"), candidate).unwrap();
            let opened = finish(&mut sandbox.command(&["tenant", "list"])).status.success();
            std::fs::write(sandbox.path("passphrase"), &passphrase).unwrap();
            opened
        })
    };
    kill_at_every_moment(
        &sandbox,
        // A key derivation at full cost each time.
        4,
        |_| {
            let mut words = words("passphrase change --new-passphrase-file");
            words.push(sandbox.path("new").display().to_string());
            words
        },
        |_| {
            let present = opens().expect("neither passphrase opens");
            let other = if present == PASSPHRASE { NEW_PASSPHRASE } else { PASSPHRASE };
            std::fs::write(sandbox.path("passphrase"), present).unwrap();
            std::fs::write(sandbox.path("new"), other).unwrap();
            assert_eq!(ids(&sandbox).len(), TENANTS);
        },
    );
}

#[test]
fn a_removal_that_is_killed_is_done_or_not_and_can_be_repeated() {
    let sandbox = sandbox();
    let id = |round: u32| format!("tenant{round:03}");
    kill_at_every_moment(
        &sandbox,
        8,
        |round| words(&format!("tenant remove --yes {}", id(round))),
        |round| {
            let left = ids(&sandbox);
            let is_gone = !left.contains(&id(round));
            assert_eq!(left.len(), TENANTS - round as usize - usize::from(is_gone));
            sandbox.run(&["tenant", "remove", "--yes", &id(round)]).ok();
            assert_eq!(ids(&sandbox).len(), TENANTS - round as usize - 1);
        },
    );
}
