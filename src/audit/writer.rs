//! The thread that owns the newest segment.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Entry, Error, reader};

/// Size at which a new segment is begun.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Most entries that share one fdatasync.
const MAX_BATCH: usize = 1_024;

/// How often a log that could not be written is tried.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Room for a few entries.
const PROBE_BYTES: usize = 4_096;

type Request = (Box<Entry>, oneshot::Sender<Result<(), Error>>);

#[derive(Debug)]
pub(super) struct Writer {
    /// Unbounded, but each call in flight has at most one entry in it and waits for its answer.
    queue: Option<mpsc::Sender<Request>>,
    health: Arc<Health>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Health {
    failing: AtomicBool,
    /// Set by tests: the next write fails as on a full disk.
    fail_next: AtomicBool,
}

impl Writer {
    pub(super) fn open(directory: &Path) -> Result<Self, Error> {
        let segments = Segments::open(directory)?;
        let (queue, requests) = mpsc::channel();
        let health = Arc::new(Health::default());
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn({
                let health = Arc::clone(&health);
                move || run(segments, &requests, &health)
            })
            .map_err(Error::io("opened"))?;
        Ok(Self { queue: Some(queue), health, thread: Some(thread) })
    }

    pub(super) fn append(&self, entry: Box<Entry>, answer: oneshot::Sender<Result<(), Error>>) {
        // A refused send drops `answer`, which the waiting side takes for a failure.
        if let Some(queue) = &self.queue
            && queue.send((entry, answer)).is_err()
        {
            self.health.failing.store(true, Ordering::Release);
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        !self.health.failing.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(super) fn fail_next_write(&self) {
        self.health.fail_next.store(true, Ordering::Release);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the audit writer panicked");
        }
    }
}

fn run(mut segments: Segments, requests: &mpsc::Receiver<Request>, health: &Health) {
    loop {
        let failing = health.failing.load(Ordering::Acquire);
        // While nothing can be written there may be no requests either: whoever asks whether the
        // service is ready sends none until it is. So the log finds out by itself.
        let first =
            match requests.recv_timeout(if failing { PROBE_INTERVAL } else { Duration::MAX }) {
                Ok(first) => first,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if segments.probe().is_ok() {
                        health.failing.store(false, Ordering::Release);
                        tracing::info!("the audit log can be written again");
                    }
                    continue;
                }
            };
        let mut batch = vec![first];
        batch.extend(requests.try_iter().take(MAX_BATCH - 1));
        let fail = health.fail_next.swap(false, Ordering::AcqRel);
        let written = segments.append(batch.iter_mut().map(|(entry, _)| &mut **entry), fail);
        let was_failing = health.failing.swap(written.is_err(), Ordering::AcqRel);
        match &written {
            Err(error) if !was_failing => tracing::error!(%error, "audit entries are being lost"),
            Ok(()) if was_failing => tracing::info!("the audit log can be written again"),
            _ => {}
        }
        for (_, answer) in batch {
            let result = match &written {
                Ok(()) => Ok(()),
                Err(error) => Err(Error::Io { doing: "written", kind: error.kind() }),
            };
            // Nobody waits for an abandoned attempt.
            drop(answer.send(result));
        }
    }
}

struct Segments {
    directory: PathBuf,
    file: File,
    /// Bytes of the segment that are known to be whole entries on disk.
    length: u64,
    next_seq: u64,
    lost: u64,
}

impl Segments {
    fn open(directory: &Path) -> Result<Self, Error> {
        let opened = Error::io("opened");
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(opened(error));
            }
            _ => {}
        }
        let newest = reader::segments(directory)?.pop();
        let (file, length, next_seq) = match newest {
            None => (create(directory, 1).map_err(&opened)?, 0, 1),
            Some((first_seq, path)) => {
                let file =
                    OpenOptions::new().read(true).write(true).open(&path).map_err(&opened)?;
                let (length, next_seq) = whole_entries(&file, first_seq)?;
                file.set_len(length).and_then(|()| file.sync_all()).map_err(&opened)?;
                (file, length, next_seq)
            }
        };
        Ok(Self { directory: directory.to_owned(), file, length, next_seq, lost: 0 })
    }

    /// Whether an entry could be written now. Leaves at most a torn line, which opening cuts off.
    fn probe(&mut self) -> std::io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(&[b' '; PROBE_BYTES])?;
        self.file.sync_data()?;
        self.file.set_len(self.length)
    }

    /// Writes `batch` and makes it durable, or leaves the log as it was.
    fn append<'a>(
        &mut self,
        batch: impl ExactSizeIterator<Item = &'a mut Entry>,
        fail: bool,
    ) -> std::io::Result<()> {
        let count = batch.len() as u64;
        let written = self.try_append(batch, fail);
        match written {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += count,
        }
        written
    }

    fn try_append<'a>(
        &mut self,
        batch: impl Iterator<Item = &'a mut Entry>,
        fail: bool,
    ) -> std::io::Result<()> {
        let mut lines = Vec::new();
        let mut seq = self.next_seq;
        for entry in batch {
            entry.seq = seq;
            entry.lost_before = (seq == self.next_seq && self.lost > 0).then_some(self.lost);
            seq += 1;
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        if self.length >= SEGMENT_BYTES {
            self.file = create(&self.directory, self.next_seq)?;
            self.length = 0;
        }
        // Also steps over what a failed write may have left.
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        if fail {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.file.write_all(&lines)?;
        self.file.sync_data()?;
        self.length += lines.len() as u64;
        self.next_seq = seq;
        Ok(())
    }
}

fn create(directory: &Path, first_seq: u64) -> std::io::Result<File> {
    let path = directory.join(format!("{first_seq:020}.{}", reader::EXTENSION));
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.sync_all()?;
    File::open(directory)?.sync_all()?;
    Ok(file)
}

/// How many bytes of `file` are whole entries, and the number of the one that comes next.
fn whole_entries(file: &File, first_seq: u64) -> Result<(u64, u64), Error> {
    let mut lines = BufReader::new(file);
    let (mut length, mut next_seq, mut line) = (0, first_seq, Vec::new());
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line).map_err(Error::io("read"))?;
        if line.last() != Some(&b'\n') {
            return Ok((length, next_seq));
        }
        let entry: Option<Entry> = serde_json::from_slice(&line).ok();
        if entry.is_none_or(|entry| entry.seq != next_seq) {
            let segment = format!("{first_seq:020}.{}", reader::EXTENSION);
            return Err(Error::Damaged { segment, line: next_seq - first_seq + 1 });
        }
        length += read as u64;
        next_seq += 1;
    }
}
