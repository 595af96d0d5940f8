//! What the system's allocator keeps of what was freed.

/// Has the allocator give freed memory back to the system from 128 KiB on. By itself glibc's does so
/// only until the first large block is freed, and from then on keeps as much as that one had
/// (mallopt(3)): importing 10,000 tenants takes 15 MB with this and 27 MB without
/// (`./dev bench --bench store -- scale`). Other allocators are left alone. To be called before
/// there is a second thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn return_freed() {
    #[expect(unsafe_code, reason = "the allocator has no other interface")]
    // SAFETY: it sets a number, under the allocator's own lock. If it refuses, more is kept.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
    }
}

/// Nothing: this system's allocator is not glibc's.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn return_freed() {}
