//! JSON in which nothing comes twice.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::strict_json;

pub(super) const NO_OBJECT: &str = "the body is no JSON object without repeated members";
/// Deepest nesting of a member without secrets.
const MAX_DEPTH: usize = 16;

/// The members of the object that `body` is, each as the text it is.
pub(in crate::api) fn read_members(body: &[u8]) -> Result<BTreeMap<String, &RawValue>, String> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = BTreeMap<String, &'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = BTreeMap::new();
            while let Some((name, value)) = map.next_entry()? {
                if members.insert(name, value).is_some() {
                    return Err(A::Error::custom("repeated"));
                }
            }
            Ok(members)
        }
    }
    let mut parser = serde_json::Deserializer::from_slice(body);
    let members = parser.deserialize_map(Members);
    members.and_then(|members| parser.end().map(|()| members)).map_err(|_| NO_OBJECT.to_owned())
}

/// A value without repeated members, that is not nested too deeply.
pub(super) fn strict_value(text: &RawValue) -> Option<Value> {
    strict_json::value(text.get().as_bytes(), MAX_DEPTH)
}
