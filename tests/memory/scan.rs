//! Reading another process's memory.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

const PAGE: usize = 4_096;
const PASSES: u32 = 20;

/// 48 characters that occur nowhere else.
pub(crate) fn random_text() -> String {
    let mut bytes = [0; 48];
    getrandom::fill(&mut bytes).unwrap();
    bytes.iter().map(|byte| char::from(b'A' + byte % 26)).collect()
}

/// How often each of `wanted` is in the memory of the process `pid`.
///
/// # Errors
///
/// The system's, if it does not let us read.
pub(crate) fn count(pid: u32, wanted: &[&[u8]]) -> io::Result<Vec<usize>> {
    for _ in 0..PASSES {
        if let Some(counts) = pass(pid, wanted)? {
            return Ok(counts);
        }
    }
    Err(io::Error::other("the process does not come to rest"))
}

/// One reading of everything, unless something went away meanwhile: a thread that ends takes its
/// signal stack with it.
fn pass(pid: u32, wanted: &[&[u8]]) -> io::Result<Option<Vec<usize>>> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let read_maps = || fs::read_to_string(format!("/proc/{pid}/maps"));
    let maps = read_maps()?;
    let needles = Needles::new(wanted);
    let mut counts = vec![0; wanted.len()];
    let mut scanned = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, access) = (fields.next().unwrap(), fields.next().unwrap());
        // The vdso's data pages cannot be read, and hold nothing of the process's.
        if !access.starts_with('r') || line.contains("[vv") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        if memory.read_exact_at(&mut bytes, start).is_err() {
            if !read_maps()?.lines().any(|present| present == line) {
                return Ok(None);
            }
            // A page behind the end of a mapped file cannot be read. Every other one can.
            assert!(line.contains('/'), "not read: {line}");
            for (page, at) in bytes.chunks_mut(PAGE).zip((start..).step_by(PAGE)) {
                if memory.read_exact_at(page, at).is_err() {
                    page.fill(0);
                }
            }
        }
        scanned += bytes.len();
        needles.count(&bytes, &mut counts);
    }
    assert!(scanned > 1 << 20, "only {scanned} bytes were read");
    Ok(Some(counts))
}

/// What is searched for, all at once.
struct Needles<'a> {
    wanted: &'a [&'a [u8]],
    /// Whether one begins with these two bytes.
    begins: Vec<bool>,
}

impl<'a> Needles<'a> {
    fn new(wanted: &'a [&'a [u8]]) -> Self {
        let mut begins = vec![false; 1 << 16];
        for needle in wanted {
            begins[usize::from(u16::from_be_bytes([needle[0], needle[1]]))] = true;
        }
        Self { wanted, begins }
    }

    fn count(&self, bytes: &[u8], counts: &mut [usize]) {
        let mut last_two = 0_u16;
        for (at, byte) in bytes.iter().enumerate() {
            last_two = last_two << 8 | u16::from(*byte);
            if self.begins[usize::from(last_two)] && at > 0 {
                let rest = &bytes[at - 1..];
                for (count, needle) in counts.iter_mut().zip(self.wanted) {
                    *count += usize::from(rest.starts_with(needle));
                }
            }
        }
    }
}
