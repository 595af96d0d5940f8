//! What others can see of the running service's process: nothing, but for root, who finds nothing.

#[path = "../memory/keys.rs"]
mod keys;
#[path = "../memory/scan.rs"]
mod scan;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use crate::postgres::{make_tenant, superuser};
use crate::support::{PASSPHRASE, Sandbox, Server};
use crate::{Era, call, connect, content, error_code, query};
use keys::{Opener, Secret};

const TENANT: &str = "tenant001";

/// How often each of `secrets` is in the service's memory; none when this user may not look, and
/// that must not be root.
fn copies(server: &Server, secrets: &[Secret]) -> Option<Vec<usize>> {
    // Text by its end: allocators overwrite the beginning of what is freed.
    let wanted: Vec<&[u8]> =
        secrets.iter().map(|secret| &secret.bytes[secret.bytes.len() - 16..]).collect();
    match scan::count(server.pid(), &wanted) {
        Ok(counts) => Some(counts),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(!is_root(), "root reads every process");
            None
        }
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// What is there although it should not be, and the other way round.
fn wrong<'a>(
    counts: &[usize],
    secrets: &'a [Secret],
    is_there: impl Fn(&Secret) -> bool,
) -> Vec<(&'a str, usize)> {
    let found = secrets.iter().zip(counts);
    let wrong = found.filter(|(secret, count)| (**count > 0) != is_there(secret));
    wrong.map(|(secret, count)| (secret.name.as_str(), *count)).collect()
}

#[tokio::test]
async fn a_sealed_service_has_no_secret_in_its_memory() {
    let sandbox = Sandbox::new();
    let [password, api_key] = [(); 2].map(|()| scan::random_text());
    let file = json!({
        "tenant_id": TENANT, "db_host": "127.0.0.1", "db_port": 1, "db_name": "d", "db_user": "u",
        "db_password": password, "db_sslmode": "disable", "api_keys": { "one": api_key },
    });
    sandbox.write_config(&format!("{TENANT}.json"), &file.to_string());
    sandbox.import();
    let token = sandbox.token(TENANT);
    let passphrase = PASSPHRASE.as_bytes();
    let mut secrets =
        keys::of(&sandbox.data_dir(), &[Opener::Passphrase(passphrase.to_vec())], &[TENANT]);
    secrets.push(Secret::new("passphrase", passphrase, false));
    for text in [&password, &api_key] {
        secrets.push(Secret::new("credential", text.as_bytes(), true));
    }

    let mut serve = sandbox.keyless_command(&["serve", "--listen", "127.0.0.1:0"]);
    let server = Server::start(serve.env("TENANTRY_PASSPHRASE", PASSPHRASE));
    for _ in 0..2 {
        let client = connect(&server.endpoint, &token, Era::Modern).await;
        let answer = query(&client, &format!("mcp://{TENANT}/database"), "SELECT 1").await;
        assert_eq!(error_code(&answer), "DATABASE_UNAVAILABLE");
        if let Some(counts) = copies(&server, &secrets) {
            // What is needed is found, so the search finds what is there.
            let wrong = wrong(&counts, &secrets, |secret| secret.is_held);
            assert!(wrong.is_empty(), "while unsealed: {wrong:?}");
        }
        sandbox.run(&["seal"]).ok();
        if let Some(counts) = copies(&server, &secrets) {
            let wrong = wrong(&counts, &secrets, |_| false);
            assert!(wrong.is_empty(), "sealed: {wrong:?}");
        }
        // Once more with a passphrase that came through the admin socket.
        sandbox.run(&["unseal"]).ok();
    }
    if is_root() {
        let environment = fs::read(format!("/proc/{}/environ", server.pid())).unwrap();
        let text = String::from_utf8_lossy(&environment);
        assert!(text.contains("PATH=") && !text.contains(PASSPHRASE), "{text}");
    }
    server.stop().ok();
}

/// Whether somebody with the user number of `path`'s owner can read `file` of the process `pid`.
fn can_read(pid: u32, file: &str, user: Option<u32>) -> bool {
    let mut command = Command::new("head");
    command.args(["-c", "1"]).arg(format!("/proc/{pid}/{file}"));
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = command.current_dir("/").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || said.contains("Permission denied"), "{said}");
    output.status.success()
}

fn give_to(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        for item in fs::read_dir(path).unwrap() {
            give_to(&item.unwrap().path(), user);
        }
    }
}

#[test]
fn another_process_of_the_same_user_cannot_read_the_service() {
    const NOBODY: u32 = 65_534;
    let sandbox = Sandbox::new();
    let user = is_root().then_some(NOBODY);
    let mut serve = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut other = Command::new("sleep");
    other.arg("600").current_dir("/").stdin(Stdio::null());
    if let Some(user) = user {
        // Root can read every process, so somebody else has to look at somebody else's.
        give_to(&sandbox.path(""), user);
        serve.uid(user).gid(user);
        other.uid(user).gid(user);
    }
    let server = Server::start(&mut serve);
    let mut other = other.spawn().unwrap();
    // "environ" as well as "mem", which the system may withhold from everybody (Yama).
    let is_read = can_read(other.id(), "environ", user);
    drop(other.kill().and_then(|()| other.wait()));
    assert!(is_read, "an ordinary process can be read");
    for file in ["mem", "environ", "maps", "auxv"] {
        assert!(!can_read(server.pid(), file, user), "{file}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let core: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(core, ["0", "0"]);
    server.stop().ok();
}

/// What the server that stores `verifier` takes for `password`: whoever has it logs in as well.
fn scram_keys(password: &str, verifier: &str) -> [Vec<u8>; 2] {
    let mac = |key: &[u8], parts: &[&[u8]]| {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().to_vec()
    };
    let (iterations, salt) = verifier.split('$').nth(1).unwrap().split_once(':').unwrap();
    let salt = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, salt).unwrap();
    let mut block = mac(password.as_bytes(), &[&salt, &1_u32.to_be_bytes()]);
    let mut salted = block.clone();
    for _ in 1..iterations.parse().unwrap() {
        block = mac(password.as_bytes(), &[&block]);
        salted.iter_mut().zip(&block).for_each(|(one, other)| *one ^= other);
    }
    let client_key = mac(&salted, &[b"Client Key"]);
    [salted, client_key]
}

#[tokio::test]
async fn a_postgres_session_stays_open_and_its_password_does_not() {
    const ID: &str = "pgmemory1";
    let password = scan::random_text();
    let sandbox = Sandbox::new();
    let mut file = make_tenant(ID, &password).await;
    file["db_password"] = json!(password);
    sandbox.write_config(&format!("{ID}.json"), &file.to_string());
    sandbox.import();
    let token = sandbox.token(ID);
    let admin = superuser("postgres").await;
    let verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = 'pgmemory1_app'";
    let verifier: String = admin.query_one(verifier, &[]).await.unwrap().get(0);
    let mut secrets = vec![Secret::new("password", password.as_bytes(), false)];
    let [salted, client_key] = scram_keys(&password, &verifier);
    secrets.push(Secret::new("salted password", &salted, false));
    secrets.push(Secret::new("client key", &client_key, false));

    let environment =
        [("TENANTRY_VAULT__CREDENTIAL_TTL_SECONDS", "1"), ("TENANTRY_LOG__LEVEL", "trace")];
    let server = sandbox.serve_with(&environment);
    let client = connect(&server.endpoint, &token, Era::Modern).await;
    let sessions = async || -> Vec<i32> {
        let sessions = "SELECT pid FROM pg_stat_activity WHERE usename = 'pgmemory1_app'";
        admin.query(sessions, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    let ask = async || {
        let uri = format!("mcp://{ID}/database");
        let answer = query(&client, &uri, "SELECT email FROM customers WHERE id = 7").await;
        assert_eq!(content(&answer)["rows"], json!([["c7@pgmemory1.example"]]), "{answer:?}");
    };
    ask().await;
    let session = sessions().await;
    assert_eq!(session.len(), 1);
    let mut counts = copies(&server, &secrets);
    let forgotten = tokio::time::timeout(Duration::from_secs(20), async {
        while counts.as_ref().is_some_and(|counts| counts[0] > 0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            counts = copies(&server, &secrets);
        }
    });
    assert!(forgotten.await.is_ok(), "the password stays: {:?}", copies(&server, &secrets));
    ask().await;
    assert_eq!(sessions().await, session, "the session is the same");
    if let Some(counts) = copies(&server, &secrets) {
        let wrong = wrong(&counts, &secrets, |_| false);
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    call(&client, "get_tenant_metadata", json!({})).await;
    let log = server.stop().ok().stderr;
    assert!(!log.contains(&password) && !log.contains("SELECT"), "{log}");
}

/// A service where so many files may be open: what is let to it, and what it could be.
fn serve_with_files(sandbox: &Sandbox, soft: u32, hard: u32) -> Server {
    let program = env!("CARGO_BIN_EXE_tenantry");
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec \"$0\" \"$@\"")])
        .arg(program)
        .args(sandbox.command(&["serve", "--listen", "127.0.0.1:0"]).get_args())
        .current_dir(sandbox.path(""))
        .env("TENANTRY_STORE__BALLAST_MIB", "0")
        .env("TENANTRY_VAULT__UPGRADE_KDF", "false")
        .env("TENANTRY_POOL__MAX_SESSIONS", "300")
        .env("TENANTRY_HTTP__MAX_CONNECTIONS", "2048")
        .stdin(Stdio::null());
    Server::start(&mut command)
}

#[test]
fn as_many_files_may_be_open_as_sessions_need_or_it_is_said() {
    const NEEDED: &str = "3504";
    let sandbox = Sandbox::new();
    for (hard, limit) in [(5_000, NEEDED), (1_000, "1000")] {
        let server = serve_with_files(&sandbox, 256, hard);
        let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().nth(3), Some(limit), "{files}");
        let log = server.stop().ok().stderr;
        let is_told = log.contains("LimitNOFILE") && log.contains(NEEDED);
        assert_eq!(is_told, limit != NEEDED, "{log}");
    }
}
