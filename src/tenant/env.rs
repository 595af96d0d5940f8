//! References to variables inside the strings of a tenant file.
//!
//! `${VAR}` is required, `${VAR:default}` is not, `$${` is a literal `${`. References may stand
//! anywhere in a string and more than once; a default is taken as it stands, up to the next `}`.
//! A value that comes out is never scanned again, so a secret that contains `${` is safe.

use secrecy::ExposeSecret;

use crate::memory::{SecretText, SecretTextBuilder};

/// Looks a variable up: the environment in production, a map in tests.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<SecretText>;

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

/// A stretch of the value.
enum Part<'a> {
    Verbatim(&'a str),
    Variable(SecretText),
}

impl Part<'_> {
    #[expect(clippy::disallowed_methods, reason = "it becomes part of a secret")]
    fn as_str(&self) -> &str {
        match self {
            Self::Verbatim(text) => text,
            Self::Variable(value) => value.expose_secret(),
        }
    }
}

/// Replaces every reference in `template`.
pub(super) fn resolve(template: &str, lookup: Lookup<'_>) -> Result<SecretText, TemplateError> {
    let mut parts = Vec::new();
    let mut missing = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(kept) = before.strip_suffix('$') {
            parts.extend([Part::Verbatim(kept), Part::Verbatim("${")]);
            rest = after;
            continue;
        }
        parts.push(Part::Verbatim(before));
        let end = after.find('}').ok_or(TemplateError::Unclosed)?;
        let (name, default) = match after[..end].split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (&after[..end], None),
        };
        if !is_variable_name(name) {
            return Err(TemplateError::Name);
        }
        match (lookup(name), default) {
            (Some(value), _) => parts.push(Part::Variable(value)),
            (None, Some(default)) => parts.push(Part::Verbatim(default)),
            (None, None) => missing.push(name.to_owned()),
        }
        rest = &after[end + 1..];
    }
    if !missing.is_empty() {
        return Err(TemplateError::Missing(missing));
    }
    parts.push(Part::Verbatim(rest));
    // Straight into where the value stays, which has the right size from the beginning.
    let length = parts.iter().map(|part| part.as_str().len()).sum();
    let mut value = SecretTextBuilder::with_capacity(length);
    for part in &parts {
        value.push_str(part.as_str());
    }
    Ok(value.finish())
}

/// Whether `template` says its value itself, without any variable.
pub(super) fn is_literal(template: &str) -> bool {
    // Without a copy of the template, which is the secret when it is a literal.
    template.match_indices("${").all(|(at, _)| template[..at].ends_with('$'))
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
            "USER" => Some(SecretText::from("ann")),
            "ODD" => Some(SecretText::from("${USER}")),
            "EMPTY" => Some(SecretText::from("")),
            _ => None,
        };
        let actual =
            resolve(template, &lookup).map(|value| Part::Variable(value).as_str().to_owned());
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
    fn a_literal_has_no_reference_that_counts() {
        for literal in ["", "plain", "$5", "$${USER}", "a$${b$${", "$$${USER}"] {
            assert!(is_literal(literal), "{literal}");
        }
        for template in ["${USER}", "a${USER}", "$${USER}${USER}", "${NONE:literal}"] {
            assert!(!is_literal(template), "{template}");
        }
    }

    #[test]
    fn a_broken_reference_is_an_error() {
        check("${USER", Err(TemplateError::Unclosed));
        check("${}", Err(TemplateError::Name));
        check("${1A}", Err(TemplateError::Name));
        check("${A B}", Err(TemplateError::Name));
    }
}
