//! What can be said of a store's parts without opening it: plain data, for reports.
//!
//! ```text
//! anchor, journal/          --read only-----------------------------> Finding per thing amiss
//! store/ --copied to a scratch directory, because sled writes there--> Finding, and a Remnant
//! ```
//!
//! Protects against: an opening that repairs, or refuses, before anybody has seen what there is.
//! Does not protect against: damage that the integrity key cannot tell from what was written.

use std::fmt;

use super::Store;

/// A part of a store that knows which commit is the newest.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a new part is a new format")]
pub enum Part {
    /// The file `anchor`: both slots.
    Anchor,
    /// The directory `journal/`: every segment, every frame, and the base.
    Journal,
    /// The engine in `store/`, and the manifest in it: its pairs are counted and hashed.
    Manifest,
}

/// How a part is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, filled field by field")]
pub struct PartInspection {
    /// Which.
    pub part: Part,
    /// What was looked at and authenticated: slots, frames, or pairs.
    pub checked: u64,
    /// The newest commit that the part shows authentically. `None`: none.
    pub number: Option<u64>,
    /// What is amiss, one sentence each, without the way out. None: the part is good.
    pub findings: Vec<String>,
}

/// What the parts of a store say, each looked at by itself: one that is damaged does not keep the
/// others from being looked at.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, filled field by field")]
pub struct Inspection {
    /// In the order of [`Part`], each once.
    pub parts: Vec<PartInspection>,
}

/// The pairs that one part of a damaged store still gives, as a store of their own in a scratch
/// directory. Nothing in it is proven: what a record says is for its envelope to show.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain data, filled field by field")]
pub struct Remnant {
    /// [`Part::Journal`]: base and frames as far as the chain verifies, replayed.
    /// [`Part::Manifest`]: what the copy of the engine holds.
    pub part: Part,
    /// The commit that its pairs are the state of, as far as that is authentic: the last frame
    /// before the first damage; the number of the manifest, if its MAC holds.
    pub number: Option<u64>,
    /// Whether the pairs are all that there were at that commit: a journal that is complete from the
    /// empty store or a base on; an engine whose pairs equal its manifest.
    pub is_complete: bool,
    /// Read only, in keeping: [`Store::get`], [`Store::scan`] and [`Store::scan_after`] are used.
    pub store: Box<dyn Store>,
}

impl Part {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Journal => "journal",
            Self::Manifest => "manifest",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
