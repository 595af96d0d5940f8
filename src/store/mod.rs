//! Opaque bytes under keys.
