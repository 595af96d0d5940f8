//! Bound values: from JSON to the text form of the type that the statement wants.
//!
//! Values travel as text and the server reads them as it reads literals of that type, so there is
//! one reader for each type, and it is the server's.

use std::error::Error as StdError;

use postgres_types::private::BytesMut;
use postgres_types::{Format, IsNull, Kind, ToSql, Type, to_sql_checked};
use serde_json::Value;

use crate::database::Error;

/// A value to bind; `None` is NULL.
#[derive(Debug)]
pub(super) struct Parameter(Option<String>);

/// Pairs `values` with the `types` of the statement.
pub(super) fn bind(types: &[Type], values: &[Value]) -> Result<Vec<Parameter>, Error> {
    if types.len() != values.len() {
        return Err(Error::ParameterCount { expected: types.len(), given: values.len() });
    }
    types
        .iter()
        .zip(values)
        .enumerate()
        .map(|(position, (ty, value))| {
            if value.is_null() {
                return Ok(Parameter(None));
            }
            let expected = || format!("a JSON value for {} is expected", ty.name());
            match text(ty, value) {
                Some(text) => Ok(Parameter(Some(text))),
                None => Err(Error::InvalidParameter { position, expected: expected() }),
            }
        })
        .collect()
}

/// `value` as the server reads a literal of `ty`; `None` when it does not fit.
fn text(ty: &Type, value: &Value) -> Option<String> {
    if let Kind::Array(element) = ty.kind() {
        return array(element, value.as_array()?);
    }
    if matches!(*ty, Type::JSON | Type::JSONB) {
        return Some(value.to_string());
    }
    let text = match (ty, value) {
        (&Type::BOOL, Value::Bool(value)) => value.to_string(),
        (&Type::INT2 | &Type::INT4 | &Type::INT8 | &Type::OID, Value::Number(number)) => {
            number.as_i64()?.to_string()
        }
        (&Type::FLOAT4 | &Type::FLOAT8 | &Type::NUMERIC, Value::Number(number)) => {
            number.to_string()
        }
        (&Type::INT8, Value::String(text)) => text.parse::<i64>().ok()?.to_string(),
        (ty, Value::String(text)) if reads_text(ty) => text.clone(),
        _ => return None,
    };
    // The wire format has no way to say NUL in a text.
    (!text.contains('\0')).then_some(text)
}

fn reads_text(ty: &Type) -> bool {
    matches!(ty.kind(), Kind::Enum(_))
        || [
            Type::BPCHAR,
            Type::DATE,
            Type::INTERVAL,
            Type::NUMERIC,
            Type::TEXT,
            Type::TIME,
            Type::TIMESTAMP,
            Type::TIMESTAMPTZ,
            Type::TIMETZ,
            Type::UUID,
            Type::VARCHAR,
        ]
        .contains(ty)
}

/// An array literal of one dimension, every element quoted.
fn array(element: &Type, values: &[Value]) -> Option<String> {
    let mut literal = "{".to_owned();
    for (position, value) in values.iter().enumerate() {
        if position > 0 {
            literal.push(',');
        }
        if value.is_null() {
            literal.push_str("NULL");
            continue;
        }
        literal.push('"');
        for character in text(element, value)?.chars() {
            if matches!(character, '"' | '\\') {
                literal.push('\\');
            }
            literal.push(character);
        }
        literal.push('"');
    }
    literal.push('}');
    Some(literal)
}

impl ToSql for Parameter {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match &self.0 {
            None => Ok(IsNull::Yes),
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}
