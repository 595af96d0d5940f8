//! Signs of life of a call that takes long, for a client that asks for them with a `progressToken`: how
//! many rows were read. Where none come, as before the first one and while a change is made, it is one more
//! each second, for the protocol wants more in each sign.
//!
//! The first comes after a second, so the answer to a short call is one JSON document, as ever. Over
//! HTTP the answer to a long one becomes an event stream.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::ProgressNotificationParam;
use rmcp::service::RequestContext;
use tokio::time::{Instant, MissedTickBehavior};

use crate::database::RowsRead;

/// How long nothing is said, and how long between one sign and the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// `work`, with signs of life if the client asked for them: what of it was `read`.
pub(super) async fn reported<T>(
    context: &RequestContext<RoleServer>,
    read: &RowsRead,
    work: impl Future<Output = T>,
) -> T {
    let Some(token) = context.meta.get_progress_token() else { return work.await };
    let began = Instant::now();
    let mut ticks = tokio::time::interval_at(began + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut work, mut progress) = (std::pin::pin!(work), 0);
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            _ = ticks.tick() => {
                let (rows, seconds) = (read.count(), began.elapsed().as_secs_f64().round());
                progress = rows.max(progress + 1);
                #[expect(clippy::cast_precision_loss, reason = "there are not as many rows")]
                let sign = ProgressNotificationParam::new(token.clone(), progress as f64)
                    .with_message(if rows == 0 {
                        format!("running for {seconds} s")
                    } else {
                        format!("{rows} rows read in {seconds} s")
                    });
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
