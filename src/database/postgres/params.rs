//! Bound values: from JSON to the text form of the type that the statement wants.
//!
//! Values travel as text and the server reads them as it reads literals of that type, so there is
//! one reader for each type, and it is the server's. A value has the JSON form that the same type
//! has in an answer (docs/results.md); only where JSON has the very type is anything else refused.

use base64::Engine as _;
use serde_json::Value;

use super::values::{Form, ValueType};
use crate::database::Error;

/// Pairs `values` with the `types` of the statement: texts, or `None` for NULL.
pub(super) fn bind(types: &[ValueType], values: &[Value]) -> Result<Vec<Option<String>>, Error> {
    if types.len() != values.len() {
        return Err(Error::ParameterCount { expected: types.len(), given: values.len() });
    }
    types
        .iter()
        .zip(values)
        .enumerate()
        .map(|(position, (ty, value))| {
            if value.is_null() {
                return Ok(None);
            }
            let expected = || format!("{} is expected, for type {}", expected(&ty.form), ty.name);
            match text(&ty.form, value) {
                Some(text) => Ok(Some(text)),
                None => Err(Error::InvalidParameter { position, expected: expected() }),
            }
        })
        .collect()
}

/// What a value of `form` has to be.
fn expected(form: &Form) -> &'static str {
    match form {
        Form::Boolean => "true or false",
        Form::Integer => "an integer",
        Form::Float => "a number",
        Form::Document => "a JSON value",
        Form::Bytes => "a string of base64",
        Form::Array { .. } | Form::Vector => "an array",
        Form::Interval
        | Form::Number
        | Form::Text
        | Form::TimeZone
        | Form::Timestamp
        | Form::TimestampZone => "a string without NUL",
    }
}

/// `value` as the server reads a literal of `form`; `None` when it does not fit.
fn text(form: &Form, value: &Value) -> Option<String> {
    let text = match (form, value) {
        (Form::Array { element, delimiter }, Value::Array(values)) => {
            return array(element, *delimiter, values);
        }
        (Form::Vector, Value::Array(values)) => {
            let numbers = values.iter().map(|value| text(&Form::Integer, value));
            return Some(numbers.collect::<Option<Vec<_>>>()?.join(" "));
        }
        (Form::Document, value) => return Some(value.to_string()),
        (Form::Boolean, Value::Bool(value)) => value.to_string(),
        (Form::Integer, Value::Number(number)) => number.as_i64()?.to_string(),
        // As they come where JSON readers would round them.
        (Form::Integer, Value::String(text)) if !is_exact(text) => {
            text.parse::<i64>().ok()?.to_string()
        }
        (Form::Float | Form::Number, Value::Number(number)) => number.to_string(),
        (Form::Float, Value::String(text))
            if matches!(text.as_str(), "NaN" | "Infinity" | "-Infinity") =>
        {
            text.clone()
        }
        (Form::Bytes, Value::String(text)) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
            let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
            format!("\\x{}", digits.collect::<String>())
        }
        (
            Form::Interval
            | Form::Number
            | Form::Text
            | Form::TimeZone
            | Form::Timestamp
            | Form::TimestampZone,
            Value::String(text),
        ) => text.clone(),
        _ => return None,
    };
    // The server ends a text at NUL.
    (!text.contains('\0')).then_some(text)
}

/// Whether `text` is an integer that has a number in JSON, and so should be one.
fn is_exact(text: &str) -> bool {
    text.parse::<i64>().is_ok_and(|value| value.unsigned_abs() <= 1 << 53)
}

/// An array literal, every element quoted.
pub(super) fn array(element: &Form, delimiter: char, values: &[Value]) -> Option<String> {
    let mut literal = "{".to_owned();
    for (position, value) in values.iter().enumerate() {
        if position > 0 {
            literal.push(delimiter);
        }
        if value.is_null() {
            literal.push_str("NULL");
        // Documents are arrays themselves; elements of others never are.
        } else if let (Value::Array(inner), false) = (value, *element == Form::Document) {
            literal.push_str(&array(element, delimiter, inner)?);
        } else {
            push_quoted(&mut literal, &text(element, value)?);
        }
    }
    literal.push('}');
    Some(literal)
}

/// An array literal of texts.
pub(super) fn texts<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> String {
    let mut literal = "{".to_owned();
    for value in values {
        if literal.len() > 1 {
            literal.push(',');
        }
        push_quoted(&mut literal, value.as_ref());
    }
    literal.push('}');
    literal
}

fn push_quoted(literal: &mut String, text: &str) {
    literal.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            literal.push('\\');
        }
        literal.push(character);
    }
    literal.push('"');
}
