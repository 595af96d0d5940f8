//! Values of an answer: from the binary wire format to JSON.
//!
//! The bytes come from a server that may be hostile: every read is checked, and what does not fit
//! is [`Unreadable::Malformed`]. Ten bytes of a `numeric` stand for 131,072 digits, so each value
//! is paid for from a [`Budget`] before it is made.

use std::fmt::{self, Write as _};

use postgres_types::{Kind, Type};
use serde_json::Value;

use crate::database::{bytes, float, integer};

/// Why a value has no JSON form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unreadable {
    /// The bytes are not of the type that the server named.
    Malformed,
    /// There is no room for it in the answer.
    TooLarge,
}

use Unreadable::Malformed;

/// How many more bytes of JSON may be made.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Unreadable> {
        self.0 = self.0.checked_sub(bytes).ok_or(Unreadable::TooLarge)?;
        Ok(())
    }
}

/// Days from 1970-01-01 to 2000-01-01, where `PostgreSQL` counts from.
const EPOCH_DAYS: i64 = 10_957;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Whether [`json`] knows `ty`.
pub(super) fn is_supported(ty: &Type) -> bool {
    if let Kind::Array(element) = ty.kind() { is_scalar(element) } else { is_scalar(ty) }
}

fn is_scalar(ty: &Type) -> bool {
    matches!(ty.kind(), Kind::Enum(_))
        || [
            Type::BOOL,
            Type::BPCHAR,
            Type::BYTEA,
            Type::CHAR,
            Type::DATE,
            Type::FLOAT4,
            Type::FLOAT8,
            Type::INT2,
            Type::INT4,
            Type::INT8,
            Type::INTERVAL,
            Type::JSON,
            Type::JSONB,
            Type::NAME,
            Type::NUMERIC,
            Type::OID,
            Type::TEXT,
            Type::TIME,
            Type::TIMESTAMP,
            Type::TIMESTAMPTZ,
            Type::TIMETZ,
            Type::UNKNOWN,
            Type::UUID,
            Type::VARCHAR,
        ]
        .contains(ty)
}

/// The JSON form of `raw`, a value of `ty`; `None` is NULL.
///
/// Spends at least one byte for each value inside, and no more than its JSON takes; but for a
/// document, where it is the length that the server sent.
pub(super) fn json(
    ty: &Type,
    raw: Option<&[u8]>,
    budget: &mut Budget,
) -> Result<Value, Unreadable> {
    let Some(raw) = raw else {
        budget.spend("null".len())?;
        return Ok(Value::Null);
    };
    let mut reader = Reader(raw);
    let value = if let Kind::Array(element) = ty.kind() {
        array(element, &mut reader, budget)?
    } else {
        scalar(ty, &mut reader, budget)?
    };
    if reader.0.is_empty() { Ok(value) } else { Err(Malformed) }
}

fn scalar(ty: &Type, reader: &mut Reader<'_>, budget: &mut Budget) -> Result<Value, Unreadable> {
    let left = reader.0.len();
    budget.spend(match *ty {
        Type::BYTEA => left.div_ceil(3).saturating_mul(4),
        Type::BPCHAR | Type::JSON | Type::JSONB | Type::TEXT | Type::VARCHAR | Type::UNKNOWN => {
            left.max(1)
        }
        // Short, or paid for where its length is known.
        _ => 1,
    })?;
    Ok(match *ty {
        Type::BOOL => (reader.array::<1>()? != [0]).into(),
        Type::INT2 => i16::from_be_bytes(reader.array()?).into(),
        Type::INT4 => reader.i32()?.into(),
        Type::INT8 => integer(reader.i64()?),
        Type::OID => u32::from_be_bytes(reader.array()?).into(),
        // Through text: the shortest that reads back, where f64 would show 0.1 as 0.10000000149.
        Type::FLOAT4 => {
            let value = f32::from_be_bytes(reader.array()?);
            float(value.to_string().parse().map_err(|_| Malformed)?)
        }
        Type::FLOAT8 => float(f64::from_be_bytes(reader.array()?)),
        Type::NUMERIC => numeric(reader, budget)?.into(),
        Type::UUID => uuid(reader.array()?).into(),
        Type::JSON => document(reader.text()?),
        Type::JSONB => {
            if reader.array()? != [1] {
                return Err(Malformed);
            }
            document(reader.text()?)
        }
        Type::BYTEA => bytes(reader.rest()),
        Type::DATE => match reader.i32()? {
            i32::MAX => "infinity".into(),
            i32::MIN => "-infinity".into(),
            days => date(i64::from(days)).into(),
        },
        Type::TIME => time(reader.i64()?)?.into(),
        Type::TIMETZ => {
            let time = time(reader.i64()?)?;
            format!("{time}{}", offset(reader.i32()?)?).into()
        }
        Type::TIMESTAMP => timestamp(reader.i64()?, "").into(),
        Type::TIMESTAMPTZ => timestamp(reader.i64()?, "Z").into(),
        Type::INTERVAL => {
            let (micros, days, months) = (reader.i64()?, reader.i32()?, reader.i32()?);
            interval(months, days, micros).into()
        }
        // The texts and enums; "char" is one byte and may be no text at all.
        Type::CHAR => String::from_utf8_lossy(reader.rest()).into_owned().into(),
        _ => reader.text()?.into(),
    })
}

/// A JSON value as it is, or as text where it is nested deeper than our reader goes.
fn document(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn array(
    element: &Type,
    reader: &mut Reader<'_>,
    budget: &mut Budget,
) -> Result<Value, Unreadable> {
    let dimensions = reader.i32()?;
    let _has_nulls = reader.i32()?;
    let _element_oid = reader.i32()?;
    if !(0..=6).contains(&dimensions) {
        return Err(Malformed);
    }
    let mut lengths = Vec::new();
    for _ in 0..dimensions {
        lengths.push(usize::try_from(reader.i32()?).map_err(|_| Malformed)?);
        let _lower_bound = reader.i32()?;
    }
    if lengths.is_empty() || lengths.contains(&0) {
        budget.spend("[]".len())?;
        return Ok(Value::Array(Vec::new()));
    }
    // Each element takes four bytes at least, so lengths beyond that are a lie, and are found out
    // before anything is made for them.
    let elements = lengths.iter().try_fold(1_usize, |product, length| product.checked_mul(*length));
    if elements.is_none_or(|elements| elements > reader.0.len() / 4) {
        return Err(Malformed);
    }
    level(element, &lengths, reader, budget)
}

fn level(
    element: &Type,
    lengths: &[usize],
    reader: &mut Reader<'_>,
    budget: &mut Budget,
) -> Result<Value, Unreadable> {
    let Some((length, inner)) = lengths.split_first() else {
        let length = reader.i32()?;
        if length == -1 {
            return json(element, None, budget);
        }
        let raw = reader.take(usize::try_from(length).map_err(|_| Malformed)?)?;
        return json(element, Some(raw), budget);
    };
    // The brackets, and the commas but one.
    budget.spend(length.saturating_add(1))?;
    (0..*length)
        .map(|_| level(element, inner, reader, budget))
        .collect::<Result<_, _>>()
        .map(Value::Array)
}

/// Exact decimal text: groups of four digits, the first with `weight` groups after it.
fn numeric(reader: &mut Reader<'_>, budget: &mut Budget) -> Result<String, Unreadable> {
    let count = usize::from(u16::from_be_bytes(reader.array()?));
    let weight = i32::from(i16::from_be_bytes(reader.array()?));
    let sign = u16::from_be_bytes(reader.array()?);
    let scale = usize::from(u16::from_be_bytes(reader.array()?));
    match sign {
        0x0000 | 0x4000 => {}
        0xC000 => return Ok("NaN".to_owned()),
        0xD000 => return Ok("Infinity".to_owned()),
        0xF000 => return Ok("-Infinity".to_owned()),
        _ => return Err(Malformed),
    }
    let mut groups = Vec::with_capacity(count);
    for _ in 0..count {
        let group = u16::from_be_bytes(reader.array()?);
        if group > 9999 {
            return Err(Malformed);
        }
        groups.push(group);
    }
    let group = |position: i32| {
        usize::try_from(position)
            .ok()
            .and_then(|position| groups.get(position))
            .copied()
            .unwrap_or(0)
    };
    // The leading group may have three zeros, which are not written.
    let whole = usize::try_from(weight).map_or(0, |weight| (weight + 1) * 4 - 3);
    budget.spend(whole + scale)?;
    let mut text = String::new();
    for position in 0..=weight {
        append(&mut text, format_args!("{:04}", group(position)));
    }
    let whole = text.trim_start_matches('0');
    let mut text = format!(
        "{}{}",
        if sign == 0x4000 { "-" } else { "" },
        if whole.is_empty() { "0" } else { whole }
    );
    if scale > 0 {
        let mut fraction = String::new();
        let mut position = weight + 1;
        while fraction.len() < scale {
            append(&mut fraction, format_args!("{:04}", group(position)));
            position += 1;
        }
        text.push('.');
        text.push_str(fraction.get(..scale).ok_or(Malformed)?);
    }
    Ok(text)
}

fn uuid(raw: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (position, byte) in raw.iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        append(&mut text, format_args!("{byte:02x}"));
    }
    text
}

/// `days` since 2000-01-01 in the proleptic Gregorian calendar; years before 1 end in ` BC`, as
/// the server writes them. Wider than `jiff` reaches.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn date(days: i64) -> String {
    let (text, bc) = date_parts(days);
    format!("{text}{bc}")
}

fn date_parts(days: i64) -> (String, &'static str) {
    let shifted = days + EPOCH_DAYS + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (year, bc) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), bc)
}

/// `micros` since midnight; 24:00:00 is a time of the server's too.
fn time(micros: i64) -> Result<String, Unreadable> {
    if !(0..=MICROS_PER_DAY).contains(&micros) {
        return Err(Malformed);
    }
    let seconds = micros / 1_000_000;
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    push_fraction(&mut text, micros % 1_000_000);
    Ok(text)
}

fn push_fraction(text: &mut String, micros: i64) {
    if micros != 0 {
        let fraction = format!(".{micros:06}");
        text.push_str(fraction.trim_end_matches('0'));
    }
}

/// The server's offset counts seconds to the west.
fn offset(seconds_west: i32) -> Result<String, Unreadable> {
    if !(-86_400..=86_400).contains(&seconds_west) {
        return Err(Malformed);
    }
    let sign = if seconds_west > 0 { '-' } else { '+' };
    let seconds = seconds_west.abs();
    let mut text = format!("{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60);
    if seconds % 60 != 0 {
        append(&mut text, format_args!(":{:02}", seconds % 60));
    }
    Ok(text)
}

fn timestamp(micros: i64, zone: &str) -> String {
    match micros {
        i64::MAX => "infinity".to_owned(),
        i64::MIN => "-infinity".to_owned(),
        _ => {
            let (date, bc) = date_parts(micros.div_euclid(MICROS_PER_DAY));
            let time = time(micros.rem_euclid(MICROS_PER_DAY)).unwrap_or_default();
            format!("{date}T{time}{zone}{bc}")
        }
    }
}

/// ISO 8601, each part with its own sign, as `IntervalStyle = iso_8601` writes it.
fn interval(months: i32, days: i32, micros: i64) -> String {
    match (months, days, micros) {
        (i32::MAX, i32::MAX, i64::MAX) => return "infinity".to_owned(),
        (i32::MIN, i32::MIN, i64::MIN) => return "-infinity".to_owned(),
        (0, 0, 0) => return "PT0S".to_owned(),
        _ => {}
    }
    let mut text = "P".to_owned();
    let part = |text: &mut String, value: i64, unit: char| {
        if value != 0 {
            append(text, format_args!("{value}{unit}"));
        }
    };
    part(&mut text, i64::from(months / 12), 'Y');
    part(&mut text, i64::from(months % 12), 'M');
    part(&mut text, i64::from(days), 'D');
    if micros != 0 {
        text.push('T');
        let seconds = micros / 1_000_000;
        part(&mut text, seconds / 3600, 'H');
        part(&mut text, seconds / 60 % 60, 'M');
        let rest = micros % 60_000_000;
        if rest != 0 {
            let sign = if rest < 0 { "-" } else { "" };
            append(&mut text, format_args!("{sign}{}", rest.abs() / 1_000_000));
            push_fraction(&mut text, rest.abs() % 1_000_000);
            text.push('S');
        }
    }
    text
}

/// Writing to a `String` does not fail.
fn append(text: &mut String, arguments: fmt::Arguments<'_>) {
    text.write_fmt(arguments).unwrap_or_default();
}

/// Reads from the front of what is left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn text(&mut self) -> Result<&'a str, Unreadable> {
        std::str::from_utf8(self.rest()).map_err(|_| Malformed)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], Unreadable> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn i32(&mut self) -> Result<i32, Unreadable> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, Unreadable> {
        self.array().map(i64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_reach_both_ends_of_the_servers_calendar() {
        for (days, expected) in [
            (0, "2000-01-01"),
            (-10_957, "1970-01-01"),
            (59, "2000-02-29"),
            (-730_119, "0001-01-01"),
            (-730_120, "0001-12-31 BC"),
            (2_145_031_948, "5874897-12-31"),
            (-2_451_545, "4714-11-24 BC"),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn intervals_are_iso_8601_with_a_sign_for_each_part() {
        for (months, days, micros, expected) in [
            (14, 3, 14_706_789_000, "P1Y2M3DT4H5M6.789S"),
            (0, 0, 0, "PT0S"),
            (-1, 2, -500_000, "P-1M2DT-0.5S"),
            (0, 0, -3_600_000_000, "PT-1H"),
        ] {
            assert_eq!(interval(months, days, micros), expected);
        }
    }

    /// A `numeric` on the wire: `weight`, `scale`, and groups of four digits.
    fn wire(weight: i16, scale: u16, groups: &[u16]) -> Vec<u8> {
        let mut raw = u16::try_from(groups.len()).unwrap().to_be_bytes().to_vec();
        raw.extend(weight.to_be_bytes());
        raw.extend([0, 0]);
        raw.extend(scale.to_be_bytes());
        raw.extend(groups.iter().flat_map(|group| group.to_be_bytes()));
        raw
    }

    #[test]
    fn a_number_is_paid_for_before_its_digits_are_made() {
        let huge = wire(32_767, 0, &[10]);
        let read = |raw: &[u8], bytes| json(&Type::NUMERIC, Some(raw), &mut Budget::new(bytes));
        assert_eq!(read(&huge, 1 << 16), Err(Unreadable::TooLarge));
        let Ok(Value::String(digits)) = read(&huge, 1 << 18) else { panic!("it fits") };
        assert_eq!(digits.len(), 131_070);
        assert_eq!(read(&wire(0, 16_000, &[1]), 16_000), Err(Unreadable::TooLarge));
        let short = wire(0, 2, &[12, 3400]);
        assert_eq!(read(&short, "\"12.34\"".len()), Ok("12.34".into()));
        assert_eq!(read(&wire(-3, 12, &[1]), 16), Ok("0.000000000001".into()));
    }

    #[test]
    fn an_array_spends_one_budget_for_all_its_elements() {
        let huge = wire(32_767, 0, &[10]);
        let mut raw: Vec<u8> = [1, 0, 0, 3_000, 1].map(i32::to_be_bytes).concat();
        for _ in 0..3_000 {
            raw.extend(i32::try_from(huge.len()).unwrap().to_be_bytes());
            raw.extend(&huge);
        }
        let mut budget = Budget::new(1 << 20);
        let read = json(&Type::NUMERIC_ARRAY, Some(&raw), &mut budget);
        assert_eq!(read, Err(Unreadable::TooLarge));
        assert!(budget.0 < 131_072);
    }

    #[test]
    fn what_is_spent_is_at_most_what_is_written() {
        let number = 7_i32.to_be_bytes();
        let mut pair: Vec<u8> = [1, 1, 0, 2, 1, 4, 7].map(i32::to_be_bytes).concat();
        pair.extend((-1_i32).to_be_bytes());
        for (ty, raw) in [
            (Type::TEXT, &b""[..]),
            (Type::TEXT, b"text"),
            (Type::BYTEA, b"four"),
            (Type::JSONB, b"\x01{\"a\":[1,2]}"),
            (Type::INT4, &number),
            (Type::INT4_ARRAY, &pair),
            (Type::NUMERIC, &wire(1, 4, &[1, 2, 3])),
            (Type::BOOL, b"\x01"),
        ] {
            let mut budget = Budget::new(1 << 10);
            let value = json(&ty, Some(raw), &mut budget).unwrap();
            let written = value.to_string().len() + usize::from(ty == Type::JSONB);
            let spent = (1 << 10) - budget.0;
            assert!((1..=written).contains(&spent), "{ty}: {spent} for {written}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_of_any_type_do_not_panic(raw: Vec<u8>) {
            for ty in [
                Type::BOOL, Type::INT2, Type::INT4, Type::INT8, Type::OID, Type::FLOAT4,
                Type::FLOAT8, Type::NUMERIC, Type::UUID, Type::JSON, Type::JSONB, Type::BYTEA,
                Type::DATE, Type::TIME, Type::TIMETZ, Type::TIMESTAMP, Type::TIMESTAMPTZ,
                Type::INTERVAL, Type::TEXT, Type::CHAR, Type::TEXT_ARRAY, Type::INT4_ARRAY,
                Type::NUMERIC_ARRAY,
            ] {
                let mut budget = Budget::new(1 << 20);
                drop(json(&ty, Some(&raw), &mut budget));
            }
        }

        #[test]
        fn any_moment_has_a_text(micros: i64, months: i32, days: i32) {
            prop_assert!(!timestamp(micros, "Z").is_empty());
            prop_assert!(!interval(months, days, micros).is_empty());
            prop_assert!(!date(i64::from(days)).is_empty());
        }
    }
}
