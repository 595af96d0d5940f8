//! What became of a call, for a client that asks to be told: with a `logLevel` of the request, or with
//! `logging/setLevel` in a session.
//!
//! One message, just before the answer, about that call and nothing else. Over HTTP the answer becomes
//! an event stream then. The protocol has deprecated this; clients that show it are in use.
#![expect(deprecated, reason = "where a client asks for it, it is given")]

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, LoggingLevel, LoggingMessageNotificationParam};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::McpSession;
use super::handler::said;

const LOGGER: &str = "tenantry";

/// Tells the client how the call of `tool` ended, if it wants to know of such an end.
pub(super) async fn tell(
    context: &RequestContext<RoleServer>,
    tool: &str,
    result: &CallToolResult,
    took: Duration,
) {
    let asks = context.meta.log_level();
    let session = said::<McpSession>(context).filter(|_| asks.is_none());
    let Some(wanted) = asks.or_else(|| session?.level()) else { return };
    let content = result.structured_content.as_ref().unwrap_or(&Value::Null);
    let level = if result.is_error == Some(true) {
        LoggingLevel::Error
    } else if content["truncated"] == true {
        LoggingLevel::Warning
    } else {
        LoggingLevel::Info
    };
    if severity(level) < severity(wanted) {
        return;
    }
    let elapsed = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let mut data = json!({ "tool": tool, "elapsed_ms": elapsed });
    for name in ["error_code", "request_id", "row_count", "truncated"] {
        if !content[name].is_null() {
            data[name] = content[name].clone();
        }
    }
    let message = LoggingMessageNotificationParam::new(level, data).with_logger(LOGGER);
    match session {
        Some(session) => session.leave_notice(message),
        // A client that is gone has no use for it.
        None => drop(context.peer.notify_logging_message(message).await),
    }
}

/// As RFC 5424 orders them, the other way round.
fn severity(level: LoggingLevel) -> u8 {
    match level {
        LoggingLevel::Debug => 0,
        LoggingLevel::Info => 1,
        LoggingLevel::Notice => 2,
        LoggingLevel::Warning => 3,
        LoggingLevel::Error => 4,
        LoggingLevel::Critical => 5,
        LoggingLevel::Alert => 6,
        LoggingLevel::Emergency => 7,
    }
}
