//! MCP on standard input and output, for desktop clients: a line is a message, posted as a client
//! of the HTTP endpoint would post it.
//!
//! ```text
//! line --Envelope--> POST, with the headers that say the same --> Endpoint: here, or the service's
//! line, or several <------------- JSON, or a stream of it <--------'
//! ```
//!
//! So whoever starts a program meets the same checks, the same answers and the same audit log as
//! whoever calls over HTTP. What a line says wrong is found by the endpoint. What differs is what a
//! line allows: `notifications/cancelled` drops the call that it names.
//!
//! Does not authenticate: who starts the program is an operator, and chose the tenant.

mod envelope;
mod service;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::{self, BufRead, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use sse_stream::SseStream;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::ErrorCode;
use crate::http::{REFUSED, TenantEndpoint};
use envelope::Envelope;

pub use service::ServiceEndpoint;

/// Most calls under way; further lines wait.
const MAX_CALLS: usize = 256;
/// Lines that wait to be looked at.
const WAITING_LINES: usize = 16;
/// Longest error that is looked at, to put the id of its request in.
const MAX_ERROR: usize = 64 << 10;
/// Longest answer to `initialize`.
const MAX_INITIALIZED: usize = 64 << 10;
const INITIALIZE: &str = "initialize";
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
}

impl Endpoint for TenantEndpoint {
    async fn post(&self, request: Request) -> io::Result<Response> {
        Ok(self.handle(request).await)
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

/// Answers the lines of `input` on `output` until the input ends or `stopping` is cancelled, and
/// says how many calls were cut because they did not finish in time.
///
/// Calls run side by side in this task. `input` is read by a thread of its own, which ends with the
/// input or with the process.
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
    let mut lines = read(input, options.max_line_bytes)?;
    let conversation = Conversation {
        endpoint,
        output: tokio::sync::Mutex::new(output),
        negotiated: Mutex::default(),
    };
    let mut calls = FuturesUnordered::new();
    let mut cancellations: HashMap<String, CancellationToken> = HashMap::new();
    let (all, listening) = (CancellationToken::new(), CancellationToken::new());
    loop {
        let line = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            Some(finished) = calls.next() => {
                let id: Option<String> = finished?;
                id.and_then(|id| cancellations.remove(&id));
                continue;
            }
            line = lines.recv(), if calls.len() < MAX_CALLS => line,
        };
        let message = match line {
            None => break,
            Some(Line::Message(message)) => message,
            Some(Line::TooLong) => {
                let message = "the line is longer than http.max_body_bytes";
                conversation.write_line(&rpc_error(-32_600, message)).await?;
                continue;
            }
        };
        let envelope = Envelope::of(&message);
        if let Some(cancelled) = envelope.cancels() {
            if let Some(call) = cancellations.remove(cancelled) {
                call.cancel();
            }
            continue;
        }
        let id = envelope.id().map(str::to_owned);
        let cancellation =
            if envelope.method() == LISTEN { &listening } else { &all }.child_token();
        if let Some(id) = &id {
            cancellations.insert(id.clone(), cancellation.clone());
        }
        let conversation = &conversation;
        calls.push(async move {
            let call = conversation.call(&envelope, message);
            // Dropped when it is cancelled, and with it the statement.
            cancellation.run_until_cancelled_owned(call).await.unwrap_or(Ok(()))?;
            Ok::<_, io::Error>(id)
        });
    }
    listening.cancel();
    let drain = async {
        while let Some(finished) = calls.next().await {
            finished?.and_then(|id| cancellations.remove(&id));
        }
        Ok(0)
    };
    if let Ok(drained) = tokio::time::timeout(options.drain_timeout, drain).await {
        return drained;
    }
    let cut = calls.len() as u64;
    // Drops their statements before they are told.
    drop(calls);
    for id in cancellations.keys() {
        let code = ErrorCode::Cancelled;
        let mut error = rpc_error(REFUSED, code.message());
        error["id"] = serde_json::from_str(id)?;
        error["error"]["data"] = json!({ "error_code": code.as_str(), "message": code.message() });
        conversation.write_line(&error).await?;
    }
    Ok(cut)
}

struct Conversation<E, W> {
    endpoint: E,
    output: tokio::sync::Mutex<W>,
    /// The version that `initialize` agreed on, for the headers of what follows.
    negotiated: Mutex<Option<HeaderValue>>,
}

impl<E: Endpoint, W: AsyncWrite + Unpin> Conversation<E, W> {
    /// Posts `message` and writes what comes back.
    async fn call(&self, envelope: &Envelope, message: Vec<u8>) -> io::Result<()> {
        let negotiated = self.negotiated.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut request = Request::post("/mcp");
        if let Some(headers) = request.headers_mut() {
            *headers = headers_of(envelope, negotiated);
        }
        let request = request.body(Body::from(message)).map_err(io::Error::other)?;
        let response = match self.endpoint.post(request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(%error, "the service does not answer");
                let error = rpc_error(-32_603, ErrorCode::InternalError.message());
                return self.write_error(envelope, error).await;
            }
        };
        let content = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        match (response.status(), content) {
            (StatusCode::ACCEPTED | StatusCode::NO_CONTENT, _) => Ok(()),
            (StatusCode::OK, Some(b"text/event-stream")) => self.relay(response).await,
            (StatusCode::OK, Some(b"application/json")) if envelope.method() == INITIALIZE => {
                let body = to_bytes(response.into_body(), MAX_INITIALIZED).await;
                let answer = serde_json::from_slice(&body.map_err(io::Error::other)?)?;
                self.remember(&answer);
                self.write_line(&answer).await
            }
            (StatusCode::OK, Some(b"application/json")) => self.copy(response).await,
            _ => {
                let body = to_bytes(response.into_body(), MAX_ERROR).await.unwrap_or_default();
                let error = serde_json::from_slice::<Value>(&body).ok();
                let error = error.filter(|error| error["error"].is_object());
                let unknown = || rpc_error(-32_603, ErrorCode::InternalError.message());
                self.write_error(envelope, error.unwrap_or_else(unknown)).await
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
    async fn copy(&self, response: Response) -> io::Result<()> {
        let mut output = self.output.lock().await;
        let mut body = response.into_body().into_data_stream();
        while let Some(piece) = body.next().await {
            output.write_all(&piece.map_err(io::Error::other)?).await?;
        }
        output.write_all(b"\n").await?;
        output.flush().await
    }

    /// A line for each event: notifications, then the answer.
    async fn relay(&self, response: Response) -> io::Result<()> {
        let mut events = SseStream::from_bytes_stream(response.into_body().into_data_stream());
        while let Some(event) = events.next().await {
            let Some(data) = event.map_err(io::Error::other)?.data else { continue };
            if !data.is_empty() {
                self.write(data.as_bytes()).await?;
            }
        }
        Ok(())
    }

    /// An error that was found before the request's id was looked at. A notification has no answer.
    async fn write_error(&self, envelope: &Envelope, mut error: Value) -> io::Result<()> {
        if envelope.is_notification() {
            return Ok(());
        }
        if let (Value::Null, Some(id)) = (&error["id"], envelope.id()) {
            error["id"] = serde_json::from_str(id)?;
        }
        self.write_line(&error).await
    }

    async fn write_line(&self, message: &Value) -> io::Result<()> {
        self.write(&serde_json::to_vec(message)?).await
    }

    async fn write(&self, message: &[u8]) -> io::Result<()> {
        let mut output = self.output.lock().await;
        output.write_all(message).await?;
        output.write_all(b"\n").await?;
        output.flush().await
    }
}

/// What a client of the HTTP endpoint says in headers.
fn headers_of(envelope: &Envelope, negotiated: Option<HeaderValue>) -> HeaderMap {
    let both = HeaderValue::from_static("application/json, text/event-stream");
    let json = HeaderValue::from_static("application/json");
    let host = HeaderValue::from_static("localhost");
    let mut headers = HeaderMap::from_iter([
        (header::ACCEPT, both),
        (header::CONTENT_TYPE, json),
        (header::HOST, host),
    ]);
    let is_modern = envelope.version().is_some();
    let version = envelope.version().or(negotiated);
    if let Some(version) = version.filter(|_| envelope.method() != INITIALIZE) {
        headers.insert("mcp-protocol-version", version);
    }
    if is_modern {
        let said = [("mcp-method", Some(envelope.method())), ("mcp-name", envelope.name())];
        for (name, value) in said {
            if let Some(value) = value.and_then(envelope::header_value) {
                headers.insert(name, value);
            }
        }
    }
    headers
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
