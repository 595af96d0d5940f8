//! An external program that keeps a key: a key management service, a hardware token, another
//! machine.
//!
//! ```text
//! stdin:   tenantry-key-command 1 wrap       stdin:   tenantry-key-command 1 unwrap
//!          <base64 of 32 bytes>                       <base64 of what wrap answered>
//! stdout:  <base64 of 1 to 1,024 bytes>      stdout:  <base64 of the 32 bytes>
//! ```
//!
//! The header keeps what the program answered, never which program it was: who can write the disk
//! must not choose what this process runs. The key is in this process and in the program only for
//! as long as one runs; the program's stderr is ours, so what it prints there is seen.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Error;
use super::key::Key;

/// Most bytes that a program may make of a key.
pub(super) const MAX_WRAPPED: usize = 1_024;

const PROTOCOL: &str = "tenantry-key-command 1";
/// Base64 of the most, and the end of the line in either fashion.
const MAX_ANSWER: usize = MAX_WRAPPED.div_ceil(3) * 4 + 2;
const TIMEOUT: Duration = Duration::from_mins(1);

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct KeyCommand {
    words: Vec<String>,
    timeout: Duration,
}

/// Why a program did not do its part. No text quotes what it printed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyCommandProblem {
    /// Other than one line of base64 of the length that is expected.
    #[error("answered something else than one line with what was asked for")]
    Answer,
    /// It was stopped, or says itself that it failed.
    #[error("failed ({0})")]
    Failed(ExitStatus),
    /// What it made of the key has the key in it.
    #[error("answered with the key itself, which must not be stored")]
    NotWrapped,
    /// It was killed, and whatever it started.
    #[error("did not end within {} s, and was killed", .0.as_secs())]
    Overdue(Duration),
    /// It does not start, or there is no talking to it.
    #[error("cannot be run: {0}")]
    Run(#[source] io::Error),
}

impl KeyCommand {
    /// `words` are the program and its arguments; no shell is involved.
    ///
    /// # Errors
    ///
    /// [`Error::KeyCommandEmpty`]
    pub fn new(words: Vec<String>) -> Result<Self, Error> {
        match words.first() {
            Some(program) if !program.is_empty() => Ok(Self { words, timeout: TIMEOUT }),
            _ => Err(Error::KeyCommandEmpty),
        }
    }

    /// Gives the program that long, and not a minute.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The program.
    pub fn program(&self) -> &str {
        &self.words[0]
    }

    /// What the program makes of `key`: at most [`MAX_WRAPPED`] bytes, which it alone turns back.
    /// Blocks until the program ends.
    ///
    /// # Errors
    ///
    /// [`Error::KeyCommand`]; no program is left behind.
    pub(super) fn wrap(&self, key: &Key) -> Result<Vec<u8>, Error> {
        self.wrap_key(key).map_err(|problem| self.error(problem))
    }

    /// The key that [`wrap`](Self::wrap) was given, if the program is the same and answers
    /// honestly. Blocks until the program ends.
    ///
    /// # Errors
    ///
    /// As [`wrap`](Self::wrap).
    pub(super) fn unwrap(&self, wrapped: &[u8]) -> Result<Key, Error> {
        self.unwrap_key(wrapped).map_err(|problem| self.error(problem))
    }

    fn wrap_key(&self, key: &Key) -> Result<Vec<u8>, KeyCommandProblem> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(Key::LENGTH));
        key.append_to(&mut bytes);
        let wrapped = self.ask("wrap", &bytes)?;
        if wrapped.is_empty() || wrapped.len() > MAX_WRAPPED {
            return Err(KeyCommandProblem::Answer);
        }
        if wrapped.windows(Key::LENGTH).any(|part| part.ct_eq(&bytes).into()) {
            return Err(KeyCommandProblem::NotWrapped);
        }
        Ok(wrapped.to_vec())
    }

    fn unwrap_key(&self, wrapped: &[u8]) -> Result<Key, KeyCommandProblem> {
        let bytes = self.ask("unwrap", wrapped)?;
        Key::fill_with(|key| {
            if bytes.len() != key.len() {
                return Err(KeyCommandProblem::Answer);
            }
            key.copy_from_slice(&bytes);
            Ok(())
        })
    }

    /// One run of the program.
    fn ask(&self, verb: &str, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyCommandProblem> {
        let mut running = Running::start(&self.words, self.timeout)?;
        running.tell(&request(verb, bytes))?;
        let mut answer = Zeroizing::new([0; MAX_ANSWER]);
        let length = running.listen(answer.as_mut_slice())?;
        running.finish()?;
        decode(answer.get(..length).ok_or(KeyCommandProblem::Answer)?)
    }

    fn error(&self, problem: KeyCommandProblem) -> Error {
        Error::KeyCommand { program: self.program().to_owned(), problem }
    }
}

/// A program that was started; dropped, it is killed with the rest of its process group.
struct Running {
    child: Child,
    timeout: Duration,
    deadline: Option<Instant>,
}

impl Running {
    fn start(words: &[String], timeout: Duration) -> Result<Self, KeyCommandProblem> {
        let (program, arguments) = words.split_first().expect("checked when the value was made");
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(KeyCommandProblem::Run)?;
        Ok(Self { child, timeout, deadline: Instant::now().checked_add(timeout) })
    }

    /// Writes the whole request: a pipe holds more, so that this does not wait for the program.
    fn tell(&mut self, request: &[u8]) -> Result<(), KeyCommandProblem> {
        let mut stdin = self.child.stdin.take().expect("stdin was asked for");
        match stdin.write_all(request) {
            // Its exit status says why it did not want to know.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(KeyCommandProblem::Run),
        }
    }

    /// Reads up to the end of stdout, and answers how much; of what does not fit into `answer`, a
    /// byte, so that the length is one too many.
    fn listen(&mut self, answer: &mut [u8]) -> Result<usize, KeyCommandProblem> {
        let mut stdout = self.child.stdout.take().expect("stdout was asked for");
        let mut length = 0;
        loop {
            self.await_output(&stdout)?;
            let mut excess = Zeroizing::new([0]);
            let buffer = match answer.get_mut(length..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => excess.as_mut_slice(),
            };
            match stdout.read(buffer) {
                Ok(0) => return Ok(length),
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(KeyCommandProblem::Run(error)),
            }
            if length > answer.len() {
                return Err(KeyCommandProblem::Answer);
            }
        }
    }

    /// Returns when there is something to read, or never will be.
    fn await_output(&self, stdout: &ChildStdout) -> Result<(), KeyCommandProblem> {
        loop {
            let left = self.time_left()?;
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut [PollFd::new(stdout, PollFlags::IN)], left.as_ref()) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(KeyCommandProblem::Run(error.into())),
            }
        }
    }

    /// Waits for its exit.
    fn finish(mut self) -> Result<(), KeyCommandProblem> {
        let left = self.time_left()?;
        let pid = self.pid();
        let (exited, exit) = mpsc::channel();
        // Not reaped there, so that the process id stays its own until it has been killed.
        let watch = move || {
            while let Err(rustix::io::Errno::INTR) =
                waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            {
            }
            // Nobody listens any more when it was overdue.
            exited.send(()).ok();
        };
        std::thread::Builder::new()
            .name("key-command".to_owned())
            .spawn(watch)
            .map_err(KeyCommandProblem::Run)?;
        let timely = match left {
            Some(left) => exit.recv_timeout(left).is_ok(),
            None => exit.recv().is_ok(),
        };
        if !timely {
            return Err(KeyCommandProblem::Overdue(self.timeout));
        }
        let status = self.child.wait().map_err(KeyCommandProblem::Run)?;
        if status.success() { Ok(()) } else { Err(KeyCommandProblem::Failed(status)) }
    }

    /// `None` is for ever.
    fn time_left(&self) -> Result<Option<Duration>, KeyCommandProblem> {
        match self.deadline.map(|deadline| deadline.checked_duration_since(Instant::now())) {
            None => Ok(None),
            Some(Some(left)) if !left.is_zero() => Ok(Some(left)),
            Some(_) => Err(KeyCommandProblem::Overdue(self.timeout)),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // What fails is that it is gone already.
            kill_process_group(self.pid(), Signal::KILL).ok();
            self.child.wait().ok();
        }
    }
}

/// What the program reads, in one allocation.
fn request(verb: &str, bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let encoded = base64::encoded_len(bytes.len(), true).expect("at most MAX_WRAPPED bytes");
    let head = PROTOCOL.len() + 1 + verb.len() + 1;
    let mut request = Zeroizing::new(Vec::with_capacity(head + encoded + 1));
    for part in [PROTOCOL, " ", verb, "\n"] {
        request.extend_from_slice(part.as_bytes());
    }
    request.resize(head + encoded, 0);
    STANDARD.encode_slice(bytes, &mut request[head..]).expect("there is room for it");
    request.push(b'\n');
    request
}

/// What the one line of `answer` stands for.
fn decode(answer: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyCommandProblem> {
    let line = answer.strip_suffix(b"\n").unwrap_or(answer);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(line.len())]);
    let length = STANDARD.decode_slice(line, &mut bytes).map_err(|_| KeyCommandProblem::Answer)?;
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::error::ErrorCode;

    /// Keeps nothing: turns the bits of every byte, with what a shell has.
    const TURNING: &str = r#"
read -r protocol version verb
read -r secret
[ "$protocol $version" = "tenantry-key-command 1" ] || exit 3
printf '%s' "$secret" | base64 -d | tr '\000-\377' '\200-\377\000-\177' | base64 -w 0
echo
"#;

    /// A program made of a shell script. Run by `sh`, because a file that was just written may
    /// still be open for writing in a child of another test, and then does not run.
    struct Script {
        directory: TempDir,
    }

    impl Script {
        fn new(text: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("script"), text).unwrap();
            Self { directory }
        }

        fn path(&self, name: &str) -> String {
            self.directory.path().join(name).display().to_string()
        }

        /// With the directory as its argument.
        fn command(&self) -> KeyCommand {
            let words = ["sh".to_owned(), self.path("script"), self.path("")];
            KeyCommand::new(words.into()).unwrap()
        }
    }

    fn fixed(byte: u8) -> Key {
        Key::fill_with(|key| {
            key.fill(byte);
            Ok::<_, Error>(())
        })
        .unwrap()
    }

    fn bytes(key: &Key) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.append_to(&mut bytes);
        bytes
    }

    fn problem<T>(result: Result<T, Error>) -> KeyCommandProblem {
        let error = result.err().unwrap();
        assert!(error.to_string().starts_with("key command sh: "), "{error:?}");
        let Error::KeyCommand { problem, .. } = error else { unreachable!("its text is the only") };
        problem
    }

    #[test]
    fn what_a_program_wrapped_it_unwraps() {
        let script = Script::new(TURNING);
        let key = Key::random().unwrap();
        let wrapped = script.command().wrap(&key).unwrap();
        assert_ne!(wrapped, bytes(&key));
        assert_eq!(bytes(&script.command().unwrap(&wrapped).unwrap()), bytes(&key));
    }

    #[test]
    fn the_program_reads_the_two_lines_of_the_protocol() {
        let script = Script::new("cat > \"$1/request\"; echo QUJD");
        assert_eq!(script.command().wrap(&fixed(0)).unwrap(), b"ABC");
        let request = || fs::read_to_string(script.path("request")).unwrap();
        let zeros = "A".repeat(43);
        assert_eq!(request(), format!("tenantry-key-command 1 wrap\n{zeros}=\n"));
        let refused = script.command().unwrap(b"blob");
        assert!(matches!(problem(refused), KeyCommandProblem::Answer));
        assert_eq!(request(), "tenantry-key-command 1 unwrap\nYmxvYg==\n");
    }

    #[test]
    fn an_answer_is_one_line_with_or_without_its_end() {
        for line in ["QUJD", "QUJD\\n", "QUJD\\r\\n"] {
            let script = Script::new(&format!("cat >/dev/null; printf '{line}'"));
            assert_eq!(script.command().wrap(&fixed(1)).unwrap(), b"ABC", "{line}");
        }
        for other in ["", "\\n", "QUJD\\n\\n", "QUJD\\nQUJD\\n", " QUJD", "QUJ", "QU-D", "QUJDR"] {
            let script = Script::new(&format!("cat >/dev/null; printf '{other}'"));
            let problem = problem(script.command().wrap(&fixed(1)));
            assert!(matches!(problem, KeyCommandProblem::Answer), "{other}: {problem:?}");
        }
    }

    #[test]
    fn a_wrapped_key_has_at_most_1024_bytes() {
        let of = |length| {
            let count = format!("head -c {length} /dev/zero | base64 -w 0; echo");
            Script::new(&format!("cat >/dev/null; {count}")).command().wrap(&fixed(1))
        };
        assert_eq!(of(1).unwrap().len(), 1);
        assert_eq!(of(MAX_WRAPPED).unwrap().len(), MAX_WRAPPED);
        for length in [0, MAX_WRAPPED + 1, MAX_WRAPPED + 3, 1 << 20] {
            assert!(matches!(problem(of(length)), KeyCommandProblem::Answer), "{length}");
        }
    }

    #[test]
    fn an_unwrapped_key_has_exactly_32_bytes() {
        for length in [31, 32, 33] {
            let text = format!("cat >/dev/null; head -c {length} /dev/zero | base64 -w 0");
            let unwrapped = Script::new(&text).command().unwrap(b"blob");
            assert_eq!(unwrapped.is_ok(), length == 32, "{length}");
        }
    }

    #[test]
    fn an_answer_with_the_key_itself_is_refused() {
        let plain = "read -r verb; read -r secret; ";
        for answer in
            ["echo \"$secret\"", "(printf abc; echo \"$secret\" | base64 -d) | base64 -w 0"]
        {
            let script = Script::new(&format!("{plain}{answer}"));
            let problem = problem(script.command().wrap(&Key::random().unwrap()));
            assert!(matches!(problem, KeyCommandProblem::NotWrapped), "{answer}");
        }
    }

    #[test]
    fn a_program_that_fails_is_named_with_its_status_and_not_quoted() {
        let script = Script::new("read -r verb; read -r secret; echo \"$secret\"; exit 7");
        let error = script.command().wrap(&fixed(0)).err().unwrap();
        assert_eq!(error.to_string(), "key command sh: failed (exit status: 7)");
        assert_eq!(error.code(), ErrorCode::InternalError);
        assert!(!format!("{error:?}").contains("AAAA"));
        let killed = Script::new("kill -9 $$");
        let error = killed.command().wrap(&fixed(0)).err().unwrap();
        assert_eq!(error.to_string(), "key command sh: failed (signal: 9 (SIGKILL))");
        // It failed before it read anything.
        let deaf = Script::new("exec <&-; exit 9");
        let error = deaf.command().wrap(&fixed(0)).err().unwrap();
        assert_eq!(error.to_string(), "key command sh: failed (exit status: 9)");
    }

    #[test]
    fn a_program_that_is_not_there_is_said_so_and_one_without_a_name_is_none() {
        let command = KeyCommand::new(vec!["/no/such/program".to_owned()]).unwrap();
        let error = command.unwrap(b"blob").err().unwrap().to_string();
        let expected = "key command /no/such/program: cannot be run: No such file or directory";
        assert!(error.starts_with(expected), "{error}");
        for words in [vec![], vec![String::new()]] {
            assert!(matches!(KeyCommand::new(words), Err(Error::KeyCommandEmpty)));
        }
    }

    #[test]
    fn no_shell_reads_the_words() {
        let script = Script::new("printf '%s' \"$2\" > \"$1/seen\"; cat >/dev/null; echo QUJD");
        let injected = "$(touch injected); *";
        let words = ["sh".to_owned(), script.path("script"), script.path(""), injected.to_owned()];
        KeyCommand::new(words.into()).unwrap().wrap(&fixed(0)).unwrap();
        assert_eq!(fs::read_to_string(script.path("seen")).unwrap(), injected);
    }

    /// Needs `openssl`, which `./dev test` installs.
    #[test]
    fn the_example_keeps_a_key_under_the_one_in_its_file() {
        let script = Script::new("");
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/key-command.sh");
        let command = |file| {
            let words = ["sh".to_owned(), example.to_owned(), script.path(file)];
            KeyCommand::new(words.into()).unwrap()
        };
        fs::write(script.path("one"), "first wrapping key\n").unwrap();
        fs::write(script.path("other"), "second wrapping key\n").unwrap();
        let key = Key::random().unwrap();
        let wrapped = command("one").wrap(&key).unwrap();
        assert_eq!(bytes(&command("one").unwrap(&wrapped).unwrap()), bytes(&key));
        assert_ne!(bytes(&command("other").unwrap(&wrapped).unwrap()), bytes(&key));
        let missing = command("missing").unwrap(&wrapped);
        assert!(matches!(problem(missing), KeyCommandProblem::Failed(_)));
    }

    /// Whether the process whose id the script has written is gone, or dead and not yet reaped.
    fn is_gone(pid_file: &str) -> bool {
        let pid = fs::read_to_string(pid_file).unwrap();
        let status = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("status"));
        status.map_or(true, |status| status.contains("State:\tZ"))
    }

    fn assert_gone(pid_file: &str) {
        // Its parent, which is init, has yet to notice.
        let patience = Instant::now() + Duration::from_secs(10);
        while !is_gone(pid_file) {
            assert!(Instant::now() < patience, "{pid_file} is alive");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed_with_what_it_started() {
        // Waits for good: before its answer, and after it, having closed its stdout.
        for rest in ["", "echo QUJD; exec >&-;"] {
            let script = Script::new(&format!(
                "sleep 1000 >/dev/null & echo $! > \"$1/child\"; echo $$ > \"$1/self\";
                 cat >/dev/null; {rest} : > \"$1/ready\"; wait"
            ));
            // Long enough for the script to come that far on a busy machine.
            let timeout = Duration::from_secs(3);
            let problem = problem(script.command().with_timeout(timeout).wrap(&fixed(0)));
            assert!(matches!(problem, KeyCommandProblem::Overdue(_)), "{problem:?}");
            assert!(Path::new(&script.path("ready")).exists());
            assert_gone(&script.path("self"));
            assert_gone(&script.path("child"));
        }
    }

    #[test]
    fn a_program_that_does_not_stop_talking_is_killed() {
        let script = Script::new("echo $$ > \"$1/self\"; exec cat /dev/zero");
        let problem = problem(script.command().wrap(&fixed(0)));
        assert!(matches!(problem, KeyCommandProblem::Answer), "{problem:?}");
        assert_gone(&script.path("self"));
    }
}
