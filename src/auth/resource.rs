//! What clients are told of where to get access tokens (RFC 9728).
//!
//! The same for every id that could be a tenant's: who asks needs no token, and whether there is such
//! a tenant is not looked up.

use super::Auth;
use crate::tenant::{IdRule, Permission, Permissions, TenantId};

/// An endpoint as the resource of OAuth that it is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ProtectedResource {
    /// Its URL, which tokens for it have as `aud` unless a setting says otherwise.
    pub resource: String,
    /// Where its metadata is.
    pub metadata_url: String,
    /// The issuers whose tokens are admitted.
    pub authorization_servers: Vec<String>,
    /// The scopes that allow anything, in the words of the issuers, and what.
    pub scopes: Vec<(String, Permission)>,
}

impl ProtectedResource {
    /// The names of the scopes that allow one of `permissions`.
    pub fn scopes_for(&self, permissions: Permissions) -> Vec<&str> {
        let allowing = self.scopes.iter().filter(|(_, allowed)| permissions.include(*allowed));
        allowing.map(|(name, _)| name.as_str()).collect()
    }
}

impl Auth {
    /// The endpoint whose path names `path_tenant`, or the one for all. Nothing where no issuer is, or
    /// the name could be no tenant's.
    pub fn protected_resource(&self, path_tenant: Option<&str>) -> Option<ProtectedResource> {
        let issuers = self.issuers();
        let public_url = issuers.public_url.as_ref().filter(|_| !issuers.list.is_empty())?;
        let tenant = match path_tenant {
            Some(named) => Some(TenantId::parse(named, IdRule::AllowUnderscore).ok()?),
            None => None,
        };
        let mut scopes: Vec<(String, Permission)> = Vec::new();
        for (name, permission) in issuers.list.iter().flat_map(|it| it.options.known_scopes()) {
            if !scopes.iter().any(|(known, _)| known == name) {
                scopes.push((name.to_owned(), permission));
            }
        }
        let issuers = issuers.list.iter().map(|issuer| issuer.options.issuer.clone());
        Some(ProtectedResource {
            resource: public_url.resource(tenant.as_ref()),
            metadata_url: public_url.metadata(tenant.as_ref()),
            authorization_servers: issuers.collect(),
            scopes,
        })
    }
}
