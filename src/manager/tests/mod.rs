//! What a service does by itself.

mod backups;
mod scrub;
