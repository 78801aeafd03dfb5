//! Taking out a plugin that keeps failing, and letting it in again.
//!
//! A circuit breaker. Closed: every visit asks. Open, which is *quarantine*: nobody asks, and the bindings'
//! fault policies decide. Half-open: after a while one visit tries, and its verdict closes the circuit while
//! its fault opens it for longer.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use cardan_api::Fault;

use crate::spec::HealthPolicy;

/// Most often that a backoff is doubled.
const DOUBLINGS_MAX: u32 = 4;

/// How one version of a plugin has been doing. Times are milliseconds of the ledger's clock.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Faults without a verdict between them.
    in_a_row: AtomicU32,
    /// When the next visit may try; 0 while there is no quarantine.
    until_ms: AtomicU64,
    /// Tries that have failed.
    tries: AtomicU32,
    /// A visit is trying.
    trying: AtomicBool,
}

/// What became of a plugin's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Quarantined { until_ms: u64, faults: u32 },
    Recovered,
}

/// The right to ask. Dropped without a word, as when the client leaves, it counts as nothing.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    health: &'a Health,
    is_try: bool,
}

impl Health {
    /// `None` in quarantine.
    pub(crate) fn attempt(&self, now_ms: u64) -> Option<Attempt<'_>> {
        let until_ms = self.until_ms.load(Ordering::Acquire);
        if until_ms == 0 {
            return Some(Attempt { health: self, is_try: false });
        }
        let may_try = now_ms >= until_ms && !self.trying.swap(true, Ordering::AcqRel);
        may_try.then_some(Attempt { health: self, is_try: true })
    }

    /// When the next visit may try, if this is in quarantine.
    pub(crate) fn quarantined_until_ms(&self) -> Option<u64> {
        Some(self.until_ms.load(Ordering::Acquire)).filter(|until_ms| *until_ms > 0)
    }

    pub(crate) fn faults_in_a_row(&self) -> u32 {
        self.in_a_row.load(Ordering::Relaxed)
    }

    /// Ends a quarantine by decree. Whether there was one.
    pub(crate) fn release(&self) -> bool {
        self.in_a_row.store(0, Ordering::Relaxed);
        self.tries.store(0, Ordering::Relaxed);
        self.until_ms.swap(0, Ordering::AcqRel) > 0
    }
}

impl Attempt<'_> {
    pub(crate) fn succeeded(self) -> Option<Change> {
        if self.health.in_a_row.load(Ordering::Relaxed) > 0 {
            self.health.in_a_row.store(0, Ordering::Relaxed);
        }
        if !self.is_try {
            return None;
        }
        self.health.tries.store(0, Ordering::Relaxed);
        (self.health.until_ms.swap(0, Ordering::AcqRel) > 0).then_some(Change::Recovered)
    }

    pub(crate) fn faulted(self, fault: Fault, policy: HealthPolicy, now_ms: u64) -> Option<Change> {
        if !counts(fault) {
            return None;
        }
        let health = self.health;
        let faults = health.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let backoff_ms = u64::try_from(policy.backoff.as_millis()).unwrap_or(u64::MAX).max(1);
        if self.is_try {
            let tries = health.tries.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            let until_ms = now_ms.saturating_add(backoff_ms.saturating_mul(1 << tries.min(DOUBLINGS_MAX)));
            // Not after an operator has let it in again.
            let now = health
                .until_ms
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |until| (until > 0).then_some(until_ms));
            return now.is_ok().then_some(Change::Quarantined { until_ms, faults });
        }
        if policy.faults_max == 0 || faults < policy.faults_max {
            return None;
        }
        let until_ms = now_ms.saturating_add(backoff_ms);
        let first = health.until_ms.compare_exchange(0, until_ms, Ordering::AcqRel, Ordering::Acquire);
        first.is_ok().then_some(Change::Quarantined { until_ms, faults })
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.is_try {
            self.health.trying.store(false, Ordering::Release);
        }
    }
}

/// Whether a fault says something about the plugin. Overload and a failing backend do not.
fn counts(fault: Fault) -> bool {
    !matches!(fault, Fault::Busy | Fault::Host | Fault::Quarantined)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const POLICY: HealthPolicy = HealthPolicy { faults_max: 3, backoff: Duration::from_millis(100) };

    fn fault(health: &Health, now_ms: u64) -> Option<Change> {
        health.attempt(now_ms).unwrap().faulted(Fault::Trap, POLICY, now_ms)
    }

    #[test]
    fn three_in_a_row_and_half_open() {
        let health = Health::default();
        assert_eq!((fault(&health, 1), fault(&health, 2)), (None, None));
        assert_eq!(health.attempt(3).unwrap().succeeded(), None);
        assert_eq!((fault(&health, 4), fault(&health, 5)), (None, None), "a verdict between them");
        assert_eq!(fault(&health, 6), Some(Change::Quarantined { until_ms: 106, faults: 3 }));
        assert!(health.attempt(105).is_none());
        let trying = health.attempt(106).unwrap();
        assert!(health.attempt(107).is_none(), "one visit tries, not all");
        drop(trying);
        assert_eq!(fault(&health, 110), Some(Change::Quarantined { until_ms: 310, faults: 4 }));
        assert_eq!(fault(&health, 310), Some(Change::Quarantined { until_ms: 710, faults: 5 }), "for longer");
        assert_eq!(health.attempt(710).unwrap().succeeded(), Some(Change::Recovered));
        assert_eq!((health.faults_in_a_row(), health.quarantined_until_ms()), (0, None));
    }

    #[test]
    fn what_counts_and_what_an_operator_may() {
        let health = Health::default();
        for _ in 0..10 {
            assert_eq!(health.attempt(1).unwrap().faulted(Fault::Busy, POLICY, 1), None);
        }
        let never = HealthPolicy { faults_max: 0, ..POLICY };
        for _ in 0..10 {
            assert_eq!(health.attempt(1).unwrap().faulted(Fault::Trap, never, 1), None);
        }
        assert!(fault(&health, 5).is_some());
        let trying = health.attempt(500).unwrap();
        assert!(health.release() && !health.release());
        assert_eq!(trying.faulted(Fault::Trap, POLICY, 501), None, "released meanwhile");
        assert!(health.attempt(502).is_some());
    }
}
