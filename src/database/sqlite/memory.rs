//! What one session's engine may have in memory.
//!
//! The engine has a limit for the process, under which one tenant's statement would make another's
//! fail. So its allocator is wrapped in one that counts by thread: each session has a thread of
//! its own, and all that its connection allocates is allocated and freed there. Sorts, temporary
//! tables, values and caches count alike; beyond the limit the engine fails the statement, frees
//! what it held, and goes on.

#![expect(unsafe_code, reason = "the engine's allocator can only be replaced this way")]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use rusqlite::ffi;

use super::watch::give_way;

/// Most that one session may have allocated.
pub(super) const MAX_BYTES: i64 = 64 << 20;

thread_local! {
    /// What this thread has allocated, less what it freed. Below nothing where something was
    /// allocated by another thread: what the engine has for the whole process is little.
    static USED: Cell<i64> = const { Cell::new(0) };
    static LIMIT: Cell<i64> = const { Cell::new(i64::MAX) };
}

/// The engine's own allocator.
#[derive(Clone, Copy)]
struct Allocator {
    malloc: unsafe extern "C" fn(c_int) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    realloc: unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void,
    size: unsafe extern "C" fn(*mut c_void) -> c_int,
}

static ENGINES_OWN: OnceLock<Allocator> = OnceLock::new();

/// Limits this thread; `false` when the process has used the engine before, and it is too late.
pub(super) fn limit_this_thread() -> bool {
    LIMIT.set(MAX_BYTES);
    count_from_now_on()
}

/// Wraps the engine's allocator, once a process; `false` when it is too late for that.
pub(super) fn count_from_now_on() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        let installed = install();
        if !installed {
            tracing::warn!("SQLite was in use before its memory could be bounded for each session");
        }
        installed
    })
}

fn install() -> bool {
    let mut own = MaybeUninit::<ffi::sqlite3_mem_methods>::zeroed();
    // SAFETY: GETMALLOC fills the structure that it is given. Both calls do nothing but fail once
    // the engine is initialised, and what initialises it is behind this function's `OnceLock`, or
    // was there before.
    let own = unsafe {
        if ffi::sqlite3_config(ffi::SQLITE_CONFIG_GETMALLOC, own.as_mut_ptr()) != ffi::SQLITE_OK {
            return false;
        }
        own.assume_init()
    };
    let counting = ffi::sqlite3_mem_methods {
        xMalloc: Some(malloc),
        xFree: Some(free),
        xRealloc: Some(realloc),
        ..own
    };
    let (Some(malloc_own), Some(free_own), Some(realloc_own), Some(size)) =
        (own.xMalloc, own.xFree, own.xRealloc, own.xSize)
    else {
        return false;
    };
    let allocator = Allocator { malloc: malloc_own, free: free_own, realloc: realloc_own, size };
    if ENGINES_OWN.set(allocator).is_err() {
        return false;
    }
    // SAFETY: as above; the engine copies the structure. What it counts by itself it would count
    // under a lock of the process, for which each session waited while another allocates.
    unsafe {
        ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const counting) == ffi::SQLITE_OK
            && ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0) == ffi::SQLITE_OK
    }
}

fn has_room(bytes: i64) -> bool {
    USED.get().saturating_add(bytes) <= LIMIT.get()
}

fn count(bytes: i64) {
    USED.set(USED.get().saturating_add(bytes));
}

/// The usable size of an allocation.
///
/// # Safety
///
/// `pointer` is null or came from `own` and is not freed.
unsafe fn size(own: Allocator, pointer: *mut c_void) -> i64 {
    // SAFETY: the caller's promise is what the engine's function asks for.
    if pointer.is_null() { 0 } else { i64::from(unsafe { (own.size)(pointer) }) }
}

unsafe extern "C" fn malloc(bytes: c_int) -> *mut c_void {
    let Some(own) = ENGINES_OWN.get().copied().filter(|_| has_room(i64::from(bytes))) else {
        return std::ptr::null_mut();
    };
    give_way(usize::try_from(bytes).unwrap_or(0));
    // SAFETY: called as the engine calls it; `size` gets what it gave.
    unsafe {
        let pointer = (own.malloc)(bytes);
        count(size(own, pointer));
        pointer
    }
}

unsafe extern "C" fn free(pointer: *mut c_void) {
    if let Some(own) = ENGINES_OWN.get().copied() {
        // SAFETY: the engine frees what `malloc` or `realloc` gave, once.
        unsafe {
            count(-size(own, pointer));
            (own.free)(pointer);
        }
    }
}

unsafe extern "C" fn realloc(pointer: *mut c_void, bytes: c_int) -> *mut c_void {
    let Some(own) = ENGINES_OWN.get().copied() else {
        return std::ptr::null_mut();
    };
    give_way(usize::try_from(bytes).unwrap_or(0));
    // SAFETY: as in `malloc` and `free`; a failed call leaves `pointer` as it was.
    unsafe {
        let before = size(own, pointer);
        if !has_room(i64::from(bytes) - before) {
            return std::ptr::null_mut();
        }
        let moved = (own.realloc)(pointer, bytes);
        if !moved.is_null() {
            count(size(own, moved) - before);
        }
        moved
    }
}
