//! Where the passphrase comes from. The first source that is given counts; none is an argument.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::Failure;
use super::failure::said;
use super::output::complain;
use crate::error::ErrorCode;

const VARIABLE: &str = "TENANTRY_PASSPHRASE";
/// Name of the systemd credential (`LoadCredential=tenantry.passphrase:…`).
const CREDENTIAL: &str = "tenantry.passphrase";
/// Longest passphrase, in bytes.
const MAX_LENGTH: usize = 4_096;

#[derive(Args, Debug, Default)]
pub(super) struct PassphraseSource {
    /// Read the passphrase from this file
    #[arg(long = "passphrase-file", global = true, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Read the passphrase from this open file descriptor
    #[arg(long = "passphrase-fd", global = true, value_name = "N")]
    descriptor: Option<u32>,
    /// Run this program, which prints the passphrase (words are split at spaces; no shell)
    #[arg(long = "passphrase-command", global = true, value_name = "COMMAND")]
    command: Option<String>,
}

/// Takes a passphrase out of the environment, so that no child process sees it.
///
/// Must be called before the process has a second thread.
pub(super) fn take_from_environment() -> Option<SecretString> {
    #[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
    let value = Zeroizing::new(std::env::var(VARIABLE).ok()?);
    #[expect(unsafe_code, reason = "no other thread exists yet that could read the environment")]
    // SAFETY: called first thing in main, before any thread is started.
    unsafe {
        std::env::remove_var(VARIABLE);
    }
    Some(SecretString::from(value.as_str()))
}

impl PassphraseSource {
    /// Reads the passphrase from a file only.
    pub(super) fn file(path: PathBuf) -> Self {
        Self { file: Some(path), ..Self::default() }
    }

    /// Reads the passphrase of a vault that exists.
    pub(super) fn read(&self, environment: Option<&SecretString>) -> Result<SecretString, Failure> {
        match self.read_given(environment)? {
            Some(passphrase) => Ok(passphrase),
            None => prompt("Passphrase: "),
        }
    }

    /// Reads the passphrase of a new vault: at a terminal it is asked for twice.
    pub(super) fn choose(
        &self,
        environment: Option<&SecretString>,
    ) -> Result<SecretString, Failure> {
        if let Some(passphrase) = self.read_given(environment)? {
            return Ok(passphrase);
        }
        let first = prompt_text("New passphrase (14 characters or more): ")?;
        let second = prompt_text("Again: ")?;
        if *first != *second {
            return Err(Failure::usage("the two are not the same; nothing was created"));
        }
        Ok(SecretString::from(first.as_str()))
    }

    fn read_given(
        &self,
        environment: Option<&SecretString>,
    ) -> Result<Option<SecretString>, Failure> {
        if let Some(path) = &self.file {
            warn_if_readable_by_others(path);
            let file = File::open(path).map_err(|error| {
                let kind = said(error.kind());
                Failure::usage(format!("--passphrase-file {}: {kind}", path.display()))
            })?;
            return first_line(file).map(Some);
        }
        if let Some(number) = self.descriptor {
            let file = File::open(format!("/dev/fd/{number}"))
                .map_err(|error| Failure::io(format!("--passphrase-fd {number}"), &error))?;
            return first_line(file).map(Some);
        }
        if let Some(command) = &self.command {
            return run(command).map(Some);
        }
        #[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
        let credentials = std::env::var("CREDENTIALS_DIRECTORY").ok();
        if let Some(path) = credentials.map(|directory| Path::new(&directory).join(CREDENTIAL))
            && let Ok(file) = File::open(path)
        {
            return first_line(file).map(Some);
        }
        if environment.is_some() {
            complain(&format!(
                "warning: {VARIABLE} can be read by others on this machine; prefer --passphrase-file"
            ));
        }
        Ok(environment.cloned())
    }
}

fn run(command: &str) -> Result<SecretString, Failure> {
    let mut words = command.split_whitespace();
    let program = words.next().ok_or_else(|| Failure::usage("--passphrase-command is empty"))?;
    let failed =
        |error: &std::io::Error| Failure::io(format!("passphrase command {program}"), error);
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let passphrase = match child.stdout.take() {
        Some(output) => first_line(output),
        None => Err(no_passphrase()),
    };
    let status = child.wait().map_err(|error| failed(&error))?;
    if !status.success() {
        let message = format!("passphrase command {program} failed ({status})");
        return Err(Failure::new(ErrorCode::InternalError, message));
    }
    passphrase
}

/// The first line of `input`, read into one buffer that does not grow.
fn first_line(input: impl Read) -> Result<SecretString, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LENGTH + 1));
    let limit = MAX_LENGTH as u64 + 1;
    input
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::io("reading the passphrase", &error))?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(text) if !text.is_empty() && text.len() <= MAX_LENGTH => Ok(SecretString::from(text)),
        _ => Err(no_passphrase()),
    }
}

fn no_passphrase() -> Failure {
    let message = format!("the source has no passphrase: one line of up to {MAX_LENGTH} bytes");
    Failure::new(ErrorCode::InvalidArgument, message)
}

fn prompt(text: &str) -> Result<SecretString, Failure> {
    Ok(SecretString::from(prompt_text(text)?.as_str()))
}

fn prompt_text(text: &str) -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "no passphrase: give --passphrase-file, --passphrase-fd or --passphrase-command, \
             or run this at a terminal",
        ));
    }
    let answer = rpassword::prompt_password(text);
    answer.map(Zeroizing::new).map_err(|error| Failure::io("asking for the passphrase", &error))
}

fn warn_if_readable_by_others(path: &Path) {
    let mode = path.metadata().map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        complain(&format!("warning: {} can be read by others (chmod 600)", path.display()));
    }
}
