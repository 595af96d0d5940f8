//! What a check says of each part, and what a rescue brings back.

use std::collections::BTreeSet;

use super::keys::{check_all, filled, open_passphrase, passphrase, reseal_all};
use super::*;
use crate::store::{self, Pair, Scratch};
use crate::vault::check::{CheckProgress, Part, Report, Salvaged, Scrubbed, Verdict};

pub(super) fn check(vault: &TenantCredentialVault) -> Report {
    let report = vault.check(&passphrase(PASSPHRASE), &mut |_| true).unwrap();
    assert!(!format!("{report:?}").contains(CANARY));
    report
}

/// Only `damaged` is. What a finding of it says.
#[track_caller]
fn assert_damaged(report: &Report, damaged: Part) -> String {
    for part in &report.parts {
        let expected = if part.part == damaged { Verdict::Damaged } else { Verdict::Good };
        assert_eq!(part.verdict, expected, "{report:#?}");
    }
    assert_eq!(report.verdict(), Verdict::Damaged);
    let finding = &report.part(damaged).unwrap().findings[0];
    assert!(finding.way_out.is_some());
    finding.to_string()
}

/// What the tokens are removed by that do not open.
fn damaged_tokens(vault: &TenantCredentialVault) -> Vec<String> {
    let tokens = vault.tokens_after(None, usize::MAX).unwrap();
    tokens.into_iter().filter_map(|(_, token)| token.err()).collect()
}

#[track_caller]
fn assert_good(report: &Report) {
    assert_eq!(report.verdict(), Verdict::Good, "{report:#?}");
}

/// The records of a tenant, in key order: directory, password, two API keys, configuration.
fn records(vault: &TenantCredentialVault, tenant: &str) -> Vec<Pair> {
    let handle = vault.inside(|vault| vault.entry(&id(tenant)).unwrap().keys.handle);
    vault.store().unwrap().scan(Tree::Tenant, &handle.0).unwrap()
}

/// Sets a pair, or removes it, in a commit like any other: the store is as it should be.
pub(super) fn set(vault: &TenantCredentialVault, tree: Tree, key: &[u8], value: Option<Vec<u8>>) {
    let mut batch = Batch::default();
    match value {
        Some(value) => batch.put(tree, key, value),
        None => batch.remove(tree, key),
    }
    vault.store().unwrap().apply(batch).unwrap();
}

pub(super) fn flipped(value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    value[100] ^= 1;
    value
}

#[test]
fn an_honest_vault_is_good_in_every_part_and_each_record_was_looked_at() {
    let (_bench, vault) = filled(3);
    let report = check(&vault);
    assert_good(&report);
    let parts: Vec<Part> = report.parts.iter().map(|part| part.part).collect();
    assert!(parts.is_sorted());
    assert_eq!(report.part(Part::Header).unwrap().checked, 1);
    assert_eq!(report.part(Part::Records).unwrap().checked, 15);
    assert_eq!(report.part(Part::Tokens).unwrap().checked, 3);
}

#[test]
fn each_damaged_or_missing_record_is_told_with_its_tenant_and_field() {
    let (_bench, vault) = filled(3);
    let fields = ["", "db_password", "api_keys.anthropic", "api_keys.openai", "config"];
    for (record, field) in fields.iter().enumerate() {
        let (key, good) = records(&vault, "tenant001").remove(record);
        let mut longer = good.clone();
        longer.push(0);
        for bad in [Some(flipped(&good)), Some(Vec::new()), Some(longer), None] {
            set(&vault, Tree::Tenant, &key, bad);
            let report = check(&vault);
            let finding = assert_damaged(&report, Part::Records);
            // The directory names its tenant; without it a token does.
            assert!(finding.starts_with("tenant001: ") && finding.contains(field), "{finding}");
            assert_eq!(report.part(Part::Records).unwrap().findings.len(), 1, "{report:#?}");
            set(&vault, Tree::Tenant, &key, Some(good.clone()));
        }
    }
    assert_good(&check(&vault));
}

#[test]
fn a_record_in_another_place_is_found_from_both_sides() {
    let (_bench, vault) = filled(3);
    let (key, own) = records(&vault, "tenant001").remove(1);
    let (other_key, other) = records(&vault, "tenant002").remove(1);
    set(&vault, Tree::Tenant, &key, Some(other));
    set(&vault, Tree::Tenant, &other_key, Some(own));
    let report = check(&vault);
    assert_damaged(&report, Part::Records);
    let named = report.part(Part::Records).unwrap().findings.iter();
    let mut named: Vec<_> = named.map(|finding| finding.tenant.clone().unwrap()).collect();
    named.sort();
    assert_eq!(named, [id("tenant001"), id("tenant002")]);
}

#[test]
fn records_that_nobody_lists_or_has_a_key_for_are_told() {
    let (_bench, vault) = filled(2);
    let (key, value) = records(&vault, "tenant000").remove(1);
    let mut stray = key.clone();
    stray[17] = 0x77;
    set(&vault, Tree::Tenant, &stray, Some(value.clone()));
    let finding = assert_damaged(&check(&vault), Part::Records);
    assert_eq!(finding, "tenant000: 1 records that its directory does not list");
    set(&vault, Tree::Tenant, &stray, None);

    let mut unknown = key;
    unknown[..16].fill(0x5c);
    set(&vault, Tree::Tenant, &unknown, Some(value.clone()));
    let finding = assert_damaged(&check(&vault), Part::Records);
    assert!(finding.contains("no key for 1 records at handle 5c5c"), "{finding}");
    set(&vault, Tree::Tenant, &unknown, None);

    set(&vault, Tree::Tenant, b"short", Some(value));
    assert_damaged(&check(&vault), Part::Records);
}

#[test]
fn a_damaged_token_is_told_listed_and_revoked_and_the_others_work() {
    let (_bench, vault) = filled(3);
    let (key, token) = vault.store().unwrap().scan(Tree::Token, &[]).unwrap().remove(1);
    set(&vault, Tree::Token, &key, Some(flipped(&token)));
    let finding = assert_damaged(&check(&vault), Part::Tokens);
    assert_eq!(vault.tokens().unwrap().len(), 2);
    let damaged = damaged_tokens(&vault);
    assert_eq!(format!("{} does not open", damaged[0]), finding);
    assert!(!vault.remove_token("damaged_00").unwrap());
    assert!(vault.remove_token(&damaged[0]).unwrap());
    assert!(damaged_tokens(&vault).is_empty());
    assert_eq!(vault.tokens().unwrap().len(), 2);
    assert_good(&check(&vault));
}

#[test]
fn a_damaged_tenant_is_listed_as_such_and_an_import_mends_or_a_removal_ends_it() {
    let (_bench, vault) = filled(3);
    for record in 1..5 {
        let (key, good) = records(&vault, "tenant001").remove(record);
        set(&vault, Tree::Tenant, &key, if record == 2 { None } else { Some(flipped(&good)) });
        let listed = vault.tenants().unwrap();
        let damaged: Vec<bool> = listed.iter().map(|tenant| tenant.is_damaged).collect();
        assert_eq!(damaged, [false, record == 4, false]);
        assert_eq!(listed[1].details.is_none(), record == 4);
        assert_eq!(open_passphrase(&vault, "tenant002").unwrap(), CANARY);
        vault.import(vec![postgres("tenant001")]).unwrap();
        assert_good(&check(&vault));
        check_all(&vault, 3);
    }
    let (key, good) = records(&vault, "tenant001").remove(4);
    set(&vault, Tree::Tenant, &key, Some(flipped(&good)));
    vault.remove_tenants(&passphrase(PASSPHRASE), &[id("tenant001")]).unwrap();
    assert_eq!(vault.tenants().unwrap().len(), 2);
    assert_good(&check(&vault));
}

#[test]
fn a_header_or_keyring_that_is_not_the_one_in_force_is_told_while_it_is_served() {
    let (bench, vault) = filled(2);
    for (name, part) in [("header", Part::Header), ("keyring", Part::Keyring)] {
        let path = bench.path().join(name);
        let good = fs::read(&path).unwrap();
        let mut last = good.clone();
        *last.last_mut().unwrap() ^= 1;
        for bad in [last, good[..good.len() - 1].to_vec(), Vec::new()] {
            fs::write(&path, bad).unwrap();
            assert_damaged(&check(&vault), part);
        }
        fs::remove_file(&path).unwrap();
        assert_damaged(&check(&vault), part);
        fs::write(&path, good).unwrap();
    }
    let former = fs::read(bench.path().join("keyring")).unwrap();
    vault.import(vec![postgres("tenant009")]).unwrap();
    fs::write(bench.path().join("keyring"), former).unwrap();
    assert_damaged(&check(&vault), Part::Keyring);
}

#[test]
fn a_check_takes_a_key_an_open_vault_and_ends_when_told() {
    let (_bench, vault) = filled(2);
    let refused = vault.check(&passphrase("not the passphrase at all"), &mut |_| true);
    assert!(matches!(refused, Err(Error::WrongPassphrase)));
    let mut seen = Vec::new();
    let report = vault.check(&passphrase(PASSPHRASE), &mut |progress| {
        seen.push(progress);
        seen.len() < 2
    });
    assert!(matches!(seen[..], [CheckProgress { done: 0, .. }, CheckProgress { done: 1.., .. }]));
    let report = report.unwrap();
    assert_eq!(report.part(Part::Records).unwrap().verdict, Verdict::Unchecked);
    assert_eq!(report.verdict(), Verdict::Unchecked);
    vault.seal();
    let sealed = vault.check(&passphrase(PASSPHRASE), &mut |_| true);
    assert!(matches!(sealed, Err(Error::Sealed)));
}

#[test]
fn a_sealed_tenants_records_are_checked_with_the_key_that_opens_the_vault() {
    let (_bench, vault) = filled(2);
    let unlock = passphrase(PASSPHRASE);
    let (key, good) = records(&vault, "tenant001").remove(1);
    vault.seal_tenant(&unlock, &id("tenant001")).unwrap();
    assert_good(&check(&vault));
    set(&vault, Tree::Tenant, &key, Some(flipped(&good)));
    let finding = assert_damaged(&check(&vault), Part::Records);
    assert!(finding.starts_with("tenant001: "), "{finding}");
}

#[test]
fn in_the_middle_of_a_reseal_and_beside_writers_nothing_is_amiss() {
    let (_bench, vault) = filled(12);
    let unlock = passphrase(PASSPHRASE);
    vault.rotate_root(std::slice::from_ref(&unlock), false, true).unwrap();
    vault.reseal(20).unwrap();
    assert_good(&check(&vault));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..20 {
                let mut tenant = postgres("tenant003");
                tenant.config.limits.max_rows = number + 1;
                vault.import(vec![tenant]).unwrap();
                vault.reseal(10).unwrap();
                vault.remove_token(&format!("tok_tenant{number:03}")).unwrap();
            }
        });
        while !writer.is_finished() {
            assert_good(&check(&vault));
        }
    });
}

fn scrub(vault: &TenantCredentialVault, at_most: usize) -> Report {
    let mut scrub = vault.begin_scrub().unwrap();
    for _ in 0..1_000 {
        match vault.scrub(scrub, at_most).unwrap() {
            Scrubbed::Some(rest) => scrub = rest,
            Scrubbed::All(report) => return report,
        }
    }
    panic!("it does not end");
}

#[test]
fn a_scrub_finds_what_is_amiss_in_steps_and_is_begun_again_after_a_sealing() {
    let (_bench, vault) = filled(3);
    assert_good(&scrub(&vault, 1));
    let (key, good) = records(&vault, "tenant001").remove(1);
    set(&vault, Tree::Tenant, &key, Some(flipped(&good)));
    let finding = assert_damaged(&scrub(&vault, 1), Part::Records);
    assert!(finding.starts_with("tenant001: "), "{finding}");
    let under_way = vault.begin_scrub().unwrap();
    vault.seal();
    assert!(matches!(vault.scrub(under_way, 1), Err(Error::Sealed)));
    vault.unseal(&passphrase(PASSPHRASE)).unwrap();
    assert_damaged(&scrub(&vault, 1_000), Part::Records);
}

/// A look at what is in the bench's directory, without opening its store.
fn examine(bench: &Bench) -> Report {
    let vault = bench.sealed().unwrap();
    let scratch = Scratch::create(vault.directory(), None).unwrap();
    let before = bench.files();
    let report = vault.examine(&passphrase(PASSPHRASE), None, &scratch, &mut |_| true).unwrap();
    assert_eq!(bench.files(), before);
    drop(scratch);
    assert_eq!(fs::read_dir(bench.parent.path()).unwrap().count(), 1);
    report
}

#[test]
fn a_closed_vault_is_examined_without_writing_to_it() {
    let (bench, vault) = filled(3);
    vault.seal_tenant(&passphrase(PASSPHRASE), &id("tenant002")).unwrap();
    let (key, good) = records(&vault, "tenant001").remove(4);
    drop(vault);
    let report = examine(&bench);
    assert_good(&report);
    assert_eq!(report.part(Part::Records).unwrap().checked, 15);

    let vault = bench.unseal();
    set(&vault, Tree::Tenant, &key, Some(flipped(&good)));
    drop(vault);
    let finding = assert_damaged(&examine(&bench), Part::Records);
    assert_eq!(finding, "tenant001: missing or damaged: config");

    let keyring = bench.path().join("keyring");
    let mut bytes = fs::read(&keyring).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&keyring, bytes).unwrap();
    let report = examine(&bench);
    let verdict = |part| report.part(part).unwrap().verdict;
    assert_eq!((verdict(Part::Header), verdict(Part::Keyring)), (Verdict::Good, Verdict::Damaged));
    assert_eq!(verdict(Part::Records), Verdict::Unchecked);
}

/// Rescues what is in the bench's directory into `out` beside it, and opens that.
pub(super) fn salvage(bench: &Bench) -> (Salvaged, TenantCredentialVault) {
    let vault = bench.sealed().unwrap();
    let out = bench.parent.path().join("out");
    if out.exists() {
        fs::remove_dir_all(&out).unwrap();
    }
    let directory = DataDir::create(&out).unwrap();
    let scratch = Scratch::create(vault.directory(), None).unwrap();
    let before = bench.files();
    let unlock = passphrase(PASSPHRASE);
    let salvaged = vault.salvage(&unlock, &directory, &scratch, &mut |_| true).unwrap();
    assert_eq!(bench.files(), before);
    drop((scratch, directory));
    let clock = Arc::<ManualClock>::clone(&bench.clock);
    let directory = DataDir::open(&out).unwrap();
    let rescued = TenantCredentialVault::open(directory, options(), clock).unwrap();
    rescued.unseal(&unlock).unwrap();
    assert_good(&check(&rescued));
    (salvaged, rescued)
}

#[test]
fn from_an_honest_vault_everything_is_rescued() {
    let (bench, vault) = filled(4);
    let unlock = passphrase(PASSPHRASE);
    vault.rotate_root(std::slice::from_ref(&unlock), false, true).unwrap();
    // Some have moved to their new handles, and some have not.
    vault.reseal(8).unwrap();
    drop(vault);
    let (salvaged, rescued) = salvage(&bench);
    assert_eq!((salvaged.tenants, salvaged.tokens, salvaged.records), (4, 4, 24));
    assert!(salvaged.incomplete.is_empty() && salvaged.lost.is_empty());
    check_all(&rescued, 4);
    reseal_all(&rescued);
    check_all(&rescued, 4);
}

#[test]
fn a_tenant_is_rescued_without_the_fields_that_do_not_open_and_lost_without_its_configuration() {
    let (bench, vault) = filled(4);
    vault.seal_tenant(&passphrase(PASSPHRASE), &id("tenant003")).unwrap();
    let damage = |tenant: &str, record: usize| {
        let (key, good) = records(&vault, tenant).remove(record);
        set(&vault, Tree::Tenant, &key, Some(flipped(&good)));
    };
    damage("tenant000", 1);
    damage("tenant000", 3);
    damage("tenant001", 4);
    let handle = vault.inside(|vault| vault.entry(&id("tenant002")).unwrap().keys.handle);
    damage("tenant002", 0);
    drop(vault);
    let (salvaged, rescued) = salvage(&bench);
    let lost = vec!["db_password".to_owned(), "api_keys.openai".to_owned()];
    assert_eq!(salvaged.incomplete, [(id("tenant000"), lost)]);
    assert_eq!((salvaged.tenants, salvaged.tokens), (1, 4));
    let handles: Vec<&str> = salvaged.lost.iter().map(|lost| &*lost.handle).collect();
    let names = salvaged.lost.iter().map(|lost| lost.tenant.clone().unwrap());
    assert_eq!(names.collect::<BTreeSet<_>>(), [id("tenant001"), id("tenant002")].into());
    assert!(handles.contains(&&*certificate::hex(&handle.0)));

    let stored = rescued.tenant(&id("tenant000")).unwrap();
    assert_eq!((stored.version, stored.enabled, stored.credentials.len()), (2, true, 1));
    let credentials = rescued.credentials(&id("tenant000")).unwrap();
    assert!(credentials.db_password.is_none());
    assert_eq!(exposed(&credentials.api_keys["anthropic"]), "sk-2");
    rescued.unseal_tenant(&passphrase(PASSPHRASE), &id("tenant003")).unwrap();
    assert_eq!(open_passphrase(&rescued, "tenant003").unwrap(), CANARY);
    // What was lost comes back with an import.
    rescued.import((0..3).map(|number| postgres(&format!("tenant00{number}"))).collect()).unwrap();
    check_all(&rescued, 4);
    assert_good(&check(&rescued));
}

#[test]
fn a_tenant_that_loses_its_own_certificates_is_rescued_switched_off() {
    let bench = Bench::new();
    let vault = bench.unseal();
    let mut tenant = postgres("tenant001");
    target(&mut tenant).root_certificates = Some("PEM".repeat(4_000));
    vault.import(vec![tenant, postgres("tenant002")]).unwrap();
    let (key, good) = records(&vault, "tenant001").pop().unwrap();
    set(&vault, Tree::Tenant, &key, Some(flipped(&good)));
    drop(vault);
    let (salvaged, rescued) = salvage(&bench);
    assert_eq!(salvaged.incomplete, [(id("tenant001"), vec!["db_sslrootcert".to_owned()])]);
    assert!(!rescued.tenant(&id("tenant001")).unwrap().enabled);
    assert!(rescued.tenant(&id("tenant002")).unwrap().enabled);
}

#[test]
fn a_damaged_token_is_not_rescued_and_what_was_removed_does_not_come_back() {
    let (bench, vault) = filled(3);
    vault.remove_tenants(&passphrase(PASSPHRASE), &[id("tenant001")]).unwrap();
    vault.remove_token("tok_tenant000").unwrap();
    let (key, token) = vault.store().unwrap().scan(Tree::Token, &[]).unwrap().remove(0);
    set(&vault, Tree::Token, &key, Some(flipped(&token)));
    let damaged = damaged_tokens(&vault);
    drop(vault);
    let (salvaged, rescued) = salvage(&bench);
    assert_eq!((salvaged.tenants, salvaged.tokens), (2, 0));
    assert_eq!(salvaged.lost_tokens, damaged);
    assert!(rescued.tokens().unwrap().is_empty());
    assert!(matches!(rescued.tenant(&id("tenant001")), Err(Error::NotConfigured)));
    let again = rescued.import(vec![postgres("tenant001")]);
    assert!(matches!(again, Err(Error::Removed { .. })));
    assert_eq!(fs::read_dir(rescued.directory().certificates_path()).unwrap().count(), 1);
}

#[test]
fn without_the_keyring_nothing_is_rescued_and_no_vault_is_made() {
    let (bench, vault) = filled(1);
    drop(vault);
    fs::write(bench.path().join("keyring"), b"not a keyring").unwrap();
    let vault = bench.sealed().unwrap();
    let out = DataDir::create(bench.parent.path().join("out")).unwrap();
    let scratch = Scratch::create(vault.directory(), None).unwrap();
    let refused = vault.salvage(&passphrase(PASSPHRASE), &out, &scratch, &mut |_| true);
    assert!(matches!(refused, Err(Error::KeyringDamaged)));
    drop(out);
    let none = DataDir::open(bench.parent.path().join("out"));
    assert!(matches!(none, Err(store::Error::NotInitialised { .. })));
}

/// Flips the lowest bit of the byte at `offset` of a file.
fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn segments(bench: &Bench) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(bench.path().join("journal")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

#[test]
fn a_damaged_anchor_or_journal_is_told_beside_the_calls_that_are_served() {
    let (bench, vault) = filled(3);
    let anchor = bench.path().join("anchor");
    let segment = segments(&bench).pop().unwrap();
    for (path, part) in [(&anchor, Part::Anchor), (&segment, Part::Journal)] {
        let good = fs::read(path).unwrap();
        let written = good.iter().rposition(|byte| *byte != 0).unwrap();
        for offset in (0..=written).step_by(1 + written / 40).chain([written]) {
            if part == Part::Anchor && good[offset] == 0 && offset > 64 {
                continue;
            }
            flip(path, offset);
            assert_damaged(&check(&vault), part);
            fs::write(path, &good).unwrap();
        }
        fs::write(path, &good[..written]).unwrap();
        assert_damaged(&check(&vault), part);
        fs::remove_file(path).unwrap();
        assert_damaged(&check(&vault), part);
        fs::write(path, &good).unwrap();
        assert_good(&check(&vault));
    }
    assert_eq!(check(&vault).part(Part::Anchor).unwrap().checked, 1);
    let number = vault.store().unwrap().condition().number;
    assert_eq!(check(&vault).part(Part::Journal).unwrap().checked, number);
}

#[test]
fn of_a_closed_vault_each_damaged_part_is_told_and_the_others_are_good() {
    let (bench, vault) = filled(3);
    drop(vault);
    assert_good(&examine(&bench));
    let segment = segments(&bench).pop().unwrap();
    let length = fs::read(&segment).unwrap().len();
    let anchor = bench.path().join("anchor");
    let engine = bench.path().join("store/db");
    for (path, offset, part) in [
        (&anchor, 20, Part::Anchor),
        (&segment, length / 2, Part::Journal),
        (&segment, length - 1, Part::Journal),
        (&engine, 0, Part::Manifest),
    ] {
        let good = fs::read(path).unwrap();
        if part == Part::Manifest {
            // Of a single bit the engine may not take notice.
            fs::write(path, vec![0x5c; good.len()]).unwrap();
        } else {
            flip(path, offset);
        }
        let report = examine(&bench);
        // A damaged engine may have lost records as well.
        let verdict = |part| report.part(part).unwrap().verdict;
        assert_eq!(verdict(part), Verdict::Damaged, "{report:#?}");
        for other in [Part::Header, Part::Keyring, Part::Anchor, Part::Journal, Part::Tokens] {
            assert!(other == part || verdict(other) == Verdict::Good, "{report:#?}");
        }
        fs::remove_file(path).unwrap();
        assert_eq!(examine(&bench).part(part).unwrap().verdict, Verdict::Damaged);
        fs::write(path, good).unwrap();
    }
    assert_good(&examine(&bench));
}

#[test]
fn from_journal_or_engine_alone_everything_is_rescued() {
    for lost in ["store", "journal", "anchor"] {
        let (bench, vault) = filled(3);
        vault.remove_token("tok_tenant001").unwrap();
        drop(vault);
        let path = bench.path().join(lost);
        if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.unwrap();
        let (salvaged, rescued) = salvage(&bench);
        assert_eq!((salvaged.tenants, salvaged.tokens), (3, 2), "{lost}");
        assert!(salvaged.lost.is_empty() && salvaged.incomplete.is_empty());
        assert_eq!(salvaged.commits.0, salvaged.commits.1, "{lost}");
        for number in 0..3 {
            let name = format!("tenant00{number}");
            assert_eq!(open_passphrase(&rescued, &name).unwrap(), CANARY);
        }
        assert_eq!(rescued.tokens().unwrap().len(), 2);
    }
}

#[test]
fn from_a_journal_that_is_damaged_in_the_middle_what_is_before_and_after_is_rescued() {
    let bench = Bench::new();
    let vault = bench.unseal();
    let mut lengths = Vec::new();
    for number in 0..5 {
        vault.import(vec![postgres(&format!("tenant00{number}"))]).unwrap();
        lengths.push(fs::metadata(segments(&bench).pop().unwrap()).unwrap().len());
    }
    drop(vault);
    fs::remove_dir_all(bench.path().join("store")).unwrap();
    // In the last bytes of the import of the third.
    flip(&segments(&bench).pop().unwrap(), usize::try_from(lengths[2]).unwrap() - 100);
    let (salvaged, rescued) = salvage(&bench);
    assert_eq!((salvaged.tenants, salvaged.lost.len()), (4, 1));
    let (newest, from) = salvaged.commits;
    assert!(from < newest, "{:?}", salvaged.commits);
    for number in [0, 1, 3, 4] {
        let name = format!("tenant00{number}");
        assert_eq!(open_passphrase(&rescued, &name).unwrap(), CANARY);
    }
}
