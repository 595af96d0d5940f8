//! Failures in words that people use.

use std::error::Error;
use std::io;

/// What an error says, and what the system said when that was the cause.
pub(crate) fn with_cause(error: &dyn Error) -> String {
    let mut cause = error.source();
    while let Some(error) = cause
        && !error.is::<io::Error>()
    {
        cause = error.source();
    }
    let system = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    system.map_or_else(|| error.to_string(), |system| format!("{error}: {}", said(system.kind())))
}

/// A kind of error in words.
pub(crate) fn said(kind: io::ErrorKind) -> String {
    if kind == io::ErrorKind::NotFound {
        "no such file or directory".to_owned()
    } else {
        kind.to_string()
    }
}
