//! From a request to what becomes of it: who asks, for what, whether they may, and then it is done.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::answer::{self, Body, Outcome, Refusal};
use super::listener::MAX_REQUESTS;
use super::patience::PATIENCE;
use super::routes::{self, Access, Found, HEALTH, IMPORT, Route};
use super::{JSON, NDJSON, OPERATOR, Options, SOCKET, import, message};
use crate::admin::{Admin, Error, Import, Progress, with_cause};
use crate::audit::{Actor, RequestId};
use crate::auth::{self, Origin, Role};
use crate::error::ErrorCode;
use crate::manager::TenantMcpManager;

/// As what a request is recorded that comes to no route.
const CONNECT: &str = "admin.connect";
/// As what an import is recorded that is only tried.
const PLAN: &str = "tenant.plan";
/// Longest body of a command.
const MAX_BODY: usize = 64 << 10;
/// Most lines of progress that wait for a client; more are left out.
const WAITING_LINES: usize = 16;
/// Longest login name that is recorded, in characters.
const MAX_NAME: usize = 64;

/// Where a request came in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Door {
    /// The address, from there.
    Network(SocketAddr),
    /// The socket, from this user.
    Socket(u32),
    /// The socket, from a user who may not.
    Stranger(u32),
}

/// A connection, and what has come of it.
#[derive(Debug)]
pub(super) struct Visit {
    door: Door,
    /// Those that the door has for requests.
    places: Arc<Semaphore>,
    /// Taken once it is known who asks, and kept until the connection is over.
    place: OnceLock<OwnedSemaphorePermit>,
    has_asked: AtomicBool,
}

impl Visit {
    pub(super) fn new(door: Door, places: Arc<Semaphore>) -> Self {
        Self { door, places, place: OnceLock::new(), has_asked: AtomicBool::new(false) }
    }

    /// Whether the head of a request has arrived.
    pub(super) fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Acquire)
    }

    /// Takes a place, if there is one.
    fn take_place(&self) -> bool {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.is_ok_and(|place| self.place.set(place).is_ok())
    }
}

/// What answers requests. One for all doors.
#[derive(Debug)]
pub(super) struct Service {
    manager: Arc<TenantMcpManager>,
    options: Options,
    stopping: CancellationToken,
    /// What is under way, whether its client stays or goes.
    works: Mutex<JoinSet<()>>,
}

/// An action that is about to be done.
pub(super) struct Work {
    pub(super) admin: Admin,
    pub(super) action: &'static str,
    pub(super) request_id: RequestId,
    pub(super) wants_progress: bool,
}

impl Service {
    pub(super) fn new(
        manager: Arc<TenantMcpManager>,
        options: Options,
        stopping: CancellationToken,
    ) -> Self {
        Self { manager, options, stopping, works: Mutex::default() }
    }

    /// Waits for what is under way though its client has gone.
    pub(super) async fn finish(&self) {
        let mut works =
            std::mem::take(&mut *self.works.lock().unwrap_or_else(PoisonError::into_inner));
        while works.join_next().await.is_some() {}
    }

    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        visit: Arc<Visit>,
    ) -> Result<Response<Body>, Infallible> {
        visit.has_asked.store(true, Ordering::Release);
        let request_id = RequestId::random();
        let answer = self.respond(request, &visit, &request_id).await;
        Ok(answer.unwrap_or_else(Refusal::into_response))
    }

    async fn respond(
        &self,
        request: Request<Incoming>,
        visit: &Visit,
        request_id: &RequestId,
    ) -> Result<Response<Body>, Refusal> {
        let door = visit.door;
        let (head, body) = request.into_parts();
        if let Door::Network(peer) = door
            && let Err(message) = check_site(&head)
        {
            let error = self.manager.auth().refuse_operator(origin(peer, request_id)).await;
            return Err(if matches!(error, auth::Error::Forbidden) {
                Refusal::new(ErrorCode::Forbidden, message, request_id)
            } else {
                not_admitted(&error, request_id)
            });
        }
        let found = routes::find(head.method.as_str(), head.uri.path());
        if matches!(&found, Found::Route(route, _) if route.command == HEALTH)
            && !matches!(door, Door::Stranger(_))
        {
            return Ok(answer::health(self.manager.is_sealed(), request_id));
        }
        let (admin, role) = self.caller(door, &head.headers, request_id).await?;
        if !visit.take_place() {
            let code = ErrorCode::PoolExhausted;
            let message =
                format!("{MAX_REQUESTS} requests are under way here; try again when one has ended");
            return Err(refuse(admin, CONNECT, code, message, request_id).await);
        }
        let (route, parts) = match found {
            Found::Route(route, parts) => (route, parts),
            Found::OtherMethod => {
                let message = "the path takes another method; docs/admin-api.md".to_owned();
                let code = ErrorCode::InvalidArgument;
                let refusal = refuse(admin, CONNECT, code, message, request_id).await;
                return Err(refusal.with_status(StatusCode::METHOD_NOT_ALLOWED));
            }
            Found::Nothing => {
                let message = "no such path; docs/admin-api.md has those there are".to_owned();
                let code = ErrorCode::ResourceNotFound;
                return Err(refuse(admin, CONNECT, code, message, request_id).await);
            }
        };
        let is_local = matches!(door, Door::Socket(_));
        let refusal = if let Some(message) = not_allowed(route, role, is_local) {
            Some((ErrorCode::Forbidden, message))
        } else if self.manager.is_sealed() && !route.while_sealed {
            let message = "the whole vault is sealed; `tenantry unseal` opens it";
            Some((ErrorCode::VaultSealed, message))
        } else {
            None
        };
        if let Some((code, message)) = refusal {
            return Err(refuse(admin, route.action, code, message.to_owned(), request_id).await);
        }
        let work = Work {
            admin,
            action: route.action,
            request_id: request_id.clone(),
            wants_progress: accepts_lines(&head.headers),
        };
        if route.command == IMPORT {
            return self.import(route, &head, body, work).await;
        }
        let received = match check_content(&head, JSON) {
            Ok(()) => receive(body).await,
            Err(message) => Err(message),
        };
        let read = received.and_then(|body| {
            let read = message::read(route, &parts, head.uri.query(), &body)?;
            let runs_program = read.0.runs_program();
            if runs_program && !is_local {
                let message = "programs are run for operators at the socket only";
                return Err(message.to_owned());
            }
            Ok(read)
        });
        let (command, secrets) = match read {
            Ok(read) => read,
            Err(message) => {
                let code = ErrorCode::InvalidArgument;
                return Err(refuse(work.admin, work.action, code, message, request_id).await);
            }
        };
        let execute = move |admin: &Admin, progress: &mut dyn FnMut(Progress) -> bool| {
            admin.execute(&command, &secrets, progress)
        };
        self.run(work, execute).await
    }

    /// Who asks.
    async fn caller(
        &self,
        door: Door,
        headers: &HeaderMap,
        request_id: &RequestId,
    ) -> Result<(Admin, Role), Refusal> {
        let admin = |name: String, peer: String| {
            Admin::of(Arc::clone(&self.manager), Actor::Operator { name })
                .for_request(request_id.clone(), Some(peer))
        };
        match door {
            Door::Socket(user) => {
                let name = headers.get(OPERATOR).map_or(&b""[..], |name| name.as_bytes());
                let name: String =
                    String::from_utf8_lossy(name).escape_default().take(MAX_NAME).collect();
                Ok((admin(format!("{name}({user})"), SOCKET.to_owned()), Role::Operator))
            }
            Door::Stranger(user) => {
                let admin = admin(format!("?({user})"), SOCKET.to_owned());
                let message = "another user's service; the attempt was recorded".to_owned();
                let code = ErrorCode::Forbidden;
                Err(refuse(admin, CONNECT, code, message, request_id).await)
            }
            Door::Network(peer) => {
                let auth = self.manager.auth();
                let origin = origin(peer, request_id);
                match auth.authenticate_operator(bearer(headers), origin).await {
                    Ok((operator_id, role)) => {
                        Ok((admin(operator_id, peer.ip().to_string()), role))
                    }
                    Err(error) => Err(not_admitted(&error, request_id)),
                }
            }
        }
    }

    async fn import(
        &self,
        route: &Route,
        head: &Parts,
        body: Incoming,
        mut work: Work,
    ) -> Result<Response<Body>, Refusal> {
        let options = check_content(head, NDJSON).and_then(|()| {
            let members = message::read_query(head.uri.query().unwrap_or_default(), route)?;
            let import = serde_json::from_value::<Import>(members.into());
            import.map_err(|_| "each member of the query is true or false".to_owned())
        });
        let request_id = work.request_id.clone();
        let spooled = match options {
            Ok(options) => {
                if options.dry_run {
                    work.action = PLAN;
                }
                let vault = Arc::clone(self.manager.vault());
                let spooled =
                    import::receive(vault, body, self.options.id_rule, &self.stopping).await;
                spooled.map(|spooled| (options, spooled))
            }
            Err(message) => Err((ErrorCode::InvalidArgument, message)),
        };
        match spooled {
            Ok((options, spooled)) => {
                self.run(work, move |admin, progress| spooled.take_in(admin, options, progress))
                    .await
            }
            Err((code, message)) => {
                Err(refuse(work.admin, work.action, code, message, &request_id).await)
            }
        }
    }

    /// Does the work, whether the client stays or goes.
    async fn run(
        &self,
        work: Work,
        execute: impl FnOnce(
            &Admin,
            &mut dyn FnMut(Progress) -> bool,
        ) -> Result<serde_json::Value, Error>
        + Send
        + 'static,
    ) -> Result<Response<Body>, Refusal> {
        let Work { admin, action, request_id, wants_progress } = work;
        let (lines, waiting) = mpsc::channel(WAITING_LINES);
        let (end, finished) = oneshot::channel();
        let stopping = self.stopping.clone();
        let execute = move || {
            let executed = execute(&admin, &mut |progress| {
                // A client that does not keep up misses some, which is no loss.
                let _sent = lines.try_send(progress);
                !stopping.is_cancelled()
            });
            let code = executed.as_ref().err().map(Error::code);
            let recorded = admin.record_unless_recorded(action, code);
            let outcome: Outcome =
                recorded.and(executed).map_err(|error| (error.code(), with_cause(&error)));
            // A client that has gone does not see how it ended; `audit list` does.
            let _taken = end.send(outcome);
            drop(lines);
        };
        {
            let mut works = self.works.lock().unwrap_or_else(PoisonError::into_inner);
            while works.try_join_next().is_some() {}
            works.spawn_blocking(execute);
        }
        if wants_progress {
            return Ok(answer::with_progress(waiting, finished, request_id).await);
        }
        drop(waiting);
        let value = answer::outcome(finished, &request_id).await?;
        Ok(answer::value(&value, &request_id))
    }
}

fn origin(peer: SocketAddr, request_id: &RequestId) -> Origin {
    let (request_id, peer) = (Some(request_id.clone()), Some(peer.ip().to_string()));
    Origin { request_id, peer, ..Origin::default() }
}

/// Records that an attempt was refused, and answers it.
async fn refuse(
    admin: Admin,
    action: &'static str,
    code: ErrorCode,
    message: String,
    request_id: &RequestId,
) -> Refusal {
    let record = move || admin.record_unless_recorded(action, Some(code));
    match tokio::task::spawn_blocking(record).await {
        Ok(Ok(())) => Refusal::new(code, message, request_id),
        Ok(Err(error)) => Refusal::plain(error.code(), request_id),
        Err(_) => Refusal::plain(ErrorCode::InternalError, request_id),
    }
}

/// The answer to who was not let in, which is in the audit log.
fn not_admitted(error: &auth::Error, request_id: &RequestId) -> Refusal {
    let because = |message| Refusal::new(error.code(), message, request_id);
    match error {
        auth::Error::Forbidden => because("the token's role is not known here"),
        auth::Error::Throttled { retry_after } => {
            Refusal::plain(error.code(), request_id).with_wait(*retry_after)
        }
        auth::Error::Unauthenticated => because("an operator's token is required"),
        auth::Error::Vault(error) => {
            tracing::error!(error.code = %error.code(), "an operator's token was not checked");
            Refusal::plain(ErrorCode::InternalError, request_id)
        }
        auth::Error::Audit(_)
        | auth::Error::InsufficientScope { .. }
        | auth::Error::Randomness
        | auth::Error::Sealed => Refusal::plain(error.code(), request_id),
    }
}

/// Why `role` may not use `route` from there.
fn not_allowed(route: &Route, role: Role, is_local: bool) -> Option<&'static str> {
    match route.access {
        Access::Anybody => None,
        Access::Role(least) if role >= least => None,
        Access::SocketOnly if is_local && role >= Role::Operator => None,
        Access::SocketOnly if role >= Role::Operator => {
            Some("only for operators at the socket: it names files of the service's host")
        }
        Access::Role(_) | Access::SocketOnly => Some("an auditor's token may read only"),
    }
}

/// Refuses what a web page in an operator's browser might send.
fn check_site(head: &Parts) -> Result<(), &'static str> {
    if head.headers.contains_key(header::ORIGIN) {
        return Err("the admin API is not for web pages");
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err("one Host header is required");
    };
    let named = head.uri.authority().map(Authority::as_str);
    if named.into_iter().chain([host.to_str().unwrap_or_default()]).all(is_loopback) {
        Ok(())
    } else {
        Err("the Host header has to name the loopback address that is listened at")
    }
}

/// Whether `host` is this machine's own name for itself, with or without a port.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|_| !port.starts_with('+'));
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    port.is_none_or(is_port)
        && (name.eq_ignore_ascii_case("localhost")
            || address
                .parse::<IpAddr>()
                .is_ok_and(|it| it.is_loopback() && it.is_ipv6() == (address != name)))
}

/// The one bearer credential of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn accepts_lines(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(header::ACCEPT).iter().filter_map(|kinds| kinds.to_str().ok());
    kinds.any(|kinds| {
        kinds.split(',').any(|kind| kind.split(';').next().map(str::trim) == Some(NDJSON))
    })
}

/// Whether what changes something says that it is JSON: a form of a web page does not.
fn check_content(head: &Parts, wanted: &str) -> Result<(), String> {
    if matches!(head.method, Method::GET | Method::DELETE) {
        return Ok(());
    }
    let mut kinds = head.headers.get_all(header::CONTENT_TYPE).iter();
    let kind = match (kinds.next(), kinds.next()) {
        (Some(kind), None) => kind.to_str().unwrap_or_default(),
        _ => "",
    };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(wanted) {
        Ok(())
    } else {
        Err(format!("the Content-Type has to be {wanted}"))
    }
}

/// The body of a command.
async fn receive(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(Vec::new());
    let all = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| "the request ends too early".to_owned())?;
            let Some(data) = frame.data_ref() else { continue };
            if bytes.len() + data.len() > MAX_BODY {
                return Err(format!("the body is longer than {MAX_BODY} bytes"));
            }
            bytes.extend_from_slice(data);
        }
        Ok(())
    };
    match timeout(PATIENCE, all).await {
        Ok(received) => received.map(|()| bytes),
        Err(_) => Err("the request did not arrive".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_own_names_are_a_host() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1",
            "127.0.0.1:8643",
            "127.9.9.9",
            "[::1]",
            "[::1]:1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "localhost:",
            "localhost:x",
            "::1",
            "10.0.0.1",
            "[127.0.0.1]",
            "127.0.0.1:+80",
            "127.0.0.1:80:80",
            "localhost@evil",
            "[::1",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn an_auditor_may_use_no_route_that_does_anything() {
        for route in &routes::ROUTES {
            let (auditor, remote) = (
                not_allowed(route, Role::Auditor, false),
                not_allowed(route, Role::Operator, false),
            );
            assert_eq!(auditor.is_none(), route.reads(), "{route:?}");
            assert_eq!(not_allowed(route, Role::Operator, true), None, "{route:?}");
            assert_eq!(remote.is_some(), route.access == Access::SocketOnly, "{route:?}");
        }
    }
}
