//! Sealing, slots, rotation, removal: what changes keys, and what happens when it is interrupted.

use super::*;

pub(super) const OTHER: &str = "another passphrase entirely";

pub(super) fn passphrase(text: &str) -> Unlock {
    Unlock::Passphrase(text.into())
}

pub(super) fn open_passphrase(
    vault: &TenantCredentialVault,
    tenant: &str,
) -> Result<String, Error> {
    let credentials = vault.credentials(&id(tenant))?;
    Ok(exposed(credentials.db_password.as_ref().unwrap()).to_owned())
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("tenant{number:03}")).collect()
}

/// With so many tenants, each with a token whose secret is its name.
pub(super) fn filled(count: usize) -> (Bench, TenantCredentialVault) {
    let bench = Bench::new();
    let vault = bench.unseal();
    let names = names(count);
    vault.import(names.iter().map(|name| postgres(name)).collect()).unwrap();
    for name in &names {
        vault.put_token(name.as_bytes(), &token(&format!("tok_{name}"), name)).unwrap();
    }
    (bench, vault)
}

pub(super) fn check_all(vault: &TenantCredentialVault, count: usize) {
    for name in names(count) {
        assert_eq!(open_passphrase(vault, &name).unwrap(), CANARY);
        assert_eq!(vault.tenant(&id(&name)).unwrap().config, postgres(&name).config);
        let found = vault.find_token(name.as_bytes()).unwrap().unwrap();
        assert_eq!(found.tenant, id(&name));
    }
    assert_eq!(vault.tenants().unwrap().len(), count);
    assert_eq!(vault.tokens().unwrap().len(), count);
}

pub(super) fn reseal_all(vault: &TenantCredentialVault) -> u64 {
    let mut destroyed = 0;
    for _ in 0..1_000 {
        let progress = vault.reseal(7).unwrap();
        assert!(progress.remaining <= progress.total.max(1), "{progress:?}");
        destroyed += progress.destroyed;
        if progress.is_done() {
            assert_eq!(progress.damaged_tenants, 0);
            return destroyed;
        }
    }
    panic!("it does not end: {:?}", vault.reseal_progress());
}

/// Every envelope's term by tree and store key.
fn terms(vault: &TenantCredentialVault) -> BTreeMap<(Tree, Vec<u8>), u32> {
    let store = vault.store().unwrap();
    [Tree::Tenant, Tree::Token]
        .into_iter()
        .flat_map(|tree| {
            let pairs = store.scan(tree, &[]).unwrap();
            pairs
                .into_iter()
                .map(move |(key, value)| ((tree, key), envelope::term(&value).unwrap()))
        })
        .collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_sealed_vault_answers_sealed_until_it_is_unsealed_and_again_after_it_is_sealed() {
    let (bench, vault) = filled(1);
    drop(vault);
    let vault = bench.sealed().unwrap();
    let tenant = id("tenant000");
    let check_sealed = || {
        assert!(vault.is_sealed());
        let errors = [
            vault.tenants().err(),
            vault.tenant(&tenant).err(),
            vault.revision(&tenant).err(),
            vault.credentials(&tenant).err(),
            vault.set_enabled(&tenant, false).err(),
            vault.find_token(b"tenant000").err(),
            vault.tokens().err(),
            vault.plan(&[postgres("tenant000")]).err(),
            vault.rotate_tenant_key(&tenant).err(),
            vault.reseal(1).err(),
            vault.reseal_progress().err(),
        ];
        for error in errors {
            assert!(matches!(error, Some(Error::Sealed)), "{error:?}");
        }
        vault.sweep();
        vault.forget_opened();
        assert_eq!(vault.slots().unwrap().len(), 1, "the slots are in the clear");
    };
    check_sealed();
    for _ in 0..2 {
        let unsealing = vault.unseal(&passphrase(PASSPHRASE)).unwrap();
        assert_eq!(unsealing, Unsealing::default());
        check_all(&vault, 1);
        vault.seal();
        check_sealed();
    }
}

#[test]
fn sealing_lets_go_of_the_keys_at_once_and_of_credentials_with_their_last_holder() {
    let (_bench, vault) = filled(1);
    let keys = vault.inside(|vault| Arc::downgrade(&vault.entry(&id("tenant000")).unwrap().keys));
    let held = vault.credentials(&id("tenant000")).unwrap();
    let credentials = Arc::downgrade(&held);
    vault.seal();
    assert!(keys.upgrade().is_none());
    assert_eq!(exposed(held.db_password.as_ref().unwrap()), CANARY);
    drop(held);
    assert!(credentials.upgrade().is_none());
}

#[test]
fn a_failed_unsealing_leaves_a_sealed_vault_sealed_and_an_unsealed_one_unsealed() {
    let (bench, vault) = filled(1);
    assert!(matches!(vault.unseal(&passphrase(OTHER)), Err(Error::WrongPassphrase)));
    check_all(&vault, 1);
    drop(vault);
    let keyring = fs::read(bench.path().join("keyring")).unwrap();
    let vault = bench.sealed().unwrap();
    assert!(matches!(vault.unseal(&passphrase(OTHER)), Err(Error::WrongPassphrase)));
    assert!(vault.is_sealed());
    let mut damaged = keyring.clone();
    damaged[70] ^= 1;
    fs::write(bench.path().join("keyring"), damaged).unwrap();
    assert!(matches!(vault.unseal(&passphrase(PASSPHRASE)), Err(Error::KeyringDamaged)));
    assert!(vault.is_sealed());
    fs::write(bench.path().join("keyring"), keyring).unwrap();
    vault.unseal(&passphrase(PASSPHRASE)).unwrap();
    check_all(&vault, 1);
}

#[test]
fn five_failures_make_even_the_right_passphrase_wait_also_after_a_restart() {
    let (bench, vault) = filled(1);
    drop(vault);
    let vault = bench.sealed().unwrap();
    for _ in 0..5 {
        assert!(matches!(vault.unseal(&passphrase(OTHER)), Err(Error::WrongPassphrase)));
    }
    let check_waits = |vault: &TenantCredentialVault, wait: u64| {
        let refused = vault.unseal(&passphrase(PASSPHRASE));
        let Err(Error::Throttled { retry_after_seconds }) = refused else { panic!("{refused:?}") };
        assert_eq!(retry_after_seconds, wait);
    };
    check_waits(&vault, 1);
    bench.clock.advance(Duration::from_secs(1));
    assert!(matches!(vault.unseal(&passphrase(OTHER)), Err(Error::WrongPassphrase)));
    check_waits(&vault, 2);
    drop(vault);
    let vault = bench.sealed().unwrap();
    check_waits(&vault, 2);
    bench.clock.advance(Duration::from_secs(2));
    vault.unseal(&passphrase(PASSPHRASE)).unwrap();
    assert!(matches!(vault.unseal(&passphrase(OTHER)), Err(Error::WrongPassphrase)));
    vault.unseal(&passphrase(PASSPHRASE)).unwrap();
}

#[test]
fn a_damaged_header_is_no_guess_and_does_not_count() {
    let (bench, vault) = filled(1);
    drop(vault);
    let vault = bench.sealed().unwrap();
    let header = fs::read(bench.path().join("header")).unwrap();
    let mut damaged = header.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(bench.path().join("header"), damaged).unwrap();
    for _ in 0..7 {
        assert!(matches!(vault.unseal(&passphrase(PASSPHRASE)), Err(Error::HeaderDamaged)));
    }
    fs::write(bench.path().join("header"), header).unwrap();
    vault.unseal(&passphrase(PASSPHRASE)).unwrap();
}

#[test]
fn each_kind_of_slot_opens_the_vault_by_itself() {
    let (bench, vault) = filled(2);
    let unlock = passphrase(PASSPHRASE);
    let file = KeyFile::generate().unwrap();
    let written = file.to_text();
    vault.add_slot(&unlock, &NewSlot::KeyFile(file)).unwrap();
    let made = vault.add_slot(&unlock, &NewSlot::Shares { threshold: 2, count: 3 }).unwrap();
    assert_eq!(made.shares.len(), 3);
    let kept: Vec<SecretText> = made.shares.iter().map(Share::to_text).collect();
    drop((made, vault));

    let kinds: Vec<_> =
        bench.sealed().unwrap().slots().unwrap().iter().map(|slot| slot.kind.as_str()).collect();
    assert_eq!(kinds, ["passphrase", "key-file", "shares"]);
    let share = |number: usize| Share::parse(exposed(&kept[number])).unwrap();
    let file = || KeyFile::parse(exposed(&written).as_bytes()).unwrap();
    for unlock in [
        Unlock::KeyFile(file()),
        Unlock::Shares(vec![share(2), share(0)]),
        Unlock::Shares(vec![share(1), share(2), share(0)]),
    ] {
        let vault = bench.sealed().unwrap();
        vault.unseal(&unlock).unwrap();
        check_all(&vault, 2);
    }
    let vault = bench.sealed().unwrap();
    let too_few = vault.unseal(&Unlock::Shares(vec![share(1)]));
    assert!(matches!(too_few, Err(Error::TooFewShares { .. })));
    let foreign = Unlock::KeyFile(KeyFile::generate().unwrap());
    assert!(matches!(vault.unseal(&foreign), Err(Error::WrongKey("key-file"))));
    // Removed, it opens nothing any more; the others do.
    let by_file = Unlock::KeyFile(file());
    assert_eq!(vault.remove_slot(&by_file, 0).unwrap().kind.as_str(), "passphrase");
    assert!(matches!(vault.unseal(&passphrase(PASSPHRASE)), Err(Error::WrongPassphrase)));
    vault.remove_slot(&by_file, 2).unwrap();
    assert!(matches!(vault.remove_slot(&by_file, 1), Err(Error::LastOfflineSlot)));
    vault.unseal(&by_file).unwrap();
    check_all(&vault, 2);
}

#[test]
fn a_changed_passphrase_opens_the_former_one_does_not_and_no_record_was_written() {
    let (bench, vault) = filled(3);
    let before = vault.store().unwrap().scan(Tree::Tenant, &[]).unwrap();
    let cost = KdfCost::insecure_for_tests();
    let wrong = vault.change_passphrase(&OTHER.into(), &OTHER.into(), cost);
    assert!(matches!(wrong, Err(Error::WrongPassphrase)), "unsealed or not");
    let short = vault.change_passphrase(&PASSPHRASE.into(), &"short".into(), cost);
    assert!(matches!(short, Err(Error::PassphraseTooShort)));
    let slot = vault.change_passphrase(&PASSPHRASE.into(), &OTHER.into(), cost).unwrap();
    assert_eq!(slot.id, 1);
    assert_eq!(vault.store().unwrap().scan(Tree::Tenant, &[]).unwrap(), before);
    drop(vault);
    assert!(matches!(bench.unseal_with(PASSPHRASE), Err(Error::WrongPassphrase)));
    let vault = bench.unseal_with(OTHER).unwrap();
    assert_eq!(vault.slots().unwrap().len(), 1);
    check_all(&vault, 3);
}

#[test]
fn a_cost_that_is_too_low_by_now_is_raised_at_the_next_unsealing() {
    let bench = Bench::new();
    let vault = bench.sealed().unwrap();
    assert!(!vault.unseal(&passphrase(PASSPHRASE)).unwrap().upgraded);
    drop(vault);
    let directory = DataDir::open(bench.path()).unwrap();
    let clock = Arc::<ManualClock>::clone(&bench.clock);
    let vault = TenantCredentialVault::open(directory, Options::default(), clock).unwrap();
    let unsealing = vault.unseal(&passphrase(PASSPHRASE)).unwrap();
    assert_eq!(unsealing, Unsealing { upgraded: true, ..Unsealing::default() });
    assert_eq!(vault.slots().unwrap()[0].kind, SlotKind::Passphrase(KdfCost::DEFAULT));
    assert!(!vault.unseal(&passphrase(PASSPHRASE)).unwrap().upgraded);
}

#[test]
fn a_rotated_tenant_key_seals_what_is_new_and_at_last_everything_and_the_old_one_is_gone() {
    let (bench, vault) = filled(3);
    let tenant = id("tenant001");
    assert!(vault.reseal_progress().unwrap().is_done());
    assert_eq!(vault.rotate_tenant_key(&tenant).unwrap(), 2);
    let count = |vault: &TenantCredentialVault, term: u32| {
        terms(vault).values().filter(|it| **it == term).count()
    };
    assert_eq!(count(&vault, 2), 0, "no record was written");
    check_all(&vault, 3);
    let mut changed = postgres("tenant001");
    changed.credentials.db_password = Some("rotated".into());
    vault.import(vec![changed]).unwrap();
    assert_eq!(count(&vault, 2), 2, "the new value and the directory");
    let progress = vault.reseal_progress().unwrap();
    assert_eq!((progress.total, progress.remaining), (5, 5));
    assert_eq!(reseal_all(&vault), 1);
    assert_eq!(count(&vault, 2), 5);
    let keys = vault.inside(|vault| Arc::clone(&vault.entry(&tenant).unwrap().keys));
    assert!(keys.is_settled() && keys.opening(1).is_none());
    assert!(vault.reseal_progress().unwrap().is_done());
    drop(vault);
    let vault = bench.unseal();
    assert_eq!(open_passphrase(&vault, "tenant001").unwrap(), "rotated");
    assert!(matches!(vault.rotate_tenant_key(&id("tenant009")), Err(Error::NotConfigured)));
    assert_eq!(vault.rotate_tenant_key(&tenant).unwrap(), 3);
}

#[test]
fn a_reseal_goes_on_after_a_restart_and_counts_what_is_left() {
    let (bench, mut vault) = filled(20);
    let unlock = passphrase(PASSPHRASE);
    vault.rotate_root(&[unlock], false, true).unwrap();
    let mut steps = 0;
    loop {
        let progress = vault.reseal(11).unwrap();
        check_all(&vault, 20);
        steps += 1;
        if progress.is_done() {
            break;
        }
        drop(vault);
        vault = bench.unseal();
        check_all(&vault, 20);
        assert!(steps < 30, "{progress:?}");
    }
    assert!(terms(&vault).values().all(|term| *term == 2));
    assert!(vault.inside(|vault| vault.keyring().entries().all(|keys| keys.is_settled())));
}

#[test]
fn a_rotated_root_key_makes_the_former_header_and_keyring_useless_with_each_other() {
    let (bench, vault) = filled(4);
    let read = |name: &str| fs::read(bench.path().join(name)).unwrap();
    let (header, keyring) = (read("header"), read("keyring"));
    let handles = |vault: &TenantCredentialVault| -> Vec<Handle> {
        names(4)
            .iter()
            .map(|name| vault.inside(|it| it.entry(&id(name)).unwrap().keys.handle))
            .collect()
    };
    let before = (handles(&vault), terms(&vault));
    let dropped = vault.rotate_root(&[passphrase(PASSPHRASE)], false, false).unwrap();
    assert_eq!(dropped, []);
    assert_eq!((handles(&vault), terms(&vault)), before, "no record was written");
    check_all(&vault, 4);
    drop(vault);
    fs::write(bench.path().join("header"), &header).unwrap();
    assert!(matches!(bench.unseal_with(PASSPHRASE), Err(Error::KeyringDamaged)));
    let new = Header::parse(&header).unwrap().slots();
    assert_eq!(new.len(), 1);
    // Both former files together are the former vault, whose tenant keys are still the present ones:
    // only the store knows that they are not its own.
    fs::write(bench.path().join("keyring"), &keyring).unwrap();
    assert!(matches!(bench.unseal_with(PASSPHRASE), Err(Error::HeaderOutdated)));
    let vault = bench.sealed().unwrap();
    let unsealing = vault.unseal_accepting_rollback(&passphrase(PASSPHRASE)).unwrap();
    assert_eq!(unsealing.accepted.len(), 2, "{unsealing:?}");
    check_all(&vault, 4);
}

#[test]
fn after_a_root_rotation_with_reseal_the_former_passphrase_and_files_open_no_record() {
    let (bench, vault) = filled(4);
    let read = |name: &str| fs::read(bench.path().join(name)).unwrap();
    let former = (read("header"), read("keyring"));
    let keys: Vec<Vec<u8>> = terms(&vault).into_keys().map(|(_, key)| key).collect();
    vault.rotate_root(&[passphrase(PASSPHRASE)], false, true).unwrap();
    let again = vault.rotate_root(&[passphrase(PASSPHRASE)], false, true);
    assert!(matches!(again, Err(Error::Resealing)));
    assert_eq!(reseal_all(&vault), 5, "four tenants and the tokens");
    check_all(&vault, 4);
    let moved = terms(&vault);
    assert!(moved.values().all(|term| *term == 2));
    assert!(moved.keys().all(|(tree, key)| *tree == Tree::Token || !keys.contains(key)));
    let current = (read("header"), read("keyring"));
    drop(vault);
    for (header, keyring) in
        [(&former.0, &former.1), (&former.0, &current.1), (&current.0, &former.1)]
    {
        fs::write(bench.path().join("header"), header).unwrap();
        fs::write(bench.path().join("keyring"), keyring).unwrap();
        assert!(bench.unseal_with(PASSPHRASE).is_err());
    }
    fs::write(bench.path().join("header"), &current.0).unwrap();
    fs::write(bench.path().join("keyring"), &current.1).unwrap();
    let vault = bench.unseal();
    check_all(&vault, 4);
    // A second one starts from there.
    vault.rotate_root(&[passphrase(PASSPHRASE)], false, true).unwrap();
    reseal_all(&vault);
    check_all(&vault, 4);
}

#[test]
fn a_root_rotation_keeps_the_slots_that_are_opened_and_drops_others_only_when_told() {
    let (bench, vault) = filled(1);
    let unlock = passphrase(PASSPHRASE);
    let file = KeyFile::generate().unwrap();
    let by_file = Unlock::KeyFile(KeyFile::parse(exposed(&file.to_text()).as_bytes()).unwrap());
    vault.add_slot(&unlock, &NewSlot::KeyFile(file)).unwrap();
    // Until the engine has written what it has in memory, files change by themselves.
    drop(vault);
    let vault = bench.unseal();
    let before = bench.files();
    let refused = vault.rotate_root(std::slice::from_ref(&unlock), false, false);
    assert!(matches!(refused, Err(Error::SlotsMissing(slots)) if slots == [1]));
    assert_eq!(bench.files(), before);
    let both = [unlock, by_file];
    assert_eq!(vault.rotate_root(&both, false, false).unwrap(), []);
    let [unlock, by_file] = both;
    let dropped = vault.rotate_root(&[unlock], true, false).unwrap();
    assert_eq!(dropped.iter().map(|slot| slot.id).collect::<Vec<_>>(), [1]);
    assert!(matches!(vault.unseal(&by_file), Err(Error::WrongKey(_))));
    drop(vault);
    check_all(&bench.unseal(), 1);
}

#[test]
fn readers_and_writers_go_on_while_records_are_sealed_anew() {
    let (_bench, vault) = filled(12);
    std::thread::scope(|scope| {
        let rotator = scope.spawn(|| {
            for round in 0..3 {
                vault.rotate_root(&[passphrase(PASSPHRASE)], false, true).unwrap();
                reseal_all(&vault);
                vault.rotate_tenant_key(&id("tenant003")).unwrap();
                let mut tenant = postgres("tenant005");
                tenant.config.limits.max_rows = round + 1;
                vault.import(vec![tenant]).unwrap();
                reseal_all(&vault);
            }
        });
        while !rotator.is_finished() {
            for name in names(12) {
                vault.forget_opened();
                assert_eq!(open_passphrase(&vault, &name).unwrap(), CANARY);
                vault.tenant(&id(&name)).unwrap();
                assert!(vault.find_token(name.as_bytes()).unwrap().is_some());
            }
        }
        rotator.join().unwrap();
    });
}

#[test]
fn a_tenant_whose_record_is_damaged_keeps_its_old_key_and_the_others_do_not_wait() {
    let (_bench, vault) = filled(3);
    let store = vault.store().unwrap();
    let (key, mut envelope) = {
        let prefix = [&vault.handle(&id("tenant001")).0[..], &[0, 2]].concat();
        store.scan(Tree::Tenant, &prefix).unwrap().remove(0)
    };
    let good = envelope.clone();
    envelope[100] ^= 1;
    let mut batch = Batch::default();
    batch.put(Tree::Tenant, key.clone(), envelope);
    store.apply(batch).unwrap();
    for name in names(3) {
        vault.rotate_tenant_key(&id(&name)).unwrap();
    }
    let mut last = vault.reseal(100).unwrap();
    for _ in 0..5 {
        last = vault.reseal(100).unwrap();
    }
    assert!(last.is_done());
    assert_eq!(last.damaged_tenants, 1);
    let settled = |name: &str| vault.inside(|it| it.entry(&id(name)).unwrap().keys.is_settled());
    assert_eq!(
        [settled("tenant000"), settled("tenant001"), settled("tenant002")],
        [true, false, true]
    );
    let mut batch = Batch::default();
    batch.put(Tree::Tenant, key, good);
    store.apply(batch).unwrap();
    assert_eq!(open_passphrase(&vault, "tenant001").unwrap(), CANARY, "the old key was kept");
}

#[test]
fn a_sealed_tenant_cannot_be_read_until_it_is_unsealed_and_the_others_are_not_touched() {
    let (bench, vault) = filled(2);
    let (tenant, other) = (id("tenant000"), id("tenant001"));
    let held = vault.credentials(&other).unwrap();
    let unlock = passphrase(PASSPHRASE);
    let wrong = vault.seal_tenant(&passphrase(OTHER), &tenant);
    assert!(matches!(wrong, Err(Error::WrongPassphrase)));
    let keys = vault.inside(|vault| Arc::downgrade(&vault.entry(&tenant).unwrap().keys));
    vault.seal_tenant(&unlock, &tenant).unwrap();
    assert!(keys.upgrade().is_none());
    assert!(Arc::ptr_eq(&held, &vault.credentials(&other).unwrap()));
    let check_sealed = |vault: &TenantCredentialVault| {
        for error in [
            vault.tenant(&tenant).err(),
            vault.revision(&tenant).err(),
            vault.credentials(&tenant).err(),
            vault.set_enabled(&tenant, true).err(),
            vault.import(vec![postgres("tenant000")]).err(),
            vault.import(vec![postgres("Tenant000")]).err(),
            vault.rotate_tenant_key(&tenant).err(),
            vault.put_token(b"new", &token("tok_x", "tenant000")).err(),
            vault.seal_tenant(&unlock, &tenant).err(),
        ] {
            assert!(matches!(&error, Some(Error::TenantSealed(it)) if *it == tenant), "{error:?}");
        }
        let listed = vault.tenants().unwrap();
        assert!(listed[0].details.is_none() && listed[1].details.is_some());
        let refused = vault.rotate_root(std::slice::from_ref(&unlock), false, true);
        assert!(matches!(refused, Err(Error::TenantSealed(_))));
        assert_eq!(open_passphrase(vault, "tenant001").unwrap(), CANARY);
    };
    check_sealed(&vault);
    drop((vault, held));
    let vault = bench.unseal();
    check_sealed(&vault);
    vault.rotate_root(std::slice::from_ref(&unlock), false, false).unwrap();
    vault.unseal_tenant(&unlock, &tenant).unwrap();
    vault.unseal_tenant(&unlock, &tenant).unwrap();
    check_all(&vault, 2);
    assert!(matches!(vault.unseal_tenant(&unlock, &id("tenant009")), Err(Error::NotConfigured)));
}

#[test]
fn a_tenant_can_be_sealed_in_the_middle_of_a_reseal() {
    let (bench, vault) = filled(4);
    let unlock = passphrase(PASSPHRASE);
    vault.rotate_root(std::slice::from_ref(&unlock), false, true).unwrap();
    vault.seal_tenant(&unlock, &id("tenant002")).unwrap();
    reseal_all(&vault);
    drop(vault);
    let vault = bench.unseal();
    vault.unseal_tenant(&unlock, &id("tenant002")).unwrap();
    reseal_all(&vault);
    check_all(&vault, 4);
    assert!(terms(&vault).values().all(|term| *term == 2));
}

#[test]
fn a_removed_tenant_is_gone_with_its_tokens_and_keys_and_comes_back_only_when_readmitted() {
    let (bench, vault) = filled(3);
    let (tenant, unlock) = (id("tenant001"), passphrase(PASSPHRASE));
    let missing = vault.remove_tenants(&unlock, &[tenant.clone(), id("tenant009")]);
    assert!(matches!(missing, Err(Error::NotConfigured)));
    check_all(&vault, 3);
    let handle = vault.handle(&tenant);
    let certificates = vault.remove_tenants(&unlock, std::slice::from_ref(&tenant)).unwrap();
    let certificate = Certificate::verify(certificates[0].as_str()).unwrap();
    assert!(!certificate.as_str().contains("tenant001"));
    let stored = bench.files().into_iter().find(|(name, _)| name.contains("certificates")).unwrap();
    assert_eq!(stored.1, certificate.as_str().as_bytes());

    let check_gone = |vault: &TenantCredentialVault| {
        assert!(matches!(vault.credentials(&tenant), Err(Error::NotConfigured)));
        assert_eq!(vault.find_token(b"tenant001").unwrap(), None);
        assert_eq!((vault.tenants().unwrap().len(), vault.tokens().unwrap().len()), (2, 2));
        assert!(vault.store().unwrap().scan(Tree::Tenant, &handle.0).unwrap().is_empty());
        for name in ["tenant001", "TENANT001"] {
            let refused = vault.import(vec![postgres(name)]);
            assert!(matches!(refused, Err(Error::Removed { .. })));
        }
    };
    check_gone(&vault);
    drop(vault);
    let vault = bench.unseal();
    check_gone(&vault);
    assert_eq!(open_passphrase(&vault, "tenant002").unwrap(), CANARY);
    // Once more: nothing is left to do, and it says so again.
    vault.remove_tenants(&unlock, std::slice::from_ref(&tenant)).unwrap();
    vault.readmit(std::slice::from_ref(&tenant)).unwrap();
    vault.import(vec![postgres("tenant001")]).unwrap();
    assert_eq!(open_passphrase(&vault, "tenant001").unwrap(), CANARY);
    assert_eq!(vault.find_token(b"tenant001").unwrap(), None, "its tokens were the former's");
}

#[test]
fn of_a_removed_tenant_no_byte_is_left_in_the_directory() {
    let (bench, vault) = filled(8);
    let tenant = id("tenant004");
    let handle = vault.handle(&tenant);
    let records = vault.store().unwrap().scan(Tree::Tenant, &handle.0).unwrap();
    let keyring = fs::read(bench.path().join("keyring")).unwrap();
    let header = fs::read(bench.path().join("header")).unwrap();
    let in_any_file =
        |needle: &[u8]| bench.files().iter().any(|(_, bytes)| contains(bytes, needle));
    for (_, envelope) in &records {
        assert!(in_any_file(&envelope[12..76]), "the search finds what is there");
    }
    vault.remove_tenants(&passphrase(PASSPHRASE), &[tenant]).unwrap();
    for (_, envelope) in &records {
        for part in envelope[12..].chunks_exact(32) {
            assert!(!in_any_file(part));
        }
    }
    // Wherever in the former keyring the tenant's key was, under whichever nonce.
    for part in keyring[29..].chunks_exact(32) {
        assert!(!in_any_file(part));
    }
    // And what the former keyring's key was wrapped in.
    for part in header[30 + 2 + 122 + 1..].chunks_exact(32) {
        assert!(!in_any_file(part));
    }
    drop(vault);
    let vault = bench.unseal();
    assert_eq!(vault.tenants().unwrap().len(), 7);
    assert_eq!(open_passphrase(&vault, "tenant005").unwrap(), CANARY);
}

#[test]
fn a_removal_that_is_interrupted_after_the_keys_is_completed_at_the_next_unsealing() {
    let (bench, vault) = filled(3);
    let tenant = id("tenant001");
    let handle = vault.handle(&tenant);
    vault.inside(|inside| {
        let mut writing = inside.writing();
        let now = bench.clock.now();
        inside
            .change_keyring(&mut writing, |keyring| {
                keyring.remove(keyring.digest(&tenant), handle, now);
                Ok(())
            })
            .unwrap();
    });
    drop(vault);
    let vault = bench.unseal();
    assert!(vault.store().unwrap().scan(Tree::Tenant, &handle.0).unwrap().is_empty());
    assert_eq!(vault.find_token(b"tenant001").unwrap(), None);
    assert_eq!((vault.tenants().unwrap().len(), vault.tokens().unwrap().len()), (2, 2));
}

#[test]
fn a_sealed_tenant_can_be_removed() {
    let (bench, vault) = filled(2);
    let (tenant, unlock) = (id("tenant001"), passphrase(PASSPHRASE));
    vault.seal_tenant(&unlock, &tenant).unwrap();
    let certificates = vault.remove_tenants(&unlock, std::slice::from_ref(&tenant)).unwrap();
    assert!(certificates[0].as_str().contains("terms of its key destroyed: all\n"));
    drop(vault);
    let vault = bench.unseal();
    assert_eq!(vault.tenants().unwrap().len(), 1);
    assert!(matches!(vault.tenant(&tenant), Err(Error::NotConfigured)));
}

#[test]
fn every_record_in_every_other_place_is_refused() {
    let (_bench, vault) = filled(3);
    let store = vault.store().unwrap();
    let tenants = store.scan(Tree::Tenant, &[]).unwrap();
    let tokens = store.scan(Tree::Token, &[]).unwrap();
    let (mut opened, mut moved) = (0, 0);
    vault.inside(|vault| {
        let system = vault.system();
        let mut places = Vec::new();
        for name in names(3) {
            let entry = vault.entry(&id(&name)).unwrap();
            for (kind, field, version) in entry.directory.records() {
                let key = [
                    &entry.keys.handle.0[..],
                    &field.to_be_bytes()[..],
                    &version.to_be_bytes()[..],
                ];
                places.push((Arc::clone(&entry.keys), kind, field, version, key.concat()));
            }
        }
        for (key, _) in &tokens {
            places.push((Arc::clone(&system), envelope::RecordKind::Token, 0, 1, key.clone()));
        }
        for (at, envelope) in tenants.iter().chain(&tokens) {
            for (keys, kind, field, version, key) in &places {
                let place = vault.records.place(*kind, *field, *version, key);
                let result = envelope::open(keys, &place, envelope);
                if at == key {
                    opened += usize::from(result.is_ok());
                } else {
                    moved += 1;
                    assert!(matches!(result, Err(Error::RecordDamaged { .. })));
                }
            }
        }
    });
    assert_eq!((opened, moved), (18, 18 * 17));
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_record_of_each_kind_is_refused() {
    let bench = Bench::new();
    let vault = bench.unseal();
    let mut tenant = postgres("tenant001");
    target(&mut tenant).root_certificates = Some("PEM".to_owned());
    vault.import(vec![tenant]).unwrap();
    vault.put_token(b"secret", &token("tok_1", "tenant001")).unwrap();
    vault.inside(|vault| {
        let entry = vault.entry(&id("tenant001")).unwrap();
        let mut checked = Vec::new();
        let mut check = |keys: &TenantKeys, place: &envelope::Place<'_>, envelope: &[u8]| {
            assert!(envelope::open(keys, place, envelope).is_ok());
            let refused = |bytes: &[u8]| {
                matches!(envelope::open(keys, place, bytes), Err(Error::RecordDamaged { .. }))
            };
            for bit in 0..8 * envelope.len() {
                let mut flipped = envelope.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(refused(&flipped), "bit {bit}");
            }
            for length in 0..envelope.len() {
                assert!(refused(&envelope[..length]), "{length} bytes");
            }
            checked.push(place.kind as u8);
        };
        for (kind, field, version) in entry.directory.records() {
            let envelope = vault.records.envelope(&entry.keys, kind, field, version).unwrap();
            let key =
                [&entry.keys.handle.0[..], &field.to_be_bytes()[..], &version.to_be_bytes()[..]]
                    .concat();
            check(&entry.keys, &vault.records.place(kind, field, version, &key), &envelope);
        }
        let (key, envelope) = vault.records.store().scan(Tree::Token, &[]).unwrap().remove(0);
        check(&vault.system(), &vault.token_place(&key), &envelope);
        checked.sort_unstable();
        checked.dedup();
        assert_eq!(checked, [1, 2, 3, 4, 5], "every kind");
    });
}
