//! The streams of a login: metered below TLS, followed above it, and taken back from the driver.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// Bytes that a server may send for a login, or to take a cancellation.
const LOGIN_BYTES: u64 = 1 << 20;
/// Longest message of a login; certificates do not travel in one.
const MAX_LOGIN_MESSAGE: usize = 64 << 10;

/// A stream behind TLS, or without.
pub(super) type Plain = Box<dyn Both>;

/// What both kinds of stream can do.
pub(super) trait Both: TlsStream + Send + Unpin {}
impl<T: TlsStream + Send + Unpin> Both for T {}

/// A place from which a stream is taken back when the driver is done with it.
pub(super) type Kept = Arc<Mutex<Option<Plain>>>;

/// A socket, and how many more bytes may come from it.
pub(super) struct Connection {
    socket: Socket,
    bytes_left: AtomicU64,
}

pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection that stops reading when its bytes are used up.
pub(super) struct Metered(pub(super) Arc<Connection>);

/// A stream that the driver has for the login, while somebody else keeps it.
pub(super) struct Login {
    stream: Kept,
    framing: Framing,
}

/// How far into a message a login is: as each begins, its announced length is looked at.
#[derive(Default)]
struct Framing {
    header: [u8; 5],
    filled: usize,
    body_left: usize,
}

/// A TLS connector whose stream somebody else keeps.
pub(super) struct Keeping<C> {
    pub(super) connector: C,
    pub(super) kept: Kept,
}

impl Connection {
    /// For a login: what comes from `socket` is bounded until [`Self::lift_bound`].
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, bytes_left: AtomicU64::new(LOGIN_BYTES) }
    }

    /// From here on each message is bounded by who asked for it.
    pub(super) fn lift_bound(&self) {
        self.bytes_left.store(u64::MAX, Ordering::Relaxed);
    }

    /// Whether something has arrived, or nothing will any more.
    pub(super) fn is_readable(&self) -> bool {
        let mut polled = match &self.socket {
            Socket::Tcp(socket) => [PollFd::new(socket, PollFlags::IN)],
            Socket::Unix(socket) => [PollFd::new(socket, PollFlags::IN)],
        };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A poll that fails says nothing; the next statement will.
        poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// Until nothing more will arrive. What arrives before is dropped.
    pub(super) async fn ended(&self) {
        let mut dropped = [0; 64];
        while let Ok(1..) = poll_fn(|context| self.poll_read(context, &mut dropped)).await {}
    }

    fn poll_read(&self, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let read = match &self.socket {
                Socket::Tcp(socket) => {
                    ready!(socket.poll_read_ready(context))?;
                    socket.try_read(into)
                }
                Socket::Unix(socket) => {
                    ready!(socket.poll_read_ready(context))?;
                    socket.try_read(into)
                }
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let written = match &self.socket {
                Socket::Tcp(socket) => {
                    ready!(socket.poll_write_ready(context))?;
                    socket.try_write(bytes)
                }
                Socket::Unix(socket) => {
                    ready!(socket.poll_write_ready(context))?;
                    socket.try_write(bytes)
                }
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self(connection) = self.get_mut();
        let left = connection.bytes_left.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::Error::other("the server sent more than is allowed")));
        }
        let length = ready!(connection.poll_read(context, buffer.initialize_unfilled()))?;
        buffer.advance(length);
        if left != u64::MAX {
            connection.bytes_left.store(left.saturating_sub(length as u64), Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The socket closes when it is dropped, which is at once.
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for Metered {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl Login {
    pub(super) fn new(stream: Plain, kept: &Kept) -> Self {
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        Self { stream: Arc::clone(kept), framing: Framing::default() }
    }

    fn stream(&self) -> MutexGuard<'_, Option<Plain>> {
        // One task at a time has it, and none panics while it does.
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        work: impl FnOnce(Pin<&mut Plain>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut *self.stream() {
            Some(stream) => work(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncRead for Login {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.with(|stream| stream.poll_read(context, buffer)))?;
        let arrived = buffer.filled().get(before..).unwrap_or_default();
        Poll::Ready(self.framing.follow(arrived))
    }
}

impl AsyncWrite for Login {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(context))
    }
}

impl TlsStream for Login {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream().as_ref().map_or_else(ChannelBinding::none, |stream| stream.channel_binding())
    }
}

impl Framing {
    /// Follows what arrives.
    ///
    /// # Errors
    ///
    /// When a message announces more than any of a login has, before the driver makes room for it.
    fn follow(&mut self, mut arrived: &[u8]) -> io::Result<()> {
        while !arrived.is_empty() {
            let of_body = self.body_left.min(arrived.len());
            self.body_left -= of_body;
            arrived = arrived.get(of_body..).unwrap_or_default();
            let Some((first, rest)) = arrived.split_first() else { break };
            arrived = rest;
            if let Some(place) = self.header.get_mut(self.filled) {
                *place = *first;
            }
            self.filled += 1;
            if self.filled == self.header.len() {
                self.filled = 0;
                let [_, length @ ..] = self.header;
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.body_left = length.saturating_sub(length.min(4));
                if self.body_left > MAX_LOGIN_MESSAGE {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
        Ok(())
    }
}

impl<S, C> TlsConnect<S> for Keeping<C>
where
    C: TlsConnect<S> + Send + 'static,
    C::Stream: Send + 'static,
    C::Future: Send,
    S: Send + 'static,
{
    type Stream = Login;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Login, C::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let stream = self.connector.connect(stream).await?;
            Ok(Login::new(Box::new(stream), &self.kept))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_announces_too_much_is_refused_at_its_header() {
        let message = |length: u32| [&b"R"[..], &length.to_be_bytes()].concat();
        let mut framing = Framing::default();
        framing.follow(&[message(8), vec![0, 0, 0, 0], message(5)].concat()).unwrap();
        framing.follow(b"IZ").unwrap();
        framing.follow(&[0, 0]).unwrap();
        framing.follow(&[0, 5]).unwrap();
        framing.follow(b"I").unwrap();
        framing.follow(&message(1 << 30)).unwrap_err();
        Framing::default().follow(&message(u32::MAX)).unwrap_err();
        Framing::default().follow(&message(0)).unwrap();
    }
}
