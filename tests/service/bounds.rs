//! What a call is told that met a bound of the pool.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry::error::Bound;

use crate::protocol::{answer, endless, legacy};
use crate::support::{Sandbox, Server};

/// Two tenants with these quotas, whose statements may take three seconds, and a token for each.
fn two_tenants(quotas: &Value) -> (Sandbox, [String; 2]) {
    let sandbox = Sandbox::new();
    let tenants = ["tenant001", "tenant002"];
    for tenant in tenants {
        let limits = json!({ "statement_timeout_ms": 3_000 });
        sandbox.add_tenant(tenant, &json!({ "limits": limits, "quotas": quotas }));
    }
    sandbox.import();
    let tokens = tenants.map(|tenant| sandbox.token(tenant));
    (sandbox, tokens)
}

/// What a statement of the first tenant is told that never ends by itself.
async fn run_endless(server: &Server, tokens: &[String; 2]) -> Value {
    let mut told = answer(legacy(server, &tokens[0], "tools/call", &endless())).await;
    told["result"]["structuredContent"].take()
}

/// What a statement of `tenant` is told that ends at once.
async fn ask(server: &Server, tokens: &[String; 2], tenant: usize) -> Value {
    let uri = format!("mcp://tenant00{}/database", tenant + 1);
    let arguments = json!({ "resource_uri": uri, "query": "SELECT 1" });
    let call = json!({ "name": "query_tenant_data", "arguments": arguments });
    let mut told = answer(legacy(server, &tokens[tenant], "tools/call", &call)).await;
    told["result"]["structuredContent"].take()
}

/// Asserts that `told` is of a call that met `bound`.
pub(crate) fn assert_met(told: &Value, bound: Bound) {
    assert_eq!(told["error_code"], "POOL_EXHAUSTED", "{told}");
    assert_eq!(told["rule"], bound.rule(), "{told}");
    assert_eq!(told["message"], bound.to_string(), "{told}");
}

fn assert_recorded(sandbox: &Sandbox, bound: Bound) {
    let entries = sandbox.audit(&["--code", "POOL_EXHAUSTED"]);
    assert!(!entries.is_empty());
    for entry in entries {
        assert_eq!((&entry["decision"], &entry["rule"]), (&json!("failed"), &json!(bound.rule())));
    }
}

#[tokio::test]
async fn who_waited_in_vain_is_told_for_what_and_the_next_call_is_served() {
    let one = json!({ "max_concurrent_connections": 1 });
    let instances = Some(("TENANTRY_POOL__MAX_INSTANCES_PER_TENANT", "1"));
    let sessions = Some(("TENANTRY_POOL__MAX_SESSIONS", "1"));
    for (quotas, setting, (tenant, bound)) in [
        (json!({}), instances, (0, Bound::InstancesPerTenant)),
        (one, None, (0, Bound::ConcurrentConnections)),
        (json!({}), sessions, (1, Bound::Sessions)),
    ] {
        let (sandbox, tokens) = two_tenants(&quotas);
        let settings = [("TENANTRY_POOL__ACQUIRE_TIMEOUT_MS", "500")].into_iter().chain(setting);
        let server = sandbox.serve_with(&settings.collect::<Vec<_>>());
        let waiting = async {
            loop {
                let told = ask(&server, &tokens, tenant).await;
                if told["error_code"] != Value::Null {
                    break told;
                }
            }
        };
        let (told, ended) = tokio::join!(waiting, run_endless(&server, &tokens));
        assert_met(&told, bound);
        assert_eq!(ended["error_code"], "QUERY_TIMEOUT", "{ended}");
        assert_eq!(ask(&server, &tokens, tenant).await["row_count"], 1);
        assert_recorded(&sandbox, bound);
        server.stop().ok();
    }
}

#[tokio::test]
async fn an_operator_sees_what_the_pool_has_and_who_waits() {
    let (sandbox, tokens) = two_tenants(&json!({ "max_concurrent_connections": 1 }));
    let server = sandbox.serve_with(&[("TENANTRY_POOL__MAX_SESSIONS", "7")]);
    assert_eq!(ask(&server, &tokens, 1).await["row_count"], 1);
    let pool = |waiting, leased, idle, total: [u64; 2]| {
        json!({
            "sessions": leased + idle, "max_sessions": 7, "leased": leased, "idle": idle,
            "waiting": waiting, "active_tenants": leased + idle,
            "total_acquired": total[0], "total_created": total[1],
        })
    };
    assert_eq!(sandbox.json(&["status"])["pool"], pool(0, 0, 1, [1, 1]));
    let sandbox = Arc::new(sandbox);
    let looking = Arc::clone(&sandbox);
    let busy = tokio::task::spawn_blocking(move || {
        loop {
            let pool = looking.json(&["status"])["pool"].take();
            if pool["waiting"] == 1 {
                break pool;
            }
        }
    });
    let call = || run_endless(&server, &tokens);
    let (busy, ..) = tokio::join!(busy, call(), call());
    assert_eq!(busy.unwrap(), pool(1, 1, 1, [2, 2]));
    let quiet = sandbox.json(&["status"])["pool"].take();
    assert_eq!((&quiet["waiting"], &quiet["leased"]), (&json!(0), &json!(0)));
    sandbox.run(&["seal"]).ok();
    let sealed = sandbox.json(&["status"])["pool"].take();
    assert_eq!((&sealed["sessions"], &sealed["total_acquired"]), (&json!(0), &json!(3)));
    server.stop().ok();
}

#[tokio::test]
async fn who_finds_too_many_waiting_is_told_whose_and_the_next_call_is_served() {
    for (variable, bound) in [
        ("TENANTRY_POOL__MAX_WAITING_PER_TENANT", Bound::WaitingPerTenant),
        ("TENANTRY_POOL__MAX_WAITING", Bound::Waiting),
    ] {
        let (sandbox, tokens) = two_tenants(&json!({ "max_concurrent_connections": 1 }));
        let server = sandbox.serve_with(&[(variable, "1")]);
        // One runs, one waits.
        let told = join_all((0..3).map(|_| run_endless(&server, &tokens))).await;
        let (refused, ended): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|told| told["error_code"] == "POOL_EXHAUSTED");
        assert_eq!((refused.len(), ended.len()), (1, 2), "{refused:?}");
        assert_met(&refused[0], bound);
        assert!(ended.iter().all(|told| told["error_code"] == "QUERY_TIMEOUT"), "{ended:?}");
        assert_eq!(ask(&server, &tokens, 0).await["row_count"], 1);
        assert_recorded(&sandbox, bound);
        server.stop().ok();
    }
}
