//! Messages of the extended protocol, one flight of them at a time.
//!
//! ```text
//! Flight: BEGIN, limits, Parse, Bind, Execute, ROLLBACK, Sync   --one write-->  server
//! Wire::receive  <--message by message, each bounded before it is read--       server
//! ```
//!
//! The driver that logs in reads whole messages into memory and asks for one thing at a time; here
//! a message is bounded by its announced length before a byte of it is kept, what is not wanted is
//! skipped as it arrives, and a whole transaction takes one round trip. There is no way to write
//! the message `Query`, the only one that carries more than one statement.
//!
//! The server may be hostile: every read is checked, and memory grows with what has arrived, not
//! with what was announced.

use std::borrow::Cow;
use std::io::{self, ErrorKind};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::stream::Plain;
use crate::database::Unavailable;

/// Longest message that is no row, and most bytes of notices and the like in one flight.
const MAX_MESSAGE: usize = 1 << 20;
/// What the buffer is given at first, and shrinks to.
const READ_BYTES: usize = 16 << 10;
/// Length of a tag and a length.
const HEADER: usize = 5;

/// Messages to the server that travel together.
#[derive(Debug, Default)]
pub(super) struct Flight(Vec<u8>);

/// How many rows to send.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    /// All rows.
    None,
    /// At most so many.
    Rows(usize),
}

impl Flight {
    /// `statement` is the server's name for the text; the empty one lasts until the next.
    pub(super) fn parse(&mut self, statement: &str, sql: &str) {
        self.message(b'P', |out| {
            push_text(out, statement);
            push_text(out, sql);
            out.extend(0_u16.to_be_bytes());
        });
    }

    /// Asks for the types of parameters and columns.
    pub(super) fn describe(&mut self, statement: &str) {
        self.message(b'D', |out| {
            out.push(b'S');
            push_text(out, statement);
        });
    }

    /// Lets go of a statement; of one that the server does not have, too.
    pub(super) fn close(&mut self, statement: &str) {
        self.message(b'C', |out| {
            out.push(b'S');
            push_text(out, statement);
        });
    }

    /// Binds `values`, texts or NULL, to the unnamed portal.
    pub(super) fn bind<T: AsRef<str>>(&mut self, statement: &str, values: &[Option<T>]) {
        self.message(b'B', |out| {
            out.push(0);
            push_text(out, statement);
            // All values are texts, and all results.
            out.extend(0_u16.to_be_bytes());
            push_count(out, values.len());
            for value in values {
                match value {
                    None => out.extend((-1_i32).to_be_bytes()),
                    Some(text) => {
                        let text = text.as_ref().as_bytes();
                        out.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
                        out.extend(text);
                    }
                }
            }
            out.extend(0_u16.to_be_bytes());
        });
    }

    /// Runs what was bound.
    pub(super) fn execute(&mut self, limit: Limit) {
        let rows = match limit {
            Limit::None => 0,
            Limit::Rows(rows) => i32::try_from(rows.max(1)).unwrap_or(i32::MAX),
        };
        self.message(b'E', |out| {
            out.push(0);
            out.extend(rows.to_be_bytes());
        });
    }

    /// After an error the server goes on behind the next of these.
    pub(super) fn sync(&mut self) {
        self.message(b'S', |_| {});
    }

    /// Says goodbye.
    pub(super) fn terminate(&mut self) {
        self.message(b'X', |_| {});
    }

    fn message(&mut self, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
        let Self(out) = self;
        out.push(tag);
        let start = out.len();
        out.extend([0; 4]);
        write(out);
        // Statements and values are bounded far below this by the guard and the endpoint.
        let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    // A NUL would end the text early; the guard has refused it, and names of ours have none.
    out.extend(text.bytes().take_while(|byte| *byte != 0));
    out.push(0);
}

fn push_count(out: &mut Vec<u8>, count: usize) {
    // More are refused by the count of the statement's parameters, which is of this type.
    out.extend(u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
}

/// A message of the server's.
#[derive(Debug)]
pub(super) enum Message<'a> {
    /// A row: the cells, to be read with [`Body::cells`].
    Row(Body<'a>),
    /// A row of so many bytes, more than asked for; skipped by the next call.
    LongRow(usize),
    /// The types of the parameters.
    Parameters(Body<'a>),
    /// The columns.
    Columns(Body<'a>),
    /// The server has read a text.
    Parsed,
    /// The server has planned a statement with its values.
    Bound,
    /// A statement is done; its tag, to be read with [`Body::text`], says what it did.
    Completed(Body<'a>),
    /// A statement was empty, or its rows were all that were asked for.
    Done,
    /// The statement failed; what follows is skipped by the server up to the next `Sync`.
    Failed(Body<'a>),
    /// All up to a `Sync` is answered; whether a transaction is open.
    Ready {
        /// `false` is what there should be between two calls.
        in_transaction: bool,
    },
    /// Nothing of interest.
    Other,
}

impl Message<'_> {
    /// How many bytes of a row it is.
    pub(super) fn row_length(&self) -> usize {
        match self {
            Self::Row(body) => body.len(),
            Self::LongRow(length) => *length,
            Self::Parameters(_)
            | Self::Columns(_)
            | Self::Parsed
            | Self::Bound
            | Self::Completed(_)
            | Self::Done
            | Self::Failed(_)
            | Self::Ready { .. }
            | Self::Other => 0,
        }
    }
}

/// What is read from a message that has arrived as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body<'a>(&'a [u8]);

/// The bytes are not those of the message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Malformed;

impl From<Malformed> for Unavailable {
    fn from(_: Malformed) -> Self {
        Self::Protocol
    }
}

impl<'a> Body<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        self.array().map(|bytes| usize::from(u16::from_be_bytes(bytes)))
    }

    pub(super) fn number(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A text that ends in NUL.
    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
        let text = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|_| Malformed)
    }

    /// The cells of a row, `None` for NULL. What is not UTF-8, as a database without an encoding
    /// may have it, has a replacement character.
    pub(super) fn cells(
        mut self,
    ) -> Result<impl Iterator<Item = Result<Option<Cow<'a, str>>, Malformed>>, Malformed> {
        let count = self.count()?;
        Ok((0..count).map(move |_| {
            let length = i32::from_be_bytes(self.array()?);
            if length == -1 {
                return Ok(None);
            }
            let bytes = self.take(usize::try_from(length).map_err(|_| Malformed)?)?;
            Ok(Some(String::from_utf8_lossy(bytes)))
        }))
    }

    /// A column of a description of columns: its name and its type.
    pub(super) fn column(&mut self) -> Result<(&'a str, u32), Malformed> {
        let name = self.text()?;
        let _table = self.number()?;
        let _attribute = self.count()?;
        let oid = self.number()?;
        // Size of the type, its modifier, the format.
        self.take(2 + 4 + 2)?;
        Ok((name, oid))
    }

    /// A field of an error: what it is and what it says; `None` after the last.
    pub(super) fn field(&mut self) -> Result<Option<(u8, String)>, Malformed> {
        let [field] = self.array()?;
        if field == 0 {
            return Ok(None);
        }
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
        // Messages quote what may be in any encoding.
        let text = String::from_utf8_lossy(self.take(end)?).into_owned();
        self.take(1)?;
        Ok(Some((field, text)))
    }
}

/// A logged-in connection.
pub(super) struct Wire {
    stream: Plain,
    /// What has arrived and is not read: `buffer[start..]`.
    buffer: Vec<u8>,
    start: usize,
    /// Bytes that nobody wants, yet to come.
    to_skip: usize,
    /// Whether anything has arrived since the last flight was sent.
    is_heard: bool,
    /// Bytes of notices and the like since then.
    idle_talk: usize,
}

impl Wire {
    pub(super) fn new(stream: Plain) -> Self {
        Self { stream, buffer: Vec::new(), start: 0, to_skip: 0, is_heard: false, idle_talk: 0 }
    }

    /// Sends a flight, after which [`Self::receive`] is called until its last `Ready`.
    pub(super) async fn send(&mut self, flight: &Flight) -> Result<(), Unavailable> {
        if self.buffer.capacity() > 4 * READ_BYTES {
            self.buffer = Vec::new();
            self.start = 0;
        }
        self.is_heard = false;
        self.idle_talk = 0;
        let sent = async {
            self.stream.write_all(&flight.0).await?;
            self.stream.flush().await
        };
        // What did not leave did not run.
        sent.await.map_err(|_| Unavailable::Stale)
    }

    /// The next message. A row beyond `longest_row` bytes is skipped.
    pub(super) async fn receive(&mut self, longest_row: usize) -> Result<Message<'_>, Unavailable> {
        let to_skip = std::mem::take(&mut self.to_skip);
        self.skip(to_skip).await?;
        self.fill(HEADER).await?;
        let mut header = Body(self.buffer.get(self.start..).unwrap_or_default());
        let [tag] = header.array()?;
        let length = header.number()? as usize;
        let length = length.checked_sub(4).ok_or(Unavailable::Protocol)?;
        self.start += HEADER;
        if tag == b'D' && length > longest_row {
            self.to_skip = length;
            return Ok(Message::LongRow(length));
        }
        if tag != b'D' && length > MAX_MESSAGE {
            return Err(Unavailable::Protocol);
        }
        self.fill(length).await?;
        let start = self.start;
        self.start += length;
        let mut body = Body(self.buffer.get(start..self.start).unwrap_or_default());
        Ok(match tag {
            b'D' => Message::Row(body),
            b't' => Message::Parameters(body),
            b'T' => Message::Columns(body),
            b'C' => Message::Completed(body),
            // EmptyQueryResponse, PortalSuspended.
            b'I' | b's' => Message::Done,
            b'E' => Message::Failed(body),
            b'Z' => Message::Ready { in_transaction: body.array::<1>()? != *b"I" },
            b'1' => Message::Parsed,
            b'2' => Message::Bound,
            // CloseComplete, NoData.
            b'3' | b'n' => Message::Other,
            // Notice, notification, a changed parameter: as many as one likes, but not for ever.
            b'N' | b'A' | b'S' => {
                self.idle_talk += HEADER + length;
                if self.idle_talk > MAX_MESSAGE {
                    return Err(Unavailable::Protocol);
                }
                Message::Other
            }
            // Copying is no answer to anything that is sent here.
            _ => return Err(Unavailable::Protocol),
        })
    }

    /// Waits until `length` bytes have arrived.
    async fn fill(&mut self, length: usize) -> Result<(), Unavailable> {
        while self.buffer.len() - self.start < length {
            if self.start > 0 {
                self.buffer.drain(..self.start);
                self.start = 0;
            }
            // Doubles at most, and only when what was given before is full.
            let present = self.buffer.len();
            if present == self.buffer.capacity() {
                self.buffer.reserve_exact(READ_BYTES.max(present.min(length - present)));
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(Unavailable::Lost),
                Ok(_) => self.is_heard = true,
                // The other side knows of no such connection, so it has run nothing.
                Err(error) if error.kind() == ErrorKind::ConnectionReset && !self.is_heard => {
                    return Err(Unavailable::Stale);
                }
                Err(_) => return Err(Unavailable::Lost),
            }
        }
        Ok(())
    }

    /// Reads `length` bytes and keeps none.
    async fn skip(&mut self, length: usize) -> Result<(), Unavailable> {
        let mut left = length;
        loop {
            let here = left.min(self.buffer.len() - self.start);
            self.start += here;
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.buffer.clear();
            self.start = 0;
            self.fill(1).await?;
        }
    }

    /// Ends the session in order, if the connection takes it at once.
    pub(super) fn terminate(&mut self) -> io::Result<()> {
        let mut flight = Flight::default();
        flight.terminate();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut send = std::pin::pin!(async {
            self.stream.write_all(&flight.0).await?;
            self.stream.flush().await
        });
        match send.as_mut().poll(&mut context) {
            std::task::Poll::Ready(sent) => sent,
            std::task::Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }
}
