//! The `tenantry` program.

use std::alloc::System;

use zeroizing_alloc::ZeroAlloc;

/// Wipes what is freed. The library keeps secrets in buffers of its own; this is for what drivers,
/// TLS and the HTTP server copy out of them. It costs a `memset` of every block that is freed, and
/// a copy where the system could have grown a block in its place.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> std::process::ExitCode {
    tenantry::cli::run()
}
