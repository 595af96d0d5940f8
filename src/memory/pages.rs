//! Pages from the kernel, and exclusive pieces of them. All unsafe code of the memory module.

use std::ffi::c_void;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

/// Bytes that nobody else has: a piece of a mapping, never dropped with it.
pub(super) struct Chunk {
    start: NonNull<u8>,
    length: usize,
}

/// A mapping of its own with a guard page on each side, unmapped when dropped.
pub(super) struct Mapping {
    /// Everything between the guard pages.
    bytes: Chunk,
    is_locked: bool,
}

#[expect(unsafe_code, reason = "a raw pointer is not Send by itself")]
// SAFETY: a chunk owns its bytes as a `Box<[u8]>` does; no thread has a part in them.
unsafe impl Send for Chunk {}
#[expect(unsafe_code, reason = "a raw pointer is not Sync by itself")]
// SAFETY: shared access only reads.
unsafe impl Sync for Chunk {}

impl Mapping {
    /// `length` zero bytes, rounded up to whole pages: locked if the system allows it, left out of
    /// dumps, zero in a child that is forked. `None` when the address space or memory is used up.
    pub(super) fn new(length: usize) -> Option<Self> {
        let page = rustix::param::page_size();
        let length = length.max(1).checked_next_multiple_of(page)?;
        let whole = length.checked_add(2 * page)?;
        #[expect(unsafe_code, reason = "mapping memory")]
        // SAFETY: a new private mapping at an address of the kernel's choice overlaps nothing. What
        // is made accessible and advised on lies within it: one page in, `length` bytes.
        unsafe {
            let none = std::ptr::null_mut();
            let mapped =
                rustix::mm::mmap_anonymous(none, whole, ProtFlags::empty(), MapFlags::PRIVATE)
                    .ok()?;
            let start = mapped.byte_add(page);
            let access = MprotectFlags::READ | MprotectFlags::WRITE;
            if rustix::mm::mprotect(start, length, access).is_err() {
                unmap(mapped, whole);
                return None;
            }
            let is_locked = rustix::mm::mlock(start, length).is_ok();
            // A kernel that has not got these has no dump of a process that may not be dumped, and
            // children of ours replace themselves at once.
            for advice in [Advice::LinuxDontDump, Advice::LinuxWipeOnFork] {
                rustix::mm::madvise(start, length, advice).ok();
            }
            let bytes = Chunk { start: NonNull::new(start.cast())?, length };
            Some(Self { bytes, is_locked })
        }
    }

    pub(super) fn is_locked(&self) -> bool {
        self.is_locked
    }

    /// The bytes, for the rest of the process's life.
    pub(super) fn leak(self) -> Chunk {
        let mut this = std::mem::ManuallyDrop::new(self);
        std::mem::replace(&mut this.bytes, Chunk::empty())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let page = rustix::param::page_size();
        #[expect(unsafe_code, reason = "unmapping what was mapped")]
        // SAFETY: the mapping began one page before the bytes and ended one after; nothing can
        // borrow them any more, as `self` is going. Unlocks them as well.
        unsafe {
            let start = self.bytes.start.as_ptr().cast::<c_void>().byte_sub(page);
            unmap(start, self.bytes.length + 2 * page);
        }
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Mapping {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Chunk {
    /// No bytes at all.
    pub(super) const fn empty() -> Self {
        Self { start: NonNull::dangling(), length: 0 }
    }

    /// The first `at` bytes, and the others. Panics if there are fewer.
    pub(super) fn split_at(self, at: usize) -> (Self, Self) {
        assert!(at <= self.length, "a chunk is split within its length");
        #[expect(unsafe_code, reason = "pointer arithmetic within the chunk")]
        // SAFETY: `at` is at most the length, so this is within, or at the end of, one mapping.
        let second = unsafe { self.start.byte_add(at) };
        (Self { start: self.start, length: at }, Self { start: second, length: self.length - at })
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        #[expect(unsafe_code, reason = "the bytes behind the pointer")]
        // SAFETY: the mapping is readable and initialised (zero at first) for as long as the chunk
        // exists; only the chunk has these bytes, so `&self` keeps writers away.
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr(), self.length)
        }
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8] {
        #[expect(unsafe_code, reason = "the bytes behind the pointer")]
        // SAFETY: as above, and `&mut self` keeps all others away.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length)
        }
    }
}

#[expect(unsafe_code, reason = "passes the duty on to the caller")]
// SAFETY: the caller's: `start` and `length` are those of one mapping that nobody uses any more.
unsafe fn unmap(start: *mut c_void, length: usize) {
    // It fails only for an address that is not page aligned; the pages would stay mapped, wiped.
    #[expect(unsafe_code, reason = "the call itself")]
    // SAFETY: see above.
    unsafe { rustix::mm::munmap(start, length) }.ok();
}
