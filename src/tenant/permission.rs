//! What a caller of a tenant may do there.

use std::fmt;

/// One kind of use; a token carries a set of them as its scopes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "the scopes of the token format")]
pub enum Permission {
    /// List resources and read their schemas.
    List,
    /// Read the tenant's own limits and usage.
    Metadata,
    /// Read rows.
    Query,
    /// Change rows, where `access.mode` allows it.
    Write,
}

impl Permission {
    /// All of them, in the order of listings.
    pub const ALL: [Self; 4] = [Self::List, Self::Query, Self::Metadata, Self::Write];

    /// The scope's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Metadata => "metadata",
            Self::Query => "query",
            Self::Write => "write",
        }
    }

    /// The permission that [`Permission::as_str`] gives as `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == name)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Permissions(u8);

impl Permissions {
    /// Everything but writing: what a token has when nothing else is said.
    pub const READ: Self = Self(
        1 << Permission::List as u8
            | 1 << Permission::Metadata as u8
            | 1 << Permission::Query as u8,
    );

    /// Whether `permission` is among them.
    pub fn include(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u8) != 0
    }

    /// The members, in the order of listings.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |permission| self.include(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |set, permission| set | 1 << permission as u8))
    }
}
