//! `token create | list | revoke`

use clap::Subcommand;
use jiff::{Timestamp, ToSpan};
use serde_json::Value;

use super::output::{cell, moment, moment_or_never};
use super::tenant::parse_id;
use super::{Context, Failure};
use crate::admin;
use crate::clock::{Clock, SystemClock};
use crate::tenant::{Permission, Permissions};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token for one tenant; it is shown once
    Create {
        /// The tenant
        #[arg(long, value_name = "ID")]
        tenant: String,
        /// What it allows: list, query, metadata, write (default: all but write)
        #[arg(long, value_name = "SCOPE", value_delimiter = ',')]
        scope: Vec<String>,
        /// How long it works, such as 90d or 12h (default: until it is revoked)
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List tokens, without their secrets, and when each was last used (within a minute)
    List,
    /// Make a token worthless, at once
    Revoke {
        /// The public id, such as `tok_0123456789ab`
        token_id: String,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { tenant, scope, expires } => {
            let tenant = parse_id(&tenant)?;
            permissions(&scope)?;
            let expires_at = expires.map(|text| from_now(&text)).transpose()?;
            let command = admin::Command::TokenCreate {
                tenant: tenant.to_string(),
                scopes: Some(scope).filter(|scope| !scope.is_empty()),
                expires_at,
            };
            let answer = context.operate(&command, &[])?;
            context.output.answer(&answer, || cell(&answer, "token"));
            let (id, scopes) = (cell(&answer, "token_id"), cell(&answer, "scopes"));
            let what = format!("{id} for {tenant}, scopes {}", scopes.replace(',', ", "));
            context.output.note(&format!("{what}, {}", shown_once(&answer)));
        }
        Command::List => {
            let page = |cursor, limit| admin::Command::TokenList { cursor, limit };
            let mut tokens = context.list("tokens", page)?;
            // Oldest first; those that are damaged, of which nothing is known, last.
            tokens.sort_by_cached_key(|token| {
                let created_at = token["created_at"].as_str().and_then(|at| at.parse().ok());
                (created_at.unwrap_or(Timestamp::MAX), cell(token, "token_id"))
            });
            let cells = tokens.iter().map(|token| {
                let [expires, used] = if token["damaged"] == true {
                    ["damaged: revoke it".to_owned(), String::new()]
                } else {
                    ["expires_at", "used_at"].map(|name| moment_or_never(token, name))
                };
                let [id, tenant, scopes] =
                    ["token_id", "tenant_id", "scopes"].map(|name| cell(token, name));
                vec![id, tenant, scopes, moment(token, "created_at"), expires, used]
            });
            let headings = ["token", "tenant", "scopes", "created", "expires", "last used"];
            context.output.rows(&headings, &tokens, cells);
        }
        Command::Revoke { token_id } => {
            let command = admin::Command::TokenRevoke { token_id: token_id.clone() };
            let answer = context.operate(&command, &[])?;
            context.output.answer(&answer, || format!("{token_id} is revoked"));
        }
    }
    Ok(())
}

/// How long a token that was just made works, and that this was the only look at it.
pub(super) fn shown_once(answer: &Value) -> String {
    let expires = if answer["expires_at"].is_null() {
        "never expires".to_owned()
    } else {
        format!("expires {}", moment(answer, "expires_at"))
    };
    format!("{expires}; it is not shown again")
}

/// The value of `--expires`: `90d`, `12h`, `1h 30m` after now.
pub(super) fn from_now(text: &str) -> Result<Timestamp, Failure> {
    let seconds = parse_seconds("--expires", text)?;
    let moment = SystemClock.now().checked_add(seconds.seconds());
    moment.map_err(|_| Failure::usage("--expires is too far away"))
}

/// The value of `option`, a length of time such as `24h`, `30m` or `7d`, in seconds.
pub(super) fn parse_seconds(option: &str, text: &str) -> Result<i64, Failure> {
    let seconds = text.parse::<jiff::Span>().ok().and_then(|span| {
        let relative = jiff::SpanRelativeTo::days_are_24_hours();
        span.total((jiff::Unit::Second, relative)).ok()
    });
    #[expect(clippy::cast_possible_truncation, reason = "bounded just above")]
    match seconds {
        Some(seconds) if (1.0..=1e10).contains(&seconds) => Ok(seconds as i64),
        _ => {
            let message =
                format!("{option} {text}: a length of time is written like 90d, 12h or 30m");
            Err(Failure::usage(message))
        }
    }
}

/// What scopes allow: all but writing when none is named. Before a passphrase is asked for, as what
/// the command line says may be wrong.
pub(super) fn permissions(names: &[String]) -> Result<Permissions, Failure> {
    if names.is_empty() {
        return Ok(Permissions::READ);
    }
    let permissions: Option<Permissions> =
        names.iter().map(|name| Permission::parse(name)).collect();
    permissions.ok_or_else(|| Failure::usage("--scope is one of list, query, metadata, write"))
}
