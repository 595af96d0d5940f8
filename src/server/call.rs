//! A call, step by step, and the work of each tool.

use std::time::Duration;

use tokio::time::Instant;

use super::TenantContext;
use super::tools::{ColumnInfo, MetadataAnswer, QuotaUsage};
use super::{Caller, Error, Failure, Instances, QueryAnswer, QueryArguments, ScopedServer};
use crate::audit::{Attempt, Outcome, Pending, RequestId};
use crate::database::{self, Query};
use crate::error::ErrorCode;
use crate::quota::Permit;
use crate::tenant::{Connection, Permission, ResourceUri, ScopedUri};

/// A call whose audit entry is begun.
pub(super) struct Call<'a> {
    context: &'a TenantContext,
    pending: Pending,
    allowed: Result<(), Permission>,
}

/// A statement that may run: in scope, within quota, through the guard. Made only by
/// [`TenantContext`]; [`ScopedServer`] runs nothing else.
#[derive(Debug)]
pub struct AdmittedQuery {
    uri: String,
    query: Query,
    /// Held until the statement is over.
    _permit: Permit,
}

impl TenantContext {
    /// Begins a call: from here on it ends in the audit log, also when it is dropped.
    pub(super) fn begin(
        &self,
        caller: &Caller,
        action: &'static str,
        needs: Permission,
    ) -> Call<'_> {
        let attempt = Attempt {
            request_id: caller.request_id.clone().unwrap_or_else(RequestId::random),
            actor: caller.actor.clone(),
            peer: caller.peer.clone(),
            action,
            tenant: Some(self.tenant().clone()),
        };
        let allowed = if caller.permissions.include(needs) { Ok(()) } else { Err(needs) };
        Call { context: self, pending: self.log.begin(attempt), allowed }
    }

    /// The tool `query_tenant_data`.
    pub(super) async fn query(
        &self,
        instances: &mut impl Instances,
        caller: &Caller,
        arguments: Result<QueryArguments, Error>,
    ) -> Result<QueryAnswer, Failure> {
        let mut call = self.begin(caller, "query_tenant_data", Permission::Query);
        let result = async {
            let admitted = call.admit_query(arguments?)?;
            instances.lease().await?.run(admitted).await
        };
        let result = result.await;
        call.finish(result, |answer| Some(answer.row_count)).await
    }

    /// The tool `get_tenant_metadata`. Not counted against a quota: it is how a caller finds out
    /// when there will be some again.
    pub(super) async fn metadata(
        &self,
        instances: &mut impl Instances,
        caller: &Caller,
        arguments: Result<(), Error>,
    ) -> Result<MetadataAnswer, Failure> {
        let call = self.begin(caller, "get_tenant_metadata", Permission::Metadata);
        let result = async {
            arguments.and(call.check_permission())?;
            Ok(self.describe(instances).await)
        };
        let result = result.await;
        call.finish(result, |_| None).await
    }

    async fn describe(&self, instances: &mut impl Instances) -> MetadataAnswer {
        if self.server_version.get().is_none()
            && let Ok(mut server) = instances.lease().await
            && let Ok(version) = server.session.server_version().await
        {
            // Two first calls at once learn the same.
            drop(self.server_version.set(version));
        }
        let config = &self.config;
        let (host, database) = match &config.connection {
            Connection::Postgres(target) => (Some(target.host.clone()), target.database.clone()),
            Connection::Sqlite { path } => (None, path.clone()),
        };
        MetadataAnswer {
            tenant_id: self.tenant().to_string(),
            database_host: host,
            database_engine: config.connection.engine(),
            database_name: database,
            server_version: self.server_version.get().cloned(),
            quotas: self
                .limiter
                .usage(self.tenant(), &config.quotas)
                .into_iter()
                .map(|usage| (usage.quota, QuotaUsage::from(usage)))
                .collect(),
            features: config.features.clone(),
            access: (&config.access).into(),
            limits: config.limits.into(),
        }
    }
}

impl Call<'_> {
    pub(super) fn check_permission(&self) -> Result<(), Error> {
        self.allowed.map_err(Error::Permission)
    }

    /// Admits `text` as a URI of this tenant. What it claims to be is noted first.
    pub(super) fn admit_uri(&mut self, text: &str) -> Result<ScopedUri, Error> {
        let uri = ResourceUri::parse(text);
        self.pending.set_resource(text, uri.as_ref().ok().map(ResourceUri::tenant));
        Ok(self.context.scope.admit(&uri?)?)
    }

    /// Counts a statement.
    pub(super) fn acquire_permit(&self) -> Result<Permit, Error> {
        let context = self.context;
        Ok(context.limiter.acquire(context.tenant(), &context.config.quotas)?)
    }

    pub(super) fn admit_query(
        &mut self,
        arguments: QueryArguments,
    ) -> Result<AdmittedQuery, Error> {
        let uri = self.admit_uri(&arguments.resource_uri)?;
        self.check_permission()?;
        // Before the guard: parsing hostile SQL is work as well.
        let permit = self.acquire_permit()?;
        let context = self.context;
        if arguments.limit == Some(0) {
            return Err(Error::Argument("limit must be at least 1".to_owned()));
        }
        let statement = database::check(
            &arguments.query,
            context.dialect(),
            uri.resource(),
            &context.config.access,
            context.schema(),
        )?;
        let query = Query { statement, params: arguments.params, limit: arguments.limit };
        Ok(AdmittedQuery { uri: arguments.resource_uri, query, _permit: permit })
    }

    /// Ends the call: its entry is on disk before this returns, or the result is an error.
    pub(super) async fn finish<T>(
        self,
        result: Result<T, Error>,
        rows: impl FnOnce(&T) -> Option<u64>,
    ) -> Result<T, Failure> {
        let request_id = self.pending.request_id();
        let outcome = match &result {
            Ok(answer) => Outcome { rows: rows(answer), ..Outcome::default() },
            Err(error) => Outcome { code: Some(error.code()), rule: error.rule(), rows: None },
        };
        if let Err(error) = &result
            && matches!(error.code(), ErrorCode::InternalError | ErrorCode::IntegrityError)
        {
            tracing::error!(request.id = %request_id, error.code = %error.code(), "call failed");
        }
        if let Err(Error::Database(reason @ database::Error::Unavailable(_))) = &result {
            let tenant = self.context.tenant();
            tracing::warn!(request.id = %request_id, tenant.id = %tenant, %reason, "no session");
        }
        match self.pending.complete(outcome).await {
            Ok(()) => result.map_err(|error| Failure { error, request_id }),
            Err(error) => Err(Failure { error: error.into(), request_id }),
        }
    }
}

impl ScopedServer {
    /// Runs what was admitted.
    ///
    /// Cancellation: the statement is cancelled at the database, and the session is broken.
    pub(super) async fn run(&mut self, admitted: AdmittedQuery) -> Result<QueryAnswer, Error> {
        let began = Instant::now();
        let result = self.session.query(&admitted.query, &self.context.config.limits).await?;
        Ok(QueryAnswer {
            resource_uri: admitted.uri,
            columns: result.columns.into_iter().map(ColumnInfo::from).collect(),
            row_count: result.rows.len() as u64,
            rows: result.rows,
            truncated: result.truncated,
            elapsed_ms: whole_milliseconds(began.elapsed()),
        })
    }
}

fn whole_milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
