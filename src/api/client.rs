//! The command line's side of the socket. Blocks.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::answer::{Line, Refusal};
use super::routes::{self, IMPORT, ROOT};
use super::{Document, JSON, NDJSON, OPERATOR, SOCKET, message};
use crate::admin::{Command, Import, Progress};
use crate::error::ErrorCode;
use crate::memory::SecretText;
use crate::unix_socket;

/// Longest answer that is read, in bytes: what an import of 100,000 tenants changed.
const MAX_ANSWER: usize = 256 << 20;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Why a service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nothing listens.
    #[error("the service that has the data directory does not answer; try again")]
    Absent,
    /// It went away, or answered something else.
    #[error(
        "the service ended the conversation without an answer; `tenantry audit list` says what was done"
    )]
    Broken,
    /// What was to be sent could not be read.
    #[error("{0}")]
    Document(String),
    /// The conversation failed.
    #[error("talking to the service failed")]
    Io(#[source] io::Error),
    /// It refused, or failed.
    #[error("{message}")]
    Refused {
        /// The stable code.
        code: ErrorCode,
        /// Why, for people.
        message: String,
    },
}

/// Whether a service has, or had, a socket in this data directory.
pub fn is_present(directory: &Path) -> bool {
    unix_socket::is_present(directory, SOCKET)
}

/// Has the service of the data directory `directory` execute `command`, in the name of `operator`,
/// and answers what it answers. What is under way there goes on if this process ends. Not to be
/// called inside a Tokio runtime.
///
/// # Errors
///
/// [`ClientError::Absent`] before anything is sent.
pub fn call(
    directory: &Path,
    operator: &str,
    command: &Command,
    secrets: &[SecretText],
    progress: &mut dyn FnMut(Progress),
) -> Result<Value, ClientError> {
    let (route, message) = message::write(command, secrets).ok_or(ClientError::Broken)?;
    let message::Message { target, mut body } = message;
    // The one copy, which is wiped when it is freed.
    let body = Full::new(Bytes::from(std::mem::take(&mut *body)));
    let body = body.map_err(|never| match never {}).boxed_unsync();
    let request = request((route.method, &target), JSON, operator, body)?;
    exchange(directory, request, progress)
}

/// Has the service import `documents`, one after the other as they are taken. Not to be called inside
/// a Tokio runtime.
///
/// # Errors
///
/// [`ClientError::Absent`] before anything is sent; [`ClientError::Document`] with what `documents`
/// said: nothing is imported.
pub fn import(
    directory: &Path,
    operator: &str,
    import: Import,
    documents: impl Iterator<Item = Result<Document, String>> + Send + 'static,
    progress: &mut dyn FnMut(Progress),
) -> Result<Value, ClientError> {
    let Import { dry_run, readmit, check_roles, allow_privileged, skip_privileged } = import;
    let target = format!(
        "{ROOT}/tenants:import?dry_run={dry_run}&readmit={readmit}&check_roles={check_roles}\
         &allow_privileged={allow_privileged}&skip_privileged={skip_privileged}"
    );
    let failure = Arc::new(Mutex::new(None));
    let failed = Arc::clone(&failure);
    let lines = documents.map(move |document| {
        let line = document.and_then(|it| it.into_line().map_err(|error| error.to_string()));
        match line {
            Ok(mut line) => Ok(Frame::data(Bytes::from(std::mem::take(&mut *line)))),
            Err(message) => {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    });
    let body = StreamBody::new(stream::iter(lines)).boxed_unsync();
    let method = routes::of_command(IMPORT).map_or("POST", |route| route.method);
    let request = request((method, &target), NDJSON, operator, body)?;
    let answer = exchange(directory, request, progress);
    match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(message) => Err(ClientError::Document(message)),
        None => answer,
    }
}

fn request(
    (method, target): (&str, &str),
    kind: &'static str,
    operator: &str,
    body: Body,
) -> Result<Request<Body>, ClientError> {
    // What is no header value is no name.
    let operator = HeaderValue::from_str(operator).unwrap_or(HeaderValue::from_static(""));
    Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "tenantry")
        .header(header::CONTENT_TYPE, kind)
        .header(header::ACCEPT, NDJSON)
        .header(OPERATOR, operator)
        .body(body)
        .map_err(|_| ClientError::Broken)
}

fn exchange(
    directory: &Path,
    request: Request<Body>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Value, ClientError> {
    let (address, _directory) =
        unix_socket::address(directory, SOCKET).map_err(|_| ClientError::Absent)?;
    let stream = UnixStream::connect(address).map_err(|_| ClientError::Absent)?;
    stream.set_nonblocking(true).map_err(ClientError::Io)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(ClientError::Io)?.block_on(async {
        let stream = tokio::net::UnixStream::from_std(stream).map_err(ClientError::Io)?;
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|_| ClientError::Broken)?;
        let talk = async move {
            let response = sender.send_request(request).await.map_err(|_| ClientError::Broken)?;
            take(response, progress).await
        };
        // Whatever the connection ends with, the answer says it.
        let (answer, _) = tokio::join!(talk, connection);
        answer
    })
}

/// Reads an answer line by line.
async fn take(
    mut response: Response<hyper::body::Incoming>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Value, ClientError> {
    let mut buffer = Vec::new();
    // What was looked through for a line feed.
    let mut seen = 0;
    while let Some(frame) = response.body_mut().frame().await {
        let Ok(frame) = frame else { return Err(ClientError::Broken) };
        let Ok(data) = frame.into_data() else { continue };
        if buffer.len() + data.len() > MAX_ANSWER {
            return Err(ClientError::Broken);
        }
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer[seen..].iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=seen + end).collect();
            seen = 0;
            match serde_json::from_slice(&line).map_err(|_| ClientError::Broken)? {
                Line::Progress(reached) => progress(reached),
                Line::Ok(value) => return Ok(value),
                Line::Error(Refusal { error_code, message, .. }) => {
                    let code = ErrorCode::parse(&error_code).unwrap_or(ErrorCode::InternalError);
                    return Err(ClientError::Refused { code, message });
                }
            }
        }
        seen = buffer.len();
    }
    Err(ClientError::Broken)
}
