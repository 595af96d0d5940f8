//! What a disk may hold after the power went, worked out from the calls of a program.
//!
//! ```text
//! calls of a run --Recording--> files: writes, syncs; directories: names given and taken; what it said
//!     --power goes at line n--> what was synced, and of the rest what chance leaves
//! ```
//!
//! A write is kept for certain once a sync of its file began after it had ended, and has ended
//! itself. Of other writes each piece of 4 KiB is kept, lost, torn between sectors of 512 bytes, or
//! zeros where the file grew. Names are kept once their directory was synced; of later changes to a
//! directory the first few are. That is more than file systems usually lose, and what their
//! interfaces allow. `sync_file_range` promises nothing, and counts for nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::model::Said;
use crate::random::Random;

const PIECE: usize = 4096;
const SECTOR: usize = 512;
pub(crate) type Id = usize;

/// Everything that a run did to the files below one directory.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) nodes: Vec<Node>,
    pub(crate) names: Vec<Naming>,
    /// Each with the line in which it began and the one in which it ended.
    pub(crate) said: Vec<(usize, usize, Said)>,
    pub(crate) lines: usize,
    /// How many writes and syncs there are.
    pub(crate) operations: usize,
}

#[derive(Debug)]
pub(crate) enum Node {
    File { before: Vec<u8>, operations: Vec<Operation>, syncs: Vec<Span> },
    Directory { before: BTreeMap<Vec<u8>, Id>, syncs: Vec<Span> },
}

/// From one line to another; without an end when the call did not return.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) began: usize,
    pub(crate) ended: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) span: Span,
    pub(crate) kind: OperationKind,
}

#[derive(Debug)]
pub(crate) enum OperationKind {
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    SetLength(usize),
    /// Zeros up to there, if it is shorter.
    Extend(usize),
}

/// A change of names that a file system makes in one step.
#[derive(Debug)]
pub(crate) struct Naming {
    pub(crate) span: Span,
    /// Directory, name, and what the name means from then on.
    pub(crate) changes: Vec<(Id, Vec<u8>, Option<Id>)>,
}

/// How much of what was not synced is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mercy {
    /// Of 256 pieces.
    kept: u64,
    is_torn: bool,
    /// Whether all directories lose changes from the same moment on.
    is_ordered: bool,
}

impl Mercy {
    pub(crate) fn choose(random: &mut Random) -> Self {
        let kept = match random.below(4) {
            0 => 0,
            1 => 128,
            2 => 256,
            _ => random.below(257),
        };
        Self { kept, is_torn: random.is_one_in(2), is_ordered: random.is_one_in(2) }
    }
}

impl Recording {
    /// Makes at `to` what may be left if the power goes at `line`.
    pub(crate) fn crash(&self, line: usize, mercy: Mercy, random: &mut Random, to: &Path) {
        let mut names: HashMap<Id, BTreeMap<Vec<u8>, Id>> = HashMap::new();
        for (id, node) in self.nodes.iter().enumerate() {
            if let Node::Directory { before, .. } = node {
                names.insert(id, before.clone());
            }
        }
        let reached = || self.names.iter().filter(|naming| naming.span.began < line);
        let is_synced = |naming: &Naming| {
            naming.changes.iter().any(|(directory, _, _)| {
                let (Node::Directory { syncs, .. } | Node::File { syncs, .. }) =
                    &self.nodes[*directory];
                naming.span.is_before(last_sync(syncs, line))
            })
        };
        // From where on a directory, or every one of them, loses what was not synced.
        let loose: Vec<&Naming> = reached().filter(|naming| !is_synced(naming)).collect();
        let mut ends: HashMap<Id, usize> = HashMap::new();
        let mut end_of = |directory: Id| {
            let key = if mercy.is_ordered { usize::MAX } else { directory };
            *ends.entry(key).or_insert_with(|| {
                let own =
                    loose.iter().filter(|it| mercy.is_ordered || it.changes[0].0 == directory);
                let own: Vec<usize> = own.map(|naming| naming.span.began).collect();
                let count = if mercy.kept == 256 {
                    own.len() as u64
                } else {
                    random.below(own.len() as u64 + 1)
                };
                own.get(usize::try_from(count).unwrap()).copied().unwrap_or(usize::MAX)
            })
        };
        for naming in reached() {
            if is_synced(naming) || naming.span.began < end_of(naming.changes[0].0) {
                for (directory, name, node) in &naming.changes {
                    let names = names.get_mut(directory).unwrap();
                    match node {
                        Some(node) => names.insert(name.clone(), *node),
                        None => names.remove(name),
                    };
                }
            }
        }
        self.build(0, &names, line, mercy, random, to);
    }

    fn build(
        &self,
        id: Id,
        names: &HashMap<Id, BTreeMap<Vec<u8>, Id>>,
        line: usize,
        mercy: Mercy,
        random: &mut Random,
        to: &Path,
    ) {
        match &self.nodes[id] {
            Node::File { before, operations, syncs } => {
                let kept = surviving(before, operations, syncs, line, mercy, random);
                fs::write(to, kept).unwrap();
                fs::set_permissions(to, Permissions::from_mode(0o600)).unwrap();
            }
            Node::Directory { .. } => {
                fs::create_dir(to).unwrap();
                fs::set_permissions(to, Permissions::from_mode(0o700)).unwrap();
                for (name, child) in &names[&id] {
                    let to = to.join(std::str::from_utf8(name).unwrap());
                    self.build(*child, names, line, mercy, random, &to);
                }
            }
        }
    }
}

impl Span {
    /// Whether it has ended when `line` begins.
    fn is_before(self, line: Option<usize>) -> bool {
        line.is_some_and(|line| self.ended.is_some_and(|ended| ended < line))
    }
}

/// When the last sync began that has ended at `line`.
fn last_sync(syncs: &[Span], line: usize) -> Option<usize> {
    syncs.iter().filter(|sync| sync.is_before(Some(line))).map(|sync| sync.began).max()
}

/// What is left of a file.
fn surviving(
    before: &[u8],
    operations: &[Operation],
    syncs: &[Span],
    line: usize,
    mercy: Mercy,
    random: &mut Random,
) -> Vec<u8> {
    let synced = last_sync(syncs, line);
    let mut content = before.to_vec();
    let mut durable_length = before.len();
    for Operation { span, kind } in operations.iter().filter(|it| it.span.began < line) {
        let is_certain = span.is_before(synced);
        let is_kept = is_certain || random.below(256) < mercy.kept;
        match kind {
            OperationKind::SetLength(length) if is_kept => content.resize(*length, 0),
            OperationKind::Extend(length) if is_kept && content.len() < *length => {
                content.resize(*length, 0);
            }
            OperationKind::SetLength(_) | OperationKind::Extend(_) => {}
            OperationKind::Write { offset, bytes } if is_certain => {
                put(&mut content, *offset, bytes);
            }
            OperationKind::Write { offset, bytes } => {
                for (start, piece) in pieces(*offset, bytes) {
                    let is_growth = start >= durable_length;
                    if random.below(256) < mercy.kept {
                        put(&mut content, start, piece);
                    } else if mercy.is_torn && random.is_one_in(3) {
                        let sectors = random.below((PIECE / SECTOR) as u64) + 1;
                        let sectors = usize::try_from(sectors).unwrap();
                        let end = (start / SECTOR + sectors) * SECTOR - start;
                        put(&mut content, start, &piece[..end.min(piece.len())]);
                    } else if mercy.is_torn && is_growth && random.is_one_in(3) {
                        put(&mut content, start, &vec![0; piece.len()]);
                    }
                }
            }
        }
        if is_certain {
            durable_length = content.len();
        }
    }
    content
}

/// `bytes` at `offset`, cut where the file has multiples of [`PIECE`].
fn pieces(offset: usize, bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut pieces = Vec::new();
    let (mut start, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.len().min(PIECE - start % PIECE));
        pieces.push((start, piece));
        start += piece.len();
        rest = more;
    }
    pieces
}

pub(crate) fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}
