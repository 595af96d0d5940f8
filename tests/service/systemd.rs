//! The service manager, as `systemd` is one: a datagram socket that the test binds.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use crate::TwoTenants;
use crate::support::{Sandbox, Server};

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_mins(1);

struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<String>,
}

impl Manager {
    fn new(sandbox: &Sandbox) -> Self {
        let path = sandbox.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path, heard: Vec::new() }
    }

    fn start(&self, sandbox: &Sandbox, arguments: &[&str]) -> Server {
        let mut command = sandbox.keyless_command(arguments);
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", "300000");
        Server::start(&mut command)
    }

    /// Listens until something that begins with `start` comes, and gives it.
    fn await_line(&mut self, start: &str) -> String {
        loop {
            let mut buffer = [0; 1_024];
            let length = self.socket.recv(&mut buffer).unwrap();
            let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
            self.heard.push(message.clone());
            if message.starts_with(start) {
                return message;
            }
        }
    }
}

#[test]
fn the_service_manager_is_told_of_each_step_of_a_life() {
    let tenants = TwoTenants::new();
    let sandbox = &tenants.sandbox;
    let mut manager = Manager::new(sandbox);
    let passphrase = sandbox.path("passphrase");
    let mut server = manager.start(
        sandbox,
        &["--passphrase-file", passphrase.to_str().unwrap(), "serve", "--listen", "127.0.0.1:0"],
    );
    manager.await_line("READY=1");
    assert_eq!(manager.heard[0], "STATUS=opening the vault");
    assert_eq!(manager.await_line("STATUS="), "STATUS=serving 0 tenants, 0 sessions");
    manager.await_line("WATCHDOG=1");
    manager.await_line("WATCHDOG=1");

    server.signal("-HUP");
    let reloading = manager.await_line("RELOADING=1");
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(since.parse::<u64>().unwrap() > 0);
    manager.await_line("READY=1");

    sandbox.run(&["seal"]).ok();
    assert!(manager.await_line("STATUS=sealed").contains("tenantry unseal"));
    // What it is asked for is not the keys.
    manager.await_line("WATCHDOG=1");

    server.signal("-TERM");
    let stopping = manager.await_line("STOPPING=1");
    assert!(stopping.contains("\nEXTEND_TIMEOUT_USEC=25000000"), "{stopping}");
    server.wait().ok();
}

#[test]
fn programs_that_the_service_runs_do_not_speak_for_it() {
    let tenants = TwoTenants::new();
    let sandbox = &tenants.sandbox;
    let script = sandbox.path("key.sh");
    let text = "#!/bin/sh\nenv > seen\ncat passphrase\n";
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o700)).unwrap();
    let mut manager = Manager::new(sandbox);
    let command = script.to_str().unwrap();
    let arguments = ["--passphrase-command", command, "serve", "--listen", "127.0.0.1:0"];
    let server = manager.start(sandbox, &arguments);
    manager.await_line("READY=1");
    server.stop().ok();
    let seen = std::fs::read_to_string(sandbox.path("seen")).unwrap();
    assert!(seen.contains("PATH="), "{seen}");
    assert!(!seen.contains("NOTIFY_SOCKET") && !seen.contains("WATCHDOG"), "{seen}");
}

#[test]
fn a_service_manager_that_is_gone_holds_nobody_up() {
    let tenants = TwoTenants::new();
    let manager = Manager::new(&tenants.sandbox);
    std::fs::remove_file(&manager.path).unwrap();
    let passphrase = tenants.sandbox.path("passphrase");
    let arguments =
        ["--passphrase-file", passphrase.to_str().unwrap(), "serve", "--listen", "127.0.0.1:0"];
    let finished = manager.start(&tenants.sandbox, &arguments).stop().ok();
    assert_eq!(finished.stderr.matches("NOTIFY_SOCKET").count(), 1, "{}", finished.stderr);
}
