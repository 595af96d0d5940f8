//! What the settings say of issuers, checked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::algorithm::Algorithm;
use crate::tenant::{Permission, TenantId};

/// Longest clock skew: a token should not outlive its end by much.
const MAX_SKEW: Duration = Duration::from_mins(5);

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {message}")]
#[non_exhaustive]
pub struct Invalid {
    /// Which.
    pub place: String,
    /// Why, and the way out.
    pub message: String,
}

/// Where this service is reached: scheme and host, with the port if it is another than usual.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublicUrl(String);

/// An issuer of access tokens.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field from the settings")]
pub struct IssuerOptions {
    /// Its name: `iss` of its tokens, to the letter.
    pub issuer: String,
    /// Where its keys are.
    pub keys: KeySource,
    /// Root certificates to reach it with, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The algorithms that its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// What `aud` of its tokens must name, `{tenant}` standing for the tenant; the URL of the endpoint
    /// when nothing is said.
    pub audience: Option<String>,
    /// The tenants that it may vouch for; all, when nothing is said.
    pub tenants: Option<Vec<TenantId>>,
    /// The claim with the tenant's id.
    pub tenant_claim: String,
    /// The claim with the scopes: a list, or a text with spaces.
    pub scope_claim: String,
    /// What its scopes allow; when empty, they have the names of permissions.
    pub scopes: BTreeMap<String, Permission>,
    /// By how much its clock may differ.
    pub clock_skew: Duration,
    /// Whether a token must say by `typ` that it is an access token.
    pub require_typ: bool,
}

/// Where the keys of an issuer are.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the two settings")]
pub enum KeySource {
    /// In a file, which is read when the settings are.
    File(PathBuf),
    /// Served by the issuer.
    Url(Url),
}

impl KeySource {
    /// The key set that is served at `text`.
    ///
    /// # Errors
    ///
    /// A sentence, unless it is a URL with https, or with http on this machine.
    pub fn at(text: &str) -> Result<Self, &'static str> {
        Ok(Self::Url(secure_url(text)?))
    }
}

impl PublicUrl {
    /// Reads `text`, such as `https://mcp.example.com`.
    ///
    /// # Errors
    ///
    /// A sentence, unless it is scheme and host, with https or of this machine.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = secure_url(text)?;
        if url.path() != "/" || url.query().is_some() {
            return Err("must be scheme and host only: paths are ours");
        }
        Ok(Self(url.origin().ascii_serialization()))
    }

    /// The endpoint of `tenant`, or the one for all, as a resource indicator (RFC 8707) names it.
    pub fn resource(&self, tenant: Option<&TenantId>) -> String {
        format!("{self}{}", path(tenant))
    }

    /// Where the metadata of that endpoint is (RFC 9728 section 3.1).
    pub fn metadata(&self, tenant: Option<&TenantId>) -> String {
        format!("{self}/.well-known/oauth-protected-resource{}", path(tenant))
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl IssuerOptions {
    /// Checks what can be checked without reaching anything.
    ///
    /// # Errors
    ///
    /// [`Invalid`], which names the setting.
    pub fn check(&self) -> Result<(), Invalid> {
        let refuse = |key: &str, message: &str| {
            let place = format!("auth.issuers.{key} ({})", self.issuer);
            Err(Invalid { place, message: message.to_owned() })
        };
        if let Err(message) = secure_url(&self.issuer) {
            return refuse("issuer", message);
        }
        if self.algorithms.is_empty() {
            return refuse("algorithms", "must name those that its tokens are signed with");
        }
        if self.clock_skew > MAX_SKEW {
            return refuse("clock_skew_seconds", "must be at most 300");
        }
        if self.tenant_claim.is_empty() {
            return refuse("tenant_claim", "must name the claim with the tenant's id");
        }
        if self.audience.as_ref().is_some_and(String::is_empty) {
            return refuse("audience", "must not be empty; leave it out for the endpoint's URL");
        }
        Ok(())
    }

    /// Its scopes that allow anything, and what.
    pub(in crate::auth) fn known_scopes(&self) -> Vec<(&str, Permission)> {
        if self.scopes.is_empty() {
            Permission::ALL.map(|permission| (permission.as_str(), permission)).to_vec()
        } else {
            self.scopes.iter().map(|(name, permission)| (name.as_str(), *permission)).collect()
        }
    }
}

fn path(tenant: Option<&TenantId>) -> String {
    tenant.map_or_else(|| "/mcp".to_owned(), |tenant| format!("/mcp/{tenant}"))
}

fn secure_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "must be a URL such as https://id.example.com")?;
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    let is_here = address.map_or(host == "localhost", |address| address.is_loopback());
    if url.scheme() != "https" && !(url.scheme() == "http" && is_here) {
        return Err("must be https; http only on this machine");
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("must have neither a user nor a fragment");
    }
    if !text.is_ascii() || text.contains(['"', '\\', ' ']) {
        return Err("must be ASCII, without quotation marks and spaces");
    }
    Ok(url)
}
