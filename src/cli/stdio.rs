//! `stdio`: one tenant's server for a program on this machine.

use std::sync::Arc;

use clap::Args;

use super::serve::{end, runtime, start, stop_on_signal, until_done};
use super::tenant::parse_id;
use super::token::permissions;
use super::{Context, Failure, operator};
use crate::http::{self, Handle, TenantEndpoint};
use crate::stdio;

/// How the audit log calls a client of this verb.
const PEER: &str = "stdio";

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
    // The others are for the service to keep warm.
    context.settings.pool.min_idle.retain(|id, _| id == tenant.as_str());
    let opened = context.open()?;
    context.environment = None;
    let http = context.settings.http_options();
    let handle = Handle::new(http::Options {
        max_body_bytes: http.max_body_bytes,
        ..http::Options::default()
    })?;
    let options =
        stdio::Options { max_line_bytes: http.max_body_bytes, drain_timeout: http.drain_timeout };
    until_done(runtime()?, async {
        let manager = start(opened, &context.settings, context.data_dir());
        let stopping = stop_on_signal()?;
        let served = async {
            let manager = Arc::clone(&manager);
            let endpoint =
                TenantEndpoint::open(manager, handle, tenant, permissions, operator(), PEER);
            let endpoint = endpoint.await?;
            let (input, output) = (std::io::stdin(), tokio::io::stdout());
            let served = stdio::serve(endpoint, input, output, options, stopping).await;
            served.map_err(|error| Failure::io("writing to the client", &error))
        };
        let served = Box::pin(served).await;
        let ended = end(&manager, served.as_ref().map_or(0, |cut| *cut)).await;
        served?;
        ended
    })
}
