//! JSON with positions: the members of an object as slices of the source.
//!
//! `serde_json` does the parsing and keeps each value as the text it was; where that text stands in
//! the source gives line and column. So a message can point at a value without quoting it, every
//! problem of a file can be told at once, and a secret is not copied through a value tree.

use std::borrow::Cow;
use std::fmt;

use secrecy::ExposeSecret;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::memory::{SecretText, SecretTextBuilder};

/// One member of an object, in source order; a key may come twice.
pub(super) struct Member<'a> {
    pub(super) key: Cow<'a, str>,
    pub(super) value: &'a RawValue,
}

/// What a JSON string says. It may be a secret, so unescaping has one home for it only.
#[derive(Debug)]
pub(super) enum Text<'a> {
    /// As it stands in the source.
    Verbatim(&'a str),
    /// It had escapes.
    Unescaped(SecretText),
}

impl Text<'_> {
    #[expect(clippy::disallowed_methods, reason = "whether it is a secret, its field knows")]
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Verbatim(text) => text,
            Self::Unescaped(text) => text.expose_secret(),
        }
    }
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
                let key = match string(key) {
                    Some(Text::Verbatim(key)) => Cow::Borrowed(key),
                    Some(unescaped) => Cow::Owned(unescaped.as_str().to_owned()),
                    None => Cow::Borrowed(""),
                };
                members.push(Member { key, value: map.next_value()? });
            }
            Ok(members)
        }
    }

    let mut parser = serde_json::Deserializer::from_str(text);
    // Of another type than asked for, the parser makes a message that quotes the value.
    let members = if text.trim_ascii_start().starts_with('{') {
        parser.deserialize_map(Members).map(Some)
    } else {
        parser.deserialize_ignored_any(IgnoredAny).map(|IgnoredAny| None)
    };
    let members = members.and_then(|members| {
        parser.end()?;
        Ok(members)
    });
    match members {
        Ok(members) => Ok(members),
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
pub(super) fn string(value: &RawValue) -> Option<Text<'_>> {
    let body = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if !body.contains('\\') {
        return Some(Text::Verbatim(body));
    }
    // No escape is shorter than what it stands for.
    let mut text = SecretTextBuilder::with_capacity(body.len());
    let mut rest = body;
    while let Some((before, escape)) = rest.split_once('\\') {
        text.push_str(before);
        let (character, after) = unescape(escape)?;
        text.push(character);
        rest = after;
    }
    text.push_str(rest);
    Some(Text::Unescaped(text.finish()))
}

/// The character that `escape`, the text after a backslash, begins with, and what follows.
fn unescape(escape: &str) -> Option<(char, &str)> {
    let mut rest = escape.chars();
    let character = match rest.next()? {
        quoted @ ('"' | '\\' | '/') => quoted,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return unescape_unicode(rest.as_str()),
        _ => return None,
    };
    Some((character, rest.as_str()))
}

/// The character whose UTF-16 form is the four digits that `text` begins with, or these and those
/// of the escape after them. Half a pair is no character.
fn unescape_unicode(text: &str) -> Option<(char, &str)> {
    let unit = |text: &str| u16::from_str_radix(text.get(..4)?, 16).ok();
    let first = unit(text)?;
    let second = text[4..].strip_prefix("\\u").and_then(unit);
    let units = [Some(first), second].into_iter().flatten();
    let character = char::decode_utf16(units).next()?.ok()?;
    Some((character, &text[if character.len_utf16() == 1 { 4 } else { 10 }..]))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_string_reads_as_the_json_parser_reads_it() {
        for text in [
            r#""""#,
            r#""plain""#,
            r#""\\ \" \/ \b \f \n \r \t end""#,
            r#""\u0041\u00e4\u20ac\ud83d\ude00 \u0000""#,
            r#""\\u0041""#,
            r#""ä€😀\\""#,
            r#""\ud83d\ude00\ud83d\ude00""#,
            r#""\ud83d""#,
            r#""\ud83d\u0041""#,
            r#""\ude00\ud83d""#,
            r#""\ud83d x""#,
            "17",
            "null",
            r#"["a"]"#,
        ] {
            let read = string(raw(text)).map(|text| text.as_str().to_owned());
            assert_eq!(read, serde_json::from_str::<String>(text).ok(), "{text}");
        }
        assert!(matches!(string(raw(r#""plain""#)), Some(Text::Verbatim("plain"))));
    }

    proptest::proptest! {
        #[test]
        fn any_string_comes_back_from_its_json(text in ".*", escape_all in proptest::bool::ANY) {
            let json = if escape_all {
                let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
                format!("\"{}\"", units.collect::<String>())
            } else {
                serde_json::to_string(&text).unwrap()
            };
            let read = string(raw(&json)).unwrap();
            proptest::prop_assert_eq!(read.as_str(), text);
        }
    }
}
