//! Who is calling, and for which tenant.
//!
//! ```text
//! Authorization header --Token::parse, look-up--+--> Caller --grant(tenant of the path)--> TenantAccess
//!                      \-signature of an issuer--/
//! ```
//!
//! The token, of ours or of an issuer, alone decides the tenant. A tenant named in a path can only
//! agree; anything else is FORBIDDEN with the same bytes, and the same work, whether that tenant exists
//! or not: its existence is never looked up. Every refusal is in the audit log before it is answered,
//! or, beyond a rate, counted for an entry that follows within a minute (`throttle`).
//!
//! A [`TenantAccess`] is what the pool wants to see before it hands anything out, and only this
//! module makes one. It ends when its token is revoked or expires. Does not protect against a stolen
//! token, nor limit the rate of guesses: 256 random bits need no help.

mod access;
mod failures;
mod issuer;
mod known;
mod operator;
mod resource;
mod throttle;
mod token;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;

use crate::audit::{self, Actor, Log};
use crate::clock::Clock;
use crate::error::ErrorCode;
use crate::memory::SecretText;
use crate::tenant::{IdRule, Permission, Permissions, TenantId};
use crate::vault::{self, TenantCredentialVault, TokenPlace, TokenRecord};

use access::{Endpoint, Standing};
use issuer::{Issuer, Vouched};
use known::{Known, KnownTokens};
use throttle::Throttle;

pub use access::{Caller, Origin, TenantAccess};
pub use issuer::{Algorithm, Invalid, IssuerOptions, KeySource, PublicUrl};
pub use operator::{OperatorInfo, Role};
pub use resource::ProtectedResource;
pub use token::Token;

/// How tokens are checked.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field from the settings")]
pub struct Options {
    /// How many failures of one address or token are answered and recorded one by one in a minute.
    pub failures_per_minute: u32,
    /// Where this service is reached. Issuers need it.
    pub public_url: Option<PublicUrl>,
    /// Whose access tokens are admitted beside tokens of ours.
    pub issuers: Vec<IssuerOptions>,
}

impl Default for Options {
    fn default() -> Self {
        Self { failures_per_minute: 100, public_url: None, issuers: Vec::new() }
    }
}

/// Checks tokens, and makes and revokes them.
#[derive(Debug)]
pub struct Auth {
    vault: Arc<TenantCredentialVault>,
    log: Log,
    clock: Arc<dyn Clock>,
    known: Mutex<KnownTokens>,
    throttle: Mutex<Throttle>,
    /// Since boot.
    saved_at: Mutex<Duration>,
    issuers: RwLock<Arc<Issuers>>,
}

/// Who else may vouch for callers.
#[derive(Debug, Default)]
struct Issuers {
    /// There, if any issuer is.
    public_url: Option<PublicUrl>,
    list: Vec<Arc<Issuer>>,
}

/// [`Options`] whose files are read: what [`Auth::adopt`] takes.
#[derive(Debug)]
pub struct Prepared {
    failures_per_minute: u32,
    issuers: Issuers,
}

/// A token as it is listed: everything but the secret.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TokenInfo {
    /// Public id, for revoking and for the audit log.
    pub token_id: String,
    /// The one tenant it is for.
    pub tenant: TenantId,
    /// What it allows there.
    pub permissions: Permissions,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was last used; what its service saw within the last minute may not be known yet.
    pub used_at: Option<Timestamp>,
}

/// A token in a list. Of one that does not open: what [`Auth::revoke`] knows it by.
pub type ListedToken = Result<TokenInfo, String>;

/// Why there is no access.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The refusal could not be recorded.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// The path names a tenant that is not the token's, or the token a role that is not known.
    #[error("the token is not for this")]
    Forbidden,
    /// The token has no scope for this.
    #[error("the token does not allow {needed}")]
    InsufficientScope {
        /// What would.
        needed: Permission,
    },
    /// The system has no randomness for a token.
    #[error("the operating system gave no randomness")]
    Randomness,
    /// The vault is sealed: nothing was looked up.
    #[error("the vault is sealed")]
    Sealed,
    /// So many failed before it that this one is told no more; a valid token works all the same.
    #[error("too many failures")]
    Throttled {
        /// When one more will be told.
        retry_after: Duration,
    },
    /// No token, or one that is malformed, unknown, expired or revoked; they are not told apart.
    #[error("no valid token")]
    Unauthenticated,
    /// The vault could not be asked.
    #[error(transparent)]
    Vault(#[from] vault::Error),
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Audit(error) => error.code(),
            Self::Forbidden | Self::InsufficientScope { .. } => ErrorCode::Forbidden,
            Self::Randomness => ErrorCode::InternalError,
            Self::Sealed => ErrorCode::VaultSealed,
            Self::Throttled { .. } => ErrorCode::TooManyFailures,
            Self::Unauthenticated => ErrorCode::Unauthenticated,
            Self::Vault(error) => error.code(),
        }
    }
}

impl Auth {
    /// Checks tokens of `vault`; refusals go to `log`.
    pub fn new(vault: Arc<TenantCredentialVault>, log: Log, clock: Arc<dyn Clock>) -> Self {
        let now = clock.boot();
        let throttle = Throttle::new(Options::default().failures_per_minute, now);
        Self {
            vault,
            log,
            clock,
            known: Mutex::default(),
            throttle: Mutex::new(throttle),
            saved_at: Mutex::new(now),
            issuers: RwLock::default(),
        }
    }

    /// As [`Self::prepare`] and [`Self::adopt`].
    ///
    /// # Errors
    ///
    /// [`Invalid`]: what was in force still is.
    pub fn configure(&self, options: Options) -> Result<(), Invalid> {
        self.adopt(self.prepare(options)?);
        Ok(())
    }

    /// Reads what `options` name. Changes nothing. May block.
    ///
    /// # Errors
    ///
    /// [`Invalid`].
    pub fn prepare(&self, options: Options) -> Result<Prepared, Invalid> {
        let Options { failures_per_minute, public_url, issuers } = options;
        if public_url.is_none() && !issuers.is_empty() {
            let message = "must be set where issuers are: their tokens are made for it".to_owned();
            return Err(Invalid { place: "http.public_url".to_owned(), message });
        }
        let before = self.issuers();
        let list = issuers.into_iter().map(|options| {
            options.check()?;
            // A file is read anew; of an issuer that serves its keys, what it served stays.
            let same = before.list.iter().find(|before| {
                before.options == options && matches!(options.keys, KeySource::Url(_))
            });
            match same.filter(|_| before.public_url == public_url) {
                Some(same) => Ok(Arc::clone(same)),
                None => Issuer::new(options, &self.clock).map(Arc::new),
            }
        });
        let list = list.collect::<Result<_, Invalid>>()?;
        Ok(Prepared { failures_per_minute, issuers: Issuers { public_url, list } })
    }

    /// Has what was prepared in force from now on, in place of what was before: what was granted for
    /// tokens of issuers that are not in it ends.
    pub fn adopt(&self, prepared: Prepared) {
        let Prepared { failures_per_minute, issuers } = prepared;
        let issuers = Arc::new(issuers);
        let before = {
            let mut current = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, Arc::clone(&issuers))
        };
        let stays = |before: &Arc<Issuer>| issuers.list.iter().any(|now| Arc::ptr_eq(now, before));
        for issuer in before.list.iter().filter(|before| !stays(before)) {
            issuer.end();
        }
        self.throttle().set_per_window(failures_per_minute);
    }

    /// Finds out who sends `token`, the text of a bearer credential.
    ///
    /// A hash and a map look-up for a token seen before; the first time, a read of the store. Whatever
    /// is no token costs that read too.
    ///
    /// # Errors
    ///
    /// [`Error::Unauthenticated`], or [`Error::Sealed`] whatever the token is; both recorded.
    /// [`Error::Throttled`] in place of the first, after many of them.
    pub async fn authenticate(&self, token: Option<&str>, origin: Origin) -> Result<Caller, Error> {
        let found = match token {
            _ if self.vault.is_sealed() => Err(Error::Sealed),
            Some(text) => self.identify(text).await,
            None => Ok(None),
        };
        let refusal = match found {
            Ok(Some(identity)) => {
                let Identity { actor, tenant, permissions, standing, endpoint } = identity;
                return Ok(Caller { actor, tenant, permissions, origin, standing, endpoint });
            }
            Ok(None) => Error::Unauthenticated,
            // Also when it was sealed a moment ago.
            Err(Error::Sealed | Error::Vault(vault::Error::Sealed)) => Error::Sealed,
            Err(error) => return Err(error),
        };
        let attempt = origin.attempt(Actor::Anonymous, "authenticate", None);
        Err(self.refuse(attempt, None, refusal).await)
    }

    /// Grants `caller` the tenant that a path names, or its own where the path names none.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] when the names differ in any byte, and [`Error::Unauthenticated`] when its
    /// credential was made for the other of its tenant's endpoints; both recorded.
    /// [`Error::Throttled`] in place of either, after many of them.
    pub async fn grant(
        &self,
        caller: Caller,
        path_tenant: Option<&str>,
    ) -> Result<TenantAccess, Error> {
        let refusal = match path_tenant {
            Some(named) if named != caller.tenant.as_str() => Error::Forbidden,
            _ if caller.endpoint.admits(path_tenant) => return Ok(TenantAccess { caller }),
            _ => Error::Unauthenticated,
        };
        let attempt = caller.origin.attempt(caller.actor, "connect", Some(caller.tenant));
        Err(self.refuse(attempt, path_tenant, refusal).await)
    }

    /// Says whether `access` includes `needed`, which `action` needs. For access tokens of issuers only:
    /// their clients can get more scopes, when they are told at the door. Bearers of our tokens are told
    /// by the tool.
    ///
    /// # Errors
    ///
    /// [`Error::InsufficientScope`], recorded, or [`Error::Throttled`] after many of them.
    pub async fn check_scope(
        &self,
        access: &TenantAccess,
        action: &'static str,
        needed: Permission,
    ) -> Result<(), Error> {
        let is_subject = matches!(access.actor(), Actor::Subject { .. });
        if !is_subject || access.permissions().include(needed) {
            return Ok(());
        }
        let tenant = Some(access.tenant().clone());
        let attempt = access.origin().clone().attempt(access.actor().clone(), action, tenant);
        Err(self.refuse(attempt, None, Error::InsufficientScope { needed }).await)
    }

    /// Makes a token. Its text is in the answer and nowhere else.
    pub fn create(
        &self,
        tenant: &TenantId,
        permissions: Permissions,
        expires_at: Option<Timestamp>,
    ) -> Result<(SecretText, TokenInfo), Error> {
        self.vault.tenant(tenant)?;
        let (token, text) = Token::generate().map_err(|_| Error::Randomness)?;
        let mut id = [0; 6];
        getrandom::fill(&mut id).map_err(|_| Error::Randomness)?;
        let record = TokenRecord {
            token_id: id.iter().fold("tok_".to_owned(), |id, byte| format!("{id}{byte:02x}")),
            tenant: tenant.clone(),
            scopes: permissions.iter().map(|permission| permission.as_str().to_owned()).collect(),
            created_at: self.clock.now(),
            expires_at,
            used_at: None,
        };
        self.vault.put_token(token.secret(), &record)?;
        Ok((text, TokenInfo::from(&record)))
    }

    /// Up to `limit` tokens behind `after`, as [`TenantCredentialVault::tokens_after`] has them.
    pub fn tokens_after(
        &self,
        after: Option<TokenPlace>,
        limit: usize,
    ) -> Result<Vec<(TokenPlace, ListedToken)>, Error> {
        let tokens = self.vault.tokens_after(after, limit)?;
        let known = self.known();
        let listed = tokens.into_iter().map(|(place, token)| {
            let info = token.map(|record| {
                let used_at = record.used_at.max(known.unsaved_use(&place));
                TokenInfo { used_at, ..TokenInfo::from(&record) }
            });
            (place, info)
        });
        Ok(listed.collect())
    }

    /// Makes the token with this public id worthless, at once: also what was granted for it before
    /// begins nothing more. False when there is none.
    pub fn revoke(&self, token_id: &str) -> Result<bool, Error> {
        let removed = self.vault.remove_token(token_id)?;
        self.known().end(|id, _| id == token_id);
        Ok(removed)
    }

    /// Whose `text` is, if it is anybody's.
    async fn identify(&self, text: &str) -> Result<Option<Identity>, Error> {
        let issuers = self.issuers();
        match &issuers.public_url {
            Some(public_url) if !issuers.list.is_empty() && issuer::is_signed(text) => {
                let now = self.clock.now();
                let vouched = issuer::check(&issuers.list, public_url, text, now).await;
                self.identify_subject(vouched).await
            }
            _ => self.identify_token(text).await,
        }
    }

    /// The same of what an issuer vouches for: its tenant must be there. A tenant that is not is looked
    /// up also when the issuer vouches for nothing.
    async fn identify_subject(&self, vouched: Option<Vouched>) -> Result<Option<Identity>, Error> {
        let tenant = vouched.as_ref().map(|vouched| vouched.tenant.clone());
        let nobody = || TenantId::parse("nobody", IdRule::Alphanumeric).ok();
        let Some(tenant) = tenant.or_else(nobody) else { return Ok(None) };
        let vault = Arc::clone(&self.vault);
        let found = tokio::task::spawn_blocking(move || vault.revision(&tenant)).await;
        match found.map_err(|_| Error::Unauthenticated)? {
            // One that is sealed or damaged is told so further on, as to bearers of our tokens.
            Ok(_) | Err(vault::Error::TenantSealed(_) | vault::Error::RecordDamaged { .. }) => {}
            Err(vault::Error::NotConfigured) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let Some(vouched) = vouched else { return Ok(None) };
        let Vouched { actor, tenant, permissions, expires_at, endpoint, life } = vouched;
        let standing = Standing::new(life, Some(expires_at), &self.clock);
        Ok(Some(Identity { actor, tenant, permissions, standing, endpoint }))
    }

    /// The same of a token of ours.
    async fn identify_token(&self, text: &str) -> Result<Option<Identity>, Error> {
        // What is malformed is looked up as well, so that it takes as long as what is unknown.
        let (token, is_token) = match Token::parse(text) {
            Some(token) => (token, true),
            None => (Token::stand_in(text), false),
        };
        let hash = token.hash();
        let known = self.find(token, hash).await?;
        let now = self.clock.now();
        let Some(known) = known.filter(|_| is_token) else { return Ok(None) };
        if known.record.expires_at.is_some_and(|end| end <= now) {
            // It is looked up again, as one that was revoked is.
            self.known().drop_record(&hash);
            return Ok(None);
        }
        self.known().note_use(&known, now);
        let Known { record, life, .. } = &*known;
        Ok(Some(Identity {
            actor: Actor::Token { id: record.token_id.clone() },
            tenant: record.tenant.clone(),
            permissions: permissions(record),
            standing: Standing::new(Arc::clone(life), record.expires_at, &self.clock),
            endpoint: Endpoint::Any,
        }))
    }

    /// The record of `token`, from memory or from the store.
    async fn find(&self, token: Token, hash: [u8; 32]) -> Result<Option<Arc<Known>>, Error> {
        // More than one round only when another token is revoked meanwhile.
        let token = Arc::new(token);
        loop {
            let moment = {
                let known = self.known();
                if let Some(known) = known.get(&hash) {
                    return Ok(Some(known));
                }
                known.moment()
            };
            let (vault, token) = (Arc::clone(&self.vault), Arc::clone(&token));
            let found = tokio::task::spawn_blocking(move || vault.locate_token(token.secret()));
            let found = found.await.map_err(|_| Error::Unauthenticated)??;
            let Some(found) = found else { return Ok(None) };
            if let Some(known) = self.known().put(moment, hash, found) {
                return Ok(Some(known));
            }
        }
    }

    /// Has every token looked up again, and ends what was granted for them.
    pub(crate) fn forget(&self) {
        self.known().end(|_, _| true);
    }

    /// The same for those of one tenant.
    pub(crate) fn forget_tenant(&self, tenant: &TenantId) {
        self.known().end(|_, of| of == tenant);
    }

    fn issuers(&self) -> Arc<Issuers> {
        // Whole after any panic: it changes by assignment.
        Arc::clone(&self.issuers.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn known(&self) -> MutexGuard<'_, KnownTokens> {
        // What a panic could leave behind is looked up again, or saved a minute later.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose a credential is.
struct Identity {
    actor: Actor,
    tenant: TenantId,
    permissions: Permissions,
    standing: Standing,
    endpoint: Endpoint,
}

impl From<&TokenRecord> for TokenInfo {
    fn from(record: &TokenRecord) -> Self {
        Self {
            token_id: record.token_id.clone(),
            tenant: record.tenant.clone(),
            permissions: permissions(record),
            created_at: record.created_at,
            expires_at: record.expires_at,
            used_at: record.used_at,
        }
    }
}

/// A scope that this version does not know allows nothing.
fn permissions(record: &TokenRecord) -> Permissions {
    record.scopes.iter().filter_map(|scope| Permission::parse(scope)).collect()
}

#[cfg(test)]
mod tests;
