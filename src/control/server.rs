//! The service's side of the admin socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Answer, MAX_LINE, MAX_SECRET, MAX_SECRETS, Request, SOCKET, VERSION, address};
use crate::admin::{self, Admin, Command, with_cause};
use crate::audit::{Actor, Attempt, Outcome, RequestId};
use crate::error::ErrorCode;
use crate::manager::TenantMcpManager;
use crate::memory::{LockedBytes, SecretText};

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 8;
/// How long a request may take to arrive, and an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long accepting rests after it failed.
const PAUSE: Duration = Duration::from_millis(100);
/// Most lines of progress that wait for a client; more are left out.
const WAITING_LINES: usize = 16;
/// Longest login name that is recorded, in characters.
const MAX_NAME: usize = 64;
const ROOT: u32 = 0;

/// The socket, bound. Dropping it removes its file.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// This process's user, to whom the file belongs.
    owner: u32,
}

/// Why a request is none.
enum Malformed {
    /// The client left without a word.
    Silent,
    /// What to tell it.
    Told(&'static str),
}

impl Socket {
    /// Binds the socket in `directory`, the data directory that this process has: a file that is
    /// there was left by one that was killed. Must be called inside a Tokio runtime.
    pub fn bind(directory: &Path) -> io::Result<Self> {
        let path = directory.join(SOCKET);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(&path)?,
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (address, _directory) = address(directory)?;
        let listener = UnixListener::bind(address)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let owner = fs::symlink_metadata(&path)?.uid();
        Ok(Self { listener, path, owner })
    }

    /// Executes what operators send, until `stopping`; then what is under way is finished first.
    pub async fn serve(self, manager: Arc<TenantMcpManager>, stopping: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stopping.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((mut stream, _)) if connections.len() >= MAX_CONNECTIONS => {
                    let busy = refusal(ErrorCode::PoolExhausted, "other commands are under way");
                    // Whether it is taken is the client's business.
                    let _taken = write(&mut stream, &busy).await;
                }
                Ok((stream, _)) => {
                    let (manager, stopping) = (Arc::clone(&manager), stopping.clone());
                    connections.spawn(converse(stream, self.owner, manager, stopping));
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin socket does not accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "the admin socket's file stays");
        }
    }
}

/// One request and its answer.
async fn converse(
    mut stream: UnixStream,
    owner: u32,
    manager: Arc<TenantMcpManager>,
    stopping: CancellationToken,
) {
    let user = match stream.peer_cred() {
        Ok(peer) if peer.uid() == owner || peer.uid() == ROOT => peer.uid(),
        Ok(peer) => {
            let answer = refuse_stranger(&manager, peer.uid()).await;
            let _taken = write(&mut stream, &answer).await;
            return;
        }
        Err(error) => return tracing::warn!(%error, "the admin socket's peer is not known"),
    };
    let received = tokio::select! {
        () = stopping.cancelled() => return,
        received = timeout(PATIENCE, receive(&mut stream)) => received,
    };
    let answer = match received.unwrap_or(Err(Malformed::Told("the request did not arrive"))) {
        Ok((request, secrets)) => {
            let name: String = request.operator.escape_default().take(MAX_NAME).collect();
            let operator = Actor::Operator { name: format!("{name}({user})") };
            let admin = Admin::of(manager, operator);
            execute(&mut stream, admin, request.command, secrets, stopping).await
        }
        Err(Malformed::Silent) => return,
        Err(Malformed::Told(message)) => refusal(ErrorCode::InvalidArgument, message),
    };
    // A client that has gone does not see how it ended; `audit list` does.
    let _taken = write(&mut stream, &answer).await;
}

/// Does what the command says, whether the client stays or goes.
async fn execute(
    stream: &mut UnixStream,
    admin: Admin,
    command: Command,
    secrets: Vec<SecretText>,
    stopping: CancellationToken,
) -> Answer {
    let (lines, mut waiting) = mpsc::channel(WAITING_LINES);
    let work = tokio::task::spawn_blocking(move || {
        let executed = admin.execute(&command, &secrets, &mut |progress| {
            // A client that does not keep up misses some, which is no loss.
            let _sent = lines.try_send(Answer::Progress(progress));
            !stopping.is_cancelled()
        });
        executed.map_or_else(|error| answer_of(&error), Answer::Ok)
    });
    let mut is_there = true;
    while let Some(line) = waiting.recv().await {
        is_there = is_there && write(stream, &line).await.is_ok();
    }
    // It panicked, which is in the log.
    work.await
        .unwrap_or_else(|_| refusal(ErrorCode::InternalError, ErrorCode::InternalError.message()))
}

/// Reads a request to its last byte and no further.
async fn receive(stream: &mut UnixStream) -> Result<(Request, Vec<SecretText>), Malformed> {
    let cut_short = |_| Malformed::Told("the request ends too early");
    let mut line = Vec::new();
    loop {
        // One byte at a time: what follows the line is secret, and is no line's business.
        match stream.read_u8().await {
            Ok(b'\n') => break,
            Ok(_) if line.len() >= MAX_LINE => {
                return Err(Malformed::Told("the request's line is too long"));
            }
            Ok(byte) => line.push(byte),
            Err(_) if line.is_empty() => return Err(Malformed::Silent),
            Err(error) => return Err(cut_short(error)),
        }
    }
    let request: Request = serde_json::from_slice(&line).map_err(|_| {
        Malformed::Told("the request is none that this version knows; docs/admin-socket.md")
    })?;
    if request.version != VERSION {
        return Err(Malformed::Told("the request is of another version"));
    }
    let fits = |length: &usize| *length <= MAX_SECRET;
    if request.secrets.len() > MAX_SECRETS || !request.secrets.iter().all(fits) {
        return Err(Malformed::Told("the request has too many secrets, or too long ones"));
    }
    if request.secrets.len() != request.command.secrets() {
        return Err(Malformed::Told("the command takes another number of secrets"));
    }
    let mut secrets = Vec::with_capacity(request.secrets.len());
    for length in &request.secrets {
        let mut bytes = LockedBytes::zeroed(*length);
        stream.read_exact(&mut bytes).await.map_err(cut_short)?;
        let text = SecretText::try_from(bytes);
        secrets.push(text.map_err(|_| Malformed::Told("a secret is no text"))?);
    }
    Ok((request, secrets))
}

async fn refuse_stranger(manager: &TenantMcpManager, user: u32) -> Answer {
    let pending = manager.log().begin(Attempt {
        request_id: RequestId::random(),
        actor: Actor::Operator { name: format!("?({user})") },
        peer: Some(SOCKET.to_owned()),
        action: "control.connect",
        tenant: None,
    });
    let outcome = Outcome { code: Some(ErrorCode::Forbidden), ..Outcome::default() };
    match pending.complete(outcome).await {
        Ok(()) => refusal(ErrorCode::Forbidden, "another user's service; the attempt was recorded"),
        Err(error) => refusal(error.code(), error.code().message()),
    }
}

async fn write(stream: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer).map_err(io::Error::from)?;
    line.push(b'\n');
    timeout(PATIENCE, stream.write_all(&line)).await?
}

fn answer_of(error: &admin::Error) -> Answer {
    refusal(error.code(), &with_cause(error))
}

fn refusal(code: ErrorCode, message: &str) -> Answer {
    Answer::Error {
        error_code: code.as_str().to_owned(),
        message: message.to_owned(),
        exit_code: code.exit_code(),
    }
}
