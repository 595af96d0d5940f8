//! `[auth]` and `[[auth.issuers]]`: who may call.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::auth::{self, Algorithm, IssuerOptions, KeySource, PublicUrl};
use crate::tenant::{IdRule, Permission, TenantId};

/// `[auth]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AuthSettings {
    /// How many failures of one address or token are answered and recorded one by one in a minute.
    /// Those beyond are told 429 and recorded together; valid tokens work all the same. Default 100.
    pub failures_per_minute: u32,
    /// Whose access tokens are admitted beside tokens of ours. Default none.
    pub issuers: Vec<IssuerSettings>,
}

/// `[[auth.issuers]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct IssuerSettings {
    /// `iss` of its tokens, to the letter.
    pub issuer: String,
    /// Where it serves its keys, a JWK set; or [`Self::jwks_file`].
    pub jwks_url: Option<String>,
    /// A file with its keys, read at the start and when settings are read again.
    pub jwks_file: Option<PathBuf>,
    /// PEM root certificates to reach it with. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// The algorithms that it signs with, such as `["RS256"]`.
    pub algorithms: Vec<String>,
    /// What `aud` must name; `{tenant}` stands for the tenant. Default: the URL of the endpoint.
    pub audience: Option<String>,
    /// The claim with the tenant's id.
    pub tenant_claim: String,
    /// The tenants that it may vouch for. Default all.
    pub tenants: Option<Vec<String>>,
    /// The claim with the scopes. Default `scope`.
    #[serde(default = "scope")]
    pub scope_claim: String,
    /// What its scopes allow: `{ "crm:read" = "query" }`. Default: their names are `list`, `query`,
    /// `metadata` and `write`.
    #[serde(default)]
    pub scopes: BTreeMap<String, String>,
    /// By how much its clock may differ. Default 30.
    #[serde(default = "clock_skew")]
    pub clock_skew_seconds: u64,
    /// Whether `typ` of a token must be `at+jwt`. Default false: `JWT` and none are admitted too.
    #[serde(default)]
    pub require_typ: bool,
}

fn scope() -> String {
    "scope".to_owned()
}

fn clock_skew() -> u64 {
    30
}

impl Default for AuthSettings {
    fn default() -> Self {
        let failures_per_minute = auth::Options::default().failures_per_minute;
        Self { failures_per_minute, issuers: Vec::new() }
    }
}

impl AuthSettings {
    /// What they say, for a service that is reached at `public_url`.
    pub(super) fn options(&self, public_url: Option<PublicUrl>) -> Result<auth::Options, Error> {
        let refuse = |place: &str, message: &str| {
            Err(Error { place: place.to_owned(), message: message.to_owned() })
        };
        let failures_per_minute = self.failures_per_minute;
        if failures_per_minute == 0 {
            return refuse("auth.failures_per_minute", "must be at least 1");
        }
        if public_url.is_none() && !self.issuers.is_empty() {
            return refuse(
                "http.public_url",
                "must be set where issuers are: their tokens are made for it",
            );
        }
        for (at, settings) in self.issuers.iter().enumerate() {
            if self.issuers[..at].iter().any(|earlier| earlier.issuer == settings.issuer) {
                return refuse("auth.issuers", "two have the same name");
            }
        }
        let issuers = self.issuers.iter().map(IssuerSettings::options).collect::<Result<_, _>>()?;
        Ok(auth::Options { failures_per_minute, public_url, issuers })
    }
}

impl IssuerSettings {
    fn options(&self) -> Result<IssuerOptions, Error> {
        let refuse = |key: &str, message: String| Error {
            place: format!("auth.issuers.{key} ({})", self.issuer),
            message,
        };
        let keys = match (&self.jwks_url, &self.jwks_file) {
            (Some(url), None) => {
                KeySource::at(url).map_err(|message| refuse("jwks_url", message.to_owned()))?
            }
            (None, Some(file)) => KeySource::File(file.clone()),
            (Some(_), Some(_)) | (None, None) => {
                return Err(refuse(
                    "jwks_url",
                    "one of jwks_url and jwks_file is needed".to_owned(),
                ));
            }
        };
        let algorithm = |name: &String| {
            let known = Algorithm::ALL.map(Algorithm::as_str).join(", ");
            Algorithm::parse(name)
                .ok_or_else(|| refuse("algorithms", format!("{name:?} is none of {known}")))
        };
        let tenant = |name: &String| {
            TenantId::parse(name, IdRule::AllowUnderscore)
                .map_err(|error| refuse("tenants", error.to_string()))
        };
        let scope = |(name, allowed): (&String, &String)| {
            let is_scope =
                name.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
            let permission = Permission::parse(allowed).filter(|_| is_scope && !name.is_empty());
            let allowed = permission.ok_or_else(|| {
                let message = "a scope allows one of list, query, metadata, write, and its name has \
                               neither spaces nor quotation marks";
                refuse("scopes", message.to_owned())
            })?;
            Ok::<_, Error>((name.clone(), allowed))
        };
        let tenants = self.tenants.as_ref();
        let options = IssuerOptions {
            issuer: self.issuer.clone(),
            keys,
            ca_file: self.ca_file.clone(),
            algorithms: self.algorithms.iter().map(algorithm).collect::<Result<_, _>>()?,
            audience: self.audience.clone(),
            tenants: tenants.map(|it| it.iter().map(tenant).collect()).transpose()?,
            tenant_claim: self.tenant_claim.clone(),
            scope_claim: self.scope_claim.clone(),
            scopes: self.scopes.iter().map(scope).collect::<Result<_, _>>()?,
            clock_skew: Duration::from_secs(self.clock_skew_seconds),
            require_typ: self.require_typ,
        };
        options.check()?;
        Ok(options)
    }
}
