//! What tenants have used of their quotas, as the vault keeps it.

use super::check::{check, flipped, salvage, set};
use super::keys::{check_all, filled, passphrase, reseal_all};
use super::*;
use crate::vault::check::Verdict;

const TENANT: &str = "tenant001";

fn born(vault: &TenantCredentialVault, tenant: &str) -> Timestamp {
    vault.tenant(&id(tenant)).unwrap().created_at
}

/// Saves `bytes` for `tenant`, of which there must be one.
fn save(vault: &TenantCredentialVault, tenant: &str, bytes: &[u8]) {
    let tenants = [(&id(tenant), born(vault, tenant))];
    assert_eq!(vault.save_counts(&tenants, |_| bytes.to_vec()).unwrap(), Unsaved::default());
}

fn counts(vault: &TenantCredentialVault, tenant: &str) -> Option<Vec<u8>> {
    vault.counts(&id(tenant)).unwrap()
}

/// The key and value of the record.
fn record(vault: &TenantCredentialVault, tenant: &str) -> (Vec<u8>, Vec<u8>) {
    let handle = vault.inside(|vault| vault.entry(&id(tenant)).unwrap().keys.handle);
    let pairs = vault.store().unwrap().scan(Tree::Tenant, &handle.0).unwrap();
    let (key, value) = pairs.last().unwrap();
    assert_eq!(key[16..], [0xf0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    (key.clone(), value.clone())
}

#[test]
fn counts_are_there_again_after_a_restart_and_are_no_change_of_the_tenant() {
    let (bench, vault) = filled(2);
    assert_eq!(counts(&vault, TENANT), None);
    let revision = vault.revision(&id(TENANT)).unwrap();
    save(&vault, TENANT, b"first");
    save(&vault, TENANT, b"second");
    assert_eq!(vault.revision(&id(TENANT)).unwrap(), revision);
    drop(vault);
    let vault = bench.unseal();
    assert_eq!(counts(&vault, TENANT).unwrap(), b"second");
    assert_eq!(counts(&vault, "tenant000"), None);
    check_all(&vault, 2);
    let imported = vault.import(vec![postgres(TENANT)]).unwrap();
    assert_eq!(kinds(&imported), [&ChangeKind::Unchanged]);
    let mut other = postgres(TENANT);
    other.config.limits.max_rows = 7;
    vault.import(vec![other]).unwrap();
    assert_eq!(counts(&vault, TENANT).unwrap(), b"second");
    assert_eq!(check(&vault).verdict(), Verdict::Good);
    vault.remove_counts(&id(TENANT)).unwrap();
    vault.remove_counts(&id(TENANT)).unwrap();
    assert_eq!(counts(&vault, TENANT), None);
}

#[test]
fn counts_are_saved_for_the_very_tenant_that_they_are_of() {
    let (bench, vault) = filled(3);
    let unlock = passphrase(PASSPHRASE);
    save(&vault, TENANT, b"former");
    let former = born(&vault, TENANT);
    vault.remove_tenants(&unlock, &[id(TENANT)]).unwrap();
    bench.clock.advance(Duration::from_secs(1));
    vault.readmit(&[id(TENANT)]).unwrap();
    vault.import(vec![postgres(TENANT)]).unwrap();
    assert_eq!(counts(&vault, TENANT), None, "it begins at nothing");
    vault.seal_tenant(&unlock, &id("tenant002")).unwrap();

    let ids = [id(TENANT), id("tenant000"), id("nobody999"), id("tenant002")];
    let tenants: Vec<_> = ids.iter().map(|id| (id, former)).collect();
    let mut asked = Vec::new();
    let unsaved = vault.save_counts(&tenants, |at| {
        asked.push(at);
        b"late".to_vec()
    });
    assert_eq!(unsaved.unwrap(), Unsaved { waiting: vec![3], gone: vec![0, 2] });
    assert_eq!(asked, [1]);
    assert_eq!(counts(&vault, TENANT), None);
    assert_eq!(counts(&vault, "tenant000").unwrap(), b"late");
    let sealed = vault.counts(&id("tenant002")).unwrap_err();
    assert!(matches!(sealed, Error::TenantSealed(_)), "{sealed}");
    vault.seal();
    let refused = vault.save_counts(&tenants, |_| unreachable!("the vault is sealed"));
    assert!(matches!(refused, Err(Error::Sealed)));
}

#[test]
fn damaged_counts_are_refused_and_told_until_they_are_removed() {
    let (bench, vault) = filled(3);
    for tenant in ["tenant000", TENANT] {
        save(&vault, tenant, b"used");
    }
    let ((key, good), (_, other)) = (record(&vault, TENANT), record(&vault, "tenant000"));
    for bad in [flipped(&good), Vec::new(), other] {
        set(&vault, Tree::Tenant, &key, Some(bad));
        let error = vault.counts(&id(TENANT)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::IntegrityError);
        assert!(error.to_string().contains("tenantry quota reset tenant001"), "{error}");
        let report = check(&vault);
        let findings = &report.part(crate::vault::check::Part::Records).unwrap().findings;
        let finding = findings[0].to_string();
        assert!(findings.len() == 1 && finding.starts_with("tenant001: what it has used"));
    }
    assert_eq!(counts(&vault, "tenant000").unwrap(), b"used");
    drop(vault);
    let (salvaged, rescued) = salvage(&bench);
    assert_eq!(salvaged.incomplete, [(id(TENANT), vec!["counts".to_owned()])]);
    assert_eq!((salvaged.tenants, salvaged.lost.len()), (2, 0));
    assert_eq!(counts(&rescued, "tenant000").unwrap(), b"used");
    assert_eq!(counts(&rescued, TENANT), None);
    check_all(&rescued, 3);
    let vault = bench.unseal();
    check_all(&vault, 3);
    vault.remove_counts(&id(TENANT)).unwrap();
    assert_eq!(counts(&vault, TENANT), None);
    assert_eq!(check(&vault).verdict(), Verdict::Good);
}

#[test]
fn counts_move_with_their_tenant_to_other_keys() {
    let (bench, vault) = filled(4);
    for tenant in ["tenant000", TENANT] {
        save(&vault, tenant, b"used");
    }
    vault.rotate_tenant_key(&id(TENANT)).unwrap();
    assert_eq!(counts(&vault, TENANT).unwrap(), b"used");
    assert_eq!(reseal_all(&vault), 1);
    assert_eq!(counts(&vault, TENANT).unwrap(), b"used");

    vault.rotate_root(&[passphrase(PASSPHRASE)], false, true).unwrap();
    loop {
        for tenant in ["tenant000", TENANT] {
            assert_eq!(counts(&vault, tenant).unwrap(), b"used");
        }
        save(&vault, "tenant002", b"meanwhile");
        if vault.reseal(1).unwrap().is_done() {
            break;
        }
    }
    assert_eq!(counts(&vault, "tenant002").unwrap(), b"meanwhile");
    assert_eq!(check(&vault).verdict(), Verdict::Good);
    drop(vault);
    // Which looks at every record.
    let vault = bench.sealed().unwrap();
    vault.unseal_accepting_rollback(&passphrase(PASSPHRASE)).unwrap();
    assert_eq!(counts(&vault, TENANT).unwrap(), b"used");
    check_all(&vault, 4);
}

#[test]
fn quotas_are_changed_and_nothing_else() {
    let (bench, vault) = filled(2);
    let set = |name: &str, limit| {
        vault.change_quotas(&id(TENANT), |quotas| {
            if quotas.set(name, limit) { Ok(()) } else { Err(Error::NotConfigured) }
        })
    };
    let before = vault.tenant(&id(TENANT)).unwrap();
    let quotas = set("max_denied_per_hour", Some(5)).unwrap();
    let expected = Quotas { max_denied_per_hour: Some(5), ..before.config.quotas };
    assert_eq!(quotas, expected);
    set("max_queries", Some(1)).unwrap_err();
    set("max_concurrent_connections", Some(1 << 32)).unwrap_err();
    assert_eq!(set("max_denied_per_hour", Some(5)).unwrap(), expected);
    let after = vault.tenant(&id(TENANT)).unwrap();
    assert_eq!(after.version, before.version + 1);
    assert_eq!((after.config.quotas, &after.credentials), (expected, &before.credentials));
    drop(vault);

    let vault = bench.unseal();
    assert_eq!(vault.tenant(&id(TENANT)).unwrap().config.quotas, expected);
    assert_eq!(check(&vault).verdict(), Verdict::Good);
    let imported = vault.import(vec![postgres(TENANT)]).unwrap();
    assert_eq!(kinds(&imported), [&changed(&["quotas.max_denied_per_hour"])]);
    check_all(&vault, 2);
    let unknown = vault.change_quotas(&id("nobody999"), |_| Ok::<(), Error>(()));
    assert!(matches!(unknown, Err(Error::NotConfigured)));
}
