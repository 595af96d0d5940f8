//! `operator create | list | revoke`

use clap::Subcommand;

use super::output::{cell, moment, moment_or_never};
use super::token::{from_now, shown_once};
use super::{Context, Failure};
use crate::admin;
use crate::auth::Role;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token for the admin API over TCP; it is shown once
    Create {
        /// What it allows: operator (everything that needs no file of this host) or auditor (reading)
        #[arg(long, value_name = "ROLE")]
        role: String,
        /// How long it works, such as 90d or 12h (default: until it is revoked)
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List operators' tokens, without their secrets
    List,
    /// Make a token worthless, at once
    Revoke {
        /// The public id, such as `op_0123456789ab`; all for every one, also those that are damaged
        operator_id: String,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { role, expires } => {
            // Before a passphrase is asked for.
            if Role::parse(&role).is_none() {
                return Err(Failure::usage("--role is operator or auditor"));
            }
            let expires_at = expires.map(|text| from_now(&text)).transpose()?;
            let command = admin::Command::OperatorCreate { role: role.clone(), expires_at };
            let answer = context.operate(&command, &[])?;
            context.output.answer(&answer, || cell(&answer, "token"));
            let id = cell(&answer, "operator_id");
            context.output.note(&format!("{id}, {role}, {}", shown_once(&answer)));
        }
        Command::List => {
            let answer = context.operate(&admin::Command::OperatorList, &[])?;
            let operators = answer.as_array().map(Vec::as_slice).unwrap_or_default();
            let cells = operators.iter().map(|operator| {
                let expires = moment_or_never(operator, "expires_at");
                let (id, role) = (cell(operator, "operator_id"), cell(operator, "role"));
                vec![id, role, moment(operator, "created_at"), expires]
            });
            context.output.rows(&["operator", "role", "created", "expires"], operators, cells);
        }
        Command::Revoke { operator_id } => {
            let command = admin::Command::OperatorRevoke { operator_id: operator_id.clone() };
            let answer = context.operate(&command, &[])?;
            context.output.answer(&answer, || format!("{operator_id} is revoked"));
        }
    }
    Ok(())
}
