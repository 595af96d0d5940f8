//! How many files and connections this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Settings;

/// Of a session with `SQLite`: the database, its log and index, a temporary file. Others have one.
const PER_SESSION: u64 = 4;
/// Store, journal, audit log, admin socket, runtime.
const OWN: u64 = 256;

/// How many a service with these settings may need.
pub(super) fn needed(settings: &Settings) -> u64 {
    let sessions = u64::from(settings.pool.max_sessions) * PER_SESSION;
    sessions + u64::from(settings.http.max_connections) + OWN
}

/// Raises the limit of this process to what `settings` need, as far as the system lets it.
pub(super) fn raise(settings: &Settings) {
    let limit = getrlimit(Resource::Nofile);
    let needed = needed(settings);
    // None is unlimited.
    let Some(soft) = limit.current.filter(|soft| *soft < needed) else { return };
    let reached = limit.maximum.map_or(needed, |hard| hard.min(needed));
    let wanted = Rlimit { current: Some(reached), maximum: limit.maximum };
    let reached = if setrlimit(Resource::Nofile, wanted).is_ok() { reached } else { soft };
    if reached < needed {
        tracing::warn!(
            limit = reached,
            needed,
            "too few files may be open: raise ulimit -Hn (LimitNOFILE=), or lower pool.max_sessions and \
             http.max_connections"
        );
    }
}
