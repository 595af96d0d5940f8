//! JSON in which nothing comes twice: which of two members counts is for two readers to disagree on.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The value that all of `bytes` is, unless an object in it has a member twice or it is nested more
/// than `max_depth` deep.
pub(crate) fn value(bytes: &[u8], max_depth: usize) -> Option<Value> {
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let value = Strict(max_depth).deserialize(&mut parser).ok()?;
    parser.end().ok()?;
    Some(value)
}

/// With so many levels left.
#[derive(Clone, Copy)]
struct Strict(usize);

impl Strict {
    /// For what is inside of an array or object.
    fn within<E: serde::de::Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
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
        let within = self.within()?;
        while let Some(value) = items.next_element_seed(within)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        let within = self.within()?;
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(within)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("repeated"));
            }
        }
        Ok(members.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_twice_at_any_depth_is_refused_and_the_same_name_in_two_objects_is_not() {
        for refused in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"b":[{"a":{"c":1,"c":2}}]}"#,
            r#"{"a":1} x"#,
            r#"{"a":1,}"#,
            "",
            "\u{feff}{}",
        ] {
            assert!(value(refused.as_bytes(), 8).is_none(), "{refused}");
        }
        let read =
            value(br#"{"a":1,"b":[{"a":-2},{"a":0.5}],"A":null,"c":true,"d":"x"}"#, 3).unwrap();
        let same = r#"{"a":1,"b":[{"a":-2},{"a":0.5}],"A":null,"c":true,"d":"x"}"#;
        assert_eq!(read.to_string(), same);
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(value(b"[[{}]]", 3).is_some());
        assert!(value(b"[[{}]]", 2).is_none());
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        assert!(value(deep.as_bytes(), usize::MAX).is_none());
    }
}
