//! The documents say what the program does.

#![expect(clippy::unwrap_used, reason = "a document that cannot be read fails the test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use tenantry::ErrorCode;
use tenantry::config::Settings;
use tenantry::error::Bound;

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The cells of the table rows that stand under `heading`, without backticks.
fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let section = document.split(heading).nth(1).unwrap();
    let rows = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    rows.skip(2)
        .map(|row| {
            let cells = row.trim_matches('|').split(" | ");
            cells.map(|cell| cell.trim().replace('`', "")).collect()
        })
        .collect()
}

#[test]
fn the_readme_lists_every_error_code_and_no_other() {
    let listed: Vec<String> = table(&document("README.md"), "### Error codes")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    let codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(listed, codes);
}

#[test]
fn the_readme_lists_every_bound_and_each_of_ours_can_be_set() {
    let readme = document("README.md");
    let names = |heading| table(&readme, heading).into_iter().map(|row| row[0].clone());
    let bounds = Bound::ALL.map(Bound::rule);
    assert_eq!(names("### Bounds").collect::<Vec<_>>(), bounds);
    let of_tenants = table(&document("docs/tenant-file.md"), "### Either");
    let settings: Vec<_> =
        names("### Settings").chain(of_tenants.into_iter().map(|row| row[0].clone())).collect();
    // Which is for the database to say.
    for bound in bounds.into_iter().filter(|bound| *bound != "database.connections") {
        assert!(settings.iter().any(|setting| setting == bound), "{bound}");
    }
}

#[test]
fn every_setting_is_in_the_readme_with_its_default_and_no_other() {
    let rows = table(&document("README.md"), "### Settings");
    let names: Vec<_> = rows.iter().map(|row| row[0].as_str()).collect();
    let settings = Settings::default().explain(None);
    for setting in &settings {
        assert!(names.contains(&setting.name.as_str()), "{}", setting.name);
    }
    for row in rows {
        let known = settings.iter().find(|setting| setting.name == row[0]);
        let value = &known.unwrap_or_else(|| unreachable!("{}", row[0])).value;
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let default = match row[1].as_str() {
            "none" if row[0] == "auth.issuers" => "[]",
            "no exceptions" | "loopback" | "loopback names" => "[]",
            "none" | "nowhere" | "databases in the data directory" => "null",
            default => default,
        };
        assert_eq!(value, default, "{}", row[0]);
    }
}

#[test]
fn every_default_of_the_readme_can_be_set() {
    let rows = table(&document("README.md"), "### Settings");
    assert!(rows.len() > 10);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tenantry.toml");
    for row in rows {
        let (section, key) = row[0].split_once('.').unwrap();
        let default = row[1].as_str();
        if default == "none" {
            // Nothing says so in a file: it is enough that there is such a setting.
            let known = Settings::default().explain(None);
            assert!(known.iter().any(|setting| setting.name == row[0]), "{}", row[0]);
            continue;
        }
        let value = match default {
            "true" | "false" => default.to_owned(),
            number if number.parse::<u64>().is_ok() => number.to_owned(),
            // Described in words: the type shows by what is refused.
            text if text.contains(' ') && key.starts_with("allowed") => "[]".to_owned(),
            "loopback" => "[]".to_owned(),
            "nowhere" => "\"127.0.0.1:0\"".to_owned(),
            "{}" | "[]" => default.to_owned(),
            "none" if key.ends_with("_uri") => "\"x:{tenant}\"".to_owned(),
            text => format!("{text:?}"),
        };
        // What settings of TLS need beside them.
        let beside = ["tls.certificate", "tls.key", "tls.client_ca"];
        let beside = beside.iter().filter(|it| key.starts_with("tls.") && **it != key);
        let beside: Vec<_> = beside.map(|it| format!("{it} = \"x\"\n")).collect();
        let beside = beside.concat();
        fs::write(&file, format!("[{section}]\n{key} = {value}\n{beside}")).unwrap();
        Settings::load(Some(&file)).unwrap_or_else(|error| unreachable!("{}: {error}", row[0]));
    }
}

/// The unit's settings, in order.
fn unit() -> Vec<(String, String)> {
    let unit = document("docs/tenantry.service");
    let lines = unit.lines().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty());
    let setting = |line: &str| {
        let (name, value) = line.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    };
    lines.map(setting).collect()
}

#[test]
fn the_unit_runs_verbs_that_there_are_and_holds_what_the_readme_says_of_it() {
    let unit = unit();
    let of = |name: &str| {
        let values = unit.iter().filter(|(other, _)| other == name);
        values.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of("Type"), ["notify"]);
    assert_eq!(of("SuccessExitStatus"), ["5"]);
    assert!(of("LoadCredentialEncrypted")[0].starts_with("tenantry.passphrase:"));
    for (name, value) in [
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("CapabilityBoundingSet", ""),
        ("LimitCORE", "0"),
    ] {
        assert_eq!(of(name), [value], "{name}");
    }
    let own = env!("CARGO_BIN_EXE_tenantry");
    for line in [of("ExecStart"), of("ExecReload")].concat() {
        let (program, verb) = line.split_once(' ').unwrap();
        assert_eq!(program, "/usr/local/bin/tenantry");
        let mut help = Command::new(own);
        let help = help.args(verb.split(' ')).arg("--help").output().unwrap();
        assert!(help.status.success(), "{line}");
    }
}

#[test]
fn systemd_takes_the_unit_and_finds_little_exposed() {
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("tenantry.service");
    // What it runs has to be there.
    let own = env!("CARGO_BIN_EXE_tenantry");
    let text = document("docs/tenantry.service").replace("/usr/local/bin/tenantry", own);
    fs::write(&unit, text).unwrap();
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").args(arguments).arg(&unit).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    };
    // Where there is no systemd, the test before has to do.
    let Some((is_valid, text)) = analyze(&["verify", "--man=no"]) else { return };
    assert!(is_valid && text.is_empty(), "{text}");
    // Of 100: tenths of systemd's level.
    let (_, text) =
        analyze(&["security", "--offline=yes", "--threshold=20", "--no-pager"]).unwrap();
    let (_, level) = text.split_once("exposure level for tenantry.service: ").unwrap();
    let level: f64 = level.split(' ').next().unwrap().parse().unwrap();
    assert!(level < 2.0, "{text}");
}

#[test]
fn the_admin_api_has_the_routes_that_its_document_says() {
    let document = document("docs/admin-api.md");
    let table = tenantry::api::table();
    assert!(document.contains(&table), "docs/admin-api.md should have:\n{table}");
}

#[test]
fn what_the_documents_link_to_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md"] {
        for link in document(name).split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                assert!(root.join(target).exists(), "{name} links to {target}");
            }
        }
    }
}
