//! JSON objects of strangers: what says a name twice says nothing.

use serde_json::{Map, Value};

use crate::strict_json;

/// Deepest nesting.
const MAX_DEPTH: usize = 32;

/// The object that all of `bytes` is, if no object in it has a member twice.
pub(super) fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    let Value::Object(object) = strict_json::value(bytes, MAX_DEPTH)? else { return None };
    Some(object)
}

/// The text that `object` has as `name`; an error if it is no text.
pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, ()> {
    match object.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(()),
    }
}
