//! Makes a flush of `sled` 0.34 reach the disk on Linux.
//!
//! Where it means "sync", `sled` calls `sync_file_range`, which writes no metadata and flushes no
//! drive cache: a file that has grown is lost by a power failure. A function of that name in the
//! executable takes precedence over libc's, so this one does what was meant. Whether it really took
//! its place is for [`calls`] to tell: `SledStore` refuses to open a store when a flush does not
//! move it. Elsewhere `sled` calls `fsync` itself.

#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "a C symbol can only be defined and called this way")]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

static CALLS: AtomicU64 = AtomicU64::new(0);

/// How often the engine has synced.
pub(super) fn calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

#[unsafe(no_mangle)]
extern "C" fn sync_file_range(
    file: libc::c_int,
    _offset: libc::off64_t,
    _length: libc::off64_t,
    _flags: libc::c_uint,
) -> libc::c_int {
    CALLS.fetch_add(1, Ordering::Relaxed);
    loop {
        // SAFETY: fdatasync takes any integer; one that is no open file gives EBADF.
        let result = unsafe { libc::fdatasync(file) };
        if result == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return result;
        }
    }
}
