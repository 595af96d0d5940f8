//! `subscriptions/listen`: a client is told when its lists are not what they were.
//!
//! ```text
//! the tenant's configuration changed --Stays--> tools and resources      both at most once a second;
//! the database has other tables --catalogue---> resources                several changes are one word
//! ```
//!
//! It is told that there is something new, never what: it asks for the list again, and is answered as
//! anybody is. A client that does not read is dropped. When the leave to stay is over (revoked, expired,
//! disabled, sealed, stopping), the subscription ends with its final result.

use std::sync::Arc;
use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::SubscriptionFilter;
use rmcp::service::{SubscriptionContext, SubscriptionSendError, SubscriptionSink};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::handler::McpHandler;
use super::stay::{Kind, Mark, Stays, Who};
use super::{Error, Failure, Instances};
use crate::database::Catalogue;
use crate::error::ErrorCode;
use crate::tenant::Permission;

/// How often a database is asked whether it has other tables than before.
const LOOK: Duration = Duration::from_secs(10);
/// How long a client may take to read one word.
const PATIENCE: Duration = Duration::from_secs(10);

/// Among whom a caller may subscribe.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made by the manager for one caller")]
pub struct Subscriptions {
    /// Everybody who stays.
    pub stays: Stays,
    /// The state of the tenant before its context was read.
    pub mark: Option<Mark>,
    /// How long the caller's credential lasts.
    pub lasts_for: Option<Duration>,
}

/// What can change here: not the prompts, of which there are none, nor single resources.
pub(super) fn accepted(requested: &SubscriptionFilter) -> SubscriptionFilter {
    let mut accepted = SubscriptionFilter::default();
    accepted.tools_list_changed = requested.tools_list_changed;
    accepted.resources_list_changed = requested.resources_list_changed;
    accepted
}

/// Serves one subscription until it ends.
pub(super) async fn run<I: Instances + Clone + Sync + 'static>(
    handler: &McpHandler<I>,
    context: &SubscriptionContext,
) -> Result<(), ErrorData> {
    let caller = handler.caller(context.request_context());
    let call = handler.context.begin(caller, "subscriptions/listen", Permission::List);
    let entered = call.check_permission().and_then(|()| {
        let subscriptions =
            handler.subscriptions.as_ref().ok_or(Error::Instance(ErrorCode::InternalError))?;
        let Subscriptions { stays, mark, lasts_for } = subscriptions;
        let who = Who::new(handler.context.tenant().clone(), caller);
        let ended = CancellationToken::new();
        let entered = stays.enter(who, Kind::Subscription, *mark, *lasts_for, ended);
        entered.map_err(|_full| Error::Subscriptions)
    });
    let stay = call.finish(entered, |_| None).await.map_err(Failure::into_rpc_error)?;
    let listens = Listening::new(context.sink());
    let mut looks = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = listens.catalogue(handler).await;
    loop {
        let told = tokio::select! {
            biased;
            () = context.cancelled() => return Ok(()),
            () = stay.ended().cancelled() => return Ok(()),
            () = stay.changed() => listens.tell(true, true).await,
            _ = looks.tick() => {
                let found = listens.catalogue(handler).await;
                let is_new = found.is_some() && known.is_some() && found != known;
                known = found.or(known);
                listens.tell(false, is_new).await
            }
        };
        if told.is_err() {
            // It is gone, or as good as gone.
            return Ok(());
        }
    }
}

/// A client, and what it wants to know.
struct Listening<'a> {
    sink: &'a SubscriptionSink,
    tools: bool,
    resources: bool,
}

impl<'a> Listening<'a> {
    fn new(sink: &'a SubscriptionSink) -> Self {
        let accepted = sink.accepted();
        let tools = accepted.tools_list_changed == Some(true);
        let resources = accepted.resources_list_changed == Some(true);
        Self { sink, tools, resources }
    }

    async fn tell(&self, tools: bool, resources: bool) -> Result<(), SubscriptionSendError> {
        let telling = async {
            if tools && self.tools {
                self.sink.notify_tool_list_changed().await?;
            }
            if resources && self.resources {
                self.sink.notify_resource_list_changed().await?;
            }
            Ok(())
        };
        let told = tokio::time::timeout(PATIENCE, telling).await;
        told.unwrap_or(Err(SubscriptionSendError::SubscriptionClosed))
    }

    /// What the database has; `None` for who does not want to know, and while it cannot be asked.
    async fn catalogue<I: Instances + Clone + Sync + 'static>(
        &self,
        handler: &McpHandler<I>,
    ) -> Option<Arc<Catalogue>> {
        if !self.resources {
            return None;
        }
        let mut instances = handler.instances.clone();
        let mut server = instances.lease().await.ok()?;
        // As it is by now: a lease is of the tenant's newest version.
        let context = Arc::clone(&server.context);
        server.session.catalogue(&context.config.access).await.ok()
    }
}
