//! `token create | list | revoke`

use clap::Subcommand;
use jiff::{Timestamp, ToSpan};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::tenant::parse_id;
use super::{Context, Failure};
use crate::auth::TokenInfo;
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
    /// List tokens, without their secrets
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
            let permissions = parse_scopes(&scope)?;
            let expires_at = expires.map(|text| from_now(&text)).transpose()?;
            let admin = context.admin()?;
            let (token, info) = admin.create_token(&tenant, permissions, expires_at)?;
            #[expect(clippy::disallowed_methods, reason = "shown once, to whoever made it")]
            let token = token.expose_secret();
            let value = json!({
                "token_id": info.token_id,
                "token": token,
                "tenant_id": info.tenant.as_str(),
                "scopes": scopes(&info),
                "expires_at": info.expires_at.map(|at| at.to_string()),
            });
            context.output.answer(&value, || {
                format!("{token}\n\n{} for {tenant}; it is not shown again", info.token_id)
            });
        }
        Command::List => {
            let tokens = context.admin()?.tokens()?;
            let values: Vec<Value> = tokens.iter().map(describe).collect();
            let cells = tokens.iter().map(|token| {
                vec![
                    token.token_id.clone(),
                    token.tenant.to_string(),
                    scopes(token).join(","),
                    token.created_at.to_string(),
                    token.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string()),
                ]
            });
            let headings = ["token", "tenant", "scopes", "created", "expires"];
            context.output.rows(&headings, &values, cells.collect());
        }
        Command::Revoke { token_id } => {
            context.admin()?.revoke_token(&token_id)?;
            let value = json!({ "token_id": token_id, "revoked": true });
            context.output.answer(&value, || format!("{token_id} is revoked"));
        }
    }
    Ok(())
}

/// `90d`, `12h`, `1h 30m`: so long after now.
pub(super) fn from_now(text: &str) -> Result<Timestamp, Failure> {
    let seconds = parse_seconds(text)?;
    let moment = SystemClock.now().checked_add(seconds.seconds());
    moment.map_err(|_| Failure::usage("--expires is too far away"))
}

/// A length of time such as `24h`, `30m` or `7d`, in seconds.
pub(super) fn parse_seconds(text: &str) -> Result<i64, Failure> {
    let seconds = text.parse::<jiff::Span>().ok().and_then(|span| {
        let relative = jiff::SpanRelativeTo::days_are_24_hours();
        span.total((jiff::Unit::Second, relative)).ok()
    });
    #[expect(clippy::cast_possible_truncation, reason = "bounded just above")]
    match seconds {
        Some(seconds) if (1.0..=1e10).contains(&seconds) => Ok(seconds as i64),
        _ => Err(Failure::usage("a length of time is written like 90d, 12h or 30m")),
    }
}

fn parse_scopes(names: &[String]) -> Result<Permissions, Failure> {
    if names.is_empty() {
        return Ok(Permissions::READ);
    }
    let parse = |name: &String| {
        let unknown = || Failure::usage("--scope is one of list, query, metadata, write");
        Permission::parse(name).ok_or_else(unknown)
    };
    names.iter().map(parse).collect()
}

fn scopes(token: &TokenInfo) -> Vec<&'static str> {
    token.permissions.iter().map(Permission::as_str).collect()
}

fn describe(token: &TokenInfo) -> Value {
    json!({
        "token_id": token.token_id,
        "tenant_id": token.tenant.as_str(),
        "scopes": scopes(token),
        "created_at": token.created_at.to_string(),
        "expires_at": token.expires_at.map(|at| at.to_string()),
    })
}
