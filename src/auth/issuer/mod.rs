//! Access tokens of issuers that the settings name: OAuth 2.1, this being the resource server.
//!
//! ```text
//! token --taken apart--> iss --> the issuer, of the settings --> algorithm pinned? key by kid
//!       --> signature --> typ, aud, exp, nbf --> claims: tenant, scopes, subject --> Vouched
//! ```
//!
//! Everything of a token but `iss` and `kid` is read only for a decision after the signature; those two
//! are compared with what is known, and nothing is fetched because a token says so. There is no
//! introspection and no revocation: tokens of issuers should be short-lived. Whose tenant a caller is
//! for is in a claim, so an issuer is trusted with the tenants that it may name
//! ([`IssuerOptions::tenants`]).
//!
//! The signatures are checked by `ring`, as they are under TLS. A JWT library would stand between two
//! parts of this module: ARCHITECTURE.md.

mod algorithm;
mod fetch;
mod json;
mod jws;
mod key_set;
mod keys;
mod options;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::access::{Endpoint, Life};
use crate::audit::Actor;
use crate::clock::Clock;
use crate::tenant::{IdRule, Permissions, TenantId};

use fetch::Place;
use jws::Jws;
use keys::Keys;

pub use algorithm::Algorithm;
pub use options::{Invalid, IssuerOptions, KeySource, PublicUrl};

/// Longest subject, in bytes.
const MAX_SUBJECT: usize = 255;
/// The types of access tokens: RFC 9068 section 4, with and without the prefix.
const ACCESS_TOKEN: [&str; 2] = ["at+jwt", "application/at+jwt"];
/// The type that says nothing.
const PLAIN: &str = "JWT";

/// One issuer, with its keys.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) options: IssuerOptions,
    keys: Keys,
    /// Cancelled when the settings do not name it any more.
    ended: CancellationToken,
}

/// What an issuer vouches for.
pub(super) struct Vouched {
    pub(super) actor: Actor,
    pub(super) tenant: TenantId,
    pub(super) permissions: Permissions,
    pub(super) expires_at: Timestamp,
    pub(super) endpoint: Endpoint,
    pub(super) life: Arc<Life>,
}

impl Issuer {
    pub(super) fn new(options: IssuerOptions, clock: &Arc<dyn Clock>) -> Result<Self, Invalid> {
        let invalid =
            |message| Invalid { place: format!("auth.issuers ({})", options.issuer), message };
        let keys = match &options.keys {
            KeySource::File(file) => Keys::read(file).map_err(invalid)?,
            KeySource::Url(url) => {
                let place = Place::new(url.clone(), options.ca_file.as_deref()).map_err(invalid)?;
                Keys::served(options.issuer.clone(), place, Arc::clone(clock))
            }
        };
        Ok(Self { options, keys, ended: CancellationToken::new() })
    }

    /// Ends everything that was granted for its tokens.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    async fn check(
        &self,
        token: &Jws<'_>,
        public_url: &PublicUrl,
        now: Timestamp,
    ) -> Option<Vouched> {
        if !self.options.algorithms.contains(&token.algorithm) || !self.admits_kind(token) {
            return None;
        }
        let found = self.keys.find(&token.key_id).await?;
        if !found.key()?.verifies(token.algorithm, token.signed, &token.signature) {
            return None;
        }
        let claims = &token.claims;
        let skew = i64::try_from(self.options.clock_skew.as_secs()).ok()?;
        let moment = |name: &str| seconds(claims.get(name)?);
        let expires_at = moment("exp")?.checked_add(skew)?;
        let begins_at = match claims.get("nbf") {
            Some(value) => seconds(value)?.checked_sub(skew)?,
            None => i64::MIN,
        };
        if !(begins_at..expires_at).contains(&now.as_second()) {
            return None;
        }
        let tenant = json::text(claims, &self.options.tenant_claim).ok()??;
        // The wider rule: an id that a setting did not admit was not imported either.
        let tenant = TenantId::parse(tenant, IdRule::AllowUnderscore).ok()?;
        if self.options.tenants.as_ref().is_some_and(|tenants| !tenants.contains(&tenant)) {
            return None;
        }
        let subject = json::text(claims, "sub").ok()??;
        if subject.is_empty() || subject.len() > MAX_SUBJECT {
            return None;
        }
        let issuer = self.options.issuer.clone();
        Some(Vouched {
            // So that nothing in it can be taken for something else, wherever it is shown.
            actor: Actor::Subject { issuer, subject: subject.escape_default().to_string() },
            permissions: self.permissions(claims)?,
            expires_at: Timestamp::from_second(expires_at).ok()?,
            endpoint: self.endpoint(claims, &tenant, public_url)?,
            tenant,
            life: Arc::new(Life { ended: self.ended.child_token() }),
        })
    }

    fn admits_kind(&self, token: &Jws<'_>) -> bool {
        let is = |kind: &str, name: &&str| kind.eq_ignore_ascii_case(name);
        match token.kind.as_deref() {
            Some(kind) if ACCESS_TOKEN.iter().any(|name| is(kind, name)) => true,
            // Not what was signed for other purposes, such as a logout.
            Some(kind) => !self.options.require_typ && is(kind, &PLAIN),
            None => !self.options.require_typ,
        }
    }

    /// Which endpoint the token was made for; none, if for something else.
    fn endpoint(
        &self,
        claims: &Map<String, Value>,
        tenant: &TenantId,
        public_url: &PublicUrl,
    ) -> Option<Endpoint> {
        let audience: Vec<&str> = match claims.get("aud")? {
            Value::String(audience) => vec![audience],
            Value::Array(audience) => audience.iter().map(Value::as_str).collect::<Option<_>>()?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
        };
        let is_for = |resource: &str| audience.contains(&resource);
        if let Some(template) = &self.options.audience {
            let wanted = template.replace("{tenant}", tenant.as_str());
            return is_for(&wanted).then_some(Endpoint::Any);
        }
        let named = is_for(&public_url.resource(Some(tenant)));
        let shared = is_for(&public_url.resource(None));
        match (named, shared) {
            (true, true) => Some(Endpoint::Any),
            (true, false) => Some(Endpoint::Named),
            (false, true) => Some(Endpoint::Shared),
            (false, false) => None,
        }
    }

    /// What its scopes allow. One that means nothing here allows nothing.
    fn permissions(&self, claims: &Map<String, Value>) -> Option<Permissions> {
        let scopes: Vec<&str> = match claims.get(&self.options.scope_claim) {
            None => Vec::new(),
            Some(Value::String(scopes)) => scopes.split(' ').collect(),
            Some(Value::Array(scopes)) => {
                scopes.iter().map(Value::as_str).collect::<Option<_>>()?
            }
            Some(_) => return None,
        };
        let known = self.options.known_scopes();
        let meant = |scope: &&str| known.iter().find(|(name, _)| name == scope);
        Some(scopes.iter().filter_map(meant).map(|(_, permission)| *permission).collect())
    }
}

/// Whether `text` looks like a token of an issuer: nothing else has two dots.
pub(super) fn is_signed(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// What one of `issuers` vouches for by the token `text`, if it does.
pub(super) async fn check(
    issuers: &[Arc<Issuer>],
    public_url: &PublicUrl,
    text: &str,
    now: Timestamp,
) -> Option<Vouched> {
    let token = Jws::parse(text)?;
    let named = token.issuer()?;
    let issuer = issuers.iter().find(|issuer| issuer.options.issuer == named)?;
    issuer.check(&token, public_url, now).await
}

/// A `NumericDate` (RFC 7519 section 2), without its fraction.
fn seconds(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let seconds = value.as_f64()?.floor();
        // What a timestamp can say at all, and exact.
        #[expect(clippy::cast_possible_truncation, reason = "bounded just before")]
        (seconds.abs() < 1e15).then_some(seconds as i64)
    })
}
