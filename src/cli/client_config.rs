//! `client-config`: what an MCP client needs to know, ready to paste.
//!
//! Holds no secret: a token is named by the variable, or the question, that the client has for it.

use std::path::Path;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

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
    /// Where the service is (default: setting `http.public_url`, or where `serve` listens)
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
    let address = || endpoint(context, arguments.url.as_deref(), &tenant);
    let is_program = arguments.stdio || matches!(arguments.client, Client::ClaudeDesktop);
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
            let command = format!(
                "printf 'Authorization: Bearer %s\\n' \"${TOKEN}\" |\n  \
                 curl -sS '{}' -H @- -H 'Content-Type: application/json' \\\n    \
                 -H 'Accept: application/json, text/event-stream' \\\n    -d '{CALL}'",
                address()?.replace('\'', "'\\''")
            );
            context.output.answer(&json!({ "command": command }), || command.clone());
            explain(context, arguments.client, is_program, &tenant);
            return Ok(());
        }
    };
    context.output.answer(&config, || format!("{config:#}"));
    explain(context, arguments.client, is_program, &tenant);
    if is_program {
        let is_keyless = context.common.key.arguments()?.is_empty();
        if is_keyless {
            context.output.note(
                "without a key it works while the service runs; --passphrase-file or another\n\
                 source given to this command is put into what it prints",
            );
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

/// The tenant's URL: what is `given`, `http.public_url`, or where `serve` listens.
fn endpoint(context: &Context, given: Option<&str>, tenant: &TenantId) -> Result<String, Failure> {
    let http = &context.settings.http;
    let (address, is_encrypted) = (http.listen, http.tls.certificate.is_some());
    let url = match given.or(http.public_url.as_deref()) {
        Some(url) => url.to_owned(),
        None if address.ip().is_loopback() && address.port() != 0 => {
            format!("{}://{address}", if is_encrypted { "https" } else { "http" })
        }
        None => {
            let message = format!(
                "give --url, or set http.public_url: nobody connects to http.listen = {address}"
            );
            return Err(Failure::usage(message));
        }
    };
    let origin = url.trim_end_matches('/');
    let has_path = origin.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    Ok(if has_path { url } else { format!("{origin}/mcp/{tenant}") })
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
fn explain(context: &Context, client: Client, is_program: bool, tenant: &TenantId) {
    let say = |text: &str| context.output.note(text);
    let place = match client {
        Client::ClaudeDesktop => {
            "into claude_desktop_config.json (Settings, Developer, Edit Config)"
        }
        Client::Cursor => "into .cursor/mcp.json, or ~/.cursor/mcp.json",
        Client::Vscode => "into .vscode/mcp.json, or what `MCP: Open User Configuration` opens",
        Client::Curl => "for a shell",
    };
    if is_program {
        say(&format!(
            "{place}; no token is needed: whoever may read the data directory and the key is let in"
        ));
        say("one program at a time, unless `tenantry serve` runs: any number then share it");
        return;
    }
    say(&format!("{place}; a token: tenantry token create --tenant {tenant}"));
    if !matches!(client, Client::Vscode) {
        say(&format!("which is taken from the variable {TOKEN}"));
    }
}
