//! A directory with a vault and what the program is given besides, which can be copied.
//!
//! ```text
//! data/         the data directory       configs/    tenant files, as they are imported first
//! passphrase    opens it                 changed/    the same with one tenant changed
//! replacement   may come to open it      temporary/  where the program may put what it needs
//! ```

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry::clock::SystemClock;
use tenantry::memory::SecretText;
use tenantry::store::{self, DataDir};
use tenantry::vault::{self, KdfCost, Options, TenantCredentialVault, Unlock};

pub(crate) const PASSPHRASE: &str = "the passphrase of this vault";
pub(crate) const REPLACEMENT: &str = "another passphrase of this vault";
/// Less than this, and the program itself may refuse to write: it wants some room left.
const ROOM: u64 = 2 << 30;

/// It is copied with the rest.
const BALLAST_MIB: u64 = 1;

/// Tenants of a new place.
pub(crate) const TENANTS: [&str; 3] = ["acme0001", "bravo002", "coral003"];

#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
}

/// A directory in memory when there is room: what is on the disk is not of interest where only the
/// order of the calls is.
pub(crate) fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let has_room = rustix::fs::statvfs(memory)
        .is_ok_and(|volume| volume.f_bavail.saturating_mul(volume.f_frsize) >= ROOM);
    if has_room { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

impl Place {
    /// At `root`, which must not exist; without a vault.
    pub(crate) fn without_vault(root: impl Into<PathBuf>) -> Self {
        let place = Self { root: root.into() };
        for name in ["configs", "changed", "temporary"] {
            fs::create_dir_all(place.path(name)).unwrap();
        }
        place.write_secret("passphrase", PASSPHRASE);
        place.write_secret("replacement", REPLACEMENT);
        for (number, id) in TENANTS.iter().enumerate() {
            let mut file = json!({
                "tenant_id": id, "db_host": "localhost", "db_port": 5432, "db_name": "shop",
                "db_user": "app", "db_password": format!("password-{number}"),
                "api_keys": { "openai": format!("key-{number}") },
            });
            place.write_tenant("configs", &file);
            if number == 1 {
                file["db_password"] = json!("password-changed");
                file["db_name"] = json!("warehouse");
                file["api_keys"] = json!({ "mail": "key-changed" });
            }
            place.write_tenant("changed", &file);
        }
        place
    }

    /// With a vault that opens quickly, and nothing in it.
    pub(crate) fn with_vault(root: impl Into<PathBuf>) -> Self {
        let place = Self::without_vault(root);
        create_vault(&place.data(), PASSPHRASE);
        place
    }

    /// One that exists already.
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A copy of everything, at `root`.
    pub(crate) fn copy_to(&self, root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        copy(&self.root, &root);
        Self { root }
    }

    pub(crate) fn write_secret(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(0o600)).unwrap();
    }

    /// Sees to it that the program is given `passphrase`, and may be given the other instead.
    pub(crate) fn expect_passphrase(&self, passphrase: &str) {
        let other = self.read("passphrase");
        if other != passphrase {
            self.write_secret("replacement", &other);
            self.write_secret("passphrase", passphrase);
        }
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write_tenant(&self, directory: &str, file: &Value) {
        let name = format!("{}.json", file["tenant_id"].as_str().unwrap());
        fs::write(self.path(directory).join(name), file.to_string()).unwrap();
    }

    /// The program on this data directory, with the passphrase; `{NAME}` in an argument is the path
    /// of `NAME` here.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        command.arg("--json").arg("--data-dir").arg(self.data());
        command.arg("--passphrase-file").arg(self.path("passphrase"));
        for argument in arguments {
            let name = argument.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            match name {
                Some(name) => command.arg(self.path(name)),
                None => command.arg(argument),
            };
        }
        self.surround(&mut command);
        command
    }

    /// Gives `command` the surroundings of this place.
    pub(crate) fn surround(&self, command: &mut Command) {
        command
            .current_dir(&self.root)
            .env_remove("TENANTRY_PASSPHRASE")
            .env("TENANTRY_VAULT__UPGRADE_KDF", "false")
            .env("TENANTRY_STORE__BALLAST_MIB", BALLAST_MIB.to_string())
            .env("TMPDIR", self.path("temporary"))
            .stdin(Stdio::null());
    }
}

/// A vault in `directory` that `passphrase` opens quickly.
pub(crate) fn create_vault(directory: &Path, passphrase: &str) {
    let directory = DataDir::create(directory).unwrap();
    let passphrase = SecretText::from(passphrase);
    vault::create(&directory, &passphrase, KdfCost::insecure_for_tests(), &SystemClock).unwrap();
}

/// The vault in `directory`, still sealed.
pub(crate) fn sealed(directory: &Path) -> Result<TenantCredentialVault, vault::Error> {
    let store = store::Options { ballast_bytes: BALLAST_MIB << 20 };
    let options = Options { upgrade_cost: false, store, ..Options::default() };
    let directory = DataDir::open(directory).map_err(vault::Error::from)?;
    TenantCredentialVault::open(directory, options, Arc::new(SystemClock))
}

/// The vault in `directory`, unsealed by `passphrase`.
pub(crate) fn unsealed(
    directory: &Path,
    passphrase: &str,
) -> Result<TenantCredentialVault, vault::Error> {
    let vault = sealed(directory)?;
    vault.unseal(&Unlock::Passphrase(SecretText::from(passphrase)))?;
    Ok(vault)
}

/// Copies the directory at `from` with all that is below it; sockets are left out.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&from, &to);
        } else if kind.is_file() {
            fs::copy(&from, &to).unwrap();
        }
    }
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
}

/// A copy of the place at `from`, below `directory`.
pub(crate) fn copied(from: &Path, directory: &Path) -> Place {
    Place::at(from).copy_to(directory.join("copy"))
}
