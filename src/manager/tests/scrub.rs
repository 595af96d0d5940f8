//! What the service does by itself, by a clock that the tests move.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::scrub::{EVERY, FIRST, INTERVAL, Scrubs};
use crate::audit::{self, Entry, Log};
use crate::clock::ManualClock;
use crate::memory::SecretText;
use crate::store::DataDir;
use crate::vault::check::Verdict;
use crate::vault::{self, KdfCost, Options, TenantCredentialVault, Unlock};

const PASSPHRASE: &str = "correct horse battery staple";

/// An open vault in `directory`, without tenants.
fn vault(directory: &std::path::Path, clock: &Arc<ManualClock>) -> Arc<TenantCredentialVault> {
    let data = DataDir::create(directory.join("data")).unwrap();
    let passphrase = SecretText::from(PASSPHRASE);
    vault::create(&data, &passphrase, KdfCost::insecure_for_tests(), &**clock).unwrap();
    let options = Options { upgrade_cost: false, ..Options::default() };
    let clock = Arc::<ManualClock>::clone(clock);
    let vault = TenantCredentialVault::open(data, options, clock).unwrap();
    vault.unseal(&Unlock::Passphrase(PASSPHRASE.into())).unwrap();
    Arc::new(vault)
}

#[tokio::test(start_paused = true)]
async fn a_pass_is_made_a_minute_after_the_start_and_then_daily_and_each_is_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_second(1_795_305_600).unwrap()));
    let vault = vault(directory.path(), &clock);
    let audit = directory.path().join("audit");
    let log = Log::open(&audit, Arc::<ManualClock>::clone(&clock)).unwrap();
    let scrubs = Arc::new(Scrubs::new(100, Arc::<ManualClock>::clone(&clock)));
    let running = Arc::clone(&scrubs).run(Arc::downgrade(&vault), log);
    #[expect(clippy::disallowed_methods, reason = "aborted below")]
    let running = tokio::spawn(running);
    let recorded = || -> Vec<Entry> {
        let entries = audit::read(&audit, audit::Filter::default()).unwrap();
        entries.collect::<Result<_, _>>().unwrap()
    };
    for passes in 0..3_usize {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(recorded().len(), passes);
        clock.advance(if passes == 0 { FIRST } else { EVERY });
        // A second of waiting, and the work of a thread that no clock moves.
        while recorded().len() == passes {
            tokio::time::sleep(INTERVAL).await;
        }
        assert_eq!(recorded()[passes].action, "vault.scrub");
    }
    let last = loop {
        match scrubs.last() {
            Some(last) => break last,
            None => tokio::task::yield_now().await,
        }
    };
    assert_eq!((last.verdict, last.findings), (Verdict::Good, Vec::new()));
    running.abort();
}
