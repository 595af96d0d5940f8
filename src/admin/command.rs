//! Operator actions as data, so that a verb runs the same way here and in a running service.
//!
//! A [`Command`] holds no secret: those it needs come beside it, in the order in which its fields
//! mention them, and never pass through JSON. The answer is the JSON that `--json` prints.

use std::collections::BTreeMap;
use std::slice::Iter;

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::memory::SecretText;
use crate::vault::{KdfCost, KeyCommand, KeyFile, NewSlot, Share, Unlock};

/// What an operator wants done.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the arguments of Admin's methods")]
#[non_exhaustive]
pub enum Command {
    /// [`Admin::audit_entries`](super::Admin::audit_entries): those after `cursor`, up to `limit`.
    AuditList {
        code: Option<String>,
        tenant: Option<String>,
        since: Option<Timestamp>,
        cursor: Option<String>,
        limit: Option<u32>,
    },
    /// [`Admin::verify_audit_log`](super::Admin::verify_audit_log).
    AuditVerify,
    /// [`Admin::create_backup`](super::Admin::create_backup). Secrets: the proof's, the slot's.
    BackupCreate {
        path: String,
        proof: Option<Proof>,
        slot: Option<SlotRequest>,
        #[serde(default = "yes")]
        verify: bool,
    },
    /// [`Admin::forget_backup`](super::Admin::forget_backup).
    BackupForget { backup_id: String },
    /// [`Admin::backups`](super::Admin::backups).
    BackupList,
    /// [`Admin::verify_backup`](super::Admin::verify_backup). Secrets: the proof's, which is of the backup.
    BackupVerify { path: String, proof: Option<Proof>, scratch: Option<String> },
    /// What there is and how it is, and [`Admin::examine_databases`](super::Admin::examine_databases).
    Doctor { tenant: Option<String> },
    /// [`Admin::check`](super::Admin::check). Secrets: the proof's.
    Fsck { proof: Proof },
    /// [`Admin::create_operator`](super::Admin::create_operator).
    OperatorCreate { role: String, expires_at: Option<Timestamp> },
    /// [`Admin::operators`](super::Admin::operators).
    OperatorList,
    /// [`Admin::revoke_operator`](super::Admin::revoke_operator).
    OperatorRevoke { operator_id: String },
    /// [`Admin::change_passphrase`](super::Admin::change_passphrase). Secrets: the old one, the new one.
    PassphraseChange,
    /// [`Admin::reset_quota`](super::Admin::reset_quota).
    QuotaReset { tenant: String },
    /// [`Admin::set_quotas`](super::Admin::set_quotas).
    QuotaSet { tenant: String, quotas: BTreeMap<String, Option<u64>> },
    /// [`Admin::quota`](super::Admin::quota).
    QuotaShow { tenant: String },
    /// [`Admin::reload`](super::Admin::reload).
    Reload,
    /// [`Admin::reseal`](super::Admin::reseal).
    Reseal,
    /// [`Admin::rotate_root`](super::Admin::rotate_root). Secrets: those of each proof.
    RootRotate {
        proofs: Vec<Proof>,
        #[serde(default)]
        drop_others: bool,
        #[serde(default)]
        reseal: bool,
    },
    /// [`Admin::seal`](super::Admin::seal).
    Seal,
    /// [`Admin::add_slot`](super::Admin::add_slot). Secrets: the proof's, the slot's.
    SlotAdd { proof: Proof, slot: SlotRequest },
    /// [`Admin::slots`](super::Admin::slots).
    SlotList,
    /// [`Admin::remove_slot`](super::Admin::remove_slot). Secrets: the proof's.
    SlotRemove { proof: Proof, id: u16 },
    /// What there is and how it is.
    Status,
    /// [`Admin::set_enabled`](super::Admin::set_enabled).
    TenantDisable { tenant: String },
    /// [`Admin::set_enabled`](super::Admin::set_enabled).
    TenantEnable { tenant: String },
    /// [`Admin::rotate_tenant_key`](super::Admin::rotate_tenant_key).
    TenantKeyRotate { tenant: String },
    /// Every tenant, in an order of the vault's: those after `cursor`, up to `limit`.
    TenantList { cursor: Option<String>, limit: Option<u32> },
    /// [`Admin::remove_tenants`](super::Admin::remove_tenants). Secrets: the proof's.
    TenantRemove { proof: Proof, tenants: Vec<String> },
    /// [`Admin::seal_tenant`](super::Admin::seal_tenant). Secrets: the proof's.
    TenantSeal { proof: Proof, tenant: String },
    /// [`Admin::tenant`](super::Admin::tenant).
    TenantShow { tenant: String },
    /// [`Admin::unseal_tenant`](super::Admin::unseal_tenant). Secrets: the proof's.
    TenantUnseal { proof: Proof, tenant: String },
    /// [`Admin::create_token`](super::Admin::create_token). Without `scopes` all that read.
    TokenCreate { tenant: String, scopes: Option<Vec<String>>, expires_at: Option<Timestamp> },
    /// Every token, also those that do not open, in an order of the vault's: those after `cursor`, up to `limit`.
    TokenList { cursor: Option<String>, limit: Option<u32> },
    /// [`Admin::revoke_token`](super::Admin::revoke_token).
    TokenRevoke { token_id: String },
    /// [`Admin::unseal`](super::Admin::unseal), or [`Admin::unseal_accepting_rollback`](super::Admin::unseal_accepting_rollback). Secrets: the proof's.
    Unseal {
        proof: Proof,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        accept_rollback: bool,
    },
}

/// By which kind of slot an operator shows that the vault may be opened; the secret comes beside it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(clippy::exhaustive_enums, reason = "a kind of slot is a new format")]
pub enum Proof {
    /// No secret: what this program keeps. Whoever executes the command runs it.
    Command {
        /// The program and its arguments.
        words: Vec<String>,
    },
    /// One secret: the content of the file.
    KeyFile,
    /// One secret.
    Passphrase,
    /// So many secrets.
    Shares {
        /// How many.
        count: u8,
    },
}

/// A slot to be made; the secret comes beside it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(clippy::exhaustive_enums, reason = "a kind of slot is a new format")]
pub enum SlotRequest {
    /// No secret.
    Command {
        /// The program and its arguments.
        words: Vec<String>,
    },
    /// One secret: the content of the file.
    KeyFile,
    /// One secret.
    Passphrase,
    /// No secret: the shares are in the answer, and nowhere else.
    Shares {
        /// How many are needed.
        threshold: u8,
        /// How many there are.
        count: u8,
    },
}

/// How far a long command is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a line of the admin socket's protocol")]
pub struct Progress {
    /// Of `total`.
    pub done: u64,
    /// As far as is known by now.
    pub total: u64,
}

fn yes() -> bool {
    true
}

pub(super) const MISSING: Error = Error::InvalidCommand("a secret of the command is missing");

impl Command {
    /// The proofs that it takes, and the slot.
    fn keys(&self) -> (Vec<&Proof>, Option<&SlotRequest>) {
        match self {
            Self::BackupCreate { proof, slot, .. } => (proof.iter().collect(), slot.as_ref()),
            Self::BackupVerify { proof, .. } => (proof.iter().collect(), None),
            Self::RootRotate { proofs, .. } => (proofs.iter().collect(), None),
            Self::SlotAdd { proof, slot } => (vec![proof], Some(slot)),
            Self::PassphraseChange => (vec![&Proof::Passphrase, &Proof::Passphrase], None),
            Self::Fsck { proof }
            | Self::SlotRemove { proof, .. }
            | Self::TenantRemove { proof, .. }
            | Self::TenantSeal { proof, .. }
            | Self::TenantUnseal { proof, .. }
            | Self::Unseal { proof, .. } => (vec![proof], None),
            Self::AuditList { .. }
            | Self::AuditVerify
            | Self::BackupForget { .. }
            | Self::BackupList
            | Self::Doctor { .. }
            | Self::OperatorCreate { .. }
            | Self::OperatorList
            | Self::OperatorRevoke { .. }
            | Self::QuotaReset { .. }
            | Self::QuotaSet { .. }
            | Self::QuotaShow { .. }
            | Self::Reload
            | Self::Reseal
            | Self::Seal
            | Self::SlotList
            | Self::Status
            | Self::TenantDisable { .. }
            | Self::TenantEnable { .. }
            | Self::TenantKeyRotate { .. }
            | Self::TenantList { .. }
            | Self::TenantShow { .. }
            | Self::TokenCreate { .. }
            | Self::TokenList { .. }
            | Self::TokenRevoke { .. } => (Vec::new(), None),
        }
    }

    /// How many secrets come with it.
    pub fn secrets(&self) -> usize {
        let (proofs, slot) = self.keys();
        let of_slot = slot.map_or(0, SlotRequest::secrets);
        proofs.into_iter().map(Proof::secrets).sum::<usize>() + of_slot
    }

    /// Whether a program is run for it, by whoever executes it.
    pub fn runs_program(&self) -> bool {
        let (proofs, slot) = self.keys();
        proofs.iter().any(|proof| matches!(proof, Proof::Command { .. }))
            || matches!(slot, Some(SlotRequest::Command { .. }))
    }

    /// Whether it can be done while the vault is sealed.
    pub fn is_for_sealed(&self) -> bool {
        matches!(
            self,
            Self::Reload | Self::Seal | Self::SlotList | Self::Status | Self::Unseal { .. }
        )
    }

    /// What the command's own proof, its first one, opens the vault with.
    pub fn unlock(&self, secrets: &[SecretText]) -> Option<Result<Unlock, Error>> {
        if matches!(self, Self::BackupVerify { .. }) {
            // What it proves is that the backup may be opened.
            return None;
        }
        let (proofs, _) = self.keys();
        Some(proofs.first()?.unlock(&mut secrets.iter()))
    }
}

impl Proof {
    fn secrets(&self) -> usize {
        match self {
            Self::Command { .. } => 0,
            Self::KeyFile | Self::Passphrase => 1,
            Self::Shares { count } => usize::from(*count),
        }
    }

    /// What opens the slot, with the next of `secrets`.
    pub fn unlock(&self, secrets: &mut Iter<'_, SecretText>) -> Result<Unlock, Error> {
        Ok(match self {
            Self::Command { words } => Unlock::Command(KeyCommand::new(words.clone())?),
            Self::KeyFile => Unlock::KeyFile(key_file(secrets.next().ok_or(MISSING)?)?),
            Self::Passphrase => Unlock::Passphrase(copy(secrets.next().ok_or(MISSING)?)),
            Self::Shares { count } => {
                let shares = (0..*count).map(|_| share(secrets.next().ok_or(MISSING)?));
                Unlock::Shares(shares.collect::<Result<_, _>>()?)
            }
        })
    }
}

impl SlotRequest {
    fn secrets(&self) -> usize {
        match self {
            Self::Command { .. } | Self::Shares { .. } => 0,
            Self::KeyFile | Self::Passphrase => 1,
        }
    }

    pub(super) fn new_slot(&self, secrets: &mut Iter<'_, SecretText>) -> Result<NewSlot, Error> {
        Ok(match self {
            Self::Command { words } => NewSlot::Command(KeyCommand::new(words.clone())?),
            Self::KeyFile => NewSlot::KeyFile(key_file(secrets.next().ok_or(MISSING)?)?),
            Self::Passphrase => {
                let passphrase = copy(secrets.next().ok_or(MISSING)?);
                NewSlot::Passphrase { passphrase, cost: KdfCost::DEFAULT }
            }
            Self::Shares { threshold, count } => {
                NewSlot::Shares { threshold: *threshold, count: *count }
            }
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "from one locked buffer into another")]
fn copy(secret: &SecretText) -> SecretText {
    SecretText::from(secret.expose_secret())
}

#[expect(clippy::disallowed_methods, reason = "parsed into a value that hides it as well")]
fn key_file(content: &SecretText) -> Result<KeyFile, Error> {
    Ok(KeyFile::parse(content.expose_secret().as_bytes())?)
}

#[expect(clippy::disallowed_methods, reason = "parsed into a value that hides it as well")]
fn share(text: &SecretText) -> Result<Share, Error> {
    Ok(Share::parse(text.expose_secret())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_the_same_after_its_way_through_the_socket() {
        let proofs = vec![Proof::Passphrase, Proof::KeyFile, Proof::Shares { count: 3 }];
        let commands = [
            Command::Seal,
            Command::RootRotate { proofs, drop_others: true, reseal: false },
            Command::SlotAdd {
                proof: Proof::Command { words: vec!["agent".to_owned()] },
                slot: SlotRequest::Shares { threshold: 2, count: 3 },
            },
            Command::TokenCreate {
                tenant: "tenant001".to_owned(),
                scopes: None,
                expires_at: Some(Timestamp::UNIX_EPOCH),
            },
        ];
        for command in commands {
            let text = serde_json::to_string(&command).unwrap();
            assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command, "{text}");
        }
        assert_eq!(serde_json::to_string(&Command::Status).unwrap(), "\"status\"");
        serde_json::from_str::<Command>("{\"slot_remove\":{\"proof\":\"passphrase\"}}")
            .unwrap_err();
    }

    #[test]
    fn each_proof_takes_its_own_secrets_and_no_others() {
        let proofs = vec![Proof::Passphrase, Proof::Shares { count: 2 }];
        let command = Command::RootRotate { proofs, drop_others: false, reseal: false };
        assert_eq!(command.secrets(), 3);
        assert_eq!(Command::PassphraseChange.secrets(), 2);
        assert_eq!(Command::OperatorList.secrets(), 0);
        let secrets = [SecretText::from("first"), SecretText::from("second")];
        let unlock = Command::PassphraseChange.unlock(&secrets).unwrap().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test compares it")]
        let opens_with_the_first = matches!(
            unlock, Unlock::Passphrase(passphrase) if passphrase.expose_secret() == "first");
        assert!(opens_with_the_first);
        assert!(Command::OperatorList.unlock(&secrets).is_none());
        Proof::Passphrase.unlock(&mut [].iter()).unwrap_err();
    }
}
