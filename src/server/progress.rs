//! Signs of life of a call that takes long, for a client that asks for them with a `progressToken`.
//!
//! The first comes after a second, so the answer to a short call is one JSON document, as ever. Over
//! HTTP the answer to a long one becomes an event stream.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::ProgressNotificationParam;
use rmcp::service::RequestContext;
use tokio::time::{Instant, MissedTickBehavior};

/// How long nothing is said, and how long between one sign and the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// `work`, with signs of life if the client asked for them: the seconds that it has taken.
pub(super) async fn reported<T>(
    context: &RequestContext<RoleServer>,
    work: impl Future<Output = T>,
) -> T {
    let Some(token) = context.meta.get_progress_token() else { return work.await };
    let began = Instant::now();
    let mut ticks = tokio::time::interval_at(began + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            _ = ticks.tick() => {
                let seconds = began.elapsed().as_secs_f64().round();
                let sign = ProgressNotificationParam::new(token.clone(), seconds)
                    .with_message(format!("running for {seconds} s"));
                let told = context.peer.notify_progress(sign);
                // The work goes on while a slow client takes the sign, and is not held up by it.
                tokio::select! {
                    biased;
                    result = &mut work => return result,
                    // A client that is gone cancels the call by being gone.
                    _ = told => {}
                }
            }
        }
    }
}
