use super::*;

fn load(toml: &str) -> Result<Settings, Error> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("t.toml");
    std::fs::write(&file, toml).unwrap();
    Settings::load(Some(&file))
}

#[test]
fn a_file_overrides_defaults_and_the_rest_stays() {
    let settings = load("[pool]\nmax_instances_per_tenant = 10\n").unwrap();
    assert_eq!(settings.pool.max_instances_per_tenant, 10);
    assert_eq!(settings.pool.idle_timeout_seconds, 600);
}

#[test]
fn what_stays_open_is_said_by_tenant_and_leaves_room_for_others() {
    let settings =
        load("[pool]\nmax_sessions = 3\non_change = \"cancel\"\nmin_idle = { acme001 = 2 }\n");
    let options = settings.unwrap().pool_options(Path::new("data"));
    assert_eq!(options.on_change, OnChange::Cancel);
    let acme = TenantId::parse("acme001", IdRule::Alphanumeric).unwrap();
    assert_eq!(options.min_idle.get(&acme), Some(&2));
    load("[pool]\nmax_sessions = 3\nmin_idle = { acme001 = 3 }\n").unwrap_err();
    load("[pool]\nmin_idle = { acme = 1 }\n").unwrap_err();
    load("[pool]\nmax_sessions = 0\n").unwrap_err();
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    let error = load("[pool]\nmax_instances = 10\n").unwrap_err();
    assert!(error.to_string().contains("max_instances"), "{error}");
    load("[pools]\n").unwrap_err();
    for (toml, said) in [
        ("[log]\nlevl = \"info\"\n", "t.toml: log.levl: unknown setting; did you mean log.level?"),
        ("[lgo]\n", "t.toml: lgo: unknown setting; did you mean log?"),
        ("[log]\nsomething = 1\n", "t.toml: log.something: unknown setting"),
        ("[pool]\nmax_sessions = 0\n", "t.toml: pool.max_sessions: must be at least 1"),
        ("\n[pool\n", "t.toml: line 2, column "),
        ("[log]\nformat = \"xml\"\n", "t.toml: log.format: is xml, and may be json, text"),
    ] {
        let error = load(toml).unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains('\n'), "{error}");
    }
    load("[pool]\nidle_timeout_seconds = \"long\"\n").unwrap_err();
    load("[pool]\nmax_instances_per_tenant = 0\n").unwrap_err();
}

#[test]
fn each_setting_is_told_with_where_it_was_set() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("t.toml");
    std::fs::write(&file, "[database]\nallowed_addresses = [\"10.0.0.0/8\"]\n").unwrap();
    let explained = Settings::load(Some(&file)).unwrap().explain(Some(&file));
    let of = |name: &str| {
        let setting = explained.iter().find(|setting| setting.name == name).unwrap();
        (setting.value.to_string(), setting.source.clone())
    };
    let path = std::path::absolute(&file).unwrap();
    let networks = ("[\"10.0.0.0/8\"]".to_owned(), Source::File(path));
    assert_eq!(of("database.allowed_addresses"), networks);
    assert_eq!(of("pool.acquire_timeout_ms"), ("5000".to_owned(), Source::Default));
    assert_eq!(of("http.listen"), ("\"127.0.0.1:8642\"".to_owned(), Source::Default));
    assert!(explained.len() > 20);
}

#[test]
fn scheduled_backups_need_a_directory_and_one_at_least_stays() {
    assert_eq!(load("").unwrap().backup_schedule(), None);
    assert_eq!(load("[backup]\ndirectory = \"/b\"\n").unwrap().backup_schedule(), None);
    load("[backup]\nevery_hours = 6\n").unwrap_err();
    load("[backup]\nkeep = 0\n").unwrap_err();
    let settings = load("[backup]\nevery_hours = 6\ndirectory = \"/b\"\nkeep = 2\n").unwrap();
    let (directory, every) = (PathBuf::from("/b"), Duration::from_hours(6));
    assert_eq!(settings.backup_schedule(), Some(Schedule { directory, every, keep: 2 }));
}

#[test]
fn listening_beyond_loopback_needs_a_proxy_and_its_name() {
    load("[http]\nlisten = \"0.0.0.0:80\"\n").unwrap_err();
    load("[http]\nlisten = \"0.0.0.0:80\"\nbehind_tls_proxy = true\n").unwrap_err();
    load(
        "[http]\nlisten = \"0.0.0.0:80\"\nbehind_tls_proxy = true\n\
         allowed_hosts = [\"mcp.example.com\"]\n",
    )
    .unwrap();
    load("[http]\nlisten = \"[::1]:80\"\n").unwrap();
}

#[test]
fn hosts_and_origins_are_read_and_what_is_none_is_named() {
    load(
        "[http]\nallowed_hosts = [\"mcp.example.com\", \"[::1]:8642\"]\n\
         allowed_origins = [\"https://app.example.com\", \"http://localhost:*\"]\n",
    )
    .unwrap();
    let error = load("[http]\nallowed_hosts = [\"https://mcp.example.com\"]\n").unwrap_err();
    assert!(error.to_string().contains("http.allowed_hosts"), "{error}");
    let error = load("[http]\nallowed_origins = [\"null\"]\n").unwrap_err();
    assert!(error.to_string().contains("\"null\" is no origin"), "{error}");
}

#[test]
fn tls_of_its_own_is_enough_beyond_loopback_and_its_settings_have_to_fit_together() {
    const BEYOND: &str = "[http]\nlisten = \"0.0.0.0:80\"\nallowed_hosts = [\"x\"]\n[http.tls]\n";
    let tls = |more: &str| load(&format!("{BEYOND}{more}"));
    tls("").unwrap_err();
    let both = "certificate = \"c.pem\"\nkey = \"k.pem\"\n";
    let settings = tls(both).unwrap();
    let options = settings.http_options().tls.unwrap();
    assert!(!options.is_1_3_only && options.clients.is_none());
    load(&format!("[http]\nlisten = \"0.0.0.0:80\"\n[http.tls]\n{both}")).unwrap_err();
    tls("certificate = \"c.pem\"\n").unwrap_err();
    tls(&format!("{both}client_tenant_uri = \"spiffe://x/{{tenant}}\"\n")).unwrap_err();
    let clients = format!("{both}min_version = \"1.3\"\nclient_ca = \"ca.pem\"\n");
    tls(&format!("{clients}client_tenant_uri = \"spiffe://x/\"\n")).unwrap_err();
    let options = tls(&format!("{clients}client_tenant_uri = \"spiffe://x/{{tenant}}\"\n"));
    let options = options.unwrap().http_options().tls.unwrap();
    assert!(options.is_1_3_only && options.clients.unwrap().is_required);
    let listed = tls(&format!("{clients}client_crls = [\"a.crl\", \"b.crl\"]\n")).unwrap();
    let clients = listed.http_options().tls.unwrap().clients.unwrap();
    assert_eq!(clients.revocation_lists, ["a.crl", "b.crl"].map(PathBuf::from));
    tls(&format!("{both}client_crls = [\"a.crl\"]\n")).unwrap_err();
    load("[http.tls]\nclient_ca = \"ca.pem\"\n").unwrap_err();
    load("[http.tls]\nmin_version = \"1.1\"\n").unwrap_err();
    let explained = settings.explain(None);
    let key = explained.iter().find(|setting| setting.name == "http.tls.key").unwrap();
    assert_eq!(key.value, "k.pem");
}

#[test]
fn no_limit_of_the_endpoint_can_be_switched_off() {
    for wrong in [
        "max_connections = 0",
        "max_connections_per_address = 0",
        "header_timeout_ms = 0",
        "idle_timeout_ms = 0",
        "max_header_bytes = 1000",
        "max_header_bytes = 70000",
        "max_headers = 0",
        "max_target_bytes = 20000",
        "trusted_proxies = [\"10.0.0.0/40\"]",
        "forwarded_header = \"x-real-ip\"",
    ] {
        load(&format!("[http]\n{wrong}\n")).unwrap_err();
    }
    load("[http]\nmax_connections = 1\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\"]\n").unwrap();
}

#[test]
fn networks_are_read_and_what_is_none_is_named() {
    let settings = load("[database]\nallowed_addresses = [\"10.1.0.0/16\", \"::1\"]\n").unwrap();
    assert_eq!(settings.database.allowed_addresses.len(), 2);
    let error = load("[database]\nallowed_addresses = [\"10.1.0.0/99\"]\n").unwrap_err();
    assert!(error.to_string().contains("10.1.0.0/99"), "{error}");
}

#[test]
fn a_named_file_must_be_there() {
    Settings::load(Some(Path::new("no/such/file.toml"))).unwrap_err();
}

#[test]
fn settings_that_cannot_change_while_the_service_runs_are_named_and_stay() {
    let running = load("").unwrap();
    let new = load(
        "[pool]\nidle_timeout_seconds = 1\nmax_sessions = 9\n[log]\nlevel = \"warn\"\n\
         format = \"json\"\n[http]\nmax_body_bytes = 10\nlisten = \"127.0.0.1:1\"\n\
         [database]\nconnect_timeout_ms = 1\n",
    );
    let new = new.unwrap();
    let reloaded = running.reloaded(&new);
    assert_eq!(reloaded.applied, ["pool.idle_timeout_seconds", "http.max_body_bytes", "log.level"]);
    let rest = ["pool.max_sessions", "database.connect_timeout_ms", "http.listen", "log.format"];
    assert_eq!(reloaded.needs_restart, rest);
    assert_eq!(reloaded.settings.pool.idle_timeout_seconds, 1);
    assert_eq!(reloaded.settings.pool.max_sessions, 1_000);
    let again = reloaded.settings.reloaded(&new);
    assert_eq!((again.applied, again.needs_restart.len()), (Vec::new(), 4));
    assert!(running.reloaded(&running).needs_restart.is_empty());
}
