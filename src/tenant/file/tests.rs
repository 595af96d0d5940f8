use std::fmt::Write;

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;

/// The example of the brief, with every optional part.
const EXAMPLE: &str = r#"{
  "tenant_id": "tenant_001",
  "db_host": "tenant-001-db.example.com",
  "db_port": 5432,
  "db_name": "tenant_001_db",
  "db_user": "app_user_001",
  "db_password": "${TENANT_001_DB_PASSWORD:default_password}",
  "api_keys": {
    "openai": "${TENANT_001_OPENAI_KEY:}",
    "anthropic": "${TENANT_001_ANTHROPIC_KEY:}"
  },
  "quotas": {
    "max_queries_per_hour": 1000,
    "max_queries_per_day": 10000,
    "max_concurrent_connections": 5
  },
  "features": {
    "premium_support": true,
    "advanced_analytics": false
  }
}"#;

const SECRET: &str = "hunter2";

fn read_as(
    name: &str,
    rule: IdRule,
    bytes: &[u8],
    variables: &[(&str, &str)],
) -> Result<TenantFile, Vec<Problem>> {
    let lookup = |name: &str| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| SecretText::from(*value))
    };
    let certificate = |path: &str| match path {
        "ca.pem" => Ok("PEM".to_owned()),
        _ => Err("cannot be read".to_owned()),
    };
    let surroundings = Surroundings { id_rule: rule, lookup: &lookup, certificate: &certificate };
    TenantFile::read(name, bytes, &surroundings)
}

fn read(text: &str) -> Result<TenantFile, Vec<Problem>> {
    read_as("tenant001.json", IdRule::Alphanumeric, text.as_bytes(), &[])
}

/// A PostgreSQL tenant with `fields` added.
fn postgres(fields: &str) -> String {
    let start =
        r#""tenant_id": "tenant001", "db_host": "db.example.com", "db_name": "d", "db_user": "u""#;
    format!("{{{start}, {fields}}}")
}

/// Checks that `text` has exactly the problems `expected`, one a line.
fn check(text: &str, expected: &str) {
    check_problems(&read(text).unwrap_err(), expected);
}

fn check_problems(problems: &[Problem], expected: &str) {
    let actual: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
    assert_eq!(actual, expected);
}

#[test]
fn the_example_of_the_brief_reads_once_underscores_are_admitted() {
    let name = "tenant_001.json";
    let file = read_as(name, IdRule::AllowUnderscore, EXAMPLE.as_bytes(), &[]).unwrap();
    let ResolvedTenant { config, credentials } = file.tenant;
    let expected = TenantConfig {
        id: TenantId::parse("tenant_001", IdRule::AllowUnderscore).unwrap(),
        connection: Connection::Postgres(PostgresTarget {
            host: "tenant-001-db.example.com".to_owned(),
            port: 5432,
            database: "tenant_001_db".to_owned(),
            user: "app_user_001".to_owned(),
            tls: TlsMode::VerifyFull,
            root_certificates: None,
            client_certificate: None,
            schema: "public".to_owned(),
            tenant_variable: None,
        }),
        access: Access::default(),
        limits: Limits::default(),
        quotas: Quotas {
            max_queries_per_hour: Some(1000),
            max_queries_per_day: Some(10_000),
            max_concurrent_connections: Some(5),
            max_denied_per_hour: None,
        },
        features: BTreeMap::from([
            ("advanced_analytics".to_owned(), false),
            ("premium_support".to_owned(), true),
        ]),
    };
    assert_eq!(config, expected);
    assert_eq!(secret(credentials.db_password.as_ref()), Some("default_password"));
    assert!(credentials.api_keys.is_empty(), "an empty key is no key");
    assert!(file.literal_secrets.is_empty());

    let refused = read_as(name, IdRule::Alphanumeric, EXAMPLE.as_bytes(), &[]).unwrap_err();
    assert_eq!(refused.len(), 1);
    assert!(refused[0].message.starts_with("INVALID_TENANT: "), "{}", refused[0]);
    assert!(refused[0].message.contains("tenant_id.allow_underscore = true"), "{}", refused[0]);
}

#[test]
fn every_quota_is_read_and_set_by_its_name() {
    let mut expected = Quotas::default();
    for (number, (name, limit)) in (1..).zip(Quotas::default().named()) {
        assert_eq!(limit, None);
        let text = postgres(&format!(r#""quotas": {{ "{name}": {number} }}"#));
        let quotas = read(&text).unwrap().tenant.config.quotas;
        assert!(expected.set(name, Some(number)), "{name}");
        assert_eq!(quotas, expected);
        assert!(quotas.named().contains(&(name, Some(number))));
        expected.set(name, None);
        read(&postgres(&format!(r#""quotas": {{ "{name}": -1 }}"#))).unwrap_err();
    }
    assert!(!expected.set("max_queries", Some(1)));
    assert!(!expected.set("max_concurrent_connections", Some(1 << 32)));
}

#[expect(clippy::disallowed_methods, reason = "the test compares what was read")]
fn secret(secret: Option<&SecretText>) -> Option<&str> {
    secret.map(ExposeSecret::expose_secret)
}

#[test]
fn variables_win_over_defaults() {
    let variables = [("TENANT_001_DB_PASSWORD", SECRET), ("TENANT_001_OPENAI_KEY", "key")];
    let rule = IdRule::AllowUnderscore;
    let file = read_as("tenant_001.json", rule, EXAMPLE.as_bytes(), &variables).unwrap();
    let credentials = file.tenant.credentials;
    assert_eq!(secret(credentials.db_password.as_ref()), Some(SECRET));
    assert_eq!(secret(credentials.api_keys.get("openai")), Some("key"));
    assert!(!credentials.api_keys.contains_key("anthropic"));
}

#[test]
fn every_problem_is_told_at_once_with_its_place() {
    check(
        r#"{
  "tenant_id": "tenant-001",
  "db_engine": "mysql",
  "db_pasword": "x",
  "quotas": { "max_queries_per_hour": -1, "max_querys_per_day": 5 },
  "features": { "premium_support": "yes" },
  "access": { "mode": "all", "tables": ["a.b.c", 5], "deny_columns": ["password_hash"] },
  "limits": { "max_rows": 0, "statement_timeout_ms": 3600001 }
}"#,
        r#"
        2:16: tenant_id: INVALID_TENANT: a tenant id has letters a-z, A-Z and digits 0-9 only
        3:16: db_engine: must be one of postgres, sqlite
        4:17: db_pasword: unknown field; did you mean "db_password"?
        5:39: quotas.max_queries_per_hour: must be a whole number, 0 or more
        5:65: quotas.max_querys_per_day: unknown field; did you mean "max_queries_per_day"?
        6:36: features.premium_support: must be true or false
        7:23: access.mode: must be one of read_only, read_write
        7:41: access.tables: must be "name" or "schema.name"
        7:50: access.tables: must be a string
        7:71: access.deny_columns: must be "table.column"
        8:27: limits.max_rows: must be a whole number from 1 to 1000000
        8:54: limits.statement_timeout_ms: must be a whole number from 1 to 3600000
        "#,
    );
}

#[test]
fn what_is_required_is_asked_for() {
    let missing = r"
        1:1: tenant_id: is required
        1:1: db_host: is required
        1:1: db_name: is required
        1:1: db_user: is required
    ";
    check("{}", missing);
    check(r#"{"tenant_id": "tenant001", "db_engine": "sqlite"}"#, "1:1: db_path: is required");
    check(&postgres(r#""db_schema": """#), "1:102: db_schema: must not be empty");
}

#[test]
fn a_field_that_is_there_twice_or_unknown_is_refused() {
    check(&postgres("\"db_port\": 1,\n\"db_port\": 2"), "2:12: db_port: is there twice");
    check(&postgres("\n\"x\\u000ay\": 1"), r"2:13: x\ny: unknown field");
    check(
        &postgres("\n\"Tenant_id\": 1"),
        "2:14: Tenant_id: unknown field; did you mean \"tenant_id\"?",
    );
    // An editor's pointer to the schema is no field of the tenant.
    assert!(read(&postgres(r#""$schema": "./schema.json""#)).is_ok());
}

#[test]
fn what_is_not_json_is_said_with_the_place_and_without_the_text() {
    let truncated = "1:41: not JSON: the text ends too early; is the file truncated?";
    check(r#"{"tenant_id": "tenant001", "db_password":"#, truncated);
    check("", "1:1: not JSON: the text ends too early; is the file truncated?");
    check("{\"tenant_id\": \"tenant001\",\n\"é\": hunter2}", "2:6: not JSON");
    check("{} {}", "1:4: not JSON");
    check("[1, 2]", "1:1: must be an object");
    check("null", "1:1: must be an object");
}

#[test]
fn what_is_not_utf8_is_said_with_the_place() {
    let problems =
        read_as("tenant001.json", IdRule::Alphanumeric, b"{\n  \"\xff\": 1}", &[]).unwrap_err();
    check_problems(&problems, "2:4: not UTF-8 text");
}

#[test]
fn every_missing_variable_is_named() {
    check(
        &postgres("\n\"db_password\": \"${A}-${B}\",\n\"api_keys\": {\"openai\": \"${C}\"}"),
        r"
        2:16: db_password: variable A, B is not set
        3:24: api_keys.openai: variable C is not set
        ",
    );
    check(
        &postgres("\n\"db_password\": \"${A\",\n\"db_schema\": \"${1}\""),
        r#"
        2:16: db_password: "${" without a closing "}" (write "$${" for a literal "${")
        3:14: db_schema: a variable name has letters, digits and "_", and does not start with a digit
        "#,
    );
}

#[test]
fn references_stand_in_any_string() {
    let text = postgres(
        r#""db_schema": "${S}", "db_sslmode": "${MODE}",
           "access": {"tables": ["orders_${YEAR}", "$${raw}"], "deny_columns": ["${TABLE}.x"]}"#,
    );
    let variables = [("S", "sales"), ("MODE", "require"), ("YEAR", "2026"), ("TABLE", "a.b")];
    let rule = IdRule::Alphanumeric;
    let file = read_as("tenant001.json", rule, text.as_bytes(), &variables).unwrap();
    let config = file.tenant.config;
    let Connection::Postgres(target) = config.connection else { panic!("not PostgreSQL") };
    assert_eq!((target.schema.as_str(), target.tls), ("sales", TlsMode::Require));
    let tables = [relation(None, "orders_2026"), relation(None, "${raw}")];
    assert_eq!(config.access.tables.unwrap(), tables);
    assert_eq!(config.access.deny_columns, [column_of(relation(Some("a"), "b"), "x")]);
}

#[test]
fn a_secret_in_the_file_itself_is_noticed() {
    let literal = |fields: &str| {
        let rule = IdRule::Alphanumeric;
        let variables = [("KEY", "value")];
        let text = postgres(fields);
        read_as("tenant001.json", rule, text.as_bytes(), &variables).unwrap().literal_secrets
    };
    assert_eq!(
        literal(r#""db_password": "hunter2", "api_keys": {"openai": "key", "other": "${KEY}"}"#),
        ["db_password", "api_keys.openai"],
    );
    assert!(literal(r#""db_password": "${KEY:hunter2}""#).is_empty());
    assert!(literal(r#""db_password": "", "api_keys": {"openai": ""}"#).is_empty());
    assert_eq!(literal(r#""db_password": "$${KEY}""#), ["db_password"]);
}

/// A value can be a password, wherever it stands and whatever its type.
#[test]
fn no_value_is_ever_quoted() {
    let sections = ["api_keys", "quotas", "access", "limits", "features"];
    let fields = TOP.into_iter().chain([LIMITS, "db_passwort"]).map(|name| (name, None));
    let nested = sections.into_iter().flat_map(|section| {
        let known = section_fields(section).iter().copied();
        known.chain(["openai"]).map(move |name| (section, Some(name)))
    });
    let cases: Vec<(&str, Option<&str>)> = fields.chain(nested).collect();
    let values = [
        r#""hunter2""#,
        r#""${hunter2""#,
        r#""${hunter2 }""#,
        r#""\u0068unter2\ud800""#,
        r#"["hunter2"]"#,
        r#"[["hunter2"]]"#,
        r#"{"field": "hunter2"}"#,
        "hunter2",
        r#""hunter2"#,
    ];
    let mut messages = 0;
    for (name, nested) in cases {
        for value in values {
            let value =
                nested.map_or(value.to_owned(), |field| format!(r#"{{"{field}": {value}}}"#));
            // Once as the only field, once at the end of a good file.
            for text in
                [format!(r#"{{"{name}": {value}}}"#), postgres(&format!(r#""{name}": {value}"#))]
            {
                if let Err(problems) = read(&text) {
                    messages += problems.len();
                    assert!(!format!("{problems:?}").contains(SECRET), "{text}: {problems:?}");
                }
            }
        }
    }
    assert!(messages > 500, "{messages} messages: the cases miss");
}

#[test]
fn what_was_read_shows_no_secret() {
    let file = read(&postgres(r#""db_password": "hunter2", "api_keys": {"openai": "hunter2"}"#));
    let shown = format!("{:?}", file.unwrap());
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(shown.contains("openai"), "{shown}");
}

#[test]
fn a_client_certificate_and_its_key_come_together_and_over_tls() {
    const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
    const END: &str = "-----END PRIVATE KEY-----";
    let key = format!("{BEGIN}\n{SECRET}\n{END}\n");
    let with = |fields: &str, key: &str| {
        let text = postgres(fields);
        read_as("tenant001.json", IdRule::Alphanumeric, text.as_bytes(), &[("KEY", key)])
    };
    let both = r#""db_sslcert": "ca.pem", "db_sslkey": "${KEY}""#;
    for kind in ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"] {
        let file = with(both, &key.replace("PRIVATE KEY", kind)).unwrap();
        let Connection::Postgres(target) = &file.tenant.config.connection else {
            panic!("not PostgreSQL")
        };
        assert_eq!(target.client_certificate.as_deref(), Some("PEM"));
        assert!(file.tenant.credentials.db_sslkey.is_some() && file.literal_secrets.is_empty());
        assert!(!format!("{file:?}").contains(SECRET));
    }
    let check = |fields: &str, key: &str, expected: &str| {
        let problems = with(fields, key).unwrap_err();
        check_problems(&problems, expected);
        assert!(!format!("{problems:?}").contains(SECRET));
    };
    let no_key = "db_sslkey: must be a private key in PEM, without a passphrase: \
                  \"-----BEGIN PRIVATE KEY-----\" and so on";
    let fields = "\n\"db_sslcert\": \"ca.pem\", \"db_sslkey\": \"${KEY}\"";
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let traditional = key.replace(SECRET, "Proc-Type: 4,ENCRYPTED");
    for wrong in [SECRET, BEGIN, &encrypted, &traditional] {
        check(fields, wrong, &format!("2:38: {no_key}"));
    }
    check("\n\"db_sslcert\": \"ca.pem\"", "", "2:15: db_sslcert: needs db_sslkey, its private key");
    let alone = "2:14: db_sslkey: needs db_sslcert, the certificate that it belongs to";
    check("\n\"db_sslkey\": \"${KEY}\"", &key, alone);
    let plain = format!("{fields}, \"db_sslmode\": \"disable\"");
    check(&plain, &key, "2:15: db_sslcert: needs TLS: set db_sslmode, verify-full for one");
}

#[test]
fn a_file_is_named_after_its_tenant() {
    let text = postgres(r#""db_port": 1"#);
    let rule = IdRule::Alphanumeric;
    for name in ["tenant002.json", "Tenant001.json", "tenant001.JSON", "tenant001", ""] {
        let problems = read_as(name, rule, text.as_bytes(), &[]).unwrap_err();
        check_problems(&problems, "1:15: tenant_id: the file must be named {tenant_id}.json");
    }
    assert!(read_as("tenant001.json", rule, text.as_bytes(), &[]).is_ok());
}

#[test]
fn an_id_outside_the_rule_is_an_invalid_tenant() {
    let problem = |id: &str, rule| {
        let text = format!(r#"{{"tenant_id": "{id}", "db_engine": "sqlite", "db_path": "a.db"}}"#);
        read_as(&format!("{id}.json"), rule, text.as_bytes(), &[])
            .map_err(|problems| problems[0].message.clone())
            .err()
    };
    let is = |message: Option<String>, expected: &str| {
        let message = message.unwrap();
        assert!(message.starts_with("INVALID_TENANT: ") && message.contains(expected), "{message}");
    };
    let (strict, wide) = (IdRule::Alphanumeric, IdRule::AllowUnderscore);
    is(problem("short", strict), "this one has 5");
    is(problem(&"a".repeat(21), strict), "this one has 21");
    is(problem("tenant-001", strict), "letters a-z, A-Z and digits 0-9 only");
    is(problem("tenant_001", strict), "set tenant_id.allow_underscore = true");
    is(problem("tenant-001", wide), "letters a-z");
    is(problem("_tenant01", wide), "letters a-z");
    assert_eq!(problem("tenant_001", wide), None);
    assert_eq!(problem("sixsix", strict), None);
    assert_eq!(problem(&"a".repeat(20), strict), None);
}

#[test]
fn tls_is_on_unless_the_server_is_this_machine() {
    let tls = |host: &str, fields: &str| {
        let text = format!(
            r#"{{"tenant_id": "tenant001", "db_host": "{host}", "db_name": "d", "db_user": "u"{fields}}}"#
        );
        let Connection::Postgres(target) = read(&text).unwrap().tenant.config.connection else {
            panic!("not PostgreSQL")
        };
        target.tls
    };
    for remote in ["db.example.com", "10.0.0.1", "localhost.example.com", "fe80::1", "0.0.0.0"] {
        assert_eq!(tls(remote, ""), TlsMode::VerifyFull, "{remote}");
    }
    for local in ["localhost", "127.0.0.1", "127.1.2.3", "::1", "/run/postgresql"] {
        assert_eq!(tls(local, ""), TlsMode::Disable, "{local}");
    }
    for mode in [TlsMode::Disable, TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let field = format!(r#", "db_sslmode": "{}""#, mode.as_str());
        assert_eq!(tls("db.example.com", &field), mode);
    }
    check(
        &postgres("\n\"db_sslmode\": \"prefer\""),
        "2:15: db_sslmode: must be one of disable, require, verify-ca, verify-full",
    );
}

#[test]
fn a_certificate_is_read_through_the_surroundings() {
    let file = read(&postgres(r#""db_sslrootcert": "ca.pem""#)).unwrap();
    let Connection::Postgres(target) = file.tenant.config.connection else {
        panic!("not PostgreSQL")
    };
    assert_eq!(target.root_certificates.as_deref(), Some("PEM"));
    check(&postgres("\n\"db_sslrootcert\": \"none.pem\""), "2:19: db_sslrootcert: cannot be read");
}

#[test]
fn each_engine_has_fields_of_its_own() {
    let mut text =
        r#"{"tenant_id": "tenant001", "db_engine": "sqlite", "db_path": "a.db""#.to_owned();
    let mut expected = String::new();
    for (index, name) in POSTGRES_ONLY.into_iter().enumerate() {
        write!(text, ",\n\"{name}\": \"x\"").unwrap();
        writeln!(expected, "{}:{}: {name}: does not apply to sqlite", index + 2, name.len() + 5)
            .unwrap();
    }
    text.push('}');
    check(&text, &expected);
    check(
        &postgres("\n\"db_path\": \"a.db\""),
        "2:12: db_path: applies to sqlite only; set \"db_engine\": \"sqlite\"",
    );
}

#[test]
fn a_sqlite_path_stays_below_its_root() {
    let path = |path: &str| {
        let text =
            format!(r#"{{"tenant_id": "tenant001", "db_engine": "sqlite", "db_path": "{path}"}}"#);
        read(&text).map(|file| file.tenant.config.connection)
    };
    for bad in [
        "../a.db",
        "a/../b.db",
        "..",
        ".",
        "./a.db",
        "/a.db",
        "a//b.db",
        "a/",
        r"..\\a.db",
        r"a\u0000",
    ] {
        let problems = path(bad).unwrap_err();
        assert!(problems[0].message.starts_with("must be a relative path"), "{bad}: {problems:?}");
    }
    for good in ["a.db", "shop/a.db", "..a.db", "a..b/c.db"] {
        assert_eq!(path(good), Ok(Connection::Sqlite { path: good.to_owned() }));
    }
}

#[test]
fn names_and_secrets_have_a_greatest_length() {
    let name = |length: usize| postgres(&format!("\n\"db_schema\": \"{}\"", "x".repeat(length)));
    assert!(read(&name(63)).is_ok());
    check(&name(64), "2:14: db_schema: must have at most 63 printable bytes");
    let password =
        |length: usize| postgres(&format!("\n\"db_password\": \"{}\"", "x".repeat(length)));
    assert!(read(&password(4_000)).is_ok());
    check(&password(4_001), "2:16: db_password: must have at most 4000 bytes, none of them zero");
    check(
        &postgres("\n\"api_keys\": {\"open ai\": \"x\"}"),
        "2:25: api_keys: a provider name has 1 to 32 letters, digits, \"_\" and \"-\"",
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(read_as("tenant_001.json", IdRule::AllowUnderscore, &bytes, &[]));
    }

    /// Near enough to a tenant file to get past the parser often.
    #[test]
    fn a_damaged_file_does_not_panic_and_its_problems_lie_inside_it(
        at in 0..EXAMPLE.len(),
        length in 0_usize..20,
        patch in "[ -~\u{e9}\u{1f980}\n]{0,12}",
    ) {
        let mut text = EXAMPLE.to_owned();
        text.replace_range(at..(at + length).min(EXAMPLE.len()), &patch);
        let rule = IdRule::AllowUnderscore;
        if let Err(problems) = read_as("tenant_001.json", rule, text.as_bytes(), &[]) {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                let line = text.split('\n').nth(problem.line - 1);
                prop_assert!(problem.column >= 1);
                prop_assert!(line.is_some_and(|it| problem.column <= it.chars().count() + 1));
            }
        }
    }
}

#[test]
fn a_tenant_variable_is_a_name_of_its_own_and_no_setting_of_the_servers() {
    let good = postgres(r#""db_tenant_variable": "app.tenant_id""#);
    let Connection::Postgres(target) = read(&good).unwrap().tenant.config.connection else {
        panic!("it is PostgreSQL");
    };
    assert_eq!(target.tenant_variable.as_deref(), Some("app.tenant_id"));
    for name in ["statement_timeout", "app.", "App.tenant", "app.tenant id", "app.1x", "a;.b", ""] {
        let bad = postgres(&format!(r#""db_tenant_variable": "{name}""#));
        let problems = read(&bad).unwrap_err();
        assert_eq!(problems.len(), 1, "{name}");
        assert_eq!(problems[0].field, "db_tenant_variable", "{name}");
    }
}
