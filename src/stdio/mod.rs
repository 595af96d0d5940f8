//! MCP on standard input and output, for desktop clients: a line is a message, posted as a client
//! of the HTTP endpoint would post it.
//!
//! ```text
//! line --Message--> POST, with the headers that say the same --> Endpoint: here, or the service's
//! line, or several <------------ JSON, or a stream of it <--------'
//! ```
//!
//! So whoever starts a program meets the same checks, the same answers and the same audit log as
//! whoever calls over HTTP. What a line says wrong is told by the endpoint. What differs is what a
//! line allows: `notifications/cancelled` drops the call that it names, and so no two calls under way
//! have one id. An answer that breaks off is an error of its call; the others go on, each on a line of
//! its own.
//!
//! Does not authenticate: who starts the program is an operator, and chose the tenant.

mod headers;
mod service;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::{self, BufRead, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sse_stream::SseStream;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{MutexGuard, mpsc};
use tokio_util::sync::CancellationToken;

use crate::error::ErrorCode;
use crate::http::{Call, Message, REFUSED, TenantEndpoint};
use headers::headers_of;

pub use service::ServiceEndpoint;

/// Most calls under way; further lines wait.
const MAX_CALLS: usize = 256;
/// How long the client may take to be told which calls were cut.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);
/// Lines that wait to be looked at.
const WAITING_LINES: usize = 16;
/// Longest error that is looked at, to put the id of its request in.
const MAX_ERROR: usize = 64 << 10;
/// Longest answer to `initialize`.
const MAX_INITIALIZED: usize = 64 << 10;
const INITIALIZE: &str = "initialize";
/// JSON-RPC: the request is none.
const INVALID_REQUEST: i32 = -32_600;
/// JSON-RPC: it is not the request's fault.
const INTERNAL_ERROR: i32 = -32_603;
/// What a caller is told whose answer does not come.
const NO_ANSWER: &str = "the service does not answer; see its log, and that of this program";
/// What a caller is told whose answer ends in the middle.
const BROKEN_OFF: &str = "the service ended before its answer was whole; of a change, look whether \
                          it was made before you try again";
/// Its answer goes on until it is cancelled.
const LISTEN: &str = "subscriptions/listen";

/// Where a tenant's calls are posted.
pub trait Endpoint {
    /// The answer to `request`, whose path says nothing.
    ///
    /// # Errors
    ///
    /// When the endpoint cannot be reached, or has gone.
    fn post(&self, request: Request) -> impl Future<Output = io::Result<Response>>;

    /// Is told, before the calls under way are dropped, that it is not their caller who leaves.
    fn cut(&self);
}

impl Endpoint for TenantEndpoint {
    async fn post(&self, request: Request) -> io::Result<Response> {
        Ok(self.handle(request).await)
    }

    fn cut(&self) {
        Self::cut(self);
    }
}

/// How a conversation is held.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field from the settings")]
pub struct Options {
    /// Longest line.
    pub max_line_bytes: usize,
    /// How long calls under way may take to finish when the conversation ends.
    pub drain_timeout: Duration,
}

/// A line of the input.
#[derive(Debug)]
enum Line {
    Message(Vec<u8>),
    TooLong,
}

/// A message on its way to the endpoint, which may find that it is none.
#[derive(Debug)]
struct Posted {
    body: Bytes,
    /// Null of what has none, or cannot be read.
    id: Value,
    call: Option<Call>,
    is_answered: bool,
}

impl Posted {
    fn new(body: Bytes) -> Self {
        match Message::read(body.clone()) {
            Ok(message) => {
                let (id, call) = (message.id(), message.into_call());
                let is_answered = call.as_ref().is_none_or(|call| call.id.is_some());
                Self { body, id, call, is_answered }
            }
            Err(malformed) => Self { body, id: malformed.id, call: None, is_answered: true },
        }
    }

    /// The id of the request that it is.
    fn request(&self) -> Option<&Value> {
        self.call.as_ref()?.id.as_ref()
    }

    fn is(&self, method: &str) -> bool {
        self.call.as_ref().is_some_and(|call| call.method == method)
    }
}

/// Answers the lines of `input` on `output` until the input ends or `stopping` is cancelled, and
/// says how many calls were cut because they did not finish in time.
///
/// Calls run side by side in this task. `output` has to pass lines on when they are whole, as standard
/// output does: it is flushed at the end, so that no call that was answered waits to be cut. `input` is
/// read by a thread of its own, which ends with the input or with the process.
///
/// # Errors
///
/// When `output` cannot be written: the client has gone.
pub async fn serve(
    endpoint: impl Endpoint,
    input: impl Read + Send + 'static,
    output: impl AsyncWrite + Unpin,
    options: Options,
    stopping: CancellationToken,
) -> io::Result<u64> {
    let lines = read(input, options.max_line_bytes)?;
    converse(endpoint, lines, output, options.drain_timeout, stopping).await
}

/// As [`serve`], of `lines` as they are read.
async fn converse(
    endpoint: impl Endpoint,
    mut lines: mpsc::Receiver<Line>,
    output: impl AsyncWrite + Unpin,
    drain_timeout: Duration,
    stopping: CancellationToken,
) -> io::Result<u64> {
    let conversation = &Conversation {
        endpoint,
        output: tokio::sync::Mutex::new(Output { sink: output, is_in_line: false }),
        negotiated: Mutex::default(),
    };
    // All that writes is in here. What has the output goes on only while these are polled: a loop that
    // waited for the output itself would wait for ever.
    let mut calls = FuturesUnordered::new();
    // Of requests under way, by their ids.
    let mut cancellations: HashMap<Value, CancellationToken> = HashMap::new();
    let (all, listening) = (CancellationToken::new(), CancellationToken::new());
    loop {
        let line = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            Some(finished) = calls.next() => {
                let id: Option<Value> = finished?;
                id.and_then(|id| cancellations.remove(&id));
                continue;
            }
            line = lines.recv(), if calls.len() < MAX_CALLS => line,
        };
        let posted = match line {
            None => break,
            Some(Line::Message(message)) => Posted::new(message.into()),
            Some(Line::TooLong) => {
                let message = "the line is longer than http.max_body_bytes";
                calls.push(conversation.refuse(message).left_future());
                continue;
            }
        };
        if let Some(cancelled) = posted.call.as_ref().and_then(|call| call.cancels.as_deref()) {
            if let Some(call) = cancellations.get(cancelled) {
                call.cancel();
            }
            continue;
        }
        let id = posted.request().cloned();
        let cancellation = if posted.is(LISTEN) { &listening } else { &all }.child_token();
        if let Some(id) = &id {
            if cancellations.contains_key(id) {
                // Without the id: the answer that the client waits for is another.
                let message = "a call under way has this \"id\"; take another one";
                calls.push(conversation.refuse(message).left_future());
                continue;
            }
            cancellations.insert(id.clone(), cancellation.clone());
        }
        let call = async move {
            let call = conversation.call(posted);
            // Dropped when it is cancelled, and with it the statement.
            cancellation.run_until_cancelled_owned(call).await.unwrap_or(Ok(()))?;
            Ok::<_, io::Error>(id)
        };
        calls.push(call.right_future());
    }
    listening.cancel();
    let drain = async {
        while let Some(finished) = calls.next().await {
            finished?.and_then(|id| cancellations.remove(&id));
        }
        conversation.flush().await?;
        Ok(0)
    };
    if let Ok(drained) = tokio::time::timeout(drain_timeout, drain).await {
        return drained;
    }
    let cut = calls.len() as u64;
    conversation.endpoint.cut();
    // Drops their statements before they are told.
    drop(calls);
    let told = async {
        for id in cancellations.into_keys() {
            let code = ErrorCode::Cancelled;
            let message = code.message();
            let mut error = rpc_error(REFUSED, message);
            error["id"] = id;
            error["error"]["data"] = json!({ "error_code": code.as_str(), "message": message });
            conversation.write_line(&error).await?;
        }
        conversation.flush().await?;
        Ok(cut)
    };
    // Who does not read is not waited for.
    tokio::time::timeout(CUT_TIMEOUT, told).await.unwrap_or(Ok(cut))
}

/// Where lines go.
struct Output<W> {
    sink: W,
    /// Whoever writes a line may be dropped in the middle of it.
    is_in_line: bool,
}

impl<W: AsyncWrite + Unpin> Output<W> {
    async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.is_in_line = true;
        self.sink.write_all(piece).await
    }

    /// Ends the line that is begun, if one is.
    async fn end_line(&mut self) -> io::Result<()> {
        if self.is_in_line {
            self.sink.write_all(b"\n").await?;
            self.is_in_line = false;
        }
        Ok(())
    }
}

struct Conversation<E, W> {
    endpoint: E,
    output: tokio::sync::Mutex<Output<W>>,
    /// The version that `initialize` agreed on, for the headers of what follows.
    negotiated: Mutex<Option<HeaderValue>>,
}

impl<E: Endpoint, W: AsyncWrite + Unpin> Conversation<E, W> {
    /// Posts a message and writes what comes back. An error is one of the output.
    async fn call(&self, mut posted: Posted) -> io::Result<()> {
        let negotiated = self.negotiated.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut request = Request::new(Body::from(std::mem::take(&mut posted.body)));
        *request.method_mut() = Method::POST;
        *request.headers_mut() = headers_of(posted.call.as_ref(), negotiated);
        let response = match self.endpoint.post(request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(%error, "the service does not answer");
                return self.write_error(&posted, rpc_error(INTERNAL_ERROR, NO_ANSWER)).await;
            }
        };
        let content = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        match (response.status(), content) {
            (StatusCode::ACCEPTED | StatusCode::NO_CONTENT, _) => Ok(()),
            (StatusCode::OK, Some(b"text/event-stream")) => self.relay(&posted, response).await,
            (StatusCode::OK, Some(b"application/json")) if posted.is(INITIALIZE) => {
                let body = to_bytes(response.into_body(), MAX_INITIALIZED).await;
                match body.ok().and_then(|body| serde_json::from_slice(&body).ok()) {
                    Some(answer) => {
                        self.remember(&answer);
                        self.write_line(&answer).await
                    }
                    None => self.write_broken(&posted).await,
                }
            }
            (StatusCode::OK, Some(b"application/json")) => self.copy(&posted, response).await,
            _ => {
                let body = to_bytes(response.into_body(), MAX_ERROR).await.unwrap_or_default();
                let error = serde_json::from_slice::<Value>(&body).ok();
                let error = error.filter(|error| error["error"].is_object());
                let unknown = || rpc_error(INTERNAL_ERROR, NO_ANSWER);
                self.write_error(&posted, error.unwrap_or_else(unknown)).await
            }
        }
    }

    /// Keeps the version that the answer to `initialize` names.
    fn remember(&self, answer: &Value) {
        let version = answer["result"]["protocolVersion"].as_str();
        if let Some(version) = version.and_then(|version| HeaderValue::from_str(version).ok()) {
            *self.negotiated.lock().unwrap_or_else(PoisonError::into_inner) = Some(version);
        }
    }

    /// An answer in one line, as it comes: rows are not taken into memory once more.
    async fn copy(&self, posted: &Posted, response: Response) -> io::Result<()> {
        let mut output = self.line().await?;
        let mut body = response.into_body().into_data_stream();
        let is_whole = loop {
            match body.next().await {
                Some(Ok(piece)) => output.write(&piece).await?,
                Some(Err(_)) => break false,
                None => break true,
            }
        };
        output.end_line().await?;
        drop(output);
        if is_whole { Ok(()) } else { self.write_broken(posted).await }
    }

    /// A line for each event: notifications, then the answer.
    async fn relay(&self, posted: &Posted, response: Response) -> io::Result<()> {
        let mut events = SseStream::from_bytes_stream(response.into_body().into_data_stream());
        let mut is_answered = false;
        while let Some(Ok(event)) = events.next().await {
            let Some(data) = event.data.filter(|data| !data.is_empty()) else { continue };
            is_answered = is_answer(&data);
            self.write(data.as_bytes()).await?;
        }
        if is_answered { Ok(()) } else { self.write_broken(posted).await }
    }

    /// That the answer broke off.
    async fn write_broken(&self, posted: &Posted) -> io::Result<()> {
        tracing::warn!("an answer of the service broke off");
        self.write_error(posted, rpc_error(INTERNAL_ERROR, BROKEN_OFF)).await
    }

    /// An error that was found before the request's id was looked at. A notification has no answer.
    async fn write_error(&self, posted: &Posted, mut error: Value) -> io::Result<()> {
        if !posted.is_answered {
            return Ok(());
        }
        if error["id"].is_null() {
            error["id"] = posted.id.clone();
        }
        self.write_line(&error).await
    }

    /// The answer to a line that is not posted, without an id.
    async fn refuse(&self, message: &str) -> io::Result<Option<Value>> {
        self.write_line(&rpc_error(INVALID_REQUEST, message)).await?;
        Ok(None)
    }

    async fn write_line(&self, message: &Value) -> io::Result<()> {
        self.write(&serde_json::to_vec(message)?).await
    }

    async fn write(&self, message: &[u8]) -> io::Result<()> {
        let mut output = self.line().await?;
        output.write(message).await?;
        output.end_line().await
    }

    async fn flush(&self) -> io::Result<()> {
        self.output.lock().await.sink.flush().await
    }

    /// The output at the start of a line, one that was left in the middle having been ended.
    async fn line(&self) -> io::Result<MutexGuard<'_, Output<W>>> {
        let mut output = self.output.lock().await;
        output.end_line().await?;
        Ok(output)
    }
}

/// Whether `message` ends the stream that it comes on.
fn is_answer(message: &str) -> bool {
    #[derive(Deserialize)]
    struct Outline {
        method: Option<IgnoredAny>,
    }
    serde_json::from_str::<Outline>(message).is_ok_and(|message| message.method.is_none())
}

fn rpc_error(code: i32, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": null, "error": { "code": code, "message": message } })
}

/// Reads lines in a thread of their own: a read that waits for ever holds nothing up.
fn read(input: impl Read + Send + 'static, max: usize) -> io::Result<mpsc::Receiver<Line>> {
    let (lines, received) = mpsc::channel(WAITING_LINES);
    let mut input = io::BufReader::new(input);
    let next = move || {
        while let Ok(Some(line)) = next_line(&mut input, max) {
            if lines.blocking_send(line).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(next)?;
    Ok(received)
}

/// The next line that is not blank, without its end; `None` when there is no more. What is beyond
/// `max` bytes is skipped, not kept.
fn next_line(input: &mut impl BufRead, max: usize) -> io::Result<Option<Line>> {
    loop {
        let mut line = Vec::new();
        let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        let length = input.by_ref().take(limit).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > max {
            skip_line(input)?;
            return Ok(Some(Line::TooLong));
        }
        if !line.trim_ascii().is_empty() {
            return Ok(Some(Line::Message(line)));
        }
    }
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffered = input.fill_buf()?;
        let (length, is_end) = match buffered.iter().position(|byte| *byte == b'\n') {
            Some(place) => (place + 1, true),
            None => (buffered.len(), buffered.is_empty()),
        };
        input.consume(length);
        if is_end {
            return Ok(());
        }
    }
}
