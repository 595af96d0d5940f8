//! The actions that take tenants in.

use serde::Deserialize;

use super::roles::{self, Found, Privileged};
use super::{About, Admin, Error, Progress};
use crate::tenant::{Connection, ResolvedTenant, TenantConfig, TenantId};
use crate::vault::{Change, ChangeKind};

/// How tenants are taken in.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, clippy::struct_excessive_bools, reason = "flags of a command")]
pub struct Import {
    /// Say what would change, and change nothing.
    pub dry_run: bool,
    /// Let in also those that were removed, as new ones.
    pub readmit: bool,
    /// Ask the databases what the roles may do.
    pub check_roles: bool,
    /// Take in also those whose role is privileged, and record that.
    pub allow_privileged: bool,
    /// Leave those out, and those who cannot log in, and take in the others.
    pub skip_privileged: bool,
}

/// A tenant that is to be taken in, without what is read of it when it is its turn.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "what is known of a tenant file")]
pub struct Candidate {
    /// Who.
    pub id: TenantId,
    /// Whether its database is behind a role.
    pub has_role: bool,
}

impl From<&TenantConfig> for Candidate {
    fn from(config: &TenantConfig) -> Self {
        let has_role = matches!(config.connection, Connection::Postgres(_));
        Self { id: config.id.clone(), has_role }
    }
}

/// What became of it.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "read by describe.rs")]
pub struct Imported {
    /// What each tenant's import came to; empty where privileged roles stopped all.
    pub changes: Vec<Change>,
    /// Whose roles are privileged; only with [`Import::allow_privileged`] are they among the changes.
    pub privileged: Vec<(TenantId, String)>,
    /// Who cannot log in, and how their databases say so; they are not among the changes.
    pub locked_out: Vec<(TenantId, String)>,
    /// What else there is to say, of whom.
    pub warnings: Vec<(TenantId, String)>,
    /// Roles that nobody could be asked about.
    pub unknown_roles: u64,
    /// Nothing was taken in, for the privileged roles or those that cannot log in.
    pub is_refused: bool,
    /// Nothing was to be.
    pub is_dry_run: bool,
}

impl Admin {
    /// Takes `candidates` in, all or none, unless told otherwise; `read` gives the one at a place
    /// among them.
    ///
    /// # Errors
    ///
    /// Those of `read`, of [`crate::vault::TenantCredentialVault::import_each`], and
    /// [`Error::InvalidCommand`] where roles are to be checked and no database is reached from here.
    pub fn take_in(
        &self,
        candidates: &[Candidate],
        read: &dyn Fn(usize) -> Result<ResolvedTenant, Error>,
        import: Import,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Imported, Error> {
        let mut imported = Imported {
            changes: Vec::new(),
            privileged: Vec::new(),
            locked_out: Vec::new(),
            warnings: Vec::new(),
            unknown_roles: 0,
            is_refused: false,
            is_dry_run: import.dry_run,
        };
        let mut places: Vec<usize> = (0..candidates.len()).collect();
        if import.check_roles {
            let found =
                self.privileged(candidates, read, import.readmit, &mut imported, progress)?;
            if !import.allow_privileged {
                places.retain(|at| !found.privileged.iter().any(|it| it.at == *at));
            }
            places.retain(|at| !found.locked_out.iter().any(|(locked_out, _)| locked_out == at));
            let id = |at: usize| candidates[at].id.clone();
            let named = |it: Privileged| (id(it.at), it.findings);
            imported.privileged = found.privileged.into_iter().map(named).collect();
            imported.locked_out =
                found.locked_out.into_iter().map(|(at, why)| (id(at), why)).collect();
            imported.unknown_roles = found.unknown;
            let is_left_out = places.len() < candidates.len();
            if places.is_empty() || (is_left_out && !import.skip_privileged) {
                imported.is_refused = is_left_out;
                return Ok(imported);
            }
            if import.allow_privileged && !import.dry_run {
                for (tenant, findings) in &imported.privileged {
                    self.allow_privileged(tenant, findings)?;
                }
            }
        }
        let ids: Vec<TenantId> = places.iter().map(|at| candidates[*at].id.clone()).collect();
        if import.readmit && !import.dry_run {
            self.readmit(&ids)?;
        }
        let (mut done, total) = (0, ids.len() as u64);
        let read = |at: usize| {
            let tenant = read(places[at]);
            done += 1;
            // All of it is one commit: there is nothing to end in the middle.
            progress(Progress { done, total });
            tenant
        };
        imported.changes =
            if import.dry_run { self.plan_import(&ids, read)? } else { self.import(&ids, read)? };
        Ok(imported)
    }

    /// What the databases say of those `candidates` that are new, or have another connection.
    fn privileged(
        &self,
        candidates: &[Candidate],
        read: &dyn Fn(usize) -> Result<ResolvedTenant, Error>,
        readmits: bool,
        imported: &mut Imported,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Found, Error> {
        let mut places: Vec<usize> =
            (0..candidates.len()).filter(|at| candidates[*at].has_role).collect();
        // One that was removed has nothing to be compared with, until it is let in.
        if !places.is_empty() && !readmits {
            let those: Vec<TenantId> = places.iter().map(|at| candidates[*at].id.clone()).collect();
            // The import fails in the same way, and the audit log has it then.
            let Ok(changes) = self.plan_import(&those, |of_those| read(places[of_those])) else {
                return Ok(Found::default());
            };
            let mut changes = changes.iter();
            places.retain(|_| changes.next().is_some_and(|it| changes_connection(&it.kind)));
        }
        if places.is_empty() {
            return Ok(Found::default());
        }
        let options = self.databases.as_ref();
        let options = options.ok_or(Error::InvalidCommand("no database is reached from here"))?;
        let mut warn =
            |at: usize, text: String| imported.warnings.push((candidates[at].id.clone(), text));
        roles::privileged(options, &places, read, &mut warn, progress)
    }

    /// What importing the tenants `ids` would change; `read` gives the one at a place among them.
    pub fn plan_import(
        &self,
        ids: &[TenantId],
        read: impl FnMut(usize) -> Result<ResolvedTenant, Error>,
    ) -> Result<Vec<Change>, Error> {
        self.vault.plan_each(ids, read)
    }

    /// Imports the tenants `ids`, all or none; `read` gives the one at a place among them.
    pub fn import(
        &self,
        ids: &[TenantId],
        read: impl FnMut(usize) -> Result<ResolvedTenant, Error>,
    ) -> Result<Vec<Change>, Error> {
        let names: Vec<_> = ids.iter().map(TenantId::as_str).collect();
        let about = About { resource: Some(names.join(" ")), ..About::default() };
        let changed = |changes: &Vec<Change>| {
            let is_change = |change: &&Change| !matches!(change.kind, ChangeKind::Unchanged);
            (Some(changes.iter().filter(is_change).count() as u64), None)
        };
        self.change("tenant.import", &about, changed, || self.vault.import_each(ids, read))
    }

    /// Lets tenants that were removed be imported again.
    pub fn readmit(&self, ids: &[TenantId]) -> Result<(), Error> {
        let names: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let about = About { resource: Some(names.join(" ")), ..About::default() };
        let readmit = || Ok(self.vault.readmit(ids)?);
        self.change("tenant.readmit", &about, |()| (None, None), readmit)
    }

    /// Records that `tenant` is to be imported though its role may do more than any tenant needs.
    pub fn allow_privileged(&self, tenant: &TenantId, findings: &str) -> Result<(), Error> {
        let about = About { tenant: Some(tenant), resource: Some(findings.to_owned()) };
        self.change("tenant.allow_privileged", &about, |()| (None, None), || Ok(()))
    }
}

fn changes_connection(kind: &ChangeKind) -> bool {
    match kind {
        ChangeKind::Added => true,
        ChangeKind::Unchanged => false,
        // A damaged configuration is replaced as a whole.
        ChangeKind::Changed { fields } => {
            fields.iter().any(|field| field.starts_with("db_") || field == "config")
        }
    }
}
