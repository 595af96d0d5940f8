//! Where the passphrase comes from. The first source that is given counts; none is an argument.

use std::ffi::CStr;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use zeroize::{Zeroize, Zeroizing};

use super::Failure;
use super::failure::said;
use super::output::complain;
use super::place::copy;
use crate::error::ErrorCode;
use crate::memory::{LockedBytes, SecretText};
use crate::vault;

const VARIABLE: &str = "TENANTRY_PASSPHRASE";
const C_VARIABLE: &CStr = c"TENANTRY_PASSPHRASE";
/// Name of the systemd credential (`LoadCredential=tenantry.passphrase:…`).
const CREDENTIAL: &str = "tenantry.passphrase";
/// Longest passphrase, in bytes.
const MAX_LENGTH: usize = 4_096;

#[derive(Args, Debug, Default)]
pub(super) struct PassphraseSource {
    /// Read the passphrase from this file
    #[arg(long = "passphrase-file", global = true, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Read the passphrase from this open file descriptor
    #[arg(long = "passphrase-fd", global = true, value_name = "N")]
    descriptor: Option<u32>,
    /// Run this program, which prints the passphrase (words are split at spaces; no shell)
    #[arg(long = "passphrase-command", global = true, value_name = "COMMAND")]
    pub(super) command: Option<String>,
}

/// Takes a passphrase out of the environment: no child process sees it, and where it stood, which
/// `/proc/PID/environ` shows, are zeros. One that is not UTF-8 is none.
///
/// Must be called before the process has a second thread.
pub(super) fn take_from_environment() -> Option<SecretText> {
    #[expect(unsafe_code, reason = "no other thread exists yet that could read the environment")]
    // SAFETY: called first thing in main, before any thread is started, so that nothing else reads
    // or moves the environment. The value ends with a zero byte, and only what is before it, which
    // is the process's own writable memory, is overwritten.
    unsafe {
        let value = libc::getenv(C_VARIABLE.as_ptr());
        if value.is_null() {
            return None;
        }
        let length = CStr::from_ptr(value).count_bytes();
        let bytes = std::slice::from_raw_parts_mut(value.cast::<u8>(), length);
        let passphrase = SecretText::try_from(LockedBytes::copy_of(bytes)).ok();
        bytes.zeroize();
        std::env::remove_var(VARIABLE);
        passphrase
    }
}

impl PassphraseSource {
    /// Reads the passphrase from a file only.
    pub(super) fn file(path: PathBuf) -> Self {
        Self { file: Some(path), ..Self::default() }
    }

    /// Reads the passphrase of a vault that exists.
    pub(super) fn read(&self, environment: Option<&SecretText>) -> Result<SecretText, Failure> {
        match self.read_given(environment)? {
            Some(passphrase) => Ok(passphrase),
            None => prompt("Passphrase: "),
        }
    }

    /// Reads the passphrase of a new vault: at a terminal it is asked for twice.
    pub(super) fn choose(&self, environment: Option<&SecretText>) -> Result<SecretText, Failure> {
        if let Some(passphrase) = self.read_given(environment)? {
            return Ok(passphrase);
        }
        prompt_new()
    }

    /// Reads the passphrase from the source that is given, if one is.
    pub(super) fn read_given(
        &self,
        environment: Option<&SecretText>,
    ) -> Result<Option<SecretText>, Failure> {
        if let Some(path) = &self.file {
            warn_if_readable_by_others(path);
            let file = File::open(path).map_err(|error| {
                let kind = said(error.kind());
                Failure::usage(format!("--passphrase-file {}: {kind}", path.display()))
            })?;
            return first_line(file).map(Some);
        }
        if let Some(number) = self.descriptor {
            let file = duplicate(number)
                .map_err(|error| Failure::io(format!("--passphrase-fd {number}"), &error))?;
            return first_line(File::from(file)).map(Some);
        }
        if let Some(command) = &self.command {
            return run(command).map(Some);
        }
        #[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
        let credentials = std::env::var("CREDENTIALS_DIRECTORY").ok();
        if let Some(path) = credentials.map(|directory| Path::new(&directory).join(CREDENTIAL)) {
            match File::open(path) {
                Ok(file) => return first_line(file).map(Some),
                // It has others.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    let kind = said(error.kind());
                    return Err(Failure::usage(format!("credential {CREDENTIAL}: {kind}")));
                }
            }
        }
        if environment.is_some() {
            complain(&format!(
                "warning: {VARIABLE} can be read by others on this machine; prefer --passphrase-file"
            ));
        }
        Ok(environment.map(copy))
    }
}

/// Another descriptor of the open file that `number` is. Not by its name in `/dev/fd`, which leads
/// to files of `/proc` that are root's since [`crate::memory::harden`].
fn duplicate(number: u32) -> std::io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| ErrorKind::InvalidInput)?;
    #[expect(unsafe_code, reason = "the descriptor is known by its number only")]
    // SAFETY: duplicating touches no memory and fails when nothing is open under that number; what
    // it returns is new and nobody else's.
    unsafe {
        match libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) {
            -1 => Err(std::io::Error::last_os_error()),
            copy => Ok(OwnedFd::from_raw_fd(copy)),
        }
    }
}

/// Asks twice for a new passphrase.
pub(super) fn prompt_new() -> Result<SecretText, Failure> {
    let first = prompt_text("New passphrase (14 characters or more): ")?;
    let passphrase = long_enough(SecretText::from(first.as_str()))?;
    let second = prompt_text("Again: ")?;
    if *first != *second {
        return Err(Failure::usage("the two are not the same; nothing was done"));
    }
    Ok(passphrase)
}

/// Refuses a new passphrase that the vault would refuse, before anything else is asked or opened.
pub(super) fn long_enough(passphrase: SecretText) -> Result<SecretText, Failure> {
    vault::check_new_passphrase(&passphrase)?;
    Ok(passphrase)
}

fn run(command: &str) -> Result<SecretText, Failure> {
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
pub(super) fn first_line(mut input: impl Read) -> Result<SecretText, Failure> {
    let mut bytes = LockedBytes::zeroed(MAX_LENGTH + 2);
    let mut length = 0;
    while length < bytes.len() {
        match input.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::io("reading the passphrase", &error)),
        }
    }
    let line = bytes[..length].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line).len();
    if !(1..=MAX_LENGTH).contains(&line) {
        return Err(no_passphrase());
    }
    // A copy of the right size: this buffer is one of the large ones.
    SecretText::try_from(LockedBytes::copy_of(&bytes[..line])).map_err(|_| no_passphrase())
}

fn no_passphrase() -> Failure {
    let message = format!("the source has no passphrase: one line of up to {MAX_LENGTH} bytes");
    Failure::new(ErrorCode::InvalidArgument, message)
}

pub(super) fn prompt(text: &str) -> Result<SecretText, Failure> {
    Ok(SecretText::from(prompt_text(text)?.as_str()))
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

pub(super) fn warn_if_readable_by_others(path: &Path) {
    let mode = path.metadata().map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        complain(&format!("warning: {} can be read by others (chmod 600)", path.display()));
    }
}
