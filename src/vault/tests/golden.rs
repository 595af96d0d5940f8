//! Data directories as earlier versions of this program left them, in `migrations/store`: every one
//! of them opens for ever.
//!
//! A golden file is text: first what is expected of the vault, then every file of the directory as
//! lines of hex, each with its offset; what no line covers is zeros. `UPDATE=1 cargo test --lib
//! golden` writes the one of the newest version if it is not there.

use std::env;
use std::fmt::Write as _;
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Once;

use super::*;

/// The directory of every version, the first one first. Makes the golden store of the last one if it
/// is to and there is none.
fn versions() -> Vec<PathBuf> {
    static MAKING: Once = Once::new();
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/store");
    let mut versions: Vec<_> =
        fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path()).collect();
    versions.sort();
    MAKING.call_once(|| {
        let newest = versions[versions.len() - 1].join("golden.txt");
        if env::var_os("UPDATE").is_some() && !newest.exists() {
            fs::write(newest, make()).unwrap();
        }
    });
    versions
}

/// Every golden store, by its path, and whether it is of the last version.
fn goldens() -> Vec<(PathBuf, bool)> {
    let versions = versions();
    let last = versions.len() - 1;
    let mut goldens = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let files = fs::read_dir(version).unwrap().map(|entry| entry.unwrap().path());
        goldens.extend(
            files
                .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
                .map(|path| (path, index == last)),
        );
    }
    goldens
}

/// What a golden file says. The lines of each kind are in order.
struct Golden(String);

impl Golden {
    fn read(path: &Path) -> Self {
        Self(fs::read_to_string(path).unwrap())
    }

    /// The words of the lines that begin with `kind`.
    fn lines<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = Vec<&'a str>> {
        self.0.lines().filter_map(move |line| {
            let mut words = line.split(' ');
            (words.next() == Some(kind)).then(|| words.collect())
        })
    }

    /// Writes the directory to `path`.
    fn unpack(&self, path: &Path) {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
        for words in self.lines("directory") {
            fs::create_dir(path.join(words[0])).unwrap();
        }
        let mut file = None;
        for line in self.0.lines() {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["file", name, length] => {
                    let made = File::create_new(path.join(name)).unwrap();
                    made.set_permissions(Permissions::from_mode(0o600)).unwrap();
                    made.set_len(length.parse().unwrap()).unwrap();
                    file = Some(made);
                }
                ["at", offset, hex] => {
                    let offset = u64::from_str_radix(offset, 16).unwrap();
                    file.as_ref().unwrap().write_all_at(&bytes(hex), offset).unwrap();
                }
                _ => {}
            }
        }
    }

    /// Opens the vault in `path` and compares everything with what the file says.
    fn check(&self, path: &Path) -> TenantCredentialVault {
        let mut lines = self.0.lines();
        let passphrase = lines.find_map(|line| line.strip_prefix("passphrase ")).unwrap();
        let directory = DataDir::open(path).unwrap();
        let clock = ManualClock::new(Timestamp::from_second(1_795_305_600).unwrap());
        let vault = TenantCredentialVault::open(directory, options(), Arc::new(clock)).unwrap();
        vault.unseal(&Unlock::Passphrase(passphrase.into())).unwrap();

        let mut secrets: Vec<Vec<String>> = Vec::new();
        for tenant in vault.tenants().unwrap() {
            let of_tenant = |name: &str, secret: &SecretText| {
                [tenant.id.as_str(), name, exposed(secret)].map(str::to_owned).to_vec()
            };
            let credentials = vault.credentials(&tenant.id).unwrap();
            let password = credentials.db_password.as_ref().unwrap();
            secrets.push(of_tenant("db_password", password));
            let api_keys = credentials.api_keys.iter();
            secrets.extend(api_keys.map(|(name, key)| of_tenant(name, key)));
            assert_eq!(vault.tenant(&tenant.id).unwrap().config.id, tenant.id);
        }
        assert_eq!(secrets, self.lines("secret").collect::<Vec<_>>());
        for words in self.lines("token") {
            let token = vault.find_token(words[0].as_bytes()).unwrap().unwrap();
            assert_eq!([&token.token_id, token.tenant.as_str()], words[1..]);
        }
        assert_eq!(vault.tokens().unwrap().len(), self.lines("token").count());
        for words in self.lines("removed") {
            let import = vault.import(vec![postgres(words[0])]);
            assert!(matches!(import, Err(Error::Removed { .. })), "{import:?}");
        }
        vault
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |digit: u8| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap();
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Appends the lines of everything in `directory`, which is `root` or below it.
fn pack(root: &Path, directory: &Path, text: &mut String) {
    let mut paths: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().display();
        if path.is_dir() {
            writeln!(text, "directory {name}").unwrap();
            pack(root, &path, text);
            continue;
        }
        let content = fs::read(&path).unwrap();
        writeln!(text, "file {name} {}", content.len()).unwrap();
        for (index, bytes) in content.chunks(64).enumerate() {
            if bytes.iter().any(|byte| *byte != 0) {
                write!(text, "at {:06x} ", index * 64).unwrap();
                for byte in bytes {
                    write!(text, "{byte:02x}").unwrap();
                }
                text.push('\n');
            }
        }
    }
}

/// A directory of the present version: what was written, changed, removed and rewritten.
fn make() -> String {
    let bench = Bench::new();
    let vault = bench.unseal();
    let mut text = format!("passphrase {PASSPHRASE}\n");
    let tenant = |name: &str, password: &str, api_keys: &[(&str, &str)]| {
        let mut tenant = postgres(name);
        let api_keys = api_keys.iter().map(|(name, key)| ((*name).to_owned(), (*key).into()));
        tenant.credentials = Credentials {
            db_password: Some(password.into()),
            db_sslkey: None,
            api_keys: api_keys.collect(),
        };
        tenant
    };
    let changing = |password: &str| tenant("tenant002", password, &[]);
    let before =
        [tenant("tenant001", "password-1", &[("anthropic", "sk-1")]), changing("password-2")];
    vault.import(before.into()).unwrap();
    vault.import(vec![tenant("tenant003", "password-3", &[])]).unwrap();
    vault.remove_tenants(&Unlock::Passphrase(PASSPHRASE.into()), &[id("tenant003")]).unwrap();
    vault.import(vec![changing("password-4")]).unwrap();
    let record = TokenRecord {
        token_id: "token-1".to_owned(),
        tenant: id("tenant001"),
        scopes: vec!["read".to_owned()],
        created_at: bench.clock.now(),
        expires_at: None,
        used_at: None,
    };
    vault.put_token(b"secret-of-token-1", &record).unwrap();
    drop(vault);

    for words in [
        "secret tenant001 db_password password-1",
        "secret tenant001 anthropic sk-1",
        "secret tenant002 db_password password-4",
        "token secret-of-token-1 token-1 tenant001",
        "removed tenant003",
    ] {
        writeln!(text, "{words}").unwrap();
    }
    for left_out in ["attempts", "ballast", "lock"] {
        drop(fs::remove_file(bench.path().join(left_out)));
    }
    pack(&bench.path(), &bench.path(), &mut text);
    text
}

#[test]
fn every_version_has_a_golden_store() {
    for version in versions() {
        assert!(version.join("golden.txt").is_file(), "{}", version.display());
    }
}

#[test]
fn every_golden_store_opens_with_what_it_had_and_the_second_opening_finds_nothing_to_do() {
    for (file, is_newest) in goldens() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let golden = Golden::read(&file);
        golden.unpack(&path);
        let vault = golden.check(&path);
        let number = vault.store().unwrap().condition().number;
        drop(vault);
        let exports = path.join("exports");
        assert_eq!(exports.exists(), !is_newest, "{}", file.display());
        drop(fs::remove_dir_all(&exports));
        let files = ["header", "keyring", "journal/base"];
        let before = files.map(|name| fs::read(path.join(name)).unwrap());
        let vault = golden.check(&path);
        assert_eq!(vault.store().unwrap().condition().number, number, "{}", file.display());
        assert_eq!(files.map(|name| fs::read(path.join(name)).unwrap()), before);
        assert!(!exports.exists());
    }
}

/// Copies the file or directory `name` of `from` to `to`.
fn copy(from: &Path, to: &Path, name: &str) {
    if from.join(name).is_file() {
        fs::copy(from.join(name), to.join(name)).unwrap();
        return;
    }
    fs::create_dir(to.join(name)).unwrap();
    for entry in fs::read_dir(from.join(name)).unwrap() {
        copy(&from.join(name), &to.join(name), entry.unwrap().file_name().to_str().unwrap());
    }
}

/// What is written before the engine has a manifest and the keyring its key, as an attempt with
/// another key leaves it.
#[test]
fn an_adoption_that_was_cut_off_is_done_again() {
    for (file, _) in goldens().into_iter().filter(|(_, is_newest)| !is_newest) {
        let golden = Golden::read(&file);
        let parent = tempfile::tempdir().unwrap();
        let [path, adopted] = ["data", "adopted"].map(|name| parent.path().join(name));
        golden.unpack(&adopted);
        drop(golden.check(&adopted));
        for cut_to in [0, 100, 1_000, usize::MAX] {
            golden.unpack(&path);
            copy(&adopted, &path, "exports");
            fs::create_dir(path.join("journal")).unwrap();
            let base = fs::read(adopted.join("journal/base")).unwrap();
            let part = &base[..base.len().min(cut_to)];
            fs::write(path.join("journal/base"), part).unwrap();
            drop(golden.check(&path));
            golden.check(&path);
            fs::remove_dir_all(&path).unwrap();
        }
        for parts in [&["exports"][..], &["exports", "journal"], &["exports", "journal", "anchor"]]
        {
            golden.unpack(&path);
            for part in parts {
                copy(&adopted, &path, part);
            }
            drop(golden.check(&path));
            golden.check(&path);
            fs::remove_dir_all(&path).unwrap();
        }
    }
}
