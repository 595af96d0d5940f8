//! `tenant import`: files are read, checked and resolved here; whoever has the store takes them in.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use zeroize::Zeroizing;

use super::failure::said;
use super::output::{cell, complain};
use super::place::copy;
use super::{Context, Failure};
use crate::admin::{self, Candidate, Import};
use crate::api::Document;
use crate::error::ErrorCode;
use crate::memory::{LockedBytes, SecretText};
use crate::tenant::{
    Connection, IdRule, Problem, ResolvedTenant, Surroundings, TenantFile, TenantId,
};

/// Largest tenant file and certificate file that is read, in bytes.
const MAX_FILE: usize = 1 << 20;
/// Describes tenant files to editors; lies beside them and is none.
const SCHEMA_FILE: &str = "schema.json";

#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Arguments {
    /// Files, or directories whose *.json files are meant (schema.json is left out)
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Import the good files even if others have problems
    #[arg(long)]
    keep_going: bool,
    /// Import tenants that were removed, too, as new ones
    #[arg(long, conflicts_with = "dry_run")]
    readmit: bool,
    /// Import tenants whose PostgreSQL roles are privileged: superusers, say; the audit log has which
    #[arg(long)]
    allow_privileged: bool,
    /// Do not ask the databases whether the roles can log in, and what they may do
    #[arg(long, conflicts_with = "allow_privileged")]
    no_role_check: bool,
}

/// A tenant file without problems.
struct Checked {
    path: PathBuf,
    candidate: Candidate,
    /// The file of its SQLite database, from their directory on.
    database: Option<String>,
}

/// Tenant files without problems, each to be read once more when it is its turn, so that there are
/// never all secrets in memory.
pub(super) struct TenantFiles {
    paths: Vec<PathBuf>,
    candidates: Vec<Candidate>,
    id_rule: IdRule,
}

impl TenantFiles {
    pub(super) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The tenant of the file at a place.
    pub(super) fn read(&self, at: usize) -> Result<ResolvedTenant, admin::Error> {
        match read_file(&self.paths[at], self.id_rule) {
            Ok(file) if file.tenant.config.id == self.candidates[at].id => Ok(file.tenant),
            _ => Err(admin::Error::TenantFile(self.paths[at].display().to_string())),
        }
    }

    /// Each file with what it names, for a service to read.
    pub(super) fn into_documents(self) -> impl Iterator<Item = Result<Document, String>> + Send {
        let Self { paths, candidates, id_rule } = self;
        paths.into_iter().zip(candidates).map(move |(path, candidate)| {
            let document = RefCell::new(Document::default());
            match read(&path, id_rule, Some(&document)) {
                Ok(file) if file.tenant.config.id == candidate.id => Ok(document.into_inner()),
                _ => Err(admin::Error::TenantFile(path.display().to_string()).to_string()),
            }
        })
    }

    /// What people call the file of a tenant.
    fn names(&self) -> HashMap<String, String> {
        let ids = self.candidates.iter().map(|candidate| candidate.id.to_string());
        ids.zip(self.paths.iter().map(|path| path.display().to_string())).collect()
    }
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let files = find_files(&arguments.paths)?;
    let id_rule = context.settings.id_rule();
    let (tenants, problems) = check_files(&files, id_rule);
    for problem in &problems {
        complain(problem);
    }
    let databases = context.settings.pool_options(context.data_dir()).database.sqlite_root;
    for Checked { path, database, .. } in &tenants {
        let database = database.as_ref().map(|file| databases.join(file));
        if let Some(file) = database.filter(|file| !file.exists()) {
            let (path, file) = (path.display(), file.display());
            complain(&format!("warning: {path}: {file} does not exist yet; put it there"));
        }
    }
    if tenants.is_empty() || (!problems.is_empty() && !arguments.keep_going) {
        let message = match (problems.len(), tenants.is_empty()) {
            (0, _) => "no tenant files there: they are named {tenant_id}.json".to_owned(),
            (count, _) => {
                format!("{count} problem(s) in {} file(s); nothing was imported", files.len())
            }
        };
        return Err(Failure::new(ErrorCode::InvalidArgument, message));
    }
    let (paths, candidates) = tenants.into_iter().map(|it| (it.path, it.candidate)).unzip();
    let files = TenantFiles { paths, candidates, id_rule };
    let names = files.names();
    let import = Import {
        dry_run: arguments.dry_run,
        readmit: arguments.readmit,
        check_roles: !arguments.no_role_check,
        allow_privileged: arguments.allow_privileged,
        skip_privileged: arguments.keep_going,
    };
    let answer = context.workplace()?.import(files, import)?;
    tell(&answer, &names, arguments.allow_privileged);
    let count = |list: &str| answer[list].as_array().map_or(0, Vec::len);
    let privileged = if arguments.allow_privileged { 0 } else { count("privileged") };
    let locked_out = count("locked_out");
    if answer["imported"] == false {
        let message = if locked_out > 0 {
            format!(
                "{locked_out} role(s) cannot log in; nothing was imported (--no-role-check imports \
                 them all the same)"
            )
        } else {
            format!(
                "{privileged} privileged role(s); nothing was imported. Give each tenant a role that \
                 may only do what it has to, or import with --allow-privileged"
            )
        };
        return Err(Failure::new(ErrorCode::Forbidden, message));
    }
    report(context, &answer, arguments.dry_run);
    if !problems.is_empty() || privileged + locked_out > 0 {
        let message = "some files had problems and were left out";
        return Err(Failure::new(ErrorCode::InvalidArgument, message));
    }
    Ok(())
}

/// Says what there is to say of single files.
fn tell(answer: &Value, names: &HashMap<String, String>, is_allowed: bool) {
    let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let name = |it: &Value| {
        let id = cell(it, "tenant_id");
        names.get(&id).cloned().unwrap_or(id)
    };
    for warning in list("warnings") {
        complain(&format!("warning: {}: {}", name(&warning), cell(&warning, "message")));
    }
    if let Some(unknown) = answer["unknown_roles"].as_u64().filter(|unknown| *unknown > 0) {
        complain(&format!("{unknown} role(s) are not known; `tenantry doctor` asks again"));
    }
    for locked_out in list("locked_out") {
        complain(&format!("{}: {}", name(&locked_out), cell(&locked_out, "message")));
    }
    let word = if is_allowed { "warning: " } else { "" };
    for privileged in list("privileged") {
        let (name, findings) = (name(&privileged), cell(&privileged, "findings"));
        complain(&format!("{word}{name}: db_user {findings}"));
    }
}

fn report(context: &Context, answer: &Value, dry_run: bool) {
    let changes = answer["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let id = |change: &Value| change["tenant_id"].as_str().map_or(0, str::len);
    let width = changes.iter().map(id).max().unwrap_or(0).max("tenant".len());
    let row = |tenant: &str, word: &str, fields: &str| {
        format!("{tenant:width$}  {word:9}  {fields}").trim_end().to_owned()
    };
    // Not a table, which would hold all of them.
    let rows = changes.iter().map(|change| {
        let fields = cell(change, "fields").replace(',', ", ");
        row(&cell(change, "tenant_id"), &cell(change, "change"), &fields)
    });
    let heading = row("TENANT", "CHANGE", "FIELDS");
    context.output.lines(changes, std::iter::once(heading).chain(rows));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for change in changes {
        *counts.entry(change["change"].as_str().unwrap_or_default()).or_default() += 1;
    }
    let counts: Vec<String> =
        counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let suffix = if dry_run { " (dry run: nothing was changed)" } else { "" };
    context.output.remark(&format!("\n{}{suffix}", counts.join(", ")));
}

/// The tenant files that `paths` name, each once, in order.
fn find_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable =
            |error: std::io::Error| Failure::io(format!("reading {}", path.display()), &error);
        let mut found = Vec::new();
        for item in std::fs::read_dir(path).map_err(unreadable)? {
            let file = item.map_err(unreadable)?.path();
            let is_json = file.extension().is_some_and(|extension| extension == "json");
            let is_schema = file.file_name().is_some_and(|name| name == SCHEMA_FILE);
            if is_json && !is_schema {
                found.push(file);
            }
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

/// Reads every file, and answers who is in which; what is wrong with any of them comes back as lines
/// for people.
fn check_files(files: &[PathBuf], id_rule: IdRule) -> (Vec<Checked>, Vec<String>) {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files");
    let progress = ProgressBar::new(files.len() as u64);
    if let Ok(style) = style {
        progress.set_style(style);
    }
    let mut problems = Vec::new();
    let mut tenants = Vec::new();
    let mut first_seen: HashMap<TenantId, &Path> = HashMap::new();
    for path in files {
        match read_file(path, id_rule) {
            Ok(file) => {
                if !file.literal_secrets.is_empty() {
                    let fields = file.literal_secrets.join(", ");
                    // Not refused: the secret is out already, and has to be replaced anyway.
                    let others = if is_readable_by_others(path) {
                        ", which others on this machine can read (chmod 600)"
                    } else {
                        ""
                    };
                    let warning = format!(
                        "warning: {}: {fields} stands in the file itself{others}; \
                         better write ${{VARIABLE}}",
                        path.display(),
                    );
                    progress.suspend(|| complain(&warning));
                }
                let id = file.tenant.config.id.clone();
                if let Some(first) = first_seen.get(&id) {
                    let (path, first) = (path.display(), first.display());
                    problems.push(format!("{path}: tenant_id {id} is also in {first}"));
                } else {
                    first_seen.insert(id, path);
                    let candidate = Candidate::from(&file.tenant.config);
                    let database = match &file.tenant.config.connection {
                        Connection::Postgres(_) => None,
                        Connection::Sqlite { path } => Some(path.clone()),
                    };
                    tenants.push(Checked { path: path.clone(), candidate, database });
                }
            }
            Err(found) => {
                problems
                    .extend(found.iter().map(|problem| format!("{}:{problem}", path.display())));
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    (tenants, problems)
}

fn read_file(path: &Path, id_rule: IdRule) -> Result<TenantFile, Vec<Problem>> {
    read(path, id_rule, None)
}

/// Reads a file, and lets a service read what it names from `document`.
fn read(
    path: &Path,
    id_rule: IdRule,
    document: Option<&RefCell<Document>>,
) -> Result<TenantFile, Vec<Problem>> {
    let whole_file =
        |message: String| vec![Problem { field: String::new(), line: 0, column: 0, message }];
    let bytes = read_bounded(path).map_err(whole_file)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let directory = path.parent().unwrap_or(Path::new(""));
    let certificate = |named: &str| {
        let pem = read_bounded(&directory.join(named))?;
        let pem = std::str::from_utf8(&pem).map_err(|_| "not a PEM file".to_owned())?;
        if !pem.contains("-----BEGIN CERTIFICATE-----") {
            return Err("has no certificate".to_owned());
        }
        if let Some(document) = document {
            document.borrow_mut().certificates.insert(named.to_owned(), pem.to_owned());
        }
        Ok(pem.to_owned())
    };
    let lookup = |name: &str| {
        #[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
        let value = std::env::var(name).ok().map(Zeroizing::new)?;
        let value = SecretText::from(value.as_str());
        if let Some(document) = document {
            document.borrow_mut().variables.insert(name.to_owned(), copy(&value));
        }
        Some(value)
    };
    let surroundings = Surroundings { id_rule, lookup: &lookup, certificate: &certificate };
    let file = TenantFile::read(name, &bytes, &surroundings)?;
    if let Some(document) = document {
        document.borrow_mut().text = bytes.to_vec();
    }
    Ok(file)
}

/// The content of a regular file, in one locked buffer of its size.
pub(super) fn read_bounded(path: &Path) -> Result<LockedBytes, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {}", said(error.kind()));
    // Without waiting for the other end of a pipe, which is refused next.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut file = file.map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let length = usize::try_from(metadata.len()).ok().filter(|length| *length <= MAX_FILE);
    let length = length.ok_or_else(|| format!("is larger than {MAX_FILE} bytes"))?;
    let mut bytes = LockedBytes::zeroed(length);
    file.read_exact(&mut bytes).map_err(unreadable)?;
    // Whoever is still writing gets an answer that says so, not half a tenant.
    match file.metadata() {
        Ok(now) if now.len() == metadata.len() => Ok(bytes),
        Ok(_) => Err("is being written".to_owned()),
        Err(error) => Err(unreadable(error)),
    }
}

fn is_readable_by_others(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}
