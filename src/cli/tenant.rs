//! `tenant import | list | show | enable | disable | remove`

use clap::Subcommand;
use serde_json::Value;

use super::key::Key;
use super::output::{cell, flatten, moment};
use super::vault::confirm_removal;
use super::{Context, Failure, import};
use crate::admin;
use crate::error::ErrorCode;
use crate::tenant::{IdRule, TenantId};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Import tenant files, or directories of them: all or none
    Import(import::Arguments),
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

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Import(arguments) => import::run(context, &arguments),
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

fn list(context: &Context) -> Result<(), Failure> {
    let page = |cursor, limit| admin::Command::TenantList { cursor, limit };
    let mut tenants = context.list("tenants", page)?;
    tenants.sort_by_cached_key(|tenant| cell(tenant, "tenant_id"));
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
    context.output.rows(&["tenant", "engine", "state", "updated"], &tenants, cells);
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
        let removed = answer["removed"].as_array().into_iter().flatten().map(|it| {
            let left = it["database"].as_str().map(|database| {
                format!("\nits database {database} is still there: delete it yourself")
            });
            let (tenant, file) = (cell(it, "tenant_id"), cell(it, "file"));
            format!("removed {tenant}: certificate {file}{}", left.unwrap_or_default())
        });
        removed.collect::<Vec<_>>().join("\n")
    });
    Ok(())
}
