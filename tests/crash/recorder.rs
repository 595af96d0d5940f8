//! Turns the calls of a run into a [`Recording`] of what it did to the files below one directory.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use crate::disk::{Id, Naming, Node, Operation, OperationKind, Recording, Span, put};
use crate::load;
use crate::model::Said;
use crate::strace::{self, Call};

/// Calls that move the position of a file, beside those that change it.
const MORE_CALLS: [&str; 5] = ["lseek", "read", "readv", "fcntl", "dup"];

/// What strace is to be asked for, so that its output is a recording.
pub(crate) fn options() -> Vec<String> {
    let calls = [&strace::CALLS[..], &MORE_CALLS].concat().join(",");
    vec!["-e".to_owned(), format!("trace={calls}"), "-s".to_owned(), "8000000".to_owned()]
}

/// An open file.
#[derive(Clone, Copy, Debug)]
struct Open {
    node: Id,
    position: usize,
    appends: bool,
}

/// Builds a recording, call by call.
struct Recorder<'a> {
    root: &'a Path,
    recording: Recording,
    /// What each directory holds now.
    now: HashMap<Id, BTreeMap<Vec<u8>, Id>>,
    /// What each file holds now.
    content: HashMap<Id, Vec<u8>>,
    open: HashMap<i64, usize>,
    files: Vec<Open>,
}

impl Recording {
    /// Of the run that `text`, strace's output, tells of, in the directory at `root`, which was like
    /// the one at `before`.
    pub(crate) fn of(text: &str, root: &Path, before: &Path) -> Self {
        let recording = Self {
            nodes: Vec::new(),
            names: Vec::new(),
            said: Vec::new(),
            lines: text.lines().count(),
            operations: 0,
        };
        let mut recorder = Recorder {
            root,
            recording,
            now: HashMap::new(),
            content: HashMap::new(),
            open: HashMap::new(),
            files: Vec::new(),
        };
        recorder.read_directory(before);
        for call in strace::parse(text) {
            recorder.take(&call);
        }
        recorder.recording
    }
}

impl Recorder<'_> {
    fn read_directory(&mut self, path: &Path) -> Id {
        let id = self.recording.nodes.len();
        let (before, syncs) = (BTreeMap::new(), Vec::new());
        self.recording.nodes.push(Node::Directory { before, syncs });
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let child = if entry.file_type().unwrap().is_dir() {
                self.read_directory(&entry.path())
            } else {
                self.new_file(fs::read(entry.path()).unwrap())
            };
            names.insert(entry.file_name().as_encoded_bytes().to_vec(), child);
        }
        self.now.insert(id, names.clone());
        let Node::Directory { before, .. } = &mut self.recording.nodes[id] else { unreachable!() };
        *before = names;
        id
    }

    fn new_file(&mut self, before: Vec<u8>) -> Id {
        let id = self.recording.nodes.len();
        self.content.insert(id, before.clone());
        let (operations, syncs) = (Vec::new(), Vec::new());
        self.recording.nodes.push(Node::File { before, operations, syncs });
        id
    }

    /// What is at `path`, and the directory and the name that it has; nothing outside the root.
    fn find(&self, path: &Path) -> Option<(Id, Vec<u8>, Option<Id>)> {
        let below = path.strip_prefix(self.root).ok()?;
        let mut names: Vec<Vec<u8>> =
            below.iter().map(|name| name.as_encoded_bytes().to_vec()).collect();
        let last = names.pop()?;
        let mut directory = 0;
        for name in names {
            directory = *self.now.get(&directory)?.get(&name)?;
        }
        let node = self.now.get(&directory)?.get(&last).copied();
        Some((directory, last, node))
    }

    fn take(&mut self, call: &Call) {
        if let Some(said) = heard(call) {
            let ended = call.ended.unwrap_or(usize::MAX);
            self.recording.said.push((call.began, ended, said));
            return;
        }
        // One that never returned may have been done.
        if call.result.is_some_and(|result| result < 0) {
            return;
        }
        let span = Span { began: call.began, ended: call.ended };
        match call.name.as_str() {
            "openat" => self.opened(call, span),
            "rename" | "renameat" | "renameat2" => self.renamed(call, span),
            "unlink" | "unlinkat" | "rmdir" => self.unlinked(call, span),
            "mkdir" | "mkdirat" => self.made(call, span),
            // Promises nothing; and modes are not kept here.
            "sync_file_range" | "fchmod" => {}
            "link" | "linkat" | "symlink" | "symlinkat" | "truncate" => {
                let is_below = call.named().iter().any(|path| path.starts_with(self.root));
                assert!(!is_below, "{} is not known here", call.name);
            }
            _ => self.on_descriptor(call, span),
        }
    }

    fn opened(&mut self, call: &Call, span: Span) {
        let Some(descriptor) = call.result else { return };
        self.open.remove(&descriptor);
        let [path] = &call.named()[..] else { return };
        let is_root = path == self.root;
        let node = if is_root {
            0
        } else {
            let Some((directory, name, node)) = self.find(path) else { return };
            node.unwrap_or_else(|| {
                let node = self.new_file(Vec::new());
                self.name(span, vec![(directory, name, Some(node))]);
                node
            })
        };
        if call.arguments.contains("O_TRUNC") {
            self.change(node, span, OperationKind::SetLength(0));
        }
        let appends = call.arguments.contains("O_APPEND");
        assert!(!call.arguments.contains("O_SYNC") && !call.arguments.contains("O_DSYNC"));
        self.open.insert(descriptor, self.files.len());
        self.files.push(Open { node, position: 0, appends });
    }

    fn renamed(&mut self, call: &Call, span: Span) {
        let [from, to] = &call.named()[..] else { unreachable!("{call:?}") };
        let (Some(from), Some(to)) = (self.find(from), self.find(to)) else { return };
        let (directory, name, Some(node)) = from else { return };
        let (to_directory, to_name, to_node) = to;
        let is_exchange = call.arguments.contains("RENAME_EXCHANGE");
        let left = if is_exchange { to_node } else { None };
        self.name(span, vec![(directory, name, left), (to_directory, to_name, Some(node))]);
    }

    fn unlinked(&mut self, call: &Call, span: Span) {
        let [path] = &call.named()[..] else { unreachable!("{call:?}") };
        if let Some((directory, name, Some(_))) = self.find(path) {
            self.name(span, vec![(directory, name, None)]);
        }
    }

    fn made(&mut self, call: &Call, span: Span) {
        let [path] = &call.named()[..] else { unreachable!("{call:?}") };
        let Some((directory, name, None)) = self.find(path) else { return };
        let id = self.recording.nodes.len();
        let (before, syncs) = (BTreeMap::new(), Vec::new());
        self.recording.nodes.push(Node::Directory { before, syncs });
        self.now.insert(id, BTreeMap::new());
        self.name(span, vec![(directory, name, Some(id))]);
    }

    fn name(&mut self, span: Span, changes: Vec<(Id, Vec<u8>, Option<Id>)>) {
        for (directory, name, node) in &changes {
            let names = self.now.get_mut(directory).unwrap();
            match node {
                Some(node) => names.insert(name.clone(), *node),
                None => names.remove(name),
            };
        }
        self.recording.names.push(Naming { span, changes });
    }

    fn on_descriptor(&mut self, call: &Call, span: Span) {
        let list = call.list();
        let number = |index: usize| list.get(index).and_then(|text| leading_number(text));
        let Some(descriptor) = number(0) else { return };
        let result = call.result.and_then(|result| usize::try_from(result).ok());
        if call.name == "fcntl" || call.name == "dup" {
            let is_copy = call.name == "dup" || call.arguments.contains("F_DUPFD");
            if let (true, Some(file), Some(copy)) =
                (is_copy, self.open.get(&descriptor), call.result)
            {
                let file = *file;
                self.open.insert(copy, file);
            }
            return;
        }
        if matches!(call.name.as_str(), "copy_file_range" | "sendfile") {
            return self.copied(call, span);
        }
        // Of a file that was removed, nothing is left to change.
        if !call.descriptor(0).is_some_and(|path| path.starts_with(self.root)) {
            return;
        }
        let Some(file) = self.open.get(&descriptor).copied() else {
            unreachable!("a file that was not opened: {} {:?}", call.name, call.descriptor(0))
        };
        let Open { node, position, appends } = self.files[file];
        match call.name.as_str() {
            "read" | "readv" => self.files[file].position += result.unwrap_or(0),
            "lseek" => self.files[file].position = result.unwrap_or(0),
            "fsync" | "fdatasync" => {
                let (Node::Directory { syncs, .. } | Node::File { syncs, .. }) =
                    &mut self.recording.nodes[node];
                syncs.push(span);
                self.recording.operations += 1;
            }
            "write" | "writev" => {
                let mut bytes = call.texts().concat();
                bytes.truncate(result.unwrap_or(bytes.len()));
                let offset = if appends { self.content[&node].len() } else { position };
                self.files[file].position = offset + bytes.len();
                self.change(node, span, OperationKind::Write { offset, bytes });
            }
            "pwrite64" | "pwritev" | "pwritev2" => {
                let mut bytes = call.texts().concat();
                bytes.truncate(result.unwrap_or(bytes.len()));
                let offset = leading_number(list[list.len() - 1]).unwrap();
                let offset = usize::try_from(offset).unwrap();
                self.change(node, span, OperationKind::Write { offset, bytes });
            }
            "ftruncate" => {
                let length = usize::try_from(number(1).unwrap()).unwrap();
                self.change(node, span, OperationKind::SetLength(length));
            }
            "fallocate" => {
                let mode = list[1].trim();
                assert_eq!(mode, "0", "fallocate in a way that is not known here");
                let length = number(2).unwrap() + number(3).unwrap();
                let length = usize::try_from(length).unwrap();
                self.change(node, span, OperationKind::Extend(length));
            }
            name => unreachable!("{name} is not known here"),
        }
    }

    /// From file to file within the system.
    fn copied(&mut self, call: &Call, span: Span) {
        let list = call.list();
        let (from, to) = if call.name == "sendfile" { (1, 0) } else { (0, 2) };
        let offset = if call.name == "sendfile" { list[2] } else { list[1] };
        assert_eq!(offset, "NULL", "a copy in a way that is not known here");
        let count = usize::try_from(call.result.unwrap_or(0)).unwrap();
        let open = |index: usize| self.open.get(&leading_number(list[index]).unwrap()).copied();
        let (Some(from), Some(to)) = (open(from), open(to)) else {
            let target = call.descriptor(to);
            assert!(!target.is_some_and(|path| path.starts_with(self.root)), "{call:?}");
            return;
        };
        let source = self.files[from];
        let bytes = self.content[&source.node][source.position..][..count].to_vec();
        self.files[from].position += count;
        let Open { node, position, .. } = self.files[to];
        self.files[to].position += count;
        self.change(node, span, OperationKind::Write { offset: position, bytes });
    }

    fn change(&mut self, node: Id, span: Span, kind: OperationKind) {
        let content = self.content.get_mut(&node).unwrap();
        match &kind {
            OperationKind::Write { offset, bytes } => put(content, *offset, bytes),
            OperationKind::SetLength(length) => content.resize(*length, 0),
            OperationKind::Extend(length) => content.resize(content.len().max(*length), 0),
        }
        let Node::File { operations, .. } = &mut self.recording.nodes[node] else {
            unreachable!("a directory is written to")
        };
        operations.push(Operation { span, kind });
        self.recording.operations += 1;
    }
}

/// What a load says in `call`.
fn heard(call: &Call) -> Option<Said> {
    if call.name != "write" || !call.arguments.starts_with("1<") {
        return None;
    }
    let text = call.texts().concat();
    load::parse(str::from_utf8(&text).ok()?)
}

fn leading_number(text: &str) -> Option<i64> {
    let end = text.find(|character: char| character != '-' && !character.is_ascii_digit());
    text[..end.unwrap_or(text.len())].parse().ok()
}
