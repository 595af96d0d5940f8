//! The keys of an issuer as they are now: kept, and got again.
//!
//! ```text
//! known kid, set younger than 10 min  --> the key
//! known kid, set younger than 1 h     --> the key; and the set is got anew, for who comes next
//! unknown kid, or no such set         --> the set is got anew, and waited for
//! ```
//!
//! One request at a time, and one in `PAUSE`, whatever tokens come: an issuer is not hammered with
//! kids that nobody has, and one that is away is asked now and then. What was got goes on for
//! `KEEP` then: longer than its tokens should live, and not so long that a key which it withdrew
//! would work for good.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::fetch::Place;
use super::key_set::{Key, KeySet, MAX_BYTES};
use crate::clock::Clock;

/// How old a set gets before it is got anew.
const REFRESH: Duration = Duration::from_mins(10);
/// How old it gets when that fails.
const KEEP: Duration = Duration::from_hours(1);
/// From the beginning of one request to that of the next.
const PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) enum Keys {
    Fixed(Arc<KeySet>),
    Served(Arc<Served>),
}

#[derive(Debug)]
pub(super) struct Served {
    issuer: String,
    place: Place,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// With the time since boot at which it was got.
    set: Option<(Arc<KeySet>, Duration)>,
    asked_at: Option<Duration>,
    /// Closed when the request under way is over.
    under_way: Option<watch::Receiver<()>>,
}

/// A key of a set.
pub(super) struct Found {
    set: Arc<KeySet>,
    id: String,
}

impl Found {
    pub(super) fn key(&self) -> Option<&Key> {
        self.set.find(&self.id)
    }
}

impl Keys {
    /// Those in `file`.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        use std::io::Read as _;
        let place = file.display();
        let unreadable = |error: std::io::Error| format!("{place}: {}", error.kind());
        let mut bytes = Vec::new();
        let limit = MAX_BYTES as u64 + 1;
        let opened = std::fs::File::open(file).map_err(unreadable)?;
        opened.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() > MAX_BYTES {
            return Err(format!("{place} has more than {MAX_BYTES} bytes"));
        }
        let set = KeySet::parse(&bytes).map_err(|reason| format!("{place}: {reason}"))?;
        Ok(Self::Fixed(Arc::new(set)))
    }

    /// Those that `issuer` serves at `place`.
    pub(super) fn served(issuer: String, place: Place, clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::default();
        Self::Served(Arc::new(Served { issuer, place, clock, state }))
    }

    /// The set with the key called `id`, if there is one.
    pub(super) async fn find(&self, id: &str) -> Option<Found> {
        let set = match self {
            Self::Fixed(set) => Arc::clone(set),
            Self::Served(served) => served.find(id).await?,
        };
        set.find(id)?;
        Some(Found { set, id: id.to_owned() })
    }
}

impl Served {
    async fn find(self: &Arc<Self>, id: &str) -> Option<Arc<KeySet>> {
        let (found, request) = {
            let now = self.clock.boot();
            let mut state = self.state();
            let (set, is_fresh) = state.usable(now).unzip();
            let found = set.filter(|set| set.find(id).is_some());
            if found.is_some() && is_fresh == Some(true) {
                return found;
            }
            (found, self.request(&mut state, now))
        };
        if found.is_some() {
            return found;
        }
        // Nothing is sent: it is closed when it is over, also when the request panicked.
        drop(request?.changed().await);
        self.state().usable(self.clock.boot()).map(|(set, _)| set)
    }

    /// Joins the request that is under way, or begins one, if it is not too early for that.
    fn request(self: &Arc<Self>, state: &mut State, now: Duration) -> Option<watch::Receiver<()>> {
        if let Some(under_way) = &state.under_way
            && under_way.has_changed().is_ok()
        {
            return Some(under_way.clone());
        }
        if state.asked_at.is_some_and(|asked_at| now.saturating_sub(asked_at) < PAUSE) {
            return None;
        }
        state.asked_at = Some(now);
        let (over, under_way) = watch::channel(());
        state.under_way = Some(under_way.clone());
        let served = Arc::clone(self);
        // Not in the call that wants it: callers that hang up would end it, again and again.
        #[expect(clippy::disallowed_methods, reason = "it ends by its own timeout")]
        tokio::spawn(async move {
            served.refresh().await;
            drop(over);
        });
        Some(under_way)
    }

    async fn refresh(&self) {
        let issuer = &self.issuer;
        let set = match self.place.get().await {
            Ok(bytes) => KeySet::parse(&bytes),
            Err(error) => {
                tracing::warn!(issuer, %error, "the issuer's keys cannot be got; what is known of \
                    them is used for an hour");
                return;
            }
        };
        match set {
            Ok(set) => self.state().set = Some((Arc::new(set), self.clock.boot())),
            Err(reason) => {
                tracing::warn!(issuer, %reason, "the issuer's key set cannot be used; what is known \
                    of it is used for an hour");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after any panic: it changes by assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The set, if it is not too old, and whether it need not be got anew.
    fn usable(&self, now: Duration) -> Option<(Arc<KeySet>, bool)> {
        let (set, got_at) = self.set.as_ref()?;
        let age = now.saturating_sub(*got_at);
        (age < KEEP).then(|| (Arc::clone(set), age < REFRESH))
    }
}
