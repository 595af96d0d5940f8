//! What goes on after a session was dropped: telling its server to stop what it ran.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// How many of them go on, in all of the process.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
static ENDED: Notify = Notify::const_new();

/// Counted until it is dropped.
struct Counted;

impl Counted {
    fn begin() -> Self {
        UNDER_WAY.fetch_add(1, Ordering::AcqRel);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::AcqRel);
        ENDED.notify_waiters();
    }
}

/// No caller waits for `work`: it ends by itself, and the server's own `statement_timeout` holds if
/// it has no effect.
pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    // Without a runtime the process is going down, and its connections with it.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let counted = Counted::begin();
        runtime.spawn(async move {
            let _counted = counted;
            work.await;
        });
    }
}

/// Waits until every server is told to stop what dropped sessions ran there, for `deadline` at most.
pub async fn settle(deadline: Duration) {
    let settled = async {
        loop {
            let ended = ENDED.notified();
            if UNDER_WAY.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    };
    if tokio::time::timeout(deadline, settled).await.is_err() {
        tracing::warn!(
            "databases were not told in time to stop what was cut; their own limits hold"
        );
    }
}
