//! What fails in the middle without a crash, and what damage does to a change of keys.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::keys::{OTHER, check_all, filled, open_passphrase, passphrase, reseal_all};
use super::*;
use crate::store::{self, Condition, Pair, Walk};

/// A store that fails when told.
#[derive(Debug)]
struct Faulty {
    inner: SledStore,
    /// So many batches go well.
    batches_left: AtomicUsize,
    fails_to_scan: AtomicBool,
}

impl Faulty {
    /// One batch less may go well.
    fn count(&self) -> Result<(), store::Error> {
        let left = self
            .batches_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| store::Error::ReadOnly)
    }

    fn check(flag: &AtomicBool) -> Result<(), store::Error> {
        if flag.load(Ordering::Relaxed) { Err(store::Error::ReadOnly) } else { Ok(()) }
    }
}

impl Store for Faulty {
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, store::Error> {
        self.inner.get(tree, key)
    }

    fn scan(&self, tree: Tree, prefix: &[u8]) -> Result<Vec<Pair>, store::Error> {
        self.inner.scan(tree, prefix)
    }

    fn scan_after(
        &self,
        tree: Tree,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, store::Error> {
        Self::check(&self.fails_to_scan)?;
        self.inner.scan_after(tree, after, limit)
    }

    fn apply(&self, batch: Batch) -> Result<(), store::Error> {
        self.count()?;
        self.inner.apply(batch)
    }

    fn apply_large(&self, batch: store::LargeBatch) -> Result<(), store::Error> {
        self.count()?;
        self.inner.apply_large(batch)
    }

    fn rewrite(&self) -> Result<(), store::Error> {
        self.inner.rewrite()
    }

    fn walk(&self) -> Result<Box<dyn Walk>, store::Error> {
        self.inner.walk()
    }

    fn condition(&self) -> Condition {
        self.inner.condition()
    }

    fn release_journal(&self, number: u64) -> Result<(), store::Error> {
        self.inner.release_journal(number)
    }
}

/// An unsealed vault on the bench's directory, whose store can be made to fail.
fn faulty(bench: &Bench) -> (TenantCredentialVault, Arc<Faulty>) {
    let vault = bench.sealed().unwrap();
    let header = root::read_header(&vault.directory).unwrap();
    let (header, _) = OpenHeader::open(&header, &passphrase(PASSPHRASE)).unwrap();
    let store = Arc::new(Faulty {
        inner: vault.engine(&header),
        batches_left: AtomicUsize::new(usize::MAX),
        fails_to_scan: AtomicBool::new(false),
    });
    let witness = Witness::new(Arc::<Faulty>::clone(&store), Arc::clone(&vault.directory));
    assert!(vault.witness.set(Arc::new(witness)).is_ok());
    vault.unseal(&passphrase(PASSPHRASE)).unwrap();
    (vault, store)
}

/// Damages one of the tenant's secrets. Answers what puts it right again.
fn damage(vault: &TenantCredentialVault, tenant: &str) -> Batch {
    let store = vault.store().unwrap();
    let handle = vault.inside(|vault| vault.entry(&id(tenant)).unwrap().keys.handle);
    let mut pairs = store.scan(Tree::Tenant, &handle.0).unwrap();
    let (key, good) = pairs.remove(2);
    let mut bad = good.clone();
    bad[100] ^= 1;
    let mut batch = Batch::default();
    batch.put(Tree::Tenant, key.clone(), bad);
    store.apply(batch).unwrap();
    let mut repair = Batch::default();
    repair.put(Tree::Tenant, key, good);
    repair
}

#[test]
fn a_damaged_record_in_a_rotation_of_everything_leaves_its_tenant_where_it_was() {
    let (bench, vault) = filled(3);
    let repair = damage(&vault, "tenant001");
    vault.rotate_root(&[passphrase(PASSPHRASE)], false, true).unwrap();
    for _ in 0..5 {
        vault.reseal(100).unwrap();
    }
    vault.tenant(&id("tenant001")).unwrap();
    drop(vault);
    let vault = bench.unseal();
    vault.store().unwrap().apply(repair).unwrap();
    check_all(&vault, 3);
    drop(vault);
    let vault = bench.unseal();
    reseal_all(&vault);
    check_all(&vault, 3);
}

#[test]
fn a_readmission_after_a_removal_that_failed_leaves_nothing_of_the_former_tenant() {
    let (bench, vault) = filled(2);
    drop(vault);
    let (vault, store) = faulty(&bench);
    let (tenant, unlock) = (id("tenant001"), passphrase(PASSPHRASE));
    // Two headers and a keyring are replaced; the batch that follows is the removal's.
    store.batches_left.store(3, Ordering::Relaxed);
    assert!(vault.remove_tenants(&unlock, std::slice::from_ref(&tenant)).is_err());
    drop(vault.readmit(std::slice::from_ref(&tenant)));
    drop((vault, store));
    let vault = bench.unseal();
    assert!(matches!(vault.tenant(&tenant), Err(Error::NotConfigured)), "its keys are gone");
    vault.readmit(std::slice::from_ref(&tenant)).unwrap();
    vault.import(vec![postgres("tenant001")]).unwrap();
    assert_eq!(vault.find_token(b"tenant001").unwrap(), None);
}

#[test]
fn many_guesses_in_one_command_count_one_by_one() {
    let (_bench, vault) = filled(1);
    let unlock = passphrase(PASSPHRASE);
    let made = vault.add_slot(&unlock, &NewSlot::Shares { threshold: 2, count: 3 }).unwrap();
    let one = made.shares.into_iter().next().unwrap();
    let guesses = |last: Unlock| {
        let mut guesses: Vec<_> = (0..20).map(|_| passphrase(OTHER)).collect();
        guesses.push(last);
        guesses
    };
    for last in [Unlock::Shares(vec![one]), passphrase(OTHER)] {
        assert!(vault.rotate_root(&guesses(last), false, false).is_err());
    }
    assert!(matches!(vault.unseal(&unlock), Err(Error::Throttled { .. })));
}

#[test]
fn each_of_two_key_commands_opens_its_own_slot() {
    let (bench, vault) = filled(1);
    let unlock = passphrase(PASSPHRASE);
    // Keeps nothing; refuses what another one wrapped.
    let command = |mark: &str| {
        let script = format!(
            r#"read -r _ _ verb; read -r text
            if [ $verb = wrap ]; then printf '%s' "{mark}$(printf '%s' "$text" | base64 -d | tr '\000-\377' '\200-\377\000-\177' | base64 -w 0)" | base64 -w 0
            else inner=$(printf '%s' "$text" | base64 -d)
              case $inner in {mark}*) printf '%s' "${{inner#{mark}}}" | base64 -d | tr '\000-\377' '\200-\377\000-\177' | base64 -w 0;; *) exit 1;; esac; fi; echo"#
        );
        KeyCommand::new(vec!["sh".into(), "-c".into(), script]).unwrap()
    };
    for mark in ["one:", "two:"] {
        vault.add_slot(&unlock, &NewSlot::Command(command(mark))).unwrap();
    }
    drop(vault);
    for mark in ["one:", "two:"] {
        let vault = bench.sealed().unwrap();
        vault.unseal(&Unlock::Command(command(mark))).unwrap();
    }
    let vault = bench.unseal();
    let all = [unlock, Unlock::Command(command("one:")), Unlock::Command(command("two:"))];
    assert_eq!(vault.rotate_root(&all, false, false).unwrap(), []);
}

#[test]
fn a_key_command_that_does_not_give_back_what_it_keeps_makes_no_slot() {
    let (_bench, vault) = filled(1);
    // Another key than the one that it was given.
    let script = r"read -r _ _ verb; read -r text
        if [ $verb = wrap ]; then echo c29tZXRoaW5n
        else echo AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=; fi";
    let command = KeyCommand::new(vec!["sh".into(), "-c".into(), script.into()]).unwrap();
    let refused = vault.add_slot(&passphrase(PASSPHRASE), &NewSlot::Command(command));
    assert!(matches!(refused, Err(Error::WrongKey("command"))), "{refused:?}");
    assert_eq!(vault.slots().unwrap().len(), 1);
}

#[test]
fn after_a_change_the_former_passphrase_opens_no_slot_even_if_it_was_in_two() {
    let (bench, vault) = filled(1);
    let cost = KdfCost::insecure_for_tests();
    // A change that is interrupted, and done again.
    vault.add_slot(&passphrase(PASSPHRASE), &NewSlot::passphrase(&OTHER.into(), cost)).unwrap();
    vault.change_passphrase(&PASSPHRASE.into(), &OTHER.into(), cost).unwrap();
    let third = "a third passphrase, unlike them";
    vault.change_passphrase(&OTHER.into(), &third.into(), cost).unwrap();
    drop(vault);
    bench.unseal_with(third).unwrap();
    assert!(matches!(bench.unseal_with(OTHER), Err(Error::WrongPassphrase)));
}

#[test]
fn a_reseal_that_cannot_read_the_tokens_loses_no_tenant_from_sight() {
    let (bench, vault) = filled(4);
    drop(vault);
    let (vault, store) = faulty(&bench);
    vault.rotate_root(&[passphrase(PASSPHRASE)], false, true).unwrap();
    store.fails_to_scan.store(true, Ordering::Relaxed);
    assert!(vault.reseal(100).is_err());
    store.fails_to_scan.store(false, Ordering::Relaxed);
    while !vault.reseal(100).unwrap().is_done() {
        // As after a kill at this moment.
        let keyring = fs::read(bench.path().join("keyring")).unwrap();
        let key = vault.inside(|vault| vault.writing().keyring_key.duplicate());
        Keyring::open(&keyring, vault.store_id(), &key, &key).unwrap();
    }
    check_all(&vault, 4);
    drop((vault, store));
    check_all(&bench.unseal(), 4);
}

#[test]
fn a_rotation_of_everything_ends_when_the_damaged_tenant_is_removed() {
    let (bench, vault) = filled(3);
    drop(damage(&vault, "tenant001"));
    let unlock = passphrase(PASSPHRASE);
    vault.rotate_root(std::slice::from_ref(&unlock), false, true).unwrap();
    for _ in 0..5 {
        vault.reseal(100).unwrap();
    }
    vault.remove_tenants(&unlock, &[id("tenant001")]).unwrap();
    for _ in 0..5 {
        vault.reseal(100).unwrap();
    }
    assert_eq!(vault.reseal_progress().unwrap().damaged_tenants, 0);
    vault.rotate_root(std::slice::from_ref(&unlock), false, true).unwrap();
    drop(vault);
    let vault = bench.unseal();
    reseal_all(&vault);
    assert_eq!(open_passphrase(&vault, "tenant002").unwrap(), CANARY);
}

#[test]
fn a_damaged_token_keeps_the_old_system_key_and_no_tenant_waits_for_it() {
    let (_bench, vault) = filled(3);
    let store = vault.store().unwrap();
    let (key, mut token) = store.scan(Tree::Token, &[]).unwrap().remove(0);
    token[100] ^= 1;
    let mut batch = Batch::default();
    batch.put(Tree::Token, key, token);
    store.apply(batch).unwrap();
    vault.rotate_root(&[passphrase(PASSPHRASE)], false, true).unwrap();
    for _ in 0..5 {
        drop(vault.reseal(100));
    }
    for name in ["tenant000", "tenant001", "tenant002"] {
        let is_settled = vault.inside(|it| it.entry(&id(name)).unwrap().keys.is_settled());
        assert!(is_settled, "{name}");
    }
}
