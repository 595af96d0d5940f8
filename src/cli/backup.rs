//! `backup create | verify | restore | list | forget`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::key::{self, Key};
use super::output::{cell, moment};
use super::place::Bar;
use super::vault::make_key_file;
use super::{Context, Failure, operator, serve};
use crate::admin::{self, SlotRequest};
use crate::clock::{Clock, SystemClock};
use crate::error::ErrorCode;
use crate::store::DataDir;

/// What has to be kept in another way.
const NOT_IN_IT: &str =
    "Not in it: databases of SQLite tenants, the audit log and settings; copy those yourself.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write everything into one file, beside a running service, and try it
    Create(CreateArguments),
    /// Restore a backup into a scratch place, open every record, and remove it again
    Verify {
        /// The backup
        #[arg(value_name = "FILE")]
        backup: PathBuf,
        /// Where there is room for it; beside the backup unless given
        #[arg(long, value_name = "DIR")]
        scratch: Option<PathBuf>,
    },
    /// Make the data directory anew, from a backup
    Restore {
        /// The backup
        #[arg(value_name = "FILE")]
        backup: PathBuf,
    },
    /// List the backups that are known
    List,
    /// Forget a backup whose file is gone
    Forget {
        /// Its id in `backup list`
        id: String,
    },
}

#[derive(Args, Debug)]
pub(super) struct CreateArguments {
    /// The file, which must not be there
    #[arg(value_name = "FILE")]
    backup: PathBuf,
    /// Do not restore it into a scratch place, beside the file, at once
    #[arg(long)]
    no_verify: bool,
    /// Have this passphrase open this backup and the next ones, instead of what opens the vault
    #[arg(long, value_name = "FILE", conflicts_with = "slot_key_file")]
    new_passphrase_file: Option<PathBuf>,
    /// Have the key in this file open them, which is made unless it is there
    #[arg(long, value_name = "FILE")]
    slot_key_file: Option<PathBuf>,
}

pub(super) fn run(context: &mut Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(arguments) => create(context, &arguments),
        Command::Verify { backup, scratch } => verify(context, &backup, scratch.as_deref()),
        Command::Restore { backup } => restore(context, &backup),
        Command::List => list(context),
        Command::Forget { id } => {
            let answer =
                context.operate(&admin::Command::BackupForget { backup_id: id.clone() }, &[])?;
            context.output.answer(&answer, || format!("{id} is forgotten"));
            Ok(())
        }
    }
}

fn create(context: &mut Context, arguments: &CreateArguments) -> Result<(), Failure> {
    let path = absolute(&arguments.backup)?;
    let new_slot = match (&arguments.new_passphrase_file, &arguments.slot_key_file) {
        (Some(path), _) => {
            let passphrase = key::read_line_of(path, "--new-passphrase-file")?;
            Some((SlotRequest::Passphrase, passphrase))
        }
        (None, Some(path)) => {
            make_key_file(path)?;
            Some((SlotRequest::KeyFile, key::read_key_file(path)?))
        }
        (None, None) => None,
    };
    let key = proof(context, new_slot.is_some())?;
    let (proof, mut secrets) = match key {
        Some(Key { proof, secrets }) => (Some(proof), secrets),
        None => (None, Vec::new()),
    };
    let slot = new_slot.map(|(slot, secret)| {
        secrets.push(secret);
        slot
    });
    let _signals = stop_here_on_signal(context)?;
    let verify = !arguments.no_verify;
    let command = admin::Command::BackupCreate { path, proof, slot, verify };
    let answer = context.operate(&command, &secrets)?;
    context.output.answer(&answer, || {
        let tried = if verify {
            "it was restored into a scratch place, and every record opened"
        } else {
            "it was not tried: run `tenantry backup verify`"
        };
        format!(
            "{}: {} records of commit {}, {} bytes; {tried}\n{NOT_IN_IT}",
            cell(&answer, "path"),
            cell(&answer, "records"),
            cell(&answer, "commit"),
            cell(&answer, "bytes"),
        )
    });
    Ok(())
}

/// What opens the vault, unless a service needs none for a backup.
fn proof(context: &Context, changes_slot: bool) -> Result<Option<Key>, Failure> {
    if !changes_slot && context.is_served() {
        let status = context.operate(&admin::Command::Status, &[])?;
        if status["sealed"] == true || status["backups"]["slot"] == true {
            return Ok(None);
        }
    }
    Ok(Some(context.proof()?))
}

fn verify(context: &mut Context, file: &Path, scratch: Option<&Path>) -> Result<(), Failure> {
    let answer = if context.is_served() {
        let path = absolute(file)?;
        let scratch = scratch.map(absolute).transpose()?;
        let command = |proof| admin::Command::BackupVerify {
            path: path.clone(),
            proof,
            scratch: scratch.clone(),
        };
        match context.operate(&command(None), &[]) {
            // Another slot than the service knows, or it knows none at present.
            Err(failure) if failure.code() == ErrorCode::VaultSealed => {
                let Key { proof, secrets } = context.key()?;
                context.operate(&command(Some(proof)), &secrets)?
            }
            answer => answer?,
        }
    } else {
        let unlock = context.key()?.unlock()?;
        let _signals = stop_here_on_signal(context)?;
        let bar = Bar::default();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        admin::verify_backup(file, &unlock, scratch, &clock, &mut |progress| {
            bar.show(progress);
            context.goes_on()
        })?
    };
    context.output.answer(&answer, || {
        let unopened = match answer["unopened_tenants"].as_u64() {
            None | Some(0) => String::new(),
            Some(count) => format!(
                "; {count} sealed tenants were not opened: stop the service, or seal it, and give \
                 what opens the backup"
            ),
        };
        format!(
            "{} is intact: {} records of commit {}, as its manifest says; {} opened, of {} tenants \
             and {} tokens{unopened}",
            cell(&answer, "path"),
            cell(&answer, "records"),
            cell(&answer, "commit"),
            cell(&answer, "opened"),
            cell(&answer, "tenants"),
            cell(&answer, "tokens"),
        )
    });
    Ok(())
}

fn restore(context: &mut Context, file: &Path) -> Result<(), Failure> {
    // Before the key is asked for: it would be asked for in vain.
    let directory = DataDir::create(context.data_dir())?;
    let unlock = context.key()?.unlock()?;
    let _signals = stop_here_on_signal(context)?;
    let bar = Bar::default();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let restored = admin::Restore { file, directory, unlock: &unlock, operator: operator(), clock };
    let options = context.settings.vault_options().store;
    let answer = restored.run(options, &mut |progress| {
        bar.show(progress);
        context.goes_on()
    })?;
    drop(bar);
    context.output.answer(&answer, || {
        format!(
            "restored {} records of commit {}, of {}, into {}\n\nIt opens with what opened the \
             backup; give it other ways with `tenantry slot add`.\nTokens, tenants and limits are \
             those of then. {NOT_IN_IT}",
            cell(&answer, "records"),
            cell(&answer, "commit"),
            moment(&answer, "created_at"),
            cell(&answer, "data_dir"),
        )
    });
    Ok(())
}

fn list(context: &Context) -> Result<(), Failure> {
    let answer = context.operate(&admin::Command::BackupList, &[])?;
    let backups = answer.as_array().cloned().unwrap_or_default();
    let cells = backups.iter().map(|backup: &Value| {
        let yes = |name: &str| if backup[name] == true { "yes" } else { "no" }.to_owned();
        vec![
            cell(backup, "backup_id"),
            moment(backup, "created_at"),
            cell(backup, "commit"),
            cell(backup, "bytes"),
            moment(backup, "verified_at"),
            yes("scheduled"),
            yes("present"),
            cell(backup, "path"),
        ]
    });
    let headings =
        ["backup", "created", "commit", "bytes", "verified", "scheduled", "present", "path"];
    context.output.rows(&headings, &backups, cells);
    Ok(())
}

/// A path as the service understands it.
fn absolute(path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path).map_err(|error| Failure::io("finding it", &error))?;
    let text = absolute.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::usage("the path of a backup has to be UTF-8"))
}

/// From now on a signal, also that of a terminal that goes away, ends what is done here at its next
/// step, so that it cleans up after itself; a second one ends it at once. What a service does is its
/// own business.
pub(super) fn stop_here_on_signal(
    context: &mut Context,
) -> Result<Option<tokio::runtime::Runtime>, Failure> {
    if context.is_served() {
        return Ok(None);
    }
    let runtime = serve::runtime()?;
    let entered = runtime.enter();
    let stopping = serve::stop_on_signal()?;
    let hangups = signal(SignalKind::hangup());
    let mut hangups = hangups.map_err(|error| Failure::io("watching for signals", &error))?;
    drop(entered);
    let token = stopping.clone();
    runtime.spawn(async move {
        hangups.recv().await;
        token.cancel();
    });
    context.stopping = Some(stopping);
    Ok(Some(runtime))
}
