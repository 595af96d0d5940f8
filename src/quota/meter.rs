//! One tenant's counts, and what they allow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::saved::{Malformed, Saved};
use super::window::{Day, DeniedHour, Hour, Sliding};
use super::{Exceeded, Shared, Usage};
use crate::clock::Clock;
use crate::tenant::{Quotas, TenantId};

const PER_HOUR: &str = "max_queries_per_hour";
const PER_DAY: &str = "max_queries_per_day";
pub(super) const CONCURRENT: &str = "max_concurrent_connections";
const DENIED: &str = "max_denied_per_hour";

/// Callers of one tenant whose refused attempts are counted apart; more share a window.
pub(super) const MAX_CALLERS: usize = 16;
/// Bytes of a caller's name that tell it from others.
pub const MAX_CALLER: usize = 40;
/// After so long no window has anything left of what it had, in seconds.
const FORGOTTEN_AFTER: u64 = 97 * 900;

/// Counts the statements of one tenant.
#[derive(Debug)]
pub struct Meter {
    tenant: TenantId,
    born: Timestamp,
    shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The meter's time, in seconds, and the time since boot that belongs to it.
    origin: (u64, u64),
    /// How often it was begun anew.
    resets: u32,
    running: u32,
    hour: Hour,
    day: Day,
    denied: Vec<Denied>,
    is_restored: bool,
    is_changed: bool,
}

/// Refused attempts of one caller.
#[derive(Debug)]
struct Denied {
    /// Empty: of all that have no window of their own.
    caller: Box<str>,
    window: DeniedHour,
}

/// Leave to run one statement. Dropping it says that the statement is over.
#[derive(Debug)]
#[must_use = "the statement is allowed only while the permit is held"]
pub struct Permit {
    meter: Arc<Meter>,
    /// When it was counted, in the meter's time, and after how many resets.
    counted: (u64, u32),
    /// It had a session, or was taken back: it stays so.
    is_settled: AtomicBool,
}

/// A statement that waits for a session. Dropped before it ever [had one](Self::begun), it never was,
/// and is not counted.
#[derive(Debug)]
#[must_use = "dropped at once, the statement is not counted"]
pub struct Unbegun<'a> {
    permit: &'a Permit,
}

impl Meter {
    pub(super) fn new(tenant: TenantId, born: Timestamp, shared: Arc<Shared>) -> Self {
        let state = State::new(&*shared.clock);
        Self { tenant, born, shared, state: Mutex::new(state) }
    }

    /// Whose statements it counts.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// When that tenant was first imported.
    pub fn born(&self) -> Timestamp {
        self.born
    }

    /// Whether it knows what was counted earlier.
    pub fn is_restored(&self) -> bool {
        self.state().is_restored
    }

    /// Goes on from what was [saved](Self::save) last; nothing when there is nothing. Once it is
    /// restored, it stays as it is.
    ///
    /// # Errors
    ///
    /// [`Malformed`]: it is not restored.
    pub fn restore(&self, saved: Option<&[u8]>) -> Result<(), Malformed> {
        let mut state = self.state();
        if state.is_restored {
            return Ok(());
        }
        if let Some(bytes) = saved {
            state.restore(&Saved::decode(bytes)?, &self.shared)?;
        }
        state.is_restored = true;
        Ok(())
    }

    /// What has been counted, as bytes.
    pub fn save(&self) -> Vec<u8> {
        self.state().saved(&self.shared).encode()
    }

    /// Forgets what has been counted, but for what runs.
    pub fn reset(self: &Arc<Self>) {
        let is_first = {
            let mut state = self.state();
            let (running, is_changed) = (state.running, state.is_changed);
            let resets = state.resets.wrapping_add(1);
            *state = State { resets, running, is_changed, ..State::new(&*self.shared.clock) };
            state.is_restored = true;
            state.change()
        };
        self.note(is_first);
    }

    /// Counts one statement, if `quotas` allow it.
    ///
    /// # Errors
    ///
    /// [`Exceeded`] by the quota that is used up; nothing is counted then.
    pub fn acquire(self: &Arc<Self>, quotas: &Quotas) -> Result<Permit, Exceeded> {
        let boot = self.boot();
        let (is_first, counted) = {
            let mut state = self.state();
            state.admit(boot, quotas)?;
            state.hour.count();
            state.day.count();
            state.running += 1;
            (state.change(), (state.now(boot), state.resets))
        };
        self.note(is_first);
        Ok(Permit { meter: Arc::clone(self), counted, is_settled: AtomicBool::new(false) })
    }

    /// Takes back what was counted then.
    fn take_back(self: &Arc<Self>, (then, resets): (u64, u32)) {
        let is_first = {
            let mut state = self.state();
            if state.resets != resets {
                return;
            }
            state.hour.take_back(then);
            state.day.take_back(then);
            state.change()
        };
        self.note(is_first);
    }

    /// Whether `caller` may call at all: its refused attempts are not used up. To be asked before
    /// anything is done for it.
    ///
    /// # Errors
    ///
    /// [`Exceeded`].
    pub fn check_denied(&self, quotas: &Quotas, caller: &str) -> Result<(), Exceeded> {
        let Some(limit) = quotas.max_denied_per_hour else { return Ok(()) };
        let mut state = self.state();
        if state.denied.is_empty() {
            return Ok(());
        }
        let now = state.now(self.boot());
        let Some(denied) = state.denied_by(caller, now) else { return Ok(()) };
        // With a limit of 0 the first refused attempt is one too many, and not the first call.
        exceeded(&denied.window, DENIED, Some(limit), now, limit.max(1)).map_or(Ok(()), Err)
    }

    /// Counts a refused attempt of `caller`: so many of them, in any 60 minutes, are told why they
    /// were refused.
    ///
    /// The first 16 callers of a tenant that are refused within an hour are counted one by one; all
    /// others, also those that were never refused, share one count while there are so many. Who is
    /// counted alone after that begins at zero.
    ///
    /// # Errors
    ///
    /// [`Exceeded`]: it was one too many, and is to be answered with this.
    pub fn deny(self: &Arc<Self>, quotas: &Quotas, caller: &str) -> Result<(), Exceeded> {
        let boot = self.boot();
        let (is_first, result) = {
            let mut state = self.state();
            let now = state.now(boot);
            let window = state.denied_window(caller, now);
            let limit = quotas.max_denied_per_hour;
            let is_one_too_many = limit.is_some_and(|limit| window.total() >= limit);
            if !is_one_too_many || window.total() == 0 {
                window.count();
            }
            let result = match limit.filter(|_| is_one_too_many) {
                Some(most) => exceeded(window, DENIED, limit, now, most.max(1)),
                None => None,
            };
            (state.change(), result)
        };
        self.note(is_first);
        result.map_or(Ok(()), Err)
    }

    /// What is used of `quotas`; of refused attempts, what `caller` has used.
    pub fn usage(&self, quotas: &Quotas, caller: &str) -> [Usage; 4] {
        let (wall, boot) = (self.shared.clock.now(), self.boot());
        let mut state = self.state();
        let now = state.now(boot);
        state.advance(now);
        let at = |seconds: Option<u64>| {
            let seconds = jiff::SignedDuration::from_secs(i64::try_from(seconds?).ok()?);
            // Windows go by whole seconds; who comes then must not be early.
            let begun = i64::from(wall.subsec_nanosecond() > 0);
            Timestamp::from_second(wall.as_second() + begun).ok()?.checked_add(seconds).ok()
        };
        let denied = state.denied_by(caller, now);
        let denied = denied.map(|denied| (denied.window.total(), at(denied.window.resets_in(now))));
        let (denied, denied_reset) = denied.unwrap_or_default();
        let usage = |quota, limit, used, resets_at| Usage { quota, limit, used, resets_at };
        let (hour, day) = (&state.hour, &state.day);
        let concurrent = quotas.max_concurrent_connections.map(u64::from);
        [
            usage(PER_HOUR, quotas.max_queries_per_hour, hour.total(), at(hour.resets_in(now))),
            usage(PER_DAY, quotas.max_queries_per_day, day.total(), at(day.resets_in(now))),
            usage(CONCURRENT, concurrent, state.running.into(), None),
            usage(DENIED, quotas.max_denied_per_hour, denied, denied_reset),
        ]
    }

    /// Who was refused in the last 60 minutes, and how often. The empty name is of all that are not
    /// counted one by one.
    pub fn denied(&self) -> Vec<(String, u64)> {
        let boot = self.boot();
        let mut state = self.state();
        let now = state.now(boot);
        state.forget_denied(now);
        let denied = state.denied.iter();
        denied.map(|denied| (denied.caller.to_string(), denied.window.total())).collect()
    }

    /// Whether it has counted since it was taken to be saved: it is among the changed ones then.
    pub(super) fn is_changed(&self) -> bool {
        self.state().is_changed
    }

    /// Has it among the changed ones, once.
    pub(super) fn set_changed(self: &Arc<Self>) {
        let is_first = self.state().change();
        self.note(is_first);
    }

    /// It is taken out of the changed ones: what it has counted until now is to be saved by whoever
    /// did so.
    pub(super) fn set_taken(&self) {
        self.state().is_changed = false;
    }

    fn boot(&self) -> u64 {
        self.shared.clock.boot().as_secs()
    }

    /// Has whoever saves know of the first change since the last time.
    fn note(self: &Arc<Self>, is_first: bool) {
        if is_first {
            self.shared.changed().push(Arc::downgrade(self));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // After a panic, which there is none, a count too many at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Nothing is counted. Time begins with that of the wall clock, so that steps do so, too.
    fn new(clock: &dyn Clock) -> Self {
        let time = u64::try_from(clock.now().as_second()).unwrap_or(0);
        Self {
            origin: (time, clock.boot().as_secs()),
            resets: 0,
            running: 0,
            hour: Sliding::new(),
            day: Sliding::new(),
            denied: Vec::new(),
            is_restored: false,
            is_changed: false,
        }
    }

    /// The meter's time when so many seconds have gone by since boot.
    fn now(&self, boot: u64) -> u64 {
        let (time, since) = self.origin;
        time + boot.saturating_sub(since)
    }

    fn advance(&mut self, now: u64) {
        self.hour.advance(now);
        self.day.advance(now);
    }

    fn admit(&mut self, boot: u64, quotas: &Quotas) -> Result<(), Exceeded> {
        let now = self.now(boot);
        self.advance(now);
        if quotas.max_concurrent_connections == Some(0) {
            return Err(Exceeded { quota: CONCURRENT, limit: 0, retry_after: None });
        }
        let hour = quotas.max_queries_per_hour;
        let hour = exceeded(&self.hour, PER_HOUR, hour, now, hour.unwrap_or(0));
        let day = quotas.max_queries_per_day;
        let day = exceeded(&self.day, PER_DAY, day, now, day.unwrap_or(0));
        match (hour, day) {
            (None, None) => Ok(()),
            (Some(only), None) | (None, Some(only)) => Err(only),
            (Some(hour), Some(day)) => {
                let wait = |exceeded: &Exceeded| exceeded.retry_after.unwrap_or(Duration::MAX);
                Err(if wait(&hour) >= wait(&day) { hour } else { day })
            }
        }
    }

    /// Says that something has changed, and whether it is the first time since that was taken.
    fn change(&mut self) -> bool {
        !std::mem::replace(&mut self.is_changed, true)
    }

    /// The name that `caller` is counted by: its own, unless as many others have windows as may.
    fn denied_name<'a>(&self, caller: &'a str) -> &'a str {
        let own = name_of(caller);
        let mut named = self.denied.iter().filter(|denied| !denied.caller.is_empty());
        let has_window = named.clone().any(|denied| *denied.caller == *own);
        if has_window || named.nth(MAX_CALLERS - 1).is_none() { own } else { "" }
    }

    /// The window that `caller` is counted in, if there is one.
    fn denied_by(&mut self, caller: &str, now: u64) -> Option<&mut Denied> {
        self.forget_denied(now);
        let name = self.denied_name(caller);
        self.denied.iter_mut().find(|denied| *denied.caller == *name)
    }

    /// The same, which begins if there is none.
    fn denied_window(&mut self, caller: &str, now: u64) -> &mut DeniedHour {
        self.forget_denied(now);
        let name = self.denied_name(caller);
        let place = self.denied.iter().position(|denied| *denied.caller == *name);
        let place = place.unwrap_or_else(|| {
            let mut window = DeniedHour::new();
            window.advance(now);
            self.denied.push(Denied { caller: name.into(), window });
            self.denied.len() - 1
        });
        &mut self.denied[place].window
    }

    /// Drops the windows in which nothing is left.
    fn forget_denied(&mut self, now: u64) {
        self.denied.retain_mut(|denied| {
            denied.window.advance(now);
            denied.window.total() > 0
        });
    }

    fn saved(&mut self, shared: &Shared) -> Saved {
        let boot = shared.clock.boot().as_secs();
        let time = self.now(boot);
        self.advance(time);
        self.forget_denied(time);
        let denied = self.denied.iter();
        Saved {
            wall: shared.clock.now().as_second(),
            boot_id: shared.boot_id.unwrap_or_default(),
            boot,
            time,
            hour: self.hour.slots(),
            day: self.day.slots(),
            denied: denied.map(|it| (it.caller.clone(), it.window.slots())).collect(),
        }
    }

    fn restore(&mut self, saved: &Saved, shared: &Shared) -> Result<(), Malformed> {
        let boot = shared.clock.boot().as_secs();
        let elapsed = if shared.boot_id == Some(saved.boot_id) {
            boot.saturating_sub(saved.boot)
        } else {
            let elapsed = i128::from(shared.clock.now().as_second()) - i128::from(saved.wall);
            // A clock that was set back: no time.
            u64::try_from(elapsed.max(0)).unwrap_or(u64::MAX)
        };
        let hour = Sliding::from_slots(saved.time, &saved.hour).ok_or(Malformed)?;
        let day = Sliding::from_slots(saved.time, &saved.day).ok_or(Malformed)?;
        let denied = saved.denied.iter().map(|(caller, slots)| {
            let window = DeniedHour::from_slots(saved.time, slots)?;
            Some(Denied { caller: caller.clone(), window })
        });
        let denied = denied.collect::<Option<Vec<_>>>().ok_or(Malformed)?;
        if elapsed < FORGOTTEN_AFTER {
            self.origin = (saved.time + elapsed, boot);
            (self.hour, self.day, self.denied) = (hour, day, denied);
        }
        Ok(())
    }
}

impl Permit {
    /// To be held while the statement waits for a session.
    pub fn unbegun(&self) -> Unbegun<'_> {
        Unbegun { permit: self }
    }
}

impl Unbegun<'_> {
    /// It has one, and counts from here on, whatever comes of it.
    pub fn begun(self) {
        self.permit.is_settled.store(true, Ordering::Relaxed);
    }
}

impl Drop for Unbegun<'_> {
    fn drop(&mut self) {
        if !self.permit.is_settled.swap(true, Ordering::Relaxed) {
            self.permit.meter.take_back(self.permit.counted);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.meter.state();
        state.running = state.running.saturating_sub(1);
    }
}

/// Whether `window` has counted as much as `quota` allows. It frees once there is less than `below`.
fn exceeded<const SLOTS: usize, const STEP: u64>(
    window: &Sliding<SLOTS, STEP>,
    quota: &'static str,
    limit: Option<u64>,
    now: u64,
    below: u64,
) -> Option<Exceeded> {
    let limit = limit.filter(|_| window.total() >= below)?;
    let seconds = window.frees_in(now, below);
    let retry_after = seconds.map(|seconds| Duration::from_secs(seconds.max(1)));
    Some(Exceeded { quota, limit, retry_after })
}

/// What a caller is known by. One with a longer name has to have seen to it that this tells it apart.
fn name_of(caller: &str) -> &str {
    &caller[..caller.floor_char_boundary(MAX_CALLER)]
}
