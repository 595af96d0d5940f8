//! Whether refusals at the door tell by their bytes or their time what they do not say: that a tenant
//! is there, or what is wrong with a token.
//!
//! ```text
//! path of a tenant that is there | of one that is not      with somebody else's valid token
//! token that nobody has | that was revoked | that is none
//! ```
//!
//! One client on one connection to a service in this process; the kinds take turns in a shuffled order,
//! 10,000 requests each. Two kinds are told apart when the Mann-Whitney test says so with p < 0.001.
//! The data directory is in memory where that can be, so that no disk hides a difference.
//!
//! `./dev bench --bench door`

#![expect(clippy::unwrap_used, reason = "a failed set-up should end the bench")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_methods, reason = "the machine's clock, and tokens in the clear")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use tenantry::TenantMcpManager;
use tenantry::audit::Log;
use tenantry::clock::{Clock, SystemClock};
use tenantry::database;
use tenantry::http;
use tenantry::memory::SecretText;
use tenantry::pool;
use tenantry::store::DataDir;
use tenantry::tenant::{
    Access, Connection, Credentials, IdRule, Limits, Permissions, Quotas, ResolvedTenant,
    TenantConfig, TenantId,
};
use tenantry::vault::{self, KdfCost, TenantCredentialVault};
use tokio_util::sync::CancellationToken;

const PASSPHRASE: &str = "a passphrase for benches";
const SAMPLES: usize = 10_000;
/// Requests of each kind before the first that counts.
const WARM_UP: usize = 500;
/// The two-sided 0.001 quantile of the normal distribution.
const TOLD_APART: f64 = 3.29;
const BODY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;

/// A kind of request, and what it came to.
struct Kind {
    name: &'static str,
    request: Vec<u8>,
    answer: String,
    microseconds: Vec<f64>,
}

impl Kind {
    fn new(name: &'static str, path: &str, token: &str) -> Self {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
             content-length: {}\r\n\r\n{BODY}",
            BODY.len()
        );
        let request = request.into_bytes();
        Self { name, request, answer: String::new(), microseconds: Vec::new() }
    }
}

fn main() {
    let shared_memory = Path::new("/dev/shm");
    let directory = match tempfile::tempdir_in(shared_memory) {
        Ok(directory) => directory,
        Err(_) => tempfile::tempdir().unwrap(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let data = DataDir::create(directory.path().join("data")).unwrap();
    let cost = KdfCost::insecure_for_tests();
    vault::create(&data, &PASSPHRASE.into(), cost, &SystemClock).unwrap();
    let log = Log::open(&data.audit_path(), Arc::clone(&clock)).unwrap();
    let options = vault::Options { upgrade_cost: false, ..vault::Options::default() };
    let vault = TenantCredentialVault::open(data, options, Arc::clone(&clock)).unwrap();
    vault.unseal(&vault::Unlock::Passphrase(SecretText::from(PASSPHRASE))).unwrap();
    let ids: Vec<TenantId> = (0..100)
        .map(|number| TenantId::parse(&format!("tenant{number:03}"), IdRule::Alphanumeric).unwrap())
        .collect();
    vault.import(ids.iter().map(tenant).collect()).unwrap();
    let database = database::Options {
        sqlite_root: directory.path().to_owned(),
        connect_timeout: Duration::from_secs(10),
        addresses: database::AddressPolicy::default(),
    };
    let manager = {
        let _runtime = runtime.enter();
        Arc::new(TenantMcpManager::new(Arc::new(vault), log, pool::Options::new(database)))
    };
    let auth = manager.auth();
    let options = tenantry::auth::Options { failures_per_minute: 10_000_000, ..Default::default() };
    auth.configure(options).unwrap();
    let token = || {
        let (text, info) = auth.create(&ids[1], Permissions::READ, None).unwrap();
        (text.expose_secret().to_owned(), info.token_id)
    };
    let ((valid, _), (revoked, revoked_id), (unknown, unknown_id)) = (token(), token(), token());
    // The one was never seen by whoever checks it.
    auth.revoke(&unknown_id).unwrap();

    let stopping = CancellationToken::new();
    let address = serve(&runtime, Arc::clone(&manager), stopping.clone());
    let mut connection = BufReader::new(TcpStream::connect(address).unwrap());
    connection.get_ref().set_nodelay(true).unwrap();
    let mut used = Kind::new("revoked", "/mcp", &revoked);
    assert!(exchange(&mut connection, &used.request).1.contains(" 200 "));
    auth.revoke(&revoked_id).unwrap();
    let malformed = format!("{}A", &unknown[..unknown.len() - 1]);

    used.name = "a token that was used, and revoked";
    let groups = [
        vec![
            Kind::new("a tenant that is there", "/mcp/tenant050", &valid),
            Kind::new("a tenant that is not", "/mcp/nobody050", &valid),
        ],
        vec![
            Kind::new("a token that nobody has", "/mcp", &unknown),
            used,
            Kind::new("a token with a wrong checksum", "/mcp", &malformed),
            Kind::new("a word that is no token", "/mcp", "nonsense"),
        ],
    ];
    println!("{:36} {:>9} {:>9} {:>8} {:>7}", "", "median µs", "Δ µs", "AUC", "z");
    for mut group in groups {
        measure(&mut connection, &mut group);
        report(&group);
    }
    stopping.cancel();
}

/// Serves `manager` on a port of its own.
fn serve(
    runtime: &tokio::runtime::Runtime,
    manager: Arc<TenantMcpManager>,
    stopping: CancellationToken,
) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let options = http_options();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        http::serve(listener, manager, http::Handle::new(options).unwrap(), stopping).await;
    });
    address
}

fn http_options() -> http::Options {
    tenantry::config::Settings::default().http_options()
}

fn tenant(id: &TenantId) -> ResolvedTenant {
    let config = TenantConfig {
        id: id.clone(),
        connection: Connection::Sqlite { path: "t.db".to_owned() },
        access: Access::default(),
        limits: Limits::default(),
        quotas: Quotas::default(),
        features: BTreeMap::new(),
    };
    ResolvedTenant { config, credentials: Credentials::default() }
}

/// Has the kinds of `group` take turns.
fn measure(connection: &mut BufReader<TcpStream>, group: &mut [Kind]) {
    let mut order: Vec<usize> = (0..group.len()).collect();
    let mut random = 1_u64;
    for round in 0..WARM_UP + SAMPLES {
        for place in (1..order.len()).rev() {
            // Knuth's generator: which goes first is all that it decides.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            order.swap(place, (random >> 33) as usize % (place + 1));
        }
        for at in &order {
            let kind = &mut group[*at];
            let (microseconds, answer) = exchange(connection, &kind.request);
            if round >= WARM_UP {
                kind.microseconds.push(microseconds);
            } else {
                kind.answer = answer;
            }
        }
    }
}

/// How long the answer took, and what of it must not differ.
fn exchange(connection: &mut BufReader<TcpStream>, request: &[u8]) -> (f64, String) {
    let began = Instant::now();
    connection.get_mut().write_all(request).unwrap();
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).unwrap();
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        if !lower.starts_with("date:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).unwrap();
    let microseconds = began.elapsed().as_secs_f64() * 1e6;
    let body = String::from_utf8(body).unwrap();
    let body = match body.split_once("\"request_id\":\"") {
        Some((before, after)) => format!("{before}{}", &after[16..]),
        None => body,
    };
    (microseconds, head + &body)
}

/// Compares each kind with the first.
fn report(group: &[Kind]) {
    let first = &group[0];
    let median = |kind: &Kind| {
        let mut sorted = kind.microseconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    println!("{:36} {:>9.1}", first.name, median(first));
    for kind in &group[1..] {
        let (auc, z) = mann_whitney(&first.microseconds, &kind.microseconds);
        let difference = median(kind) - median(first);
        let bytes = if kind.answer == first.answer { "same bytes" } else { "OTHER BYTES" };
        let verdict = if z.abs() < TOLD_APART { "not told apart ok" } else { "TOLD APART" };
        println!(
            "{:36} {:>9.1} {difference:>+9.2} {auc:>8.4} {z:>+7.2}  {bytes}, {verdict}",
            kind.name,
            median(kind),
        );
    }
}

/// How often one of `left` takes longer than one of `right`, ties counting half, and how many standard
/// deviations that is from a half.
#[expect(clippy::cast_precision_loss, reason = "counts of samples")]
fn mann_whitney(left: &[f64], right: &[f64]) -> (f64, f64) {
    let left_ones = left.iter().map(|value| (*value, true));
    let mut all: Vec<(f64, bool)> =
        left_ones.chain(right.iter().map(|value| (*value, false))).collect();
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut rank_sum = 0.0;
    let mut at = 0;
    while at < all.len() {
        let ties =
            all[at..].iter().take_while(|(value, _)| value.total_cmp(&all[at].0).is_eq()).count();
        let rank = at as f64 + f64::midpoint(ties as f64, 1.0);
        rank_sum += rank * all[at..at + ties].iter().filter(|(_, is_left)| *is_left).count() as f64;
        at += ties;
    }
    let (n, m) = (left.len() as f64, right.len() as f64);
    let u = rank_sum - n * (n + 1.0) / 2.0;
    (u / (n * m), (u - n * m / 2.0) / (n * m * (n + m + 1.0) / 12.0).sqrt())
}
