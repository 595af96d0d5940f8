//! Tenant ids.

use std::fmt;

/// A tenant's id: `[A-Za-z0-9]{6,20}`, by setting also `_` after the first character.
///
/// Compared byte for byte. Made only by [`TenantId::parse`], so whoever holds one need not check it.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TenantId(Box<str>);

/// Which characters an id may have.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the two values of one setting")]
pub enum IdRule {
    /// Letters and digits.
    #[default]
    Alphanumeric,
    /// Also `_`, but not first: setting `tenant_id.allow_underscore`.
    AllowUnderscore,
}

/// Which part of the rule an id breaks. Says nothing about whether such a tenant exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTenantId {
    /// A character outside the rule.
    #[error("a tenant id has letters a-z, A-Z and digits 0-9 only")]
    Character,
    /// An underscore, which a setting could admit.
    #[error(
        "a tenant id has letters a-z, A-Z and digits 0-9 only; to admit \"_\" after the first \
         character, set tenant_id.allow_underscore = true"
    )]
    Underscore,
    /// Not 6 to 20 characters.
    #[error("a tenant id has 6 to 20 characters; this one has {0}")]
    Length(usize),
}

impl TenantId {
    /// Parses `text` under `rule`.
    pub fn parse(text: &str, rule: IdRule) -> Result<Self, InvalidTenantId> {
        for (position, byte) in text.bytes().enumerate() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {}
                b'_' if position > 0 && rule == IdRule::AllowUnderscore => {}
                b'_' if rule == IdRule::Alphanumeric => return Err(InvalidTenantId::Underscore),
                _ => return Err(InvalidTenantId::Character),
            }
        }
        if !(6..=20).contains(&text.len()) {
            return Err(InvalidTenantId::Length(text.chars().count()));
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `other` differs, but only in the case of letters. Such a pair is refused at import:
    /// people, and file systems, would take one for the other.
    pub fn differs_only_in_case(&self, other: &Self) -> bool {
        self != other && self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, rule: IdRule, expected: Result<(), InvalidTenantId>) {
        assert_eq!(TenantId::parse(text, rule).map(|_| ()), expected, "{text:?}");
    }

    #[test]
    fn an_id_has_6_to_20_letters_and_digits() {
        let rule = IdRule::Alphanumeric;
        check("tenant001", rule, Ok(()));
        check("tenant123456", rule, Ok(()));
        check("abcdef", rule, Ok(()));
        check(&"a".repeat(20), rule, Ok(()));
        check("short", rule, Err(InvalidTenantId::Length(5)));
        check(&"a".repeat(21), rule, Err(InvalidTenantId::Length(21)));
        check("", rule, Err(InvalidTenantId::Length(0)));
        check("tenant-001", rule, Err(InvalidTenantId::Character));
        check("tenаnt001", rule, Err(InvalidTenantId::Character)); // Cyrillic а
        check("tenant 01", rule, Err(InvalidTenantId::Character));
        check("tenant01\0", rule, Err(InvalidTenantId::Character));
    }

    #[test]
    fn an_underscore_needs_the_setting_and_a_character_before_it() {
        check("tenant_001", IdRule::Alphanumeric, Err(InvalidTenantId::Underscore));
        check("tenant_001", IdRule::AllowUnderscore, Ok(()));
        check("_tenant01", IdRule::AllowUnderscore, Err(InvalidTenantId::Character));
        check("tenant-001", IdRule::AllowUnderscore, Err(InvalidTenantId::Character));
    }

    #[test]
    fn ids_that_differ_in_case_are_different_and_told_apart() {
        let parse = |text| TenantId::parse(text, IdRule::Alphanumeric).unwrap();
        assert_ne!(parse("tenant001"), parse("Tenant001"));
        assert!(parse("tenant001").differs_only_in_case(&parse("Tenant001")));
        assert!(!parse("tenant001").differs_only_in_case(&parse("tenant001")));
    }
}
