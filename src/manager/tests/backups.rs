//! What a service does by itself.

use jiff::Timestamp;

use super::super::backups::Backups;
use super::super::*;
use crate::clock::ManualClock;
use crate::memory::SecretText;
use crate::store::DataDir;
use crate::vault::backup::NewBackup;
use crate::vault::{KdfCost, Options, Unlock};

const PASSPHRASE: &str = "correct horse battery staple";

#[test]
fn a_schedule_waits_longer_after_each_failure_and_keeps_as_many_as_it_should() {
    let parent = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_second(1_795_305_600).unwrap()));
    let directory = DataDir::create(parent.path().join("data")).unwrap();
    let (passphrase, cost) = (SecretText::from(PASSPHRASE), KdfCost::insecure_for_tests());
    vault::create(&directory, &passphrase, cost, &*clock).unwrap();
    let log = Log::open(&directory.audit_path(), Arc::<ManualClock>::clone(&clock)).unwrap();
    let options = Options { upgrade_cost: false, ..Options::default() };
    let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
    let vault = TenantCredentialVault::open(directory, options, Arc::clone(&shared)).unwrap();

    let place = parent.path().join("backups");
    let every = Duration::from_hours(6);
    let schedule = Schedule { directory: place.clone(), every, keep: 2 };
    let backups = Backups::new(schedule, shared);
    let files = || std::fs::read_dir(&place).map_or(0, Iterator::count);
    // Sealed, and then without anything that opens a backup: nothing is wrong.
    backups.step(&vault, &log);
    let unlock = Unlock::Passphrase(PASSPHRASE.into());
    vault.unseal(&unlock).unwrap();
    backups.step(&vault, &log);
    assert_eq!(backups.failure(), None);

    let own = parent.path().join("own");
    let new = NewBackup {
        path: &own,
        unlock: Some(&unlock),
        slot: None,
        cost,
        verifies: false,
        is_scheduled: false,
    };
    vault.create_backup(&new, &mut |_| true).unwrap();
    let start = clock.now();
    for (attempt, minutes) in (1..).zip([1, 2, 4, 8, 16, 32, 60, 60]) {
        backups.step(&vault, &log);
        let failure = backups.failure().unwrap();
        assert_eq!((failure.attempts, failure.since), (attempt, start));
        let wait = Duration::from_mins(minutes);
        assert_eq!(failure.retry_at, clock.now() + wait);
        clock.advance(wait / 2);
        backups.step(&vault, &log);
        assert_eq!(backups.failure().unwrap().attempts, attempt, "it is not time yet");
        clock.advance(wait / 2);
    }
    std::fs::create_dir(&place).unwrap();
    backups.step(&vault, &log);
    assert_eq!((backups.failure(), files()), (None, 1));
    backups.step(&vault, &log);
    assert_eq!(files(), 1, "the next one is due in six hours");
    for expected in [2, 2, 2] {
        clock.advance(every);
        backups.step(&vault, &log);
        assert_eq!(files(), expected);
    }
    let known = vault.backups().unwrap();
    assert_eq!(known.len(), 3);
    assert!(known.iter().all(|it| it.is_there() && it.is_scheduled == it.verified_at.is_some()));
}
