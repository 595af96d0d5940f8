//! The endpoint of a service that runs on the data directory, by its socket.

use std::io;
use std::path::PathBuf;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Uri};
use axum::response::Response;
use futures_util::StreamExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::Endpoint;
use crate::http::local::{OPERATOR, SCOPE, SOCKET};
use crate::unix_socket;

/// One tenant's endpoint at the service of a data directory.
#[derive(Debug)]
pub struct ServiceEndpoint {
    directory: PathBuf,
    uri: Uri,
    operator: HeaderValue,
    scope: HeaderValue,
}

impl ServiceEndpoint {
    /// The endpoint of `tenant` at the service of `directory`, in the name of `operator`, for calls
    /// with these scopes. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// When one of them cannot be said in HTTP.
    pub fn new(
        directory: PathBuf,
        tenant: &str,
        operator: &str,
        scopes: &[&str],
    ) -> io::Result<Self> {
        Ok(Self {
            directory,
            uri: format!("/mcp/{tenant}").parse().map_err(io::Error::other)?,
            // What is no header value is no name.
            operator: HeaderValue::from_str(operator).unwrap_or(HeaderValue::from_static("")),
            scope: HeaderValue::from_str(&scopes.join(",")).map_err(io::Error::other)?,
        })
    }
}

impl Endpoint for ServiceEndpoint {
    async fn post(&self, mut request: Request) -> io::Result<Response> {
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(OPERATOR, self.operator.clone());
        request.headers_mut().insert(SCOPE, self.scope.clone());
        let (address, _directory) = unix_socket::address(&self.directory, SOCKET)?;
        let stream = TokioIo::new(UnixStream::connect(address).await?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
        // Polled for as long as the answer is read: who drops that hangs up.
        let mut connection = Box::pin(connection);
        let mut sending = std::pin::pin!(sender.send_request(request));
        let (response, connection) = tokio::select! {
            biased;
            response = sending.as_mut() => (response, Some(connection)),
            // A short answer and the end may come together.
            _ended = connection.as_mut() => (sending.await, None),
        };
        let (head, body) = response.map_err(io::Error::other)?.into_parts();
        let pieces = Body::new(body).into_data_stream();
        let pieces = futures_util::stream::unfold((pieces, connection), next_piece);
        Ok(Response::from_parts(head, Body::from_stream(pieces)))
    }

    /// There is no way to say it: to the service, its caller hangs up.
    fn cut(&self) {}
}

type Pieces = axum::body::BodyDataStream;
type Connection = std::pin::Pin<Box<http1::Connection<TokioIo<UnixStream>, Body>>>;

/// The next piece of a body, which comes while its connection is polled.
async fn next_piece(
    (mut pieces, mut connection): (Pieces, Option<Connection>),
) -> Option<(Result<axum::body::Bytes, axum::Error>, (Pieces, Option<Connection>))> {
    let piece = loop {
        let Some(open) = connection.as_mut() else { break pieces.next().await };
        tokio::select! {
            biased;
            piece = pieces.next() => break piece,
            // What came before it ended is still there.
            _ended = open.as_mut() => connection = None,
        }
    };
    Some((piece?, (pieces, connection)))
}
