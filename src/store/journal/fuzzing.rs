//! What `store::fuzzing` needs of a journal, in memory.

use super::super::Batch;
use super::super::integrity::{IntegrityKey, Manifest, STORE_VERSION};
use super::{frame, segment};

/// What the last frame of a segment made whose first commit is 1, if there is anything in it.
pub(in crate::store) fn scan(bytes: &[u8], key: &IntegrityKey) -> Option<Manifest> {
    let scan = segment::scan(bytes, key, 1).ok()?;
    scan.run.map(|run| run.newest)
}

/// A segment behind `start` with a commit for each of `batches`, and what these made.
pub(in crate::store) fn segment(
    key: &IntegrityKey,
    start: &Manifest,
    batches: &[&Batch],
) -> (Vec<u8>, Vec<Manifest>) {
    let mut bytes = segment::encode_header(&start.encode_with_salt(key, &[1; 16]));
    let (mut newest, mut commits) = (*start, Vec::new());
    for batch in batches {
        newest.state.number += 1;
        let (mut frame, before) = (Vec::new(), newest.position());
        let made = (&newest.state, STORE_VERSION, &[2; 16]);
        newest.chain =
            frame::encode(&mut frame, key, &before, batch.changes(), made).expect("it is small");
        bytes.extend(frame);
        commits.push(newest);
    }
    (bytes, commits)
}
