//! Calls whose caller hangs up, wherever they wait.

use std::cell::Cell;
use std::pin::pin;
use std::task::Poll;

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::*;
use crate::audit::{Attempt, Outcome, RequestId};
use crate::tenant::{AccessMode, Permission};

/// Polls `future` whenever it wants to be, so many times at most; none when that was too few.
async fn poll_times<F: Future>(future: F, times: u32) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polled = 0;
    let counted = std::future::poll_fn(|context| {
        if polled == times {
            return Poll::Ready(None);
        }
        polled += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polled == times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    // Woken by what it waits for itself, not by what others of the same task do.
    FuturesUnordered::from_iter([counted]).next().await.flatten()
}

#[derive(Debug)]
struct Any;

impl Answers for Any {}

type Shared = Arc<Mutex<ScopedServer>>;

/// Hangs up on `call` wherever it waits, and looks at what is left of it: beside `announced`, one entry
/// that says how it ended, which is as `over` where it did by itself. It waits at `points` at least, and
/// for an entry, unless that is written before it looks.
async fn hang_up_everywhere(
    points: u32,
    (announced, over): (&[Decision], Decision),
    call: impl AsyncFn(&TenantContext, &mut Shared, &Caller),
) {
    let bench = Bench::new(|_| Any, |config| config.access.mode = AccessMode::ReadWrite);
    let (context, log) = (Arc::clone(&bench.server.context), bench.log.clone());
    let permissions = [Permission::Query, Permission::Write].into_iter().collect();
    let caller = Caller { permissions, ..bench.server.caller.clone() };
    let server = Arc::new(Mutex::new(bench.server));
    for times in 0.. {
        let request_id = RequestId::random();
        let caller = Caller { request_id: Some(request_id.clone()), ..caller.clone() };
        let (mut instances, held) = (Arc::clone(&server), Arc::clone(&server).lock_owned().await);
        let owners = Arc::strong_count(&server);
        let is_over = Cell::new(false);
        let call = async {
            let called = poll_times(call(&context, &mut instances, &caller), times).await;
            is_over.set(true);
            called.is_some()
        };
        let back = async {
            // Until the call waits for it, too.
            while !is_over.get() && Arc::strong_count(&server) == owners {
                tokio::task::yield_now().await;
            }
            drop(held);
        };
        let (is_complete, ()) = tokio::join!(call, back);
        assert!(server.try_lock().is_ok(), "somebody has the instance");
        let usage = context.meter.usage(&context.config.quotas, &caller.name());
        assert_eq!(usage[2].used, 0, "a statement counts as running");
        // Once this is on disk, so is what was written before it.
        let attempt = Attempt {
            request_id: RequestId::random(),
            actor: Actor::Service,
            peer: None,
            action: "last",
            tenant: None,
        };
        log.begin(attempt).complete(Outcome::default()).await.unwrap();
        let entries = audit::read(bench.directory.path(), Filter::default()).unwrap();
        let entries = entries.map(Result::unwrap).filter(|entry| entry.request_id == request_id);
        let mut decisions: Vec<_> = entries.map(|entry| entry.decision).collect();
        if times > 0 {
            let last = decisions.pop();
            let is_right = last == Some(over) || !is_complete && last == Some(Decision::Abandoned);
            assert!(is_right && decisions == announced, "{decisions:?}, {last:?} after {times}");
        }
        if is_complete {
            assert!(times > points, "it waited less often than {points} times");
            return;
        }
    }
}

const URI: &str = "mcp://tenant001/database";

#[tokio::test]
async fn a_query_hung_up_on_anywhere_has_one_entry_and_holds_nothing() {
    // The instance, the answer.
    hang_up_everywhere(2, (&[], Decision::Allowed), async |context, instances, caller| {
        let arguments = QueryArguments::new(URI, "SELECT 1", None);
        context.query(instances, caller, Ok(arguments)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_change_hung_up_on_anywhere_was_announced_and_has_one_entry_more() {
    let announced = &[Decision::Begun];
    // The instance, the answer.
    hang_up_everywhere(2, (announced, Decision::Allowed), async |context, instances, caller| {
        let arguments = WriteArguments::new(URI, "DELETE FROM t WHERE a = 1", None);
        context.write(instances, caller, Ok(arguments)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_refusal_that_is_answered_later_and_hung_up_on_has_one_entry() {
    // Until it is answered.
    hang_up_everywhere(1, (&[], Decision::Denied), async |context, instances, caller| {
        while context.pacing.wait().now_or_never().is_some() {}
        let arguments = QueryArguments::new(URI, "SELECT load_extension('x')", None);
        context.query(instances, caller, Ok(arguments)).await.unwrap_err();
    })
    .await;
}
