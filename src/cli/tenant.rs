//! `tenant import | list | show | enable | disable | remove`

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::failure::said;
use super::key::Key;
use super::output::{cell, complain, flatten, moment};
use super::roles::{self, Privileged};
use super::vault::confirm_removal;
use super::{Context, Failure};
use crate::admin::{self, Admin};
use crate::error::ErrorCode;
use crate::memory::{LockedBytes, SecretText};
use crate::tenant::{
    Connection, IdRule, Problem, ResolvedTenant, Surroundings, TenantFile, TenantId,
};
use crate::vault::{Change, ChangeKind};

/// Largest tenant file and certificate file that is read, in bytes.
const MAX_FILE: usize = 1 << 20;
/// Describes tenant files to editors; lies beside them and is none.
const SCHEMA_FILE: &str = "schema.json";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Import tenant files, or directories of them: all or none
    Import(ImportArguments),
    /// List tenants
    List,
    /// Show a tenant, without its secrets
    Show {
        /// The tenant
        id: String,
    },
    /// Let a disabled tenant be served again
    Enable {
        /// The tenant
        id: String,
    },
    /// Stop serving a tenant
    Disable {
        /// The tenant
        id: String,
    },
    /// Destroy tenants' keys, for good
    Remove {
        /// The tenants
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct ImportArguments {
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
    /// Do not ask the databases what the roles may do
    #[arg(long, conflicts_with = "allow_privileged")]
    no_role_check: bool,
}

/// A tenant of a file without problems.
struct Checked<'a> {
    path: &'a Path,
    id: TenantId,
    /// Whether its database is behind a role.
    has_role: bool,
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Import(arguments) => import(context, &arguments),
        Command::List => list(context),
        Command::Show { id } => show(context, &id),
        Command::Enable { id } => set_enabled(context, &id, true),
        Command::Disable { id } => set_enabled(context, &id, false),
        Command::Remove { ids, yes } => remove(context, ids, yes),
    }
}

/// A tenant id of the command line. Which ids exist, the vault knows.
pub(super) fn parse_id(text: &str) -> Result<TenantId, Failure> {
    TenantId::parse(text, IdRule::AllowUnderscore)
        .map_err(|invalid| Failure::new(ErrorCode::InvalidTenant, invalid.to_string()))
}

fn import(context: &Context, arguments: &ImportArguments) -> Result<(), Failure> {
    let files = find_files(&arguments.paths)?;
    let id_rule = context.settings.id_rule();
    let (tenants, problems) = check_files(&files, id_rule);
    for problem in &problems {
        complain(problem);
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
    let mut skipped = !problems.is_empty();
    let mut tenants = tenants;
    let admin = context.admin()?;
    if !arguments.no_role_check {
        let privileged = privileged_roles(context, &admin, &tenants, arguments)?;
        for Privileged { at, findings } in &privileged {
            let path = tenants[*at].path.display();
            let word = if arguments.allow_privileged { "warning: " } else { "" };
            complain(&format!("{word}{path}: db_user {findings}"));
        }
        if arguments.allow_privileged {
            for Privileged { at, findings } in privileged.iter().filter(|_| !arguments.dry_run) {
                admin.allow_privileged(&tenants[*at].id, findings)?;
            }
        } else if !privileged.is_empty() {
            let refused: HashSet<usize> = privileged.iter().map(|it| it.at).collect();
            let mut at = 0..;
            tenants.retain(|_| !at.next().is_some_and(|at| refused.contains(&at)));
            if tenants.is_empty() || !arguments.keep_going {
                let message = format!(
                    "{} privileged role(s); nothing was imported. Give each tenant a role that may \
                     only do what it has to, or import with --allow-privileged",
                    refused.len()
                );
                return Err(Failure::new(ErrorCode::Forbidden, message));
            }
            skipped = true;
        }
    }
    let ids: Vec<TenantId> = tenants.iter().map(|tenant| tenant.id.clone()).collect();
    if arguments.readmit {
        admin.readmit(&ids)?;
    }
    let read = |at: usize| read_again(&tenants[at], id_rule);
    let changes = if arguments.dry_run {
        admin.plan_import(&ids, read)?
    } else {
        admin.import(&ids, read)?
    };
    report(context, &changes, arguments.dry_run);
    if skipped {
        let message = "some files had problems and were left out";
        return Err(Failure::new(ErrorCode::InvalidArgument, message));
    }
    Ok(())
}

/// Reads a file once more, so that there are never all secrets in memory.
fn read_again(tenant: &Checked<'_>, id_rule: IdRule) -> Result<ResolvedTenant, admin::Error> {
    match read_file(tenant.path, id_rule) {
        Ok(file) if file.tenant.config.id == tenant.id => Ok(file.tenant),
        _ => Err(admin::Error::TenantFile(tenant.path.display().to_string())),
    }
}

/// Who of `tenants` is new, or has another connection, and a privileged role.
fn privileged_roles(
    context: &Context,
    admin: &Admin,
    tenants: &[Checked<'_>],
    arguments: &ImportArguments,
) -> Result<Vec<Privileged>, Failure> {
    let id_rule = context.settings.id_rule();
    let mut places: Vec<usize> = (0..tenants.len()).filter(|at| tenants[*at].has_role).collect();
    // One that was removed has nothing to be compared with, until it is let in.
    if !places.is_empty() && !arguments.readmit {
        let ids: Vec<TenantId> = places.iter().map(|at| tenants[*at].id.clone()).collect();
        let read = |of_ids: usize| read_again(&tenants[places[of_ids]], id_rule);
        // The import fails in the same way, and the audit log has it then.
        let Ok(changes) = admin.plan_import(&ids, read) else { return Ok(Vec::new()) };
        let mut changes = changes.iter();
        places.retain(|_| changes.next().is_some_and(|change| changes_connection(&change.kind)));
    }
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let read = |at: usize| read_again(&tenants[at], id_rule);
    roles::privileged(context, &places, read, |at| tenants[at].path.display().to_string())
}

fn changes_connection(kind: &ChangeKind) -> bool {
    match kind {
        ChangeKind::Added => true,
        ChangeKind::Unchanged => false,
        // A damaged configuration is replaced as a whole.
        ChangeKind::Changed { fields } => {
            fields.iter().any(|field| field.starts_with("db_") || field == "config")
        }
    }
}

fn report(context: &Context, changes: &[Change], dry_run: bool) {
    let word = |kind: &ChangeKind| match kind {
        ChangeKind::Added => "added",
        ChangeKind::Changed { .. } => "changed",
        ChangeKind::Unchanged => "unchanged",
    };
    let fields = |kind: &ChangeKind| match kind {
        ChangeKind::Changed { fields } => fields.clone(),
        ChangeKind::Added | ChangeKind::Unchanged => Vec::new(),
    };
    let values = changes.iter().map(|change| {
        json!({
            "tenant_id": change.tenant.as_str(),
            "change": word(&change.kind),
            "fields": fields(&change.kind),
        })
    });
    let longest = changes.iter().map(|change| change.tenant.as_str().len()).max();
    let width = longest.unwrap_or(0).max("tenant".len());
    let row = |tenant: &str, word: &str, fields: &str| {
        format!("{tenant:width$}  {word:9}  {fields}").trim_end().to_owned()
    };
    // Not a table, which would hold all of them.
    let rows = changes.iter().map(|change| {
        row(change.tenant.as_str(), word(&change.kind), &fields(&change.kind).join(", "))
    });
    let heading = row("TENANT", "CHANGE", "FIELDS");
    context.output.lines(values, std::iter::once(heading).chain(rows));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for change in changes {
        *counts.entry(word(&change.kind)).or_default() += 1;
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
fn check_files(files: &[PathBuf], id_rule: IdRule) -> (Vec<Checked<'_>>, Vec<String>) {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files");
    let progress = ProgressBar::new(files.len() as u64);
    if let Ok(style) = style {
        progress.set_style(style);
    }
    let mut problems = Vec::new();
    let mut tenants: Vec<Checked<'_>> = Vec::new();
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
                    first_seen.insert(id.clone(), path);
                    let connection = &file.tenant.config.connection;
                    let has_role = matches!(connection, Connection::Postgres(_));
                    tenants.push(Checked { path, id, has_role });
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
    let whole_file =
        |message: String| vec![Problem { field: String::new(), line: 0, column: 0, message }];
    let bytes = read_bounded(path).map_err(whole_file)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let directory = path.parent().unwrap_or(Path::new(""));
    let certificate = |named: &str| {
        let pem = read_bounded(&directory.join(named))?;
        let pem = std::str::from_utf8(&pem).map_err(|_| "not a PEM file".to_owned())?;
        if pem.contains("-----BEGIN CERTIFICATE-----") {
            Ok(pem.to_owned())
        } else {
            Err("has no certificate".to_owned())
        }
    };
    let lookup = |name: &str| {
        #[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
        std::env::var(name).ok().map(Zeroizing::new).map(|value| SecretText::from(value.as_str()))
    };
    let surroundings = Surroundings { id_rule, lookup: &lookup, certificate: &certificate };
    TenantFile::read(name, &bytes, &surroundings)
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

fn list(context: &Context) -> Result<(), Failure> {
    let answer = context.operate(&admin::Command::TenantList, &[])?;
    let tenants = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    let cells = tenants.iter().map(|tenant| {
        let state = match (&tenant["sealed"], &tenant["enabled"]) {
            _ if tenant["damaged"] == true => "damaged",
            (Value::Bool(true), _) => "sealed",
            (_, Value::Bool(true)) => "enabled",
            _ => "disabled",
        };
        let (id, engine) = (cell(tenant, "tenant_id"), cell(tenant, "engine"));
        vec![id, engine, state.to_owned(), moment(tenant, "updated_at")]
    });
    context.output.rows(&["tenant", "engine", "state", "updated"], tenants, cells);
    Ok(())
}

fn show(context: &Context, id: &str) -> Result<(), Failure> {
    let tenant = parse_id(id)?.to_string();
    let answer = context.operate(&admin::Command::TenantShow { tenant }, &[])?;
    context.output.answer(&answer, || flatten(&answer));
    Ok(())
}

fn set_enabled(context: &Context, id: &str, enabled: bool) -> Result<(), Failure> {
    let tenant = parse_id(id)?.to_string();
    let (command, word) = if enabled {
        (admin::Command::TenantEnable { tenant }, "enabled")
    } else {
        (admin::Command::TenantDisable { tenant }, "disabled")
    };
    let answer = context.operate(&command, &[])?;
    context.output.answer(&answer, || format!("{id} is {word}"));
    Ok(())
}

fn remove(context: &Context, ids: Vec<String>, is_confirmed: bool) -> Result<(), Failure> {
    for id in &ids {
        parse_id(id)?;
    }
    if !is_confirmed {
        confirm_removal(&ids)?;
    }
    let Key { proof, secrets } = context.proof()?;
    let command = admin::Command::TenantRemove { proof, tenants: ids };
    let answer = context.operate(&command, &secrets)?;
    context.output.answer(&answer, || {
        let certificates = answer["certificates"].as_array().into_iter().flatten();
        let certificates: Vec<&str> = certificates.filter_map(Value::as_str).collect();
        format!("{}\n\nremoved: {}", certificates.join("\n"), cell(&answer, "removed"))
    });
    Ok(())
}
