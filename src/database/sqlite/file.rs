//! Which file, and how it is opened.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use tokio::time::Instant;

use super::{functions, mathematics, memory};
use crate::database::Unavailable;

/// Longest wait for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

/// Longest wait for one who makes a change final, when the file is opened.
const MAX_BUSY: Duration = Duration::from_secs(5);

/// Between two tries, as some failures come without a wait of the engine's.
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// Longest value, text or blob, whatever an answer may take: a function of the engine's is not
/// stopped midway, so its arguments are bounded.
pub(super) const MAX_VALUE_BYTES: i32 = 1 << 20;
/// Pages of the file that are kept, in KiB; a negative number to the engine.
const CACHE_KIB: i64 = 2_000;

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Use {
    Reading,
    /// Also reading; never making a file, which has to be there.
    Writing,
}

/// Deepest nesting of triggers. One that only reads has none.
const MAX_TRIGGER_DEPTH: i32 = 16;

/// Opens `path` below `root`, on its guard. A file that may not be written is opened all the same;
/// the connection knows.
pub(super) fn open(root: &Path, path: &str, purpose: Use) -> Result<Connection, Unavailable> {
    let memory_is_limited = memory::limit_this_thread();
    let path = locate(root, Path::new(path))?;
    let access = match purpose {
        Use::Reading => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Use::Writing => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    let flags = access
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE
        | OpenFlags::SQLITE_OPEN_EXRESCODE
        // Closes the gap between the look at the path and the opening.
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|_| Unavailable::FileNotPermitted)?;
    let began = Instant::now();
    loop {
        match confine(&connection, memory_is_limited, purpose) {
            Ok(()) => return Ok(connection),
            Err(error) if began.elapsed() < patience(&error) => {
                std::thread::sleep(BETWEEN_TRIES);
            }
            Err(_) => return Err(Unavailable::NotADatabase),
        }
    }
}

/// Whether a writer left something behind that only a writer can finish or undo: a journal beside
/// the file.
pub(super) fn is_unfinished(root: &Path, path: &str) -> bool {
    let Ok(found) = locate(root, Path::new(path)) else { return false };
    ["-journal", "-wal"].into_iter().any(|suffix| {
        let mut name = found.clone().into_os_string();
        name.push(suffix);
        Path::new(&name).symlink_metadata().is_ok_and(|it| it.is_file() && it.len() > 0)
    })
}

/// The path of a regular file that no symbolic link leads to.
fn locate(root: &Path, path: &Path) -> Result<PathBuf, Unavailable> {
    let reason = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            Unavailable::FileNotFound
        } else {
            Unavailable::FileNotPermitted
        }
    };
    // The operator's own root may be reached through a link; from there on nothing may.
    let mut found = root.canonicalize().map_err(reason)?;
    let mut components = path.components().peekable();
    if components.peek().is_none() {
        return Err(Unavailable::FileNotPermitted);
    }
    while let Some(component) = components.next() {
        let Component::Normal(name) = component else {
            return Err(Unavailable::FileNotPermitted);
        };
        found.push(name);
        let kind = found.symlink_metadata().map_err(reason)?.file_type();
        let expected = if components.peek().is_some() { kind.is_dir() } else { kind.is_file() };
        if !expected {
            return Err(Unavailable::FileNotPermitted);
        }
    }
    Ok(found)
}

fn confine(connection: &Connection, memory_is_limited: bool, purpose: Use) -> rusqlite::Result<()> {
    let writes = purpose == Use::Writing;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    for (setting, value) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false),
        // Without them a change would break what the tenant's own schema keeps true.
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, writes),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, writes),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false),
        // A misspelt "column" is an error, not a text.
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
    ] {
        connection.set_db_config(setting, value)?;
    }
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, if writes { MAX_TRIGGER_DEPTH } else { 1 }),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 500),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
        (Limit::SQLITE_LIMIT_VDBE_OP, 250_000),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 999),
    ] {
        connection.set_limit(limit, value)?;
    }
    functions::add(connection)?;
    mathematics::add(connection)?;
    connection.pragma_update(None, "query_only", !writes)?;
    // In memory: a sort must not leave a tenant's rows in a shared folder, nor fill it. Where memory
    // is not limited, in files that have no name.
    let temp_store = if memory_is_limited { "MEMORY" } else { "FILE" };
    connection.pragma_update(None, "temp_store", temp_store)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    // Reads the header: what is no database is found out now.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// How long it may fail like that before it is taken for what it says.
fn patience(error: &rusqlite::Error) -> Duration {
    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) {
        MAX_BUSY
    } else if is_in_use(error) {
        BUSY_TIMEOUT
    } else {
        Duration::ZERO
    }
}

/// Whether it fails only because another is making a change final. One who may not write takes a
/// journal that goes away as it looks for one that is left behind.
pub(super) fn is_in_use(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
        || error.sqlite_error().map(|it| it.extended_code) == Some(ffi::SQLITE_READONLY_ROLLBACK)
}
