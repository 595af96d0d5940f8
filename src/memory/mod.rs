//! Where secrets live while they are open.
//!
//! ```text
//! SecretText (UTF-8, secrecy) --> LockedBytes (fixed length) --> arena --> pages
//!
//! | guard | 32 | 32 | 64 | 4096 | ... 256 KiB, locked | guard |     regions, kept
//! | guard |       one buffer above 4096, locked       | guard |     unmapped when dropped
//! ```
//!
//! A [`LockedBytes`] never grows, so it leaves no copy of itself behind; it is wiped when dropped.
//! Its pages are not written to swap, are left out of core dumps, and are zero in a forked child.
//! [`harden`] keeps other processes of the same user from reading this one.
//!
//! Protects against: swap, core dumps, a debugger without root, reading beyond a buffer's region,
//! what freed memory still holds. Does not protect against: root, the kernel, an overrun into the
//! next buffer of the same region; what other code copies out of a buffer (drivers, `expose_secret`
//! and `to_owned`), for which the program has an allocator that wipes what it frees (`main.rs`).

mod arena;
mod harden;
mod heap;
mod locked;
mod pages;
mod text;

pub use arena::{Status, status};
pub use harden::harden;
pub use heap::return_freed;
pub use locked::LockedBytes;
pub use text::{SecretText, SecretTextBuilder};
