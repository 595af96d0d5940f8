//! Operator actions as data, so that a verb runs the same way here and in a running service.
//!
//! A [`Command`] holds no secret: those it needs come beside it, in the order in which its fields
//! mention them, and never pass through JSON. The answer is the JSON that `--json` prints.

use std::collections::BTreeMap;
use std::slice::Iter;

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Admin, Error, describe};
use crate::memory::SecretText;
use crate::tenant::{IdRule, Permission, Permissions, TenantId};
use crate::vault::{KdfCost, KeyCommand, KeyFile, NewSlot, Share, Unlock};

/// What an operator wants done.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the arguments of Admin's methods")]
#[non_exhaustive]
pub enum Command {
    /// [`Admin::create_backup`]. Secrets: the proof's, the slot's.
    BackupCreate { path: String, proof: Option<Proof>, slot: Option<SlotRequest>, verify: bool },
    /// [`Admin::forget_backup`].
    BackupForget { id: String },
    /// [`Admin::backups`].
    BackupList,
    /// [`Admin::verify_backup`]. Secrets: the proof's, which is of the backup.
    BackupVerify { path: String, proof: Option<Proof>, scratch: Option<String> },
    /// What there is and how it is, and [`Admin::examine_databases`].
    Doctor { tenant: Option<String> },
    /// [`Admin::check`]. Secrets: the proof's.
    Fsck { proof: Proof },
    /// [`Admin::change_passphrase`]. Secrets: the old one, the new one.
    PassphraseChange,
    /// [`Admin::reset_quota`].
    QuotaReset { tenant: String },
    /// [`Admin::set_quotas`].
    QuotaSet { tenant: String, quotas: BTreeMap<String, Option<u64>> },
    /// [`Admin::quota`].
    QuotaShow { tenant: String },
    /// [`Admin::reload`].
    Reload,
    /// [`Admin::reseal`].
    Reseal,
    /// [`Admin::rotate_root`]. Secrets: those of each proof.
    RootRotate { proofs: Vec<Proof>, drop_others: bool, reseal: bool },
    /// [`Admin::seal`].
    Seal,
    /// [`Admin::add_slot`]. Secrets: the proof's, the slot's.
    SlotAdd { proof: Proof, slot: SlotRequest },
    /// [`Admin::slots`].
    SlotList,
    /// [`Admin::remove_slot`]. Secrets: the proof's.
    SlotRemove { proof: Proof, id: u16 },
    /// What there is and how it is.
    Status,
    /// [`Admin::set_enabled`].
    TenantDisable { tenant: String },
    /// [`Admin::set_enabled`].
    TenantEnable { tenant: String },
    /// [`Admin::rotate_tenant_key`].
    TenantKeyRotate { tenant: String },
    /// [`Admin::tenants`].
    TenantList,
    /// [`Admin::remove_tenants`]. Secrets: the proof's.
    TenantRemove { proof: Proof, tenants: Vec<String> },
    /// [`Admin::seal_tenant`]. Secrets: the proof's.
    TenantSeal { proof: Proof, tenant: String },
    /// [`Admin::tenant`].
    TenantShow { tenant: String },
    /// [`Admin::unseal_tenant`]. Secrets: the proof's.
    TenantUnseal { proof: Proof, tenant: String },
    /// [`Admin::create_token`]. No scopes are all that read.
    TokenCreate { tenant: String, scopes: Vec<String>, expires_at: Option<Timestamp> },
    /// [`Admin::tokens`].
    TokenList,
    /// [`Admin::revoke_token`].
    TokenRevoke { token_id: String },
    /// [`Admin::unseal`], or [`Admin::unseal_accepting_rollback`]. Secrets: the proof's.
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

const MISSING: Error = Error::InvalidCommand("a secret of the command is missing");

impl Command {
    /// How many secrets come with it.
    pub fn secrets(&self) -> usize {
        let of_proof = |proof: &Option<Proof>| proof.as_ref().map_or(0, Proof::secrets);
        match self {
            Self::BackupCreate { proof, slot, .. } => {
                of_proof(proof) + slot.as_ref().map_or(0, SlotRequest::secrets)
            }
            Self::BackupVerify { proof, .. } => of_proof(proof),
            Self::PassphraseChange => 2,
            Self::RootRotate { proofs, .. } => proofs.iter().map(Proof::secrets).sum(),
            Self::SlotAdd { proof, slot } => proof.secrets() + slot.secrets(),
            Self::Fsck { proof }
            | Self::SlotRemove { proof, .. }
            | Self::TenantRemove { proof, .. }
            | Self::TenantSeal { proof, .. }
            | Self::TenantUnseal { proof, .. }
            | Self::Unseal { proof, .. } => proof.secrets(),
            Self::BackupForget { .. }
            | Self::BackupList
            | Self::Doctor { .. }
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
            | Self::TenantList
            | Self::TenantShow { .. }
            | Self::TokenCreate { .. }
            | Self::TokenList
            | Self::TokenRevoke { .. } => 0,
        }
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
        let proof = match self {
            Self::BackupCreate { proof, .. } => proof.as_ref()?,
            Self::PassphraseChange => &Proof::Passphrase,
            Self::RootRotate { proofs, .. } => proofs.first()?,
            Self::Fsck { proof }
            | Self::SlotAdd { proof, .. }
            | Self::SlotRemove { proof, .. }
            | Self::TenantRemove { proof, .. }
            | Self::TenantSeal { proof, .. }
            | Self::TenantUnseal { proof, .. }
            | Self::Unseal { proof, .. } => proof,
            // What it proves is that the backup may be opened.
            Self::BackupForget { .. }
            | Self::BackupList
            | Self::BackupVerify { .. }
            | Self::Doctor { .. }
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
            | Self::TenantList
            | Self::TenantShow { .. }
            | Self::TokenCreate { .. }
            | Self::TokenList
            | Self::TokenRevoke { .. } => return None,
        };
        Some(proof.unlock(&mut secrets.iter()))
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

impl Admin {
    /// Does what `command` says. A long one calls `progress` now and then, and ends early, without
    /// harm, when that answers false.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCommand`] before anything is done, when `secrets` do not fit; else those of
    /// the method that the command is for.
    pub fn execute(
        &self,
        command: &Command,
        secrets: &[SecretText],
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Value, Error> {
        if secrets.len() != command.secrets() {
            return Err(Error::InvalidCommand("the command takes another number of secrets"));
        }
        let secrets = &mut secrets.iter();
        match command {
            Command::BackupCreate { path, proof, slot, verify } => {
                let given = (proof.as_ref(), slot.as_ref());
                self.execute_create((path, *verify), given, secrets, progress)
            }
            Command::BackupForget { id } => Ok(describe::forgotten(&self.forget_backup(id)?)),
            Command::BackupList => Ok(describe::backups(&self.backups()?)),
            Command::BackupVerify { path, proof, scratch } => {
                let places = (path.as_str(), scratch.as_deref());
                self.execute_verify(places, proof.as_ref(), secrets, progress)
            }
            Command::Doctor { tenant } => self.doctor(tenant.as_deref(), progress),
            Command::Fsck { proof } => {
                Ok(describe::report(&self.check(&proof.unlock(secrets)?, progress)?))
            }
            Command::PassphraseChange => {
                let old = secrets.next().ok_or(MISSING)?;
                let new = secrets.next().ok_or(MISSING)?;
                let slot = self.change_passphrase(old, new, KdfCost::DEFAULT)?;
                Ok(json!({ "slot": describe::slot(&slot) }))
            }
            Command::QuotaReset { tenant } => self.execute_quota_reset(tenant),
            Command::QuotaSet { tenant, quotas } => self.execute_quota_set(tenant, quotas),
            Command::QuotaShow { tenant } => self.execute_quota_show(tenant),
            Command::Reload => Ok(describe::reloaded(&self.reload()?)),
            Command::Reseal => Ok(describe::reseal(&self.reseal(progress)?)),
            Command::RootRotate { proofs, drop_others, reseal } => {
                let unlocks = proofs.iter().map(|proof| proof.unlock(secrets));
                let unlocks: Vec<_> = unlocks.collect::<Result<_, _>>()?;
                let dropped = self.rotate_root(&unlocks, *drop_others, *reseal)?;
                Ok(json!({
                    "dropped_slots": dropped.iter().map(describe::slot).collect::<Vec<_>>(),
                    "reseal": describe::reseal(&self.reseal_progress()?),
                }))
            }
            Command::Seal => {
                self.seal()?;
                Ok(json!({ "sealed": true }))
            }
            Command::SlotAdd { proof, slot } => {
                let unlock = proof.unlock(secrets)?;
                let added = self.add_slot(&unlock, &slot.new_slot(secrets)?)?;
                Ok(describe::added_slot(&added))
            }
            Command::SlotList => Ok(self.slots()?.iter().map(describe::slot).collect()),
            Command::SlotRemove { proof, id } => {
                let slot = self.remove_slot(&proof.unlock(secrets)?, *id)?;
                Ok(json!({ "slot": describe::slot(&slot), "removed": true }))
            }
            Command::Status => self.status(),
            Command::TenantDisable { tenant } => self.switch(tenant, false),
            Command::TenantEnable { tenant } => self.switch(tenant, true),
            Command::TenantKeyRotate { tenant } => {
                let term = self.rotate_tenant_key(&parse_id(tenant)?)?;
                let reseal = describe::reseal(&self.reseal_progress()?);
                Ok(json!({ "tenant_id": tenant, "term": term, "reseal": reseal }))
            }
            Command::TenantList => Ok(self.tenants()?.iter().map(describe::summary).collect()),
            Command::TenantRemove { proof, tenants } => {
                let ids: Vec<_> =
                    tenants.iter().map(|id| parse_id(id)).collect::<Result<_, _>>()?;
                let certificates = self.remove_tenants(&proof.unlock(secrets)?, &ids)?;
                Ok(describe::removed(tenants, &certificates))
            }
            Command::TenantSeal { proof, tenant } => {
                self.seal_tenant(&proof.unlock(secrets)?, &parse_id(tenant)?)?;
                Ok(json!({ "tenant_id": tenant, "sealed": true }))
            }
            Command::TenantShow { tenant } => {
                Ok(describe::tenant(&self.tenant(&parse_id(tenant)?)?))
            }
            Command::TenantUnseal { proof, tenant } => {
                self.unseal_tenant(&proof.unlock(secrets)?, &parse_id(tenant)?)?;
                Ok(json!({ "tenant_id": tenant, "sealed": false }))
            }
            Command::TokenCreate { tenant, scopes, expires_at } => {
                let permissions = parse_scopes(scopes)?;
                let (token, info) =
                    self.create_token(&parse_id(tenant)?, permissions, *expires_at)?;
                Ok(describe::created_token(&token, &info))
            }
            Command::TokenList => self.list_tokens(),
            Command::TokenRevoke { token_id } => {
                self.revoke_token(token_id)?;
                Ok(json!({ "token_id": token_id, "revoked": true }))
            }
            Command::Unseal { proof, accept_rollback } => {
                let unlock = proof.unlock(secrets)?;
                let unsealing = if *accept_rollback {
                    self.unseal_accepting_rollback(&unlock)?
                } else {
                    self.unseal(&unlock)?
                };
                Ok(describe::unsealing(unsealing.as_ref()))
            }
        }
    }

    fn execute_quota_show(&self, tenant: &str) -> Result<Value, Error> {
        Ok(describe::quota(tenant, &self.quota(&parse_id(tenant)?)?))
    }

    fn execute_quota_reset(&self, tenant: &str) -> Result<Value, Error> {
        self.reset_quota(&parse_id(tenant)?)?;
        Ok(json!({ "tenant_id": tenant, "reset": true }))
    }

    fn execute_quota_set(
        &self,
        tenant: &str,
        quotas: &BTreeMap<String, Option<u64>>,
    ) -> Result<Value, Error> {
        let quotas = self.set_quotas(&parse_id(tenant)?, quotas)?;
        Ok(json!({ "tenant_id": tenant, "quotas": describe::quotas(&quotas) }))
    }

    fn list_tokens(&self) -> Result<Value, Error> {
        let (tokens, damaged) = (self.tokens()?, self.damaged_tokens()?);
        let damaged = damaged.iter().map(|name| describe::damaged_token(name));
        Ok(tokens.iter().map(describe::token).chain(damaged).collect())
    }

    fn switch(&self, tenant: &str, enabled: bool) -> Result<Value, Error> {
        self.set_enabled(&parse_id(tenant)?, enabled)?;
        Ok(json!({ "tenant_id": tenant, "enabled": enabled }))
    }

    fn doctor(
        &self,
        tenant: Option<&str>,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Value, Error> {
        let tenant = tenant.map(parse_id).transpose()?;
        let mut answer = self.status()?;
        // While it is sealed nobody knows where they are.
        if !self.is_sealed() {
            answer["databases"] = self.examine_databases(tenant.as_ref(), progress)?.into();
        }
        Ok(answer)
    }

    fn status(&self) -> Result<Value, Error> {
        let slots = self.slots()?;
        let opened = if self.is_sealed() {
            None
        } else {
            Some(describe::Inside {
                tenants: self.tenants()?,
                tokens: self.tokens()?.len(),
                damaged_tokens: self.damaged_tokens()?.len(),
                scrub: self.manager.as_ref().and_then(|manager| manager.last_scrub()),
                reseal: self.reseal_progress()?,
                certificate_key: self.vault.certificate_key()?,
                backups: self.backup_status()?,
                store: self.vault.condition()?,
            })
        };
        let store_id = self.vault.store_id().to_string();
        Ok(describe::status(self.manager.is_some(), &store_id, &slots, opened))
    }
}

/// A tenant id of a command. Which ids exist, the vault knows.
fn parse_id(text: &str) -> Result<TenantId, Error> {
    Ok(TenantId::parse(text, IdRule::AllowUnderscore)?)
}

fn parse_scopes(names: &[String]) -> Result<Permissions, Error> {
    if names.is_empty() {
        return Ok(Permissions::READ);
    }
    let unknown = Error::InvalidCommand("a scope is one of list, query, metadata, write");
    let permissions: Option<Permissions> =
        names.iter().map(|name| Permission::parse(name)).collect();
    permissions.ok_or(unknown)
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
                scopes: Vec::new(),
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
        assert_eq!(Command::TokenList.secrets(), 0);
        let secrets = [SecretText::from("first"), SecretText::from("second")];
        let unlock = Command::PassphraseChange.unlock(&secrets).unwrap().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test compares it")]
        let opens_with_the_first = matches!(
            unlock, Unlock::Passphrase(passphrase) if passphrase.expose_secret() == "first");
        assert!(opens_with_the_first);
        assert!(Command::TokenList.unlock(&secrets).is_none());
        Proof::Passphrase.unlock(&mut [].iter()).unwrap_err();
    }
}
