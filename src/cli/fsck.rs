//! `fsck`: checks everything that is stored, and rescues what can be.
//!
//! ```text
//! a service has the directory --> it checks itself, beside its calls
//! none has, and it opens ------> checked here, after the repairs of the opening
//! it does not open ------------> whatever can be read is checked, and nothing is written
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use super::key::Key;
use super::output::{cell, table_of};
use super::place::{Bar, Place};
use super::{Context, Failure, Opened, operator};
use crate::admin::{self, Command, Progress};
use crate::audit::Log;
use crate::clock::{Clock, SystemClock};
use crate::error::ErrorCode;
use crate::store::{self, DataDir, Scratch};
use crate::vault::check::Report;
use crate::vault::{self, TenantCredentialVault, Unlock, Unsealing};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Rescue everything that still opens into a new data directory
    #[arg(long, value_name = "OUT")]
    salvage: Option<PathBuf>,
    /// Where the copy goes that a store which does not open is looked at in; as large as the store.
    /// Beside the data directory unless given
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Take older copies of header, keyring or store for what there is, if it does not open otherwise:
    /// what was written since then is lost
    #[arg(long, conflicts_with = "salvage")]
    accept_rollback: bool,
    /// Build the store anew from this backup and the journal, then check it
    #[arg(long, value_name = "BACKUP", conflicts_with_all = ["salvage", "accept_rollback"])]
    rebuild_from: Option<PathBuf>,
}

impl Arguments {
    /// Whether a running service is in the way.
    fn needs_the_directory(&self) -> bool {
        self.salvage.is_some() || self.accept_rollback || self.rebuild_from.is_some()
    }
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let place = match context.place() {
        Ok(place) => place,
        Err(failure) => return Err(without_header(context.data_dir()).unwrap_or(failure)),
    };
    match (place, &arguments.salvage) {
        (Place::Here(directory), Some(out)) => salvage(context, arguments, directory, out),
        (Place::Service, _) if arguments.needs_the_directory() => {
            let path = context.data_dir().display();
            let message =
                format!("a service has {path}, which this needs for itself; stop it first");
            Err(Failure::new(ErrorCode::InUse, message))
        }
        (Place::Here(directory), None) => {
            let key = context.key()?;
            let report = check_here(context, arguments, directory, &key)?;
            conclude(context, &admin::describe_report(&report))
        }
        (Place::Service, _) => {
            let Key { proof, secrets } = context.key()?;
            conclude(context, &context.operate(&Command::Fsck { proof }, &secrets)?)
        }
    }
}

/// Of a directory that looks initialised but for its header.
fn without_header(path: &Path) -> Option<Failure> {
    let has = |name: &str| path.join(name).exists();
    let is_headless = !has(DataDir::HEADER) && (has(DataDir::KEYRING) || has("store"));
    let message = format!(
        "the header is missing from {}, and nothing opens without it: restore it from a backup with \
         `tenantry backup restore`",
        path.display()
    );
    is_headless.then(|| Failure::new(ErrorCode::IntegrityError, message))
}

fn check_here(
    context: &Context,
    arguments: &Arguments,
    directory: DataDir,
    key: &Key,
) -> Result<Report, Failure> {
    let (unlock, bar) = (key.unlock()?, Bar::default());
    let audit_path = directory.audit_path();
    let mut show = |progress: Progress| {
        bar.show(progress);
        true
    };
    let vault = match open(context, directory) {
        Ok(vault) => vault,
        Err(error) if error.code() == ErrorCode::IntegrityError => {
            let mut report = Report::of_damaged_header(&error);
            report.push(admin::audit_log(&audit_path));
            return Ok(report);
        }
        Err(error) => return Err(error.into()),
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // What cannot be recorded is not done: without a log nothing is opened that would be repaired.
    let refusal = match Log::open(&audit_path, Arc::clone(&clock)) {
        Err(error) if error.code() == ErrorCode::IntegrityError => None,
        Err(error) => return Err(error.into()),
        Ok(log) => {
            let opened = Opened { vault: Arc::clone(&vault), log, clock };
            let admin = opened.admin();
            let mut repairs = Vec::new();
            if let Some(backup) = &arguments.rebuild_from {
                repairs = admin.rebuild(&unlock, backup, &mut show)?;
            }
            let unsealed = if arguments.accept_rollback {
                admin.unseal_accepting_rollback(&unlock)
            } else {
                admin.unseal(&unlock)
            };
            match unsealed {
                Ok(unsealing) => {
                    let Unsealing { repairs: found, accepted, .. } = unsealing.unwrap_or_default();
                    repairs.extend(found);
                    let mut report = admin.check(&unlock, &mut show)?;
                    report.repaired(&repairs);
                    report.accepted(&accepted);
                    return Ok(report);
                }
                Err(admin::Error::Vault(error)) if is_refusal(&error) => Some(error),
                Err(error) => return Err(error.into()),
            }
        }
    };
    // Anew, for the store may be half open.
    drop(vault);
    let vault = open(context, DataDir::open(context.data_dir())?)?;
    let scratch = Scratch::create(vault.directory(), arguments.scratch.as_deref())?;
    Ok(admin::examine(&vault, &unlock, refusal.as_ref(), &scratch, &mut show)?)
}

/// Whether a vault does not open for what it is, rather than for what it was given.
fn is_refusal(error: &vault::Error) -> bool {
    error.code() == ErrorCode::IntegrityError
        || matches!(error, vault::Error::Store(error) if !matches!(error, store::Error::InUse { .. }))
}

fn open(context: &Context, directory: DataDir) -> Result<Arc<TenantCredentialVault>, vault::Error> {
    let options = context.settings.vault_options();
    TenantCredentialVault::open(directory, options, Arc::new(SystemClock)).map(Arc::new)
}

/// Prints the report, and fails unless everything is good.
fn conclude(context: &Context, report: &Value) -> Result<(), Failure> {
    context.output.answer(report, || text(report));
    let parts = report["parts"].as_array().into_iter().flatten();
    let bad = parts.filter(|part| part["verdict"] == "damaged").map(|part| cell(part, "part"));
    let bad: Vec<String> = bad.collect();
    let message = match cell(report, "verdict").as_str() {
        "good" | "repaired" => return Ok(()),
        "damaged" => format!("damage was found: {}", bad.join(", ")),
        _ => "not everything could be checked".to_owned(),
    };
    Err(Failure::new(ErrorCode::IntegrityError, message))
}

fn text(report: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let parts = list(&report["parts"]);
    let cells =
        parts.iter().map(|part| ["part", "verdict", "checked"].map(|it| cell(part, it)).into());
    let mut lines = vec![table_of(&["part", "verdict", "checked"], cells.collect())];
    for part in &parts {
        let name = cell(part, "part");
        for finding in list(&part["findings"]) {
            let tenant = finding["tenant_id"].as_str().map(|tenant| format!("{tenant}: "));
            let tenant = tenant.unwrap_or_default();
            lines.push(format!("\n{name}: {tenant}{}", cell(&finding, "message")));
            if let Some(way_out) = finding["way_out"].as_str() {
                lines.push(format!("  way out: {way_out}"));
            }
        }
        if let Some(omitted) = part["omitted"].as_u64().filter(|omitted| *omitted > 0) {
            lines.push(format!("\n{name}: {omitted} more"));
        }
    }
    lines.join("\n")
}

fn salvage(
    context: &Context,
    arguments: &Arguments,
    directory: DataDir,
    out: &Path,
) -> Result<(), Failure> {
    let unlock: Unlock = context.key()?.unlock()?;
    let vault = open(context, directory)?;
    let scratch = Scratch::create(vault.directory(), arguments.scratch.as_deref())?;
    let out_directory = DataDir::create(out)?;
    let bar = Bar::default();
    let mut show = |progress: Progress| {
        bar.show(progress);
        true
    };
    let places = (&out_directory, &scratch);
    let clock = Arc::new(SystemClock);
    let rescued = admin::salvage(&vault, &unlock, operator(), places, clock, &mut show)?;
    drop(bar);
    let answer = admin::describe_rescued(&rescued, out);
    context.output.answer(&answer, || salvaged_text(&answer));
    if context.data_dir().join("databases").is_dir() {
        context.output.remark(
            "databases/ was not copied: move it to the new directory, or set database.sqlite_root",
        );
    }
    Ok(())
}

fn salvaged_text(answer: &Value) -> String {
    let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let mut lines = vec![format!(
        "rescued into {}: {} tenants as they were, {} without some fields, {} tokens",
        cell(answer, "directory"),
        cell(answer, "tenants"),
        list("incomplete").len(),
        cell(answer, "tokens"),
    )];
    for tenant in list("incomplete") {
        let (id, fields) = (cell(&tenant, "tenant_id"), cell(&tenant, "lost_fields"));
        lines.push(format!("{id}: lost {fields}; import its file again"));
    }
    for tenant in list("lost") {
        let (id, handle) = (cell(&tenant, "tenant_id"), cell(&tenant, "handle"));
        lines.push(format!("lost: tenant {id} (at handle {handle}); import its file"));
    }
    for token in list("lost_tokens") {
        let name = token.as_str().unwrap_or_default();
        lines.push(format!("lost: token {name}; make another for its bearer"));
    }
    let (newest, from) = (answer["newest_commit"].as_u64(), answer["rescued_commit"].as_u64());
    if let (Some(newest), Some(from)) = (newest, from)
        && from < newest
    {
        lines.push(format!(
            "commits {} to {newest} are lost, or not all there: what was changed by them may be as it \
             was before, and a token that was revoked by them may work again",
            from + 1
        ));
    }
    if answer["audit_log"] == false {
        let text = "the audit log is damaged and was not copied: keep the old directory for it";
        lines.push(text.to_owned());
    }
    let text = "start the service on the new directory, and keep the old one until you have looked";
    lines.push(text.to_owned());
    lines.join("\n")
}
