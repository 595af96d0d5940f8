//! What grows with the number of tenants. Every measurement is a process of its own, so that its
//! most memory is its own.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use tenantry::clock::SystemClock;
use tenantry::store::{DataDir, Options};
use tenantry::tenant::{IdRule, ResolvedTenant, Surroundings, TenantFile, TenantId};
use tenantry::vault::{self, KdfCost, TenantCredentialVault, Unlock};

const PASSPHRASE: &str = "a passphrase for the bench";
const SIZES: [usize; 3] = [100, 10_000, 1_000_000];
/// Tenants that one commit takes.
const COMMIT: usize = 10_000;
/// Tenants of a page, as the admin API has them unless it is told otherwise.
const PAGE: usize = 100;
/// In the environment of a process that measures: what, and of how many tenants.
const STEP: &str = "TENANTRY_BENCH_STEP";

/// What a process says of itself, on one line.
struct Measured {
    elapsed: Duration,
    /// Most memory in KiB, and what there was before the work began.
    peak: u64,
    base: u64,
    /// Bytes of tenant files.
    input: u64,
}

pub(crate) fn run(arguments: &[String]) {
    if let [step, tenants, path] = arguments
        && env::var_os(STEP).is_some()
    {
        return measure(step, tenants.parse().unwrap(), Path::new(path));
    }
    let sizes: Vec<usize> = arguments.iter().map(|argument| argument.parse().unwrap()).collect();
    let sizes = if sizes.is_empty() { SIZES.to_vec() } else { sizes };
    println!(
        "| tenants | tenant files | import | most memory | open and unseal | most memory | list | \
         most memory | check | most memory | a page of {PAGE} | disk |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for tenants in sizes {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let steps = ["import", "open", "list", "check"];
        let measured = steps.map(|step| in_process(step, tenants, &path));
        let mut row = format!("| {tenants} | {} ", megabytes(measured[0].input));
        for Measured { elapsed, peak, base, .. } in &measured {
            let (peak, base) = (megabytes(peak << 10), megabytes(base << 10));
            write!(row, "| {} | {peak} ({base} before) ", seconds(*elapsed)).unwrap();
        }
        let page = in_process("page", tenants, &path).elapsed;
        println!("{row}| {} | {} |", seconds(page), megabytes(super::size(&path)));
    }
}

fn in_process(step: &str, tenants: usize, path: &Path) -> Measured {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(STEP, "1").args(["scale", step, &tenants.to_string()]).arg(path);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let numbers: Vec<u64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [microseconds, peak, base, input] = numbers[..] else { unreachable!("{text}") };
    Measured { elapsed: Duration::from_micros(microseconds), peak, base, input }
}

fn measure(step: &str, tenants: usize, path: &Path) {
    // As the program does.
    tenantry::memory::return_freed();
    let mut input = 0;
    let (began, base);
    match step {
        "import" => {
            let data = DataDir::create(path).unwrap();
            let cost = KdfCost::insecure_for_tests();
            vault::create(&data, &PASSPHRASE.into(), cost, &SystemClock).unwrap();
            drop(data);
            let vault = unsealed(path);
            (began, base) = begin();
            for first in (0..tenants).step_by(COMMIT) {
                let files = first..(first + COMMIT).min(tenants);
                let ids: Vec<TenantId> = files.clone().map(tenant_id).collect();
                // One at a time, as the command line reads them.
                let read = |at: usize| {
                    let (name, text) = tenant_file(first + at);
                    input += text.len() as u64;
                    Ok::<_, vault::Error>(read(&name, &text))
                };
                vault.import_each(&ids, read).unwrap();
            }
        }
        "open" => {
            (began, base) = begin();
            drop(std::hint::black_box(unsealed(path)));
        }
        "list" => {
            let vault = unsealed(path);
            (began, base) = begin();
            assert_eq!(vault.tenants().unwrap().len(), tenants);
        }
        "page" => {
            let vault = unsealed(path);
            let (last, _) = vault.tenants_after(None, tenants / 2).unwrap().pop().unwrap();
            (began, base) = begin();
            assert_eq!(vault.tenants_after(Some(last), PAGE).unwrap().len(), PAGE.min(tenants / 2));
        }
        _ => {
            let vault = unsealed(path);
            (began, base) = begin();
            let report = vault.check(&unlock(), &mut |_| true).unwrap();
            assert_eq!(report.verdict(), vault::check::Verdict::Good, "{report:?}");
        }
    }
    let elapsed = began.elapsed().as_micros();
    println!("{elapsed} {} {base} {input}", memory("VmHWM:"));
}

/// What is in memory now is what the most is compared with.
fn begin() -> (Instant, u64) {
    // "5" makes the most what it is now (proc_pid_clear_refs(5)).
    drop(fs::write("/proc/self/clear_refs", "5"));
    (Instant::now(), memory("VmRSS:"))
}

/// A line of this process's status, in KiB.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|it| it.strip_prefix(line)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

fn unsealed(path: &Path) -> TenantCredentialVault {
    let store = Options { ballast_bytes: 0 };
    let options = vault::Options { upgrade_cost: false, store, ..vault::Options::default() };
    let data = DataDir::open(path).unwrap();
    let vault = TenantCredentialVault::open(data, options, Arc::new(SystemClock)).unwrap();
    vault.unseal(&unlock()).unwrap();
    vault
}

fn unlock() -> Unlock {
    Unlock::Passphrase(PASSPHRASE.into())
}

/// The name and the text of a tenant file, as those in `tenant_configs/`.
pub(crate) fn tenant_file(number: usize) -> (String, String) {
    let id = format!("tenant{number:07}");
    let text = format!(
        r#"{{
  "tenant_id": "{id}",
  "db_host": "{id}-db.example.com",
  "db_port": 5432,
  "db_name": "{id}_db",
  "db_user": "app_user_{number:07}",
  "db_password": "password-of-{id}-0123456789",
  "api_keys": {{
    "openai": "sk-openai-{id}-0123456789abcdef0123456789",
    "anthropic": "sk-anthropic-{id}-0123456789abcdef0123456789"
  }},
  "quotas": {{
    "max_queries_per_hour": 1000,
    "max_queries_per_day": 10000,
    "max_concurrent_connections": 5
  }},
  "features": {{
    "premium_support": true,
    "advanced_analytics": false
  }}
}}
"#
    );
    (format!("{id}.json"), text)
}

fn read(name: &str, text: &str) -> ResolvedTenant {
    let surroundings = Surroundings {
        id_rule: IdRule::default(),
        lookup: &|_| None,
        certificate: &|_| Err("there is none".to_owned()),
    };
    TenantFile::read(name, text.as_bytes(), &surroundings).unwrap().tenant
}

fn tenant_id(number: usize) -> TenantId {
    TenantId::parse(&format!("tenant{number:07}"), IdRule::default()).unwrap()
}

fn seconds(elapsed: Duration) -> String {
    match elapsed.as_secs_f64() {
        short if short < 1.0 => format!("{:.0} ms", short * 1e3),
        long => format!("{long:.1} s"),
    }
}

fn megabytes(bytes: u64) -> String {
    match bytes as f64 / 1e6 {
        few if few < 10.0 => format!("{few:.1} MB"),
        many => format!("{many:.0} MB"),
    }
}
