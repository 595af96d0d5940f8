//! `demo`: the main job from nothing, on sample data in `./tenantry-demo`.
//!
//! Everything in it is real (the vault, the databases, the server, the client), only the passphrase
//! lies beside the vault that it opens. Not a place for anybody's data.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::memory::{SecretText, SecretTextBuilder};
use clap::Args;
use rmcp::model::{CallToolRequestParams, CallToolResult, ErrorData};
use rmcp::service::{ClientLifecycleMode, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientServiceExt, RoleClient};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::output::line;
use super::passphrase::PassphraseSource;
use super::sample::{self, Sample};
use super::{Context, DEFAULT_DATA_DIR, Failure, Opened, audit, serve};
use crate::admin;
use crate::audit::Filter;
use crate::clock::SystemClock;
use crate::error::ErrorCode;
use crate::http;
use crate::store::DataDir;
use crate::tenant::{IdRule, Permissions, ResolvedTenant, Surroundings, TenantFile, TenantId};
use crate::vault::{self, KdfCost, Unlock};

const DIRECTORY: &str = "tenantry-demo";
/// The files of `tenant_configs/`.
const TENANT_FILES: [(&str, &str); 4] = [
    ("acmecorp.json", include_str!("../../tenant_configs/acmecorp.json")),
    ("globex01.json", include_str!("../../tenant_configs/globex01.json")),
    ("initech1.json", include_str!("../../tenant_configs/initech1.json")),
    ("tenant001.json", include_str!("../../tenant_configs/tenant001.json")),
];
const QUERY: &str = "SELECT id, name, email FROM customers ORDER BY id LIMIT 3";

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Run a real MCP client through every tool, show the audit log, and exit
    #[arg(long)]
    once: bool,
    /// Address and port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8642")]
    listen: SocketAddr,
}

type Client = RunningService<RoleClient, ()>;

pub(super) fn run(context: &mut Context, arguments: &Arguments) -> Result<(), Failure> {
    if context.data_dir() != Path::new(DEFAULT_DATA_DIR) {
        let message = format!("the demo is kept in ./{DIRECTORY}; leave --data-dir out");
        return Err(Failure::usage(message));
    }
    // The demo has a passphrase of its own.
    context.environment = None;
    let address = if arguments.once { ([127, 0, 0, 1], 0).into() } else { arguments.listen };
    context.settings.check_listen(address)?;
    let listener = serve::listen(address)?;
    let mut options = context.settings.http_options();
    if arguments.once {
        // Its client asks at loopback, whatever name a certificate has.
        options.tls = None;
    }
    let endpoint = http::Handle::new(options)?;
    let directory = Path::new(DIRECTORY);
    let opened = set_up(context, directory)?;
    let tokens = make_tokens(&opened)?;
    let runtime = serve::runtime()?;
    if arguments.once {
        runtime.block_on(async {
            let failed = |error: std::io::Error| Failure::io("listening", &error);
            let address = listener.local_addr().map_err(failed)?;
            let manager = serve::start(opened, &context.settings, directory);
            let stopping = CancellationToken::new();
            let server = serve::run(
                context,
                listener,
                Arc::clone(&manager),
                endpoint,
                directory,
                stopping.clone(),
            );
            let tour = async {
                let result = tour(&format!("http://{address}/mcp"), &tokens).await;
                stopping.cancel();
                result.map_err(|_| {
                    Failure::new(ErrorCode::InternalError, "the demo's client was not served")
                })
            };
            let (served, toured) = tokio::join!(server, tour);
            served.and(toured)
        })?;
        return show_audit(context, directory);
    }
    let scheme = if endpoint.is_tls() { "https" } else { "http" };
    introduce(&format!("{scheme}://{address}/mcp"), &tokens);
    serve::until_done(runtime, async {
        let manager = serve::start(opened, &context.settings, directory);
        let stopping = serve::stop_on_signal()?;
        serve::run(context, listener, manager, endpoint, directory, stopping).await
    })
}

/// Brings `directory` to the state in which the demo can be served, from whatever state it is in.
fn set_up(context: &Context, directory: &Path) -> Result<Opened, Failure> {
    context
        .output
        .remark(&format!("tenantry demo in ./{DIRECTORY} (sample data, not a safe place)"));
    let passphrase_file = directory.join("passphrase");
    let data_directory = match DataDir::open(directory) {
        Ok(existing) => existing,
        Err(crate::store::Error::NotInitialised { .. }) => {
            let created = DataDir::create(directory)?;
            let passphrase = random_passphrase()?;
            // First: with the header there is a vault, and this is its only key.
            #[expect(clippy::disallowed_methods, reason = "the demo keeps its key under the mat")]
            created.write_atomically("passphrase", passphrase.expose_secret().as_bytes())?;
            vault::create(&created, &passphrase, KdfCost::DEFAULT, &SystemClock)?;
            created
        }
        Err(error) => return Err(error.into()),
    };
    let passphrase = PassphraseSource::file(passphrase_file).read(None)?;
    let opened =
        Opened::unsealed(data_directory, &Unlock::Passphrase(passphrase), &context.settings)?;

    // The samples are the first that SQLite is used for.
    crate::database::bound_memory();
    let databases = directory.join("databases");
    let failed = |error: std::io::Error| Failure::io("making sample databases", &error);
    std::fs::create_dir_all(&databases).map_err(failed)?;
    for sample in Sample::ALL {
        let path = databases.join(format!("{}.db", sample.tenant));
        if !path.exists() {
            sample::build(&path, sample)
                .map_err(|error| Failure::new(ErrorCode::InternalError, error.to_string()))?;
        }
    }
    let ids = TENANT_FILES.map(|(name, _)| super::tenant::parse_id(name.trim_end_matches(".json")));
    let ids = ids.into_iter().collect::<Result<Vec<_>, _>>()?;
    let changes = opened.admin().import(&ids, read_tenant_file)?;
    let names: Vec<_> = changes.iter().map(|change| change.tenant.to_string()).collect();
    context.output.remark(&format!("tenants: {}", names.join(", ")));
    Ok(opened)
}

fn random_passphrase() -> Result<SecretText, Failure> {
    let no_randomness = |_| Failure::new(ErrorCode::InternalError, "no randomness");
    let mut bytes = Zeroizing::new([0_u8; 16]);
    getrandom::fill(bytes.as_mut_slice()).map_err(no_randomness)?;
    let mut text = SecretTextBuilder::with_capacity(2 * bytes.len());
    for digit in bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]) {
        text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
    }
    Ok(text.finish())
}

fn read_tenant_file(at: usize) -> Result<ResolvedTenant, admin::Error> {
    let surroundings = Surroundings {
        id_rule: IdRule::Alphanumeric,
        lookup: &|_| None,
        certificate: &|_| Err("the demo has no certificates".to_owned()),
    };
    let (name, text) = TENANT_FILES[at];
    let file = TenantFile::read(name, text.as_bytes(), &surroundings);
    Ok(file.map_err(|_| admin::Error::TenantFile(name.to_owned()))?.tenant)
}

/// One token per sample tenant, for this run.
fn make_tokens(opened: &Opened) -> Result<Vec<(TenantId, SecretText)>, Failure> {
    let admin = opened.admin();
    let in_a_day = super::token::from_now("1d")?;
    let make = |sample: Sample<'_>| {
        let tenant = super::tenant::parse_id(sample.tenant)?;
        let (token, _) = admin.create_token(&tenant, Permissions::READ, Some(in_a_day))?;
        Ok((tenant, token))
    };
    Sample::ALL.into_iter().map(make).collect()
}

/// Tells a person what to try.
fn introduce(endpoint: &str, tokens: &[(TenantId, SecretText)]) {
    line("\ntokens, good for a day:");
    for (tenant, token) in tokens {
        line(&format!("  {tenant}  {}", shown(token)));
    }
    let Some((tenant, token)) = tokens.first() else { return };
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {
            "name": "query_tenant_data",
            "arguments": query_arguments(tenant),
        },
    });
    line(&format!(
        "\ntry:\n  curl -s {endpoint} -H 'Authorization: Bearer {}' \\\n    \
         -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \\\n    \
         -d '{call}'",
        shown(token)
    ));
    let client = json!({
        "mcpServers": { tenant.as_str(): {
            "type": "http", "url": endpoint,
            "headers": { "Authorization": format!("Bearer {}", shown(token)) },
        } },
    });
    line(&format!("\nfor an MCP client:\n{client:#}"));
    line(&format!("\nwho tried what:\n  tenantry --data-dir {DIRECTORY} audit list\n"));
}

/// A real MCP client, over HTTP, through every tool; then the attempt that must fail.
async fn tour(
    endpoint: &str,
    tokens: &[(TenantId, SecretText)],
) -> Result<(), Box<dyn std::error::Error>> {
    let [(tenant, token), (other, _), ..] = tokens else { return Ok(()) };
    let config = StreamableHttpClientTransportConfig::with_uri(endpoint.to_owned())
        .auth_header(shown(token));
    let transport = StreamableHttpClientTransport::from_config(config);
    let mode = ClientLifecycleMode::Auto {
        preferred_versions: rmcp::model::ProtocolVersion::KNOWN_VERSIONS.to_vec(),
        legacy_version: None,
    };
    let client: Client = ().serve_with_lifecycle(transport, mode).await?;
    line(&format!("\n{tenant} connects; its tools:"));
    for tool in client.list_all_tools().await? {
        line(&format!("  {:22} {}", tool.name, tool.title.unwrap_or_default()));
    }
    let call = async |name: &'static str, arguments: Value| -> Result<CallToolResult, _> {
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        client.call_tool(CallToolRequestParams::new(name).with_arguments(arguments)).await
    };
    let listed = call("list_tenant_resources", json!({})).await?;
    line("\nlist_tenant_resources");
    for resource in member(&listed, "resources").as_array().into_iter().flatten() {
        line(&format!("  {}", resource["uri"].as_str().unwrap_or_default()));
    }
    let answer = call("query_tenant_data", query_arguments(tenant)).await?;
    line(&format!("\nquery_tenant_data  {QUERY}"));
    for row in member(&answer, "rows").as_array().into_iter().flatten() {
        line(&format!("  {row}"));
    }
    let metadata = call("get_tenant_metadata", json!({})).await?;
    line("\nget_tenant_metadata");
    for name in ["tenant_id", "database_engine", "server_version"] {
        line(&format!("  {name:16} {}", member(&metadata, name)));
    }
    let hour = &member(&metadata, "quotas")["max_queries_per_hour"];
    line(&format!("  {:16} {} of {}", "queries per hour", hour["used"], hour["limit"]));

    line(&format!("\n{tenant} tries to read {other}'s customers:"));
    let forbidden = call("query_tenant_data", query_arguments(other)).await?;
    let code = member(&forbidden, "error_code").as_str().unwrap_or("it worked, which it must not");
    line(&format!("  {code}: {}", member(&forbidden, "message").as_str().unwrap_or_default()));
    client.cancel().await?;
    if code != ErrorCode::Forbidden.as_str() {
        return Err(ErrorData::internal_error("not refused", None).into());
    }
    Ok(())
}

fn query_arguments(tenant: &TenantId) -> Value {
    json!({ "resource_uri": format!("mcp://{tenant}/database/table/customers"), "query": QUERY })
}

fn member<'a>(result: &'a CallToolResult, name: &str) -> &'a Value {
    result.structured_content.as_ref().map_or(&Value::Null, |content| &content[name])
}

#[expect(clippy::disallowed_methods, reason = "the demo shows its tokens to whoever runs it")]
fn shown(token: &SecretText) -> &str {
    token.expose_secret()
}

fn show_audit(context: &Context, directory: &Path) -> Result<(), Failure> {
    let path: PathBuf = directory.join("audit");
    let entries: Result<Vec<_>, _> = crate::audit::read(&path, Filter::default())?.collect();
    let entries = entries?;
    line(&format!("\naudit log (tenantry --data-dir {DIRECTORY} audit list):"));
    audit::show(context, &entries[entries.len().saturating_sub(8)..]);
    Ok(())
}
