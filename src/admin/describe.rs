//! What a command answers, in JSON: names and numbers, and of a secret only that it is there. A new
//! token and new shares are the exception: they are shown once, to whoever made them.

use std::path::Path;

use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::check::Rescued;
use super::import::Imported;
use super::quota::QuotaReport;
use crate::audit::Verified;
use crate::auth::{OperatorInfo, Role, TokenInfo};
use crate::manager::{LastScrub, Reloaded};
use crate::memory::SecretText;
use crate::pool::PoolStats;
use crate::store::Condition;
use crate::tenant::{Connection, Permission, Quotas, TenantId};
use crate::vault::backup::{Drill, KnownBackup};
use crate::vault::check::{Finding, PartReport, Report};
use crate::vault::{
    AddedSlot, Certificate, ChangeKind, ResealProgress, SlotInfo, SlotKind, StoredTenant,
    TenantDetails, TenantSummary, Unsealing,
};

pub(super) fn reloaded(Reloaded { applied, needs_restart }: &Reloaded) -> Value {
    json!({ "applied": applied, "needs_restart": needs_restart })
}

pub(super) fn summary(tenant: &TenantSummary) -> Value {
    let details = tenant.details.as_ref();
    json!({
        "tenant_id": tenant.id.as_str(),
        "engine": details.map(|details| details.engine),
        "enabled": details.map(|details| details.enabled),
        "sealed": details.is_none() && !tenant.is_damaged,
        "damaged": tenant.is_damaged,
        "updated_at": details.map(|details| details.updated_at.to_string()),
    })
}

/// A tenant without its secrets: of each, that it is set, since when, and its fingerprint.
pub(super) fn tenant(tenant: &StoredTenant) -> Value {
    let config = &tenant.config;
    let connection = match &config.connection {
        Connection::Postgres(target) => json!({
            "host": target.host,
            "port": target.port,
            "name": target.database,
            "user": target.user,
            "schema": target.schema,
            "sslmode": target.tls.as_str(),
            "own_root_certificates": target.root_certificates.is_some(),
            "client_certificate": target.client_certificate.is_some(),
        }),
        Connection::Sqlite { path } => json!({ "path": path }),
    };
    let names = |tables: &Vec<_>| tables.iter().map(ToString::to_string).collect::<Vec<_>>();
    let credentials: Map<String, Value> = tenant
        .credentials
        .iter()
        .map(|credential| {
            let set_at = credential.set_at.to_string();
            let value = json!({ "set_at": set_at, "fingerprint": credential.fingerprint });
            (credential.name.clone(), value)
        })
        .collect();
    json!({
        "tenant_id": config.id.as_str(),
        "enabled": tenant.enabled,
        "version": tenant.version,
        "created_at": tenant.created_at.to_string(),
        "updated_at": tenant.updated_at.to_string(),
        "engine": config.connection.engine(),
        "db": connection,
        "credentials": credentials,
        "access": {
            "mode": config.access.mode.as_str(),
            "tables": config.access.tables.as_ref().map(names),
            "deny_columns": config.access.deny_columns.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
        "quotas": quotas(&config.quotas),
        "limits": {
            "statement_timeout_ms": config.limits.statement_timeout_ms(),
            "max_rows": config.limits.max_rows,
            "max_result_bytes": config.limits.max_result_bytes,
        },
        "features": config.features,
    })
}

/// By name; null is unlimited.
pub(super) fn quotas(quotas: &Quotas) -> Map<String, Value> {
    quotas.named().into_iter().map(|(name, limit)| (name.to_owned(), json!(limit))).collect()
}

/// What is used of each, as `get_tenant_metadata` has it, and who was refused.
pub(super) fn quota(tenant: &str, report: &QuotaReport) -> Value {
    let quotas = report.usages.iter().map(|usage| {
        let value = json!({
            "limit": usage.limit,
            "used": usage.used,
            "remaining": usage.limit.map(|limit| limit.saturating_sub(usage.used)),
            "resets_at": usage.resets_at.map(|at| at.to_string()),
        });
        (usage.quota.to_owned(), value)
    });
    let denied = report.denied.iter().map(|(caller, count)| {
        let caller = Some(caller).filter(|caller| !caller.is_empty());
        json!({ "caller": caller, "denied": count })
    });
    json!({
        "tenant_id": tenant,
        "quotas": quotas.collect::<Map<_, _>>(),
        "denied": denied.collect::<Vec<_>>(),
    })
}

pub(super) fn token(token: &TokenInfo) -> Value {
    json!({
        "token_id": token.token_id,
        "tenant_id": token.tenant.as_str(),
        "scopes": scopes(token),
        "created_at": token.created_at.to_string(),
        "expires_at": token.expires_at.map(|at| at.to_string()),
        "used_at": token.used_at.map(|at| at.to_string()),
        "damaged": false,
    })
}

/// A token whose record does not open. It is good for nothing but being revoked.
pub(super) fn damaged_token(name: &str) -> Value {
    json!({
        "token_id": name,
        "tenant_id": null,
        "scopes": [],
        "created_at": null,
        "expires_at": null,
        "used_at": null,
        "damaged": true,
    })
}

#[expect(clippy::disallowed_methods, reason = "shown once, to whoever made it")]
pub(super) fn created_token(text: &SecretText, token: &TokenInfo) -> Value {
    json!({
        "token_id": token.token_id,
        "token": text.expose_secret(),
        "tenant_id": token.tenant.as_str(),
        "scopes": scopes(token),
        "expires_at": token.expires_at.map(|at| at.to_string()),
    })
}

pub(super) fn operator(operator: &OperatorInfo) -> Value {
    json!({
        "operator_id": operator.operator_id,
        "role": operator.role.map(Role::as_str),
        "created_at": operator.created_at.to_string(),
        "expires_at": operator.expires_at.map(|at| at.to_string()),
    })
}

#[expect(clippy::disallowed_methods, reason = "shown once, to whoever made it")]
pub(super) fn created_operator(text: &SecretText, operator: &OperatorInfo) -> Value {
    json!({
        "operator_id": operator.operator_id,
        "token": text.expose_secret(),
        "role": operator.role.map(Role::as_str),
        "expires_at": operator.expires_at.map(|at| at.to_string()),
    })
}

/// How the audit log is.
pub(super) fn verified(verified: &Verified) -> Value {
    json!({
        "good": verified.is_good(),
        "entries": verified.entries,
        "last": verified.last,
        "problems": verified.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "omitted": verified.omitted,
    })
}

fn scopes(token: &TokenInfo) -> Vec<&'static str> {
    token.permissions.iter().map(Permission::as_str).collect()
}

pub(super) fn slot(slot: &SlotInfo) -> Value {
    let mut value = json!({
        "id": slot.id,
        "kind": slot.kind.as_str(),
        "offline": slot.kind.is_offline(),
        "created_at": slot.created_at.to_string(),
    });
    if let SlotKind::Shares { threshold, count } = slot.kind {
        value["threshold"] = json!(threshold);
        value["count"] = json!(count);
    }
    value
}

pub(super) fn added_slot(added: &AddedSlot) -> Value {
    #[expect(clippy::disallowed_methods, reason = "shown once, to whoever made them")]
    let shares = added.shares.iter().map(|share| share.to_text().expose_secret().to_owned());
    json!({ "slot": slot(&added.slot), "shares": shares.collect::<Vec<_>>() })
}

/// `None`: it was open already.
pub(super) fn unsealing(unsealing: Option<&Unsealing>) -> Value {
    let repairs = unsealing.iter().flat_map(|unsealing| &unsealing.repairs);
    let accepted = unsealing.iter().flat_map(|unsealing| &unsealing.accepted);
    json!({
        "sealed": false,
        "slot": unsealing.map(|unsealing| unsealing.slot),
        "upgraded": unsealing.is_some_and(|unsealing| unsealing.upgraded),
        "repaired": repairs.map(ToString::to_string).collect::<Vec<_>>(),
        "accepted": accepted.collect::<Vec<_>>(),
    })
}

pub(super) fn reseal(progress: &ResealProgress) -> Value {
    json!({
        "total": progress.total,
        "remaining": progress.remaining,
        "destroyed_keys": progress.destroyed,
    })
}

/// A tenant that was removed, whose certificate is a file in `place`. It stays text: it is signed as it
/// is. Its `database` is the file that is left.
pub(super) fn removed(
    tenant: &str,
    certificate: &Certificate,
    place: &Path,
    database: Option<&Path>,
) -> Value {
    let handle = certificate.handle();
    json!({
        "tenant_id": tenant,
        "handle": handle,
        "file": place.join(format!("{handle}.txt")),
        "certificate": certificate.as_str(),
        "database": database,
    })
}

/// What an import came to.
pub(crate) fn imported(imported: &Imported) -> Value {
    let Imported {
        changes,
        privileged,
        locked_out,
        warnings,
        unknown_roles,
        is_refused,
        is_dry_run,
    } = imported;
    let changes = changes.iter().map(|change| {
        let (word, fields) = match &change.kind {
            ChangeKind::Added => ("added", Vec::new()),
            ChangeKind::Changed { fields } => ("changed", fields.clone()),
            ChangeKind::Unchanged => ("unchanged", Vec::new()),
        };
        json!({ "tenant_id": change.tenant.as_str(), "change": word, "fields": fields })
    });
    let of = |name: &str, said: &[(TenantId, String)]| {
        let said = said.iter();
        said.map(|(tenant, text)| json!({ "tenant_id": tenant.as_str(), name: text }))
            .collect::<Vec<_>>()
    };
    json!({
        "imported": !is_refused,
        "dry_run": is_dry_run,
        "changes": changes.collect::<Vec<_>>(),
        "privileged": of("findings", privileged),
        "locked_out": of("message", locked_out),
        "warnings": of("message", warnings),
        "unknown_roles": unknown_roles,
    })
}

/// What a check found.
pub(crate) fn report(report: &Report) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "message": finding.message,
            "tenant_id": finding.tenant.as_ref().map(TenantId::as_str),
            "way_out": finding.way_out,
        })
    };
    let part = |part: &PartReport| {
        json!({
            "part": part.part.as_str(),
            "verdict": part.verdict.as_str(),
            "checked": part.checked,
            "findings": part.findings.iter().map(finding).collect::<Vec<_>>(),
            "omitted": part.omitted,
        })
    };
    json!({
        "verdict": report.verdict().as_str(),
        "parts": report.parts.iter().map(part).collect::<Vec<_>>(),
    })
}

/// What was rescued into `directory`, and what was not.
pub(crate) fn rescued(rescued: &Rescued, directory: &Path) -> Value {
    let Rescued { vault, has_audit_log } = rescued;
    let incomplete = vault
        .incomplete
        .iter()
        .map(|(tenant, fields)| json!({ "tenant_id": tenant.as_str(), "lost_fields": fields }));
    let lost = vault.lost.iter().map(|lost| {
        json!({ "tenant_id": lost.tenant.as_ref().map(TenantId::as_str), "handle": lost.handle })
    });
    json!({
        "directory": directory.display().to_string(),
        "tenants": vault.tenants,
        "incomplete": incomplete.collect::<Vec<_>>(),
        "lost": lost.collect::<Vec<_>>(),
        "tokens": vault.tokens,
        "lost_tokens": vault.lost_tokens,
        "records": vault.records,
        "newest_commit": vault.commits.0,
        "rescued_commit": vault.commits.1,
        "audit_log": has_audit_log,
    })
}

pub(super) fn backup(backup: &KnownBackup) -> Value {
    json!({
        "backup_id": backup.id.to_string(),
        "path": backup.path.display().to_string(),
        "created_at": backup.created_at.to_string(),
        "commit": backup.commit,
        "records": backup.records,
        "bytes": backup.bytes,
        "verified_at": backup.verified_at.map(|at| at.to_string()),
        "scheduled": backup.is_scheduled,
    })
}

/// Each with whether it is where it was.
pub(super) fn backups(backups: &[KnownBackup]) -> Value {
    let listed = backups.iter().map(|known| {
        let mut value = backup(known);
        value["present"] = json!(known.is_there());
        value
    });
    listed.collect()
}

pub(super) fn forgotten(backup: &KnownBackup) -> Value {
    json!({ "backup_id": backup.id.to_string(), "forgotten": true })
}

/// A backup that stood its drill: every part is what was written.
pub(crate) fn drill(drill: &Drill) -> Value {
    json!({
        "backup_id": drill.id.to_string(),
        "path": drill.path.display().to_string(),
        "store_id": drill.store_id.to_string(),
        "created_at": drill.created_at.to_string(),
        "commit": drill.commit,
        "bytes": drill.bytes,
        "intact": true,
        "parts": {
            "head": "intact",
            "keyring": "intact",
            "records": "intact",
            "certificates": "intact",
            "seal": "intact",
        },
        "records": drill.records,
        "opened": drill.opened,
        "tenants": drill.tenants,
        "unopened_tenants": drill.unopened_tenants,
        "tokens": drill.tokens,
        "certificates": drill.certificates,
    })
}

/// What only an open vault knows.
pub(super) struct Inside {
    pub(super) tenants: Vec<TenantSummary>,
    pub(super) tokens: usize,
    pub(super) damaged_tokens: usize,
    /// Of a service that checks what is stored.
    pub(super) scrub: Option<LastScrub>,
    pub(super) reseal: ResealProgress,
    /// What signs deletion certificates: the public key, in hex.
    pub(super) certificate_key: String,
    pub(super) backups: Value,
    pub(super) store: Condition,
}

/// What the pool of a service has now, and has done since the start.
fn pool(stats: &PoolStats) -> Value {
    json!({
        "sessions": stats.sessions,
        "max_sessions": stats.max_sessions,
        "leased": stats.leased(),
        "idle": stats.idle,
        "waiting": stats.waiting,
        "active_tenants": stats.active_tenants,
        "total_acquired": stats.total_acquired,
        "total_created": stats.total_created,
    })
}

/// `stats` is nothing where no service runs, `opened` while the vault is sealed.
pub(super) fn status(
    stats: Option<&PoolStats>,
    store_id: &str,
    slots: &[SlotInfo],
    opened: Option<Inside>,
) -> Value {
    let slots: Vec<_> = slots.iter().map(slot).collect();
    let mut value = json!({
        "service": stats.is_some(),
        "pool": stats.map(pool),
        "sealed": opened.is_none(),
        "store_id": store_id,
        "slots": slots,
        "tenants": null,
        "tokens": null,
        "damaged_tokens": null,
        "reseal": null,
        "scrub": null,
        "certificate_key": null,
        "backups": null,
        "store": null,
        "locked_memory_kib": locked_memory(),
    });
    if let Some(inside) = opened {
        let Inside {
            tenants,
            tokens,
            damaged_tokens,
            scrub,
            reseal: progress,
            certificate_key,
            backups,
            store,
        } = inside;
        value["scrub"] = json!(scrub.map(|scrub| json!({
            "last_at": scrub.at.to_string(),
            "verdict": scrub.verdict.as_str(),
            "checked": scrub.checked,
            "findings": scrub.findings,
        })));
        let count = |is_counted: fn(&TenantDetails) -> bool| {
            tenants
                .iter()
                .filter_map(|tenant| tenant.details.as_ref())
                .filter(|it| is_counted(it))
                .count()
        };
        let (open, enabled) = (count(|_| true), count(|details| details.enabled));
        let damaged = tenants.iter().filter(|tenant| tenant.is_damaged).count();
        value["tenants"] = json!({
            "total": tenants.len(),
            "enabled": enabled,
            "sealed": tenants.len() - open - damaged,
            "damaged": damaged,
        });
        value["tokens"] = json!(tokens);
        value["damaged_tokens"] = json!(damaged_tokens);
        value["certificate_key"] = json!(certificate_key);
        value["backups"] = backups;
        value["store"] = json!({
            "commit": store.number,
            "records": store.pairs,
            "journal_bytes": store.journal_bytes,
            "read_only": store.read_only,
            "full": store.is_full,
            "checked": store.is_checked,
        });
        value["reseal"] = json!({ "total": progress.total, "remaining": progress.remaining });
    }
    value
}

/// How much memory of this process is never written to swap, where the system says so.
fn locked_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"))?;
    line.split_whitespace().next()?.parse().ok()
}
