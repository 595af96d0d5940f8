//! Values of an answer: from the server's own text to JSON.
//!
//! The server writes every value as it writes it for people, which each type can, those of
//! extensions included; here only what has a better form in JSON gets it (docs/results.md). What
//! does not read as the type that the server named is [`Unwritten::Malformed`], for the server may
//! be hostile.

use std::borrow::Cow;

use postgres_types::{Kind, Type};

use crate::database::rows::Unwritten::Malformed;
use crate::database::rows::{Cells, Unwritten};

/// What becomes of the texts of a type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// `t` and `f`.
    Boolean,
    /// Digits; a text beyond what JSON readers keep exact.
    Integer,
    /// A number, or one of its words.
    Float,
    /// Digits that JSON readers would round: a text.
    Number,
    /// A JSON document.
    Document,
    /// Bytes in hexadecimal digits, after `\x`.
    Bytes,
    /// A date and a time with a space between.
    Timestamp,
    /// The same, and an offset.
    TimestampZone,
    /// A time and an offset.
    TimeZone,
    /// Years, months, days and a time, in words.
    Interval,
    /// Integers with spaces between.
    Vector,
    /// Nested braces around elements.
    Array {
        /// The form of each element.
        element: Box<Form>,
        /// What is between two.
        delimiter: char,
    },
    /// As the server writes it.
    Text,
}

/// A type of a column or a parameter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ValueType {
    /// The server's name for it.
    pub(super) name: String,
    /// How its values are written.
    pub(super) form: Form,
}

impl ValueType {
    /// The type that has `oid` on every server; `None` where each has its own.
    pub(super) fn built_in(oid: u32) -> Option<Self> {
        // What the server numbers itself begins here, and stays out of the way of what is built in.
        const FIRST_OF_ITS_OWN: u32 = 16_384;
        let Some(ty) = Type::from_oid(oid) else {
            // Built into a newer server than the list: whatever it is, it has a text.
            let newer = || Self { name: format!("type {oid}"), form: Form::Text };
            return (oid < FIRST_OF_ITS_OWN).then(newer);
        };
        let form = match (&ty, ty.kind()) {
            (&Type::INT2_VECTOR | &Type::OID_VECTOR, _) => Form::Vector,
            // An array by its text, though not by its kind.
            (&Type::RECORD_ARRAY, _) => {
                Form::Array { element: Box::new(Form::Text), delimiter: ',' }
            }
            (_, Kind::Array(element)) => {
                // The one type whose own text has commas outside of quotes and brackets.
                let delimiter = if *element == Type::BOX { ';' } else { ',' };
                Form::Array { element: Box::new(scalar(element)), delimiter }
            }
            _ => scalar(&ty),
        };
        Some(Self { name: ty.name().to_owned(), form })
    }
}

fn scalar(ty: &Type) -> Form {
    match *ty {
        Type::BOOL => Form::Boolean,
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => Form::Integer,
        Type::FLOAT4 | Type::FLOAT8 => Form::Float,
        Type::NUMERIC => Form::Number,
        Type::JSON | Type::JSONB => Form::Document,
        Type::BYTEA => Form::Bytes,
        Type::TIMESTAMP => Form::Timestamp,
        Type::TIMESTAMPTZ => Form::TimestampZone,
        Type::TIMETZ => Form::TimeZone,
        Type::INTERVAL => Form::Interval,
        Type::INT2_VECTOR | Type::OID_VECTOR => Form::Vector,
        _ => Form::Text,
    }
}

/// Writes the JSON form of `text`, a value of `form`; `None` is NULL.
pub(super) fn write(
    form: &Form,
    text: Option<&str>,
    cells: &mut Cells<'_>,
) -> Result<(), Unwritten> {
    let Some(text) = text else { return cells.null() };
    match form {
        Form::Boolean => match text {
            "t" => cells.boolean(true),
            "f" => cells.boolean(false),
            _ => Err(Malformed),
        },
        Form::Integer => cells.integer(text.parse().map_err(|_| Malformed)?),
        Form::Float => float(text, cells),
        Form::Document => cells.document(text),
        Form::Bytes => bytes(text, cells),
        Form::Timestamp => cells.text(&timestamp(text)),
        Form::TimestampZone => cells.text(&zoned(&timestamp(text))),
        Form::TimeZone => cells.text(&zoned(text)),
        Form::Interval => cells.text(&interval(text).ok_or(Malformed)?),
        Form::Vector => {
            cells.open()?;
            for number in text.split_ascii_whitespace() {
                cells.integer(number.parse().map_err(|_| Malformed)?)?;
            }
            cells.close()
        }
        Form::Array { element, delimiter } => array(element, *delimiter, text, cells),
        Form::Number | Form::Text => cells.text(text),
    }
}

/// A number, with the digits that the server wrote: fewer would do for some, and others would be
/// another number to a reader of the narrower type.
fn float(text: &str, cells: &mut Cells<'_>) -> Result<(), Unwritten> {
    let value: f64 = text.parse().map_err(|_| Malformed)?;
    if !value.is_finite() {
        return cells.float(value);
    }
    // A number is a document; whatever else the standard library reads is not.
    cells.document(text)
}

fn bytes(text: &str, cells: &mut Cells<'_>) -> Result<(), Unwritten> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits = text.strip_prefix("\\x").ok_or(Malformed)?.as_bytes();
    if digits.len() % 2 != 0 {
        return Err(Malformed);
    }
    // There is no room for it: known before it is made.
    if digits.len() / 2 > cells.room() {
        return Err(Unwritten::TooLarge);
    }
    let value = digits
        .chunks_exact(2)
        .map(|pair| match *pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect::<Option<Vec<u8>>>();
    cells.base64(&value.ok_or(Malformed)?)
}

/// `2024-02-29 01:02:03.5+01` has a `T` in ISO 8601; years before 1 keep their ` BC` at the end.
fn timestamp(text: &str) -> Cow<'_, str> {
    match text.split_once(' ') {
        Some((date, time)) if date.starts_with(|first: char| first.is_ascii_digit()) => {
            format!("{date}T{time}").into()
        }
        // "infinity"
        _ => text.into(),
    }
}

/// An offset with minutes, or `Z`: the server leaves out minutes that are none.
fn zoned(text: &str) -> Cow<'_, str> {
    let (moment, era) = match text.strip_suffix(" BC") {
        Some(moment) => (moment, " BC"),
        None => (text, ""),
    };
    // What is before the time has signs of its own.
    let time = moment.find(':').unwrap_or(moment.len());
    let Some(sign) = moment.get(time..).and_then(|time| time.find(['+', '-'])) else {
        return text.into();
    };
    let Some((moment, offset)) = moment.split_at_checked(time + sign) else { return text.into() };
    match offset {
        "+00" => format!("{moment}Z{era}").into(),
        _ if offset.len() == "+01".len() => format!("{moment}{offset}:00{era}").into(),
        _ => text.into(),
    }
}

/// ISO 8601, each part with its own sign, as `IntervalStyle = iso_8601` writes it, of what
/// `IntervalStyle = postgres` writes: `1 year 2 mons -3 days +04:05:06.7`.
fn interval(text: &str) -> Option<String> {
    if matches!(text, "infinity" | "-infinity") {
        return Some(text.to_owned());
    }
    let (mut date, mut time) = ("P".to_owned(), String::new());
    let mut words = text.split(' ');
    while let Some(word) = words.next() {
        if word.contains(':') {
            time = clock(word)?;
            continue;
        }
        let number: i64 = word.parse().ok()?;
        let unit = match words.next()? {
            "year" | "years" => 'Y',
            "mon" | "mons" => 'M',
            "day" | "days" => 'D',
            _ => return None,
        };
        date.push_str(&number.to_string());
        date.push(unit);
    }
    Some(match (date.len() > 1, time.is_empty()) {
        (true, true) => date,
        (false, true) => "PT0S".to_owned(),
        (_, false) => format!("{date}T{time}"),
    })
}

/// `-04:05:06.7` as `-4H-5M-6.7S`; nothing of what is zero.
fn clock(text: &str) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = digits.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let mut written = String::new();
    for (part, unit) in [(hours, 'H'), (minutes, 'M'), (seconds, 'S')] {
        if !part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return None;
        }
        let part = match part.trim_start_matches('0') {
            fraction if fraction.is_empty() || fraction.starts_with('.') => {
                if fraction.bytes().all(|byte| matches!(byte, b'.' | b'0')) {
                    continue;
                }
                format!("0{fraction}")
            }
            number => number.to_owned(),
        };
        written.push_str(sign);
        written.push_str(&part);
        written.push(unit);
    }
    Some(written)
}

/// Deepest nesting of an array that the server knows.
const MAX_DIMENSIONS: usize = 6;

/// `[0:1]={{1,NULL},{"a b",3}}`: bounds, if they are not from 1, braces, and elements, quoted where
/// they need it.
fn array(
    element: &Form,
    delimiter: char,
    text: &str,
    cells: &mut Cells<'_>,
) -> Result<(), Unwritten> {
    let text = match text.strip_prefix('[') {
        Some(_) => text.split_once('=').ok_or(Malformed)?.1,
        None => text,
    };
    let mut rest = text;
    let mut depth = 0;
    // Whether an element or an inner array may come: after a brace or a delimiter.
    let mut may_begin = true;
    loop {
        let mut characters = rest.chars();
        let Some(first) = characters.next() else { return Err(Malformed) };
        let tail = characters.as_str();
        if first == '{' && may_begin && depth < MAX_DIMENSIONS {
            cells.open()?;
            depth += 1;
            rest = tail;
        } else if first == '}' && depth > 0 {
            cells.close()?;
            depth -= 1;
            may_begin = false;
            rest = tail;
            if depth == 0 {
                return if rest.is_empty() { Ok(()) } else { Err(Malformed) };
            }
        } else if depth == 0 {
            return Err(Malformed);
        } else if first == delimiter && !may_begin {
            may_begin = true;
            rest = tail;
        } else if first == '"' && may_begin {
            let (value, after) = unquoted(tail)?;
            write(element, Some(&value), cells)?;
            may_begin = false;
            rest = after;
        } else if may_begin {
            let end = rest.find([delimiter, '}']).ok_or(Malformed)?;
            let (value, after) = rest.split_at_checked(end).ok_or(Malformed)?;
            let value = if value == "NULL" { None } else { Some(value) };
            write(element, value, cells)?;
            may_begin = false;
            rest = after;
        } else {
            return Err(Malformed);
        }
    }
}

/// What is before the closing quote of `text`, and what is behind it.
fn unquoted(text: &str) -> Result<(Cow<'_, str>, &str), Unwritten> {
    let end = text.find(['"', '\\']).ok_or(Malformed)?;
    let (plain, mut rest) = text.split_at_checked(end).ok_or(Malformed)?;
    if let Some(after) = rest.strip_prefix('"') {
        return Ok((plain.into(), after));
    }
    let mut value = plain.to_owned();
    loop {
        let end = rest.find(['"', '\\']).ok_or(Malformed)?;
        let (plain, after) = rest.split_at_checked(end).ok_or(Malformed)?;
        value.push_str(plain);
        let mut characters = after.chars();
        if characters.next() == Some('"') {
            return Ok((value.into(), characters.as_str()));
        }
        value.push(characters.next().ok_or(Malformed)?);
        rest = characters.as_str();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::database::rows::Collector;
    use crate::database::{Error, Rows};

    fn written(form: &Form, text: &str, limit: u32) -> Result<Rows, Error> {
        let mut collector = Collector::of(10, limit);
        collector.row(Error::Cancelled, |cells| write(form, Some(text), cells))?;
        Ok(collector.finish(vec![]).rows)
    }

    fn array_of(element: Form) -> Form {
        Form::Array { element: Box::new(element), delimiter: ',' }
    }

    fn all() -> Vec<Form> {
        let scalars = [
            Form::Boolean,
            Form::Integer,
            Form::Float,
            Form::Number,
            Form::Document,
            Form::Bytes,
            Form::Timestamp,
            Form::TimestampZone,
            Form::TimeZone,
            Form::Interval,
            Form::Vector,
            Form::Text,
        ];
        scalars.iter().cloned().chain(scalars.iter().cloned().map(array_of)).collect()
    }

    #[test]
    fn what_is_not_of_the_type_is_malformed_and_its_neighbour_is_not() {
        let integers = array_of(Form::Integer);
        for (form, good, bad) in [
            (&Form::Boolean, "t", "true"),
            (&Form::Integer, "-9223372036854775808", "9223372036854775808"),
            (&Form::Integer, "0", ""),
            (&Form::Float, "1e-05", "1.5x"),
            (&Form::Bytes, "\\x00ff", "\\x00f"),
            (&Form::Bytes, "\\x", "00ff"),
            (&Form::Bytes, "\\x0a", "\\x0g"),
            (&Form::Interval, "-1 days +02:03:04", "-1 fortnights"),
            (&Form::Interval, "00:00:00.5", "00:00"),
            (&Form::Vector, "1 2", "1,2"),
            (&integers, "{1,NULL}", "{1,NIL}"),
            (&integers, "{{1},{2}}", "{{1},{2}"),
            (&integers, "{}", "{}}"),
            (&integers, "[0:0]={1}", "[0:0]{1}"),
            (&integers, "{\"1\"}", "{\"1}"),
            (&integers, "{{{{{{1}}}}}}", "{{{{{{{1}}}}}}}"),
        ] {
            assert!(written(form, good, 1 << 10).is_ok(), "{form:?} {good}");
            assert_eq!(written(form, bad, 1 << 10), Err(Error::Cancelled), "{form:?} {bad}");
        }
    }

    #[test]
    fn intervals_are_iso_8601_with_a_sign_for_each_part() {
        for (text, expected) in [
            ("1 year 2 mons 3 days 04:05:06.789", "P1Y2M3DT4H5M6.789S"),
            ("00:00:00", "PT0S"),
            ("-1 mons +2 days -00:00:00.5", "P-1M2DT-0.5S"),
            ("-01:00:00", "PT-1H"),
            ("00:10:00", "PT10M"),
            ("178000000 years", "P178000000Y"),
            ("infinity", "infinity"),
        ] {
            assert_eq!(interval(text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn offsets_have_minutes_and_none_is_z() {
        for (text, expected) in [
            ("01:02:03+00", "01:02:03Z"),
            ("2024-02-29T01:02:03.5-03", "2024-02-29T01:02:03.5-03:00"),
            ("2024-02-29T01:02:03+05:30", "2024-02-29T01:02:03+05:30"),
            ("1800-01-01T00:00:00+00:53:28", "1800-01-01T00:00:00+00:53:28"),
            ("0044-03-15T01:02:03+00 BC", "0044-03-15T01:02:03Z BC"),
            ("infinity", "infinity"),
        ] {
            assert_eq!(zoned(text), expected);
        }
    }

    #[test]
    fn bytes_are_not_made_where_there_is_no_room_for_them() {
        let text = format!("\\x{}", "00".repeat(1 << 10));
        assert_eq!(written(&Form::Bytes, &text, 1 << 10), Err(Error::TooLarge));
        assert!(written(&Form::Bytes, &text, 2 << 10).is_ok());
    }

    proptest! {
        #[test]
        fn hostile_texts_of_any_type_do_not_panic_and_what_is_written_is_json(
            text in r#"[-+0-9{}\[\]",=:. \\\nTZBCNULtfexmoday]{0,40}|.{0,20}"#,
        ) {
            for form in all() {
                if let Ok(rows) = written(&form, &text, 1 << 12) {
                    prop_assert_eq!(rows.to_values().len(), 1, "{:?} {}", form, rows.as_json());
                    prop_assert!(!rows.as_json().contains('\n'));
                }
            }
        }

        #[test]
        fn elements_arrive_as_the_server_quotes_them(texts: Vec<String>) {
            let literal = super::super::params::texts(&texts);
            let rows = written(&array_of(Form::Text), &literal, 1 << 20).unwrap();
            let expected = texts.into_iter().map(Into::into).collect::<Vec<serde_json::Value>>();
            prop_assert_eq!(&rows.to_values()[0], &[serde_json::Value::Array(expected)]);
        }
    }
}
