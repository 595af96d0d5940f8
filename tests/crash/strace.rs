//! Runs a program under strace, and reads what strace wrote.
//!
//! One line is one system call, or half of one when another thread's came between:
//!
//! ```text
//! 4711 write(5<\x2f\x64>, "\x61", 1 <unfinished ...>
//! 4712 fsync(6<\x2f\x65>) = 0
//! 4711 <... write resumed>) = 1
//! ```
//!
//! Texts and paths are asked for in hex throughout, so that no byte of them looks like syntax.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every call that changes a file or a directory, or makes such a change durable.
pub(crate) const CALLS: [&str; 27] = [
    "openat",
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "pwritev2",
    "copy_file_range",
    "sendfile",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "ftruncate",
    "truncate",
    "fallocate",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "fchmod",
];

/// A system call of the program.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) thread: u32,
    pub(crate) name: String,
    /// As strace wrote them.
    pub(crate) arguments: String,
    /// `None` when it never returned.
    pub(crate) result: Option<i64>,
    /// The lines in which it began and ended.
    pub(crate) began: usize,
    pub(crate) ended: Option<usize>,
}

/// strace, about to run `program`, with its output in `output`. Fails when there is none.
pub(crate) fn command(program: &Command, output: &Path, options: &[String]) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-xx", "-qq", "-o"]).arg(output).args(options);
    strace.arg("--").arg(program.get_program()).args(program.get_args());
    if let Some(directory) = program.get_current_dir() {
        strace.current_dir(directory);
    }
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace
}

/// Fails with the way out unless strace runs here and reads the memory of what it runs.
pub(crate) fn require() {
    let version = Command::new("strace").arg("-V").output();
    let runs = version.is_ok_and(|output| output.status.success());
    assert!(runs, "these tests need strace: apt-get install strace, or `./dev test`, which does");
}

/// The calls in what strace wrote, in the order in which they began.
pub(crate) fn parse(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut unfinished: HashMap<u32, usize> = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Ok(thread) = thread.parse::<u32>() else { continue };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some(index) = unfinished.remove(&thread) else { continue };
            let (_, rest) = resumed.split_once("resumed>").unwrap();
            let (arguments, result) = split_result(rest);
            let call = &mut calls[index];
            call.arguments.push_str(arguments);
            call.result = result;
            call.ended = result.map(|_| number);
            continue;
        }
        let Some((name, rest)) = rest.split_once('(') else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let is_finished = !rest.ends_with(" <unfinished ...>");
        let (arguments, result) = if is_finished {
            split_result(rest)
        } else {
            unfinished.insert(thread, calls.len());
            (rest.trim_end_matches(" <unfinished ...>"), None)
        };
        calls.push(Call {
            thread,
            name: name.to_owned(),
            arguments: arguments.to_owned(),
            result,
            began: number,
            ended: result.map(|_| number),
        });
    }
    calls
}

/// `ARGUMENTS) = RESULT` in its two parts.
fn split_result(text: &str) -> (&str, Option<i64>) {
    let Some((arguments, result)) = text.rsplit_once(" = ") else { return (text, None) };
    let arguments = arguments.trim_end();
    let arguments = arguments.strip_suffix(')').unwrap_or(arguments);
    let end = result.find(|character: char| character != '-' && !character.is_ascii_digit());
    (arguments, result[..end.unwrap_or(result.len())].parse().ok())
}

impl Call {
    /// The arguments, one by one.
    pub(crate) fn list(&self) -> Vec<&str> {
        self.arguments.split(", ").map(str::trim).collect()
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.result.is_some_and(|result| result >= 0)
    }

    /// What is written in quotes, decoded: paths for calls that take them, else data.
    pub(crate) fn texts(&self) -> Vec<Vec<u8>> {
        self.arguments.split('"').skip(1).step_by(2).map(decode).collect()
    }

    /// What argument `index` is a descriptor of: a path, unless it has been removed or is none.
    pub(crate) fn descriptor(&self, index: usize) -> Option<PathBuf> {
        annotation(self.list().get(index)?)
    }

    /// The paths that the call names or has open, as strace compares them with `-P`.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        if self.takes_paths() {
            return self.named();
        }
        self.list().into_iter().filter_map(annotation).collect()
    }

    /// The paths that the call names, absolute.
    pub(crate) fn named(&self) -> Vec<PathBuf> {
        let list = self.list();
        let mut paths = Vec::new();
        for (index, argument) in list.iter().enumerate().filter(|(_, text)| text.starts_with('"')) {
            let path = path(&decode(argument.trim_matches('"')));
            let base = index.checked_sub(1).and_then(|before| annotation(list[before]));
            paths.push(base.unwrap_or_default().join(path));
        }
        paths
    }

    fn takes_paths(&self) -> bool {
        ["open", "rename", "unlink", "mkdir", "rmdir", "link", "symlink", "truncate"]
            .iter()
            .any(|prefix| self.name.starts_with(prefix))
    }

    /// Whether it changes a file or a directory, or makes such a change durable.
    pub(crate) fn is_change(&self) -> bool {
        let creates = ["O_CREAT", "O_WRONLY", "O_RDWR"];
        self.name != "openat" || creates.iter().any(|flag| self.arguments.contains(flag))
    }
}

/// The path in `5<PATH>`; `5<PATH>(deleted)` has none.
fn annotation(argument: &str) -> Option<PathBuf> {
    let (_, rest) = argument.split_once('<')?;
    let text = decode(rest.strip_suffix('>')?);
    text.starts_with(b"/").then(|| path(&text))
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

/// `\x61\x62` is `ab`.
fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap();
    let mut decoded = Vec::with_capacity(bytes.len() / 4);
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        if let (b'\\', [b'x', high, low, tail @ ..]) = (first, tail) {
            decoded.push(u8::try_from(digit(*high) << 4 | digit(*low)).unwrap());
            rest = tail;
        } else {
            decoded.push(*first);
            rest = tail;
        }
    }
    decoded
}

#[test]
fn calls_are_read_whole_and_in_halves() {
    let text = r#"7 openat(AT_FDCWD<\x2f>, "\x2f\x61", O_WRONLY|O_CREAT, 0600) = 5<\x2f\x61>
7 write(5<\x2f\x61>, "\x2c\x20\x22", 3 <unfinished ...>
8 fsync(6<\x2f\x62>(deleted))                = -1 EIO (Input/output error) (INJECTED)
7 <... write resumed>) = 3
8 rename("\x2f\x61", "\x2f\x62" <unfinished ...>
8 +++ killed by SIGKILL +++
"#;
    let calls = parse(text);
    let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["openat", "write", "fsync", "rename"]);
    let [open, write, sync, rename] = calls.try_into().unwrap();
    assert_eq!((open.result, open.named()), (Some(5), vec![PathBuf::from("/a")]));
    assert_eq!((write.result, write.began, write.ended), (Some(3), 1, Some(3)));
    assert_eq!((write.texts(), write.paths()), (vec![b", \"".to_vec()], vec![PathBuf::from("/a")]));
    assert_eq!((sync.result, sync.paths(), sync.succeeded()), (Some(-1), vec![], false));
    assert_eq!((rename.result, rename.ended, rename.named().len()), (None, None, 2));
}
