//! The verbs that are interrupted, each with where it begins and how it is done again.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::child;
use crate::place::{Place, TENANTS};

/// One verb from one beginning.
#[derive(Debug)]
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    begin: Begin,
    how: How,
    /// What is done before it is repeated: what else finishes it.
    finish: &'static [&'static [&'static str]],
}

/// Where a verb begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Begin {
    NoVault,
    EmptyVault,
    /// Three tenants, one of which has used some of its quotas, two tokens and one of an operator.
    Tenants,
    /// Those, and a backup of them.
    Backup,
    /// A backup of them, and no vault.
    BackupOnly,
    /// The store of an older version with this number among them.
    Golden(usize),
}

#[derive(Clone, Copy, Debug)]
enum How {
    /// The program with these arguments.
    Program(&'static [&'static str]),
    /// This task of a child of ours: with the program it would take a second of key derivation.
    Child(&'static str),
}

use Begin::{Backup, BackupOnly, EmptyVault, NoVault, Tenants};
use How::{Child, Program};

const fn verb(name: &'static str, begin: Begin, how: How) -> Verb {
    Verb { name, begin, how, finish: &[] }
}

/// Every verb that writes, and those that should not.
pub(crate) fn all() -> Vec<Verb> {
    let mut verbs = vec![
        verb("init", NoVault, Child("init")),
        verb("tenant import", EmptyVault, Program(&["tenant", "import", "{configs}"])),
        verb("tenant import, changed", Tenants, Program(&["tenant", "import", "{changed}"])),
        verb("token create", Tenants, Program(&["token", "create", "--tenant", TENANTS[0]])),
        verb("token use", Tenants, Child("token use")),
        verb("token revoke", Tenants, Child("token revoke")),
        verb("operator create", Tenants, Program(&["operator", "create", "--role", "auditor"])),
        verb("operator revoke", Tenants, Program(&["operator", "revoke", "all"])),
        verb("quota set", Tenants, Program(&["quota", "set", TENANTS[0], "max_queries_per_day=7"])),
        verb("quota use", Tenants, Child("quota use")),
        verb("quota reset", Tenants, Program(&["quota", "reset", TENANTS[2]])),
        verb("tenant import, while served", Tenants, Child("tenant import, while served")),
        verb("tenant disable", Tenants, Program(&["tenant", "disable", TENANTS[1]])),
        verb("passphrase change", Tenants, Child("passphrase change")),
        verb("slot add key-file", Tenants, Program(&["slot", "add", "key-file", "{key}"])),
        verb("root rotate", Tenants, Program(&["root", "rotate"])),
        Verb {
            finish: &[&["reseal"]],
            ..verb("root rotate --reseal", Tenants, Program(&["root", "rotate", "--reseal"]))
        },
        verb("tenant-key rotate", Tenants, Program(&["tenant-key", "rotate", TENANTS[0]])),
        verb("tenant remove", Tenants, Program(&["tenant", "remove", "--yes", TENANTS[2]])),
        verb("backup create", Tenants, Program(&["backup", "create", "{backup}"])),
        verb("backup verify", Backup, Program(&["backup", "verify", "{backup}"])),
        verb("backup restore", BackupOnly, Program(&["backup", "restore", "{backup}"])),
        verb("fsck", Tenants, Program(&["fsck"])),
    ];
    verbs.extend(
        (0..golden_stores().len())
            .map(|number| verb("migrate", Begin::Golden(number), Program(&["tenant", "list"]))),
    );
    verbs
}

/// The files with stores of older versions, which `migrations/README.md` describes.
fn golden_stores() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/store");
    let list = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let is_golden = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("golden") && path.extension().is_some_and(|it| it == "txt")
    };
    let mut versions = list(&root);
    // The last is not older than the program.
    versions.pop();
    let files: Vec<_> = versions.iter().flat_map(|it| list(it)).filter(is_golden).collect();
    assert!(!files.is_empty() || !root.exists(), "no older store is in {}", root.display());
    files
}

/// Makes the data directory that `file` describes, and what opens it.
fn unpack(file: &Path, place: &Place) {
    fs::remove_dir_all(place.data()).unwrap();
    fs::create_dir(place.data()).unwrap();
    fs::set_permissions(place.data(), Permissions::from_mode(0o700)).unwrap();
    let mut open: Option<File> = None;
    for line in fs::read_to_string(file).unwrap().lines() {
        let (word, rest) = line.split_once(' ').unwrap();
        match word {
            "passphrase" => place.write_secret("passphrase", rest),
            "directory" => fs::create_dir(place.data().join(rest)).unwrap(),
            "file" => {
                let (name, length) = rest.rsplit_once(' ').unwrap();
                let file = File::create_new(place.data().join(name)).unwrap();
                file.set_len(length.parse().unwrap()).unwrap();
                open = Some(file);
            }
            "at" => {
                let (offset, bytes) = rest.split_once(' ').unwrap();
                let offset = u64::from_str_radix(offset, 16).unwrap();
                let pairs = (0..bytes.len()).step_by(2).map(|at| &bytes[at..at + 2]);
                let bytes: Vec<u8> = pairs.map(|it| u8::from_str_radix(it, 16).unwrap()).collect();
                open.as_ref().unwrap().write_all_at(&bytes, offset).unwrap();
            }
            // What it holds: that is compared with itself, and with that in other tests.
            _ => {}
        }
    }
}

impl Verb {
    /// Whether the program has it.
    pub(crate) fn exists(&self) -> bool {
        let Program([first, ..]) = self.how else { return true };
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        command.args([first, "--help"]).output().unwrap().status.success()
    }

    /// Makes the place where it begins, at `root`.
    pub(crate) fn prepare(&self, root: &Path) -> Place {
        match self.begin {
            NoVault => return Place::without_vault(root),
            Begin::Golden(_) | EmptyVault | Tenants | Backup | BackupOnly => {}
        }
        let place = Place::with_vault(root);
        if let Begin::Golden(number) = self.begin {
            unpack(&golden_stores()[number], &place);
        } else if self.begin != EmptyVault {
            done(&place, &["tenant", "import", "{configs}"]);
            for tenant in [TENANTS[0], TENANTS[2]] {
                done(&place, &["token", "create", "--tenant", tenant]);
            }
            done(&place, &["operator", "create", "--role", "operator"]);
            child::use_quota(&place, TENANTS[2]).unwrap();
        }
        if matches!(self.begin, Backup | BackupOnly) {
            done(&place, &["backup", "create", "{backup}"]);
        }
        if self.begin == BackupOnly {
            fs::remove_dir_all(place.data()).unwrap();
        }
        place
    }

    /// What runs it in `place`.
    pub(crate) fn command(&self, place: &Place) -> Command {
        match self.how {
            Program(arguments) => place.command(arguments),
            Child(task) => child::command(place, task),
        }
    }

    /// Does it again in `place`, and completes what it began before; `is_there` says whether there is
    /// a vault.
    pub(crate) fn repeat(&self, place: &Place, is_there: bool) -> Result<(), String> {
        if is_there && matches!(self.begin, NoVault | BackupOnly) {
            // It refuses to overwrite what it made.
            return Ok(());
        }
        if self.name == "backup create" && place.path("backup").exists() {
            succeeds(&mut place.command(&["backup", "verify", "{backup}"]))?;
            fs::remove_file(place.path("backup")).unwrap();
        }
        for arguments in self.finish {
            succeeds(&mut place.command(arguments))?;
        }
        succeeds(&mut self.command(place))
    }

    /// Whether a second run leaves what the first did: a second token is another token, and a
    /// second change of passphrase changes it back.
    pub(crate) fn is_idempotent(&self) -> bool {
        !["token create", "token revoke", "operator create", "passphrase change"]
            .contains(&self.name)
    }
}

fn done(place: &Place, arguments: &[&str]) {
    succeeds(&mut place.command(arguments)).unwrap();
}

/// Runs `command`; what it said, if it fails.
pub(crate) fn succeeds(command: &mut Command) -> Result<(), String> {
    let output = command.output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let arguments: Vec<_> = command.get_args().skip(5).map(|it| it.to_string_lossy()).collect();
    Err(format!("`{}` ends with {}: {said}", arguments.join(" "), output.status))
}
