//! `audit list`

use clap::{Args, Subcommand};
use jiff::ToSpan;

use super::failure::said;
use super::output::{complain, line, table_of};
use super::tenant::parse_id;
use super::token::parse_seconds;
use super::{Context, Failure};
use crate::audit::{self, Entry, Filter};
use crate::clock::{Clock, SystemClock};
use crate::error::ErrorCode;

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
        let moment = SystemClock.now().checked_sub(parse_seconds(text)?.seconds());
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

/// Prints entries as a table, or as one JSON object a line.
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
    let cells = entries.iter().map(|entry| {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let rule = entry.rule.as_ref().map(|rule| format!(" ({rule})")).unwrap_or_default();
        vec![
            entry.seq.to_string(),
            entry.time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            entry.actor.to_string(),
            or_dash(&entry.tenant),
            entry.action.clone(),
            entry.decision.as_str().to_owned(),
            format!("{}{rule}", or_dash(&entry.code)),
            entry.request_id.to_string(),
            or_dash(&entry.resource),
        ]
    });
    let headings =
        ["seq", "time", "actor", "tenant", "action", "decision", "code", "request", "resource"];
    line(&table_of(&headings, cells.collect()));
}
