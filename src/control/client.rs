//! The operator's side of the admin socket. Blocks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use secrecy::ExposeSecret;
use serde_json::Value;

use super::{Answer, Request, SOCKET, VERSION, address};
use crate::admin::{Command, Progress};
use crate::error::ErrorCode;
use crate::memory::SecretText;

/// Longest answer that is read, in bytes: a list of a million tokens.
const MAX_ANSWER: u64 = 256 << 20;

/// Why a service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nothing listens.
    #[error("no service answers")]
    Absent,
    /// It went away, or answered something else.
    #[error(
        "the service ended the conversation without an answer; `tenantry audit list` says what was done"
    )]
    Broken,
    /// The conversation failed.
    #[error("talking to the service failed")]
    Io(#[source] io::Error),
    /// It refused, or failed.
    #[error("{message}")]
    Refused {
        /// The stable code.
        code: ErrorCode,
        /// What a command ends with.
        exit_code: u8,
        /// Why, for people.
        message: String,
    },
}

/// Whether a service has, or had, a socket in this data directory.
pub fn is_present(directory: &Path) -> bool {
    let metadata = directory.join(SOCKET).symlink_metadata();
    metadata.is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Has the service of the data directory `directory` execute `command`, in the name of `operator`,
/// and answers what it answers. What is under way there goes on if this process ends.
///
/// # Errors
///
/// [`ClientError::Absent`] before anything is sent.
pub fn call(
    directory: &Path,
    operator: &str,
    command: &Command,
    secrets: &[SecretText],
    progress: &mut dyn FnMut(Progress),
) -> Result<Value, ClientError> {
    let (address, _directory) = address(directory).map_err(|_| ClientError::Absent)?;
    let mut stream = UnixStream::connect(address).map_err(|_| ClientError::Absent)?;
    // A service that refuses early closes early, and says why: that is read below.
    let sent = send(&mut stream, operator, command, secrets);
    let answers = BufReader::new(stream.take(MAX_ANSWER));
    for line in answers.lines() {
        let line = match line {
            Ok(line) => line,
            Err(error) => return Err(ClientError::Io(error)),
        };
        match serde_json::from_str(&line).map_err(|_| ClientError::Broken)? {
            Answer::Progress(reached) => progress(reached),
            Answer::Ok(value) => return Ok(value),
            Answer::Error { error_code, message, exit_code } => {
                let code = ErrorCode::parse(&error_code).unwrap_or(ErrorCode::InternalError);
                return Err(ClientError::Refused { code, exit_code, message });
            }
        }
    }
    sent.map_err(ClientError::Io)?;
    Err(ClientError::Broken)
}

fn send(
    stream: &mut UnixStream,
    operator: &str,
    command: &Command,
    secrets: &[SecretText],
) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "sent to the service that is to have them")]
    let texts: Vec<&[u8]> =
        secrets.iter().map(|secret| secret.expose_secret().as_bytes()).collect();
    let request = Request {
        version: VERSION,
        operator: operator.to_owned(),
        command: command.clone(),
        secrets: texts.iter().map(|text| text.len()).collect(),
    };
    let mut line = serde_json::to_vec(&request).map_err(io::Error::from)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    texts.iter().try_for_each(|text| stream.write_all(text))
}
