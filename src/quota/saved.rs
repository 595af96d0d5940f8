//! The counts of a tenant as bytes: what of them outlives the process. Every byte: docs/format.md.
//!
//! They are sealed by whoever stores them, so what is read here was written here, or by a version
//! that this one does not know.

use super::window::Slots;

/// First byte.
const VERSION: u8 = 1;
/// Latest time of a meter, in seconds: so far away that adding to it does not overflow.
const MAX_TIME: u64 = 1 << 40;

/// The bytes are not what this version writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("stored counts are of a form that this version does not know")]
pub struct Malformed;

/// What is kept of a meter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Saved {
    /// What the wall clock showed, Unix seconds.
    pub(super) wall: i64,
    /// Which boot of the machine it was; zeros when the system did not say.
    pub(super) boot_id: [u8; 16],
    /// How long after that boot, in seconds.
    pub(super) boot: u64,
    /// The meter's own time.
    pub(super) time: u64,
    pub(super) hour: Slots,
    pub(super) day: Slots,
    /// By caller; the empty name is of those that have none of their own.
    pub(super) denied: Vec<(Box<str>, Slots)>,
}

impl Saved {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { wall, boot_id, boot, time, hour, day, denied } = self;
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&wall.to_be_bytes());
        bytes.extend_from_slice(boot_id);
        bytes.extend_from_slice(&boot.to_be_bytes());
        bytes.extend_from_slice(&time.to_be_bytes());
        write_slots(&mut bytes, hour);
        write_slots(&mut bytes, day);
        bytes.push(count(denied.len()));
        for (caller, slots) in denied {
            bytes.push(count(caller.len()));
            bytes.extend_from_slice(caller.as_bytes());
            write_slots(&mut bytes, slots);
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        if reader.array()? != [VERSION] {
            return Err(Malformed);
        }
        let saved = Self {
            wall: i64::from_be_bytes(reader.array()?),
            boot_id: reader.array()?,
            boot: u64::from_be_bytes(reader.array()?),
            time: u64::from_be_bytes(reader.array()?),
            hour: reader.slots()?,
            day: reader.slots()?,
            denied: reader.list(|reader| Ok((reader.text()?, reader.slots()?)))?,
        };
        if !reader.0.is_empty() || saved.time > MAX_TIME {
            return Err(Malformed);
        }
        Ok(saved)
    }
}

fn write_slots(bytes: &mut Vec<u8>, slots: &Slots) {
    bytes.push(count(slots.len()));
    for (age, counted) in slots {
        bytes.push(*age);
        bytes.extend_from_slice(&counted.to_be_bytes());
    }
}

/// No window has more slots, no meter more callers, and no caller's name more bytes.
fn count(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let [length] = self.array()?;
        (0..length).map(|_| read(self)).collect()
    }

    fn slots(&mut self) -> Result<Slots, Malformed> {
        self.list(|reader| {
            let [age] = reader.array()?;
            Ok((age, u32::from_be_bytes(reader.array()?)))
        })
    }

    fn text(&mut self) -> Result<Box<str>, Malformed> {
        let [length] = self.array()?;
        let (text, rest) = self.0.split_at_checked(length.into()).ok_or(Malformed)?;
        self.0 = rest;
        Ok(std::str::from_utf8(text).map_err(|_| Malformed)?.into())
    }
}
