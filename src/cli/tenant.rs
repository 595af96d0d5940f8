//! `tenant import | list | show | enable | disable`

use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::failure::said;
use super::output::complain;
use super::{Context, Failure};
use crate::error::ErrorCode;
use crate::tenant::{
    Connection, IdRule, Problem, ResolvedTenant, Surroundings, TenantFile, TenantId,
};
use crate::vault::{Change, ChangeKind, StoredTenant};

/// Largest tenant file and certificate file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
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
}

#[derive(Args, Debug)]
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
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Import(arguments) => import(context, &arguments),
        Command::List => list(context),
        Command::Show { id } => show(context, &id),
        Command::Enable { id } => set_enabled(context, &id, true),
        Command::Disable { id } => set_enabled(context, &id, false),
    }
}

/// A tenant id of the command line. Which ids exist, the vault knows.
pub(super) fn parse_id(text: &str) -> Result<TenantId, Failure> {
    TenantId::parse(text, IdRule::AllowUnderscore)
        .map_err(|invalid| Failure::new(ErrorCode::InvalidTenant, invalid.to_string()))
}

fn import(context: &Context, arguments: &ImportArguments) -> Result<(), Failure> {
    let files = find_files(&arguments.paths)?;
    let (tenants, problems) = read_files(&files, context.settings.id_rule());
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
    let skipped = !problems.is_empty();
    let admin = context.admin()?;
    let changes =
        if arguments.dry_run { admin.plan_import(&tenants)? } else { admin.import(tenants)? };
    report(context, &changes, arguments.dry_run);
    if skipped {
        let message = "some files had problems and were left out";
        return Err(Failure::new(ErrorCode::InvalidArgument, message));
    }
    Ok(())
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
    let values: Vec<Value> = values.collect();
    let cells = changes.iter().map(|change| {
        let fields = fields(&change.kind).join(", ");
        vec![change.tenant.to_string(), word(&change.kind).to_owned(), fields]
    });
    context.output.rows(&["tenant", "change", "fields"], &values, cells.collect());
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

/// Reads every file; what is wrong with any of them comes back as lines for people.
fn read_files(files: &[PathBuf], id_rule: IdRule) -> (Vec<ResolvedTenant>, Vec<String>) {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files");
    let progress = ProgressBar::new(files.len() as u64);
    if let Ok(style) = style {
        progress.set_style(style);
    }
    let mut problems = Vec::new();
    let mut tenants: Vec<ResolvedTenant> = Vec::new();
    let mut first_seen: HashMap<TenantId, &Path> = HashMap::new();
    for path in files {
        match read_file(path, id_rule) {
            Ok(file) => {
                if !file.literal_secrets.is_empty() {
                    let fields = file.literal_secrets.join(", ");
                    let warning = format!(
                        "warning: {}: {fields} stands in the file itself; better write ${{VARIABLE}}",
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
                    tenants.push(file.tenant);
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
        let pem = String::from_utf8(pem.to_vec()).map_err(|_| "not a PEM file".to_owned())?;
        if pem.contains("-----BEGIN CERTIFICATE-----") {
            Ok(pem)
        } else {
            Err("has no certificate".to_owned())
        }
    };
    let lookup = |name: &str| {
        #[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
        std::env::var(name).ok().map(Zeroizing::new)
    };
    let surroundings = Surroundings { id_rule, lookup: &lookup, certificate: &certificate };
    TenantFile::read(name, &bytes, &surroundings)
}

fn read_bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {}", said(error.kind()));
    // Without waiting for the other end of a pipe, which is refused next.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    // One buffer that does not grow, or copies of its beginning would stay behind.
    let capacity = usize::try_from(metadata.len().min(MAX_FILE)).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("is larger than {MAX_FILE} bytes"));
    }
    Ok(bytes)
}

fn list(context: &Context) -> Result<(), Failure> {
    let tenants = context.admin()?.tenants()?;
    let state = |enabled| if enabled { "enabled" } else { "disabled" };
    let values = tenants.iter().map(|tenant| {
        json!({
            "tenant_id": tenant.id.as_str(),
            "engine": tenant.engine,
            "enabled": tenant.enabled,
            "updated_at": tenant.updated_at.to_string(),
        })
    });
    let values: Vec<Value> = values.collect();
    let cells = tenants.iter().map(|tenant| {
        vec![
            tenant.id.to_string(),
            tenant.engine.to_owned(),
            state(tenant.enabled).to_owned(),
            tenant.updated_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        ]
    });
    context.output.rows(&["tenant", "engine", "state", "updated"], &values, cells.collect());
    Ok(())
}

fn show(context: &Context, id: &str) -> Result<(), Failure> {
    let tenant = context.admin()?.tenant(&parse_id(id)?)?;
    let value = describe(&tenant);
    context.output.answer(&value, || {
        let mut lines = Vec::new();
        flatten("", &value, &mut lines);
        let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let line = |(name, value): &(String, String)| format!("{name:width$}  {value}");
        lines.iter().map(line).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

/// A tenant without its secrets: of each, that it is set, since when, and its fingerprint.
fn describe(tenant: &StoredTenant) -> Value {
    let config = &tenant.config;
    let connection = match &config.connection {
        Connection::Postgres(target) => json!({
            "host": target.host,
            "port": target.port,
            "name": target.database,
            "user": target.user,
            "schema": target.schema,
            "sslmode": target.tls.as_str(),
            "own_root_certificates": target.root_certificates.is_some(),
        }),
        Connection::Sqlite { path } => json!({ "path": path }),
    };
    let names = |tables: &Vec<_>| tables.iter().map(ToString::to_string).collect::<Vec<_>>();
    let credentials: serde_json::Map<String, Value> = tenant
        .credentials
        .iter()
        .map(|credential| {
            let set_at = credential.set_at.to_string();
            let value = json!({ "set_at": set_at, "fingerprint": credential.fingerprint });
            (credential.name.clone(), value)
        })
        .collect();
    json!({
        "tenant_id": config.id.as_str(),
        "enabled": tenant.enabled,
        "version": tenant.version,
        "created_at": tenant.created_at.to_string(),
        "updated_at": tenant.updated_at.to_string(),
        "engine": config.connection.engine(),
        "db": connection,
        "credentials": credentials,
        "access": {
            "mode": config.access.mode.as_str(),
            "tables": config.access.tables.as_ref().map(names),
            "deny_columns": config.access.deny_columns.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
        "quotas": {
            "max_queries_per_hour": config.quotas.max_queries_per_hour,
            "max_queries_per_day": config.quotas.max_queries_per_day,
            "max_concurrent_connections": config.quotas.max_concurrent_connections,
        },
        "limits": {
            "statement_timeout_ms": config.limits.statement_timeout_ms(),
            "max_rows": config.limits.max_rows,
            "max_result_bytes": config.limits.max_result_bytes,
        },
        "features": config.features,
    })
}

/// Names such as `db.host` and their values, one line each.
fn flatten(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, lines);
            }
        }
        Value::Null => lines.push((path.to_owned(), "-".to_owned())),
        Value::String(text) => lines.push((path.to_owned(), text.clone())),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().filter_map(Value::as_str).collect();
            let text = if items.is_empty() { "-".to_owned() } else { items.join(", ") };
            lines.push((path.to_owned(), text));
        }
        Value::Bool(_) | Value::Number(_) => lines.push((path.to_owned(), value.to_string())),
    }
}

fn set_enabled(context: &Context, id: &str, enabled: bool) -> Result<(), Failure> {
    let id = parse_id(id)?;
    context.admin()?.set_enabled(&id, enabled)?;
    let word = if enabled { "enabled" } else { "disabled" };
    let value = json!({ "tenant_id": id.as_str(), "enabled": enabled });
    context.output.answer(&value, || format!("{id} is {word}"));
    Ok(())
}
