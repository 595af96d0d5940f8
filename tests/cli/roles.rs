//! What the roles of imported tenants may do, on a real server.

use std::process::Command;

use serde_json::{Value, json};
use tenantry::clock::{Clock as _, SystemClock};

use super::support::{Finished, Sandbox, finish};

pub(crate) const PASSWORD: &str = "canary-role-91d2";

/// What `tests/support/postgres.sh` says about the server that it started.
#[expect(clippy::disallowed_methods, reason = "how the test runner hands the server over")]
fn told(name: &str) -> String {
    std::env::var(name).expect("run ./dev test, which starts a private Postgres")
}

/// Runs `sql` as the server's owner.
pub(crate) fn as_owner(sql: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(told("TENANTRY_TEST_PG_PORT").parse().unwrap())
            .user(told("TENANTRY_TEST_PG_SUPERUSER"))
            .password(told("TENANTRY_TEST_PG_PASSWORD"))
            .dbname("postgres");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "ends with the runtime")]
        tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
    });
}

/// Makes a role with these attributes and a schema in which it reads a table; gives its name.
pub(crate) fn make_role(name: &str, attributes: &str) -> String {
    let unique = SystemClock.now().as_nanosecond();
    let role = format!("{name}_{unique}");
    as_owner(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}' {attributes}; CREATE SCHEMA {role};
         CREATE TABLE {role}.t AS SELECT 1 AS x;
         GRANT USAGE ON SCHEMA {role} TO {role}; GRANT SELECT ON {role}.t TO {role};"
    ));
    role
}

pub(crate) fn tenant(id: &str, role: &str) -> Value {
    json!({
        "tenant_id": id, "db_host": "127.0.0.1", "db_name": "postgres", "db_user": role,
        "db_port": told("TENANTRY_TEST_PG_PORT").parse::<u16>().unwrap(), "db_schema": role,
        "db_password": "${ROLE_PASSWORD}",
    })
}

pub(crate) fn command(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = sandbox.command(arguments);
    command.env("ROLE_PASSWORD", PASSWORD);
    command
}

fn import(sandbox: &Sandbox, arguments: &[&str]) -> Finished {
    let configs = sandbox.path("configs");
    let all = [&["tenant", "import", configs.to_str().unwrap()], arguments].concat();
    let finished = finish(&mut command(sandbox, &all));
    assert!(!finished.stderr.contains(PASSWORD), "{}", finished.stderr);
    finished
}

fn ids(sandbox: &Sandbox) -> Vec<String> {
    let listed = sandbox.json(&["tenant", "list"]);
    let ids = listed.as_array().unwrap().iter().map(|tenant| tenant["tenant_id"].as_str().unwrap());
    ids.map(str::to_owned).collect()
}

#[test]
fn a_privileged_role_is_not_imported_unless_it_is_allowed_and_then_it_is_recorded() {
    let sandbox = Sandbox::new();
    let (plain, strong) = (make_role("plain", ""), make_role("strong", "SUPERUSER"));
    sandbox.write_config("plain001.json", &tenant("plain001", &plain).to_string());
    sandbox.write_config("strong01.json", &tenant("strong01", &strong).to_string());
    let said = ["strong01.json: db_user is a superuser", "nothing was imported", "FORBIDDEN"];
    import(&sandbox, &[]).failed(3, &said);
    import(&sandbox, &["--dry-run"]).failed(3, &said);
    assert!(ids(&sandbox).is_empty());
    let kept = import(&sandbox, &["--keep-going"]).failed(1, &["strong01.json", "left out"]);
    assert!(!kept.stderr.contains("plain001"), "{}", kept.stderr);
    assert_eq!(ids(&sandbox), ["plain001"]);

    let allowed = import(&sandbox, &["--allow-privileged"]).ok();
    assert!(allowed.stderr.contains("warning: "), "{}", allowed.stderr);
    assert_eq!(ids(&sandbox), ["plain001", "strong01"]);
    let entries = sandbox.audit(&["--tenant", "strong01"]);
    let recorded: Vec<_> = entries
        .iter()
        .filter(|entry| entry["action"] == "tenant.allow_privileged")
        .map(|entry| (entry["decision"].as_str().unwrap(), entry["resource"].as_str().unwrap()))
        .collect();
    assert_eq!(recorded, [("begun", "is a superuser"), ("allowed", "is a superuser")]);

    // What is as it was is not asked again; another connection is.
    import(&sandbox, &[]).ok();
    let mut file = tenant("strong01", &strong);
    file["quotas"] = json!({ "max_queries_per_day": 7 });
    sandbox.write_config("strong01.json", &file.to_string());
    import(&sandbox, &[]).ok();
    file["db_schema"] = json!(plain);
    sandbox.write_config("strong01.json", &file.to_string());
    import(&sandbox, &[]).failed(3, &["is a superuser"]);
    import(&sandbox, &["--no-role-check"]).ok();
}

#[test]
fn a_role_that_may_write_is_told_where_nobody_is_to_write() {
    let sandbox = Sandbox::new();
    let role = make_role("writer", "");
    as_owner(&format!("GRANT INSERT ON {role}.t TO {role}"));
    let mut file = tenant("writer01", &role);
    file["access"] = json!({ "mode": "read_write" });
    sandbox.write_config("writer01.json", &file.to_string());
    assert_eq!(import(&sandbox, &[]).ok().stderr, "");
    sandbox.write_config("writer02.json", &tenant("writer02", &role).to_string());
    let told = import(&sandbox, &[]).ok().stderr;
    assert!(told.contains("writer02.json: db_user may write tables of the schema"), "{told}");
}

#[test]
fn a_database_that_does_not_answer_stops_no_import_and_one_that_refuses_the_role_does() {
    let sandbox = Sandbox::new();
    let strong = make_role("down", "CREATEDB");
    let mut down = tenant("down0001", &strong);
    down["db_port"] = json!(1);
    sandbox.write_config("down0001.json", &down.to_string());
    let told = import(&sandbox, &["--dry-run"]).ok().stderr;
    let unanswered = "down0001.json: the database does not answer (connection refused); calls will";
    for part in [unanswered, "1 role(s) are not known"] {
        assert!(told.contains(part), "{told}");
    }

    let mut wrong = tenant("wrong001", &strong);
    wrong["db_password"] = json!("${ROLE_PASSWORD}-wrong");
    sandbox.write_config("wrong001.json", &wrong.to_string());
    let refused =
        format!("wrong001.json: db_user \"{strong}\" cannot log in: authentication failed");
    for flags in [&[][..], &["--dry-run"], &["--allow-privileged"]] {
        import(&sandbox, flags).failed(3, &[&refused, "nothing was imported", "--no-role-check"]);
        assert!(ids(&sandbox).is_empty());
    }
    import(&sandbox, &["--keep-going"]).failed(1, &[&refused, "left out"]);
    assert_eq!(ids(&sandbox), ["down0001"]);
    import(&sandbox, &["--no-role-check"]).ok();
    assert_eq!(ids(&sandbox), ["down0001", "wrong001"]);
}
