//! Settings that change while the service runs.

use serde_json::{Value, json};

use crate::TwoTenants;
use crate::support::Server;

/// What a list of tools that is asked for with this `Host` gets.
async fn status(server: &Server, token: &str, host: &str) -> u16 {
    let response = reqwest::Client::new()
        .post(&server.endpoint)
        .header("Accept", "application/json, text/event-stream")
        .header("Host", host)
        .bearer_auth(token)
        .json(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }));
    response.send().await.unwrap().status().as_u16()
}

fn write_settings(tenants: &TwoTenants, toml: &str) {
    std::fs::write(tenants.sandbox.path("tenantry.toml"), toml).unwrap();
}

fn reloads(tenants: &TwoTenants) -> Vec<Value> {
    let mut entries = tenants.sandbox.audit(&[]);
    entries.retain(|entry| entry["action"] == "settings.reload" && entry["decision"] != "begun");
    entries
}

#[tokio::test]
async fn what_can_change_changes_and_the_rest_is_named() {
    let tenants = TwoTenants::new();
    let token = &tenants.tokens[0];
    let server = tenants.sandbox.serve();
    assert_eq!(status(&server, token, "mcp.example.com").await, 403);
    assert_eq!(status(&server, token, "localhost").await, 200);

    write_settings(
        &tenants,
        "[http]\nallowed_hosts = [\"mcp.example.com\"]\nlisten = \"127.0.0.1:1\"\nsessions = true\n\
         [log]\nlevel = \"debug\"\n[pool]\nmax_sessions = 7\nacquire_timeout_ms = 9\n",
    );
    let answer = tenants.sandbox.json(&["reload"]);
    let changed = json!(["pool.acquire_timeout_ms", "http.allowed_hosts", "log.level"]);
    assert_eq!(answer["applied"], changed, "{answer}");
    assert_eq!(
        answer["needs_restart"],
        json!(["pool.max_sessions", "http.listen", "http.sessions"])
    );
    assert_eq!(status(&server, token, "mcp.example.com").await, 200);
    assert_eq!(status(&server, token, "localhost").await, 403);
    // Again: nothing has changed, and what needs a restart still does.
    let again = tenants.sandbox.json(&["reload"]);
    assert_eq!(again["applied"], json!([]));
    assert_eq!(again["needs_restart"], answer["needs_restart"]);

    write_settings(&tenants, "");
    server.signal("-HUP");
    while reloads(&tenants).len() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&server, token, "localhost").await, 200);
    let entries = reloads(&tenants);
    assert_eq!(entries[0]["actor"]["kind"], "operator", "{entries:?}");
    assert_eq!(entries[2]["actor"]["kind"], "service", "{entries:?}");
    assert_eq!(entries[0]["rows"], 3);
    let log = server.stop().ok().stderr;
    assert!(log.contains("the settings were read again"), "{log}");
}

#[tokio::test]
async fn wrong_settings_change_nothing_and_say_why() {
    let tenants = TwoTenants::new();
    let token = &tenants.tokens[0];
    write_settings(&tenants, "[http]\nallowed_hosts = [\"localhost\"]\n");
    let server = tenants.sandbox.serve();
    let wrong = [
        ("[http]\nallowed_hosts = [\"other\"]\nmax_body = 1\n", "max_body"),
        ("[http]\nallowed_hosts = [\"other\"]\n[pool]\nmax_sessions = 0\n", "pool.max_sessions"),
        ("[http]\nallowed_hosts = [\"other\"]\nlisten = \"0.0.0.0:80\"\n", "http.listen"),
        (
            "[http]\nallowed_hosts = [\"other\"]\npublic_url = \"https://mcp.example.com\"\n\
             [[auth.issuers]]\nissuer = \"https://idp.example.com\"\njwks_file = \"nothing.json\"\n\
             algorithms = [\"ES256\"]\ntenant_claim = \"tenant\"\n",
            "auth.issuers",
        ),
        ("[http\n", "tenantry.toml: line 1"),
    ];
    for (toml, named) in wrong {
        write_settings(&tenants, toml);
        // Not read by the verb itself, which has other settings.
        let elsewhere = tenants.sandbox.path("empty.toml");
        std::fs::write(&elsewhere, "").unwrap();
        let arguments = ["--config", elsewhere.to_str().unwrap(), "reload"];
        tenants.sandbox.run(&arguments).failed(1, &["nothing was changed", named]);
        assert_eq!(status(&server, token, "localhost").await, 200);
    }
    std::fs::remove_file(tenants.sandbox.path("tenantry.toml")).unwrap();
    let refused = reloads(&tenants);
    assert_eq!(refused.len(), wrong.len());
    assert!(refused.iter().all(|entry| entry["code"] == "INVALID_ARGUMENT"), "{refused:?}");
    tenants.sandbox.run(&["reload"]).ok();
    server.stop().ok();
    tenants.sandbox.run(&["reload"]).failed(1, &["no service runs"]);
}

#[test]
fn a_sealed_service_reads_its_settings_as_well() {
    let tenants = TwoTenants::new();
    let server = tenants.sandbox.serve_sealed();
    write_settings(&tenants, "[http]\ndrain_timeout_seconds = 1\n");
    let answer = tenants.sandbox.run(&["reload"]).ok();
    assert_eq!(answer.stdout, "changed: http.drain_timeout_seconds\n");
    server.stop().ok();
}
