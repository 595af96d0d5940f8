//! Refused attempts, by caller.

use super::*;

#[test]
fn who_is_refused_too_often_is_refused_unheard_until_the_window_slides() {
    let (clock, _, meter) = meter();
    let quotas = denied(2);
    for _ in 0..2 {
        meter.check_denied(&quotas, CALLER).unwrap();
        meter.deny(&quotas, CALLER).unwrap();
    }
    let exceeded = meter.check_denied(&quotas, CALLER).unwrap_err();
    assert_eq!((exceeded.quota, exceeded.limit), ("max_denied_per_hour", 2));
    // One that was under way by then is not told why.
    meter.deny(&quotas, CALLER).unwrap_err();
    meter.check_denied(&quotas, "tok_another00000").unwrap();
    drop(meter.acquire(&quotas).unwrap());
    let retry_after = exceeded.retry_after.unwrap();
    clock.advance(retry_after.saturating_sub(seconds(1)));
    meter.check_denied(&quotas, CALLER).unwrap_err();
    clock.advance(seconds(1));
    meter.check_denied(&quotas, CALLER).unwrap();
    assert!(meter.denied().is_empty());
}

#[test]
fn with_a_limit_of_zero_the_first_refused_attempt_is_one_too_many() {
    let (clock, _, meter) = meter();
    let quotas = denied(0);
    meter.check_denied(&quotas, CALLER).unwrap();
    let exceeded = meter.deny(&quotas, CALLER).unwrap_err();
    assert_eq!(meter.check_denied(&quotas, CALLER), Err(exceeded));
    clock.advance(exceeded.retry_after.unwrap());
    meter.check_denied(&quotas, CALLER).unwrap();
}

#[test]
fn many_refused_callers_are_counted_one_by_one_and_the_rest_together() {
    let (_, _, meter) = meter();
    let quotas = denied(2);
    let caller = |number: usize| format!("tok_{number:012}");
    for number in 0..MAX_CALLERS {
        meter.deny(&quotas, &caller(number)).unwrap();
    }
    meter.deny(&quotas, &caller(100)).unwrap();
    meter.deny(&quotas, &caller(101)).unwrap();
    meter.check_denied(&quotas, &caller(102)).unwrap_err();
    meter.check_denied(&quotas, &caller(0)).unwrap();
    assert_eq!(meter.denied().len(), MAX_CALLERS + 1);
    let long = "é".repeat(100);
    meter.check_denied(&quotas, &long).unwrap_err();
}

#[test]
fn once_fewer_are_refused_a_new_caller_is_counted_and_barred_by_itself_again() {
    let (clock, _, meter) = meter();
    let quotas = denied(1);
    let caller = |number: usize| format!("tok_{number:012}");
    for number in 0..=MAX_CALLERS {
        meter.deny(&quotas, &caller(number)).unwrap();
    }
    meter.check_denied(&quotas, "never refused").unwrap_err();
    assert_eq!(meter.usage(&quotas, "never refused")[3].used, 1);
    // Half an hour later somebody keeps the shared count alive, and then the others are forgotten.
    clock.advance(seconds(1_800));
    meter.deny(&denied(9), &caller(100)).unwrap();
    clock.advance(seconds(2_100));
    assert_eq!(meter.denied(), [(String::new(), 1)]);
    for number in 200..202 {
        meter.check_denied(&quotas, &caller(number)).unwrap();
        assert_eq!(meter.usage(&quotas, &caller(number))[3].used, 0);
        meter.deny(&quotas, &caller(number)).unwrap();
        meter.check_denied(&quotas, &caller(number)).unwrap_err();
    }
    assert_eq!(meter.denied().len(), 3);
}
