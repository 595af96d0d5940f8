//! What shows that nothing of a store was altered, is missing, or is older than it should be.
//!
//! ```text
//! K_x      = HKDF-Expand(integrity key, "mcpv.<x>.v1", 32)
//! element  = HMAC-SHA256(K_pair, tree ‖ key length ‖ key ‖ value)
//! set      = sum of the elements of all pairs, modulo 2^256        (MSet-Add-Hash)
//! manifest = number ‖ counts ‖ salt ‖ set + HMAC-SHA256(K_mask, salt) ‖ chain ‖ MAC
//! ```
//!
//! A change of a pair costs one subtraction and one addition, whatever the size of the store; a walk
//! over all pairs must come to the same sum. Protects against: whoever can write the disk and does
//! not have the key. Does not protect against: an older copy of every part at once.

use std::array;
use std::fmt;
use std::io;
use std::sync::Arc;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Error, Tree};

/// The version of the store that this program writes; it reads those below. Version 1 had neither
/// journal nor manifest.
pub(super) const STORE_VERSION: u32 = 2;

/// The key of everything that authenticates a store: its journal, manifest and anchor. It opens no
/// record.
///
/// It is a handle: clones share the one set of keys that is derived at the beginning, and wiped when
/// the last of them goes.
#[derive(Clone)]
pub struct IntegrityKey(Arc<[Hmac<Sha256>; Purpose::ALL.len()]>);

/// What a derived key is for; each has one of its own.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// A slot of the anchor.
    Anchor,
    /// A frame of the journal.
    Journal,
    Manifest,
    /// What hides a stored set hash.
    Mask,
    /// The element of a pair.
    Pair,
}

impl Purpose {
    const ALL: [Self; 5] = [Self::Anchor, Self::Journal, Self::Manifest, Self::Mask, Self::Pair];

    fn label(self) -> &'static [u8] {
        match self {
            Self::Anchor => b"mcpv.anchor.v1",
            Self::Journal => b"mcpv.journal.v1",
            Self::Manifest => b"mcpv.manifest.v1",
            Self::Mask => b"mcpv.mask.v1",
            Self::Pair => b"mcpv.pair.v1",
        }
    }
}

impl IntegrityKey {
    /// Bytes of a key.
    pub const LENGTH: usize = 32;

    /// The key with these bytes, which are uniformly random.
    #[expect(clippy::missing_panics_doc, reason = "it takes every key, as its comments say")]
    pub fn new(bytes: &[u8; Self::LENGTH]) -> Self {
        // Uniform already, so there is nothing to extract.
        let hkdf = Hkdf::<Sha256>::from_prk(bytes).expect("a key is as long as SHA-256's output");
        let keyed = |index: usize| {
            let mut key = Zeroizing::new([0; Self::LENGTH]);
            let label = Purpose::ALL[index].label();
            hkdf.expand(label, key.as_mut_slice()).expect("32 bytes are asked for");
            Hmac::new_from_slice(key.as_slice()).expect("HMAC takes keys of any length")
        };
        Self(Arc::new(array::from_fn(keyed)))
    }

    /// HMAC-SHA256 of the concatenation of `parts`, under the key for `purpose`.
    pub(super) fn mac(&self, purpose: Purpose, parts: &[&[u8]]) -> [u8; MAC_LENGTH] {
        let mut mac = self.begin_mac(purpose);
        for part in parts {
            mac.update(part);
        }
        mac.finish()
    }

    /// Begins what [`Self::mac`] computes, for parts that come one after another.
    pub(super) fn begin_mac(&self, purpose: Purpose) -> PartialMac {
        // The key's own two blocks were hashed at the beginning.
        PartialMac(self.0[purpose as usize].clone())
    }

    /// Whether `mac` is that of the concatenation of `parts`, in constant time.
    pub(super) fn is_mac(&self, mac: &[u8], purpose: Purpose, parts: &[&[u8]]) -> bool {
        self.mac(purpose, parts).ct_eq(mac).into()
    }

    /// What the pair adds to a [`State`].
    pub(super) fn element(&self, tree: Tree, key: &[u8], value: &[u8]) -> Element {
        let length = u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes();
        let hash = self.mac(Purpose::Pair, &[&[tree.number()], &length, key, value]);
        Element { tree, hash: SetHash::from_bytes(&hash) }
    }
}

impl fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntegrityKey")
    }
}

/// A MAC of what has come so far.
pub(super) struct PartialMac(Hmac<Sha256>);

impl PartialMac {
    pub(super) fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    pub(super) fn finish(self) -> [u8; MAC_LENGTH] {
        self.0.finalize().into_bytes().into()
    }
}

/// Bytes of a MAC, and of a chain.
pub(super) const MAC_LENGTH: usize = 32;

/// A pair, as far as a [`State`] is concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Element {
    tree: Tree,
    hash: SetHash,
}

/// The sum of the elements of a set of pairs modulo 2^256, whatever their order. As it is, it may be
/// kept in memory only: from two sums someone with the disk could tell whether a state came back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct SetHash {
    /// The least significant first.
    limbs: [u64; 4],
}

impl SetHash {
    pub(super) const LENGTH: usize = 32;

    fn from_bytes(bytes: &[u8; Self::LENGTH]) -> Self {
        let mut limbs = [0; 4];
        for (limb, bytes) in limbs.iter_mut().zip(bytes.as_chunks::<8>().0.iter().rev()) {
            *limb = u64::from_be_bytes(*bytes);
        }
        Self { limbs }
    }

    fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        for (bytes, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.limbs.iter().rev()) {
            *bytes = limb.to_be_bytes();
        }
        bytes
    }

    fn plus(self, other: Self) -> Self {
        let mut carry = false;
        let limbs = array::from_fn(|at| {
            let (sum, first) = self.limbs[at].overflowing_add(other.limbs[at]);
            let (sum, second) = sum.overflowing_add(carry.into());
            carry = first || second;
            sum
        });
        Self { limbs }
    }

    fn minus(self, other: Self) -> Self {
        let mut borrow = false;
        let limbs = array::from_fn(|at| {
            let (difference, first) = self.limbs[at].overflowing_sub(other.limbs[at]);
            let (difference, second) = difference.overflowing_sub(borrow.into());
            borrow = first || second;
            difference
        });
        Self { limbs }
    }

    /// As it may be stored: the same sum never looks the same.
    fn masked(self, key: &IntegrityKey, salt: &Salt) -> [u8; Self::LENGTH] {
        self.plus(Self::mask(key, salt)).to_bytes()
    }

    fn unmasked(bytes: &[u8; Self::LENGTH], key: &IntegrityKey, salt: &Salt) -> Self {
        Self::from_bytes(bytes).minus(Self::mask(key, salt))
    }

    fn mask(key: &IntegrityKey, salt: &Salt) -> Self {
        Self::from_bytes(&key.mac(Purpose::Mask, &[salt]))
    }
}

/// Random, and new for each time a set hash is stored.
pub(super) type Salt = [u8; 16];

/// What a commit makes of the store: which one it is, and all pairs but the manifest. The empty
/// store, before the first commit, is the default.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct State {
    /// The commit's number; the first is 1.
    pub(super) number: u64,
    /// How many pairs there are in each of [`Tree::ALL`].
    pub(super) counts: [u64; Tree::ALL.len()],
    pub(super) set: SetHash,
}

impl State {
    /// Bytes of [`State::encode_pairs`].
    pub(super) const PAIRS_LENGTH: usize = 8 * Tree::ALL.len() + 16 + SetHash::LENGTH;

    /// Adds a pair whose key was not there. One that replaces another is removed and added.
    pub(super) fn add(&mut self, pair: Element) {
        let count = &mut self.counts[pair.tree as usize];
        *count = count.wrapping_add(1);
        self.set = self.set.plus(pair.hash);
    }

    /// Removes a pair that was there. One that was not makes a state that no store has.
    pub(super) fn remove(&mut self, pair: Element) {
        let count = &mut self.counts[pair.tree as usize];
        *count = count.wrapping_sub(1);
        self.set = self.set.minus(pair.hash);
    }

    /// Whether the pairs are the same, whatever the numbers.
    pub(super) fn has_pairs_of(&self, other: &Self) -> bool {
        self.counts == other.counts && self.set == other.set
    }

    /// Whether it is that of a store without a pair.
    pub(super) fn is_empty(&self) -> bool {
        self.has_pairs_of(&Self::default())
    }

    /// How many pairs there are in all trees.
    pub(super) fn pairs(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Appends `counts ‖ salt ‖ masked set`.
    pub(super) fn encode_pairs(&self, key: &IntegrityKey, salt: &Salt, buffer: &mut Vec<u8>) {
        for count in self.counts {
            buffer.extend_from_slice(&count.to_be_bytes());
        }
        buffer.extend_from_slice(salt);
        buffer.extend_from_slice(&self.set.masked(key, salt));
    }

    /// The state with this number and what [`State::encode_pairs`] wrote, which is authentic.
    pub(super) fn decode_pairs(
        number: u64,
        bytes: &[u8; Self::PAIRS_LENGTH],
        key: &IntegrityKey,
    ) -> Self {
        let mut fields = Fields(bytes);
        let counts = array::from_fn(|_| fields.u64());
        let salt = fields.take();
        Self { number, counts, set: SetHash::unmasked(&fields.take(), key, &salt) }
    }
}

/// A commit, as it is named where its pairs are of no interest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Position {
    pub(super) number: u64,
    /// The MAC of the journal's frame of this commit.
    pub(super) chain: [u8; MAC_LENGTH],
}

/// A state, bound to the journal's frame that led to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Manifest {
    pub(super) state: State,
    /// The MAC of the journal's frame of this commit, which the next frame's MAC takes in; random at
    /// the beginning of a journal.
    pub(super) chain: [u8; MAC_LENGTH],
    pub(super) store_version: u32,
}

/// Why bytes are no manifest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unreadable {
    /// A store of this version, which is newer than [`STORE_VERSION`].
    TooNew(u32),
    /// Not what was written with this key.
    Altered,
}

impl Manifest {
    pub(super) const LENGTH: usize = 4 + 1 + 4 + 8 + State::PAIRS_LENGTH + 2 * MAC_LENGTH;
    const MAGIC: &[u8; 4] = b"MVMF";
    const LAYOUT: u8 = 1;

    /// The manifest of an empty store, before its first commit.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the system has no random bytes.
    pub(super) fn of_empty_store() -> Result<Self, Error> {
        let state = State::default();
        Ok(Self { state, chain: random()?, store_version: STORE_VERSION })
    }

    /// Which commit it is the manifest of.
    pub(super) fn position(&self) -> Position {
        Position { number: self.state.number, chain: self.chain }
    }

    /// As it is stored, under a new salt.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the system has no random bytes.
    pub(super) fn encode(&self, key: &IntegrityKey) -> Result<Vec<u8>, Error> {
        Ok(self.encode_with_salt(key, &random()?))
    }

    pub(super) fn encode_with_salt(&self, key: &IntegrityKey, salt: &Salt) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LENGTH);
        bytes.extend_from_slice(Self::MAGIC);
        bytes.push(Self::LAYOUT);
        bytes.extend_from_slice(&self.store_version.to_be_bytes());
        bytes.extend_from_slice(&self.state.number.to_be_bytes());
        self.state.encode_pairs(key, salt, &mut bytes);
        bytes.extend_from_slice(&self.chain);
        let mac = key.mac(Purpose::Manifest, &[&bytes]);
        bytes.extend_from_slice(&mac);
        bytes
    }

    /// Reads what [`Manifest::encode`] wrote. The layout and the store's version, whose places never
    /// change, are read before anything is authenticated: of a newer layout nothing else is known.
    pub(super) fn decode(key: &IntegrityKey, bytes: &[u8]) -> Result<Self, Unreadable> {
        let head = bytes.first_chunk::<9>().ok_or(Unreadable::Altered)?;
        let mut fields = Fields(head);
        let (magic, [layout]) = (fields.take::<4>(), fields.take());
        let store_version = u32::from_be_bytes(fields.take());
        if magic != *Self::MAGIC {
            return Err(Unreadable::Altered);
        }
        if layout > Self::LAYOUT && store_version > STORE_VERSION {
            return Err(Unreadable::TooNew(store_version));
        }
        let bytes: &[u8; Self::LENGTH] = bytes.try_into().map_err(|_| Unreadable::Altered)?;
        let (content, mac) = bytes.split_at(Self::LENGTH - MAC_LENGTH);
        if layout != Self::LAYOUT || !key.is_mac(mac, Purpose::Manifest, &[content]) {
            return Err(Unreadable::Altered);
        }
        if store_version > STORE_VERSION {
            return Err(Unreadable::TooNew(store_version));
        }
        let mut fields = Fields(&content[head.len()..]);
        let number = fields.u64();
        let state = State::decode_pairs(number, &fields.take(), key);
        Ok(Self { state, chain: fields.take(), store_version })
    }
}

/// What is left of a message whose length was checked. Beyond its end there are zeros.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn take<const LENGTH: usize>(&mut self) -> [u8; LENGTH] {
        let Some((field, rest)) = self.0.split_first_chunk() else {
            self.0 = &[];
            return [0; LENGTH];
        };
        self.0 = rest;
        *field
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }
}

/// Random bytes of the operating system.
pub(super) fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], Error> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::io("get random bytes")(io::Error::other(error)))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{state_of, vector, vector_entries, vector_key};
    use super::*;

    const VECTOR: &str = include_str!("../../tests/vectors/manifest.txt");

    fn key() -> IntegrityKey {
        IntegrityKey::new(&[7; 32])
    }

    /// The manifest of the vector.
    fn golden() -> Manifest {
        let state = state_of(258, &vector_key(VECTOR), &vector_entries(VECTOR));
        let chain = vector(VECTOR, "chain").try_into().unwrap();
        Manifest { state, chain, store_version: STORE_VERSION }
    }

    #[test]
    fn the_golden_manifest_is_written_and_read_byte_for_byte() {
        let (key, manifest) = (vector_key(VECTOR), golden());
        assert_eq!(manifest.state.counts, [1, 2, 1]);
        assert_eq!(manifest.state.set.to_bytes(), *vector(VECTOR, "set"));
        let salt = vector(VECTOR, "salt").try_into().unwrap();
        let bytes = vector(VECTOR, "manifest");
        assert_eq!(manifest.encode_with_salt(&key, &salt), bytes);
        assert_eq!(bytes.len(), Manifest::LENGTH);
        assert_eq!(Manifest::decode(&key, &bytes), Ok(manifest));
    }

    #[test]
    fn every_flipped_bit_every_cut_and_another_key_is_noticed() {
        let (key, bytes) = (vector_key(VECTOR), vector(VECTOR, "manifest"));
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Manifest::decode(&key, &flipped), Err(Unreadable::Altered), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(Manifest::decode(&key, &bytes[..length]), Err(Unreadable::Altered));
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Manifest::decode(&key, &longer), Err(Unreadable::Altered));
        let other = IntegrityKey::new(&[8; 32]);
        assert_eq!(Manifest::decode(&other, &bytes), Err(Unreadable::Altered));
    }

    #[test]
    fn a_manifest_of_a_newer_store_is_refused_by_its_version() {
        let newer = Manifest { store_version: STORE_VERSION + 1, ..golden() };
        let mut bytes = newer.encode(&key()).unwrap();
        let too_new = Err(Unreadable::TooNew(STORE_VERSION + 1));
        assert_eq!(Manifest::decode(&key(), &bytes), too_new);
        // Of another layout, only layout and version are where they were.
        bytes[4] += 1;
        bytes[9..].fill(0xff);
        bytes.push(0xff);
        assert_eq!(Manifest::decode(&key(), &bytes), too_new);
        assert_eq!(Manifest::decode(&key(), &bytes[..9]), too_new);
        assert_eq!(Manifest::decode(&key(), &bytes[..8]), Err(Unreadable::Altered));
        // A store of this version has this layout.
        bytes[5..9].copy_from_slice(&STORE_VERSION.to_be_bytes());
        assert_eq!(Manifest::decode(&key(), &bytes), Err(Unreadable::Altered));
        let older = Manifest { store_version: 1, ..golden() };
        assert_eq!(Manifest::decode(&key(), &older.encode(&key()).unwrap()), Ok(older));
    }

    #[test]
    fn the_same_state_never_looks_the_same_twice() {
        let [one, other] = [(); 2].map(|()| golden().encode(&key()).unwrap());
        let shared = (0..one.len() - 8).filter(|at| one[*at..at + 8] == other[*at..at + 8]);
        let masked = 9 + 8 + 24..9 + 8 + 24 + 48;
        assert_eq!(shared.filter(|at| masked.contains(at)).count(), 0);
        assert_eq!(Manifest::decode(&key(), &one), Manifest::decode(&key(), &other));
        let [one, other] = [(); 2].map(|()| Manifest::of_empty_store().unwrap());
        assert_ne!(one.chain, other.chain);
        assert!(one.state.is_empty());
    }

    #[test]
    fn a_state_depends_on_the_pairs_and_not_on_how_they_came() {
        let key = key();
        let pairs = [
            key.element(Tree::Meta, b"a", b"1"),
            key.element(Tree::Tenant, b"a", b"1"),
            key.element(Tree::Tenant, b"a1", b""),
            key.element(Tree::Tenant, b"", b"a1"),
            key.element(Tree::Token, b"a", b"2"),
        ];
        let mut forwards = State::default();
        for pair in pairs {
            forwards.add(pair);
        }
        let mut backwards = State::default();
        let other = key.element(Tree::Meta, b"a", b"3");
        backwards.add(other);
        for pair in pairs.into_iter().rev() {
            backwards.add(pair);
        }
        assert!(!forwards.has_pairs_of(&backwards));
        backwards.remove(other);
        assert_eq!(forwards, backwards);
        assert_eq!((forwards.counts, forwards.pairs()), ([1, 3, 1], 5));
        for (at, pair) in pairs.iter().enumerate() {
            assert!(pairs[at + 1..].iter().all(|other| other.hash != pair.hash));
            backwards.remove(*pair);
        }
        assert_eq!(backwards, State::default());
        // One too many is not the empty store.
        backwards.remove(pairs[0]);
        assert!(!backwards.is_empty());
        backwards.add(pairs[0]);
        assert!(backwards.is_empty());
    }

    #[test]
    fn sums_carry_and_borrow_over_all_their_bits() {
        let number = |bytes: [u8; 32]| SetHash::from_bytes(&bytes);
        let mut one = [0; 32];
        one[31] = 1;
        let (zero, one, most) = (SetHash::default(), number(one), number([0xff; 32]));
        assert_eq!(most.plus(one), zero);
        assert_eq!(zero.minus(one), most);
        assert_eq!(most.plus(most).minus(most), most);
        let mut middle = [0; 32];
        middle[23] = 1;
        assert_eq!(number(middle).minus(one).plus(one), number(middle));
        assert_eq!(number(middle).to_bytes(), middle);
    }

    #[test]
    fn a_key_shows_nothing_of_itself() {
        assert_eq!(format!("{:?}", key()), "IntegrityKey");
    }
}
