//! A session with a `SQLite` file.
//!
//! ```text
//! Session --channel--> thread: Connection (read only) --oneshot--> future
//!    \                        \-- Connection (read and write), from the first change on
//!     \-- future dropped: flag and interrupt, which stop the engine between two rows
//! ```
//!
//! `SQLite` blocks, so each session has a thread of its own, which ends with it; so does opening a
//! file, which may go on after nobody waits for it. Those whose statements take long compute in turns,
//! one fewer at once than there are processors, and yield between steps and where they make large
//! values: to others who have just come, whatever the system thinks of priorities.
//!
//! Protects against: writing by a query (opened read only, `query_only`, authorizer); changes of
//! anything but the rows of one table (authorizer), and half a change (transaction); other files (no ATTACH,
//! no symbolic link, no extension); relations and columns outside the statement's verdict, exactly
//! as the engine resolves them (authorizer); statements, values and answers without bound, in time
//! and memory. The engine looks at the clock between its steps: the caller does not wait for a long
//! one, and the session is then broken; its thread ends with the row, and what the session was told
//! to [`Database::hold`] with the thread. Full text looks at the clock as it reads its index; its
//! longest step, the last merge of a search by prefix, took 0.46 s for ten million words in a million
//! rows (`'a*'`, 2.4 s in all). Does not protect against a file whose bytes attack `SQLite` itself,
//! beyond its defensive mode, nor against one row of which the functions take long: its session's
//! thread computes on, in its tenant's place.

mod catalogue;
mod change;
mod confine;
mod explain;
mod file;
mod functions;
mod mathematics;
mod memory;
mod turns;
mod watch;
mod worker;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use rusqlite::InterruptHandle;
use tokio::sync::oneshot;

use self::file::Use;
use self::worker::{CATALOGUE_TIMEOUT, Command, Worker};
use super::{
    BoxFuture, Catalogue, Database, Dialect, Error, ExcessPrivilege, Options, PlanNode, Query,
    QueryResult, Refusal, Relation, Unavailable, Write, WriteResult,
};
use crate::tenant::{Access, AccessMode, Limits, RelationName};

/// See [`super::bound_memory`].
pub(super) fn bound_memory() -> bool {
    memory::count_from_now_on()
}

/// How long an answer may come after the engine should have given up by itself.
const GRACE: Duration = Duration::from_secs(2);

/// A handle on the thread that has the file open.
#[derive(Debug)]
pub(super) struct Session {
    commands: mpsc::Sender<Command>,
    broken: bool,
    shared: Arc<Shared>,
}

/// What a session and its thread both have.
#[derive(Default)]
struct Shared {
    /// Of what reads, and of what writes if there is any.
    interrupts: Mutex<Vec<InterruptHandle>>,
    /// Dropped by whichever ends last.
    held: Mutex<Vec<Box<dyn Send>>>,
}

/// Cancels a command, unless it is over. The engine stops between two rows; a flag that it sees
/// between steps is what tells why.
struct Cancel {
    cancelled: Arc<AtomicBool>,
    shared: Arc<Shared>,
    is_over: bool,
}

impl Session {
    /// Keeps `opening` until the file is open or cannot be, however long nobody waits for that.
    pub(super) async fn open(
        path: String,
        options: &Options,
        access: Access,
        opening: Box<dyn Send>,
    ) -> Result<Self, Error> {
        let (commands, inbox) = mpsc::channel();
        let (opened, answer) = oneshot::channel();
        let root = options.sqlite_root.clone();
        let shared = Arc::<Shared>::default();
        // Let go of after the connections.
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("tenantry-sqlite".to_owned())
            .spawn(move || {
                let reader = open_reader(&root, &path, &access);
                // Before the answer: who has it counts on that.
                drop(opening);
                match reader {
                    Ok(mut worker) => {
                        of_thread.reads(&worker);
                        if opened.send(Ok(())).is_ok() {
                            worker.serve(&inbox, || {
                                let writer = open_writer(&root, &path, &access)?;
                                of_thread.writes(&writer);
                                Ok(writer)
                            });
                        }
                    }
                    Err(reason) => {
                        if opened.send(Err(reason)).is_err() {
                            tracing::debug!("nobody waits for this database any more");
                        }
                    }
                }
            })
            .map_err(|_| Unavailable::Lost)?;
        let opened = tokio::time::timeout(options.connect_timeout, answer);
        match opened.await {
            Ok(Ok(Ok(()))) => Ok(Self { commands, broken: false, shared }),
            Ok(Ok(Err(reason))) => Err(reason.into()),
            Ok(Err(_)) => Err(Unavailable::Lost.into()),
            Err(_elapsed) => Err(Unavailable::TimedOut.into()),
        }
    }

    /// Sends a command that should end by itself after `timeout`, and cancels it when it does not
    /// or when the future is dropped. The session is then broken: its thread may still be at it.
    async fn ask<T>(
        &mut self,
        timeout: Duration,
        command: impl FnOnce(Arc<AtomicBool>, oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        if self.broken {
            return Err(Unavailable::Lost.into());
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let (reply, answer) = oneshot::channel();
        let mut cancel = Cancel {
            cancelled: Arc::clone(&cancelled),
            shared: Arc::clone(&self.shared),
            is_over: false,
        };
        self.broken = true;
        if self.commands.send(command(cancelled, reply)).is_err() {
            return Err(Unavailable::Lost.into());
        }
        match tokio::time::timeout(timeout.saturating_add(GRACE), answer).await {
            Ok(Ok(answer)) => {
                cancel.is_over = true;
                self.broken = false;
                answer
            }
            // The thread is gone: it panicked, and nothing is known about its connection.
            Ok(Err(_)) if cancel.cancelled.load(Ordering::Acquire) => Err(Error::OutcomeUnknown),
            Ok(Err(_)) => Err(Unavailable::Lost.into()),
            Err(_elapsed) if cancel.cancel() => Err(Error::Timeout),
            // A change is being made final.
            Err(_elapsed) => Err(Error::OutcomeUnknown),
        }
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
        let (query, limits) = (Box::new(query.clone()), *limits);
        Box::pin(self.ask(limits.statement_timeout, move |cancelled, reply| Command::Query {
            query,
            limits,
            cancelled,
            reply,
        }))
    }

    fn write<'a>(
        &'a mut self,
        write: &'a Write,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<WriteResult, Error>> {
        let (write, limits) = (write.clone(), *limits);
        Box::pin(self.ask(limits.statement_timeout, move |cancelled, reply| Command::Write {
            write,
            limits,
            cancelled,
            reply,
        }))
    }

    fn catalogue<'a>(
        &'a mut self,
        access: &'a Access,
    ) -> BoxFuture<'a, Result<Arc<Catalogue>, Error>> {
        let access = access.clone();
        Box::pin(self.ask(CATALOGUE_TIMEOUT, move |cancelled, reply| Command::Catalogue {
            access,
            cancelled,
            reply,
        }))
    }

    fn describe<'a>(
        &'a mut self,
        access: &'a Access,
        names: &'a [RelationName],
    ) -> BoxFuture<'a, Result<Vec<Relation>, Error>> {
        let (access, names) = (access.clone(), names.to_vec());
        Box::pin(self.ask(CATALOGUE_TIMEOUT, move |cancelled, reply| Command::Describe {
            access,
            names,
            cancelled,
            reply,
        }))
    }

    fn explain<'a>(
        &'a mut self,
        query: &'a Query,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<PlanNode, Error>> {
        let (query, limits) = (query.clone(), *limits);
        Box::pin(self.ask(limits.statement_timeout, move |cancelled, reply| Command::Explain {
            query,
            limits,
            cancelled,
            reply,
        }))
    }

    fn server_version(&mut self) -> BoxFuture<'_, Result<String, Error>> {
        let version = if self.broken {
            Err(Unavailable::Lost.into())
        } else {
            Ok(format!("SQLite {}", rusqlite::version()))
        };
        Box::pin(std::future::ready(version))
    }

    fn excess_privileges(&mut self) -> BoxFuture<'_, Result<Vec<ExcessPrivilege>, Error>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn hold(&mut self, held: Box<dyn Send>) {
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner).push(held);
    }

    fn is_broken(&self) -> bool {
        self.broken
    }
}

/// A change that a crash interrupted is undone first: a reader could not, nor read.
fn open_reader(root: &Path, path: &str, access: &Access) -> Result<Worker, Unavailable> {
    if access.mode == AccessMode::ReadWrite && file::is_unfinished(root, path) {
        drop(file::open(root, path, Use::Writing)?);
    }
    Worker::open(root, path, access.clone(), Use::Reading)
}

fn open_writer(root: &Path, path: &str, access: &Access) -> Result<Worker, Error> {
    if access.mode != AccessMode::ReadWrite {
        return Err(Refusal::read_only().into());
    }
    let writer = Worker::open(root, path, access.clone(), Use::Writing)?;
    match writer.connection.is_readonly("main") {
        Ok(false) => Ok(writer),
        _ => Err(change::not_writable()),
    }
}

impl Shared {
    fn reads(&self, worker: &Worker) {
        self.interrupts().push(worker.connection.get_interrupt_handle());
    }

    /// In place of one before.
    fn writes(&self, worker: &Worker) {
        let mut interrupts = self.interrupts();
        interrupts.truncate(1);
        interrupts.push(worker.connection.get_interrupt_handle());
    }

    fn interrupts(&self) -> MutexGuard<'_, Vec<InterruptHandle>> {
        self.interrupts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Cancel {
    /// Whether it was in time.
    fn cancel(&self) -> bool {
        let is_in_time = !self.cancelled.swap(true, Ordering::AcqRel);
        if is_in_time {
            self.shared.interrupts().iter().for_each(InterruptHandle::interrupt);
        }
        is_in_time
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        if !self.is_over {
            self.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;
    use crate::database::AddressPolicy;

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_does_not_answer_is_given_up_with_its_session() {
        let (commands, _inbox) = mpsc::channel();
        let mut session = Session { commands, broken: false, shared: Arc::default() };
        assert_eq!(session.catalogue(&Access::default()).await, Err(Error::Timeout));
        assert!(session.is_broken());
        let next = session.catalogue(&Access::default()).await;
        assert_eq!(next, Err(Unavailable::Lost.into()));
    }

    #[tokio::test]
    async fn an_opening_that_is_given_up_keeps_what_it_was_given_until_it_has_ended() {
        let root = tempfile::tempdir().unwrap();
        let file = rusqlite::Connection::open(root.path().join("shop.db")).unwrap();
        file.execute_batch("CREATE TABLE t (a); BEGIN EXCLUSIVE").unwrap();
        let options = Options {
            sqlite_root: root.path().to_owned(),
            connect_timeout: Duration::from_secs(10),
            addresses: AddressPolicy::default(),
        };
        let (opening, mut ended) = oneshot::channel::<()>();
        let path = "shop.db".to_owned();
        let session = Session::open(path, &options, Access::default(), Box::new(opening));
        assert!(tokio::time::timeout(Duration::from_millis(50), session).await.is_err());
        assert_eq!(ended.try_recv(), Err(TryRecvError::Empty));
        drop(file);
        ended.await.unwrap_err();
    }

    #[tokio::test]
    async fn what_is_held_is_let_go_of_with_the_session_or_its_thread_whichever_is_later() {
        let (commands, _inbox) = mpsc::channel();
        let mut session = Session { commands, broken: false, shared: Arc::default() };
        let of_thread = Arc::clone(&session.shared);
        let held = Arc::new(());
        session.hold(Box::new(Arc::clone(&held)));
        drop(session);
        assert_eq!(Arc::strong_count(&held), 2);
        drop(of_thread);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn a_dropped_question_breaks_the_session_and_an_answered_one_does_not() {
        let (commands, inbox) = mpsc::channel();
        let mut session = Session { commands, broken: false, shared: Arc::default() };
        let answering = std::thread::spawn(move || {
            if let Ok(Command::Catalogue { reply, .. }) = inbox.recv() {
                drop(reply.send(Ok(Arc::default())));
            }
            inbox
        });
        assert_eq!(session.catalogue(&Access::default()).await, Ok(Arc::default()));
        assert!(!session.is_broken());
        let inbox = answering.join().unwrap();
        let access = Access::default();
        let asked = tokio::time::timeout(Duration::ZERO, session.catalogue(&access));
        assert!(asked.await.is_err());
        assert!(session.is_broken());
        let Ok(Command::Catalogue { cancelled, .. }) = inbox.recv() else { panic!("was asked") };
        assert!(cancelled.load(Ordering::Relaxed));
    }
}
