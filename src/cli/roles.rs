//! What the roles of tenants may do that are about to be imported, asked of their databases before
//! anything is stored.
//!
//! A privileged role stops the import; a database that does not answer does not, since tenants are
//! imported also while theirs are down. So many tenants' secrets are in memory as are asked at once.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream;
use indicatif::{ProgressBar, ProgressStyle};

use super::output::complain;
use super::serve::runtime;
use super::{Context, Failure};
use crate::admin;
use crate::database::{self, Examined, ExcessPrivilege, Unavailable};
use crate::tenant::{Connection, ResolvedTenant};

/// How many databases are asked at once.
const AT_ONCE: usize = 16;

/// A tenant whose role may do more than any tenant needs.
pub(super) struct Privileged {
    /// The tenant's place.
    pub(super) at: usize,
    /// What the role may do.
    pub(super) findings: String,
}

/// What became of a question.
enum Answer {
    Examined(Examined),
    Unanswered(database::Error),
    /// The server did not answer another one.
    Skipped,
}

/// Asks the databases of the tenants at `places`; `read` gives a tenant and `name` what people call
/// its file. Says what else there is to say, a line each.
///
/// # Errors
///
/// Those of `read`.
pub(super) fn privileged(
    context: &Context,
    places: &[usize],
    read: impl Fn(usize) -> Result<ResolvedTenant, admin::Error>,
    name: impl Fn(usize) -> String,
) -> Result<Vec<Privileged>, Failure> {
    let options = context.settings.pool_options(context.data_dir()).database;
    let progress = ProgressBar::new(places.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} roles") {
        progress.set_style(style);
    }
    let silent = Mutex::new(HashSet::new());
    let ask = async |at: usize| -> Result<(usize, Answer), admin::Error> {
        let tenant = read(at)?;
        let Connection::Postgres(target) = &tenant.config.connection else {
            return Ok((at, Answer::Skipped));
        };
        let server = (target.host.clone(), target.port);
        let lock = || silent.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().contains(&server) {
            return Ok((at, Answer::Skipped));
        }
        Ok((
            at,
            match database::examine(&tenant.config, &tenant.credentials, &options).await {
                Ok(examined) => Answer::Examined(examined),
                Err(error) => {
                    if is_silence(&error) {
                        lock().insert(server);
                    }
                    Answer::Unanswered(error)
                }
            },
        ))
    };
    let mut found = Vec::new();
    let mut unknown = 0_u64;
    runtime()?.block_on(async {
        let mut answers =
            std::pin::pin!(stream::iter(places.iter().copied()).map(ask).buffer_unordered(AT_ONCE));
        while let Some(answer) = answers.next().await {
            let (at, answer) = answer?;
            let warn = |text: &str| {
                progress.suspend(|| complain(&format!("warning: {}: {text}", name(at))));
            };
            match answer {
                Answer::Examined(examined) => {
                    let (privileged, writing): (Vec<_>, Vec<_>) =
                        examined.excess.into_iter().partition(|excess| excess.is_privileged);
                    if !writing.is_empty() {
                        let writing = listed(&writing);
                        warn(&format!("db_user {writing}, and access.mode is read_only"));
                    }
                    if !privileged.is_empty() {
                        found.push(Privileged { at, findings: listed(&privileged) });
                    }
                }
                Answer::Unanswered(error) => {
                    unknown += 1;
                    warn(&format!("what db_user may do is not known: {error}"));
                }
                Answer::Skipped => {
                    unknown += 1;
                    warn("what db_user may do is not known: its server did not answer before");
                }
            }
            progress.inc(1);
        }
        Ok::<(), admin::Error>(())
    })?;
    progress.finish_and_clear();
    if unknown > 0 {
        complain(&format!("{unknown} role(s) are not known; `tenantry doctor` asks again"));
    }
    found.sort_unstable_by_key(|privileged| privileged.at);
    Ok(found)
}

fn listed(privileges: &[ExcessPrivilege]) -> String {
    let texts: Vec<_> = privileges.iter().map(|privilege| privilege.text.as_str()).collect();
    texts.join(", ")
}

/// Whether nobody else behind the same name will answer either.
fn is_silence(error: &database::Error) -> bool {
    matches!(
        error,
        database::Error::Unavailable(
            Unavailable::AddressNotPermitted
                | Unavailable::ConnectionRefused
                | Unavailable::HostNotFound
                | Unavailable::TimedOut
        )
    )
}
