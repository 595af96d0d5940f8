//! What a load did, as whoever listens to it knows: the acknowledgements, and for each thread the
//! one operation that may be under way.
//!
//! Each thread has tenants and tokens of its own. So what a vault should hold of it is what its last
//! acknowledgement left, or that with the operation under way done to it, and nothing between.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tenantry::tenant::{Connection, IdRule, TenantId};
use tenantry::vault::{self, TenantCredentialVault};

use crate::random::Random;

/// Tenants of one thread.
const TENANTS: u64 = 3;
const TOKENS: usize = 4;
/// So many threads have an operator's token now and then: a vault has 32 at most.
const OPERATORS: usize = 32;

/// What one thread owns.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Owned {
    tenants: BTreeMap<u64, Tenant>,
    tokens: BTreeMap<u64, Token>,
    /// Of operators.
    operators: BTreeSet<u64>,
    /// Whose coming back has to be allowed first.
    pub(crate) removed: BTreeSet<u64>,
    /// Makes every value another one.
    next: u64,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Tenant {
    /// Stands in every part of it that can be read.
    value: u64,
    is_enabled: bool,
    quota: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Token {
    tenant: u64,
    used: Option<u64>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Operation {
    /// All of them in one import, with this value.
    Import {
        tenants: Vec<u64>,
        value: u64,
    },
    SetEnabled {
        tenant: u64,
        is_enabled: bool,
    },
    CreateToken {
        token: u64,
        tenant: u64,
    },
    UseToken {
        token: u64,
        moment: u64,
    },
    RevokeToken {
        token: u64,
    },
    SetQuota {
        tenant: u64,
        limit: u64,
    },
    CreateOperator {
        operator: u64,
    },
    RevokeOperator {
        operator: u64,
    },
    RotateTenantKey {
        tenant: u64,
    },
    RotateRoot {
        reseal: bool,
    },
    Reseal,
    Remove {
        tenant: u64,
    },
}

/// A line of what a load says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Said {
    /// The vault is open.
    Ready,
    Begun {
        thread: usize,
        operation: Operation,
    },
    Done {
        thread: usize,
    },
    Failed {
        thread: usize,
        error: String,
    },
    /// The vault is closed.
    Closed,
    /// By an application that tests the simulation, see `disk`.
    Appended(u64),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) threads: Vec<Owned>,
    under_way: Vec<Option<Operation>>,
    pub(crate) is_ready: bool,
    pub(crate) acknowledged: u64,
    pub(crate) failures: Vec<String>,
}

/// What is wrong with a vault.
#[derive(Clone, Debug, Default)]
pub(crate) struct Differences {
    pub(crate) lost: Vec<String>,
    pub(crate) half: Vec<String>,
}

impl Owned {
    /// What thread `thread` does next.
    pub(crate) fn choose(&mut self, thread: usize, random: &mut Random) -> Operation {
        self.next += 1;
        let value = self.next;
        let present: Vec<u64> = self.tenants.keys().copied().collect();
        let tokens: Vec<u64> = self.tokens.keys().copied().collect();
        let tenant = random.pick(&present).copied();
        match (random.below(100), tenant) {
            (0..2, Some(tenant)) if thread == 0 => Operation::Remove { tenant },
            (2..4, Some(_)) if thread == 1 => Operation::RotateRoot { reseal: random.is_one_in(2) },
            (4..12, Some(tenant)) => Operation::RotateTenantKey { tenant },
            (12..17, Some(_)) => Operation::Reseal,
            (17..30, Some(tenant)) => {
                Operation::SetEnabled { tenant, is_enabled: !self.tenants[&tenant].is_enabled }
            }
            (30..60, Some(tenant)) if tokens.len() < TOKENS => {
                Operation::CreateToken { token: value, tenant }
            }
            (30..60, Some(_)) => Operation::RevokeToken { token: *random.pick(&tokens).unwrap() },
            (60..65, Some(tenant)) => Operation::SetQuota { tenant, limit: value },
            (65..72, Some(_)) if !tokens.is_empty() => {
                Operation::UseToken { token: *random.pick(&tokens).unwrap(), moment: value }
            }
            (72..76, _) if thread < OPERATORS => match self.operators.first() {
                None => Operation::CreateOperator { operator: value },
                Some(operator) => Operation::RevokeOperator { operator: *operator },
            },
            _ => {
                let first = random.below(TENANTS);
                let count = 1 + random.below(TENANTS);
                let tenants = (0..count).map(|offset| (first + offset) % TENANTS).collect();
                Operation::Import { tenants, value }
            }
        }
    }

    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Import { tenants, value } => {
                for tenant in tenants {
                    let is_enabled = self.tenants.get(tenant).is_none_or(|it| it.is_enabled);
                    let imported = Tenant { value: *value, is_enabled, quota: None };
                    self.tenants.insert(*tenant, imported);
                    self.removed.remove(tenant);
                }
                self.next = self.next.max(*value);
            }
            Operation::SetEnabled { tenant, is_enabled } => {
                self.tenants.get_mut(tenant).unwrap().is_enabled = *is_enabled;
            }
            Operation::CreateToken { token, tenant } => {
                self.tokens.insert(*token, Token { tenant: *tenant, used: None });
                self.next = self.next.max(*token);
            }
            Operation::UseToken { token, moment } => {
                self.tokens.get_mut(token).unwrap().used = Some(*moment);
            }
            Operation::RevokeToken { token } => drop(self.tokens.remove(token)),
            Operation::Remove { tenant } => {
                self.tenants.remove(tenant);
                self.tokens.retain(|_, token| token.tenant != *tenant);
                self.removed.insert(*tenant);
            }
            Operation::SetQuota { tenant, limit } => {
                self.tenants.get_mut(tenant).unwrap().quota = Some(*limit);
            }
            Operation::CreateOperator { operator } => {
                self.operators.insert(*operator);
                self.next = self.next.max(*operator);
            }
            Operation::RevokeOperator { operator } => drop(self.operators.remove(operator)),
            Operation::RotateTenantKey { .. }
            | Operation::RotateRoot { .. }
            | Operation::Reseal => {}
        }
    }

    fn is_as(&self, other: &Self) -> bool {
        self.tenants == other.tenants
            && self.tokens == other.tokens
            && self.operators == other.operators
    }
}

impl Model {
    pub(crate) fn new(threads: Vec<Owned>) -> Self {
        let under_way = vec![None; threads.len()];
        Self { threads, under_way, ..Self::default() }
    }

    /// Takes one line of what a load says.
    pub(crate) fn hear(&mut self, said: Said) {
        match said {
            Said::Ready => self.is_ready = true,
            Said::Begun { thread, operation } => {
                // No number is used twice, also when this comes to nothing.
                self.threads[thread].next += 1;
                self.under_way[thread] = Some(operation);
            }
            Said::Done { thread } => {
                let operation = self.under_way[thread].take().unwrap();
                self.threads[thread].apply(&operation);
                self.acknowledged += 1;
            }
            Said::Failed { thread, error } => {
                let operation = &self.under_way[thread];
                self.failures.push(format!("thread {thread}, {operation:?}: {error}"));
            }
            Said::Closed | Said::Appended(_) => {}
        }
    }

    /// Compares the vault with what it should hold, and takes on what it does hold.
    pub(crate) fn settle(&mut self, vault: &TenantCredentialVault) -> Differences {
        let mut differences = Differences::default();
        let found = match observe(vault, self.threads.len(), &mut differences.half) {
            Ok(found) => found,
            Err(error) => {
                differences.lost.push(crate::state::told(&error));
                return differences;
            }
        };
        for (thread, found) in found.into_iter().enumerate() {
            let before = self.threads[thread].clone();
            let Some(operation) = self.under_way[thread].take() else {
                if !before.is_as(&found) {
                    differences.lost.push(format!("thread {thread}: {before:?} is {found:?}"));
                }
                continue;
            };
            let mut after = before.clone();
            after.apply(&operation);
            if after.is_as(&found) {
                self.threads[thread] = after;
            } else if !before.is_as(&found) {
                let text = format!("thread {thread}, {operation:?}: {before:?} is {found:?}");
                let is_half = found.tenants.iter().any(|it| after.tenants.get(it.0) == Some(it.1))
                    && matches!(operation, Operation::Import { .. });
                if is_half { &mut differences.half } else { &mut differences.lost }.push(text);
            }
        }
        differences
    }
}

impl Differences {
    pub(crate) fn is_none(&self) -> bool {
        self.lost.is_empty() && self.half.is_empty()
    }
}

pub(crate) fn tenant_id(thread: usize, tenant: u64) -> TenantId {
    TenantId::parse(&format!("t{thread:02}n{tenant:04}"), IdRule::Alphanumeric).unwrap()
}

pub(crate) fn token_id(thread: usize, token: u64) -> String {
    format!("tok_{thread:02}n{token}")
}

pub(crate) fn operator_id(thread: usize, operator: u64) -> String {
    format!("op_{thread:02}n{operator}")
}

/// Thread and number in the name of a tenant, a token or an operator's token.
fn numbers(name: &str) -> (usize, u64) {
    let (thread, number) = name.split_once('n').unwrap();
    (thread.trim_start_matches(['t', 'o', 'k', 'p', '_']).parse().unwrap(), number.parse().unwrap())
}

/// What the vault holds of each thread. A tenant of which not every part has the same value goes to
/// `half`.
fn observe(
    vault: &TenantCredentialVault,
    threads: usize,
    half: &mut Vec<String>,
) -> Result<Vec<Owned>, vault::Error> {
    let mut owned = vec![Owned::default(); threads];
    for summary in vault.tenants()? {
        let stored = vault.tenant(&summary.id)?;
        let (thread, number) = numbers(summary.id.as_str());
        let mut values = BTreeSet::new();
        if let Connection::Postgres(target) = &stored.config.connection {
            values.insert(target.database.clone());
        }
        if stored.enabled {
            let credentials = vault.credentials(&summary.id)?;
            for secret in credentials.db_password.iter().chain(credentials.api_keys.values()) {
                #[expect(clippy::disallowed_methods, reason = "made up, and compared")]
                values.insert(secret.expose_secret().to_owned());
            }
        }
        if values.len() != 1 || stored.credentials.len() != 2 {
            half.push(format!("{} has {values:?}", summary.id));
        }
        let value = values.first().and_then(|value| value.trim_start_matches('v').parse().ok());
        let quota = stored.config.quotas.max_queries_per_hour;
        let tenant = Tenant { value: value.unwrap_or(0), is_enabled: stored.enabled, quota };
        owned[thread].tenants.insert(number, tenant);
    }
    for token in vault.tokens()? {
        let (thread, number) = numbers(&token.token_id);
        if vault.find_token(token.token_id.as_bytes())?.as_ref() != Some(&token) {
            half.push(format!("{} is listed and not found", token.token_id));
        }
        let used = token.used_at.map(|at| u64::try_from(at.as_second()).unwrap());
        let tenant = numbers(token.tenant.as_str()).1;
        owned[thread].tokens.insert(number, Token { tenant, used });
    }
    for operator in vault.operators()? {
        let (thread, number) = numbers(&operator.operator_id);
        if vault.find_operator(operator.operator_id.as_bytes())?.as_ref() != Some(&operator) {
            half.push(format!("{} is listed and not found", operator.operator_id));
        }
        owned[thread].operators.insert(number);
    }
    Ok(owned)
}
