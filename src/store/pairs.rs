//! The pairs of a store as one stream of bytes, which any engine can be filled from.
//!
//! ```text
//! magic ‖ layout ‖ entry ... ‖ 0 ‖ length ‖ manifest
//! entry = tree u8 ‖ key length u8 ‖ key ‖ value length u16 ‖ value
//!       | tree u8 ‖ key length u8 ‖ key ‖ 0xffff                     removed
//! ```
//!
//! A later entry of a key replaces an earlier one, so that a walk over a store that changes
//! meanwhile can be written as it comes, and the changes after it. What is read is as authentic as
//! the manifest at its end makes it, once that has been compared with the pairs: nothing else in the
//! stream is authenticated.

use std::io::{self, Read, Write};

use super::{Change, MAX_KEY, MAX_VALUE, Tree, fits};

const MAGIC: [u8; 4] = *b"MVPR";
const LAYOUT: u8 = 1;
/// In the place of a tree.
const END: u8 = 0;
/// In the place of a value's length.
const REMOVED: u16 = u16::MAX;
const MAX_MANIFEST: usize = 1 << 10;

const _: () = assert!(MAX_KEY <= u8::MAX as usize && MAX_VALUE < REMOVED as usize);

/// Writes pairs, each with a few small writes: give it a buffered writer.
#[derive(Debug)]
pub(crate) struct PairsWriter<W> {
    writer: W,
}

impl<W: Write> PairsWriter<W> {
    /// Begins the stream.
    pub(crate) fn new(mut writer: W) -> io::Result<Self> {
        writer.write_all(&MAGIC)?;
        writer.write_all(&[LAYOUT])?;
        Ok(Self { writer })
    }

    /// Writes that `key` has `value`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] when key or value is longer than a store takes.
    pub(crate) fn put(&mut self, tree: Tree, key: &[u8], value: &[u8]) -> io::Result<()> {
        write_entry(&mut self.writer, tree, key, Some(value))
    }

    /// Writes that `key` is not there, whatever was written before.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] when the key is longer than a store takes.
    pub(crate) fn remove(&mut self, tree: Tree, key: &[u8]) -> io::Result<()> {
        write_entry(&mut self.writer, tree, key, None)
    }

    /// Ends the stream with the manifest of these pairs, and gives the writer back, not flushed.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] when the manifest has more than 1 KiB.
    pub(crate) fn finish(mut self, manifest: &[u8]) -> io::Result<W> {
        if manifest.len() > MAX_MANIFEST {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let length = u16::try_from(manifest.len()).map_err(io::Error::other)?;
        self.writer.write_all(&[END])?;
        self.writer.write_all(&length.to_be_bytes())?;
        self.writer.write_all(manifest)?;
        Ok(self.writer)
    }
}

/// Writes one entry, as it is also in a frame of the journal.
pub(super) fn write_entry(
    writer: &mut impl Write,
    tree: Tree,
    key: &[u8],
    value: Option<&[u8]>,
) -> io::Result<()> {
    let too_large = || io::Error::from(io::ErrorKind::InvalidInput);
    if !fits(key, value) {
        return Err(too_large());
    }
    writer.write_all(&[tree.number(), u8::try_from(key.len()).map_err(|_| too_large())?])?;
    writer.write_all(key)?;
    let Some(value) = value else { return writer.write_all(&REMOVED.to_be_bytes()) };
    let length = u16::try_from(value.len()).map_err(|_| too_large())?;
    writer.write_all(&length.to_be_bytes())?;
    writer.write_all(value)
}

/// A key, and what it has from here on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    pub(crate) tree: Tree,
    pub(crate) key: Vec<u8>,
    /// `None` was removed.
    pub(crate) value: Option<Vec<u8>>,
}

impl Entry {
    pub(super) fn change(&self) -> Change<'_> {
        (self.tree, &self.key, self.value.as_deref())
    }
}

/// Reads what a [`PairsWriter`] wrote, and not one byte more. It reads a few bytes at a time: give it
/// a buffered reader.
#[derive(Debug)]
pub(crate) struct PairsReader<R> {
    reader: R,
    manifest: Option<Vec<u8>>,
}

/// Why pairs cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnreadablePairs {
    /// The bytes are not what was written, or there is no end.
    #[error("{0}")]
    Damaged(&'static str),
    /// A newer version of this program wrote them.
    #[error("the layout of its pairs is version {found}, and this program knows up to {LAYOUT}")]
    TooNew {
        /// Its version.
        found: u8,
    },
    /// The operating system refused.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
}

impl<R: Read> PairsReader<R> {
    /// Begins to read the stream.
    pub(crate) fn new(mut reader: R) -> Result<Self, UnreadablePairs> {
        let magic: [u8; 4] = take(&mut reader)?;
        if magic != MAGIC {
            return Err(UnreadablePairs::Damaged("it does not begin as pairs do"));
        }
        match take(&mut reader)? {
            [LAYOUT] => Ok(Self { reader, manifest: None }),
            [found] if found > LAYOUT => Err(UnreadablePairs::TooNew { found }),
            [_] => Err(UnreadablePairs::Damaged("it does not begin as pairs do")),
        }
    }

    /// The next entry; none at the end, and after it. Once it failed, what it gives is meaningless.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, UnreadablePairs> {
        if self.manifest.is_some() {
            return Ok(None);
        }
        let entry = read_entry(&mut self.reader)?;
        if entry.is_none() {
            let length = usize::from(u16::from_be_bytes(take(&mut self.reader)?));
            if length > MAX_MANIFEST {
                return Err(UnreadablePairs::Damaged("its manifest is longer than one can be"));
            }
            self.manifest = Some(take_vec(&mut self.reader, length)?);
        }
        Ok(entry)
    }

    /// The manifest, once [`PairsReader::next`] has come to the end.
    pub(crate) fn manifest(&self) -> Option<&[u8]> {
        self.manifest.as_deref()
    }

    /// The reader, which stands behind what was read.
    #[cfg(fuzzing)]
    pub(super) fn into_inner(self) -> R {
        self.reader
    }
}

/// Reads one entry; none where there is an end mark instead.
pub(super) fn read_entry(reader: &mut impl Read) -> Result<Option<Entry>, UnreadablePairs> {
    let [tree] = take(reader)?;
    if tree == END {
        return Ok(None);
    }
    let tree = Tree::from_number(tree).ok_or(UnreadablePairs::Damaged("it names no tree"))?;
    let [length] = take(reader)?;
    if usize::from(length) > MAX_KEY {
        return Err(UnreadablePairs::Damaged("a key is longer than one can be"));
    }
    let key = take_vec(reader, length.into())?;
    let length = u16::from_be_bytes(take(reader)?);
    if length == REMOVED {
        return Ok(Some(Entry { tree, key, value: None }));
    }
    if usize::from(length) > MAX_VALUE {
        return Err(UnreadablePairs::Damaged("a value is longer than one can be"));
    }
    let value = take_vec(reader, length.into())?;
    Ok(Some(Entry { tree, key, value: Some(value) }))
}

fn take<const LENGTH: usize>(reader: &mut impl Read) -> Result<[u8; LENGTH], UnreadablePairs> {
    let mut bytes = [0; LENGTH];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// `length` was checked: what is allocated before it is read is small.
fn take_vec(reader: &mut impl Read, length: usize) -> Result<Vec<u8>, UnreadablePairs> {
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

impl From<io::Error> for UnreadablePairs {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Damaged("it ends too early")
        } else {
            Self::Io(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::tests::{vector, vector_entries};
    use super::*;

    const VECTOR: &str = include_str!("../../tests/vectors/pairs.txt");

    fn written(entries: &[Entry], manifest: &[u8]) -> Vec<u8> {
        let mut writer = PairsWriter::new(Vec::new()).unwrap();
        for Entry { tree, key, value } in entries {
            match value {
                Some(value) => writer.put(*tree, key, value).unwrap(),
                None => writer.remove(*tree, key).unwrap(),
            }
        }
        writer.finish(manifest).unwrap()
    }

    /// Every entry, the manifest, and what is behind them.
    type Read<'a> = (Vec<Entry>, Vec<u8>, &'a [u8]);

    fn read(bytes: &[u8]) -> Result<Read<'_>, UnreadablePairs> {
        let mut reader = PairsReader::new(bytes)?;
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            assert_eq!(reader.manifest(), None);
            entries.push(entry);
        }
        assert!(reader.next()?.is_none());
        let manifest = reader.manifest().unwrap().to_vec();
        Ok((entries, manifest, reader.reader))
    }

    fn is_damaged<T>(result: &Result<T, UnreadablePairs>) -> bool {
        matches!(result, Err(UnreadablePairs::Damaged(_)))
    }

    #[test]
    fn the_golden_pairs_are_read_and_written_byte_for_byte() {
        let manifest = vector(VECTOR, "manifest");
        for name in ["pairs", "base"] {
            let bytes = vector(VECTOR, name);
            let (entries, read_manifest, rest) = read(&bytes).unwrap();
            assert_eq!((&read_manifest, rest), (&manifest, &[][..]));
            assert_eq!(written(&entries, &manifest), bytes);
            let mut pairs = BTreeMap::new();
            for Entry { tree, key, value } in entries {
                pairs.insert((tree, key), value);
            }
            pairs.retain(|_, value| value.is_some());
            let pairs = pairs.into_iter();
            let pairs: Vec<_> =
                pairs.map(|((tree, key), value)| Entry { tree, key, value }).collect();
            assert_eq!(pairs, vector_entries(VECTOR));
        }
    }

    #[test]
    fn a_stream_without_its_end_is_refused_wherever_it_is_cut() {
        let bytes = vector(VECTOR, "pairs");
        for length in 0..bytes.len() {
            assert!(is_damaged(&read(&bytes[..length])), "{length}");
        }
        // What follows belongs to whoever wrote it.
        let longer = [&bytes[..], b"trailer"].concat();
        assert_eq!(read(&longer).unwrap().2, b"trailer");
    }

    #[test]
    fn what_no_writer_writes_is_refused() {
        let (key, value) = (vec![1; MAX_KEY], vec![2; MAX_VALUE]);
        let longest = [Entry { tree: Tree::Token, key, value: Some(value) }];
        let bytes = written(&longest, &[3; MAX_MANIFEST]);
        assert_eq!(read(&bytes).unwrap().0, longest);
        let value_length = 5 + 2 + MAX_KEY;
        let manifest_length = value_length + 2 + MAX_VALUE + 1;
        // The magic, a tree, the longest key, the longest value, the longest manifest.
        for (at, byte) in [(0, 1), (5, 4), (6, 65), (value_length, 0x15), (manifest_length, 5)] {
            let mut altered = bytes.clone();
            altered[at] = byte;
            altered.resize(1 << 17, 0);
            assert!(is_damaged(&read(&altered)), "{at}");
        }
        for (layout, is_newer) in [(0, false), (2, true), (255, true)] {
            let mut altered = bytes.clone();
            altered[4] = layout;
            let too_new =
                matches!(read(&altered), Err(UnreadablePairs::TooNew { found }) if found == layout);
            assert_eq!((too_new, read(&altered).is_err()), (is_newer, true));
        }
    }

    #[test]
    fn what_no_store_takes_is_not_written() {
        let mut writer = PairsWriter::new(Vec::new()).unwrap();
        writer.put(Tree::Meta, &[0; MAX_KEY], &[0; MAX_VALUE]).unwrap();
        writer.remove(Tree::Meta, &[0; MAX_KEY]).unwrap();
        assert!(writer.put(Tree::Meta, &[0; MAX_KEY + 1], &[]).is_err());
        assert!(writer.put(Tree::Meta, &[], &[0; MAX_VALUE + 1]).is_err());
        assert!(writer.remove(Tree::Meta, &[0; MAX_KEY + 1]).is_err());
        let entries = 5 + 2 * (2 + MAX_KEY + 2) + MAX_VALUE;
        assert_eq!(writer.finish(&[]).unwrap().len(), entries + 3);
        let writer = PairsWriter::new(Vec::new()).unwrap();
        assert!(writer.finish(&[0; MAX_MANIFEST + 1]).is_err());
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let tree = prop::sample::select(Tree::ALL.to_vec());
        let key = prop::collection::vec(any::<u8>(), 0..=MAX_KEY);
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..600));
        (tree, key, value).prop_map(|(tree, key, value)| Entry { tree, key, value })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            entries in prop::collection::vec(entry(), 0..20),
            manifest in prop::collection::vec(any::<u8>(), 0..MAX_MANIFEST),
        ) {
            let bytes = written(&entries, &manifest);
            prop_assert_eq!(read(&bytes).unwrap(), (entries, manifest, &[][..]));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(read(&bytes));
            bytes.splice(..0, [&MAGIC[..], &[LAYOUT]].concat());
            drop(read(&bytes));
        }
    }
}
