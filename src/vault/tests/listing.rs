//! Pages of tenants and tokens.

use super::keys::{filled, passphrase, reseal_all};
use super::*;

/// The ids on the next page of `limit`, in their order.
fn page(
    vault: &TenantCredentialVault,
    after: &mut Option<TenantPlace>,
    limit: usize,
) -> Vec<String> {
    let page = vault.tenants_after(*after, limit).unwrap();
    *after = page.last().map(|(place, _)| *place).or(*after);
    page.into_iter().map(|(_, tenant)| tenant.id.to_string()).collect()
}

#[test]
fn pages_of_any_size_have_every_tenant_and_token_once() {
    let (_bench, vault) = filled(7);
    for limit in [1, 2, 3, 6, 7, 8] {
        let (mut after, mut tenants) = (None, Vec::new());
        loop {
            let page = page(&vault, &mut after, limit);
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            tenants.extend(page);
        }
        tenants.sort();
        assert!(vault.tenants().unwrap().iter().map(|it| it.id.as_str()).eq(&tenants));

        let (mut after, mut tokens) = (None, Vec::new());
        loop {
            let page = vault.tokens_after(after, limit).unwrap();
            assert!(page.len() <= limit);
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            tokens.extend(page.into_iter().map(|(_, token)| token.unwrap()));
        }
        tokens.sort_by(|one, other| one.token_id.cmp(&other.token_id));
        assert_eq!(tokens, vault.tokens().unwrap());
    }
    assert!(vault.tenants_after(None, 0).unwrap().is_empty());
    assert!(vault.tokens_after(None, 0).unwrap().is_empty());
}

#[test]
fn a_walk_meets_every_tenant_once_that_stays_whatever_happens_to_the_others_and_their_keys() {
    let (_bench, vault) = filled(9);
    let unlock = passphrase(PASSPHRASE);
    let mut after = None;
    let mut met = page(&vault, &mut after, 2);
    // Records move to other places in the store, half of them before the next page.
    vault.rotate_root(std::slice::from_ref(&unlock), false, true).unwrap();
    vault.reseal(7).unwrap();
    met.extend(page(&vault, &mut after, 2));
    reseal_all(&vault);
    // One that was met, behind which the next page begins.
    let gone = met.last().unwrap().clone();
    vault.remove_tenants(&unlock, &[id(&gone)]).unwrap();
    met.extend(page(&vault, &mut after, 2));
    let sealed = met[0].clone();
    vault.seal_tenant(&unlock, &id(&sealed)).unwrap();
    let rest = page(&vault, &mut after, 9);
    vault.seal_tenant(&unlock, &id(&rest[0])).unwrap();
    met.extend(rest);
    assert!(page(&vault, &mut after, 9).is_empty());
    met.sort();
    assert!((0..9).map(|number| format!("tenant{number:03}")).eq(met));
    assert_eq!(vault.tenants().unwrap().len(), 8);
}

#[test]
fn a_place_is_read_as_it_was_written_and_tells_no_id() {
    let (_bench, vault) = filled(1);
    let (place, tenant) = vault.tenants_after(None, 1).unwrap().remove(0);
    assert_eq!(TenantPlace::try_from(place.as_bytes()).unwrap(), place);
    let (token, _) = vault.tokens_after(None, 1).unwrap().remove(0);
    assert_eq!(TokenPlace::try_from(token.as_bytes()).unwrap(), token);
    TenantPlace::try_from(token.as_bytes()).unwrap_err();
    TokenPlace::try_from(place.as_bytes()).unwrap_err();
    let other = filled(1).1.tenants_after(None, 1).unwrap().remove(0);
    assert_eq!(other.1.id, tenant.id);
    assert_ne!(other.0, place);
}
