//! What a data directory holds, in a form in which two of them can be compared.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::ExposeSecret;
use tenantry::memory::SecretText;
use tenantry::store;
use tenantry::vault::{self, TenantCredentialVault, Unlock};

use crate::place::{self, Place};

/// Everything that a user of the vault can see of it, without moments and random names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct State {
    /// The passphrase that opens it.
    pub(crate) passphrase: String,
    /// The kinds of slots.
    pub(crate) slots: BTreeSet<String>,
    pub(crate) tenants: BTreeMap<String, Tenant>,
    /// Public names of tokens, each with its tenant, and of one that was used when.
    pub(crate) tokens: BTreeMap<String, String>,
    /// Public names of operators' tokens, each with its role.
    pub(crate) operators: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Tenant {
    enabled: bool,
    config: String,
    /// By name; those of a disabled tenant are not to be had.
    secrets: BTreeMap<String, String>,
    /// By name.
    fingerprints: BTreeMap<String, String>,
    /// What was used of its quotas.
    counts: Option<Vec<u8>>,
}

/// Reads what is in the data directory of `place`; `None` when no vault has been made there.
pub(crate) fn of(place: &Place) -> Result<Option<State>, String> {
    let vault = match place::sealed(&place.data()) {
        Ok(vault) => vault,
        Err(vault::Error::Store(store::Error::NotInitialised { .. })) => return Ok(None),
        Err(error) => return Err(told(&error)),
    };
    for passphrase in ["passphrase", "replacement"].map(|name| place.read(name)) {
        match vault.unseal(&Unlock::Passphrase(SecretText::from(passphrase.as_str()))) {
            Ok(_) => return read(&vault, &passphrase).map(Some).map_err(|error| told(&error)),
            Err(vault::Error::WrongPassphrase) => {}
            Err(error) => return Err(told(&error)),
        }
    }
    Err("no passphrase opens it".to_owned())
}

/// An error with what led to it.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

pub(crate) fn read(vault: &TenantCredentialVault, passphrase: &str) -> Result<State, vault::Error> {
    let mut state = State { passphrase: passphrase.to_owned(), ..State::default() };
    for slot in vault.slots()? {
        state.slots.insert(slot.kind.as_str().to_owned());
    }
    for summary in vault.tenants()? {
        let stored = vault.tenant(&summary.id)?;
        let mut secrets = BTreeMap::new();
        if stored.enabled {
            let credentials = vault.credentials(&summary.id)?;
            let named = credentials.api_keys.iter().map(|(name, key)| (name.as_str(), key));
            let password = credentials.db_password.iter().map(|key| ("db_password", key));
            for (name, secret) in named.chain(password) {
                #[expect(clippy::disallowed_methods, reason = "made up, and compared")]
                secrets.insert(name.to_owned(), secret.expose_secret().to_owned());
            }
        }
        let fingerprints = stored.credentials.into_iter();
        let fingerprints = fingerprints.map(|it| (it.name, it.fingerprint)).collect();
        let config = format!("{:?}", stored.config);
        let counts = vault.counts(&summary.id)?;
        let tenant = Tenant { enabled: stored.enabled, config, secrets, fingerprints, counts };
        state.tenants.insert(summary.id.to_string(), tenant);
    }
    for token in vault.tokens()? {
        let used = token.used_at.map_or_else(String::new, |at| format!(" {at}"));
        state.tokens.insert(token.token_id, format!("{}{used}", token.tenant));
    }
    for operator in vault.operators()? {
        state.operators.insert(operator.operator_id, operator.role);
    }
    Ok(state)
}

impl State {
    /// Without what is random in that which `before` does not have: tokens are numbered, and
    /// fingerprints left out.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut state = self.clone();
        state.tokens = numbered(&self.tokens, &before.tokens);
        state.operators = numbered(&self.operators, &before.operators);
        for (id, tenant) in &mut state.tenants {
            if !before.tenants.contains_key(id) {
                tenant.fingerprints.clear();
            }
        }
        state
    }
}

/// `names`, where those that are not in `before` are numbered.
fn numbered(
    names: &BTreeMap<String, String>,
    before: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut new = 0;
    let name = |name: &String| {
        if before.contains_key(name) {
            return name.clone();
        }
        new += 1;
        format!("new {new}")
    };
    names.keys().map(name).zip(names.values().cloned()).collect()
}
