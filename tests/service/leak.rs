//! Canaries in every secret field, and a search for them wherever something comes out.

use std::fmt::Write;

use serde_json::json;

use crate::support::{PASSPHRASE, Sandbox};
use crate::{Era, call, connect, query};

const PASSWORD: &str = "canary-password-51c0de";
const OPENAI: &str = "canary-openai-8842aa";
const ANTHROPIC: &str = "canary-anthropic-90bb17";

#[tokio::test]
async fn secrets_are_in_no_answer_log_audit_entry_or_file() {
    let sandbox = Sandbox::new();
    let keys = json!({ "openai": OPENAI, "anthropic": "${LEAK_TEST_ANTHROPIC}" });
    sandbox.add_tenant("tenant001", &json!({ "api_keys": keys }));
    let unreachable = json!({
        "tenant_id": "tenant002", "db_host": "127.0.0.1", "db_port": 1, "db_name": "d",
        "db_user": "u", "db_password": PASSWORD, "db_sslmode": "disable", "api_keys": keys,
    });
    sandbox.write_config("tenant002.json", &unreachable.to_string());
    // A file that is wrong in every secret field.
    let wrong = json!({
        "tenant_id": "tenant003", "db_host": "h", "db_port": PASSWORD, "db_name": "d",
        "db_user": "u", "db_password": { "a": PASSWORD }, "api_keys": [OPENAI],
        "features": { "x": ANTHROPIC },
    });
    std::fs::write(sandbox.path("tenant003.json"), wrong.to_string()).unwrap();

    let mut seen = String::new();
    let mut run = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        let finished = crate::support::finish(command.env("LEAK_TEST_ANTHROPIC", ANTHROPIC));
        seen += &finished.stdout;
        seen += &finished.stderr;
        finished
    };
    let configs = sandbox.path("configs");
    run(&["tenant", "import", configs.to_str().unwrap()]).ok();
    run(&["tenant", "import", sandbox.path("tenant003.json").to_str().unwrap()]);
    for json in [false, true] {
        let flags: &[&str] = if json { &["--json"] } else { &[] };
        for verb in [
            &["tenant", "list"][..],
            &["tenant", "show", "tenant001"],
            &["tenant", "show", "tenant002"],
            &["tenant", "import", "--dry-run", configs.to_str().unwrap()],
        ] {
            run(&[flags, verb].concat()).ok();
        }
    }
    let tokens = ["tenant001", "tenant002"].map(|tenant| sandbox.token(tenant));
    let server = sandbox.serve_with(&[("TENANTRY_LOG__LEVEL", "debug")]);
    for (token, tenant) in tokens.iter().zip(["tenant001", "tenant002"]) {
        let client = connect(&server.endpoint, token, Era::Modern).await;
        let answers = [
            call(&client, "list_tenant_resources", json!({})).await,
            query(&client, &format!("mcp://{tenant}/database"), "SELECT 1").await,
            query(&client, &format!("mcp://{tenant}/database"), "SELECT nonsense(").await,
            query(&client, "mcp://tenant009/database", "SELECT 1").await,
            call(&client, "get_tenant_metadata", json!({})).await,
        ];
        for answer in answers {
            seen += &serde_json::to_string(&answer).unwrap();
        }
        for provider in ["openai", "anthropic", "nobody"] {
            let uri = format!("mcp://{tenant}/api/{provider}");
            let read = client.read_resource(rmcp::model::ReadResourceRequestParams::new(uri)).await;
            write!(seen, "{read:?}").unwrap();
        }
    }
    seen += &server.stop().ok().stderr;
    assert!(seen.contains("fingerprint"), "the search looks at real answers");
    let canaries = [PASSWORD, OPENAI, ANTHROPIC, PASSPHRASE];
    for canary in canaries {
        assert!(!seen.contains(canary), "{canary} is in what came out");
    }
    assert!(tokens.iter().all(|token| !seen.contains(token)), "a token is in what came out");

    let files = sandbox.stored_bytes();
    assert!(files.len() > 4, "the search looks at the real files: {}", files.len());
    let tokens = tokens.iter().map(String::as_str);
    for needle in canaries.into_iter().chain(tokens) {
        for (path, content) in &files {
            let found = content.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "{needle} is in {}", path.display());
        }
    }
}
