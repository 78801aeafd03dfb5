//! Measuring several variants in turn.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Most samples of one turn: more do not change a median.
const SAMPLES_MAX: usize = 20_000;
/// Calls at the beginning of a turn that only bring back the caches.
const WARM_UP: usize = 20;

/// Something to be timed, and what has to happen around it.
pub(crate) struct Variant<'a> {
    id: &'static str,
    /// What one call of `work` does so many times, for work that is too short for the clock.
    times: u32,
    prepare: Box<dyn FnMut() -> Result<()> + 'a>,
    work: Box<dyn FnMut() -> Result<()> + 'a>,
}

/// What was measured of one variant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Median of the best round: other processes only ever make a round worse.
    pub(crate) p50_ns: f64,
    /// Over all rounds, so it contains other processes' disturbance, and is an upper bound.
    pub(crate) p99_ns: f64,
}

/// Variants that are compared with each other.
#[derive(Default)]
pub(crate) struct Contest<'a> {
    variants: Vec<Variant<'a>>,
}

/// What a contest measured, by the variants' ids.
pub(crate) struct Results(HashMap<&'static str, Timing>);

impl Results {
    pub(crate) fn get(&self, id: &str) -> Result<Timing> {
        self.0.get(id).copied().with_context(|| format!("nothing was measured for {id}"))
    }
}

impl<'a> Contest<'a> {
    pub(crate) fn add<T>(&mut self, id: &'static str, work: impl FnMut() -> Result<T> + 'a) {
        self.add_prepared(id, || Ok(()), work);
    }

    pub(crate) fn add_repeated(
        &mut self,
        id: &'static str,
        times: u32,
        work: impl FnMut() -> Result<()> + 'a,
    ) {
        self.variants.push(Variant { id, times, prepare: Box::new(|| Ok(())), work: Box::new(work) });
    }

    /// Adds a variant that needs something done, untimed, before each timed piece of work.
    pub(crate) fn add_prepared<T>(
        &mut self,
        id: &'static str,
        prepare: impl FnMut() -> Result<()> + 'a,
        mut work: impl FnMut() -> Result<T> + 'a,
    ) {
        let work = move || {
            black_box(work()?);
            Ok(())
        };
        self.variants.push(Variant { id, times: 1, prepare: Box::new(prepare), work: Box::new(work) });
    }

    /// Repeats one variant's work and tells how often.
    pub(crate) fn spin(mut self, id: &str, time: Duration) -> Result<u64> {
        let variant = self.variants.iter_mut().find(|variant| variant.id == id);
        let variant = variant.with_context(|| format!("no variant {id}"))?;
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed() < time {
            (variant.prepare)()?;
            (variant.work)()?;
            done += 1;
        }
        Ok(done)
    }

    /// Gives every variant a turn in each round, and another one the first turn each time.
    pub(crate) fn run(mut self, rounds: usize, turn: Duration) -> Result<Results> {
        let clock_ns = clock_overhead_ns();
        let count = self.variants.len();
        let mut rounds_of: Vec<Vec<Vec<u64>>> = vec![Vec::new(); count];
        for round in 0..rounds {
            for place in 0..count {
                let index = (round + place) % count;
                let samples = self.variants[index].turn(turn).with_context(|| self.variants[index].id)?;
                rounds_of[index].push(samples);
            }
        }
        let timings = self.variants.iter().zip(rounds_of);
        Ok(Results(timings.map(|(variant, rounds)| (variant.id, variant.timing(rounds, clock_ns))).collect()))
    }
}

impl Variant<'_> {
    /// Nanoseconds of each piece of work in one turn.
    fn turn(&mut self, turn: Duration) -> Result<Vec<u64>> {
        for _ in 0..WARM_UP {
            (self.prepare)()?;
            (self.work)()?;
        }
        let mut samples = Vec::with_capacity(SAMPLES_MAX);
        let start = Instant::now();
        while samples.len() < SAMPLES_MAX && start.elapsed() < turn {
            (self.prepare)()?;
            let start = Instant::now();
            (self.work)()?;
            samples.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(samples)
    }

    fn timing(&self, rounds: Vec<Vec<u64>>, clock_ns: u64) -> Timing {
        let each = |ns: u64| ns.saturating_sub(clock_ns) as f64 / f64::from(self.times);
        let mut best = u64::MAX;
        let mut all = Vec::new();
        for mut round in rounds {
            best = best.min(quantile(&mut round, 50));
            all.append(&mut round);
        }
        Timing { p50_ns: each(best), p99_ns: each(quantile(&mut all, 99)) }
    }
}

fn quantile(samples: &mut [u64], percent: usize) -> u64 {
    samples.sort_unstable();
    samples
        .get((samples.len() * percent / 100).min(samples.len().saturating_sub(1)))
        .copied()
        .unwrap_or(u64::MAX)
}

/// What an empty measurement shows; taken off every sample.
fn clock_overhead_ns() -> u64 {
    let mut samples: Vec<u64> = (0..2000)
        .map(|_| {
            let start = Instant::now();
            u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
        })
        .collect();
    quantile(&mut samples, 50)
}
