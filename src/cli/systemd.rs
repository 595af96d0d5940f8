//! What the service manager is told (`sd_notify(3)`), if there is one.
//!
//! ```text
//! READY --> STATUS, WATCHDOG ... --RELOADING, READY--> ... --STOPPING--> end
//! ```
//!
//! Datagrams to the socket that `NOTIFY_SOCKET` names, a path or an abstract name. `WATCHDOG` is sent
//! after the runtime ran the task that sends it and the thread that writes to the store answered: one
//! that hangs sends none, and is started anew.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

use crate::manager::TenantMcpManager;

const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
/// How often it is looked whether the status is another.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// How long the manager may take to take a datagram.
const PATIENCE: Duration = Duration::from_secs(1);
/// What the end takes beside the calls under way.
const END: Duration = Duration::from_secs(15);

/// The service manager; or nobody.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    address: Option<SocketAddr>,
    /// It ends the process when it was not told for so long that all is well.
    watchdog: Option<Duration>,
    failed: AtomicBool,
}

impl Supervisor {
    /// The one that the environment names. Its variables are removed from there: programs that this
    /// one runs do not speak for it.
    ///
    /// Must be called before the process has a second thread.
    pub(super) fn take_from_environment() -> Self {
        let [socket, interval, process] = VARIABLES.map(|name| {
            let value = std::env::var_os(name)?;
            #[expect(unsafe_code, reason = "no other thread exists yet that could read it")]
            // SAFETY: called first thing in main, before any thread is started.
            unsafe {
                std::env::remove_var(name);
            }
            Some(value)
        });
        Self::new(socket, interval, process)
    }

    fn new(
        socket: Option<OsString>,
        interval: Option<OsString>,
        process: Option<OsString>,
    ) -> Self {
        let address = socket.and_then(|name| match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
            [b'/', ..] => SocketAddr::from_pathname(&name).ok(),
            _ => None,
        });
        let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
        // Meant for another process: of a shell that started this one, say.
        let is_ours =
            process.is_none_or(|process| number(process) == Some(u64::from(std::process::id())));
        let watchdog = interval.filter(|_| is_ours).and_then(number).filter(|micros| *micros > 0);
        let watchdog = watchdog.filter(|_| address.is_some()).map(Duration::from_micros);
        Self { address, watchdog, failed: AtomicBool::new(false) }
    }

    /// Calls are accepted.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// The settings are being read anew; [`Self::ready`] ends it.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The end has begun, and calls under way may take so long.
    pub(super) fn stopping(&self, drain_timeout: Duration) {
        let micros = (drain_timeout + END).as_micros();
        let status = "calls under way are finished";
        self.tell(&format!("STOPPING=1\nSTATUS=stopping: {status}\nEXTEND_TIMEOUT_USEC={micros}"));
    }

    pub(super) fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// Tells the status of `manager` as it changes, until `stopping`, and that all is well, until
    /// this is dropped.
    pub(super) async fn attend(
        &self,
        manager: &TenantMcpManager,
        stopping: &CancellationToken,
    ) -> Infallible {
        if self.address.is_none() {
            return std::future::pending().await;
        }
        let period = self.watchdog.map_or(STATUS_INTERVAL, |limit| limit / 3).min(STATUS_INTERVAL);
        let mut told = String::new();
        loop {
            if self.watchdog.is_some() {
                let vault = Arc::clone(manager.vault());
                let asked = tokio::task::spawn_blocking(move || vault.answers());
                if matches!(asked.await, Ok(true)) {
                    self.tell("WATCHDOG=1");
                }
            }
            let status = status_of(manager);
            if status != told && !stopping.is_cancelled() {
                self.status(&status);
                told = status;
            }
            tokio::time::sleep(period).await;
        }
    }

    /// A manager that does not listen is no reason not to serve.
    fn tell(&self, message: &str) {
        let Some(address) = &self.address else { return };
        if let Err(error) = send(address, message)
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "the service manager (NOTIFY_SOCKET) cannot be told how this is");
        }
    }
}

fn send(address: &SocketAddr, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(message.as_bytes(), address).map(drop)
}

fn status_of(manager: &TenantMcpManager) -> String {
    if manager.is_sealed() {
        return "sealed: nobody is served until `tenantry unseal`".to_owned();
    }
    let stats = manager.pool_stats();
    format!("serving {} tenants, {} sessions", stats.active_tenants, stats.current_pool_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn it_is_told_at_a_path_and_at_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("tenantry-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let sockets = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}").into()),
        ];
        for (socket, name) in sockets {
            let supervisor = Supervisor::new(Some(name), None, None);
            supervisor.ready();
            assert_eq!(receive(&socket), "READY=1");
            supervisor.reloading();
            let reloading = receive(&socket);
            let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(since.parse::<u64>().unwrap() > 0);
            supervisor.stopping(Duration::from_secs(5));
            assert!(receive(&socket).ends_with("\nEXTEND_TIMEOUT_USEC=20000000"));
        }
    }

    #[test]
    fn a_watchdog_counts_if_it_is_for_this_process_and_can_be_told() {
        let watchdog = |socket: Option<&str>, interval: &str, process: Option<u32>| {
            let process = process.map(|process| process.to_string().into());
            Supervisor::new(socket.map(OsString::from), Some(interval.into()), process).watchdog
        };
        let own = std::process::id();
        let half_a_second = Some(Duration::from_millis(500));
        assert_eq!(watchdog(Some("/run/notify"), "500000", Some(own)), half_a_second);
        assert_eq!(watchdog(Some("/run/notify"), "500000", None), half_a_second);
        assert_eq!(watchdog(Some("/run/notify"), "500000", Some(own + 1)), None);
        assert_eq!(watchdog(Some("/run/notify"), "0", None), None);
        assert_eq!(watchdog(Some("/run/notify"), "soon", None), None);
        assert_eq!(watchdog(None, "500000", None), None);
        assert_eq!(watchdog(Some("vsock:1:2"), "500000", None), None);
    }

    #[test]
    fn nobody_to_tell_is_no_failure() {
        Supervisor::default().ready();
        let gone = Supervisor::new(Some("/nowhere/notify".into()), None, None);
        gone.ready();
        assert!(gone.failed.load(Ordering::Relaxed));
    }
}
