//! One commit in a segment.
//!
//! ```text
//! length u32 ‖ number u64 ‖ store version u32 ‖ counts, salt, masked set ‖ entry ... ‖ MAC
//! MAC = HMAC-SHA256(K_journal, MAC before ‖ everything before it)         the chain
//! ```
//!
//! The length counts what follows it. Nothing of a frame is looked at before its MAC has been
//! verified, but for its length and number.

use super::super::integrity::{
    Fields, IntegrityKey, MAC_LENGTH, Manifest, Position, Purpose, STORE_VERSION, Salt, State,
};
use super::super::pairs::{read_entry, write_entry};
use super::super::{Batch, Change, Error, Operation};

/// Longest frame, as a whole.
pub(super) const MAX_FRAME: usize = 1 << 30;
/// The shortest one, without operations.
pub(super) const MIN_FRAME: usize = HEAD + MAC_LENGTH;
/// Most bytes of the entries of one.
pub(in crate::store) const MAX_ENTRIES: u64 = (MAX_FRAME - MIN_FRAME) as u64;
const LENGTH_FIELD: usize = 4;
const HEAD: usize = LENGTH_FIELD + 8 + 4 + State::PAIRS_LENGTH;

/// Replaces what is in `buffer` by the frame behind commit `before` that makes `state`, and returns
/// the chain.
///
/// # Errors
///
/// [`Error::TooLarge`].
pub(super) fn encode<'a>(
    buffer: &mut Vec<u8>,
    key: &IntegrityKey,
    before: &Position,
    changes: impl Iterator<Item = Change<'a>> + Clone,
    made: (&State, u32, &Salt),
) -> Result<[u8; MAC_LENGTH], Error> {
    buffer.clear();
    let entry = |(_, key, value): Change<'_>| 4 + key.len() + value.map_or(0, <[u8]>::len);
    let entries = changes.clone().map(entry).sum();
    buffer.reserve(MIN_FRAME.saturating_add(entries).min(MAX_FRAME));
    encode_head(buffer, key, entries as u64, made)?;
    for (tree, key, value) in changes {
        write_entry(buffer, tree, key, value).map_err(|_| Error::TooLarge)?;
    }
    let chain = key.mac(Purpose::Journal, &[&before.chain, buffer]);
    buffer.extend_from_slice(&chain);
    Ok(chain)
}

/// Appends to `buffer` what is before the entries in a frame with `entries` bytes of them.
///
/// # Errors
///
/// [`Error::TooLarge`].
pub(super) fn encode_head(
    buffer: &mut Vec<u8>,
    key: &IntegrityKey,
    entries: u64,
    (state, store_version, salt): (&State, u32, &Salt),
) -> Result<(), Error> {
    if entries > MAX_ENTRIES {
        return Err(Error::TooLarge);
    }
    let counted = (MIN_FRAME - LENGTH_FIELD) as u64 + entries;
    let counted = u32::try_from(counted).map_err(|_| Error::TooLarge)?;
    buffer.extend_from_slice(&counted.to_be_bytes());
    buffer.extend_from_slice(&state.number.to_be_bytes());
    buffer.extend_from_slice(&store_version.to_be_bytes());
    state.encode_pairs(key, salt, buffer);
    Ok(())
}

/// What bytes begin with.
#[derive(Debug)]
pub(super) enum Next<'a> {
    Frame(Verified<'a>),
    /// Not one byte.
    End,
    /// No frame behind that commit, and why not.
    Broken(&'static str),
}

/// A frame whose MAC, and so whose predecessor, is the right one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verified<'a> {
    bytes: &'a [u8],
    pub(super) position: Position,
}

impl<'a> Verified<'a> {
    /// The frame that `bytes` begin with, if it is that of the commit after `before`.
    pub(super) fn read(bytes: &'a [u8], key: &IntegrityKey, before: &Position) -> Next<'a> {
        if bytes.is_empty() {
            return Next::End;
        }
        let Some((frame, number)) = split(bytes) else {
            return Next::Broken("a frame is cut off or has no sensible length");
        };
        if before.number.checked_add(1) != Some(number) {
            return Next::Broken("a frame has a number out of order");
        }
        Self::verify(frame, key, before.number, &before.chain)
            .map_or(Next::Broken("a frame was altered"), Next::Frame)
    }

    fn verify(
        frame: &'a [u8],
        key: &IntegrityKey,
        before: u64,
        chain: &[u8; MAC_LENGTH],
    ) -> Option<Self> {
        let (content, mac) = frame.split_last_chunk::<MAC_LENGTH>()?;
        let is_frame = key.is_mac(mac, Purpose::Journal, &[chain, content]);
        let number = before.wrapping_add(1);
        is_frame.then_some(Self { bytes: frame, position: Position { number, chain: *mac } })
    }

    /// Bytes of it.
    pub(super) fn length(&self) -> usize {
        self.bytes.len()
    }

    /// What the commit made.
    ///
    /// # Errors
    ///
    /// [`Error::TooNew`].
    pub(super) fn manifest(&self, key: &IntegrityKey) -> Result<Manifest, Error> {
        let mut fields = Fields(&self.bytes[LENGTH_FIELD..]);
        let number = fields.u64();
        let store_version = u32::from_be_bytes(fields.take());
        if store_version > STORE_VERSION {
            return Err(Error::TooNew { found: store_version, supported: STORE_VERSION });
        }
        let state = State::decode_pairs(number, &fields.take(), key);
        Ok(Manifest { state, chain: self.position.chain, store_version })
    }

    /// What the commit did. `None` for a frame that is authentic and yet not one: no program wrote
    /// it.
    pub(super) fn operations(&self) -> Option<Batch> {
        let mut bytes = &self.bytes[HEAD..self.bytes.len() - MAC_LENGTH];
        let mut operations = Vec::new();
        while !bytes.is_empty() {
            let entry = read_entry(&mut bytes).ok()??;
            operations.push(Operation { tree: entry.tree, key: entry.key, value: entry.value });
        }
        Some(Batch(operations))
    }
}

/// What a search for a frame came to.
#[derive(Debug)]
pub(super) enum Search {
    /// Where there is one, and the commit before it.
    Found(usize, Position),
    None,
    /// There is so much that looks like one that it would take too long to tell.
    GaveUp,
}

/// Looks for a frame anywhere in `bytes` with the number `least` or a later one. The chain before it
/// is where the frame before ends.
///
/// Bytes that an attacker made could have a candidate for a long frame everywhere, so what is hashed
/// is taken from `budget`.
pub(super) fn search(bytes: &[u8], key: &IntegrityKey, least: u64, budget: &mut usize) -> Search {
    let most = least.saturating_add((bytes.len() / MIN_FRAME) as u64);
    for at in MAC_LENGTH..bytes.len() {
        let Some((frame, number)) = split(&bytes[at..]) else { continue };
        let Some(before) = number.checked_sub(1) else { continue };
        if number < least || number > most {
            continue;
        }
        let Some(left) = budget.checked_sub(frame.len()) else { return Search::GaveUp };
        *budget = left;
        let Some(chain) = bytes[..at].last_chunk::<MAC_LENGTH>() else { continue };
        if Verified::verify(frame, key, before, chain).is_some() {
            return Search::Found(at, Position { number: before, chain: *chain });
        }
    }
    Search::None
}

/// The frame that `bytes` would begin with by its length, and its number.
fn split(bytes: &[u8]) -> Option<(&[u8], u64)> {
    let mut fields = Fields(bytes.first_chunk::<{ LENGTH_FIELD + 8 }>()?);
    let length = usize::try_from(u32::from_be_bytes(fields.take())).ok()? + LENGTH_FIELD;
    let is_sensible = (MIN_FRAME..=MAX_FRAME).contains(&length);
    let frame = is_sensible.then(|| bytes.get(..length))??;
    Some((frame, fields.u64()))
}
