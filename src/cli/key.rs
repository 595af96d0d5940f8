//! What the vault is opened with: by default a passphrase, else the key of another kind of slot.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::Failure;
use super::client_config::absolute;
use super::failure::said;
use super::passphrase::{PassphraseSource, first_line, prompt, warn_if_readable_by_others};
use crate::admin::Proof;
use crate::error::ErrorCode;
use crate::memory::SecretText;
use crate::vault::Unlock;

/// Longest key file, in bytes.
const MAX_KEY_FILE: u64 = 4 << 10;

/// The first that is given counts, in this order; then the setting `vault.key_command`, then a
/// prompt for the passphrase.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Opening the vault")]
pub(super) struct KeySource {
    /// Open the vault with the key in this file; several for `root rotate`, one for each slot
    #[arg(long = "key-file", global = true, value_name = "FILE")]
    key_files: Vec<PathBuf>,
    /// Open the vault with the share in this file; once for each share
    #[arg(long = "share-file", global = true, value_name = "FILE")]
    share_files: Vec<PathBuf>,
    /// Open the vault with shares, asked for one after the other
    #[arg(long, global = true)]
    shares: bool,
    /// Open the vault with the key that this program keeps (words are split at spaces; no shell)
    #[arg(long, global = true, value_name = "COMMAND")]
    key_command: Option<String>,
    #[command(flatten)]
    pub(super) passphrase: PassphraseSource,
}

/// A kind of proof, and the secrets that belong to it.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) proof: Proof,
    pub(super) secrets: Vec<SecretText>,
}

/// What a key is read from, beside the arguments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) environment: Option<&'a SecretText>,
    /// The setting `vault.key_command`.
    pub(super) key_command: Option<&'a str>,
}

impl Key {
    pub(super) fn passphrase(passphrase: SecretText) -> Self {
        Self { proof: Proof::Passphrase, secrets: vec![passphrase] }
    }

    fn shares(shares: Vec<SecretText>) -> Result<Self, Failure> {
        let count = u8::try_from(shares.len()).ok().filter(|count| *count > 0);
        let count = count.ok_or_else(|| Failure::usage("between 1 and 255 shares are needed"))?;
        Ok(Self { proof: Proof::Shares { count }, secrets: shares })
    }

    fn command(text: &str) -> Result<Self, Failure> {
        Ok(Self { proof: Proof::Command { words: words(text)? }, secrets: Vec::new() })
    }

    pub(super) fn unlock(&self) -> Result<Unlock, Failure> {
        Ok(self.proof.unlock(&mut self.secrets.iter())?)
    }
}

impl KeySource {
    /// What was given, as arguments for another call of this program from anywhere. What is asked
    /// for at a terminal and what comes by descriptor or environment cannot be said this way.
    pub(super) fn arguments(&self) -> Result<Vec<String>, Failure> {
        let passphrase = &self.passphrase;
        let files = [
            ("--key-file", self.key_files.iter().collect::<Vec<_>>()),
            ("--share-file", self.share_files.iter().collect()),
            ("--passphrase-file", passphrase.file.iter().collect()),
        ];
        let commands =
            [("--key-command", &self.key_command), ("--passphrase-command", &passphrase.command)];
        let mut arguments = Vec::new();
        for (flag, paths) in files {
            for path in paths {
                arguments.extend([flag.to_owned(), absolute(path)?]);
            }
        }
        for (flag, command) in commands {
            arguments.extend(command.iter().flat_map(|it| [flag.to_owned(), it.clone()]));
        }
        Ok(arguments)
    }

    /// Reads one key.
    pub(super) fn read(&self, surroundings: Surroundings<'_>) -> Result<Key, Failure> {
        if let Some(key) = self.read_given(surroundings)?.into_iter().next() {
            return Ok(key);
        }
        Ok(Key::passphrase(prompt("Passphrase: ")?))
    }

    /// Reads every key that is given. Asks for none but shares.
    pub(super) fn read_given(&self, surroundings: Surroundings<'_>) -> Result<Vec<Key>, Failure> {
        let mut keys = Vec::new();
        for path in &self.key_files {
            keys.push(Key { proof: Proof::KeyFile, secrets: vec![read_key_file(path)?] });
        }
        if !self.share_files.is_empty() {
            let shares = self.share_files.iter().map(|path| read_line_of(path, "--share-file"));
            keys.push(Key::shares(shares.collect::<Result<_, _>>()?)?);
        } else if self.shares {
            keys.push(Key::shares(prompt_shares()?)?);
        }
        if let Some(command) = &self.key_command {
            keys.push(Key::command(command)?);
        }
        if let Some(passphrase) = self.passphrase.read_given(surroundings.environment)? {
            keys.push(Key::passphrase(passphrase));
        }
        if let Some(command) = surroundings.key_command.filter(|_| self.key_command.is_none()) {
            keys.push(Key::command(command)?);
        }
        Ok(keys)
    }
}

/// A program and its arguments.
pub(super) fn words(command: &str) -> Result<Vec<String>, Failure> {
    let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() { Err(Failure::usage("the key command is empty")) } else { Ok(words) }
}

/// The content of a key file.
pub(super) fn read_key_file(path: &Path) -> Result<SecretText, Failure> {
    let shown = path.display();
    let file = open(path, "--key-file")?;
    let mut bytes =
        Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_KEY_FILE + 1).unwrap_or(0)));
    file.take(MAX_KEY_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::io(format!("reading {shown}"), &error))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) if bytes.len() as u64 <= MAX_KEY_FILE => Ok(SecretText::from(text)),
        _ => Err(Failure::new(ErrorCode::InvalidArgument, format!("{shown} is no key file"))),
    }
}

/// The first line of a file with one secret.
pub(super) fn read_line_of(path: &Path, flag: &str) -> Result<SecretText, Failure> {
    first_line(open(path, flag)?)
}

fn open(path: &Path, flag: &str) -> Result<File, Failure> {
    warn_if_readable_by_others(path);
    File::open(path).map_err(|error| {
        Failure::usage(format!("{flag} {}: {}", path.display(), said(error.kind())))
    })
}

fn prompt_shares() -> Result<Vec<SecretText>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("--shares asks at a terminal; without one give --share-file"));
    }
    let mut shares = Vec::new();
    loop {
        let share = prompt(&format!("Share {} (nothing ends): ", shares.len() + 1))?;
        #[expect(clippy::disallowed_methods, reason = "only whether there is anything")]
        if share.expose_secret().trim().is_empty() {
            return Ok(shares);
        }
        shares.push(share);
    }
}
