//! The running program, as its clients meet it.

#![expect(clippy::unwrap_used, reason = "a failed set-up should fail the test")]

#[path = "../support/mod.rs"]
mod support;

mod api;
mod bounds;
mod client_config;
mod control;
mod cut;
mod hostile_http;
mod http;
mod isolation;
mod keys;
mod leak;
mod listener;
mod mcp;
mod oauth;
mod postgres;
mod process;
mod protocol;
mod quota;
mod reload;
mod resources;
mod sessions;
mod stdio;
mod stop;
mod systemd;
mod write;

use std::borrow::Cow;

use rmcp::model::{CallToolRequestParams, CallToolResult, ProtocolVersion};
use rmcp::service::{ClientLifecycleMode, RunningService};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{IntoTransport, StreamableHttpClientTransport};
use rmcp::{ClientServiceExt, RoleClient, ServiceExt};
use serde_json::{Value, json};

use support::Sandbox;

type Client = RunningService<RoleClient, ()>;

/// Two tenants and a token for each.
struct TwoTenants {
    sandbox: Sandbox,
    tokens: [String; 2],
}

impl TwoTenants {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.add_tenant("tenant001", &json!({}));
        sandbox.add_tenant("tenant002", &json!({}));
        sandbox.import();
        let tokens = ["tenant001", "tenant002"].map(|tenant| sandbox.token(tenant));
        Self { sandbox, tokens }
    }
}

/// The two protocol eras, as a client chooses them.
#[derive(Clone, Copy, Debug)]
enum Era {
    Legacy,
    Modern,
}

async fn connect(endpoint: &str, token: &str, era: Era) -> Client {
    let config =
        StreamableHttpClientTransportConfig::with_uri(endpoint.to_owned()).auth_header(token);
    converse(StreamableHttpClientTransport::from_config(config), era).await
}

async fn converse<T, E, A>(transport: T, era: Era) -> Client
where
    T: IntoTransport<RoleClient, E, A>,
    E: std::error::Error + Send + Sync + 'static,
{
    match era {
        Era::Legacy => ().serve(transport).await.unwrap(),
        Era::Modern => {
            let preferred_versions = ProtocolVersion::KNOWN_VERSIONS.to_vec();
            let mode = ClientLifecycleMode::Discover { preferred_versions };
            ().serve_with_lifecycle(transport, mode).await.unwrap()
        }
    }
}

async fn call(
    client: &Client,
    tool: impl Into<Cow<'static, str>>,
    arguments: Value,
) -> CallToolResult {
    let arguments = arguments.as_object().unwrap().clone();
    client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await.unwrap()
}

async fn query(client: &Client, uri: &str, sql: &str) -> CallToolResult {
    call(client, "query_tenant_data", json!({ "resource_uri": uri, "query": sql })).await
}

fn content(result: &CallToolResult) -> &Value {
    result.structured_content.as_ref().unwrap()
}

fn error_code(result: &CallToolResult) -> &str {
    assert_eq!(result.is_error, Some(true), "{result:?}");
    content(result)["error_code"].as_str().unwrap()
}
