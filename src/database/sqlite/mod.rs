//! A session with a `SQLite` file.
//!
//! ```text
//! Session --channel--> thread: Connection (read only) --oneshot--> future
//!    \--- future dropped: flag ---> progress handler: interrupt
//! ```
//!
//! `SQLite` blocks, so each session has a thread of its own, which ends with it.
//!
//! Protects against: writing (opened read only, `query_only`, authorizer); other files (no ATTACH,
//! no symbolic link, no extension); relations and columns outside the statement's verdict, exactly
//! as the engine resolves them (authorizer); statements, values and answers without bound. Does
//! not protect against a file whose bytes attack `SQLite` itself, beyond its defensive mode.

mod confine;
mod file;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use tokio::sync::oneshot;

use self::worker::{Command, Worker};
use super::{
    BoxFuture, Database, Dialect, Error, Options, Query, QueryResult, Relation, Unavailable,
};
use crate::tenant::{Access, Limits};

/// A handle on the thread that has the file open.
#[derive(Debug)]
pub(super) struct Session {
    commands: mpsc::Sender<Command>,
    broken: bool,
}

impl Session {
    pub(super) async fn open(
        path: String,
        options: &Options,
        access: Access,
    ) -> Result<Self, Error> {
        let (commands, inbox) = mpsc::channel();
        let (opened, answer) = oneshot::channel();
        let root = options.sqlite_root.clone();
        std::thread::Builder::new()
            .name("tenantry-sqlite".to_owned())
            .spawn(move || match Worker::open(&root, &path, access) {
                Ok(mut worker) => {
                    if opened.send(Ok(())).is_ok() {
                        worker.serve(&inbox);
                    }
                }
                Err(reason) => {
                    if opened.send(Err(reason)).is_err() {
                        tracing::debug!("nobody waits for this database any more");
                    }
                }
            })
            .map_err(|_| Unavailable::Lost)?;
        let opened = tokio::time::timeout(options.connect_timeout, answer);
        match opened.await {
            Ok(Ok(Ok(()))) => Ok(Self { commands, broken: false }),
            Ok(Ok(Err(reason))) => Err(reason.into()),
            Ok(Err(_)) => Err(Unavailable::Lost.into()),
            Err(_elapsed) => Err(Unavailable::TimedOut.into()),
        }
    }

    /// Sends a command, and cancels it when the future is dropped.
    async fn ask<T>(
        &mut self,
        command: impl FnOnce(Arc<AtomicBool>, oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (reply, answer) = oneshot::channel();
        let _cancel = CancelOnDrop(Arc::clone(&cancelled));
        let answered = match self.commands.send(command(cancelled, reply)) {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        // The thread is gone: it panicked, and nothing is known about its connection.
        answered.unwrap_or_else(|| {
            self.broken = true;
            Err(Unavailable::Lost.into())
        })
    }
}

impl Database for Session {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn query<'a>(
        &'a mut self,
        query: &'a Query,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<QueryResult, Error>> {
        let (query, limits) = (query.clone(), *limits);
        Box::pin(self.ask(move |cancelled, reply| Command::Query {
            query,
            limits,
            cancelled,
            reply,
        }))
    }

    fn relations<'a>(
        &'a mut self,
        access: &'a Access,
    ) -> BoxFuture<'a, Result<Vec<Relation>, Error>> {
        let access = access.clone();
        Box::pin(self.ask(move |cancelled, reply| Command::Relations { access, cancelled, reply }))
    }

    fn server_version(&mut self) -> BoxFuture<'_, Result<String, Error>> {
        let version = if self.broken {
            Err(Unavailable::Lost.into())
        } else {
            Ok(format!("SQLite {}", rusqlite::version()))
        };
        Box::pin(std::future::ready(version))
    }

    fn is_broken(&self) -> bool {
        self.broken
    }
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
