//! An application that tests the simulation: it appends records to a file with more or less care,
//! and says each.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::load;
use crate::model::Said;
use crate::place::Place;

/// How many there are.
const RECORDS: u64 = 40;
/// Bytes of each.
const RECORD: usize = 1500;
/// The file that they go to.
const LOG: &str = "data/log";

/// How an application takes care of what it writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Care {
    /// It syncs files and directories.
    Full,
    /// It syncs files.
    FileOnly,
    /// It syncs directories.
    DirectoryOnly,
    None,
}

impl Care {
    pub(crate) const ALL: [Self; 4] = [Self::Full, Self::FileOnly, Self::DirectoryOnly, Self::None];

    pub(crate) fn task(self) -> &'static str {
        match self {
            Self::Full => "append with full care",
            Self::FileOnly => "append, and sync the file only",
            Self::DirectoryOnly => "append, and sync the directory only",
            Self::None => "append without care",
        }
    }
}

/// The child's part.
pub(crate) fn append(place: &Place, care: Care) {
    let path = place.path(LOG);
    let directory = path.parent().unwrap();
    fs::create_dir(directory).unwrap();
    let mut file = OpenOptions::new().create_new(true).append(true).open(&path).unwrap();
    if matches!(care, Care::Full | Care::DirectoryOnly) {
        File::open(directory).unwrap().sync_all().unwrap();
        File::open(place.root()).unwrap().sync_all().unwrap();
    }
    for record in 0..RECORDS {
        file.write_all(&record_bytes(record)).unwrap();
        if matches!(care, Care::Full | Care::FileOnly) {
            file.sync_data().unwrap();
        }
        load::say(&Said::Appended(record));
    }
}

fn record_bytes(record: u64) -> Vec<u8> {
    vec![u8::try_from(record + 1).unwrap(); RECORD]
}

/// Records of the first `count` that are not whole in the file that [`append`] wrote.
pub(crate) fn missing(root: &Path, count: u64) -> u64 {
    let content = fs::read(root.join(LOG)).unwrap_or_default();
    let is_whole = |record: &u64| {
        let start = usize::try_from(*record).unwrap() * RECORD;
        content.get(start..start + RECORD) == Some(&record_bytes(*record))
    };
    count - (0..count).filter(is_whole).count() as u64
}
