//! `serve`: the data plane over HTTP, and how it stops.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::failure::said;
use super::output::line;
use super::reload::Reloader;
use super::{Context, Failure, Opened, descriptors};
use crate::admin::Admin;
use crate::audit::Actor;
use crate::config::{self, Settings};
use crate::error::ErrorCode;
use crate::manager::TenantMcpManager;
use crate::{api, http, telemetry};

/// Exit code after a second signal, as a shell reports one.
const INTERRUPTED: i32 = 130;
/// How long leases of calls that were cut may take to come back.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long work in threads that cannot be cancelled may take at the end.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
pub(super) struct ServeArguments {
    /// Address and port; port 0 picks one (setting http.listen)
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Start without a key; nobody is served until `tenantry unseal`
    #[arg(long)]
    sealed: bool,
    /// Take older copies of header, keyring or store for what there is: what was written since then
    /// is lost
    #[arg(long, conflicts_with = "sealed")]
    accept_rollback: bool,
}

pub(super) fn serve(context: &mut Context, arguments: &ServeArguments) -> Result<(), Failure> {
    if context.is_served() {
        let directory = context.data_dir().display();
        let message = format!("tenantry already serves {directory}; `tenantry status` shows it");
        return Err(Failure::new(ErrorCode::InUse, message));
    }
    let address = arguments.listen.unwrap_or(context.settings.http.listen);
    context.settings.check_listen(address)?;
    descriptors::raise(&context.settings);
    context.supervisor.status("opening the vault");
    // Before the passphrase is asked for: a taken port or a wrong certificate makes that vain.
    let listener = listen(address)?;
    let endpoint = http::Handle::new(context.settings.http_options())?;
    let opened = match arguments {
        ServeArguments { sealed: true, .. } => context.open_sealed()?,
        ServeArguments { accept_rollback: true, .. } => context.open_accepting_rollback()?,
        ServeArguments { .. } => context.open()?,
    };
    context.environment = None;
    until_done(runtime()?, async {
        let manager = start(opened, &context.settings, context.data_dir());
        let stopping = stop_on_signal()?;
        run(context, listener, manager, endpoint, context.data_dir(), stopping).await
    })
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::io("starting", &error))
}

/// Runs `work`, and ends with it whatever else still runs.
pub(super) fn until_done<T>(runtime: tokio::runtime::Runtime, work: impl Future<Output = T>) -> T {
    let done = runtime.block_on(work);
    // Dropping tasks completes their audit entries. A thread may hang, on a pipe that nobody reads.
    runtime.shutdown_timeout(LAST_TIMEOUT);
    done
}

/// Takes the port. Nothing is accepted yet.
pub(super) fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|error| {
        let is_taken = error.kind() == std::io::ErrorKind::AddrInUse;
        let way_out = if is_taken { "; choose another with --listen" } else { "" };
        let message = format!("cannot listen on {address}: {}{way_out}", said(error.kind()));
        let code = if is_taken { ErrorCode::InUse } else { ErrorCode::InvalidArgument };
        Failure::new(code, message)
    })
}

/// Starts the data plane. Must be called inside a runtime.
pub(super) fn start(
    opened: Opened,
    settings: &Settings,
    data_directory: &Path,
) -> Arc<TenantMcpManager> {
    let options = settings.pool_options(data_directory);
    let manager = TenantMcpManager::with_clock(opened.vault, opened.log, options, opened.clock);
    manager.reseal_in_background(settings.vault.reseal_records_per_second);
    manager.scrub_in_background(settings.store.scrub_records_per_second);
    if let Some(schedule) = settings.backup_schedule() {
        manager.back_up_in_background(schedule);
    }
    Arc::new(manager)
}

/// Serves calls, and operators at the admin socket in `directory`, until `stopping`; says so on
/// standard output once both are accepted.
///
/// The end, in this order:
///
/// 1. At once nothing is accepted any more, and connections without a whole request close.
/// 2. Calls under way finish, for `http.drain_timeout_seconds` at most; what is left is cut, and told
///    so. Meanwhile operators' commands are finished; long ones that can be given again end early.
/// 3. [`end`]: background work, sessions, counts, keys.
/// 4. Audit log and store write what waits when they are dropped, which is before the process ends.
pub(super) async fn run(
    context: &Context,
    listener: TcpListener,
    manager: Arc<TenantMcpManager>,
    endpoint: http::Handle,
    directory: &Path,
    stopping: CancellationToken,
) -> Result<(), Failure> {
    manager.auth().configure(context.settings.auth_options()?).map_err(config::Error::from)?;
    let failed = |error: std::io::Error| Failure::io("listening", &error);
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let operators = api::Listeners::bind(directory, context.settings.admin_options())
        .map_err(|error| Failure::io("listening for operators", &error))?;
    if let Some(address) = operators.address() {
        tracing::info!("the admin API is at http://{address}/api/v1");
    }
    let door = http::Door::bind(directory, local_handle(&context.settings)?)
        .map_err(|error| Failure::io("making the socket for local programs", &error))?;
    let hangups = signal(SignalKind::hangup());
    let hangups = hangups.map_err(|error| Failure::io("watching for signals", &error))?;
    let reloader = Reloader::new(context, directory, address, &endpoint, &manager);
    manager.reload_by(move || reloader.reload());

    let scheme = if endpoint.is_tls() { "https" } else { "http" };
    let url = format!("{scheme}://{address}/mcp");
    line(&if manager.is_sealed() {
        format!("tenantry is up, sealed: {url} serves nobody until `tenantry unseal`")
    } else {
        format!("tenantry ready: {url}")
    });
    let supervisor = &context.supervisor;
    supervisor.ready();
    let operators = operators.serve(Arc::clone(&manager), stopping.clone());
    let calls = async {
        let entrances = http::Entrances { listener, door: Some(door) };
        let serving =
            http::serve(entrances, Arc::clone(&manager), endpoint.clone(), stopping.clone());
        let cut = serving.await;
        // Also when it ended by itself.
        stopping.cancel();
        cut
    };
    let told = async {
        stopping.cancelled().await;
        supervisor.stopping(endpoint.drain_timeout());
    };
    let ending = async {
        let (cut, (), ()) = tokio::join!(calls, operators, told);
        end(&manager, cut).await
    };
    tokio::select! {
        ended = ending => {
            line("stopped");
            ended
        }
        // These do not end.
        never = supervisor.attend(&manager, &stopping) => match never {},
        never = reload_at(hangups, &manager) => match never {},
    }
}

/// Hosts and limits of programs on this machine: they have no name of their own to say.
pub(super) fn local_handle(settings: &Settings) -> Result<http::Handle, Failure> {
    let max_body_bytes = settings.http.max_body_bytes;
    Ok(http::Handle::new(http::Options { max_body_bytes, ..http::Options::default() })?)
}

/// Reads the settings anew at each of `hangups`.
async fn reload_at(mut hangups: Signal, manager: &Arc<TenantMcpManager>) -> Infallible {
    loop {
        if hangups.recv().await.is_none() {
            // No more signals are delivered.
            std::future::pending::<()>().await;
        }
        let admin = Admin::of(Arc::clone(manager), Actor::Service);
        // What became of it is in the log, also when it panicked.
        let _logged = tokio::task::spawn_blocking(move || admin.reload()).await;
    }
}

/// Ends what is left once calls are over, of which so many were `cut`: tells databases, saves what
/// was counted, and destroys every key and every credential in memory.
pub(super) async fn end(manager: &TenantMcpManager, cut: u64) -> Result<(), Failure> {
    let cut = cut.max(manager.shutdown(CUT_TIMEOUT).await);
    let vault = Arc::clone(manager.vault());
    // It waits for what uses the keys.
    let sealing = tokio::task::spawn_blocking(move || vault.seal());
    if tokio::time::timeout(LAST_TIMEOUT, sealing).await.is_err() {
        tracing::warn!("keys were still in use at the end");
    }
    if cut > 0 { Err(Failure::cut(cut)) } else { Ok(()) }
}

/// Cancelled by SIGINT or SIGTERM; a second one ends the process at once.
pub(super) fn stop_on_signal() -> Result<CancellationToken, Failure> {
    let failed = |error: std::io::Error| Failure::io("watching for signals", &error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let stopping = CancellationToken::new();
    let token = stopping.clone();
    #[expect(clippy::disallowed_methods, reason = "lives as long as the process")]
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        next().await;
        tracing::info!("stopping; once more to stop at once");
        token.cancel();
        next().await;
        telemetry::flush();
        std::process::exit(INTERRUPTED);
    });
    Ok(stopping)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Log;
    use crate::clock::SystemClock;
    use crate::memory::SecretText;
    use crate::store::DataDir;
    use crate::vault::{self, KdfCost, TenantCredentialVault, Unlock};
    use crate::{database, pool};

    #[tokio::test]
    async fn at_the_end_no_key_is_left_in_memory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let data = DataDir::create(path.join("data")).unwrap();
        let passphrase = SecretText::from("a passphrase for tests");
        vault::create(&data, &passphrase, KdfCost::insecure_for_tests(), &SystemClock).unwrap();
        let log = Log::open(&data.audit_path(), Arc::new(SystemClock)).unwrap();
        let options = vault::Options { upgrade_cost: false, ..vault::Options::default() };
        let vault = TenantCredentialVault::open(data, options, Arc::new(SystemClock)).unwrap();
        let vault = Arc::new(vault);
        vault.unseal(&Unlock::Passphrase(passphrase)).unwrap();
        let options = pool::Options::new(database::Options {
            sqlite_root: path.to_owned(),
            connect_timeout: Duration::from_secs(1),
            addresses: database::AddressPolicy::default(),
        });
        let manager = TenantMcpManager::new(Arc::clone(&vault), log, options);
        assert!(!vault.is_sealed());
        end(&manager, 0).await.unwrap();
        assert!(vault.is_sealed());
    }
}
