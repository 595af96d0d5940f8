//! A load on a vault: threads that change it and say what they do, before and after.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry::memory::SecretText;
use tenantry::tenant::{IdRule, Quotas, ResolvedTenant, Surroundings, TenantFile};
use tenantry::vault::{self, OperatorRecord, TenantCredentialVault, TokenRecord, Unlock};

use crate::child::Failed;
use crate::model::{Operation, Owned, Said, operator_id, tenant_id, token_id};
use crate::place::{self, PASSPHRASE, Place};
use crate::random::Random;

/// Records that one step of a re-sealing takes.
const STEP: usize = 64;
/// A line that is said begins with it.
const MARK: char = '@';

/// What a load is to do.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// What its threads own.
    pub(crate) threads: Vec<Owned>,
    /// Operations of each thread.
    pub(crate) operations: u64,
}

impl Plan {
    pub(crate) fn write(&self, place: &Place) {
        fs::write(place.path("plan"), serde_json::to_string(self).unwrap()).unwrap();
    }
}

/// The child's part. Makes the vault, unless there is one.
pub(crate) fn run(place: &Place) -> Result<(), Failed> {
    let plan: Plan = serde_json::from_str(&place.read("plan")).unwrap();
    if !place.data().join("header").exists() {
        place::create_vault(&place.data(), PASSPHRASE);
    }
    let failed = |error: vault::Error| (error.code(), crate::state::told(&error));
    let vault = place::unsealed(&place.data(), PASSPHRASE).map_err(failed)?;
    say(&Said::Ready);
    std::thread::scope(|scope| {
        for (thread, owned) in plan.threads.into_iter().enumerate() {
            let random = Random::new(plan.seed ^ Random::new(thread as u64).next());
            scope.spawn({
                let vault = &vault;
                move || work(vault, thread, owned, random, plan.operations)
            });
        }
    });
    drop(vault);
    say(&Said::Closed);
    Ok(())
}

fn work(
    vault: &TenantCredentialVault,
    thread: usize,
    mut owned: Owned,
    mut random: Random,
    operations: u64,
) {
    for _ in 0..operations {
        let operation = owned.choose(thread, &mut random);
        say(&Said::Begun { thread, operation: operation.clone() });
        match perform(vault, thread, &owned, &operation) {
            Ok(()) => say(&Said::Done { thread }),
            Err(error) => {
                return say(&Said::Failed { thread, error: crate::state::told(&error) });
            }
        }
        owned.apply(&operation);
    }
}

fn perform(
    vault: &TenantCredentialVault,
    thread: usize,
    owned: &Owned,
    operation: &Operation,
) -> Result<(), vault::Error> {
    let id = |tenant: &u64| tenant_id(thread, *tenant);
    let unlock = || Unlock::Passphrase(SecretText::from(PASSPHRASE));
    match operation {
        Operation::Import { tenants, value } => {
            let removed = tenants.iter().filter(|tenant| owned.removed.contains(*tenant));
            let removed: Vec<_> = removed.map(id).collect();
            if !removed.is_empty() {
                vault.readmit(&removed)?;
            }
            let tenants = tenants.iter().map(|tenant| resolved(thread, *tenant, *value)).collect();
            vault.import(tenants).map(drop)
        }
        Operation::SetEnabled { tenant, is_enabled } => vault.set_enabled(&id(tenant), *is_enabled),
        Operation::CreateToken { token, tenant } => {
            let token_id = token_id(thread, *token);
            let record = TokenRecord {
                token_id: token_id.clone(),
                tenant: id(tenant),
                scopes: vec!["query".to_owned()],
                created_at: jiff::Timestamp::UNIX_EPOCH,
                expires_at: None,
                used_at: None,
            };
            vault.put_token(token_id.as_bytes(), &record)
        }
        Operation::RevokeToken { token } => vault.remove_token(&token_id(thread, *token)).map(drop),
        Operation::UseToken { token, moment } => {
            let found = vault.locate_token(token_id(thread, *token).as_bytes())?;
            let moment = jiff::Timestamp::from_second(i64::try_from(*moment).unwrap()).unwrap();
            vault.save_token_uses(&[(found.unwrap().0, moment)])
        }
        Operation::SetQuota { tenant, limit } => {
            let set = |quotas: &mut Quotas| {
                quotas.max_queries_per_hour = Some(*limit);
                Ok::<_, vault::Error>(())
            };
            vault.change_quotas(&id(tenant), set).map(drop)
        }
        Operation::CreateOperator { operator } => {
            let operator_id = operator_id(thread, *operator);
            let secret = operator_id.clone();
            let record = OperatorRecord {
                operator_id,
                role: "auditor".to_owned(),
                created_at: jiff::Timestamp::UNIX_EPOCH,
                expires_at: None,
            };
            vault.put_operator(secret.as_bytes(), record)
        }
        Operation::RevokeOperator { operator } => {
            vault.remove_operator(&operator_id(thread, *operator)).map(drop)
        }
        Operation::RotateTenantKey { tenant } => vault.rotate_tenant_key(&id(tenant)).map(drop),
        Operation::RotateRoot { reseal } => {
            match vault.rotate_root(&[unlock()], false, *reseal) {
                // One after the other.
                Ok(_) | Err(vault::Error::Resealing) => Ok(()),
                Err(error) => Err(error),
            }
        }
        Operation::Reseal => vault.reseal(STEP).map(drop),
        Operation::Remove { tenant } => vault.remove_tenants(&unlock(), &[id(tenant)]).map(drop),
    }
}

/// A tenant all of whose parts say `value`.
fn resolved(thread: usize, tenant: u64, value: u64) -> ResolvedTenant {
    let id = tenant_id(thread, tenant);
    let value = format!("v{value}");
    let file = json!({
        "tenant_id": id.as_str(), "db_host": "localhost", "db_port": 5432, "db_name": value,
        "db_user": "app", "db_password": value, "api_keys": { "one": value },
    });
    let surroundings = Surroundings {
        id_rule: IdRule::Alphanumeric,
        lookup: &|_| None,
        certificate: &|_| Err("there is none".to_owned()),
    };
    let name = format!("{id}.json");
    TenantFile::read(&name, file.to_string().as_bytes(), &surroundings).unwrap().tenant
}

/// In one write, which a kill does not cut.
pub(crate) fn say(said: &Said) {
    let line = format!("{MARK}{}\n", serde_json::to_string(said).unwrap());
    rustix::io::write(std::io::stdout().as_fd(), line.as_bytes()).unwrap();
}

/// What is in a line of a load's output.
pub(crate) fn parse(line: &str) -> Option<Said> {
    // The test harness writes to the same line.
    let (_, said) = line.split_once(MARK)?;
    serde_json::from_str(said).ok()
}

/// Everything that a load says until it ends, each as soon as it is said.
pub(crate) fn listen(output: impl Read) -> impl Iterator<Item = Said> {
    BufReader::new(output).lines().map_while(Result::ok).filter_map(|line| parse(&line))
}
