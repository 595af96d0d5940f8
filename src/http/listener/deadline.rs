//! A connection's stream and bodies, which end when the client takes too long.
//!
//! ```text
//! connect -----------> first byte ... end of the head    head timeout
//! end of an answer --> first byte of the next head       idle timeout (hyper's)
//! end of the head ---> end of the body                   body timeout, and stall timeout between bytes
//! each part of an answer --> taken by the client         stall timeout for MIN_TAKEN bytes
//! ```
//!
//! While a request is worked on nothing runs: how long a call may take is for others to say. What
//! comes meanwhile is kept, to see by it that the client has hung up (see [`super::portion`]).

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::super::Limits;
use super::portion::{Lines, Serving, Turn};

/// What a client has to take of an answer in each stall timeout, where there is as much: one that
/// takes a byte now and then holds the rest in memory no longer than one that takes nothing.
const MIN_TAKEN: usize = 32 << 10;

/// What is read at a time.
const PIECE: usize = 8 << 10;

/// Most that is kept of what a client sends while its request is served. Whoever sends more is cut
/// off: the end of the connection would be seen behind it only.
const MAX_AHEAD: usize = 16 << 10;

/// A stream whose client has to send heads, and take answers, in time.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    turn: Arc<Turn>,
    stopping: CancellationToken,
    head_timeout: Duration,
    stall_timeout: Duration,
    /// Until when the head has to be there that is coming in, and the turn it comes in at.
    head: Option<(u64, Pin<Box<Sleep>>)>,
    /// Until when the client has to take something: while it does not take all there is.
    stall: Option<Pin<Box<Sleep>>>,
    /// Since `stall` began.
    taken: usize,
    /// What was read and not handed on.
    ahead: Vec<u8>,
    lines: Lines,
    /// The next is handed on once what was may have been read.
    waits: bool,
}

impl<S> Patient<S> {
    /// It ends by itself once `stopping` is cancelled, unless a request is being served or an answer
    /// is being taken. Must be called inside of a runtime.
    pub(super) fn new(
        stream: S,
        turn: Arc<Turn>,
        stopping: CancellationToken,
        limits: &Limits,
    ) -> Self {
        let head = Some((turn.now(), Box::pin(sleep(limits.header_timeout))));
        Self {
            stream,
            turn,
            stopping,
            head_timeout: limits.header_timeout,
            stall_timeout: limits.stall_timeout,
            head,
            stall: None,
            taken: 0,
            ahead: Vec::new(),
            lines: Lines::default(),
            waits: false,
        }
    }

    /// Keeps the time of a head: from its first byte until a request is served. Of a connection's
    /// first head, from the beginning.
    fn received(&mut self, has_bytes: bool) {
        let turn = self.turn.now();
        self.head.take_if(|(of, _)| *of != turn);
        if has_bytes && self.head.is_none() && !self.turn.is_serving() {
            self.head = Some((turn, Box::pin(sleep(self.head_timeout))));
        }
    }

    /// The client does not take what there is.
    fn stalls(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            if self.stall.is_none() {
                self.taken = 0;
            }
            let timeout = self.stall_timeout;
            let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(timeout)));
            ready!(stall.as_mut().poll(cx));
            if self.taken < MIN_TAKEN {
                return Poll::Ready(late("the answer was not taken in time"));
            }
            self.stall = None;
        }
    }

    fn taken(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(count)) => {
                self.taken = self.taken.saturating_add(count);
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.stalls(cx).map(Err),
        }
    }

    fn all_taken(
        &mut self,
        cx: &mut Context<'_>,
        flushed: Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        if flushed.is_ready() {
            self.stall = None;
            return flushed;
        }
        self.stalls(cx).map(Err)
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> Patient<S> {
    /// Reads a portion of what the request that is coming, or being served, consists of; nothing is
    /// the end of the connection.
    fn read_portion(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.waits) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let ahead = std::mem::take(&mut self.ahead);
        if self.hand_on(&ahead, buffer) {
            return Poll::Ready(Ok(()));
        }
        loop {
            if self.ahead.len() >= MAX_AHEAD {
                return Poll::Ready(Err(io::Error::other("too much was sent ahead")));
            }
            let mut piece = [MaybeUninit::uninit(); PIECE];
            let mut piece = ReadBuf::uninit(&mut piece);
            if Pin::new(&mut self.stream).poll_read(cx, &mut piece)?.is_pending() {
                if !self.ahead.is_empty() {
                    self.turn.wake(cx.waker());
                }
                return Poll::Pending;
            }
            if piece.filled().is_empty() || self.hand_on(piece.filled(), buffer) {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Puts a portion of `bytes` into `buffer`, and keeps the rest. Says whether there is any.
    fn hand_on(&mut self, bytes: &[u8], buffer: &mut ReadBuf<'_>) -> bool {
        let fitting = bytes.len().min(buffer.remaining());
        let portion = self.lines.portion(&bytes[..fitting], &self.turn);
        let (handed, kept) = bytes.split_at(portion.bytes);
        buffer.put_slice(handed);
        self.ahead.extend_from_slice(kept);
        self.waits = portion.may_end_chunks;
        !handed.is_empty()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.read_portion(cx, buffer);
        self.received(buffer.filled().len() > before);
        if read.is_ready() {
            return read;
        }
        let is_owed_nothing = !self.turn.is_serving() && self.stall.is_none();
        if is_owed_nothing && self.stopping.is_cancelled() {
            // Half a head is not waited for.
            return Poll::Ready(Ok(()));
        }
        let Some((_, head)) = &mut self.head else { return Poll::Pending };
        ready!(head.as_mut().poll(cx));
        Poll::Ready(Err(late("the head of the request did not come in time")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.taken(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.taken(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.all_taken(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.all_taken(cx, closed)
    }
}

/// The body of a request, which has to come in time.
#[derive(Debug)]
pub(super) struct Received {
    body: Incoming,
    /// Until when all of it has to be there.
    whole: Instant,
    stall_timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    was_late: Arc<AtomicBool>,
    turn: Arc<Turn>,
}

impl Received {
    /// `was_late` is set when `body` did not come in time; `turn` is told when it is whole.
    pub(super) fn new(
        body: Incoming,
        limits: &Limits,
        was_late: Arc<AtomicBool>,
        turn: Arc<Turn>,
    ) -> Self {
        let whole = Instant::now() + limits.body_timeout;
        Self { body, whole, stall_timeout: limits.stall_timeout, timer: None, was_late, turn }
    }
}

impl hyper::body::Body for Received {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.timer = None;
            if frame.is_none() {
                self.turn.body_ended();
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        let until = self.whole.min(Instant::now() + self.stall_timeout);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        ready!(timer.as_mut().poll(cx));
        self.was_late.store(true, Ordering::Relaxed);
        let error = late("the body of the request did not come in time");
        Poll::Ready(Some(Err(axum::Error::new(error))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer; its request is served when it is dropped.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Body,
    pub(super) _serving: Serving,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
