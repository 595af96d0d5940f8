//! What the integration tests share: a data directory, tenants on real SQLite files, the program.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a failed set-up should fail the test")]

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry::clock::SystemClock;
use tenantry::memory::SecretText;
use tenantry::store::DataDir;
use tenantry::vault::{self, KdfCost};

pub(crate) const PASSPHRASE: &str = "canary-passphrase-7f3a91";
/// Customers in each tenant's database.
pub(crate) const CUSTOMERS: u64 = 40;

/// A directory of its own for one test, with a vault that opens quickly.
pub(crate) struct Sandbox {
    directory: TempDir,
}

/// What a finished program left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running `tenantry serve`.
pub(crate) struct Server {
    child: Child,
    /// `http://127.0.0.1:PORT/mcp`
    pub(crate) endpoint: String,
}

impl Sandbox {
    /// With a vault.
    pub(crate) fn new() -> Self {
        let sandbox = Self::without_vault();
        let directory = DataDir::create(sandbox.data_dir()).unwrap();
        let passphrase = SecretText::from(PASSPHRASE);
        vault::create(&directory, &passphrase, KdfCost::insecure_for_tests(), &SystemClock)
            .unwrap();
        sandbox
    }

    /// With a passphrase file only.
    pub(crate) fn without_vault() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sandbox = Self { directory };
        let passphrase = sandbox.path("passphrase");
        std::fs::write(&passphrase, PASSPHRASE).unwrap();
        std::fs::set_permissions(&passphrase, Permissions::from_mode(0o600)).unwrap();
        std::fs::create_dir_all(sandbox.path("configs")).unwrap();
        sandbox
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes `{id}.json` for a SQLite tenant, with `more` fields, and its database.
    pub(crate) fn add_tenant(&self, id: &str, more: &Value) {
        let mut file = json!({
            "tenant_id": id, "db_engine": "sqlite", "db_path": format!("{id}.db"),
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            file[name] = value.clone();
        }
        self.write_config(&format!("{id}.json"), &file.to_string());
        std::fs::create_dir_all(self.data_dir().join("databases")).unwrap();
        make_database(&self.data_dir().join("databases").join(format!("{id}.db")), id);
    }

    pub(crate) fn write_config(&self, name: &str, text: &str) {
        std::fs::write(self.path("configs").join(name), text).unwrap();
    }

    /// Imports everything that [`Sandbox::add_tenant`] wrote.
    pub(crate) fn import(&self) {
        let configs = self.path("configs");
        self.run(&["tenant", "import", configs.to_str().unwrap()]).ok();
    }

    /// A command of the program on this data directory, with the passphrase.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.keyless_command(&[]);
        command.arg("--passphrase-file").arg(self.path("passphrase")).args(arguments);
        command
    }

    /// A command of the program on this data directory, without anything to open it.
    pub(crate) fn keyless_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        command
            .current_dir(self.directory.path())
            .env_remove("TENANTRY_PASSPHRASE")
            // The vault costs next to nothing to open, and should stay so.
            .env("TENANTRY_VAULT__UPGRADE_KDF", "false")
            .env("TENANTRY_STORE__BALLAST_MIB", "0")
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        finish(&mut self.command(arguments))
    }

    /// The JSON answer of a command that must succeed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> =
            ["--json"].into_iter().chain(arguments.iter().copied()).collect();
        serde_json::from_str(&self.run(&arguments).ok().stdout).unwrap()
    }

    pub(crate) fn token(&self, tenant: &str) -> String {
        let token = self.json(&["token", "create", "--tenant", tenant]);
        token["token"].as_str().unwrap().to_owned()
    }

    /// The entries of the audit log, with these arguments of `audit list`.
    pub(crate) fn audit(&self, arguments: &[&str]) -> Vec<Value> {
        let all: Vec<&str> =
            ["--json", "audit", "list"].into_iter().chain(arguments.iter().copied()).collect();
        let text = self.run(&all).ok().stdout;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Starts `serve` on a free port and waits until it accepts calls.
    pub(crate) fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    pub(crate) fn serve_with(&self, variables: &[(&str, &str)]) -> Server {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        Server::start(command.envs(variables.iter().copied()))
    }

    /// Starts `serve` without any key.
    pub(crate) fn serve_sealed(&self) -> Server {
        Server::start(&mut self.keyless_command(&["serve", "--sealed", "--listen", "127.0.0.1:0"]))
    }

    /// Every file below the data directory with its content, the databases left out.
    pub(crate) fn stored_bytes(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut open = vec![self.data_dir()];
        while let Some(directory) = open.pop() {
            for item in std::fs::read_dir(directory).unwrap() {
                let path = item.unwrap().path();
                if path.is_dir() && path.file_name().unwrap() != "databases" {
                    open.push(path);
                } else if path.is_file() {
                    let content = std::fs::read(&path).unwrap();
                    files.push((path, content));
                }
            }
        }
        files
    }
}

impl Server {
    /// Runs a `serve` that picks its port, and waits until it accepts calls.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(endpoint) = line.split_whitespace().find(|word| word.starts_with("http")) else {
            let mut stderr = String::new();
            child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            unreachable!("the service did not start: {line}{stderr}");
        };
        Self { endpoint: endpoint.to_owned(), child }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Asks it to stop, and waits.
    pub(crate) fn stop(mut self) -> Finished {
        self.signal("-TERM");
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> Finished {
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Finished { status: self.child.wait().unwrap(), stdout: String::new(), stderr }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone when it was stopped.
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}

impl Finished {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!(
            self.status.success(),
            "failed with {}:\n{}{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }

    /// It failed with this exit code, and said all of `parts` on standard error.
    #[track_caller]
    pub(crate) fn failed(self, exit_code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.status.code(), Some(exit_code), "{}{}", self.stdout, self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in:\n{}", self.stderr);
        }
        self
    }
}

pub(crate) fn finish(command: &mut Command) -> Finished {
    let output = command.output().unwrap();
    Finished {
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A small shop whose rows all name their tenant.
fn make_database(path: &Path, tenant: &str) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch(&format!(
            "BEGIN;
             CREATE TABLE customers (
                 id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, password_hash TEXT);
             CREATE TABLE orders (
                 id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers, total REAL);
             CREATE VIEW order_totals AS
                 SELECT customer_id, sum(total) AS total FROM orders GROUP BY customer_id;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {CUSTOMERS})
             INSERT INTO customers
                 SELECT i, 'Customer ' || i, 'c' || i || '@{tenant}.example', 'hash' || i FROM n;
             INSERT INTO orders SELECT id * 10, id, id * 1.5 FROM customers;
             COMMIT;"
        ))
        .unwrap();
}
