//! Answers: a value, an error, or lines of progress with one of them at the end.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{JSON, NDJSON};
use crate::admin::Progress;
use crate::audit::RequestId;
use crate::error::ErrorCode;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Which request an answer is to; the audit log has it too.
const REQUEST_ID: HeaderName = HeaderName::from_static("tenantry-request-id");

/// Why a request is not answered with a value.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Refusal {
    pub(super) error_code: String,
    pub(super) message: String,
    pub(super) request_id: String,
    /// Where it is not the one of the code.
    #[serde(skip)]
    status: Option<StatusCode>,
    /// When to come back, where that is known.
    #[serde(skip)]
    retry_after: Option<Duration>,
}

/// A line of an answer with progress, and what an answer without is if it is an error. The last line
/// is `ok` or `error`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Progress(Progress),
    Ok(Value),
    Error(Refusal),
}

/// What became of a command.
pub(super) type Outcome = Result<Value, (ErrorCode, String)>;

impl Refusal {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>, request_id: &RequestId) -> Self {
        Self {
            error_code: code.as_str().to_owned(),
            message: message.into(),
            request_id: request_id.to_string(),
            status: None,
            retry_after: None,
        }
    }

    /// What the code says, and nothing else.
    pub(super) fn plain(code: ErrorCode, request_id: &RequestId) -> Self {
        Self::new(code, code.message(), request_id)
    }

    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status: Some(status), ..self }
    }

    pub(super) fn with_wait(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let code = ErrorCode::parse(&self.error_code).unwrap_or(ErrorCode::InternalError);
        let status = self.status.unwrap_or_else(|| status_of(code));
        let id = HeaderValue::from_str(&self.request_id);
        let retry_after = self.retry_after;
        let mut response = response(status, JSON, one_line(&Line::Error(self)));
        if code == ErrorCode::Unauthenticated {
            let challenge = HeaderValue::from_static("Bearer realm=\"tenantry admin\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(wait) = retry_after {
            let seconds = HeaderValue::from(wait.as_secs() + 1);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if let Ok(id) = id {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }
}

/// `value` as an answer.
pub(super) fn value(value: &Value, request_id: &RequestId) -> Response<Body> {
    let response = response(StatusCode::OK, JSON, Bytes::from(format!("{value}\n")));
    named(response, request_id)
}

/// How far an answer with progress is.
enum State {
    Working(Option<Progress>, mpsc::Receiver<Progress>, oneshot::Receiver<Outcome>, RequestId),
    Done,
}

/// The answer to a command whose progress comes from `waiting`, and whose end from `finished`.
pub(super) async fn with_progress(
    mut waiting: mpsc::Receiver<Progress>,
    finished: oneshot::Receiver<Outcome>,
    request_id: RequestId,
) -> Response<Body> {
    // What fails before it has begun has the status of its error.
    let Some(first) = waiting.recv().await else {
        return match outcome(finished, &request_id).await {
            Ok(value) => named(lines(Bytes::new(), one_line(&Line::Ok(value))), &request_id),
            Err(refusal) => refusal.into_response(),
        };
    };
    let id = request_id.clone();
    let begun = State::Working(Some(first), waiting, finished, request_id);
    let frames = stream::unfold(begun, |state| async move {
        let State::Working(first, mut waiting, finished, request_id) = state else { return None };
        let progress = match first {
            Some(first) => Some(first),
            None => waiting.recv().await,
        };
        let (line, state) = match progress {
            Some(progress) => {
                (Line::Progress(progress), State::Working(None, waiting, finished, request_id))
            }
            None => (
                outcome(finished, &request_id).await.map_or_else(Line::Error, Line::Ok),
                State::Done,
            ),
        };
        Some((Ok::<_, Infallible>(Frame::data(one_line(&line))), state))
    });
    let mut response = response(StatusCode::OK, NDJSON, Bytes::new());
    *response.body_mut() = UnsyncBoxBody::new(StreamBody::new(frames));
    named(response, &id)
}

/// Waits for the end of a command.
pub(super) async fn outcome(
    finished: oneshot::Receiver<Outcome>,
    request_id: &RequestId,
) -> Result<Value, Refusal> {
    match finished.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err((code, message))) => Err(Refusal::new(code, message, request_id)),
        // It panicked, which is in the log.
        Err(_) => Err(Refusal::plain(ErrorCode::InternalError, request_id)),
    }
}

fn lines(progress: Bytes, last: Bytes) -> Response<Body> {
    response(StatusCode::OK, NDJSON, Bytes::from([progress, last].concat()))
}

fn one_line(line: &Line) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(UnsyncBoxBody::new(Full::new(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn named(mut response: Response<Body>, request_id: &RequestId) -> Response<Body> {
    if let Ok(id) = HeaderValue::from_str(request_id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The answer to whoever asks whether anybody is there.
pub(super) fn health(is_sealed: bool, request_id: &RequestId) -> Response<Body> {
    value(&json!({ "sealed": is_sealed }), request_id)
}

fn status_of(code: ErrorCode) -> StatusCode {
    // Every status of a code is one.
    StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
