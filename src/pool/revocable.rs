//! A session whose work ends when its tenant changes: `pool.on_change = "cancel"`.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::database::{
    BoxFuture, Catalogue, Database, Dialect, Error, ExcessPrivilege, PlanNode, Query, QueryResult,
    Relation, Write, WriteResult,
};
use crate::tenant::{Access, Limits, RelationName};

/// A session that is given up once `revoked` is cancelled: what it runs is cancelled at the
/// database and answers [`Error::Cancelled`], and it is broken from then on.
#[derive(Debug)]
pub(super) struct Revocable {
    pub(super) session: Box<dyn Database>,
    pub(super) revoked: CancellationToken,
}

/// `work`, or its end. What is ready at the same moment was in time.
async fn unless<T>(
    revoked: &CancellationToken,
    work: BoxFuture<'_, Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        result = work => result,
        () = revoked.cancelled() => Err(Error::Cancelled),
    }
}

impl Database for Revocable {
    fn dialect(&self) -> Dialect {
        self.session.dialect()
    }

    fn query<'a>(
        &'a mut self,
        query: &'a Query,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<QueryResult, Error>> {
        Box::pin(unless(&self.revoked, self.session.query(query, limits)))
    }

    fn write<'a>(
        &'a mut self,
        write: &'a Write,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<WriteResult, Error>> {
        // To the end: what was made final cannot be taken back by giving it up.
        self.session.write(write, limits)
    }

    fn catalogue<'a>(
        &'a mut self,
        access: &'a Access,
    ) -> BoxFuture<'a, Result<Arc<Catalogue>, Error>> {
        Box::pin(unless(&self.revoked, self.session.catalogue(access)))
    }

    fn describe<'a>(
        &'a mut self,
        access: &'a Access,
        names: &'a [RelationName],
    ) -> BoxFuture<'a, Result<Vec<Relation>, Error>> {
        Box::pin(unless(&self.revoked, self.session.describe(access, names)))
    }

    fn explain<'a>(
        &'a mut self,
        query: &'a Query,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<PlanNode, Error>> {
        Box::pin(unless(&self.revoked, self.session.explain(query, limits)))
    }

    fn server_version(&mut self) -> BoxFuture<'_, Result<String, Error>> {
        Box::pin(unless(&self.revoked, self.session.server_version()))
    }

    fn excess_privileges(&mut self) -> BoxFuture<'_, Result<Vec<ExcessPrivilege>, Error>> {
        Box::pin(unless(&self.revoked, self.session.excess_privileges()))
    }

    fn ping(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(unless(&self.revoked, self.session.ping()))
    }

    fn hold(&mut self, held: Box<dyn Send>) {
        self.session.hold(held);
    }

    fn is_broken(&self) -> bool {
        self.revoked.is_cancelled() || self.session.is_broken()
    }
}
