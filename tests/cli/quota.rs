//! `quota show | set | reset` without a service.

use serde_json::json;

use crate::support::Sandbox;

#[test]
fn quotas_are_shown_set_and_reset_without_a_service() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("tenant001", &json!({ "quotas": { "max_queries_per_hour": 5 } }));
    sandbox.import();
    let shown = sandbox.json(&["quota", "show", "tenant001"]);
    let hour = json!({ "limit": 5, "used": 0, "remaining": 5, "resets_at": null });
    assert_eq!(shown["quotas"]["max_queries_per_hour"], hour);
    assert_eq!(shown["denied"], json!([]));
    let set = ["quota", "set", "tenant001", "max_queries_per_hour=none", "max_denied_per_hour=0"];
    let told = sandbox.run(&set).ok().stdout;
    assert!(told.contains("max_queries_per_hour        none"), "{told}");
    let quotas = json!({
        "max_queries_per_hour": null, "max_queries_per_day": null,
        "max_concurrent_connections": null, "max_denied_per_hour": 0,
    });
    assert_eq!(sandbox.json(&["tenant", "show", "tenant001"])["quotas"], quotas);
    sandbox.run(&["quota", "reset", "tenant001"]).ok();
    let text = sandbox.run(&["quota", "show", "tenant001"]).ok().stdout;
    assert!(text.contains("NEXT FREED") && text.contains("max_denied_per_hour"), "{text}");

    // The file is what counts at the next import.
    let dry = ["tenant", "import", "--dry-run", sandbox.path("configs").to_str().unwrap()]
        .map(str::to_owned);
    let dry: Vec<&str> = dry.iter().map(String::as_str).collect();
    let report = sandbox.run(&dry).ok().stdout;
    assert!(report.contains("quotas.max_queries_per_hour"), "{report}");
}

#[test]
fn a_quota_that_is_none_is_refused_before_a_key_is_asked_for() {
    let sandbox = Sandbox::new();
    let wrong = [
        ("max_queries", "max_queries: write QUOTA=LIMIT"),
        ("max_queries=5", "of max_queries_per_hour, "),
        ("max_queries_per_hour", "QUOTA=LIMIT"),
        ("max_queries_per_hour=", "QUOTA=LIMIT"),
        ("max_queries_per_hour=-1", "a whole number or none"),
        ("max_concurrent_connections=4294967296", "QUOTA=LIMIT"),
    ];
    for (limit, told) in wrong {
        let command = ["quota", "set", "tenant001", limit];
        let refused = crate::support::finish(&mut sandbox.keyless_command(&command));
        refused.failed(2, &[told]);
    }
    let twice = ["quota", "set", "tenant001", "max_queries_per_day=1", "max_queries_per_day=2"];
    sandbox.run(&twice).failed(2, &["given twice"]);
    sandbox.run(&["quota", "set", "tenant001"]).failed(2, &["QUOTA=LIMIT"]);
    sandbox.run(&["quota", "show", "t-1"]).failed(1, &["tenant id"]);
    sandbox.run(&["quota", "show", "tenant001"]).failed(1, &["no such tenant"]);
}
