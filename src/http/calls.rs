//! Calls under way, and how they end when the service does.
//!
//! ```text
//! begun --answered--> body taken by the connection --> over
//!   |                   `-- cut: a stream ends with CANCELLED for its call
//!   `-- still under way when all are cut: dropped, with its lease and statement, and told CANCELLED
//! ```
//!
//! A request is answered once: what has begun its answer keeps it. Whoever writes a stream is asked to end it;
//! one document that is not taken in time ends with its connection, which a client sees by the missing end.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::refusal::Refused;
use crate::audit::RequestId;
use crate::error::ErrorCode;

/// Counts calls, and cuts them. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls(Arc<State>);

#[derive(Debug, Default)]
struct State {
    under_way: AtomicU64,
    cut: AtomicU64,
    cutting: CancellationToken,
}

/// One that is under way, until this is dropped.
struct UnderWay(Calls);

impl Calls {
    /// What `answer` gives to the message with this `id`, unless calls are cut before; `cut` is cancelled
    /// then.
    pub(super) async fn finish(
        &self,
        id: &Value,
        request_id: &RequestId,
        cut: CancellationToken,
        answer: impl Future<Output = Response>,
    ) -> Response {
        let under_way = UnderWay::begin(self);
        let mut answer = pin!(answer);
        let response = tokio::select! {
            // What is ready at the same moment was in time.
            biased;
            response = &mut answer => response,
            () = self.0.cutting.cancelled() => {
                // Before `answer` is dropped, which records why it ended.
                cut.cancel();
                return Refused::from(ErrorCode::Cancelled).of(id.clone()).into_response(request_id);
            }
        };
        under_way.until_taken(response, cut)
    }

    /// Cuts every call under way.
    pub(super) fn cut(&self) {
        let under_way = self.0.under_way.load(Ordering::Acquire);
        self.0.cut.store(under_way, Ordering::Release);
        self.0.cutting.cancel();
    }

    /// How many were cut.
    pub(super) fn count_cut(&self) -> u64 {
        self.0.cut.load(Ordering::Acquire)
    }
}

impl UnderWay {
    fn begin(calls: &Calls) -> Self {
        calls.0.under_way.fetch_add(1, Ordering::AcqRel);
        Self(calls.clone())
    }

    /// `response`, whose body is under way until the connection has it all; `cut` is cancelled when calls are
    /// cut before.
    fn until_taken(self, response: Response, cut: CancellationToken) -> Response {
        let (parts, body) = response.into_parts();
        let mut body = body.into_data_stream();
        let mut cutting = Box::pin(self.0.0.cutting.clone().cancelled_owned());
        let frames = stream::poll_fn(move |context| {
            // The stream has it: both are dropped together.
            let Self(_) = &self;
            if cutting.as_mut().poll(context).is_ready() {
                cut.cancel();
            }
            body.poll_next_unpin(context)
        });
        Response::from_parts(parts, Body::from_stream(frames))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    fn request_id() -> RequestId {
        RequestId::random()
    }

    #[tokio::test]
    async fn an_answer_in_time_is_passed_on_and_counts_until_it_is_taken() {
        let calls = Calls::default();
        let answer = async { Response::new(Body::from("{}")) };
        let cut = CancellationToken::new();
        let response = calls.finish(&Value::Null, &request_id(), cut.clone(), answer).await;
        assert_eq!(calls.0.under_way.load(Ordering::Relaxed), 1);
        let body = axum::body::to_bytes(response.into_body(), 1 << 10).await.unwrap();
        assert_eq!(body, "{}");
        calls.cut();
        assert_eq!(calls.count_cut(), 0);
        assert!(!cut.is_cancelled());
    }

    #[tokio::test]
    async fn an_answer_that_has_begun_is_asked_to_end_and_counts_as_cut() {
        let (calls, cut) = (Calls::default(), CancellationToken::new());
        let asked = cut.clone();
        let told = stream::once(async move {
            asked.cancelled().await;
            Ok::<_, std::io::Error>("told")
        });
        let answer = async { Response::new(Body::from_stream(told)) };
        let response = calls.finish(&Value::Null, &request_id(), cut, answer).await;
        let body = axum::body::to_bytes(response.into_body(), 1 << 10);
        let (body, ()) = tokio::join!(body, async { calls.cut() });
        assert_eq!(body.unwrap(), "told");
        assert_eq!(calls.count_cut(), 1);
    }

    /// Says, when it is dropped, whether that was after its cut.
    struct Held(CancellationToken, Option<tokio::sync::oneshot::Sender<bool>>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.1.take().unwrap().send(self.0.is_cancelled()).unwrap();
        }
    }

    #[tokio::test]
    async fn a_call_that_is_cut_hears_it_before_it_is_dropped_and_is_counted_and_told_so() {
        let calls = Calls::default();
        let id = request_id();
        let (call, token) = (Value::from(7), CancellationToken::new());
        let (tell, dropped) = tokio::sync::oneshot::channel();
        let held = Held(token.clone(), Some(tell));
        let endless = async move {
            let _held = held;
            std::future::pending().await
        };
        let cut = async {
            while calls.0.under_way.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            calls.cut();
        };
        let (response, ()) = tokio::join!(calls.finish(&call, &id, token.clone(), endless), cut);
        assert!(token.is_cancelled());
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = axum::body::to_bytes(response.into_body(), 1 << 10).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["id"], 7);
        assert_eq!(body["error"]["data"]["error_code"], "CANCELLED");
        assert_eq!(body["error"]["data"]["request_id"], id.as_str());
        assert!(dropped.await.unwrap(), "it would be recorded as one that its caller left");
        assert_eq!(calls.count_cut(), 1);
        // Who comes later is told the same, and was not cut.
        let late = calls.finish(&Value::Null, &id, token, std::future::pending()).await;
        assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(calls.count_cut(), 1);
    }
}
