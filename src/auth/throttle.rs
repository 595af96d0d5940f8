//! How many failures an address or a token may have before it is told no more.
//!
//! ```text
//! a failure --> bucket of its source (address, or IPv6 /64, at a door; token where it is known)
//!                  |  room there, and in the bucket of all: an entry of the audit log by itself
//!                  |  room there only:                      counted
//!                  `- none:                                 counted, and answered 429
//! every minute --> the counts, as one entry each for those with most, and one for all the others
//! ```
//!
//! Only what failed is limited: a valid token works from an address that is used up, so that nobody
//! locks out a neighbour behind the same proxy, nor a tenant by failing in its name. What is limited
//! are answers and disk, not guesses: of those, 256 random bits need no protection.
//!
//! Memory: `MAX_SOURCES` sources, the one that failed longest ago giving way. What had been counted
//! of it counts among the others.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::audit::{Actor, Attempt};
use crate::error::ErrorCode;
use crate::tenant::TenantId;

/// From one summary to the next, and the time in which an empty bucket is full again.
pub(super) const WINDOW: Duration = Duration::from_mins(1);
const MAX_SOURCES: usize = 4_096;
/// Sources that a summary names.
const MAX_NAMED: usize = 32;
/// How many sources at their limit may fill the log at the same time.
const FULL_SOURCES: u32 = 10;

/// Who failed, and how: each has a bucket of its own.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    source: Source,
    code: ErrorCode,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Source {
    /// By what it tries there: what fails at the admin API is no failure of the endpoint's clients.
    Address(IpAddr, &'static str),
    /// A token, or a subject of an issuer, as it is told.
    Caller(String),
    /// No address is known.
    Elsewhere,
}

impl Source {
    fn of(attempt: &Attempt) -> Self {
        if attempt.actor != Actor::Anonymous {
            return Self::Caller(attempt.actor.to_string());
        }
        let address = match attempt.peer.as_deref().and_then(|peer| peer.parse::<IpAddr>().ok()) {
            Some(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
                Some(address) => address.into(),
                // What one customer of a provider has.
                None => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            },
            Some(address) => address,
            None => return Self::Elsewhere,
        };
        Self::Address(address, attempt.action)
    }

    fn peer(&self) -> Option<String> {
        match self {
            Self::Address(address @ IpAddr::V4(_), _) => Some(address.to_string()),
            Self::Address(address @ IpAddr::V6(_), _) => Some(format!("{address}/64")),
            Self::Caller(_) | Self::Elsewhere => None,
        }
    }
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It is counted, and a summary will tell of it.
    Count,
    /// It is recorded by itself.
    Record,
    /// It is counted, and so many others were before it that it is answered with nothing but how long
    /// to wait.
    Refuse(Duration),
}

/// Failures of one source that were not recorded one by one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Summary {
    pub(super) actor: Actor,
    pub(super) tenant: Option<TenantId>,
    pub(super) peer: Option<String>,
    pub(super) action: &'static str,
    pub(super) code: ErrorCode,
    pub(super) count: u64,
    /// How many more sources it tells of together, if of more than one.
    pub(super) sources: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Throttle {
    per_window: u32,
    sources: HashMap<Key, Failures>,
    /// Keys by when they last failed.
    order: BTreeMap<u64, Key>,
    failures: u64,
    all: Bucket,
    /// Of sources that gave way.
    evicted: Evicted,
    summarised_at: Duration,
}

#[derive(Debug)]
struct Failures {
    bucket: Bucket,
    /// Its place in the order.
    place: u64,
    /// Since the last summary.
    uncounted: u64,
    actor: Actor,
    tenant: Option<TenantId>,
    action: &'static str,
}

#[derive(Debug, Default)]
struct Evicted {
    failures: u64,
    sources: u64,
}

/// The generic cell rate algorithm: when the bucket would be full again.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// Takes one of the `size` that it has when it is full, or says how long until there is one.
    fn take(&mut self, size: u32, now: Duration) -> Result<(), Duration> {
        let step = WINDOW / size.max(1);
        let next = self.full_at.max(now) + step;
        let latest = now + step * size.max(1);
        if next > latest {
            return Err(next.saturating_sub(latest));
        }
        self.full_at = next;
        Ok(())
    }
}

impl Throttle {
    /// Lets each source have `per_window` failures told one by one in a [`WINDOW`].
    pub(super) fn new(per_window: u32, now: Duration) -> Self {
        Self {
            per_window,
            sources: HashMap::new(),
            order: BTreeMap::new(),
            failures: 0,
            all: Bucket::default(),
            evicted: Evicted::default(),
            summarised_at: now,
        }
    }

    pub(super) fn set_per_window(&mut self, per_window: u32) {
        self.per_window = per_window;
    }

    /// Counts that `attempt` failed with `code` at `now`, a time since boot.
    pub(super) fn failed(&mut self, attempt: &Attempt, code: ErrorCode, now: Duration) -> Verdict {
        let key = Key { source: Source::of(attempt), code };
        self.failures += 1;
        let place = self.failures;
        if !self.sources.contains_key(&key) && self.sources.len() >= MAX_SOURCES {
            self.evict();
        }
        let (per_window, all) = (self.per_window, &mut self.all);
        let failures = self.sources.entry(key.clone()).or_insert_with(|| Failures {
            bucket: Bucket::default(),
            place,
            uncounted: 0,
            actor: attempt.actor.clone(),
            tenant: attempt.tenant.clone(),
            action: attempt.action,
        });
        self.order.remove(&failures.place);
        failures.place = place;
        self.order.insert(place, key);
        let verdict = match failures.bucket.take(per_window, now) {
            Err(wait) => Verdict::Refuse(wait),
            Ok(()) if all.take(per_window.saturating_mul(FULL_SOURCES), now).is_ok() => {
                return Verdict::Record;
            }
            Ok(()) => Verdict::Count,
        };
        failures.uncounted += 1;
        verdict
    }

    /// What was only counted since the last time, if that was a [`WINDOW`] ago or `at_once`.
    pub(super) fn summaries(&mut self, now: Duration, at_once: bool) -> Vec<Summary> {
        if !at_once && now.saturating_sub(self.summarised_at) < WINDOW {
            return Vec::new();
        }
        self.summarised_at = now;
        let mut counted: Vec<_> =
            self.sources.iter_mut().filter(|(_, failures)| failures.uncounted > 0).collect();
        counted.sort_by_key(|(_, failures)| std::cmp::Reverse(failures.uncounted));
        let Evicted { mut failures, mut sources } = std::mem::take(&mut self.evicted);
        let mut summaries = Vec::new();
        for (at, (key, of_key)) in counted.into_iter().enumerate() {
            let count = std::mem::take(&mut of_key.uncounted);
            if at >= MAX_NAMED {
                failures += count;
                sources += 1;
                continue;
            }
            summaries.push(Summary {
                actor: of_key.actor.clone(),
                tenant: of_key.tenant.clone(),
                peer: key.source.peer(),
                action: of_key.action,
                code: key.code,
                count,
                sources: None,
            });
        }
        if failures > 0 {
            summaries.push(Summary {
                actor: Actor::Anonymous,
                tenant: None,
                peer: None,
                action: "authenticate",
                code: ErrorCode::TooManyFailures,
                count: failures,
                sources: Some(sources),
            });
        }
        // One whose bucket is full is as good as new.
        self.sources.retain(|_, failures| failures.bucket.full_at > now);
        self.order.retain(|_, key| self.sources.contains_key(key));
        summaries
    }

    fn evict(&mut self) {
        let Some((_, key)) = self.order.pop_first() else { return };
        if let Some(failures) = self.sources.remove(&key)
            && failures.uncounted > 0
        {
            self.evicted.failures += failures.uncounted;
            self.evicted.sources += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::RequestId;

    const LIMIT: u32 = 5;

    fn attempt(peer: &str) -> Attempt {
        Attempt {
            request_id: RequestId::random(),
            actor: Actor::Anonymous,
            peer: Some(peer.to_owned()),
            action: "authenticate",
            tenant: None,
        }
    }

    fn fail(throttle: &mut Throttle, peer: &str, second: u64) -> Verdict {
        let now = Duration::from_secs(second);
        throttle.failed(&attempt(peer), ErrorCode::Unauthenticated, now)
    }

    fn throttle() -> Throttle {
        Throttle::new(LIMIT, Duration::ZERO)
    }

    #[test]
    fn a_source_has_its_failures_and_after_a_while_one_more() {
        let mut throttle = throttle();
        for _ in 0..LIMIT {
            assert_eq!(fail(&mut throttle, "192.0.2.1", 0), Verdict::Record);
        }
        let wait = Duration::from_secs(60 / u64::from(LIMIT));
        assert_eq!(fail(&mut throttle, "192.0.2.1", 0), Verdict::Refuse(wait));
        assert_eq!(fail(&mut throttle, "192.0.2.2", 0), Verdict::Record);
        assert_eq!(fail(&mut throttle, "192.0.2.1", 12), Verdict::Record);
        assert!(matches!(fail(&mut throttle, "192.0.2.1", 12), Verdict::Refuse(_)));
    }

    #[test]
    fn neighbours_in_a_network_of_ipv6_are_one_source_and_those_of_ipv4_are_not() {
        let mut throttle = throttle();
        for host in 0..LIMIT {
            fail(&mut throttle, &format!("2001:db8::{host}"), 0);
            fail(&mut throttle, &format!("::ffff:192.0.2.{host}"), 0);
        }
        assert!(matches!(fail(&mut throttle, "2001:db8::ffff", 0), Verdict::Refuse(_)));
        assert_eq!(fail(&mut throttle, "2001:db8:0:1::1", 0), Verdict::Record);
        assert_eq!(fail(&mut throttle, "::ffff:192.0.2.77", 0), Verdict::Record);
    }

    #[test]
    fn a_token_that_fails_does_not_use_up_its_address() {
        let mut throttle = throttle();
        let mut of_token = attempt("192.0.2.1");
        of_token.actor = Actor::Token { id: "tok_1".to_owned() };
        for _ in 0..=LIMIT {
            throttle.failed(&of_token, ErrorCode::Forbidden, Duration::ZERO);
        }
        let verdict = throttle.failed(&of_token, ErrorCode::Forbidden, Duration::ZERO);
        assert!(matches!(verdict, Verdict::Refuse(_)));
        assert_eq!(fail(&mut throttle, "192.0.2.1", 0), Verdict::Record);
    }

    #[test]
    fn what_was_not_recorded_by_itself_is_in_one_summary_each_window() {
        let mut throttle = throttle();
        for _ in 0..LIMIT + 7 {
            fail(&mut throttle, "2001:db8::1", 0);
        }
        assert_eq!(throttle.summaries(WINDOW / 2, false), []);
        let summaries = throttle.summaries(WINDOW, false);
        assert_eq!(summaries.len(), 1);
        assert_eq!((summaries[0].count, summaries[0].sources), (7, None));
        assert_eq!(summaries[0].peer.as_deref(), Some("2001:db8::/64"));
        assert_eq!(throttle.summaries(WINDOW * 2, false), []);
        assert!(throttle.sources.is_empty() && throttle.order.is_empty());
    }

    #[test]
    fn a_flood_from_everywhere_is_counted_to_the_last_in_bounded_room_and_few_entries() {
        let mut throttle = throttle();
        let floods = 3 * u32::try_from(MAX_SOURCES).unwrap();
        let mut recorded = 0;
        for source in 0..floods {
            let address = std::net::Ipv4Addr::from_bits(source).to_string();
            recorded += u64::from(fail(&mut throttle, &address, 0) == Verdict::Record);
            assert!(throttle.sources.len() <= MAX_SOURCES && throttle.order.len() <= MAX_SOURCES);
        }
        assert_eq!(recorded, u64::from(LIMIT * FULL_SOURCES));
        let summaries = throttle.summaries(Duration::from_secs(1), true);
        assert_eq!(summaries.len(), MAX_NAMED + 1);
        let counted: u64 = summaries.iter().map(|summary| summary.count).sum();
        assert_eq!(counted + recorded, u64::from(floods));
        assert!(summaries.last().unwrap().sources.unwrap() > MAX_SOURCES as u64);
    }
}
