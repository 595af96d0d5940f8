//! What the child does, each scenario up to the moment at which its memory is looked at.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use secrecy::ExposeSecret;
use tenantry::audit::Log;
use tenantry::auth::{Auth, Origin, Role};
use tenantry::clock::{ManualClock, SystemClock};
use tenantry::memory::{LockedBytes, SecretText};
use tenantry::store::DataDir;
use tenantry::tenant::{IdRule, Permissions, Problem, Surroundings, TenantFile};
use tenantry::vault::{Error, KdfCost, KeyFile, NewSlot, Options, Share, Unlock};
use tenantry::{TenantCredentialVault, tenant::TenantId};
use zeroize::Zeroizing;

use Scenario::*;

/// Names the scenario to the child.
pub(crate) const VARIABLE: &str = "TENANTRY_TEST_SCENARIO";
pub(crate) const TENANTS: [&str; 2] = ["tenant001", "tenant002"];
/// As many as cost nothing.
pub(crate) const ATTEMPTS: usize = 5;

pub(crate) static ALLOCATOR_WIPES: AtomicBool = AtomicBool::new(true);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scenario {
    Leaked,
    LeakedBlocks,
    DroppedUnwiped,
    DroppedWiped,
    FailedUnseal,
    DamagedHeader,
    DamagedKeyring,
    Unsealed,
    UnsealedByKeyFile,
    UnsealedByShares,
    SlotsAdded,
    PassphraseChanged,
    RootRotated,
    RootRotatedAndResealed,
    TenantKeyRotated,
    Imported,
    ImportedThroughSpool,
    TokensMade,
    WrongType,
    Evicted,
    Held,
    TenantSealed,
    TenantUnsealed,
    TenantRemoved,
    Sealed,
    Closed,
}

impl Scenario {
    const ALL: [(Self, &str); 26] = [
        (Leaked, "control: leaked"),
        (LeakedBlocks, "control: leaked blocks"),
        (DroppedUnwiped, "control: dropped"),
        (DroppedWiped, "dropped, wiped"),
        (FailedUnseal, "failed unseal, 5 times"),
        (DamagedHeader, "header damaged"),
        (DamagedKeyring, "keyring damaged"),
        (Unsealed, "unsealed"),
        (UnsealedByKeyFile, "unsealed by a key file"),
        (UnsealedByShares, "unsealed by shares"),
        (SlotsAdded, "slots added"),
        (PassphraseChanged, "passphrase changed"),
        (RootRotated, "root rotated"),
        (RootRotatedAndResealed, "root rotated, re-sealed"),
        (TenantKeyRotated, "tenant key rotated"),
        (Imported, "imported"),
        (ImportedThroughSpool, "imported through a spool"),
        (TokensMade, "tokens made and used"),
        (WrongType, "field of a wrong type"),
        (Evicted, "read and evicted"),
        (Held, "read and held"),
        (TenantSealed, "tenant sealed"),
        (TenantUnsealed, "tenant unsealed again"),
        (TenantRemoved, "tenant removed"),
        (Sealed, "sealed"),
        (Closed, "vault closed"),
    ];

    /// After which nothing may be left but what [`Self::leaves_open`] needs.
    pub(crate) fn clean() -> impl Iterator<Item = Self> {
        let dirty = [Leaked, LeakedBlocks, DroppedUnwiped, DroppedWiped, Held];
        Self::ALL.into_iter().map(|(one, _)| one).filter(move |one| !dirty.contains(one))
    }

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(one, _)| *one == self).unwrap().1
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, its)| *its == name).map(|(one, _)| one)
    }

    /// Whether the vault is unsealed at the end.
    pub(crate) fn leaves_open(self) -> bool {
        !matches!(
            self,
            Leaked
                | LeakedBlocks
                | DroppedUnwiped
                | DroppedWiped
                | FailedUnseal
                | DamagedHeader
                | DamagedKeyring
                | WrongType
                | Sealed
                | Closed
        )
    }
}

/// Runs `scenario` in the present directory, says so, and waits for ever.
pub(crate) fn run(scenario: Scenario) {
    let here = Path::new(".");
    match scenario {
        Leaked => wait(String::from_utf8(fs::read("passphrase").unwrap()).unwrap()),
        LeakedBlocks => wait(blocks()),
        DroppedUnwiped | DroppedWiped => {
            ALLOCATOR_WIPES.store(scenario == DroppedWiped, Ordering::Relaxed);
            drop(fs::read("passphrase").unwrap());
            wait(());
        }
        FailedUnseal => {
            let vault = open(here, &clock());
            for attempt in 0..ATTEMPTS {
                let mut passphrase = locked("passphrase");
                passphrase[attempt] ^= 1;
                let passphrase = SecretText::try_from(passphrase).unwrap();
                let refused = vault.unseal(&Unlock::Passphrase(passphrase));
                assert!(matches!(refused, Err(Error::WrongPassphrase)), "{refused:?}");
            }
            let refused = vault.unseal(&passphrase(here));
            assert!(matches!(refused, Err(Error::Throttled { .. })), "{refused:?}");
            wait(vault);
        }
        DamagedHeader | DamagedKeyring => {
            let vault = open(here, &clock());
            let refused = vault.unseal(&passphrase(here));
            let is_damage = matches!(refused, Err(Error::HeaderDamaged | Error::KeyringDamaged));
            assert!(is_damage, "{refused:?}");
            wait(vault);
        }
        Unsealed => wait(unsealed(here)),
        UnsealedByKeyFile => wait(unsealed_by(here, Unlock::KeyFile(key_file()))),
        UnsealedByShares => {
            let shares = ["share_1", "share_2"].map(share);
            wait(unsealed_by(here, Unlock::Shares(shares.into())));
        }
        WrongType => {
            assert_eq!(read_tenant(here, 0, "bad.json").unwrap_err().len(), 2);
            wait(());
        }
        Evicted | Held => {
            let clock = clock();
            let vault = open(here, &clock);
            vault.unseal(&passphrase(here)).unwrap();
            let credentials = vault.credentials(&id(0)).unwrap();
            if scenario == Held {
                wait((vault, credentials));
                return;
            }
            drop(credentials);
            clock.advance(Options::default().credential_ttl + Duration::from_secs(1));
            vault.sweep();
            wait(vault);
        }
        Closed => {
            drop(unsealed_and_read());
            wait(());
        }
        SlotsAdded
        | PassphraseChanged
        | RootRotated
        | RootRotatedAndResealed
        | TenantKeyRotated
        | Imported
        | ImportedThroughSpool
        | TokensMade
        | TenantSealed
        | TenantUnsealed
        | TenantRemoved
        | Sealed => {
            wait(changed(scenario));
        }
    }
}

/// A vault to which `scenario` was done while it was unsealed.
#[expect(clippy::wildcard_enum_match_arm, reason = "the caller names those that are meant")]
fn changed(scenario: Scenario) -> TenantCredentialVault {
    let here = Path::new(".");
    if scenario == Imported {
        let vault = unsealed(here);
        vault.import(vec![read_tenant(here, 0, "good.json").unwrap().tenant]).unwrap();
        return vault;
    }
    if scenario == ImportedThroughSpool {
        let vault = unsealed(here);
        let mut spool = vault.spool().unwrap();
        // As a request is read: wiped in the end, wherever it was moved to.
        spool.push(&mut Zeroizing::new(fs::read("good.json").unwrap())).unwrap();
        let read = |at: usize| {
            let text = spool.read(at)?;
            Ok::<_, Error>(parse_tenant(here, 0, &text).unwrap().tenant)
        };
        vault.import_each(&[id(0)], read).unwrap();
        return vault;
    }
    if scenario == TokensMade {
        let vault = Arc::new(unsealed(here));
        make_tokens(&vault);
        return Arc::into_inner(vault).unwrap();
    }
    let vault = unsealed_and_read();
    match scenario {
        SlotsAdded => add_slots(&vault, here),
        PassphraseChanged => {
            let [old, new] = ["passphrase", "new_passphrase"].map(text);
            vault.change_passphrase(&old, &new, KdfCost::insecure_for_tests()).unwrap();
        }
        RootRotated | RootRotatedAndResealed => {
            let resealed = scenario == RootRotatedAndResealed;
            vault.rotate_root(&[passphrase(here)], false, resealed).unwrap();
            reseal(&vault);
        }
        TenantKeyRotated => {
            vault.rotate_tenant_key(&id(0)).unwrap();
            reseal(&vault);
        }
        TenantSealed | TenantUnsealed => {
            vault.seal_tenant(&passphrase(here), &id(0)).unwrap();
            if scenario == TenantUnsealed {
                vault.unseal_tenant(&passphrase(here), &id(0)).unwrap();
            }
        }
        TenantRemoved => drop(vault.remove_tenants(&passphrase(here), &[id(0)]).unwrap()),
        Sealed => vault.seal(),
        _ => unreachable!("{scenario:?}"),
    }
    // What is cached of the others is not this scenario's.
    vault.forget_opened();
    vault
}

/// Makes a token of a client and one of an operator, uses both, and leaves them to the parent.
fn make_tokens(vault: &Arc<TenantCredentialVault>) {
    let clock = Arc::new(SystemClock);
    let log = Log::open(Path::new("audit"), clock.clone()).unwrap();
    let auth = Auth::new(Arc::clone(vault), log, clock);
    let (client, _) = auth.create(&id(0), Permissions::READ, None).unwrap();
    let (operator, _) = auth.create_operator(Role::Auditor, None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    #[expect(clippy::disallowed_methods, reason = "as requests bring them")]
    let (client, operator) = (client.expose_secret(), operator.expose_secret());
    runtime.block_on(auth.authenticate(Some(client), Origin::default())).unwrap();
    runtime.block_on(auth.authenticate_operator(Some(operator), Origin::default())).unwrap();
    auth.keep(true).unwrap();
    fs::write("client_token", client).unwrap();
    fs::write("operator_token", operator).unwrap();
}

fn reseal(vault: &TenantCredentialVault) {
    while !vault.reseal(1).unwrap().is_done() {}
}

fn wait<T>(kept: T) {
    let mut output = std::io::stdout();
    output.write_all(b"ready\n").and_then(|()| output.flush()).unwrap();
    // Until the parent is gone or has had its look.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(kept);
}

/// Those that the passphrase's key comes from, kept.
fn blocks() -> Vec<Block> {
    let header = fs::read("data/header").unwrap();
    // Of the first slot, whose parameters begin with 16 bytes before the salt.
    let salt = &header[34 + 16..34 + 32];
    let params = Params::new(8, 1, 1, Some(32)).unwrap();
    let mut blocks = vec![Block::new(); params.block_count()];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(&locked("passphrase"), salt, &mut [0; 32], &mut blocks)
        .unwrap();
    blocks
}

/// Adds a key file slot and one of two shares, and writes what opens them to files in `directory`.
pub(crate) fn add_slots(vault: &TenantCredentialVault, directory: &Path) {
    #[expect(clippy::disallowed_methods, reason = "to its file and nowhere else")]
    let write = |name: &str, text: &SecretText| {
        fs::write(directory.join(name), text.expose_secret()).unwrap();
    };
    let key_file = KeyFile::generate().unwrap();
    write("key_file", &key_file.to_text());
    vault.add_slot(&passphrase(directory), &NewSlot::KeyFile(key_file)).unwrap();
    let shares = NewSlot::Shares { threshold: 2, count: 2 };
    let added = vault.add_slot(&passphrase(directory), &shares).unwrap();
    for (share, name) in added.shares.iter().zip(["share_1", "share_2"]) {
        write(name, &share.to_text());
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new("2026-11-22T10:00:00Z".parse().unwrap()))
}

fn id(tenant: usize) -> TenantId {
    TenantId::parse(TENANTS[tenant], IdRule::Alphanumeric).unwrap()
}

fn open(directory: &Path, clock: &Arc<ManualClock>) -> TenantCredentialVault {
    let data = DataDir::open(directory.join("data")).unwrap();
    let options = Options { upgrade_cost: false, ..Options::default() };
    let clock = Arc::<ManualClock>::clone(clock);
    TenantCredentialVault::open(data, options, clock).unwrap()
}

/// Lets go of `unlock` when it is done.
fn unsealed_by(directory: &Path, unlock: Unlock) -> TenantCredentialVault {
    let vault = open(directory, &clock());
    vault.unseal(&unlock).unwrap();
    drop(unlock);
    vault
}

/// The vault in `directory`, unsealed by its passphrase.
pub(crate) fn unsealed(directory: &Path) -> TenantCredentialVault {
    unsealed_by(directory, passphrase(directory))
}

/// The vault in the present directory, unsealed, with every tenant's credentials opened.
fn unsealed_and_read() -> TenantCredentialVault {
    let vault = unsealed(Path::new("."));
    for tenant in [0, 1] {
        drop(vault.credentials(&id(tenant)).unwrap());
    }
    vault
}

fn passphrase(directory: &Path) -> Unlock {
    Unlock::Passphrase(text(directory.join("passphrase")))
}

#[expect(clippy::disallowed_methods, reason = "parsed into a value that hides it as well")]
fn key_file() -> KeyFile {
    KeyFile::parse(text("key_file").expose_secret().as_bytes()).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "parsed into a value that hides it as well")]
fn share(path: &str) -> Share {
    Share::parse(text(path).expose_secret()).unwrap()
}

fn text(path: impl AsRef<Path>) -> SecretText {
    SecretText::try_from(locked(path)).unwrap()
}

fn locked(path: impl AsRef<Path>) -> LockedBytes {
    let mut file = File::open(path).unwrap();
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let mut bytes = LockedBytes::zeroed(length);
    file.read_exact(&mut bytes).unwrap();
    bytes
}

pub(crate) fn read_tenant(
    directory: &Path,
    tenant: usize,
    name: &str,
) -> Result<TenantFile, Vec<Problem>> {
    parse_tenant(directory, tenant, &locked(directory.join(name)))
}

fn parse_tenant(directory: &Path, tenant: usize, file: &[u8]) -> Result<TenantFile, Vec<Problem>> {
    let lookup = |_: &str| Some(text(directory.join("variable")));
    let surroundings = Surroundings {
        id_rule: IdRule::Alphanumeric,
        lookup: &lookup,
        certificate: &|_| Err("there is none".to_owned()),
    };
    TenantFile::read(&format!("{}.json", TENANTS[tenant]), file, &surroundings)
}
