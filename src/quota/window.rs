//! A count that slides: how often something happened in the last so many seconds.

/// Counts per step, in a ring. One slot more than the window has steps: the step that is partly
/// inside. What happened in a step counts until all of the step is out of the window, so in *any*
/// window there is never more than what is counted.
///
/// Time is in seconds, from whatever beginning, and what was set back is not gone back to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Sliding<const SLOTS: usize, const STEP: u64> {
    counts: [u32; SLOTS],
    /// The newest step that `counts` covers.
    newest: u64,
    /// The sum of `counts`.
    total: u64,
}

/// Statements in 60 minutes.
pub(super) type Hour = Sliding<61, 60>;
/// Statements in 24 hours.
pub(super) type Day = Sliding<97, 900>;
/// Refused attempts in 60 minutes.
pub(super) type DeniedHour = Sliding<13, 300>;

/// The slots in use: how many steps ago, and what was counted then.
pub(super) type Slots = Vec<(u8, u32)>;

impl<const SLOTS: usize, const STEP: u64> Sliding<SLOTS, STEP> {
    pub(super) fn new() -> Self {
        Self { counts: [0; SLOTS], newest: 0, total: 0 }
    }

    /// What has been counted, as of the last [`Self::advance`].
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Forgets what is out of the window.
    pub(super) fn advance(&mut self, now: u64) {
        let step = now / STEP;
        if step.saturating_sub(self.newest) >= SLOTS as u64 {
            self.counts = [0; SLOTS];
            self.total = 0;
        } else {
            for gone in self.newest + 1..=step {
                let slot = Self::slot(gone);
                self.total -= u64::from(std::mem::take(&mut self.counts[slot]));
            }
        }
        self.newest = self.newest.max(step);
    }

    /// Counts one more, now: [`Self::advance`] comes before.
    pub(super) fn count(&mut self) {
        let count = &mut self.counts[Self::slot(self.newest)];
        // Four milliards in a step are not reached.
        if let Some(more) = count.checked_add(1) {
            *count = more;
            self.total += 1;
        }
    }

    /// Takes back one that was counted at the time `then`, if it counts still.
    pub(super) fn take_back(&mut self, then: u64) {
        let step = then / STEP;
        let is_covered = step <= self.newest && self.newest - step < SLOTS as u64;
        let count = &mut self.counts[Self::slot(step)];
        if is_covered && *count > 0 {
            *count -= 1;
            self.total -= 1;
        }
    }

    /// In how many seconds less than `limit` will be counted, if nothing comes to it: 0 when it is
    /// less now, and nothing when it never will be.
    pub(super) fn frees_in(&self, now: u64, limit: u64) -> Option<u64> {
        let mut left = self.total;
        if left < limit {
            return Some(0);
        }
        for step in self.steps() {
            left -= u64::from(self.counts[Self::slot(step)]);
            if left < limit {
                return Some(Self::leaves(step).saturating_sub(now));
            }
        }
        None
    }

    /// In how many seconds the oldest of what is counted stops counting.
    pub(super) fn resets_in(&self, now: u64) -> Option<u64> {
        if self.total == 0 { None } else { self.frees_in(now, self.total) }
    }

    /// What is counted, the newest first.
    pub(super) fn slots(&self) -> Slots {
        let slots = (0_u8..).zip(self.steps().rev());
        let slots = slots.map(|(age, step)| (age, self.counts[Self::slot(step)]));
        slots.filter(|(_, count)| *count > 0).collect()
    }

    /// A window that at the time `now` has counted `slots`. Nothing when there can be none.
    pub(super) fn from_slots(now: u64, slots: &Slots) -> Option<Self> {
        let mut window = Self { newest: now / STEP, ..Self::new() };
        let mut least = 0;
        for (age, count) in slots {
            let step = window.newest.checked_sub(u64::from(*age))?;
            if usize::from(*age) < least || usize::from(*age) >= SLOTS || *count == 0 {
                return None;
            }
            least = usize::from(*age) + 1;
            window.counts[Self::slot(step)] = *count;
            window.total += u64::from(*count);
        }
        Some(window)
    }

    /// Every step that is covered, the oldest first.
    fn steps(&self) -> impl DoubleEndedIterator<Item = u64> + use<SLOTS, STEP> {
        self.newest.saturating_sub(SLOTS as u64 - 1)..=self.newest
    }

    /// When `step` is out of the window.
    fn leaves(step: u64) -> u64 {
        (step + SLOTS as u64) * STEP
    }

    fn slot(step: u64) -> usize {
        usize::try_from(step % SLOTS as u64).unwrap_or(0)
    }
}
