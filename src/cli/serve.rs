//! `serve`: the data plane over HTTP, and how it stops.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::output::line;
use super::{Context, Failure, Opened};
use crate::config::Settings;
use crate::error::ErrorCode;
use crate::manager::TenantMcpManager;
use crate::{control, http, telemetry};

/// Exit code after a second signal, as a shell reports one.
const INTERRUPTED: i32 = 130;

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
    let address = arguments.listen.unwrap_or(context.settings.http.listen);
    context.settings.check_listen(address)?;
    // Before the passphrase is asked for: a taken port or a wrong certificate makes that vain.
    let listener = listen(address)?;
    let endpoint = http::Handle::new(context.settings.http_options())?;
    let opened = match arguments {
        ServeArguments { sealed: true, .. } => context.open_sealed()?,
        ServeArguments { accept_rollback: true, .. } => context.open_accepting_rollback()?,
        ServeArguments { .. } => context.open()?,
    };
    context.environment = None;
    runtime()?.block_on(async {
        let manager = start(opened, &context.settings, context.data_dir());
        let stopping = stop_on_signal()?;
        run(listener, manager, endpoint, context.data_dir(), stopping).await
    })
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::io("starting", &error))
}

/// Takes the port. Nothing is accepted yet.
pub(super) fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|error| {
        let is_taken = error.kind() == std::io::ErrorKind::AddrInUse;
        let way_out = if is_taken { "; choose another with --listen" } else { "" };
        let message = format!("cannot listen on {address}: {}{way_out}", error.kind());
        Failure::new(ErrorCode::InternalError, message)
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
pub(super) async fn run(
    listener: TcpListener,
    manager: Arc<TenantMcpManager>,
    endpoint: http::Handle,
    directory: &Path,
    stopping: CancellationToken,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("listening", &error);
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let socket = control::Socket::bind(directory)
        .map_err(|error| Failure::io("making the admin socket", &error))?;
    let scheme = if endpoint.is_tls() { "https" } else { "http" };
    line(&format!("tenantry ready: {scheme}://{address}/mcp"));
    let operators = socket.serve(Arc::clone(&manager), stopping.clone());
    let calls = async {
        let cut = http::serve(listener, manager, endpoint, stopping.clone()).await;
        // Also when it ended by itself.
        stopping.cancel();
        cut
    };
    let (cut, ()) = tokio::join!(calls, operators);
    say_cut(cut)
}

/// An end at which calls were cut is a failure.
pub(super) fn say_cut(calls: u64) -> Result<(), Failure> {
    if calls == 0 {
        return Ok(());
    }
    let message = format!("{calls} call(s) did not finish in time and were cut");
    Err(Failure::new(ErrorCode::Cancelled, message))
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
