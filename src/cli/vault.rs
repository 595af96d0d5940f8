//! `unseal | seal | status | slot | passphrase | root | tenant-key | reseal`: the vault's keys.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::backup::stop_here_on_signal;
use super::key::{self, Key};
use super::output::{cell, complain, flatten, moment, table_of};
use super::passphrase::{long_enough, prompt, prompt_new};
use super::tenant::parse_id;
use super::{Context, Failure};
use crate::admin::{Command, Proof, SlotRequest};
use crate::error::ErrorCode;
use crate::memory::SecretText;
use crate::vault::KeyFile;

#[derive(Args, Debug)]
pub(super) struct SealArguments {
    /// Only this tenant
    tenant: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct UnsealArguments {
    /// Only this tenant
    tenant: Option<String>,
    /// Take older copies of header, keyring or store for what there is: what was written since then
    /// is lost. Also without a service
    #[arg(long, conflicts_with = "tenant")]
    accept_rollback: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum SlotCommand {
    /// Add a way to unseal
    #[command(subcommand)]
    Add(NewSlot),
    /// List the ways to unseal; needs no key
    List,
    /// Remove a way to unseal
    Remove {
        /// Its number in `slot list`
        id: u16,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum NewSlot {
    /// Another passphrase
    Passphrase(NewPassphrase),
    /// The key in a file, which is made unless it is there
    KeyFile {
        /// The file; keep it elsewhere than the data directory and its backups
        path: PathBuf,
    },
    /// A key that an external program keeps
    Command {
        /// The program and its arguments (words are split at spaces; no shell)
        #[arg(value_name = "COMMAND")]
        program: String,
    },
    /// A key in shares, each for someone else; they are shown once
    Shares {
        /// How many are needed
        #[arg(long, value_name = "K")]
        threshold: u8,
        /// How many are made
        #[arg(long, value_name = "N")]
        count: u8,
    },
}

#[derive(Args, Debug)]
pub(super) struct NewPassphrase {
    /// Read the new passphrase from this file instead of asking twice
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum PassphraseCommand {
    /// Replace a passphrase by another; asks for the old one
    Change(NewPassphrase),
}

#[derive(Debug, Subcommand)]
pub(super) enum RootCommand {
    /// Make a new root key; every slot's key is needed, or the slot is dropped
    Rotate {
        /// Give every tenant a new key as well, and seal every record under it
        #[arg(long)]
        reseal: bool,
        /// Drop the slots whose key is not given
        #[arg(long)]
        drop_slots: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TenantKeyCommand {
    /// Give a tenant a new key, and seal its records under it
    Rotate {
        /// The tenant
        id: String,
    },
}

pub(super) fn unseal(context: &Context, arguments: UnsealArguments) -> Result<(), Failure> {
    let UnsealArguments { tenant, accept_rollback } = arguments;
    let tenant = checked(tenant)?;
    let Key { proof, secrets } = context.proof()?;
    let command = match &tenant {
        Some(tenant) => Command::TenantUnseal { proof, tenant: tenant.clone() },
        None => Command::Unseal { proof, accept_rollback },
    };
    let answer = context.operate(&command, &secrets)?;
    let lists = ["repaired", "accepted"].into_iter().filter_map(|list| answer[list].as_array());
    for sentence in lists.flatten() {
        complain(sentence.as_str().unwrap_or_default());
    }
    context.output.answer(&answer, || match (tenant, answer["slot"].as_u64()) {
        (Some(tenant), _) => format!("{tenant} is unsealed"),
        (None, Some(_)) if accept_rollback => "what is there now is accepted".to_owned(),
        (None, Some(slot)) => format!("unsealed by slot {slot}"),
        (None, None) => "was not sealed".to_owned(),
    });
    Ok(())
}

pub(super) fn seal(context: &Context, arguments: SealArguments) -> Result<(), Failure> {
    let Some(tenant) = checked(arguments.tenant)? else {
        let answer = context.operate(&Command::Seal, &[])?;
        context
            .output
            .answer(&answer, || "sealed: nobody is served until `tenantry unseal`".to_owned());
        return Ok(());
    };
    let Key { proof, secrets } = context.proof()?;
    let command = Command::TenantSeal { proof, tenant: tenant.clone() };
    let answer = context.operate(&command, &secrets)?;
    context.output.answer(&answer, || {
        format!("{tenant} is sealed: it is not served until `tenantry unseal {tenant}`")
    });
    Ok(())
}

pub(super) fn status(context: &Context) -> Result<(), Failure> {
    let answer = context.operate(&Command::Status, &[])?;
    context.output.answer(&answer, || {
        let mut general = answer.clone();
        let slots = general.as_object_mut().and_then(|members| members.remove("slots"));
        let slots = slots.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
        let (headings, cells) = slot_table(&slots);
        format!("{}\n\n{}", flatten(&general), table_of(&headings, cells))
    });
    Ok(())
}

pub(super) fn slot(context: &Context, command: SlotCommand) -> Result<(), Failure> {
    match command {
        SlotCommand::Add(new) => add_slot(context, &new),
        SlotCommand::List => {
            let slots = slots(context)?;
            let (headings, cells) = slot_table(&slots);
            context.output.rows(&headings, &slots, cells);
            Ok(())
        }
        SlotCommand::Remove { id } => {
            let Key { proof, secrets } = context.proof()?;
            let answer = context.operate(&Command::SlotRemove { proof, id }, &secrets)?;
            context.output.answer(&answer, || format!("slot {id} is removed"));
            Ok(())
        }
    }
}

fn add_slot(context: &Context, new: &NewSlot) -> Result<(), Failure> {
    let Key { proof, mut secrets } = context.proof()?;
    let slot = match new {
        NewSlot::Passphrase(new) => {
            secrets.push(new.read()?);
            SlotRequest::Passphrase
        }
        NewSlot::KeyFile { path } => {
            make_key_file(path)?;
            secrets.push(key::read_key_file(path)?);
            SlotRequest::KeyFile
        }
        NewSlot::Command { program } => SlotRequest::Command { words: key::words(program)? },
        NewSlot::Shares { threshold, count } => {
            SlotRequest::Shares { threshold: *threshold, count: *count }
        }
    };
    let answer = context.operate(&Command::SlotAdd { proof, slot }, &secrets)?;
    let made = format!("slot {} opens the vault from now on", cell(&answer["slot"], "id"));
    let shares = answer["shares"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let shares: Vec<&str> = shares.collect();
    if shares.is_empty() {
        context.output.answer(&answer, || made);
        return Ok(());
    }
    context.output.answer(&answer, || shares.join("\n"));
    let threshold = cell(&answer["slot"], "threshold");
    context.output.note(&format!(
        "{made}, with {threshold} of these shares. Give each to someone else: they are not shown again"
    ));
    Ok(())
}

pub(super) fn passphrase(context: &mut Context, command: PassphraseCommand) -> Result<(), Failure> {
    let PassphraseCommand::Change(new) = command;
    let source = &context.common.key.passphrase;
    let old = match source.read_given(context.environment.as_ref())? {
        Some(old) => old,
        None => prompt("Old passphrase: ")?,
    };
    let secrets = [old, new.read()?];
    // Between its two writes both passphrases open the vault.
    let _signals = stop_here_on_signal(context)?;
    let answer = context.operate(&Command::PassphraseChange, &secrets)?;
    context.output.answer(&answer, || {
        "the passphrase is changed; a backup from before still opens with the old one".to_owned()
    });
    Ok(())
}

pub(super) fn root(context: &Context, command: &RootCommand) -> Result<(), Failure> {
    let RootCommand::Rotate { reseal, drop_slots } = *command;
    let keys = keys_of_slots(context, &slots(context)?, drop_slots)?;
    let (mut proofs, mut secrets) = (Vec::new(), Vec::new());
    for key in keys {
        proofs.push(key.proof);
        secrets.extend(key.secrets);
    }
    let command = Command::RootRotate { proofs, drop_others: drop_slots, reseal };
    let answer = context.operate(&command, &secrets)?;
    context.output.answer(&answer, || {
        let dropped = answer["dropped_slots"].as_array().into_iter().flatten();
        let dropped: Vec<String> = dropped.map(|slot| cell(slot, "id")).collect();
        let dropped = if dropped.is_empty() {
            String::new()
        } else {
            format!("; dropped: slot {}", dropped.join(", slot "))
        };
        format!("the root key is new{dropped}{}", rest(&answer))
    });
    Ok(())
}

/// The keys of as many of `slots` as possible: those that are given, then passphrases that are asked
/// for. What is missing then, the vault names.
fn keys_of_slots(
    context: &Context,
    slots: &[Value],
    drop_slots: bool,
) -> Result<Vec<Key>, Failure> {
    let mut keys = context.common.key.read_given(context.surroundings())?;
    let given = keys.iter().filter(|key| key.proof == Proof::Passphrase).count();
    let passphrases = slots.iter().filter(|slot| slot["kind"] == "passphrase");
    let is_satisfied = !keys.is_empty() && (drop_slots || !std::io::stdin().is_terminal());
    if !is_satisfied {
        for slot in passphrases.skip(given) {
            // Which slot a passphrase belongs to, the vault finds out by itself.
            let text = format!("Passphrase (one of them is of slot {}): ", cell(slot, "id"));
            keys.push(Key::passphrase(prompt(&text)?));
        }
    }
    Ok(keys)
}

pub(super) fn tenant_key(context: &Context, command: TenantKeyCommand) -> Result<(), Failure> {
    let TenantKeyCommand::Rotate { id } = command;
    parse_id(&id)?;
    let answer = context.operate(&Command::TenantKeyRotate { tenant: id.clone() }, &[])?;
    context.output.answer(&answer, || format!("{id} has a new key{}", rest(&answer)));
    Ok(())
}

pub(super) fn reseal(context: &Context) -> Result<(), Failure> {
    let answer = context.operate(&Command::Reseal, &[])?;
    context.output.answer(&answer, || match answer["remaining"].as_u64() {
        Some(0) => "every record is under its newest key".to_owned(),
        _ => format!("{} records are left", cell(&answer, "remaining")),
    });
    Ok(())
}

/// What a rotation left to be done.
fn rest(answer: &Value) -> String {
    match answer["reseal"]["remaining"].as_u64() {
        None => String::new(),
        Some(0) => match answer["reseal"]["destroyed_keys"].as_u64() {
            None | Some(0) => String::new(),
            Some(keys) => {
                format!("; every record is sealed anew, and {keys} old keys are destroyed")
            }
        },
        Some(left) => {
            format!(
                "; the service seals {left} records anew: `tenantry status` shows how far it is"
            )
        }
    }
}

fn slots(context: &Context) -> Result<Vec<Value>, Failure> {
    let answer = context.operate(&Command::SlotList, &[])?;
    Ok(answer.as_array().cloned().unwrap_or_default())
}

fn slot_table(slots: &[Value]) -> ([&'static str; 4], Vec<Vec<String>>) {
    let cells = slots.iter().map(|slot| {
        let kind = match slot["threshold"].as_u64() {
            Some(threshold) => format!("shares, {threshold} of {}", cell(slot, "count")),
            None => cell(slot, "kind"),
        };
        let offline = if slot["offline"] == true { "yes" } else { "no" };
        vec![cell(slot, "id"), kind, offline.to_owned(), moment(slot, "created_at")]
    });
    (["slot", "opened by", "offline", "created"], cells.collect())
}

impl NewPassphrase {
    fn read(&self) -> Result<SecretText, Failure> {
        match &self.new_passphrase_file {
            Some(path) => long_enough(key::read_line_of(path, "--new-passphrase-file")?),
            None if std::io::stdin().is_terminal() => prompt_new(),
            None => Err(Failure::usage(
                "no new passphrase: give --new-passphrase-file, or run this at a terminal",
            )),
        }
    }
}

/// Makes a key file that only its owner can read, unless there is a file.
pub(super) fn make_key_file(path: &Path) -> Result<(), Failure> {
    let text = KeyFile::generate()?.to_text();
    let make = || -> std::io::Result<()> {
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        // Whole or not there: a part of a key would be taken for a key file by who repeats this.
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
        #[expect(clippy::disallowed_methods, reason = "the key file is where this key is kept")]
        file.write_all(text.expose_secret().as_bytes())?;
        // On the disk before anything can be opened only with it.
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    };
    make().map_err(|error| Failure::io(format!("making {}", path.display()), &error))
}

/// An id that a tenant can have.
fn checked(tenant: Option<String>) -> Result<Option<String>, Failure> {
    if let Some(tenant) = &tenant {
        parse_id(tenant)?;
    }
    Ok(tenant)
}

/// Has whoever sits at the terminal type each of `ids`.
pub(super) fn confirm_removal(ids: &[String]) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("without a terminal to confirm it at, --yes is needed"));
    }
    for id in ids {
        complain(&format!("The keys of {id} will be destroyed, for good. Type its id to go on:"));
        let mut typed = String::new();
        let failed = |error: std::io::Error| Failure::io("asking", &error);
        std::io::stdin().read_line(&mut typed).map_err(failed)?;
        if typed.trim() != id {
            return Err(Failure::new(ErrorCode::Cancelled, "not confirmed; nothing was removed"));
        }
    }
    Ok(())
}
