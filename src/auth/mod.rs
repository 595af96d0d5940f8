//! Who is calling, and for which tenant.
//!
//! ```text
//! Authorization header --Token::parse, look-up--> Caller --grant(tenant of the path)--> TenantAccess
//! ```
//!
//! The token alone decides the tenant. A tenant named in a path can only agree; anything else is
//! FORBIDDEN with the same bytes, and the same work, whether that tenant exists or not: its
//! existence is never looked up. Every refusal is in the audit log before it is answered.
//!
//! A [`TenantAccess`] is what the pool wants to see before it hands anything out, and only this
//! module makes one. Does not protect against a stolen token, nor limit the rate of guesses: 256
//! random bits need no help.

mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::audit::{self, Actor, Attempt, Log, Outcome, RequestId};
use crate::clock::Clock;
use crate::error::ErrorCode;
use crate::memory::SecretText;
use crate::tenant::{IdRule, Permission, Permissions, TenantId};
use crate::vault::{self, TenantCredentialVault, TokenRecord};

pub use token::Token;

/// Most tokens that are remembered between requests. At the limit all are forgotten and looked up
/// again, which costs each a few µs.
const MAX_REMEMBERED: usize = 10_000;

/// Checks tokens, and makes and revokes them.
#[derive(Debug)]
pub struct Auth {
    vault: Arc<TenantCredentialVault>,
    log: Log,
    clock: Arc<dyn Clock>,
    remembered: Mutex<Remembered>,
}

/// Opened records, by hash of the token.
#[derive(Debug, Default)]
struct Remembered {
    records: HashMap<[u8; 32], Arc<TokenRecord>>,
    /// How often something was to be forgotten. A record read before that is not remembered after.
    forgotten: u64,
}

/// Where a request came in, for the audit log.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Ties request, answer and audit entries together; `None` gives each entry an id of its own.
    pub request_id: Option<RequestId>,
    /// Address of the peer.
    pub peer: Option<String>,
}

/// Someone whose token is valid.
#[derive(Clone, Debug)]
pub struct Caller {
    actor: Actor,
    tenant: TenantId,
    permissions: Permissions,
    origin: Origin,
    /// How long the token was still good for when it was looked at; `None`: for good.
    lasts_for: Option<Duration>,
}

/// Leave to use one tenant. Made only here:
///
/// ```compile_fail,E0451
/// # fn forge(caller: tenantry::auth::Caller) {
/// let forged = tenantry::auth::TenantAccess { caller };
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TenantAccess {
    caller: Caller,
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
}

/// Why there is no access.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The refusal could not be recorded.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// The path names a tenant that is not the token's.
    #[error("the token is for another tenant")]
    Forbidden,
    /// The system has no randomness for a token.
    #[error("the operating system gave no randomness")]
    Randomness,
    /// The vault is sealed: nothing was looked up.
    #[error("the vault is sealed")]
    Sealed,
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
            Self::Forbidden => ErrorCode::Forbidden,
            Self::Randomness => ErrorCode::InternalError,
            Self::Sealed => ErrorCode::VaultSealed,
            Self::Unauthenticated => ErrorCode::Unauthenticated,
            Self::Vault(error) => error.code(),
        }
    }
}

impl Auth {
    /// Checks tokens of `vault`; refusals go to `log`.
    pub fn new(vault: Arc<TenantCredentialVault>, log: Log, clock: Arc<dyn Clock>) -> Self {
        Self { vault, log, clock, remembered: Mutex::default() }
    }

    /// Finds out who sends `token`, the text of a bearer credential.
    ///
    /// A hash and a map look-up for a token seen before; the first time, a read of the store.
    ///
    /// # Errors
    ///
    /// [`Error::Unauthenticated`], or [`Error::Sealed`] whatever the token is; both recorded.
    pub async fn authenticate(&self, token: Option<&str>, origin: Origin) -> Result<Caller, Error> {
        let found = match token.and_then(Token::parse) {
            _ if self.vault.is_sealed() => Err(Error::Sealed),
            Some(token) => self.find(token).await,
            None => Ok(None),
        };
        let (record, refusal) = match found {
            Ok(record) => (record, Error::Unauthenticated),
            // Also when it was sealed a moment ago.
            Err(Error::Sealed | Error::Vault(vault::Error::Sealed)) => (None, Error::Sealed),
            Err(error) => return Err(error),
        };
        let now = self.clock.now();
        if let Some(record) = record.filter(|record| record.expires_at.is_none_or(|end| now < end))
        {
            let lasts_for = record.expires_at.map(|end| now.duration_until(end).unsigned_abs());
            return Ok(Caller {
                lasts_for,
                actor: Actor::Token { id: record.token_id.clone() },
                tenant: record.tenant.clone(),
                permissions: permissions(&record),
                origin,
            });
        }
        let attempt = Attempt {
            request_id: origin.request_id.unwrap_or_else(RequestId::random),
            actor: Actor::Anonymous,
            peer: origin.peer,
            action: "authenticate",
            tenant: None,
        };
        self.refuse(attempt, None, refusal.code()).await?;
        Err(refusal)
    }

    /// Grants `caller` the tenant that a path names, or its own where the path names none.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`], recorded, when the names differ in any byte.
    pub async fn grant(
        &self,
        caller: Caller,
        path_tenant: Option<&str>,
    ) -> Result<TenantAccess, Error> {
        match path_tenant {
            Some(named) if named != caller.tenant.as_str() => {
                let attempt = Attempt {
                    request_id: caller.origin.request_id.unwrap_or_else(RequestId::random),
                    actor: caller.actor,
                    peer: caller.origin.peer,
                    action: "connect",
                    tenant: Some(caller.tenant),
                };
                self.refuse(attempt, Some(named), ErrorCode::Forbidden).await?;
                Err(Error::Forbidden)
            }
            _ => Ok(TenantAccess { caller }),
        }
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
        };
        self.vault.put_token(token.secret(), &record)?;
        Ok((text, TokenInfo::from(&record)))
    }

    /// Every token, oldest first.
    pub fn tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        let mut tokens: Vec<_> = self.vault.tokens()?.iter().map(TokenInfo::from).collect();
        tokens.sort_by_key(|token| token.created_at);
        Ok(tokens)
    }

    /// Makes the token with this public id worthless, at once. False when there is none.
    pub fn revoke(&self, token_id: &str) -> Result<bool, Error> {
        let removed = self.vault.remove_token(token_id)?;
        let mut remembered = self.remembered();
        remembered.forgotten += 1;
        remembered.records.retain(|_, record| record.token_id != token_id);
        Ok(removed)
    }

    /// The record of `token`, from memory or from the store.
    async fn find(&self, token: Token) -> Result<Option<Arc<TokenRecord>>, Error> {
        let key = token.hash();
        let forgotten = {
            let remembered = self.remembered();
            if let Some(record) = remembered.records.get(&key) {
                return Ok(Some(Arc::clone(record)));
            }
            remembered.forgotten
        };
        let vault = Arc::clone(&self.vault);
        let found = tokio::task::spawn_blocking(move || vault.find_token(token.secret())).await;
        let found = found.map_err(|_| Error::Unauthenticated)??.map(Arc::new);
        if let Some(record) = &found {
            let mut remembered = self.remembered();
            if remembered.records.len() >= MAX_REMEMBERED {
                remembered.records.clear();
            }
            if remembered.forgotten == forgotten {
                remembered.records.insert(key, Arc::clone(record));
            }
        }
        Ok(found)
    }

    /// Forgets every token that is remembered; they are looked up again.
    pub(crate) fn forget(&self) {
        let mut remembered = self.remembered();
        remembered.forgotten += 1;
        remembered.records.clear();
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        // A cache: whole after any panic, each change being one insertion or removal.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn refuse(
        &self,
        attempt: Attempt,
        path_tenant: Option<&str>,
        code: ErrorCode,
    ) -> Result<(), audit::Error> {
        let mut pending = self.log.begin(attempt);
        if let Some(named) = path_tenant {
            let target = TenantId::parse(named, IdRule::AllowUnderscore).ok();
            pending.set_resource(named, target.as_ref());
        }
        pending.complete(Outcome { code: Some(code), ..Outcome::default() }).await
    }
}

impl TenantAccess {
    /// Access for code that embeds the library, or an operator at the command line: who can open
    /// the vault needs no token.
    pub(crate) fn local(
        tenant: TenantId,
        permissions: Permissions,
        actor: Actor,
        origin: Origin,
    ) -> Self {
        Self { caller: Caller { actor, tenant, permissions, origin, lasts_for: None } }
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantId {
        &self.caller.tenant
    }

    /// What may be done there.
    pub fn permissions(&self) -> Permissions {
        self.caller.permissions
    }

    /// Who may do it.
    pub fn actor(&self) -> &Actor {
        &self.caller.actor
    }

    /// How long what was granted lasts; `None`: until it is revoked.
    pub fn lasts_for(&self) -> Option<Duration> {
        self.caller.lasts_for
    }

    /// Where the request came in.
    pub fn origin(&self) -> &Origin {
        &self.caller.origin
    }
}

impl From<&TokenRecord> for TokenInfo {
    fn from(record: &TokenRecord) -> Self {
        Self {
            token_id: record.token_id.clone(),
            tenant: record.tenant.clone(),
            permissions: permissions(record),
            created_at: record.created_at,
            expires_at: record.expires_at,
        }
    }
}

/// A scope that this version does not know allows nothing.
fn permissions(record: &TokenRecord) -> Permissions {
    record.scopes.iter().filter_map(|scope| Permission::parse(scope)).collect()
}
