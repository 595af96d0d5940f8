//! A call, step by step, and the work of each tool.

use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument as _;

use super::TenantContext;
use super::tools::{self, Audience, ColumnInfo, MetadataAnswer, QuotaUsage};
use super::{Caller, Error, Failure, Instances, QueryAnswer, QueryArguments, Retry, ScopedServer};
use crate::audit::{Attempt, Outcome, Pending, RequestId};
use crate::database::{self, Query};
use crate::error::ErrorCode;
use crate::quota::{Exceeded, Permit};
use crate::tenant::{AccessMode, Connection, Permission, ResourceUri, ScopedUri};

/// A call whose audit entry is begun.
pub(super) struct Call<'a> {
    context: &'a TenantContext,
    caller: &'a Caller,
    pending: Pending,
    /// Why nothing is done for this caller: it was refused too often.
    barred: Option<Exceeded>,
    needs: Permission,
    audience: Audience,
}

/// A statement that may run: in scope, within quota, through the guard. Made only by
/// [`TenantContext`]; [`ScopedServer`] runs nothing else.
#[derive(Debug)]
pub struct AdmittedQuery {
    uri: String,
    /// As the caller wrote it; what runs has the same words.
    text: String,
    query: Query,
    /// Held until the statement is over.
    permit: Permit,
}

impl AdmittedQuery {
    pub(super) fn query(&self) -> &Query {
        &self.query
    }

    pub(super) fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The error with its position in the caller's own text.
    pub(super) fn place(&self, error: database::Error) -> Error {
        in_callers_text(error, &self.text, self.query.statement.sql()).into()
    }
}

impl TenantContext {
    /// Begins a call: from here on it ends in the audit log, also when it is dropped.
    pub(super) fn begin<'a>(
        &'a self,
        caller: &'a Caller,
        action: &'static str,
        needs: Permission,
    ) -> Call<'a> {
        let attempt = Attempt {
            request_id: caller.request_id.clone().unwrap_or_else(RequestId::random),
            actor: caller.actor.clone(),
            peer: caller.peer.clone(),
            action,
            tenant: Some(self.tenant().clone()),
        };
        let barred = self.meter.check_denied(&self.config.quotas, &caller.name()).err();
        let mut pending = self.log.begin(attempt);
        pending.cut_by(caller.cut.clone());
        Call { context: self, caller, pending, barred, needs, audience: tools::audience(action) }
    }

    /// Whether `caller` is among `audience`.
    pub(super) fn offers(&self, audience: Audience, caller: &Caller) -> bool {
        self.check_audience(audience, caller).is_ok()
    }

    fn check_audience(&self, audience: Audience, caller: &Caller) -> Result<(), Error> {
        match audience {
            Audience::Feature(name) if self.config.features.get(name) == Some(&true) => Ok(()),
            Audience::Feature(name) => Err(Error::Feature(name)),
            Audience::Writers if !caller.permissions.include(Permission::Write) => {
                Err(Error::Permission(Permission::Write))
            }
            Audience::Writers if self.config.access.mode != AccessMode::ReadWrite => {
                Err(Error::ReadOnly)
            }
            Audience::Everybody | Audience::Writers => Ok(()),
        }
    }

    /// The tool `query_tenant_data`.
    pub(super) async fn query(
        &self,
        instances: &mut impl Instances,
        caller: &Caller,
        arguments: Result<QueryArguments, Error>,
    ) -> Result<QueryAnswer, Failure> {
        let mut call = self.begin(caller, "query_tenant_data", Permission::Query);
        let span = tracing::info_span!("call", request.id = %call.pending.request_id());
        let result = async {
            let admitted = call.admit_query(arguments?)?;
            self.run(instances, &admitted).await
        };
        let result = result.instrument(span).await;
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
            // Also of a caller that was refused too often: it says until when.
            arguments.and(call.check_scope())?;
            Ok(self.describe(instances, caller).await)
        };
        let result = result.await;
        call.finish(result, |_| None).await
    }

    /// Runs what was admitted on an instance; on another when the session of the first had ended.
    pub(super) async fn run(
        &self,
        instances: &mut impl Instances,
        admitted: &AdmittedQuery,
    ) -> Result<QueryAnswer, Error> {
        let mut retry = Retry::default();
        loop {
            let answer = self.lease(instances, &admitted.permit).await?.run(admitted).await;
            if !retry.is_due(&answer) {
                return answer;
            }
        }
    }

    async fn describe(&self, instances: &mut impl Instances, caller: &Caller) -> MetadataAnswer {
        let config = &self.config;
        if self.server_version.get().is_none()
            && config.quotas.max_concurrent_connections != Some(0)
            && let Ok(mut server) = self.lease_uncounted(instances).await
            && let Ok(version) = server.session.server_version().await
        {
            // Two first calls at once learn the same.
            drop(self.server_version.set(version));
        }
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
                .meter
                .usage(&config.quotas, &caller.name())
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
    pub(super) fn context(&self) -> &TenantContext {
        self.context
    }

    pub(super) fn caller(&self) -> &Caller {
        self.caller
    }

    pub(super) fn request_id(&self) -> RequestId {
        self.pending.request_id()
    }

    /// Records that the call is about to change something; when this returns, that is on disk.
    pub(super) async fn announce(&self) -> Result<(), Error> {
        Ok(self.pending.announce().await?)
    }

    pub(super) fn check_permission(&self) -> Result<(), Error> {
        self.check_barred()?;
        self.check_scope()
    }

    fn check_scope(&self) -> Result<(), Error> {
        if !self.caller.permissions.include(self.needs) {
            return Err(Error::Permission(self.needs));
        }
        self.context.check_audience(self.audience, self.caller)
    }

    fn check_barred(&self) -> Result<(), Error> {
        self.barred.map_or(Ok(()), |exceeded| Err(exceeded.into()))
    }

    /// Admits `text` as a URI of this tenant. What it claims to be is noted first.
    pub(super) fn admit_uri(&mut self, text: &str) -> Result<ScopedUri, Error> {
        let uri = ResourceUri::parse(text);
        self.pending.set_resource(text, uri.as_ref().ok().map(ResourceUri::tenant));
        self.check_barred()?;
        Ok(self.context.scope.admit(&uri?)?)
    }

    /// Counts the call as a statement; it is one, however often it asks the database.
    pub(super) fn acquire_permit(&self) -> Result<Permit, Error> {
        self.check_barred()?;
        Ok(self.context.meter.acquire(&self.context.config.quotas)?)
    }

    pub(super) fn admit_query(
        &mut self,
        arguments: QueryArguments,
    ) -> Result<AdmittedQuery, Error> {
        let uri = self.admit_uri(&arguments.resource_uri)?;
        self.check_permission()?;
        // Before the guard: parsing hostile SQL is work as well.
        let permit = self.acquire_permit()?;
        self.admit_counted(permit, &uri, arguments)
    }

    /// The same of a call that was counted already.
    pub(super) fn admit_counted(
        &self,
        permit: Permit,
        uri: &ScopedUri,
        arguments: QueryArguments,
    ) -> Result<AdmittedQuery, Error> {
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
        let QueryArguments { resource_uri: uri, query: text, limit, params, read } = arguments;
        let query = Query { statement, params, limit, read };
        Ok(AdmittedQuery { uri, text, query, permit })
    }

    /// Ends the call: its entry is on disk before this returns, or the result is an error.
    pub(super) async fn finish<T>(
        self,
        mut result: Result<T, Error>,
        rows: impl FnOnce(&T) -> Option<u64>,
    ) -> Result<T, Failure> {
        let request_id = self.pending.request_id();
        if let Err(error) = &result
            && is_denial(error.code())
            && let (quotas, caller) = (&self.context.config.quotas, self.caller.name())
            && let Err(exceeded) = self.context.meter.deny(quotas, &caller)
        {
            // One more would have been told why.
            result = Err(exceeded.into());
        }
        let outcome = match &result {
            Ok(answer) => Outcome { rows: rows(answer), ..Outcome::default() },
            Err(error) => Outcome { code: Some(error.code()), rule: error.rule(), rows: None },
        };
        if let Err(error) = &result
            && matches!(error.code(), ErrorCode::InternalError | ErrorCode::IntegrityError)
        {
            tracing::error!(request.id = %request_id, error.code = %error.code(), "call failed");
        }
        // Once for each try, however many ask meanwhile.
        if let Err(Error::Database(reason @ database::Error::Unavailable(_))) = &result {
            let tenant = self.context.tenant();
            tracing::warn!(request.id = %request_id, tenant.id = %tenant, %reason, "no session");
        }
        let finished = match self.pending.complete(outcome).await {
            Ok(()) => result.map_err(|error| Failure { error, request_id }),
            Err(error) => Err(Failure { error: error.into(), request_id }),
        };
        if finished.is_err() {
            self.context.pacing.wait().await;
        }
        finished
    }
}

impl ScopedServer {
    /// Runs what was admitted.
    ///
    /// Cancellation: the statement is cancelled at the database, and the session is broken.
    pub(super) async fn run(&mut self, admitted: &AdmittedQuery) -> Result<QueryAnswer, Error> {
        let began = Instant::now();
        let result = self.session.query(&admitted.query, &self.context.config.limits).await;
        let result = result.map_err(|error| admitted.place(error))?;
        Ok(QueryAnswer {
            resource_uri: admitted.uri.clone(),
            columns: result.columns.into_iter().map(ColumnInfo::from).collect(),
            row_count: result.rows.len() as u64,
            rows: result.rows,
            truncated: result.truncated,
            elapsed_ms: whole_milliseconds(began.elapsed()),
        })
    }
}

/// Whether an attempt that ended with `code` is one that we refused for what it asked.
fn is_denial(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Forbidden
            | ErrorCode::InvalidArgument
            | ErrorCode::InvalidTenant
            | ErrorCode::QueryRefused
            | ErrorCode::ResourceNotFound
    )
}

/// The error with its position, which is one in `sql`, as one in `text`.
pub(super) fn in_callers_text(
    mut error: database::Error,
    text: &str,
    sql: &str,
) -> database::Error {
    if let database::Error::Failed { position, .. } = &mut error {
        *position = position.and_then(|found| position_in(text, sql, found));
    }
    error
}

/// Where in `text` the character is that `sql` has at `position`, counted from 1: both have the same
/// words, but `sql` is written anew. `None` where the words before it differ.
fn position_in(text: &str, sql: &str, position: u32) -> Option<u32> {
    let is_word = |character: &char| character.is_alphanumeric() || *character == '_';
    let words = |text: &str| text.to_lowercase().chars().filter(is_word).collect::<String>();
    let before: String = sql.chars().take((position as usize).checked_sub(1)?).collect();
    let wanted = words(&before);
    // The first place behind as many characters of words where the next word begins.
    let mut read = String::new();
    for (index, character) in text.chars().enumerate() {
        if read.len() >= wanted.len() && !character.is_whitespace() {
            return if read == wanted { u32::try_from(index + 1).ok() } else { None };
        }
        if is_word(&character) {
            read.extend(character.to_lowercase());
        }
    }
    None
}

pub(super) fn whole_milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::database::double::Answers;
    use crate::database::{QueryResult, Unavailable};
    use crate::server::tests::Bench;

    /// Gives one answer after the other.
    #[derive(Debug)]
    struct Script(VecDeque<Result<QueryResult, database::Error>>);

    impl Answers for Script {
        fn query(&mut self) -> Result<QueryResult, database::Error> {
            self.0.pop_front().unwrap()
        }
    }

    /// What the caller gets, and how many answers nobody asked for.
    async fn ask(
        answers: Vec<Result<QueryResult, database::Error>>,
    ) -> (Result<u64, ErrorCode>, usize) {
        let script = answers.into_iter().chain([Ok(QueryResult::default())]).collect();
        let mut bench = Bench::new(|_| Script(script), |_| {});
        let server = &mut bench.server;
        let uri = "mcp://tenant001/database";
        let answer = server.query_tenant_data(uri, "SELECT 1", None).await;
        let answer = answer.map(|answer| answer.row_count).map_err(|failure| failure.code());
        let shown = format!("{:?}", server.session);
        (answer, shown.matches("QueryResult").count() + shown.matches("Unavailable").count())
    }

    #[tokio::test]
    async fn a_session_that_had_ended_is_replaced_once_and_one_that_broke_is_not() {
        let stale = || Err(Unavailable::Stale.into());
        assert_eq!(ask(vec![]).await, (Ok(0), 0));
        assert_eq!(ask(vec![stale()]).await, (Ok(0), 0));
        let unavailable = Err(ErrorCode::DatabaseUnavailable);
        assert_eq!(ask(vec![stale(), stale()]).await, (unavailable, 1));
        assert_eq!(ask(vec![Err(Unavailable::Lost.into())]).await, (unavailable, 1));
        assert_eq!(
            ask(vec![Err(database::Error::Timeout)]).await,
            (Err(ErrorCode::QueryTimeout), 1)
        );
    }

    #[test]
    fn a_position_is_told_in_the_callers_own_text() {
        let sql = "SELECT \"nothing\" FROM \"customers\"";
        assert_eq!(position_in("select  nothing from customers", sql, 8), Some(9));
        assert_eq!(position_in("select nothing\nFROM \"customers\"", sql, 23), Some(21));
        assert_eq!(position_in("SELECT nothing FROM customers", sql, 1), Some(1));
        // Words that only one of them has.
        assert_eq!(position_in("/* why */ SELECT nothing FROM customers", sql, 8), None);
        assert_eq!(position_in("", sql, 8), None);
        assert_eq!(position_in("SELECT nothing", sql, 0), None);
    }
}
