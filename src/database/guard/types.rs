//! Types that a value may be cast to.

use sqlparser::ast::{ArrayElemTypeDef, DataType, ObjectName};

use super::name::Names;
use super::query::{Verdict, Walk};
use super::quote::RESERVED;
use super::{Dialect, Refusal, shown};
use crate::tenant::RelationName;

/// Types whose input and output reads nothing but the value. The other `reg…` types than that of
/// text search configurations look up names of what may not be read.
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

/// Built-in types that are never taken for the tenant's own. The session would not find them in the
/// tenant's schema either.
const BUILT_IN: &[&str] = &[
    "aclitem",
    "any",
    "anyarray",
    "anyelement",
    "cid",
    "cstring",
    "gtsvector",
    "int2vector",
    "internal",
    "oidvector",
    "record",
    "refcursor",
    "regclass",
    "regcollation",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
    "tid",
    "trigger",
    "txid_snapshot",
    "unknown",
    "void",
    "xid",
    "xid8",
    "xml",
];

impl Walk<'_> {
    /// A type that a value is cast to. One of the tenant's own, which may run functions of the
    /// tenant's, is for the session to look up: it has to be an enum or a plain domain.
    pub(super) fn data_type(&mut self, data_type: &DataType) -> Verdict {
        let element = match data_type {
            DataType::Array(ArrayElemTypeDef::SquareBracket(element, _))
                if self.names.dialect == Dialect::Postgres =>
            {
                element
            }
            _ => data_type,
        };
        let name = match element {
            DataType::Custom(name, modifiers) => {
                if let Some(own) = own_name(name, self.names)?.filter(|_| modifiers.is_empty()) {
                    self.found.own_types.insert(own);
                    return Ok(());
                }
                let plain = modifiers.iter().all(|text| text.bytes().all(|b| b.is_ascii_digit()));
                let parts = self.names.parts(name)?;
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                match parts[..] {
                    [name] if plain => name.to_owned(),
                    ["pg_catalog", name] if plain && self.names.dialect == Dialect::Postgres => {
                        name.to_owned()
                    }
                    _ => return Err(refused(data_type)),
                }
            }
            built_in => without_precision(&built_in.to_string()).to_ascii_lowercase(),
        };
        let known = match self.names.dialect {
            Dialect::Postgres => POSTGRES,
            Dialect::Sqlite => SQLITE,
        };
        if known.contains(&name.as_str()) { Ok(()) } else { Err(refused(data_type)) }
    }
}

/// The name of a type that can only be one of the tenant's schema, if `name` is one.
fn own_name(name: &ObjectName, names: &Names) -> Result<Option<String>, Refusal> {
    if names.dialect == Dialect::Sqlite {
        return Ok(None);
    }
    let mut parts = names.parts(name)?;
    let (Some(own), schema, true) = (parts.pop(), parts.pop(), parts.is_empty()) else {
        return Ok(None);
    };
    let written = names.canonical(&RelationName { schema, name: own });
    let is_built_in = POSTGRES.contains(&&*written.name)
        || RESERVED.binary_search(&&*written.name).is_ok()
        || BUILT_IN.contains(&&*written.name)
        || written.name.starts_with("pg_")
        // Arrays, as the engine names them.
        || written.name.starts_with('_');
    Ok((written.schema.is_none() && !is_built_in).then_some(written.name))
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
             types are, on PostgreSQL also enums and domains of the schema",
            shown(&data_type.to_string())
        ),
    )
}
