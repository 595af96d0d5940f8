//! What a caller is granted, and how long that lasts.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::audit::{Actor, Attempt, RequestId};
use crate::clock::Clock;
use crate::tenant::{Permissions, TenantId};

/// Where a request came in, and how it may go.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Ties request, answer and audit entries together; `None` gives each entry an id of its own.
    pub request_id: Option<RequestId>,
    /// Address of the peer.
    pub peer: Option<String>,
    /// Cancelled when the request is cut: what it runs is dropped, and its caller told.
    pub cut: CancellationToken,
}

impl Origin {
    /// What `actor` tried from there.
    pub(super) fn attempt(
        self,
        actor: Actor,
        action: &'static str,
        tenant: Option<TenantId>,
    ) -> Attempt {
        let request_id = self.request_id.unwrap_or_else(RequestId::random);
        Attempt { request_id, actor, peer: self.peer, action, tenant }
    }
}

/// Someone whose token is valid.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(super) actor: Actor,
    pub(super) tenant: TenantId,
    pub(super) permissions: Permissions,
    pub(super) origin: Origin,
    pub(super) standing: Standing,
    pub(super) endpoint: Endpoint,
}

/// Which of a tenant's two endpoints a credential was made for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Endpoint {
    /// Either, as tokens of ours are.
    Any,
    /// The one whose path names the tenant.
    Named,
    /// The one for all tenants.
    Shared,
}

impl Endpoint {
    pub(super) fn admits(self, path_tenant: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Named => path_tenant.is_some(),
            Self::Shared => path_tenant.is_none(),
        }
    }
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
    pub(super) caller: Caller,
}

/// How long a credential that was checked is good for.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    life: Arc<Life>,
    /// When it expires, by which clock.
    expiry: Option<(Timestamp, Arc<dyn Clock>)>,
}

/// What everything has in common that was granted for one credential.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// Cancelled when the credential is revoked.
    pub(super) ended: CancellationToken,
}

impl Standing {
    pub(super) fn new(
        life: Arc<Life>,
        expires_at: Option<Timestamp>,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        Self { life, expiry: expires_at.map(|at| (at, Arc::clone(clock))) }
    }

    fn endless() -> Self {
        Self { life: Arc::default(), expiry: None }
    }

    fn lasts(&self) -> bool {
        !self.life.ended.is_cancelled()
            && self.expiry.as_ref().is_none_or(|(end, clock)| clock.now() < *end)
    }
}

impl Caller {
    /// The tenant of its credential.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Who it is.
    pub fn actor(&self) -> &Actor {
        &self.actor
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
        let (standing, endpoint) = (Standing::endless(), Endpoint::Any);
        Self { caller: Caller { actor, tenant, permissions, origin, standing, endpoint } }
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

    /// Where the request came in.
    pub fn origin(&self) -> &Origin {
        &self.caller.origin
    }

    /// Whether the credential that it was granted for is still good. Once it is not, the pool gives
    /// nothing for it; what is leased by then is finished.
    pub fn is_live(&self) -> bool {
        self.caller.standing.lasts()
    }

    /// Cancelled when the credential is revoked, for what goes on without calls, such as a
    /// subscription.
    pub fn ended(&self) -> &CancellationToken {
        &self.caller.standing.life.ended
    }

    /// How long the credential is good for unless it is revoked; `None`: for good.
    pub fn lasts_for(&self) -> Option<Duration> {
        let (end, clock) = self.caller.standing.expiry.as_ref()?;
        let now = clock.now();
        Some(if now < *end { now.duration_until(*end).unsigned_abs() } else { Duration::ZERO })
    }
}
