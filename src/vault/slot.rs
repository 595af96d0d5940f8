//! Key slots as their callers see them: several independent ways to the one root key.

use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::KdfCost;
use super::command::KeyCommand;
use super::key_file::KeyFile;
use super::shares::Share;
use crate::memory::SecretText;

/// What opens one kind of slot.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a kind of slot is a new format")]
pub enum Unlock {
    /// Of a passphrase slot.
    Passphrase(SecretText),
    /// Of a key file slot.
    KeyFile(KeyFile),
    /// Of a command slot; run when it is needed.
    Command(KeyCommand),
    /// Of a shares slot, at least as many as its threshold.
    Shares(Vec<Share>),
}

impl Unlock {
    pub(super) fn passphrase(passphrase: &SecretText) -> Self {
        Self::Passphrase(duplicate(passphrase))
    }

    /// The kind of slot that it opens.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Passphrase(_) => "passphrase",
            Self::KeyFile(_) => "key-file",
            Self::Command(_) => "command",
            Self::Shares(_) => "shares",
        }
    }
}

/// A slot to be made.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a kind of slot is a new format")]
pub enum NewSlot {
    /// Opened by `passphrase`.
    Passphrase {
        /// At least 14 characters.
        passphrase: SecretText,
        /// What each guess costs.
        cost: KdfCost,
    },
    /// Opened by the key in a file.
    KeyFile(KeyFile),
    /// Opened by what an external program keeps.
    Command(KeyCommand),
    /// Opened by `threshold` of `count` shares, which are made with it.
    Shares {
        /// How many are needed.
        threshold: u8,
        /// How many there are.
        count: u8,
    },
}

impl NewSlot {
    pub(super) fn passphrase(passphrase: &SecretText, cost: KdfCost) -> Self {
        Self::Passphrase { passphrase: duplicate(passphrase), cost }
    }
}

#[expect(clippy::disallowed_methods, reason = "it goes from one locked buffer into another")]
fn duplicate(text: &SecretText) -> SecretText {
    SecretText::from(text.expose_secret())
}

/// What a slot says in the clear.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SlotInfo {
    /// Its number, never used again.
    pub id: u16,
    /// What opens it.
    pub kind: SlotKind,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What opens a slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a kind of slot is a new format")]
pub enum SlotKind {
    /// A passphrase.
    Passphrase(KdfCost),
    /// The key in a file.
    KeyFile,
    /// An external program.
    Command,
    /// Shares of a key.
    Shares {
        /// How many are needed.
        threshold: u8,
        /// How many were made.
        count: u8,
    },
}

impl SlotKind {
    /// `passphrase`, `key-file`, `command` or `shares`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passphrase(_) => "passphrase",
            Self::KeyFile => "key-file",
            Self::Command => "command",
            Self::Shares { .. } => "shares",
        }
    }

    /// Whether it opens without anybody else's service.
    pub fn is_offline(self) -> bool {
        !matches!(self, Self::Command)
    }
}

/// A slot that was made.
#[derive(Debug)]
#[non_exhaustive]
pub struct AddedSlot {
    /// What it is.
    pub slot: SlotInfo,
    /// The shares that open it, here and nowhere else; empty for other kinds.
    pub shares: Vec<Share>,
}
