//! Tenants on their way in, which wait until all of them have come.
//!
//! ```text
//! text --seal under a key that only this value has--> file without a name --open, in any order--> text
//! ```
//!
//! An import reads its tenants in the store's order, not in that in which they come. Protects against:
//! credentials in clear text on the disk; a file that is not read back as it was written. The key is
//! gone when this is dropped, or with the process, and nobody opens what is left in free blocks.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::key::{Key, Seal};
use super::{Error, TenantCredentialVault};
use crate::store::{self, DataDir};

const PLACE: &[u8] = b"tenantry.import.v1";
/// How often it is looked whether there is room on the disk, in bytes.
const LOOK: u64 = 1 << 20;

/// Texts in a file, sealed; a dozen bytes of memory for each.
pub struct Spool {
    file: File,
    directory: Arc<DataDir>,
    key: Key,
    /// Where each begins, and how long it is.
    places: Vec<(u64, usize)>,
    length: u64,
    /// What was written when there was room last.
    looked: Option<u64>,
}

impl TenantCredentialVault {
    /// Where tenants wait that are to be imported, in a file of the data directory.
    ///
    /// # Errors
    ///
    /// [`Error::Store`], [`Error::Random`].
    pub fn spool(&self) -> Result<Spool, Error> {
        Spool::create(Arc::clone(&self.directory))
    }
}

impl Spool {
    /// An empty one, whose file is in `directory`.
    fn create(directory: Arc<DataDir>) -> Result<Self, Error> {
        let file = directory.nameless_file()?;
        let key = Key::random()?;
        Ok(Self { file, directory, key, places: Vec::new(), length: 0, looked: None })
    }

    /// Adds `text`, which is wiped. Its place is the number of those before it.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when there is no room, or writing fails.
    pub fn push(&mut self, text: &mut Zeroizing<Vec<u8>>) -> Result<(), Error> {
        if self.looked.is_none_or(|looked| self.length >= looked + LOOK) {
            self.directory.admit(LOOK + text.len() as u64)?;
            self.looked = Some(self.length);
        }
        let salt = (self.places.len() as u64).to_le_bytes();
        let length = text.len();
        let Seal { commitment, tag } = self.key.seal(&salt, PLACE, text);
        text.extend_from_slice(&commitment);
        text.extend_from_slice(&tag);
        let action = store::Error::io("write what is to be imported");
        self.file.write_all_at(text, self.length).map_err(action)?;
        self.places.push((self.length, length));
        self.length += text.len() as u64;
        Ok(())
    }

    /// The text at place `at`.
    ///
    /// # Errors
    ///
    /// [`Error::Store`], also when it is not what was written; there is no such place.
    pub fn read(&self, at: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
        let failed = || store::Error::io("read back what is to be imported");
        let altered = || failed()(std::io::ErrorKind::InvalidData.into());
        let (offset, length) = *self.places.get(at).ok_or_else(altered)?;
        let sealed = length + Seal::COMMITMENT_LENGTH + Seal::TAG_LENGTH;
        let mut text = Zeroizing::new(vec![0; sealed]);
        self.file.read_exact_at(&mut text, offset).map_err(failed())?;
        let (message, rest) = text.split_at_mut(length);
        let (commitment, tag) = rest.split_at(Seal::COMMITMENT_LENGTH);
        let (Ok(commitment), Ok(tag)) = (commitment.try_into(), tag.try_into()) else {
            return Err(altered().into());
        };
        let salt = (at as u64).to_le_bytes();
        let opened = self.key.open(&salt, PLACE, message, &Seal { commitment, tag });
        opened.map_err(|_| altered())?;
        text.truncate(length);
        Ok(text)
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spool({} texts)", self.places.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> (tempfile::TempDir, Spool) {
        let parent = tempfile::tempdir().unwrap();
        let directory = Arc::new(DataDir::create(parent.path().join("data")).unwrap());
        let spool = Spool::create(directory).unwrap();
        (parent, spool)
    }

    #[test]
    fn what_waits_comes_back_in_any_order_and_lies_nowhere_in_clear_text() {
        let (_parent, mut spool) = spool();
        let texts: Vec<String> =
            (0..50).map(|number| format!("canary-{number}").repeat(9)).collect();
        for text in &texts {
            spool.push(&mut Zeroizing::new(text.clone().into_bytes())).unwrap();
        }
        for (at, text) in texts.iter().enumerate().rev() {
            assert_eq!(spool.read(at).unwrap().as_slice(), text.as_bytes());
        }
        spool.read(50).unwrap_err();
        let mut stored = vec![0; usize::try_from(spool.length).unwrap()];
        spool.file.read_exact_at(&mut stored, 0).unwrap();
        assert!(!String::from_utf8_lossy(&stored).contains("canary"));
    }

    #[test]
    fn what_was_altered_on_the_disk_or_is_anothers_is_not_read() {
        let (_parent, mut spool) = spool();
        spool.push(&mut Zeroizing::new(b"first".to_vec())).unwrap();
        spool.push(&mut Zeroizing::new(b"other".to_vec())).unwrap();
        spool.places.swap(0, 1);
        spool.read(0).unwrap_err();
        spool.places.swap(0, 1);
        spool.read(0).unwrap();
        spool.file.write_all_at(b"x", 0).unwrap();
        spool.read(0).unwrap_err();
        spool.read(1).unwrap();
    }
}
