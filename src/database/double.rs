//! A session that answers what a test says.

use std::fmt;
use std::sync::Arc;
use std::task::Poll;

use super::{
    BoxFuture, Catalogue, Database, Dialect, Error, ExcessPrivilege, PlanNode, Query, QueryResult,
    Relation, Write, WriteResult,
};
use crate::tenant::{Access, Limits, RelationName};

/// What a test says to the questions that it is about; the others are answered by nothing at all.
pub(crate) trait Answers: fmt::Debug + Send {
    fn query(&mut self) -> Result<QueryResult, Error> {
        Ok(QueryResult::default())
    }

    fn write(&mut self) -> Result<WriteResult, Error> {
        Ok(WriteResult::default())
    }

    fn catalogue(&mut self) -> Result<Catalogue, Error> {
        Ok(Catalogue::default())
    }

    fn describe(&mut self, _names: &[RelationName]) -> Result<Vec<Relation>, Error> {
        Ok(Vec::new())
    }

    fn explain(&mut self) -> Result<PlanNode, Error> {
        Ok(PlanNode::default())
    }

    /// Pending: never.
    fn ping(&mut self) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn is_broken(&self) -> bool {
        false
    }
}

/// A session of which nothing is left but its [`Answers`].
#[derive(Debug)]
pub(crate) struct Double<A>(pub(crate) A);

/// Not at once, as no server does.
fn later<'a, T: Send + 'a>(answer: Result<T, Error>) -> BoxFuture<'a, Result<T, Error>> {
    Box::pin(async {
        tokio::task::yield_now().await;
        answer
    })
}

impl<A: Answers> Database for Double<A> {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn query<'a>(
        &'a mut self,
        _: &'a Query,
        _: &'a Limits,
    ) -> BoxFuture<'a, Result<QueryResult, Error>> {
        later(self.0.query())
    }

    fn write<'a>(
        &'a mut self,
        _: &'a Write,
        _: &'a Limits,
    ) -> BoxFuture<'a, Result<WriteResult, Error>> {
        later(self.0.write())
    }

    fn catalogue<'a>(&'a mut self, _: &'a Access) -> BoxFuture<'a, Result<Arc<Catalogue>, Error>> {
        later(self.0.catalogue().map(Arc::new))
    }

    fn describe<'a>(
        &'a mut self,
        _: &'a Access,
        names: &'a [RelationName],
    ) -> BoxFuture<'a, Result<Vec<Relation>, Error>> {
        later(self.0.describe(names))
    }

    fn explain<'a>(
        &'a mut self,
        _: &'a Query,
        _: &'a Limits,
    ) -> BoxFuture<'a, Result<PlanNode, Error>> {
        later(self.0.explain())
    }

    fn server_version(&mut self) -> BoxFuture<'_, Result<String, Error>> {
        later(Ok("none".to_owned()))
    }

    fn excess_privileges(&mut self) -> BoxFuture<'_, Result<Vec<ExcessPrivilege>, Error>> {
        later(Ok(Vec::new()))
    }

    fn ping(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(std::future::poll_fn(|_| self.0.ping()))
    }

    fn is_broken(&self) -> bool {
        self.0.is_broken()
    }
}
