//! What `doctor` says, with a service and without.

use serde_json::{Value, json};

use super::roles::{PASSWORD, as_owner, command, make_role, tenant};
use super::support::{Sandbox, finish};

fn doctor(sandbox: &Sandbox, arguments: &[&str]) -> (Option<i32>, Value) {
    let all = [&["--json", "doctor"], arguments].concat();
    let finished = finish(&mut sandbox.command(&all));
    assert!(!finished.stdout.contains(PASSWORD) && !finished.stderr.contains(PASSWORD));
    (finished.status.code(), serde_json::from_str(&finished.stdout).unwrap())
}

fn import(sandbox: &Sandbox) {
    let configs = sandbox.path("configs");
    let arguments = ["tenant", "import", "--no-role-check", configs.to_str().unwrap()];
    finish(&mut command(sandbox, &arguments)).ok();
}

/// Those whom something is about, in order.
fn attention(answer: &Value) -> Vec<&str> {
    let all = answer["attention"].as_array().unwrap();
    all.iter().map(|it| it["about"].as_str().unwrap()).collect()
}

#[test]
fn doctor_says_what_is_well_and_what_needs_attention() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("sqlite01", &json!({}));
    let (plain, strong) = (make_role("well", ""), make_role("ill", "CREATEROLE"));
    sandbox.write_config("well0001.json", &tenant("well0001", &plain).to_string());
    import(&sandbox);
    std::fs::write(sandbox.path("tenantry.toml"), "[pool]\nidle_timeout_seconds = 7\n").unwrap();
    let (code, answer) = doctor(&sandbox, &[]);
    assert_eq!((code, attention(&answer)), (Some(0), vec![]), "{answer}");
    let setting = |name: &str| {
        let settings = answer["settings"].as_array().unwrap();
        settings.iter().find(|setting| setting["name"] == name).unwrap().clone()
    };
    assert_eq!(setting("--data-dir")["source"], "flag");
    assert_eq!(setting("store.ballast_mib")["source"], "environment");
    let set = setting("pool.idle_timeout_seconds");
    assert_eq!(set["value"], 7);
    assert!(set["source"].as_str().unwrap().ends_with("tenantry.toml"));
    assert_eq!(setting("pool.acquire_timeout_ms")["source"], "default");
    assert_eq!(answer["directory"]["mode"], "700");
    let databases = answer["vault"]["databases"].as_array().unwrap();
    assert_eq!((databases[0]["tenant_id"].as_str(), databases.len()), (Some("sqlite01"), 2));
    assert!(databases[1]["version"].as_str().unwrap().starts_with("PostgreSQL"));
    assert_eq!(databases[1]["tls"], "none");

    sandbox.write_config("ill00001.json", &tenant("ill00001", &strong).to_string());
    let mut down = tenant("down0001", &plain);
    down["db_port"] = json!(1);
    sandbox.write_config("down0001.json", &down.to_string());
    import(&sandbox);
    let (code, answer) = doctor(&sandbox, &[]);
    assert_eq!((code, attention(&answer)), (Some(6), vec!["down0001", "ill00001"]));
    assert_eq!(answer["attention"][1]["finding"], "db_user may create roles");
    let text = sandbox
        .run(&["doctor"])
        .failed(6, &["2 thing(s) need attention", "NEEDS_ATTENTION"])
        .stdout;
    assert!(text.starts_with("NEEDS ATTENTION"), "{text}");
    for part in ["connection refused", "may create roles", "pool.idle_timeout_seconds"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("pool.acquire_timeout_ms"), "{text}");
    let text = sandbox.run(&["--verbose", "doctor"]).failed(6, &[]).stdout;
    assert!(text.contains("pool.acquire_timeout_ms"), "{text}");
    let (code, answer) = doctor(&sandbox, &["--tenant", "well0001"]);
    assert_eq!((code, answer["vault"]["databases"].as_array().unwrap().len()), (Some(0), 1));
    sandbox.run(&["doctor", "--tenant", "nobody01"]).failed(1, &["TENANT_NOT_CONFIGURED"]);
    sandbox.run(&["tenant", "disable", "ill00001"]).ok();
    sandbox.run(&["tenant", "disable", "down0001"]).ok();
    assert_eq!(doctor(&sandbox, &[]).0, Some(0));
    as_owner(&format!("GRANT DELETE ON {plain}.t TO {plain}"));
    assert_eq!(attention(&doctor(&sandbox, &[]).1), ["well0001"]);
}

#[test]
fn doctor_asks_a_service_that_runs_and_needs_no_key_for_what_is_outside_of_the_vault() {
    let sandbox = Sandbox::new();
    sandbox.add_tenant("sqlite01", &json!({}));
    import(&sandbox);
    let keyless = || {
        let mut command = sandbox.keyless_command(&["--json", "doctor"]);
        let finished = finish(&mut command);
        let answer: Value = serde_json::from_str(&finished.stdout).unwrap();
        (finished.status.code(), answer)
    };
    let (code, answer) = keyless();
    assert_eq!((code, &answer["vault"]["databases"]), (Some(0), &Value::Null), "{answer}");
    let server = sandbox.serve();
    let (code, answer) = keyless();
    assert_eq!((code, &answer["vault"]["service"]), (Some(0), &json!(true)), "{answer}");
    assert_eq!(answer["vault"]["databases"][0]["reachable"], true);
    sandbox.run(&["seal"]).ok();
    assert_eq!((keyless().0, attention(&keyless().1)), (Some(6), vec!["vault"]));
    server.stop().ok();

    let directory = sandbox.data_dir();
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&directory, open_to_all).unwrap();
    let (code, answer) = doctor(&sandbox, &[]);
    assert_eq!((code, attention(&answer)), (Some(6), vec!["data directory", "vault"]));
    let way_out = answer["attention"][0]["way_out"].as_str().unwrap();
    assert!(way_out.starts_with("chmod 700"), "{way_out}");
}

#[test]
fn doctor_looks_at_the_certificate_of_the_endpoint() {
    let sandbox = Sandbox::new();
    let (certificate, key) = (sandbox.path("server.pem"), sandbox.path("server.key"));
    let settings = format!("[http.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    std::fs::write(sandbox.path("tenantry.toml"), &settings).unwrap();
    let finding = |answer: &Value| answer["attention"][0]["finding"].as_str().unwrap().to_owned();
    let (code, answer) = doctor(&sandbox, &[]);
    assert_eq!((code, attention(&answer)), (Some(6), vec!["http.tls"]), "{answer}");
    assert!(finding(&answer).starts_with("http.tls.certificate ("), "{answer}");
    for (year, expected) in [(2021, vec!["http.tls"]), (2099, vec![])] {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let pair = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&certificate, params.self_signed(&pair).unwrap().pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let (_, answer) = doctor(&sandbox, &[]);
        assert_eq!(attention(&answer), expected, "{answer}");
        assert_eq!(answer["endpoint"]["tls"], true);
        let end = answer["endpoint"]["certificate_expires_at"].as_str().unwrap();
        assert!(end.starts_with(&format!("{year}-12-31")), "{end}");
    }

    let issuer = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (authority, list) = (sandbox.path("ca.pem"), sandbox.path("list.pem"));
    std::fs::write(&authority, params.self_signed(&issuer).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(params, issuer);
    let clients = format!("{settings}client_ca = {authority:?}\nclient_crls = [{list:?}]\n");
    std::fs::write(sandbox.path("tenantry.toml"), clients).unwrap();
    for (year, expected) in [(2021, vec!["http.tls"]), (2099, vec![])] {
        let crl = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(year, 12, 31),
            crl_number: rcgen::SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        std::fs::write(&list, crl.signed_by(&issuer).unwrap().pem().unwrap()).unwrap();
        let (_, answer) = doctor(&sandbox, &[]);
        assert_eq!(attention(&answer), expected, "{answer}");
        let due = answer["endpoint"]["client_crl_due_at"].as_str().unwrap();
        assert!(due.starts_with(&format!("{year}-12-31")), "{due}");
    }
}
