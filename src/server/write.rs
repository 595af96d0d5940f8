//! The tool that changes rows.
//!
//! ```text
//! admit_write --> AdmittedWrite     scope, access.mode, ScopedUri, quota Permit, GuardedWrite
//!   --announce--> an entry that says "begun" is on disk
//!   --lease--> change --> COMMIT
//!   --finish--> an entry with the same request id says how it went
//! ```
//!
//! So no change is without an entry, whenever the process ends: where only "begun" is there, or
//! "abandoned" after it, the change may have been made.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::call::{Call, in_callers_text, whole_milliseconds};
use super::tools::{ColumnInfo, WRITE, rows_as_json};
use super::{Caller, Error, Failure, Instances, Retry, ScopedServer, TenantContext};
use crate::database::{self, Rows, Write};
use crate::quota::Permit;
use crate::tenant::Permission;

/// The arguments of `write_tenant_data`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WriteArguments {
    /// What may be used.
    pub resource_uri: String,
    /// One INSERT, UPDATE or DELETE.
    pub statement: String,
    /// Most rows that may change.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Values for the statement's placeholders.
    #[serde(default)]
    pub params: Vec<Value>,
}

impl WriteArguments {
    /// A statement without placeholders.
    pub fn new(resource_uri: &str, statement: &str, limit: Option<u32>) -> Self {
        let (resource_uri, statement) = (resource_uri.to_owned(), statement.to_owned());
        Self { resource_uri, statement, limit, params: Vec::new() }
    }
}

/// The answer of `write_tenant_data`.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct WriteAnswer {
    /// The URI, as it was given.
    pub resource_uri: String,
    /// How many rows the statement changed.
    pub row_count: u64,
    /// Of RETURNING, in order; names may repeat.
    pub columns: Vec<ColumnInfo>,
    /// Of RETURNING, whole.
    #[serde(serialize_with = "rows_as_json")]
    pub rows: Rows,
    /// How long the database took.
    pub elapsed_ms: u64,
}

/// A change that may be made: in scope, within quota, through the guard. Made only by
/// [`TenantContext`].
#[derive(Debug)]
struct AdmittedWrite {
    uri: String,
    /// As the caller wrote it.
    text: String,
    write: Write,
    /// Held until the statement is over.
    permit: Permit,
}

impl TenantContext {
    /// The tool `write_tenant_data`.
    pub(super) async fn write(
        &self,
        instances: &mut impl Instances,
        caller: &Caller,
        arguments: Result<WriteArguments, Error>,
    ) -> Result<WriteAnswer, Failure> {
        let mut call = self.begin(caller, WRITE, Permission::Write);
        let span = tracing::info_span!("call", request.id = %call.request_id());
        let result = async {
            let admitted = call.admit_write(arguments?)?;
            call.announce().await?;
            let mut retry = Retry::default();
            loop {
                let answer = self.lease(instances, &admitted.permit).await?.change(&admitted).await;
                if !retry.is_due(&answer) {
                    break answer;
                }
            }
        };
        let result = result.instrument(span).await;
        let may_be_made =
            matches!(result, Ok(_) | Err(Error::Database(database::Error::OutcomeUnknown)));
        if let Err(Error::Database(reason @ database::Error::OutcomeUnknown)) = &result {
            let (tenant, id) = (self.tenant(), call.request_id());
            tracing::warn!(request.id = %id, tenant.id = %tenant, %reason, "a change");
        }
        let finished = call.finish(result, |answer| Some(answer.row_count)).await;
        finished.map_err(|mut failure| {
            if may_be_made && matches!(failure.error, Error::Audit(_)) {
                failure.error = Error::Unrecorded;
            }
            failure
        })
    }
}

impl Call<'_> {
    fn admit_write(&mut self, arguments: WriteArguments) -> Result<AdmittedWrite, Error> {
        let uri = self.admit_uri(&arguments.resource_uri)?;
        self.check_permission()?;
        // Before the guard: parsing hostile SQL is work as well.
        let permit = self.acquire_permit()?;
        if arguments.limit == Some(0) {
            return Err(Error::Argument("limit must be at least 1".to_owned()));
        }
        let context = self.context();
        let statement = database::check_write(
            &arguments.statement,
            context.dialect(),
            uri.resource(),
            &context.config.access,
            context.schema(),
        )?;
        let write = Write { statement, params: arguments.params, limit: arguments.limit };
        let (uri, text) = (arguments.resource_uri, arguments.statement);
        Ok(AdmittedWrite { uri, text, write, permit })
    }
}

impl ScopedServer {
    /// Makes the change that was admitted.
    ///
    /// Cancellation: the change is undone at the database unless it was being made final, and the
    /// session is broken.
    async fn change(&mut self, admitted: &AdmittedWrite) -> Result<WriteAnswer, Error> {
        let began = Instant::now();
        let result = self.session.write(&admitted.write, &self.context.config.limits).await;
        let sql = admitted.write.statement.sql();
        let result = result.map_err(|error| in_callers_text(error, &admitted.text, sql))?;
        Ok(WriteAnswer {
            resource_uri: admitted.uri.clone(),
            row_count: result.changed,
            columns: result.columns.into_iter().map(ColumnInfo::from).collect(),
            rows: result.rows,
            elapsed_ms: whole_milliseconds(began.elapsed()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::audit::{Actor, Decision, Log};
    use crate::database::double::Answers;
    use crate::database::{Unavailable, WriteResult};
    use crate::error::ErrorCode;
    use crate::server::tests::Bench;
    use crate::tenant::AccessMode;

    type Outcome = Result<u64, database::Error>;

    /// Gives one answer after the other; with `breaks`, no entry can be written from the first on.
    #[derive(Debug)]
    struct Script {
        answers: VecDeque<Outcome>,
        breaks: Option<Log>,
    }

    impl Answers for Script {
        fn write(&mut self) -> Result<WriteResult, database::Error> {
            if let Some(log) = &self.breaks {
                log.fail_next_write();
            }
            let answer = self.answers.pop_front().unwrap();
            answer.map(|changed| WriteResult { changed, ..WriteResult::default() })
        }
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Recording {
        Works,
        FailsBefore,
        FailsAfter,
    }

    /// What the caller gets, how many answers nobody asked for, and what was recorded.
    async fn ask(
        answers: Vec<Outcome>,
        recording: Recording,
    ) -> (Result<u64, (ErrorCode, String)>, usize, Vec<Decision>) {
        let fails_after = recording == Recording::FailsAfter;
        let script = |log: &Log| Script {
            answers: answers.into(),
            breaks: fails_after.then(|| log.clone()),
        };
        let mut bench = Bench::new(script, |config| config.access.mode = AccessMode::ReadWrite);
        let server = &mut bench.server;
        server.set_caller(Caller {
            actor: Actor::Embedder,
            permissions: Permission::ALL.into_iter().collect(),
            peer: None,
            request_id: None,
            cut: CancellationToken::new(),
        });
        if recording == Recording::FailsBefore {
            bench.log.fail_next_write();
        }
        let sql = "DELETE FROM customers WHERE true";
        let arguments = WriteArguments::new("mcp://tenant001/database", sql, None);
        let answer = server.write_tenant_data(arguments).await;
        let answer = answer
            .map(|answer| answer.row_count)
            .map_err(|failure| (failure.code(), failure.error.to_string()));
        let shown = format!("{:?}", server.session);
        let left = shown.matches("Ok(").count() + shown.matches("Err(").count();
        (answer, left, bench.decisions())
    }

    #[tokio::test]
    async fn a_change_is_tried_again_only_when_none_can_have_been_made() {
        use Decision::{Allowed, Begun, Failed};
        let stale = || Err(Unavailable::Stale.into());
        let (answer, left, recorded) = ask(vec![stale(), Ok(3)], Recording::Works).await;
        assert_eq!((answer, left, recorded), (Ok(3), 0, vec![Begun, Allowed]));
        for (first, code) in [
            (Err(database::Error::OutcomeUnknown), ErrorCode::OutcomeUnknown),
            (Err(Unavailable::Lost.into()), ErrorCode::DatabaseUnavailable),
            (Err(database::Error::Timeout), ErrorCode::QueryTimeout),
            (Err(database::Error::TooManyChanges { limit: 1 }), ErrorCode::ResultTooLarge),
        ] {
            let (answer, left, recorded) = ask(vec![first, Ok(3)], Recording::Works).await;
            assert_eq!(answer.unwrap_err().0, code);
            assert_eq!((left, recorded), (1, vec![Begun, Failed]), "{code}");
        }
        let (answer, left, _) = ask(vec![stale(), stale(), Ok(3)], Recording::Works).await;
        assert_eq!((answer.unwrap_err().0, left), (ErrorCode::DatabaseUnavailable, 1));
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_recorded_is_not_made_and_one_that_was_says_so() {
        let (answer, left, recorded) = ask(vec![Ok(3)], Recording::FailsBefore).await;
        assert_eq!(answer.unwrap_err().0, ErrorCode::AuditUnavailable);
        assert_eq!((left, recorded.first()), (1, Some(&Decision::Failed)));
        for made in [Ok(3), Err(database::Error::OutcomeUnknown)] {
            let (answer, _, recorded) = ask(vec![made], Recording::FailsAfter).await;
            let (code, message) = answer.unwrap_err();
            assert_eq!(code, ErrorCode::AuditUnavailable);
            assert!(message.contains("look whether it was made"), "{message}");
            assert_eq!(recorded, [Decision::Begun]);
        }
        // What was undone is not called made.
        let (answer, ..) = ask(vec![Err(database::Error::Timeout)], Recording::FailsAfter).await;
        assert!(!answer.unwrap_err().1.contains("look whether"));
    }
}
