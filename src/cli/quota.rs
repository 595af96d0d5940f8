//! `quota show | set | reset`

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::Value;

use super::output::{cell, moment, table_of};
use super::tenant::parse_id;
use super::{Context, Failure};
use crate::admin;
use crate::tenant::Quotas;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what a tenant may use, and what it has used
    Show {
        /// The tenant
        id: String,
    },
    /// Change what a tenant may use, from its next call on
    ///
    /// An import of the tenant's file sets it to what stands there.
    Set {
        /// The tenant
        id: String,
        /// A quota as in the tenant file, and its limit: none is unlimited, 0 lets nothing pass
        #[arg(required = true, value_name = "QUOTA=LIMIT")]
        limits: Vec<String>,
    },
    /// Forget what a tenant has used, also if it is damaged
    Reset {
        /// The tenant
        id: String,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Show { id } => {
            let tenant = parse_id(&id)?.to_string();
            let answer = context.operate(&admin::Command::QuotaShow { tenant }, &[])?;
            context.output.answer(&answer, || shown(&answer));
        }
        Command::Set { id, limits } => {
            let tenant = parse_id(&id)?.to_string();
            let quotas = parse_limits(&limits)?;
            let answer = context.operate(&admin::Command::QuotaSet { tenant, quotas }, &[])?;
            context.output.answer(&answer, || {
                let quotas = answer["quotas"].as_object().into_iter().flatten();
                let cells = quotas.map(|(name, limit)| vec![name.clone(), limit_of(limit)]);
                table_of(&["quota", "limit"], cells.collect())
            });
        }
        Command::Reset { id } => {
            let tenant = parse_id(&id)?.to_string();
            let answer = context.operate(&admin::Command::QuotaReset { tenant }, &[])?;
            context.output.answer(&answer, || format!("what {id} had used is forgotten"));
        }
    }
    Ok(())
}

/// `max_queries_per_hour=1000`, `max_queries_per_day=none`: before a passphrase is asked for.
fn parse_limits(limits: &[String]) -> Result<BTreeMap<String, Option<u64>>, Failure> {
    let mut parsed = BTreeMap::new();
    for text in limits {
        let (name, limit) = text.split_once('=').unwrap_or((text, ""));
        let limit = match limit {
            "none" => Some(None),
            limit => limit.parse().ok().map(Some),
        };
        let limit = limit.filter(|limit| Quotas::default().set(name, *limit)).ok_or_else(|| {
            let names = Quotas::default().named().map(|(name, _)| name).join(", ");
            Failure::usage(format!("{text}: write QUOTA=LIMIT, a whole number or none, of {names}"))
        })?;
        if parsed.insert(name.to_owned(), limit).is_some() {
            return Err(Failure::usage(format!("{name} is given twice")));
        }
    }
    Ok(parsed)
}

fn shown(answer: &Value) -> String {
    let quotas = answer["quotas"].as_object().into_iter().flatten();
    let cells = quotas.map(|(name, usage)| {
        let mut cells = vec![name.clone(), limit_of(&usage["limit"])];
        cells.extend(["used", "remaining"].map(|name| cell(usage, name)));
        cells.push(moment(usage, "resets_at"));
        cells
    });
    let mut text =
        table_of(&["quota", "limit", "used", "remaining", "next freed"], cells.collect());
    let denied = answer["denied"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !denied.is_empty() {
        let cells = denied.iter().map(|denied| {
            let caller = denied["caller"].as_str().unwrap_or("all others").to_owned();
            vec![caller, cell(denied, "denied")]
        });
        text.push_str("\n\n");
        text.push_str(&table_of(&["refused caller", "times in 60 minutes"], cells.collect()));
    }
    text
}

fn limit_of(limit: &Value) -> String {
    if limit.is_null() { "none".to_owned() } else { limit.to_string() }
}
