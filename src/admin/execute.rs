//! Each command and the method that it is for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::command::MISSING;
use super::page::Page;
use super::{Admin, Command, Error, Progress, describe};
use crate::audit::Filter;
use crate::clock::{Clock as _, SystemClock};
use crate::error::ErrorCode;
use crate::memory::SecretText;
use crate::tenant::{IdRule, Permission, Permissions, TenantId};
use crate::vault::KdfCost;

impl Admin {
    /// Does what `command` says. A long one calls `progress` now and then, and ends early, without
    /// harm, when that answers false.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCommand`] before anything is done, when `secrets` do not fit; else those of
    /// the method that the command is for.
    #[expect(clippy::too_many_lines, reason = "an arm for each command")]
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
            Command::AuditList { code, tenant, since, cursor, limit } => {
                let filter = audit_filter(code.as_deref(), tenant.as_deref(), *since)?;
                self.list_audit(filter, &Page::new("audit", cursor.as_deref(), *limit)?)
            }
            Command::AuditVerify => Ok(describe::verified(&self.verify_audit_log()?)),
            Command::BackupCreate { path, proof, slot, verify } => {
                let given = (proof.as_ref(), slot.as_ref());
                self.execute_create((path, *verify), given, secrets, progress)
            }
            Command::BackupForget { backup_id } => {
                Ok(describe::forgotten(&self.forget_backup(backup_id)?))
            }
            Command::BackupList => Ok(describe::backups(&self.backups()?)),
            Command::BackupVerify { path, proof, scratch } => {
                let places = (path.as_str(), scratch.as_deref());
                self.execute_verify(places, proof.as_ref(), secrets, progress)
            }
            Command::Doctor { tenant } => self.doctor(tenant.as_deref(), progress),
            Command::Fsck { proof } => {
                Ok(describe::report(&self.check(&proof.unlock(secrets)?, progress)?))
            }
            Command::OperatorCreate { role, expires_at } => {
                check_expiry(*expires_at)?;
                let (token, info) = self.create_operator(role, *expires_at)?;
                Ok(describe::created_operator(&token, &info))
            }
            Command::OperatorList => Ok(self.operators()?.iter().map(describe::operator).collect()),
            Command::OperatorRevoke { operator_id } => {
                self.revoke_operator(operator_id)?;
                Ok(json!({ "operator_id": operator_id, "revoked": true }))
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
            Command::TenantList { cursor, limit } => {
                self.list_tenants(&Page::new("tenants", cursor.as_deref(), *limit)?)
            }
            Command::TenantRemove { proof, tenants } => {
                let ids: Vec<_> =
                    tenants.iter().map(|id| parse_id(id)).collect::<Result<_, _>>()?;
                // Before: afterwards nobody knows where they are.
                let databases: Vec<_> = ids.iter().map(|id| self.sqlite_file(id)).collect();
                let certificates = self.remove_tenants(&proof.unlock(secrets)?, &ids)?;
                let place = self.vault.directory().certificates_path();
                let removed = tenants.iter().zip(&certificates).zip(&databases);
                let removed = removed.map(|((tenant, certificate), database)| {
                    describe::removed(tenant, certificate, &place, database.as_deref())
                });
                Ok(json!({ "removed": removed.collect::<Vec<_>>() }))
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
                let permissions = parse_scopes(scopes.as_deref())?;
                check_expiry(*expires_at)?;
                let (token, info) =
                    self.create_token(&parse_id(tenant)?, permissions, *expires_at)?;
                Ok(describe::created_token(&token, &info))
            }
            Command::TokenList { cursor, limit } => {
                self.list_tokens(&Page::new("tokens", cursor.as_deref(), *limit)?)
            }
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
            let tokens = self.vault.tokens_after(None, usize::MAX)?;
            let damaged_tokens = tokens.iter().filter(|(_, token)| token.is_err()).count();
            Some(describe::Inside {
                tenants: self.tenants()?,
                tokens: tokens.len() - damaged_tokens,
                damaged_tokens,
                scrub: self.manager.as_ref().and_then(|manager| manager.last_scrub()),
                reseal: self.reseal_progress()?,
                certificate_key: self.vault.certificate_key()?,
                backups: self.backup_status()?,
                store: self.vault.condition()?,
            })
        };
        let store_id = self.vault.store_id().to_string();
        let stats = self.manager.as_ref().map(|manager| manager.pool_stats());
        Ok(describe::status(stats.as_ref(), &store_id, &slots, opened))
    }
}

/// A tenant id of a command. Which ids exist, the vault knows.
fn parse_id(text: &str) -> Result<TenantId, Error> {
    Ok(TenantId::parse(text, IdRule::AllowUnderscore)?)
}

fn audit_filter(
    code: Option<&str>,
    tenant: Option<&str>,
    since: Option<Timestamp>,
) -> Result<Filter, Error> {
    let unknown = Error::InvalidCommand("no such error code; the README lists them");
    let code = code.map(|code| ErrorCode::parse(code).ok_or(unknown)).transpose()?;
    Ok(Filter { code, tenant: tenant.map(parse_id).transpose()?, since, after: 0 })
}

fn check_expiry(expires_at: Option<Timestamp>) -> Result<(), Error> {
    if expires_at.is_some_and(|expires_at| expires_at <= SystemClock.now()) {
        return Err(Error::InvalidCommand("expires_at is over"));
    }
    Ok(())
}

fn parse_scopes(names: Option<&[String]>) -> Result<Permissions, Error> {
    let Some(names) = names else { return Ok(Permissions::READ) };
    if names.is_empty() {
        return Err(Error::InvalidCommand("a token without a scope allows nothing; name one"));
    }
    let unknown = Error::InvalidCommand("a scope is one of list, query, metadata, write");
    let permissions: Option<Permissions> =
        names.iter().map(|name| Permission::parse(name)).collect();
    permissions.ok_or(unknown)
}
