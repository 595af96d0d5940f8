//! What the parent does before and after a scenario: the vault, and what may be known of it.

use std::fs;
use std::path::{Path, PathBuf};

use tenantry::clock::SystemClock;
use tenantry::memory::SecretText;
use tenantry::store::DataDir;
use tenantry::vault::{self, KdfCost};

use crate::keys::{self, Opener, Secret};
use crate::scan;
use crate::scenario::{self, ATTEMPTS, Scenario, TENANTS};

/// Files with text of which nothing may be left.
const TEXTS: [&str; 6] =
    ["passphrase", "new_passphrase", "db_password", "api_key", "variable", "other_password"];
/// Files with what opens slots of other kinds. Not every scenario has them.
const SLOT_TEXTS: [&str; 3] = ["key_file", "share_1", "share_2"];
/// Files with tokens that the child made. Not every scenario has them.
const TOKENS: [&str; 2] = ["client_token", "operator_token"];

/// A vault with two tenants, made by the parent: the child shall not have made its keys.
pub(crate) fn prepare(directory: &Path, scenario: Scenario) {
    for name in TEXTS {
        fs::write(directory.join(name), scan::random_text()).unwrap();
    }
    let data = DataDir::create(directory.join("data")).unwrap();
    let passphrase = SecretText::from(read(directory, "passphrase").as_str());
    vault::create(&data, &passphrase, KdfCost::insecure_for_tests(), &SystemClock).unwrap();
    drop(data);

    let password = format!("\"{}\"", escaped(&read(directory, "db_password")));
    let other = format!("\"{}\"", escaped(&read(directory, "other_password")));
    let api_key = read(directory, "api_key");
    write_tenant(directory, "good.json", TENANTS[0], "5432", &password, &api_key);
    write_tenant(directory, "bad.json", TENANTS[0], &password, &format!("[{password}]"), &api_key);
    write_tenant(directory, "other.json", TENANTS[1], "5432", &other, &api_key);

    let vault = scenario::unsealed(directory);
    let mut tenants = vec![scenario::read_tenant(directory, 1, "other.json").unwrap().tenant];
    if !matches!(scenario, Scenario::Imported | Scenario::ImportedThroughSpool) {
        tenants.push(scenario::read_tenant(directory, 0, "good.json").unwrap().tenant);
    }
    vault.import(tenants).unwrap();
    if matches!(scenario, Scenario::UnsealedByKeyFile | Scenario::UnsealedByShares) {
        scenario::add_slots(&vault, directory);
    }
}

/// Every secret has an escape: its way is the longer one.
fn write_tenant(
    directory: &Path,
    name: &str,
    tenant: &str,
    port: &str,
    password: &str,
    api_key: &str,
) {
    let text = format!(
        r#"{{"tenant_id": "{tenant}", "db_host": "localhost", "db_port": {port}, "db_name": "d",
            "db_user": "u", "db_password": {password},
            "api_keys": {{"one": "{}", "two": "x\u002d${{VARIABLE}}"}}}}"#,
        escaped(api_key),
    );
    fs::write(directory.join(name), text).unwrap();
}

fn escaped(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    format!("\\u{:04x}{rest}", u32::from(first.chars().next().unwrap()))
}

fn read(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).unwrap()
}

/// Spoils what the scenario wants spoiled.
pub(crate) fn damage(directory: &Path, scenario: Scenario) {
    let spoil = |path: PathBuf| {
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    };
    if scenario == Scenario::DamagedHeader {
        spoil(directory.join("data/header"));
    } else if scenario == Scenario::DamagedKeyring {
        spoil(directory.join("data/keyring"));
    }
}

/// The keys of the vault in `directory`, as it is now.
pub(crate) fn keys(directory: &Path, scenario: Scenario) -> Vec<Secret> {
    let passphrase = read(directory, "passphrase").into_bytes();
    let mut openers = vec![Opener::Passphrase(read(directory, "new_passphrase").into_bytes())];
    if scenario == Scenario::FailedUnseal {
        for attempt in 0..ATTEMPTS {
            let mut wrong = passphrase.clone();
            wrong[attempt] ^= 1;
            openers.push(Opener::Passphrase(wrong));
        }
    }
    openers.push(Opener::Passphrase(passphrase));
    if directory.join("key_file").exists() {
        let [key_file, first, second] = SLOT_TEXTS.map(|name| payload(&read(directory, name)));
        openers.push(Opener::Kek(key_file));
        // Lagrange's weights of the points 1 and 2, at 0, in the field of AES.
        let combine = |(one, two): (&u8, &u8)| multiply(*one, 0xf7) ^ multiply(*two, 0xf6);
        openers.push(Opener::Kek(first[11..].iter().zip(&second[11..]).map(combine).collect()));
    }
    let keys = keys::of(&directory.join("data"), &openers, &TENANTS);
    let is_key = |secret: &&Secret| secret.bytes.len() == 32;
    let masked: Vec<Secret> = keys.iter().filter(is_key).flat_map(in_hmac).collect();
    [keys, masked].concat()
}

/// What HMAC makes of a key before it hashes it, from which anybody makes the key.
fn in_hmac(key: &Secret) -> [Secret; 2] {
    let masked = |mask: u8| key.bytes.iter().map(|byte| byte ^ mask).collect::<Vec<u8>>();
    [0x36, 0x5c].map(|mask| Secret::new("in HMAC", &masked(mask), false))
}

/// What is searched for beside keys: ends of text, for allocators overwrite the beginning of what is
/// freed.
pub(crate) fn texts(directory: &Path) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for name in TEXTS {
        secrets.push(Secret::new(name, read(directory, name).as_bytes(), false));
    }
    for name in TOKENS.iter().filter(|name| directory.join(name).exists()) {
        secrets.push(Secret::new(*name, read(directory, name).as_bytes(), false));
    }
    for name in SLOT_TEXTS.iter().filter(|name| directory.join(name).exists()) {
        let text = read(directory, name).trim().to_owned();
        secrets.push(Secret::new(*name, text.as_bytes(), false));
        secrets.push(Secret::new(*name, text.replace('-', "").as_bytes(), false));
        secrets.push(Secret::new(format!("{name}, decoded"), &payload(&text), false));
    }
    secrets
}

/// The bytes in a key file or a share, which is Bech32m.
fn payload(text: &str) -> Vec<u8> {
    const ALPHABET: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let text = text.trim();
    let symbols = match text.strip_prefix("tenantry-key-1:") {
        Some(symbols) => symbols.to_owned(),
        None => text.strip_prefix("tenantry-share-1").unwrap().replace('-', ""),
    };
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for symbol in symbols[..symbols.len() - 6].chars() {
        bits = bits << 5 | u32::try_from(ALPHABET.find(symbol).unwrap()).unwrap();
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held).to_le_bytes()[0]);
        }
    }
    bytes
}

fn multiply(mut one: u8, mut other: u8) -> u8 {
    let mut product = 0;
    while other != 0 {
        product ^= if other & 1 == 1 { one } else { 0 };
        one = one << 1 ^ if one & 0x80 == 0 { 0 } else { 0x1b };
        other >>= 1;
    }
    product
}
