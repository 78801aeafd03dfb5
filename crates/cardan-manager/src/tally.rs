//! What a plugin was asked and how long it took, counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cardan_api::Fault;
use serde::Serialize;

use crate::decision::Outcome;
use crate::seat::Seat;

/// Durations below 2^7 ns share the first bucket.
const FIRST_OCTAVE: u32 = 7;
/// Up to 2^36 ns, which is 69 s.
const OCTAVES: usize = 29;
/// Buckets for each doubling: durations are known within 12 %.
const STEPS: usize = 8;
const BUCKETS: usize = OCTAVES * STEPS;

/// Counts of one version, hook by hook.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    seats: [SeatTally; Seat::ALL.len()],
}

/// Counts at one hook.
#[derive(Debug, Default)]
pub(crate) struct SeatTally {
    continued: AtomicU64,
    stopped: AtomicU64,
    skipped: AtomicU64,
    refused: AtomicU64,
    fell_back: AtomicU64,
    faults: [AtomicU64; Fault::ALL.len()],
    durations: Histogram,
}

/// How often which durations were seen. Recording is one addition; nothing is ever sorted.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Box<[AtomicU64; BUCKETS]>,
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = Box::new([const { AtomicU64::new(0) }; BUCKETS]);
        Self { buckets, sum_ns: AtomicU64::new(0), max_ns: AtomicU64::new(0) }
    }
}

/// Counts at one hook, as they stood at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HookCounts {
    /// [`cardan_api::Hook::NAME`].
    pub hook: &'static str,
    /// Questions that were asked, or that a quarantine kept from being asked.
    pub calls: u64,
    /// Verdicts to go on.
    pub continued: u64,
    /// Verdicts to stop.
    pub stopped: u64,
    /// Faults after which the visit went on.
    pub skipped: u64,
    /// Faults after which it was refused.
    pub refused: u64,
    /// Faults of a canary, after which the active version was asked.
    pub fell_back: u64,
    /// How many of each fault, those that never happened left out.
    pub faults: Vec<(Fault, u64)>,
    /// From the question to the verdict or fault.
    pub durations: Durations,
}

/// A distribution of durations.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Durations {
    /// How many.
    pub count: u64,
    /// All together, in seconds.
    pub sum_seconds: f64,
    /// The longest, in seconds.
    pub max_seconds: f64,
    /// Half took no longer, in seconds, within 12 %.
    pub p50_seconds: f64,
    /// 95 of 100 took no longer.
    pub p95_seconds: f64,
    /// 99 of 100 took no longer.
    pub p99_seconds: f64,
    /// Upper bounds in seconds, and how many took no longer. Each bound is twice the one before.
    #[serde(skip)]
    pub cumulative: Vec<(f64, u64)>,
}

impl Tally {
    pub(crate) fn count(&self, seat: Seat, outcome: Outcome, duration: Duration) {
        let tally = &self.seats[seat as usize];
        let (counter, fault) = match outcome {
            Outcome::Continued => (&tally.continued, None),
            Outcome::Stopped => (&tally.stopped, None),
            Outcome::Skipped(fault) => (&tally.skipped, Some(fault)),
            Outcome::Refused(fault) => (&tally.refused, Some(fault)),
            Outcome::FellBack(fault) => (&tally.fell_back, Some(fault)),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(fault) = fault {
            let at = Fault::ALL.iter().position(|known| *known == fault);
            if let Some(count) = at.and_then(|at| tally.faults.get(at)) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        if fault != Some(Fault::Quarantined) {
            tally.durations.record(duration);
        }
    }

    /// Hooks that were never asked are left out.
    pub(crate) fn counts(&self) -> Vec<HookCounts> {
        let counts = Seat::ALL.iter().map(|seat| self.seats[*seat as usize].counts(seat.hook()));
        counts.filter(|counts| counts.calls > 0).collect()
    }
}

impl SeatTally {
    fn counts(&self, hook: &'static str) -> HookCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let faults = Fault::ALL.into_iter().zip(self.faults.iter().map(read)).filter(|(_, count)| *count > 0);
        let [continued, stopped, skipped, refused, fell_back] =
            [&self.continued, &self.stopped, &self.skipped, &self.refused, &self.fell_back].map(read);
        HookCounts {
            hook,
            calls: continued + stopped + skipped + refused + fell_back,
            continued,
            stopped,
            skipped,
            refused,
            fell_back,
            faults: faults.collect(),
            durations: self.durations.read(),
        }
    }
}

impl Histogram {
    fn record(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(ns)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }

    fn read(&self) -> Durations {
        let counts: Vec<u64> = self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let count = counts.iter().sum();
        let max_seconds = seconds(self.max_ns.load(Ordering::Relaxed));
        let quantile = |share: f64| quantile(&counts, count, share).min(max_seconds);
        let mut below = 0;
        let cumulative = counts.chunks(STEPS).enumerate().map(|(octave, counts)| {
            below += counts.iter().sum::<u64>();
            (seconds(1 << (FIRST_OCTAVE + u32::try_from(octave).unwrap_or(0))), below)
        });
        Durations {
            count,
            sum_seconds: seconds(self.sum_ns.load(Ordering::Relaxed)),
            max_seconds,
            p50_seconds: quantile(0.5),
            p95_seconds: quantile(0.95),
            p99_seconds: quantile(0.99),
            cumulative: cumulative.collect(),
        }
    }
}

/// The bucket of a duration. Bucket `i` of octave `o` ends at 2^(o-1) * (1 + (i+1)/8).
fn bucket(ns: u64) -> usize {
    if ns <= 1 << FIRST_OCTAVE {
        return STEPS - 1;
    }
    // Of the duration just below, so that a bound belongs to the bucket that ends there.
    let below = ns - 1;
    let octave = below.ilog2() - FIRST_OCTAVE + 1;
    let step = (below >> (below.ilog2() - STEPS.ilog2())) as usize & (STEPS - 1);
    (octave as usize * STEPS + step).min(BUCKETS - 1)
}

fn upper_ns(bucket: usize) -> f64 {
    let octave = i32::try_from(bucket / STEPS).unwrap_or(0) + FIRST_OCTAVE.cast_signed() - 1;
    2f64.powi(octave) * (1.0 + (bucket % STEPS + 1) as f64 / STEPS as f64)
}

fn quantile(counts: &[u64], count: u64, share: f64) -> f64 {
    if count == 0 {
        return 0.0;
    }
    let wanted = (count as f64 * share).ceil();
    let mut below = 0;
    let at = counts.iter().position(|count| {
        below += count;
        below as f64 >= wanted
    });
    upper_ns(at.unwrap_or(BUCKETS - 1)) / 1e9
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_it_says() {
        for ns in (0..40).map(|power| 1u64 << power).flat_map(|ns| [ns - ns / 3, ns - 1, ns, ns + 1]) {
            let upper = upper_ns(bucket(ns));
            let last = bucket(ns) == BUCKETS - 1;
            assert!(last || ns as f64 <= upper, "{ns} is in the bucket up to {upper}");
            assert!(ns <= 128 || last || ns as f64 > upper / 1.126, "{ns} is far below {upper}");
        }
    }

    /// The acceptance case of HeliosProxy's specification whose original answers 1 ms.
    #[test]
    fn half_10_us_and_half_1000_us() {
        let tally = Tally::default();
        for micros in [10, 1000].repeat(10_000) {
            tally.count(Seat::Request, Outcome::Continued, Duration::from_micros(micros));
        }
        let [counts] = &tally.counts()[..] else { panic!("one hook") };
        let Durations { count, sum_seconds, p50_seconds, p99_seconds, max_seconds, .. } = counts.durations;
        assert_eq!((counts.calls, count, max_seconds), (20_000, 20_000, 0.001));
        assert!((sum_seconds / 20_000.0 - 505e-6).abs() < 1e-9);
        assert!((10e-6..11.3e-6).contains(&p50_seconds), "{p50_seconds}");
        assert!((0.001..=0.001).contains(&p99_seconds), "{p99_seconds}");
    }
}
