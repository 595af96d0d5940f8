//! The actions on the vault's keys: unsealing, slots, rotation, removal.

use std::path::PathBuf;

use super::{About, Admin, Error, Progress};
use crate::memory::SecretText;
use crate::tenant::{Connection, TenantId};
use crate::vault::{
    AddedSlot, Certificate, KdfCost, NewSlot, ResealProgress, SlotInfo, Unlock, Unsealing,
};

/// How many records one step of [`Admin::reseal`] seals anew, before it tells how far it is.
const STEP: usize = 1_024;

impl Admin {
    /// Whether the vault is sealed.
    pub fn is_sealed(&self) -> bool {
        self.vault.is_sealed()
    }

    /// Opens the vault. `None` when it was open: nothing is tried then.
    pub fn unseal(&self, unlock: &Unlock) -> Result<Option<Unsealing>, Error> {
        if !self.vault.is_sealed() {
            return Ok(None);
        }
        let unseal = || Ok(self.vault.unseal(unlock)?);
        let unsealing = self.change("vault.unseal", &About::default(), |_| (None, None), unseal)?;
        self.record(&unsealing)?;
        Ok(Some(unsealing))
    }

    /// The same, where older copies are taken for what there is.
    pub fn unseal_accepting_rollback(&self, unlock: &Unlock) -> Result<Option<Unsealing>, Error> {
        if !self.vault.is_sealed() {
            return Ok(None);
        }
        let resource = Some("accepting a rollback".to_owned());
        let about = About { tenant: None, resource };
        let unseal = || Ok(self.vault.unseal_accepting_rollback(unlock)?);
        let unsealing = self.change("vault.unseal", &about, |_| (None, None), unseal)?;
        self.record(&unsealing)?;
        Ok(Some(unsealing))
    }

    /// Records what an unsealing repaired and accepted, which is known only afterwards.
    fn record(&self, unsealing: &Unsealing) -> Result<(), Error> {
        let repairs = unsealing.repairs.iter().map(|it| ("store.repair", it.to_string()));
        let accepted = unsealing.accepted.iter().map(|it| ("rollback.accept", it.clone()));
        for (action, sentence) in repairs.chain(accepted) {
            let about = About { tenant: None, resource: Some(sentence) };
            self.change(action, &about, |()| (None, None), || Ok(()))?;
        }
        Ok(())
    }

    /// Destroys every key in memory. With a running service, calls under way finish, and nothing
    /// else is served until the vault is unsealed.
    pub fn seal(&self) -> Result<(), Error> {
        let seal = || {
            if let Some(manager) = &self.manager {
                manager.seal();
            } else {
                self.vault.seal();
                self.auth.forget();
            }
            Ok(())
        };
        self.change("vault.seal", &About::default(), |()| (None, None), seal)
    }

    /// Every key slot; also while the vault is sealed.
    pub fn slots(&self) -> Result<Vec<SlotInfo>, Error> {
        Ok(self.vault.slots()?)
    }

    /// Adds a way to unseal, for someone who has one already.
    pub fn add_slot(&self, unlock: &Unlock, new: &NewSlot) -> Result<AddedSlot, Error> {
        let added = |added: &AddedSlot| (None, Some(named(&added.slot)));
        let add = || Ok(self.vault.add_slot(unlock, new)?);
        self.change("slot.add", &About::default(), added, add)
    }

    /// Removes a way to unseal.
    pub fn remove_slot(&self, unlock: &Unlock, id: u16) -> Result<SlotInfo, Error> {
        let about = About { tenant: None, resource: Some(format!("slot {id}")) };
        let removed = |slot: &SlotInfo| (None, Some(named(slot)));
        let remove = || Ok(self.vault.remove_slot(unlock, id)?);
        self.change("slot.remove", &about, removed, remove)
    }

    /// Replaces the passphrase `old` by `new`.
    pub fn change_passphrase(
        &self,
        old: &SecretText,
        new: &SecretText,
        cost: KdfCost,
    ) -> Result<SlotInfo, Error> {
        let changed = |slot: &SlotInfo| (None, Some(named(slot)));
        let change = || Ok(self.vault.change_passphrase(old, new, cost)?);
        self.change("passphrase.change", &About::default(), changed, change)
    }

    /// Makes a new root key for the slots that `unlocks` open, and answers the slots that were
    /// dropped for want of one. With `reseal`, every tenant gets a new key as well.
    pub fn rotate_root(
        &self,
        unlocks: &[Unlock],
        drop_others: bool,
        reseal: bool,
    ) -> Result<Vec<SlotInfo>, Error> {
        let dropped = |slots: &Vec<SlotInfo>| {
            let names: Vec<_> = slots.iter().map(named).collect();
            (None, Some(names.join(", ")).filter(|names| !names.is_empty()))
        };
        let rotate = || Ok(self.vault.rotate_root(unlocks, drop_others, reseal)?);
        self.change("root.rotate", &About::default(), dropped, rotate)
    }

    /// Gives a tenant a new key, under which its records are sealed one after the other, and
    /// answers the key's number.
    pub fn rotate_tenant_key(&self, id: &TenantId) -> Result<u32, Error> {
        let about = About { tenant: Some(id), resource: None };
        let term = |term: &u32| (None, Some(format!("term {term}")));
        let rotate = || Ok(self.vault.rotate_tenant_key(id)?);
        self.change("tenant-key.rotate", &about, term, rotate)
    }

    /// Seals what is under an old key under the newest one, until nothing is left or `progress`
    /// answers false. To be continued at any time, also after a kill.
    pub fn reseal(
        &self,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<ResealProgress, Error> {
        // From what is left now: more may be added by a rotation meanwhile.
        let mut reached = self.reseal_progress()?;
        if reached.total == 0 {
            return Ok(reached);
        }
        let rows = |reached: &ResealProgress| (Some(reached.total - reached.remaining), None);
        let reseal = || {
            let mut destroyed = 0;
            loop {
                let done = reached.total.saturating_sub(reached.remaining);
                if !progress(Progress { done, total: reached.total }) {
                    break;
                }
                reached = self.vault.reseal(STEP)?;
                destroyed += reached.destroyed;
                if reached.is_done() {
                    break;
                }
            }
            Ok(ResealProgress { destroyed, ..reached })
        };
        self.change("vault.reseal", &About::default(), rows, reseal)
    }

    /// How far the records are sealed under their newest keys.
    pub fn reseal_progress(&self) -> Result<ResealProgress, Error> {
        Ok(self.vault.reseal_progress()?)
    }

    /// Destroys the keys of tenants, for good, and answers a certificate for each.
    pub fn remove_tenants(
        &self,
        unlock: &Unlock,
        ids: &[TenantId],
    ) -> Result<Vec<Certificate>, Error> {
        let names: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let about = About { tenant: None, resource: Some(names.join(" ")) };
        let rows = |certificates: &Vec<Certificate>| (Some(certificates.len() as u64), None);
        let remove = || {
            let certificates = self.vault.remove_tenants(unlock, ids);
            // Also when it failed half-way: the keys may be gone.
            for id in ids {
                self.close_tenant(id);
            }
            Ok(certificates?)
        };
        self.change("tenant.remove", &about, rows, remove)
    }

    /// The file of a SQLite tenant's database, if it is there and the vault can say where.
    pub(super) fn sqlite_file(&self, id: &TenantId) -> Option<PathBuf> {
        let root = &self.databases.as_ref()?.sqlite_root;
        match self.vault.tenant(id).ok()?.config.connection {
            Connection::Postgres(_) => None,
            Connection::Sqlite { path } => Some(root.join(path)).filter(|file| file.exists()),
        }
    }

    /// Destroys a tenant's keys in memory; on the disk they are then under a key that is not there.
    pub fn seal_tenant(&self, unlock: &Unlock, id: &TenantId) -> Result<(), Error> {
        let about = About { tenant: Some(id), resource: None };
        let seal = || {
            if let Some(manager) = &self.manager {
                // Once it is sealed nothing of it can be written.
                manager.save_counts();
            }
            self.vault.seal_tenant(unlock, id)?;
            self.close_tenant(id);
            Ok(())
        };
        self.change("tenant.seal", &about, |()| (None, None), seal)
    }

    /// Opens a tenant that was sealed.
    pub fn unseal_tenant(&self, unlock: &Unlock, id: &TenantId) -> Result<(), Error> {
        let about = About { tenant: Some(id), resource: None };
        let unseal = || Ok(self.vault.unseal_tenant(unlock, id)?);
        self.change("tenant.unseal", &about, |()| (None, None), unseal)
    }

    /// Ends what a running service still holds open for a tenant.
    fn close_tenant(&self, id: &TenantId) {
        if let Some(manager) = &self.manager {
            manager.close_tenant(id);
        }
    }
}

/// A slot in the audit log.
fn named(slot: &SlotInfo) -> String {
    format!("slot {} ({})", slot.id, slot.kind.as_str())
}
