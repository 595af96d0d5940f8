//! Types that a value may be cast to.

use sqlparser::ast::{ArrayElemTypeDef, DataType};

use super::name::Names;
use super::query::Verdict;
use super::{Dialect, Refusal, shown};

/// Types whose input and output reads nothing but the value. The other `reg…` types than that of
/// text search configurations look up names of what may not be read, and a type of the tenant's own
/// may run its functions.
const POSTGRES: &[&str] = &[
    "bigint",
    "bit",
    "bit varying",
    "bool",
    "boolean",
    "box",
    "bpchar",
    "bytea",
    "char",
    "character",
    "character varying",
    "cidr",
    "circle",
    "date",
    "datemultirange",
    "daterange",
    "decimal",
    "double precision",
    "float",
    "float4",
    "float8",
    "inet",
    "int",
    "int2",
    "int4",
    "int4multirange",
    "int4range",
    "int8",
    "int8multirange",
    "int8range",
    "integer",
    "interval",
    "json",
    "jsonb",
    "jsonpath",
    "line",
    "lseg",
    "macaddr",
    "macaddr8",
    "money",
    "name",
    "numeric",
    "nummultirange",
    "numrange",
    "oid",
    "path",
    "point",
    "polygon",
    "real",
    "regconfig",
    "smallint",
    "text",
    "time",
    "time with time zone",
    "time without time zone",
    "timestamp",
    "timestamp with time zone",
    "timestamp without time zone",
    "timestamptz",
    "timetz",
    "tsmultirange",
    "tsquery",
    "tsrange",
    "tstzmultirange",
    "tstzrange",
    "tsvector",
    "uuid",
    "varbit",
    "varchar",
];

const SQLITE: &[&str] = &[
    "bigint",
    "blob",
    "bool",
    "boolean",
    "char",
    "date",
    "datetime",
    "decimal",
    "double",
    "double precision",
    "float",
    "int",
    "integer",
    "numeric",
    "real",
    "smallint",
    "text",
    "varchar",
];

pub(super) fn check(data_type: &DataType, names: &Names) -> Verdict {
    let element = match data_type {
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _))
            if names.dialect == Dialect::Postgres =>
        {
            element
        }
        _ => data_type,
    };
    let name = match element {
        DataType::Custom(name, modifiers) => {
            let plain = modifiers.iter().all(|text| text.bytes().all(|b| b.is_ascii_digit()));
            let parts = names.parts(name)?;
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            match parts[..] {
                [name] if plain => name.to_owned(),
                ["pg_catalog", name] if plain && names.dialect == Dialect::Postgres => {
                    name.to_owned()
                }
                _ => return Err(refused(data_type)),
            }
        }
        built_in => without_precision(&built_in.to_string()).to_ascii_lowercase(),
    };
    let known = match names.dialect {
        Dialect::Postgres => POSTGRES,
        Dialect::Sqlite => SQLITE,
    };
    if known.contains(&name.as_str()) { Ok(()) } else { Err(refused(data_type)) }
}

/// `NUMERIC(10,2)` is `NUMERIC`, `TIMESTAMP(3) WITH TIME ZONE` is `TIMESTAMP WITH TIME ZONE`; what
/// has anything but numbers in brackets stays as it is, and then is on no list.
fn without_precision(name: &str) -> String {
    if let (Some(open), Some(close)) = (name.find('('), name.find(')'))
        && let (Some(before), Some(within), Some(after)) =
            (name.get(..open), name.get(open + 1..close), name.get(close + 1..))
        && within.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b' '))
    {
        return format!("{before}{after}");
    }
    name.to_owned()
}

fn refused(data_type: &DataType) -> Refusal {
    Refusal::new(
        "type",
        format!(
            "a cast to {} is not allowed; the engine's own number, text, date, JSON, range and uuid \
             types are",
            shown(&data_type.to_string())
        ),
    )
}
