//! What the roles of tenants may do that are about to be imported, asked of their databases before
//! anything is stored.
//!
//! A privileged role stops the import, and one that cannot log in; a database that does not answer
//! does not, since tenants are imported also while theirs are down. So many tenants' secrets are in memory as are asked at once.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream;

use super::doctor::block_on;
use super::{Error, Progress};
use crate::database::{self, Examined, ExcessPrivilege, Unavailable};
use crate::tenant::{Connection, ResolvedTenant};

/// What follows from a database that was not reached.
const UNTIL: &str = "calls will fail until it does";
/// How many databases are asked at once.
const AT_ONCE: usize = 16;

/// A tenant whose role may do more than any tenant needs.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a finding")]
pub struct Privileged {
    /// The tenant's place.
    pub at: usize,
    /// What the role may do.
    pub findings: String,
}

/// What the databases said.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) privileged: Vec<Privileged>,
    /// The places of tenants whose databases do not let them in, and how they say so.
    pub(super) locked_out: Vec<(usize, String)>,
    /// How many roles are not known.
    pub(super) unknown: u64,
}

/// What became of a question.
enum Answer {
    Examined(Examined),
    /// The server does not accept this role, or its password.
    LockedOut {
        user: String,
        why: Unavailable,
    },
    Unanswered(database::Error),
    /// The server did not answer another one.
    Skipped,
}

/// Asks the databases of the tenants at `places`; `read` gives a tenant. What else there is to say
/// goes to `warn`.
///
/// # Errors
///
/// Those of `read`; [`Error::Stopped`] when `progress` says so; [`Error::InvalidCommand`] when no
/// runtime can be started.
pub(super) fn privileged(
    options: &database::Options,
    places: &[usize],
    read: &dyn Fn(usize) -> Result<ResolvedTenant, Error>,
    warn: &mut dyn FnMut(usize, String),
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Found, Error> {
    let silent = Mutex::new(HashSet::new());
    let ask = async |at: usize| -> Result<(usize, Answer), Error> {
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
            match database::examine(&tenant.config, &tenant.credentials, options).await {
                Ok(examined) => Answer::Examined(examined),
                Err(database::Error::Unavailable(why @ Unavailable::Authentication)) => {
                    Answer::LockedOut { user: target.user.clone(), why }
                }
                Err(error) => {
                    if is_silence(&error) {
                        lock().insert(server);
                    }
                    Answer::Unanswered(error)
                }
            },
        ))
    };
    let mut found = Found::default();
    let (mut done, total) = (0, places.len() as u64);
    block_on(async {
        let mut answers =
            std::pin::pin!(stream::iter(places.iter().copied()).map(ask).buffer_unordered(AT_ONCE));
        while let Some(answer) = answers.next().await {
            let (at, answer) = answer?;
            match answer {
                Answer::Examined(examined) => {
                    let (privileged, writing): (Vec<_>, Vec<_>) =
                        examined.excess.into_iter().partition(|excess| excess.is_privileged);
                    if !writing.is_empty() {
                        let writing = listed(&writing);
                        warn(at, format!("db_user {writing}, and access.mode is read_only"));
                    }
                    if !privileged.is_empty() {
                        found.privileged.push(Privileged { at, findings: listed(&privileged) });
                    }
                }
                Answer::LockedOut { user, why } => {
                    found.locked_out.push((at, format!("db_user {user:?} cannot log in: {why}")));
                }
                Answer::Unanswered(error) => {
                    found.unknown += 1;
                    let why = if let database::Error::Unavailable(why) = error {
                        why.to_string()
                    } else {
                        error.to_string()
                    };
                    warn(at, format!("the database does not answer ({why}); {UNTIL}"));
                }
                Answer::Skipped => {
                    found.unknown += 1;
                    warn(at, format!("the server of its database did not answer before; {UNTIL}"));
                }
            }
            done += 1;
            if !progress(Progress { done, total }) {
                return Err(Error::Stopped);
            }
        }
        Ok::<(), Error>(())
    })??;
    found.privileged.sort_unstable_by_key(|privileged| privileged.at);
    found.locked_out.sort_unstable();
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tenant::{IdRule, Surroundings, TenantFile};

    /// Of a server that is not there.
    fn tenant(at: usize) -> ResolvedTenant {
        let text = format!(
            r#"{{ "tenant_id": "tenant{at:03}", "db_host": "127.0.0.1", "db_port": {}, "db_name": "x",
                "db_user": "x", "db_password": "x" }}"#,
            at + 1
        );
        let surroundings = Surroundings {
            id_rule: IdRule::default(),
            lookup: &|_| None,
            certificate: &|_| Err("there is none".to_owned()),
        };
        TenantFile::read(&format!("tenant{at:03}.json"), text.as_bytes(), &surroundings)
            .unwrap()
            .tenant
    }

    #[test]
    fn who_stops_does_not_wait_for_the_databases_that_are_left() {
        let options = database::Options {
            sqlite_root: "/nonexistent".into(),
            connect_timeout: Duration::from_secs(10),
            addresses: database::AddressPolicy::default(),
        };
        let places: Vec<usize> = (0..50).collect();
        let check = |goes_on: bool| {
            let mut asked = 0;
            let mut progress = |_| {
                asked += 1;
                goes_on
            };
            let read = |at| Ok(tenant(at));
            let found = privileged(&options, &places, &read, &mut |_, _| {}, &mut progress);
            (found.map(|found| found.unknown), asked)
        };
        let (stopped, asked) = check(false);
        assert!(matches!(stopped, Err(Error::Stopped)) && asked == 1);
        let (found, asked) = check(true);
        assert_eq!((found.unwrap(), asked), (50, 50));
    }
}
