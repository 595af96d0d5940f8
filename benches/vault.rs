//! What the vault's constructions cost, and what changes of keys cost at 10,000 tenants.
//!
//! One record: the envelope beside the bare ChaCha20-Poly1305 in the same run, with the same padded
//! bytes, the same associated data, a cipher set up for each message, and random bytes from the
//! operating system for each that is sealed. Both take turns, and the ratio is the median over the
//! turns. All tenants: durable changes on the disk of `TMPDIR`, with a key derivation that costs
//! nothing, while a reader opens credentials, none of them cached.
//!
//! `./dev bench --bench vault`, or with fewer tenants `./dev bench --bench vault -- 1000`.

#![expect(clippy::unwrap_used, reason = "a failed set-up should end the bench")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_methods, reason = "the machine's clock")]
#![expect(clippy::cast_precision_loss, reason = "rates and means, for people")]

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, Nonce, Tag};
use tenantry::clock::SystemClock;
use tenantry::memory::{self, SecretText};
use tenantry::store::DataDir;
use tenantry::tenant::{
    Access, Connection, Credentials, IdRule, Limits, Quotas, ResolvedTenant, TenantConfig, TenantId,
};
use tenantry::vault::internals::{Record, envelopes};
use tenantry::vault::{self, KdfCost, ResealProgress, TenantCredentialVault, Unlock};

const PASSPHRASE: &str = "a passphrase for the bench";
const NEXT_PASSPHRASE: &str = "another passphrase for it";
const TENANTS: usize = 10_000;
/// Directory, configuration, two API keys.
const RECORDS_PER_TENANT: usize = 4;
/// Of one record: how often the two take turns, and messages in each turn.
const TURNS: usize = 301;
const PER_TURN: u32 = 200;

fn main() {
    let number = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    one_record();
    all_tenants(number.unwrap_or(TENANTS));
}

fn one_record() {
    println!("{:34} {:>10} {:>10} {:>8}  limit", "one record", "bare ns", "ours ns", "ratio");
    for length in [40, 250] {
        let record = Record::random().unwrap();
        let payload = vec![b'p'; length];
        let envelope = record.seal(&payload).unwrap();
        let associated_data = record.associated_data(&envelope);
        let padded = vec![b'p'; (4 + length).next_multiple_of(256)];
        let key = [7; 32];

        let seal = || bare_seal(&key, &associated_data, &padded);
        let ours = || record.seal(&payload).unwrap();
        compare(&format!("seal {length} bytes"), seal, ours);

        let sealed = bare_seal(&key, &associated_data, &padded);
        let open = || bare_open(&key, &associated_data, &sealed);
        let ours = || record.open(&envelope).unwrap();
        compare(&format!("open {length} bytes"), open, ours);
    }
}

fn bare_seal(key: &[u8; 32], associated_data: &[u8], message: &[u8]) -> (Nonce, Vec<u8>, Tag) {
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce).unwrap();
    let mut message = message.to_vec();
    let cipher = ChaCha20Poly1305::new_from_slice(key).unwrap();
    let sealed =
        cipher.encrypt_inout_detached(&nonce, associated_data, message.as_mut_slice().into());
    (nonce, message, sealed.unwrap())
}

fn bare_open(
    key: &[u8; 32],
    associated_data: &[u8],
    (nonce, sealed, tag): &(Nonce, Vec<u8>, Tag),
) -> Vec<u8> {
    let mut message = sealed.clone();
    let cipher = ChaCha20Poly1305::new_from_slice(key).unwrap();
    cipher
        .decrypt_inout_detached(nonce, associated_data, message.as_mut_slice().into(), tag)
        .unwrap();
    message
}

/// Prints medians of both and of their ratio.
fn compare<A, B>(name: &str, bare: impl Fn() -> A, ours: impl Fn() -> B) {
    let (mut bares, mut all_ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let (bare, ours) = (nanoseconds(&bare), nanoseconds(&ours));
        bares.push(bare);
        all_ours.push(ours);
        ratios.push(ours / bare);
    }
    let (bare, ours, ratio) = (median(bares), median(all_ours), median(ratios));
    println!("{name:34} {bare:>10.0} {ours:>10.0} {ratio:>8.2}  <= 3 {}", verdict(ratio <= 3.0));
}

fn nanoseconds<T>(work: impl Fn() -> T) -> f64 {
    let began = Instant::now();
    for _ in 0..PER_TURN {
        black_box(work());
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(PER_TURN)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "" } else { "NOT MET" }
}

fn all_tenants(number: usize) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let data = DataDir::create(&path).unwrap();
    let cost = KdfCost::insecure_for_tests();
    vault::create(&data, &PASSPHRASE.into(), cost, &SystemClock).unwrap();
    drop(data);
    let ids: Vec<TenantId> = (0..number).map(|number| id(&format!("tenant{number:05}"))).collect();

    let records = number * RECORDS_PER_TENANT;
    println!(
        "\n{:34} {:>10} {:>12} {:>14}",
        format!("{number} tenants"),
        "ms",
        "records/s",
        "longest read"
    );
    let vault = open(&path);
    unseal(&vault, PASSPHRASE);
    let tenants = ids.iter().map(tenant).collect();
    timed("import", Some(records), || vault.import(tenants).unwrap());
    drop(vault);

    let vault = open(&path);
    timed("unseal", None, || unseal(&vault, PASSPHRASE));
    let before = envelopes(&vault).unwrap();
    assert_eq!(before.len(), records);
    let (old, new) = (SecretText::from(PASSPHRASE), SecretText::from(NEXT_PASSPHRASE));
    timed("passphrase change", None, || vault.change_passphrase(&old, &new, cost).unwrap());
    println!("{:34} {:>10}  limit 0", "  records rewritten", rewritten(&before, &vault));

    let unlocks = [unlock(NEXT_PASSPHRASE)];
    let root = || vault.rotate_root(&unlocks, false, false).unwrap();
    let rotation =
        median((0..5).map(|_| timed("root rotate", None, root).as_secs_f64() * 1e3).collect());
    println!("{:34} {rotation:>10.1}  limit 100 {}", "  median", verdict(rotation <= 100.0));
    println!("{:34} {:>10}", "  records rewritten", rewritten(&before, &vault));
    timed("tenant-key rotate", None, || vault.rotate_tenant_key(&ids[number / 2]).unwrap());
    drop(before);
    finish(&vault, 1_024);

    for step in [64, 256, 1_024, 4_096] {
        reading(&vault, &ids, |longest| {
            timed("root rotate with re-seal", None, || {
                vault.rotate_root(&unlocks, false, true).unwrap()
            });
            let began = Instant::now();
            let destroyed = finish(&vault, step);
            let elapsed = began.elapsed();
            let rate = records as f64 / elapsed.as_secs_f64();
            assert_eq!(destroyed, number as u64 + 1);
            let name = format!("  re-seal, {step} a step");
            let milliseconds = elapsed.as_secs_f64() * 1e3;
            println!(
                "{name:34} {milliseconds:>10.0} {rate:>12.0} {:>11.1} ms  {}",
                longest(),
                // What the program takes a step.
                if step == 1_024 { verdict_of_rate(rate) } else { String::new() }
            );
        });
    }
    reading(&vault, &ids[1..], |longest| {
        let removed = &ids[..1];
        timed("removal of one tenant", None, || {
            vault.remove_tenants(&unlock(NEXT_PASSPHRASE), removed).unwrap()
        });
        println!("{:34} {:>38.1} ms", "", longest());
    });
    drop(vault);
    let vault = open(&path);
    timed("unseal", None, || unseal(&vault, NEXT_PASSPHRASE));

    let memory = memory::status();
    println!(
        "\nmemory for secrets: {} KiB locked, {} KiB not; most memory of the process: {} MiB; store: {} MiB",
        memory.locked >> 10,
        memory.unlocked >> 10,
        peak_memory() >> 10,
        size(&path) >> 20
    );
}

fn timed<T>(name: &str, records: Option<usize>, work: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    drop(work());
    let elapsed = began.elapsed();
    let rate = records.map(|records| format!("{:.0}", records as f64 / elapsed.as_secs_f64()));
    println!("{name:34} {:>10.1} {:>12}", elapsed.as_secs_f64() * 1e3, rate.unwrap_or_default());
    elapsed
}

/// Re-seals what is left, and answers how many keys were destroyed.
fn finish(vault: &TenantCredentialVault, step: usize) -> u64 {
    let mut destroyed = 0;
    loop {
        let progress: ResealProgress = vault.reseal(step).unwrap();
        destroyed += progress.destroyed;
        if progress.is_done() {
            return destroyed;
        }
    }
}

/// Does `work` while somebody opens credentials, and tells it how long, in milliseconds, the longest
/// opening took so far.
fn reading(vault: &TenantCredentialVault, ids: &[TenantId], work: impl FnOnce(&dyn Fn() -> f64)) {
    let stopping = AtomicBool::new(false);
    let longest = std::sync::Mutex::new(Duration::ZERO);
    thread::scope(|scope| {
        scope.spawn(|| {
            for id in ids.iter().cycle() {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let began = Instant::now();
                drop(vault.credentials(id).unwrap());
                let mut longest = longest.lock().unwrap();
                *longest = longest.max(began.elapsed());
            }
        });
        work(&|| longest.lock().unwrap().as_secs_f64() * 1e3);
        stopping.store(true, Ordering::Relaxed);
    });
}

/// How many envelopes are not what they were.
fn rewritten(before: &BTreeMap<Vec<u8>, Vec<u8>>, vault: &TenantCredentialVault) -> usize {
    let after = envelopes(vault).unwrap();
    let same = after.iter().filter(|(key, envelope)| before.get(*key) == Some(envelope)).count();
    before.len().max(after.len()) - same
}

fn open(path: &Path) -> TenantCredentialVault {
    let options = vault::Options {
        upgrade_cost: false,
        credential_ttl: Duration::ZERO,
        ..vault::Options::default()
    };
    let data = DataDir::open(path).unwrap();
    TenantCredentialVault::open(data, options, Arc::new(SystemClock)).unwrap()
}

fn unseal(vault: &TenantCredentialVault, passphrase: &str) {
    vault.unseal(&unlock(passphrase)).unwrap();
}

fn unlock(passphrase: &str) -> Unlock {
    Unlock::Passphrase(passphrase.into())
}

fn id(text: &str) -> TenantId {
    TenantId::parse(text, IdRule::Alphanumeric).unwrap()
}

fn tenant(id: &TenantId) -> ResolvedTenant {
    let key = |provider: &str| {
        let secret = format!("sk-{provider}-{id}-0123456789abcdef");
        (provider.to_owned(), SecretText::from(secret.as_str()))
    };
    ResolvedTenant {
        config: TenantConfig {
            id: id.clone(),
            connection: Connection::Sqlite { path: format!("{id}.db") },
            access: Access::default(),
            limits: Limits::default(),
            quotas: Quotas::default(),
            features: BTreeMap::new(),
        },
        credentials: Credentials {
            db_password: None,
            db_sslkey: None,
            api_keys: ["anthropic", "openai"].map(key).into(),
        },
    }
}

/// In KiB.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Bytes of every file below `path`.
fn size(path: &Path) -> u64 {
    let metadata = fs::symlink_metadata(path).unwrap();
    if metadata.is_dir() {
        fs::read_dir(path).unwrap().map(|entry| size(&entry.unwrap().path())).sum()
    } else {
        metadata.len()
    }
}

fn verdict_of_rate(rate: f64) -> String {
    format!("limit 20000/s {}", verdict(rate >= 20_000.0))
}
