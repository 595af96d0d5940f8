//! `audit list`

use std::collections::HashSet;

use clap::{Args, Subcommand};
use jiff::ToSpan;

use super::failure::said;
use super::output::{complain, line, table_of};
use super::tenant::parse_id;
use super::token::parse_seconds;
use super::{Context, Failure};
use crate::audit::{self, Decision, Entry, Filter};
use crate::clock::{Clock, SystemClock};
use crate::error::ErrorCode;
use crate::store::DataDir;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List entries, oldest first; also while the service runs
    List(ListArguments),
}

#[derive(Args, Debug)]
pub(super) struct ListArguments {
    /// Only with this code, such as FORBIDDEN
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Only by this tenant, or aimed at it
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Only the last so long, such as 24h or 7d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only the last so many
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    let Command::List(arguments) = command;
    let code = arguments.code.as_deref().map(|text| {
        let unknown = || Failure::usage("--code is an error code such as FORBIDDEN");
        ErrorCode::parse(&text.to_ascii_uppercase()).ok_or_else(unknown)
    });
    let since = arguments.since.as_deref().map(|text| {
        let moment = SystemClock.now().checked_sub(parse_seconds("--since", text)?.seconds());
        moment.map_err(|_| Failure::usage("--since is too long ago"))
    });
    let filter = Filter {
        code: code.transpose()?,
        tenant: arguments.tenant.as_deref().map(parse_id).transpose()?,
        since: since.transpose()?,
        after: 0,
    };
    let directory = context.data_dir().join("audit");
    if let Err(error) = directory.metadata() {
        // Nothing was recorded yet.
        if context.data_dir().join(DataDir::HEADER).exists() {
            show(context, &[]);
            return Ok(());
        }
        let place = directory.display();
        let message = format!("{place}: {}; is this the right --data-dir?", said(error.kind()));
        return Err(Failure::usage(message));
    }
    let mut entries = Vec::new();
    for entry in audit::read(&directory, filter)? {
        entries.push(entry?);
    }
    let skip = arguments.last.map_or(0, |last| entries.len().saturating_sub(last));
    show(context, &entries[skip..]);
    Ok(())
}

/// Prints entries as a table, or as one JSON object a line. The table has request ids, and what was
/// begun and then concluded, only with `--verbose`.
pub(super) fn show(context: &Context, entries: &[Entry]) {
    if context.common.json {
        for entry in entries {
            match serde_json::to_string(entry) {
                Ok(text) => line(&text),
                Err(_) => complain("an entry could not be written as JSON"),
            }
        }
        return;
    }
    let is_verbose = context.common.verbose;
    let is_begun = |entry: &Entry| matches!(entry.decision, Decision::Begun);
    let concluded: HashSet<String> =
        entries.iter().filter(|it| !is_begun(it)).map(|it| it.request_id.to_string()).collect();
    // What was concluded says by that that it was begun.
    let shown = entries.iter().filter(|it| {
        is_verbose || !is_begun(it) || !concluded.contains(&it.request_id.to_string())
    });
    let cells = shown.map(|entry| {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let code = entry.code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
        let rule = entry.rule.as_ref().map(|rule| format!(" ({rule})")).unwrap_or_default();
        let mut cells = vec![
            entry.seq.to_string(),
            entry.time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            entry.actor.to_string(),
            or_dash(&entry.tenant),
            entry.action.clone(),
            format!("{}{code}{rule}", entry.decision.as_str()),
            or_dash(&entry.resource),
        ];
        if is_verbose {
            cells.push(entry.request_id.to_string());
        }
        cells
    });
    let headings = ["seq", "time", "actor", "tenant", "action", "decision", "resource", "request"];
    let headings = if is_verbose { &headings[..] } else { &headings[..7] };
    line(&table_of(headings, cells.collect()));
}
