//! What this program does when the tests start it again as a child, to have something to kill and
//! to record.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use jiff::Timestamp;
use tenantry::ErrorCode;
use tenantry::admin::{self, Admin};
use tenantry::audit::{Actor, Log};
use tenantry::auth::Auth;
use tenantry::clock::{Clock, SystemClock};
use tenantry::memory::SecretText;
use tenantry::store::DataDir;
use tenantry::tenant::{IdRule, Surroundings, TenantFile, TenantId};
use tenantry::vault::{self, KdfCost, TenantCredentialVault, Unlock};
use zeroize::Zeroizing;

use crate::control::{self, Care};
use crate::load;
use crate::place::{self, PASSPHRASE, Place, TENANTS};

/// Says which task a child has.
const TASK: &str = "TENANTRY_CRASH_TASK";
/// The root of the place that it works in.
const PLACE: &str = "TENANTRY_CRASH_PLACE";

/// This program, about to do `task` in `place`.
pub(crate) fn command(place: &Place, task: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child::child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(TASK, task)
        .env(PLACE, place.root());
    place.surround(&mut command);
    command
}

#[expect(clippy::disallowed_methods, reason = "how the parent tells it")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The child's part; does nothing of interest by itself.
#[test]
#[ignore = "started by the other tests"]
fn child() {
    let place = Place::at(PathBuf::from(variable(PLACE).expect("the parent names a place")));
    let result = match variable(TASK).as_deref() {
        Some("init") => init(&place.data()),
        Some("passphrase change") => change_passphrase(&place),
        Some("token use") => use_tokens(&place),
        Some("token revoke") => revoke_token(&place),
        Some("quota use") => use_quota(&place, TENANTS[0]),
        Some("tenant import, while served") => import_as_served(&place),
        Some("load") => load::run(&place),
        Some(task) => {
            let care = Care::ALL.into_iter().find(|care| care.task() == task);
            control::append(&place, care.expect("the parent names a task"));
            Ok(())
        }
        None => unreachable!("the parent names a task"),
    };
    if let Err((code, message)) = result {
        eprintln!(r#"{{"error_code":"{code}","message":{message:?}}}"#);
        std::process::exit(code.exit_code().into());
    }
}

/// A code and a text, as the program itself would give them.
pub(crate) type Failed = (ErrorCode, String);

fn failed(error: &vault::Error) -> Failed {
    (error.code(), error.to_string())
}

/// As the verb does, at a cost that many runs can bear.
fn init(directory: &Path) -> Result<(), Failed> {
    let failed = |error| failed(&error);
    let directory = DataDir::create(directory).map_err(|error| failed(error.into()))?;
    let passphrase = SecretText::from(PASSPHRASE);
    vault::create(&directory, &passphrase, KdfCost::insecure_for_tests(), &SystemClock)
        .map_err(failed)
}

/// What a service does now and then, with the moment of the last use of each token.
fn use_tokens(place: &Place) -> Result<(), Failed> {
    let vault = unsealed(place)?;
    let tokens = vault.tokens_after(None, usize::MAX).map_err(|error| failed(&error))?;
    let moment = Timestamp::from_second(1_795_305_600).unwrap();
    let uses: Vec<_> = tokens.into_iter().map(|(token, _)| (token, moment)).collect();
    vault.save_token_uses(&uses).map_err(|error| failed(&error))
}

/// As the verb does with the first token there is.
fn revoke_token(place: &Place) -> Result<(), Failed> {
    let vault = unsealed(place)?;
    let tokens = vault.tokens().map_err(|error| failed(&error))?;
    let first = tokens.iter().map(|token| token.token_id.as_str()).min();
    vault.remove_token(first.unwrap_or_default()).map(drop).map_err(|error| failed(&error))
}

/// What a service does now and then, with what `tenant` has used of its quotas.
pub(crate) fn use_quota(place: &Place, tenant: &str) -> Result<(), Failed> {
    let vault = unsealed(place)?;
    let id = TenantId::parse(tenant, IdRule::Alphanumeric).unwrap();
    let born = vault.tenant(&id).map_err(|error| failed(&error))?.created_at;
    vault.save_counts(&[(&id, born)], |_| b"counts".to_vec()).map_err(|error| failed(&error))?;
    Ok(())
}

/// As a service does with tenants that come over its socket: they wait in a spool.
fn import_as_served(place: &Place) -> Result<(), Failed> {
    let vault = unsealed(place)?;
    let failed = |error| failed(&error);
    let mut spool = vault.spool().map_err(failed)?;
    let name = |tenant: &str| format!("{tenant}.json");
    for tenant in TENANTS {
        let path = place.path("changed").join(name(tenant));
        spool.push(&mut Zeroizing::new(std::fs::read(path).unwrap())).map_err(failed)?;
    }
    let surroundings = Surroundings {
        id_rule: IdRule::Alphanumeric,
        lookup: &|_| None,
        certificate: &|_| Err("there is none".to_owned()),
    };
    let ids = TENANTS.map(|tenant| TenantId::parse(tenant, IdRule::Alphanumeric).unwrap());
    let read = |at: usize| {
        let text = spool.read(at)?;
        let file = TenantFile::read(&name(TENANTS[at]), &text, &surroundings).unwrap();
        Ok::<_, vault::Error>(file.tenant)
    };
    vault.import_each(&ids, read).map(drop).map_err(failed)
}

fn unsealed(place: &Place) -> Result<TenantCredentialVault, Failed> {
    place::unsealed(&place.data(), PASSPHRASE).map_err(|error| failed(&error))
}

/// As the verb does, at a cost that many runs can bear.
fn change_passphrase(place: &Place) -> Result<(), Failed> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let refused = |error: admin::Error| (error.code(), error.to_string());
    let log = Log::open(&place.data().join("audit"), Arc::clone(&clock));
    let log = log.map_err(|error| (error.code(), error.to_string()))?;
    let vault = Arc::new(place::sealed(&place.data()).map_err(|error| failed(&error))?);
    let auth = Auth::new(Arc::clone(&vault), log.clone(), clock);
    let operator = Actor::Operator { name: "test".to_owned() };
    let admin = Admin::new(vault, Arc::new(auth), log, operator);
    let [old, new] = [place.read("passphrase"), place.read("replacement")];
    let [old, new] = [old, new].map(|text| SecretText::from(text.as_str()));
    let unlock = Unlock::Passphrase(SecretText::from(place.read("passphrase").as_str()));
    admin.unseal(&unlock).map_err(refused)?;
    admin.change_passphrase(&old, &new, KdfCost::insecure_for_tests()).map_err(refused)?;
    Ok(())
}
