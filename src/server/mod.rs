//! One tenant's MCP server: its tools and the resources behind them.
//!
//! ```text
//! Caller --TenantContext::begin--> Call        an audit entry is begun
//!   --admit_query--> AdmittedQuery             ResourceUri, ScopedUri, quota Permit, GuardedSql
//!   --lease--> ScopedServer::run               one database session, this call's alone
//!   --Call::finish--> answer                   the entry is on disk before the caller sees it
//! ```
//!
//! Each value is made only by the step before it, so a call that skipped a check does not compile.
//! What is refused is refused before a session is taken, so it costs the database nothing.
//!
//! This module cannot name `vault`, `auth` or `pool`: whatever a tool does, there is nothing of
//! another tenant here to reach. Where sessions come from is behind [`Instances`].

mod attachment;
mod call;
mod caller;
mod completion;
mod content;
mod describe;
mod dispatch;
mod error;
mod explain;
mod handler;
mod listing;
mod logging;
mod lookout;
mod needs;
mod pacing;
mod progress;
mod session;
mod stay;
mod subscription;
#[cfg(test)]
mod tests;
mod tools;
mod write;

use std::fmt;
use std::ops::DerefMut;
use std::ptr;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

use crate::audit::{Actor, Log};
use crate::database::{self, Database, Dialect, Unavailable};
use crate::quota::{Meter, Permit};
use crate::tenant::{Connection, Permissions, RelationName, Scope, TenantConfig, TenantId};

pub use attachment::Attachment;
pub use call::AdmittedQuery;
pub use caller::{Caller, counted_as};
pub use dispatch::Dispatch;
pub use error::{Error, Failure};
pub use handler::McpHandler;
pub use listing::{ListAnswer, ResourceInfo};
pub use needs::needed;
pub use pacing::Refusals;
pub use session::McpSession;
pub use stay::{Kind as StayKind, Look, Mark, NoPlace, Stay, Stays, Who};
pub use subscription::Subscriptions;
pub(crate) use tools::chooses_tenant;
pub use tools::{MetadataAnswer, QueryAnswer, QueryArguments};
pub use write::{WriteAnswer, WriteArguments};

use pacing::Pacing;

/// What all calls of one tenant share: its configuration, its limits, the log.
///
/// Immutable; a changed tenant gets a new one.
pub struct TenantContext {
    scope: Scope,
    config: TenantConfig,
    api_keys: Vec<ApiKey>,
    meter: Arc<Meter>,
    log: Log,
    pacing: Pacing,
    /// Learnt from the first session.
    server_version: OnceLock<String>,
}

/// That a key of an outside service is set. Never the key.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made by the pool from what the vault tells")]
pub struct ApiKey {
    /// The provider's name.
    pub provider: String,
    /// When it was set or last changed.
    pub set_at: Timestamp,
    /// Changes with the key, tells nothing about it.
    pub fingerprint: String,
}

/// Where a call gets an instance from.
pub trait Instances: Send {
    /// An instance that is this call's alone until it is dropped.
    type Instance<'a>: DerefMut<Target = ScopedServer> + Send
    where
        Self: 'a;

    /// Waits for an instance. It is of the tenant as that is by then; [`TenantContext`] asks
    /// whether a call may still run there.
    fn lease(&mut self) -> impl Future<Output = Result<Self::Instance<'_>, Error>> + Send;
}

/// Whether to do once more what failed on one instance.
#[derive(Debug, Default)]
struct Retry {
    is_used: bool,
}

impl Retry {
    /// Once, when the session had ended while nobody used it: nothing had begun, and another one will
    /// do.
    fn is_due<T>(&mut self, answer: &Result<T, Error>) -> bool {
        let is_stale = matches!(
            answer,
            Err(Error::Database(database::Error::Unavailable(Unavailable::Stale)))
        );
        is_stale && !std::mem::replace(&mut self.is_used, true)
    }
}

/// A tenant's server with one database session of its own: an instance of the pool.
pub struct ScopedServer {
    context: Arc<TenantContext>,
    session: Box<dyn Database>,
    caller: Caller,
}

/// Makes the server of the tenant that `context` is of, over `session`.
///
/// Every call is scoped to that tenant and recorded as made by the embedding code, until
/// [`ScopedServer::set_caller`] says who it is made for. To serve it over MCP, give
/// `Arc<Mutex<ScopedServer>>` to [`McpHandler::new`].
pub fn create_tenant_scoped_server(
    context: Arc<TenantContext>,
    session: Box<dyn Database>,
) -> ScopedServer {
    let caller = Caller {
        actor: Actor::Embedder,
        permissions: Permissions::READ,
        peer: None,
        request_id: None,
        cut: CancellationToken::new(),
    };
    ScopedServer { context, session, caller }
}

impl TenantContext {
    /// The context of the tenant that `config` describes, and that `meter` counts.
    pub fn new(config: TenantConfig, api_keys: Vec<ApiKey>, meter: Arc<Meter>, log: Log) -> Self {
        let scope = Scope::new(config.id.clone());
        let (pacing, server_version) = (Pacing::default(), OnceLock::new());
        Self { scope, config, api_keys, meter, log, pacing, server_version }
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantId {
        self.scope.tenant()
    }

    /// Its configuration.
    pub fn config(&self) -> &TenantConfig {
        &self.config
    }

    /// An instance that a call which was admitted here may run on.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] when the tenant is not as it was when the call was admitted: what was checked
    /// then may be refused by now.
    async fn lease_uncounted<'a, I: Instances>(
        &self,
        instances: &'a mut I,
    ) -> Result<I::Instance<'a>, Error> {
        let server = instances.lease().await?;
        if self.is_same(&server.context) { Ok(server) } else { Err(Error::Changed) }
    }

    /// The same for a statement with `permit`, which is not counted when there is none for it.
    async fn lease<'a, I: Instances>(
        &self,
        instances: &'a mut I,
        permit: &Permit,
    ) -> Result<I::Instance<'a>, Error> {
        let unbegun = permit.unbegun();
        let server = self.lease_uncounted(instances).await?;
        unbegun.begun();
        Ok(server)
    }

    /// Whether both are of one incarnation of the tenant, under the same rules.
    fn is_same(&self, other: &Self) -> bool {
        ptr::eq(self, other)
            || (Arc::ptr_eq(&self.meter, &other.meter) && self.config == other.config)
    }

    fn dialect(&self) -> Dialect {
        match self.config.connection {
            Connection::Postgres(_) => Dialect::Postgres,
            Connection::Sqlite { .. } => Dialect::Sqlite,
        }
    }

    /// `name` as a catalogue has it: without a schema when it is in the tenant's own.
    fn listed_name(&self, name: &RelationName) -> RelationName {
        let schema = name.schema.clone().filter(|schema| schema != self.schema());
        RelationName { schema, name: name.name.clone() }
    }

    /// The schema in which unqualified names are looked up.
    fn schema(&self) -> &str {
        match &self.config.connection {
            Connection::Postgres(target) => &target.schema,
            Connection::Sqlite { .. } => "main",
        }
    }
}

impl fmt::Debug for TenantContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantContext").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ScopedServer {
    /// Says for whom the next calls are made.
    pub fn set_caller(&mut self, caller: Caller) {
        self.caller = caller;
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantId {
        self.context.tenant()
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    ///
    /// Any of the database's; the session must not be used again.
    pub async fn ping(&mut self) -> Result<(), database::Error> {
        self.session.ping().await
    }

    /// Drops `held` once nothing of the session runs any more; see [`Database::hold`].
    pub(crate) fn hold(&mut self, held: Box<dyn Send>) {
        self.session.hold(held);
    }

    /// Whether the session must not be used again.
    pub fn is_broken(&self) -> bool {
        self.session.is_broken()
    }

    /// What there is, of one type or of all; see the tool of this name.
    ///
    /// # Errors
    ///
    /// As the tool.
    pub async fn list_tenant_resources(
        &mut self,
        resource_type: Option<&str>,
    ) -> Result<Vec<ResourceInfo>, Failure> {
        let (context, caller) = (Arc::clone(&self.context), self.caller.clone());
        let mut instances = self;
        context.list_all(&mut instances, &caller, resource_type).await
    }

    /// Runs one statement; see the tool of this name.
    ///
    /// # Errors
    ///
    /// As the tool; [`crate::error::ErrorCode::Forbidden`] for a URI of another tenant.
    pub async fn query_tenant_data(
        &mut self,
        resource_uri: &str,
        query: &str,
        limit: Option<u32>,
    ) -> Result<QueryAnswer, Failure> {
        let (context, caller) = (Arc::clone(&self.context), self.caller.clone());
        let arguments = QueryArguments::new(resource_uri, query, limit);
        let mut instances = self;
        context.query(&mut instances, &caller, Ok(arguments)).await
    }

    /// Changes rows by one statement; see the tool of this name. Only for a caller who may write:
    /// who embeds the library says so with [`ScopedServer::set_caller`].
    ///
    /// # Errors
    ///
    /// As the tool.
    pub async fn write_tenant_data(
        &mut self,
        arguments: WriteArguments,
    ) -> Result<WriteAnswer, Failure> {
        let (context, caller) = (Arc::clone(&self.context), self.caller.clone());
        let mut instances = self;
        context.write(&mut instances, &caller, Ok(arguments)).await
    }

    /// The tenant's limits and what is used of them; see the tool of this name.
    ///
    /// # Errors
    ///
    /// As the tool.
    pub async fn get_tenant_metadata(&mut self) -> Result<MetadataAnswer, Failure> {
        let (context, caller) = (Arc::clone(&self.context), self.caller.clone());
        let mut instances = self;
        context.metadata(&mut instances, &caller, Ok(())).await
    }
}

impl fmt::Debug for ScopedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedServer")
            .field("tenant", self.tenant())
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// A server is its own only instance.
impl Instances for &mut ScopedServer {
    type Instance<'a>
        = &'a mut ScopedServer
    where
        Self: 'a;

    async fn lease(&mut self) -> Result<&mut ScopedServer, Error> {
        Ok(self)
    }
}

/// One instance that calls take in turn.
impl Instances for Arc<Mutex<ScopedServer>> {
    type Instance<'a> = OwnedMutexGuard<ScopedServer>;

    async fn lease(&mut self) -> Result<OwnedMutexGuard<ScopedServer>, Error> {
        Ok(Arc::clone(self).lock_owned().await)
    }
}
