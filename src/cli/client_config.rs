//! `client-config`: what an MCP client needs to know, ready to paste.
//!
//! Holds no secret: a token is named by the variable, or the question, that the client has for it.

use std::net::SocketAddr;
use std::path::Path;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::output::{complain, line};
use super::tenant::parse_id;
use super::{Context, Failure};
use crate::tenant::TenantId;

/// The variable that a client takes the token from.
const TOKEN: &str = "TENANTRY_TOKEN";
const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_tenant_resources","arguments":{}}}"#;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The tenant
    #[arg(long, value_name = "ID")]
    tenant: String,
    /// The client
    #[arg(long = "for", value_name = "CLIENT")]
    client: Client,
    /// Where the service is (default: where `serve` listens by its settings)
    #[arg(long, value_name = "URL", conflicts_with = "stdio")]
    url: Option<String>,
    /// Have the client start this program, on the machine with the vault
    #[arg(long)]
    stdio: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Client {
    /// `claude_desktop_config.json`; starts this program
    ClaudeDesktop,
    /// `.cursor/mcp.json`
    Cursor,
    /// `.vscode/mcp.json`
    Vscode,
    /// A command for a shell
    Curl,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let tenant = parse_id(&arguments.tenant)?;
    let name = format!("tenantry-{tenant}");
    let program = || Program::of(context, &tenant);
    let address = || match &arguments.url {
        Some(url) => Ok(url.clone()),
        None => endpoint(context.settings.http.listen, &tenant),
    };
    let config = match (arguments.client, arguments.stdio) {
        (Client::ClaudeDesktop, _) if arguments.url.is_some() => {
            return Err(Failure::usage(
                "Claude Desktop's file names programs only; add a URL under Settings, Connectors",
            ));
        }
        (Client::ClaudeDesktop, _) | (Client::Cursor, true) => {
            json!({ "mcpServers": { name: program()?.config() } })
        }
        (Client::Cursor, false) => json!({ "mcpServers": { name: {
            "url": address()?,
            "headers": { "Authorization": format!("Bearer ${{env:{TOKEN}}}") },
        } } }),
        (Client::Vscode, true) => {
            let mut server = program()?.config();
            server["type"] = "stdio".into();
            json!({ "servers": { name: server } })
        }
        (Client::Vscode, false) => {
            let id = format!("{name}-token");
            json!({
                "servers": { name: {
                    "type": "http",
                    "url": address()?,
                    "headers": { "Authorization": format!("Bearer ${{input:{id}}}") },
                } },
                "inputs": [{
                    "type": "promptString", "id": id, "password": true,
                    "description": format!("Token of {tenant}"),
                }],
            })
        }
        (Client::Curl, true) => {
            return Err(Failure::usage("curl talks to a service; leave --stdio out"));
        }
        (Client::Curl, false) => {
            // Not as an argument, which others on the machine could read.
            line(&format!(
                "printf 'Authorization: Bearer %s\\n' \"${TOKEN}\" |\n  \
                 curl -sS '{}' -H @- -H 'Content-Type: application/json' \\\n    \
                 -H 'Accept: application/json, text/event-stream' \\\n    -d '{CALL}'",
                address()?.replace('\'', "'\\''")
            ));
            explain(arguments.client, &tenant);
            return Ok(());
        }
    };
    line(&format!("{config:#}"));
    explain(arguments.client, &tenant);
    if arguments.stdio || matches!(arguments.client, Client::ClaudeDesktop) {
        let is_keyless = context.common.key.arguments()?.is_empty();
        if is_keyless {
            complain("without a key it works while the service runs; --passphrase-file or another");
            complain("source given to this command is put into what it prints");
        }
    }
    Ok(())
}

/// How the client starts this program.
struct Program {
    command: String,
    arguments: Vec<String>,
}

impl Program {
    fn of(context: &Context, tenant: &TenantId) -> Result<Self, Failure> {
        let command = std::env::current_exe()
            .map_err(|error| Failure::io("finding where this program is", &error))?;
        let mut arguments = vec!["--data-dir".to_owned(), absolute(context.data_dir())?];
        if let Some(file) = &context.common.config {
            arguments.extend(["--config".to_owned(), absolute(file)?]);
        }
        arguments.extend(context.common.key.arguments()?);
        arguments.extend(["stdio", "--tenant", tenant.as_str()].map(str::to_owned));
        Ok(Self { command: absolute(&command)?, arguments })
    }

    fn config(self) -> Value {
        json!({ "command": self.command, "args": self.arguments })
    }
}

/// The tenant's URL at a service that listens at `address`.
fn endpoint(address: SocketAddr, tenant: &TenantId) -> Result<String, Failure> {
    if !address.ip().is_loopback() || address.port() == 0 {
        let message = format!("give --url: nobody connects to http.listen = {address}");
        return Err(Failure::usage(message));
    }
    Ok(format!("http://{address}/mcp/{tenant}"))
}

/// `path` from the root: clients start programs from anywhere.
pub(super) fn absolute(path: &Path) -> Result<String, Failure> {
    let path = std::path::absolute(path)
        .map_err(|error| Failure::io("finding the current directory", &error))?;
    let shown = path.display().to_string();
    path.into_os_string()
        .into_string()
        .map_err(|_| Failure::usage(format!("{shown} is not UTF-8, which JSON has to be")))
}

/// Says on standard error what to do with it.
fn explain(client: Client, tenant: &TenantId) {
    let place = match client {
        Client::ClaudeDesktop => {
            "into claude_desktop_config.json (Settings, Developer, Edit Config)"
        }
        Client::Cursor => "into .cursor/mcp.json, or ~/.cursor/mcp.json",
        Client::Vscode => "into .vscode/mcp.json, or what `MCP: Open User Configuration` opens",
        Client::Curl => "for a shell",
    };
    complain(&format!("{place}; a token: tenantry token create --tenant {tenant}"));
    if !matches!(client, Client::ClaudeDesktop | Client::Vscode) {
        complain(&format!("which is taken from the variable {TOKEN}"));
    }
}
