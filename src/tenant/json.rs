//! JSON with positions: the members of an object as slices of the source.
//!
//! `serde_json` does the parsing and keeps each value as the text it was; where that text stands in
//! the source gives line and column. So a message can point at a value without quoting it, every
//! problem of a file can be told at once, and a secret is not copied through a value tree.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// One member of an object, in source order; a key may come twice.
pub(super) struct Member<'a> {
    pub(super) key: Cow<'a, str>,
    pub(super) value: &'a RawValue,
}

/// A line and column, both from 1; the column counts characters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// The members of the object that `text` is, or nothing when it is well-formed JSON of another type.
///
/// # Errors
///
/// Where the text stops being JSON, and whether it merely ends too early. The parser's own words
/// are withheld: they can quote the value.
pub(super) fn members(text: &str) -> Result<Option<Vec<Member<'_>>>, (Position, bool)> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<Member<'de>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(key) = map.next_key::<&RawValue>()? {
                // A key is a JSON string, or the map access would have failed.
                let key = string(key).unwrap_or_default();
                members.push(Member { key, value: map.next_value()? });
            }
            Ok(members)
        }
    }

    let mut parser = serde_json::Deserializer::from_str(text);
    let members = parser.deserialize_map(Members).and_then(|members| {
        parser.end()?;
        Ok(members)
    });
    match members {
        Ok(members) => Ok(Some(members)),
        Err(error) if error.is_data() => Ok(None),
        Err(error) => {
            // The parser counts columns in bytes.
            let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
            let column = line.char_indices().filter(|(at, _)| *at < error.column()).count();
            let position = Position { line: error.line().max(1), column: column.max(1) };
            Err((position, error.is_eof()))
        }
    }
}

/// The string that `value` is, if it is one.
pub(super) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    // Borrows when there is no escape, which `Cow` by itself would not.
    match serde_json::from_str::<&str>(value.get()) {
        Ok(text) => Some(Cow::Borrowed(text)),
        Err(_) => serde_json::from_str::<String>(value.get()).ok().map(Cow::Owned),
    }
}

/// Where `part`, a slice of `source`, begins.
pub(super) fn position(source: &str, part: &str) -> Position {
    let offset = (part.as_ptr() as usize).saturating_sub(source.as_ptr() as usize);
    let before = source.get(..offset).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}
