//! The mathematics of `SQLite`, which the engine is built without here.
//!
//! As the engine's own: an argument that is no number, or is out of the function's domain, gives
//! NULL, and rounding leaves an integer as it is.

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Result};

type OfOne = (&'static str, fn(f64) -> f64);
type OfTwo = (&'static str, fn(f64, f64) -> f64);

const ROUNDING: [OfOne; 4] =
    [("ceil", f64::ceil), ("ceiling", f64::ceil), ("floor", f64::floor), ("trunc", f64::trunc)];

/// What is no number is NULL to the engine, so these need not look at their domain.
const OF_ONE: [OfOne; 20] = [
    ("acos", f64::acos),
    ("acosh", f64::acosh),
    ("asin", f64::asin),
    ("asinh", f64::asinh),
    ("atan", f64::atan),
    ("atanh", f64::atanh),
    ("cos", f64::cos),
    ("cosh", f64::cosh),
    // Not to_degrees and to_radians, whose last digit differs from the engine's.
    ("degrees", |x| x * (180.0 / std::f64::consts::PI)),
    ("exp", f64::exp),
    ("ln", |x| positive(x).ln()),
    ("log", |x| positive(x).log10()),
    ("log10", |x| positive(x).log10()),
    ("log2", |x| positive(x).log2()),
    ("radians", |x| x * (std::f64::consts::PI / 180.0)),
    ("sin", f64::sin),
    ("sinh", f64::sinh),
    ("sqrt", f64::sqrt),
    ("tan", f64::tan),
    ("tanh", f64::tanh),
];

const OF_TWO: [OfTwo; 5] = [
    ("atan2", f64::atan2),
    ("log", |base, x| {
        let base = positive(base).ln();
        if base > 0.0 { positive(x).ln() / base } else { f64::NAN }
    }),
    ("mod", |x, y| x % y),
    ("pow", f64::powf),
    ("power", f64::powf),
];

pub(super) fn add(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    for (name, round) in ROUNDING {
        connection.create_scalar_function(name, 1, flags, move |call| Ok(rounded(call, round)))?;
    }
    for (name, function) in OF_ONE {
        connection.create_scalar_function(name, 1, flags, move |call| {
            Ok(number(call, 0).map(function))
        })?;
    }
    for (name, function) in OF_TWO {
        connection.create_scalar_function(name, 2, flags, move |call| {
            Ok(number(call, 0).zip(number(call, 1)).map(|(x, y)| function(x, y)))
        })?;
    }
    connection.create_scalar_function("pi", 0, flags, |_| Ok(std::f64::consts::PI))
}

fn positive(x: f64) -> f64 {
    if x > 0.0 { x } else { f64::NAN }
}

fn rounded(call: &Context<'_>, round: impl Fn(f64) -> f64) -> Value {
    if let ValueRef::Integer(value) = call.get_raw(0) {
        value.into()
    } else {
        number(call, 0).map(round).into()
    }
}

fn number(call: &Context<'_>, position: usize) -> Option<f64> {
    match call.get_raw(position) {
        #[expect(clippy::cast_precision_loss, reason = "as the engine does")]
        ValueRef::Integer(value) => Some(value as f64),
        ValueRef::Real(value) => Some(value),
        ValueRef::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of the `sqlite3` program, which is built with its mathematics.
    #[test]
    fn they_answer_as_the_engines_own() {
        let connection = Connection::open_in_memory().unwrap();
        add(&connection).unwrap();
        for (call, expected) in [
            ("ceil(1.2)", "2.0"),
            ("ceiling(-1.2)", "-1.0"),
            ("floor(-1.2)", "-2.0"),
            ("trunc(-1.7)", "-1.0"),
            ("ceil(7)", "7"),
            ("ceil('x')", "NULL"),
            ("sqrt(9)", "3.0"),
            ("sqrt(-1)", "NULL"),
            ("pow(2, 3)", "8.0"),
            ("round(power('2', 0.5), 12)", "1.414213562373"),
            ("mod(-7, 3)", "-1.0"),
            ("mod(7, 0)", "NULL"),
            ("round(ln(10), 12)", "2.302585092994"),
            ("ln(0)", "NULL"),
            ("log(1000)", "3.0"),
            ("log10(1000)", "3.0"),
            ("log2(8)", "3.0"),
            ("log(2, 8)", "3.0"),
            ("log(1, 8)", "NULL"),
            ("log(0.5, 8)", "NULL"),
            ("round(exp(1), 12)", "2.718281828459"),
            ("round(radians(180), 12)", "3.14159265359"),
            ("degrees(pi())", "180.0"),
            ("acos(2)", "NULL"),
            ("round(atan2(1, 1), 12)", "0.785398163397"),
            ("sin(NULL)", "NULL"),
        ] {
            let sql = format!("SELECT quote({call})");
            let answer: String = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
            assert_eq!(answer, expected, "{call}");
        }
    }
}
