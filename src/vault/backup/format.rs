//! The file of a backup: what is where in it, and the MAC over all of it.
//!
//! ```text
//! head ‖ pairs ‖ keyring ‖ certificates ‖ trailer ‖ MAC
//! ```
//!
//! What is known last stands last, so it is written in one pass. The trailer has the lengths of the
//! parts; until the MAC has been compared, nothing in the file is more than a claim.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use jiff::Timestamp;
use sha2::Sha256;

use super::{BackupId, BackupPart};
use crate::store;
use crate::vault::codec::{Malformed, Reader, Writer};
use crate::vault::key::Key;
use crate::vault::{Error, StoreId, header, keyring};

const MAGIC: &[u8; 4] = b"MVBK";
const VERSION: u8 = 1;
/// Magic, version, store id, backup id, length of the header.
const HEAD_LENGTH: usize = 4 + 1 + 16 + 16 + 4;
/// Time, commit, records, lengths of pairs, keyring and certificates.
const TRAILER_LENGTH: usize = 12 + 5 * 8;
const MAC_LENGTH: usize = 32;
const MAC_LABEL: &str = "mcpv.backup.v1";
/// What is read, written and authenticated at a time.
const BUFFER: usize = 256 << 10;
/// More than the name and the text of a certificate have.
const MAX_CERTIFICATE: usize = 64 << 10;

/// The beginning of a backup, which says what opens it.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) store_id: StoreId,
    pub(super) id: BackupId,
    /// Of the vault that it becomes when it is restored.
    pub(super) header: Vec<u8>,
}

/// The end of a backup.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trailer {
    /// When the commit was the newest.
    pub(super) time: Timestamp,
    pub(super) commit: u64,
    pub(super) records: u64,
    pub(super) pairs_length: u64,
    pub(super) keyring_length: u64,
    pub(super) certificates_length: u64,
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(HEAD_LENGTH + self.header.len());
        writer.raw(MAGIC);
        writer.u8(VERSION);
        writer.raw(&self.store_id.0);
        writer.raw(&self.id.0);
        writer.count(self.header.len());
        writer.raw(&self.header);
        writer.finish()
    }
}

impl Trailer {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(TRAILER_LENGTH);
        writer.time(self.time);
        writer.u64(self.commit);
        writer.u64(self.records);
        writer.u64(self.pairs_length);
        writer.u64(self.keyring_length);
        writer.u64(self.certificates_length);
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let trailer = Self {
            time: reader.time()?,
            commit: reader.u64()?,
            records: reader.u64()?,
            pairs_length: reader.u64()?,
            keyring_length: reader.u64()?,
            certificates_length: reader.u64()?,
        };
        reader.finish()?;
        Ok(trailer)
    }
}

/// A backup that is being written.
pub(super) struct BackupWriter(BufWriter<Authenticating>);

/// Authenticates what passes on its way to the disk.
struct Authenticating {
    file: File,
    mac: Hmac<Sha256>,
    written: u64,
}

impl Write for Authenticating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.mac.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Write for BackupWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl BackupWriter {
    /// Begins a backup in `file`, which is empty; `key` is what its header wraps.
    pub(super) fn begin(file: File, key: &Key, head: &Head) -> io::Result<Self> {
        let file = Authenticating { file, mac: key.derive(MAC_LABEL).begin_mac(), written: 0 };
        let mut writer = Self(BufWriter::with_capacity(BUFFER, file));
        writer.write_all(&head.encode())?;
        Ok(writer)
    }

    /// How many bytes have been written.
    pub(super) fn position(&self) -> u64 {
        self.0.get_ref().written + self.0.buffer().len() as u64
    }

    /// Writes a certificate.
    pub(super) fn certificate(&mut self, name: &str, text: &str) -> io::Result<()> {
        let mut writer = Writer::default();
        writer.text(name);
        writer.text(text);
        self.write_all(&writer.finish())
    }

    /// Ends the backup, and waits until it is on the disk. Answers its length.
    pub(super) fn finish(mut self, trailer: &Trailer) -> io::Result<u64> {
        self.write_all(&trailer.encode())?;
        let file = self.0.into_inner().map_err(io::IntoInnerError::into_error)?;
        let Authenticating { mut file, mac, written } = file;
        file.write_all(&mac.finalize().into_bytes())?;
        file.sync_all()?;
        Ok(written + MAC_LENGTH as u64)
    }
}

/// A backup that is being read: its parts fit together, and nothing of it is authenticated.
#[derive(Debug)]
pub(super) struct BackupFile {
    path: PathBuf,
    file: File,
    pub(super) length: u64,
    pub(super) head: Head,
    pub(super) trailer: Trailer,
}

impl BackupFile {
    /// Opens the backup at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::BackupDamaged`] also for what is no backup; [`Error::UnsupportedVersion`].
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| reading(path, source);
        let mut file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let damaged = |reason: &str| damaged(path, BackupPart::Head, reason);
        if !metadata.is_file() {
            return Err(damaged("it is no file"));
        }
        let length = metadata.len();
        let mut head = [0; HEAD_LENGTH];
        let short = |error: io::Error| {
            let is_short = error.kind() == io::ErrorKind::UnexpectedEof;
            if is_short { damaged("it is cut short") } else { reading(path, error) }
        };
        file.read_exact(&mut head).map_err(short)?;
        let mut reader = Reader::new(&head);
        let mut read = || {
            let magic: [u8; 4] = reader.array()?;
            let version = reader.u8()?;
            let (store_id, id) = (StoreId(reader.array()?), BackupId(reader.array()?));
            Ok((magic, version, store_id, id, reader.u32()?))
        };
        let (magic, version, store_id, id, header_length) =
            read().map_err(|Malformed| damaged("it is cut short"))?;
        if magic != *MAGIC {
            return Err(damaged("it does not begin as a backup does"));
        }
        match version {
            VERSION => {}
            newer if newer > VERSION => return Err(Error::UnsupportedVersion("backup")),
            _ => return Err(damaged("it does not begin as a backup does")),
        }
        if u64::from(header_length) > header::MAX_LENGTH.min(length) {
            return Err(damaged("its header is larger than it can be"));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).map_err(short)?;
        let head = Head { store_id, id, header };

        let end = (TRAILER_LENGTH + MAC_LENGTH) as u64;
        let least = (HEAD_LENGTH + head.header.len()) as u64 + end;
        if length < least {
            return Err(damaged("it is cut short"));
        }
        let mut trailer = [0; TRAILER_LENGTH];
        file.read_exact_at(&mut trailer, length - end).map_err(short)?;
        let trailer = Trailer::decode(&trailer)
            .map_err(|Malformed| damaged("its end is not what was written, or missing"))?;
        let parts = trailer
            .pairs_length
            .checked_add(trailer.keyring_length)
            .and_then(|parts| parts.checked_add(trailer.certificates_length));
        if parts.and_then(|parts| parts.checked_add(least)) != Some(length)
            || trailer.keyring_length > keyring::MAX_LENGTH
        {
            return Err(damaged("its end is not what was written, or missing"));
        }
        Ok(Self { path: path.to_owned(), file, length, head, trailer })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The keyring file in it.
    pub(super) fn keyring(&self) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(self.trailer.keyring_length).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        let at = self.pairs().end;
        self.file.read_exact_at(&mut bytes, at).map_err(|error| reading(&self.path, error))?;
        Ok(bytes)
    }

    /// Compares the MAC over all of it: it is what was written. `is_read` is told how many bytes were
    /// read, and answers whether to go on.
    pub(super) fn authenticate(
        &self,
        key: &Key,
        is_read: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), Error> {
        let mut body = self.body(key)?;
        let mut left = self.length - (TRAILER_LENGTH + MAC_LENGTH) as u64 - self.pairs().start;
        let mut buffer = vec![0; BUFFER];
        while left > 0 {
            let most = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            body.read(&mut buffer[..most])?;
            left -= most as u64;
            if !is_read(most as u64) {
                return Err(Error::BackupInterrupted);
            }
        }
        body.finish()
    }

    /// Begins to read it from its beginning; `key` is what its header wraps.
    pub(super) fn body(&self, key: &Key) -> Result<Body<'_>, Error> {
        let mut mac = key.derive(MAC_LABEL).begin_mac();
        mac.update(&self.head.encode());
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.pairs().start))
            .map_err(|error| reading(&self.path, error))?;
        Ok(Body { backup: self, mac })
    }

    /// Where its pairs are.
    fn pairs(&self) -> Range<u64> {
        let start = (HEAD_LENGTH + self.head.header.len()) as u64;
        start..start + self.trailer.pairs_length
    }

    /// The error of a part that is not what was written.
    pub(super) fn damaged(&self, part: BackupPart, reason: impl Into<String>) -> Error {
        damaged(&self.path, part, reason)
    }
}

/// The rest of a backup, each part once and in order.
pub(super) struct Body<'a> {
    backup: &'a BackupFile,
    mac: Hmac<Sha256>,
}

/// One part of a backup, authenticated as it is read.
struct Part<'a> {
    file: &'a File,
    mac: &'a mut Hmac<Sha256>,
    left: u64,
    is_read: &'a mut dyn FnMut(u64) -> bool,
    /// Whether that has answered no.
    is_stopped: bool,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.file.read(&mut buffer[..most])?;
        self.mac.update(&buffer[..read]);
        self.left -= read as u64;
        self.is_stopped |= !(self.is_read)(read as u64);
        if self.is_stopped { Err(io::Error::other("interrupted")) } else { Ok(read) }
    }
}

impl Body<'_> {
    /// Lets `read` read the pairs, all of them. `is_read` is told how many bytes were read, and
    /// answers whether to go on.
    pub(super) fn pairs<T>(
        &mut self,
        is_read: &mut dyn FnMut(u64) -> bool,
        read: impl FnOnce(&mut dyn Read) -> Result<T, store::Error>,
    ) -> Result<T, Error> {
        let backup = self.backup;
        let damaged = |reason: String| backup.damaged(BackupPart::Records, reason);
        let left = backup.trailer.pairs_length;
        let (file, mac) = (&backup.file, &mut self.mac);
        let part = Part { file, mac, left, is_read, is_stopped: false };
        let mut reader = BufReader::with_capacity(BUFFER, part);
        let read = read(&mut reader);
        if reader.get_ref().is_stopped {
            return Err(Error::BackupInterrupted);
        }
        let value = read.map_err(|error| {
            if let store::Error::Damaged { reason, .. } = error {
                damaged(reason)
            } else if matches!(error, store::Error::TooLarge) {
                damaged("a record is larger than one can be".to_owned())
            } else {
                error.into()
            }
        })?;
        let is_end = reader.buffer().is_empty() && reader.get_ref().left == 0;
        if is_end { Ok(value) } else { Err(damaged("something follows them".to_owned())) }
    }

    /// The keyring file; `expected` is what was read of it before.
    pub(super) fn keyring(&mut self, expected: &[u8]) -> Result<(), Error> {
        let bytes = self.part(self.backup.trailer.keyring_length)?;
        let is_same = bytes == expected;
        let changed = || self.backup.damaged(BackupPart::Keyring, "it changed while it was read");
        if is_same { Ok(()) } else { Err(changed()) }
    }

    /// Names and texts of the certificates, one after the other.
    pub(super) fn certificates(
        &mut self,
        mut each: impl FnMut(&str, &str) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        let backup = self.backup;
        let malformed =
            || backup.damaged(BackupPart::Certificates, "they are not what was written");
        let mut left = backup.trailer.certificates_length;
        let mut count = 0;
        let mut text = |left: &mut u64, most: usize| -> Result<String, Error> {
            let length = self.part(4)?;
            let length = <[u8; 4]>::try_from(length).map_or(0, u32::from_be_bytes);
            let whole = u64::from(length) + 4;
            if length as usize > most || whole > *left {
                return Err(malformed());
            }
            *left -= whole;
            String::from_utf8(self.part(length.into())?).map_err(|_| malformed())
        };
        while left > 0 {
            if left < 8 {
                return Err(malformed());
            }
            let name = text(&mut left, CERTIFICATE_NAME)?;
            if left < 4 || !is_certificate_name(&name) {
                return Err(malformed());
            }
            let content = text(&mut left, MAX_CERTIFICATE)?;
            each(&name, &content)?;
            count += 1;
        }
        Ok(count)
    }

    /// Compares the MAC. All of the file is what was written.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        let backup = self.backup;
        self.mac.update(&backup.trailer.encode());
        let mut mac = [0; MAC_LENGTH];
        let at = backup.length - MAC_LENGTH as u64;
        backup.file.read_exact_at(&mut mac, at).map_err(|error| reading(&backup.path, error))?;
        let altered = |_| backup.damaged(BackupPart::Seal, "the MAC over all of it is another");
        self.mac.verify_slice(&mac).map_err(altered)
    }

    /// The next `length` bytes, which the trailer's lengths have shown to be there.
    fn part(&mut self, length: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        let mut file = &self.backup.file;
        file.read_exact(bytes).map_err(|error| reading(&self.backup.path, error))?;
        self.mac.update(bytes);
        Ok(())
    }
}

/// Hexadecimal digits of a handle.
const CERTIFICATE_NAME: usize = 32;

/// Whether `name` is one that certificates have.
pub(super) fn is_certificate_name(name: &str) -> bool {
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    name.len() == CERTIFICATE_NAME && name.bytes().all(is_digit)
}

/// Whether a text is short enough to be a certificate's.
pub(super) fn is_certificate_length(length: u64) -> bool {
    length <= MAX_CERTIFICATE as u64
}

fn reading(path: &Path, source: io::Error) -> Error {
    store::Error::Io { action: format!("read {}", path.display()), source }.into()
}

pub(super) fn damaged(path: &Path, part: BackupPart, reason: impl Into<String>) -> Error {
    Error::BackupDamaged { path: path.display().to_string(), part, reason: reason.into() }
}
