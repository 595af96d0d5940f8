//! `doctor`: everything that an operator can set right, looked at once.
//!
//! ```text
//! settings, certificate of the endpoint, data directory, limits   looked at here, without a key
//! vault, store, tenants' databases    looked at by the service, or here when none runs
//! ```
//!
//! Changes nothing. Of a service its settings and limits are not seen: it may have been started with
//! others.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::Args;
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use super::output::{cell, flatten, table_of};
use super::place::{Bar, Place};
use super::tenant::parse_id;
use super::{Context, DEFAULT_DATA_DIR, Failure, Opened, descriptors, tell};
use crate::admin::Command;
use crate::clock::{Clock as _, SystemClock};
use crate::config::DEFAULT_FILE;
use crate::error::ErrorCode;
use crate::http;
use crate::memory;
use crate::store::DataDir;

/// Less room on the disk is told.
const LITTLE_SPACE: u64 = 256 << 20;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Look at the database of this tenant only
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
}

/// What needs attention: each with the way out.
#[derive(Default)]
struct Attention(Vec<Value>);

impl Attention {
    fn needs(&mut self, about: &str, finding: &str, way_out: &str) {
        self.0.push(json!({ "about": about, "finding": finding, "way_out": way_out }));
    }
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    if let Some(tenant) = &arguments.tenant {
        parse_id(tenant)?;
    }
    let mut attention = Attention::default();
    let directory = directory(context.data_dir(), &mut attention);
    let inside = inside(context, arguments, &mut attention)?;
    let process = process(context, &mut attention);
    let answer = json!({
        "settings": settings(context),
        "endpoint": endpoint(context, &mut attention),
        "directory": directory,
        "process": process,
        "vault": inside,
        "attention": attention.0,
    });
    context.output.answer(&answer, || describe(&answer, context.common.verbose));
    match answer["attention"].as_array().map_or(0, Vec::len) {
        0 => Ok(()),
        count => {
            let message = format!("{count} thing(s) need attention");
            Err(Failure::new(ErrorCode::NeedsAttention, message))
        }
    }
}

/// Every setting with where it comes from.
fn settings(context: &Context) -> Value {
    let directory = context.data_dir();
    #[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
    let is_of_environment =
        std::env::var("TENANTRY_DATA_DIR").is_ok_and(|value| Path::new(&value) == directory);
    let source = match is_of_environment {
        true => "environment",
        false if directory == Path::new(DEFAULT_DATA_DIR) => "default",
        false => "flag",
    };
    let own = json!({ "name": "--data-dir", "value": directory, "source": source });
    let file = context.common.config.as_deref();
    let source = if file.is_some() { "flag" } else { "default" };
    let config = file.unwrap_or(Path::new(DEFAULT_FILE));
    let config = json!({ "name": "--config", "value": config, "source": source });
    let all = context.settings.explain(file).into_iter().map(|setting| {
        let source = setting.source.to_string();
        json!({ "name": setting.name, "value": setting.value, "source": source })
    });
    [own, config].into_iter().chain(all).collect()
}

/// What the endpoint shows to its clients.
fn endpoint(context: &Context, attention: &mut Attention) -> Value {
    const ABOUT: &str = "http.tls";
    let handle = match http::Handle::new(context.settings.http_options()) {
        Ok(handle) => handle,
        Err(error) => {
            attention.needs(ABOUT, &error.to_string(), "the service does not start like this");
            return Value::Null;
        }
    };
    let expires_at = handle.certificate_expires_at();
    let left = expires_at.map(|end| end.duration_since(SystemClock.now()));
    if let Some(left) =
        left.filter(|left| *left < http::EXPIRES_SOON.try_into().unwrap_or_default())
    {
        let finding = match u64::try_from(left.as_hours() / 24) {
            Ok(days) if left.is_positive() => format!("the certificate expires in {days} day(s)"),
            Ok(_) | Err(_) => "the certificate has expired".to_owned(),
        };
        attention.needs(ABOUT, &finding, "replace its file; a running service takes it up");
    }
    let list = handle.client_crl_due();
    if let Some((due, file)) = list.as_ref().filter(|(due, _)| *due <= SystemClock.now()) {
        let finding = format!("{} was to be replaced at {due}", file.display());
        let way_out = "get a newer list: certificates that were revoked since are served";
        attention.needs(ABOUT, &finding, way_out);
    }
    json!({
        "tls": handle.is_tls(),
        "certificate_expires_at": expires_at,
        "client_crl_due_at": list.map(|(due, _)| due),
    })
}

fn directory(path: &Path, attention: &mut Attention) -> Value {
    const ABOUT: &str = "data directory";
    let mode = path.metadata().map(|metadata| metadata.permissions().mode() & 0o777).ok();
    if let Some(mode) = mode.filter(|mode| mode & 0o077 != 0) {
        let finding = format!("others can enter it: mode {mode:o}");
        attention.needs(ABOUT, &finding, &format!("chmod 700 {}", path.display()));
    }
    let disk = rustix::fs::statvfs(path).ok();
    let free = disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    if let Some(free) = free.filter(|free| *free < LITTLE_SPACE) {
        let finding = format!("{} MiB are free on its disk", free >> 20);
        attention.needs(ABOUT, &finding, "make room: writes are refused before the disk is full");
    }
    let segments = std::fs::read_dir(path.join("audit")).ok().map(|items| {
        let sizes: Vec<u64> =
            items.flatten().flat_map(|it| it.metadata()).map(|it| it.len()).collect();
        json!({ "segments": sizes.len(), "bytes": sizes.iter().sum::<u64>() })
    });
    json!({
        "path": path,
        "mode": mode.map(|mode| format!("{mode:o}")),
        "free_bytes": free,
        "audit_log": segments,
    })
}

/// The limits of this process, which are those of a service that is started in the same way.
fn process(context: &Context, attention: &mut Attention) -> Value {
    let (locked, files) = (getrlimit(Resource::Memlock), getrlimit(Resource::Nofile));
    let memory::Status { unlocked, .. } = memory::status();
    if unlocked > 0 {
        let finding = format!("{unlocked} bytes of secrets may be written to swap");
        attention.needs("limits", &finding, "raise ulimit -l (LimitMEMLOCK=)");
    }
    // A service raises the soft limit itself.
    let needed = descriptors::needed(&context.settings);
    if let Some(most) = files.maximum.filter(|most| *most < needed) {
        let finding = format!("only {most} files may be open, and a service may need {needed}");
        let way_out = "raise ulimit -Hn (LimitNOFILE=), or lower pool.max_sessions";
        attention.needs("limits", &finding, way_out);
    }
    json!({
        "locked_memory_limit_bytes": locked.current,
        "unlocked_bytes": unlocked,
        "open_files_limit": files.maximum,
    })
}

/// What only the vault knows; nothing where it does not open.
fn inside(
    context: &Context,
    arguments: &Arguments,
    attention: &mut Attention,
) -> Result<Value, Failure> {
    let doctor = Command::Doctor { tenant: arguments.tenant.clone() };
    let (is_served, asked) = match context.place() {
        Ok(Place::Service) => (true, context.operate(&doctor, &[])),
        Ok(Place::Here(directory)) => (false, ask_here(context, directory, &doctor)),
        Err(failure) => (false, Err(failure)),
    };
    let answer = match asked {
        Ok(answer) => answer,
        // No such tenant, or a wrong key: what was asked for was not looked at.
        Err(failure) if is_of_the_question(failure.code()) => return Err(failure),
        Err(failure) => {
            attention.needs("vault", &failure.to_string(), "`tenantry fsck` may say more");
            return Ok(Value::Null);
        }
    };
    if is_served && answer["sealed"] == true {
        attention.needs("vault", "the service is sealed: nobody is served", "`tenantry unseal`");
    }
    let store = &answer["store"];
    if !store["read_only"].is_null() && store["read_only"] != false {
        let finding = "the store takes no writes";
        attention.needs("store", finding, "start the service anew; `tenantry fsck` says more");
    }
    if store["full"] == true {
        attention.needs("store", "the disk is nearly full: writes are refused", "make room");
    }
    let damaged = |count: &Value| count.as_u64().filter(|count| *count > 0);
    if let Some(count) = damaged(&answer["tenants"]["damaged"]) {
        attention.needs("vault", &format!("{count} damaged tenant(s)"), "see `tenantry fsck`");
    }
    if let Some(count) = damaged(&answer["damaged_tokens"]) {
        let way_out = "`tenantry token list`, `token revoke`";
        attention.needs("vault", &format!("{count} damaged token(s)"), way_out);
    }
    if let Some(count) = damaged(&answer["scrub"]["findings"]) {
        let finding = format!("the daily check found {count} thing(s)");
        attention.needs("store", &finding, "see `tenantry fsck`");
    }
    if let Some(message) = answer["backups"]["schedule"]["failure"]["message"].as_str() {
        attention.needs("backups", message, "see `tenantry status`");
    }
    for tenant in answer["databases"].as_array().into_iter().flatten() {
        if tenant["needs_attention"] == true {
            let (finding, way_out) = finding(tenant);
            attention.needs(&cell(tenant, "tenant_id"), &finding, way_out);
        }
    }
    Ok(answer)
}

/// Without a key the vault stays closed, and there is still something to say.
fn ask_here(context: &Context, directory: DataDir, doctor: &Command) -> Result<Value, Failure> {
    let databases = context.settings.pool_options(context.data_dir()).database;
    let admin = Opened::sealed(directory, &context.settings)?.admin().with_databases(databases);
    let bar = Bar::default();
    let mut show = |progress| {
        bar.show(progress);
        true
    };
    let Ok(key) = context.key() else {
        return Ok(admin.execute(&Command::Status, &[], &mut show)?);
    };
    tell(admin.unseal(&key.unlock()?)?.as_ref());
    Ok(admin.execute(doctor, &[], &mut show)?)
}

/// Whether an error is about what was asked for, and not about what there is.
fn is_of_the_question(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::InvalidTenant
            | ErrorCode::QuotaExceeded
            | ErrorCode::TenantNotConfigured
            | ErrorCode::VaultSealed
    )
}

fn finding(tenant: &Value) -> (String, &'static str) {
    if let Some(error) = tenant["error"].as_str() {
        return (error.to_owned(), "`tenantry tenant show` says where it is looked for");
    }
    let way_out = "give it a role that may only do what it has to";
    (format!("db_user {}", role_findings(tenant)), way_out)
}

fn role_findings(tenant: &Value) -> String {
    let findings = tenant["role_findings"].as_array().into_iter().flatten();
    let texts: Vec<_> = findings.filter_map(|it| it["finding"].as_str()).collect();
    texts.join(", ")
}

/// Findings first; of the settings those that somebody set, or all of them.
fn describe(answer: &Value, is_verbose: bool) -> String {
    let rows = |list: &Value, row: &dyn Fn(&Value) -> Vec<String>| -> Vec<Vec<String>> {
        list.as_array().into_iter().flatten().map(row).collect()
    };
    let row =
        |names: [&'static str; 3]| move |it: &Value| names.map(|name| cell(it, name)).to_vec();
    let attention = rows(&answer["attention"], &row(["about", "finding", "way_out"]));
    let attention = if attention.is_empty() {
        "nothing needs attention".to_owned()
    } else {
        table_of(&["needs attention", "finding", "way out"], attention)
    };
    let mut settings = rows(&answer["settings"], &row(["name", "value", "source"]));
    settings.retain(|cells| is_verbose || cells.last().is_none_or(|source| source != "default"));
    let settings = if settings.is_empty() {
        "every setting is at its default; --verbose shows them".to_owned()
    } else {
        table_of(&["setting", "value", "from"], settings)
    };
    let general = json!({
        "endpoint": answer["endpoint"],
        "directory": answer["directory"],
        "process": answer["process"],
        "service": answer["vault"]["service"],
        "sealed": answer["vault"]["sealed"],
        "tenants": answer["vault"]["tenants"],
        "store": answer["vault"]["store"],
    });
    let mut text = format!("{attention}\n\n{settings}\n\n{}", flatten(&general));
    if answer["vault"]["databases"].is_array() {
        let databases = rows(&answer["vault"]["databases"], &|it| {
            let is_there = match it["reachable"].as_bool() {
                Some(true) => "reachable".to_owned(),
                Some(false) | None => cell(it, "error"),
            };
            let names = ["tenant_id", "version", "tls"].map(|name| cell(it, name));
            let [tenant, version, tls] = names;
            vec![tenant, is_there, version, tls, role_findings(it)]
        });
        let headings = ["tenant", "database", "version", "tls", "role"];
        text = format!("{text}\n\n{}", table_of(&headings, databases));
    } else {
        text.push_str("\n\nno database was asked: the vault is sealed, or no key was given");
    }
    text
}
