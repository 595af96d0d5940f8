//! What this program does when the tests start it again as a child, to have something to kill and
//! to record.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tenantry::ErrorCode;
use tenantry::admin::{self, Admin};
use tenantry::audit::{Actor, Log};
use tenantry::auth::Auth;
use tenantry::clock::{Clock, SystemClock};
use tenantry::memory::SecretText;
use tenantry::store::DataDir;
use tenantry::vault::{self, KdfCost, Unlock};

use crate::control::{self, Care};
use crate::load;
use crate::place::{self, PASSPHRASE, Place};

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
