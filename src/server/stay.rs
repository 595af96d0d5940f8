//! Who stays for longer than one call: subscriptions, and sessions of older clients.
//!
//! ```text
//! enter(tenant, credential) --> Stay: told when the tenant changes, ended when its leave is over
//! ```
//!
//! A call ends by itself, and the next one is authenticated anew. What stays has to be told: when the
//! token is revoked or expires, when the tenant is disabled, sealed or removed, when the vault is
//! sealed, when the service stops. Whoever does such a thing says so here.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Caller;
use super::lookout::{Lookout, Lookouts};
use crate::tenant::TenantId;

/// Most subscriptions in all, of one tenant, and of one credential.
const MOST_SUBSCRIPTIONS: usize = 1_000;
const MOST_OF_TENANT: usize = 64;
const MOST_OF_CREDENTIAL: usize = 8;

/// One state of one tenant: no other equals it.
pub type Mark = [u8; 24];

/// Tells the state that a tenant is in; `None` when it may not be used.
pub type Look = dyn Fn(&TenantId) -> Option<Mark> + Send + Sync;

/// Everybody who stays. Clones share it.
#[derive(Clone)]
pub struct Stays {
    open: Arc<Mutex<Open>>,
    look: Arc<Look>,
    lookouts: Lookouts,
}

#[derive(Debug, Default)]
struct Open {
    entries: HashMap<u64, Entry>,
    next: u64,
    /// Nobody comes any more.
    is_closed: bool,
}

impl fmt::Debug for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stays").field("open", &self.open).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Entry {
    who: Who,
    kind: Kind,
    /// What the tenant was when it came, or when it was told last.
    mark: Option<Mark>,
    /// When the credential expires.
    until: Option<Instant>,
    changed: Arc<Notify>,
    ended: CancellationToken,
}

/// Whose it is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a pair of names")]
pub struct Who {
    /// The tenant.
    pub tenant: TenantId,
    /// The public name of the credential, such as a token's id.
    pub credential: String,
}

impl Who {
    /// `caller`, at `tenant`.
    pub fn new(tenant: TenantId, caller: &Caller) -> Self {
        Self { tenant, credential: caller.name().into_owned() }
    }
}

/// What stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "both kinds")]
pub enum Kind {
    /// Whoever makes them bounds them.
    Session,
    /// So many and no more.
    Subscription,
}

/// Why nobody may come to stay.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoPlace {
    /// The caller's credential or tenant has enough.
    #[error("this token or tenant has as many subscriptions as it may have; end one of them first")]
    Caller,
    /// All tenants together have enough.
    #[error("all tenants together have as many subscriptions as there may be; try again later")]
    Service,
    /// The service stops.
    #[error("the service stops; subscribe when it is back")]
    Stopping,
}

/// Somebody who stays, until this is dropped.
#[derive(Debug)]
pub struct Stay {
    stays: Stays,
    id: u64,
    changed: Arc<Notify>,
    ended: CancellationToken,
}

impl Stay {
    /// Waits until the tenant changed since this was called last. Several changes are one.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Cancelled when the leave to stay is over.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.stays.open().entries.remove(&self.id);
    }
}

impl Stays {
    /// Nobody; `look` is asked for the states of tenants, and has to answer at once.
    pub fn new(look: Arc<Look>) -> Self {
        Self { open: Arc::default(), look, lookouts: Lookouts::default() }
    }

    /// The state that `tenant` is in: to be taken before anything of it is read that stays.
    pub fn mark(&self, tenant: &TenantId) -> Option<Mark> {
        (self.look)(tenant)
    }

    /// Where changes in the database of `tenant` are seen.
    pub(super) fn lookout(&self, tenant: &TenantId) -> Arc<Lookout> {
        self.lookouts.of(tenant)
    }

    /// Lets `who` stay, for `at_most` that long, with what was read after its tenant had `mark`;
    /// `ended` is cancelled when it has to go.
    ///
    /// # Errors
    ///
    /// [`NoPlace`]; a session may always come, unless the service stops.
    pub fn enter(
        &self,
        who: Who,
        kind: Kind,
        mark: Option<Mark>,
        at_most: Option<Duration>,
        ended: CancellationToken,
    ) -> Result<Stay, NoPlace> {
        let mut open = self.open();
        if open.is_closed {
            return Err(NoPlace::Stopping);
        }
        if kind == Kind::Subscription {
            open.check_place(&who)?;
        }
        open.next += 1;
        let (id, changed) = (open.next, Arc::new(Notify::new()));
        let until = at_most.and_then(|at_most| Instant::now().checked_add(at_most));
        let entry =
            Entry { who, kind, mark, until, changed: Arc::clone(&changed), ended: ended.clone() };
        open.entries.insert(id, entry);
        drop(open);
        Ok(Stay { stays: self.clone(), id, changed, ended })
    }

    /// The tenants that are not what they were to somebody who stays. Costs a look for each tenant of
    /// whom somebody stays.
    pub fn outdated(&self) -> BTreeSet<TenantId> {
        let seen: Vec<_> =
            self.open().entries.values().map(|it| (it.who.tenant.clone(), it.mark)).collect();
        let mut marks = HashMap::new();
        let is_outdated = |(tenant, mark): &(TenantId, Option<Mark>)| {
            let now = *marks.entry(tenant.clone()).or_insert_with(|| (self.look)(tenant));
            now.is_none() || now != *mark
        };
        seen.into_iter().filter(is_outdated).map(|(tenant, _)| tenant).collect()
    }

    /// Tells who has an older `tenant` than there is.
    pub fn tell(&self, tenant: &TenantId) {
        let now = (self.look)(tenant);
        let mut open = self.open();
        let entries = open.entries.values_mut();
        for entry in entries.filter(|it| it.who.tenant == *tenant && it.mark != now) {
            entry.mark = now;
            entry.changed.notify_one();
        }
    }

    /// Ends everything of `tenant`.
    pub fn end_tenant(&self, tenant: &TenantId) {
        self.end(|entry| entry.who.tenant == *tenant);
    }

    /// Ends everything of the credential with this name.
    pub fn end_credential(&self, credential: &str) {
        self.end(|entry| entry.who.credential == credential);
    }

    /// Ends everything whose credential has expired.
    pub fn end_expired(&self) {
        let now = Instant::now();
        self.end(|entry| entry.until.is_some_and(|until| until <= now));
    }

    /// Ends everything.
    pub fn end_all(&self) {
        self.end(|_| true);
    }

    /// Ends what would go on for ever, the subscriptions, and lets nobody in any more.
    pub fn close(&self) {
        self.open().is_closed = true;
        self.end(|entry| entry.kind == Kind::Subscription);
    }

    /// How many stay.
    pub fn count(&self) -> usize {
        self.open().entries.len()
    }

    fn end(&self, is_meant: impl Fn(&Entry) -> bool) {
        for entry in self.open().entries.values().filter(|entry| is_meant(entry)) {
            entry.ended.cancel();
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Whole after any panic: each change is one insertion or removal.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Whether `who` may have one more subscription.
    fn check_place(&self, who: &Who) -> Result<(), NoPlace> {
        let (mut all, mut of_tenant, mut of_credential) = (0, 0, 0);
        for entry in self.entries.values().filter(|it| it.kind == Kind::Subscription) {
            all += 1;
            of_tenant += usize::from(entry.who.tenant == who.tenant);
            of_credential += usize::from(entry.who == *who);
        }
        if of_tenant >= MOST_OF_TENANT || of_credential >= MOST_OF_CREDENTIAL {
            return Err(NoPlace::Caller);
        }
        if all >= MOST_SUBSCRIPTIONS { Err(NoPlace::Service) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU8;
    use std::sync::atomic::Ordering::Relaxed;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::tenant::IdRule;

    fn who(tenant: &str, credential: &str) -> Who {
        let tenant = TenantId::parse(tenant, IdRule::Alphanumeric).unwrap();
        Who { tenant, credential: credential.to_owned() }
    }

    fn enter(stays: &Stays, who: Who, kind: Kind) -> Result<Stay, NoPlace> {
        let mark = stays.mark(&who.tenant);
        stays.enter(who, kind, mark, None, CancellationToken::new())
    }

    /// With tenants that never change.
    fn stays() -> Stays {
        Stays::new(Arc::new(|_| Some([0; 24])))
    }

    #[tokio::test]
    async fn only_who_is_meant_has_to_go() {
        let stays = stays();
        let one = enter(&stays, who("tenant001", "a"), Kind::Subscription).unwrap();
        let two = enter(&stays, who("tenant001", "b"), Kind::Session).unwrap();
        let other = enter(&stays, who("tenant002", "c"), Kind::Session).unwrap();
        stays.end_credential("a");
        let ended = || [&one, &two, &other].map(|stay| stay.ended().is_cancelled());
        assert_eq!(ended(), [true, false, false]);
        stays.end_tenant(&who("tenant001", "").tenant);
        assert_eq!(ended(), [true, true, false]);
        let listens = enter(&stays, who("tenant002", "c"), Kind::Subscription).unwrap();
        stays.close();
        assert!(listens.ended().is_cancelled());
        assert_eq!(ended(), [true, true, false], "a session may have a call under way");
        stays.end_all();
        assert_eq!(ended(), [true, true, true]);
        for kind in [Kind::Session, Kind::Subscription] {
            let late = enter(&stays, who("tenant002", "c"), kind).unwrap_err();
            assert_eq!(late, NoPlace::Stopping);
        }
        drop((one, two, other, listens));
        assert_eq!(stays.count(), 0);
    }

    #[tokio::test]
    async fn a_change_is_told_once_to_who_came_before_and_ends_nothing() {
        let version = Arc::new(AtomicU8::new(1));
        let now = Arc::clone(&version);
        let stays = Stays::new(Arc::new(move |tenant| {
            let version = if tenant.as_str() == "tenant001" { now.load(Relaxed) } else { 7 };
            (version > 0).then_some([version; 24])
        }));
        let listens = enter(&stays, who("tenant001", "a"), Kind::Subscription).unwrap();
        let other = enter(&stays, who("tenant002", "a"), Kind::Subscription).unwrap();
        let tenant = who("tenant001", "").tenant;
        assert!(stays.outdated().is_empty());
        stays.tell(&tenant);
        assert!(listens.changed().now_or_never().is_none());
        version.store(2, Relaxed);
        let later = enter(&stays, who("tenant001", "a"), Kind::Subscription).unwrap();
        assert_eq!(stays.outdated(), BTreeSet::from([tenant.clone()]));
        stays.tell(&tenant);
        stays.tell(&tenant);
        listens.changed().await;
        for stay in [&listens, &other, &later] {
            assert!(stay.changed().now_or_never().is_none() && !stay.ended().is_cancelled());
        }
        assert!(stays.outdated().is_empty());
        // One that may not be used is outdated for as long as anybody stays.
        version.store(0, Relaxed);
        assert_eq!(stays.outdated(), BTreeSet::from([tenant]));
    }

    #[test]
    fn a_credential_and_a_tenant_have_so_many_subscriptions_and_no_more() {
        let stays = stays();
        let mut open = Vec::new();
        for number in 0..MOST_OF_TENANT {
            let credential = format!("token {}", number / MOST_OF_CREDENTIAL);
            let who = who("tenant001", &credential);
            open.push(enter(&stays, who, Kind::Subscription).unwrap());
        }
        let refused = |who| enter(&stays, who, Kind::Subscription).unwrap_err();
        assert_eq!(refused(who("tenant001", "another")), NoPlace::Caller);
        // Another tenant, and what is bounded elsewhere, is let in.
        open.push(enter(&stays, who("tenant002", "other"), Kind::Subscription).unwrap());
        open.push(enter(&stays, who("tenant001", "another"), Kind::Session).unwrap());
        drop(open.remove(0));
        open.push(enter(&stays, who("tenant001", "token 0"), Kind::Subscription).unwrap());
        drop(open.remove(10));
        assert_eq!(refused(who("tenant001", "token 0")), NoPlace::Caller);
    }

    #[test]
    fn when_all_tenants_have_too_many_subscriptions_it_is_not_said_to_be_the_callers_doing() {
        let stays = stays();
        let who = |number: usize| {
            who(&format!("tenant{:03}", number / MOST_OF_TENANT), &number.to_string())
        };
        let mut open = Vec::new();
        for number in 0..MOST_SUBSCRIPTIONS {
            open.push(enter(&stays, who(number), Kind::Subscription).unwrap());
        }
        let late = enter(&stays, who(MOST_SUBSCRIPTIONS), Kind::Subscription).unwrap_err();
        assert_eq!(late, NoPlace::Service);
        drop(open.remove(0));
        enter(&stays, who(MOST_SUBSCRIPTIONS), Kind::Subscription).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_expires_ends_then_and_not_before() {
        let stays = stays();
        let enter = |at_most| {
            let at_most = Some(Duration::from_secs(at_most));
            let ended = CancellationToken::new();
            stays.enter(who("tenant001", "a"), Kind::Session, None, at_most, ended).unwrap()
        };
        let (short, long) = (enter(10), enter(20));
        stays.end_expired();
        assert!(!short.ended().is_cancelled());
        tokio::time::advance(Duration::from_secs(10)).await;
        stays.end_expired();
        assert!(short.ended().is_cancelled() && !long.ended().is_cancelled());
    }
}
