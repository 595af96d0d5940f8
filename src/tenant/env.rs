//! References to variables inside the strings of a tenant file.
//!
//! `${VAR}` is required, `${VAR:default}` is not, `$${` is a literal `${`. References may stand
//! anywhere in a string and more than once; a default is taken as it stands, up to the next `}`.
//! A value that comes out is never scanned again, so a secret that contains `${` is safe.

use zeroize::Zeroizing;

/// Looks a variable up: the environment in production, a map in tests.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<Zeroizing<String>>;

/// Why a string with references has no value.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// Required variables that are not set, in order of appearance.
    #[error("variable {} is not set", .0.join(", "))]
    Missing(Vec<String>),
    /// `${` without `}`.
    #[error("\"${{\" without a closing \"}}\" (write \"$${{\" for a literal \"${{\")")]
    Unclosed,
    /// A name that no variable can have.
    #[error("a variable name has letters, digits and \"_\", and does not start with a digit")]
    Name,
}

/// Replaces every reference in `template`.
pub(super) fn resolve(
    template: &str,
    lookup: Lookup<'_>,
) -> Result<Zeroizing<String>, TemplateError> {
    let mut parts: Vec<Zeroizing<String>> = Vec::new();
    let mut missing = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(kept) = before.strip_suffix('$') {
            parts.push(Zeroizing::new(format!("{kept}${{")));
            rest = after;
            continue;
        }
        parts.push(Zeroizing::new(before.to_owned()));
        let end = after.find('}').ok_or(TemplateError::Unclosed)?;
        let (name, default) = match after[..end].split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (&after[..end], None),
        };
        if !is_variable_name(name) {
            return Err(TemplateError::Name);
        }
        match (lookup(name), default) {
            (Some(value), _) => parts.push(value),
            (None, Some(default)) => parts.push(Zeroizing::new(default.to_owned())),
            (None, None) => missing.push(name.to_owned()),
        }
        rest = &after[end + 1..];
    }
    if !missing.is_empty() {
        return Err(TemplateError::Missing(missing));
    }
    // One exact allocation: a string that grew would leave copies of its beginnings behind.
    let length = parts.iter().map(|part| part.len()).sum::<usize>() + rest.len();
    let mut value = Zeroizing::new(String::with_capacity(length));
    for part in &parts {
        value.push_str(part);
    }
    value.push_str(rest);
    Ok(value)
}

/// Whether `template` says its value itself, without any variable.
pub(super) fn is_literal(template: &str) -> bool {
    !template.replace("$${", "").contains("${")
}

fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first == b'_' || first.is_ascii_alphabetic())
        && bytes.all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, expected: Result<&str, TemplateError>) {
        let lookup = |name: &str| match name {
            "USER" => Some(Zeroizing::new("ann".to_owned())),
            "ODD" => Some(Zeroizing::new("${USER}".to_owned())),
            "EMPTY" => Some(Zeroizing::new(String::new())),
            _ => None,
        };
        let actual = resolve(template, &lookup).map(|value| value.to_string());
        assert_eq!(actual, expected.map(str::to_owned));
    }

    #[test]
    fn references_stand_anywhere_and_more_than_once() {
        check("${USER}", Ok("ann"));
        check("a-${USER}-${USER}.example", Ok("a-ann-ann.example"));
        check("plain", Ok("plain"));
        check("", Ok(""));
        check("cost: $5 {ok}", Ok("cost: $5 {ok}"));
    }

    #[test]
    fn a_default_stands_in_for_a_missing_variable_only() {
        check("${NONE:fallback}", Ok("fallback"));
        check("${NONE:}", Ok(""));
        check("${NONE:a:b}", Ok("a:b"));
        check("${USER:fallback}", Ok("ann"));
        check("${EMPTY:fallback}", Ok(""));
    }

    #[test]
    fn every_missing_variable_is_named() {
        let missing = vec!["A1".to_owned(), "B2".to_owned()];
        check("${A1}${USER}${B2}", Err(TemplateError::Missing(missing)));
    }

    #[test]
    fn a_doubled_dollar_is_a_literal_and_values_are_not_scanned_again() {
        check("$${USER}", Ok("${USER}"));
        check("${ODD}", Ok("${USER}"));
        check("$$${USER}", Ok("$${USER}"));
    }

    #[test]
    fn a_broken_reference_is_an_error() {
        check("${USER", Err(TemplateError::Unclosed));
        check("${}", Err(TemplateError::Name));
        check("${1A}", Err(TemplateError::Name));
        check("${A B}", Err(TemplateError::Name));
    }
}
