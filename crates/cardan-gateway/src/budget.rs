//! What bodies may take up while they are held, all exchanges together.
//!
//! Limits per body bound one exchange; ten thousand of them could still hold more than a machine has. So
//! whoever holds bytes takes them out of one budget first, as they arrive, and what was taken comes back
//! when the share is dropped, however an exchange ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes held at this moment.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    taken_bytes: AtomicUsize,
}

/// What one exchange, or a part of it, has taken out of the budget. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    /// Of all shares together.
    total_bytes_max: usize,
    bytes: usize,
}

/// All shares together have taken what there is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

impl Share {
    /// An empty one. `total_bytes_max` may change from configuration to configuration; each exchange goes
    /// by its own.
    pub(crate) fn of(budget: Arc<Budget>, total_bytes_max: usize) -> Self {
        Self { budget, total_bytes_max, bytes: 0 }
    }

    /// Another empty one, for what outlives this one or ends before it.
    pub(crate) fn sibling(&self) -> Self {
        Self::of(self.budget.clone(), self.total_bytes_max)
    }

    /// Takes more, or nothing.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let more = |taken: usize| taken.checked_add(bytes).filter(|total| *total <= self.total_bytes_max);
        let taken = self.budget.taken_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map_err(|_| Exhausted)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Makes this share so large. If there is not as much, it stays as it is.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), Exhausted> {
        match bytes.checked_sub(self.bytes) {
            // Nothing to touch what all threads share for.
            Some(0) => Ok(()),
            Some(more) => self.grow(more),
            None => {
                self.budget.taken_bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
                self.bytes = bytes;
                Ok(())
            }
        }
    }

    /// Takes over what another share of the same budget has.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Arc::new(Budget::default());
        let taken = || budget.taken_bytes.load(Ordering::Relaxed);
        let mut one = Share::of(budget.clone(), 10);
        let mut two = one.sibling();
        assert_eq!((one.grow(6), two.grow(5), two.grow(4)), (Ok(()), Err(Exhausted), Ok(())));
        assert_eq!((taken(), one.grow(usize::MAX), one.resize(7)), (10, Err(Exhausted), Err(Exhausted)));
        assert_eq!((one.resize(2), taken()), (Ok(()), 6));
        one.absorb(two);
        assert_eq!(taken(), 6);
        drop(one);
        assert_eq!(taken(), 0);
    }

    proptest! {
        #[test]
        fn shares_add_up(steps in proptest::collection::vec((0_usize..4, 0_usize..40), 0..60)) {
            let budget = Arc::new(Budget::default());
            let mut shares: Vec<Share> = (0..4).map(|_| Share::of(budget.clone(), 100)).collect();
            for (at, bytes) in steps {
                let _ = match bytes % 3 {
                    0 => shares[at].resize(bytes),
                    1 => shares[at].grow(bytes),
                    _ => {
                        shares[at] = Share::of(budget.clone(), 100);
                        Ok(())
                    }
                };
                let sum: usize = shares.iter().map(|share| share.bytes).sum();
                prop_assert!(sum <= 100);
                prop_assert_eq!(sum, budget.taken_bytes.load(Ordering::Relaxed));
            }
            drop(shares);
            prop_assert_eq!(budget.taken_bytes.load(Ordering::Relaxed), 0);
        }
    }
}
