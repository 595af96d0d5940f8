//! JSON in which nothing comes twice.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

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
    struct Strict(usize);
    impl<'de> DeserializeSeed<'de> for Strict {
        type Value = Value;

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
            if self.0 > MAX_DEPTH {
                return Err(D::Error::custom("too deep"));
            }
            deserializer.deserialize_any(self)
        }
    }
    impl<'de> Visitor<'de> for Strict {
        type Value = Value;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value")
        }

        fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
            Ok(value.into())
        }

        fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
            Ok(value.into())
        }

        fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
            Ok(value.into())
        }

        fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
            Ok(value.into())
        }

        fn visit_str<E>(self, value: &str) -> Result<Value, E> {
            Ok(value.into())
        }

        fn visit_unit<E>(self) -> Result<Value, E> {
            Ok(Value::Null)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
            let mut values = Vec::new();
            while let Some(value) = items.next_element_seed(Strict(self.0 + 1))? {
                values.push(value);
            }
            Ok(values.into())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
            let mut members = Map::new();
            while let Some(name) = map.next_key::<String>()? {
                let value = map.next_value_seed(Strict(self.0 + 1))?;
                if members.insert(name, value).is_some() {
                    return Err(A::Error::custom("repeated"));
                }
            }
            Ok(members.into())
        }
    }
    let mut parser = serde_json::Deserializer::from_str(text.get());
    Strict(0).deserialize(&mut parser).ok()
}
