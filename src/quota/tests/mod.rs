mod denied;

use proptest::prelude::*;

use super::meter::{CONCURRENT, MAX_CALLERS};
use super::saved::Saved;
use super::window::Slots;
use super::*;
use crate::clock::ManualClock;
use crate::tenant::{IdRule, Quotas};

const CALLER: &str = "tok_0123456789ab";

fn tenant() -> TenantId {
    TenantId::parse("tenant001", IdRule::Alphanumeric).unwrap()
}

fn moment(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn limiter() -> (Arc<ManualClock>, Limiter) {
    let clock = Arc::new(ManualClock::new(moment("2026-11-22T10:00:30Z")));
    (Arc::clone(&clock), Limiter::new(clock))
}

/// A meter that has counted nothing.
fn meter() -> (Arc<ManualClock>, Limiter, Arc<Meter>) {
    let (clock, limiter) = limiter();
    let meter = restored(&limiter, None);
    (clock, limiter, meter)
}

fn restored(limiter: &Limiter, saved: Option<&[u8]>) -> Arc<Meter> {
    let meter = limiter.meter(&tenant(), Timestamp::UNIX_EPOCH);
    meter.restore(saved).unwrap();
    meter
}

/// What a process knows that starts with what `meter` has saved.
fn restarted(clock: &Arc<ManualClock>, meter: &Meter) -> Arc<Meter> {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    restored(&Limiter::new(clock), Some(&meter.save()))
}

fn hourly(limit: u64) -> Quotas {
    Quotas { max_queries_per_hour: Some(limit), ..Quotas::default() }
}

fn denied(limit: u64) -> Quotas {
    Quotas { max_denied_per_hour: Some(limit), ..Quotas::default() }
}

fn used(meter: &Meter) -> u64 {
    meter.usage(&Quotas::default(), CALLER)[0].used
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_limit_holds_in_any_hour_and_frees_as_the_window_slides() {
    let (clock, _, meter) = meter();
    let quotas = hourly(3);
    for _ in 0..3 {
        drop(meter.acquire(&quotas).unwrap());
    }
    let exceeded = meter.acquire(&quotas).unwrap_err();
    assert_eq!((exceeded.quota, exceeded.limit), ("max_queries_per_hour", 3));
    let retry_after = exceeded.retry_after.unwrap();
    clock.advance(retry_after.saturating_sub(seconds(1)));
    meter.acquire(&quotas).unwrap_err();
    clock.advance(seconds(1));
    drop(meter.acquire(&quotas).unwrap());
}

#[test]
fn of_two_quotas_that_are_used_up_the_longer_wait_is_told() {
    let (_, _, meter) = meter();
    let quotas = Quotas { max_queries_per_day: Some(1), ..hourly(1) };
    drop(meter.acquire(&quotas).unwrap());
    let exceeded = meter.acquire(&quotas).unwrap_err();
    assert_eq!(exceeded.quota, "max_queries_per_day");
    assert!(exceeded.retry_after.unwrap() >= seconds(24 * 3_600));
    let never = Quotas { max_queries_per_day: Some(1), ..hourly(0) };
    assert_eq!(meter.acquire(&never).unwrap_err().retry_after, None);
}

#[test]
fn a_limit_that_was_lowered_says_when_enough_will_be_free() {
    let (clock, _, meter) = meter();
    for _ in 0..3 {
        drop(meter.acquire(&hourly(10)).unwrap());
        clock.advance(seconds(600));
    }
    // Two have to go, not one.
    let retry_after = meter.acquire(&hourly(2)).unwrap_err().retry_after.unwrap();
    clock.advance(retry_after.saturating_sub(seconds(1)));
    meter.acquire(&hourly(2)).unwrap_err();
    clock.advance(seconds(1));
    drop(meter.acquire(&hourly(2)).unwrap());
}

#[test]
fn absent_means_unlimited_and_zero_means_none() {
    let (_, _, meter) = meter();
    for _ in 0..10_000 {
        drop(meter.acquire(&Quotas::default()).unwrap());
    }
    let exceeded = meter.acquire(&hourly(0)).unwrap_err();
    assert_eq!(exceeded.retry_after, None);
}

#[test]
fn statements_at_the_same_moment_are_counted_until_they_are_over() {
    let (_, _, meter) = meter();
    let quotas = Quotas { max_concurrent_connections: Some(1), ..Quotas::default() };
    let first = meter.acquire(&quotas).unwrap();
    let second = meter.acquire(&quotas).unwrap();
    let running = || meter.usage(&quotas, CALLER)[2].used;
    assert_eq!(running(), 2);
    drop(first);
    assert_eq!(running(), 1);
    drop(second);
    assert_eq!(running(), 0);
    let none = Quotas { max_concurrent_connections: Some(0), ..Quotas::default() };
    assert_eq!(meter.acquire(&none).unwrap_err().quota, CONCURRENT);
}

#[test]
fn a_refused_statement_is_not_counted() {
    let (_, _, meter) = meter();
    drop(meter.acquire(&hourly(1)).unwrap());
    meter.acquire(&hourly(1)).unwrap_err();
    let [hour, day, ..] = meter.usage(&hourly(1), CALLER);
    assert_eq!((hour.used, day.used), (1, 1));
    assert_eq!(hour.resets_at.unwrap().to_string(), "2026-11-22T11:01:00Z");
}

#[test]
fn exactly_the_limit_passes_among_many_at_once() {
    let (_, _, meter) = meter();
    let passed = |attempt: &(dyn Fn() -> bool + Sync)| -> usize {
        std::thread::scope(|scope| {
            let attempts = || (0..100).filter(|_| attempt()).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(attempts)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        })
    };
    assert_eq!(passed(&|| meter.acquire(&hourly(250)).is_ok()), 250);
    assert_eq!(passed(&|| meter.deny(&denied(250), CALLER).is_ok()), 250);
}

#[test]
fn a_clock_that_is_set_frees_nothing_and_locks_nobody_out() {
    for wrong in ["2026-11-22T09:00:00Z", "1969-12-31T00:00:00Z", "9000-01-01T00:00:00Z"] {
        let (clock, _, meter) = meter();
        drop(meter.acquire(&hourly(1)).unwrap());
        clock.set(moment(wrong));
        let exceeded = meter.acquire(&hourly(1)).unwrap_err();
        let until = meter.usage(&hourly(1), CALLER)[0].resets_at.unwrap();
        assert_eq!(until.as_second() - clock.now().as_second(), 3_630, "{wrong}");
        clock.advance(exceeded.retry_after.unwrap());
        drop(meter.acquire(&hourly(1)).unwrap());
        clock.set(moment("2026-11-22T10:00:00Z"));
        let exceeded = meter.acquire(&hourly(1)).unwrap_err();
        clock.advance(exceeded.retry_after.unwrap());
        drop(meter.acquire(&hourly(1)).unwrap());
    }
}

#[test]
fn counts_go_on_where_they_were_after_a_restart() {
    let (clock, _, before) = meter();
    let quotas = Quotas { max_denied_per_hour: Some(1), ..hourly(2) };
    drop(before.acquire(&quotas).unwrap());
    before.deny(&quotas, CALLER).unwrap();
    clock.advance(seconds(1_800));
    drop(before.acquire(&quotas).unwrap());
    let wanted = before.acquire(&quotas).unwrap_err();
    clock.advance(seconds(10));
    // On the machine that goes on, whatever its clock was set to meanwhile.
    clock.set(moment("2030-01-01T00:00:00Z"));
    let after = restarted(&clock, &before);
    let told = after.acquire(&quotas).unwrap_err();
    assert_eq!(told.retry_after, wanted.retry_after.and_then(|wait| wait.checked_sub(seconds(10))));
    assert_eq!(after.denied(), [(CALLER.to_owned(), 1)]);
    after.check_denied(&quotas, CALLER).unwrap_err();
    assert_eq!(after.usage(&quotas, CALLER)[2].used, 0, "nothing runs");
}

#[test]
fn over_a_reboot_the_wall_clock_says_how_long_it_took() {
    let (clock, _, before) = meter();
    drop(before.acquire(&hourly(1)).unwrap());
    let saved = before.save();
    let reboot_at = |now: &str| {
        clock.reboot();
        clock.set(moment(now));
        let clock: Arc<dyn Clock> = Arc::clone(&clock) as _;
        restored(&Limiter::new(clock), Some(&saved))
    };
    let wait = |meter: &Arc<Meter>| meter.acquire(&hourly(1)).unwrap_err().retry_after.unwrap();
    assert_eq!(wait(&reboot_at("2026-11-22T10:30:30Z")), seconds(1_830));
    // Set back: no time has gone by, and from now on it does.
    let after = reboot_at("2026-11-21T10:30:30Z");
    assert_eq!(wait(&after), seconds(3_630));
    clock.advance(seconds(3_630));
    drop(after.acquire(&hourly(1)).unwrap());
    for long in ["2026-11-23T10:16:00Z", "9999-01-01T00:00:00Z"] {
        assert_eq!(used(&reboot_at(long)), 0, "{long}");
    }
}

#[test]
fn restarting_again_and_again_neither_frees_nor_keeps() {
    let (clock, _, mut meter) = meter();
    drop(meter.acquire(&hourly(1)).unwrap());
    for _ in 0..3_629 {
        clock.advance(seconds(1));
        meter = restarted(&clock, &meter);
        meter.acquire(&hourly(1)).unwrap_err();
    }
    clock.advance(seconds(1));
    drop(restarted(&clock, &meter).acquire(&hourly(1)).unwrap());
}

#[test]
fn a_meter_is_saved_once_for_what_it_counted_and_again_for_more() {
    let (_, limiter, meter) = meter();
    assert!(limiter.take_changed().is_empty());
    for _ in 0..3 {
        drop(meter.acquire(&Quotas::default()).unwrap());
    }
    let changed = limiter.take_changed();
    assert!(changed.len() == 1 && Arc::ptr_eq(&changed[0], &meter));
    drop(meter.acquire(&Quotas::default()).unwrap());
    meter.save();
    assert_eq!(limiter.take_changed().len(), 1, "it may have counted after that was saved");
    assert!(limiter.take_changed().is_empty());
}

#[test]
fn savings_that_fail_leave_a_meter_to_be_saved_once_however_much_it_counts_meanwhile() {
    let (_, limiter, meter) = meter();
    let count = || drop(meter.acquire(&Quotas::default()).unwrap());
    count();
    for _ in 0..3 {
        let changed = limiter.take_changed();
        assert_eq!(changed.len(), 1);
        changed[0].save();
        count();
        meter.reset();
        limiter.put_back(&changed[0]);
        limiter.put_back(&changed[0]);
        count();
    }
    assert_eq!(limiter.take_changed().len(), 1);
    // As nobody uses it any more, it is kept for whoever saves it.
    limiter.put_back(&meter);
    drop(meter);
    let changed = limiter.take_changed();
    assert_eq!(limiter.sweep(), 0);
    limiter.put_back(&changed[0]);
    drop(changed);
    assert_eq!(limiter.sweep(), 0);
    drop(limiter.take_changed());
    assert_eq!(limiter.sweep(), 1);
}

#[test]
fn what_is_saved_and_not_used_is_dropped_and_nothing_else() {
    let (_, limiter, meter) = meter();
    let permit = meter.acquire(&Quotas::default()).unwrap();
    assert_eq!(limiter.sweep(), 0);
    drop(meter);
    assert_eq!(limiter.sweep(), 0, "a statement runs");
    drop(permit);
    assert_eq!(limiter.sweep(), 0, "it is not saved");
    let saved = limiter.take_changed()[0].save();
    assert_eq!(limiter.sweep(), 1);
    assert!(limiter.existing(&tenant()).is_none());
    let meter = restored(&limiter, Some(&saved));
    assert_eq!(used(&meter), 1);
    meter.restore(None).unwrap();
    assert_eq!(used(&meter), 1, "it is restored once");
}

#[test]
fn a_tenant_that_came_back_begins_at_zero() {
    let (_, limiter, meter) = meter();
    drop(meter.acquire(&Quotas::default()).unwrap());
    let reborn = limiter.meter(&tenant(), moment("2026-11-22T10:00:00Z"));
    assert_eq!(used(&reborn), 0);
    assert!(!reborn.is_restored());
    assert!(Arc::ptr_eq(&reborn, &limiter.meter(&tenant(), reborn.born())));
    limiter.forget(&meter);
    assert!(limiter.existing(&tenant()).is_some(), "another one");
    limiter.forget(&reborn);
    assert!(limiter.existing(&tenant()).is_none());
    // Also when the clock was set back meanwhile.
    limiter.meter(&tenant(), reborn.born());
    assert_eq!(limiter.meter(&tenant(), meter.born()).born(), meter.born());
}

#[test]
fn a_reset_meter_has_counted_nothing_but_what_runs() {
    let (_, limiter, meter) = meter();
    let running = meter.acquire(&hourly(1)).unwrap();
    meter.deny(&denied(1), CALLER).unwrap();
    meter.save();
    meter.reset();
    let usages = meter.usage(&Quotas::default(), CALLER);
    assert_eq!(usages.map(|usage| usage.used), [0, 0, 1, 0]);
    assert_eq!(limiter.take_changed().len(), 1);
    drop(running);
    drop(meter.acquire(&hourly(1)).unwrap());
}

/// As docs/format.md has it.
#[test]
fn saved_counts_have_these_bytes() {
    let (clock, _, meter) = meter();
    drop(meter.acquire(&Quotas::default()).unwrap());
    clock.advance(seconds(90));
    drop(meter.acquire(&Quotas::default()).unwrap());
    drop(meter.acquire(&Quotas::default()).unwrap());
    meter.deny(&Quotas::default(), "tok").unwrap();
    let mut expected = vec![1];
    expected.extend(1_795_341_720_i64.to_be_bytes());
    expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    expected.extend(90_u64.to_be_bytes());
    expected.extend(1_795_341_720_u64.to_be_bytes());
    expected.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 1]);
    expected.extend([1, 0, 0, 0, 0, 3]);
    expected.extend([1, 3, b't', b'o', b'k', 1, 0, 0, 0, 0, 1]);
    assert_eq!(meter.save(), expected);
    assert_eq!(used(&restarted(&clock, &meter)), 3);
}

#[test]
fn the_largest_counts_fit_into_a_record() {
    let slots = |length: u8| (0..length).map(|age| (age, u32::MAX)).collect::<Slots>();
    let caller = || "x".repeat(MAX_CALLER).into();
    let saved = Saved {
        time: 1 << 30,
        hour: slots(61),
        day: slots(97),
        denied: (0..=MAX_CALLERS).map(|_| (caller(), slots(13))).collect(),
        ..Saved::default()
    };
    let bytes = saved.encode();
    assert!(bytes.len() <= 4_000, "{}", bytes.len());
    let (_, limiter) = limiter();
    limiter.meter(&tenant(), Timestamp::UNIX_EPOCH).restore(Some(&bytes)).unwrap();
}

#[test]
fn counts_of_another_form_are_refused_and_the_meter_stays_as_it_was() {
    let (_, limiter) = limiter();
    let meter = limiter.meter(&tenant(), Timestamp::UNIX_EPOCH);
    let with = |hour: Slots| Saved { time: 1 << 30, hour, ..Saved::default() };
    let wrong = [
        with(vec![(61, 1)]),
        with(vec![(3, 1), (3, 1)]),
        with(vec![(3, 1), (2, 1)]),
        with(vec![(0, 0)]),
        Saved { time: 60, hour: vec![(2, 1)], ..Saved::default() },
        Saved { time: u64::MAX, ..Saved::default() },
    ];
    for wrong in wrong {
        assert_eq!(meter.restore(Some(&wrong.encode())), Err(Malformed), "{wrong:?}");
    }
    let mut newer = with(vec![]).encode();
    newer[0] = 2;
    assert_eq!(meter.restore(Some(&newer)), Err(Malformed));
    assert!(!meter.is_restored());
    meter.restore(Some(&with(vec![(60, 1)]).encode())).unwrap();
}

fn slots() -> impl Strategy<Value = Slots> {
    proptest::collection::vec((any::<u8>(), any::<u32>()), 0..12)
}

#[derive(Clone, Debug)]
enum Step {
    Attempt,
    Advance(u64),
    SetClock(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Attempt),
        4 => (1..2_000_u64).prop_map(Step::Advance),
        1 => (1..100_000_u64).prop_map(Step::Advance),
        1 => (-5_000_000_000..200_000_000_000_i64).prop_map(Step::SetClock),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn saved_counts_are_read_as_they_were_written(
        wall in any::<i64>(),
        boot_id in any::<[u8; 16]>(),
        boot in any::<u64>(),
        time in 0..=(1_u64 << 40),
        hour in slots(),
        day in slots(),
        denied in proptest::collection::vec(("\\PC{0,10}", slots()), 0..5),
    ) {
        let denied = denied.into_iter().map(|(caller, slots)| (caller.into(), slots)).collect();
        let saved = Saved { wall, boot_id, boot, time, hour, day, denied };
        let bytes = saved.encode();
        prop_assert_eq!(Saved::decode(&bytes), Ok(saved));
        for length in 0..bytes.len() {
            prop_assert_eq!(Saved::decode(&bytes[..length]), Err(Malformed));
        }
        prop_assert_eq!(Saved::decode(&[&bytes[..], b"x"].concat()), Err(Malformed));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_restored(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        let (_, limiter) = limiter();
        let meter = limiter.meter(&tenant(), Timestamp::UNIX_EPOCH);
        if meter.restore(Some(&bytes)).is_ok() {
            drop(meter.acquire(&Quotas::default()).unwrap());
            meter.save();
        }
    }

    /// Whatever happens to the clock and the process: in no hour do more pass than may, who comes
    /// back when told so passes, and who comes a second earlier does not.
    #[test]
    fn no_hour_has_more_than_the_limit_and_every_wait_is_right(
        limit in 1..6_u64,
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let (clock, _, mut meter) = meter();
        let quotas = Quotas { max_queries_per_day: Some(4 * limit), ..hourly(limit) };
        let (mut passed, mut told) = (Vec::new(), None);
        for step in steps {
            let now = clock.boot().as_secs();
            match step {
                Step::Advance(by) => clock.advance(seconds(by)),
                Step::SetClock(to) => clock.set(Timestamp::from_second(to).unwrap()),
                Step::Restart => meter = restarted(&clock, &meter),
                Step::Attempt => match meter.acquire(&quotas) {
                    Ok(_) => {
                        prop_assert!(told.is_none_or(|at| now >= at), "early");
                        told = None;
                        passed.push(now);
                    }
                    Err(exceeded) => {
                        let at = now + exceeded.retry_after.unwrap().as_secs();
                        prop_assert!(told.is_none_or(|told| told == at), "{told:?} {at}");
                        told = Some(at);
                    }
                },
            }
        }
        for (index, from) in passed.iter().enumerate() {
            let within = |length| passed[index..].iter().take_while(|at| **at - from < length).count();
            prop_assert!(within(3_600) as u64 <= limit);
            prop_assert!(within(86_400) as u64 <= 4 * limit);
        }
    }
}

#[test]
fn a_statement_that_never_had_a_session_is_not_counted() {
    let (clock, _, meter) = meter();
    let quotas = hourly(2);
    let waits = meter.acquire(&quotas).unwrap();
    clock.advance(seconds(90));
    let runs = meter.acquire(&quotas).unwrap();
    runs.unbegun().begun();
    // One of several sessions, one after the other, that it asks for.
    drop(runs.unbegun());
    assert_eq!(used(&meter), 2);
    meter.acquire(&quotas).unwrap_err();
    // Given up twice: it is taken back once.
    drop(waits.unbegun());
    drop(waits.unbegun());
    assert_eq!(used(&meter), 1);
    assert_eq!(used(&restarted(&clock, &meter)), 1);
    drop(meter.acquire(&quotas).unwrap());
    meter.acquire(&quotas).unwrap_err();
}

#[test]
fn what_is_taken_back_after_a_reset_or_its_window_is_nobody_elses() {
    let (clock, _, meter) = meter();
    let quotas = hourly(2);
    let before_reset = meter.acquire(&quotas).unwrap();
    meter.reset();
    let before_window = meter.acquire(&quotas).unwrap();
    drop(before_reset.unbegun());
    assert_eq!(used(&meter), 1);
    clock.advance(seconds(2 * 3_600));
    drop(meter.acquire(&quotas).unwrap());
    drop(before_window.unbegun());
    assert_eq!(used(&meter), 1);
    assert_eq!(meter.usage(&quotas, CALLER)[1].used, 1, "of the day it is taken back");
}
