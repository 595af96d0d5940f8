//! A server that has no connection left for a tenant that has some.
//!
//! Time stands: calls are driven in a loop that never has nothing to do, so that time does not move
//! by itself either.

use std::sync::atomic::AtomicBool;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::opening::LOOK_INTERVAL;
use super::*;
use crate::database::double::{Answers, Double};
use crate::database::{Attempt, Unavailable};
use crate::server::create_tenant_scoped_server;

const TENANT: &str = "tenant003";
/// Longer than anything takes, of the time that does not stand.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that lets so many in at once.
struct Server {
    port: u16,
    most: Arc<AtomicU32>,
    /// How many are in.
    connected: Arc<AtomicU32>,
    /// How many were refused.
    refused: Arc<AtomicU32>,
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], &length[..], body].concat()
}

async fn server(most: u32) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        port: listener.local_addr().unwrap().port(),
        most: Arc::new(AtomicU32::new(most)),
        connected: Arc::default(),
        refused: Arc::default(),
    };
    let (most, connected) = (Arc::clone(&server.most), Arc::clone(&server.connected));
    let refused = Arc::clone(&server.refused);
    let welcome =
        [message(b'R', &[0; 4]), message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]), message(b'Z', b"I")];
    let full = message(b'E', b"SFATAL\0VFATAL\0C53300\0Mtoo many connections for role\0\0");
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut buffer = [0; 1024];
            if !matches!(client.read(&mut buffer).await, Ok(1..)) {
                continue;
            }
            if connected.load(Ordering::SeqCst) >= most.load(Ordering::SeqCst) {
                refused.fetch_add(1, Ordering::SeqCst);
                drop(client.write_all(&full).await);
                continue;
            }
            drop(client.write_all(&welcome.concat()).await);
            connected.fetch_add(1, Ordering::SeqCst);
            let connected = Arc::clone(&connected);
            tokio::spawn(async move {
                while let Ok(1..) = client.read(&mut buffer).await {}
                connected.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    server
}

impl Server {
    fn refused(&self) -> u32 {
        self.refused.load(Ordering::SeqCst)
    }

    fn connected(&self) -> u32 {
        self.connected.load(Ordering::SeqCst)
    }

    fn let_in(&self, most: u32) {
        self.most.store(most, Ordering::SeqCst);
    }
}

/// A tenant of five instances on a server that lets `most` in.
async fn full_fixture(most: u32) -> (Fixture, Server) {
    let (fixture, server) = (fixture(5), server(most).await);
    fixture.import_postgres(TENANT, server.port);
    // The server answers nothing.
    fixture.pool.entry(&id(TENANT)).await.unwrap().is_examined.store(true, Ordering::Relaxed);
    tokio::time::pause();
    (fixture, server)
}

/// Calls under way, each with its number.
type Calls<'a> = FuturesUnordered<futures_util::future::BoxFuture<'a, (u32, Result<Lease, Error>)>>;

impl Fixture {
    /// Begins a call of the tenant that comes to wait behind `calls`.
    async fn call<'a>(&'a self, calls: &mut Calls<'a>, access: &'a TenantAccess) {
        let number = u32::try_from(calls.len()).unwrap();
        let waiting = self.pool.stats().waiting;
        calls.push(Box::pin(async move { (number, self.pool.lease(access).await) }));
        until(calls, || self.pool.stats().waiting > waiting).await;
    }

    /// Drives `calls` until the server has refused so many, and they know.
    async fn tried(&self, calls: &mut Calls<'_>, server: &Server, refused: u32) {
        let held = || self.pool.pool.shared.sessions.held();
        until(calls, || (server.refused(), held()) == (refused, server.connected())).await;
    }

    /// No call has anything, and none waits.
    fn assert_nothing_is_left(&self) {
        let (stats, shared) = (self.pool.stats(), &self.pool.pool.shared);
        assert_eq!((stats.leased(), stats.waiting), (0, 0));
        assert_eq!(u64::from(shared.sessions.held()), stats.idle);
        assert!(!shared.sessions.is_contended());
    }
}

#[expect(clippy::disallowed_methods, reason = "Tokio's clock stands")]
fn really_now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Drives `calls` until `condition` holds, before which none ends.
async fn until(calls: &mut Calls<'_>, condition: impl Fn() -> bool) {
    let began = really_now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE);
        if let Some(Some(ended)) = step(calls).await {
            panic!("{ended:?}");
        }
    }
}

/// The next of `calls` to end.
async fn next(calls: &mut Calls<'_>) -> (u32, Result<Lease, Error>) {
    let began = really_now();
    loop {
        assert!(began.elapsed() < PATIENCE);
        if let Some(ended) = step(calls).await {
            return ended.unwrap();
        }
    }
}

async fn step(calls: &mut Calls<'_>) -> Option<Option<(u32, Result<Lease, Error>)>> {
    tokio::select! {
        biased;
        ended = calls.next(), if !calls.is_empty() => Some(ended),
        () = tokio::task::yield_now() => None,
    }
}

/// Time passes in which each that waits looks once.
async fn look() {
    // Timers are as precise as this.
    tokio::time::advance(LOOK_INTERVAL + Duration::from_millis(1)).await;
}

#[tokio::test]
async fn who_is_refused_a_session_waits_for_one_of_its_tenants_and_nobody_overtakes() {
    let (fixture, server) = full_fixture(2).await;
    let access = access(TENANT);
    let mut held = vec![fixture.lease(TENANT).await, fixture.lease(TENANT).await];
    let mut calls = Calls::new();
    // Three have a place, and the others none.
    for _ in 0..8 {
        fixture.call(&mut calls, &access).await;
    }
    for number in 0..8 {
        held.remove(0);
        let (first, lease) = next(&mut calls).await;
        assert_eq!(first, number);
        held.push(lease.unwrap());
    }
    drop(held);
    assert_eq!((fixture.stats(), server.refused()), ((10, 2, 2, 1, 2), 1));
    fixture.assert_nothing_is_left();
}

#[tokio::test]
async fn a_full_server_is_asked_once_a_second_and_what_it_gives_goes_to_who_came_first() {
    let (fixture, server) = full_fixture(2).await;
    let access = access(TENANT);
    let mut held = vec![fixture.lease(TENANT).await, fixture.lease(TENANT).await];
    let mut calls = Calls::new();
    for _ in 0..4 {
        fixture.call(&mut calls, &access).await;
    }
    for refused in 2..4 {
        look().await;
        fixture.tried(&mut calls, &server, refused).await;
    }
    server.let_in(4);
    for number in 0..2 {
        look().await;
        let (first, lease) = next(&mut calls).await;
        assert_eq!(first, number);
        held.push(lease.unwrap());
    }
    assert_eq!(server.connected(), 4);
    held.clear();
    while !calls.is_empty() {
        next(&mut calls).await.1.unwrap();
    }
    fixture.assert_nothing_is_left();
}

#[tokio::test]
async fn who_comes_when_there_is_room_again_opens_for_those_that_wait_before_itself() {
    let (fixture, server) = full_fixture(1).await;
    let access = access(TENANT);
    let _held = fixture.lease(TENANT).await;
    let mut calls = Calls::new();
    for _ in 0..3 {
        fixture.call(&mut calls, &access).await;
    }
    server.let_in(5);
    // Moves no timer of who waits: it is known from another login that there is room.
    let entry = fixture.pool.entry(&id(TENANT)).await.unwrap();
    tokio::time::advance(LOOK_INTERVAL / 4 * 3).await;
    while let Err(reason) = entry.breaker.admit().await.map(Attempt::succeeded) {
        assert_eq!(reason, Unavailable::Full);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let last = async { (3, fixture.pool.lease(&access).await) };
    calls.push(Box::pin(last));
    let mut leases = Vec::new();
    for number in 0..4 {
        let (first, lease) = next(&mut calls).await;
        assert_eq!(first, number);
        leases.push(lease.unwrap());
    }
    assert_eq!((server.connected(), server.refused()), (5, 1));
}

#[tokio::test]
async fn a_tenant_without_a_session_is_told_and_its_server_not_asked_by_each_call() {
    let (fixture, server) = full_fixture(0).await;
    for _ in 0..5 {
        let error = fixture.pool.lease(&access(TENANT)).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::DatabaseUnavailable);
        let text = error.to_string();
        assert!(text.contains("CONNECTION LIMIT") && text.contains("max_concurrent_connections"));
    }
    assert_eq!((server.refused(), fixture.stats()), (1, (0, 0, 0, 0, 0)));
    server.let_in(1);
    look().await;
    drop(fixture.lease(TENANT).await);
    // It never was down.
    assert_eq!(server.refused(), 1);
    fixture.assert_nothing_is_left();
}

#[tokio::test]
async fn who_waits_for_a_session_of_its_tenants_waits_no_longer_than_the_timeout() {
    let (fixture, server) = full_fixture(1).await;
    let held = fixture.lease(TENANT).await;
    let (access, began) = (access(TENANT), Instant::now());
    let mut calls = Calls::new();
    fixture.call(&mut calls, &access).await;
    for refused in 2..6 {
        look().await;
        fixture.tried(&mut calls, &server, refused).await;
    }
    look().await;
    assert_eq!(bound_of(next(&mut calls).await.1), Bound::DatabaseConnections);
    assert_eq!(began.elapsed().as_secs(), 5);
    drop(held);
    drop(fixture.lease(TENANT).await);
    fixture.assert_nothing_is_left();
}

/// A session that ended, when a test says so.
#[derive(Debug)]
struct Ended(Arc<AtomicBool>);

impl Answers for Ended {
    fn is_broken(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn who_waits_while_the_last_session_ends_opens_another_or_is_told() {
    for most in [1, 0] {
        let (fixture, server) = full_fixture(1).await;
        let mut held = fixture.lease(TENANT).await;
        let access = access(TENANT);
        let mut calls = Calls::new();
        fixture.call(&mut calls, &access).await;
        let context = Arc::clone(&held.entry().context);
        let ended = Ended(Arc::new(AtomicBool::new(true)));
        *held = create_tenant_scoped_server(context, Box::new(Double(ended)));
        drop(held);
        server.let_in(most);
        until(&mut calls, || server.connected() == 0).await;
        look().await;
        let (_, lease) = next(&mut calls).await;
        if most == 1 {
            lease.unwrap();
        } else {
            assert_eq!(lease.unwrap_err().code(), ErrorCode::DatabaseUnavailable);
        }
        fixture.assert_nothing_is_left();
        tokio::time::resume();
    }
}

#[tokio::test]
async fn who_waits_while_another_has_just_tried_and_the_last_session_ends_waits_for_the_next_try() {
    let (fixture, server) = full_fixture(1).await;
    let mut held = fixture.lease(TENANT).await;
    let access = access(TENANT);
    let mut calls = Calls::new();
    fixture.call(&mut calls, &access).await;
    tokio::time::advance(LOOK_INTERVAL / 2).await;
    fixture.call(&mut calls, &access).await;
    tokio::time::advance(LOOK_INTERVAL / 2 + Duration::from_millis(1)).await;
    fixture.tried(&mut calls, &server, 2).await;
    let context = Arc::clone(&held.entry().context);
    *held = create_tenant_scoped_server(
        context,
        Box::new(Double(Ended(Arc::new(AtomicBool::new(true))))),
    );
    drop(held);
    until(&mut calls, || server.connected() == 0).await;
    // The second looks, when the server has just been found full.
    tokio::time::advance(LOOK_INTERVAL / 2).await;
    assert!(futures_util::poll!(calls.next()).is_pending());
    tokio::time::advance(LOOK_INTERVAL / 2 + Duration::from_millis(1)).await;
    for _ in 0..2 {
        next(&mut calls).await.1.unwrap();
    }
    fixture.assert_nothing_is_left();
}

#[tokio::test]
async fn who_tries_takes_what_comes_back_meanwhile_and_does_not_wait_for_the_server() {
    let (fixture, server) = full_fixture(1).await;
    let held = fixture.lease(TENANT).await;
    let access = access(TENANT);
    let mut calls = Calls::new();
    fixture.call(&mut calls, &access).await;
    look().await;
    assert!(futures_util::poll!(calls.next()).is_pending());
    assert_eq!(fixture.pool.pool.shared.sessions.held(), 2, "it is at the server");
    let instance = held.instance_id();
    drop(held);
    let std::task::Poll::Ready(Some((_, lease))) = futures_util::poll!(calls.next()) else {
        panic!("it waits")
    };
    assert_eq!(lease.unwrap().instance_id(), instance);
    assert_eq!(fixture.pool.pool.shared.sessions.held(), 1);
    drop(server);
    fixture.assert_nothing_is_left();
}

#[tokio::test]
async fn who_waits_while_the_tenant_changes_waits_for_what_it_had_before_and_opens_anew() {
    let (fixture, server) = full_fixture(1).await;
    let old = fixture.lease(TENANT).await;
    let access = access(TENANT);
    let mut calls = Calls::new();
    fixture.call(&mut calls, &access).await;
    for is_enabled in [false, true] {
        fixture.vault.set_enabled(&id(TENANT), is_enabled).unwrap();
    }
    fixture.pool.pool.close_outdated();
    fixture.tried(&mut calls, &server, 2).await;
    let old_id = old.instance_id();
    drop(old);
    until(&mut calls, || server.connected() == 0).await;
    let entry = fixture.pool.entry(&id(TENANT)).await.unwrap();
    entry.is_examined.store(true, Ordering::Relaxed);
    look().await;
    assert_ne!(next(&mut calls).await.1.unwrap().instance_id(), old_id);
    fixture.assert_nothing_is_left();
}

#[tokio::test]
async fn a_call_that_hangs_up_while_the_server_is_full_leaves_nothing_behind() {
    let access = access(TENANT);
    // In line; in line, with what it was granted; at the server, alone and with what it was granted.
    for (is_granted, is_at_server) in [(false, false), (true, false), (false, true), (true, true)] {
        let (fixture, server) = full_fixture(1).await;
        let held = fixture.lease(TENANT).await;
        let mut calls = Calls::new();
        fixture.call(&mut calls, &access).await;
        if is_at_server {
            look().await;
            assert!(futures_util::poll!(calls.next()).is_pending());
            assert_eq!(fixture.pool.pool.shared.sessions.held(), 2);
        }
        let mut held = Some(held);
        if is_granted {
            held = None;
            assert_eq!(fixture.pool.stats().idle, 0, "it is the caller's");
        }
        drop(calls);
        let mut calls = Calls::new();
        if held.is_some() {
            fixture.call(&mut calls, &access).await;
            drop(held);
            next(&mut calls).await.1.unwrap();
        }
        fixture.assert_nothing_is_left();
        drop(fixture.lease(TENANT).await);
        assert_eq!(server.connected(), 1);
        assert_eq!(fixture.stats().1, 1);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn another_tenant_gets_the_session_that_a_full_server_gave_and_nobody_is_stuck() {
    let (fixture, server) = (capacity::small(5, 2), server(2).await);
    fixture.import_postgres(TENANT, server.port);
    fixture.pool.entry(&id(TENANT)).await.unwrap().is_examined.store(true, Ordering::Relaxed);
    let mut held = vec![fixture.lease(TENANT).await, fixture.lease(TENANT).await];
    let (own, other) = (access(TENANT), access("tenant001"));
    fixture.pool.context(&other).await.unwrap();
    tokio::time::pause();
    let mut calls = Calls::new();
    // Neither has a session that it could open.
    fixture.call(&mut calls, &own).await;
    fixture.call(&mut calls, &other).await;
    held.pop();
    let (first, lease) = next(&mut calls).await;
    assert_eq!(first, 1, "it has none");
    held.pop();
    assert_eq!(next(&mut calls).await.0, 0);
    drop(lease);
    fixture.assert_nothing_is_left();
}
