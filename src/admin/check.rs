//! Checking everything that is stored, and rescuing what can be.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{About, Admin, Error, Progress};
use crate::audit::{self, Actor, Attempt, Log, Outcome, RequestId};
use crate::clock::Clock;
use crate::error::ErrorCode;
use crate::store::{DataDir, Repair, Scratch};
use crate::vault::check::{CheckProgress, Finding, Part, PartReport, Report, Salvaged, Verdict};
use crate::vault::{self, TenantCredentialVault, Unlock};

const KEEP_LOG: &str = "keep a copy of audit/ as evidence; a service starts only when its newest \
                        segment reads: move that segment away then";

/// What a rescue came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rescued {
    /// What the vault's part of it was.
    pub vault: Salvaged,
    /// Whether the audit log was copied: it is not when it is damaged.
    pub has_audit_log: bool,
}

impl Admin {
    /// Checks everything that is stored, the audit log included, while it is served.
    pub fn check(
        &self,
        unlock: &Unlock,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Report, Error> {
        let pending = self.log.begin(self.attempt("vault.fsck", None));
        self.has_recorded.store(true, Ordering::Release);
        let checked = self.vault.check(unlock, &mut |reached| progress(of(reached)));
        let checked = checked.map_err(Error::from).map(|mut report| {
            report.push(audit_log(&self.vault.directory().audit_path()));
            report
        });
        pending.complete_blocking(match &checked {
            Ok(report) => outcome(report),
            Err(error) => Outcome { code: Some(error.code()), ..Outcome::default() },
        })?;
        checked
    }
}

/// Checks what can be read of a vault that does not open, for the reason `refusal`, or that was not
/// opened. Writes nothing into its directory but the count of attempts to open it, and so no audit
/// entry either.
pub fn examine(
    vault: &TenantCredentialVault,
    unlock: &Unlock,
    refusal: Option<&vault::Error>,
    scratch: &Scratch,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Report, Error> {
    let mut watch = |reached| progress(of(reached));
    let mut report = vault.examine(unlock, refusal, scratch, &mut watch)?;
    report.push(audit_log(&vault.directory().audit_path()));
    Ok(report)
}

/// Rescues what still opens of a vault into `out`, an empty data directory, and the audit log with
/// it, in which the rescue is recorded. The vault's own directory is only read.
pub fn salvage(
    vault: &TenantCredentialVault,
    unlock: &Unlock,
    operator: Actor,
    (out, scratch): (&DataDir, &Scratch),
    clock: Arc<dyn Clock>,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Rescued, Error> {
    let (from, to) = (vault.directory().audit_path(), out.audit_path());
    let has_audit_log = audit::verify(&from, |_| {}).is_ok_and(|verified| verified.is_good());
    if has_audit_log {
        audit::copy(&from, &to)?;
    }
    let log = Log::open(&to, clock)?;
    let mut pending = log.begin(attempt(operator, "vault.salvage"));
    pending.set_resource(&format!("from {}", vault.directory().path().display()), None);
    pending.announce_blocking()?;
    let mut watch = |reached| progress(of(reached));
    let salvaged = vault.salvage(unlock, out, scratch, &mut watch).map_err(Error::from);
    pending.complete_blocking(match &salvaged {
        Ok(salvaged) => Outcome { rows: Some(salvaged.records), ..Outcome::default() },
        Err(error) => Outcome { code: Some(error.code()), ..Outcome::default() },
    })?;
    Ok(Rescued { vault: salvaged?, has_audit_log })
}

/// How the audit log in `directory` is.
pub fn audit_log(directory: &Path) -> PartReport {
    let mut part = PartReport::new(Part::Audit);
    match audit::verify(directory, |_| {}) {
        Ok(verified) => {
            part.checked = verified.entries;
            for problem in &verified.problems {
                part.damaged(Finding::new(problem.to_string(), KEEP_LOG));
            }
            part.omitted += verified.omitted;
        }
        Err(error) => part.damaged(Finding::new(error.to_string(), KEEP_LOG)),
    }
    part
}

impl Admin {
    /// Makes the store of a vault that is closed anew, from a backup of it and the journal.
    pub fn rebuild(
        &self,
        unlock: &Unlock,
        backup: &Path,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Vec<Repair>, Error> {
        let about = About { tenant: None, resource: Some(format!("from {}", backup.display())) };
        let rebuild = || {
            let mut watch = |reached| progress(of(reached));
            Ok(self.vault.rebuild_from(unlock, backup, &mut watch)?)
        };
        self.change("store.rebuild", &about, |_: &Vec<Repair>| (None, None), rebuild)
    }
}

fn attempt(actor: Actor, action: &'static str) -> Attempt {
    Attempt { request_id: RequestId::random(), actor, peer: None, action, tenant: None }
}

fn outcome(report: &Report) -> Outcome {
    let code = (report.verdict() == Verdict::Damaged).then_some(ErrorCode::IntegrityError);
    Outcome { code, rows: Some(report.checked()), ..Outcome::default() }
}

fn of(reached: CheckProgress) -> Progress {
    Progress { done: reached.done, total: reached.total }
}
