//! What it costs to count a statement: a permit taken and given back, beside a counter in a map under
//! a lock in the same run. Both take turns; the ratio is the median over the turns.
//!
//! `./dev bench --bench quota`

#![expect(clippy::unwrap_used, reason = "a failed set-up should end the bench")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_methods, reason = "the machine's clock")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use jiff::Timestamp;
use tenantry::clock::SystemClock;
use tenantry::quota::{Limiter, Meter};
use tenantry::tenant::{IdRule, Quotas, TenantId};

/// How often the two take turns, and calls in each turn.
const TURNS: usize = 301;
const PER_TURN: u32 = 1_000;
const TENANTS: usize = 1_000;
/// Most nanoseconds for one statement.
const LIMIT: f64 = 200.0;

fn main() {
    let ids: Vec<TenantId> = (0..TENANTS)
        .map(|number| TenantId::parse(&format!("tenant{number:05}"), IdRule::Alphanumeric).unwrap())
        .collect();
    let limiter = Limiter::new(Arc::new(SystemClock));
    let meters: Vec<Arc<Meter>> = ids
        .iter()
        .map(|id| {
            let meter = limiter.meter(id, Timestamp::UNIX_EPOCH);
            meter.restore(None).unwrap();
            meter
        })
        .collect();
    let quotas = Quotas {
        max_queries_per_hour: Some(u64::MAX),
        max_queries_per_day: Some(u64::MAX),
        max_concurrent_connections: Some(5),
        max_denied_per_hour: Some(10),
    };
    let counters = Mutex::new(ids.iter().map(|id| (id.clone(), 0_u64)).collect::<HashMap<_, _>>());

    println!("{:34} {:>8} {:>8} {:>8}  limit", "one statement", "bare ns", "ours ns", "ratio");
    let mut rows = Vec::new();
    for _ in 0..TURNS {
        let bare = nanoseconds(|at| {
            let mut counters = counters.lock().unwrap();
            *counters.get_mut(&ids[at]).unwrap() += 1;
        });
        let ours = nanoseconds(|at| {
            let meter = &meters[at];
            meter.check_denied(&quotas, "tok_0123456789ab").unwrap();
            drop(black_box(meter.acquire(&quotas).unwrap()));
        });
        // As twice a second: who counts next is the first one again.
        limiter.take_changed().iter().for_each(|meter| drop(meter.save()));
        rows.push((bare, ours, ours / bare));
    }
    let median = |of: fn(&(f64, f64, f64)) -> f64| {
        let mut values: Vec<f64> = rows.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (bare, ours, ratio) = (median(|row| row.0), median(|row| row.1), median(|row| row.2));
    let verdict = if ours <= LIMIT { "ok" } else { "MISSED" };
    println!("{:34} {bare:>8.0} {ours:>8.0} {ratio:>8.2}  <= {LIMIT} ns {verdict}", "count it");
}

fn nanoseconds(mut work: impl FnMut(usize)) -> f64 {
    let began = Instant::now();
    for turn in 0..PER_TURN as usize {
        work(black_box(turn % TENANTS));
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(PER_TURN)
}
