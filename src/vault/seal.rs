//! Sealing one tenant: its keys leave this process's memory, and what is on the disk opens with the
//! root key only.
//!
//! The others are not touched. Unlike a disabled tenant, a sealed one cannot be read by somebody who
//! reads this process's memory, and it stays sealed over restarts, until whoever can unseal the vault
//! unseals it. The key that its keys are sealed under is in the header; it is in memory only here.

use super::slot::Unlock;
use super::{Error, TenantCredentialVault};
use crate::tenant::TenantId;

impl TenantCredentialVault {
    /// Seals the tenant `id`. What callers still hold of its credentials is wiped when they let go.
    ///
    /// # Errors
    ///
    /// Those of [`Self::unseal`]; [`Error::NotConfigured`], [`Error::TenantSealed`],
    /// [`Error::Sealed`], [`Error::Store`].
    pub fn seal_tenant(&self, unlock: &Unlock, id: &TenantId) -> Result<(), Error> {
        let _unlocking = self.unlocking();
        let (header, _) = self.unlock(unlock)?;
        self.changing(|vault| {
            let mut writing = vault.writing();
            // Who is sealed does not move, and would be left behind.
            vault.reseal_now(&mut writing, id)?;
            let handle = vault.current(&writing, id)?.keys.handle;
            vault.change_keyring(&mut writing, |keyring| {
                keyring.seal_tenant(vault.store_id(), (handle, id), header.tenant_seal_key())
            })?;
            vault.changed([id]);
            Ok(())
        })
    }

    /// Opens the sealed tenant `id` again; one that is not sealed stays as it is.
    ///
    /// # Errors
    ///
    /// Those of [`Self::unseal`]; [`Error::NotConfigured`], [`Error::Sealed`], [`Error::Store`].
    pub fn unseal_tenant(&self, unlock: &Unlock, id: &TenantId) -> Result<(), Error> {
        let _unlocking = self.unlocking();
        let (header, _) = self.unlock(unlock)?;
        self.changing(|vault| {
            let mut writing = vault.writing();
            match vault.current(&writing, id) {
                Err(Error::TenantSealed(_)) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error),
            }
            vault.change_keyring(&mut writing, |keyring| {
                keyring.unseal_tenant(vault.store_id(), id, header.tenant_seal_key())
            })?;
            vault.changed([id]);
            vault.requeue(&mut writing)
        })
    }
}
