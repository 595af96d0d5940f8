//! `stdio`: one tenant's server for a program on this machine.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use clap::Args;

use super::output::complain;
use super::place::{Place, login_name};
use super::serve::{end, local_handle, runtime, start, stop_on_signal, until_done};
use super::tenant::parse_id;
use super::token::permissions;
use super::{Context, Failure, Opened, operator, tell, warn_if_unlocked};
use crate::http::TenantEndpoint;
use crate::stdio::{self, ServiceEndpoint};
use crate::store::DataDir;
use crate::tenant::{Permission, Permissions, TenantId};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The tenant
    #[arg(long, value_name = "ID")]
    tenant: String,
    /// What the client may do: list, query, metadata, write (default: all but write)
    #[arg(long, value_name = "SCOPE", value_delimiter = ',')]
    scope: Vec<String>,
}

pub(super) fn run(context: &mut Context, arguments: &Arguments) -> Result<(), Failure> {
    let tenant = parse_id(&arguments.tenant)?;
    let permissions = permissions(&arguments.scope)?;
    let http = context.settings.http_options();
    let options =
        stdio::Options { max_line_bytes: http.max_body_bytes, drain_timeout: http.drain_timeout };
    if io::stdin().is_terminal() {
        complain("speaks MCP on standard input; a client starts this. Ctrl-D ends it");
    }
    match context.place()? {
        Place::Here(directory) => serve_here(context, directory, tenant, permissions, options),
        Place::Service => serve_by_service(context, &tenant, permissions, options),
    }
}

/// Opens the vault, which is this process's until it ends.
fn serve_here(
    context: &mut Context,
    directory: DataDir,
    tenant: TenantId,
    permissions: Permissions,
    options: stdio::Options,
) -> Result<(), Failure> {
    // The others are for the service to keep warm.
    context.settings.pool.min_idle.retain(|id, _| id == tenant.as_str());
    let opened = Opened::sealed(directory, &context.settings)?;
    tell(opened.admin().unseal(&context.key()?.unlock()?)?.as_ref());
    warn_if_unlocked();
    context.environment = None;
    let handle = local_handle(&context.settings)?;
    until_done(runtime()?, async {
        let manager = start(opened, &context.settings, context.data_dir());
        let stopping = stop_on_signal()?;
        let served = async {
            let manager = Arc::clone(&manager);
            let endpoint = TenantEndpoint::open(manager, handle, tenant, permissions, operator());
            let endpoint = endpoint.await?;
            let (input, output) = (io::stdin(), tokio::io::stdout());
            let served = stdio::serve(endpoint, input, output, options, stopping).await;
            served.map_err(|error| Failure::io(WRITING, &error))
        };
        let served = Box::pin(served).await;
        let ended = end(&manager, served.as_ref().map_or(0, |cut| *cut)).await;
        served?;
        ended
    })
}

const WRITING: &str = "writing to the client";

/// Hands everything on to the service that has the vault. No key is asked for.
fn serve_by_service(
    context: &Context,
    tenant: &TenantId,
    permissions: Permissions,
    options: stdio::Options,
) -> Result<(), Failure> {
    let scopes: Vec<_> = permissions.iter().map(Permission::as_str).collect();
    let directory = context.data_dir().to_owned();
    let endpoint = ServiceEndpoint::new(directory, tenant.as_str(), &login_name(), &scopes)
        .map_err(|error| Failure::io("preparing requests", &error))?;
    until_done(runtime()?, async {
        let stopping = stop_on_signal()?;
        let (input, output) = (io::stdin(), tokio::io::stdout());
        let served = Box::pin(stdio::serve(endpoint, input, output, options, stopping)).await;
        match served.map_err(|error| Failure::io(WRITING, &error))? {
            0 => Ok(()),
            cut => Err(Failure::cut(cut)),
        }
    })
}
