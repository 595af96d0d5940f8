//! How much of what a client sent is handed on at a time: nothing beyond the request that is served.
//!
//! ```text
//! head … blank line | body of a known length | next head …
//!                   | chunks … blank line    | next head …      each portion ends at a | at the latest
//! ```
//!
//! hyper does not look whether the client is still there while it has bytes that it has no use for
//! yet. So it is given none: a byte behind a request would have a call go on whose caller hung up.
//! And a portion of a head is of one head only, so its time runs from its own first byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;

/// That the length of a body is not known.
const CHUNKED: u64 = u64::MAX;

/// Which request of a connection is being served, and what is to come of it.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Odd while one is being served.
    number: AtomicU64,
    /// Bytes of the body that were not handed on yet.
    to_come: AtomicU64,
    /// The first line of the head that came last has a `#`.
    has_fragment: AtomicBool,
    /// Who waits for the turn to end.
    reader: AtomicWaker,
}

/// A request is being served, until this is dropped.
#[derive(Debug)]
pub(super) struct Serving(Arc<Turn>);

/// The client asked for a target with a fragment, which hyper drops.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Fragment;

impl Turn {
    /// Begins with a body of `length` bytes, or in chunks. Says whether the target has a fragment.
    pub(super) fn begin(self: &Arc<Self>, length: Option<u64>) -> (Serving, Option<Fragment>) {
        self.to_come.store(length.unwrap_or(CHUNKED), Ordering::Relaxed);
        self.number.fetch_add(1, Ordering::Relaxed);
        let fragment = self.has_fragment.swap(false, Ordering::Relaxed).then_some(Fragment);
        (Serving(Arc::clone(self)), fragment)
    }

    pub(super) fn now(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    pub(super) fn is_serving(&self) -> bool {
        !self.now().is_multiple_of(2)
    }

    /// Is told that all of the body was read.
    pub(super) fn body_ended(&self) {
        self.to_come.store(0, Ordering::Relaxed);
    }

    /// Has `reader` woken when the turn ends.
    pub(super) fn wake(&self, reader: &Waker) {
        self.reader.register(reader);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.number.fetch_add(1, Ordering::Relaxed);
        self.0.reader.wake();
    }
}

/// Where in its lines a connection is.
#[derive(Debug)]
pub(super) struct Lines {
    /// Nothing of the line has come but its end.
    is_blank: bool,
    /// It is the first behind a blank one.
    is_first: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self { is_blank: true, is_first: true }
    }
}

/// What may be handed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Portion {
    pub(super) bytes: usize,
    /// It may be the last of a body in chunks: whoever reads that has to see it before the next.
    pub(super) may_end_chunks: bool,
}

impl Lines {
    /// How much of `bytes`, which come next, is handed on at `turn`; they count as handed on.
    pub(super) fn portion(&mut self, bytes: &[u8], turn: &Turn) -> Portion {
        let to_come = turn.to_come.load(Ordering::Relaxed);
        let is_in_lines = to_come == CHUNKED || (to_come == 0 && !turn.is_serving());
        if is_in_lines {
            return self.up_to_blank(bytes, turn);
        }
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(to_come);
        turn.to_come.store(to_come - count, Ordering::Relaxed);
        // Not more than there are.
        Portion { bytes: usize::try_from(count).unwrap_or(bytes.len()), may_end_chunks: false }
    }

    fn up_to_blank(&mut self, bytes: &[u8], turn: &Turn) -> Portion {
        let is_serving = turn.is_serving();
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.is_blank => {
                    self.is_first = true;
                    return Portion { bytes: at + 1, may_end_chunks: is_serving };
                }
                b'\n' => *self = Self { is_blank: true, is_first: false },
                b'\r' => {}
                b'#' if self.is_first && !is_serving => {
                    self.is_blank = false;
                    turn.has_fragment.store(true, Ordering::Relaxed);
                }
                _ => self.is_blank = false,
            }
        }
        Portion { bytes: bytes.len(), may_end_chunks: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_ends_with_the_head_and_with_the_body() {
        let turn = Arc::new(Turn::default());
        let mut lines = Lines::default();
        let mut take = |bytes: &[u8]| lines.portion(bytes, &turn).bytes;
        assert_eq!(take(b"POST / HTTP/1.1\r\nA: b\r"), 22);
        assert_eq!(take(b"\n\r\n12345GET /"), 3);
        let (serving, _) = turn.begin(Some(5));
        assert_eq!((take(b"12"), take(b"345GET /"), take(b"GET /")), (2, 3, 0));
        drop(serving);
        assert_eq!(take(b"GET / HTTP/1.1\n\nGET"), 16);
        let (_serving, _) = turn.begin(None);
        assert_eq!(take(b"3\r\na\n\n\r\n0\r\n\r\nGET /"), 6);
        assert_eq!((take(b"\r\n"), take(b"0\r\n\r\nGET /")), (2, 5));
        turn.body_ended();
        assert_eq!(take(b"GET /"), 0);
    }

    #[test]
    fn a_fragment_is_seen_in_the_first_line_of_a_head_only() {
        for (head, expected) in [
            (&b"\r\nGET /#x HTTP/1.1\r\n\r\n"[..], true),
            (b"GET / HTTP/1.1\r\nA: #\r\n\r\n", false),
        ] {
            let turn = Arc::new(Turn::default());
            let mut lines = Lines::default();
            let mut rest = head;
            while !rest.is_empty() {
                rest = &rest[lines.portion(rest, &turn).bytes..];
            }
            let (serving, fragment) = turn.begin(Some(1));
            assert_eq!(fragment.is_some(), expected);
            assert_eq!(lines.portion(b"#GET", &turn).bytes, 1);
            drop(serving);
            assert!(turn.begin(None).1.is_none());
        }
    }
}
