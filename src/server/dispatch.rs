//! What happens around every request of a protocol session, whatever its method.
//!
//! ```text
//! rmcp --request--> Dispatch: cancelled? panicked? too long? cut? --> the tenant's handler
//!                      |                                                 checks, quota, audit
//!                      `--- serverInfo in the answer, an event for the log
//! ```
//!
//! Where a handler is served, it is served inside of this: over HTTP of either era, over standard
//! input, and the handlers of tests. Protects the service against a call that never ends or panics,
//! and frees what an abandoned call holds. Does not decide who may call what: that is for the handler.

#![expect(deprecated, reason = "methods that older clients still use")]

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams, CompleteResult,
    DiscoverResult, ErrorCode as RpcCode, GetPromptRequestParams, GetPromptResponse,
    GetPromptResult, InitializeRequestParams, InitializeResult, InputRequiredResult,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    MetaObject, PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, ServerConfig, SetLevelRequestParams,
    SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::REFUSED;
use super::handler::said;
use crate::error::ErrorCode;

/// Where the name and version of a server stand in an answer.
const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// A handler with everything around its calls that is the same for all.
///
/// A transport that keeps one for a whole session lends each request its own, in an [`Arc`]: what was granted
/// to that one. A [`CancellationToken`] that it lends cuts the request.
#[derive(Clone, Debug)]
pub struct Dispatch<H> {
    handler: H,
    call_timeout: Duration,
}

/// What is known of a request before its handler has it.
struct Request {
    method: &'static str,
    is_modern: bool,
    cancelled: CancellationToken,
    /// Cancelled when the transport wants it to end at once, with an answer.
    cut: CancellationToken,
}

impl Request {
    fn new(method: &'static str, context: &RequestContext<RoleServer>) -> Self {
        let version = context.protocol_version();
        let is_modern = version.is_some_and(|it| it >= ProtocolVersion::V_2026_07_28);
        let cut = said(context).cloned().unwrap_or_default();
        Self { method, is_modern, cancelled: context.ct.clone(), cut }
    }
}

impl<H: ServerHandler> Dispatch<H> {
    /// Serves `handler`; no request takes longer than `call_timeout`, subscriptions aside.
    pub fn new(handler: H, call_timeout: Duration) -> Self {
        Self { handler, call_timeout }
    }

    /// What it is around.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// The same around what `change` makes of the handler.
    #[must_use]
    pub fn map<O>(self, change: impl FnOnce(H) -> O) -> Dispatch<O> {
        Dispatch { handler: change(self.handler), call_timeout: self.call_timeout }
    }

    /// Runs one request to its end, its cancellation, its panic, or the end of its time.
    async fn run<T: Answer>(
        &self,
        request: Request,
        work: impl Future<Output = Result<T, ErrorData>>,
    ) -> Result<T, ErrorData> {
        let limited =
            tokio::time::timeout(self.call_timeout, AssertUnwindSafe(work).catch_unwind());
        let began = Instant::now();
        let result = tokio::select! {
            biased;
            // What is dropped here cancels its statement and records itself as abandoned.
            () = request.cancelled.cancelled() => Err(told(ErrorCode::Cancelled)),
            result = limited => match result {
                Ok(Ok(result)) => result,
                Ok(Err(_panic)) => {
                    tracing::error!(rpc.method = request.method, "a call panicked");
                    Err(told(ErrorCode::InternalError))
                }
                Err(_elapsed) => Err(timed_out()),
            },
            // What was over by then was in time.
            () = request.cut.cancelled() => Err(cut_short()),
        };
        let rpc_code = result.as_ref().err().map(|error| error.code.0);
        let elapsed_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        // One for each request: what counts them by method and outcome begins here.
        tracing::debug!(rpc.method = request.method, rpc_code, elapsed_us, "served");
        result.map(|mut answer| {
            if request.is_modern
                && let Some(meta) = answer.meta()
            {
                let info = self.handler.get_info().server_info;
                let info = serde_json::to_value(info).unwrap_or(Value::Null);
                meta.get_or_insert_default().0.insert(SERVER_INFO.to_owned(), info);
            }
            answer
        })
    }
}

/// A failure that no handler has words for.
fn told(code: ErrorCode) -> ErrorData {
    failure(RpcCode::INTERNAL_ERROR, code, code.message())
}

fn cut_short() -> ErrorData {
    let message = "the call was cut, as the service stops or its session was ended; of a change, look \
                   whether it was made before you try again";
    failure(RpcCode(REFUSED), ErrorCode::Cancelled, message)
}

fn timed_out() -> ErrorData {
    let message = "the call took longer than the service's pool.call_timeout_seconds; of a change, look \
                   whether it was made before you try again";
    failure(RpcCode(REFUSED), ErrorCode::QueryTimeout, message)
}

fn failure(rpc_code: RpcCode, code: ErrorCode, message: &'static str) -> ErrorData {
    let data = json!({ "error_code": code.as_str(), "message": message });
    ErrorData::new(rpc_code, message, Some(data))
}

/// An answer with room for what is said about the server.
trait Answer {
    /// `None` where the protocol has none.
    fn meta(&mut self) -> Option<&mut Option<MetaObject>>;
}

/// Those that have it as a member of their own.
macro_rules! answers {
    ($($result:ty),* $(,)?) => {
        $(impl Answer for $result {
            fn meta(&mut self) -> Option<&mut Option<MetaObject>> {
                Some(&mut self.meta)
            }
        })*
    };
}

answers!(
    CallToolResult,
    CompleteResult,
    DiscoverResult,
    GetPromptResult,
    InputRequiredResult,
    ListPromptsResult,
    ListResourceTemplatesResult,
    ListResourcesResult,
    ListToolsResult,
    ReadResourceResult,
);

impl Answer for () {
    fn meta(&mut self) -> Option<&mut Option<MetaObject>> {
        None
    }
}

impl Answer for InitializeResult {
    fn meta(&mut self) -> Option<&mut Option<MetaObject>> {
        // It is a member of the answer itself.
        None
    }
}

impl Answer for CallToolResponse {
    fn meta(&mut self) -> Option<&mut Option<MetaObject>> {
        match self {
            Self::Complete(result) => result.meta(),
            Self::InputRequired(result) => result.meta(),
            Self::Task(_) | _ => None,
        }
    }
}

impl Answer for GetPromptResponse {
    fn meta(&mut self) -> Option<&mut Option<MetaObject>> {
        match self {
            Self::Complete(result) => result.meta(),
            Self::InputRequired(result) => result.meta(),
            _ => None,
        }
    }
}

impl Answer for ReadResourceResponse {
    fn meta(&mut self) -> Option<&mut Option<MetaObject>> {
        match self {
            Self::Complete(result) => result.meta(),
            Self::InputRequired(result) => result.meta(),
            _ => None,
        }
    }
}

/// Methods that are passed on with their parameters.
macro_rules! dispatched {
    ($($(#[$attribute:meta])* $name:ident($params:ty) -> $result:ty = $method:literal;)*) => {
        $($(#[$attribute])* async fn $name(
            &self,
            params: $params,
            context: RequestContext<RoleServer>,
        ) -> Result<$result, ErrorData> {
            let request = Request::new($method, &context);
            let current = said::<Arc<Self>>(&context).cloned();
            let current = current.as_deref().unwrap_or(self);
            current.run(request, current.handler.$name(params, context)).await
        })*
    };
}

impl<H: ServerHandler> ServerHandler for Dispatch<H> {
    dispatched! {
        initialize(InitializeRequestParams) -> InitializeResult = "initialize";
        complete(CompleteRequestParams) -> CompleteResult = "completion/complete";
        set_level(SetLevelRequestParams) -> () = "logging/setLevel";
        get_prompt(GetPromptRequestParams) -> GetPromptResponse = "prompts/get";
        list_prompts(Option<PaginatedRequestParams>) -> ListPromptsResult = "prompts/list";
        list_resources(Option<PaginatedRequestParams>) -> ListResourcesResult = "resources/list";
        list_resource_templates(Option<PaginatedRequestParams>) -> ListResourceTemplatesResult
            = "resources/templates/list";
        read_resource(ReadResourceRequestParams) -> ReadResourceResponse = "resources/read";
        subscribe(SubscribeRequestParams) -> () = "resources/subscribe";
        unsubscribe(UnsubscribeRequestParams) -> () = "resources/unsubscribe";
        list_tools(Option<PaginatedRequestParams>) -> ListToolsResult = "tools/list";
        call_tool(CallToolRequestParams) -> CallToolResponse = "tools/call";
    }

    async fn discover(
        &self,
        context: RequestContext<RoleServer>,
    ) -> Result<DiscoverResult, ErrorData> {
        let request = Request::new("server/discover", &context);
        self.run(request, self.handler.discover(context)).await
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        self.handler.accepted_subscription_filter(requested)
    }

    /// As long as the client listens.
    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let listening = AssertUnwindSafe(self.handler.listen(context)).catch_unwind();
        listening.await.unwrap_or_else(|_panic| {
            tracing::error!(rpc.method = "subscriptions/listen", "a subscription panicked");
            Err(told(ErrorCode::InternalError))
        })
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.handler.get_tool(name)
    }

    fn get_info(&self) -> ServerConfig {
        self.handler.get_info()
    }

    // As by default: a session has nothing to remember.
    async fn on_initialized(&self, _context: rmcp::service::NotificationContext<RoleServer>) {}
}

#[cfg(test)]
mod tests {
    use rmcp::ServiceExt as _;

    use super::*;

    /// Does as the tool is called.
    #[derive(Clone)]
    struct Handler;

    impl ServerHandler for Handler {
        async fn call_tool(
            &self,
            request: CallToolRequestParams,
            _context: RequestContext<RoleServer>,
        ) -> Result<CallToolResponse, ErrorData> {
            match &*request.name {
                "panics" => unreachable!("canary-4711"),
                "hangs" => std::future::pending().await,
                _ => Ok(CallToolResult::success(Vec::new()).into()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_panics_or_never_ends_is_answered_and_the_next_is_served() {
        let (ours, theirs) = tokio::io::duplex(4_096);
        let handler = Dispatch::new(Handler, Duration::from_mins(5));
        let serving = handler.serve(ours);
        let (served, client) = tokio::join!(serving, ().serve(theirs));
        let (_served, client) = (served.unwrap(), client.unwrap());
        let call = async |name: &'static str| {
            let answer = client.call_tool(CallToolRequestParams::new(name)).await;
            answer.map_err(|error| error.to_string())
        };
        let began = Instant::now();
        let panicked = call("panics").await.unwrap_err();
        assert!(panicked.contains("INTERNAL_ERROR") || panicked.contains("-32603"), "{panicked}");
        assert!(!panicked.contains("canary"), "{panicked}");
        let hung = call("hangs").await.unwrap_err();
        assert!(hung.contains("pool.call_timeout_seconds"), "{hung}");
        assert!(began.elapsed() >= Duration::from_mins(5));
        assert!(call("works").await.is_ok());
    }
}
