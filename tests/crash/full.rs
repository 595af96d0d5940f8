//! A disk that fills up: a file system in memory with 16 MiB.
//!
//! ```text
//! writes until one is refused ──► reads go on ──► room is made: writes go on, nothing is restarted
//! all room is taken by others ──► writes refused, reads go on ──► opened again, nothing is lost
//! ```

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tenantry::clock::SystemClock;
use tenantry::error::ErrorCode;
use tenantry::memory::SecretText;
use tenantry::store::{self, DataDir};
use tenantry::tenant::{IdRule, TenantId};
use tenantry::vault::{self, Options, TenantCredentialVault, TokenRecord, Unlock};

use crate::place::{self, PASSPHRASE, Place};

const MEBIBYTE: u64 = 1 << 20;

/// A small file system, for as long as the value lives.
struct Volume(PathBuf);

impl Volume {
    fn new(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs"])
            .arg(&path)
            .status();
        assert!(mount.is_ok_and(|status| status.success()), "mounting a file system takes root");
        Self(path)
    }

    /// Takes all room that is left but about `spare` bytes.
    fn fill(&self, spare: u64) {
        let volume = rustix::fs::statvfs(&self.0).unwrap();
        let free = volume.f_bavail * volume.f_frsize;
        let mut file = File::options().append(true).create(true).open(self.filler()).unwrap();
        let mut left = usize::try_from(free.saturating_sub(spare)).unwrap();
        while left > 0 {
            let now = left.min(4 << 10);
            if file.write_all(&vec![1; now]).is_err() {
                break;
            }
            left -= now;
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[derive(Debug, Default)]
pub(crate) struct Totals {
    acknowledged: usize,
    refused: usize,
    reads_while_full: usize,
    openings_while_full: usize,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, refused, reads_while_full, openings_while_full } = self;
        write!(
            f,
            "full: 16 MiB: {acknowledged} writes acknowledged and all there, {refused} refused, \
             {reads_while_full} reads and {openings_while_full} openings while full, lost 0"
        )
    }
}

/// Fills a small disk below `root` and makes room again.
pub(crate) fn run(root: &Path) -> Totals {
    let volume = Volume::new(root.join("volume"));
    let place = Place::with_vault(volume.0.join("place"));
    let imported = place.command(&["tenant", "import", "{configs}"]).output().unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let mut bench = Bench {
        totals: Totals::default(),
        tenant: TenantId::parse(place::TENANTS[0], IdRule::Alphanumeric).unwrap(),
    };

    let mut vault = open(&place);
    volume.fill(5 * MEBIBYTE);
    bench.write_until_refused(&vault);
    bench.check(&vault);
    volume.make_room();
    bench.write(&vault).unwrap();

    for _ in 0..3 {
        volume.fill(0);
        bench.write_until_refused(&vault);
        bench.check(&vault);
        // Closed and opened with not one byte to spare but the ballast.
        drop(vault);
        vault = open(&place);
        bench.totals.openings_while_full += 1;
        bench.check(&vault);
        volume.make_room();
        bench.write(&vault).unwrap();
        bench.check(&vault);
    }
    drop(vault);
    let checked = place.command(&["fsck"]).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{text}{}", String::from_utf8_lossy(&checked.stderr));
    bench.totals
}

struct Bench {
    totals: Totals,
    tenant: TenantId,
}

impl Bench {
    fn write(&mut self, vault: &TenantCredentialVault) -> Result<(), vault::Error> {
        let token_id = format!("token{}", self.totals.acknowledged);
        let record = TokenRecord {
            token_id: token_id.clone(),
            tenant: self.tenant.clone(),
            scopes: vec!["query".to_owned(); 100],
            created_at: jiff::Timestamp::UNIX_EPOCH,
            expires_at: None,
            used_at: None,
        };
        vault.put_token(token_id.as_bytes(), &record)?;
        self.totals.acknowledged += 1;
        Ok(())
    }

    fn write_until_refused(&mut self, vault: &TenantCredentialVault) {
        let error = loop {
            if let Err(error) = self.write(vault) {
                break error;
            }
        };
        assert_eq!(error.code(), ErrorCode::StorageFull, "{error}");
        self.totals.refused += 1;
    }

    /// Everything acknowledged is there, and can be read.
    fn check(&mut self, vault: &TenantCredentialVault) {
        assert_eq!(vault.tokens().unwrap().len(), self.totals.acknowledged);
        for tenant in vault.tenants().unwrap() {
            vault.credentials(&tenant.id).unwrap();
            self.totals.reads_while_full += 1;
        }
    }
}

fn open(place: &Place) -> TenantCredentialVault {
    let store = store::Options { ballast_bytes: MEBIBYTE };
    let options = Options { upgrade_cost: false, store, ..Options::default() };
    let directory = DataDir::open(place.data()).unwrap();
    let vault = TenantCredentialVault::open(directory, options, Arc::new(SystemClock)).unwrap();
    vault.unseal(&Unlock::Passphrase(SecretText::from(PASSPHRASE))).unwrap();
    vault
}
