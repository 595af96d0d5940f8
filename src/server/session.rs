//! What a client of an older revision says once for its whole session.
//!
//! ```text
//! logging/setLevel     --> level  --> a notice before the answer to a call
//! resources/subscribe  --> wanted --> updates on the stream of the session
//! ```
//!
//! Whoever keeps sessions keeps one of these in each, and lends it to the handler of every request in the
//! extensions of its HTTP head. Without one a client cannot say these things, and is not told that it can.
#![expect(deprecated, reason = "what clients of these revisions use")]

use std::sync::{Arc, Mutex, PoisonError};

use rmcp::model::{
    LoggingLevel, LoggingMessageNotification, LoggingMessageNotificationParam, ServerNotification,
};

use super::lookout::Wanted;

/// One session, as one request of it has it. Clones are of the same request.
#[derive(Clone, Debug, Default)]
pub struct McpSession {
    said: Arc<Said>,
    notice: Arc<Mutex<Option<LoggingMessageNotificationParam>>>,
}

#[derive(Debug, Default)]
struct Said {
    level: Mutex<Option<LoggingLevel>>,
    wanted: Arc<Wanted>,
}

impl McpSession {
    /// The same session, for another request.
    #[must_use]
    pub fn of_next_request(&self) -> Self {
        Self { said: Arc::clone(&self.said), notice: Arc::default() }
    }

    /// What is to be sent before the answer to this request, once.
    pub fn take_notice(&self) -> Option<ServerNotification> {
        let notice = self.notice.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(LoggingMessageNotification::new(notice).into())
    }

    pub(super) fn leave_notice(&self, notice: LoggingMessageNotificationParam) {
        *self.notice.lock().unwrap_or_else(PoisonError::into_inner) = Some(notice);
    }

    /// From which level on the client wants to be told what became of a call.
    pub(super) fn level(&self) -> Option<LoggingLevel> {
        *self.said.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_level(&self, level: LoggingLevel) {
        *self.said.level.lock().unwrap_or_else(PoisonError::into_inner) = Some(level);
    }

    /// The resources that the client subscribed to.
    pub(super) fn wanted(&self) -> &Arc<Wanted> {
        &self.said.wanted
    }
}
