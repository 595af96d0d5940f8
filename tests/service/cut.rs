//! What becomes of calls under way whose session, or service, ends.

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tenantry::error::Bound;

use crate::bounds::assert_met;
use crate::protocol::{endless, legacy, messages};
use crate::sessions::{ON, ask, begin, end, initialize, stream};
use crate::support::{Sandbox, Server};

/// A tenant whose statements may take so long, a token for it, and a service with sessions.
fn one_tenant(statement_timeout_ms: u64, settings: &[(&str, &str)]) -> (Sandbox, String, Server) {
    let sandbox = Sandbox::new();
    let limits = json!({ "statement_timeout_ms": statement_timeout_ms });
    sandbox.add_tenant("tenant001", &json!({ "limits": limits }));
    sandbox.import();
    let token = sandbox.token("tenant001");
    let server = sandbox.serve_with(&[&[ON], settings].concat());
    (sandbox, token, server)
}

/// A call that has begun in session `id` and takes as long as it may.
async fn begin_call(server: &Server, token: &str, id: &str) -> Response {
    let request = legacy(server, token, "tools/call", &endless()).header("Mcp-Session-Id", id);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response
}

/// The one answer on a stream that is read to its end.
async fn only_answer(mut response: Response) -> Value {
    let mut told = messages(&mut response, |_| false).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["id"], 1, "{told:?}");
    told.remove(0)
}

/// As the audit log has what was told `CANCELLED`.
fn cut(sandbox: &Sandbox) -> Vec<(Value, Value)> {
    let entries = sandbox.audit(&["--code", "CANCELLED"]);
    entries.iter().map(|it| (it["action"].clone(), it["decision"].clone())).collect()
}

fn is_timeout(answer: &Value) -> bool {
    answer["result"]["structuredContent"]["error_code"] == "QUERY_TIMEOUT"
}

#[tokio::test]
async fn a_session_with_a_call_under_way_is_neither_idle_nor_evicted() {
    for (variable, bound) in [
        ("TENANTRY_HTTP__MAX_SESSIONS", Bound::HttpSessions),
        ("TENANTRY_HTTP__MAX_SESSIONS_PER_TENANT", Bound::HttpSessionsPerTenant),
    ] {
        let settings = [("TENANTRY_HTTP__SESSION_IDLE_SECONDS", "1"), (variable, "1")];
        let (_sandbox, token, server) = one_tenant(3_000, &settings);
        let id = begin(&server, &token).await;
        let call = begin_call(&server, &token, &id).await;
        let refused = legacy(&server, &token, "initialize", &initialize()).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        let refused: Value = refused.json().await.unwrap();
        assert_met(&refused["error"]["data"], bound);
        let answer = only_answer(call).await;
        assert!(is_timeout(&answer), "{answer}");
        // It gives way now.
        let next = begin(&server, &token).await;
        assert_eq!(ask(&server, &token, &id).await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask(&server, &token, &next).await.0, StatusCode::OK);
        server.stop().ok();
    }
}

#[tokio::test]
async fn two_calls_of_a_session_have_two_ids() {
    let (sandbox, token, server) = one_tenant(2_000, &[]);
    let (id, other) = (begin(&server, &token).await, begin(&server, &token).await);
    let call = begin_call(&server, &token, &id).await;
    let again = legacy(&server, &token, "tools/list", &json!({})).header("Mcp-Session-Id", &id);
    let again = again.send().await.unwrap();
    assert_eq!(again.status(), StatusCode::BAD_REQUEST);
    let again: Value = again.json().await.unwrap();
    assert_eq!(again["error"]["code"], -32_600, "{again}");
    assert_eq!(ask(&server, &token, &other).await.0, StatusCode::OK, "it is one session's");
    assert!(is_timeout(&only_answer(call).await));
    assert_eq!(ask(&server, &token, &id).await.0, StatusCode::OK, "it is free again");
    let entries = sandbox.audit(&["--code", "INVALID_ARGUMENT"]);
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["rule"], "request-id");
    server.stop().ok();
}

#[tokio::test]
async fn a_call_whose_session_is_ended_is_told_so() {
    let (sandbox, token, server) = one_tenant(600_000, &[]);
    let id = begin(&server, &token).await;
    let call = begin_call(&server, &token, &id).await;
    assert_eq!(end(&server, &token, &id).await, StatusCode::ACCEPTED);
    assert_eq!(ask(&server, &token, &id).await.0, StatusCode::NOT_FOUND);
    let answer = only_answer(call).await;
    assert_eq!(answer["error"]["data"]["error_code"], "CANCELLED", "{answer}");
    server.stop().ok();
    assert_eq!(cut(&sandbox), [(json!("query_tenant_data"), json!("failed"))]);
}

#[tokio::test]
async fn a_call_goes_on_when_its_tenant_changes_or_may_not_be_used_any_more() {
    let (sandbox, token, server) = one_tenant(4_000, &[]);
    let id = begin(&server, &token).await;
    let call = begin_call(&server, &token, &id).await;
    sandbox.run(&["quota", "set", "tenant001", "max_queries_per_day=1000"]).ok();
    let listed = legacy(&server, &token, "tools/list", &json!({})).header("Mcp-Session-Id", &id);
    let body = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" });
    assert_eq!(listed.json(&body).send().await.unwrap().status(), StatusCode::OK);
    sandbox.run(&["seal"]).ok();
    let answer = only_answer(call).await;
    assert!(is_timeout(&answer), "{answer}");
    server.stop().ok();
}

#[tokio::test]
async fn a_call_is_cut_when_its_tenant_changes_where_the_setting_says_so() {
    let settings = [("TENANTRY_POOL__ON_CHANGE", "cancel")];
    let (sandbox, token, server) = one_tenant(20_000, &settings);
    sandbox.add_tenant("tenant002", &json!({ "limits": { "statement_timeout_ms": 4_000 } }));
    sandbox.import();
    let other = sandbox.token("tenant002");
    let id = begin(&server, &token).await;
    let call = begin_call(&server, &token, &id).await;
    let mut params = endless();
    params["arguments"]["resource_uri"] = json!("mcp://tenant002/database");
    let others = legacy(&server, &other, "tools/call", &params).send();
    // Not before both run.
    let change = async {
        while sandbox.json(&["status"])["pool"]["leased"] != 2 {
            tokio::task::yield_now().await;
        }
        sandbox.run(&["quota", "set", "tenant001", "max_queries_per_day=1000"]).ok();
        only_answer(call).await
    };
    let (others, answer) = tokio::join!(others, change);
    let code = &answer["result"]["structuredContent"]["error_code"];
    assert_eq!(code, "CANCELLED", "{answer}");
    let others: Value = others.unwrap().json().await.unwrap();
    assert!(is_timeout(&others), "{others}");
    // The session goes on.
    assert_eq!(ask(&server, &token, &id).await.0, StatusCode::OK);
    server.stop().ok();
    assert_eq!(cut(&sandbox), [(json!("query_tenant_data"), json!("failed"))]);
}

#[tokio::test]
async fn a_stop_lets_calls_of_sessions_finish_and_tells_those_that_do_not() {
    for (timeout_ms, drain, code) in [(2_000, "60", 0), (600_000, "1", 5)] {
        let drain = [("TENANTRY_HTTP__DRAIN_TIMEOUT_SECONDS", drain)];
        let (sandbox, token, mut server) = one_tenant(timeout_ms, &drain);
        let id = begin(&server, &token).await;
        let mut told = stream(&server, &token, &id).await;
        let call = begin_call(&server, &token, &id).await;
        server.signal("-TERM");
        assert_eq!(messages(&mut told, |_| false).await, Vec::<Value>::new());
        let answer = only_answer(call).await;
        let finished = tokio::task::spawn_blocking(move || server.wait()).await.unwrap();
        assert_eq!(finished.status.code(), Some(code), "{finished:?}");
        if code == 0 {
            assert!(is_timeout(&answer), "{answer}");
            assert_eq!(cut(&sandbox), []);
        } else {
            assert_eq!(answer["error"]["data"]["error_code"], "CANCELLED", "{answer}");
            assert_eq!(cut(&sandbox), [(json!("query_tenant_data"), json!("failed"))]);
        }
    }
}

#[tokio::test]
async fn a_stream_that_has_begun_ends_with_an_answer_also_when_the_service_stops() {
    let drain = [("TENANTRY_HTTP__DRAIN_TIMEOUT_SECONDS", "1")];
    let (sandbox, token, mut server) = one_tenant(600_000, &drain);
    let mut params = endless();
    params["_meta"] = json!({ "progressToken": "mine" });
    let mut call = legacy(&server, &token, "tools/call", &params).send().await.unwrap();
    let is_progress = |message: &Value| message["method"] == "notifications/progress";
    assert_eq!(messages(&mut call, is_progress).await.len(), 1);
    server.signal("-TERM");
    let told = messages(&mut call, |_| false).await;
    let answer = told.last().unwrap();
    assert_eq!(answer["id"], 1);
    assert_eq!(answer["error"]["data"]["error_code"], "CANCELLED", "{answer}");
    let finished = tokio::task::spawn_blocking(move || server.wait()).await.unwrap();
    finished.failed(5, &["1 call(s) did not finish in time"]);
    assert_eq!(cut(&sandbox), [(json!("query_tenant_data"), json!("failed"))]);
}
