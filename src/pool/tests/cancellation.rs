//! Leases that are given up, at each point where they wait.
//!
//! Each is made to wait there: what it waits for is held until it does. Then it is given up, once before
//! and once after it was granted that.

use std::pin::Pin;
use std::sync::mpsc;

use futures_util::poll;
use tokio::net::TcpListener;

use super::capacity::small;
use super::sleep::Mute;
use super::*;
use crate::database::double::Double;
use crate::server::create_tenant_scoped_server;

/// Runs `test` where one thread does everything that blocks.
fn with_one_blocking_thread(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().max_blocking_threads(1).build().unwrap().block_on(test);
}

/// Has reads of the vault wait until this is dropped.
fn hold_reads() -> mpsc::Sender<()> {
    let (held, let_go) = mpsc::channel();
    drop(tokio::task::spawn_blocking(move || let_go.recv()));
    held
}

/// `call`, which waits by now.
async fn begun<'a, T>(call: impl Future<Output = T> + 'a) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    let mut call: Pin<Box<dyn Future<Output = T>>> = Box::pin(call);
    assert!(poll!(call.as_mut()).is_pending());
    call
}

impl Fixture {
    /// As if nobody had ever asked.
    fn close(&self) {
        self.pool.close_all();
        self.vault.forget_opened();
    }

    /// Gives up `call` while it waits for what `hold` holds, and after that was let go.
    async fn give_up<H, T>(&self, hold: impl AsyncFn() -> H, call: impl AsyncFn() -> T) {
        for is_granted in [false, true] {
            self.close();
            let mut held = Some(hold().await);
            let call = begun(call()).await;
            if is_granted {
                held = None;
            }
            drop(call);
            drop(held);
            self.assert_whole().await;
        }
    }

    /// The same where `call` wakes `tenant001`.
    async fn give_up_while_waking<T>(&self, call: impl AsyncFn() -> T) {
        let access = access("tenant001");
        let awake = async || {
            self.pool.context(&access).await.unwrap();
        };
        let another = async || {
            let reads = hold_reads();
            (begun(self.pool.lease(&access)).await, reads)
        };
        // The record, and who reads it.
        self.give_up(async || hold_reads(), &call).await;
        self.give_up(&another, &call).await;
        // The credentials, and who is the first to reach the database.
        let awake_and_held = async || {
            awake().await;
            hold_reads()
        };
        self.give_up(awake_and_held, &call).await;
        let awake_with_another = async || {
            awake().await;
            another().await
        };
        self.give_up(awake_with_another, &call).await;
        // Who opens the credentials of one that was reached.
        let reached_with_another = async || {
            let lease = self.lease("tenant001").await;
            self.vault.forget_opened();
            (another().await, lease)
        };
        self.give_up(reached_with_another, &call).await;
    }

    /// Nothing is left behind, and everybody is served.
    async fn assert_whole(&self) {
        let (stats, shared) = (self.pool.stats(), &self.pool.pool.shared);
        assert_eq!((stats.leased(), stats.waiting), (0, 0));
        assert_eq!(u64::from(shared.sessions.held()), stats.idle);
        assert!(!shared.sessions.is_contended());
        assert!(self.pool.pool.openings.lock().unwrap().is_empty());
        for tenant in ["tenant001", "tenant002", "tenant001"] {
            self.lease(tenant).await;
        }
    }
}

#[test]
fn a_lease_that_wakes_a_tenant_and_is_given_up_leaves_nothing_behind() {
    with_one_blocking_thread(async {
        let (fixture, access) = (small(3, 3), access("tenant001"));
        fixture.give_up_while_waking(async || fixture.pool.lease(&access).await).await;
    });
}

#[test]
fn warming_that_is_given_up_leaves_nothing_behind() {
    with_one_blocking_thread(async {
        let fixture = fixture_with(|options| {
            options.min_idle.insert(id("tenant001"), 3);
        });
        fixture.pool.pool.stop_warming();
        let tenant = id("tenant001");
        fixture.give_up_while_waking(async || fixture.pool.warm(&tenant).await).await;
    });
}

#[tokio::test]
async fn a_lease_given_up_while_it_waits_for_others_leaves_nothing_behind() {
    let access = access("tenant001");
    // A place.
    let fixture = small(1, 1);
    let call = async || fixture.pool.lease(&access).await;
    fixture.give_up(async || fixture.lease("tenant001").await, &call).await;
    // The session of another tenant.
    let others = async || {
        fixture.pool.context(&access).await.unwrap();
        fixture.lease("tenant002").await
    };
    fixture.give_up(others, &call).await;
    // An instance of its own tenant that comes back.
    let fixture = small(2, 1);
    let call = async || fixture.pool.lease(&access).await;
    fixture.give_up(async || fixture.lease("tenant001").await, call).await;
}

#[tokio::test]
async fn a_lease_given_up_while_it_waits_for_a_sign_of_life_leaves_nothing_behind() {
    let (fixture, access) = (small(1, 1), access("tenant001"));
    let mute = async || {
        let mut lease = fixture.lease("tenant001").await;
        let context = Arc::clone(&lease.entry().context);
        *lease = create_tenant_scoped_server(context, Box::new(Double(Mute)));
        drop(lease);
        tokio::time::pause();
        tokio::time::advance(UNCHECKED + Duration::from_secs(1)).await;
        tokio::time::resume();
    };
    fixture.give_up(mute, async || fixture.pool.lease(&access).await).await;
}

#[tokio::test]
async fn a_lease_given_up_while_a_database_is_reached_leaves_nothing_behind() {
    let (fixture, access) = (small(1, 1), access("tenant003"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    fixture.import_postgres("tenant003", listener.local_addr().unwrap().port());
    for is_cut_off in [false, true] {
        let mut lease = Box::pin(fixture.pool.lease(&access));
        let stream = tokio::select! {
            biased;
            lease = &mut lease => panic!("{lease:?}"),
            accepted = listener.accept() => accepted.unwrap().0,
        };
        let stream = (!is_cut_off).then_some(stream);
        drop(lease);
        drop(stream);
        fixture.assert_whole().await;
    }
}

#[tokio::test]
async fn an_opening_that_is_given_up_keeps_its_place_and_session_until_it_has_ended() {
    let (fixture, access) = (small(2, 5), access("tenant001"));
    let file = rusqlite::Connection::open(fixture.directory.path().join("tenant001.db")).unwrap();
    file.execute_batch("BEGIN EXCLUSIVE").unwrap();
    // Time moves once all wait, which is for the file.
    tokio::time::pause();
    for openings in 1..=2 {
        let lease = tokio::time::timeout(Duration::from_millis(20), fixture.pool.lease(&access));
        assert!(lease.await.is_err());
        assert_eq!(fixture.pool.pool.shared.sessions.held(), openings);
    }
    assert_eq!(fixture.refused("tenant001").await, Bound::InstancesPerTenant);
    tokio::time::resume();
    drop(fixture.lease("tenant002").await);
    drop(file);
    let all = [fixture.lease("tenant001").await, fixture.lease("tenant001").await];
    drop(all);
    fixture.assert_whole().await;
}
