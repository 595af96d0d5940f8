//! Keeping others out of this process.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Makes this process unreadable to others of its user: no debugger, no `/proc/PID/mem`, no core
/// dump. To be called before the first secret is read; whoever reads `/proc/self` afterwards finds
/// its files to be root's.
///
/// Does not set `PR_SET_NO_NEW_PRIVS`: children would inherit it, and a passphrase or key command
/// may rightly be `sudo` or another setuid program. systemd's `NoNewPrivileges=` sets it where none
/// is.
///
/// # Errors
///
/// The system's refusal. A caller that holds secrets should not go on.
pub fn harden() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Also for the children, whose dumps could hold what they were given.
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    Ok(rustix::process::setrlimit(Resource::Core, nothing)?)
}
